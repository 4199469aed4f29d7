//! State beside the tables, in the destination: how far streams are read, which files and which loads are committed.

use arrow::datatypes::DataType;
use subak_connect::source::FileMark;
use subak_connect::{Committed, ConnectError, ConnectErrorKind, TableName};
use subak_domain::{Cursor, LoadId};

use super::{Session, late};

fn table(session: &dyn Session, name: &str) -> String {
    session.dialect().table(&state_table(name))
}

pub(super) fn state_table(name: &str) -> TableName {
    TableName { schema: Some("_subak".to_owned()), name: name.to_owned() }
}

/// How a table is named in the state.
pub(super) fn key_of(session: &dyn Session, table: &TableName) -> String {
    let dialect = session.dialect();
    let key = if dialect.has_schemas {
        format!("{}.{}", table.schema.as_deref().unwrap_or(dialect.schema_default), table.name)
    } else {
        dialect.plain_name(table)
    };
    dialect.literal(&key.to_lowercase())
}

/// The system's word for texts.
pub(crate) fn text_type(session: &dyn Session) -> String {
    session.sql_type(&DataType::Utf8).unwrap_or_else(|| "varchar".to_owned())
}

/// Whether there is any state.
pub(crate) fn is_there(session: &dyn Session) -> Result<bool, ConnectError> {
    Ok(session.relation(&state_table("loads"))?.is_some())
}

/// Makes the state tables unless they are there.
pub(crate) fn ensure(session: &dyn Session) -> Result<(), ConnectError> {
    if is_there(session)? {
        return Ok(());
    }
    if session.dialect().has_schemas {
        session.ensure_schema("_subak")?;
    }
    let text = text_type(session);
    session.execute(&format!(
        "create table if not exists {} (table_key {text} not null, column_name {text}, value {text}, data_type {text}, \
         row_count bigint not null, load_id {text} not null)",
        table(session, "streams")
    ))?;
    session.execute(&format!(
        "create table if not exists {} (table_key {text} not null, path {text} not null, bytes bigint not null, \
         modified_at bigint not null, hash {text} not null, load_id {text} not null)",
        table(session, "files")
    ))?;
    // Last, because it stands for all of them.
    session.execute(&format!(
        "create table if not exists {} (load_id {text} not null, table_key {text} not null, written bigint not null, \
         row_count bigint not null, overlap_count bigint not null, changed boolean not null, cursor_column {text}, \
         cursor_value {text}, cursor_type {text}, account {text})",
        table(session, "loads")
    ))?;
    Ok(())
}

/// How far the stream of a table is read, and how many rows the table had then.
pub(crate) fn stream(session: &dyn Session, of: &TableName) -> Result<(Option<Cursor>, Option<u64>), ConnectError> {
    if !is_there(session)? {
        return Ok((None, None));
    }
    let sql = format!(
        "select column_name, value, data_type, row_count from {} where table_key = {}",
        table(session, "streams"),
        key_of(session, of)
    );
    let Some(row) = session.rows(&sql, 1)?.into_iter().next() else { return Ok((None, None)) };
    let mut values = row.into_iter().map(|(_, value)| value);
    let mut next = || values.next().flatten();
    let cursor = cursor(next(), next(), next())?;
    Ok((cursor, next().and_then(|count| count.parse().ok())))
}

fn cursor(column: Option<String>, value: Option<String>, data_type: Option<String>) -> Result<Option<Cursor>, ConnectError> {
    let (Some(column), Some(value), Some(data_type)) = (column, value, data_type) else { return Ok(None) };
    let data_type = data_type.parse().map_err(|error: subak_domain::schema::InvalidDataType| {
        ConnectError::new(ConnectErrorKind::Internal, "the state holds a cursor of an unknown type").because(error)
    })?;
    Ok(Some(Cursor { column, value, data_type }))
}

