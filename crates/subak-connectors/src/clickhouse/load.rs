//! One load: rows wait in a table of its own, are compared, checked and published.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use bytes::Bytes;
use subak_connect::sink::{DELETE_MARK, SAMPLE_ROW_COUNT_MAX};
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, Commit, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Reject,
    Staged, StagedRows, TableName, blocking, convert, crash,
};
use subak_domain::{Column, DataType, StoredAs, WriteMode};

use super::error::during;
use super::native::{WriteColumn, block_of};
use super::prepare::{Prepared, ROW_COLUMN, Stage, prepare};
use super::publish::{Action, Plan};
use super::rejects::RejectPlan;
use super::script::{Typed, list, typed};
use super::state::{ENTRY_VERSION, Entry};
use super::tables::{Layout, Name, OWN_DATABASE, STAGE_PREFIX, bare, nullable};
use super::types::{ReadColumn, form_of, schema_of, word};
use super::{DIALECT, Server};
use crate::plain::{plain, plain_schema, plain_type};
use crate::staging::{RejectRows, reject_stage_schema};

/// Bytes and rows that wait here before they are sent as one insert.
const INSERT_BYTES_MAX: usize = 32 * 1024 * 1024;
const INSERT_ROW_COUNT_MAX: usize = 1024 * 1024;

/// Who made a table of a load: the host as processes see it, and the process there.
pub(super) fn owner() -> String {
    let mut hasher = blake3::Hasher::new();
    for file in ["/etc/machine-id", "/etc/hostname", "/proc/sys/kernel/random/boot_id"] {
        hasher.update(std::fs::read(file).unwrap_or_default().as_slice());
    }
    // Containers of one host number their processes apart.
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    hasher.update(space.as_os_str().as_encoded_bytes());
    format!("{}_{}", &hasher.finalize().to_hex()[..8], std::process::id())
}

/// One table that is being filled.
struct Filling {
    name: Name,
    columns: Arc<[WriteColumn]>,
    /// Rows so far, which number the next ones; `None` where they have no numbers.
    row_count: Option<u64>,
    blocks: Vec<Bytes>,
    bytes: usize,
    waiting: usize,
}

impl Filling {
    /// Makes the table.
    async fn new(server: &Server, name: Name, schema: &Schema, is_numbered: bool) -> Result<Self, ConnectError> {
        let is_modern = server.client.is_modern();
        let column = |field: &arrow::datatypes::FieldRef| {
            let form = form_of(field.data_type(), is_modern).ok_or_else(|| {
                let message = format!("clickhouse has no exact type for column `{}` ({})", field.name(), field.data_type());
                ConnectError::new(ConnectErrorKind::ValueMisfit, message)
                    .help(format!("declare it under `columns:`, for example `{}: text`", field.name()))
            })?;
            Ok(WriteColumn { name: field.name().clone(), form, is_nullable: true })
        };
        let columns = plain_schema(schema).fields().iter().map(column).collect::<Result<Vec<_>, ConnectError>>()?;
        let mut parts: Vec<String> = columns
            .iter()
            .map(|column| format!("{} {}", DIALECT.identifier(&column.name), word(column.form, column.is_nullable)))
            .collect();
        if is_numbered {
            parts.push(format!("{ROW_COLUMN} UInt64"));
        }
        if parts.is_empty() {
            parts.push("nothing Nullable(UInt8)".to_owned());
        }
        let sql = format!("create table {} ({}) engine = MergeTree order by tuple()", name.quoted(), parts.join(", "));
        server.client.execute(&sql).await?;
        Ok(Self { name, columns: columns.into(), row_count: is_numbered.then_some(0), blocks: Vec::new(), bytes: 0, waiting: 0 })
    }

