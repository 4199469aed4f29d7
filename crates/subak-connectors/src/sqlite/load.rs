//! One load: stage rows in a table of their own, then publish them in one transaction.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::{Connection as Driver, OptionalExtension, TransactionBehavior, params};
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    AuditResult, Batch, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Sink, Staged, StagedRows, TableInfo,
    TableName, blocking, convert, crash,
};
use subak_domain::schema::InvalidDataType;
use subak_domain::{CheckRule, Cursor, LoadId, WriteMode};

use super::values::{self, declared_type};
use super::{DIALECT, Database, failed, quoted, table_name};
use crate::staging::{self, Columns, Names, STAGE_PREFIX};

const STATE: &str = "
    create table if not exists _subak_cursors (
        table_name text not null primary key, column_name text not null, value text not null, data_type text not null,
        load_id text not null);
    create table if not exists _subak_loads (
        load_id text not null primary key, written integer not null, row_count integer not null, overlap_count integer not null,
        changed integer not null, cursor_column text, cursor_value text, cursor_type text,
        committed_at text not null default current_timestamp);";

fn sql_failed(message: &str) -> impl Fn(rusqlite::Error) -> ConnectError + '_ {
    move |error| failed(ConnectErrorKind::Write, message, error)
}

fn has_table(driver: &Driver, name: &str) -> Result<bool, ConnectError> {
    let sql = "select 1 from sqlite_schema where type = 'table' and name = ? collate nocase";
    let found: Option<i64> =
        driver.query_row(sql, [name], |row| row.get(0)).optional().map_err(sql_failed("cannot read the schema"))?;
    Ok(found.is_some())
}

fn count(driver: &Driver, sql: &str) -> Result<u64, ConnectError> {
    let number: i64 = driver.query_row(sql, [], |row| row.get(0)).map_err(sql_failed("cannot count rows"))?;
    Ok(number.unsigned_abs())
}

fn columns_of(driver: &Driver, table: &str) -> Result<Vec<(String, String)>, ConnectError> {
    let read = || -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = driver.prepare("select name, type from pragma_table_xinfo(?) where hidden <> 1")?;
        statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    read().map_err(sql_failed("cannot read the schema"))
}

fn names_of(driver: &Driver, table: &str) -> Result<Vec<String>, ConnectError> {
    Ok(columns_of(driver, table)?.into_iter().map(|(name, _)| name).collect())
}

type CursorParts = (Option<String>, Option<String>, Option<String>);

fn cursor_of(parts: CursorParts) -> Result<Option<Cursor>, ConnectError> {
    let (Some(column), Some(value), Some(data_type)) = parts else { return Ok(None) };
    let data_type = data_type.parse().map_err(|error: InvalidDataType| {
        ConnectError::new(ConnectErrorKind::Internal, "the state holds a cursor of an unknown type").because(error)
    })?;
    Ok(Some(Cursor { column, value, data_type }))
}

