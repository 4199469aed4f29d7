//! Values of DuckDB that have no place in Arrow's types: infinite dates and times, the end of a day as a time of it, whole numbers of more digits
//! than a decimal has. Arrow's arrays carry them as they lie in memory, so that they would be read as other values.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Schema, SchemaRef, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use subak_connect::Batch;
use subak_connect::batch::{MAY_MISFIT, Misfit};

/// The first whole number with 39 digits.
const DECIMAL_END: i128 = 10_i128.pow(38);
const DAY_MICROS: i64 = 86_400_000_000;

/// The rows with NULL in the place of such values, which are told beside them.
pub(super) fn without(records: RecordBatch) -> Result<Batch, ArrowError> {
    let schema = marked(&records.schema());
    let mut misfits = Vec::new();
    let mut columns = Vec::with_capacity(records.num_columns());
    for (at, array) in records.columns().iter().enumerate() {
        let mut found = Found { column: at, misfits: &mut misfits };
        columns.push(match array.data_type() {
            DataType::Date32 => found.take::<Date32Type>(array, |days| infinity(days, i32::MAX).map(|text| (text, "not a date"))),
            DataType::Time64(TimeUnit::Microsecond) => found.take::<Time64MicrosecondType>(array, |micros| {
                (micros >= DAY_MICROS).then(|| ("24:00:00".to_owned(), "not a time of a day"))
            }),
            DataType::Timestamp(TimeUnit::Second, _) => found.take::<TimestampSecondType>(array, moment),
            DataType::Timestamp(TimeUnit::Millisecond, _) => found.take::<TimestampMillisecondType>(array, moment),
            DataType::Timestamp(TimeUnit::Microsecond, _) => found.take::<TimestampMicrosecondType>(array, moment),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => found.take::<TimestampNanosecondType>(array, moment),
            DataType::Decimal128(38, 0) => found.take::<Decimal128Type>(array, |number| {
                let is_long = number >= DECIMAL_END || number <= -DECIMAL_END;
                is_long.then(|| (number.to_string(), "more than 38 digits"))
            }),
            _ => Arc::clone(array),
        });
    }
    misfits.sort_by_key(|misfit| (misfit.row, misfit.column));
    Ok(Batch { misfits, ..Batch::new(RecordBatch::try_new(schema, columns)?) })
}

/// The schema, in which the columns that may have such values are marked.
fn marked(schema: &SchemaRef) -> SchemaRef {
    let mark = |field: &Arc<Field>| match field.data_type() {
        DataType::Date32 | DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(..) | DataType::Decimal128(38, 0) => {
            let metadata = HashMap::from([(MAY_MISFIT.to_owned(), "true".to_owned())]);
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        }
        _ => Arc::clone(field),
    };
    Schema::new_with_metadata(schema.fields().iter().map(mark).collect::<Vec<_>>(), schema.metadata().clone()).into()
}

struct Found<'a> {
    column: usize,
    misfits: &'a mut Vec<Misfit>,
}

impl Found<'_> {
    fn take<T: ArrowPrimitiveType>(
        &mut self,
        array: &ArrayRef,
        problem: impl Fn(T::Native) -> Option<(String, &'static str)>,
    ) -> ArrayRef {
        let values: &PrimitiveArray<T> = array.as_primitive();
        let before = self.misfits.len();
        for row in 0..values.len() {
            if !values.is_null(row)
                && let Some((text, problem)) = problem(values.value(row))
            {
                self.misfits.push(Misfit { column: self.column, row, text, problem });
            }
        }
        if self.misfits.len() == before {
            return Arc::clone(array);
        }
        let mut rows = self.misfits[before..].iter().map(|misfit| misfit.row).peekable();
        let kept = (0..values.len()).map(|row| {
            let is_misfit = rows.next_if_eq(&row).is_some();
            (!is_misfit && !values.is_null(row)).then(|| values.value(row))
        });
        Arc::new(kept.collect::<PrimitiveArray<T>>().with_data_type(array.data_type().clone()))
    }
}

fn moment(ticks: i64) -> Option<(String, &'static str)> {
    infinity(ticks, i64::MAX).map(|text| (text, "not a time"))
}

fn infinity<N: PartialEq + std::ops::Neg<Output = N> + Copy>(value: N, infinite: N) -> Option<String> {
    if value == infinite {
        return Some("infinity".to_owned());
    }
    (value == -infinite).then(|| "-infinity".to_owned())
}
