//! Rows that travel together.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
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
    /// Values that the types of the columns cannot hold, in the order of their rows; NULL stands in their place.
    pub misfits: Vec<Misfit>,
}

/// Key in the metadata of a field: its source may have values that its type cannot hold.
pub const MAY_MISFIT: &str = "subak:may_misfit";

/// A value of the source that the type of its column cannot hold. NULL stands in its place, and whoever takes the rows decides what becomes
/// of it; where nobody said anything it stays NULL and is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The position of the column.
    pub column: usize,
    /// The number of the row in the batch.
    pub row: usize,
    /// The value as the source writes it.
    pub text: String,
    /// What is wrong with it, in a few words: `not a date`.
    pub problem: &'static str,
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
        Self { records, origin: Origin::default(), misfits: Vec::new() }
    }

    /// The misfits of a row.
    pub fn misfits_of(&self, row: usize) -> &[Misfit] {
        let start = self.misfits.partition_point(|misfit| misfit.row < row);
        let end = self.misfits.partition_point(|misfit| misfit.row <= row);
        &self.misfits[start..end]
    }

    /// Puts other rows in place of these: those for which `keep` holds; all of them without it.
    pub fn retain(&mut self, records: RecordBatch, keep: Option<&BooleanArray>) {
        self.records = records;
        let Some(keep) = keep else { return };
        let is_kept = |row: usize| keep.is_valid(row) && keep.value(row);
        if let Some(lines) = &self.origin.lines {
            self.origin.lines = Some(lines.iter().enumerate().filter(|(row, _)| is_kept(*row)).map(|(_, line)| *line).collect());
        }
        if !self.misfits.is_empty() {
            let numbers: Vec<usize> = (0..keep.len())
                .scan(0, |next, row| {
                    let number = *next;
                    *next += usize::from(is_kept(row));
                    Some(number)
                })
                .collect();
            self.misfits.retain(|misfit| is_kept(misfit.row));
            for misfit in &mut self.misfits {
                misfit.row = numbers[misfit.row];
            }
        }
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
