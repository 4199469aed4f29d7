//! Conditions, evaluation by evaluation, over a made-up history.

use std::time::Duration;

use super::*;
use crate::plan::tests::{cut, graph};
use subak_domain::{Event, RunEvent, StepOutcome};

/// A project whose runs are made up, and what is remembered of it.
struct World {
    graph: AssetGraph,
    automated: Automated,
    snapshot: Snapshot,
    now: Timestamp,
    position: u64,
    memory: BTreeMap<AssetKey, Memory>,
    updated: BTreeMap<Unit, Vec<Update>>,
    targets: BTreeMap<RunId, BTreeSet<AssetKey>>,
    in_progress: BTreeSet<Unit>,
    failed: BTreeSet<AssetKey>,
    /// Seconds that attempts take.
    lasting: i64,
}

fn key(name: &str) -> AssetKey {
    name.parse().expect("key")
}

fn unit(text: &str) -> Unit {
    let (name, rest) = text.split_once('[').unwrap_or((text, "]"));
    (key(name), rest.trim_end_matches(']').to_owned())
}

impl World {
    /// Assets as in the tests of plans, days for those in `days`, with the conditions of `automations`.
    fn new(assets: &str, days: &[&str], automations: &[(&str, Condition)]) -> Self {
        let plain = cut(&graph(assets), days);
        let assets = plain.assets().iter().cloned().map(|mut asset| {
            let found = automations.iter().find(|(name, _)| asset.key.as_str() == *name);
            asset.automation =
                found.map(|(_, condition)| Automation { text: condition.to_string(), condition: condition.clone() });
            asset
        });
        let graph = AssetGraph::new(assets.collect(), Vec::new()).expect("graph");
        Self {
            automated: Automated::new(&graph),
            graph,
            snapshot: Snapshot::default(),
            now: "2024-01-04T12:00:00Z".parse().expect("now"),
            position: 0,
            memory: BTreeMap::new(),
            updated: BTreeMap::new(),
            targets: BTreeMap::new(),
            in_progress: BTreeSet::new(),
            failed: BTreeSet::new(),
            lasting: 0,
        }
    }

    /// A run that was to bring `targets` up to date did so for `done`; a `=` behind one says that nothing changed.
    fn ran(&mut self, targets: &str, done: &str) {
        self.position += 1;
        self.now += jiff::SignedDuration::from_secs(1);
        let run = RunId::from_parts(self.position, 0);
        self.targets.insert(run, targets.split_whitespace().map(|text| unit(text).0).collect());
        for text in done.split_whitespace() {
            let (text, changed) = text.strip_suffix('=').map_or((text, true), |text| (text, false));
            let (asset, partition) = unit(text);
            self.position += 1;
            let version = self.graph.get(&asset).map(|asset| asset.version.clone());
            let is_cut = !partition.is_empty();
            let step = if is_cut { StepId::partition(&asset, &partition) } else { StepId::asset(&asset) };
            let outcome =
                StepOutcome { changed, version, partition: is_cut.then(|| partition.clone()), ..StepOutcome::default() };
            let event = RunEvent::StepSucceeded { step, outcome };
            self.snapshot.apply(&Event { position: self.position, run, sequence: self.position, at: self.now, event });
            self.updated.entry((asset, partition)).or_default().push(Update {
                at: self.now,
                began_at: self.now - jiff::SignedDuration::from_secs(self.lasting),
                run,
                is_change: changed,
            });
        }
    }

    fn wait(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }

    fn facts<'a>(&'a self, checks: &'a BTreeMap<AssetKey, bool>) -> Facts<'a> {
        Facts {
            graph: &self.graph,
            snapshot: &self.snapshot,
            now: self.now,
            updated: &self.updated,
            targets: &self.targets,
            in_progress: &self.in_progress,
            failed: &self.failed,
            checks,
        }
    }

    fn decide(&mut self) -> Vec<Decision> {
        self.now += jiff::SignedDuration::from_secs(1);
        let wanted: BTreeSet<AssetKey> = self.graph.assets().iter().map(|asset| asset.key.clone()).collect();
        let checks = BTreeMap::new();
        let memory = |asset: &AssetKey| Some(Memory::of(&self.memory.get(asset).cloned().unwrap_or_default().stored()));
        let decisions = self.automated.evaluate(&self.facts(&checks), &wanted, &memory);
        for decision in &decisions {
            self.memory.insert(decision.asset.clone(), decision.memory.clone());
        }
        self.updated.clear();
        decisions
    }

