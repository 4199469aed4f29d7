//! Rows of the binary protocol into Arrow.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use mysql_async::{Row, Value};
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX, Misfit};
use subak_connect::{Batch, ConnectError, ConnectErrorKind};

use super::types::{Form, ReadColumn, schema_of};
use crate::builder::{Builder, days_of};

/// Builds batches out of rows.
pub(super) struct Decoder {
    columns: Vec<ReadColumn>,
    schema: SchemaRef,
    builders: Vec<Builder>,
    misfits: Vec<Misfit>,
    row_count: usize,
    /// Rows of the batches before.
    row_count_before: u64,
    bytes: usize,
}

/// What became of a value.
enum Taken {
    /// It is in the column.
    Value,
    /// The type cannot hold it: its text, and what it is not.
    Misfit(String, &'static str),
}

impl Decoder {
    pub(super) fn new(columns: Vec<ReadColumn>) -> Self {
        let schema = schema_of(&columns);
        let builders = schema.fields().iter().map(|field| Builder::new(field.data_type())).collect();
        Self { columns, schema, builders, misfits: Vec::new(), row_count: 0, row_count_before: 0, bytes: 0 }
    }

    /// Takes a row. A batch comes back when one is full.
    pub(super) fn take(&mut self, row: Row) -> Result<Option<Batch>, ConnectError> {
        let values = row.unwrap_raw();
        for (at, value) in values.into_iter().enumerate() {
            let (Some(builder), Some(column)) = (self.builders.get_mut(at), self.columns.get(at)) else { break };
            let taken = match value {
                None | Some(Value::NULL) => {
                    builder.append_null();
                    continue;
                }
                Some(value) => {
                    self.bytes += if let Value::Bytes(bytes) = &value { bytes.len() + 8 } else { 8 };
                    append(builder, column.form, &value)
                }
            };
            match taken {
                Ok(Taken::Value) => {}
                Ok(Taken::Misfit(text, problem)) => {
                    builder.append_null();
                    self.misfits.push(Misfit { column: at, row: self.row_count, text, problem });
                }
                Err(problem) => {
                    let row = self.row_count_before + self.row_count as u64 + 1;
                    let message = format!("column `{}`: {problem} (row {row})", column.name);
                    let help = format!("declare `{0}: text` under `columns:` to keep such values as texts", column.name);
                    return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
                }
            }
        }
        self.row_count += 1;
        if self.row_count >= BATCH_ROW_COUNT_MAX || self.bytes >= BATCH_BYTES_MAX {
            return self.finish().map(Some);
        }
        Ok(None)
    }

    /// The rows that wait; none when there are none and there were some before.
    pub(super) fn end(&mut self) -> Result<Option<Batch>, ConnectError> {
        if self.row_count == 0 && self.row_count_before > 0 { Ok(None) } else { self.finish().map(Some) }
    }

    fn finish(&mut self) -> Result<Batch, ConnectError> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count));
        self.row_count_before += self.row_count as u64;
        (self.row_count, self.bytes) = (0, 0);
        let records = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "rows do not fit their own schema").because(error))?;
        Ok(Batch { misfits: std::mem::take(&mut self.misfits), ..Batch::new(records) })
    }
}

fn unexpected(value: &Value) -> String {
    let kind = match value {
        Value::NULL => "nothing",
        Value::Bytes(_) => "bytes",
        Value::Int(_) | Value::UInt(_) => "a whole number",
        Value::Float(_) | Value::Double(_) => "a number",
        Value::Date(..) => "a date",
        Value::Time(..) => "a time",
    };
    format!("the server sent {kind} for a value of another type")
}

/// A whole number of the width that the column has.
fn integer<T: TryFrom<i64> + TryFrom<u64>>(value: &Value) -> Result<T, String> {
    let narrowed = match value {
        Value::Int(number) => T::try_from(*number).ok(),
        Value::UInt(number) => T::try_from(*number).ok(),
        _ => None,
    };
    narrowed.ok_or_else(|| unexpected(value))
}

fn bytes_of(value: &Value) -> Result<&[u8], String> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(unexpected(value)),
    }
}

