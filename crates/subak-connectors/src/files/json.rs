//! JSON documents and NDJSON. Numbers keep every digit: they become integers or exact decimals, or text where neither holds
//! them, and never pass through floating point. Nested values become JSON text.
//!
//! Without declared types the types follow from *all* rows, so files are read twice: once to see, once to load.

use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Decimal128Builder, Int64Builder, StringBuilder};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX};
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ConnectErrorKind, Origin, ReadRequest, convert};
use subak_domain::DataType;

use super::Output;
use super::input::Input;
use super::options::{Format, Options};

/// Digits after the point of a number without a declared type: a fixed scale keeps the type the same from file to file.
const SCALE_USUAL: u8 = 9;

type Record = Map<String, Value>;

/// Reads every file.
pub(super) fn read(inputs: &[Input], options: &Options, request: &ReadRequest, output: &mut Output<'_>) -> Result<(), Stopped> {
    let mut shapes = Shapes::default();
    for input in inputs {
        each_record(input, options, &mut |record, _| {
            shapes.see(&record);
            Ok(())
        })?;
    }
    let columns: Vec<(String, Kind)> = shapes
        .0
        .into_iter()
        .map(|(name, kind)| match request.columns.get(&name) {
            Some(DataType::Json) => (name, Kind::Json),
            Some(_) if kind != Kind::Json => (name, Kind::Text),
            _ => (name, kind),
        })
        .collect();
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(name, kind.arrow_type(), true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    for input in inputs {
        let mut batch = Pending::new(&schema, &columns);
        each_record(input, options, &mut |record, line| {
            batch.push(&record, line);
            if batch.is_full() { batch.send(input, output) } else { Ok(()) }
        })?;
        if batch.row_count > 0 || output.is_empty {
            batch.send(input, output)?;
        }
    }
    Ok(())
}

/// Hands over each record of a file with its line where that is known (NDJSON).
fn each_record(
    input: &Input,
    options: &Options,
    take: &mut dyn FnMut(Record, Option<u64>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut text = input.text(options.encoding)?;
    if options.format(&input.path) == Some(Format::Ndjson) {
        return each_line(input, text.as_mut(), take);
    }
    let mut stopped = None;
    let mut number = 0_u64;
    let mut each = |value: Value| {
        number += 1;
        let result = match value {
            Value::Object(record) => take(record, None),
            other => Err(not_an_object(input, &format!(", record {number}"), &other).into()),
        };
        match result {
            Ok(()) => true,
            Err(error) => {
                stopped = Some(error);
                false
            }
        }
    };
    let head = text.fill_buf().map_err(|error| input.failed(error))?;
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace()).copied();
    let result = if first.is_none() {
        Ok(())
    } else if first == Some(b'[') || !options.records.is_empty() {
        let mut json = serde_json::Deserializer::from_reader(text);
        Records { path: &options.records, each: &mut each }.deserialize(&mut json).and_then(|()| json.end())
    } else {
        serde_json::Deserializer::from_reader(text)
            .into_iter::<Value>()
            .try_for_each(|value| if each(value?) { Ok(()) } else { Err(serde::de::Error::custom("stopped")) })
    };
    match (stopped, result) {
        (Some(stopped), _) => Err(stopped),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(broken(input, error).into()),
    }
}

fn each_line(
    input: &Input,
    text: &mut dyn BufRead,
    take: &mut dyn FnMut(Record, Option<u64>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        if text.read_until(b'\n', &mut line).map_err(|error| input.failed(error))? == 0 {
            return Ok(());
        }
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = format!(":{number}");
        match serde_json::from_slice(&line) {
            Ok(Value::Object(record)) => take(record, Some(number))?,
            Ok(other) => return Err(not_an_object(input, &place, &other).into()),
            Err(error) => {
                let what = format!("the line is not one JSON object (column {})", error.column());
                return Err(input.malformed(&place, &what).because(error).into());
            }
        }
    }
}

fn not_an_object(input: &Input, place: &str, value: &Value) -> ConnectError {
    let what = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    input.malformed(place, &format!("a record must be an object, and this is {what}"))
}

fn broken(input: &Input, error: serde_json::Error) -> ConnectError {
    if error.is_io() {
        return input.failed(error.into());
    }
    let place = format!(":{}:{}", error.line(), error.column());
    let what = if error.is_eof() { "the document ends too early" } else { "this is not JSON" };
    input.malformed(&place, what).because(error)
}

/// Walks to the list of records and hands over each element without holding the list.
struct Records<'a, F> {
    path: &'a [String],
    each: &'a mut F,
}

