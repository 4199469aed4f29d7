//! `subak run` and `subak run resume`: plan, then do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use subak_connect::{ConnectErrorKind, TableName};
use subak_diag::{Diagnostic, codes};
use subak_domain::schedule::Interval;
use subak_domain::{
    Action, Asset, AssetKey, ConnectionName, CursorRange, Failure, Job, RunEvent, RunId, RunState, RunStatus, Snapshot, StepId,
    StepStatus,
};
use subak_engine::{
    Clock, Connections, DataExecutor, Engine, EngineError, Limits, Reporter, Slots, StepExecutor, StopReason, StopSignal,
    SystemClock, orphan, pool_name,
};
use subak_store::{Acquired, Append, EventLog, Holder, Lease, Leases, SqliteStore};

use super::{Context, automation, job, plan, runs};
use crate::args::{HowToRun, RunArgs, RunIdArgs, RunResumeArgs, Selection};
use crate::exit::{CliError, Exit, diagnostic_of, exit_of};
use crate::exports::Exports;
use crate::freshness::Policies;
use crate::notices::{self, Teller, Told};
use crate::open::{self, ProjectConnections};
use crate::pools::{Pooled, Pools};
use crate::printer::{Tone, count, counted, duration};
use crate::progress::Watcher;
use crate::project::Opened;
use crate::redact::Redacting;
use crate::retention;

/// What a process that serves the project calls itself.
pub(super) const SERVER: &str = "subak server";

/// The lease under which commands change a project's data.
pub(super) const LEASE: &str = "project";

/// How often a command that waits for another one looks again.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

/// What is to be done.
pub(super) enum Work {
    /// A new run of these actions.
    New {
        actions: Vec<Action>,
        selection: String,
        job: Option<String>,
        params: BTreeMap<String, Value>,
        interval: Option<Interval>,
    },
    /// What a run has not done.
    Resume { run: RunId },
}

impl Work {
    /// A new run that is no job.
    pub(super) fn of(actions: Vec<Action>, selection: String) -> Self {
        Self::New { actions, selection, job: None, params: BTreeMap::new(), interval: None }
    }
}

pub(super) fn execute(context: &Context<'_>, args: &RunArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    if let Some(name) = &args.job {
        return job::start(context, &opened, name, args);
    }
    if args.dry_run {
        let plan = plan::make(context, &opened, &args.selection, &how_of(args)?)?;
        plan::print(context, &plan);
        return Ok(Exit::Ok);
    }
    let how = how_of(args)?;
    selected(context, &opened, &args.selection, &how, &args.how, None)
}

/// Brings what is selected up to date; as a job with parameters, or as what somebody asked for.
pub(super) fn selected(
    context: &Context<'_>,
    opened: &Opened,
    selection: &Selection,
    what: &plan::How,
    how: &HowToRun,
    job: Option<(&Job, BTreeMap<String, Value>)>,
) -> Result<Exit, CliError> {
    let interval = match &job {
        Some((job, _)) => automation::interval(opened, job)?,
        None => None,
    };
    let job = job.map(|(job, params)| (job.name.clone(), params));
    context.block_on(async {
        if let Some(store) = served(opened)? {
            // Its databases are the server's: what is in them is not looked at from here.
            let plan = plan::of(opened, &store.snapshot()?, selection, what)?;
            if plan.actions.is_empty() {
                context.printer.note(&format!("nothing to do: {} selected assets are fresh", plan.fresh.len()));
                return Ok(Exit::Ok);
            }
            let (job, params) = job.unzip();
            let work = Work::New {
                actions: plan.actions,
                selection: selection_words(selection),
                job,
                params: params.unwrap_or_default(),
                interval,
            };
            return hand_over(context, opened, &store, work).await;
        }
        let hold = Hold::take(context, opened, how).await?;
        // Planned with the project in hand, so that nothing can change between the plan and the run.
        let snapshot = present(context, opened, hold.store.snapshot()?).await;
        let plan = match plan::of(opened, &snapshot, selection, what) {
            Ok(plan) => plan,
            Err(error) => {
                hold.give_back().await?;
                return Err(error);
            }
        };
        if plan.actions.is_empty() {
            context.printer.note(&format!("nothing to do: {} selected assets are fresh", plan.fresh.len()));
            hold.tell(context, opened).await;
            hold.give_back().await?;
            return Ok(Exit::Ok);
        }
        for (asset, count) in &plan.left {
            context.printer.note(&format!("{count} more partitions of `{asset}` come with the runs after this one"));
        }
        let words = selection_words(selection);
        let work = match job {
            None => Work::of(plan.actions, words),
            Some((name, params)) => {
                Work::New { actions: plan.actions, selection: format!("job {name}: {words}"), job: Some(name), params, interval }
            }
        };
        hold.work(context, opened, work, how).await
    })
}

