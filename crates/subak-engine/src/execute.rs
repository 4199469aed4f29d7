//! What a step does: loads a stream, builds a query's result, evaluates checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use subak_connect::sql::Incremental;
use subak_connect::{
    Audit, AuditResult, BuildRequest, Commit, Committed, ConnectError, ConnectErrorKind, Connection, RowPrograms, Slice,
    SlicePart, Staged, TableName, convert,
};
use subak_domain::partition::asks_for_moments;
use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, Check, CheckOutcome, CheckRule, Column, ConnectionName, CursorRange, Definition,
    Failure, FailureClass, Hook, LoadId, Partition, PartitionRule, Reason, RunEvent, RunId, Severity, SqlAsset, StandaloneCheck,
    StepId, StepOutcome, StoredAs, Version, Work, WriteMode,
};

use crate::failure::{self, DATA_BEFORE, DATA_NOT_BEGUN, DATA_PUBLISHED, DATA_UNTOUCHED};
use crate::load::RunContext;
use crate::script::Call;
use crate::{Inputs, Invocations, Place, StepExecutor, StopSignal, load, orphan, replay};

/// How long statements after a publication may take when its process has died before it could say so.
const RECOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections by their names in the project. The binary implements it: it has the registry, the settings and the secrets.
#[async_trait]
pub trait Connections: Send + Sync {
    /// The open connection; opened on first use and shared afterwards.
    async fn open(&self, name: &ConnectionName) -> Result<Arc<dyn Connection>, ConnectError>;
    /// Leaves the system of a connection to somebody else: where this process keeps others out, the connection is closed as soon as nobody uses it,
    /// and opened again when the value is dropped. Waits for that.
    async fn lend(&self, name: &ConnectionName) -> Result<Box<dyn Send + Sync>, ConnectError> {
        let _name = name;
        Ok(Box::new(()))
    }
    /// The files of a folder on this machine, as a source.
    async fn folder(&self, path: &Path) -> Result<Arc<dyn Connection>, ConnectError>;
    /// What evaluates expressions over rows in flight.
    fn programs(&self) -> Arc<dyn RowPrograms>;
    /// A declared text with its references (`${NAME}`, `${secret:name}`) filled in. `literal` makes what stands between them; what it makes is
    /// not looked at for references, for it may come from data.
    fn resolve(&self, text: &str, literal: &mut dyn FnMut(&str) -> String) -> Result<String, ConnectError>;
}

/// Takes what happens, for people who watch.
pub trait Reporter: Send + Sync {
    /// An event was recorded.
    fn event(&self, run: RunId, event: &RunEvent);
    /// A step made progress. Not recorded.
    fn progress(&self, progress: &Progress);
}

/// How far a step is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The step.
    pub step: StepId,
    /// Rows read so far.
    pub rows: u64,
    /// Bytes in memory of the rows read so far.
    pub bytes: u64,
}

/// Executes the steps of data plans.
pub struct DataExecutor {
    /// Definitions of what the plan names.
    pub graph: Arc<AssetGraph>,
    /// The outside systems.
    pub connections: Arc<dyn Connections>,
    /// Who watches.
    pub reporter: Arc<dyn Reporter>,
    /// The time that counts as now, as wall-clock text in the project's time zone, for example `2026-11-21 08:30:00`.
    pub as_of: String,
    /// The project's time zone.
    pub timezone: TimeZone,
    /// Where programs run.
    pub place: Place,
    /// Programs that make several assets at once.
    pub invocations: Invocations,
}

/// One attempt: what it belongs to and how it is stopped.
pub(crate) struct Attempt<'a> {
    pub(crate) step: &'a StepId,
    pub(crate) load: LoadId,
    /// The definition is not the one that made the table: what was read under it may not be what is meant now.
    pub(crate) is_redefined: bool,
    pub(crate) run: RunContext,
    pub(crate) stop: &'a StopSignal,
    pub(crate) reporter: &'a dyn Reporter,
}

