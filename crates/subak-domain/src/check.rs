//! Checks: pass or fail statements about data.

use serde::{Deserialize, Serialize};

use crate::shape::Limit;
use crate::{AssetKey, Column, ConnectionName, Version};

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
    /// The column has one of these values, or NULL.
    AcceptedValues {
        /// The column.
        column: String,
        /// The values as texts.
        values: Vec<String>,
    },
    /// The column's values lie within these bounds, both inclusive, or are NULL.
    Range {
        /// The column.
        column: String,
        /// The lowest value as text.
        min: Option<String>,
        /// The highest value as text.
        max: Option<String>,
    },
    /// The whole text of the column matches the regular expression, or is NULL.
    Pattern {
        /// The column.
        column: String,
        /// The expression.
        pattern: String,
    },
    /// Each value of the columns, unless one is NULL, is there in the columns of another asset.
    Relationships {
        /// The columns.
        columns: Vec<String>,
        /// The asset that they refer to.
        to: AssetKey,
        /// Its columns.
        to_columns: Vec<String>,
    },
    /// The table has so many rows.
    RowCount {
        /// At least.
        min: Option<u64>,
        /// At most.
        max: Option<u64>,
    },
    /// The newest value of the column is not older than this when the check is evaluated.
    Freshness {
        /// A column with dates or times.
        column: String,
        /// Seconds.
        age_seconds_max: u64,
    },
    /// The table has these columns with these types.
    Schema {
        /// The columns.
        columns: Vec<Column>,
        /// Whether no other columns may be there.
        is_exact: bool,
    },
    /// Measures over the table equal the same measures over another asset of the same connection.
    Reconcile {
        /// The other asset.
        with: AssetKey,
        /// SQL aggregates, for example `count(*)` and `sum(amount)`.
        measures: Vec<String>,
        /// A condition on the rows of the other asset.
        with_filter: Option<String>,
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
    /// A condition: only rows for which it is true are looked at.
    pub filter: Option<String>,
    /// So many bad rows are tolerated.
    pub tolerance: Option<Limit>,
}

impl CheckRule {
    /// The columns of the table itself that the rule names.
    pub fn columns(&self) -> Vec<&String> {
        match self {
            Self::NotNull { columns } | Self::Unique { columns } | Self::Relationships { columns, .. } => {
                columns.iter().collect()
            }
            Self::AcceptedValues { column, .. }
            | Self::Range { column, .. }
            | Self::Pattern { column, .. }
            | Self::Freshness { column, .. } => vec![column],
            Self::Schema { .. } | Self::RowCount { .. } | Self::Reconcile { .. } | Self::Sql { .. } => Vec::new(),
        }
    }

    /// The other asset that the rule reads.
    pub fn upstream(&self) -> Option<&AssetKey> {
        match self {
            Self::Relationships { to, .. } => Some(to),
            Self::Reconcile { with, .. } => Some(with),
            _ => None,
        }
    }

    /// Whether a table without rows passes without anything having been looked at.
    pub fn is_vacuous_when_empty(&self) -> bool {
        !matches!(self, Self::RowCount { .. } | Self::Freshness { .. } | Self::Schema { .. } | Self::Reconcile { .. })
    }
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
    /// So many bad rows are tolerated.
    #[serde(default)]
    pub tolerance: Option<Limit>,
    /// It passed, but there was nothing to look at.
    #[serde(default)]
    pub is_vacuous: bool,
}

impl CheckOutcome {
    /// The outcome of a check that looks at what is published, tolerates nothing, and of which no more is known.
    pub fn after(check: String, severity: Severity, bad_row_count: u64) -> Self {
        Self {
            check,
            severity,
            blocking: false,
            bad_row_count,
            row_count: None,
            sample: Vec::new(),
            tolerance: None,
            is_vacuous: false,
        }
    }

    /// Whether no more rows break the statement than are tolerated. A share of an unknown number of rows tolerates none.
    pub fn passed(&self) -> bool {
        match (self.tolerance, self.row_count) {
            (None, _) | (Some(Limit::Share(_)), None) => self.bad_row_count == 0,
            (Some(limit), row_count) => !limit.is_exceeded(self.bad_row_count, row_count.unwrap_or(0)),
        }
    }
}
