//! Users, sessions, tokens and the audit log, as tables.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};
use subak_domain::{Rights, Timestamp};

use super::{failed, writer};
use crate::StoreError;
use crate::people::{AuditEntry, Audited, Change, Session, Token, User};

const USER: &str = "name, role, logs, data, password_hash, is_off, created_at";
const TOKEN: &str = "id, digest, name, user, role, logs, data, created_at, expires_at, used_at, revoked_at";

/// Carries out a change. `false` when it was refused.
pub(super) fn change(connection: &Connection, change: &Change) -> Result<bool, StoreError> {
    let execute = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| writer::execute(connection, sql, parameters);
    let count = match change {
        Change::AddUser(user) => add_user(connection, user, "on conflict do nothing")?,
        Change::AddFirstUser(user) => {
            let is_first: bool =
                connection.query_row("select not exists (select 1 from users)", [], |row| row.get(0)).map_err(failed("read"))?;
            if is_first { add_user(connection, user, "on conflict do nothing")? } else { 0 }
        }
        Change::ChangeUser(user) => {
            execute("delete from sessions where user = ?", &[&user.name])?;
            let sql = "update users set role = ?, logs = ?, data = ?, password_hash = ?, is_off = ? where name = ?";
            let rights = user.rights;
            execute(sql, params![rights.role.as_str(), rights.logs, rights.data, user.password_hash, user.is_off, user.name])?
        }
        Change::Password { name, was, now } => {
            execute("delete from sessions where user = ?", &[name])?;
            let sql = "update users set password_hash = ? where name = ? and password_hash = ? and is_off = 0";
            execute(sql, params![now, name, was])?
        }
        Change::RemoveUser(name) => {
            execute("delete from sessions where user = ?", &[name])?;
            execute("delete from tokens where user = ?", &[name])?;
            execute("delete from users where name = ?", &[name])?
        }
        Change::AddSession(session) => {
            // Those that are over go with the next one that begins.
            let now = session.created_at.as_microsecond();
            execute("delete from sessions where expires_at < ?", &[&now])?;
            let sql = "insert into sessions (digest, user, created_at, seen_at, expires_at) values (?, ?, ?, ?, ?)";
            let times = [session.created_at, session.seen_at, session.expires_at].map(Timestamp::as_microsecond);
            execute(sql, params![session.digest, session.user, times[0], times[1], times[2]])?
        }
        Change::EndSession(digest) => execute("delete from sessions where digest = ?", &[digest])?,
        Change::SeenSession(digest, at) => {
            execute("update sessions set seen_at = ? where digest = ?", params![at.as_microsecond(), digest])?
        }
        Change::AddToken(token) => {
            let sql = format!("insert into tokens ({TOKEN}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, null, null)");
            let rights = token.rights;
            let times = [token.created_at, token.expires_at].map(Timestamp::as_microsecond);
            let role = rights.role.as_str();
            let values =
                params![token.id, token.digest, token.name, token.user, role, rights.logs, rights.data, times[0], times[1]];
            execute(&sql, values)?
        }
        Change::RevokeToken(id, at) => {
            let sql = "update tokens set revoked_at = ? where id = ? and revoked_at is null";
            execute(sql, params![at.as_microsecond(), id])?
        }
        Change::UsedToken(id, at) => execute("update tokens set used_at = ? where id = ?", params![at.as_microsecond(), id])?,
    };
    Ok(count > 0)
}

fn add_user(connection: &Connection, user: &User, conflict: &str) -> Result<usize, StoreError> {
    let sql = format!("insert into users ({USER}) values (?, ?, ?, ?, ?, ?, ?) {conflict}");
    let (role, rights) = (user.rights.role.as_str(), user.rights);
    let created_at = user.created_at.as_microsecond();
    let values = params![user.name, role, rights.logs, rights.data, user.password_hash, user.is_off, created_at];
    writer::execute(connection, &sql, values)
}

fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_microsecond(row.get(at)?).unwrap_or_default())
}

fn time_or_none(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.and_then(|at| Timestamp::from_microsecond(at).ok()))
}

