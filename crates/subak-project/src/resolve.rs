//! From what files declare to one graph.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::Query;
use subak_diag::{Diagnostic, Sources, codes, nearest};
use subak_domain::graph::GraphError;
use subak_domain::job::TaskWork;
use subak_domain::shape::ColumnRule;
use subak_domain::{
    Asset, AssetGraph, AssetKey, CheckRule, ConnectionName, DataType, Definition, Ingest, Shape, SqlAsset, StandaloneCheck,
    Version, WriteMode,
};

use crate::config::{self, Config, Settings};
use crate::dbt::Manifest;
use crate::declare::{
    self, Common, ExternalDeclaration, FileDeclarations, QueryDeclaration, Scope, SeedDeclaration, StreamDeclaration,
};
use crate::found::lock_path;
use crate::jobs;
use crate::lineage::{self, Catalog, ColumnRef, OutputColumn, OutputColumns};
use crate::sql::{self, ParsedSql};
use crate::template::{self, TemplateValues, physical_name};
use crate::test::TestDeclaration;
use crate::{ConnectorInfo, Content, Files, LoadOptions, Loaded, Loader, Project, partition, shaping, test};

mod dbt;
mod linked;
mod query;
mod reads;
mod script;
mod versions;

use query::{render_query, sql_problem};
use versions::{check_fields, ingest_version, storing_fields, version_of};

/// What one file declares, its SQL parsed. Depends on the file, on `subak.yml` and on nothing else.
#[derive(Debug, Default)]
pub(crate) struct ParsedFile {
    found: FileDeclarations,
    queries: Vec<ParsedQuery>,
    tests: Vec<TestDeclaration>,
    jobs: jobs::Declared,
    /// What dbt says, where the file is a manifest of it; an error where it is meant to be one.
    manifest: Option<Result<Manifest, String>>,
    problems: Vec<Diagnostic>,
}

/// A SQL file, rendered and parsed.
#[derive(Debug)]
struct ParsedQuery {
    declaration: QueryDeclaration,
    /// The SQL, templates rendered.
    rendered: String,
    /// The SQL for a table that is there, where it differs.
    incremental: Option<String>,
    is_templated: bool,
    parsed: Option<ParsedSql>,
    /// The names of its columns, where they follow from the query alone.
    columns: Option<Vec<String>>,
    /// The version of the asset or check.
    version: Version,
}

/// The queries of SQL assets, for lineage.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    files: BTreeMap<AssetKey, (Arc<ParsedFile>, usize)>,
    names: HashMap<String, AssetKey>,
    declared: BTreeMap<AssetKey, BTreeMap<String, DataType>>,
}

pub(crate) fn load(loader: &mut Loader, files: &Files, options: &LoadOptions<'_>) -> Loaded {
    let mut problems = Vec::new();
    let mut sources = Sources::default();
    for (path, content) in files {
        match content {
            Content::Text(text) => sources.insert(Arc::clone(path), Arc::clone(text)),
            Content::Unreadable(why) => {
                let problem =
                    Diagnostic::error(codes::FILE_UNREADABLE, format!("`{path}` cannot be read")).caused_by(why.as_str());
                problems.push(problem.at(path, 0..0, "").help("restore the file or its permissions; save it as UTF-8"));
            }
        }
    }
    let settings = Settings { connectors: options.connectors, environment: options.environment, profile: options.profile };
    let path: Arc<str> = "subak.yml".into();
    let config = match files.get("subak.yml") {
        Some(Content::Text(text)) => {
            let config = config::read(&path, text, &settings, &mut problems);
            let values = template_values(files, options, config.as_ref());
            let key = (Arc::clone(text), options.profile.map(str::to_owned), values);
            if loader.config.as_ref() != Some(&key) {
                loader.parsed.clear();
                loader.config = Some(key);
            }
            config
        }
        Some(Content::Unreadable(_)) => None,
        None => {
            let problem = Diagnostic::error(codes::PROJECT_NOT_FOUND, "there is no `subak.yml`");
            problems.push(problem.help("change into a project, or make one with `subak init`"));
            None
        }
    };
    let Some(config) = config else { return Loaded { project: None, problems, sources, config: None, patterns: Vec::new() } };
    let values = template_values(files, options, Some(&config));

    let parsed = parse_files(loader, files, &config, &settings, &values);
    let mut resolver = Resolver::new(&config, options.connectors, files);
    let (graph, queries) = resolver.resolve(&parsed);
    let tests = resolver.tests(&parsed, graph.as_ref(), &queries, &values);
    let (jobs, sensors) =
        jobs::resolved(parsed.iter().map(|(path, file)| (path, &file.jobs)), graph.as_ref(), &mut resolver.problems);
    problems.append(&mut resolver.problems);
    problems.extend(parsed.iter().flat_map(|(_, file)| file.problems.iter().cloned()));
    sort(&mut problems);
    mask_secrets(&problems, &mut sources);
    let has_errors = problems.iter().any(Diagnostic::is_error);
    let patterns = parsed.iter().flat_map(|(_, file)| file.found.patterns.iter().cloned()).collect();
    let known = Some(config.clone());
    let project = graph.filter(|_| !has_errors).map(|graph| Project {
        config,
        graph: Arc::new(graph),
        queries: Arc::new(queries),
        tests: Arc::new(tests),
        jobs: Arc::new(jobs),
        sensors: Arc::new(sensors),
    });
    Loaded { project, problems, sources, config: known, patterns }
}

