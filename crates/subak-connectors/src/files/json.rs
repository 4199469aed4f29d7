//! JSON documents and NDJSON. Numbers keep every digit: they become integers or exact decimals, or text where neither holds
//! them, and never pass through floating point. Nested values stay JSON text, number by number as they were written.
//!
//! Without declared types the types follow from *all* rows, so files are read twice: once to see, once to load.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ReadRequest, Reject};

use super::input::Input;
use super::options::{Format, Options};
use super::{Output, debezium};
use crate::records::{Record, Rows, Shapes, Value, to_json};

/// Levels of lists and objects inside one value.
const DEPTH_MAX: usize = 500;

/// Bytes in one record.
const RECORD_LENGTH_MAX: usize = 256 * 1024 * 1024;

/// What one place of a file holds.
pub(super) enum Found<'a> {
    /// A record, and a key that it has twice; the last value counts.
    Record(Record<'a>, Option<String>),
    Refused {
        reason: String,
        raw: &'a str,
    },
}

/// Takes what is found: with the line, or in a document the number of the record, from 1.
type Take<'t> = dyn FnMut(Found<'_>, u64) -> Result<(), Stopped> + 't;

/// Reads every file.
pub(super) fn read(inputs: &[Input], options: &Options, request: &ReadRequest, output: &mut Output<'_>) -> Result<(), Stopped> {
    let (mut shapes, mut twice) = (Shapes::default(), BTreeSet::new());
    for input in inputs {
        each_record(input, options, request, &mut |found, _| {
            if let Found::Record(record, again) = found {
                shapes.see(&record);
                twice.extend(again);
            }
            Ok(())
        })?;
    }
    for name in twice {
        output.warn(format!("records have the key `{name}` twice; the last value counts"))?;
    }
    for warning in shapes.warnings(&request.columns) {
        output.warn(warning)?;
    }
    let shaped = shapes.finish(&request.columns);
    for input in inputs {
        let mut rows = Rows::new(&shaped);
        let send = |rows: &mut Rows<'_>, output: &mut Output<'_>| {
            let mut batch = rows.take()?;
            batch.origin.file = Some(Arc::clone(&input.name));
            output.send(batch)
        };
        each_record(input, options, request, &mut |found, line| match found {
            Found::Record(record, _) => {
                rows.push(&record, line);
                if rows.is_full() { send(&mut rows, output) } else { Ok(()) }
            }
            Found::Refused { reason, raw } => output.refuse(Reject {
                reason,
                file: Some(Arc::clone(&input.name)),
                line: Some(line),
                row: if raw.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(raw).is_ok() {
                    raw.trim().to_owned()
                } else {
                    serde_json::Value::from(raw.trim_end()).to_string()
                },
                ..Reject::default()
            }),
        })?;
        if !rows.is_empty() || output.is_empty {
            send(&mut rows, output)?;
        }
        output.end_file(input)?;
    }
    Ok(())
}

/// Hands over each record of a file.
pub(super) fn each_record(input: &Input, options: &Options, request: &ReadRequest, take: &mut Take<'_>) -> Result<(), Stopped> {
    let mut decoded = |found: Found<'_>, line: u64| match found {
        Found::Record(record, _) if options.is_debezium => match debezium::flatten(&record, &request.columns, options.spelling) {
            Ok(Some(record)) => take(Found::Record(record, None), line),
            Ok(None) => Ok(()),
            Err(reason) => {
                let raw = to_json(&record);
                take(Found::Refused { reason, raw: &raw }, line)
            }
        },
        // Behind a deletion Kafka gets an event without a value, so that it may forget the key.
        Found::Refused { raw, .. } if options.is_debezium && raw.trim() == "null" => Ok(()),
        found => take(found, line),
    };
    let (mut text, _) = input.text(options.encoding)?;
    if options.format(&input.path) == Some(Format::Ndjson) {
        return each_line(input, text.as_mut(), &mut decoded);
    }
    let Some((first, skipped)) = skip_blank(text.as_mut()).map_err(|error| input.failed(error))? else { return Ok(()) };
    let mut stopped = None;
    let mut number = 0_u64;
    let mut each = |raw: &RawValue| {
        number += 1;
        let result = decoded(parse(raw.get()), number);
        result.map_err(|error| stopped = Some(error)).is_ok()
    };
    let result = if first == b'[' || !options.records.is_empty() {
        let mut json = serde_json::Deserializer::from_reader(text);
        Records { path: &options.records, each: &mut each }.deserialize(&mut json).and_then(|()| json.end())
    } else {
        serde_json::Deserializer::from_reader(text)
            .into_iter::<Box<RawValue>>()
            .try_for_each(|value| if each(&value?) { Ok(()) } else { Err(serde::de::Error::custom("stopped")) })
    };
    match (stopped, result) {
        (Some(stopped), _) => Err(stopped),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(broken(input, error, skipped).into()),
    }
}

