//! What a backfill does next: a pure step from what it was, what is known, and how its last run ended.

use std::collections::{BTreeMap, BTreeSet};

use subak_domain::backfill::{Backfill, BackfillState, Target};
use subak_domain::event::SkipReason;
use subak_domain::partition::KEY_JOINT;
use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, Dimension, FailureClass, Partition, PartitionRule, PartitionState, Reason, Rule, RunId,
    RunState, Snapshot, StepId, StepStatus, Timestamp, Work,
};

use crate::partition::{Known, PartitionError, PartitionPick, picked, read_by};
use crate::plan::is_view;
use crate::together;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing now: a run goes on, or somebody has paused it.
    Wait,
    /// Note what changed; nothing is to be run.
    Note(Backfill),
    /// Plan this run and note it, both or neither. The backfill names the run.
    Run(Backfill, Vec<Action>),
}

/// The targets of a backfill over the selected assets that have partitions, as ranges.
pub fn targets(
    graph: &AssetGraph,
    snapshot: &Snapshot,
    selected: &BTreeSet<AssetKey>,
    picks: &[PartitionPick],
    now: Timestamp,
) -> Result<Vec<Target>, PartitionError> {
    let mut targets = Vec::new();
    for asset in graph.assets().iter().filter(|asset| selected.contains(&asset.key)) {
        let Some(partitioning) = &asset.partitioning else { continue };
        let known = Known::of(partitioning, snapshot, now);
        let places: Vec<usize> = picked(asset, partitioning, picks, snapshot, now)?.into_iter().collect();
        let mut ranges = Vec::new();
        for run in places.chunk_by(|one, next| one + 1 == *next) {
            let ends = run.first().zip(run.last());
            ranges.extend(ends.and_then(|(first, last)| Some((known.key(*first)?, known.key(*last)?))));
        }
        let is_window = matches!(partitioning.rule, PartitionRule::Time(_));
        let keys = if is_window { Vec::new() } else { places.iter().filter_map(|at| known.key(*at)).collect() };
        if !places.is_empty() {
            targets.push(Target { asset: asset.key.clone(), ranges, keys, count: places.len() as u64, planned: 0 });
        }
    }
    Ok(targets)
}

/// Whether the last partitions of these targets can come first: not where one of them reads another with other windows, whose partitions
/// would come later.
pub fn can_be_reversed(graph: &AssetGraph, targets: &[Target]) -> bool {
    let rules: Vec<_> = targets
        .iter()
        .filter_map(|target| graph.get(&target.asset)?.partitioning.as_ref())
        .map(|partitioning| match &partitioning.rule {
            PartitionRule::Time(windows) => format!("{} {}", windows.cadence, windows.timezone),
            other => format!("{other:?}"),
        })
        .collect();
    let is_chained = |target: &Target| {
        let partitioning = graph.get(&target.asset).and_then(|asset| asset.partitioning.as_ref());
        partitioning.is_some_and(|partitioning| partitioning.needs_previous)
    };
    rules.windows(2).all(|pair| pair[0] == pair[1]) && !targets.iter().any(is_chained)
}

/// The next step of a backfill. `run` is how its run stands, where it has one; `new_run` the id of the next one.
pub fn next(backfill: &Backfill, graph: &AssetGraph, snapshot: &Snapshot, run: Option<&RunState>, new_run: RunId) -> Next {
    if backfill.state.is_final() {
        return Next::Wait;
    }
    let mut after = backfill.clone();
    after.revision += 1;
    if let Some(run) = run {
        if !run.status.is_final() {
            return Next::Wait;
        }
        settle(&mut after, run);
    }
    match after.state {
        BackfillState::Canceling => after.state = BackfillState::Canceled,
        BackfillState::Paused if after.run == backfill.run => return Next::Wait,
        BackfillState::Paused => {}
        _ => {
            let mut chunk = Chunk { graph, snapshot, backfill: &mut after, steps: BTreeMap::new(), actions: Vec::new() };
            // Where all that is next is left out, what comes behind it is looked at.
            while chunk.actions.is_empty() && chunk.is_open() {
                chunk.fill();
            }
            let mut actions = chunk.actions;
            if !actions.is_empty() {
                together::join(&mut actions, graph);
                after.run = Some(new_run);
                return Next::Run(after, actions);
            }
            let is_whole = after.failed == 0 && after.blocked.is_empty();
            after.state = if is_whole { BackfillState::Succeeded } else { BackfillState::Failed };
        }
    }
    Next::Note(after)
}