/// What every file but `subak.yml` declares. Files that have not changed are not parsed again.
fn parse_files(
    loader: &mut Loader,
    files: &Files,
    config: &Config,
    settings: &Settings<'_>,
    values: &TemplateValues,
) -> Vec<(Arc<str>, Arc<ParsedFile>)> {
    loader.parsed.retain(|path, _| files.contains_key(path));
    let mut parsed: Vec<(Arc<str>, Arc<ParsedFile>)> = Vec::new();
    for (path, content) in files.iter().filter(|(path, _)| &***path != "subak.yml") {
        let Content::Text(text) = content else { continue };
        let lock = files.get(lock_path(path).as_str());
        let file = match loader.parsed.get(path) {
            Some((known, known_lock, file)) if known == content && known_lock.as_ref() == lock => Arc::clone(file),
            _ => {
                let found = match lock {
                    Some(Content::Text(text)) => Some(text.as_ref()),
                    _ => None,
                };
                let file = Arc::new(parse_file(path, text, found, config, settings, values));
                loader.parsed.insert(Arc::clone(path), (content.clone(), lock.cloned(), Arc::clone(&file)));
                file
            }
        };
        parsed.push((Arc::clone(path), file));
    }
    parsed
}

/// A secret that stands in a file is not shown by the frame of the problem that says so, nor by any other.
fn mask_secrets(problems: &[Diagnostic], sources: &mut Sources) {
    for label in problems.iter().filter(|problem| problem.code == codes::LITERAL_SECRET).flat_map(|problem| &problem.labels) {
        let Some(text) = sources.get(&label.path).filter(|text| text.get(label.span.clone()).is_some()) else { continue };
        let masked = format!("{}{}{}", &text[..label.span.start], "*".repeat(label.span.len()), &text[label.span.end..]);
        sources.insert(Arc::clone(&label.path), masked.into());
    }
}

/// By file and place; problems without a place first.
fn sort(problems: &mut [Diagnostic]) {
    problems.sort_by(|a, b| {
        let place = |problem: &Diagnostic| problem.labels.first().map(|label| (Arc::clone(&label.path), label.span.start));
        (place(a), a.code.id, &a.message).cmp(&(place(b), b.code.id, &b.message))
    });
}

fn parse_file(
    path: &Arc<str>,
    text: &str,
    found: Option<&str>,
    config: &Config,
    settings: &Settings<'_>,
    values: &TemplateValues,
) -> ParsedFile {
    let scope = Scope { path, config, settings, found };
    let folder = path.split('/').next().unwrap_or_default();
    let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
    let mut file = ParsedFile::default();
    if crate::dbt::is_manifest(path) {
        file.manifest = Some(Manifest::parse(text));
        return file;
    }
    let mut found = match (folder, ending) {
        ("assets", "yml") => declare::yaml_file(&scope, text),
        ("assets" | "checks", "sql") => declare::sql_file(&scope, text),
        ("assets", ending) if crate::script::ENDINGS.contains(&ending) => crate::script::program_file(&scope, text),
        ("assets", "csv" | "lock") | ("macros", "sql") => FileDeclarations::default(),
        ("jobs", "yml") => {
            file.jobs = jobs::declared(&scope, text, &mut file.problems);
            FileDeclarations::default()
        }
        ("tests", "yml") => {
            file.tests = test::declared(path, text, &mut file.problems);
            FileDeclarations::default()
        }
        _ => {
            let problem = Diagnostic::warning(codes::WRONG_FOLDER, format!("nothing reads `{path}`"));
            let help = "below `assets/` only `.sql`, `.yml`, `.csv`, `.py` and `.sh` files are read, below `checks/` and `macros/` only `.sql` files, below `tests/` and `jobs/` only `.yml` files";
            file.problems.push(problem.at(path, 0..0, "").help(help));
            FileDeclarations::default()
        }
    };
    file.problems.append(&mut found.problems);
    let scripts = found.scripts.iter_mut().flat_map(|script| &mut script.assets);
    let streams = found.streams.iter_mut().chain(scripts).map(|stream| &mut stream.common);
    for common in streams.chain(found.graphs.iter_mut().map(|graph| &mut graph.common)) {
        render_checks(path, common, values, &mut file.problems);
    }
    for mut declaration in std::mem::take(&mut found.queries) {
        render_checks(path, &mut declaration.common, values, &mut file.problems);
        file.queries.extend(parse_query(path, declaration, config, settings, values, &mut file.problems));
    }
    file.found = found;
    file
}

/// Renders the templates in checks: queries, conditions and accepted values.
fn render_checks(path: &Arc<str>, common: &mut Common, values: &TemplateValues, problems: &mut Vec<Diagnostic>) {
    let key = common.key.clone();
    let mut render = |text: &mut String, name: &str| {
        if !text.contains("{{") && !text.contains("{%") {
            return;
        }
        match template::render(text, values, false) {
            Ok(rendered) => *text = rendered.text,
            Err(error) => {
                let cause = error.detail().map_or_else(|| error.to_string(), str::to_owned);
                let message = format!("the template in check `{name}` of `{key}` cannot be rendered");
                problems.push(Diagnostic::error(codes::TEMPLATE, message).at(path, 0..0, "").caused_by(cause));
            }
        }
    };
    for check in &mut common.checks {
        let name = check.name.clone();
        match &mut check.rule {
            CheckRule::Sql { sql } => render(sql, &name),
            CheckRule::AcceptedValues { values, .. } => values.iter_mut().for_each(|value| render(value, &name)),
            _ => {}
        }
        if let Some(filter) = &mut check.filter {
            render(filter, &name);
        }
    }
}

