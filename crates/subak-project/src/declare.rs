//! Declarations of assets and checks, file by file. What other files say takes no part here, so the result of a file can be kept
//! until the file changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use subak_diag::{Diagnostic, codes};
use subak_domain::asset::TaskGraph;
use subak_domain::job::{PoolSlots, TaskWork};
use subak_domain::shape::{Contract, OnReject};
use subak_domain::write::Tie;
use subak_domain::{
    AssetKey, Automation, Check, ConnectionName, CursorRule, DataType, History, Hooks, Lag, Latest, Layout, NullCursor,
    Partitioning, Retry, SchemaChange, Severity, Shape, StoredAs, SurrogateKey, WriteMode, Writes,
};
use subak_domain::{FreshnessPolicy, Notifications};

use crate::ConnectorInfo;
use crate::config::{Config, ReceiverDeclaration, Settings, connection_ref};
use crate::dbt::DbtDeclaration;
use crate::decode::{self, Context, Fields, text};
use crate::found::{self, FoundAt, FoundStream, StreamPattern};
use crate::reference::Template;
use crate::script::ScriptDeclaration;
use crate::yaml::{self, Name, Node, Value};
use crate::{automation, checks, dbt, freshness, hooks, jobs, keys, partition, script, shaping};

/// What one file declares.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileDeclarations {
    pub(crate) streams: Vec<StreamDeclaration>,
    pub(crate) seeds: Vec<SeedDeclaration>,
    pub(crate) queries: Vec<QueryDeclaration>,
    pub(crate) scripts: Vec<ScriptDeclaration>,
    pub(crate) dbts: Vec<DbtDeclaration>,
    pub(crate) externals: Vec<ExternalDeclaration>,
    pub(crate) graphs: Vec<GraphDeclaration>,
    /// Patterns that name streams.
    pub(crate) patterns: Vec<StreamPattern>,
    pub(crate) problems: Vec<Diagnostic>,
}

/// An asset that something outside keeps up to date.
#[derive(Debug, Clone)]
pub(crate) struct ExternalDeclaration {
    pub(crate) common: Common,
    pub(crate) observe: Option<TaskWork>,
}

/// An asset that tasks make.
#[derive(Debug, Clone)]
pub(crate) struct GraphDeclaration {
    pub(crate) common: Common,
    pub(crate) made: TaskGraph,
    pub(crate) depends_on: Vec<(AssetKey, Range<usize>)>,
}

/// What every asset has.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) key: AssetKey,
    /// Where its name stands.
    pub(crate) span: Range<usize>,
    pub(crate) checks: Vec<Check>,
    pub(crate) description: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) tags: BTreeSet<String>,
    /// What columns mean, for people.
    pub(crate) columns: BTreeMap<String, String>,
    pub(crate) retry: Retry,
    pub(crate) timeout: Duration,
    pub(crate) pools: PoolSlots,
    pub(crate) hooks: Hooks,
    pub(crate) partitioning: Option<Partitioning>,
    pub(crate) automation: Option<Automation>,
    pub(crate) freshness: Option<FreshnessPolicy>,
    /// Whether it says anything of partitions, be it wrong.
    pub(crate) says_partition: bool,
    /// The project's time zone.
    pub(crate) timezone: String,
    /// The pools that the project has.
    pub(crate) known_pools: Arc<PoolSlots>,
    /// Who can be told things.
    pub(crate) receivers: Arc<BTreeMap<String, ReceiverDeclaration>>,
    /// Who is told where nobody is named.
    pub(crate) told: Arc<Notifications>,
}

/// A stream that becomes an asset.
#[derive(Debug, Clone)]
pub(crate) struct StreamDeclaration {
    pub(crate) common: Common,
    pub(crate) from: ConnectionName,
    pub(crate) to: ConnectionName,
    pub(crate) stream: String,
    pub(crate) mode: WriteMode,
    pub(crate) primary_key: Vec<String>,
    pub(crate) cursor: Option<CursorRule>,
    pub(crate) shape: Shape,
    pub(crate) latest: Option<Latest>,
    pub(crate) history: History,
    pub(crate) layout: Layout,
    pub(crate) options: BTreeMap<String, String>,
}

/// Types and checks of a seed; the file itself is found by its ending.
#[derive(Debug, Clone)]
pub(crate) struct SeedDeclaration {
    pub(crate) common: Common,
    pub(crate) columns: BTreeMap<String, DataType>,
}

/// A SQL file: an asset, or a standalone check.
#[derive(Debug, Clone)]
pub(crate) struct QueryDeclaration {
    /// The asset's parts; a check uses only some.
    pub(crate) common: Common,
    /// The check's name, when it is one.
    pub(crate) check: Option<(String, Severity)>,
    pub(crate) on: ConnectionName,
    pub(crate) stored_as: StoredAs,
    pub(crate) mode: WriteMode,
    pub(crate) unique_key: Vec<String>,
    pub(crate) latest: Option<Latest>,
    pub(crate) history: History,
    pub(crate) on_schema_change: SchemaChange,
    pub(crate) surrogate_key: Option<SurrogateKey>,
    pub(crate) layout: Layout,
    pub(crate) depends_on: Option<Vec<(AssetKey, Range<usize>)>>,
    /// The SQL behind the header, and where it begins.
    pub(crate) body: String,
    pub(crate) body_start: usize,
}

/// Where a file stands and what holds for all files.
pub(crate) struct Scope<'a> {
    pub(crate) path: &'a Arc<str>,
    pub(crate) config: &'a Config,
    pub(crate) settings: &'a Settings<'a>,
    /// The file of found streams beside an ingest file.
    pub(crate) found: Option<&'a str>,
}

