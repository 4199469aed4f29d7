//! The SQL of a load, for systems with transactions: rows go to a stage table, are compared with the table, and are published in
//! one transaction. What differs between systems is a [`Session`]; everything else is here once.

mod build;
mod history;
pub(crate) mod late;
mod merge;
mod prepare;
mod publish;
mod rejects;
pub(crate) mod state;
mod surrogate;

use arrow::datatypes::DataType as ArrowType;
use subak_connect::{Audit, AuditResult, Committed, ConnectError, ConnectErrorKind, Dialect, LoadRequest, TableName};
use subak_domain::LoadId;

pub(crate) use self::build::{load_of, stage_query};
pub(crate) use self::merge::tombstones;
pub(crate) use self::prepare::{Prepared, have_other_rows, prepare};
pub(crate) use self::publish::{Script, live_name, publish, publish_view, script, script_of_children, stripped};
pub(crate) use self::rejects::{
    RejectRows, count_rejects, discard_rejects, list_rejects, make as make_rejects, publish as publish_rejects,
    reject_stage_schema,
};
pub(crate) use self::surrogate::assign as assign_surrogate_keys;

/// Stage tables begin with this, so that leftovers can be found.
pub(crate) const STAGE_PREFIX: &str = "__subak_stage_";

/// One row as pairs of column name and text; NULL is `None`.
pub(crate) type TextRow = Vec<(String, Option<String>)>;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelationKind {
    /// Rows.
    Table,
    /// A query.
    View,
    /// A query and the rows that it returned when it was run last.
    MaterializedView,
}

impl RelationKind {
    /// The word behind `drop`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
        }
    }

    /// A view or not.
    pub(crate) fn view(is_view: bool) -> Self {
        if is_view { Self::View } else { Self::Table }
    }
}

/// A table or view that is there.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    /// What it is.
    pub(crate) kind: RelationKind,
    /// Its columns with their types in the system's own words, in order.
    pub(crate) columns: Vec<(String, String)>,
}

impl Relation {
    /// Whether it is a query, so that rows cannot be loaded into it.
    pub(crate) fn is_view(&self) -> bool {
        self.kind != RelationKind::Table
    }
}

/// One connection to a SQL system, as far as staging needs it.
pub(crate) trait Session {
    /// How it writes SQL.
    fn dialect(&self) -> &'static Dialect;
    /// Runs one statement. Returns how many rows it changed, where the system says so.
    fn execute(&self, sql: &str) -> Result<u64, ConnectError>;
    /// The first rows of a query as texts.
    fn rows(&self, sql: &str, count_max: usize) -> Result<Vec<TextRow>, ConnectError>;
    /// What stands under a name.
    fn relation(&self, table: &TableName) -> Result<Option<Relation>, ConnectError>;
    /// The system's word for a type; `None` when it has none that holds the values exactly.
    fn sql_type(&self, data_type: &ArrowType) -> Option<String>;
    /// Statements that give a table which was made anew what the one before it had beside rows: comments, indexes, triggers.
    fn keepsakes(&self, table: &TableName) -> Result<Vec<String>, ConnectError>;

    /// Makes a schema unless it is there.
    fn ensure_schema(&self, name: &str) -> Result<(), ConnectError> {
        self.execute(&format!("create schema if not exists {}", self.dialect().identifier(name))).map(drop)
    }

    /// Whether something refers to the table itself and not to its name, so that no other table can take its place: its rows are then
    /// replaced in it.
    fn is_bound(&self, _table: &TableName) -> Result<bool, ConnectError> {
        Ok(false)
    }

    /// Fails when rows of the table cannot be deleted and inserted anew without doing something to other tables.
    fn refuse_referenced(&self, _table: &TableName) -> Result<(), ConnectError> {
        Ok(())
    }

