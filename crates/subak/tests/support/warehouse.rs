//! Projects on the embedded warehouse, and what stands in it afterwards.

use subak_testkit::Sandbox;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: exact\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  app: { type: sqlite, path: app.db }\n  \
                       files: { type: files, path: input }\n";

/// A project with a warehouse, a SQLite source and a folder of files.
pub(crate) fn project(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::new(BINARY, &[("subak.yml", PROJECT)]);
    for (path, text) in files {
        sandbox.write(path, text);
    }
    sandbox
}

/// The rows of a query as CSV lines without the header, read with DuckDB's own library.
pub(crate) fn read(sandbox: &Sandbox, sql: &str) -> Vec<String> {
    let connection = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    let mut statement = connection.prepare(&format!("select columns(*)::varchar from ({sql})")).expect(sql);
    let mut rows = statement.query([]).expect("query");
    let mut lines = Vec::new();
    while let Some(row) = rows.next().expect("row") {
        let width = row.as_ref().column_count();
        let value = |at: usize| row.get::<_, Option<String>>(at).expect("text").unwrap_or_else(|| "NULL".to_owned());
        lines.push((0..width).map(value).collect::<Vec<_>>().join(","));
    }
    lines
}
