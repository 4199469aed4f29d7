//! What PostgreSQL's types are read as.

use subak_connect::types::ReadAs;
use subak_domain::DataType;

pub(super) const TYPES: &[ReadAs] = &[
    ReadAs::exact("boolean", DataType::Boolean, ("true", "true")),
    ReadAs::exact("smallint", DataType::SmallInt, ("-32768", "-32768")),
    ReadAs::exact("integer", DataType::Integer, ("-2147483648", "-2147483648")),
    ReadAs::exact("bigint", DataType::BigInt, ("-9223372036854775808", "-9223372036854775808")),
    ReadAs::widened("oid", DataType::BigInt, ("4294967295", "4294967295")),
    ReadAs::exact("real", DataType::Real, ("1.1754944e-38", "1.1754944e-38")),
    ReadAs::exact("double precision", DataType::Double, ("5e-324", "5e-324")),
    ReadAs::exact(
        "numeric(38,10)",
        DataType::Decimal { precision: 38, scale: 10 },
        ("-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
    )
    .within("neither NaN nor infinite", "'NaN'"),
    ReadAs::widened("numeric", DataType::Text, ("1e-40", "0.0000000000000000000000000000000000000001")),
    ReadAs::widened("money", DataType::Text, ("'-92233720368547758.08'", "-92233720368547758.08")),
    ReadAs::exact("text", DataType::Text, ("'Ünï 🦀'", "Ünï 🦀")),
    ReadAs::exact("varchar(9)", DataType::Text, ("'a '", "a ")),
    ReadAs::exact("char(3)", DataType::Text, ("'a'", "a  ")),
    ReadAs::widened("json", DataType::Text, ("'{\"a\": 1.50, \"a\": 2}'", "{\"a\": 1.50, \"a\": 2}")),
    ReadAs::widened("jsonb", DataType::Text, ("'{\"a\": 1.50}'", "{\"a\": 1.50}")),
    ReadAs::widened("uuid", DataType::Text, ("'00010203-0405-0607-0809-0a0b0c0d0e0f'", "00010203-0405-0607-0809-0a0b0c0d0e0f")),
    ReadAs::widened("xml", DataType::Text, ("'<a>1</a>'", "<a>1</a>")),
    ReadAs::exact("bytea", DataType::Bytes, ("'\\x00ff'", "00ff")),
    ReadAs::exact("date", DataType::Date, ("'9999-12-31'", "9999-12-31")).within("finite", "'infinity'"),
    ReadAs::exact("time", DataType::Time, ("'23:59:59.999999'", "23:59:59.999999")).within("before 24:00", "'24:00'"),
    ReadAs::widened("time with time zone", DataType::Text, ("'04:05:06.789-08'", "04:05:06.789-08")),
    ReadAs::exact("timestamp", DataType::DateTime, ("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"))
        .within("finite", "'infinity'"),
    ReadAs::exact("timestamptz", DataType::Timestamp, ("'2026-03-29 02:30:00.000001+02'", "2026-03-29T00:30:00.000001Z"))
        .within("finite", "'-infinity'"),
    ReadAs::widened(
        "interval",
        DataType::Text,
        ("'1 year 2 months -3 days 04:05:06.789'", "1 year 2 mons -3 days +04:05:06.789"),
    ),
    ReadAs::widened("inet", DataType::Text, ("'10.0.0.1/8'", "10.0.0.1/8")),
    ReadAs::widened("cidr", DataType::Text, ("'10.0.0.0/8'", "10.0.0.0/8")),
    ReadAs::widened("macaddr", DataType::Text, ("'08:00:2b:01:02:03'", "08:00:2b:01:02:03")),
    ReadAs::widened("bit(4)", DataType::Text, ("B'0101'", "0101")),
    ReadAs::widened("bit varying(9)", DataType::Text, ("B'010'", "010")),
    ReadAs::widened("int4range", DataType::Text, ("'[1,5]'", "[1,6)")),
    ReadAs::widened("numrange", DataType::Text, ("'(1.50,)'", "(1.50,)")),
    ReadAs::widened("point", DataType::Text, ("'(1,2)'", "(1,2)")),
    ReadAs::widened("tsvector", DataType::Text, ("'a b'", "'a' 'b'")),
    ReadAs::widened("integer[]", DataType::Text, ("'{1,NULL,3}'", "[1,null,3]")),
    ReadAs::widened("text[]", DataType::Text, ("'{\"a b\",NULL,\"\"}'", "[\"a b\",null,\"\"]")),
];
