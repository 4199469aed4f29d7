//! One load: stage, compare, check, publish. It keeps one connection, and with it the lock of its stage, from begin to end.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::SinkExt;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, Commit, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Reject,
    Staged, StagedRows, TableName, blocking, convert, crash,
};
use subak_domain::{Column, StoredAs};
use tokio::runtime::Handle;

use super::error::failed;
use super::read::columns_of;
use super::session::schema_of;
use super::types;
use super::{DIALECT, Database, Link, PostgresSession, encode, with_client};
use crate::plain::plain;
use crate::staging::{self, Prepared, RejectRows, STAGE_PREFIX, Session, Stage, state};

/// The advisory lock that whoever works on a stage holds, as the arguments of `pg_advisory_lock`. All tables of a load share it.
pub(super) fn lock_of(stage: &str) -> String {
    let tag = stage.strip_prefix(STAGE_PREFIX).unwrap_or(stage);
    let tag = tag.split('_').next().unwrap_or(tag);
    format!("hashtext('subak stage'), hashtext({})", DIALECT.literal(tag))
}

/// How long an attempt that was given up may take to drop its stage. Whoever holds its lock for longer is a session whose client is gone
/// without a word: loads have names of their own, and one attempt at a time.
const GIVEN_UP_WAIT: Duration = Duration::from_secs(5);