    /// What one evaluation asks for.
    fn asks(&mut self) -> String {
        let asked = self.decide().into_iter().flat_map(|decision| {
            let name = decision.asset.to_string();
            decision.requested.into_iter().map(move |key| if key.is_empty() { name.clone() } else { format!("{name}[{key}]") })
        });
        asked.collect::<Vec<_>>().join(" ")
    }
}

fn when(text: &str) -> Condition {
    parse(text, "UTC").expect("a condition")
}

/// T-99: what is there already is not asked for when automation is new; what is missing is.
#[test]
fn t_99_new_automation_starts_nothing_that_is_there() {
    let mut world = World::new("a\nb <- a", &[], &[("b", eager())]);
    world.ran("a b", "a b");
    assert_eq!(world.asks(), "");
    let mut cron = World::new("a", &[], &[("a", on_cron("* * * * *", "UTC").expect("cron"))]);
    cron.wait(3_600);
    assert_eq!(cron.asks(), "", "no tick has passed since the first evaluation");
    let mut missing = World::new("a\nb <- a", &[], &[("b", on_missing())]);
    assert_eq!(missing.asks(), "", "what it reads is missing");
    missing.ran("a", "a");
    assert_eq!(missing.asks(), "b");
}

/// T-102: an update by a run that was to bring the asset up to date too does not count. T-170: neither does one that changed nothing.
#[test]
fn t_102_updates_by_common_runs_do_not_count() {
    let mut world = World::new("a\nb <- a", &[], &[("b", eager())]);
    world.ran("a b", "a b");
    world.asks();
    world.ran("a b", "a");
    assert_eq!(world.asks(), "", "b failed in the same run");
    world.ran("a", "a=");
    assert_eq!(world.asks(), "", "nothing changed");
    world.ran("a", "a");
    assert_eq!(world.asks(), "b");
}

