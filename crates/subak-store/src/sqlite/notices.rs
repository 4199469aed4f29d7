//! Notices as a table.

use rusqlite::{Connection, OptionalExtension, Row, params};
use subak_domain::{FreshnessStatus, KnownFreshness, Notice, NoticeState, Occasion, Timestamp};

use super::failed;
use crate::StoreError;

const COLUMNS: &str = "position, occasion, receiver, run, state, attempt_count, due_at, sent_at, error, made_at, asset";

/// How far the log was read.
pub(super) fn read_position(connection: &Connection) -> Result<Option<u64>, StoreError> {
    let read = connection.query_row("select position from notices_read", [], |row| row.get::<_, i64>(0));
    Ok(read.optional().map_err(failed("read"))?.map(i64::unsigned_abs))
}

/// Enters those that are new, and notes how far the log was read.
pub(super) fn enter(connection: &Connection, position: u64, made: &[Notice]) -> Result<(), StoreError> {
    for notice in made {
        write(connection, notice, "on conflict do nothing")?;
    }
    let sql = "insert into notices_read (is_only, position) values (1, ?1) on conflict (is_only) do update set position = ?1";
    connection.execute(sql, [position.cast_signed()]).map_err(failed("written")).map(drop)
}

/// Notes how fresh assets are, forgets it of all that are not named, and enters what there is to tell of it.
pub(super) fn freshness(connection: &Connection, known: &[KnownFreshness], made: &[Notice]) -> Result<(), StoreError> {
    connection.execute("delete from freshness", []).map_err(failed("written"))?;
    let sql = "insert into freshness (asset, status) values (?, ?)";
    for one in known {
        let parameters = params![one.asset.as_str(), one.status.as_str()];
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed("written"))?;
    }
    made.iter().try_for_each(|notice| write(connection, notice, "on conflict do nothing"))
}

/// How fresh assets were when somebody last looked.
pub(super) fn known_freshness(connection: &Connection) -> Result<Vec<KnownFreshness>, StoreError> {
    let mut statement = connection.prepare_cached("select asset, status from freshness").map_err(failed("read"))?;
    let rows = statement.query_map([], |row| {
        let (asset, status): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(asset.parse().ok().zip(FreshnessStatus::of(&status)))
    });
    let found: Vec<_> = rows.map_err(failed("read"))?.collect::<rusqlite::Result<_>>().map_err(failed("read"))?;
    Ok(found.into_iter().flatten().map(|(asset, status)| KnownFreshness { asset, status }).collect())
}

/// Notes what became of one.
pub(super) fn settle(connection: &Connection, notice: &Notice) -> Result<(), StoreError> {
    let update = "on conflict do update set state = excluded.state, attempt_count = excluded.attempt_count, due_at = excluded.due_at, \
                  sent_at = excluded.sent_at, error = excluded.error";
    write(connection, notice, update)
}

fn write(connection: &Connection, notice: &Notice, conflict: &str) -> Result<(), StoreError> {
    let (state, attempt_count, due_at, sent_at, error) = match &notice.state {
        NoticeState::Open { attempt_count, due_at, error } => ("open", *attempt_count, Some(*due_at), None, error.as_deref()),
        NoticeState::Sent { at } => ("sent", 0, None, Some(*at), None),
        NoticeState::Failed { error } => ("failed", 0, None, None, Some(error.as_str())),
    };
    let sql = format!("insert into notices ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {conflict}");
    let micros = |moment: Option<Timestamp>| moment.map(Timestamp::as_microsecond);
    let parameters = params![
        notice.position.cast_signed(),
        notice.occasion.as_str(),
        notice.receiver,
        notice.run.to_string(),
        state,
        attempt_count,
        micros(due_at),
        micros(sent_at),
        error,
        notice.made_at.as_microsecond(),
        notice.asset.as_ref().map_or("", |asset| asset.as_str())
    ];
    connection.prepare_cached(&sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed("written")).map(drop)
}

/// Those that are due.
pub(super) fn due(connection: &Connection, now: Timestamp, count_max: usize) -> Result<Vec<Notice>, StoreError> {
    let sql = format!("select {COLUMNS} from notices where due_at <= ?1 order by due_at, position limit ?2");
    select(connection, &sql, params![now.as_microsecond(), i64::try_from(count_max).unwrap_or(i64::MAX)])
}

/// The newest first.
pub(super) fn newest(connection: &Connection, count_max: usize) -> Result<Vec<Notice>, StoreError> {
    let sql = format!("select {COLUMNS} from notices order by position desc, occasion, asset, receiver limit ?1");
    select(connection, &sql, params![i64::try_from(count_max).unwrap_or(i64::MAX)])
}

fn select(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<Notice>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let rows = statement.query_map(parameters, notice).map_err(failed("read"))?;
    let found: Vec<Option<Notice>> = rows.collect::<rusqlite::Result<_>>().map_err(failed("read"))?;
    // What cannot be read was written by another version; it tells nobody anything.
    Ok(found.into_iter().flatten().collect())
}

fn notice(row: &Row<'_>) -> rusqlite::Result<Option<Notice>> {
    let moment = |at: usize| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(at)?.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
    };
    let (occasion, run, state): (String, String, String) = (row.get(1)?, row.get(3)?, row.get(4)?);
    let error: Option<String> = row.get(8)?;
    let occasion = Occasion::NAMES.iter().find(|(name, _)| *name == occasion).map(|(_, occasion)| *occasion);
    let state = match state.as_str() {
        "open" => {
            moment(6)?.zip(Some(row.get(5)?)).map(|(due_at, attempt_count)| NoticeState::Open { attempt_count, due_at, error })
        }
        "sent" => moment(7)?.map(|at| NoticeState::Sent { at }),
        _ => Some(NoticeState::Failed { error: error.unwrap_or_default() }),
    };
    let (position, receiver, asset): (i64, String, String) = (row.get(0)?, row.get(2)?, row.get(10)?);
    let asset = asset.parse().ok();
    let (Some(occasion), Ok(run), Some(state), Some(made_at)) = (occasion, run.parse(), state, moment(9)?) else {
        return Ok(None);
    };
    Ok(Some(Notice { position: position.unsigned_abs(), run, asset, occasion, receiver, state, made_at }))
}
