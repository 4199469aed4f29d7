//! Assets: the datasets that a project declares and keeps up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::job::{Program, TaskWork};
use crate::{
    Action, AssetKey, Automation, Check, ConnectionName, DataType, FreshnessPolicy, History, Latest, Layout, Partitioning, Shape,
    StepId, SurrogateKey, Version, WriteMode,
};

/// A named dataset and how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// Its dotted name.
    pub key: AssetKey,
    /// How it is made.
    pub definition: Definition,
    /// Assets that it reads directly, sorted.
    pub upstream: Vec<AssetKey>,
    /// Checks that are evaluated whenever it is brought up to date.
    pub checks: Vec<Check>,
    /// Hash of everything that decides its data.
    pub version: Version,
    /// File that declares it, relative to the project.
    pub path: String,
    /// Group: what the declaration says, else the first segment of the key.
    pub group: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Free labels.
    pub tags: BTreeSet<String>,
    /// What its columns mean, for readers, by column.
    pub columns: BTreeMap<String, String>,
    /// One or more sentences for readers.
    pub description: Option<String>,
    /// How often a failed step is tried again.
    pub retry: Retry,
    /// Upper bound for one attempt.
    pub timeout: Duration,
    /// How many slots of which pools one attempt takes.
    pub pools: crate::job::PoolSlots,
    /// Statements around each time that it is brought up to date.
    pub hooks: Hooks,
    /// How it is cut into partitions.
    pub partitioning: Option<Partitioning>,
    /// When it is brought up to date by itself.
    pub automation: Option<Automation>,
    /// How old it may become.
    pub freshness: Option<FreshnessPolicy>,
}

impl Asset {
    /// The connection whose tables hold the asset; `None` for an external asset.
    pub fn stored_in(&self) -> Option<&ConnectionName> {
        match &self.definition {
            Definition::Ingest(ingest) | Definition::Seed(ingest) => Some(&ingest.to),
            Definition::Sql(sql) => Some(&sql.on),
            Definition::Script(script) => script.output.as_ref().map(|output| &output.to),
            Definition::Dbt(node) => Some(&node.on),
            Definition::Graph(made) => Some(&made.on),
            Definition::External { .. } => None,
        }
    }

    /// The declaration whose one start makes it together with others; `None` where it is made by itself.
    pub fn made_with(&self) -> Option<&str> {
        match &self.definition {
            Definition::Script(script) => script.made_with.as_deref(),
            Definition::Dbt(node) => Some(&node.made_with),
            _ => None,
        }
    }

    /// The connections that its step uses.
    pub fn connections(&self) -> BTreeSet<&ConnectionName> {
        let from = match &self.definition {
            Definition::Ingest(ingest) | Definition::Seed(ingest) => Some(&ingest.from),
            Definition::External { observe } => match observe.as_deref() {
                Some(TaskWork::Query { on, .. }) => Some(on),
                _ => None,
            },
            Definition::Sql(_) | Definition::Script(_) | Definition::Dbt(_) | Definition::Graph(_) => None,
        };
        let inputs = match &self.definition {
            Definition::Script(script) => script.inputs.as_slice(),
            _ => &[],
        };
        let inputs = inputs.iter().map(|input| &input.on);
        let hooks = self.hooks.before.iter().chain(&self.hooks.after).map(|hook| &hook.on);
        self.stored_in().into_iter().chain(from).chain(inputs).chain(hooks).collect()
    }
}

/// How an asset is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// A stream of a source is loaded into a table.
    Ingest(Ingest),
    /// A query's result is stored.
    Sql(SqlAsset),
    /// A small file under version control is loaded into a table. It is read through the project's own files.
    Seed(Ingest),
    /// A program makes it.
    Script(Box<Script>),
    /// dbt builds it.
    Dbt(Box<DbtNode>),
    /// Tasks make it, in the order of their needs.
    Graph(Box<TaskGraph>),
    /// Something outside keeps it up to date; it is never run.
    External {
        /// How to find out whether it has changed: work whose value is another one then. Without it nobody knows.
        observe: Option<Box<TaskWork>>,
    },
}

impl Definition {
    /// Whether something outside keeps it up to date, and nobody tells when it changes.
    pub fn is_unobserved(&self) -> bool {
        matches!(self, Self::External { observe: None })
    }

    /// The word for this kind, as `kind:` selects it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "ingest",
            Self::Sql(_) => "sql",
            Self::Seed(_) => "seed",
            Self::Script(_) => "script",
            Self::Dbt(_) => "dbt",
            Self::Graph(_) => "graph",
            Self::External { .. } => "external",
        }
    }
}

/// Every word that `kind:` knows.
pub const KINDS: &[&str] = &["dbt", "external", "graph", "ingest", "script", "seed", "sql"];

