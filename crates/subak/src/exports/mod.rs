//! Telling other systems everything that runs do: they read the log as everybody does, each at its own pace.
//!
//! How far the log was told stands in the state and moves on once the other side has taken it, so nothing is left out and what is sent twice after a
//! crash has the same ids. Runs never wait for it: who cannot be told now is told later, as long as the log is kept.

mod openlineage;
mod traces;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subak_domain::{Event, HttpRequest, RunEvent, RunId, RunState, Secret, Timestamp};
use subak_engine::{Clock, SystemClock};
use subak_notify::{Http, Receiver};
use subak_store::{EventLog, Lease, SqliteStore};

use crate::commands::run_state;
use crate::exit::CliError;
use crate::open::ProjectConnections;
use crate::project::Opened;
use crate::redact::Redactor;

/// Events that are read at a time.
const PAGE_LENGTH: usize = 200;

/// How long one turn goes on; what is left is told by the next one.
const TURN_MAX: Duration = Duration::from_secs(8);

/// The longest wait before somebody who did not answer is asked again.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Systems that are told everything, with the project as it is now.
pub(crate) struct Exports {
    opened: Arc<Opened>,
    connections: Arc<ProjectConnections>,
    redactor: Redactor,
    http: Http,
    /// Those that did not answer: how often in a row, and when they are asked again.
    waits: Mutex<BTreeMap<String, (u32, Timestamp)>>,
}

/// A run as far as the log tells.
struct Known {
    state: RunState,
    events: Vec<Event>,
    /// Which attempt of its step an event is about, by the number of the event.
    attempts: BTreeMap<u64, u32>,
}

/// What is sent: each body with the position of the event that it tells of.
struct Batch {
    bodies: Vec<(u64, serde_json::Value)>,
    path: &'static str,
}

/// Why something could not be told.
enum Untold {
    /// Nobody answered, or nobody was let in: it is tried again, after so long at least.
    Later(String, Option<Duration>),
    /// The other side does not want this, now or later.
    Refused(String),
}

impl Exports {
    pub(crate) fn new(opened: Arc<Opened>, connections: ProjectConnections) -> Self {
        let redactor = connections.redactor();
        Self { opened, connections: Arc::new(connections), redactor, http: Http::default(), waits: Mutex::default() }
    }