impl Scope<'_> {
    /// The connector of a connection, where both are known.
    pub(crate) fn connector(&self, name: &ConnectionName) -> Option<&ConnectorInfo> {
        let kind = &self.config.connections.get(name)?.kind;
        self.settings.connectors.iter().find(|info| info.kind == kind)
    }
}

/// The key that a path below `assets/` gives: `assets/gold/x.sql` is `gold.x`.
pub(crate) fn key_of_path(path: &str) -> String {
    let inner = path.strip_prefix("assets/").unwrap_or(path);
    let stem = inner.rsplit_once('.').map_or(inner, |(stem, _)| stem);
    stem.replace('/', ".")
}

fn path_key(scope: &Scope<'_>, context: &mut Context<'_>) -> Option<AssetKey> {
    let text = key_of_path(scope.path);
    match text.parse() {
        Ok(key) => Some(key),
        Err(error) => {
            let error: subak_domain::InvalidAssetKey = error;
            let problem = Diagnostic::error(codes::INVALID_ASSET_KEY, error.to_string());
            let help = "the key comes from the path below `assets/`; rename the file or its folder";
            context.problems.push(problem.at(scope.path, 0..0, "").help(help));
            None
        }
    }
}

impl Common {
    pub(crate) fn new(key: AssetKey, span: Range<usize>, config: &Config) -> Self {
        Self {
            key,
            span,
            checks: Vec::new(),
            description: None,
            owner: None,
            group: None,
            tags: BTreeSet::new(),
            columns: BTreeMap::new(),
            retry: config.retry,
            timeout: config.timeout,
            pools: PoolSlots::new(),
            hooks: Hooks::default(),
            partitioning: None,
            automation: None,
            freshness: None,
            says_partition: false,
            timezone: config.timezone.clone(),
            known_pools: Arc::clone(&config.pools),
            receivers: Arc::clone(&config.receivers),
            told: Arc::clone(&config.notifications),
        }
    }

    /// Takes what the fields say; what they do not say stays.
    pub(crate) fn read(&mut self, fields: &Fields<'_>, context: &mut Context<'_>) {
        let take = |slot: &mut Option<String>, text: Option<&str>| {
            if let Some(text) = text {
                *slot = Some(text.to_owned());
            }
        };
        take(&mut self.description, fields.text("description", context));
        take(&mut self.owner, fields.text("owner", context));
        take(&mut self.group, fields.text("group", context));
        self.tags.extend(fields.texts("tags", context).into_iter().map(|(tag, _)| tag.to_owned()));
        self.retry = decode::retry(fields, self.retry, context);
        self.timeout = fields.duration("timeout", context).unwrap_or(self.timeout);
        if let Some(pools) = decode::pools(fields, &self.known_pools, context) {
            self.pools = pools;
        }
        self.checks.extend(checks::read(fields, context));
        self.says_partition |= fields.get("partition").is_some();
        self.partitioning = partition::read(fields, &self.timezone, context).or(self.partitioning.take());
        self.automation = automation::read(fields, &self.timezone, self.automation.take(), context);
        let known = (self.timezone.as_str(), self.receivers.as_ref(), self.told.as_ref());
        self.freshness = freshness::read(fields, known, self.freshness.take(), context);
        let mut names = BTreeSet::new();
        let twice: Vec<String> =
            self.checks.iter().filter(|check| !names.insert(&check.name)).map(|check| check.name.clone()).collect();
        for name in twice {
            let problem = Diagnostic::error(codes::CHECK_DUPLICATE, format!("`{}` has the check `{name}` twice", self.key));
            let span = fields.name("checks").map_or(0..0, |name| name.span.clone());
            context.report(problem.help("remove one of them, or give it a `name:`"), &span, "");
        }
    }
}

/// Reads a YAML file below `assets/`.
pub(crate) fn yaml_file(scope: &Scope<'_>, text: &str) -> FileDeclarations {
    let mut found = FileDeclarations::default();
    let mut problems = Vec::new();
    let documents = yaml::parse(scope.path, text, &mut problems);
    let mut context = Context { path: scope.path, offset: 0, problems: &mut problems };
    if documents.iter().all(|node| node.value == Value::Null) && context.problems.is_empty() {
        let problem = Diagnostic::error(codes::UNKNOWN_FILE, "the file declares nothing");
        context.report(
            problem.help("declare `ingest:`, `seed:`, `script:`, `graph:`, `dbt:` or `external:`, or remove the file"),
            &(0..0),
            "",
        );
    }
    for node in documents.iter().filter(|node| node.value != Value::Null) {
        let Some(fields) = Fields::of(node, keys::INGEST_FILE, &[], "the file", &mut context) else { continue };
        if let Some(node) = fields.get("ingest") {
            ingest(scope, node, &mut context, &mut found);
        }
        if let Some(node) = fields.get("seed") {
            seed(scope, node, &mut context, &mut found);
        }
        if let Some(node) = fields.get("dbt") {
            found.dbts.extend(dbt::declaration(scope, node, &mut context));
        }
        if let Some(node) = fields.get("script") {
            found.scripts.extend(script::script(scope, node, None, &mut context));
        }
        if let Some(node) = fields.get("graph") {
            found.graphs.extend(graph(scope, node, &mut context));
        }
        if let Some(node) = fields.get("external") {
            found.externals.extend(external(scope, node, &mut context));
        }
    }
    found.problems = problems;
    found
}

