//! What is known about assets: a fold of events, and the picture that a planner gets.

use std::collections::BTreeMap;

use crate::{AssetKey, Event, RowAccount, RunEvent, RunId, StepId, StepOutcome, Timestamp, Version};

/// The immutable picture of what was materialized when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last materialization of each asset that has one.
    pub latest: BTreeMap<AssetKey, Materialization>,
}

/// The recorded fact that an asset was brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Materialization {
    /// Version of the definition that made the data.
    pub version: Version,
    /// Position in the log of the event that last changed the data. Higher is newer; clocks do not take part.
    pub position: u64,
    /// Position of the event that last found the asset up to date or made it so. What is upstream and newer than this was not
    /// seen; what is older was, whether it changed anything here or not.
    pub confirmed_position: u64,
    /// The run that last changed the data.
    pub run: RunId,
    /// When the data last changed.
    pub at: Timestamp,
    /// When the asset was last found up to date or made so.
    pub confirmed_at: Timestamp,
    /// Rows in the table, where that is known.
    pub row_count: Option<u64>,
    /// The accounting of the load that last changed the data.
    pub account: Option<RowAccount>,
}

impl Snapshot {
    /// Takes one event; events come in the order of their positions.
    pub fn apply(&mut self, event: &Event) {
        let Some(asset) = materialized_by(&event.event) else { return };
        if let Some(next) = materialization_after(self.latest.get(&asset), event) {
            self.latest.insert(asset, next);
        }
    }
}

/// The asset whose data an event changes or confirms, if it does: the outcome of such a step has a version, and its id is the key.
pub fn materialized_by(event: &RunEvent) -> Option<AssetKey> {
    let (step, _) = published_by(event)?;
    step.as_str().parse().ok()
}

/// The step whose outcome readers see, and that outcome: a step that failed after it had published has one too.
fn published_by(event: &RunEvent) -> Option<(&StepId, &StepOutcome)> {
    let (step, outcome) = match event {
        RunEvent::StepSucceeded { step, outcome } => (step, outcome),
        RunEvent::StepErrored { step, failure, .. } => (step, failure.published.as_deref()?),
        _ => return None,
    };
    outcome.version.is_some().then_some((step, outcome))
}

/// The materialization after a step that brings the asset up to date has succeeded. `None` for any other event.
///
/// A step that changed nothing keeps position, run and time, so that nothing downstream becomes stale.
pub fn materialization_after(previous: Option<&Materialization>, event: &Event) -> Option<Materialization> {
    let (_, outcome) = published_by(&event.event)?;
    let version = outcome.version.clone()?;
    let row_count = outcome.row_count;
    Some(match previous {
        Some(previous) if !outcome.changed => Materialization {
            version,
            confirmed_at: event.at,
            confirmed_position: event.position,
            row_count: row_count.or(previous.row_count),
            ..previous.clone()
        },
        _ => Materialization {
            version,
            position: event.position,
            confirmed_position: event.position,
            run: event.run,
            at: event.at,
            confirmed_at: event.at,
            row_count,
            account: outcome.account,
        },
    })
}
