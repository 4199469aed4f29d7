//! Where a read begins and ends, and how far the stream is read afterwards.

use std::time::Duration;

use jiff::SignedDuration;
use subak_connect::source::FutureLimit;
use subak_connect::{ConnectError, ConnectErrorKind, CursorBound, Slice, TableInfo, convert};
use subak_domain::partition::asks_for_partition;
use subak_domain::{Cursor, CursorRule, DataType, Definition, Failure, FailureClass, Lag, NullCursor, WriteMode};

use super::{Ingesting, Reading, untouched};
use crate::failure::{self, DATA_UNTOUCHED};

/// Where to begin, and how to write.
pub(super) struct Start {
    pub(super) mode: WriteMode,
    /// The committed cursor.
    pub(super) committed: Option<Cursor>,
    /// The part of the stream to read.
    pub(super) bound: Option<CursorBound>,
    /// The bound from which rows that the table holds may come again.
    pub(super) overlap: Option<Cursor>,
    /// Whether the table is made anew.
    pub(super) is_rebuilt: bool,
    /// Whether the whole stream is read.
    pub(super) is_complete: bool,
}

impl Ingesting<'_> {
    pub(super) fn start(&self, info: Option<&TableInfo>) -> Result<Start, Box<Failure>> {
        let declared = self.ingest.mode;
        // A history cannot be made anew: what the source was is gone.
        let is_refreshed = self.full_refresh && declared != WriteMode::Snapshot && self.replayed.is_none();
        let is_rebuilt = is_refreshed || info.is_none();
        if self.replayed.is_some() {
            let mode = if matches!(declared, WriteMode::Merge | WriteMode::Snapshot) { declared } else { WriteMode::Append };
            return Ok(Start {
                mode,
                committed: None,
                bound: None,
                overlap: None,
                is_rebuilt: info.is_none(),
                is_complete: false,
            });
        }
        if let Some(slice) = self.slice {
            let is_rebuilt = info.is_none();
            let mode = if is_rebuilt { WriteMode::Replace } else { WriteMode::DeleteInsert };
            let bound = self.window(slice);
            return Ok(Start { mode, committed: None, bound, overlap: None, is_rebuilt, is_complete: false });
        }
        let rule = self.ingest.cursor.as_ref();
        let committed = info
            .filter(|_| !is_rebuilt)
            .and_then(|info| info.cursor.clone())
            // Rows that are only added cannot be recognized in another shape: what was loaded stays as it is.
            .filter(|_| !self.attempt.is_redefined || declared == WriteMode::Append)
            .filter(|cursor| rule.is_some_and(|rule| rule.column == cursor.column));
        if let (Some(cursor), Some(info)) = (&committed, info) {
            self.refuse_emptied(cursor, info)?;
        }
        let bound = rule.map(|rule| self.bound(rule, committed.as_ref())).transpose()?;
        let mode = match declared {
            // A full refresh of a merge replaces the table too, but its keys are checked first.
            WriteMode::Merge | WriteMode::Snapshot if !(is_refreshed && info.is_some()) => declared,
            WriteMode::Append | WriteMode::DeleteInsert if !is_rebuilt => declared,
            _ => WriteMode::Replace,
        };
        let from = bound.as_ref().and_then(|bound| bound.from.clone());
        let overlap = match rule {
            // A table that has rows but no cursor yet is read from the beginning, so all its rows may come again.
            Some(rule) if !is_rebuilt => {
                let all = Cursor { column: rule.column.clone(), value: String::new(), data_type: DataType::Text };
                Some(from.clone().unwrap_or(all))
            }
            _ => None,
        };
        let is_complete = bound.as_ref().is_none_or(|bound| bound.from.is_none() && bound.to.is_none() && !bound.without_nulls)
            && self.ingest.options.get("read").map(String::as_str) != Some("new");
        Ok(Start { mode, committed, bound, overlap, is_rebuilt, is_complete })
    }

    /// The rows of a partition, where the source can tell them by their column: not where the partition stands in what is read already.
    fn window(&self, slice: &Slice) -> Option<CursorBound> {
        // A program knows what it was asked for: rows of other partitions are refused, and not left out.
        if matches!(self.asset.definition, Definition::Script(_)) {
            return None;
        }
        let texts = self.ingest.options.values();
        if texts.into_iter().any(|text| asks_for_partition(text)) {
            return None;
        }
        let (column, window) = slice.parts.iter().find_map(|part| Some((&part.column, part.of.window.as_ref()?)))?;
        let data_type = self.ingest.columns.get(column).copied();
        let (start, end) = match data_type {
            Some(DataType::Timestamp) => (&window.start_utc, &window.end_utc),
            _ => (&window.start, &window.end),
        };
        let value = |text: &str| {
            let data_type = data_type.unwrap_or(DataType::DateTime);
            in_type(Cursor { column: column.clone(), value: text.to_owned(), data_type })
        };
        let mut bound = CursorBound::new(column, Some(value(start)));
        (bound.to, bound.without_nulls) = (Some(value(end)), true);
        Some(bound)
    }

    /// Somebody emptied the table, or put back an older one: the cursor stands above rows that are not there any more, and reading on
    /// would never bring them back.
    fn refuse_emptied(&self, cursor: &Cursor, info: &TableInfo) -> Result<(), Box<Failure>> {
        let had_rows = info.row_count_committed.is_some_and(|count| count > 0);
        if info.row_count > 0 || !had_rows {
            return Ok(());
        }
        let message = format!(
            "`{}` is empty, and had {} rows when its stream was read up to `{}`",
            self.asset.key,
            info.row_count_committed.unwrap_or(0),
            cursor.value
        );
        let mut failure = failure::plain("SBK0323", message, DATA_UNTOUCHED, FailureClass::Input);
        failure.help.push(format!("read the stream again from its beginning: `subak run {} --full-refresh`", self.asset.key));
        Err(failure)
    }

    fn bound(&self, rule: &CursorRule, committed: Option<&Cursor>) -> Result<CursorBound, Box<Failure>> {
        let data_type = self.ingest.columns.get(&rule.column).copied();
        let mut bound = CursorBound::new(&rule.column, None);
        bound.without_nulls = rule.nulls == NullCursor::Exclude;
        bound.future = self.future(rule.future_max);
        let value = |text: &str| Cursor {
            column: rule.column.clone(),
            value: text.to_owned(),
            data_type: data_type.or(committed.map(|cursor| cursor.data_type)).unwrap_or(DataType::DateTime),
        };
        if let Some(range) = self.range {
            bound.from = range.from.as_deref().map(value);
            bound.to = range.until.as_deref().map(value);
            bound.without_nulls = true;
            return Ok(bound);
        }
        bound.is_lower_open = rule.is_lower_open && rule.lag == Lag::None;
        bound.from = committed.map(|cursor| lower(cursor, rule.lag)).transpose()?;
        if let Some(is_closed) = rule.until_run {
            let mut to = value(&self.attempt.run.as_of);
            if !matches!(to.data_type, DataType::DateTime | DataType::Timestamp | DataType::Date) {
                let message = format!("column `{}` is {}, and `until: run` needs a date or time", rule.column, to.data_type);
                return Err(untouched(ConnectError::new(ConnectErrorKind::Config, message).help("declare the column's type")));
            }
            if to.data_type == DataType::Timestamp {
                to.value.clone_from(&self.attempt.run.as_of_utc);
            }
            bound.to = Some(in_type(to));
            bound.is_upper_closed = is_closed;
        }
        Ok(bound)
    }

    /// How far the stream is read after this load. A cursor never goes back.
    pub(super) fn cursor_after(&self, start: &Start, reading: &mut Reading) -> Option<Cursor> {
        if self.range.is_some() || self.replayed.is_some() || self.slice.is_some() {
            return None;
        }
        let rule = self.ingest.cursor.as_ref()?;
        let read = match (&start.bound, rule.until_run) {
            (Some(bound), Some(_)) => bound.to.clone(),
            _ => reading.commit.cursor.take(),
        };
        match (&start.committed, read) {
            // Rows above it may have been deleted at the source.
            (Some(old), Some(new)) if !new.is_after(old) => Some(old.clone()),
            (_, Some(new)) => Some(new),
            (old, None) => old.clone(),
        }
    }

    /// The time above which values lie in the future.
    fn future(&self, future_max: Duration) -> Option<FutureLimit> {
        let room = i64::try_from(future_max.as_micros()).ok()?;
        let run = &self.attempt.run;
        Some(FutureLimit {
            wall: convert::parse_datetime(&run.as_of)?.checked_add(room)?,
            utc: convert::parse_datetime(&run.as_of_utc)?.checked_add(room)?,
        })
    }
}

