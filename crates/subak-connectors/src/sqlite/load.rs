//! One load: stage rows in tables of their own, then publish them in one transaction.

use std::collections::BTreeSet;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use rusqlite::{Connection as Driver, TransactionBehavior};
use subak_connect::reject::RejectStatus;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, Commit, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Quarantine, Reject, Sink,
    Staged, StagedRows, StoredReject, TableInfo, TableName, blocking, convert, crash,
};
use subak_domain::{Column, LoadId};

use super::session::SqliteSession;
use super::values::{self, declared_type};
use super::{DIALECT, Database, failed};
use crate::staging::{self, Prepared, RejectRows, STAGE_PREFIX, Session, Stage, state};

fn sql_failed(message: &str) -> impl Fn(rusqlite::Error) -> ConnectError + '_ {
    move |error| failed(ConnectErrorKind::Write, message, error)
}

#[async_trait]
impl Sink for Database {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let table = table.clone();
        if !self.path.exists() {
            return Ok(None);
        }
        self.with(false, move |driver| {
            let session = SqliteSession::new(driver, format!("cannot describe `{table}`"));
            let Some(relation) = session.relation(&table)? else { return Ok(None) };
            let field = |(name, declared): &(String, String)| {
                arrow::datatypes::Field::new(name, convert::arrow_type(declared_type(declared)), true)
            };
            let fields: Vec<_> = relation.columns.iter().map(field).collect();
            let row_count = session.count(&format!("select count(*) from {}", DIALECT.table(&table)))?;
            let (cursor, row_count_committed) = state::stream(&session, &table)?;
            let schema = arrow::datatypes::Schema::new(fields).into();
            Ok(Some(TableInfo { schema, cursor, row_count, row_count_committed, files: state::files(&session, &table)? }))
        })
        .await
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        if !self.path.exists() {
            return Ok(BTreeSet::new());
        }
        let tables = tables.to_vec();
        self.with(false, move |driver| {
            let list = || -> rusqlite::Result<BTreeSet<String>> {
                let sql = "select lower(name) from sqlite_schema where type in ('table', 'view')";
                driver.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
            };
            let known = list().map_err(sql_failed("cannot read the schema"))?;
            Ok(tables.into_iter().filter(|table| known.contains(&DIALECT.plain_name(table).to_lowercase())).collect())
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let load = load.clone();
        if !self.path.exists() {
            return Ok(None);
        }
        self.with(false, move |driver| state::committed(&SqliteSession::new(driver, "cannot read the ledger of loads"), &load))
            .await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                ConnectError::io(ConnectErrorKind::Unavailable, format!("cannot make the folder `{}`", folder.display()), error)
            })?;
        }
        let stage = Stage::new(&DIALECT, &request.load, &request.table, request.children.len());
        let staging = Staging { database: self.clone(), stage: stage.clone(), is_done: false };
        let request = self
            .with(true, move |driver| {
                let session = SqliteSession::new(driver, format!("cannot make a stage for `{}`", request.table));
                state::ensure(&session)?;
                stage.drop_all(&session)?;
                staging::make(&session, &stage, &request)?;
                Ok(request)
            })
            .await?;
        crash::point("load_begun");
        Ok(Box::new(SqliteLoad { staging, request, reject_rows: RejectRows::default() }))
    }

    async fn clean_up(&self) -> Result<u64, ConnectError> {
        if !self.path.exists() {
            return Ok(0);
        }
        self.with(true, |driver| {
            let list = || -> rusqlite::Result<Vec<String>> {
                let sql = "select name from sqlite_schema where type = 'table' and substr(name, 1, length(?1)) = ?1";
                driver.prepare(sql)?.query_map([STAGE_PREFIX], |row| row.get(0))?.collect()
            };
            let leftovers = list().map_err(sql_failed("cannot list stage tables"))?;
            for table in &leftovers {
                driver
                    .execute_batch(&format!("drop table {}", DIALECT.identifier(table)))
                    .map_err(sql_failed("cannot drop a stage table"))?;
            }
            Ok(leftovers.len() as u64)
        })
        .await
    }
}