/// T-103: what is asked for and what reads it come in one run, when they have the same partitions. T-107: nothing is asked for twice.
#[test]
fn t_103_t_107_one_run_and_once() {
    let mut world = World::new(
        "a\nb <- a\nc <- b\nd <- b\nx\ny <- x",
        &["d"],
        &[("b", eager()), ("c", eager()), ("d", eager()), ("y", eager())],
    );
    world.ran("a b c x y", "a b c x y d[2024-01-03]");
    world.asks();
    world.ran("a", "a");
    world.ran("x", "x");
    let decisions = world.decide();
    let checks = BTreeMap::new();
    let runs = runs(&world.facts(&checks), &decisions);
    let steps = |run: &Vec<Action>| run.iter().map(|action| action.step.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(runs.iter().map(steps).collect::<Vec<_>>(), ["b c", "y"], "two runs, for nothing ties them; d waits for b");
    assert_eq!(runs[0][1].needs, [StepId::asset(&key("b"))]);
    assert_eq!(runs[0][0].reason.to_string(), "(newly_missing or any_deps_updated) since_last_handled (a)");
    assert!(runs[0][1].reason.is_only_upstream(), "c is skipped where b stays as it was");
    world.in_progress = ["b", "c", "y"].map(unit).into();
    assert_eq!(world.asks(), "");
    world.ran("a", "a");
    assert_eq!(world.asks(), "", "b is under way");
    world.in_progress.clear();
    world.lasting = 60;
    world.ran("b c", "b c");
    assert_eq!(world.asks(), "b c d[2024-01-03]", "a changed while b was made, and b changed what d reads");
}

/// T-104: of windows of time only the last one is asked for. What is read as a whole counts for it.
#[test]
fn t_104_only_the_last_window() {
    let mut world = World::new("a\nb <- a\nwhole\nc <- whole", &["a", "b", "c"], &[("b", eager()), ("c", eager())]);
    world.ran("", "a[2024-01-01] a[2024-01-02] a[2024-01-03] b[2024-01-01] b[2024-01-02] b[2024-01-03] whole");
    assert_eq!(world.asks(), "c[2024-01-03]", "c is missing, b is there");
    world.ran("", "a[2024-01-01]");
    assert_eq!(world.asks(), "");
    world.ran("", "a[2024-01-03]");
    assert_eq!(world.asks(), "b[2024-01-03]");
    world.ran("c", "c[2024-01-03]");
    world.wait(86_400);
    assert_eq!(world.asks(), "c[2024-01-04]", "a new window; what b reads of it is missing");
    let mut wide = World::new("a", &["a"], &[("a", when("in_latest_time_window('2d') and newly_missing since_last_handled"))]);
    assert_eq!(wide.asks(), "a[2024-01-02] a[2024-01-03]");
}

/// T-105: once for each tick, when everything upstream was brought up to date since, whether it changed or not.
#[test]
fn t_105_once_for_each_tick_behind_all_that_it_reads() {
    let condition = on_cron("0 * * * *", "UTC").expect("cron");
    let mut world = World::new("a\nb\nc <- a b", &[], &[("c", condition)]);
    world.ran("a b c", "a b c");
    world.asks();
    world.wait(3_600);
    assert_eq!(world.asks(), "");
    world.ran("a", "a=");
    assert_eq!(world.asks(), "", "b is to come");
    world.ran("b", "b");
    assert_eq!(world.asks(), "c");
    world.ran("a b", "a b");
    assert_eq!(world.asks(), "", "once for each tick");
    world.wait(3_600);
    assert_eq!(world.asks(), "");
    world.ran("a b", "a b");
    assert_eq!(world.asks(), "c");
}

/// T-100, T-101, T-106: `since` is true from one until the other, the later wins; `newly_true` compares with the last time; what stands beside a
/// condition may change, and it remembers all the same.
#[test]
fn t_100_t_101_t_106_conditions_remember() {
    let mut world = World::new("a\nb\nc <- a b", &[], &[("c", when("any_deps_updated since newly_updated"))]);
    world.ran("a b c", "a b c");
    world.asks();
    world.ran("a", "a");
    assert_eq!(world.asks(), "c");
    assert_eq!(world.asks(), "c", "until it was brought up to date");
    world.ran("c", "c");
    assert_eq!(world.asks(), "");
    // Both at once: the later one wins.
    world.ran("a", "a");
    world.ran("c", "c");
    assert_eq!(world.asks(), "");
    world.ran("c", "c");
    world.ran("a", "a");
    assert_eq!(world.asks(), "c");
    // Another condition beside it.
    let condition = when("(any_deps_updated since newly_updated) and not execution_failed");
    let mut assets: Vec<Asset> = world.graph.assets().to_vec();
    let changed = assets.iter_mut().find(|asset| asset.key == key("c")).and_then(|asset| asset.automation.as_mut());
    *changed.expect("automated") = Automation { text: String::new(), condition };
    world.graph = AssetGraph::new(assets, Vec::new()).expect("graph");
    assert_eq!(world.asks(), "c");
    world.failed.insert(key("c"));
    assert_eq!(world.asks(), "");
}

/// T-108: what failed is not asked for again until something upstream changes.
#[test]
fn t_108_a_failure_is_no_loop() {
    let mut world = World::new("a\nb <- a\nc <- a", &["c"], &[("b", eager()), ("c", eager())]);
    world.ran("a", "a");
    assert_eq!(world.asks(), "b c[2024-01-03]");
    for _ in 0..3 {
        // Both fail: nothing is updated, and nothing is under way.
        assert_eq!(world.asks(), "");
    }
    world.ran("a", "a");
    assert_eq!(world.asks(), "b c[2024-01-03]");
}

/// T-109: what is evaluated is what is near to what has changed.
#[test]
fn t_109_only_what_is_near_is_evaluated() {
    let lines: Vec<String> = (0..10_000).map(|at| format!("a{at}\nb{at} <- a{at}")).collect();
    let automations: Vec<(String, Condition)> = (0..10_000).map(|at| (format!("b{at}"), eager())).collect();
    let automations: Vec<(&str, Condition)> =
        automations.iter().map(|(name, condition)| (name.as_str(), condition.clone())).collect();
    let graph = graph(&lines.join("\n"));
    let by_name: BTreeMap<&str, Condition> = automations.into_iter().collect();
    let assets = graph.assets().iter().cloned().map(|mut asset| {
        let condition = by_name.get(asset.key.as_str()).cloned();
        asset.automation = condition.map(|condition| Automation { text: String::new(), condition });
        asset
    });
    let graph = AssetGraph::new(assets.collect(), Vec::new()).expect("graph");
    let near = Automated::new(&graph).near([&key("a77")]);
    assert_eq!(near, BTreeSet::from([key("b77")]));
}

/// A view shows what is behind it.
#[test]
fn a_change_behind_a_view_counts() {
    let mut world = World::new("a\nview v <- a\nb <- v", &[], &[("b", eager())]);
    world.ran("a v b", "a v b");
    world.asks();
    world.ran("a", "a");
    assert_eq!(world.asks(), "b");
}

#[test]
fn what_is_not_brought_up_to_date_for_long_is_asked_for_once() {
    let mut world = World::new("a", &[], &[("a", fresh_within(Duration::from_secs(3_600)))]);
    world.ran("a", "a");
    let first = world.decide();
    assert!(first[0].requested.is_empty());
    let later = world.decide();
    assert_eq!(
        later[0].due_at,
        world.snapshot.latest[&key("a")].confirmed_at.checked_add(jiff::SignedDuration::from_hours(1)).ok()
    );
    world.wait(3_600);
    assert_eq!(world.asks(), "a");
    assert_eq!(world.asks(), "", "it may fail, and is not asked for again and again");
    world.wait(3_000);
    assert_eq!(world.asks(), "");
    world.wait(600);
    assert_eq!(world.asks(), "a", "but after as long again");
    world.ran("a", "a=");
    assert_eq!(world.asks(), "");
    world.wait(3_600);
    assert_eq!(world.asks(), "a");
}

/// T-25: a clock that is put back asks for nothing again and again, and sees no tick twice.
#[test]
fn t_25_a_clock_that_is_put_back() {
    let mut world = World::new("a\nb <- a\nc", &[], &[("b", eager()), ("c", when("cron_tick_passed('0 * * * *')"))]);
    world.ran("a b c", "a b c");
    world.asks();
    world.wait(3_600);
    world.ran("a", "a");
    assert_eq!(world.asks(), "b c");
    world.wait(-7_200);
    world.ran("b", "b");
    for _ in 0..3 {
        assert_eq!(world.asks(), "");
    }
    world.wait(3_700);
    assert_eq!(world.asks(), "", "the tick was seen");
}

#[test]
fn decisions_say_why() {
    let mut world = World::new("a\nb\nc <- a b", &[], &[("c", eager())]);
    world.ran("a", "a");
    let why = |world: &mut World| world.decide()[0].why();
    assert_eq!(why(&mut world), "not yet: not any_deps_missing (b)");
    world.ran("b", "b");
    assert_eq!(why(&mut world), "(newly_missing or any_deps_updated) since_last_handled (b)");
    assert_eq!(why(&mut world), "not yet: (newly_missing or any_deps_updated) since_last_handled");
}

#[test]
fn conditions_are_read_by_their_precedence() {
    for (text, expect) in [
        ("missing or in_progress and not execution_failed", "missing or (in_progress and not execution_failed)"),
        ("not (missing or in_progress)", "not (missing or in_progress)"),
        ("missing since (newly_updated or newly_requested)", "missing since (newly_updated or newly_requested)"),
        ("any_deps_match(missing and not will_be_requested)", "any_deps_match(missing and not will_be_requested)"),
        ("cron_tick_passed('@daily') since_last_handled", "cron_tick_passed('@daily') since_last_handled"),
        (
            "in_latest_time_window('36h') and freshness_failed(\"90m\")",
            "in_latest_time_window('36h') and freshness_failed('90m')",
        ),
    ] {
        assert_eq!(parse(text, "UTC").map(|condition| condition.to_string()).as_deref(), Ok(expect), "{text}");
    }
    for text in
        ["", "missing missing", "(missing", "missing)", "not", "nothing", "cron_tick_passed()", "freshness_failed('x')", "a;b"]
    {
        assert!(parse(text, "UTC").is_err(), "{text}");
    }
    let deep = format!("{}missing{}", "(".repeat(100), ")".repeat(100));
    assert!(parse(&deep, "UTC").is_err());
    for word in WORDS.iter().filter(|word| {
        !matches!(
            **word,
            "any_deps_match"
                | "all_deps_match"
                | "newly_true"
                | "cron_tick_passed"
                | "freshness_failed"
                | "all_deps_updated_since_cron"
        )
    }) {
        assert!(parse(word, "UTC").is_ok(), "{word}");
    }
}
