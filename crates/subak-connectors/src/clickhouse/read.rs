//! Reading: tables, queries and small results.

use std::io::{self, Read};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::cursor::Tracker;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, BuildRequest, ConnectError, ConnectErrorKind, Dialect, ReadRequest, Source, SourceItem,
    SqlBackend, Staged, StreamInfo, TableName, blocking, convert,
};
use subak_domain::{Column, Cursor, DataType};
use tokio::runtime::Handle;

use super::error::during;
use super::load::ClickHouseStaged;
use super::native::Reader;
use super::types::{Form, ReadColumn, schema_of};
use super::{DIALECT, Server};

/// An answer as something that a thread can read.
struct Pieces {
    handle: Handle,
    stream: BoxStream<'static, Result<Bytes, ConnectError>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(io::Error::other(error.causes().join(": "))),
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(out.len());
        self.piece.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}

impl Server {
    /// What a query returns, by the declared types.
    async fn read_columns(
        &self,
        sql: &str,
        declared: impl Fn(&str) -> Option<DataType>,
    ) -> Result<Vec<ReadColumn>, ConnectError> {
        let described = self.client.describe(sql).await?;
        let is_modern = self.client.is_modern();
        Ok(described.iter().map(|(name, word)| ReadColumn::new(name, word, declared(name), is_modern)).collect())
    }

    /// Runs a query and hands over batches, from a thread that may block; at least one, which may be empty.
    fn select<T>(
        &self,
        columns: Vec<ReadColumn>,
        from: &str,
        message: &str,
        producer: &Producer<T>,
        mut item: impl FnMut(RecordBatch) -> Result<T, ConnectError>,
    ) -> Result<(), Stopped> {
        let handle = Handle::current();
        let list = columns.iter().map(|column| column.expression.as_str()).collect::<Vec<_>>().join(", ");
        let sql = format!("select {list} from {from}");
        let stream = handle.block_on(self.client.stream(&sql)).map_err(|error| during(message, error))?;
        let mut reader = Reader::new(Pieces { handle, stream, piece: Bytes::new() }, columns);
        let mut is_empty = true;
        while let Some(batch) = reader.next().map_err(|error| during(message, error))? {
            if batch.num_rows() > 0 {
                is_empty = false;
                producer.send(item(batch)?)?;
            }
        }
        if is_empty {
            producer.send(item(reader.empty())?)?;
        }
        Ok(())
    }
}

/// A bound as the server compares it. `None` for types that are compared here.
fn bound(form: Form, cursor: &Cursor) -> Option<String> {
    let wall = || DIALECT.literal(&cursor.value.trim_end_matches('Z').replace('T', " "));
    let is_number = cursor.value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    match form {
        Form::Int8 | Form::Int16 | Form::Int32 | Form::Int64 | Form::UInt8 | Form::UInt16 | Form::UInt32 | Form::UInt64 => {
            is_number.then(|| cursor.value.clone())
        }
        Form::Decimal { scale, .. } => is_number.then(|| format!("toDecimal128('{}', {scale})", cursor.value)),
        Form::Date => Some(format!("toDate({})", DIALECT.literal(&cursor.value))),
        Form::Date32 => Some(format!("toDate32({})", DIALECT.literal(&cursor.value))),
        Form::DateTime { .. } => {
            let whole = cursor.value.get(..19)?.replace('T', " ");
            // A bound inside a second leaves nothing out: the second itself is read and tested here.
            Some(format!("toDateTime({}, 'UTC')", DIALECT.literal(&whole)))
        }
        Form::DateTime64 { .. } => Some(format!("toDateTime64({}, 6, 'UTC')", wall())),
        _ => None,
    }
}

