//! Loads a stream into a table: read from the cursor, shape, stage, check, account, publish.

mod bounds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::{FutureExt, StreamExt};
use subak_connect::sink::{self, ChildRequest};
use subak_connect::{
    Batch, Commit, Committed, ConnectError, ConnectErrorKind, KnownFiles, Load, LoadRequest, ReadRequest, Reject, RowPrograms,
    Sink, Slice, Source, SourceItem, Staged, TableInfo, TableName, convert,
};
use subak_domain::shape::{Changes, Contract, Deletes, Naming, OnReject};
use subak_domain::write::{Latest, Tie};
use subak_domain::{
    Asset, Cursor, CursorRange, DataType, Definition, Failure, FailureClass, Ingest, NullCursor, RowAccount, StepOutcome,
    WriteMode,
};

use self::bounds::Start;
use crate::execute::{Attempt, Progress, audit_staged, guarded};
use crate::failure::{self, DATA_UNKNOWN, DATA_UNTOUCHED};
use crate::shape::{Setting, Shaped, Shaper};
use crate::stop::GRACE;

/// Rejects that a failure shows.
const REJECT_SHOWN_COUNT: usize = 5;

/// One load in progress.
pub(crate) struct Ingesting<'a> {
    pub(crate) asset: &'a Asset,
    pub(crate) ingest: &'a Ingest,
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) programs: &'a dyn RowPrograms,
    pub(crate) full_refresh: bool,
    pub(crate) range: Option<&'a CursorRange>,
    /// The part of the table that the rows take the place of.
    pub(crate) slice: Option<&'a Slice>,
    /// Rejects that are loaded after all; the source then yields exactly these, in their order.
    pub(crate) replayed: Option<&'a [String]>,
    pub(crate) attempt: &'a Attempt<'a>,
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    shaper: Option<Shaper>,
    load: Option<Box<dyn Load>>,
    /// The last batch, shaped and not written yet.
    shaped: Option<Shaped>,
    /// Rejects that came before the first batch.
    waiting: Vec<Reject>,
    first_rejects: Vec<Reject>,
    /// Whether the source yielded a batch, be it empty.
    is_read: bool,
    account: RowAccount,
    commit: Commit,
    warnings: Vec<String>,
    null_cursor_count: u64,
    /// Lines of replayed rows that were refused again.
    refused_again: BTreeSet<usize>,
}

