//! Jobs and sensors: files below `jobs/`, each document one of them. Groups are taken apart here, so that what runs is one list of actions.

mod sensor;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value as Json;
use subak_diag::{Diagnostic, codes, nearest};
use subak_domain::job::{self, Approval, Param, ParamKind, PoolSlots, Role, ShortCircuit, TaskLimits, TaskWork, WhenFull};
use subak_domain::schedule::{CatchUp, Fold, Gap, ScheduleRule};
use subak_domain::{
    Action, AssetGraph, AssetKey, Definition, Job, JobWork, Notifications, Occasion, PartitionRule, Reason, Retry, Rule,
    Schedule, Sensor, StepId, Trigger, Work,
};
use subak_plan::expression::Values;
use subak_plan::tasks::with_tasks;

use self::sensor::SensorDeclaration;
use self::work::bare;
pub(crate) use self::work::{Names, Texts, environment};
use crate::config::receiver_ref;
use crate::declare::Scope;
use crate::decode::{self, Context, Fields, text};
use crate::keys;
use crate::yaml::{self, Name, Node, Value};

/// The most tasks that one job may have once its lists are known.
const TASK_COUNT_MAX: usize = 10_000;

/// The most items of a list that is known only in the run, where nothing else is said.
const ITEM_COUNT_MAX: u32 = 1_000;

/// How long a question waits for its answer where nothing else is said.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

/// A job as its file declares it.
#[derive(Debug, Clone)]
pub(crate) struct JobDeclaration {
    pub(crate) job: Job,
    /// Where its name stands.
    pub(crate) span: Range<usize>,
    /// The assets that its tasks bring up to date, and where they are named.
    pub(crate) assets: Vec<(AssetKey, Range<usize>)>,
}

/// What one file declares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    pub(crate) jobs: Vec<JobDeclaration>,
    pub(crate) sensors: Vec<SensorDeclaration>,
}

/// The jobs and sensors of one file.
pub(crate) fn declared(scope: &Scope<'_>, source: &str, problems: &mut Vec<Diagnostic>) -> Declared {
    let documents = yaml::parse(scope.path, source, problems);
    let mut context = Context { path: scope.path, offset: 0, problems };
    let mut found = Declared::default();
    for node in documents.iter().filter(|node| node.value != Value::Null) {
        let is_sensor = matches!(&node.value, Value::Map(entries) if entries.iter().any(|(name, _)| name.text == "sensor"));
        if is_sensor {
            found.sensors.extend(sensor::sensor(scope, node, &mut context));
        } else {
            found.jobs.extend(job(scope, node, &mut context));
        }
    }
    found
}

