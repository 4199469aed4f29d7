//! What is to be brought up to date by itself, and why: conditions, evaluated over what is known.
//!
//! An evaluation is pure. What it has to remember from one to the next (which conditions were true, what it asked for) is its memory, one for each
//! asset, which is committed with the runs that it asks for. Only assets near to what has changed are evaluated.

mod condition;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use subak_domain::automation::{Automation, Condition, Operand};
use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, Backfill, Definition, Partition, PartitionRule, Reason, Rule, RunId, Snapshot, StepId,
    Timestamp, Work,
};

pub use self::condition::{ConditionError, WORDS, eager, fresh_within, on_cron, on_missing, parse};
use crate::freshness::freshness;
use crate::partition::{Known, read_by};
use crate::plan::{PARTITION_COUNT_MAX, check_actions, is_view};
use crate::schedule::Times;
use crate::selection::{SelectionError, select};
use crate::tasks::with_tasks;
use crate::together;

/// The most partitions of an asset that conditions look at: the newest.
pub const KEY_COUNT_MAX: usize = 10_000;

/// A partition of an asset by its key; the empty one is the whole of an asset without partitions.
pub type Unit = (AssetKey, String);

/// Partitions of which something is true, and since when.
type Truth = BTreeMap<String, Timestamp>;

/// What is known when conditions are evaluated. What is said to have happened since the last time happened since the last evaluation of anything.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The assets.
    pub graph: &'a AssetGraph,
    /// What was brought up to date.
    pub snapshot: &'a Snapshot,
    /// The time.
    pub now: Timestamp,
    /// What was brought up to date since the last time, or found so.
    pub updated: &'a BTreeMap<Unit, Vec<Update>>,
    /// What the runs among these were to bring up to date.
    pub targets: &'a BTreeMap<RunId, BTreeSet<AssetKey>>,
    /// The tags of these runs.
    pub tags: &'a BTreeMap<RunId, BTreeSet<String>>,
    /// What runs that have not ended are to bring up to date.
    pub in_progress: &'a BTreeSet<Unit>,
    /// Backfills that have not ended.
    pub backfills: &'a [Backfill],
    /// Assets without partitions whose last attempt failed.
    pub failed: &'a BTreeSet<AssetKey>,
    /// What the checks of an asset came to when they were evaluated last.
    pub checks: &'a BTreeMap<AssetKey, CheckStates>,
}

/// What the checks of an asset came to when they were evaluated last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckStates {
    /// Whether the asset passed; checks that only warn do not count.
    pub passed: bool,
    /// Whether each passed, by name.
    pub each: BTreeMap<String, bool>,
}

/// A partition was brought up to date, or found so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// When.
    pub at: Timestamp,
    /// When the attempt began.
    pub began_at: Timestamp,
    /// By which run.
    pub run: RunId,
    /// Whether its data changed.
    pub is_change: bool,
}

/// What is remembered of an asset from one evaluation to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// When it was evaluated last; `None` before the first time.
    at: Option<Timestamp>,
    /// What the last evaluation asked for.
    requested: BTreeSet<String>,
    /// When anything was asked for last.
    requested_at: Option<Timestamp>,
    /// Versions of definitions by asset.
    versions: BTreeMap<String, String>,
    /// What conditions with a memory found, by their text.
    conditions: BTreeMap<String, Truth>,
}

impl Memory {
    /// From its stored form; whatever cannot be read counts as forgotten.
    pub fn of(stored: &Value) -> Self {
        let texts = |value: &Value| value.as_str().map(str::to_owned);
        let moment = |value: &Value| value.as_i64().and_then(|micros| Timestamp::from_microsecond(micros).ok());
        let map = |name: &str| stored.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        let truth = |value: &Value| -> Truth {
            let entries = value.as_object().cloned().unwrap_or_default();
            entries.into_iter().filter_map(|(key, at)| Some((key, moment(&at)?))).collect()
        };
        Self {
            at: stored.get("at").and_then(moment),
            requested_at: stored.get("requested_at").and_then(moment),
            requested: stored.get("requested").and_then(Value::as_array).into_iter().flatten().filter_map(texts).collect(),
            versions: map("versions").into_iter().filter_map(|(asset, version)| Some((asset, texts(&version)?))).collect(),
            conditions: map("conditions").into_iter().map(|(text, value)| (text, truth(&value))).collect(),
        }
    }

    /// Its stored form.
    pub fn stored(&self) -> Value {
        let truth = |truth: &Truth| -> Value {
            truth.iter().map(|(key, at)| (key.clone(), Value::from(at.as_microsecond()))).collect::<Map<_, _>>().into()
        };
        let conditions: Map<String, Value> = self.conditions.iter().map(|(text, found)| (text.clone(), truth(found))).collect();
        json!({
            "at": self.at.map(Timestamp::as_microsecond), "requested": self.requested, "versions": self.versions,
            "requested_at": self.requested_at.map(Timestamp::as_microsecond), "conditions": conditions,
        })
    }

    /// Whether it was ever evaluated.
    pub fn is_new(&self) -> bool {
        self.at.is_none()
    }
}