fn dialect_of<'a>(on: &ConnectionName, config: &Config, connectors: &'a [ConnectorInfo]) -> Option<&'a str> {
    let kind = &config.connections.get(on)?.kind;
    connectors.iter().find(|info| info.kind == kind)?.dialect
}

/// The dialect of a query's connection; reports a connection that does not exist or runs no SQL.
fn dialect_or_problem<'a>(
    path: &Arc<str>,
    declaration: &QueryDeclaration,
    config: &Config,
    settings: &Settings<'a>,
    problems: &mut Vec<Diagnostic>,
) -> Option<&'a str> {
    let dialect = dialect_of(&declaration.on, config, settings.connectors);
    if dialect.is_none() {
        if config.connections.contains_key(&declaration.on) {
            let message = format!("connection `{}` does not run SQL", declaration.on);
            problems.push(
                Diagnostic::error(codes::LACKS_ABILITY, message)
                    .at(path, 0..0, "")
                    .help("set `on:` in the header, or `warehouse:` in `subak.yml`"),
            );
        } else {
            let message = format!("there is no connection `{}`", declaration.on);
            problems.push(
                Diagnostic::error(codes::UNKNOWN_CONNECTION, message)
                    .at(path, 0..0, "")
                    .help("declare it under `connections:` in `subak.yml`"),
            );
        }
    }
    dialect
}

fn parse_query(
    path: &Arc<str>,
    declaration: QueryDeclaration,
    config: &Config,
    settings: &Settings<'_>,
    values: &TemplateValues,
    problems: &mut Vec<Diagnostic>,
) -> Option<ParsedQuery> {
    let start = declaration.body_start;
    let whole = start..(start + declaration.body.len()).max(start);
    let dialect = dialect_or_problem(path, &declaration, config, settings, problems)?;
    let is_templated = declaration.body.contains("{{") || declaration.body.contains("{%");
    let kind = config.connections.get(&declaration.on).map(|connection| connection.kind.clone()).unwrap_or_default();
    let values = TemplateValues { kind, ..values.clone() };
    let (rendered, incremental) =
        if is_templated { render_query(path, &declaration, &values, problems)? } else { (declaration.body.clone(), None) };
    let rendered = partition::with_literals(&rendered);
    let incremental = incremental.map(|sql| partition::with_literals(&sql));
    let parsed = match sql::parse(&rendered, dialect) {
        Ok(parsed) => Some(parsed),
        Err(problem) => {
            let place = |at: usize| if is_templated { whole.clone() } else { start + at..start + at };
            let (problem, is_fatal) = sql_problem(problem, &declaration, dialect, place);
            problems.push(Diagnostic {
                labels: problem.labels.into_iter().map(|label| subak_diag::Label { path: Arc::clone(path), ..label }).collect(),
                ..problem
            });
            if is_fatal {
                return None;
            }
            None
        }
    };
    let canonical = sql::canonical(&rendered, dialect);
    let canonical_incremental = incremental.as_ref().map(|sql| sql::canonical(sql, dialect)).unwrap_or_default();
    let rendered = partition::with_marks(&sql::without_end(&rendered, dialect));
    let incremental = incremental.map(|sql| partition::with_marks(&sql::without_end(&sql, dialect)));
    partition::refuse_marks_in_query(path, &declaration, &rendered, problems);
    let columns = parsed.as_ref().and_then(|parsed| lineage::columns(&parsed.query, &Nothing));
    let columns = columns.map(|columns| columns.into_iter().map(|column| column.name).collect());
    let kind = if declaration.check.is_some() { "check" } else { "sql" };
    let fields = [
        ("kind", kind),
        ("on", declaration.on.as_str()),
        ("stored_as", declaration.stored_as.as_str()),
        ("sql", canonical.as_str()),
    ];
    let mut more = check_fields(&declaration.common);
    more.extend(storing_fields(&declaration, &canonical_incremental));
    let version = version_of(&fields, &more);
    Some(ParsedQuery { declaration, rendered, incremental, is_templated, parsed, columns, version })
}

/// Schemas that every system has and no project declares.
const SYSTEM_SCHEMAS: &[&str] = &["information_schema", "pg_catalog", "_subak"];

/// Whether a table belongs to the system: `information_schema.tables`, `duckdb_tables`, `sqlite_master`.
fn is_system(name: &str) -> bool {
    let mut parts = name.split('.').rev();
    let is_view = parts.next().is_some_and(|table| {
        let is_alone = !name.contains('.');
        is_alone && ["duckdb_", "pg_", "sqlite_", "pragma_"].iter().any(|prefix| table.starts_with(prefix))
    });
    is_view || parts.any(|part| SYSTEM_SCHEMAS.contains(&part))
}

/// How the rows of a stream become a table.
fn ingest_of(stream: &StreamDeclaration) -> Ingest {
    Ingest {
        from: stream.from.clone(),
        to: stream.to.clone(),
        stream: stream.stream.clone(),
        mode: stream.mode,
        primary_key: stream.primary_key.clone(),
        cursor: stream.cursor.clone(),
        columns: shaping::source_types(&stream.shape),
        options: stream.options.clone(),
        shape: stream.shape.clone(),
        latest: stream.latest.clone(),
        history: stream.history.clone(),
        layout: stream.layout.clone(),
    }
}

