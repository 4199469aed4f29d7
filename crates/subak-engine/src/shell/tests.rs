//! The shell with the real store in memory, the in-memory connection behind injected faults, and real steps: whatever fails
//! and wherever the process dies, going on gives the tables of an undisturbed run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use subak_connect::faulty::{Faults, Faulty};
use subak_connect::memory::Memory;
use subak_connect::{ConnectError, Connection, RowPrograms, TableName};
use subak_domain::{
    Asset, AssetGraph, AssetKey, Check, CheckRule, ConnectionName, CursorRule, Definition, Ingest, Reason, Severity, StepStatus,
    Version, Work, WriteMode,
};
use subak_store::MemoryStore;

use super::*;
use crate::{Connections, DataExecutor, Progress};

mod leaders;

struct Quiet;

impl Reporter for Quiet {
    fn event(&self, _: RunId, _: &RunEvent) {}
    fn progress(&self, _: &Progress) {}
}

/// A clock that stands still until somebody waits; then it jumps. Retries cost no time.
#[derive(Default)]
struct JumpingClock(std::sync::Mutex<i64>);

#[async_trait]
impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(*self.0.lock().expect("lock")).expect("time")
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_micros(200)).await;
        let mut now = self.0.lock().expect("lock");
        *now = (*now).max(deadline.as_millisecond());
    }
}

struct One(Faulty<Memory>);

#[async_trait]
impl Connections for One {
    async fn open(&self, _: &ConnectionName) -> Result<Arc<dyn Connection>, ConnectError> {
        Ok(Arc::new(self.0.clone()))
    }

    fn resolve(&self, text: &str, _: &mut dyn FnMut(&str) -> String) -> Result<String, ConnectError> {
        Ok(text.to_owned())
    }

    async fn folder(&self, _: &std::path::Path) -> Result<Arc<dyn Connection>, ConnectError> {
        Err(ConnectError::new(subak_connect::ConnectErrorKind::Config, "no program is started here"))
    }

    fn programs(&self) -> Arc<dyn RowPrograms> {
        Arc::new(NoPrograms)
    }
}

/// The streams of these tests compute nothing.
struct NoPrograms;

impl RowPrograms for NoPrograms {
    fn compile(
        &self,
        _: &arrow::datatypes::SchemaRef,
        _: &[(String, String)],
        _: Option<&str>,
    ) -> Result<Box<dyn subak_connect::RowProgram>, ConnectError> {
        Err(ConnectError::new(subak_connect::ConnectErrorKind::Internal, "no expressions here"))
    }
}

fn key(name: &str) -> AssetKey {
    name.parse().expect("key")
}

fn asset(name: &str, mode: WriteMode, cursor: bool, checks: Vec<Check>) -> Asset {
    let on: ConnectionName = "m".parse().expect("name");
    let ingest = Ingest {
        from: on.clone(),
        to: on,
        stream: "src".into(),
        mode,
        primary_key: if mode == WriteMode::Merge { vec!["id".into()] } else { Vec::new() },
        cursor: cursor.then(|| CursorRule::of("id".into())),
        columns: BTreeMap::new(),
        options: BTreeMap::new(),
        shape: subak_domain::Shape::default(),
        latest: None,
        history: subak_domain::History::default(),
        layout: subak_domain::Layout::default(),
    };
    Asset {
        key: key(name),
        definition: Definition::Ingest(ingest),
        upstream: Vec::new(),
        checks,
        version: Version::of(&[]),
        path: String::new(),
        group: String::new(),
        owner: None,
        tags: BTreeSet::new(),
        columns: BTreeMap::new(),
        description: None,
        retry: Retry::default(),
        timeout: Duration::from_secs(3600),
        pools: subak_domain::job::PoolSlots::new(),
        hooks: subak_domain::Hooks::default(),
        partitioning: None,
        automation: None,
        freshness: None,
    }
}

fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_new(schema, vec![ids]).expect("rows")
}

struct World {
    memory: Memory,
    store: MemoryStore,
    engine: Engine,
    actions: Vec<Action>,
    runs: AtomicU32,
    /// Whether a run whose process died is taken over; otherwise it is settled and resumed.
    is_taken_over: bool,
}

