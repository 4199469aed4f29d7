//! Reading: streams, queries and small results as text.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use duckdb::Connection;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::source::future_warning;
use subak_connect::{
    Audit, AuditResult, BuildRequest, ConnectError, ConnectErrorKind, Dialect, ReadRequest, Source, SourceItem, SqlBackend,
    Staged, StreamInfo, TableName, blocking, convert,
};
use subak_domain::{Column, Cursor, DataType};

use super::error::failed;
use super::load::DuckDbStaged;
use super::session::DuckDbSession;
use super::{DIALECT, Database, Interrupt, special};
use crate::staging::{self, Session};

/// Runs a query and hands over its batches; at least one, which may be empty.
fn stream_batches(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(RecordBatch) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let failed = |error| Stopped::Failed(failed("the query failed", error));
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let schema = statement.stream_arrow([]).map_err(failed)?.get_schema();
    let mut is_empty = true;
    // The iterator that `stream_arrow` returns panics when a fetch fails; `step` returns the error.
    while let Some(rows) = statement.step().map_err(failed)? {
        is_empty = false;
        take(RecordBatch::from(&rows))?;
    }
    if is_empty {
        take(RecordBatch::new_empty(schema))?;
    }
    Ok(())
}

pub(super) fn columns_of(connection: &Connection, sql: &str) -> Result<Vec<Column>, ConnectError> {
    let describe = || {
        let mut statement = connection.prepare(sql)?;
        drop(statement.query_arrow([])?);
        Ok(statement.schema())
    };
    let schema = describe().map_err(|error| failed("the query cannot be described", error))?;
    Ok(convert::columns_of(&schema))
}

#[async_trait]
impl SqlBackend for Database {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn describe_query(&self, sql: &str) -> Result<Vec<Column>, ConnectError> {
        let sql = format!("select * from (\n{sql}\n) limit 0");
        self.with(move |connection| columns_of(connection, &sql)).await
    }

    async fn build(&self, request: BuildRequest) -> Result<Box<dyn Staged>, ConnectError> {
        Ok(Box::new(DuckDbStaged::build(self.clone(), request).await?))
    }

    async fn audit(&self, table: Option<&TableName>, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (table, audit) = (table.map(|table| DIALECT.table(table)), audit.clone());
        self.with(move |connection| {
            let session = DuckDbSession::new(connection, "the check cannot be evaluated");
            staging::audit(&session, table.as_deref(), &audit, SAMPLE_ROW_COUNT_MAX)
        })
        .await
    }

    fn query(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let (database, sql) = (self.clone(), sql.to_owned());
        blocking::produce(move |producer: &Producer<RecordBatch>| {
            let connection = database.connect()?;
            let mut is_known = false;
            stream_batches(&connection, &sql, |rows| {
                if !is_known && rows.schema().fields().iter().any(|field| special::is_long(field.data_type())) {
                    // Beside the result that is being read.
                    refuse_wrapped(&database.connect()?, &sql)?;
                }
                is_known = true;
                Ok(producer.send(as_they_are(rows)?)?)
            })
        })
    }

    fn look(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let (database, sql) = (self.clone(), sql.to_owned());
        let looked = async move {
            if !database.is_confined {
                let message =
                    format!("connection `{}` lets SQL reach files, so that people are given no queries on it", database.name);
                let help =
                    "remove `external_access: true` from the connection, or use `subak query` on the machine of the project";
                return Err(ConnectError::new(ConnectErrorKind::Permission, message).help(help));
            }
            let opened = database.clone();
            let connection = blocking::run(move || opened.connect()).await?;
            // A query that nobody waits for any more ends.
            let interrupt = Interrupt(Some(connection.interrupt_handle()));
            let batches = blocking::produce(move |producer: &Producer<RecordBatch>| {
                let begin = "begin transaction read only";
                let checked = database.streaming()?;
                let is_query = checked.execute(begin).and_then(|()| checked.is_single_query(&sql));
                drop(checked);
                if !is_query.map_err(|error| failed("the query failed", error))? {
                    let message =
                        "this is not one query: only a single `select`, `from`, `values`, `describe` or `explain` is run here";
                    return Err(ConnectError::new(ConnectErrorKind::Permission, message).into());
                }
                connection.execute_batch(begin).map_err(|error| failed("the query failed", error))?;
                stream_batches(&connection, &sql, |rows| Ok(producer.send(as_they_are(rows)?)?))
            });
            Ok(batches.map(move |batch| {
                let _held = &interrupt;
                batch
            }))
        };
        futures::stream::once(looked).try_flatten().boxed()
    }
}

