//! CSV after RFC 4180, as strict as data that must not change need: a wrong number of fields or a broken quote is an error that
//! names the line. A field without quotes and without text is NULL; `""` is an empty text.

use std::io::BufRead;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use subak_connect::batch::{BATCH_BYTES_MAX, BATCH_ROW_COUNT_MAX};
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ConnectErrorKind, Origin};

use super::Output;
use super::input::Input;
use super::options::Options;

/// Most bytes in one record; a larger one is almost always a quote that is never closed.
const RECORD_LENGTH_MAX: usize = 256 * 1024 * 1024;

/// Reads every file; columns match by name, and a file that lacks one has NULLs there.
pub(super) fn read(inputs: &[Input], options: &Options, output: &mut Output<'_>) -> Result<(), Stopped> {
    let mut headers = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for input in inputs {
        let header = header(input, options)?;
        for name in &header {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        headers.push(header);
    }
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(name, ArrowType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    for (input, header) in inputs.iter().zip(&headers) {
        let places: Vec<usize> = header.iter().filter_map(|name| columns.iter().position(|column| column == name)).collect();
        read_file(input, options, &schema, &places, output)?;
    }
    Ok(())
}

/// The names of a file's columns: unique, none empty. A name that comes again gets a number: `a`, `a_2`.
pub(super) fn header(input: &Input, options: &Options) -> Result<Vec<String>, ConnectError> {
    let mut records = Records::open(input, options)?;
    let mut record = Record::default();
    if !records.next(&mut record)? {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = Vec::new();
    for at in 0..record.len() {
        let text = record.text(at, input)?.filter(|_| options.has_header).unwrap_or_default().trim();
        let wanted = if text.is_empty() { format!("column_{}", at + 1) } else { text.to_owned() };
        let mut name = wanted.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        names.push(name);
    }
    Ok(names)
}

fn read_file(
    input: &Input,
    options: &Options,
    schema: &SchemaRef,
    places: &[usize],
    output: &mut Output<'_>,
) -> Result<(), Stopped> {
    let mut records = Records::open(input, options)?;
    let mut record = Record::default();
    if options.has_header {
        records.next(&mut record)?;
    }
    let mut batch = Pending::new(schema);
    while records.next(&mut record)? {
        if record.len() != places.len() {
            let what = format!("the record has {} fields where {} are expected", record.len(), places.len());
            return Err(input.malformed(&format!(":{}", record.line), &what).into());
        }
        for (at, place) in places.iter().enumerate() {
            let text = record.text(at, input)?.filter(|text| record.is_quoted(at) || options.null.as_deref() != Some(text));
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
    Ok(())
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
}

impl Record {
    fn clear(&mut self, line: u64) {
        self.bytes.clear();
        self.ends.clear();
        self.quoted.clear();
        self.line = line;
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn is_quoted(&self, at: usize) -> bool {
        self.quoted[at]
    }

    fn end_field(&mut self, is_quoted: bool) {
        self.ends.push(self.bytes.len());
        self.quoted.push(is_quoted);
    }

    /// Whether it is an empty line.
    fn is_blank(&self) -> bool {
        self.ends == [0] && !self.quoted[0]
    }

    /// The text of a field; `None` for one that is empty and not quoted.
    fn text(&self, at: usize, input: &Input) -> Result<Option<&str>, ConnectError> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let bytes = &self.bytes[start..self.ends[at]];
        if bytes.is_empty() && !self.quoted[at] {
            return Ok(None);
        }
        std::str::from_utf8(bytes).map(Some).map_err(|error| {
            let place = format!(":{}", self.line);
            input
                .malformed(&place, &format!("field {} is not UTF-8", at + 1))
                .because(error)
                .help("declare the file's character set, for example `encoding: windows-1252`")
        })
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
    delimiter: u8,
    quote: u8,
    line: u64,
    /// The last byte was a carriage return that ended a record: a line feed that follows belongs to it.
    is_after_return: bool,
}

impl<'a> Records<'a> {
    fn open(input: &'a Input, options: &Options) -> Result<Self, ConnectError> {
        let text = input.text(options.encoding)?;
        let delimiter = options.delimiter(&input.name);
        Ok(Self { input, text, delimiter, quote: options.quote, line: 1, is_after_return: false })
    }

    /// Reads the next record that is not an empty line. `false` at the end of the file.
    fn next(&mut self, record: &mut Record) -> Result<bool, ConnectError> {
        loop {
            record.clear(self.line);
            if !self.split(record)? {
                return Ok(false);
            }
            if !record.is_blank() {
                return Ok(true);
            }
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
                        let run = buffer[used..].iter().position(|byte| *byte == self.quote).unwrap_or(buffer.len() - used);
                        let bytes = &buffer[used..used + run];
                        self.line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
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
                    Place::AfterQuote => {
                        let what = "text follows the quote that closes a field; a quote inside a field must be doubled";
                        return Err(self.input.malformed(&format!(":{}", self.line), what));
                    }
                    Place::Start | Place::Plain => {
                        record.bytes.push(byte);
                        place = Place::Plain;
                    }
                }
                used += 1;
            }
            self.text.consume(used);
            if is_record_complete {
                return Ok(true);
            }
            if record.bytes.len() > RECORD_LENGTH_MAX {
                let what = format!("the record is longer than {RECORD_LENGTH_MAX} bytes; is a quote not closed?");
                return Err(self.input.malformed(&format!(":{}", record.line), &what));
            }
        }
    }

    fn end_of_file(&self, place: Place, record: &mut Record) -> Result<bool, ConnectError> {
        if place == Place::Quoted {
            return Err(self.input.malformed(&format!(":{}", record.line), "the quote that opens a field is never closed"));
        }
        if place == Place::Start && record.len() == 0 {
            return Ok(false);
        }
        record.end_field(place == Place::AfterQuote);
        Ok(true)
    }
}
