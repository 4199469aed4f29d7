//! Records without a schema of their own, such as JSON objects, documents and rows of cells. The types of the columns follow from *all*
//! values, so whoever reads records goes through them twice: once to see ([`Shapes`]), once to take them ([`Rows`]).
//!
//! Each column gets the narrowest type that holds every value exactly; values of several types become text, and a person is told.

#[cfg(any(feature = "files", feature = "http"))]
pub(crate) mod json;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX, MAY_MISFIT, OPEN_SCHEMA};
use subak_connect::{Batch, ConnectError, ConnectErrorKind, Misfit, Origin, convert};
use subak_domain::DataType;
use subak_domain::schema::DECIMAL_PRECISION_MAX;

use crate::builder::Builder;

/// Digits after the point of a number without a declared type: a fixed scale keeps the type the same from load to load.
const SCALE_USUAL: u8 = 9;

/// Most digits after the point that a column of decimals gets by itself.
const SCALE_MAX: u8 = 30;

/// Integers up to here are doubles too: 2^53.
const EXACT_MAX: u64 = 1 << 53;

/// One value of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    /// The digits of a number as they were written.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// A list or an object as JSON without blanks.
    Nested(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 on the clock of nobody said where.
    DateTime(i64),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// What the type of its column cannot hold.
    Misfit {
        kind: Kind,
        text: String,
        problem: &'static str,
    },
}

/// The fields of a record in their order, each name once.
pub(crate) type Record<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// What the values of a column are, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only nulls.
    Null,
    Boolean,
    Integer {
        /// Whether one of them is beyond what a double holds exactly.
        is_wide: bool,
    },
    Double,
    Decimal {
        scale: u8,
        /// Digits before the point.
        whole: u8,
    },
    Text,
    Json,
    Bytes,
    Date,
    DateTime,
    Timestamp,
}

impl Kind {
    /// Decimals as they mostly are.
    #[cfg(feature = "mongodb")]
    pub(crate) const DECIMAL_USUAL: Self = Self::Decimal { scale: SCALE_USUAL, whole: 1 };