/// What came of the evaluation of an asset.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The asset.
    pub asset: AssetKey,
    /// What is asked for, in the order of the partitions.
    pub requested: Vec<String>,
    /// The conditions that all have to be true, and what they are.
    pub parts: Vec<Part>,
    /// What is to be remembered.
    pub memory: Memory,
    /// When it has to be evaluated again although nothing happens.
    pub due_at: Option<Timestamp>,
}

/// One of the conditions that all have to be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its text.
    pub condition: String,
    /// Whether it is true of the asset, or one of its partitions.
    pub is_true: bool,
    /// The assets upstream that make it true.
    pub because_of: Vec<String>,
}

impl Decision {
    /// Why it is asked for, or what is not true yet, in a few words.
    pub fn why(&self) -> String {
        let told = |part: &Part| {
            let because = if part.because_of.is_empty() { String::new() } else { format!(" ({})", part.because_of.join(", ")) };
            format!("{}{because}", part.condition)
        };
        if self.requested.is_empty() {
            let open: Vec<String> = self.parts.iter().filter(|part| !part.is_true).map(told).collect();
            return format!(
                "not yet: {}",
                if open.is_empty() { "no partition has all of it".to_owned() } else { open.join("; ") }
            );
        }
        // What is only there to hold it back says little about why.
        let found: Vec<String> = self.parts.iter().filter(|part| !part.condition.starts_with("not ")).map(told).collect();
        found.into_iter().filter(|part| part != "in_latest_time_window").collect::<Vec<_>>().join("; ")
    }
}

/// Assets that are brought up to date by themselves, and what each looks at.
#[derive(Debug, Clone, Default)]
pub struct Automated {
    /// The automated assets that look at an asset.
    readers: BTreeMap<AssetKey, BTreeSet<AssetKey>>,
    /// Conditions by asset, with those of the assets downstream in place of [`Condition::AnyDownstream`].
    conditions: BTreeMap<AssetKey, Condition>,
    /// What the selections in conditions name.
    selections: BTreeMap<String, BTreeSet<AssetKey>>,
    /// Assets of which conditions ask what the last run was.
    of_runs: BTreeSet<AssetKey>,
}

/// The condition of an asset, with those of the assets downstream in it.
fn resolved(graph: &AssetGraph, asset: &AssetKey, condition: &Condition) -> Condition {
    let mut downstream: Option<Vec<Condition>> = None;
    condition.clone().map(&mut |condition| {
        if condition != Condition::AnyDownstream {
            return condition;
        }
        let found = downstream.get_or_insert_with(|| {
            let below = graph.descendants(asset, None);
            let conditions = below.iter().filter_map(|key| graph.get(key)?.automation.as_ref());
            let mut distinct: Vec<Condition> = Vec::new();
            for Automation { condition, .. } in conditions {
                // That of an asset further down is found there.
                let nothing = |found| if found == Condition::AnyDownstream { Condition::Or(Vec::new()) } else { found };
                let condition = condition.clone().map(&mut { nothing });
                if !distinct.contains(&condition) {
                    distinct.push(condition);
                }
            }
            distinct
        });
        Condition::Named("any_downstream_conditions", Box::new(Condition::Or(found.clone())))
    })
}

/// Adds the assets that a condition looks at when it is asked of these.
fn looked_at<'a>(
    graph: &'a AssetGraph,
    condition: &'a Condition,
    of: &BTreeSet<&'a AssetKey>,
    seen: &mut BTreeSet<&'a AssetKey>,
) {
    match condition {
        Condition::Is(_) | Condition::AnyDownstream => seen.extend(of),
        Condition::AnyDeps(inner) | Condition::AllDeps(inner) => {
            let above = of.iter().filter_map(|key| graph.get(key)).flat_map(|asset| deps(graph, asset));
            looked_at(graph, inner, &above.map(|asset| &asset.key).collect(), seen);
        }
        Condition::OfAsset(asset, inner) => {
            looked_at(graph, inner, &graph.get(asset).map(|asset| &asset.key).into_iter().collect(), seen);
        }
        Condition::Checks { inner, .. }
        | Condition::Where { inner, .. }
        | Condition::Labeled(_, inner)
        | Condition::Named(_, inner)
        | Condition::Not(inner)
        | Condition::NewlyTrue(inner) => looked_at(graph, inner, of, seen),
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| looked_at(graph, part, of, seen)),
        Condition::Since(from, until) => {
            looked_at(graph, from, of, seen);
            looked_at(graph, until, of, seen);
        }
    }
}

/// What the conditions of an asset name that is not there: what was written, and what is wrong with it.
pub fn unknown_names(graph: &AssetGraph, condition: &Condition) -> Vec<(String, String)> {
    let mut found = Vec::new();
    condition.walk(&mut |condition| match condition {
        Condition::OfAsset(asset, _) if graph.get(asset).is_none() => {
            found.push((asset.to_string(), format!("there is no asset `{asset}`")));
        }
        Condition::Where { selection, .. } => {
            if let Err(error) = named_by(graph, selection) {
                found.push((selection.clone(), error.to_string()));
            }
        }
        _ => {}
    });
    found
}

