//! Conversion of values to declared types: exact, or an error that names the column, the place and the value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, tz::TimeZone};
use subak_domain::{Column, DataType};

use crate::{Batch, ConnectError, ConnectErrorKind};

/// The Arrow type that carries a logical type.
pub fn arrow_type(data_type: DataType) -> ArrowType {
    match data_type {
        DataType::Boolean => ArrowType::Boolean,
        DataType::SmallInt => ArrowType::Int16,
        DataType::Integer => ArrowType::Int32,
        DataType::BigInt => ArrowType::Int64,
        DataType::UnsignedBigInt => ArrowType::UInt64,
        DataType::Real => ArrowType::Float32,
        DataType::Double => ArrowType::Float64,
        DataType::Decimal { precision, scale } => ArrowType::Decimal128(precision, scale.cast_signed()),
        DataType::Text | DataType::Json | DataType::Uuid => ArrowType::Utf8,
        DataType::Bytes => ArrowType::Binary,
        DataType::Date => ArrowType::Date32,
        DataType::Time => ArrowType::Time64(TimeUnit::Microsecond),
        DataType::DateTime => ArrowType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The logical type that an Arrow column stands for. Types without a counterpart, such as lists, count as JSON.
pub fn logical_type(arrow: &ArrowType) -> DataType {
    match arrow {
        ArrowType::Boolean => DataType::Boolean,
        ArrowType::Int8 | ArrowType::Int16 | ArrowType::UInt8 => DataType::SmallInt,
        ArrowType::Int32 | ArrowType::UInt16 => DataType::Integer,
        ArrowType::Int64 | ArrowType::UInt32 => DataType::BigInt,
        ArrowType::UInt64 => DataType::UnsignedBigInt,
        ArrowType::Float16 | ArrowType::Float32 => DataType::Real,
        ArrowType::Float64 => DataType::Double,
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            DataType::Decimal { precision: *precision, scale: scale.unsigned_abs() }
        }
        ArrowType::Binary | ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => DataType::Bytes,
        ArrowType::Date32 | ArrowType::Date64 => DataType::Date,
        ArrowType::Time32(_) | ArrowType::Time64(_) => DataType::Time,
        ArrowType::Timestamp(_, None) => DataType::DateTime,
        ArrowType::Timestamp(_, Some(_)) => DataType::Timestamp,
        ArrowType::List(_) | ArrowType::LargeList(_) | ArrowType::Struct(_) | ArrowType::Map(..) => DataType::Json,
        _ => DataType::Text,
    }
}

/// The schema after [`to_declared`]. Fails when a declared column is not there.
pub fn declared_schema(schema: &Schema, columns: &BTreeMap<String, DataType>) -> Result<Schema, ConnectError> {
    for name in columns.keys() {
        if schema.index_of(name).is_err() {
            return Err(missing_column(name, schema));
        }
    }
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|field| match columns.get(field.name()) {
            Some(data_type) => Arc::new(Field::new(field.name(), arrow_type(*data_type), true)),
            None => Arc::clone(field),
        })
        .collect();
    Ok(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The error for a column that is declared and not there; it lists the columns that are.
pub fn missing_column(name: &str, schema: &Schema) -> ConnectError {
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    ConnectError::new(ConnectErrorKind::ColumnMissing, format!("column `{name}` is not in the stream"))
        .help(format!("the stream has the columns {}", known.join(", ")))
}

/// The columns of a schema by logical type.
pub fn columns_of(schema: &Schema) -> Vec<Column> {
    let column = |field: &FieldRef| Column { name: field.name().clone(), data_type: logical_type(field.data_type()) };
    schema.fields().iter().map(column).collect()
}

/// A column in another type, and the rows whose values do not fit it exactly; those are NULL in the result.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The values.
    pub array: ArrayRef,
    /// Numbers of the rows that do not fit, ascending.
    pub misfits: Vec<usize>,
}

/// Converts a column value by value. `format` is how dates and times are written, in `strftime` letters. `Err` when no value of the
/// one type can become the other. An instant becomes its wall clock in UTC; a wall clock does not become an instant.
pub fn convert(array: &ArrayRef, data_type: DataType, format: Option<&str>, column: &str) -> Result<Converted, ConnectError> {
    let target = arrow_type(data_type);
    if *array.data_type() == target && !matches!(data_type, DataType::Uuid | DataType::Json) {
        return Ok(Converted { array: Arc::clone(array), misfits: Vec::new() });
    }
    if let Some(texts) = array.as_string_opt::<i32>() {
        return parse_texts(texts, data_type, format).map_err(|error| misfit_type(column, data_type).because(error));
    }
    if data_type == DataType::Text && logical_type(array.data_type()) == DataType::Json {
        return Err(misfit_type(column, data_type));
    }
    let own = array.data_type();
    if let (ArrowType::Timestamp(unit, Some(_)), DataType::DateTime) = (own, data_type) {
        // Its wall clock in UTC.
        let bare = array.to_data().into_builder().data_type(ArrowType::Timestamp(*unit, None)).build();
        let bare = bare.map_err(|error| misfit_type(column, data_type).because(error))?;
        return convert(&arrow::array::make_array(bare), data_type, format, column);
    }
    if own.is_numeric() && target.is_temporal() || own.is_temporal() && target.is_numeric() {
        // What a number counts, and from when, is nowhere said.
        let help = "declare it as a number, or as text with a `format:` such as `%s` for seconds";
        return Err(misfit_type(column, data_type).help(help));
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let converted = cast_with_options(array, &target, &options).map_err(|error| misfit_type(column, data_type).because(error))?;
    // A value that does not fit became NULL, and one that was narrowed no longer casts back to itself: both are misfits.
    let back = cast_with_options(&converted, array.data_type(), &options).map_err(|error| {
        let message = format!("column `{column}` cannot become {data_type} without a loss that cannot be checked");
        ConnectError::new(ConnectErrorKind::ValueMisfit, message).because(error)
    })?;
    if converted.null_count() == array.null_count() && back.as_ref() == array.as_ref() {
        return Ok(Converted { array: converted, misfits: Vec::new() });
    }
    let is_misfit = |row: &usize| {
        let is_lost = array.is_valid(*row) && converted.is_null(*row);
        is_lost || array.slice(*row, 1).as_ref() != back.slice(*row, 1).as_ref()
    };
    let misfits: Vec<usize> = (0..array.len()).filter(is_misfit).collect();
    let array = without(&converted, &misfits)?;
    Ok(Converted { array, misfits })
}

/// The column with NULL in some rows.
pub fn without(array: &ArrayRef, rows: &[usize]) -> Result<ArrayRef, ConnectError> {
    if rows.is_empty() {
        return Ok(Arc::clone(array));
    }
    let mut is_null = vec![false; array.len()];
    for row in rows {
        is_null[*row] = true;
    }
    arrow::compute::nullif(array, &BooleanArray::from(is_null))
        .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "values cannot be taken out of a column").because(error))
}

