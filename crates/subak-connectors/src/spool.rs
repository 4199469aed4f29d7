//! Records that a source can ask for only once, kept until the types of their columns are known.
//!
//! They stay in memory while they are few and go to a temporary file when they are more.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use subak_connect::batch::OPEN_SCHEMA;
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::cursor::Tracker;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, ReadRequest, Reject, SourceItem, convert};
use tempfile::SpooledTempFile;

use crate::records::{Record, Rows, Shapes};

/// Bytes that are kept in memory.
const MEMORY_MAX: usize = 32 * 1024 * 1024;

/// Bytes that are written to the temporary file and read from it at a time.
const BUFFER_LENGTH: usize = 1024 * 1024;

/// Rejects that wait to be sent.
const REJECT_COUNT_MAX: usize = 1000;

/// Records as they came, and what their fields are.
pub(crate) struct Spool {
    file: BufWriter<SpooledTempFile>,
    pub(crate) shapes: Shapes,
    count: u64,
}

/// A record that cannot be taken apart.
pub(crate) struct Refused {
    pub(crate) reason: String,
    /// The record as JSON.
    pub(crate) row: String,
}

fn failed(error: io::Error) -> ConnectError {
    ConnectError::io(ConnectErrorKind::Resource, "cannot keep records in a temporary file", error)
}

impl Spool {
    /// An empty one, with its file in this folder.
    pub(crate) fn new(temporary: &Path) -> Self {
        let file = tempfile::spooled_tempfile_in(MEMORY_MAX, temporary);
        Self { file: BufWriter::with_capacity(BUFFER_LENGTH, file), shapes: Shapes::default(), count: 0 }
    }

    /// Keeps the bytes of a record. Whoever calls takes notice of its fields in `shapes`.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.count += 1;
        let length = u32::try_from(bytes.len())
            .map_err(|error| ConnectError::new(ConnectErrorKind::Malformed, "a record is longer than 4 GiB").because(error))?;
        self.file.write_all(&length.to_le_bytes()).and_then(|()| self.file.write_all(bytes)).map_err(failed)
    }

    /// Hands over everything: warnings, rows within the bounds of the cursor, what was refused, where the cursor stands.
    pub(crate) async fn send(
        self,
        request: &ReadRequest,
        producer: &Producer<SourceItem>,
        decode: impl Fn(&[u8]) -> Result<Record<'_>, Refused>,
    ) -> Result<(), Stopped> {
        let Self { file, shapes, count } = self;
        for warning in shapes.warnings(&request.columns) {
            producer.send_async(SourceItem::Warning(warning)).await?;
        }
        if count == 0 {
            producer.send_async(SourceItem::Batch(empty_batch(request))).await?;
            return Ok(());
        }
        let shaped = shapes.finish(&request.columns);
        let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.rewind().map_err(failed)?;
        let mut reader = BufReader::with_capacity(BUFFER_LENGTH, file);
        let mut tracker = request.cursor.clone().map(Tracker::new);
        let mut item = |mut batch: Batch| -> Result<SourceItem, ConnectError> {
            if let Some(tracker) = &mut tracker {
                tracker.keep(&mut batch, &request.columns)?;
            }
            Ok(SourceItem::Batch(batch))
        };
        let (mut rows, mut bytes) = (Rows::new(&shaped), Vec::new());
        let mut rejects: Vec<Reject> = Vec::new();
        for number in 1..=count {
            let mut length = [0; 4];
            reader.read_exact(&mut length).map_err(failed)?;
            bytes.resize(u32::from_le_bytes(length) as usize, 0);
            reader.read_exact(&mut bytes).map_err(failed)?;
            match decode(&bytes) {
                Ok(record) => rows.push(&record, number),
                Err(Refused { reason, row }) => rejects.push(Reject { reason, line: Some(number), row, ..Reject::default() }),
            }
            if rejects.len() >= REJECT_COUNT_MAX {
                producer.send_async(SourceItem::Rejected(std::mem::take(&mut rejects))).await?;
            }
            if rows.is_full() {
                producer.send_async(item(rows.take()?)?).await?;
            }
        }
        // A schema is sent even when every record was refused.
        producer.send_async(item(rows.take()?)?).await?;
        if !rejects.is_empty() {
            producer.send_async(SourceItem::Rejected(rejects)).await?;
        }
        for item in tracker.into_iter().flat_map(Tracker::items) {
            producer.send_async(item).await?;
        }
        Ok(())
    }
}

/// The columns where there are no records: those that are declared.
fn empty_batch(request: &ReadRequest) -> Batch {
    let declared = request.columns.iter().map(|(name, data_type)| Field::new(name, convert::arrow_type(*data_type), true));
    let metadata = HashMap::from([(OPEN_SCHEMA.to_owned(), "true".to_owned())]);
    let schema = Schema::new_with_metadata(declared.collect::<Vec<_>>(), metadata);
    Batch::new(RecordBatch::new_empty(Arc::new(schema)))
}
