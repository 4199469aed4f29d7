//! Sensors as tables.

use rusqlite::{Connection, OptionalExtension, params};
use subak_domain::{RunId, Timestamp};

use super::{failed, ticks, writer};
use crate::{SensorLook, SensorState, StoreError, TickOutcome};

/// What is known of a sensor.
pub(super) fn state(connection: &Connection, name: &str) -> Result<Option<SensorState>, StoreError> {
    let sql = "select watches, cursor, looked_at, came_to, is_off, revision from sensors where name = ?";
    let read = |row: &rusqlite::Row<'_>| {
        let (cursor, looked_at): (String, Option<i64>) = (row.get(1)?, row.get(2)?);
        Ok(SensorState {
            watches: row.get(0)?,
            cursor: serde_json::from_str(&cursor).unwrap_or_default(),
            looked_at: looked_at.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
            came_to: row.get(3)?,
            is_off: row.get(4)?,
            revision: row.get::<_, i64>(5)?.unsigned_abs(),
        })
    };
    connection.prepare_cached(sql).and_then(|mut statement| statement.query_row([name], read).optional()).map_err(failed("read"))
}

/// The run that a sensor started for a key.
pub(super) fn run_of(connection: &Connection, sensor: &str, key: &str) -> Result<Option<RunId>, StoreError> {
    let sql = "select run from sensor_runs where sensor = ? and key = ?";
    let run: Option<String> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([sensor, key], |row| row.get(0)).optional())
        .map_err(failed("read"))?;
    Ok(run.and_then(|run| run.parse().ok()))
}

/// Enters a look: the state, the keys of partitions, the runs, the tick. Returns the runs that are new; an error where somebody has changed the
/// sensor meanwhile.
pub(super) fn enter(connection: &Connection, look: &SensorLook) -> Result<Vec<RunId>, StoreError> {
    let (state, revision) = (&look.state, look.state.revision.cast_signed());
    let looked_at = state.looked_at.map(Timestamp::as_microsecond);
    let parameters =
        params![look.sensor, state.watches, state.cursor.to_string(), looked_at, state.came_to, state.is_off, revision];
    let sql = if revision == 1 {
        "insert into sensors (name, watches, cursor, looked_at, came_to, is_off, revision) values (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         on conflict do nothing"
    } else {
        "update sensors set watches = ?2, cursor = ?3, looked_at = ?4, came_to = ?5, is_off = ?6, revision = ?7 \
         where name = ?1 and revision = ?7 - 1"
    };
    if writer::execute(connection, sql, parameters)? == 0 {
        return Err(StoreError::Changed { name: look.sensor.clone() });
    }
    let now = state.looked_at.unwrap_or_default();
    for (set, key) in &look.partitions {
        writer::add_partition(connection, set, key, now)?;
    }
    let mut started = Vec::new();
    for (key, append) in &look.runs {
        let sql = "insert into sensor_runs (sensor, key, run, at) values (?, ?, ?, ?) on conflict do nothing";
        let parameters = params![look.sensor, key, append.run.to_string(), now.as_microsecond()];
        let is_new = match key {
            Some(_) => writer::execute(connection, sql, parameters)? == 1,
            None => true,
        };
        if is_new {
            writer::append_events(connection, append)?;
            started.push(append.run);
        }
    }
    if let Some(mut tick) = look.tick.clone() {
        if let (TickOutcome::Started(_), false) = (&tick.outcome, look.runs.is_empty()) {
            tick.outcome = if started.is_empty() {
                TickOutcome::Skipped("what it saw has had its run".to_owned())
            } else {
                TickOutcome::Started(started.clone())
            };
        }
        ticks::enter(connection, &tick)?;
    }
    Ok(started)
}

/// Forgets the sensors that are not among these. The keys of their runs stay known: what they have started stays started.
pub(super) fn keep(connection: &Connection, names: &[String]) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare("select name from sensors").map_err(failed("read"))?;
    let known: Vec<String> = statement.query_map([], |row| row.get(0)).and_then(|rows| rows.collect()).map_err(failed("read"))?;
    let gone: Vec<String> = known.into_iter().filter(|name| !names.contains(name)).collect();
    for name in &gone {
        writer::execute(connection, "delete from sensors where name = ?", [name])?;
        // One that comes back is a new one, and was told nothing.
        writer::execute(connection, "delete from deliveries where sensor = ?", [name])?;
    }
    Ok(gone)
}
