//! DuckDB as staging sees it.

use arrow::array::Array;
use arrow::datatypes::DataType as ArrowType;
use duckdb::{Connection, OptionalExt, params};
use subak_connect::{ConnectError, Dialect, TableName, convert};

use super::error::failed;
use super::{DIALECT, types};
use crate::staging::{Relation, RelationKind, Session, TextRow};

/// One connection, and what it is doing, for messages.
pub(super) struct DuckDbSession<'a> {
    pub(super) connection: &'a Connection,
    /// What failed when a statement fails, for example `cannot publish bronze.users`.
    pub(super) message: String,
}

impl<'a> DuckDbSession<'a> {
    pub(super) fn new(connection: &'a Connection, message: impl Into<String>) -> Self {
        Self { connection, message: message.into() }
    }

    fn failed(&self, error: duckdb::Error) -> ConnectError {
        failed(&self.message, error)
    }
}

/// The schema of a table, with DuckDB's default filled in.
pub(super) fn schema_of(table: &TableName) -> &str {
    table.schema.as_deref().unwrap_or(DIALECT.schema_default)
}

impl Session for DuckDbSession<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn execute(&self, sql: &str) -> Result<u64, ConnectError> {
        self.connection.execute(sql, []).map(|count| count as u64).map_err(|error| self.failed(error))
    }

    fn rows(&self, sql: &str, count_max: usize) -> Result<Vec<TextRow>, ConnectError> {
        let mut statement = self.connection.prepare(sql).map_err(|error| self.failed(error))?;
        drop(statement.stream_arrow([]).map_err(|error| self.failed(error))?);
        let mut rows = Vec::new();
        // The iterator that `stream_arrow` returns panics when a fetch fails; `step` returns the error.
        while let Some(batch) = statement.step().map_err(|error| self.failed(error))? {
            rows.extend(batch_texts(&batch.into()));
            if rows.len() >= count_max {
                rows.truncate(count_max);
                break;
            }
        }
        Ok(rows)
    }

    fn relation(&self, table: &TableName) -> Result<Option<Relation>, ConnectError> {
        // The views of `information_schema` list the columns of all tables and of the system, each time.
        let sql = "select false as is_view from duckdb_tables() where database_name = current_database() \
                   and lower(schema_name) = lower(?1) and lower(table_name) = lower(?2) \
                   union all select true from duckdb_views() where database_name = current_database() \
                   and lower(schema_name) = lower(?1) and lower(view_name) = lower(?2)";
        let is_view: Option<bool> = self
            .connection
            .query_row(sql, params![schema_of(table), table.name], |row| row.get(0))
            .optional()
            .map_err(|error| failed("cannot read the catalog", error))?;
        let Some(is_view) = is_view else { return Ok(None) };
        let sql = format!("describe {}", DIALECT.table(table));
        let read = || -> duckdb::Result<Vec<(String, String)>> {
            let mut statement = self.connection.prepare(&sql)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        Ok(Some(Relation {
            kind: RelationKind::view(is_view),
            columns: read().map_err(|error| failed("cannot read the catalog", error))?,
        }))
    }

    fn sql_type(&self, data_type: &ArrowType) -> Option<String> {
        types::sql_type(&crate::plain::plain_type(data_type))
    }

    fn keepsakes(&self, table: &TableName) -> Result<Vec<String>, ConnectError> {
        let name = DIALECT.table(table);
        let mut statements = Vec::new();
        let place = format!(
            "database_name = current_database() and lower(schema_name) = lower({}) and lower(table_name) = lower({})",
            DIALECT.literal(schema_of(table)),
            DIALECT.literal(&table.name)
        );
        for row in self.rows(&format!("select comment from duckdb_tables() where {place} and comment is not null"), 1)? {
            if let Some((_, Some(comment))) = row.first() {
                statements.push(format!("comment on table {name} is {}", DIALECT.literal(comment)));
            }
        }
        let sql = format!("select column_name, comment from duckdb_columns() where {place} and comment is not null");
        for row in self.rows(&sql, usize::MAX)? {
            if let [(_, Some(column)), (_, Some(comment))] = row.as_slice() {
                let column = DIALECT.identifier(column);
                statements.push(format!("comment on column {name}.{column} is {}", DIALECT.literal(comment)));
            }
        }
        for row in self.rows(&format!("select sql from duckdb_indexes() where {place} and sql is not null"), usize::MAX)? {
            if let Some((_, Some(sql))) = row.into_iter().next() {
                statements.push(sql.trim_end_matches(';').to_owned());
            }
        }
        Ok(statements)
    }
}

/// The rows of a batch as texts.
pub(super) fn batch_texts(batch: &arrow::record_batch::RecordBatch) -> Vec<TextRow> {
    let schema = batch.schema();
    let text = |at: usize, row: usize| {
        let array = batch.column(at);
        array.is_valid(row).then(|| convert::text_at(array, row))
    };
    let name = |at: usize| schema.field(at).name().clone();
    (0..batch.num_rows()).map(|row| (0..batch.num_columns()).map(|at| (name(at), text(at, row))).collect()).collect()
}
