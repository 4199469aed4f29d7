//! The quarantine: rejects of a load are staged like its rows and published with them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use subak_connect::reject::{self, RejectStatus, StoredReject};
use subak_connect::{ConnectError, ConnectErrorKind, LoadRequest, Reject, TableName};
use subak_domain::WriteMode;

use super::prepare::Prepared;
use super::{Session, Stage};

const TEXTS: [&str; 7] = ["reject_id", "reason", "column_name", "value", "file", "row_key", "row_json"];

/// Columns of a stage for rejects.
pub(crate) fn reject_stage_schema() -> SchemaRef {
    let mut fields: Vec<Field> = TEXTS.iter().map(|name| Field::new(*name, ArrowType::Utf8, true)).collect();
    fields.push(Field::new("line", ArrowType::Int64, true));
    Arc::new(Schema::new(fields))
}

/// Turns rejects into rows and gives each its identity.
#[derive(Debug, Default)]
pub(crate) struct RejectRows {
    /// How often each reject was seen in this load: equal rows without a place are told apart by their number.
    seen: HashMap<[u8; 16], u32>,
}

impl RejectRows {
    /// The rows of a stage for rejects.
    pub(crate) fn batch(&mut self, rejects: &[Reject]) -> Result<RecordBatch, ConnectError> {
        let ids: Vec<Option<String>> = rejects.iter().map(|reject| Some(self.id(reject))).collect();
        let text =
            |get: &dyn Fn(&Reject) -> Option<String>| -> ArrayRef { Arc::new(rejects.iter().map(get).collect::<StringArray>()) };
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(ids)),
            text(&|reject| Some(reject.reason.clone())),
            text(&|reject| reject.column.clone()),
            text(&|reject| reject.value.clone()),
            text(&|reject| reject.file.as_deref().map(str::to_owned)),
            text(&|reject| reject.key.clone()),
            text(&|reject| Some(reject.row.clone())),
            Arc::new(rejects.iter().map(|reject| reject.line.map(u64::cast_signed)).collect::<Int64Array>()),
        ];
        RecordBatch::try_new(reject_stage_schema(), arrays)
            .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "rejects do not fit their own schema").because(error))
    }

    fn id(&mut self, reject: &Reject) -> String {
        let mut hasher = blake3::Hasher::new();
        // The number of a row of a query is another one when a row before it is gone.
        let line = reject.line.filter(|_| reject.file.is_some()).map(|line| line.to_string());
        // A project may move: where its folder lies is not what a file is.
        let file = reject.path.as_deref().or(reject.file.as_deref());
        for part in [file, line.as_deref(), reject.column.as_deref(), Some(&reject.row)] {
            hasher.update(part.unwrap_or("\u{1e}").as_bytes());
            hasher.update(b"\x1f");
        }
        let hash = hasher.finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        let number = self.seen.entry(short).or_insert(0);
        *number += 1;
        let text = hash.to_hex();
        let text = &text[..16];
        if *number == 1 { text.to_owned() } else { format!("{text}-{number}") }
    }
}

/// Makes the quarantine when there will be something in it. Returns whether it was there.
pub(crate) fn make(session: &dyn Session, table: &TableName, reject_count: u64) -> Result<bool, ConnectError> {
    let is_there = session.relation(table)?.is_some();
    if !is_there && reject_count > 0 {
        let (name, text) = (session.dialect().table(table), super::state::text_type(session));
        session.execute(&format!(
            "create table {name} (reject_id {text} not null, run {text} not null, rejected_at {text} not null, \
             status {text} not null, resolved_at {text}, reason {text} not null, column_name {text}, value {text}, \
             file {text}, line bigint, row_key {text}, row_json {text} not null)"
        ))?;
    }
    Ok(is_there)
}

