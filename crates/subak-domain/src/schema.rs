//! Columns and the logical types that a project can name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most digits that a declared decimal may have: what the embedded warehouse stores exactly.
pub const DECIMAL_PRECISION_MAX: u8 = 38;

/// A column by name and logical type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name as readers see it.
    pub name: String,
    /// Logical type.
    pub data_type: DataType,
}

/// A logical type, independent of any system. Written in YAML as its `Display` form, for example `decimal(18,2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataType {
    /// `true` or `false`.
    Boolean,
    /// 16-bit signed integer.
    SmallInt,
    /// 32-bit signed integer.
    Integer,
    /// 64-bit signed integer.
    BigInt,
    /// 64-bit unsigned integer.
    UnsignedBigInt,
    /// 32-bit binary floating point.
    Real,
    /// 64-bit binary floating point.
    Double,
    /// Exact decimal with `precision` digits in all, `scale` of them after the point.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// Unicode text of any length.
    Text,
    /// Bytes of any length.
    Bytes,
    /// Calendar date.
    Date,
    /// Time of day, microseconds.
    Time,
    /// Wall-clock date and time without a zone, microseconds.
    DateTime,
    /// Instant, microseconds since 1970-01-01 UTC.
    Timestamp,
    /// A JSON document as text.
    Json,
    /// A UUID as text.
    Uuid,
}

/// Every type name that YAML accepts, for error messages and the editor schema.
pub const TYPE_NAMES: &[&str] = &[
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "unsigned_bigint",
    "real",
    "double",
    "decimal(p,s)",
    "text",
    "bytes",
    "date",
    "time",
    "datetime",
    "timestamp",
    "json",
    "uuid",
];

/// A text that names no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a type; known types are {known}", known = TYPE_NAMES.join(", "))]
pub struct InvalidDataType(pub String);

impl FromStr for DataType {
    type Err = InvalidDataType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "boolean" | "bool" => Self::Boolean,
            "smallint" => Self::SmallInt,
            "integer" | "int" => Self::Integer,
            "bigint" => Self::BigInt,
            "unsigned_bigint" => Self::UnsignedBigInt,
            "real" => Self::Real,
            "double" => Self::Double,
            "text" => Self::Text,
            "bytes" => Self::Bytes,
            "date" => Self::Date,
            "time" => Self::Time,
            "datetime" => Self::DateTime,
            "timestamp" => Self::Timestamp,
            "json" => Self::Json,
            "uuid" => Self::Uuid,
            _ => return parse_decimal(text).ok_or_else(|| InvalidDataType(text.to_owned())),
        })
    }
}

fn parse_decimal(text: &str) -> Option<DataType> {
    let inner = text.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',')?;
    let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<u8>().ok()?);
    let is_valid = (1..=DECIMAL_PRECISION_MAX).contains(&precision) && scale <= precision;
    is_valid.then_some(DataType::Decimal { precision, scale })
}

impl fmt::Display for DataType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::UnsignedBigInt => "unsigned_bigint",
            Self::Real => "real",
            Self::Double => "double",
            Self::Decimal { precision, scale } => return write!(formatter, "decimal({precision},{scale})"),
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Date => "date",
            Self::Time => "time",
            Self::DateTime => "datetime",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
            Self::Uuid => "uuid",
        };
        formatter.pad(name)
    }
}

impl TryFrom<String> for DataType {
    type Error = InvalidDataType;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DataType> for String {
    fn from(data_type: DataType) -> Self {
        data_type.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_parses_back() {
        for name in TYPE_NAMES.iter().filter(|name| !name.contains('p')).chain(&["decimal(18,2)", "decimal(38,38)", "timestamp"])
        {
            assert_eq!(name.parse::<DataType>().map(|data_type| data_type.to_string()).as_deref(), Ok(*name));
        }
    }

    #[test]
    fn refuses_impossible_decimals() {
        for text in ["decimal", "decimal(0,0)", "decimal(39,0)", "decimal(4,5)", "decimal(4)", "decimal(a,b)", "Text"] {
            assert!(text.parse::<DataType>().is_err(), "{text}");
        }
    }
}
