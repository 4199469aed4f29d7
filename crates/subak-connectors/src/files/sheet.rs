//! Spreadsheets: XLSX, XLSB, XLS and ODS. One sheet, or a range of it, whose first row names the columns.
//!
//! Values come as the cells have them, not as they are shown: types follow from all cells of a column, so a sheet is read twice. XLSX and XLSB are
//! read cell by cell, the others are held in memory. Dates after ECMA-376, part 1, 18.17.4.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

use calamine::{Data, DataRef, ExcelDateTime, Reader, SheetVisible, Sheets};
use subak_connect::blocking::Stopped;
use subak_connect::{ConnectError, ConnectErrorKind, ReadRequest};

use super::Output;
use super::csv::unique_names;
use super::input::Input;
use super::options::Options;
use crate::builder::days_of;
use crate::records::{Kind, Rows, Shapes, Value};

/// Bytes that a part may have which is held in memory; more is almost always an archive that is made to burst.
const PART_LENGTH_MAX: u64 = 1024 * 1024 * 1024;

/// Whole numbers up to here are exact in a cell: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const DAY_MILLISECONDS: f64 = 86_400_000.0;

/// A range in A1 notation; parts that are left out are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Area {
    first_column: Option<u32>,
    first_row: Option<u32>,
    last_column: Option<u32>,
    last_row: Option<u32>,
}

impl Area {
    /// `B5:H200`, `B5`, `B:H`, `5:`. `None` when it is none of these.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (start, end) = text.split_once(':').unwrap_or((text, ""));
        let (first_column, first_row) = corner(start)?;
        let (last_column, last_row) = corner(end)?;
        Some(Self { first_column, first_row, last_column, last_row })
    }

    fn holds(&self, row: u32, column: u32) -> bool {
        self.first_row.is_none_or(|first| row >= first)
            && self.last_row.is_none_or(|last| row <= last)
            && self.first_column.is_none_or(|first| column >= first)
            && self.last_column.is_none_or(|last| column <= last)
    }
}

/// A corner such as `B5`, `B` or `5`, counted from 0.
fn corner(text: &str) -> Option<(Option<u32>, Option<u32>)> {
    let text = text.trim().to_ascii_uppercase();
    let letters = text.bytes().take_while(u8::is_ascii_uppercase).count();
    let (letters, digits) = text.split_at(letters);
    let column = letters.bytes().try_fold(0_u32, |sum, letter| sum.checked_mul(26)?.checked_add(u32::from(letter - b'A') + 1))?;
    let row: u32 = if digits.is_empty() { 0 } else { digits.parse().ok().filter(|row| *row > 0)? };
    Some((column.checked_sub(1), row.checked_sub(1)))
}

/// A row of cells: the places of the columns from 0, ascending, and what stands there. Nothing stands in the others.
type Cells<'a> = [(u32, Value<'a>)];

/// What is read of a file.
struct Sheet {
    book: Sheets<BufReader<File>>,
    name: String,
    remarks: Vec<String>,
}

fn open(input: &Input, options: &Options) -> Result<Sheet, ConnectError> {
    let mut book = open_book(input)?;
    let sheets = book.sheets_metadata().to_vec();
    let names = || sheets.iter().map(|sheet| format!("`{}`", sheet.name)).collect::<Vec<_>>().join(", ");
    let mut remarks = Vec::new();
    let wanted = match &options.sheet {
        None => {
            let visible = sheets.iter().find(|sheet| sheet.visible == SheetVisible::Visible);
            if sheets.len() > 1 {
                remarks.extend(
                    visible.map(|sheet| format!("its sheet `{}` is read, of {}; `sheet:` names another", sheet.name, names())),
                );
            }
            visible.or(sheets.first())
        }
        Some(wanted) => {
            let by_name = sheets.iter().find(|sheet| sheet.name == *wanted);
            by_name.or_else(|| sheets.get(wanted.parse::<usize>().ok()?.checked_sub(1)?))
        }
    };
    let Some(wanted) = wanted else {
        let what = match &options.sheet {
            Some(wanted) => format!("there is no sheet `{wanted}`"),
            None => "the file has no sheet".to_owned(),
        };
        return Err(input.malformed("", &what).help(format!("the file has the sheets {}", names())));
    };
    if wanted.visible != SheetVisible::Visible {
        remarks.push(format!("the sheet `{}` is hidden", wanted.name));
    }
    let name = wanted.name.clone();
    if let Sheets::Xlsx(book) = &mut book {
        // Cells that are merged hold their value at the top left only.
        let merged = book.merge_cells_by_sheet_name(&name).map_or(0, |merged| merged.len());
        if merged > 0 {
            remarks.push(format!("the sheet `{name}` has {merged} merged ranges; each has its value in its first cell only"));
        }
    }
    Ok(Sheet { book, name, remarks })
}

