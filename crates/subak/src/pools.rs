//! Bounds that hold for all runs of a process together: how many steps use one connection at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use subak_domain::job::TaskWork;
use subak_domain::{Action, Failure, RunId, StepOutcome, Work};
use subak_engine::{Inputs, Slots, StepExecutor, StopSignal, failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is true of a step that waited for room.
const DATA_WAITING: &str = "the step waited for room and did nothing";

/// The room of each pool. A pool whose size changes is another one: what runs in the old one is let finish.
#[derive(Debug, Default)]
pub(crate) struct Pools(Mutex<BTreeMap<String, (usize, Arc<Semaphore>)>>);

impl Pools {
    fn room(&self, name: &str, size: usize) -> Arc<Semaphore> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(name.to_owned()).or_insert_with(|| (size, Arc::new(Semaphore::new(size))));
        if pool.0 != size {
            *pool = (size, Arc::new(Semaphore::new(size)));
        }
        Arc::clone(&pool.1)
    }
}

/// Lets a step begin when each of its pools has room.
pub(crate) struct Pooled<E> {
    pub(crate) inner: E,
    pub(crate) pools: Arc<Pools>,
    pub(crate) slots: Slots,
}

impl<E> Pooled<E> {
    /// All of them, in the order of their names, so that no two steps wait for each other.
    async fn enter(&self, action: &Action, stop: &StopSignal) -> Result<Vec<OwnedSemaphorePermit>, Box<Failure>> {
        let mut permits = Vec::new();
        let mut used: BTreeMap<String, usize> = self.slots.of(&action.step).map(|(name, size)| (name.clone(), size)).collect();
        if let Work::Task(TaskWork::Sql { on, .. } | TaskWork::Query { on, .. }) = &action.work
            && let Some(size) = self.slots.pools.get(on.as_str())
        {
            used.insert(on.to_string(), (*size).max(1));
        }
        for (name, size) in used {
            let room = self.pools.room(&name, size);
            match stop.guard(room.acquire_owned()).await {
                // Nobody closes them.
                Ok(permit) => permits.extend(permit),
                Err(reason) => return Err(failure::of_stop(reason, DATA_WAITING)),
            }
        }
        Ok(permits)
    }
}

#[async_trait]
impl<E: StepExecutor> StepExecutor for Pooled<E> {
    async fn execute(
        &self,
        run: RunId,
        action: &Action,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        let _permits = self.enter(action, stop).await?;
        self.inner.execute(run, action, inputs, stop).await
    }

    async fn recover(&self, run: RunId, action: &Action) -> Option<StepOutcome> {
        self.inner.recover(run, action).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use subak_domain::{Reason, Rule, StepId};
    use subak_engine::StopReason;

    use super::*;

    /// Counts how many are inside at a time.
    #[derive(Default)]
    struct Counts {
        inside: AtomicUsize,
        most: AtomicUsize,
    }

    #[derive(Default, Clone)]
    struct Counting(Arc<Counts>);

    #[async_trait]
    impl StepExecutor for Counting {
        async fn execute(&self, _: RunId, _: &Action, _: &Inputs, _: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
            let inside = self.0.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.most.fetch_max(inside, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.0.inside.fetch_sub(1, Ordering::SeqCst);
            Ok(StepOutcome::default())
        }
        async fn recover(&self, _: RunId, _: &Action) -> Option<StepOutcome> {
            None
        }
    }

    fn action(name: &str) -> Action {
        let step = StepId::check(name);
        Action {
            step,
            work: Work::Check { name: name.to_owned() },
            reason: Reason::Job,
            needs: Vec::new(),
            rule: Rule::default(),
        }
    }

    /// T-146, T-156: runs share the room of a pool, and pools that are taken in another order hold up nobody for ever.
    #[tokio::test]
    async fn t_146_runs_share_the_room_of_a_pool() {
        let (pools, counting) = (Arc::new(Pools::default()), Counting::default());
        let uses = [("a", ["p", "q"]), ("b", ["q", "p"])].map(|(name, used)| {
            let used: BTreeSet<String> = used.into_iter().map(str::to_owned).collect();
            (StepId::check(name), used)
        });
        let slots =
            Slots { count_max: 10, pools: [("p".to_owned(), 1), ("q".to_owned(), 2)].into(), uses: uses.into_iter().collect() };
        let run = || Pooled { inner: counting.clone(), pools: Arc::clone(&pools), slots: slots.clone() };
        let (one, other, inputs, stop) = (run(), run(), Inputs::default(), StopSignal::default());
        let (a, b) = (action("a"), action("b"));
        let steps = [(&one, &a), (&other, &b), (&one, &b), (&other, &a)];
        let ended = steps.map(|(executor, action)| executor.execute(RunId::from_parts(0, 0), action, &inputs, &stop));
        assert!(futures::future::join_all(ended).await.iter().all(Result::is_ok));
        assert_eq!(counting.0.most.load(Ordering::SeqCst), 1);
        // Whoever is stopped while it waits has nothing and leaves nothing behind (T-154).
        let held = pools.room("p", 1).acquire_owned().await.expect("room");
        let stopped = StopSignal::default();
        let (waited, ()) = tokio::join!(one.execute(RunId::from_parts(0, 0), &a, &inputs, &stopped), async {
            stopped.stop(StopReason::Canceled);
        });
        assert_eq!(waited.map(drop).map_err(|failure| failure.class), Err(subak_domain::FailureClass::Canceled));
        drop(held);
        assert!(one.execute(RunId::from_parts(0, 0), &a, &inputs, &stop).await.is_ok());
    }
}
