//! Automation: when an asset is to be brought up to date by itself, as a condition over it and what it reads.

use std::fmt;
use std::time::Duration;

use crate::{AssetKey, FreshnessStatus, Schedule};

/// When an asset is brought up to date by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Automation {
    /// The condition as it was written.
    pub text: String,
    /// The condition.
    pub condition: Condition,
}

/// A condition over the partitions of an asset; one without partitions counts as having a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Something is true of it.
    Is(Operand),
    /// It is true of one of the assets that it reads.
    AnyDeps(Box<Condition>),
    /// It is true of all assets that it reads.
    AllDeps(Box<Condition>),
    /// It is true of this asset, whatever reads whom.
    OfAsset(AssetKey, Box<Condition>),
    /// It is true of one of the asset's checks, or of all of them; of blocking ones only where that is said.
    Checks {
        /// Whether it has to be true of all of them.
        all: bool,
        /// Whether only those count that are evaluated before publication.
        blocking: bool,
        /// What has to be true of a check.
        inner: Box<Condition>,
    },
    /// One of the conditions of the assets downstream is true of it.
    AnyDownstream,
    /// The same, where assets upstream count or do not by a selection.
    Where {
        /// Whether those that it names count, and no others; or all others.
        allow: bool,
        /// The selection.
        selection: String,
        /// The condition.
        inner: Box<Condition>,
    },
    /// A condition under a name that somebody gave it.
    Labeled(String, Box<Condition>),
    /// All are true.
    And(Vec<Condition>),
    /// One is true.
    Or(Vec<Condition>),
    /// It is not true.
    Not(Box<Condition>),
    /// True from when the first one is until the second one is; of both at once the later one wins.
    Since(Box<Condition>, Box<Condition>),
    /// True when it is, and was not the last time.
    NewlyTrue(Box<Condition>),
    /// A condition under a name of its own.
    Named(&'static str, Box<Condition>),
}

/// The name of the condition that an asset was asked for or brought up to date.
pub const LAST_HANDLED: &str = "last_handled";

/// Something that can be true of a partition of an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// It was never brought up to date.
    Missing,
    /// A run has it in its plan and has not ended, or a backfill is still to make it.
    InProgress,
    /// A run has it in its plan and has not ended.
    RunInProgress,
    /// A backfill that has not ended is still to make it.
    BackfillInProgress,
    /// The last attempt to bring it up to date failed.
    ExecutionFailed,
    /// It was brought up to date, or found so, since the last evaluation.
    NewlyUpdated,
    /// The same, from when the attempt began: what changed upstream after that it may not have seen.
    NewlySeen,
    /// Its data changed since the last evaluation.
    DataVersionChanged,
    /// The same, by a run that was not to bring the asset itself up to date that asks.
    ChangedByOthers,
    /// The run that changed it last has all of these tags.
    ExecutedWithTags(Vec<String>),
    /// The run that changed it last was to bring the asset up to date that asks.
    ExecutedWithRootTarget,
    /// It was brought up to date since the last evaluation, by a run with all of these tags; with `all` only by such runs.
    NewUpdatesWithTags {
        /// Whether each of these runs has them.
        all: bool,
        /// The tags.
        tags: Vec<String>,
    },
    /// The last evaluation asked for it.
    NewlyRequested,
    /// This evaluation asks for it, and both can be done in one run.
    WillBeRequested,
    /// Its definition changed since the last evaluation.
    CodeVersionChanged,
    /// It is evaluated for the first time.
    InitialEvaluation,
    /// It is the last window of time that has ended, or one of those that ended so long before it; always true of what has no windows.
    InLatestTimeWindow(Option<Duration>),
    /// A tick came since the last evaluation. The text is what was written.
    CronTickPassed(String, Box<Schedule>),
    /// It was not brought up to date, or found so, for this long.
    FreshnessFailed(Duration),
    /// It is as fresh as this by its own policy; never true of what has none.
    Freshness(FreshnessStatus),
    /// Its last evaluation of checks failed.
    CheckFailed,
    /// Its last evaluation of checks passed.
    CheckPassed,
}

/// Texts as arguments are written.
fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(", ")
}

/// A duration in the words in which it is written.
fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("missing"),
            Self::InProgress => formatter.write_str("in_progress"),
            Self::RunInProgress => formatter.write_str("run_in_progress"),
            Self::BackfillInProgress => formatter.write_str("backfill_in_progress"),
            Self::ExecutedWithTags(tags) => write!(formatter, "executed_with_tags({})", quoted(tags)),
            Self::ExecutedWithRootTarget => formatter.write_str("executed_with_root_target"),
            Self::NewUpdatesWithTags { all, tags } => {
                write!(formatter, "{}_new_updates_have_run_tags({})", if *all { "all" } else { "any" }, quoted(tags))
            }
            Self::ExecutionFailed => formatter.write_str("execution_failed"),
            Self::NewlyUpdated => formatter.write_str("newly_updated"),
            Self::NewlySeen => formatter.write_str("newly_seen"),
            Self::DataVersionChanged => formatter.write_str("data_version_changed"),
            Self::ChangedByOthers => formatter.write_str("data_version_changed_by_others"),
            Self::NewlyRequested => formatter.write_str("newly_requested"),
            Self::WillBeRequested => formatter.write_str("will_be_requested"),
            Self::CodeVersionChanged => formatter.write_str("code_version_changed"),
            Self::InitialEvaluation => formatter.write_str("initial_evaluation"),
            Self::InLatestTimeWindow(None) => formatter.write_str("in_latest_time_window"),
            Self::InLatestTimeWindow(Some(lookback)) => write!(formatter, "in_latest_time_window('{}')", duration(*lookback)),
            Self::CronTickPassed(line, _) => write!(formatter, "cron_tick_passed('{line}')"),
            Self::FreshnessFailed(age) => write!(formatter, "freshness_failed('{}')", duration(*age)),
            Self::Freshness(FreshnessStatus::Late) => formatter.write_str("freshness_failed"),
            Self::Freshness(FreshnessStatus::Warned) => formatter.write_str("freshness_warned"),
            Self::Freshness(FreshnessStatus::Fresh) => formatter.write_str("freshness_passed"),
            Self::Freshness(FreshnessStatus::Unknown) => formatter.write_str("freshness_unknown"),
            Self::CheckFailed => formatter.write_str("check_failed"),
            Self::CheckPassed => formatter.write_str("check_passed"),
        }
    }
}

