//! The SQL of a load, for systems with transactions: rows go to a stage table, are compared with the table, and are published in
//! one transaction. Pure functions from names to statements.

use subak_connect::{ConnectError, ConnectErrorKind, Dialect, LoadRequest};
use subak_domain::WriteMode;

/// Stage tables begin with this, so that leftovers can be found.
pub(crate) const STAGE_PREFIX: &str = "__subak_stage_";

/// What a load works on. Table names are quoted.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Where the rows wait.
    pub(crate) stage: String,
    /// Where they go.
    pub(crate) target: String,
}

/// The columns of stage and target, as far as statements need them. Unquoted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    /// Columns of the stage, in order.
    pub(crate) stage: Vec<String>,
    /// Columns of the table, in order; `None` when there is no table.
    pub(crate) target: Option<Vec<String>>,
}

impl Columns {
    /// Columns that the table lacks.
    pub(crate) fn added(&self) -> Vec<&String> {
        let target = self.target.as_deref().unwrap_or_default();
        self.stage.iter().filter(|column| !target.iter().any(|known| known.eq_ignore_ascii_case(column))).collect()
    }

    /// Columns that both have.
    fn shared(&self) -> Vec<String> {
        let target = self.target.as_deref().unwrap_or_default();
        let is_known = |column: &&String| target.iter().any(|known| known.eq_ignore_ascii_case(column));
        self.stage.iter().filter(is_known).cloned().collect()
    }

    /// Whether both have the same columns.
    fn are_equal(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.len() == self.stage.len()) && self.added().is_empty()
    }

    /// Columns of the table after publication.
    fn result(&self) -> Vec<String> {
        let mut columns = self.target.clone().unwrap_or_default();
        columns.extend(self.added().into_iter().cloned());
        columns
    }
}

/// The query that returns the keys which make a merge ambiguous, with the number of their rows; NULL keys first.
pub(crate) fn bad_keys(dialect: &Dialect, names: &Names, key: &[String]) -> String {
    let list = dialect.identifiers(key);
    let any_null = any_of(key, |column| format!("{} is null", dialect.identifier(column)));
    format!(
        "select case when {any_null} then 1 else 0 end as has_null, count(*) as row_count, {list} from {stage} \
         group by {list} having count(*) > 1 or ({any_null}) order by has_null desc",
        stage = names.stage
    )
}

/// The statement that drops staged rows which the table holds already, or `None` when no such rows can be told.
///
/// Merge: a row that equals the row in the table, so that publishing it would change nothing. Append: as many copies of a row as the
/// table holds, by the columns that both have: a column that came or went must not double the rows at the bound. `Err` names a
/// column that stands in the way of telling rows apart.
pub(crate) fn drop_overlap(
    dialect: &Dialect,
    names: &Names,
    request: &LoadRequest,
    columns: &Columns,
) -> Result<Option<String>, String> {
    let Names { stage, target } = names;
    let shared = columns.shared();
    let wanted = match (request.mode, &request.overlap) {
        (WriteMode::Merge, _) => columns.are_equal(),
        (WriteMode::Append, Some(_)) => !shared.is_empty(),
        _ => false,
    };
    if !wanted {
        return Ok(None);
    }
    let is_column = |name: &&&str| columns.stage.iter().any(|column| column.eq_ignore_ascii_case(name));
    let row_id = dialect.row_ids.iter().find(|name| !is_column(name)).ok_or_else(|| dialect.row_ids[0].to_owned())?;
    let is_same = all_of(&shared, |column| {
        let column = dialect.identifier(column);
        format!("t.{column} {} s.{column}", dialect.null_safe_equal)
    });
    if request.mode == WriteMode::Merge {
        return Ok(Some(format!(
            "delete from {stage} where {row_id} in (select s.{row_id} from {stage} as s join {target} as t on {is_same})"
        )));
    }
    let list = dialect.identifiers(&shared);
    Ok(Some(format!(
        "delete from {stage} where {row_id} in (select s.__subak_row from \
         (select {row_id} as __subak_row, row_number() over (partition by {list}) as __subak_copy, {list} from {stage}) as s \
         join (select {list}, count(*) as __subak_held from {target} group by {list}) as t on {is_same} \
         where s.__subak_copy <= t.__subak_held)"
    )))
}

