//! The seams to outside systems: what a source can read, what a sink can write atomically, what a SQL backend can build.
//!
//! Implementations hold a connection and no run state. Beside the traits stand an in-memory implementation, a wrapper that
//! injects faults, and the conformance suites that every implementation runs. Deliberately not here: drivers, retries, limits,
//! and anything that knows about runs or projects.

pub mod batch;
pub mod blocking;
pub mod config;
pub mod conformance;
pub mod connector;
pub mod convert;
pub mod crash;
pub mod cursor;
pub mod dialect;
pub mod error;
pub mod faulty;
pub mod memory;
pub mod program;
pub mod reject;
pub mod sink;
pub mod source;
pub mod sql;
pub mod types;

pub use batch::{Batch, Misfit, Origin};
pub use config::{ConfigSchema, ConnectionConfig, Field, FieldKind};
pub use connector::{Abilities, Connection, Connector, OpenRequest, Registry};
pub use dialect::{Dialect, Escapes, Family};
pub use error::{ConnectError, ConnectErrorKind};
pub use program::{RowProgram, RowPrograms};
pub use reject::{Quarantine, Reject, RejectStatus, StoredReject};
pub use sink::{
    Audit, AuditResult, ChildRequest, Commit, Committed, Load, LoadRequest, Sink, Slice, SlicePart, Staged, StagedRows,
    TableInfo, TableName,
};
pub use source::{CursorBound, FileMark, FileStore, KnownFiles, ReadRequest, Source, SourceItem, StreamInfo};
pub use sql::{BuildRequest, SqlBackend, Statements};
