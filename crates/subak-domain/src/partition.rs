//! Partitions: named slices of an asset, each brought up to date by itself.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::AssetKey;

/// How an asset is cut into partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioning {
    /// The column that says to which partition a row belongs; empty where there are several dimensions, which have their own.
    pub column: String,
    /// What the partitions are.
    pub rule: PartitionRule,
    /// Which partitions of other assets one reads, where it is not those that [`Mapping::Usual`] says.
    pub reads: BTreeMap<AssetKey, Mapping>,
    /// Whether each partition reads the one before it, so that they are made one after the other.
    pub needs_previous: bool,
}

impl Partitioning {
    /// Partitions of one column, which read others in the usual way.
    pub fn new(column: &str, rule: PartitionRule) -> Self {
        Self { column: column.to_owned(), rule, reads: BTreeMap::new(), needs_previous: false }
    }

    /// The dimensions in the order of their names; one without a name where there is only one.
    pub fn dimensions(&self) -> Vec<(&str, &str, &PartitionRule)> {
        match &self.rule {
            PartitionRule::Grid(dimensions) => {
                dimensions.iter().map(|one| (one.name.as_str(), one.column.as_str(), &one.rule)).collect()
            }
            rule => vec![("", self.column.as_str(), rule)],
        }
    }

    /// The windows of time, where the partitions or a dimension of theirs are such.
    pub fn windows(&self) -> Option<&TimeWindows> {
        self.dimensions().into_iter().find_map(|(.., rule)| match rule {
            PartitionRule::Time(windows) => Some(windows),
            _ => None,
        })
    }

    /// The key of the dimension of time in a key of a partition.
    pub fn time_key<'k>(&self, key: &'k str) -> Option<&'k str> {
        let at = self.dimensions().iter().position(|(.., rule)| matches!(rule, PartitionRule::Time(_)))?;
        match &self.rule {
            PartitionRule::Grid(_) => key.split(KEY_JOINT).nth(at),
            _ => Some(key),
        }
    }

    /// The partition of the window before that of another one; `None` for the first, and where there are no windows.
    pub fn previous(&self, key: &str) -> Option<String> {
        let windows = self.windows()?;
        let place = windows.parse(self.time_key(key)?)?.checked_sub(1).filter(|place| *place >= windows.first())?;
        let before = windows.key(place)?;
        let PartitionRule::Grid(dimensions) = &self.rule else { return Some(before) };
        let part = |(dimension, part): (&Dimension, &str)| {
            let is_time = matches!(dimension.rule, PartitionRule::Time(_));
            if is_time { before.clone() } else { part.to_owned() }
        };
        Some(dimensions.iter().zip(key.split(KEY_JOINT)).map(part).collect::<Vec<_>>().join(KEY_JOINT))
    }

    /// What a partition is in each dimension, with the column that says it. `None` for a partition of another definition.
    pub fn parts(&self, partition: &Partition) -> Option<Vec<(&str, Partition)>> {
        let PartitionRule::Grid(dimensions) = &self.rule else {
            return partition.parts.is_empty().then(|| vec![(self.column.as_str(), partition.clone())]);
        };
        let part = |dimension: &Dimension| {
            let window = matches!(dimension.rule, PartitionRule::Time(_)).then(|| partition.window.clone()).flatten();
            Some(Partition { window, ..Partition::of_key(partition.parts.get(&dimension.name)?) })
        };
        let is_same = dimensions.len() == partition.parts.len();
        let parts = dimensions.iter().filter(|_| is_same).map(|dimension| Some((dimension.column.as_str(), part(dimension)?)));
        parts.collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty())
    }
}

/// Which partitions of another asset a partition reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Windows that share a moment with its own, else those with the same key, dimension by dimension.
    #[default]
    Usual,
    /// All.
    All,
    /// Those of the windows so many places before (below zero) or behind its own, the first and the last included, counted in windows of the reader.
    Offset {
        /// The first.
        from: i64,
        /// The last.
        to: i64,
    },
    /// These, whatever its own is.
    Keys(Vec<String>),
}

/// What stands between the keys of the dimensions in a key.
pub const KEY_JOINT: &str = "|";

/// One of several ways in which an asset is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Its name.
    pub name: String,
    /// The column that says what a row is in it.
    pub column: String,
    /// What its keys are; no grid.
    pub rule: PartitionRule,
}

/// What the partitions of an asset are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionRule {
    /// Windows of time.
    Time(TimeWindows),
    /// These keys, in this order.
    Static(Vec<String>),
    /// Keys that are added while the project runs, under a name that several assets may share.
    Dynamic(String),
    /// Every combination of the keys of these dimensions, in the order of their names; at most one of them is of time.
    Grid(Vec<Dimension>),
}