    async fn write(&mut self, server: &Server, mut batch: Batch) -> Result<(), ConnectError> {
        let count = batch.row_count();
        if count == 0 {
            return Ok(());
        }
        let (columns, first) = (Arc::clone(&self.columns), self.row_count);
        let block = blocking::run(move || {
            batch.records = plain(&batch.records)?;
            block_of(&batch, &columns, first.map(|first| (ROW_COLUMN, first)))
        })
        .await?;
        self.row_count = first.map(|first| first + count as u64);
        self.bytes += block.len();
        self.waiting += count;
        self.blocks.push(block);
        if self.bytes >= INSERT_BYTES_MAX || self.waiting >= INSERT_ROW_COUNT_MAX {
            self.flush(server).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, server: &Server) -> Result<(), ConnectError> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let mut names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        names.extend(self.row_count.map(|_| ROW_COLUMN.to_owned()));
        (self.bytes, self.waiting) = (0, 0);
        server.client.insert(&self.name.quoted(), &list(&names), std::mem::take(&mut self.blocks)).await?;
        crash::point("batch_staged");
        Ok(())
    }

    fn typed(&self) -> Vec<Typed> {
        self.columns.iter().map(|column| Typed { name: column.name.clone(), word: word(column.form, false) }).collect()
    }
}

/// The tables of a load. Dropped with the value unless they were published.
struct Tables {
    server: Server,
    stage: Stage,
    is_done: bool,
}

impl Drop for Tables {
    /// Best effort: what stays behind is found by `clean_up`.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            let (server, stage) = (self.server.clone(), self.stage.clone());
            handle.spawn(async move { drop(server.drop_stage(&stage).await) });
        }
    }
}

impl Tables {
    async fn new(server: &Server, request: &LoadRequest) -> Result<Self, ConnectError> {
        if request.table.name.ends_with("__rows") {
            let message = format!(
                "`{}` has a name that belongs to Subak: the rows of a merged table stand in `<table>__rows`",
                request.table
            );
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help("give the asset another name"));
        }
        server.ensure_state().await?;
        server.recover(Some(&request.table)).await?;
        let stage = Stage(Name::new(OWN_DATABASE, &format!("{STAGE_PREFIX}{}_{}", request.load.tag(), owner())));
        server.drop_stage(&stage).await?;
        Ok(Self { server: server.clone(), stage, is_done: false })
    }
}

pub(super) struct ClickHouseLoad {
    tables: Tables,
    request: LoadRequest,
    rows: Filling,
    children: Vec<Filling>,
    rejects: Option<Filling>,
    reject_rows: RejectRows,
}

impl ClickHouseLoad {
    pub(super) async fn begin(server: &Server, request: LoadRequest) -> Result<Self, ConnectError> {
        let message = format!("cannot make a stage for `{}`", request.table);
        let begin = async {
            let tables = Tables::new(server, &request).await?;
            let rows = Filling::new(server, tables.stage.rows(), &request.schema, true).await?;
            let mut children = Vec::new();
            for (at, child) in request.children.iter().enumerate() {
                children.push(Filling::new(server, tables.stage.child(at), &child.schema, false).await?);
            }
            Ok::<_, ConnectError>((tables, rows, children))
        };
        let (tables, rows, children) = begin.await.map_err(|error| sql_failed(&message, error))?;
        crash::point("load_begun");
        Ok(Self { tables, request, rows, children, rejects: None, reject_rows: RejectRows::default() })
    }
}

/// Says what was tried where the server refused; our own errors say it themselves.
fn sql_failed(message: &str, error: ConnectError) -> ConnectError {
    match error.kind {
        ConnectErrorKind::ValueMisfit
        | ConnectErrorKind::KeyNull
        | ConnectErrorKind::KeyTwice
        | ConnectErrorKind::SchemaChanged
        | ConnectErrorKind::Config => error,
        _ => during(message, error),
    }
}

