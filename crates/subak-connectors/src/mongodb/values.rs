//! Values of documents as values of ours.
//!
//! What has a type of ours gets it: whole numbers stay whole numbers, decimals stay decimals, dates are instants. Everything else, and what is
//! nested, becomes JSON: plain where JSON has a form for it, MongoDB's Extended JSON (relaxed) where it has none. After the specifications
//! "BSON" and "MongoDB Extended JSON (v2)".

use std::borrow::Cow;

use bson::raw::{RawArray, RawBinaryRef, RawBsonRef, RawDocument};
use bson::spec::BinarySubtype;
use serde_json::json;

use crate::records::{Kind, Value, hex};

/// The first and the last millisecond of the years 1 to 9999.
const DATE_MIN: i64 = -62_135_596_800_000;
const DATE_MAX: i64 = 253_402_300_799_999;

/// Levels of documents in documents; servers take a hundred.
const DEPTH_MAX: usize = 200;

/// What is wrong with bytes that are no document.
pub(super) type Broken = String;

/// A field's value.
pub(super) fn value_of(value: RawBsonRef<'_>) -> Result<Value<'_>, Broken> {
    Ok(match value {
        RawBsonRef::Null => Value::Null,
        RawBsonRef::Boolean(is_true) => Value::Boolean(is_true),
        RawBsonRef::Int32(number) => Value::Integer(i64::from(number)),
        RawBsonRef::Int64(number) => Value::Integer(number),
        RawBsonRef::Double(number) => Value::Double(number),
        RawBsonRef::Decimal128(number) => {
            let text = number.to_string();
            if is_finite(&text) {
                Value::Number(Cow::Owned(text))
            } else {
                Value::Misfit { kind: Kind::DECIMAL_USUAL, text, problem: "not a finite number" }
            }
        }
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => Value::Text(Cow::Borrowed(text)),
        RawBsonRef::ObjectId(id) => Value::Text(Cow::Owned(id.to_hex())),
        RawBsonRef::DateTime(at) => match at.timestamp_millis() {
            millis @ DATE_MIN..=DATE_MAX => Value::Timestamp(millis * 1000),
            millis => {
                Value::Misfit { kind: Kind::Timestamp, text: format!("{millis} ms"), problem: "beyond the years 1 to 9999" }
            }
        },
        RawBsonRef::Binary(binary) => match uuid_of(&binary) {
            Some(text) => Value::Text(Cow::Owned(text)),
            None => Value::Bytes(Cow::Borrowed(binary.bytes)),
        },
        other => {
            let mut json = String::new();
            write(other, &mut json, 0)?;
            Value::Nested(Cow::Owned(json))
        }
    })
}

/// What kind of value a field has, and whether it is one that its kind cannot hold; as [`value_of`] has it, without making it.
pub(super) fn kind_of(value: &RawBsonRef<'_>) -> Result<(Kind, bool), Broken> {
    Ok(match value {
        RawBsonRef::Document(_) | RawBsonRef::Array(_) => (Kind::Json, false),
        RawBsonRef::String(_) | RawBsonRef::ObjectId(_) => (Kind::Text, false),
        value => {
            let value = value_of(*value)?;
            (Kind::of(&value), matches!(value, Value::Misfit { .. }))
        }
    })
}

/// The text of a UUID, where the bytes are one. The old subtype 3 does not say in which order its bytes stand, so those stay bytes.
fn uuid_of(binary: &RawBinaryRef<'_>) -> Option<String> {
    let is_uuid = binary.subtype == BinarySubtype::Uuid && binary.bytes.len() == 16;
    is_uuid.then(|| {
        let parts = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&binary.bytes[part]));
        parts.join("-")
    })
}

