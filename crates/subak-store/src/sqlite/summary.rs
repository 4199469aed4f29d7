//! Summary tables: folds of the log that lists read, changed in the transaction of the events.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use subak_domain::snapshot::{makes_table_anew, materialization_after, materialized_by, partition_changed_by};
use subak_domain::{AssetKey, Event, Materialization, PartitionState, RunEvent, RunId, RunStatus, Snapshot, Timestamp, Version};

use super::{failed, read_events};
use crate::StoreError;

/// One run, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// The selection in words.
    pub selection: String,
    /// The job; `None` for a selection.
    pub job: Option<String>,
    /// Who or what asked.
    pub trigger: String,
    /// Steps in its plan.
    pub step_count: u64,
    /// When it was planned.
    pub planned_at: Timestamp,
    /// When it was first taken up.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The first failure, one sentence.
    pub cause: Option<String>,
}

fn execute(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<(), StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed("written")).map(drop)
}

/// The tables that say how assets stand.
struct Tables {
    materializations: &'static str,
    partitions: &'static str,
}

/// Those that are read.
const NOW: Tables = Tables { materializations: "materializations", partitions: "partitions" };

/// What events told that are not in the log any more.
const BASE: Tables = Tables { materializations: "base_materializations", partitions: "base_partitions" };

/// Takes what an event says of assets that is to stay when it goes from the log.
pub(super) fn apply_to_base(connection: &Connection, event: &Event) -> Result<(), StoreError> {
    apply_to_partition(connection, event, &BASE)?;
    materialize(connection, event, &BASE)
}

/// Takes what an event says of a partition.
fn apply_to_partition(connection: &Connection, event: &Event, tables: &Tables) -> Result<(), StoreError> {
    let partitions = tables.partitions;
    let Some((asset, key, change)) = partition_changed_by(&event.event) else { return Ok(()) };
    if makes_table_anew(&event.event) {
        // What has failed is still to be done.
        let sql = format!("delete from {partitions} where asset = ? and failed_position = 0");
        execute(connection, &sql, params![asset.as_str()])?;
        let sql = format!("update {partitions} set position = 0, confirmed_position = 0 where asset = ?");
        execute(connection, &sql, params![asset.as_str()])?;
    }
    let known = format!("select position, confirmed_position, failed_position from {partitions} where asset = ? and key = ?");
    let previous = connection
        .prepare_cached(&known)
        .and_then(|mut statement| statement.query_row(params![asset.as_str(), key], |row| partition_state(row, 0)).optional())
        .map_err(failed("read"))?;
    let next = previous.unwrap_or_default().after(change, event);
    // What was there before an attempt that failed is what readers still see.
    let outcome = match &event.event {
        RunEvent::StepSucceeded { outcome, .. } => Some(outcome),
        RunEvent::StepErrored { failure, .. } => failure.published.as_deref(),
        _ => None,
    };
    let positions = [next.position, next.confirmed_position, next.failed_position].map(u64::cast_signed);
    let sql = format!(
        "insert into {partitions} (asset, key, position, confirmed_position, failed_position, version, run, at, row_count) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) on conflict (asset, key) do update set position = ?3, confirmed_position = ?4, \
         failed_position = ?5, version = coalesce(?6, version), run = ?7, at = ?8, row_count = coalesce(?9, row_count)"
    );
    execute(
        connection,
        &sql,
        params![
            asset.as_str(),
            key,
            positions[0],
            positions[1],
            positions[2],
            outcome.and_then(|outcome| outcome.version.as_ref()).map(Version::as_str),
            event.run.to_string(),
            event.at.as_microsecond(),
            outcome.and_then(|outcome| outcome.row_count).map(u64::cast_signed),
        ],
    )
}

fn partition_state(row: &Row<'_>, from: usize) -> rusqlite::Result<PartitionState> {
    let at = |place: usize| row.get::<_, i64>(from + place).map(i64::unsigned_abs);
    Ok(PartitionState { position: at(0)?, confirmed_position: at(1)?, failed_position: at(2)? })
}

