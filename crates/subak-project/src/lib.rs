//! Turns file *contents* into a resolved asset graph plus all diagnostics. Owns the YAML keys, SQL parsing, column lineage and
//! the editor schema.
//!
//! Deliberately not here: reading files, the environment, connecting to anything. Loading never stops at the first problem: what
//! can be read is read, and everything that is wrong comes back at once.

mod automation;
mod checks;
mod config;
mod dbt;
mod declare;
mod decode;
pub mod found;
mod freshness;
mod hooks;
mod jobs;
pub mod keys;
pub mod lineage;
pub mod partition;
mod reference;
mod resolve;
pub mod schema;
mod script;
mod shaping;
mod sql;
mod template;
pub mod test;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use subak_diag::{Diagnostic, Sources};
use subak_domain::config::ConfigSchema;
pub use subak_domain::config::{Field, FieldKind};
use subak_domain::{AssetGraph, AssetKey, Job, Sensor, StoredAs};
pub use subak_domain::{DataType, Writes};

pub use config::{Config, ConnectionDeclaration, ReceiverDeclaration, Retention};
pub use dbt::named_files;
pub use lineage::{ColumnRef, OutputColumn, OutputColumns};
pub use reference::{InvalidReference, Part, Template, Unresolved};

pub use subak_domain::key::PROJECT_FILES;

/// What a kind of connection can do and be configured with, handed in as data.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an ability of its own")]
pub struct ConnectorInfo {
    /// The word after `type:`.
    pub kind: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its keys.
    pub config: ConfigSchema,
    /// Whether streams can be read from it.
    pub is_source: bool,
    /// How tables can be written to it.
    pub writes: Writes,
    /// The dialect of its SQL, if it runs SQL.
    pub dialect: Option<&'static str>,
    /// As what it keeps the results of queries.
    pub stores_as: &'static [StoredAs],
    /// Whether its tables have schemas; without, `a.b` and `a_b` are one table.
    pub has_schemas: bool,
    /// Whether it runs statements of the user's own.
    pub runs_statements: bool,
    /// Whether files can be listed there.
    pub lists_files: bool,
}

/// The contents of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Its text.
    Text(Arc<str>),
    /// Why it has none.
    Unreadable(String),
}

/// The files of a project by path, relative to it, with `/` between parts.
pub type Files = BTreeMap<Arc<str>, Content>;

/// What loading takes besides files.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// The connectors of this build.
    pub connectors: &'a [ConnectorInfo],
    /// Environment variables that references may name.
    pub environment: &'a BTreeMap<String, String>,
    /// The profile to lay over the settings.
    pub profile: Option<&'a str>,
    /// The time that counts as now for templates (`{{ as_of }}`), as wall-clock text; `None` is today in the project's time zone.
    pub as_of: Option<&'a str>,
    /// The time.
    pub now: jiff::Timestamp,
    /// Values that take the place of those under `vars:`.
    pub vars: &'a BTreeMap<String, String>,
}

/// What loading gives.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The project; `None` when an error keeps it from being used.
    pub project: Option<Project>,
    /// Everything that is wrong, by file and place.
    pub problems: Vec<Diagnostic>,
    /// The texts into which problems point.
    pub sources: Sources,
    /// The settings, even when other files have errors.
    pub config: Option<Config>,
    /// Patterns that name streams, by file; even those that cannot be resolved yet.
    pub patterns: Vec<found::StreamPattern>,
}

impl Loaded {
    /// Whether a problem is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Diagnostic::is_error)
    }
}

/// A project that holds together.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its settings.
    pub config: Config,
    /// Its assets and checks.
    pub graph: Arc<AssetGraph>,
    queries: Arc<resolve::Queries>,
    tests: Arc<Vec<test::ProjectTest>>,
    jobs: Arc<Vec<Job>>,
    sensors: Arc<Vec<Sensor>>,
}

impl Project {
    /// The columns of an asset and what each is made from, as far as that is known.
    pub fn columns(&self, asset: &AssetKey) -> OutputColumns {
        self.queries.columns(&self.graph, asset)
    }

    /// Its jobs, by file and place.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Its sensors, by file and place.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// Its tests, by file and place.
    pub fn tests(&self) -> &[test::ProjectTest] {
        &self.tests
    }

    /// The columns of every asset. Cheaper than asking for each.
    pub fn all_columns(&self) -> BTreeMap<AssetKey, OutputColumns> {
        self.queries.all_columns(&self.graph)
    }
}

/// What the parsing of every file depends on: `subak.yml`, the profile, what templates read.
type ConfigKey = (Arc<str>, Option<String>, template::TemplateValues);

/// Loads projects, and keeps what unchanged files declared from one load to the next.
#[derive(Debug, Default)]
pub struct Loader {
    config: Option<ConfigKey>,
    /// By path: the text, and that of the file of found streams beside it.
    parsed: HashMap<Arc<str>, (Content, Option<Content>, Arc<resolve::ParsedFile>)>,
}

impl Loader {
    /// Loads the project. Files that have not changed since the last call are not parsed again.
    pub fn load(&mut self, files: &Files, options: &LoadOptions<'_>) -> Loaded {
        resolve::load(self, files, options)
    }
}

/// Loads a project once.
pub fn load(files: &Files, options: &LoadOptions<'_>) -> Loaded {
    Loader::default().load(files, options)
}

/// The first document of a YAML file of somebody else's: mappings, lists, and texts. `true`, `false` and `null` are what they say, and every other plain
/// value stays its text. The error is what is wrong first, with its line.
pub fn yaml_value(text: &str) -> Result<serde_json::Value, String> {
    let path: Arc<str> = "".into();
    let mut problems = Vec::new();
    let documents = yaml::parse(&path, text, &mut problems);
    if let Some(problem) = problems.iter().find(|problem| problem.is_error()) {
        let line = problem.labels.first().map_or(1, |label| text[..label.span.start.min(text.len())].lines().count().max(1));
        return Err(format!("line {line}: {}", problem.message));
    }
    Ok(documents.first().map_or(serde_json::Value::Null, plain_value))
}

/// The value as JSON: numbers that are not quoted are numbers.
fn json_value(node: &yaml::Node) -> serde_json::Value {
    use serde_json::Value;
    match &node.value {
        yaml::Value::Scalar { text, is_plain: true } => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Value::Number(number),
            Err(_) => plain_value(node),
        },
        yaml::Value::List(items) => items.iter().map(json_value).collect(),
        yaml::Value::Map(entries) => {
            entries.iter().map(|(name, node)| (name.text.clone(), json_value(node))).collect::<serde_json::Map<_, _>>().into()
        }
        _ => plain_value(node),
    }
}

fn plain_value(node: &yaml::Node) -> serde_json::Value {
    use serde_json::Value;
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Scalar { text, is_plain: true } if text == "true" || text == "false" => Value::Bool(text == "true"),
        yaml::Value::Scalar { text, .. } => Value::from(text.as_str()),
        yaml::Value::List(items) => items.iter().map(plain_value).collect(),
        yaml::Value::Map(entries) => {
            entries.iter().map(|(name, node)| (name.text.clone(), plain_value(node))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}
