//! Reading tables and queries through a driver.

use std::sync::Arc;

use adbc_core::options::{ObjectDepth, OptionConnection};
use adbc_core::{Connection as _, Optionable as _, Statement as _};
use adbc_driver_manager::{ManagedConnection, ManagedStatement};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchReader};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatchOptions;
use async_trait::async_trait;
use futures::stream::BoxStream;
use subak_connect::batch::BATCH_ROW_COUNT_MAX;
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::cursor::Tracker;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, ReadRequest, Source, SourceItem, StreamInfo, blocking, convert};
use subak_domain::{Cursor, DataType};

use super::System;
use super::error::{broken, failed};
use crate::plain::plain_type;

/// The type in which a column travels, where ours have none that holds its values.
fn carried(data_type: &ArrowType) -> ArrowType {
    match data_type {
        ArrowType::Decimal256(..) | ArrowType::Interval(_) | ArrowType::Duration(_) | ArrowType::Null => ArrowType::Utf8,
        ArrowType::Decimal128(_, scale) if *scale < 0 => ArrowType::Utf8,
        // Nanoseconds have no place here; those that are none are told.
        ArrowType::Timestamp(_, None) => ArrowType::Timestamp(TimeUnit::Microsecond, None),
        ArrowType::Timestamp(_, Some(_)) => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        // Rows are compared by what they hold, and not by how.
        other => plain_type(other),
    }
}

