//! Sensors: looking, and writing down what follows from a look.
//!
//! A look changes nothing. What follows from it (what the sensor remembers, the keys of partitions, the runs, the tick) is written in one
//! transaction, so a crash at any point neither loses nor doubles a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use subak_connect::crash;
use subak_domain::sensor::{LogItem, Look, RunRequest};
use subak_domain::snapshot::{materialized_by, published_by};
use subak_domain::{Event, Failure, FailureClass, Job, JobWork, RunEvent, RunId, Sensor, Snapshot, Timestamp, Watch};
use subak_engine::look::LookRequest;
use subak_engine::{Clock, DataExecutor, StopReason, StopSignal, SystemClock};
use subak_plan::PartitionPick;
use subak_plan::expression::Values;
use subak_project::partition::key_problem;
use subak_store::{Append, EventLog, Lease, Looked, SensorLook, SensorState, SqliteStore, Tick, TickOutcome};

use super::super::{Context, automation, job, plan, run};
use crate::args::Selection;
use crate::exit::CliError;
use crate::open::{self, ProjectConnections};
use crate::project::Opened;
use crate::redact::Redactor;
use crate::version::Version;

/// Events that are read from the log at a time.
const EVENT_COUNT: usize = 1_000;

/// Pages that one look reads.
const PAGE_COUNT_MAX: usize = 20;

/// What a look found, or why it could not look.
pub(in crate::commands) type Seen = Result<Look, Box<Failure>>;

/// A look that goes on.
pub(in crate::commands) struct Looking<'a> {
    pub(in crate::commands) sensor: Sensor,
    /// What was known before.
    pub(in crate::commands) state: SensorState,
    pub(in crate::commands) began_at: Timestamp,
    /// The files that it goes by, also when others are served before it is done.
    pub(in crate::commands) version: Arc<Version>,
    pub(in crate::commands) work: Pin<Box<dyn Future<Output = Seen> + 'a>>,
}

/// What is known of a sensor: what the store tells, as far as it is about what the sensor watches now.
pub(in crate::commands) fn known(store: &SqliteStore, sensor: &Sensor) -> Result<SensorState, CliError> {
    let watches = sensor.watch.identity();
    Ok(match store.sensor(&sensor.name)? {
        Some(state) if state.watches == watches => state,
        Some(state) => SensorState { watches, cursor: Value::Null, ..state },
        None => SensorState::new(watches),
    })
}

/// Looks once. Nothing is written.
pub(in crate::commands) async fn look(
    context: &Context<'_>,
    opened: &Opened,
    connections: Arc<ProjectConnections>,
    sensor: &Sensor,
    state: &SensorState,
    stop: StopSignal,
) -> Seen {
    let redactor = connections.redactor();
    let teller = Arc::new(crate::notices::Teller::new(Arc::clone(&connections)));
    let mut place = open::place(opened, context.settings, redactor.clone(), teller);
    place.logs = place.logs.join("sensors");
    if connections.is_read_only() {
        place = place.apart();
    }
    let run = run::new_run();
    let logs: PathBuf = place.logs.join(run.to_string());
    let executor = DataExecutor {
        graph: Arc::clone(opened.graph()),
        connections,
        reporter: Arc::new(super::super::test::Silent),
        as_of: crate::project::as_of(context.global.as_of.as_deref(), &opened.project.config.timezone),
        timezone: opened.timezone(),
        place,
        invocations: subak_engine::Invocations::default(),
    };
    let now = SystemClock.now();
    let request = LookRequest {
        sensor: &sensor.name,
        watch: &sensor.watch,
        is_per_item: sensor.is_per_item,
        cursor: &state.cursor,
        now,
        run,
    };
    let mut looked = std::pin::pin!(executor.look(&request, &stop));
    let deadline = now.checked_add(jiff::SignedDuration::try_from(sensor.timeout).unwrap_or(jiff::SignedDuration::MAX));
    let seen = tokio::select! {
        seen = &mut looked => seen,
        () = SystemClock.sleep_until(deadline.unwrap_or(Timestamp::MAX)) => {
            stop.stop(StopReason::TimedOut);
            looked.await
        }
    };
    if seen.is_ok() {
        // Nobody reads what a look printed that went well. Best effort: there may be no such folder.
        drop(tokio::fs::remove_dir_all(&logs).await);
    }
    match seen {
        Ok(look) => Ok(without_secrets(&redactor, look)),
        Err(failure) => Err(masked(&redactor, *failure)),
    }
}