/// Converts the columns that `columns` names to their declared types; the others stay as they are. Order stays. The first value that
/// does not fit is the error.
pub fn to_declared(batch: Batch, columns: &BTreeMap<String, DataType>) -> Result<Batch, ConnectError> {
    if columns.is_empty() {
        return Ok(batch);
    }
    let schema = Arc::new(declared_schema(batch.records.schema_ref(), columns)?);
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for (at, field) in schema.fields().iter().enumerate() {
        let array = batch.records.column(at);
        arrays.push(match columns.get(field.name()) {
            Some(data_type) if array.data_type() != field.data_type() => {
                let converted = convert(array, *data_type, None, field.name())?;
                if let Some(row) = converted.misfits.first() {
                    return Err(misfit(field.name(), &text_at(array, *row), *data_type, &batch.place(*row)));
                }
                converted.array
            }
            _ => Arc::clone(array),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.row_count()));
    let records = RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|error| {
        ConnectError::new(ConnectErrorKind::Internal, "a converted batch does not fit its schema").because(error)
    })?;
    Ok(Batch { records, ..batch })
}

/// A value as text for people.
pub fn text_at(array: &ArrayRef, row: usize) -> String {
    // Arrow itself shows times with a zone only when it has a table of zones.
    if let ArrowType::Timestamp(_, zone) = array.data_type()
        && array.is_valid(row)
    {
        let target = ArrowType::Timestamp(TimeUnit::Microsecond, zone.clone());
        if let Ok(micros) = arrow::compute::cast(&array.slice(row, 1), &target) {
            let value = micros.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0);
            let text = if zone.is_some() { format_timestamp(value) } else { format_datetime(value) };
            if let Some(text) = text {
                return text;
            }
        }
    }
    arrow::util::display::array_value_to_string(array, row).unwrap_or_default()
}

fn misfit_type(column: &str, data_type: DataType) -> ConnectError {
    ConnectError::new(ConnectErrorKind::ValueMisfit, format!("column `{column}` cannot become {data_type}"))
}

