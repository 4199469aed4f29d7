//! Rows of the binary protocol into Arrow.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
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

    /// Takes a row of the binary protocol. A batch comes back when one is full.
    pub(super) fn take(&mut self, row: &[u8]) -> Result<Option<Batch>, ConnectError> {
        let mut values = Values::new(row, self.columns.len()).ok_or_else(|| broken_row(self.row_number()))?;
        for (at, (builder, column)) in self.builders.iter_mut().zip(&self.columns).enumerate() {
            if values.is_null(at) {
                builder.append_null();
                continue;
            }
            match append(builder, column, &mut values) {
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
        if !values.rest.is_empty() {
            return Err(broken_row(self.row_number()));
        }
        self.bytes += row.len();
        self.row_count += 1;
        if self.row_count >= BATCH_ROW_COUNT_MAX || self.bytes >= BATCH_BYTES_MAX {
            return self.finish().map(Some);
        }
        Ok(None)
    }

    fn row_number(&self) -> u64 {
        self.row_count_before + self.row_count as u64 + 1
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

fn broken_row(row: u64) -> ConnectError {
    let message = format!("row {row} does not have the form that the server said before");
    ConnectError::new(ConnectErrorKind::Internal, message)
}

/// The values of one row that have not been taken yet.
struct Values<'a> {
    nulls: &'a [u8],
    rest: &'a [u8],
}

/// A date, or a date and time: year, month, day, hour, minute, second, microsecond.
type Moment = (u16, u8, u8, u8, u8, u8, u32);

impl<'a> Values<'a> {
    /// A header of one byte, a bit for each column with an offset of two, and the values that are there.
    fn new(row: &'a [u8], column_count: usize) -> Option<Self> {
        let (nulls, rest) = row.get(1..)?.split_at_checked((column_count + 9) / 8)?;
        Some(Self { nulls, rest })
    }

    fn is_null(&self, at: usize) -> bool {
        self.nulls[(at + 2) / 8] & 1 << ((at + 2) % 8) != 0
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (value, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*value)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (value, rest) = self.rest.split_at_checked(count).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(value)
    }

    /// Bytes behind their length.
    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let [first] = self.fixed::<1>()?;
        let length = match first {
            0..=0xfa => u64::from(first),
            0xfc => u64::from(u16::from_le_bytes(self.fixed()?)),
            0xfd => {
                let [a, b, c] = self.fixed::<3>()?;
                u64::from(u32::from_le_bytes([a, b, c, 0]))
            }
            0xfe => u64::from_le_bytes(self.fixed()?),
            _ => return Err(cut_off()),
        };
        self.take(usize::try_from(length).map_err(|_| cut_off())?)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    /// Parts that are zero at the end are left out.
    fn moment(&mut self) -> Result<Moment, String> {
        let [length] = self.fixed::<1>()?;
        let mut moment: Moment = (0, 0, 0, 0, 0, 0, 0);
        if !matches!(length, 0 | 4 | 7 | 11) {
            return Err(cut_off());
        }
        if length >= 4 {
            (moment.0, [moment.1, moment.2]) = (u16::from_le_bytes(self.fixed()?), self.fixed()?);
        }
        if length >= 7 {
            [moment.3, moment.4, moment.5] = self.fixed()?;
        }
        if length == 11 {
            moment.6 = u32::from_le_bytes(self.fixed()?);
        }
        Ok(moment)
    }

    /// A span of time as the server writes it.
    fn span(&mut self, digits: u8) -> Result<String, String> {
        let [length] = self.fixed::<1>()?;
        let (mut is_negative, mut days, mut clock, mut micros) = (0, 0, [0; 3], 0);
        match length {
            0 => {}
            8 | 12 => {
                [is_negative] = self.fixed::<1>()?;
                days = u32::from_le_bytes(self.fixed()?);
                clock = self.fixed()?;
                if length == 12 {
                    micros = u32::from_le_bytes(self.fixed()?);
                }
            }
            _ => return Err(cut_off()),
        }
        Ok(span_text(is_negative != 0, days, clock, micros, digits))
    }
}

fn cut_off() -> String {
    "the value does not have the form that the server said before".to_owned()
}

/// Takes the next value of a row.
fn append(builder: &mut Builder, column: &ReadColumn, values: &mut Values<'_>) -> Result<Taken, String> {
    match (column.form, builder) {
        (Form::Int8, Builder::Int8(builder)) => builder.append_value(i8::from_le_bytes(values.fixed()?)),
        (Form::Int16, Builder::Int16(builder)) => builder.append_value(i16::from_le_bytes(values.fixed()?)),
        (Form::Int32, Builder::Int32(builder)) => builder.append_value(i32::from_le_bytes(values.fixed()?)),
        (Form::Int64, Builder::Int64(builder)) => builder.append_value(i64::from_le_bytes(values.fixed()?)),
        (Form::UInt8, Builder::UInt8(builder)) => builder.append_value(u8::from_le_bytes(values.fixed()?)),
        (Form::UInt16, Builder::UInt16(builder)) => builder.append_value(u16::from_le_bytes(values.fixed()?)),
        (Form::UInt32, Builder::UInt32(builder)) => builder.append_value(u32::from_le_bytes(values.fixed()?)),
        (Form::UInt64, Builder::UInt64(builder)) => builder.append_value(u64::from_le_bytes(values.fixed()?)),
        (Form::Float, Builder::Float32(builder)) => builder.append_value(f32::from_le_bytes(values.fixed()?)),
        (Form::Double, Builder::Float64(builder)) => builder.append_value(f64::from_le_bytes(values.fixed()?)),
        (Form::Decimal { scale, .. }, Builder::Decimal(builder, _)) => builder.append_value(decimal(values.bytes()?, scale)?),
        (Form::Bits, Builder::UInt64(builder)) => {
            let bits = values.bytes()?;
            if bits.len() > 8 {
                return Err("more than 64 bits".to_owned());
            }
            builder.append_value(bits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        (Form::Text, Builder::Text(builder)) => builder.append_value(values.text()?),
        (Form::Bytes, Builder::Bytes(builder)) => builder.append_value(values.bytes()?),
        (Form::Geometry, Builder::Bytes(builder)) => builder.append_value(geometry(values.bytes()?)?),
        (Form::Vector, Builder::Text(builder)) => builder.append_value(vector(values.bytes()?)),
        (Form::TimeText { has_time, digits }, Builder::Text(builder)) => {
            builder.append_value(date_text(values.moment()?, has_time, digits));
        }
        (Form::SpanText { digits }, Builder::Text(builder)) => builder.append_value(values.span(digits)?),
        (Form::Date, Builder::Date(builder)) => {
            let moment = values.moment()?;
            match days_of(moment.0.into(), moment.1.into(), moment.2.into()).filter(|_| moment.0 > 0) {
                Some(days) => builder.append_value(days),
                None => return Ok(Taken::Misfit(date_text(moment, false, 0), "not a date")),
            }
        }
        (Form::DateTime | Form::Timestamp, Builder::Timestamp(builder, _)) => {
            let moment = values.moment()?;
            let (year, month, day, hour, minute, second, micros) = moment;
            match days_of(year.into(), month.into(), day.into()).filter(|_| year > 0) {
                Some(days) => {
                    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
                    builder.append_value((i64::from(days) * 86_400 + seconds) * 1_000_000 + i64::from(micros));
                }
                None => return Ok(Taken::Misfit(date_text(moment, true, if micros > 0 { 6 } else { 0 }), "not a date")),
            }
        }
        _ => return Err(cut_off()),
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
fn date_text((year, month, day, hour, minute, second, micros): Moment, has_time: bool, digits: u8) -> String {
    let mut text = format!("{year:04}-{month:02}-{day:02}");
    if has_time {
        text.push_str(&format!(" {hour:02}:{minute:02}:{second:02}"));
        push_fraction(&mut text, micros, digits);
    }
    text
}

/// `-838:59:59.000000`, as the server writes it.
fn span_text(is_negative: bool, days: u32, [hours, minutes, seconds]: [u8; 3], micros: u32, digits: u8) -> String {
    let sign = if is_negative { "-" } else { "" };
    let hours = u64::from(days) * 24 + u64::from(hours);
    let mut text = format!("{sign}{hours:02}:{minutes:02}:{seconds:02}");
    push_fraction(&mut text, micros, digits);
    text
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
        assert_eq!(span_text(true, 34, [22, 59, 59], 0, 0), "-838:59:59");
        assert_eq!(span_text(false, 0, [1, 2, 3], 45_000, 3), "01:02:03.045");
    }
}