fn external(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<ExternalDeclaration> {
    let fields = Fields::of(node, keys::EXTERNAL, &[], "`external`", context)?;
    let (key, span) = match fields.get("asset") {
        Some(node) => (decode::asset_key(text(node, "`asset`", context)?, node, context)?, node.span.clone()),
        None => (path_key(scope, context)?, node.span.clone()),
    };
    let mut common = Common::new(key, span, scope.config);
    common.read(&fields, context);
    // What is wrong with the look hides nothing of what reads the asset.
    let observe = fields.get("observe").and_then(|node| jobs::observation(scope, node, context));
    if let (Some(key), None, Some(_)) = (fields.name("automation"), fields.get("observe"), &common.automation) {
        let problem = Diagnostic::error(codes::MISSING_KEY, "`automation` looks at the asset, and nothing says how");
        context.report(problem.help("give it `observe:`, or remove `automation:`"), &key.span, "");
    }
    Some(ExternalDeclaration { common, observe })
}

fn graph(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<GraphDeclaration> {
    let fields = Fields::of(node, keys::GRAPH, &[], "`graph`", context)?;
    let (key, span) = match fields.get("asset") {
        Some(node) => (decode::asset_key(text(node, "`asset`", context)?, node, context)?, node.span.clone()),
        None => (path_key(scope, context)?, node.span.clone()),
    };
    let on = match fields.get("on") {
        Some(node) => connection_ref(text(node, "`on`", context)?, node, &scope.config.connections, context)?,
        None => scope.config.warehouse.clone(),
    };
    let mut common = Common::new(key, span, scope.config);
    common.read(&fields, context);
    let (actions, leaves) = jobs::tasks_of(scope, &common.key, &fields, context)?;
    let depends_on = script::assets_of(&fields, "depends_on", context);
    Some(GraphDeclaration { common, made: TaskGraph { on, actions, leaves }, depends_on })
}

fn seed(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>, found: &mut FileDeclarations) {
    let Some(fields) = Fields::of(node, keys::SEED, &[], "`seed`", context) else { return };
    let Some(key) = path_key(scope, context) else { return };
    let mut common = Common::new(key, node.span.clone(), scope.config);
    common.read(&fields, context);
    found.seeds.push(SeedDeclaration { common, columns: columns(&fields, context) });
}

fn ingest(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>, found: &mut FileDeclarations) {
    let Some(fields) = Fields::of(node, keys::INGEST, &[], "`ingest`", context) else { return };
    let connections = &scope.config.connections;
    let resolve = |name: &str, context: &mut Context<'_>| {
        let node = fields.get(name)?;
        connection_ref(text(node, &format!("`{name}`"), context)?, node, connections, context)
    };
    let from = resolve("from", context);
    let to = if fields.get("to").is_some() { resolve("to", context) } else { Some(scope.config.warehouse.clone()) };
    let connector = from.as_ref().and_then(|from| scope.connector(from));
    if let (Some(name), Some(info)) = (&from, connector)
        && !info.is_source
    {
        lacks(context, &fields, "from", format!("connection `{name}` (type `{}`) cannot be read", info.kind));
    }
    let target = to.as_ref().and_then(|to| scope.connector(to));
    if let (Some(name), Some(info)) = (&to, target)
        && info.writes == Writes::Nothing
    {
        let key = if fields.get("to").is_some() { "to" } else { "from" };
        lacks(context, &fields, key, format!("connection `{name}` (type `{}`) cannot be written", info.kind));
    }
    let options: &[subak_domain::config::Field] = connector.map_or(&[], |info| info.config.stream);
    let extra: Vec<&str> = options.iter().map(|field| field.name).collect();
    // A connector that is not known has said so already; its options must not be called unknown as well.
    let is_known = connector.is_some();
    let defaults = fields
        .get("defaults")
        .filter(|_| is_known)
        .and_then(|node| Fields::of(node, keys::STREAM, &extra, "`defaults`", context));
    let streams = fields.named("streams", context);
    if streams.is_empty() && matches!(fields.get("streams").map(|node| &node.value), Some(Value::Map(_) | Value::Null)) {
        let problem = Diagnostic::error(codes::NO_STREAMS, "the ingest declares no streams");
        context.report(problem.help("list at least one under `streams:`"), &node.span.clone(), "");
    }
    let (Some(from), Some(to)) = (from, to) else { return };
    let is_whole_only = target.is_some_and(|info| info.writes == Writes::WholeTables);
    let reader = StreamReader { scope, defaults, options, extra: &extra, from, to, is_whole_only };
    let (patterns, named): (Vec<_>, Vec<_>) = streams.iter().partition(|(name, _)| found::is_pattern(&name.text));
    for (name, node) in named {
        found.streams.extend(reader.read(name, node, None, context));
    }
    // A stream that is declared by its name is not declared by a pattern as well.
    let own = found.streams.iter().filter(|stream| stream.from == reader.from);
    let mut known: BTreeSet<String> = own.map(|stream| stream.stream.clone()).collect();
    for (name, node) in patterns {
        reader.expand(name, node, &mut known, context, found);
    }
}

pub(crate) fn lacks(context: &mut Context<'_>, fields: &Fields<'_>, key: &str, message: String) {
    let span = fields.get(key).map_or(0..0, |node| node.span.clone());
    context.report(
        Diagnostic::error(codes::LACKS_ABILITY, message).help("`subak docs connectors` shows what each type can do"),
        &span,
        "",
    );
}

pub(crate) struct StreamReader<'a> {
    pub(crate) scope: &'a Scope<'a>,
    pub(crate) defaults: Option<Fields<'a>>,
    pub(crate) options: &'a [subak_domain::config::Field],
    pub(crate) extra: &'a [&'a str],
    pub(crate) from: ConnectionName,
    pub(crate) to: ConnectionName,
    /// Whether tables of the destination are replaced as a whole.
    pub(crate) is_whole_only: bool,
}

