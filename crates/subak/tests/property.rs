//! Any split of the same input into batches, runs and failures gives the same tables, for every write mode.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use subak_connect::connector::find;
use subak_connect::memory::Memory;
use subak_connect::{
    Batch, ConnectError, ConnectErrorKind, Connection, ConnectionConfig, OpenRequest, ReadRequest, RowPrograms, Source,
    SourceItem, StreamInfo, convert,
};
use subak_connectors::{CONNECTORS, DuckDbPrograms};
use subak_domain::shape::{Changes, Deletes, FilterExit};
use subak_domain::write::{Latest, OrderBy, Tie};
use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, ConnectionName, CursorRule, Definition, History, Ingest, Reason, Retry, RunEvent, RunId,
    Shape, StepId, Version, Work, WriteMode,
};
use subak_engine::{Connections, DataExecutor, Progress, Reporter, StepExecutor, StopSignal};

/// Numbers by xorshift64*.
#[derive(Debug, Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }
}

/// A source that cuts its batches anywhere and sometimes fails between two of them.
struct Cutting {
    memory: Memory,
    dice: Dice,
    fails: bool,
}

impl Connection for Cutting {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
}

#[async_trait]
impl Source for Cutting {
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        self.memory.discover().await
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let (dice, fails) = (self.dice.clone(), self.fails);
        let inner = self.memory.read(request);
        inner
            .flat_map(move |item| {
                let mut items = Vec::new();
                match item {
                    Ok(SourceItem::Batch(batch)) => {
                        let mut at = 0;
                        while at < batch.row_count() {
                            let length = (1 + dice.below(7) as usize).min(batch.row_count() - at);
                            items.push(Ok(SourceItem::Batch(Batch::new(batch.records.slice(at, length)))));
                            at += length;
                            if fails && dice.below(12) == 0 {
                                items.push(Err(ConnectError::new(ConnectErrorKind::Unavailable, "injected")));
                            }
                        }
                        if batch.row_count() == 0 {
                            items.push(Ok(SourceItem::Batch(batch)));
                        }
                    }
                    other => items.push(other),
                }
                stream::iter(items)
            })
            .boxed()
    }
}

struct World {
    source: Arc<Cutting>,
    database: Arc<dyn Connection>,
}

#[async_trait]
impl Connections for World {
    fn resolve(&self, text: &str, _: &mut dyn FnMut(&str) -> String) -> Result<String, ConnectError> {
        Ok(text.to_owned())
    }

    async fn open(&self, name: &ConnectionName) -> Result<Arc<dyn Connection>, ConnectError> {
        Ok(if name.as_str() == "source" { Arc::clone(&self.source) as Arc<dyn Connection> } else { Arc::clone(&self.database) })
    }

    async fn folder(&self, _: &std::path::Path) -> Result<Arc<dyn Connection>, ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Config, "no program is started here"))
    }

    fn programs(&self) -> Arc<dyn RowPrograms> {
        Arc::new(DuckDbPrograms)
    }
}

struct Quiet;

impl Reporter for Quiet {
    fn event(&self, _: RunId, _: &RunEvent) {}
    fn progress(&self, _: &Progress) {}
}

/// One row: key, what grows with every change, value.
type Line = (i64, i64, String);

fn rows(lines: &[Line]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(lines.iter().map(|line| Some(line.0)).collect::<Int64Array>());
    let versions: ArrayRef = Arc::new(lines.iter().map(|line| Some(line.1)).collect::<Int64Array>());
    let values: ArrayRef = Arc::new(lines.iter().map(|line| Some(line.2.as_str())).collect::<StringArray>());
    let columns = [("id", ids, true), ("version", versions, true), ("value", values, true)];
    RecordBatch::try_from_iter_with_nullable(columns).expect("rows")
}

fn ingest(mode: WriteMode, has_cursor: bool) -> Ingest {
    Ingest {
        from: "source".parse().expect("name"),
        to: "warehouse".parse().expect("name"),
        stream: "s".to_owned(),
        mode,
        primary_key: if mode.needs_key() { vec!["id".to_owned()] } else { Vec::new() },
        cursor: has_cursor.then(|| CursorRule::of("version".to_owned())),
        columns: BTreeMap::new(),
        options: BTreeMap::new(),
        shape: Shape::default(),
        latest: None,
        history: History::default(),
        layout: subak_domain::Layout::default(),
    }
}