fn job(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<JobDeclaration> {
    let fields = Fields::of(node, keys::JOB, &[], "the job", context)?;
    let name_node = fields.get("job")?;
    let name = text(name_node, "`job`", context)?;
    if !is_name(name) {
        context.invalid(name_node, format!("`{name}` is no name of a job: use letters, digits, `_` and `-`"));
        return None;
    }
    let params = params(&fields, "params", context);
    let mut reader = Reader::new(scope, &params, fields.get("schedule").is_some());
    let work = work(&fields, name_node, name, &mut reader, context)?;
    let tags = tags(&fields, scope, &params, context);
    let assets = reader.assets;
    let schedule = schedule(&fields, &scope.config.timezone, context);
    if let (Some(_), Some((missing, _))) = (&schedule, params.iter().find(|(_, param)| param.default.is_none())) {
        let message = format!("job `{name}` has a schedule, and nobody says its parameter `{missing}` then");
        context.report(
            Diagnostic::error(codes::INVALID_VALUE, message).help("give the parameter a `default:`"),
            &name_node.span,
            "",
        );
    }
    let runs_max = number(&fields, "runs_max", context).unwrap_or(std::num::NonZeroU32::MIN);
    let needs_previous = fields.boolean("needs_previous", context).unwrap_or(false);
    if let (Some(key), true, true) = (fields.name("runs_max"), needs_previous, runs_max.get() > 1) {
        let message =
            format!("`needs_previous` lets a run wait for the one before it, and `runs_max` lets {runs_max} go on at a time");
        context.report(Diagnostic::error(codes::INVALID_VALUE, message).help("remove one of the two"), &key.span, "");
    }
    let job = Job {
        name: name.to_owned(),
        description: fields.text("description", context).map(str::to_owned),
        path: scope.path.to_string(),
        work,
        schedule,
        params,
        notifications: notifications(&fields, scope, context),
        priority: number(&fields, "priority", context).unwrap_or(0),
        runs_max,
        when_full: fields
            .word("when_full", &[("wait", WhenFull::Wait), ("cancel", WhenFull::Cancel)], context)
            .unwrap_or_default(),
        needs_previous,
        tags,
    };
    Some(JobDeclaration { job, span: name_node.span.clone(), assets })
}

/// What a job does.
fn work(
    fields: &Fields<'_>,
    name_node: &Node,
    name: &str,
    reader: &mut Reader<'_>,
    context: &mut Context<'_>,
) -> Option<JobWork> {
    match (fields.get("select"), fields.get("tasks")) {
        (Some(_), None) => {
            if let Some(key) = fields.name("pools") {
                let problem =
                    Diagnostic::error(codes::INVALID_VALUE, "`pools` of a job is for its tasks, and this job selects assets");
                context.report(problem.help("say it on the assets"), &key.span, "");
            }
            Some(JobWork::Select(fields.texts("select", context).into_iter().map(|(text, _)| text.to_owned()).collect()))
        }
        (None, Some(node)) => {
            let base = Base {
                retry: decode::retry(fields, single(reader.scope.config.retry), context),
                timeout: reader.scope.config.timeout,
                pools: PoolSlots::new(),
            };
            let pools = decode::pools(fields, &reader.scope.config.pools, context).unwrap_or_default();
            let base = Base { timeout: fields.duration("timeout", context).unwrap_or(base.timeout), pools, ..base };
            let found = reader.group(node, &Group::default(), &base, context)?;
            if found.actions.len() > TASK_COUNT_MAX {
                context.invalid(node, format!("the job has {} tasks, and {TASK_COUNT_MAX} are the most", found.actions.len()));
                return None;
            }
            Some(JobWork::Tasks(found.actions))
        }
        (Some(_), Some(_)) => {
            context.invalid(
                name_node,
                format!("job `{name}` has both `select` and `tasks`; an asset is a task too: `{{ asset: KEY }}`"),
            );
            None
        }
        (None, None) => {
            let problem = Diagnostic::error(codes::MISSING_KEY, format!("job `{name}` does nothing"));
            context.report(problem.help("give it `select:` or `tasks:`"), &name_node.span, "");
            None
        }
    }
}

/// Labels of the runs of a job.
fn tags(fields: &Fields<'_>, scope: &Scope<'_>, params: &BTreeMap<String, Param>, context: &mut Context<'_>) -> Vec<String> {
    if let Some(node) = fields.get("tags") {
        Texts { scope, names: Names::Label { params } }.check_templates(node, context);
    }
    fields.texts("tags", context).into_iter().map(|(tag, _)| tag.to_owned()).collect()
}

/// A whole number in the bounds of its type.
fn number<T: std::str::FromStr>(fields: &Fields<'_>, name: &str, context: &mut Context<'_>) -> Option<T> {
    let text = fields.text(name, context)?;
    let parsed = text.parse().ok();
    if let (None, Some(node)) = (&parsed, fields.get(name)) {
        let bound = if name == "priority" { "" } else { " above zero" };
        context.invalid(node, format!("`{name}` must be a whole number{bound}, and this is `{text}`"));
    }
    parsed
}

/// Who is told about runs of the job: those that it names, else those that the project does.
fn notifications(fields: &Fields<'_>, scope: &Scope<'_>, context: &mut Context<'_>) -> Notifications {
    let mut found = scope.config.notifications.as_ref().clone();
    found.receivers.extend(crate::config::notifications(fields, &scope.config.receivers, context).receivers);
    found.deadline = fields.duration("deadline", context);
    let is_told = found.receivers.get(&Occasion::Late).is_some_and(|told| !told.is_empty());
    if let (Some(node), None) = (fields.get("on_late"), found.deadline) {
        let problem = Diagnostic::error(codes::MISSING_KEY, "`on_late` needs `deadline`");
        context.report(problem.help("say when a run is late: `deadline: 2h`"), &node.span, "");
    }
    if let (Some(node), Some(_), false) = (fields.get("deadline"), found.deadline, is_told) {
        let problem = Diagnostic::warning(codes::MISSING_KEY, "nobody is told when the deadline has passed");
        context.report(problem.help("name somebody: `on_late: [ { notify: NAME } ]`"), &node.span, "");
    }
    found
}

/// `schedule`: a cron line, or a mapping.
fn schedule(fields: &Fields<'_>, timezone: &str, context: &mut Context<'_>) -> Option<Schedule> {
    let node = fields.get("schedule")?;
    let mut found = Schedule::new(ScheduleRule::Cron(Vec::new()), timezone);
    if let Value::Map(_) = &node.value {
        let fields = Fields::of(node, keys::SCHEDULE, &[], "`schedule`", context)?;
        let lines: Vec<String> = fields.texts("cron", context).into_iter().map(|(line, _)| line.to_owned()).collect();
        found.rule = match (lines.is_empty(), fields.duration("every", context)) {
            (false, None) => ScheduleRule::Cron(lines),
            (true, Some(interval)) => ScheduleRule::Every(interval),
            _ => {
                let problem = Diagnostic::error(codes::MISSING_KEY, "`schedule` needs either `cron` or `every`");
                context.report(problem.help("write `cron: \"15 * * * *\"`, or `every: 10m`"), &node.span, "");
                return None;
            }
        };
        if let Some(zone) = fields.text("timezone", context) {
            zone.clone_into(&mut found.timezone);
        }
        let catchup = [("none", CatchUp::None), ("latest", CatchUp::Latest), ("all", CatchUp::All)];
        let words = [("false", CatchUp::Latest), ("true", CatchUp::All)].into_iter().chain(catchup).collect::<Vec<_>>();
        found.catchup = fields.word("catchup", &words, context).unwrap_or_default();
        if let Some(node) = fields.get("dst") {
            let fields = Fields::of(node, keys::DST, &[], "`dst`", context)?;
            found.gap = fields.word("gap", &[("shift", Gap::Shift), ("skip", Gap::Skip)], context).unwrap_or_default();
            let folds = [("first", Fold::First), ("last", Fold::Last), ("both", Fold::Both)];
            found.fold = fields.word("fold", &folds, context).unwrap_or_default();
        }
        found.jitter = fields.duration("jitter", context).unwrap_or_default();
        found.start = moment(&fields, "start", &found.timezone, context);
        found.end = moment(&fields, "end", &found.timezone, context);
    } else {
        found.rule = ScheduleRule::Cron(fields.texts("schedule", context).into_iter().map(|(line, _)| line.to_owned()).collect());
    }
    match subak_plan::schedule::check(&found) {
        Ok(()) => Some(found),
        Err(error) => {
            context.invalid(node, error.to_string());
            None
        }
    }
}

/// A day or a time of the schedule's clock.
fn moment(fields: &Fields<'_>, name: &str, timezone: &str, context: &mut Context<'_>) -> Option<jiff::Timestamp> {
    let text = fields.text(name, context)?;
    let zone = jiff::tz::TimeZone::get(timezone).ok();
    let wall = text.parse::<jiff::civil::DateTime>().ok();
    let found = zone.zip(wall).and_then(|(zone, wall)| wall.to_zoned(zone).ok());
    if found.is_none() {
        context
            .invalid(fields.get(name)?, format!("`{name}` must be a day or a time such as `2026-11-21`, and this is `{text}`"));
    }
    found.map(|found| found.timestamp())
}

fn is_name(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    !text.is_empty() && text.len() <= 100 && text.chars().all(is_letter)
}

/// A program is tried once where nobody says more: what it did in a first attempt only it knows.
fn single(retry: Retry) -> Retry {
    Retry { attempts_max: std::num::NonZeroU32::MIN, ..retry }
}

fn params(fields: &Fields<'_>, key: &str, context: &mut Context<'_>) -> BTreeMap<String, Param> {
    let mut params = BTreeMap::new();
    for (name, node) in fields.named(key, context) {
        let Some(fields) = Fields::of(node, keys::PARAM, &[], &format!("parameter `{}`", name.text), context) else { continue };
        let kind = fields.word("type", &ParamKind::NAMES, context).unwrap_or(ParamKind::Text);
        let mut value = |text: &str, node: &Node| {
            let value = kind.parse(text);
            if value.is_none() {
                context.invalid(node, format!("`{text}` is no value of type {}", kind.as_str()));
            }
            value
        };
        let default = match fields.get("default") {
            Some(node) => match &node.value {
                Value::Scalar { text, .. } => value(text, node),
                _ => None,
            },
            None => None,
        };
        let mut choices = Vec::new();
        if let Some(Node { value: Value::List(items), .. }) = fields.get("choices") {
            for item in items {
                if let Value::Scalar { text, .. } = &item.value {
                    choices.extend(value(text, item));
                }
            }
        }
        let description = fields.text("description", context).map(str::to_owned);
        params.insert(name.text.clone(), Param { kind, default, choices, description });
    }
    params
}

/// The bounds of a task. A question is asked once, and people take their time.
fn limits_of(work: &Work, fields: &Fields<'_>, base: &Base, context: &mut Context<'_>) -> TaskLimits {
    match work {
        Work::Task(TaskWork::Approve(_)) => {
            TaskLimits::new(single(base.retry), fields.duration("timeout", context).unwrap_or(ANSWER_TIMEOUT))
        }
        _ => TaskLimits::new(base.retry, base.timeout),
    }
}

/// Bounds that tasks have where they say nothing.
#[derive(Clone)]
struct Base {
    retry: Retry,
    timeout: std::time::Duration,
    pools: PoolSlots,
}

/// Where tasks stand.
#[derive(Default, Clone)]
struct Group {
    /// What stands before their names: `load[books].`.
    prefix: String,
    /// What those of them that need nothing in the group wait for.
    needs: Vec<StepId>,
    trigger: Option<Trigger>,
    when: Option<String>,
    item: Option<Json>,
    /// Whether the item is known only in the run.
    is_template: bool,
}

/// A task as it stands in a mapping: its name, its keys where they can be read, and the places of what it needs.
type Written<'n> = (&'n Name, Option<Fields<'n>>, Vec<usize>);

/// The actions of tasks, and those of them that nothing else among them waits for.
#[derive(Default)]
struct Found {
    actions: Vec<Action>,
    leaves: Vec<StepId>,
}

struct Reader<'a> {
    scope: &'a Scope<'a>,
    params: &'a BTreeMap<String, Param>,
    /// Names of tasks that expressions may read.
    names: BTreeSet<String>,
    assets: Vec<(AssetKey, Range<usize>)>,
    /// Steps and the tasks that they are.
    steps: BTreeMap<StepId, String>,
    /// Steps that prepare something.
    setups: BTreeSet<StepId>,
    /// Whether a run of the job is about a time.
    has_interval: bool,
}

