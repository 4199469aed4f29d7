//! A column of Arrow under construction, for drivers that hand over one value after the other.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int8Builder,
    Int16Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt16Builder,
    UInt32Builder, UInt64Builder,
};
use arrow::datatypes::{DataType as ArrowType, TimeUnit};

/// Values of one column.
pub(crate) enum Builder {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, ArrowType),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder, ArrowType),
}

impl Builder {
    /// For values of this type; texts for every type that is not among those above.
    pub(crate) fn new(data_type: &ArrowType) -> Self {
        match data_type {
            ArrowType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ArrowType::Int8 => Self::Int8(Int8Builder::new()),
            ArrowType::Int16 => Self::Int16(Int16Builder::new()),
            ArrowType::Int32 => Self::Int32(Int32Builder::new()),
            ArrowType::Int64 => Self::Int64(Int64Builder::new()),
            ArrowType::UInt8 => Self::UInt8(UInt8Builder::new()),
            ArrowType::UInt16 => Self::UInt16(UInt16Builder::new()),
            ArrowType::UInt32 => Self::UInt32(UInt32Builder::new()),
            ArrowType::UInt64 => Self::UInt64(UInt64Builder::new()),
            ArrowType::Float32 => Self::Float32(Float32Builder::new()),
            ArrowType::Float64 => Self::Float64(Float64Builder::new()),
            ArrowType::Decimal128(..) => Self::Decimal(Decimal128Builder::new(), data_type.clone()),
            ArrowType::Binary => Self::Bytes(BinaryBuilder::new()),
            ArrowType::Date32 => Self::Date(Date32Builder::new()),
            ArrowType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new(), data_type.clone())
            }
            _ => Self::Text(StringBuilder::new()),
        }
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Int8(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::UInt8(builder) => builder.append_null(),
            Self::UInt16(builder) => builder.append_null(),
            Self::UInt32(builder) => builder.append_null(),
            Self::UInt64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal(builder, _) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Timestamp(builder, _) => builder.append_null(),
        }
    }

    /// The column; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Int8(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::UInt8(builder) => Arc::new(builder.finish()),
            Self::UInt16(builder) => Arc::new(builder.finish()),
            Self::UInt32(builder) => Arc::new(builder.finish()),
            Self::UInt64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, data_type) => Arc::new(builder.finish().with_data_type(data_type.clone())),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder, data_type) => {
                let zone = match data_type {
                    ArrowType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                Arc::new(builder.finish().with_timezone_opt(zone))
            }
        }
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; `None` when there is no such day.
pub(crate) fn days_of(year: i32, month: u32, day: u32) -> Option<i32> {
    let date = jiff::civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    // As in Howard Hinnant's `days_from_civil`: years begin in March, so that the day that comes and goes is their last.
    let year = i32::from(date.year()) - i32::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (i32::try_from(month).ok()? + if month > 2 { -3 } else { 9 }) + 2) / 5 + i32::try_from(day).ok()? - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_the_epoch() {
        for (day, expect) in [
            ((1970, 1, 1), Some(0)),
            ((2000, 2, 29), Some(11_016)),
            ((1000, 1, 1), Some(-354_285)),
            ((9999, 12, 31), Some(2_932_896)),
            ((1, 1, 1), Some(-719_162)),
            ((1900, 2, 29), None),
            ((2024, 0, 10), None),
            ((0, 0, 0), None),
        ] {
            assert_eq!(days_of(day.0, day.1, day.2), expect, "{day:?}");
        }
    }
}
