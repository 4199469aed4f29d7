//! Everything in memory: a source that yields given rows, and a sink that keeps tables and their ledger. The reference
//! implementation of the seams, for tests of whatever uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use subak_domain::{CheckRule, Column, Cursor, LoadId, WriteMode};

use crate::source::{ReadRequest, future_warning};
use crate::{
    Audit, AuditResult, Batch, Commit, Committed, ConnectError, ConnectErrorKind, Connection, Load, LoadRequest, Reject, Sink,
    Source, SourceItem, Staged, StagedRows, StreamInfo, TableInfo, TableName, convert,
};

/// A connection whose streams and tables live in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, RecordBatch>,
    tables: BTreeMap<TableName, (RecordBatch, Option<Cursor>)>,
    ledger: BTreeMap<LoadId, Committed>,
    rejects: BTreeMap<TableName, Vec<Reject>>,
}

impl Memory {
    /// Replaces the rows of a stream.
    pub fn set_stream(&self, name: &str, rows: RecordBatch) {
        self.lock().streams.insert(name.to_owned(), rows);
    }

    /// The rows of a table, in the order of their arrival.
    pub fn table(&self, table: &TableName) -> Option<RecordBatch> {
        self.lock().tables.get(table).map(|(rows, _)| rows.clone())
    }

    /// The rejects of a table, in the order of their arrival.
    pub fn rejects(&self, table: &TableName) -> Vec<Reject> {
        self.lock().rejects.get(table).cloned().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection for Memory {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
    fn sink(&self) -> Option<&dyn Sink> {
        Some(self)
    }
}

#[async_trait]
impl Source for Memory {
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let info = |(name, rows): (&String, &RecordBatch)| StreamInfo {
            name: name.clone(),
            columns: convert::columns_of(&rows.schema()),
            primary_key: Vec::new(),
        };
        Ok(self.lock().streams.iter().map(info).collect())
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let items = self.items(&request).unwrap_or_else(|error| vec![Err(error)]);
        stream::iter(items).boxed()
    }
}

impl Memory {
    fn items(&self, request: &ReadRequest) -> Result<Vec<Result<SourceItem, ConnectError>>, ConnectError> {
        let rows = self.lock().streams.get(&request.stream).cloned();
        let missing = || ConnectError::new(ConnectErrorKind::NotFound, format!("there is no stream `{}`", request.stream));
        let mut rows = rows.ok_or_else(missing)?;
        let mut items = Vec::new();
        let mut cursor = None;
        if let Some(bound) = &request.cursor {
            let at = rows.schema().index_of(&bound.column).map_err(|_| convert::missing_column(&bound.column, &rows.schema()))?;
            let data_type = convert::logical_type(rows.schema().field(at).data_type());
            let values: Vec<Option<String>> = column_texts(&rows, at);
            let wanted = |value: &String| {
                let compare = |bound: &Option<Cursor>| {
                    bound.as_ref().map(|bound| order(value, data_type).cmp(&order(&bound.value, data_type)))
                };
                let is_above = compare(&bound.from).is_none_or(|order| order.is_gt() || (order.is_eq() && !bound.is_lower_open));
                is_above && compare(&bound.to).is_none_or(|order| order.is_lt() || (order.is_eq() && bound.is_upper_closed))
            };
            let keep: BooleanArray =
                values.iter().map(|value| Some(value.as_ref().map_or(!bound.without_nulls, wanted))).collect();
            rows = filter_record_batch(&rows, &keep).map_err(internal)?;
            let known = column_texts(&rows, at).into_iter().flatten();
            let known = known.map(|value| Cursor { column: bound.column.clone(), value, data_type });
            let (allowed, beyond): (Vec<_>, Vec<_>) =
                known.partition(|cursor| bound.future.is_none_or(|future| future.allows(cursor)));
            let highest = |cursors: Vec<Cursor>| cursors.into_iter().max_by_key(|cursor| order(&cursor.value, data_type));
            items.extend(highest(beyond).map(|beyond| Ok(SourceItem::Warning(future_warning(&beyond)))));
            cursor = highest(allowed);
        }
        // Two batches where there are two rows, so that whoever reads must handle several.
        let middle = rows.num_rows() / 2;
        items.push(Ok(SourceItem::Batch(Batch::new(rows.slice(0, middle)))));
        items.push(Ok(SourceItem::Batch(Batch::new(rows.slice(middle, rows.num_rows() - middle)))));
        items.extend(cursor.map(|cursor| Ok(SourceItem::Cursor(cursor))));
        Ok(items)
    }
}

fn column_texts(rows: &RecordBatch, at: usize) -> Vec<Option<String>> {
    let array = rows.column(at);
    (0..rows.num_rows()).map(|row| array.is_valid(row).then(|| array_value_to_string(array, row).unwrap_or_default())).collect()
}

/// A sort key for cursor texts: integers by value, everything else by text.
fn order(value: &str, data_type: subak_domain::DataType) -> (i128, String) {
    use subak_domain::DataType as T;
    match (data_type, value.parse::<i128>()) {
        (T::SmallInt | T::Integer | T::BigInt | T::UnsignedBigInt, Ok(number)) => (number, String::new()),
        _ => (0, value.to_owned()),
    }
}

fn internal(error: arrow::error::ArrowError) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Internal, "an in-memory operation failed").because(error)
}