impl<'a> Reader<'a> {
    fn new(scope: &'a Scope<'a>, params: &'a BTreeMap<String, Param>, has_interval: bool) -> Self {
        let (names, assets, steps, setups) = Default::default();
        Self { scope, params, names, assets, steps, setups, has_interval }
    }
}

impl Reader<'_> {
    /// What texts of its tasks may read.
    fn texts(&self) -> Texts<'_> {
        Texts {
            scope: self.scope,
            names: Names::Task { tasks: &self.names, params: self.params, has_interval: self.has_interval },
        }
    }

    /// The tasks of a mapping, in the order of their needs.
    fn group(&mut self, node: &Node, group: &Group, base: &Base, context: &mut Context<'_>) -> Option<Found> {
        let Value::Map(entries) = &node.value else {
            context.wrong_shape(node, "`tasks`", "a mapping from names to tasks");
            return None;
        };
        let mut tasks: Vec<Written<'_>> = Vec::new();
        let known: Vec<&str> = entries.iter().map(|(name, _)| name.text.as_str()).collect();
        self.names.extend(known.iter().map(|name| (*name).to_owned()));
        for (name, node) in entries {
            if !is_name(&name.text) {
                let message = format!("`{}` is no name of a task: use letters, digits, `_` and `-`", name.text);
                context.report(Diagnostic::error(codes::INVALID_VALUE, message), &name.span, "");
            }
            let fields = Fields::of(node, keys::TASK, &[], &format!("task `{}`", name.text), context);
            let mut needs = Vec::new();
            for (text, node) in fields.map(|fields| fields.texts("needs", context)).unwrap_or_default() {
                match known.iter().position(|known| *known == text) {
                    Some(at) => needs.push(at),
                    None => unknown_task(text, &known, node, context),
                }
            }
            tasks.push((name, fields, needs));
        }
        let order = self.ordered(&tasks, context)?;
        let mut found = Found::default();
        let mut ends: Vec<Vec<StepId>> = vec![Vec::new(); tasks.len()];
        for at in order {
            let (name, fields, needs) = &tasks[at];
            let before: BTreeSet<StepId> = needs.iter().flat_map(|need| ends[*need].iter().cloned()).collect();
            let is_first = needs.is_empty();
            let own = Group {
                needs: if is_first { group.needs.clone() } else { before.into_iter().collect() },
                trigger: if is_first { group.trigger } else { None },
                when: if is_first { group.when.clone() } else { None },
                ..group.clone()
            };
            // What is wrong with one task hides nothing of the others.
            let made = fields.and_then(|fields| self.task(name, &fields, &own, base, context)).unwrap_or_default();
            found.actions.extend(made.actions);
            ends[at] = made.leaves;
        }
        let needed: BTreeSet<usize> = tasks.iter().flat_map(|(.., needs)| needs.iter().copied()).collect();
        found.leaves = (0..tasks.len()).filter(|at| !needed.contains(at)).flat_map(|at| ends[at].clone()).collect();
        Some(found)
    }

    /// Tasks behind everything that they need; a circle is told with its names.
    fn ordered(&self, tasks: &[Written<'_>], context: &mut Context<'_>) -> Option<Vec<usize>> {
        let mut order = Vec::with_capacity(tasks.len());
        let mut is_done = vec![false; tasks.len()];
        let mut open: Vec<usize> = (0..tasks.len()).collect();
        while !open.is_empty() {
            let is_ready = |at: &usize| tasks[*at].2.iter().all(|need| is_done[*need]);
            let Some(place) = open.iter().position(is_ready) else {
                let (mut at, mut path) = (open[0], Vec::new());
                while !path.contains(&at) {
                    path.push(at);
                    at = tasks[at].2.iter().copied().find(|need| open.contains(need))?;
                }
                let start = path.iter().position(|seen| *seen == at).unwrap_or(0);
                let mut names: Vec<&str> = path[start..].iter().map(|at| tasks[*at].0.text.as_str()).collect();
                names.push(&tasks[at].0.text);
                let message = format!("tasks need each other in a circle: {}", names.join(" → "));
                context.report(
                    Diagnostic::error(codes::CYCLE, message).help("remove one of these `needs`"),
                    &tasks[at].0.span,
                    "",
                );
                return None;
            };
            let at = open.remove(place);
            is_done[at] = true;
            order.push(at);
        }
        Some(order)
    }

    fn task(&mut self, name: &Name, fields: &Fields<'_>, group: &Group, base: &Base, context: &mut Context<'_>) -> Option<Found> {
        const KINDS: [&str; 10] = ["run", "python", "sql", "query", "http", "notify", "wait", "approve", "asset", "tasks"];
        let kinds: Vec<&str> = KINDS.iter().copied().filter(|kind| fields.get(kind).is_some()).collect();
        let [kind] = kinds.as_slice() else {
            let message = match kinds.as_slice() {
                [] => format!("task `{}` does nothing", name.text),
                kinds => format!("task `{}` does several things: {}", name.text, decode::list(kinds)),
            };
            let help = format!("give it one of {}", decode::list(&KINDS));
            context.report(Diagnostic::error(codes::MISSING_KEY, message).help(help), &name.span, "");
            return None;
        };
        let base = Base {
            retry: decode::retry(fields, base.retry, context),
            timeout: fields.duration("timeout", context).unwrap_or(base.timeout),
            pools: decode::pools(fields, &self.scope.config.pools, context).unwrap_or_else(|| base.pools.clone()),
        };
        let own_trigger = fields.word("trigger", &Trigger::NAMES, context);
        let own_when = fields.text("when", context).map(bare);
        if let Some(node) = fields.get("when") {
            self.texts().check_expression(node, context);
        }
        let when = match (&group.when, own_when) {
            (Some(outer), Some(own)) => Some(format!("({outer}) and ({own})")),
            (outer, own) => own.map(str::to_owned).or_else(|| outer.clone()),
        };
        let group = Group { trigger: own_trigger.or(group.trigger), when, ..group.clone() };
        if *kind == "tasks" {
            return self.nested(name, fields, &group, &base, context);
        }
        refuse_of_groups(fields, context);
        let (step, work) = self.work(kind, name, fields, &group, context)?;
        let full = format!("{}{}", group.prefix, name.text);
        if let Some(other) = self.steps.insert(step.clone(), full.clone()) {
            let message = format!("`{step}` is both the task `{other}` and the task `{full}` of the job");
            context.report(
                Diagnostic::error(codes::INVALID_VALUE, message).help("an asset is brought up to date once in a job"),
                &name.span,
                "",
            );
            return None;
        }
        let role = self.role(fields, context);
        if role.is_teardown() && !group.needs.iter().any(|need| self.setups.contains(need)) {
            let problem = Diagnostic::error(codes::INVALID_VALUE, format!("the teardown `{full}` needs no setup"));
            context.report(problem.help("let it need the task with `role: setup` whose work it takes away"), &name.span, "");
        }
        if role == Role::Setup {
            self.setups.insert(step.clone());
        }
        let trigger = group.trigger.unwrap_or(if role.is_teardown() { Trigger::AllDoneSetupSuccess } else { Trigger::default() });
        let short_circuit =
            fields.word("short_circuit", &[("all", ShortCircuit::All), ("direct", ShortCircuit::Direct)], context);
        let is_task = matches!(work, Work::Task(_));
        let limits = is_task.then(|| limits_of(&work, fields, &base, context));
        let rule = Rule {
            task: full,
            trigger,
            when: group.when,
            role,
            short_circuit,
            item: group.item,
            limits,
            pools: base.pools,
            ..Rule::default()
        };
        let action = Action { step: step.clone(), work, reason: Reason::Job, needs: group.needs, rule };
        Some(Found { actions: vec![action], leaves: vec![step] })
    }

    fn role(&self, fields: &Fields<'_>, context: &mut Context<'_>) -> Role {
        let role = fields.word("role", &[("work", Role::Work), ("setup", Role::Setup), ("teardown", Role::Teardown)], context);
        let counts = fields.boolean("fails_run", context).unwrap_or(false);
        match role.unwrap_or_default() {
            Role::Teardown if counts => Role::TeardownThatCounts,
            role => role,
        }
    }

    /// A group, once or for each item of a list.
    fn nested(
        &mut self,
        name: &Name,
        fields: &Fields<'_>,
        group: &Group,
        base: &Base,
        context: &mut Context<'_>,
    ) -> Option<Found> {
        let node = fields.get("tasks")?;
        for only in ["role", "fails_run", "short_circuit"] {
            if let Some(key) = fields.name(only) {
                let problem = Diagnostic::error(codes::INVALID_VALUE, format!("`{only}` belongs to a task, and this is a group"));
                context.report(problem.help("say it on a task of the group"), &key.span, "");
            }
        }
        let inner = |prefix: String| Group { prefix, ..group.clone() };
        let Some(list) = fields.get("for_each") else {
            return self.group(node, &inner(format!("{}{}.", group.prefix, name.text)), base, context);
        };
        match &list.value {
            Value::List(items) => {
                let items: Vec<Json> = items.iter().map(crate::plain_value).collect();
                if items.is_empty() {
                    context.invalid(list, "`for_each` has no items".to_owned());
                }
                let mut found = Found::default();
                for (label, item) in job::item_names(&items).iter().zip(&items) {
                    let prefix = format!("{}{}[{label}].", group.prefix, name.text);
                    let made = self.group(node, &Group { item: Some(item.clone()), ..inner(prefix) }, base, context)?;
                    found.actions.extend(made.actions);
                    found.leaves.extend(made.leaves);
                }
                Some(found)
            }
            Value::Scalar { text, .. } => {
                let items = bare(text);
                self.texts().check_expression(list, context);
                self.expanding(name, fields, (items, node), group, base, context)
            }
            _ => {
                context.wrong_shape(list, "`for_each`", "a list, or an expression that is one");
                None
            }
        }
    }

    /// A group whose list is known only in the run: `items` is the expression, `node` holds its tasks.
    fn expanding(
        &mut self,
        name: &Name,
        fields: &Fields<'_>,
        (items, node): (&str, &Node),
        group: &Group,
        base: &Base,
        context: &mut Context<'_>,
    ) -> Option<Found> {
        let count_max = match fields.get("items_max") {
            Some(node) => match text(node, "`items_max`", context)?.parse::<u32>() {
                Ok(count) if count > 0 => count,
                _ => {
                    context.invalid(node, "`items_max` must be a whole number above zero".to_owned());
                    return None;
                }
            },
            None => ITEM_COUNT_MAX,
        };
        let full = format!("{}{}", group.prefix, name.text);
        let step = StepId::task(&full);
        let inside = Group {
            prefix: format!("{full}[*]."),
            needs: vec![step.clone()],
            trigger: None,
            when: None,
            item: None,
            is_template: true,
        };
        let made = self.group(node, &inside, base, context)?;
        let work = TaskWork::Expand { items: items.to_owned(), count_max, actions: made.actions, leaves: made.leaves };
        let rule = Rule {
            task: full,
            trigger: group.trigger.unwrap_or_default(),
            when: group.when.clone(),
            item: group.item.clone(),
            ..Rule::default()
        };
        let action = Action { step: step.clone(), work: Work::Task(work), reason: Reason::Job, needs: group.needs.clone(), rule };
        Some(Found { actions: vec![action], leaves: vec![step] })
    }

    /// What a task does, and the step that it is.
    fn work(
        &mut self,
        kind: &str,
        name: &Name,
        fields: &Fields<'_>,
        group: &Group,
        context: &mut Context<'_>,
    ) -> Option<(StepId, Work)> {
        let node = fields.get(kind)?;
        let step = StepId::task(&format!("{}{}", group.prefix, name.text));
        let work = match kind {
            "run" | "python" | "query" | "http" => self.texts().asking(kind, fields, context)?,
            "sql" => {
                let (on, sql) = self.texts().statement(node, "sql", context)?;
                TaskWork::Sql { on, sql }
            }
            "notify" => {
                let (receiver, message) = self.texts().message(node, context)?;
                TaskWork::Notify { receiver, message }
            }
            "approve" => TaskWork::Approve(self.approval(node, context)?),
            "wait" => {
                let wait = fields.duration("wait", context)?;
                TaskWork::Wait { wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) }
            }
            _ => {
                let asset = self.asset(node, group, context)?;
                let work = Work::Materialize { asset: asset.clone(), full_refresh: false, range: None, partition: None };
                return Some((StepId::asset(&asset), work));
            }
        };
        Some((step, Work::Task(work)))
    }

    /// A question, or a mapping.
    fn approval(&self, node: &Node, context: &mut Context<'_>) -> Option<Approval> {
        self.texts().check_templates(node, context);
        let Value::Map(_) = &node.value else {
            return Some(Approval { message: text(node, "`approve`", context)?.to_owned(), ..Approval::default() });
        };
        let fields = Fields::of(node, keys::APPROVAL, &[], "`approve`", context)?;
        // What is wrong with one of them hides nothing of the others.
        let input = params(&fields, "input", context);
        let default = fields.word("default", &[("approve", true), ("reject", false)], context);
        let continues = fields.word("on_reject", &[("fail", false), ("continue", true)], context).unwrap_or(false);
        let notify = match fields.get("notify") {
            None => None,
            Some(to) => Some(receiver_ref(text(to, "`notify`", context)?, to, &self.scope.config.receivers, context)?),
        };
        Some(Approval { message: fields.text("message", context)?.to_owned(), input, default, continues, notify })
    }

    fn asset(&mut self, node: &Node, group: &Group, context: &mut Context<'_>) -> Option<AssetKey> {
        let written = text(node, "`asset`", context)?;
        if group.is_template {
            let problem = Diagnostic::error(codes::INVALID_VALUE, "an asset cannot hang on a list that is known only in the run");
            context.report(problem.help("write the list out under `for_each:`, or run a program"), &node.span, "");
            return None;
        }
        let rendered = match &group.item {
            Some(item) => match Values::of_item(item).render(written) {
                Ok(text) => text,
                Err(error) => {
                    let problem = Diagnostic::error(codes::TEMPLATE, "the name of the asset cannot be rendered");
                    context.report(problem.caused_by(error.to_string()).help("names of assets know `item` only"), &node.span, "");
                    return None;
                }
            },
            None => written.to_owned(),
        };
        let key = decode::asset_key(&rendered, node, context)?;
        self.assets.push((key.clone(), context.place(&node.span)));
        Some(key)
    }
}

