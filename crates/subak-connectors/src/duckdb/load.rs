//! One load: stage, compare, check, publish.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use duckdb::Connection;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    AuditResult, Batch, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Staged, StagedRows, TableName, blocking,
    crash,
};
use subak_domain::{CheckRule, Cursor, LoadId, StoredAs, WriteMode};

use super::error::failed;
use super::sink::{self, Relation, Shared, quoted};
use super::{DIALECT, Database, types};
use crate::staging::{self, Columns, Names};

/// A stage table that is being filled.
pub(super) struct DuckDbLoad {
    stage: Stage,
    request: LoadRequest,
}

/// A stage table or view. Dropped with the value unless it was published.
struct Stage {
    database: Database,
    connection: Shared,
    interrupt: Arc<duckdb::InterruptHandle>,
    table: TableName,
    is_done: bool,
}

impl Drop for Stage {
    /// Best effort: what stays behind is found by `clean_up`. The statement that may still run is interrupted, so the wait for the
    /// connection is short. It must not be left to another thread: the next attempt makes a stage of the same name.
    fn drop(&mut self) {
        if !self.is_done {
            self.interrupt.interrupt();
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            drop(connection.execute_batch("rollback"));
            drop(sink::drop_stage(&connection, &self.table));
        }
    }
}

impl Stage {
    fn new(database: Database, connection: &Connection, load: &LoadId, table: &TableName) -> Result<Self, ConnectError> {
        // Two transactions that make one schema conflict, so this takes turns with publications too.
        let publishing = Arc::clone(&database.publishing);
        let turn = publishing.lock().unwrap_or_else(PoisonError::into_inner);
        sink::ensure_state(connection)?;
        let schema = DIALECT.identifier(sink::schema_of(table));
        connection
            .execute_batch(&format!("create schema if not exists {schema}"))
            .map_err(|error| failed(&format!("cannot make the schema {schema}"), error))?;
        let stage = sink::stage_table(load, table);
        sink::drop_stage(connection, &stage)?;
        drop(turn);
        let own = database.connect()?;
        let interrupt = own.interrupt_handle();
        Ok(Self { database, connection: Arc::new(Mutex::new(own)), interrupt, table: stage, is_done: false })
    }

    async fn with<T, F>(&self, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ConnectError> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        blocking::run(move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

impl DuckDbLoad {
    pub(super) fn begin(database: Database, connection: &Connection, request: LoadRequest) -> Result<Self, ConnectError> {
        let stage = Stage::new(database, connection, &request.load, &request.table)?;
        let columns = types::column_list(&request.schema)?;
        connection
            .execute_batch(&format!("create table {} ({columns})", quoted(&stage.table)))
            .map_err(|error| failed(&format!("cannot make a stage table for `{}`", request.table), error))?;
        crash::point("load_begun");
        Ok(Self { stage, request })
    }
}

#[async_trait]
impl Load for DuckDbLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        if batch.row_count() == 0 {
            return Ok(());
        }
        let (stage, target) = (self.stage.table.clone(), self.request.table.clone());
        self.stage
            .with(move |connection| {
                let records = types::plain(&batch.records)?;
                let append = || {
                    let mut appender = connection.appender_to_db(&stage.name, sink::schema_of(&stage))?;
                    appender.append_record_batch(records)?;
                    appender.flush()
                };
                append().map_err(|error| failed(&format!("cannot stage rows for `{target}`"), error))?;
                crash::point("batch_staged");
                Ok(())
            })
            .await
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let Self { stage, request } = *self;
        let stage_table = stage.table.clone();
        let (request, prepared) = stage
            .with(move |connection| {
                let prepared = Prepared::of(connection, &stage_table, &request)?;
                Ok((request, prepared))
            })
            .await?;
        crash::point("rows_staged");
        let load = request.load.clone();
        Ok(Box::new(DuckDbStaged {
            stage,
            load,
            table: request.table.clone(),
            prepared,
            kind: Publication::Load(Box::new(request)),
        }))
    }
}

/// What is known about the stage once it is complete.
#[derive(Debug, Clone)]
struct Prepared {
    names: Names,
    columns: Columns,
    target: Option<Relation>,
    staged_count: u64,
    overlap_count: u64,
    changed: bool,
    preview: String,
}

impl Prepared {
    fn of(connection: &Connection, stage: &TableName, request: &LoadRequest) -> Result<Self, ConnectError> {
        let mut prepared = Self::compare(connection, stage, &request.table)?;
        let names = prepared.names.clone();
        if prepared.target == Some(Relation::View) {
            let message = format!("`{}` is a view, and rows cannot be loaded into it", request.table);
            return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help("drop the view, or rename the asset"));
        }
        if request.has_unique_key {
            refuse_bad_keys(connection, &names, request)?;
        }
        if request.mode != WriteMode::Replace {
            refuse_changed_types(connection, stage, request, &prepared.columns)?;
        }
        let overlap = staging::drop_overlap(&DIALECT, &names, request, &prepared.columns).map_err(|column| {
            ConnectError::new(ConnectErrorKind::Config, format!("a column named `{column}` hides the number of a row"))
                .help("rename the column in the source")
        })?;
        if let Some(sql) = overlap {
            let dropped =
                connection.execute(&sql, []).map_err(|error| failed("cannot compare staged rows with the table", error))?;
            prepared.overlap_count = dropped as u64;
            prepared.staged_count -= prepared.overlap_count;
        }
        prepared.changed = match request.mode {
            WriteMode::Replace => prepared.differs(connection)?,
            WriteMode::Append | WriteMode::Merge => prepared.staged_count > 0 || prepared.target.is_none(),
        };
        if !prepared.changed && request.mode == WriteMode::Replace {
            // Every row is there already: nothing will be written.
            prepared.overlap_count = std::mem::take(&mut prepared.staged_count);
        }
        prepared.preview = staging::preview(&DIALECT, &names, request, &prepared.columns);
        Ok(prepared)
    }

