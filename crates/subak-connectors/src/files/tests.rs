//! Every format against small files: contents in, cells as text out.

use std::collections::BTreeMap;
use std::io::Write;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use expect_test::{Expect, expect};
use subak_connect::conformance;
use subak_connect::source::CursorBound;
use subak_domain::Cursor;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Folder) {
    let root = tempfile::tempdir().expect("folder");
    for (name, bytes) in files {
        std::fs::write(root.path().join(name), bytes).expect("file");
    }
    let folder = Folder { root: root.path().to_path_buf(), store: None, name: "in".into(), temporary: root.path().into() };
    (root, folder)
}

fn request(stream: &str, options: &[(&str, &str)]) -> ReadRequest {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ReadRequest { stream: stream.to_owned(), options, ..ReadRequest::default() }
}

fn show(batches: &[Batch]) -> String {
    let mut text = String::new();
    for field in batches[0].records.schema().fields() {
        text.push_str(&format!("{}:{} ", field.name(), convert::logical_type(field.data_type())));
    }
    for batch in batches {
        for row in 0..batch.row_count() {
            text.push('\n');
            for array in batch.records.columns() {
                let cell = if array.is_null(row) {
                    "∅".to_owned()
                } else {
                    format!("{:?}", array_value_to_string(array, row).expect("text"))
                };
                text.push_str(&cell);
                text.push(' ');
            }
        }
    }
    text
}