/// A role that this version does not know gives the least.
fn rights(row: &Row<'_>, at: usize) -> rusqlite::Result<Rights> {
    let role = row.get::<_, String>(at)?.parse().unwrap_or(subak_domain::Role::Viewer);
    Ok(Rights { role, logs: row.get(at + 1)?, data: row.get(at + 2)? })
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<User> {
    let (password_hash, is_off) = (row.get(4)?, row.get(5)?);
    Ok(User { name: row.get(0)?, rights: rights(row, 1)?, password_hash, is_off, created_at: time(row, 6)? })
}

fn token_of(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get(0)?,
        digest: row.get(1)?,
        name: row.get(2)?,
        user: row.get(3)?,
        rights: rights(row, 4)?,
        created_at: time(row, 7)?,
        expires_at: time(row, 8)?,
        used_at: time_or_none(row, 9)?,
        revoked_at: time_or_none(row, 10)?,
    })
}

/// All users by name.
pub(super) fn users(connection: &Connection) -> Result<Vec<User>, StoreError> {
    let sql = format!("select {USER} from users order by name");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    statement.query_map([], user_of).and_then(Iterator::collect).map_err(failed("read"))
}

/// The user of this name.
pub(super) fn user(connection: &Connection, name: &str) -> Result<Option<User>, StoreError> {
    let sql = format!("select {USER} from users where name = ?");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    statement.query_row([name], user_of).optional().map_err(failed("read"))
}

/// All tokens, the newest first.
pub(super) fn tokens(connection: &Connection) -> Result<Vec<Token>, StoreError> {
    let sql = format!("select {TOKEN} from tokens order by created_at desc, id");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    statement.query_map([], token_of).and_then(Iterator::collect).map_err(failed("read"))
}

/// The token whose secret has this digest.
pub(super) fn token(connection: &Connection, digest: &str) -> Result<Option<Token>, StoreError> {
    let sql = format!("select {TOKEN} from tokens where digest = ?");
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read"))?;
    statement.query_row([digest], token_of).optional().map_err(failed("read"))
}

/// The session whose secret has this digest.
pub(super) fn session(connection: &Connection, digest: &str) -> Result<Option<Session>, StoreError> {
    let sql = "select user, created_at, seen_at, expires_at from sessions where digest = ?";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let read = |row: &Row<'_>| {
        let (created_at, seen_at, expires_at) = (time(row, 1)?, time(row, 2)?, time(row, 3)?);
        Ok(Session { digest: digest.to_owned(), user: row.get(0)?, created_at, seen_at, expires_at })
    };
    statement.query_row([digest], read).optional().map_err(failed("read"))
}

/// What an entry's hash covers: each part with its length, so that none can be taken for another.
fn hash_of(before: &str, entry: &AuditEntry) -> String {
    let at = entry.at.as_microsecond().to_string();
    let mut hasher = Sha256::new();
    for part in [before, &at, &entry.actor, &entry.action, &entry.object, &entry.detail, &entry.origin] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// Enters something that was done.
pub(super) fn audit(connection: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    let before: Option<String> = connection
        .prepare_cached("select hash from audit order by position desc limit 1")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)).optional())
        .map_err(failed("read"))?;
    let hash = hash_of(&before.unwrap_or_default(), entry);
    let sql = "insert into audit (at, actor, action, object, detail, origin, hash) values (?, ?, ?, ?, ?, ?, ?)";
    let at = entry.at.as_microsecond();
    let values = params![at, entry.actor, entry.action, entry.object, entry.detail, entry.origin, hash];
    writer::execute(connection, sql, values).map(drop)
}

/// Entries before a position, the newest first.
pub(super) fn audited(connection: &Connection, before: u64, count_max: usize) -> Result<Vec<Audited>, StoreError> {
    let sql = "select position, at, actor, action, object, detail, origin, hash from audit where position < ? \
               order by position desc limit ?";
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let read = |row: &Row<'_>| {
        let entry = AuditEntry {
            at: time(row, 1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            object: row.get(4)?,
            detail: row.get(5)?,
            origin: row.get(6)?,
        };
        Ok(Audited { position: row.get::<_, i64>(0)?.unsigned_abs(), entry, hash: row.get(7)? })
    };
    let bounds = [i64::try_from(before).unwrap_or(i64::MAX), i64::try_from(count_max).unwrap_or(i64::MAX)];
    statement.query_map(bounds, read).and_then(Iterator::collect).map_err(failed("read"))
}

