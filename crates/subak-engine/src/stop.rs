//! Asking a step to stop.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

/// Why a step is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked the run to stop.
    Canceled,
    /// It took longer than it may.
    TimedOut,
}

/// Tells a step that it should stop. Clones tell the same.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Sender<Option<StopReason>>);

impl Default for StopSignal {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

/// How long a publication may go on after its step was asked to stop: a server that answers is done by then, and one that does not never is.
pub const GRACE: Duration = Duration::from_secs(10);

impl StopSignal {
    /// Asks. The first reason stays.
    pub fn stop(&self, reason: StopReason) {
        self.0.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(reason);
            is_first
        });
    }

    /// The reason, if somebody asked.
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    /// Waits until somebody asks.
    pub async fn stopped(&self) -> StopReason {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs `work`, which is not to be dropped in the middle: when somebody asks it has [`GRACE`] left. `Err` when it did not end by then; what it
    /// did has to be asked for.
    pub async fn finish<T>(&self, work: impl Future<Output = T>) -> Result<T, StopReason> {
        tokio::select! {
            biased;
            result = work => Ok(result),
            reason = async {
                let reason = self.stopped().await;
                tokio::time::sleep(GRACE).await;
                reason
            } => Err(reason),
        }
    }

    /// Runs `work` unless somebody asks first; then it is dropped, so it must be safe to drop at each of its awaits.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, StopReason> {
        tokio::select! {
            biased;
            reason = self.stopped() => Err(reason),
            result = work => Ok(result),
        }
    }
}
