//! Changing what stands outside of the product.

use subak_testkit::Sandbox;

/// Changes the warehouse behind the product's back.
pub(crate) fn execute(sandbox: &Sandbox, sql: &str) {
    duckdb::Connection::open(sandbox.path().join("warehouse.duckdb"))
        .and_then(|connection| connection.execute_batch(sql))
        .expect(sql);
}

/// Changes the SQLite source.
pub(crate) fn app(sandbox: &Sandbox, sql: &str) {
    rusqlite::Connection::open(sandbox.path().join("app.db")).and_then(|source| source.execute_batch(sql)).expect(sql);
}