#[async_trait]
impl Sink for Database {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let table = table.clone();
        if !self.path.exists() {
            return Ok(None);
        }
        self.with(false, move |driver| {
            let name = table_name(&table);
            if !has_table(driver, &name)? {
                return Ok(None);
            }
            let field = |(name, declared): (String, String)| {
                arrow::datatypes::Field::new(name, convert::arrow_type(declared_type(&declared)), true)
            };
            let fields: Vec<_> = columns_of(driver, &name)?.into_iter().map(field).collect();
            let mut cursor = None;
            if has_table(driver, "_subak_cursors")? {
                let sql = "select column_name, value, data_type from _subak_cursors where table_name = ?";
                let parts = driver
                    .query_row(sql, [&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .optional()
                    .map_err(sql_failed("cannot read the cursor"))?;
                cursor = parts.map(cursor_of).transpose()?.flatten();
            }
            let row_count = count(driver, &format!("select count(*) from {}", quoted(&table)))?;
            Ok(Some(TableInfo { schema: arrow::datatypes::Schema::new(fields).into(), cursor, row_count }))
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
            Ok(tables.into_iter().filter(|table| known.contains(&table_name(table).to_lowercase())).collect())
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let load = load.clone();
        if !self.path.exists() {
            return Ok(None);
        }
        self.with(false, move |driver| {
            if !has_table(driver, "_subak_loads")? {
                return Ok(None);
            }
            let sql = "select written, row_count, overlap_count, changed, cursor_column, cursor_value, cursor_type \
                       from _subak_loads where load_id = ?";
            let row = driver
                .query_row(sql, [load.as_str()], |row| {
                    let numbers: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
                    let parts: CursorParts = (row.get(4)?, row.get(5)?, row.get(6)?);
                    Ok((numbers, row.get::<_, bool>(3)?, parts))
                })
                .optional()
                .map_err(sql_failed("cannot read the ledger of loads"))?;
            let Some(([written, row_count, overlap_count], changed, parts)) = row else { return Ok(None) };
            let [written, row_count, overlap_count] = [written, row_count, overlap_count].map(i64::unsigned_abs);
            Ok(Some(Committed { written, row_count, overlap_count, changed, cursor: cursor_of(parts)? }))
        })
        .await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                ConnectError::io(ConnectErrorKind::Unavailable, format!("cannot make the folder `{}`", folder.display()), error)
            })?;
        }
        let stage = Stage { database: self.clone(), table: format!("{STAGE_PREFIX}{}", request.load.tag()), is_done: false };
        let (table, schema) = (stage.table.clone(), request.schema.clone());
        self.with(true, move |driver| {
            let column = |field: &arrow::datatypes::FieldRef| {
                let refused = || {
                    ConnectError::new(
                        ConnectErrorKind::ValueMisfit,
                        format!("SQLite has no exact type for column `{}`", field.name()),
                    )
                    .help(format!("declare it under `columns:`, for example `{}: text`", field.name()))
                };
                Ok(format!("{} {}", DIALECT.identifier(field.name()), values::sql_type(field.data_type()).ok_or_else(refused)?))
            };
            let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, ConnectError>>()?.join(", ");
            let table = DIALECT.identifier(&table);
            let sql = format!("{STATE} drop table if exists {table}; create table {table} ({columns});");
            driver.execute_batch(&sql).map_err(sql_failed("cannot make a stage table"))
        })
        .await?;
        crash::point("load_begun");
        Ok(Box::new(SqliteLoad { stage, request }))
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

/// A stage table. Dropped with the value unless it was published.
struct Stage {
    database: Database,
    table: String,
    is_done: bool,
}

impl Drop for Stage {
    /// Best effort: what stays behind is found by `clean_up`.
    fn drop(&mut self) {
        if !self.is_done
            && let Ok(driver) = self.database.open_to_write()
        {
            drop(driver.execute_batch(&format!("drop table if exists {}", DIALECT.identifier(&self.table))));
        }
    }
}

struct SqliteLoad {
    stage: Stage,
    request: LoadRequest,
}

#[async_trait]
impl Load for SqliteLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        let (database, table) = (self.stage.database.clone(), self.stage.table.clone());
        blocking::run(move || {
            let mut driver = database.open_to_write()?;
            let message = sql_failed("cannot stage rows");
            let transaction = driver.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&message)?;
            insert(&transaction, &table, &batch)?;
            transaction.commit().map_err(&message)?;
            crash::point("batch_staged");
            Ok(())
        })
        .await
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let Self { stage, request } = *self;
        let (database, table) = (stage.database.clone(), stage.table.clone());
        let (request, prepared) = blocking::run(move || {
            let driver = database.open_to_write()?;
            let prepared = prepare(&driver, &table, &request)?;
            Ok((request, prepared))
        })
        .await?;
        crash::point("rows_staged");
        Ok(Box::new(SqliteStaged { stage, request, prepared }))
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

/// What is known about the stage once it is complete.
#[derive(Clone)]
struct Prepared {
    names: Names,
    columns: Columns,
    is_there: bool,
    staged_count: u64,
    overlap_count: u64,
    changed: bool,
}

fn prepare(driver: &Driver, stage: &str, request: &LoadRequest) -> Result<Prepared, ConnectError> {
    let target = table_name(&request.table);
    let names = Names { stage: DIALECT.identifier(stage), target: DIALECT.identifier(&target) };
    let is_there = has_table(driver, &target)?;
    let columns = Columns { stage: names_of(driver, stage)?, target: is_there.then(|| names_of(driver, &target)).transpose()? };
    if request.has_unique_key {
        refuse_bad_keys(driver, &names, request)?;
    }
    let mut overlap_count = 0;
    if is_there && request.mode != WriteMode::Replace {
        refuse_changed_types(driver, stage, &target)?;
    }
    let overlap = staging::drop_overlap(&DIALECT, &names, request, &columns).map_err(|column| {
        ConnectError::new(ConnectErrorKind::Config, format!("a column named `{column}` hides the number of a row"))
            .help("rename the column in the source")
    })?;
    if let Some(sql) = overlap {
        overlap_count = driver.execute(&sql, []).map_err(sql_failed("cannot compare staged rows with the table"))? as u64;
    }
    let mut staged_count = count(driver, &format!("select count(*) from {}", names.stage))?;
    let has_other_types = is_there && columns_of(driver, stage)? != columns_of(driver, &target)?;
    let changed = match (request.mode, staging::count_differences(&DIALECT, &names, &columns)) {
        _ if !is_there => true,
        (WriteMode::Replace, Some(sql)) => {
            let held_count = count(driver, &format!("select count(*) from {}", names.target))?;
            has_other_types || held_count != staged_count || count(driver, &sql)? > 0
        }
        (WriteMode::Replace, None) => true,
        (WriteMode::Append | WriteMode::Merge, _) => staged_count > 0,
    };
    if !changed && request.mode == WriteMode::Replace {
        // Every row is there already: nothing will be written.
        overlap_count = std::mem::take(&mut staged_count);
    }
    Ok(Prepared { names, columns, is_there, staged_count, overlap_count, changed })
}

/// Refuses a load whose columns have other types than the table's: SQLite would convert values by the table's without a word.
fn refuse_changed_types(driver: &Driver, stage: &str, target: &str) -> Result<(), ConnectError> {
    let held = columns_of(driver, target)?;
    for (name, arriving) in columns_of(driver, stage)? {
        if let Some((_, held)) = held.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name))
            && !held.eq_ignore_ascii_case(&arriving)
        {
            return Err(staging::type_changed(target, &name, held, &arriving));
        }
    }
    Ok(())
}

