//! Change events as Debezium writes them: with or without an envelope, with or without a schema.
//!
//! An event becomes a row with the columns of the table and three more: `__op` (`insert`, `update`, `delete`, `read`), `__version`
//! (the place in the log, which grows with every change) and, where the log did not carry a value, [`UNCHANGED`]. Forms and names
//! after the Debezium documentation, "Change event values" of its connectors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use subak_connect::convert;
use subak_connect::sink::UNCHANGED;
use subak_domain::DataType;

use crate::records::{Record, Value, text_of};

/// What Debezium writes for a value that the log did not carry.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The row of an event. `None` for an event that changes nothing: a tombstone, a heartbeat, a transaction marker.
pub(super) fn flatten(
    record: &Record<'_>,
    declared: &BTreeMap<String, DataType>,
    spelling: Spelling,
) -> Result<Option<Record<'static>>, String> {
    let object = |name: &str| match record.iter().find(|(key, _)| key == name) {
        Some((_, Value::Nested(json))) => serde_json::from_str::<Json>(json).ok(),
        _ => None,
    };
    let has = |name: &str| record.iter().any(|(key, _)| key == name);
    if has("schema") && has("payload") {
        let schema = object("schema").unwrap_or(Json::Null);
        return match object("payload") {
            Some(Json::Object(payload)) => event(&payload, Some(&schema), declared, spelling),
            _ => Ok(None),
        };
    }
    let whole: Map<String, Json> = record
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Null => Json::Null,
                Value::Boolean(is_true) => Json::Bool(*is_true),
                Value::Number(digits) => digits.parse().map_or(Json::Null, Json::Number),
                Value::Nested(json) => serde_json::from_str(json).unwrap_or(Json::Null),
                value => Json::from(text_of(value).as_ref()),
            };
            (key.to_string(), value)
        })
        .collect();
    event(&whole, None, declared, spelling)
}

fn event(
    payload: &Map<String, Json>,
    schema: Option<&Json>,
    declared: &BTreeMap<String, DataType>,
    spelling: Spelling,
) -> Result<Option<Record<'static>>, String> {
    let Some(op) = payload.get("op").and_then(Json::as_str) else {
        let is_marker = payload.contains_key("ts_ms") || payload.contains_key("status");
        return if is_marker && !payload.contains_key("after") { Ok(None) } else { Err("the event has no `op`".to_owned()) };
    };
    let (word, side) = match op {
        "c" => ("insert", "after"),
        "u" => ("update", "after"),
        "d" => ("delete", "before"),
        "r" => ("read", "after"),
        "t" => return Err("the table was truncated; load it again with `--full-refresh`".to_owned()),
        "m" => return Ok(None),
        other => return Err(format!("the operation `{other}` is not known")),
    };
    let Some(Json::Object(row)) = payload.get(side) else {
        return Err(format!("the event has the operation `{op}` and no `{side}`"));
    };
    let kinds = schema.map(|schema| column_schemas(schema, side)).unwrap_or_default();
    let mut record: Record<'static> = Vec::with_capacity(row.len() + 3);
    let mut unchanged: Vec<&str> = Vec::new();
    for (name, value) in row {
        if value.as_str() == Some(UNAVAILABLE) {
            unchanged.push(name);
        }
        let value = match kinds.get(name.as_str()) {
            Some(kind) => by_schema(value, kind),
            None => by_declaration(value, declared.get(name).copied(), spelling),
        };
        record.push((Cow::Owned(name.clone()), value.map_err(|what| format!("the value of `{name}` {what}"))?));
    }
    record.push((Cow::Borrowed("__op"), Value::Text(Cow::Borrowed(word))));
    let version = version(payload).ok_or("the event says neither where it stands in the log nor when it was")?;
    record.push((Cow::Borrowed("__version"), Value::Number(Cow::Owned(version.to_string()))));
    let unchanged =
        if unchanged.is_empty() { Value::Null } else { Value::Text(Cow::Owned(format!(",{},", unchanged.join(",")))) };
    record.push((Cow::Borrowed(UNCHANGED), unchanged));
    Ok(Some(record))
}

/// How values are written that come without a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spelling {
    /// What one counts in times.
    pub(super) times: Option<TimeUnit>,
    pub(super) decimals: Option<Decimals>,
}

/// What one counts in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// How decimals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decimals {
    /// As digits.
    Text,
    /// As the bytes of a number, in Base64.
    Base64,
}

