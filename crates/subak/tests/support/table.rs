//! Tables of the embedded warehouse, read with DuckDB's own library.

use subak_testkit::{Sandbox, Table};

/// The rows of a query as texts, NULL as `None`; without rows there is no header either.
pub(crate) fn read_table(sandbox: &Sandbox, sql: &str) -> Table {
    let connection = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    let mut statement = connection.prepare(&format!("select columns(*)::varchar from ({sql})")).expect(sql);
    let mut rows = statement.query([]).expect("query");
    let mut table = Table::default();
    while let Some(row) = rows.next().expect("row") {
        if table.header.is_empty() {
            table.header = row.as_ref().column_names();
        }
        table.rows.push((0..table.header.len()).map(|at| row.get(at).expect("text")).collect());
    }
    table
}
