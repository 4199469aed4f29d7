//! The one thread that writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use subak_domain::job::Answer as Said;
use subak_domain::{Backfill, Event, KnownFreshness, Notice, RunId, StepId, Timestamp};
use tokio::sync::oneshot;

use super::{deliveries, failed, notices, people, retention, sensors, summary, ticks};
use crate::lease::LEASE_DURATION;
use crate::people::{AuditEntry, Change};
use crate::{Acquired, Append, Delivered, Delivery, Holder, Lease, ScheduleState, SensorLook, StoreError, Tick};

/// How long a statement waits for another process's lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a patient writer tries again.
const AGAIN_INTERVAL: Duration = Duration::from_millis(500);

/// Requests in one transaction at most.
const GROUP_LENGTH_MAX: usize = 500;

/// What the writer can be asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Append(Append),
    Acquire {
        name: String,
        holder: Box<Holder>,
        now: Timestamp,
    },
    Renew(Lease, Timestamp),
    Release(Lease),
    Rebuild,
    /// A tick, and the run that it starts.
    Tick(Tick, Option<Append>, Option<Lease>),
    Schedule(String, ScheduleState),
    /// A run that somebody asked to stop, and when; `None` once it has ended.
    Cancel(RunId, Option<Timestamp>),
    /// A backfill as it is now, and the run that it plans.
    Backfill(Box<Backfill>, Option<Append>, Option<Lease>),
    /// Keys that a set of dynamic partitions gets.
    AddPartitions(String, Vec<String>, Timestamp),
    /// Keys that go from a set of dynamic partitions.
    RemovePartitions(String, Vec<String>),
    /// Notices that are new, and how far the log was read for them.
    Notices(u64, Vec<Notice>, Lease),
    /// How fresh assets are, and notices that are new.
    Freshness(Vec<KnownFreshness>, Vec<Notice>, Lease),
    /// How far the log was told to somebody who wants all of it.
    Exported(String, u64, Lease),
    /// What became of a notice.
    Notice(Notice),
    /// The schedules that there are; what is known of others is forgotten.
    Schedules(Vec<String>, Lease),
    /// What somebody answered to the question of a step.
    Answer(RunId, StepId, Said),
    /// Some of what is older than a moment goes, and events before a position.
    Purge(Timestamp, i64, Lease),
    /// Looks, and what follows from them.
    Sensor(Vec<SensorLook>),
    /// Something that a sensor was told.
    Deliver(Delivery),
    /// The sensors that there are; what is known of others is forgotten.
    Sensors(Vec<String>, Lease),
    /// Somebody changes.
    People(Change),
    /// Nothing, for what is done elsewhere and only has to be audited.
    Nothing,
    /// Something, and what the audit log says of it where it was not refused.
    Audited(Box<Request>, AuditEntry),
}

/// What it answers.
#[derive(Debug)]
pub(super) enum Answer {
    Events(Vec<Event>),
    Acquired(Acquired),
    /// Whether a tick was new.
    Ticked(bool),
    /// The runs that looks have started.
    Looked(Vec<RunId>),
    /// What became of a delivery.
    Delivered(Delivered),
    /// How many rows it was about.
    Count(u64),
    /// The names of which nothing is remembered any more.
    Forgotten(Vec<String>),
    Done,
}

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

/// A handle to the thread. Dropping it lets the thread finish what waits, and joins it.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Mutex<Option<Sender<(Request, Reply)>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) stall: Arc<Stall>,
}

/// Whether a writer waits until what keeps it from writing has passed: a full disk, or a lock of another process.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Whether it waits at all; otherwise it fails.
    pub(super) is_patient: AtomicBool,
    /// Why it waits now, and since when.
    now: Mutex<Option<(Duration, String)>>,
}

impl Stall {
    /// Whether the writer waits for the end of this.
    fn waits_for(&self, error: &rusqlite::Error) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        let passes = matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull));
        passes && self.is_patient.load(Ordering::Relaxed)
    }

    /// Notes what it waits for, and returns for how long it does before it tries again, the time that the last try has waited included.
    fn wait_for(&self, error: &rusqlite::Error) -> Duration {
        let is_full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        let waited = if is_full { AGAIN_INTERVAL } else { AGAIN_INTERVAL + BUSY_TIMEOUT };
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, why) = now.get_or_insert_default();
        (*before, *why) = (*before + waited, error.to_string());
        waited
    }

    fn is_over(&self) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// For how long it has waited now, and why.
    pub(super) fn now(&self) -> Option<(Duration, String)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The file that is written, and which one it was when it was opened.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Place {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }

    /// Refuses to go on once another file stands there, or none: whoever opens the state now does not see this one.
    fn refuse_moved(&self) -> Result<(), StoreError> {
        if identity(&self.path) == self.identity {
            return Ok(());
        }
        Err(StoreError::Moved { path: self.path.clone() })
    }
}

