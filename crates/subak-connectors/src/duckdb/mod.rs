//! DuckDB: the embedded warehouse. Source, sink and SQL backend over one file that this process owns.

#[cfg(feature = "files")]
mod audits;
mod error;
mod insert;
mod load;
mod program;
mod query;
mod raw;
mod read_as;
mod session;
mod sink;
mod special;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use duckdb::Config;
use subak_connect::types::{Fate, ReadAs, Stored};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Dialect, Field, FieldKind, OpenRequest,
    Quarantine, Sink, Source, SqlBackend, Statements, blocking, convert,
};
use subak_domain::DataType;

use self::raw::{Instance, Streaming};

#[cfg(feature = "files")]
pub(crate) use self::audits::FileAudits;
#[cfg(all(feature = "files", test))]
pub(crate) use self::audits::read_parquet;
pub use self::program::DuckDbPrograms;

/// How DuckDB writes SQL.
pub static DIALECT: Dialect = Dialect {
    name: "duckdb",
    family: subak_connect::Family::Standard,
    quote: '"',
    null_safe_equal: "is not distinct from",
    escapes: subak_connect::Escapes::Nowhere,
    text: "cast({value} as varchar)",
    correlates: true,
    exact_order: "",
    row_ids: &["rowid"],
    row_column: None,
    matches: "regexp_full_match({value}, {pattern})",
    position: "instr",
    has_schemas: true,
    schema_default: "main",
    stores_as: subak_domain::StoredAs::USUAL,
};

/// Memory for checks on files; beyond it, DuckDB spills to disk.
#[cfg(feature = "files")]
const AUDIT_MEMORY: &str = "256MB";

/// The path of a database that lives in memory and ends with its connection.
const MEMORY: &str = ":memory:";

/// The connector.
#[derive(Debug)]
pub struct DuckDb;

#[async_trait]
impl Connector for DuckDb {
    fn kind(&self) -> &'static str {
        "duckdb"
    }

    fn summary(&self) -> &'static str {
        "DuckDB 1.5: an embedded analytical database in one file; the default warehouse"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[
            Field {
                name: "path",
                kind: FieldKind::Path,
                is_required: true,
                doc: "The database file. It is made when it does not exist.",
            },
            Field {
                name: "memory_limit",
                kind: FieldKind::Text,
                is_required: false,
                doc: "Most memory that DuckDB uses, for example `2GB`; beyond it, it spills to disk. By default 80 % of the machine's.",
            },
            Field {
                name: "threads",
                kind: FieldKind::Integer,
                is_required: false,
                doc: "Threads that DuckDB uses. By default one per core.",
            },
            Field {
                name: "external_access",
                kind: FieldKind::Boolean,
                is_required: false,
                doc: "Whether SQL may read and write files and other databases by itself (`read_csv`, `copy`, `attach`). By default `false`; with `true`, people cannot be given queries on it in the web app.",
            },
        ];
        ConfigSchema { connection: CONNECTION, stream: subak_connect::source::SQL_OPTIONS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { holds_file: true, looks: true, ..Abilities::of_database(&DIALECT) }
    }

    fn reads(&self) -> &'static [ReadAs] {
        read_as::TYPES
    }

    fn stores(&self, data_type: DataType) -> Option<Stored> {
        let word = types::sql_type(&convert::arrow_type(data_type))?;
        let fate = match data_type {
            // Texts, which the declaration tells apart.
            DataType::Json | DataType::Uuid => Fate::Widened,
            _ => Fate::Exact,
        };
        Some(Stored { word, fate })
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        blocking::run(move || Ok(Arc::new(Database::open(&request)?) as Arc<dyn Connection>)).await
    }
}

/// A folder in which one instance of DuckDB spills. Two instances in one folder take each other's files, which are named by number only.
struct SpillFolder(PathBuf);

