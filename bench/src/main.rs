//! Cases that the libraries are measured by. Prints one JSON object per case: CPU seconds of the process, wall seconds, peak memory.
//!
//! `subak-bench steps`: 100 steps in sequence and 1,000 in fan-out that do nothing, recorded durably in a real store.
//! `subak-bench mongodb FILE`: serves the documents of an NDJSON file as the collection `ewallet.transactions`, by the tests' double of a MongoDB
//! server; prints its address and stays until its input ends.
//! `subak-bench automation`: 10,000 assets that keep themselves fresh: all evaluated, then after a change of one.
//! `subak-bench queue STATE COUNT`: writes so many runs that wait into the state of a project, of its job `noop`.
//! `subak-bench load`: a project of 10,000 assets is loaded and resolved, then once more with one changed file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use subak_domain::config::{ConfigSchema, Field, FieldKind};
use subak_domain::job::{Rule, TaskWork};
use subak_domain::{
    Action, AssetGraph, AssetKey, Automation, Event, Failure, Reason, RunEvent, RunId, RunStatus, Snapshot, StepId, StepOutcome,
    Work,
};
use subak_engine::{Clock, Engine, Inputs, Limits, Progress, Reporter, StepExecutor, StopSignal, SystemClock};
use subak_plan::automation;
use subak_project::{ConnectorInfo, Content, Files, LoadOptions, Loader};
use subak_store::{Append, EventLog, SqliteStore};

/// Assets in the project that is loaded.
const ASSET_COUNT: usize = 10_000;

struct Nothing;

#[async_trait]
impl StepExecutor for Nothing {
    async fn execute(&self, _: RunId, _: &Action, _: &Inputs, _: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        Ok(StepOutcome { changed: true, ..StepOutcome::default() })
    }

    async fn recover(&self, _: RunId, _: &Action) -> Option<StepOutcome> {
        None
    }
}

impl Reporter for Nothing {
    fn event(&self, _: RunId, _: &RunEvent) {}
    fn progress(&self, _: &Progress) {}
}

/// CPU seconds of this process so far, all threads.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let micro = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one process")]
    let seconds = micro as f64 / 1e6;
    seconds
}

#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement that prints")]
fn measure<T>(case: &str, unit_count: usize, work: impl FnOnce() -> T) -> T {
    let (cpu, wall) = (cpu_seconds(), std::time::Instant::now());
    let result = work();
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    let peak_kib = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage").max_rss();
    println!("{}", json!({ "case": case, "units": unit_count, "cpu_s": cpu, "wall_s": wall, "peak_rss_mib": peak_kib / 1024 }));
    result
}

fn action(name: &str, needs: Vec<StepId>) -> Action {
    let asset: AssetKey = name.parse().expect("key");
    Action {
        step: StepId::asset(&asset),
        work: Work::Materialize { asset, full_refresh: false, range: None, partition: None },
        reason: Reason::Missing,
        needs,
        rule: Rule::default(),
    }
}

