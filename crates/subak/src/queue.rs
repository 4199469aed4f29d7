//! Which runs may go on beside each other. A server goes by it, and `subak why` tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use subak_domain::{Action, AssetKey, Job, RunId, RunState, Work};
use subak_plan::expression::Values;

/// What a run is to the rules.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) run: RunId,
    pub(crate) job: Option<String>,
    /// The assets that it brings up to date.
    pub(crate) assets: BTreeSet<AssetKey>,
    /// Its labels.
    pub(crate) tags: BTreeSet<String>,
}

/// The rules of a project.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) jobs: &'a BTreeMap<String, Job>,
    /// How many runs with a tag go on at a time.
    pub(crate) limits: &'a BTreeMap<String, NonZeroU32>,
}

/// Why a run cannot begin yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// Another run brings an asset up to date that it does too.
    Asset { asset: AssetKey, holder: RunId },
    /// As many runs of its job go on as may.
    Job { job: String, runs_max: u32, holder: RunId },
    /// As many runs with one of its tags go on as may.
    Tag { tag: String, runs_max: u32, holder: RunId },
}

impl fmt::Display for Blocked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asset { asset, holder } => write!(formatter, "run {holder} brings `{asset}` up to date, as it does too"),
            Self::Job { job, runs_max, holder } => {
                write!(formatter, "job `{job}` has `runs_max: {runs_max}`, and run {holder} goes on")
            }
            Self::Tag { tag, runs_max, holder } => {
                write!(formatter, "`run_limits` lets {runs_max} with the tag `{tag}` go on at a time, and run {holder} does")
            }
        }
    }
}

impl Rules<'_> {
    /// The run as the rules see it.
    pub(crate) fn entry(&self, run: RunId, state: &RunState) -> Entry {
        let declared = state.job.as_ref().and_then(|job| self.jobs.get(job));
        let params = Values::of_params(&state.params);
        let tags = declared.map(|job| job.tags.as_slice()).unwrap_or_default().iter();
        // What a template cannot render, it is itself: all such runs are bounded together.
        let tags = tags.map(|tag| params.render(tag).unwrap_or_else(|_| tag.clone())).collect();
        Entry { run, job: state.job.clone(), assets: assets_of(&state.actions), tags }
    }

    /// The place of a run among those that wait: the highest priority first, then the oldest.
    pub(crate) fn rank(&self, entry: &Entry) -> (std::cmp::Reverse<i64>, RunId) {
        let priority = entry.job.as_ref().and_then(|job| self.jobs.get(job)).map_or(0, |job| job.priority);
        (std::cmp::Reverse(priority), entry.run)
    }

    /// Why a run cannot begin beside those that go on; `None` where it can.
    pub(crate) fn blocked<'e>(&self, entry: &Entry, running: impl Iterator<Item = &'e Entry> + Clone) -> Option<Blocked> {
        let shared = running.clone().find_map(|other| Some((other.assets.intersection(&entry.assets).next()?, other.run)));
        if let Some((asset, holder)) = shared {
            return Some(Blocked::Asset { asset: asset.clone(), holder });
        }
        if let Some(job) = entry.job.as_ref().and_then(|job| self.jobs.get(job)) {
            let mut same = running.clone().filter(|other| other.job == entry.job);
            if let Some(holder) = same.nth(job.runs_max.get() as usize - 1) {
                return Some(Blocked::Job { job: job.name.clone(), runs_max: job.runs_max.get(), holder: holder.run });
            }
        }
        // All of its limits have to have room (T-150).
        entry.tags.iter().find_map(|tag| {
            let runs_max = self.limit(tag)?.get();
            let holder = running.clone().filter(|other| other.tags.contains(tag)).nth(runs_max as usize - 1)?;
            Some(Blocked::Tag { tag: tag.clone(), runs_max, holder: holder.run })
        })
    }

    /// The least limit that holds for a tag.
    fn limit(&self, tag: &str) -> Option<NonZeroU32> {
        let holds = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => tag.starts_with(prefix),
            None => tag == pattern,
        };
        self.limits.iter().filter(|(pattern, _)| holds(pattern)).map(|(_, limit)| *limit).min()
    }
}