#[async_trait]
impl Load for ClickHouseLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        let message = format!("cannot stage rows for `{}`", self.request.table);
        self.rows.write(&self.tables.server, batch).await.map_err(|error| sql_failed(&message, error))
    }

    async fn write_child(&mut self, child: usize, batch: Batch) -> Result<(), ConnectError> {
        let message = format!("cannot stage rows for `{}`", self.request.table);
        self.children[child].write(&self.tables.server, batch).await.map_err(|error| sql_failed(&message, error))
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        let message = format!("cannot stage refused rows for `{}`", self.request.table);
        let rows = self.reject_rows.batch(&rejects)?;
        if self.rejects.is_none() {
            let made = Filling::new(&self.tables.server, self.tables.stage.rejects(), &reject_stage_schema(), false).await;
            self.rejects = Some(made.map_err(|error| sql_failed(&message, error))?);
        }
        if let Some(filling) = &mut self.rejects {
            filling.write(&self.tables.server, Batch::new(rows)).await.map_err(|error| sql_failed(&message, error))?;
        }
        Ok(())
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let Self { tables, request, mut rows, children, rejects, .. } = *self;
        let message = format!("cannot compare staged rows with `{}`", request.table);
        let stage = async {
            rows.flush(&tables.server).await?;
            for mut filling in children.into_iter().chain(rejects) {
                filling.flush(&tables.server).await?;
            }
            prepare(&tables.server, &tables.stage, &request, &rows.typed()).await
        };
        let prepared = stage.await.map_err(|error| sql_failed(&message, error))?;
        crash::point("rows_staged");
        Ok(Box::new(ClickHouseStaged { tables, request, prepared, view: None }))
    }
}

/// A complete stage.
pub(super) struct ClickHouseStaged {
    tables: Tables,
    request: LoadRequest,
    prepared: Prepared,
    /// The query of a view; nothing is compared then.
    view: Option<String>,
}

impl ClickHouseStaged {
    /// Stages the result of a query.
    pub(super) async fn build(server: &Server, request: BuildRequest) -> Result<Self, ConnectError> {
        let message = format!("the query of `{}` failed", request.table);
        Self::built(server, request).await.map_err(|error| sql_failed(&message, error))
    }

    async fn built(server: &Server, request: BuildRequest) -> Result<Self, ConnectError> {
        let schema = Arc::new(Schema::empty());
        let mut load = LoadRequest::new(request.load.clone(), request.table.clone(), schema, WriteMode::Replace);
        load.at.clone_from(&request.at);
        load.has_unique_key = false;
        load.layout.clone_from(&request.layout);
        let described = typed(&server.client.describe(&request.sql).await?);
        if request.stored_as == StoredAs::View {
            return Self::view(server, load, request.sql, described).await;
        }
        let mut ignored = Vec::new();
        if let Some(rule) = &request.incremental {
            load.primary_key.clone_from(&rule.unique_key);
            load.latest.clone_from(&rule.latest);
            load.history.clone_from(&rule.history);
            load.is_complete = true;
            load.slice.clone_from(&rule.slice);
            load.has_unique_key = matches!(rule.mode, WriteMode::Merge | WriteMode::Snapshot);
            let held = server.relation(&server.name_of(&request.table)).await?.filter(|held| held.layout != Layout::View);
            load.mode = if held.is_none() && rule.mode != WriteMode::Snapshot { WriteMode::Replace } else { rule.mode };
            if let Some(held) = held.filter(|_| load.mode != WriteMode::Replace) {
                ignored = super::sink::follow_schema_change(&described, rule, &held, &mut load)?;
            }
        }
        let tables = Tables::new(server, &load).await?;
        let wanted: Vec<Typed> = described.into_iter().filter(|column| !ignored.contains(&column.name)).collect();
        let columns = wanted.iter().map(|column| format!("{} {}", column.quoted(), nullable(&column.word)));
        let key = request.surrogate_key.as_ref();
        let mut parts: Vec<String> =
            key.iter().map(|key| format!("{} Nullable(Int64)", DIALECT.identifier(&key.column))).collect();
        parts.extend(columns);
        parts.push(format!("{ROW_COLUMN} UInt64"));
        let stage = tables.stage.rows();
        let sql = format!("create table {} ({}) engine = MergeTree order by tuple()", stage.quoted(), parts.join(", "));
        server.client.execute(&sql).await?;
        let names = list(&super::script::names(&wanted));
        let sql = format!(
            "insert into {} ({names}, {ROW_COLUMN}) select {names}, rowNumberInAllBlocks() from (\n{}\n)",
            stage.quoted(),
            request.sql
        );
        server.client.execute(&sql).await?;
        crash::point("batch_staged");
        let mut staged = wanted;
        if let Some(key) = key {
            super::sink::assign_surrogate_keys(server, &tables.stage, &request.table, key, &staged).await?;
            staged.insert(0, Typed { name: key.column.clone(), word: "Int64".to_owned() });
        }
        let prepared = prepare(server, &tables.stage, &load, &staged).await?;
        crash::point("rows_staged");
        Ok(Self { tables, request: load, prepared, view: None })
    }

