//! Publications. A statement about tables ends a transaction here, so a table that is made anew takes its place by one `rename table`, which is
//! atomic, and what belongs to it in other tables (cursor, ledger, quarantine) is written down before as statements that are still to be run.
//! Whoever comes next runs them, unless they were run: see [`settle`].

use std::cell::RefCell;

use arrow::datatypes::DataType as ArrowType;
use subak_connect::{Commit, Committed, ConnectError, ConnectErrorKind, Dialect, LoadRequest, TableName, crash, reject};
use subak_domain::WriteMode;

use super::DIALECT;
use super::load::{clear, try_lock, unlock};
use crate::staging::{self, Prepared, Relation, STAGE_PREFIX, Script, Session, Stage, TextRow, state};

/// Publications take turns.
const TURN: &str = "subak turn";

/// How many seconds a publication waits for another one.
const TURN_SECONDS: u32 = 600;

fn pending() -> TableName {
    TableName { schema: Some("_subak".to_owned()), name: "pending".to_owned() }
}

/// Makes the table of statements that are still to be run.
pub(super) fn ensure(session: &dyn Session) -> Result<(), ConnectError> {
    if session.relation(&pending())?.is_some() {
        return Ok(());
    }
    let text = state::text_type(session);
    let columns = format!("load_id {text} not null, stage_schema {text}, stage_name {text} not null, statements {text} not null");
    session.execute(&format!("create table if not exists {} ({columns})", DIALECT.table(&pending()))).map(drop)
}

fn take_turn(session: &dyn Session) -> Result<(), ConnectError> {
    if try_lock(session, TURN, TURN_SECONDS)? {
        return Ok(());
    }
    let message = "another publication does not end";
    Err(ConnectError::new(ConnectErrorKind::Held, message).help("`show processlist` shows the session that holds it; end it"))
}

/// Ends publications that were begun: where the stage took the place of its table, the statements that were written down are run; where it did
/// not, they are forgotten.
pub(super) fn settle(session: &dyn Session) -> Result<(), ConnectError> {
    let name = DIALECT.table(&pending());
    if session.relation(&pending())?.is_none() || session.count(&format!("select count(*) from {name}"))? == 0 {
        return Ok(());
    }
    take_turn(session)?;
    let settled = settle_all(session);
    unlock(session, TURN)?;
    settled
}

fn settle_all(session: &dyn Session) -> Result<(), ConnectError> {
    let name = DIALECT.table(&pending());
    for row in session.rows(&format!("select load_id, stage_schema, stage_name, statements from {name}"), usize::MAX)? {
        let mut values = row.into_iter().map(|(_, value)| value);
        let mut next = || values.next().flatten();
        let (load, schema, stage) = (next().unwrap_or_default(), next(), next().unwrap_or_default());
        let statements = next().unwrap_or_default();
        if session.relation(&TableName { schema, name: stage })?.is_some() {
            session.execute(&format!("delete from {name} where load_id = {}", DIALECT.literal(&load)))?;
            continue;
        }
        let statements: Vec<String> = serde_json::from_str(&statements).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, format!("{name} holds something else than statements")).because(error)
        })?;
        finish(session, &load, &statements)?;
    }
    Ok(())
}

/// Runs statements about rows in one transaction.
fn in_transaction<T>(session: &dyn Session, work: impl FnOnce() -> Result<T, ConnectError>) -> Result<T, ConnectError> {
    session.execute("start transaction")?;
    let result = work();
    match result {
        Ok(value) => {
            session.execute("commit")?;
            Ok(value)
        }
        Err(error) => {
            // The session may be gone; the transaction then ends with it.
            drop(session.execute("rollback"));
            Err(error)
        }
    }
}

/// Runs what was written down for a load whose stage took the place of its table.
fn finish(session: &dyn Session, load: &str, statements: &[String]) -> Result<(), ConnectError> {
    in_transaction(session, || {
        for statement in statements {
            session.execute(statement)?;
        }
        session.execute(&format!("delete from {} where load_id = {}", DIALECT.table(&pending()), DIALECT.literal(load)))?;
        crash::point("inside_publish");
        Ok(())
    })
}

