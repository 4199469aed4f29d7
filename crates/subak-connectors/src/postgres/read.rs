//! Reading: tables, queries and small results.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, ConnectError, ConnectErrorKind, CursorBound, Dialect, ReadRequest, Source,
    SourceItem, SqlBackend, Staged, StreamInfo, TableName, blocking, convert,
};
use subak_domain::{Column, Cursor, DataType, StoredAs};
use tokio_postgres::Client;

use super::copy::Reader;
use super::decode::Decoder;
use super::error::failed;
use super::load::PostgresStaged;
use super::materialized::MaterializedStaged;
use super::types::{ReadColumn, schema_of};
use super::{DIALECT, Database};
use crate::parts::{self, Keeping};
use crate::staging::{self, Session};

/// What a query returns, by the declared types.
pub(super) async fn columns_of(
    client: &Client,
    sql: &str,
    declared: impl Fn(&str) -> Option<DataType>,
    message: &str,
) -> Result<Vec<ReadColumn>, ConnectError> {
    let statement = client.prepare(sql).await.map_err(|error| failed(message, &error))?;
    Ok(statement.columns().iter().map(|column| ReadColumn::new(column, declared(column.name()))).collect())
}

/// Copies the rows of `from`, which can stand behind `from`, and hands over batches; at least one, which may be empty.
async fn copy<T>(
    reader: Reader,
    columns: Vec<ReadColumn>,
    from: &str,
    message: &str,
    producer: &Producer<T>,
    item: impl Fn(Batch) -> Result<T, ConnectError>,
) -> Result<(), Stopped> {
    let list = columns.iter().map(|column| column.expression.as_str()).collect::<Vec<_>>().join(", ");
    let sql = format!("copy (select {list} from {from}) to stdout (format binary)");
    let mut pieces = reader.copy_out(&sql, message).await?;
    let mut decoder = Decoder::new(columns);
    let mut is_empty = true;
    while let Some(piece) = pieces.next().await? {
        if let Some(batch) = decoder.take(piece)? {
            is_empty = false;
            producer.send_async(item(batch)?).await?;
        }
    }
    let last = decoder.end()?;
    if let Some(batch) = last.or_else(|| is_empty.then(|| decoder.empty())) {
        producer.send_async(item(batch)?).await?;
    }
    Ok(())
}

/// What a transaction begins with that reads one state of the stream and changes nothing.
const BEGIN: &str = "begin isolation level repeatable read read only";

/// Without this a role that row-level security shows only some rows would read a quiet subset.
const EVERY_ROW: &str = "set local row_security = off";

/// Conditions that each row of a table meets one of, by where it lies. One without a condition where the table has no place for its rows, or
/// where the server would look through the whole of it for each.
async fn ranges(client: &Client, request: &ReadRequest, count: usize, message: &str) -> Result<Vec<String>, ConnectError> {
    // With partitions and children; a foreign one would show another state to each part.
    let sql = format!(
        "with recursive tree as (select {}::regclass::oid as oid union all select i.inhrelid from pg_inherits as i join tree as t on i.inhparent = t.oid), \
         known as (select c.oid, c.relkind from tree join pg_class as c using (oid)) \
         select (case when current_setting('server_version_num')::int >= 140000 and not exists (select 1 from known where relkind not in ('r', 'm', 'p')) \
         then (select max(pg_relation_size(oid)) / current_setting('block_size')::bigint from known where relkind in ('r', 'm')) end)::bigint",
        DIALECT.literal(&DIALECT.stream(&request.stream))
    );
    let row = client.query_opt(&sql, &[]).await.map_err(|error| failed(message, &error))?;
    let page_count: i64 = row.and_then(|row| row.try_get::<_, Option<i64>>(0).ok().flatten()).unwrap_or(0);
    let page_count = i128::from(page_count);
    let count = i128::try_from(count).unwrap_or(1).min(page_count.max(1));
    Ok(parts::ranges("t.ctid", count, |at| format!("'({},0)'::tid", page_count * at / count)))
}