pub(super) fn resume(context: &Context<'_>, args: &RunResumeArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let store = opened.store()?;
    let run = runs::find(&store, &args.run)?;
    // The run goes on with the time with which it was planned.
    let as_of = runs::state(&store, run)?.0.as_of;
    let is_same = as_of.is_empty() || as_of == opened.as_of_template || context.global.as_of.is_some();
    let opened = if is_same { opened } else { context.open_as_of(&as_of)? };
    context.block_on(work(context, &opened, Work::Resume { run }, &args.how))
}

/// Asks whoever has a run to stop it.
pub(super) fn cancel(context: &Context<'_>, args: &RunIdArgs) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let store = opened.store()?;
    let run = runs::find(&store, &args.run)?;
    let status = runs::state(&store, run)?.0.status;
    if status.is_final() {
        let problem = Diagnostic::error(codes::USAGE, format!("run {run} is {status}")).data("nothing was changed");
        return Err(CliError::new(problem.help("there is nothing to stop any more"), Exit::Conflict));
    }
    if served(&opened)?.is_none() {
        let (message, help) = match store.holder(LEASE, SystemClock.now())? {
            Some(holder) => {
                (format!("run {run} is in the hands of {holder}"), format!("interrupt it there, or `kill -INT {}`", holder.pid))
            }
            None => {
                let help = "the next server goes on with it, or `subak run resume` does; a run of a command is recorded as lost by the next one";
                (format!("nobody has run {run} in hand"), help.to_owned())
            }
        };
        let problem = Diagnostic::error(codes::PROJECT_HELD, message).data("nothing was changed");
        return Err(CliError::new(problem.help(help), Exit::Conflict));
    }
    context.block_on(async { Ok(store.request_cancel(run, SystemClock.now()).await?) })?;
    context.printer.note(&format!("asked the server to stop run {run}; `subak run show {run}` shows what became of it"));
    Ok(Exit::Ok)
}

/// What the arguments say about reading.
fn how_of(args: &RunArgs) -> Result<plan::How, CliError> {
    let range =
        (args.from.is_some() || args.until.is_some()).then(|| CursorRange { from: args.from.clone(), until: args.until.clone() });
    if let Some(CursorRange { from: Some(from), until: Some(until) }) = &range
        && match (from.parse::<i128>(), until.parse::<i128>()) {
            (Ok(from), Ok(until)) => from >= until,
            _ => from >= until,
        }
    {
        let problem = Diagnostic::error(codes::USAGE, format!("the range from `{from}` until `{until}` is empty"));
        return Err(CliError::new(problem.help("`--from` is inclusive, `--until` is not"), Exit::Invalid));
    }
    Ok(plan::How { full_refresh: args.full_refresh, range, picks: plan::picks(&args.partition) })
}

