//! What becomes of each logical type in a destination: one answer in code, from which the documentation is made and which the conformance suite tests.

use subak_domain::DataType;

/// How a destination keeps a logical type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The destination's word for the column.
    pub word: String,
    /// What becomes of the values.
    pub fate: Fate,
}

/// What becomes of the values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Every value, in the same type.
    Exact,
    /// Every value, in a type that holds more.
    Widened,
    /// Every value within these bounds; what becomes of others is what `on_reject` says.
    Policy(&'static str),
    /// The load is refused.
    Refused,
}

impl Fate {
    /// One word for the documentation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Widened => "widened",
            Self::Policy(_) => "policy",
            Self::Refused => "refused",
        }
    }
}

/// Every logical type, decimals by one of the largest.
pub const EVERY: [DataType; 16] = [
    DataType::Boolean,
    DataType::SmallInt,
    DataType::Integer,
    DataType::BigInt,
    DataType::UnsignedBigInt,
    DataType::Real,
    DataType::Double,
    DataType::Decimal { precision: 38, scale: 10 },
    DataType::Text,
    DataType::Bytes,
    DataType::Date,
    DataType::Time,
    DataType::DateTime,
    DataType::Timestamp,
    DataType::Json,
    DataType::Uuid,
];