#[async_trait]
impl StepExecutor for DataExecutor {
    async fn execute(
        &self,
        run: RunId,
        action: &Action,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        match &action.work {
            Work::Materialize { asset, full_refresh, range, partition } => {
                let asset = self.asset(asset)?;
                let attempt = self.attempt(run, action, asset, stop);
                let slice = self.slice(asset, partition.as_ref())?;
                let how = How { full_refresh: *full_refresh, range: range.as_ref(), slice: slice.as_ref() };
                // What goes on has had its statements.
                let is_new = inputs.adopted_after.is_none();
                if is_new && !asset.hooks.before.is_empty() && self.committed(asset, &attempt).await?.is_none() {
                    self.run_hooks(asset, &asset.hooks.before, "before", &attempt, DATA_BEFORE).await?;
                }
                let call = Call { run, action, inputs };
                let mut outcome = self.materialize(asset, &how, &attempt, call).await?;
                // A part of the stream says nothing about the rest of the table.
                outcome.version = range.is_none().then(|| asset.version.clone());
                outcome.is_new_table &= slice.is_some();
                outcome.partition = slice.map(|slice| slice.partition.key);
                let after = self.run_hooks(asset, &asset.hooks.after, "after", &attempt, DATA_PUBLISHED).await;
                if let Err(mut failure) = after {
                    // Not the version that is declared: the asset is due until its statements have run. A stream always is.
                    let is_due = matches!(asset.definition, Definition::Ingest(_));
                    let version = if is_due { asset.version.clone() } else { Version::of(&[("hooks", "not all have run")]) };
                    outcome.version = outcome.version.map(|_| version);
                    failure.published = Some(Box::new(outcome));
                    return Err(failure);
                }
                Ok(outcome)
            }
            Work::Replay { asset, rejects, values } => {
                let asset = self.asset(asset)?;
                let attempt = self.attempt(run, action, asset, stop);
                self.replay(asset, rejects, values, &attempt).await
            }
            Work::Observe { asset, known } => {
                let asset = self.asset(asset)?;
                self.observe(asset, known.as_ref(), Call { run, action, inputs }, stop).await
            }
            Work::Check { name } => {
                let check = self.graph.check(name).ok_or_else(|| moved_on(&format!("check `{name}`")))?;
                self.check(check, &self.context(run), stop).await
            }
            Work::Audit { asset } => self.audit(self.asset(asset)?, &self.context(run), stop).await,
            Work::Task(work) => self.task(run, action, work, inputs, stop).await,
        }
    }

    fn forget(&self, run: RunId, action: &Action) {
        // Of one that makes several assets each other one may still need it.
        if action.rule.invocation.is_none() {
            orphan::forget(&self.place.temporary, run, &action.step);
        }
    }

    fn goes_on(&self, run: RunId, action: &Action) -> bool {
        action.is_idle() || orphan::find(&self.place.temporary, run, &action.step).is_some()
    }

    async fn recover(&self, run: RunId, action: &Action) -> Option<StepOutcome> {
        let (Work::Materialize { asset, .. } | Work::Replay { asset, .. }) = &action.work else { return None };
        let asset = self.graph.get(asset)?;
        let connection = self.connections.open(asset.stored_in()?).await.ok()?;
        let stop = StopSignal::default();
        let attempt = self.attempt(run, action, asset, &stop);
        let committed = connection.sink()?.committed(&attempt.load).await.ok()??;
        if matches!(action.work, Work::Materialize { .. }) {
            // Nobody knows how far the statements after it came. The lease is not renewed meanwhile, so they have little time.
            let after = self.run_hooks(asset, &asset.hooks.after, "after", &attempt, DATA_PUBLISHED);
            tokio::time::timeout(RECOVER_TIMEOUT, after).await.ok()?.ok()?;
        }
        let is_whole = matches!(action.work, Work::Materialize { range: None, .. });
        let partition = match &action.work {
            Work::Materialize { partition, .. } => self.slice(asset, partition.as_ref()).ok()?.map(|slice| slice.partition.key),
            _ => None,
        };
        let outcome = load::found(&committed, committed.account, "the process died after this was published");
        let is_new_table = outcome.is_new_table && partition.is_some();
        Some(StepOutcome { version: is_whole.then(|| asset.version.clone()), partition, is_new_table, ..outcome })
    }
}

/// A wall-clock text of a zone as wall-clock text in UTC.
fn in_utc(text: &str, zone: &TimeZone) -> Option<String> {
    let wall: jiff::civil::DateTime = text.parse().ok()?;
    let instant = wall.to_zoned(zone.clone()).ok()?.timestamp();
    convert::format_datetime(instant.as_microsecond())
}

fn no_partition(asset: &Asset, why: &str) -> Box<Failure> {
    let message = format!("`{}` has no partition for this run: {why}", asset.key);
    let mut failure = failure::plain("SBK0331", message, DATA_NOT_BEGUN, FailureClass::Input);
    failure.help.push(format!("name one: `subak run {} --partition KEY`", asset.key));
    failure
}

