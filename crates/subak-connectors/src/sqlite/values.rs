//! SQLite's values in Arrow columns and back.
//!
//! SQLite types values, not columns. A column's declared type says what is meant; a value that does not fit it is an error that
//! names the column and the row, never a silent conversion.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use rusqlite::types::{Value, ValueRef};
use subak_connect::convert;
use subak_domain::DataType;

/// The logical type of a declared type, after SQLite's own affinity rules where no better is known
/// (<https://www.sqlite.org/datatype3.html> §3.1).
pub(super) fn declared_type(declared: &str) -> DataType {
    let text = declared.to_ascii_lowercase();
    let (name, arguments) = text.split_once('(').unwrap_or((text.as_str(), ""));
    let numbers: Vec<u8> = arguments.trim_end_matches(')').split(',').map_while(|number| number.trim().parse().ok()).collect();
    match (name.trim(), numbers.as_slice()) {
        ("decimal" | "numeric" | "decimal_text", [precision @ 1..=38, scale]) if scale <= precision => {
            DataType::Decimal { precision: *precision, scale: *scale }
        }
        ("decimal" | "numeric", [precision @ 1..=38]) => DataType::Decimal { precision: *precision, scale: 0 },
        ("boolean" | "bool", _) => DataType::Boolean,
        ("date" | "date_text", _) => DataType::Date,
        ("datetime" | "timestamp" | "datetime_text", _) => DataType::DateTime,
        ("timestamp_text", _) => DataType::Timestamp,
        ("unsigned_text", _) => DataType::UnsignedBigInt,
        (name, _) if name.contains("int") => DataType::BigInt,
        (name, _) if ["char", "clob", "text", "json", "uuid"].iter().any(|word| name.contains(word)) => DataType::Text,
        (name, _) if name.contains("blob") => DataType::Bytes,
        (name, _) if ["real", "floa", "doub"].iter().any(|word| name.contains(word)) => DataType::Double,
        // No declared type, or a numeric one without digits: text holds every value exactly.
        _ => DataType::Text,
    }
}

/// Builds one column.
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u8, u8),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    DateTime(TimestampMicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Unsigned(UInt64Builder),
}

impl Builder {
    pub(super) fn new(data_type: DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::BigInt => Self::Integer(Int64Builder::new()),
            DataType::Double => Self::Double(Float64Builder::new()),
            DataType::Decimal { precision, scale } => {
                let builder = Decimal128Builder::new().with_data_type(ArrowType::Decimal128(precision, scale.cast_signed()));
                Self::Decimal(builder, precision, scale)
            }
            DataType::Bytes => Self::Bytes(BinaryBuilder::new()),
            DataType::Date => Self::Date(Date32Builder::new()),
            DataType::DateTime => Self::DateTime(TimestampMicrosecondBuilder::new()),
            DataType::Timestamp => {
                let builder = TimestampMicrosecondBuilder::new();
                Self::Timestamp(builder.with_data_type(convert::arrow_type(DataType::Timestamp)))
            }
            DataType::UnsignedBigInt => Self::Unsigned(UInt64Builder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// Adds a value. Returns the bytes that it takes, or `None` when it does not fit.
    pub(super) fn push(&mut self, value: ValueRef<'_>) -> Option<usize> {
        if matches!(value, ValueRef::Null) {
            self.push_null();
            return Some(1);
        }
        match (self, value) {
            (Self::Integer(builder), ValueRef::Integer(number)) => builder.append_value(number),
            (Self::Boolean(builder), ValueRef::Integer(number @ (0 | 1))) => builder.append_value(number == 1),
            (Self::Double(builder), ValueRef::Real(number)) => builder.append_value(number),
            (Self::Double(builder), ValueRef::Integer(number)) => builder.append_value(exact_double(number)?),
            (Self::Decimal(builder, precision, scale), value) => {
                builder.append_value(convert::parse_decimal(&text_of(value)?, *precision, *scale)?);
            }
            (Self::Text(builder), value) => {
                let text = text_of(value)?;
                builder.append_value(&text);
                return Some(text.len() + 4);
            }
            (Self::Bytes(builder), ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => {
                builder.append_value(bytes);
                return Some(bytes.len() + 4);
            }
            (Self::Date(builder), ValueRef::Text(text)) => {
                let midnight = convert::parse_datetime(&format!("{} 00:00:00", std::str::from_utf8(text).ok()?))?;
                builder.append_value(i32::try_from(midnight / 86_400_000_000).ok()?);
            }
            (Self::DateTime(builder), ValueRef::Text(text)) => {
                builder.append_value(convert::parse_datetime(std::str::from_utf8(text).ok()?)?);
            }
            (Self::Timestamp(builder), ValueRef::Text(text)) => {
                builder.append_value(convert::parse_timestamp(std::str::from_utf8(text).ok()?)?);
            }
            (Self::Unsigned(builder), value) => builder.append_value(text_of(value)?.parse().ok()?),
            _ => return None,
        }
        Some(8)
    }

    fn push_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Decimal(builder, ..) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::DateTime(builder) | Self::Timestamp(builder) => builder.append_null(),
            Self::Unsigned(builder) => builder.append_null(),
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, ..) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::DateTime(builder) | Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Unsigned(builder) => Arc::new(builder.finish()),
        }
    }
}

