//! Reading tables, views and queries.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Row};
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, ConnectError, ConnectErrorKind, CursorBound, Dialect, ReadRequest, Source,
    SourceItem, SqlBackend, Staged, StreamInfo, TableName, blocking, convert,
};
use subak_domain::{Cursor, DataType};

use super::decode::Decoder;
use super::error::failed;
use super::load::MySqlStaged;
use super::session::MySqlSession;
use super::types::{Form, ReadColumn, catalog_type, schema_of};
use super::wire::Wire;
use super::{DIALECT, Database};
use crate::parts::{self, Keeping};
use crate::staging;

/// Refuses columns that are not those that were described before: their values would be taken for something else.
fn refuse_others(described: &[Column], found: &[Column], message: &str) -> Result<(), ConnectError> {
    // What decides how a value is read; lengths and other flags may differ between a statement and its rows.
    let read_as = |column: &Column| match ReadColumn::new(column, None).own {
        Form::Decimal { scale, .. } => Form::Decimal { precision: 0, scale },
        Form::SpanText { .. } => Form::SpanText { digits: 0 },
        form => form,
    };
    let is_same = |one: &Column, other: &Column| one.name_ref() == other.name_ref() && read_as(one) == read_as(other);
    if described.len() == found.len() && described.iter().zip(found).all(|(one, other)| is_same(one, other)) {
        return Ok(());
    }
    let text = format!("{message}: its columns changed while it was read");
    Err(ConnectError::new(ConnectErrorKind::SchemaChanged, text).help("run it again"))
}

/// Runs a prepared query and hands over batches; at least one, which may be empty.
async fn select<T>(
    wire: &mut Wire,
    columns: Vec<ReadColumn>,
    (statement, described): (u32, &[Column]),
    message: &str,
    producer: &Producer<T>,
    item: impl Fn(Batch) -> Result<T, ConnectError>,
) -> Result<(), Stopped> {
    let running = wire.run(statement).await.map_err(|error| failed(message, &error))?;
    // The server prepares anew when the table has changed since.
    refuse_others(described, &running, message)?;
    let mut decoder = Decoder::new(columns);
    while let Some(row) = wire.row().await.map_err(|error| failed(message, &error))? {
        if let Some(batch) = decoder.take(row)? {
            producer.send_async(item(batch)?).await?;
        }
    }
    if let Some(batch) = decoder.end()? {
        producer.send_async(item(batch)?).await?;
    }
    wire.quit().await;
    Ok(())
}

/// The schema and the table of a stream as the catalog is asked for them.
fn place_of(stream: &str) -> (String, String) {
    match stream.split_once('.') {
        Some((schema, table)) => (DIALECT.literal(schema), DIALECT.literal(table)),
        None => ("database()".to_owned(), DIALECT.literal(stream)),
    }
}

/// What is selected from a table: all columns, those too that `*` leaves out.
async fn everything(client: &mut Conn, stream: &str, message: &str) -> Result<String, ConnectError> {
    let (schema, table) = place_of(stream);
    let sql = format!(
        "select column_name from information_schema.columns where table_schema = {schema} and table_name = {table} \
         and extra like '%INVISIBLE%' order by ordinal_position"
    );
    let hidden: Vec<String> = client.query(sql).await.map_err(|error| failed(message, &error))?;
    if hidden.is_empty() {
        return Ok("*".to_owned());
    }
    let mut list = "t.*".to_owned();
    for name in hidden {
        list.push_str(", t.");
        list.push_str(&DIALECT.identifier(&name));
    }
    Ok(list)
}

/// A bound as the server compares it: numbers as numbers, times as it writes them. `None` for types that are compared here.
fn literal(form: Form, cursor: &Cursor) -> Option<String> {
    match form {
        Form::Int8 | Form::Int16 | Form::Int32 | Form::Int64 => cursor.value.parse::<i64>().ok().map(|number| number.to_string()),
        Form::UInt8 | Form::UInt16 | Form::UInt32 | Form::UInt64 => {
            cursor.value.parse::<i128>().ok().map(|number| number.to_string())
        }
        Form::Decimal { .. } => {
            let is_number = cursor.value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
            is_number.then(|| cursor.value.clone())
        }
        Form::Date => Some(format!("date{}", DIALECT.literal(&cursor.value))),
        Form::DateTime | Form::Timestamp => {
            let mut wall = cursor.value.trim_end_matches('Z').replace('T', " ");
            if !wall.contains(' ') {
                // The server takes no day for a time.
                wall.push_str(" 00:00:00");
            }
            Some(format!("timestamp{}", DIALECT.literal(&wall)))
        }
        _ => None,
    }
}

