//! Loads a stream into a table: read from the cursor, convert, stage, check, account, publish.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::{FutureExt, StreamExt};
use jiff::SignedDuration;
use subak_connect::source::{CursorBound, ReadRequest};
use subak_connect::{
    Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Sink, Source, SourceItem, Staged, TableInfo, TableName, convert,
};
use subak_domain::{Asset, Cursor, DataType, Failure, FailureClass, Ingest, RowAccount, StepOutcome, WriteMode};

use crate::execute::{Attempt, Progress, audit_staged, guarded};
use crate::failure::{self, DATA_UNTOUCHED};

/// One load in progress.
pub(crate) struct Ingesting<'a> {
    pub(crate) asset: &'a Asset,
    pub(crate) ingest: &'a Ingest,
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) full_refresh: bool,
    pub(crate) attempt: &'a Attempt<'a>,
}

/// Where to begin, and how to write.
struct Start {
    mode: WriteMode,
    /// The committed cursor.
    committed: Option<Cursor>,
    /// The lowest wanted value: the committed cursor less the lag.
    from: Option<Cursor>,
    /// Whether rows that the table holds may come again.
    may_overlap: bool,
}

impl Ingesting<'_> {
    pub(crate) async fn run(self) -> Result<StepOutcome, Box<Failure>> {
        let stop = self.attempt.stop;
        // An earlier attempt of this step may have committed without living to say so.
        if let Some(committed) = guarded(stop, self.sink.committed(&self.attempt.load)).await? {
            return Ok(outcome(&committed, None, Vec::new(), Some("an earlier attempt had committed this load".to_owned())));
        }
        let table = TableName::of(&self.asset.key);
        let info = guarded(stop, self.sink.describe(&table)).await?;
        let start = self.start(info.as_ref())?;
        let (staged, account, cursor) = self.stage(table, &start).await?;
        self.publish(staged, account, cursor, &start).await
    }

    fn start(&self, info: Option<&TableInfo>) -> Result<Start, Box<Failure>> {
        let is_rebuilt = self.full_refresh || info.is_none();
        let rule = self.ingest.cursor.as_ref();
        let committed = info
            .filter(|_| !is_rebuilt)
            .and_then(|info| info.cursor.clone())
            .filter(|cursor| !self.attempt.is_redefined && rule.is_some_and(|rule| rule.column == cursor.column));
        let from = match (&committed, rule) {
            (Some(cursor), Some(rule)) => Some(lower(cursor, rule.lag)?),
            _ => None,
        };
        let mode = if is_rebuilt && self.ingest.mode != WriteMode::Merge { WriteMode::Replace } else { self.ingest.mode };
        // A full refresh of a merge replaces the table too, but its keys are checked first.
        let mode = if self.full_refresh && info.is_some() { WriteMode::Replace } else { mode };
        Ok(Start { mode, committed, from, may_overlap: !is_rebuilt && rule.is_some() })
    }

    /// Reads everything and stages it. Dropping it at any await leaves the table as it was.
    async fn stage(
        &self,
        table: TableName,
        start: &Start,
    ) -> Result<(Box<dyn Staged>, RowAccount, Option<Cursor>), Box<Failure>> {
        let stop = self.attempt.stop;
        let request = ReadRequest {
            stream: self.ingest.stream.clone(),
            options: self.ingest.options.clone(),
            columns: self.ingest.columns.clone(),
            cursor: self.ingest.cursor.as_ref().map(|rule| CursorBound { column: rule.column.clone(), from: start.from.clone() }),
        };
        let mut items = self.source.read(request);
        let (mut account, mut cursor, mut load) = (RowAccount::default(), None, None);
        while let Some(item) = guarded(stop, items.next().map(Option::transpose)).await? {
            match item {
                SourceItem::Batch(batch) => {
                    let batch = convert::to_declared(batch, &self.ingest.columns).map_err(untouched)?;
                    account.read += batch.row_count() as u64;
                    account.bytes += batch.bytes() as u64;
                    let load = match &mut load {
                        Some(load) => load,
                        none => none.insert(self.begin(&table, batch.records.schema(), start).await?),
                    };
                    guarded(stop, load.write(batch)).await?;
                    let progress = Progress { step: self.attempt.step.clone(), rows: account.read, bytes: account.bytes };
                    self.attempt.reporter.progress(&progress);
                }
                SourceItem::Cursor(value) => cursor = Some(self.usable(value)?),
            }
        }
        let none = || untouched(ConnectError::new(ConnectErrorKind::Internal, "the source yielded no batch"));
        let staged = guarded(stop, load.ok_or_else(none)?.stage()).await?;
        let rows = staged.rows();
        (account.written, account.filtered) = (rows.written, rows.overlap);
        if !account.is_balanced() {
            let message = format!(
                "{} rows were read, but {} are staged and {} were there already",
                account.read, account.written, account.filtered
            );
            return Err(failure::plain("SBK0319", message, DATA_UNTOUCHED, FailureClass::Internal));
        }
        Ok((staged, account, cursor))
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

    async fn begin(&self, table: &TableName, schema: SchemaRef, start: &Start) -> Result<Box<dyn Load>, Box<Failure>> {
        let declared = self.ingest.primary_key.iter().chain(self.ingest.cursor.as_ref().map(|rule| &rule.column));
        for column in declared {
            if schema.index_of(column).is_err() {
                return Err(untouched(convert::missing_column(column, &schema)));
            }
        }
        let request = LoadRequest {
            load: self.attempt.load.clone(),
            table: table.clone(),
            schema,
            mode: start.mode,
            has_unique_key: self.ingest.mode == WriteMode::Merge,
            primary_key: self.ingest.primary_key.clone(),
            overlap: start.from.clone().filter(|_| start.may_overlap).or_else(|| self.unbounded_overlap(start)),
        };
        guarded(self.attempt.stop, self.sink.begin(request)).await
    }

    /// A table that has rows but no cursor yet is read from the beginning, so all its rows may come again.
    fn unbounded_overlap(&self, start: &Start) -> Option<Cursor> {
        let rule = self.ingest.cursor.as_ref().filter(|_| start.may_overlap)?;
        Some(Cursor { column: rule.column.clone(), value: String::new(), data_type: DataType::Text })
    }

    async fn publish(
        &self,
        mut staged: Box<dyn Staged>,
        account: RowAccount,
        cursor: Option<Cursor>,
        start: &Start,
    ) -> Result<StepOutcome, Box<Failure>> {
        let checks = audit_staged(self.asset, staged.as_mut(), self.attempt.stop).await?;
        // A cursor never goes back: rows above it may have been deleted at the source.
        let cursor = match (&start.committed, cursor) {
            (Some(old), Some(new)) if !new.is_after(old) => Some(old.clone()),
            (_, Some(new)) => Some(new),
            (old, None) => old.clone(),
        };
        if let Some(reason) = self.attempt.stop.reason() {
            return Err(failure::of_stop(reason, DATA_UNTOUCHED));
        }
        // From here on a stop waits: dropping a publication would leave its outcome unknown.
        let committed = match staged.publish(cursor).await {
            Ok(committed) => committed,
            Err(error) => match self.sink.committed(&self.attempt.load).await {
                Ok(Some(committed)) => committed,
                _ => return Err(untouched(error)),
            },
        };
        let note = match (committed.changed, account.read) {
            (true, _) => None,
            (false, 0) => Some("no new rows".to_owned()),
            (false, _) => Some("every row was there already".to_owned()),
        };
        Ok(outcome(&committed, Some(account), checks, note))
    }
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

fn untouched(error: ConnectError) -> Box<Failure> {
    failure::of_connect(&error, DATA_UNTOUCHED)
}

/// The cursor less its lag. A lag is a time, so the column must be one too.
fn lower(cursor: &Cursor, lag: Duration) -> Result<Cursor, Box<Failure>> {
    if lag.is_zero() {
        return Ok(cursor.clone());
    }
    let earlier = || -> Option<String> {
        let lag = SignedDuration::try_from(lag).ok()?;
        Some(match cursor.data_type {
            DataType::DateTime => {
                let microseconds = convert::parse_datetime(&cursor.value)?.checked_sub(i64::try_from(lag.as_micros()).ok()?)?;
                // In the form of the source: SQLite, for one, compares these texts.
                let text = convert::format_datetime(microseconds)?;
                if cursor.value.contains('T') { text.replace(' ', "T") } else { text }
            }
            DataType::Timestamp => convert::format_timestamp(
                convert::parse_timestamp(&cursor.value)?.checked_sub(i64::try_from(lag.as_micros()).ok()?)?,
            )?,
            DataType::Date => {
                let days = lag.as_secs().div_euclid(86_400) + i64::from(lag.as_secs() % 86_400 != 0);
                let date: jiff::civil::Date = cursor.value.parse().ok()?;
                date.checked_sub(jiff::Span::new().try_days(days).ok()?).ok()?.to_string()
            }
            _ => return None,
        })
    };
    match earlier() {
        Some(value) => Ok(Cursor { value, ..cursor.clone() }),
        None => {
            let message = format!("column `{}` is {}, and a `lag` needs a date or time", cursor.column, cursor.data_type);
            Err(untouched(
                ConnectError::new(ConnectErrorKind::Config, message).help("remove `lag`, or declare the column's type"),
            ))
        }
    }
}
