//! `subak server start`: starts jobs by their schedules, and runs what other commands hand over.
//!
//! What is to be run stands in the log as runs that are planned and not begun; what came of ticks stands in the store. What is kept of either in memory
//! is made from them, when the server starts and as the log grows, so a restart changes nothing.

mod api;
pub(super) mod automate;
mod http;
mod schedules;
pub(super) mod sensor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use jiff::tz::TimeZone;
use subak_domain::{Action, BackfillState, Job, RunEvent, RunId, RunState, RunStatus, Sensor, Timestamp};
use subak_engine::{Clock, StopReason, StopSignal, SystemClock};
use subak_project::Retention;
use subak_store::{Append, EventLog, Leases, ScheduleState, SqliteStore, StoreError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) use self::api::assistant;
use self::api::{Api, Desk, ProblemView, Serving, Shared};
use self::automate::Automation;
use self::http::{Counts, Hooks};
use self::schedules::Scheduled;
use self::sensor::{Looking, Seen};
use super::run::{self, Hold};
use super::{Context, automation, backfill};
use crate::args::ServerStartArgs;
use crate::exit::{CliError, Exit};
use crate::exports::Exports;
use crate::notices::{self, Told};
use crate::open::ProjectConnections;
use crate::pools::Pools;
use crate::project::{self, Opened};
use crate::queue::{self, Chosen, Entry, Queue, Rules};
use crate::retention;
use crate::version::{Fingerprint, Version};

/// How often it looks around when nothing is due.
const TURN: Duration = Duration::from_secs(1);

/// How often the right to act is renewed while nothing runs.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// How late a tick may be evaluated without counting as missed.
const LATE_MAX: Duration = Duration::from_secs(60);

/// Looks that go on at a time.
const LOOK_COUNT_MAX: usize = 16;

/// How often runs are looked at that are to begin no more steps.
const HOLD_INTERVAL: Duration = Duration::from_millis(100);

/// How often the log is looked at for what others have written.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// Missed ticks that are looked at, and kept, at most.
const MISSED_COUNT_MAX: usize = 1_000;

type Work<'a> = Pin<Box<dyn Future<Output = Result<RunState, CliError>> + 'a>>;

/// A run that goes on.
struct Running<'a> {
    entry: Entry,
    began_at: Timestamp,
    stop: StopSignal,
    work: Work<'a>,
}

/// What the HTTP interface takes and answers, as OpenAPI 3.1.
pub(super) fn description() -> serde_json::Value {
    subak_server::document(&subak_server::endpoints(api::endpoints()))
}

pub(super) fn start(context: &Context<'_>, args: &ServerStartArgs) -> Result<Exit, CliError> {
    context.block_on(async {
        let root = project::find_root(context.global)?;
        let (First { version, opened, problems }, seen) = first_version(context, &root)?;
        let hold = Hold::take_as(run::SERVER, context, &opened, &args.how).await?;
        // A disk that is full, or a file that somebody else holds for a while, is waited for.
        hold.store().be_patient(true);
        let engine = hold.engine(context, &opened)?;
        let inherited = hold.settle(context, &opened, &engine, true).await?;
        drop(engine);
        let (retention, opened) = (opened.project.config.retention, Arc::new(opened));
        let mut server = Server {
            context,
            args,
            hold: &hold,
            opened: Arc::clone(&opened),
            schedules: BTreeMap::new(),
            agenda: BTreeSet::new(),
            queue: Queue::default(),
            inherited,
            seen,
            version: Arc::new(version),
            held: BTreeSet::new(),
            zone: opened.timezone(),
            told: watch::Sender::default(),
            exports: watch::Sender::default(),
            retention: watch::Sender::new(retention),
            jobs: Arc::default(),
            sensors: Vec::new(),
            automation: Automation::default(),
            not_before: BTreeMap::new(),
            shared: Arc::default(),
            pools: Arc::default(),
            hooks: watch::Sender::default(),
            serving: watch::Sender::default(),
            counts: Arc::default(),
        };
        server.load(Arc::clone(&opened)).await?;
        if !problems.is_empty() {
            server.counts.is_broken.store(true, Ordering::Relaxed);
            server.publish(opened, problems);
        }
        let _interface = server.listen().await?;
        let served = server.serve().await;
        let (told, exports) = (server.told.borrow().clone(), server.exports.borrow().clone());
        if let (Ok(_), Some(exports)) = (&served, exports) {
            hold.store().renew(hold.lease(), SystemClock.now()).await?;
            for problem in exports.turn(hold.store(), hold.lease()).await? {
                context.printer.note(&problem);
            }
        }
        if let (Ok(_), Some(told)) = (&served, told) {
            // Of what ended last.
            for problem in notices::turn(hold.store(), hold.lease(), &told).await? {
                context.printer.note(&problem);
            }
        }
        hold.give_back().await?;
        served
    })
}

