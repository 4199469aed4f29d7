//! Schedules: when a job is due, as declared.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// When a job starts by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Cron lines of five fields, or one interval.
    pub rule: ScheduleRule,
    /// The time zone of its clock, by IANA name.
    pub timezone: String,
    /// What happens to ticks that nobody could evaluate in time.
    pub catchup: CatchUp,
    /// What a fixed time does that the clock leaves out.
    pub gap: Gap,
    /// What a fixed time does that the clock shows twice.
    pub fold: Fold,
    /// No tick comes before.
    pub start: Option<Timestamp>,
    /// No tick comes behind.
    pub end: Option<Timestamp>,
    /// Up to so long after its tick a run begins, so that not everything begins at the full hour; the same for a tick each time that one looks.
    pub jitter: Duration,
}

impl Schedule {
    /// One of a rule and a clock, with what holds where nothing else is said.
    pub fn new(rule: ScheduleRule, timezone: &str) -> Self {
        let (catchup, gap, fold) = (CatchUp::default(), Gap::default(), Fold::default());
        Self { rule, timezone: timezone.to_owned(), catchup, gap, fold, start: None, end: None, jitter: Duration::ZERO }
    }
}

/// The time that a run of a schedule is about: from the tick before its own up to its own. Fixed when the run is planned, as texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Where it begins, inclusive, on the project's clock: `2026-11-21`, `2026-11-21 08:30:00`.
    pub start: String,
    /// Where it ends, exclusive.
    pub end: String,
    /// The same moments in UTC: `2026-11-21 01:30:00`.
    pub start_utc: String,
    /// See `start_utc`.
    pub end_utc: String,
}

impl Interval {
    /// From one moment to another, on the clock of a zone.
    pub fn new(start: Timestamp, end: Timestamp, zone: &TimeZone) -> Self {
        let utc = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let wall = |at: Timestamp| on_clock(at, zone);
        Self { start: wall(start), end: wall(end), start_utc: utc(start), end_utc: utc(end) }
    }
}

/// A moment on the clock of a zone; a day where that is midnight.
pub fn on_clock(at: Timestamp, zone: &TimeZone) -> String {
    let clock = at.to_zoned(zone.clone());
    let is_midnight = clock.time() == jiff::civil::Time::midnight();
    clock.strftime(if is_midnight { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

/// What a schedule counts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleRule {
    /// Cron lines; an instant that several name is one tick.
    Cron(Vec<String>),
    /// Every so often, counted from 1970-01-01 00:00 of the schedule's clock.
    Every(Duration),
}

/// What happens to ticks that nobody could evaluate in time, because no server ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// None of them starts anything.
    None,
    /// The newest one does.
    #[default]
    Latest,
    /// All do, oldest first.
    All,
}

/// What a fixed time does that the clock leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gap {
    /// It comes at the first moment behind the gap.
    #[default]
    Shift,
    /// It does not come that day.
    Skip,
}

/// What a fixed time does that the clock shows twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fold {
    /// It comes the first time.
    #[default]
    First,
    /// It comes the second time.
    Last,
    /// It comes both times.
    Both,
}