/// Reads files and compares the cells, or the error.
async fn assert_read(files: &[(&str, &[u8])], request: ReadRequest, expect: Expect) {
    let (root, folder) = folder(files);
    let text = match conformance::read_all(&folder, request).await {
        Ok((batches, _)) => show(&batches),
        Err(error) => format!("{:?}: {error} {:?}", error.kind, error.causes()),
    };
    let text = text.replace(&root.path().display().to_string(), "/in");
    expect.assert_eq(&text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn csv_is_exact() {
    let text = b"\xef\xbb\xbfid,name,note\r\n1,\"a, \"\"b\"\"\r\nc\",\r\n\r\n2, x ,\"\"\r\n3,5\" pipe,\\N";
    assert_read(
        &[("a.csv", text)],
        request("a.csv", &[("null", "\\N")]),
        expect![[r#"
            id:text name:text note:text
            "1" "a, \"b\"\r\nc" ∅
            "2" " x " ""
            "3" "5\" pipe" ∅"#]],
    )
    .await;
}

#[tokio::test]
async fn csv_headers_become_unique() {
    assert_read(
        &[("a.tsv", b"a\ta\t\tA\n1\t2\t3\t4\n")],
        request("a.tsv", &[]),
        expect![[r#"
            a:text a_2:text column_3:text A:text
            "1" "2" "3" "4""#]],
    )
    .await;
    assert_read(
        &[("a.csv", b"1,2\r3,4\r")],
        request("a.csv", &[("header", "false")]),
        expect![[r#"
            column_1:text column_2:text
            "1" "2"
            "3" "4""#]],
    )
    .await;
}

#[tokio::test]
async fn csv_refuses_what_is_broken() {
    for (text, expect) in [
        (&b"a,b\n1,2\n3\n"[..], expect!["Malformed: `/in/a.csv`:3: the record has 1 fields where 2 are expected []"]),
        (b"a,b\n1,2,3\n", expect!["Malformed: `/in/a.csv`:2: the record has 3 fields where 2 are expected []"]),
        (b"a\n\"x\n\n", expect!["Malformed: `/in/a.csv`:2: the quote that opens a field is never closed []"]),
        (
            b"a\n\"x\"y\n",
            expect![
                "Malformed: `/in/a.csv`:2: text follows the quote that closes a field; a quote inside a field must be doubled []"
            ],
        ),
        (b"a\nok\n\xff\n", expect!["Malformed: `/in/a.csv`:3: field 1 is not UTF-8; is another `encoding:` meant? []"]),
    ] {
        assert_read(&[("a.csv", text)], request("a.csv", &[]), expect).await;
    }
}

#[tokio::test]
async fn encodings_are_decoded() {
    let expect = || {
        expect![[r#"
        n:text
        "€""#]]
    };
    assert_read(&[("a.csv", b"n\n\x80\n")], request("a.csv", &[("encoding", "windows-1252")]), expect()).await;
    assert_read(&[("a.csv", b"\xff\xfen\0\n\0\xac\x20\n\0")], request("a.csv", &[]), expect()).await;
}

#[tokio::test]
async fn files_match_by_name() {
    assert_read(
        &[("1.csv", b"a,b\n1,2\n"), ("2.csv", b"c,a\n3,4\n")],
        request("all", &[("path", "*.csv")]),
        expect![[r#"
            a:text b:text c:text
            "1" "2" ∅
            "4" ∅ "3""#]],
    )
    .await;
    assert_read(&[("1.csv", b"a\n")], request("1.csv", &[]), expect!["a:text"]).await;
    assert_read(&[], request("*.csv", &[]), expect!["NoFiles: no file matches `*.csv` in `/in` []"]).await;
}

#[tokio::test]
async fn json_keeps_every_digit() {
    let text = br#"[{"i": 1, "d": 1.50, "big": 18446744073709551615, "s": "x", "n": {"b": 2, "a": [1.0]}, "b": true, "mixed": 1},
        {"i": null, "d": 7, "big": 1, "late": "y", "s": "", "mixed": "one"}]"#;
    assert_read(
        &[("a.json", text)],
        request("a.json", &[]),
        expect![[r#"
            i:bigint d:decimal(38,9) big:decimal(38,9) s:text n:text b:boolean mixed:text late:text
            "1" "1.500000000" "18446744073709551615.000000000" "x" "{\"b\":2,\"a\":[1.0]}" "true" "1" ∅
            ∅ "7.000000000" "1.000000000" "" ∅ ∅ "one" "y""#]],
    )
    .await;
}

#[tokio::test]
async fn json_records_are_found() {
    let text = br#"{"what": "x", "data": {"items": [{"a": 1}]}}"#;
    assert_read(
        &[("a.json", text)],
        request("a.json", &[("records", "data.items")]),
        expect![[r#"
            a:bigint
            "1""#]],
    )
    .await;
    assert_read(
        &[("a.json", text)],
        request("a.json", &[("records", "data.rows")]),
        expect![[r#"Malformed: `/in/a.json`:1:43: this is not JSON ["the key `rows` (from `records:`) is not there at line 1 column 43"]"#]],
    )
    .await;
    assert_read(
        &[("a.ndjson", b"{\"a\": 1}\n\n{\"a\": 2\n")],
        request("a.ndjson", &[]),
        expect!["Malformed: `/in/a.ndjson`:3: the record ends too early; this is not complete JSON []"],
    )
    .await;
}

#[tokio::test]
async fn declared_types_are_exact() {
    let columns = |types: &[(&str, &str)]| -> BTreeMap<String, DataType> {
        types.iter().map(|(name, data_type)| ((*name).to_owned(), data_type.parse().expect("type"))).collect()
    };
    let files: &[(&str, &[u8])] = &[("a.csv", b"id,amount,at\n1,99999.99,2025-10-01 08:00:00\n2,1,2025-10-01 09:00:00\n")];
    let wanted = ReadRequest {
        columns: columns(&[("id", "bigint"), ("amount", "decimal(10,2)"), ("at", "datetime")]),
        cursor: Some(CursorBound::new(
            "at",
            Some(Cursor { column: "at".into(), value: "2025-10-01 08:30:00".into(), data_type: DataType::DateTime }),
        )),
        ..request("a.csv", &[])
    };
    assert_read(
        files,
        wanted,
        expect![[r#"
            id:bigint amount:decimal(10,2) at:datetime
            "2" "1.00" "2025-10-01T09:00:00""#]],
    )
    .await;
    let narrow = ReadRequest { columns: columns(&[("amount", "decimal(10,1)")]), ..request("a.csv", &[]) };
    assert_read(files, narrow, expect!["ValueMisfit: column `amount`: `99999.99` is not decimal(10,1) (/in/a.csv:2) []"]).await;
    let missing = ReadRequest { columns: columns(&[("amuont", "text")]), ..request("a.csv", &[]) };
    assert_read(files, missing, expect!["ColumnMissing: column `amuont` is not in the stream []"]).await;
}

#[tokio::test]
async fn compressed_files_are_whole_or_refused() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"a\n1\n").expect("gzip");
    let first = gzip.finish().expect("gzip");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"2\n").expect("gzip");
    let both = [first.clone(), gzip.finish().expect("gzip")].concat();
    let rows = || {
        expect![[r#"
        a:text
        "1"
        "2""#]]
    };
    assert_read(&[("a.csv.gz", &both)], request("a.csv.gz", &[]), rows()).await;
    let zstd = zstd::encode_all(&b"a\n1\n2\n"[..], 1).expect("zstd");
    assert_read(&[("a.csv.zst", &zstd)], request("a.csv.zst", &[]), rows()).await;
    assert_read(
        &[("a.csv.gz", &first[..first.len() - 6])],
        request("a.csv.gz", &[]),
        expect![[
            r#"Malformed: `/in/a.csv.gz`: the compressed data end too early: the file is not complete ["unexpected end of file"]"#
        ]],
    )
    .await;
}

#[tokio::test]
async fn parquet_round_trip() {
    let schema = Arc::new(Schema::new(vec![arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int64, true)]));
    let ids = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![ids]).expect("rows");
    let mut bytes = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, None).expect("writer");
    writer.write(&rows).expect("write");
    writer.close().expect("close");
    let expect = expect![[r#"
        id:bigint
        "1"
        ∅
        "3""#]];
    assert_read(&[("a.parquet", &bytes)], request("a.parquet", &[]), expect).await;
    let (_root, broken) = folder(&[("a.parquet", &bytes[..bytes.len() - 3])]);
    let error = conformance::read_all(&broken, request("a.parquet", &[])).await.expect_err("truncated");
    assert_eq!(error.kind, ConnectErrorKind::Malformed);
}

#[tokio::test]
async fn conforms() {
    let mut text = String::from("id,at\n");
    for at in 0..70_000 {
        text.push_str(&format!("{at},2025-01-01 {:02}:{:02}:{:02}\n", at / 3600 % 24, at / 60 % 60, at % 60));
    }
    let (_root, folder) = folder(&[("a.csv", text.as_bytes())]);
    let columns = BTreeMap::from([("at".to_owned(), DataType::DateTime)]);
    let highest = Cursor { column: "at".into(), value: "2025-01-01 19:26:39".into(), data_type: DataType::DateTime };
    conformance::source(&folder, ReadRequest { columns, ..request("a.csv", &[]) }, &highest, 1).await;
}
