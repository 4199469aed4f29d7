//! Events: the closed set of things that happen to runs. Appending one is the only way in which run state changes.
//!
//! This is a stored surface: a field is never renamed or removed, a new one has a default, and a new kind of event raises
//! [`EVENT_FORMAT`], which makes older binaries refuse the store instead of misreading it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schedule::Interval;
use crate::{Action, CheckOutcome, Cursor, RowAccount, RunId, RunStatus, StepId, Timestamp, Trigger, ValueChange, Version};

/// Version of the stored form of events.
pub const EVENT_FORMAT: u32 = 7;

/// One event as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Place in the whole log, from 1, without gaps within one run's view of it; later events have higher positions.
    pub position: u64,
    /// The run.
    pub run: RunId,
    /// Place among the events of the run, from 1, without gaps.
    pub sequence: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// What happened.
    pub event: RunEvent,
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "successes are what most events are, and events are handled one at a time")]
pub enum RunEvent {
    /// The run was made, with its whole plan.
    Planned {
        /// What to do, in dependency order.
        actions: Vec<Action>,
        /// The selection in words, as it was asked for.
        selection: String,
        /// Who or what asked, for example `command line`.
        trigger: String,
        /// The time that counts as today, as wall-clock text; empty in events of older binaries.
        #[serde(default)]
        as_of: String,
        /// The job that was started; `None` for a selection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<String>,
        /// The parameters of the job.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        params: BTreeMap<String, Value>,
        /// The time that it is about, where its job has a schedule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interval: Option<Interval>,
        /// Whether a server is to run it, whenever there is one; otherwise it is in the hands of whoever planned it.
        #[serde(default)]
        for_server: bool,
    },
    /// A list became known, and the tasks of its items with it. They come before everything that needs the step.
    Expanded {
        /// The step that knows the list.
        step: StepId,
        /// The new actions, in dependency order.
        actions: Vec<Action>,
        /// Those of them for which the readers of the step wait too.
        leaves: Vec<StepId>,
    },
    /// A process took the run up.
    Started {
        /// The process, for people: host and pid.
        holder: String,
    },
    /// An attempt of a step began.
    StepStarted {
        /// The step.
        step: StepId,
        /// The attempt, from 1.
        attempt: u32,
    },
    /// An attempt did its work, and its effects are durable.
    StepSucceeded {
        /// The step.
        step: StepId,
        /// What came of it.
        outcome: StepOutcome,
    },
    /// An attempt failed.
    StepErrored {
        /// The step.
        step: StepId,
        /// Why, and what is now true of the data.
        failure: Failure,
        /// When it is due to be tried again; `None` when it is not.
        retry_at: Option<Timestamp>,
    },
    /// A step will not be executed.
    StepSkipped {
        /// The step.
        step: StepId,
        /// Why.
        reason: SkipReason,
    },
    /// Somebody asked the run to stop.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// The process that held the run is gone.
    Lost {
        /// The process, for people.
        holder: String,
    },
    /// Somebody asked the run to go on with what is not done.
    Resumed {
        /// Who.
        by: String,
        /// Whether a server is to go on with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        for_server: bool,
    },
    /// Nothing more will happen, unless the run is resumed.
    Finished {
        /// How it ended.
        status: RunStatus,
    },
}

impl RunEvent {
    /// A new run of a selection, as of a time.
    pub fn planned(actions: Vec<Action>, selection: &str, trigger: &str, as_of: &str) -> Self {
        let (selection, trigger, as_of) = (selection.to_owned(), trigger.to_owned(), as_of.to_owned());
        Self::Planned {
            actions,
            selection,
            trigger,
            as_of,
            job: None,
            params: BTreeMap::new(),
            interval: None,
            for_server: false,
        }
    }
}

/// Why a step was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A step that it needs did not succeed.
    UpstreamFailed {
        /// That step.
        upstream: StepId,
    },
    /// It was planned only because upstream might change, and nothing upstream did.
    UpstreamUnchanged,
    /// A step that it needs was skipped.
    UpstreamSkipped {
        /// That step.
        upstream: StepId,
    },
    /// What happened to the steps that it needs is not what its trigger rule asks for.
    Trigger {
        /// The rule.
        trigger: Trigger,
    },
    /// Its condition is false.
    Condition,
    /// A step before it ended this part of the job.
    ShortCircuit {
        /// That step.
        upstream: StepId,
    },
    /// There is nothing that it could be done for.
    NoItems,
}

