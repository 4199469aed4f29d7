//! The accounting of rows: every row that was read is written, rejected or filtered, and the numbers prove it.

use serde::{Deserialize, Serialize};

/// How many rows one load saw, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowAccount {
    /// Rows that the source yielded.
    pub read: u64,
    /// Rows that the destination accepted.
    pub written: u64,
    /// Rows that were refused, each with a reason.
    pub rejected: u64,
    /// Rows that were left out without being wrong: by a declared filter, because the table held them already, or because a newer
    /// row with the same key came or was there.
    pub filtered: u64,
    /// Of `filtered`: rows that the table held already.
    #[serde(default)]
    pub overlap: u64,
    /// Of `filtered`: rows for which there is a newer one with the same key.
    #[serde(default)]
    pub superseded: u64,
    /// Of `written`: rows that deleted another one.
    #[serde(default)]
    pub deleted: u64,
    /// Bytes of the batches in memory, as read.
    pub bytes: u64,
}

impl RowAccount {
    /// Whether read = written + rejected + filtered.
    pub fn is_balanced(&self) -> bool {
        self.read == self.written + self.rejected + self.filtered
    }
}

/// Values of one column that a load changed on purpose, by a declared policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueChange {
    /// The column.
    pub column: String,
    /// What was done, for example `zero date became null`.
    pub what: String,
    /// How many values.
    pub count: u64,
    /// Key or position of the first one.
    pub first: String,
}