fn refuse_bad_keys(driver: &Driver, names: &Names, request: &LoadRequest) -> Result<(), ConnectError> {
    let sql = format!("{} limit 1", staging::bad_keys(&DIALECT, names, &request.primary_key));
    let read = |row: &rusqlite::Row<'_>| {
        let parts: rusqlite::Result<Vec<String>> = request
            .primary_key
            .iter()
            .enumerate()
            .map(|(at, name)| {
                Ok(format!("{name}={}", values::text_of(row.get_ref(at + 2)?).unwrap_or_else(|| "NULL".to_owned())))
            })
            .collect();
        Ok((row.get::<_, bool>(0)?, parts?.join(", ")))
    };
    let found = driver.query_row(&sql, [], read).optional().map_err(sql_failed("cannot check the keys"))?;
    let Some((is_null, key)) = found else { return Ok(()) };
    Err(staging::bad_key_error(request, is_null, &key))
}

struct SqliteStaged {
    stage: Stage,
    request: LoadRequest,
    prepared: Prepared,
}

impl SqliteStaged {
    fn statements(&self) -> Vec<String> {
        let Prepared { names, columns, is_there, changed, .. } = &self.prepared;
        let drop_stage = format!("drop table {}", names.stage);
        if !changed {
            return vec![drop_stage];
        }
        if self.request.mode == WriteMode::Replace || !is_there {
            let drop_target = format!("drop table if exists {}", names.target);
            return vec![drop_target, format!("alter table {} rename to {}", names.stage, names.target)];
        }
        let add = |column: &&String| {
            let data_type =
                self.request.schema.field_with_name(column).ok().and_then(|field| values::sql_type(field.data_type()));
            format!("alter table {} add column {} {}", names.target, DIALECT.identifier(column), data_type.unwrap_or_default())
        };
        let added: Vec<String> = columns.added().iter().map(add).collect();
        added.into_iter().chain(staging::carry_over(&DIALECT, names, &self.request, columns)).chain([drop_stage]).collect()
    }
}

#[async_trait]
impl Staged for SqliteStaged {
    fn rows(&self) -> StagedRows {
        StagedRows { written: self.prepared.staged_count, overlap: self.prepared.overlap_count }
    }

    async fn audit(&mut self, rule: &CheckRule) -> Result<AuditResult, ConnectError> {
        let preview = staging::preview(&DIALECT, &self.prepared.names, &self.request, &self.prepared.columns);
        let (database, rule) = (self.stage.database.clone(), rule.clone());
        blocking::run(move || audit(&database.open_to_read()?, &preview, &rule)).await
    }

    async fn publish(mut self: Box<Self>, cursor: Option<Cursor>) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let statements = self.statements();
        let (database, load) = (self.stage.database.clone(), self.request.load.clone());
        let (target, prepared) = (table_name(&self.request.table), self.prepared.clone());
        let is_cursor_kept = self.request.mode != WriteMode::Replace;
        let committed = blocking::run(move || {
            let mut driver = database.open_to_write()?;
            let message = format!("cannot publish `{target}`");
            let message = sql_failed(&message);
            driver.pragma_update(None, "synchronous", "full").map_err(&message)?;
            // A view on the table would forbid its swap otherwise.
            driver.pragma_update(None, "legacy_alter_table", true).map_err(&message)?;
            let transaction = driver.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&message)?;
            for statement in &statements {
                transaction.execute_batch(statement).map_err(&message)?;
            }
            let row_count = count(&transaction, &format!("select count(*) from {}", prepared.names.target))?;
            let committed = Committed {
                written: prepared.staged_count,
                row_count,
                overlap_count: prepared.overlap_count,
                changed: prepared.changed,
                cursor,
            };
            write_state(&transaction, &load, &target, &committed, is_cursor_kept).map_err(&message)?;
            crash::point("inside_publish");
            transaction.commit().map_err(&message)?;
            crash::point("after_publish");
            Ok(committed)
        })
        .await?;
        self.stage.is_done = true;
        Ok(committed)
    }
}

