//! `subak test`: unit tests of assets, on a database in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::json;
use subak_connect::batch::OPEN_SCHEMA;
use subak_connect::connector::find;
use subak_connect::memory::Memory;
use subak_connect::{
    BuildRequest, Commit, ConnectError, ConnectErrorKind, Connection, ConnectionConfig, OpenRequest, RowPrograms, TableName,
    convert,
};
use subak_connectors::{CONNECTORS, DuckDbPrograms};
use subak_diag::{Diagnostic, codes};
use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, ConnectionName, DataType, Definition, LoadId, Reason, RunEvent, RunId, StepId, StoredAs,
    Work,
};
use subak_engine::{Connections, DataExecutor, Inputs, Place, Progress, Reporter, StepExecutor, StopSignal};
use subak_project::Project;
use subak_project::test::{ProjectTest, SOURCE, THIS, TestRow, TestValue};

use super::Context;
use crate::args::TestArgs;
use crate::exit::{CliError, Exit, diagnostic_of};
use crate::open;
use crate::printer::{Table, Tone};
use crate::project::{Opened, as_of};
use crate::redact::Redactor;

/// Differing rows that a failed test shows.
const SHOWN_COUNT: usize = 5;

pub(super) fn execute(context: &Context<'_>, args: &TestArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let is_wanted = |test: &&ProjectTest| {
        args.filter.is_empty() || args.filter.iter().any(|text| test.name.contains(text) || test.asset.as_str().contains(text))
    };
    let tests: Vec<&ProjectTest> = opened.project.tests().iter().filter(is_wanted).collect();
    if tests.is_empty() {
        context.printer.note("no tests; `subak docs tests` shows how to write one");
        return Ok(Exit::Ok);
    }
    let mut table = Table::new("tests", &["test", "asset", "verdict", "file"]);
    let mut problems = Vec::new();
    context.block_on(async {
        for test in &tests {
            let zone = &opened.project.config.timezone;
            let now = as_of(test.as_of.as_deref().or(context.global.as_of.as_deref()), zone);
            let failed = match run(context, &opened, test, &now).await {
                Ok(differences) if differences.is_empty() => None,
                Ok(differences) => {
                    let message = format!("test `{}` of `{}` failed", test.name, test.asset);
                    let mut problem = Diagnostic::error(codes::TEST_FAILED, message).at(&test.path, test.span.clone(), "");
                    for line in differences {
                        problem = problem.caused_by(line);
                    }
                    Some(problem.help("correct the query or the expectation"))
                }
                Err(mut problem) => {
                    problem.message = format!("test `{}` of `{}`: {}", test.name, test.asset, problem.message);
                    problem.data = None;
                    Some(problem.at(&test.path, test.span.clone(), ""))
                }
            };
            let (tone, word) = if failed.is_some() { (Tone::Bad, "failed") } else { (Tone::Good, "passed") };
            let is_human = context.printer.format == crate::args::Format::Human;
            let word = if is_human { context.printer.tone(tone, word) } else { word.to_owned() };
            table.rows.push(vec![json!(test.name), json!(test.asset.as_str()), json!(word), json!(test.path.as_ref())]);
            problems.extend(failed);
        }
        Ok(())
    })?;
    context.printer.table(&table);
    context.printer.problems(&problems, &opened.sources);
    context.printer.note(&format!("{} tests passed, {} failed", tests.len() - problems.len(), problems.len()));
    Ok(if problems.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// The connections of a test: one database in memory for every destination, given rows for every source.
struct TestConnections {
    database: Arc<dyn Connection>,
    source: Arc<dyn Connection>,
    from: Option<ConnectionName>,
}

#[async_trait]
impl Connections for TestConnections {
    fn resolve(&self, text: &str, _: &mut dyn FnMut(&str) -> String) -> Result<String, ConnectError> {
        Ok(text.to_owned())
    }

    async fn open(&self, name: &ConnectionName) -> Result<Arc<dyn Connection>, ConnectError> {
        Ok(Arc::clone(if self.from.as_ref() == Some(name) { &self.source } else { &self.database }))
    }

    async fn folder(&self, path: &Path) -> Result<Arc<dyn Connection>, ConnectError> {
        open::folder(Path::new("."), path).await
    }

    fn programs(&self) -> Arc<dyn RowPrograms> {
        Arc::new(DuckDbPrograms)
    }
}

/// Nobody watches.
pub(super) struct Silent;

impl Reporter for Silent {
    fn event(&self, _: RunId, _: &RunEvent) {}
    fn progress(&self, _: &Progress) {}
}

/// Runs one test. Returns what differs; empty when it passes.
async fn run(context: &Context<'_>, opened: &Opened, test: &ProjectTest, now: &str) -> Result<Vec<String>, Diagnostic> {
    let project = &opened.project;
    let failed = |error: ConnectError| diagnostic_of(&subak_engine::failure::of_connect(&error, ""));
    let missing = || Diagnostic::error(codes::TEST_INVALID, "the asset is not there any more");
    let asset = project.graph.get(&test.asset).ok_or_else(missing)?;
    let mut config = ConnectionConfig::default();
    config.values.insert("path".into(), ":memory:".into());
    let request = OpenRequest { name: "test".into(), config, temporary: PathBuf::from("."), ..OpenRequest::default() };
    let connector = find(CONNECTORS, "duckdb").ok_or_else(missing)?;
    let database = connector.open(request).await.map_err(failed)?;
    give(&database, project, asset, test).await?;
    let memory = Memory::default();
    let mut from = None;
    if let Definition::Ingest(ingest) | Definition::Seed(ingest) = &asset.definition {
        from = Some(ingest.from.clone());
        memory.set_stream(&ingest.stream, texts(test.given.get(SOURCE).map(Vec::as_slice).unwrap_or_default()));
    }
    let connections = TestConnections { database: Arc::clone(&database), source: Arc::new(memory), from };
    let graph = AssetGraph::new(vec![plain(asset, test)], Vec::new()).map_err(|_| missing())?;
    let executor = DataExecutor {
        graph: Arc::new(graph),
        connections: Arc::new(connections),
        reporter: Arc::new(Silent),
        as_of: now.to_owned(),
        timezone: jiff::tz::TimeZone::UTC,
        place: open::place(opened, context.settings, Redactor::default(), Place::default().outbound).apart(),
        invocations: subak_engine::Invocations::default(),
    };
    let action = Action {
        step: StepId::asset(&asset.key),
        work: Work::Materialize { asset: asset.key.clone(), full_refresh: false, range: None, partition: None },
        reason: Reason::Selected,
        needs: Vec::new(),
        rule: subak_domain::Rule::default(),
    };
    let run = RunId::from_parts(u64::try_from(convert::parse_datetime(now).unwrap_or(0) / 1000).unwrap_or(0), 1);
    executor
        .execute(run, &action, &Inputs::default(), &StopSignal::default())
        .await
        .map_err(|failure| diagnostic_of(&failure))?;
    let found = table_rows(database.as_ref(), &asset.key).await.map_err(failed)?;
    compare(&found, &test.expect).map_err(|problem| *problem)
}

/// The asset without what a test does not need: checks that read other tables, and connections of its own.
fn plain(asset: &Asset, test: &ProjectTest) -> Asset {
    let mut asset = asset.clone();
    asset.checks.clear();
    asset.upstream.clear();
    if let (Definition::Sql(sql), Some((full, incremental))) = (&mut asset.definition, &test.sql) {
        sql.sql.clone_from(full);
        sql.incremental_sql.clone_from(incremental);
    }
    asset
}

/// Makes the tables that the asset reads, and its own where rows are given for it.
async fn give(database: &Arc<dyn Connection>, project: &Project, asset: &Asset, test: &ProjectTest) -> Result<(), Diagnostic> {
    let failed = |error: ConnectError| diagnostic_of(&subak_engine::failure::of_connect(&error, ""));
    let backend = database.sql().ok_or_else(|| Diagnostic::error(codes::INTERNAL, "tests need a database that runs SQL"))?;
    let mut tables: Vec<(AssetKey, &[TestRow])> = Vec::new();
    for upstream in &asset.upstream {
        tables.push((upstream.clone(), test.given.get(upstream.as_str()).map(Vec::as_slice).unwrap_or_default()));
    }
    if let Some(rows) = test.given.get(THIS) {
        tables.push((asset.key.clone(), rows));
    }
    for (at, (key, rows)) in tables.into_iter().enumerate() {
        let known = declared(project, &key);
        let Some(sql) = rows_sql(rows, &known) else {
            let message = format!("no rows are given for `{key}`, and its columns are not known");
            return Err(Diagnostic::error(codes::TEST_INVALID, message).help("give it at least one row, or declare its columns"));
        };
        let request = BuildRequest {
            load: LoadId::new(RunId::from_parts(0, at as u128 + 1), &StepId::asset(&key), "given"),
            table: TableName::of(&key),
            sql,
            stored_as: StoredAs::Table,
            incremental: None,
            surrogate_key: None,
            layout: subak_domain::Layout::default(),
            at: "1970-01-01 00:00:00".to_owned(),
        };
        backend.build(request).await.map_err(failed)?.publish(Commit::default()).await.map_err(failed)?;
    }
    Ok(())
}

/// The columns of an asset with their types, as far as they are known.
fn declared(project: &Project, key: &AssetKey) -> BTreeMap<String, Option<DataType>> {
    let mut columns: BTreeMap<String, Option<DataType>> =
        project.columns(key).into_iter().flatten().map(|column| (column.name, None)).collect();
    if let Some(Definition::Ingest(ingest) | Definition::Seed(ingest)) = project.graph.get(key).map(|asset| &asset.definition) {
        let rules = ingest.shape.columns.iter().map(|rule| (rule.name.clone(), rule.data_type));
        columns.extend(rules);
    }
    columns
}

/// Rows as a query. `None` when there are no rows and no column is known.
fn rows_sql(rows: &[TestRow], known: &BTreeMap<String, Option<DataType>>) -> Option<String> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if rows.is_empty() {
        names.extend(known.keys());
    }
    if names.is_empty() {
        return None;
    }
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let cast = |name: &str, literal: String| match known.get(name).copied().flatten() {
        Some(data_type) => format!("cast({literal} as {})", sql_type(data_type)),
        None => literal,
    };
    let select = |row: &TestRow| {
        let item = |name: &&String| {
            let value = row.iter().find(|(known, _)| known == *name).map_or(&TestValue::Null, |(_, value)| value);
            format!("{} as {}", cast(name, literal(value)), quoted(name))
        };
        format!("select {}", names.iter().map(item).collect::<Vec<_>>().join(", "))
    };
    if rows.is_empty() {
        let items: Vec<String> =
            names.iter().map(|name| format!("{} as {}", cast(name, "null".to_owned()), quoted(name))).collect();
        return Some(format!("select {} where false", items.join(", ")));
    }
    Some(rows.iter().map(select).collect::<Vec<_>>().join(" union all "))
}

