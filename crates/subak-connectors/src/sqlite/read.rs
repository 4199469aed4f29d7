//! Reading tables and views: SQLite's cells straight into Arrow columns.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use rusqlite::types::ValueRef;
use rusqlite::{Connection as Driver, OptionalExtension};
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX};
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::source::{FutureLimit, future_warning};
use subak_connect::{
    Batch, ConnectError, ConnectErrorKind, CursorBound, ReadRequest, Reject, Source, SourceItem, StreamInfo, TableName, blocking,
    convert,
};
use subak_domain::{Column, Cursor, DataType};

use super::values::{self, Builder, declared_type};
use super::{DIALECT, Database, failed};

#[async_trait]
impl Source for Database {
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        self.with(false, |driver| {
            let list = || -> rusqlite::Result<Vec<String>> {
                let sql = "select name from sqlite_schema where type in ('table', 'view') and name not like 'sqlite\\_%' escape '\\' \
                           and name not like '\\_subak\\_%' escape '\\' and name not like '\\_\\_subak\\_%' escape '\\' order by name";
                driver.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
            };
            let names = list().map_err(|error| failed(ConnectErrorKind::Read, "cannot list tables", error))?;
            names.into_iter().map(|name| stream_info(driver, &name)).collect()
        })
        .await
    }

    fn stream_of(&self, table: &TableName) -> String {
        DIALECT.plain_name(table)
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let database = self.clone();
        blocking::produce(move |producer| read_stream(&database.open_to_read()?, &request, producer))
    }
}

fn stream_info(driver: &Driver, name: &str) -> Result<StreamInfo, ConnectError> {
    let read = || -> rusqlite::Result<Vec<(String, String, i64)>> {
        let mut statement = driver.prepare("select name, type, pk from pragma_table_xinfo(?) where hidden <> 1")?;
        statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
    };
    let rows = read().map_err(|error| failed(ConnectErrorKind::Read, &format!("cannot describe `{name}`"), error))?;
    let mut key: Vec<(i64, String)> = rows.iter().filter(|(_, _, pk)| *pk > 0).map(|(name, _, pk)| (*pk, name.clone())).collect();
    key.sort_unstable();
    let columns = rows.into_iter().map(|(name, declared, _)| Column { name, data_type: declared_type(&declared) }).collect();
    Ok(StreamInfo { name: name.to_owned(), columns, primary_key: key.into_iter().map(|(_, name)| name).collect() })
}

fn table_exists(driver: &Driver, request: &ReadRequest) -> Result<Option<i64>, ConnectError> {
    let sql = "select 1 from sqlite_schema where type in ('table', 'view') and name = ?";
    let found = driver.query_row(sql, [&request.stream], |row| row.get(0)).optional();
    found.map_err(|error| failed(ConnectErrorKind::Read, "cannot read the schema", error))
}

/// The columns of a query, by what is declared for the columns that they come from.
fn query_columns(driver: &Driver, request: &ReadRequest, table: &str) -> Result<Vec<Column>, ConnectError> {
    let statement = driver
        .prepare(&format!("select * from {table}"))
        .map_err(|error| failed(ConnectErrorKind::Read, &format!("cannot read `{}`", request.stream), error))?;
    let column = |column: &rusqlite::Column<'_>| Column {
        name: column.name().to_owned(),
        data_type: declared_type(column.decl_type().unwrap_or_default()),
    };
    Ok(statement.columns().map(|own| column(&own)).collect())
}