fn audit(driver: &Driver, preview: &str, rule: &CheckRule) -> Result<AuditResult, ConnectError> {
    let query = DIALECT.bad_rows(rule, preview);
    let bad_row_count = count(driver, &format!("select count(*) from (\n{query}\n)"))?;
    let row_count = Some(count(driver, &format!("select count(*) from {preview}"))?);
    let sample = || -> rusqlite::Result<Vec<String>> {
        let mut statement = driver.prepare(&format!("select * from (\n{query}\n) limit {SAMPLE_ROW_COUNT_MAX}"))?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let line = |row: &rusqlite::Row<'_>| {
            let parts: rusqlite::Result<Vec<String>> = names
                .iter()
                .enumerate()
                .map(|(at, name)| {
                    Ok(format!("{name}={}", values::text_of(row.get_ref(at)?).unwrap_or_else(|| "NULL".to_owned())))
                })
                .collect();
            Ok(parts?.join(", "))
        };
        statement.query_map([], line)?.collect()
    };
    let sample = if bad_row_count > 0 { sample().map_err(sql_failed("cannot read bad rows"))? } else { Vec::new() };
    Ok(AuditResult { bad_row_count, row_count, sample })
}

fn write_state(driver: &Driver, load: &LoadId, table: &str, committed: &Committed, is_cursor_kept: bool) -> rusqlite::Result<()> {
    let cursor = committed.cursor.as_ref();
    if cursor.is_some() || !is_cursor_kept {
        driver.execute("delete from _subak_cursors where table_name = ?", [table])?;
    }
    if let Some(cursor) = cursor {
        driver.execute(
            "insert into _subak_cursors values (?, ?, ?, ?, ?)",
            params![table, cursor.column, cursor.value, cursor.data_type.to_string(), load.as_str()],
        )?;
    }
    let number = |count: u64| count.cast_signed();
    driver.execute(
        "insert into _subak_loads (load_id, written, row_count, overlap_count, changed, cursor_column, cursor_value, cursor_type) \
         values (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            load.as_str(),
            number(committed.written),
            number(committed.row_count),
            number(committed.overlap_count),
            committed.changed,
            cursor.map(|cursor| cursor.column.as_str()),
            cursor.map(|cursor| cursor.value.as_str()),
            cursor.map(|cursor| cursor.data_type.to_string()),
        ],
    )?;
    Ok(())
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
            let mut statement = driver.prepare(&format!("select * from {}", quoted(table))).ok()?;
            let width = statement.column_count();
            let line = |row: &rusqlite::Row<'_>| (0..width).map(|at| Ok(values::text_of(row.get_ref(at)?))).collect();
            let mut rows: conformance::Rows = statement.query_map([], line).ok()?.collect::<rusqlite::Result<_>>().ok()?;
            rows.sort();
            Some(rows)
        };
        conformance::sink(&database, &read).await;

        let driver = Driver::open(&database.path).expect("open");
        let rows = "create table src (id integer primary key, at datetime, amount decimal(10,2), note text);
                    with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000)
                    insert into src select i, datetime('2025-01-01', (i / 2) || ' seconds'), i + 0.25, null from n;";
        driver.execute_batch(rows).expect("rows");
        let highest =
            Cursor { column: "at".into(), value: "2025-01-01 05:33:20".into(), data_type: subak_domain::DataType::DateTime };
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
        let request = LoadRequest {
            load: LoadId::new(run, &subak_domain::StepId::check("x"), "1"),
            table: TableName { schema: None, name: "t".into() },
            schema: rows.schema(),
            mode: WriteMode::Append,
            has_unique_key: false,
            primary_key: Vec::new(),
            overlap: None,
        };
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
            let from = Cursor { column: column.into(), value: from.into(), data_type };
            let bound = subak_connect::source::CursorBound { column: column.into(), from: Some(from) };
            let columns = [(column.to_owned(), data_type)].into();
            let request = ReadRequest { stream: "t".into(), cursor: Some(bound), columns, ..ReadRequest::default() };
            let (batches, highest) = conformance::read_all(&database, request).await.expect("read");
            assert_eq!(batches.iter().map(Batch::row_count).sum::<usize>(), 2, "{column}");
            let expect = if column == "seq" { "100" } else { "2025-01-01 18:00:00" };
            assert_eq!(highest.map(|cursor| cursor.value).as_deref(), Some(expect), "{column}");
        }
    }
}