impl StreamReader<'_> {
    /// The streams that a pattern names, among those that were found.
    fn expand(
        &self,
        name: &Name,
        node: &Node,
        known: &mut BTreeSet<String>,
        context: &mut Context<'_>,
        declarations: &mut FileDeclarations,
    ) {
        let empty = Node { span: node.span.clone(), value: Value::Map(Vec::new()) };
        let own = if node.value == Value::Null { &empty } else { node };
        let Some(fields) = Fields::of(own, keys::STREAM, self.extra, &format!("stream `{}`", name.text), context) else { return };
        // What is said for all holds where the pattern says nothing.
        let layers: Vec<Fields<'_>> = [Some(fields), self.defaults].into_iter().flatten().collect();
        let said = |key: &str| layers.iter().find(|fields| fields.get(key).is_some()).copied();
        let exclude = said("exclude").map(|fields| fields.texts("exclude", context)).unwrap_or_default();
        let pattern = StreamPattern {
            path: self.scope.path.to_string(),
            from: self.from.clone(),
            include: name.text.clone(),
            exclude: exclude.into_iter().map(|(text, _)| text.to_owned()).collect(),
        };
        let template = said("asset").and_then(|fields| fields.text("asset", context)).unwrap_or("{table}").to_owned();
        if let Some(stream) = said("stream").and_then(|fields| fields.name("stream")) {
            let problem = Diagnostic::error(codes::INVALID_VALUE, "a pattern names streams, and `stream` would name one");
            return context.report(problem.help("remove one of them"), &stream.span.clone(), "");
        }
        if self.scope.config.connections.get(&self.from).is_some_and(|from| from.kind == "files") {
            let problem = Diagnostic::error(codes::INVALID_VALUE, "files are named by `path:`, which may be a pattern");
            return context.report(problem.help("give the stream a name, and the pattern as its `path:`"), &name.span, "");
        }
        declarations.patterns.push(pattern.clone());
        let Some(found) = self.found(&pattern, name, context) else { return };
        let (mut is_used, before) = (false, context.problems.len());
        for stream in found.streams.iter().filter(|stream| pattern.names(&stream.name)) {
            is_used = true;
            if known.insert(stream.name.clone()) {
                let asset = Name { text: asset_name(&template, &stream.name), span: name.span.clone() };
                declarations.streams.extend(self.read(&asset, own, Some(stream), context));
            }
        }
        // Every stream says the same of what is wrong with the pattern's own keys.
        let mut told: Vec<Diagnostic> = Vec::new();
        for problem in context.problems.drain(before..) {
            if !told.contains(&problem) {
                told.push(problem);
            }
        }
        context.problems.extend(told);
        if !is_used {
            let problem = Diagnostic::warning(codes::NO_STREAMS, format!("`{}` names no stream that was found", name.text));
            context.report(
                problem.help("run `subak discover --save` when there are new ones, or correct the pattern"),
                &name.span,
                "",
            );
        }
    }

    /// What was found at the source, when it was looked for this very pattern.
    fn found(&self, pattern: &StreamPattern, name: &Name, context: &mut Context<'_>) -> Option<FoundAt> {
        let path = found::lock_path(self.scope.path);
        let (message, cause) = match self.scope.found.map(found::read_lock) {
            Some(Ok(lock)) => match lock.get(self.from.as_str()) {
                Some(found) if found.knows(pattern) => return Some(found.clone()),
                _ => (
                    format!("`{path}` does not say which streams `{}` of `{}` names as it stands here", name.text, self.from),
                    None,
                ),
            },
            Some(Err(error)) => (format!("`{path}` cannot be read"), Some(error.to_string())),
            None => (format!("`{}` is a pattern, and nobody has looked yet which streams there are", name.text), None),
        };
        let mut problem = Diagnostic::error(codes::NO_STREAMS, message);
        if let Some(cause) = cause {
            problem = problem.caused_by(cause);
        }
        context.report(
            problem.help(format!("run `subak discover --save`, and keep `{path}` under version control")),
            &name.span,
            "",
        );
        None
    }

    /// The declaration of a stream; `found` when a pattern names it.
    pub(crate) fn read(
        &self,
        name: &Name,
        node: &Node,
        found: Option<&FoundStream>,
        context: &mut Context<'_>,
    ) -> Option<StreamDeclaration> {
        let what = format!("stream `{}`", name.text);
        let empty = Node { span: node.span.clone(), value: Value::Map(Vec::new()) };
        let node = if node.value == Value::Null { &empty } else { node };
        let own = Fields::of(node, keys::STREAM, self.extra, &what, context)?;
        let folder = self.scope.path.strip_prefix("assets/").unwrap_or(self.scope.path);
        let prefix = folder.rsplit_once('/').map(|(folder, _)| format!("{}.", folder.replace('/', "."))).unwrap_or_default();
        let key =
            decode::asset_key(&format!("{prefix}{}", name.text), &Node { span: name.span.clone(), value: Value::Null }, context)?;
        let mut common = Common::new(key, name.span.clone(), self.scope.config);
        let layers: Vec<Fields<'_>> = self.defaults.into_iter().chain([own]).collect();
        for fields in &layers {
            common.read(fields, context);
            hooks::read(fields, &mut common.hooks, &self.to, self.scope, context);
        }
        let mut declaration = StreamDeclaration {
            common,
            from: self.from.clone(),
            to: self.to.clone(),
            stream: found.map_or(&name.text, |found| &found.name).clone(),
            mode: WriteMode::Replace,
            primary_key: Vec::new(),
            cursor: None,
            shape: Shape::default(),
            latest: None,
            history: History::default(),
            layout: Layout::default(),
            options: BTreeMap::new(),
        };
        let (mut mode, mut tie) = (None, Tie::Last);
        for fields in &layers {
            self.layer(fields, &mut declaration, &mut mode, context);
            tie = shaping::tie(fields, context).unwrap_or(tie);
        }
        if let Some(found) = found {
            complete_found(&mut declaration, found, mode, name, context);
        } else {
            for key in ["exclude", "asset"] {
                if let Some(key) = own.name(key) {
                    let message = format!("`{}` goes with a pattern, and `{}` is the name of one stream", key.text, name.text);
                    context.report(Diagnostic::error(codes::INVALID_VALUE, message).help("remove it"), &key.span.clone(), "");
                }
            }
        }
        let is_debezium = declaration.options.get("format").map(String::as_str) == Some("debezium");
        if let Some(latest) = shaping::complete_changes(&mut declaration.shape, is_debezium, tie) {
            declaration.latest = Some(latest);
        }
        declaration.mode = mode.unwrap_or(match (declaration.primary_key.is_empty(), &declaration.cursor) {
            _ if declaration.common.partitioning.is_some() => WriteMode::Replace,
            (false, _) => WriteMode::Merge,
            (true, Some(_)) => WriteMode::Append,
            (true, None) => WriteMode::Replace,
        });
        refuse_misuse(&declaration, &own, name, context);
        partition::refuse_stream(&declaration, &own, context);
        if self.is_whole_only {
            refuse_rows(&declaration, &own, name, context);
        }
        Some(declaration)
    }

    fn layer(
        &self,
        fields: &Fields<'_>,
        declaration: &mut StreamDeclaration,
        mode: &mut Option<WriteMode>,
        context: &mut Context<'_>,
    ) {
        let modes = [
            ("replace", WriteMode::Replace),
            ("append", WriteMode::Append),
            ("merge", WriteMode::Merge),
            ("delete_insert", WriteMode::DeleteInsert),
            ("snapshot", WriteMode::Snapshot),
        ];
        *mode = fields.word("mode", &modes, context).or(*mode);
        if let Some(node) = fields.get("stream")
            && let Some(template) = crate::config::text_template(node, "stream", context)
            && let Some(stream) = self.resolve(&template, node, context)
        {
            declaration.stream = stream;
        }
        if fields.get("primary_key").is_some() {
            declaration.primary_key =
                fields.texts("primary_key", context).into_iter().map(|(column, _)| column.to_owned()).collect();
        }
        declaration.cursor = cursor(fields, context).or(declaration.cursor.take());
        shaping::read(fields, &mut declaration.shape, context);
        declaration.latest = shaping::latest(fields, context).or(declaration.latest.take());
        declaration.history = shaping::history(fields, context).unwrap_or_else(|| declaration.history.clone());
        declaration.layout = shaping::layout(fields, context).unwrap_or_else(|| declaration.layout.clone());
        for option in self.options {
            if let Some(node) = fields.get(option.name) {
                crate::config::each_value(node, option, "", context, &mut |name, node, template, context| {
                    if let Some(value) = self.resolve(&template, node, context) {
                        declaration.options.insert(name, value);
                    }
                });
            }
        }
    }

    fn resolve(&self, template: &Template, node: &Node, context: &mut Context<'_>) -> Option<String> {
        let variable = |name: &str| self.scope.settings.environment.get(name).cloned();
        match template.resolve(variable, |_| None) {
            Ok(value) => Some(value),
            Err(error) => {
                let problem = Diagnostic::error(codes::MISSING_VARIABLE, error.to_string());
                context.report(problem.help("options of streams take environment variables and no secrets"), &node.span, "");
                None
            }
        }
    }
}