/// How long it waits between two looks at a lock.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the lock of a stage unless somebody holds it for long.
fn try_lock(session: &PostgresSession<'_>, stage: &str) -> Result<bool, ConnectError> {
    let sql = format!("select pg_try_advisory_lock({})", lock_of(stage));
    let mut waited = Duration::ZERO;
    while waited < GIVEN_UP_WAIT {
        let rows = session.rows(&sql, usize::MAX)?;
        if rows.first().and_then(|row| row.first()).and_then(|(_, value)| value.as_deref()) == Some("t") {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
    Ok(false)
}

/// Takes the lock of a stage for a new attempt, from a session whose client is gone if it must be.
fn take_lock(session: &PostgresSession<'_>, stage: &str) -> Result<(), ConnectError> {
    if try_lock(session, stage)? {
        return Ok(());
    }
    let lock = lock_of(stage);
    let number = |text: &str| format!("({text}::bigint & 4294967295)");
    let (class, object) = lock.split_once(", ").unwrap_or((&lock, "0"));
    session.execute(&format!(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted and objsubid = 2 and pid <> pg_backend_pid() \
         and database = (select oid from pg_database where datname = current_database()) \
         and classid::bigint = {} and objid::bigint = {}",
        number(class),
        number(object)
    ))?;
    if try_lock(session, stage)? {
        return Ok(());
    }
    let message = "another session holds the stage of this load";
    Err(ConnectError::new(ConnectErrorKind::Held, message).help("end that session, or wait for it"))
}

/// The rows as they will be after publication, for checks.
pub(super) const PREVIEW: &str = "pg_temp.__subak_preview";

/// Bytes of a name; PostgreSQL cuts longer ones without a word.
const NAME_LENGTH_MAX: usize = 63;

/// Bytes of what is put behind the name of a table: `__tombstones`.
const SUFFIX_LENGTH_MAX: usize = 12;

fn refuse_long_name(name: &str, length_max: usize) -> Result<(), ConnectError> {
    if name.len() <= length_max {
        return Ok(());
    }
    let message = format!("the name `{name}` has {} bytes, and {length_max} are the most here", name.len());
    let help = "give it a shorter one; PostgreSQL would cut it, and two names could become one";
    Err(ConnectError::new(ConnectErrorKind::Config, message).help(help))
}

/// Two publications and two beginnings take turns: making one schema twice at once fails.
pub(super) const TURN: &str = "hashtext('subak turn'), 0";

/// The stage tables of a load and the connection that fills them. Dropped with the value unless they were published.
pub(super) struct Staging {
    database: Database,
    pub(super) client: Arc<Link>,
    pub(super) stage: Stage,
    pub(super) is_done: bool,
    /// The number of its session at the server.
    process: i32,
}

impl Drop for Staging {
    /// Best effort: what stays behind is found by `clean_up`. The next attempt waits for the lock that this connection holds until the
    /// tables are gone.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let Ok(handle) = Handle::try_current() else { return };
        let (database, client, stage) = (self.database.clone(), Arc::clone(&self.client), self.stage.clone());
        let process = self.process;
        handle.spawn(async move {
            drop(tokio::time::timeout(GIVEN_UP_WAIT, client.cancel()).await);
            let message = || "cannot drop stage tables".to_owned();
            let own = stage.clone();
            let dropped = tokio::time::timeout(GIVEN_UP_WAIT, async {
                client.batch_execute("rollback").await.map_err(|error| failed(&message(), &error))?;
                with_client(&client, message(), move |session| own.drop_all(session)).await
            });
            if matches!(dropped.await, Ok(Ok(()))) {
                return;
            }
            // The connection is gone or silent. Its own session is ended at the server, and never that of another attempt, which may have the
            // stage by now.
            client.end();
            let work = database.with(message(), move |session| {
                session.execute(&format!("select pg_terminate_backend({process})"))?;
                if try_lock(session, &stage.rows.name)? { stage.drop_all(session) } else { Ok(()) }
            });
            drop(tokio::time::timeout(GIVEN_UP_WAIT * 3, work).await);
        });
    }
}

impl Staging {
    /// Connects, takes the lock of the stage and clears its place.
    pub(super) async fn new(database: &Database, stage: Stage, table: &TableName) -> Result<Self, ConnectError> {
        refuse_long_name(&table.name, NAME_LENGTH_MAX - SUFFIX_LENGTH_MAX)?;
        let client = Arc::new(database.client().await?);
        let message = format!("cannot make a stage for `{table}`");
        let row = client.query_one("select pg_backend_pid()", &[]).await.map_err(|error| failed(&message, &error))?;
        let process = row.try_get(0).map_err(|error| failed(&message, &error))?;
        let staging = Self { database: database.clone(), client, stage: stage.clone(), is_done: false, process };
        let table = table.clone();
        staging
            .with(format!("cannot make a stage for `{table}`"), move |session| {
                take_lock(session, &stage.rows.name)?;
                session.execute(&format!("begin; select pg_advisory_xact_lock({TURN})"))?;
                state::ensure(session)?;
                session.ensure_schema(schema_of(&table))?;
                session.execute("commit")?;
                stage.drop_all(session)
            })
            .await?;
        Ok(staging)
    }

    pub(super) async fn with<T, F>(&self, message: String, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&PostgresSession<'_>) -> Result<T, ConnectError> + Send + 'static,
    {
        with_client(&self.client, message, work).await
    }

    async fn append(&self, stage: &TableName, mut batch: Batch, target: &TableName) -> Result<(), ConnectError> {
        if batch.row_count() == 0 {
            return Ok(());
        }
        let message = format!("cannot stage rows for `{target}`");
        let names: Vec<String> = batch.records.schema().fields().iter().map(|field| field.name().clone()).collect();
        let pieces = blocking::run(move || {
            batch.records = plain(&batch.records)?;
            encode::copy_of(&batch)
        })
        .await?;
        let sql = format!("copy {} ({}) from stdin (format binary)", DIALECT.table(stage), DIALECT.identifiers(&names));
        let sink = self.client.copy_in(&sql).await.map_err(|error| failed(&message, &error))?;
        futures::pin_mut!(sink);
        for piece in pieces {
            sink.feed(piece).await.map_err(|error| failed(&message, &error))?;
        }
        sink.finish().await.map_err(|error| failed(&message, &error))?;
        crash::point("batch_staged");
        Ok(())
    }
}

pub(super) struct PostgresLoad {
    staging: Staging,
    request: LoadRequest,
    reject_rows: RejectRows,
}

impl PostgresLoad {
    pub(super) async fn begin(database: &Database, request: LoadRequest) -> Result<Self, ConnectError> {
        let columns = request.schema.fields().iter().chain(request.children.iter().flat_map(|child| child.schema.fields()));
        for field in columns {
            refuse_long_name(field.name(), NAME_LENGTH_MAX)?;
        }
        for child in &request.children {
            refuse_long_name(&child.table.name, NAME_LENGTH_MAX)?;
        }
        let stage = Stage::new(&DIALECT, &request.load, &request.table, request.children.len());
        let staging = Staging::new(database, stage.clone(), &request.table).await?;
        let message = format!("cannot make a stage for `{}`", request.table);
        let request = staging
            .with(message, move |session| {
                staging::make(session, &stage, &request)?;
                Ok(request)
            })
            .await?;
        crash::point("load_begun");
        Ok(Self { staging, request, reject_rows: RejectRows::default() })
    }
}

#[async_trait]
impl Load for PostgresLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        self.staging.append(&self.staging.stage.rows, batch, &self.request.table).await
    }

    async fn write_child(&mut self, child: usize, batch: Batch) -> Result<(), ConnectError> {
        self.staging.append(&self.staging.stage.children[child], batch, &self.request.table).await
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        let rows: RecordBatch = self.reject_rows.batch(&rejects)?;
        self.staging.append(&self.staging.stage.rejects, Batch::new(rows), &self.request.table).await
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let Self { staging, request, .. } = *self;
        PostgresStaged::of(staging, request, None).await.map(|staged| Box::new(staged) as Box<dyn Staged>)
    }
}