/// Writes statements down instead of running them.
struct Recorder<'a> {
    inner: &'a dyn Session,
    statements: RefCell<Vec<String>>,
}

impl Session for Recorder<'_> {
    fn dialect(&self) -> &'static Dialect {
        self.inner.dialect()
    }

    fn execute(&self, sql: &str) -> Result<u64, ConnectError> {
        self.statements.borrow_mut().push(sql.to_owned());
        Ok(0)
    }

    fn rows(&self, sql: &str, count_max: usize) -> Result<Vec<TextRow>, ConnectError> {
        self.inner.rows(sql, count_max)
    }

    fn relation(&self, table: &TableName) -> Result<Option<Relation>, ConnectError> {
        self.inner.relation(table)
    }

    fn sql_type(&self, data_type: &ArrowType) -> Option<String> {
        self.inner.sql_type(data_type)
    }

    fn keepsakes(&self, table: &TableName) -> Result<Vec<String>, ConnectError> {
        self.inner.keepsakes(table)
    }
}

/// Tables that take the places of others, all at once.
#[derive(Debug, Default)]
struct Renames {
    /// What takes a place, and which.
    taken: Vec<(TableName, TableName)>,
}

impl Renames {
    /// The statement, and what stands aside after it.
    fn statement(&self, session: &dyn Session, stage: &Stage) -> Result<(String, Vec<String>), ConnectError> {
        let (mut parts, mut aside) = (Vec::new(), Vec::new());
        for (at, (from, to)) in self.taken.iter().enumerate() {
            let target = DIALECT.table(to);
            if let Some(held) = session.relation(to)? {
                let old = TableName { schema: to.schema.clone(), name: format!("{}_o{at}", stage.rows.name) };
                let old = DIALECT.table(&old);
                parts.push(format!("{target} to {old}"));
                aside.push(format!("drop {} {old}", held.kind.word()));
            }
            parts.push(format!("{} to {target}", DIALECT.table(from)));
        }
        Ok((format!("rename table {}", parts.join(", ")), aside))
    }
}

/// Publishes a prepared stage. After it everything is visible, or nothing.
pub(super) fn publish(
    session: &super::session::MySqlSession<'_>,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    commit: Commit,
    is_view: bool,
) -> Result<Committed, ConnectError> {
    take_turn(session)?;
    let published = in_turn(session, stage, request, prepared, commit, is_view);
    unlock(session, TURN)?;
    let (committed, after) = published?;
    crash::point("after_publish");
    for statement in after {
        session.execute(&statement)?;
    }
    clear(session, &stage.rows)?;
    Ok(committed)
}

/// The publication itself, and statements that belong behind it.
fn in_turn(
    session: &super::session::MySqlSession<'_>,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    commit: Commit,
    is_view: bool,
) -> Result<(Committed, Vec<String>), ConnectError> {
    settle_all(session)?;
    // An attempt that nobody waited for any more may have committed it after all.
    if let Some(committed) = state::committed(session, &request.load)? {
        return Ok((committed, Vec::new()));
    }
    staging::make_rejects(session, &reject::table_of(&request.table), prepared.reject_count)?;
    let Publication { mut script, renames, source } = publication(session, stage, request, prepared, is_view)?;
    for statement in &script.before {
        session.execute(statement)?;
    }
    let committed = |row_count: u64| Committed {
        written: if is_view { row_count } else { prepared.rows.written },
        row_count,
        overlap_count: prepared.rows.overlap,
        changed: prepared.changed,
        cursor: commit.cursor.clone(),
        account: commit.account,
    };
    let record = |session: &dyn Session, committed: &Committed| {
        if !is_view {
            staging::publish_rejects(session, stage, request, prepared, &commit.replayed)?;
        }
        let is_rebuilt = request.mode == WriteMode::Replace;
        state::write(session, &request.load, &request.table, committed, &commit.files, is_rebuilt)
    };
    let count = || session.count(&format!("select count(*) from {source} as t"));
    if renames.taken.is_empty() {
        let committed = in_transaction(session, || {
            for statement in &script.rows {
                session.execute(statement)?;
            }
            let committed = committed(count()?);
            record(session, &committed)?;
            crash::point("inside_publish");
            Ok(committed)
        })?;
        return Ok((committed, script.after));
    }
    let committed = committed(count()?);
    let recorder = Recorder { inner: session, statements: RefCell::default() };
    record(&recorder, &committed)?;
    let statements = recorder.statements.into_inner();
    let (rename, aside) = renames.statement(session, stage)?;
    note(session, request, &renames.taken[0].0, &statements)?;
    session.execute(&rename)?;
    crash::point("table_renamed");
    finish(session, request.load.as_str(), &statements)?;
    script.after.extend(aside);
    Ok((committed, script.after))
}