/// What is known of a found stream: its key where one is needed and none is declared, and whether it has the cursor.
fn complete_found(
    declaration: &mut StreamDeclaration,
    found: &FoundStream,
    mode: Option<WriteMode>,
    name: &Name,
    context: &mut Context<'_>,
) {
    let needs_key = mode.map_or(declaration.cursor.is_some(), WriteMode::needs_key);
    let naming = declaration.shape.naming;
    if declaration.primary_key.is_empty() && needs_key {
        declaration.primary_key = found.primary_key.iter().map(|column| naming.apply(column)).collect();
    }
    // A column may come from another one.
    let is_known = |column: &str| {
        let is_declared = declaration.shape.columns.iter().any(|rule| rule.name == column && !rule.from.is_empty());
        is_declared || found.columns.iter().any(|(known, _)| known == column || naming.apply(known) == column)
    };
    if let Some(cursor) = declaration.cursor.as_ref().map(|cursor| cursor.column.clone())
        && !found.columns.is_empty()
        && !is_known(&cursor)
    {
        let problem = Diagnostic::error(codes::NO_STREAMS, format!("the stream `{}` has no column `{cursor}`", found.name));
        context.report(
            problem.help(format!("leave it out with `exclude: {}`, and declare it on its own", found.name)),
            &name.span,
            "",
        );
    }
}

/// The name of the asset that a found stream becomes.
fn asset_name(template: &str, stream: &str) -> String {
    let schema = stream.rsplit_once('.').map_or("", |(schema, _)| schema);
    let name = template.replace("{schema}", schema).replace("{table}", found::table_of(stream));
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter.to_ascii_lowercase() } else { '_' };
    name.chars().map(plain).collect()
}

