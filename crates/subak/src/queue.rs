//! Which runs may go on beside each other. A server goes by it, and `subak why` tells it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use subak_domain::job::WhenFull;
use subak_domain::{Action, AssetKey, Event, Job, RunEvent, RunId, RunState, RunStatus, Work};
use subak_plan::expression::Values;
use subak_store::{EventLog, SqliteStore};

use crate::exit::CliError;

/// Events that are read at a time.
const READ_COUNT: usize = 1_000;

/// The labels of a run of a job.
pub(crate) fn tags_of(state: &RunState, job: Option<&Job>) -> BTreeSet<String> {
    let params = Values::of_params(&state.params);
    let tags = job.map(|job| job.tags.as_slice()).unwrap_or_default().iter();
    // What a template cannot render, it is itself: all such runs are bounded together.
    tags.map(|tag| params.render(tag).unwrap_or_else(|_| tag.clone())).collect()
}

/// What a run is to the rules.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) run: RunId,
    pub(crate) job: Option<String>,
    /// The assets that it brings up to date.
    pub(crate) assets: BTreeSet<AssetKey>,
    /// Its labels.
    pub(crate) tags: BTreeSet<String>,
    /// Whether it was begun before, and goes on.
    pub(crate) is_resumed: bool,
}

impl Entry {
    /// The run as the rules see it, under these jobs.
    pub(crate) fn of(run: RunId, state: &RunState, jobs: &BTreeMap<String, Job>) -> Self {
        let tags = tags_of(state, state.job.as_ref().and_then(|job| jobs.get(job)));
        let is_resumed = state.steps.values().any(|step| step.attempt_count > 0);
        Self { run, job: state.job.clone(), assets: assets_of(&state.actions), tags, is_resumed }
    }

    /// Its place among the runs that wait: the highest priority first, then the oldest.
    pub(crate) fn rank(&self, jobs: &BTreeMap<String, Job>) -> (Reverse<i64>, RunId) {
        let priority = self.job.as_ref().and_then(|job| jobs.get(job)).map_or(0, |job| job.priority);
        (Reverse(priority), self.run)
    }
}

/// The runs that are planned for a server and not begun, as far as the log was read.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Up to where; `None` before the first time.
    position: Option<u64>,
    waiting: BTreeMap<RunId, Waits>,
    /// The highest priority first, then the oldest.
    order: BTreeSet<(Reverse<i64>, RunId)>,
    /// By job.
    jobs: BTreeMap<String, BTreeSet<RunId>>,
}

#[derive(Debug)]
struct Waits {
    entry: Entry,
    as_of: String,
    priority: Reverse<i64>,
}

/// A run that is to begin.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) entry: Entry,
    /// The time that it is for.
    pub(crate) as_of: String,
    /// Whether it ends at once.
    pub(crate) is_canceled: bool,
    /// The rule by which it does; without one somebody has asked for it.
    pub(crate) why: Option<Blocked>,
}

impl Queue {
    /// Takes over what is new in the log. Whether a run is among it that waits.
    pub(crate) async fn read(&mut self, store: &SqliteStore, jobs: &BTreeMap<String, Job>) -> Result<bool, CliError> {
        let Some(mut position) = self.position else {
            self.position = Some(store.newest_position()?);
            let events = store.queued_events()?;
            for events in events.chunk_by(|one, next| one.run == next.run) {
                self.enter(events, jobs)?;
            }
            return Ok(!self.waiting.is_empty());
        };
        let mut has_new = false;
        loop {
            let events = store.read_after(position, READ_COUNT).await?;
            let Some(last) = events.last() else { break };
            position = last.position;
            for event in &events {
                match &event.event {
                    RunEvent::Planned { for_server: true, .. } => has_new |= self.enter(std::slice::from_ref(event), jobs)?,
                    RunEvent::Resumed { for_server: true, .. } => has_new |= self.enter(&store.run_events(event.run)?, jobs)?,
                    RunEvent::Started { .. } | RunEvent::CancelRequested { .. } | RunEvent::Finished { .. } => {
                        self.remove(event.run);
                    }
                    _ => {}
                }
            }
            self.position = Some(position);
        }
        Ok(has_new)
    }

    /// Up to where the log was read.
    pub(crate) fn position(&self) -> u64 {
        self.position.unwrap_or(0)
    }

