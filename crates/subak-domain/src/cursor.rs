//! How far a stream has been read.

use serde::{Deserialize, Serialize};

use crate::DataType;

/// The highest value of a stream's cursor column that is committed, at the precision of the source.
///
/// The value is text in the source's own canonical form, so that nothing is rounded on the way to the destination and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The cursor column.
    pub column: String,
    /// Canonical text of the value.
    pub value: String,
    /// Logical type of the value; decides how two values compare.
    pub data_type: DataType,
}

impl Cursor {
    /// Whether this value is above `other`, as the type compares: numbers by value, everything else by text, which for dates and
    /// times in canonical form is their order.
    pub fn is_after(&self, other: &Self) -> bool {
        let number = |text: &str| text.parse::<i128>().ok();
        match (self.data_type, number(&self.value), number(&other.value)) {
            (DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::UnsignedBigInt, Some(a), Some(b)) => a > b,
            (DataType::Decimal { .. }, ..) => compare_decimals(&self.value, &other.value).is_gt(),
            (DataType::Real | DataType::Double, ..) => match (self.value.parse::<f64>(), other.value.parse::<f64>()) {
                (Ok(a), Ok(b)) => a > b,
                _ => self.value > other.value,
            },
            (DataType::Timestamp, ..) => match (self.value.parse::<jiff::Timestamp>(), other.value.parse::<jiff::Timestamp>()) {
                (Ok(a), Ok(b)) => a > b,
                _ => self.value.replace('T', " ") > other.value.replace('T', " "),
            },
            (DataType::Date | DataType::DateTime, ..) => self.value.replace('T', " ") > other.value.replace('T', " "),
            _ => self.value > other.value,
        }
    }
}

/// Compares two plain decimal texts, such as `-1.50`, by their values: exact up to 38 digits on each side of the point.
pub fn compare_decimals(a: &str, b: &str) -> std::cmp::Ordering {
    decimal_key(a).cmp(&decimal_key(b))
}

/// A decimal text as something that compares like its value: whole part, then the digits behind the point; negative ones reversed.
fn decimal_key(text: &str) -> (i128, i128) {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(38).collect();
    (whole.parse().unwrap_or(0), sign * fraction.parse::<i128>().unwrap_or(0))
}