/// Windows of one length, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeWindows {
    /// How long one is.
    pub cadence: Cadence,
    /// The wall-clock time at which the first one begins.
    pub start: DateTime,
    /// The wall-clock time at which the last one ends.
    pub end: Option<DateTime>,
    /// The time zone of the clock, by IANA name.
    pub timezone: String,
}

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// An hour of real time, from one full hour of UTC to the next.
    Hourly,
    /// A day of the clock: 23, 24 or 25 hours.
    Daily,
    /// A week of the clock, from Monday.
    Weekly,
    /// A month.
    Monthly,
    /// Three months, from January, April, July and October.
    Quarterly,
    /// A year.
    Yearly,
}

impl Cadence {
    /// Every cadence with its name.
    pub const NAMES: [(&str, Self); 6] = [
        ("hourly", Self::Hourly),
        ("daily", Self::Daily),
        ("weekly", Self::Weekly),
        ("monthly", Self::Monthly),
        ("quarterly", Self::Quarterly),
        ("yearly", Self::Yearly),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, cadence)| *cadence == self).map_or("daily", |(name, _)| name)
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// One partition, as it stands in a plan: what it is does not change when its definition does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its key.
    pub key: String,
    /// Its window; `None` for a partition that is no window of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Its key in each dimension, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, String>,
}

/// A window of time, half open: as it stands on its clock, and in UTC. Texts are `2026-11-21` at midnight, else `2026-11-21 15:00:00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first moment, by its clock.
    pub start: String,
    /// The first moment behind it, by its clock.
    pub end: String,
    /// The first moment in UTC.
    pub start_utc: String,
    /// The first moment behind it in UTC.
    pub end_utc: String,
}

impl Partition {
    /// One that is no window of time.
    pub fn of_key(key: &str) -> Self {
        Self { key: key.to_owned(), window: None, parts: BTreeMap::new() }
    }

    /// One of several dimensions: what it is in each, by their names and in the order of these. Its window is that of the one of time.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let mut found = Self::of_key("");
        for (name, part) in parts {
            found.key = if found.parts.is_empty() { part.key.clone() } else { format!("{}{KEY_JOINT}{}", found.key, part.key) };
            found.window = part.window.or(found.window);
            found.parts.insert(name.to_owned(), part.key);
        }
        found
    }

    /// A text with the marks of a partition filled in by `quote`d values. A text without marks stays as it is.
    pub fn fill(&self, text: &str, quote: impl Fn(&str) -> String) -> String {
        if !text.contains(MARK_BEGIN) {
            return text.to_owned();
        }
        let window = self.window.as_ref();
        let values = [
            (MARK_KEY, Some(&self.key)),
            (MARK_START, window.map(|window| &window.start)),
            (MARK_END, window.map(|window| &window.end)),
            (MARK_START_UTC, window.map(|window| &window.start_utc)),
            (MARK_END_UTC, window.map(|window| &window.end_utc)),
        ];
        let text = values.iter().fold(text.to_owned(), |text, (mark, value)| match value {
            Some(value) => text.replace(mark, &quote(value)),
            None => text,
        });
        self.parts.iter().fold(text, |text, (name, key)| text.replace(&key_mark(name), &quote(key)))
    }
}

const MARK_BEGIN: &str = "{{ partition.";

/// Marks that stand in texts until the partition is known.
pub const MARK_KEY: &str = "{{ partition.key }}";
/// The first moment of its window, by its clock.
pub const MARK_START: &str = "{{ partition.start }}";
/// The first moment behind its window, by its clock.
pub const MARK_END: &str = "{{ partition.end }}";
/// The first moment of its window in UTC.
pub const MARK_START_UTC: &str = "{{ partition.start_utc }}";
/// The first moment behind its window in UTC.
pub const MARK_END_UTC: &str = "{{ partition.end_utc }}";

/// The mark of the key in a dimension.
pub fn key_mark(dimension: &str) -> String {
    format!("{{{{ partition.keys.{dimension} }}}}")
}

/// Whether a text asks for its partition.
pub fn asks_for_partition(text: &str) -> bool {
    text.contains(MARK_BEGIN)
}

/// Whether a text asks for the moments of its partition, and not for times of a clock.
pub fn asks_for_moments(text: &str) -> bool {
    text.contains(MARK_START_UTC) || text.contains(MARK_END_UTC)
}

/// The number of a window: windows of one cadence are numbered one after the other, whatever their definition says of start and end.
pub type Place = i64;