/// The error for a value that its declared type cannot hold.
pub fn misfit(column: &str, value: &str, data_type: DataType, place: &str) -> ConnectError {
    let shown: String = value.chars().take(80).collect();
    ConnectError::new(ConnectErrorKind::ValueMisfit, format!("column `{column}`: `{shown}` is not {data_type} ({place})"))
        .help(format!("correct the value, or declare `{column}` as a type that holds it; `text` holds everything"))
}

/// Parses every text. `Err` when `format` is no format.
pub fn parse_texts(texts: &StringArray, data_type: DataType, format: Option<&str>) -> Result<Converted, jiff::Error> {
    if let Some(format) = format {
        return parse_formatted(texts, data_type, format);
    }
    let mut misfits = Vec::new();
    let misses = &mut misfits;
    let array: ArrayRef = match data_type {
        DataType::Text => Arc::new(texts.clone()),
        DataType::Json => {
            Arc::new(each(texts, misses, |text| is_json(text).then_some(text)).into_iter().collect::<StringArray>())
        }
        DataType::Uuid => {
            Arc::new(each(texts, misses, |text| is_uuid(text).then_some(text)).into_iter().collect::<StringArray>())
        }
        DataType::Bytes => Arc::new(texts.iter().map(|text| text.map(str::as_bytes)).collect::<BinaryArray>()),
        DataType::Boolean => Arc::new(each(texts, misses, parse_boolean).into_iter().collect::<BooleanArray>()),
        DataType::SmallInt => Arc::new(Int16Array::from(each(texts, misses, |text| text.parse().ok()))),
        DataType::Integer => Arc::new(Int32Array::from(each(texts, misses, |text| text.parse().ok()))),
        DataType::BigInt => Arc::new(Int64Array::from(each(texts, misses, |text| text.parse().ok()))),
        DataType::UnsignedBigInt => Arc::new(UInt64Array::from(each(texts, misses, |text| text.parse().ok()))),
        DataType::Real => Arc::new(Float32Array::from(each(texts, misses, parse_real))),
        DataType::Double => Arc::new(Float64Array::from(each(texts, misses, parse_double))),
        DataType::Decimal { precision, scale } => {
            let values = each(texts, misses, |text| parse_decimal(text, precision, scale));
            let array = Decimal128Array::from(values);
            let typed = array.with_data_type(arrow_type(data_type));
            Arc::new(typed)
        }
        DataType::Date => Arc::new(Date32Array::from(each(texts, misses, parse_date))),
        DataType::Time => Arc::new(Time64MicrosecondArray::from(each(texts, misses, parse_time))),
        DataType::DateTime => Arc::new(TimestampMicrosecondArray::from(each(texts, misses, parse_datetime))),
        DataType::Timestamp => {
            Arc::new(TimestampMicrosecondArray::from(each(texts, misses, parse_timestamp)).with_timezone("UTC"))
        }
    };
    Ok(Converted { array, misfits })
}

/// A finite number in decimal digits as the nearest one of its type; a number that is beyond it is a misfit, not infinity.
fn parse_double(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    (value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit())).then_some(value)
}