/// Tells a file from another one with its name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whatever waits for the disk is given up.
        self.stall.is_patient.store(false, Ordering::Relaxed);
        let take = |slot: &mut Option<Sender<(Request, Reply)>>| drop(slot.take());
        self.requests.get_mut().map(take).unwrap_or_default();
        if let Ok(Some(thread)) = self.thread.get_mut().map(Option::take) {
            drop(thread.join());
        }
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, path: &Path) -> Self {
        let (requests, waiting) = channel();
        let (stall, place) = (Arc::<Stall>::default(), Place::of(path));
        let known = Arc::clone(&stall);
        let thread = std::thread::spawn(move || serve(connection, &waiting, &known, &place));
        Self { requests: Mutex::new(Some(requests)), thread: Mutex::new(Some(thread)), stall }
    }

    /// Hands over a request and waits until it is durable.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        let gone = || StoreError::Failed { action: "written", source: "the writer has stopped".into() };
        let (reply, answer) = oneshot::channel();
        {
            let requests = self.requests.lock().map_err(|_| gone())?;
            requests.as_ref().ok_or_else(gone)?.send((request, reply)).map_err(|_| gone())?;
        }
        answer.await.map_err(|_| gone())?
    }

    pub(super) async fn acquire(&self, name: &str, holder: &Holder, now: Timestamp) -> Result<Acquired, StoreError> {
        let request = Request::Acquire { name: name.to_owned(), holder: Box::new(holder.clone()), now };
        match self.ask(request).await? {
            Answer::Acquired(acquired) => Ok(acquired),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }
}

fn serve(connection: Connection, waiting: &Receiver<(Request, Reply)>, stall: &Stall, place: &Place) {
    let mut lost: Option<rusqlite::Error> = None;
    while let Ok(first) = waiting.recv() {
        if let Some(lost) = &lost {
            drop(first.1.send(Err(failed("written")(copy(lost)))));
            continue;
        }
        let mut group = vec![first];
        while group.len() < GROUP_LENGTH_MAX
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        let answers = loop {
            match in_transaction(&connection, &group, place) {
                Err(error) if stall.waits_for(&error) && !is_deserted(waiting, &mut group) => {
                    let waited = stall.wait_for(&error);
                    std::thread::sleep(AGAIN_INTERVAL);
                    renew_as_of_now(&mut group, waited);
                }
                answers => break answers,
            }
        };
        stall.is_over();
        lost = answers.as_ref().err().filter(|error| is_lost_sync(error)).map(copy);
        match answers {
            Ok(answers) => group.into_iter().zip(answers).for_each(|((_, reply), answer)| drop(reply.send(answer))),
            Err(error) => group.into_iter().for_each(|(_, reply)| drop(reply.send(Err(failed("written")(copy(&error)))))),
        }
    }
    if lost.is_some() {
        // What is on the disk is found by whoever opens it next.
        return;
    }
    // Leaves one file behind, and none that looks like a crash.
    drop(connection.execute_batch("pragma wal_checkpoint(truncate)"));
}

/// Makes renewals that have waited for so long ones of now.
fn renew_as_of_now(group: &mut [(Request, Reply)], waited: Duration) {
    for (request, _) in group {
        if let Request::Renew(_, now) = request {
            *now += waited;
        }
    }
}

/// Takes up what came meanwhile. Whether nobody is there any more to ask for anything.
fn is_deserted(waiting: &Receiver<(Request, Reply)>, group: &mut Vec<(Request, Reply)>) -> bool {
    while group.len() < GROUP_LENGTH_MAX {
        match waiting.try_recv() {
            Ok(next) => group.push(next),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => return true,
        }
    }
    false
}