/// A wall-clock text in the form of its type.
fn in_type(cursor: Cursor) -> Cursor {
    let value = match cursor.data_type {
        DataType::Date => cursor.value.get(..10).map(str::to_owned),
        DataType::Timestamp => convert::parse_datetime(&cursor.value).and_then(convert::format_timestamp),
        _ => None,
    };
    Cursor { value: value.unwrap_or(cursor.value.clone()), ..cursor }
}

/// The cursor less its lag.
fn lower(cursor: &Cursor, lag: Lag) -> Result<Cursor, Box<Failure>> {
    let earlier = match lag {
        Lag::None => return Ok(cursor.clone()),
        Lag::Time(lag) => earlier(cursor, lag),
        Lag::Count(count) => match cursor.data_type {
            DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::UnsignedBigInt => {
                cursor.value.parse::<i128>().ok().map(|value| (value - i128::from(count)).to_string())
            }
            _ => None,
        },
    };
    match earlier {
        Some(value) => Ok(Cursor { value, ..cursor.clone() }),
        None => {
            let needed = if matches!(lag, Lag::Count(_)) { "a whole number" } else { "a date or time" };
            let message = format!("column `{}` is {}, and this `lag` needs {needed}", cursor.column, cursor.data_type);
            Err(untouched(
                ConnectError::new(ConnectErrorKind::Config, message).help("remove `lag`, or declare the column's type"),
            ))
        }
    }
}

fn earlier(cursor: &Cursor, lag: Duration) -> Option<String> {
    let lag = SignedDuration::try_from(lag).ok()?;
    let micros = i64::try_from(lag.as_micros()).ok()?;
    Some(match cursor.data_type {
        DataType::DateTime => {
            // In the form of the source: SQLite, for one, compares these texts.
            let text = convert::format_datetime(convert::parse_datetime(&cursor.value)?.checked_sub(micros)?)?;
            if cursor.value.contains('T') { text.replace(' ', "T") } else { text }
        }
        DataType::Timestamp => convert::format_timestamp(convert::parse_timestamp(&cursor.value)?.checked_sub(micros)?)?,
        DataType::Date => {
            let days = lag.as_secs().div_euclid(86_400) + i64::from(lag.as_secs() % 86_400 != 0);
            let date: jiff::civil::Date = cursor.value.parse().ok()?;
            date.checked_sub(jiff::Span::new().try_days(days).ok()?).ok()?.to_string()
        }
        _ => return None,
    })
}