struct Server<'a> {
    context: &'a Context<'a>,
    args: &'a ServerStartArgs,
    hold: &'a Hold,
    /// The project as it could last be loaded.
    opened: Arc<Opened>,
    /// Jobs with their schedules, as they were when the project could last be loaded.
    schedules: BTreeMap<String, Arc<Scheduled>>,
    /// When each schedule is to be evaluated next.
    agenda: BTreeSet<(Timestamp, String)>,
    /// The runs that wait.
    queue: Queue,
    /// Runs that a server before this one has begun.
    inherited: Vec<RunId>,
    /// What the files of the project looked like when they were last read.
    seen: Fingerprint,
    /// The files as they could last be loaded. Everything that begins goes by them; what goes on keeps those that it began with.
    version: Arc<Version>,
    /// Runs and backfills that these files cannot carry on; they wait for others.
    held: BTreeSet<String>,
    /// The project's time zone, in which runs are told the time.
    zone: TimeZone,
    /// What people are told from.
    told: watch::Sender<Option<Arc<Told>>>,
    /// Who is told everything.
    exports: watch::Sender<Option<Arc<Exports>>>,
    /// How long what happened is kept.
    retention: watch::Sender<Retention>,
    /// All jobs by name.
    jobs: Arc<BTreeMap<String, Job>>,
    sensors: Vec<Sensor>,
    automation: Automation,
    /// When a sensor that could look again earlier than its interval says does, or one that does not look now is asked again.
    not_before: BTreeMap<String, Timestamp>,
    shared: Arc<Mutex<Shared>>,
    pools: Arc<Pools>,
    /// The sensors that are told things over HTTP.
    hooks: watch::Sender<Hooks>,
    /// The project as it is told over HTTP.
    serving: watch::Sender<Option<Arc<Serving>>>,
    /// What is counted for whoever watches the server.
    counts: Arc<Counts>,
}

/// What signals said so far.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// How often somebody asked the server to end.
    asked: u32,
    /// With which code it ends then.
    code: Exit,
    /// How often somebody asked it to read the files again.
    hang_ups: u32,
}

impl Default for Said {
    fn default() -> Self {
        Self { asked: 0, code: Exit::Interrupted, hang_ups: 0 }
    }
}

/// What a server begins with.
struct First {
    version: Version,
    opened: Opened,
    /// What is wrong with the files of today.
    problems: Vec<ProblemView>,
}

/// The project as it is; where it has errors, as it could last be loaded.
fn first_version(context: &Context<'_>, root: &Path) -> Result<(First, Fingerprint), CliError> {
    let (version, seen) = Version::read(root);
    match version.open(context.global, context.settings, context.printer, None) {
        Ok(opened) => {
            keep(context, &version);
            Ok((First { version, opened, problems: Vec::new() }, seen))
        }
        Err(error) if error.exit == Exit::Invalid => {
            let Some(kept) = Version::kept(root, context.global) else { return Err(error) };
            // What is kept may say nothing to this version of Subak; then the errors of today are what matters.
            let Ok(opened) = kept.open(context.global, context.settings, context.printer.quiet(), None) else {
                return Err(error);
            };
            tell_broken(context, &error);
            Ok((First { version: kept, opened, problems: problems_of(&error) }, seen))
        }
        Err(error) => Err(error),
    }
}

/// Writes down what a server that finds errors can go on with.
fn keep(context: &Context<'_>, version: &Version) {
    if let Err(error) = version.keep(context.global) {
        context
            .printer
            .note(&format!("a server that finds errors in the project will not start: this version cannot be kept: {error}"));
    }
}

/// What is wrong with the files, as it is told over HTTP.
fn problems_of(error: &CliError) -> Vec<ProblemView> {
    error.problems.iter().map(|problem| ProblemView::of(problem, &error.sources)).collect()
}

fn tell_broken(context: &Context<'_>, error: &CliError) {
    context.printer.problems(&error.problems, &error.sources);
    context.printer.note("the project has errors: everything goes on as it was when it could last be loaded");
}

fn signals(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| {
        let problem = subak_diag::Diagnostic::error(subak_diag::codes::RESOURCE, "signals cannot be watched");
        CliError::new(problem.caused_by(error.to_string()), Exit::Unreachable)
    })
}

