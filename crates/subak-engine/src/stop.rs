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

/// Tells a step or a run that it should stop. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    reason: watch::Sender<Option<StopReason>>,
    held: watch::Sender<Held>,
}

/// Whether a run begins what is due in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Held {
    #[default]
    No,
    /// Somebody asked it not to.
    Asked,
    /// It does not any more.
    Yes,
}

/// How long a publication may go on after its step was asked to stop: a server that answers is done by then, and one that does not never is.
pub const GRACE: Duration = Duration::from_secs(10);

impl StopSignal {
    /// Asks. The first reason stays.
    pub fn stop(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(reason);
            is_first
        });
    }

    /// The reason, if somebody asked.
    pub fn reason(&self) -> Option<StopReason> {
        *self.reason.borrow()
    }

    /// Asks a run to begin no more steps; what it does is done to its end.
    pub fn hold(&self) {
        self.held.send_if_modified(|held| {
            let is_first = *held == Held::No;
            if is_first {
                *held = Held::Asked;
            }
            is_first
        });
    }

    /// Whether the run has heard that: from then on it begins no more steps.
    pub fn is_held(&self) -> bool {
        *self.held.borrow() == Held::Yes
    }

    /// Waits until somebody asks for that.
    pub(crate) async fn asked_to_hold(&self) {
        let mut receiver = self.held.subscribe();
        // The sender lives as long as this value.
        drop(receiver.wait_for(|held| *held != Held::No).await);
    }

    /// Notes that the run begins no more steps.
    pub(crate) fn holds(&self) {
        self.held.send_replace(Held::Yes);
    }

    /// Waits until somebody asks.
    pub async fn stopped(&self) -> StopReason {
        let mut receiver = self.reason.subscribe();
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
