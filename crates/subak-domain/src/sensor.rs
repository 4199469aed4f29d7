//! Sensors: rules that look at something again and again, and start a job when there is something new.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::job::{HttpCall, Program};
use crate::{AssetKey, ConnectionName, RunStatus};

/// How often a sensor looks at the outside where nobody says.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How often a sensor looks at the project's own log where nobody says.
pub const LOG_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long one look may take where nobody says.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a file must have stayed the same where nobody says.
pub const SETTLE: Duration = Duration::from_secs(5);

/// A declared, named rule that starts a job when it sees something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    /// Its name; no job has the same one.
    pub name: String,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The file that declares it.
    pub path: String,
    /// What it looks at.
    pub watch: Watch,
    /// The job that it starts.
    pub job: String,
    /// Parameters of the job, as templates over `item` and `items`.
    pub set: BTreeMap<String, String>,
    /// The partition that a run is for, as a template over `item`.
    pub partition: Option<String>,
    /// The set of dynamic partitions that gets the key of that partition.
    pub add_to: Option<String>,
    /// Whether each new item gets a run of its own; else one run is for all that is new.
    pub is_per_item: bool,
    /// The least time from the start of one look to the next.
    pub min_interval: Duration,
    /// Upper bound for one look.
    pub timeout: Duration,
}

/// What a sensor looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Files that come.
    Files {
        /// The connection that holds them, which may be the project's own folder.
        on: ConnectionName,
        /// A pattern such as `raw/*/incoming/*.csv`.
        pattern: String,
        /// How long a file must have stayed the same before it counts.
        settle: Duration,
    },
    /// Rows of a query.
    Query {
        /// Where.
        on: ConnectionName,
        /// The query.
        sql: String,
        /// How far it has read; without one, rows that were not there at the last look are new.
        cursor: Option<WatchCursor>,
    },
    /// The answer to a request.
    Http {
        /// The request.
        call: HttpCall,
        /// An expression over `status` and `body`; by default the body.
        value: Option<String>,
    },
    /// Assets whose data change.
    Assets {
        /// The assets.
        assets: Vec<AssetKey>,
        /// Whether all of them must have changed since the last run; else one is enough.
        needs_all: bool,
    },
    /// Runs of jobs that end.
    Jobs {
        /// The jobs.
        jobs: Vec<String>,
        /// How they end; any end where there is none.
        status: Option<RunStatus>,
    },
    /// What others tell the server.
    Webhook {
        /// What they must know, with its references.
        secret: String,
        /// The header in which they sign; where there is one, nothing else is taken.
        signature_header: Option<String>,
    },
    /// What a program says.
    Program(Program),
}

/// How far the query of a sensor has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchCursor {
    /// The column.
    pub column: String,
    /// Where it begins.
    pub from: Value,
}

impl Watch {
    /// The word that stands for it in a project file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Files { .. } => "files",
            Self::Query { .. } => "query",
            Self::Http { .. } => "http",
            Self::Assets { .. } => "asset",
            Self::Jobs { .. } => "job",
            Self::Webhook { .. } => "webhook",
            Self::Program(_) => "run",
        }
    }

    /// Whether it looks at what the project's own state says, which says when there is something new.
    pub fn is_of_log(&self) -> bool {
        matches!(self, Self::Assets { .. } | Self::Jobs { .. } | Self::Webhook { .. })
    }

    /// What a cursor is about, as text: one that was kept under another identity says nothing. A pattern of files, and the words of a query with
    /// a cursor, may change, and what was seen stays seen; another request, program or query without a cursor begins anew.
    pub fn identity(&self) -> String {
        match self {
            Self::Files { on, .. } => format!("files {on}"),
            Self::Query { on, cursor: Some(cursor), .. } => format!("query {on} {} {}", cursor.column, cursor.from),
            Self::Query { on, sql, cursor: None } => format!("query {on} {sql}"),
            Self::Http { call, value } => format!("http {} {} {:?} {value:?}", call.method, call.url, call.body),
            Self::Assets { .. } => "assets".to_owned(),
            Self::Jobs { .. } => "jobs".to_owned(),
            Self::Webhook { .. } => "webhook".to_owned(),
            Self::Program(program) => format!("run {:?}", program.command),
        }
    }
}

/// A run that a look asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// What it is for: the sensor starts one run for each key, however often it sees it.
    pub key: String,
    /// What is new, as templates see it.
    pub items: Vec<Value>,
    /// Parameters that go before those of the sensor.
    pub set: BTreeMap<String, Value>,
    /// The partition, where it is another than the sensor's.
    pub partition: Option<String>,
}

/// What came of one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// What the next look begins with.
    pub cursor: Value,
    /// The runs, oldest first.
    pub requests: Vec<RunRequest>,
    /// Keys that sets of dynamic partitions get: the name of the set, and the key.
    pub partitions: Vec<(String, String)>,
    /// Why there is no run, or what else a person should know.
    pub note: Option<String>,
    /// When it makes sense to look again before the interval is over.
    pub again_after: Option<Duration>,
}

impl Look {
    /// One that saw nothing new.
    pub fn nothing(cursor: Value, note: &str) -> Self {
        Self { cursor, requests: Vec::new(), partitions: Vec::new(), note: Some(note.to_owned()), again_after: None }
    }
}

/// A file as a sensor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its path, relative to the connection.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was changed last, in microseconds since 1970-01-01 UTC.
    pub modified_at: i64,
}

/// Data of an asset that changed, or a run that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct LogItem {
    /// The place of its event in the log.
    pub position: u64,
    /// The asset, or the job.
    pub name: String,
    /// What templates see.
    pub value: Value,
}
