//! Conditions, evaluation by evaluation, over a made-up history.

use std::time::Duration;

use super::*;
use crate::plan::tests::{cut, graph};
use subak_domain::backfill::{BackfillState, Target};
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
    tags: BTreeMap<RunId, BTreeSet<String>>,
    in_progress: BTreeSet<Unit>,
    backfills: Vec<Backfill>,
    checks: BTreeMap<AssetKey, CheckStates>,
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
            tags: BTreeMap::new(),
            in_progress: BTreeSet::new(),
            backfills: Vec::new(),
            checks: BTreeMap::new(),
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

    fn facts(&self) -> Facts<'_> {
        Facts {
            graph: &self.graph,
            snapshot: &self.snapshot,
            now: self.now,
            updated: &self.updated,
            targets: &self.targets,
            tags: &self.tags,
            in_progress: &self.in_progress,
            backfills: &self.backfills,
            failed: &self.failed,
            checks: &self.checks,
        }
    }

    fn decide(&mut self) -> Vec<Decision> {
        self.now += jiff::SignedDuration::from_secs(1);
        let wanted: BTreeSet<AssetKey> = self.graph.assets().iter().map(|asset| asset.key.clone()).collect();
        let memory = |asset: &AssetKey| Some(Memory::of(&self.memory.get(asset).cloned().unwrap_or_default().stored()));
        let decisions = self.automated.evaluate(&self.facts(), &wanted, &memory);
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
/// T-125: a change while a run has it in hand asks for nothing, and once more when that run had begun before it.
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
    let runs = runs(&world.facts(), &decisions);
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
    world.automated = Automated::new(&world.graph);
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

/// The words of Dagster that are left out of no preset: who is asked, and what counts.
#[test]
fn conditions_over_some_of_what_is_upstream() {
    let assets = "raw.a\nraw.b\nc <- raw.a raw.b\nd";
    let seen = |text: &str, ran: &str| {
        let mut world = World::new(assets, &[], &[("c", when(text))]);
        world.ran("raw.a raw.b c d", "raw.a raw.b c d");
        world.asks();
        world.ran(ran, ran);
        world.asks()
    };
    for (text, ran, expect) in [
        ("any_deps_updated", "raw.b", "c"),
        ("ignore('raw.b', any_deps_updated)", "raw.b", ""),
        ("ignore('raw.b', any_deps_updated)", "raw.a", "c"),
        ("allow('raw.b', any_deps_updated)", "raw.a", ""),
        ("allow('raw.*', any_deps_updated)", "raw.a", "c"),
        ("ignore('raw.b', allow('raw.*', any_deps_updated))", "raw.b", ""),
        ("asset_matches('d', newly_updated)", "d", "c"),
        ("asset_matches('d', newly_updated)", "raw.a", ""),
        ("replace(eager, any_deps_updated, asset_matches('d', data_version_changed))", "d", "c"),
        ("replace(eager, any_deps_updated, asset_matches('d', data_version_changed))", "raw.a", ""),
    ] {
        assert_eq!(seen(text, ran), expect, "{text}: {ran} ran");
    }
}

/// What is ignored keeps a memory of its own: `since` beside it counts everything.
#[test]
fn what_is_left_out_is_remembered_apart() {
    let text = "ignore('b', newly_true(any_deps_missing)) or newly_true(any_deps_missing)";
    let mut world = World::new("a\nb\nc <- a b", &[], &[("c", when(text))]);
    assert_eq!(world.asks(), "c", "both are missing");
    world.ran("a", "a");
    assert_eq!(world.asks(), "", "b is still missing, as before");
    world.snapshot.latest.remove(&key("a"));
    assert_eq!(world.asks(), "c", "a is missing anew for the first of them");
}

#[test]
fn the_conditions_of_what_is_downstream_count_for_what_it_reads() {
    let mut world = World::new(
        "a\nb <- a\nc <- b",
        &[],
        &[("a", when("any_downstream_conditions")), ("c", when("cron_tick_passed('0 * * * *')"))],
    );
    world.ran("a b c", "a b c");
    assert_eq!(world.asks(), "");
    world.wait(3_600);
    assert_eq!(world.asks(), "a c");
    assert_eq!(world.asks(), "");
    let mut none = World::new("a\nb <- a", &[], &[("a", when("any_downstream_conditions"))]);
    assert_eq!(none.asks(), "", "nothing downstream has one");
}

#[test]
fn runs_are_known_by_their_tags_and_targets() {
    let tag = |world: &mut World, tag: &str| {
        let run = RunId::from_parts(world.position + 1, 0);
        world.tags.insert(run, BTreeSet::from([tag.to_owned()]));
    };
    let texts = [
        "any_deps_match(any_new_updates_have_run_tags('nightly'))",
        "any_deps_match(all_new_updates_have_run_tags('nightly'))",
        "any_deps_match(newly_updated and executed_with_tags('nightly'))",
        "any_deps_match(newly_updated and not executed_with_root_target)",
    ];
    // The tags of the runs of one turn, whether they were to do `b` too, and which of the texts are true then.
    for (runs, expect) in [
        (vec![("nightly", "a")], [true, true, true, true]),
        (vec![("hourly", "a b")], [false, false, false, false]),
        (vec![("nightly", "a"), ("hourly", "a b")], [true, false, false, false]),
        (vec![("hourly", "a"), ("nightly", "a b")], [true, false, true, false]),
    ] {
        for (text, is_true) in texts.iter().zip(expect) {
            let mut world = World::new("a\nb <- a", &[], &[("b", when(text))]);
            world.ran("a b", "a b");
            world.asks();
            for (name, targets) in &runs {
                tag(&mut world, name);
                world.ran(targets, "a");
            }
            assert_eq!(world.asks() == "b", is_true, "{text}: {runs:?}");
        }
    }
}

/// T-107: neither what a run has in hand nor what a backfill is still to make is asked for, and both can be told apart.
#[test]
fn t_107_backfills_have_partitions_in_hand() {
    let mut world = World::new("a\nb", &["a", "b"], &[("a", when("missing")), ("b", when("backfill_in_progress"))]);
    let backfill = |created_position, blocked| Backfill {
        id: RunId::from_parts(9, 9),
        revision: 1,
        selection: "a".to_owned(),
        created_at: "2024-01-04T00:00:00Z".parse().expect("time"),
        created_position,
        as_of: "2024-01-04".to_owned(),
        targets: vec![Target {
            asset: key("a"),
            ranges: vec![("2024-01-01".to_owned(), "2024-01-02".to_owned())],
            keys: Vec::new(),
            count: 2,
            planned: 0,
        }],
        is_newest_first: false,
        per_run: 1,
        state: BackfillState::Running,
        run: None,
        again: Vec::new(),
        blocked,
        done: 0,
        failed: 0,
    };
    world.backfills = vec![backfill(1, BTreeSet::new())];
    assert_eq!(world.asks(), "a[2024-01-03]");
    let is = |world: &World, text: &str| {
        let condition = when(text);
        let mut graph: Vec<Asset> = world.graph.assets().to_vec();
        graph[0].automation = Some(Automation { text: String::new(), condition });
        let graph = AssetGraph::new(graph, Vec::new()).expect("graph");
        let automated = Automated::new(&graph);
        let facts = Facts { graph: &graph, ..world.facts() };
        let found = automated.evaluate(&facts, &BTreeSet::from([key("a")]), &|_| Some(Memory::default()));
        found[0].parts[0].is_true
    };
    assert!(is(&world, "backfill_in_progress") && is(&world, "in_progress") && !is(&world, "run_in_progress"));
    world.in_progress.insert(unit("a[2024-01-03]"));
    assert!(is(&world, "run_in_progress"));
    assert_eq!(world.asks(), "", "the run has it in hand");
    world.position = 5;
    world.ran("a", "a[2024-01-01]");
    world.in_progress.clear();
    world.backfills = vec![backfill(1, BTreeSet::from([(key("a"), "2024-01-02".to_owned())]))];
    assert!(!is(&world, "backfill_in_progress"), "one is done, the other will not be made");
    world.backfills[0].state = BackfillState::Canceled;
    assert_eq!(world.asks(), "a[2024-01-02] a[2024-01-03]", "what a backfill left out is missing all the same");
}

#[test]
fn conditions_over_single_checks() {
    let check = |name: &str, blocking| subak_domain::Check {
        name: name.to_owned(),
        rule: subak_domain::CheckRule::RowCount { min: Some(1), max: None },
        severity: subak_domain::Severity::Warn,
        blocking,
        filter: None,
        tolerance: None,
    };
    for (text, each, expect) in [
        ("any_checks_match(check_failed)", "one", true),
        ("any_checks_match(check_failed)", "one two", false),
        ("any_checks_match(missing)", "one two", false),
        ("any_checks_match(missing)", "", true),
        ("all_checks_match(check_passed)", "one two", true),
        ("all_checks_match(check_passed)", "one", false),
        ("all_blocking_checks_match(check_passed)", "one", true),
        ("any_blocking_checks_match(check_failed)", "one", false),
        ("any_blocking_checks_match(check_failed)", "two", true),
        ("check_failed", "", false),
    ] {
        let mut world = World::new("a", &[], &[("a", when(text))]);
        let mut assets: Vec<Asset> = world.graph.assets().to_vec();
        assets[0].checks = vec![check("one", true), check("two", false)];
        world.graph = AssetGraph::new(assets, Vec::new()).expect("graph");
        if !each.is_empty() {
            let passed = |name: &str| (name.to_owned(), each.contains(name));
            let states = CheckStates { passed: true, each: BTreeMap::from(["one", "two"].map(passed)) };
            world.checks.insert(key("a"), states);
        }
        assert_eq!(world.asks() == "a", expect, "{text}: {each} passed");
    }
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
        ("on_cron('@daily')", &on_cron("@daily", "UTC").map(|found| found.to_string()).unwrap_or_default()),
        ("ignore('raw.* tag:slow', eager)", &format!("ignore('raw.* tag:slow', {})", eager())),
        ("with_label('why not', not missing)", "with_label('why not', not missing)"),
        ("all_blocking_checks_match(check_passed or missing)", "all_blocking_checks_match(check_passed or missing)"),
        ("executed_with_tags('a', \"b\")", "executed_with_tags('a', 'b')"),
        ("replace(missing and in_progress, in_progress, check_failed)", "missing and check_failed"),
        (
            "in_latest_time_window('36h') and freshness_failed(\"90m\")",
            "in_latest_time_window('36h') and freshness_failed('90m')",
        ),
    ] {
        assert_eq!(parse(text, "UTC").map(|condition| condition.to_string()).as_deref(), Ok(expect), "{text}");
    }
    for text in [
        "",
        "missing missing",
        "(missing",
        "missing)",
        "not",
        "nothing",
        "cron_tick_passed()",
        "freshness_failed('x')",
        "a;b",
        "missing, missing",
        "ignore('changed', eager)",
        "ignore(eager)",
        "any_checks_match(newly_updated)",
        "asset_matches('Not A Key', missing)",
        "replace(eager, execution_failed, missing)",
        "executed_with_tags()",
    ] {
        assert!(parse(text, "UTC").is_err(), "{text}");
    }
    let deep = format!("{}missing{}", "(".repeat(100), ")".repeat(100));
    assert!(parse(&deep, "UTC").is_err());
    for word in WORDS.iter().filter(|word| {
        !["_match", "allow", "ignore", "with_", "replace", "_tags", "cron", "newly_true"].iter().any(|part| word.contains(part))
    }) {
        assert!(parse(word, "UTC").is_ok(), "{word}");
    }
    // No word is in the list that is not read.
    for word in WORDS {
        assert!(!matches!(parse(word, "UTC"), Err(ConditionError::Unknown(_))), "{word}");
    }
    let doubled = (0..20).fold("missing".to_owned(), |found, _| format!("replace({found}, missing, missing or missing)"));
    assert!(parse(&doubled, "UTC").is_err(), "it would not fit into memory");
}