    /// The number in the first column of the first row.
    fn count(&self, sql: &str) -> Result<u64, ConnectError> {
        let rows = self.rows(sql, 1)?;
        let text = rows.first().and_then(|row| row.first()).and_then(|(_, value)| value.as_deref());
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// The tables of one load.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// Where rows wait.
    pub(crate) rows: TableName,
    /// Where rejects wait.
    pub(crate) rejects: TableName,
    /// Keys that are gone from the source.
    pub(crate) gone: TableName,
    /// Deletions of a load that makes the table anew.
    pub(crate) deletions: TableName,
    /// Where rows of nested lists wait.
    pub(crate) children: Vec<TableName>,
}

impl Stage {
    /// The names for a load. They stand in the schema of the table, because some systems rename within a schema only.
    pub(crate) fn new(dialect: &Dialect, load: &LoadId, table: &TableName, child_count: usize) -> Self {
        let schema = if dialect.has_schemas { table.schema.clone() } else { None };
        let named = |suffix: &str| TableName { schema: schema.clone(), name: format!("{STAGE_PREFIX}{}{suffix}", load.tag()) };
        let children = (0..child_count).map(|child| named(&format!("_c{child}"))).collect();
        Self { rows: named(""), rejects: named("_r"), gone: named("_g"), deletions: named("_d"), children }
    }

    /// All of them.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &TableName> {
        [&self.rows, &self.rejects, &self.gone, &self.deletions].into_iter().chain(&self.children)
    }

    /// Drops whatever of them is there.
    pub(crate) fn drop_all(&self, session: &dyn Session) -> Result<(), ConnectError> {
        for table in self.tables() {
            if let Some(relation) = session.relation(table)? {
                let word = relation.kind.word();
                session.execute(&format!("drop {word} {}", session.dialect().table(table)))?;
            }
        }
        Ok(())
    }
}

/// What an earlier attempt had committed of this load, although nobody heard of it or waited for it; then the transaction that is open ends
/// with nothing done, and the stage goes.
pub(crate) fn committed_before(session: &dyn Session, stage: &Stage, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
    let Some(committed) = state::committed(session, load)? else { return Ok(None) };
    session.execute("rollback")?;
    stage.drop_all(session)?;
    Ok(Some(committed))
}

/// Evaluates a check on `table`, which is quoted or a subquery; `None` for a check that names its tables itself.
pub(crate) fn audit(
    session: &dyn Session,
    table: Option<&str>,
    audit: &Audit,
    sample_max: usize,
) -> Result<AuditResult, ConnectError> {
    let dialect = session.dialect();
    let query = dialect.bad_rows(audit, table.unwrap_or_default());
    let bad_row_count = session.count(&format!("select count(*) from (\n{query}\n) as __subak_bad"))?;
    let row_count = match (table, &audit.filter) {
        (None, _) => None,
        (Some(table), None) => Some(session.count(&format!("select count(*) from {table} as t"))?),
        (Some(table), Some(filter)) => Some(session.count(&format!("select count(*) from {table} as t where {filter}"))?),
    };
    let mut sample = Vec::new();
    if bad_row_count > 0 {
        for row in session.rows(&format!("select * from (\n{query}\n) as __subak_bad"), sample_max)? {
            sample.push(row_text(&row));
        }
    }
    Ok(AuditResult { bad_row_count, row_count, sample })
}

/// A row as `column=value` texts.
pub(crate) fn row_text(row: &[(String, Option<String>)]) -> String {
    let parts: Vec<String> = row.iter().map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("NULL"))).collect();
    parts.join(", ")
}

/// The columns of a `create table`. `Err` names a column for whose values the system has no exact type.
pub(crate) fn column_list(session: &dyn Session, schema: &arrow::datatypes::Schema) -> Result<String, ConnectError> {
    let dialect = session.dialect();
    let column = |field: &arrow::datatypes::FieldRef| {
        let refused = || {
            let message = format!("{} has no exact type for column `{}` ({})", dialect.name, field.name(), field.data_type());
            ConnectError::new(ConnectErrorKind::ValueMisfit, message)
                .help(format!("declare it under `columns:`, for example `{}: text`", field.name()))
        };
        Ok(format!("{} {}", dialect.identifier(field.name()), session.sql_type(field.data_type()).ok_or_else(refused)?))
    };
    Ok(schema.fields().iter().map(column).collect::<Result<Vec<_>, ConnectError>>()?.join(", "))
}