#[async_trait]
impl Quarantine for Database {
    async fn count(&self, table: &TableName) -> Result<[u64; 3], ConnectError> {
        if !self.path.exists() {
            return Ok([0; 3]);
        }
        let table = table.clone();
        self.with(false, move |driver| staging::count_rejects(&SqliteSession::new(driver, "cannot read the quarantine"), &table))
            .await
    }

    async fn rejects(&self, table: &TableName, status: RejectStatus, count_max: u64) -> Result<Vec<StoredReject>, ConnectError> {
        let table = table.clone();
        self.with(false, move |driver| {
            let session = SqliteSession::new(driver, "cannot read the quarantine");
            staging::list_rejects(&session, &table, status, count_max)
        })
        .await
    }

    async fn discard(&self, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError> {
        let (table, ids, at) = (table.clone(), ids.to_vec(), at.to_owned());
        self.with(true, move |driver| {
            let session = SqliteSession::new(driver, "cannot change the quarantine");
            staging::discard_rejects(&session, &table, &ids, &at)
        })
        .await
    }
}

/// The stage tables of a load. Dropped with the value unless they were published.
struct Staging {
    database: Database,
    stage: Stage,
    is_done: bool,
}

impl Drop for Staging {
    /// Best effort: what stays behind is found by `clean_up`.
    fn drop(&mut self) {
        if !self.is_done
            && let Ok(driver) = self.database.open_to_write()
        {
            drop(self.stage.drop_all(&SqliteSession::new(&driver, "cannot drop stage tables")));
        }
    }
}

impl Staging {
    async fn insert(&self, table: TableName, batch: Batch) -> Result<(), ConnectError> {
        if batch.row_count() == 0 {
            return Ok(());
        }
        let database = self.database.clone();
        blocking::run(move || {
            let mut driver = database.open_to_write()?;
            let message = sql_failed("cannot stage rows");
            let transaction = driver.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&message)?;
            insert(&transaction, &DIALECT.plain_name(&table), &batch)?;
            transaction.commit().map_err(&message)?;
            crash::point("batch_staged");
            Ok(())
        })
        .await
    }
}

struct SqliteLoad {
    staging: Staging,
    request: LoadRequest,
    reject_rows: RejectRows,
}

#[async_trait]
impl Load for SqliteLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        self.staging.insert(self.staging.stage.rows.clone(), batch).await
    }

    async fn write_child(&mut self, child: usize, batch: Batch) -> Result<(), ConnectError> {
        self.staging.insert(self.staging.stage.children[child].clone(), batch).await
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        let rows: RecordBatch = self.reject_rows.batch(&rejects)?;
        self.staging.insert(self.staging.stage.rejects.clone(), Batch::new(rows)).await
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let Self { staging, request, .. } = *self;
        let (database, stage) = (staging.database.clone(), staging.stage.clone());
        let (request, prepared) = blocking::run(move || {
            let driver = database.open_to_write()?;
            let session = SqliteSession::new(&driver, format!("cannot compare staged rows with `{}`", request.table));
            let prepared = staging::prepare(&session, &stage, &request)?;
            Ok((request, prepared))
        })
        .await?;
        crash::point("rows_staged");
        Ok(Box::new(SqliteStaged { staging, request, prepared }))
    }
}

fn insert(driver: &Driver, table: &str, batch: &Batch) -> Result<(), ConnectError> {
    let message = sql_failed("cannot stage rows");
    let places = vec!["?"; batch.records.num_columns()].join(", ");
    let mut statement =
        driver.prepare(&format!("insert into {} values ({places})", DIALECT.identifier(table))).map_err(&message)?;
    for row in 0..batch.row_count() {
        for (at, array) in batch.records.columns().iter().enumerate() {
            let refused = || {
                let schema = batch.records.schema();
                let text =
                    format!("column `{}`: SQLite cannot hold the value exactly ({})", schema.field(at).name(), batch.place(row));
                ConnectError::new(ConnectErrorKind::ValueMisfit, text)
            };
            let value = values::cell(array.as_ref(), row).ok_or_else(refused)?;
            statement.raw_bind_parameter(at + 1, value).map_err(&message)?;
        }
        statement.raw_execute().map_err(&message)?;
    }
    Ok(())
}