impl SpillFolder {
    /// Names a folder of its own below `temporary`, which DuckDB makes when it spills, and removes those of processes that died.
    fn new(temporary: &Path) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let parent = temporary.join("duckdb");
        // Where this fails, DuckDB says so when it has to spill.
        drop(std::fs::create_dir_all(&parent));
        let own = std::process::id().to_string();
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.split('-').next().unwrap_or_default();
            let is_alive = process == own || !Path::new("/proc/self").exists() || Path::new("/proc").join(process).exists();
            if !is_alive {
                // Best effort: it takes up space and does no harm.
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
        Self(parent.join(format!("{own}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))))
    }
}

impl SpillFolder {
    /// Settings of an instance that spills here and fetches nothing.
    fn settings(&self) -> Vec<(String, String)> {
        let never = |name: &str| (name.to_owned(), "false".to_owned());
        vec![
            never("autoload_known_extensions"),
            never("autoinstall_known_extensions"),
            ("temp_directory".to_owned(), self.0.display().to_string()),
        ]
    }

    /// The same for an instance of the driver's.
    fn config(&self) -> duckdb::Result<Config> {
        self.settings().into_iter().try_fold(Config::default(), |config, (name, value)| config.with(name, value))
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Makes a database under another name, and gives it its own when it is whole: a process that dies in between leaves no half of a file that
/// nobody can open.
fn make_whole(path: &Path, settings: &[(String, String)]) -> duckdb::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = path.with_file_name(name);
    drop(std::fs::remove_file(&new));
    drop(Instance::open(&new, settings)?.connect()?);
    if !path.exists() && std::fs::rename(&new, path).is_ok() {
        return Ok(());
    }
    // Somebody was faster, or the folder says why when the database itself is opened.
    drop(std::fs::remove_file(&new));
    Ok(())
}

/// One open database. Clones share it.
#[derive(Clone)]
pub(crate) struct Database {
    root: Arc<Mutex<duckdb::Connection>>,
    instance: Arc<Instance>,
    spill: Arc<SpillFolder>,
    /// DuckDB aborts one of two transactions that write the same table; publications are short, so they take turns.
    publishing: Arc<Mutex<()>>,
    name: Arc<str>,
    /// Whether its SQL reaches no files and no other systems.
    is_confined: bool,
}

/// What is left of a database while anybody uses it.
struct Used {
    root: Weak<Mutex<duckdb::Connection>>,
    instance: Weak<Instance>,
    spill: Weak<SpillFolder>,
    publishing: Weak<Mutex<()>>,
    is_closed: Arc<AtomicBool>,
    is_read_only: bool,
    is_confined: bool,
}

/// The files that this process has open. DuckDB keeps other processes out of a file, and not the same one: two instances would write over each
/// other. Work that nobody waits for any more may keep a file open for a moment longer than its connection.
static USED: Mutex<BTreeMap<PathBuf, Used>> = Mutex::new(BTreeMap::new());

/// How long an open file that is used otherwise is waited for.
const CLOSING: Duration = Duration::from_secs(15);

impl Used {
    fn of(database: &Database, is_read_only: bool) -> Self {
        Self {
            root: Arc::downgrade(&database.root),
            instance: Arc::downgrade(&database.instance),
            spill: Arc::downgrade(&database.spill),
            publishing: Arc::downgrade(&database.publishing),
            is_closed: database.instance.is_closed(),
            is_read_only,
            is_confined: database.is_confined,
        }
    }

    /// The database for one more connection; `None` where it is just being closed.
    fn join(&self, name: &str) -> Option<Database> {
        Some(Database {
            root: self.root.upgrade()?,
            instance: self.instance.upgrade()?,
            spill: self.spill.upgrade()?,
            publishing: self.publishing.upgrade()?,
            name: name.into(),
            is_confined: self.is_confined,
        })
    }
}

impl Database {
    /// Opens a database, or joins those of this process that use its file.
    fn open(request: &OpenRequest) -> Result<Self, ConnectError> {
        let path = PathBuf::from(request.config.get("path").unwrap_or_default());
        let whole = || std::fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).unwrap_or_else(|_| path.clone());
        if path.as_os_str() == MEMORY {
            return Self::open_file(request);
        }
        let mut waited = Duration::ZERO;
        loop {
            // Held while the file is opened, so that nobody else opens it meanwhile.
            let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
            used.retain(|_, used| !used.is_closed.load(Ordering::Acquire));
            match used.get(&whole()).map(|used| (used.is_read_only == request.is_read_only, used.join(&request.name))) {
                None => {
                    let database = Self::open_file(request)?;
                    used.insert(whole(), Used::of(&database, request.is_read_only));
                    return Ok(database);
                }
                Some((true, Some(database))) => return Ok(database),
                // In the other mode, or just being closed.
                Some(_) if waited < CLOSING => {}
                Some(_) => {
                    let message = format!("connection `{}`: this process has `{}` open otherwise", request.name, path.display());
                    return Err(ConnectError::new(ConnectErrorKind::Held, message).help("run again in a moment"));
                }
            }
            drop(used);
            std::thread::sleep(Duration::from_millis(20));
            waited += Duration::from_millis(20);
        }
    }

    fn open_file(request: &OpenRequest) -> Result<Self, ConnectError> {
        let path = PathBuf::from(request.config.get("path").unwrap_or_default());
        let is_in_memory = path.as_os_str() == MEMORY;
        let is_missing = !path.exists() && !is_in_memory;
        if request.is_read_only && is_missing {
            let message = format!("connection `{}`: there is no database at `{}` yet", request.name, path.display());
            return Err(ConnectError::new(ConnectErrorKind::NotFound, message).help("`subak run` makes it"));
        }
        if let Some(folder) = path.parent().filter(|_| is_missing) {
            std::fs::create_dir_all(folder).map_err(|error| {
                ConnectError::io(ConnectErrorKind::Unavailable, format!("cannot make the folder `{}`", folder.display()), error)
            })?;
        }
        let is_confined = request.config.get("external_access") != Some("true");
        let spill = SpillFolder::new(&request.temporary);
        let opening = |error: duckdb::Error| error::opening(&request.name, &path, &error);
        if is_missing {
            make_whole(&path, &spill.settings()).map_err(opening)?;
        }
        let instance = Instance::open(&path, &Self::settings(request, &spill)).map_err(opening)?;
        let connection = instance.connect().map_err(opening)?;
        let database = Self {
            root: Arc::new(Mutex::new(connection)),
            instance,
            spill: Arc::new(spill),
            publishing: Arc::default(),
            name: request.name.as_str().into(),
            is_confined,
        };
        let connection = database.connect()?;
        // Fails where DuckDB was built without ICU: then time zones would break in the middle of a run.
        let test = "set TimeZone = 'UTC'; select timestamptz '2024-03-10 00:00:00+00' + interval 1 day";
        connection.execute_batch(test).map_err(|error| error::failed("this build of DuckDB fails its self-test", error))?;
        if !request.is_read_only {
            // Once: two loads that attach it at the same time would fail one of them.
            let attach = format!("attach if not exists ':memory:' as {}", insert::STREAMS);
            connection.execute_batch(&attach).map_err(|error| error::failed("streams cannot be read", error))?;
        }
        if is_confined {
            // It cannot be allowed again while the database is open.
            let confine = connection.execute_batch("set enable_external_access = false");
            confine.map_err(|error| error::failed("the database cannot be closed off from files", error))?;
        }
        Ok(database)
    }

    fn settings(request: &OpenRequest, spill: &SpillFolder) -> Vec<(String, String)> {
        let mut settings = spill.settings();
        let mode = if request.is_read_only { "READ_ONLY" } else { "READ_WRITE" };
        settings.push(("access_mode".to_owned(), mode.to_owned()));
        let named = [("memory_limit", "max_memory"), ("threads", "threads")];
        let said = named.into_iter().filter_map(|(key, name)| Some((name.to_owned(), request.config.get(key)?.to_owned())));
        settings.extend(said);
        settings
    }

    /// A connection that inserts a stream.
    fn streaming(&self) -> Result<Streaming, ConnectError> {
        let connection = self.instance.streaming().and_then(|connection| {
            connection.execute("set TimeZone = 'UTC'")?;
            Ok(connection)
        });
        connection.map_err(|error| error::failed(&format!("connection `{}` cannot be shared", self.name), error))
    }

    /// The name that DuckDB gave to the database.
    fn catalog(&self) -> Result<String, ConnectError> {
        let root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let name = root.query_row("select current_database()", [], |row| row.get(0));
        name.map_err(|error| error::failed("the database does not say its name", error))
    }

    /// A connection of its own to the same database.
    fn connect(&self) -> Result<duckdb::Connection, ConnectError> {
        let root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let connection =
            root.try_clone().map_err(|error| error::failed(&format!("connection `{}` cannot be shared", self.name), error))?;
        connection.execute_batch("set TimeZone = 'UTC'").map_err(|error| error::failed("cannot set the time zone", error))?;
        Ok(connection)
    }

    /// Runs blocking work on a connection of its own. Dropping the result interrupts the statement that runs.
    async fn with<T, F>(&self, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&duckdb::Connection) -> Result<T, ConnectError> + Send + 'static,
    {
        let database = self.clone();
        let connection = blocking::run(move || database.connect()).await?;
        let interrupt = Interrupt(Some(connection.interrupt_handle()));
        // The file counts as open as long as this works, also when nobody waits for it any more.
        let held = self.clone();
        let result = blocking::run(move || {
            let result = work(&connection);
            drop(connection);
            drop(held);
            result
        })
        .await;
        interrupt.disarm();
        result
    }
}

/// Interrupts the running statement when dropped, unless disarmed.
struct Interrupt(Option<Arc<duckdb::InterruptHandle>>);

impl Interrupt {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.interrupt();
        }
    }
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
    fn sql(&self) -> Option<&dyn SqlBackend> {
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
        self.with(move |connection| connection.execute_batch(&sql).map_err(|error| error::failed("the statement failed", error)))
            .await
    }
}
