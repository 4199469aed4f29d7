//! The options of a stream of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use subak_connect::{ConnectError, ConnectErrorKind, Field, FieldKind};

use super::debezium::{Decimals, Spelling, TimeUnit};
use super::sheet::Area;

/// The keys that a stream of files knows.
pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "path",
        kind: FieldKind::Text,
        is_required: false,
        doc: "Pattern of the files, relative to the connection's folder; `*`, `?`, `[…]` and `**` work. By default the stream's name.",
    },
    Field {
        name: "format",
        kind: FieldKind::Word(&["csv", "json", "ndjson", "parquet", "debezium", "xlsx", "xlsb", "xls", "ods"]),
        is_required: false,
        doc: "Format of the files. By default it follows from the ending of their names. `debezium` is JSON or NDJSON with change events of Debezium, with or without their schema.",
    },
    Field {
        name: "times",
        kind: FieldKind::Word(&["ms", "us", "ns"]),
        is_required: false,
        doc: "Debezium without schema: what one counts in columns that are declared as `datetime` or `timestamp`. By default the size of each number tells milliseconds, microseconds and nanoseconds apart.",
    },
    Field {
        name: "decimals",
        kind: FieldKind::Word(&["text", "base64"]),
        is_required: false,
        doc: "Debezium without schema: how columns that are declared as `decimal` are written. By default each value tells, and one that may be either is refused.",
    },
    Field {
        name: "delimiter",
        kind: FieldKind::Text,
        is_required: false,
        doc: "CSV: the character between fields. By default it is found out: a comma, semicolon, tab or bar that takes every line apart into the same number of fields.",
    },
    Field { name: "quote", kind: FieldKind::Text, is_required: false, doc: "CSV: the character around fields. By default `\"`." },
    Field {
        name: "sheet",
        kind: FieldKind::Text,
        is_required: false,
        doc: "Spreadsheets: name of the sheet, or its number from 1. By default the first one that is not hidden.",
    },
    Field {
        name: "range",
        kind: FieldKind::Text,
        is_required: false,
        doc: "Spreadsheets: the cells that are read, for example `B5:H200`, `B5` for all below and to the right, `B:H`. By default all. The first row with something in it names the columns.",
    },
    Field {
        name: "header",
        kind: FieldKind::Boolean,
        is_required: false,
        doc: "CSV and spreadsheets: whether the first line names the columns. Without, they are `column_1`, `column_2` and so on. By default `true`.",
    },
    Field {
        name: "null",
        kind: FieldKind::Text,
        is_required: false,
        doc: "CSV: a text that stands for NULL when it is not quoted, besides nothing at all, for example `\\N`.",
    },
    Field {
        name: "encoding",
        kind: FieldKind::Text,
        is_required: false,
        doc: "CSV and JSON: character encoding by its WHATWG label, for example `windows-1252`, or `guess`. By default UTF-8, or UTF-16 where the bytes say so; a byte order mark wins.",
    },
    Field {
        name: "records",
        kind: FieldKind::Text,
        is_required: false,
        doc: "JSON: dotted path to the list of records inside the document, for example `data.items`. By default the document is the list.",
    },
    Field {
        name: "line_column",
        kind: FieldKind::Text,
        is_required: false,
        doc: "Name of a column with the line on which each row begins, or its number among the records of a document. By default there is none.",
    },
    Field {
        name: "file_column",
        kind: FieldKind::Text,
        is_required: false,
        doc: "Name of a column with the path of the file of each row, relative to the connection's folder. By default there is none.",
    },
    Field {
        name: "ragged",
        kind: FieldKind::Word(&["reject", "pad"]),
        is_required: false,
        doc: "CSV: what happens to a record with too few fields. By default it is refused; `pad` fills it with NULLs.",
    },
    Field {
        name: "read",
        kind: FieldKind::Word(&["new", "all"]),
        is_required: false,
        doc: "Whether only files are read that were not loaded before, by path, length and hash, or all. By default `new` with `mode: append` and without a cursor, else `all`.",
    },
    Field {
        name: "if_no_files",
        kind: FieldKind::Word(&["error", "skip"]),
        is_required: false,
        doc: "What happens when no file matches. By default it is an error.",
    },
];

/// How characters are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Nobody said: UTF-8, unless the bytes are two to a character.
    Unsaid,
    /// What is most likely.
    Guessed,
    /// This one.
    Declared(&'static encoding_rs::Encoding),
}

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Json,
    Ndjson,
    Parquet,
    Sheet,
}