/// The files that were loaded into a table.
pub(crate) fn files(session: &dyn Session, of: &TableName) -> Result<Vec<FileMark>, ConnectError> {
    if !is_there(session)? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select path, bytes, modified_at, hash from {} where table_key = {} order by path",
        table(session, "files"),
        key_of(session, of)
    );
    let mark = |row: super::TextRow| {
        let mut values = row.into_iter().map(|(_, value)| value.unwrap_or_default());
        let mut next = || values.next().unwrap_or_default();
        let path = next();
        FileMark { path, bytes: next().parse().unwrap_or(0), modified_at: next().parse().unwrap_or(0), hash: next() }
    };
    Ok(session.rows(&sql, usize::MAX)?.into_iter().map(mark).collect())
}

/// Writes cursor, files and ledger entry inside the transaction that publishes the rows. A table that was made anew loses the cursor
/// and the files that it had.
pub(crate) fn write(
    session: &dyn Session,
    load: &LoadId,
    of: &TableName,
    committed: &Committed,
    marks: &[FileMark],
    is_rebuilt: bool,
) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let key = key_of(session, of);
    let kept = if is_rebuilt || committed.cursor.is_some() { None } else { stream(session, of)?.0 };
    let cursor = committed.cursor.as_ref().or(kept.as_ref());
    let text = |value: Option<&str>| value.map_or_else(|| "null".to_owned(), |text| dialect.literal(text));
    let data_type = cursor.map(|cursor| cursor.data_type.to_string());
    let (streams, files, loads) = (table(session, "streams"), table(session, "files"), table(session, "loads"));
    session.execute(&format!("delete from {streams} where table_key = {key}"))?;
    session.execute(&format!(
        "insert into {streams} values ({key}, {}, {}, {}, {}, {})",
        text(cursor.map(|cursor| cursor.column.as_str())),
        text(cursor.map(|cursor| cursor.value.as_str())),
        text(data_type.as_deref()),
        committed.row_count,
        dialect.literal(load.as_str())
    ))?;
    if is_rebuilt {
        late::forget(session, of)?;
        session.execute(&format!("delete from {files} where table_key = {key}"))?;
    }
    for marks in marks.chunks(200) {
        let paths = marks.iter().map(|mark| dialect.literal(&mark.path)).collect::<Vec<_>>().join(", ");
        session.execute(&format!("delete from {files} where table_key = {key} and path in ({paths})"))?;
        let row = |mark: &FileMark| {
            let (path, hash) = (dialect.literal(&mark.path), dialect.literal(&mark.hash));
            format!("({key}, {path}, {}, {}, {hash}, {})", mark.bytes, mark.modified_at, dialect.literal(load.as_str()))
        };
        session.execute(&format!("insert into {files} values {}", marks.iter().map(row).collect::<Vec<_>>().join(", ")))?;
    }
    let account = committed.account.and_then(|account| serde_json::to_string(&account).ok());
    let own = committed.cursor.as_ref();
    let own_type = own.map(|cursor| cursor.data_type.to_string());
    session.execute(&format!(
        "insert into {loads} values ({}, {key}, {}, {}, {}, {}, {}, {}, {}, {})",
        dialect.literal(load.as_str()),
        committed.written,
        committed.row_count,
        committed.overlap_count,
        committed.changed,
        text(own.map(|cursor| cursor.column.as_str())),
        text(own.map(|cursor| cursor.value.as_str())),
        text(own_type.as_deref()),
        text(account.as_deref())
    ))?;
    Ok(())
}

/// The ledger's entry of a load.
pub(crate) fn committed(session: &dyn Session, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
    if !is_there(session)? {
        return Ok(None);
    }
    let sql = format!(
        "select written, row_count, overlap_count, changed, cursor_column, cursor_value, cursor_type, account from {} \
         where load_id = {}",
        table(session, "loads"),
        session.dialect().literal(load.as_str())
    );
    let Some(row) = session.rows(&sql, 1)?.into_iter().next() else { return Ok(None) };
    let mut values = row.into_iter().map(|(_, value)| value);
    let mut next = || values.next().flatten();
    let [written, row_count, overlap_count] =
        [next(), next(), next()].map(|count| count.and_then(|count| count.parse().ok()).unwrap_or(0));
    let changed = matches!(next().as_deref(), Some("true" | "t" | "1"));
    let cursor = cursor(next(), next(), next())?;
    let account = next().and_then(|text| serde_json::from_str(&text).ok());
    Ok(Some(Committed { written, row_count, overlap_count, changed, cursor, account }))
}