struct Resolver<'a> {
    config: &'a Config,
    connectors: &'a [ConnectorInfo],
    files: &'a Files,
    problems: Vec<Diagnostic>,
    /// Assets by their keys and by the names of their tables.
    names: HashMap<String, AssetKey>,
    /// Where each asset is declared.
    places: BTreeMap<AssetKey, (Arc<str>, Range<usize>)>,
    stored_in: BTreeMap<AssetKey, ConnectionName>,
    /// Where an asset names another, for cycles.
    uses: HashMap<(AssetKey, AssetKey), (Arc<str>, Range<usize>)>,
}

impl<'a> Resolver<'a> {
    fn new(config: &'a Config, connectors: &'a [ConnectorInfo], files: &'a Files) -> Self {
        Self {
            config,
            connectors,
            files,
            problems: Vec::new(),
            names: HashMap::new(),
            places: BTreeMap::new(),
            stored_in: BTreeMap::new(),
            uses: HashMap::new(),
        }
    }

    fn resolve(&mut self, parsed: &[(Arc<str>, Arc<ParsedFile>)]) -> (Option<AssetGraph>, Queries) {
        let mut assets = self.declared(parsed);
        let mut projects = self.declare_dbt(parsed);
        assets.extend(self.dbt_sources(&mut projects));
        for project in &projects {
            assets.extend(self.dbt(project));
        }
        let mut checks: Vec<StandaloneCheck> = Vec::new();
        let mut queries = Queries::default();
        for (path, file) in parsed {
            for script in &file.found.scripts {
                assets.extend(self.script(path, script));
            }
            for graph in &file.found.graphs {
                assets.extend(self.tasks(path, graph));
            }
            for (at, query) in file.queries.iter().enumerate() {
                match &query.declaration.check {
                    Some((name, _)) => {
                        if let Some(other) = checks.iter().find(|check| check.name == *name) {
                            let message = format!("the checks `{}` and `{path}` have one name, `{name}`", other.path);
                            let problem = Diagnostic::error(codes::CHECK_DUPLICATE, message).at(path, 0..0, "");
                            self.problems.push(problem.help("rename one of them"));
                        } else {
                            checks.extend(self.check(path, query));
                        }
                    }
                    None => {
                        let key = &query.declaration.common.key;
                        if self.places.get(key).is_some_and(|(place, _)| place == path) {
                            assets.push(self.query(path, query));
                            queries.files.insert(key.clone(), (Arc::clone(file), at));
                        }
                    }
                }
            }
        }
        queries.declared = assets
            .iter()
            .filter_map(|asset| match &asset.definition {
                Definition::Ingest(ingest) => Some((asset.key.clone(), table_columns(ingest))),
                Definition::Script(script) => script.output.as_ref().map(|output| (asset.key.clone(), table_columns(output))),
                _ => None,
            })
            .collect();
        queries.names.clone_from(&self.names);
        self.refuse_derived_collisions(&assets);
        self.link_checks(&mut assets);
        self.refuse_idle_reads(&assets);
        self.check_columns(&assets, &queries);
        self.lint(&assets, &queries);
        let graph = self.graph(assets, checks);
        self.check_conditions(graph.as_ref());
        (graph, queries)
    }

    /// Enters every asset; those that need nothing of others are returned.
    fn declared(&mut self, parsed: &[(Arc<str>, Arc<ParsedFile>)]) -> Vec<Asset> {
        let mut seeds: BTreeMap<AssetKey, (Arc<str>, &SeedDeclaration)> = BTreeMap::new();
        for (path, file) in parsed {
            for seed in &file.found.seeds {
                seeds.insert(seed.common.key.clone(), (Arc::clone(path), seed));
            }
        }
        let mut assets = Vec::new();
        let subak_yml: Arc<str> = "subak.yml".into();
        for (key, span) in &self.config.external {
            if self.declare(key, &subak_yml, span.clone(), &self.config.warehouse.clone()) {
                assets.push(self.external(key));
            }
        }
        for (path, file) in parsed {
            for external in &file.found.externals {
                if self.declare(&external.common.key, path, external.common.span.clone(), &self.config.warehouse.clone()) {
                    assets.push(Self::observed(path, external));
                }
            }
            for stream in &file.found.streams {
                if self.declare(&stream.common.key, path, stream.common.span.clone(), &stream.to) {
                    assets.push(self.stream(path, stream));
                }
            }
            for stream in file.found.scripts.iter().flat_map(|script| &script.assets) {
                self.declare(&stream.common.key, path, stream.common.span.clone(), &stream.to);
            }
            for graph in &file.found.graphs {
                self.declare(&graph.common.key, path, graph.common.span.clone(), &graph.made.on);
            }
            for query in file.queries.iter().filter(|query| query.declaration.check.is_none()) {
                self.declare(&query.declaration.common.key, path, 0..0, &query.declaration.on);
            }
            if path.ends_with(".csv") {
                assets.extend(self.seed(path, &mut seeds));
            }
        }
        for (key, (path, seed)) in seeds {
            let problem = Diagnostic::error(codes::UNKNOWN_FILE, format!("there is no seed `{key}`"));
            let help = format!("`seed:` describes the CSV file with the same name: `{}`", path.replace(".yml", ".csv"));
            self.problems.push(problem.at(&path, seed.common.span.clone(), "").help(help));
        }
        assets
    }