/// A type in the words of the database in memory.
fn sql_type(data_type: DataType) -> String {
    match data_type {
        DataType::UnsignedBigInt => "ubigint".to_owned(),
        DataType::Text | DataType::Json | DataType::Uuid => "varchar".to_owned(),
        DataType::Bytes => "blob".to_owned(),
        DataType::DateTime => "timestamp".to_owned(),
        DataType::Timestamp => "timestamptz".to_owned(),
        other => other.to_string(),
    }
}

/// A value as a literal: what has no quotes is what it looks like.
fn literal(value: &TestValue) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match value {
        TestValue::Null => "null".to_owned(),
        TestValue::Text(text) => quoted(text),
        TestValue::Plain(text) if text == "true" || text == "false" => text.clone(),
        TestValue::Plain(text) if is_number(text) => text.clone(),
        TestValue::Plain(text) if text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() => {
            format!("date {}", quoted(text))
        }
        TestValue::Plain(text) if text.len() > 10 && convert::parse_datetime(text).is_some() => {
            format!("timestamp {}", quoted(text))
        }
        TestValue::Plain(text) => quoted(text),
    }
}

/// Whether a text is a plain number. A leading zero makes it a text.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(whole) && is_digits(fraction) && (whole.len() == 1 || !whole.starts_with('0'))
}

