//! What a server tells over HTTP, and what can be asked of it there: one module for each kind of thing, one function for each route.
//!
//! What is shown is made from the log and from the project as the server goes by it; the command line shows the same from the same functions.

mod assets;
pub(in crate::commands) mod assistant;
mod automation;
mod backfills;
mod home;
mod lineage;
mod log_lines;
mod picture;
mod plans;
mod project;
mod quality;
mod query;
mod queue;
mod recent;
mod runs;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::http::StatusCode;
use subak_domain::{Job, Permission, RunId, Timestamp};
use subak_engine::{Clock, SystemClock};
use subak_server::{Access, Backend, Delivery, Endpoint, Hook, Kept, Metric, People, Problem};
use subak_store::{Delivered, SqliteStore, StoreError};
use tokio::sync::watch;

use self::picture::Picture;
use self::plans::Plans;
use self::recent::Recent;
use super::http::{self, Counts, Hooks};
use crate::exit::{CliError, Exit};
use crate::project::Opened;

pub(in crate::commands) use self::project::ProblemView;
pub(in crate::commands) use self::query::{Desk, Shared};

/// The project as the server goes by it.
pub(in crate::commands) struct Serving {
    pub(in crate::commands) opened: Arc<Opened>,
    pub(in crate::commands) jobs: Arc<BTreeMap<String, Job>>,
    /// What is wrong with the files as they are now; empty where the server goes by them.
    pub(in crate::commands) problems: Vec<ProblemView>,
}

/// The server, as its HTTP interface sees it.
pub(in crate::commands) struct Api {
    pub(in crate::commands) store: SqliteStore,
    pub(in crate::commands) people: People,
    pub(in crate::commands) hooks: watch::Receiver<Hooks>,
    pub(in crate::commands) counts: Arc<Counts>,
    pub(in crate::commands) serving: watch::Receiver<Option<Arc<Serving>>>,
    desk: Desk,
    picture: Mutex<Option<Arc<Picture>>>,
    recent: Mutex<Recent>,
    plans: Mutex<Plans>,
    layouts: Mutex<lineage::Layouts>,
}

impl Api {
    pub(in crate::commands) fn new(
        store: SqliteStore,
        hooks: watch::Receiver<Hooks>,
        counts: Arc<Counts>,
        serving: watch::Receiver<Option<Arc<Serving>>>,
        desk: Desk,
    ) -> Self {
        let people = People::new(store.clone());
        let (picture, recent, plans, layouts) = Default::default();
        Self { store, people, hooks, counts, serving, desk, picture, recent, plans, layouts }
    }

    /// The project as the server goes by it now.
    fn serving(&self) -> Result<Arc<Serving>, Problem> {
        self.serving.borrow().clone().ok_or_else(|| Problem::state("the project is not loaded yet"))
    }

