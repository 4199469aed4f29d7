//! SQLite: source and sink over one database file.

mod load;
mod read;
mod read_as;
mod session;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection as Driver, OpenFlags};
use subak_connect::types::{Fate, ReadAs, Stored};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Dialect, Field, FieldKind, OpenRequest,
    Quarantine, Sink, Source, Statements, blocking, convert,
};
use subak_domain::{DataType, Writes};

/// How SQLite writes SQL.
pub static DIALECT: Dialect = Dialect {
    name: "sqlite",
    family: subak_connect::Family::Standard,
    quote: '"',
    null_safe_equal: "is",
    escapes: subak_connect::Escapes::Nowhere,
    text: "cast({value} as varchar)",
    correlates: true,
    exact_order: " collate subak_exact",
    row_ids: &["_rowid_", "rowid", "oid"],
    row_column: None,
    matches: "subak_matches({pattern}, {value})",
    position: "instr",
    has_schemas: false,
    schema_default: "",
    stores_as: &[],
};

/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The connector.
#[derive(Debug)]
pub struct Sqlite;

#[async_trait]
impl Connector for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn summary(&self) -> &'static str {
        "SQLite 3: an embedded transactional database in one file"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[Field {
            name: "path",
            kind: FieldKind::Path,
            is_required: true,
            doc: "The database file. As a destination it is made when it does not exist.",
        }];
        ConfigSchema { connection: CONNECTION, stream: subak_connect::source::SQL_OPTIONS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { source: true, writes: Writes::Rows, sql: None, schemas: false, statements: true, ..Abilities::default() }
    }

    fn reads(&self) -> &'static [ReadAs] {
        read_as::TYPES
    }

    fn stores(&self, data_type: DataType) -> Option<Stored> {
        let word = values::sql_type(&convert::arrow_type(data_type))?;
        let fate = match data_type {
            DataType::SmallInt | DataType::Integer | DataType::Real | DataType::Time | DataType::Json | DataType::Uuid => {
                Fate::Widened
            }
            _ => Fate::Exact,
        };
        Some(Stored { word, fate })
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        let path = PathBuf::from(request.config.get("path").unwrap_or_default());
        Ok(Arc::new(Database { path, name: request.name.as_str().into() }))
    }
}

/// One database file. Each operation opens it anew: SQLite opens in microseconds, and no lock outlives an operation.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    name: Arc<str>,
}

impl Database {
    fn open(&self, flags: OpenFlags) -> Result<Driver, ConnectError> {
        let message = || format!("connection `{}`: cannot open `{}`", self.name, self.path.display());
        if !flags.contains(OpenFlags::SQLITE_OPEN_CREATE) && !self.path.exists() {
            return Err(ConnectError::new(ConnectErrorKind::NotFound, format!("{}: the file does not exist", message())));
        }
        if let Err(error) = std::fs::File::open(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(ConnectError::io(ConnectErrorKind::Unavailable, message(), error));
        }
        let open = || {
            let driver = Driver::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            driver.busy_timeout(BUSY_TIMEOUT)?;
            driver.query_row("select count(*) from sqlite_schema", [], |row| row.get::<_, i64>(0))?;
            session::add_functions(&driver)?;
            Ok(driver)
        };
        open().map_err(|error| failed(ConnectErrorKind::Unavailable, &message(), error))
    }

    fn open_to_read(&self) -> Result<Driver, ConnectError> {
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn open_to_write(&self) -> Result<Driver, ConnectError> {
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Runs blocking work on a driver of its own.
    async fn with<T, F>(&self, is_writing: bool, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&Driver) -> Result<T, ConnectError> + Send + 'static,
    {
        let database = self.clone();
        blocking::run(move || work(&if is_writing { database.open_to_write()? } else { database.open_to_read()? })).await
    }
}

/// The error in our kinds; `kind` where SQLite's code says nothing more.
fn failed(kind: ConnectErrorKind, message: &str, error: rusqlite::Error) -> ConnectError {
    use rusqlite::ErrorCode as Code;
    let kind = match error.sqlite_error_code() {
        Some(Code::DiskFull | Code::OutOfMemory | Code::TooBig) => ConnectErrorKind::Resource,
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => ConnectErrorKind::Held,
        Some(Code::PermissionDenied | Code::ReadOnly | Code::AuthorizationForStatementDenied) => ConnectErrorKind::Permission,
        Some(Code::NotADatabase | Code::DatabaseCorrupt) => ConnectErrorKind::Malformed,
        _ => kind,
    };
    ConnectError::new(kind, message).because(error)
}

impl Connection for Database {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
    fn sink(&self) -> Option<&dyn Sink> {
        Some(self)
    }
    fn quarantine(&self) -> Option<&dyn Quarantine> {
        Some(self)
    }
    fn statements(&self) -> Option<&dyn Statements> {
        Some(self)
    }
}

#[async_trait]
impl Statements for Database {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn execute(&self, sql: &str) -> Result<(), ConnectError> {
        let sql = sql.to_owned();
        self.with(true, move |driver| {
            driver.execute_batch(&sql).map_err(|error| failed(ConnectErrorKind::Sql, "the statement failed", error))
        })
        .await
    }
}
