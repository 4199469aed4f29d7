//! Checks on tables that are Parquet files, evaluated by a DuckDB of their own that lives in memory.

use std::path::{Path, PathBuf};

use duckdb::Connection;
use subak_connect::{Audit, AuditResult, ConnectError, TableName};
use subak_domain::CheckRule;

use super::error::failed;
use super::session::{DuckDbSession, schema_of};
use super::{AUDIT_MEMORY, DIALECT, SpillFolder};
use crate::staging::{self, Session};

/// A DuckDB over one file that is to become a table.
pub(crate) struct FileAudits {
    connection: Connection,
    /// Where it spills; removed after the connection is closed.
    _spill: SpillFolder,
    preview: String,
}

/// The rows of a file, as something that can stand behind `from`. What the names of folders look like adds no columns.
fn rows_of(path: &Path) -> String {
    format!("read_parquet({}, hive_partitioning = false)", DIALECT.literal(&path.display().to_string()))
}

impl FileAudits {
    /// Opens the file at `preview`, whose rows the checks are about. What does not fit into memory goes to the folder `temporary`.
    pub(crate) fn open(temporary: &Path, preview: &Path) -> Result<Self, ConnectError> {
        let refused = |error| failed("checks on files cannot be prepared", error);
        let spill = SpillFolder::new(temporary);
        let config = spill
            .config()
            .and_then(|config| config.with("preserve_insertion_order", "false"))
            .and_then(|config| config.max_memory(AUDIT_MEMORY))
            .map_err(refused)?;
        let connection = Connection::open_in_memory_with_flags(config).map_err(refused)?;
        DuckDbSession::new(&connection, "checks on files cannot be prepared").execute("set TimeZone = 'UTC'")?;
        Ok(Self { connection, _spill: spill, preview: format!("(select * from {})", rows_of(preview)) })
    }

    /// Evaluates a check that may refer to `tables`.
    pub(crate) fn audit(
        &self,
        audit: &Audit,
        tables: &[(TableName, PathBuf)],
        sample_max: usize,
    ) -> Result<AuditResult, ConnectError> {
        let session = DuckDbSession::new(&self.connection, "the check cannot be evaluated");
        let wanted = match &audit.rule {
            CheckRule::Relationships { to, .. } => Some(TableName::of(to)),
            CheckRule::Reconcile { with, .. } => Some(TableName::of(with)),
            _ => None,
        };
        let is_free = matches!(audit.rule, CheckRule::Sql { .. });
        for (table, path) in tables.iter().filter(|(table, _)| is_free || wanted.as_ref() == Some(table)) {
            session.execute(&format!("create schema if not exists {}", DIALECT.identifier(schema_of(table))))?;
            let made =
                session.execute(&format!("create or replace view {} as select * from {}", DIALECT.table(table), rows_of(path)));
            // A statement of one's own need not read every table; where it reads this one, it fails by its name.
            if !is_free {
                made?;
            }
        }
        staging::audit(&session, Some(&self.preview), audit, sample_max)
    }

    /// Whether the file holds the rows of another one, in any order, as far as these columns go.
    pub(crate) fn has_rows_of(&self, other: &Path, columns: &[String]) -> Result<bool, ConnectError> {
        let session = DuckDbSession::new(&self.connection, "two files cannot be compared");
        Ok(!staging::have_other_rows(&session, &self.preview, &rows_of(other), columns)?)
    }
}

/// The rows of a file as texts, NULL as `None`, sorted.
#[cfg(test)]
pub(crate) fn read_parquet(path: &Path) -> Option<subak_connect::conformance::Rows> {
    let connection = Connection::open_in_memory().ok()?;
    let mut statement = connection.prepare(&format!("select columns(*)::varchar from {}", rows_of(path))).ok()?;
    let mut found = statement.query([]).ok()?;
    let mut rows = subak_connect::conformance::Rows::new();
    while let Some(row) = found.next().ok()? {
        let width = row.as_ref().column_count();
        rows.push((0..width).map(|at| row.get::<_, Option<String>>(at)).collect::<Result<_, _>>().ok()?);
    }
    rows.sort();
    Some(rows)
}
