//! `subak why`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use serde_json::json;
use subak_domain::partition::KEY_JOINT;
use subak_domain::{Asset, Definition, Job, PartitionRule, RunId, RunState, RunStatus, Snapshot, StepId, StepState, StepStatus};
use subak_engine::{Clock, SystemClock};
use subak_plan::Known;
use subak_store::{PartitionDetail, SqliteStore, TickOutcome};

use super::server::sensor;
use super::{Context, automation, list, partition, pool, run, runs};
use crate::args::WhyArgs;
use crate::exit::{CliError, Exit};
use crate::printer::counted;
use crate::project::Opened;
use crate::queue::{self, Entry, Rules};

pub(super) fn execute(context: &Context<'_>, args: &WhyArgs) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let asset = |text: &str| text.parse().ok().and_then(|key| opened.graph().get(&key).cloned());
    let partition = args.what.split_once('@').and_then(|(key, partition)| Some((asset(key)?, partition)));
    let job = opened.project.jobs().iter().find(|job| job.name == args.what);
    let sentence = match (asset(&args.what), partition, job) {
        (Some(asset), ..) => asset_sentence(context, &opened, &asset)?,
        (_, Some((asset, partition)), _) => partition_sentence(context, &opened, &asset, partition)?,
        (.., Some(job)) => job_sentence(&opened, job)?,
        _ => run_sentence(&opened, &args.what)?,
    };
    context.printer.object("why", &json!({ "what": args.what, "sentence": sentence }), &sentence);
    Ok(Exit::Ok)
}

fn asset_sentence(context: &Context<'_>, opened: &Opened, asset: &Asset) -> Result<String, CliError> {
    let snapshot: Snapshot = context.snapshot(opened)?;
    if let Some(failure) = last_failure(opened, asset)? {
        return Ok(failure);
    }
    let key = &asset.key;
    let (status, reason) = list::status(opened, &snapshot, asset);
    Ok(match (status, reason, snapshot.latest.get(key)) {
        ("late", Some(reason), Some(latest)) => format!(
            "`{key}` is {reason}. It was last brought up to date at {}; `subak run +{key}` does it again.",
            automation::text(latest.confirmed_at)
        ),
        ("external", ..) if !asset.definition.is_unobserved() => match snapshot.latest.get(key) {
            Some(latest) => format!(
                "`{key}` is external: something outside keeps it up to date; a look found it changed at {}, and one that it was so at {}.",
                automation::text(latest.at),
                automation::text(latest.confirmed_at)
            ),
            None => format!(
                "`{key}` is external: something outside keeps it up to date, and nobody has looked yet; `subak run {key}` does."
            ),
        },
        ("external", ..) => format!("`{key}` is external: something outside keeps it up to date, and no run touches it."),
        ("missing", ..) => format!("`{key}` was never materialized; `subak run +{key}` makes it and whatever it reads."),
        ("stale", Some(reason), _) => format!("`{key}` is stale because {reason}; `subak run {key}` brings it up to date."),
        (_, _, Some(latest)) => {
            let again = match asset.definition {
                Definition::Ingest(_) => "; each run asks its source for new rows",
                _ => "; nothing upstream is newer and its definition is the one that made it",
            };
            format!("`{key}` is fresh: run {} changed it at {}{again}.", latest.run, latest.at.strftime("%Y-%m-%d %H:%M:%S UTC"))
        }
        _ => format!("`{key}` is fresh."),
    })
}

/// The sentence on the newest run, when the asset failed or was held back there.
fn last_failure(opened: &Opened, asset: &Asset) -> Result<Option<String>, CliError> {
    let Some(store) = opened.store_if_there()? else { return Ok(None) };
    let step = StepId::asset(&asset.key);
    for summary in store.runs(20)? {
        let (state, _) = runs::state(&store, summary.run)?;
        // Its partitions are steps of their own.
        let mut found = state.steps.iter().filter(|(id, _)| id.base() == step).peekable();
        if found.peek().is_none() {
            continue;
        }
        let is_bad = |state: &StepState| {
            matches!(state.status, StepStatus::Failed | StepStatus::Canceled)
                || matches!(&state.skip_reason, Some(subak_domain::event::SkipReason::UpstreamFailed { .. }))
        };
        let bad = found.find(|(_, state)| is_bad(state));
        return Ok(bad.map(|(id, state)| step_sentence(&summary.run.to_string(), id, state)));
    }
    Ok(None)
}

