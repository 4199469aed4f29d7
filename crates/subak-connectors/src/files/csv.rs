//! CSV after RFC 4180, as strict as data that must not change need: a record with a wrong number of fields or a broken quote is
//! refused by its line. A field without quotes and without text is NULL; `""` is an empty text.

use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX};
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ConnectErrorKind, Origin, Reject};

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
    let mut names: Vec<String> = Vec::new();
    for at in 0..record.len() {
        let text = record.text(at).map_err(|_| not_utf8(input, &record, at))?;
        let text = text.filter(|_| options.has_header).unwrap_or_default().trim();
        let wanted = if text.is_empty() { format!("column_{}", at + 1) } else { text.to_owned() };
        let mut name = wanted.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        if options.has_header && text.is_empty() {
            remarks.push(format!("column {} has no name and is called `{name}`", at + 1));
        } else if name != wanted {
            remarks.push(format!("the name `{wanted}` comes again, and that column is called `{name}`"));
        }
        names.push(name);
    }
    Ok(Header { names, remarks, delimiter })
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
    let mut batch = Pending::new(schema);
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
        for (at, place) in places.iter().enumerate() {
            let text = if at < record.len() { record.text_unchecked(at) } else { None };
            let text = text.filter(|text| record.is_quoted(at) || options.null.as_deref() != Some(text));
            batch.columns[*place].append_option(text);
        }
        batch.end_row(&record, places);
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

/// Rows that wait to be sent.
struct Pending {
    schema: SchemaRef,
    columns: Vec<StringBuilder>,
    lines: Vec<u64>,
    bytes: usize,
}

impl Pending {
    fn new(schema: &SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|_| StringBuilder::new()).collect();
        Self { schema: Arc::clone(schema), columns, lines: Vec::new(), bytes: 0 }
    }

    fn end_row(&mut self, record: &Record, places: &[usize]) {
        if places.len() < self.columns.len() {
            for (at, column) in self.columns.iter_mut().enumerate() {
                if !places.contains(&at) {
                    column.append_null();
                }
            }
        }
        self.lines.push(record.line);
        self.bytes += record.bytes.len() + 8 * record.len();
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH_ROW_COUNT_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn send(&mut self, input: &Input, output: &mut Output<'_>) -> Result<(), Stopped> {
        let lines = std::mem::take(&mut self.lines);
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(lines.len()));
        let records = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "CSV rows do not fit their own schema").because(error)
        })?;
        self.bytes = 0;
        output.send(records, Origin { file: Some(Arc::clone(&input.name)), lines: Some(lines.into()) })
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

    fn is_quoted(&self, at: usize) -> bool {
        self.quoted.get(at).copied().unwrap_or(false)
    }

    fn end_field(&mut self, is_quoted: bool) {
        self.ends.push(self.bytes.len());
        self.quoted.push(is_quoted);
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

    /// The text of a field of a record that is UTF-8 as a whole and splits no character.
    fn text_unchecked(&self, at: usize) -> Option<&str> {
        self.text(at).ok().flatten()
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
            let mut used = 0;
            let mut is_record_complete = false;
            while used < buffer.len() && !is_record_complete {
                let byte = buffer[used];
                if std::mem::take(&mut self.is_after_return) && byte == b'\n' {
                    used += 1;
                    continue;
                }
                match place {
                    Place::Quoted => {
                        let run = memchr::memchr(self.quote, &buffer[used..]).unwrap_or(buffer.len() - used);
                        let bytes = &buffer[used..used + run];
                        self.line += lines_in(bytes);
                        record.bytes.extend_from_slice(bytes);
                        used += run;
                        if used < buffer.len() {
                            used += 1;
                            place = Place::AfterQuote;
                        }
                        continue;
                    }
                    Place::AfterQuote if byte == self.quote => {
                        record.bytes.push(byte);
                        place = Place::Quoted;
                    }
                    Place::Start if byte == self.quote => place = Place::Quoted,
                    _ if byte == self.delimiter => {
                        record.end_field(place == Place::AfterQuote);
                        place = Place::Start;
                    }
                    _ if byte == b'\n' || byte == b'\r' => {
                        record.end_field(place == Place::AfterQuote);
                        self.line += 1;
                        self.is_after_return = byte == b'\r';
                        is_record_complete = true;
                    }
                    Place::AfterQuote | Place::Start | Place::Plain => {
                        if place == Place::AfterQuote {
                            record.broken = Some(TEXT_AFTER_QUOTE);
                        }
                        let rest = &buffer[used..];
                        let run = memchr::memchr3(self.delimiter, b'\n', b'\r', rest).unwrap_or(rest.len());
                        record.bytes.extend_from_slice(&rest[..run]);
                        used += run;
                        place = Place::Plain;
                        continue;
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

/// Line ends inside a quoted field: line feeds, carriage returns, and both together as one.
fn lines_in(bytes: &[u8]) -> u64 {
    let feeds = memchr::memchr_iter(b'\n', bytes).count();
    let returns = memchr::memchr_iter(b'\r', bytes).filter(|at| bytes.get(at + 1) != Some(&b'\n')).count();
    (feeds + returns) as u64
}