/// Takes over how a run ended: what it did not come to is taken up again.
fn settle(backfill: &mut Backfill, run: &RunState) {
    backfill.run = None;
    for (step, state) in &run.steps {
        let Some((asset, key)) = step.as_partition() else { continue };
        let is_error = state.failure.as_ref().is_some_and(|failure| failure.class != FailureClass::Canceled);
        let is_blocked = state.skip_reason.as_ref().is_some_and(SkipReason::is_failure);
        match state.status {
            StepStatus::Succeeded => backfill.done += 1,
            StepStatus::Failed if is_error => backfill.failed += 1,
            StepStatus::Skipped if is_blocked => drop(backfill.blocked.insert((asset, key.to_owned()))),
            // Nothing was to be done for it.
            StepStatus::Skipped => backfill.done += 1,
            _ => backfill.again.push((asset, key.to_owned())),
        }
    }
}

/// The partitions of the next run.
struct Chunk<'a> {
    graph: &'a AssetGraph,
    snapshot: &'a Snapshot,
    backfill: &'a mut Backfill,
    /// Steps of this run by asset and key.
    steps: BTreeMap<AssetKey, BTreeMap<String, StepId>>,
    actions: Vec<Action>,
}

impl Chunk<'_> {
    fn is_open(&self) -> bool {
        !self.backfill.again.is_empty() || self.backfill.targets.iter().any(|target| target.planned < target.count)
    }

    fn fill(&mut self) {
        let mut chosen: Vec<(AssetKey, String)> = std::mem::take(&mut self.backfill.again);
        // Gone from the project meanwhile: that is a failure that nobody can mend here (T-138).
        while chosen.len() < self.backfill.per_run {
            let Some(next) = self.take_next() else { break };
            chosen.push(next);
        }
        // In dependency order, so that a step stands behind those that it needs.
        let order: BTreeMap<&AssetKey, usize> =
            self.graph.assets().iter().enumerate().map(|(at, asset)| (&asset.key, at)).collect();
        chosen.sort_by_key(|(asset, _)| order.get(asset).copied().unwrap_or(usize::MAX));
        for (key, partition) in chosen {
            self.add(key, partition);
        }
    }

    /// The next partition of the target whose window ends first, or last where the newest come first.
    fn take_next(&mut self) -> Option<(AssetKey, String)> {
        loop {
            let open = self.backfill.targets.iter().enumerate().filter(|(_, target)| target.planned < target.count);
            let places = open.map(|(at, target)| (self.order_of(target), at));
            let (_, at) = if self.backfill.is_newest_first {
                places.max_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)))?
            } else {
                places.min()?
            };
            let key = self.key_of(&self.backfill.targets[at]);
            let target = &mut self.backfill.targets[at];
            target.planned += 1;
            match key {
                Some(key) => return Some((target.asset.clone(), key)),
                None => self.backfill.failed += 1,
            }
        }
    }

    /// By what the next partition of a target is ordered among those of other targets: behind everything that it reads.
    fn order_of(&self, target: &Target) -> i128 {
        let asset = self.graph.get(&target.asset);
        match asset.and_then(|asset| Some((asset, self.key_of(target)?))) {
            Some((asset, key)) => self.order_of_partition(asset, &key),
            None => i128::MIN,
        }
    }

    /// When the window of a partition ends, or the last one of those that it reads; keys by their numbers. What reads a target as a whole comes
    /// behind all of it.
    fn order_of_partition(&self, asset: &Asset, key: &str) -> i128 {
        let windows =
            asset.partitioning.as_ref().and_then(|partitioning| Some((partitioning.windows()?, partitioning.time_key(key)?)));
        let mut order = match windows {
            Some((windows, key)) => {
                let bounds = windows.parse(key).and_then(|place| windows.bounds(place));
                bounds.map_or(i128::MIN, |(_, end)| end.as_nanosecond())
            }
            None => {
                let target = self.target(&asset.key);
                let at = target.and_then(|target| target.keys.iter().position(|known| known == key));
                at.map_or(i128::MIN, |at| at as i128)
            }
        };
        // Those of its own come before it by their windows.
        for (upstream, keys) in self.read(asset, key).into_iter().filter(|(upstream, _)| *upstream != asset.key) {
            let Some(keys) = keys else {
                return i128::MAX;
            };
            let Some(upstream) = self.graph.get(&upstream) else { continue };
            for key in keys.iter().filter(|key| self.is_target(upstream, key)) {
                order = order.max(self.order_of_partition(upstream, key));
            }
        }
        order
    }

    fn target(&self, asset: &AssetKey) -> Option<&Target> {
        self.backfill.targets.iter().find(|target| target.asset == *asset)
    }

    /// Whether the backfill is about a partition.
    fn is_target(&self, asset: &Asset, key: &str) -> bool {
        let Some(target) = self.target(&asset.key) else { return false };
        match asset.partitioning.as_ref().map(|partitioning| &partitioning.rule) {
            Some(PartitionRule::Time(windows)) => {
                let place = |key: &str| windows.parse(key);
                let within = |(first, last): &(String, String)| {
                    let (place, first, last) = (place(key), place(first), place(last));
                    place.is_some() && first <= place && place <= last
                };
                target.ranges.iter().any(within)
            }
            _ => target.keys.iter().any(|known| known == key),
        }
    }

    /// The key of the next partition of a target; `None` when the project does not have it any more.
    fn key_of(&self, target: &Target) -> Option<String> {
        let partitioning = self.graph.get(&target.asset)?.partitioning.as_ref()?;
        let at = if self.backfill.is_newest_first { target.count - 1 - target.planned } else { target.planned };
        let mut rest = usize::try_from(at).ok()?;
        let PartitionRule::Time(windows) = &partitioning.rule else {
            let known = Known::of(partitioning, self.snapshot, Timestamp::MAX);
            return target.keys.get(rest).filter(|key| known.place(key).is_some()).cloned();
        };
        for (first, last) in &target.ranges {
            let (from, to) = (windows.parse(first)?, windows.parse(last)?);
            let length = usize::try_from(to - from + 1).ok()?;
            if rest < length {
                return windows.key(from + i64::try_from(rest).ok()?);
            }
            rest -= length;
        }
        None
    }

    fn add(&mut self, key: AssetKey, partition_key: String) {
        let found = self
            .graph
            .get(&key)
            .and_then(|asset| Some((asset, partition_of(&asset.partitioning.as_ref()?.rule, &partition_key)?)));
        let Some((asset, partition)) = found else {
            self.backfill.failed += 1;
            return;
        };
        if self.is_blocked(asset, &partition_key) {
            self.backfill.blocked.insert((key, partition_key));
            return;
        }
        self.backfill.blocked.remove(&(key.clone(), partition_key.clone()));
        let mut needs = BTreeSet::new();
        for (upstream, keys) in self.read(asset, &partition_key) {
            let Some(steps) = self.steps.get(&upstream) else { continue };
            match keys {
                Some(keys) => needs.extend(keys.iter().filter_map(|key| steps.get(key)).cloned()),
                None => needs.extend(steps.values().cloned()),
            }
        }
        let step = StepId::partition(&key, &partition_key);
        self.steps.entry(key.clone()).or_default().insert(partition_key, step.clone());
        let work = Work::Materialize { asset: key, full_refresh: false, range: None, partition: Some(partition) };
        let needs = needs.into_iter().collect();
        self.actions.push(Action { step, work, reason: Reason::Selected, needs, rule: Rule::default() });
    }

    /// The partitions of other targets that a partition reads, also through views; `None` where it reads a target as a whole.
    fn read(&self, asset: &Asset, key: &str) -> Vec<(AssetKey, Option<Vec<String>>)> {
        let Some(own) = &asset.partitioning else { return Vec::new() };
        let mut found = Vec::new();
        let mut open: Vec<&AssetKey> = asset.upstream.iter().collect();
        let mut seen: BTreeSet<&AssetKey> = BTreeSet::new();
        while let Some(upstream) = open.pop() {
            let Some(upstream) = self.graph.get(upstream).filter(|upstream| seen.insert(&upstream.key)) else { continue };
            match &upstream.partitioning {
                Some(partitioning) if self.target(&upstream.key).is_some() => {
                    found.push((upstream.key.clone(), read_by(Some((own, key)), (&upstream.key, partitioning), self.snapshot)));
                }
                _ if is_view(upstream) => open.extend(&upstream.upstream),
                _ => {}
            }
        }
        if let Some(before) = own.previous(key).filter(|_| own.needs_previous) {
            found.push((asset.key.clone(), Some(vec![before])));
        }
        found.sort();
        found
    }

    /// Whether a partition that it reads has failed within the backfill, or was not made because of one that did (T-133).
    fn is_blocked(&self, asset: &Asset, key: &str) -> bool {
        self.read(asset, key).iter().any(|(upstream, keys)| {
            let states = self.snapshot.partitions.get(upstream);
            let has_failed = |state: &PartitionState| state.failed_position > self.backfill.created_position;
            match keys {
                Some(keys) => keys.iter().any(|key| {
                    states.and_then(|states| states.get(key)).is_some_and(has_failed)
                        || self.backfill.blocked.contains(&(upstream.clone(), key.clone()))
                }),
                None => {
                    states.is_some_and(|states| states.values().any(has_failed))
                        || self.backfill.blocked.iter().any(|(blocked, _)| blocked == upstream)
                }
            }
        })
    }
}