    /// A run of a job that waits, and how many do.
    pub(crate) fn of_job(&self, job: &str) -> (Option<RunId>, usize) {
        self.jobs.get(job).map_or((None, 0), |runs| (runs.first().copied(), runs.len()))
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a run by all of its events, unless it has begun since. Whether it waits.
    fn enter(&mut self, events: &[Event], jobs: &BTreeMap<String, Job>) -> Result<bool, CliError> {
        let Some(first) = events.first().filter(|_| is_waiting(events)) else { return Ok(false) };
        let Some(state) = RunState::fold(events.iter().map(|event| (event.at, &event.event))) else { return Ok(false) };
        let state = state.map_err(subak_engine::EngineError::from)?;
        let entry = Entry::of(first.run, &state, jobs);
        let (priority, run) = entry.rank(jobs);
        self.order.insert((priority, run));
        if let Some(job) = &entry.job {
            self.jobs.entry(job.clone()).or_default().insert(run);
        }
        self.waiting.insert(run, Waits { entry, as_of: state.as_of, priority });
        Ok(true)
    }

    fn remove(&mut self, run: RunId) {
        let Some(waits) = self.waiting.remove(&run) else { return };
        self.order.remove(&(waits.priority, run));
        if let Some(runs) = waits.entry.job.and_then(|job| self.jobs.get_mut(&job)) {
            runs.remove(&run);
        }
    }

    /// The runs that begin now beside those that go on: at most `room`, and those that end at once. What is `held` waits.
    pub(crate) fn choose(
        &self,
        rules: Rules<'_>,
        running: &[&Entry],
        room: usize,
        canceled: &BTreeSet<RunId>,
        held: &BTreeSet<String>,
    ) -> Vec<Chosen> {
        let is_running: BTreeSet<RunId> = running.iter().map(|entry| entry.run).collect();
        let cancels = |job: &str| rules.jobs.get(job).is_some_and(|job| job.when_full == WhenFull::Cancel);
        let has_cancels = self.jobs.iter().any(|(job, runs)| !runs.is_empty() && cancels(job));
        let mut chosen: Vec<Chosen> = Vec::new();
        let asked = canceled.iter().filter(|run| !is_running.contains(run) && !held.contains(&run.to_string()));
        let asked = asked.filter_map(|run| self.waiting.get(run));
        chosen.extend(asked.map(|waits| waits.chosen(true, None)));
        let (mut count, mut full): (usize, BTreeSet<&str>) = (0, BTreeSet::new());
        for (_, run) in &self.order {
            if count >= room && !has_cancels {
                break;
            }
            let Some(waits) = self.waiting.get(run) else { continue };
            let job = waits.entry.job.as_deref().unwrap_or_default();
            let is_known =
                is_running.contains(run) || canceled.contains(run) || (!held.is_empty() && held.contains(&run.to_string()));
            if is_known || full.contains(job) {
                continue;
            }
            let begun = chosen.iter().filter(|other| !other.is_canceled).map(|other| &other.entry);
            match rules.blocked(&waits.entry, running.iter().copied().chain(begun)) {
                None if count < room => {
                    count += 1;
                    chosen.push(waits.chosen(false, None));
                }
                Some(blocked @ Blocked::Job { .. }) if cancels(job) => chosen.push(waits.chosen(true, Some(blocked))),
                // No other run of it can begin either.
                Some(Blocked::Job { .. } | Blocked::Previous { .. }) => drop(full.insert(job)),
                _ => {}
            }
        }
        chosen
    }
}

impl Waits {
    fn chosen(&self, is_canceled: bool, why: Option<Blocked>) -> Chosen {
        Chosen { entry: self.entry.clone(), as_of: self.as_of.clone(), is_canceled, why }
    }
}

/// Whether a run is planned for a server, or to be taken up again by one, and not begun.
pub(crate) fn is_waiting(events: &[Event]) -> bool {
    let is_for_server = |event: &RunEvent| {
        matches!(event, RunEvent::Planned { for_server: true, .. } | RunEvent::Resumed { for_server: true, .. })
    };
    events.last().is_some_and(|event| is_for_server(&event.event))
}

/// Whether a run is in the hands of servers: planned for one, or handed to one since.
pub(crate) fn is_for_server(events: &[Event]) -> bool {
    let told = events.iter().rev().find_map(|event| match &event.event {
        RunEvent::Planned { for_server, .. } | RunEvent::Resumed { for_server, .. } => Some(*for_server),
        _ => None,
    });
    told.unwrap_or(false)
}

/// The rules of a project.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) jobs: &'a BTreeMap<String, Job>,
    /// How many runs with a tag go on at a time.
    pub(crate) limits: &'a BTreeMap<String, NonZeroU32>,
    /// Jobs whose last run failed, of those that wait for that.
    pub(crate) failed: &'a BTreeSet<String>,
}

/// The jobs whose runs wait while the last one has failed, and whose last one has.
pub(crate) fn failed_jobs(store: &SqliteStore, jobs: &BTreeMap<String, Job>) -> Result<BTreeSet<String>, CliError> {
    let mut found = BTreeSet::new();
    for job in jobs.values().filter(|job| job.needs_previous) {
        if store.last_ended(&job.name)? == Some(RunStatus::Failed) {
            found.insert(job.name.clone());
        }
    }
    Ok(found)
}

