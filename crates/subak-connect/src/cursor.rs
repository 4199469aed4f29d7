//! Cursors over rows in memory, for sources that cannot push the bound down.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, make_comparator};
use arrow::compute::kernels::cmp::gt_eq;
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{DataType as ArrowType, Date32Type, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use subak_domain::{Cursor, DataType};

use crate::source::CursorBound;
use crate::{ConnectError, ConnectErrorKind, convert};

/// Keeps rows at or above a bound and remembers the highest value that it saw.
#[derive(Debug, Clone)]
pub struct Tracker {
    bound: CursorBound,
    highest: Option<Cursor>,
}

impl Tracker {
    /// Starts at `bound`.
    pub fn new(bound: CursorBound) -> Self {
        Self { bound, highest: None }
    }

    /// The rows at or above the bound; without a lower bound all of them, those without a value included.
    pub fn take(&mut self, records: &RecordBatch) -> Result<RecordBatch, ConnectError> {
        let schema = records.schema();
        let at = schema.index_of(&self.bound.column).map_err(|_| convert::missing_column(&self.bound.column, &schema))?;
        let message = format!("column `{}` cannot be a cursor", self.bound.column);
        let internal =
            |error: arrow::error::ArrowError| ConnectError::new(ConnectErrorKind::Internal, message.as_str()).because(error);
        let kept = match &self.bound.from {
            None => records.clone(),
            Some(from) => {
                let bound = value_of(from, records.column(at).data_type())?;
                let keep = gt_eq(records.column(at), &arrow::array::Scalar::new(bound)).map_err(internal)?;
                filter_record_batch(records, &keep).map_err(internal)?
            }
        };
        self.remember(kept.column(at)).map_err(internal)?;
        Ok(kept)
    }

    fn remember(&mut self, array: &ArrayRef) -> Result<(), arrow::error::ArrowError> {
        let compare = make_comparator(array, array, SortOptions::default())?;
        // A NaN compares above everything, and a cursor that stands on one would never move again.
        let is_nan = |row: usize| match array.data_type() {
            ArrowType::Float64 => array.as_primitive::<Float64Type>().value(row).is_nan(),
            ArrowType::Float32 => array.as_primitive::<Float32Type>().value(row).is_nan(),
            _ => false,
        };
        let best = (0..array.len()).filter(|row| array.is_valid(*row) && !is_nan(*row)).max_by(|a, b| compare(*a, *b));
        let Some(best) = best else { return Ok(()) };
        let data_type = convert::logical_type(array.data_type());
        let next = Cursor { column: self.bound.column.clone(), value: text_of(array, best), data_type };
        if self.highest.as_ref().is_none_or(|highest| next.is_after(highest)) {
            self.highest = Some(next);
        }
        Ok(())
    }

    /// The highest value so far.
    pub fn highest(self) -> Option<Cursor> {
        self.highest
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
    let text: ArrayRef = std::sync::Arc::new(StringArray::from(vec![cursor.value.as_str()]));
    let logical = convert::logical_type(data_type);
    let changed = || {
        let message =
            format!("column `{}` is {logical}, and its last value `{}` was {}", cursor.column, cursor.value, cursor.data_type);
        ConnectError::new(ConnectErrorKind::SchemaChanged, message).help("rebuild the table with `--full-refresh`")
    };
    if logical == DataType::Text {
        return arrow::compute::cast(&text, data_type).map_err(|_| changed());
    }
    let value = convert::parse_texts(text.as_string(), logical).map_err(|_| changed())?;
    arrow::compute::cast(&value, data_type).map_err(|_| changed())
}
