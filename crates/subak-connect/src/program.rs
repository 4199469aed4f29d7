//! Expressions over rows in flight: computed columns and filters, evaluated by an embedded engine so that they mean the same
//! whatever the source and the destination are.

use arrow::array::BooleanArray;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::ConnectError;

/// Compiles expressions.
pub trait RowPrograms: Send + Sync {
    /// Prepares expressions for rows of `schema`: each pair of `derive` is a name and an expression, a later one may use an earlier
    /// one; `filter` is a condition over columns and computed columns. An expression that does not fit the columns is an error here.
    fn compile(
        &self,
        schema: &SchemaRef,
        derive: &[(String, String)],
        filter: Option<&str>,
    ) -> Result<Box<dyn RowProgram>, ConnectError>;
}

/// Prepared expressions.
pub trait RowProgram: Send {
    /// Columns of the result: those of the rows, then the computed ones.
    fn schema(&self) -> SchemaRef;
    /// The rows with computed columns, in their order, and which of them pass the filter; `None` when there is none. A row for
    /// which the filter is NULL does not pass.
    fn run(&mut self, rows: &RecordBatch) -> Result<(RecordBatch, Option<BooleanArray>), ConnectError>;
    /// Which expression cannot be evaluated for the first of `rows`; `None` when all of them can.
    fn blame(&mut self, rows: &RecordBatch) -> Option<Blame>;
}

/// An expression that cannot be evaluated for a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The computed column; `None` for the filter.
    pub column: Option<String>,
    /// What is wrong, in the words of the engine: one line.
    pub reason: String,
}
