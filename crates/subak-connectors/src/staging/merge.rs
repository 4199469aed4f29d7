//! Which staged rows of an append or a merge need not be published: older ones, and those that the table holds already.

use subak_connect::sink::{DELETE_MARK, UNCHANGED};
use subak_connect::{ConnectError, Dialect, LoadRequest, TableName};
use subak_domain::WriteMode;
use subak_domain::write::{Latest, OrderBy, Tie};

use super::prepare::Prepared;
use super::{Session, Stage, all_of, contains, late};

/// The table that remembers deletions of a table.
pub(crate) fn tombstones(table: &TableName) -> TableName {
    TableName { schema: table.schema.clone(), name: format!("{}__tombstones", table.name) }
}

/// The columns of a table that remembers deletions: the key and what orders the rows of a key.
pub(super) fn tombstone_columns(request: &LoadRequest) -> Vec<String> {
    let order = request.latest.iter().flat_map(|latest| &latest.order).map(|term| term.column.clone());
    request.primary_key.iter().cloned().chain(order).collect()
}

/// Notes the deletions of a stage that will take the place of its table.
pub(super) fn keep_deletions(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    session.execute(&format!(
        "create table {} as select {} from {} where {} = true",
        dialect.table(&stage.deletions),
        dialect.identifiers(&tombstone_columns(request)),
        prepared.stage,
        dialect.identifier(DELETE_MARK)
    ))?;
    Ok(())
}

/// A column of the stage as it is compared in an order.
pub(super) fn ordered(dialect: &Dialect, request: &LoadRequest, name: &str, expression: &str) -> String {
    match request.schema.field_with_name(name) {
        Ok(field) => dialect.ordered(expression, field.data_type()),
        Err(_) => expression.to_owned(),
    }
}

/// Gives values to columns for which the source did not say one: what an earlier row of the load says, else what the table holds. Then
/// drops the column that names them.
pub(super) fn fill_unchanged(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let row_id = prepared.row_id(dialect)?;
    let (stage, mark) = (&prepared.stage, dialect.identifier(UNCHANGED));
    let lists = session.rows(&format!("select distinct {mark} from {stage} where {mark} is not null"), usize::MAX)?;
    let named: std::collections::BTreeSet<String> = lists
        .iter()
        .flatten()
        .filter_map(|(_, list)| list.as_ref())
        .flat_map(|list| list.split(','))
        .map(str::to_owned)
        .collect();
    let order = request.latest.iter().flat_map(|latest| &latest.order).next();
    let by_order = |alias: &str, term: &OrderBy| {
        ordered(dialect, request, &term.column, &format!("{alias}.{}", dialect.identifier(&term.column)))
    };
    let before = match order.map(|term| (by_order("e", term), dialect.identifier(&term.column))) {
        Some((own, order)) => format!("({own} < s.{order} or (e.{order} = s.{order} and e.{row_id} < s.{row_id}))"),
        None => format!("e.{row_id} < s.{row_id}"),
    };
    let newest =
        order.map_or_else(|| format!("e.{row_id} desc"), |term| format!("{} desc, e.{row_id} desc", by_order("e", term)));
    let same_key =
        |a: &str, b: &str| all_of(&request.primary_key, |column| format!("{a}.{0} = {b}.{0}", dialect.identifier(column)));
    for name in prepared.columns.iter().filter(|name| named.contains(*name)) {
        let column = dialect.identifier(name);
        let says =
            |alias: &str| format!("coalesce({}({alias}.{mark}, {}), 0)", dialect.position, dialect.literal(&format!(",{name},")));
        let held = match prepared.held_columns.as_ref().filter(|held| contains(held, name)) {
            Some(_) => format!("(select t.{column} from {} as t where {})", prepared.target, same_key("t", "s")),
            None => "null".to_owned(),
        };
        // The newest row of the load before this one that says a value; its number, because the value itself may be NULL.
        let earlier = format!(
            "select s.{row_id} as row_number_of, (select e.{row_id} from {stage} as e where {} and {} = 0 and {before} \
             order by {newest} limit 1) as earlier, {held} as held from {stage} as s where {} > 0",
            same_key("e", "s"),
            says("e"),
            says("s")
        );
        let found = format!(
            "(select x.row_number_of, case when x.earlier is null then x.held else e.{column} end \
             as value from ({earlier}) as x left join {stage} as e on e.{row_id} = x.earlier) as f"
        );
        let same_row = format!("{stage}.{row_id} = f.row_number_of");
        session.execute(&dialect.update_from(stage, &[(&column, "f.value".to_owned())], &found, &same_row))?;
    }
    session.execute(&format!("alter table {stage} drop column {mark}"))?;
    Ok(())
}

