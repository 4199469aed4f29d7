//! JSON documents and NDJSON. Numbers keep every digit: they become integers or exact decimals, or text where neither holds
//! them, and never pass through floating point. Nested values stay JSON text, number by number as they were written.
//!
//! Without declared types the types follow from *all* rows, so files are read twice: once to see, once to load.

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ReadRequest, Reject};

use super::input::Input;
use super::options::{Format, Options};
use super::{Output, debezium};
use crate::records::json::{Found, is_blank, parse};
use crate::records::{Rows, Shapes, to_json};

/// Bytes in one record.
const RECORD_LENGTH_MAX: usize = 256 * 1024 * 1024;

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