#[async_trait]
impl Source for Database {
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        self.with(|connection| {
            let sql = "select table_schema || '.' || table_name as name from information_schema.tables \
                       where table_catalog = current_database() and table_schema <> '_subak' \
                       and not starts_with(table_name, '__subak_') order by name";
            let list = || -> duckdb::Result<Vec<String>> { connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect() };
            let names = list().map_err(|error| failed("cannot list tables", error))?;
            let info = |name: String| {
                let relation = DIALECT.stream(&name);
                let columns = columns_of(
                    connection,
                    &format!("select {} from {relation} limit 0", selection(connection, &relation, &ReadRequest::default())?),
                )?;
                Ok(StreamInfo { name, columns, primary_key: Vec::new() })
            };
            names.into_iter().map(info).collect()
        })
        .await
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let database = self.clone();
        blocking::produce(move |producer| {
            let connection = database.connect()?;
            read_stream(&connection, &request, producer)
        })
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        self.with(|connection| DuckDbSession::new(connection, "the database does not answer").count("select 1").map(drop)).await
    }
}

/// The rows of a query. Values that would be shown as others are an error.
fn as_they_are(rows: RecordBatch) -> Result<RecordBatch, ConnectError> {
    let unread = |error| ConnectError::new(ConnectErrorKind::Internal, format!("the result cannot be taken over: {error}"));
    let batch = special::without(rows).map_err(unread)?;
    let Some(misfit) = batch.misfits.first() else { return Ok(batch.records) };
    let schema = batch.records.schema();
    let column = schema.field(misfit.column).name();
    let message = format!("column `{column}` of the result: `{}` is {}", misfit.text, misfit.problem);
    Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message)
        .help(format!("select `cast({0} as varchar) as {0}`", DIALECT.identifier(column))))
}

/// A driver hands over the largest type of whole numbers in one that has no place for its upper half, and says nothing.
fn refuse_wrapped(connection: &Connection, sql: &str) -> Result<(), ConnectError> {
    let sql = sql.trim_end().trim_end_matches(';');
    let sql = format!("select column_name from (describe\n{sql}\n) where contains(column_type, 'UHUGEINT')");
    let list = || -> duckdb::Result<Vec<String>> { connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect() };
    // What cannot be described has no such column.
    let Some(column) = list().ok().and_then(|names| names.into_iter().next()) else { return Ok(()) };
    let message = format!("column `{column}` of the result is uhugeint, which no result here holds");
    Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message)
        .help(format!("select `cast({0} as varchar) as {0}`", DIALECT.identifier(&column))))
}

