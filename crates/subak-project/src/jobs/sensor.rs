//! Sensors: documents that begin with `sensor:`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use subak_diag::{Diagnostic, codes, nearest};
use subak_domain::sensor::{LOG_LOOK_INTERVAL, LOOK_INTERVAL, LOOK_TIMEOUT, SETTLE, Sensor, Watch, WatchCursor};
use subak_domain::{AssetGraph, AssetKey, ConnectionName, Job, JobWork, PartitionRule, RunStatus};

use super::is_name;
use super::work::{Names, Texts};
use crate::config::connection_ref;
use crate::declare::Scope;
use crate::decode::{self, Context, Fields, text};
use crate::keys;
use crate::reference::{Part, Template};
use crate::yaml::{Node, Value};

/// A sensor as its file declares it.
#[derive(Debug, Clone)]
pub(crate) struct SensorDeclaration {
    pub(crate) sensor: Sensor,
    /// Where its name stands.
    pub(crate) span: Range<usize>,
    /// Where the job that it starts is named.
    start: Range<usize>,
    /// Where what it watches is named.
    watch: Range<usize>,
}

/// What a sensor starts.
struct Start {
    job: String,
    set: BTreeMap<String, String>,
    partition: Option<String>,
    add_to: Option<String>,
}

/// A sensor of a document.
pub(super) fn sensor(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<SensorDeclaration> {
    let fields = Fields::of(node, keys::SENSOR, &[], "the sensor", context)?;
    let name_node = fields.get("sensor")?;
    let name = text(name_node, "`sensor`", context)?;
    if !is_name(name) {
        context.invalid(name_node, format!("`{name}` is no name of a sensor: use letters, digits, `_` and `-`"));
        return None;
    }
    let (watch_node, start_node) = (fields.get("watch")?, fields.get("start")?);
    let (watch, start) = (watch(scope, watch_node, context), start(scope, start_node, context));
    let per = fields.word("per", &[("item", true), ("look", false)], context);
    let min_interval = fields.duration("min_interval", context);
    let timeout = fields.duration("timeout", context);
    let description = fields.text("description", context).map(str::to_owned);
    let (watch, start) = (watch?, start?);
    if let (Watch::Assets { needs_all: true, .. }, Some(true), Some(node)) = (&watch, per, fields.get("per")) {
        context
            .invalid(node, "a sensor that waits for all of several assets has one run for all of them: `per: look`".to_owned());
    }
    if let (Watch::Program(_), Some(_), Some(node)) = (&watch, per, fields.get("per")) {
        context.invalid(node, "a program says itself which runs it asks for; remove `per`".to_owned());
    }
    if let (Some(_), Some(false), Some(node)) = (&start.partition, per, fields.get("per")) {
        context.invalid(node, "a run is for one partition, so it is for one item: `per: item`".to_owned());
    }
    let of_log = !matches!(watch, Watch::Assets { .. }) || start.partition.is_some();
    let sensor = Sensor {
        name: name.to_owned(),
        description,
        path: scope.path.to_string(),
        job: start.job,
        set: start.set,
        partition: start.partition,
        add_to: start.add_to,
        is_per_item: per.unwrap_or(of_log),
        min_interval: min_interval.unwrap_or(if watch.is_of_log() { LOG_LOOK_INTERVAL } else { LOOK_INTERVAL }),
        timeout: timeout.unwrap_or(LOOK_TIMEOUT),
        watch,
    };
    let place = |node: &Node, context: &Context<'_>| context.place(&node.span);
    let (start, watch) = (place(start_node, context), place(watch_node, context));
    Some(SensorDeclaration { sensor, span: name_node.span.clone(), start, watch })
}

/// `start`: the name of a job, or a mapping.
fn start(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<Start> {
    let Value::Map(_) = &node.value else {
        let job = text(node, "`start`", context)?.to_owned();
        return Some(Start { job, set: BTreeMap::new(), partition: None, add_to: None });
    };
    let fields = Fields::of(node, keys::SENSOR_START, &[], "`start`", context)?;
    let texts = Texts { scope, names: Names::Starting };
    texts.check_templates(node, context);
    let mut set = BTreeMap::new();
    for (name, node) in fields.named("set", context) {
        set.insert(name.text.clone(), text(node, &format!("`{}`", name.text), context)?.to_owned());
    }
    let partition = fields.text("partition", context).map(str::to_owned);
    let add_to = fields.text("add_to", context).map(str::to_owned);
    if let (Some(node), None) = (fields.get("add_to"), &partition) {
        let problem = Diagnostic::error(codes::MISSING_KEY, "`add_to` needs `partition`");
        context.report(problem.help("say which key the set gets: `partition: \"{{ item.stem }}\"`"), &node.span, "");
    }
    Some(Start { job: fields.text("job", context)?.to_owned(), set, partition, add_to })
}

fn watch(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<Watch> {
    const KINDS: [&str; 8] = ["files", "query", "http", "asset", "job", "webhook", "run", "python"];
    let fields = Fields::of(node, keys::WATCH, &[], "`watch`", context)?;
    let kinds: Vec<&str> = KINDS.iter().copied().filter(|kind| fields.get(kind).is_some()).collect();
    let [kind] = kinds.as_slice() else {
        let message = if kinds.is_empty() { "`watch` looks at nothing" } else { "`watch` looks at several things" };
        let help = format!("give it one of {}", decode::list(&KINDS));
        context.report(Diagnostic::error(codes::MISSING_KEY, message).help(help), &node.span, "");
        return None;
    };
    for (only, of) in [("require", "asset"), ("status", "job")] {
        if let Some(name) = fields.name(only).filter(|_| *kind != of) {
            let problem = Diagnostic::error(codes::INVALID_VALUE, format!("`{only}` says something about `{of}` only"));
            context.report(problem.help(format!("remove `{only}`")), &name.span, "");
        }
    }
    let texts = Texts { scope, names: Names::Looking };
    let node = fields.get(kind)?;
    match *kind {
        "files" => files(scope, node, context),
        "query" => query(&texts, node, context),
        "http" => {
            let (call, value) = texts.http_answer(node, context)?;
            Some(Watch::Http { call, value })
        }
        "asset" => {
            let assets = fields.texts("asset", context).into_iter();
            let assets: Vec<AssetKey> = assets.filter_map(|(text, node)| decode::asset_key(text, node, context)).collect();
            let needs_all = fields.word("require", &[("any", false), ("all", true)], context).unwrap_or(false);
            (!assets.is_empty()).then_some(Watch::Assets { assets, needs_all })
        }
        "job" => {
            let jobs: Vec<String> = fields.texts("job", context).into_iter().map(|(text, _)| text.to_owned()).collect();
            let words = [
                ("succeeded", Some(RunStatus::Succeeded)),
                ("failed", Some(RunStatus::Failed)),
                ("canceled", Some(RunStatus::Canceled)),
                ("ended", None),
            ];
            let status = fields.word("status", &words, context).unwrap_or(Some(RunStatus::Succeeded));
            Some(Watch::Jobs { jobs, status })
        }
        "webhook" => webhook(node, context),
        "run" => Some(Watch::Program(texts.program(node, context)?)),
        _ => Some(Watch::Program(texts.python(&fields, context))),
    }
}

fn files(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<Watch> {
    let Value::Map(_) = &node.value else {
        let pattern = text(node, "`files`", context)?.to_owned();
        return Some(Watch::Files { on: ConnectionName::project_files(), pattern, settle: SETTLE });
    };
    let fields = Fields::of(node, keys::WATCH_FILES, &[], "`files`", context)?;
    let on = match fields.get("on") {
        None => ConnectionName::project_files(),
        Some(node) => {
            let on = connection_ref(text(node, "`on`", context)?, node, &scope.config.connections, context)?;
            if let Some(info) = scope.connector(&on).filter(|info| !info.lists_files) {
                let message = format!("connection `{on}` (type `{}`) holds no files", info.kind);
                let problem = Diagnostic::error(codes::LACKS_ABILITY, message);
                context.report(problem.help("name a connection of type `files`, or leave `on` out"), &node.span, "");
                return None;
            }
            on
        }
    };
    let settle: Option<Duration> = fields.duration("settle", context);
    Some(Watch::Files { on, pattern: fields.text("pattern", context)?.to_owned(), settle: settle.unwrap_or(SETTLE) })
}

fn webhook(node: &Node, context: &mut Context<'_>) -> Option<Watch> {
    let fields = Fields::of(node, keys::WATCH_WEBHOOK, &[], "`webhook`", context)?;
    let (node, secret) = (fields.get("secret")?, fields.text("secret", context)?);
    match Template::parse(secret) {
        Ok(template) if template.parts().iter().any(|part| !matches!(part, Part::Literal(_))) => {}
        Ok(_) => {
            let problem = Diagnostic::error(codes::LITERAL_SECRET, "the secret of a webhook stands here as plain text");
            context.report(
                problem.help("write `secret: ${secret:NAME}` and keep the value outside of the project"),
                &node.span,
                "",
            );
            return None;
        }
        Err(error) => {
            context.report(Diagnostic::error(codes::INVALID_REFERENCE, error.to_string()), &node.span, "");
            return None;
        }
    }
    let header = fields.text("signature_header", context).map(str::to_lowercase);
    let is_header = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if let (Some(node), Some(name)) = (fields.get("signature_header"), header.as_ref().filter(|name| !is_header(name))) {
        context.invalid(node, format!("`{name}` is no name of a header"));
        return None;
    }
    Some(Watch::Webhook { secret: secret.to_owned(), signature_header: header })
}

fn query(texts: &Texts<'_>, node: &Node, context: &mut Context<'_>) -> Option<Watch> {
    let (on, sql) = texts.statement_of(node, keys::WATCH_QUERY, "query", context)?;
    let mut cursor = None;
    if let Value::Map(_) = &node.value {
        // Its problems are told by the line above.
        let fields = Fields::of(node, keys::WATCH_QUERY, &[], "`query`", &mut Context { problems: &mut Vec::new(), ..*context })?;
        cursor = match (fields.text("cursor", context), fields.get("from")) {
            (Some(column), Some(from)) => Some(WatchCursor { column: column.to_owned(), from: crate::json_value(from) }),
            (None, None) => None,
            (column, _) => {
                let (has, needs) = if column.is_some() { ("cursor", "from") } else { ("from", "cursor") };
                let problem = Diagnostic::error(codes::MISSING_KEY, format!("`{has}` needs `{needs}`"));
                context.report(problem.help("write both: `cursor: id, from: 0`"), &node.span, "");
                return None;
            }
        };
    }
    let reads_cursor = subak_plan::expression::names_in_template(&sql).is_ok_and(|names| names.contains("cursor"));
    if reads_cursor != cursor.is_some() {
        let message = if reads_cursor {
            "the query reads `{{ cursor }}`, and there is none"
        } else {
            "the query never reads `{{ cursor }}`"
        };
        let help = if reads_cursor {
            "say which column it is, and where it begins: `cursor: id, from: 0`"
        } else {
            "write `where id > {{ cursor }}`, so that it returns only what is new"
        };
        context.report(Diagnostic::error(codes::INVALID_VALUE, message).help(help), &node.span, "");
    }
    Some(Watch::Query { on, sql, cursor })
}

/// The sensors of all files. Reports names that come twice, and what they name that is not there.
pub(crate) fn resolved<'a>(
    sensors: impl Iterator<Item = (Arc<str>, &'a SensorDeclaration)>,
    jobs: &[Job],
    graph: Option<&AssetGraph>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Sensor> {
    let mut seen: BTreeMap<&str, String> =
        jobs.iter().map(|job| (job.name.as_str(), format!("a job of `{}`", job.path))).collect();
    let known: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let mut found = Vec::new();
    for (path, declaration) in sensors {
        let sensor = &declaration.sensor;
        let mut report = |problem: Diagnostic, span: &Range<usize>| problems.push(problem.at(&path, span.clone(), ""));
        found.push(sensor.clone());
        if let Some(other) = seen.insert(&sensor.name, format!("a sensor of `{path}`")) {
            let problem =
                Diagnostic::error(codes::DUPLICATE_ASSET, format!("sensor `{}` has the name of another one", sensor.name));
            report(problem.help(format!("the name belongs to {other}; jobs and sensors share theirs")), &declaration.span);
        }
        let unknown_job = |name: &str| {
            let problem = Diagnostic::error(codes::JOB_UNKNOWN, format!("there is no job `{name}`"));
            match nearest(name, known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help("`subak job list` shows the jobs"),
            }
        };
        match jobs.iter().find(|job| job.name == sensor.job) {
            None => report(unknown_job(&sensor.job), &declaration.start),
            Some(job) => start_problems(sensor, job).into_iter().for_each(|problem| report(problem, &declaration.start)),
        }
        if let Watch::Jobs { jobs: watched, .. } = &sensor.watch {
            for name in watched.iter().filter(|name| !known.contains(&name.as_str())) {
                report(unknown_job(name), &declaration.watch);
            }
        }
        let Some(graph) = graph else { continue };
        if let Watch::Assets { assets, .. } = &sensor.watch {
            for asset in assets.iter().filter(|asset| graph.get(asset).is_none()) {
                let problem = Diagnostic::error(codes::UNKNOWN_UPSTREAM, format!("there is no asset `{asset}`"));
                report(problem.help("`subak list` shows the assets"), &declaration.watch);
            }
        }
        if let Some(set) = &sensor.add_to {
            let sets: BTreeSet<&str> = graph
                .assets()
                .iter()
                .filter_map(|asset| asset.partitioning.as_ref())
                .flat_map(subak_domain::Partitioning::dimensions)
                .filter_map(|(.., rule)| match rule {
                    PartitionRule::Dynamic(name) => Some(name.as_str()),
                    _ => None,
                })
                .collect();
            if !sets.contains(set.as_str()) {
                let problem = Diagnostic::error(codes::PARTITION_NONE, format!("no asset has dynamic partitions `{set}`"));
                let sets: Vec<&str> = sets.into_iter().collect();
                let help = match sets.as_slice() {
                    [] => "give an asset `partition: { dynamic: … }`".to_owned(),
                    sets => format!("there are {}", decode::list(sets)),
                };
                report(problem.help(help), &declaration.start);
            }
        }
    }
    found
}

/// What keeps a sensor from starting its job.
fn start_problems(sensor: &Sensor, job: &Job) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for name in sensor.set.keys().filter(|name| !job.params.contains_key(*name)) {
        let problem = Diagnostic::error(codes::INVALID_VALUE, format!("job `{}` has no parameter `{name}`", job.name));
        problems.push(match nearest(name, job.params.keys().map(String::as_str)) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help("declare it under `params:` of the job"),
        });
    }
    // A program may say them.
    if !matches!(sensor.watch, Watch::Program(_)) {
        for (name, _) in job.params.iter().filter(|(name, param)| param.default.is_none() && !sensor.set.contains_key(*name)) {
            let problem = Diagnostic::error(codes::INVALID_VALUE, format!("job `{}` needs the parameter `{name}`", job.name));
            problems
                .push(problem.help(format!("say it: `start: {{ job: {}, set: {{ {name}: \"{{{{ item.… }}}}\" }} }}`", job.name)));
        }
    }
    if sensor.partition.is_some() && !matches!(job.work, JobWork::Select(_)) {
        let message = format!("job `{}` runs tasks, and a partition is one of assets", job.name);
        let problem = Diagnostic::error(codes::INVALID_VALUE, message);
        problems.push(problem.help("give the job a parameter instead, or let it `select` assets"));
    }
    problems
}
