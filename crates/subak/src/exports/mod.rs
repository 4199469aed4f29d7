//! Telling other systems everything that runs do: they read the log as everybody does, each at its own pace.
//!
//! How far the log was told stands in the state and moves on once the other side has taken it, so nothing is left out and what is sent twice after a
//! crash has the same ids. Runs never wait for it: who cannot be told now is told later, as long as the log is kept.

mod openlineage;
mod traces;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subak_domain::{Event, HttpRequest, RunId, RunState, Secret, Timestamp};
use subak_engine::{Clock, SystemClock};
use subak_notify::{Http, NotifyError, Receiver};
use subak_store::{EventLog, Lease, SqliteStore};

use crate::commands::run_state;
use crate::exit::CliError;
use crate::open::ProjectConnections;
use crate::project::Opened;
use crate::redact::Redactor;

/// Events that are read at a time.
const PAGE_LENGTH: usize = 200;

/// Pages that one turn tells to one system.
const PAGE_COUNT_MAX: usize = 20;

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

/// A run as far as the log tells, and when it was planned.
struct Known {
    state: RunState,
    events: Vec<Event>,
}

/// What is sent at once, and up to which position of the log it tells.
struct Batch {
    bodies: Vec<serde_json::Value>,
    path: &'static str,
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
            Err(error) => return Ok(self.later(name, now, &error.to_string())),
        };
        for _ in 0..PAGE_COUNT_MAX {
            let position = store.exported(name)?.unwrap_or(0);
            let events = store.read_after(position, PAGE_LENGTH).await?;
            let Some(last) = events.last().map(|event| event.position) else { break };
            let known = known(store, &events)?;
            let batch = match receiver.kind.as_str() {
                "openlineage" => openlineage::batch(&self.opened, &receiver, &events, &known),
                _ => traces::batch(&self.opened, &receiver, &events, &known),
            };
            if let Err(error) = self.send(&receiver, batch).await {
                if error.is_transient {
                    return Ok(self.later(name, now, &error.message));
                }
                // What the other side does not want it will not want later.
                store.set_exported(name, last, lease).await?;
                let message = self.redactor.redact(&error.message);
                return Ok(Some(format!("`{name}` does not take what it is told, and is not told it again: {message}")));
            }
            store.set_exported(name, last, lease).await?;
        }
        let was_waiting = self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some();
        Ok(was_waiting.then(|| format!("`{name}` is told again")))
    }

    /// Notes that somebody is to be asked again later; what to say the first time.
    fn later(&self, name: &str, now: Timestamp, why: &str) -> Option<String> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waits.get(name).map_or(1, |(count, _)| count.saturating_add(1));
        let wait = Duration::from_secs(1u64 << count.min(6)).min(WAIT_MAX);
        waits.insert(name.to_owned(), (count, now + wait));
        (count == 1).then(|| format!("`{name}` is told later: {}", self.redactor.redact(why)))
    }

    async fn send(&self, receiver: &Receiver, batch: Batch) -> Result<(), NotifyError> {
        let value = |key: &str| receiver.values.get(key).map(Secret::expose).filter(|value| !value.is_empty());
        let url = format!("{}{}", value("url").unwrap_or_default().trim_end_matches('/'), batch.path);
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(value("authorization").map(|value| ("Authorization".to_owned(), value.to_owned())));
        for body in batch.bodies {
            let body = self.redactor.value(body).to_string();
            let request = HttpRequest { method: "POST".to_owned(), url: url.clone(), headers: headers.clone(), body: Some(body) };
            let answer = self.http.call(&request).await?;
            if !(200..300).contains(&answer.status) {
                let is_transient = matches!(answer.status, 408 | 429) || answer.status >= 500;
                let line = answer.text.trim().lines().next().unwrap_or_default().to_owned();
                let message = format!("it answered {} {line}", answer.status).trim_end().to_owned();
                return Err(NotifyError { message, is_transient, wait: answer.retry_after });
            }
        }
        Ok(())
    }
}

/// The runs that events are about.
fn known(store: &SqliteStore, events: &[Event]) -> Result<BTreeMap<RunId, Known>, CliError> {
    let mut found = BTreeMap::new();
    for event in events {
        if let std::collections::btree_map::Entry::Vacant(entry) = found.entry(event.run) {
            let (state, events) = run_state(store, event.run)?;
            entry.insert(Known { state, events });
        }
    }
    Ok(found)
}

impl Known {
    /// What the run is called: its job, or what was selected.
    fn name(&self) -> String {
        if let Some(job) = &self.state.job {
            return job.clone();
        }
        match self.events.first().map(|event| &event.event) {
            Some(subak_domain::RunEvent::Planned { selection, .. }) => selection.clone(),
            _ => "run".to_owned(),
        }
    }
}