/// What is selected of a relation: the columns that are needed. Numbers that a driver would hand over as other numbers are selected as texts,
/// and dates and large numbers too where they are declared as texts: those that have no other form then keep theirs.
fn selection(connection: &Connection, relation: &str, request: &ReadRequest) -> Result<String, ConnectError> {
    let sql = format!("select column_name, column_type from (describe select * from {relation})");
    let list = || -> duckdb::Result<Vec<(String, String)>> {
        connection.prepare(&sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let columns = list().map_err(|error| failed("the query cannot be described", error))?;
    let selected = request.needed(columns, |(name, _)| name).into_iter().map(|(name, data_type)| {
        let quoted = DIALECT.identifier(&name);
        let is_text = request.columns.get(&name) == Some(&DataType::Text) && matches!(data_type.as_str(), "DATE" | "HUGEINT");
        match data_type.as_str() {
            "UHUGEINT" => format!("cast({quoted} as varchar) as {quoted}"),
            _ if is_text => format!("cast({quoted} as varchar) as {quoted}"),
            // Lists and structs of such numbers are read as JSON.
            nested if nested.contains("UHUGEINT") => format!("to_json({quoted}) as {quoted}"),
            _ => quoted,
        }
    });
    Ok(selected.collect::<Vec<_>>().join(", "))
}

/// Rows and their highest cursor value come from one transaction, so nothing can slip in between.
fn read_stream(connection: &Connection, request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<(), Stopped> {
    let table = request.relation(&DIALECT, "*")?;
    let sql_failed = |error| Stopped::Failed(failed(&format!("cannot read `{}`", request.stream), error));
    connection.execute_batch("begin transaction").map_err(sql_failed)?;
    let describe = || {
        let selection = selection(connection, &table, request)?;
        Ok((columns_of(connection, &format!("select {selection} from {table} limit 0"))?, selection))
    };
    let (columns, selection) = describe().map_err(|mut error: ConnectError| {
        error.kind = ConnectErrorKind::NotFound;
        error.message = format!("there is no stream `{}`", request.stream);
        error
    })?;
    let hand_over = |rows: RecordBatch| -> Result<(), Stopped> {
        let unread = |error| {
            ConnectError::new(ConnectErrorKind::Internal, format!("rows of `{}` cannot be taken over: {error}", request.stream))
        };
        Ok(producer.send(SourceItem::Batch(special::without(rows).map_err(unread)?))?)
    };
    let Some(bound) = &request.cursor else {
        return stream_batches(connection, &format!("select {selection} from {table}"), &hand_over);
    };
    let Some(column) = columns.iter().find(|column| column.name == bound.column) else {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let missing =
            ConnectError::new(ConnectErrorKind::ColumnMissing, format!("column `{}` is not in the stream", bound.column));
        return Err(missing.help(format!("the stream has the columns {}", names.join(", "))).into());
    };
    let quoted = DIALECT.identifier(&bound.column);
    // Texts are compared in the type of the column.
    let filter = bound.condition(&quoted, |value, word| format!("{quoted} {word} {}", DIALECT.literal(&value.value)));
    stream_batches(connection, &format!("select {selection} from {table}{filter}"), hand_over)?;
    let session = DuckDbSession::new(connection, format!("cannot read `{}`", request.stream));
    // What is never reached is no place to go on from.
    let is_moment = matches!(column.data_type, DataType::Date | DataType::DateTime | DataType::Timestamp);
    let finite = if is_moment { format!("isfinite({quoted})") } else { "true".to_owned() };
    let highest = |test: &str| -> Result<Option<Cursor>, ConnectError> {
        let test = format!(" filter (where {finite}{test})");
        let sql = format!("select cast(max({quoted}){test} as varchar) as highest from {table}{filter}");
        let value = session.rows(&sql, 1)?.into_iter().next().and_then(|row| row.into_iter().next()?.1);
        Ok(value.map(|value| Cursor { column: bound.column.clone(), value, data_type: column.data_type }))
    };
    let mut cursor = highest("")?;
    if let (Some(beyond), Some(future)) = (&cursor, &bound.future)
        && let Some(limit) = future.cursor(&bound.column, column.data_type).filter(|limit| beyond.is_after(limit))
    {
        producer.send(SourceItem::Warning(future_warning(beyond)))?;
        cursor = highest(&format!(" and {quoted} <= {}", DIALECT.literal(&limit.value)))?;
    }
    if let Some(cursor) = cursor {
        producer.send(SourceItem::Cursor(cursor))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use subak_connect::{ConnectionConfig, OpenRequest, conformance};

    use super::*;

    /// Reads through a second driver connection, not through the sink.
    fn reader(database: Database) -> impl Fn(&TableName) -> Option<conformance::Rows> + Sync {
        move |table| {
            let connection = database.connect().ok()?;
            let session = DuckDbSession::new(&connection, "reader");
            session.relation(table).ok()??;
            let rows = session.rows(&format!("select columns(*)::varchar from {}", DIALECT.table(table)), 1000).ok()?;
            let mut rows: conformance::Rows =
                rows.into_iter().map(|row| row.into_iter().map(|(_, value)| value).collect()).collect();
            rows.sort();
            Some(rows)
        }
    }

    fn database(folder: &std::path::Path) -> Database {
        let mut config = ConnectionConfig::default();
        config.values.insert("path".into(), folder.join("w.duckdb").display().to_string());
        Database::open(&OpenRequest { name: "w".into(), config, temporary: folder.into(), ..OpenRequest::default() })
            .expect("open")
    }

    async fn declared_texts_keep_their_form(database: &Database) {
        let sql = "create table main.odd as select 'infinity'::date as d, 170141183460469231731687303715884105727 as n";
        subak_connect::Statements::execute(database, sql).await.expect("a table");
        let columns = ["d", "n"].map(|name| (name.to_owned(), DataType::Text)).into();
        let request = ReadRequest { stream: "main.odd".into(), columns, ..ReadRequest::default() };
        let (batches, _) = conformance::read_all(database, request).await.expect("rows");
        let texts: Vec<String> = batches[0].records.columns().iter().map(|column| convert::text_at(column, 0)).collect();
        assert_eq!(texts, ["infinity", "170141183460469231731687303715884105727"]);
    }

    /// The rows that hold such values, their problems, and what the others are.
    async fn values_within_others_are_found(database: &Database) {
        let sql = "create table main.nested as select * from (values
            (1, [date '2020-01-01', date 'infinity'], {'a': 1::hugeint}, [1::uhugeint]),
            (2, [date '2020-01-01'], {'a': 170141183460469231731687303715884105727}, [340282366920938463463374607431768211455]),
            (3, null, null, null)) as t(id, days, long, wide)";
        subak_connect::Statements::execute(database, sql).await.expect("a table");
        let request = ReadRequest { stream: "main.nested".into(), ..ReadRequest::default() };
        let (batches, _) = conformance::read_all(database, request).await.expect("rows");
        let [batch] = batches.as_slice() else { panic!("one batch") };
        let misfits: Vec<_> = batch.misfits.iter().map(|misfit| (misfit.row, misfit.column, misfit.text.as_str())).collect();
        assert_eq!(misfits, [(0, 1, "infinity"), (1, 2, "170141183460469231731687303715884105727")]);
        let texts = |column: usize| (0..3).map(|row| convert::text_at(batch.records.column(column), row)).collect::<Vec<_>>();
        assert_eq!(texts(1), ["", "[2020-01-01]", ""]);
        assert_eq!(texts(3), ["[1]", "[340282366920938463463374607431768211455]", ""]);
    }

    /// One process has one instance of a file: what one connection writes another one sees, and a reader waits until the writer is gone.
    async fn a_file_is_open_once(folder: &std::path::Path) {
        let open = |is_read_only: bool| {
            let mut config = ConnectionConfig::default();
            config.values.insert("path".into(), folder.join("once.duckdb").display().to_string());
            Database::open(&OpenRequest {
                name: "w".into(),
                config,
                temporary: folder.into(),
                is_read_only,
                ..OpenRequest::default()
            })
        };
        let one = open(false).expect("open");
        let other = open(false).expect("open again");
        assert!(std::sync::Arc::ptr_eq(&one.instance, &other.instance));
        subak_connect::Statements::execute(&one, "create table t as select 1 as n").await.expect("a table");
        drop(one);
        let count = other.with(|connection| DuckDbSession::new(connection, "count").count("select count(*) from t")).await;
        assert_eq!(count.expect("rows"), 1);
        let closing = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(other);
        });
        let reader = open(true).expect("open for reading, when it is closed");
        closing.join().expect("closed");
        let refused = reader.with(|connection| DuckDbSession::new(connection, "write").execute("insert into t values (2)")).await;
        assert!(refused.is_err(), "it reads only");
    }

    async fn a_cursor_is_finite(database: &Database) {
        let sql = "create table main.ends as select * from (values (1, date '2020-01-01'), (2, date 'infinity')) as t(id, until)";
        subak_connect::Statements::execute(database, sql).await.expect("a table");
        let cursor = subak_connect::CursorBound { column: "until".into(), ..Default::default() };
        let request = ReadRequest { stream: "main.ends".into(), cursor: Some(cursor), ..ReadRequest::default() };
        let (_, cursor) = conformance::read_all(database, request).await.expect("rows");
        assert_eq!(cursor.map(|cursor| cursor.value), Some("2020-01-01".to_owned()));
    }

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().expect("folder");
        let database = database(folder.path());
        let read = reader(database.clone());
        conformance::sink(&database, &read).await;
        conformance::types(&database, &super::super::DuckDb).await;
        conformance::source_types(&database, &super::super::DuckDb, "").await;
        conformance::writes(&database, &read).await;
        conformance::partial_events(&database, &read).await;
        conformance::sql(&database, &read).await;
        for (value, problem) in [
            ("170141183460469231731687303715884105727", "more than 38 digits"),
            ("'infinity'::date", "not a date"),
            ("340282366920938463463374607431768211455::uhugeint", "uhugeint"),
            ("[340282366920938463463374607431768211455::uhugeint]", "uhugeint"),
            ("[1, 170141183460469231731687303715884105727]", "more than 38 digits"),
            ("{'a': {'b': '-infinity'::timestamptz}}", "not a time"),
            ("map { 'a': ['24:00'::time] }", "not a time of a day"),
        ] {
            let mut rows = database.query(&format!("select {value} as v;"));
            let error = rows.next().await.expect("an answer").expect_err("no other value");
            assert!(error.message.contains("column `v`") && error.message.contains(problem), "{}", error.message);
        }
        declared_texts_keep_their_form(&database).await;
        values_within_others_are_found(&database).await;
        a_cursor_is_finite(&database).await;
        a_file_is_open_once(folder.path()).await;
        let connection = database.connect().expect("connect");
        connection
            .execute_batch(
                "create table main.src as select n as id, 'x' as note from range(50000) t(n) union all select 49999, 'tie'",
            )
            .expect("rows");
        let highest = Cursor { column: "id".into(), value: "49999".into(), data_type: DataType::BigInt };
        let request = ReadRequest { stream: "main.src".into(), ..ReadRequest::default() };
        conformance::source(&database, request, &highest, 2).await;
    }
}
