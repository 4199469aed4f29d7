//! JSON documents and NDJSON. Numbers keep every digit: they become integers or exact decimals, or text where neither holds
//! them, and never pass through floating point. Nested values stay JSON text, number by number as they were written.
//!
//! Without declared types the types follow from *all* rows, so files are read twice: once to see, once to load.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Decimal128Builder, Int64Builder, StringBuilder};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX, OPEN_SCHEMA};
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ConnectErrorKind, Origin, ReadRequest, Reject, convert};
use subak_domain::DataType;

use super::input::Input;
use super::options::{Format, Options};
use super::{Output, debezium};

/// Digits after the point of a number without a declared type: a fixed scale keeps the type the same from file to file.
const SCALE_USUAL: u8 = 9;

/// Levels of lists and objects inside one value.
const DEPTH_MAX: usize = 500;

/// Bytes in one record.
const RECORD_LENGTH_MAX: usize = 256 * 1024 * 1024;

/// One value of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    /// Its digits as they were written.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// A list or an object as JSON without blanks.
    Nested(String),
}

/// The fields of a record in their order. A key that comes twice keeps its first place and its last value.
pub(super) type Record<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// What one place of a file holds.
pub(super) enum Found<'a> {
    Record(Record<'a>),
    Refused { reason: String, raw: &'a str },
}

/// Takes what is found: with the line, or in a document the number of the record, from 1.
type Take<'t> = dyn FnMut(Found<'_>, u64) -> Result<(), Stopped> + 't;

/// Reads every file.
pub(super) fn read(inputs: &[Input], options: &Options, request: &ReadRequest, output: &mut Output<'_>) -> Result<(), Stopped> {
    let mut shapes = Shapes::default();
    for input in inputs {
        each_record(input, options, request, &mut |found, _| {
            if let Found::Record(record) = found {
                shapes.see(&record);
            }
            Ok(())
        })?;
    }
    for warning in shapes.warnings.drain(..) {
        output.warn(warning)?;
    }
    let columns: Vec<(String, Kind)> = shapes
        .columns
        .into_iter()
        .map(|(name, kind)| match request.columns.get(&name) {
            Some(DataType::Json) => (name, Kind::Json),
            Some(_) => (name, Kind::Text),
            _ => (name, kind),
        })
        .collect();
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(name, kind.arrow_type(), true)).collect();
    let metadata = HashMap::from([(OPEN_SCHEMA.to_owned(), "true".to_owned())]);
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, metadata));
    for input in inputs {
        let mut batch = Pending::new(&schema, &columns);
        each_record(input, options, request, &mut |found, line| match found {
            Found::Record(record) => {
                batch.push(&record, line);
                if batch.is_full() { batch.send(input, output) } else { Ok(()) }
            }
            Found::Refused { reason, raw } => output.refuse(Reject {
                reason,
                file: Some(Arc::clone(&input.name)),
                line: Some(line),
                row: if raw.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(raw).is_ok() {
                    raw.trim().to_owned()
                } else {
                    serde_json::Value::from(raw.trim_end()).to_string()
                },
                ..Reject::default()
            }),
        })?;
        if batch.row_count > 0 || output.is_empty {
            batch.send(input, output)?;
        }
        output.end_file(input)?;
    }
    Ok(())
}

/// Hands over each record of a file.
pub(super) fn each_record(input: &Input, options: &Options, request: &ReadRequest, take: &mut Take<'_>) -> Result<(), Stopped> {
    let mut decoded = |found: Found<'_>, line: u64| match found {
        Found::Record(record) if options.is_debezium => match debezium::flatten(&record, &request.columns, options.spelling) {
            Ok(Some(record)) => take(Found::Record(record), line),
            Ok(None) => Ok(()),
            Err(reason) => {
                let raw = to_json(&record);
                take(Found::Refused { reason, raw: &raw }, line)
            }
        },
        // Behind a deletion Kafka gets an event without a value, so that it may forget the key.
        Found::Refused { raw, .. } if options.is_debezium && raw.trim() == "null" => Ok(()),
        found => take(found, line),
    };
    let (mut text, _) = input.text(options.encoding)?;
    if options.format(&input.path) == Some(Format::Ndjson) {
        return each_line(input, text.as_mut(), &mut decoded);
    }
    let Some((first, skipped)) = skip_blank(text.as_mut()).map_err(|error| input.failed(error))? else { return Ok(()) };
    let mut stopped = None;
    let mut number = 0_u64;
    let mut each = |raw: &RawValue| {
        number += 1;
        let result = decoded(parse(raw.get()), number);
        result.map_err(|error| stopped = Some(error)).is_ok()
    };
    let result = if first == b'[' || !options.records.is_empty() {
        let mut json = serde_json::Deserializer::from_reader(text);
        Records { path: &options.records, each: &mut each }.deserialize(&mut json).and_then(|()| json.end())
    } else {
        serde_json::Deserializer::from_reader(text)
            .into_iter::<Box<RawValue>>()
            .try_for_each(|value| if each(&value?) { Ok(()) } else { Err(serde::de::Error::custom("stopped")) })
    };
    match (stopped, result) {
        (Some(stopped), _) => Err(stopped),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(broken(input, error, skipped).into()),
    }
}