pub(crate) fn moved_on(what: &str) -> Box<Failure> {
    let mut failure = failure::plain(
        "SBK0406",
        format!("{what} is not declared any more"),
        "the step was planned from an earlier version of the project; nothing of it was done",
        FailureClass::Input,
    );
    failure.help.push("start a new run: `subak run`".into());
    failure
}

/// The ability of a connection, or the bug that validation let it through without.
pub(crate) fn ability<T>(found: Option<T>, name: &ConnectionName, what: &str) -> Result<T, Box<Failure>> {
    found.ok_or_else(|| {
        let error = ConnectError::new(ConnectErrorKind::Config, format!("connection `{name}` cannot be used as a {what}"));
        failure::of_connect(&error, DATA_NOT_BEGUN)
    })
}

/// How an asset is brought up to date.
pub(crate) struct How<'a> {
    pub(crate) full_refresh: bool,
    pub(crate) range: Option<&'a CursorRange>,
    pub(crate) slice: Option<&'a Slice>,
}

impl DataExecutor {
    fn context(&self, run: RunId) -> RunContext {
        let micros = i64::try_from(run.unix_ms()).unwrap_or(0).saturating_mul(1000);
        let started_at = convert::format_datetime(micros).unwrap_or_default();
        let as_of_utc = in_utc(&self.as_of, &self.timezone).unwrap_or_else(|| self.as_of.clone());
        RunContext { id: run.to_string(), started_at, as_of: self.as_of.clone(), as_of_utc }
    }

