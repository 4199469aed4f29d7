//! Parquet, row group by row group.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use subak_connect::blocking::Stopped;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, Origin};

use super::Output;
use super::input::Input;

/// Rows in one batch.
const BATCH_ROW_COUNT: usize = 8192;

pub(super) fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, ConnectError> {
    let file = File::open(path)
        .map_err(|error| ConnectError::io(ConnectErrorKind::Read, format!("cannot read `{}`", path.display()), error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| {
        ConnectError::new(ConnectErrorKind::Malformed, format!("`{}` is not a complete Parquet file", path.display()))
            .because(error)
    })
}

/// The columns of a file.
pub(super) fn schema(path: &Path) -> Result<SchemaRef, ConnectError> {
    Ok(Arc::clone(builder(path)?.schema()))
}

/// Reads every file; columns match by name, and a file that lacks one has NULLs there. One column has one type in all files.
pub(super) fn read(inputs: &[Input], output: &mut Output<'_>) -> Result<(), Stopped> {
    let mut fields: Vec<arrow::datatypes::FieldRef> = Vec::new();
    for input in inputs {
        for field in schema(&input.path)?.fields() {
            match fields.iter().find(|known| known.name() == field.name()) {
                None => fields.push(Arc::new(field.as_ref().clone().with_nullable(true))),
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => {
                    let what = format!(
                        "column `{}` is {} here and {} in an earlier file",
                        field.name(),
                        field.data_type(),
                        known.data_type()
                    );
                    return Err(input
                        .malformed("", &what)
                        .help("declare its type under `columns:`, or load the files apart")
                        .into());
                }
            }
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    for input in inputs {
        let decode = |error: &dyn std::fmt::Display| input.malformed("", &format!("a row group cannot be decoded: {error}"));
        let reader = builder(&input.path)?.with_batch_size(BATCH_ROW_COUNT).build().map_err(|error| decode(&error))?;
        for records in reader {
            let records = aligned(&records.map_err(|error| decode(&error))?, &schema)?;
            let origin = Origin { file: Some(Arc::clone(&input.name)), ..Origin::default() };
            output.send(Batch { origin, ..Batch::new(records) })?;
        }
        output.end_file(input)?;
    }
    if output.is_empty {
        output.send(Batch::new(RecordBatch::new_empty(schema)))?;
    }
    Ok(())
}

fn aligned(records: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ConnectError> {
    let internal = |error: arrow::error::ArrowError| {
        ConnectError::new(ConnectErrorKind::Internal, "a row group does not fit its schema").because(error)
    };
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        arrays.push(match records.column_by_name(field.name()) {
            Some(array) => cast(array, field.data_type()).map_err(internal)?,
            None => new_null_array(field.data_type(), records.num_rows()),
        });
    }
    RecordBatch::try_new(Arc::clone(schema), arrays).map_err(internal)
}
