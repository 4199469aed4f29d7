//! Checks: pass or fail statements about data.

use serde::{Deserialize, Serialize};

use crate::{AssetKey, ConnectionName, Version};

/// What a failed check means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run fails.
    Error,
    /// The run says so and goes on.
    Warn,
}

/// The statement of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckRule {
    /// No row has a NULL in any of these columns.
    NotNull {
        /// The columns.
        columns: Vec<String>,
    },
    /// No two rows share the values of these columns. Rows with a NULL in one of them do not count.
    Unique {
        /// The columns, taken together.
        columns: Vec<String>,
    },
    /// The query returns the bad rows. `{{ this }}` stands for the table under check.
    Sql {
        /// The query.
        sql: String,
    },
}

/// A check that belongs to one asset and is evaluated whenever the asset is brought up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name, unique within the asset, for example `not_null(user_id)`.
    pub name: String,
    /// The statement.
    pub rule: CheckRule,
    /// What a failure means for the run.
    pub severity: Severity,
    /// A blocking check is evaluated before readers see the data; when it fails they keep the old table.
    pub blocking: bool,
}

/// A check that is a query of its own, over one or more assets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandaloneCheck {
    /// Name: the file's name without its ending.
    pub name: String,
    /// File that declares it, relative to the project.
    pub path: String,
    /// Connection that evaluates it.
    pub on: ConnectionName,
    /// Query that returns the bad rows.
    pub sql: String,
    /// Assets that it reads, sorted.
    pub upstream: Vec<AssetKey>,
    /// What a failure means for the run.
    pub severity: Severity,
    /// Hash of its canonical form.
    pub version: Version,
}

/// What came of one evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Name of the check.
    pub check: String,
    /// What a failure means for the run.
    pub severity: Severity,
    /// Whether it was evaluated before publication.
    pub blocking: bool,
    /// Rows that break the statement; zero means that it passed.
    pub bad_row_count: u64,
    /// Rows that were looked at, where that is known. Zero rows pass every check, and the run says so.
    pub row_count: Option<u64>,
    /// The first bad rows, as `column=value` text.
    pub sample: Vec<String>,
}

impl CheckOutcome {
    /// Whether no row breaks the statement.
    pub fn passed(&self) -> bool {
        self.bad_row_count == 0
    }
}