/// What is known of one partition, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDetail {
    /// Its key.
    pub key: String,
    /// How it stands.
    pub state: PartitionState,
    /// Version of the definition that made its data.
    pub version: Option<String>,
    /// The run that was about it last.
    pub run: RunId,
    /// When that was.
    pub at: Timestamp,
    /// Rows in the whole table afterwards, where that is known.
    pub row_count: Option<u64>,
}

/// The partitions of an asset.
pub(super) fn partitions(connection: &Connection, asset: &AssetKey) -> Result<Vec<PartitionDetail>, StoreError> {
    let sql = "select key, position, confirmed_position, failed_position, version, run, at, row_count from partitions \
               where asset = ? order by key";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let mut rows = statement.query([asset.as_str()]).map_err(failed("read"))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed("read"))? {
        let read = || {
            let (key, state, version): (String, _, Option<String>) = (row.get(0)?, partition_state(row, 1)?, row.get(4)?);
            let (run, at, row_count): (String, i64, Option<i64>) = (row.get(5)?, row.get(6)?, row.get(7)?);
            Ok((key, state, version, run, at, row_count))
        };
        let (key, state, version, run, at, row_count) = read().map_err(failed("read"))?;
        let (run, at, row_count) = (run.parse().map_err(damaged)?, time(at)?, row_count.map(i64::unsigned_abs));
        found.push(PartitionDetail { key, state, version, run, at, row_count });
    }
    Ok(found)
}

/// Takes one event.
pub(super) fn apply(connection: &Connection, event: &Event) -> Result<(), StoreError> {
    apply_to_partition(connection, event, &NOW)?;
    let (run, at) = (event.run.to_string(), event.at.as_microsecond());
    let status =
        |status: RunStatus| execute(connection, "update runs set status = ? where run = ?", params![status.as_str(), run]);
    match &event.event {
        RunEvent::Planned { actions, selection, trigger, job, .. } => {
            let sql = "insert into runs (run, status, selection, trigger_text, step_count, planned_at, job) values (?, 'queued', ?, ?, ?, ?, ?)";
            execute(connection, sql, params![run, selection, trigger, actions.len() as i64, at, job])
        }
        RunEvent::Started { .. } => {
            let sql =
                "update runs set status = 'running', started_at = coalesce(started_at, ?) where run = ? and status = 'queued'";
            execute(connection, sql, params![at, run])
        }
        RunEvent::StepErrored { failure, retry_at: None, .. } => {
            materialize(connection, event, &NOW)?;
            execute(connection, "update runs set cause = coalesce(cause, ?) where run = ?", params![failure.message, run])
        }
        RunEvent::StepSucceeded { .. } | RunEvent::StepErrored { .. } => materialize(connection, event, &NOW),
        RunEvent::CancelRequested { .. } => status(RunStatus::Stopping),
        RunEvent::Resumed { .. } => {
            execute(connection, "update runs set status = 'queued', ended_at = null, cause = null where run = ?", params![run])
        }
        RunEvent::Finished { status } => {
            execute(connection, "update runs set status = ?, ended_at = ? where run = ?", params![status.as_str(), at, run])
        }
        RunEvent::Expanded { actions, .. } => {
            let sql = "update runs set step_count = step_count + ? where run = ?";
            execute(connection, sql, params![actions.len() as i64, run])
        }
        RunEvent::StepStarted { .. } | RunEvent::StepSkipped { .. } | RunEvent::Lost { .. } => Ok(()),
    }
}

