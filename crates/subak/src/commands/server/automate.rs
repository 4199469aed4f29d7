//! Assets that are brought up to date by themselves: what has happened is read from the log, conditions are evaluated where something near has
//! changed, and what follows is written as one: what is remembered, the runs, the ticks, and how far the log was read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use subak_connect::crash;
use subak_domain::snapshot::published_by;
use subak_domain::{
    Action, AssetKey, Backfill, CheckOutcome, Event, FailureClass, RunEvent, RunId, RunState, Snapshot, Timestamp, Work,
};
use subak_plan::automation::{Automated, CheckStates, Decision, Facts, Memory, Unit, Update, runs};
use subak_store::{Append, EventLog, Lease, Looked, SensorLook, SensorState, SqliteStore, Tick, TickOutcome};

use super::super::run;
use crate::exit::CliError;
use crate::project::Opened;
use crate::queue::tags_of;

/// Events that are read from the log at a time.
const EVENT_COUNT: usize = 1_000;

/// Pages that one turn reads; the rest comes with the next one.
const PAGE_COUNT_MAX: usize = 20;

/// The newest backfills that are looked at of those that have not ended.
const BACKFILL_COUNT_MAX: usize = 100;

/// How long after its time an automation is looked at again that could not be looked at then.
const AGAIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

/// Under what the place in the log is kept. No asset, job or sensor has this name.
const LOG: &str = "asset automation";

/// The name under which an asset's automation is known to the store.
pub(in crate::commands) fn name_of(asset: &AssetKey) -> String {
    format!("asset {asset}")
}

/// What is known of the automation of an asset.
pub(in crate::commands) fn known(store: &SqliteStore, name: &str) -> Result<SensorState, CliError> {
    Ok(store.sensor(name)?.unwrap_or_else(|| SensorState::new("automation")))
}

/// The automation of a project's assets.
#[derive(Default)]
pub(in crate::commands) struct Automation {
    automated: Automated,
    names: BTreeSet<AssetKey>,
    /// Assets that are to be evaluated at a time, whatever happens.
    due: BTreeMap<AssetKey, Timestamp>,
    /// Backfills that had not ended when they were looked at last: their changes leave no events.
    backfills: BTreeMap<RunId, (u64, BTreeSet<AssetKey>)>,
}

/// What has happened since the last evaluation, and what is known from before.
#[derive(Default)]
struct History {
    position: u64,
    updated: BTreeMap<Unit, Vec<Update>>,
    failed: BTreeSet<AssetKey>,
    checks: BTreeMap<AssetKey, CheckStates>,
    /// Runs of which anything was heard.
    runs: BTreeSet<RunId>,
}

impl History {
    fn of(stored: &Value) -> Option<Self> {
        let position = stored.get("position")?.as_u64()?;
        let key = |text: &Value| text.as_str()?.parse::<AssetKey>().ok();
        let failed = stored.get("failed").and_then(Value::as_array).into_iter().flatten().filter_map(key).collect();
        let checks = stored.get("checks").and_then(Value::as_object).into_iter().flatten();
        let checks = checks.filter_map(|(asset, states)| Some((asset.parse().ok()?, check_states(states)?))).collect();
        Some(Self { position, failed, checks, ..Self::default() })
    }

    fn stored(&self) -> Value {
        let failed: Vec<&str> = self.failed.iter().map(AssetKey::as_str).collect();
        let states = |states: &CheckStates| json!({ "passed": states.passed, "each": states.each });
        let checks: serde_json::Map<String, Value> =
            self.checks.iter().map(|(asset, found)| (asset.to_string(), states(found))).collect();
        json!({ "position": self.position, "failed": failed, "checks": checks })
    }

    /// Reads what has happened up to a position.
    async fn read(&mut self, store: &SqliteStore, newest: u64) -> Result<(), CliError> {
        for _ in 0..PAGE_COUNT_MAX {
            if self.position >= newest {
                break;
            }
            let events = store.read_after(self.position, EVENT_COUNT).await?;
            if events.is_empty() {
                // What was there is not in the log any more.
                self.position = newest;
            }
            for event in &events {
                self.apply(event);
            }
        }
        Ok(())
    }

    fn evaluated(&mut self, asset: AssetKey, passed: bool, checks: &[CheckOutcome]) {
        let states = self.checks.entry(asset).or_default();
        states.passed = passed;
        states.each.extend(checks.iter().map(|check| (check.check.clone(), check.passed())));
    }

