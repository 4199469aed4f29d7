//! The statements of a publication. They run in one transaction.

use subak_connect::sink::DELETE_MARK;
use subak_connect::{Commit, Committed, ConnectError, LoadRequest, TableName, crash};
use subak_domain::WriteMode;

use super::prepare::Prepared;
use super::{Session, Stage, history, merge, rejects, state};

/// Publishes a prepared stage inside the transaction of `session`, with state and ledger. The caller commits.
pub(crate) fn publish(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    commit: Commit,
) -> Result<Committed, ConnectError> {
    if prepared.changed {
        for statement in statements(session, stage, request, prepared)? {
            session.execute(&statement)?;
        }
        if let Some(live) = &request.live {
            publish_live(session, request, live)?;
        }
    }
    if !request.children.is_empty() && prepared.changed {
        publish_children(session, stage, request, prepared)?;
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

fn statements(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<Vec<String>, ConnectError> {
    let dialect = session.dialect();
    let Prepared { stage: staged, target, .. } = prepared;
    let mark = dialect.identifier(DELETE_MARK);
    let mut statements = Vec::new();
    if request.keeps_tombstones && prepared.has_marks {
        statements.extend(remember_deletions(session, stage, request, prepared)?);
    }
    if prepared.is_swap(request) {
        if prepared.has_marks {
            statements.push(format!("delete from {staged} where {mark} = true"));
            statements.push(format!("alter table {staged} drop column {mark}"));
        }
        if let Some(number) = prepared.row_column {
            statements.push(format!("alter table {staged} drop column {}", dialect.identifier(number)));
        }
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
        return Ok(statements);
    }
    if prepared.is_rebuilt(request) {
        // What hangs on the table stays, so the table does.
        statements.push(format!("delete from {target}"));
        statements.extend(alterations(session, stage, request, prepared)?);
        statements.extend(reshaping(session, stage, prepared)?);
    } else if prepared.held.is_some() {
        statements.extend(alterations(session, stage, request, prepared)?);
    }
    if request.mode == WriteMode::Snapshot {
        statements.extend(history::statements(session, stage, request, prepared)?);
        return Ok(statements);
    }
    if request.mode.needs_key() {
        let keys = dialect.identifiers(&request.primary_key);
        statements.push(format!("delete from {target} where ({keys}) in (select {keys} from {staged})"));
    }
    let list = dialect.identifiers(&prepared.columns);
    let unmarked = if prepared.has_marks { format!(" where {mark} is not true") } else { String::new() };
    // In the order of arrival, which is the order in which readers without an order will see them.
    statements.push(format!("insert into {target} ({list}) select {list} from {staged}{unmarked}"));
    Ok(statements)
}

/// Columns that come, go or become wider.
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
        statements.push(format!("alter table {target} alter column {} type {}", dialect.identifier(column), type_of(column)));
    }
    for column in &request.removed {
        statements.push(format!("alter table {target} drop column {}", dialect.identifier(column)));
    }
    Ok(statements)
}

/// What gives a table without rows the columns of the stage: those that it has besides go, and the others get its types.
fn reshaping(session: &dyn Session, stage: &Stage, prepared: &Prepared) -> Result<Vec<String>, ConnectError> {
    let (dialect, target) = (session.dialect(), &prepared.target);
    let staged = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    let held = prepared.held.as_ref().map(|held| held.columns.as_slice()).unwrap_or_default();
    let mut statements = Vec::new();
    for (name, kind) in held {
        let column = dialect.identifier(name);
        match staged.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            None => statements.push(format!("alter table {target} drop column {column}")),
            Some((_, arriving)) if arriving != kind => {
                statements.push(format!("alter table {target} alter column {column} type {arriving}"));
            }
            Some(_) => {}
        }
    }
    Ok(statements)
}

fn remember_deletions(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<Vec<String>, ConnectError> {
    let dialect = session.dialect();
    let table = merge::tombstones(&request.table);
    let name = dialect.table(&table);
    let list = dialect.identifiers(&merge::tombstone_columns(request));
    let keys = dialect.identifiers(&request.primary_key);
    let (staged, mark) = (&prepared.stage, dialect.identifier(DELETE_MARK));
    let mut statements = Vec::new();
    if prepared.is_rebuilt(request) {
        if session.relation(&table)?.is_some() {
            statements.push(format!("drop table {name}"));
        }
        statements.push(format!("create table {name} as select {list} from {}", dialect.table(&stage.deletions)));
        return Ok(statements);
    }
    if session.relation(&table)?.is_none() {
        statements.push(format!("create table {name} as select {list} from {staged} where 1 = 0"));
    }
    statements.push(format!("delete from {name} where ({keys}) in (select {keys} from {staged})"));
    statements.push(format!("insert into {name} ({list}) select {list} from {staged} where {mark} = true"));
    Ok(statements)
}

fn publish_live(session: &dyn Session, request: &LoadRequest, condition: &str) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let view = dialect.table(&TableName { schema: request.table.schema.clone(), name: format!("{}__live", request.table.name) });
    session.execute(&format!("drop view if exists {view}"))?;
    let table = dialect.table(&request.table);
    session.execute(&format!("create view {view} as select * from {table} where {condition}"))?;
    Ok(())
}

/// Lists of rows that are published replace the lists that those rows had.
fn publish_children(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    for (staged, child) in stage.children.iter().zip(&request.children) {
        let (from, to) = (dialect.table(staged), dialect.table(&child.table));
        let held = session.relation(&child.table)?;
        // What the parents were before this load decides: a table that is made anew takes all its lists with it.
        if request.mode == WriteMode::Replace || prepared.held.is_none() || held.is_none() {
            if held.is_some() {
                session.execute(&format!("drop table {to}"))?;
            }
            let name = if dialect.has_schemas { child.table.name.clone() } else { dialect.plain_name(&child.table) };
            session.execute(&format!("alter table {from} rename to {}", dialect.identifier(&name)))?;
            continue;
        }
        if request.mode.needs_key() {
            let keys = dialect.identifiers(&request.primary_key);
            let parents = dialect.identifiers(&parent_columns(&request.primary_key));
            session.execute(&format!("delete from {to} where ({parents}) in (select {keys} from {})", prepared.stage))?;
        }
        let columns: Vec<String> = child.schema.fields().iter().map(|field| field.name().clone()).collect();
        let list = dialect.identifiers(&columns);
        let known = held.map(|held| held.columns).unwrap_or_default();
        let staged_columns = session.relation(staged)?.map(|relation| relation.columns).unwrap_or_default();
        for (name, word) in
            staged_columns.iter().filter(|(name, _)| !known.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)))
        {
            session.execute(&format!("alter table {to} add column {} {word}", dialect.identifier(name)))?;
        }
        session.execute(&format!("insert into {to} ({list}) select {list} from {from}"))?;
    }
    Ok(())
}

/// The columns of a nested list that hold the key of its parent.
pub(crate) fn parent_columns(key: &[String]) -> Vec<String> {
    key.iter().map(|column| format!("parent_{column}")).collect()
}