fn materialize(connection: &Connection, event: &Event, tables: &Tables) -> Result<(), StoreError> {
    let Some(asset) = materialized_by(&event.event) else { return Ok(()) };
    let table = tables.materializations;
    let sql = format!(
        "select asset, version, position, run, at, confirmed_at, confirmed_position, row_count, account from {table} where asset = ?"
    );
    let previous = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([asset.as_str()], materialization_of).optional())
        .map_err(failed("read"))?
        .transpose()?
        .map(|(_, materialization)| materialization);
    let Some(next) = materialization_after(previous.as_ref(), event) else { return Ok(()) };
    let account = next.account.map(|account| serde_json::to_string(&account)).transpose();
    let account = account.map_err(|error| StoreError::Failed { action: "written", source: Box::new(error) })?;
    execute(
        connection,
        &format!("insert or replace into {table} values (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        params![
            asset.as_str(),
            next.version.as_str(),
            next.position.cast_signed(),
            next.run.to_string(),
            next.at.as_microsecond(),
            next.confirmed_at.as_microsecond(),
            next.confirmed_position.cast_signed(),
            next.row_count.map(u64::cast_signed),
            account,
        ],
    )
}

type Parsed<T> = rusqlite::Result<Result<T, StoreError>>;

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a summary cannot be read: {error}"))
}

fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(damaged)
}

fn materialization_of(row: &Row<'_>) -> Parsed<(AssetKey, Materialization)> {
    let asset: String = row.get(0)?;
    let version: String = row.get(1)?;
    let run: String = row.get(3)?;
    let (position, at, confirmed_at): (i64, i64, i64) = (row.get(2)?, row.get(4)?, row.get(5)?);
    let confirmed_position: i64 = row.get(6)?;
    let (row_count, account): (Option<i64>, Option<String>) = (row.get(7)?, row.get(8)?);
    let parse = || {
        let version: Version = serde_json::from_value(version.into()).map_err(damaged)?;
        let materialization = Materialization {
            version,
            position: position.unsigned_abs(),
            run: run.parse().map_err(damaged)?,
            at: time(at)?,
            confirmed_at: time(confirmed_at)?,
            confirmed_position: confirmed_position.unsigned_abs(),
            row_count: row_count.map(i64::unsigned_abs),
            account: account.map(|text| serde_json::from_str(&text)).transpose().map_err(damaged)?,
        };
        Ok((asset.parse().map_err(damaged)?, materialization))
    };
    Ok(parse())
}

pub(super) fn snapshot(connection: &Connection) -> Result<Snapshot, StoreError> {
    let sql =
        "select asset, version, position, run, at, confirmed_at, confirmed_position, row_count, account from materializations";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let rows = statement.query_map([], materialization_of).map_err(failed("read"))?;
    let latest = rows.map(|row| row.map_err(failed("read"))?).collect::<Result<_, StoreError>>()?;
    let mut snapshot = Snapshot { latest, ..Snapshot::default() };
    let sql = "select asset, key, position, confirmed_position, failed_position from partitions";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let mut rows = statement.query([]).map_err(failed("read"))?;
    while let Some(row) = rows.next().map_err(failed("read"))? {
        let read = || Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, partition_state(row, 2)?));
        let (asset, key, state) = read().map_err(failed("read"))?;
        snapshot.partitions.entry(asset.parse().map_err(damaged)?).or_default().insert(key, state);
    }
    let sql = "select name, key from dynamic_partitions order by place";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed("read"))?;
    for row in rows {
        let (name, key): (String, String) = row.map_err(failed("read"))?;
        snapshot.dynamic.entry(name).or_default().push(key);
    }
    Ok(snapshot)
}

fn status_of(text: &str) -> Result<RunStatus, StoreError> {
    RunStatus::of(text).ok_or_else(|| damaged(format!("unknown status `{text}`")))
}

/// The columns of a run, in the order in which they are read.
const RUN: &str = "run, status, selection, trigger_text, step_count, planned_at, started_at, ended_at, cause, job";

