//! Comparing a stage with its table: which rows are newer, which are there already, what publication will do.

use subak_connect::sink::{DELETE_MARK, UNCHANGED};
use subak_connect::{ConnectError, ConnectErrorKind, Dialect, LoadRequest, SlicePart, StagedRows};
use subak_domain::WriteMode;

use super::{Relation, Session, Stage, all_of, contains, history, merge, row_text, type_changed};

/// What is known about a stage once it is complete.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// The stage, quoted.
    pub(crate) stage: String,
    /// The table, quoted.
    pub(crate) target: String,
    /// What stands under the table's name now.
    pub(crate) held: Option<Relation>,
    /// Whether the table cannot be exchanged for another one.
    pub(crate) is_bound: bool,
    /// What numbers the rows of the stage in the order of their arrival, where it has a column for that.
    pub(crate) row_column: Option<&'static str>,
    /// Columns of the stage that are stored, in order.
    pub(crate) columns: Vec<String>,
    /// The system's words for their types.
    pub(crate) words: Vec<(String, String)>,
    /// Columns of the table without those that a snapshot adds; `None` when there is no table.
    pub(crate) held_columns: Option<Vec<String>>,
    /// Whether the stage has marks for deletions.
    pub(crate) has_marks: bool,
    /// What became of the rows.
    pub(crate) rows: StagedRows,
    /// Rejects that are staged.
    pub(crate) reject_count: u64,
    /// Whether publication will change what readers see.
    pub(crate) changed: bool,
    /// The rows as they will be after publication, as something that can stand behind `from`.
    pub(crate) preview: String,
}

impl Prepared {
    /// The name for the number of a row of the stage.
    pub(crate) fn row_id(&self, dialect: &Dialect) -> Result<&'static str, ConnectError> {
        self.row_column.map_or_else(|| super::row_id(dialect, &self.columns), Ok)
    }

    /// Columns of the stage with the system's words for their types.
    pub(crate) fn words_of(&self, columns: &[String]) -> Vec<(String, String)> {
        let word = |name: &String| self.words.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, word)| word);
        columns.iter().map(|name| (name.clone(), word(name).cloned().unwrap_or_default())).collect()
    }

    /// Columns that the table lacks.
    pub(crate) fn added(&self) -> Vec<&String> {
        let held = self.held_columns.as_deref().unwrap_or_default();
        self.columns.iter().filter(|column| !contains(held, column)).collect()
    }

    /// Columns that both have and that make rows different.
    pub(crate) fn compared(&self, request: &LoadRequest) -> Vec<String> {
        let held = self.held_columns.as_deref().unwrap_or_default();
        let is_compared = |column: &&String| contains(held, column) && !contains(&request.volatile, column);
        self.columns.iter().filter(is_compared).cloned().collect()
    }

    /// Whether both have the same columns.
    pub(crate) fn has_same_columns(&self) -> bool {
        self.held_columns.as_ref().is_some_and(|held| held.len() == self.columns.len()) && self.added().is_empty()
    }

    /// Columns of the table after publication.
    pub(crate) fn result_columns(&self, request: &LoadRequest) -> Vec<String> {
        let mut columns = self.held_columns.clone().unwrap_or_default();
        columns.retain(|column| !contains(&request.removed, column));
        columns.extend(self.added().into_iter().cloned());
        columns
    }

    /// Whether the rows of the stage are all rows of the table afterwards.
    pub(crate) fn is_rebuilt(&self, request: &LoadRequest) -> bool {
        request.mode != WriteMode::Snapshot && (request.mode == WriteMode::Replace || self.held.is_none())
    }

    /// Whether the stage takes the place of the table.
    pub(crate) fn is_swap(&self, request: &LoadRequest) -> bool {
        self.is_rebuilt(request) && !self.is_bound
    }
}