/// Tasks that make an asset together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskGraph {
    /// The connection that holds the table.
    pub on: ConnectionName,
    /// What the tasks do, each behind what it needs of the others; those that need none of them wait for what the asset reads.
    pub actions: Vec<Action>,
    /// Those behind which nothing comes: when they have succeeded, the asset is made.
    pub leaves: Vec<StepId>,
}

/// Runs a program, and loads the files that it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The program.
    pub program: Program,
    /// Tables that it finds as files.
    pub inputs: Vec<ScriptInput>,
    /// The format of these files.
    pub input_format: InputFormat,
    /// Into which table the rows go that it writes, and how; `None` where it keeps its data itself. The stream is the name of the files.
    pub output: Option<Ingest>,
    /// The declaration, where one start of its program makes other assets too.
    pub made_with: Option<String>,
}

/// A table that a program finds as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptInput {
    /// The asset, which names the file.
    pub asset: AssetKey,
    /// The connection that holds it.
    pub on: ConnectionName,
}

/// What dbt builds: a model, a seed or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbtNode {
    /// The connection in whose database dbt builds it.
    pub on: ConnectionName,
    /// The declaration of its project.
    pub made_with: String,
    /// Its id in dbt's manifest, for example `model.shop.customers`.
    pub id: String,
    /// How dbt selects it and nothing else.
    pub selector: String,
    /// Ids of the tests that are evaluated when it is built, sorted.
    pub tests: Vec<String>,
    /// How dbt is started, up to its own command; the folder is that of the dbt project.
    pub program: Program,
    /// What stands behind its command: target and variables.
    pub arguments: Vec<String>,
    /// The folder with its profiles, relative to the project; dbt looks for it where there is none.
    pub profiles: Option<String>,
}

/// How tables are written for programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InputFormat {
    /// With types.
    #[default]
    Parquet,
    /// For programs that read texts only.
    Csv,
}

impl InputFormat {
    /// The word in YAML, and the ending of the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// Loads a stream of a source into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// The source.
    pub from: ConnectionName,
    /// The destination.
    pub to: ConnectionName,
    /// The stream's name in the source.
    pub stream: String,
    /// What happens to rows that the table already holds.
    pub mode: WriteMode,
    /// Columns that identify a row; empty where none is declared.
    pub primary_key: Vec<String>,
    /// Reads only what is new.
    pub cursor: Option<CursorRule>,
    /// Declared types by column of the source, for sources that decode by them; [`Shape::columns`] says the rest.
    pub columns: BTreeMap<String, DataType>,
    /// Options of the source's connector for this stream, for example a file pattern.
    pub options: BTreeMap<String, String>,
    /// What happens to the rows on their way.
    pub shape: Shape,
    /// Which of several arriving rows with one key stays.
    pub latest: Option<Latest>,
    /// How versions are kept; used by [`WriteMode::Snapshot`].
    pub history: History,
    /// How the table is laid out.
    pub layout: Layout,
}

/// How new rows of a stream are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorRule {
    /// The column whose highest committed value bounds the next read from below.
    pub column: String,
    /// How far below that value the next read starts, so that rows that were committed late are found. Needs a key.
    pub lag: Lag,
    /// Whether rows at exactly the lower bound are left out. By default they are read again and recognised, so that a tie loses none.
    pub is_lower_open: bool,
    /// Whether the read ends at the time of the run, which then is the next lower bound: `Some(true)` reads rows at that time too.
    pub until_run: Option<bool>,
    /// What happens to rows without a value in the column.
    pub nulls: NullCursor,
    /// How far above the time of the run a committed cursor may stand; a clock that is wrong must not hide what comes after.
    pub future_max: Duration,
}

impl CursorRule {
    /// The defaults for a column.
    pub fn of(column: String) -> Self {
        Self {
            column,
            lag: Lag::default(),
            is_lower_open: false,
            until_run: None,
            nulls: NullCursor::default(),
            future_max: Duration::from_secs(300),
        }
    }
}

/// How far below the committed cursor a read starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lag {
    /// Not below it.
    #[default]
    None,
    /// So much time below it, for dates and times.
    Time(Duration),
    /// So much below it, for numbers.
    Count(u64),
}

/// What happens to rows without a value in the cursor column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NullCursor {
    /// They are read each time, and recognised when the table holds them already.
    #[default]
    Include,
    /// They are never read.
    Exclude,
    /// They fail the load.
    Error,
}