#[async_trait]
impl Sink for Memory {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let info = |(rows, cursor): &(RecordBatch, Option<Cursor>)| TableInfo {
            schema: rows.schema(),
            cursor: cursor.clone(),
            row_count: rows.num_rows() as u64,
            row_count_committed: None,
            files: Vec::new(),
        };
        Ok(self.lock().tables.get(table).map(info))
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let state = self.lock();
        Ok(tables.iter().filter(|table| state.tables.contains_key(table)).cloned().collect())
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        Ok(self.lock().ledger.get(load).cloned())
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        let is_supported = matches!(request.mode, WriteMode::Replace | WriteMode::Append | WriteMode::Merge)
            && request.latest.is_none()
            && request.children.is_empty()
            && !request.has_marks();
        if !is_supported {
            return Err(ConnectError::new(
                ConnectErrorKind::Config,
                "memory knows replace, append and merge, and nothing beyond",
            ));
        }
        Ok(Box::new(MemoryLoad { memory: self.clone(), request, staged: Vec::new(), rejects: Vec::new() }))
    }

    async fn clean_up(&self) -> Result<u64, ConnectError> {
        Ok(0)
    }
}

struct MemoryLoad {
    memory: Memory,
    request: LoadRequest,
    staged: Vec<RecordBatch>,
    rejects: Vec<Reject>,
}

#[async_trait]
impl Load for MemoryLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        self.staged.push(batch.records);
        Ok(())
    }

    async fn write_child(&mut self, _: usize, _: Batch) -> Result<(), ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Internal, "a load without nested lists got one"))
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        self.rejects.extend(rejects);
        Ok(())
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let staged = concat_batches(&self.request.schema, &self.staged).map_err(internal)?;
        let current =
            self.memory.table(&self.request.table).unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.request.schema)));
        let (result, overlap_count) = apply(&current, &staged, &self.request)?;
        let written = staged.num_rows() as u64 - overlap_count;
        let is_new = self.memory.table(&self.request.table).is_none();
        let changed = is_new || written > 0;
        let Self { memory, request, rejects, .. } = *self;
        Ok(Box::new(MemoryStaged { memory, request, result, written, overlap_count, changed, rejects }))
    }
}

