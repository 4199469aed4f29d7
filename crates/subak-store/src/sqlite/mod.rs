//! The store on SQLite.
//!
//! One thread owns the one connection that writes. It takes whatever requests are waiting, runs them in one transaction with a
//! savepoint each, commits once with `synchronous=FULL`, and only then answers: group commit. Readers use their own connection
//! and never block it (WAL).

mod deliveries;
mod migrate;
mod notices;
mod people;
mod retention;
mod sensors;
mod summary;
mod ticks;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use subak_domain::job::Answer as Said;
use subak_domain::{
    AssetKey, Backfill, Event, KnownFreshness, Notice, Occasion, RunEvent, RunId, RunStatus, Snapshot, StepId, Timestamp,
};
use tokio::sync::watch;

pub use self::summary::{PartitionDetail, RunCounts, RunFilter, RunSummary};
use self::writer::{Answer, Request, Writer};
use crate::people::{AuditEntry, Audited, Change, Session, Token, User};
use crate::{
    Acquired, Append, Delivered, Delivery, EventLog, Holder, Kept, Lease, Leases, Looked, ScheduleState, SensorLook, SensorState,
    StoreError, Tick,
};

/// Opens, reads and writes `state.db` in a project's `.subak` folder. Clones share it.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    writer: Arc<Writer>,
    reader: Arc<Mutex<Connection>>,
    newest: watch::Sender<u64>,
    /// How long one read may take.
    read_duration_max: std::time::Duration,
    /// What the audit log says of each write.
    entry: Option<AuditEntry>,
}

pub(crate) fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => {
            StoreError::Failed { action, source: "one look at the state took longer than a minute, and was ended".into() }
        }
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full(Box::new(error)),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Failed { action, source: Box::new(error) },
    }
}

/// How long somebody may read at once. While one reads, nothing that is written since can be taken out of the log beside the file.
const READ_DURATION_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// Operations of SQLite's machine between two looks at the clock: some milliseconds.
const LOOK_OPERATIONS: i32 = 100_000;

/// Ends what a connection does from now on once it has taken too long.
#[expect(clippy::disallowed_methods, reason = "a bound of how long something takes, which no test goes by")]
fn bound(reader: &mut Connection, duration_max: std::time::Duration) {
    let began_at = std::time::Instant::now();
    // It is refused on a connection that is not its own only, and this one is.
    drop(reader.progress_handler(LOOK_OPERATIONS, Some(move || began_at.elapsed() > duration_max)));
}

/// A connection that only reads.
fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|reader| {
        reader.busy_timeout(writer::BUSY_TIMEOUT)?;
        Ok(reader)
    });
    opened.map_err(|error| StoreError::Open { path: path.to_path_buf(), source: Box::new(error) })
}

