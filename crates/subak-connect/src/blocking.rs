//! Bridges between blocking drivers and async seams.

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;

use crate::{ConnectError, ConnectErrorKind};

/// Items that may wait between a blocking reader and whoever consumes them; with the batch limits this bounds memory.
pub const QUEUE_LENGTH_MAX: usize = 2;

/// Runs a blocking closure on its own thread pool and waits for it. A panic inside becomes an internal error.
pub async fn run<T, F>(work: F) -> Result<T, ConnectError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ConnectError> + Send + 'static,
{
    start(work).wait().await
}

/// Blocking work under way on its own thread.
#[derive(Debug)]
pub struct Started<T>(tokio::task::JoinHandle<Result<T, ConnectError>>);

impl<T> Started<T> {
    /// Waits for its end. A panic inside becomes an internal error.
    pub async fn wait(mut self) -> Result<T, ConnectError> {
        self.wait_mut().await
    }

    /// The same; when it is dropped before, the work can be waited for again. Not to be called again after it has returned.
    pub async fn wait_mut(&mut self) -> Result<T, ConnectError> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(error) => Err(ConnectError::new(ConnectErrorKind::Internal, "a blocking task ended abnormally").because(error)),
        }
    }
}

/// Starts blocking work on its own thread. It goes on when the result is dropped.
pub fn start<T, F>(work: F) -> Started<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ConnectError> + Send + 'static,
{
    Started(tokio::task::spawn_blocking(work))
}

/// The consuming end is gone: stop producing.
#[derive(Debug)]
pub struct Closed;

/// Hands items from a blocking producer to an async consumer.
#[derive(Debug)]
pub struct Producer<T>(mpsc::Sender<Result<T, ConnectError>>);

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Producer<T> {
    /// Waits for room and hands over one item. `Err` when nobody listens any more.
    pub fn send(&self, item: T) -> Result<(), Closed> {
        self.0.blocking_send(Ok(item)).map_err(|_| Closed)
    }

    /// The same for producers that are async themselves.
    pub async fn send_async(&self, item: T) -> Result<(), Closed> {
        self.0.send(Ok(item)).await.map_err(|_| Closed)
    }
}

/// Why a producer stopped early.
#[derive(Debug)]
pub enum Stopped {
    /// Nobody listens.
    Closed,
    /// It failed.
    Failed(ConnectError),
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<ConnectError> for Stopped {
    fn from(error: ConnectError) -> Self {
        Self::Failed(error)
    }
}

/// Runs a blocking producer on its own thread when the stream is first polled, and yields what it sends. Dropping the stream
/// makes its next `send` fail.
pub fn produce<T, F>(work: F) -> BoxStream<'static, Result<T, ConnectError>>
where
    T: Send + 'static,
    F: FnOnce(&Producer<T>) -> Result<(), Stopped> + Send + 'static,
{
    stream::once(async move {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        tokio::task::spawn_blocking(move || {
            let producer = Producer(sender);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&producer)));
            let error = match result {
                Ok(Ok(()) | Err(Stopped::Closed)) => return,
                Ok(Err(Stopped::Failed(error))) => error,
                Err(_) => ConnectError::new(ConnectErrorKind::Internal, "a reader panicked"),
            };
            drop(producer.0.blocking_send(Err(error)));
        });
        items_of(receiver)
    })
    .flatten()
    .boxed()
}

fn items_of<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}

/// Runs an async producer as a task of its own when the stream is first polled, and yields what it sends. Dropping the stream ends the
/// task at its next await.
pub fn produce_async<T, F, W>(work: F) -> BoxStream<'static, Result<T, ConnectError>>
where
    T: Send + 'static,
    F: FnOnce(Producer<T>) -> W + Send + 'static,
    W: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    stream::once(async move {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        let failures = sender.clone();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            if let Err(Stopped::Failed(error)) = work(Producer(sender)).await {
                drop(failures.send(Err(error)).await);
            }
        });
        // The task lives as long as whoever reads; a panic in it ends the stream with an error.
        let ended = stream::once(async move {
            match task.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    Some(Err(ConnectError::new(ConnectErrorKind::Internal, "a reader panicked").because(error)))
                }
                _ => None,
            }
        });
        items_of(receiver).chain(ended.filter_map(std::future::ready))
    })
    .flatten()
    .boxed()
}
