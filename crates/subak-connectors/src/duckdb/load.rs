//! One load: stage, compare, check, publish.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use duckdb::Connection;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, Commit, Committed, ConnectError, Load, LoadRequest, Reject, Staged, StagedRows,
    TableName, blocking, crash,
};
use subak_domain::{Column, StoredAs};

use super::error::failed;
use super::insert::Insert;
use super::session::{DuckDbSession, schema_of};
use super::sink::Shared;
use super::{DIALECT, Database, query};
use crate::plain::plain;
use crate::staging::{self, Prepared, RejectRows, Session, Stage, state};

/// Stage tables that are being filled.
pub(super) struct DuckDbLoad {
    /// What fills the stage, from the first rows on. It is dropped first: a stage cannot be dropped while it is filled.
    insert: Option<Insert>,
    staging: Staging,
    request: LoadRequest,
    reject_rows: RejectRows,
}

/// Stage tables and the connection that fills them. Dropped with the value unless they were published.
struct Staging {
    database: Database,
    connection: Shared,
    interrupt: Arc<duckdb::InterruptHandle>,
    stage: Stage,
    is_done: bool,
}

impl Drop for Staging {
    /// Best effort: what stays behind is found by `clean_up`. The statement that may still run is interrupted, so the wait for the
    /// connection is short. It must not be left to another thread: the next attempt makes a stage of the same name.
    fn drop(&mut self) {
        if !self.is_done {
            self.interrupt.interrupt();
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            drop(connection.execute_batch("rollback"));
            drop(self.stage.drop_all(&DuckDbSession::new(&connection, "cannot drop stage tables")));
        }
    }
}

impl Staging {
    fn new(database: Database, connection: &Connection, stage: Stage, table: &TableName) -> Result<Self, ConnectError> {
        // Two transactions that make one schema conflict, so this takes turns with publications too.
        let publishing = Arc::clone(&database.publishing);
        let turn = publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let session = DuckDbSession::new(connection, format!("cannot make a stage for `{table}`"));
        state::ensure(&session)?;
        session.execute(&format!("create schema if not exists {}", DIALECT.identifier(schema_of(table))))?;
        stage.drop_all(&session)?;
        drop(turn);
        let own = database.connect()?;
        let interrupt = own.interrupt_handle();
        Ok(Self { database, connection: Arc::new(Mutex::new(own)), interrupt, stage, is_done: false })
    }

    async fn with<T, F>(&self, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ConnectError> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        blocking::run(move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// All rows are staged in one transaction: the database then writes them once, compressed, into its file. Batches that commit one by
    /// one go through its log first.
    fn begin_writing(&self, target: &TableName) -> Result<(), ConnectError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        DuckDbSession::new(&connection, format!("cannot stage rows for `{target}`")).execute("begin transaction").map(drop)
    }

    async fn end_writing(&self, target: &TableName) -> Result<(), ConnectError> {
        let message = format!("cannot stage rows for `{target}`");
        self.with(move |connection| DuckDbSession::new(connection, message).execute("commit").map(drop)).await
    }

    async fn append(&self, stage: TableName, records: RecordBatch, target: &TableName) -> Result<(), ConnectError> {
        if records.num_rows() == 0 {
            return Ok(());
        }
        let message = format!("cannot stage rows for `{target}`");
        self.with(move |connection| {
            let records = plain(&records)?;
            let append = || {
                let mut appender = connection.appender_to_db(&stage.name, schema_of(&stage))?;
                appender.append_record_batch(records)?;
                appender.flush()
            };
            append().map_err(|error| failed(&message, error))?;
            crash::point("batch_staged");
            Ok(())
        })
        .await
    }
}

impl DuckDbLoad {
    pub(super) fn begin(database: Database, connection: &Connection, request: LoadRequest) -> Result<Self, ConnectError> {
        let stage = Stage::new(&DIALECT, &request.load, &request.table, request.children.len());
        let staging = Staging::new(database, connection, stage, &request.table)?;
        let session = DuckDbSession::new(connection, format!("cannot make a stage for `{}`", request.table));
        staging::make(&session, &staging.stage, &request)?;
        staging.begin_writing(&request.table)?;
        crash::point("load_begun");
        Ok(Self { insert: None, staging, request, reject_rows: RejectRows::default() })
    }
}

#[async_trait]
impl Load for DuckDbLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        if batch.row_count() == 0 {
            return Ok(());
        }
        let records = blocking::run(move || plain(&batch.records)).await?;
        let insert = match &mut self.insert {
            Some(insert) => insert,
            None => {
                let rows = &self.staging.stage.rows;
                let message = format!("cannot stage rows for `{}`", self.request.table);
                self.insert.insert(Insert::begin(&self.staging.database, DIALECT.table(rows), records.schema(), message)?)
            }
        };
        insert.write(records).await?;
        crash::point("batch_staged");
        Ok(())
    }

    async fn write_child(&mut self, child: usize, batch: Batch) -> Result<(), ConnectError> {
        self.staging.append(self.staging.stage.children[child].clone(), batch.records, &self.request.table).await
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        let rows = self.reject_rows.batch(&rejects)?;
        self.staging.append(self.staging.stage.rejects.clone(), rows, &self.request.table).await
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let Self { staging, request, insert, .. } = *self;
        if let Some(insert) = insert {
            insert.end().await?;
        }
        staging.end_writing(&request.table).await?;
        DuckDbStaged::of(staging, request, None).await.map(|staged| Box::new(staged) as Box<dyn Staged>)
    }
}

