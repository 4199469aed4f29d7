//! The nouns of Subak: keys, schemas, cursors, assets, statuses, events, and the functions that fold events into state.
//!
//! Deliberately not here: I/O, async, clocks, randomness, SQL, YAML. Everything is a value or a pure function, and every
//! collection that is iterated has a stable order.

pub mod access;
pub mod account;
pub mod action;
pub mod asset;
pub mod automation;
pub mod backfill;
pub mod check;
pub mod config;
pub mod cursor;
pub mod event;
pub mod freshness;
pub mod graph;
pub mod http;
pub mod id;
pub mod job;
pub mod key;
pub mod notification;
pub mod partition;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod secret;
pub mod sensor;
pub mod shape;
pub mod snapshot;
pub mod status;
pub mod version;
pub mod write;

pub use access::{Permission, Rights, Role};
pub use account::{RowAccount, ValueChange};
pub use action::{Action, CursorRange, Reason, Work};
pub use asset::{Asset, CursorRule, Definition, Hook, Hooks, Ingest, Lag, NullCursor, Retry, SchemaChange, SqlAsset, StoredAs};
pub use automation::Automation;
pub use backfill::{Backfill, BackfillAsk, BackfillState};
pub use check::{Check, CheckOutcome, CheckRule, Severity, StandaloneCheck};
pub use cursor::{Cursor, compare_decimals};
pub use event::{Event, Failure, FailureClass, RunEvent, StepOutcome};
pub use freshness::{Freshness, FreshnessPolicy, FreshnessStatus, KnownFreshness};
pub use graph::AssetGraph;
pub use http::{HttpAnswer, HttpRequest};
pub use id::{LoadId, RunId, StepId};
pub use jiff::Timestamp;
pub use job::{Job, JobWork, Rule, Trigger};
pub use key::{AssetKey, ConnectionName, InvalidAssetKey, InvalidConnectionName};
pub use notification::{Notice, NoticeState, Notifications, Occasion};
pub use partition::{Dimension, Mapping, Partition, PartitionRule, Partitioning, TimeWindows};
pub use run::{RunState, StepState};
pub use schedule::Schedule;
pub use schema::{Column, DataType};
pub use secret::Secret;
pub use sensor::{Sensor, Watch};
pub use shape::Shape;
pub use snapshot::{Materialization, PartitionState, Snapshot};
pub use status::{RunStatus, StepStatus};
pub use version::Version;
pub use write::{History, Latest, Layout, SurrogateKey, WriteMode, Writes};