/// What a look found as it may be written down. The cursor stays as it is: what it says is compared, and not shown.
fn without_secrets(redactor: &Redactor, look: Look) -> Look {
    let request = |request: RunRequest| RunRequest {
        key: redactor.redact(&request.key),
        items: request.items.into_iter().map(|item| redactor.value(item)).collect(),
        set: request.set.into_iter().map(|(name, value)| (name, redactor.value(value))).collect(),
        partition: request.partition.map(|key| redactor.redact(&key)),
    };
    let requests = look.requests.into_iter().map(request).collect();
    let partitions = look.partitions.into_iter().map(|(set, key)| (set, redactor.redact(&key))).collect();
    Look { requests, partitions, note: look.note.map(|note| redactor.redact(&note)), ..look }
}

fn masked(redactor: &Redactor, mut failure: Failure) -> Box<Failure> {
    failure.message = redactor.redact(&failure.message);
    for text in failure.causes.iter_mut().chain(&mut failure.help) {
        *text = redactor.redact(text);
    }
    Box::new(failure)
}

/// Looks at the project's own log. `None` where nothing has happened since the last look.
pub(in crate::commands) async fn look_at_log(
    store: &SqliteStore,
    sensor: &Sensor,
    state: &SensorState,
) -> Result<Option<Look>, CliError> {
    if let Watch::Webhook { .. } = sensor.watch {
        return look_at_deliveries(store, sensor, state);
    }
    let newest = store.newest_position()?;
    let Some(mut position) = subak_plan::sensor::log_position(&state.cursor) else {
        return Ok(Some(subak_plan::sensor::log_start(newest)));
    };
    if position >= newest {
        return Ok(None);
    }
    let (mut found, own) = (Vec::new(), trigger(sensor));
    // What is too much for one look comes with the next.
    for _ in 0..PAGE_COUNT_MAX {
        let events = store.read_after(position, EVENT_COUNT).await?;
        let Some(last) = events.last() else {
            position = position.max(newest);
            break;
        };
        position = last.position;
        for event in &events {
            found.extend(log_item(store, sensor, event, &own)?);
        }
        if found.len() > subak_plan::sensor::REQUEST_COUNT_MAX && sensor.is_per_item {
            break;
        }
    }
    let all: Option<Vec<String>> = match &sensor.watch {
        Watch::Assets { assets, needs_all: true } => Some(assets.iter().map(ToString::to_string).collect()),
        _ => None,
    };
    Ok(Some(subak_plan::sensor::log(&state.cursor, found, position, all.as_deref(), sensor.is_per_item)))
}

/// Looks at what the sensor was told. What came before its first look counts too.
fn look_at_deliveries(store: &SqliteStore, sensor: &Sensor, state: &SensorState) -> Result<Option<Look>, CliError> {
    let position = subak_plan::sensor::log_position(&state.cursor).unwrap_or(0);
    let found = store.deliveries(&sensor.name, position, subak_plan::sensor::REQUEST_COUNT_MAX + 1)?;
    let Some((last, _)) = found.last() else { return Ok(None) };
    let last = *last;
    let items = found.into_iter().map(|(position, delivery)| {
        let at = delivery.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        LogItem { position, value: json!({ "id": delivery.id, "at": at, "body": delivery.body }), name: delivery.id }
    });
    let mut look = subak_plan::sensor::log(&state.cursor, items.collect(), last, None, sensor.is_per_item);
    // The same numbers name events of the log for a sensor of this name that watched something else.
    for request in &mut look.requests {
        request.key = format!("delivery {}", request.key);
    }
    Ok(Some(look))
}