    fn apply(&mut self, event: &Event) {
        self.position = event.position;
        self.runs.insert(event.run);
        let asset_of = |step: &subak_domain::StepId| step.base().as_str().parse::<AssetKey>().ok();
        let (step, outcome) = match &event.event {
            RunEvent::StepSucceeded { step, outcome } => (step, Some(outcome)),
            RunEvent::StepErrored { step, failure, retry_at: None } if failure.class != FailureClass::Canceled => {
                if let (Some(asset), FailureClass::Check) = (asset_of(step), failure.class) {
                    self.evaluated(asset, false, &failure.checks);
                }
                (step, None)
            }
            _ => return,
        };
        let Some(asset) = asset_of(step) else { return };
        if let Some(outcome) = outcome.filter(|outcome| !outcome.checks.is_empty()) {
            self.evaluated(asset.clone(), !outcome.has_failed_check(), &outcome.checks);
        }
        // Data that were published count, also when what came behind that failed.
        if let Some((_, outcome)) = published_by(&event.event) {
            self.failed.remove(&asset);
            let elapsed = jiff::SignedDuration::from_millis(i64::try_from(outcome.elapsed_ms).unwrap_or(i64::MAX));
            let began_at = event.at.checked_sub(elapsed).unwrap_or(event.at);
            let update = Update { at: event.at, began_at, run: event.run, is_change: outcome.changed };
            let unit = (asset.clone(), outcome.partition.clone().unwrap_or_default());
            self.updated.entry(unit).or_default().push(update);
        }
        if outcome.is_none() {
            self.failed.insert(asset);
        }
    }
}

/// What checks came to, from the stored form. What an older version wrote does not tell of each.
fn check_states(stored: &Value) -> Option<CheckStates> {
    if let Some(passed) = stored.as_bool() {
        return Some(CheckStates { passed, each: BTreeMap::new() });
    }
    let each = stored.get("each").and_then(Value::as_object).into_iter().flatten();
    let each = each.filter_map(|(check, passed)| Some((check.clone(), passed.as_bool()?))).collect();
    Some(CheckStates { passed: stored.get("passed")?.as_bool()?, each })
}

/// The assets that actions bring up to date, partition by partition.
fn units(actions: &[Action]) -> impl Iterator<Item = (Unit, &Action)> {
    actions.iter().filter_map(|action| match &action.work {
        Work::Materialize { asset, partition, .. } => {
            let key = partition.as_ref().map(|partition| partition.key.clone()).unwrap_or_default();
            Some(((asset.clone(), key), action))
        }
        Work::Observe { asset, .. } => Some(((asset.clone(), String::new()), action)),
        _ => None,
    })
}

fn is_open(state: &RunState, action: &Action) -> bool {
    state.steps.get(&action.step).is_none_or(|step| !step.status.is_final())
}

impl Automation {
    /// That of a project; every condition is looked at once.
    pub(in crate::commands) fn new(opened: &Opened, now: Timestamp) -> Self {
        let graph = opened.graph();
        let automated = graph.assets().iter().filter(|asset| asset.automation.is_some());
        let names: BTreeSet<AssetKey> = automated.map(|asset| asset.key.clone()).collect();
        let due = names.iter().map(|asset| (asset.clone(), now)).collect();
        Self { automated: Automated::new(graph), names, due, backfills: BTreeMap::new() }
    }

    /// Under which names the store knows what is automated; none where nothing is.
    pub(in crate::commands) fn names(&self) -> impl Iterator<Item = String> {
        let log = (!self.names.is_empty()).then(|| LOG.to_owned());
        self.names.iter().map(name_of).chain(log)
    }

    /// How many assets are brought up to date by themselves.
    pub(in crate::commands) fn count(&self) -> usize {
        self.names.len()
    }

    /// The automated assets that look at assets of which a backfill has begun, changed or ended since the last time.
    fn near_changed_backfills(&mut self, store: &SqliteStore) -> Result<BTreeSet<AssetKey>, CliError> {
        let assets = |backfill: &Backfill| backfill.targets.iter().map(|target| target.asset.clone()).collect();
        let open = store.backfills(true, BACKFILL_COUNT_MAX)?;
        let now: BTreeMap<RunId, _> = open.iter().map(|found| (found.id, (found.revision, assets(found)))).collect();
        let is_other = |(id, entry): &(&RunId, &(u64, BTreeSet<AssetKey>)),
                        others: &BTreeMap<RunId, (u64, BTreeSet<AssetKey>)>| {
            others.get(id) != Some(*entry)
        };
        let changed = now.iter().filter(|entry| is_other(entry, &self.backfills));
        let ended = self.backfills.iter().filter(|entry| is_other(entry, &now));
        let found = self.automated.near(changed.chain(ended).flat_map(|(_, (_, assets))| assets));
        self.backfills = now;
        Ok(found)
    }