/// Enters staged rejects into the quarantine and marks those that were carried over.
pub(crate) fn publish(
    session: &dyn Session,
    stage: &Stage,
    request: &LoadRequest,
    prepared: &Prepared,
    replayed: &[String],
) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let reject_count = prepared.reject_count;
    let table = reject::table_of(&request.table);
    let (name, staged) = (dialect.table(&table), dialect.table(&stage.rejects));
    let is_there = make(session, &table, reject_count)?;
    if is_there && request.mode == WriteMode::Replace && session.relation(&stage.rejects)?.is_some() {
        // The whole stream was read again: what is not refused any more is mended.
        session.execute(&format!(
            "delete from {name} where status = 'open' and reject_id not in (select reject_id from {staged})"
        ))?;
    }
    // What was carried over stood in the table that this load makes anew: it waits again.
    let is_lost = prepared.is_rebuilt(request) || (request.mode == WriteMode::DeleteInsert && request.slice.is_none());
    if is_there && is_lost && reject_count > 0 {
        session.execute(&format!(
            "update {name} set status = 'open', resolved_at = null where status = 'replayed' and reject_id in (select reject_id from {staged})"
        ))?;
    }
    if reject_count > 0 {
        session.execute(&format!(
            "insert into {name} (reject_id, run, rejected_at, status, reason, column_name, value, file, line, row_key, row_json) \
             select reject_id, {}, {}, 'open', reason, column_name, value, file, line, row_key, row_json from {staged} \
             where reject_id not in (select reject_id from {name})",
            dialect.literal(&request.run),
            dialect.literal(&request.at)
        ))?;
    }
    if !replayed.is_empty() {
        mark(session, &table, replayed, RejectStatus::Replayed, &request.at)?;
    }
    Ok(())
}

fn mark(session: &dyn Session, table: &TableName, ids: &[String], status: RejectStatus, at: &str) -> Result<u64, ConnectError> {
    let dialect = session.dialect();
    let mut count = 0;
    for ids in ids.chunks(500) {
        let list = ids.iter().map(|id| dialect.literal(id)).collect::<Vec<_>>().join(", ");
        count += session.execute(&format!(
            "update {} set status = {}, resolved_at = {} where status = 'open' and reject_id in ({list})",
            dialect.table(table),
            dialect.literal(status.as_str()),
            dialect.literal(at)
        ))?;
    }
    Ok(count)
}

/// How many rejects a table has by status: open, replayed, discarded.
pub(crate) fn count_rejects(session: &dyn Session, table: &TableName) -> Result<[u64; 3], ConnectError> {
    let rejects = reject::table_of(table);
    if session.relation(&rejects)?.is_none() {
        return Ok([0; 3]);
    }
    let name = session.dialect().table(&rejects);
    let count = |status: RejectStatus| {
        session.count(&format!("select count(*) from {name} where status = {}", session.dialect().literal(status.as_str())))
    };
    Ok([count(RejectStatus::Open)?, count(RejectStatus::Replayed)?, count(RejectStatus::Discarded)?])
}

/// The rejects of a table with a status, oldest first.
pub(crate) fn list_rejects(
    session: &dyn Session,
    table: &TableName,
    status: RejectStatus,
    count_max: u64,
) -> Result<Vec<StoredReject>, ConnectError> {
    let rejects = reject::table_of(table);
    if session.relation(&rejects)?.is_none() {
        return Ok(Vec::new());
    }
    let dialect = session.dialect();
    let sql = format!(
        "select reject_id, run, rejected_at, status, reason, column_name, value, file, line, row_key, row_json from {} \
         where status = {} order by rejected_at, file, line, reject_id",
        dialect.table(&rejects),
        dialect.literal(status.as_str())
    );
    let rows = session.rows(&sql, usize::try_from(count_max).unwrap_or(usize::MAX))?;
    let stored = |row: super::TextRow| {
        let mut values = row.into_iter().map(|(_, value)| value);
        let mut next = || values.next().flatten();
        let [id, run, rejected_at, status] = [next(), next(), next(), next()].map(Option::unwrap_or_default);
        let reason = next().unwrap_or_default();
        let [column, value, file, line, key] = [next(), next(), next(), next(), next()];
        let row = next().unwrap_or_default();
        let line = line.and_then(|line| line.parse().ok());
        let reject = Reject { reason, column, value, file: file.map(Arc::from), line, key, row, ..Reject::default() };
        StoredReject { id, run, rejected_at, status: RejectStatus::of(&status), reject }
    };
    Ok(rows.into_iter().map(stored).collect())
}

/// Marks open rejects as discarded.
pub(crate) fn discard_rejects(session: &dyn Session, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError> {
    let rejects = reject::table_of(table);
    if session.relation(&rejects)?.is_none() {
        return Ok(0);
    }
    mark(session, &rejects, ids, RejectStatus::Discarded, at)
}