/// Its text says what it is: two conditions with one text are one.
impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |formatter: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            let parts: Vec<String> = parts.iter().map(|part| part.in_brackets(word)).collect();
            formatter.write_str(&parts.join(word))
        };
        match self {
            Self::Is(operand) => operand.fmt(formatter),
            Self::AnyDeps(inner) => write!(formatter, "any_deps_match({inner})"),
            Self::AllDeps(inner) => write!(formatter, "all_deps_match({inner})"),
            Self::OfAsset(asset, inner) => write!(formatter, "asset_matches('{asset}', {inner})"),
            Self::Checks { all, blocking, inner } => {
                let word = if *all { "all" } else { "any" };
                let blocking = if *blocking { "blocking_" } else { "" };
                write!(formatter, "{word}_{blocking}checks_match({inner})")
            }
            Self::AnyDownstream => formatter.write_str("any_downstream_conditions"),
            Self::Where { allow, selection, inner } => {
                write!(formatter, "{}('{selection}', {inner})", if *allow { "allow" } else { "ignore" })
            }
            Self::Labeled(label, inner) => write!(formatter, "with_label('{label}', {inner})"),
            Self::And(parts) => joined(formatter, parts, " and "),
            Self::Or(parts) => joined(formatter, parts, " or "),
            Self::Not(inner) => write!(formatter, "not {}", inner.in_brackets("")),
            Self::Since(from, until) => match until.as_ref() {
                Self::Named(LAST_HANDLED, _) => write!(formatter, "{} since_{LAST_HANDLED}", from.in_brackets("")),
                until => write!(formatter, "{} since {}", from.in_brackets(""), until.in_brackets("")),
            },
            Self::NewlyTrue(inner) => write!(formatter, "newly_true({inner})"),
            Self::Named(name, _) => formatter.write_str(name),
        }
    }
}

impl Condition {
    fn in_brackets(&self, word: &str) -> String {
        match self {
            Self::And(_) if word != " and " => format!("({self})"),
            Self::Or(_) if word != " or " => format!("({self})"),
            Self::Not(_) | Self::Since(..) if word.is_empty() => format!("({self})"),
            _ => self.to_string(),
        }
    }

    /// The conditions that all have to be true.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::And(parts) => parts.iter().flat_map(Self::parts).collect(),
            other => vec![other],
        }
    }

    /// Walks all conditions in it, itself included.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        match self {
            Self::Is(_) | Self::AnyDownstream => {}
            Self::AnyDeps(inner)
            | Self::AllDeps(inner)
            | Self::OfAsset(_, inner)
            | Self::Checks { inner, .. }
            | Self::Where { inner, .. }
            | Self::Labeled(_, inner)
            | Self::Not(inner)
            | Self::NewlyTrue(inner)
            | Self::Named(_, inner) => inner.walk(visit),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.walk(visit)),
            Self::Since(from, until) => {
                from.walk(visit);
                until.walk(visit);
            }
        }
    }

    /// The same condition, with what `change` makes of each condition in it, from the innermost to itself.
    #[must_use]
    pub fn map(self, change: &mut dyn FnMut(Self) -> Self) -> Self {
        let inner = |inner: Box<Self>, change: &mut dyn FnMut(Self) -> Self| Box::new(inner.map(change));
        let each = |parts: Vec<Self>, change: &mut dyn FnMut(Self) -> Self| -> Vec<Self> {
            parts.into_iter().map(|part| part.map(change)).collect()
        };
        let found = match self {
            Self::Is(_) | Self::AnyDownstream => self,
            Self::AnyDeps(found) => Self::AnyDeps(inner(found, change)),
            Self::AllDeps(found) => Self::AllDeps(inner(found, change)),
            Self::OfAsset(asset, found) => Self::OfAsset(asset, inner(found, change)),
            Self::Checks { all, blocking, inner: found } => Self::Checks { all, blocking, inner: inner(found, change) },
            Self::Where { allow, selection, inner: found } => Self::Where { allow, selection, inner: inner(found, change) },
            Self::Labeled(label, found) => Self::Labeled(label, inner(found, change)),
            Self::And(parts) => Self::And(each(parts, change)),
            Self::Or(parts) => Self::Or(each(parts, change)),
            Self::Not(found) => Self::Not(inner(found, change)),
            Self::Since(from, until) => Self::Since(inner(from, change), inner(until, change)),
            Self::NewlyTrue(found) => Self::NewlyTrue(inner(found, change)),
            Self::Named(name, found) => {
                let after = inner(found.clone(), change);
                // One that is another one by now has the name no more: two conditions with one text are one.
                if after == found { Self::Named(name, after) } else { *after }
            }
        };
        change(found)
    }
}
