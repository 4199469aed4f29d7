//! Notifications: who is told what about runs of jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::config::{Field, FieldKind};
use crate::{AssetKey, RunId, RunStatus, Timestamp};

/// A kind of receiver, and what it is configured with.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverKind {
    /// Its name.
    pub kind: &'static str,
    /// Its keys besides `type`.
    pub fields: &'static [Field],
    /// What it is, for people.
    pub doc: &'static str,
}

/// Every kind of receiver.
pub static RECEIVER_KINDS: &[ReceiverKind] = &[
    ReceiverKind {
        kind: "webhook",
        doc: "A POST with a JSON object to any address.",
        fields: &[
            Field::new("url", FieldKind::Secret, true, "Where it is sent."),
            Field::optional(
                "authorization",
                FieldKind::Secret,
                "The value of the header `Authorization`, for example `Bearer …`.",
            ),
        ],
    },
    ReceiverKind {
        kind: "slack",
        doc: "A message to a channel of Slack, or of anything that takes Slack's incoming webhooks (Mattermost, Rocket.Chat).",
        fields: &[Field::new("url", FieldKind::Secret, true, "The address of the incoming webhook.")],
    },
    ReceiverKind {
        kind: "discord",
        doc: "A message to a channel of Discord.",
        fields: &[Field::new("url", FieldKind::Secret, true, "The address of the channel's webhook.")],
    },
    ReceiverKind {
        kind: "email",
        doc: "A plain-text mail over SMTP.",
        fields: &[
            Field::new("host", FieldKind::Text, true, "The mail server."),
            Field::optional("port", FieldKind::Integer, "Its port. By default 465, 587 or 25, by `encryption`."),
            Field::optional(
                "encryption",
                FieldKind::Word(&["tls", "starttls", "none"]),
                "`tls` from the first byte (the default), `starttls` (refused where the server does not offer it), or `none`.",
            ),
            Field::optional("user", FieldKind::Text, "Who signs in."),
            Field::optional("password", FieldKind::Secret, "The password."),
            Field::new("from", FieldKind::Text, true, "The sender: `Subak <subak@example.org>`."),
            Field::new("to", FieldKind::Text, true, "The receivers, with commas between them."),
        ],
    },
];

/// Every kind of system that can be told everything that runs do, as they do it.
pub static EXPORT_KINDS: &[ReceiverKind] = &[
    ReceiverKind {
        kind: "openlineage",
        doc: "Events of OpenLineage, for example to Marquez or DataHub: runs and steps, what they read and wrote, columns and what they come from, checks.",
        fields: &[
            Field::new("url", FieldKind::Text, true, "Where events are sent: `https://marquez.example.org/api/v1/lineage`."),
            Field::optional("namespace", FieldKind::Text, "The namespace of jobs. By default the name of the project."),
            Field::optional(
                "authorization",
                FieldKind::Secret,
                "The value of the header `Authorization`, for example `Bearer …`.",
            ),
        ],
    },
    ReceiverKind {
        kind: "opentelemetry",
        doc: "Traces by OTLP over HTTP: a trace for each run, a span for each attempt of a step.",
        fields: &[
            Field::new("url", FieldKind::Text, true, "The collector: `http://localhost:4318`. `/v1/traces` is added to it."),
            Field::optional("service", FieldKind::Text, "The name of the service. By default `subak`."),
            Field::optional("authorization", FieldKind::Secret, "The value of the header `Authorization`."),
        ],
    },
];

/// What can be told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Occasion {
    /// It failed.
    Failure,
    /// It succeeded.
    Success,
    /// It succeeded, and the run of the same job that ended before it had failed.
    Recovery,
    /// It has not ended in time.
    Late,
}

impl Occasion {
    /// Every occasion with its name.
    pub const NAMES: [(&str, Self); 4] =
        [("failure", Self::Failure), ("success", Self::Success), ("recovery", Self::Recovery), ("late", Self::Late)];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, occasion)| *occasion == self).map_or("failure", |(name, _)| name)
    }

    /// What the end of a run is an occasion for, by how the run of the same job before it ended. A run that somebody canceled is none: whoever
    /// did it knows.
    pub fn of_end(status: RunStatus, before: Option<RunStatus>) -> Vec<Self> {
        match status {
            RunStatus::Failed => vec![Self::Failure],
            RunStatus::Succeeded if before == Some(RunStatus::Failed) => vec![Self::Success, Self::Recovery],
            RunStatus::Succeeded => vec![Self::Success],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Who is told about the runs of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notifications {
    /// Names of receivers by occasion, in the order in which they are declared.
    pub receivers: BTreeMap<Occasion, Vec<String>>,
    /// How long after it was planned a run is late.
    pub deadline: Option<Duration>,
}

/// One thing that one receiver is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The event in the log that it is about: the end of the run, or its plan where the run is late. Of an asset the newest one when its freshness
    /// had changed.
    pub position: u64,
    /// The run; of an asset the one that last made it.
    pub run: RunId,
    /// The asset whose freshness it is about; `None` where it is about the run.
    pub asset: Option<AssetKey>,
    /// What it tells.
    pub occasion: Occasion,
    /// Whom.
    pub receiver: String,
    /// What became of it.
    pub state: NoticeState,
    /// When it was made.
    pub made_at: Timestamp,
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeState {
    /// It is to be sent.
    Open {
        /// How often that was tried.
        attempt_count: u32,
        /// When it is due.
        due_at: Timestamp,
        /// Why the last attempt failed.
        error: Option<String>,
    },
    /// The receiver has taken it.
    Sent {
        /// When.
        at: Timestamp,
    },
    /// It was given up.
    Failed {
        /// Why the last attempt failed.
        error: String,
    },
}

/// How often a notice is tried before it is given up.
pub const NOTICE_ATTEMPT_COUNT_MAX: u32 = 8;

/// How long a notice waits after so many failed attempts: 10 seconds, and three times as long each time, an hour at most.
pub fn notice_delay(attempt_count: u32) -> Duration {
    let factor = 3_u64.saturating_pow(attempt_count.saturating_sub(1));
    Duration::from_secs(10_u64.saturating_mul(factor).min(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_once_and_recoveries_besides() {
        let cases = [
            (RunStatus::Failed, None, vec![Occasion::Failure]),
            (RunStatus::Failed, Some(RunStatus::Failed), vec![Occasion::Failure]),
            (RunStatus::Succeeded, Some(RunStatus::Failed), vec![Occasion::Success, Occasion::Recovery]),
            (RunStatus::Succeeded, Some(RunStatus::Succeeded), vec![Occasion::Success]),
            (RunStatus::Succeeded, None, vec![Occasion::Success]),
            (RunStatus::Canceled, Some(RunStatus::Failed), vec![]),
        ];
        for (status, before, expected) in cases {
            assert_eq!(Occasion::of_end(status, before), expected, "{status:?} after {before:?}");
        }
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let seconds: Vec<u64> = [1, 2, 3, 8, 1000].map(|count| notice_delay(count).as_secs()).to_vec();
        assert_eq!(seconds, [10, 30, 90, 3600, 3600]);
    }
}
