//! `subak.yml`: connections, profiles, defaults.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use subak_diag::{Diagnostic, codes};
use subak_domain::config::{Field, FieldKind};
use subak_domain::job::PoolSlots;
use subak_domain::notification::{EXPORT_KINDS, RECEIVER_KINDS, ReceiverKind};
use subak_domain::{AssetKey, ConnectionName, Notifications, Occasion, Retry, asset};

use crate::ConnectorInfo;
use crate::decode::{self, Context, Fields, list, text};
use crate::keys;
use crate::reference::{Part, Template};
use crate::yaml::{self, Name, Node, Value};

/// The settings of a project, with the profile laid over them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the project.
    pub project: String,
    /// Its time zone, by IANA name.
    pub timezone: String,
    /// The connection in which assets are stored where nothing else is said.
    pub warehouse: ConnectionName,
    /// The outside systems.
    pub connections: BTreeMap<ConnectionName, ConnectionDeclaration>,
    /// Names of all profiles.
    pub profiles: Vec<String>,
    /// How often a failed step is tried again.
    pub retry: Retry,
    /// Upper bound for one attempt.
    pub timeout: Duration,
    /// Assets that something outside keeps up to date.
    pub external: Vec<(AssetKey, Range<usize>)>,
    /// Values that templates read.
    pub vars: BTreeMap<String, String>,
    /// House rules for names.
    pub lint: Lint,
    /// How long what happened is kept.
    pub retention: Retention,
    /// Rooms for steps, and how many slots each has.
    pub pools: Arc<PoolSlots>,
    /// How many runs with a tag go on at a time; with `*` at its end, for each tag that begins so by itself.
    pub run_limits: BTreeMap<String, NonZeroU32>,
    /// Who can be told about runs, by name.
    pub receivers: Arc<BTreeMap<String, ReceiverDeclaration>>,
    /// Systems that are told everything that runs do, by name.
    pub exports: Arc<BTreeMap<String, ReceiverDeclaration>>,
    /// Who is told about runs of jobs that say nothing themselves.
    pub notifications: Arc<Notifications>,
}

/// How long what happened is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long; for ever where there is none.
    pub keep: Option<Duration>,
    /// Bytes that the output of programs may take.
    pub logs_bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: Some(Duration::from_secs(90 * 86_400)), logs_bytes_max: 10_000_000_000 }
    }
}

/// `retention`.
fn retention(fields: &Fields<'_>, context: &mut Context<'_>) -> Retention {
    let mut found = Retention::default();
    let Some(node) = fields.get("retention") else { return found };
    let Some(fields) = Fields::of(node, keys::RETENTION, &[], "`retention`", context) else { return found };
    match fields.text("keep", context) {
        Some("forever") => found.keep = None,
        Some(_) => found.keep = fields.duration("keep", context).or(found.keep),
        None => {}
    }
    found.logs_bytes_max = decode::bytes(&fields, "logs_max", context).unwrap_or(found.logs_bytes_max);
    found
}

/// A receiver of notifications, references not resolved.
#[derive(Debug, Clone)]
pub struct ReceiverDeclaration {
    /// One of [`RECEIVER_KINDS`].
    pub kind: &'static str,
    /// Its values by key, as written.
    pub values: BTreeMap<String, Template>,
}

/// House rules for names.
#[derive(Debug, Clone, Default)]
pub struct Lint {
    /// What the last part of a key must match, by a pattern of keys; `*` stands for anything.
    pub tables: Vec<(String, regex::Regex)>,
    /// What names of columns must match.
    pub columns: Option<regex::Regex>,
}

/// One configured outside system, references not resolved.
#[derive(Debug, Clone)]
pub struct ConnectionDeclaration {
    /// The kind of its connector.
    pub kind: String,
    /// Its values by key, as written.
    pub values: BTreeMap<String, Template>,
    /// How many steps of a run use it at a time, where that is bounded.
    pub parallel: Option<NonZeroUsize>,
    /// Where it is declared.
    pub span: Range<usize>,
}

/// The key of a connection that bounds how many steps use it at a time.
pub(crate) const PARALLEL: &str = "parallel";

/// What a value of a connection is checked against.
pub(crate) struct Settings<'a> {
    pub(crate) connectors: &'a [ConnectorInfo],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) profile: Option<&'a str>,
}