async fn database() -> Arc<dyn Connection> {
    let mut config = ConnectionConfig::default();
    config.values.insert("path".into(), ":memory:".into());
    let request = OpenRequest { name: "w".into(), config, temporary: PathBuf::from("."), ..OpenRequest::default() };
    find(CONNECTORS, "duckdb").expect("duckdb").open(request).await.expect("open")
}

/// Loads the states of a stream one after the other, each until it succeeds.
struct Loader {
    executor: DataExecutor,
    memory: Memory,
    database: Arc<dyn Connection>,
    run: u64,
}

impl Loader {
    async fn new(ingest: Ingest, dice: &Dice, fails: bool) -> Self {
        let memory = Memory::default();
        let asset = Asset {
            key: "t".parse().expect("key"),
            definition: Definition::Ingest(ingest),
            upstream: Vec::new(),
            checks: Vec::new(),
            version: Version::of(&[]),
            path: String::new(),
            group: String::new(),
            owner: None,
            tags: BTreeSet::new(),
            columns: BTreeMap::new(),
            description: None,
            retry: Retry::default(),
            timeout: Duration::from_secs(60),
            pools: subak_domain::job::PoolSlots::new(),
            hooks: subak_domain::Hooks::default(),
            partitioning: None,
            automation: None,
            freshness: None,
        };
        let database = database().await;
        let source = Arc::new(Cutting { memory: memory.clone(), dice: dice.clone(), fails });
        let world = World { source, database: Arc::clone(&database) };
        let executor = DataExecutor {
            graph: Arc::new(AssetGraph::new(vec![asset], Vec::new()).expect("graph")),
            connections: Arc::new(world),
            reporter: Arc::new(Quiet),
            as_of: "2030-01-01 00:00:00".to_owned(),
            timezone: jiff::tz::TimeZone::UTC,
            place: subak_engine::Place::default(),
            invocations: subak_engine::Invocations::default(),
        };
        Self { executor, memory, database, run: 0 }
    }

    async fn load(&mut self, lines: &[Line]) {
        self.memory.set_stream("s", rows(lines));
        let key: AssetKey = "t".parse().expect("key");
        loop {
            self.run += 1;
            let action = Action {
                step: StepId::asset(&key),
                work: Work::Materialize { asset: key.clone(), full_refresh: false, range: None, partition: None },
                reason: Reason::Selected,
                needs: Vec::new(),
                rule: subak_domain::Rule::default(),
            };
            let run = RunId::from_parts(self.run * 1000, u128::from(self.run));
            match self.executor.execute(run, &action, &subak_engine::Inputs::default(), &StopSignal::default()).await {
                Ok(outcome) => {
                    let account = outcome.account.expect("an account");
                    assert!(account.is_balanced(), "{account:?}");
                    return;
                }
                Err(failure) => assert!(failure.message.contains("injected"), "{failure:?}"),
            }
        }
    }

    async fn table(&self, sql: &str) -> Vec<Vec<String>> {
        let mut batches = self.database.sql().expect("sql").query(sql);
        let mut lines = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.expect(sql);
            for row in 0..batch.num_rows() {
                lines.push(batch.columns().iter().map(|array| convert::text_at(array, row)).collect());
            }
        }
        lines.sort();
        lines
    }
}

const ALL: &str = "select * from main.t";

/// States of a table whose rows are inserted and changed, each change with a higher version.
fn states(dice: &Dice) -> Vec<Vec<Line>> {
    let mut table: BTreeMap<i64, Line> = BTreeMap::new();
    let mut version = 0;
    (0..5)
        .map(|_| {
            for _ in 0..dice.below(25) {
                // Several rows may share a version: a tie.
                version += i64::from(dice.below(3) > 0);
                let id = dice.below(20) as i64;
                table.insert(id, (id, version, format!("v{}", dice.below(4))));
            }
            table.values().cloned().collect()
        })
        .collect()
}

#[tokio::test]
async fn a_table_in_states() {
    for seed in 0..6 {
        for (mode, has_cursor) in
            [(WriteMode::Replace, false), (WriteMode::Merge, false), (WriteMode::Merge, true), (WriteMode::DeleteInsert, true)]
        {
            let dice = Dice::new(seed);
            let states = states(&dice);
            let mut split = Loader::new(ingest(mode, has_cursor), &dice, true).await;
            for state in &states {
                split.load(state).await;
            }
            let mut whole = Loader::new(ingest(mode, has_cursor), &dice, false).await;
            whole.load(&states[4]).await;
            assert_eq!(split.table(ALL).await, whole.table(ALL).await, "seed {seed}, {mode:?}, cursor {has_cursor}");
        }
    }
}

