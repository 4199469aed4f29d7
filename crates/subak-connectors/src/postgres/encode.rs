//! Arrow into `COPY … FROM STDIN (FORMAT binary)`, the reverse of `decode`.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use bytes::{BufMut, Bytes, BytesMut};
use subak_connect::{Batch, ConnectError, ConnectErrorKind};

use super::decode::{EPOCH_DAYS, EPOCH_MICROS};

/// Bytes that travel in one message.
const PIECE_LENGTH: usize = 256 * 1024;

/// The pieces of a whole copy with the rows of a batch.
pub(super) fn copy_of(batch: &Batch) -> Result<Vec<Bytes>, ConnectError> {
    let schema = batch.records.schema();
    let arrays = batch.records.columns();
    let columns: Vec<Values<'_>> = arrays.iter().map(Values::new).collect::<Result<_, _>>()?;
    let width = i16::try_from(columns.len())
        .map_err(|_| ConnectError::new(ConnectErrorKind::Config, "PostgreSQL knows at most 1,600 columns"))?;
    let mut pieces = Vec::new();
    let mut piece = BytesMut::with_capacity(PIECE_LENGTH + 4096);
    piece.put_slice(b"PGCOPY\n\xff\r\n\0");
    piece.put_i32(0);
    piece.put_i32(0);
    for row in 0..batch.row_count() {
        piece.put_i16(width);
        for (at, (array, values)) in arrays.iter().zip(&columns).enumerate() {
            if array.is_null(row) {
                piece.put_i32(-1);
                continue;
            }
            values.put(row, &mut piece).map_err(|problem| {
                let message = format!("column `{}`: {problem} ({})", schema.field(at).name(), batch.place(row));
                ConnectError::new(ConnectErrorKind::ValueMisfit, message)
            })?;
        }
        if piece.len() >= PIECE_LENGTH {
            pieces.push(piece.split().freeze());
            piece.reserve(PIECE_LENGTH + 4096);
        }
    }
    piece.put_i16(-1);
    pieces.push(piece.freeze());
    Ok(pieces)
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    UInt8(&'a PrimitiveArray<UInt8Type>),
    UInt16(&'a PrimitiveArray<UInt16Type>),
    UInt32(&'a PrimitiveArray<UInt32Type>),
    UInt64(&'a PrimitiveArray<UInt64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, u32),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>),
}

impl<'a> Values<'a> {
    fn new(array: &'a ArrayRef) -> Result<Self, ConnectError> {
        Ok(match array.data_type() {
            ArrowType::Boolean => Self::Boolean(array.as_boolean()),
            ArrowType::Int8 => Self::Int8(array.as_primitive()),
            ArrowType::Int16 => Self::Int16(array.as_primitive()),
            ArrowType::Int32 => Self::Int32(array.as_primitive()),
            ArrowType::Int64 => Self::Int64(array.as_primitive()),
            ArrowType::UInt8 => Self::UInt8(array.as_primitive()),
            ArrowType::UInt16 => Self::UInt16(array.as_primitive()),
            ArrowType::UInt32 => Self::UInt32(array.as_primitive()),
            ArrowType::UInt64 => Self::UInt64(array.as_primitive()),
            ArrowType::Float32 => Self::Float32(array.as_primitive()),
            ArrowType::Float64 => Self::Float64(array.as_primitive()),
            ArrowType::Decimal128(_, scale) if *scale >= 0 => {
                Self::Decimal(array.as_primitive(), u32::from(scale.cast_unsigned()))
            }
            ArrowType::Utf8 => Self::Text(array.as_string()),
            ArrowType::Binary => Self::Bytes(array.as_binary()),
            ArrowType::Date32 => Self::Date(array.as_primitive()),
            ArrowType::Time64(TimeUnit::Microsecond) => Self::Time(array.as_primitive()),
            ArrowType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp(array.as_primitive()),
            other => {
                let message = format!("PostgreSQL has no exact type for {other}");
                return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message));
            }
        })
    }

    /// Writes the value of a row that has one.
    fn put(&self, row: usize, out: &mut BytesMut) -> Result<(), String> {
        match self {
            Self::Boolean(array) => sized(out, &[u8::from(array.value(row))]),
            Self::Int8(array) => sized(out, &i16::from(array.value(row)).to_be_bytes()),
            Self::UInt8(array) => sized(out, &i16::from(array.value(row)).to_be_bytes()),
            Self::Int16(array) => sized(out, &array.value(row).to_be_bytes()),
            Self::UInt16(array) => sized(out, &i32::from(array.value(row)).to_be_bytes()),
            Self::Int32(array) => sized(out, &array.value(row).to_be_bytes()),
            Self::UInt32(array) => sized(out, &i64::from(array.value(row)).to_be_bytes()),
            Self::Int64(array) => sized(out, &array.value(row).to_be_bytes()),
            Self::UInt64(array) => put_numeric(out, i128::from(array.value(row)), 0)?,
            Self::Float32(array) => sized(out, &array.value(row).to_be_bytes()),
            Self::Float64(array) => sized(out, &array.value(row).to_be_bytes()),
            Self::Decimal(array, scale) => put_numeric(out, array.value(row), *scale)?,
            Self::Text(array) => {
                let text = array.value(row);
                if memchr::memchr(0, text.as_bytes()).is_some() {
                    return Err("PostgreSQL holds no text with a zero character in it".to_owned());
                }
                put_long(out, text.as_bytes())?;
            }
            Self::Bytes(array) => put_long(out, array.value(row))?,
            Self::Date(array) => {
                let days = array.value(row).checked_sub(EPOCH_DAYS).ok_or("the date lies beyond what PostgreSQL knows")?;
                sized(out, &days.to_be_bytes());
            }
            Self::Time(array) => sized(out, &array.value(row).to_be_bytes()),
            Self::Timestamp(array) => {
                let micros = array.value(row).checked_sub(EPOCH_MICROS).ok_or("the time lies beyond what PostgreSQL knows")?;
                sized(out, &micros.to_be_bytes());
            }
        }
        Ok(())
    }
}

fn sized(out: &mut BytesMut, bytes: &[u8]) {
    // Fixed sizes of at most eight bytes.
    out.put_i32(i32::try_from(bytes.len()).unwrap_or(0));
    out.put_slice(bytes);
}

fn put_long(out: &mut BytesMut, bytes: &[u8]) -> Result<(), String> {
    let length = i32::try_from(bytes.len()).ok().filter(|length| *length < 1 << 30);
    out.put_i32(length.ok_or("PostgreSQL holds no value of more than one gigabyte")?);
    out.put_slice(bytes);
    Ok(())
}

/// A `numeric`: see `decode::decimal`.
fn put_numeric(out: &mut BytesMut, unscaled: i128, scale: u32) -> Result<(), String> {
    let magnitude = unscaled.unsigned_abs();
    let point = 10_u128.checked_pow(scale).ok_or("a decimal has more than 38 digits")?;
    let (mut whole, fraction) = (magnitude / point, magnitude % point);
    let mut digits = [0_u16; 24];
    let mut start = 12;
    while whole > 0 {
        start -= 1;
        digits[start] = u16::try_from(whole % 10_000).unwrap_or(0);
        whole /= 10_000;
    }
    // Digits behind the point, four by four from the left.
    let (mut end, mut rest, mut unit) = (12, fraction, point);
    while rest > 0 {
        let (digit, next, smaller) = match unit / 10_000 {
            0 => (rest * (10_000 / unit), 0, 1),
            smaller => (rest / smaller, rest % smaller, smaller),
        };
        digits[end] = u16::try_from(digit).unwrap_or(0);
        end += 1;
        (rest, unit) = (next, smaller);
    }
    while start < end && digits[start] == 0 {
        start += 1;
    }
    while end > start && digits[end - 1] == 0 {
        end -= 1;
    }
    let count = end - start;
    let weight = if count == 0 { 0 } else { 11 - i32::try_from(start).unwrap_or(0) };
    out.put_i32(i32::try_from(8 + 2 * count).unwrap_or(8));
    out.put_u16(u16::try_from(count).unwrap_or(0));
    out.put_i16(i16::try_from(weight).unwrap_or(0));
    out.put_u16(if unscaled < 0 { 0x4000 } else { 0 });
    out.put_u16(u16::try_from(scale).unwrap_or(0));
    for digit in &digits[start..end] {
        out.put_u16(*digit);
    }
    Ok(())
}