/// Why a partition is what it is.
fn partition_sentence(context: &Context<'_>, opened: &Opened, asset: &Asset, key: &str) -> Result<String, CliError> {
    let name = format!("{}@{key}", asset.key);
    // As it can be typed into a shell.
    let typed = if key.contains(KEY_JOINT) { format!("'{key}'") } else { key.to_owned() };
    let Some(partitioning) = &asset.partitioning else {
        return Ok(format!("`{}` has no partitions.", asset.key));
    };
    let snapshot = context.snapshot(opened)?;
    let known = Known::of(partitioning, &snapshot, opened.now());
    if (0..known.len()).all(|at| known.key(at).as_deref() != Some(key)) {
        let why = match &partitioning.rule {
            PartitionRule::Time(windows) => match windows.last(opened.now()).and_then(|at| windows.partition(at)) {
                Some(last) => format!("no window that has ended has this key; the last one is `{}`", last.key),
                None => "no window of it has ended yet".to_owned(),
            },
            PartitionRule::Static(_) => "it is none of the keys that are declared".to_owned(),
            PartitionRule::Dynamic(set) => format!("nobody has added it: `subak partition add {set} {key}`"),
            PartitionRule::Grid(dimensions) => {
                let names: Vec<&str> = dimensions.iter().map(|dimension| dimension.name.as_str()).collect();
                format!("a key is one of each dimension: `{}`", names.join("|"))
            }
        };
        return Ok(format!("`{name}` is no partition: {why}."));
    }
    let store = opened.store_if_there()?;
    let details = store.as_ref().map(|store| store.partitions(&asset.key)).transpose()?.unwrap_or_default();
    let detail = details.iter().find(|detail| detail.key == key);
    let made = |detail: &PartitionDetail| format!("run {} at {}", detail.run, automation::text(detail.at));
    Ok(match (partition::state(asset, detail), detail, store) {
        ("failed", Some(detail), Some(store)) => {
            let (state, _) = runs::state(&store, detail.run)?;
            let step = StepId::partition(&asset.key, key);
            match state.steps.get(&step) {
                Some(found) => step_sentence(&detail.run.to_string(), &step, found),
                None => format!("`{name}` failed in {}.", made(detail)),
            }
        }
        ("outdated", Some(detail), _) => format!(
            "`{name}` was made by {}, and the definition of `{}` is another one since; `subak run {} --partition {typed}` makes it again.",
            made(detail),
            asset.key,
            asset.key
        ),
        (_, Some(detail), _) => format!("`{name}` is done: {} made it.", made(detail)),
        _ => format!("`{name}` was never made; `subak run {} --partition {typed}` makes it.", asset.key),
    })
}

/// When a job comes next, or why it does not.
fn job_sentence(opened: &Opened, job: &Job) -> Result<String, CliError> {
    let name = &job.name;
    let Some(store) = opened.store_if_there()? else {
        return Ok(format!("job `{name}` has never run; `subak run --job {name}` starts it."));
    };
    for run in store.open_runs()? {
        if runs::state(&store, run)?.0.job.as_deref() == Some(name) {
            return run_sentence(opened, &run.to_string());
        }
    }
    let last = store.last_run_of(name)?;
    let last = match last {
        Some(last) => {
            format!("run {} of it {} at {}", last.run, last.status, automation::text(last.ended_at.unwrap_or(last.planned_at)))
        }
        None => "it has never run".to_owned(),
    };
    let is_served = run::served(opened)?.is_some();
    let next = match &job.schedule {
        None => format!("it has no schedule; `subak run --job {name}` starts it"),
        Some(_) if store.schedule(name)?.is_some_and(|state| state.is_off) => {
            format!("its schedule is off; `subak automation on {name}` switches it on")
        }
        Some(_) if !is_served => "no server runs, so nothing starts it by itself; `subak server start` does".to_owned(),
        Some(schedule) => match automation::times(schedule)?.next_after(SystemClock.now()) {
            Some(at) => format!("it comes next at {}", automation::text(at)),
            None => "its schedule has no time left".to_owned(),
        },
    };
    let skipped = store.ticks(Some(name), 1)?.into_iter().next().and_then(|tick| match tick.outcome {
        TickOutcome::Started(_) => None,
        outcome => Some(format!("; its last tick, at {}, {}", automation::text(tick.at), sensor::in_words(&outcome))),
    });
    Ok(format!("job `{name}`: {last}; {next}{}.", skipped.unwrap_or_default()))
}

/// Why a run that is planned does not begin.
fn waiting_sentence(opened: &Opened, store: &SqliteStore, run: RunId, state: &RunState) -> Result<String, CliError> {
    if run::served(opened)?.is_none() {
        return Ok(format!("run {run} waits for a server; `subak server start` begins it."));
    }
    Ok(format!("run {run} waits: {}.", Queued::read(opened, store)?.why(&Entry::of(run, state, &jobs_of(opened)))))
}

/// The jobs of a project by name.
fn jobs_of(opened: &Opened) -> BTreeMap<String, Job> {
    opened.project.jobs().iter().map(|job| (job.name.clone(), job.clone())).collect()
}

/// The runs that wait for a server and those that go on, for whoever asks why.
pub(super) struct Queued {
    jobs: BTreeMap<String, Job>,
    limits: BTreeMap<String, NonZeroU32>,
    failed: BTreeSet<String>,
    running: Vec<Entry>,
    /// Those that wait for a server, the oldest first.
    pub(super) waiting: Vec<Entry>,
}