/// One statement reads everything, so what it sees is one state of the database.
fn read_stream(driver: &Driver, request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<(), Stopped> {
    let exists: Option<i64> = if request.has_query() { Some(1) } else { table_exists(driver, request)? };
    if exists.is_none() {
        return Err(
            ConnectError::new(ConnectErrorKind::NotFound, format!("there is no table or view `{}`", request.stream)).into()
        );
    }
    let table = request.relation(&DIALECT, "*")?;
    let mut columns =
        if request.has_query() { query_columns(driver, request, &table)? } else { stream_info(driver, &request.stream)?.columns };
    columns = request.needed(columns, |column| &column.name);
    for column in &mut columns {
        // A column that is declared as text keeps every value as it is written.
        if request.columns.get(&column.name) == Some(&DataType::Text) {
            column.data_type = DataType::Text;
        }
    }
    let mut reader = Reader::new(request, columns, producer)?;
    let list = DIALECT.identifiers(&reader.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>());
    let filter = request.cursor.as_ref().map_or_else(String::new, condition);
    let sql_failed = |error| Stopped::Failed(failed(ConnectErrorKind::Read, &format!("cannot read `{}`", request.stream), error));
    let mut statement = driver.prepare(&format!("select {list} from {table}{filter}")).map_err(sql_failed)?;
    let bounds = request.cursor.iter().flat_map(|bound| [&bound.from, &bound.to]).flatten();
    let parameters: Vec<rusqlite::types::Value> = bounds.map(parameter).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(parameters)).map_err(sql_failed)?;
    while let Some(row) = rows.next().map_err(sql_failed)? {
        for at in 0..reader.columns.len() {
            reader.push(at, row.get_ref(at).map_err(sql_failed)?);
        }
        if let Some(misfit) = reader.misfit.take() {
            let mut raw = serde_json::Map::new();
            for (at, column) in reader.columns.iter().enumerate() {
                raw.insert(column.name.clone(), values::json_of(row.get_ref(at).map_err(sql_failed)?));
            }
            reader.refuse(misfit, serde_json::Value::Object(raw).to_string());
        }
        reader.end_row()?;
    }
    reader.finish()
}

/// The test for the bound, in the type of the cursor rather than in that which SQLite happens to give a value.
///
/// A decimal compares as a floating point number, which may let rows just below the bound in; they are compared with the table
/// later. Dates with a `T` and with a space compare alike.
fn condition(bound: &CursorBound) -> String {
    let column = DIALECT.identifier(&bound.column);
    let test = |value: &Cursor, word: &str| match value.data_type {
        DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::Boolean => {
            format!("cast({column} as integer) {word} ?")
        }
        DataType::Real | DataType::Double | DataType::Decimal { .. } => format!("cast({column} as real) {word} ?"),
        DataType::Date | DataType::DateTime | DataType::Timestamp => {
            format!("replace({column}, 'T', ' ') {word} replace(?, 'T', ' ')")
        }
        _ => format!("{column} {word} ?"),
    };
    bound.condition(&column, test)
}

/// The bound as a value of its type.
fn parameter(cursor: &Cursor) -> rusqlite::types::Value {
    match (cursor.data_type, cursor.value.parse::<i64>(), cursor.value.parse::<f64>()) {
        (DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::Boolean, Ok(number), _) => number.into(),
        (DataType::Real | DataType::Double | DataType::Decimal { .. }, _, Ok(number)) => number.into(),
        _ => cursor.value.clone().into(),
    }
}

/// Whether a text is a value of the cursor's type. One that is not will be refused by whoever converts it.
fn is_of_type(text: &str, data_type: DataType) -> bool {
    match data_type {
        DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::UnsignedBigInt => text.parse::<i128>().is_ok(),
        DataType::Real | DataType::Double | DataType::Decimal { .. } => text.parse::<f64>().is_ok_and(f64::is_finite),
        DataType::Date | DataType::DateTime => convert::parse_datetime(text).is_some(),
        DataType::Timestamp => convert::parse_timestamp(text).is_some(),
        _ => true,
    }
}

struct Reader<'a> {
    columns: Vec<Column>,
    schema: SchemaRef,
    builders: Vec<Builder>,
    producer: &'a Producer<SourceItem>,
    cursor_at: Option<usize>,
    /// The declared type of the cursor column, else what SQLite's declaration says.
    cursor_type: DataType,
    highest: Option<Cursor>,
    future: Option<FutureLimit>,
    /// The highest value in the future.
    beyond: Option<Cursor>,
    /// The first value of the current row that does not fit its column: the column and the value.
    misfit: Option<(usize, String)>,
    rejects: Vec<Reject>,
    /// Which of the waiting rows are not rejected.
    keep: Vec<bool>,
    row_number: u64,
    rows_waiting: usize,
    bytes_waiting: usize,
    is_first: bool,
}

