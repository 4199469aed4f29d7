//! Arrow types in DuckDB's words.

use arrow::datatypes::{DataType, TimeUnit};

use super::DIALECT;

/// The DuckDB type of a column. `None` when DuckDB has none that holds its values exactly.
pub(super) fn sql_type(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::UInt8 => "utinyint".into(),
        DataType::UInt16 => "usmallint".into(),
        DataType::UInt32 => "uinteger".into(),
        DataType::UInt64 => "ubigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(precision, scale) if *scale >= 0 => format!("decimal({precision},{scale})"),
        DataType::Utf8 | DataType::Null => "varchar".into(),
        DataType::Binary => "blob".into(),
        DataType::Date32 => "date".into(),
        DataType::Time64(TimeUnit::Microsecond) => "time".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "timestamp_ns".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::List(item) => format!("{}[]", sql_type(item.data_type())?),
        DataType::Struct(fields) => {
            let parts: Option<Vec<String>> = fields
                .iter()
                .map(|field| Some(format!("{} {}", DIALECT.identifier(field.name()), sql_type(field.data_type())?)))
                .collect();
            format!("struct({})", parts?.join(", "))
        }
        _ => return None,
    })
}
