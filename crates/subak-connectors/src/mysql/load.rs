//! One load: stage, compare, check, publish. It keeps one connection, and with it the lock of its stage, from begin to end.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, Commit, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Reject,
    Staged, StagedRows, TableName, blocking, convert, crash,
};
use subak_domain::{Column, StoredAs, WriteMode};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

use super::error::failed;
use super::session::MySqlSession;
use super::types::{ReadColumn, schema_of};
use super::{DIALECT, Database, encode, publish, types};
use crate::plain::plain;
use crate::staging::{self, Prepared, RejectRows, STAGE_PREFIX, Session, Stage, state};

/// How many seconds an attempt that was given up may take to let go of its stage. Whoever holds its lock for longer is a session whose client
/// is gone without a word: loads have names of their own, and one attempt at a time.
const GIVEN_UP_SECONDS: u32 = 5;

/// How long it takes at most to drop what an attempt left behind.
const CLEARING: Duration = Duration::from_secs(20);

/// Characters of a text key that an index of a stage holds.
const KEY_LENGTH_MAX: usize = 600;

/// A connection that changes something.
pub(super) struct Link {
    database: Database,
    client: Mutex<Conn>,
    /// The number of its session at the server.
    pub(super) id: u32,
    /// The collation of its texts.
    pub(super) collation: &'static str,
}

impl Link {
    pub(super) fn new(database: Database, client: Conn, collation: &'static str) -> Self {
        Self { database, id: client.id(), client: Mutex::new(client), collation }
    }

    /// Runs blocking work. When the result is dropped before, the work ends at its next wait, and the connection is of no use any more.
    pub(super) async fn with<T, F>(self: &Arc<Self>, message: String, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&MySqlSession<'_>) -> Result<T, ConnectError> + Send + 'static,
    {
        let (_awaiting, awaited) = watch::channel(());
        let given_up = KillIfDropped(Some(Arc::clone(self)));
        let (link, handle) = (Arc::clone(self), Handle::current());
        let result = blocking::run(move || {
            let client = link.client.blocking_lock();
            work(&MySqlSession::new(client, &handle, awaited, link.collation, message))
        })
        .await;
        given_up.disarm();
        result
    }

    /// The columns of a query.
    pub(super) async fn columns_of(&self, sql: &str, message: &str) -> Result<Vec<Column>, ConnectError> {
        let statement = self.client.lock().await.prep(sql).await.map_err(|error| failed(message, &error))?;
        let columns: Vec<ReadColumn> = statement.columns().iter().map(|column| ReadColumn::new(column, None)).collect();
        Ok(convert::columns_of(&schema_of(&columns)))
    }

    /// The columns of a table or of a stage, as rows are loaded into them.
    pub(super) async fn schema_of(&self, sql: &str, message: &str) -> Result<SchemaRef, ConnectError> {
        let statement = self.client.lock().await.prep(sql).await.map_err(|error| failed(message, &error))?;
        Ok(types::written_as(&statement.columns()))
    }
}

/// Ends a session at the server when it is dropped, unless disarmed: what nobody waits for any more does not go on there.
struct KillIfDropped(Option<Arc<Link>>);

impl KillIfDropped {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillIfDropped {
    fn drop(&mut self) {
        if let (Some(link), Ok(handle)) = (self.0.take(), Handle::try_current()) {
            handle.spawn(async move {
                let kill = async {
                    link.database
                        .client()
                        .await?
                        .query_drop(format!("kill {}", link.id))
                        .await
                        .map_err(|error| failed("kill", &error))
                };
                drop(tokio::time::timeout(CLEARING, kill).await);
            });
        }
    }
}

/// Takes a lock of the server, unless another session has it for so many seconds.
pub(super) fn try_lock(session: &dyn Session, name: &str, seconds: u32) -> Result<bool, ConnectError> {
    Ok(session.count(&format!("select coalesce(get_lock({}, {seconds}), 0)", DIALECT.literal(name)))? == 1)
}

pub(super) fn unlock(session: &dyn Session, name: &str) -> Result<(), ConnectError> {
    session.count(&format!("select coalesce(release_lock({}), 0)", DIALECT.literal(name))).map(drop)
}

/// The name of the lock that whoever works on a stage holds. All tables of a load share it.
pub(super) fn lock_of(stage: &str) -> String {
    format!("subak stage {}", tag_of(stage))
}

fn tag_of(stage: &str) -> &str {
    let tag = stage.strip_prefix(STAGE_PREFIX).unwrap_or(stage);
    tag.split('_').next().unwrap_or(tag)
}

/// Takes the lock of a stage for a new attempt, from a session whose client is gone if it must be.
fn take_lock(session: &dyn Session, stage: &str) -> Result<(), ConnectError> {
    let lock = lock_of(stage);
    if try_lock(session, &lock, GIVEN_UP_SECONDS)? {
        return Ok(());
    }
    let holder = session.count(&format!("select coalesce(is_used_lock({}), 0)", DIALECT.literal(&lock)))?;
    if holder > 0 {
        session.execute(&format!("kill {holder}"))?;
    }
    if try_lock(session, &lock, GIVEN_UP_SECONDS)? {
        return Ok(());
    }
    let message = "another session holds the stage of this load";
    Err(ConnectError::new(ConnectErrorKind::Held, message).help("end that session, or wait for it"))
}

/// Drops all tables and views of a stage, after publications that were begun are ended.
pub(super) fn clear(session: &dyn Session, stage: &TableName) -> Result<(), ConnectError> {
    publish::settle(session)?;
    let schema = stage.schema.as_deref().map_or_else(|| "database()".to_owned(), |schema| DIALECT.literal(schema));
    let own = format!("{STAGE_PREFIX}{}", tag_of(&stage.name));
    let sql = format!(
        "select table_name, table_type from information_schema.tables where table_schema = {schema} and (table_name = {0} \
         or left(table_name, {1}) = concat({0}, '_'))",
        DIALECT.literal(&own),
        own.len() + 1
    );
    for row in session.rows(&sql, usize::MAX)? {
        let [(_, Some(name)), (_, Some(kind))] = row.as_slice() else { continue };
        let table = TableName { schema: stage.schema.clone(), name: name.clone() };
        let word = if kind.ends_with("VIEW") { "view" } else { "table" };
        session.execute(&format!("drop {word} if exists {}", DIALECT.table(&table)))?;
    }
    Ok(())
}

/// The stage tables of a load and the connection that fills them. Dropped with the value unless they were published.
struct Staging {
    database: Database,
    link: Arc<Link>,
    stage: Stage,
    is_done: bool,
}

impl Drop for Staging {
    /// Best effort: what stays behind is found by `clean_up`. Its own session is ended at the server, whatever it is doing, and never that of
    /// another attempt, which may have the stage by now.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let Ok(handle) = Handle::try_current() else { return };
        let (database, stage, id) = (self.database.clone(), self.stage.rows.clone(), self.link.id);
        handle.spawn(async move {
            let work = async {
                let link = database.writer().await?;
                link.with("cannot drop stage tables".to_owned(), move |session| {
                    // It may be gone already.
                    drop(session.execute(&format!("kill {id}")));
                    let lock = lock_of(&stage.name);
                    if try_lock(session, &lock, GIVEN_UP_SECONDS)? { clear(session, &stage) } else { Ok(()) }
                })
                .await
            };
            drop(tokio::time::timeout(CLEARING, work).await);
        });
    }
}

impl Staging {
    /// Connects, takes the lock of the stage and clears its place.
    async fn new(database: &Database, stage: Stage, table: &TableName) -> Result<Self, ConnectError> {
        let link = database.writer().await?;
        let staging = Self { database: database.clone(), link, stage: stage.clone(), is_done: false };
        let schema = table.schema.clone();
        staging
            .link
            .with(format!("cannot make a stage for `{table}`"), move |session| {
                take_lock(session, &stage.rows.name)?;
                state::ensure(session)?;
                publish::ensure(session)?;
                if let Some(schema) = &schema {
                    session.ensure_schema(schema)?;
                }
                clear(session, &stage.rows)
            })
            .await?;
        Ok(staging)
    }

