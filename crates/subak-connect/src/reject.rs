//! Rows that were refused: what is kept of them, and the seam to where they are kept.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{ConnectError, ConnectErrorKind, TableName};

/// A row that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reject {
    /// Why, one sentence.
    pub reason: String,
    /// The column whose value did not fit, if it was one.
    pub column: Option<String>,
    /// That value as text.
    pub value: Option<String>,
    /// The file that the row came from, if it was one.
    pub file: Option<Arc<str>>,
    /// Its path below the folder of its connection, by which it is known wherever that folder lies.
    pub path: Option<Arc<str>>,
    /// The line in that file on which it begins, or its number among the records, from 1.
    pub line: Option<u64>,
    /// Its key as `column=value` texts, where it has one.
    pub key: Option<String>,
    /// The row before anything was done to it: a JSON object of the source's columns; for what could not be taken apart, a JSON
    /// string with its text.
    pub row: String,
}

impl Reject {
    /// Where the row came from, for people.
    pub fn place(&self) -> String {
        match (&self.file, self.line, &self.key) {
            (Some(file), Some(line), _) => format!("{file}:{line}"),
            (Some(file), None, _) => file.to_string(),
            (None, Some(line), _) => format!("row {line}"),
            (None, None, Some(key)) => key.clone(),
            (None, None, None) => "a row without a key".to_owned(),
        }
    }
}

impl Reject {
    /// The error for a load that takes no rejects.
    pub fn to_error(&self) -> ConnectError {
        match (&self.column, &self.file, self.line) {
            (Some(column), ..) => ConnectError::new(ConnectErrorKind::ValueMisfit, format!("{} ({})", self.reason, self.place()))
                .help(format!(
                    "correct the value, or declare `{column}` as a type that holds it (`text` holds everything), or set `on_reject:`"
                )),
            (None, Some(file), Some(line)) => {
                let error = ConnectError::new(ConnectErrorKind::Malformed, format!("`{file}`:{line}: {}", self.reason));
                error.help("correct the file, or keep such rows apart with `on_reject: quarantine`")
            }
            _ => ConnectError::new(ConnectErrorKind::Malformed, format!("{} ({})", self.reason, self.place())),
        }
    }
}

/// The name of the table that holds the rejects of a table.
pub fn table_of(table: &TableName) -> TableName {
    TableName { schema: table.schema.clone(), name: format!("{}__rejects", table.name) }
}

/// What became of a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectStatus {
    /// Nobody has decided.
    Open,
    /// It was loaded after all.
    Replayed,
    /// Somebody decided that it is not wanted.
    Discarded,
}

impl RejectStatus {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    /// The status for a stored word.
    pub fn of(word: &str) -> Self {
        match word {
            "replayed" => Self::Replayed,
            "discarded" => Self::Discarded,
            _ => Self::Open,
        }
    }
}

/// A reject in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReject {
    /// Its identity within the table: the same row at the same place, refused for the same reason, has the same one.
    pub id: String,
    /// The run that refused it.
    pub run: String,
    /// When it was refused, UTC.
    pub rejected_at: String,
    /// What became of it.
    pub status: RejectStatus,
    /// The row and why.
    pub reject: Reject,
}

/// Where rejects are kept: beside the table, in `<table>__rejects`.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// How many rejects a table has by status: open, replayed, discarded. All zero where there never was one.
    async fn count(&self, table: &TableName) -> Result<[u64; 3], ConnectError>;
    /// The rejects of a table with this status, oldest first; at most `count_max`.
    async fn rejects(&self, table: &TableName, status: RejectStatus, count_max: u64) -> Result<Vec<StoredReject>, ConnectError>;
    /// Marks open rejects as discarded at the time `at`. Returns how many there were.
    async fn discard(&self, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError>;
}