fn named_by(graph: &AssetGraph, selection: &str) -> Result<BTreeSet<AssetKey>, SelectionError> {
    Ok(select(graph, &Snapshot::default(), &[selection.to_owned()], &[])?.assets)
}

impl Automated {
    /// Those of a graph.
    pub fn new(graph: &AssetGraph) -> Self {
        let mut all = Self::default();
        for asset in graph.assets() {
            let Some(automation) = &asset.automation else { continue };
            let condition = resolved(graph, &asset.key, &automation.condition);
            let mut seen = BTreeSet::from([&asset.key]);
            looked_at(graph, &condition, &BTreeSet::from([&asset.key]), &mut seen);
            let mut is_of_runs = false;
            condition.walk(&mut |condition| match condition {
                Condition::Is(Operand::ExecutedWithTags(_) | Operand::ExecutedWithRootTarget) => is_of_runs = true,
                Condition::Where { selection, .. } if !all.selections.contains_key(selection) => {
                    // One that names nothing was refused when the project was read.
                    all.selections.insert(selection.clone(), named_by(graph, selection).unwrap_or_default());
                }
                _ => {}
            });
            for key in seen {
                all.readers.entry(key.clone()).or_default().insert(asset.key.clone());
                if is_of_runs {
                    all.of_runs.insert(key.clone());
                }
            }
            all.conditions.insert(asset.key.clone(), condition);
        }
        all
    }

    /// The runs of which tags and targets have to be known besides those that something was heard of.
    pub fn runs_asked_of<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = RunId> + 'a {
        self.of_runs.iter().filter_map(|key| Some(snapshot.latest.get(key)?.run))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// The automated assets that look at one of these.
    pub fn near<'a>(&self, changed: impl IntoIterator<Item = &'a AssetKey>) -> BTreeSet<AssetKey> {
        changed.into_iter().filter_map(|key| self.readers.get(key)).flatten().cloned().collect()
    }

    /// Evaluates the conditions of `wanted` assets, and of those that look at what is asked for. Upstream comes first. An asset without a memory is
    /// switched off.
    pub fn evaluate(
        &self,
        facts: &Facts<'_>,
        wanted: &BTreeSet<AssetKey>,
        memory: &dyn Fn(&AssetKey) -> Option<Memory>,
    ) -> Vec<Decision> {
        let (mut wanted, mut requested, mut decisions) = (wanted.clone(), BTreeMap::new(), Vec::new());
        for asset in facts.graph.assets() {
            let Some(condition) = self.conditions.get(&asset.key).filter(|_| wanted.contains(&asset.key)) else { continue };
            let Some(memory) = memory(&asset.key) else { continue };
            let decision = Evaluation::of(self, facts, asset, &memory, &requested).decide(condition);
            if !decision.requested.is_empty() {
                requested.insert(asset.key.clone(), decision.requested.iter().cloned().collect());
                wanted.extend(self.near([&asset.key]));
            }
            decisions.push(decision);
        }
        decisions
    }
}

/// What an asset reads: of a view also what is behind it, for a view shows that by itself.
fn deps<'a>(graph: &'a AssetGraph, asset: &'a Asset) -> Vec<&'a Asset> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut open: Vec<&AssetKey> = asset.upstream.iter().rev().collect();
    while let Some(key) = open.pop() {
        let Some(upstream) = graph.get(key).filter(|_| seen.insert(key)) else { continue };
        found.push(upstream);
        if is_view(upstream) {
            open.extend(upstream.upstream.iter().rev());
        }
    }
    found
}

/// The keys of an asset's partitions, the newest ones, in their order.
fn keys(asset: &Asset, facts: &Facts<'_>) -> Vec<String> {
    let Some(partitioning) = &asset.partitioning else { return vec![String::new()] };
    let known = Known::of(partitioning, facts.snapshot, facts.now);
    (known.len().saturating_sub(KEY_COUNT_MAX)..known.len()).filter_map(|at| known.key(at)).collect()
}

/// The evaluation of one asset.
struct Evaluation<'a> {
    automated: &'a Automated,
    facts: &'a Facts<'a>,
    root: &'a Asset,
    before: &'a Memory,
    /// What this evaluation has asked for already, upstream.
    requested: &'a BTreeMap<AssetKey, BTreeSet<String>>,
    after: Memory,
    /// Whether something was true that is not true for long.
    is_passing: bool,
    due_at: Option<Timestamp>,
    /// The assets that made a condition true, by its text.
    because_of: BTreeMap<String, BTreeSet<String>>,
    /// Which assets upstream count, where not all of them do: whether those that a selection names, or all others.
    filters: Vec<(bool, &'a str)>,
    /// The check that is looked at.
    check: Option<&'a str>,
}

impl<'a> Evaluation<'a> {
    fn of(
        automated: &'a Automated,
        facts: &'a Facts<'a>,
        root: &'a Asset,
        before: &'a Memory,
        requested: &'a BTreeMap<AssetKey, BTreeSet<String>>,
    ) -> Self {
        // A clock that is put back sees no tick twice.
        let after = Memory { at: before.at.max(Some(facts.now)), ..Memory::default() };
        let (filters, because_of) = (Vec::new(), BTreeMap::new());
        Self {
            automated,
            facts,
            root,
            before,
            requested,
            after,
            is_passing: false,
            due_at: None,
            because_of,
            filters,
            check: None,
        }
    }