#[tokio::test]
async fn a_log_that_grows() {
    for seed in 0..6 {
        let dice = Dice::new(seed + 100);
        let mut log: Vec<Line> = Vec::new();
        let mut split = Loader::new(ingest(WriteMode::Append, true), &dice, true).await;
        let mut version = 0;
        for _ in 0..5 {
            for _ in 0..dice.below(30) {
                version += i64::from(dice.below(3) > 0);
                // Equal rows are rows of their own.
                log.push((dice.below(3) as i64, version, format!("v{}", dice.below(2))));
            }
            split.load(&log).await;
        }
        let mut whole = Loader::new(ingest(WriteMode::Append, true), &dice, false).await;
        whole.load(&log).await;
        assert_eq!(split.table(ALL).await, whole.table(ALL).await, "seed {seed}");
    }
}

#[tokio::test]
async fn rows_that_leave_the_filter() {
    for seed in 0..6 {
        let dice = Dice::new(seed + 200);
        let states = states(&dice);
        let mut filtered = ingest(WriteMode::Merge, true);
        filtered.shape.filter = Some("value <> 'v0'".to_owned());
        filtered.shape.on_filter_exit = FilterExit::Delete;
        let mut split = Loader::new(filtered.clone(), &dice, true).await;
        for state in &states {
            split.load(state).await;
        }
        let mut whole = Loader::new(filtered, &dice, false).await;
        whole.load(&states[4]).await;
        assert_eq!(split.table(ALL).await, whole.table(ALL).await, "seed {seed}");
    }
}

#[tokio::test]
async fn histories_end_at_the_state_and_never_overlap() {
    for seed in 0..6 {
        let dice = Dice::new(seed + 300);
        let states = states(&dice);
        let mut kept = ingest(WriteMode::Snapshot, false);
        kept.history.closes_missing = true;
        let mut split = Loader::new(kept, &dice, true).await;
        for state in &states {
            split.load(state).await;
        }
        let current = split.table("select id, version, value from main.t where is_current").await;
        let mut expect: Vec<Vec<String>> =
            states[4].iter().map(|(id, version, value)| vec![id.to_string(), version.to_string(), value.clone()]).collect();
        expect.sort();
        assert_eq!(current, expect, "seed {seed}");
        let overlaps = "select * from main.t a join main.t b on a.id = b.id and a.version <> b.version \
                        where a.valid_from < coalesce(b.valid_to, timestamp '9999-01-01') and b.valid_from < coalesce(a.valid_to, timestamp '9999-01-01')";
        assert_eq!(split.table(overlaps).await, Vec::<Vec<String>>::new(), "seed {seed}");
    }
}

#[tokio::test]
async fn change_events_in_any_order() {
    for seed in 0..6 {
        for deletes in [Deletes::Tombstone, Deletes::Remove] {
            let dice = Dice::new(seed + 400);
            let events: Vec<Line> = (0..80)
                .map(|version| {
                    let word = if dice.below(4) == 0 { "delete" } else { "update" };
                    (dice.below(12) as i64, version, word.to_owned())
                })
                .collect();
            let mut applied = ingest(WriteMode::Merge, false);
            applied.shape.changes = Some(Changes {
                operation: "value".to_owned(),
                delete_when: vec!["delete".to_owned()],
                upsert_when: vec!["update".to_owned()],
                version: "version".to_owned(),
                deletes,
            });
            let order = vec![OrderBy { column: "version".to_owned(), is_descending: true, nulls_first: false }];
            applied.latest = Some(Latest { order, tie: Tie::Last, is_against_table: true });
            let mut whole = Loader::new(applied.clone(), &dice, false).await;
            whole.load(&events).await;
            let mut split = Loader::new(applied, &dice, true).await;
            let mut shuffled = events.clone();
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, dice.below(at as u64 + 1) as usize);
            }
            let mut at = 0;
            while at < shuffled.len() {
                let length = (1 + dice.below(20) as usize).min(shuffled.len() - at);
                split.load(&shuffled[at..at + length]).await;
                if dice.below(3) == 0 {
                    // Delivered again.
                    split.load(&shuffled[..at + length]).await;
                }
                at += length;
            }
            assert_eq!(split.table(ALL).await, whole.table(ALL).await, "seed {seed}, {deletes:?}");
        }
    }
}
