//! What DuckDB's types are read as.

use subak_connect::types::ReadAs;
use subak_domain::DataType;

pub(super) const TYPES: &[ReadAs] = &[
    ReadAs::exact("boolean", DataType::Boolean, ("true", "true")),
    ReadAs::widened("tinyint", DataType::SmallInt, ("-128", "-128")),
    ReadAs::widened("utinyint", DataType::SmallInt, ("255", "255")),
    ReadAs::exact("smallint", DataType::SmallInt, ("-32768", "-32768")),
    ReadAs::widened("usmallint", DataType::Integer, ("65535", "65535")),
    ReadAs::exact("integer", DataType::Integer, ("-2147483648", "-2147483648")),
    ReadAs::widened("uinteger", DataType::BigInt, ("4294967295", "4294967295")),
    ReadAs::exact("bigint", DataType::BigInt, ("-9223372036854775808", "-9223372036854775808")),
    ReadAs::exact("ubigint", DataType::UnsignedBigInt, ("18446744073709551615", "18446744073709551615")),
    ReadAs::exact(
        "hugeint",
        DataType::Decimal { precision: 38, scale: 0 },
        ("-99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"),
    )
    .within("at most 38 digits", "100000000000000000000000000000000000000"),
    ReadAs::widened(
        "uhugeint",
        DataType::Text,
        ("340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),
    ),
    ReadAs::exact("double", DataType::Double, ("5e-324", "5e-324")),
    ReadAs::exact(
        "decimal(38,10)",
        DataType::Decimal { precision: 38, scale: 10 },
        ("'-9999999999999999999999999999.9999999999'", "-9999999999999999999999999999.9999999999"),
    ),
    ReadAs::exact("varchar", DataType::Text, ("'Ünï 🦀'", "Ünï 🦀")),
    ReadAs::widened("uuid", DataType::Text, ("'00010203-0405-0607-0809-0a0b0c0d0e0f'", "00010203-0405-0607-0809-0a0b0c0d0e0f")),
    ReadAs::exact("blob", DataType::Bytes, ("'\\x00\\xFF'::blob", "00ff")),
    ReadAs::exact("date", DataType::Date, ("'9999-12-31'", "9999-12-31")).within("finite", "'infinity'"),
    ReadAs::exact("time", DataType::Time, ("'23:59:59.999999'", "23:59:59.999999")).within("before 24:00", "'24:00:00'"),
    ReadAs::exact("timestamp", DataType::DateTime, ("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"))
        .within("finite", "'-infinity'"),
    ReadAs::exact("timestamptz", DataType::Timestamp, ("'2026-03-29 02:30:00.000001+02'", "2026-03-29T00:30:00.000001Z"))
        .within("finite", "'infinity'"),
    ReadAs::widened("enum('a', 'b')", DataType::Text, ("'b'", "b")),
];