    fn decide(mut self, condition: &'a Condition) -> Decision {
        let all = keys(self.root, self.facts);
        let found = self.eval(condition, self.root);
        let parts: Vec<Part> = condition.parts().into_iter().map(|part| self.part(part)).collect();
        let backfilled = backfilled(self.root, self.facts);
        let is_in_run = |key: &String| self.facts.in_progress.contains(&(self.root.key.clone(), key.clone()));
        let is_busy = |key: &String| is_in_run(key) || backfilled.contains(key);
        // Whatever a condition says, nothing is asked for that somebody has in hand.
        let wanted = all.into_iter().filter(|key| found.contains_key(key) && !is_busy(key));
        let requested: Vec<String> = wanted.take(PARTITION_COUNT_MAX).collect();
        self.after.requested = requested.iter().cloned().collect();
        self.after.requested_at = if requested.is_empty() { self.before.requested_at } else { Some(self.facts.now) };
        // What passes is looked at once more when it has passed.
        let soon = (self.is_passing || !requested.is_empty() || self.before.is_new()).then_some(self.facts.now);
        Decision { asset: self.root.key.clone(), requested, parts, memory: self.after, due_at: soon.or(self.due_at) }
    }

    /// What a condition came to, for people. What has a memory is asked once more, which changes nothing.
    fn part(&mut self, condition: &'a Condition) -> Part {
        let is_true = !self.eval(condition, self.root).is_empty();
        let mut because_of = BTreeSet::new();
        condition.walk(&mut |inner| because_of.extend(self.because_of.get(&inner.to_string()).into_iter().flatten().cloned()));
        let shown = if let Condition::Labeled(label, _) = condition { label.clone() } else { condition.to_string() };
        Part { condition: shown, is_true, because_of: because_of.into_iter().collect() }
    }

    fn due(&mut self, at: Option<Timestamp>) {
        self.due_at = [self.due_at, at].into_iter().flatten().min();
    }

    /// Of which partitions a condition is true.
    fn eval(&mut self, condition: &'a Condition, asset: &'a Asset) -> Truth {
        match condition {
            Condition::Is(operand) => self.operand(operand, asset),
            Condition::Named(_, inner) | Condition::Labeled(_, inner) => self.eval(inner, asset),
            // It was replaced by what it stands for.
            Condition::AnyDownstream => Truth::new(),
            Condition::Where { allow, selection, inner } => {
                self.filters.push((*allow, selection));
                let found = self.eval(inner, asset);
                self.filters.pop();
                found
            }
            Condition::OfAsset(key, inner) => {
                let Some(other) = self.facts.graph.get(key) else { return Truth::new() };
                let found = self.eval(inner, other);
                self.across(&found, asset, other)
            }
            Condition::Checks { all, blocking, inner } => self.checks((*all, *blocking), inner, asset),
            Condition::Not(inner) => {
                let found = self.eval(inner, asset);
                let now = self.facts.now;
                keys(asset, self.facts).into_iter().filter(|key| !found.contains_key(key)).map(|key| (key, now)).collect()
            }
            Condition::And(parts) => {
                let mut parts = parts.iter().map(|part| self.eval(part, asset)).collect::<Vec<_>>().into_iter();
                let first = parts.next().unwrap_or_default();
                parts.fold(first, |all, next| {
                    all.into_iter()
                        .filter_map(|(key, at)| Some((at.max(*next.get(&key)?), key)))
                        .map(|(at, key)| (key, at))
                        .collect()
                })
            }
            Condition::Or(parts) => {
                let mut all = Truth::new();
                for part in parts {
                    join(&mut all, self.eval(part, asset));
                }
                all
            }
            Condition::NewlyTrue(inner) => {
                let found = self.eval(inner, asset);
                let before = self.remembered(condition, asset, found.clone());
                let new: Truth = found.into_iter().filter(|(key, _)| !before.contains_key(key)).collect();
                self.is_passing |= !new.is_empty();
                new
            }
            Condition::Since(from, until) => {
                let (from, until) = (self.eval(from, asset), self.eval(until, asset));
                let mut all = self.before.conditions.get(&self.name_of(condition, asset)).cloned().unwrap_or_default();
                // Keys that are no partitions any more are forgotten.
                let keys: BTreeSet<String> = keys(asset, self.facts).into_iter().collect();
                all.retain(|key, _| keys.contains(key));
                // Nothing that was lies in the future, whatever the clock did since.
                for at in all.values_mut() {
                    *at = (*at).min(self.facts.now);
                }
                for (key, at) in from {
                    all.insert(key, at);
                }
                all.retain(|key, at| until.get(key).is_none_or(|end| *at > *end));
                self.remembered(condition, asset, all.clone());
                all
            }
            Condition::AnyDeps(inner) => self.any_deps(condition, inner, asset),
            Condition::AllDeps(inner) => self.all_deps(inner, asset),
        }
    }