/// Why a run cannot begin yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// Another run brings an asset up to date that it does too.
    Asset { asset: AssetKey, holder: RunId },
    /// The run of its job before it has failed.
    Previous { job: String },
    /// As many runs of its job go on as may.
    Job { job: String, runs_max: u32, holder: RunId },
    /// As many runs with one of its tags go on as may.
    Tag { tag: String, runs_max: u32, holder: RunId },
}

impl fmt::Display for Blocked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asset { asset, holder } => write!(formatter, "run {holder} brings `{asset}` up to date, as it does too"),
            Self::Previous { job } => {
                write!(
                    formatter,
                    "job `{job}` has `needs_previous`, and its run before this one failed; `subak run resume` goes on with that"
                )
            }
            Self::Job { job, runs_max, holder } => {
                write!(formatter, "job `{job}` has `runs_max: {runs_max}`, and run {holder} goes on")
            }
            Self::Tag { tag, runs_max, holder } => {
                write!(formatter, "`run_limits` lets {runs_max} with the tag `{tag}` go on at a time, and run {holder} does")
            }
        }
    }
}

impl Rules<'_> {
    /// Why a run cannot begin beside those that go on; `None` where it can.
    pub(crate) fn blocked<'e>(&self, entry: &Entry, running: impl Iterator<Item = &'e Entry> + Clone) -> Option<Blocked> {
        if let Some(job) = entry.job.as_ref().filter(|job| !entry.is_resumed && self.failed.contains(*job)) {
            return Some(Blocked::Previous { job: job.clone() });
        }
        // First, so that one run too many of a job is known as that whatever it is about.
        if let Some(job) = entry.job.as_ref().and_then(|job| self.jobs.get(job)) {
            let mut same = running.clone().filter(|other| other.job == entry.job);
            if let Some(holder) = same.nth(job.runs_max.get() as usize - 1) {
                return Some(Blocked::Job { job: job.name.clone(), runs_max: job.runs_max.get(), holder: holder.run });
            }
        }
        let shared = running.clone().find_map(|other| Some((other.assets.intersection(&entry.assets).next()?, other.run)));
        if let Some((asset, holder)) = shared {
            return Some(Blocked::Asset { asset: asset.clone(), holder });
        }
        // All of its limits have to have room (T-150).
        entry.tags.iter().find_map(|tag| {
            let runs_max = self.limit(tag)?.get();
            let holder = running.clone().filter(|other| other.tags.contains(tag)).nth(runs_max as usize - 1)?;
            Some(Blocked::Tag { tag: tag.clone(), runs_max, holder: holder.run })
        })
    }

    /// The least limit that holds for a tag.
    fn limit(&self, tag: &str) -> Option<NonZeroU32> {
        let holds = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => tag.starts_with(prefix),
            None => tag == pattern,
        };
        self.limits.iter().filter(|(pattern, _)| holds(pattern)).map(|(_, limit)| *limit).min()
    }
}

/// The assets that actions bring up to date.
fn assets_of(actions: &[Action]) -> BTreeSet<AssetKey> {
    let asset = |action: &Action| match &action.work {
        Work::Materialize { asset, .. } | Work::Replay { asset, .. } | Work::Observe { asset, .. } => Some(asset.clone()),
        _ => None,
    };
    actions.iter().filter_map(asset).collect()
}

#[cfg(test)]
mod tests {
    use subak_domain::{JobWork, Notifications};

    use super::*;

