//! The schema and its history. Each migration is one transaction; a backup is made before the first one that changes data.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use subak_domain::event::EVENT_FORMAT;

use super::failed;
use crate::StoreError;

/// Migrations in order; the index plus one is the format that a migration leads to.
const MIGRATIONS: &[&str] = &[
    "
    create table events (
        position integer primary key autoincrement,
        run text not null,
        sequence integer not null,
        at integer not null,
        body text not null,
        unique (run, sequence)) strict;
    create table leases (
        name text primary key,
        generation integer not null,
        holder text,
        expires_at integer) strict;
    -- Summaries: made from events, and thrown away whenever that is easier than mending them.
    create table runs (
        run text primary key,
        status text not null,
        selection text not null,
        trigger_text text not null,
        step_count integer not null,
        planned_at integer not null,
        started_at integer,
        ended_at integer,
        cause text) strict;
    create index runs_by_status on runs (status);
    create table materializations (
        asset text primary key,
        version text not null,
        position integer not null,
        run text not null,
        at integer not null,
        confirmed_at integer not null,
        confirmed_position integer not null,
        row_count integer,
        account text) strict;",
    "
    create table ticks (
        schedule text not null,
        at integer not null,
        outcome text not null,
        reason text,
        run text,
        recorded_at integer not null,
        primary key (schedule, at)) strict, without rowid;
    create index ticks_by_time on ticks (at);
    create table schedules (
        name text primary key,
        definition text not null,
        since integer not null,
        is_off integer not null) strict;",
    "
    create table notices (
        position integer not null,
        occasion text not null,
        receiver text not null,
        run text not null,
        state text not null,
        attempt_count integer not null,
        due_at integer,
        sent_at integer,
        error text,
        made_at integer not null,
        primary key (position, occasion, receiver)) strict, without rowid;
    create index notices_by_due on notices (due_at) where due_at is not null;
    alter table runs add column job text;
    update runs set job = (
        select json_extract(body, '$.planned.job') from events where events.run = runs.run and events.sequence = 1);
    create index runs_by_job on runs (job, ended_at);
    create table notices_read (
        is_only integer primary key check (is_only = 1),
        position integer not null) strict;",
    "
    create table partitions (
        asset text not null,
        key text not null,
        position integer not null,
        confirmed_position integer not null,
        failed_position integer not null,
        version text,
        run text not null,
        at integer not null,
        row_count integer,
        primary key (asset, key)) strict, without rowid;
    create table dynamic_partitions (
        place integer primary key autoincrement,
        name text not null,
        key text not null,
        added_at integer not null,
        unique (name, key)) strict;",
    "
    create table if not exists cancel_requests (
        run text primary key,
        at integer not null) strict;
    create table if not exists backfills (
        id text primary key,
        revision integer not null,
        is_open integer not null,
        body text not null) strict;",
    "
    create table sensors (
        name text primary key,
        watches text not null,
        cursor text not null,
        looked_at integer,
        came_to text not null,
        is_off integer not null,
        revision integer not null) strict;
    create table sensor_runs (
        sensor text not null,
        key text not null,
        run text not null,
        at integer not null,
        primary key (sensor, key)) strict, without rowid;",
    "
    -- What events told that are not in the log any more.
    create table base_materializations (
        asset text primary key,
        version text not null,
        position integer not null,
        run text not null,
        at integer not null,
        confirmed_at integer not null,
        confirmed_position integer not null,
        row_count integer,
        account text) strict;
    create table base_partitions (
        asset text not null,
        key text not null,
        position integer not null,
        confirmed_position integer not null,
        failed_position integer not null,
        version text,
        run text not null,
        at integer not null,
        row_count integer,
        primary key (asset, key)) strict, without rowid;
    create table answers (
        run text not null,
        step text not null,
        approved integer not null,
        answered_by text not null,
        input text not null,
        at integer not null,
        primary key (run, step)) strict, without rowid;",
    "
    create table deliveries (
        position integer primary key autoincrement,
        sensor text not null,
        id text not null,
        at integer not null,
        body text not null,
        unique (sensor, id)) strict;
    create index deliveries_by_sensor on deliveries (sensor, position);",
    "
    create table users (
        name text primary key,
        role text not null,
        logs integer not null,
        data integer not null,
        password_hash text,
        is_off integer not null,
        created_at integer not null) strict;
    create table sessions (
        digest text primary key,
        user text not null,
        created_at integer not null,
        seen_at integer not null,
        expires_at integer not null) strict, without rowid;
    create index sessions_by_user on sessions (user);
    create table tokens (
        id text primary key,
        digest text not null unique,
        name text not null,
        user text not null,
        role text not null,
        logs integer not null,
        data integer not null,
        created_at integer not null,
        expires_at integer not null,
        used_at integer,
        revoked_at integer) strict;
    create table audit (
        position integer primary key autoincrement,
        at integer not null,
        actor text not null,
        action text not null,
        object text not null,
        detail text not null,
        origin text not null,
        hash text not null) strict;
    create index runs_by_time on runs (planned_at);",
    "
    create table notices_with_assets (
        position integer not null,
        occasion text not null,
        asset text not null,
        receiver text not null,
        run text not null,
        state text not null,
        attempt_count integer not null,
        due_at integer,
        sent_at integer,
        error text,
        made_at integer not null,
        primary key (position, occasion, asset, receiver)) strict, without rowid;
    insert into notices_with_assets
        select position, occasion, '', receiver, run, state, attempt_count, due_at, sent_at, error, made_at from notices;
    drop table notices;
    alter table notices_with_assets rename to notices;
    create index notices_by_due on notices (due_at) where due_at is not null;
    create table freshness (
        asset text primary key,
        status text not null,
        since integer not null) strict, without rowid;",
    // 11: nothing ever read since when.
    "alter table freshness drop column since;",
    // 12: how far the log was told to whoever wants all of it.
    "create table exports (
        name text primary key,
        position integer not null) strict, without rowid;",
];