/// The snapshot without assets whose tables are gone, for example because somebody removed the warehouse: they are missing again.
/// A destination that cannot be asked is left to the step that needs it, which says why.
async fn present(context: &Context<'_>, opened: &Opened, mut snapshot: Snapshot) -> Snapshot {
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    let mut stored: BTreeMap<&ConnectionName, Vec<&AssetKey>> = BTreeMap::new();
    for asset in opened.graph().assets().iter().filter(|asset| snapshot.latest.contains_key(&asset.key)) {
        if let Some(name) = asset.stored_in() {
            stored.entry(name).or_default().push(&asset.key);
        }
    }
    for (name, keys) in stored {
        let tables: Vec<TableName> = keys.iter().map(|key| TableName::of(key)).collect();
        let existing = match connections.open(name).await {
            Ok(connection) => match connection.sink() {
                Some(sink) => sink.existing(&tables).await.ok(),
                None => None,
            },
            Err(error) if error.kind == ConnectErrorKind::NotFound => Some(BTreeSet::new()),
            Err(_) => None,
        };
        let Some(existing) = existing else { continue };
        for key in keys.into_iter().filter(|key| !existing.contains(&TableName::of(key))) {
            context.printer.note(&format!("`{key}` was materialized, and its table is gone from `{name}`: it counts as missing"));
            snapshot.latest.remove(key);
            snapshot.partitions.remove(key);
        }
    }
    snapshot
}

/// The state of the project, when a server has it in hand.
pub(super) fn served(opened: &Opened) -> Result<Option<SqliteStore>, CliError> {
    let Some(store) = opened.store_if_there()? else { return Ok(None) };
    let holder = store.holder(LEASE, SystemClock.now())?;
    Ok(holder.is_some_and(|holder| holder.command == SERVER).then_some(store))
}

/// Hands a run to the server that has the project, and shows what becomes of it.
async fn hand_over(context: &Context<'_>, opened: &Opened, store: &SqliteStore, work: Work) -> Result<Exit, CliError> {
    if !context.global.vars.is_empty() {
        let problem = Diagnostic::error(codes::USAGE, "`--var` says nothing to a server, which has values of its own");
        return Err(CliError::new(problem.help("stop the server, or give the job a parameter: `--set`"), Exit::Invalid));
    }
    let (run, expected_at, event) = match work {
        Work::New { actions, selection, job, params, interval } => {
            let (trigger, as_of) = ("command line".to_owned(), opened.as_of_template.clone());
            (new_run(), 1, RunEvent::Planned { actions, selection, trigger, as_of, job, params, interval, for_server: true })
        }
        Work::Resume { run } => {
            let (state, events) = runs::state(store, run)?;
            if !matches!(state.status, RunStatus::Failed | RunStatus::Canceled) {
                return Err(EngineError::NotResumable { run, status: state.status }.into());
            }
            let by = Holder::current("subak run resume").to_string();
            (run, events.len() as u64 + 1, RunEvent::Resumed { by, for_server: true })
        }
    };
    store.append(Append { run, expected: expected_at, events: vec![(SystemClock.now(), event)], fence: None }).await?;
    context.printer.note(&format!("handed run {run} to the server; it goes on there, whatever happens here"));
    let watcher = Watcher::new(context.printer, expected(&store.snapshot()?));
    // Of one that is resumed only what happens from now on.
    let (began_at, known) = (SystemClock.now(), expected_at as usize);
    let mut seen = known;
    loop {
        let (state, events) = runs::state(store, run)?;
        for event in events.iter().skip(seen) {
            watcher.event(run, &event.event);
        }
        seen = events.len();
        if state.status.is_final() {
            let elapsed_ms = SystemClock.now().duration_since(began_at).as_millis().max(0) as u64;
            return Ok(report(context, run, &state, elapsed_ms));
        }
        // One that lives and stands still, or whose clock was put forward, goes on with it.
        let is_there = served(opened)?.is_some() || store.last_holder(LEASE)?.is_some_and(|holder| holder.command == SERVER);
        if !is_there && !runs::state(store, run)?.0.status.is_final() {
            let problem = Diagnostic::error(codes::RUN_LOST, format!("the server ended before run {run} did"));
            let what = if seen > known { "the next server goes on with it" } else { "the next server runs it" };
            return Err(CliError::new(problem.data(what), Exit::Conflict));
        }
        SystemClock.sleep_until(SystemClock.now() + WAIT_INTERVAL).await;
    }
}

