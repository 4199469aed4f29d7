//! What ClickHouse's types are read as.

use subak_connect::types::ReadAs;
use subak_domain::DataType;

pub(super) const TYPES: &[ReadAs] = &[
    ReadAs::exact("Bool", DataType::Boolean, ("true", "true")),
    ReadAs::widened("Int8", DataType::SmallInt, ("-128", "-128")),
    ReadAs::widened("UInt8", DataType::SmallInt, ("255", "255")),
    ReadAs::exact("Int16", DataType::SmallInt, ("-32768", "-32768")),
    ReadAs::widened("UInt16", DataType::Integer, ("65535", "65535")),
    ReadAs::exact("Int32", DataType::Integer, ("-2147483648", "-2147483648")),
    ReadAs::widened("UInt32", DataType::BigInt, ("4294967295", "4294967295")),
    ReadAs::exact("Int64", DataType::BigInt, ("-9223372036854775808", "-9223372036854775808")),
    ReadAs::exact("UInt64", DataType::UnsignedBigInt, ("18446744073709551615", "18446744073709551615")),
    ReadAs::widened(
        "Int128",
        DataType::Text,
        ("'-170141183460469231731687303715884105728'", "-170141183460469231731687303715884105728"),
    ),
    ReadAs::widened(
        "UInt256",
        DataType::Text,
        (
            "'115792089237316195423570985008687907853269984665640564039457584007913129639935'",
            "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        ),
    ),
    ReadAs::exact("Float32", DataType::Real, ("1.1754944e-38", "1.1754944e-38")),
    ReadAs::exact("Float64", DataType::Double, ("5e-324", "5e-324")),
    ReadAs::exact(
        "Decimal(38, 10)",
        DataType::Decimal { precision: 38, scale: 10 },
        ("'-9999999999999999999999999999.9999999999'", "-9999999999999999999999999999.9999999999"),
    ),
    ReadAs::widened(
        "Decimal(76, 2)",
        DataType::Text,
        ("'99999999999999999999999999999999999999999.25'", "99999999999999999999999999999999999999999.25"),
    ),
    ReadAs::exact("String", DataType::Text, ("'Ünï 🦀'", "Ünï 🦀")),
    ReadAs::exact("LowCardinality(String)", DataType::Text, ("'a'", "a")),
    ReadAs::exact("Nullable(String)", DataType::Text, ("''", "")),
    ReadAs::widened("FixedString(3)", DataType::Text, ("'abc'", "abc")),
    ReadAs::widened("UUID", DataType::Text, ("'00010203-0405-0607-0809-0a0b0c0d0e0f'", "00010203-0405-0607-0809-0a0b0c0d0e0f")),
    ReadAs::widened("Enum8('a' = 1, 'b' = 2)", DataType::Text, ("'b'", "b")),
    ReadAs::exact("Date", DataType::Date, ("'2149-06-06'", "2149-06-06")),
    ReadAs::exact("Date32", DataType::Date, ("'2299-12-31'", "2299-12-31")),
    ReadAs::exact("DateTime", DataType::Timestamp, ("toDateTime('2106-02-07 06:28:15', 'Etc/UTC')", "2106-02-07T06:28:15Z")),
    ReadAs::exact("DateTime('UTC')", DataType::DateTime, ("'2106-02-07 06:28:15'", "2106-02-07 06:28:15")),
    ReadAs::exact(
        "DateTime64(6, 'Etc/UTC')",
        DataType::Timestamp,
        ("'1900-01-01 00:00:00.000001'", "1900-01-01T00:00:00.000001Z"),
    ),
    ReadAs::exact("DateTime64(3, 'UTC')", DataType::DateTime, ("'1969-12-31 23:59:59.999'", "1969-12-31 23:59:59.999")),
    ReadAs::widened("DateTime64(9, 'UTC')", DataType::Text, ("'2026-01-01 00:00:00.123456789'", "2026-01-01 00:00:00.123456789")),
    ReadAs::widened("IPv4", DataType::Text, ("'10.0.0.1'", "10.0.0.1")),
    ReadAs::widened("IPv6", DataType::Text, ("'::1'", "::1")),
    ReadAs::widened("Array(Nullable(Int32))", DataType::Text, ("[1, null]", "[1,null]")),
    ReadAs::widened("Map(String, Int32)", DataType::Text, ("map('a', 1)", "{\"a\":1}")),
    ReadAs::widened("Tuple(a Int32, b String)", DataType::Text, ("(1, 'x')", "{\"a\":1,\"b\":\"x\"}")),
];
