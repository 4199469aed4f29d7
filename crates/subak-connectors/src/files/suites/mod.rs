//! What the public suites for CSV and JSON test (csv-spectrum, RFC 4180 and the suites after it, `JSONTestSuite`), as tables of our own:
//! the facts are theirs, the inputs are not.

mod csv_cases;
mod json_cases;

use futures::StreamExt;
use subak_connect::{Connection, ReadRequest, SourceItem};

use super::input::Input;
use super::options::Options;
use super::{Folder, json};

type Rows = Vec<Vec<Option<String>>>;

/// Reads one CSV file: header and rows, or the first thing that is wrong with its line.
async fn read_csv(bytes: &[u8]) -> Result<(Vec<String>, Rows), (u64, String)> {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("a.csv"), bytes).expect("write");
    let source = Folder { root: folder.path().to_path_buf(), store: None, name: "t".into(), temporary: folder.path().into() };
    // The delimiter is declared: what a few bytes suggest is another matter.
    let options = [("delimiter".to_owned(), ",".to_owned())].into();
    let request = ReadRequest { stream: "a.csv".to_owned(), options, ..ReadRequest::default() };
    let mut items = Connection::source(&source).expect("source").read(request);
    let (mut header, mut rows) = (Vec::new(), Vec::new());
    while let Some(item) = items.next().await {
        match item {
            Ok(SourceItem::Batch(batch)) => {
                header = batch.records.schema().fields().iter().map(|field| field.name().clone()).collect();
                for row in 0..batch.row_count() {
                    let value = |array: &arrow::array::ArrayRef| {
                        (!array.is_null(row)).then(|| subak_connect::convert::text_at(array, row))
                    };
                    rows.push(batch.records.columns().iter().map(value).collect());
                }
            }
            Ok(SourceItem::Rejected(rejects)) => {
                let first = &rejects[0];
                return Err((first.line.expect("a line"), first.reason.clone()));
            }
            Ok(_) => {}
            Err(error) => {
                let text = error.to_string();
                let line = text.split("`:").nth(1).and_then(|rest| rest.split(':').next()).and_then(|line| line.parse().ok());
                return Err((line.unwrap_or(0), text));
            }
        }
    }
    Ok((header, rows))
}

#[tokio::test]
async fn csv_does_what_the_suites_ask() {
    let mut failed = Vec::new();
    for case in csv_cases::CASES {
        let found = read_csv(case.input).await;
        let is_right = match (&case.expect, &found) {
            (csv_cases::Expect::Rows { header, rows }, Ok((found_header, found_rows))) => {
                let rows: Rows = rows.iter().map(|row| row.iter().map(|value| value.map(str::to_owned)).collect()).collect();
                found_header == header && *found_rows == rows
            }
            (csv_cases::Expect::Bad { line, about }, Err((found_line, text))) => found_line == line && text.contains(about),
            _ => false,
        };
        if !is_right {
            failed.push(format!("{}: {found:?}", case.name));
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), csv_cases::CASES.len(), failed.join("\n"));
}

/// The records of a document as compact JSON, or what is wrong.
fn read_json(bytes: &[u8]) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.json");
    std::fs::write(&path, bytes).expect("write");
    let input = Input::open(&path).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    let mut refused = None;
    let options = Options::of(path);
    json::each_record(&input, &options, &ReadRequest::default(), &mut |found, _| {
        match found {
            crate::records::json::Found::Record(record, _) => records.push(crate::records::to_json(&record)),
            crate::records::json::Found::Refused { reason, .. } => {
                refused.get_or_insert(reason);
            }
        }
        Ok(())
    })
    .map_err(|stopped| match stopped {
        subak_connect::blocking::Stopped::Failed(error) => format!("{error} {}", error.causes().join(" ")),
        subak_connect::blocking::Stopped::Closed => "closed".to_owned(),
    })?;
    refused.map_or(Ok(records), Err)
}

#[test]
fn json_does_what_the_suites_ask() {
    let mut failed = Vec::new();
    for case in json_cases::CASES {
        let found = read_json(case.input);
        let is_right = match (&case.expect, &found) {
            (json_cases::Expect::Records(expect), Ok(found)) => found == expect,
            (json_cases::Expect::Bad { about }, Err(text)) => text.contains(about),
            _ => false,
        };
        if !is_right {
            failed.push(format!("{}: {found:?}", case.name));
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), json_cases::CASES.len(), failed.join("\n"));
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    for depth in [501, 100_000] {
        let nested = format!("[{{\"v\":{}{}}}]", "[".repeat(depth), "]".repeat(depth));
        let refused = read_json(nested.as_bytes()).expect_err("too deep");
        assert!(refused.contains("nested deeper than 500"), "{refused}");
        assert!(read_json("[".repeat(depth).as_bytes()).is_err());
        assert!(read_json("[{\"\":".repeat(depth).as_bytes()).is_err());
    }
    let nested = format!("[{{\"v\":{}{}}}]", "[".repeat(500), "]".repeat(500));
    assert_eq!(read_json(nested.as_bytes()).map(|records| records.len()), Ok(1));
}

#[test]
fn blanks_before_a_document_do_not_hide_it() {
    let mut text = " ".repeat(700_000);
    text.push_str("[{\"a\": 1}]");
    assert_eq!(read_json(text.as_bytes()), Ok(vec!["{\"a\":1}".to_owned()]));
    let broken = read_json(b"\n\n[{\"a\": }]").expect_err("broken");
    assert!(broken.contains(":3:"), "{broken}");
}