impl<'a> Server<'a> {
    /// Takes the jobs of a project. A schedule that is new, or another than before, counts from now on.
    async fn load(&mut self, opened: Arc<Opened>) -> Result<(), CliError> {
        self.opened = Arc::clone(&opened);
        self.schedules.clear();
        // Labels and priorities of what waits may be others.
        self.queue = Queue::default();
        self.jobs = Arc::new(opened.project.jobs().iter().map(|job| (job.name.clone(), job.clone())).collect());
        self.publish(Arc::clone(&opened), Vec::new());
        self.counts.begin(self.jobs.keys());
        let has_receivers = !opened.project.config.receivers.is_empty();
        self.told.send_replace(if has_receivers { Some(Arc::new(run::told(self.context, &opened))) } else { None });
        let exports = run::exports(self.context, &opened);
        self.exports.send_replace((!exports.is_empty()).then(|| Arc::new(exports)));
        self.retention.send_replace(opened.project.config.retention);
        self.zone = opened.timezone();
        let now = SystemClock.now();
        let mut changed = Vec::new();
        for job in opened.project.jobs() {
            let Some(schedule) = &job.schedule else { continue };
            let definition = automation::version(schedule);
            let known = self.hold.store().schedule(&job.name)?;
            if known.as_ref().is_none_or(|known| known.definition != definition) {
                let is_off = known.is_some_and(|known| known.is_off);
                let state = ScheduleState { definition, since: now, is_off };
                changed.push((job.name.clone(), state));
            }
            let scheduled = Scheduled { job: job.clone(), schedule: schedule.clone(), times: automation::times(schedule)? };
            self.schedules.insert(job.name.clone(), Arc::new(scheduled));
        }
        // What came while nobody looked is found at once.
        self.agenda = self.schedules.keys().map(|name| (Timestamp::MIN, name.clone())).collect();
        let store = self.hold.store();
        futures::future::try_join_all(changed.into_iter().map(async |(name, state)| store.set_schedule(&name, state).await))
            .await?;
        // One that is gone and comes back is a new one.
        let names: Vec<String> = self.schedules.keys().cloned().collect();
        let mut forgotten = self.hold.store().keep_schedules(names, self.hold.lease()).await?;
        self.sensors = opened.project.sensors().to_vec();
        if self.args.listen.is_some() {
            let connections = ProjectConnections::new(&opened.root, &opened.project.config, self.context.settings, true);
            self.hooks.send_replace(http::hooks(&self.sensors, &connections, self.context.printer));
        }
        self.not_before.clear();
        self.automation = Automation::new(&opened, now);
        let names = self.sensors.iter().map(|sensor| sensor.name.clone()).chain(self.automation.names()).collect();
        forgotten.extend(self.hold.store().keep_sensors(names, self.hold.lease()).await?);
        for name in forgotten {
            self.context
                .printer
                .note(&format!("what was remembered of `{name}` is forgotten; under another name it begins anew"));
        }
        let next =
            self.schedules.values().filter_map(|known| Some((known.times.next_after(now)?, known.job.name.as_str()))).min();
        let next =
            next.map_or_else(String::new, |(at, name)| format!("; next is `{name}` at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
        let (project, counted) = (&opened.project.config.project, crate::printer::counted);
        let count = counted(self.schedules.len() as u64, "schedule");
        let more = [(self.sensors.len(), "sensor"), (self.automation.count(), "automated asset")];
        let more = more.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| counted(count as u64, what));
        let what = std::iter::once(count).chain(more).collect::<Vec<_>>().join(", ");
        self.context.printer.note(&format!("serving `{project}`: {what}{next}"));
        Ok(())
    }

    /// Tells the project over HTTP as it is gone by, with what is wrong with its files.
    fn publish(&self, opened: Arc<Opened>, problems: Vec<ProblemView>) {
        self.serving.send_replace(Some(Arc::new(Serving { opened, jobs: Arc::clone(&self.jobs), problems })));
    }

    /// A new day: what stands for it in templates is another text from now on.
    fn turn_day(&self) -> Result<(), CliError> {
        let Some(serving) = self.serving.borrow().clone() else { return Ok(()) };
        if self.args.listen.is_none() || serving.opened.is_of_today() {
            return Ok(());
        }
        match self.version.open(self.context.global, self.context.settings, self.context.printer.quiet(), None) {
            Ok(opened) => self.publish(Arc::new(opened), serving.problems.clone()),
            // Templates that do not fit the new day: what is told stays that of the day before, with what is wrong.
            Err(error) if error.exit == Exit::Invalid => {
                if serving.problems.is_empty() {
                    self.publish(Arc::clone(&serving.opened), problems_of(&error));
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Opens the HTTP interface, where one was asked for; it closes with the value.
    async fn listen(&self) -> Result<JoinSet<std::io::Result<()>>, CliError> {
        let mut tasks = JoinSet::new();
        let Some(address) = self.args.listen else { return Ok(tasks) };
        let listener = subak_server::listen(address).await.map_err(|error| {
            let message = format!("`{address}` cannot be listened to: {error}");
            let problem = subak_diag::Diagnostic::error(subak_diag::codes::RESOURCE, message);
            CliError::new(problem.help("give another address to `--listen`, or stop what has this one"), Exit::Unreachable)
        })?;
        // What somebody looks at holds up neither runs nor schedules.
        let (store, counts) = (self.hold.store().with_own_reader()?, Arc::clone(&self.counts));
        let desk = Desk {
            settings: Arc::clone(self.context.settings),
            shared: Arc::clone(&self.shared),
            turn: tokio::sync::Mutex::default(),
        };
        let backend = Arc::new(Api::new(store, self.hooks.subscribe(), counts, self.serving.subscribe(), desk));
        let shown = listener.local_addr().map_or_else(|_| address.to_string(), |address| address.to_string());
        let prefix = self.args.path_prefix.trim_matches('/');
        let place = if prefix.is_empty() { format!("http://{shown}") } else { format!("http://{shown}/{prefix}") };
        self.context.printer.note(&format!("listening on {place}"));
        let setup = backend.people.open_setup(self.opened.state_folder().join("setup-token"), SystemClock.now());
        match setup {
            Ok(Some(secret)) => {
                let what = "nobody can sign in yet: within 15 minutes, the first admin is made at";
                self.context.printer.note(&format!("{what} {place}/setup#{secret}"));
            }
            Ok(None) => {}
            Err(problem) => self.context.printer.note(&problem.error.message),
        }
        let (hosts, tools) = (self.args.host.clone(), assistant::TOOLS);
        let settings = subak_server::Settings { hosts, prefix: prefix.to_owned(), tools };
        let (router, mut telling) = subak_server::router(backend, api::endpoints(), &settings);
        tasks.spawn(async move {
            let served = subak_server::serve(listener, router).await;
            telling.abort_all();
            served
        });
        Ok(tasks)
    }

    /// Until somebody asks it to stop: steps that go on are waited for, and what comes behind them is left to the next server. Asked again, it stops
    /// them; a third time, it ends at once.
    async fn serve(&mut self) -> Result<Exit, CliError> {
        let (said, _listening) = self.listen_to_signals()?;
        let mut said = said.subscribe();
        let (mut asked, mut code, mut hang_ups) = (0_u32, Exit::Interrupted, 0);
        let mut running: Vec<Running<'a>> = Vec::new();
        let mut looking: Vec<Looking<'a>> = Vec::new();
        let mut renewing = self.renewing();
        // Of the next look at everything; what the log says in between is looked at too.
        let mut turn_at = Timestamp::MIN;
        loop {
            let now = SystemClock.now();
            if let Some(ended) = renewing.try_join_next() {
                return stop_all(running, given_up(ended.ok().and_then(Result::err))).await;
            }
            if asked == 0 {
                match self.go_on(&mut running, &mut looking, turn_at, now).await {
                    Ok(next) => turn_at = next,
                    Err(error) => return stop_all(running, error).await,
                }
            } else {
                let left = self.leave_waiting(&mut running);
                if left.is_ok() && running.is_empty() {
                    return Ok(code);
                }
                let canceled = self.cancel_runs(&running).await;
                if let Err(error) = left.and(canceled) {
                    return stop_all(running, error).await;
                }
            }
            let wake_at = if asked == 0 { turn_at } else { SystemClock.now() + HOLD_INTERVAL };
            let (store, seen) = (self.hold.store().clone(), self.queue.position());
            tokio::select! {
                (at, ended) = first_end(&mut running) => {
                    let Running { entry, began_at, .. } = running.swap_remove(at);
                    // What waited for it goes on at once.
                    turn_at = Timestamp::MIN;
                    if let Err(error) = self.tell(entry.run, began_at, ended) {
                        return stop_all(running, error).await;
                    }
                }
                (at, seen) = first_look(&mut looking) => {
                    let looked = looking.swap_remove(at);
                    if let Err(error) = self.looked(looked, seen).await {
                        return stop_all(running, error).await;
                    }
                }
                _ = said.changed() => {
                    let now = *said.borrow_and_update();
                    (asked, code) = (now.asked, now.code);
                    if now.hang_ups > hang_ups {
                        (self.seen, turn_at, hang_ups) = (Fingerprint::default(), Timestamp::MIN, now.hang_ups);
                    }
                }
                () = SystemClock.sleep_until(wake_at) => continue,
                () = something_new(&store, seen), if asked == 0 => continue,
            }
            // What they would find is found by the next server.
            looking.retain(|_| asked == 0);
            self.stop(&running, asked);
            if asked > 2 {
                return Ok(code);
            }
        }
    }

    /// Counts what signals say, whatever else goes on. Whoever asks twice does not want to wait for a disk that is full.
    fn listen_to_signals(&self) -> Result<(watch::Sender<Said>, JoinSet<()>), CliError> {
        let (mut interrupt, mut terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
        let (mut hang_up, said, store) = (signals(SignalKind::hangup())?, watch::Sender::default(), self.hold.store().clone());
        let (mut tasks, told) = (JoinSet::new(), said.clone());
        tasks.spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => Some(Exit::Interrupted),
                    _ = terminate.recv() => Some(Exit::Terminated),
                    _ = hang_up.recv() => None,
                };
                told.send_modify(|said: &mut Said| match code {
                    None => said.hang_ups += 1,
                    Some(code) => {
                        said.asked += 1;
                        // Nothing is cut short by the first one: that is an end as good as any.
                        said.code = if said.asked == 1 && code == Exit::Terminated { Exit::Ok } else { code };
                    }
                });
                if told.borrow().asked > 1 {
                    store.be_patient(false);
                }
            }
        });
        Ok((said, tasks))
    }

    /// Lets runs begin no more steps once somebody has asked the server to stop, and ends their steps once somebody has asked again.
    fn stop(&self, running: &[Running<'a>], asked: u32) {
        self.counts.is_stopping.store(asked > 0, Ordering::Relaxed);
        for one in running.iter().filter(|_| asked > 0) {
            one.stop.hold();
            if asked == 2 {
                one.stop.stop(StopReason::Canceled);
            }
        }
        if asked == 1 && !running.is_empty() {
            let runs: Vec<String> = running.iter().map(|running| running.entry.run.to_string()).collect();
            let what = format!("the steps of {} that have begun", runs.join(", "));
            self.context.printer.note(&format!("stopping when {what} are done; once more stops them too"));
        }
    }

    /// Looks at everything when its time has come, and begins what can. Returns when everything is to be looked at again.
    async fn go_on(
        &mut self,
        running: &mut Vec<Running<'a>>,
        looking: &mut Vec<Looking<'a>>,
        turn_at: Timestamp,
        now: Timestamp,
    ) -> Result<Timestamp, CliError> {
        let mut next = turn_at;
        // A clock that was put back makes nobody wait for longer.
        if now >= turn_at || turn_at > now + TURN {
            self.turn(now).await?;
            self.begin_looks(looking, !running.is_empty(), now).await?;
            let now = SystemClock.now();
            next = self.agenda.first().map_or(now + TURN, |(at, _)| (*at).clamp(now, now + TURN));
        }
        let canceled = self.cancel_runs(running).await?;
        self.begin_runs(running, &canceled, !looking.is_empty(), now).await?;
        Ok(next)
    }

    /// Begins runs that wait, as long as there is room: those of jobs with the highest priority first, then the oldest. One that cannot begin yet
    /// holds up no other.
    async fn begin_runs(
        &mut self,
        running: &mut Vec<Running<'a>>,
        canceled: &BTreeSet<RunId>,
        is_looking: bool,
        now: Timestamp,
    ) -> Result<(), CliError> {
        if self.read_queue().await? {
            // Whoever hands a run over means the files as they are by now.
            self.reload().await?;
            self.read_queue().await?;
        }
        self.end_held(canceled).await?;
        self.inherit(running, is_looking, now)?;
        if self.queue.is_empty() {
            return Ok(());
        }
        let (opened, jobs) = (Arc::clone(&self.opened), Arc::clone(&self.jobs));
        let failed = queue::failed_jobs(self.hold.store(), &jobs)?;
        let rules = Rules { jobs: &jobs, limits: &opened.project.config.run_limits, failed: &failed };
        let runs_max = usize::from(self.args.runs);
        let busy_count = if running.len() >= runs_max { self.busy_count(running)? } else { running.len() };
        let entries: Vec<&Entry> = running.iter().map(|running| &running.entry).collect();
        let chosen = self.queue.choose(rules, &entries, runs_max.saturating_sub(busy_count), canceled, &self.held);
        for Chosen { entry, as_of, is_canceled, why } in chosen {
            let stop = StopSignal::default();
            if is_canceled {
                stop.stop(StopReason::Canceled);
            }
            let has_others = is_looking || !running.is_empty();
            let Some(work) = self.work(entry.run, &as_of, has_others, stop.clone(), false)? else { break };
            if let Some(why) = why {
                self.context.printer.note(&format!("run {} is canceled: {why}", entry.run));
            }
            running.push(Running { entry, began_at: now, stop, work });
        }
        Ok(())
    }

    /// Goes on with runs that a server before this one has begun. They had their turn.
    fn inherit(&mut self, running: &mut Vec<Running<'a>>, is_looking: bool, now: Timestamp) -> Result<(), CliError> {
        for run in std::mem::take(&mut self.inherited) {
            if self.held.contains(&run.to_string()) {
                self.inherited.push(run);
                continue;
            }
            let state = super::runs::state(self.hold.store(), run)?.0;
            let (entry, stop) = (Entry::of(run, &state, &self.jobs), StopSignal::default());
            let has_others = is_looking || !running.is_empty();
            match self.work(run, &state.as_of, has_others, stop.clone(), true)? {
                Some(work) => running.push(Running { entry, began_at: now, stop, work }),
                None => self.inherited.push(run),
            }
        }
        Ok(())
    }

    /// Takes over what is new in the log. Whether a run is among it that waits.
    async fn read_queue(&mut self) -> Result<bool, CliError> {
        self.queue.read(self.hold.store(), &self.jobs).await
    }

    /// Ends runs that somebody has canceled and that the project cannot carry on: they are not begun for that.
    async fn end_held(&mut self, canceled: &BTreeSet<RunId>) -> Result<(), CliError> {
        for run in canceled {
            if !self.held.remove(&run.to_string()) {
                continue;
            }
            let expected = self.hold.store().run_events(*run)?.len() as u64 + 1;
            self.inherited.retain(|inherited| inherited != run);
            let by = "somebody, while the project could not carry it on".to_owned();
            let (holder, status) = (self.hold.dead(), RunStatus::Canceled);
            // What it was doing when its server ended is lost.
            let events = [RunEvent::CancelRequested { by }, RunEvent::Lost { holder }, RunEvent::Finished { status }];
            let events = events.map(|event| (SystemClock.now(), event)).to_vec();
            self.hold.store().append(Append { run: *run, expected, events, fence: Some(self.hold.lease().clone()) }).await?;
            self.context.printer.note(&format!("run {run} is canceled"));
        }
        Ok(())
    }

    /// Runs that do something: one that only waits, for a time or for a person, keeps no other from beginning.
    fn busy_count(&self, running: &[Running<'_>]) -> Result<usize, CliError> {
        let mut count = 0;
        for other in running {
            let state = super::runs::state(self.hold.store(), other.entry.run)?.0;
            let mut open = executing(&state).peekable();
            let only_waits = open.peek().is_some() && open.all(Action::is_idle);
            count += usize::from(!only_waits);
        }
        Ok(count)
    }

    /// Leaves runs to the next server in which no step goes on, or only some that wait: for a time, or for a person.
    fn leave_waiting(&self, running: &mut Vec<Running<'a>>) -> Result<(), CliError> {
        let mut at = 0;
        while at < running.len() {
            let run = running[at].entry.run;
            let state = super::runs::state(self.hold.store(), run)?.0;
            let may_be_left = running[at].stop.is_held() && state.status == RunStatus::Running;
            if may_be_left && executing(&state).all(Action::is_idle) {
                drop(running.swap_remove(at));
                self.context.printer.note(&format!("run {run} waits; the next server goes on with it"));
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// A planned run to its end, with the project as it is now and the time that the run is for. `None` where it has to wait until no other run
    /// uses connections that are declared otherwise by now.
    fn work(
        &mut self,
        run: RunId,
        as_of: &str,
        has_others: bool,
        stop: StopSignal,
        is_inherited: bool,
    ) -> Result<Option<Work<'a>>, CliError> {
        let opened = self.opened_for(as_of);
        let opened = match opened {
            Ok(opened) => opened,
            // It is told by the run that could not begin.
            Err(error) => return Ok(Some(Box::pin(async move { Err(error) }))),
        };
        let Some(connections) = self.connections(&opened, has_others) else { return Ok(None) };
        let limits = run::limits(&opened, &self.args.how);
        let shared = Some((Arc::clone(&self.pools), limits.slots.clone()));
        let engine = self.hold.engine_over(self.context, &opened, connections, shared)?;
        let hold = self.hold;
        Ok(Some(Box::pin(async move { hold.carry(&engine, run, is_inherited, &limits, &stop).await })))
    }

    /// The connections that runs and looks share. `None` while others use some that are declared otherwise.
    fn connections(&mut self, opened: &Opened, has_others: bool) -> Option<Arc<ProjectConnections>> {
        let config = format!("{:?}", opened.project.config.connections);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.connections.upgrade() {
            Some(connections) if config == shared.config => Some(connections),
            Some(_) if has_others => None,
            _ => {
                let made = ProjectConnections::new(&opened.root, &opened.project.config, self.context.settings, false);
                let made = Arc::new(made);
                *shared = Shared { config, connections: Arc::downgrade(&made) };
                Some(made)
            }
        }
    }

    /// Lets sensors look whose time has come; each looks once at a time, and none waits for another.
    async fn begin_looks(&mut self, looking: &mut Vec<Looking<'a>>, has_runs: bool, now: Timestamp) -> Result<(), CliError> {
        for sensor in self.sensors.clone() {
            let interval = jiff::SignedDuration::try_from(sensor.min_interval).unwrap_or_default();
            let pause = interval.max(jiff::SignedDuration::from_secs(1));
            // A clock that was put back makes nobody wait for longer.
            let is_early = self.not_before.get(&sensor.name).is_some_and(|at| now < *at && *at <= now + pause);
            if is_early || looking.len() >= LOOK_COUNT_MAX || looking.iter().any(|other| other.sensor.name == sensor.name) {
                continue;
            }
            let state = sensor::known(self.hold.store(), &sensor)?;
            let due_at = state.looked_at.filter(|at| *at <= now).map_or(now, |at| at + interval);
            if !self.not_before.contains_key(&sensor.name) && due_at > now {
                self.not_before.insert(sensor.name.clone(), due_at);
                continue;
            }
            self.not_before.insert(sensor.name.clone(), now + pause);
            if state.is_off {
                continue;
            }
            if sensor.watch.is_of_log() {
                if let Some(look) = sensor::look_at_log(self.hold.store(), &sensor, &state).await? {
                    let (version, work) = (Arc::clone(&self.version), Box::pin(std::future::pending()));
                    self.looked(Looking { sensor, state, began_at: now, version, work }, Ok(look)).await?;
                }
                continue;
            }
            let has_others = has_runs || !looking.is_empty();
            let Some(connections) = self.connections(&Arc::clone(&self.opened), has_others) else { continue };
            let (context, opened) = (self.context, Arc::clone(&self.opened));
            let (own, known) = (sensor.clone(), state.clone());
            let work =
                Box::pin(async move { sensor::look(context, &opened, connections, &own, &known, StopSignal::default()).await });
            looking.push(Looking { sensor, state, began_at: now, version: Arc::clone(&self.version), work });
        }
        Ok(())
    }

    /// Writes down what a look found, and plans its runs.
    async fn looked(&mut self, looking: Looking<'a>, seen: Seen) -> Result<(), CliError> {
        let Looking { sensor, state, began_at, version, .. } = looking;
        let again_after = seen.as_ref().ok().and_then(|look| look.again_after);
        let (context, name) = (self.context, sensor.name.clone());
        let (store, lease) = (self.hold.store(), self.hold.lease());
        let open = || version.open(context.global, context.settings, context.printer.quiet(), None);
        match sensor::commit(store, lease, (sensor, state, began_at), seen, open).await {
            Ok(written) => {
                if let Some(told) = written.told {
                    context.printer.note(&told);
                }
                // What could not be used is still there, and not before the interval is over.
                if let (Some(again_after), false) = (again_after, written.has_problems) {
                    let again_after = jiff::SignedDuration::try_from(again_after).unwrap_or_default();
                    self.not_before.entry(name).and_modify(|at| *at = (*at).min(began_at + again_after));
                }
            }
            // It looks again at its time.
            Err(error) if error.exit == Exit::Invalid => context.printer.problems(&error.problems, &error.sources),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The project of the version that is served, at a time.
    fn opened_as_of(&self, as_of: &str) -> Result<Opened, CliError> {
        self.version.open(self.context.global, self.context.settings, self.context.printer.quiet(), Some(as_of))
    }

    fn opened_for(&self, as_of: &str) -> Result<Opened, CliError> {
        // A run of today that no time was asked for sees the time as it is.
        let opened = self.version.open(self.context.global, self.context.settings, self.context.printer.quiet(), None)?;
        if as_of == opened.as_of_template { Ok(opened) } else { self.opened_as_of(as_of) }
    }

    /// Keeps the right to act, whatever else takes its time. Ends when it is lost.
    fn renewing(&self) -> JoinSet<Result<(), StoreError>> {
        let (store, lease, counts) = (self.hold.store().clone(), self.hold.lease().clone(), Arc::clone(&self.counts));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let began_at = SystemClock.now();
                store.renew(&lease, began_at).await?;
                let took = SystemClock.now().duration_since(began_at).as_micros().max(0);
                counts.write_us.store(u64::try_from(took).unwrap_or(0), Ordering::Relaxed);
                SystemClock.sleep_until(SystemClock.now() + RENEW_INTERVAL).await;
            }
        });
        let (store, printer, counts) = (self.hold.store().clone(), self.context.printer, Arc::clone(&self.counts));
        tasks.spawn(async move {
            loop {
                let (before, now) = (counts.is_stalled.load(Ordering::Relaxed), store.stalled());
                counts.is_stalled.store(now.is_some(), Ordering::Relaxed);
                match now {
                    Some((_, why)) if !before => printer.note(&format!("the state cannot be written, everything waits: {why}")),
                    None if before => printer.note("the state is written again"),
                    _ => {}
                }
                SystemClock.sleep_until(SystemClock.now() + TURN).await;
            }
        });
        let (store, lease) = (self.hold.store().clone(), self.hold.lease().clone());
        let (printer, told) = (self.context.printer, self.told.subscribe());
        tasks.spawn(async move {
            loop {
                let now = told.borrow().clone();
                if let Some(told) = now {
                    // Who cannot be told, or a state that cannot be read just now, keeps nothing else from going on.
                    match notices::turn(&store, &lease, &told).await {
                        Ok(problems) => problems.iter().for_each(|problem| printer.note(problem)),
                        Err(error) => printer.note(&format!("people are told later: {}", error.summary())),
                    }
                }
                SystemClock.sleep_until(SystemClock.now() + TURN).await;
            }
        });
        let (store, lease) = (self.hold.store().clone(), self.hold.lease().clone());
        let (printer, exports) = (self.context.printer, self.exports.subscribe());
        tasks.spawn(async move {
            loop {
                let now = exports.borrow().clone();
                if let Some(exports) = now {
                    match exports.turn(&store, &lease).await {
                        Ok(problems) => problems.iter().for_each(|problem| printer.note(problem)),
                        Err(error) => printer.note(&format!("other systems are told later: {}", error.summary())),
                    }
                }
                SystemClock.sleep_until(SystemClock.now() + TURN).await;
            }
        });
        let (store, lease, folder) = (self.hold.store().clone(), self.hold.lease().clone(), self.opened.state_folder());
        let (printer, kept) = (self.context.printer, self.retention.subscribe());
        tasks.spawn(async move {
            loop {
                let (now, kept) = (SystemClock.now(), *kept.borrow());
                if let Err(error) = retention::look(&store, &lease, &folder, &kept, now).await {
                    printer.note(&format!("what is old is removed later: {}", error.summary()));
                }
                SystemClock.sleep_until(now + retention::INTERVAL).await;
            }
        });
        tasks
    }

    /// Looks at the files and at the schedules. A bug in one of the looks keeps the others from nothing.
    async fn turn(&mut self, now: Timestamp) -> Result<(), CliError> {
        let mut bugs = Vec::new();
        bugs.extend(in_spite_of_bugs("the files", self.reload()).await?);
        self.read_queue().await?;
        bugs.extend(in_spite_of_bugs("schedules", self.evaluate(now)).await?);
        bugs.extend(in_spite_of_bugs("backfills", self.backfills()).await?);
        bugs.extend(in_spite_of_bugs("automation", self.automate(now)).await?);
        if !bugs.is_empty() {
            // What was taken off the agenda is looked at again.
            self.agenda = self.schedules.keys().map(|name| (Timestamp::MIN, name.clone())).collect();
        }
        for bug in bugs {
            // The bug itself was told where it is.
            self.context.printer.note(&format!("{bug} cannot be looked at; everything else goes on"));
        }
        Ok(())
    }

    async fn automate(&mut self, now: Timestamp) -> Result<(), CliError> {
        let opened = Arc::clone(&self.opened);
        for told in self.automation.turn(self.hold.store(), self.hold.lease(), &opened, now).await? {
            self.context.printer.note(&told);
        }
        Ok(())
    }

    /// Stops what somebody asked to stop. Returns the runs among them that wait.
    async fn cancel_runs(&self, running: &[Running<'a>]) -> Result<BTreeSet<RunId>, CliError> {
        let mut waiting = BTreeSet::new();
        for run in self.hold.store().cancel_requests()? {
            match running.iter().find(|running| running.entry.run == run) {
                Some(running) => running.stop.stop(StopReason::Canceled),
                None if self.inherited.contains(&run) || run::is_waiting(self.hold.store(), run)? => drop(waiting.insert(run)),
                None => self.hold.store().forget_cancel(run).await?,
            }
        }
        Ok(waiting)
    }

    /// Takes the next step of each backfill whose run has ended, or that has none.
    async fn backfills(&mut self) -> Result<(), CliError> {
        for backfill in self.hold.store().backfills(true, usize::MAX)? {
            let is_idle = match backfill.run {
                Some(run) => super::runs::state(self.hold.store(), run)?.0.status.is_final(),
                None => backfill.state != BackfillState::Paused,
            };
            if !is_idle || self.held.contains(&backfill.id.to_string()) {
                continue;
            }
            match self.opened_as_of(&backfill.as_of) {
                Ok(opened) => drop(backfill::step(self.hold.store(), self.hold.lease(), &opened, &backfill).await?),
                Err(error) if error.exit == Exit::Invalid => self.hold_back("backfill", backfill.id.to_string(), &error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn tell(&mut self, run: RunId, began_at: Timestamp, ended: Result<RunState, CliError>) -> Result<(), CliError> {
        match ended {
            Ok(state) => {
                let elapsed_ms = SystemClock.now().duration_since(began_at).as_millis().max(0) as u64;
                run::report(self.context, run, &state, elapsed_ms);
                self.counts.ended(&state, elapsed_ms);
                Ok(())
            }
            // A run that cannot be run is told, and the server goes on; a store that fails ends it.
            Err(error) if error.exit == Exit::Invalid => {
                self.hold_back("run", run.to_string(), &error);
                if !run::is_waiting(self.hold.store(), run)? {
                    self.inherited.push(run);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lets something wait that the project cannot carry on, until its files are others.
    fn hold_back(&mut self, what: &str, id: String, error: &CliError) {
        self.context.printer.problems(&error.problems, &error.sources);
        self.context.printer.note(&format!("{what} {id} waits until the project is mended"));
        self.held.insert(id);
    }

    /// Loads the project again when its files have changed. While they have errors, everything goes on as it was when they had none.
    async fn reload(&mut self) -> Result<(), CliError> {
        if !self.seen.is_old(&self.opened.root) {
            return self.turn_day();
        }
        let version;
        (version, self.seen) = Version::read(&self.opened.root);
        match version.open(self.context.global, self.context.settings, self.context.printer, None) {
            Ok(opened) => {
                keep(self.context, &version);
                self.version = Arc::new(version);
                self.held.clear();
                self.counts.is_broken.store(false, Ordering::Relaxed);
                self.load(Arc::new(opened)).await
            }
            Err(error) if error.exit == Exit::Invalid => {
                tell_broken(self.context, &error);
                self.counts.is_broken.store(true, Ordering::Relaxed);
                self.publish(Arc::clone(&self.opened), problems_of(&error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Does something of the server. Returns what it was when it panicked: what is shared is written in one go, so nothing is left half done.
async fn in_spite_of_bugs(
    what: &'static str,
    work: impl Future<Output = Result<(), CliError>>,
) -> Result<Option<&'static str>, CliError> {
    match std::panic::AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done.map(|()| None),
        Err(_) => Ok(Some(what)),
    }
}

/// What is being executed of a run, as far as the log tells.
fn executing(state: &RunState) -> impl Iterator<Item = &Action> {
    state.actions.iter().filter(|action| state.steps.get(&action.step).is_some_and(|step| step.status.is_executing()))
}

/// Waits until the log is longer than up to a position, whoever writes it.
async fn something_new(store: &SqliteStore, seen: u64) {
    loop {
        SystemClock.sleep_until(SystemClock.now() + LOG_INTERVAL).await;
        // A state that cannot be read is told by whoever needs it.
        if store.newest_position().is_ok_and(|newest| newest > seen) {
            return;
        }
    }
}

/// Waits until one of the runs ends; for ever where there is none.
async fn first_end(running: &mut [Running<'_>]) -> (usize, Result<RunState, CliError>) {
    if running.is_empty() {
        return std::future::pending().await;
    }
    let (ended, at, _) = futures::future::select_all(running.iter_mut().map(|running| running.work.as_mut())).await;
    (at, ended)
}

/// Waits until one of the looks is done; for ever where there is none.
async fn first_look(looking: &mut [Looking<'_>]) -> (usize, Seen) {
    if looking.is_empty() {
        return std::future::pending().await;
    }
    let (seen, at, _) = futures::future::select_all(looking.iter_mut().map(|looking| looking.work.as_mut())).await;
    (at, seen)
}

/// Ends runs as ones that somebody stopped, and waits for that.
async fn stop_all<T>(running: Vec<Running<'_>>, error: CliError) -> Result<T, CliError> {
    for one in &running {
        one.stop.stop(StopReason::Canceled);
    }
    // What became of them stands in the log, or the next holder of the project records it.
    drop(futures::future::join_all(running.into_iter().map(|one| one.work)).await);
    Err(error)
}

/// The error of a server that has lost the project.
fn given_up(error: Option<StoreError>) -> CliError {
    match error {
        Some(error) => error.into(),
        None => {
            CliError::new(subak_diag::Diagnostic::error(subak_diag::codes::STATE_FAILED, "the project was lost"), Exit::Conflict)
        }
    }
}
