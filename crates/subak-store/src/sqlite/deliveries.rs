//! What sensors were told, as a table.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use subak_domain::Timestamp;

use super::{failed, sensors, writer};
use crate::{Delivered, Delivery, StoreError};

/// Deliveries that may wait for one sensor.
const WAITING_COUNT_MAX: i64 = 10_000;

/// How far a sensor has taken what it was told.
fn taken(connection: &Connection, sensor: &str) -> Result<i64, StoreError> {
    let state = sensors::state(connection, sensor)?.filter(|state| state.watches == "webhook");
    Ok(state.and_then(|state| state.cursor.get("position")?.as_i64()).unwrap_or(0))
}

/// Enters a delivery, unless it is known or too many wait.
pub(super) fn enter(connection: &Connection, delivery: &Delivery) -> Result<Delivered, StoreError> {
    let known = "select 1 from deliveries where sensor = ? and id = ?";
    let is_known = connection
        .prepare_cached(known)
        .and_then(|mut statement| statement.query_row([&delivery.sensor, &delivery.id], |_| Ok(())).optional())
        .map_err(failed("read"))?;
    if is_known.is_some() {
        return Ok(Delivered::Known);
    }
    let waiting = "select count(*) from deliveries where sensor = ? and position > ?";
    let from = taken(connection, &delivery.sensor)?;
    let count: i64 = connection
        .prepare_cached(waiting)
        .and_then(|mut statement| statement.query_row(params![delivery.sensor, from], |row| row.get(0)))
        .map_err(failed("read"))?;
    if count >= WAITING_COUNT_MAX {
        return Ok(Delivered::Full);
    }
    let sql = "insert into deliveries (sensor, id, at, body) values (?, ?, ?, ?)";
    let parameters = params![delivery.sensor, delivery.id, delivery.at.as_microsecond(), delivery.body.to_string()];
    writer::execute(connection, sql, parameters)?;
    Ok(Delivered::New)
}

/// What a sensor was told behind a position, oldest first.
pub(super) fn after(
    connection: &Connection,
    sensor: &str,
    position: u64,
    count_max: usize,
) -> Result<Vec<(u64, Delivery)>, StoreError> {
    let sql = "select position, id, at, body from deliveries where sensor = ? and position > ? order by position limit ?";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let read = |row: &rusqlite::Row<'_>| {
        let (position, at, body): (i64, i64, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let at = Timestamp::from_microsecond(at).unwrap_or_default();
        Ok((position.unsigned_abs(), Delivery { sensor: sensor.to_owned(), id: row.get(1)?, at, body }))
    };
    let count = i64::try_from(count_max).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![sensor, position.cast_signed(), count], read).map_err(failed("read"))?;
    rows.collect::<Result<_, _>>().map_err(failed("read"))
}

/// Removes some deliveries from before a moment that their sensors have taken, or whose sensors are gone. Returns how many.
pub(super) fn purge(connection: &Connection, before: i64, count_max: i64) -> Result<usize, StoreError> {
    let sql = "delete from deliveries where position in (
        select d.position from deliveries as d left join sensors as s on s.name = d.sensor and s.watches = 'webhook'
        where d.at < ? and (s.name is null or d.position <= coalesce(json_extract(s.cursor, '$.position'), 0)) limit ?)";
    writer::execute(connection, sql, params![before, count_max])
}