    /// Names, columns and counts of both sides.
    fn compare(connection: &Connection, stage: &TableName, table: &TableName) -> Result<Self, ConnectError> {
        let target = sink::relation_kind(connection, table)?;
        let names = Names { stage: quoted(stage), target: quoted(table) };
        let columns = Columns {
            stage: sink::column_names(connection, stage)?,
            target: target.is_some().then(|| sink::column_names(connection, table)).transpose()?,
        };
        let staged_count = sink::count(connection, &format!("select count(*) from {}", names.stage))?;
        let preview = names.stage.clone();
        Ok(Self { names, columns, target, staged_count, overlap_count: 0, changed: true, preview })
    }

    /// Whether the stage holds other rows than the table.
    fn differs(&self, connection: &Connection) -> Result<bool, ConnectError> {
        if self.target != Some(Relation::Table) {
            return Ok(true);
        }
        let Some(sql) = staging::count_differences(&DIALECT, &self.names, &self.columns) else { return Ok(true) };
        let target_count = sink::count(connection, &format!("select count(*) from {}", self.names.target))?;
        Ok(target_count != self.staged_count || has_other_types(connection, &self.names)? || sink::count(connection, &sql)? > 0)
    }
}

fn has_other_types(connection: &Connection, names: &Names) -> Result<bool, ConnectError> {
    let types = |table: &str| {
        let mut statement = connection.prepare(&format!("select column_type from (describe {table})"))?;
        statement.query_map([], |row| row.get::<_, String>(0))?.collect::<duckdb::Result<Vec<_>>>()
    };
    let read = || Ok(types(&names.stage)? != types(&names.target)?);
    read().map_err(|error| failed("cannot compare column types", error))
}

fn refuse_bad_keys(connection: &Connection, names: &Names, request: &LoadRequest) -> Result<(), ConnectError> {
    let sql = staging::bad_keys(&DIALECT, names, &request.primary_key);
    let rows = super::query::text_rows(connection, &sql, 3)?;
    let Some(first) = rows.first() else { return Ok(()) };
    let is_null = first.first().is_some_and(|(_, value)| value.as_deref() == Some("1"));
    let key_text = |row: &Vec<(String, Option<String>)>| {
        let parts: Vec<String> =
            row.iter().skip(2).map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("NULL"))).collect();
        parts.join(", ")
    };
    let keys: Vec<String> = rows.iter().map(key_text).collect();
    Err(staging::bad_key_error(request, is_null, &keys.join("; ")))
}

/// Refuses a load whose columns have other types than the table's, because DuckDB would convert them without a word.
fn refuse_changed_types(
    connection: &Connection,
    stage: &TableName,
    request: &LoadRequest,
    columns: &Columns,
) -> Result<(), ConnectError> {
    if columns.target.is_none() {
        return Ok(());
    }
    let sql = "select s.column_name, s.data_type, t.data_type from information_schema.columns s join information_schema.columns t \
               on lower(s.column_name) = lower(t.column_name) where s.table_schema = ? and s.table_name = ? \
               and lower(t.table_schema) = lower(?) and lower(t.table_name) = lower(?) and s.data_type <> t.data_type limit 1";
    let parameters = [sink::schema_of(stage), &stage.name, sink::schema_of(&request.table), &request.table.name];
    let read = || -> duckdb::Result<Option<(String, String, String)>> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.next().transpose()
    };
    match read().map_err(|error| failed("cannot compare column types", error))? {
        None => Ok(()),
        Some((column, arriving, held)) => Err(staging::type_changed(&request.table.to_string(), &column, &held, &arriving)),
    }
}

/// How a stage becomes the table.
enum Publication {
    /// Rows of a load.
    Load(Box<LoadRequest>),
    /// The result of a query.
    Build { stored_as: StoredAs, sql: String },
}

/// A complete stage.
pub(super) struct DuckDbStaged {
    stage: Stage,
    load: LoadId,
    table: TableName,
    prepared: Prepared,
    kind: Publication,
}