/// Opens a workbook by what it is rather than by how the file is called.
fn open_book(input: &Input) -> Result<Sheets<BufReader<File>>, ConnectError> {
    let mut file = File::open(&input.path).map_err(|error| input.failed(error))?;
    let mut head = [0; 8];
    let length = file.read(&mut head).map_err(|error| input.failed(error))?;
    let reader = || File::open(&input.path).map(BufReader::new).map_err(|error| input.failed(error));
    let broken =
        |error: &dyn std::fmt::Display| input.malformed("", "this is no complete spreadsheet").because(error.to_string());
    if head[..length] == [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1] {
        let mut bytes = Vec::new();
        reader()?.read_to_end(&mut bytes).map_err(|error| input.failed(error))?;
        let mark: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        if memchr::memmem::find(&bytes, &mark).is_some() {
            return Err(protected(input));
        }
        return match calamine::Xls::new(reader()?) {
            Ok(book) => Ok(Sheets::Xls(book)),
            Err(calamine::XlsError::Password) => Err(protected(input)),
            Err(error) => Err(broken(&error)),
        };
    }
    if !head[..length].starts_with(b"PK") {
        let error = input.malformed("", "this is no spreadsheet");
        return Err(error.help("XLSX, XLSB, XLS and ODS are read; set `format:` when the file is something else"));
    }
    let mut archive = zip::ZipArchive::new(reader()?).map_err(|error| broken(&error))?;
    let mut names = Vec::new();
    for at in 0..archive.len() {
        let part = archive.by_index_raw(at).map_err(|error| broken(&error))?;
        let name = part.name().map_err(|error| broken(&error))?.into_owned();
        let is_streamed = name.starts_with("xl/worksheets/");
        if part.size() > PART_LENGTH_MAX && !is_streamed {
            return Err(input.malformed("", &format!("`{}` in it has {} bytes, more than {PART_LENGTH_MAX}", name, part.size())));
        }
        names.push(name);
    }
    let has = |name: &str| names.iter().any(|known| known == name);
    if has("xl/workbook.bin") {
        calamine::Xlsb::new(reader()?).map(Sheets::Xlsb).map_err(|error| broken(&error))
    } else if has("content.xml") {
        calamine::Ods::new(reader()?).map(Sheets::Ods).map_err(|error| broken(&error))
    } else {
        calamine::Xlsx::new(reader()?).map(Sheets::Xlsx).map_err(|error| broken(&error))
    }
}

fn protected(input: &Input) -> ConnectError {
    input.malformed("", "the file is protected by a password").help("save it without a password")
}