fn append(builder: &mut Builder, form: Form, value: &Value) -> Result<Taken, String> {
    match (form, builder) {
        (Form::Int8, Builder::Int8(builder)) => builder.append_value(integer(value)?),
        (Form::Int16, Builder::Int16(builder)) => builder.append_value(integer(value)?),
        (Form::Int32, Builder::Int32(builder)) => builder.append_value(integer(value)?),
        (Form::Int64, Builder::Int64(builder)) => builder.append_value(integer(value)?),
        (Form::UInt8, Builder::UInt8(builder)) => builder.append_value(integer(value)?),
        (Form::UInt16, Builder::UInt16(builder)) => builder.append_value(integer(value)?),
        (Form::UInt32, Builder::UInt32(builder)) => builder.append_value(integer(value)?),
        (Form::UInt64, Builder::UInt64(builder)) => builder.append_value(integer(value)?),
        (Form::Float, Builder::Float32(builder)) => match value {
            Value::Float(number) => builder.append_value(*number),
            _ => return Err(unexpected(value)),
        },
        (Form::Double, Builder::Float64(builder)) => match value {
            Value::Double(number) => builder.append_value(*number),
            _ => return Err(unexpected(value)),
        },
        (Form::Decimal { scale, .. }, Builder::Decimal(builder, _)) => {
            builder.append_value(decimal(bytes_of(value)?, scale)?);
        }
        (Form::Bits, Builder::UInt64(builder)) => {
            let bits = bytes_of(value)?;
            if bits.len() > 8 {
                return Err("more than 64 bits".to_owned());
            }
            builder.append_value(bits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        (Form::Text, Builder::Text(builder)) => {
            builder.append_value(std::str::from_utf8(bytes_of(value)?).map_err(|_| "a text is not UTF-8".to_owned())?);
        }
        (Form::Bytes, Builder::Bytes(builder)) => builder.append_value(bytes_of(value)?),
        (Form::Geometry, Builder::Bytes(builder)) => builder.append_value(geometry(bytes_of(value)?)?),
        (Form::Vector, Builder::Text(builder)) => builder.append_value(vector(bytes_of(value)?)),
        (Form::TimeText { has_time, digits }, Builder::Text(builder)) => {
            builder.append_value(date_text(value, has_time, digits)?);
        }
        (Form::SpanText { digits }, Builder::Text(builder)) => builder.append_value(span_text(value, digits)?),
        (Form::Date, Builder::Date(builder)) => {
            let &Value::Date(year, month, day, ..) = value else { return Err(unexpected(value)) };
            match days_of(year.into(), month.into(), day.into()).filter(|_| year > 0) {
                Some(days) => builder.append_value(days),
                None => return Ok(Taken::Misfit(date_text(value, false, 0)?, "not a date")),
            }
        }
        (Form::DateTime | Form::Timestamp, Builder::Timestamp(builder, _)) => {
            let &Value::Date(year, month, day, hour, minute, second, micros) = value else { return Err(unexpected(value)) };
            match days_of(year.into(), month.into(), day.into()).filter(|_| year > 0) {
                Some(days) => {
                    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
                    builder.append_value((i64::from(days) * 86_400 + seconds) * 1_000_000 + i64::from(micros));
                }
                None => return Ok(Taken::Misfit(date_text(value, true, if micros > 0 { 6 } else { 0 })?, "not a date")),
            }
        }
        _ => return Err(unexpected(value)),
    }
    Ok(Taken::Value)
}

/// The unscaled value of a decimal, which the server writes with all digits of its scale.
fn decimal(text: &[u8], scale: u8) -> Result<i128, String> {
    let broken = || format!("`{}` is no decimal with {scale} digits behind the point", String::from_utf8_lossy(text));
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    // Eighteen digits fit into the small number; longer ones go on in the large one.
    let (mut large, mut small, mut small_count) = (0_i128, 0_i64, 0_u32);
    let mut behind = None;
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                if small_count == 18 {
                    large = large
                        .checked_mul(10_i128.pow(18))
                        .and_then(|large| large.checked_add(small.into()))
                        .ok_or_else(broken)?;
                    (small, small_count) = (0, 0);
                }
                small = small * 10 + i64::from(byte - b'0');
                small_count += 1;
                if let Some(count) = &mut behind {
                    *count += 1;
                }
            }
            b'.' if behind.is_none() => behind = Some(0_u8),
            _ => return Err(broken()),
        }
    }
    let missing = scale.checked_sub(behind.unwrap_or(0)).ok_or_else(broken)?;
    let whole = large.checked_mul(10_i128.pow(small_count)).and_then(|large| large.checked_add(small.into()));
    let whole = whole.and_then(|whole| whole.checked_mul(10_i128.checked_pow(missing.into())?)).ok_or_else(broken)?;
    Ok(if is_negative { -whole } else { whole })
}