/// Reads `subak.yml`. Problems go to `problems`; `None` when nothing in it can be used.
pub(crate) fn read(path: &Arc<str>, text: &str, settings: &Settings<'_>, problems: &mut Vec<Diagnostic>) -> Option<Config> {
    let documents = yaml::parse(path, text, problems);
    let mut context = Context { path, offset: 0, problems };
    let Some(node) = documents.first() else {
        if context.problems.is_empty() {
            context.report(
                Diagnostic::error(codes::MISSING_KEY, "`subak.yml` is empty").help("it needs `project:` and `connections:`"),
                &(0..0),
                "",
            );
        }
        return None;
    };
    let fields = Fields::of(node, keys::PROJECT, &[], "`subak.yml`", &mut context)?;
    let project = fields.text("project", &mut context).unwrap_or_default().to_owned();
    let timezone = timezone(&fields, &mut context);
    let mut connections = connections(fields.named("connections", &mut context), settings, &mut context);
    let mut warehouse = fields.get("warehouse");
    let profiles = fields.named("profiles", &mut context);
    let mut is_found = settings.profile.is_none();
    for (name, node) in profiles {
        let Some(profile) = Fields::of(node, keys::PROFILE, &[], &format!("profile `{}`", name.text), &mut context) else {
            continue;
        };
        let overlay = self::connections(profile.named("connections", &mut context), settings, &mut context);
        if settings.profile == Some(name.text.as_str()) {
            is_found = true;
            warehouse = profile.get("warehouse").or(warehouse);
            connections.extend(overlay);
        }
    }
    let profiles: Vec<String> = profiles.iter().map(|(name, _)| name.text.clone()).collect();
    if !is_found {
        unknown_profile(settings.profile.unwrap_or_default(), &profiles, &mut context);
    }
    let warehouse = self::warehouse(warehouse, &connections, &mut context);
    let exports = receivers(&fields, ("exports", EXPORT_KINDS), settings, &mut context);
    let receivers = receivers(&fields, ("notifications", RECEIVER_KINDS), settings, &mut context);
    let (retry, timeout, notifications) = defaults(&fields, &receivers, &mut context);
    let external = external(&fields, &mut context);
    let mut vars = BTreeMap::new();
    for (name, node) in fields.named("vars", &mut context) {
        if let Some(value) = decode::text(node, &format!("variable `{}`", name.text), &mut context) {
            vars.insert(name.text.clone(), value.to_owned());
        }
    }
    let lint = lint(&fields, &mut context);
    let retention = retention(&fields, &mut context);
    let pools = Arc::new(counts(&fields, "pools", &mut context));
    let run_limits = counts(&fields, "run_limits", &mut context);
    Some(Config {
        project,
        timezone,
        warehouse,
        connections,
        profiles,
        retry,
        timeout,
        external,
        vars,
        lint,
        retention,
        pools,
        run_limits,
        receivers: Arc::new(receivers),
        exports: Arc::new(exports),
        notifications: Arc::new(notifications),
    })
}

/// Whole numbers above zero by name.
fn counts(fields: &Fields<'_>, key: &str, context: &mut Context<'_>) -> BTreeMap<String, NonZeroU32> {
    let named = fields.named(key, context).iter();
    named.filter_map(|(name, node)| Some((name.text.clone(), decode::number_above_zero(node, &name.text, context)?))).collect()
}

fn lint(fields: &Fields<'_>, context: &mut Context<'_>) -> Lint {
    let mut lint = Lint::default();
    let Some(node) = fields.get("lint") else { return lint };
    let Some(fields) = Fields::of(node, keys::LINT, &[], "`lint`", context) else { return lint };
    let expression = |node: &Node, context: &mut Context<'_>| {
        let text = text(node, "a rule of `lint`", context)?;
        match regex::Regex::new(text) {
            Ok(expression) => Some(expression),
            Err(error) => {
                context.invalid(
                    node,
                    format!("`{text}` is no regular expression: {}", error.to_string().lines().last().unwrap_or_default()),
                );
                None
            }
        }
    };
    for (pattern, node) in fields.named("tables", context) {
        lint.tables.extend(expression(node, context).map(|expression| (pattern.text.clone(), expression)));
    }
    lint.columns = fields.get("columns").and_then(|node| expression(node, context));
    lint
}

fn unknown_profile(wanted: &str, known: &[String], context: &mut Context<'_>) {
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let problem = Diagnostic::error(codes::UNKNOWN_PROFILE, format!("there is no profile `{wanted}`"));
    let help = match subak_diag::nearest(wanted, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "declare it under `profiles:`".to_owned(),
        None => format!("known profiles are {}", list(&names)),
    };
    context.report(problem.help(help), &(0..0), "");
}

