//! Which partitions there are, which are meant, and which of another asset each one reads.

use std::collections::BTreeSet;

use subak_domain::partition::Place;
use subak_domain::{Asset, Partition, PartitionRule, Partitioning, Snapshot, Timestamp};

/// Partitions of one asset that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionPick {
    /// This one.
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
}

impl<'a> Known<'a> {
    /// The partitions at a moment.
    pub fn of(partitioning: &'a Partitioning, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        match &partitioning.rule {
            PartitionRule::Time(windows) => {
                let first = windows.first();
                Self::Windows(windows, first, windows.last(now).unwrap_or(first - 1))
            }
            PartitionRule::Static(keys) => Self::Keys(keys),
            PartitionRule::Dynamic(name) => Self::Keys(snapshot.dynamic.get(name).map(Vec::as_slice).unwrap_or_default()),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Windows(_, first, last) => usize::try_from(last - first + 1).unwrap_or(0),
            Self::Keys(keys) => keys.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of the one at a place in their order, from 0.
    pub fn key(&self, at: usize) -> Option<String> {
        match self {
            Self::Windows(windows, first, last) => {
                let place = first + Place::try_from(at).ok()?;
                (place <= *last).then(|| windows.key(place)).flatten()
            }
            Self::Keys(keys) => keys.get(at).cloned(),
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
        }
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
    let place = |key: &str| {
        known.place(key).ok_or_else(|| PartitionError::Unknown {
            asset: asset.key.to_string(),
            key: key.to_owned(),
            known: known.described(),
        })
    };
    let states = snapshot.partitions.get(&asset.key);
    let state = |at: usize| known.key(at).and_then(|key| states?.get(&key).copied()).unwrap_or_default();
    let mut found = BTreeSet::new();
    for pick in picks {
        match pick {
            PartitionPick::Key(key) => drop(found.insert(place(key)?)),
            PartitionPick::Range(first, last) => {
                let (from, to) = (place(first)?, place(last)?);
                if from > to {
                    let asset = asset.key.to_string();
                    return Err(PartitionError::Backwards { asset, first: first.clone(), last: last.clone() });
                }
                found.extend(from..=to);
            }
            PartitionPick::Latest => found.extend(known.len().checked_sub(1)),
            PartitionPick::Missing => found.extend((0..known.len()).filter(|at| !state(*at).is_materialized())),
            PartitionPick::Failed => found.extend((0..known.len()).filter(|at| state(*at).is_failed())),
            PartitionPick::All => found.extend(0..known.len()),
        }
    }
    Ok(found)
}

/// The keys of partitions of an asset that a partition of a reader reads: windows that share a moment with it, else the same key. `None` where
/// it reads all of them.
pub fn read_by(reader: Option<(&Partitioning, &str)>, upstream: &Partitioning) -> Option<Vec<String>> {
    let (reader, key) = reader?;
    match (&reader.rule, &upstream.rule) {
        (PartitionRule::Time(own), PartitionRule::Time(other)) => {
            let (first, last) = own.overlapping(own.parse(key)?, other)?;
            Some((first..=last).filter_map(|place| other.key(place)).collect())
        }
        (PartitionRule::Time(_), _) | (_, PartitionRule::Time(_)) => None,
        _ => Some(vec![key.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use subak_domain::partition::Cadence;
    use subak_domain::{PartitionState, TimeWindows};

    use super::*;

    fn daily(start: &str) -> Partitioning {
        let windows =
            TimeWindows { cadence: Cadence::Daily, start: start.parse().expect("start"), end: None, timezone: "UTC".to_owned() };
        Partitioning { column: "day".into(), rule: PartitionRule::Time(windows) }
    }

    fn keyed(keys: &[&str]) -> Partitioning {
        Partitioning { column: "country".into(), rule: PartitionRule::Static(keys.iter().map(|key| (*key).to_owned()).collect()) }
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

    /// T-118, T-120: windows by their moments, sets by their keys, everything else as a whole.
    #[test]
    fn t_118_the_default_mapping() {
        let (days, other) = (daily("2024-01-01"), daily("2020-01-01"));
        assert_eq!(read_by(Some((&days, "2024-01-02")), &other), Some(vec!["2024-01-02".to_owned()]));
        assert_eq!(read_by(Some((&days, "2024-01-02")), &keyed(&["id"])), None);
        assert_eq!(read_by(Some((&keyed(&["id"]), "id")), &keyed(&["sg"])), Some(vec!["id".to_owned()]));
        assert_eq!(read_by(None, &days), None);
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
