//! Freshness: how old an asset may become, and whether it is.

use std::fmt;
use std::time::Duration;

use crate::{AssetKey, Notifications, Schedule, Timestamp};

/// How old an asset may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshnessPolicy {
    /// How long ago it was brought up to date at most: at any time, or at each deadline.
    pub max_age: Duration,
    /// The age from which on people are warned; only without a deadline.
    pub warn_age: Option<Duration>,
    /// When it has to be fresh.
    pub deadline: Option<Schedule>,
    /// Who is told that it is late, and that it is fresh again.
    pub notifications: Notifications,
}

/// Whether an asset is as fresh as its policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FreshnessStatus {
    /// It was never brought up to date, or nobody was to look yet.
    Unknown,
    /// It is.
    Fresh,
    /// It is, and not for long any more.
    Warned,
    /// It is not.
    Late,
}

impl FreshnessStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Fresh, Self::Warned, Self::Late];

    /// The status of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// The word for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fresh => "fresh",
            Self::Warned => "warned",
            Self::Late => "late",
        }
    }
}

impl fmt::Display for FreshnessStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// How fresh an asset is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The status.
    pub status: FreshnessStatus,
    /// Since when it is late; when it will be, unless it is brought up to date before. `None` where that never comes or is not known.
    pub late_at: Option<Timestamp>,
    /// When the status changes by itself the next time.
    pub changes_at: Option<Timestamp>,
}

/// The status of an asset that was last written down, so that each change of it is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFreshness {
    /// The asset.
    pub asset: AssetKey,
    /// Its status.
    pub status: FreshnessStatus,
}