fn parse_real(text: &str) -> Option<f32> {
    let value: f32 = text.parse().ok()?;
    (value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit())).then_some(value)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn is_uuid(text: &str) -> bool {
    let is_group = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| if is_group(at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

fn each<'a, T>(texts: &'a StringArray, misfits: &mut Vec<usize>, parse: impl Fn(&'a str) -> Option<T>) -> Vec<Option<T>> {
    let mut values = Vec::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        let value = text.and_then(&parse);
        if value.is_none() && text.is_some() {
            misfits.push(row);
        }
        values.push(value);
    }
    values
}

/// Dates and times as `format` writes them. `%s` alone is seconds since 1970-01-01 UTC, `%Q` alone milliseconds; `any` reads every
/// common spelling.
fn parse_formatted(texts: &StringArray, data_type: DataType, format: &str) -> Result<Converted, jiff::Error> {
    use jiff::fmt::strtime;
    let mut misfits = Vec::new();
    let micros = |text: &str| -> Option<i64> {
        match format {
            "any" => return parse_instant(text),
            "%Q" => return text.parse::<i64>().ok()?.checked_mul(1000),
            _ => {}
        }
        let parsed = strtime::parse(format, text).ok()?;
        match (parsed.to_timestamp(), parsed.to_datetime(), parsed.to_date()) {
            (Ok(instant), ..) => Some(instant.as_microsecond()),
            (_, Ok(at), _) => datetime_microseconds(at),
            (.., Ok(date)) => datetime_microseconds(date.to_datetime(Time::midnight())),
            _ => None,
        }
    };
    if format != "any" && format != "%Q" {
        // A format that is none is told once, not for each row.
        strtime::format(format, &jiff::Zoned::new(Timestamp::UNIX_EPOCH, TimeZone::UTC))?;
    }
    let array: ArrayRef = match data_type {
        DataType::Date => {
            let days = |text: &str| micros(text).and_then(|micros| i32::try_from(micros.div_euclid(DAY_MICROSECONDS)).ok());
            Arc::new(Date32Array::from(each(texts, &mut misfits, days)))
        }
        DataType::Time => {
            let time = |text: &str| microseconds_of(strtime::parse(format, text).ok()?.to_time().ok()?);
            Arc::new(Time64MicrosecondArray::from(each(texts, &mut misfits, time)))
        }
        DataType::Timestamp => Arc::new(TimestampMicrosecondArray::from(each(texts, &mut misfits, micros)).with_timezone("UTC")),
        _ => Arc::new(TimestampMicrosecondArray::from(each(texts, &mut misfits, micros))),
    };
    Ok(Converted { array, misfits })
}

/// Microseconds since 1970-01-01 UTC of a time in any common spelling: ISO 8601 with a space or `T`, with or without an offset (none
/// means UTC), or digits that are seconds, milliseconds, microseconds or nanoseconds since 1970 by their length.
pub fn parse_instant(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return match text.trim_start_matches('-').len() {
            1..=10 => number.checked_mul(1_000_000),
            // Seconds after 2286 or milliseconds before 1973: whoever counts something else must say so.
            11 => None,
            12..=14 => number.checked_mul(1000),
            15..=17 => Some(number),
            _ => (number % 1000 == 0).then_some(number / 1000),
        };
    }
    if let Some(micros) = parse_datetime(text).or_else(|| parse_timestamp(text)) {
        return Some(micros);
    }
    let (seconds, fraction) = text.split_once('.')?;
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(seconds) || !is_digits(fraction) || fraction.len() > 6 {
        return parse_date(text).map(|days| i64::from(days) * DAY_MICROSECONDS);
    }
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(format!("{fraction:0<6}").parse().ok()?)
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "t" | "1" | "TRUE" | "True" => Some(true),
        "false" | "f" | "0" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Parses what nearly all decimals look like: up to 18 digits with at most `scale` of them behind the point. `None` for everything else.
fn parse_short_decimal(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (mut unscaled, mut point) = (0_i64, None);
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => unscaled = unscaled * 10 + i64::from(byte - b'0'),
            b'.' if point.is_none() && digits.len() > 1 => point = Some(at),
            _ => return None,
        }
    }
    let fraction = point.map_or(0, |at| digits.len() - at - 1);
    let shift = u32::from(scale).checked_sub(u32::try_from(fraction).ok()?)?;
    let value = i128::from(unscaled).checked_mul(10_i128.checked_pow(shift)?)?;
    let bound = 10_i128.checked_pow(u32::from(precision))?;
    (value < bound).then_some(if is_negative { -value } else { value })
}

/// Parses a decimal without a trip through floating point: the unscaled value, or `None` when a digit would be lost.
pub fn parse_decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    if let Some(value) = parse_short_decimal(text.as_bytes(), precision, scale) {
        return Some(value);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let mut unscaled = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let shift = i32::from(scale).checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let factor = 10_i128.checked_pow(shift.unsigned_abs());
    let value = match (unscaled, factor) {
        (0, _) => 0,
        (_, Some(factor)) if shift >= 0 => unscaled.checked_mul(factor)?,
        (_, Some(factor)) if unscaled % factor == 0 => unscaled / factor,
        _ => return None,
    };
    let bound = 10_i128.checked_pow(u32::from(precision))?;
    (value < bound).then_some(if is_negative { -value } else { value })
}

const DAY_MICROSECONDS: i64 = 86_400_000_000;

fn parse_date(text: &str) -> Option<i32> {
    days_of(text.parse::<Date>().ok().filter(|_| text.len() == 10)?)
}

fn days_of(date: Date) -> Option<i32> {
    i32::try_from(date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24).ok()
}

