//! Tables, cursors and the ledger of loads.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use duckdb::{Connection, OptionalExt, params};
use subak_connect::{Committed, ConnectError, Load, LoadRequest, Sink, TableInfo, TableName};
use subak_domain::{Cursor, LoadId};

use super::load::DuckDbLoad;
use super::{DIALECT, Database, error::failed};
use crate::staging::STAGE_PREFIX;

/// The state that lives beside the tables. Its statements change nothing where it is there already.
const STATE: &str = "
    create schema if not exists _subak;
    create table if not exists _subak.cursors (
        table_schema varchar not null, table_name varchar not null,
        column_name varchar not null, value varchar not null, data_type varchar not null, load_id varchar not null);
    create table if not exists _subak.loads (
        load_id varchar not null, written ubigint not null, row_count ubigint not null, overlap_count ubigint not null,
        changed boolean not null, cursor_column varchar, cursor_value varchar, cursor_type varchar,
        committed_at timestamptz not null default now());";

/// Makes the state tables unless they are there.
pub(super) fn ensure_state(connection: &Connection) -> Result<(), ConnectError> {
    if has_state(connection)? {
        return Ok(());
    }
    connection.execute_batch(STATE).map_err(|error| failed("cannot make the schema `_subak`", error))
}

fn has_state(connection: &Connection) -> Result<bool, ConnectError> {
    Ok(relation_kind(connection, &TableName { schema: Some("_subak".into()), name: "loads".into() })?.is_some())
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Table,
    View,
}

impl Relation {
    /// The word in `drop …`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
        }
    }
}

/// The schema of a table, with DuckDB's default filled in.
pub(super) fn schema_of(table: &TableName) -> &str {
    table.schema.as_deref().unwrap_or("main")
}

/// The quoted name.
pub(super) fn quoted(table: &TableName) -> String {
    format!("{}.{}", DIALECT.identifier(schema_of(table)), DIALECT.identifier(&table.name))
}

pub(super) fn relation_kind(connection: &Connection, table: &TableName) -> Result<Option<Relation>, ConnectError> {
    let sql = "select table_type from information_schema.tables \
               where table_catalog = current_database() and lower(table_schema) = lower(?) and lower(table_name) = lower(?)";
    let kind: Option<String> = connection
        .query_row(sql, params![schema_of(table), table.name], |row| row.get(0))
        .optional()
        .map_err(|error| failed("cannot read the catalog", error))?;
    Ok(kind.map(|kind| if kind == "VIEW" { Relation::View } else { Relation::Table }))
}

/// The names of a relation's columns, in order.
pub(super) fn column_names(connection: &Connection, table: &TableName) -> Result<Vec<String>, ConnectError> {
    let sql = "select column_name from information_schema.columns where table_catalog = current_database() \
               and lower(table_schema) = lower(?) and lower(table_name) = lower(?) order by ordinal_position";
    let read = || -> duckdb::Result<Vec<String>> {
        let mut statement = connection.prepare(sql)?;
        statement.query_map(params![schema_of(table), table.name], |row| row.get(0))?.collect()
    };
    read().map_err(|error| failed("cannot read the catalog", error))
}

/// The first column of the first row as a count.
pub(super) fn count(connection: &Connection, sql: &str) -> Result<u64, ConnectError> {
    connection.query_row(sql, [], |row| row.get(0)).map_err(|error| failed("cannot count rows", error))
}

