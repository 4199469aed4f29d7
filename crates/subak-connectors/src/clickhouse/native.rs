//! Blocks of the `Native` format, which are columns as they lie in memory: names, types, values.
//!
//! The format is described in ClickHouse's documentation, "Interfaces, Formats, Native".

use std::io::Read;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::{BufMut, Bytes, BytesMut};
use subak_connect::{Batch, ConnectError, ConnectErrorKind};

use super::tables::bare;
use super::types::{Form, ReadColumn, schema_of, word};
use crate::builder::Builder;

/// The days that the types of dates hold, from 1970-01-01.
const DATE_MAX: i64 = 65_535;
const DATE32_MIN: i32 = -25_567;
const DATE32_MAX: i32 = 120_529;

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;

/// The times that `DateTime64` holds: the years 1900 to 2299.
const TIME64_MIN: i64 = DATE32_MIN as i64 * 86_400 * SECOND;
const TIME64_MAX: i64 = (DATE32_MAX as i64 + 1) * 86_400 * SECOND - 1;

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    out.put_u8(u8::try_from(length).unwrap_or(0));
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    put_length(out, text.len());
    out.put_slice(text);
}

/// A column to write: its name, the form of its values, and whether NULL is one.
pub(super) struct WriteColumn {
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) is_nullable: bool,
}

/// The rows of a batch, in plain types, as a block, with a last column that numbers them from `first_row`.
pub(super) fn block_of(batch: &Batch, columns: &[WriteColumn], row_column: Option<(&str, u64)>) -> Result<Bytes, ConnectError> {
    let row_count = batch.row_count();
    let mut out = BytesMut::with_capacity(batch.bytes() + 64 * columns.len() + row_count * 8);
    put_length(&mut out, columns.len() + usize::from(row_column.is_some()));
    put_length(&mut out, row_count);
    for (column, array) in columns.iter().zip(batch.records.columns()) {
        put_text(&mut out, column.name.as_bytes());
        put_text(&mut out, word(column.form, column.is_nullable).as_bytes());
        if column.is_nullable {
            match array.nulls() {
                None => out.put_bytes(0, row_count),
                Some(nulls) => nulls.iter().for_each(|is_there| out.put_u8(u8::from(!is_there))),
            }
        } else if array.null_count() > 0 {
            let message = format!("column `{}` has no value in every row, and its table wants one", column.name);
            return Err(ConnectError::new(ConnectErrorKind::KeyNull, message));
        }
        put_values(&mut out, column.form, array).map_err(|(row, problem)| {
            let message = format!("column `{}`: {problem} ({})", column.name, batch.place(row));
            ConnectError::new(ConnectErrorKind::ValueMisfit, message)
                .help(format!("correct the value, or declare `{}` as `text`", column.name))
        })?;
    }
    if let Some((name, first)) = row_column {
        put_text(&mut out, name.as_bytes());
        put_text(&mut out, b"UInt64");
        (first..first + row_count as u64).for_each(|number| out.put_u64_le(number));
    }
    Ok(out.freeze())
}

fn put_all<T: ArrowPrimitiveType>(out: &mut BytesMut, array: &ArrayRef, put: impl Fn(&mut BytesMut, T::Native)) {
    // What stands behind a NULL does not matter.
    array.as_primitive::<T>().values().iter().for_each(|value| put(out, *value));
}

/// Writes values that must lie within bounds; a NULL is zero.
fn put_checked<T: ArrowPrimitiveType>(
    out: &mut BytesMut,
    array: &ArrayRef,
    put: impl Fn(&mut BytesMut, T::Native) -> Result<(), String>,
) -> Result<(), (usize, String)> {
    for (row, value) in array.as_primitive::<T>().iter().enumerate() {
        put(out, value.unwrap_or_default()).map_err(|problem| (row, problem))?;
    }
    Ok(())
}