    /// Has everything looked at anew, after a change that leaves no event.
    fn forget_picture(&self) {
        *self.picture.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How everything stands now.
    fn picture(&self) -> Result<Arc<Picture>, Problem> {
        let serving = self.serving()?;
        let (position, now) = (self.store.newest_position().map_err(failed)?, SystemClock.now());
        let mut known = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(picture) = known.as_ref().filter(|picture| picture.is_of(&serving, position, now)) {
            return Ok(Arc::clone(picture));
        }
        let picture = Arc::new(Picture::new(serving, &self.store, position, now)?);
        *known = Some(Arc::clone(&picture));
        Ok(picture)
    }
}

fn failed(error: StoreError) -> Problem {
    Problem::state(error.to_string())
}

/// What a command would have said.
fn problem(error: CliError) -> Problem {
    let status = match error.exit {
        Exit::Invalid | Exit::Failed => StatusCode::UNPROCESSABLE_ENTITY,
        Exit::Conflict => StatusCode::CONFLICT,
        Exit::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let is_missing = |code: &str| code == subak_diag::codes::NOT_FOUND.id || code == subak_diag::codes::UNKNOWN_RUN.id;
    match error.problems.first() {
        Some(first) if is_missing(first.code.id) => Problem::of(StatusCode::NOT_FOUND, first),
        Some(first) => Problem::of(status, first),
        None => Problem::state("nobody said why"),
    }
}

/// A moment as everybody writes it.
fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Whether whoever asks may do something.
fn may(call: &subak_server::Call, permission: Permission) -> bool {
    call.caller.as_ref().is_some_and(|caller| caller.rights.may(permission))
}

/// Milliseconds from one moment to another.
fn elapsed_ms(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.duration_since(from).as_millis()).unwrap_or(0)
}

/// The run that a part of a path names.
fn run_of(api: &Api, name: &str) -> Result<RunId, Problem> {
    // Only the whole id as it is written, so that a page has one address.
    let run = name.parse::<RunId>().ok().filter(|run| run.to_string() == name);
    let unknown = || Problem::not_found("run", name);
    let run = run.ok_or_else(unknown)?;
    api.store.run(run).map_err(failed)?.map(|_| run).ok_or_else(unknown)
}

/// Every route of this module.
pub(in crate::commands) fn endpoints() -> Vec<Endpoint<Api>> {
    [
        project::endpoints(),
        home::endpoints(),
        assets::endpoints(),
        lineage::endpoints(),
        runs::endpoints(),
        log_lines::endpoints(),
        plans::endpoints(),
        queue::endpoints(),
        query::endpoints(),
        quality::endpoints(),
        backfills::endpoints(),
        automation::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whoever may see what is declared and what became of it.
const VIEW: Access = Access::May(Permission::View);

/// Whoever keeps it going.
const OPERATE: Access = Access::May(Permission::Operate);

#[async_trait]
impl Backend for Api {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn store(&self) -> &SqliteStore {
        &self.store
    }

    fn people(&self) -> &People {
        &self.people
    }

    fn unready(&self) -> Option<String> {
        if self.counts.is_stopping.load(Ordering::Relaxed) {
            return Some("the server is stopping".to_owned());
        }
        self.store.stalled().map(|(_, why)| format!("the state cannot be written: {why}"))
    }

    fn metrics(&self) -> Result<Vec<Metric>, String> {
        let serving = self.serving.borrow().clone();
        http::metrics(&self.counts, &self.store, serving.as_ref().map(|serving| serving.opened.as_ref()))
    }

    fn hook(&self, sensor: &str) -> Option<Hook> {
        self.hooks.borrow().get(sensor).cloned()
    }

    async fn deliver(&self, told: Delivery) -> Result<Kept, String> {
        let id = told.id.unwrap_or_else(|| crate::commands::run::new_run().to_string());
        let sensor = told.sensor.clone();
        let delivery = subak_store::Delivery { sensor: told.sensor, id: id.clone(), at: SystemClock.now(), body: told.body };
        match self.store.deliver(delivery).await.map_err(|error| error.to_string())? {
            Delivered::New => {
                self.counts.delivered(sensor);
                Ok(Kept::New(id))
            }
            Delivered::Known => Ok(Kept::Known(id)),
            Delivered::Full => Ok(Kept::Full),
        }
    }

    fn knows(&self, kind: &str, name: &str) -> bool {
        let Ok(serving) = self.serving() else { return true };
        let opened = &serving.opened;
        let asset = || name.parse().ok().is_some_and(|key| opened.graph().get(&key).is_some());
        match kind {
            "assets" => asset(),
            "runs" => run_of(self, name).is_ok(),
            "backfills" => backfills::find(self, name).is_ok(),
            "automation" => {
                serving.jobs.contains_key(name) || opened.project.sensors().iter().any(|sensor| sensor.name == name) || asset()
            }
            "docs" => crate::commands::docs::find(&name.replace('~', "/")).is_some(),
            _ => false,
        }
    }
}