/// The query that counts groups of equal rows of the stage which the table does not hold in the same number. Zero, with equal
/// row counts, means that both hold the same rows. `None` when the columns differ.
pub(crate) fn count_differences(dialect: &Dialect, names: &Names, columns: &Columns) -> Option<String> {
    let is_same_order = columns.target.as_ref() == Some(&columns.stage);
    is_same_order.then(|| {
        let list = dialect.identifiers(&columns.stage);
        let groups = |table: &str| format!("select {list}, count(*) as row_count from {table} group by {list}");
        format!("select count(*) from ({} except {}) as d", groups(&names.stage), groups(&names.target))
    })
}

/// The rows as they will be after publication, as something that can stand behind `from`.
pub(crate) fn preview(dialect: &Dialect, names: &Names, request: &LoadRequest, columns: &Columns) -> String {
    let Names { stage, target } = names;
    if request.mode == WriteMode::Replace || columns.target.is_none() {
        return stage.clone();
    }
    let result = columns.result();
    let select = |known: &[String], alias: &str| {
        let item = |column: &String| {
            let quoted = dialect.identifier(column);
            let is_known = known.iter().any(|known| known.eq_ignore_ascii_case(column));
            if is_known { format!("{alias}.{quoted}") } else { format!("null as {quoted}") }
        };
        result.iter().map(item).collect::<Vec<_>>().join(", ")
    };
    let kept = match request.mode {
        WriteMode::Merge => {
            format!(" where not exists (select 1 from {stage} as s where {})", same_key(dialect, &request.primary_key))
        }
        _ => String::new(),
    };
    let target_columns = columns.target.as_deref().unwrap_or_default();
    format!(
        "(select {} from {target} as t{kept} union all select {} from {stage} as s)",
        select(target_columns, "t"),
        select(&columns.stage, "s")
    )
}

/// The statements that carry staged rows into a table that exists, for append and merge.
pub(crate) fn carry_over(dialect: &Dialect, names: &Names, request: &LoadRequest, columns: &Columns) -> Vec<String> {
    let Names { stage, target } = names;
    let mut statements = Vec::new();
    if request.mode == WriteMode::Merge {
        let keys = dialect.identifiers(&request.primary_key);
        statements.push(format!("delete from {target} where ({keys}) in (select {keys} from {stage})"));
    }
    let list = dialect.identifiers(&columns.stage);
    statements.push(format!("insert into {target} ({list}) select {list} from {stage}"));
    statements
}

/// The error for a column whose type no longer fits the table.
pub(crate) fn type_changed(table: &str, column: &str, held: &str, arriving: &str) -> ConnectError {
    let message = format!("column `{column}` of `{table}` is {held} and arrives as {arriving}");
    ConnectError::new(ConnectErrorKind::SchemaChanged, message)
        .help(format!("declare the type of `{column}` under `columns:`, or rebuild the table with `--full-refresh`"))
}

/// The error for keys that make a merge ambiguous; `keys` are `column=value` texts.
pub(crate) fn bad_key_error(request: &LoadRequest, is_null: bool, keys: &str) -> ConnectError {
    let (kind, what) = if is_null {
        (ConnectErrorKind::KeyNull, "rows without a key")
    } else {
        (ConnectErrorKind::KeyTwice, "several rows with one key")
    };
    ConnectError::new(kind, format!("`{}` would get {what}: {keys}", request.table))
        .help("correct the source, or declare another `primary_key:`")
}

fn same_key(dialect: &Dialect, key: &[String]) -> String {
    all_of(key, |column| {
        let column = dialect.identifier(column);
        format!("s.{column} = t.{column}")
    })
}

fn all_of(columns: &[String], test: impl Fn(&String) -> String) -> String {
    columns.iter().map(test).collect::<Vec<_>>().join(" and ")
}

fn any_of(columns: &[String], test: impl Fn(&String) -> String) -> String {
    columns.iter().map(test).collect::<Vec<_>>().join(" or ")
}
