//! The store in memory, for tests of whatever uses it. A hook can make appends fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use subak_domain::{Event, RunId, Timestamp};
use tokio::sync::watch;

use crate::lease::LEASE_DURATION;
use crate::{Acquired, Append, EventLog, Holder, Lease, Leases, StoreError};

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    leases: BTreeMap<String, (u64, Option<(Holder, Timestamp)>)>,
    /// Appends that still succeed; `None` for no limit.
    appends_left: Option<u64>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { state: Arc::default(), newest: watch::Sender::new(0) }
    }
}

impl MemoryStore {
    /// Lets `count` more appends succeed and fails every one after them, as if the disk were full; `None` lifts the limit.
    pub fn fail_after(&self, count: Option<u64>) {
        self.lock().appends_left = count;
    }

    /// Every event, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    async fn append(&self, request: Append) -> Result<Vec<Event>, StoreError> {
        let mut state = self.lock();
        match &mut state.appends_left {
            Some(0) => return Err(StoreError::Full("injected fault".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(fence) = &request.fence
            && state.leases.get(&fence.name).is_none_or(|(generation, _)| *generation != fence.generation)
        {
            return Err(StoreError::Fenced { name: fence.name.clone() });
        }
        let found = state.events.iter().filter(|event| event.run == request.run).count() as u64;
        if found + 1 != request.expected {
            return Err(StoreError::Conflict { expected: request.expected - 1, found });
        }
        let first_position = state.events.len() as u64 + 1;
        let events: Vec<Event> = (0_u64..)
            .zip(request.events)
            .map(|(at, (time, event))| Event {
                position: first_position + at,
                run: request.run,
                sequence: request.expected + at,
                at: time,
                event,
            })
            .collect();
        state.events.extend(events.iter().cloned());
        self.newest.send_replace(state.events.len() as u64);
        Ok(events)
    }

    async fn read_after(&self, position: u64, count_max: usize) -> Result<Vec<Event>, StoreError> {
        Ok(self.lock().events.iter().filter(|event| event.position > position).take(count_max).cloned().collect())
    }

    async fn read_run(&self, run: RunId) -> Result<Vec<Event>, StoreError> {
        Ok(self.lock().events.iter().filter(|event| event.run == run).cloned().collect())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn acquire(&self, name: &str, holder: &Holder, now: Timestamp) -> Result<Acquired, StoreError> {
        let mut state = self.lock();
        let (generation, held) = state.leases.entry(name.to_owned()).or_default();
        if let Some((other, expires_at)) = held
            && *expires_at > now
            && !other.is_gone()
        {
            return Ok(Acquired::No { holder: other.clone() });
        }
        *generation += 1;
        let previous = held.replace((holder.clone(), now + LEASE_DURATION)).map(|(holder, _)| holder);
        Ok(Acquired::Yes { lease: Lease { name: name.to_owned(), generation: *generation }, previous })
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        match self.lock().leases.get_mut(&lease.name) {
            Some((generation, Some((_, expires_at)))) if *generation == lease.generation => {
                *expires_at = now + LEASE_DURATION;
                Ok(())
            }
            _ => Err(StoreError::Fenced { name: lease.name.clone() }),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        if let Some((generation, held)) = self.lock().leases.get_mut(&lease.name)
            && *generation == lease.generation
        {
            *held = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        let store = MemoryStore::default();
        crate::conformance::store(&store, &store).await;
    }
}
