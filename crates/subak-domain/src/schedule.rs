//! Schedules: when a job is due, as declared.

use std::time::Duration;

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
}

impl Schedule {
    /// One of a rule and a clock, with what holds where nothing else is said.
    pub fn new(rule: ScheduleRule, timezone: &str) -> Self {
        let (catchup, gap, fold) = (CatchUp::default(), Gap::default(), Fold::default());
        Self { rule, timezone: timezone.to_owned(), catchup, gap, fold, start: None, end: None }
    }
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