/// The format that this binary writes: schema and events together.
fn format_known() -> u32 {
    MIGRATIONS.len() as u32 + (EVENT_FORMAT - 1) * 1000
}

/// Brings the schema up to date. Two processes that do so at once take turns.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let read = |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let found = read(connection).map_err(failed("read"))?;
    if found > format_known() {
        return Err(StoreError::Newer { found, known: format_known() });
    }
    if found == format_known() {
        return Ok(());
    }
    if found > 0 {
        back_up(connection, path, found)?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed("written"))?;
    let found = read(&transaction).map_err(failed("read"))?;
    for migration in MIGRATIONS.iter().skip(found as usize % 1000) {
        transaction.execute_batch(migration).map_err(failed("written"))?;
    }
    transaction.pragma_update(None, "user_version", format_known()).map_err(failed("written"))?;
    transaction.commit().map_err(failed("written"))
}

fn back_up(connection: &Connection, path: &Path, format: u32) -> Result<(), StoreError> {
    let backup = path.with_extension(format!("db.backup-format-{format}"));
    if backup.exists() {
        return Ok(());
    }
    // One that a crash left behind half written does not count as a backup.
    let begun = path.with_extension("db.backup-begun");
    let not_made = |error: std::io::Error| StoreError::Failed { action: "written", source: Box::new(error) };
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_made(error)),
        _ => {}
    }
    connection.execute("vacuum into ?", [begun.display().to_string()]).map_err(failed("written"))?;
    std::fs::File::open(&begun).and_then(|file| file.sync_all()).map_err(not_made)?;
    std::fs::rename(&begun, &backup).map_err(not_made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_state_is_refused_and_an_older_one_backed_up() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state.db");
        let mut connection = Connection::open(&path).expect("open");
        migrate(&mut connection, &path).expect("migrate");
        migrate(&mut connection, &path).expect("again");
        connection.pragma_update(None, "user_version", format_known() + 1).expect("pragma");
        assert!(matches!(migrate(&mut connection, &path), Err(StoreError::Newer { .. })));
        back_up(&connection, &path, 1).expect("backup");
        assert!(path.with_extension("db.backup-format-1").exists());
    }

    /// What a database is made of.
    fn shape(connection: &Connection) -> Vec<String> {
        let mut rows =
            connection.prepare("select name from sqlite_schema where name not like 'sqlite_%' order by name").expect("schema");
        let names: Vec<String> =
            rows.query_map([], |row| row.get(0)).expect("schema").collect::<rusqlite::Result<_>>().expect("schema");
        let columns = |name: &String| {
            let mut rows = connection
                .prepare("select name || ' ' || type || ' ' || \"notnull\" || ' ' || pk from pragma_table_info(?)")
                .expect("columns");
            let found: Vec<String> =
                rows.query_map([name], |row| row.get(0)).expect("columns").collect::<rusqlite::Result<_>>().expect("columns");
            format!("{name}: {}", found.join(", "))
        };
        names.iter().map(columns).collect()
    }

    /// FM-55: every format that there ever was leads to this one; a migration that does not come to its end changes nothing, and is made again; a backup
    /// that was begun by somebody who died is none.
    #[test]
    fn fm_55_every_format_leads_to_this_one() {
        let folder = tempfile::tempdir().expect("folder");
        let new = folder.path().join("new.db");
        let mut connection = Connection::open(&new).expect("open");
        migrate(&mut connection, &new).expect("migrate");
        let expected = shape(&connection);
        for format in 1..MIGRATIONS.len() {
            let path = folder.path().join(format!("format-{format}.db"));
            let mut connection = Connection::open(&path).expect("open");
            for migration in &MIGRATIONS[..format] {
                connection.execute_batch(migration).expect("an old format");
            }
            let version = u32::try_from(format).expect("small");
            connection.pragma_update(None, "user_version", version).expect("pragma");
            let old = shape(&connection);
            // Whoever dies within it has changed nothing.
            for count in 1..=MIGRATIONS.len() - format {
                let transaction = connection.transaction().expect("begun");
                for migration in &MIGRATIONS[format..format + count] {
                    transaction.execute_batch(migration).expect("a migration");
                }
                drop(transaction);
                assert_eq!(shape(&connection), old, "format {format}, {count} migrations");
            }
            std::fs::write(path.with_extension("db.backup-begun"), "half of it").expect("written");
            migrate(&mut connection, &path).expect("migrate");
            assert_eq!(shape(&connection), expected, "format {format}");
            let backup = path.with_extension(format!("db.backup-format-{format}"));
            let kept = Connection::open(&backup).expect("the backup");
            assert_eq!(shape(&kept), old, "the backup of format {format}");
        }
    }
}