/// Takes the project, does the work, gives the project back; or hands the work to the server that has the project.
pub(super) async fn work(context: &Context<'_>, opened: &Opened, work: Work, how: &HowToRun) -> Result<Exit, CliError> {
    if let Some(store) = served(opened)? {
        return hand_over(context, opened, &store, work).await;
    }
    Hold::take(context, opened, how).await?.work(context, opened, work, how).await
}

/// A selection as it was typed.
pub(super) fn selection_words(selection: &Selection) -> String {
    let mut words = if selection.select.is_empty() { "all".to_owned() } else { selection.select.join(" ") };
    for exclude in &selection.exclude {
        words.push_str(&format!(" --exclude {exclude}"));
    }
    words
}

/// The project in hand: no other command changes it meanwhile.
pub(super) struct Hold {
    store: SqliteStore,
    lease: Lease,
    holder: Holder,
    lost_holder: Option<Holder>,
}

impl Hold {
    pub(super) async fn take(context: &Context<'_>, opened: &Opened, how: &HowToRun) -> Result<Self, CliError> {
        Self::take_as("subak run", context, opened, how).await
    }

    /// The same for a process that calls itself so.
    pub(super) async fn take_as(command: &str, context: &Context<'_>, opened: &Opened, how: &HowToRun) -> Result<Self, CliError> {
        let store = opened.store()?;
        let holder = Holder::current(command);
        let deadline = SystemClock.now() + Duration::from_secs(how.wait);
        let mut has_said = false;
        loop {
            match store.acquire(LEASE, &holder, SystemClock.now()).await? {
                Acquired::Yes { lease, previous } => return Ok(Self { store, lease, holder, lost_holder: previous }),
                Acquired::No { holder: other } => {
                    if SystemClock.now() >= deadline {
                        let problem =
                            Diagnostic::error(codes::PROJECT_HELD, format!("another command works on this project: {other}"));
                        let problem = problem.data("nothing was planned or changed");
                        let exit = if how.wait > 0 { Exit::TimedOut } else { Exit::Conflict };
                        return Err(CliError::new(problem.help("wait for it with `--wait SECONDS`, or stop that process"), exit));
                    }
                    if !has_said {
                        context.printer.note(&format!("waiting up to {} s for {other}", how.wait));
                        has_said = true;
                    }
                    SystemClock.sleep_until(SystemClock.now() + WAIT_INTERVAL).await;
                }
            }
        }
    }

    pub(super) async fn give_back(&self) -> Result<(), CliError> {
        Ok(self.store.release(&self.lease).await?)
    }

