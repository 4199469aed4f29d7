//! Records as JSON objects. Numbers keep every digit: they become integers or exact decimals, or text where neither holds them, and never pass
//! through floating point. Nested values stay JSON text, number by number as they were written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Record, Value};

/// Levels of lists and objects inside one value.
const DEPTH_MAX: usize = 500;

/// What one place of a file holds.
pub(crate) enum Found<'a> {
    /// A record, and a key that it has twice; the last value counts.
    Record(Record<'a>, Option<String>),
    Refused {
        reason: String,
        raw: &'a str,
    },
}

pub(crate) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Takes one record apart.
pub(crate) fn parse(text: &str) -> Found<'_> {
    let refused = |reason: String| Found::Refused { reason, raw: text };
    let what = match text.trim_start().as_bytes().first() {
        Some(b'{') => None,
        Some(b'[') => Some("a list"),
        Some(b'"') => Some("a text"),
        Some(b't' | b'f') => Some("a boolean"),
        Some(b'n') => Some("null"),
        Some(b'-' | b'0'..=b'9') => Some("a number"),
        _ => None,
    };
    if let Some(what) = what
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
    {
        return refused(format!("a record must be an object, and this is {what}"));
    }
    let raw: RawRecord<'_> = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) if error.is_eof() => return refused("the record ends too early; this is not complete JSON".to_owned()),
        Err(error) => return refused(format!("this is not one JSON object: {error}")),
    };
    let mut record = Record::with_capacity(raw.0.len());
    let mut twice = None;
    for (key, value) in raw.0 {
        let value = match value_of(value.get()) {
            Ok(value) => value,
            Err(reason) => return refused(format!("the value of `{key}` {reason}")),
        };
        match record.iter().position(|(known, _)| *known == key) {
            Some(at) => {
                record[at].1 = value;
                twice.get_or_insert(key);
            }
            None => record.push((Cow::Owned(key), value)),
        }
    }
    Found::Record(record, twice)
}

/// What a value is. `Err` says what is wrong with it.
pub(crate) fn value_of(raw: &str) -> Result<Value<'_>, String> {
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'"') => {
            let inner = &raw[1..raw.len() - 1];
            if inner.contains('\\') {
                Value::Text(Cow::Owned(serde_json::from_str(raw).map_err(|error| format!("is no text: {error}"))?))
            } else {
                Value::Text(Cow::Borrowed(inner))
            }
        }
        Some(b'[' | b'{') => Value::Nested(Cow::Owned(compact(raw)?)),
        _ => Value::Number(Cow::Borrowed(raw)),
    })
}

/// The JSON without blanks between its parts; nothing else changes.
fn compact(raw: &str) -> Result<String, String> {
    let mut result = String::with_capacity(raw.len());
    let (mut depth, mut start, mut at) = (0_usize, 0, 0);
    let bytes = raw.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
                }
            }
            b']' | b'}' => depth -= 1,
            byte if is_blank(byte) => {
                result.push_str(&raw[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    result.push_str(&raw[start..]);
    if result.contains("\\u") {
        serde_json::from_str::<serde_json::Value>(&result).map_err(|error| format!("is no JSON: {error}"))?;
    }
    Ok(result)
}

/// The keys and values of an object, as they stand there.
struct RawRecord<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawRecord<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &RawValue>()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(RawRecord)
    }
}
