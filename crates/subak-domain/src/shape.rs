//! What happens to rows on their way from a source to a table: which columns there are, of what type, which rows stay, and what
//! becomes of a value or a row that does not fit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::DataType;

/// The shape that the rows of a stream get before they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// What is said about columns, in the order of the declaration.
    pub columns: Vec<ColumnRule>,
    /// Columns of the source that are left out after values were taken out of them.
    pub dropped: Vec<String>,
    /// Columns that are computed from the others, in the order of the declaration; a later one may use an earlier one.
    pub derive: Vec<Derived>,
    /// A SQL condition; rows for which it is not true are left out and counted.
    pub filter: Option<String>,
    /// What happens to a row of the table whose new version fails the filter.
    pub on_filter_exit: FilterExit,
    /// The columns to keep, in this order; `None` keeps all.
    pub select: Option<Vec<String>>,
    /// How names of columns are written.
    pub naming: Naming,
    /// What happens to columns and types that the table does not know.
    pub contract: Contract,
    /// What happens to a value that does not fit its column, where something is said about it.
    pub on_reject: Option<OnReject>,
    /// How many rows may be refused before the load fails.
    pub rejects_max: Option<Limit>,
    /// Nested lists that become tables of their own.
    pub children: Vec<Child>,
    /// The rows are change events.
    pub changes: Option<Changes>,
}

impl Shape {
    /// What happens to a value that does not fit its column.
    pub fn on_reject(&self) -> OnReject {
        self.on_reject.unwrap_or_default()
    }
}

/// What is said about one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnRule {
    /// Name in the table.
    pub name: String,
    /// Where the value comes from: the first of these that is there and not null. Empty: the column of the same name.
    pub from: Vec<ValuePath>,
    /// Its type; `None` keeps what the source reports.
    pub data_type: Option<DataType>,
    /// The value of rows that have none.
    pub default: Option<String>,
    /// What happens to a value that does not fit; `None` follows the stream.
    pub on_reject: Option<OnReject>,
    /// How a date or time is written in the source, in `strftime` letters; `None` reads ISO 8601.
    pub format: Option<String>,
}

/// A column of the source, or a place inside the JSON that it holds. Written `metadata.device.name` or `items[0].sku`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValuePath {
    /// The column of the source.
    pub column: String,
    /// The keys and list positions below it; empty for the column itself.
    pub steps: Vec<PathStep>,
}

/// One step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathStep {
    /// The value of a key.
    Key(String),
    /// The element at a position, from 0.
    Index(usize),
}

impl ValuePath {
    /// Reads `column.key[0].key`. `None` when a part is empty or an index is no number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (column, mut steps) = parts.next().and_then(indexed)?;
        for part in parts {
            let (key, indices) = indexed(part)?;
            steps.push(PathStep::Key(key));
            steps.extend(indices);
        }
        Some(Self { column, steps })
    }
}

fn indexed(part: &str) -> Option<(String, Vec<PathStep>)> {
    let (key, rest) = part.find('[').map_or((part, ""), |at| part.split_at(at));
    let mut steps = Vec::new();
    for index in rest.split_terminator(']') {
        steps.push(PathStep::Index(index.strip_prefix('[')?.parse().ok()?));
    }
    let is_closed = rest.is_empty() || rest.ends_with(']');
    (!key.is_empty() && is_closed).then(|| (key.to_owned(), steps))
}

impl fmt::Display for ValuePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.column)?;
        for step in &self.steps {
            match step {
                PathStep::Key(key) => write!(formatter, ".{key}")?,
                PathStep::Index(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A computed column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Its name.
    pub name: String,
    /// A SQL expression over the row.
    pub expression: String,
}

impl Derived {
    /// Whether the value depends on the run and not only on the row: it does not make a row different from the one in the table.
    pub fn is_volatile(&self) -> bool {
        ["run.started_at", "run.id", "as_of", "current_timestamp", "now"].iter().any(|word| has_word(&self.expression, word))
    }
}

/// Whether a SQL expression names something, rather than having the letters inside another name.
pub fn has_word(expression: &str, word: &str) -> bool {
    let is_part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
    expression
        .match_indices(word)
        .any(|(at, _)| !is_part(expression[..at].chars().next_back()) && !is_part(expression[at + word.len()..].chars().next()))
}

/// What happens to a row of the table whose new version fails the filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FilterExit {
    /// It is deleted, so that the table is what the filter says.
    #[default]
    Delete,
    /// It stays as it was.
    Keep,
}

/// How names of columns are written in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Naming {
    /// As in the source.
    #[default]
    Keep,
    /// In lower case, with underscores for blanks and hyphens: `Cst FirstName` becomes `cst_firstname`.
    Lower,
    /// In lower case, words with one underscore between them: `Cst FirstName` becomes `cst_first_name`.
    Snake,
}

impl Naming {
    /// The name in the table.
    pub fn apply(self, name: &str) -> String {
        match self {
            Self::Keep => name.to_owned(),
            Self::Lower => name.trim().to_lowercase().replace([' ', '-'], "_"),
            Self::Snake => snake(name),
        }
    }
}