/// The bounds as a `where` clause; empty where the server's order is not ours.
fn condition(bound: &CursorBound, column: &ReadColumn, declared: Option<DataType>) -> String {
    let own = convert::logical_type(schema_of(std::slice::from_ref(column)).field(0).data_type());
    let bounds = [&bound.from, &bound.to];
    let is_pushed = column.form == column.own
        && declared.is_none_or(|declared| declared == own)
        && bounds.into_iter().flatten().all(|cursor| literal(column.form, cursor).is_some());
    if !is_pushed {
        return String::new();
    }
    let quoted = format!("t.{}", DIALECT.identifier(&bound.column));
    let mut condition =
        bound.condition(&quoted, |value, word| format!("{quoted} {word} {}", literal(column.form, value).unwrap_or_default()));
    if matches!(column.form, Form::Date | Form::DateTime | Form::Timestamp) && !condition.is_empty() && !bound.without_nulls {
        // Zero dates stand below everything and have no value that a cursor could stand on: like NULL they come each time.
        // Those with a year sort inside it.
        condition.push_str(&format!(" or {quoted} < '0001-01-01'"));
    }
    condition
}

/// The whole numbers between which a table is taken apart, and the column of its key that has them.
async fn key_range(client: &mut Conn, stream: &str, message: &str) -> Result<Option<(String, i128, i128)>, ConnectError> {
    let (schema, table) = place_of(stream);
    let sql = format!(
        "select k.column_name from information_schema.key_column_usage as k join information_schema.columns as c on c.table_schema = k.table_schema \
         and c.table_name = k.table_name and c.column_name = k.column_name where k.table_schema = {schema} and k.table_name = {table} \
         and k.constraint_name = 'PRIMARY' and k.ordinal_position = 1 and c.data_type in ('tinyint', 'smallint', 'mediumint', 'int', 'bigint') \
         and exists (select 1 from information_schema.tables as b where b.table_schema = k.table_schema and b.table_name = k.table_name and b.engine = 'InnoDB')"
    );
    let key: Option<String> = client.query_first(sql).await.map_err(|error| failed(message, &error))?;
    let Some(key) = key else {
        let text = format!(
            "{message}: `ranges` are parts of an InnoDB table by a primary key that begins with a whole number, and this is none"
        );
        return Err(ConnectError::new(ConnectErrorKind::Config, text).help("remove `ranges:`"));
    };
    let quoted = DIALECT.identifier(&key);
    let sql = format!("select cast(min({quoted}) as char), cast(max({quoted}) as char) from {}", DIALECT.stream(stream));
    let bounds: Option<(Option<String>, Option<String>)> =
        client.query_first(sql).await.map_err(|error| failed(message, &error))?;
    let parsed = bounds.and_then(|(low, high)| Some((low?.parse().ok()?, high?.parse().ok()?)));
    Ok(parsed.map(|(low, high)| (key, low, high)))
}

/// Conditions that each row of a table meets one of.
fn ranges(key: &str, low: i128, high: i128, count: usize) -> Vec<String> {
    let count = i128::try_from(count).unwrap_or(1).min(high - low + 1);
    let column = format!("t.{}", DIALECT.identifier(key));
    parts::ranges(&column, count, |at| (low + (high - low + 1) * at / count).to_string())
}

/// A connection that is set up to read.
async fn reader(database: &Database, message: &str) -> Result<Wire, ConnectError> {
    let mut wire = database.wire().await?;
    for sql in ["set session sql_mode = ''", "set session transaction isolation level repeatable read"] {
        wire.execute(sql).await.map_err(|error| failed(message, &error))?;
    }
    Ok(wire)
}

/// What is read is one state of the stream, and nothing is changed by reading it.
const BEGIN: &str = "start transaction with consistent snapshot, read only";

/// Seconds that writers of a table wait at most while the parts of a read begin, and that those wait for writers.
const LOCK_SECONDS: u32 = 30;

/// Connections that see the same state of a table: nobody writes to it while they begin.
async fn sharing(database: &Database, stream: &str, count: usize, message: &str) -> Result<Vec<Wire>, ConnectError> {
    let mut wires = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        wires.push(reader(database, message).await?);
    }
    if count < 2 {
        for wire in &mut wires {
            wire.execute(BEGIN).await.map_err(|error| failed(message, &error))?;
        }
        return Ok(wires);
    }
    let mut lock = database.wire().await?;
    // A server that hears nothing more of us lets go by itself.
    let bounds = format!("set session lock_wait_timeout = {LOCK_SECONDS}, wait_timeout = {LOCK_SECONDS}");
    lock.execute(&bounds).await.map_err(|error| failed(message, &error))?;
    let sql = format!("lock tables {} read", DIALECT.stream(stream));
    lock.execute(&sql).await.map_err(|error| {
        failed(message, &error)
            .help("`ranges` needs the right `lock tables`, so that all parts are of one state; grant it, or remove `ranges:`")
    })?;
    for wire in &mut wires {
        wire.execute(BEGIN).await.map_err(|error| failed(message, &error))?;
    }
    lock.execute("unlock tables").await.map_err(|error| failed(message, &error))?;
    Ok(wires)
}