    fn entry(run: u64, job: &str, assets: &[&str], tags: &[&str]) -> Entry {
        Entry {
            run: RunId::from_parts(run, 0),
            job: (!job.is_empty()).then(|| job.to_owned()),
            assets: assets.iter().map(|key| key.parse().expect("a key")).collect(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            is_resumed: false,
        }
    }

    /// A job `one`, of which one run goes on at a time, and `two` of a higher priority, of which two do.
    fn jobs() -> BTreeMap<String, Job> {
        let job = |name: &str, runs_max: u32, priority: i64| {
            let job = Job {
                name: name.to_owned(),
                description: None,
                path: String::new(),
                work: JobWork::Tasks(Vec::new()),
                params: BTreeMap::new(),
                schedule: None,
                notifications: Notifications::default(),
                priority,
                runs_max: NonZeroU32::new(runs_max).expect("above zero"),
                when_full: WhenFull::Wait,
                needs_previous: false,
                tags: Vec::new(),
            };
            (name.to_owned(), job)
        };
        BTreeMap::from([job("one", 1, 0), job("two", 2, 5)])
    }

    /// T-147, T-149, T-150: each rule by itself, and a run that is held up by one holds up nobody whom that does not concern.
    #[test]
    fn t_147_t_149_t_150_runs_go_on_beside_each_other() {
        let jobs = jobs();
        let limit = |count| NonZeroU32::new(count).expect("above zero");
        let limits = BTreeMap::from([
            ("nightly".to_owned(), limit(2)),
            ("customer=*".to_owned(), limit(1)),
            ("customer=big".to_owned(), limit(3)),
        ]);
        let rules = Rules { jobs: &jobs, limits: &limits, failed: &BTreeSet::new() };
        let cases: [(&str, Entry, &[Entry], &str); 11] = [
            ("nothing goes on", entry(9, "one", &["a"], &["nightly"]), &[], ""),
            ("another asset", entry(9, "", &["a"], &[]), &[entry(1, "", &["b"], &[])], ""),
            ("the same asset", entry(9, "", &["a", "b"], &[]), &[entry(1, "", &["b"], &[])], "brings `b` up to date"),
            ("runs of no job", entry(9, "", &[], &[]), &[entry(1, "", &[], &[]), entry(2, "", &[], &[])], ""),
            ("one of its job", entry(9, "one", &["a"], &[]), &[entry(1, "one", &["a"], &[])], "`runs_max: 1`"),
            ("one of two", entry(9, "two", &[], &[]), &[entry(1, "two", &[], &[])], ""),
            (
                "two of two",
                entry(9, "two", &[], &[]),
                &[entry(1, "two", &[], &[]), entry(2, "one", &[], &[]), entry(3, "two", &[], &[])],
                "`runs_max: 2`",
            ),
            ("one with the tag", entry(9, "", &[], &["nightly"]), &[entry(1, "", &[], &["nightly", "x"])], ""),
            ("each value alone", entry(9, "", &[], &["customer=a"]), &[entry(1, "", &[], &["customer=b"])], ""),
            (
                "the same value, and room by the other tag",
                entry(9, "", &[], &["customer=a", "nightly"]),
                &[entry(1, "", &[], &["customer=a"])],
                "the tag `customer=a`",
            ),
            (
                "the least of two limits",
                entry(9, "", &[], &["customer=big"]),
                &[entry(1, "", &[], &["customer=big"])],
                "lets 1 with",
            ),
        ];
        for (what, waits, running, expected) in cases {
            let told = rules.blocked(&waits, running.iter()).map(|blocked| blocked.to_string()).unwrap_or_default();
            assert_eq!(told.is_empty(), expected.is_empty(), "{what}: {told}");
            assert!(told.contains(expected), "{what}: {told}");
        }
        let mut waiting = [entry(1, "one", &[], &[]), entry(3, "two", &[], &[]), entry(2, "two", &[], &[])];
        waiting.sort_by_key(|entry| entry.rank(&jobs));
        assert_eq!(waiting.map(|entry| entry.run.unix_ms()), [2, 3, 1], "priority, then age");
    }

    /// T-149: a head that is blocked holds up nobody else; a job that is full is left, and what is asked to stop takes no room.
    #[test]
    fn t_149_what_is_blocked_holds_up_nobody() {
        let (jobs, limits) = (jobs(), BTreeMap::new());
        let rules = Rules { jobs: &jobs, limits: &limits, failed: &BTreeSet::new() };
        let mut queue = Queue::default();
        for (run, job, assets) in
            [(2, "two", &["a"][..]), (3, "one", &[]), (4, "one", &[]), (5, "", &["a"]), (6, "", &["b"]), (7, "", &["c"])]
        {
            let entry = entry(run, job, assets, &[]);
            let (priority, run) = entry.rank(&jobs);
            queue.order.insert((priority, run));
            queue.waiting.insert(run, Waits { entry, as_of: String::new(), priority });
        }
        let choose = |running: &[&Entry], room: usize, canceled: &[u64]| {
            let canceled = canceled.iter().map(|run| RunId::from_parts(*run, 0)).collect();
            let chosen = queue.choose(rules, running, room, &canceled, &BTreeSet::new());
            chosen.iter().map(|chosen| (chosen.entry.run.unix_ms(), chosen.is_canceled)).collect::<Vec<_>>()
        };
        assert_eq!(
            choose(&[], 3, &[]),
            [(2, false), (3, false), (6, false)],
            "the highest priority, then the oldest of those that can"
        );
        assert_eq!(choose(&[&entry(1, "one", &["b"], &[])], 3, &[]), [(2, false), (7, false)]);
        assert_eq!(choose(&[], 1, &[7, 3]), [(3, true), (7, true), (2, false)]);
        assert_eq!(choose(&[], 0, &[]), []);
    }
}