    /// Enters an asset. `false` when another one has its key or its table already.
    fn declare(&mut self, key: &AssetKey, path: &Arc<str>, span: Range<usize>, on: &ConnectionName) -> bool {
        if let Some((other, other_span)) = self.places.get(key) {
            let problem = Diagnostic::error(codes::DUPLICATE_ASSET, format!("asset `{key}` is declared twice"));
            let problem = problem.at(path, span, "again").at(other, other_span.clone(), "first");
            self.problems.push(problem.help("rename or remove one of them"));
            return false;
        }
        let kind = self.config.connections.get(on).map(|connection| connection.kind.as_str());
        let has_schemas = self.connectors.iter().find(|info| Some(info.kind) == kind).is_none_or(|info| info.has_schemas);
        let table = if has_schemas { physical_name(key) } else { key.as_str().replace('.', "_") };
        let other = self.names.get(&table).filter(|other| *other != key && self.stored_in.get(other) == Some(on)).cloned();
        if let Some(other) = other {
            let problem = Diagnostic::error(
                codes::TABLE_COLLISION,
                format!("assets `{key}` and `{other}` would share the table `{table}`"),
            );
            self.problems.push(problem.at(path, span, "").help("rename one of them"));
            return false;
        }
        self.names.insert(key.as_str().to_owned(), key.clone());
        self.names.entry(table).or_insert_with(|| key.clone());
        self.names.entry(physical_name(key)).or_insert_with(|| key.clone());
        self.places.insert(key.clone(), (Arc::clone(path), span));
        self.stored_in.insert(key.clone(), on.clone());
        true
    }

    fn asset(common: &Common, path: &Arc<str>, definition: Definition, upstream: Vec<AssetKey>, version: Version) -> Asset {
        let group = common.group.clone();
        Asset {
            group: group.unwrap_or_else(|| common.key.as_str().split('.').next().unwrap_or_default().to_owned()),
            key: common.key.clone(),
            definition,
            upstream,
            checks: common.checks.clone(),
            version,
            path: path.to_string(),
            owner: common.owner.clone(),
            tags: common.tags.clone(),
            columns: common.columns.clone(),
            description: common.description.clone(),
            retry: common.retry,
            timeout: common.timeout,
            pools: common.pools.clone(),
            hooks: common.hooks.clone(),
            partitioning: common.partitioning.clone(),
            automation: common.automation.clone(),
            freshness: common.freshness.clone(),
        }
    }

    fn external(&self, key: &AssetKey) -> Asset {
        Asset {
            key: key.clone(),
            definition: Definition::External { observe: None },
            upstream: Vec::new(),
            checks: Vec::new(),
            version: Version::of(&[("kind", "external")]),
            path: "subak.yml".to_owned(),
            group: key.as_str().split('.').next().unwrap_or_default().to_owned(),
            owner: None,
            tags: BTreeSet::new(),
            columns: BTreeMap::new(),
            description: None,
            retry: self.config.retry,
            timeout: self.config.timeout,
            pools: subak_domain::job::PoolSlots::new(),
            hooks: subak_domain::Hooks::default(),
            partitioning: None,
            automation: None,
            freshness: None,
        }
    }

    fn observed(path: &Arc<str>, external: &ExternalDeclaration) -> Asset {
        let observe = external.observe.clone();
        let text = match &observe {
            Some(TaskWork::Run(program)) => program.version_text(),
            observe => format!("{observe:?}"),
        };
        let version = Version::of(&[("kind", "external"), ("observe", &text)]);
        let definition = Definition::External { observe: observe.map(Box::new) };
        Self::asset(&external.common, path, definition, Vec::new(), version)
    }

    fn stream(&self, path: &Arc<str>, stream: &StreamDeclaration) -> Asset {
        let ingest = ingest_of(stream);
        let version = ingest_version("ingest", &ingest, &format!("{:?}", check_fields(&stream.common)));
        Self::asset(&stream.common, path, Definition::Ingest(ingest), Vec::new(), version)
    }

