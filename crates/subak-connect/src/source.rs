//! Reading: what a source can do, and nothing about runs.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use subak_domain::sensor::FoundFile;
use subak_domain::{Column, Cursor, DataType};

use crate::{Batch, ConnectError, ConnectErrorKind, Dialect, Field, FieldKind, Reject, TableName, convert};

/// One external system, open for reading. Holds a connection and no run state.
#[async_trait]
pub trait Source: Send + Sync {
    /// Lists the streams that can be read, in a stable order.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError>;
    /// Reads one stream from where `request` says. Dropping the result cancels the read.
    ///
    /// All batches have the same schema, and there is at least one batch, which may be empty, so that a reader learns the schema;
    /// only when every file is among [`ReadRequest::known_files`], there may be none.
    /// What is read is one consistent state of the stream. When the request has a cursor, a [`SourceItem::Cursor`] comes last,
    /// unless no row has a value in its column.
    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>>;
    /// The name under which a table of this system is a stream.
    fn stream_of(&self, table: &TableName) -> String {
        table.to_string()
    }
    /// Proves that the connection works. Override where listing streams is expensive.
    async fn probe(&self) -> Result<(), ConnectError> {
        self.discover().await.map(drop)
    }
}

/// A place for files that can be looked into without reading them.
#[async_trait]
pub trait FileStore: Send + Sync {
    /// The files whose paths match a pattern such as `raw/*/*.csv`, in the order of their paths, which are relative to the connection. An error
    /// when there are more than `count_max`.
    async fn list(&self, pattern: &str, count_max: usize) -> Result<Vec<FoundFile>, ConnectError>;
}

/// One readable collection of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its columns, where the source knows them without reading everything.
    pub columns: Vec<Column>,
    /// Columns that identify a row; empty where the source names none.
    pub primary_key: Vec<String>,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// The stream.
    pub stream: String,
    /// The connector's own options for this stream.
    pub options: BTreeMap<String, String>,
    /// Declared types. A source may use them to decode values exactly; whoever reads converts what it did not.
    pub columns: BTreeMap<String, DataType>,
    /// Reads only rows whose value in this column lies within the bounds.
    pub cursor: Option<CursorBound>,
    /// Reads only files that are not among these. `None` reads all. Sources without files take no notice.
    pub known_files: Option<KnownFiles>,
    /// The columns that whoever reads needs; `None` for all. A source may leave out others, and those that it does not have.
    pub wanted: Option<BTreeSet<String>>,
}

/// Options of the streams of every SQL system.
pub const SQL_OPTIONS: &[Field] = &[
    Field {
        name: "sql",
        kind: FieldKind::Text,
        is_required: false,
        doc: "A query in the words of the source, read instead of a table.",
    },
    Field {
        name: "where",
        kind: FieldKind::Text,
        is_required: false,
        doc: "A condition in the words of the source: only rows for which it holds are read.",
    },
    Field {
        name: "limit",
        kind: FieldKind::Integer,
        is_required: false,
        doc: "How many rows are read at most, whichever they are: for trying things out. Not with a cursor.",
    },
];

/// Options of the streams of SQL systems that can read a table in several ranges at once.
pub const RANGED_OPTIONS: &[Field] = &[
    SQL_OPTIONS[0],
    SQL_OPTIONS[1],
    SQL_OPTIONS[2],
    Field {
        name: "ranges",
        kind: FieldKind::Integer,
        is_required: false,
        doc: "How many parts of the table are read at once, all of one state of it, each on a connection of its own. By default 1, which keeps the table's order.",
    },
];

/// Parts of a table that are read at once, at most.
const RANGE_COUNT_MAX: usize = 64;

impl ReadRequest {
    /// How many parts of the table are read at once.
    pub fn range_count(&self) -> Result<usize, ConnectError> {
        let option = |name: &str| self.options.get(name).map(String::as_str).filter(|text| !text.trim().is_empty());
        let Some(text) = option("ranges") else { return Ok(1) };
        let refused = |what: &str| {
            Err(ConnectError::new(ConnectErrorKind::Config, format!("stream `{}`: {what}", self.stream))
                .help("correct or remove `ranges:`"))
        };
        match text.trim().parse::<usize>() {
            Ok(count) if (1..=RANGE_COUNT_MAX).contains(&count) => match () {
                () if count > 1 && self.has_query() => refused("`ranges` are parts of a table, and `sql` reads none"),
                () if count > 1 && option("limit").is_some() => refused("`limit` would hold for each of the `ranges`"),
                () => Ok(count),
            },
            _ => refused(&format!("`ranges` must be a number from 1 to {RANGE_COUNT_MAX}")),
        }
    }

    /// What is read, as something that can stand behind `from`: the table, or a subquery where the options ask for one. `columns` are selected
    /// from the table.
    pub fn relation(&self, dialect: &Dialect, columns: &str) -> Result<String, ConnectError> {
        self.part(dialect, columns, None)
    }