/// One transaction for the whole group. A request that fails is rolled back alone; a commit that fails fails all of them, and nothing was done.
fn in_transaction(
    connection: &Connection,
    group: &[(Request, Reply)],
    place: &Place,
) -> Result<Vec<Result<Answer, StoreError>>, rusqlite::Error> {
    let full = || {
        let lost = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        rusqlite::Error::SqliteFailure(lost, Some("the disk is full".into()))
    };
    let written = || {
        connection.execute_batch("begin immediate")?;
        let mut answers = Vec::with_capacity(group.len());
        for (request, _) in group {
            let answer = in_savepoint(connection, request, place);
            if matches!(answer, Err(StoreError::Full(_))) {
                return Err(full());
            }
            // Some errors end the whole transaction, savepoints included. Whatever ran after that would commit by itself.
            if connection.is_autocommit() {
                let lost = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
                let why = answer.err().map_or_else(|| "the transaction was rolled back".to_owned(), |error| error.to_string());
                return Err(rusqlite::Error::SqliteFailure(lost, Some(why)));
            }
            answers.push(answer);
        }
        connection.execute_batch("commit")?;
        Ok(answers)
    };
    let outcome = written();
    if outcome.is_err() && !connection.is_autocommit() {
        drop(connection.execute_batch("rollback"));
    }
    outcome
}

/// Whether a sync failed. What was to be synced may be gone from the system's memory, so that the next sync succeeds without it: nothing may be written
/// any more that counts on it (SQLite's `pager.c` cannot know; fsync(2) since Linux 4.13).
fn is_lost_sync(error: &rusqlite::Error) -> bool {
    let codes = [rusqlite::ffi::SQLITE_IOERR_FSYNC, rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC];
    error.sqlite_error().is_some_and(|error| codes.contains(&error.extended_code))
}

/// The same error once more, for each request of a group.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}

fn in_savepoint(connection: &Connection, request: &Request, place: &Place) -> Result<Answer, StoreError> {
    let run =
        |sql: &str| connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(failed("written"));
    if let Request::Renew(..) = request {
        place.refuse_moved()?;
    }
    run("savepoint request")?;
    let answer = handle(connection, request);
    if answer.is_err() {
        run("rollback to request")?;
    }
    run("release request")?;
    answer
}

fn handle(connection: &Connection, request: &Request) -> Result<Answer, StoreError> {
    match request {
        Request::Append(append) => append_events(connection, append).map(Answer::Events),
        Request::Acquire { name, holder, now } => acquire(connection, name, holder, *now).map(Answer::Acquired),
        Request::Renew(lease, now) => renew(connection, lease, *now).map(|()| Answer::Done),
        Request::Release(lease) => release(connection, lease).map(|()| Answer::Done),
        Request::Nothing => Ok(Answer::Done),
        Request::Rebuild => summary::rebuild(connection).map(|()| Answer::Done),
        Request::Tick(tick, append, fence) => enter_tick(connection, tick, append.as_ref(), fence.as_ref()).map(Answer::Ticked),
        Request::Schedules(names, fence) => {
            refuse_stale(connection, Some(fence))?;
            ticks::keep(connection, names).map(Answer::Forgotten)
        }
        Request::Sensor(looks) => enter_looks(connection, looks).map(Answer::Looked),
        Request::Purge(before, end, fence) => {
            refuse_stale(connection, Some(fence))?;
            retention::purge(connection, *before, *end).map(Answer::Ticked)
        }
        Request::Answer(run, step, said) => enter_answer(connection, *run, step, said).map(Answer::Ticked),
        Request::Deliver(delivery) => deliveries::enter(connection, delivery).map(Answer::Delivered),
        Request::Sensors(names, fence) => {
            refuse_stale(connection, Some(fence))?;
            sensors::keep(connection, names).map(Answer::Forgotten)
        }
        Request::Cancel(run, Some(at)) => {
            let sql = "insert into cancel_requests (run, at) values (?, ?) on conflict do nothing";
            execute(connection, sql, params![run.to_string(), at.as_microsecond()]).map(|_| Answer::Done)
        }
        Request::Cancel(run, None) => {
            execute(connection, "delete from cancel_requests where run = ?", params![run.to_string()]).map(|_| Answer::Done)
        }
        Request::Backfill(backfill, append, fence) => {
            refuse_stale(connection, fence.as_ref())?;
            put_backfill(connection, backfill, append.as_ref()).map(Answer::Ticked)
        }
        Request::AddPartitions(name, keys, now) => {
            let added = |key: &String| add_partition(connection, name, key, *now);
            keys.iter().map(added).sum::<Result<usize, _>>().map(|count| Answer::Count(count as u64))
        }
        Request::RemovePartitions(name, keys) => {
            let sql = "delete from dynamic_partitions where name = ? and key = ?";
            let removed = |key: &String| execute(connection, sql, params![name, key]);
            keys.iter().map(removed).sum::<Result<usize, _>>().map(|count| Answer::Count(count as u64))
        }
        Request::Notices(position, made, fence) => {
            refuse_stale(connection, Some(fence))?;
            notices::enter(connection, *position, made).map(|()| Answer::Done)
        }
        Request::Freshness(known, made, fence) => {
            refuse_stale(connection, Some(fence))?;
            notices::freshness(connection, known, made).map(|()| Answer::Done)
        }
        Request::Exported(name, position, fence) => {
            refuse_stale(connection, Some(fence))?;
            let sql = "insert into exports (name, position) values (?1, ?2) on conflict (name) do update set position = ?2";
            execute(connection, sql, params![name, position.cast_signed()]).map(|_| Answer::Done)
        }
        Request::Notice(notice) => notices::settle(connection, notice).map(|()| Answer::Done),
        Request::People(change) => people::change(connection, change).map(Answer::Ticked),
        Request::Audited(request, entry) => handle_audited(connection, request, entry),
        Request::Schedule(name, state) => ticks::set_state(connection, name, state).map(|()| Answer::Done),
    }
}

