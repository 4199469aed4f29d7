//! Ticks of schedules and sensors. Those of schedules are all kept, also when they start nothing; those of sensors when something came of them.

use subak_domain::{RunId, Timestamp};

/// One evaluation of a schedule or a sensor. Its identity is the name and the moment, so it happens once, however many look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The name of the job that has the schedule, or of the sensor.
    pub schedule: String,
    /// The moment that it is for.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: TickOutcome,
    /// When it was evaluated.
    pub recorded_at: Timestamp,
}

/// What came of a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TickOutcome {
    /// Runs were planned, in the transaction that recorded the tick. A schedule starts one.
    Started(Vec<RunId>),
    /// Nothing was to be done, and why.
    Skipped(String),
    /// No run could be planned, and why.
    Failed(String),
}

impl TickOutcome {
    /// The word for people and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }
}

/// What is known of a schedule besides its ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleState {
    /// Its definition, as it was seen last.
    pub definition: String,
    /// No tick before this moment counts: it is when the schedule was first seen, changed last, or switched on again.
    pub since: Timestamp,
    /// Whether somebody has switched it off.
    pub is_off: bool,
}