impl Ingesting<'_> {
    pub(crate) async fn run(self) -> Result<StepOutcome, Box<Failure>> {
        let stop = self.attempt.stop;
        // An earlier attempt of this step may have committed without living to say so.
        if let Some(committed) = guarded(stop, self.sink.committed(&self.attempt.load)).await? {
            return Ok(found(&committed, committed.account, "an earlier attempt had committed this load"));
        }
        let table = TableName::of(&self.asset.key);
        let info = guarded(stop, self.sink.describe(&table)).await?;
        let start = self.start(info.as_ref())?;
        let mut reading = Reading::default();
        self.read(&table, &start, info.as_ref(), &mut reading).await?;
        if reading.load.is_none() {
            self.begin_empty(&table, &start, info.as_ref(), &mut reading).await?;
        }
        if let Some(load) = &mut reading.load {
            guarded(stop, write(load.as_mut(), reading.shaped.take())).await?;
        }
        let staged = self.stage(&start, &mut reading).await?;
        self.publish(staged, reading, &start).await
    }

    /// Reads everything and writes it into a stage. Dropping it at any await leaves the table as it was.
    async fn read(
        &self,
        table: &TableName,
        start: &Start,
        info: Option<&TableInfo>,
        reading: &mut Reading,
    ) -> Result<(), Box<Failure>> {
        let stop = self.attempt.stop;
        let mut items = self.source.read(self.read_request(start, info));
        while let Some(item) = guarded(stop, items.next().map(Option::transpose)).await? {
            match item {
                SourceItem::Batch(batch) => self.take(batch, table, start, info, reading).await?,
                SourceItem::Rejected(rejects) => {
                    reading.account.read += rejects.len() as u64;
                    self.refuse(rejects, reading).await?;
                }
                // What a program writes is there for one load.
                SourceItem::File(mark) if !matches!(self.asset.definition, Definition::Script(_)) => {
                    reading.commit.files.push(mark);
                }
                SourceItem::File(_) => {}
                SourceItem::Warning(warning) => reading.warnings.push(warning),
                SourceItem::Cursor(value) => reading.commit.cursor = Some(self.usable(value)?),
            }
        }
        Ok(())
    }

    /// Begins a load for a stream that had no rows and said nothing of its columns.
    async fn begin_empty(
        &self,
        table: &TableName,
        start: &Start,
        info: Option<&TableInfo>,
        reading: &mut Reading,
    ) -> Result<(), Box<Failure>> {
        let stop = self.attempt.stop;
        let Some(info) = info else {
            if self.ingest.columns.is_empty() {
                let message = format!("`{}` has no rows yet, and nothing says what its columns are", self.ingest.stream);
                let message = match reading.first_rejects.first() {
                    Some(first) => format!("{message}: every record was refused, the first for `{}`", first.reason),
                    None => message,
                };
                let error = ConnectError::new(ConnectErrorKind::Malformed, message);
                return Err(untouched(error.help("declare them under `columns:`, or run again when there are rows")));
            }
            let field = |(name, data_type): (&String, &DataType)| Field::new(name, convert::arrow_type(*data_type), true);
            let schema = Schema::new(self.ingest.columns.iter().map(field).collect::<Vec<_>>());
            return self.take(Batch::new(RecordBatch::new_empty(Arc::new(schema))), table, start, None, reading).await;
        };
        if let Some(slice) = self.slice.filter(|_| !reading.is_read) {
            let message = format!("`{}` has nothing for partition `{}`", self.ingest.stream, slice.partition.key);
            let error = ConnectError::new(ConnectErrorKind::NotFound, message);
            return Err(untouched(error.help("provide it, or leave the partition out")));
        }
        // What was read is empty, or nothing was there to be read; only the first makes a table empty.
        let is_emptied = reading.is_read && start.mode == WriteMode::Replace;
        let mode = match (is_emptied, self.slice) {
            (true, _) => WriteMode::Replace,
            (false, Some(_)) => WriteMode::DeleteInsert,
            (false, None) => WriteMode::Append,
        };
        let mut request = LoadRequest::new(self.attempt.load.clone(), table.clone(), self.own_schema(info), mode);
        request.slice = self.slice.cloned();
        (request.run, request.at) = (self.attempt.run.id.clone(), self.attempt.run.started_at.clone());
        if is_emptied {
            for child in &self.ingest.shape.children {
                let child = sink::child_table(table, &child.name);
                if let Some(known) = guarded(stop, self.sink.describe(&child)).await? {
                    request.children.push(ChildRequest { table: child, schema: known.schema });
                }
            }
        }
        let mut load = guarded(stop, self.sink.begin(request)).await?;
        guarded(stop, load.reject(std::mem::take(&mut reading.waiting))).await?;
        reading.load = Some(load);
        Ok(())
    }

    /// The columns of the table that come from its source.
    fn own_schema(&self, info: &TableInfo) -> SchemaRef {
        let history = &self.ingest.history;
        let is_own = |name: &String| {
            self.ingest.mode != WriteMode::Snapshot
                || ![&history.valid_from, &history.valid_to, &history.is_current].contains(&name)
        };
        let fields: Vec<_> = info.schema.fields().iter().filter(|field| is_own(field.name())).cloned().collect();
        Arc::new(Schema::new(fields))
    }

    fn read_request(&self, start: &Start, info: Option<&TableInfo>) -> ReadRequest {
        let option = self.ingest.options.get("read").map(String::as_str);
        let is_new_only = match option {
            Some(word) => word == "new",
            None => self.ingest.mode == WriteMode::Append && self.ingest.cursor.is_none(),
        };
        let is_known = !start.is_rebuilt && (self.ingest.mode == WriteMode::Append || !self.attempt.is_redefined);
        let files = info.filter(|_| is_known).map(|info| info.files.clone()).unwrap_or_default();
        let refuses_changed = self.ingest.mode == WriteMode::Append;
        let mut options = self.ingest.options.clone();
        if let Some(slice) = self.slice {
            for text in options.values_mut() {
                *text = slice.partition.fill(text, str::to_owned);
            }
        }
        ReadRequest {
            stream: self.ingest.stream.clone(),
            options,
            columns: self.ingest.columns.clone(),
            cursor: start.bound.clone(),
            known_files: (is_new_only && self.replayed.is_none()).then_some(KnownFiles { files, refuses_changed }),
            wanted: wanted(self.ingest),
        }
    }

    async fn take(
        &self,
        batch: Batch,
        table: &TableName,
        start: &Start,
        info: Option<&TableInfo>,
        reading: &mut Reading,
    ) -> Result<(), Box<Failure>> {
        let stop = self.attempt.stop;
        reading.is_read = true;
        if batch.records.num_columns() == 0 && batch.row_count() == 0 {
            // An empty list says nothing of columns.
            return Ok(());
        }
        reading.account.read += batch.row_count() as u64;
        reading.account.bytes += batch.bytes() as u64;
        self.count_null_cursors(&batch, start, reading)?;
        if reading.shaper.is_none() {
            let shaper = self.shaper(&batch.records.schema(), start, info)?;
            self.refuse_texts_in_order(&shaper.schema())?;
            let request = self.load_request(table, start, &shaper);
            let mut load = guarded(stop, self.sink.begin(request)).await?;
            let waiting = std::mem::take(&mut reading.waiting);
            if !waiting.is_empty() {
                guarded(stop, load.reject(waiting)).await?;
            }
            reading.warnings.extend(shaper.notes());
            (reading.shaper, reading.load) = (Some(shaper), Some(load));
        }
        let (Some(shaper), Some(load)) = (&mut reading.shaper, &mut reading.load) else { return Ok(()) };
        let waiting = reading.shaped.take();
        // The batch before is written by another thread while this one is shaped.
        let (written, shaped) =
            futures::future::join(guarded(stop, write(load.as_mut(), waiting)), async { shaper.run(batch) }).await;
        written?;
        let mut shaped = shaped.map_err(untouched)?;
        reading.account.filtered += shaped.filtered;
        let rejects = std::mem::take(&mut shaped.rejects);
        reading.shaped = Some(shaped);
        self.refuse(rejects, reading).await?;
        let progress = Progress { step: self.attempt.step.clone(), rows: reading.account.read, bytes: reading.account.bytes };
        self.attempt.reporter.progress(&progress);
        Ok(())
    }

    fn shaper(&self, source: &SchemaRef, start: &Start, info: Option<&TableInfo>) -> Result<Shaper, Box<Failure>> {
        let is_held =
            !start.is_rebuilt && (start.mode != WriteMode::Replace || self.ingest.shape.contract != Contract::default());
        let mut shape = self.ingest.shape.clone();
        if self.replayed.is_some() {
            // Rows that still do not fit stay where they are; the others are loaded.
            shape.on_reject = Some(OnReject::Quarantine);
            for column in &mut shape.columns {
                column.on_reject = column.on_reject.map(|_| OnReject::Quarantine);
            }
        }
        let setting = Setting {
            shape: &shape,
            primary_key: &self.ingest.primary_key,
            needs_key: self.ingest.mode.needs_key(),
            held: info.filter(|_| is_held).map(|info| info.schema.clone()),
            can_widen: self.sink.can_widen(),
            alike: self.sink.alike(),
            on_error: OnReject::Error,
            bounds: &|data_type| self.sink.bounds(data_type),
            // A first load too: which row of a key stays is decided before rows that fail the filter leave.
            deletes_on_exit: self.ingest.mode == WriteMode::Merge,
            run_values: &self.attempt.run.values(),
            programs: self.programs,
        };
        Shaper::new(&setting, source).map_err(untouched)
    }

    /// Takes refused rows: into the quarantine where that is the policy, else the first one is the error.
    async fn refuse(&self, rejects: Vec<Reject>, reading: &mut Reading) -> Result<(), Box<Failure>> {
        let Some(first) = rejects.first() else { return Ok(()) };
        reading.account.rejected += rejects.len() as u64;
        if self.replayed.is_some() {
            reading.refused_again.extend(rejects.iter().filter_map(|reject| usize::try_from(reject.line?).ok()));
            let room = REJECT_SHOWN_COUNT.saturating_sub(reading.first_rejects.len());
            reading.first_rejects.extend(rejects.into_iter().take(room));
            return Ok(());
        }
        let is_taken = self.ingest.shape.on_reject == Some(OnReject::Quarantine)
            || first.column.as_ref().is_some_and(|column| self.is_quarantined(column));
        if !is_taken {
            return Err(untouched(first.to_error()));
        }
        let room = REJECT_SHOWN_COUNT.saturating_sub(reading.first_rejects.len());
        reading.first_rejects.extend(rejects.iter().take(room).cloned());
        match &mut reading.load {
            Some(load) => guarded(self.attempt.stop, load.reject(rejects)).await,
            None => {
                reading.waiting.extend(rejects);
                Ok(())
            }
        }
    }

    /// Whether a column's own policy, or the contract, sends rows to the quarantine.
    fn is_quarantined(&self, column: &str) -> bool {
        let shape = &self.ingest.shape;
        let rule = shape.columns.iter().find(|rule| rule.name == column);
        rule.and_then(|rule| rule.on_reject) == Some(OnReject::Quarantine) || shape.contract == Contract::DiscardRow
    }

    fn count_null_cursors(&self, batch: &Batch, start: &Start, reading: &mut Reading) -> Result<(), Box<Failure>> {
        let (Some(bound), Some(rule)) = (&start.bound, &self.ingest.cursor) else { return Ok(()) };
        let Some(array) = batch.records.column_by_name(&bound.column).filter(|array| array.null_count() > 0) else {
            return Ok(());
        };
        if rule.nulls == NullCursor::Error {
            let row = (0..array.len()).find(|row| array.is_null(*row)).unwrap_or(0);
            let message = format!("the cursor column `{}` is empty ({})", bound.column, batch.place(row));
            let help = "correct the source, or set `nulls: include` or `nulls: exclude` under `cursor:`";
            return Err(untouched(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help)));
        }
        reading.null_cursor_count += array.null_count() as u64;
        Ok(())
    }

    /// Texts compare by their characters: `10` stands below `9`. Whoever wants that says so.
    fn usable(&self, cursor: Cursor) -> Result<Cursor, Box<Failure>> {
        if cursor.data_type == DataType::Text && !self.ingest.columns.contains_key(&cursor.column) {
            let message = format!("the cursor column `{}` is text, and texts compare by their characters", cursor.column);
            let error = ConnectError::new(ConnectErrorKind::Config, message);
            let help = format!(
                "declare its type under `columns:`, for example `{0}: datetime`, or `{0}: text` if that is meant",
                cursor.column
            );
            return Err(untouched(error.help(help)));
        }
        Ok(cursor)
    }

    /// Rows are not put in order by texts that nobody called texts, and not by columns that are not there.
    fn refuse_texts_in_order(&self, schema: &SchemaRef) -> Result<(), Box<Failure>> {
        let order = self.ingest.latest.iter().flat_map(|latest| &latest.order).map(|term| (&term.column, "deduplicate"));
        let history = self.ingest.history.updated_at.iter().map(|column| (column, "history.updated_at"));
        for (column, key) in order.chain(history.filter(|_| self.ingest.mode == WriteMode::Snapshot)) {
            let field = schema.field_with_name(column).map_err(|_| untouched(convert::missing_column(column, schema)))?;
            let is_said = self.ingest.shape.columns.iter().any(|rule| rule.name == *column && rule.data_type.is_some())
                || self.ingest.shape.derive.iter().any(|derived| derived.name == *column);
            let is_time = matches!(field.data_type(), ArrowType::Date32 | ArrowType::Timestamp(..));
            let message = if key == "deduplicate" && *field.data_type() == ArrowType::Utf8 && !is_said {
                format!("`deduplicate` orders by `{column}`, which is text, and texts compare by their characters")
            } else if key != "deduplicate" && !is_time {
                let data_type = convert::logical_type(field.data_type());
                format!("`{key}` is `{column}`, which is {data_type}, and a history needs a date or time")
            } else {
                continue;
            };
            let help = format!("declare its type under `columns:`, for example `{column}: datetime`");
            return Err(untouched(ConnectError::new(ConnectErrorKind::Config, message).help(help)));
        }
        Ok(())
    }

    fn load_request(&self, table: &TableName, start: &Start, shaper: &Shaper) -> LoadRequest {
        let shape = &self.ingest.shape;
        let children = shape.children.iter().zip(shaper.child_schemas());
        let changes = shape.changes.as_ref();
        LoadRequest {
            run: self.attempt.run.id.clone(),
            has_unique_key: matches!(self.ingest.mode, WriteMode::Merge | WriteMode::Snapshot),
            primary_key: self.ingest.primary_key.clone(),
            slice: self.slice.cloned(),
            overlap: start.overlap.clone(),
            latest: self.latest(),
            history: self.ingest.history.clone(),
            layout: self.ingest.layout.clone(),
            at: self.attempt.run.started_at.clone(),
            is_complete: start.is_complete,
            volatile: shape.derive.iter().filter(|derived| derived.is_volatile()).map(|derived| derived.name.clone()).collect(),
            widened: shaper.widened(),
            children: children
                .map(|(child, schema)| ChildRequest { table: sink::child_table(table, &child.name), schema })
                .collect(),
            live: changes.filter(|changes| changes.deletes == Deletes::Tombstone).map(live_rows),
            keeps_tombstones: changes.is_some_and(|changes| changes.deletes == Deletes::Remove),
            ..LoadRequest::new(self.attempt.load.clone(), table.clone(), shaper.schema(), start.mode)
        }
    }

    /// Which row of a key stays.
    fn latest(&self) -> Option<Latest> {
        let mut latest = self.ingest.latest.clone()?;
        if self.attempt.is_redefined && latest.tie == Tie::First {
            // The same rows come again in another shape, and must reach the table.
            latest.is_against_table = false;
        }
        Some(latest)
    }

    async fn stage(&self, start: &Start, reading: &mut Reading) -> Result<Box<dyn Staged>, Box<Failure>> {
        let none = || untouched(ConnectError::new(ConnectErrorKind::Internal, "the source yielded no batch"));
        let load = reading.load.take().ok_or_else(none)?;
        let staged = guarded(self.attempt.stop, load.stage()).await?;
        let rows = staged.rows();
        let account = &mut reading.account;
        account.written = rows.written;
        account.deleted = rows.deleted;
        account.overlap = rows.overlap;
        account.superseded = rows.superseded;
        account.filtered += rows.overlap + rows.superseded;
        if !account.is_balanced() {
            let message = format!(
                "{} rows were read, but {} are staged, {} refused and {} left out",
                account.read, account.written, account.rejected, account.filtered
            );
            return Err(failure::plain("SBK0319", message, DATA_UNTOUCHED, FailureClass::Internal));
        }
        if let Some(limit) = self.ingest.shape.rejects_max.filter(|limit| limit.is_exceeded(account.rejected, account.read)) {
            let message = format!("{} of {} rows were refused, and `rejects_max` is {limit}", account.rejected, account.read);
            let mut failure = failure::plain("SBK0322", message, DATA_UNTOUCHED, FailureClass::Input);
            failure.causes =
                reading.first_rejects.iter().map(|reject| format!("{}: {}", reject.place(), reject.reason)).collect();
            failure.help.push("correct the source or the declared types, or raise `rejects_max`".into());
            return Err(failure);
        }
        if reading.null_cursor_count > 0 {
            let column = start.bound.as_ref().map(|bound| bound.column.as_str()).unwrap_or_default();
            reading.warnings.push(format!("{} rows have no value in the cursor column `{column}`", reading.null_cursor_count));
        }
        Ok(staged)
    }

    async fn publish(
        &self,
        mut staged: Box<dyn Staged>,
        mut reading: Reading,
        start: &Start,
    ) -> Result<StepOutcome, Box<Failure>> {
        let checks = audit_staged(self.asset, staged.as_mut(), self.attempt).await?;
        reading.commit.cursor = self.cursor_after(start, &mut reading);
        let account = reading.account;
        reading.commit.account = Some(account);
        if account.rejected > 0 && self.ingest.history.closes_missing && start.is_complete && start.mode == WriteMode::Snapshot {
            reading.warnings.push("keys that did not arrive stay open, because rows were refused that may be theirs".to_owned());
        }
        if let Some(ids) = self.replayed {
            let is_kept = |at: &usize| !reading.refused_again.contains(&(at + 1));
            reading.commit.replayed = (0..ids.len()).filter(is_kept).map(|at| ids[at].clone()).collect();
        }
        if let Some(reason) = self.attempt.stop.reason() {
            return Err(failure::of_stop(reason, DATA_UNTOUCHED));
        }
        let committed = published(staged, reading.commit.clone(), Some(self.sink), self.attempt).await?;
        let note = match (committed.changed, account.read) {
            (true, _) => None,
            (false, 0) => Some("no new rows".to_owned()),
            (false, _) if account.rejected == account.read => Some("every row was refused".to_owned()),
            (false, _) => Some("every row was there already".to_owned()),
        };
        let mut outcome = outcome(&committed, Some(account), checks, note);
        outcome.is_new_table = self.slice.is_some() && start.is_rebuilt;
        outcome.value_changes = reading.shaper.as_ref().map(Shaper::value_changes).unwrap_or_default();
        outcome.warnings = reading.warnings;
        if account.superseded > 0 && start.mode == WriteMode::Snapshot {
            outcome.warnings.push(format!(
                "{} changed rows are older than the version that is current, and were left out",
                account.superseded
            ));
        }
        if account.rejected > 0 && self.replayed.is_none() {
            outcome
                .warnings
                .push(format!("{} rows were refused; `subak quarantine show {}` shows them", account.rejected, self.asset.key));
        }
        outcome.warnings.extend(
            reading
                .first_rejects
                .iter()
                .filter(|_| self.replayed.is_some())
                .map(|reject| format!("still refused: {}", reject.reason)),
        );
        Ok(outcome)
    }
}