fn world(faults: &Faults, checks: &[Check]) -> World {
    let (memory, store) = (Memory::default(), MemoryStore::default());
    let assets = vec![
        asset("replaced", WriteMode::Replace, false, checks.to_vec()),
        asset("appended", WriteMode::Append, true, Vec::new()),
        asset("merged", WriteMode::Merge, true, Vec::new()),
    ];
    let graph = Arc::new(AssetGraph::new(assets, Vec::new()).expect("graph"));
    let actions = graph
        .assets()
        .iter()
        .map(|asset| Action {
            step: StepId::asset(&asset.key),
            work: Work::Materialize { asset: asset.key.clone(), full_refresh: false, range: None, partition: None },
            reason: Reason::SourceMayHaveNew,
            needs: Vec::new(),
            rule: subak_domain::Rule::default(),
        })
        .collect();
    let reporter: Arc<dyn Reporter> = Arc::new(Quiet);
    let connections = Arc::new(One(Faulty::new(memory.clone(), faults.clone())));
    let engine = Engine {
        log: Arc::new(store.clone()),
        leases: Arc::new(store.clone()),
        lease: None,
        clock: Arc::new(JumpingClock::default()),
        executor: Arc::new(DataExecutor {
            graph,
            connections,
            reporter: Arc::clone(&reporter),
            as_of: "2026-01-01 00:00:00".into(),
            timezone: jiff::tz::TimeZone::UTC,
            place: crate::Place::default(),
            invocations: crate::Invocations::default(),
        }),
        reporter,
        holder: "test".into(),
    };
    World { memory, store, engine, actions, runs: AtomicU32::new(0), is_taken_over: false }
}

impl World {
    fn limits() -> Limits {
        Limits { slots: 2.into(), ..Limits::default() }
    }

    async fn plan(&self) -> RunId {
        let run = RunId::from_parts(u64::from(self.runs.fetch_add(1, Ordering::Relaxed)), 0);
        self.engine.plan_run(run, RunEvent::planned(self.actions.clone(), "all", "test", "")).await.expect("planned");
        run
    }

