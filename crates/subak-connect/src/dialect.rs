//! How one SQL system writes things: data and small pure functions.

use arrow::datatypes::DataType;
use subak_domain::{AssetKey, CheckRule, StoredAs};

use crate::sink::LiveRows;
use crate::{Audit, SlicePart, TableName};

/// Where a backslash escapes what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// It stands for itself.
    Nowhere,
    /// In literals.
    Literals,
    /// In literals and in quoted names.
    Everywhere,
}

/// How statements are written that change rows by other rows, and some others on which systems disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// With subqueries and `update … from`.
    Standard,
    /// With joins, because a subquery must not read what the statement changes. Windows tell long texts apart by their first bytes only, and
    /// NULLs have no place of their own in an order.
    MySql,
}

/// The SQL of one system.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Its name, as the SQL parser knows it.
    pub name: &'static str,
    /// How it writes what systems disagree on.
    pub family: Family,
    /// The character around identifiers.
    pub quote: char,
    /// The comparison that holds for two NULLs too, in the form that the system can look up instead of scanning; empty where there is none.
    pub null_safe_equal: &'static str,
    /// Where a backslash escapes what follows.
    pub escapes: Escapes,
    /// A `{value}` as text; NULL stays NULL.
    pub text: &'static str,
    /// Whether a subquery may name columns of the query around it.
    pub correlates: bool,
    /// What stands behind an expression so that decimals, unsigned integers and times with a zone compare by their values, where the
    /// system keeps them as texts.
    pub exact_order: &'static str,
    /// Names for the number of a row; one that is no column is used.
    pub row_ids: &'static [&'static str],
    /// A column with which a stage numbers its rows in the order of their arrival, where the system's own numbers are in another order.
    pub row_column: Option<(&'static str, &'static str)>,
    /// The condition that the whole of `{value}` matches the regular expression `{pattern}`, a quoted literal.
    pub matches: &'static str,
    /// The function that finds one text in another: its place from 1, or 0.
    pub position: &'static str,
    /// Whether tables live in schemas; where not, schema and name are joined by an underscore.
    pub has_schemas: bool,
    /// The schema of tables that name none; empty where the connection says it.
    pub schema_default: &'static str,
    /// As what it keeps the results of queries; empty where it builds none.
    pub stores_as: &'static [StoredAs],
}

impl Dialect {
    /// Quotes an identifier, so that any text is exactly one name.
    pub fn identifier(&self, name: &str) -> String {
        let quoted = if self.escapes == Escapes::Everywhere {
            name.replace('\\', "\\\\").replace(self.quote, &format!("\\{}", self.quote))
        } else {
            name.replace(self.quote, &format!("{0}{0}", self.quote))
        };
        format!("{0}{quoted}{0}", self.quote)
    }

    /// A column as it is compared in an order, by the type of its values.
    pub fn ordered(&self, expression: &str, data_type: &DataType) -> String {
        let is_text = matches!(data_type, DataType::Decimal128(..) | DataType::UInt64 | DataType::Timestamp(_, Some(_)));
        format!("{expression}{}", if is_text { self.exact_order } else { "" })
    }

    /// A term of an `order by`.
    pub fn order(&self, expression: &str, is_descending: bool, nulls_first: bool) -> String {
        let direction = if is_descending { "desc" } else { "asc" };
        match self.family {
            Family::Standard => format!("{expression} {direction} nulls {}", if nulls_first { "first" } else { "last" }),
            Family::MySql => {
                format!("{expression} is null {}, {expression} {direction}", if nulls_first { "desc" } else { "asc" })
            }
        }
    }

