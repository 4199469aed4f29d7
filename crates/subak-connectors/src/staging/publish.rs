//! The statements of a publication. They run in one transaction.

use subak_connect::sink::{DELETE_MARK, LiveRows};
use subak_connect::{Commit, Committed, ConnectError, Dialect, Family, LoadRequest, TableName, crash};
use subak_domain::WriteMode;

use super::prepare::{Prepared, slice_condition};
use super::{Session, Stage, contains, history, late, merge, rejects, state};

/// Publishes a prepared stage inside the transaction of `session`, with state and ledger. The caller commits.
pub(crate) fn publish(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    commit: Commit,
) -> Result<Committed, ConnectError> {
    if prepared.changed {
        change(session, stage, request, prepared)?;
    }
    rejects::publish(session, stage, request, prepared, &commit.replayed)?;
    if prepared.changed {
        // The stage was dropped or took the place of the table.
        if !prepared.is_swap(request) {
            session.execute(&format!("drop table {}", prepared.stage))?;
        }
    } else {
        session.execute(&format!("drop table {}", prepared.stage))?;
    }
    for table in stage.tables().filter(|table| **table != stage.rows) {
        if session.relation(table)?.is_some() {
            session.execute(&format!("drop table {}", session.dialect().table(table)))?;
        }
    }
    let row_count = session.count(&format!("select count(*) from {}", prepared.target))?;
    let committed = Committed {
        written: prepared.rows.written,
        row_count,
        overlap_count: prepared.rows.overlap,
        changed: prepared.changed,
        cursor: commit.cursor,
        account: commit.account,
    };
    let is_rebuilt = request.mode == WriteMode::Replace;
    state::write(session, &request.load, &request.table, &committed, &commit.files, is_rebuilt)?;
    crash::point("inside_publish");
    Ok(committed)
}

/// Changes the table and its nested lists.
fn change(session: &dyn Session, stage: &Stage, request: &LoadRequest, prepared: &Prepared) -> Result<(), ConnectError> {
    let mut script = Script::default();
    if prepared.is_swap(request) {
        script.rows = swap(session, stage, request, prepared)?;
    } else {
        script = self::script(session, stage, request, prepared)?;
    }
    // What the parents were before this load decides: a table that is made anew takes all its lists with it.
    let are_new = request.mode == WriteMode::Replace || prepared.held.is_none();
    if are_new {
        swap_children(session, stage, request)?;
    } else {
        script_of_children(session, stage, request, prepared, &mut script)?;
    }
    if let Some(live) = &request.live {
        script.after.extend(live_view(session.dialect(), request, live));
    }
    for statement in script.before.iter().chain(&script.rows).chain(&script.after) {
        session.execute(statement)?;
    }
    Ok(())
}

/// Publishes a view inside the transaction of `session`.
pub(crate) fn publish_view(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    sql: &str,
) -> Result<Committed, ConnectError> {
    let dialect = session.dialect();
    let target = dialect.table(&request.table);
    if let Some(held) = session.relation(&request.table)? {
        let word = held.kind.word();
        session.execute(&format!("drop {word} {target}"))?;
    }
    session.execute(&format!("create view {target} as\n{sql}\n"))?;
    session.execute(&format!("drop view {}", dialect.table(&stage.rows)))?;
    let row_count = session.count(&format!("select count(*) from {target}"))?;
    let committed = Committed { written: row_count, row_count, overlap_count: 0, changed: true, cursor: None, account: None };
    state::write(session, &request.load, &request.table, &committed, &[], true)?;
    crash::point("inside_publish");
    Ok(committed)
}

/// What changes a table that stays where it is, in three steps. Systems whose statements about tables end transactions run only the second one in
/// a transaction: the first adds columns without values, and the third may be missing until the next load.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Tables and columns that come.
    pub(crate) before: Vec<String>,
    /// Rows that come and go.
    pub(crate) rows: Vec<String>,
    /// Columns that go, and views.
    pub(crate) after: Vec<String>,
}

