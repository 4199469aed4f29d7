//! When schedules are due. Cron lines are matched on the wall clock; what the clock leaves out or shows twice is decided here.
//!
//! The rule is that of Debian's cron. A line whose minute or hour begins with `*` runs on elapsed time: at every real moment at which the clock
//! shows a matching time, on both sides of a repeated hour. Any other line runs once for each matching time of a day: in a gap at the first
//! moment behind it, in a repeated hour the first time; `dst:` says otherwise.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use subak_domain::schedule::{Fold, Gap, ScheduleRule};
use subak_domain::{Schedule, Timestamp};

/// The most instants of which a search looks at the clock: four transitions a year over the years that any line needs.
const PERIOD_COUNT_MAX: usize = 200;

/// How far ahead of a moment the clock may be set back, in seconds: a day covers every zone.
const SHIFT_SECONDS: i64 = 86_400;

/// A declared schedule that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A cron line cannot be read.
    #[error("`{line}` is no cron line: {why}")]
    Line {
        /// The line.
        line: String,
        /// Why not.
        why: String,
    },
    /// No day matches.
    #[error("`{0}` never comes: no date matches it")]
    Never(String),
    /// The zone is not known.
    #[error("there is no time zone `{0}`")]
    Zone(String),
    /// Runs of two ticks could begin in another order.
    #[error("`jitter` must be shorter than the time between two ticks, which can be {0} s")]
    Jitter(u64),
    /// The interval is too short.
    #[error("an interval has at least one second")]
    Interval,
}

/// A schedule that can be asked.
#[derive(Debug, Clone)]
pub struct Times {
    lines: Vec<Line>,
    every_seconds: Option<i64>,
    zone: TimeZone,
    gap: Gap,
    fold: Fold,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    jitter: Duration,
}

#[derive(Debug, Clone)]
struct Line {
    cron: Cron,
    is_elapsed: bool,
}

impl Line {
    fn parse(line: &str) -> Result<Self, ScheduleError> {
        let wrong = |why: &str| ScheduleError::Line { line: line.to_owned(), why: why.to_owned() };
        let line = line.trim();
        let whole = match line {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            line if line.starts_with('@') => return Err(wrong("known words are @hourly, @daily, @weekly, @monthly and @yearly")),
            line => line,
        };
        let fields: Vec<&str> = whole.split_whitespace().collect();
        let [minute, hour, day, _, weekday] = fields.as_slice() else {
            return Err(wrong("it has five fields: minute, hour, day of the month, month, day of the week"));
        };
        // Both days restricted: either of them. One that begins with a star: both.
        let is_both = day.starts_with('*') || weekday.starts_with('*');
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).dom_and_dow(is_both).build();
        let cron = parser.parse(whole).map_err(|error| wrong(&error.to_string()))?;
        let is_elapsed = minute.starts_with('*') || hour.starts_with('*');
        let found = Self { cron, is_elapsed };
        // A leap day is at most eight years away, behind a century without one.
        match found.next_on_clock(DateTime::constant(2024, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(found),
            None => Err(ScheduleError::Never(line.to_owned())),
        }
    }

    /// The next time that the clock may show behind one that it shows, whatever the zone.
    fn next_on_clock(&self, after: DateTime) -> Option<DateTime> {
        let as_if_utc = after.to_zoned(TimeZone::UTC).ok()?;
        self.cron.find_next_occurrence(&as_if_utc, false).ok().map(|found| found.datetime())
    }
}

impl Times {
    /// Reads a schedule.
    pub fn new(schedule: &Schedule) -> Result<Self, ScheduleError> {
        let zone = TimeZone::get(&schedule.timezone).map_err(|_| ScheduleError::Zone(schedule.timezone.clone()))?;
        let (lines, every_seconds) = match &schedule.rule {
            ScheduleRule::Cron(lines) => (lines.iter().map(|line| Line::parse(line)).collect::<Result<Vec<_>, _>>()?, None),
            ScheduleRule::Every(interval) => {
                let seconds =
                    i64::try_from(interval.as_secs()).ok().filter(|seconds| *seconds > 0).ok_or(ScheduleError::Interval)?;
                (Vec::new(), Some(seconds))
            }
        };
        let (gap, fold, start, end) = (schedule.gap, schedule.fold, schedule.start, schedule.end);
        Ok(Self { lines, every_seconds, zone, gap, fold, start, end, jitter: schedule.jitter })
    }