/// The first byte that is not blank, which stays unread, and the line ends before it. `None` at the end of the file.
fn skip_blank(text: &mut dyn BufRead) -> std::io::Result<Option<(u8, usize)>> {
    let mut lines = 0;
    loop {
        let buffer = text.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let blank = buffer.iter().take_while(|byte| is_blank(**byte)).count();
        lines += memchr::memchr_iter(b'\n', &buffer[..blank]).count();
        let first = buffer.get(blank).copied();
        text.consume(blank);
        if let Some(first) = first {
            return Ok(Some((first, lines)));
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn each_line(input: &Input, text: &mut dyn BufRead, take: &mut Take<'_>) -> Result<(), Stopped> {
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut *text, RECORD_LENGTH_MAX as u64 + 1);
        if bounded.read_until(b'\n', &mut line).map_err(|error| input.failed(error))? == 0 {
            return Ok(());
        }
        number += 1;
        if line.len() > RECORD_LENGTH_MAX {
            let what = format!("the line is longer than {RECORD_LENGTH_MAX} bytes");
            return Err(input.malformed(&format!(":{number}"), &what).into());
        }
        if line.iter().all(|byte| is_blank(*byte)) {
            continue;
        }
        match std::str::from_utf8(&line) {
            Ok(text) => take(parse(text), number)?,
            Err(error) => {
                let reason = format!("the line is not UTF-8 at byte {}; is another `encoding:` meant?", error.valid_up_to() + 1);
                let shown = String::from_utf8_lossy(&line);
                take(Found::Refused { reason, raw: &shown }, number)?;
            }
        }
    }
}

/// Takes one record apart.
fn parse(text: &str) -> Found<'_> {
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
pub(super) fn value_of(raw: &str) -> Result<Value<'_>, String> {
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

fn broken(input: &Input, error: serde_json::Error, skipped: usize) -> ConnectError {
    if error.is_io() {
        return input.failed(error.into());
    }
    let place = format!(":{}:{}", error.line() + skipped, error.column());
    let what = if error.is_eof() { "the document ends too early" } else { "this is not JSON" };
    input.malformed(&place, what).because(error)
}

/// Walks to the list of records and hands over each element without holding the list.
struct Records<'a, F> {
    path: &'a [String],
    each: &'a mut F,
}

impl<'de, F: FnMut(&RawValue) -> bool> DeserializeSeed<'de> for Records<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&RawValue) -> bool> Visitor<'de> for Records<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.first() {
            Some(key) => write!(formatter, "an object with the key `{key}` (from `records:`)"),
            None => formatter.write_str("a list of records"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.path.split_first() else {
            return Err(serde::de::Error::custom("a list of records is expected here, and this is an object; set `records:`"));
        };
        let mut is_found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted && !is_found {
                map.next_value_seed(Records { path: rest, each: self.each })?;
                is_found = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if is_found {
            Ok(())
        } else {
            Err(serde::de::Error::custom(format!("the key `{wanted}` (from `records:`) is not there")))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Some(key) = self.path.first() {
            return Err(serde::de::Error::custom(format!("an object with the key `{key}` (from `records:`) is expected here")));
        }
        while let Some(value) = list.next_element::<Box<RawValue>>()? {
            if !(self.each)(&value) {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