/// Keeps one row of each key and drops the others; then drops those for which the table, or its tombstones, hold a newer one.
/// Returns how many were dropped.
pub(super) fn drop_superseded(
    session: &dyn Session,
    request: &LoadRequest,
    latest: &Latest,
    prepared: &Prepared,
) -> Result<u64, ConnectError> {
    let dialect = session.dialect();
    let row_id = prepared.row_id(dialect)?;
    let keys = dialect.partition(&prepared.words_of(&request.primary_key));
    let mut order: Vec<String> = Vec::new();
    for term in &latest.order {
        let column = ordered(dialect, request, &term.column, &dialect.identifier(&term.column));
        order.push(dialect.order(&column, term.is_descending, term.nulls_first));
    }
    order.push(format!("{row_id} {}", if latest.tie == Tie::Last { "desc" } else { "asc" }));
    let stage = &prepared.stage;
    let older = format!(
        "select __subak_row from (select {row_id} as __subak_row, row_number() over (partition by {keys} order by {}) as __subak_place \
         from {stage}) as s where __subak_place > 1",
        order.join(", ")
    );
    let mut dropped = session.execute(&dialect.delete_rows(stage, row_id, &older))?;
    if latest.is_against_table && !latest.order.is_empty() {
        let tombstones = tombstones(&request.table);
        let is_kept = request.mode == WriteMode::Merge;
        for (table, is_there) in [
            (prepared.target.clone(), is_kept && prepared.held.is_some()),
            (dialect.table(&tombstones), is_kept && request.keeps_tombstones && session.relation(&tombstones)?.is_some()),
        ] {
            if is_there {
                dropped += drop_older(session, request, latest, prepared, &table, row_id)?;
            }
        }
    }
    Ok(dropped)
}

/// Drops staged rows that stand behind the row with their key in `table`, and, where the first arrival wins, those that are equal to it
/// in the order.
fn drop_older(
    session: &dyn Session,
    request: &LoadRequest,
    latest: &Latest,
    prepared: &Prepared,
    table: &str,
    row_id: &str,
) -> Result<u64, ConnectError> {
    let dialect = session.dialect();
    let same_key = all_of(&request.primary_key, |column| {
        let column = dialect.identifier(column);
        format!("s.{column} = t.{column}")
    });
    let mut behind: Vec<String> = Vec::new();
    let mut equal_before = String::new();
    for term in &latest.order {
        let column = dialect.identifier(&term.column);
        let word = if term.is_descending { "<" } else { ">" };
        let null_test = if term.nulls_first {
            format!("(t.{column} is null and s.{column} is not null)")
        } else {
            format!("(s.{column} is null and t.{column} is not null)")
        };
        let own = ordered(dialect, request, &term.column, &format!("s.{column}"));
        behind.push(format!("({equal_before}({own} {word} t.{column} or {null_test}))"));
        equal_before.push_str(&format!("s.{column} {} t.{column} and ", dialect.null_safe_equal));
    }
    if latest.tie == Tie::First {
        behind.push(format!("({})", equal_before.trim_end_matches(" and ")));
    }
    let stage = &prepared.stage;
    let older = format!(
        "select s.{row_id} as __subak_row from {stage} as s join {table} as t on {same_key} where {}",
        behind.join(" or ")
    );
    session.execute(&dialect.delete_rows(stage, row_id, &older))
}