    async fn view(server: &Server, load: LoadRequest, sql: String, described: Vec<Typed>) -> Result<Self, ConnectError> {
        let tables = Tables::new(server, &load).await?;
        let fresh = tables.stage.fresh();
        server.client.execute(&format!("create view {} as {}", fresh.quoted(), server.view_of(&sql))).await?;
        let prepared = Prepared {
            target: server.name_of(&load.table),
            held: None,
            number: server.next_number().await?,
            rows: StagedRows::default(),
            reject_count: 0,
            changed: true,
            action: Action::View,
            layout: Layout::View,
            columns: described,
            added: Vec::new(),
            added_after: None,
            widened: Vec::new(),
            removed: Vec::new(),
            preview: fresh.quoted(),
            keys_from: fresh,
        };
        Ok(Self { tables, request: load, prepared, view: Some(sql) })
    }

    /// Tables of nested lists as they will be: those of rows that are not published now, and those that are staged.
    async fn children(&self) -> Result<Vec<(Name, Name)>, ConnectError> {
        let server = &self.tables.server;
        let mut made = Vec::new();
        for (at, child) in self.request.children.iter().enumerate() {
            let (stage, target) = (self.tables.stage.child(at), server.name_of(&child.table));
            let fresh = stage.with("_f");
            let Some(staged) = server.relation(&stage).await? else { continue };
            let mut columns = typed(&staged.columns);
            let own = list(&super::script::names(&columns));
            let is_kept = self.request.mode != WriteMode::Replace && self.prepared.held.is_some();
            let held = server.relation(&target).await?.filter(|_| is_kept);
            if let Some(held) = &held {
                let changed = columns.iter().find_map(|column| {
                    let (_, word) = held.columns.iter().find(|(name, _)| *name == column.name)?;
                    (bare(word) != column.word).then(|| (column, bare(word).to_owned()))
                });
                if let Some((column, word)) = changed {
                    let message =
                        format!("column `{}` of `{}` is {word} and arrives as {}", column.name, child.table, column.word);
                    return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message)
                        .help("declare its type, or rebuild the table with `--full-refresh`"));
                }
                let known = super::script::names(&columns);
                columns.extend(typed(&held.columns).into_iter().filter(|column| !known.contains(&column.name)));
            }
            let layout = subak_domain::Layout::default();
            let storage = super::script::Storage { keys: None, layout: &layout };
            server.create(&fresh, &columns, &storage, self.prepared.number).await?;
            let into = format!("insert into {}", fresh.quoted());
            if let Some(held) = held {
                let kept: Vec<String> = held.columns.iter().map(|(name, _)| name.clone()).collect();
                let kept = list(&kept);
                let gone = if self.request.mode.needs_key() {
                    let parents: Vec<String> = self.request.primary_key.iter().map(|key| format!("parent_{key}")).collect();
                    format!(
                        " where ({}) not in (select {} from {})",
                        list(&parents),
                        list(&self.request.primary_key),
                        self.prepared.keys_from.quoted()
                    )
                } else {
                    String::new()
                };
                server.client.execute(&format!("{into} ({kept}) select {kept} from {}{gone}", target.quoted())).await?;
            }
            server.client.execute(&format!("{into} ({own}) select {own} from {}", stage.quoted())).await?;
            made.push((fresh, target));
        }
        Ok(made)
    }

    async fn entry(&self, commit: Commit) -> Result<Entry, ConnectError> {
        let (prepared, request) = (&self.prepared, &self.request);
        let words =
            |columns: &[Typed]| columns.iter().map(|column| (column.name.clone(), nullable(&column.word))).collect::<Vec<_>>();
        let stored = |name: &str| {
            let held = prepared.held.as_ref()?;
            held.stored.iter().find(|(known, _)| known == name).map(|(_, word)| word.as_str())
        };
        let widened = prepared.widened.iter().map(|column| {
            let is_nullable = stored(&column.name).is_none_or(|word| word.starts_with("Nullable("));
            (column.name.clone(), if is_nullable { nullable(&column.word) } else { column.word.clone() })
        });
        let partitions = match prepared.action {
            Action::Attach => self.tables.server.partitions(&self.tables.stage.fresh()).await?,
            _ => Vec::new(),
        };
        let children = if prepared.changed { self.children().await? } else { Vec::new() };
        let is_lost = matches!(request.mode, WriteMode::Replace | WriteMode::DeleteInsert) && request.slice.is_none()
            || prepared.held.is_none();
        Ok(Entry {
            version: ENTRY_VERSION,
            load: request.load.as_str().to_owned(),
            table: prepared.target.clone(),
            number: prepared.number,
            written: prepared.rows.written,
            row_count: 0,
            overlap_count: prepared.rows.overlap,
            changed: prepared.changed,
            cursor: commit.cursor,
            account: commit.account,
            files: commit.files,
            is_rebuilt: request.mode == WriteMode::Replace,
            layout: request.layout.clone(),
            owner: owner(),
            kinds: kinds(&request.schema),
            plan: Plan {
                action: prepared.action,
                layout: prepared.layout,
                partitions,
                columns: super::script::names(&prepared.columns),
                added: words(&prepared.added),
                added_after: prepared.added_after.clone(),
                widened: widened.collect(),
                removed: prepared.removed.clone(),
                sql: self.view.clone(),
                live: request.live.as_ref().map(|rows| DIALECT.live(rows)),
                children,
                rejects: RejectPlan {
                    count: prepared.reject_count,
                    run: request.run.clone(),
                    at: request.at.clone(),
                    is_whole: request.mode == WriteMode::Replace && self.view.is_none(),
                    is_lost,
                    replayed: commit.replayed,
                },
                stage: self.tables.stage.clone(),
            },
        })
    }
}