impl Spelling {
    /// Microseconds since 1970-01-01. Without a declared unit the size of the number tells; Debezium never counts seconds.
    fn micros(self, number: i64) -> Option<i64> {
        let unit = self.times.unwrap_or(match number.unsigned_abs() {
            0..100_000_000_000_000 => TimeUnit::Milliseconds,
            100_000_000_000_000..100_000_000_000_000_000 => TimeUnit::Microseconds,
            _ => TimeUnit::Nanoseconds,
        });
        match unit {
            TimeUnit::Milliseconds => number.checked_mul(1000),
            TimeUnit::Microseconds => Some(number),
            TimeUnit::Nanoseconds => (number % 1000 == 0).then_some(number / 1000),
        }
    }
}

/// A number that grows with the log: PostgreSQL's position, `MySQL`'s file and position, else the time.
fn version(payload: &Map<String, Json>) -> Option<i128> {
    let source = payload.get("source").and_then(Json::as_object);
    let number = |name: &str| source.and_then(|source| source.get(name)).and_then(Json::as_i64).map(i128::from);
    if let Some(lsn) = number("lsn") {
        return Some(lsn);
    }
    if let (Some(file), Some(position)) = (source.and_then(|source| source.get("file")).and_then(Json::as_str), number("pos")) {
        let digits: String = file.chars().rev().take_while(char::is_ascii_digit).collect();
        let file: i128 = digits.chars().rev().collect::<String>().parse().unwrap_or(0);
        return Some((file << 40) + position);
    }
    number("ts_us").or_else(|| number("ts_ms")).or_else(|| payload.get("ts_ms").and_then(Json::as_i64).map(i128::from))
}

/// The schemas of the columns on one side of the envelope.
fn column_schemas<'s>(schema: &'s Json, side: &str) -> BTreeMap<&'s str, &'s Json> {
    let fields = |schema: &'s Json| schema.get("fields").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = |schema: &'s Json| schema.get("field").and_then(Json::as_str);
    let side = fields(schema).iter().find(|field| named(field) == Some(side));
    side.into_iter().flat_map(fields).filter_map(|field| Some((named(field)?, field))).collect()
}

/// A value by the name that Debezium gives to its meaning.
fn by_schema(value: &Json, schema: &Json) -> Result<Value<'static>, String> {
    let name = schema.get("name").and_then(Json::as_str).unwrap_or_default();
    let number = value.as_i64();
    let text = |text: Option<String>| text.map(|text| Value::Text(Cow::Owned(text))).ok_or_else(|| "is out of range".to_owned());
    if value.is_null() || value.as_str() == Some(UNAVAILABLE) {
        return Ok(Value::Null);
    }
    let micros = |factor: i64| number.and_then(|number| number.checked_mul(factor)).and_then(convert::format_datetime);
    match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => {
            text(number.and_then(|days| i32::try_from(days).ok()).and_then(convert::format_date))
        }
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => text(micros(1000)),
        "io.debezium.time.MicroTimestamp" => text(micros(1)),
        "io.debezium.time.NanoTimestamp" => {
            let exact = number.filter(|nanos| nanos % 1000 == 0);
            text(exact.and_then(|nanos| convert::format_datetime(nanos / 1000)))
        }
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => text(number.and_then(|ms| time_of_day(ms * 1000))),
        "io.debezium.time.MicroTime" => text(number.and_then(time_of_day)),
        "org.apache.kafka.connect.data.Decimal" => {
            let scale = schema.pointer("/parameters/scale").and_then(Json::as_str).and_then(|scale| scale.parse().ok());
            match (value, scale) {
                (Json::String(encoded), Some(scale)) => decimal(encoded, scale)
                    .map(|digits| Value::Number(Cow::Owned(digits)))
                    .ok_or_else(|| "is no decimal".to_owned()),
                _ => Ok(plain(value)),
            }
        }
        "io.debezium.data.VariableScaleDecimal" => {
            let scale = value.get("scale").and_then(Json::as_i64).and_then(|scale| i32::try_from(scale).ok());
            let encoded = value.get("value").and_then(Json::as_str);
            let digits = encoded.zip(scale).and_then(|(encoded, scale)| decimal(encoded, scale));
            digits.map(|digits| Value::Number(Cow::Owned(digits))).ok_or_else(|| "is no decimal".to_owned())
        }
        _ => Ok(plain(value)),
    }
}