/// The Monday from which weeks are counted.
const FIRST_MONDAY: Date = Date::constant(1970, 1, 5);
const EPOCH: Date = Date::constant(1970, 1, 1);
const HOUR_SECONDS: i64 = 3_600;

impl TimeWindows {
    fn zone(&self) -> TimeZone {
        // The name was checked when the project was loaded.
        TimeZone::get(&self.timezone).unwrap_or(TimeZone::UTC)
    }

    fn instant(&self, wall: DateTime) -> Timestamp {
        wall.to_zoned(self.zone()).map_or(Timestamp::UNIX_EPOCH, |zoned| zoned.timestamp())
    }

    /// The day on which a window begins.
    fn day_of(&self, place: Place) -> Option<Date> {
        let month = |months: i64| {
            let (year, month) = (i16::try_from(months.div_euclid(12)).ok()?, i8::try_from(months.rem_euclid(12) + 1).ok()?);
            Date::new(year, month, 1).ok()
        };
        match self.cadence {
            Cadence::Hourly => None,
            Cadence::Daily => EPOCH.checked_add(Span::new().try_days(place).ok()?).ok(),
            Cadence::Weekly => FIRST_MONDAY.checked_add(Span::new().try_weeks(place).ok()?).ok(),
            Cadence::Monthly => month(place),
            Cadence::Quarterly => month(place.checked_mul(3)?),
            Cadence::Yearly => month(place.checked_mul(12)?),
        }
    }

    /// The window in which a day of the clock lies.
    fn place_of_day(&self, day: Date) -> Place {
        let months = i64::from(day.year()) * 12 + i64::from(day.month()) - 1;
        let days = |from: Date| day.since((jiff::Unit::Day, from)).map_or(0, |span| i64::from(span.get_days()));
        match self.cadence {
            Cadence::Hourly => self.instant(day.to_datetime(jiff::civil::Time::midnight())).as_second().div_euclid(HOUR_SECONDS),
            Cadence::Daily => days(EPOCH),
            Cadence::Weekly => days(FIRST_MONDAY).div_euclid(7),
            Cadence::Monthly => months,
            Cadence::Quarterly => months.div_euclid(3),
            Cadence::Yearly => months.div_euclid(12),
        }
    }

    /// The window in which a moment lies.
    fn place_of(&self, moment: Timestamp) -> Place {
        match self.cadence {
            // Not by the clock, which shows some hours twice.
            Cadence::Hourly => moment.as_second().div_euclid(HOUR_SECONDS),
            _ => self.place_of_day(moment.to_zoned(self.zone()).date()),
        }
    }

    /// The moments at which a window begins and ends.
    pub fn bounds(&self, place: Place) -> Option<(Timestamp, Timestamp)> {
        if self.cadence == Cadence::Hourly {
            let at = |place: i64| Timestamp::from_second(place.checked_mul(HOUR_SECONDS)?).ok();
            return Some((at(place)?, at(place.checked_add(1)?)?));
        }
        let at = |place: i64| Some(self.instant(self.day_of(place)?.to_datetime(jiff::civil::Time::midnight())));
        Some((at(place)?, at(place.checked_add(1)?)?))
    }

    /// The first window; one that begins before `start` is left out.
    pub fn first(&self) -> Place {
        let place = self.place_of(self.instant(self.start));
        let begins_before = self.bounds(place).is_some_and(|(begin, _)| begin < self.instant(self.start));
        if begins_before { place + 1 } else { place }
    }

    /// The last window that has ended at a moment, and lies before `end`. `None` when there is none yet.
    pub fn last(&self, now: Timestamp) -> Option<Place> {
        let until = self.end.map_or(now, |end| now.min(self.instant(end)));
        let place = self.place_of(until);
        // The window in which the moment lies has not ended, unless it begins there.
        let mut last = place;
        while self.bounds(last).is_some_and(|(_, end)| end > until) {
            last -= 1;
        }
        (last >= self.first()).then_some(last)
    }

    /// The key of a window: where it begins, in as many parts as its cadence needs. Keys of hours carry the offset of the clock.
    pub fn key(&self, place: Place) -> Option<String> {
        if self.cadence == Cadence::Hourly {
            let begin = self.bounds(place)?.0.to_zoned(self.zone());
            return Some(begin.strftime("%Y-%m-%dT%H:%M%:z").to_string());
        }
        let day = self.day_of(place)?;
        Some(match self.cadence {
            Cadence::Yearly => day.strftime("%Y").to_string(),
            Cadence::Monthly => day.strftime("%Y-%m").to_string(),
            Cadence::Quarterly => format!("{}-Q{}", day.strftime("%Y"), (day.month() - 1) / 3 + 1),
            _ => day.to_string(),
        })
    }