impl<'a> Reader<'a> {
    fn new(request: &ReadRequest, columns: Vec<Column>, producer: &'a Producer<SourceItem>) -> Result<Self, ConnectError> {
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new(&column.name, convert::arrow_type(column.data_type), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let cursor_at = match &request.cursor {
            None => None,
            Some(bound) => {
                let at = columns.iter().position(|column| column.name == bound.column);
                Some(at.ok_or_else(|| convert::missing_column(&bound.column, &schema))?)
            }
        };
        let declared = request.cursor.as_ref().and_then(|bound| request.columns.get(&bound.column));
        let cursor_type = declared.copied().or(cursor_at.map(|at| columns[at].data_type)).unwrap_or(DataType::Text);
        let builders = columns.iter().map(|column| Builder::new(column.data_type)).collect();
        Ok(Self {
            columns,
            schema,
            builders,
            producer,
            cursor_at,
            cursor_type,
            highest: None,
            future: request.cursor.as_ref().and_then(|bound| bound.future),
            beyond: None,
            misfit: None,
            rejects: Vec::new(),
            keep: Vec::new(),
            row_number: 0,
            rows_waiting: 0,
            bytes_waiting: 0,
            is_first: true,
        })
    }

    fn push(&mut self, at: usize, value: ValueRef<'_>) {
        let column = &self.columns[at];
        let mut is_fit = true;
        if let Some(bytes) = self.builders[at].push(value) {
            self.bytes_waiting += bytes;
        } else {
            is_fit = false;
            self.builders[at].push(ValueRef::Null);
            self.misfit.get_or_insert_with(|| (at, values::shown(value)));
        }
        // A value that is refused says nothing about how far the stream was read.
        if is_fit
            && self.cursor_at == Some(at)
            && let Some(text) = values::text_of(value)
        {
            if self.cursor_type == DataType::Text && !matches!(value, ValueRef::Text(_)) {
                self.misfit.get_or_insert_with(|| (at, text.clone()));
            }
            if !is_of_type(&text, self.cursor_type) {
                return;
            }
            let next = Cursor { column: column.name.clone(), value: text, data_type: self.cursor_type };
            let is_allowed = self.future.is_none_or(|future| future.allows(&next));
            let slot = if is_allowed { &mut self.highest } else { &mut self.beyond };
            if slot.as_ref().is_none_or(|highest| next.is_after(highest)) {
                *slot = Some(next);
            }
        }
    }

    fn refuse(&mut self, (at, value): (usize, String), row: String) {
        let column = &self.columns[at];
        let shown: String = value.chars().take(80).collect();
        self.rejects.push(Reject {
            reason: format!("column `{}`: `{shown}` is not {}", column.name, column.data_type),
            column: Some(column.name.clone()),
            value: Some(value),
            line: Some(self.row_number + 1),
            row,
            ..Reject::default()
        });
        self.keep.resize(self.rows_waiting, true);
        self.keep.push(false);
    }

    fn end_row(&mut self) -> Result<(), Stopped> {
        self.row_number += 1;
        self.rows_waiting += 1;
        if self.rows_waiting >= BATCH_ROW_COUNT_MAX || self.bytes_waiting >= BATCH_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        let arrays: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        let records = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "rows do not fit their own schema").because(error))?;
        let mut records = records;
        if !self.rejects.is_empty() {
            self.keep.resize(self.rows_waiting, true);
            let keep = arrow::array::BooleanArray::from(std::mem::take(&mut self.keep));
            records = arrow::compute::filter_record_batch(&records, &keep)
                .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "rows cannot be filtered").because(error))?;
            self.producer.send(SourceItem::Rejected(std::mem::take(&mut self.rejects)))?;
        }
        (self.rows_waiting, self.bytes_waiting, self.is_first) = (0, 0, false);
        Ok(self.producer.send(SourceItem::Batch(Batch::new(records)))?)
    }

    fn finish(mut self) -> Result<(), Stopped> {
        if self.rows_waiting > 0 || self.is_first {
            self.flush()?;
        }
        if let Some(beyond) = self.beyond.take() {
            self.producer.send(SourceItem::Warning(future_warning(&beyond)))?;
        }
        if let Some(cursor) = self.highest.take() {
            self.producer.send(SourceItem::Cursor(cursor))?;
        }
        Ok(())
    }
}