/// Compares a complete stage with its table and drops what need not be published. Changes the stage only.
pub(crate) fn prepare(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<Prepared, ConnectError> {
    let mut prepared = compare(session, stage, request)?;
    refuse_changed_types(session, stage, request, &prepared)?;
    let has_key =
        !request.primary_key.is_empty() && (request.has_unique_key || request.latest.is_some() || request.mode.needs_key());
    if has_key {
        refuse_null_keys(session, request, &prepared)?;
    }
    if request.schema.index_of(UNCHANGED).is_ok() {
        merge::fill_unchanged(session, request, &prepared)?;
    }
    if let Some(latest) = &request.latest {
        prepared.rows.superseded += merge::drop_superseded(session, request, latest, &prepared)?;
    }
    if request.has_unique_key {
        refuse_double_keys(session, request, &prepared)?;
    }
    refuse_outside(session, request, &prepared)?;
    if prepared.is_rebuilt(request) && prepared.has_marks {
        // Nothing is there to be deleted from, but a late row must not bring back what was deleted.
        if request.keeps_tombstones {
            merge::keep_deletions(session, stage, request, &prepared)?;
        }
        let sql = format!("delete from {} where {} = true", prepared.stage, session.dialect().identifier(DELETE_MARK));
        prepared.rows.overlap += session.execute(&sql)?;
    }
    prepared.reject_count = match session.relation(&stage.rejects)? {
        Some(_) => session.count(&format!("select count(*) from {}", session.dialect().table(&stage.rejects)))?,
        None => 0,
    };
    match request.mode {
        WriteMode::Merge | WriteMode::Append if request.children.is_empty() => {
            prepared.rows.overlap += merge::drop_overlap(session, request, &prepared)?;
        }
        WriteMode::Snapshot => {
            history::find_gone(session, stage, request, &prepared)?;
            let (overlap, superseded) = history::drop_unchanged(session, request, &prepared)?;
            prepared.rows.overlap += overlap;
            prepared.rows.superseded += superseded;
        }
        _ => {}
    }
    prepared.rows.written = session.count(&format!("select count(*) from {}", prepared.stage))?;
    if prepared.has_marks {
        let mark = session.dialect().identifier(DELETE_MARK);
        prepared.rows.deleted = session.count(&format!("select count(*) from {} where {mark} = true", prepared.stage))?;
    }
    prepared.changed = will_change(session, stage, request, &prepared)?;
    if !prepared.changed && matches!(request.mode, WriteMode::Replace | WriteMode::DeleteInsert) {
        // Every row is there already: nothing will be written.
        prepared.rows.overlap += std::mem::take(&mut prepared.rows.written);
    }
    prepared.preview = preview(session, stage, request, &prepared);
    Ok(prepared)
}

fn compare(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<Prepared, ConnectError> {
    let dialect = session.dialect();
    let held = session.relation(&request.table)?;
    if held.as_ref().is_some_and(Relation::is_view) && request.mode != WriteMode::Replace {
        let message = format!("`{}` is a view, and rows cannot be loaded into it", request.table);
        return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help("drop the view, or rename the asset"));
    }
    let staged = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    let has_marks = staged.iter().any(|(name, _)| name == DELETE_MARK);
    let row_column = session.dialect().row_column.map(|(name, _)| name);
    let row_column = row_column.filter(|number| staged.iter().any(|(name, _)| name == number));
    let is_technical = |name: &String| name == DELETE_MARK || name == UNCHANGED || Some(name.as_str()) == row_column;
    let words: Vec<(String, String)> = staged.into_iter().filter(|(name, _)| !is_technical(name)).collect();
    let columns = words.iter().map(|(name, _)| name.clone()).collect();
    let added_by_history = history::columns(request);
    let held_columns = held.as_ref().map(|held| {
        let names = held.columns.iter().map(|(name, _)| name.clone());
        names.filter(|name| !contains(&added_by_history, name)).collect()
    });
    if held.as_ref().is_some_and(|held| !held.is_view()) && !matches!(request.mode, WriteMode::Append | WriteMode::Snapshot) {
        session.refuse_referenced(&request.table)?;
    }
    let is_replaced = request.mode == WriteMode::Replace && held.as_ref().is_some_and(|held| !held.is_view());
    let is_bound = is_replaced && session.is_bound(&request.table)?;
    Ok(Prepared {
        stage: dialect.table(&stage.rows),
        target: dialect.table(&request.table),
        held,
        is_bound,
        row_column,
        columns,
        words,
        held_columns,
        has_marks,
        rows: StagedRows::default(),
        reject_count: 0,
        changed: false,
        preview: String::new(),
    })
}

/// Refuses a load whose columns have other types than the table's, because the system would convert them without a word.
fn refuse_changed_types(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<(), ConnectError> {
    let Some(held) = prepared.held.as_ref().filter(|_| request.mode != WriteMode::Replace) else { return Ok(()) };
    let staged = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    for (name, arriving) in staged.iter().filter(|(name, _)| !contains(&request.widened, name)) {
        let known = held.columns.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some((_, held)) = known.filter(|(_, held)| !held.eq_ignore_ascii_case(arriving)) {
            let error = type_changed(&request.table, name, held, arriving);
            return Err(match request.slice {
                // Nothing makes the other partitions anew with it.
                Some(_) => error.help("or drop the table, and run all partitions: `--partition all`"),
                None => error,
            });
        }
    }
    Ok(())
}

fn refuse_null_keys(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let any_null = super::any_of(&request.primary_key, |column| format!("{} is null", dialect.identifier(column)));
    let list = dialect.identifiers(&prepared.columns);
    let rows = session.rows(&format!("select {list} from {} where {any_null}", prepared.stage), 1)?;
    let Some(row) = rows.first() else { return Ok(()) };
    let message = format!("`{}` would get rows without a key: {}", request.table, row_text(row));
    let help = "correct the source, declare another `primary_key:`, or keep such rows apart with `on_reject: quarantine`";
    Err(ConnectError::new(ConnectErrorKind::KeyNull, message).help(help))
}

fn refuse_double_keys(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<(), ConnectError> {
    let list = session.dialect().identifiers(&request.primary_key);
    let sql = format!("select {list} from {} group by {list} having count(*) > 1", prepared.stage);
    let rows = session.rows(&sql, 3)?;
    if rows.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = rows.iter().map(|row| row_text(row)).collect();
    let message = format!("`{}` would get several rows with one key: {}", request.table, keys.join("; "));
    let help = "correct the source, declare another `primary_key:`, or say which row stays with `deduplicate:`";
    Err(ConnectError::new(ConnectErrorKind::KeyTwice, message).help(help))
}

/// The condition that a row belongs to the part of the table that the rows take the place of.
pub(crate) fn slice_condition(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Option<String> {
    let slice = request.slice.as_ref()?;
    let condition = |part: &SlicePart| {
        let word = prepared.words.iter().find(|(name, _)| name.eq_ignore_ascii_case(&part.column)).map(|(_, word)| word)?;
        let is_instant = match request.schema.field_with_name(&part.column) {
            Ok(field) => matches!(field.data_type(), arrow::datatypes::DataType::Timestamp(_, Some(_))),
            // The result of a query: by the system's own word.
            Err(_) => word.to_ascii_lowercase().contains("time zone"),
        };
        Some(session.dialect().slice(part, word, slice.is_instant.unwrap_or(is_instant)))
    };
    Some(slice.parts.iter().map(condition).collect::<Option<Vec<_>>>()?.join(" and "))
}

/// Refuses rows that lie outside of the part of the table that they take the place of.
fn refuse_outside(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<(), ConnectError> {
    let Some(slice) = &request.slice else { return Ok(()) };
    let Some(condition) = slice_condition(session, request, prepared) else {
        let message = format!("`{}` would get rows without all columns of its partitions: {}", request.table, slice.columns());
        return Err(
            ConnectError::new(ConnectErrorKind::ColumnMissing, message).help("correct `partition:`, or select the column")
        );
    };
    let list = session.dialect().identifiers(&prepared.columns);
    let sql = format!("select {list} from {} where not ({condition}) or ({condition}) is null", prepared.stage);
    let Some(row) = session.rows(&sql, 1)?.into_iter().next() else { return Ok(()) };
    let count = session.count(&format!("select count(*) from ({sql}) as t"))?;
    let message =
        format!("{count} rows do not belong to partition `{}` of `{}`: {}", slice.partition.key, request.table, row_text(&row));
    let help = format!("read or select only rows whose {} lies in the partition", slice.columns());
    Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help))
}

fn will_change(session: &dyn Session, stage: &Stage, request: &LoadRequest, prepared: &Prepared) -> Result<bool, ConnectError> {
    let Some(held) = &prepared.held else { return Ok(true) };
    if !prepared.added().is_empty() || !request.removed.is_empty() {
        let is_emptied = match slice_condition(session, request, prepared) {
            Some(condition) => session.count(&format!("select count(*) from {} where {condition}", prepared.target))? > 0,
            None => false,
        };
        return Ok(prepared.rows.written > 0
            || is_emptied
            || count_gone(session, stage, request)? > 0
            || request.mode == WriteMode::Replace
            || !request.removed.is_empty());
    }
    match request.mode {
        WriteMode::Append | WriteMode::Merge | WriteMode::Snapshot => {
            Ok(prepared.rows.written > 0 || count_gone(session, stage, request)? > 0)
        }
        WriteMode::Replace => {
            let staged = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
            let shape = |columns: &[(String, String)]| {
                let mut columns: Vec<(String, String)> = columns
                    .iter()
                    .filter(|(name, _)| name != DELETE_MARK && Some(name.as_str()) != prepared.row_column)
                    .cloned()
                    .collect();
                if prepared.is_bound {
                    // Columns that came later stand at the end of a table that stays.
                    columns.sort();
                }
                columns
            };
            let is_same_shape = !held.is_view() && shape(&held.columns) == shape(&staged);
            Ok(!is_same_shape || differs(session, request, prepared, &prepared.target)? || lists_differ(session, stage, request)?)
        }
        WriteMode::DeleteInsert => {
            let keys = session.dialect().identifiers(&request.primary_key);
            let same = match slice_condition(session, request, prepared) {
                Some(condition) => format!("(select * from {} where {condition})", prepared.target),
                None => format!("(select * from {} where ({keys}) in (select {keys} from {}))", prepared.target, prepared.stage),
            };
            // Lists are not compared part by part.
            Ok(!prepared.has_same_columns() || !request.children.is_empty() || differs(session, request, prepared, &same)?)
        }
    }
}

/// Whether the stage and `other` hold different rows, columns left aside that do not make a row different. Equal numbers of rows and
/// no group of equal rows in a different number mean that both hold the same.
fn differs(session: &dyn Session, request: &LoadRequest, prepared: &Prepared, other: &str) -> Result<bool, ConnectError> {
    have_other_rows(session, &prepared.stage, other, &prepared.compared(request))
}

/// Whether two tables hold other rows, as far as these columns go.
pub(crate) fn have_other_rows(session: &dyn Session, table: &str, other: &str, columns: &[String]) -> Result<bool, ConnectError> {
    let count = |table: &str| session.count(&format!("select count(*) from {table} as t"));
    if count(table)? != count(other)? {
        return Ok(true);
    }
    if columns.is_empty() {
        return Ok(false);
    }
    let list = session.dialect().identifiers(columns);
    let groups = |table: &str| format!("select {list}, count(*) as row_count from {table} as t group by {list}");
    let sql = format!("select count(*) from ({} except {}) as d", groups(table), groups(other));
    Ok(session.count(&sql)? > 0)
}

/// Whether nested lists of a whole stream are others than those in their tables.
fn lists_differ(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<bool, ConnectError> {
    let dialect = session.dialect();
    for (staged, child) in stage.children.iter().zip(&request.children) {
        let (Some(staged_as), Some(held)) = (session.relation(staged)?, session.relation(&child.table)?) else {
            return Ok(true);
        };
        let names: Vec<String> = staged_as.columns.iter().map(|(name, _)| name.clone()).collect();
        if staged_as.columns != held.columns
            || have_other_rows(session, &dialect.table(staged), &dialect.table(&child.table), &names)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many open versions have keys that are gone from the source.
fn count_gone(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<u64, ConnectError> {
    if request.mode != WriteMode::Snapshot || session.relation(&stage.gone)?.is_none() {
        return Ok(0);
    }
    session.count(&format!("select count(*) from {}", session.dialect().table(&stage.gone)))
}

/// The rows as they will be after publication.
fn preview(session: &dyn Session, stage: &Stage, request: &LoadRequest, prepared: &Prepared) -> String {
    let dialect = session.dialect();
    let Prepared { stage: staged, target, .. } = prepared;
    let unmarked =
        if prepared.has_marks { format!(" where s.{} is not true", dialect.identifier(DELETE_MARK)) } else { String::new() };
    let Some(held) = prepared.held_columns.as_deref().filter(|_| !prepared.is_rebuilt(request)) else {
        let list = dialect.identifiers(&prepared.columns);
        return format!("(select {list} from {staged} as s{unmarked})");
    };
    let result = prepared.result_columns(request);
    let select = |known: &[String], alias: &str| {
        let item = |column: &String| {
            let quoted = dialect.identifier(column);
            if contains(known, column) { format!("{alias}.{quoted}") } else { format!("null as {quoted}") }
        };
        result.iter().map(item).collect::<Vec<_>>().join(", ")
    };
    let same_key = |other: &str| {
        let test = all_of(&request.primary_key, |column| {
            let column = dialect.identifier(column);
            format!("s.{column} = t.{column}")
        });
        format!("not exists (select 1 from {other} as s where {test})")
    };
    let kept = match request.mode {
        WriteMode::DeleteInsert if request.slice.is_some() => {
            let condition = slice_condition(session, request, prepared).unwrap_or_else(|| "1 = 0".to_owned());
            format!(" where not ({condition}) or ({condition}) is null")
        }
        WriteMode::Merge | WriteMode::DeleteInsert => format!(" where {}", same_key(staged)),
        WriteMode::Snapshot => {
            let current = dialect.identifier(&request.history.is_current);
            let gone = if history::finds_gone(request) {
                format!(" and {}", same_key(&dialect.table(&stage.gone)))
            } else {
                String::new()
            };
            format!(" where t.{current} = true and {}{gone}", same_key(staged))
        }
        _ => String::new(),
    };
    format!(
        "(select {} from {target} as t{kept} union all select {} from {staged} as s{unmarked})",
        select(held, "t"),
        select(&prepared.columns, "s")
    )
}
