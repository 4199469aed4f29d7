//! SQL: building tables and views from queries, and asking questions.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use subak_domain::{Column, History, Latest, Layout, LoadId, SchemaChange, StoredAs, SurrogateKey, WriteMode};

use crate::{Audit, AuditResult, ConnectError, ConnectErrorKind, Dialect, Slice, Staged, TableName};

/// One external system that runs SQL and stores what comes of it.
#[async_trait]
pub trait SqlBackend: Send + Sync {
    /// How it writes SQL.
    fn dialect(&self) -> &'static Dialect;
    /// The columns that a query would return. Reads no data.
    async fn describe_query(&self, sql: &str) -> Result<Vec<Column>, ConnectError>;
    /// Runs the query of an asset and stages its result. Readers see nothing of it before [`Staged::publish`].
    async fn build(&self, request: BuildRequest) -> Result<Box<dyn Staged>, ConnectError>;
    /// Evaluates a check; `table` is what `{{ this }}` stands for.
    async fn audit(&self, table: Option<&TableName>, audit: &Audit) -> Result<AuditResult, ConnectError>;
    /// Runs a query. Dropping the result cancels it. There is at least one batch, which may be empty.
    fn query(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>>;
    /// Runs a query of somebody who is not trusted with more than that: the system itself refuses whatever is no single query or writes to tables. What
    /// its functions reach beyond that, such as files, it refuses too, or leaves to the rights of its user. Where a system cannot be held to that, so says
    /// the only item. Dropping the result ends the query.
    fn look(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let _ = sql;
        let error = ConnectError::new(ConnectErrorKind::Config, "queries of people cannot be held to reading here");
        let error = error.help("`subak query` runs them on the machine of the project");
        futures::stream::once(async move { Err(error) }).boxed()
    }
}

/// Runs statements of the user's own: hooks.
#[async_trait]
pub trait Statements: Send + Sync {
    /// How it writes SQL.
    fn dialect(&self) -> &'static Dialect;
    /// Runs one statement to its end, outside any load, and commits it. What it returns is not looked at. Dropping the result may leave it
    /// done or undone.
    async fn execute(&self, sql: &str) -> Result<(), ConnectError>;
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The load that it counts as.
    pub load: LoadId,
    /// The table or view.
    pub table: TableName,
    /// The query.
    pub sql: String,
    /// How its result is kept.
    pub stored_as: StoredAs,
    /// For results that are kept as rows that stay; `None` for views and tables that are made anew.
    pub incremental: Option<Incremental>,
    /// A key that each row gets once.
    pub surrogate_key: Option<SurrogateKey>,
    /// How the table is laid out when it is made.
    pub layout: Layout,
    /// The time of the build as wall-clock text in UTC.
    pub at: String,
}

/// How the rows of a result get into a table that is there.
#[derive(Debug, Clone)]
pub struct Incremental {
    /// What happens to rows that are there.
    pub mode: WriteMode,
    /// Columns that identify a row.
    pub unique_key: Vec<String>,
    /// Which of several rows with one key stays.
    pub latest: Option<Latest>,
    /// How versions are kept.
    pub history: History,
    /// What happens to columns that the table does not have, and to those that only it has.
    pub on_schema_change: SchemaChange,
    /// The part of the table that the rows take the place of; see [`crate::LoadRequest::slice`].
    pub slice: Option<Slice>,
}
