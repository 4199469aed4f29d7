//! Backfills: many partitions, brought up to date over several runs.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AssetKey, RunId, Timestamp};

/// A request for many partitions: what is wanted, and how far it is. Stored as it is here, and changed by comparing revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// Its id.
    pub id: RunId,
    /// Counts its changes, from 1.
    pub revision: u64,
    /// What was asked for, in words.
    pub selection: String,
    /// When.
    pub created_at: Timestamp,
    /// The newest event then: what failed later failed within the backfill.
    pub created_position: u64,
    /// The time that counts as now for all its runs, as wall-clock text.
    pub as_of: String,
    /// What is to be done: fixed when it is made. In dependency order.
    pub targets: Vec<Target>,
    /// Whether the last partitions come first.
    pub is_newest_first: bool,
    /// Partitions in one run.
    pub per_run: usize,
    /// Where it stands.
    pub state: BackfillState,
    /// The run that goes on.
    pub run: Option<RunId>,
    /// Partitions whose run ended before they were done, to be taken up again first.
    pub again: Vec<(AssetKey, String)>,
    /// Partitions that were not made because of one that failed.
    pub blocked: BTreeSet<(AssetKey, String)>,
    /// Partitions that are done.
    pub done: u64,
    /// Partitions that failed.
    pub failed: u64,
}

/// The partitions of one asset that a backfill is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The asset.
    pub asset: AssetKey,
    /// Ranges of keys in the order of the definition, first and last included.
    pub ranges: Vec<(String, String)>,
    /// The keys, where they are no windows of time: their order may become another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// How many partitions these are.
    pub count: u64,
    /// How many of them were planned.
    pub planned: u64,
}

/// Where a backfill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    /// One run follows the other.
    Running,
    /// Nothing more is started until somebody says so.
    Paused,
    /// Somebody canceled it, and a run still goes on.
    Canceling,
    /// It was canceled.
    Canceled,
    /// All partitions are done.
    Succeeded,
    /// Everything was tried; some partitions failed, or were not made because of that.
    Failed,
}

/// What somebody asks of a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillAsk {
    /// To start nothing more for now.
    Pause,
    /// To go on.
    Resume,
    /// To end.
    Cancel,
}

impl BackfillState {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Canceled | Self::Succeeded | Self::Failed)
    }

    /// Where it stands once it is asked for something; `None` where it cannot be asked for that.
    pub fn after(self, ask: BackfillAsk, has_run: bool) -> Option<Self> {
        match (self, ask) {
            (Self::Running, BackfillAsk::Pause) => Some(Self::Paused),
            (Self::Paused | Self::Running, BackfillAsk::Resume) => Some(Self::Running),
            // It goes on with ending.
            (Self::Canceling, BackfillAsk::Resume) => Some(Self::Canceling),
            (state, BackfillAsk::Cancel) if !state.is_final() => Some(if has_run { Self::Canceling } else { Self::Canceled }),
            _ => None,
        }
    }

    /// The word for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Canceling => "canceling",
            Self::Canceled => "canceled",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for BackfillState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Backfill {
    /// Partitions that it is about.
    pub fn count(&self) -> u64 {
        self.targets.iter().map(|target| target.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state and everything that can be asked of it, without and with a run.
    #[test]
    fn backfills_are_asked_for_what_they_can_do() {
        use BackfillState as S;
        let asks = [BackfillAsk::Pause, BackfillAsk::Resume, BackfillAsk::Cancel];
        let table = [
            (S::Running, ["paused", "running", "canceled canceling"]),
            (S::Paused, ["", "running", "canceled canceling"]),
            (S::Canceling, ["", "canceling", "canceled canceling"]),
            (S::Canceled, ["", "", ""]),
            (S::Succeeded, ["", "", ""]),
            (S::Failed, ["", "", ""]),
        ];
        for (state, expected) in table {
            for (ask, expected) in asks.into_iter().zip(expected) {
                let words = |has_run: bool| state.after(ask, has_run).map(S::as_str);
                let mut found: Vec<&str> = [words(false), words(true)].into_iter().flatten().collect();
                found.dedup();
                assert_eq!(found.join(" "), expected, "{state} {ask:?}");
            }
        }
    }
}