    pub(crate) fn of(value: &Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(_) => Self::Boolean,
            Value::Integer(number) => Self::Integer { is_wide: number.unsigned_abs() > EXACT_MAX },
            Value::Double(_) => Self::Double,
            Value::Number(text) => Self::of_number(text),
            Value::Text(_) => Self::Text,
            Value::Nested(_) => Self::Json,
            Value::Bytes(_) => Self::Bytes,
            Value::Date(_) => Self::Date,
            Value::DateTime(_) => Self::DateTime,
            Value::Timestamp(_) => Self::Timestamp,
            Value::Misfit { kind, .. } => *kind,
        }
    }

    fn of_number(text: &str) -> Self {
        if let Ok(number) = text.parse::<i64>() {
            return Self::Integer { is_wide: number.unsigned_abs() > EXACT_MAX };
        }
        let decimal = |scale: u8| {
            let value = convert::parse_decimal(text, DECIMAL_PRECISION_MAX, scale)?;
            let whole = value.unsigned_abs() / 10_u128.pow(u32::from(scale));
            Some(Self::Decimal { scale, whole: whole.checked_ilog10().map_or(1, |digits| digits as u8 + 1) })
        };
        (SCALE_USUAL..=SCALE_MAX).find_map(decimal).unwrap_or(Self::Text)
    }

    /// The decimals that hold both.
    fn with_decimal(self, scale: u8, whole: u8) -> Self {
        let (scale, whole) = match self {
            Self::Decimal { scale: other, whole: more } => (scale.max(other), whole.max(more)),
            // Digits of 2^53, and of 2^63.
            Self::Integer { is_wide } => (scale, whole.max(if is_wide { 19 } else { 16 })),
            _ => return Self::Text,
        };
        if scale + whole <= DECIMAL_PRECISION_MAX { Self::Decimal { scale, whole } } else { Self::Text }
    }

    /// The narrowest kind that holds both exactly.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (Self::Integer { .. }, Self::Integer { .. }) => Self::Integer { is_wide: true },
            (kind @ (Self::Integer { .. } | Self::Decimal { .. }), Self::Decimal { scale, whole })
            | (Self::Decimal { scale, whole }, kind @ Self::Integer { .. }) => kind.with_decimal(scale, whole),
            (Self::Integer { is_wide: false }, Self::Double) | (Self::Double, Self::Integer { is_wide: false }) => Self::Double,
            (Self::Date, Self::DateTime) | (Self::DateTime, Self::Date) => Self::DateTime,
            // Texts stay as they are beside lists and objects.
            _ => Self::Text,
        }
    }

    /// The kind in which the values of a column are handed over whose type is declared: texts where the declaration says how they are to be
    /// read.
    fn declared(self, declared: Option<DataType>) -> Self {
        let is_same = declared.is_some_and(|declared| convert::arrow_type(declared) == self.arrow_type());
        match (declared, self) {
            (None, kind) => kind,
            (Some(DataType::Json), _) => Self::Json,
            (Some(DataType::Text), _) => Self::Text,
            (Some(DataType::Bytes), Self::Bytes | Self::Text) => Self::Bytes,
            (Some(DataType::Timestamp), Self::Date | Self::DateTime | Self::Timestamp) => Self::Timestamp,
            (Some(DataType::Date | DataType::DateTime), Self::DateTime | Self::Timestamp) => Self::DateTime,
            (Some(DataType::Date | DataType::DateTime), Self::Date) => self,
            (
                Some(
                    DataType::SmallInt
                    | DataType::Integer
                    | DataType::BigInt
                    | DataType::UnsignedBigInt
                    | DataType::Real
                    | DataType::Double
                    | DataType::Decimal { .. },
                ),
                Self::Double,
            ) => self,
            (Some(_), Self::Integer { .. }) if is_same => self,
            (Some(_), _) => Self::Text,
        }
    }

    fn arrow_type(self) -> ArrowType {
        match self {
            Self::Boolean => ArrowType::Boolean,
            Self::Integer { .. } => ArrowType::Int64,
            Self::Double => ArrowType::Float64,
            Self::Decimal { scale, .. } => ArrowType::Decimal128(DECIMAL_PRECISION_MAX, scale.cast_signed()),
            Self::Null | Self::Text | Self::Json => ArrowType::Utf8,
            Self::Bytes => ArrowType::Binary,
            Self::Date => ArrowType::Date32,
            Self::DateTime => convert::arrow_type(DataType::DateTime),
            Self::Timestamp => convert::arrow_type(DataType::Timestamp),
        }
    }

    /// For people, and the place among [`WORDS`].
    fn word(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Boolean => 1,
            Self::Integer { .. } | Self::Double | Self::Decimal { .. } => 2,
            Self::Text => 3,
            Self::Json => 4,
            Self::Bytes => 5,
            Self::Date | Self::DateTime | Self::Timestamp => 6,
        }
    }
}

const WORDS: [&str; 7] = ["null", "boolean", "number", "text", "list or object", "bytes", "date or time"];

/// What is known of a column.
#[derive(Debug)]
struct Shape {
    name: String,
    kind: Kind,
    may_misfit: bool,
    /// How many values there are of each of [`WORDS`].
    counts: [u64; WORDS.len()],
    /// The number of the last record that has it, from 1.
    last: u64,
}

/// The columns in the order in which they first appear.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    columns: Vec<Shape>,
    places: HashMap<String, usize>,
    record_count: u64,
    /// Names that a record has twice.
    twice: Vec<String>,
}

impl Shapes {
    pub(crate) fn begin_record(&mut self) {
        self.record_count += 1;
    }