/// The columns of the source that the stream needs; `None` where expressions or names may need any.
pub(crate) fn wanted(ingest: &Ingest) -> Option<BTreeSet<String>> {
    let shape = &ingest.shape;
    let selected = shape.select.as_ref()?;
    let is_plain = shape.naming == Naming::default()
        && shape.contract == Contract::default()
        && shape.derive.is_empty()
        && shape.filter.is_none()
        && shape.children.is_empty()
        && shape.changes.is_none();
    if !is_plain {
        return None;
    }
    let order = ingest.latest.iter().flat_map(|latest| &latest.order).map(|term| &term.column);
    let cursor = ingest.cursor.iter().map(|cursor| &cursor.column);
    let own = selected.iter().chain(&ingest.primary_key).chain(order).chain(&ingest.history.updated_at).chain(cursor);
    let origins = shape.columns.iter().flat_map(|rule| rule.from.iter().map(|path| &path.column));
    let rules = shape.columns.iter().map(|rule| &rule.name);
    Some(own.chain(rules).chain(origins).chain(ingest.columns.keys()).chain(&shape.dropped).cloned().collect())
}

/// Publishes. A stop waits here: dropping a publication would leave its outcome unknown. When no answer comes, the ledger is asked whether it is
/// committed.
pub(crate) async fn published(
    staged: Box<dyn Staged>,
    commit: Commit,
    sink: Option<&dyn Sink>,
    attempt: &Attempt<'_>,
) -> Result<Committed, Box<Failure>> {
    let mut failure = match attempt.stop.finish(staged.publish(commit)).await {
        Ok(Ok(committed)) => return Ok(committed),
        Ok(Err(error)) => untouched(error),
        Err(reason) => failure::of_stop(reason, DATA_UNKNOWN),
    };
    let Some(sink) = sink else { return Err(failure) };
    match tokio::time::timeout(GRACE, sink.committed(&attempt.load)).await {
        Ok(Ok(Some(committed))) => Ok(committed),
        Ok(Ok(None)) => {
            DATA_UNTOUCHED.clone_into(&mut failure.data);
            Err(failure)
        }
        _ => {
            DATA_UNKNOWN.clone_into(&mut failure.data);
            Err(failure)
        }
    }
}