fn parse_time(text: &str) -> Option<i64> {
    // The library takes the time out of a whole date, or drops an offset; here both are misfits.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b'.');
    microseconds_of(text.parse::<Time>().ok().filter(|_| is_plain)?)
}

fn microseconds_of(time: Time) -> Option<i64> {
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    let nanoseconds = i64::from(time.subsec_nanosecond());
    (nanoseconds % 1000 == 0).then_some(seconds * 1_000_000 + nanoseconds / 1000)
}

/// Microseconds since 1970-01-01 00:00 of a wall-clock time such as `2023-10-27 10:00:00` or `2023-10-27T10:00:00.5`. A text with
/// an offset is not a wall-clock time.
pub fn parse_datetime(text: &str) -> Option<i64> {
    if let Some(micros) = parse_plain_datetime(text.as_bytes()) {
        return Some(micros);
    }
    let is_offset = |byte: &u8| matches!(byte, b'+' | b'-' | b'Z' | b'z' | b'[');
    let has_offset = text.as_bytes().get(10..).is_some_and(|tail| tail.iter().any(is_offset));
    datetime_microseconds(text.parse::<DateTime>().ok().filter(|_| !has_offset)?)
}

/// Parses what nearly all wall-clock times look like: `2023-10-27 10:00:00`, with a `T` or a blank and up to six digits behind a point.
/// `None` for everything else, which the library reads or refuses.
fn parse_plain_datetime(text: &[u8]) -> Option<i64> {
    let (head, tail) = text.split_first_chunk::<19>()?;
    let number = |from: usize, to: usize| -> Option<i64> {
        head[from..to].iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is_separated = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(at, byte)| head[*at] == *byte);
    if !is_separated || !matches!(head[10], b' ' | b'T') {
        return None;
    }
    let part = |from, to| i8::try_from(number(from, to)?).ok();
    let date = Date::new(i16::try_from(number(0, 4)?).ok()?, part(5, 7)?, part(8, 10)?).ok()?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // A leap second is the library's business.
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = match tail {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => {
            let sum = digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))?;
            sum * 10_i64.pow(6 - u32::try_from(digits.len()).ok()?)
        }
        _ => return None,
    };
    Some(i64::from(days_of(date)?) * DAY_MICROSECONDS + ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

fn datetime_microseconds(value: DateTime) -> Option<i64> {
    i64::from(days_of(value.date())?).checked_mul(DAY_MICROSECONDS)?.checked_add(microseconds_of(value.time())?)
}

/// Microseconds since 1970-01-01 UTC of an instant such as `2023-10-27T10:00:00Z`. A text without an offset is no instant.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let value = text.parse::<Timestamp>().ok()?;
    (value.as_nanosecond() % 1000 == 0).then(|| value.as_microsecond())
}