fn put_values(out: &mut BytesMut, form: Form, array: &ArrayRef) -> Result<(), (usize, String)> {
    match form {
        Form::Bool | Form::UInt8 if *array.data_type() == ArrowType::Boolean => {
            array.as_boolean().iter().for_each(|value| out.put_u8(u8::from(value == Some(true))));
        }
        Form::Bool => {}
        Form::Int8 => put_all::<Int8Type>(out, array, BufMut::put_i8),
        Form::Int16 => put_all::<Int16Type>(out, array, BufMut::put_i16_le),
        Form::Int32 => put_all::<Int32Type>(out, array, BufMut::put_i32_le),
        Form::Int64 => put_all::<Int64Type>(out, array, BufMut::put_i64_le),
        Form::UInt8 => put_all::<UInt8Type>(out, array, BufMut::put_u8),
        Form::UInt16 => put_all::<UInt16Type>(out, array, BufMut::put_u16_le),
        Form::UInt32 => put_all::<UInt32Type>(out, array, BufMut::put_u32_le),
        Form::UInt64 => put_all::<UInt64Type>(out, array, BufMut::put_u64_le),
        Form::Float32 => put_all::<Float32Type>(out, array, BufMut::put_f32_le),
        Form::Float64 => put_all::<Float64Type>(out, array, BufMut::put_f64_le),
        Form::Decimal { width, .. } => put_checked::<Decimal128Type>(out, array, |out, value| {
            match width {
                4 => out.put_i32_le(i32::try_from(value).map_err(|_| "a decimal is too long".to_owned())?),
                8 => out.put_i64_le(i64::try_from(value).map_err(|_| "a decimal is too long".to_owned())?),
                _ => out.put_i128_le(value),
            }
            Ok(())
        })?,
        Form::Text => match array.data_type() {
            ArrowType::Binary => array.as_binary::<i32>().iter().for_each(|value| put_text(out, value.unwrap_or_default())),
            _ => array.as_string::<i32>().iter().for_each(|value| put_text(out, value.unwrap_or_default().as_bytes())),
        },
        Form::Date => put_checked::<Date32Type>(out, array, |out, days| {
            let days = u16::try_from(days).map_err(|_| "the date lies outside 1970-01-01 to 2149-06-06".to_owned())?;
            out.put_u16_le(days);
            Ok(())
        })?,
        Form::Date32 => put_checked::<Date32Type>(out, array, |out, days| {
            if !(DATE32_MIN..=DATE32_MAX).contains(&days) {
                return Err("the date lies outside the years 1900 to 2299".to_owned());
            }
            out.put_i32_le(days);
            Ok(())
        })?,
        Form::DateTime { .. } => put_checked::<TimestampMicrosecondType>(out, array, |out, micros| {
            if micros % SECOND != 0 {
                return Err("the server has no type for fractions of a second".to_owned());
            }
            let seconds =
                u32::try_from(micros / SECOND).map_err(|_| "the time lies outside the years 1970 to 2106".to_owned())?;
            out.put_u32_le(seconds);
            Ok(())
        })?,
        Form::DateTime64 { .. } => put_checked::<TimestampMicrosecondType>(out, array, |out, micros| {
            if !(TIME64_MIN..=TIME64_MAX).contains(&micros) {
                return Err("the time lies outside the years 1900 to 2299".to_owned());
            }
            out.put_i64_le(micros);
            Ok(())
        })?,
    }
    Ok(())
}

/// The days and microseconds that a server can hold.
pub(super) fn bounds(form: Form) -> Option<(i64, i64)> {
    match form {
        Form::Date => Some((0, DATE_MAX)),
        Form::Date32 => Some((DATE32_MIN.into(), DATE32_MAX.into())),
        Form::DateTime { .. } => Some((0, i64::from(u32::MAX) * SECOND)),
        Form::DateTime64 { .. } => Some((TIME64_MIN, TIME64_MAX)),
        _ => None,
    }
}

/// Reads blocks one after the other.
pub(super) struct Reader<R> {
    from: R,
    columns: Vec<ReadColumn>,
    schema: SchemaRef,
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Read, "ClickHouse's answer broke off").because(error)
}

impl<R: Read> Reader<R> {
    pub(super) fn new(from: R, columns: Vec<ReadColumn>) -> Self {
        let schema = schema_of(&columns);
        Self { from, columns, schema }
    }