/// The table after the load, and how many staged rows it held already.
fn apply(current: &RecordBatch, staged: &RecordBatch, request: &LoadRequest) -> Result<(RecordBatch, u64), ConnectError> {
    match request.mode {
        WriteMode::Replace => {
            refuse_bad_keys(staged, request)?;
            let is_equal =
                current.schema() == staged.schema() && count(row_texts(current, None)?) == count(row_texts(staged, None)?);
            Ok((staged.clone(), if is_equal { staged.num_rows() as u64 } else { 0 }))
        }
        WriteMode::Append => {
            let schema = union(&current.schema(), &request.schema);
            let shared: Vec<String> = current
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .filter(|name| staged.schema().index_of(name).is_ok())
                .collect();
            let staged_keys = row_texts(staged, Some(&shared))?;
            let mut held = count(row_texts(current, Some(&shared))?);
            let keep: BooleanArray = staged_keys
                .into_iter()
                .map(|key| Some(!(request.overlap.is_some() && held.get_mut(&key).is_some_and(take_one))))
                .collect();
            let added = filter_record_batch(staged, &keep).map_err(internal)?;
            let overlap_count = (staged.num_rows() - added.num_rows()) as u64;
            let (current, added) = (aligned(current, &schema)?, aligned(&added, &schema)?);
            Ok((concat_batches(&schema, [&current, &added]).map_err(internal)?, overlap_count))
        }
        WriteMode::Merge => {
            refuse_bad_keys(staged, request)?;
            let counts = count(row_texts(staged, Some(&request.primary_key))?);
            let current = aligned(current, &request.schema)?;
            let keep: BooleanArray = row_texts(&current, Some(&request.primary_key))?
                .into_iter()
                .map(|key| Some(!counts.contains_key(&key)))
                .collect();
            let kept = filter_record_batch(&current, &keep).map_err(internal)?;
            let held = count(row_texts(&current, None)?);
            let overlap = row_texts(staged, None)?.iter().filter(|row| held.contains_key(*row)).count();
            Ok((concat_batches(&request.schema, [&kept, staged]).map_err(internal)?, overlap as u64))
        }
        WriteMode::DeleteInsert | WriteMode::Snapshot => {
            Err(ConnectError::new(ConnectErrorKind::Internal, "memory was asked for a mode that it does not know"))
        }
    }
}

fn refuse_bad_keys(staged: &RecordBatch, request: &LoadRequest) -> Result<(), ConnectError> {
    if !request.has_unique_key {
        return Ok(());
    }
    let counts = count(row_texts(staged, Some(&request.primary_key))?);
    if let Some((key, _)) = counts.iter().find(|(key, _)| key.contains(&None)) {
        return Err(ConnectError::new(ConnectErrorKind::KeyNull, format!("a row has the key {key:?}")));
    }
    match counts.iter().find(|(_, count)| **count > 1) {
        Some((key, _)) => Err(ConnectError::new(ConnectErrorKind::KeyTwice, format!("two rows have the key {key:?}"))),
        None => Ok(()),
    }
}

type RowKey = Vec<Option<String>>;

fn take_one(count: &mut u64) -> bool {
    let is_there = *count > 0;
    *count = count.saturating_sub(1);
    is_there
}

fn count(keys: Vec<RowKey>) -> BTreeMap<RowKey, u64> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

