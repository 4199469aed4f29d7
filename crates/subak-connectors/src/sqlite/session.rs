//! SQLite as staging sees it.

use std::cmp::Ordering;

use arrow::datatypes::DataType as ArrowType;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection as Driver, OptionalExtension};
use subak_connect::{ConnectError, ConnectErrorKind, Dialect, TableName};

use super::{DIALECT, failed, values};
use crate::staging::{Relation, RelationKind, Session, TextRow};

/// One connection, and what it is doing, for messages.
pub(super) struct SqliteSession<'a> {
    driver: &'a Driver,
    message: String,
}

impl<'a> SqliteSession<'a> {
    pub(super) fn new(driver: &'a Driver, message: impl Into<String>) -> Self {
        Self { driver, message: message.into() }
    }

    fn failed(&self, error: rusqlite::Error) -> ConnectError {
        failed(ConnectErrorKind::Write, &self.message, error)
    }
}

/// Functions that SQLite does not have by itself.
pub(super) fn add_functions(driver: &Driver) -> rusqlite::Result<()> {
    driver.create_collation("subak_exact", compare_exactly)?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    driver.create_scalar_function("subak_matches", 2, flags, |context| {
        let pattern: String = context.get(0)?;
        let text: String = context.get(1)?;
        let build = |pattern: &String| regex::Regex::new(&format!("^(?:{pattern})$"));
        let compiled = context.get_or_create_aux(0, |_| -> Result<_, regex::Error> { build(&pattern) });
        let compiled = compiled.map_err(|error| rusqlite::Error::UserFunctionError(error.to_string().into()))?;
        Ok(compiled.is_match(&text))
    })
}

/// Numbers by their values, whatever their digits; other texts by their characters, a `Z` at their end left aside.
fn compare_exactly(a: &str, b: &str) -> Ordering {
    let number = |text: &str| {
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_negative = is_negative && !(whole.is_empty() && fraction.is_empty());
        is_number.then(|| (is_negative, whole.len(), whole.to_owned(), fraction.to_owned()))
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => {
            let size = (a.1, &a.2, &a.3).cmp(&(b.1, &b.2, &b.3));
            match (a.0, b.0) {
                (false, false) => size,
                (true, true) => size.reverse(),
                (is_negative, _) => {
                    if is_negative {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
            }
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.trim_end_matches('Z').cmp(b.trim_end_matches('Z')),
    }
}

impl Session for SqliteSession<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn execute(&self, sql: &str) -> Result<u64, ConnectError> {
        self.driver.execute(sql, []).map(|count| count as u64).map_err(|error| self.failed(error))
    }

    fn rows(&self, sql: &str, count_max: usize) -> Result<Vec<TextRow>, ConnectError> {
        let read = || -> rusqlite::Result<Vec<TextRow>> {
            let mut statement = self.driver.prepare(sql)?;
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let line = |row: &rusqlite::Row<'_>| {
                names.iter().enumerate().map(|(at, name)| Ok((name.clone(), values::text_of(row.get_ref(at)?)))).collect()
            };
            let rows = statement.query_map([], line)?;
            rows.take(count_max).collect()
        };
        read().map_err(|error| self.failed(error))
    }

    fn relation(&self, table: &TableName) -> Result<Option<Relation>, ConnectError> {
        let name = DIALECT.plain_name(table);
        let sql = "select type from sqlite_schema where type in ('table', 'view') and name = ? collate nocase";
        let read = || -> rusqlite::Result<Option<Relation>> {
            let kind: Option<String> = self.driver.query_row(sql, [&name], |row| row.get(0)).optional()?;
            let Some(kind) = kind else { return Ok(None) };
            let mut statement = self.driver.prepare("select name, type from pragma_table_xinfo(?) where hidden <> 1")?;
            let columns = statement.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
            Ok(Some(Relation { kind: RelationKind::view(kind == "view"), columns }))
        };
        read().map_err(|error| failed(ConnectErrorKind::Write, "cannot read the schema", error))
    }

    fn sql_type(&self, data_type: &ArrowType) -> Option<String> {
        values::sql_type(data_type)
    }

    fn keepsakes(&self, table: &TableName) -> Result<Vec<String>, ConnectError> {
        let sql = format!(
            "select sql from sqlite_schema where tbl_name = {} collate nocase and type in ('index', 'trigger') and sql is not null",
            DIALECT.literal(&DIALECT.plain_name(table))
        );
        Ok(self.rows(&sql, usize::MAX)?.into_iter().filter_map(|row| row.into_iter().next()?.1).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_numbers_and_times_compare_by_value() {
        let rising = [
            "-10.00",
            "-9.5",
            "-0.01",
            "0.00",
            "0.5",
            "9.00",
            "10.00",
            "18446744073709551615",
            "2025-01-01T00:00:00Z",
            "2025-01-01T00:00:00.5Z",
            "2025-01-01T00:00:01Z",
        ];
        for (at, low) in rising.iter().enumerate() {
            for (other, high) in rising.iter().enumerate() {
                assert_eq!(compare_exactly(low, high), at.cmp(&other), "{low} {high}");
            }
        }
        assert_eq!(compare_exactly("1.0", "1.00"), Ordering::Equal);
        assert_eq!(compare_exactly("-0", "0"), Ordering::Equal);
    }
}