/// Stores the result of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlAsset {
    /// The connection that runs the query and stores its result.
    pub on: ConnectionName,
    /// The query, templates rendered, header removed.
    pub sql: String,
    /// How the result is kept.
    pub stored_as: StoredAs,
    /// The query for a table that is there already, where it differs.
    pub incremental_sql: Option<String>,
    /// How rows get into a table that is there; used by [`StoredAs::Incremental`] and [`StoredAs::Snapshot`].
    pub mode: WriteMode,
    /// Columns that identify a row.
    pub unique_key: Vec<String>,
    /// Which of several rows with one key stays.
    pub latest: Option<Latest>,
    /// How versions are kept; used by [`StoredAs::Snapshot`].
    pub history: History,
    /// What happens when the query returns other columns than the table has.
    pub on_schema_change: SchemaChange,
    /// A key that is assigned to each row once.
    pub surrogate_key: Option<SurrogateKey>,
    /// How the table is laid out.
    pub layout: Layout,
}

impl SqlAsset {
    /// A query whose result is made anew each time.
    pub fn new(on: ConnectionName, sql: String, stored_as: StoredAs) -> Self {
        Self {
            on,
            sql,
            stored_as,
            incremental_sql: None,
            mode: WriteMode::Replace,
            unique_key: Vec::new(),
            latest: None,
            history: History::default(),
            on_schema_change: SchemaChange::default(),
            surrogate_key: None,
            layout: Layout::default(),
        }
    }
}

/// What happens when the query of an incremental asset returns other columns than its table has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SchemaChange {
    /// New columns are added; columns that went stay and get NULL.
    #[default]
    Append,
    /// New columns are added and columns that went are removed.
    Sync,
    /// New columns are left out.
    Ignore,
    /// The step fails.
    Fail,
}

impl SchemaChange {
    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Sync => "sync",
            Self::Ignore => "ignore",
            Self::Fail => "fail",
        }
    }
}

/// How the result of a query is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// As a query that readers run.
    View,
    /// As rows that are made anew each time.
    Table,
    /// As a query and the rows that it returned, which the system makes anew in place.
    MaterializedView,
    /// As rows that stay, to which each run adds what its query returns.
    Incremental,
    /// As every version that a row of the result ever had.
    Snapshot,
}

impl StoredAs {
    /// What every SQL backend has.
    pub const USUAL: &[Self] = &[Self::View, Self::Table, Self::Incremental, Self::Snapshot];

    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Table => "table",
            Self::MaterializedView => "materialized_view",
            Self::Incremental => "incremental",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Statements that run around a step, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before anything is read or written.
    pub before: Vec<Hook>,
    /// After the rows are published, whether or not that changed anything.
    pub after: Vec<Hook>,
}

/// A statement of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The connection that runs it.
    pub on: ConnectionName,
    /// The statement; `{{ this }}` stands for the asset's table.
    pub sql: String,
}

/// How often a failed step is tried again, and how long it waits in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one included.
    pub attempts_max: NonZeroU32,
    /// Wait before the second attempt; doubles each time.
    pub delay_first: Duration,
    /// Upper bound for the wait between two attempts.
    pub delay_max: Duration,
    /// Share of the wait that is random, in percent, 0 to 100: the wait is taken from `delay ± jitter`.
    pub jitter_percent: u8,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: NonZeroU32::MIN.saturating_add(2),
            delay_first: Duration::from_secs(1),
            delay_max: Duration::from_secs(60),
            jitter_percent: 20,
        }
    }
}

impl Retry {
    /// The wait before attempt `attempt + 1`, after `attempt` attempts have failed. `random` is in `0..=1000`.
    ///
    /// Doubles from `delay_first`, is bounded by `delay_max` before the jitter is applied, and never overflows.
    pub fn delay_after(&self, attempt: u32, random: u16) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let base = self.delay_first.checked_mul(factor).unwrap_or(self.delay_max).min(self.delay_max);
        let spread = i64::from(self.jitter_percent) * (i64::from(random.min(1000)) - 500) / 500;
        let per_cent = u32::try_from(100 + spread).unwrap_or(0);
        base.checked_mul(per_cent).unwrap_or(Duration::MAX) / 100
    }
}

/// Upper bound for one attempt of a step where the project names none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(6 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    /// T-61: the wait has an upper bound, also after a thousand attempts.
    #[test]
    fn delay_doubles_and_is_bounded() {
        let retry = Retry { jitter_percent: 0, ..Retry::default() };
        let seconds: Vec<_> = [1, 2, 3, 7, 40, 1000].iter().map(|attempt| retry.delay_after(*attempt, 0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 60, 60, 60]);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let retry = Retry { jitter_percent: 20, ..Retry::default() };
        let ms: Vec<_> = [0, 500, 1000].iter().map(|random| retry.delay_after(1, *random).as_millis()).collect();
        assert_eq!(ms, [800, 1000, 1200]);
        let full = Retry { jitter_percent: 100, ..Retry::default() };
        assert_eq!(full.delay_after(1, 0), Duration::ZERO);
    }
}