fn timezone(fields: &Fields<'_>, context: &mut Context<'_>) -> String {
    let Some(node) = fields.get("timezone") else { return "UTC".to_owned() };
    let Some(name) = text(node, "`timezone`", context) else { return "UTC".to_owned() };
    if TimeZone::get(name).is_err() {
        context.invalid(node, format!("`{name}` is not a time zone; use an IANA name such as `Asia/Jakarta`"));
    }
    name.to_owned()
}

fn defaults(
    fields: &Fields<'_>,
    receivers: &BTreeMap<String, ReceiverDeclaration>,
    context: &mut Context<'_>,
) -> (Retry, Duration, Notifications) {
    let none = (Retry::default(), asset::TIMEOUT_DEFAULT, Notifications::default());
    let Some(node) = fields.get("defaults") else { return none };
    let Some(fields) = Fields::of(node, keys::DEFAULTS, &[], "`defaults`", context) else { return none };
    let timeout = fields.duration("timeout", context).unwrap_or(none.1);
    (decode::retry(&fields, none.0, context), timeout, notifications(&fields, receivers, context))
}

fn receivers(
    fields: &Fields<'_>,
    (key, kinds): (&str, &'static [ReceiverKind]),
    settings: &Settings<'_>,
    context: &mut Context<'_>,
) -> BTreeMap<String, ReceiverDeclaration> {
    let mut receivers = BTreeMap::new();
    for (name, node) in fields.named(key, context) {
        let what = if key == "exports" { format!("export `{}`", name.text) } else { format!("receiver `{}`", name.text) };
        if let Some(receiver) = receiver(&what, kinds, node, settings, context) {
            receivers.insert(name.text.clone(), receiver);
        }
    }
    receivers
}

fn receiver(
    what: &str,
    known: &'static [ReceiverKind],
    node: &Node,
    settings: &Settings<'_>,
    context: &mut Context<'_>,
) -> Option<ReceiverDeclaration> {
    let Value::Map(entries) = &node.value else {
        context.wrong_shape(node, what, "a mapping");
        return None;
    };
    let kinds: Vec<&str> = known.iter().map(|kind| kind.kind).collect();
    let Some((_, kind_node)) = entries.iter().find(|(key, _)| key.text == "type") else {
        let problem = Diagnostic::error(codes::MISSING_KEY, format!("{what} needs the key `type`"));
        context.report(problem.help(format!("known types are {}", list(&kinds))), &node.span, "");
        return None;
    };
    let word = text(kind_node, "`type`", context)?;
    let Some(kind) = known.iter().find(|kind| kind.kind == word) else {
        decode::unknown_word(kind_node, word, &kinds, "`type`", context);
        return None;
    };
    let fields = Fields::of(node, &keys_of(kind.fields), &["type"], what, context)?;
    let mut values = BTreeMap::new();
    for field in kind.fields {
        if let Some(node) = fields.get(field.name) {
            each_value(node, field, "", context, &mut |name, node, template, context| {
                warn_of_missing(&template, node, settings, context);
                values.insert(name, template);
            });
        }
    }
    Some(ReceiverDeclaration { kind: kind.kind, values })
}

/// Who is told: `on_failure`, `on_success`, `on_recovery`, `on_late`.
pub(crate) fn notifications(
    fields: &Fields<'_>,
    receivers: &BTreeMap<String, ReceiverDeclaration>,
    context: &mut Context<'_>,
) -> Notifications {
    let mut found = Notifications::default();
    for (name, occasion) in Occasion::NAMES {
        let key = format!("on_{name}");
        let Some(node) = fields.get(&key) else { continue };
        let Value::List(items) = &node.value else {
            context.wrong_shape(node, &format!("`{key}`"), "a list: `[ { notify: NAME } ]`");
            continue;
        };
        let mut told = Vec::new();
        for item in items {
            let named = match &item.value {
                Value::Map(_) => Fields::of(item, keys::NOTICE, &[], &format!("an entry of `{key}`"), context)
                    .and_then(|fields| fields.get("notify")),
                _ => Some(item),
            };
            told.extend(named.and_then(|node| receiver_ref(text(node, "`notify`", context)?, node, receivers, context)));
        }
        found.receivers.insert(occasion, told);
    }
    found
}

/// A reference to a declared receiver.
pub(crate) fn receiver_ref(
    name: &str,
    node: &Node,
    receivers: &BTreeMap<String, ReceiverDeclaration>,
    context: &mut Context<'_>,
) -> Option<String> {
    if receivers.contains_key(name) {
        return Some(name.to_owned());
    }
    let problem = Diagnostic::error(codes::UNKNOWN_CONNECTION, format!("there is no receiver `{name}`"));
    let help = match subak_diag::nearest(name, receivers.keys().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "declare it under `notifications:` in `subak.yml`".to_owned(),
    };
    context.report(problem.help(help), &node.span, "not declared");
    None
}

fn external(fields: &Fields<'_>, context: &mut Context<'_>) -> Vec<(AssetKey, Range<usize>)> {
    let texts = fields.texts("external", context);
    texts.into_iter().filter_map(|(text, node)| Some((decode::asset_key(text, node, context)?, node.span.clone()))).collect()
}

fn warehouse(
    node: Option<&Node>,
    connections: &BTreeMap<ConnectionName, ConnectionDeclaration>,
    context: &mut Context<'_>,
) -> ConnectionName {
    let name = match node {
        Some(node) => text(node, "`warehouse`", context).and_then(|text| connection_ref(text, node, connections, context)),
        None => connections.keys().find(|name| name.as_str() == "warehouse").or_else(|| connections.keys().next()).cloned(),
    };
    name.unwrap_or_else(|| "warehouse".parse().unwrap_or_else(|_| unreachable!("`warehouse` is a valid name")))
}

/// A reference to a declared connection.
pub(crate) fn connection_ref(
    text: &str,
    node: &Node,
    connections: &BTreeMap<ConnectionName, ConnectionDeclaration>,
    context: &mut Context<'_>,
) -> Option<ConnectionName> {
    if let Some((name, _)) = connections.iter().find(|(name, _)| name.as_str() == text) {
        return Some(name.clone());
    }
    let names: Vec<&str> = connections.keys().map(ConnectionName::as_str).collect();
    let problem = Diagnostic::error(codes::UNKNOWN_CONNECTION, format!("there is no connection `{text}`"));
    let help = match subak_diag::nearest(text, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("declare it under `connections:` in `subak.yml`; known connections are {}", list(&names)),
    };
    context.report(problem.help(help), &node.span, "not declared");
    None
}

fn connections(
    entries: &[(Name, Node)],
    settings: &Settings<'_>,
    context: &mut Context<'_>,
) -> BTreeMap<ConnectionName, ConnectionDeclaration> {
    let mut connections = BTreeMap::new();
    for (name, node) in entries {
        match name.text.parse::<ConnectionName>() {
            Ok(key) if key == ConnectionName::project_files() => {
                let problem = Diagnostic::error(codes::INVALID_VALUE, format!("`{key}` is the project's own folder"));
                context.report(problem.help("give the connection another name"), &name.span, "");
            }
            Ok(key) => {
                if let Some(declaration) = connection(&name.text, node, settings, context) {
                    connections.insert(key, declaration);
                }
            }
            Err(error) => context.report(Diagnostic::error(codes::INVALID_VALUE, error.to_string()), &name.span, ""),
        }
    }
    connections
}

fn connection(name: &str, node: &Node, settings: &Settings<'_>, context: &mut Context<'_>) -> Option<ConnectionDeclaration> {
    let Value::Map(entries) = &node.value else {
        context.wrong_shape(node, &format!("connection `{name}`"), "a mapping");
        return None;
    };
    let Some((_, kind_node)) = entries.iter().find(|(key, _)| key.text == "type") else {
        let problem = Diagnostic::error(codes::MISSING_KEY, format!("connection `{name}` needs the key `type`"));
        let kinds: Vec<&str> = settings.connectors.iter().map(|connector| connector.kind).collect();
        context.report(problem.help(format!("known types are {}", list(&kinds))), &node.span, "");
        return None;
    };
    let kind = text(kind_node, "`type`", context)?;
    let Some(connector) = settings.connectors.iter().find(|connector| connector.kind == kind) else {
        let kinds: Vec<&str> = settings.connectors.iter().map(|connector| connector.kind).collect();
        let problem = Diagnostic::error(codes::UNKNOWN_CONNECTOR, format!("`{kind}` is no type of connection in this build"));
        let near =
            subak_diag::nearest(kind, kinds.iter().copied()).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        context.report(problem.help(format!("{near}known types are {}", list(&kinds))), &kind_node.span, "");
        return None;
    };
    let fields =
        Fields::of(node, &keys_of(connector.config.connection), &["type", PARALLEL], &format!("connection `{name}`"), context)?;
    let mut values = BTreeMap::new();
    for field in connector.config.connection {
        if let Some(node) = fields.get(field.name) {
            each_value(node, field, "", context, &mut |name, node, template, context| {
                warn_of_missing(&template, node, settings, context);
                values.insert(name, template);
            });
        }
    }
    let parallel = fields.get(PARALLEL).and_then(|node| {
        let text = text(node, "`parallel`", context)?;
        let count = text.parse::<NonZeroUsize>();
        if count.is_err() {
            context.invalid(node, format!("`parallel` must be a whole number above zero, and this is `{text}`"));
        }
        count.ok()
    });
    Some(ConnectionDeclaration { kind: kind.to_owned(), values, parallel, span: context.place(&node.span) })
}

/// The fields as keys, whose values are read one by one.
fn keys_of(fields: &[Field]) -> Vec<keys::Key> {
    let key =
        |field: &Field| keys::Key { name: field.name, shape: keys::Shape::Text, is_required: field.is_required, doc: field.doc };
    fields.iter().map(key).collect()
}

/// What takes the values of a field: its whole name, its place, what it is.
type TakeValue<'t> = dyn FnMut(String, &Node, Template, &mut Context<'_>) + 't;