impl Format {
    /// The format that the ending of a name says, the ending of a compression left aside.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = [".gz", ".zst", ".zip"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" | "tsv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "parquet" => Some(Self::Parquet),
            "xlsx" | "xlsm" | "xlsb" | "xls" | "ods" => Some(Self::Sheet),
            _ => None,
        }
    }
}

/// Parsed options.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent options of one stream, each a key of its own")]
pub(super) struct Options {
    pub(super) pattern: String,
    format: Option<Format>,
    pub(super) delimiter: Option<u8>,
    pub(super) quote: u8,
    pub(super) has_header: bool,
    pub(super) null: Option<String>,
    pub(super) encoding: Encoding,
    pub(super) pads: bool,
    pub(super) line_column: Option<String>,
    pub(super) file_column: Option<String>,
    pub(super) is_debezium: bool,
    pub(super) spelling: Spelling,
    pub(super) records: Vec<String>,
    pub(super) sheet: Option<String>,
    pub(super) area: Area,
    pub(super) may_be_empty: bool,
}

impl Options {
    /// The defaults for one file.
    pub(super) fn of(path: PathBuf) -> Self {
        Self {
            pattern: path.display().to_string(),
            format: None,
            delimiter: None,
            quote: b'"',
            has_header: true,
            null: None,
            encoding: Encoding::Unsaid,
            pads: false,
            line_column: None,
            file_column: None,
            is_debezium: false,
            spelling: Spelling::default(),
            records: Vec::new(),
            sheet: None,
            area: Area::default(),
            may_be_empty: false,
        }
    }

    pub(super) fn parse(stream: &str, values: &BTreeMap<String, String>) -> Result<Self, ConnectError> {
        let get = |key: &str| values.get(key).map(String::as_str);
        let wrong = |key: &str, what: &str| {
            ConnectError::new(ConnectErrorKind::Config, format!("`{key}` of stream `{stream}` must be {what}"))
        };
        let byte = |key: &str| match get(key) {
            None => Ok(None),
            Some("\\t" | "tab") => Ok(Some(b'\t')),
            Some(text) if text.len() == 1 && !matches!(text, "\r" | "\n") => Ok(Some(text.as_bytes()[0])),
            Some(_) => Err(wrong(key, "one ASCII character that ends no line, or `tab`")),
        };
        let (delimiter, quote) = (byte("delimiter")?, byte("quote")?.unwrap_or(b'"'));
        if delimiter == Some(quote) {
            return Err(wrong("delimiter", "another character than `quote`"));
        }
        let encoding = match get("encoding") {
            None => Encoding::Unsaid,
            Some("guess") => Encoding::Guessed,
            Some(label) => {
                let found = encoding_rs::Encoding::for_label(label.as_bytes());
                let what = "a WHATWG encoding label such as `utf-8` or `windows-1252`, or `guess`";
                Encoding::Declared(found.ok_or_else(|| wrong("encoding", what))?)
            }
        };
        Ok(Self {
            format: match get("format") {
                Some("csv") => Some(Format::Csv),
                Some("json") => Some(Format::Json),
                Some("ndjson") => Some(Format::Ndjson),
                Some("parquet") => Some(Format::Parquet),
                Some("xlsx" | "xlsb" | "xls" | "ods") => Some(Format::Sheet),
                // The reader of documents takes lines as well.
                Some("debezium") => Some(Format::Json),
                _ => None,
            },
            delimiter,
            quote,
            has_header: get("header") != Some("false"),
            null: get("null").map(str::to_owned),
            encoding,
            pads: get("ragged") == Some("pad"),
            line_column: get("line_column").map(str::to_owned),
            file_column: get("file_column").map(str::to_owned),
            is_debezium: get("format") == Some("debezium"),
            spelling: Spelling {
                times: get("times").map(|unit| match unit {
                    "ms" => TimeUnit::Milliseconds,
                    "us" => TimeUnit::Microseconds,
                    _ => TimeUnit::Nanoseconds,
                }),
                decimals: get("decimals").map(|word| if word == "text" { Decimals::Text } else { Decimals::Base64 }),
            },
            sheet: get("sheet").map(str::to_owned),
            area: match get("range") {
                Some(text) => Area::parse(text).ok_or_else(|| wrong("range", "cells such as `B5:H200`, `B5` or `B:H`"))?,
                None => Area::default(),
            },
            records: get("records").map(|path| path.split('.').map(str::to_owned).collect()).unwrap_or_default(),
            may_be_empty: get("if_no_files") == Some("skip"),
            ..Self::of(PathBuf::from(get("path").unwrap_or(stream)))
        })
    }

    /// The format of a file: what is declared, else what its name says.
    pub(super) fn format(&self, path: &Path) -> Option<Format> {
        self.format.or_else(|| Format::of(path))
    }
}
