//! How much a store keeps.

use subak_domain::Timestamp;

/// How much there is of each kind, and how much of it is old and can go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Runs.
    pub run_count: u64,
    /// Events of runs.
    pub event_count: u64,
    /// Ticks of schedules, sensors and automated assets.
    pub tick_count: u64,
    /// Notices to people.
    pub notice_count: u64,
    /// Runs that can go.
    pub old_run_count: u64,
    /// Events that can go.
    pub old_event_count: u64,
    /// Ticks that can go.
    pub old_tick_count: u64,
    /// Notices that can go.
    pub old_notice_count: u64,
    /// When the oldest run was planned.
    pub oldest_at: Option<Timestamp>,
}