fn refuse_misuse(declaration: &StreamDeclaration, fields: &Fields<'_>, name: &Name, context: &mut Context<'_>) {
    let place = |key: &str| fields.name(key).map_or_else(|| name.span.clone(), |name| name.span.clone());
    let key = &declaration.common.key;
    if declaration.mode.needs_key() && declaration.primary_key.is_empty() {
        let message = format!("`{key}` has the mode `{}`, and no `primary_key` says by what", declaration.mode.as_str());
        let problem = Diagnostic::error(codes::MERGE_WITHOUT_KEY, message);
        context.report(problem.help("declare `primary_key:`, or use `mode: append` or `mode: replace`"), &place("mode"), "");
    }
    for (about, message, help) in
        shaping::contradictions(declaration.mode, &declaration.primary_key, &declaration.shape, declaration.latest.as_ref())
    {
        let problem = Diagnostic::error(codes::SHAPE_MISUSE, format!("`{key}`: {message}"));
        context.report(problem.help(help), &place(about), "");
    }
    let idle = [
        ("history", declaration.mode != WriteMode::Snapshot, "`mode: snapshot` keeps a history"),
        ("on_filter_exit", declaration.shape.filter.is_none(), "rows leave a `filter:`, and there is none"),
    ];
    for (about, _, why) in idle.into_iter().filter(|(about, is_idle, _)| *is_idle && fields.get(about).is_some()) {
        let problem = Diagnostic::error(codes::SHAPE_MISUSE, format!("`{key}`: `{about}` has nothing to do: {why}"));
        context.report(problem.help(format!("remove `{about}:`, or declare what it needs")), &place(about), "");
    }
    if declaration.mode == WriteMode::Replace && declaration.cursor.is_some() {
        let problem = Diagnostic::error(
            codes::CURSOR_MISUSE,
            format!("`{key}` is replaced each time, so a cursor would lose the rows before it"),
        );
        context.report(problem.help("remove `cursor:`, or use `mode: merge` or `mode: append`"), &place("cursor"), "");
    }
    let repeats = declaration.cursor.as_ref().is_some_and(|cursor| !cursor.is_lower_open || cursor.nulls == NullCursor::Include);
    if declaration.mode == WriteMode::Append && repeats && !declaration.shape.children.is_empty() {
        let message = format!("`{key}` is appended to with its lists, and rows at the bound of its cursor are read twice");
        let help = "declare a `primary_key:` and use `mode: merge`, or set `lower: open` and `nulls: exclude` under `cursor:`";
        context.report(Diagnostic::error(codes::CURSOR_MISUSE, message).help(help), &place("cursor"), "");
    }
    let has_lag = declaration.cursor.as_ref().is_some_and(|cursor| cursor.lag != Lag::None);
    if declaration.mode == WriteMode::Append && has_lag {
        let problem =
            Diagnostic::error(codes::CURSOR_MISUSE, format!("`{key}` is appended to, and a `lag` reads changed rows again"));
        context.report(problem.help("remove `lag:`, or declare a `primary_key:` and use `mode: merge`"), &place("cursor"), "");
    }
}

/// Refuses what needs rows of the table to be found again, where the destination replaces tables as a whole.
fn refuse_rows(declaration: &StreamDeclaration, fields: &Fields<'_>, name: &Name, context: &mut Context<'_>) {
    let shape = &declaration.shape;
    let is_quarantined = shape.on_reject == Some(OnReject::Quarantine)
        || shape.contract == Contract::DiscardRow
        || shape.columns.iter().any(|column| column.on_reject == Some(OnReject::Quarantine));
    let wanted = [
        ("mode", declaration.mode != WriteMode::Replace, format!("`mode: {}`", declaration.mode.as_str())),
        ("on_reject", is_quarantined, "a quarantine".to_owned()),
        ("deduplicate", declaration.latest.is_some(), "`deduplicate`".to_owned()),
        ("children", !shape.children.is_empty(), "`children`".to_owned()),
    ];
    for (about, _, what) in wanted.into_iter().filter(|(_, is_wanted, _)| *is_wanted) {
        let place = fields.name(about).map_or_else(|| name.span.clone(), |name| name.span.clone());
        let message =
            format!("`{}` asks for {what}, and connection `{}` writes whole tables only", declaration.common.key, declaration.to);
        let help = "use `mode: replace` and leave such keys out, or load into a database";
        context.report(Diagnostic::error(codes::LACKS_ABILITY, message).help(help), &place, "");
    }
}

