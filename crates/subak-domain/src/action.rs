//! Actions: the entries of a plan, each with the reason why it is there.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::{Rule, TaskWork};
use crate::{AssetKey, Partition, StepId, Version};

/// One unit of work in a plan. It becomes one step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The step's id, unique in the plan.
    pub step: StepId,
    /// What to do.
    pub work: Work,
    /// Why.
    pub reason: Reason,
    /// Steps of the same plan that come first, sorted.
    pub needs: Vec<StepId>,
    /// Whether and how it runs behind them; by default when all have succeeded.
    #[serde(default, skip_serializing_if = "Rule::is_plain")]
    pub rule: Rule,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Brings an asset up to date. With `full_refresh` it ignores the cursor and rebuilds from nothing.
    Materialize {
        /// The asset.
        asset: AssetKey,
        /// Whether everything is read again.
        full_refresh: bool,
        /// Reads only this part of the stream, and leaves its cursor where it is.
        #[serde(default)]
        range: Option<CursorRange>,
        /// The partition, where the asset has any; without one it is the last window that has ended at the time of the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partition: Option<Partition>,
    },
    /// Looks whether an asset has changed that something outside keeps up to date.
    Observe {
        /// The asset.
        asset: AssetKey,
        /// What it was when it was looked at last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known: Option<Version>,
    },
    /// Loads rejects of an asset after all.
    Replay {
        /// The asset.
        asset: AssetKey,
        /// The rejects.
        rejects: Vec<String>,
        /// Values that take the place of those that were refused, by column of the source; `None` is NULL.
        values: BTreeMap<String, Option<String>>,
    },
    /// Evaluates a standalone check.
    Check {
        /// The check's name.
        name: String,
    },
    /// Evaluates the checks of an asset on what it holds now, and changes nothing.
    Audit {
        /// The asset.
        asset: AssetKey,
    },
    /// Runs a task of a job.
    Task(TaskWork),
}

/// A part of a stream by its cursor: half open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRange {
    /// The lowest value, inclusive.
    pub from: Option<String>,
    /// The value at which it ends, exclusive.
    pub until: Option<String>,
}

/// Why an action is in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The asset was never brought up to date.
    Missing,
    /// Its definition differs from the one that made its data.
    DefinitionChanged,
    /// An asset that it reads has newer data than it has seen.
    UpstreamNewer {
        /// The first such asset, by name.
        upstream: AssetKey,
    },
    /// An asset that it reads is brought up to date within this plan, and may change by that.
    UpstreamMayChange {
        /// The first such asset, by name.
        upstream: AssetKey,
    },
    /// It reads an outside source, which may hold something new.
    SourceMayHaveNew,
    /// The last attempt to bring this partition up to date failed.
    LastFailed,
    /// Somebody asked for exactly this.
    Selected,
    /// Somebody asked to rebuild it from nothing.
    FullRefresh,
    /// It is part of a job that was started.
    Job,
    /// Its automation asks for it.
    Automation {
        /// The conditions that are true.
        why: String,
    },
}

impl Reason {
    /// Whether the work may be left out when no step that it needs changed anything.
    pub fn is_only_upstream(&self) -> bool {
        matches!(self, Self::UpstreamMayChange { .. })
    }

    /// The word for scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::DefinitionChanged => "definition_changed",
            Self::UpstreamNewer { .. } => "upstream_newer",
            Self::UpstreamMayChange { .. } => "upstream_may_change",
            Self::SourceMayHaveNew => "source_may_have_new",
            Self::LastFailed => "last_failed",
            Self::Selected => "selected",
            Self::FullRefresh => "full_refresh",
            Self::Job => "job",
            Self::Automation { .. } => "automation",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("never materialized"),
            Self::DefinitionChanged => formatter.write_str("its definition changed"),
            Self::UpstreamNewer { upstream } => write!(formatter, "`{upstream}` is newer"),
            Self::UpstreamMayChange { upstream } => write!(formatter, "`{upstream}` may change"),
            Self::SourceMayHaveNew => formatter.write_str("its source may have new rows"),
            Self::LastFailed => formatter.write_str("its last attempt failed"),
            Self::Selected => formatter.write_str("selected"),
            Self::FullRefresh => formatter.write_str("full refresh"),
            Self::Job => formatter.write_str("part of the job"),
            Self::Automation { why } => formatter.write_str(why),
        }
    }
}
