//! Spreadsheets as source. XLSX files are written by another library, ODS and XLSB by hand from their specifications, `fixtures/small.xls` by
//! Python's `xlwt`. Results are read back with DuckDB's own library, not through Subak.

#[path = "support/warehouse.rs"]
mod warehouse;

use std::io::Write;
use std::path::Path;

use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook};
use subak_testkit::Sandbox;
use warehouse::{project, read};

fn with_stream(stream: &str) -> Sandbox {
    let sandbox = project(&[("assets/bronze/files.yml", &format!("ingest:\n  from: files\n  streams:\n    {stream}\n"))]);
    std::fs::create_dir_all(sandbox.path().join("input")).expect("a folder");
    sandbox
}

fn save(book: &mut Workbook, sandbox: &Sandbox, name: &str) {
    book.save(sandbox.path().join("input").join(name)).expect("a file");
}

/// X1: the date systems, times and elapsed hours. X2: errors and cached values of formulas. X4: long numbers as texts.
fn cells() -> Workbook {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    let (day, time, span) = (
        Format::new().set_num_format("yyyy-mm-dd"),
        Format::new().set_num_format("yyyy-mm-dd hh:mm:ss.000"),
        Format::new().set_num_format("[h]:mm:ss"),
    );
    let clock = Format::new().set_num_format("hh:mm");
    let percent = Format::new().set_num_format("0.00%");
    for (at, name) in
        ["id", "price", "name", "day", "at", "took", "opens", "share", "ok", "mixed", "long", "", "id"].into_iter().enumerate()
    {
        sheet.write_string(0, at as u16, name).expect("a cell");
    }
    sheet.write_number(1, 0, 1).expect("a cell");
    sheet.write_number(1, 1, 0.1).expect("a cell");
    sheet.write_string(1, 2, "Ünï \u{1f980}, \"q\"\nline").expect("a cell");
    sheet.write_datetime_with_format(1, 3, ExcelDateTime::from_ymd(2025, 1, 31).expect("a day"), &day).expect("a cell");
    let moment = ExcelDateTime::from_ymd(2025, 1, 31).expect("a day").and_hms_milli(10, 20, 30, 250).expect("a time");
    sheet.write_datetime_with_format(1, 4, moment, &time).expect("a cell");
    sheet.write_number_with_format(1, 5, 1.25, &span).expect("a cell");
    sheet.write_number_with_format(1, 6, 0.5, &clock).expect("a cell");
    sheet.write_number_with_format(1, 7, 0.125, &percent).expect("a cell");
    sheet.write_boolean(1, 8, true).expect("a cell");
    sheet.write_number(1, 9, 12.5).expect("a cell");
    sheet.write_string(1, 10, "1234567890123456789").expect("a cell");
    sheet.write_number(1, 11, 9).expect("a cell");
    sheet.write_number(1, 12, 7).expect("a cell");
    // A row with nothing in it is none.
    sheet.write_blank(2, 0, &day).expect("a cell");
    sheet.write_number(3, 0, 2).expect("a cell");
    sheet.write_formula(3, 1, Formula::new("=A2*1250").set_result("1250")).expect("a cell");
    sheet.write_datetime_with_format(3, 3, ExcelDateTime::from_serial_datetime(1.0).expect("a day"), &day).expect("a cell");
    sheet.write_datetime_with_format(3, 4, ExcelDateTime::from_ymd(9999, 12, 31).expect("a day"), &day).expect("a cell");
    sheet.write_string(3, 9, "n/a").expect("a cell");
    sheet.write_number_with_format(4, 3, 60.0, &day).expect("a cell");
    sheet.write_formula(4, 1, Formula::new("=1/0").set_result("#DIV/0!")).expect("a cell");
    sheet.write_string(4, 9, "x").expect("a cell");
    book
}

