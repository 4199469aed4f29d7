//! Two leaders: one is held up in the middle of a run, another one takes the project and finishes the run, then the first goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use subak_store::{Acquired, Holder};
use tokio::sync::{Notify, watch};

use super::*;

/// A log that lets so many appends through, and then holds up whoever appends until it is released.
#[derive(Clone)]
struct HeldUp {
    inner: MemoryStore,
    left: Arc<AtomicU64>,
    reached: Arc<Notify>,
    released: watch::Receiver<bool>,
}

#[async_trait]
impl EventLog for HeldUp {
    async fn append(&self, request: Append) -> Result<Vec<Event>, StoreError> {
        let is_let_through = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if !is_let_through {
            self.reached.notify_one();
            let mut released = self.released.clone();
            // The other end outlives the run.
            drop(released.wait_for(|is_released| *is_released).await);
        }
        self.inner.append(request).await
    }

    async fn read_after(&self, position: u64, count_max: usize) -> Result<Vec<Event>, StoreError> {
        self.inner.read_after(position, count_max).await
    }

    async fn read_run(&self, run: RunId) -> Result<Vec<Event>, StoreError> {
        self.inner.read_run(run).await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }
}

async fn leader(store: &MemoryStore, name: &str, now: Timestamp) -> Lease {
    let holder = Holder { host: name.into(), pid: 1, boot_id: String::new(), started_ticks: 0, command: "test".into() };
    match store.acquire("project", &holder, now).await.expect("asked") {
        Acquired::Yes { lease, .. } => lease,
        Acquired::No { .. } => panic!("`{name}` gets the project"),
    }
}

/// Finishes what the first leader has begun.
async fn take_over(world: &World, run: RunId, lease: Lease) {
    let engine = Engine { lease: Some(lease), ..world.engine.clone() };
    engine.settle_lost(&[run], "the one that is held up").await.expect("settled");
    for _ in 0..200 {
        match engine.resume(run, "the second").await {
            Ok(()) => {}
            Err(EngineError::NotResumable { status: RunStatus::Succeeded, .. }) => return,
            Err(error) => panic!("{error}"),
        }
        let state = engine.run(run, &World::limits(), &StopSignal::default()).await.expect("nobody else has the project");
        if state.status == RunStatus::Succeeded {
            return;
        }
    }
    panic!("the run never succeeds");
}

/// The first goes on with a lease that is not its own any more: what it appends is refused, what it still publishes is known by its load. Each step
/// is committed once, and the tables are those of an undisturbed run. T-51, T-54, T-97, FM-5: what an older attempt or leader says late is refused.
#[tokio::test]
async fn two_leaders_commit_each_step_once() {
    for seed in 1..=crate::seed_count(500) {
        let faults = Faults::new(seed, (seed % 4) * 50);
        let world = world(&faults, &[]);
        world.memory.set_stream("src", rows(0..10));
        world.run_to_success().await;
        world.memory.set_stream("src", rows(0..25));
        let start = world.engine.clock.now();
        let first = leader(&world.store, "first", start).await;
        let run = world.plan().await;
        let (release, released) = watch::channel(false);
        let left = Arc::new(AtomicU64::new(seed % 11));
        let held = HeldUp { inner: world.store.clone(), left, reached: Arc::default(), released };
        let reached = Arc::clone(&held.reached);
        // Each leader has a clock of its own.
        let clock = Arc::new(JumpingClock(std::sync::Mutex::new(start.as_millisecond())));
        let stale = Engine { log: Arc::new(held), lease: Some(first), clock, ..world.engine.clone() };
        let (limits, stop) = (World::limits(), StopSignal::default());
        let mut going = std::pin::pin!(stale.run(run, &limits, &stop));
        tokio::select! {
            ended = &mut going => {
                let state = ended.expect("nobody has disturbed it");
                if state.status != RunStatus::Succeeded {
                    take_over(&world, run, leader(&world.store, "second", start + Duration::from_secs(3600)).await).await;
                }
            }
            () = reached.notified() => {
                let second = leader(&world.store, "second", start + Duration::from_secs(3600)).await;
                take_over(&world, run, second).await;
                release.send_replace(true);
                let ended = going.await;
                assert!(matches!(ended, Err(EngineError::Store(StoreError::Fenced { .. }))), "seed {seed}: {ended:?}");
            }
        }
        world.assert_tables(0..25, &format!("seed {seed}"));
        let mut committed: BTreeMap<StepId, usize> = BTreeMap::new();
        for event in world.store.read_run(run).await.expect("read") {
            if let RunEvent::StepSucceeded { step, .. } = event.event {
                *committed.entry(step).or_default() += 1;
            }
        }
        assert!(committed.len() == 3 && committed.values().all(|count| *count == 1), "seed {seed}: {committed:?}");
    }
}