    pub(super) fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(SchemaRef::clone(&self.schema))
    }

    /// The next block; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, ConnectError> {
        let mut first = [0];
        let column_count = match self.from.read(&mut first).map_err(broken)? {
            0 => return Ok(None),
            _ => self.length_from(first[0])?,
        };
        let row_count = self.length()?;
        if column_count == 0 {
            return Ok((row_count == 0).then(|| self.empty()));
        }
        if column_count != self.columns.len() {
            return Err(self.exception(first[0]));
        }
        let mut arrays = Vec::with_capacity(column_count);
        for at in 0..column_count {
            let _name = self.text()?;
            let declared = String::from_utf8(self.text()?).map_err(broken)?;
            let is_nullable = declared.starts_with("Nullable(");
            let (arrived, expected) = (Form::of(bare(&declared)), self.columns[at].form);
            // Over HTTP, the zone of a `DateTime` is left out.
            let is_moment = matches!((arrived, expected), (Some(Form::DateTime { .. }), Form::DateTime { .. }));
            if arrived != Some(expected) && !is_moment {
                let message = format!("column `{}` became {declared} while it was read", self.columns[at].name);
                return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help("run again"));
            }
            arrays.push(self.values(at, row_count, is_nullable)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), arrays, &options)
            .map(Some)
            .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "a block does not fit its schema").because(error))
    }

    /// What is no block is what the server says about a query that failed on its way.
    fn exception(&mut self, first: u8) -> ConnectError {
        let mut text = vec![first];
        drop(self.from.by_ref().take(4096).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains("DB::Exception") { super::error::said(200, &text) } else { broken("a block has other columns") }
    }

    fn length_from(&mut self, first: u8) -> Result<usize, ConnectError> {
        let (mut length, mut shift, mut byte) = (usize::from(first & 0x7f), 7, first);
        while byte & 0x80 != 0 {
            let mut next = [0];
            self.from.read_exact(&mut next).map_err(broken)?;
            byte = next[0];
            length |= usize::from(byte & 0x7f).checked_shl(shift).ok_or_else(|| broken("a length is too long"))?;
            shift += 7;
        }
        Ok(length)
    }

    fn length(&mut self) -> Result<usize, ConnectError> {
        let mut first = [0];
        self.from.read_exact(&mut first).map_err(broken)?;
        self.length_from(first[0])
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, ConnectError> {
        let mut bytes = Vec::new();
        let taken = self.from.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(broken)?;
        if taken == length { Ok(bytes) } else { Err(broken("it ended in the middle of a block")) }
    }

    fn text(&mut self) -> Result<Vec<u8>, ConnectError> {
        let length = self.length()?;
        self.bytes(length)
    }

    fn values(&mut self, at: usize, row_count: usize, is_nullable: bool) -> Result<ArrayRef, ConnectError> {
        let nulls = if is_nullable { self.bytes(row_count)? } else { vec![0; row_count] };
        let form = self.columns[at].form;
        let mut builder = Builder::new(self.schema.field(at).data_type());
        if let Builder::Text(builder) = &mut builder {
            let mut text = Vec::new();
            for is_null in nulls {
                let length = self.length()?;
                text.resize(length, 0);
                self.from.read_exact(&mut text).map_err(broken)?;
                match std::str::from_utf8(&text) {
                    _ if is_null != 0 => builder.append_null(),
                    Ok(text) => builder.append_value(text),
                    Err(_) => {
                        let message = format!("column `{}` has a text that is not UTF-8", self.columns[at].name);
                        let help = format!("select it as `hex({})`", self.columns[at].name);
                        return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
                    }
                }
            }
            return Ok(std::sync::Arc::new(builder.finish()));
        }
        let width = width_of(form);
        let bytes = self.bytes(row_count.saturating_mul(width))?;
        for (value, is_null) in bytes.chunks_exact(width).zip(nulls) {
            if is_null != 0 {
                builder.append_null();
            } else {
                append(&mut builder, form, value);
            }
        }
        Ok(builder.finish())
    }
}

fn width_of(form: Form) -> usize {
    match form {
        Form::Bool | Form::Int8 | Form::UInt8 | Form::Text => 1,
        Form::Int16 | Form::UInt16 | Form::Date => 2,
        Form::Int32 | Form::UInt32 | Form::Float32 | Form::Date32 | Form::DateTime { .. } => 4,
        Form::Int64 | Form::UInt64 | Form::Float64 | Form::DateTime64 { .. } => 8,
        Form::Decimal { width, .. } => width,
    }
}

/// `value` has the width of the form.
fn append(builder: &mut Builder, form: Form, value: &[u8]) {
    fn fixed<const N: usize>(value: &[u8]) -> [u8; N] {
        value.first_chunk().copied().unwrap_or([0; N])
    }
    match builder {
        Builder::Boolean(builder) => builder.append_value(value[0] != 0),
        Builder::Int8(builder) => builder.append_value(i8::from_le_bytes(fixed(value))),
        Builder::Int16(builder) => builder.append_value(i16::from_le_bytes(fixed(value))),
        Builder::Int32(builder) => builder.append_value(i32::from_le_bytes(fixed(value))),
        Builder::Int64(builder) => builder.append_value(i64::from_le_bytes(fixed(value))),
        Builder::UInt8(builder) => builder.append_value(value[0]),
        Builder::UInt16(builder) => builder.append_value(u16::from_le_bytes(fixed(value))),
        Builder::UInt32(builder) => builder.append_value(u32::from_le_bytes(fixed(value))),
        Builder::UInt64(builder) => builder.append_value(u64::from_le_bytes(fixed(value))),
        Builder::Float32(builder) => builder.append_value(f32::from_le_bytes(fixed(value))),
        Builder::Float64(builder) => builder.append_value(f64::from_le_bytes(fixed(value))),
        Builder::Decimal(builder, _) => builder.append_value(match value.len() {
            4 => i32::from_le_bytes(fixed(value)).into(),
            8 => i64::from_le_bytes(fixed(value)).into(),
            _ => i128::from_le_bytes(fixed(value)),
        }),
        Builder::Date(builder) => builder.append_value(match form {
            Form::Date => i32::from(u16::from_le_bytes(fixed(value))),
            _ => i32::from_le_bytes(fixed(value)),
        }),
        Builder::Timestamp(builder, _) => builder.append_value(match form {
            Form::DateTime64 { scale, .. } => i64::from_le_bytes(fixed(value)) * 10_i64.pow(6 - scale.min(6)),
            _ => i64::from(u32::from_le_bytes(fixed(value))) * SECOND,
        }),
        Builder::Text(_) | Builder::Bytes(_) => {}
    }
}