/// The assets that actions bring up to date.
fn assets_of(actions: &[Action]) -> BTreeSet<AssetKey> {
    let asset = |action: &Action| match &action.work {
        Work::Materialize { asset, .. } | Work::Replay { asset, .. } | Work::Observe { asset, .. } => Some(asset.clone()),
        _ => None,
    };
    actions.iter().filter_map(asset).collect()
}

#[cfg(test)]
mod tests {
    use subak_domain::job::WhenFull;
    use subak_domain::{JobWork, Notifications};

    use super::*;

    fn entry(run: u64, job: &str, assets: &[&str], tags: &[&str]) -> Entry {
        Entry {
            run: RunId::from_parts(run, 0),
            job: (!job.is_empty()).then(|| job.to_owned()),
            assets: assets.iter().map(|key| key.parse().expect("a key")).collect(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }
    }

    /// T-147, T-149, T-150: each rule by itself, and a run that is held up by one holds up nobody whom that does not concern.
    #[test]
    fn t_147_t_149_t_150_runs_go_on_beside_each_other() {
        let job = |name: &str, runs_max: u32, priority: i64| {
            let job = Job {
                name: name.to_owned(),
                description: None,
                path: String::new(),
                work: JobWork::Tasks(Vec::new()),
                params: BTreeMap::new(),
                schedule: None,
                notifications: Notifications::default(),
                priority,
                runs_max: NonZeroU32::new(runs_max).expect("above zero"),
                when_full: WhenFull::Wait,
                tags: Vec::new(),
            };
            (name.to_owned(), job)
        };
        let jobs = BTreeMap::from([job("one", 1, 0), job("two", 2, 5)]);
        let limit = |count| NonZeroU32::new(count).expect("above zero");
        let limits = BTreeMap::from([
            ("nightly".to_owned(), limit(2)),
            ("customer=*".to_owned(), limit(1)),
            ("customer=big".to_owned(), limit(3)),
        ]);
        let rules = Rules { jobs: &jobs, limits: &limits };
        let cases: [(&str, Entry, &[Entry], &str); 11] = [
            ("nothing goes on", entry(9, "one", &["a"], &["nightly"]), &[], ""),
            ("another asset", entry(9, "", &["a"], &[]), &[entry(1, "", &["b"], &[])], ""),
            ("the same asset", entry(9, "", &["a", "b"], &[]), &[entry(1, "", &["b"], &[])], "brings `b` up to date"),
            ("runs of no job", entry(9, "", &[], &[]), &[entry(1, "", &[], &[]), entry(2, "", &[], &[])], ""),
            ("one of its job", entry(9, "one", &[], &[]), &[entry(1, "one", &[], &[])], "`runs_max: 1`"),
            ("one of two", entry(9, "two", &[], &[]), &[entry(1, "two", &[], &[])], ""),
            (
                "two of two",
                entry(9, "two", &[], &[]),
                &[entry(1, "two", &[], &[]), entry(2, "one", &[], &[]), entry(3, "two", &[], &[])],
                "`runs_max: 2`",
            ),
            ("one with the tag", entry(9, "", &[], &["nightly"]), &[entry(1, "", &[], &["nightly", "x"])], ""),
            ("each value alone", entry(9, "", &[], &["customer=a"]), &[entry(1, "", &[], &["customer=b"])], ""),
            (
                "the same value, and room by the other tag",
                entry(9, "", &[], &["customer=a", "nightly"]),
                &[entry(1, "", &[], &["customer=a"])],
                "the tag `customer=a`",
            ),
            (
                "the least of two limits",
                entry(9, "", &[], &["customer=big"]),
                &[entry(1, "", &[], &["customer=big"])],
                "lets 1 with",
            ),
        ];
        for (what, waits, running, expected) in cases {
            let told = rules.blocked(&waits, running.iter()).map(|blocked| blocked.to_string()).unwrap_or_default();
            assert_eq!(told.is_empty(), expected.is_empty(), "{what}: {told}");
            assert!(told.contains(expected), "{what}: {told}");
        }
        let mut waiting = [entry(1, "one", &[], &[]), entry(3, "two", &[], &[]), entry(2, "two", &[], &[])];
        waiting.sort_by_key(|entry| rules.rank(entry));
        assert_eq!(waiting.map(|entry| entry.run.unix_ms()), [2, 3, 1], "priority, then age");
    }
}
