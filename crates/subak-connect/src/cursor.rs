//! Cursors over rows in memory, for sources that cannot push the bound down.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, make_comparator};
use arrow::compute::kernels::cmp::{gt, gt_eq, lt, lt_eq};
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{DataType as ArrowType, Date32Type, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use subak_domain::{Cursor, DataType};

use crate::source::{CursorBound, SourceItem, future_warning};
use crate::{Batch, ConnectError, ConnectErrorKind, convert};

/// Keeps rows at or above a bound and remembers the highest value that it saw.
#[derive(Debug, Clone)]
pub struct Tracker {
    bound: CursorBound,
    highest: Option<Cursor>,
    /// The highest value in the future.
    beyond: Option<Cursor>,
}

impl Tracker {
    /// Starts at `bound`.
    pub fn new(bound: CursorBound) -> Self {
        Self { bound, highest: None, beyond: None }
    }

    /// Leaves the rows within the bounds in the batch. The cursor column counts in its declared type; a value that does not fit it stays in,
    /// whatever the bounds, and whoever converts the rows refuses it.
    pub fn keep(&mut self, batch: &mut Batch, declared: &BTreeMap<String, DataType>) -> Result<(), ConnectError> {
        let column = &self.bound.column;
        let typed = match (declared.get(column), batch.records.column_by_name(column)) {
            (Some(data_type), Some(array)) => Some(convert::convert(array, *data_type, None, column)?.array),
            _ => None,
        };
        let (records, keep) = self.take(&batch.records, typed)?;
        batch.retain(records, keep.as_ref());
        Ok(())
    }

    /// The rows within the bounds. `typed` is the cursor column in its declared type; without one, the column as it stands.
    fn take(
        &mut self,
        records: &RecordBatch,
        typed: Option<ArrayRef>,
    ) -> Result<(RecordBatch, Option<BooleanArray>), ConnectError> {
        let schema = records.schema();
        let at = schema.index_of(&self.bound.column).map_err(|_| convert::missing_column(&self.bound.column, &schema))?;
        let message = format!("column `{}` cannot be a cursor", self.bound.column);
        let internal =
            |error: arrow::error::ArrowError| ConnectError::new(ConnectErrorKind::Internal, message.as_str()).because(error);
        // Values that are not of the type.
        let misfits = match &typed {
            Some(typed) if typed.null_count() > records.column(at).null_count() => {
                let (is_null, was_null) = (arrow::compute::is_null(typed), arrow::compute::is_null(records.column(at)));
                let was_there = arrow::compute::not(&was_null.map_err(internal)?).map_err(internal)?;
                Some(arrow::compute::and(&is_null.map_err(internal)?, &was_there).map_err(internal)?)
            }
            _ => None,
        };
        let values = typed.unwrap_or_else(|| Arc::clone(records.column(at)));
        let mut keep: Option<BooleanArray> = None;
        let mut bounded = |test: BooleanArray| -> Result<(), ConnectError> {
            keep = Some(match keep.take() {
                Some(before) => arrow::compute::and(&before, &test).map_err(internal)?,
                None => test,
            });
            Ok(())
        };
        if let Some(from) = &self.bound.from {
            let from = arrow::array::Scalar::new(value_of(from, values.data_type())?);
            let test = if self.bound.is_lower_open { gt(&values, &from) } else { gt_eq(&values, &from) };
            bounded(test.map_err(internal)?)?;
        }
        if let Some(to) = &self.bound.to {
            let to = arrow::array::Scalar::new(value_of(to, values.data_type())?);
            let test = if self.bound.is_upper_closed { lt_eq(&values, &to) } else { lt(&values, &to) };
            bounded(test.map_err(internal)?)?;
        }
        let is_null = arrow::compute::is_null(&values).map_err(internal)?;
        let keep = match (keep, self.bound.without_nulls) {
            (None, false) => None,
            (None, true) => Some(arrow::compute::not(&is_null).map_err(internal)?),
            (Some(keep), true) => {
                Some(BooleanArray::from(keep.iter().map(|is_within| is_within == Some(true)).collect::<Vec<_>>()))
            }
            (Some(keep), false) => {
                let keep = BooleanArray::from(keep.iter().map(|is_within| is_within == Some(true)).collect::<Vec<_>>());
                Some(arrow::compute::or(&keep, &is_null).map_err(internal)?)
            }
        };
        let keep = match (keep, misfits) {
            (Some(keep), Some(misfits)) => Some(arrow::compute::or(&keep, &misfits).map_err(internal)?),
            (keep, _) => keep,
        };
        let Some(keep) = keep else {
            self.remember(&values).map_err(internal)?;
            return Ok((records.clone(), None));
        };
        let kept = filter_record_batch(records, &keep).map_err(internal)?;
        self.remember(&arrow::compute::filter(&values, &keep).map_err(internal)?).map_err(internal)?;
        Ok((kept, Some(keep)))
    }

    fn remember(&mut self, array: &ArrayRef) -> Result<(), arrow::error::ArrowError> {
        let compare = make_comparator(array, array, SortOptions::default())?;
        // A NaN compares above everything, and a cursor that stands on one would never move again.
        let is_nan = |row: usize| match array.data_type() {
            ArrowType::Float64 => array.as_primitive::<Float64Type>().value(row).is_nan(),
            ArrowType::Float32 => array.as_primitive::<Float32Type>().value(row).is_nan(),
            _ => false,
        };
        let data_type = convert::logical_type(array.data_type());
        let cursor = |row: usize| Cursor { column: self.bound.column.clone(), value: text_of(array, row), data_type };
        let is_usable = |row: &usize| array.is_valid(*row) && !is_nan(*row);
        let best = (0..array.len()).filter(is_usable).max_by(|a, b| compare(*a, *b)).map(cursor);
        let is_allowed = |cursor: &Cursor| self.bound.future.is_none_or(|future| future.allows(cursor));
        let (next, beyond) = match best {
            Some(best) if !is_allowed(&best) => {
                let allowed = (0..array.len()).filter(is_usable).filter(|row| is_allowed(&cursor(*row)));
                (allowed.max_by(|a, b| compare(*a, *b)).map(cursor), Some(best))
            }
            best => (best, None),
        };
        for (slot, found) in [(&mut self.highest, next), (&mut self.beyond, beyond)] {
            if let Some(found) = found
                && slot.as_ref().is_none_or(|highest| found.is_after(highest))
            {
                *slot = Some(found);
            }
        }
        Ok(())
    }

    /// The last items of a read: the highest value that a cursor may stand on, and a warning about one in the future.
    pub fn items(self) -> Vec<SourceItem> {
        let warning = self.beyond.map(|beyond| SourceItem::Warning(future_warning(&beyond)));
        warning.into_iter().chain(self.highest.map(SourceItem::Cursor)).collect()
    }
}

/// The canonical text of a value, which compares like the value.
fn text_of(array: &ArrayRef, row: usize) -> String {
    let text = match array.data_type() {
        ArrowType::Date32 => convert::format_date(array.as_primitive::<Date32Type>().value(row)),
        ArrowType::Timestamp(TimeUnit::Microsecond, zone) => {
            let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
            if zone.is_some() { convert::format_timestamp(value) } else { convert::format_datetime(value) }
        }
        _ => None,
    };
    text.unwrap_or_else(|| array_value_to_string(array, row).unwrap_or_default())
}

fn value_of(cursor: &Cursor, data_type: &ArrowType) -> Result<ArrayRef, ConnectError> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![cursor.value.as_str()]));
    let logical = convert::logical_type(data_type);
    let changed = || {
        let message =
            format!("column `{}` is {logical}, and its last value `{}` was {}", cursor.column, cursor.value, cursor.data_type);
        ConnectError::new(ConnectErrorKind::SchemaChanged, message).help("rebuild the table with `--full-refresh`")
    };
    if logical == DataType::Text {
        // Texts compare by their letters: what was a number or a time must not become one unseen.
        if !matches!(cursor.data_type, DataType::Text | DataType::Uuid | DataType::Json) {
            return Err(
                changed().help(format!("declare the type of `{}`, or rebuild the table with `--full-refresh`", cursor.column))
            );
        }
        return arrow::compute::cast(&text, data_type).map_err(|_| changed());
    }
    let value = convert::parse_texts(text.as_string(), logical, None).map_err(|_| changed())?;
    if !value.misfits.is_empty() {
        return Err(changed());
    }
    arrow::compute::cast(&value.array, data_type).map_err(|_| changed())
}
