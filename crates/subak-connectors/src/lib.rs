//! Built-in connectors: one folder, one feature and one line in the registry each.
//!
//! Deliberately not here: runs, retries, projects. A connector sees the seams of `subak-connect` and its own driver.

#[cfg(feature = "adbc")]
pub mod adbc;
#[cfg(any(feature = "clickhouse", feature = "files", feature = "http", feature = "mongodb", feature = "mysql"))]
mod builder;
#[cfg(feature = "clickhouse")]
pub mod clickhouse;
#[cfg(feature = "duckdb")]
pub mod duckdb;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod parts;
mod plain;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "files", feature = "http", feature = "mongodb"))]
mod records;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod socket;
#[cfg(any(feature = "http", feature = "mongodb"))]
mod spool;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sslmode;
#[cfg(any(feature = "duckdb", feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod staging;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod tls;

use subak_connect::Registry;
pub use subak_connect::types::{EVERY, Fate, ReadAs, Stored};

#[cfg(feature = "duckdb")]
pub use duckdb::DuckDbPrograms;
#[cfg(all(feature = "duckdb", feature = "files"))]
use duckdb::FileAudits;
#[cfg(all(feature = "duckdb", feature = "files", test))]
use duckdb::read_parquet;

/// Every connector in this build, sorted by kind. Docs, the editor schema and validation read it too.
pub static CONNECTORS: Registry = &[
    #[cfg(feature = "adbc")]
    &adbc::Adbc,
    #[cfg(feature = "clickhouse")]
    &clickhouse::ClickHouse,
    #[cfg(feature = "duckdb")]
    &duckdb::DuckDb,
    #[cfg(feature = "files")]
    &files::Files,
    #[cfg(feature = "http")]
    &http::Http,
    #[cfg(feature = "mongodb")]
    &mongodb::MongoDb,
    #[cfg(feature = "mysql")]
    &mysql::MySql,
    #[cfg(feature = "postgres")]
    &postgres::Postgres,
    #[cfg(feature = "sqlite")]
    &sqlite::Sqlite,
];
