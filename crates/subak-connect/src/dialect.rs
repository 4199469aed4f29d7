//! How one SQL system writes things: data and small pure functions.

use subak_domain::CheckRule;

/// The SQL of one system.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Its name, as the SQL parser knows it.
    pub name: &'static str,
    /// The character around identifiers.
    pub quote: char,
    /// The comparison that holds for two NULLs too, in the form that the system can look up instead of scanning.
    pub null_safe_equal: &'static str,
    /// Names for the number of a row; one that is no column is used.
    pub row_ids: &'static [&'static str],
}

impl Dialect {
    /// Quotes an identifier, so that any text is exactly one name.
    pub fn identifier(&self, name: &str) -> String {
        let doubled = name.replace(self.quote, &format!("{0}{0}", self.quote));
        format!("{0}{doubled}{0}", self.quote)
    }

    /// Quotes a list of identifiers, with commas between them.
    pub fn identifiers(&self, names: &[String]) -> String {
        names.iter().map(|name| self.identifier(name)).collect::<Vec<_>>().join(", ")
    }

    /// Quotes a text literal.
    pub fn literal(&self, text: &str) -> String {
        format!("'{}'", text.replace('\'', "''"))
    }

    /// The query that returns the rows of `table` (already quoted) which break `rule`.
    pub fn bad_rows(&self, rule: &CheckRule, table: &str) -> String {
        match rule {
            CheckRule::NotNull { columns } => {
                let tests: Vec<String> = columns.iter().map(|column| format!("{} is null", self.identifier(column))).collect();
                format!("select * from {table} where {}", tests.join(" or "))
            }
            CheckRule::Unique { columns } => {
                let list = self.identifiers(columns);
                let tests: Vec<String> =
                    columns.iter().map(|column| format!("{} is not null", self.identifier(column))).collect();
                let tests = tests.join(" and ");
                format!("select {list}, count(*) as row_count from {table} where {tests} group by {list} having count(*) > 1")
            }
            CheckRule::Sql { sql } => sql.replace("{{ this }}", table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect { name: "duckdb", quote: '"', null_safe_equal: "is not distinct from", row_ids: &["rowid"] };

    #[test]
    fn any_text_is_one_name() {
        for (name, quoted) in [("a", "\"a\""), ("a\"; drop table x; --", "\"a\"\"; drop table x; --\""), ("select", "\"select\"")]
        {
            assert_eq!(DIALECT.identifier(name), quoted);
        }
        assert_eq!(DIALECT.literal("it's"), "'it''s'");
    }
}
