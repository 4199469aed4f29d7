//! CSV after RFC 4180, as strict as data that must not change need: a record with a wrong number of fields or a broken quote is
//! refused by its line. A field without quotes and without text is NULL; `""` is an empty text.

use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullBufferBuilder, StringArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX};
use subak_connect::blocking::Stopped;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, Origin, Reject};

use super::Output;
use super::input::Input;
use super::options::Options;

/// Most bytes in one record; a larger one is almost always a quote that is never closed.
const RECORD_LENGTH_MAX: usize = 256 * 1024 * 1024;

/// Most fields in one record.
const FIELD_COUNT_MAX: usize = 1 << 20;

/// Records that are looked at to find out the delimiter.
const SAMPLE_RECORD_COUNT: usize = 50;

/// The delimiters that are tried, in order of preference.
const DELIMITERS: [u8; 4] = *b",;\t|";

/// The columns of a file, and what there is to say about them.
pub(super) struct Header {
    pub(super) names: Vec<String>,
    pub(super) remarks: Vec<String>,
    delimiter: u8,
}

/// Reads every file; columns match by name, and a file that lacks one has NULLs there.
pub(super) fn read(inputs: &[Input], options: &Options, output: &mut Output<'_>) -> Result<(), Stopped> {
    let mut headers = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for input in inputs {
        let mut header = header(input, options)?;
        for remark in std::mem::take(&mut header.remarks) {
            output.warn(format!("`{}`: {remark}", input.name))?;
        }
        for name in &header.names {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        headers.push(header);
    }
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(name, ArrowType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    for (input, header) in inputs.iter().zip(&headers) {
        let places: Vec<usize> =
            header.names.iter().filter_map(|name| columns.iter().position(|column| column == name)).collect();
        read_file(input, options, header, &schema, &places, output)?;
        output.end_file(input)?;
    }
    Ok(())
}

/// The names of a file's columns: unique, none empty. A name that comes again gets a number: `a`, `a_2`.
pub(super) fn header(input: &Input, options: &Options) -> Result<Header, ConnectError> {
    let mut remarks = Vec::new();
    let delimiter = match options.delimiter {
        Some(delimiter) => delimiter,
        None if input.name.to_ascii_lowercase().contains(".tsv") => b'\t',
        None => {
            let found = detect(input, options)?;
            if found != b',' {
                let shown = if found == b'\t' { "a tab".to_owned() } else { format!("`{}`", char::from(found)) };
                remarks.push(format!("fields are separated by {shown}, as its first lines show"));
            }
            found
        }
    };
    let mut records = Records::open(input, options, delimiter)?;
    if let Some(encoding) = records.encoding {
        remarks.push(format!("the bytes are taken as {encoding}"));
    }
    let mut record = Record::default();
    if !records.next(&mut record)? {
        return Ok(Header { names: Vec::new(), remarks, delimiter });
    }
    if let Some(broken) = record.broken {
        return Err(input.malformed(&format!(":{}", record.line), broken));
    }
    let mut texts = Vec::new();
    for at in 0..record.len() {
        let text = record.text(at).map_err(|_| not_utf8(input, &record, at))?;
        texts.push(text.unwrap_or_default().to_owned());
    }
    let names = unique_names((1..).zip(texts), options.has_header, &mut remarks);
    Ok(Header { names, remarks, delimiter })
}

/// The names of columns by their numbers and the texts that stand above them: unique, none empty.
pub(super) fn unique_names(
    texts: impl Iterator<Item = (usize, String)>,
    has_header: bool,
    remarks: &mut Vec<String>,
) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (at, text) in texts {
        let text = if has_header { text.trim() } else { "" };
        let wanted = if text.is_empty() { format!("column_{at}") } else { text.to_owned() };
        let mut name = wanted.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        if has_header && text.is_empty() {
            remarks.push(format!("column {at} has no name and is called `{name}`"));
        } else if name != wanted {
            remarks.push(format!("the name `{wanted}` comes again, and that column is called `{name}`"));
        }
        names.push(name);
    }
    names
}

fn not_utf8(input: &Input, record: &Record, at: usize) -> ConnectError {
    input.malformed(&format!(":{}", record.line), &format!("field {} is not UTF-8", at + 1)).help(
        "declare the file's character set, for example `encoding: windows-1252`, or let it be found out with `encoding: guess`",
    )
}

/// The delimiter that takes the first records apart into the same number of fields, the most of them; a comma where none does.
fn detect(input: &Input, options: &Options) -> Result<u8, ConnectError> {
    let mut best = (1, b',');
    for delimiter in DELIMITERS {
        let mut records = Records::open(input, options, delimiter)?;
        let mut record = Record::default();
        let mut width = None;
        for _ in 0..SAMPLE_RECORD_COUNT {
            match records.next(&mut record) {
                Ok(true) if width.is_none_or(|width| width == record.len()) && record.broken.is_none() => {
                    width = Some(record.len());
                }
                Ok(false) => break,
                Ok(true) | Err(_) => {
                    width = None;
                    break;
                }
            }
        }
        if let Some(width) = width.filter(|width| *width > best.0) {
            best = (width, delimiter);
        }
    }
    Ok(best.1)
}

fn read_file(
    input: &Input,
    options: &Options,
    header: &Header,
    schema: &SchemaRef,
    places: &[usize],
    output: &mut Output<'_>,
) -> Result<(), Stopped> {
    let mut records = Records::open(input, options, header.delimiter)?;
    let mut record = Record::default();
    if options.has_header {
        records.next(&mut record)?;
    }
    let mut batch = Pending::new(schema, places, options);
    while records.next(&mut record)? {
        let refused = refusal(&record, places.len(), options);
        if let Some(reason) = refused {
            output.refuse(Reject {
                reason,
                file: Some(Arc::clone(&input.name)),
                line: Some(record.line),
                row: record.raw(header.delimiter, options.quote),
                ..Reject::default()
            })?;
            continue;
        }
        batch.push(&record);
        if batch.is_full() {
            batch.send(input, output)?;
        }
    }
    if !batch.lines.is_empty() || output.is_empty {
        batch.send(input, output)?;
    }
    if records.blank_count > 0 {
        let (count, line) = (records.blank_count, records.blank_line);
        output.warn(format!("`{}`: {count} empty lines were skipped, the first is line {line}", input.name))?;
    }
    Ok(())
}

/// Why a record cannot become a row.
fn refusal(record: &Record, width: usize, options: &Options) -> Option<String> {
    if let Some(broken) = record.broken {
        return Some(broken.to_owned());
    }
    if record.len() > width || (record.len() < width && !options.pads) {
        return Some(format!("the record has {} fields where {width} are expected", record.len()));
    }
    if std::str::from_utf8(&record.bytes).is_err() || record.splits_character() {
        let at = (0..record.len()).find(|at| record.text(*at).is_err()).unwrap_or(0);
        return Some(format!("field {} is not UTF-8; is another `encoding:` meant?", at + 1));
    }
    None
}

/// Records that wait to be sent as one batch: the bytes of all their fields, record after record.
struct Pending<'a> {
    schema: &'a SchemaRef,
    /// For each field of a record, the column of the schema.
    places: &'a [usize],
    /// The text without quotes that means NULL, besides none.
    null: Option<&'a [u8]>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    quoted: Vec<bool>,
    lines: Vec<u64>,
}