    /// Takes notice of the value at place `at` of the record that was begun.
    pub(crate) fn note(&mut self, at: usize, name: &str, kind: Kind, is_misfit: bool) {
        // Records mostly have their keys in one order.
        let place = match self.columns.get(at) {
            Some(known) if known.name == name => Some(at),
            _ => self.places.get(name).copied(),
        };
        let place = place.unwrap_or_else(|| {
            self.places.insert(name.to_owned(), self.columns.len());
            self.columns.push(Shape {
                name: name.to_owned(),
                kind: Kind::Null,
                may_misfit: false,
                counts: [0; WORDS.len()],
                last: 0,
            });
            self.columns.len() - 1
        });
        let shape = &mut self.columns[place];
        if shape.last == self.record_count && !self.twice.iter().any(|known| known == name) {
            self.twice.push(name.to_owned());
        }
        shape.last = self.record_count;
        shape.kind = shape.kind.with(kind);
        shape.counts[kind.word()] += 1;
        shape.may_misfit |= is_misfit;
    }

    /// Takes notice of values of a column that was noted before.
    #[cfg(feature = "files")]
    pub(crate) fn note_many(&mut self, name: &str, kind: Kind, is_misfit: bool, count: u64) {
        let Some(shape) = self.places.get(name).and_then(|place| self.columns.get_mut(*place)) else { return };
        shape.kind = shape.kind.with(kind);
        shape.counts[kind.word()] += count;
        shape.may_misfit |= is_misfit;
    }

    pub(crate) fn see(&mut self, record: &Record<'_>) {
        self.begin_record();
        for (at, (name, value)) in record.iter().enumerate() {
            self.note(at, name, Kind::of(value), matches!(value, Value::Misfit { .. }));
        }
    }

    /// What a person should know.
    pub(crate) fn warnings(&self, declared: &BTreeMap<String, DataType>) -> Vec<String> {
        let twice = self.twice.iter().map(|name| format!("records have the key `{name}` twice; the first value counts"));
        let mixed = self.columns.iter().filter(|shape| !declared.contains_key(&shape.name)).filter_map(|shape| {
            let parts: Vec<String> = (1..WORDS.len())
                .filter(|at| shape.counts[*at] > 0)
                .map(|at| format!("{} ×{}", WORDS[at], shape.counts[at]))
                .collect();
            let is_mixed = parts.len() > 1 && shape.kind == Kind::Text;
            is_mixed.then(|| format!("`{}` has values of several types ({}); all are kept as text", shape.name, parts.join(", ")))
        });
        twice.chain(mixed).collect()
    }

    /// The columns, those with a declared type as it needs them.
    pub(crate) fn finish(self, declared: &BTreeMap<String, DataType>) -> Shaped {
        let kinds: Vec<Kind> = self.columns.iter().map(|shape| shape.kind.declared(declared.get(&shape.name).copied())).collect();
        let field = |(shape, kind): (&Shape, &Kind)| {
            let mut field = Field::new(&shape.name, kind.arrow_type(), true);
            if shape.may_misfit {
                field.set_metadata(HashMap::from([(MAY_MISFIT.to_owned(), "true".to_owned())]));
            }
            field
        };
        let fields: Vec<Field> = self.columns.iter().zip(&kinds).map(field).collect();
        let metadata = HashMap::from([(OPEN_SCHEMA.to_owned(), "true".to_owned())]);
        let is_wall = |shape: &Shape| matches!(declared.get(&shape.name), Some(DataType::DateTime | DataType::Date));
        let walls = self.columns.iter().map(is_wall).collect();
        Shaped { schema: Arc::new(Schema::new_with_metadata(fields, metadata)), kinds, walls, places: self.places }
    }
}

/// The columns of records, all of them seen.
#[derive(Debug)]
pub(crate) struct Shaped {
    pub(crate) schema: SchemaRef,
    kinds: Vec<Kind>,
    /// Which columns are declared as times without a zone: instants stand there as the clock in UTC shows them.
    walls: Vec<bool>,
    places: HashMap<String, usize>,
}