    /// What runs plans of this project, under this lease.
    pub(super) fn engine(&self, context: &Context<'_>, opened: &Opened) -> Result<Engine, CliError> {
        let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, false);
        self.engine_over(context, opened, Arc::new(connections), None)
    }

    /// The same over connections that other runs may use too, within the bounds that hold for all of them.
    pub(super) fn engine_over(
        &self,
        context: &Context<'_>,
        opened: &Opened,
        connections: Arc<ProjectConnections>,
        shared: Option<(Arc<Pools>, Slots)>,
    ) -> Result<Engine, CliError> {
        let snapshot = self.store.snapshot()?;
        let watcher: Arc<dyn Reporter> = Arc::new(Watcher::new(context.printer, expected(&snapshot)));
        let redactor = connections.redactor();
        let teller = Arc::new(Teller::new(Arc::clone(&connections)).with_answers(self.store.clone()));
        let connections: Arc<dyn Connections> = connections;
        let mut place = open::place(opened, context.settings, redactor.clone(), teller);
        place.waits_for_room = self.store.is_patient();
        let inner = DataExecutor {
            graph: Arc::clone(opened.graph()),
            connections,
            reporter: Arc::clone(&watcher),
            as_of: opened.as_of.clone(),
            timezone: opened.timezone(),
            place,
            invocations: subak_engine::Invocations::default(),
        };
        let inner = Redacting { inner, redactor };
        let executor: Arc<dyn StepExecutor> = match shared {
            Some((pools, slots)) => Arc::new(Pooled { inner, pools, slots }),
            None => Arc::new(inner),
        };
        Ok(Engine {
            log: Arc::new(self.store.clone()),
            leases: Arc::new(self.store.clone()),
            lease: Some(self.lease.clone()),
            clock: Arc::new(SystemClock),
            executor,
            reporter: watcher,
            holder: self.holder.to_string(),
        })
    }

    async fn work(self, context: &Context<'_>, opened: &Opened, work: Work, how: &HowToRun) -> Result<Exit, CliError> {
        let engine = self.engine(context, opened)?;
        let result = self.run(context, opened, &engine, work, how).await;
        if result.is_ok() {
            self.tell(context, opened).await;
            self.purge(context, opened).await;
        }
        // After an error the lease may be somebody else's already; giving it back has no effect then.
        let given_back = self.give_back().await;
        let exit = result?;
        given_back?;
        Ok(exit)
    }

    /// Removes what is old, once a day.
    async fn purge(&self, context: &Context<'_>, opened: &Opened) {
        let (folder, now) = (opened.state_folder(), SystemClock.now());
        if !retention::is_due(&folder, now) {
            return;
        }
        if let Err(error) = retention::look(&self.store, &self.lease, &folder, &opened.project.config.retention, now).await {
            // How the run ended is what counts here.
            context.printer.note(&format!("what is old is removed later: {}", error.summary()));
        }
    }

    /// Tells people what became of runs, and other systems everything. Whoever cannot be told now is told by the next run, or by a server.
    async fn tell(&self, context: &Context<'_>, opened: &Opened) {
        let exports = exports(context, opened);
        if !exports.is_empty() {
            match exports.turn(&self.store, &self.lease).await {
                Ok(problems) => problems.iter().for_each(|problem| context.printer.note(problem)),
                Err(error) => context.printer.note(&format!("other systems are told later: {}", error.summary())),
            }
        }
        if opened.project.config.receivers.is_empty() {
            return;
        }
        match notices::turn(&self.store, &self.lease, &told(context, opened)).await {
            Ok(problems) => problems.iter().for_each(|problem| context.printer.note(problem)),
            // How the run ended is what counts here.
            Err(error) => context.printer.note(&format!("people are told later: {}", error.summary())),
        }
    }

    /// Records what became of runs whose process is gone. Those that a server has begun are left to the next server, and returned; it goes on with
    /// their programs too. Those that a server has taken on and not begun wait for it as well.
    pub(super) async fn settle(
        &self,
        context: &Context<'_>,
        opened: &Opened,
        engine: &Engine,
        is_server: bool,
    ) -> Result<Vec<RunId>, CliError> {
        let (mut lost, mut left, mut going) = (Vec::new(), Vec::new(), Vec::new());
        for run in self.store.open_runs()? {
            let events = self.store.run_events(run)?;
            if crate::queue::is_waiting(&events) {
                continue;
            }
            if !crate::queue::is_for_server(&events) {
                lost.push(run);
                continue;
            }
            left.push(run);
            let state = runs::state(&self.store, run)?.0;
            let executing = state.steps.iter().filter(|(_, step)| step.status.is_executing());
            going.extend(executing.map(|(step, _)| (run, step.clone())));
        }
        // What somebody who is only held up has started is still in its hands.
        let is_gone = self.lost_holder.as_ref().is_some_and(Holder::is_gone);
        if !is_server || !is_gone {
            going.clear();
        }
        let orphan_count = orphan::end_all(&opened.state_folder().join("tmp"), &going);
        if orphan_count > 0 {
            let what = counted(orphan_count as u64, "program");
            context.printer.note(&format!("{what} outlived the process that had started it, and was ended"));
        }
        if !left.is_empty() && !is_server {
            let runs: Vec<String> = left.iter().map(ToString::to_string).collect();
            let what = format!("{} is gone; the next server goes on with its run {}", self.dead(), runs.join(", "));
            context.printer.note(&format!("{what}, and `subak run resume` does so here"));
        }
        if lost.is_empty() {
            return Ok(left);
        }
        let dead = self.dead();
        engine.settle_lost(&lost, &dead).await?;
        let runs: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let what = format!("{dead} died during run {}; what it published stays, nothing else is visible", runs.join(", "));
        context.printer.note(&what);
        Ok(left)
    }

    /// Runs a run to its end: one that is planned, or one that was left by whoever had the project before.
    pub(super) async fn carry(
        &self,
        engine: &Engine,
        run: RunId,
        is_left: bool,
        limits: &Limits,
        cancel: &StopSignal,
    ) -> Result<RunState, CliError> {
        let carried = if is_left {
            engine.take_over(run, &self.dead(), limits, cancel).await
        } else {
            engine.run(run, limits, cancel).await
        };
        Ok(carried?)
    }

    /// Who had the project and did not give it back, for people.
    pub(super) fn dead(&self) -> String {
        self.lost_holder.as_ref().map_or_else(|| "a process that is gone".to_owned(), ToString::to_string)
    }

    /// The state of the project.
    pub(super) fn store(&self) -> &SqliteStore {
        &self.store
    }

    /// The right to change it.
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn run(
        &self,
        context: &Context<'_>,
        opened: &Opened,
        engine: &Engine,
        work: Work,
        how: &HowToRun,
    ) -> Result<Exit, CliError> {
        if !opened.project.config.receivers.is_empty() {
            notices::begin(&self.store, &self.lease).await?;
        }
        exports(context, opened).begin(&self.store, &self.lease).await?;
        let left = self.settle(context, opened, engine, false).await?;
        let mut is_left = false;
        let run = match work {
            Work::Resume { run } if left.contains(&run) => {
                is_left = true;
                run
            }
            Work::Resume { run } => {
                engine.resume(run, &engine.holder).await?;
                run
            }
            Work::New { actions, selection, job, params, interval } => {
                let run = new_run();
                let (trigger, as_of) = ("command line".to_owned(), opened.as_of_template.clone());
                engine
                    .plan_run(
                        run,
                        RunEvent::Planned { actions, selection, trigger, as_of, job, params, interval, for_server: false },
                    )
                    .await?;
                run
            }
        };
        let began_at = SystemClock.now();
        let limits = limits(opened, how);
        let cancel = StopSignal::default();
        let code_seen = Arc::new(AtomicI32::new(130));
        let signals = watch_signals(&cancel, &code_seen)?;
        let state = self.carry(engine, run, is_left, &limits, &cancel).await?;
        signals.abort();
        let elapsed_ms = SystemClock.now().duration_since(began_at).as_millis().max(0) as u64;
        let exit = report(context, run, &state, elapsed_ms);
        let is_terminated = exit == Exit::Interrupted && code_seen.load(Ordering::Relaxed) == 143;
        Ok(if is_terminated { Exit::Terminated } else { exit })
    }
}