    fn seed(&mut self, path: &Arc<str>, described: &mut BTreeMap<AssetKey, (Arc<str>, &SeedDeclaration)>) -> Option<Asset> {
        let key = match declare::key_of_path(path).parse::<AssetKey>() {
            Ok(key) => key,
            Err(error) => {
                let problem = Diagnostic::error(codes::INVALID_ASSET_KEY, error.to_string()).at(path, 0..0, "");
                self.problems.push(problem.help("the key comes from the path below `assets/`; rename the file or its folder"));
                return None;
            }
        };
        let Some(Content::Text(text)) = self.files.get(path) else { return None };
        let description = described.remove(&key).map(|(_, seed)| seed);
        let to = self.config.warehouse.clone();
        if !self.declare(&key, path, 0..0, &to) {
            return None;
        }
        let header = text.lines().next().unwrap_or_default().trim_start_matches('\u{feff}').trim_end();
        let names: Vec<&str> = header.split(',').map(|name| name.trim().trim_matches('"')).collect();
        let is_unusable = names.iter().any(|name| name.is_empty()) || names.iter().collect::<BTreeSet<_>>().len() < names.len();
        if is_unusable {
            let problem =
                Diagnostic::error(codes::SEED_HEADER, format!("the first line of seed `{key}` does not name its columns"));
            self.problems.push(problem.at(path, 0..header.len(), "").help("every column needs a name of its own"));
            return None;
        }
        for column in description.iter().flat_map(|seed| seed.columns.keys()).filter(|column| !names.contains(&column.as_str())) {
            let problem = Diagnostic::error(codes::UNKNOWN_COLUMN, format!("seed `{key}` has no column `{column}`"));
            let near = nearest(column, names.iter().copied())
                .map_or_else(|| format!("it has {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
            self.problems.push(problem.at(path, 0..header.len(), "its columns").help(near));
        }
        let ingest = Ingest {
            from: ConnectionName::project_files(),
            to,
            stream: path.to_string(),
            mode: WriteMode::Replace,
            primary_key: Vec::new(),
            cursor: None,
            columns: description.map(|seed| seed.columns.clone()).unwrap_or_default(),
            options: BTreeMap::new(),
            shape: seed_shape(description),
            latest: None,
            history: subak_domain::History::default(),
            layout: subak_domain::Layout::default(),
        };
        let checks = description.map(|seed| check_fields(&seed.common)).unwrap_or_default();
        let version = ingest_version("seed", &ingest, &format!("{text}\u{1f}{checks:?}"));
        let plain = Common::new(key, 0..0, self.config);
        let common = description.map_or(&plain, |seed| &seed.common);
        Some(Self::asset(common, path, Definition::Seed(ingest), Vec::new(), version))
    }

    /// The assets that a query reads, sorted. Reports what is not declared.
    fn upstream(&mut self, path: &Arc<str>, query: &ParsedQuery, reader: &str) -> Vec<AssetKey> {
        let declaration = &query.declaration;
        let own = declaration.check.is_none().then(|| declaration.common.key.clone());
        let mut upstream = BTreeSet::new();
        let mut named: Vec<(String, Range<usize>)> = Vec::new();
        for table in query.parsed.iter().flat_map(|parsed| &parsed.tables) {
            let span = if query.is_templated { self.find(path, &table.name) } else { self.shift(declaration, &table.span) };
            named.push((table.name.to_lowercase(), span));
        }
        let listed = declaration.depends_on.iter().flatten();
        named.extend(listed.map(|(key, span)| (key.as_str().to_owned(), span.clone())));
        for (name, span) in named {
            if is_system(&name) {
                continue;
            }
            let Some(key) = self.asset_named(&name) else {
                // What is listed is trusted: the warehouse may know tables that no file declares.
                if declaration.depends_on.as_ref().is_none_or(|listed| listed.iter().any(|(key, _)| key.as_str() == name)) {
                    self.unknown_upstream(path, span, reader, &name);
                }
                continue;
            };
            if own.as_ref() == Some(&key) {
                let problem = Diagnostic::error(codes::SELF_REFERENCE, format!("{reader} reads itself")).at(path, span, "");
                self.problems.push(problem.help("read from the asset upstream of it"));
                continue;
            }
            if self.stored_in.get(&key).is_some_and(|stored| *stored != declaration.on) {
                let message =
                    format!("{reader} runs on `{}`, and `{key}` is stored in `{}`", declaration.on, self.stored_in[&key]);
                let problem = Diagnostic::error(codes::OTHER_CONNECTION, message).at(path, span.clone(), "");
                self.problems.push(problem.help(format!("ingest `{key}` into `{}`, or set `on:` in the header", declaration.on)));
            }
            if let Some(own) = &own {
                self.uses.entry((own.clone(), key.clone())).or_insert((Arc::clone(path), span));
            }
            upstream.insert(key);
        }
        upstream.into_iter().collect()
    }

    /// The asset that a table name means: its key, the name of its table, either behind a catalog, or in the default schema.
    fn asset_named(&self, name: &str) -> Option<AssetKey> {
        let rest = name.split_once('.').map(|(_, rest)| rest);
        let known = self.names.get(name).or_else(|| {
            rest.filter(|rest| rest.contains('.') || name.starts_with("main.")).and_then(|rest| self.names.get(rest))
        });
        known.cloned()
    }

    fn shift(&self, declaration: &QueryDeclaration, span: &Range<usize>) -> Range<usize> {
        span.start + declaration.body_start..span.end + declaration.body_start
    }

    /// Where a name stands in a file whose SQL was rendered.
    fn find(&self, path: &Arc<str>, name: &str) -> Range<usize> {
        let Some(Content::Text(text)) = self.files.get(path) else { return 0..0 };
        text.find(name).map_or(0..0, |at| at..at + name.len())
    }

    fn unknown_upstream(&mut self, path: &Arc<str>, span: Range<usize>, reader: &str, name: &str) {
        let problem = Diagnostic::error(codes::UNKNOWN_UPSTREAM, format!("{reader} reads `{name}`, which no file declares"));
        let problem = problem.at(path, span, "not declared");
        let keys: BTreeSet<&str> = self.places.keys().map(AssetKey::as_str).collect();
        let help = match nearest(name, keys.iter().copied()) {
            Some(near) => {
                let place =
                    near.parse().ok().and_then(|key: AssetKey| self.places.get(&key)).map(|(path, _)| format!(" ({path})"));
                format!("did you mean `{near}`?{}", place.unwrap_or_default())
            }
            None => format!("declare it in `assets/{}.sql`, or list it under `external:` in `subak.yml`", name.replace('.', "/")),
        };
        self.problems.push(problem.help(help));
    }

    fn query(&mut self, path: &Arc<str>, query: &ParsedQuery) -> Asset {
        let declaration = &query.declaration;
        let reader = format!("asset `{}`", declaration.common.key);
        let upstream = self.upstream(path, query, &reader);
        let sql = SqlAsset {
            on: declaration.on.clone(),
            sql: self.rewritten(query),
            stored_as: declaration.stored_as,
            incremental_sql: query.incremental.clone(),
            mode: declaration.mode,
            unique_key: declaration.unique_key.clone(),
            latest: declaration.latest.clone(),
            history: declaration.history.clone(),
            on_schema_change: declaration.on_schema_change,
            surrogate_key: declaration.surrogate_key.clone(),
            layout: declaration.layout.clone(),
        };
        Self::asset(&declaration.common, path, Definition::Sql(sql), upstream, query.version.clone())
    }

    /// The SQL with names of more than two parts replaced by the names of their tables.
    fn rewritten(&self, query: &ParsedQuery) -> String {
        let mut sql = query.rendered.clone();
        let mut tables: Vec<_> =
            query.parsed.iter().flat_map(|parsed| &parsed.tables).filter(|table| table.name.matches('.').count() > 1).collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.span.start));
        for table in tables {
            if let Some(key) = self.names.get(&table.name.to_lowercase())
                && sql.get(table.span.clone()).is_some()
            {
                sql.replace_range(table.span.clone(), &physical_name(key));
            }
        }
        sql
    }