struct SqliteStaged {
    staging: Staging,
    request: LoadRequest,
    prepared: Prepared,
}

#[async_trait]
impl Staged for SqliteStaged {
    fn rows(&self) -> StagedRows {
        self.prepared.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        let (database, stage, table) =
            (self.staging.database.clone(), self.staging.stage.rows.clone(), self.request.table.clone());
        let names = self.prepared.result_columns(&self.request);
        blocking::run(move || {
            let driver = database.open_to_read()?;
            let session = SqliteSession::new(&driver, "cannot describe staged rows");
            let mut known = session.relation(&table)?.map(|held| held.columns).unwrap_or_default();
            known.extend(session.relation(&stage)?.map(|staged| staged.columns).unwrap_or_default());
            let column = |name: String| {
                let word =
                    known.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)).map_or("", |(_, word)| word.as_str());
                Column { data_type: declared_type(word), name }
            };
            Ok(names.into_iter().map(column).collect())
        })
        .await
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (database, preview, audit) = (self.staging.database.clone(), self.prepared.preview.clone(), audit.clone());
        blocking::run(move || {
            let driver = database.open_to_read()?;
            let session = SqliteSession::new(&driver, "the check cannot be evaluated");
            staging::audit(&session, Some(&preview), &audit, SAMPLE_ROW_COUNT_MAX)
        })
        .await
    }

    async fn publish(mut self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let (database, stage) = (self.staging.database.clone(), self.staging.stage.clone());
        let (request, prepared) = (self.request.clone(), self.prepared.clone());
        let committed = blocking::run(move || {
            let mut driver = database.open_to_write()?;
            let message = format!("cannot publish `{}`", DIALECT.plain_name(&request.table));
            let failed = sql_failed(&message);
            driver.pragma_update(None, "synchronous", "full").map_err(&failed)?;
            // A view on the table would forbid its swap otherwise.
            driver.pragma_update(None, "legacy_alter_table", true).map_err(&failed)?;
            let transaction = driver.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
            let session = SqliteSession::new(&transaction, message.clone());
            let committed = match state::committed(&session, &request.load)? {
                // An attempt that nobody waited for any more had committed it after all.
                Some(committed) => {
                    stage.drop_all(&session)?;
                    committed
                }
                None => staging::publish(&session, &stage, &request, &prepared, commit)?,
            };
            transaction.commit().map_err(&failed)?;
            crash::point("after_publish");
            Ok(committed)
        })
        .await?;
        self.staging.is_done = true;
        Ok(committed)
    }
}

#[cfg(test)]
mod tests {
    use subak_connect::{ReadRequest, conformance};

    use super::*;

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().expect("folder");
        let database = Database { path: folder.path().join("s.db"), name: "s".into() };
        let path = database.path.clone();
        let read = move |table: &TableName| {
            let driver = Driver::open(&path).ok()?;
            let mut statement = driver.prepare(&format!("select * from {}", DIALECT.table(table))).ok()?;
            let width = statement.column_count();
            let line = |row: &rusqlite::Row<'_>| (0..width).map(|at| Ok(values::text_of(row.get_ref(at)?))).collect();
            let mut rows: conformance::Rows = statement.query_map([], line).ok()?.collect::<rusqlite::Result<_>>().ok()?;
            rows.sort();
            Some(rows)
        };
        conformance::sink(&database, &read).await;
        conformance::types(&database, &super::super::Sqlite).await;
        conformance::source_types(&database, &super::super::Sqlite, "").await;
        conformance::writes(&database, &read).await;
        conformance::partial_events(&database, &read).await;