fn release(connection: &Connection, lease: &Lease) -> Result<(), StoreError> {
    let sql = "update leases set holder = null, expires_at = null where name = ? and generation = ?";
    execute(connection, sql, params![lease.name, lease.generation.cast_signed()]).map(drop)
}

/// Enters a tick and the run that it starts. `false` when the tick is there.
fn enter_tick(connection: &Connection, tick: &Tick, append: Option<&Append>, fence: Option<&Lease>) -> Result<bool, StoreError> {
    refuse_stale(connection, fence)?;
    let is_new = ticks::enter(connection, tick)?;
    if let Some(append) = append.filter(|_| is_new) {
        append_events(connection, append)?;
    }
    Ok(is_new)
}

fn renew(connection: &Connection, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
    let sql = "update leases set expires_at = ? where name = ? and generation = ? and holder is not null";
    let expires_at = (now + LEASE_DURATION).as_microsecond();
    let count = execute(connection, sql, params![expires_at, lease.name, lease.generation.cast_signed()])?;
    if count == 1 { Ok(()) } else { Err(StoreError::Fenced { name: lease.name.clone() }) }
}

/// Does something, and enters what the audit log says of it unless it was refused.
fn handle_audited(connection: &Connection, request: &Request, entry: &AuditEntry) -> Result<Answer, StoreError> {
    let answer = handle(connection, request)?;
    if !matches!(answer, Answer::Ticked(false)) {
        people::audit(connection, entry)?;
    }
    Ok(answer)
}

/// Enters an answer. `false` when there is one.
fn enter_answer(connection: &Connection, run: RunId, step: &StepId, said: &Said) -> Result<bool, StoreError> {
    let sql =
        "insert into answers (run, step, approved, answered_by, input, at) values (?, ?, ?, ?, ?, ?) on conflict do nothing";
    let input =
        serde_json::to_string(&said.input).map_err(|error| StoreError::Failed { action: "written", source: Box::new(error) })?;
    let parameters = params![run.to_string(), step.as_str(), said.approved, said.by, input, said.at.as_microsecond()];
    Ok(execute(connection, sql, parameters)? == 1)
}

/// Enters looks; an error for one of them is one for all.
fn enter_looks(connection: &Connection, looks: &[SensorLook]) -> Result<Vec<RunId>, StoreError> {
    let mut started = Vec::new();
    for look in looks {
        refuse_stale(connection, look.fence.as_ref())?;
        started.extend(sensors::enter(connection, look)?);
    }
    Ok(started)
}

