//! What a step does: loads a stream, builds a query's result, evaluates checks.

use std::sync::Arc;

use async_trait::async_trait;
use subak_connect::{BuildRequest, ConnectError, ConnectErrorKind, Connection, SqlBackend, Staged, TableName};
use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, Check, CheckOutcome, CheckRule, ConnectionName, Definition, Failure, FailureClass,
    LoadId, Reason, RunEvent, RunId, Severity, SqlAsset, StandaloneCheck, StepId, StepOutcome, Work,
};

use crate::failure::{self, DATA_NOT_BEGUN, DATA_UNTOUCHED};
use crate::{StepExecutor, StopSignal, load};

/// Opens connections by their names in the project. The binary implements it: it has the registry, the settings and the secrets.
#[async_trait]
pub trait Connections: Send + Sync {
    /// The open connection; opened on first use and shared afterwards.
    async fn open(&self, name: &ConnectionName) -> Result<Arc<dyn Connection>, ConnectError>;
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
}

/// One attempt: what it belongs to and how it is stopped.
pub(crate) struct Attempt<'a> {
    pub(crate) step: &'a StepId,
    pub(crate) load: LoadId,
    /// The definition is not the one that made the table: what was read under it may not be what is meant now.
    pub(crate) is_redefined: bool,
    pub(crate) stop: &'a StopSignal,
    pub(crate) reporter: &'a dyn Reporter,
}

#[async_trait]
impl StepExecutor for DataExecutor {
    async fn execute(&self, run: RunId, action: &Action, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        match &action.work {
            Work::Materialize { asset, full_refresh } => {
                let asset = self.asset(asset)?;
                let load = LoadId::new(run, &action.step, asset.version.as_str());
                let is_redefined = action.reason == Reason::DefinitionChanged;
                let attempt = Attempt { step: &action.step, load, is_redefined, stop, reporter: self.reporter.as_ref() };
                let mut outcome = self.materialize(asset, *full_refresh, &attempt).await?;
                outcome.version = Some(asset.version.clone());
                Ok(outcome)
            }
            Work::Check { name } => {
                let check = self.graph.check(name).ok_or_else(|| moved_on(&format!("check `{name}`")))?;
                self.check(check, stop).await
            }
            Work::Audit { asset } => self.audit(self.asset(asset)?, stop).await,
        }
    }

    async fn recover(&self, run: RunId, action: &Action) -> Option<StepOutcome> {
        let Work::Materialize { asset, .. } = &action.work else { return None };
        let asset = self.graph.get(asset)?;
        let connection = self.connections.open(asset.stored_in()?).await.ok()?;
        let load = LoadId::new(run, &action.step, asset.version.as_str());
        let committed = connection.sink()?.committed(&load).await.ok()??;
        let note = Some("the process died after this was published".to_owned());
        Some(StepOutcome { version: Some(asset.version.clone()), ..load::outcome(&committed, None, Vec::new(), note) })
    }
}

fn moved_on(what: &str) -> Box<Failure> {
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

impl DataExecutor {
    fn asset(&self, key: &AssetKey) -> Result<&Asset, Box<Failure>> {
        self.graph.get(key).ok_or_else(|| moved_on(&format!("asset `{key}`")))
    }

    async fn open(&self, name: &ConnectionName, stop: &StopSignal) -> Result<Arc<dyn Connection>, Box<Failure>> {
        match stop.guard(self.connections.open(name)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failure::of_connect(&error, DATA_NOT_BEGUN)),
            Err(reason) => Err(failure::of_stop(reason, DATA_NOT_BEGUN)),
        }
    }

    async fn materialize(&self, asset: &Asset, full_refresh: bool, attempt: &Attempt<'_>) -> Result<StepOutcome, Box<Failure>> {
        match &asset.definition {
            Definition::Ingest(ingest) | Definition::Seed(ingest) => {
                let source = self.open(&ingest.from, attempt.stop).await?;
                let destination = self.open(&ingest.to, attempt.stop).await?;
                let source = ability(source.source(), &ingest.from, "source")?;
                let sink = ability(destination.sink(), &ingest.to, "destination")?;
                load::Ingesting { asset, ingest, source, sink, full_refresh, attempt }.run().await
            }
            Definition::Sql(sql) => {
                let connection = self.open(&sql.on, attempt.stop).await?;
                build(asset, sql, ability(connection.sql(), &sql.on, "SQL backend")?, attempt).await
            }
            Definition::External => Err(moved_on(&format!("external asset `{}`", asset.key))),
        }
    }

    async fn check(&self, check: &StandaloneCheck, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        let connection = self.open(&check.on, stop).await?;
        let backend = ability(connection.sql(), &check.on, "SQL backend")?;
        let rule = CheckRule::Sql { sql: check.sql.clone() };
        let found = guarded(stop, backend.audit(None, &rule)).await?;
        let outcome = CheckOutcome {
            check: check.name.clone(),
            severity: check.severity,
            blocking: false,
            bad_row_count: found.bad_row_count,
            row_count: found.row_count,
            sample: found.sample,
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
    async fn audit(&self, asset: &Asset, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        let Some(name) = asset.stored_in() else { return Err(moved_on(&format!("external asset `{}`", asset.key))) };
        let connection = self.open(name, stop).await?;
        let backend = ability(connection.sql(), name, "SQL backend")?;
        let table = TableName::of(&asset.key);
        let mut checks = Vec::new();
        for check in &asset.checks {
            let found = guarded(stop, backend.audit(Some(&table), &check.rule)).await?;
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

fn outcome_of(check: &Check, found: subak_connect::AuditResult) -> CheckOutcome {
    CheckOutcome {
        check: check.name.clone(),
        severity: check.severity,
        blocking: check.blocking,
        bad_row_count: found.bad_row_count,
        row_count: found.row_count,
        sample: found.sample,
    }
}

/// Evaluates the checks of an asset on what is staged. `Err` when one of them blocks the publication.
pub(crate) async fn audit_staged(
    asset: &Asset,
    staged: &mut dyn Staged,
    stop: &StopSignal,
) -> Result<Vec<CheckOutcome>, Box<Failure>> {
    let mut checks = Vec::new();
    for check in &asset.checks {
        let found = guarded(stop, staged.audit(&check.rule)).await?;
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
    backend: &dyn SqlBackend,
    attempt: &Attempt<'_>,
) -> Result<StepOutcome, Box<Failure>> {
    let table = TableName::of(&asset.key);
    let request = BuildRequest { load: attempt.load.clone(), table, sql: sql.sql.clone(), stored_as: sql.stored_as };
    let mut staged = guarded(attempt.stop, backend.build(request)).await?;
    let checks = audit_staged(asset, staged.as_mut(), attempt.stop).await?;
    // From here on a stop waits: dropping a publication would leave its outcome unknown.
    let committed = staged.publish(None).await.map_err(|error| failure::of_connect(&error, DATA_UNTOUCHED))?;
    let note = (!committed.changed).then(|| "the result is what the table held already".to_owned());
    Ok(StepOutcome { changed: committed.changed, row_count: Some(committed.row_count), checks, note, ..StepOutcome::default() })
}