/// What only a group can say.
fn refuse_of_groups(fields: &Fields<'_>, context: &mut Context<'_>) {
    for only in ["for_each", "items_max"] {
        if let Some(key) = fields.name(only) {
            let message = format!("`{only}` belongs to a group of tasks");
            context.report(
                Diagnostic::error(codes::INVALID_VALUE, message).help("put the task below `tasks:` of a group"),
                &key.span,
                "",
            );
        }
    }
}

/// The tasks of an asset that a graph of them makes, and those behind which nothing comes.
pub(crate) fn tasks_of(
    scope: &Scope<'_>,
    key: &AssetKey,
    fields: &Fields<'_>,
    context: &mut Context<'_>,
) -> Option<(Vec<Action>, Vec<StepId>)> {
    let node = fields.get("tasks")?;
    let params = BTreeMap::new();
    let mut reader = Reader::new(scope, &params, false);
    let base = Base {
        retry: decode::retry(fields, single(scope.config.retry), context),
        timeout: fields.duration("timeout", context).unwrap_or(scope.config.timeout),
        pools: decode::pools(fields, &scope.config.pools, context).unwrap_or_default(),
    };
    let found = reader.group(node, &Group { prefix: format!("{key}."), ..Group::default() }, &base, context)?;
    if found.actions.is_empty() {
        context.invalid(node, format!("no task makes `{key}`"));
        return None;
    }
    for (asset, _) in &reader.assets {
        let problem =
            Diagnostic::error(codes::INVALID_VALUE, format!("`{asset}` is an asset, and an asset is no task of another one"));
        context.report(problem.help(format!("let the graph depend on it: `depends_on: {asset}`")), &node.span, "");
    }
    Some((found.actions, found.leaves))
}

