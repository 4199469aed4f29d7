//! The SQLite store: conformance, group commit, summaries, two processes.

use subak_domain::{Action, Reason, RunStatus, StepId, StepOutcome, Version, Work};

use super::*;

fn open() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().expect("folder");
    let store = SqliteStore::open(&folder.path().join("state.db")).expect("open");
    (folder, store)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("time")
}

#[tokio::test]
async fn conforms() {
    let (_folder, store) = open();
    crate::conformance::store(&store, &store).await;
}

fn events(run: u64) -> Vec<(Timestamp, RunEvent)> {
    let asset: AssetKey = "silver.t".parse().expect("key");
    let step = StepId::asset(&asset);
    let action = Action {
        step: step.clone(),
        work: Work::Materialize { asset, full_refresh: false, range: None, partition: None },
        reason: Reason::Missing,
        needs: Vec::new(),
        rule: subak_domain::Rule::default(),
    };
    let outcome = StepOutcome {
        changed: run.is_multiple_of(2),
        version: Some(Version::of(&[])),
        row_count: Some(run),
        ..StepOutcome::default()
    };
    vec![
        (at(1), RunEvent::planned(vec![action], "all", "test", "")),
        (at(2), RunEvent::Started { holder: "me".into() }),
        (at(3), RunEvent::StepStarted { step: step.clone(), attempt: 1 }),
        (at(4), RunEvent::StepSucceeded { step, outcome }),
        (at(5), RunEvent::Finished { status: RunStatus::Succeeded }),
    ]
}

#[tokio::test]
async fn summaries_equal_their_rebuild() {
    let (_folder, store) = open();
    for number in 1..=5 {
        let run = RunId::from_parts(number, u128::from(number));
        store.append(Append { run, expected: 1, events: events(number), fence: None }).await.expect("append");
    }
    let (runs, snapshot) = (store.runs(10).expect("runs"), store.snapshot().expect("snapshot"));
    assert_eq!(runs.len(), 5);
    assert!(runs.iter().all(|run| run.status == RunStatus::Succeeded && run.ended_at == Some(at(5))));
    let mut folded = Snapshot::default();
    for event in store.read_after(0, 1000).await.expect("read") {
        folded.apply(&event);
    }
    assert_eq!(snapshot, folded, "the table is the fold");
    store.rebuild_summaries().await.expect("rebuild");
    assert_eq!((store.runs(10).expect("runs"), store.snapshot().expect("snapshot")), (runs, snapshot));
    assert!(store.open_runs().expect("open").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_commits_and_lose_nothing() {
    let (folder, store) = open();
    let writers = (1..=64_u64).map(|number| {
        let store = store.clone();
        async move {
            let run = RunId::from_parts(number, 7);
            for step in 0..10 {
                let events = vec![(at(1), RunEvent::Started { holder: step.to_string() })];
                store.append(Append { run, expected: step + 1, events, fence: None }).await.expect("append");
            }
        }
    });
    futures::future::join_all(writers).await;
    drop(store);
    let store = SqliteStore::open(&folder.path().join("state.db")).expect("open again");
    assert_eq!(store.read_after(0, 10_000).await.expect("read").len(), 640);
}

#[tokio::test]
async fn two_stores_on_one_file_see_each_other() {
    let (folder, first) = open();
    let second = SqliteStore::open(&folder.path().join("state.db")).expect("open");
    let run = RunId::from_parts(1, 1);
    first.append(Append { run, expected: 1, events: events(1), fence: None }).await.expect("append");
    let refused = second.append(Append { run, expected: 1, events: events(1), fence: None }).await;
    assert!(matches!(refused, Err(StoreError::Conflict { found: 5, .. })), "{refused:?}");
    assert_eq!(second.runs(10).expect("runs").len(), 1);
}

#[test]
fn garbage_is_damaged_not_a_panic() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("state.db");
    std::fs::write(&path, [7_u8; 4096]).expect("write");
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Damaged(_) | StoreError::Open { .. })));
}

/// A tick and its run are there together or not at all, and once.
#[tokio::test]
async fn a_tick_starts_one_run_or_none() {
    let (_folder, store) = open();
    let tick = |run: RunId| Tick {
        schedule: "nightly".into(),
        at: at(100),
        outcome: crate::TickOutcome::Started(run),
        recorded_at: at(101),
    };
    let planned = |run: RunId, expected: u64| {
        Some(Append { run, expected, events: vec![(at(101), RunEvent::planned(Vec::new(), "all", "test", ""))], fence: None })
    };
    let [first, second] = [1, 2].map(|number| RunId::from_parts(number, 7));
    // A run that cannot be planned leaves no tick behind.
    assert!(store.tick(tick(first), planned(first, 9), None).await.is_err());
    assert_eq!(store.ticks(None, 10).expect("ticks"), []);
    let fenced = Append { fence: Some(Lease { name: "project".into(), generation: 3 }), ..planned(first, 1).expect("a run") };
    assert!(matches!(store.tick(tick(first), Some(fenced), None).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.ticks(None, 10).expect("ticks"), []);
    assert!(store.tick(tick(first), planned(first, 1), None).await.expect("a tick"));
    // Whoever comes second finds that it was there.
    assert!(!store.tick(tick(second), planned(second, 1), None).await.expect("a tick"));
    assert_eq!(store.ticks(Some("nightly"), 10).expect("ticks"), [tick(first)]);
    assert_eq!(store.runs(10).expect("runs").len(), 1);
    let skipped = Tick { at: at(200), outcome: crate::TickOutcome::Skipped("late".into()), ..tick(first) };
    assert!(store.tick(skipped.clone(), None, None).await.expect("a tick"));
    assert_eq!(store.ticks(None, 1).expect("ticks"), [skipped]);
    let state = ScheduleState { definition: "@daily".into(), since: at(50), is_off: true };
    store.set_schedule("nightly", state.clone()).await.expect("noted");
    assert_eq!(store.schedule("nightly").expect("state"), Some(state));
}