fn cursor(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<CursorRule> {
    let node = fields.get("cursor")?;
    if let Value::Scalar { text, .. } = &node.value {
        return Some(CursorRule::of(text.clone()));
    }
    let fields = Fields::of(node, keys::CURSOR, &[], "`cursor`", context)?;
    let mut rule = CursorRule::of(fields.text("column", context)?.to_owned());
    if let Some(node) = fields.get("lag")
        && let Some(text) = text(node, "`lag`", context)
    {
        rule.lag = match text.parse::<u64>() {
            Ok(0) => Lag::None,
            Ok(count) => Lag::Count(count),
            Err(_) => fields.duration("lag", context).map_or(Lag::None, Lag::Time),
        };
    }
    rule.is_lower_open = fields.word("lower", &[("closed", false), ("open", true)], context).unwrap_or(false);
    let is_upper_closed = fields.word("upper", &[("open", false), ("closed", true)], context);
    rule.until_run = fields.word("until", &[("run", ())], context).map(|()| is_upper_closed.unwrap_or(false));
    if is_upper_closed.is_some() && rule.until_run.is_none() {
        context.invalid(node, "`upper` says how the read ends, and without `until: run` it ends with the stream".to_owned());
    }
    let nulls = [("include", NullCursor::Include), ("exclude", NullCursor::Exclude), ("error", NullCursor::Error)];
    rule.nulls = fields.word("nulls", &nulls, context).unwrap_or_default();
    rule.future_max = fields.duration("future_max", context).unwrap_or(rule.future_max);
    Some(rule)
}

fn columns(fields: &Fields<'_>, context: &mut Context<'_>) -> BTreeMap<String, DataType> {
    let named = fields.named("columns", context);
    let typed = named.iter().filter_map(|(name, node)| {
        let data_type = shaping::data_type(node, &format!("the type of `{}`", name.text), context)?;
        Some((name.text.clone(), data_type))
    });
    typed.collect()
}

/// Reads a SQL file below `assets/` or `checks/`.
pub(crate) fn sql_file(scope: &Scope<'_>, text: &str) -> FileDeclarations {
    let mut found = FileDeclarations::default();
    let mut problems = Vec::new();
    if let Some(query) = query(scope, text, &mut problems) {
        found.queries.push(query);
    }
    found.problems = problems;
    found
}

/// How the result of a query is kept.
fn storing(fields: &Fields<'_>, declaration: &mut QueryDeclaration, context: &mut Context<'_>) {
    let words = [
        ("view", StoredAs::View),
        ("table", StoredAs::Table),
        ("materialized_view", StoredAs::MaterializedView),
        ("incremental", StoredAs::Incremental),
        ("snapshot", StoredAs::Snapshot),
    ];
    let stored_as = if partition::is_declared(fields) { StoredAs::Incremental } else { StoredAs::View };
    declaration.stored_as = fields.word("stored_as", &words, context).unwrap_or(stored_as);
    declaration.unique_key = fields.texts("unique_key", context).into_iter().map(|(column, _)| column.to_owned()).collect();
    declaration.latest = shaping::latest(fields, context);
    declaration.history = shaping::history(fields, context).unwrap_or_default();
    let changes = [
        ("append", SchemaChange::Append),
        ("sync", SchemaChange::Sync),
        ("ignore", SchemaChange::Ignore),
        ("fail", SchemaChange::Fail),
    ];
    declaration.on_schema_change = fields.word("on_schema_change", &changes, context).unwrap_or_default();
    let modes = [("append", WriteMode::Append), ("merge", WriteMode::Merge), ("delete_insert", WriteMode::DeleteInsert)];
    let mode = fields.word("mode", &modes, context);
    declaration.mode = match (declaration.stored_as, mode) {
        (StoredAs::Snapshot, _) => WriteMode::Snapshot,
        (StoredAs::Incremental, Some(mode)) => mode,
        (StoredAs::Incremental, None) if declaration.unique_key.is_empty() => WriteMode::Append,
        (StoredAs::Incremental, None) => WriteMode::Merge,
        (StoredAs::View | StoredAs::Table | StoredAs::MaterializedView, _) => WriteMode::Replace,
    };
    declaration.surrogate_key = surrogate_key(fields, context);
    declaration.layout = shaping::layout(fields, context).unwrap_or_default();
    let mut refuse = |about: &str, message: String, help: &str| {
        let span = fields.name(about).map_or(0..0, |name| name.span.clone());
        context.report(Diagnostic::error(codes::SHAPE_MISUSE, message).help(help.to_owned()), &span, "");
    };
    let is_kept = matches!(declaration.stored_as, StoredAs::Incremental | StoredAs::Snapshot);
    if declaration.mode.needs_key() && declaration.unique_key.is_empty() {
        let message = format!("the mode is `{}`, and no `unique_key` says by what", declaration.mode.as_str());
        refuse(if mode.is_some() { "mode" } else { "stored_as" }, message, "declare `unique_key:`");
    }
    for about in ["mode", "unique_key", "on_schema_change"] {
        if fields.get(about).is_some() && !is_kept {
            let message = format!("`{about}` has no effect: the result is made anew each time");
            refuse(about, message, "set `stored_as: incremental`, or remove it");
        }
    }
    if declaration.latest.is_some() && declaration.unique_key.is_empty() {
        refuse(
            "deduplicate",
            "which rows are one is said by `unique_key`, and there is none".to_owned(),
            "declare `unique_key:`",
        );
    }
    if declaration.surrogate_key.is_some() && declaration.stored_as != StoredAs::Table {
        refuse("surrogate_key", "a surrogate key needs `stored_as: table`".to_owned(), "set `stored_as: table`");
    }
}

/// Refuses a way of keeping the result that the connection does not have.
fn refuse_storing(fields: &Fields<'_>, declaration: &QueryDeclaration, scope: &Scope<'_>, context: &mut Context<'_>) {
    let info = scope.connector(&declaration.on).filter(|info| info.dialect.is_some());
    let Some(info) = info.filter(|info| !info.stores_as.contains(&declaration.stored_as)) else { return };
    let span = fields.get("stored_as").map_or(0..0, |node| node.span.clone());
    let words: Vec<&str> = info.stores_as.iter().map(|known| known.as_str()).collect();
    let word = declaration.stored_as.as_str();
    let message = format!("connection `{}` (type `{}`) does not keep results as `{word}`", declaration.on, info.kind);
    let problem = Diagnostic::error(codes::LACKS_ABILITY, message).help(format!("it keeps them as {}", decode::list(&words)));
    context.report(problem, &span, "");
}

fn surrogate_key(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<SurrogateKey> {
    let fields = Fields::of(fields.get("surrogate_key")?, keys::SURROGATE_KEY, &[], "`surrogate_key`", context)?;
    let column = fields.text("column", context)?.to_owned();
    let of: Vec<String> = fields.texts("of", context).into_iter().map(|(column, _)| column.to_owned()).collect();
    let unknown = match fields.get("unknown") {
        None => Some(-1),
        Some(node) => match text(node, "`unknown`", context)? {
            "none" => None,
            number => {
                let parsed = number.parse::<i64>().ok().filter(|number| *number <= 0);
                if parsed.is_none() {
                    let message =
                        format!("`unknown` must be a number that no row gets, zero or below, or `none`, and this is `{number}`");
                    context.invalid(node, message);
                }
                parsed
            }
        },
    };
    Some(SurrogateKey { column, of, unknown })
}

/// The header's place inside the file, and where the SQL begins. `Err` when it does not end.
fn split_header(text: &str) -> Result<(Option<Range<usize>>, usize), Range<usize>> {
    let start = text.len() - text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).len();
    let Some(rest) = text[start..].strip_prefix("/*") else { return Ok((None, start)) };
    let word = rest.trim_start();
    let Some(after) = word.strip_prefix("subak").filter(|after| after.starts_with(|c: char| c.is_whitespace() || c == '*'))
    else {
        return Ok((None, start));
    };
    let inner = text.len() - after.len();
    match after.find("*/") {
        Some(length) => Ok((Some(inner..inner + length), inner + length + 2)),
        None => Err(start..start + 2),
    }
}

/// The YAML inside the header comment; problems are placed in the whole file.
fn header_nodes(scope: &Scope<'_>, text: &str, range: Range<usize>, problems: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut inner = Vec::new();
    let nodes = yaml::parse(scope.path, &text[range.clone()], &mut inner);
    for label in inner.iter_mut().flat_map(|problem| &mut problem.labels) {
        label.span = label.span.start + range.start..label.span.end + range.start;
    }
    problems.append(&mut inner);
    nodes
}

/// Takes what the header says. Returns how bad it is when a check fails.
fn read_header(
    fields: &Fields<'_>,
    is_check: bool,
    scope: &Scope<'_>,
    common: &mut Common,
    declaration: &mut QueryDeclaration,
    context: &mut Context<'_>,
) -> Severity {
    let mut severity = Severity::Error;
    if is_check {
        severity = fields.word("severity", &[("error", Severity::Error), ("warn", Severity::Warn)], context).unwrap_or(severity);
    } else {
        common.read(fields, context);
        for (name, node) in fields.named("columns", context) {
            if let Some(meaning) = text(node, &format!("the meaning of `{}`", name.text), context) {
                common.columns.insert(name.text.clone(), meaning.to_owned());
            }
        }
        storing(fields, declaration, context);
        partition::refuse_query(declaration, fields, common.partitioning.as_ref(), context);
    }
    if let Some(node) = fields.get("on")
        && let Some(text) = text(node, "`on`", context)
        && let Some(name) = connection_ref(text, node, &scope.config.connections, context)
    {
        declaration.on = name;
    }
    if !is_check {
        refuse_storing(fields, declaration, scope, context);
        hooks::read(fields, &mut common.hooks, &declaration.on, scope, context);
    }
    if fields.get("depends_on").is_some() {
        let texts = fields.texts("depends_on", context);
        let keys = texts.into_iter().filter_map(|(text, node)| {
            let key = decode::asset_key(text, node, context)?;
            Some((key, context.place(&node.span)))
        });
        declaration.depends_on = Some(keys.collect());
    }
    severity
}

fn query(scope: &Scope<'_>, text: &str, problems: &mut Vec<Diagnostic>) -> Option<QueryDeclaration> {
    let (header, body_start) = match split_header(text) {
        Ok(split) => split,
        Err(span) => {
            let problem = Diagnostic::error(codes::HEADER_UNTERMINATED, "the header comment does not end");
            problems.push(problem.at(scope.path, span, "begins here").help("close it with `*/`"));
            return None;
        }
    };
    let is_check = scope.path.starts_with("checks/");
    let (what, table) = if is_check { ("the header", keys::CHECK_HEADER) } else { ("the header", keys::SQL_HEADER) };
    let documents = header.clone().map(|range| header_nodes(scope, text, range, problems));
    let mut context = Context { path: scope.path, offset: header.map_or(0, |range| range.start), problems };
    let key = if is_check { "check".parse().ok() } else { path_key(scope, &mut context) };
    let mut common = Common::new(key?, 0..0, scope.config);
    let node = documents.as_ref().and_then(|nodes| nodes.first()).filter(|node| node.value != Value::Null);
    let fields = node.and_then(|node| Fields::of(node, table, &[], what, &mut context));
    let mut declaration = QueryDeclaration {
        common: common.clone(),
        check: None,
        on: scope.config.warehouse.clone(),
        stored_as: StoredAs::View,
        mode: WriteMode::Replace,
        unique_key: Vec::new(),
        latest: None,
        history: History::default(),
        on_schema_change: SchemaChange::default(),
        surrogate_key: None,
        layout: Layout::default(),
        depends_on: None,
        body: text[body_start..].to_owned(),
        body_start,
    };
    let severity = fields
        .map_or(Severity::Error, |fields| read_header(&fields, is_check, scope, &mut common, &mut declaration, &mut context));
    if is_check {
        let name = scope.path.strip_prefix("checks/").unwrap_or(scope.path);
        declaration.check = Some((name.strip_suffix(".sql").unwrap_or(name).replace('/', "."), severity));
    }
    declaration.common = common;
    Some(declaration)
}
