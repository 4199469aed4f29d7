//! What became of each asset lately: the last outcomes of its steps, followed along the log.

use std::collections::{BTreeMap, VecDeque};

use subak_domain::event::SkipReason;
use subak_domain::{AssetKey, CheckOutcome, Event, Failure, FailureClass, RunEvent, RunId, StepId, StepOutcome, Timestamp};
use subak_server::Problem;
use subak_store::{EventLog, SqliteStore};

use super::failed;

/// Outcomes that are kept of an asset.
pub(super) const OUTCOME_COUNT_MAX: usize = 30;

/// Events before the newest that are looked at when the server starts.
const EVENT_COUNT_MAX: u64 = 50_000;

/// Events that are read at a time.
const READ_COUNT: usize = 5_000;

/// What came of a step of an asset.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) run: RunId,
    pub(super) step: StepId,
    pub(super) at: Timestamp,
    /// `succeeded`, `unchanged`, `failed` or `skipped`.
    pub(super) status: &'static str,
    pub(super) elapsed_ms: u64,
    pub(super) row_count: Option<u64>,
    pub(super) written: Option<u64>,
    pub(super) rejected: Option<u64>,
    pub(super) checks: Vec<CheckOutcome>,
    pub(super) failure: Option<Failure>,
    pub(super) note: Option<String>,
}

/// One evaluation of a check.
#[derive(Debug, Clone)]
pub(super) struct Evaluation {
    pub(super) run: RunId,
    pub(super) at: Timestamp,
    pub(super) outcome: CheckOutcome,
}

/// The last outcomes by asset, as far as the log was read.
#[derive(Default)]
pub(super) struct Recent {
    position: Option<u64>,
    outcomes: BTreeMap<AssetKey, VecDeque<Outcome>>,
    /// The last evaluations by check, and the asset that the check belongs to.
    evaluations: BTreeMap<(Option<AssetKey>, String), VecDeque<Evaluation>>,
}

impl Recent {
    /// Takes over what is new in the log.
    pub(super) fn follow(
        &mut self,
        store: &SqliteStore,
        wait: impl Fn(u64) -> Result<Vec<Event>, Problem>,
    ) -> Result<(), Problem> {
        let newest = store.newest_position().map_err(failed)?;
        let mut position = self.position.unwrap_or_else(|| newest.saturating_sub(EVENT_COUNT_MAX));
        while position < newest {
            let events = wait(position)?;
            let Some(last) = events.last() else { break };
            position = last.position;
            for event in &events {
                self.take(event);
            }
        }
        self.position = Some(position);
        Ok(())
    }

    /// The evaluations of a check, the newest last.
    pub(super) fn evaluations(&self, asset: Option<&AssetKey>, check: &str) -> impl DoubleEndedIterator<Item = &Evaluation> {
        self.evaluations.get(&(asset.cloned(), check.to_owned())).into_iter().flatten()
    }

    /// Takes over what checks found: those of an asset when it is made or audited, and those that stand alone.
    fn take_checks(&mut self, event: &Event) {
        let (step, checks) = match &event.event {
            RunEvent::StepSucceeded { step, outcome } => (step, &outcome.checks),
            RunEvent::StepErrored { step, failure, retry_at: None } => (step, &failure.checks),
            _ => return,
        };
        let base = step.base();
        let name = base.as_str().strip_prefix("audit:").unwrap_or(base.as_str());
        let asset = if name.starts_with("check:") { None } else { name.parse().ok() };
        for outcome in checks {
            let known = self.evaluations.entry((asset.clone(), outcome.check.clone())).or_default();
            known.push_back(Evaluation { run: event.run, at: event.at, outcome: outcome.clone() });
            if known.len() > OUTCOME_COUNT_MAX {
                known.pop_front();
            }
        }
    }

    fn take(&mut self, event: &Event) {
        self.take_checks(event);
        let (step, outcome) = match &event.event {
            RunEvent::StepSucceeded { step, outcome } => (step, Outcome::done(event, step, outcome)),
            // Somebody stopped it: that says nothing of the asset.
            RunEvent::StepErrored { failure, .. } if failure.class == FailureClass::Canceled => return,
            RunEvent::StepErrored { step, failure, retry_at: None } => (step, Outcome::failed(event, step, failure)),
            RunEvent::StepSkipped { step, reason: reason @ SkipReason::UpstreamFailed { .. } } => {
                (step, Outcome { note: Some(reason.to_string()), ..Outcome::new(event, step, "skipped") })
            }
            _ => return,
        };
        // Audits, checks and tasks are about no asset.
        let asset = step.as_partition().map(|(asset, _)| asset).or_else(|| step.as_str().parse().ok());
        let Some(asset) = asset else { return };
        let outcomes = self.outcomes.entry(asset).or_default();
        outcomes.push_back(outcome);
        if outcomes.len() > OUTCOME_COUNT_MAX {
            outcomes.pop_front();
        }
    }

    /// What became of an asset, the newest last.
    pub(super) fn of(&self, asset: &AssetKey) -> impl DoubleEndedIterator<Item = &Outcome> {
        self.outcomes.get(asset).into_iter().flatten()
    }

    /// The failure of an asset that has not been made since.
    pub(super) fn failure(&self, asset: &AssetKey) -> Option<&Outcome> {
        // One that was held back says nothing of itself.
        self.of(asset).rfind(|outcome| outcome.status != "skipped").filter(|outcome| outcome.status == "failed")
    }
}

impl Outcome {
    fn new(event: &Event, step: &StepId, status: &'static str) -> Self {
        Self {
            run: event.run,
            step: step.clone(),
            at: event.at,
            status,
            elapsed_ms: 0,
            row_count: None,
            written: None,
            rejected: None,
            checks: Vec::new(),
            failure: None,
            note: None,
        }
    }

    fn done(event: &Event, step: &StepId, outcome: &StepOutcome) -> Self {
        let status = if outcome.has_failed_check() {
            "failed"
        } else if outcome.changed {
            "succeeded"
        } else {
            "unchanged"
        };
        Self {
            elapsed_ms: outcome.elapsed_ms,
            row_count: outcome.row_count,
            written: outcome.account.map(|account| account.written),
            rejected: outcome.account.map(|account| account.rejected),
            checks: outcome.checks.clone(),
            note: outcome.note.clone(),
            ..Self::new(event, step, status)
        }
    }

    fn failed(event: &Event, step: &StepId, failure: &Failure) -> Self {
        Self {
            elapsed_ms: failure.elapsed_ms,
            checks: failure.checks.clone(),
            failure: Some(failure.clone()),
            ..Self::new(event, step, "failed")
        }
    }
}

/// The recent outcomes, up to date.
pub(super) fn with<T>(api: &super::Api, call: &subak_server::Call, look: impl FnOnce(&Recent) -> T) -> Result<T, Problem> {
    let mut recent = api.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    recent.follow(&api.store, |position| call.wait(api.store.read_after(position, READ_COUNT)).map_err(failed))?;
    Ok(look(&recent))
}