    fn check(&mut self, path: &Arc<str>, query: &ParsedQuery) -> Option<StandaloneCheck> {
        let declaration = &query.declaration;
        let (name, severity) = declaration.check.clone()?;
        let problem_count = self.problems.len();
        let upstream = self.upstream(path, query, &format!("check `{name}`"));
        if upstream.is_empty() && self.problems.len() == problem_count {
            let problem =
                Diagnostic::error(codes::CHECK_READS_NOTHING, format!("check `{name}` reads no asset")).at(path, 0..0, "");
            self.problems.push(problem.help(
                "it is evaluated when an asset that it reads is brought up to date; read one, or list it under `depends_on:`",
            ));
            return None;
        }
        let version = query.version.clone();
        let (path, sql, on) = (path.to_string(), self.rewritten(query), declaration.on.clone());
        Some(StandaloneCheck { name, path, on, sql, upstream, severity, version })
    }

    /// Warns of checks on columns that the query is known not to have.
    fn check_columns(&mut self, assets: &[Asset], queries: &Queries) {
        for asset in assets.iter().filter(|asset| !asset.checks.is_empty() && matches!(asset.definition, Definition::Sql(_))) {
            let Some(columns) = queries.own_columns(&asset.key) else { continue };
            for check in &asset.checks {
                let wanted = check.rule.columns();
                let own = self.keys_of(asset);
                let is_known = |column: &str| columns.iter().chain(&own).any(|known| known.eq_ignore_ascii_case(column));
                for column in wanted.into_iter().filter(|column| !is_known(column)) {
                    let (path, span) = self.places.get(&asset.key).cloned().unwrap_or_else(|| ("".into(), 0..0));
                    let message = format!(
                        "check `{}` of `{}` names the column `{column}`, which its query does not return",
                        check.name, asset.key
                    );
                    let near = nearest(column, columns.iter().map(String::as_str))
                        .map_or_else(|| format!("it returns {}", columns.join(", ")), |near| format!("did you mean `{near}`?"));
                    self.problems.push(Diagnostic::warning(codes::UNKNOWN_COLUMN, message).at(&path, span, "").help(near));
                }
            }
        }
    }

    /// Checks that refer to another asset make it one that is read: it must be there, and up to date, before.
    fn link_checks(&mut self, assets: &mut [Asset]) {
        for asset in assets {
            let wanted: Vec<AssetKey> = asset.checks.iter().filter_map(|check| check.rule.upstream().cloned()).collect();
            for key in wanted.into_iter().filter(|key| *key != asset.key) {
                let (path, span) = self.places.get(&asset.key).cloned().unwrap_or_else(|| ("".into(), 0..0));
                let Some(stored) = self.stored_in.get(&key).cloned() else {
                    let place = self.find(&path, key.as_str());
                    self.unknown_upstream(
                        &path,
                        if place.is_empty() { span } else { place },
                        &format!("a check of `{}`", asset.key),
                        key.as_str(),
                    );
                    continue;
                };
                if asset.stored_in().is_some_and(|own| *own != stored) {
                    let message = format!("a check of `{}` compares it with `{key}`, which is stored in `{stored}`", asset.key);
                    let problem = Diagnostic::error(codes::OTHER_CONNECTION, message).at(&path, span.clone(), "");
                    self.problems.push(problem.help("compare assets of one connection, or use `subak verify`"));
                    continue;
                }
                self.uses.entry((asset.key.clone(), key.clone())).or_insert((path, span));
                if !asset.upstream.contains(&key) {
                    asset.upstream.push(key);
                    asset.upstream.sort();
                }
            }
        }
    }

    /// Columns that a table has beside those that its query returns.
    fn keys_of(&self, asset: &Asset) -> Vec<String> {
        match &asset.definition {
            Definition::Sql(sql) => sql.surrogate_key.iter().map(|key| key.column.clone()).collect(),
            _ => Vec::new(),
        }
    }

    fn graph(&mut self, assets: Vec<Asset>, checks: Vec<StandaloneCheck>) -> Option<AssetGraph> {
        match AssetGraph::new(assets, checks) {
            Ok(graph) => Some(graph),
            Err(errors) => {
                for error in errors {
                    if let GraphError::Cycle { path } = error {
                        self.cycle(&path);
                    }
                }
                None
            }
        }
    }

    fn cycle(&mut self, path: &[AssetKey]) {
        let shown = path.iter().map(AssetKey::as_str).collect::<Vec<_>>().join(" → ");
        let mut problem = Diagnostic::error(codes::CYCLE, format!("assets read each other in a circle: {shown}"));
        for pair in path.windows(2) {
            if let Some((file, span)) = self.uses.get(&(pair[0].clone(), pair[1].clone())) {
                problem = problem.at(file, span.clone(), format!("`{}` reads `{}`", pair[0], pair[1]));
            }
        }
        self.problems.push(problem.help("break the circle at one of these places"));
    }
}