impl<'a> Pending<'a> {
    fn new(schema: &'a SchemaRef, places: &'a [usize], options: &'a Options) -> Self {
        let null = options.null.as_deref().map(str::as_bytes);
        Self { schema, places, null, bytes: Vec::new(), ends: Vec::new(), quoted: Vec::new(), lines: Vec::new() }
    }

    /// Adds a record. Fields that it lacks are NULL.
    fn push(&mut self, record: &Record) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&record.bytes);
        self.ends.extend(record.ends.iter().map(|end| start + end));
        self.quoted.extend_from_slice(&record.quoted);
        self.lines.push(record.line);
        let width = self.lines.len() * self.places.len();
        self.ends.resize(width, self.bytes.len());
        self.quoted.resize(width, false);
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH_ROW_COUNT_MAX || self.bytes.len() + 8 * self.ends.len() >= BATCH_BYTES_MAX
    }

    /// The values of one field of all records.
    fn column(&self, field: usize) -> Result<StringArray, ArrowError> {
        let row_count = self.lines.len();
        let mut values: Vec<u8> = Vec::with_capacity(self.bytes.len() / self.places.len().max(1));
        let mut lengths: Vec<usize> = Vec::with_capacity(row_count);
        let mut nulls = NullBufferBuilder::new(row_count);
        let mut at = field;
        for _ in 0..row_count {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            let bytes = &self.bytes[start..self.ends[at]];
            let is_null = !self.quoted[at] && (bytes.is_empty() || self.null == Some(bytes));
            if !is_null {
                values.extend_from_slice(bytes);
            }
            lengths.push(if is_null { 0 } else { bytes.len() });
            nulls.append(!is_null);
            at += self.places.len();
        }
        StringArray::try_new(OffsetBuffer::from_lengths(lengths), values.into(), nulls.finish())
    }

    fn send(&mut self, input: &Input, output: &mut Output<'_>) -> Result<(), Stopped> {
        let row_count = self.lines.len();
        let internal = |error: ArrowError| {
            ConnectError::new(ConnectErrorKind::Internal, "CSV rows do not fit their own schema").because(error)
        };
        let mut arrays: Vec<ArrayRef> = vec![new_null_array(&ArrowType::Utf8, row_count); self.schema.fields().len()];
        for (field, place) in self.places.iter().enumerate() {
            arrays[*place] = Arc::new(self.column(field).map_err(internal)?);
        }
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(row_count));
        let records = RecordBatch::try_new_with_options(Arc::clone(self.schema), arrays, &options).map_err(internal)?;
        self.bytes.clear();
        self.ends.clear();
        self.quoted.clear();
        let lines = std::mem::take(&mut self.lines);
        let origin = Origin { file: Some(Arc::clone(&input.name)), lines: Some(lines.into()), ..Origin::default() };
        output.send(Batch { origin, ..Batch::new(records) })
    }
}

