//! Which partitions there are, which are meant, and which of another asset each one reads.

use std::collections::BTreeSet;

use subak_domain::partition::{KEY_JOINT, Place};
use subak_domain::{Asset, AssetKey, Mapping, Partition, PartitionRule, Partitioning, Snapshot, Timestamp};

/// Partitions of one asset that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionPick {
    /// This one; of several dimensions also the key of one of them, or `*`, `latest` and ranges of keys between `|`.
    Key(String),
    /// These, the first and the last included, in the order of the definition.
    Range(String, String),
    /// The last one.
    Latest,
    /// Those that were never brought up to date.
    Missing,
    /// Those whose last attempt failed.
    Failed,
    /// All.
    All,
}

impl PartitionPick {
    /// A pick from its text: `2026-11-21`, `2026-11-01..2026-11-21`, `latest`, `missing`, `failed`, `all`.
    pub fn parse(text: &str) -> Self {
        match text {
            "latest" => Self::Latest,
            "missing" => Self::Missing,
            "failed" => Self::Failed,
            "all" => Self::All,
            // Of each dimension by itself.
            _ if text.contains(KEY_JOINT) => Self::Key(text.to_owned()),
            _ => match text.split_once("..") {
                Some((first, last)) => Self::Range(first.to_owned(), last.to_owned()),
                None => Self::Key(text.to_owned()),
            },
        }
    }
}

/// A pick that an asset has no partition for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// There is no such partition.
    #[error("`{asset}` has no partition `{key}`")]
    Unknown {
        /// The asset.
        asset: String,
        /// The key.
        key: String,
        /// What keys look like, or which there are.
        known: String,
    },
    /// A range that ends before it begins.
    #[error("the partitions from `{first}` to `{last}` of `{asset}` are none: `{last}` comes before `{first}`")]
    Backwards {
        /// The asset.
        asset: String,
        /// The first key.
        first: String,
        /// The last key.
        last: String,
    },
}