fn run_of(row: &Row<'_>) -> Parsed<RunSummary> {
    let (run, status): (String, String) = (row.get(0)?, row.get(1)?);
    let (selection, trigger, step_count): (String, String, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let (planned_at, started_at, ended_at): (i64, Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?, row.get(7)?);
    let (cause, job) = (row.get(8)?, row.get(9)?);
    let parse = || {
        Ok(RunSummary {
            run: run.parse().map_err(damaged)?,
            status: status_of(&status)?,
            selection,
            job,
            trigger,
            step_count: step_count.unsigned_abs(),
            planned_at: time(planned_at)?,
            started_at: started_at.map(time).transpose()?,
            ended_at: ended_at.map(time).transpose()?,
            cause,
        })
    };
    Ok(parse())
}

pub(super) fn runs(connection: &Connection, count_max: usize) -> Result<Vec<RunSummary>, StoreError> {
    let sql = format!("select {RUN} from runs order by run desc limit ?");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    let rows = statement.query_map([count_max as i64], run_of).map_err(failed("read"))?;
    rows.map(|row| row.map_err(failed("read"))?).collect()
}

/// How the newest run of a job ended that has ended and was not canceled.
pub(super) fn last_ended(connection: &Connection, job: &str) -> Result<Option<RunStatus>, StoreError> {
    let sql = "select status from runs where job = ? and status in ('succeeded', 'failed') order by run desc limit 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let status: Option<String> = statement.query_row([job], |row| row.get(0)).optional().map_err(failed("read"))?;
    Ok(status.map(|word| if word == "failed" { RunStatus::Failed } else { RunStatus::Succeeded }))
}

/// The newest run of a job.
pub(super) fn last_run_of(connection: &Connection, job: &str) -> Result<Option<RunSummary>, StoreError> {
    let sql = format!("select {RUN} from runs where job = ? order by run desc limit 1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    statement.query_row([job], run_of).optional().map_err(failed("read"))?.transpose()
}

/// A run by its id.
pub(super) fn run(connection: &Connection, run: RunId) -> Result<Option<RunSummary>, StoreError> {
    let sql = format!("select {RUN} from runs where run = ?");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    statement.query_row([run.to_string()], run_of).optional().map_err(failed("read"))?.transpose()
}

/// Which runs a list is about. What is not said is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Those that stand so; all where it is empty.
    pub statuses: Vec<RunStatus>,
    /// Those of this job.
    pub job: Option<String>,
    /// Those whose selection, trigger, cause or id says this, whatever the case of its letters.
    pub text: Option<String>,
    /// Those that ended at this moment or later.
    pub ended_from: Option<Timestamp>,
    /// Those that were planned at this moment or later.
    pub planned_from: Option<Timestamp>,
    /// Those that are older than this one.
    pub before: Option<RunId>,
}

impl RunFilter {
    fn clause(&self) -> (String, Vec<Value>) {
        let (mut parts, mut values) = (Vec::new(), Vec::new());
        let mut add = |part: String, value: Vec<Value>| {
            parts.push(part);
            values.extend(value);
        };
        if !self.statuses.is_empty() {
            let marks = vec!["?"; self.statuses.len()].join(", ");
            add(format!("status in ({marks})"), self.statuses.iter().map(|status| status.as_str().to_owned().into()).collect());
        }
        if let Some(job) = &self.job {
            add("job = ?".into(), vec![job.clone().into()]);
        }
        if let Some(text) = &self.text {
            // `instr` takes what is asked for as it is: no letter of it means anything else.
            let words = "coalesce(selection, '') || ' ' || trigger_text || ' ' || coalesce(cause, '') || ' ' || run";
            add(format!("instr(lower({words}), ?) > 0"), vec![text.to_lowercase().into()]);
        }
        if let Some(at) = self.ended_from {
            add("ended_at >= ?".into(), vec![at.as_microsecond().into()]);
        }
        if let Some(at) = self.planned_from {
            add("planned_at >= ?".into(), vec![at.as_microsecond().into()]);
        }
        if let Some(run) = self.before {
            add("run < ?".into(), vec![run.to_string().into()]);
        }
        (if parts.is_empty() { "true".to_owned() } else { parts.join(" and ") }, values)
    }
}

/// The newest runs that a filter lets through.
pub(super) fn find_runs(connection: &Connection, filter: &RunFilter, count_max: usize) -> Result<Vec<RunSummary>, StoreError> {
    let (clause, mut values) = filter.clause();
    let sql = format!("select {RUN} from runs where {clause} order by run desc limit ?");
    values.push((count_max as i64).into());
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    let rows = statement.query_map(params_from_iter(values), run_of).map_err(failed("read"))?;
    rows.map(|row| row.map_err(failed("read"))?).collect()
}

/// How many runs a filter lets through.
pub(super) fn count_runs(connection: &Connection, filter: &RunFilter) -> Result<u64, StoreError> {
    let (clause, values) = filter.clause();
    let sql = format!("select count(*) from runs where {clause}");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    let count: i64 = statement.query_row(params_from_iter(values), |row| row.get(0)).map_err(failed("read"))?;
    Ok(count.unsigned_abs())
}

pub(super) fn ids(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<RunId>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let rows = statement.query_map(parameters, |row| row.get::<_, String>(0)).map_err(failed("read"))?;
    rows.map(|row| row.map_err(failed("read"))?.parse().map_err(damaged)).collect()
}

pub(super) fn runs_by_prefix(connection: &Connection, prefix: &str) -> Result<Vec<RunId>, StoreError> {
    let sql = "select run from runs where substr(run, 1, length(?1)) = ?1 order by run desc limit 2";
    ids(connection, sql, [prefix.to_ascii_uppercase()])
}

pub(super) fn open_runs(connection: &Connection) -> Result<Vec<RunId>, StoreError> {
    ids(connection, "select run from runs where status in ('queued', 'running', 'stopping') order by run", [])
}

/// How the run of a job ended that ended last before a moment, another one than `run` and not one that was canceled.
pub(super) fn ended_before(
    connection: &Connection,
    job: &str,
    run: RunId,
    at: Timestamp,
) -> Result<Option<RunStatus>, StoreError> {
    let sql = "select status from runs where job = ? and ended_at <= ? and run <> ? and status in ('succeeded', 'failed') \
               order by ended_at desc limit 1";
    let parameters = params![job, at.as_microsecond(), run.to_string()];
    let found: Option<String> = connection.query_row(sql, parameters, |row| row.get(0)).optional().map_err(failed("read"))?;
    found.map(|text| status_of(&text)).transpose()
}

/// Folds the whole log again.
pub(super) fn rebuild(connection: &Connection) -> Result<(), StoreError> {
    const PAGE_LENGTH: i64 = 1000;
    connection
        .execute_batch(
            "delete from runs; delete from materializations; delete from partitions; \
             insert into materializations select * from base_materializations; insert into partitions select * from base_partitions;",
        )
        .map_err(failed("written"))?;
    let sql = "select position, run, sequence, at, body from events where position > ? order by position limit ?";
    let mut position = 0;
    loop {
        let page = read_events(connection, sql, params![position, PAGE_LENGTH])?;
        let Some(last) = page.last() else { return Ok(()) };
        position = last.position.cast_signed();
        for event in &page {
            apply(connection, event)?;
        }
    }
}

/// How many runs there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCounts {
    /// By the word of their status.
    pub by_status: Vec<(String, u64)>,
    /// When the oldest was planned of those that have not begun.
    pub queued_since: Option<Timestamp>,
}

/// Runs by status, and when the oldest was planned that has not begun.
pub(super) fn run_counts(connection: &Connection) -> Result<RunCounts, StoreError> {
    let mut statement =
        connection.prepare_cached("select status, count(*) from runs group by status order by status").map_err(failed("read"))?;
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs()));
    let counts = statement.query_map([], read).map_err(failed("read"))?.collect::<Result<_, _>>().map_err(failed("read"))?;
    let sql = "select min(planned_at) from runs where status = 'queued'";
    let oldest: Option<i64> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(failed("read"))?;
    let queued_since = oldest.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    Ok(RunCounts { by_status: counts, queued_since })
}
