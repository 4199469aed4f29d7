//! Writing: one atomic load to one table.

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use subak_domain::{AssetKey, CheckRule, Cursor, LoadId, WriteMode};

use crate::{Batch, ConnectError};

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
}

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The load. One that is committed already is not begun again: ask [`Sink::committed`] first.
    pub load: LoadId,
    /// The table.
    pub table: TableName,
    /// Columns of every batch that will be written.
    pub schema: SchemaRef,
    /// What happens to rows that are there.
    pub mode: WriteMode,
    /// Whether two rows with one key, or a row without, are refused; set for [`WriteMode::Merge`], and when the table of a merge is
    /// rebuilt by [`WriteMode::Replace`].
    pub has_unique_key: bool,
    /// Columns that identify a row; not empty for [`WriteMode::Merge`].
    pub primary_key: Vec<String>,
    /// In [`WriteMode::Append`] with a cursor: the bound from which the rows were read, inclusive. Rows at exactly this value that
    /// the table holds already are not added again.
    pub overlap: Option<Cursor>,
}

/// Rows on their way into a table. Dropping it leaves the table as it was.
#[async_trait]
pub trait Load: Send {
    /// Stages rows. A returned `Ok` does not mean that they are durable.
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError>;
    /// Ends the writing. Nothing is published yet.
    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError>;
}

/// A table as it will be, complete and unseen. Dropping it leaves the published table as it was.
#[async_trait]
pub trait Staged: Send {
    /// How many rows are staged, and how many were left out because the table holds them already.
    fn rows(&self) -> StagedRows;
    /// Evaluates a check on the table as readers would see it after publication.
    async fn audit(&mut self, rule: &CheckRule) -> Result<AuditResult, ConnectError>;
    /// Publishes the rows and `cursor` in one transaction and enters the load in the ledger. Readers see all of it or nothing.
    ///
    /// `Ok` means durable. After an error the table is as it was, unless the error is of the kind that leaves the outcome of a
    /// commit unknown: then [`Sink::committed`] tells.
    async fn publish(self: Box<Self>, cursor: Option<Cursor>) -> Result<Committed, ConnectError>;
}

/// The rows of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagedRows {
    /// Rows that publication will add or replace.
    pub written: u64,
    /// Rows that were left out because the table holds them already.
    pub overlap: u64,
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
}
