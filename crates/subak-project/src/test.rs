//! Unit tests of assets: rows that are given, rows that are expected. They need no warehouse.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use subak_diag::{Diagnostic, codes};
use subak_domain::AssetKey;

use crate::decode::{self, Context, Fields, text};
use crate::keys;
use crate::yaml::{self, Node, Value};

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestValue {
    /// NULL.
    Null,
    /// Text in quotes: a text.
    Text(String),
    /// Text without quotes: a number, a date, a time, a boolean or a text, as it looks.
    Plain(String),
}

/// One row: its columns in the order of the file.
pub type TestRow = Vec<(String, TestValue)>;

/// The rows that stand for the source of an ingest.
pub const SOURCE: &str = "source";

/// The rows that the table of the asset holds before.
pub const THIS: &str = "this";

/// A test that fits the project.
#[derive(Debug, Clone)]
pub struct ProjectTest {
    /// Its name.
    pub name: String,
    /// The file that declares it.
    pub path: Arc<str>,
    /// Where in the file.
    pub span: Range<usize>,
    /// The asset under test.
    pub asset: AssetKey,
    /// Rows by the name of what is read: the key of an asset, [`SOURCE`] or [`THIS`].
    pub given: BTreeMap<String, Vec<TestRow>>,
    /// Rows that come out.
    pub expect: Vec<TestRow>,
    /// The time that counts as now.
    pub as_of: Option<String>,
    /// The query with the variables and the time of this test; `None` where the asset has none, or the test says nothing of its own.
    pub sql: Option<(String, Option<String>)>,
}

/// A test as its file declares it.
#[derive(Debug, Clone)]
pub(crate) struct TestDeclaration {
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
    pub(crate) asset: AssetKey,
    pub(crate) asset_span: Range<usize>,
    pub(crate) given: Vec<(String, Range<usize>, Vec<TestRow>)>,
    pub(crate) expect: Vec<TestRow>,
    pub(crate) as_of: Option<String>,
    pub(crate) vars: BTreeMap<String, String>,
}

/// The tests of one file, each a document.
pub(crate) fn declared(path: &Arc<str>, source: &str, problems: &mut Vec<Diagnostic>) -> Vec<TestDeclaration> {
    let documents = yaml::parse(path, source, problems);
    let mut context = Context { path, offset: 0, problems };
    let documents = documents.iter().filter(|node| node.value != Value::Null);
    documents.filter_map(|node| test(node, &mut context)).collect()
}

fn test(node: &Node, context: &mut Context<'_>) -> Option<TestDeclaration> {
    let fields = Fields::of(node, keys::TEST_FILE, &[], "the test", context)?;
    let asset_node = fields.get("asset")?;
    let asset = decode::asset_key(text(asset_node, "`asset`", context)?, asset_node, context)?;
    let mut given = Vec::new();
    for (name, node) in fields.named("given", context) {
        given.push((name.text.clone(), name.span.clone(), rows(node, &format!("the rows of `{}`", name.text), context)?));
    }
    let mut vars = BTreeMap::new();
    for (name, node) in fields.named("vars", context) {
        vars.insert(name.text.clone(), text(node, &format!("variable `{}`", name.text), context)?.to_owned());
    }
    Some(TestDeclaration {
        name: fields.text("test", context)?.to_owned(),
        span: fields.name("test").map_or(0..0, |name| name.span.clone()),
        asset,
        asset_span: asset_node.span.clone(),
        given,
        expect: rows(fields.get("expect")?, "`expect`", context)?,
        as_of: fields.text("as_of", context).map(str::to_owned),
        vars,
    })
}

fn rows(node: &Node, what: &str, context: &mut Context<'_>) -> Option<Vec<TestRow>> {
    let items = match &node.value {
        Value::Null => return Some(Vec::new()),
        Value::List(items) => items,
        _ => {
            context.wrong_shape(node, what, "a list of mappings");
            return None;
        }
    };
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let Value::Map(entries) = &item.value else {
            context.wrong_shape(item, &format!("an entry of {what}"), "a mapping from column to value");
            return None;
        };
        let value = |node: &Node| match &node.value {
            Value::Null => TestValue::Null,
            Value::Scalar { text, is_plain: true } => TestValue::Plain(text.clone()),
            Value::Scalar { text, .. } => TestValue::Text(text.clone()),
            // A list or a mapping stands for the JSON that a source would hold.
            nested => TestValue::Text(json(nested)),
        };
        rows.push(entries.iter().map(|(name, node)| (name.text.clone(), value(node))).collect());
    }
    Some(rows)
}

/// A YAML value as JSON.
fn json(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Scalar { text, is_plain } => {
            let is_json = *is_plain && serde_json::from_str::<serde_json::Value>(text).is_ok();
            if is_json { text.clone() } else { serde_json::Value::from(text.as_str()).to_string() }
        }
        Value::List(items) => format!("[{}]", items.iter().map(|item| json(&item.value)).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let part = |(name, node): &(yaml::Name, Node)| {
                format!("{}:{}", serde_json::Value::from(name.text.as_str()), json(&node.value))
            };
            format!("{{{}}}", entries.iter().map(part).collect::<Vec<_>>().join(","))
        }
    }
}

/// The problem of a test that does not fit the project.
pub(crate) fn misfit(path: &Arc<str>, span: &Range<usize>, message: String, help: String) -> Diagnostic {
    Diagnostic::error(codes::TEST_INVALID, message).at(path, span.clone(), "").help(help)
}