/// What publishes a stage by changing the rows of its table.
pub(crate) fn script(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<Script, ConnectError> {
    let dialect = session.dialect();
    let Prepared { stage: staged, target, .. } = prepared;
    let mark = dialect.identifier(DELETE_MARK);
    let mut script = Script::default();
    if request.keeps_tombstones && prepared.has_marks {
        remember_deletions(session, stage, request, prepared, &mut script)?;
    }
    if prepared.is_rebuilt(request) {
        empty(session, stage, request, prepared, &mut script)?;
    } else if prepared.held.is_some() {
        script.before.extend(late::notes(session, request, prepared)?);
        script.before.extend(alterations(session, stage, request, prepared)?);
        let removed = removals(dialect, target, &request.removed);
        // Inside of a transaction a table is altered before its rows are; outside of one no column goes before its rows are published.
        match dialect.family {
            Family::Standard => script.before.extend(removed),
            Family::MySql => script.after.extend(removed),
        }
    }
    if request.mode == WriteMode::Snapshot {
        history::statements(session, stage, request, prepared, &mut script);
        return Ok(script);
    }
    if let Some(condition) = slice_condition(session, request, prepared).filter(|_| !prepared.is_rebuilt(request)) {
        script.rows.push(format!("delete from {target} where {condition}"));
    } else if request.mode.needs_key() && !prepared.is_rebuilt(request) {
        script.rows.push(dialect.delete_same(target, &request.primary_key, staged, &request.primary_key));
    }
    let list = dialect.identifiers(&prepared.columns);
    let unmarked = if prepared.has_marks { format!(" where {mark} is not true") } else { String::new() };
    // In the order of arrival, which is the order in which readers without an order will see them.
    script.rows.push(format!("insert into {target} ({list}) select {list} from {staged}{unmarked}"));
    Ok(script)
}

/// Takes the rows out of a table that stays because of what hangs on it, and gives it the columns of the stage.
fn empty(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    script: &mut Script,
) -> Result<(), ConnectError> {
    let (dialect, target) = (session.dialect(), &prepared.target);
    let held = prepared.held.as_ref().map(|held| held.columns.as_slice()).unwrap_or_default();
    let (mut gone, mut changed) = (request.removed.clone(), Vec::new());
    for (name, kind) in held {
        match prepared.words.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            None if !contains(&gone, name) => gone.push(name.clone()),
            Some((_, arriving)) if arriving != kind => changed.push((name, kind, arriving)),
            _ => {}
        }
    }
    let removed = removals(dialect, target, &gone);
    let added = alterations(session, stage, request, prepared)?;
    match dialect.family {
        Family::Standard => {
            script.before.push(format!("delete from {target}"));
            script.before.extend(added);
            script.before.extend(removed);
            script.before.extend(changed.into_iter().map(|(name, _, word)| dialect.change_type(target, name, word)));
        }
        Family::MySql => {
            if let Some((name, held, arriving)) = changed.first() {
                let help = "drop what hangs on the table (triggers, constraints, partitions, defaults), so that it can be replaced, or drop the table";
                return Err(super::type_changed(&request.table, name, held, arriving).help(help));
            }
            script.before.extend(added);
            script.rows.push(format!("delete from {target}"));
            script.after.extend(removed);
        }
    }
    Ok(())
}

/// The statements that put the stage in the place of its table, where they can be part of a transaction.
fn swap(session: &dyn Session, stage: &Stage, request: &LoadRequest, prepared: &Prepared) -> Result<Vec<String>, ConnectError> {
    let dialect = session.dialect();
    let Prepared { stage: staged, target, .. } = prepared;
    let mut statements = Vec::new();
    if request.keeps_tombstones && prepared.has_marks {
        let tombstones = merge::tombstones(&request.table);
        let name = dialect.table(&tombstones);
        if session.relation(&tombstones)?.is_some() {
            statements.push(format!("drop table {name}"));
        }
        let list = dialect.identifiers(&merge::tombstone_columns(request));
        statements.push(format!("create table {name} as select {list} from {}", dialect.table(&stage.deletions)));
    }
    statements.extend(stripped(dialect, prepared));
    let mut keepsakes = Vec::new();
    if let Some(held) = &prepared.held {
        if !held.is_view() {
            keepsakes = session.keepsakes(&request.table)?;
        }
        statements.push(format!("drop {} {target}", held.kind.word()));
    }
    let name = if dialect.has_schemas { request.table.name.clone() } else { dialect.plain_name(&request.table) };
    statements.push(format!("alter table {staged} rename to {}", dialect.identifier(&name)));
    statements.extend(keepsakes);
    Ok(statements)
}

/// What makes a stage a table: deletions and the columns that only stages have go.
pub(crate) fn stripped(dialect: &Dialect, prepared: &Prepared) -> Vec<String> {
    let (staged, mark) = (&prepared.stage, dialect.identifier(DELETE_MARK));
    let mut statements = Vec::new();
    if prepared.has_marks {
        statements.push(format!("delete from {staged} where {mark} = true"));
        statements.push(format!("alter table {staged} drop column {mark}"));
    }
    if let Some(number) = prepared.row_column {
        statements.push(format!("alter table {staged} drop column {}", dialect.identifier(number)));
    }
    statements
}

