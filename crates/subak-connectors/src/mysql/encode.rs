//! Arrow into the text of `insert` statements.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType as ArrowType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use subak_connect::{Batch, ConnectError, ConnectErrorKind, convert};

use super::DIALECT;

/// Bytes of one statement, as far as its rows allow: a server takes a megabyte at least.
const STATEMENT_LENGTH: usize = 768 * 1024;

/// The first and the last day that the server holds, in days since 1970.
pub(super) const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// Statements that insert the rows of a batch, in their order.
pub(super) fn inserts(table: &str, batch: &Batch) -> Result<Vec<String>, ConnectError> {
    let schema = batch.records.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let head = format!("insert into {table} ({}) values ", DIALECT.identifiers(&names));
    let mut statements = Vec::new();
    let mut statement = head.clone();
    for row in 0..batch.row_count() {
        if statement.len() > head.len() {
            statement.push(',');
        }
        statement.push('(');
        for (at, array) in batch.records.columns().iter().enumerate() {
            if at > 0 {
                statement.push(',');
            }
            if array.is_null(row) {
                statement.push_str("null");
                continue;
            }
            put(array, row, &mut statement).map_err(|problem| {
                let message = format!("column `{}`: {problem} ({})", schema.field(at).name(), batch.place(row));
                ConnectError::new(ConnectErrorKind::ValueMisfit, message)
            })?;
        }
        statement.push(')');
        if statement.len() >= STATEMENT_LENGTH {
            statements.push(std::mem::replace(&mut statement, head.clone()));
        }
    }
    if statement.len() > head.len() {
        statements.push(statement);
    }
    Ok(statements)
}

/// Writes the value of a row that has one.
fn put(array: &ArrayRef, row: usize, out: &mut String) -> Result<(), &'static str> {
    macro_rules! number {
        ($kind:ty) => {{
            let value = array.as_primitive::<$kind>().value(row);
            // Writing to a text cannot fail.
            let _ok = write!(out, "{value}");
        }};
    }
    match array.data_type() {
        ArrowType::Boolean => out.push_str(if array.as_boolean().value(row) { "1" } else { "0" }),
        ArrowType::Int8 => number!(Int8Type),
        ArrowType::Int16 => number!(Int16Type),
        ArrowType::Int32 => number!(Int32Type),
        ArrowType::Int64 => number!(Int64Type),
        ArrowType::UInt8 => number!(UInt8Type),
        ArrowType::UInt16 => number!(UInt16Type),
        ArrowType::UInt32 => number!(UInt32Type),
        ArrowType::UInt64 => number!(UInt64Type),
        ArrowType::Float32 => put_float(f64::from(array.as_primitive::<Float32Type>().value(row)), out)?,
        ArrowType::Float64 => put_float(array.as_primitive::<Float64Type>().value(row), out)?,
        ArrowType::Decimal128(..) => out.push_str(&convert::text_at(array, row)),
        ArrowType::Utf8 => out.push_str(&DIALECT.literal(array.as_string::<i32>().value(row))),
        ArrowType::Binary => put_bytes(array.as_binary::<i32>().value(row), out),
        ArrowType::Date32 => {
            let days = array.as_primitive::<arrow::datatypes::Date32Type>().value(row);
            let text = convert::format_date(days).filter(|_| DAYS.contains(&days)).ok_or(BEYOND)?;
            let _ok = write!(out, "'{text}'");
        }
        ArrowType::Time64(TimeUnit::Microsecond) => {
            let _ok = write!(out, "'{}'", convert::text_at(array, row));
        }
        ArrowType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(row);
            let day = i32::try_from(micros.div_euclid(86_400_000_000)).ok().filter(|day| DAYS.contains(day));
            let text = day.and_then(|_| convert::format_datetime(micros)).ok_or(BEYOND)?;
            let _ok = write!(out, "'{}'", text.replace('T', " "));
        }
        _ => return Err("MySQL has no type for it"),
    }
    Ok(())
}

const BEYOND: &str = "MySQL holds dates of the years 1 to 9999 only";

/// With an exponent: a number without one is a decimal, and those have fewer digits.
fn put_float(value: f64, out: &mut String) -> Result<(), &'static str> {
    if !value.is_finite() {
        return Err("MySQL holds no NaN and no infinity");
    }
    let _ok = write!(out, "{value:e}");
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut String) {
    out.push_str("x'");
    for byte in bytes {
        let _ok = write!(out, "{byte:02x}");
    }
    out.push('\'');
}