/// Makes the stage tables of a load: rows, rejects, nested lists.
pub(crate) fn make(session: &dyn Session, stage: &Stage, request: &LoadRequest) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let columns = column_list(session, &request.schema)?;
    let number = dialect.row_column.map_or_else(String::new, |(name, kind)| format!(", {} {kind}", dialect.identifier(name)));
    session.execute(&format!("create table {} ({columns}{number})", dialect.table(&stage.rows)))?;
    let rejects = reject_stage_schema();
    session.execute(&format!("create table {} ({})", dialect.table(&stage.rejects), column_list(session, &rejects)?))?;
    for (table, child) in stage.children.iter().zip(&request.children) {
        session.execute(&format!("create table {} ({})", dialect.table(table), column_list(session, &child.schema)?))?;
    }
    Ok(())
}

/// The name for the number of a row that no column hides.
fn row_id(dialect: &Dialect, columns: &[String]) -> Result<&'static str, ConnectError> {
    let is_column = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    dialect.row_ids.iter().copied().find(|name| !is_column(name)).ok_or_else(|| {
        let message = format!("a column named `{}` hides the number of a row", dialect.row_ids[0]);
        ConnectError::new(ConnectErrorKind::Config, message).help("rename the column in the source")
    })
}

fn all_of(columns: &[String], test: impl Fn(&String) -> String) -> String {
    columns.iter().map(test).collect::<Vec<_>>().join(" and ")
}

fn any_of(columns: &[String], test: impl Fn(&String) -> String) -> String {
    columns.iter().map(test).collect::<Vec<_>>().join(" or ")
}

fn contains(columns: &[String], name: &str) -> bool {
    columns.iter().any(|column| column.eq_ignore_ascii_case(name))
}

/// The error for a column whose type no longer fits the table.
fn type_changed(table: &TableName, column: &str, held: &str, arriving: &str) -> ConnectError {
    let message = format!("column `{column}` of `{table}` is {held} and arrives as {arriving}");
    ConnectError::new(ConnectErrorKind::SchemaChanged, message)
        .help(format!("declare the type of `{column}` under `columns:`, or rebuild the table with `--full-refresh`"))
}

/// What an incremental build does about columns that only its query or only its table has.
pub(crate) fn follow_schema_change(
    session: &dyn Session,
    stage: &Stage,
    rule: &subak_connect::sql::Incremental,
    held: &Relation,
    load: &mut LoadRequest,
) -> Result<(), ConnectError> {
    use subak_domain::SchemaChange;
    let dialect = session.dialect();
    let staged: Vec<String> = session
        .relation(&stage.rows)?
        .map(|relation| relation.columns)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let own = history::columns(load);
    let known: Vec<String> = held.columns.iter().map(|(name, _)| name.clone()).filter(|name| !contains(&own, name)).collect();
    let added: Vec<&String> = staged.iter().filter(|column| !contains(&known, column)).collect();
    let gone: Vec<String> = known.iter().filter(|column| !contains(&staged, column)).cloned().collect();
    match rule.on_schema_change {
        SchemaChange::Append => {}
        SchemaChange::Sync => load.removed = gone,
        SchemaChange::Ignore => {
            for column in added {
                session.execute(&format!(
                    "alter table {} drop column {}",
                    dialect.table(&stage.rows),
                    dialect.identifier(column)
                ))?;
            }
        }
        SchemaChange::Fail if added.is_empty() && gone.is_empty() => {}
        SchemaChange::Fail => {
            let list = |names: Vec<&String>| names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let mut parts = Vec::new();
            if !added.is_empty() {
                parts.push(format!("its query returns {} besides", list(added)));
            }
            if !gone.is_empty() {
                parts.push(format!("its query does not return {}", list(gone.iter().collect())));
            }
            let message = format!("the columns of `{}` changed: {}", load.table, parts.join(", and "));
            return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message)
                .help("set `on_schema_change:` to `append`, `sync` or `ignore`, or rebuild the table with `--full-refresh`"));
        }
    }
    Ok(())
}