fn steps(case: &str, actions: Vec<Action>) {
    let folder = tempfile::tempdir().expect("folder");
    let store = SqliteStore::open(&folder.path().join("state.db")).expect("store");
    let engine = Engine {
        log: Arc::new(store.clone()),
        leases: Arc::new(store),
        lease: None,
        clock: Arc::new(SystemClock),
        executor: Arc::new(Nothing),
        reporter: Arc::new(Nothing),
        holder: "bench".into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let limits = Limits { slots: 16.into(), ..Limits::default() };
    measure(case, actions.len(), || {
        runtime.block_on(async {
            let run = RunId::from_parts(1, 1);
            engine.plan_run(run, RunEvent::planned(actions, "bench", "bench", "")).await.expect("planned");
            let state = engine.run(run, &limits, &StopSignal::default()).await.expect("run");
            assert_eq!(state.status, RunStatus::Succeeded);
        });
    });
}

fn project() -> Files {
    let mut files = Files::new();
    let mut add = |path: String, text: String| files.insert(path.into(), Content::Text(text.into()));
    add("subak.yml".into(), "project: big\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n".into());
    for at in 0..ASSET_COUNT {
        let (layer, upstream) = (at / 1000, at.saturating_sub(1000) + at % 7);
        let from = if layer == 0 {
            String::new()
        } else {
            format!(" from l{}.a{upstream} t join l0.a{} u on u.id = t.id", upstream / 1000, at % 1000)
        };
        let columns = if layer == 0 { "1 as id, 'x' as name, 2.5 as amount" } else { "t.id, u.name, t.amount * 2 as amount" };
        add(
            format!("assets/l{layer}/a{at}.sql"),
            format!("/* subak\nstored_as: table\nchecks: [ {{ not_null: id }} ]\n*/\nselect {columns}{from}\n"),
        );
    }
    files
}

fn options(environment: &BTreeMap<String, String>) -> LoadOptions<'_> {
    const FIELDS: &[Field] = &[Field { name: "path", kind: FieldKind::Path, is_required: true, doc: "" }];
    const CONNECTORS: &[ConnectorInfo] = &[ConnectorInfo {
        kind: "duckdb",
        summary: "",
        config: ConfigSchema { connection: FIELDS, stream: &[] },
        is_source: true,
        writes: subak_project::Writes::Rows,
        dialect: Some("duckdb"),
        stores_as: subak_domain::StoredAs::USUAL,
        has_schemas: true,
        runs_statements: true,
        lists_files: false,
    }];
    LoadOptions {
        connectors: CONNECTORS,
        environment,
        profile: None,
        as_of: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        vars: environment,
    }
}

fn load() {
    let environment = BTreeMap::new();
    let options = options(&environment);
    let mut files = project();
    let mut loader = Loader::default();
    let loaded = measure("load 10,000 assets", ASSET_COUNT, || loader.load(&files, &options));
    assert_eq!(loaded.project.expect("valid").graph.assets().len(), ASSET_COUNT);
    files.insert("assets/l5/a5000.sql".into(), Content::Text("select 1 as id, 'y' as name, 2.5 as amount\n".into()));
    let again = measure("load again, one changed file", 1, || loader.load(&files, &options));
    let project = again.project.expect("valid");
    measure("column lineage of all assets", ASSET_COUNT, || project.all_columns());
}