    /// The zone of its clock.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first tick behind a moment; `None` when there is none.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // The first tick may be the start itself.
        let after = match self.start {
            Some(start) if start > after => start.checked_sub(SignedDuration::from_nanos(1)).ok()?,
            _ => after,
        };
        let next = match self.every_seconds {
            Some(seconds) => self.next_interval(after, seconds)?,
            None => self.lines.iter().filter_map(|line| self.next_of(line, after)).min()?,
        };
        (self.end.is_none_or(|end| next <= end)).then_some(next)
    }

    /// The ticks behind one moment up to another, at most so many: the newest ones.
    pub fn due(&self, after: Timestamp, until: Timestamp, count_max: usize) -> Vec<Timestamp> {
        // Of years that were missed only the end is gone through, in windows that double until they have as many as are asked for.
        for power in 5..40 {
            let from = until.checked_sub(SignedDuration::from_secs(1 << power)).ok().filter(|from| *from > after);
            let Some(from) = from else { break };
            let found = self.newest(from, until, count_max);
            if found.len() == count_max {
                return found;
            }
        }
        self.newest(after, until, count_max)
    }

    fn newest(&self, after: Timestamp, until: Timestamp, count_max: usize) -> Vec<Timestamp> {
        let mut found = std::collections::VecDeque::new();
        let mut at = after;
        while let Some(next) = self.next_after(at).filter(|next| *next <= until) {
            if found.len() == count_max {
                found.pop_front();
            }
            found.push_back(next);
            at = next;
        }
        found.into()
    }

    /// The last tick before a moment, also one before the schedule starts: where the interval of a tick begins.
    pub fn last_before(&self, before: Timestamp) -> Option<Timestamp> {
        let unbounded = Self { start: None, end: None, ..self.clone() };
        let until = before.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        // What a search doubles finds few ticks: the half before had none.
        (5..40).find_map(|power| {
            let after = until.checked_sub(SignedDuration::from_secs(1 << power)).ok()?;
            unbounded.newest(after, until, 1).pop()
        })
    }

    /// The interval of a tick: from the tick before it, or from where the last interval ended that a run was about, so that none is about a time
    /// twice when the schedule changes.
    pub fn interval(&self, tick: Timestamp, ended: Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        let start = self.last_before(tick)?;
        Some((ended.filter(|ended| *ended < tick).map_or(start, |ended| ended.max(start)), tick))
    }

    /// The last interval that has ended at a moment; one that ends just then has.
    pub fn last_interval(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let tick = self.last_before(now.checked_add(SignedDuration::from_nanos(1)).ok()?)?;
        self.interval(tick, None)
    }

    /// How long after its tick a run begins.
    pub fn delay(&self, name: &str, tick: Timestamp) -> Duration {
        let Ok(most) = u64::try_from(self.jitter.as_millis()) else { return Duration::ZERO };
        // FNV-1a: the same on every machine and in every version.
        let bytes = name.bytes().chain(tick.as_second().to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Duration::from_millis((hash >> 11).checked_rem(most).unwrap_or(0))
    }

    /// Shorter than a day: every so many real seconds. From a day on: the same time of the clock, whatever the clock does in between.
    fn next_interval(&self, after: Timestamp, seconds: i64) -> Option<Timestamp> {
        if seconds % SHIFT_SECONDS != 0 {
            let next = (after.as_second().div_euclid(seconds) + 1) * seconds;
            return Timestamp::from_second(next).ok();
        }
        let days = seconds / SHIFT_SECONDS;
        let first = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
        let today = after.to_zoned(self.zone.clone()).date();
        let day = i64::from(today.since(first.date()).ok()?.get_days());
        (0..3).find_map(|ahead| {
            let wall = first.checked_add(jiff::Span::new().try_days((day.div_euclid(days) + ahead) * days).ok()?).ok()?;
            self.moments(wall).into_iter().find(|moment| *moment > after)
        })
    }

    fn next_of(&self, line: &Line, after: Timestamp) -> Option<Timestamp> {
        if line.is_elapsed { self.next_elapsed(line, after) } else { self.next_fixed(line, after) }
    }

    /// Between two changes of the clock wall time and real time go together, so each such period is searched by itself.
    fn next_elapsed(&self, line: &Line, after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        for _ in 0..PERIOD_COUNT_MAX {
            let offset = self.zone.to_offset(from);
            let change = self.zone.following(from).next().map(|transition| transition.timestamp());
            let next = line.next_on_clock(offset.to_datetime(from)).and_then(|wall| offset.to_timestamp(wall).ok());
            match (next, change) {
                (Some(next), Some(change)) if next >= change => {}
                (Some(next), _) => return Some(next),
                (None, None) => return None,
                (None, Some(_)) => {}
            }
            // The moment of the change itself belongs to what comes behind it.
            let change = change?;
            let offset = self.zone.to_offset(change);
            let just_before = offset.to_datetime(change).checked_sub(jiff::Span::new().nanoseconds(1)).ok()?;
            let limit = self.zone.following(change).next().map(|transition| transition.timestamp());
            let next = line.next_on_clock(just_before).and_then(|wall| offset.to_timestamp(wall).ok());
            if let Some(next) = next.filter(|next| limit.is_none_or(|limit| *next < limit)) {
                return Some(next);
            }
            from = change;
        }
        None
    }

    fn next_fixed(&self, line: &Line, after: Timestamp) -> Option<Timestamp> {
        let mut wall = after.to_zoned(self.zone.clone()).datetime().checked_sub(jiff::Span::new().seconds(SHIFT_SECONDS)).ok()?;
        let mut best: Option<Timestamp> = None;
        loop {
            let Some(next) = line.next_on_clock(wall) else { return best };
            wall = next;
            let moments = self.moments(next);
            // Moments come in the order of the clock, but for the second ones of a fold.
            if let (Some(best), Some(first)) = (best, moments.first())
                && *first >= best
            {
                return Some(best);
            }
            best = moments.into_iter().filter(|moment| *moment > after).chain(best).min();
        }
    }

    /// The moments that a fixed time of the clock stands for.
    fn moments(&self, wall: DateTime) -> Vec<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        let moments = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => vec![offset.to_timestamp(wall).ok()],
            AmbiguousOffset::Gap { before, .. } => match self.gap {
                // The clock goes on from the moment at which it jumps.
                Gap::Shift => {
                    let inside = before.to_timestamp(wall).ok();
                    let jump =
                        inside.and_then(|inside| self.zone.preceding(inside).next()).map(|transition| transition.timestamp());
                    let is_exact = |jump: &Timestamp| Some(*jump) != inside && self.zone.to_offset(*jump) != before;
                    vec![jump.filter(is_exact).or(inside)]
                }
                Gap::Skip => Vec::new(),
            },
            AmbiguousOffset::Fold { before, after } => match self.fold {
                Fold::First => vec![before.to_timestamp(wall).ok()],
                Fold::Last => vec![after.to_timestamp(wall).ok()],
                Fold::Both => vec![before.to_timestamp(wall).ok(), after.to_timestamp(wall).ok()],
            },
        };
        moments.into_iter().flatten().collect()
    }
}