/// The first entry that is not what was entered; `None` when all are.
pub(super) fn first_false(connection: &Connection) -> Result<Option<u64>, StoreError> {
    let (mut before, mut expected) = (String::new(), 1);
    let mut entries = audited(connection, u64::MAX, usize::MAX)?;
    entries.reverse();
    for Audited { position, entry, hash } in entries {
        if position != expected || hash != hash_of(&before, &entry) {
            return Ok(Some(expected));
        }
        (before, expected) = (hash, position + 1);
    }
    // The newest may be gone: how many were ever entered is known apart from them.
    let sql = "select coalesce((select seq from sqlite_sequence where name = 'audit'), 0)";
    let entered: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(failed("read"))?;
    Ok((entered.unsigned_abs() >= expected).then_some(expected))
}

#[cfg(test)]
mod tests {
    use subak_domain::Role;

    use super::super::SqliteStore;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("time")
    }

    fn user(name: &str, role: Role) -> User {
        User { name: name.into(), rights: Rights::of(role), password_hash: None, is_off: false, created_at: at(1) }
    }

    fn entry(action: &str) -> AuditEntry {
        let (actor, origin) = ("mai".into(), "127.0.0.1".into());
        AuditEntry { at: at(2), actor, action: action.into(), object: "x".into(), detail: String::new(), origin }
    }

    async fn ask(store: &SqliteStore, change: Change) -> bool {
        store.audited_as(entry("test")).change_people(change).await.expect("asked")
    }

    #[tokio::test]
    async fn sessions_end_with_what_they_stand_for() {
        let folder = tempfile::tempdir().expect("folder");
        let store = SqliteStore::open(&folder.path().join("state.db")).expect("open");
        assert!(ask(&store, Change::AddFirstUser(user("mai", Role::Admin))).await);
        assert!(!ask(&store, Change::AddFirstUser(user("eve", Role::Admin))).await, "there is somebody");
        assert!(!ask(&store, Change::AddUser(user("mai", Role::Viewer))).await, "the name is taken");
        assert!(ask(&store, Change::AddUser(user("ben", Role::Viewer))).await);
        let session = |digest: &str, user: &str| {
            let times = (at(1), at(1), at(100));
            let (digest, user) = (digest.into(), user.into());
            Change::AddSession(Session { digest, user, created_at: times.0, seen_at: times.1, expires_at: times.2 })
        };
        for (digest, name) in [("a", "mai"), ("b", "ben"), ("c", "ben")] {
            ask(&store, session(digest, name)).await;
        }
        let known = |digest: &str| store.session(digest).expect("read").is_some();
        assert!(ask(&store, Change::EndSession("b".into())).await);
        assert!(known("a") && !known("b") && known("c"));
        assert!(ask(&store, Change::ChangeUser(user("ben", Role::Operator))).await);
        assert!(!known("c"), "other rights, another session");
        assert!(ask(&store, Change::RemoveUser("mai".into())).await);
        assert!(!known("a"));
        assert_eq!(store.users().expect("read"), [user("ben", Role::Operator)]);
    }

    /// Whoever changes an entry, takes one out or puts one between others shows by the first hash that is wrong.
    #[tokio::test]
    async fn the_audit_log_shows_what_was_changed_behind_its_back() {
        let tampered = [
            ("update audit set actor = 'eve' where position = 2", Some(2)),
            ("update audit set detail = 'x' where position = 3", Some(3)),
            ("delete from audit where position = 2", Some(2)),
            ("delete from audit where position = 4", Some(4)),
            ("delete from audit", Some(1)),
            ("update audit set actor = 'maim', action = 'y' where position = 1", Some(1)),
            ("select 1", None),
        ];
        for (sql, expected) in tampered {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("state.db");
            let store = SqliteStore::open(&path).expect("open");
            for number in 0..4 {
                let change = Change::AddUser(user(&format!("user {number}"), Role::Viewer));
                let audited = store.audited_as(entry(&format!("did {number}")));
                assert!(audited.change_people(change.clone()).await.expect("entered"));
                // What is refused was not done.
                assert!(!audited.change_people(change).await.expect("refused"));
            }
            let other = Connection::open(&path).expect("open");
            other.query_row(sql, [], |_| Ok(())).optional().expect("done");
            assert_eq!(store.audit_first_false().expect("read"), expected, "{sql}");
            let newest = store.audit(u64::MAX, 2).expect("read");
            assert!(expected.is_some() || newest.iter().map(|one| one.position).eq([4, 3]), "{newest:?}");
        }
    }
}