fn row_texts(rows: &RecordBatch, columns: Option<&[String]>) -> Result<Vec<RowKey>, ConnectError> {
    let positions: Vec<usize> = match columns {
        None => (0..rows.num_columns()).collect(),
        Some(columns) => columns
            .iter()
            .map(|column| rows.schema().index_of(column).map_err(|_| convert::missing_column(column, &rows.schema())))
            .collect::<Result<_, _>>()?,
    };
    let columns: Vec<Vec<Option<String>>> = positions.into_iter().map(|at| column_texts(rows, at)).collect();
    Ok((0..rows.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

/// The columns of both, those of the table first.
fn union(table: &SchemaRef, staged: &SchemaRef) -> SchemaRef {
    let new = staged.fields().iter().filter(|field| table.index_of(field.name()).is_err());
    let fields: Vec<_> = table.fields().iter().chain(new).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// The rows with the columns of `schema`; columns that are missing are NULL.
fn aligned(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ConnectError> {
    let arrays = schema
        .fields()
        .iter()
        .map(|field| match rows.column_by_name(field.name()) {
            Some(array) => Arc::clone(array),
            None => arrow::array::new_null_array(field.data_type(), rows.num_rows()),
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), arrays).map_err(internal)
}

struct MemoryStaged {
    memory: Memory,
    request: LoadRequest,
    result: RecordBatch,
    written: u64,
    overlap_count: u64,
    changed: bool,
    rejects: Vec<Reject>,
}

#[async_trait]
impl Staged for MemoryStaged {
    fn rows(&self) -> StagedRows {
        StagedRows { written: self.written, overlap: self.overlap_count, ..StagedRows::default() }
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        Ok(convert::columns_of(&self.result.schema()))
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let bad_row_count = match &audit.rule {
            CheckRule::NotNull { columns } => {
                row_texts(&self.result, Some(columns))?.iter().filter(|key| key.contains(&None)).count() as u64
            }
            CheckRule::Unique { columns } => {
                let counts = count(row_texts(&self.result, Some(columns))?);
                counts.iter().filter(|(key, count)| **count > 1 && !key.contains(&None)).count() as u64
            }
            _ => return Err(ConnectError::new(ConnectErrorKind::Sql, "memory runs no SQL")),
        };
        Ok(AuditResult { bad_row_count, row_count: Some(self.result.num_rows() as u64), sample: Vec::new() })
    }

    async fn publish(self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        let mut state = self.memory.lock();
        let row_count = self.result.num_rows() as u64;
        let cursor = commit.cursor.or_else(|| {
            let is_kept = self.request.mode != WriteMode::Replace;
            state.tables.get(&self.request.table).filter(|_| is_kept).and_then(|(_, cursor)| cursor.clone())
        });
        let committed = Committed {
            written: self.written,
            row_count,
            overlap_count: self.overlap_count,
            changed: self.changed,
            cursor: cursor.clone(),
            account: commit.account,
        };
        state.rejects.entry(self.request.table.clone()).or_default().extend(self.rejects);
        state.tables.insert(self.request.table.clone(), (self.result, cursor));
        state.ledger.insert(self.request.load.clone(), committed.clone());
        Ok(committed)
    }
}

/// Builds rows of nullable 64-bit integers and texts for tests: `columns` are `(name, values)`.
pub fn rows(columns: &[(&str, &[Option<&str>])]) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, _)| Field::new(*name, ArrowType::Utf8, true)).collect();
    let arrays = columns.iter().map(|(_, values)| Arc::new(arrow::array::StringArray::from(values.to_vec())) as _).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(Schema::empty())))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;
    use crate::conformance;

    #[tokio::test]
    async fn conforms() {
        let memory = Memory::default();
        let read = |table: &TableName| {
            let rows = memory.table(table)?;
            let text = |key: RowKey| key.into_iter().map(|value| value.map(|text| text.replace('T', " "))).collect();
            let mut texts: conformance::Rows = row_texts(&rows, None).ok()?.into_iter().map(text).collect();
            texts.sort();
            Some(texts)
        };
        conformance::sink(&memory, &read).await;

        let schema = Arc::new(Schema::new(vec![Field::new("id", ArrowType::Int64, true)]));
        let ids = Arc::new(Int64Array::from(vec![9, 10, 2, 10]));
        memory.set_stream("s", RecordBatch::try_new(schema, vec![ids]).expect("rows"));
        let highest = Cursor { column: "id".to_owned(), value: "10".to_owned(), data_type: subak_domain::DataType::BigInt };
        let request = ReadRequest { stream: "s".to_owned(), ..ReadRequest::default() };
        conformance::source(&memory, request, &highest, 2).await;
    }
}