impl SqliteStore {
    /// Opens the database, makes it when it does not exist, and brings its schema up to date after a backup.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let cannot_open =
            |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open { path: path.to_path_buf(), source };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| cannot_open(Box::new(error)))?;
        if is_network_file_system(folder) {
            return Err(StoreError::NetworkFileSystem { path: path.to_path_buf() });
        }
        let was_unclean = path.with_extension("db-wal").metadata().is_ok_and(|metadata| metadata.len() > 0);
        let mut connection = Connection::open(path).map_err(|error| cannot_open(Box::new(error)))?;
        configure(&connection).map_err(|error| cannot_open(Box::new(error)))?;
        if was_unclean {
            check(&connection)?;
        }
        migrate::migrate(&mut connection, path)?;
        let reader = open_reader(path)?;
        let writer = Arc::new(Writer::start(connection, path));
        Ok(Self {
            path: path.to_path_buf(),
            writer,
            reader: Arc::new(Mutex::new(reader)),
            newest: watch::Sender::new(0),
            read_duration_max: READ_DURATION_MAX,
            entry: None,
        })
    }

    /// The same state, read by a connection of its own: who reads much by it holds up nobody else.
    pub fn with_own_reader(&self) -> Result<Self, StoreError> {
        let reader = open_reader(&self.path)?;
        Ok(Self { reader: Arc::new(Mutex::new(reader)), ..self.clone() })
    }

    /// The same state, whose writes the audit log tells of: each that was not refused comes with this entry, both or neither.
    #[must_use]
    pub fn audited_as(&self, entry: AuditEntry) -> Self {
        Self { entry: Some(entry), ..self.clone() }
    }

    async fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        match &self.entry {
            Some(entry) => self.writer.ask(Request::Audited(Box::new(request), entry.clone())).await,
            None => self.writer.ask(request).await,
        }
    }

    /// Whether a write waits from now on until it can be made, where the disk is full or another process has the file; at first it fails. Reads go on.
    pub fn be_patient(&self, is_patient: bool) {
        self.writer.stall.is_patient.store(is_patient, Ordering::Relaxed);
    }

    /// Whether a write waits.
    pub fn is_patient(&self) -> bool {
        self.writer.stall.is_patient.load(Ordering::Relaxed)
    }

    /// For how long writes have waited, and for what; `None` where they go on.
    pub fn stalled(&self) -> Option<(std::time::Duration, String)> {
        self.writer.stall.now()
    }

    /// How far the log was told to somebody who wants all of it; `None` where nobody has begun.
    pub fn exported(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let sql = "select position from exports where name = ?";
        let found: Option<i64> = self.read().query_row(sql, [name], |row| row.get(0)).optional().map_err(failed("read"))?;
        Ok(found.map(i64::unsigned_abs))
    }

    /// Notes how far the log was told to somebody.
    pub async fn set_exported(&self, name: &str, position: u64, lease: &Lease) -> Result<(), StoreError> {
        self.ask(Request::Exported(name.to_owned(), position, lease.clone())).await.map(drop)
    }

    /// Notes in the audit log that somebody is about to do something elsewhere.
    pub async fn note(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.audited_as(entry).ask(Request::Nothing).await.map(drop)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known about assets.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        summary::snapshot(&self.read())
    }

    /// The newest runs first, at most `count_max`.
    pub fn runs(&self, count_max: usize) -> Result<Vec<RunSummary>, StoreError> {
        summary::runs(&self.read(), count_max)
    }

    /// A run by its id.
    pub fn run(&self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        summary::run(&self.read(), run)
    }

    /// The newest runs that a filter lets through, at most `count_max`.
    pub fn find_runs(&self, filter: &RunFilter, count_max: usize) -> Result<Vec<RunSummary>, StoreError> {
        summary::find_runs(&self.read(), filter, count_max)
    }

    /// How many runs a filter lets through; what it says of a place in the list counts too.
    pub fn count_runs(&self, filter: &RunFilter) -> Result<u64, StoreError> {
        summary::count_runs(&self.read(), filter)
    }

    /// The newest run of a job.
    pub fn last_run_of(&self, job: &str) -> Result<Option<RunSummary>, StoreError> {
        summary::last_run_of(&self.read(), job)
    }

    /// How the run of a job ended that was planned last of those that have ended and were not canceled.
    pub fn last_ended(&self, job: &str) -> Result<Option<RunStatus>, StoreError> {
        summary::last_ended(&self.read(), job)
    }

    /// Runs whose id begins with `prefix`, newest first, at most two: enough to tell whether the prefix is clear.
    pub fn runs_by_prefix(&self, prefix: &str) -> Result<Vec<RunId>, StoreError> {
        summary::runs_by_prefix(&self.read(), prefix)
    }

    /// Runs that no event has ended, oldest first.
    pub fn open_runs(&self) -> Result<Vec<RunId>, StoreError> {
        summary::open_runs(&self.read())
    }

    /// All events of one run, oldest first.
    pub fn run_events(&self, run: RunId) -> Result<Vec<Event>, StoreError> {
        let sql = "select position, run, sequence, at, body from events where run = ? order by sequence";
        read_events(&self.read(), sql, params![run.to_string()])
    }

    /// The events of all runs that are planned and not begun, or to be taken up again, by run.
    pub fn queued_events(&self) -> Result<Vec<Event>, StoreError> {
        let sql = "select position, run, sequence, at, body from events \
                   where run in (select run from runs where status = 'queued') order by run, sequence";
        read_events(&self.read(), sql, [])
    }

    /// The newest tick of a schedule that has started a run.
    pub fn last_started(&self, schedule: &str) -> Result<Option<Timestamp>, StoreError> {
        ticks::last_started(&self.read(), schedule)
    }

    /// Who holds a lease now.
    pub fn holder(&self, lease: &str, now: Timestamp) -> Result<Option<Holder>, StoreError> {
        let sql = "select holder from leases where name = ? and holder is not null and expires_at > ?";
        let parameters = params![lease, now.as_microsecond()];
        let text: Option<String> = self.read().query_row(sql, parameters, |row| row.get(0)).optional().map_err(failed("read"))?;
        let holder = text.and_then(|text| serde_json::from_str::<Holder>(&text).ok());
        Ok(holder.filter(|holder| !holder.is_gone()))
    }

    /// Who took a lease last and has not given it back, where it is a process of this machine that lives. Its right may have run out: it stands still, or
    /// the clock was put forward.
    pub fn last_holder(&self, lease: &str) -> Result<Option<Holder>, StoreError> {
        let sql = "select holder from leases where name = ? and holder is not null";
        let text: Option<String> = self.read().query_row(sql, [lease], |row| row.get(0)).optional().map_err(failed("read"))?;
        let holder = text.and_then(|text| serde_json::from_str::<Holder>(&text).ok());
        Ok(holder.filter(Holder::is_alive))
    }

    /// Records a tick, and with it the run that it starts: both are there afterwards, or neither. `false` when the tick is known already;
    /// nothing is planned then. Whoever acts under `fence` must still have it.
    pub async fn tick(&self, tick: Tick, planned: Option<Append>, fence: Option<Lease>) -> Result<bool, StoreError> {
        match self.ask(Request::Tick(tick, planned, fence)).await? {
            Answer::Ticked(is_new) => Ok(is_new),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// The newest ticks first, of one schedule or of all.
    pub fn ticks(&self, schedule: Option<&str>, count_max: usize) -> Result<Vec<Tick>, StoreError> {
        ticks::newest(&self.read(), schedule, count_max)
    }

    /// What is known of a schedule besides its ticks; `None` when it was never seen.
    pub fn schedule(&self, name: &str) -> Result<Option<ScheduleState>, StoreError> {
        ticks::state(&self.read(), name)
    }

    /// Notes what a schedule is now.
    pub async fn set_schedule(&self, name: &str, state: ScheduleState) -> Result<(), StoreError> {
        self.ask(Request::Schedule(name.to_owned(), state)).await.map(drop)
    }

    /// Forgets what is known of schedules that are not among these. Returns the names of those.
    pub async fn keep_schedules(&self, names: Vec<String>, lease: &Lease) -> Result<Vec<String>, StoreError> {
        match self.ask(Request::Schedules(names, lease.clone())).await? {
            Answer::Forgotten(names) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }

    /// Enters what somebody answered to the question of a step. `false` when somebody has answered before.
    pub async fn enter_answer(&self, run: RunId, step: StepId, answer: Said) -> Result<bool, StoreError> {
        match self.ask(Request::Answer(run, step, answer)).await? {
            Answer::Ticked(is_first) => Ok(is_first),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// What somebody answered to the question of a step.
    pub fn answer(&self, run: RunId, step: &StepId) -> Result<Option<Said>, StoreError> {
        let sql = "select approved, answered_by, input, at from answers where run = ? and step = ?";
        let connection = self.read();
        let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
        let answer = |row: &Row<'_>| {
            let (input, at): (String, i64) = (row.get(2)?, row.get(3)?);
            let input = serde_json::from_str(&input).unwrap_or_default();
            let at = Timestamp::from_microsecond(at).unwrap_or_default();
            Ok(Said { approved: row.get(0)?, by: row.get(1)?, input, at })
        };
        statement.query_row(params![run.to_string(), step.as_str()], answer).optional().map_err(failed("read"))
    }

    /// What is known of a sensor; `None` when it never looked.
    pub fn sensor(&self, name: &str) -> Result<Option<SensorState>, StoreError> {
        sensors::state(&self.read(), name)
    }

    /// The run that a sensor started for a key.
    pub fn sensor_run(&self, sensor: &str, key: &str) -> Result<Option<RunId>, StoreError> {
        sensors::run_of(&self.read(), sensor, key)
    }

    /// Writes a look of a sensor: its state, the keys of partitions, the runs and the tick, all or nothing. A sensor has one run for a key, however
    /// often it asks.
    pub async fn look(&self, look: SensorLook) -> Result<Looked, StoreError> {
        self.looks(vec![look]).await
    }

    /// Writes several looks: all of them or none.
    pub async fn looks(&self, looks: Vec<SensorLook>) -> Result<Looked, StoreError> {
        match self.ask(Request::Sensor(looks)).await {
            Ok(Answer::Looked(started)) => Ok(Looked::Started(started)),
            Ok(_) => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
            Err(StoreError::Changed { .. }) => Ok(Looked::Changed),
            Err(error) => Err(error),
        }
    }

    /// Keeps what a sensor was told; durable when this returns.
    pub async fn deliver(&self, delivery: Delivery) -> Result<Delivered, StoreError> {
        match self.ask(Request::Deliver(delivery)).await? {
            Answer::Delivered(delivered) => Ok(delivered),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// What a sensor was told behind a position, oldest first, with positions.
    pub fn deliveries(&self, sensor: &str, after: u64, count_max: usize) -> Result<Vec<(u64, Delivery)>, StoreError> {
        deliveries::after(&self.read(), sensor, after, count_max)
    }

    /// How many runs there are by status, and when the oldest of those that wait was planned.
    pub fn run_counts(&self) -> Result<RunCounts, StoreError> {
        summary::run_counts(&self.read())
    }

    /// Changes who there is. `false` when the change was refused.
    pub async fn change_people(&self, change: Change) -> Result<bool, StoreError> {
        match self.ask(Request::People(change)).await? {
            Answer::Ticked(is_done) => Ok(is_done),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// All users by name.
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        people::users(&self.read())
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        people::user(&self.read(), name)
    }

    /// All tokens, the newest first.
    pub fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        people::tokens(&self.read())
    }

    /// The token whose secret has this digest.
    pub fn token(&self, digest: &str) -> Result<Option<Token>, StoreError> {
        people::token(&self.read(), digest)
    }

    /// The session whose secret has this digest.
    pub fn session(&self, digest: &str) -> Result<Option<Session>, StoreError> {
        people::session(&self.read(), digest)
    }

    /// Entries of the audit log before a position, the newest first.
    pub fn audit(&self, before: u64, count_max: usize) -> Result<Vec<Audited>, StoreError> {
        people::audited(&self.read(), before, count_max)
    }

    /// The first place of the audit log at which something else stands than what was entered.
    pub fn audit_first_false(&self) -> Result<Option<u64>, StoreError> {
        people::first_false(&self.read())
    }

    /// Forgets what is known of sensors that are not among these, save which runs they have started. Returns their names.
    pub async fn keep_sensors(&self, names: Vec<String>, lease: &Lease) -> Result<Vec<String>, StoreError> {
        match self.ask(Request::Sensors(names, lease.clone())).await? {
            Answer::Forgotten(names) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }

    /// How the run of a job ended that ended last before a moment, another one than `run` and not one that was canceled.
    pub fn ended_before(&self, job: &str, run: RunId, at: Timestamp) -> Result<Option<RunStatus>, StoreError> {
        summary::ended_before(&self.read(), job, run, at)
    }

    /// Whether there is a notice of this kind about a run, by an event of it.
    pub fn has_notice(&self, position: u64, occasion: Occasion) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from notices where position = ? and occasion = ? and asset = '')";
        let parameters = params![position.cast_signed(), occasion.as_str()];
        self.read().query_row(sql, parameters, |row| row.get(0)).map_err(failed("read"))
    }

    /// Asks whoever has a run to stop it.
    pub async fn request_cancel(&self, run: RunId, now: Timestamp) -> Result<(), StoreError> {
        self.ask(Request::Cancel(run, Some(now))).await.map(drop)
    }

    /// Forgets that somebody asked for the end of a run: it has ended.
    pub async fn forget_cancel(&self, run: RunId) -> Result<(), StoreError> {
        self.ask(Request::Cancel(run, None)).await.map(drop)
    }

    /// Runs that somebody asked to stop.
    pub fn cancel_requests(&self) -> Result<Vec<RunId>, StoreError> {
        summary::ids(&self.read(), "select run from cancel_requests order by run", [])
    }

    /// Backfills, newest first; only those that are not over where `open_only`.
    pub fn backfills(&self, open_only: bool, count_max: usize) -> Result<Vec<Backfill>, StoreError> {
        let sql = "select body from backfills where is_open >= ? order by id desc limit ?";
        let connection = self.read();
        let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
        let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![open_only, count_max], |row| row.get::<_, String>(0)).map_err(failed("read"))?;
        let parse = |text: String| {
            serde_json::from_str(&text).map_err(|error| StoreError::Damaged(format!("a backfill cannot be read: {error}")))
        };
        rows.map(|row| parse(row.map_err(failed("read"))?)).collect()
    }

    /// Enters a backfill, or notes a change of one, and plans the run that belongs to it: both, or neither. `false` when somebody has changed
    /// it meanwhile, or entered it; nothing is planned then. Whoever acts under `fence` must still have it.
    pub async fn put_backfill(
        &self,
        backfill: Backfill,
        planned: Option<Append>,
        fence: Option<Lease>,
    ) -> Result<bool, StoreError> {
        match self.ask(Request::Backfill(Box::new(backfill), planned, fence)).await? {
            Answer::Ticked(is_put) => Ok(is_put),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// What is known of the partitions of an asset, by key.
    pub fn partitions(&self, asset: &AssetKey) -> Result<Vec<PartitionDetail>, StoreError> {
        summary::partitions(&self.read(), asset)
    }

    /// Adds keys to a set of dynamic partitions; those that it has already stay as they are. Returns how many are new.
    pub async fn add_partitions(&self, name: &str, keys: Vec<String>, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Request::AddPartitions(name.to_owned(), keys, now)).await? {
            Answer::Count(count) => Ok(count),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// Removes keys from a set of dynamic partitions; what is not there is left alone. What is known of the partitions stays. Returns how many
    /// there were.
    pub async fn remove_partitions(&self, name: &str, keys: Vec<String>) -> Result<u64, StoreError> {
        match self.ask(Request::RemovePartitions(name.to_owned(), keys)).await? {
            Answer::Count(count) => Ok(count),
            _ => Err(StoreError::Failed { action: "written", source: "an answer of the wrong kind".into() }),
        }
    }

    /// The position up to which the log was read for notices; `None` before the first time.
    pub fn notices_read(&self) -> Result<Option<u64>, StoreError> {
        notices::read_position(&self.read())
    }

    /// Enters notices that are new, and notes that the log was read up to `position`: both, or neither.
    pub async fn enter_notices(&self, position: u64, made: Vec<Notice>, fence: Lease) -> Result<(), StoreError> {
        self.ask(Request::Notices(position, made, fence)).await.map(drop)
    }

    /// Notes how fresh assets are, forgets it of all that are not named, and enters what there is to tell of it: all, or nothing.
    pub async fn set_freshness(&self, known: Vec<KnownFreshness>, made: Vec<Notice>, fence: Lease) -> Result<(), StoreError> {
        self.ask(Request::Freshness(known, made, fence)).await.map(drop)
    }

    /// How fresh assets with a policy were when somebody last looked.
    pub fn known_freshness(&self) -> Result<Vec<KnownFreshness>, StoreError> {
        notices::known_freshness(&self.read())
    }

    /// Notices that are to be sent by `now`, those that are due the longest first.
    pub fn notices_due(&self, now: Timestamp, count_max: usize) -> Result<Vec<Notice>, StoreError> {
        notices::due(&self.read(), now, count_max)
    }

    /// The newest notices first.
    pub fn notices(&self, count_max: usize) -> Result<Vec<Notice>, StoreError> {
        notices::newest(&self.read(), count_max)
    }

    /// Notes what became of a notice.
    pub async fn settle_notice(&self, notice: Notice) -> Result<(), StoreError> {
        self.ask(Request::Notice(notice)).await.map(drop)
    }

    /// The position of the newest event.
    pub fn newest_position(&self) -> Result<u64, StoreError> {
        // Also when the newest are not in the log any more.
        let sql = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'events'";
        self.read().query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(failed("read"))
    }

    /// Who or what asked for a run, and the job that it is of; `None` for an unknown run.
    pub fn origin(&self, run: RunId) -> Result<Option<(String, Option<String>)>, StoreError> {
        let sql = "select trigger_text, job from runs where run = ?";
        let connection = self.read();
        let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
        statement.query_row([run.to_string()], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(failed("read"))
    }

    /// How much there is, and how much of it is older than a moment and can go.
    pub fn kept(&self, before: Timestamp) -> Result<Kept, StoreError> {
        retention::kept(&self.read(), before)
    }

    /// Removes what is older than a moment: runs that have ended with their events, ticks, notices, backfills that are over. What is known of assets
    /// stays. Each transaction is short, and others write in between; what is not removed when it fails is removed by the next call.
    pub async fn purge(&self, before: Timestamp, lease: &Lease) -> Result<(), StoreError> {
        let end = retention::end(&self.read(), before)?;
        loop {
            match self.ask(Request::Purge(before, end, lease.clone())).await? {
                Answer::Ticked(true) => {}
                _ => return Ok(()),
            }
        }
    }

    /// Writes a copy of the state to a new file, as it is at one moment. What is cut off leaves no copy.
    pub fn back_up(&self, to: &Path) -> Result<(), StoreError> {
        let not_written = |error: std::io::Error| StoreError::Failed { action: "written", source: Box::new(error) };
        if to.try_exists().map_err(not_written)? {
            return Err(not_written(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut begun = to.as_os_str().to_owned();
        begun.push(".begun");
        match std::fs::remove_file(&begun) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_written(error)),
            _ => {}
        }
        // It takes as long as it takes.
        let reader = open_reader(&self.path)?;
        reader.execute("vacuum into ?", [Path::new(&begun).display().to_string()]).map_err(failed("written"))?;
        let whole = std::fs::File::open(&begun).and_then(|file| file.sync_all());
        whole.and_then(|()| std::fs::rename(&begun, to)).map_err(not_written)
    }

    /// Gives the room of what was removed back to the file system.
    pub fn vacuum(&self) -> Result<(), StoreError> {
        let connection = Connection::open(&self.path).map_err(failed("opened"))?;
        connection
            .execute_batch("pragma busy_timeout = 5000; vacuum; pragma wal_checkpoint(truncate);")
            .map_err(failed("written"))
    }

    /// What SQLite finds wrong with the file; nothing where it is whole.
    pub fn check(&self) -> Result<Vec<String>, StoreError> {
        // It takes as long as it takes.
        let connection = open_reader(&self.path)?;
        let mut statement = connection.prepare("pragma integrity_check").map_err(failed("read"))?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed("read"))?;
        let found: Vec<String> = rows.collect::<rusqlite::Result<_>>().map_err(failed("read"))?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// Throws the summary tables away and makes them again from the log.
    pub async fn rebuild_summaries(&self) -> Result<(), StoreError> {
        self.ask(Request::Rebuild).await.map(drop)
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Connection> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        bound(&mut reader, self.read_duration_max);
        reader
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(writer::BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)
}

fn check(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0)).map_err(failed("read"))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged(verdict)) }
}

/// Magic numbers of NFS, SMB, CIFS, Ceph and AFS, from statfs(2).
fn is_network_file_system(folder: &Path) -> bool {
    const MAGIC: &[i64] = &[0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x5346_414f];
    nix::sys::statfs::statfs(folder).is_ok_and(|found| MAGIC.contains(&found.filesystem_type().0))
}

pub(crate) fn read_events(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<Event>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed("read"))?;
    let rows = statement.query_map(parameters, event_of).map_err(failed("read"))?;
    rows.map(|row| row.map_err(failed("read"))?).collect()
}

fn event_of(row: &Row<'_>) -> rusqlite::Result<Result<Event, StoreError>> {
    let (position, run, sequence, at, body): (i64, String, i64, i64, String) =
        (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
    let parse = || -> Result<Event, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Event {
            position: position.unsigned_abs(),
            run: run.parse()?,
            sequence: sequence.unsigned_abs(),
            at: Timestamp::from_microsecond(at)?,
            event: serde_json::from_str::<RunEvent>(&body)?,
        })
    };
    Ok(parse().map_err(|error| StoreError::Damaged(format!("event {position} cannot be read: {error}"))))
}

#[async_trait]
impl EventLog for SqliteStore {
    async fn append(&self, request: Append) -> Result<Vec<Event>, StoreError> {
        let Answer::Events(events) = self.ask(Request::Append(request)).await? else { return Ok(Vec::new()) };
        if let Some(last) = events.last() {
            // Answers to appends may come in another order than the appends.
            self.newest.send_modify(|newest| *newest = last.position.max(*newest));
        }
        Ok(events)
    }

    async fn read_after(&self, position: u64, count_max: usize) -> Result<Vec<Event>, StoreError> {
        let sql = "select position, run, sequence, at, body from events where position > ? order by position limit ?";
        read_events(&self.read(), sql, params![position.cast_signed(), count_max as i64])
    }

    async fn read_run(&self, run: RunId) -> Result<Vec<Event>, StoreError> {
        self.run_events(run)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn acquire(&self, name: &str, holder: &Holder, now: Timestamp) -> Result<Acquired, StoreError> {
        self.writer.acquire(name, holder, now).await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        self.ask(Request::Renew(lease.clone(), now)).await.map(drop)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.ask(Request::Release(lease.clone())).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