/// Writes a batch and its nested lists.
async fn write(load: &mut dyn Load, shaped: Option<Shaped>) -> Result<(), ConnectError> {
    let Some(shaped) = shaped else { return Ok(()) };
    load.write(shaped.batch).await?;
    for (at, rows) in shaped.children.into_iter().enumerate().filter(|(_, rows)| rows.num_rows() > 0) {
        load.write_child(at, Batch::new(rows)).await?;
    }
    Ok(())
}

/// What tells rows from deletions.
fn live_rows(changes: &Changes) -> sink::LiveRows {
    sink::LiveRows { operation: changes.operation.clone(), deleted_when: changes.delete_when.clone() }
}

/// The outcome of a step whose load is committed.
pub(crate) fn outcome(
    committed: &Committed,
    account: Option<RowAccount>,
    checks: Vec<subak_domain::CheckOutcome>,
    note: Option<String>,
) -> StepOutcome {
    StepOutcome {
        changed: committed.changed,
        account,
        row_count: Some(committed.row_count),
        cursor: committed.cursor.clone(),
        checks,
        note,
        ..StepOutcome::default()
    }
}

/// The outcome of a step whose load was found to be committed. Whether the table was new then is not known any more: where it holds these rows and
/// no others, no other partition is in it, whatever was known of it.
pub(crate) fn found(committed: &Committed, account: Option<RowAccount>, note: &str) -> StepOutcome {
    let is_new_table = committed.written > 0 && committed.written == committed.row_count;
    StepOutcome { is_new_table, ..outcome(committed, account, Vec::new(), Some(note.to_owned())) }
}

fn untouched(error: ConnectError) -> Box<Failure> {
    failure::of_connect(&error, DATA_UNTOUCHED)
}

/// What a step knows of its run.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunContext {
    /// The run's id.
    pub(crate) id: String,
    /// When the run was made, as wall-clock text in UTC.
    pub(crate) started_at: String,
    /// The time that counts as now, as wall-clock text in the project's time zone.
    pub(crate) as_of: String,
    /// The same time as wall-clock text in UTC.
    pub(crate) as_of_utc: String,
}

impl RunContext {
    /// The literals that stand for the run in expressions.
    pub(crate) fn values(&self) -> BTreeMap<String, String> {
        let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
        BTreeMap::from([
            ("as_of".to_owned(), format!("timestamp {}", literal(&self.as_of))),
            ("run.id".to_owned(), literal(&self.id)),
            ("run.started_at".to_owned(), format!("timestamp {}", literal(&self.started_at))),
        ])
    }
}