/// Connections that see the same state as `first`, itself among them.
async fn sharing(database: &Database, first: Reader, count: usize, message: &str) -> Result<Vec<Reader>, ConnectError> {
    if count < 2 {
        return Ok(vec![first]);
    }
    let row = first.query_one("select pg_export_snapshot()", &[]).await.map_err(|error| failed(message, &error))?;
    let snapshot: String = row.try_get(0).map_err(|error| failed(message, &error))?;
    let mut readers = Vec::with_capacity(count);
    for _ in 1..count {
        let reader = database.reader().await?;
        let begin = format!("{BEGIN}; set transaction snapshot {}; {EVERY_ROW}", DIALECT.literal(&snapshot));
        reader.batch_execute(&begin).await.map_err(|error| failed(message, &error))?;
        readers.push(reader);
    }
    readers.push(first);
    Ok(readers)
}

/// The bounds as a `where` clause, where the server's order is ours; else they are tested here, over the whole table.
fn condition(bound: &CursorBound, column: &ReadColumn, declared: Option<DataType>) -> String {
    let own = convert::logical_type(schema_of(std::slice::from_ref(column)).field(0).data_type());
    let is_pushed = own != DataType::Text && !column.is_cast && declared.is_none_or(|declared| declared == own);
    let quoted = DIALECT.identifier(&bound.column);
    // A literal takes the type of the column that it is compared with.
    let test = |value: &Cursor, word: &str| format!("{quoted} {word} {}", DIALECT.literal(&value.value));
    if is_pushed { bound.condition(&quoted, test) } else { String::new() }
}

/// The column of a cursor, and the clause for its bounds.
fn bounded(request: &ReadRequest, columns: &[ReadColumn]) -> Result<String, ConnectError> {
    let Some(bound) = &request.cursor else { return Ok(String::new()) };
    let Some(column) = columns.iter().find(|column| column.name == bound.column) else {
        return Err(convert::missing_column(&bound.column, &schema_of(columns)));
    };
    let declared = request.columns.get(&bound.column).copied();
    if column.is_cast && !declared.is_some_and(|data_type| !matches!(data_type, DataType::Text | DataType::Json)) {
        let text =
            format!("the cursor column `{}` has values that travel as texts, which do not compare as they do", bound.column);
        let error = ConnectError::new(ConnectErrorKind::Config, text);
        return Err(error.help(format!("declare its type, for example `{}: decimal(38,10)`", bound.column)));
    }
    Ok(condition(bound, column, declared))
}

async fn read_stream(database: Database, request: ReadRequest, producer: Producer<SourceItem>) -> Result<(), Stopped> {
    let client = database.reader().await?;
    let message = format!("cannot read `{}`", request.stream);
    client.batch_execute(&format!("{BEGIN}; {EVERY_ROW}")).await.map_err(|error| failed(&message, &error))?;
    let table = request.relation(&DIALECT, "*")?;
    let declared = |name: &str| request.columns.get(name).copied();
    let columns =
        columns_of(&client, &format!("select * from {table} as t"), declared, &message).await.map_err(|mut error| {
            if error.kind == ConnectErrorKind::NotFound {
                error.message = format!("there is no stream `{}`", request.stream);
            }
            error
        })?;
    let columns = request.needed(columns, |column| &column.name);
    let condition = bounded(&request, &columns)?;
    let count = request.range_count()?;
    let ranges = if count > 1 { ranges(&client, &request, count, &message).await? } else { vec![String::new()] };
    let readers = sharing(&database, client, ranges.len(), &message).await?;
    let keeping = Keeping::new(request.clone());
    let mut parts = Vec::with_capacity(ranges.len());
    for (reader, range) in readers.into_iter().zip(&ranges) {
        let table = request.part(&DIALECT, "*", Some(range.as_str()).filter(|range| !range.is_empty()))?;
        let (columns, keeping, message, producer) = (columns.clone(), keeping.clone(), message.clone(), producer.clone());
        let from = format!("{table} as t{condition}");
        parts.push(async move { copy(reader, columns, &from, &message, &producer, |batch| keeping.item(batch)).await });
    }
    parts::all(parts).await?;
    for item in keeping.items() {
        producer.send_async(item).await?;
    }
    Ok(())
}