fn read_cursor(connection: &Connection, table: &TableName) -> Result<Option<Cursor>, ConnectError> {
    if !has_state(connection)? {
        return Ok(None);
    }
    let sql = "select column_name, value, data_type from _subak.cursors where table_schema = ? and table_name = ?";
    let row: Option<(String, String, String)> = connection
        .query_row(sql, params![schema_of(table), table.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(|error| failed("cannot read the cursor", error))?;
    row.map(|(column, value, data_type)| cursor(column, value, &data_type)).transpose()
}

fn cursor(column: String, value: String, data_type: &str) -> Result<Cursor, ConnectError> {
    let data_type = data_type.parse().map_err(|error: subak_domain::schema::InvalidDataType| {
        ConnectError::new(subak_connect::ConnectErrorKind::Internal, "the state holds a cursor of an unknown type").because(error)
    })?;
    Ok(Cursor { column, value, data_type })
}

/// Writes cursor and ledger entry inside the transaction that publishes the rows. A replaced table loses the cursor it had.
pub(super) fn write_state(
    connection: &Connection,
    load: &LoadId,
    table: &TableName,
    committed: &Committed,
    is_cursor_kept: bool,
) -> duckdb::Result<()> {
    if committed.cursor.is_some() || !is_cursor_kept {
        connection.execute(
            "delete from _subak.cursors where table_schema = ? and table_name = ?",
            params![schema_of(table), table.name],
        )?;
    }
    let cursor = committed.cursor.as_ref();
    if let Some(cursor) = cursor {
        connection.execute(
            "insert into _subak.cursors values (?, ?, ?, ?, ?, ?)",
            params![schema_of(table), table.name, cursor.column, cursor.value, cursor.data_type.to_string(), load.as_str()],
        )?;
    }
    connection.execute(
        "insert into _subak.loads (load_id, written, row_count, overlap_count, changed, cursor_column, cursor_value, cursor_type) \
         values (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            load.as_str(),
            committed.written,
            committed.row_count,
            committed.overlap_count,
            committed.changed,
            cursor.map(|cursor| cursor.column.as_str()),
            cursor.map(|cursor| cursor.value.as_str()),
            cursor.map(|cursor| cursor.data_type.to_string()),
        ],
    )?;
    Ok(())
}

/// A ledger entry as it is stored.
type Row = (u64, u64, u64, bool, Option<String>, Option<String>, Option<String>);

#[async_trait]
impl Sink for Database {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let table = table.clone();
        self.with(move |connection| {
            if relation_kind(connection, &table)?.is_none() {
                return Ok(None);
            }
            let name = quoted(&table);
            let describe = || {
                let mut statement = connection.prepare(&format!("select * from {name} limit 0"))?;
                drop(statement.query_arrow([])?);
                Ok(statement.schema())
            };
            let schema = describe().map_err(|error| failed(&format!("cannot describe `{table}`"), error))?;
            let row_count = count(connection, &format!("select count(*) from {name}"))?;
            Ok(Some(TableInfo { schema, cursor: read_cursor(connection, &table)?, row_count }))
        })
        .await
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let tables = tables.to_vec();
        self.with(move |connection| {
            let sql = "select lower(table_schema), lower(table_name) from information_schema.tables \
                       where table_catalog = current_database()";
            let list = || -> duckdb::Result<BTreeSet<(String, String)>> {
                connection.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            };
            let known = list().map_err(|error| failed("cannot read the catalog", error))?;
            let is_there = |table: &TableName| known.contains(&(schema_of(table).to_lowercase(), table.name.to_lowercase()));
            Ok(tables.into_iter().filter(is_there).collect())
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let load = load.clone();
        self.with(move |connection| {
            if !has_state(connection)? {
                return Ok(None);
            }
            let sql = "select written, row_count, overlap_count, changed, cursor_column, cursor_value, cursor_type \
                       from _subak.loads where load_id = ?";
            let row: Option<Row> = connection
                .query_row(sql, params![load.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
                })
                .optional()
                .map_err(|error| failed("cannot read the ledger of loads", error))?;
            let Some((written, row_count, overlap_count, changed, column, value, data_type)) = row else { return Ok(None) };
            let cursor = match (column, value, data_type) {
                (Some(column), Some(value), Some(data_type)) => Some(cursor(column, value, &data_type)?),
                _ => None,
            };
            Ok(Some(Committed { written, row_count, overlap_count, changed, cursor }))
        })
        .await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        let database = self.clone();
        self.with(move |connection| DuckDbLoad::begin(database, connection, request).map(|load| Box::new(load) as Box<dyn Load>))
            .await
    }

    async fn clean_up(&self) -> Result<u64, ConnectError> {
        self.with(|connection| {
            let sql = "select table_schema, table_name from information_schema.tables \
                       where table_catalog = current_database() and starts_with(table_name, ?)";
            let list = || -> duckdb::Result<Vec<TableName>> {
                let mut statement = connection.prepare(sql)?;
                let rows =
                    statement.query_map([STAGE_PREFIX], |row| Ok(TableName { schema: Some(row.get(0)?), name: row.get(1)? }))?;
                rows.collect()
            };
            let leftovers = list().map_err(|error| failed("cannot list stage tables", error))?;
            for table in &leftovers {
                drop_stage(connection, table)?;
            }
            Ok(leftovers.len() as u64)
        })
        .await
    }
}

/// Removes a stage table or view if it is there.
pub(super) fn drop_stage(connection: &Connection, table: &TableName) -> Result<(), ConnectError> {
    if let Some(relation) = relation_kind(connection, table)? {
        let sql = format!("drop {} {}", relation.word(), quoted(table));
        connection.execute_batch(&sql).map_err(|error| failed(&format!("cannot drop the stage table `{table}`"), error))?;
    }
    Ok(())
}

/// The name of the stage table of a load: in the schema of its table, because DuckDB renames within a schema only.
pub(super) fn stage_table(load: &LoadId, table: &TableName) -> TableName {
    TableName { schema: Some(schema_of(table).to_owned()), name: format!("{STAGE_PREFIX}{}", load.tag()) }
}

/// Shares a database handle between the parts of one load.
pub(super) type Shared = Arc<std::sync::Mutex<Connection>>;