#[test]
fn every_kind_of_cell_arrives_as_it_is() {
    let sandbox = with_stream("cells: { path: cells.xlsx, mode: replace }");
    let mut book = cells();
    save(&mut book, &sandbox, "cells.xlsx");
    let ran = sandbox.run(&["run"]).expect(0);
    for words in [
        "column 12 has no name and is called `column_12`",
        "the name `id` comes again, and that column is called `id_2`",
        "`mixed` has values of several types (number ×1, text ×2); all are kept as text",
        "changed 1 values of day: not a day of the calendar, became NULL; first at",
        "changed 1 values of price: the error of a formula, became NULL; first at",
        "cells.xlsx:5",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    for (column, data_type, values) in [
        ("id", "BIGINT", ["1", "2", "NULL"]),
        ("price", "DOUBLE", ["0.1", "1250.0", "NULL"]),
        ("name", "VARCHAR", ["Ünï \u{1f980}, \"q\"\nline", "NULL", "NULL"]),
        ("day", "DATE", ["2025-01-31", "1900-01-01", "NULL"]),
        ("\"at\"", "TIMESTAMP", ["2025-01-31 10:20:30.25", "9999-12-31 00:00:00", "NULL"]),
        ("took", "VARCHAR", ["30:00:00", "NULL", "NULL"]),
        ("opens", "VARCHAR", ["12:00:00", "NULL", "NULL"]),
        ("share", "DOUBLE", ["0.125", "NULL", "NULL"]),
        ("ok", "BOOLEAN", ["true", "NULL", "NULL"]),
        ("mixed", "VARCHAR", ["12.5", "n/a", "x"]),
        ("long", "VARCHAR", ["1234567890123456789", "NULL", "NULL"]),
        ("column_12", "BIGINT", ["9", "NULL", "NULL"]),
        ("id_2", "BIGINT", ["7", "NULL", "NULL"]),
    ] {
        assert_eq!(read(&sandbox, &format!("select {column} from bronze.cells order by id nulls last")), values, "{column}");
        assert_eq!(read(&sandbox, &format!("select typeof({column}) from bronze.cells limit 1")), [data_type], "{column}");
    }
    // Declared types, and what cannot be read set aside.
    sandbox.write(
        "assets/bronze/files.yml",
        "ingest:\n  from: files\n  streams:\n    cells:\n      path: cells.xlsx\n      mode: replace\n      on_reject: quarantine\n      line_column: line\n      \
         columns: { price: 'decimal(10,2)', opens: time, long: bigint, id: integer }\n",
    );
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        read(&sandbox, "select line, id, price, opens, long from bronze.cells order by line"),
        ["2,1,0.10,12:00:00,1234567890123456789", "4,2,1250.00,NULL,NULL"]
    );
}

#[test]
fn sheets_and_ranges_are_chosen() {
    let sandbox = with_stream(
        "sales: { path: book.xlsx, sheet: Sales, range: B5:D7, mode: replace }\n    second: { path: book.xlsx, sheet: 2, range: \"B5:\", mode: replace }\n    first: { path: book.xlsx, mode: replace }",
    );
    let mut book = Workbook::new();
    book.add_worksheet().set_name("Hidden").expect("a name").set_hidden(true);
    let sheet = book.add_worksheet().set_name("Sales").expect("a name").set_active(true);
    sheet.write_string(0, 0, "Report of the year").expect("a cell");
    sheet.merge_range(1, 0, 1, 3, "merged", &Format::new()).expect("cells");
    for (at, name) in ["sku", "amount", "note"].into_iter().enumerate() {
        sheet.write_string(4, 1 + at as u16, name).expect("a cell");
    }
    for row in 0..3_u32 {
        sheet.write_string(5 + row, 1, if row == 2 { "Total" } else { "a" }).expect("a cell");
        sheet.write_number(5 + row, 2, f64::from(row) * 10.0).expect("a cell");
    }
    sheet.write_string(5, 6, "far away").expect("a cell");
    save(&mut book, &sandbox, "book.xlsx");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("its sheet `Sales` is read, of `Hidden`, `Sales`"), "{}", ran.err);
    assert!(ran.err.contains("the sheet `Sales` has 1 merged ranges"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select * from bronze.sales order by amount"), ["a,0,NULL", "a,10,NULL"]);
    assert_eq!(
        read(&sandbox, "select sku, amount, column_7 from bronze.second order by amount"),
        ["a,0,far away", "a,10,NULL", "Total,20,NULL"]
    );
    for (stream, words) in [
        ("first: { path: book.xlsx, sheet: Sale }", "there is no sheet `Sale`"),
        ("first: { path: book.xlsx, range: 5B }", "must be cells such as `B5:H200`"),
    ] {
        sandbox.write("assets/bronze/files.yml", &format!("ingest:\n  from: files\n  streams:\n    {stream}\n"));
        let ran = sandbox.run(&["run", "bronze.first"]);
        assert!(ran.code != Some(0) && ran.err.contains(words), "{words}: {}", ran.err);
    }
}

/// A ZIP archive of these files.
fn archive(path: &Path, files: &[(&str, Vec<u8>)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).expect("a file"));
    for (name, bytes) in files {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).expect("a part");
        archive.write_all(bytes).expect("its bytes");
    }
    archive.finish().expect("an archive");
}