/// One record: its fields' bytes, unquoted, one after the other.
#[derive(Debug, Default)]
struct Record {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    quoted: Vec<bool>,
    /// The line on which it begins, from 1.
    line: u64,
    /// What is wrong with its quotes.
    broken: Option<&'static str>,
}

impl Record {
    fn clear(&mut self, line: u64) {
        self.bytes.clear();
        self.ends.clear();
        self.quoted.clear();
        self.line = line;
        self.broken = None;
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn end_field(&mut self, is_quoted: bool) {
        self.ends.push(self.bytes.len());
        self.quoted.push(is_quoted);
    }

    /// The bytes of the field that is not ended yet.
    fn field_in_progress(&self) -> &[u8] {
        &self.bytes[self.ends.last().copied().unwrap_or(0)..]
    }

    /// Whether it is an empty line.
    fn is_blank(&self) -> bool {
        self.ends == [0] && !self.quoted[0]
    }

    fn field(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }

    /// The text of a field; `None` for one that is empty and not quoted. `Err` when it is not UTF-8.
    fn text(&self, at: usize) -> Result<Option<&str>, std::str::Utf8Error> {
        let bytes = self.field(at);
        if bytes.is_empty() && !self.quoted[at] {
            return Ok(None);
        }
        std::str::from_utf8(bytes).map(Some)
    }

    /// Whether the end of a field stands inside a character: the bytes are UTF-8 only when fields are put together.
    fn splits_character(&self) -> bool {
        self.ends.iter().any(|end| self.bytes.get(*end).is_some_and(|byte| byte & 0xC0 == 0x80))
    }

    /// The record as text again, as a JSON string; characters that are none become `U+FFFD`.
    fn raw(&self, delimiter: u8, quote: u8) -> String {
        let quote = char::from(quote);
        let parts: Vec<String> = (0..self.len())
            .map(|at| {
                let text = String::from_utf8_lossy(self.field(at));
                if self.quoted[at] {
                    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
                } else {
                    text.into_owned()
                }
            })
            .collect();
        serde_json::Value::from(parts.join(&char::from(delimiter).to_string())).to_string()
    }
}

/// Where the splitter stands within a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Plain,
    Quoted,
    /// Behind a quote inside a quoted field: the field ends, or the quote is doubled.
    AfterQuote,
}

