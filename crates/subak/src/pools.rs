//! Bounds that hold for all runs of a process together: how many steps use one connection at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use subak_domain::{Action, Failure, RunId, StepOutcome};
use subak_engine::{Inputs, Room, Slots, StepExecutor, StopSignal, Take, failure};
use tokio::sync::watch;

/// What is true of a step that waited for room.
const DATA_WAITING: &str = "the step waited for room and did nothing";

/// What runs take of pools. How much there is says whoever asks, so that a pool that becomes smaller stops nothing and lets nobody in until enough has
/// been given back.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    books: Mutex<Books>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Books {
    /// How much of each pool is taken.
    taken: BTreeMap<String, usize>,
    /// Who waits, in the order in which they came, and what for.
    waiting: VecDeque<(u64, BTreeSet<String>)>,
    ticket_count: u64,
}

impl Pools {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of it or nothing, so that no two steps wait for each other. Whoever waits for a pool comes before those who came later for the same
    /// one, and holds up nobody who wants others.
    async fn enter(self: &Arc<Self>, takes: BTreeMap<String, Take>) -> Taken {
        let mut changes = self.changes.subscribe();
        let ticket = {
            let mut books = self.books();
            books.ticket_count += 1;
            let ticket = books.ticket_count;
            books.waiting.push_back((ticket, takes.keys().cloned().collect()));
            ticket
        };
        // Gives the place back too when nobody waits for this any more.
        let mut taken = Taken { pools: Arc::clone(self), ticket: Some(ticket), counts: BTreeMap::new() };
        loop {
            if self.books().take(ticket, &takes) {
                taken.ticket = None;
                taken.counts = takes.into_iter().map(|(name, take)| (name, take.count)).collect();
                self.changes.send_modify(|count| *count += 1);
                return taken;
            }
            // The sender lives as long as `self`.
            drop(changes.changed().await);
        }
    }
}

impl Books {
    fn take(&mut self, ticket: u64, takes: &BTreeMap<String, Take>) -> bool {
        let mut before = self.waiting.iter().take_while(|(other, _)| *other != ticket);
        let is_first = before.all(|(_, names)| names.iter().all(|name| !takes.contains_key(name)));
        let has_room = |(name, take): (&String, &Take)| self.taken.get(name).copied().unwrap_or(0) + take.count <= take.size;
        if !is_first || !takes.iter().all(has_room) {
            return false;
        }
        self.waiting.retain(|(other, _)| *other != ticket);
        for (name, take) in takes {
            *self.taken.entry(name.clone()).or_default() += take.count;
        }
        true
    }
}

/// What somebody has taken, or the place at which it waits; given back with the value.
struct Taken {
    pools: Arc<Pools>,
    ticket: Option<u64>,
    counts: BTreeMap<String, usize>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut books = self.pools.books();
        books.waiting.retain(|(other, _)| Some(*other) != self.ticket);
        for (name, count) in &self.counts {
            if let Some(taken) = books.taken.get_mut(name) {
                *taken = taken.saturating_sub(*count);
            }
        }
        drop(books);
        self.pools.changes.send_modify(|count| *count += 1);
    }
}

/// Lets a step begin when each of its pools has room.
pub(crate) struct Pooled<E> {
    pub(crate) inner: E,
    pub(crate) pools: Arc<Pools>,
    pub(crate) slots: Slots,
}

#[async_trait]
impl<E: StepExecutor> StepExecutor for Pooled<E> {
    async fn enter(&self, _: RunId, action: &Action, stop: &StopSignal) -> Result<Room, Box<Failure>> {
        match stop.guard(self.pools.enter(self.slots.of(action))).await {
            Ok(taken) => Ok(Box::new(taken)),
            Err(reason) => Err(failure::of_stop(reason, DATA_WAITING)),
        }
    }

    async fn execute(
        &self,
        run: RunId,
        action: &Action,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        self.inner.execute(run, action, inputs, stop).await
    }

    fn forget(&self, run: RunId, action: &Action) {
        self.inner.forget(run, action);
    }

    fn goes_on(&self, run: RunId, action: &Action) -> bool {
        self.inner.goes_on(run, action)
    }

    async fn recover(&self, run: RunId, action: &Action) -> Option<StepOutcome> {
        self.inner.recover(run, action).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn takes<const N: usize>(takes: [(&str, usize, usize); N]) -> BTreeMap<String, Take> {
        takes.into_iter().map(|(name, count, size)| (name.to_owned(), Take { count, size })).collect()
    }

    /// Whether it gets in at once.
    async fn now(pools: &Arc<Pools>, wanted: BTreeMap<String, Take>) -> Option<Taken> {
        tokio::time::timeout(Duration::from_millis(1), pools.enter(wanted)).await.ok()
    }

    /// T-146, T-156: n dispatchers never exceed a limit, and pools that are asked for in another order hold up nobody for ever.
    #[tokio::test]
    async fn t_146_t_156_runs_share_the_room_of_a_pool() {
        let (pools, most) = (Arc::new(Pools::default()), Arc::new(AtomicUsize::new(0)));
        let work = (0..200).map(|at: usize| {
            let (pools, most) = (Arc::clone(&pools), Arc::clone(&most));
            async move {
                let wanted =
                    if at.is_multiple_of(2) { takes([("p", 1, 3), ("q", 2, 4)]) } else { takes([("q", 1, 4), ("p", 2, 3)]) };
                let _taken = pools.enter(wanted).await;
                let inside = pools.books().taken.clone();
                assert!(inside["p"] <= 3 && inside["q"] <= 4, "{inside:?}");
                most.fetch_max(inside["p"], Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        futures::future::join_all(work).await;
        assert_eq!(most.load(Ordering::Relaxed), 3);
        assert!(pools.books().taken.values().all(|count| *count == 0), "T-151: all of it is given back, and once");
    }

    /// T-149, T-154: who waits comes before those who came later for the same, and leaves nothing behind when it goes.
    #[tokio::test]
    async fn t_149_t_154_who_waits_holds_up_only_those_behind_it() {
        let pools = Arc::new(Pools::default());
        let first = now(&pools, takes([("p", 2, 3)])).await.expect("room");
        let mut large = std::pin::pin!(pools.enter(takes([("p", 3, 3), ("q", 1, 1)])));
        assert!(futures::poll!(large.as_mut()).is_pending());
        assert!(now(&pools, takes([("p", 1, 3)])).await.is_none(), "there is room, and the large one came first");
        assert!(now(&pools, takes([("r", 1, 1)])).await.is_some(), "another pool");
        drop(first);
        let large = large.await;
        assert!(now(&pools, takes([("q", 1, 1)])).await.is_none());
        drop(large);
        assert!(now(&pools, takes([("p", 3, 3), ("q", 1, 1)])).await.is_some(), "those that gave up hold nothing");
    }

    /// T-152: a pool that becomes smaller stops nothing, and lets nobody in before enough is given back.
    #[tokio::test]
    async fn t_152_a_pool_becomes_smaller() {
        let pools = Arc::new(Pools::default());
        let (one, other) = (now(&pools, takes([("p", 1, 2)])).await, now(&pools, takes([("p", 1, 2)])).await);
        assert!(one.is_some() && other.is_some());
        assert!(now(&pools, takes([("p", 1, 1)])).await.is_none());
        drop(one);
        assert!(now(&pools, takes([("p", 1, 1)])).await.is_none());
        drop(other);
        assert!(now(&pools, takes([("p", 1, 1)])).await.is_some());
    }
}
