//! Columns that came after rows. A row at the bound of an incremental append is read again, now with a value in a column that its copy in the
//! table has no value in: such a row is the same row, and must not be added a second time. So the state knows which rows were there before
//! a column: those up to a value of the cursor column.

use subak_connect::{ConnectError, Dialect, LoadRequest, TableName};
use subak_domain::WriteMode;

use super::state::{self, key_of};
use super::{Prepared, Session, contains};

/// A column, and the highest value of the cursor column among the rows that were there before it.
struct Late {
    column: String,
    /// `None` where no row had a value.
    highest: Option<String>,
}

fn table() -> TableName {
    state::state_table("late_columns")
}

/// Makes the table of such columns unless it is there.
pub(super) fn ensure(session: &dyn Session) -> Result<(), ConnectError> {
    let text = state::text_type(session);
    let name = session.dialect().table(&table());
    let columns = format!("table_key {text} not null, column_name {text} not null, highest {text}, load_id {text} not null");
    session.execute(&format!("create table if not exists {name} ({columns})")).map(drop)
}

/// Statements that note the columns which an append is about to add. They are run before the columns come.
pub(super) fn notes(session: &dyn Session, request: &LoadRequest, prepared: &Prepared) -> Result<Vec<String>, ConnectError> {
    let Some(cursor) = cursor_column(request, prepared) else { return Ok(Vec::new()) };
    let added = prepared.added();
    if added.is_empty() {
        return Ok(Vec::new());
    }
    ensure(session)?;
    let dialect = session.dialect();
    let highest = dialect.text_of(&format!("max({})", dialect.identifier(cursor)));
    let rows = session.rows(&format!("select {highest} as highest from {}", prepared.target), 1)?;
    let highest = rows.into_iter().next().and_then(|row| row.into_iter().next()?.1);
    let highest = highest.map_or_else(|| "null".to_owned(), |text| dialect.literal(&text));
    let (name, key) = (dialect.table(&table()), key_of(session, &request.table));
    let mut statements = Vec::new();
    for column in added {
        let column = dialect.literal(&column.to_lowercase());
        statements.push(format!("delete from {name} where table_key = {key} and column_name = {column}"));
        let values = [key.as_str(), &column, &highest, &dialect.literal(request.load.as_str())].join(", ");
        statements.push(format!("insert into {name} values ({values})"));
    }
    Ok(statements)
}

/// Forgets the columns of a table that is made anew.
pub(super) fn forget(session: &dyn Session, of: &TableName) -> Result<(), ConnectError> {
    if session.relation(&table())?.is_none() {
        return Ok(());
    }
    let name = session.dialect().table(&table());
    session.execute(&format!("delete from {name} where table_key = {}", key_of(session, of))).map(drop)
}

/// What takes the places of columns when rows are compared: NULL, for rows that may have been there before a column was.
pub(super) fn compared_as(
    session: &dyn Session,
    request: &LoadRequest,
    prepared: &Prepared,
) -> Result<Vec<(String, String)>, ConnectError> {
    let dialect = session.dialect();
    let Some(cursor) = cursor_column(request, prepared) else { return Ok(Vec::new()) };
    let late = of(session, &request.table)?;
    let is_number = request.schema.field_with_name(cursor).is_ok_and(|field| field.data_type().is_numeric());
    let item = |column: &String| {
        let late = late.iter().find(|late| late.column == column.to_lowercase())?;
        Some((column.clone(), expression(dialect, column, cursor, late.highest.as_deref(), is_number)))
    };
    Ok(prepared.compared(request).iter().filter_map(item).collect())
}

/// A column where a row came after it, else NULL.
pub(crate) fn expression(dialect: &Dialect, column: &str, cursor: &str, highest: Option<&str>, is_number: bool) -> String {
    let (column, cursor) = (dialect.identifier(column), dialect.identifier(cursor));
    match highest {
        None => format!("case when {cursor} is not null then {column} end"),
        Some(highest) if is_number && highest.parse::<f64>().is_ok_and(f64::is_finite) => {
            format!("case when {cursor} > {highest} then {column} end")
        }
        Some(highest) => format!("case when {cursor} > {} then {column} end", dialect.literal(highest)),
    }
}

/// The cursor column of an append whose rows may be there already.
fn cursor_column<'a>(request: &'a LoadRequest, prepared: &Prepared) -> Option<&'a str> {
    let cursor = request.overlap.as_ref().filter(|_| request.mode == WriteMode::Append)?;
    let held = prepared.held_columns.as_deref().unwrap_or_default();
    contains(held, &cursor.column).then_some(cursor.column.as_str())
}

fn of(session: &dyn Session, of: &TableName) -> Result<Vec<Late>, ConnectError> {
    if session.relation(&table())?.is_none() {
        return Ok(Vec::new());
    }
    let name = session.dialect().table(&table());
    let sql = format!("select column_name, highest from {name} where table_key = {}", key_of(session, of));
    let late = |row: super::TextRow| {
        let mut values = row.into_iter().map(|(_, value)| value);
        Some(Late { column: values.next()??, highest: values.next()? })
    };
    Ok(session.rows(&sql, usize::MAX)?.into_iter().filter_map(late).collect())
}