fn read_stream(server: &Server, request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<(), Stopped> {
    let message = format!("cannot read `{}`", request.stream);
    let table = request.relation(&DIALECT, "*")?;
    let declared = |name: &str| request.columns.get(name).copied();
    let described = Handle::current().block_on(server.read_columns(&format!("select * from {table}"), declared));
    let columns = described.map_err(|error| match error.kind {
        ConnectErrorKind::NotFound => during(&format!("there is no stream `{}`", request.stream), error),
        _ => during(&message, error),
    })?;
    let columns = request.needed(columns, |column| &column.name);
    let Some(range) = &request.cursor else {
        return server.select(columns, &table, &message, producer, |batch| Ok(SourceItem::Batch(Batch::new(batch))));
    };
    let Some(column) = columns.iter().find(|column| column.name == range.column) else {
        return Err(convert::missing_column(&range.column, &schema_of(&columns)).into());
    };
    let declared = request.columns.get(&range.column).copied();
    let own = convert::logical_type(schema_of(std::slice::from_ref(column)).field(0).data_type());
    let bounds = [&range.from, &range.to];
    let is_pushed = !column.is_cast
        && declared.is_none_or(|declared| declared == own)
        // Bounds inside a second cannot be told to a server that knows whole ones.
        && !(matches!(column.form, Form::DateTime { .. }) && bounds.iter().any(|at| at.as_ref().is_some_and(|at| at.value.contains('.'))))
        && bounds.into_iter().flatten().all(|cursor| bound(column.form, cursor).is_some());
    let quoted = DIALECT.identifier(&range.column);
    let form = column.form;
    let condition = if is_pushed {
        range.condition(&quoted, |value, word| format!("{quoted} {word} {}", bound(form, value).unwrap_or_default()))
    } else {
        String::new()
    };
    let from = format!("{table}{condition}");
    let mut tracker = Tracker::new(range.clone());
    server.select(columns, &from, &message, producer, |batch| {
        let mut batch = Batch::new(batch);
        tracker.keep(&mut batch, &request.columns)?;
        Ok(SourceItem::Batch(batch))
    })?;
    for item in tracker.items() {
        producer.send(item)?;
    }
    Ok(())
}

#[async_trait]
impl Source for Server {
    /// Lists the tables and views of every database but the server's own and ours.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let sql = "select database, table, name, type from system.columns where database not in \
                   ('system', '_subak', 'information_schema', 'INFORMATION_SCHEMA') and not match(table, '^[.]inner|__rows$') \
                   and default_kind not in ('MATERIALIZED', 'ALIAS', 'EPHEMERAL') order by database, table";
        let rows = self.client.catalog(sql).await.map_err(|error| during("cannot list tables", error))?;
        let mut streams: Vec<StreamInfo> = Vec::new();
        for row in rows {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            let [database, table, name, word] = [(); 4].map(|()| cells.next().unwrap_or_default());
            let stream = format!("{database}.{table}");
            if streams.last().is_none_or(|last| last.name != stream) {
                streams.push(StreamInfo { name: stream, columns: Vec::new(), primary_key: Vec::new() });
            }
            let column = ReadColumn::new(&name, &word, None, self.client.is_modern());
            if let Some(last) = streams.last_mut() {
                last.columns.extend(convert::columns_of(&schema_of(&[column])));
            }
        }
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(streams)
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let server = self.clone();
        blocking::produce(move |producer| read_stream(&server, &request, producer))
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        self.client.rows("select 1").await.map(drop)
    }
}

#[async_trait]
impl SqlBackend for Server {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn describe_query(&self, sql: &str) -> Result<Vec<Column>, ConnectError> {
        let columns = self.read_columns(sql, |_| None).await.map_err(|error| during("the query cannot be described", error))?;
        Ok(convert::columns_of(&schema_of(&columns)))
    }

    async fn build(&self, request: BuildRequest) -> Result<Box<dyn Staged>, ConnectError> {
        Ok(Box::new(ClickHouseStaged::build(self, request).await?))
    }

    async fn audit(&self, table: Option<&TableName>, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let table = table.map(|table| self.name_of(table).quoted());
        super::sink::audit(self, table.as_deref(), audit, SAMPLE_ROW_COUNT_MAX)
            .await
            .map_err(|error| during("the check cannot be evaluated", error))
    }

    fn query(&self, sql: &str) -> BoxStream<'static, Result<RecordBatch, ConnectError>> {
        let (server, sql) = (self.clone(), sql.to_owned());
        blocking::produce(move |producer: &Producer<RecordBatch>| {
            let message = "the query failed";
            let columns =
                Handle::current().block_on(server.read_columns(&sql, |_| None)).map_err(|error| during(message, error))?;
            server.select(columns, &format!("(\n{sql}\n)"), message, producer, Ok)
        })
    }
}