/// The clause for the bounds of a cursor.
fn bounded(request: &ReadRequest, columns: &[ReadColumn]) -> Result<String, ConnectError> {
    let Some(bound) = &request.cursor else { return Ok(String::new()) };
    let Some(column) = columns.iter().find(|column| column.name == bound.column) else {
        return Err(convert::missing_column(&bound.column, &schema_of(columns)));
    };
    Ok(condition(bound, column, request.columns.get(&bound.column).copied()))
}

async fn read_stream(database: Database, request: ReadRequest, producer: Producer<SourceItem>) -> Result<(), Stopped> {
    let message = format!("cannot read `{}`", request.stream);
    let count = request.range_count()?;
    let (mut list, mut parts_of) = ("*".to_owned(), vec![String::new()]);
    if !request.has_query() {
        let mut client = database.client().await?;
        list = everything(&mut client, &request.stream, &message).await?;
        if count > 1
            && let Some((key, low, high)) = key_range(&mut client, &request.stream, &message).await?
        {
            parts_of = ranges(&key, low, high, count);
        }
    }
    let wires = sharing(&database, &request.stream, parts_of.len(), &message).await?;
    let keeping = Keeping::new(request.clone());
    let mut parts = Vec::with_capacity(parts_of.len());
    for (mut wire, range) in wires.into_iter().zip(&parts_of) {
        let range = Some(range.as_str()).filter(|range| !range.is_empty());
        let relation = request.part(&DIALECT, &list, range)?;
        let mut sql = format!("select t.* from {relation} as t");
        let (mut statement, mut described) = wire.prepare(&sql).await.map_err(|error| {
            let mut error = failed(&message, &error);
            if error.kind == ConnectErrorKind::NotFound {
                error.message = format!("there is no stream `{}`", request.stream);
            }
            error
        })?;
        let count = described.len();
        described = request.needed(described, |column| std::str::from_utf8(column.name_ref()).unwrap_or_default());
        if described.len() < count {
            let names =
                described.iter().map(|column| format!("t.{}", DIALECT.identifier(&column.name_str()))).collect::<Vec<_>>();
            sql = format!("select {} from {relation} as t", names.join(", "));
            (statement, described) = wire.prepare(&sql).await.map_err(|error| failed(&message, &error))?;
        }
        let declared = |name: &str| request.columns.get(name).copied();
        let columns: Vec<ReadColumn> =
            described.iter().map(|column| ReadColumn::new(column, declared(&column.name_str()))).collect();
        let condition = bounded(&request, &columns)?;
        if !condition.is_empty() {
            let prepared = wire.prepare(&format!("{sql}{condition}")).await;
            let (bounded, same) = prepared.map_err(|error| failed(&message, &error))?;
            refuse_others(&described, &same, &message)?;
            statement = bounded;
        }
        let (keeping, message, producer) = (keeping.clone(), message.clone(), producer.clone());
        parts.push(async move {
            select(&mut wire, columns, (statement, &described), &message, &producer, |batch| keeping.item(batch)).await
        });
    }
    parts::all(parts).await?;
    for item in keeping.items() {
        producer.send_async(item).await?;
    }
    Ok(())
}

#[async_trait]
impl Source for Database {
    /// Lists the tables and views of every database but the server's own and ours.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let mut client = self.client().await?;
        let message = "cannot list tables";
        let sql = "select concat(c.table_schema, '.', c.table_name), c.column_name, lower(c.data_type), lower(c.column_type), \
                   c.numeric_precision, c.numeric_scale, coalesce(k.ordinal_position, 0) from information_schema.columns as c \
                   left join information_schema.key_column_usage as k on k.table_schema = c.table_schema and k.table_name = c.table_name \
                   and k.column_name = c.column_name and k.constraint_name = 'PRIMARY' \
                   where c.table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys', '_subak') \
                   and c.table_name not like '\\_\\_subak\\_%' order by c.table_schema, c.table_name, c.ordinal_position";
        let rows: Vec<Row> = client.query(sql).await.map_err(|error| failed(message, &error))?;
        let mut streams: Vec<StreamInfo> = Vec::new();
        let mut keys: BTreeMap<u64, String> = BTreeMap::new();
        for mut row in rows {
            let text = |row: &mut Row, at: usize| row.take::<Option<String>, _>(at).flatten().unwrap_or_default();
            let [name, column, word, whole] = [0, 1, 2, 3].map(|at| text(&mut row, at));
            let number = |row: &mut Row, at: usize| row.take::<Option<u64>, _>(at).flatten();
            let [precision, scale] = [4, 5].map(|at| number(&mut row, at).and_then(|number| u8::try_from(number).ok()));
            let key = number(&mut row, 6).unwrap_or(0);
            if streams.last().is_none_or(|stream| stream.name != name) {
                keys.clear();
                streams.push(StreamInfo { name, columns: Vec::new(), primary_key: Vec::new() });
            }
            let Some(stream) = streams.last_mut() else { continue };
            if key > 0 {
                keys.insert(key, column.clone());
                stream.primary_key = keys.values().cloned().collect();
            }
            stream.columns.push(subak_domain::Column { name: column, data_type: catalog_type(&word, &whole, precision, scale) });
        }
        Ok(streams)
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let database = self.clone();
        blocking::produce_async(move |producer| read_stream(database, request, producer))
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        self.client().await.map(drop)
    }
}