/// Rows of a source: texts, as a file would hold them.
fn texts(rows: &[TestRow]) -> RecordBatch {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let column = |name: &&String| -> ArrayRef {
        let text = |row: &TestRow| match row.iter().find(|(known, _)| known == *name).map(|(_, value)| value) {
            None | Some(TestValue::Null) => None,
            Some(TestValue::Text(text) | TestValue::Plain(text)) => Some(text.clone()),
        };
        Arc::new(rows.iter().map(text).collect::<StringArray>())
    };
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name.as_str(), ArrowType::Utf8, true)).collect();
    let schema =
        Schema::new_with_metadata(fields, std::collections::HashMap::from([(OPEN_SCHEMA.to_owned(), "true".to_owned())]));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(schema), names.iter().map(column).collect(), &options)
        .unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(Schema::empty())))
}

type Row = BTreeMap<String, Option<String>>;

async fn table_rows(database: &dyn Connection, key: &AssetKey) -> Result<Vec<Row>, ConnectError> {
    let none = || ConnectError::new(ConnectErrorKind::Internal, "tests need a database that runs SQL");
    let backend = database.sql().ok_or_else(none)?;
    let sql = format!("select * from {}", backend.dialect().table(&TableName::of(key)));
    let mut batches = backend.query(&sql);
    let mut rows = Vec::new();
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let value = |at: usize| {
                let array = batch.column(at);
                (batch.schema().field(at).name().clone(), (!array.is_null(row)).then(|| convert::text_at(array, row)))
            };
            rows.push((0..batch.num_columns()).map(value).collect());
        }
    }
    Ok(rows)
}