impl DuckDbStaged {
    /// Stages the result of a query.
    pub(super) fn build(
        database: Database,
        connection: &Connection,
        request: subak_connect::BuildRequest,
    ) -> Result<Self, ConnectError> {
        let stage = Stage::new(database, connection, &request.load, &request.table)?;
        let word = request.stored_as.as_str();
        let sql = format!("create {word} {} as\n{}\n", quoted(&stage.table), request.sql);
        connection.execute_batch(&sql).map_err(|error| failed(&format!("the query of `{}` failed", request.table), error))?;
        crash::point("batch_staged");
        let mut prepared = Prepared::compare(connection, &stage.table, &request.table)?;
        prepared.changed = match request.stored_as {
            StoredAs::Table => prepared.differs(connection)?,
            StoredAs::View => true,
        };
        crash::point("rows_staged");
        let kind = Publication::Build { stored_as: request.stored_as, sql: request.sql };
        Ok(Self { stage, load: request.load, table: request.table, prepared, kind })
    }

    /// The statements of the publication, and how many rows it writes.
    fn statements(&self) -> Vec<String> {
        let Prepared { names, columns, target, .. } = &self.prepared;
        let drop_target = target.map(|relation| format!("drop {} {}", relation.word(), names.target));
        let rename = format!("alter table {} rename to {}", names.stage, DIALECT.identifier(&self.table.name));
        let is_swap = match &self.kind {
            Publication::Load(request) => request.mode == WriteMode::Replace || target.is_none(),
            Publication::Build { stored_as, .. } => *stored_as == StoredAs::Table,
        };
        match &self.kind {
            _ if is_swap => drop_target.into_iter().chain([rename]).collect(),
            Publication::Build { sql, .. } => {
                let create = format!("create view {} as\n{sql}\n", names.target);
                drop_target.into_iter().chain([create, format!("drop view {}", names.stage)]).collect()
            }
            Publication::Load(request) => {
                let added = columns.added();
                let types = added.iter().filter_map(|column| {
                    let field = request.schema.field_with_name(column).ok()?;
                    let data_type = types::sql_type(&types::plain_type(field.data_type()))?;
                    Some(format!("alter table {} add column {} {data_type}", names.target, DIALECT.identifier(column)))
                });
                let drop_stage = format!("drop table {}", names.stage);
                types.chain(staging::carry_over(&DIALECT, names, request, columns)).chain([drop_stage]).collect()
            }
        }
    }

    fn is_cursor_kept(&self) -> bool {
        matches!(&self.kind, Publication::Load(request) if request.mode != WriteMode::Replace)
    }
}

#[async_trait]
impl Staged for DuckDbStaged {
    fn rows(&self) -> StagedRows {
        StagedRows { written: self.prepared.staged_count, overlap: self.prepared.overlap_count }
    }

    async fn audit(&mut self, rule: &CheckRule) -> Result<AuditResult, ConnectError> {
        let (preview, rule) = (self.prepared.preview.clone(), rule.clone());
        self.stage.with(move |connection| audit(connection, Some(&preview), &rule)).await
    }

    async fn publish(mut self: Box<Self>, cursor: Option<Cursor>) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let is_unchanged = !self.prepared.changed;
        let (statements, is_cursor_kept) = (self.statements(), self.is_cursor_kept());
        let (load, table, prepared) = (self.load.clone(), self.table.clone(), self.prepared.clone());
        let publishing = Arc::clone(&self.stage.database.publishing);
        let publish = move |connection: &Connection| {
            let _turn = publishing.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = |error| failed(&format!("cannot publish `{table}`"), error);
            connection.execute_batch("begin transaction").map_err(failed)?;
            let drop_stage = [format!("drop table {}", prepared.names.stage)];
            for statement in if is_unchanged { &drop_stage[..] } else { &statements[..] } {
                connection.execute_batch(statement).map_err(failed)?;
            }
            let row_count = sink::count(connection, &format!("select count(*) from {}", prepared.names.target))?;
            let written = prepared.staged_count;
            let committed =
                Committed { written, row_count, overlap_count: prepared.overlap_count, changed: !is_unchanged, cursor };
            sink::write_state(connection, &load, &table, &committed, is_cursor_kept).map_err(failed)?;
            crash::point("inside_publish");
            connection.execute_batch("commit").map_err(failed)?;
            crash::point("after_publish");
            Ok(committed)
        };
        let committed = self.stage.with(publish).await?;
        self.stage.is_done = true;
        Ok(committed)
    }
}

/// Evaluates a check on `table`, which is quoted or a subquery.
pub(super) fn audit(connection: &Connection, table: Option<&str>, rule: &CheckRule) -> Result<AuditResult, ConnectError> {
    let query = DIALECT.bad_rows(rule, table.unwrap_or_default());
    let bad_row_count = sink::count(connection, &format!("select count(*) from (\n{query}\n)"))?;
    let row_count = table.map(|table| sink::count(connection, &format!("select count(*) from {table}"))).transpose()?;
    let mut sample = Vec::new();
    if bad_row_count > 0 {
        for row in super::query::text_rows(connection, &format!("select * from (\n{query}\n)"), SAMPLE_ROW_COUNT_MAX)? {
            let parts: Vec<String> =
                row.iter().map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("NULL"))).collect();
            sample.push(parts.join(", "));
        }
    }
    Ok(AuditResult { bad_row_count, row_count, sample })
}