/// The shortest time between two of a hundred ticks that come one after the other, on a clock that is not changed much.
pub fn least_interval(times: &Times) -> Duration {
    let mut at = Timestamp::UNIX_EPOCH;
    let unbounded = Times { start: None, end: None, ..times.clone() };
    let ticks = (0..100).map_while(|_| {
        at = unbounded.next_after(at)?;
        Some(at)
    });
    let ticks: Vec<Timestamp> = ticks.collect();
    let least = ticks.iter().zip(ticks.iter().skip(1)).map(|(one, next)| next.duration_since(*one)).min();
    least.and_then(|least| Duration::try_from(least).ok()).unwrap_or(Duration::MAX)
}

/// Whether a schedule can be asked at all.
pub fn check(schedule: &Schedule) -> Result<(), ScheduleError> {
    let times = Times::new(schedule)?;
    if schedule.jitter.is_zero() {
        return Ok(());
    }
    // Runs of two ticks would begin in another order, or at once.
    let least = least_interval(&times);
    if schedule.jitter >= least {
        return Err(ScheduleError::Jitter(least.as_secs()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cron(line: &str, timezone: &str) -> Schedule {
        Schedule::new(ScheduleRule::Cron(line.split(';').map(str::to_owned).collect()), timezone)
    }

    /// The ticks of some hours as `HH:MM` in UTC.
    #[track_caller]
    fn assert_ticks(schedule: &Schedule, from: &str, until: &str, expect: &str) {
        let times = Times::new(schedule).expect("a schedule");
        let moment = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let just_before = moment(from).checked_sub(SignedDuration::from_secs(1)).expect("an instant");
        let found: Vec<String> =
            times.due(just_before, moment(until), 100).iter().map(|tick| tick.strftime("%H:%M").to_string()).collect();
        assert_eq!(found.join(" "), expect, "{:?} in {}", schedule.rule, schedule.timezone);
    }

    /// FM-45: ten years that were missed take no longer than an hour.
    #[test]
    fn fm_45_of_many_ticks_the_newest_are_found() {
        let seconds = |seconds: u64| Schedule::new(ScheduleRule::Every(Duration::from_secs(seconds)), "UTC");
        let times = Times::new(&seconds(1)).expect("a schedule");
        let moment = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let found = times.due(moment("2016-11-21T00:00:00Z"), moment("2026-11-21T00:00:00Z"), 1_000);
        assert_eq!((found.len(), found.last().copied()), (1_000, Some(moment("2026-11-21T00:00:00Z"))));
        assert_eq!(found.first().copied(), Some(moment("2026-11-20T23:43:21Z")));
        // What is asked for is all that there is, and nothing before its beginning.
        for (rule, after, count) in
            [(seconds(7), "2026-11-20T23:59:00Z", 8), (cron("0 0 1 1 *", "UTC"), "2016-11-21T00:00:00Z", 10)]
        {
            let times = Times::new(&rule).expect("a schedule");
            let found = times.due(moment(after), moment("2026-11-21T00:00:00Z"), 1_000);
            assert_eq!(found.len(), count, "{found:?}");
            assert!(found.iter().all(|tick| *tick > moment(after)) && found.is_sorted());
        }
    }

    /// T-26: when the rules of a zone change, what was recorded stays where it was, and nothing comes a second time or earlier than it.
    #[test]
    fn t_26_new_rules_of_a_zone_leave_what_was_recorded() {
        // As if the clocks of one zone were those of the other from today on, an hour earlier or later.
        for (old, new) in [("America/Sao_Paulo", "America/New_York"), ("America/New_York", "America/Sao_Paulo")] {
            let times = |zone: &str| Times::new(&cron("0 * * * *;30 2 * * *", zone)).expect("a schedule");
            let moment = |text: &str| text.parse::<Timestamp>().expect("an instant");
            let recorded = times(old).due(moment("2024-03-10T00:00:00Z"), moment("2024-03-10T06:10:00Z"), 100);
            let last = *recorded.last().expect("some");
            let more = times(new).due(last, moment("2024-03-10T12:00:00Z"), 100);
            assert!(more.iter().all(|tick| *tick > last), "{old}, then {new}: {more:?} behind {last}");
            let hours = more.iter().filter(|tick| tick.as_second() % 3_600 == 0).count();
            assert_eq!(hours, 6, "no hour is left out: {more:?}");
        }
    }

    /// T-1 to T-4, FM-46: the measured table, by the rule of Debian's cron.
    #[test]
    fn t_1_to_t_4_clocks_that_jump() {
        let new_york = |line: &str, day: &str, expect: &str| {
            let (from, until) = if day == "gap" {
                ("2024-03-10T05:00:00Z", "2024-03-10T10:00:00Z")
            } else {
                ("2024-11-03T04:00:00Z", "2024-11-03T07:30:00Z")
            };
            assert_ticks(&cron(line, "America/New_York"), from, until, expect);
        };
        for (line, day, expect) in [
            ("30 2 * * *", "gap", "07:00"),
            ("0 2 * * *", "gap", "07:00"),
            ("0 */2 * * *", "gap", "05:00 08:00 10:00"),
            ("30 2,3 * * *", "gap", "07:00 07:30"),
            ("0,30 2-3 * * *", "gap", "07:00 07:30"),
            ("0 * * * *", "gap", "05:00 06:00 07:00 08:00 09:00 10:00"),
            ("30 1 * * *", "fold", "05:30"),
            ("0 1,2 * * *", "fold", "05:00 07:00"),
            ("0 * * * *", "fold", "04:00 05:00 06:00 07:00"),
            ("*/30 0-2 * * *", "fold", "04:00 04:30 05:00 05:30 06:00 06:30 07:00 07:30"),
        ] {
            new_york(line, day, expect);
        }
        assert_ticks(
            &cron("0 * * * *", "Australia/Lord_Howe"),
            "2024-04-06T14:00:00Z",
            "2024-04-06T16:30:00Z",
            "14:00 15:30 16:30",
        );
        assert_ticks(&cron("15 2 * * *", "Australia/Lord_Howe"), "2024-10-05T14:00:00Z", "2024-10-05T16:30:00Z", "15:30");
        assert_ticks(
            &cron("*/45 * * * *", "UTC"),
            "2024-01-01T00:00:00Z",
            "2024-01-01T02:00:00Z",
            "00:00 00:45 01:00 01:45 02:00",
        );
    }

    #[test]
    fn the_clock_rules_can_be_said() {
        let line = |gap: Gap, fold: Fold| Schedule { gap, fold, ..cron("30 1,2 * * *", "America/New_York") };
        let (gap, fold) = (("2024-03-10T05:00:00Z", "2024-03-10T10:00:00Z"), ("2024-11-03T04:00:00Z", "2024-11-03T07:30:00Z"));
        assert_ticks(&line(Gap::Skip, Fold::First), gap.0, gap.1, "06:30");
        assert_ticks(&line(Gap::Shift, Fold::Last), fold.0, fold.1, "06:30 07:30");
        assert_ticks(&line(Gap::Shift, Fold::Both), fold.0, fold.1, "05:30 06:30 07:30");
    }

    /// T-16 to T-19: a run is about the time that has ended with its tick, and none of it twice.
    #[test]
    fn t_16_t_17_t_18_t_19_runs_are_about_intervals() {
        let moment = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let shown = |interval: Option<(Timestamp, Timestamp)>| {
            interval
                .map_or_else(String::new, |(start, end)| format!("{} {}", start.strftime("%d %H:%M"), end.strftime("%d %H:%M")))
        };
        let daily = Times::new(&cron("@daily", "UTC")).expect("a schedule");
        let tick = moment("2024-01-02T00:00:00Z");
        assert_eq!(shown(daily.interval(tick, None)), "01 00:00 02 00:00", "T-16");
        assert_eq!(shown(daily.last_interval(tick)), "01 00:00 02 00:00", "T-17: one that ends just now has ended");
        assert_eq!(shown(daily.last_interval(moment("2024-01-02T15:00:00Z"))), "01 00:00 02 00:00", "T-18");
        assert_eq!(shown(daily.last_interval(moment("2024-01-01T23:59:59Z"))), "31 00:00 01 00:00");
        // T-18: on the day of the gap too it has a length.
        let gap = Times::new(&cron("30 2 * * *", "America/New_York")).expect("a schedule");
        assert_eq!(shown(gap.last_interval(moment("2024-03-10T07:00:00Z"))), "09 07:30 10 07:00");
        assert_eq!(shown(gap.last_interval(moment("2024-03-11T06:30:00Z"))), "10 07:00 11 06:30");
        // T-19: hours until 10:00 have been done when it becomes a schedule of days.
        assert_eq!(shown(daily.interval(tick, Some(moment("2024-01-01T10:00:00Z")))), "01 10:00 02 00:00");
        assert_eq!(
            shown(daily.interval(tick, Some(moment("2023-12-01T10:00:00Z")))),
            "01 00:00 02 00:00",
            "missed ones stay missed"
        );
        // The first tick of a schedule that starts then is about what was before.
        let started = Schedule { start: Some(tick), ..cron("@daily", "UTC") };
        assert_eq!(shown(Times::new(&started).expect("a schedule").interval(tick, None)), "01 00:00 02 00:00");
        let yearly = Times::new(&cron("0 0 29 2 *", "UTC")).expect("a schedule");
        assert_eq!(yearly.last_before(moment("2104-01-01T00:00:00Z")), Some(moment("2096-02-29T00:00:00Z")));
        let second = Schedule::new(ScheduleRule::Every(Duration::from_secs(1)), "UTC");
        let second = Times::new(&second).expect("a schedule");
        assert_eq!(second.last_before(moment("2024-01-01T00:00:00.5Z")), Some(moment("2024-01-01T00:00:00Z")));
    }

    #[test]
    fn runs_begin_a_little_later() {
        let jittered = |line: &str, jitter: u64| Schedule { jitter: Duration::from_secs(jitter), ..cron(line, "UTC") };
        let times = Times::new(&jittered("0 * * * *", 600)).expect("a schedule");
        let ticks = times.due(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000), 1000);
        let delays: Vec<u64> = ticks.iter().map(|tick| times.delay("job", *tick).as_secs()).collect();
        assert!(delays.iter().all(|delay| *delay < 600));
        let mean = delays.iter().sum::<u64>() / delays.len() as u64;
        assert!((250..350).contains(&mean), "they are spread: {mean}");
        assert_eq!(delays[0], times.delay("job", ticks[0]).as_secs(), "the same whoever looks");
        assert_ne!(times.delay("job", ticks[0]), times.delay("another", ticks[0]));
        assert_eq!(Times::new(&cron("0 * * * *", "UTC")).expect("a schedule").delay("job", ticks[0]), Duration::ZERO);
        assert_eq!(check(&jittered("0 * * * *", 3599)), Ok(()));
        assert_eq!(check(&jittered("0 * * * *", 3600)), Err(ScheduleError::Jitter(3600)));
        assert_eq!(check(&jittered("*/45 * * * *", 1000)), Err(ScheduleError::Jitter(900)), "gaps of 45 and of 15 minutes");
    }

    /// T-5: either day, but both when one begins with a star.
    #[test]
    fn t_5_two_kinds_of_days() {
        let days = |line: &str| {
            let times = Times::new(&cron(line, "UTC")).expect("a schedule");
            let from: Timestamp = "2023-12-31T23:59:59Z".parse().expect("an instant");
            let until: Timestamp = "2024-01-31T23:59:59Z".parse().expect("an instant");
            times.due(from, until, 100).iter().map(|tick| tick.strftime("%-d").to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(days("0 0 13 * 5"), "5 12 13 19 26");
        assert_eq!(days("0 0 */2 * 1"), "1 15 29");
        assert_eq!(days("0 0 * * 5#3"), "19");
        assert_eq!(days("0 0 L * *"), "31");
        assert_eq!(days("0 0 * * 7"), days("0 0 * * 0"));
    }

    /// T-6, T-7: what never comes is refused, what comes late is found.
    #[test]
    fn t_6_and_t_7_rare_days() {
        assert_eq!(check(&cron("0 0 30 2 *", "UTC")), Err(ScheduleError::Never("0 0 30 2 *".into())));
        let times = Times::new(&cron("0 0 29 2 *", "UTC")).expect("a schedule");
        let next = times.next_after("2097-01-01T00:00:00Z".parse().expect("an instant")).expect("a tick");
        assert_eq!(next.to_string(), "2104-02-29T00:00:00Z");
        for line in ["", "* * * *", "* * * * * *", "60 * * * *", "@sometimes", "0 0 * * MOO"] {
            assert!(check(&cron(line, "UTC")).is_err(), "{line}");
        }
        assert!(matches!(check(&cron("@daily", "Mars/Olympus")), Err(ScheduleError::Zone(_))));
    }

    /// T-8, T-9, T-20: several lines are one schedule, and a schedule may begin and end.
    #[test]
    fn t_8_lines_share_their_ticks() {
        assert_ticks(&cron("0 * * * *;*/30 * * * *", "UTC"), "2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "00:00 00:30 01:00");
        let bounded = Schedule {
            start: Some("2024-01-01T01:00:00Z".parse().expect("an instant")),
            end: Some("2024-01-01T02:00:00Z".parse().expect("an instant")),
            ..cron("0 * * * *", "UTC")
        };
        assert_ticks(&bounded, "2024-01-01T00:00:00Z", "2024-01-01T05:00:00Z", "01:00 02:00");
    }

    /// T-22: short intervals count real time, days count the clock.
    #[test]
    fn t_22_intervals() {
        let every = |seconds: u64| Schedule::new(ScheduleRule::Every(Duration::from_secs(seconds)), "America/New_York");
        assert_ticks(&every(5400), "2024-03-10T05:30:00Z", "2024-03-10T09:00:00Z", "06:00 07:30 09:00");
        assert_ticks(&every(86_400), "2024-03-09T12:00:00Z", "2024-03-12T12:00:00Z", "05:00 04:00 04:00");
    }

    #[test]
    fn only_the_newest_ticks_are_kept() {
        let times = Times::new(&cron("0 * * * *", "UTC")).expect("a schedule");
        let moment = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let due = times.due(moment("2024-01-01T00:30:00Z"), moment("2024-01-02T00:30:00Z"), 2);
        assert_eq!(due.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2024-01-01T23:00:00Z", "2024-01-02T00:00:00Z"]);
    }
}