/// Splits a file into records.
struct Records<'a> {
    input: &'a Input,
    text: Box<dyn BufRead>,
    encoding: Option<&'static str>,
    delimiter: u8,
    quote: u8,
    line: u64,
    /// The last byte was a carriage return that ended a line: a line feed that follows belongs to it.
    is_after_return: bool,
    /// Empty lines between records, and the first of them.
    blank_count: u64,
    blank_line: u64,
    /// Empty lines of which it is not known yet whether a record follows.
    blank_waiting: (u64, u64),
}

const TEXT_AFTER_QUOTE: &str = "text follows the quote that closes a field; a quote inside a field must be doubled";

impl<'a> Records<'a> {
    fn open(input: &'a Input, options: &Options, delimiter: u8) -> Result<Self, ConnectError> {
        let (text, encoding) = input.text(options.encoding)?;
        Ok(Self {
            input,
            text,
            encoding,
            delimiter,
            quote: options.quote,
            line: 1,
            is_after_return: false,
            blank_count: 0,
            blank_line: 0,
            blank_waiting: (0, 0),
        })
    }

    /// Reads the next record that is not an empty line. `false` at the end of the file.
    fn next(&mut self, record: &mut Record) -> Result<bool, ConnectError> {
        loop {
            record.clear(self.line);
            if !self.split(record)? {
                return Ok(false);
            }
            if !record.is_blank() {
                let (count, line) = std::mem::take(&mut self.blank_waiting);
                if self.blank_count == 0 {
                    self.blank_line = line;
                }
                self.blank_count += count;
                return Ok(true);
            }
            let (count, line) = self.blank_waiting;
            self.blank_waiting = (count + 1, if count == 0 { record.line } else { line });
        }
    }

    fn split(&mut self, record: &mut Record) -> Result<bool, ConnectError> {
        let mut place = Place::Start;
        loop {
            let buffer = self.text.fill_buf().map_err(|error| self.input.failed(error))?;
            if buffer.is_empty() {
                return self.end_of_file(place, record);
            }
            let mut used = usize::from(std::mem::take(&mut self.is_after_return) && buffer[0] == b'\n');
            let mut is_record_complete = false;
            while used < buffer.len() && !is_record_complete {
                let byte = buffer[used];
                match place {
                    Place::Quoted => {
                        let run = find(self.quote, b'\n', b'\r', &buffer[used..]);
                        record.bytes.extend_from_slice(&buffer[used..used + run]);
                        used += run;
                        let Some(byte) = buffer.get(used) else { continue };
                        if *byte == self.quote {
                            place = Place::AfterQuote;
                        } else {
                            // A return and a feed end one line.
                            let is_second = *byte == b'\n' && record.field_in_progress().last() == Some(&b'\r');
                            self.line += u64::from(!is_second);
                            record.bytes.push(*byte);
                        }
                    }
                    Place::AfterQuote if byte == self.quote => {
                        record.bytes.push(byte);
                        place = Place::Quoted;
                    }
                    Place::Start if byte == self.quote => place = Place::Quoted,
                    Place::AfterQuote | Place::Start | Place::Plain => {
                        let rest = &buffer[used..];
                        let run = find(self.delimiter, b'\n', b'\r', rest);
                        if run > 0 {
                            if place == Place::AfterQuote {
                                record.broken = Some(TEXT_AFTER_QUOTE);
                            }
                            record.bytes.extend_from_slice(&rest[..run]);
                            used += run;
                            place = Place::Plain;
                        }
                        let Some(byte) = buffer.get(used) else { continue };
                        record.end_field(place == Place::AfterQuote);
                        place = Place::Start;
                        if *byte != self.delimiter {
                            self.line += 1;
                            self.is_after_return = *byte == b'\r';
                            is_record_complete = true;
                        }
                    }
                }
                used += 1;
            }
            self.text.consume(used);
            if is_record_complete {
                return Ok(true);
            }
            if record.bytes.len() > RECORD_LENGTH_MAX || record.len() > FIELD_COUNT_MAX {
                let what = format!(
                    "the record is longer than {RECORD_LENGTH_MAX} bytes or has more than {FIELD_COUNT_MAX} fields; is a quote not closed?"
                );
                return Err(self.input.malformed(&format!(":{}", record.line), &what));
            }
        }
    }

