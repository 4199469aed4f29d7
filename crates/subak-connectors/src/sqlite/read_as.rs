//! What SQLite's declared types are read as. What a row holds need not be of its column's type: such a value is refused, or as `on_reject` says.

use subak_connect::types::ReadAs;
use subak_domain::DataType;

pub(super) const TYPES: &[ReadAs] = &[
    ReadAs::exact("integer", DataType::BigInt, ("-9223372036854775808", "-9223372036854775808")).within("whole numbers", "'x'"),
    ReadAs::exact("bigint", DataType::BigInt, ("9223372036854775807", "9223372036854775807")).within("whole numbers", "1.5"),
    ReadAs::exact("boolean", DataType::Boolean, ("1", "true")).within("0 and 1", "2"),
    ReadAs::exact("real", DataType::Double, ("5e-324", "5e-324")).within("numbers", "'x'"),
    ReadAs::exact("decimal(38,10)", DataType::Decimal { precision: 38, scale: 10 }, ("1.25", "1.2500000000"))
        .within("numbers of that many digits", "'x'"),
    ReadAs::widened("numeric", DataType::Text, ("1.5", "1.5")),
    ReadAs::exact("text", DataType::Text, ("'Ünï 🦀'", "Ünï 🦀")),
    ReadAs::exact("varchar(9)", DataType::Text, ("'longer than nine'", "longer than nine")),
    ReadAs::exact("blob", DataType::Bytes, ("x'00ff'", "00ff")),
    ReadAs::exact("date", DataType::Date, ("'9999-12-31'", "9999-12-31")).within("dates of the calendar", "'2026-02-30'"),
    ReadAs::exact("datetime", DataType::DateTime, ("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"))
        .within("dates of the calendar", "'2026-02-30'"),
];
