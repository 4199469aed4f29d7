//! What every store must do. Panics with the case that fails.

use subak_domain::{RunEvent, RunId, RunStatus, Timestamp};

use crate::lease::LEASE_DURATION;
use crate::{Acquired, Append, EventLog, Holder, Leases, StoreError};

fn started(text: &str) -> RunEvent {
    RunEvent::Started { holder: text.to_owned() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a small number of seconds")
}

/// Runs every case on an empty store.
pub async fn store(log: &dyn EventLog, leases: &dyn Leases) {
    appends_in_sequence(log).await;
    reads_back_what_was_appended(log).await;
    leases_fence(log, leases).await;
}

async fn appends_in_sequence(log: &dyn EventLog) {
    let run = RunId::from_parts(1, 1);
    let append = |expected, count: usize| Append {
        run,
        expected,
        events: (0..count).map(|_| (at(1), started("a"))).collect(),
        fence: None,
    };
    let watch = log.watch();
    let first = log.append(append(1, 2)).await.expect("append");
    assert_eq!(first.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
    for expected in [1, 2, 4] {
        let refused = log.append(append(expected, 1)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { found: 2, .. })), "{refused:?}");
    }
    let next = log.append(append(3, 1)).await.expect("append");
    assert!(next[0].position > first[1].position, "positions grow");
    assert!(watch.has_changed().expect("open"), "watchers are told");
}

async fn reads_back_what_was_appended(log: &dyn EventLog) {
    let run = RunId::from_parts(2, 2);
    let events = vec![(at(5), started("é\u{1F600}\0")), (at(6), RunEvent::Finished { status: RunStatus::Failed })];
    let written = log.append(Append { run, expected: 1, events, fence: None }).await.expect("append");
    assert_eq!(log.read_run(run).await.expect("read"), written);
    let all = log.read_after(0, 100).await.expect("read");
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert_eq!(log.read_after(written[0].position, 100).await.expect("read"), written[1..]);
    assert_eq!(log.read_after(0, 1).await.expect("read"), all[..1]);
    assert!(log.read_run(RunId::from_parts(9, 9)).await.expect("read").is_empty());
}

async fn leases_fence(log: &dyn EventLog, leases: &dyn Leases) {
    let here = Holder::current("one");
    let other = Holder { host: "elsewhere".into(), ..Holder::current("two") };
    let Acquired::Yes { lease: first, previous: None } = leases.acquire("x", &other, at(100)).await.expect("acquire") else {
        panic!("a free lease is given");
    };
    let refused = leases.acquire("x", &here, at(101)).await.expect("acquire");
    assert_eq!(refused, Acquired::No { holder: other.clone() }, "one holder at a time");
    leases.renew(&first, at(110)).await.expect("renew");
    assert!(matches!(leases.acquire("x", &here, at(120)).await.expect("acquire"), Acquired::No { .. }), "renewed");

    let late = at(110) + LEASE_DURATION;
    let Acquired::Yes { lease: second, previous } = leases.acquire("x", &here, late).await.expect("acquire") else {
        panic!("a lease that ran out is given");
    };
    assert_eq!((second.generation, previous), (first.generation + 1, Some(other)));
    assert!(matches!(leases.renew(&first, late).await, Err(StoreError::Fenced { .. })), "the old holder is fenced off");
    let run = RunId::from_parts(3, 3);
    let append = |fence| Append { run, expected: 1, events: vec![(at(1), started("a"))], fence: Some(fence) };
    assert!(matches!(log.append(append(first.clone())).await, Err(StoreError::Fenced { .. })), "its events are refused");
    log.append(append(second.clone())).await.expect("the new holder writes");

    leases.release(&first).await.expect("a stale release has no effect");
    leases.renew(&second, late).await.expect("renew");
    leases.release(&second).await.expect("release");
    let again = leases.acquire("x", &here, late).await.expect("acquire");
    assert!(matches!(again, Acquired::Yes { previous: None, .. }), "a lease that was given back is free: {again:?}");

    // A holder on this machine whose process is gone loses the lease at once.
    let dead = Holder { started_ticks: here.started_ticks + 1, ..here.clone() };
    let gone = leases.acquire("y", &dead, at(1)).await.expect("acquire");
    assert!(matches!(gone, Acquired::Yes { .. }));
    let taken = leases.acquire("y", &here, at(2)).await.expect("acquire");
    assert!(matches!(taken, Acquired::Yes { previous: Some(_), .. }), "{taken:?}");
}
