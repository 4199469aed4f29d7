//! What changes, as it changes: one look at the log for everybody who listens.
//!
//! An event carries the position of the log up to which it tells, as its id. Whoever comes back says the last one and is told what came since, or that it
//! was too much and everything should be read again. Changes of a quarter of a second come together.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use serde_json::json;
use subak_domain::snapshot::materialized_by;
use subak_domain::{Event, Permission, RunEvent, Timestamp};
use subak_store::EventLog;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;

use crate::gate::Gate;
use crate::people::Caller;
use crate::{Access, Backend};

/// How often the log is looked at, which is also how long changes wait for each other.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Events that are told of one by one; whoever missed more reads everything again.
const EVENT_COUNT_MAX: usize = 5_000;

/// Tidings that wait for somebody who reads slowly.
const WAITING_COUNT_MAX: usize = 64;

/// How often it is asked whether somebody may still listen.
const STILL_INTERVAL: Duration = Duration::from_secs(1);

/// What has changed up to a position of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tidings {
    /// Runs and how they stand, and assets that were brought up to date.
    Changed { position: u64, runs: BTreeMap<String, &'static str>, assets: BTreeSet<String> },
    /// So much that everything should be read again.
    Lost { position: u64 },
}

impl Tidings {
    fn of(events: &[Event]) -> Option<Self> {
        let position = events.last()?.position;
        let mut runs: BTreeMap<String, &'static str> = BTreeMap::new();
        for event in events {
            let status = match &event.event {
                RunEvent::Planned { .. } | RunEvent::Resumed { .. } => "queued",
                RunEvent::Finished { status } => status.as_str(),
                RunEvent::CancelRequested { .. } => "stopping",
                _ => "running",
            };
            runs.insert(event.run.to_string(), status);
        }
        let assets = events.iter().filter_map(|event| Some(materialized_by(&event.event)?.to_string())).collect();
        Some(Self::Changed { position, runs, assets })
    }

    fn position(&self) -> u64 {
        match self {
            Self::Changed { position, .. } | Self::Lost { position } => *position,
        }
    }

    fn event(&self) -> Sse {
        let event = Sse::default().id(self.position().to_string());
        match self {
            Self::Changed { position, runs, assets } => {
                let runs: Vec<_> = runs.iter().map(|(run, status)| json!({ "run": run, "status": status })).collect();
                event.event("changed").data(json!({ "position": position, "runs": runs, "assets": assets }).to_string())
            }
            Self::Lost { position } => event.event("resync").data(json!({ "position": position }).to_string()),
        }
    }
}

/// Tells everybody who listens.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    sender: broadcast::Sender<Tidings>,
}

impl Hub {
    /// Begins to look; that ends with the set.
    pub(crate) fn start<B: Backend>(backend: Arc<B>) -> (Self, JoinSet<()>) {
        let (sender, _) = broadcast::channel(WAITING_COUNT_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(look(backend, sender.clone()));
        (Self { sender }, tasks)
    }
}

async fn look<B: Backend>(backend: Arc<B>, sender: broadcast::Sender<Tidings>) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // A state that cannot be read is told by whoever needs it.
        let Ok(newest) = backend.store().newest_position() else { continue };
        let from = *seen.get_or_insert(newest);
        if newest <= from {
            continue;
        }
        if sender.receiver_count() > 0 {
            // Nobody listens any more: then nobody is told.
            drop(since(&*backend, from, newest).await.map(|tidings| sender.send(tidings)));
        }
        seen = Some(newest);
    }
}

/// What came behind a position.
async fn since<B: Backend>(backend: &B, from: u64, newest: u64) -> Option<Tidings> {
    let events = backend.store().read_after(from, EVENT_COUNT_MAX).await.ok()?;
    if events.len() >= EVENT_COUNT_MAX { Some(Tidings::Lost { position: newest }) } else { Tidings::of(&events) }
}

/// Whoever listens.
struct Listener<B> {
    gate: Arc<Gate<B>>,
    caller: Caller,
    headers: HeaderMap,
    news: broadcast::Receiver<Tidings>,
    first: Option<Tidings>,
    told: u64,
    /// When it was last asked whether they may still listen.
    asked_at: Timestamp,
}

impl<B: Backend> Listener<B> {
    /// Whether they may still listen; looked up once a second.
    async fn may_still(&mut self) -> bool {
        let now = self.gate.backend.now();
        if now.duration_since(self.asked_at).unsigned_abs() < STILL_INTERVAL {
            return true;
        }
        self.asked_at = now;
        let (gate, caller, headers) = (Arc::clone(&self.gate), self.caller.clone(), self.headers.clone());
        let is_still = crate::gate::blocking(move || gate.backend.people().is_still(&caller, &headers, now));
        is_still.await.is_ok_and(|is_still| is_still)
    }

    /// What comes next; `None` once they may not listen any more.
    async fn next(&mut self) -> Option<Tidings> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let heard = tokio::time::timeout(STILL_INTERVAL, self.news.recv()).await;
            // However much there is to tell.
            if !self.may_still().await {
                return None;
            }
            match heard {
                Ok(Ok(tidings)) if tidings.position() > self.told => return Some(tidings),
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(_))) => {
                    let position = self.gate.backend.store().newest_position().ok()?;
                    return Some(Tidings::Lost { position });
                }
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => {}
            }
        }
    }
}

fn tidings<B: Backend>(listener: Listener<B>) -> impl Stream<Item = Result<Sse, Infallible>> {
    stream::unfold(listener, async |mut listener| {
        let tidings = listener.next().await?;
        listener.told = tidings.position();
        Some((Ok(tidings.event()), listener))
    })
}

pub(crate) async fn answer<B: Backend>(State(gate): State<Arc<Gate<B>>>, headers: HeaderMap) -> Response {
    let caller = match gate.admit(Access::May(Permission::View), &Method::GET, &headers).await {
        Ok(Some(caller)) => caller,
        Ok(None) => return crate::Problem::unknown_caller().into_response(),
        Err(problem) => return problem.into_response(),
    };
    // From here on nothing is missed; what came before is read from the log.
    let news = gate.hub.sender.subscribe();
    let newest = gate.backend.store().newest_position().unwrap_or_default();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let missed = match last {
        Some(last) if last < newest => since(&*gate.backend, last, newest).await,
        _ => None,
    };
    // The first one says where the log is, so that whoever breaks off can come back there.
    let first = missed.or(Some(Tidings::Changed { position: newest, runs: BTreeMap::new(), assets: BTreeSet::new() }));
    let asked_at = gate.backend.now();
    let listener = Listener { gate, caller, headers, news, first, told: 0, asked_at };
    let events = tidings(listener).boxed();
    axum::response::Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

#[cfg(test)]
mod tests {
    use subak_domain::{RunId, RunStatus};

    use super::*;

    #[test]
    fn changes_of_a_run_come_together() {
        let run = RunId::from_parts(1, 1);
        let event =
            |position: u64, event: RunEvent| Event { position, run, sequence: position, at: Timestamp::UNIX_EPOCH, event };
        let events =
            [event(4, RunEvent::Started { holder: "me".into() }), event(5, RunEvent::Finished { status: RunStatus::Failed })];
        let Some(Tidings::Changed { position, runs, assets }) = Tidings::of(&events) else { panic!("nothing changed") };
        assert_eq!((position, runs.values().copied().collect::<Vec<_>>(), assets.len()), (5, vec!["failed"], 0));
        assert_eq!(Tidings::of(&[]), None);
    }
}
