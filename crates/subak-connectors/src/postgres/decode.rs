//! `COPY … TO STDOUT (FORMAT binary)` into Arrow, without a value in between.
//!
//! The format is described in PostgreSQL's manual, chapter on `COPY`, "Binary Format"; values are written by the send functions of their types.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX};
use subak_connect::{Batch, ConnectError, ConnectErrorKind, Misfit};

use super::types::{Form, ReadColumn, schema_of};

/// What every copy begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Days and microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;
const DAY_MICROS: i64 = 86_400_000_000;

/// Builds batches out of the bytes of a copy, in whatever pieces they come.
pub(super) struct Decoder {
    columns: Vec<ReadColumn>,
    schema: SchemaRef,
    builders: Vec<Builder>,
    /// Bytes of a row that is not complete.
    rest: Vec<u8>,
    is_started: bool,
    row_count: usize,
    /// Rows of the batches before.
    row_count_before: u64,
    bytes: usize,
    misfits: Vec<Misfit>,
}

/// What became of a value.
enum Taken {
    /// It is in the column.
    Value,
    /// No type elsewhere holds it: its text, and what it is not.
    Misfit(&'static str, &'static str),
}

impl Decoder {
    pub(super) fn new(columns: Vec<ReadColumn>) -> Self {
        let builders = columns.iter().map(|column| Builder::new(column.form)).collect();
        let schema = schema_of(&columns);
        Self {
            columns,
            schema,
            builders,
            rest: Vec::new(),
            is_started: false,
            row_count: 0,
            row_count_before: 0,
            bytes: 0,
            misfits: Vec::new(),
        }
    }

    /// Takes bytes. A batch comes back when one is full.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Option<Batch>, ConnectError> {
        if self.rest.is_empty() {
            let used = self.rows(piece)?;
            self.rest.extend_from_slice(&piece[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.rest);
            bytes.extend_from_slice(piece);
            let used = self.rows(&bytes)?;
            bytes.drain(..used);
            self.rest = bytes;
        }
        if self.row_count >= BATCH_ROW_COUNT_MAX || self.bytes >= BATCH_BYTES_MAX {
            return self.finish().map(Some);
        }
        Ok(None)
    }

    /// The rows that wait. Fails when bytes are left that are no row.
    pub(super) fn end(&mut self) -> Result<Option<Batch>, ConnectError> {
        if !self.rest.is_empty() {
            return Err(ConnectError::new(ConnectErrorKind::Read, "the server's copy ended in the middle of a row"));
        }
        if self.row_count == 0 { Ok(None) } else { self.finish().map(Some) }
    }

    /// A batch without rows.
    pub(super) fn empty(&self) -> Batch {
        Batch::new(RecordBatch::new_empty(Arc::clone(&self.schema)))
    }

    fn finish(&mut self) -> Result<Batch, ConnectError> {
        let arrays: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count));
        self.row_count_before += self.row_count as u64;
        (self.row_count, self.bytes) = (0, 0);
        let records = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "rows of a copy do not fit their own schema").because(error)
        })?;
        Ok(Batch { misfits: std::mem::take(&mut self.misfits), ..Batch::new(records) })
    }

    /// Reads complete rows; returns how many bytes they took.
    fn rows(&mut self, bytes: &[u8]) -> Result<usize, ConnectError> {
        let mut used = 0;
        if !self.is_started {
            let Some(header) = bytes.get(..SIGNATURE.len() + 8) else { return Ok(0) };
            if !header.starts_with(SIGNATURE) {
                return Err(ConnectError::new(ConnectErrorKind::Read, "the server's copy is not in the binary format"));
            }
            let extension = number(&header[SIGNATURE.len() + 4..]);
            let start = header.len() + usize::try_from(extension).unwrap_or(0);
            if bytes.len() < start {
                return Ok(0);
            }
            (self.is_started, used) = (true, start);
        }
        while let Some(length) = row_length(&bytes[used..], self.columns.len())? {
            if length > 2 {
                self.row(&bytes[used + 2..used + length])?;
                self.bytes += length;
            }
            used += length;
        }
        Ok(used)
    }

    fn row(&mut self, mut bytes: &[u8]) -> Result<(), ConnectError> {
        for (at, (builder, column)) in self.builders.iter_mut().zip(&self.columns).enumerate() {
            let length = number(bytes);
            bytes = &bytes[4..];
            let Ok(length) = usize::try_from(length) else {
                builder.append_null();
                continue;
            };
            match builder.append(&bytes[..length]) {
                Ok(Taken::Value) => {}
                Ok(Taken::Misfit(text, problem)) => {
                    builder.append_null();
                    self.misfits.push(Misfit { column: at, row: self.row_count, text: text.to_owned(), problem });
                }
                Err(problem) => {
                    let row = self.row_count_before + self.row_count as u64 + 1;
                    let message = format!("column `{}`: {problem} (row {row})", column.name);
                    let help = format!("declare `{0}: text` under `columns:` to keep such values as texts", column.name);
                    return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
                }
            }
            bytes = &bytes[length..];
        }
        self.row_count += 1;
        Ok(())
    }
}

