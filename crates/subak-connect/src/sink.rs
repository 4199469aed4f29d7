//! Writing: one atomic load to one table.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use async_trait::async_trait;
use subak_domain::{AssetKey, CheckRule, Cursor, DataType, History, Latest, Layout, LoadId, Partition, RowAccount, WriteMode};

use crate::source::FileMark;
use crate::{Batch, ConnectError, Reject};

/// One external system, open for writing tables.
///
/// State has one home: the destination. Cursors and the ledger of loads live beside the tables and change in the same
/// transaction as the rows.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What is known about a table; `None` when it does not exist.
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError>;
    /// Which of these tables and views exist. One look, however many they are.
    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError>;
    /// The load, if this sink has committed it.
    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError>;
    /// Begins a load. Readers see nothing of it before [`Staged::publish`].
    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError>;
    /// Removes what loads that died have left behind. Returns how many leftovers there were.
    async fn clean_up(&self) -> Result<u64, ConnectError>;
    /// The lowest and the highest value that a table can hold in a column of this type, in days or microseconds since 1970-01-01; `None` where it
    /// holds all. Whoever shapes the rows decides about values beyond.
    fn bounds(&self, _data_type: &ArrowType) -> Option<(i64, i64)> {
        None
    }
    /// Types of columns in which values of other types are kept as well as in columns of their own: pairs of the column's and theirs.
    fn alike(&self) -> &'static [(DataType, DataType)] {
        &[]
    }
    /// Whether the type of a column of a table can be changed when the load is published.
    fn can_widen(&self) -> bool {
        false
    }
}

/// What tells the rows of a table that keeps deletions from these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRows {
    /// The column that says what happened.
    pub operation: String,
    /// The words in it that mean a deletion, in small letters.
    pub deleted_when: Vec<String>,
}

/// A table by schema and name. Unquoted: every use quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema; `None` for the default one.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

impl TableName {
    /// The table that holds an asset.
    pub fn of(asset: &AssetKey) -> Self {
        Self { schema: asset.schema(), name: asset.name().to_owned() }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(formatter, "{schema}.{}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

/// What a sink knows about a table.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Its columns as rows of it would arrive.
    pub schema: SchemaRef,
    /// How far its stream is committed.
    pub cursor: Option<Cursor>,
    /// Rows in it.
    pub row_count: u64,
    /// Rows in it after the load that committed the cursor, where that is known.
    pub row_count_committed: Option<u64>,
    /// Files that were loaded into it.
    pub files: Vec<FileMark>,
}

/// The boolean column of a batch that marks rows which delete the row with their key instead of replacing it. It is not stored.
pub const DELETE_MARK: &str = "__subak_delete";

/// The text column of a batch that names the columns whose value the source did not say, as `,a,b,`: they keep what they have. It is
/// not stored.
pub const UNCHANGED: &str = "__subak_unchanged";

/// A part of a table: the rows of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The partition.
    pub partition: Partition,
    /// The columns that say to which partition a row belongs, each with what it says. There is at least one.
    pub parts: Vec<SlicePart>,
    /// Whether a column with a window holds moments and not times of a clock; `None` where the type of the column says it.
    pub is_instant: Option<bool>,
}

/// What one column says of the rows of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePart {
    /// The column.
    pub column: String,
    /// Its key, and its window where it is one of time.
    pub of: Partition,
}

impl Slice {
    /// A partition by one column.
    pub fn of_column(column: &str, partition: Partition) -> Self {
        let part = SlicePart { column: column.to_owned(), of: partition.clone() };
        Self { partition, parts: vec![part], is_instant: None }
    }

    /// The columns, for people.
    pub fn columns(&self) -> String {
        self.parts.iter().map(|part| format!("`{}`", part.column)).collect::<Vec<_>>().join(", ")
    }
}

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The load. One that is committed already is not begun again: ask [`Sink::committed`] first.
    pub load: LoadId,
    /// The run that it belongs to, for people who look at rejects.
    pub run: String,
    /// The table.
    pub table: TableName,
    /// Columns of every batch that will be written; [`DELETE_MARK`] may be among them.
    pub schema: SchemaRef,
    /// What happens to rows that are there.
    pub mode: WriteMode,
    /// Whether two rows with one key, or a row without, are refused; set for merges and snapshots, and when their tables are
    /// rebuilt by [`WriteMode::Replace`].
    pub has_unique_key: bool,
    /// Columns that identify a row; not empty for modes with a key.
    pub primary_key: Vec<String>,
    /// In [`WriteMode::DeleteInsert`]: the part of the table that the rows take the place of, instead of the rows with their keys. Rows that lie
    /// outside of it are refused.
    pub slice: Option<Slice>,
    /// In [`WriteMode::Append`] with a cursor: the bound from which the rows were read, inclusive. Rows at exactly this value that
    /// the table holds already are not added again.
    pub overlap: Option<Cursor>,
    /// Which of several rows with one key stays.
    pub latest: Option<Latest>,
    /// How versions are kept in [`WriteMode::Snapshot`].
    pub history: History,
    /// The time of the load as wall-clock text in UTC: from when new versions hold in [`WriteMode::Snapshot`].
    pub at: String,
    /// Whether the rows are the whole stream, so that keys which are not among them are gone.
    pub is_complete: bool,
    /// Columns whose value does not make a row different from the one in the table.
    pub volatile: Vec<String>,
    /// Columns of the table whose type becomes the one that arrives.
    pub widened: Vec<String>,
    /// Columns of the table that are removed.
    pub removed: Vec<String>,
    /// Tables of nested lists, published with their parents.
    pub children: Vec<ChildRequest>,
    /// What tells rows from deletions; the view `<table>__live` shows the rows.
    pub live: Option<LiveRows>,
    /// How the table is laid out when it is made.
    pub layout: Layout,
    /// Whether deletions are remembered, so that an older row cannot bring back a key.
    pub keeps_tombstones: bool,
}