    /// Whether nobody wants to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.opened.project.config.exports.is_empty()
    }

    /// Begins to read the log where it ends now, for those who were never told anything: what happened before is history.
    pub(crate) async fn begin(&self, store: &SqliteStore, lease: &Lease) -> Result<(), CliError> {
        for name in self.opened.project.config.exports.keys() {
            if store.exported(name)?.is_none() {
                store.set_exported(name, store.newest_position()?, lease).await?;
            }
        }
        Ok(())
    }

    /// Tells what is new to everybody who answers. Returns what could not be told, in words.
    pub(crate) async fn turn(&self, store: &SqliteStore, lease: &Lease) -> Result<Vec<String>, CliError> {
        self.begin(store, lease).await?;
        let names: Vec<&String> = self.opened.project.config.exports.keys().collect();
        let told = futures::future::join_all(names.into_iter().map(|name| self.tell(name, store, lease))).await;
        let mut problems = Vec::new();
        for found in told {
            problems.extend(found?);
        }
        Ok(problems)
    }

    async fn tell(&self, name: &str, store: &SqliteStore, lease: &Lease) -> Result<Option<String>, CliError> {
        let now = SystemClock.now();
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        // A clock that was put back makes nobody wait for longer.
        if waits.is_some_and(|(_, until)| now < until && until <= now + WAIT_MAX) {
            return Ok(None);
        }
        let receiver = match self.connections.export(name) {
            Ok(receiver) => receiver,
            Err(error) => return Ok(self.later(name, now, &error.to_string(), None)),
        };
        let (until, mut runs, mut refused) = (now + TURN_MAX, BTreeMap::new(), None);
        'turn: while SystemClock.now() < until {
            let position = store.exported(name)?.unwrap_or(0);
            let events = store.read_after(position, PAGE_LENGTH).await?;
            let Some(last) = events.last().map(|event| event.position) else { break };
            know(&mut runs, store, &events)?;
            let batch = match receiver.kind.as_str() {
                "openlineage" => openlineage::batch(&self.opened, &receiver, &events, &runs),
                _ => traces::batch(&self.opened, &receiver, &events, &runs),
            };
            let mut told = position;
            for (of, body) in batch.bodies {
                if SystemClock.now() >= until {
                    store.set_exported(name, told, lease).await?;
                    break 'turn;
                }
                match self.send(&receiver, batch.path, body).await {
                    Ok(()) => {}
                    // What the other side does not want it will not want later.
                    Err(Untold::Refused(why)) => drop(refused.get_or_insert(why)),
                    Err(Untold::Later(why, wait)) => {
                        store.set_exported(name, told, lease).await?;
                        return Ok(self.later(name, now, &why, wait));
                    }
                }
                // Several bodies may tell of one event; it is told when the last one is.
                told = told.max(of - 1);
            }
            store.set_exported(name, last, lease).await?;
        }
        if let Some(why) = refused {
            return Ok(Some(format!("`{name}` does not take some of what it is told: {}", self.redactor.redact(&why))));
        }
        let was_waiting = self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some();
        Ok(was_waiting.then(|| format!("`{name}` is told again")))
    }

    /// Notes that somebody is to be asked again later; what to say the first time.
    fn later(&self, name: &str, now: Timestamp, why: &str, asked: Option<Duration>) -> Option<String> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waits.get(name).map_or(1, |(count, _)| count.saturating_add(1));
        let wait = Duration::from_secs(1u64 << count.min(6)).max(asked.unwrap_or_default()).min(WAIT_MAX);
        waits.insert(name.to_owned(), (count, now + wait));
        (count == 1).then(|| format!("`{name}` is told later: {}", self.redactor.redact(why)))
    }

    async fn send(&self, receiver: &Receiver, path: &str, body: serde_json::Value) -> Result<(), Untold> {
        let value = |key: &str| receiver.values.get(key).map(Secret::expose).filter(|value| !value.is_empty());
        let url = format!("{}{path}", value("url").unwrap_or_default().trim_end_matches('/'));
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(value("authorization").map(|value| ("Authorization".to_owned(), value.to_owned())));
        let body = self.redactor.value(body).to_string();
        let request = HttpRequest { method: "POST".to_owned(), url, headers, body: Some(body) };
        let answer = self.http.call(&request).await.map_err(|error| Untold::Later(error.message, error.wait))?;
        let line = answer.text.trim().lines().next().unwrap_or_default();
        let why = format!("it answered {} {line}", answer.status).trim_end().to_owned();
        match answer.status {
            200..300 => Ok(()),
            // Neither a token that has ended nor an address that is wrong says anything of what is told.
            401 | 403 | 404 | 408 | 429 => Err(Untold::Later(why, answer.retry_after)),
            400..500 => Err(Untold::Refused(why)),
            _ => Err(Untold::Later(why, answer.retry_after)),
        }
    }
}

/// Reads the runs that events are about, as far as they are not known.
fn know(runs: &mut BTreeMap<RunId, Known>, store: &SqliteStore, events: &[Event]) -> Result<(), CliError> {
    for event in events {
        let is_known = runs.get(&event.run).is_some_and(|known| known.events.len() as u64 >= event.sequence);
        if !is_known {
            let (state, events) = run_state(store, event.run)?;
            runs.insert(event.run, Known { state, attempts: attempts(&events), events });
        }
    }
    Ok(())
}

/// Which attempt of its step each event is about.
fn attempts(events: &[Event]) -> BTreeMap<u64, u32> {
    let (mut counts, mut found) = (BTreeMap::<&subak_domain::StepId, u32>::new(), BTreeMap::new());
    for event in events {
        let step = match &event.event {
            RunEvent::StepStarted { step, .. } => {
                *counts.entry(step).or_default() += 1;
                step
            }
            RunEvent::StepSucceeded { step, .. } | RunEvent::StepErrored { step, .. } => step,
            _ => continue,
        };
        found.insert(event.sequence, counts.get(step).copied().unwrap_or(1));
    }
    found
}

/// The steps that were being executed when an event came, with the attempt.
fn executing_before(known: &Known, sequence: u64) -> impl Iterator<Item = (&subak_domain::StepId, u32)> {
    let mut open = BTreeMap::new();
    for event in known.events.iter().take_while(|event| event.sequence < sequence) {
        match &event.event {
            RunEvent::StepStarted { step, .. } => drop(open.insert(step, known.attempts[&event.sequence])),
            RunEvent::StepSucceeded { step, .. } | RunEvent::StepErrored { step, .. } => drop(open.remove(step)),
            RunEvent::Lost { .. } => open.clear(),
            _ => {}
        }
    }
    open.into_iter()
}

impl Known {
    /// What the run is called: its job, or what was selected.
    fn name(&self) -> String {
        if let Some(job) = &self.state.job {
            return job.clone();
        }
        match self.events.first().map(|event| &event.event) {
            Some(RunEvent::Planned { selection, .. }) => selection.clone(),
            _ => "run".to_owned(),
        }
    }
}
