//! What is known about assets: a fold of events, and the picture that a planner gets.

use std::collections::BTreeMap;

use crate::{Action, AssetKey, Event, RowAccount, RunEvent, RunId, StepId, Timestamp, Version, Work};

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

/// Folds events of all runs into the last materialization of each asset.
#[derive(Debug, Default)]
pub struct SnapshotFold {
    snapshot: Snapshot,
    assets: BTreeMap<(RunId, StepId), AssetKey>,
}

impl SnapshotFold {
    /// Takes one event; events come in the order of their positions.
    pub fn apply(&mut self, event: &Event) {
        match &event.event {
            RunEvent::Planned { actions, .. } => {
                for action in actions {
                    if let Some(asset) = materialized_by(action) {
                        self.assets.insert((event.run, action.step.clone()), asset.clone());
                    }
                }
            }
            RunEvent::StepSucceeded { step, .. } => {
                if let Some(asset) = self.assets.get(&(event.run, step.clone()))
                    && let Some(next) = materialization_after(self.snapshot.latest.get(asset), event)
                {
                    self.snapshot.latest.insert(asset.clone(), next);
                }
            }
            _ => {}
        }
    }

    /// The picture so far.
    pub fn finish(self) -> Snapshot {
        self.snapshot
    }
}

/// The asset that an action brings up to date, if it does.
pub fn materialized_by(action: &Action) -> Option<&AssetKey> {
    match &action.work {
        Work::Materialize { asset, .. } => Some(asset),
        Work::Check { .. } | Work::Audit { .. } => None,
    }
}

/// The materialization after a step that brings the asset up to date has succeeded. `None` for any other event.
///
/// A step that changed nothing keeps position, run and time, so that nothing downstream becomes stale.
pub fn materialization_after(previous: Option<&Materialization>, event: &Event) -> Option<Materialization> {
    let RunEvent::StepSucceeded { outcome, .. } = &event.event else { return None };
    let version = outcome.version.clone()?;
    let row_count = outcome.row_count;
    Some(match previous {
        Some(previous) if !outcome.changed => {
            Materialization { version, confirmed_at: event.at, row_count: row_count.or(previous.row_count), ..previous.clone() }
        }
        _ => Materialization {
            version,
            position: event.position,
            run: event.run,
            at: event.at,
            confirmed_at: event.at,
            row_count,
            account: outcome.account,
        },
    })
}