/// Assets of ten layers, each but those of the first with `automation: on_upstream_update`.
fn automation() {
    let files = project();
    let environment = BTreeMap::new();
    let options = options(&environment);
    let loaded = Loader::default().load(&files, &options).project.expect("valid");
    let mut assets = loaded.graph.assets().to_vec();
    for asset in assets.iter_mut().filter(|asset| !asset.upstream.is_empty()) {
        asset.automation = Some(Automation { text: "on_upstream_update".to_owned(), condition: automation::eager() });
    }
    let graph = AssetGraph::new(assets, Vec::new()).expect("a graph");
    let run = RunId::from_parts(1, 1);
    let made = |position: u64, key: &AssetKey| {
        let version = graph.get(key).map(|asset| asset.version.clone());
        let outcome = StepOutcome { changed: true, version, ..StepOutcome::default() };
        let event = RunEvent::StepSucceeded { step: StepId::asset(key), outcome };
        Event { position, run, sequence: position, at: jiff::Timestamp::UNIX_EPOCH, event }
    };
    let mut snapshot = Snapshot::default();
    for (position, asset) in (1..).zip(graph.assets()) {
        snapshot.apply(&made(position, &asset.key));
    }
    let automated = measure("automation, 10,000 assets are taken up", ASSET_COUNT, || automation::Automated::new(&graph));
    let all: BTreeSet<AssetKey> = graph.assets().iter().map(|asset| asset.key.clone()).collect();
    let (nothing, none, checks) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let (targets, tags, failed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let facts = automation::Facts {
        graph: &graph,
        snapshot: &snapshot,
        now: jiff::Timestamp::UNIX_EPOCH,
        updated: &nothing,
        targets: &targets,
        tags: &tags,
        in_progress: &none,
        backfills: &[],
        failed: &failed,
        checks: &checks,
    };
    let first = measure("automation, all evaluated", ASSET_COUNT, || {
        automated.evaluate(&facts, &all, &|_| Some(automation::Memory::default()))
    });
    let memory: BTreeMap<AssetKey, automation::Memory> =
        first.into_iter().map(|decision| (decision.asset, decision.memory)).collect();
    let changed: AssetKey = "l0.a77".parse().expect("key");
    let update =
        automation::Update { at: jiff::Timestamp::UNIX_EPOCH, began_at: jiff::Timestamp::UNIX_EPOCH, run, is_change: true };
    let updated = BTreeMap::from([((changed.clone(), String::new()), vec![update])]);
    let facts = automation::Facts { updated: &updated, ..facts };
    let decisions = measure("automation, one of 10,000 changed", 1, || {
        automated.evaluate(&facts, &automated.near([&changed]), &|asset| memory.get(asset).cloned())
    });
    assert!(!decisions.is_empty() && decisions.len() < ASSET_COUNT, "only what is near: {}", decisions.len());
}

#[expect(clippy::print_stdout, reason = "whoever started it reads the address")]
fn mongodb(path: &str) {
    let text = std::fs::read_to_string(path).expect("the file");
    let double = subak_testkit::MongoDouble::start();
    let document = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        match bson::Bson::try_from(value).expect("BSON") {
            bson::Bson::Document(document) => document,
            other => panic!("no document: {other}"),
        }
    };
    double.insert("ewallet", "transactions", text.lines().map(document));
    drop(text);
    println!("{}", double.uri());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("the end of the input");
}

/// Runs that wait for a server.
fn queue(state: &str, count: u64) {
    let store = SqliteStore::open(std::path::Path::new(state)).expect("store");
    let now = SystemClock.now();
    let first = u64::try_from(now.as_millisecond()).expect("a time");
    let rule = Rule { task: "a".into(), ..Rule::default() };
    let work = Work::Task(TaskWork::Wait { wait_ms: 0 });
    let action = Action { step: StepId::task("a"), work, reason: Reason::Job, needs: Vec::new(), rule };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let planned = |at: u64| {
        let event = RunEvent::Planned {
            actions: vec![action.clone()],
            selection: "job noop".into(),
            trigger: "bench".into(),
            as_of: "2026-11-21".into(),
            job: Some("noop".into()),
            params: BTreeMap::new(),
            interval: None,
            for_server: true,
        };
        Append { run: RunId::from_parts(first, u128::from(at)), expected: 1, events: vec![(now, event)], fence: None }
    };
    runtime.block_on(async {
        for from in (0..count).step_by(1000) {
            let group = (from..count.min(from + 1000)).map(|at| store.append(planned(at)));
            futures::future::try_join_all(group).await.expect("written");
        }
    });
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("steps") => {
            let name = |at: usize| format!("s{at:04}");
            let chain = (0..100).map(|at: usize| {
                action(
                    &name(at),
                    at.checked_sub(1).map(|before| StepId::asset(&name(before).parse().expect("key"))).into_iter().collect(),
                )
            });
            steps("100 steps in sequence", chain.collect());
            steps("1,000 steps in fan-out", (0..1000).map(|at| action(&name(at), Vec::new())).collect());
        }
        Some("automation") => automation(),
        Some("queue") => {
            let argument = |at: usize| std::env::args().nth(at).expect("STATE COUNT");
            queue(&argument(2), argument(3).parse().expect("a number"));
        }
        Some("mongodb") => mongodb(&std::env::args().nth(2).expect("a file")),
        _ => load(),
    }
}