/// Columns that come or become wider.
fn alterations(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<Vec<String>, ConnectError> {
    let dialect = session.dialect();
    let target = &prepared.target;
    let staged = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    let type_of = |column: &str| {
        staged.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map_or("varchar", |(_, word)| word.as_str())
    };
    let mut statements: Vec<String> = Vec::new();
    for column in prepared.added() {
        statements.push(format!("alter table {target} add column {} {}", dialect.identifier(column), type_of(column)));
    }
    for column in &request.widened {
        statements.push(dialect.change_type(target, column, type_of(column)));
    }
    Ok(statements)
}

/// Columns that go.
fn removals(dialect: &Dialect, target: &str, columns: &[String]) -> Vec<String> {
    columns.iter().map(|column| format!("alter table {target} drop column {}", dialect.identifier(column))).collect()
}

/// Notes deletions of a table that stays.
fn remember_deletions(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    script: &mut Script,
) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let table = merge::tombstones(&request.table);
    let name = dialect.table(&table);
    let list = dialect.identifiers(&merge::tombstone_columns(request));
    let (staged, mark) = (&prepared.stage, dialect.identifier(DELETE_MARK));
    if session.relation(&table)?.is_none() {
        script.before.push(format!("create table {name} as select {list} from {staged} where 1 = 0"));
    }
    if prepared.is_rebuilt(request) && dialect.family == Family::Standard {
        // Its columns may be others than those of the table that is there.
        script.before.clear();
        if session.relation(&table)?.is_some() {
            script.rows.push(format!("drop table {name}"));
        }
        script.rows.push(format!("create table {name} as select {list} from {}", dialect.table(&stage.deletions)));
        return Ok(());
    }
    if prepared.is_rebuilt(request) {
        script.rows.push(format!("delete from {name}"));
        script.rows.push(format!("insert into {name} ({list}) select {list} from {}", dialect.table(&stage.deletions)));
        return Ok(());
    }
    script.rows.push(dialect.delete_same(&name, &request.primary_key, staged, &request.primary_key));
    script.rows.push(format!("insert into {name} ({list}) select {list} from {staged} where {mark} = true"));
    Ok(())
}

/// A view of the rows that are not deleted, made anew: `select *` is what it was when the view was made.
fn live_view(dialect: &Dialect, request: &LoadRequest, rows: &LiveRows) -> [String; 2] {
    let view = dialect.table(&live_name(request));
    let (table, condition) = (dialect.table(&request.table), dialect.live(rows));
    [format!("drop view if exists {view}"), format!("create view {view} as select * from {table} where {condition}")]
}

/// The view of the rows that are not deleted.
pub(crate) fn live_name(request: &LoadRequest) -> TableName {
    TableName { schema: request.table.schema.clone(), name: format!("{}__live", request.table.name) }
}

/// Puts staged lists in the place of those that are there, where that can be part of a transaction.
fn swap_children(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    for (staged, child) in stage.children.iter().zip(&request.children) {
        let (from, to) = (dialect.table(staged), dialect.table(&child.table));
        if session.relation(&child.table)?.is_some() {
            session.execute(&format!("drop table {to}"))?;
        }
        let name = if dialect.has_schemas { child.table.name.clone() } else { dialect.plain_name(&child.table) };
        session.execute(&format!("alter table {from} rename to {}", dialect.identifier(&name)))?;
    }
    Ok(())
}

/// Lists of rows that are published replace the lists that those rows had.
pub(crate) fn script_of_children(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    script: &mut Script,
) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    for (staged, child) in stage.children.iter().zip(&request.children) {
        let (from, to) = (dialect.table(staged), dialect.table(&child.table));
        let staged_columns = session.relation(staged)?.map(|relation| relation.columns).unwrap_or_default();
        let defined = |(name, word): &(String, String)| format!("{} {word}", dialect.identifier(name));
        match session.relation(&child.table)? {
            None => {
                let list = staged_columns.iter().map(defined).collect::<Vec<_>>().join(", ");
                script.before.push(format!("create table {to} ({list})"));
            }
            Some(held) => {
                let is_new =
                    |(name, _): &&(String, String)| !held.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
                let added = staged_columns.iter().filter(is_new);
                script.before.extend(added.map(|column| format!("alter table {to} add column {}", defined(column))));
            }
        }
        if prepared.is_rebuilt(request) {
            script.rows.push(format!("delete from {to}"));
        } else if request.mode.needs_key() {
            let parents = parent_columns(&request.primary_key);
            script.rows.push(dialect.delete_same(&to, &parents, &prepared.stage, &request.primary_key));
        }
        let columns: Vec<String> = child.schema.fields().iter().map(|field| field.name().clone()).collect();
        let list = dialect.identifiers(&columns);
        script.rows.push(format!("insert into {to} ({list}) select {list} from {from}"));
    }
    Ok(())
}

/// The columns of a nested list that hold the key of its parent.
pub(crate) fn parent_columns(key: &[String]) -> Vec<String> {
    key.iter().map(|column| format!("parent_{column}")).collect()
}