/// The first byte that is not blank, which stays unread, and the line ends before it. `None` at the end of the file.
fn skip_blank(text: &mut dyn BufRead) -> std::io::Result<Option<(u8, usize)>> {
    let mut lines = 0;
    loop {
        let buffer = text.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let blank = buffer.iter().take_while(|byte| is_blank(**byte)).count();
        lines += memchr::memchr_iter(b'\n', &buffer[..blank]).count();
        let first = buffer.get(blank).copied();
        text.consume(blank);
        if let Some(first) = first {
            return Ok(Some((first, lines)));
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn each_line(input: &Input, text: &mut dyn BufRead, take: &mut Take<'_>) -> Result<(), Stopped> {
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut *text, RECORD_LENGTH_MAX as u64 + 1);
        if bounded.read_until(b'\n', &mut line).map_err(|error| input.failed(error))? == 0 {
            return Ok(());
        }
        number += 1;
        if line.len() > RECORD_LENGTH_MAX {
            let what = format!("the line is longer than {RECORD_LENGTH_MAX} bytes");
            return Err(input.malformed(&format!(":{number}"), &what).into());
        }
        if line.iter().all(|byte| is_blank(*byte)) {
            continue;
        }
        match std::str::from_utf8(&line) {
            Ok(text) => take(parse(text), number)?,
            Err(error) => {
                let reason = format!("the line is not UTF-8 at byte {}; is another `encoding:` meant?", error.valid_up_to() + 1);
                let shown = String::from_utf8_lossy(&line);
                take(Found::Refused { reason, raw: &shown }, number)?;
            }
        }
    }
}

/// Takes one record apart.
fn parse(text: &str) -> Found<'_> {
    let refused = |reason: String| Found::Refused { reason, raw: text };
    let what = match text.trim_start().as_bytes().first() {
        Some(b'{') => None,
        Some(b'[') => Some("a list"),
        Some(b'"') => Some("a text"),
        Some(b't' | b'f') => Some("a boolean"),
        Some(b'n') => Some("null"),
        Some(b'-' | b'0'..=b'9') => Some("a number"),
        _ => None,
    };
    if let Some(what) = what
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
    {
        return refused(format!("a record must be an object, and this is {what}"));
    }
    let raw: RawRecord<'_> = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) if error.is_eof() => return refused("the record ends too early; this is not complete JSON".to_owned()),
        Err(error) => return refused(format!("this is not one JSON object: {error}")),
    };
    let mut record = Record::with_capacity(raw.0.len());
    let mut twice: Option<usize> = None;
    for (key, value) in raw.0 {
        let value = match value_of(value.get()) {
            Ok(value) => value,
            Err(reason) => return refused(format!("the value of `{key}` {reason}")),
        };
        match record.iter().position(|(known, _)| *known == key) {
            Some(at) => {
                record[at].1 = value;
                twice.get_or_insert(at);
            }
            None => record.push((Cow::Owned(key), value)),
        }
    }
    if let Some(at) = twice {
        // Told once per column by whoever collects shapes; the last value counts.
        let name = format!("{TWICE}{}", record[at].0);
        record.push((Cow::Owned(name), Value::Null));
    }
    Found::Record(record)
}

/// Before the name of a key that a record has twice. No key of a file begins so: keys are texts, and this is a control character.
const TWICE: &str = "\u{1}twice ";

/// What a value is. `Err` says what is wrong with it.
pub(super) fn value_of(raw: &str) -> Result<Value<'_>, String> {
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'"') => {
            let inner = &raw[1..raw.len() - 1];
            if inner.contains('\\') {
                Value::Text(Cow::Owned(serde_json::from_str(raw).map_err(|error| format!("is no text: {error}"))?))
            } else {
                Value::Text(Cow::Borrowed(inner))
            }
        }
        Some(b'[' | b'{') => Value::Nested(compact(raw)?),
        _ => Value::Number(Cow::Borrowed(raw)),
    })
}

/// The JSON without blanks between its parts; nothing else changes.
fn compact(raw: &str) -> Result<String, String> {
    let mut result = String::with_capacity(raw.len());
    let (mut depth, mut start, mut at) = (0_usize, 0, 0);
    let bytes = raw.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
                }
            }
            b']' | b'}' => depth -= 1,
            byte if is_blank(byte) => {
                result.push_str(&raw[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    result.push_str(&raw[start..]);
    if result.contains("\\u") {
        serde_json::from_str::<serde_json::Value>(&result).map_err(|error| format!("is no JSON: {error}"))?;
    }
    Ok(result)
}

/// A record as a JSON object.
pub(super) fn to_json(record: &Record<'_>) -> String {
    let part = |(key, value): &(Cow<'_, str>, Value<'_>)| {
        let key = serde_json::Value::from(key.as_ref()).to_string();
        let value = match value {
            Value::Null => "null".to_owned(),
            Value::Boolean(is_true) => is_true.to_string(),
            Value::Number(digits) => digits.to_string(),
            Value::Text(text) => serde_json::Value::from(text.as_ref()).to_string(),
            Value::Nested(json) => json.clone(),
        };
        format!("{key}:{value}")
    };
    let parts: Vec<String> = record.iter().filter(|(key, _)| !key.starts_with(TWICE)).map(part).collect();
    format!("{{{}}}", parts.join(","))
}

/// The keys and values of an object, as they stand there.
struct RawRecord<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawRecord<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &RawValue>()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(RawRecord)
    }
}