/// A complete stage.
pub(super) struct DuckDbStaged {
    staging: Staging,
    request: LoadRequest,
    prepared: Prepared,
    /// The query of a view; such a stage is a view too, and nothing is compared.
    view: Option<String>,
}

impl DuckDbStaged {
    async fn of(staging: Staging, request: LoadRequest, view: Option<String>) -> Result<Self, ConnectError> {
        let stage = staging.stage.clone();
        let is_view = view.is_some();
        let (request, prepared) = staging
            .with(move |connection| {
                let session = DuckDbSession::new(connection, format!("cannot compare staged rows with `{}`", request.table));
                let prepared =
                    if is_view { Prepared::of_view(&DIALECT, &stage) } else { staging::prepare(&session, &stage, &request)? };
                Ok((request, prepared))
            })
            .await?;
        crash::point("rows_staged");
        Ok(Self { staging, request, prepared, view })
    }

    /// Stages the result of a query. Dropping the result interrupts the query.
    pub(super) async fn build(database: Database, request: BuildRequest) -> Result<Self, ConnectError> {
        let (load, table) = (request.load.clone(), request.table.clone());
        let staging = database
            .clone()
            .with(move |connection| Staging::new(database, connection, Stage::new(&DIALECT, &load, &table, 0), &table))
            .await?;
        let stage = staging.stage.clone();
        let (load, view) = staging
            .with(move |own| {
                let is_view = request.stored_as == StoredAs::View;
                let statement = staging::stage_query(&DIALECT, &stage, &request);
                let message = format!("the query of `{}` failed", request.table);
                own.execute_batch(&statement).map_err(|error| failed(&message, error))?;
                crash::point("batch_staged");
                let session = DuckDbSession::new(own, message);
                if let Some(key) = &request.surrogate_key {
                    staging::assign_surrogate_keys(&session, &stage, &request.table, key)?;
                }
                let load = staging::load_of(&session, &stage, &request)?;
                Ok((load, is_view.then_some(request.sql)))
            })
            .await?;
        Self::of(staging, load, view).await
    }
}

#[async_trait]
impl Staged for DuckDbStaged {
    fn rows(&self) -> StagedRows {
        self.prepared.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        let sql = format!("select * from {} as t limit 0", self.prepared.preview);
        self.staging.with(move |connection| query::columns_of(connection, &sql)).await
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (preview, audit) = (self.prepared.preview.clone(), audit.clone());
        self.staging
            .with(move |connection| {
                let session = DuckDbSession::new(connection, "the check cannot be evaluated");
                staging::audit(&session, Some(&preview), &audit, SAMPLE_ROW_COUNT_MAX)
            })
            .await
    }

    async fn publish(mut self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let publishing = Arc::clone(&self.staging.database.publishing);
        let (stage, request) = (self.staging.stage.clone(), self.request.clone());
        let (prepared, view) = (self.prepared.clone(), self.view.clone());
        let publish = move |connection: &Connection| {
            let _turn = publishing.lock().unwrap_or_else(PoisonError::into_inner);
            let session = DuckDbSession::new(connection, format!("cannot publish `{}`", request.table));
            session.execute("begin transaction")?;
            if let Some(committed) = staging::committed_before(&session, &stage, &request.load)? {
                return Ok(committed);
            }
            let committed = match &view {
                Some(sql) => staging::publish_view(&session, &stage, &request, sql)?,
                None => staging::publish(&session, &stage, &request, &prepared, commit)?,
            };
            session.execute("commit")?;
            crash::point("after_publish");
            Ok(committed)
        };
        let committed = self.staging.with(publish).await?;
        self.staging.is_done = true;
        Ok(committed)
    }
}
