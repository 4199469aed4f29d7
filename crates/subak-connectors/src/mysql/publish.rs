//! Publications. A statement about tables ends a transaction here, so a table that is made anew takes its place by one `rename table`, which is
//! atomic, and what belongs to it in other tables (cursor, ledger, quarantine) is written down before as statements that are still to be run.
//! Whoever comes next runs them, unless they were run: see [`settle`].

use std::cell::RefCell;

use arrow::datatypes::DataType as ArrowType;
use subak_connect::{Commit, Committed, ConnectError, ConnectErrorKind, Dialect, LoadRequest, TableName, crash, reject};
use subak_domain::WriteMode;

use super::DIALECT;
use super::load::{clear, try_lock, unlock};
use crate::staging::{self, Prepared, Relation, Script, Session, Stage, TextRow, state};

/// Publications take turns.
const TURN: &str = "subak turn";

/// How many seconds of silence end a session that has the turn.
const SILENCE_SECONDS: u32 = 60;

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
    let columns = format!(
        "load_id {text} not null, target_schema {text} not null, target_name {text} not null, part int not null, statements {text} not null"
    );
    session.execute(&format!("create table if not exists {} ({columns})", DIALECT.table(&pending()))).map(drop)
}

fn take_turn(session: &dyn Session) -> Result<(), ConnectError> {
    if try_lock(session, TURN, TURN_SECONDS)? {
        // A server that hears nothing more of us lets go of the turn by itself.
        return session.execute(&format!("set session wait_timeout = {SILENCE_SECONDS}")).map(drop);
    }
    let message = "another publication does not end";
    Err(ConnectError::new(ConnectErrorKind::Held, message).help("`show processlist` shows the session that holds it; end it"))
}

fn end_turn(session: &dyn Session) -> Result<(), ConnectError> {
    unlock(session, TURN)?;
    session.execute(&format!("set session wait_timeout = {}", super::IDLE_SECONDS)).map(drop)
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
    end_turn(session)?;
    settled
}

/// Ends each publication that was begun, by itself: one that cannot be ended does not keep others from it. See [`refuse_unsettled`].
fn settle_all(session: &dyn Session) -> Result<(), ConnectError> {
    let name = DIALECT.table(&pending());
    let sql = format!("select distinct load_id, target_schema, target_name from {name}");
    for row in session.rows(&sql, usize::MAX)? {
        let Ok([load, schema, target]) =
            <[String; 3]>::try_from(row.into_iter().filter_map(|(_, value)| value).collect::<Vec<_>>())
        else {
            continue;
        };
        let known = format!("select count(*) from information_schema.schemata where schema_name = {}", DIALECT.literal(&schema));
        if session.count(&known)? == 0 {
            // Another user's; to this one the table may not even seem to be there.
            continue;
        }
        let target = TableName { schema: Some(schema), name: target };
        match settle_one(session, &load, &target) {
            Err(error) if matches!(error.kind, ConnectErrorKind::Unavailable | ConnectErrorKind::Canceled) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Runs what was written down for a load, or forgets it where the stage has not taken the place of its table.
fn settle_one(session: &dyn Session, load: &str, target: &TableName) -> Result<(), ConnectError> {
    if !is_renamed(session, load, target)? {
        return forget(session, load);
    }
    let name = DIALECT.table(&pending());
    let sql = format!("select statements from {name} where load_id = {} order by part", DIALECT.literal(load));
    let mut statements: Vec<String> = Vec::new();
    for row in session.rows(&sql, usize::MAX)? {
        let text = row.into_iter().next().and_then(|(_, value)| value).unwrap_or_default();
        let part: Vec<String> = serde_json::from_str(&text).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, format!("{name} holds something else than statements")).because(error)
        })?;
        statements.extend(part);
    }
    finish(session, load, &statements)
}

/// Whether what stands under a name is what a load has made: its mark says so.
fn is_renamed(session: &dyn Session, load: &str, target: &TableName) -> Result<bool, ConnectError> {
    let schema = target.schema.as_deref().unwrap_or_default();
    let (schema, name) = (DIALECT.literal(schema), DIALECT.literal(&target.name));
    let tables = format!(
        "select count(*) from information_schema.tables where table_schema = {schema} and table_name = {name} and table_comment = {}",
        DIALECT.literal(&mark(load))
    );
    let views = format!(
        "select count(*) from information_schema.views where table_schema = {schema} and table_name = {name} and locate({}, view_definition) > 0",
        DIALECT.literal(&mark(load))
    );
    Ok(session.count(&tables)? + session.count(&views)? > 0)
}

/// What a table says that a load has made, until the next one makes it anew.
fn mark(load: &str) -> String {
    format!("{MARK}{}", &blake3::hash(load.as_bytes()).to_hex()[..16])
}

/// Comments of ours begin with this; others hold a table where it is.
pub(super) const MARK: &str = "subak load ";

fn forget(session: &dyn Session, load: &str) -> Result<(), ConnectError> {
    session.execute(&format!("delete from {} where load_id = {}", DIALECT.table(&pending()), DIALECT.literal(load))).map(drop)
}