fn exact_double(number: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "the comparison with the value cast back refuses any loss")]
    let double = number as f64;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a double that came from an i64 is in range or saturates, and then differs"
    )]
    (double as i128 == i128::from(number)).then_some(double)
}

/// The text of any value that has one. A double gives the shortest text that reads back as the same double: what was written,
/// for up to 15 digits.
pub(super) fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// The SQLite type of a column that is made for these rows.
pub(super) fn sql_type(data_type: &ArrowType) -> Option<String> {
    Some(match convert::logical_type(data_type) {
        DataType::Boolean => "boolean".into(),
        DataType::SmallInt | DataType::Integer | DataType::BigInt => "bigint".into(),
        // Beyond 2^63 SQLite would turn a number into floating point; text keeps it. The word has no `int` in it: that would be integer affinity.
        DataType::UnsignedBigInt => "unsigned_text".into(),
        DataType::Text | DataType::Json | DataType::Uuid | DataType::Time => "text".into(),
        DataType::Real | DataType::Double => "double".into(),
        // NUMERIC affinity would turn digits into floating point; text affinity keeps them.
        DataType::Decimal { precision, scale } => format!("decimal_text({precision},{scale})"),
        DataType::Bytes => "blob".into(),
        DataType::Date => "date_text".into(),
        DataType::DateTime => "datetime_text".into(),
        DataType::Timestamp => "timestamp_text".into(),
    })
    .filter(|_| !matches!(data_type, ArrowType::List(_) | ArrowType::Struct(_) | ArrowType::Map(..)))
}

/// The value of one cell, exact. `None` when SQLite cannot hold it exactly.
pub(super) fn cell(array: &dyn Array, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return Some(Value::Null);
    }
    macro_rules! number {
        ($type:ty) => {
            Value::Integer(i64::from(array.as_primitive::<$type>().value(row)))
        };
    }
    Some(match array.data_type() {
        ArrowType::Null => Value::Null,
        ArrowType::Boolean => Value::Integer(i64::from(array.as_boolean().value(row))),
        ArrowType::Int8 => number!(Int8Type),
        ArrowType::Int16 => number!(Int16Type),
        ArrowType::Int32 => number!(Int32Type),
        ArrowType::Int64 => number!(Int64Type),
        ArrowType::UInt8 => number!(UInt8Type),
        ArrowType::UInt16 => number!(UInt16Type),
        ArrowType::UInt32 => number!(UInt32Type),
        ArrowType::UInt64 => Value::Text(array.as_primitive::<UInt64Type>().value(row).to_string()),
        // SQLite would store a NaN as NULL.
        ArrowType::Float32 if array.as_primitive::<Float32Type>().value(row).is_nan() => return None,
        ArrowType::Float64 if array.as_primitive::<Float64Type>().value(row).is_nan() => return None,
        ArrowType::Float32 => Value::Real(f64::from(array.as_primitive::<Float32Type>().value(row))),
        ArrowType::Float64 => Value::Real(array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Decimal128(_, _) => Value::Text(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        ArrowType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        ArrowType::Binary => Value::Blob(array.as_binary::<i32>().value(row).to_vec()),
        ArrowType::Date32 => Value::Text(convert::format_date(array.as_primitive::<Date32Type>().value(row))?),
        ArrowType::Timestamp(TimeUnit::Microsecond, zone) => {
            let microseconds = array.as_primitive::<TimestampMicrosecondType>().value(row);
            let text =
                if zone.is_some() { convert::format_timestamp(microseconds) } else { convert::format_datetime(microseconds) };
            Value::Text(text?)
        }
        ArrowType::Time64(TimeUnit::Microsecond) => Value::Text(arrow::util::display::array_value_to_string(array, row).ok()?),
        _ => return None,
    })
}

/// A value for people, also one that is no text.
pub(super) fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
        other => text_of(other).unwrap_or_else(|| "text that is not UTF-8".to_owned()),
    }
}

/// A value as JSON, exact: bytes become an object with their hexadecimal digits.
pub(super) fn json_of(value: ValueRef<'_>) -> serde_json::Value {
    let hex = |bytes: &[u8]| {
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            digits.push_str(&format!("{byte:02x}"));
        }
        serde_json::json!({ "hex": digits })
    };
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.to_string().parse().map_or(serde_json::Value::Null, serde_json::Value::Number),
        ValueRef::Text(text) => std::str::from_utf8(text).map_or_else(|_| hex(text), Into::into),
        ValueRef::Blob(bytes) => hex(bytes),
    }
}
