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

/// T-92: positions become visible in their order, so that whoever goes on behind the last one it saw sees each event once, however many write.
#[tokio::test(flavor = "multi_thread")]
async fn t_92_a_reader_that_follows_misses_nothing() {
    const WRITERS: u64 = 32;
    const EVENTS: u64 = 20;
    let (_folder, store) = open();
    let mut writing = tokio::task::JoinSet::new();
    for number in 1..=WRITERS {
        let store = store.clone();
        writing.spawn(async move {
            for step in 1..=EVENTS {
                let events = vec![(at(1), RunEvent::Started { holder: step.to_string() })];
                let run = RunId::from_parts(number, 7);
                store.append(Append { run, expected: step, events, fence: None }).await.expect("append");
            }
        });
    }
    let reader = store.with_own_reader().expect("a reader");
    let (mut last, mut seen) = (0, std::collections::BTreeMap::<RunId, u64>::new());
    while seen.values().sum::<u64>() < WRITERS * EVENTS {
        for event in reader.read_after(last, 7).await.expect("read") {
            assert!(event.position > last, "positions go up");
            let count = seen.entry(event.run).or_default();
            *count += 1;
            assert_eq!(event.sequence, *count, "nothing of a run is left out");
            last = event.position;
        }
        if let Some(written) = writing.try_join_next() {
            written.expect("written");
        }
        tokio::task::yield_now().await;
    }
    while let Some(written) = writing.join_next().await {
        written.expect("written");
    }
    assert!(reader.read_after(last, 7).await.expect("read").is_empty());
}

/// FM-13: who reads for too long is ended, so that what was written meanwhile can be taken out of the log beside the file; who reads then is not.
#[tokio::test]
async fn fm_13_readers_end() {
    let (folder, mut store) = open();
    store.read_duration_max = std::time::Duration::from_secs(2);
    let numbers = "with recursive n (i) as (select 1 union all select i + 1 from n limit ?) select count(*) from n";
    let (reader, count) = (store.clone(), move |store: &SqliteStore, limit: i64| {
        store.read().query_row(numbers, [limit], |row| row.get::<_, i64>(0))
    });
    let reading = std::thread::spawn(move || count(&reader, i64::MAX));
    for number in 1..=20 {
        let run = RunId::from_parts(number, 1);
        store.append(Append { run, expected: 1, events: events(number), fence: None }).await.expect("append");
    }
    let ended = reading.join().expect("no panic").expect_err("it takes for ever");
    assert_eq!(ended.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
    assert!(failed("read")(ended).to_string().contains("read"));
    // While the store is open.
    let other = Connection::open(folder.path().join("state.db")).expect("opened");
    let is_busy: i64 = other.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0)).expect("emptied");
    assert_eq!((is_busy, folder.path().join("state.db-wal").metadata().map_or(0, |log| log.len())), (0, 0));
    assert_eq!(count(&store, 50_000).expect("the next one is asked too, and may"), 50_000);
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
        outcome: crate::TickOutcome::Started(vec![run]),
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

/// T-84: the cursor and the runs are there together or not at all. T-85: one run for a key, also within one look. T-89: a look of a sensor that was
/// switched off meanwhile changes nothing. T-94: a key that is there already is no error.
#[tokio::test]
async fn t_84_t_85_t_89_t_94_a_look_is_written_whole_or_not_at_all() {
    let (_folder, store) = open();
    let append = |number: u64, expected: u64| Append {
        run: RunId::from_parts(number, 7),
        expected,
        events: vec![(at(101), RunEvent::planned(Vec::new(), "all", "sensor files", ""))],
        fence: None,
    };
    let look = |revision: u64, cursor: &str, runs: Vec<(&str, Append)>| {
        let ids: Vec<RunId> = runs.iter().map(|(_, append)| append.run).collect();
        SensorLook {
            sensor: "files".into(),
            state: SensorState {
                watches: "files".into(),
                cursor: cursor.into(),
                looked_at: Some(at(100 + revision.cast_signed())),
                came_to: "runs".into(),
                is_off: false,
                revision,
            },
            tick: Some(Tick {
                schedule: "files".into(),
                at: at(100 + revision.cast_signed()),
                outcome: crate::TickOutcome::Started(ids),
                recorded_at: at(101),
            }),
            runs: runs.into_iter().map(|(key, append)| (Some(key.to_owned()), append)).collect(),
            partitions: vec![("clients".into(), "acme".into())],
            fence: None,
        }
    };
    // The second run cannot be planned, so neither the first nor the cursor is there.
    assert!(store.look(look(1, "one", vec![("a", append(1, 1)), ("b", append(2, 9))])).await.is_err());
    assert_eq!((store.sensor("files").expect("state"), store.runs(10).expect("runs").len()), (None, 0));
    let fenced = SensorLook { fence: Some(Lease { name: "project".into(), generation: 9 }), ..look(1, "one", Vec::new()) };
    assert!(matches!(store.look(fenced).await, Err(StoreError::Fenced { .. })));
    let first = store.look(look(1, "one", vec![("a", append(1, 1)), ("a", append(2, 1))])).await.expect("a look");
    assert_eq!(first, Looked::Started(vec![RunId::from_parts(1, 7)]), "one key, one run");
    assert_eq!(store.look(look(1, "other", vec![("c", append(3, 1))])).await.expect("a look"), Looked::Changed);
    assert_eq!(store.sensor("files").expect("state").map(|state| state.cursor), Some("one".into()));
    let again = store.look(look(2, "two", vec![("a", append(4, 1))])).await.expect("a look");
    assert_eq!(again, Looked::Started(Vec::new()));
    assert_eq!(store.sensor_run("files", "a").expect("a run"), Some(RunId::from_parts(1, 7)));
    let ticks = store.ticks(Some("files"), 10).expect("ticks");
    assert!(matches!(&ticks[0].outcome, crate::TickOutcome::Skipped(_)), "{ticks:?}");
    assert_eq!(ticks[1].outcome, crate::TickOutcome::Started(vec![RunId::from_parts(1, 7)]));
    assert_eq!(store.snapshot().expect("snapshot").dynamic["clients"], ["acme"]);
}