/// What people are told from, for the project as it is.
pub(super) fn told(context: &Context<'_>, opened: &Opened) -> Told {
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    let teller = Teller::new(Arc::new(connections));
    let policies = Policies::of(opened.graph());
    Told { project: opened.project.config.project.clone(), jobs: opened.project.jobs().to_vec(), policies, teller }
}

/// Who is told everything that runs of the project do.
pub(super) fn exports(context: &Context<'_>, opened: &Opened) -> Exports {
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    Exports::new(Arc::new(opened.clone()), connections)
}

/// The id of a run that is made now. Ids that one process makes rise, also within a millisecond and when the clock is put back.
pub(super) fn new_run() -> RunId {
    static LAST: Mutex<(u64, u128)> = Mutex::new((0, 0));
    let now = u64::try_from(SystemClock.now().as_millisecond()).unwrap_or(0);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    // Room is left above, so that counting on does not end.
    *last = if now > last.0 { (now, random() >> 1) } else { (last.0, last.1 + 1) };
    RunId::from_parts(last.0, last.1)
}

/// Whether a run is planned for a server, or to be taken up again by one, and not begun.
pub(super) fn is_waiting(store: &SqliteStore, run: RunId) -> Result<bool, CliError> {
    Ok(crate::queue::is_waiting(&store.run_events(run)?))
}