/// What a publication does.
#[derive(Debug)]
struct Publication {
    script: Script,
    renames: Renames,
    /// The rows that there will be.
    source: String,
}

fn publication(
    session: &super::session::MySqlSession<'_>,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    is_view: bool,
) -> Result<Publication, ConnectError> {
    let (mut script, mut renames) = (Script::default(), Renames::default());
    let mut source = prepared.target.clone();
    if is_view {
        renames.taken.push((stage.rows.clone(), request.table.clone()));
        source = DIALECT.table(&stage.rows);
    } else if prepared.changed && prepared.is_swap(request) {
        script.before = staging::stripped(&DIALECT, prepared);
        if prepared.held.as_ref().is_some_and(|held| !held.is_view()) {
            let own = DIALECT.table(&stage.rows);
            let indexes = session.indexes(&request.table)?;
            script.before.extend(indexes.into_iter().map(|index| format!("alter table {own} add {index}")));
        }
        renames.taken = swapped(stage, request, prepared);
        source = DIALECT.table(&stage.rows);
    } else if prepared.changed && request.mode == WriteMode::Snapshot && prepared.held.is_none() {
        // The table of versions is filled beside its place.
        source = DIALECT.table(&stage.deletions);
        let beside = Prepared { target: source.clone(), ..prepared.clone() };
        script = staging::script(session, stage, request, &beside)?;
        script.before.append(&mut script.rows);
        renames.taken.push((stage.deletions.clone(), request.table.clone()));
    } else if prepared.changed {
        script = staging::script(session, stage, request, prepared)?;
        staging::script_of_children(session, stage, request, prepared, &mut script)?;
    }
    if let Some(live) = request.live.as_deref().filter(|_| prepared.changed) {
        // A condition that does not hold water is found before anything is published.
        session.rows(&format!("select 1 from {} as t where {live}", prepared.stage), 1)?;
        script.after.extend(staging::live_view(&DIALECT, request, live));
    }
    Ok(Publication { script, renames, source })
}

/// What takes which place when a table is made anew.
fn swapped(stage: &Stage, request: &LoadRequest, prepared: &Prepared) -> Vec<(TableName, TableName)> {
    let mut taken = vec![(stage.rows.clone(), request.table.clone())];
    if request.keeps_tombstones && prepared.has_marks {
        taken.push((stage.deletions.clone(), staging::tombstones(&request.table)));
    }
    taken.extend(stage.children.iter().cloned().zip(request.children.iter().map(|child| child.table.clone())));
    taken
}

/// Writes down what is still to be run once `stage` is gone.
fn note(session: &dyn Session, request: &LoadRequest, stage: &TableName, statements: &[String]) -> Result<(), ConnectError> {
    debug_assert!(stage.name.starts_with(STAGE_PREFIX), "only stages vanish by a rename");
    let text = serde_json::to_string(statements)
        .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "statements cannot be written down").because(error))?;
    let schema = stage.schema.as_deref().map_or_else(|| "null".to_owned(), |schema| DIALECT.literal(schema));
    let values = [DIALECT.literal(request.load.as_str()), schema, DIALECT.literal(&stage.name), DIALECT.literal(&text)];
    session.execute(&format!("insert into {} values ({})", DIALECT.table(&pending()), values.join(", "))).map(drop)
}