/// Enters a backfill or its next revision, with the run that it plans. `false` when another revision is there.
fn put_backfill(connection: &Connection, backfill: &Backfill, append: Option<&Append>) -> Result<bool, StoreError> {
    let body =
        serde_json::to_string(backfill).map_err(|error| StoreError::Failed { action: "written", source: Box::new(error) })?;
    let (id, revision) = (backfill.id.to_string(), backfill.revision.cast_signed());
    let is_open = !backfill.state.is_final();
    let count = if revision == 1 {
        let sql = "insert into backfills (id, revision, is_open, body) values (?, ?, ?, ?) on conflict do nothing";
        execute(connection, sql, params![id, revision, is_open, body])?
    } else {
        let sql = "update backfills set revision = ?, is_open = ?, body = ? where id = ? and revision = ?";
        execute(connection, sql, params![revision, is_open, body, id, revision - 1])?
    };
    if let Some(append) = append.filter(|_| count == 1) {
        append_events(connection, append)?;
    }
    Ok(count == 1)
}

/// Adds a key to a set of dynamic partitions. Returns how many are new: one, or none when it is there.
pub(super) fn add_partition(connection: &Connection, name: &str, key: &str, now: Timestamp) -> Result<usize, StoreError> {
    let sql = "insert into dynamic_partitions (name, key, added_at) values (?, ?, ?) on conflict do nothing";
    execute(connection, sql, params![name, key, now.as_microsecond()])
}

pub(super) fn execute(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters)).map_err(failed("written"))
}

/// Refuses whoever acts under a lease that somebody else has by now.
fn refuse_stale(connection: &Connection, fence: Option<&Lease>) -> Result<(), StoreError> {
    let Some(fence) = fence else { return Ok(()) };
    let sql = "select generation from leases where name = ? and holder is not null";
    let generation: Option<i64> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([&fence.name], |row| row.get(0)).optional())
        .map_err(failed("read"))?;
    if generation.map(i64::unsigned_abs) == Some(fence.generation) {
        return Ok(());
    }
    Err(StoreError::Fenced { name: fence.name.clone() })
}

pub(super) fn append_events(connection: &Connection, append: &Append) -> Result<Vec<Event>, StoreError> {
    refuse_stale(connection, append.fence.as_ref())?;
    let run = append.run.to_string();
    let found: i64 = connection
        .prepare_cached("select coalesce(max(sequence), 0) from events where run = ?")
        .and_then(|mut statement| statement.query_row([&run], |row| row.get(0)))
        .map_err(failed("read"))?;
    if found.unsigned_abs() + 1 != append.expected {
        return Err(StoreError::Conflict { expected: append.expected - 1, found: found.unsigned_abs() });
    }
    let mut events = Vec::with_capacity(append.events.len());
    for (sequence, (at, event)) in (append.expected..).zip(&append.events) {
        let body =
            serde_json::to_string(event).map_err(|error| StoreError::Failed { action: "written", source: Box::new(error) })?;
        let sql = "insert into events (run, sequence, at, body) values (?, ?, ?, ?)";
        execute(connection, sql, params![run, sequence.cast_signed(), at.as_microsecond(), body])?;
        let position = connection.last_insert_rowid().unsigned_abs();
        let event = Event { position, run: append.run, sequence, at: *at, event: event.clone() };
        summary::apply(connection, &event)?;
        events.push(event);
    }
    Ok(events)
}

fn acquire(connection: &Connection, name: &str, holder: &Holder, now: Timestamp) -> Result<Acquired, StoreError> {
    let row: Option<(i64, Option<String>, Option<i64>)> = connection
        .query_row("select generation, holder, expires_at from leases where name = ?", [name], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()
        .map_err(failed("read"))?;
    let (generation, held, expires_at) = row.unwrap_or((0, None, None));
    let previous: Option<Holder> = held.and_then(|text| serde_json::from_str(&text).ok());
    if let (Some(other), Some(expires_at)) = (&previous, expires_at)
        && expires_at > now.as_microsecond()
        && !other.is_gone()
    {
        return Ok(Acquired::No { holder: other.clone() });
    }
    let sql = "insert into leases (name, generation, holder, expires_at) values (?1, ?2, ?3, ?4) \
               on conflict (name) do update set generation = ?2, holder = ?3, expires_at = ?4";
    let text =
        serde_json::to_string(holder).map_err(|error| StoreError::Failed { action: "written", source: Box::new(error) })?;
    execute(connection, sql, params![name, generation + 1, text, (now + LEASE_DURATION).as_microsecond()])?;
    let lease = Lease { name: name.to_owned(), generation: generation.unsigned_abs() + 1 };
    Ok(Acquired::Yes { lease, previous })
}