    /// The window of a key; `None` for a text that is no key, or one of a window that begins elsewhere.
    pub fn parse(&self, key: &str) -> Option<Place> {
        let place = match self.cadence {
            Cadence::Hourly => jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M%:z", key)
                .ok()?
                .to_timestamp()
                .ok()?
                .as_second()
                .div_euclid(HOUR_SECONDS),
            Cadence::Yearly => self.place_of_day(format!("{key}-01-01").parse().ok()?),
            Cadence::Monthly => self.place_of_day(format!("{key}-01").parse().ok()?),
            Cadence::Quarterly => {
                let (year, quarter) = key.split_once("-Q")?;
                let quarter: i8 = quarter.parse().ok().filter(|quarter| (1..=4).contains(quarter))?;
                self.place_of_day(Date::new(year.parse().ok()?, (quarter - 1) * 3 + 1, 1).ok()?)
            }
            Cadence::Daily | Cadence::Weekly => {
                let day: Date = key.parse().ok()?;
                if self.cadence == Cadence::Weekly && day.weekday() != Weekday::Monday {
                    return None;
                }
                self.place_of_day(day)
            }
        };
        (self.key(place)? == key).then_some(place)
    }

    /// The window as it stands in a plan.
    pub fn partition(&self, place: Place) -> Option<Partition> {
        let (begin, end) = self.bounds(place)?;
        let wall = |moment: Timestamp| text(moment.to_zoned(self.zone()).datetime());
        let utc = |moment: Timestamp| text(moment.to_zoned(TimeZone::UTC).datetime());
        let window = Window { start: wall(begin), end: wall(end), start_utc: utc(begin), end_utc: utc(end) };
        Some(Partition { window: Some(window), ..Partition::of_key(&self.key(place)?) })
    }

    /// The windows of another definition that share a moment with one of these.
    pub fn overlapping(&self, place: Place, other: &Self) -> Option<(Place, Place)> {
        let (begin, end) = self.bounds(place)?;
        let last_moment = end.checked_sub(1.nanosecond()).ok()?;
        Some((other.place_of(begin), other.place_of(last_moment)))
    }
}

