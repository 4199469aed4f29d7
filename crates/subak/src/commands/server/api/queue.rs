//! What waits and why, and who has what it waits for.

use std::collections::BTreeMap;

use serde::Serialize;
use subak_domain::{RunId, RunStatus};
use subak_server::{Call, Endpoint, Nothing, Page, Problem};
use subak_store::RunFilter;
use utoipa::ToSchema;

use super::runs::RunView;
use super::{Api, VIEW, failed, problem, text};
use crate::commands::{pool, why};
use crate::queue::Entry;

/// Runs of the queue that are told.
const RUN_COUNT_MAX: usize = 200;

/// A run that waits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WaitingView {
    /// The run.
    run: RunView,
    /// Why it does not begin, one sentence.
    why: String,
}

/// A step that has slots of a pool, or waits for them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TakerView {
    /// The run.
    run: String,
    /// The step.
    step: String,
    /// How many slots.
    count: usize,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Whether it has them; else it waits.
    has: bool,
}

/// A pool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoolView {
    /// Its name.
    pool: String,
    /// How many slots it has.
    size: usize,
    /// How many are taken.
    taken: usize,
    /// How many are waited for.
    waiting: usize,
    /// Who has them and who waits, in the order in which they came.
    takers: Vec<TakerView>,
}

/// What waits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueView {
    /// How many runs wait.
    waiting_count: u64,
    /// The first of them, the oldest first.
    waiting: Vec<WaitingView>,
    /// Runs that go on.
    running: Vec<RunView>,
}

fn queue(api: &Api, call: &Call, _: Nothing) -> Result<QueueView, Problem> {
    let of = |statuses: &[RunStatus]| RunFilter { statuses: statuses.to_vec(), ..RunFilter::default() };
    let serving = api.serving()?;
    let mut found = api.store.find_runs(&of(&[RunStatus::Queued]), RUN_COUNT_MAX).map_err(failed)?;
    found.reverse();
    let mut waiting = Vec::new();
    let known = why::Queued::read(&serving.opened, &api.store).map_err(problem)?;
    let entries: BTreeMap<RunId, &Entry> = known.waiting.iter().map(|entry| (entry.run, entry)).collect();
    for run in found {
        // One that has begun since waits no more.
        let Some(entry) = entries.get(&run.run) else { continue };
        waiting.push(WaitingView { why: known.why(entry), run: RunView::of(run, call.now) });
    }
    let running = api.store.find_runs(&of(&[RunStatus::Running, RunStatus::Stopping]), RUN_COUNT_MAX).map_err(failed)?;
    Ok(QueueView {
        waiting_count: api.store.count_runs(&of(&[RunStatus::Queued])).map_err(failed)?,
        waiting,
        running: running.into_iter().map(|run| RunView::of(run, call.now)).collect(),
    })
}

fn pools(api: &Api, _: &Call, _: Nothing) -> Result<Page<PoolView>, Problem> {
    let serving = api.serving()?;
    let takers = pool::takers(&api.store, &pool::slots(&serving.opened)).map_err(problem)?;
    let view = |(name, size): (String, usize)| {
        let own: Vec<&pool::Taker> = takers.iter().filter(|taker| taker.pool == name).collect();
        let count = |has: bool| own.iter().filter(|taker| taker.has == has).map(|taker| taker.count).sum();
        let taker = |taker: &&pool::Taker| TakerView {
            run: taker.run.to_string(),
            step: taker.step.to_string(),
            count: taker.count,
            since: taker.since.map(text),
            has: taker.has,
        };
        let (taken, waiting, takers) = (count(true), count(false), own.iter().map(taker).collect());
        PoolView { pool: name, size, taken, waiting, takers }
    };
    Ok(Page::whole(pool::known(&serving.opened).into_iter().map(view).collect()))
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::read("/api/v1/queue", VIEW, "Runs that wait and why, and those that go on.", queue),
        Endpoint::read("/api/v1/pools", VIEW, "Pools, who has their slots, and who waits for them.", pools),
    ]
}