    fn attempt<'a>(&'a self, run: RunId, action: &'a Action, asset: &Asset, stop: &'a StopSignal) -> Attempt<'a> {
        Attempt {
            step: &action.step,
            load: LoadId::new(run, &action.step, asset.version.as_str()),
            is_redefined: action.reason == Reason::DefinitionChanged,
            run: self.context(run),
            stop,
            reporter: self.reporter.as_ref(),
        }
    }

    /// The part of the asset's table that a step is about: the partition of its plan, else the last window that has ended at the time of the run.
    fn slice(&self, asset: &Asset, planned: Option<&Partition>) -> Result<Option<Slice>, Box<Failure>> {
        let Some(partitioning) = &asset.partitioning else {
            return match planned {
                None => Ok(None),
                Some(partition) => Err(moved_on(&format!("partition `{}` of `{}`", partition.key, asset.key))),
            };
        };
        let partition = match (planned, &partitioning.rule) {
            (Some(partition), _) => partition.clone(),
            // No grid: a grid has no last one.
            (None, PartitionRule::Time(windows)) => {
                let wall: Option<jiff::civil::DateTime> = self.as_of.parse().ok();
                let now = wall.and_then(|wall| wall.to_zoned(self.timezone.clone()).ok()).map(|zoned| zoned.timestamp());
                let last = now.and_then(|now| windows.partition(windows.last(now)?));
                last.ok_or_else(|| no_partition(asset, "no window of it has ended yet"))?
            }
            (None, _) => return Err(no_partition(asset, "its partitions are no windows of time, so that one has to be named")),
        };
        // A query that asks for moments has moments.
        let is_instant = match &asset.definition {
            Definition::Sql(sql) if asks_for_moments(&sql.sql) => Some(true),
            _ => None,
        };
        let parts = partitioning.parts(&partition);
        let parts = parts.ok_or_else(|| moved_on(&format!("partition `{}` of `{}`", partition.key, asset.key)))?;
        let part = |(column, of): (&str, Partition)| SlicePart { column: column.to_owned(), of };
        let parts = parts.into_iter().map(part).collect();
        Ok(Some(Slice { partition, parts, is_instant }))
    }

    fn asset(&self, key: &AssetKey) -> Result<&Asset, Box<Failure>> {
        self.graph.get(key).ok_or_else(|| moved_on(&format!("asset `{key}`")))
    }

    pub(crate) async fn open(&self, name: &ConnectionName, stop: &StopSignal) -> Result<Arc<dyn Connection>, Box<Failure>> {
        match stop.guard(self.connections.open(name)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failure::of_connect(&error, DATA_NOT_BEGUN)),
            Err(reason) => Err(failure::of_stop(reason, DATA_NOT_BEGUN)),
        }
    }

    async fn materialize(
        &self,
        asset: &Asset,
        how: &How<'_>,
        attempt: &Attempt<'_>,
        call: Call<'_>,
    ) -> Result<StepOutcome, Box<Failure>> {
        match &asset.definition {
            Definition::Ingest(ingest) | Definition::Seed(ingest) => {
                let source = self.open(&ingest.from, attempt.stop).await?;
                let destination = self.open(&ingest.to, attempt.stop).await?;
                let source = ability(source.source(), &ingest.from, "source")?;
                let sink = ability(destination.sink(), &ingest.to, "destination")?;
                let programs = self.connections.programs();
                let (full_refresh, range, slice) = (how.full_refresh, how.range, how.slice);
                let programs = programs.as_ref();
                load::Ingesting { asset, ingest, source, sink, programs, full_refresh, range, slice, replayed: None, attempt }
                    .run()
                    .await
            }
            Definition::Sql(sql) => {
                let connection = self.open(&sql.on, attempt.stop).await?;
                build(asset, sql, connection.as_ref(), how, attempt).await
            }
            Definition::Script(script) => self.script(asset, script, how, attempt, call).await,
            Definition::Dbt(node) => self.dbt(asset, node, how, attempt.stop, call).await,
            // Its tasks have made it; what is left is to look at it.
            Definition::Graph(_) if asset.checks.is_empty() => Ok(StepOutcome { changed: true, ..StepOutcome::default() }),
            Definition::Graph(_) => {
                let found = self.audit(asset, &attempt.run, attempt.stop).await?;
                Ok(StepOutcome { changed: true, ..found })
            }
            Definition::External { .. } => Err(moved_on(&format!("external asset `{}`", asset.key))),
        }
    }

    /// What an earlier attempt had published of this very load.
    pub(crate) async fn committed(&self, asset: &Asset, attempt: &Attempt<'_>) -> Result<Option<Committed>, Box<Failure>> {
        let Some(name) = asset.stored_in() else { return Ok(None) };
        let connection = self.open(name, attempt.stop).await?;
        match connection.sink() {
            Some(sink) => guarded(attempt.stop, sink.committed(&attempt.load)).await,
            None => Ok(None),
        }
    }

    /// Runs statements of the user's own, one after the other. `word` is the list that they stand in; `data` says what is true when one fails.
    async fn run_hooks(
        &self,
        asset: &Asset,
        hooks: &[Hook],
        word: &str,
        attempt: &Attempt<'_>,
        data: &str,
    ) -> Result<(), Box<Failure>> {
        for (at, hook) in hooks.iter().enumerate() {
            let run = async {
                let connection = self.open(&hook.on, attempt.stop).await?;
                let statements = ability(connection.statements(), &hook.on, "place for statements")?;
                let is_home = asset.stored_in() == Some(&hook.on);
                let table = TableName::of(&asset.key);
                // Where the asset is not, its name is all that there is of it.
                let this = if is_home { statements.dialect().table(&table) } else { table.to_string() };
                guarded(attempt.stop, statements.execute(&hook.sql.replace("{{ this }}", &this))).await
            };
            run.await.map_err(|mut failure| {
                failure.message = format!("`hooks.{word}` number {} on `{}`: {}", at + 1, hook.on, failure.message);
                data.clone_into(&mut failure.data);
                failure
            })?;
        }
        Ok(())
    }

    async fn replay(
        &self,
        asset: &Asset,
        rejects: &[String],
        values: &BTreeMap<String, Option<String>>,
        attempt: &Attempt<'_>,
    ) -> Result<StepOutcome, Box<Failure>> {
        let Definition::Ingest(ingest) = &asset.definition else { return Err(moved_on(&format!("ingest `{}`", asset.key))) };
        let destination = self.open(&ingest.to, attempt.stop).await?;
        let sink = ability(destination.sink(), &ingest.to, "destination")?;
        let quarantine = ability(destination.quarantine(), &ingest.to, "quarantine")?;
        let source = replay::source(asset, quarantine, rejects, values, attempt).await?;
        let programs = self.connections.programs();
        let ids = source.ids.clone();
        let replaying = load::Ingesting {
            asset,
            ingest,
            source: &source,
            sink,
            programs: programs.as_ref(),
            full_refresh: false,
            range: None,
            slice: None,
            replayed: Some(&ids),
            attempt,
        };
        replaying.run().await
    }

    async fn check(&self, check: &StandaloneCheck, run: &RunContext, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        let connection = self.open(&check.on, stop).await?;
        let backend = ability(connection.sql(), &check.on, "SQL backend")?;
        let audit = Audit { now: run.as_of.clone(), ..Audit::of(CheckRule::Sql { sql: check.sql.clone() }) };
        let found = guarded(stop, backend.audit(None, &audit)).await?;
        let outcome = CheckOutcome {
            row_count: found.row_count,
            sample: found.sample,
            ..CheckOutcome::after(check.name.clone(), check.severity, found.bad_row_count)
        };
        if !outcome.passed() && check.severity == Severity::Error {
            let message = format!("check `{}` finds {} bad rows", check.name, outcome.bad_row_count);
            let data = "the check reads what is published and changes nothing";
            let mut failure = failure::plain("SBK0312", message, data, FailureClass::Check);
            failure.causes = outcome.sample.iter().map(|row| format!("bad row: {row}")).collect();
            failure.checks = vec![outcome];
            return Err(failure);
        }
        Ok(StepOutcome { checks: vec![outcome], ..StepOutcome::default() })
    }

    /// Evaluates the checks of an asset on what is published.
    async fn audit(&self, asset: &Asset, run: &RunContext, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        let Some(name) = asset.stored_in() else { return Err(moved_on(&format!("external asset `{}`", asset.key))) };
        let connection = self.open(name, stop).await?;
        let backend = ability(connection.sql(), name, "SQL backend")?;
        let table = TableName::of(&asset.key);
        let mut checks = Vec::new();
        for check in &asset.checks {
            let found = match &check.rule {
                CheckRule::Schema { columns, is_exact } => {
                    let described =
                        guarded(stop, backend.describe_query(&format!("select * from {}", backend.dialect().table(&table))))
                            .await?;
                    compare_columns(&described, columns, *is_exact)
                }
                _ => named(check, guarded(stop, backend.audit(Some(&table), &audit_of(check, run))).await)?,
            };
            checks.push(outcome_of(check, found));
        }
        let failed: Vec<&CheckOutcome> =
            checks.iter().filter(|check| !check.passed() && check.severity == Severity::Error).collect();
        if failed.is_empty() {
            return Ok(StepOutcome { checks, ..StepOutcome::default() });
        }
        let names: Vec<String> =
            failed.iter().map(|check| format!("`{}` finds {} bad rows", check.check, check.bad_row_count)).collect();
        let message = format!("checks of `{}` failed: {}", asset.key, names.join(", "));
        let data = "the checks read what is published and change nothing";
        let mut failure = failure::plain("SBK0312", message, data, FailureClass::Check);
        failure.causes = failed.iter().flat_map(|check| check.sample.iter().map(|row| format!("bad row: {row}"))).collect();
        failure.checks = checks;
        Err(failure)
    }
}

