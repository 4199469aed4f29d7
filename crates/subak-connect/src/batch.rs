//! Rows that travel together.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

/// Upper bound for rows in one batch that a source yields.
pub const BATCH_ROW_COUNT_MAX: usize = 32 * 1024;

/// Upper bound for bytes in one batch that a source yields; a single row that is larger travels alone.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Key in the metadata of a batch's schema: rows are free to leave columns out, so a column that is not there this time is no error.
pub const OPEN_SCHEMA: &str = "subak:open";

/// Rows in Arrow form, and where they came from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rows.
    pub records: RecordBatch,
    /// Where they came from, so that an error can name the place.
    pub origin: Origin,
}

/// Where the rows of a batch came from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file, if it was one.
    pub file: Option<Arc<str>>,
    /// Its path below the folder of its connection, by which it is known wherever that folder lies.
    pub path: Option<Arc<str>>,
    /// The line on which each row begins, from 1; as many as there are rows, or none.
    pub lines: Option<Arc<[u64]>>,
}

impl Batch {
    /// Wraps rows of unknown origin.
    pub fn new(records: RecordBatch) -> Self {
        Self { records, origin: Origin::default() }
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.records.num_rows()
    }

    /// Bytes that the rows take in memory.
    pub fn bytes(&self) -> usize {
        self.records.get_array_memory_size()
    }

    /// Names the place of row `row` of this batch for people.
    pub fn place(&self, row: usize) -> String {
        let line = self.origin.lines.as_ref().and_then(|lines| lines.get(row));
        match (&self.origin.file, line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => format!("{file}, row {} of a batch", row + 1),
            (None, _) => format!("row {} of a batch", row + 1),
        }
    }
}
