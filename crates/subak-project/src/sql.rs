//! SQL as far as planning needs it: what a query reads, whether it is one query, and its canonical form.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Query, SetExpr, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::{
    ClickHouseDialect, Dialect, DuckDbDialect, GenericDialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect,
};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, Tokenizer};

/// Most levels of nesting that the parser follows.
const RECURSION_MAX: usize = 60;

/// What is known about a query.
#[derive(Debug, Clone)]
pub(crate) struct ParsedSql {
    /// The query.
    pub(crate) query: Box<Query>,
    /// Every table that it reads, in order of appearance.
    pub(crate) tables: Vec<TableUse>,
}

/// One use of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableUse {
    /// Its name as written, parts joined by dots, quotes removed.
    pub(crate) name: String,
    /// Its place, in bytes from the start of the SQL.
    pub(crate) span: Range<usize>,
}

/// Why SQL is no query of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SqlProblem {
    /// The parser does not follow; the warehouse may. Why, and where in bytes if that is known.
    Unparsed(String, usize),
    /// There is nothing.
    Empty,
    /// There is more than one statement; the second begins here.
    Several(usize),
    /// It is no query.
    NotQuery,
}

fn dialect(name: &str) -> Box<dyn Dialect> {
    match name {
        "duckdb" => Box::new(DuckDbDialect {}),
        "sqlite" => Box::new(SQLiteDialect {}),
        "clickhouse" => Box::new(ClickHouseDialect {}),
        "mysql" => Box::new(MySqlDialect {}),
        _ => Box::new(GenericDialect {}),
    }
}

/// Parses one query in the words of a dialect.
pub(crate) fn parse(sql: &str, dialect_name: &str) -> Result<ParsedSql, SqlProblem> {
    let dialect = dialect(dialect_name);
    let lines = Lines::new(sql);
    let unparsed = |error: &dyn std::fmt::Display| unparsed(&error.to_string(), &lines);
    let tokens = Tokenizer::new(dialect.as_ref(), sql).tokenize_with_location().map_err(|error| unparsed(&error))?;
    let is_text = |token: &&sqlparser::tokenizer::TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
    if !tokens.iter().filter(is_text).any(|token| token.token != Token::SemiColon) {
        return Err(SqlProblem::Empty);
    }
    let mut parser = Parser::new(dialect.as_ref()).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens.clone());
    let mut statements = match parser.parse_statements() {
        Ok(statements) => statements,
        // What one dialect of the parser does not know another may, for example `as materialized`.
        Err(error) => Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|_| unparsed(&error))?,
    };
    if statements.len() > 1 {
        let semicolon = tokens.iter().position(|token| token.token == Token::SemiColon).unwrap_or(0);
        let second = tokens[semicolon + 1..].iter().find(is_text).map_or(0, |token| lines.byte(token.span.start));
        return Err(SqlProblem::Several(second));
    }
    match statements.pop() {
        Some(Statement::Query(query)) => {
            let mut reader = TableReader { lines: &lines, scopes: Vec::new(), ctes: BTreeMap::new(), tables: Vec::new() };
            let _flow: ControlFlow<()> = query.visit(&mut reader);
            Ok(ParsedSql { tables: reader.tables, query })
        }
        Some(_) => Err(SqlProblem::NotQuery),
        None => Err(SqlProblem::Empty),
    }
}

/// The parser's message without its place, which it gives as ` at Line: 2, Column: 7`, and the place in bytes.
fn unparsed(message: &str, lines: &Lines<'_>) -> SqlProblem {
    let place = message.rsplit_once(" at Line: ").and_then(|(text, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((text, Location::new(line.trim().parse().ok()?, column.trim().parse().ok()?)))
    });
    match place {
        Some((text, location)) => SqlProblem::Unparsed(text.replace("sql parser error: ", ""), lines.byte(location)),
        None => SqlProblem::Unparsed(message.replace("sql parser error: ", ""), 0),
    }
}

