//! Checks on tables that are Parquet files, evaluated by a DuckDB of their own that lives in memory.

use std::path::{Path, PathBuf};

use duckdb::{Config, Connection};
use subak_connect::{Audit, AuditResult, ConnectError, TableName};

use super::error::failed;
use super::session::{DuckDbSession, schema_of};
use super::{AUDIT_MEMORY, DIALECT};
use crate::staging::{self, Session};

/// Tables of Parquet files as views, and one file that is to become a table.
pub(crate) struct Parquets {
    connection: Connection,
    preview: String,
}

impl Parquets {
    /// Opens the file at `preview`, whose rows the checks are about, beside `tables`, to which they may refer. What does not fit into
    /// memory goes to the folder `temporary`.
    pub(crate) fn open(temporary: &Path, preview: &Path, tables: &[(TableName, PathBuf)]) -> Result<Self, ConnectError> {
        let refused = |error| failed("checks on files cannot be prepared", error);
        let config = Config::default()
            .enable_autoload_extension(false)
            .and_then(|config| config.with("autoinstall_known_extensions", "false"))
            .and_then(|config| config.with("temp_directory", temporary.join("duckdb").display().to_string()))
            .and_then(|config| config.with("preserve_insertion_order", "false"))
            .and_then(|config| config.max_memory(AUDIT_MEMORY))
            .map_err(refused)?;
        let connection = Connection::open_in_memory_with_flags(config).map_err(refused)?;
        let session = DuckDbSession::new(&connection, "checks on files cannot be prepared");
        session.execute("set TimeZone = 'UTC'")?;
        let rows = |path: &Path| format!("read_parquet({})", DIALECT.literal(&path.display().to_string()));
        for (table, path) in tables {
            session.execute(&format!("create schema if not exists {}", DIALECT.identifier(schema_of(table))))?;
            session.execute(&format!("create view {} as select * from {}", DIALECT.table(table), rows(path)))?;
        }
        Ok(Self { connection, preview: format!("(select * from {})", rows(preview)) })
    }

    /// Evaluates a check.
    pub(crate) fn audit(&self, audit: &Audit, sample_max: usize) -> Result<AuditResult, ConnectError> {
        let session = DuckDbSession::new(&self.connection, "the check cannot be evaluated");
        staging::audit(&session, Some(&self.preview), audit, sample_max)
    }
}

/// The rows of a file as texts, NULL as `None`, sorted.
#[cfg(test)]
pub(crate) fn read_parquet(path: &Path) -> Option<subak_connect::conformance::Rows> {
    let connection = Connection::open_in_memory().ok()?;
    let sql = format!("select columns(*)::varchar from read_parquet({})", DIALECT.literal(&path.display().to_string()));
    let mut statement = connection.prepare(&sql).ok()?;
    let mut found = statement.query([]).ok()?;
    let mut rows = subak_connect::conformance::Rows::new();
    while let Some(row) = found.next().ok()? {
        let width = row.as_ref().column_count();
        rows.push((0..width).map(|at| row.get::<_, Option<String>>(at)).collect::<Result<_, _>>().ok()?);
    }
    rows.sort();
    Some(rows)
}
