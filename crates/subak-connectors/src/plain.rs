//! The types in which rows reach tables.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use subak_connect::{ConnectError, ConnectErrorKind};

/// The type in which a column travels to a table: the same values, without encodings that few systems take.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null => DataType::Utf8,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, value) => plain_type(value.data_type()),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => data_type.clone(),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) | DataType::List(item) => {
            DataType::List(plain_field(item))
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), plain_type(field.data_type()), true))
}

/// The columns in plain types.
pub(crate) fn plain_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(plain_field).collect::<Vec<_>>())
}

/// The rows in plain types. Fails when a value cannot travel exactly.
pub(crate) fn plain(records: &RecordBatch) -> Result<RecordBatch, ConnectError> {
    let schema = records.schema();
    let fields: Vec<FieldRef> = schema.fields().iter().map(plain_field).collect();
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(fields.len());
    for (field, array) in fields.iter().zip(records.columns()) {
        let refused = |error: arrow::error::ArrowError| {
            ConnectError::new(ConnectErrorKind::ValueMisfit, format!("column `{}` does not fit its table", field.name()))
                .because(error)
        };
        arrays.push(if field.data_type() == array.data_type() {
            Arc::clone(array)
        } else if matches!(array.data_type(), DataType::Null) {
            arrow::array::new_null_array(&DataType::Utf8, array.len())
        } else {
            let cast = cast_with_options(array, field.data_type(), &options).map_err(refused)?;
            let back = cast_with_options(&cast, array.data_type(), &options).map_err(refused)?;
            if is_time(array.data_type()) && back.as_ref() != array.as_ref() {
                let message =
                    format!("column `{}` has times finer than a microsecond, which its table cannot hold", field.name());
                return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message));
            }
            cast
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "rows do not fit their own schema").because(error))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Date64)
}