/// A complete stage.
pub(super) struct PostgresStaged {
    staging: Staging,
    request: LoadRequest,
    prepared: Prepared,
    /// The query of a view; such a stage is a view too, and nothing is compared.
    view: Option<String>,
}

impl PostgresStaged {
    async fn of(staging: Staging, request: LoadRequest, view: Option<String>) -> Result<Self, ConnectError> {
        let stage = staging.stage.clone();
        let is_view = view.is_some();
        let message = format!("cannot compare staged rows with `{}`", request.table);
        let (request, prepared) = staging
            .with(message, move |session| {
                if is_view {
                    return Ok((request, Prepared::of_view(session.dialect(), &stage)));
                }
                // How it compares the stage with the table depends on what it knows of the stage.
                session.execute(&format!("analyze {}", DIALECT.table(&stage.rows)))?;
                let prepared = staging::prepare(session, &stage, &request)?;
                Ok((request, prepared))
            })
            .await?;
        crash::point("rows_staged");
        Ok(Self { staging, request, prepared, view })
    }

    /// Stages the result of a query.
    pub(super) async fn build(database: &Database, request: BuildRequest) -> Result<Self, ConnectError> {
        let stage = Stage::new(&DIALECT, &request.load, &request.table, 0);
        let staging = Staging::new(database, stage.clone(), &request.table).await?;
        let message = format!("the query of `{}` failed", request.table);
        let (load, view) = staging
            .with(message, move |session| {
                let is_view = request.stored_as == StoredAs::View;
                session.execute(&staging::stage_query(&DIALECT, &stage, &request))?;
                crash::point("batch_staged");
                if let Some(key) = &request.surrogate_key {
                    staging::assign_surrogate_keys(session, &stage, &request.table, key)?;
                }
                let load = staging::load_of(session, &stage, &request)?;
                Ok((load, is_view.then_some(request.sql)))
            })
            .await?;
        Self::of(staging, load, view).await
    }
}

#[async_trait]
impl Staged for PostgresStaged {
    fn rows(&self) -> StagedRows {
        self.prepared.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        let sql = format!("select * from {} as t", self.prepared.preview);
        let columns = columns_of(&self.staging.client, &sql, |_| None, "staged rows cannot be described").await?;
        Ok(convert::columns_of(&types::schema_of(&columns)))
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (preview, audit) = (self.prepared.preview.clone(), audit.clone());
        self.staging
            .with("the check cannot be evaluated".to_owned(), move |session| {
                // Checks put it where only a name may stand. A view would keep the tables below it from being dropped, so it goes at once.
                session.execute(&format!("create temporary view {PREVIEW} as select * from {preview} as p"))?;
                let result = staging::audit(session, Some(PREVIEW), &audit, SAMPLE_ROW_COUNT_MAX);
                session.execute(&format!("drop view {PREVIEW}"))?;
                result
            })
            .await
    }

    async fn publish(mut self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let (stage, request) = (self.staging.stage.clone(), self.request.clone());
        let (prepared, view) = (self.prepared.clone(), self.view.clone());
        let message = format!("cannot publish `{}`", request.table);
        let committed = self
            .staging
            .with(message, move |session| {
                session.execute(&format!("begin; select pg_advisory_xact_lock({TURN})"))?;
                if let Some(committed) = staging::committed_before(session, &stage, &request.load)? {
                    return Ok(committed);
                }
                let committed = match &view {
                    Some(sql) => staging::publish_view(session, &stage, &request, sql)?,
                    None => staging::publish(session, &stage, &request, &prepared, commit)?,
                };
                session.execute("commit")?;
                crash::point("after_publish");
                if view.is_none() && committed.changed {
                    // Best effort: the rows are there; queries on them are planned by what is known of them.
                    drop(session.execute(&format!("analyze {}", prepared.target)));
                }
                Ok(committed)
            })
            .await?;
        self.staging.is_done = true;
        Ok(committed)
    }
}