fn carried_schema(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| Field::new(field.name(), carried(field.data_type()), true);
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn carry(records: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ConnectError> {
    let column = |(array, field): (&ArrayRef, &FieldRef)| {
        if array.data_type() == field.data_type() {
            return Ok(Arc::clone(array));
        }
        let is_exact = |narrowed: &ArrayRef| {
            let is_time = matches!(array.data_type(), ArrowType::Timestamp(TimeUnit::Nanosecond, _));
            !is_time || cast(narrowed, array.data_type()).is_ok_and(|back| &back == array)
        };
        let fine = || ArrowError::CastError("it has times finer than a microsecond".to_owned());
        cast(array, field.data_type()).and_then(|narrowed| if is_exact(&narrowed) { Ok(narrowed) } else { Err(fine()) }).map_err(
            |error| {
                let message = format!("column `{}` is {}, which no table here holds", field.name(), array.data_type());
                let help = format!(
                    "read it with a query of your own that turns it into a text: `sql: select cast({} as varchar) …`",
                    field.name()
                );
                ConnectError::new(ConnectErrorKind::ValueMisfit, message).because(error).help(help)
            },
        )
    };
    let arrays = records.columns().iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>, ConnectError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).map_err(|error| {
        ConnectError::new(ConnectErrorKind::Internal, "the driver's rows do not fit their own schema").because(error)
    })
}

/// A bound that every system compares as we do. Others are tested here, over the whole table.
fn literal(data_type: DataType, cursor: &Cursor) -> Option<String> {
    let is_number = matches!(
        data_type,
        DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::UnsignedBigInt | DataType::Decimal { .. }
    );
    let is_plain = cursor.value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    (is_number && is_plain).then(|| cursor.value.clone())
}

/// The rows of a query. Some drivers read no further when the statement is gone, so it stays as long as they do.
struct Rows {
    reader: Box<dyn RecordBatchReader + Send>,
    _statement: ManagedStatement,
    _connection: ManagedConnection,
}

fn run(system: &System, sql: &str, message: &str) -> Result<Rows, ConnectError> {
    let mut connection = system.connect()?;
    let mut query = || {
        let mut statement = connection.new_statement()?;
        statement.set_sql_query(sql)?;
        Ok((statement.execute()?, statement))
    };
    let (reader, statement) = query().map_err(|error| failed(message, &error))?;
    Ok(Rows { reader, _statement: statement, _connection: connection })
}

/// What a query returns, without its rows.
fn schema_of(system: &System, relation: &str, message: &str) -> Result<SchemaRef, ConnectError> {
    Ok(carried_schema(&run(system, &format!("select * from {relation} where 1 = 0"), message)?.reader.schema()))
}

/// What is selected: the columns that are needed.
fn selection(system: &System, schema: &Schema, request: &ReadRequest) -> String {
    let names = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>();
    let needed = request.needed(names, |name| name).into_iter().map(|name| system.dialect.identifier(name));
    needed.collect::<Vec<_>>().join(", ")
}

fn read_stream(system: &System, request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<(), Stopped> {
    let message = format!("cannot read `{}`", request.stream);
    let relation = request.relation(system.dialect, "*")?;
    let relation = if relation.starts_with('(') { format!("{relation} subak_rows") } else { relation };
    let list = match request.wanted {
        Some(_) => {
            let schema = schema_of(system, &relation, &message)?;
            selection(system, schema.as_ref(), request)
        }
        None => "*".to_owned(),
    };
    let mut condition = String::new();
    let mut tracker = None;
    if let Some(bound) = &request.cursor {
        let schema = schema_of(system, &relation, &message)?;
        let Ok(field) = schema.field_with_name(&bound.column) else {
            return Err(convert::missing_column(&bound.column, &schema).into());
        };
        let own = convert::logical_type(field.data_type());
        let is_same = request.columns.get(&bound.column).is_none_or(|declared| *declared == own);
        let bounds = [&bound.from, &bound.to];
        if is_same && bounds.into_iter().flatten().all(|cursor| literal(own, cursor).is_some()) {
            let quoted = system.dialect.identifier(&bound.column);
            let test = |value: &Cursor, word: &str| format!("{quoted} {word} {}", literal(own, value).unwrap_or_default());
            condition = bound.condition(&quoted, test);
        }
        tracker = Some(Tracker::new(bound.clone()));
    }
    let mut rows = run(system, &format!("select {list} from {relation}{condition}"), &message)?;
    let schema = carried_schema(&rows.reader.schema());
    let mut send = |records: RecordBatch| -> Result<(), Stopped> {
        let mut batch = Batch::new(carry(&records, &schema)?);
        if let Some(tracker) = &mut tracker {
            tracker.keep(&mut batch, &request.columns)?;
        }
        Ok(producer.send(SourceItem::Batch(batch))?)
    };
    let mut is_empty = true;
    for records in &mut rows.reader {
        let records = records.map_err(|error| broken(&message, &error))?;
        // Drivers decide how much comes at a time.
        let mut offset = 0;
        while offset < records.num_rows() {
            let count = BATCH_ROW_COUNT_MAX.min(records.num_rows() - offset);
            send(records.slice(offset, count))?;
            (is_empty, offset) = (false, offset + count);
        }
    }
    if is_empty {
        send(RecordBatch::new_empty(Arc::clone(&schema)))?;
    }
    for item in tracker.into_iter().flat_map(Tracker::items) {
        producer.send(item)?;
    }
    Ok(())
}

/// The names in a list of catalogs, schemas and tables, as the interface nests them.
fn names_of(batch: &RecordBatch) -> Vec<(Option<String>, Option<String>, String)> {
    let text = |array: &ArrayRef, at: usize| {
        let texts = cast(array, &ArrowType::Utf8).ok()?;
        let texts = texts.as_string_opt::<i32>()?;
        (!texts.is_null(at)).then(|| texts.value(at).to_owned())
    };
    let mut names = Vec::new();
    let (Some(catalogs), Some(schemas)) =
        (batch.columns().first(), batch.columns().get(1).and_then(|list| list.as_list_opt::<i32>()))
    else {
        return names;
    };
    for catalog_at in (0..batch.num_rows()).filter(|at| !schemas.is_null(*at)) {
        let inner = schemas.value(catalog_at);
        let Some(schema_rows) = inner.as_struct_opt() else { continue };
        let Some(tables) = schema_rows.columns().get(1).and_then(|list| list.as_list_opt::<i32>()) else { continue };
        for schema_at in (0..schema_rows.len()).filter(|at| !tables.is_null(*at)) {
            let inner = tables.value(schema_at);
            let Some(rows) = inner.as_struct_opt() else { continue };
            for at in 0..rows.len() {
                if let Some(name) = text(rows.column(0), at) {
                    names.push((text(catalogs, catalog_at), text(schema_rows.column(0), schema_at), name));
                }
            }
        }
    }
    names
}

/// Schemas of systems' own.
const SYSTEM_SCHEMAS: [&str; 3] = ["information_schema", "pg_catalog", "_subak"];

/// Tables that are described one by one in a list of streams; drivers take a round trip for each.
const DESCRIBED_COUNT_MAX: usize = 200;

fn discover(system: &System) -> Result<Vec<StreamInfo>, ConnectError> {
    let message = "cannot list tables";
    let connection = system.connect()?;
    // What lies in other catalogs is not reached by the name of a schema and a table.
    let current = connection.get_option_string(OptionConnection::CurrentCatalog).ok().filter(|catalog| !catalog.is_empty());
    let objects = connection.get_objects(ObjectDepth::Tables, current.as_deref(), None, None, None, None);
    let mut names = Vec::new();
    for batch in objects.map_err(|error| failed(message, &error))? {
        names.extend(names_of(&batch.map_err(|error| broken(message, &error))?));
    }
    let is_own = |schema: &Option<String>| {
        schema.as_deref().is_some_and(|schema| SYSTEM_SCHEMAS.iter().any(|own| own.eq_ignore_ascii_case(schema)))
    };
    names.retain(|(_, schema, _)| !is_own(schema));
    let is_described = names.len() <= DESCRIBED_COUNT_MAX;
    let mut streams: Vec<StreamInfo> = Vec::with_capacity(names.len());
    for (catalog, schema, table) in names {
        let known = is_described.then(|| connection.get_table_schema(catalog.as_deref(), schema.as_deref(), &table));
        let columns = known.and_then(Result::ok).map(|known| convert::columns_of(&carried_schema(&known))).unwrap_or_default();
        let name = match schema.as_deref().filter(|schema| !schema.is_empty()) {
            Some(schema) => format!("{schema}.{table}"),
            None => table,
        };
        streams.push(StreamInfo { name, columns, primary_key: Vec::new() });
    }
    streams.sort_by(|one, other| one.name.cmp(&other.name));
    streams.dedup_by(|one, other| one.name == other.name);
    Ok(streams)
}

#[async_trait]
impl Source for System {
    /// Lists the tables and views of every schema that the driver shows, but the system's own.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let system = self.clone();
        blocking::run(move || discover(&system)).await
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let system = self.clone();
        blocking::produce(move |producer| read_stream(&system, &request, producer))
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        let system = self.clone();
        blocking::run(move || system.connect().map(drop)).await
    }
}