/// Fails for a table whose last publication has not been ended: what is known of it is not what it holds.
pub(super) fn refuse_unsettled(session: &dyn Session, table: &TableName) -> Result<(), ConnectError> {
    if session.relation(&pending())?.is_none() {
        return Ok(());
    }
    let sql = format!(
        "select load_id from {} where target_schema = {} and target_name = {}",
        DIALECT.table(&pending()),
        DIALECT.literal(table.schema.as_deref().unwrap_or_default()),
        DIALECT.literal(&table.name)
    );
    let Some(load) = session.rows(&sql, 1)?.into_iter().flatten().find_map(|(_, value)| value) else { return Ok(()) };
    let message =
        format!("the last publication of `{table}` could not be ended: its cursor and its ledger are still to be written");
    let help = format!(
        "`_subak.pending` holds what is left of load `{load}`; put back what its statements need, or delete its rows there"
    );
    Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help(help))
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
        forget(session, load)?;
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
    end_turn(session)?;
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
    refuse_unsettled(session, &request.table)?;
    // An attempt that nobody waited for any more may have committed it after all.
    if let Some(committed) = state::committed(session, &request.load)? {
        return Ok((committed, Vec::new()));
    }
    staging::make_rejects(session, &reject::table_of(&request.table), prepared.reject_count)?;
    let Publication { mut script, renames, source } = publication(session, stage, request, prepared, is_view)?;
    for statement in &script.before {
        session.execute(statement)?;
    }
    crash::point("columns_added");
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
        let done = in_transaction(session, || {
            for statement in &script.rows {
                session.execute(statement)?;
            }
            let committed = committed(count()?);
            record(session, &committed)?;
            crash::point("inside_publish");
            Ok(committed)
        });
        if done.is_err() {
            // A load that fails changes nothing that can be seen.
            for column in prepared.added().into_iter().filter(|_| prepared.held.is_some()) {
                drop(session.execute(&format!("alter table {} drop column {}", prepared.target, DIALECT.identifier(column))));
            }
        }
        return Ok((done?, script.after));
    }
    let committed = committed(count()?);
    let recorder = Recorder { inner: session, statements: RefCell::default() };
    record(&recorder, &committed)?;
    let statements = recorder.statements.into_inner();
    let (rename, aside) = renames.statement(session, stage)?;
    note(session, request, &statements)?;
    if let Err(error) = session.execute(&rename) {
        // Nothing was renamed; or the session is gone, and whoever comes next finds out.
        drop(forget(session, request.load.as_str()));
        return Err(error);
    }
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
        // The mark of a view stands in its definition.
        renames.taken.push((stage.rows.clone(), request.table.clone()));
        source = DIALECT.table(&stage.rows);
    } else if prepared.changed && prepared.is_swap(request) {
        script.before = staging::stripped(&DIALECT, prepared);
        script.before.push(marked(&stage.rows, request));
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
        script.before.push(marked(&stage.deletions, request));
        renames.taken.push((stage.deletions.clone(), request.table.clone()));
    } else if prepared.changed {
        script = staging::script(session, stage, request, prepared)?;
        staging::script_of_children(session, stage, request, prepared, &mut script)?;
    }
    if let Some(live) = &request.live {
        let name = staging::live_name(request);
        if prepared.changed || session.relation(&name)?.is_none() {
            let (view, table, condition) = (DIALECT.table(&name), DIALECT.table(&request.table), DIALECT.live(live));
            script.after.push(format!("create or replace view {view} as select * from {table} where {condition}"));
        }
    }
    Ok(Publication { script, renames, source })
}

/// The statement that gives a table the mark of its load.
fn marked(table: &TableName, request: &LoadRequest) -> String {
    format!("alter table {} comment = {}", DIALECT.table(table), DIALECT.literal(&mark(request.load.as_str())))
}

/// The condition with which a view carries the mark of its load.
pub(super) fn marked_view(sql: &str, load: &str) -> String {
    format!("select q.* from (\n{sql}\n) as q where {} is not null", DIALECT.literal(&mark(load)))
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

/// Bytes of statements that are written down in one row.
const PART_LENGTH_MAX: usize = 256 * 1024;

/// Writes down what is still to be run once the stage has taken the place of its table.
fn note(session: &dyn Session, request: &LoadRequest, statements: &[String]) -> Result<(), ConnectError> {
    let mut parts: Vec<Vec<&String>> = vec![Vec::new()];
    let mut length = 0;
    for statement in statements {
        if length + statement.len() > PART_LENGTH_MAX && length > 0 {
            parts.push(Vec::new());
            length = 0;
        }
        length += statement.len();
        if let Some(part) = parts.last_mut() {
            part.push(statement);
        }
    }
    let schema = DIALECT.literal(request.table.schema.as_deref().unwrap_or_default());
    let (load, name) = (DIALECT.literal(request.load.as_str()), DIALECT.literal(&request.table.name));
    in_transaction(session, || {
        for (at, part) in parts.iter().enumerate() {
            let text = serde_json::to_string(part).map_err(|error| {
                ConnectError::new(ConnectErrorKind::Internal, "statements cannot be written down").because(error)
            })?;
            let values = [load.clone(), schema.clone(), name.clone(), at.to_string(), DIALECT.literal(&text)];
            session.execute(&format!("insert into {} values ({})", DIALECT.table(&pending()), values.join(", ")))?;
        }
        Ok(())
    })
}
