//! SQL: building tables and views from queries, and asking questions.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use subak_domain::{CheckRule, Column, LoadId, StoredAs};

use crate::{AuditResult, ConnectError, Dialect, Staged, TableName};

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
    async fn audit(&self, table: Option<&TableName>, rule: &CheckRule) -> Result<AuditResult, ConnectError>;
    /// Runs a query. Dropping the result cancels it. There is at least one batch, which may be empty.
    fn query(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>>;
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
}