/// A table of nested lists. Its first columns are the key of the parent, named `parent_<column>`.
#[derive(Debug, Clone)]
pub struct ChildRequest {
    /// The table.
    pub table: TableName,
    /// Its columns.
    pub schema: SchemaRef,
}

impl LoadRequest {
    /// A load with nothing special about it. A merge, or a snapshot, has a unique key.
    pub fn new(load: LoadId, table: TableName, schema: SchemaRef, mode: WriteMode) -> Self {
        Self {
            load,
            run: String::new(),
            table,
            schema,
            mode,
            has_unique_key: matches!(mode, WriteMode::Merge | WriteMode::Snapshot),
            primary_key: Vec::new(),
            slice: None,
            overlap: None,
            latest: None,
            history: History::default(),
            at: "1970-01-01 00:00:00".to_owned(),
            is_complete: false,
            volatile: Vec::new(),
            widened: Vec::new(),
            removed: Vec::new(),
            children: Vec::new(),
            live: None,
            layout: Layout::default(),
            keeps_tombstones: false,
        }
    }

    /// Whether rows may be marked as deletions.
    pub fn has_marks(&self) -> bool {
        self.schema.index_of(DELETE_MARK).is_ok()
    }
}

/// The name of the table that a nested list of a table becomes.
pub fn child_table(table: &TableName, name: &str) -> TableName {
    TableName { schema: table.schema.clone(), name: format!("{}__{name}", table.name) }
}

/// Rows on their way into a table. Dropping it leaves the table as it was.
#[async_trait]
pub trait Load: Send {
    /// Stages rows. A returned `Ok` does not mean that they are durable.
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError>;
    /// Stages rows of the nested list at `child` in [`LoadRequest::children`].
    async fn write_child(&mut self, child: usize, batch: Batch) -> Result<(), ConnectError>;
    /// Stages rejects. Those that the quarantine knows already are not entered again.
    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError>;
    /// Ends the writing. Nothing is published yet.
    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError>;
}

/// A table as it will be, complete and unseen. Dropping it leaves the published table as it was.
#[async_trait]
pub trait Staged: Send {
    /// How many rows are staged, and how many were left out because the table holds them already.
    fn rows(&self) -> StagedRows;
    /// The columns of the table as readers would see them after publication.
    async fn columns(&mut self) -> Result<Vec<subak_domain::Column>, ConnectError>;
    /// Evaluates a check on the table as readers would see it after publication.
    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError>;
    /// Publishes the rows and `commit` in one transaction and enters the load in the ledger. Readers see all of it or nothing.
    ///
    /// `Ok` means durable. After an error the table is as it was, unless the error is of the kind that leaves the outcome of a
    /// commit unknown: then [`Sink::committed`] tells.
    async fn publish(self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError>;
}

/// What is committed with the rows of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// How far the stream is read now; `None` keeps what is there.
    pub cursor: Option<Cursor>,
    /// Files that were read.
    pub files: Vec<FileMark>,
    /// Rejects that this load carries into the table after all.
    pub replayed: Vec<String>,
    /// What became of the rows that were read.
    pub account: Option<RowAccount>,
}

impl From<Option<Cursor>> for Commit {
    fn from(cursor: Option<Cursor>) -> Self {
        Self { cursor, ..Self::default() }
    }
}

/// A check to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The statement.
    pub rule: CheckRule,
    /// Only rows for which this condition is true are looked at.
    pub filter: Option<String>,
    /// The time of the evaluation as wall-clock text in UTC, for statements about age.
    pub now: String,
}

impl Audit {
    /// A statement about all rows.
    pub fn of(rule: CheckRule) -> Self {
        Self { rule, filter: None, now: "1970-01-01 00:00:00".to_owned() }
    }
}

/// The rows of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagedRows {
    /// Rows that publication will add, replace or delete.
    pub written: u64,
    /// Of `written`: rows that delete another one.
    pub deleted: u64,
    /// Rows that were left out because the table holds them already.
    pub overlap: u64,
    /// Rows that were left out because there is a newer one with the same key.
    pub superseded: u64,
}

/// What one check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditResult {
    /// Rows that break the statement.
    pub bad_row_count: u64,
    /// Rows that were looked at, where that is known.
    pub row_count: Option<u64>,
    /// The first bad rows, as `column=value` text.
    pub sample: Vec<String>,
}

/// Bad rows that a check shows at most.
pub const SAMPLE_ROW_COUNT_MAX: usize = 5;

/// A durable load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Rows that the load carried into the table: added or replaced.
    pub written: u64,
    /// Rows in the table afterwards.
    pub row_count: u64,
    /// Rows that were left out because the table held them already (the overlap of an append).
    pub overlap_count: u64,
    /// Whether the table differs from before.
    pub changed: bool,
    /// The cursor that was committed with the rows.
    pub cursor: Option<Cursor>,
    /// What became of the rows that were read, where whoever loaded said so.
    pub account: Option<RowAccount>,
}