/// 80 random bits for a run id, from the hash keys that the standard library draws from the system.
fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let draw = || u128::from(RandomState::new().hash_one(std::process::id()));
    (draw() << 64 | draw()) & ((1 << 80) - 1)
}

/// Rows that each step read last time.
fn expected(snapshot: &Snapshot) -> BTreeMap<StepId, u64> {
    let rows = |(key, latest): (&AssetKey, &subak_domain::Materialization)| Some((StepId::asset(key), latest.account?.read));
    snapshot.latest.iter().filter_map(rows).collect()
}

pub(super) fn limits(opened: &Opened, how: &HowToRun) -> Limits {
    let assets = opened.graph().assets();
    let connections = &opened.project.config.connections;
    let pools = connections.iter().filter_map(|(name, connection)| Some((name.to_string(), connection.parallel?.get())));
    let declared = opened.project.config.pools.iter().map(|(name, size)| (pool_name(name), size.get() as usize));
    let pools = pools.chain(declared);
    // Partitions of one table take turns; what a program keeps itself is its own business.
    let takes_turns = |asset: &Asset| asset.partitioning.is_some() && asset.stored_in().is_some();
    let turns = assets.iter().filter(|asset| takes_turns(asset)).map(|asset| (turn_of(&asset.key), 1));
    let pools = pools.chain(turns);
    let materialized = assets.iter().map(|asset| {
        let turn = takes_turns(asset).then(|| turn_of(&asset.key));
        let used = asset.connections().into_iter().map(ToString::to_string).chain(turn).map(|name| (name, 1));
        let declared = asset.pools.iter().map(|(name, count)| (pool_name(name), count.get() as usize));
        (StepId::asset(&asset.key), used.chain(declared).collect())
    });
    let audited = assets.iter().filter_map(|asset| {
        let used = BTreeMap::from([(asset.stored_in()?.to_string(), 1)]);
        Some((StepId::audit(&asset.key), used))
    });
    let checks = opened.graph().checks().iter();
    let checked = checks.map(|check| (StepId::check(&check.name), BTreeMap::from([(check.on.to_string(), 1)])));
    let uses = materialized.chain(audited).chain(checked);
    Limits {
        slots: Slots { count_max: usize::from(how.parallel), pools: pools.collect(), uses: uses.collect() },
        retries: assets.iter().map(|asset| (StepId::asset(&asset.key), asset.retry)).collect(),
        timeouts: assets.iter().map(|asset| (StepId::asset(&asset.key), asset.timeout)).collect(),
    }
}

/// The pool in which the steps of one table take turns; no connection has such a name.
fn turn_of(key: &AssetKey) -> String {
    format!("partitions of {key}")
}

/// The first signal asks the run to stop, the second one ends the process.
pub(super) fn watch_signals(cancel: &StopSignal, code_seen: &Arc<AtomicI32>) -> Result<tokio::task::AbortHandle, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| {
        CliError::new(
            Diagnostic::error(codes::RESOURCE, "signals cannot be watched").caused_by(error.to_string()),
            Exit::Unreachable,
        )
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let cancel = cancel.clone();
    let code_seen = Arc::clone(code_seen);
    let mut tasks = tokio::task::JoinSet::new();
    let handle = tasks.spawn(async move {
        let mut count = 0;
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            count += 1;
            code_seen.store(code, Ordering::Relaxed);
            if count > 1 {
                // Nothing that was started goes on unseen.
                subak_engine::program::kill_all();
                std::process::exit(code);
            }
            cancel.stop(StopReason::Canceled);
        }
    });
    tasks.detach_all();
    Ok(handle)
}