/// The partitions that an asset has at a moment, in order, without a list of their keys where they are windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<'a> {
    /// Windows by their numbers; the first one behind the last where there are none.
    Windows(&'a subak_domain::TimeWindows, Place, Place),
    /// Keys.
    Keys(&'a [String]),
    /// Every combination of these, by the names of the dimensions. Those of one window come together, oldest first; then by the dimensions in the order
    /// of their names.
    Grid(Vec<(&'a str, Known<'a>)>),
}

impl<'a> Known<'a> {
    /// The partitions at a moment.
    pub fn of(partitioning: &'a Partitioning, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self::of_rule(&partitioning.rule, snapshot, now)
    }

    fn of_rule(rule: &'a PartitionRule, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        match rule {
            PartitionRule::Time(windows) => {
                let first = windows.first();
                Self::Windows(windows, first, windows.last(now).unwrap_or(first - 1))
            }
            PartitionRule::Static(keys) => Self::Keys(keys),
            PartitionRule::Dynamic(name) => Self::Keys(snapshot.dynamic.get(name).map(Vec::as_slice).unwrap_or_default()),
            PartitionRule::Grid(dimensions) => {
                let of = |one: &'a subak_domain::Dimension| (one.name.as_str(), Self::of_rule(&one.rule, snapshot, now));
                Self::Grid(dimensions.iter().map(of).collect())
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Windows(_, first, last) => usize::try_from(last - first + 1).unwrap_or(0),
            Self::Keys(keys) => keys.len(),
            Self::Grid(dimensions) => dimensions.iter().map(|(_, known)| known.len()).fold(1, usize::saturating_mul),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The places of the dimensions of a grid, those that change last first: the one of time, then by name.
    fn significance(dimensions: &[(&str, Self)]) -> Vec<usize> {
        let is_time = |at: &usize| matches!(dimensions[*at].1, Self::Windows(..));
        let (time, others): (Vec<usize>, Vec<usize>) = (0..dimensions.len()).partition(is_time);
        time.into_iter().chain(others).collect()
    }

    /// The place in each dimension of the one at a place in the order of a grid.
    fn places(dimensions: &[(&str, Self)], at: usize) -> Option<Vec<usize>> {
        let (mut rest, mut places) = (at, vec![0; dimensions.len()]);
        for one in Self::significance(dimensions).into_iter().rev() {
            let count = dimensions[one].1.len();
            places[one] = rest.checked_rem(count)?;
            rest /= count;
        }
        (rest == 0).then_some(places)
    }

    /// The reverse.
    fn place_of(dimensions: &[(&str, Self)], places: &[usize]) -> usize {
        let found = Self::significance(dimensions).into_iter();
        found.fold(0_usize, |at, one| at.saturating_mul(dimensions[one].1.len()).saturating_add(places[one]))
    }

    /// The key of the one at a place in their order, from 0.
    pub fn key(&self, at: usize) -> Option<String> {
        match self {
            Self::Windows(windows, first, last) => {
                let place = first + Place::try_from(at).ok()?;
                (place <= *last).then(|| windows.key(place)).flatten()
            }
            Self::Keys(keys) => keys.get(at).cloned(),
            Self::Grid(dimensions) => {
                let places = Self::places(dimensions, at)?;
                let keys = dimensions.iter().zip(places).map(|((_, known), place)| known.key(place));
                Some(keys.collect::<Option<Vec<_>>>()?.join(KEY_JOINT))
            }
        }
    }

    /// The one at a place in their order.
    pub fn partition(&self, at: usize) -> Option<Partition> {
        match self {
            Self::Windows(windows, first, last) => {
                let place = first + Place::try_from(at).ok()?;
                (place <= *last).then(|| windows.partition(place)).flatten()
            }
            Self::Keys(keys) => keys.get(at).map(|key| Partition::of_key(key)),
            Self::Grid(dimensions) => {
                let places = Self::places(dimensions, at)?;
                let part = |((name, known), place): (&(&'a str, Self), usize)| Some((*name, known.partition(place)?));
                Some(Partition::of_parts(dimensions.iter().zip(places).map(part).collect::<Option<Vec<_>>>()?))
            }
        }
    }

    /// The place of a key in their order.
    pub fn place(&self, key: &str) -> Option<usize> {
        match self {
            Self::Windows(windows, first, last) => {
                let place = windows.parse(key).filter(|place| (first..=last).contains(&place))?;
                usize::try_from(place - first).ok()
            }
            Self::Keys(keys) => keys.iter().position(|known| known == key),
            Self::Grid(dimensions) => {
                let parts: Vec<&str> = key.split(KEY_JOINT).collect();
                if parts.len() != dimensions.len() {
                    return None;
                }
                let places = dimensions.iter().zip(parts).map(|((_, known), part)| known.place(part));
                Some(Self::place_of(dimensions, &places.collect::<Option<Vec<_>>>()?))
            }
        }
    }

    /// The places that a text of a pick names in one dimension: `*`, `latest`, a key, or a range of keys.
    fn named(&self, text: &str) -> Option<BTreeSet<usize>> {
        Some(match text {
            "*" => (0..self.len()).collect(),
            "latest" => self.len().checked_sub(1).into_iter().collect(),
            _ => match text.split_once("..") {
                Some((first, last)) => {
                    let (first, last) = (self.place(first)?, self.place(last)?);
                    (first <= last).then(|| (first..=last).collect())?
                }
                None => BTreeSet::from([self.place(text)?]),
            },
        })
    }

    /// The places that a text names: the key of each dimension, or of one of them, where the others are free. Each may be `*`, `latest` or a range.
    fn combinations(&self, text: &str) -> Option<BTreeSet<usize>> {
        let Self::Grid(dimensions) = self else { return self.named(text) };
        let parts: Vec<&str> = text.split(KEY_JOINT).collect();
        let chosen: Vec<BTreeSet<usize>> = if parts.len() == dimensions.len() {
            dimensions.iter().zip(parts).map(|((_, known), part)| known.named(part)).collect::<Option<_>>()?
        } else {
            // Of the only dimension that has it; `latest` is of the one that changes last.
            let has: Vec<usize> = match text {
                "latest" => Self::significance(dimensions).into_iter().take(1).collect(),
                _ => (0..dimensions.len()).filter(|at| dimensions[*at].1.named(text).is_some()).collect(),
            };
            let [own] = has.as_slice() else { return None };
            let all = |known: &Self| (0..known.len()).collect();
            let of = |(at, (_, known)): (usize, &(&str, Self))| if at == *own { known.named(text) } else { Some(all(known)) };
            dimensions.iter().enumerate().map(of).collect::<Option<_>>()?
        };
        let mut found = vec![Vec::new()];
        for places in &chosen {
            found =
                found.iter().flat_map(|known| places.iter().map(move |place| [known.as_slice(), &[*place]].concat())).collect();
        }
        Some(found.iter().map(|places: &Vec<usize>| Self::place_of(dimensions, places)).collect())
    }

    /// What there is, for people.
    fn described(&self) -> String {
        match self {
            _ if self.is_empty() => "it has none yet".to_owned(),
            Self::Windows(windows, ..) => format!(
                "it has {} ones from `{}` to `{}`",
                windows.cadence,
                self.key(0).unwrap_or_default(),
                self.key(self.len() - 1).unwrap_or_default()
            ),
            Self::Keys(keys) if keys.len() <= 10 => format!("it has {}", keys.join(", ")),
            Self::Keys(keys) => format!("it has {} of them, among them {}", keys.len(), keys[..5].join(", ")),
            Self::Grid(dimensions) => {
                let each: Vec<String> =
                    dimensions.iter().map(|(name, known)| format!("`{name}`: {}", known.described())).collect();
                let example = self.key(0).unwrap_or_default();
                format!("a key is one of each dimension, such as `{example}`; {}", each.join("; "))
            }
        }
    }
}

/// The places of the partitions that are meant, in order.
pub fn picked(
    asset: &Asset,
    partitioning: &Partitioning,
    picks: &[PartitionPick],
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<BTreeSet<usize>, PartitionError> {
    let known = Known::of(partitioning, snapshot, now);
    let unknown =
        |key: &str| PartitionError::Unknown { asset: asset.key.to_string(), key: key.to_owned(), known: known.described() };
    let place = |key: &str| known.place(key).ok_or_else(|| unknown(key));
    let states = snapshot.partitions.get(&asset.key);
    let state = |at: usize| known.key(at).and_then(|key| states?.get(&key).copied()).unwrap_or_default();
    let is_grid = matches!(known, Known::Grid(_));
    let mut found = BTreeSet::new();
    for pick in picks {
        match pick {
            PartitionPick::Key(key) => found.extend(known.combinations(key).ok_or_else(|| unknown(key))?),
            PartitionPick::Range(first, last) if is_grid => {
                let text = format!("{first}..{last}");
                found.extend(known.combinations(&text).ok_or_else(|| unknown(&text))?);
            }
            PartitionPick::Range(first, last) => {
                let (from, to) = (place(first)?, place(last)?);
                if from > to {
                    let asset = asset.key.to_string();
                    return Err(PartitionError::Backwards { asset, first: first.clone(), last: last.clone() });
                }
                found.extend(from..=to);
            }
            PartitionPick::Latest => found.extend(known.combinations("latest").unwrap_or_default()),
            PartitionPick::Missing => found.extend((0..known.len()).filter(|at| !state(*at).is_materialized())),
            PartitionPick::Failed => found.extend((0..known.len()).filter(|at| state(*at).is_failed())),
            PartitionPick::All => found.extend(0..known.len()),
        }
    }
    Ok(found)
}

/// The keys of partitions of an asset that a partition of a reader reads: as its `reads` says, else windows that share a moment with it, and the same
/// key, dimension by dimension. `None` where it reads all of them.
pub fn read_by(
    reader: Option<(&Partitioning, &str)>,
    upstream: (&AssetKey, &Partitioning),
    snapshot: &Snapshot,
) -> Option<Vec<String>> {
    let ((reader, key), (upstream_key, upstream)) = (reader?, upstream);
    let (from, to) = match reader.reads.get(upstream_key) {
        Some(Mapping::All) => return None,
        Some(Mapping::Keys(keys)) => return Some(keys.clone()),
        Some(Mapping::Offset { from, to }) => (*from, *to),
        Some(Mapping::Usual) | None => (0, 0),
    };
    let (own, other) = (reader.dimensions(), upstream.dimensions());
    let parts: Vec<&str> = if own.len() == 1 { vec![key] } else { key.split(KEY_JOINT).collect() };
    let is_grid = own.len() > 1 && other.len() > 1;
    let is_time = |rule: &PartitionRule| matches!(rule, PartitionRule::Time(_));
    let (mut found, mut is_matched) = (vec![Vec::<String>::new()], false);
    for (name, column, rule) in &other {
        // By their names where both have several; else by what they are.
        let alike = |at: &usize| {
            let (own_name, own_column, own_rule) = own[*at];
            if is_grid {
                own_name == *name
            } else {
                is_time(own_rule) == is_time(rule)
                    && (is_time(rule) || own_rule == *rule || own_column == *column || own.len() == other.len())
            }
        };
        let place = (0..own.len().min(parts.len())).find(alike);
        let keys: Vec<String> = match (place.map(|at| (parts[at], own[at].2)), rule) {
            (Some((part, PartitionRule::Time(mine))), PartitionRule::Time(theirs)) => {
                is_matched = true;
                let at = mine.parse(part)?;
                let ((first, _), (_, last)) = (mine.overlapping(at + from, theirs)?, mine.overlapping(at + to, theirs)?);
                // What is before the first one is not there.
                (first.max(theirs.first())..=last).filter_map(|place| theirs.key(place)).collect()
            }
            (Some((part, mine)), rule) if !is_time(mine) && !is_time(rule) => {
                is_matched = true;
                vec![part.to_owned()]
            }
            (None, PartitionRule::Static(keys)) => keys.clone(),
            (None, PartitionRule::Dynamic(name)) => snapshot.dynamic.get(name).cloned().unwrap_or_default(),
            // Windows without an end to them.
            _ => return None,
        };
        found = found
            .iter()
            .flat_map(|known| keys.iter().map(move |key| [known.as_slice(), std::slice::from_ref(key)].concat()))
            .collect();
    }
    is_matched.then(|| found.into_iter().map(|parts| parts.join(KEY_JOINT)).collect())
}

#[cfg(test)]
mod tests {
    use subak_domain::partition::Cadence;
    use subak_domain::{Dimension, PartitionState, TimeWindows};

    use super::*;

    fn daily(start: &str) -> Partitioning {
        let windows =
            TimeWindows { cadence: Cadence::Daily, start: start.parse().expect("start"), end: None, timezone: "UTC".to_owned() };
        Partitioning::new("day", PartitionRule::Time(windows))
    }

    fn keyed(keys: &[&str]) -> Partitioning {
        Partitioning::new("country", PartitionRule::Static(keys.iter().map(|key| (*key).to_owned()).collect()))
    }

    fn keys(partitioning: &Partitioning, picks: &str, snapshot: &Snapshot) -> Result<String, String> {
        let graph = crate::plan::tests::graph("a");
        let asset = &graph.assets()[0];
        let picks: Vec<PartitionPick> = picks.split(' ').map(PartitionPick::parse).collect();
        let now = "2024-01-06T00:00:00Z".parse().expect("now");
        let places = picked(asset, partitioning, &picks, snapshot, now).map_err(|error| error.to_string())?;
        let known = Known::of(partitioning, snapshot, now);
        Ok(places.into_iter().filter_map(|at| known.key(at)).collect::<Vec<_>>().join(" "))
    }

    /// T-127: ranges follow the definition, not the text.
    #[test]
    fn t_127_picks_are_by_the_order_of_the_definition() {
        let mut snapshot = Snapshot::default();
        let done = PartitionState { position: 1, confirmed_position: 1, failed_position: 0 };
        let failed = PartitionState { failed_position: 9, ..done };
        let states = [("2024-01-01", done), ("2024-01-03", failed)].map(|(key, state)| (key.to_owned(), state));
        snapshot.partitions.insert("a".parse().expect("key"), states.into());
        let days = daily("2024-01-01");
        for (picks, expected) in [
            ("latest", "2024-01-05"),
            ("missing", "2024-01-02 2024-01-04 2024-01-05"),
            ("failed", "2024-01-03"),
            ("2024-01-02..2024-01-04 2024-01-03", "2024-01-02 2024-01-03 2024-01-04"),
            ("all", "2024-01-01 2024-01-02 2024-01-03 2024-01-04 2024-01-05"),
        ] {
            assert_eq!(keys(&days, picks, &snapshot).as_deref(), Ok(expected), "{picks}");
        }
        assert_eq!(keys(&days, "2024-01-06", &snapshot).expect_err("not ended"), "`a` has no partition `2024-01-06`");
        assert!(keys(&days, "2024-01-04..2024-01-02", &snapshot).expect_err("backwards").contains("comes before"));
        assert_eq!(keys(&keyed(&["z", "b", "m"]), "z..b", &snapshot).as_deref(), Ok("z b"));
    }

    fn read(reader: Option<(&Partitioning, &str)>, upstream: &Partitioning) -> Option<Vec<String>> {
        read_by(reader, (&"up".parse().expect("key"), upstream), &Snapshot::default())
    }

    /// T-118, T-120: windows by their moments, sets by their keys, everything else as a whole.
    #[test]
    fn t_118_the_default_mapping() {
        let (days, other) = (daily("2024-01-01"), daily("2020-01-01"));
        assert_eq!(read(Some((&days, "2024-01-02")), &other), Some(vec!["2024-01-02".to_owned()]));
        assert_eq!(read(Some((&days, "2024-01-02")), &keyed(&["id"])), None);
        assert_eq!(read(Some((&keyed(&["id"]), "id")), &keyed(&["sg"])), Some(vec!["id".to_owned()]));
        assert_eq!(read(None, &days), None);
    }

    /// Days and countries.
    fn grid(start: &str, countries: &[&str]) -> Partitioning {
        let dimension = |name: &str, of: Partitioning| Dimension { name: name.into(), column: of.column, rule: of.rule };
        let dimensions = vec![dimension("country", keyed(countries)), dimension("day", daily(start))];
        Partitioning::new("", PartitionRule::Grid(dimensions))
    }

    fn weekly() -> Partitioning {
        let mut weeks = daily("2024-01-01");
        if let PartitionRule::Time(windows) = &mut weeks.rule {
            windows.cadence = Cadence::Weekly;
        }
        weeks
    }

    /// T-115, T-116, T-118, T-119: by dimensions, by offsets that count in windows of the reader, and what is not there is left out.
    #[test]
    fn t_115_t_116_t_118_mappings() {
        let with =
            |of: Partitioning, mapping: Mapping| Partitioning { reads: [("up".parse().expect("key"), mapping)].into(), ..of };
        let countries = ["id", "sg"];
        let cases = [
            (
                "a grid by itself",
                grid("2024-01-01", &countries),
                "id|2024-01-02",
                grid("2024-01-01", &countries),
                "id|2024-01-02",
            ),
            (
                "all countries of a day",
                daily("2024-01-01"),
                "2024-01-02",
                grid("2024-01-01", &countries),
                "id|2024-01-02 sg|2024-01-02",
            ),
            ("the day of a country", grid("2024-01-01", &countries), "sg|2024-01-02", daily("2024-01-01"), "2024-01-02"),
            ("the country of a day", grid("2024-01-01", &countries), "sg|2024-01-02", keyed(&countries), "sg"),
            ("all days of a country", keyed(&countries), "sg", grid("2024-01-01", &countries), "*"),
            (
                "the day before",
                with(daily("2024-01-01"), Mapping::Offset { from: -1, to: -1 }),
                "2024-01-02",
                daily("2024-01-01"),
                "2024-01-01",
            ),
            (
                "none before the first",
                with(daily("2024-01-01"), Mapping::Offset { from: -1, to: -1 }),
                "2024-01-01",
                daily("2024-01-01"),
                "",
            ),
            (
                "three days",
                with(daily("2024-01-01"), Mapping::Offset { from: -2, to: 0 }),
                "2024-01-02",
                daily("2024-01-01"),
                "2024-01-01 2024-01-02",
            ),
            (
                "the days of the week before",
                with(weekly(), Mapping::Offset { from: -1, to: -1 }),
                "2024-01-08",
                daily("2024-01-05"),
                "2024-01-05 2024-01-06 2024-01-07",
            ),
            (
                "the day before in each country",
                with(grid("2024-01-01", &countries), Mapping::Offset { from: -1, to: -1 }),
                "id|2024-01-03",
                grid("2024-01-01", &countries),
                "id|2024-01-02",
            ),
            ("all", with(daily("2024-01-01"), Mapping::All), "2024-01-02", daily("2024-01-01"), "*"),
            ("these", with(daily("2024-01-01"), Mapping::Keys(vec!["x".into()])), "2024-01-02", keyed(&["x", "y"]), "x"),
        ];
        for (what, reader, key, upstream, expected) in cases {
            let found = read(Some((&reader, key)), &upstream).map_or_else(|| "*".to_owned(), |keys| keys.join(" "));
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn the_partition_before_is_of_the_same_keys() {
        let days = grid("2024-01-01", &["id", "sg"]);
        assert_eq!(days.previous("sg|2024-01-02").as_deref(), Some("sg|2024-01-01"));
        assert_eq!(days.previous("sg|2024-01-01"), None);
        assert_eq!(daily("2024-01-01").previous("2024-01-02").as_deref(), Some("2024-01-01"));
        assert_eq!(keyed(&["id", "sg"]).previous("id"), None);
    }

    /// T-119: keys of several dimensions stand in the order of the names; picks name one of them or all.
    #[test]
    fn t_119_grids_have_keys_of_all_dimensions() {
        let (days, snapshot) = (grid("2024-01-03", &["sg", "id"]), Snapshot::default());
        for (picks, expected) in [
            ("all", "sg|2024-01-03 id|2024-01-03 sg|2024-01-04 id|2024-01-04 sg|2024-01-05 id|2024-01-05"),
            ("latest", "sg|2024-01-05 id|2024-01-05"),
            ("id", "id|2024-01-03 id|2024-01-04 id|2024-01-05"),
            ("2024-01-04", "sg|2024-01-04 id|2024-01-04"),
            ("2024-01-04..2024-01-05", "sg|2024-01-04 id|2024-01-04 sg|2024-01-05 id|2024-01-05"),
            ("id|2024-01-04", "id|2024-01-04"),
            ("*|latest", "sg|2024-01-05 id|2024-01-05"),
            ("id|2024-01-03..2024-01-04", "id|2024-01-03 id|2024-01-04"),
        ] {
            assert_eq!(keys(&days, picks, &snapshot).as_deref(), Ok(expected), "{picks}");
        }
        for wrong in ["my", "2024-01-04|id", "id|2024-01-09", "id|2024-01-05..2024-01-03", "id|*|*"] {
            assert!(keys(&days, wrong, &snapshot).is_err(), "{wrong}");
        }
        let now = "2024-01-06T00:00:00Z".parse().expect("now");
        let known = Known::of(&days, &snapshot, now);
        for at in 0..known.len() {
            let partition = known.partition(at).expect("a partition");
            assert_eq!(known.place(&partition.key), Some(at));
            assert_eq!(format!("{}|{}", partition.parts["country"], partition.parts["day"]), partition.key);
            assert_eq!(partition.window.expect("a window").start, partition.parts["day"]);
        }
    }

    /// T-128: a million windows are a range.
    #[test]
    fn t_128_a_million_windows_are_no_list() {
        let mut hours = daily("1900-01-01");
        if let PartitionRule::Time(windows) = &mut hours.rule {
            windows.cadence = Cadence::Hourly;
        }
        let now = "2026-01-01T00:00:00Z".parse().expect("now");
        let snapshot = Snapshot::default();
        let known = Known::of(&hours, &snapshot, now);
        assert!(known.len() > 1_000_000);
        assert_eq!(known.key(known.len() - 1).as_deref(), Some("2025-12-31T23:00+00:00"));
        assert_eq!(known.place("2025-12-31T23:00+00:00"), Some(known.len() - 1));
    }
}
