//! Rows on their way into a stage: one statement reads them as they come, in a transaction of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use subak_connect::{ConnectError, ConnectErrorKind, blocking};
use tokio::sync::mpsc;

use super::error::failed;
use super::raw::Streaming;
use super::{DIALECT, Database};

/// Where views of streams stand: in a database in memory, because a view that names a place in this process must not reach a file.
pub(super) const STREAMS: &str = "__subak_streams";

/// The statement that fills a stage.
pub(super) struct Insert {
    /// `None` says that all rows have come; a channel that closes without it gives the load up.
    sender: Option<mpsc::Sender<Option<RecordBatch>>>,
    schema: SchemaRef,
    connection: Arc<Streaming>,
    task: Option<blocking::Started<()>>,
    /// Held as long as the statement runs.
    running: Arc<Mutex<()>>,
    message: String,
}

/// Rows of what DuckDB calls a row group. Batches of another size are taken apart and put together again once more, at the cost of a quarter
/// of all the work.
const GROUP_ROW_COUNT: usize = 122_880;

/// Bytes of rows that are put together at most.
const GROUP_BYTES_MAX: usize = 48 * 1024 * 1024;

/// The batches of a channel as DuckDB reads them: put together to row groups.
struct Batches {
    schema: SchemaRef,
    receiver: mpsc::Receiver<Option<RecordBatch>>,
    /// What the last batch had beyond its group.
    rest: Option<RecordBatch>,
    is_done: bool,
}

impl Batches {
    /// The next group; `None` after the last one.
    fn group(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let mut parts: Vec<RecordBatch> = Vec::new();
        let (mut row_count, mut bytes) = (0, 0);
        while row_count < GROUP_ROW_COUNT && bytes < GROUP_BYTES_MAX {
            let batch = match self.rest.take() {
                Some(batch) => batch,
                None if self.is_done => break,
                None => match self.receiver.blocking_recv() {
                    Some(Some(batch)) => batch,
                    Some(None) => {
                        self.is_done = true;
                        break;
                    }
                    None => return Err(ArrowError::ExternalError("the load was given up".into())),
                },
            };
            let missing = GROUP_ROW_COUNT - row_count;
            if batch.num_rows() > missing {
                self.rest = Some(batch.slice(missing, batch.num_rows() - missing));
                parts.push(batch.slice(0, missing));
                break;
            }
            row_count += batch.num_rows();
            bytes += batch.get_array_memory_size();
            parts.push(batch);
        }
        match parts.len() {
            0 => Ok(None),
            1 => Ok(parts.pop()),
            _ => concat_batches(&self.schema, &parts).map(Some),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.group().transpose()
    }
}

impl RecordBatchReader for Batches {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Insert {
    /// Begins to fill `table`, which is quoted and in the database's own catalog.
    pub(super) fn begin(database: &Database, table: String, schema: SchemaRef, message: String) -> Result<Self, ConnectError> {
        // An insert that was given up may still be on its way out; it has a view of its own.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let view = format!("s{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let connection = Arc::new(database.streaming()?);
        let (sender, receiver) = mpsc::channel(blocking::QUEUE_LENGTH_MAX);
        let running = Arc::new(Mutex::new(()));
        let task = {
            let (connection, running, message) = (Arc::clone(&connection), Arc::clone(&running), message.clone());
            let batches = Box::new(Batches { schema: Arc::clone(&schema), receiver, rest: None, is_done: false });
            let catalog = database.catalog()?;
            blocking::start(move || {
                let _running = running.lock().unwrap_or_else(PoisonError::into_inner);
                let quoted = DIALECT.identifier(&view);
                let own = format!("{}.{table}", DIALECT.identifier(&catalog));
                let insert = || {
                    connection.execute(&format!("use {STREAMS}"))?;
                    connection.with_stream(&view, batches, |connection| {
                        let inserted = connection.execute(&format!("insert into {own} select * from {quoted}"));
                        let dropped = connection.execute(&format!("drop view if exists {quoted}"));
                        inserted.and(dropped)
                    })
                };
                insert().map_err(|error| failed(&message, error))
            })
        };
        Ok(Self { sender: Some(sender), schema, connection, task: Some(task), running, message })
    }

    /// Hands over rows. Waits while DuckDB is busy with those before.
    pub(super) async fn write(&mut self, records: RecordBatch) -> Result<(), ConnectError> {
        let records = records.with_schema(Arc::clone(&self.schema)).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, format!("{}: a batch has other columns than the first", self.message))
                .because(error)
        })?;
        let Some(sender) = &self.sender else { return Err(self.gone()) };
        if sender.send(Some(records)).await.is_err() {
            // Nobody listens any more: the statement has ended, and says why.
            self.sender = None;
            self.wait().await?;
            return Err(self.gone());
        }
        Ok(())
    }

    /// Says that all rows have come, and waits until they are committed.
    pub(super) async fn end(mut self) -> Result<(), ConnectError> {
        let Some(sender) = self.sender.take() else { return Err(self.gone()) };
        // Where nobody listens any more, the statement has failed and says why.
        drop(sender.send(None).await);
        self.wait().await
    }

    async fn wait(&mut self) -> Result<(), ConnectError> {
        let Some(task) = &mut self.task else { return Err(self.gone()) };
        // Where this is dropped, the statement goes on, and `drop` has it to end.
        let result = task.wait_mut().await;
        self.task = None;
        result
    }

    fn gone(&self) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Internal, format!("{}: the insert has ended before its rows", self.message))
    }
}

impl Drop for Insert {
    /// Returns when the statement has ended: whoever drops the stage next would find it in use.
    fn drop(&mut self) {
        if self.task.is_some() {
            self.sender = None;
            self.connection.interrupt();
            drop(self.running.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