/// A record of BIFF12 (MS-XLSB 2.1.4).
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = if kind < 128 { vec![kind as u8] } else { vec![(kind & 0x7f) as u8 | 0x80, (kind >> 7) as u8] };
    assert!(data.len() < 128);
    bytes.push(data.len() as u8);
    bytes.extend_from_slice(data);
    bytes
}

fn wide(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().collect();
    (units.len() as u32).to_le_bytes().into_iter().chain(units.into_iter().flat_map(u16::to_le_bytes)).collect()
}

fn cell(kind: u16, column: u32, value: &[u8]) -> Vec<u8> {
    record(kind, &[&column.to_le_bytes()[..], &[0; 4], value].concat())
}

/// The content of an ODS file (after `OpenDocument` 1.3, part 3).
const ODS: &str = r#"<?xml version="1.0" encoding="UTF-8"?><office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet><table:table table:name="Data">
<table:table-row><table:table-cell office:value-type="string"><text:p>id</text:p></table:table-cell><table:table-cell office:value-type="string"><text:p>day</text:p></table:table-cell><table:table-cell office:value-type="string"><text:p>took</text:p></table:table-cell></table:table-row>
<table:table-row><table:table-cell office:value-type="float" office:value="1"><text:p>1</text:p></table:table-cell><table:table-cell office:value-type="date" office:date-value="2025-01-31"><text:p>31 Jan</text:p></table:table-cell><table:table-cell office:value-type="time" office:time-value="PT26H30M00S"><text:p>26:30</text:p></table:table-cell></table:table-row>
<table:table-row table:number-rows-repeated="2"><table:table-cell office:value-type="float" office:value="2.5"><text:p>2.5</text:p></table:table-cell></table:table-row>
<table:table-row><table:table-cell office:value-type="float" office:value="3"><text:p>3</text:p></table:table-cell><table:table-cell/><table:table-cell office:value-type="string"><text:p>#N/A</text:p></table:table-cell></table:table-row>
</table:table></office:spreadsheet></office:body></office:document-content>"#;