/// Rows that wait to be sent.
pub(crate) struct Rows<'a> {
    shaped: &'a Shaped,
    builders: Vec<Builder>,
    /// The number of the last row of this batch that has a value of each column, from 1.
    last: Vec<usize>,
    lines: Vec<u64>,
    row_count: usize,
    bytes: usize,
    misfits: Vec<Misfit>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(shaped: &'a Shaped) -> Self {
        let builders: Vec<Builder> = shaped.kinds.iter().map(|kind| Builder::new(&kind.arrow_type())).collect();
        let last = vec![0; builders.len()];
        Self { shaped, builders, last, lines: Vec::new(), row_count: 0, bytes: 0, misfits: Vec::new() }
    }

    pub(crate) fn begin_row(&mut self, line: u64) {
        self.row_count += 1;
        self.lines.push(line);
    }

    /// Puts the value at place `at` of a record into the row that was begun. Of two values of one name, the first counts.
    pub(crate) fn put(&mut self, at: usize, name: &str, value: &Value<'_>) {
        let fields = self.shaped.schema.fields();
        let place = match fields.get(at) {
            Some(field) if field.name() == name => Some(at),
            _ => self.shaped.places.get(name).copied(),
        };
        let Some(place) = place.filter(|place| self.last[*place] < self.row_count) else { return };
        self.last[place] = self.row_count;
        self.bytes += match value {
            Value::Text(text) | Value::Nested(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 16,
        };
        let (kind, builder) = (self.shaped.kinds[place], &mut self.builders[place]);
        match value {
            // What is of no kind is no value, whatever the others are.
            Value::Misfit { text, problem, kind: own } if *own == Kind::Null || !matches!(kind, Kind::Text | Kind::Json) => {
                builder.append_null();
                self.misfits.push(Misfit { column: place, row: self.row_count - 1, text: text.clone(), problem });
            }
            Value::Timestamp(micros) if kind == Kind::Text && self.shaped.walls[place] => {
                append(builder, kind, &Value::DateTime(*micros));
            }
            value => append(builder, kind, value),
        }
    }

    pub(crate) fn end_row(&mut self) {
        for (last, builder) in self.last.iter().zip(&mut self.builders) {
            if *last < self.row_count {
                builder.append_null();
            }
        }
    }

    pub(crate) fn push(&mut self, record: &Record<'_>, line: u64) {
        self.begin_row(line);
        for (at, (name, value)) in record.iter().enumerate() {
            self.put(at, name, value);
        }
        self.end_row();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.row_count >= BATCH_ROW_COUNT_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// The rows so far, each with its line.
    pub(crate) fn take(&mut self) -> Result<Batch, ConnectError> {
        let arrays: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count));
        let records = RecordBatch::try_new_with_options(Arc::clone(&self.shaped.schema), arrays, &options).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "records do not fit their own schema").because(error)
        })?;
        let lines = std::mem::take(&mut self.lines);
        (self.row_count, self.bytes) = (0, 0);
        self.last.fill(0);
        let origin = Origin { lines: Some(lines.into()), ..Origin::default() };
        Ok(Batch { origin, misfits: std::mem::take(&mut self.misfits), ..Batch::new(records) })
    }
}

/// Appends a value to a column of this kind; what the column cannot hold was seen before, so its kind holds it.
#[expect(clippy::cast_precision_loss, reason = "a column of doubles has no wider integers")]
fn append(builder: &mut Builder, kind: Kind, value: &Value<'_>) {
    match (builder, value) {
        (builder, Value::Null) => builder.append_null(),
        (Builder::Boolean(builder), Value::Boolean(is_true)) => builder.append_value(*is_true),
        (Builder::Int64(builder), Value::Integer(number)) => builder.append_value(*number),
        (Builder::Int64(builder), Value::Number(digits)) => builder.append_option(digits.parse().ok()),
        (Builder::Float64(builder), Value::Double(number)) => builder.append_value(*number),
        (Builder::Float64(builder), Value::Integer(number)) => builder.append_value(*number as f64),
        (Builder::Float64(builder), Value::Number(digits)) => builder.append_option(digits.parse().ok()),
        (Builder::Decimal(builder, ArrowType::Decimal128(_, scale)), Value::Number(digits)) => {
            builder.append_option(convert::parse_decimal(digits, DECIMAL_PRECISION_MAX, scale.unsigned_abs()));
        }
        (Builder::Decimal(builder, ArrowType::Decimal128(_, scale)), Value::Integer(number)) => {
            builder.append_value(i128::from(*number) * 10_i128.pow(u32::from(scale.unsigned_abs())));
        }
        (Builder::Bytes(builder), Value::Bytes(bytes)) => builder.append_value(bytes),
        (Builder::Bytes(builder), Value::Text(text)) => builder.append_value(text.as_bytes()),
        (Builder::Date(builder), Value::Date(days)) => builder.append_value(*days),
        (Builder::Timestamp(builder, _), Value::DateTime(micros) | Value::Timestamp(micros)) => builder.append_value(*micros),
        (Builder::Timestamp(builder, _), Value::Date(days)) => builder.append_value(i64::from(*days) * 86_400_000_000),
        (Builder::Text(builder), value) if kind == Kind::Json => builder.append_value(json_of(value)),
        (Builder::Text(builder), value) => builder.append_value(text_of(value)),
        // Every value has gone through `Shapes`, so there is none of another kind.
        (builder, _) => builder.append_null(),
    }
}