    /// Evaluates what may have changed. Returns what is worth telling.
    pub(in crate::commands) async fn turn(
        &mut self,
        store: &SqliteStore,
        lease: &Lease,
        opened: &Opened,
        now: Timestamp,
    ) -> Result<Vec<String>, CliError> {
        if self.automated.is_empty() {
            return Ok(Vec::new());
        }
        let log = known(store, LOG)?;
        let newest = store.newest_position()?;
        let mut history = History::of(&log.cursor).unwrap_or(History { position: newest, ..History::default() });
        let mut wanted: BTreeSet<AssetKey> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(asset, _)| asset.clone()).collect();
        wanted.extend(self.near_changed_backfills(store)?);
        if wanted.is_empty() && history.position >= newest {
            return Ok(Vec::new());
        }
        history.read(store, newest).await?;
        let seen = Seen::of(store, opened, &history, &self.automated)?;
        let heard_of = seen.targets.iter().filter(|(run, _)| history.runs.contains(run));
        wanted.extend(self.automated.near(heard_of.flat_map(|(_, targets)| targets)));
        let facts = seen.facts(opened, &history, now);
        let states: RefCell<BTreeMap<AssetKey, SensorState>> = RefCell::default();
        let unreadable: RefCell<Option<CliError>> = RefCell::default();
        let memory = |asset: &AssetKey| {
            let state = known(store, &name_of(asset)).map_err(|error| unreadable.replace(Some(error))).ok();
            let state = state.filter(|state| !state.is_off)?;
            let memory = Memory::of(&state.cursor);
            states.borrow_mut().insert(asset.clone(), state);
            Some(memory)
        };
        let decisions = self.automated.evaluate(&facts, &wanted, &memory);
        if let Some(error) = unreadable.take() {
            return Err(error);
        }
        let as_of = crate::project::as_of(None, &opened.project.config.timezone)[..10].to_owned();
        let planned: Vec<Planned> = runs(&facts, &decisions).into_iter().map(|actions| Planned::new(actions, &as_of)).collect();
        let state = SensorState { cursor: history.stored(), looked_at: Some(now), revision: log.revision + 1, ..log };
        let mut looks = vec![look(LOG.to_owned(), state, lease)];
        for decision in &decisions {
            let before = states.borrow_mut().remove(&decision.asset);
            looks.extend(before.map(|before| look_of(decision, before, &planned, lease, now)));
        }
        if !planned.is_empty() {
            crash::point("automation_planned");
        }
        if store.looks(looks).await? == Looked::Changed {
            // Somebody switched one off meanwhile; the next turn sees it.
            return Ok(Vec::new());
        }
        self.due.retain(|asset, _| !wanted.contains(asset));
        // One that is switched off is looked at when it is on again.
        self.due.extend(wanted.iter().map(|asset| (asset.clone(), now + AGAIN)));
        for decision in &decisions {
            self.due.remove(&decision.asset);
        }
        self.due.extend(decisions.iter().filter_map(|decision| Some((decision.asset.clone(), decision.due_at?))));
        Ok(planned.iter().map(|planned| format!("automation: run {} of {}", planned.run, planned.assets)).collect())
    }
}

/// What the automation of an asset comes to now. Nothing is written.
pub(in crate::commands) async fn explain(
    store: &SqliteStore,
    opened: &Opened,
    asset: &AssetKey,
    now: Timestamp,
) -> Result<Option<Decision>, CliError> {
    let newest = store.newest_position()?;
    let mut history = History::of(&known(store, LOG)?.cursor).unwrap_or(History { position: newest, ..History::default() });
    history.read(store, newest).await?;
    let automated = Automated::new(opened.graph());
    let seen = Seen::of(store, opened, &history, &automated)?;
    let memory = Memory::of(&known(store, &name_of(asset))?.cursor);
    let memory = |other: &AssetKey| (other == asset).then(|| memory.clone());
    let decisions = automated.evaluate(&seen.facts(opened, &history, now), &BTreeSet::from([asset.clone()]), &memory);
    Ok(decisions.into_iter().next())
}