/// A value without a schema: the type that the project declares says what its digits mean, and the options say how they are written.
fn by_declaration(value: &Json, declared: Option<DataType>, spelling: Spelling) -> Result<Value<'static>, String> {
    let out_of_range = || "is out of range".to_owned();
    let text = |text: Option<String>| text.map(|text| Value::Text(Cow::Owned(text))).ok_or_else(out_of_range);
    if value.as_str() == Some(UNAVAILABLE) {
        return Ok(Value::Null);
    }
    match (declared, value.as_i64(), value) {
        (Some(DataType::Date), Some(days), _) => text(i32::try_from(days).ok().and_then(convert::format_date)),
        (Some(DataType::DateTime), Some(number), _) => text(spelling.micros(number).and_then(convert::format_datetime)),
        (Some(DataType::Timestamp), Some(number), _) => text(spelling.micros(number).and_then(convert::format_timestamp)),
        (Some(DataType::Decimal { precision, scale }), None, Json::String(encoded)) => {
            let of_bytes = decimal(encoded, i32::from(scale));
            let is_digits = convert::parse_decimal(encoded, precision, scale).is_some();
            let is_whole = encoded.len() % 4 == 0;
            let digits = match (spelling.decimals, of_bytes) {
                (Some(Decimals::Text), _) => None,
                (Some(Decimals::Base64), Some(of_bytes)) => Some(of_bytes),
                (Some(Decimals::Base64), None) => return Err("is no decimal in Base64".to_owned()),
                (None, Some(_)) if is_digits && is_whole => {
                    let shown = format!("`{encoded}` may be digits or Base64; set `decimals: text` or `decimals: base64`");
                    return Err(shown);
                }
                (None, of_bytes) => of_bytes.filter(|_| !is_digits),
            };
            Ok(Value::Text(Cow::Owned(digits.unwrap_or_else(|| encoded.clone()))))
        }
        _ => Ok(plain(value)),
    }
}

fn plain(value: &Json) -> Value<'static> {
    match value {
        Json::Null => Value::Null,
        Json::Bool(is_true) => Value::Boolean(*is_true),
        Json::Number(number) => Value::Number(Cow::Owned(number.to_string())),
        Json::String(text) => Value::Text(Cow::Owned(text.clone())),
        nested => Value::Nested(Cow::Owned(nested.to_string())),
    }
}

fn time_of_day(micros: i64) -> Option<String> {
    convert::format_datetime(micros).filter(|_| (0..86_400_000_000).contains(&micros)).map(|text| text[11..].to_owned())
}

/// A decimal whose digits are a big-endian two's complement number in Base64.
fn decimal(encoded: &str, scale: i32) -> Option<String> {
    let bytes = base64(encoded)?;
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let is_negative = bytes[0] & 0x80 != 0;
    let mut whole = [if is_negative { 0xff } else { 0 }; 16];
    whole[16 - bytes.len()..].copy_from_slice(&bytes);
    let value = i128::from_be_bytes(whole);
    let digits = value.unsigned_abs().to_string();
    let sign = if is_negative { "-" } else { "" };
    let Ok(places) = usize::try_from(scale) else { return Some(format!("{sign}{digits}e{}", scale.unsigned_abs())) };
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (before, after) = padded.split_at(padded.len() - places);
    Some(if places == 0 { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") })
}

/// Base64 after RFC 4648 §4.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_a_schema_are_not_guessed_at() {
        let text = |value: &str, declared, spelling| {
            by_declaration(&serde_json::from_str(value).expect("JSON"), Some(declared), spelling).map(|value| match value {
                Value::Text(text) => text.into_owned(),
                other => format!("{other:?}"),
            })
        };
        let micros = Spelling { times: Some(TimeUnit::Microseconds), ..Spelling::default() };
        let base64 = Spelling { decimals: Some(Decimals::Base64), ..Spelling::default() };
        let digits = Spelling { decimals: Some(Decimals::Text), ..Spelling::default() };
        let money = DataType::Decimal { precision: 12, scale: 2 };
        for (value, declared, spelling, expect) in [
            ("86400000", DataType::DateTime, Spelling::default(), Ok("1970-01-02 00:00:00")),
            ("1735689600000000", DataType::DateTime, Spelling::default(), Ok("2025-01-01 00:00:00")),
            ("86400000000", DataType::DateTime, micros, Ok("1970-01-02 00:00:00")),
            ("\"1234.50\"", money, Spelling::default(), Ok("1234.50")),
            ("\"EtaH\"", money, Spelling::default(), Ok("12345.67")),
            ("\"1234\"", money, Spelling::default(), Err(())),
            ("\"1234\"", money, digits, Ok("1234")),
            ("\"1234\"", money, base64, Ok("-26588.24")),
        ] {
            assert_eq!(text(value, declared, spelling).as_deref().map_err(|_| ()), expect, "{value}");
        }
    }

    #[test]
    fn decimals_come_out_of_their_bytes() {
        // 12345.67 = 0x12D687 with scale 2; -1 = 0xFF.
        for (encoded, scale, expect) in [
            ("EtaH", 2, Some("12345.67")),
            ("/w==", 0, Some("-1")),
            ("/w==", 3, Some("-0.001")),
            ("AQ==", -2, Some("1e2")),
            ("?", 0, None),
        ] {
            assert_eq!(decimal(encoded, scale).as_deref(), expect, "{encoded}");
        }
    }
}