#[async_trait]
impl Source for Database {
    /// Lists the tables and views of every schema but the system's and ours.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let rows = self
            .with("cannot list tables".to_owned(), |session| {
                let sql = "select n.nspname || '.' || c.relname as name, coalesce((select string_agg(a.attname, chr(31) order by k.place) \
                           from pg_index as i cross join unnest(i.indkey) with ordinality as k(number, place) \
                           join pg_attribute as a on a.attrelid = c.oid and a.attnum = k.number where i.indrelid = c.oid and i.indisprimary), '') as key \
                           from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'f') \
                           and n.nspname not in ('pg_catalog', 'information_schema', '_subak') and n.nspname not like 'pg\\_%' \
                           and c.relname not like '\\_\\_subak\\_%' and not c.relispartition order by 1";
                session.rows(sql, usize::MAX)
            })
            .await?;
        let client = self.client().await?;
        let mut streams = Vec::with_capacity(rows.len());
        for row in rows {
            let mut values = row.into_iter().map(|(_, value)| value.unwrap_or_default());
            let (name, key) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
            let sql = format!("select * from {}", DIALECT.stream(&name));
            // A view that is broken is there all the same; its columns are not known.
            let columns = match columns_of(&client, &sql, |_| None, "cannot describe a table").await {
                Ok(columns) => convert::columns_of(&schema_of(&columns)),
                Err(_) => Vec::new(),
            };
            let primary_key = key.split('\u{1f}').filter(|column| !column.is_empty()).map(str::to_owned).collect();
            streams.push(StreamInfo { name, columns, primary_key });
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

    async fn describe_query(&self, sql: &str) -> Result<Vec<Column>, ConnectError> {
        let client = self.client().await?;
        let columns = columns_of(&client, sql, |_| None, "the query cannot be described").await?;
        Ok(convert::columns_of(&schema_of(&columns)))
    }

    async fn build(&self, request: BuildRequest) -> Result<Box<dyn Staged>, ConnectError> {
        if request.stored_as == StoredAs::MaterializedView {
            return Ok(Box::new(MaterializedStaged::build(self, request).await?));
        }
        Ok(Box::new(PostgresStaged::build(self, request).await?))
    }

    async fn audit(&self, table: Option<&TableName>, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (table, audit) = (table.map(|table| DIALECT.table(table)), audit.clone());
        self.with("the check cannot be evaluated".to_owned(), move |session| {
            staging::audit(session, table.as_deref(), &audit, SAMPLE_ROW_COUNT_MAX)
        })
        .await
    }

    fn query(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let (database, sql) = (self.clone(), sql.to_owned());
        blocking::produce_async(move |producer: Producer<RecordBatch>| async move {
            let client = database.reader().await?;
            let message = "the query failed";
            let columns = columns_of(&client, &sql, |_| None, message).await?;
            copy(client, columns, &format!("(\n{sql}\n) as q"), message, &producer, |batch| Ok(batch.records)).await
        })
    }

    fn look(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let (database, sql) = (self.clone(), sql.to_owned());
        if !self.is_read_only || !self.has_queries {
            let message = format!("people are given no queries on connection `{}`", self.name);
            let error = ConnectError::new(ConnectErrorKind::Permission, message);
            let help = "say `queries: true` on the connection, and give it a user who may do no more than people may";
            return futures::stream::once(async move { Err(error.help(help)) }).boxed();
        }
        // In a session that reads only the server refuses to write. The text is prepared by itself first, which takes one statement and no more, and then
        // stands in parentheses, where only a query can stand. What functions may do is up to the rights of the user.
        blocking::produce_async(move |producer: Producer<RecordBatch>| async move {
            let client = database.reader().await?;
            let message = "the query failed";
            client.batch_execute(LOOK_TIMEOUT).await.map_err(|error| failed(message, &error))?;
            let columns = columns_of(&client, &sql, |_| None, message).await?;
            copy(client, columns, &format!("(\n{sql}\n) as q"), message, &producer, |batch| Ok(batch.records)).await
        })
    }
}

/// How long the server works on a query of a person, also when nobody waits for it any more.
const LOOK_TIMEOUT: &str = "set statement_timeout = '10s'";

#[cfg(test)]
mod tests {
    use subak_connect::{ConnectionConfig, OpenRequest};
    use subak_domain::Secret;
    use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres};

