//! Statuses, and the one function that moves a step from one to the next.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Planned, not started.
    Queued,
    /// Steps are being executed.
    Running,
    /// Somebody asked it to stop; running steps are ending.
    Stopping,
    /// Every step succeeded or was skipped because nothing had changed.
    Succeeded,
    /// A step or a check failed.
    Failed,
    /// It was stopped before it was done.
    Canceled,
}

impl RunStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Stopping, Self::Succeeded, Self::Failed, Self::Canceled];

    /// The status of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether nothing more will happen to the run unless somebody resumes it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The word for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Where a step stands. Attempts count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not started.
    Pending,
    /// Being executed.
    Running {
        /// The attempt.
        attempt: u32,
    },
    /// Failed, and due to be tried again.
    Waiting {
        /// The attempt that failed.
        attempt: u32,
    },
    /// Asked to stop.
    Stopping {
        /// The attempt.
        attempt: u32,
    },
    /// Done.
    Succeeded,
    /// Failed for good.
    Failed,
    /// Stopped before it was done.
    Canceled,
    /// Not executed, and the run records why.
    Skipped,
}

/// What happens to a step, as far as its status is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepChange {
    /// An attempt began.
    Started,
    /// The attempt did its work.
    Succeeded,
    /// The attempt failed.
    Errored {
        /// Whether another attempt will follow.
        retry: bool,
    },
    /// It will not be executed.
    Skipped,
    /// Somebody asked the run to stop.
    CancelRequested,
    /// The process that executed it is gone; what it did is unknown.
    Lost,
    /// Somebody asked the run to go on.
    Resumed,
    /// What it did was taken away, and is needed again.
    Cleared,
}

/// A change that cannot happen to a step in this status: a bug in whoever reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a step that is {status:?} cannot take {change:?}")]
pub struct IllegalChange {
    /// The status before.
    pub status: StepStatus,
    /// The change.
    pub change: StepChange,
}

impl StepStatus {
    /// The status after `change`. Replay and live code share it; nothing else sets a status.
    pub fn after(self, change: StepChange) -> Result<Self, IllegalChange> {
        use StepChange as C;
        Ok(match (self, change) {
            (Self::Pending, C::Started) => Self::Running { attempt: 1 },
            (Self::Waiting { attempt }, C::Started) => Self::Running { attempt: attempt + 1 },
            (Self::Running { .. } | Self::Stopping { .. }, C::Succeeded) => Self::Succeeded,
            (Self::Running { attempt }, C::Errored { retry: true }) => Self::Waiting { attempt },
            (Self::Running { .. }, C::Errored { retry: false }) => Self::Failed,
            // The step may finish before the stop reaches it; only a failure after the request counts as canceled.
            (Self::Stopping { .. }, C::Errored { .. }) => Self::Canceled,
            (Self::Pending, C::Skipped) => Self::Skipped,
            (Self::Pending | Self::Waiting { .. }, C::CancelRequested) => Self::Canceled,
            (Self::Running { attempt }, C::CancelRequested) => Self::Stopping { attempt },
            (Self::Running { .. } | Self::Stopping { .. }, C::Lost) => Self::Failed,
            (Self::Waiting { .. } | Self::Pending, C::Lost) => Self::Canceled,
            (Self::Failed | Self::Canceled | Self::Skipped | Self::Pending, C::Resumed)
            | (Self::Succeeded | Self::Failed | Self::Canceled | Self::Skipped | Self::Pending, C::Cleared) => Self::Pending,
            (
                Self::Stopping { .. } | Self::Succeeded | Self::Failed | Self::Canceled | Self::Skipped,
                C::CancelRequested | C::Lost,
            )
            | (Self::Succeeded, C::Resumed) => self,
            (status, change) => return Err(IllegalChange { status, change }),
        })
    }

    /// Whether somebody executes it, as far as the log tells.
    pub fn is_executing(self) -> bool {
        matches!(self, Self::Running { .. } | Self::Stopping { .. })
    }

    /// Whether nothing more will happen to the step unless somebody resumes the run.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled | Self::Skipped)
    }

    /// The word for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "waiting",
            Self::Stopping { .. } => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{StepChange as C, StepStatus as S};

    #[track_caller]
    fn assert_after(start: S, changes: &[C], expect: S) {
        let end = changes.iter().try_fold(start, |status, change| status.after(*change));
        assert_eq!(end, Ok(expect), "{start:?} {changes:?}");
    }

    #[test]
    fn paths() {
        assert_after(S::Pending, &[C::Started, C::Succeeded], S::Succeeded);
        assert_after(S::Pending, &[C::Started, C::Errored { retry: true }, C::Started], S::Running { attempt: 2 });
        assert_after(S::Pending, &[C::Started, C::Errored { retry: false }], S::Failed);
        assert_after(S::Pending, &[C::Started, C::CancelRequested, C::Succeeded], S::Succeeded);
        assert_after(S::Pending, &[C::Started, C::CancelRequested, C::Errored { retry: false }], S::Canceled);
        assert_after(S::Pending, &[C::Started, C::Errored { retry: true }, C::CancelRequested], S::Canceled);
        assert_after(S::Pending, &[C::Started, C::Lost, C::Resumed, C::Started], S::Running { attempt: 1 });
        assert_after(S::Pending, &[C::Skipped, C::CancelRequested], S::Skipped);
    }

    /// T-75: the first end counts, and nothing that is reported later changes it.
    #[test]
    fn a_final_step_never_starts_again_by_itself() {
        for status in [S::Succeeded, S::Failed, S::Canceled, S::Skipped] {
            for change in [C::Started, C::Succeeded, C::Errored { retry: true }, C::Errored { retry: false }, C::Skipped] {
                assert!(status.after(change).is_err(), "{status:?} {change:?}");
            }
        }
    }
}
