//! The event log, leases, and summary tables that can be rebuilt from the log.
//!
//! Two implementations, one conformance suite: SQLite on local disk, and memory for tests. Deliberately not here: what events
//! mean (that is `subak-domain`), and when to append them (that is `subak-engine`).

pub mod conformance;
pub mod error;
pub mod kept;
pub mod lease;
pub mod memory;
pub mod people;
pub mod sensor;
pub mod sqlite;
pub mod tick;

use async_trait::async_trait;
use subak_domain::{Event, RunEvent, RunId, Timestamp};
use tokio::sync::watch;

pub use error::StoreError;
pub use kept::Kept;
pub use lease::{Acquired, Holder, Lease, Leases};
pub use memory::MemoryStore;
pub use sensor::{Delivered, Delivery, Looked, SensorLook, SensorState};
pub use sqlite::{PartitionDetail, RunCounts, RunFilter, RunSummary, SqliteStore};
pub use tick::{ScheduleState, Tick, TickOutcome};

/// Events that one append may carry.
pub const APPEND_EVENT_COUNT_MAX: usize = 10_000;

/// The log of everything that happened to runs.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends events of one run. `Ok` means that they are durable; after an error none of them is in the log.
    async fn append(&self, request: Append) -> Result<Vec<Event>, StoreError>;
    /// Events of all runs behind `position`, oldest first, at most `count_max`.
    async fn read_after(&self, position: u64, count_max: usize) -> Result<Vec<Event>, StoreError>;
    /// All events of one run, oldest first. Empty for an unknown run.
    async fn read_run(&self, run: RunId) -> Result<Vec<Event>, StoreError>;
    /// The position of the newest event of this process; changes after each append.
    fn watch(&self) -> watch::Receiver<u64>;
}

/// Events to append.
#[derive(Debug, Clone)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// Sequence number of the first event: one more than the run has. Anything else is a [`StoreError::Conflict`].
    pub expected: u64,
    /// When each event happened, and the event.
    pub events: Vec<(Timestamp, RunEvent)>,
    /// The lease under which the writer acts. If somebody else holds it by now the append is refused.
    pub fence: Option<Lease>,
}