fn broken(input: &Input, error: serde_json::Error, skipped: usize) -> ConnectError {
    if error.is_io() {
        return input.failed(error.into());
    }
    let place = format!(":{}:{}", error.line() + skipped, error.column());
    let what = if error.is_eof() { "the document ends too early" } else { "this is not JSON" };
    input.malformed(&place, what).because(error)
}

/// Walks to the list of records and hands over each element without holding the list.
struct Records<'a, F> {
    path: &'a [String],
    each: &'a mut F,
}

impl<'de, F: FnMut(&RawValue) -> bool> DeserializeSeed<'de> for Records<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&RawValue) -> bool> Visitor<'de> for Records<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        while let Some(value) = list.next_element::<Box<RawValue>>()? {
            if !(self.each)(&value) {
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
    fn of(value: &Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(_) => Self::Boolean,
            Value::Text(_) => Self::Text,
            Value::Nested(_) => Self::Json,
            Value::Number(text) => {
                let fits = |scale| convert::parse_decimal(text, subak_domain::schema::DECIMAL_PRECISION_MAX, scale).is_some();
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
            // Texts stay as they are beside lists and objects.
            (Self::Json, _) | (_, Self::Json) => Self::Text,
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
struct Shapes {
    columns: Vec<(String, Kind)>,
    warnings: Vec<String>,
}

impl Shapes {
    fn see(&mut self, record: &Record<'_>) {
        for (at, (name, value)) in record.iter().enumerate() {
            if let Some(name) = name.strip_prefix(TWICE) {
                let warning = format!("records have the key `{name}` twice; the last value counts");
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
                continue;
            }
            let kind = Kind::of(value);
            // Records of one file mostly have their keys in one order.
            let place = match self.columns.get(at) {
                Some((known, _)) if known == name => Some(at),
                _ => self.columns.iter().position(|(known, _)| known == name),
            };
            match place {
                Some(place) => self.columns[place].1 = self.columns[place].1.with(kind),
                None => self.columns.push((name.to_string(), kind)),
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

    fn push(&mut self, value: Option<&Value<'_>>) {
        let value = value.filter(|value| **value != Value::Null);
        match self {
            Self::Boolean(builder) => builder.append_option(match value {
                Some(Value::Boolean(is_true)) => Some(*is_true),
                _ => None,
            }),
            Self::Integer(builder) => builder.append_option(number(value).and_then(|digits| digits.parse().ok())),
            Self::Decimal(builder, scale) => {
                let precision = subak_domain::schema::DECIMAL_PRECISION_MAX;
                builder.append_option(number(value).and_then(|digits| convert::parse_decimal(digits, precision, *scale)));
            }
            Self::Text(builder) => match value {
                None | Some(Value::Null) => builder.append_null(),
                Some(Value::Text(text)) => builder.append_value(text),
                Some(Value::Number(digits)) => builder.append_value(digits),
                Some(Value::Boolean(is_true)) => builder.append_value(if *is_true { "true" } else { "false" }),
                Some(Value::Nested(json)) => builder.append_value(json),
            },
            Self::Json(builder) => match value {
                None | Some(Value::Null) => builder.append_null(),
                Some(Value::Text(text)) => builder.append_value(serde_json::Value::from(text.as_ref()).to_string()),
                Some(Value::Number(digits)) => builder.append_value(digits),
                Some(Value::Boolean(is_true)) => builder.append_value(if *is_true { "true" } else { "false" }),
                Some(Value::Nested(json)) => builder.append_value(json),
            },
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

fn number<'v>(value: Option<&'v Value<'_>>) -> Option<&'v str> {
    match value {
        Some(Value::Number(digits)) => Some(digits),
        _ => None,
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

    fn push(&mut self, record: &Record<'_>, line: u64) {
        for (at, ((name, _), builder)) in self.columns.iter().zip(&mut self.builders).enumerate() {
            let value = match record.get(at) {
                Some((known, value)) if known == name => Some(value),
                _ => record.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            };
            self.bytes += match value {
                Some(Value::Text(text)) => text.len(),
                Some(Value::Nested(json)) => json.len(),
                _ => 16,
            };
            builder.push(value);
        }
        self.row_count += 1;
        self.lines.push(line);
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
        output.send(records, Origin { file: Some(Arc::clone(&input.name)), lines: Some(lines.into()), ..Origin::default() })
    }
}