/// What an event is for a sensor, if it is anything. What the sensor's own runs do never starts another one.
fn log_item(store: &SqliteStore, sensor: &Sensor, event: &Event, own: &str) -> Result<Option<LogItem>, CliError> {
    let (run, at) = (event.run.to_string(), event.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let (name, value) = match (&sensor.watch, &event.event) {
        (Watch::Assets { assets, .. }, RunEvent::StepSucceeded { .. } | RunEvent::StepErrored { .. }) => {
            let Some(asset) = materialized_by(&event.event).filter(|asset| assets.contains(asset)) else { return Ok(None) };
            let Some((_, outcome)) = published_by(&event.event).filter(|(_, outcome)| outcome.changed) else { return Ok(None) };
            let value = json!({
                "asset": asset.to_string(), "partition": outcome.partition, "run": run, "at": at, "row_count": outcome.row_count,
            });
            (asset.to_string(), value)
        }
        (Watch::Jobs { jobs, status }, RunEvent::Finished { status: ended }) if status.is_none_or(|status| status == *ended) => {
            let Some((_, Some(job))) = store.origin(event.run)? else { return Ok(None) };
            if !jobs.contains(&job) {
                return Ok(None);
            }
            let value = json!({ "job": job, "run": run, "status": ended.as_str(), "at": at });
            (job, value)
        }
        _ => return Ok(None),
    };
    if store.origin(event.run)?.is_some_and(|(trigger, _)| trigger == own) {
        return Ok(None);
    }
    Ok(Some(LogItem { position: event.position, name, value }))
}

/// What runs that a sensor starts say of their origin.
fn trigger(sensor: &Sensor) -> String {
    format!("sensor {}", sensor.name)
}

/// A run that a look asks for, as it would be planned.
pub(in crate::commands) struct Asked {
    pub(in crate::commands) key: String,
    pub(in crate::commands) params: BTreeMap<String, Value>,
    pub(in crate::commands) partition: Option<String>,
    /// `None` where there is nothing to do.
    planned: Option<RunEvent>,
}

impl Asked {
    /// Whether there is nothing to do.
    pub(in crate::commands) fn is_idle(&self) -> bool {
        self.planned.is_none()
    }
}

/// What a request of a look comes to: the parameters, the partition, the run.
pub(in crate::commands) fn asked(
    opened: &Opened,
    snapshot: &Snapshot,
    sensor: &Sensor,
    job: &Job,
    request: RunRequest,
) -> Result<Asked, CliError> {
    let unusable = |cause: String| {
        let problem = subak_diag::Diagnostic::error(subak_diag::codes::TEMPLATE, "a text of the sensor has no value");
        CliError::new(problem.caused_by(cause), crate::exit::Exit::Invalid)
    };
    let item = request.items.last().cloned().unwrap_or(Value::Null);
    let values = Values::of(&json!({ "sensor": sensor.name, "item": item, "items": request.items }));
    let mut said = BTreeMap::new();
    for (name, template) in &sensor.set {
        said.insert(name.clone(), values.render(template).map_err(|error| unusable(error.to_string()))?);
    }
    for (name, value) in &request.set {
        said.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let said: Vec<String> = said.into_iter().map(|(name, text)| format!("{name}={text}")).collect();
    let params = job::params(job, &said)?;
    let own =
        sensor.partition.as_ref().map(|text| values.render(text)).transpose().map_err(|error| unusable(error.to_string()))?;
    let partition = request.partition.or(own);
    let (actions, selection) = match &job.work {
        JobWork::Tasks(actions) => (actions.clone(), format!("job {}", job.name)),
        JobWork::Select(words) => {
            let selection = Selection { select: words.clone(), exclude: Vec::new() };
            let picks = partition.iter().cloned().map(PartitionPick::Key).collect();
            let added: Vec<(String, String)> = sensor.add_to.clone().zip(partition.clone()).into_iter().collect();
            let snapshot = with_keys(snapshot.clone(), &added);
            let plan = plan::of(opened, &snapshot, &selection, &plan::How { picks, ..plan::How::default() })?;
            (plan.actions, format!("job {}: {}", job.name, words.join(" ")))
        }
    };
    let interval = automation::interval(opened, job)?;
    let planned = (!actions.is_empty()).then(|| RunEvent::Planned {
        actions,
        selection,
        trigger: trigger(sensor),
        as_of: opened.as_of_template.clone(),
        job: Some(job.name.clone()),
        params: params.clone(),
        interval,
        for_server: true,
    });
    Ok(Asked { key: request.key, params, partition, planned })
}

/// The runs of a look, as they are written.
#[derive(Default)]
struct Planned {
    runs: Vec<(Option<String>, Append)>,
    partitions: Vec<(String, String)>,
    /// How many of its requests need no run.
    idle_count: usize,
    /// What is wrong with the others.
    problems: Vec<String>,
}

impl Planned {
    /// Takes keys for sets of dynamic partitions; those that can be none are problems.
    fn add(&mut self, partitions: Vec<(String, String)>) {
        for (set, key) in partitions {
            match key_problem(&key) {
                None => self.partitions.push((set, key)),
                Some(why) => self.problems.push(format!("`{key}` is no key of a partition: {why}")),
            }
        }
    }
}

fn plan_all(opened: &Opened, snapshot: &Snapshot, sensor: &Sensor, requests: Vec<RunRequest>) -> Planned {
    let mut all = Planned::default();
    for request in requests {
        let key = request.key.clone();
        match job::find(opened, &sensor.job).and_then(|job| asked(opened, snapshot, sensor, job, request)) {
            Ok(Asked { planned: None, .. }) => all.idle_count += 1,
            Ok(Asked { partition: Some(wrong), .. }) if sensor.add_to.is_some() && key_problem(&wrong).is_some() => {
                let why = key_problem(&wrong).unwrap_or_default();
                all.problems.push(format!("`{wrong}` is no key of a partition: {why}"));
            }
            Ok(Asked { key, partition, planned: Some(event), .. }) => {
                all.partitions.extend(sensor.add_to.clone().zip(partition));
                let events = vec![(SystemClock.now(), event)];
                all.runs.push((Some(key), Append { run: run::new_run(), expected: 1, events, fence: None }));
            }
            Err(error) => all.problems.push(format!("`{key}`: {}", error.summary())),
        }
    }
    all
}

/// What became of a look.
pub(in crate::commands) struct Written {
    /// What is worth telling.
    pub(in crate::commands) told: Option<String>,
    /// Whether something that it saw could not be used.
    pub(in crate::commands) has_problems: bool,
}

/// Writes down a look and everything that follows from it. The project is only opened where there is a run to plan.
pub(in crate::commands) async fn commit(
    store: &SqliteStore,
    lease: &Lease,
    looking: (Sensor, SensorState, Timestamp),
    seen: Seen,
    open: impl FnOnce() -> Result<Opened, CliError>,
) -> Result<Written, CliError> {
    let (sensor, before, began_at) = looking;
    let (cursor, note, planned) = match seen {
        Err(failure) => (before.cursor.clone(), None, Planned { problems: vec![summary(&failure)], ..Planned::default() }),
        Ok(found) if found.requests.is_empty() => {
            let mut planned = Planned::default();
            planned.add(found.partitions);
            let cursor = if planned.problems.is_empty() { found.cursor } else { before.cursor.clone() };
            (cursor, found.note, planned)
        }
        Ok(found) => {
            let snapshot = with_keys(store.snapshot()?, &found.partitions);
            let mut planned = plan_all(&open()?, &snapshot, &sensor, found.requests);
            planned.add(found.partitions);
            // What happened to runs does not happen again: sensors of the log go on behind it. Any other looks again at all of it; what has had its
            // run is known by its key.
            let is_done = planned.problems.is_empty() || sensor.watch.is_of_log();
            (if is_done { found.cursor } else { before.cursor.clone() }, found.note, planned)
        }
    };
    let has_problems = !planned.problems.is_empty();
    let came_to = came_to(note, &planned);
    let runs: Vec<RunId> = planned.runs.iter().map(|(_, append)| append.run).collect();
    let outcome = match (runs.is_empty(), has_problems) {
        (false, false) => Some(TickOutcome::Started(runs)),
        (_, true) => (before.came_to != came_to).then(|| TickOutcome::Failed(problems_of(&came_to))),
        (true, false) => (planned.idle_count > 0).then(|| TickOutcome::Skipped(came_to.clone())),
    };
    let told = outcome.as_ref().map(|outcome| format!("sensor `{}`: {}", sensor.name, in_words(outcome)));
    let recorded_at = SystemClock.now();
    let look = SensorLook {
        sensor: sensor.name.clone(),
        state: SensorState { cursor, looked_at: Some(began_at), came_to, revision: before.revision + 1, ..before },
        tick: outcome.map(|outcome| Tick { schedule: sensor.name, at: began_at, outcome, recorded_at }),
        runs: planned.runs,
        partitions: planned.partitions,
        fence: Some(lease.clone()),
    };
    let has_runs = !look.runs.is_empty();
    if has_runs {
        crash::point("look_planned");
    }
    let looked = store.look(look).await?;
    if has_runs {
        crash::point("look_written");
    }
    // Somebody may have switched it off meanwhile.
    let told = told.filter(|_| matches!(looked, Looked::Started(_)));
    Ok(Written { told, has_problems })
}

/// What a tick that failed says of itself.
fn problems_of(came_to: &str) -> String {
    came_to.strip_prefix("failed: ").unwrap_or(came_to).to_owned()
}

/// What a look came to, for people.
fn came_to(note: Option<String>, planned: &Planned) -> String {
    if !planned.problems.is_empty() {
        let text = crate::redact::text(&planned.problems.join("; "));
        return format!("failed: {text}");
    }
    match (planned.runs.len(), planned.idle_count) {
        (0, 0) => note.unwrap_or_default(),
        (0, _) => "what it saw needs no run: everything is fresh".to_owned(),
        (count, _) => format!("started {}", crate::printer::counted(count as u64, "run")),
    }
}

/// What came of a tick, in words.
pub(in crate::commands) fn in_words(outcome: &TickOutcome) -> String {
    match outcome {
        TickOutcome::Started(runs) => {
            format!("started run {}", runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        TickOutcome::Skipped(reason) => format!("skipped: {reason}"),
        TickOutcome::Failed(reason) => format!("failed: {reason}"),
    }
}

/// The snapshot with keys of dynamic partitions that are about to be there.
pub(in crate::commands) fn with_keys(mut snapshot: Snapshot, partitions: &[(String, String)]) -> Snapshot {
    for (set, key) in partitions {
        let keys = snapshot.dynamic.entry(set.clone()).or_default();
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    snapshot
}

/// A failure in one line. The output of a program is left to its log: a time in it would make each failure another one.
pub(in crate::commands) fn summary(failure: &Failure) -> String {
    match failure.causes.first().filter(|_| failure.class != FailureClass::Program) {
        Some(cause) => format!("{}: {cause}", failure.message),
        None => failure.message.clone(),
    }
}