/// `observe` of an external asset.
pub(crate) fn observation(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<TaskWork> {
    let fields = Fields::of(node, keys::OBSERVE, &[], "`observe`", context)?;
    let said: Vec<&str> = keys::OBSERVE.iter().map(|key| key.name).filter(|name| fields.get(name).is_some()).collect();
    let [kind] = said.as_slice() else {
        let known: Vec<&str> = keys::OBSERVE.iter().map(|key| key.name).collect();
        let problem = Diagnostic::error(codes::MISSING_KEY, format!("`observe` needs one of {}", decode::list(&known)));
        context.report(problem.help("write `observe: { query: \"select count(*) from raw.orders\" }`"), &node.span, "");
        return None;
    };
    Texts { scope, names: Names::Asset }.asking(kind, &fields, context)
}

fn unknown_task(text: &str, known: &[&str], node: &Node, context: &mut Context<'_>) {
    let problem = Diagnostic::error(codes::TASK_UNKNOWN, format!("there is no task `{text}` here"));
    let problem = match nearest(text, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("a task needs tasks of its own group; what the group needs holds for the first of them"),
    };
    context.report(problem, &node.span, "not declared");
}

/// Whether a task can bring an asset up to date: it is whole, or has a last window.
fn is_runnable(graph: &AssetGraph, asset: &AssetKey) -> bool {
    let partitioning = graph.get(asset).and_then(|asset| asset.partitioning.as_ref());
    partitioning.is_none_or(|partitioning| matches!(partitioning.rule, PartitionRule::Time(_)))
}

/// The jobs and sensors of all files. Reports what has one name, and what names things that are not there.
pub(crate) fn resolved<'a>(
    files: impl Iterator<Item = (&'a Arc<str>, &'a Declared)> + Clone,
    graph: Option<&AssetGraph>,
    problems: &mut Vec<Diagnostic>,
) -> (Vec<Job>, Vec<Sensor>) {
    let declared = files.clone().flat_map(|(path, file)| file.jobs.iter().map(|job| (Arc::clone(path), job)));
    let jobs = resolved_jobs(declared, graph, problems);
    let declared = files.flat_map(|(path, file)| file.sensors.iter().map(|sensor| (Arc::clone(path), sensor)));
    let sensors = sensor::resolved(declared, &jobs, graph, problems);
    (jobs, sensors)
}

