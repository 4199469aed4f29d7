//! Tables, cursors, the ledger of loads, checks.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use async_trait::async_trait;
use subak_connect::sql::Incremental;
use subak_connect::{
    Audit, AuditResult, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Sink, TableInfo, TableName,
};
use subak_domain::{LoadId, SchemaChange, SurrogateKey};

use super::client::Texts;
use super::error::during;
use super::load::{ClickHouseLoad, owner, registry};
use super::prepare::{ROW_COLUMN, Stage};
use super::script::{Typed, hashes, list};
use super::state::Entry;
use super::tables::{Name, OWN_DATABASE, Relation, STAGE_PREFIX};
use super::types::{ReadColumn, schema_of};
use super::{DIALECT, Server};
use crate::plain::plain_type;

/// The first rows of a query as `column=value` texts.
pub(super) async fn sample(server: &Server, sql: &str, count_max: usize) -> Result<Vec<String>, ConnectError> {
    let columns = server.client.describe(sql).await?;
    let rows = server.client.rows(&format!("select * from (\n{sql}\n) limit {count_max}")).await?;
    let text = |row: Texts| {
        let cells = columns.iter().zip(row).map(|((name, _), cell)| format!("{name}={}", cell.as_deref().unwrap_or("NULL")));
        cells.collect::<Vec<_>>().join(", ")
    };
    Ok(rows.into_iter().map(text).collect())
}

/// Evaluates a check on `table`, which is quoted or a subquery.
pub(super) async fn audit(
    server: &Server,
    table: Option<&str>,
    audit: &Audit,
    sample_max: usize,
) -> Result<AuditResult, ConnectError> {
    let query = DIALECT.bad_rows(audit, table.unwrap_or_default());
    let bad_row_count = server.client.count(&format!("select count() from (\n{query}\n) as __subak_bad")).await?;
    let row_count = match (table, &audit.filter) {
        (None, _) => None,
        (Some(table), None) => Some(server.client.count(&format!("select count() from {table} as t")).await?),
        (Some(table), Some(filter)) => {
            Some(server.client.count(&format!("select count() from {table} as t where {filter}")).await?)
        }
    };
    let sample = if bad_row_count > 0 { sample(server, &query, sample_max).await? } else { Vec::new() };
    Ok(AuditResult { bad_row_count, row_count, sample })
}

/// What an incremental build does about columns that only its query or only its table has. Returns those that stay out of the table.
pub(super) fn follow_schema_change(
    described: &[Typed],
    rule: &Incremental,
    held: &Relation,
    load: &mut LoadRequest,
) -> Result<Vec<String>, ConnectError> {
    let history = &load.history;
    let is_own = |name: &str| {
        load.mode == subak_domain::WriteMode::Snapshot
            && [&history.valid_from, &history.valid_to, &history.is_current].contains(&&name.to_owned())
    };
    let has = |name: &str| described.iter().any(|column| column.name == name);
    let added: Vec<&str> = described.iter().map(|column| column.name.as_str()).filter(|name| !held.has(name)).collect();
    let gone: Vec<String> =
        held.columns.iter().map(|(name, _)| name.clone()).filter(|name| !is_own(name) && !has(name)).collect();
    match rule.on_schema_change {
        SchemaChange::Append => {}
        SchemaChange::Ignore => return Ok(added.into_iter().map(str::to_owned).collect()),
        SchemaChange::Sync => load.removed = gone,
        SchemaChange::Fail if added.is_empty() && gone.is_empty() => {}
        SchemaChange::Fail => {
            let list = |names: Vec<&str>| names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let mut parts = Vec::new();
            if !added.is_empty() {
                parts.push(format!("its query returns {} besides", list(added)));
            }
            if !gone.is_empty() {
                parts.push(format!("its query does not return {}", list(gone.iter().map(String::as_str).collect())));
            }
            let message = format!("the columns of `{}` changed: {}", load.table, parts.join(", and "));
            return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message)
                .help("set `on_schema_change:` to `append`, `sync` or `ignore`, or rebuild the table with `--full-refresh`"));
        }
    }
    Ok(Vec::new())
}