/// A partition as it stands in a plan; `None` for one that there is not.
fn partition_of(rule: &PartitionRule, key: &str) -> Option<Partition> {
    match rule {
        PartitionRule::Time(windows) => windows.partition(windows.parse(key)?),
        PartitionRule::Static(keys) => keys.iter().any(|known| known == key).then(|| Partition::of_key(key)),
        PartitionRule::Dynamic(_) => Some(Partition::of_key(key)),
        PartitionRule::Grid(dimensions) => {
            let keys: Vec<&str> = key.split(KEY_JOINT).collect();
            if keys.len() != dimensions.len() {
                return None;
            }
            let part = |(dimension, key): (&'_ Dimension, &str)| partition_of(&dimension.rule, key);
            let parts: Vec<Partition> = dimensions.iter().zip(keys).map(part).collect::<Option<_>>()?;
            Some(Partition::of_parts(dimensions.iter().map(|dimension| dimension.name.as_str()).zip(parts)))
        }
    }
}

#[cfg(test)]
mod tests {
    use subak_domain::event::SkipReason;
    use subak_domain::{Event, Failure, RunEvent, RunStatus, StepOutcome, Version};

    use super::*;
    use crate::plan::tests::{cut, graph};

    fn id(number: u64) -> RunId {
        RunId::from_parts(number, 0)
    }

    fn of(graph: &AssetGraph, names: &[&str], picks: &str, per_run: usize, is_newest_first: bool) -> Backfill {
        let selected = names.iter().map(|name| name.parse().expect("key")).collect();
        let picks: Vec<PartitionPick> = picks.split(' ').map(PartitionPick::parse).collect();
        let now = "2024-02-05T00:00:00Z".parse().expect("now");
        let targets = targets(graph, &Snapshot::default(), &selected, &picks, now).expect("targets");
        Backfill {
            id: id(0),
            revision: 1,
            selection: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            created_position: 0,
            as_of: String::new(),
            targets,
            is_newest_first,
            per_run,
            state: BackfillState::Running,
            run: None,
            again: Vec::new(),
            blocked: BTreeSet::new(),
            done: 0,
            failed: 0,
        }
    }

    /// What a step comes to.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum End {
        Done,
        Failed,
        Lost,
        /// It failed once, was tried again, and then the process died.
        LostInRetry,
    }

    fn failure() -> Failure {
        Failure {
            code: String::new(),
            message: String::new(),
            causes: Vec::new(),
            data: String::new(),
            help: Vec::new(),
            class: FailureClass::Input,
            checks: Vec::new(),
            elapsed_ms: 0,
            published: None,
            usage: None,
        }
    }

    /// Runs a plan as the engine would: steps behind one that did not succeed are not made. Returns what was done, in order.
    fn execute(
        run: RunId,
        actions: Vec<Action>,
        snapshot: &mut Snapshot,
        position: &mut u64,
        end: &mut dyn FnMut(&str) -> End,
    ) -> (RunState, Vec<String>) {
        let mut state = RunState::planned(actions.clone());
        let mut done = Vec::new();
        let mut apply = |state: &mut RunState, event: RunEvent| {
            *position += 1;
            state.apply(Timestamp::UNIX_EPOCH, &event).expect("a legal event");
            snapshot.apply(&Event { position: *position, run, sequence: 0, at: Timestamp::UNIX_EPOCH, event });
        };
        apply(&mut state, RunEvent::Started { holder: String::new() });
        for action in &actions {
            let step = action.step.clone();
            let bad = action.needs.iter().find(|need| state.steps[*need].status != StepStatus::Succeeded).cloned();
            if let Some(upstream) = bad {
                apply(&mut state, RunEvent::StepSkipped { step, reason: SkipReason::UpstreamFailed { upstream } });
                continue;
            }
            let ended = end(step.as_str());
            if ended == End::Lost {
                break;
            }
            apply(&mut state, RunEvent::StepStarted { step: step.clone(), attempt: 1 });
            if ended == End::LostInRetry {
                let retry_at = Some(Timestamp::UNIX_EPOCH);
                apply(&mut state, RunEvent::StepErrored { step: step.clone(), failure: failure(), retry_at });
                apply(&mut state, RunEvent::StepStarted { step, attempt: 2 });
                break;
            }
            if ended == End::Done {
                let Work::Materialize { partition: Some(partition), .. } = &action.work else { panic!("a partition") };
                let outcome = StepOutcome {
                    changed: true,
                    version: Some(Version::of(&[("v", "1")])),
                    partition: Some(partition.key.clone()),
                    ..StepOutcome::default()
                };
                done.push(step.to_string());
                apply(&mut state, RunEvent::StepSucceeded { step, outcome });
            } else {
                apply(&mut state, RunEvent::StepErrored { step, failure: failure(), retry_at: None });
            }
        }
        if !state.is_settled() {
            apply(&mut state, RunEvent::Lost { holder: String::new() });
        }
        let status = if state.verdict() == RunStatus::Succeeded { RunStatus::Succeeded } else { RunStatus::Failed };
        apply(&mut state, RunEvent::Finished { status });
        (state, done)
    }

    /// Drives a backfill to its end. Returns it, what was done in order, and how many runs that took.
    fn drive(graph: &AssetGraph, mut backfill: Backfill, end: &mut dyn FnMut(&str) -> End) -> (Backfill, Vec<String>, usize) {
        let (mut snapshot, mut position) = (Snapshot::default(), 0);
        let (mut run, mut done, mut count): (Option<RunState>, _, _) = (None, Vec::new(), 0);
        for number in 1..10_000 {
            match next(&backfill, graph, &snapshot, run.as_ref(), id(number)) {
                Next::Wait => return (backfill, done, count),
                Next::Note(after) => {
                    backfill = after;
                    run = None;
                }
                Next::Run(after, actions) => {
                    backfill = after;
                    count += 1;
                    let (state, made) = execute(id(number), actions, &mut snapshot, &mut position, end);
                    done.extend(made);
                    run = Some(state);
                }
            }
        }
        panic!("it does not end");
    }

    /// T-130, T-133, T-137, FM-58: whatever fails and whatever dies, each partition is done once, behind those that it reads, or failed, or left out
    /// because of one that did.
    #[test]
    fn t_133_each_partition_comes_to_one_end() {
        // Weeks that read days, days that read weeks, and days that read days through a view.
        let graphs = [
            (cut(&graph("a\nb <- a\nweek <- b"), &["a", "b", "week"]), vec!["a", "b", "week"]),
            (cut(&graph("week\nb <- week\nc <- b"), &["week", "b", "c"]), vec!["week", "b", "c"]),
            (cut(&graph("a\nview v <- a\nb <- v\nweek <- b v"), &["a", "b", "week"]), vec!["a", "b", "week"]),
        ];
        for (seed, (graph, names)) in (0..300_u64).flat_map(|seed| graphs.iter().map(move |graph| (seed, graph))) {
            each_comes_to_one_end(seed, graph, names);
        }
    }

    fn each_comes_to_one_end(seed: u64, graph: &AssetGraph, names: &[&str]) {
        let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = move || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % 20
        };
        let mut ends: BTreeMap<String, End> = BTreeMap::new();
        let backfill = of(graph, names, "all", 1 + (seed as usize % 9), false);
        let count = backfill.count();
        let (after, done, _) = drive(graph, backfill, &mut |step| {
            let end = match roll() {
                0 => End::Failed,
                1 => End::Lost,
                2 => End::LostInRetry,
                _ => End::Done,
            };
            ends.insert(step.to_owned(), end);
            end
        });
        assert!(after.state.is_final(), "seed {seed}");
        assert_eq!(after.done + after.failed + after.blocked.len() as u64, count, "seed {seed}: {after:?}");
        let unique: BTreeSet<&String> = done.iter().collect();
        assert_eq!(unique.len(), done.len(), "seed {seed}: nothing is done twice");
        assert_eq!(after.state == BackfillState::Succeeded, after.done == count, "seed {seed}");
        // What was done stood behind everything that it reads.
        let place: BTreeMap<&str, usize> = done.iter().enumerate().map(|(at, step)| (step.as_str(), at)).collect();
        for (step, at) in &place {
            let (asset, key) = step.trim_end_matches(']').split_once('[').expect("a partition");
            let asset = graph.get(&asset.parse().expect("key")).expect("asset");
            let own = asset.partitioning.as_ref().expect("partitions");
            for upstream in &asset.upstream {
                let upstream = graph.get(upstream).expect("asset");
                let upstream = if is_view(upstream) { graph.get(&upstream.upstream[0]).expect("asset") } else { upstream };
                let other = upstream.partitioning.as_ref().expect("partitions");
                let known = after.targets.iter().find(|target| target.asset == upstream.key).expect("a target");
                for key in read_by(Some((own, key)), (&upstream.key, other), &Snapshot::default()).expect("keys") {
                    // Windows that have not ended are no partitions yet.
                    let is_known = key.as_str() >= known.ranges[0].0.as_str() && key.as_str() <= known.ranges[0].1.as_str();
                    let before = place.get(format!("{}[{key}]", upstream.key).as_str());
                    assert!(
                        !is_known || before.is_some_and(|before| before < at),
                        "seed {seed}: {step} before {}[{key}]",
                        upstream.key
                    );
                }
            }
        }
        for (asset, key) in &after.blocked {
            assert_ne!(ends.get(&format!("{asset}[{key}]")), Some(&End::Done), "seed {seed}: {asset}[{key}]");
        }
    }

    /// T-128, T-134: runs take so many partitions, oldest or newest first, of ranges and not of lists.
    #[test]
    fn runs_take_partitions_in_order() {
        let graph = cut(&graph("a\nb <- a"), &["a", "b"]);
        let (after, done, count) =
            drive(&graph, of(&graph, &["a"], "2024-01-01..2024-01-03 2024-01-05", 2, false), &mut |_| End::Done);
        assert_eq!((after.state, count), (BackfillState::Succeeded, 2));
        assert_eq!(done, ["a[2024-01-01]", "a[2024-01-02]", "a[2024-01-03]", "a[2024-01-05]"]);
        assert_eq!(after.targets[0].ranges.len(), 2);
        let newest = of(&graph, &["a", "b"], "2024-01-01..2024-01-02", 2, true);
        let (_, done, _) = drive(&graph, newest, &mut |_| End::Done);
        assert_eq!(done, ["a[2024-01-02]", "b[2024-01-02]", "a[2024-01-01]", "b[2024-01-01]"]);
        assert!(can_be_reversed(&graph, &of(&graph, &["a", "b"], "all", 1, true).targets));
        let mixed = cut(&self::graph("a\nweek <- a"), &["a", "week"]);
        assert!(!can_be_reversed(&mixed, &of(&mixed, &["a", "week"], "all", 1, true).targets));
    }

    /// T-136, T-138, T-140, FM-58: paused and canceled ones start nothing; what is gone from the project fails and holds up nothing.
    #[test]
    fn t_138_what_is_gone_fails_and_holds_up_nothing() {
        let graph = cut(&graph("a\nb"), &["a", "b"]);
        let backfill = of(&graph, &["a", "b"], "2024-01-01..2024-01-02", 10, false);
        for state in [BackfillState::Paused, BackfillState::Canceling] {
            let stopped = Backfill { state, ..backfill.clone() };
            let (after, done, _) = drive(&graph, stopped, &mut |_| End::Done);
            assert!(done.is_empty() && after.run.is_none(), "{state}");
            assert_eq!(after.state == BackfillState::Canceled, state == BackfillState::Canceling);
        }
        let smaller = cut(&self::graph("a"), &["a"]);
        let (after, done, _) = drive(&smaller, backfill, &mut |_| End::Done);
        assert_eq!((after.state, after.done, after.failed), (BackfillState::Failed, 2, 2));
        assert_eq!(done, ["a[2024-01-01]", "a[2024-01-02]"]);
    }

    /// T-129: keys are fixed when a backfill is made, whatever their list becomes; what is read comes first, however the keys are numbered.
    #[test]
    fn keys_are_those_that_were_asked_for() {
        let keyed = |keys: &[&str]| {
            let graph = graph("a\nb <- a");
            let assets = graph.assets().iter().cloned().map(|mut asset| {
                let rule = PartitionRule::Static(keys.iter().map(|key| (*key).to_owned()).collect());
                asset.partitioning = Some(subak_domain::Partitioning::new("k", rule));
                asset
            });
            AssetGraph::new(assets.collect(), Vec::new()).expect("graph")
        };
        let two = keyed(&["id", "sg"]);
        let backfill = of(&two, &["a"], "id..sg", 1, false);
        let (after, done, _) = drive(&keyed(&["id", "my", "sg"]), backfill.clone(), &mut |_| End::Done);
        assert_eq!((after.state, done), (BackfillState::Succeeded, vec!["a[id]".to_owned(), "a[sg]".to_owned()]));
        let (after, done, _) = drive(&keyed(&["sg"]), backfill, &mut |_| End::Done);
        assert_eq!((after.failed, done), (1, vec!["a[sg]".to_owned()]), "only the one that is gone fails");
        let three = keyed(&["x", "y", "z"]);
        let mut mixed = of(&three, &["a", "b"], "all", 1, false);
        mixed.targets[1].keys = vec!["z".to_owned()];
        mixed.targets[1].count = 1;
        let (_, done, _) = drive(&three, mixed, &mut |_| End::Done);
        assert_eq!(done.iter().position(|step| step == "b[z]"), Some(3), "behind a[z]: {done:?}");
    }
}