#[test]
fn other_formats_hold_the_same() {
    let sandbox = with_stream(
        "xls: { path: small.xls, mode: replace }\n    xlsb: { path: small.xlsb, mode: replace }\n    ods: { path: small.ods, mode: replace }",
    );
    let input = sandbox.path().join("input");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small.xls"), input.join("small.xls"))
        .expect("a file");
    let bundle = record(0x9c, &[&0_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &wide("r1"), &wide("Data")].concat());
    let workbook =
        [record(0x83, &[]), record(0x99, &[0; 12]), record(0x8f, &[]), bundle, record(0x90, &[]), record(0x84, &[])].concat();
    let row = |number: u32| record(0, &number.to_le_bytes());
    let sheet = [
        record(0x81, &[]),
        record(0x94, &[0; 16]),
        record(0x91, &[]),
        row(0),
        cell(6, 0, &wide("id")),
        cell(6, 1, &wide("name")),
        row(1),
        cell(5, 0, &1.0_f64.to_le_bytes()),
        cell(6, 1, &wide("Ünï")),
        row(2),
        cell(5, 0, &2.5_f64.to_le_bytes()),
        cell(3, 1, &[0x2a]),
        row(3),
        cell(5, 0, &3.5_f64.to_le_bytes()),
        // The error of a formula: value, flags, a formula of no bytes.
        cell(0x0b, 1, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        record(0x92, &[]),
        record(0x82, &[]),
    ]
    .concat();
    let relations = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Target="worksheets/sheet1.bin"/></Relationships>"#;
    archive(
        &input.join("small.xlsb"),
        &[
            ("xl/workbook.bin", workbook),
            ("xl/_rels/workbook.bin.rels", relations.as_bytes().to_vec()),
            ("xl/worksheets/sheet1.bin", sheet),
        ],
    );
    archive(
        &input.join("small.ods"),
        &[
            ("mimetype", b"application/vnd.oasis.opendocument.spreadsheet".to_vec()),
            (
                "META-INF/manifest.xml",
                br#"<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>"#.to_vec(),
            ),
            ("content.xml", ODS.as_bytes().to_vec()),
        ],
    );
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("changed 2 values of name: the error of a formula, became NULL"), "{}", ran.err);
    assert!(ran.err.contains("changed 1 values of took: the error of a formula, became NULL"), "{}", ran.err);
    assert_eq!(
        read(&sandbox, "select * from bronze.xls order by id nulls first"),
        ["1,Ünï,0.1,2025-01-31,2025-01-31 10:20:30,true", "2,NULL,1250.0,1999-12-31,NULL,NULL"]
    );
    assert_eq!(read(&sandbox, "select * from bronze.xlsb order by id"), ["1.0,Ünï", "2.5,NULL", "3.5,NULL"]);
    assert_eq!(
        read(&sandbox, "select * from bronze.ods order by id"),
        ["1.0,2025-01-31,26:30:00", "2.5,NULL,NULL", "2.5,NULL,NULL", "3.0,NULL,NULL"]
    );
}

#[test]
fn many_rows_and_a_stray_cell_need_little_memory() {
    let sandbox = with_stream("big: { path: big.xlsx, mode: replace }");
    let mut book = Workbook::new();
    let sheet = book.add_worksheet_with_constant_memory().expect("a sheet");
    for row in 0..50_000_u32 {
        sheet.write_number(row, 0, f64::from(row)).expect("a cell");
        sheet.write_number(row, 1, f64::from(row) / 4.0).expect("a cell");
    }
    sheet.write_string(1_048_575, 16_383, "stray").expect("a cell");
    save(&mut book, &sandbox, "big.xlsx");
    sandbox.run(&["run"]).expect(0);
    // The first row named the columns: 0 and 0.
    assert_eq!(
        read(&sandbox, "select count(*), sum(\"0\"), sum(\"0_2\"), max(column_16384) from bronze.big"),
        ["50000,1249975000,312493750.0,stray"]
    );
}

#[test]
fn broken_files_say_what_they_are() {
    let sandbox = with_stream("broken: { path: broken.xlsx, mode: replace }");
    let file = sandbox.path().join("input/broken.xlsx");
    let mut encrypted = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    encrypted.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
    let mut book = Workbook::new();
    book.add_worksheet().write_string(0, 0, "a").expect("a cell");
    let whole = book.save_to_buffer().expect("a workbook");
    for (bytes, words) in [
        (b"id,name\n1,2\n".to_vec(), "this is no spreadsheet"),
        (Vec::new(), "this is no spreadsheet"),
        (encrypted, "the file is protected by a password"),
        (whole[..whole.len() / 2].to_vec(), "this is no complete spreadsheet"),
    ] {
        std::fs::write(&file, bytes).expect("a file");
        let ran = sandbox.run(&["run"]);
        assert!(ran.code != Some(0) && ran.err.contains(words), "{words}: {}", ran.err);
    }
}
