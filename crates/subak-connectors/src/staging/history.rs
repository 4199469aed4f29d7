//! Versions of rows: slowly changing dimensions of type 2. One open version per key; intervals are half open and never overlap.

use subak_connect::{ConnectError, LoadRequest};
use subak_domain::WriteMode;

use super::prepare::Prepared;
use super::publish::Script;
use super::{Session, Stage, all_of, contains, merge};

/// The columns that a snapshot adds to a row.
pub(super) fn columns(request: &LoadRequest) -> Vec<String> {
    if request.mode != WriteMode::Snapshot {
        return Vec::new();
    }
    vec![request.history.valid_from.clone(), request.history.valid_to.clone(), request.history.is_current.clone()]
}

/// Whether keys that do not arrive are closed.
pub(super) fn finds_gone(request: &LoadRequest) -> bool {
    request.mode == WriteMode::Snapshot && request.history.closes_missing && request.is_complete
}

/// Notes the keys of open versions that a complete read does not have. Must come before unchanged rows are dropped.
pub(super) fn find_gone(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<(), ConnectError> {
    if !finds_gone(request) || prepared.held.is_none() {
        return Ok(());
    }
    let dialect = session.dialect();
    let keys = dialect.identifiers(&request.primary_key);
    let same_key = all_of(&request.primary_key, |column| format!("s.{0} = t.{0}", dialect.identifier(column)));
    session.execute(&format!(
        "create table {} as select {keys} from {} as t where t.{} = true and not exists (select 1 from {} as s where {same_key}){}",
        dialect.table(&stage.gone),
        prepared.target,
        dialect.identifier(&request.history.is_current),
        prepared.stage,
        // A refused row may be the one that seems to be missing.
        if prepared.reject_count > 0 { " and 1 = 0" } else { "" }
    ))?;
    Ok(())
}

/// Drops rows that equal their open version, and rows that are older than it. Returns both counts.
pub(super) fn drop_unchanged(
    session: &dyn Session,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<(u64, u64), ConnectError> {
    if prepared.held.is_none() {
        return Ok((0, 0));
    }
    let dialect = session.dialect();
    let row_id = prepared.row_id(dialect)?;
    let (stage, target) = (&prepared.stage, &prepared.target);
    let current = dialect.identifier(&request.history.is_current);
    let by_key = all_of(&request.primary_key, |column| format!("t.{0} = s.{0}", dialect.identifier(column)));
    // A column that the table does not have yet makes every row with a value in it a new version.
    let added = prepared.added().into_iter().map(|column| format!("s.{} is null", dialect.identifier(column)));
    let compared =
        prepared.compared(request).into_iter().filter(|column| !contains(&request.primary_key, column)).map(|column| {
            let column = dialect.identifier(&column);
            format!("t.{column} {} s.{column}", dialect.null_safe_equal)
        });
    let same: Vec<String> = std::iter::once(by_key.clone()).chain(compared).chain(added).collect();
    let equal = format!(
        "select s.{row_id} as __subak_row from {stage} as s join {target} as t on {} where t.{current} = true",
        same.join(" and ")
    );
    let overlap = session.execute(&dialect.delete_rows(stage, row_id, &equal))?;
    let Some(updated_at) = &request.history.updated_at else { return Ok((overlap, 0)) };
    let older = format!(
        "select s.{row_id} as __subak_row from {stage} as s join {target} as t on {by_key} where t.{current} = true and {} <= t.{}",
        merge::ordered(dialect, request, updated_at, &format!("s.{}", dialect.identifier(updated_at))),
        dialect.identifier(&request.history.valid_from)
    );
    Ok((overlap, session.execute(&dialect.delete_rows(stage, row_id, &older))?))
}

/// The statements that close old versions and add new ones.
pub(super) fn statements(session: &dyn Session, stage: &Stage, request: &LoadRequest, prepared: &Prepared, script: &mut Script) {
    let dialect = session.dialect();
    let history = &request.history;
    let (staged, target) = (&prepared.stage, &prepared.target);
    let (from, to) = (dialect.identifier(&history.valid_from), dialect.identifier(&history.valid_to));
    let current = dialect.identifier(&history.is_current);
    let at = dialect.literal(&request.at);
    let time_type = session.sql_type(&arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None));
    let time = |text: &str| match (dialect.has_schemas, &time_type) {
        // Where types are only advice, a cast would turn the text into a number.
        (true, Some(time_type)) => format!("cast({text} as {time_type})"),
        _ => text.to_owned(),
    };
    // A row that does not say when it changed has changed now, as far as anybody knows.
    let begins = match &history.updated_at {
        Some(column) => format!("coalesce({}, {})", time(&format!("s.{}", dialect.identifier(column))), time(&at)),
        None => time(&at),
    };
    let list = dialect.identifiers(&prepared.columns);
    let staged_list =
        prepared.columns.iter().map(|column| format!("s.{}", dialect.identifier(column))).collect::<Vec<_>>().join(", ");
    let insert = |begins: &str, ended: &str| {
        format!(
            "insert into {target} ({list}, {from}, {to}, {current}) select {staged_list}, {begins}, {}, true from {staged} as s{ended}",
            time("null")
        )
    };
    if prepared.held.is_none() {
        let own: Vec<String> = prepared.words.iter().map(|(name, word)| format!("{} {word}", dialect.identifier(name))).collect();
        let time_type = time_type.clone().unwrap_or_default();
        let columns = format!("{}, {from} {time_type}, {to} {time_type}, {current} boolean", own.join(", "));
        script.before.push(format!("create table {target} ({columns})"));
        script.rows.push(insert(&begins, ""));
        return;
    }
    let (name, exact) = (target, dialect.exact_order);
    let same_key = all_of(&request.primary_key, |column| format!("s.{0} = {name}.{0}", dialect.identifier(column)));
    // No version ends before it begins.
    let ends = format!("case when {begins}{exact} < {name}.{from} then {name}.{from} else {begins} end");
    let open = format!("{name}.{current} = true and {same_key}");
    let close = |ends: String, keys: &str| {
        let assignments = [(to.as_str(), ends), (current.as_str(), "false".to_owned())];
        dialect.update_from(target, &assignments, &format!("{keys} as s"), &open)
    };
    script.rows.push(close(ends, staged));
    if finds_gone(request) {
        script.rows.push(close(time(&at), &dialect.table(&stage.gone)));
    }
    // A key that was gone, or whose last version ended later than the row says, goes on where that version ended.
    let keys = dialect.identifiers(&request.primary_key);
    let same_end = all_of(&request.primary_key, |column| format!("s.{0} = e.{0}", dialect.identifier(column)));
    let ended = format!(" left join (select {keys}, max({to}) as __subak_end from {target} group by {keys}) as e on {same_end}");
    script.rows.push(insert(&format!("case when e.__subak_end{exact} > {begins} then e.__subak_end else {begins} end"), &ended));
}