/// What the kind of a geometry has added where the number of its reference system follows.
const HAS_SYSTEM: u32 = 0x2000_0000;

/// Well-known binary, extended by the number of its reference system where it has one, instead of the server's own form, which puts the
/// number in front. The flag is that of PostGIS.
fn geometry(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let broken = || "a geometry is not complete".to_owned();
    let (system, body) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
    if u32::from_le_bytes(*system) == 0 {
        return Ok(body.to_vec());
    }
    let (order, rest) = body.split_first().ok_or_else(broken)?;
    let (kind, rest) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
    let mut out = Vec::with_capacity(bytes.len());
    out.push(*order);
    if *order == 1 {
        out.extend_from_slice(&(u32::from_le_bytes(*kind) | HAS_SYSTEM).to_le_bytes());
        out.extend_from_slice(system);
    } else {
        out.extend_from_slice(&(u32::from_be_bytes(*kind) | HAS_SYSTEM).to_be_bytes());
        out.extend_from_slice(&u32::from_le_bytes(*system).to_be_bytes());
    }
    out.extend_from_slice(rest);
    Ok(out)
}

fn vector(bytes: &[u8]) -> String {
    let numbers =
        bytes.chunks_exact(4).filter_map(|chunk| chunk.first_chunk()).map(|chunk| f32::from_le_bytes(*chunk).to_string());
    format!("[{}]", numbers.collect::<Vec<_>>().join(","))
}

/// `2024-00-10 00:00:00.000000`, as the server writes it.
fn date_text(value: &Value, has_time: bool, digits: u8) -> Result<String, String> {
    let &Value::Date(year, month, day, hour, minute, second, micros) = value else { return Err(unexpected(value)) };
    let mut text = format!("{year:04}-{month:02}-{day:02}");
    if has_time {
        text.push_str(&format!(" {hour:02}:{minute:02}:{second:02}"));
        push_fraction(&mut text, micros, digits);
    }
    Ok(text)
}

/// `-838:59:59.000000`, as the server writes it.
fn span_text(value: &Value, digits: u8) -> Result<String, String> {
    let &Value::Time(is_negative, days, hours, minutes, seconds, micros) = value else { return Err(unexpected(value)) };
    let sign = if is_negative { "-" } else { "" };
    let mut text = format!("{sign}{:02}:{minutes:02}:{seconds:02}", days * 24 + u32::from(hours));
    push_fraction(&mut text, micros, digits);
    Ok(text)
}

fn push_fraction(text: &mut String, micros: u32, digits: u8) {
    if digits > 0 {
        let fraction = format!("{micros:06}");
        text.push('.');
        text.push_str(&fraction[..usize::from(digits.min(6))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_digit_by_digit() {
        for (text, scale, expect) in [
            ("0", 0, Some(0)),
            ("-0.00", 2, Some(0)),
            ("-12.34", 2, Some(-1234)),
            ("12345678901234567890.123456789012345678", 18, Some(12_345_678_901_234_567_890_123_456_789_012_345_678)),
            ("99999999999999999999999999999999999999", 0, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("5", 2, Some(500)),
            ("1.234", 2, None),
            ("1e3", 0, None),
        ] {
            assert_eq!(decimal(text.as_bytes(), scale).ok(), expect, "{text}");
        }
    }

    #[test]
    fn geometries_lose_the_servers_prefix_and_keep_the_system() {
        let point = [1, 1, 0, 0, 0, 9, 9];
        let with = |system: [u8; 4]| [&system[..], &point[..]].concat();
        assert_eq!(geometry(&with([0; 4])).expect("plain"), point);
        assert_eq!(geometry(&with([0xe6, 0x10, 0, 0])).expect("extended"), [1, 1, 0, 0, 0x20, 0xe6, 0x10, 0, 0, 9, 9]);
        geometry(&[1, 2]).expect_err("cut off");
    }

    #[test]
    fn spans_keep_sign_and_hours() {
        assert_eq!(span_text(&Value::Time(true, 34, 22, 59, 59, 0), 0).expect("a span"), "-838:59:59");
        assert_eq!(span_text(&Value::Time(false, 0, 1, 2, 3, 45_000), 3).expect("a span"), "01:02:03.045");
    }
}
