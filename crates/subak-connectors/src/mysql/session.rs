//! MySQL as staging sees it.

use std::cell::RefCell;

use arrow::datatypes::DataType as ArrowType;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use subak_connect::{ConnectError, ConnectErrorKind, Dialect, TableName};
use tokio::runtime::Handle;
use tokio::sync::{MutexGuard, watch};

use super::error::failed;
use super::publish::MARK;
use super::{DIALECT, types};
use crate::plain::plain_type;
use crate::staging::{Relation, RelationKind, Session, TextRow};

/// One connection, used from a thread that may block.
pub(super) struct MySqlSession<'a> {
    client: RefCell<MutexGuard<'a, Conn>>,
    handle: Handle,
    /// Closes when nobody waits for the work any more.
    awaited: watch::Receiver<()>,
    collation: &'static str,
    message: String,
}

impl<'a> MySqlSession<'a> {
    pub(super) fn new(
        client: MutexGuard<'a, Conn>,
        handle: &Handle,
        awaited: watch::Receiver<()>,
        collation: &'static str,
        message: String,
    ) -> Self {
        Self { client: RefCell::new(client), handle: handle.clone(), awaited, collation, message }
    }

    /// Waits for an answer of the server, unless nobody waits for the work any more.
    fn answer<T>(&self, work: impl AsyncFnOnce(&mut Conn) -> Result<T, mysql_async::Error>) -> Result<T, ConnectError> {
        let (mut client, mut awaited) = (self.client.borrow_mut(), self.awaited.clone());
        let answered = self.handle.block_on(async {
            tokio::select! {
                answered = work(&mut client) => Some(answered),
                _closed = awaited.changed() => None,
            }
        });
        match answered {
            Some(answered) => answered.map_err(|error| failed(&self.message, &error)),
            None => Err(ConnectError::new(ConnectErrorKind::Canceled, format!("{}: it was given up", self.message))),
        }
    }

    fn texts(&self, sql: &str) -> Result<Vec<TextRow>, ConnectError> {
        let rows: Vec<Row> = self.answer(async |client: &mut Conn| client.query(sql).await)?;
        let text = |value: Value| match value {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Value::NULL => None,
            other => Some(other.as_sql(true)),
        };
        let line = |row: Row| {
            let names: Vec<String> = row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
            names.into_iter().zip(row.unwrap().into_iter().map(text)).collect()
        };
        Ok(rows.into_iter().map(line).collect())
    }

    /// The definitions of a table's keys and indexes.
    pub(super) fn indexes(&self, table: &TableName) -> Result<Vec<String>, ConnectError> {
        let shown = self.catalog(&format!("show create table {}", DIALECT.table(table)))?;
        let text = shown.into_iter().next().and_then(|row| row.into_iter().nth(1)).unwrap_or_default();
        let is_index = |line: &&str| {
            ["KEY ", "UNIQUE KEY ", "PRIMARY KEY ", "FULLTEXT KEY ", "SPATIAL KEY "].iter().any(|word| line.starts_with(word))
        };
        Ok(text.lines().map(str::trim).filter(is_index).map(|line| line.trim_end_matches(',').to_owned()).collect())
    }

    /// The rows of a statement about the catalog.
    pub(super) fn catalog(&self, sql: &str) -> Result<Vec<Vec<String>>, ConnectError> {
        let rows = self.texts(sql)?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(|(_, value)| value.unwrap_or_default()).collect()).collect())
    }
}

/// The condition that finds a table in a view of the catalog.
fn is_table(table: &TableName, schema_column: &str, name_column: &str) -> String {
    let schema = table.schema.as_deref().map_or_else(|| "database()".to_owned(), |schema| DIALECT.literal(schema));
    format!("{schema_column} = {schema} and {name_column} = {}", DIALECT.literal(&table.name))
}

