//! Pieces of SQL that say the same to old and new servers.

use subak_connect::ConnectError;

use super::tables::{DELETED_COLUMN, LOAD_COLUMN, Name, bare, nullable};
use super::{DIALECT, Server};

/// A column and its type without NULL.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) name: String,
    pub(super) word: String,
}

impl Typed {
    pub(super) fn quoted(&self) -> String {
        DIALECT.identifier(&self.name)
    }
}

/// Columns of a relation without NULL in their types.
pub(super) fn typed(columns: &[(String, String)]) -> Vec<Typed> {
    columns.iter().map(|(name, word)| Typed { name: name.clone(), word: bare(word).to_owned() }).collect()
}

/// Quotes names, with commas between them.
pub(super) fn list(names: &[String]) -> String {
    DIALECT.identifiers(names)
}

pub(super) fn names(columns: &[Typed]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

/// Two numbers that are equal for rows that are equal in these columns, NULLs among them, and for others with no chance worth naming.
pub(super) fn hashes(columns: &[Typed], is_modern: bool) -> [String; 2] {
    let argument = |column: &Typed| {
        let name = column.quoted();
        let is_plain = super::types::Form::of(&column.word).is_some() || column.word == "UUID";
        let filled = if is_plain {
            format!("ifNull({name}, cast({} as {}))", zero(&column.word), column.word)
        } else {
            format!("ifNull(toString({name}), '')")
        };
        // Old servers hash no decimals.
        let filled = if is_modern || !column.word.starts_with("Decimal") { filled } else { format!("toString({filled})") };
        format!("isNull({name}), {filled}")
    };
    let arguments = columns.iter().map(argument).collect::<Vec<_>>().join(", ");
    let arguments = if arguments.is_empty() { "0".to_owned() } else { arguments };
    // `sipHash64` of old servers gives other numbers for the same values, once they come from a column with NULLs.
    let other = if is_modern { format!("sipHash64({arguments})") } else { format!("cityHash64('other', {arguments})") };
    [format!("cityHash64({arguments})"), other]
}

/// A literal that every type of a kind takes.
fn zero(word: &str) -> &'static str {
    match word {
        "UUID" => "'00000000-0000-0000-0000-000000000000'",
        "String" => "''",
        _ => "0",
    }
}

/// Whether a row of the other side equals this one: its hashes are `one` and `other`.
pub(super) fn equal_hashes(own: &[String; 2], one: &str, other: &str) -> String {
    format!("({} = {one} and {} = {other})", own[0], own[1])
}

/// What is written behind `engine =` for tables that are made here.
#[derive(Debug, Clone)]
pub(super) struct Storage<'a> {
    /// Columns that identify a row, for a table with all versions of its rows.
    pub(super) keys: Option<&'a [String]>,
    /// What is declared, where something is.
    pub(super) layout: &'a subak_domain::Layout,
}

impl Storage<'_> {
    /// Columns without NULL: keys, and those that order or divide the table where the server wants that.
    pub(super) fn is_nullable(&self, column: &str, is_modern: bool) -> bool {
        let is_key = self.keys.is_some_and(|keys| keys.iter().any(|key| key == column));
        let parts = [&self.layout.order_by, &self.layout.partition_by].into_iter().flatten();
        // Rows leave by a time that they have.
        let is_timed = self.layout.ttl.as_ref().is_some_and(|ttl| subak_domain::shape::has_word(ttl, column));
        let is_named = parts.into_iter().any(|part| subak_domain::shape::has_word(part, column));
        !is_key && !is_timed && (is_modern || !is_named)
    }

    fn clause(&self, is_modern: bool) -> String {
        let order = match (&self.layout.order_by, self.keys) {
            // Versions of a row find each other by the order, so that of a keyed table is its key.
            (_, Some(keys)) => format!("({})", list(keys)),
            (Some(order), None) => format!("({order})"),
            (None, None) => "tuple()".to_owned(),
        };
        let engine = match (&self.layout.engine, self.keys) {
            (Some(engine), None) => engine.clone(),
            (_, Some(_)) if is_modern => format!("ReplacingMergeTree({LOAD_COLUMN}, {DELETED_COLUMN})"),
            (_, Some(_)) => format!("ReplacingMergeTree({LOAD_COLUMN})"),
            (None, None) => "MergeTree".to_owned(),
        };
        let mut clause = engine;
        if let Some(partition) = &self.layout.partition_by {
            clause.push_str(&format!(" partition by ({partition})"));
        }
        clause.push_str(&format!(" order by {order}"));
        if let Some(ttl) = &self.layout.ttl {
            clause.push_str(&format!(" ttl {ttl}"));
        }
        if is_modern {
            clause.push_str(" settings allow_nullable_key = 1");
        }
        clause
    }
}

impl Server {
    /// Makes a table for the rows of load `number`.
    pub(super) async fn create(
        &self,
        name: &Name,
        columns: &[Typed],
        storage: &Storage<'_>,
        number: u64,
    ) -> Result<(), ConnectError> {
        let is_modern = self.client.is_modern();
        let column = |column: &Typed| {
            let is_nullable = storage.is_nullable(&column.name, is_modern);
            let word = if is_nullable { nullable(&column.word) } else { column.word.clone() };
            format!("{} {word}", column.quoted())
        };
        let mut parts: Vec<String> = columns.iter().map(column).collect();
        if storage.keys.is_some() {
            parts.push(format!("{DELETED_COLUMN} UInt8"));
        }
        parts.push(format!("{LOAD_COLUMN} UInt64 materialized {number}"));
        self.client
            .execute(&format!("create table {} ({}) engine = {}", name.quoted(), parts.join(", "), storage.clause(is_modern)))
            .await
    }

    /// Makes a table for rows of load `number` that will be attached to another one: the same columns in the same order.
    pub(super) async fn create_alike(
        &self,
        name: &Name,
        columns: &[(String, String)],
        engine: &str,
        number: u64,
    ) -> Result<(), ConnectError> {
        let column = |(name, word): &(String, String)| format!("{} {word}", DIALECT.identifier(name));
        let mut parts: Vec<String> = columns.iter().filter(|(name, _)| name != LOAD_COLUMN).map(column).collect();
        parts.push(format!("{LOAD_COLUMN} UInt64 materialized {number}"));
        self.client.execute(&format!("create table {} ({}) engine = {engine}", name.quoted(), parts.join(", "))).await
    }

    /// How many rows there are, and two sums over the hashes of all of them, as one text.
    pub(super) async fn digest(&self, from: &str, columns: &[Typed]) -> Result<String, ConnectError> {
        let [one, other] = hashes(columns, self.client.is_modern());
        let rows = self.client.rows(&format!("select count(), sum({one}), sum({other}), groupBitXor({one}) from {from}")).await?;
        let cells = rows.into_iter().next().unwrap_or_default();
        Ok(cells.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" "))
    }
}