impl<'de, F: FnMut(Value) -> bool> DeserializeSeed<'de> for Records<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Value) -> bool> Visitor<'de> for Records<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.first() {
            Some(key) => write!(formatter, "an object with the key `{key}` (from `records:`)"),
            None => formatter.write_str("a list of records"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.path.split_first() else {
            return Err(serde::de::Error::custom("a list of records is expected here, and this is an object; set `records:`"));
        };
        let mut is_found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted && !is_found {
                map.next_value_seed(Records { path: rest, each: self.each })?;
                is_found = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if is_found {
            Ok(())
        } else {
            Err(serde::de::Error::custom(format!("the key `{wanted}` (from `records:`) is not there")))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Some(key) = self.path.first() {
            return Err(serde::de::Error::custom(format!("an object with the key `{key}` (from `records:`) is expected here")));
        }
        while let Some(value) = list.next_element::<Value>()? {
            if !(self.each)(value) {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// What the values of a column are, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only nulls.
    Null,
    Boolean,
    Integer,
    Decimal {
        scale: u8,
    },
    Text,
    Json,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::String(_) => Self::Text,
            Value::Array(_) | Value::Object(_) => Self::Json,
            Value::Number(number) => {
                let text = number.to_string();
                let fits = |scale| convert::parse_decimal(&text, subak_domain::schema::DECIMAL_PRECISION_MAX, scale).is_some();
                if text.parse::<i64>().is_ok() {
                    Self::Integer
                } else if fits(SCALE_USUAL) {
                    Self::Decimal { scale: SCALE_USUAL }
                } else {
                    (SCALE_USUAL..=30).find(|scale| fits(*scale)).map_or(Self::Text, |scale| Self::Decimal { scale })
                }
            }
        }
    }

    /// The narrowest kind that holds both exactly.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (Self::Json, _) | (_, Self::Json) => Self::Json,
            (Self::Integer, Self::Decimal { scale }) | (Self::Decimal { scale }, Self::Integer) if scale <= SCALE_USUAL => {
                Self::Decimal { scale }
            }
            _ => Self::Text,
        }
    }

    fn arrow_type(self) -> ArrowType {
        match self {
            Self::Boolean => ArrowType::Boolean,
            Self::Integer => ArrowType::Int64,
            Self::Decimal { scale } => ArrowType::Decimal128(subak_domain::schema::DECIMAL_PRECISION_MAX, scale.cast_signed()),
            Self::Null | Self::Text | Self::Json => ArrowType::Utf8,
        }
    }
}

/// The columns in the order in which they first appear.
#[derive(Default)]
struct Shapes(Vec<(String, Kind)>);

impl Shapes {
    fn see(&mut self, record: &Record) {
        for (at, (name, value)) in record.iter().enumerate() {
            let kind = Kind::of(value);
            // Records of one file mostly have their keys in one order.
            let place = match self.0.get(at) {
                Some((known, _)) if known == name => Some(at),
                _ => self.0.iter().position(|(known, _)| known == name),
            };
            match place {
                Some(place) => self.0[place].1 = self.0[place].1.with(kind),
                None => self.0.push((name.clone(), kind)),
            }
        }
    }
}

enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Decimal(Decimal128Builder, u8),
    Text(StringBuilder),
    Json(StringBuilder),
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Decimal { scale } => Self::Decimal(Decimal128Builder::new().with_data_type(kind.arrow_type()), scale),
            Kind::Null | Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Json => Self::Json(StringBuilder::new()),
        }
    }

    fn push(&mut self, value: Option<&Value>) {
        let value = value.filter(|value| !value.is_null());
        match self {
            Self::Boolean(builder) => builder.append_option(value.and_then(Value::as_bool)),
            Self::Integer(builder) => builder.append_option(value.and_then(Value::as_i64)),
            Self::Decimal(builder, scale) => {
                let precision = subak_domain::schema::DECIMAL_PRECISION_MAX;
                builder.append_option(value.and_then(|value| convert::parse_decimal(&value.to_string(), precision, *scale)));
            }
            Self::Text(builder) => match value {
                Some(Value::String(text)) => builder.append_value(text),
                other => builder.append_option(other.map(Value::to_string)),
            },
            Self::Json(builder) => builder.append_option(value.map(Value::to_string)),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, _) => Arc::new(builder.finish()),
            Self::Text(builder) | Self::Json(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Rows that wait to be sent.
struct Pending<'a> {
    schema: &'a SchemaRef,
    columns: &'a [(String, Kind)],
    builders: Vec<Builder>,
    lines: Vec<u64>,
    row_count: usize,
    bytes: usize,
}

impl<'a> Pending<'a> {
    fn new(schema: &'a SchemaRef, columns: &'a [(String, Kind)]) -> Self {
        let builders = columns.iter().map(|(_, kind)| Builder::new(*kind)).collect();
        Self { schema, columns, builders, lines: Vec::new(), row_count: 0, bytes: 0 }
    }

    fn push(&mut self, record: &Record, line: Option<u64>) {
        for ((name, _), builder) in self.columns.iter().zip(&mut self.builders) {
            let value = record.get(name);
            self.bytes += match value {
                Some(Value::String(text)) => text.len(),
                _ => 16,
            };
            builder.push(value);
        }
        self.row_count += 1;
        self.lines.extend(line);
    }

    fn is_full(&self) -> bool {
        self.row_count >= BATCH_ROW_COUNT_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn send(&mut self, input: &Input, output: &mut Output<'_>) -> Result<(), Stopped> {
        let arrays: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count));
        let records = RecordBatch::try_new_with_options(Arc::clone(self.schema), arrays, &options).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "JSON rows do not fit their own schema").because(error)
        })?;
        let lines = std::mem::take(&mut self.lines);
        (self.row_count, self.bytes) = (0, 0);
        output.send(records, Origin { file: Some(Arc::clone(&input.name)), lines: (!lines.is_empty()).then(|| lines.into()) })
    }
}
