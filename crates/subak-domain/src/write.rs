//! How rows get into a table that may hold rows already.

use serde::{Deserialize, Serialize};

/// What a load does with rows that the table already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// They are replaced, all of them, at once.
    Replace,
    /// They stay; new rows are added.
    Append,
    /// Rows with the same key are replaced; others are added.
    Merge,
    /// All rows that share a key with one that arrives are deleted, then what arrives is added. The key need not be unique.
    DeleteInsert,
    /// Every version of a row is kept with the time in which it held (slowly changing dimension, type 2).
    Snapshot,
}

impl WriteMode {
    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Merge => "merge",
            Self::DeleteInsert => "delete_insert",
            Self::Snapshot => "snapshot",
        }
    }

    /// Whether rows are found by a key.
    pub fn needs_key(self) -> bool {
        matches!(self, Self::Merge | Self::DeleteInsert | Self::Snapshot)
    }
}

/// How the tables of a connection can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Writes {
    /// Not at all.
    #[default]
    Nothing,
    /// As a whole: a table is replaced each time. Rows in it are not looked up, and there is no quarantine.
    WholeTables,
    /// In every mode, with a quarantine.
    Rows,
}

/// Which of several arriving rows with one key stays: the first one in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// The order; empty means the order of arrival.
    pub order: Vec<OrderBy>,
    /// Which one of rows that are equal in that order.
    pub tie: Tie,
    /// Whether a row in the table that stands before an arriving one stays too.
    pub is_against_table: bool,
}

/// One term of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBy {
    /// The column.
    pub column: String,
    /// Whether the highest value comes first.
    pub is_descending: bool,
    /// Whether rows without a value come first.
    pub nulls_first: bool,
}

impl OrderBy {
    /// Reads `updated_at`, `updated_at desc`, `updated_at desc nulls first`. Without words the highest value comes first and rows
    /// without a value come last, because what is asked for is the newest row.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let column = words.next()?.to_owned();
        let mut order = Self { column, is_descending: true, nulls_first: false };
        let rest: Vec<String> = words.map(str::to_ascii_lowercase).collect();
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let rest = match rest.split_first() {
            Some((&"asc", rest)) => {
                order.is_descending = false;
                rest
            }
            Some((&"desc", rest)) => rest,
            _ => &rest[..],
        };
        match rest {
            [] | ["nulls", "last"] => Some(order),
            ["nulls", "first"] => Some(Self { nulls_first: true, ..order }),
            _ => None,
        }
    }
}

/// Which one of rows that are equal in their order stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tie {
    /// The one that arrived last.
    #[default]
    Last,
    /// The one that arrived first.
    First,
}

/// How a table is laid out where the system has a choice; what is not said is the system's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The table's engine, with its arguments.
    pub engine: Option<String>,
    /// Expressions by which its rows are ordered.
    pub order_by: Option<String>,
    /// Expressions by which it is divided.
    pub partition_by: Option<String>,
    /// When rows leave it.
    pub ttl: Option<String>,
}

/// How versions of rows are kept in [`WriteMode::Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Column with the time from which a version holds.
    pub valid_from: String,
    /// Column with the time at which it ceased to hold; NULL for the current one.
    pub valid_to: String,
    /// Column that is true for the current version.
    pub is_current: String,
    /// A column of the row that says when it changed; without one, the time of the run counts.
    pub updated_at: Option<String>,
    /// Whether a key that a complete read does not have is closed.
    pub closes_missing: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            valid_from: "valid_from".to_owned(),
            valid_to: "valid_to".to_owned(),
            is_current: "is_current".to_owned(),
            updated_at: None,
            closes_missing: false,
        }
    }
}

/// A key that the product assigns to each natural key once and never again to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurrogateKey {
    /// The column that holds it; the first column of the table.
    pub column: String,
    /// The natural key.
    pub of: Vec<String>,
    /// The key of the row for facts whose dimension is not known; `None` makes no such row.
    pub unknown: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let order = |is_descending, nulls_first| Some(OrderBy { column: "a".into(), is_descending, nulls_first });
        assert_eq!(OrderBy::parse("a"), order(true, false));
        assert_eq!(OrderBy::parse("a asc"), order(false, false));
        assert_eq!(OrderBy::parse("a DESC nulls first"), order(true, true));
        assert_eq!(OrderBy::parse("a nulls last"), order(true, false));
        assert_eq!(OrderBy::parse("a sideways"), None);
        assert_eq!(OrderBy::parse(""), None);
    }
}