    async fn append(&self, stage: &TableName, mut batch: Batch, target: &TableName) -> Result<(), ConnectError> {
        if batch.row_count() == 0 {
            return Ok(());
        }
        let message = format!("cannot stage rows for `{target}`");
        let name = DIALECT.table(stage);
        let statements = blocking::run(move || {
            batch.records = plain(&batch.records)?;
            encode::inserts(&name, &batch)
        })
        .await?;
        let mut client = self.link.client.lock().await;
        let framed = std::iter::once("start transaction").chain(statements.iter().map(String::as_str)).chain(["commit"]);
        for statement in framed {
            client.query_drop(statement).await.map_err(|error| failed(&message, &error))?;
        }
        crash::point("batch_staged");
        Ok(())
    }
}

pub(super) struct MySqlLoad {
    staging: Staging,
    request: LoadRequest,
    reject_rows: RejectRows,
}

impl MySqlLoad {
    pub(super) async fn begin(database: &Database, request: LoadRequest) -> Result<Self, ConnectError> {
        let mut request = request;
        request.table = database.placed(&request.table);
        for child in &mut request.children {
            child.table = database.placed(&child.table);
        }
        let stage = Stage::new(&DIALECT, &request.load, &request.table, request.children.len());
        let staging = Staging::new(database, stage.clone(), &request.table).await?;
        let message = format!("cannot make a stage for `{}`", request.table);
        let request = staging
            .link
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
impl Load for MySqlLoad {
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
        MySqlStaged::of(staging, request, false).await.map(|staged| Box::new(staged) as Box<dyn Staged>)
    }
}

/// A complete stage.
pub(super) struct MySqlStaged {
    staging: Staging,
    request: LoadRequest,
    prepared: Prepared,
    /// Whether the stage is a view; nothing is compared then.
    is_view: bool,
}

/// Lets rows of a stage be found by their keys.
fn add_index(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<(), ConnectError> {
    let is_looked_up = !request.primary_key.is_empty() && request.mode != WriteMode::Replace;
    if !is_looked_up || session.relation(&request.table)?.is_none() {
        return Ok(());
    }
    let words = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    let length = KEY_LENGTH_MAX / request.primary_key.len();
    let part = |column: &String| {
        let word = words.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map_or("", |(_, word)| word.as_str());
        let prefix = if word.contains("text") || word.contains("blob") { format!("({length})") } else { String::new() };
        format!("{}{prefix}", DIALECT.identifier(column))
    };
    let parts: Vec<String> = request.primary_key.iter().map(part).collect();
    session.execute(&format!("alter table {} add index ({})", DIALECT.table(&stage.rows), parts.join(", "))).map(drop)
}

/// Stages the result of a query in columns whose types do not hang on the values of the day.
fn stage_query(session: &MySqlSession<'_>, stage: &Stage, request: &BuildRequest, collation: &str) -> Result<(), ConnectError> {
    let name = DIALECT.table(&stage.rows);
    if request.stored_as == StoredAs::View {
        let sql = publish::marked_view(&request.sql, request.load.as_str());
        return session.execute(&format!("create view {name} as {sql}")).map(drop);
    }
    // Its shape only: a query that is limited to nothing is not run.
    session.execute(&format!("create table {name} as select * from (\n{}\n) as q limit 0", request.sql))?;
    let shape = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    session.execute(&format!("drop table {name}"))?;
    let mut columns: Vec<String> =
        request.surrogate_key.iter().map(|key| format!("{} bigint null", DIALECT.identifier(&key.column))).collect();
    columns.extend(shape.iter().map(|(column, word)| format!("{} {}", DIALECT.identifier(column), types::kept(word, collation))));
    columns.extend(DIALECT.row_column.map(|(number, kind)| format!("{} {kind}", DIALECT.identifier(number))));
    session.execute(&format!("create table {name} ({})", columns.join(", ")))?;
    let names: Vec<String> = shape.into_iter().map(|(column, _)| column).collect();
    session.execute(&format!("insert into {name} ({})\n{}\n", DIALECT.identifiers(&names), request.sql)).map(drop)
}

impl MySqlStaged {
    async fn of(staging: Staging, request: LoadRequest, is_view: bool) -> Result<Self, ConnectError> {
        let stage = staging.stage.clone();
        let message = format!("cannot compare staged rows with `{}`", request.table);
        let (request, prepared) = staging
            .link
            .with(message, move |session| {
                if is_view {
                    return Ok((request, Prepared::of_view(&DIALECT, &stage)));
                }
                add_index(session, &stage, &request)?;
                let prepared = staging::prepare(session, &stage, &request)?;
                Ok((request, prepared))
            })
            .await?;
        crash::point("rows_staged");
        Ok(Self { staging, request, prepared, is_view })
    }

    /// Stages the result of a query.
    pub(super) async fn build(database: &Database, mut request: BuildRequest) -> Result<Self, ConnectError> {
        request.table = database.placed(&request.table);
        let stage = Stage::new(&DIALECT, &request.load, &request.table, 0);
        let staging = Staging::new(database, stage.clone(), &request.table).await?;
        let (message, collation) = (format!("the query of `{}` failed", request.table), staging.link.collation);
        let (load, is_view) = staging
            .link
            .with(message, move |session| {
                stage_query(session, &stage, &request, collation)?;
                crash::point("batch_staged");
                if let Some(key) = &request.surrogate_key {
                    staging::assign_surrogate_keys(session, &stage, &request.table, key)?;
                }
                let load = staging::load_of(session, &stage, &request)?;
                Ok((load, request.stored_as == StoredAs::View))
            })
            .await?;
        Self::of(staging, load, is_view).await
    }
}

#[async_trait]
impl Staged for MySqlStaged {
    fn rows(&self) -> StagedRows {
        self.prepared.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        let sql = format!("select * from {} as t", self.prepared.preview);
        Ok(convert::columns_of(self.staging.link.schema_of(&sql, "staged rows cannot be described").await?.as_ref()))
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (preview, audit) = (self.prepared.preview.clone(), audit.clone());
        let stage = &self.staging.stage.rows;
        let view = DIALECT.table(&TableName { schema: stage.schema.clone(), name: format!("{}_p", stage.name) });
        self.staging
            .link
            .with("the check cannot be evaluated".to_owned(), move |session| {
                // Checks put it where only a name may stand.
                session.execute(&format!("create or replace view {view} as select * from {preview} as p"))?;
                let result = staging::audit(session, Some(&view), &audit, SAMPLE_ROW_COUNT_MAX);
                session.execute(&format!("drop view {view}"))?;
                result
            })
            .await
    }

    async fn publish(mut self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let (stage, request) = (self.staging.stage.clone(), self.request.clone());
        let (prepared, is_view) = (self.prepared.clone(), self.is_view);
        let message = format!("cannot publish `{}`", request.table);
        let committed = self
            .staging
            .link
            .with(message, move |session| publish::publish(session, &stage, &request, &prepared, commit, is_view))
            .await?;
        self.staging.is_done = true;
        Ok(committed)
    }
}