    /// Runs until everything has succeeded, however often that takes.
    async fn run_to_success(&self) {
        let run = self.plan().await;
        for _ in 0..200 {
            match self.engine.run(run, &Self::limits(), &StopSignal::default()).await {
                Ok(state) if state.status == RunStatus::Succeeded => return,
                Ok(_) => self.engine.resume(run, "test").await.expect("resumed"),
                Err(_) => {
                    // The log refused: as if the process had died. The next one settles and resumes.
                    self.store.fail_after(None);
                    if self.is_taken_over {
                        let taken_over = self.engine.take_over(run, "dead", &Self::limits(), &StopSignal::default()).await;
                        assert_eq!(taken_over.expect("taken over").status, RunStatus::Succeeded, "lost attempts are tried again");
                        return;
                    }
                    self.engine.settle_lost(&[run], "dead").await.expect("settled");
                    match self.engine.resume(run, "test").await {
                        Ok(()) => {}
                        Err(EngineError::NotResumable { status: RunStatus::Succeeded, .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        panic!("the run never succeeds");
    }

    fn ids(&self, table: &str) -> Vec<i64> {
        let rows = self.memory.table(&TableName { schema: None, name: table.into() }).expect("table");
        let mut ids: Vec<i64> = rows.column(0).as_any().downcast_ref::<Int64Array>().expect("ids").values().to_vec();
        ids.sort_unstable();
        ids
    }

    fn assert_tables(&self, expect: std::ops::Range<i64>, what: &str) {
        for table in ["replaced", "appended", "merged"] {
            assert_eq!(self.ids(table), expect.clone().collect::<Vec<_>>(), "{table} after {what}");
        }
    }
}

#[tokio::test]
async fn faults_anywhere_lose_and_double_nothing() {
    for seed in 1..=40 {
        let faults = Faults::new(seed, 150);
        let world = world(&faults, &[]);
        world.memory.set_stream("src", rows(0..10));
        world.run_to_success().await;
        world.assert_tables(0..10, &format!("a full load with seed {seed}"));
        world.memory.set_stream("src", rows(0..25));
        world.run_to_success().await;
        world.assert_tables(0..25, &format!("an increment with seed {seed}"));
    }
}

#[tokio::test]
async fn a_crash_at_every_append_loses_and_doubles_nothing() {
    for (appends, is_taken_over) in (0..12).flat_map(|appends| [(appends, false), (appends, true)]) {
        let world = World { is_taken_over, ..world(&Faults::new(1, 0), &[]) };
        world.memory.set_stream("src", rows(0..10));
        world.run_to_success().await;
        world.memory.set_stream("src", rows(0..20));
        world.store.fail_after(Some(appends + 1));
        world.run_to_success().await;
        world.assert_tables(0..20, &format!("a crash after {appends} appends"));
    }
}

#[tokio::test]
async fn running_again_without_new_rows_changes_nothing() {
    let world = world(&Faults::new(1, 0), &[]);
    world.memory.set_stream("src", rows(0..10));
    world.run_to_success().await;
    let run = world.plan().await;
    let state = world.engine.run(run, &World::limits(), &StopSignal::default()).await.expect("run");
    for step in ["appended", "merged"] {
        let outcome = state.steps[&StepId::asset(&key(step))].outcome.clone().expect("outcome");
        let account = outcome.account.expect("account");
        assert!(account.is_balanced(), "{account:?}");
        if step == "appended" {
            assert!(!outcome.changed, "{step} {outcome:?}");
        }
    }
    world.assert_tables(0..10, "a second run");
}

#[tokio::test]
async fn a_blocking_check_keeps_the_old_table() {
    let check = Check {
        name: "unique(id)".into(),
        rule: CheckRule::Unique { columns: vec!["id".into()] },
        severity: Severity::Error,
        blocking: true,
        filter: None,
        tolerance: None,
    };
    let world = world(&Faults::new(1, 0), &[check]);
    world.memory.set_stream("src", rows(0..5));
    world.run_to_success().await;
    let twice = arrow::compute::concat_batches(&rows(0..1).schema(), [&rows(0..3), &rows(0..3)]).expect("rows");
    world.memory.set_stream("src", twice);
    let run = world.plan().await;
    let state = world.engine.run(run, &World::limits(), &StopSignal::default()).await.expect("run");
    let step = &state.steps[&StepId::asset(&key("replaced"))];
    let failure = step.failure.clone().expect("failure");
    assert_eq!((step.status, failure.code.as_str(), failure.class), (StepStatus::Failed, "SBK0312", FailureClass::Check));
    assert_eq!(world.ids("replaced"), [0, 1, 2, 3, 4]);
}

struct Panics;

#[async_trait]
impl StepExecutor for Panics {
    async fn execute(&self, _: RunId, action: &Action, _: &Inputs, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        match action.step.as_str() {
            "appended" => panic!("a bug"),
            "merged" => Err(failure::of_stop(stop.stopped().await, DATA_UNTOUCHED)),
            _ => Ok(StepOutcome::default()),
        }
    }

    async fn recover(&self, _: RunId, _: &Action) -> Option<StepOutcome> {
        None
    }
}

#[tokio::test]
async fn a_panic_fails_its_step_only_and_a_timeout_ends_the_wait() {
    let mut world = world(&Faults::new(1, 0), &[]);
    world.engine.executor = Arc::new(Panics);
    let run = world.plan().await;
    let merged = StepId::asset(&key("merged"));
    let limits = Limits { timeouts: [(merged.clone(), Duration::from_secs(5))].into(), ..World::limits() };
    let state = world.engine.run(run, &limits, &StopSignal::default()).await.expect("run");
    assert_eq!(state.steps[&StepId::asset(&key("replaced"))].status, StepStatus::Succeeded);
    let panicked = state.steps[&StepId::asset(&key("appended"))].failure.clone().expect("failure");
    assert_eq!((panicked.code.as_str(), panicked.causes.as_slice()), ("SBK0315", &["a bug".to_owned()][..]));
    let late = &state.steps[&merged];
    assert_eq!((late.attempt_count, late.failure.clone().expect("failure").code.as_str()), (3, "SBK0313"));
}

#[tokio::test]
async fn cancel_stops_running_steps() {
    let mut world = world(&Faults::new(1, 0), &[]);
    world.engine.executor = Arc::new(Panics);
    let merged = world.actions.iter().position(|action| action.step.as_str() == "merged").expect("merged");
    world.actions = vec![world.actions.remove(merged)];
    let run = world.plan().await;
    let cancel = StopSignal::default();
    cancel.stop(StopReason::Canceled);
    let state = world.engine.run(run, &World::limits(), &cancel).await.expect("run");
    assert_eq!(state.status, RunStatus::Canceled);
}
