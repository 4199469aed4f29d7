//! What the types of MySQL and MariaDB are read as.

use subak_connect::types::ReadAs;
use subak_domain::DataType;

pub(super) const TYPES: &[ReadAs] = &[
    ReadAs::widened("tinyint", DataType::SmallInt, ("-128", "-128")),
    ReadAs::widened("tinyint(1)", DataType::SmallInt, ("2", "2")),
    ReadAs::widened("tinyint unsigned", DataType::SmallInt, ("255", "255")),
    ReadAs::exact("smallint", DataType::SmallInt, ("-32768", "-32768")),
    ReadAs::widened("smallint unsigned", DataType::Integer, ("65535", "65535")),
    ReadAs::widened("mediumint", DataType::Integer, ("-8388608", "-8388608")),
    ReadAs::widened("mediumint unsigned", DataType::BigInt, ("16777215", "16777215")),
    ReadAs::exact("int", DataType::Integer, ("-2147483648", "-2147483648")),
    ReadAs::widened("int unsigned", DataType::BigInt, ("4294967295", "4294967295")),
    ReadAs::exact("bigint", DataType::BigInt, ("-9223372036854775808", "-9223372036854775808")),
    ReadAs::exact("bigint unsigned", DataType::UnsignedBigInt, ("18446744073709551615", "18446744073709551615")),
    ReadAs::widened(
        "bit(64)",
        DataType::UnsignedBigInt,
        ("b'1000000000000000000000000000000000000000000000000000000000000001'", "9223372036854775809"),
    ),
    ReadAs::widened("year", DataType::SmallInt, ("2155", "2155")),
    ReadAs::exact("float", DataType::Real, ("1.1754944e-38", "1.1754944e-38")),
    ReadAs::exact("double", DataType::Double, ("2.2250738585072014e-308", "2.2250738585072014e-308")),
    ReadAs::exact(
        "decimal(38,10)",
        DataType::Decimal { precision: 38, scale: 10 },
        ("-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
    ),
    ReadAs::widened(
        "decimal(65,30)",
        DataType::Text,
        (
            "12345678901234567890123456789012345.123456789012345678901234567890",
            "12345678901234567890123456789012345.123456789012345678901234567890",
        ),
    ),
    ReadAs::exact("char(9)", DataType::Text, ("'a'", "a")),
    ReadAs::exact("varchar(9)", DataType::Text, ("'Ünï 🦀 '", "Ünï 🦀 ")),
    ReadAs::exact("longtext", DataType::Text, ("'a\\\\n'", "a\\n")),
    ReadAs::widened("enum('a','b')", DataType::Text, ("'b'", "b")),
    ReadAs::widened("set('a','b')", DataType::Text, ("'b,a'", "a,b")),
    ReadAs::widened("json", DataType::Text, ("'{\"a\": 1.50}'", "{\"a\": 1.50}")),
    ReadAs::exact("binary(3)", DataType::Bytes, ("x'00ff'", "00ff00")),
    ReadAs::exact("varbinary(9)", DataType::Bytes, ("x'00ff'", "00ff")),
    ReadAs::exact("longblob", DataType::Bytes, ("x'00ff'", "00ff")),
    ReadAs::exact("date", DataType::Date, ("'9999-12-31'", "9999-12-31")).within("dates of the calendar", "'0000-00-00'"),
    ReadAs::exact("datetime(6)", DataType::DateTime, ("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"))
        .within("dates of the calendar", "'0000-00-00'"),
    ReadAs::exact("timestamp(6)", DataType::Timestamp, ("'2038-01-19 03:14:07.999999'", "2038-01-19T03:14:07.999999Z"))
        .within("dates of the calendar", "'0000-00-00'"),
    ReadAs::widened("time(6)", DataType::Text, ("'-838:59:59.999999'", "-838:59:59.999999")),
    ReadAs::widened("point", DataType::Bytes, ("st_geomfromtext('point(1 2)')", "0101000000000000000000f03f0000000000000040")),
];