fn number(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

/// The length of the row at the start of `bytes`; 2 for the end of the copy; `None` when the row is not complete.
fn row_length(bytes: &[u8], width: usize) -> Result<Option<usize>, ConnectError> {
    let Some(count) = bytes.first_chunk() else { return Ok(None) };
    match i16::from_be_bytes(*count) {
        -1 => return Ok(Some(2)),
        count if usize::try_from(count) == Ok(width) => {}
        count => {
            let message = format!("the server sent a row of {count} fields where {width} were asked for");
            return Err(ConnectError::new(ConnectErrorKind::Read, message));
        }
    }
    let mut at = 2;
    for _ in 0..width {
        let Some(length) = bytes.get(at..at + 4) else { return Ok(None) };
        at += 4 + usize::try_from(number(length)).unwrap_or(0);
    }
    Ok((bytes.len() >= at).then_some(at))
}

enum Builder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Integer(Int32Builder),
    BigInt(Int64Builder),
    Oid(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u8, u8),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Uuid(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    DateTime(TimestampMicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(form: Form) -> Self {
        match form {
            Form::Boolean => Self::Boolean(BooleanBuilder::new()),
            Form::SmallInt => Self::SmallInt(Int16Builder::new()),
            Form::Integer => Self::Integer(Int32Builder::new()),
            Form::BigInt => Self::BigInt(Int64Builder::new()),
            Form::Oid => Self::Oid(Int64Builder::new()),
            Form::Real => Self::Real(Float32Builder::new()),
            Form::Double => Self::Double(Float64Builder::new()),
            Form::Decimal { precision, scale } => Self::Decimal(Decimal128Builder::new(), precision, scale),
            Form::Text => Self::Text(StringBuilder::new()),
            Form::Jsonb => Self::Jsonb(StringBuilder::new()),
            Form::Uuid => Self::Uuid(StringBuilder::new()),
            Form::Bytes => Self::Bytes(BinaryBuilder::new()),
            Form::Date => Self::Date(Date32Builder::new()),
            Form::Time => Self::Time(Time64MicrosecondBuilder::new()),
            Form::DateTime => Self::DateTime(TimestampMicrosecondBuilder::new()),
            Form::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new()),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Taken, String> {
        match self {
            Self::Boolean(builder) => builder.append_value(fixed::<1>(bytes)?[0] != 0),
            Self::SmallInt(builder) => builder.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Self::Integer(builder) => builder.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Self::BigInt(builder) => builder.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Self::Oid(builder) => builder.append_value(i64::from(u32::from_be_bytes(fixed(bytes)?))),
            Self::Real(builder) => builder.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Self::Double(builder) => builder.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Self::Decimal(builder, precision, scale) => match special(bytes) {
                Some(text) => return Ok(Taken::Misfit(text, "not a decimal")),
                None => builder.append_value(decimal(bytes, *precision, *scale)?),
            },
            Self::Text(builder) => builder.append_value(text(bytes)?),
            Self::Jsonb(builder) => match bytes {
                [1, bytes @ ..] => builder.append_value(text(bytes)?),
                _ => return Err("a jsonb value has a version that is not known".to_owned()),
            },
            Self::Uuid(builder) => builder.append_value(uuid(fixed(bytes)?)),
            Self::Bytes(builder) => builder.append_value(bytes),
            Self::Date(builder) => match i32::from_be_bytes(fixed(bytes)?) {
                i32::MAX => return Ok(Taken::Misfit("infinity", "not a date")),
                i32::MIN => return Ok(Taken::Misfit("-infinity", "not a date")),
                days => builder.append_value(days.checked_add(EPOCH_DAYS).ok_or("the date lies beyond what is known")?),
            },
            Self::Time(builder) => match i64::from_be_bytes(fixed(bytes)?) {
                // The end of a day is a time in PostgreSQL, and in nothing that rows travel in.
                DAY_MICROS => return Ok(Taken::Misfit("24:00:00", "not a time of a day")),
                micros => builder.append_value(micros),
            },
            Self::DateTime(builder) | Self::Timestamp(builder) => match i64::from_be_bytes(fixed(bytes)?) {
                i64::MAX => return Ok(Taken::Misfit("infinity", "not a time")),
                i64::MIN => return Ok(Taken::Misfit("-infinity", "not a time")),
                micros => builder.append_value(micros.checked_add(EPOCH_MICROS).ok_or("the time lies beyond what is known")?),
            },
        }
        Ok(Taken::Value)
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::SmallInt(builder) => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::BigInt(builder) | Self::Oid(builder) => builder.append_null(),
            Self::Real(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Decimal(builder, ..) => builder.append_null(),
            Self::Text(builder) | Self::Jsonb(builder) | Self::Uuid(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::DateTime(builder) | Self::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::SmallInt(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::BigInt(builder) | Self::Oid(builder) => Arc::new(builder.finish()),
            Self::Real(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, precision, scale) => {
                let array = builder.finish();
                Arc::new(array.with_data_type(arrow::datatypes::DataType::Decimal128(*precision, scale.cast_signed())))
            }
            Self::Text(builder) | Self::Jsonb(builder) | Self::Uuid(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::DateTime(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish().with_timezone("UTC")),
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    <[u8; N]>::try_from(bytes).map_err(|_| format!("a value has {} bytes where {N} are expected", bytes.len()))
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8; is the database's encoding SQL_ASCII?".to_owned())
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

/// The text of a `numeric` that is no number.
fn special(bytes: &[u8]) -> Option<&'static str> {
    match bytes.get(4..6)? {
        [0xC0, 0] => Some("NaN"),
        [0xD0, 0] => Some("Infinity"),
        [0xF0, 0] => Some("-Infinity"),
        _ => None,
    }
}

/// The unscaled value of a `numeric`: digits to the base 10,000 behind their count, the place of the first, the sign and the scale.
fn decimal(bytes: &[u8], precision: u8, scale: u8) -> Result<i128, String> {
    let words = |at: usize| bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()).map(|pair| u16::from_be_bytes(*pair));
    let broken = || "a numeric value is not complete".to_owned();
    let (count, weight, sign) = (words(0).ok_or_else(broken)?, words(2).ok_or_else(broken)?, words(4).ok_or_else(broken)?);
    match sign {
        0 | 0x4000 => {}
        _ => return Err(broken()),
    }
    let misfit = || format!("a numeric value does not fit decimal({precision},{scale})");
    // The place of the first digit, counted in digits to the base 10,000 before the point.
    let weight = i32::from(weight.cast_signed());
    let mut unscaled = 0_i128;
    for at in 0..usize::from(count) {
        let digit = i128::from(words(8 + 2 * at).ok_or_else(broken)?);
        let power = (weight - i32::try_from(at).map_err(|_| misfit())?) * 4 + i32::from(scale);
        let value = if power >= 0 {
            let factor = 10_i128.checked_pow(power.unsigned_abs()).ok_or_else(misfit);
            if digit == 0 { 0 } else { digit.checked_mul(factor?).ok_or_else(misfit)? }
        } else {
            let divisor = 10_i128.checked_pow(power.unsigned_abs()).unwrap_or(i128::MAX);
            if digit % divisor != 0 {
                return Err(misfit());
            }
            digit / divisor
        };
        unscaled = unscaled.checked_add(value).ok_or_else(misfit)?;
    }
    let bound = 10_i128.checked_pow(u32::from(precision)).ok_or_else(misfit)?;
    if unscaled >= bound {
        return Err(misfit());
    }
    Ok(if sign == 0x4000 { -unscaled } else { unscaled })
}
