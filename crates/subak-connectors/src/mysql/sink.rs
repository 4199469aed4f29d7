//! Tables, cursors, the ledger of loads and the quarantine.

use std::collections::BTreeSet;

use arrow::datatypes::DataType as ArrowType;
use async_trait::async_trait;
use subak_connect::reject::RejectStatus;
use subak_connect::{
    Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Quarantine, Sink, StoredReject, TableInfo, TableName,
};
use subak_domain::{DataType, LoadId};

use super::encode::DAYS;
use super::load::{MySqlLoad, clear, lock_of, try_lock, unlock};
use super::session::MySqlSession;
use super::{DIALECT, Database, publish};
use crate::staging::{self, STAGE_PREFIX, Session, state};

impl Database {
    /// Runs blocking work on a connection of its own.
    async fn with<T, F>(&self, message: String, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&MySqlSession<'_>) -> Result<T, ConnectError> + Send + 'static,
    {
        self.writer().await?.with(message, work).await
    }

    /// The same, after publications that were begun are ended, so that state and tables belong together.
    async fn with_state<T, F>(&self, message: String, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&MySqlSession<'_>) -> Result<T, ConnectError> + Send + 'static,
    {
        let is_read_only = self.is_read_only;
        self.with(message, move |session| {
            if !is_read_only {
                publish::settle(session)?;
            }
            work(session)
        })
        .await
    }
}

#[async_trait]
impl Sink for Database {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let (own, message) = (self.placed(table), format!("cannot describe `{table}`"));
        let known = self
            .with_state(message.clone(), move |session| {
                publish::refuse_unsettled(session, &own)?;
                if session.relation(&own)?.is_none() {
                    return Ok(None);
                }
                let row_count = session.count(&format!("select count(*) from {}", DIALECT.table(&own)))?;
                let (cursor, row_count_committed) = state::stream(session, &own)?;
                Ok(Some((row_count, cursor, row_count_committed, state::files(session, &own)?)))
            })
            .await?;
        let Some((row_count, cursor, row_count_committed, files)) = known else { return Ok(None) };
        let sql = format!("select * from {}", DIALECT.table(&self.placed(table)));
        let schema = self.writer().await?.schema_of(&sql, &message).await?;
        Ok(Some(TableInfo { schema, cursor, row_count, row_count_committed, files }))
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let tables = tables.to_vec();
        self.with("cannot read the catalog".to_owned(), move |session| {
            let sql = "select table_schema, table_name, table_schema = database() from information_schema.tables";
            let known: BTreeSet<(String, String, bool)> = session
                .catalog(sql)?
                .into_iter()
                .filter_map(|row| <[String; 3]>::try_from(row).ok())
                .map(|[schema, name, is_own]| (schema, name, is_own == "1"))
                .collect();
            let is_there = |table: &TableName| {
                known.iter().any(|(schema, name, is_own)| {
                    *name == table.name && table.schema.as_ref().map_or(*is_own, |wanted| wanted == schema)
                })
            };
            Ok(tables.into_iter().filter(is_there).collect())
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let load = load.clone();
        self.with_state("cannot read the ledger of loads".to_owned(), move |session| state::committed(session, &load)).await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        Ok(Box::new(MySqlLoad::begin(self, request).await?))
    }

    /// Drops the stages on which nobody works: whoever does holds their lock.
    async fn clean_up(&self) -> Result<u64, ConnectError> {
        self.with_state("cannot remove stage tables".to_owned(), |session| {
            let sql = format!(
                "select table_schema, table_name from information_schema.tables where left(table_name, {}) = {}",
                STAGE_PREFIX.len(),
                DIALECT.literal(STAGE_PREFIX)
            );
            let mut count = 0;
            for row in session.catalog(&sql)? {
                let Ok([schema, name]) = <[String; 2]>::try_from(row) else { continue };
                let lock = lock_of(&name);
                if !try_lock(session, &lock, 0)? {
                    continue;
                }
                let dropped = clear(session, &TableName { schema: Some(schema), name });
                unlock(session, &lock)?;
                match dropped {
                    Ok(()) => count += 1,
                    Err(error) if matches!(error.kind, ConnectErrorKind::Unavailable | ConnectErrorKind::Canceled) => {
                        return Err(error);
                    }
                    // Another user's, or one that something refers to: it is in nobody's way.
                    Err(_) => {}
                }
            }
            Ok(count)
        })
        .await
    }

    fn bounds(&self, data_type: &ArrowType) -> Option<(i64, i64)> {
        const MICROS_PER_DAY: i64 = 86_400_000_000;
        let (first, last) = (i64::from(*DAYS.start()), i64::from(*DAYS.end()));
        match data_type {
            ArrowType::Date32 | ArrowType::Date64 => Some((first, last)),
            ArrowType::Timestamp(..) => Some((first * MICROS_PER_DAY, (last + 1) * MICROS_PER_DAY - 1)),
            _ => None,
        }
    }

    /// An instant is its wall clock in UTC.
    fn alike(&self) -> &'static [(DataType, DataType)] {
        &[(DataType::DateTime, DataType::Timestamp)]
    }

    fn can_widen(&self) -> bool {
        true
    }
}

#[async_trait]
impl Quarantine for Database {
    async fn count(&self, table: &TableName) -> Result<[u64; 3], ConnectError> {
        let table = self.placed(table);
        self.with_state("cannot read the quarantine".to_owned(), move |session| staging::count_rejects(session, &table)).await
    }

    async fn rejects(&self, table: &TableName, status: RejectStatus, count_max: u64) -> Result<Vec<StoredReject>, ConnectError> {
        let table = self.placed(table);
        self.with_state("cannot read the quarantine".to_owned(), move |session| {
            staging::list_rejects(session, &table, status, count_max)
        })
        .await
    }

    async fn discard(&self, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError> {
        let (table, ids, at) = (self.placed(table), ids.to_vec(), at.to_owned());
        self.with_state("cannot change the quarantine".to_owned(), move |session| {
            staging::discard_rejects(session, &table, &ids, &at)
        })
        .await
    }
}