impl SkipReason {
    /// Whether the step counts as one that failed for those behind it: something before it failed, and so it was not run.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::UpstreamFailed { .. })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpstreamFailed { upstream } => write!(formatter, "`{upstream}` did not succeed"),
            Self::UpstreamUnchanged => formatter.write_str("nothing upstream changed"),
            Self::UpstreamSkipped { upstream } => write!(formatter, "`{upstream}` was skipped"),
            Self::Trigger { trigger } => write!(formatter, "its trigger rule `{trigger}` was not met"),
            Self::Condition => formatter.write_str("its `when` is false"),
            Self::ShortCircuit { upstream } => write!(formatter, "`{upstream}` said that there is nothing to do"),
            Self::NoItems => formatter.write_str("its list is empty"),
        }
    }
}

/// What came of a step that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepOutcome {
    /// Whether the data that readers see differs from before.
    pub changed: bool,
    /// The version of the definition that made the data; `None` for a standalone check.
    pub version: Option<Version>,
    /// The accounting of rows; `None` where no rows moved.
    pub account: Option<RowAccount>,
    /// Rows in the table afterwards, where that is known.
    pub row_count: Option<u64>,
    /// How far the stream is read now.
    pub cursor: Option<Cursor>,
    /// The checks that were evaluated.
    pub checks: Vec<CheckOutcome>,
    /// Values that were changed by a declared policy.
    pub value_changes: Vec<ValueChange>,
    /// One sentence for people, for example `no new rows`.
    pub note: Option<String>,
    /// Things that a person should know, each one sentence.
    pub warnings: Vec<String>,
    /// Milliseconds that the attempt took.
    pub elapsed_ms: u64,
    /// The newest position of the log when the attempt began: it saw what was published up to there, and perhaps nothing newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_position: Option<u64>,
    /// The key of the partition that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Whether the table was not there before: it holds this partition and no other.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_new_table: bool,
    /// What it hands on to the steps behind it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::job::present")]
    pub value: Option<Value>,
    /// What it says of itself, for people.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
    /// Whether it only looked at something that others change: what it found then is its version.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_look: bool,
    /// What its program used; `None` where it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a program used, together with those of its children that it waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Milliseconds of processor time, of the program and of the system on its behalf.
    pub cpu_ms: u64,
    /// The most bytes of memory that one of its processes had; `None` where the program was too short to be seen.
    pub memory_bytes_max: Option<u64>,
}

impl StepOutcome {
    /// Whether a check of error severity failed, which makes the run fail although the step did its work.
    pub fn has_failed_check(&self) -> bool {
        self.checks.iter().any(|check| !check.passed() && check.severity == crate::Severity::Error)
    }
}

/// Why an attempt failed, in a form that a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code, for example `SBK0311`.
    pub code: String,
    /// What failed, one sentence.
    pub message: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What is now true of the data.
    pub data: String,
    /// What to do next.
    pub help: Vec<String>,
    /// What kind of failure it is.
    pub class: FailureClass,
    /// The checks that were evaluated before it failed.
    #[serde(default)]
    pub checks: Vec<CheckOutcome>,
    /// Milliseconds that the attempt took.
    #[serde(default)]
    pub elapsed_ms: u64,
    /// What it had published before it failed: readers see that, so what is downstream has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Box<StepOutcome>>,
    /// What its program used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What kind of failure it is; decides whether another attempt makes sense, and the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The data or the declaration is wrong; trying again gives the same.
    Input,
    /// A blocking check failed.
    Check,
    /// An outside system could not be reached, or gave up; may pass.
    Unavailable,
    /// An outside system refused who we are or what we may do.
    Permission,
    /// Somebody else holds what the step needs; may pass.
    Conflict,
    /// Disk, memory or another bound is used up.
    Resource,
    /// The step took longer than it may.
    Timeout,
    /// A program ended with an error of its own; what it is only the program knows.
    Program,
    /// Somebody asked it to stop.
    Canceled,
    /// The process that executed the step is gone; what it did is unknown. Such attempts have a budget of their own.
    Lost,
    /// A bug of ours.
    Internal,
}

impl FailureClass {
    /// Whether another attempt may succeed without anybody doing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Conflict | Self::Timeout | Self::Program | Self::Lost)
    }
}