/// What is old goes, and what it told of assets stays, also for summaries that are made anew. A run that goes on keeps what is behind its beginning.
#[tokio::test]
async fn what_is_known_of_assets_outlives_the_events() {
    let (_folder, store) = open();
    let lease = match store.acquire("project", &Holder::current("test"), at(0)).await.expect("lease") {
        Acquired::Yes { lease, .. } => lease,
        Acquired::No { .. } => panic!("nobody has it"),
    };
    let made = |asset: &str, partition: Option<&str>, changed: bool| {
        let asset: AssetKey = asset.parse().expect("key");
        let step = partition.map_or_else(|| StepId::asset(&asset), |key| StepId::partition(&asset, key));
        let partition = partition.map(str::to_owned);
        let version = Some(Version::of(&[("v", "1")]));
        RunEvent::StepSucceeded { step, outcome: StepOutcome { changed, version, partition, ..StepOutcome::default() } }
    };
    let whole = |seconds: i64, middle: Vec<RunEvent>| {
        let planned = RunEvent::planned(Vec::new(), "all", "test", "");
        let finished = RunEvent::Finished { status: RunStatus::Succeeded };
        let events = std::iter::once(planned).chain(middle).chain([finished]);
        events.map(|event| (at(seconds), event)).collect::<Vec<_>>()
    };
    let run = |number: u64| RunId::from_parts(number, 1);
    let append = |number: u64, expected: u64, events: Vec<(Timestamp, RunEvent)>| Append {
        run: run(number),
        expected,
        events,
        fence: None,
    };
    store.append(append(1, 1, whole(10, vec![made("a", None, true), made("d", Some("x"), true)]))).await.expect("append");
    store.append(append(2, 1, whole(20, vec![made("a", None, false)]))).await.expect("append");
    // It began before the third one, and ends late.
    store.append(append(4, 1, vec![(at(30), RunEvent::planned(Vec::new(), "all", "test", ""))])).await.expect("append");
    store.append(append(3, 1, whole(40, vec![made("d", Some("y"), true)]))).await.expect("append");
    store.append(append(4, 2, vec![(at(900), RunEvent::Finished { status: RunStatus::Failed })])).await.expect("append");
    for seconds in [10, 20] {
        let outcome = crate::TickOutcome::Skipped("nothing".into());
        let tick = Tick { schedule: "nightly".into(), at: at(seconds), outcome, recorded_at: at(seconds) };
        store.tick(tick, None, None).await.expect("a tick");
    }
    let (before, newest) = (store.snapshot().expect("snapshot"), store.newest_position().expect("newest"));
    let kept = store.kept(at(500)).expect("kept");
    assert_eq!((kept.run_count, kept.old_run_count, kept.old_event_count, kept.old_tick_count), (4, 2, 7, 1));
    assert!(matches!(store.purge(at(500), &Lease { generation: 99, ..lease.clone() }).await, Err(StoreError::Fenced { .. })));
    store.purge(at(500), &lease).await.expect("purged");
    assert_eq!(store.runs(10).expect("runs").len(), 2);
    assert!(store.read_run(run(1)).await.expect("events").is_empty());
    assert_eq!(store.ticks(None, 10).expect("ticks").len(), 1, "the newest one stays");
    assert_eq!(store.snapshot().expect("snapshot"), before);
    store.rebuild_summaries().await.expect("rebuilt");
    assert_eq!(store.snapshot().expect("snapshot"), before);
    store.purge(at(5_000), &lease).await.expect("purged");
    store.rebuild_summaries().await.expect("rebuilt");
    assert_eq!((store.snapshot().expect("snapshot"), store.runs(10).expect("runs").len()), (before, 0));
    assert_eq!(store.newest_position().expect("newest"), newest, "positions are never given twice");
    assert_eq!(store.check().expect("whole"), Vec::<String>::new());
    store.vacuum().expect("room");
}
