//! Assets: the datasets that a project declares and keeps up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::{AssetKey, Check, ConnectionName, DataType, Version};

/// A named dataset and how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// Its dotted name.
    pub key: AssetKey,
    /// How it is made.
    pub definition: Definition,
    /// Assets that it reads directly, sorted.
    pub upstream: Vec<AssetKey>,
    /// Checks that are evaluated whenever it is brought up to date.
    pub checks: Vec<Check>,
    /// Hash of everything that decides its data.
    pub version: Version,
    /// File that declares it, relative to the project.
    pub path: String,
    /// Group: what the declaration says, else the first segment of the key.
    pub group: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Free labels.
    pub tags: BTreeSet<String>,
    /// One or more sentences for readers.
    pub description: Option<String>,
    /// How often a failed step is tried again.
    pub retry: Retry,
    /// Upper bound for one attempt.
    pub timeout: Duration,
}

impl Asset {
    /// The connection whose tables hold the asset; `None` for an external asset.
    pub fn stored_in(&self) -> Option<&ConnectionName> {
        match &self.definition {
            Definition::Ingest(ingest) | Definition::Seed(ingest) => Some(&ingest.to),
            Definition::Sql(sql) => Some(&sql.on),
            Definition::External => None,
        }
    }
}

/// How an asset is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// A stream of a source is loaded into a table.
    Ingest(Ingest),
    /// A query's result is stored.
    Sql(SqlAsset),
    /// A small file under version control is loaded into a table. It is read through the project's own files.
    Seed(Ingest),
    /// Something outside keeps it up to date; it is never run.
    External,
}

impl Definition {
    /// The word for this kind, as `kind:` selects it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "ingest",
            Self::Sql(_) => "sql",
            Self::Seed(_) => "seed",
            Self::External => "external",
        }
    }
}

/// Every word that `kind:` knows.
pub const KINDS: &[&str] = &["external", "ingest", "seed", "sql"];

/// Loads a stream of a source into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// The source.
    pub from: ConnectionName,
    /// The destination.
    pub to: ConnectionName,
    /// The stream's name in the source.
    pub stream: String,
    /// What happens to rows that the table already holds.
    pub mode: WriteMode,
    /// Columns that identify a row; empty where none is declared.
    pub primary_key: Vec<String>,
    /// Reads only what is new.
    pub cursor: Option<CursorRule>,
    /// Declared types by column; the other columns keep the type that the source reports.
    pub columns: BTreeMap<String, DataType>,
    /// Options of the source's connector for this stream, for example a file pattern.
    pub options: BTreeMap<String, String>,
}

/// How new rows of a stream are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorRule {
    /// The column whose highest committed value bounds the next read from below.
    pub column: String,
    /// How far below that value the next read starts, so that rows that were committed late are found. Needs a key.
    pub lag: Duration,
}

/// What a load does with rows that the table already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// They are replaced, all of them, at once.
    Replace,
    /// They stay; new rows are added.
    Append,
    /// Rows with the same key are replaced; others are added.
    Merge,
}

impl WriteMode {
    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Merge => "merge",
        }
    }
}

/// Stores the result of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlAsset {
    /// The connection that runs the query and stores its result.
    pub on: ConnectionName,
    /// The query, templates rendered, header removed.
    pub sql: String,
    /// How the result is kept.
    pub stored_as: StoredAs,
}

/// How the result of a query is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// As a query that readers run.
    View,
    /// As rows.
    Table,
}

impl StoredAs {
    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Table => "table",
        }
    }
}

/// How often a failed step is tried again, and how long it waits in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one included.
    pub attempts_max: NonZeroU32,
    /// Wait before the second attempt; doubles each time.
    pub delay_first: Duration,
    /// Upper bound for the wait between two attempts.
    pub delay_max: Duration,
    /// Share of the wait that is random, in percent, 0 to 100: the wait is taken from `delay ± jitter`.
    pub jitter_percent: u8,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: NonZeroU32::MIN.saturating_add(2),
            delay_first: Duration::from_secs(1),
            delay_max: Duration::from_secs(60),
            jitter_percent: 20,
        }
    }
}

impl Retry {
    /// The wait before attempt `attempt + 1`, after `attempt` attempts have failed. `random` is in `0..=1000`.
    ///
    /// Doubles from `delay_first`, is bounded by `delay_max` before the jitter is applied, and never overflows.
    pub fn delay_after(&self, attempt: u32, random: u16) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let base = self.delay_first.checked_mul(factor).unwrap_or(self.delay_max).min(self.delay_max);
        let spread = i64::from(self.jitter_percent) * (i64::from(random.min(1000)) - 500) / 500;
        let per_cent = u32::try_from(100 + spread).unwrap_or(0);
        base.checked_mul(per_cent).unwrap_or(Duration::MAX) / 100
    }
}

/// Upper bound for one attempt of a step where the project names none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(6 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_and_is_bounded() {
        let retry = Retry { jitter_percent: 0, ..Retry::default() };
        let seconds: Vec<_> = [1, 2, 3, 7, 40, 1000].iter().map(|attempt| retry.delay_after(*attempt, 0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 60, 60, 60]);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let retry = Retry { jitter_percent: 20, ..Retry::default() };
        let ms: Vec<_> = [0, 500, 1000].iter().map(|random| retry.delay_after(1, *random).as_millis()).collect();
        assert_eq!(ms, [800, 1000, 1200]);
        let full = Retry { jitter_percent: 100, ..Retry::default() };
        assert_eq!(full.delay_after(1, 0), Duration::ZERO);
    }
}