    /// Under what a condition remembers: its text, so that what stands beside it may change, and what it is asked of where that is not the asset.
    fn name_of(&self, condition: &Condition, asset: &Asset) -> String {
        let mut name = condition.to_string();
        for (allow, selection) in &self.filters {
            name = format!("{}('{selection}', {name})", if *allow { "allow" } else { "ignore" });
        }
        if asset.key == self.root.key { name } else { format!("{name} of {}", asset.key) }
    }

    /// Remembers what a condition found, and returns what it found the last time.
    fn remembered(&mut self, condition: &Condition, asset: &Asset, found: Truth) -> Truth {
        let name = self.name_of(condition, asset);
        let before = self.before.conditions.get(&name).cloned().unwrap_or_default();
        self.after.conditions.insert(name, found);
        before
    }

    /// For each partition of the asset, the partitions of an asset upstream that it reads; `None` where it reads it as a whole.
    fn read(facts: &Facts<'_>, asset: &Asset, key: &str, dep: &Asset) -> Option<Vec<String>> {
        read_by(asset.partitioning.as_ref().map(|own| (own, key)), (&dep.key, dep.partitioning.as_ref()?), facts.snapshot)
    }

    /// What an asset reads, as far as it counts.
    fn deps(&self, asset: &'a Asset) -> Vec<&'a Asset> {
        let is_named =
            |selection: &str, key: &AssetKey| self.automated.selections.get(selection).is_some_and(|named| named.contains(key));
        let counts = |dep: &&Asset| self.filters.iter().all(|(allow, selection)| is_named(selection, &dep.key) == *allow);
        deps(self.facts.graph, asset).into_iter().filter(counts).collect()
    }

    /// The partitions of an asset that read those of another one of which something is true.
    fn across(&self, found: &Truth, asset: &Asset, other: &Asset) -> Truth {
        let Some(newest) = found.values().max().copied() else { return Truth::new() };
        let at = |key: &String| match Self::read(self.facts, asset, key, other) {
            None => Some(newest),
            Some(read) => read.iter().filter_map(|key| found.get(key)).max().copied(),
        };
        keys(asset, self.facts).into_iter().filter_map(|key| Some((at(&key)?, key))).map(|(at, key)| (key, at)).collect()
    }

    fn any_deps(&mut self, condition: &Condition, inner: &'a Condition, asset: &'a Asset) -> Truth {
        let mut all = Truth::new();
        for dep in self.deps(asset) {
            let found = self.eval(inner, dep);
            let found = self.across(&found, asset, dep);
            if asset.key == self.root.key && !found.is_empty() {
                self.because_of.entry(condition.to_string()).or_default().insert(dep.key.to_string());
            }
            join(&mut all, found);
        }
        all
    }

    /// Of which partitions a condition is true for one of the checks, or for each.
    fn checks(&mut self, (all, blocking): (bool, bool), inner: &'a Condition, asset: &'a Asset) -> Truth {
        let now = self.facts.now;
        let checks = asset.checks.iter().filter(|check| check.blocking || !blocking);
        let everything: Truth = keys(asset, self.facts).into_iter().map(|key| (key, now)).collect();
        let mut found = if all { everything } else { Truth::new() };
        for check in checks {
            self.check = Some(&check.name);
            let of_check = self.eval(inner, asset);
            self.check = None;
            if all {
                found.retain(|key, _| of_check.contains_key(key));
            } else {
                join(&mut found, of_check);
            }
        }
        found
    }

    fn all_deps(&mut self, inner: &'a Condition, asset: &'a Asset) -> Truth {
        let now = self.facts.now;
        let mut all: Truth = keys(asset, self.facts).into_iter().map(|key| (key, now)).collect();
        for dep in self.deps(asset) {
            // Nobody says when something external changes, and a view is what is behind it.
            if dep.definition.is_unobserved() || is_view(dep) {
                continue;
            }
            let found = self.eval(inner, dep);
            let mut whole = keys(dep, self.facts);
            // Older windows are not made again and again.
            if let Some(partitioning) = dep.partitioning.as_ref().filter(|partitioning| partitioning.windows().is_some()) {
                let last = whole.last().and_then(|key| partitioning.time_key(key)).map(str::to_owned);
                whole.retain(|key| partitioning.time_key(key) == last.as_deref());
            }
            all.retain(|key, _| {
                let read = Self::read(self.facts, asset, key, dep).unwrap_or_else(|| whole.clone());
                read.iter().all(|key| found.contains_key(key))
            });
        }
        all
    }

    /// What is known of the run that changed an asset last.
    fn of_last_run<T>(&self, asset: &Asset, known: &'a BTreeMap<RunId, T>) -> Option<&'a T> {
        known.get(&self.facts.snapshot.latest.get(&asset.key)?.run)
    }

    /// The keys that a check passed or failed for: it is of the whole asset.
    fn check_is(&self, passed: bool, asset: &Asset) -> bool {
        let states = self.facts.checks.get(&asset.key);
        states.is_some_and(|states| match self.check {
            Some(check) => states.each.get(check) == Some(&passed),
            None => states.passed == passed,
        })
    }

    /// Whether nobody found the asset up to date for so long.
    fn not_confirmed_within(&mut self, age: std::time::Duration, asset: &Asset) -> Truth {
        let confirmed_at = self.facts.snapshot.latest.get(&asset.key).map(|latest| latest.confirmed_at);
        // What was asked for has as long again before it is asked for anew.
        let asked_at = self.before.requested_at.filter(|_| asset.key == self.root.key);
        let Some(from) = confirmed_at.max(asked_at) else { return Truth::new() };
        let age = jiff::SignedDuration::try_from(age).unwrap_or(jiff::SignedDuration::MAX);
        let Ok(end) = from.checked_add(age) else { return Truth::new() };
        if end > self.facts.now {
            self.due(Some(end));
            return Truth::new();
        }
        keys(asset, self.facts).into_iter().map(|key| (key, end)).collect()
    }

    fn operand(&mut self, operand: &Operand, asset: &Asset) -> Truth {
        let (facts, now) = (self.facts, self.facts.now);
        let all = || keys(asset, facts).into_iter();
        let where_true =
            |is_true: &dyn Fn(&str) -> bool| all().filter(|key| is_true(key)).map(|key| (key, now)).collect::<Truth>();
        let everything = |is_true: bool| if is_true { where_true(&|_| true) } else { Truth::new() };
        let states = facts.snapshot.partitions.get(&asset.key);
        let state = |key: &str| states.and_then(|states| states.get(key)).copied().unwrap_or_default();
        let is_cut = asset.partitioning.is_some();
        match operand {
            Operand::Missing if let Some(check) = self.check => {
                everything(!facts.checks.get(&asset.key).is_some_and(|states| states.each.contains_key(check)))
            }
            Operand::Missing if asset.definition.is_unobserved() => Truth::new(),
            Operand::Missing if is_cut => where_true(&|key| !state(key).is_materialized()),
            Operand::Missing => everything(!facts.snapshot.latest.contains_key(&asset.key)),
            Operand::InProgress | Operand::RunInProgress | Operand::BackfillInProgress => {
                let is_in_run = |key: &str| facts.in_progress.contains(&(asset.key.clone(), key.to_owned()));
                let backfilled = if *operand == Operand::RunInProgress { BTreeSet::new() } else { backfilled(asset, facts) };
                where_true(&|key| (*operand != Operand::BackfillInProgress && is_in_run(key)) || backfilled.contains(key))
            }
            Operand::ExecutedWithTags(tags) => {
                everything(self.of_last_run(asset, facts.tags).is_some_and(|known| has_all(known, tags)))
            }
            Operand::ExecutedWithRootTarget => {
                everything(self.of_last_run(asset, facts.targets).is_some_and(|targets| targets.contains(&self.root.key)))
            }
            Operand::ExecutionFailed if is_cut => where_true(&|key| state(key).is_failed()),
            Operand::ExecutionFailed => everything(facts.failed.contains(&asset.key)),
            Operand::NewlyUpdated
            | Operand::NewlySeen
            | Operand::DataVersionChanged
            | Operand::ChangedByOthers
            | Operand::NewUpdatesWithTags { .. } => self.updated(operand, asset),
            Operand::NewlyRequested if asset.key == self.root.key => {
                let at = self.before.at.unwrap_or(now).min(now);
                self.before.requested.iter().map(|key| (key.clone(), at)).collect()
            }
            Operand::NewlyRequested => Truth::new(),
            Operand::WillBeRequested => {
                let is_alike = asset.partitioning == self.root.partitioning;
                let asked = self.requested.get(&asset.key).filter(|_| is_alike);
                asked.into_iter().flatten().map(|key| (key.clone(), now)).collect()
            }
            Operand::CodeVersionChanged => {
                let version = asset.version.to_string();
                let before = self.before.versions.get(asset.key.as_str()).is_some_and(|before| *before != version);
                self.after.versions.insert(asset.key.to_string(), version);
                self.is_passing |= before;
                everything(before)
            }
            Operand::InitialEvaluation => everything(self.before.is_new()),
            Operand::InLatestTimeWindow(lookback) => self.in_latest_window(*lookback, asset),
            Operand::CronTickPassed(_, schedule) => self.ticked(schedule, asset),
            Operand::FreshnessFailed(age) => self.not_confirmed_within(*age, asset),
            Operand::Freshness(status) => {
                let Some(policy) = &asset.freshness else { return Truth::new() };
                let found = freshness(policy, facts.snapshot.latest.get(&asset.key), now);
                self.due(found.changes_at);
                everything(found.status == *status)
            }
            Operand::CheckFailed => everything(self.check_is(false, asset)),
            Operand::CheckPassed => everything(self.check_is(true, asset)),
        }
    }

    /// What changed since the last time; nothing counts the first time.
    fn updated(&mut self, operand: &Operand, asset: &Asset) -> Truth {
        if self.before.is_new() {
            return Truth::new();
        }
        let is_own = |run: &RunId| self.facts.targets.get(run).is_some_and(|targets| targets.contains(&self.root.key));
        let first = (asset.key.clone(), String::new());
        let units = self.facts.updated.range(first..).take_while(|((key, _), _)| *key == asset.key);
        let mut found = Truth::new();
        for ((_, key), changes) in units {
            let is_tagged = |update: &Update| match operand {
                Operand::NewUpdatesWithTags { tags, .. } => {
                    self.facts.tags.get(&update.run).is_some_and(|known| has_all(known, tags))
                }
                _ => true,
            };
            if matches!(operand, Operand::NewUpdatesWithTags { all: true, .. }) && !changes.iter().all(is_tagged) {
                continue;
            }
            let counts = |update: &&Update| match operand {
                Operand::NewUpdatesWithTags { .. } => is_tagged(update),
                Operand::NewlyUpdated | Operand::NewlySeen => true,
                Operand::DataVersionChanged => update.is_change,
                _ => update.is_change && !is_own(&update.run),
            };
            let at = |update: &Update| if *operand == Operand::NewlySeen { update.began_at } else { update.at };
            let at = changes.iter().filter(counts).map(at).max().map(|at| at.min(self.facts.now));
            found.extend(at.map(|at| (key.clone(), at)));
        }
        self.is_passing |= !found.is_empty();
        found
    }

    fn in_latest_window(&mut self, lookback: Option<std::time::Duration>, asset: &Asset) -> Truth {
        let now = self.facts.now;
        let windows = asset.partitioning.as_ref().and_then(|partitioning| Some((partitioning, partitioning.windows()?)));
        let Some((partitioning, windows)) = windows else {
            return keys(asset, self.facts).into_iter().map(|key| (key, now)).collect();
        };
        let last = windows.last(now);
        let next = last.map_or_else(|| windows.first(), |last| last + 1);
        self.due(windows.bounds(next).map(|(_, end)| end).filter(|end| *end > now));
        let Some(last) = last else { return Truth::new() };
        let end_of = |place| windows.bounds(place).map(|(_, end)| end);
        let lookback = lookback.map(|lookback| jiff::SignedDuration::try_from(lookback).unwrap_or(jiff::SignedDuration::MAX));
        let from = lookback.and_then(|lookback| end_of(last)?.checked_sub(lookback).ok());
        let is_near = |place: &i64| *place == last || from.is_some_and(|from| end_of(*place).is_some_and(|end| end > from));
        let first = windows.first().max(last - KEY_COUNT_MAX as i64);
        let near: BTreeSet<String> = (first..=last).rev().take_while(is_near).filter_map(|place| windows.key(place)).collect();
        if matches!(partitioning.rule, PartitionRule::Time(_)) {
            return near.into_iter().map(|key| (key, now)).collect();
        }
        let is_near = |key: &String| partitioning.time_key(key).is_some_and(|key| near.contains(key));
        keys(asset, self.facts).into_iter().filter(is_near).map(|key| (key, now)).collect()
    }

    /// The newest tick since the last evaluation; nothing counts the first time.
    fn ticked(&mut self, schedule: &subak_domain::Schedule, asset: &Asset) -> Truth {
        // It was read when the project was loaded.
        let Ok(times) = Times::new(schedule) else { return Truth::new() };
        self.due(times.next_after(self.facts.now));
        let Some(before) = self.before.at else { return Truth::new() };
        let Some(tick) = times.due(before, self.facts.now, 1).pop() else { return Truth::new() };
        self.is_passing = true;
        keys(asset, self.facts).into_iter().map(|key| (key, tick)).collect()
    }
}

/// Adds what is true of more partitions; of two moments the later one counts.
fn join(all: &mut Truth, found: Truth) {
    for (key, at) in found {
        all.entry(key).and_modify(|known| *known = (*known).max(at)).or_insert(at);
    }
}

fn has_all(known: &BTreeSet<String>, tags: &[String]) -> bool {
    tags.iter().all(|tag| known.contains(tag))
}

/// The newest partitions of an asset that a backfill is still to make.
fn backfilled(asset: &Asset, facts: &Facts<'_>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Some(partitioning) = &asset.partitioning else { return found };
    let of_asset = facts.backfills.iter().filter(|backfill| !backfill.state.is_final());
    let of_asset = of_asset.flat_map(|backfill| backfill.targets.iter().map(move |target| (backfill, target)));
    for (backfill, target) in of_asset.filter(|(_, target)| target.asset == asset.key) {
        let known = Known::of(partitioning, facts.snapshot, facts.now);
        let listed: BTreeSet<&str> = target.keys.iter().map(String::as_str).collect();
        let places = target.ranges.iter().filter_map(|(first, last)| Some((known.place(first)?, known.place(last)?)));
        let places: Vec<(usize, usize)> = if listed.is_empty() { places.collect() } else { Vec::new() };
        let states = facts.snapshot.partitions.get(&asset.key);
        let is_done = |key: &String| {
            let state = states.and_then(|states| states.get(key)).copied().unwrap_or_default();
            state.confirmed_position.max(state.failed_position) > backfill.created_position
                || backfill.blocked.contains(&(asset.key.clone(), key.clone()))
        };
        for at in known.len().saturating_sub(KEY_COUNT_MAX)..known.len() {
            let Some(key) = known.key(at) else { continue };
            let is_asked = listed.contains(key.as_str()) || places.iter().any(|(first, last)| (first..=last).contains(&&at));
            if is_asked && !is_done(&key) {
                found.insert(key);
            }
        }
    }
    found
}

/// The actions of what is asked for: one run for what hangs together.
pub fn runs(facts: &Facts<'_>, decisions: &[Decision]) -> Vec<Vec<Action>> {
    let asked: BTreeMap<&AssetKey, &Decision> =
        decisions.iter().filter(|decision| !decision.requested.is_empty()).map(|decision| (&decision.asset, decision)).collect();
    let mut runs: Vec<(BTreeSet<&AssetKey>, Vec<Action>)> = Vec::new();
    for asset in facts.graph.assets() {
        let Some(decision) = asked.get(&asset.key) else { continue };
        let upstream: Vec<&Asset> = deps(facts.graph, asset).into_iter().filter(|dep| asked.contains_key(&dep.key)).collect();
        let (mut own, others) = (Vec::new(), std::mem::take(&mut runs));
        for run in others {
            // One start of a program makes what it makes in one run.
            let made_with = |key: &&AssetKey| facts.graph.get(key).and_then(Asset::made_with);
            let is_of_start = asset.made_with().is_some() && run.0.iter().any(|key| made_with(key) == asset.made_with());
            let hangs_together = is_of_start || upstream.iter().any(|dep| run.0.contains(&dep.key));
            if hangs_together { own.push(run) } else { runs.push(run) }
        }
        let (mut assets, mut actions) = (BTreeSet::from([&asset.key]), Vec::new());
        for (other, steps) in own {
            assets.extend(other);
            actions.extend(steps);
        }
        actions.extend(
            decision
                .requested
                .iter()
                .filter_map(|key| action(facts, asset, key, decision, &upstream, &actions))
                .collect::<Vec<_>>(),
        );
        runs.push((assets, actions));
    }
    let finished = runs.into_iter().map(|(_, mut actions)| {
        together::join(&mut actions, facts.graph);
        let mut actions = with_tasks(actions, facts.graph);
        actions.extend(check_actions(facts.graph, &actions));
        actions
    });
    finished.collect()
}

fn action(
    facts: &Facts<'_>,
    asset: &Asset,
    key: &str,
    decision: &Decision,
    upstream: &[&Asset],
    before: &[Action],
) -> Option<Action> {
    let partition: Option<Partition> = match &asset.partitioning {
        None => None,
        Some(partitioning) => {
            let known = Known::of(partitioning, facts.snapshot, facts.now);
            Some(known.partition(known.place(key)?)?)
        }
    };
    let mut needs = BTreeSet::new();
    for dep in upstream {
        let read = Evaluation::read(facts, asset, key, dep);
        let is_read = |action: &&Action| match (&read, action.step.as_partition()) {
            (Some(keys), Some((_, key))) => keys.iter().any(|known| known == key),
            _ => true,
        };
        let steps = before.iter().filter(|action| action.step.base() == StepId::asset(&dep.key)).filter(is_read);
        needs.extend(steps.map(|action| action.step.clone()));
    }
    let step =
        partition.as_ref().map_or_else(|| StepId::asset(&asset.key), |partition| StepId::partition(&asset.key, &partition.key));
    let reason = match upstream.first().filter(|_| partition.is_none() && waits_for_change(facts, asset)) {
        Some(upstream) => Reason::UpstreamMayChange { upstream: upstream.key.clone() },
        None => Reason::Automation { why: decision.why() },
    };
    let work = match &asset.definition {
        Definition::External { .. } => {
            let known = facts.snapshot.latest.get(&asset.key).map(|latest| latest.version.clone());
            Work::Observe { asset: asset.key.clone(), known }
        }
        _ => Work::Materialize { asset: asset.key.clone(), full_refresh: false, range: None, partition },
    };
    Some(Action { step, work, reason, needs: needs.into_iter().collect(), rule: Rule::default() })
}

/// Whether an asset has seen all that there is, so that it is only asked for because something upstream may change in the same run.
fn waits_for_change(facts: &Facts<'_>, asset: &Asset) -> bool {
    let Some(latest) = facts.snapshot.latest.get(&asset.key).filter(|latest| latest.version == asset.version) else {
        return false;
    };
    let mut by_time = false;
    if let Some(automation) = &asset.automation {
        automation.condition.walk(&mut |condition| {
            by_time |= matches!(
                condition,
                Condition::Is(Operand::CronTickPassed(..) | Operand::FreshnessFailed(_) | Operand::Freshness(_))
            );
        });
    }
    let seen = |dep: &Asset| facts.snapshot.latest.get(&dep.key).is_none_or(|dep| dep.position <= latest.confirmed_position);
    !by_time && !matches!(asset.definition, Definition::Ingest(_)) && deps(facts.graph, asset).into_iter().all(seen)
}

#[cfg(test)]
mod tests;