/// The wall-clock text of microseconds since 1970-01-01 00:00, with as many fractional digits as it needs.
pub fn format_datetime(microseconds: i64) -> Option<String> {
    let days = i32::try_from(microseconds.div_euclid(DAY_MICROSECONDS)).ok()?;
    let date = Date::constant(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
    // The library's own instants end two days before its dates do.
    let in_day = jiff::SignedDuration::from_micros(microseconds.rem_euclid(DAY_MICROSECONDS));
    let value = date.to_datetime(Time::midnight().checked_add(in_day).ok()?);
    Some(value.to_string().replace('T', " "))
}

/// The text of an instant in UTC.
pub fn format_timestamp(microseconds: i64) -> Option<String> {
    format_datetime(microseconds).map(|text| format!("{}Z", text.replace(' ', "T")))
}

/// The text of a date, given as days since 1970-01-01.
pub fn format_date(days: i32) -> Option<String> {
    Date::constant(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok().map(|date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, expect) in [
            ("25000.0", Some(2_500_000)),
            ("99999.99", Some(9_999_999)),
            ("-0.01", Some(-1)),
            ("1e3", Some(100_000)),
            ("1.5e-1", Some(15)),
            ("0.000", Some(0)),
            (".5", Some(50)),
            ("0.001", None),
            ("1000000000", None),
            ("", None),
            (".", None),
            ("1,5", None),
            ("NaN", None),
        ] {
            assert_eq!(parse_decimal(text, 10, 2), expect, "{text}");
        }
        let widest = "9".repeat(38);
        assert_eq!(parse_decimal(&widest, 38, 0).map(|value| value.to_string()), Some(widest));
    }

    #[test]
    fn times_are_exact_or_refused() {
        assert_eq!(parse_date("1970-01-02"), Some(1));
        assert_eq!(parse_date("1969-12-31"), Some(-1));
        assert_eq!(parse_date("2024-02-30"), None);
        assert_eq!(parse_datetime("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(parse_datetime("1970-01-01T00:00:01.5"), Some(1_500_000));
        assert_eq!(parse_datetime("1970-01-01T00:00:01Z"), None);
        assert_eq!(parse_datetime("1970-01-01T00:00:01+07:00"), None);
        assert_eq!(parse_datetime("1970-01-01 00:00:00.0000001"), None);
        assert_eq!(parse_timestamp("1970-01-01T07:00:00+07:00"), Some(0));
        assert_eq!(parse_timestamp("1970-01-01 00:00:00"), None);
        assert_eq!(format_datetime(1_500_000).as_deref(), Some("1970-01-01 00:00:01.5"));
        assert_eq!(format_date(-1).as_deref(), Some("1969-12-31"));
    }

    /// What is read the short way is what the library reads, and what it refuses is refused.
    #[test]
    fn the_short_way_is_the_long_way() {
        let by_library = |text: &str| -> Option<i64> {
            let is_offset = text.as_bytes().get(10..).is_some_and(|tail| tail.iter().any(|byte| b"+-Zz[".contains(byte)));
            datetime_microseconds(text.parse::<DateTime>().ok().filter(|_| !is_offset)?)
        };
        let (dates, times) = (
            [
                "0001-01-01",
                "1900-02-28",
                "1900-02-29",
                "1969-12-31",
                "1970-01-01",
                "2000-02-29",
                "2024-12-31",
                "2024-13-01",
                "2024-00-10",
                "9999-12-31",
                "2024-1-01",
            ],
            [
                "00:00:00",
                "23:59:59",
                "23:59:60",
                "24:00:00",
                "12:60:00",
                "12:34:56.7",
                "12:34:56.789012",
                "12:34:56.7890123",
                "12:34:56.",
                "12:34",
                "1a:00:00",
            ],
        );
        for date in dates {
            for separator in [" ", "T", "t", "  ", ""] {
                for time in times {
                    for end in ["", "Z", "+01:00", " "] {
                        let text = format!("{date}{separator}{time}{end}");
                        assert_eq!(parse_datetime(&text), by_library(&text), "{text}");
                    }
                }
            }
            if let Ok(date) = date.parse::<Date>() {
                let days = date.since((jiff::Unit::Day, Date::constant(1970, 1, 1))).expect("days").get_days();
                assert_eq!(days_of(date), Some(days), "{date}");
            }
        }
    }

    #[test]
    fn short_decimals_are_the_long_ones() {
        for text in [
            "0",
            "-0",
            "7",
            "-7.5",
            "12.30",
            "0.01",
            ".5",
            "5.",
            "-.5",
            ".",
            "-",
            "",
            "1.2.3",
            "1,5",
            "+1",
            "999999999999999999",
            "99999999.999",
        ] {
            // Blanks behind the digits lead to the long way with another text, so the same digits are given an exponent of nothing.
            let long = format!("{text}e0");
            for (precision, scale) in [(18, 2), (4, 2), (38, 20), (18, 0)] {
                let expect = if text.is_empty() { None } else { parse_decimal(&long, precision, scale) };
                assert_eq!(parse_decimal(text, precision, scale), expect, "{text} as decimal({precision},{scale})");
            }
        }
    }

    #[test]
    fn a_misfit_names_column_place_and_value() {
        let schema = Arc::new(Schema::new(vec![Field::new("amount", ArrowType::Utf8, true)]));
        let array: ArrayRef = Arc::new(StringArray::from(vec!["1", "x"]));
        let mut batch = Batch::new(RecordBatch::try_new(schema, vec![array]).expect("batch"));
        batch.origin = crate::Origin { file: Some("in.csv".into()), lines: Some([2, 3].into()), ..crate::Origin::default() };
        let error = to_declared(batch, &BTreeMap::from([("amount".to_owned(), DataType::Integer)])).expect_err("misfit");
        assert_eq!(error.to_string(), "column `amount`: `x` is not integer (in.csv:3)");
    }

    #[test]
    fn narrowing_is_refused() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", ArrowType::Float64, true)]));
        let array: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.5]));
        let batch = Batch::new(RecordBatch::try_new(schema, vec![array]).expect("batch"));
        assert!(to_declared(batch, &BTreeMap::from([("n".to_owned(), DataType::Integer)])).is_err());
    }
}