/// The SQL without comments and white space, keywords in one case. Equal texts mean the same.
pub(crate) fn canonical(sql: &str, dialect_name: &str) -> String {
    let dialect = dialect(dialect_name);
    let Ok(tokens) = Tokenizer::new(dialect.as_ref(), sql).tokenize() else { return sql.trim().to_owned() };
    let mut text = String::with_capacity(sql.len());
    for token in tokens {
        match &token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::Word(word) if word.quote_style.is_none() => text.push_str(&word.value.to_ascii_lowercase()),
            other => text.push_str(&other.to_string()),
        }
        text.push(' ');
    }
    while text.ends_with("; ") {
        text.truncate(text.len() - 2);
    }
    text.trim_end().to_owned()
}

/// The SQL without the semicolons and comments that follow the statement, so that it can stand inside another one.
pub(crate) fn without_end(sql: &str, dialect_name: &str) -> String {
    let dialect = dialect(dialect_name);
    let Ok(tokens) = Tokenizer::new(dialect.as_ref(), sql).tokenize_with_location() else { return sql.trim_end().to_owned() };
    let lines = Lines::new(sql);
    let is_end = |token: &Token| matches!(token, Token::Whitespace(_) | Token::EOF | Token::SemiColon);
    let last = tokens.iter().rev().find(|token| !is_end(&token.token));
    let end = last.map_or(0, |token| lines.byte(token.span.end));
    sql[..end.min(sql.len())].to_owned()
}

/// Turns lines and columns of the tokenizer, which count characters from 1, into bytes.
struct Lines<'a> {
    sql: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(sql: &'a str) -> Self {
        let starts = std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { sql, starts }
    }

    fn byte(&self, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(1).saturating_sub(1);
        let Some(start) = self.starts.get(line).copied() else { return self.sql.len() };
        let column = usize::try_from(location.column).unwrap_or(1).saturating_sub(1);
        self.sql[start..].char_indices().nth(column).map_or(self.sql.len(), |(at, _)| start + at)
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start);
        start..self.byte(span.end).max(start)
    }
}

/// Collects the tables that a query reads, names of common table expressions left out where they are in scope.
struct TableReader<'a> {
    lines: &'a Lines<'a>,
    /// Every name in scope, one set per query that is being visited; the last is that of the innermost.
    scopes: Vec<BTreeSet<String>>,
    /// What the query of a common table expression sees, by the address of that query, until it is visited.
    ctes: BTreeMap<usize, BTreeSet<String>>,
    tables: Vec<TableUse>,
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for TableReader<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        // What is visible from outside: for a common table expression what its `with` says, else what the enclosing query sees.
        let inherited = self.ctes.remove(&address(query));
        let mut visible = inherited.unwrap_or_else(|| self.scopes.last().cloned().unwrap_or_default());
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let own = normalized(&cte.alias.name);
                let mut inside = visible.clone();
                if with.recursive {
                    inside.insert(own.clone());
                }
                self.ctes.insert(address(&cte.query), inside);
                visible.insert(own);
            }
        }
        self.scopes.push(visible);
        self.read_table_commands(&query.body);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor
            && let Some(table) = self.table(name)
        {
            self.tables.push(table);
        }
        ControlFlow::Continue(())
    }
}

impl TableReader<'_> {
    /// `table x` is a query of its own, and no table factor.
    fn read_table_commands(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                let is_cte = table.schema_name.is_none()
                    && self.scopes.last().is_some_and(|visible| visible.contains(&name.to_lowercase()));
                if !is_cte {
                    let name = table.schema_name.iter().cloned().chain([name]).collect::<Vec<_>>().join(".");
                    self.tables.push(TableUse { name, span: 0..0 });
                }
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.read_table_commands(left);
                self.read_table_commands(right);
            }
            _ => {}
        }
    }

    fn table(&self, name: &ObjectName) -> Option<TableUse> {
        let parts = idents(name)?;
        // A file in quotes, as DuckDB reads it, is no table.
        if parts.iter().any(|part| part.quote_style == Some('\'')) || is_file(&parts) {
            return None;
        }
        if let [only] = parts.as_slice()
            && self.scopes.last().is_some_and(|visible| visible.contains(&normalized(only)))
        {
            return None;
        }
        let span = self.lines.range(parts.first()?.span).start..self.lines.range(parts.last()?.span).end;
        Some(TableUse { name: parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join("."), span })
    }
}