fn is_finite(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Writes a document as JSON.
pub(super) fn write_document(document: &RawDocument, out: &mut String, depth: usize) -> Result<(), Broken> {
    if depth > DEPTH_MAX {
        return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
    }
    out.push('{');
    for (at, element) in document.iter_elements().enumerate() {
        let element = element.map_err(|error| broken(&error))?;
        if at > 0 {
            out.push(',');
        }
        push_text(element.key().as_str(), out);
        out.push(':');
        write(element.value().map_err(|error| broken(&error))?, out, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

fn write_list(list: &RawArray, out: &mut String, depth: usize) -> Result<(), Broken> {
    if depth > DEPTH_MAX {
        return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
    }
    out.push('[');
    for (at, value) in list.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(value.map_err(|error| broken(&error))?, out, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

pub(super) fn broken(error: &bson::error::Error) -> Broken {
    format!("is not valid BSON: {error}")
}

fn push_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn write(value: RawBsonRef<'_>, out: &mut String, depth: usize) -> Result<(), Broken> {
    let extended = |value: serde_json::Value| value.to_string();
    let text = match value {
        RawBsonRef::Document(document) => return write_document(document, out, depth),
        RawBsonRef::Array(list) => return write_list(list, out, depth),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => {
            push_text(text, out);
            return Ok(());
        }
        RawBsonRef::Null => "null".to_owned(),
        RawBsonRef::Boolean(is_true) => is_true.to_string(),
        RawBsonRef::Int32(number) => number.to_string(),
        RawBsonRef::Int64(number) => number.to_string(),
        // `1.0` and the whole number `1` stay different.
        RawBsonRef::Double(number) if number.is_finite() => format!("{number:?}"),
        RawBsonRef::Double(number) => extended(
            json!({ "$numberDouble": if number.is_nan() { "NaN" } else if number > 0.0 { "Infinity" } else { "-Infinity" } }),
        ),
        RawBsonRef::Decimal128(number) => {
            let text = number.to_string();
            if is_finite(&text) { text } else { extended(json!({ "$numberDecimal": text })) }
        }
        RawBsonRef::ObjectId(id) => format!("\"{}\"", id.to_hex()),
        RawBsonRef::DateTime(at) => {
            let millis = at.timestamp_millis();
            let text = (DATE_MIN..=DATE_MAX).contains(&millis).then(|| subak_connect::convert::format_timestamp(millis * 1000));
            match text.flatten() {
                Some(text) => format!("\"{text}\""),
                None => extended(json!({ "$date": { "$numberLong": millis.to_string() } })),
            }
        }
        RawBsonRef::Binary(binary) => match uuid_of(&binary) {
            Some(text) => format!("\"{text}\""),
            None => extended(extended_form(&value)?),
        },
        other => extended(extended_form(&other)?),
    };
    out.push_str(&text);
    Ok(())
}

/// The value in Extended JSON.
fn extended_form(value: &RawBsonRef<'_>) -> Result<serde_json::Value, Broken> {
    let owned = bson::Bson::try_from(*value).map_err(|error| broken(&error))?;
    Ok(owned.into_relaxed_extjson())
}

#[cfg(test)]
mod tests {
    use bson::{Binary, Bson, DateTime, Decimal128, Regex, Timestamp, doc, oid::ObjectId};

    use super::*;
    use crate::records::text_of;

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"))
    }

    #[test]
    fn every_type_has_its_form() {
        let id = ObjectId::parse_str("64f1a2b3c4d5e6f708091a2b").expect("an id");
        let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
        let uuid: Vec<u8> = (0..16).collect();
        for (value, kind, text) in [
            (Bson::Int32(1), "integer", "1"),
            (Bson::Int64(9_007_199_254_740_993), "integer", "9007199254740993"),
            (Bson::Double(1.0), "double", "1.0"),
            (Bson::Double(f64::NAN), "double", "NaN"),
            (decimal("12345678901234567890123456789.01234"), "decimal", "12345678901234567890123456789.01234"),
            (decimal("1E+6144"), "text", "1.000000000000000000000000000000000E+6144"),
            (decimal("NaN"), "misfit", "NaN"),
            (Bson::ObjectId(id), "text", "64f1a2b3c4d5e6f708091a2b"),
            (Bson::DateTime(DateTime::from_millis(-1)), "timestamp", "1969-12-31T23:59:59.999Z"),
            (Bson::DateTime(DateTime::from_millis(i64::MAX)), "misfit", "9223372036854775807 ms"),
            (binary(BinarySubtype::Uuid, &uuid), "text", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
            (binary(BinarySubtype::UuidOld, &uuid), "bytes", "000102030405060708090a0b0c0d0e0f"),
            (binary(BinarySubtype::Generic, b"\x00\xff"), "bytes", "00ff"),
            (
                Bson::RegularExpression(Regex { pattern: "a".try_into().expect("text"), options: "i".try_into().expect("text") }),
                "json",
                r#"{"$regularExpression":{"pattern":"a","options":"i"}}"#,
            ),
            (Bson::Timestamp(Timestamp { time: 5, increment: 6 }), "json", r#"{"$timestamp":{"t":5,"i":6}}"#),
            (Bson::MinKey, "json", r#"{"$minKey":1}"#),
            (Bson::Undefined, "json", r#"{"$undefined":true}"#),
            (Bson::JavaScriptCode("f()".to_owned()), "json", r#"{"$code":"f()"}"#),
            (
                Bson::Document(
                    doc! { "a": 1_i32, "b": 1.0, "c": [id, Bson::Null, ""], "": decimal("0.10"), "d": Bson::Double(f64::INFINITY),
                    "e": DateTime::from_millis(0), "x.y": binary(BinarySubtype::Generic, b"a") },
                ),
                "json",
                concat!(
                    r#"{"a":1,"b":1.0,"c":["64f1a2b3c4d5e6f708091a2b",null,""],"":0.10,"d":{"$numberDouble":"Infinity"},"#,
                    r#""e":"1970-01-01T00:00:00Z","x.y":{"$binary":{"base64":"YQ==","subType":"00"}}}"#
                ),
            ),
        ] {
            let document = bson::RawDocumentBuf::try_from(&doc! { "v": value.clone() }).expect("a document");
            let raw = document.get("v").expect("valid").expect("there");
            let found = value_of(raw).expect("a value");
            let word = match (&found, Kind::of(&found)) {
                (Value::Misfit { .. }, _) => "misfit",
                (_, Kind::Integer { .. }) => "integer",
                (_, Kind::Double) => "double",
                (_, Kind::Decimal { .. }) => "decimal",
                (_, Kind::Text) => "text",
                (_, Kind::Json) => "json",
                (_, Kind::Bytes) => "bytes",
                (_, Kind::Timestamp) => "timestamp",
                _ => "other",
            };
            assert_eq!((word, text_of(&found).as_ref()), (kind, text), "{value:?}");
            assert_eq!(kind_of(&raw).expect("a kind"), (Kind::of(&found), word == "misfit"), "{value:?}");
        }
    }

    #[test]
    fn what_is_too_deep_is_told() {
        let mut value = doc! { "v": 1 };
        for _ in 0..DEPTH_MAX + 3 {
            value = doc! { "v": value };
        }
        let document = bson::RawDocumentBuf::try_from(&value).expect("a document");
        let found = value_of(document.get("v").expect("valid").expect("there"));
        assert_eq!(found.map(drop), Err("is nested deeper than 200 levels".to_owned()));
    }
}
