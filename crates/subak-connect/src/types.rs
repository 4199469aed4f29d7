//! What each type of a source is read as, and what becomes of each logical type in a destination: one answer in code, from which the documentation
//! is made and which the conformance suite tests.

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

/// A type of a source's own, and what it is read as where nothing is declared.
#[derive(Debug, Clone, Copy)]
pub struct ReadAs {
    /// The source's word, as a column is declared with it.
    pub word: &'static str,
    /// The logical type of its values.
    pub data_type: DataType,
    /// What becomes of its values.
    pub fate: Fate,
    /// An edge of it as the source writes it in SQL, and its text after reading.
    pub edge: (&'static str, &'static str),
    /// A value beyond the bounds of a policy, as the source writes it in SQL.
    pub beyond: Option<&'static str>,
}

impl ReadAs {
    /// A type whose every value has a place in the logical type.
    pub const fn exact(word: &'static str, data_type: DataType, edge: (&'static str, &'static str)) -> Self {
        Self { word, data_type, fate: Fate::Exact, edge, beyond: None }
    }

    /// A type whose every value is kept in a type that holds more.
    pub const fn widened(word: &'static str, data_type: DataType, edge: (&'static str, &'static str)) -> Self {
        Self { fate: Fate::Widened, ..Self::exact(word, data_type, edge) }
    }

    /// A type with values that have no place in the logical type: those `beyond` the `bounds`.
    #[must_use]
    pub const fn within(self, bounds: &'static str, beyond: &'static str) -> Self {
        Self { fate: Fate::Policy(bounds), beyond: Some(beyond), ..self }
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
