//! The state of one run: a fold of its events.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::event::SkipReason;
use crate::job::{Role, TaskWork};
use crate::schedule::Interval;
use crate::status::{IllegalChange, StepChange};
use crate::{Action, Failure, FailureClass, RunEvent, RunStatus, StepId, StepOutcome, StepStatus, Timestamp, Work};

/// One run as its events tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    /// Where it stands.
    pub status: RunStatus,
    /// Its plan, in dependency order.
    pub actions: Vec<Action>,
    /// Its steps by id.
    pub steps: BTreeMap<StepId, StepState>,
    /// The time that counts as now for its steps, as wall-clock text; empty where an older binary planned it.
    pub as_of: String,
    /// The job that it is; `None` for a selection.
    pub job: Option<String>,
    /// The parameters of the job.
    pub params: BTreeMap<String, Value>,
    /// The time that it is about, where its job has a schedule.
    pub interval: Option<Interval>,
}

/// One step as the events tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When it is due to be tried again.
    pub retry_at: Option<Timestamp>,
    /// What came of it.
    pub outcome: Option<StepOutcome>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// Why it was skipped.
    pub skip_reason: Option<SkipReason>,
    /// Attempts so far, those before a resume included.
    pub attempt_count: u32,
    /// Attempts since the last resume whose process was gone before they ended.
    pub lost_count: u32,
}

impl Default for StepState {
    fn default() -> Self {
        Self {
            status: StepStatus::Pending,
            started_at: None,
            ended_at: None,
            retry_at: None,
            outcome: None,
            failure: None,
            skip_reason: None,
            attempt_count: 0,
            lost_count: 0,
        }
    }
}

/// An event that does not fit the state: a damaged log, or a bug in whoever appended it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// The event names a step that the plan does not have.
    #[error("the run has no step `{0}`")]
    UnknownStep(StepId),
    /// The step cannot take the change.
    #[error("step `{step}`")]
    Step {
        /// The step.
        step: StepId,
        /// Why not.
        #[source]
        source: IllegalChange,
    },
    /// The run is over, or not begun.
    #[error("a run that is {0} cannot take this event")]
    Run(RunStatus),
}

impl RunState {
    /// The state of a run that has just been planned.
    pub fn planned(actions: Vec<Action>) -> Self {
        let steps = actions.iter().map(|action| (action.step.clone(), StepState::default())).collect();
        Self {
            status: RunStatus::Queued,
            actions,
            steps,
            as_of: String::new(),
            job: None,
            params: BTreeMap::new(),
            interval: None,
        }
    }