#[async_trait]
impl SqlBackend for Database {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn describe_query(&self, sql: &str) -> Result<Vec<subak_domain::Column>, ConnectError> {
        self.writer().await?.columns_of(sql, "the query cannot be described").await
    }

    async fn build(&self, request: BuildRequest) -> Result<Box<dyn Staged>, ConnectError> {
        Ok(Box::new(MySqlStaged::build(self, request).await?))
    }

    async fn audit(&self, table: Option<&TableName>, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (table, audit) = (table.map(|table| DIALECT.table(table)), audit.clone());
        let work = move |session: &MySqlSession<'_>| staging::audit(session, table.as_deref(), &audit, SAMPLE_ROW_COUNT_MAX);
        self.writer().await?.with("the check cannot be evaluated".to_owned(), work).await
    }

    fn query(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let (database, sql) = (self.clone(), sql.to_owned());
        blocking::produce_async(move |producer: Producer<RecordBatch>| async move {
            let message = "the query failed";
            let mut wire = database.querier().await?;
            let (statement, described) = wire.prepare(&sql).await.map_err(|error| failed(message, &error))?;
            let columns = described.iter().map(|column| ReadColumn::new(column, None)).collect();
            select(&mut wire, columns, (statement, &described), message, &producer, |batch| Ok(batch.records)).await
        })
    }
}

#[cfg(test)]
mod tests {
    use subak_connect::{ConnectionConfig, OpenRequest, conformance};
    use subak_domain::Secret;
    use subak_testkit::{MARIADB_PASSWORD, MARIADB_USER, MariaDb};

    use super::*;

    fn database(server: &MariaDb) -> Database {
        let mut config = ConnectionConfig::default();
        for (key, value) in [("host", "127.0.0.1"), ("database", "subak"), ("user", MARIADB_USER)] {
            config.values.insert(key.to_owned(), value.to_owned());
        }
        config.values.insert("port".to_owned(), server.port().to_string());
        config.secrets.insert("password".to_owned(), Secret::new(MARIADB_PASSWORD));
        Database::new(&OpenRequest { name: "shop".to_owned(), config, ..OpenRequest::default() }).expect("a configuration")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        let server = MariaDb::start();
        let database = database(&server);
        // By the server's client, not by our reader.
        let read = |table: &TableName| {
            let schema = table.schema.as_deref().unwrap_or("subak");
            let known = format!(
                "select 1 from information_schema.tables where table_schema = {} and table_name = {}",
                DIALECT.literal(schema),
                DIALECT.literal(&table.name)
            );
            if server.sql(&known).is_empty() {
                return None;
            }
            let mut rows = server.sql(&format!("select * from {}", DIALECT.table(table)));
            // The server shows all six digits of a second.
            for cell in rows.iter_mut().flatten().flatten() {
                *cell = cell.trim_end_matches(".000000").to_owned();
            }
            rows.sort();
            Some(rows)
        };
        conformance::sink(&database, &read).await;
        conformance::types(&database, &super::super::MySql).await;
        conformance::source_types(&database, &super::super::MySql, "").await;
        conformance::writes(&database, &read).await;
        conformance::partial_events(&database, &read).await;
        conformance::sql(&database, &read).await;
        server.sql("create table src (id bigint, note text); insert into src select seq, 'x' from seq_0_to_49999 union all select 49999, 'tie'");
        let highest = Cursor { column: "id".into(), value: "49999".into(), data_type: DataType::BigInt };
        let request = ReadRequest { stream: "subak.src".into(), ..ReadRequest::default() };
        conformance::source(&database, request, &highest, 2).await;
    }
}