fn text(wall: DateTime) -> String {
    let format = if wall.time() == jiff::civil::Time::midnight() { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M:%S" };
    wall.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(cadence: Cadence, start: &str, timezone: &str) -> TimeWindows {
        TimeWindows { cadence, start: start.parse().expect("start"), end: None, timezone: timezone.to_owned() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("moment")
    }

    /// T-110: the last one is the last that has ended.
    #[test]
    fn t_110_keys_are_starts_of_windows_that_have_ended() {
        let cases = [
            (Cadence::Hourly, "2024-01-01", "UTC", "2024-01-01T03:30:00Z", "2024-01-01T00:00+00:00", "2024-01-01T02:00+00:00"),
            (Cadence::Daily, "2024-01-01", "UTC", "2024-01-03T00:00:00Z", "2024-01-01", "2024-01-02"),
            (Cadence::Daily, "2024-01-01", "Asia/Jakarta", "2024-01-02T17:00:00Z", "2024-01-01", "2024-01-02"),
            (Cadence::Daily, "2024-01-01T12:00:00", "UTC", "2024-01-03T10:00:00Z", "2024-01-02", "2024-01-02"),
            (Cadence::Weekly, "2024-01-03", "UTC", "2024-01-22T00:00:00Z", "2024-01-08", "2024-01-15"),
            (Cadence::Monthly, "2024-01-01", "UTC", "2024-03-31T00:00:00Z", "2024-01", "2024-02"),
            (Cadence::Quarterly, "2024-01-01", "UTC", "2024-12-31T00:00:00Z", "2024-Q1", "2024-Q3"),
            (Cadence::Yearly, "2020-01-01", "UTC", "2024-06-01T00:00:00Z", "2020", "2023"),
        ];
        for (cadence, start, zone, now, first, last) in cases {
            let windows = windows(cadence, start, zone);
            let found = [Some(windows.first()), windows.last(at(now))].map(|place| windows.key(place.expect("a window")));
            assert_eq!(found, [Some(first.to_owned()), Some(last.to_owned())], "{cadence}");
            for place in windows.first()..=windows.last(at(now)).expect("last") {
                let key = windows.key(place).expect("key");
                assert_eq!(windows.parse(&key), Some(place), "{key}");
            }
        }
        assert_eq!(windows(Cadence::Daily, "2024-01-01", "UTC").last(at("2024-01-01T23:59:59Z")), None, "none has ended");
        let bounded = TimeWindows {
            end: Some("2024-01-03T00:00:00".parse().expect("end")),
            ..windows(Cadence::Daily, "2024-01-01", "UTC")
        };
        assert_eq!(bounded.last(at("2025-01-01T00:00:00Z")).and_then(|place| bounded.key(place)).as_deref(), Some("2024-01-02"));
    }

    /// T-111, T-113: 25 hours on the day that gains one, 23 on the one that loses one, each with a key of its own.
    #[test]
    fn t_111_hours_of_days_that_gain_or_lose_one_have_keys_of_their_own() {
        let hours = windows(Cadence::Hourly, "2024-01-01", "America/New_York");
        let days = windows(Cadence::Daily, "2024-01-01", "America/New_York");
        for (day, count) in [("2024-03-09", 24), ("2024-03-10", 23), ("2024-11-03", 25)] {
            let (first, last) = days.overlapping(days.parse(day).expect(day), &hours).expect("hours");
            let keys: std::collections::BTreeSet<_> = (first..=last).map(|place| hours.key(place).expect("key")).collect();
            assert_eq!((last - first + 1, keys.len()), (count, count as usize), "{day}");
            assert!(keys.iter().all(|key| key.starts_with(day)), "{day}: {keys:?}");
            assert!(keys.iter().all(|key| hours.parse(key).is_some()), "{day}");
        }
        // Each of two equal hours reads its own.
        for key in ["2024-11-03T01:00-04:00", "2024-11-03T01:00-05:00"] {
            let place = hours.parse(key).expect(key);
            assert_eq!(hours.overlapping(place, &hours), Some((place, place)), "{key}");
        }
        let window =
            days.partition(days.parse("2024-11-03").expect("day")).and_then(|partition| partition.window).expect("window");
        assert_eq!([window.start_utc, window.end_utc], ["2024-11-03 04:00:00", "2024-11-04 05:00:00"]);
    }

    /// T-114, T-117: windows of different lengths and clocks overlap by their moments.
    #[test]
    fn t_114_windows_overlap_by_their_moments() {
        let keys = |from: &TimeWindows, key: &str, to: &TimeWindows| {
            let (first, last) = from.overlapping(from.parse(key).expect(key), to).expect("windows");
            [to.key(first).expect("first"), to.key(last).expect("last")]
        };
        let daily = windows(Cadence::Daily, "2024-01-01", "UTC");
        let weekly = windows(Cadence::Weekly, "2024-01-01", "UTC");
        assert_eq!(keys(&weekly, "2024-01-08", &daily), ["2024-01-08", "2024-01-14"]);
        assert_eq!(keys(&daily, "2024-01-10", &weekly), ["2024-01-08", "2024-01-08"]);
        let jakarta = windows(Cadence::Daily, "2024-01-01", "Asia/Jakarta");
        assert_eq!(keys(&jakarta, "2024-01-10", &daily), ["2024-01-09", "2024-01-10"]);
        assert_eq!(keys(&windows(Cadence::Monthly, "2024-01-01", "UTC"), "2024-02", &daily), ["2024-02-01", "2024-02-29"]);
    }

    /// T-144: a window has one key, and what is written otherwise is none.
    #[test]
    fn what_is_no_key_is_none() {
        let cases = [
            (Cadence::Daily, "2024-02-30"),
            (Cadence::Daily, "2024-1-1"),
            (Cadence::Daily, "20240101"),
            (Cadence::Weekly, "2024-01-02"),
            (Cadence::Monthly, "2024-01-01"),
            (Cadence::Quarterly, "2024-Q5"),
            (Cadence::Yearly, "24"),
            (Cadence::Hourly, "2024-01-01T05:30+00:00"),
            (Cadence::Hourly, "2024-01-01T05:00"),
        ];
        for (cadence, key) in cases {
            assert_eq!(windows(cadence, "2020-01-01", "UTC").parse(key), None, "{cadence} {key}");
        }
    }

    #[test]
    fn marks_are_filled_in() {
        let days = windows(Cadence::Daily, "2024-01-01", "Asia/Jakarta");
        let day = days.partition(days.parse("2024-01-02").expect("day")).expect("partition");
        let sql = day.fill("d >= {{ partition.start }} and d < {{ partition.end }} and {{ this }}", |value| format!("'{value}'"));
        assert_eq!(sql, "d >= '2024-01-02' and d < '2024-01-03' and {{ this }}");
        assert_eq!(day.fill("{{ partition.start_utc }}", str::to_owned), "2024-01-01 17:00:00");
        assert_eq!(Partition::of_key("id").fill("{{ partition.key }}.csv", str::to_owned), "id.csv");
    }
}