/// What is known besides what has happened.
struct Seen {
    snapshot: Snapshot,
    targets: BTreeMap<RunId, BTreeSet<AssetKey>>,
    tags: BTreeMap<RunId, BTreeSet<String>>,
    in_progress: BTreeSet<Unit>,
    backfills: Vec<Backfill>,
}

impl Seen {
    fn of(store: &SqliteStore, opened: &Opened, history: &History, automated: &Automated) -> Result<Self, CliError> {
        let (snapshot, in_progress) = (store.snapshot()?, in_progress(store)?);
        let (mut targets, mut tags) = (BTreeMap::new(), BTreeMap::new());
        let runs: BTreeSet<RunId> = history.runs.iter().copied().chain(automated.runs_asked_of(&snapshot)).collect();
        for run in runs {
            // One that is not in the log any more was long ago.
            if store.origin(run)?.is_some() {
                let state = super::super::runs::state(store, run)?.0;
                targets.insert(run, units(&state.actions).map(|((asset, _), _)| asset).collect());
                let declared = opened.project.jobs().iter().find(|job| state.job.as_ref() == Some(&job.name));
                tags.insert(run, tags_of(&state, declared));
            }
        }
        let backfills = store.backfills(true, BACKFILL_COUNT_MAX)?;
        Ok(Self { snapshot, targets, tags, in_progress, backfills })
    }

    fn facts<'a>(&'a self, opened: &'a Opened, history: &'a History, now: Timestamp) -> Facts<'a> {
        Facts {
            graph: opened.graph(),
            snapshot: &self.snapshot,
            now,
            updated: &history.updated,
            targets: &self.targets,
            tags: &self.tags,
            in_progress: &self.in_progress,
            backfills: &self.backfills,
            failed: &history.failed,
            checks: &history.checks,
        }
    }
}

/// What runs that have not ended are still to bring up to date.
fn in_progress(store: &SqliteStore) -> Result<BTreeSet<Unit>, CliError> {
    let mut found = BTreeSet::new();
    for run in store.open_runs()? {
        let state = super::super::runs::state(store, run)?.0;
        found.extend(units(&state.actions).filter(|(_, action)| is_open(&state, action)).map(|(unit, _)| unit));
    }
    Ok(found)
}

/// A run that automation asks for.
struct Planned {
    run: RunId,
    /// Its assets, for people.
    assets: String,
    actions: Vec<Action>,
    event: RunEvent,
}

impl Planned {
    fn new(actions: Vec<Action>, as_of: &str) -> Self {
        let assets: BTreeSet<String> = units(&actions).map(|((asset, _), _)| asset.to_string()).collect();
        let assets = assets.into_iter().collect::<Vec<_>>().join(" ");
        let event = RunEvent::Planned {
            actions: actions.clone(),
            selection: assets.clone(),
            trigger: "automation".to_owned(),
            as_of: as_of.to_owned(),
            job: None,
            params: BTreeMap::new(),
            interval: None,
            for_server: true,
        };
        Self { run: run::new_run(), assets, actions, event }
    }
}

fn look(sensor: String, state: SensorState, lease: &Lease) -> SensorLook {
    SensorLook { sensor, state, tick: None, runs: Vec::new(), partitions: Vec::new(), fence: Some(lease.clone()) }
}

/// What is written of a decision. A run stands with the first asset of it.
fn look_of(decision: &Decision, before: SensorState, planned: &[Planned], lease: &Lease, now: Timestamp) -> SensorLook {
    let state = SensorState {
        cursor: decision.memory.stored(),
        looked_at: Some(now),
        came_to: decision.why(),
        revision: before.revision + 1,
        ..before
    };
    let name = name_of(&decision.asset);
    let mut look = look(name.clone(), state, lease);
    if decision.requested.is_empty() {
        return look;
    }
    let has = |actions: &[Action]| units(actions).any(|((asset, _), _)| asset == decision.asset);
    if let Some(planned) = planned.iter().find(|planned| has(&planned.actions)) {
        let is_first_of_it = units(&planned.actions).next().is_some_and(|((asset, _), _)| asset == decision.asset);
        if is_first_of_it {
            let events = vec![(now, planned.event.clone())];
            look.runs.push((None, Append { run: planned.run, expected: 1, events, fence: None }));
        }
        look.tick = Some(Tick { schedule: name, at: now, outcome: TickOutcome::Started(vec![planned.run]), recorded_at: now });
    }
    look
}
