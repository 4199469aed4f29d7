//! Rows as JSON, as the quarantine keeps them, and back.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value};
use subak_connect::batch::OPEN_SCHEMA;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, convert};

/// A row of the source as a JSON object of texts: exactly what arrived, so that it can be tried again.
pub(super) fn row_json(batch: &Batch, row: usize) -> String {
    let mut object = Map::new();
    let records = &batch.records;
    for (at, (field, array)) in records.schema().fields().iter().zip(records.columns()).enumerate() {
        let misfit = batch.misfits_of(row).iter().find(|misfit| misfit.column == at);
        let value = match misfit {
            Some(misfit) => Value::from(misfit.text.as_str()),
            None if array.is_valid(row) => Value::from(convert::text_at(array, row)),
            None => Value::Null,
        };
        object.insert(field.name().clone(), value);
    }
    Value::Object(object).to_string()
}

/// Rows of texts from JSON objects, with the columns of all of them in the order in which they first appear. `Err` is the number of
/// the first one that is no object.
pub(crate) fn batch_of(rows: &[String]) -> Result<RecordBatch, (usize, ConnectError)> {
    let mut names: Vec<String> = Vec::new();
    let mut objects: Vec<Map<String, Value>> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let Ok(Value::Object(object)) = serde_json::from_str(row) else {
            let message = "the row could not be taken apart when it was refused, so it cannot be loaded again";
            let help = "correct the file and load it again, then `subak quarantine discard` what is left";
            return Err((at, ConnectError::new(ConnectErrorKind::Malformed, message).help(help)));
        };
        for name in object.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>() {
            names.push(name);
        }
        objects.push(object);
    }
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let column =
        |name: &String| -> ArrayRef { Arc::new(objects.iter().map(|object| text(object.get(name))).collect::<StringArray>()) };
    let fields: Vec<Field> = names.iter().map(|name| Field::new(name, ArrowType::Utf8, true)).collect();
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let metadata = HashMap::from([(OPEN_SCHEMA.to_owned(), "true".to_owned())]);
    RecordBatch::try_new_with_options(
        Arc::new(Schema::new_with_metadata(fields, metadata)),
        names.iter().map(column).collect(),
        &options,
    )
    .map_err(|error| {
        (0, ConnectError::new(ConnectErrorKind::Internal, "rows of the quarantine do not fit together").because(error))
    })
}
