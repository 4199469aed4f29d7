//! What is known about assets: a fold of events, and the picture that a planner gets.

use std::collections::BTreeMap;

use crate::{AssetKey, Event, FailureClass, RowAccount, RunEvent, RunId, StepId, StepOutcome, Timestamp, Version};

/// The immutable picture of what was materialized when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last materialization of each asset that has one.
    pub latest: BTreeMap<AssetKey, Materialization>,
    /// The partitions of which anything is known, by asset and key.
    pub partitions: BTreeMap<AssetKey, BTreeMap<String, PartitionState>>,
    /// The keys of dynamic partitions by the name of their set, in the order in which they were added.
    pub dynamic: BTreeMap<String, Vec<String>>,
}

/// What is known of a partition. Positions are those of events in the log; 0 stands for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// The event that last changed its data.
    pub position: u64,
    /// The newest event before the attempt began that last found it up to date or made it so.
    pub confirmed_position: u64,
    /// The attempt that failed, unless one has succeeded since.
    pub failed_position: u64,
}

impl PartitionState {
    /// Whether it was ever brought up to date.
    pub fn is_materialized(&self) -> bool {
        self.confirmed_position > 0
    }

    /// Whether the last attempt failed.
    pub fn is_failed(&self) -> bool {
        self.failed_position > 0
    }
}

/// The recorded fact that an asset was brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Materialization {
    /// Version of the definition that made the data.
    pub version: Version,
    /// Position in the log of the event that last changed the data. Higher is newer; clocks do not take part.
    pub position: u64,
    /// Position of the newest event before the attempt began that last found the asset up to date or made it so. What is upstream and newer than
    /// this may not have been seen; what is older was, whether it changed anything here or not.
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
        if let Some((asset, key, change)) = partition_changed_by(&event.event) {
            let states = self.partitions.entry(asset).or_default();
            if makes_table_anew(&event.event) {
                // What has failed is still to be done.
                states.retain(|_, state| state.is_failed());
                for state in states.values_mut() {
                    (state.position, state.confirmed_position) = (0, 0);
                }
            }
            let state = states.entry(key.to_owned()).or_default();
            *state = state.after(change, event);
        }
        let Some(asset) = materialized_by(&event.event) else { return };
        if let Some(next) = materialization_after(self.latest.get(&asset), event) {
            self.latest.insert(asset, next);
        }
    }
}

/// What an event says of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChange {
    /// Its data changed.
    Changed,
    /// It was found as it should be.
    Confirmed,
    /// An attempt to bring it up to date failed for good.
    Failed,
    /// An attempt published its data, changed or not, and then failed: readers see it, and it is due all the same.
    FailedBehind {
        /// Whether the data changed.
        changed: bool,
    },
}

impl PartitionState {
    /// What is known after a change that an event tells.
    #[must_use]
    pub fn after(self, change: PartitionChange, event: &Event) -> Self {
        let (position, confirmed_position) = (event.position, seen_by(event));
        match change {
            PartitionChange::Changed => Self { position, confirmed_position, failed_position: 0 },
            PartitionChange::Confirmed => {
                let changed_at = if self.position == 0 { position } else { self.position };
                Self { position: changed_at, confirmed_position, failed_position: 0 }
            }
            PartitionChange::Failed => Self { failed_position: position, ..self },
            PartitionChange::FailedBehind { changed } => {
                let published = if changed { PartitionChange::Changed } else { PartitionChange::Confirmed };
                Self { failed_position: position, ..self.after(published, event) }
            }
        }
    }
}

