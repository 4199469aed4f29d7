//! What is kept, and for how long.
//!
//! The beginning of the log goes, and what it told of assets stays: it is folded into base tables from which summaries are made again, in the
//! transaction that removes the events. Each transaction is short; a run goes from the lists with its first event, and what a process that dies in
//! between leaves of it goes with the next purge.

use rusqlite::{Connection, OptionalExtension, params};
use subak_domain::{RunId, Timestamp};

use super::{deliveries, failed, read_events, summary, writer};
use crate::{Kept, StoreError};

/// Rows that one transaction removes at most.
const ROW_COUNT: i64 = 2_000;

/// How much there is, and how much of it a purge would remove.
pub(super) fn kept(connection: &Connection, before: Timestamp) -> Result<Kept, StoreError> {
    let count = |sql: &str, parameter: i64| -> Result<u64, StoreError> {
        let value = connection.query_row(sql, [parameter], |row| row.get::<_, i64>(0)).map_err(failed("read"))?;
        Ok(value.unsigned_abs())
    };
    let end = end(connection, before)?;
    let moment = before.as_microsecond();
    let oldest: Option<i64> = connection
        .query_row("select min(planned_at) from runs", [], |row| row.get(0))
        .optional()
        .map_err(failed("read"))?
        .flatten();
    Ok(Kept {
        run_count: count("select count(*) from runs where ?1 = ?1", 0)?,
        event_count: count("select count(*) from events where ?1 = ?1", 0)?,
        tick_count: count("select count(*) from ticks where ?1 = ?1", 0)?,
        notice_count: count("select count(*) from notices where ?1 = ?1", 0)?,
        old_run_count: count("select count(distinct run) from events where position < ?", end)?,
        old_event_count: count("select count(*) from events where position < ?", end)?,
        old_tick_count: count(&format!("select count(*) from ticks as t where {OLD_TICK}"), moment)?,
        old_notice_count: count(&format!("select count(*) from notices where {OLD_NOTICE}"), moment)?,
        oldest_at: oldest.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
    })
}

/// Old ticks. The newest one of a schedule stays: the next counts from there.
const OLD_TICK: &str =
    "t.at < ?1 and exists (select 1 from ticks as newer where newer.schedule = t.schedule and newer.at > t.at)";

/// Old notices that nothing more is done about. One of a run that goes on stays, so that it is not made again.
const OLD_NOTICE: &str = "made_at < ?1 and due_at is null \
                          and not exists (select 1 from runs where runs.run = notices.run and runs.ended_at is null)";

/// Where the part of the log ends that can go: everything before is of runs that ended before a moment and that nobody needs. What such a run has
/// behind the end goes later. Whoever reads the log, and has done so since that moment, has read it up to there.
pub(super) fn end(connection: &Connection, before: Timestamp) -> Result<i64, StoreError> {
    let number = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| -> Result<Option<i64>, StoreError> {
        connection.query_row(sql, parameters, |row| row.get(0)).map_err(failed("read"))
    };
    let newest = number("select max(position) from events", &[])?.unwrap_or(0);
    // Runs that go on, have ended lately, or belong to a backfill that goes on.
    let needed = "select min(events.position) from runs join events on events.run = runs.run and events.sequence = 1 \
                  where runs.ended_at is null or runs.ended_at >= ?1 \
                  or exists (select 1 from backfills where is_open = 1 and json_extract(body, '$.run') = runs.run)";
    let needed = number(needed, &[&before.as_microsecond()])?;
    let read = "select min(json_extract(cursor, '$.position')) + 1 from sensors \
                where watches in ('assets', 'jobs', 'automation') and is_off = 0 and looked_at >= ?1";
    let read = number(read, &[&before.as_microsecond()])?;
    Ok([needed, read].into_iter().flatten().min().unwrap_or(newest + 1))
}

/// Removes some events before the end that [`end`] gave, and some of what else is older than a moment. Returns whether there may be more.
pub(super) fn purge(connection: &Connection, before: Timestamp, end: i64) -> Result<bool, StoreError> {
    let sql = "select position, run, sequence, at, body from events where position < ? order by position limit ?";
    let events = read_events(connection, sql, params![end, ROW_COUNT])?;
    for event in &events {
        summary::apply_to_base(connection, event)?;
        writer::execute(connection, "delete from runs where run = ?", params![event.run.to_string()])?;
        for table in ["cancel_requests", "answers"] {
            writer::execute(connection, &format!("delete from {table} where run = ?"), params![event.run.to_string()])?;
        }
        writer::execute(connection, "delete from events where position = ?", params![event.position.cast_signed()])?;
    }
    let moment = before.as_microsecond();
    let ticks =
        format!("delete from ticks where (schedule, at) in (select t.schedule, t.at from ticks as t where {OLD_TICK} limit ?2)");
    let notices = format!(
        "delete from notices where (position, occasion, asset, receiver) in \
         (select position, occasion, asset, receiver from notices where {OLD_NOTICE} limit ?2)"
    );
    let mut count = events.len();
    count += writer::execute(connection, &ticks, params![moment, ROW_COUNT])?;
    count += writer::execute(connection, &notices, params![moment, ROW_COUNT])?;
    count += deliveries::purge(connection, moment, ROW_COUNT)?;
    // The id of a backfill begins with its time.
    let oldest = RunId::from_parts(u64::try_from(before.as_millisecond()).unwrap_or(0), 0).to_string();
    count += writer::execute(connection, "delete from backfills where is_open = 0 and id < ?", params![oldest])?;
    Ok(count > 0)
}