/// Fills the key column of a stage. Keys that were given before stay; new natural keys get the next numbers in their own order, and rows
/// that share one are numbered. What is entered into the registry stays even if the load fails: the next one finds it.
pub(super) async fn assign_surrogate_keys(
    server: &Server,
    stage: &Stage,
    table: &TableName,
    key: &SurrogateKey,
    staged: &[Typed],
) -> Result<(), ConnectError> {
    if let Some(missing) = key.of.iter().find(|name| !staged.iter().any(|column| column.name == **name)) {
        let message = format!("the surrogate key of `{table}` is made of `{missing}`, which its query does not return");
        return Err(ConnectError::new(ConnectErrorKind::ColumnMissing, message));
    }
    let natural: Vec<Typed> =
        key.of.iter().filter_map(|name| staged.iter().find(|column| column.name == *name)).cloned().collect();
    let (known, from) = (registry(server, table).quoted(), stage.rows().quoted());
    let keys = list(&key.of);
    let columns = natural.iter().map(|column| format!("{} Nullable({})", column.quoted(), column.word)).collect::<Vec<_>>();
    server
        .client
        .execute(&format!(
            "create table if not exists {known} (surrogate_key Int64, row_place UInt64, {}) engine = MergeTree order by surrogate_key",
            columns.join(", ")
        ))
        .await?;
    // Two columns stand for the natural key, NULLs in it too.
    let [one, other] = hashes(&natural, server.client.is_modern());
    let order = list(&staged.iter().map(|column| column.name.clone()).collect::<Vec<_>>());
    let placed = format!(
        "(select *, {one} as k_one, {other} as k_other from (select {keys}, r as {ROW_COLUMN}, toUInt64(p) as row_place from \
         (select {keys}, groupArray({ROW_COLUMN}) as rows_of from (select {keys}, {ROW_COLUMN} from {from} order by {order}) group by {keys}) \
         array join rows_of as r, arrayEnumerate(rows_of) as p))"
    );
    let held = format!("(select {one} as k_one, {other} as k_other, row_place, surrogate_key from {known})");
    let nulls = [("join_use_nulls", "1")];
    server
        .client
        .execute_with(
            &format!(
                "insert into {known} (surrogate_key, row_place, {keys}) select (select max(surrogate_key) from {known}) + \
                 rowNumberInAllBlocks() + 1, row_place, {keys} from (select row_place, {keys} from {placed} \
                 where (k_one, k_other, row_place) not in (select k_one, k_other, row_place from {held}) order by {keys}, row_place)"
            ),
            &[("max_threads", "1")],
        )
        .await?;
    let quoted = DIALECT.identifier(&key.column);
    let all = list(&staged.iter().map(|column| column.name.clone()).collect::<Vec<_>>());
    let keyed = stage.latest();
    server.client.execute(&format!("create table {} as {from}", keyed.quoted())).await?;
    server
        .client
        .execute_with(
            &format!(
                "insert into {} ({quoted}, {all}, {ROW_COLUMN}) select surrogate_key, {all}, {ROW_COLUMN} from (select * from {from}) as s \
                 any left join (select {ROW_COLUMN}, surrogate_key from {placed} as p any left join {held} as h using (k_one, k_other, row_place)) \
                 as k using ({ROW_COLUMN})",
                keyed.quoted()
            ),
            &nulls,
        )
        .await?;
    if let Some(unknown) = key.unknown {
        let sql = format!("insert into {} ({quoted}, {ROW_COLUMN}) values ({unknown}, {})", keyed.quoted(), u32::MAX);
        server.client.execute(&sql).await?;
    }
    server.drop_any(&stage.rows()).await?;
    server.client.execute(&format!("rename table {} to {from}", keyed.quoted())).await
}

