//! Ticks and schedules as tables.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};
use subak_domain::Timestamp;

use super::failed;
use crate::{ScheduleState, StoreError, Tick, TickOutcome};

/// Enters a tick. `false` when it is known already.
pub(super) fn enter(connection: &Connection, tick: &Tick) -> Result<bool, StoreError> {
    let (reason, run) = match &tick.outcome {
        TickOutcome::Started(runs) => (None, Some(runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))),
        TickOutcome::Skipped(reason) | TickOutcome::Failed(reason) => (Some(reason.as_str()), None),
    };
    let sql =
        "insert into ticks (schedule, at, outcome, reason, run, recorded_at) values (?, ?, ?, ?, ?, ?) on conflict do nothing";
    let (at, recorded_at) = (tick.at.as_microsecond(), tick.recorded_at.as_microsecond());
    let parameters = params![tick.schedule, at, tick.outcome.as_str(), reason, run, recorded_at];
    let count =
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed("written"))?;
    Ok(count == 1)
}

/// The newest ticks first.
pub(super) fn newest(connection: &Connection, schedule: Option<&str>, count_max: usize) -> Result<Vec<Tick>, StoreError> {
    // Two statements, so that each has an index that it can walk.
    let sql = match schedule {
        Some(_) => {
            "select schedule, at, outcome, reason, run, recorded_at from ticks where schedule = ?1 order by at desc limit ?2"
        }
        None => {
            "select schedule, at, outcome, reason, run, recorded_at from ticks where ?1 is null order by at desc, schedule limit ?2"
        }
    };
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let tick = |row: &rusqlite::Row<'_>| {
        let (word, reason, run): (String, Option<String>, Option<String>) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let reason = reason.unwrap_or_default();
        let outcome = match word.as_str() {
            "started" => {
                let runs = run.unwrap_or_default();
                TickOutcome::Started(runs.split(' ').filter_map(|run| run.parse().ok()).collect())
            }
            "failed" => TickOutcome::Failed(reason),
            _ => TickOutcome::Skipped(reason),
        };
        Ok(Tick { schedule: row.get(0)?, at: moment(row.get(1)?), outcome, recorded_at: moment(row.get(5)?) })
    };
    let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![schedule, count_max], tick).map_err(failed("read"))?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed("read"))
}

/// The newest tick that has started a run.
pub(super) fn last_started(connection: &Connection, schedule: &str) -> Result<Option<Timestamp>, StoreError> {
    let sql = "select at from ticks where schedule = ? and outcome = 'started' order by at desc limit 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let at = statement.query_row([schedule], |row| row.get(0)).optional().map_err(failed("read"))?;
    Ok(at.map(moment))
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

/// What is known of a schedule.
pub(super) fn state(connection: &Connection, name: &str) -> Result<Option<ScheduleState>, StoreError> {
    let sql = "select definition, since, is_off from schedules where name = ?";
    let read =
        |row: &rusqlite::Row<'_>| Ok(ScheduleState { definition: row.get(0)?, since: moment(row.get(1)?), is_off: row.get(2)? });
    connection.query_row(sql, [name], read).optional().map_err(failed("read"))
}

/// Forgets the schedules that are not among these.
pub(super) fn keep(connection: &Connection, names: &[String]) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare("select name from schedules").map_err(failed("read"))?;
    let known: Vec<String> = statement.query_map([], |row| row.get(0)).and_then(|rows| rows.collect()).map_err(failed("read"))?;
    let kept: BTreeSet<&String> = names.iter().collect();
    let gone: Vec<String> = known.into_iter().filter(|name| !kept.contains(name)).collect();
    for name in &gone {
        connection.execute("delete from schedules where name = ?", [name]).map_err(failed("written"))?;
    }
    Ok(gone)
}

/// Notes what a schedule is now.
pub(super) fn set_state(connection: &Connection, name: &str, state: &ScheduleState) -> Result<(), StoreError> {
    let sql = "insert into schedules (name, definition, since, is_off) values (?1, ?2, ?3, ?4) \
               on conflict (name) do update set definition = ?2, since = ?3, is_off = ?4";
    let parameters = params![name, state.definition, state.since.as_microsecond(), state.is_off];
    connection.execute(sql, parameters).map_err(failed("written")).map(drop)
}