fn snake(name: &str) -> String {
    let characters: Vec<char> = name.trim().chars().collect();
    let mut result = String::new();
    for (at, character) in characters.iter().enumerate() {
        if !character.is_alphanumeric() {
            if !result.ends_with('_') {
                result.push('_');
            }
            continue;
        }
        let before = at.checked_sub(1).map(|before| characters[before]);
        let after_is_lower = characters.get(at + 1).is_some_and(|next| next.is_lowercase());
        let starts_word = character.is_uppercase()
            && before
                .is_some_and(|before| before.is_lowercase() || before.is_numeric() || (before.is_uppercase() && after_is_lower));
        if starts_word && !result.ends_with('_') {
            result.push('_');
        }
        result.extend(character.to_lowercase());
    }
    result.trim_matches('_').to_owned()
}

/// What happens to columns and types that the table does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contract {
    /// New columns are added; a type is widened where no value changes by it.
    #[default]
    Evolve,
    /// The load fails.
    Freeze,
    /// Rows that have a value in such a column are refused.
    DiscardRow,
    /// Such values are left out and counted.
    DiscardValue,
}

/// What happens to a value that does not fit its column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnReject {
    /// The load fails, and nothing is published.
    #[default]
    Error,
    /// The value becomes NULL and is counted.
    Null,
    /// The value becomes NULL, is counted, and its text is kept in the column `<name>__text`.
    Text,
    /// The whole row goes to the quarantine.
    Quarantine,
}

/// A bound for refused rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// So many rows.
    Rows(u64),
    /// So many thousandths of a percent of the rows that were read: 5 % is 5000.
    Share(u64),
}

impl Limit {
    /// Reads `100` or `5%` or `0.5%`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            None => text.parse().ok().map(Self::Rows),
            Some(share) => {
                let (whole, fraction) = share.trim().split_once('.').unwrap_or((share.trim(), ""));
                let digits = format!("{fraction:0<3}");
                let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                if !is_number(whole) || digits.len() != 3 || !is_number(&digits) {
                    return None;
                }
                let thousandths = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
                (thousandths <= 100_000).then_some(Self::Share(thousandths))
            }
        }
    }

    /// Whether `count` of `all` is more than the bound allows.
    pub fn is_exceeded(self, count: u64, all: u64) -> bool {
        match self {
            Self::Rows(bound) => count > bound,
            Self::Share(thousandths) => u128::from(count) * 100_000 > u128::from(all) * u128::from(thousandths),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(bound) => write!(formatter, "{bound} rows"),
            Self::Share(thousandths) if thousandths % 1000 == 0 => write!(formatter, "{} %", thousandths / 1000),
            Self::Share(thousandths) => {
                let fraction = format!("{:03}", thousandths % 1000);
                write!(formatter, "{}.{} %", thousandths / 1000, fraction.trim_end_matches('0'))
            }
        }
    }
}

/// A nested list that becomes a table of its own: `<table>__<name>`, with the key of its row and the position in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Name of the list; the table is `<table>__<name>`.
    pub name: String,
    /// Where the list stands.
    pub from: ValuePath,
    /// The columns of an element; one without `from` is the key of the same name. Empty: the whole element as JSON in `value`.
    pub columns: Vec<ColumnRule>,
}

/// How rows that are change events are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The column that says what happened.
    pub operation: String,
    /// The values of that column that mean a deletion, in lower case.
    pub delete_when: Vec<String>,
    /// The values of that column that mean that the row is as it says, in lower case. Any other value is an error.
    pub upsert_when: Vec<String>,
    /// The column whose highest value wins, whatever the order of arrival.
    pub version: String,
    /// What a deletion does.
    pub deletes: Deletes,
}

/// What a deletion among change events does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletes {
    /// The event stays as the newest version of its key, and the view `<table>__live` leaves it out.
    #[default]
    Tombstone,
    /// The row is removed; the tombstone is kept aside, so that an older event cannot bring it back.
    Remove,
    /// It is left out and counted as filtered.
    Ignore,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        for text in ["_id", "metadata.device", "items[0].sku", "a[1][2].b.c[3]"] {
            assert_eq!(ValuePath::parse(text).expect(text).to_string(), text);
        }
        for text in ["", ".a", "a.", "a..b", "a[x]", "a[0", "[0]"] {
            assert_eq!(ValuePath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_become_snake_case() {
        for (name, expect) in [
            ("Cst FirstName", "cst_first_name"),
            (" px-cat ", "px_cat"),
            ("CID", "cid"),
            ("HTTPServer2Name", "http_server2_name"),
            ("already_snake", "already_snake"),
            ("a__b", "a_b"),
            ("Größe", "größe"),
        ] {
            assert_eq!(Naming::Snake.apply(name), expect, "{name}");
        }
    }

    #[test]
    fn lower_case_splits_no_words() {
        assert_eq!(Naming::Lower.apply(" Cst FirstName"), "cst_firstname");
        assert_eq!(Naming::Lower.apply("cst-key"), "cst_key");
    }

    #[test]
    fn limits_are_rows_or_shares() {
        let share = Limit::parse("5%").expect("share");
        assert!(!share.is_exceeded(5, 100) && share.is_exceeded(6, 100) && !share.is_exceeded(0, 0));
        assert_eq!(Limit::parse("0.5%"), Some(Limit::Share(500)));
        assert_eq!(Limit::parse("0.5%").map(|limit| limit.to_string()).as_deref(), Some("0.5 %"));
        assert!(Limit::Rows(10).is_exceeded(11, 1_000_000));
        for text in ["", "%", "101%", "-1", "a", "1.2345%"] {
            assert_eq!(Limit::parse(text), None, "{text}");
        }
    }
}