/// Waits for something that is safe to drop; nothing has been published yet.
pub(crate) async fn guarded<T>(
    stop: &StopSignal,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, Box<Failure>> {
    match stop.guard(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure::of_connect(&error, DATA_UNTOUCHED)),
        Err(reason) => Err(failure::of_stop(reason, DATA_UNTOUCHED)),
    }
}

fn outcome_of(check: &Check, found: AuditResult) -> CheckOutcome {
    CheckOutcome {
        check: check.name.clone(),
        severity: check.severity,
        blocking: check.blocking,
        bad_row_count: found.bad_row_count,
        is_vacuous: found.row_count == Some(0) && check.rule.is_vacuous_when_empty(),
        row_count: found.row_count,
        sample: found.sample,
        tolerance: check.tolerance,
    }
}

fn audit_of(check: &Check, run: &RunContext) -> Audit {
    Audit { rule: check.rule.clone(), filter: check.filter.clone(), now: run.as_of.clone() }
}

/// What a table's columns differ in from those that a check expects.
fn compare_columns(found: &[Column], expected: &[Column], is_exact: bool) -> AuditResult {
    let mut sample = Vec::new();
    for column in expected {
        match found.iter().find(|known| known.name.eq_ignore_ascii_case(&column.name)) {
            None => sample.push(format!("column={}, expected={}, found=nothing", column.name, column.data_type)),
            Some(known) if known.data_type != column.data_type => {
                sample.push(format!("column={}, expected={}, found={}", column.name, column.data_type, known.data_type));
            }
            Some(_) => {}
        }
    }
    let is_expected = |name: &str| expected.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    for column in found.iter().filter(|column| is_exact && !is_expected(&column.name)) {
        sample.push(format!("column={}, expected=nothing, found={}", column.name, column.data_type));
    }
    let bad_row_count = sample.len() as u64;
    sample.truncate(subak_connect::sink::SAMPLE_ROW_COUNT_MAX);
    AuditResult { bad_row_count, row_count: None, sample }
}