fn resolved_jobs<'a>(
    jobs: impl Iterator<Item = (Arc<str>, &'a JobDeclaration)>,
    graph: Option<&AssetGraph>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Job> {
    let mut seen: BTreeMap<&str, Arc<str>> = BTreeMap::new();
    let mut found = Vec::new();
    for (path, declaration) in jobs {
        let name = declaration.job.name.as_str();
        let mut job = declaration.job.clone();
        if let (JobWork::Tasks(actions), Some(graph)) = (&mut job.work, graph) {
            *actions = with_tasks(std::mem::take(actions), graph);
        }
        found.push(job);
        if let Some(other) = seen.insert(name, Arc::clone(&path)) {
            let problem = Diagnostic::error(codes::DUPLICATE_ASSET, format!("job `{name}` is declared twice"));
            problems.push(problem.at(&path, declaration.span.clone(), "").help(format!("the other one stands in `{other}`")));
        }
        let Some(graph) = graph else { continue };
        for (asset, span) in &declaration.assets {
            let message = match graph.get(asset).map(|asset| &asset.definition) {
                Some(Definition::External { .. }) => {
                    format!("`{asset}` is external: something else keeps it up to date, and a job with `select:` observes it")
                }
                Some(_) if !is_runnable(graph, asset) => {
                    format!("`{asset}` has partitions that are no windows of time, and a task does not say which one is meant")
                }
                Some(_) => continue,
                None => format!("there is no asset `{asset}`"),
            };
            let problem = Diagnostic::error(codes::UNKNOWN_UPSTREAM, message);
            problems.push(problem.at(&path, span.clone(), "").help("`subak list` shows the assets"));
        }
    }
    found
}