/// Says how the run ended, and every failure in full.
pub(super) fn report(context: &Context<'_>, run: RunId, state: &RunState, elapsed_ms: u64) -> Exit {
    let printer = context.printer;
    let failures: Vec<(&StepId, &Failure)> = state
        .steps
        .iter()
        .filter(|(_, step)| matches!(step.status, StepStatus::Failed | StepStatus::Canceled))
        .filter_map(|(id, step)| Some((id, step.failure.as_ref()?)))
        .collect();
    let problems: Vec<Diagnostic> = failures
        .iter()
        .filter(|(_, failure)| failure.class != subak_domain::FailureClass::Canceled)
        .map(|(step, failure)| step_problem(run, step, failure, state))
        .collect();
    let failed_checks =
        state.steps.iter().filter(|(_, step)| step.outcome.as_ref().is_some_and(subak_domain::StepOutcome::has_failed_check));
    let problems: Vec<Diagnostic> =
        problems.into_iter().chain(failed_checks.map(|(step, state)| check_problem(step, state))).collect();
    printer.problems(&problems, &subak_diag::Sources::default());
    let number = |status: StepStatus| state.steps.values().filter(|step| step.status == status).count();
    let (succeeded, failed, skipped, canceled) =
        (number(StepStatus::Succeeded), number(StepStatus::Failed), number(StepStatus::Skipped), number(StepStatus::Canceled));
    let written: u64 =
        state.steps.values().filter_map(|step| step.outcome.as_ref()?.account).map(|account| account.written).sum();
    let tone = if state.status == RunStatus::Succeeded { Tone::Good } else { Tone::Bad };
    let human = format!(
        "run {run} {}: {} done, {failed} failed, {skipped} skipped, {canceled} canceled; {} written; {}",
        printer.tone(tone, state.status.as_str()),
        counted(succeeded as u64, "step"),
        counted(written, "row"),
        duration(elapsed_ms)
    );
    let object = json!({
        "run": run.to_string(), "status": state.status.as_str(), "succeeded": succeeded, "failed": failed, "skipped": skipped,
        "canceled": canceled, "rows_written": written, "elapsed_ms": elapsed_ms, "steps": runs::steps_json(state),
        "problems": problems.iter().map(|problem| subak_diag::to_json(problem, &subak_diag::Sources::default())).collect::<Vec<Value>>(),
    });
    printer.object("run", &object, &human);
    match state.status {
        RunStatus::Succeeded => Exit::Ok,
        RunStatus::Canceled => {
            printer.note(&format!("go on with `subak run resume {run}`"));
            Exit::Interrupted
        }
        _ => failures.first().map_or(Exit::Failed, |(_, failure)| exit_of(failure.class)),
    }
}

/// A step that published although checks that do not block found bad rows.
fn check_problem(step: &StepId, state: &subak_domain::StepState) -> Diagnostic {
    let failed: Vec<&subak_domain::CheckOutcome> = state
        .outcome
        .iter()
        .flat_map(|outcome| &outcome.checks)
        .filter(|check| !check.passed() && check.severity == subak_domain::Severity::Error)
        .collect();
    let names: Vec<String> =
        failed.iter().map(|check| format!("`{}` finds {} bad rows", check.check, count(check.bad_row_count))).collect();
    let mut problem = Diagnostic::error(codes::CHECK_FAILED, format!("checks of `{step}` failed: {}", names.join(", ")));
    problem.causes = failed.iter().flat_map(|check| check.sample.iter().map(|row| format!("bad row: {row}"))).collect();
    problem
        .data(format!("`{step}` was published all the same, because the checks do not block"))
        .help("mend the data or the check, then run again")
}

fn step_problem(run: RunId, step: &StepId, failure: &Failure, state: &RunState) -> Diagnostic {
    let mut problem = diagnostic_of(failure);
    let attempts = state.steps.get(step).map_or(1, |step| step.attempt_count);
    let tries = if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
    problem.message = format!("step `{step}` failed{tries}: {}", failure.message);
    problem.help(format!("then go on with `subak run resume {run}`; `subak explain {}` says more", failure.code))
}
