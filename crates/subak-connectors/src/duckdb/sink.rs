//! Tables, cursors, the ledger of loads and the quarantine.

use std::collections::BTreeSet;

use async_trait::async_trait;
use duckdb::Connection;
use subak_connect::reject::RejectStatus;
use subak_connect::{Committed, ConnectError, Load, LoadRequest, Quarantine, Sink, StoredReject, TableInfo, TableName};
use subak_domain::LoadId;

use super::load::DuckDbLoad;
use super::session::{DuckDbSession, schema_of};
use super::{DIALECT, Database, error::failed};
use crate::staging::{self, STAGE_PREFIX, Session, state};

/// Shares a database handle between the parts of one load.
pub(super) type Shared = std::sync::Arc<std::sync::Mutex<Connection>>;

#[async_trait]
impl Sink for Database {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let table = table.clone();
        self.with(move |connection| {
            let session = DuckDbSession::new(connection, format!("cannot describe `{table}`"));
            if session.relation(&table)?.is_none() {
                return Ok(None);
            }
            let name = DIALECT.table(&table);
            let describe = || {
                let mut statement = connection.prepare(&format!("select * from {name} limit 0"))?;
                drop(statement.query_arrow([])?);
                Ok(statement.schema())
            };
            let schema = describe().map_err(|error| failed(&format!("cannot describe `{table}`"), error))?;
            let row_count = session.count(&format!("select count(*) from {name}"))?;
            let (cursor, row_count_committed) = state::stream(&session, &table)?;
            Ok(Some(TableInfo { schema, cursor, row_count, row_count_committed, files: state::files(&session, &table)? }))
        })
        .await
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let tables = tables.to_vec();
        self.with(move |connection| {
            let sql = "select lower(table_schema), lower(table_name) from information_schema.tables \
                       where table_catalog = current_database()";
            let list = || -> duckdb::Result<BTreeSet<(String, String)>> {
                connection.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            };
            let known = list().map_err(|error| failed("cannot read the catalog", error))?;
            let is_there = |table: &TableName| known.contains(&(schema_of(table).to_lowercase(), table.name.to_lowercase()));
            Ok(tables.into_iter().filter(is_there).collect())
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let load = load.clone();
        self.with(move |connection| state::committed(&DuckDbSession::new(connection, "cannot read the ledger of loads"), &load))
            .await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        let database = self.clone();
        self.with(move |connection| DuckDbLoad::begin(database, connection, request).map(|load| Box::new(load) as Box<dyn Load>))
            .await
    }

    async fn clean_up(&self) -> Result<u64, ConnectError> {
        self.with(|connection| {
            let session = DuckDbSession::new(connection, "cannot remove stage tables");
            let sql = format!(
                "select table_schema, table_name, table_type from information_schema.tables \
                 where table_catalog = current_database() and starts_with(table_name, {})",
                DIALECT.literal(STAGE_PREFIX)
            );
            let leftovers = session.rows(&sql, usize::MAX)?;
            for row in &leftovers {
                if let [(_, Some(schema)), (_, Some(name)), (_, Some(kind))] = row.as_slice() {
                    let table = TableName { schema: Some(schema.clone()), name: name.clone() };
                    let word = if kind == "VIEW" { "view" } else { "table" };
                    session.execute(&format!("drop {word} {}", DIALECT.table(&table)))?;
                }
            }
            Ok(leftovers.len() as u64)
        })
        .await
    }

    fn can_widen(&self) -> bool {
        true
    }
}

#[async_trait]
impl Quarantine for Database {
    async fn count(&self, table: &TableName) -> Result<[u64; 3], ConnectError> {
        let table = table.clone();
        self.with(move |connection| staging::count_rejects(&DuckDbSession::new(connection, "cannot read the quarantine"), &table))
            .await
    }

    async fn rejects(&self, table: &TableName, status: RejectStatus, count_max: u64) -> Result<Vec<StoredReject>, ConnectError> {
        let table = table.clone();
        self.with(move |connection| {
            let session = DuckDbSession::new(connection, "cannot read the quarantine");
            staging::list_rejects(&session, &table, status, count_max)
        })
        .await
    }

    async fn discard(&self, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError> {
        let (table, ids, at) = (table.clone(), ids.to_vec(), at.to_owned());
        self.with(move |connection| {
            let session = DuckDbSession::new(connection, "cannot change the quarantine");
            staging::discard_rejects(&session, &table, &ids, &at)
        })
        .await
    }
}
