//! Connectors: the kinds of outside systems that this build knows, and one open connection to one of them.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use subak_domain::{DataType, Writes};

use crate::types::{ReadAs, Stored};
use crate::{ConfigSchema, ConnectError, ConnectionConfig, Dialect, FileStore, Quarantine, Sink, Source, SqlBackend, Statements};

/// A kind of outside system.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The word after `type:`, for example `duckdb`.
    fn kind(&self) -> &'static str;
    /// One sentence for readers of the documentation.
    fn summary(&self) -> &'static str;
    /// The keys that it knows.
    fn config(&self) -> ConfigSchema;
    /// What its connections can do.
    fn abilities(&self) -> Abilities;
    /// What the types of its tables are read as; empty where rows have none of their own.
    fn reads(&self) -> &'static [ReadAs] {
        &[]
    }
    /// What becomes of a logical type in its tables; `None` when it writes none.
    fn stores(&self, _: DataType) -> Option<Stored> {
        None
    }
    /// Opens a connection. Fails when the system cannot be reached, or refuses us.
    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError>;
}

/// What a connection can do. A connection of the kind returns `Some` for exactly these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an ability of its own")]
pub struct Abilities {
    /// Streams can be read.
    pub source: bool,
    /// How tables can be written. With [`Writes::Rows`] there is a sink and a quarantine, with [`Writes::WholeTables`] a sink.
    pub writes: Writes,
    /// SQL assets can be built, in this dialect.
    pub sql: Option<&'static Dialect>,
    /// Tables have a schema as well as a name; without, the schema becomes part of the name.
    pub schemas: bool,
    /// Statements of the user's own can be run.
    pub statements: bool,
    /// Files can be listed.
    pub files: bool,
    /// Whoever has it open keeps every other process out.
    pub holds_file: bool,
    /// People can be given queries: the system itself holds them to reading (`SqlBackend::look`).
    pub looks: bool,
}

impl Abilities {
    /// Those of a database with schemas, whose tables are read, written a row at a time, and made by SQL in its dialect.
    pub const fn of_database(dialect: &'static Dialect) -> Self {
        Self {
            source: true,
            writes: Writes::Rows,
            sql: Some(dialect),
            schemas: true,
            statements: true,
            files: false,
            holds_file: false,
            looks: false,
        }
    }
}

/// How to open a connection.
#[derive(Debug, Clone, Default)]
pub struct OpenRequest {
    /// Its name in the project, for messages.
    pub name: String,
    /// Its values.
    pub config: ConnectionConfig,
    /// Folder for temporary files of this project; exists.
    pub temporary: PathBuf,
    /// Folder for small files of connections that outlive a run, such as a token that replaced another one; may not exist yet.
    pub state: PathBuf,
    /// Whether nothing will be written. An embedded database is then opened so that other readers can share it.
    pub is_read_only: bool,
}

/// One configured outside system, open. An ability that it lacks is absent.
pub trait Connection: Send + Sync {
    /// Reading streams.
    fn source(&self) -> Option<&dyn Source> {
        None
    }
    /// Writing tables.
    fn sink(&self) -> Option<&dyn Sink> {
        None
    }
    /// Looking at rows that were refused; there where there is a sink that keeps them.
    fn quarantine(&self) -> Option<&dyn Quarantine> {
        None
    }
    /// Building and querying with SQL.
    fn sql(&self) -> Option<&dyn SqlBackend> {
        None
    }
    /// Running statements of the user's own.
    fn statements(&self) -> Option<&dyn Statements> {
        None
    }
    /// Listing files.
    fn files(&self) -> Option<&dyn FileStore> {
        None
    }
}

/// The connectors of one build.
pub type Registry = &'static [&'static dyn Connector];

/// The connector of this kind.
pub fn find(registry: Registry, kind: &str) -> Option<&'static dyn Connector> {
    registry.iter().copied().find(|connector| connector.kind() == kind)
}