    /// Folds the events of one run, oldest first. `None` when there are none, or the first is not [`RunEvent::Planned`].
    pub fn fold<'a>(mut events: impl Iterator<Item = (Timestamp, &'a RunEvent)>) -> Option<Result<Self, IllegalEvent>> {
        let (_, RunEvent::Planned { actions, as_of, job, params, interval, .. }) = events.next()? else { return None };
        let planned = Self::planned(actions.clone());
        let mut state =
            Self { as_of: as_of.clone(), job: job.clone(), params: params.clone(), interval: interval.clone(), ..planned };
        for (at, event) in events {
            if let Err(illegal) = state.apply(at, event) {
                return Some(Err(illegal));
            }
        }
        Some(Ok(state))
    }

    /// Takes one event. The state is unchanged when the event is illegal.
    pub fn apply(&mut self, at: Timestamp, event: &RunEvent) -> Result<(), IllegalEvent> {
        match event {
            RunEvent::Planned { .. } => return Err(IllegalEvent::Run(self.status)),
            RunEvent::Expanded { step, actions, leaves } => {
                self.expect_open()?;
                self.expand(step, actions, leaves)?;
            }
            RunEvent::Started { .. } => {
                self.expect_open()?;
                if self.status == RunStatus::Queued {
                    self.status = RunStatus::Running;
                }
            }
            RunEvent::StepStarted { step, .. } => {
                let state = self.change(step, StepChange::Started)?;
                state.started_at = Some(at);
                state.retry_at = None;
                // What failed before is tried again: should the process die now, nobody knows what comes of it.
                state.failure = None;
                state.attempt_count += 1;
            }
            RunEvent::StepSucceeded { step, outcome } => {
                let state = self.change(step, StepChange::Succeeded)?;
                state.ended_at = Some(at);
                state.failure = None;
                state.outcome = Some(outcome.clone());
            }
            RunEvent::StepErrored { step, failure, retry_at } => {
                let state = self.change(step, StepChange::Errored { retry: retry_at.is_some() })?;
                state.ended_at = Some(at);
                state.lost_count += u32::from(failure.class == FailureClass::Lost);
                state.retry_at = if state.status.is_final() { None } else { *retry_at };
                state.failure = Some(failure.clone());
            }
            RunEvent::StepSkipped { step, reason } => {
                let state = self.change(step, StepChange::Skipped)?;
                state.ended_at = Some(at);
                state.skip_reason = Some(reason.clone());
            }
            RunEvent::CancelRequested { .. } => {
                self.expect_open()?;
                self.change_all(StepChange::CancelRequested)?;
                self.status = RunStatus::Stopping;
            }
            RunEvent::Lost { .. } => {
                self.expect_open()?;
                self.change_all(StepChange::Lost)?;
            }
            RunEvent::Resumed { .. } => {
                self.change_all(StepChange::Resumed)?;
                self.clear_around()?;
                self.forget_unfinished_groups();
                self.status = RunStatus::Queued;
            }
            RunEvent::Finished { status } => {
                self.expect_open()?;
                self.status = *status;
            }
        }
        Ok(())
    }

    /// What a teardown took away has to be there again for work that is done again: its setups run again, and so does it.
    fn clear_around(&mut self) -> Result<(), IllegalEvent> {
        let setups: BTreeSet<&StepId> =
            self.actions.iter().filter(|action| action.rule.role == Role::Setup).map(|action| &action.step).collect();
        let mut cleared: BTreeSet<StepId> = BTreeSet::new();
        // What is cleared may be what another teardown has taken the ground of away.
        loop {
            let count = cleared.len();
            for action in self.actions.iter().filter(|action| action.rule.role.is_teardown()) {
                let is_open = |step: &StepId| {
                    cleared.contains(step) || self.steps.get(step).is_some_and(|state| state.status == StepStatus::Pending)
                };
                let has_run = self.steps.get(&action.step).is_some_and(|state| state.attempt_count > 0);
                if has_run && action.needs.iter().any(is_open) {
                    cleared.extend(action.needs.iter().filter(|need| setups.contains(need)).cloned());
                    cleared.insert(action.step.clone());
                }
            }
            if cleared.len() == count {
                break;
            }
        }
        for step in cleared {
            let state = self.change(&step, StepChange::Cleared)?;
            state.outcome = None;
            state.skip_reason = None;
            state.ended_at = None;
        }
        Ok(())
    }

    /// Takes the steps of a list that became known; whoever needs the step needs them instead.
    fn expand(&mut self, step: &StepId, actions: &[Action], leaves: &[StepId]) -> Result<(), IllegalEvent> {
        if !self.steps.contains_key(step) {
            return Err(IllegalEvent::UnknownStep(step.clone()));
        }
        for action in self.actions.iter_mut().filter(|action| action.needs.contains(step)) {
            action.needs.retain(|need| need != step);
            action.needs.extend(leaves.iter().cloned());
            action.needs.sort();
            action.needs.dedup();
        }
        let at = self.actions.iter().position(|action| action.step == *step).map_or(self.actions.len(), |at| at + 1);
        self.actions.splice(at..at, actions.iter().cloned());
        self.steps.extend(actions.iter().map(|action| (action.step.clone(), StepState::default())));
        Ok(())
    }

    /// Takes away the tasks of groups whose making did not come to its end: they are made again.
    fn forget_unfinished_groups(&mut self) {
        let is_unfinished = |action: &&Action| {
            let is_group = matches!(action.work, Work::Task(TaskWork::Expand { .. }));
            is_group && self.steps.get(&action.step).is_some_and(|step| step.status == StepStatus::Pending)
        };
        let groups: Vec<StepId> = self.actions.iter().filter(is_unfinished).map(|action| action.step.clone()).collect();
        for group in groups {
            // The names of its tasks begin with its own and an item.
            let prefix = format!("{group}[");
            let is_made = |step: &StepId| step.as_str().starts_with(&prefix);
            self.actions.retain(|action| !is_made(&action.step));
            self.steps.retain(|step, _| !is_made(step));
            for action in self.actions.iter_mut().filter(|action| action.needs.iter().any(is_made)) {
                action.needs.retain(|need| !is_made(need));
                action.needs.push(group.clone());
                action.needs.sort();
            }
        }
    }

    /// How the run ends, given how its steps ended. Meaningful once every step is final.
    ///
    /// A selection of assets fails when anything in it did. A job of tasks is what its last tasks are, those behind which nothing comes: a
    /// failure that a later task has dealt with is dealt with. Teardowns do not count unless they are said to.
    pub fn verdict(&self) -> RunStatus {
        let leaves = self.leaves();
        let counted = || self.steps.iter().filter(|(step, _)| leaves.as_ref().is_none_or(|leaves| leaves.contains(step)));
        let has = |wanted: StepStatus| counted().any(|(_, step)| step.status == wanted);
        let is_check_failed = counted().any(|(_, step)| step.outcome.as_ref().is_some_and(StepOutcome::has_failed_check));
        let is_left_out =
            leaves.is_some() && counted().any(|(_, step)| step.skip_reason.as_ref().is_some_and(SkipReason::is_failure));
        let is_canceled = self.steps.values().any(|step| step.status == StepStatus::Canceled);
        if has(StepStatus::Failed) || is_check_failed {
            RunStatus::Failed
        } else if is_canceled {
            RunStatus::Canceled
        } else if is_left_out {
            RunStatus::Failed
        } else {
            RunStatus::Succeeded
        }
    }

    /// The steps that decide how a job of tasks ends; `None` where all do, also where some of what is selected is made by tasks.
    fn leaves(&self) -> Option<BTreeSet<&StepId>> {
        if self.actions.iter().any(|action| action.rule.task.is_empty()) || self.actions.is_empty() {
            return None;
        }
        let counts = |action: &&Action| action.rule.role != Role::Teardown;
        let needed: BTreeSet<&StepId> = self.actions.iter().filter(counts).flat_map(|action| &action.needs).collect();
        Some(self.actions.iter().filter(counts).map(|action| &action.step).filter(|step| !needed.contains(step)).collect())
    }

    /// Whether every step is final.
    pub fn is_settled(&self) -> bool {
        self.steps.values().all(|step| step.status.is_final())
    }

    fn expect_open(&self) -> Result<(), IllegalEvent> {
        if self.status.is_final() { Err(IllegalEvent::Run(self.status)) } else { Ok(()) }
    }

    fn change(&mut self, step: &StepId, change: StepChange) -> Result<&mut StepState, IllegalEvent> {
        let state = self.steps.get_mut(step).ok_or_else(|| IllegalEvent::UnknownStep(step.clone()))?;
        state.status = state.status.after(change).map_err(|source| IllegalEvent::Step { step: step.clone(), source })?;
        Ok(state)
    }

    fn change_all(&mut self, change: StepChange) -> Result<(), IllegalEvent> {
        // A step that was left out because nothing upstream had changed stays so: what it would read is still what it was.
        let is_settled =
            |state: &StepState| change == StepChange::Resumed && state.skip_reason == Some(SkipReason::UpstreamUnchanged);
        let steps: Vec<StepId> =
            self.steps.iter().filter(|(_, state)| !is_settled(state)).map(|(step, _)| step.clone()).collect();
        for step in steps {
            let state = self.change(&step, change)?;
            if change == StepChange::Resumed && state.status == StepStatus::Pending {
                state.skip_reason = None;
                state.ended_at = None;
                state.lost_count = 0;
            }
        }
        Ok(())
    }
}