#[async_trait]
impl Staged for ClickHouseStaged {
    fn rows(&self) -> StagedRows {
        self.prepared.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        let client = &self.tables.server.client;
        let described = client.describe(&format!("select * from {}", self.prepared.preview)).await?;
        let is_hidden = |name: &str| name == DELETE_MARK || name == ROW_COLUMN;
        let columns: Vec<ReadColumn> = described
            .iter()
            .filter(|(name, _)| !is_hidden(name))
            .map(|(name, word)| ReadColumn::new(name, word, None, client.is_modern()))
            .collect();
        Ok(convert::columns_of(&schema_of(&columns)))
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        super::sink::audit(&self.tables.server, Some(&self.prepared.preview), audit, SAMPLE_ROW_COUNT_MAX)
            .await
            .map_err(|error| during("the check cannot be evaluated", error))
    }

    async fn publish(mut self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let message = format!("cannot publish `{}`", self.request.table);
        let server = self.tables.server.clone();
        let publish = async {
            if let Some(known) = server.entry_of(&self.request.load).await? {
                // An attempt whose answer was lost had committed it after all.
                return Ok(known.committed());
            }
            let entry = self.entry(commit).await?;
            server.refuse_another(&entry).await?;
            server.note(&entry, "prepared").await?;
            // From here on whoever comes next may need the tables of the load to finish it.
            self.tables.is_done = true;
            Ok(server.finish(entry).await?.committed())
        };
        let committed = publish.await.map_err(|error| sql_failed(&message, error))?;
        crash::point("after_publish");
        Ok(committed)
    }
}

/// The columns that come as bytes or as true and false.
fn kinds(schema: &Schema) -> BTreeMap<String, String> {
    let kind = |field: &arrow::datatypes::FieldRef| {
        let kind = convert::logical_type(&plain_type(field.data_type()));
        matches!(kind, DataType::Bytes | DataType::Boolean).then(|| (field.name().clone(), kind.to_string()))
    };
    schema.fields().iter().filter_map(kind).collect()
}

/// The table that holds the surrogate keys of a table.
pub(super) fn registry(server: &Server, table: &TableName) -> Name {
    let name = server.name_of(table);
    Name::new(OWN_DATABASE, &format!("keys__{}__{}", name.database, name.name))
}