/// The text of a value that stands in a column of texts.
pub(crate) fn text_of<'v>(value: &'v Value<'_>) -> Cow<'v, str> {
    match value {
        Value::Null => Cow::Borrowed("null"),
        Value::Boolean(is_true) => Cow::Borrowed(if *is_true { "true" } else { "false" }),
        Value::Integer(number) => Cow::Owned(number.to_string()),
        Value::Double(number) => Cow::Owned(double_text(*number)),
        Value::Number(text) | Value::Text(text) | Value::Nested(text) => Cow::Borrowed(text),
        Value::Bytes(bytes) => Cow::Owned(hex(bytes)),
        Value::Date(days) => Cow::Owned(convert::format_date(*days).unwrap_or_default()),
        Value::DateTime(micros) => Cow::Owned(convert::format_datetime(*micros).unwrap_or_default()),
        Value::Timestamp(micros) => Cow::Owned(convert::format_timestamp(*micros).unwrap_or_default()),
        Value::Misfit { text, .. } => Cow::Borrowed(text),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The shortest digits that read back as the same number, as Arrow writes them too: a table's column is one, whoever made text of the values.
pub(crate) fn double_text(number: f64) -> String {
    format!("{number:?}")
}

/// The value as JSON. Numbers that JSON has no form for are texts.
pub(crate) fn json_of<'v>(value: &'v Value<'_>) -> Cow<'v, str> {
    match value {
        Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Number(_) | Value::Nested(_) => text_of(value),
        Value::Double(number) if number.is_finite() => text_of(value),
        value => Cow::Owned(serde_json::Value::from(text_of(value).as_ref()).to_string()),
    }
}

/// A record as a JSON object.
pub(crate) fn to_json(record: &Record<'_>) -> String {
    let part = |(key, value): &(Cow<'_, str>, Value<'_>)| format!("{}:{}", serde_json::Value::from(key.as_ref()), json_of(value));
    let parts: Vec<String> = record.iter().map(part).collect();
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[Value<'static>], declared: Option<DataType>) -> (ArrowType, Vec<String>, Vec<String>) {
        let mut shapes = Shapes::default();
        let records: Vec<Record<'_>> = values.iter().map(|value| vec![(Cow::Borrowed("v"), value.clone())]).collect();
        for record in &records {
            shapes.see(record);
        }
        let declared = declared.map(|declared| ("v".to_owned(), declared)).into_iter().collect();
        let warnings = shapes.warnings(&declared);
        let shaped = shapes.finish(&declared);
        let mut rows = Rows::new(&shaped);
        for record in &records {
            rows.push(record, 1);
        }
        let batch = rows.take().expect("a batch");
        let array = batch.records.column(0);
        let texts = (0..array.len())
            .map(|row| if array.is_null(row) { "NULL".to_owned() } else { convert::text_at(array, row) })
            .collect();
        (array.data_type().clone(), texts, warnings)
    }

    #[test]
    fn columns_are_as_narrow_as_holds_every_value() {
        let number = |text: &'static str| Value::Number(Cow::Borrowed(text));
        let text = |text: &'static str| Value::Text(Cow::Borrowed(text));
        for (values, data_type, texts) in [
            (vec![Value::Integer(1), Value::Null, number("2")], ArrowType::Int64, vec!["1", "NULL", "2"]),
            (vec![Value::Integer(1), Value::Double(0.5)], ArrowType::Float64, vec!["1.0", "0.5"]),
            // 2^53 + 1 is no double.
            (vec![Value::Integer(9_007_199_254_740_993), Value::Double(0.5)], ArrowType::Utf8, vec!["9007199254740993", "0.5"]),
            (vec![number("0.1"), Value::Integer(-3)], ArrowType::Decimal128(38, 9), vec!["0.100000000", "-3.000000000"]),
            (
                vec![number("0.1"), number("0.0000000000001")],
                ArrowType::Decimal128(38, 13),
                vec!["0.1000000000000", "0.0000000000001"],
            ),
            // 30 digits before the point and 9 after it are too many.
            (
                vec![number("123456789012345678901234567890"), number("0.000000001")],
                ArrowType::Utf8,
                vec!["123456789012345678901234567890", "0.000000001"],
            ),
            (vec![number("1e400"), number("1")], ArrowType::Utf8, vec!["1e400", "1"]),
            (
                vec![Value::Date(0), Value::DateTime(1)],
                convert::arrow_type(DataType::DateTime),
                vec!["1970-01-01 00:00:00", "1970-01-01 00:00:00.000001"],
            ),
            (
                vec![text("a"), Value::Boolean(true), Value::Bytes(Cow::Borrowed(b"\x0a\xff"))],
                ArrowType::Utf8,
                vec!["a", "true", "0aff"],
            ),
            (vec![Value::Double(f64::NAN), text("x")], ArrowType::Utf8, vec!["NaN", "x"]),
        ] {
            let (found, found_texts, _) = column(&values, None);
            assert_eq!((&found, &found_texts), (&data_type, &texts.into_iter().map(str::to_owned).collect()), "{values:?}");
        }
    }

    #[test]
    fn several_types_in_one_column_are_told() {
        let values = [Value::Integer(1), Value::Text(Cow::Borrowed("x")), Value::Integer(2), Value::Null];
        let (_, _, warnings) = column(&values, None);
        assert_eq!(warnings, ["`v` has values of several types (number ×2, text ×1); all are kept as text"]);
        assert!(column(&values, Some(DataType::Text)).2.is_empty(), "whoever declares text knows");
    }

    #[test]
    fn declared_columns_come_as_they_are_read_best() {
        let at = Value::Timestamp(86_400_000_000);
        let texts_of = |values: &[Value<'static>], declared| column(values, Some(declared)).1;
        assert_eq!(texts_of(std::slice::from_ref(&at), DataType::DateTime), ["1970-01-02 00:00:00"]);
        assert_eq!(texts_of(&[Value::Date(1), at.clone()], DataType::Date), ["1970-01-02", "1970-01-02 00:00:00"]);
        assert_eq!(texts_of(&[Value::Date(1)], DataType::Timestamp), ["1970-01-02T00:00:00Z"]);
        assert_eq!(
            texts_of(&[Value::Bytes(Cow::Borrowed(b"ab")), Value::Text(Cow::Borrowed("c"))], DataType::Bytes),
            ["6162", "63"]
        );
        // A number is no time: whoever converts it refuses it.
        assert_eq!(column(&[Value::Double(1.7e12)], Some(DataType::Timestamp)).0, ArrowType::Utf8);
        let (data_type, texts, _) = column(&[Value::Double(2778.15), Value::Integer(7)], Some(DataType::Text));
        assert_eq!((data_type, texts), (ArrowType::Utf8, vec!["2778.15".to_owned(), "7".to_owned()]));
        let (data_type, ..) = column(&[Value::Integer(7)], Some(DataType::BigInt));
        assert_eq!(data_type, ArrowType::Int64);
        let (_, texts, _) = column(&[Value::Text(Cow::Borrowed("a\"b"))], Some(DataType::Json));
        assert_eq!(texts, ["\"a\\\"b\""]);
    }
}
