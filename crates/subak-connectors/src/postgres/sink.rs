//! Tables, cursors, the ledger of loads and the quarantine.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use subak_connect::reject::RejectStatus;
use subak_connect::{
    Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Quarantine, Sink, StoredReject, TableInfo, TableName,
};
use subak_domain::LoadId;

use super::load::PostgresLoad;
use super::read::columns_of;
use super::session::schema_of;
use super::types;
use super::{DIALECT, Database, with_client};
use crate::staging::{self, STAGE_PREFIX, Session, state};

#[async_trait]
impl Sink for Database {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let (own, message) = (table.clone(), format!("cannot describe `{table}`"));
        let client = Arc::new(self.client().await?);
        let known = with_client(&client, message.clone(), move |session| {
            if session.relation(&own)?.is_none() {
                return Ok(None);
            }
            let row_count = session.count(&format!("select count(*) from {}", DIALECT.table(&own)))?;
            let (cursor, row_count_committed) = state::stream(session, &own)?;
            Ok(Some((row_count, cursor, row_count_committed, state::files(session, &own)?)))
        })
        .await?;
        let Some((row_count, cursor, row_count_committed, files)) = known else { return Ok(None) };
        let sql = format!("select * from {}", DIALECT.table(table));
        let columns = columns_of(&client, &sql, |_| None, &message).await?;
        Ok(Some(TableInfo { schema: types::schema_of(&columns), cursor, row_count, row_count_committed, files }))
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let tables = tables.to_vec();
        self.with("cannot read the catalog".to_owned(), move |session| {
            let sql = "select n.nspname, c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace \
                       where c.relkind in ('r', 'p', 'v', 'm', 'f')";
            let name = |row: staging::TextRow| {
                let mut values = row.into_iter().map(|(_, value)| value.unwrap_or_default());
                (values.next().unwrap_or_default(), values.next().unwrap_or_default())
            };
            let known: BTreeSet<(String, String)> = session.rows(sql, usize::MAX)?.into_iter().map(name).collect();
            let is_there = |table: &TableName| known.contains(&(schema_of(table).to_owned(), table.name.clone()));
            Ok(tables.into_iter().filter(is_there).collect())
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let load = load.clone();
        self.with("cannot read the ledger of loads".to_owned(), move |session| state::committed(session, &load)).await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        Ok(Box::new(PostgresLoad::begin(self, request).await?))
    }

    /// Drops the stages on which nobody works: whoever does holds their lock.
    async fn clean_up(&self) -> Result<u64, ConnectError> {
        self.with("cannot remove stage tables".to_owned(), |session| {
            let sql = format!(
                "select n.nspname, c.relname, case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end from pg_class as c join pg_namespace as n on n.oid = c.relnamespace \
                 where c.relkind in ('r', 'v', 'm') and starts_with(c.relname, {})",
                DIALECT.literal(STAGE_PREFIX)
            );
            let mut count = 0;
            for row in session.rows(&sql, usize::MAX)? {
                let [(_, Some(schema)), (_, Some(name)), (_, Some(word))] = row.as_slice() else { continue };
                let lock = super::load::lock_of(name);
                let is_free = session.rows(&format!("select pg_try_advisory_lock({lock})"), usize::MAX)?;
                if is_free.first().and_then(|row| row.first()).and_then(|(_, value)| value.as_deref()) != Some("t") {
                    continue;
                }
                let table = TableName { schema: Some(schema.clone()), name: name.clone() };
                let dropped = session.execute(&format!("drop {word} if exists {}", DIALECT.table(&table)));
                session.execute(&format!("select pg_advisory_unlock({lock})"))?;
                match dropped {
                    Ok(_) => count += 1,
                    // Another role's, and its to sweep.
                    Err(error) if error.kind == ConnectErrorKind::Permission => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(count)
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
        self.with("cannot read the quarantine".to_owned(), move |session| staging::count_rejects(session, &table)).await
    }

    async fn rejects(&self, table: &TableName, status: RejectStatus, count_max: u64) -> Result<Vec<StoredReject>, ConnectError> {
        let table = table.clone();
        self.with("cannot read the quarantine".to_owned(), move |session| {
            staging::list_rejects(session, &table, status, count_max)
        })
        .await
    }

    async fn discard(&self, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError> {
        let (table, ids, at) = (table.clone(), ids.to_vec(), at.to_owned());
        self.with("cannot change the quarantine".to_owned(), move |session| staging::discard_rejects(session, &table, &ids, &at))
            .await
    }
}

#[cfg(test)]
mod tests {
    use subak_connect::{ConnectionConfig, OpenRequest, ReadRequest, conformance};
    use subak_domain::{Cursor, DataType, Secret};
    use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres};

    use super::*;

    fn database(server: &Postgres) -> Database {
        let mut config = ConnectionConfig::default();
        for (key, value) in [("host", "127.0.0.1"), ("database", "subak"), ("user", POSTGRES_USER)] {
            config.values.insert(key.to_owned(), value.to_owned());
        }
        config.values.insert("port".to_owned(), server.port().to_string());
        config.secrets.insert("password".to_owned(), Secret::new(POSTGRES_PASSWORD));
        Database::new(&OpenRequest { name: "pg".to_owned(), config, ..OpenRequest::default() }).expect("a configuration")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        let server = Postgres::start();
        let database = database(&server);
        // By psql, not by our reader.
        let read = |table: &TableName| {
            let known = format!("select to_regclass({}) is not null", DIALECT.literal(&DIALECT.table(table)));
            if server.sql(&known) != [[Some("t".to_owned())]] {
                return None;
            }
            let mut rows = server.sql(&format!("select * from {}", DIALECT.table(table)));
            rows.sort();
            Some(rows)
        };
        conformance::sink(&database, &read).await;
        conformance::types(&database, &super::super::Postgres).await;
        conformance::source_types(&database, &super::super::Postgres, "").await;
        conformance::writes(&database, &read).await;
        conformance::partial_events(&database, &read).await;
        conformance::sql(&database, &read).await;
        server.sql("create table src as select n as id, 'x' as note from generate_series(0::bigint, 49999) n union all select 49999, 'tie'");
        let highest = Cursor { column: "id".into(), value: "49999".into(), data_type: DataType::BigInt };
        let request = ReadRequest { stream: "public.src".into(), ..ReadRequest::default() };
        conformance::source(&database, request, &highest, 2).await;
    }
}