    fn end_of_file(&self, place: Place, record: &mut Record) -> Result<bool, ConnectError> {
        if place == Place::Quoted {
            let error = self.input.malformed(&format!(":{}", record.line), "the quote that opens a field is never closed");
            return Err(error.help("close it; everything behind it would be one field"));
        }
        if place == Place::Start && record.len() == 0 {
            return Ok(false);
        }
        record.end_field(place == Place::AfterQuote);
        Ok(true)
    }
}

/// Where the first of three bytes stands; the length of `bytes` where none does. Most fields are short, so eight bytes are compared at a
/// time before the search for long texts is set up.
fn find(a: u8, b: u8, c: u8, bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest set bit stands in the first byte of `word` that equals `byte`.
    let equal = |word: u64, byte: u8| {
        let difference = word ^ (LOW * u64::from(byte));
        difference.wrapping_sub(LOW) & !difference & HIGH
    };
    let (words, tail) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().take(4).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = equal(word, a) | equal(word, b) | equal(word, c);
        if found != 0 {
            return 8 * at + (found.trailing_zeros() / 8) as usize;
        }
    }
    let start = 8 * words.len().min(4);
    if words.len() < 4 {
        let place = tail.iter().position(|byte| *byte == a || *byte == b || *byte == c);
        return start + place.unwrap_or(tail.len());
    }
    let rest = &bytes[start..];
    start + memchr::memchr3(a, b, c, rest).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_first_of_three_bytes_is_found_wherever_it_stands() {
        // Bytes beside the wanted ones catch a comparison that carries over from one byte to the next.
        let alphabet = [b',', b',' + 1, b',' - 1, b'\n', b'\n' + 1, b'\r', b'a', 0, 0x80, 0xFF];
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 40).unwrap_or(0)
        };
        for round in 0..20_000 {
            let length = next() % 80;
            // From texts that are full of wanted bytes to texts with few of them.
            let rare = round % 40;
            let bytes: Vec<u8> =
                (0..length).map(|_| if next() % 40 < rare { b'-' } else { alphabet[next() % alphabet.len()] }).collect();
            let expect = bytes.iter().position(|byte| matches!(byte, b',' | b'\n' | b'\r')).unwrap_or(bytes.len());
            assert_eq!(find(b',', b'\n', b'\r', &bytes), expect, "{bytes:?}");
        }
    }

    /// Records as line, fields and whether they are broken, read through a buffer of `capacity` bytes.
    fn records(text: &str, capacity: usize) -> Vec<(u64, Vec<Option<String>>, bool)> {
        let folder = tempfile::tempdir().expect("folder");
        let path: PathBuf = folder.path().join("a.csv");
        std::fs::write(&path, text).expect("write");
        let input = Input::open(&path).expect("input");
        let mut records = Records::open(&input, &Options::of(path), b',').expect("open");
        records.text = Box::new(BufReader::with_capacity(capacity, Cursor::new(text.as_bytes().to_vec())));
        let mut found = Vec::new();
        let mut record = Record::default();
        while records.next(&mut record).expect("next") {
            let fields = (0..record.len()).map(|at| record.text(at).expect("UTF-8").map(str::to_owned)).collect();
            found.push((record.line, fields, record.broken.is_some()));
        }
        found
    }

    #[test]
    fn where_a_buffer_ends_changes_nothing() {
        let text = "a,b\r\n\"x \"\"y\"\", z\",\"two\r\nlines\nthree\"\r\n\r\n\"\",é\n\"broken\"tail,1\rlast,\"\r\n\"";
        let own = |text: &str| Some(text.to_owned());
        let expect = vec![
            (1, vec![own("a"), own("b")], false),
            (2, vec![own("x \"y\", z"), own("two\r\nlines\nthree")], false),
            (6, vec![own(""), own("é")], false),
            (7, vec![own("brokentail"), own("1")], true),
            (8, vec![own("last"), own("\r\n")], false),
        ];
        for capacity in (1..24).chain([4096]) {
            assert_eq!(records(text, capacity), expect, "a buffer of {capacity} bytes");
        }
    }
}