/// Drops staged rows which the table holds already. Returns how many.
///
/// Merge: a row that equals the row in the table, so that publishing it would change nothing, and a deletion of a key that is not
/// there. Append: as many copies of a row as the table holds, by the columns that both have: a column that came or went must not
/// double the rows at the bound.
pub(super) fn drop_overlap(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<u64, ConnectError> {
    if prepared.held.is_none() {
        return Ok(0);
    }
    match request.mode {
        WriteMode::Merge => drop_equal(session, request, prepared),
        WriteMode::Append if request.overlap.is_some() => drop_copies(session, request, prepared),
        _ => Ok(0),
    }
}

fn drop_equal(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<u64, ConnectError> {
    let dialect = session.dialect();
    let row_id = prepared.row_id(dialect)?;
    let (stage, target) = (&prepared.stage, &prepared.target);
    let mark = dialect.identifier(DELETE_MARK);
    let mut dropped = 0;
    if prepared.has_same_columns() {
        let unmarked = if prepared.has_marks { format!(" and s.{mark} is not true") } else { String::new() };
        // The key is compared plainly: it has no NULLs, and a plain comparison can be looked up or hashed. The rest stands in a `case`, so
        // that no optimizer joins by it too: it would then be read for every row of the table and not only for those with a key of the stage.
        let by_key = all_of(&request.primary_key, |column| format!("t.{0} = s.{0}", dialect.identifier(column)));
        let rest: Vec<String> =
            prepared.compared(request).into_iter().filter(|column| !contains(&request.primary_key, column)).collect();
        let is_same = all_of(&rest, |column| {
            let column = dialect.identifier(column);
            format!("t.{column} {} s.{column}", dialect.null_safe_equal)
        });
        let is_same = if rest.is_empty() { "1 = 1".to_owned() } else { format!("case when {is_same} then 1 else 0 end = 1") };
        let equal = format!(
            "select s.{row_id} as __subak_row from {stage} as s join {target} as t on {by_key} where {is_same}{unmarked}"
        );
        dropped += session.execute(&dialect.delete_rows(stage, row_id, &equal))?;
    }
    if prepared.has_marks {
        let mut known = vec![target.clone()];
        let tombstones = tombstones(&request.table);
        if request.keeps_tombstones {
            // A deletion that comes before what it deletes must be remembered.
            known.clear();
            if session.relation(&tombstones)?.is_some() {
                let same = all_of(&tombstone_columns(request), |column| {
                    let column = dialect.identifier(column);
                    format!("t.{column} {} s.{column}", dialect.null_safe_equal)
                });
                let remembered = format!(
                    "select s.{row_id} as __subak_row from {stage} as s join {} as t on {same} where s.{mark} = true",
                    dialect.table(&tombstones)
                );
                dropped += session.execute(&dialect.delete_rows(stage, row_id, &remembered))?;
            }
        }
        for table in known {
            let same_key = all_of(&request.primary_key, |column| format!("t.{0} = {stage}.{0}", dialect.identifier(column)));
            dropped += session.execute(&format!(
                "delete from {stage} where {mark} = true and not exists (select 1 from {table} as t where {same_key})"
            ))?;
        }
    }
    Ok(dropped)
}

fn drop_copies(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<u64, ConnectError> {
    let dialect = session.dialect();
    let compared = prepared.compared(request);
    if compared.is_empty() {
        return Ok(0);
    }
    let row_id = prepared.row_id(dialect)?;
    let is_same = all_of(&compared, |column| {
        let column = dialect.identifier(column);
        format!("t.{column} {} s.{column}", dialect.null_safe_equal)
    });
    let list = dialect.identifiers(&compared);
    let copies = dialect.partition(&prepared.words_of(&compared));
    let late = late::compared_as(session, request, prepared)?;
    // Rows with the columns as they are compared.
    let seen = |table: &str, row: &str| {
        let item = |column: &String| {
            let name = dialect.identifier(column);
            late.iter().find(|(late, _)| late == column).map_or(name.clone(), |(_, value)| format!("{value} as {name}"))
        };
        let items = compared.iter().map(item).collect::<Vec<_>>().join(", ");
        format!("(select {row}{items} from {table}) as q")
    };
    let staged = seen(&prepared.stage, &format!("{row_id} as __subak_row, "));
    let there = seen(&prepared.target, "");
    let held = format!(
        "select s.__subak_row from (select __subak_row, row_number() over (partition by {copies}) as __subak_copy, {list} \
         from {staged}) as s join (select {list}, count(*) as __subak_held from {there} group by {list}) as t on {is_same} \
         where s.__subak_copy <= t.__subak_held"
    );
    session.execute(&dialect.delete_rows(&prepared.stage, row_id, &held))
}