impl Session for MySqlSession<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn execute(&self, sql: &str) -> Result<u64, ConnectError> {
        self.answer(async |client: &mut Conn| {
            client.query_drop(sql).await?;
            Ok(client.affected_rows())
        })
    }

    fn rows(&self, sql: &str, count_max: usize) -> Result<Vec<TextRow>, ConnectError> {
        if count_max == usize::MAX {
            return self.texts(sql);
        }
        // Behind the query itself: inside of another one its order would be lost.
        self.texts(&format!("{sql}\nlimit {count_max}"))
    }

    fn relation(&self, table: &TableName) -> Result<Option<Relation>, ConnectError> {
        let kinds = self.catalog(&format!(
            "select table_type from information_schema.tables where {}",
            is_table(table, "table_schema", "table_name")
        ))?;
        let Some(kind) = kinds.into_iter().flatten().next() else { return Ok(None) };
        let columns = self.catalog(&format!(
            "select column_name, column_type, coalesce(collation_name, '') from information_schema.columns where {} order by ordinal_position",
            is_table(table, "table_schema", "table_name")
        ))?;
        let column = |row: Vec<String>| {
            let [name, kind, collation] = <[String; 3]>::try_from(row).ok()?;
            Some((name, types::word(&kind, &collation)))
        };
        let kind = RelationKind::view(kind.ends_with("VIEW"));
        Ok(Some(Relation { kind, columns: columns.into_iter().filter_map(column).collect() }))
    }

    fn sql_type(&self, data_type: &ArrowType) -> Option<String> {
        types::sql_type(&plain_type(data_type), self.collation)
    }

    /// Whoever may not make schemas may still use one that is there.
    fn ensure_schema(&self, name: &str) -> Result<(), ConnectError> {
        let known = format!("select count(*) from information_schema.schemata where schema_name = {}", DIALECT.literal(name));
        if self.count(&known)? > 0 {
            return Ok(());
        }
        self.execute(&format!("create database if not exists {} character set utf8mb4", DIALECT.identifier(name)))
            .map(drop)
            .map_err(|error| match error.kind {
                ConnectErrorKind::Permission => error
                    .help(format!("create the database `{name}` and grant the user all rights on it, or the right to create it")),
                _ => error,
            })
    }

    /// Indexes. Grants hold for the name. What else hangs on a table keeps it from being swapped: see [`Session::is_bound`].
    fn keepsakes(&self, table: &TableName) -> Result<Vec<String>, ConnectError> {
        let name = DIALECT.table(table);
        Ok(self.indexes(table)?.into_iter().map(|index| format!("alter table {name} add {index}")).collect())
    }

    /// Rows are changed by deleting and inserting, and a foreign key would delete, empty or forbid what refers to them.
    fn refuse_referenced(&self, table: &TableName) -> Result<(), ConnectError> {
        let own = is_table(table, "table_schema", "table_name");
        let sql = format!(
            "select constraint_name, concat(table_schema, '.', table_name) from information_schema.key_column_usage \
             where {} and not ({own})",
            is_table(table, "referenced_table_schema", "referenced_table_name"),
        );
        let Some(row) = self.catalog(&sql)?.into_iter().next() else { return Ok(()) };
        let message = format!("rows of `{table}` cannot be replaced: the foreign key `{}` refers to them", row.join("` of `"));
        let help = "drop the foreign key, or load into a table of its own; Subak replaces rows by deleting and inserting them";
        Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help(help))
    }

    /// Triggers, constraints, partitions, defaults, comments and options are those of a table and not of its name.
    fn is_bound(&self, table: &TableName) -> Result<bool, ConnectError> {
        let own = is_table(table, "table_schema", "table_name");
        let sql = format!(
            "select (select count(*) from information_schema.triggers where {}) \
             + (select count(*) from information_schema.table_constraints where {own} and constraint_type in ('FOREIGN KEY', 'CHECK')) \
             + (select count(*) from information_schema.partitions where {own} and partition_name is not null) \
             + (select count(*) from information_schema.tables where {own} and (coalesce(engine, '') <> 'InnoDB' \
                or (coalesce(table_comment, '') <> '' and table_comment not like '{MARK}%') or table_type <> 'BASE TABLE' or coalesce(create_options, '') not in ('', 'row_format=DYNAMIC'))) \
             + (select count(*) from information_schema.columns where {own} and ((is_nullable = 'NO' and column_key <> 'PRI') \
                or coalesce(column_default, 'NULL') <> 'NULL' or coalesce(extra, '') <> '' or coalesce(column_comment, '') <> ''))",
            is_table(table, "event_object_schema", "event_object_table")
        );
        Ok(self.count(&sql)? > 0)
    }
}