/// The error of a check says which one.
fn named<T>(check: &Check, result: Result<T, Box<Failure>>) -> Result<T, Box<Failure>> {
    result.map_err(|mut failure| {
        failure.message = format!("check `{}`: {}", check.name, failure.message);
        failure
    })
}

/// Evaluates the checks of an asset on what is staged. `Err` when one of them blocks the publication.
pub(crate) async fn audit_staged(
    asset: &Asset,
    staged: &mut dyn Staged,
    attempt: &Attempt<'_>,
) -> Result<Vec<CheckOutcome>, Box<Failure>> {
    let mut checks = Vec::new();
    for check in &asset.checks {
        let found = match &check.rule {
            CheckRule::Schema { columns, is_exact } => {
                compare_columns(&guarded(attempt.stop, staged.columns()).await?, columns, *is_exact)
            }
            _ => named(check, guarded(attempt.stop, staged.audit(&audit_of(check, &attempt.run))).await)?,
        };
        checks.push(outcome_of(check, found));
    }
    if checks.iter().any(failure::is_blocked_by) {
        return Err(failure::of_checks(asset.key.as_str(), checks));
    }
    Ok(checks)
}

async fn build(
    asset: &Asset,
    sql: &SqlAsset,
    connection: &dyn Connection,
    how: &How<'_>,
    attempt: &Attempt<'_>,
) -> Result<StepOutcome, Box<Failure>> {
    let backend = ability(connection.sql(), &sql.on, "SQL backend")?;
    let table = TableName::of(&asset.key);
    // The other partitions stay, whatever is asked for.
    let is_kept = sql.stored_as == StoredAs::Snapshot
        || (sql.stored_as == StoredAs::Incremental && (how.slice.is_some() || !how.full_refresh));
    let is_there = match connection.sink() {
        Some(sink) => !guarded(attempt.stop, sink.existing(std::slice::from_ref(&table))).await?.is_empty(),
        None => false,
    };
    if let Some(sink) = connection.sink()
        && let Some(committed) = guarded(attempt.stop, sink.committed(&attempt.load)).await?
    {
        return Ok(load::found(&committed, None, "an earlier attempt had committed this load"));
    }
    let text = sql.incremental_sql.as_ref().filter(|_| is_kept && is_there).unwrap_or(&sql.sql);
    let dialect = backend.dialect();
    let text = match how.slice {
        Some(slice) => slice.partition.fill(text, |value| dialect.literal(value)),
        None => text.clone(),
    };
    let request = BuildRequest {
        load: attempt.load.clone(),
        sql: rendered(&text, &dialect.table(&table), &attempt.run),
        table,
        stored_as: sql.stored_as,
        incremental: is_kept.then(|| Incremental {
            mode: if how.slice.is_some() { WriteMode::DeleteInsert } else { sql.mode },
            slice: how.slice.cloned(),
            unique_key: sql.unique_key.clone(),
            latest: sql.latest.clone(),
            history: sql.history.clone(),
            on_schema_change: sql.on_schema_change,
        }),
        surrogate_key: sql.surrogate_key.clone(),
        layout: sql.layout.clone(),
        at: attempt.run.started_at.clone(),
    };
    let mut staged = guarded(attempt.stop, backend.build(request)).await?;
    let checks = audit_staged(asset, staged.as_mut(), attempt).await?;
    if let Some(reason) = attempt.stop.reason() {
        return Err(failure::of_stop(reason, DATA_UNTOUCHED));
    }
    let committed = load::published(staged, Commit::default(), connection.sink(), attempt).await?;
    let note = (!committed.changed).then(|| "the result is what the table held already".to_owned());
    Ok(StepOutcome {
        changed: committed.changed,
        row_count: Some(committed.row_count),
        checks,
        note,
        is_new_table: how.slice.is_some() && !is_there,
        ..StepOutcome::default()
    })
}

/// The query with what is known only now: the names that stand for the table and the run.
fn rendered(sql: &str, table: &str, run: &RunContext) -> String {
    sql.replace("{{ this }}", table).replace("{{ run.id }}", &run.id).replace("{{ run.started_at }}", &run.started_at)
}