    /// Columns for the `partition by` of a window, with the system's words for their types.
    pub fn partition(&self, columns: &[(String, String)]) -> String {
        let is_long = |word: &str| {
            let word = word.to_ascii_lowercase();
            self.family == Family::MySql && ["text", "blob", "char", "binary"].iter().any(|part| word.contains(part))
        };
        let column = |(name, word): &(String, String)| {
            let name = self.identifier(name);
            if is_long(word) { format!("sha2({name}, 256)") } else { name }
        };
        columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    /// Deletes the rows of `table` whose `row_id` is among those that `query` returns in a column `__subak_row`; it may read the table.
    pub fn delete_rows(&self, table: &str, row_id: &str, query: &str) -> String {
        match self.family {
            Family::Standard => format!("delete from {table} where {row_id} in ({query})"),
            Family::MySql => {
                format!("delete o from {table} as o join ({query}) as __subak_found on o.{row_id} = __subak_found.__subak_row")
            }
        }
    }

    /// Deletes the rows of `table` whose values in `columns` are those of `others` in some row of `other`.
    pub fn delete_same(&self, table: &str, columns: &[String], other: &str, others: &[String]) -> String {
        match self.family {
            Family::Standard => format!(
                "delete from {table} where ({}) in (select {} from {other})",
                self.identifiers(columns),
                self.identifiers(others)
            ),
            Family::MySql => {
                let pairs = columns.iter().zip(others);
                let same = pairs.map(|(one, other)| format!("o.{} = s.{}", self.identifier(one), self.identifier(other)));
                format!("delete o from {table} as o join {other} as s on {}", same.collect::<Vec<_>>().join(" and "))
            }
        }
    }

    /// Sets quoted columns of the rows of `table` for which `condition` holds with a row of `from`, which has an alias. Both know the table
    /// by its name.
    pub fn update_from(&self, table: &str, assignments: &[(&str, String)], from: &str, condition: &str) -> String {
        let list = assignments.iter().map(|(column, value)| match self.family {
            Family::Standard => format!("{column} = {value}"),
            Family::MySql => format!("{table}.{column} = {value}"),
        });
        let list = list.collect::<Vec<_>>().join(", ");
        match self.family {
            Family::Standard => format!("update {table} set {list} from {from} where {condition}"),
            Family::MySql => format!("update {table} join {from} on {condition} set {list}"),
        }
    }

    /// The condition that holds for rows which are no deletions.
    pub fn live(&self, rows: &LiveRows) -> String {
        let column = self.identifier(&rows.operation);
        let words = rows.deleted_when.iter().map(|word| self.literal(word)).collect::<Vec<_>>().join(", ");
        format!("{column} is null or lower({column}) not in ({words})")
    }

    /// Gives a column of a table another type.
    pub fn change_type(&self, table: &str, column: &str, word: &str) -> String {
        let column = self.identifier(column);
        match self.family {
            Family::Standard => format!("alter table {table} alter column {column} type {word}"),
            Family::MySql => format!("alter table {table} modify column {column} {word}"),
        }
    }

    /// Quotes a list of identifiers, with commas between them.
    pub fn identifiers(&self, names: &[String]) -> String {
        names.iter().map(|name| self.identifier(name)).collect::<Vec<_>>().join(", ")
    }

    /// Quotes a text literal.
    pub fn literal(&self, text: &str) -> String {
        let quoted = match self.escapes {
            Escapes::Nowhere => text.replace('\'', "''"),
            Escapes::Literals => text.replace('\\', "\\\\").replace('\'', "''"),
            Escapes::Everywhere => text.replace('\\', "\\\\").replace('\'', "\\'"),
        };
        format!("'{quoted}'")
    }

    /// An expression as text.
    pub fn text_of(&self, expression: &str) -> String {
        self.text.replace("{value}", expression)
    }

    /// Whether two expressions are equal, or both NULL.
    pub fn same(&self, one: &str, other: &str) -> String {
        if self.null_safe_equal.is_empty() {
            return format!("(coalesce({one} = {other}, 1 = 0) or ({one} is null and {other} is null))");
        }
        format!("({one} {} {other})", self.null_safe_equal)
    }

    /// The condition that one column of a row says that it belongs to a part of a table. `word` is the system's word for the type of its column, `is_instant` whether that
    /// column holds moments and not times of a clock.
    pub fn slice(&self, slice: &SlicePart, word: &str, is_instant: bool) -> String {
        let column = self.identifier(&slice.column);
        let has_time = word.to_ascii_lowercase().contains("time");
        // A day is no moment, whatever is asked for.
        let is_instant = is_instant && (has_time || !word.to_ascii_lowercase().contains("date"));
        let typed = |text: &str| {
            let is_day = word.to_ascii_lowercase().contains("date") && !has_time;
            // A day is a day, also where its midnight is left out by the clock.
            let text = if is_day { text.get(..10).unwrap_or(text) } else { text };
            // Texts compare as they are kept: moments as `2026-11-21T15:00:00Z`.
            if self.name == "sqlite" {
                let time = if text.len() == 10 { " 00:00:00" } else { "" };
                let moment = || format!("{text}{time}").replacen(' ', "T", 1);
                return self.literal(&if is_instant { moment() } else { text.to_owned() });
            }
            let text = if has_time && text.len() == "2026-11-21".len() { format!("{text} 00:00:00") } else { text.to_owned() };
            let zoned =
                if is_instant && self.name != "mysql" && self.name != "clickhouse" { format!("{text}+00:00") } else { text };
            let literal = self.literal(&zoned);
            match self.name {
                "mysql" => literal,
                // Not in the zone of the server: both kinds of times show UTC.
                "clickhouse" if word.starts_with("DateTime64") => format!("toDateTime64({literal}, 6, 'UTC')"),
                "clickhouse" if word.starts_with("DateTime") => format!("toDateTime({literal}, 'UTC')"),
                _ => format!("cast({literal} as {word})"),
            }
        };
        match &slice.of.window {
            None if self.name == "mysql" || self.name == "sqlite" => format!("{column} = {}", self.literal(&slice.of.key)),
            None => format!("{column} = cast({} as {word})", self.literal(&slice.of.key)),
            Some(window) => {
                let (start, end) = if is_instant { (&window.start_utc, &window.end_utc) } else { (&window.start, &window.end) };
                format!("({column} >= {} and {column} < {})", typed(start), typed(end))
            }
        }
    }

    /// The quoted name of a table.
    pub fn table(&self, table: &TableName) -> String {
        if self.has_schemas {
            match table.schema.as_deref().unwrap_or(self.schema_default) {
                "" => self.identifier(&table.name),
                schema => format!("{}.{}", self.identifier(schema), self.identifier(&table.name)),
            }
        } else {
            self.identifier(&self.plain_name(table))
        }
    }

    /// `schema.table` or `table`, as streams are named, quoted. A dot inside a name cannot be written; such tables can be reached by a view.
    pub fn stream(&self, stream: &str) -> String {
        if !self.has_schemas {
            return self.identifier(stream);
        }
        stream.splitn(2, '.').map(|part| self.identifier(part)).collect::<Vec<_>>().join(".")
    }

    /// The name of a table where there are no schemas.
    pub fn plain_name(&self, table: &TableName) -> String {
        match &table.schema {
            Some(schema) => format!("{schema}_{}", table.name),
            None => table.name.clone(),
        }
    }

    /// A number as it is, everything else as a text literal: numbers must not compare as texts.
    fn value(&self, text: &str) -> String {
        let is_number = text.parse::<f64>().is_ok_and(f64::is_finite) && !text.starts_with('+');
        if is_number { text.to_owned() } else { self.literal(text) }
    }

    /// The query that returns the rows of `table` (already quoted, or a subquery) which break the statement. A schema is compared
    /// elsewhere and has no query.
    pub fn bad_rows(&self, audit: &Audit, table: &str) -> String {
        let filtered = match &audit.filter {
            Some(filter) => format!("(select * from {table} as t where {filter}) as __subak_rows"),
            None => format!("{table} as __subak_rows"),
        };
        match &audit.rule {
            CheckRule::Sql { sql } => sql.replace("{{ this }}", table),
            CheckRule::NotNull { columns } => {
                let tests: Vec<String> = columns.iter().map(|column| format!("{} is null", self.identifier(column))).collect();
                format!("select * from {filtered} where {}", tests.join(" or "))
            }
            CheckRule::Unique { columns } => {
                let list = self.identifiers(columns);
                let tests = self.all_not_null(columns);
                format!("select {list}, count(*) as row_count from {filtered} where {tests} group by {list} having count(*) > 1")
            }
            CheckRule::AcceptedValues { column, values } => {
                let column = self.identifier(column);
                let list = values.iter().map(|value| self.literal(value)).collect::<Vec<_>>().join(", ");
                format!("select * from {filtered} where {column} is not null and {} not in ({list})", self.text_of(&column))
            }
            CheckRule::Range { column, min, max } => {
                let column = format!("{}{}", self.identifier(column), self.exact_order);
                let low = min.iter().map(|min| format!("{column} < {}", self.value(min)));
                let high = max.iter().map(|max| format!("{column} > {}", self.value(max)));
                format!("select * from {filtered} where {}", low.chain(high).collect::<Vec<_>>().join(" or "))
            }
            CheckRule::Pattern { column, pattern } => {
                let column = self.identifier(column);
                let value = self.text_of(&column);
                let test = self.matches.replace("{value}", &value).replace("{pattern}", &self.literal(pattern));
                format!("select * from {filtered} where {column} is not null and not ({test})")
            }
            CheckRule::Relationships { columns, to, to_columns } => self.orphans(columns, to, to_columns, &filtered),
            CheckRule::RowCount { min, max } => {
                let low = min.iter().map(|min| format!("count(*) < {min}"));
                let high = max.iter().map(|max| format!("count(*) > {max}"));
                let tests = low.chain(high).collect::<Vec<_>>().join(" or ");
                format!("select count(*) as row_count from {filtered} having {tests}")
            }
            CheckRule::Freshness { column, age_seconds_max } => {
                let column = self.identifier(column);
                let oldest = oldest(&audit.now, *age_seconds_max);
                let newest = format!("replace(substr({}, 1, 19), 'T', ' ')", self.text_of(&format!("max({column})")));
                format!(
                    "select max({column}) as newest from {filtered} having max({column}) is null or {newest} < {} \
                     or {newest} not like '____-__-__%'",
                    self.literal(&oldest)
                )
            }
            CheckRule::Reconcile { with, measures, with_filter } => {
                self.differences(with, measures, with_filter.as_deref(), &filtered)
            }
            CheckRule::Schema { .. } => "select 1 where 1 = 0".to_owned(),
        }
    }

    /// Rows whose key is not in `to`.
    fn orphans(&self, columns: &[String], to: &AssetKey, to_columns: &[String], filtered: &str) -> String {
        if !self.correlates {
            return format!(
                "select * from {filtered} where {} and ({}) not in (select {} from {} where {})",
                self.all_not_null(columns),
                self.identifiers(columns),
                self.identifiers(to_columns),
                self.table(&TableName::of(to)),
                self.all_not_null(to_columns)
            );
        }
        let pairs: Vec<String> = columns
            .iter()
            .zip(to_columns)
            .map(|(own, theirs)| format!("__subak_to.{} = __subak_rows.{}", self.identifier(theirs), self.identifier(own)))
            .collect();
        format!(
            "select * from {filtered} where {} and not exists (select 1 from {} as __subak_to where {})",
            self.all_not_null(columns),
            self.table(&TableName::of(to)),
            pairs.join(" and ")
        )
    }

    /// Measures that give something else over `with`.
    fn differences(&self, with: &AssetKey, measures: &[String], with_filter: Option<&str>, filtered: &str) -> String {
        let other = self.table(&TableName::of(with));
        let other = match with_filter {
            Some(filter) => format!("(select * from {other} as t where {filter}) as __subak_with"),
            None => other,
        };
        let parts: Vec<String> = measures
            .iter()
            .map(|measure| {
                format!(
                    "select {} as measure, (select {text} from {filtered}) as here, (select {text} from {other}) as there",
                    self.literal(measure),
                    text = self.text_of(measure)
                )
            })
            .collect();
        format!("select * from ({}) as __subak_measures where not {}", parts.join(" union all "), self.same("here", "there"))
    }

    fn all_not_null(&self, columns: &[String]) -> String {
        columns.iter().map(|column| format!("{} is not null", self.identifier(column))).collect::<Vec<_>>().join(" and ")
    }
}

/// The wall-clock text `seconds` before `now`; as far back as dates go when that is before them.
fn oldest(now: &str, seconds: u64) -> String {
    let micros = crate::convert::parse_datetime(now).unwrap_or(0);
    let earlier =
        i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000)).and_then(|age| micros.checked_sub(age));
    let text = earlier.and_then(crate::convert::format_datetime).unwrap_or_else(|| "0001-01-01 00:00:00".to_owned());
    text.get(..19).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect {
        name: "duckdb",
        family: Family::Standard,
        quote: '"',
        null_safe_equal: "is not distinct from",
        escapes: Escapes::Nowhere,
        text: "cast({value} as varchar)",
        correlates: true,
        exact_order: "",
        row_ids: &["rowid"],
        row_column: None,
        matches: "regexp_full_match({value}, {pattern})",
        position: "instr",
        has_schemas: true,
        schema_default: "main",
        stores_as: StoredAs::USUAL,
    };

    #[test]
    fn any_text_is_one_name() {
        for (name, quoted) in [("a", "\"a\""), ("a\"; drop table x; --", "\"a\"\"; drop table x; --\""), ("select", "\"select\"")]
        {
            assert_eq!(DIALECT.identifier(name), quoted);
        }
        assert_eq!(DIALECT.literal("it's"), "'it''s'");
    }

    #[test]
    fn numbers_compare_as_numbers() {
        assert_eq!(DIALECT.value("10.5"), "10.5");
        assert_eq!(DIALECT.value("2024-01-01"), "'2024-01-01'");
        assert_eq!(DIALECT.value("nan"), "'nan'");
    }

    #[test]
    fn ages_count_back_from_now() {
        assert_eq!(oldest("2025-03-01 00:00:00.5", 86_400), "2025-02-28 00:00:00");
        assert_eq!(oldest("2025-03-01 00:00:00", u64::MAX), "0001-01-01 00:00:00");
    }

    #[test]
    fn slices_compare_in_the_type_of_their_column() {
        use subak_domain::partition::{Partition, Window};
        let text = |text: &str| text.to_owned();
        let window = Window {
            start: text("2024-04-26 01:00:00"),
            end: text("2024-04-27"),
            start_utc: text("2024-04-25 22:00:00"),
            end_utc: text("2024-04-26 21:00:00"),
        };
        let of = Partition { window: Some(window), ..Partition::of_key("2024-04-26") };
        let slice = SlicePart { column: text("d"), of };
        for (word, is_instant, expected) in [
            ("DATE", false, "(\"d\" >= cast('2024-04-26' as DATE) and \"d\" < cast('2024-04-27' as DATE))"),
            ("DATE", true, "(\"d\" >= cast('2024-04-26' as DATE) and \"d\" < cast('2024-04-27' as DATE))"),
            (
                "TIMESTAMP",
                false,
                "(\"d\" >= cast('2024-04-26 01:00:00' as TIMESTAMP) and \"d\" < cast('2024-04-27 00:00:00' as TIMESTAMP))",
            ),
            (
                "TIMESTAMPTZ",
                true,
                "(\"d\" >= cast('2024-04-25 22:00:00+00:00' as TIMESTAMPTZ) and \"d\" < cast('2024-04-26 21:00:00+00:00' as TIMESTAMPTZ))",
            ),
        ] {
            assert_eq!(DIALECT.slice(&slice, word, is_instant), expected, "{word} {is_instant}");
        }
        let key = SlicePart { of: Partition::of_key("it's"), ..slice };
        assert_eq!(DIALECT.slice(&key, "TEXT", false), "\"d\" = cast('it''s' as TEXT)");
    }
}