/// The date in the project's time zone.
fn today(now: jiff::Timestamp, config: Option<&Config>) -> String {
    let zone = config.and_then(|config| jiff::tz::TimeZone::get(&config.timezone).ok()).unwrap_or(jiff::tz::TimeZone::UTC);
    now.to_zoned(zone).date().to_string()
}

/// What templates can read, by the files and settings of the project.
fn template_values(files: &Files, options: &LoadOptions<'_>, config: Option<&Config>) -> TemplateValues {
    let mut vars = config.map(|config| config.vars.clone()).unwrap_or_default();
    vars.extend(options.vars.iter().map(|(name, value)| (name.clone(), value.clone())));
    let macros = files.iter().filter_map(|(path, content)| match content {
        Content::Text(text) if path.starts_with("macros/") && path.ends_with(".sql") => {
            Some((path.to_string(), text.to_string()))
        }
        _ => None,
    });
    TemplateValues {
        vars,
        as_of: options.as_of.map_or_else(|| today(options.now, config), str::to_owned),
        profile: options.profile.unwrap_or("default").to_owned(),
        kind: String::new(),
        project: config.map(|config| config.project.clone()).unwrap_or_default(),
        macros: Arc::new(macros.collect()),
    }
}

/// The columns of a stream's table that are declared.
fn table_columns(ingest: &Ingest) -> BTreeMap<String, DataType> {
    let declared = ingest.shape.columns.iter().map(|rule| (rule.name.clone(), rule.data_type.unwrap_or(DataType::Text)));
    let computed = ingest.shape.derive.iter().map(|derived| (derived.name.clone(), DataType::Text));
    declared.chain(computed).collect()
}

/// The columns of a seed as rules, so that values which do not fit are named.
fn seed_shape(seed: Option<&SeedDeclaration>) -> Shape {
    let rule = |(name, data_type): (&String, &DataType)| ColumnRule {
        name: name.clone(),
        from: Vec::new(),
        data_type: Some(*data_type),
        default: None,
        on_reject: None,
        format: None,
    };
    let columns = seed.iter().flat_map(|seed| &seed.columns).map(rule).collect();
    Shape { columns, ..Shape::default() }
}

/// Knows no assets: what a query returns by itself.
struct Nothing;

impl Catalog for Nothing {
    fn asset(&self, _: &str) -> Option<AssetKey> {
        None
    }

    fn columns(&self, _: &AssetKey) -> Option<Vec<String>> {
        None
    }
}

/// What is known about assets while lineage is resolved.
struct Known<'a> {
    queries: &'a Queries,
    columns: &'a BTreeMap<AssetKey, OutputColumns>,
}

impl Catalog for Known<'_> {
    fn asset(&self, name: &str) -> Option<AssetKey> {
        self.queries.names.get(&name.to_lowercase()).cloned()
    }

    fn columns(&self, asset: &AssetKey) -> Option<Vec<String>> {
        let columns = self.columns.get(asset)?.as_ref()?;
        Some(columns.iter().map(|column| column.name.clone()).collect())
    }
}

impl Queries {
    /// The names of a query's columns, where they follow from the query alone.
    fn own_columns(&self, asset: &AssetKey) -> Option<&Vec<String>> {
        let (file, at) = self.files.get(asset)?;
        file.queries[*at].columns.as_ref()
    }

    fn query(&self, asset: &AssetKey) -> Option<&Query> {
        let (file, at) = self.files.get(asset)?;
        Some(&file.queries[*at].parsed.as_ref()?.query)
    }

    pub(crate) fn columns(&self, graph: &AssetGraph, asset: &AssetKey) -> OutputColumns {
        let mut wanted = graph.ancestors(asset, None);
        wanted.insert(asset.clone());
        self.resolve(graph, |key| wanted.contains(key)).remove(asset).flatten()
    }

    pub(crate) fn all_columns(&self, graph: &AssetGraph) -> BTreeMap<AssetKey, OutputColumns> {
        self.resolve(graph, |_| true)
    }

    fn resolve(&self, graph: &AssetGraph, is_wanted: impl Fn(&AssetKey) -> bool) -> BTreeMap<AssetKey, OutputColumns> {
        let mut columns: BTreeMap<AssetKey, OutputColumns> = BTreeMap::new();
        for asset in graph.assets().iter().filter(|asset| is_wanted(&asset.key)) {
            let own = match (&asset.definition, self.query(&asset.key)) {
                (Definition::Sql(_), Some(query)) => lineage::columns(query, &Known { queries: self, columns: &columns }),
                _ => None,
            };
            columns.insert(asset.key.clone(), own);
        }
        // Columns of sources that somebody downstream uses are known to exist, even where nobody declared them.
        let used: BTreeSet<ColumnRef> =
            columns.values().flatten().flatten().flat_map(|column| column.sources.iter().cloned()).collect();
        for (key, slot) in columns.iter_mut().filter(|(_, columns)| columns.is_none()) {
            let declared = self.declared.get(key).into_iter().flat_map(BTreeMap::keys).cloned();
            let names: BTreeSet<String> =
                declared.chain(used.iter().filter(|used| used.asset == *key).map(|used| used.column.clone())).collect();
            if !names.is_empty() {
                *slot = Some(names.into_iter().map(|name| OutputColumn { name, sources: BTreeSet::new() }).collect());
            }
        }
        columns
    }
}