/// What differs, as lines for people. Only columns that the expectation names are compared; the order of rows is not.
fn compare(found: &[Row], expect: &[TestRow]) -> Result<Vec<String>, Box<Diagnostic>> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in expect.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if let (Some(first), Some(missing)) =
        (found.first(), names.iter().find(|name| found.first().is_some_and(|row| !row.contains_key(**name))))
    {
        let message = format!("the result has no column `{missing}`");
        let known = first.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Box::new(Diagnostic::error(codes::TEST_INVALID, message).help(format!("it has {known}"))));
    }
    let line = |values: &[Option<String>]| {
        let part = |(name, value): (&&String, &Option<String>)| format!("{name}: {}", value.as_deref().unwrap_or("null"));
        names.iter().zip(values).map(part).collect::<Vec<_>>().join(", ")
    };
    let found_rows =
        found.iter().map(|row| names.iter().map(|name| row.get(*name).cloned().flatten().map(|text| canonical(&text))).collect());
    let expected_rows = expect.iter().map(|row| {
        let value = |name: &&String| match row.iter().find(|(known, _)| known == *name).map(|(_, value)| value) {
            None | Some(TestValue::Null) => None,
            Some(TestValue::Text(text) | TestValue::Plain(text)) => Some(canonical(text)),
        };
        names.iter().map(value).collect()
    });
    let mut counts: BTreeMap<Vec<Option<String>>, i64> = BTreeMap::new();
    let mut found_rows: Vec<Vec<Option<String>>> = found_rows.collect();
    found_rows.sort();
    for row in &found_rows {
        *counts.entry(row.clone()).or_insert(0) += 1;
    }
    for row in expected_rows {
        *counts.entry(row).or_insert(0) -= 1;
    }
    let mut lines: Vec<String> = Vec::new();
    for (row, count) in counts.iter().filter(|(_, count)| **count != 0) {
        let what = if *count > 0 { "came out and is not expected" } else { "is expected and did not come out" };
        let times = if count.unsigned_abs() > 1 { format!(" ({} times)", count.unsigned_abs()) } else { String::new() };
        lines.push(format!("{what}{times}: {}", line(row)));
    }
    if lines.len() > SHOWN_COUNT {
        let more = lines.len() - SHOWN_COUNT;
        lines.truncate(SHOWN_COUNT);
        lines.push(format!("and {more} more"));
    }
    Ok(lines)
}

/// A value in one spelling: numbers without zeros at their end, times with a blank and without midnight.
fn canonical(text: &str) -> String {
    if is_number(text) && text.contains('.') {
        let short = text.trim_end_matches('0').trim_end_matches('.');
        return if short == "-0" { "0".to_owned() } else { short.to_owned() };
    }
    match convert::parse_datetime(text).filter(|_| text.len() > 10).and_then(convert::format_datetime) {
        Some(time) => time.strip_suffix(" 00:00:00").map_or(time.clone(), str::to_owned),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_look_like() {
        let plain = |text: &str| literal(&TestValue::Plain(text.to_owned()));
        assert_eq!(plain("007"), "'007'");
        assert_eq!(plain("1.50"), "1.50");
        assert_eq!(plain("2025-01-31"), "date '2025-01-31'");
        assert_eq!(plain("2025-01-31 10:00:00"), "timestamp '2025-01-31 10:00:00'");
        assert_eq!(literal(&TestValue::Text("1".into())), "'1'");
        assert_eq!(canonical("1.500"), canonical("1.5"));
        assert_eq!(canonical("2025-01-31T00:00:00"), "2025-01-31");
    }
}