/// Hands over the value of a field, or each value of a mapping under its whole name.
pub(crate) fn each_value(node: &Node, field: &Field, prefix: &str, context: &mut Context<'_>, take: &mut TakeValue<'_>) {
    let name = format!("{prefix}{}", field.name);
    match field.kind {
        FieldKind::Map(inner) => {
            let Some(fields) = Fields::of(node, &keys_of(inner), &[], &format!("`{name}`"), context) else { return };
            for field in inner {
                if let Some(node) = fields.get(field.name) {
                    each_value(node, field, &format!("{name}."), context, take);
                }
            }
        }
        FieldKind::Texts => {
            let Value::Map(entries) = &node.value else {
                return context.wrong_shape(node, &format!("`{name}`"), "a mapping");
            };
            for (key, node) in entries {
                let name = format!("{name}.{}", key.text);
                if let Some(template) = text_template(node, &name, context) {
                    take(name, node, template, context);
                }
            }
        }
        _ => {
            if let Some(template) = template(node, field, context) {
                take(name, node, template, context);
            }
        }
    }
}

/// A variable without a value is only a warning here: the connection may never be opened.
fn warn_of_missing(template: &Template, node: &Node, settings: &Settings<'_>, context: &mut Context<'_>) {
    for part in template.parts() {
        if let Part::Variable { name, default: None } = part
            && settings.environment.get(name).is_none_or(String::is_empty)
        {
            let problem = Diagnostic::warning(codes::MISSING_VARIABLE, format!("the environment variable `{name}` is not set"));
            context.report(problem.help(format!("set it, or give a default: `${{{name}:-default}}`")), &node.span, "");
        }
    }
}