    /// The same for the part of a table for which `range` holds, a condition on its columns by the alias `t`.
    pub fn part(&self, dialect: &Dialect, columns: &str, range: Option<&str>) -> Result<String, ConnectError> {
        let option = |name: &str| self.options.get(name).map(String::as_str).filter(|text| !text.trim().is_empty());
        let limit = option("limit").map(str::parse::<u64>).transpose().map_err(|error| {
            let message = format!("stream `{}`: `limit` must be a number of rows", self.stream);
            ConnectError::new(ConnectErrorKind::Config, message).because(error)
        })?;
        if limit.is_some() && self.cursor.is_some() {
            let message = format!("stream `{}` has a cursor, and `limit` would leave out rows that it passes", self.stream);
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help("remove `limit:`, or the cursor"));
        }
        let from = match option("sql") {
            Some(sql) => format!("(\n{}\n) as subak_query", sql.trim().trim_end_matches(';')),
            None => format!("{} as t", dialect.stream(&self.stream)),
        };
        if columns == "*" && option("sql").is_none() && option("where").is_none() && limit.is_none() && range.is_none() {
            return Ok(dialect.stream(&self.stream));
        }
        let tests: Vec<String> = [option("where"), range].into_iter().flatten().map(|test| format!("({test})")).collect();
        let condition = if tests.is_empty() { String::new() } else { format!(" where {}", tests.join(" and ")) };
        let limit = limit.map_or_else(String::new, |limit| format!(" limit {limit}"));
        Ok(format!("(select {columns} from {from}{condition}{limit})"))
    }

    /// The columns that are needed, in their order; all of them where none would be left.
    pub fn needed<T>(&self, columns: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<T> {
        let Some(wanted) = &self.wanted else { return columns };
        if !columns.iter().any(|column| wanted.contains(name(column))) {
            return columns;
        }
        columns.into_iter().filter(|column| wanted.contains(name(column))).collect()
    }

    /// Whether a query of the stream's own is read instead of a table.
    pub fn has_query(&self) -> bool {
        self.options.get("sql").is_some_and(|sql| !sql.trim().is_empty())
    }
}

/// The part of a stream that is wanted. By default half open: the lower bound is inclusive, the upper one is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorBound {
    /// The cursor column.
    pub column: String,
    /// The lowest wanted value; `None` reads from the beginning.
    pub from: Option<Cursor>,
    /// Whether the lower bound itself is left out.
    pub is_lower_open: bool,
    /// The value at which the read ends; `None` reads to the end.
    pub to: Option<Cursor>,
    /// Whether the upper bound itself is wanted.
    pub is_upper_closed: bool,
    /// Whether rows without a value are left out.
    pub without_nulls: bool,
    /// Values above this move no cursor: their rows are read, and read again until their time has come.
    pub future: Option<FutureLimit>,
}

/// The time above which a value of a cursor column lies in the future, in microseconds since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutureLimit {
    /// For dates and times without a zone: as the clock on the wall shows it.
    pub wall: i64,
    /// For timestamps: in UTC.
    pub utc: i64,
}

impl FutureLimit {
    /// The limit as a cursor of this type; `None` for types without a future.
    pub fn cursor(&self, column: &str, data_type: DataType) -> Option<Cursor> {
        let value = match data_type {
            DataType::Timestamp => convert::format_timestamp(self.utc)?,
            DataType::DateTime => convert::format_datetime(self.wall)?,
            DataType::Date => convert::format_datetime(self.wall)?.get(..10)?.to_owned(),
            _ => return None,
        };
        Some(Cursor { column: column.to_owned(), value, data_type })
    }

    /// Whether a value is one that a cursor may stand on.
    pub fn allows(&self, cursor: &Cursor) -> bool {
        self.cursor(&cursor.column, cursor.data_type).is_none_or(|limit| !cursor.is_after(&limit))
    }
}

/// What people are told about a value in the future.
#[must_use]
pub fn future_warning(highest: &Cursor) -> String {
    format!(
        "the highest `{}` is `{}`, in the future; its rows are loaded, and the cursor waits below it",
        highest.column, highest.value
    )
}

impl CursorBound {
    /// Everything from a value on.
    pub fn new(column: impl Into<String>, from: Option<Cursor>) -> Self {
        Self { column: column.into(), from, ..Self::default() }
    }

    /// The bounds as a `where` clause with a blank before it, empty where there are none. `test` compares the column with a bound by a word
    /// such as `>=`.
    pub fn condition(&self, column: &str, test: impl Fn(&Cursor, &str) -> String) -> String {
        let low = self.from.iter().map(|from| test(from, self.lower_word()));
        let high = self.to.iter().map(|to| test(to, self.upper_word()));
        let tests: Vec<String> = low.chain(high).collect();
        match (tests.is_empty(), self.without_nulls) {
            (true, false) => String::new(),
            (true, true) => format!(" where {column} is not null"),
            (false, true) => format!(" where {}", tests.join(" and ")),
            (false, false) => format!(" where {column} is null or ({})", tests.join(" and ")),
        }
    }

    /// The comparison with the lower bound.
    pub fn lower_word(&self) -> &'static str {
        if self.is_lower_open { ">" } else { ">=" }
    }

    /// The comparison with the upper bound.
    pub fn upper_word(&self) -> &'static str {
        if self.is_upper_closed { "<=" } else { "<" }
    }
}

/// Files that have been loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownFiles {
    /// The files.
    pub files: Vec<FileMark>,
    /// Whether a known file with other content is an error; else it is read again.
    pub refuses_changed: bool,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileMark {
    /// Its path, relative to the connection.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was changed last, in microseconds since 1970-01-01 UTC.
    pub modified_at: i64,
    /// BLAKE3 of its bytes, as 64 hexadecimal digits.
    pub hash: String,
}

/// What a read yields. A cursor covers every batch before it and none after it.
#[derive(Debug, Clone)]
pub enum SourceItem {
    /// Rows.
    Batch(Batch),
    /// Rows that could not be taken apart. They count as read.
    Rejected(Vec<Reject>),
    /// A file was read to its end, or is known by another name.
    File(FileMark),
    /// Something that a person should know.
    Warning(String),
    /// The highest value of the cursor column so far.
    Cursor(Cursor),
}