/// The partition that an event tells something of.
pub fn partition_changed_by(event: &RunEvent) -> Option<(AssetKey, &str, PartitionChange)> {
    if let Some((step, outcome)) = published_by(event) {
        let asset = asset_of(step)?;
        let change = match event {
            RunEvent::StepErrored { .. } => PartitionChange::FailedBehind { changed: outcome.changed },
            _ if outcome.changed => PartitionChange::Changed,
            _ => PartitionChange::Confirmed,
        };
        return Some((asset, outcome.partition.as_deref()?, change));
    }
    match event {
        RunEvent::StepErrored { step, retry_at: None, failure } if failure.class != FailureClass::Canceled => {
            let (asset, key) = step.as_partition()?;
            Some((asset, key, PartitionChange::Failed))
        }
        _ => None,
    }
}

/// Whether an event tells that the table was made anew with one partition: what was known of the others is gone with the table before.
pub fn makes_table_anew(event: &RunEvent) -> bool {
    published_by(event).is_some_and(|(_, outcome)| outcome.is_new_table)
}

/// The asset that a step brings up to date, in whole or a partition of it.
fn asset_of(step: &StepId) -> Option<AssetKey> {
    step.as_partition().map(|(asset, _)| asset).or_else(|| step.as_str().parse().ok())
}

/// The asset whose data an event changes or confirms, if it does: the outcome of such a step has a version, and its id begins with the key.
pub fn materialized_by(event: &RunEvent) -> Option<AssetKey> {
    let (step, _) = published_by(event)?;
    asset_of(step)
}

/// Up to which position an attempt saw what is upstream.
fn seen_by(event: &Event) -> u64 {
    published_by(&event.event).and_then(|(_, outcome)| outcome.seen_position).unwrap_or(event.position)
}

/// The step whose outcome readers see, and that outcome: a step that failed after it had published has one too.
pub fn published_by(event: &RunEvent) -> Option<(&StepId, &StepOutcome)> {
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
    // What a look is compared with when it is planned may not be what was seen last.
    let is_same = |previous: &Materialization| if outcome.is_look { previous.version == version } else { !outcome.changed };
    Some(match previous {
        Some(previous) if is_same(previous) => Materialization {
            version,
            confirmed_at: event.at,
            confirmed_position: seen_by(event),
            row_count: row_count.or(previous.row_count),
            ..previous.clone()
        },
        _ => Materialization {
            version,
            position: event.position,
            confirmed_position: seen_by(event),
            run: event.run,
            at: event.at,
            confirmed_at: event.at,
            row_count,
            account: outcome.account,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changed upstream while an asset was made may not have been seen, although it was made later.
    #[test]
    fn what_changes_during_an_attempt_counts_as_newer() {
        let mut snapshot = Snapshot::default();
        let mut tell = |position: u64, step: &str, seen_position: Option<u64>| {
            let (asset, partition) = step.split_once('[').map_or((step, None), |(asset, key)| (asset, key.strip_suffix(']')));
            let asset: AssetKey = asset.parse().expect("key");
            let step = partition.map_or_else(|| StepId::asset(&asset), |key| StepId::partition(&asset, key));
            let outcome = StepOutcome {
                changed: true,
                version: Some(Version::of(&[("v", "1")])),
                partition: partition.map(str::to_owned),
                seen_position,
                ..StepOutcome::default()
            };
            let event = RunEvent::StepSucceeded { step, outcome };
            let run = RunId::from_parts(1, 1);
            snapshot.apply(&Event { position, run, sequence: position, at: Timestamp::UNIX_EPOCH, event });
        };
        tell(3, "raw", None);
        tell(8, "raw", Some(6));
        tell(9, "mart", Some(4));
        tell(10, "days[2026-11-21]", Some(4));
        let (raw, mart) = (&snapshot.latest[&"raw".parse().expect("key")], &snapshot.latest[&"mart".parse().expect("key")]);
        assert!(raw.position > mart.confirmed_position, "mart began before raw changed: {mart:?}");
        assert_eq!((mart.position, mart.confirmed_position), (9, 4));
        let day = snapshot.partitions[&"days".parse().expect("key")]["2026-11-21"];
        assert_eq!((day.position, day.confirmed_position), (10, 4));
    }
}