/// A value with references, checked as far as it can be without resolving it.
fn template(node: &Node, field: &Field, context: &mut Context<'_>) -> Option<Template> {
    let template = text_template(node, field.name, context)?;
    if let Some(literal) = template.literal() {
        check_literal(literal, node, field, context);
    }
    Some(template)
}

/// A text in which references may stand.
pub(crate) fn text_template(node: &Node, name: &str, context: &mut Context<'_>) -> Option<Template> {
    let text = text(node, &format!("`{name}`"), context)?;
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            let problem = Diagnostic::error(codes::INVALID_REFERENCE, error.to_string());
            let help = "references are `${NAME}`, `${NAME:-default}` and `${secret:NAME}`; `$$` is one dollar sign";
            context.report(problem.help(help), &node.span, "");
            None
        }
    }
}

fn check_literal(literal: &str, node: &Node, field: &Field, context: &mut Context<'_>) {
    let name = field.name;
    match field.kind {
        FieldKind::Integer if literal.parse::<u64>().is_err() => {
            context.invalid(node, format!("`{name}` must be a whole number, and this is `{literal}`"));
        }
        FieldKind::Boolean if !matches!(literal, "true" | "false") => {
            context.invalid(node, format!("`{name}` must be `true` or `false`, and this is `{literal}`"));
        }
        FieldKind::Word(words) if !words.contains(&literal) => {
            decode::unknown_word(node, literal, words, &format!("`{name}`"), context);
        }
        FieldKind::Path if std::path::Path::new(literal).components().any(|part| part == std::path::Component::ParentDir) => {
            let problem = Diagnostic::error(codes::INSECURE_PATH, format!("the path `{literal}` leaves the project"));
            context.report(
                problem.help("use a path below the project, or an absolute one, for example from a variable: `${DATA_DIR}/…`"),
                &node.span,
                "",
            );
        }
        FieldKind::Secret if !literal.is_empty() => {
            let problem = Diagnostic::warning(codes::LITERAL_SECRET, format!("`{name}` stands here as plain text"));
            context.report(
                problem.help(format!("write `{name}: ${{secret:{name}}}` and keep the value outside of the project")),
                &node.span,
                "",
            );
        }
        _ => {}
    }
}