/// Hands over each row that has a cell with something in it within the area, by its number from 0.
fn each_row(
    input: &Input,
    sheet: &mut Sheet,
    area: Area,
    take: &mut dyn FnMut(u32, &Cells<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let broken = |error: &dyn std::fmt::Display| {
        input.malformed("", &format!("the sheet `{}` cannot be read", sheet.name)).because(error.to_string())
    };
    match &mut sheet.book {
        Sheets::Xlsx(book) => {
            let mut cells = book.worksheet_cells_reader(&sheet.name).map_err(|error| broken(&error))?;
            let mut pending = Pending::default();
            while let Some(cell) = cells.next_cell().map_err(|error| broken(&error))? {
                let (row, column) = cell.get_position();
                pending.add(row, column, area, value_of(cell.get_value().clone()), take)?;
            }
            pending.flush(take)
        }
        Sheets::Xlsb(book) => {
            // The library leaves out formulas whose result is an error: those that have no value are such.
            let mut formulas = BTreeSet::new();
            {
                let mut cells = book.worksheet_cells_reader(&sheet.name).map_err(|error| broken(&error))?;
                while let Some(formula) = cells.next_formula().map_err(|error| broken(&error))? {
                    formulas.insert(formula.get_position());
                }
            }
            let mut cells = book.worksheet_cells_reader(&sheet.name).map_err(|error| broken(&error))?;
            let mut pending = Pending::default();
            while let Some(cell) = cells.next_cell().map_err(|error| broken(&error))? {
                let (row, column) = cell.get_position();
                while let Some((row, column)) = formulas.first().copied().filter(|formula| *formula < (row, column)) {
                    formulas.pop_first();
                    pending.add(row, column, area, formula_error("an error".to_owned()), take)?;
                }
                formulas.remove(&(row, column));
                pending.add(row, column, area, value_of(cell.get_value().clone()), take)?;
            }
            for (row, column) in formulas {
                pending.add(row, column, area, formula_error("an error".to_owned()), take)?;
            }
            pending.flush(take)
        }
        book => {
            let range = book.worksheet_range(&sheet.name).map_err(|error| broken(&error))?;
            let mut pending = Pending::default();
            let (first_row, first_column) = range.start().unwrap_or((0, 0));
            for (row, column, value) in range.used_cells() {
                let (row, column) = (first_row + row as u32, first_column + column as u32);
                let value = match value {
                    Data::String(text) if is_error(text) => formula_error(text.clone()),
                    value => value_of(as_ref(value)),
                };
                pending.add(row, column, area, value, take)?;
            }
            pending.flush(take)
        }
    }
}

/// The cells of the row that is being read.
#[derive(Default)]
struct Pending<'a> {
    /// The last cell that came.
    last: Option<(u32, u32)>,
    row: u32,
    cells: Vec<(u32, Value<'a>)>,
}

impl<'a> Pending<'a> {
    fn add(
        &mut self,
        row: u32,
        column: u32,
        area: Area,
        value: Value<'a>,
        take: &mut dyn FnMut(u32, &Cells<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        if self.last.is_some_and(|last| last >= (row, column)) {
            let what = format!("the cell in row {}, column {} stands behind later ones, or twice", row + 1, column + 1);
            return Err(ConnectError::new(ConnectErrorKind::Malformed, what)
                .help("save the file anew with a spreadsheet program")
                .into());
        }
        self.last = Some((row, column));
        if value == Value::Null || !area.holds(row, column) {
            return Ok(());
        }
        if row != self.row {
            self.flush(take)?;
            self.row = row;
        }
        self.cells.push((column, value));
        Ok(())
    }

    fn flush(&mut self, take: &mut dyn FnMut(u32, &Cells<'_>) -> Result<(), Stopped>) -> Result<(), Stopped> {
        if self.cells.is_empty() {
            return Ok(());
        }
        take(self.row, &self.cells)?;
        self.cells.clear();
        Ok(())
    }
}

fn as_ref(value: &Data) -> DataRef<'_> {
    match value {
        Data::Int(number) => DataRef::Int(*number),
        Data::Float(number) => DataRef::Float(*number),
        Data::String(text) => DataRef::SharedString(text),
        Data::Bool(is_true) => DataRef::Bool(*is_true),
        Data::DateTime(at) => DataRef::DateTime(*at),
        Data::DateTimeIso(text) => DataRef::DateTimeIso(text.clone()),
        Data::DurationIso(text) => DataRef::DurationIso(text.clone()),
        Data::Error(error) => DataRef::Error(error.clone()),
        Data::Empty => DataRef::Empty,
    }
}

/// What a cell holds. An empty text looks like nothing, and counts as nothing.
fn value_of(cell: DataRef<'_>) -> Value<'_> {
    match cell {
        DataRef::Int(number) => Value::Integer(number),
        DataRef::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => Value::Integer(number as i64),
        DataRef::Float(number) => Value::Double(number),
        DataRef::String(text) if !text.is_empty() => Value::Text(Cow::Owned(text)),
        DataRef::SharedString(text) if !text.is_empty() => Value::Text(Cow::Borrowed(text)),
        DataRef::Bool(is_true) => Value::Boolean(is_true),
        DataRef::DateTime(at) => moment(&at),
        DataRef::DateTimeIso(text) => iso(text),
        DataRef::DurationIso(text) => {
            // A time of day or a span: both as hours, minutes and seconds.
            let span = text.parse::<jiff::Span>().ok();
            let seconds =
                span.and_then(|span| span.total((jiff::Unit::Millisecond, jiff::SpanRelativeTo::days_are_24_hours())).ok());
            Value::Text(Cow::Owned(seconds.map_or(text, clock)))
        }
        DataRef::Error(error) => Value::Misfit { kind: Kind::Null, text: error.to_string(), problem: "the error of a formula" },
        _ => Value::Null,
    }
}

/// The errors of formulas as ODS has them, as texts.
fn is_error(text: &str) -> bool {
    matches!(text, "#N/A" | "#DIV/0!" | "#NAME?" | "#NULL!" | "#NUM!" | "#REF!" | "#VALUE!")
        || text.strip_prefix("Err:").is_some_and(|number| number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn formula_error(text: String) -> Value<'static> {
    Value::Misfit { kind: Kind::Null, text, problem: "the error of a formula" }
}

/// A date or time of a cell. What counts hours, or is a time without a date, becomes text: `26:30:00`.
fn moment(at: &ExcelDateTime) -> Value<'static> {
    let serial = at.as_f64();
    if at.is_duration() || (0.0..1.0).contains(&serial) {
        return Value::Text(Cow::Owned(clock((serial * DAY_MILLISECONDS).round())));
    }
    let (year, month, day, hour, minute, second, milli) = at.to_ymd_hms_milli();
    let days = days_of(i32::from(year), u32::from(month), u32::from(day)).filter(|_| (1.0..2_958_466.0).contains(&serial));
    match days {
        // The day 60 of the system that begins in 1900 is the 29th of February of that year, which never was.
        None => {
            Value::Misfit { kind: Kind::Date, text: crate::records::double_text(serial), problem: "not a day of the calendar" }
        }
        Some(days) if serial.fract() == 0.0 => Value::Date(days),
        Some(days) => {
            let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
            Value::DateTime((i64::from(days) * 86_400 + seconds) * 1_000_000 + i64::from(milli) * 1000)
        }
    }
}

/// Milliseconds as hours, minutes and seconds.
fn clock(milliseconds: f64) -> String {
    let sign = if milliseconds < 0.0 { "-" } else { "" };
    let whole = milliseconds.abs() as u64;
    let (seconds, rest) = (whole / 1000, whole % 1000);
    let rest = if rest == 0 { String::new() } else { format!(".{rest:03}") };
    format!("{sign}{:02}:{:02}:{:02}{rest}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn iso(text: String) -> Value<'static> {
    let micros = subak_connect::convert::parse_datetime(&text)
        .or_else(|| subak_connect::convert::parse_datetime(&format!("{text}T00:00:00")));
    match micros {
        Some(micros) if text.len() == 10 => Value::Date(micros.div_euclid(86_400_000_000) as i32),
        Some(micros) => Value::DateTime(micros),
        None => Value::Text(Cow::Owned(text)),
    }
}

/// The columns of a sheet: where each stands, and its name.
struct Header {
    /// Their places in the sheet, ascending: every column with something in it.
    columns: Vec<u32>,
    names: Vec<String>,
    /// The number of the row with the names; nothing above it is a row.
    row: Option<u32>,
    remarks: Vec<String>,
}

/// Looks at every cell: names the columns, and finds out their types.
fn survey(input: &Input, options: &Options, mut see: impl FnMut(u32, &Cells<'_>)) -> Result<Header, ConnectError> {
    let mut sheet = open(input, options)?;
    let mut remarks = std::mem::take(&mut sheet.remarks);
    let mut texts: Vec<(u32, String)> = Vec::new();
    let mut columns: BTreeSet<u32> = BTreeSet::new();
    let mut header_row = None;
    let result = each_row(input, &mut sheet, options.area, &mut |row, cells| {
        if options.has_header && header_row.is_none() {
            header_row = Some(row);
            texts = cells.iter().map(|(column, value)| (*column, crate::records::text_of(value).into_owned())).collect();
        } else {
            see(row, cells);
        }
        columns.extend(cells.iter().map(|(column, _)| *column));
        Ok(())
    });
    match result {
        Err(Stopped::Failed(error)) => return Err(error),
        Err(Stopped::Closed) | Ok(()) => {}
    }
    let text = |column: u32| texts.iter().find(|(at, _)| *at == column).map(|(_, text)| text.clone()).unwrap_or_default();
    let columns: Vec<u32> = columns.into_iter().collect();
    let named = columns.iter().map(|column| (*column as usize + 1, text(*column)));
    let names = unique_names(named, options.has_header, &mut remarks);
    Ok(Header { columns, names, row: header_row, remarks })
}

/// The names of a sheet's columns.
pub(super) fn header(input: &Input, options: &Options) -> Result<Vec<String>, ConnectError> {
    survey(input, options, |_, _| {}).map(|header| header.names)
}

/// Reads every file; columns match by name, and a file that lacks one has NULLs there.
pub(super) fn read(inputs: &[Input], options: &Options, request: &ReadRequest, output: &mut Output<'_>) -> Result<(), Stopped> {
    let (mut shapes, mut headers) = (Shapes::default(), Vec::new());
    for input in inputs {
        // Names are known when the sheet has been seen, so kinds are collected by place first.
        let mut kinds: BTreeMap<u32, Vec<(Kind, bool, u64)>> = BTreeMap::new();
        let header = survey(input, options, |_, cells| {
            for (column, value) in cells {
                let found = (Kind::of(value), matches!(value, Value::Misfit { .. }));
                let known = kinds.entry(*column).or_default();
                match known.iter_mut().find(|(kind, is_misfit, _)| (*kind, *is_misfit) == found) {
                    Some((_, _, count)) => *count += 1,
                    None => known.push((found.0, found.1, 1)),
                }
            }
        })?;
        for remark in &header.remarks {
            output.warn(format!("`{}`: {remark}", input.name))?;
        }
        for (at, (column, name)) in header.columns.iter().zip(&header.names).enumerate() {
            shapes.begin_record();
            shapes.note(at, name, Kind::Null, false);
            for (kind, is_misfit, count) in kinds.get(column).into_iter().flatten() {
                shapes.note_many(name, *kind, *is_misfit, *count);
            }
        }
        headers.push(header);
    }
    for warning in shapes.warnings(&request.columns) {
        output.warn(warning)?;
    }
    let shaped = shapes.finish(&request.columns);
    for (input, header) in inputs.iter().zip(&headers) {
        let mut sheet = open(input, options)?;
        let mut rows = Rows::new(&shaped);
        let send = |rows: &mut Rows<'_>, output: &mut Output<'_>| {
            let mut batch = rows.take()?;
            batch.origin.file = Some(Arc::clone(&input.name));
            output.send(batch)
        };
        each_row(input, &mut sheet, options.area, &mut |row, cells| {
            if Some(row) == header.row {
                return Ok(());
            }
            rows.begin_row(u64::from(row) + 1);
            for (column, value) in cells {
                if let Ok(at) = header.columns.binary_search(column) {
                    rows.put(at, &header.names[at], value);
                }
            }
            rows.end_row();
            if rows.is_full() { send(&mut rows, output) } else { Ok(()) }
        })?;
        if !rows.is_empty() || output.is_empty {
            send(&mut rows, output)?;
        }
        output.end_file(input)?;
    }
    Ok(())
}