#[async_trait]
impl Sink for Server {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let message = format!("cannot describe `{table}`");
        let describe = async {
            self.recover(Some(table)).await?;
            let name = self.name_of(table);
            let Some(held) = self.relation(&name).await? else { return Ok(None) };
            let is_modern = self.client.is_modern();
            let columns: Vec<ReadColumn> =
                held.columns.iter().map(|(name, word)| ReadColumn::new(name, word, None, is_modern)).collect();
            let state = self.stream_state(&name).await?;
            // Texts that came as bytes, and numbers that came as true and false, are that.
            let field = |field: &arrow::datatypes::FieldRef| match state.kinds.get(field.name()).map(String::as_str) {
                Some("bytes") if *field.data_type() == ArrowType::Utf8 => Field::new(field.name(), ArrowType::Binary, true),
                Some("boolean") if *field.data_type() == ArrowType::UInt8 => Field::new(field.name(), ArrowType::Boolean, true),
                _ => field.as_ref().clone(),
            };
            let schema = Schema::new(schema_of(&columns).fields().iter().map(field).collect::<Vec<_>>());
            let row_count = self.client.count(&format!("select count() from {}", name.quoted())).await?;
            Ok(Some(TableInfo {
                schema: schema.into(),
                cursor: state.cursor,
                row_count,
                row_count_committed: state.row_count,
                files: state.files,
            }))
        };
        describe.await.map_err(|error: ConnectError| during(&message, error))
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let rows = self.client.catalog("select database, name from system.tables").await;
        let rows = rows.map_err(|error| during("cannot read the catalog", error))?;
        let name = |row: Texts| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
        };
        let known: BTreeSet<(String, String)> = rows.into_iter().map(name).collect();
        let is_there = |table: &&TableName| {
            let Name { database, name } = self.name_of(table);
            known.contains(&(database, name))
        };
        Ok(tables.iter().filter(is_there).cloned().collect())
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let entry = self.entry_of(load).await.map_err(|error| during("cannot read the ledger of loads", error))?;
        Ok(entry.map(Entry::committed))
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        Ok(Box::new(ClickHouseLoad::begin(self, request).await?))
    }

    /// Finishes what crashes cut off after it was visible; then drops the tables of processes of this host that are gone, and those
    /// of other hosts that nobody touched for a day.
    async fn clean_up(&self) -> Result<u64, ConnectError> {
        let sweep = async {
            self.recover(None).await?;
            let sql = format!(
                "select name, metadata_modification_time < now() - 86400 from system.tables where database = {} and name like {}",
                DIALECT.literal(OWN_DATABASE),
                DIALECT.literal(&format!("{}%", STAGE_PREFIX.replace('_', "\\_")))
            );
            // One that cannot be finished now may be finished later, by what it prepared.
            let needed = self.unfinished(None).await?;
            let is_needed = |table: &str| needed.iter().any(|entry| entry.plan.stage.has(table));
            let own = owner();
            let (own_host, own_process) = own.split_once('_').unwrap_or_default();
            let mut count = 0;
            for row in self.client.catalog(&sql).await? {
                let mut cells = row.into_iter().map(Option::unwrap_or_default);
                let (name, is_old) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default() == "1");
                let mut parts = name[STAGE_PREFIX.len()..].split('_').skip(1);
                let (host, process) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let is_dead = host == own_host && process != own_process && !std::path::Path::new("/proc").join(process).exists();
                if !is_needed(&name) && (is_dead || (host != own_host && is_old)) {
                    self.drop_any(&Name::new(OWN_DATABASE, &name)).await?;
                    count += 1;
                }
            }
            Ok(count)
        };
        sweep.await.map_err(|error: ConnectError| during("cannot remove stage tables", error))
    }

    fn bounds(&self, data_type: &ArrowType) -> Option<(i64, i64)> {
        super::native::bounds(super::types::form_of(&plain_type(data_type), self.client.is_modern())?)
    }

    fn can_widen(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use subak_connect::{ConnectionConfig, OpenRequest, ReadRequest, conformance};
    use subak_domain::{Cursor, DataType};
    use subak_testkit::{ClickHouse, ClickHouseVersion};

    use super::*;

    async fn conform(version: ClickHouseVersion) {
        let engine = ClickHouse::start(version);
        let mut config = ConnectionConfig::default();
        config.values.insert("url".to_owned(), format!("http://127.0.0.1:{}", engine.port()));
        let request = OpenRequest { name: "ch".to_owned(), config, ..OpenRequest::default() };
        let server = Server::connect(&request).await.expect("a server");
        // By curl, not by our reader.
        let read = |table: &TableName| {
            let name = server.name_of(table);
            let known = format!(
                "select count() from system.tables where database = {} and name = {}",
                DIALECT.literal(&name.database),
                DIALECT.literal(&name.name)
            );
            if engine.sql(&known) == [[Some("0".to_owned())]] {
                return None;
            }
            let mut rows = engine.sql(&format!("select * from {}", name.quoted()));
            for cell in rows.iter_mut().flatten().flatten() {
                // Fractions of a second are always written.
                if let Some(whole) = cell.strip_suffix(".000000") {
                    *cell = whole.to_owned();
                }
            }
            rows.sort();
            Some(rows)
        };
        conformance::sink(&server, &read).await;
        conformance::writes(&server, &read).await;
        if version == ClickHouseVersion::New {
            conformance::partial_events(&server, &read).await;
            conformance::types(&server, &super::super::ClickHouse).await;
            conformance::source_types(&server, &super::super::ClickHouse, "engine = MergeTree order by id").await;
        }
        conformance::sql(&server, &read).await;
        engine.sql("create table default.src (id Int64, note String) engine = MergeTree order by tuple()");
        engine.sql("insert into default.src select number, 'x' from system.numbers limit 50000");
        engine.sql("insert into default.src select 49999, 'tie'");
        let highest = Cursor { column: "id".into(), value: "49999".into(), data_type: DataType::BigInt };
        let request = ReadRequest { stream: "default.src".into(), ..ReadRequest::default() };
        conformance::source(&server, request, &highest, 2).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms_on_the_newest_engine() {
        conform(ClickHouseVersion::New).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms_on_the_old_server() {
        conform(ClickHouseVersion::Old).await;
    }
}
