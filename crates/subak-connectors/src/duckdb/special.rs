//! Values of DuckDB that have no place in Arrow's types: infinite dates and times, the end of a day as a time of it, whole numbers of more digits
//! than a decimal has. Arrow's arrays carry them as they lie in memory, so that they would be read as other values.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::nullif;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Schema, SchemaRef, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use subak_connect::Batch;
use subak_connect::batch::{MAY_MISFIT, Misfit};

/// The first whole number with 39 digits.
const DECIMAL_END: i128 = 10_i128.pow(38);
const DAY_MICROS: i64 = 86_400_000_000;

/// The rows with NULL in the place of such values, and of lists and structs that hold them; they are told beside the rows.
pub(super) fn without(records: RecordBatch) -> Result<Batch, ArrowError> {
    let schema = marked(&records.schema());
    let mut misfits = Vec::new();
    let mut columns = Vec::with_capacity(records.num_columns());
    for (column, array) in records.columns().iter().enumerate() {
        let found = found(array);
        if found.is_empty() {
            columns.push(Arc::clone(array));
            continue;
        }
        let mut is_found = vec![false; array.len()];
        for (row, (text, problem)) in found {
            is_found[row] = true;
            misfits.push(Misfit { column, row, text, problem });
        }
        columns.push(nullif(array, &BooleanArray::from(is_found))?);
    }
    misfits.sort_by_key(|misfit| (misfit.row, misfit.column));
    let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
    Ok(Batch { misfits, ..Batch::new(RecordBatch::try_new_with_options(schema, columns, &options)?) })
}

/// Whether values of a type, or of a type within it, may have no place there.
fn may_misfit(data_type: &DataType) -> bool {
    match data_type {
        DataType::Date32 | DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(..) => true,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => {
            may_misfit(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| may_misfit(field.data_type())),
        other => is_long(other),
    }
}

/// Whether a type is, or holds, whole numbers of the greatest length.
pub(super) fn is_long(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => {
            is_long(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| is_long(field.data_type())),
        other => *other == DataType::Decimal128(38, 0),
    }
}

/// The schema, in which the columns that may have such values are marked.
fn marked(schema: &SchemaRef) -> SchemaRef {
    let mark = |field: &Arc<Field>| {
        if !may_misfit(field.data_type()) {
            return Arc::clone(field);
        }
        let metadata = HashMap::from([(MAY_MISFIT.to_owned(), "true".to_owned())]);
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    };
    Schema::new_with_metadata(schema.fields().iter().map(mark).collect::<Vec<_>>(), schema.metadata().clone()).into()
}

/// Rows with such values: the first one of each as text, and what is wrong with it.
type Found = BTreeMap<usize, (String, &'static str)>;

fn found(array: &ArrayRef) -> Found {
    match array.data_type() {
        DataType::Date32 => values::<Date32Type>(array, |days| infinity(days, i32::MAX).map(|text| (text, "not a date"))),
        DataType::Time64(TimeUnit::Microsecond) => values::<Time64MicrosecondType>(array, |micros| {
            (micros >= DAY_MICROS).then(|| ("24:00:00".to_owned(), "not a time of a day"))
        }),
        DataType::Timestamp(TimeUnit::Second, _) => values::<TimestampSecondType>(array, moment),
        DataType::Timestamp(TimeUnit::Millisecond, _) => values::<TimestampMillisecondType>(array, moment),
        DataType::Timestamp(TimeUnit::Microsecond, _) => values::<TimestampMicrosecondType>(array, moment),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => values::<TimestampNanosecondType>(array, moment),
        DataType::Decimal128(38, 0) => values::<Decimal128Type>(array, |number| {
            let is_long = number >= DECIMAL_END || number <= -DECIMAL_END;
            is_long.then(|| (number.to_string(), "more than 38 digits"))
        }),
        other if !may_misfit(other) => Found::new(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            within(array, found(list.values()), |item| offsets.partition_point(|begin| *begin as usize <= item) - 1)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets();
            within(array, found(list.values()), |item| offsets.partition_point(|begin| *begin as usize <= item) - 1)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            within(array, found(&entries), |item| offsets.partition_point(|begin| *begin as usize <= item) - 1)
        }
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            let length = usize::try_from(list.value_length()).unwrap_or(1).max(1);
            within(array, found(list.values()), |item| item / length)
        }
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter().rev().flat_map(found).collect();
            within(array, fields, |item| item)
        }
        _ => Found::new(),
    }
}

/// The rows of lists or structs to which the values belong; those that are NULL hold none.
fn within(array: &ArrayRef, found: Found, row_of: impl Fn(usize) -> usize) -> Found {
    let mut rows = Found::new();
    for (item, problem) in found {
        let row = row_of(item);
        if row < array.len() && !array.is_null(row) {
            rows.entry(row).or_insert(problem);
        }
    }
    rows
}

fn values<T: ArrowPrimitiveType>(array: &ArrayRef, problem: impl Fn(T::Native) -> Option<(String, &'static str)>) -> Found {
    let values: &PrimitiveArray<T> = array.as_primitive();
    let rows = (0..values.len()).filter(|row| !values.is_null(*row));
    rows.filter_map(|row| Some((row, problem(values.value(row))?))).collect()
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