/// Whether a quoted name is a file that DuckDB would read: `from "data/x.csv"`.
fn is_file(parts: &[&Ident]) -> bool {
    let [only] = parts else { return false };
    let name = only.value.to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let has_ending = [".csv", ".tsv", ".json", ".ndjson", ".jsonl", ".parquet"].iter().any(|ending| name.ends_with(ending));
    only.quote_style.is_some() && (has_ending || name.contains('/'))
}

/// The identifiers of a name; `None` when a part is a function call.
pub(crate) fn idents(name: &ObjectName) -> Option<Vec<&Ident>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(ident),
            ObjectNamePart::Function(_) => None,
        })
        .collect()
}

/// An identifier as it compares: case does not matter in the systems that we speak.
pub(crate) fn normalized(ident: &Ident) -> String {
    ident.value.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_tables(sql: &str, expect: &str) {
        let parsed =
            parse(sql, "duckdb").map(|parsed| parsed.tables.iter().map(|table| table.name.clone()).collect::<Vec<_>>().join(" "));
        assert_eq!(parsed, Ok(expect.to_owned()), "{sql}");
        for table in parse(sql, "duckdb").expect("parsed").tables {
            assert_eq!(
                sql[table.span.clone()].replace('"', ""),
                if table.span.is_empty() { "" } else { &table.name },
                "the place of {}",
                table.name
            );
        }
    }

    #[test]
    fn tables_are_found_wherever_they_are() {
        assert_tables("select 1", "");
        assert_tables("select * from silver.t", "silver.t");
        assert_tables("from silver.t", "silver.t");
        assert_tables("select é from \"silver\".\"t\" a join gold.u using (id)", "silver.t gold.u");
        assert_tables(
            "select * from a, (select * from b) x where exists (select 1 from c where c.id in (select id from d))",
            "a b c d",
        );
        assert_tables("select * from a union all select * from b", "a b");
        assert_tables("select (select max(x) from b) from a", "b a");
        assert_tables("select * from range(3), read_csv('x.csv'), 'y.csv', \"z.csv\", \"/data/z\"", "");
        assert_tables("with c as (table silver.t) select * from c", "silver.t");
    }

    #[test]
    fn common_table_expressions_are_no_tables() {
        assert_tables("with x as (select * from a) select * from x", "a");
        assert_tables("with x as (select * from a), y as (select * from x) select * from y join b on true", "a b");
        assert_tables("with orders as (select * from orders) select * from orders", "orders");
        assert_tables("with recursive n as (select 1 union all select * from n) select * from n", "");
        assert_tables("with x as (select 1) select * from (select * from x) where exists (select * from x)", "");
    }

    #[test]
    fn what_is_no_query_is_told() {
        for (sql, expect) in [
            ("", SqlProblem::Empty),
            (" -- nothing\n;", SqlProblem::Empty),
            ("select 1; select 2", SqlProblem::Several(10)),
            ("drop table t", SqlProblem::NotQuery),
        ] {
            assert_eq!(parse(sql, "duckdb").map(drop), Err(expect), "{sql}");
        }
        assert!(matches!(parse("selec 1", "duckdb"), Err(SqlProblem::Unparsed(..))));
        assert!(matches!(parse(&"(".repeat(10_000), "duckdb"), Err(SqlProblem::Unparsed(..))));
    }

    #[test]
    fn canonical_form_drops_what_does_not_matter() {
        let one = canonical("SELECT a, 'X' FROM T -- note\n;", "duckdb");
        assert_eq!(one, canonical("select  a,'X'\nfrom t /* other */", "duckdb"));
        assert_ne!(one, canonical("select a, 'x' from t", "duckdb"));
        assert_ne!(canonical("select \"A\" from t", "duckdb"), canonical("select \"a\" from t", "duckdb"));
        assert_eq!(without_end("select 1 -- note\n ; -- more\n", "duckdb"), "select 1");
    }
}