impl Queued {
    pub(super) fn read(opened: &Opened, store: &SqliteStore) -> Result<Self, CliError> {
        let jobs = jobs_of(opened);
        let failed = queue::failed_jobs(store, &jobs)?;
        let limits = opened.project.config.run_limits.clone();
        let mut queued = Self { jobs, limits, failed, running: Vec::new(), waiting: Vec::new() };
        for other in store.open_runs()? {
            let entry = Entry::of(other, &runs::state(store, other)?.0, &queued.jobs);
            if run::is_waiting(store, other)? { queued.waiting.push(entry) } else { queued.running.push(entry) }
        }
        Ok(queued)
    }

    /// Why a run that waits does not begin, in words.
    pub(super) fn why(&self, own: &Entry) -> String {
        let rules = Rules { jobs: &self.jobs, limits: &self.limits, failed: &self.failed };
        let is_before = |entry: &&Entry| entry.run != own.run && entry.rank(&self.jobs) < own.rank(&self.jobs);
        let before = self.waiting.iter().filter(is_before).count();
        let running = self.running.iter().filter(|entry| entry.run != own.run);
        match rules.blocked(own, running.clone()) {
            Some(blocked) => blocked.to_string(),
            None if running.clone().count() == 0 && before == 0 => {
                "the server takes it up as soon as it looks, unless the files of the project keep it from that (`subak validate`)"
                    .to_owned()
            }
            None => format!(
                "the server has as many runs in hand as it takes (`--runs`): {} go on, and {before} come before it",
                running.count()
            ),
        }
    }
}

/// What steps of a run wait for, where they do.
fn waits_of(opened: &Opened, store: &SqliteStore, run: RunId) -> Result<String, CliError> {
    let takers = pool::takers(store, &pool::slots(opened))?;
    let Some(waits) = takers.iter().find(|taker| taker.run == run && !taker.has && taker.is_short) else {
        return Ok(String::new());
    };
    let holders = takers.iter().filter(|taker| taker.has && taker.pool == waits.pool);
    let holders: Vec<String> = holders.map(|taker| format!("`{}` of run {}", taker.step, taker.run)).collect();
    let holders = if holders.is_empty() { "a step before it".to_owned() } else { holders.join(", ") };
    Ok(format!(
        " Step `{}` waits for {} of `{}`, which {holders} has.",
        waits.step,
        counted(waits.count as u64, "slot"),
        waits.pool
    ))
}

fn step_sentence(run: &str, step: &StepId, state: &StepState) -> String {
    let why = match (&state.failure, runs::note(state)) {
        (Some(failure), _) if state.outcome.is_none() => format!(": {}; {}", failure.message, failure.data),
        (_, Some(note)) => format!(": {note}"),
        _ => String::new(),
    };
    let next =
        if matches!(state.status, StepStatus::Succeeded) { String::new() } else { format!(" `subak run resume {run}` goes on.") };
    format!("step `{step}` of run {run} is {}{why}.{next}", state.status.as_str())
}

fn run_sentence(opened: &Opened, what: &str) -> Result<String, CliError> {
    let (run, step) = what.split_once('/').map_or((what, None), |(run, step)| (run, Some(step)));
    let store = opened.store()?;
    let Ok(run) = runs::find(&store, run) else {
        return Err(CliError::not_found("asset or run", what, opened.graph().assets().iter().map(|asset| asset.key.as_str())));
    };
    let Some(step) = step else { return run_sentence_of(opened, &store, run) };
    let (state, _) = runs::state(&store, run)?;
    let found = state.steps.iter().find(|(id, _)| id.as_str() == step);
    let (id, found) = found.ok_or_else(|| CliError::not_found("step", step, state.steps.keys().map(StepId::as_str)))?;
    Ok(step_sentence(&run.to_string(), id, found))
}

/// What a run comes to, one sentence.
pub(super) fn run_sentence_of(opened: &Opened, store: &SqliteStore, run: RunId) -> Result<String, CliError> {
    let (state, _) = runs::state(store, run)?;
    let failed: Vec<(&StepId, &StepState)> = state.steps.iter().filter(|(_, step)| step.status == StepStatus::Failed).collect();
    Ok(match (state.status, failed.first()) {
        (RunStatus::Succeeded, _) => {
            format!("run {run} succeeded: every step is done, or was skipped because nothing upstream had changed.")
        }
        (RunStatus::Queued | RunStatus::Running | RunStatus::Stopping, _) => {
            let open = state.steps.values().filter(|step| !step.status.is_final()).count();
            if run::is_waiting(store, run)? {
                return waiting_sentence(opened, store, run, &state);
            }
            let waits = waits_of(opened, store, run)?;
            format!(
                "run {run} is {}: {} not done.{waits}",
                state.status,
                if open == 1 { "1 step is".to_owned() } else { format!("{open} steps are") }
            )
        }
        (_, Some((step, found))) => step_sentence(&run.to_string(), step, found),
        (status, None) => format!("run {run} is {status}; `subak run resume {run}` goes on."),
    })
}