    use super::*;

    /// N-66: what people ask can only read; the server says so, and not we.
    #[tokio::test(flavor = "multi_thread")]
    async fn n_66_queries_of_people_only_read() {
        let server = Postgres::start();
        server.sql("create table t as select 1 as id");
        let open = |is_read_only: bool| {
            let mut config = ConnectionConfig::default();
            for (key, value) in [("host", "127.0.0.1"), ("database", "subak"), ("user", POSTGRES_USER)] {
                config.values.insert(key.to_owned(), value.to_owned());
            }
            config.values.insert("port".to_owned(), server.port().to_string());
            config.secrets.insert("password".to_owned(), Secret::new(POSTGRES_PASSWORD));
            config.values.insert("queries".to_owned(), "true".to_owned());
            Database::new(&OpenRequest { name: "pg".to_owned(), config, is_read_only, ..OpenRequest::default() })
                .expect("a configuration")
        };
        let database = open(true);
        let mut batches = database.look("select id, 'x' as note from t");
        let batch = batches.next().await.expect("an answer").expect("rows");
        assert_eq!((batch.num_rows(), batch.num_columns()), (1, 2));
        for sql in [
            "insert into t values (2)",
            "insert into t values (2) returning id",
            "with a as (insert into t values (2) returning id) select * from a",
            "update t set id = 3",
            "drop table t",
            "select 1; drop table t",
            "copy t to program 'true'",
            "select 1) as q) to program 'touch /tmp/subak-pg' --",
            "select 1) to stdout; drop table t; --",
            "commit",
            "select set_config('transaction_read_only', 'off', false); insert into t values (2)",
            "select nextval(pg_get_serial_sequence('t', 'id')) from t; create table u (a int)",
            "create table u as select 1",
            "explain analyze insert into t values (2)",
        ] {
            let answer = database.look(sql).next().await.expect("an answer");
            assert!(answer.is_err(), "{sql}: {answer:?}");
        }
        let mut batches = database.look("select set_config('default_transaction_read_only', 'off', false)");
        drop(batches.next().await);
        let mut batches = database.look("select count(*) as n from t");
        let batch = batches.next().await.expect("an answer").expect("rows");
        assert_eq!(convert::text_at(batch.column(0), 0), "1");
        assert!(open(false).look("select 1").next().await.expect("an answer").is_err(), "only in a session that reads");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_of_every_kind_have_ranges() {
        let server = Postgres::start();
        server.sql(
            "create table plain as select n as id, repeat('x', 200) as note from generate_series(1, 5000) as n; create view seen as select * from plain; \
             create materialized view kept as select * from plain; create table none (id int); create table parent (id int); \
             create table child (note text) inherits (parent); insert into child select n, repeat('x', 200) from generate_series(1, 5000) as n; \
             create table parts (id int, note text) partition by range (id); create table part_a partition of parts for values from (0) to (9000); \
             insert into parts select n, repeat('x', 200) from generate_series(1, 5000) as n",
        );
        let mut config = ConnectionConfig::default();
        for (key, value) in [("host", "127.0.0.1"), ("database", "subak"), ("user", POSTGRES_USER)] {
            config.values.insert(key.to_owned(), value.to_owned());
        }
        config.values.insert("port".to_owned(), server.port().to_string());
        config.secrets.insert("password".to_owned(), Secret::new(POSTGRES_PASSWORD));
        let database =
            Database::new(&OpenRequest { name: "pg".to_owned(), config, ..OpenRequest::default() }).expect("a configuration");
        let reader = database.reader().await.expect("a connection");
        for (stream, count) in [("plain", 4), ("kept", 4), ("parent", 4), ("parts", 4), ("seen", 1), ("none", 1)] {
            let request = ReadRequest { stream: format!("public.{stream}"), ..ReadRequest::default() };
            let found = ranges(&reader, &request, 4, "cannot read").await.expect(stream);
            assert_eq!(found.len(), count, "{stream}: {found:?}");
        }
        let shared = sharing(&database, database.reader().await.expect("a connection"), 1, "x").await.expect("one");
        assert_eq!(shared.len(), 1);
    }
}