        let driver = Driver::open(&database.path).expect("open");
        let rows = "create table src (id integer primary key, at datetime, amount decimal(10,2), note text);
                    with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000)
                    insert into src select i, datetime('2025-01-01', (i / 2) || ' seconds'), i + 0.25, null from n;";
        driver.execute_batch(rows).expect("rows");
        let highest = subak_domain::Cursor {
            column: "at".into(),
            value: "2025-01-01 05:33:20".into(),
            data_type: subak_domain::DataType::DateTime,
        };
        let request = ReadRequest { stream: "src".into(), ..ReadRequest::default() };
        conformance::source(&database, request, &highest, 1).await;
    }

    #[tokio::test]
    async fn a_value_that_does_not_fit_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let database = Database { path: folder.path().join("s.db"), name: "s".into() };
        let driver = Driver::open(&database.path).expect("open");
        driver.execute_batch("create table t (amount decimal(10,2)); insert into t values (1.25), ('12,50');").expect("rows");
        let request = ReadRequest { stream: "t".into(), ..ReadRequest::default() };
        let error = conformance::read_all(&database, request.clone()).await.expect_err("a misfit");
        assert_eq!(error.to_string(), "column `amount`: `12,50` is not decimal(10,2) (row 2)");
        let columns = [("amount".to_owned(), subak_domain::DataType::Text)].into();
        let (batches, _) = conformance::read_all(&database, ReadRequest { columns, ..request }).await.expect("as text");
        assert_eq!(batches.iter().map(Batch::row_count).sum::<usize>(), 2);
    }

    #[tokio::test]
    async fn a_changed_type_is_refused_not_converted() {
        let folder = tempfile::tempdir().expect("folder");
        let database = Database { path: folder.path().join("s.db"), name: "s".into() };
        let driver = Driver::open(&database.path).expect("open");
        driver.execute_batch("create table t (code bigint); insert into t values (7);").expect("rows");
        let rows = subak_connect::memory::rows(&[("code", &[Some("007")])]);
        let run = subak_domain::RunId::from_parts(1, 1);
        let load = LoadId::new(run, &subak_domain::StepId::check("x"), "1");
        let table = TableName { schema: None, name: "t".into() };
        let request = LoadRequest::new(load, table, rows.schema(), subak_domain::WriteMode::Append);
        let mut load = database.begin(request).await.expect("begin");
        load.write(Batch::new(rows)).await.expect("write");
        let refused = load.stage().await.map(drop).map_err(|error| error.kind);
        assert_eq!(refused, Err(ConnectErrorKind::SchemaChanged));
    }

    #[tokio::test]
    async fn cursors_compare_by_their_declared_type() {
        let folder = tempfile::tempdir().expect("folder");
        let database = Database { path: folder.path().join("s.db"), name: "s".into() };
        let driver = Driver::open(&database.path).expect("open");
        let rows = "create table t (seq text, at datetime);
                    insert into t values ('99', '2025-01-01T00:00:00'), ('100', '2025-01-01 18:00:00');";
        driver.execute_batch(rows).expect("rows");
        for (column, data_type, from) in [("seq", "bigint", "99"), ("at", "datetime", "2025-01-01T00:00:00")] {
            let data_type: subak_domain::DataType = data_type.parse().expect("type");
            let from = subak_domain::Cursor { column: column.into(), value: from.into(), data_type };
            let bound = subak_connect::CursorBound::new(column, Some(from));
            let columns = [(column.to_owned(), data_type)].into();
            let request = ReadRequest { stream: "t".into(), cursor: Some(bound), columns, ..ReadRequest::default() };
            let (batches, highest) = conformance::read_all(&database, request).await.expect("read");
            assert_eq!(batches.iter().map(Batch::row_count).sum::<usize>(), 2, "{column}");
            let expect = if column == "seq" { "100" } else { "2025-01-01 18:00:00" };
            assert_eq!(highest.map(|cursor| cursor.value).as_deref(), Some(expect), "{column}");
        }
    }
}
