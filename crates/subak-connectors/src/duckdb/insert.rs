//! Rows on their way into a stage: one statement reads them as they come, in a transaction of its own.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use subak_connect::{ConnectError, ConnectErrorKind, blocking};
use tokio::sync::mpsc;

use super::error::failed;
use super::raw::Streaming;
use super::{DIALECT, Database};

/// Where views of streams stand: in a database in memory, because a view that names a place in this process must not reach a file.
const STREAMS: &str = "__subak_streams";

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

/// The batches of a channel as DuckDB reads them.
struct Batches {
    schema: SchemaRef,
    receiver: mpsc::Receiver<Option<RecordBatch>>,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.blocking_recv() {
            Some(Some(batch)) => Some(Ok(batch)),
            Some(None) => None,
            None => Some(Err(ArrowError::ExternalError("the load was given up".into()))),
        }
    }
}

impl RecordBatchReader for Batches {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Insert {
    /// Begins to fill `table`, which is quoted and in the database's own catalog.
    pub(super) fn begin(
        database: &Database,
        table: String,
        view: String,
        schema: SchemaRef,
        message: String,
    ) -> Result<Self, ConnectError> {
        let connection = Arc::new(database.streaming()?);
        let (sender, receiver) = mpsc::channel(blocking::QUEUE_LENGTH_MAX);
        let running = Arc::new(Mutex::new(()));
        let task = {
            let (connection, running, message) = (Arc::clone(&connection), Arc::clone(&running), message.clone());
            let batches = Box::new(Batches { schema: Arc::clone(&schema), receiver });
            let catalog = database.catalog()?;
            blocking::start(move || {
                let _running = running.lock().unwrap_or_else(PoisonError::into_inner);
                let quoted = DIALECT.identifier(&view);
                let own = format!("{}.{table}", DIALECT.identifier(&catalog));
                let insert = || {
                    connection.execute(&format!("attach if not exists ':memory:' as {STREAMS}"))?;
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
        let Some(sender) = &self.sender else { return Ok(()) };
        if sender.send(Some(records)).await.is_err() {
            return self.wait().await;
        }
        Ok(())
    }

    /// Says that all rows have come, and waits until they are committed.
    pub(super) async fn end(mut self) -> Result<(), ConnectError> {
        if let Some(sender) = self.sender.take() {
            // Where nobody listens any more, the statement has failed and says why.
            drop(sender.send(None).await);
        }
        self.wait().await
    }

    async fn wait(&mut self) -> Result<(), ConnectError> {
        match self.task.take() {
            Some(task) => task.wait().await,
            None => Ok(()),
        }
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
