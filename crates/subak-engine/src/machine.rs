//! The pure part of a run: takes what happened, returns the events to record and what to do. The only place where run state
//! changes, and it changes only by applying the events that it returns.

use std::collections::{BTreeMap, BTreeSet};

use subak_domain::event::SkipReason;
use subak_domain::run::IllegalEvent;
use subak_domain::{Action, Failure, Retry, RunEvent, RunState, RunStatus, StepId, StepOutcome, StepStatus, Timestamp};

/// What can happen.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "inputs are handled one at a time and never stored")]
pub enum Input {
    /// A process takes the run up.
    Begin {
        /// The process, for people.
        holder: String,
    },
    /// An attempt ended.
    Ended {
        /// The step.
        step: StepId,
        /// How. The failure is boxed because most attempts succeed.
        result: Result<StepOutcome, Box<Failure>>,
    },
    /// Time has passed.
    Woke,
    /// Somebody asked the run to stop.
    Cancel {
        /// Who.
        by: String,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Execute an attempt of a step.
    Start {
        /// The step.
        step: StepId,
        /// The attempt, from 1.
        attempt: u32,
    },
    /// Ask a running step to stop.
    Stop(StepId),
    /// Send [`Input::Woke`] at this time.
    WakeAt(Timestamp),
    /// Nothing more will happen.
    Finish(RunStatus),
}

/// How many steps may run at a time: in all, and of those that use one thing.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    /// In all; at least one.
    pub count_max: usize,
    /// By the name of a thing, such as a connection; others have no bound of their own.
    pub pools: BTreeMap<String, usize>,
    /// What each step uses.
    pub uses: BTreeMap<StepId, BTreeSet<String>>,
}

impl From<usize> for Slots {
    fn from(count_max: usize) -> Self {
        Self { count_max, ..Self::default() }
    }
}

impl Slots {
    /// The pools of a step.
    fn of(&self, step: &StepId) -> impl Iterator<Item = (&String, usize)> {
        let used = self.uses.get(step).into_iter().flatten();
        used.filter_map(|name| Some((name, (*self.pools.get(name)?).max(1))))
    }
}

/// One run in motion.
#[derive(Debug)]
pub struct Machine {
    state: RunState,
    slots: Slots,
    /// How many running steps use each pool.
    pool_counts: BTreeMap<String, usize>,
    retries: BTreeMap<StepId, Retry>,
    /// Steps that need this one.
    readers: BTreeMap<StepId, Vec<StepId>>,
    actions: BTreeMap<StepId, Action>,
    /// Needs of each pending step that are not final yet.
    missing_count: BTreeMap<StepId, usize>,
    /// Pending steps whose needs are all final, in plan order.
    ready: BTreeSet<(usize, StepId)>,
    order: BTreeMap<StepId, usize>,
    running: BTreeSet<StepId>,
    waiting: BTreeSet<(Timestamp, StepId)>,
}

impl Machine {
    /// Takes a run up in whatever state its events left it. Steps run at a time as far as `slots` have room.
    ///
    /// The state has no running step: a process that died is recorded as lost first.
    pub fn new(state: RunState, slots: impl Into<Slots>, retries: BTreeMap<StepId, Retry>) -> Self {
        let mut slots = slots.into();
        slots.count_max = slots.count_max.max(1);
        let mut machine = Self {
            slots,
            pool_counts: BTreeMap::new(),
            retries,
            readers: BTreeMap::new(),
            actions: BTreeMap::new(),
            missing_count: BTreeMap::new(),
            ready: BTreeSet::new(),
            order: BTreeMap::new(),
            running: BTreeSet::new(),
            waiting: BTreeSet::new(),
            state,
        };
        for (at, action) in machine.state.actions.clone().into_iter().enumerate() {
            let is_open = |step: &&StepId| !machine.state.steps[*step].status.is_final();
            let missing = action.needs.iter().filter(is_open).count();
            for need in &action.needs {
                machine.readers.entry(need.clone()).or_default().push(action.step.clone());
            }
            machine.order.insert(action.step.clone(), at);
            if machine.state.steps[&action.step].status == StepStatus::Pending {
                if missing == 0 {
                    machine.ready.insert((at, action.step.clone()));
                }
                machine.missing_count.insert(action.step.clone(), missing);
            }
            machine.actions.insert(action.step.clone(), action);
        }
        machine
    }

    /// The state: the fold of every event so far.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The action of a step.
    pub fn action(&self, step: &StepId) -> Option<&Action> {
        self.actions.get(step)
    }

    /// Takes one input at `now`. The events are to be recorded in this order before the effects are carried out.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Result<(Vec<RunEvent>, Vec<Effect>), IllegalEvent> {
        let mut turn = Turn { now, events: Vec::new(), effects: Vec::new() };
        match input {
            Input::Begin { holder } => self.record(&mut turn, RunEvent::Started { holder })?,
            Input::Ended { step, result } => self.ended(&mut turn, &step, result)?,
            Input::Woke => {}
            Input::Cancel { by } => self.cancel(&mut turn, by)?,
        }
        self.fill(&mut turn)?;
        Ok((turn.events, turn.effects))
    }

    fn record(&mut self, turn: &mut Turn, event: RunEvent) -> Result<(), IllegalEvent> {
        self.state.apply(turn.now, &event)?;
        turn.events.push(event);
        Ok(())
    }

    fn ended(&mut self, turn: &mut Turn, step: &StepId, result: Result<StepOutcome, Box<Failure>>) -> Result<(), IllegalEvent> {
        if self.running.remove(step) {
            for (name, _) in self.slots.of(step) {
                if let Some(count) = self.pool_counts.get_mut(name) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        match result {
            Ok(outcome) => self.record(turn, RunEvent::StepSucceeded { step: step.clone(), outcome })?,
            Err(failure) => {
                let retry_at = self.retry_at(turn.now, step, &failure);
                self.record(turn, RunEvent::StepErrored { step: step.clone(), failure: *failure, retry_at })?;
                if let Some(retry_at) = self.state.steps[step].retry_at {
                    self.waiting.insert((retry_at, step.clone()));
                    return Ok(());
                }
            }
        }
        self.settle(step);
        Ok(())
    }

    /// When a failed step is due again; `None` when it is not.
    fn retry_at(&self, now: Timestamp, step: &StepId, failure: &Failure) -> Option<Timestamp> {
        let StepStatus::Running { attempt } = self.state.steps[step].status else { return None };
        let retry = self.retries.get(step).copied().unwrap_or_default();
        if !failure.class.is_transient() || attempt >= retry.attempts_max.get() {
            return None;
        }
        // A stable hash instead of a random number: replaying a run gives the same waits, and steps still differ.
        let seed =
            step.as_str().bytes().fold(u64::from(attempt), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let random = u16::try_from((seed >> 20) % 1001).unwrap_or(500);
        now.checked_add(retry.delay_after(attempt, random)).ok()
    }

    fn cancel(&mut self, turn: &mut Turn, by: String) -> Result<(), IllegalEvent> {
        if self.state.status == RunStatus::Stopping || self.state.status.is_final() {
            return Ok(());
        }
        self.record(turn, RunEvent::CancelRequested { by })?;
        self.ready.clear();
        self.waiting.clear();
        turn.effects.extend(self.running.iter().cloned().map(Effect::Stop));
        Ok(())
    }

    /// A step became final: those that need it come nearer.
    fn settle(&mut self, step: &StepId) {
        for reader in self.readers.get(step).into_iter().flatten() {
            if let Some(missing) = self.missing_count.get_mut(reader) {
                *missing = missing.saturating_sub(1);
                if *missing == 0 && self.state.steps[reader].status == StepStatus::Pending {
                    self.ready.insert((self.order[reader], reader.clone()));
                }
            }
        }
    }

    /// Starts steps while there is room, or finishes when nothing is left.
    fn fill(&mut self, turn: &mut Turn) -> Result<(), IllegalEvent> {
        if self.state.status == RunStatus::Running {
            while self.running.len() < self.slots.count_max {
                let due = self.waiting.iter().take_while(|(due, _)| *due <= turn.now).find(|(_, step)| self.has_room(step));
                if let Some(waiting) = due.cloned() {
                    self.waiting.remove(&waiting);
                    self.start(turn, waiting.1)?;
                } else if let Some(ready) = self.next_ready() {
                    self.ready.remove(&ready);
                    let step = ready.1;
                    match self.skip_reason(&step) {
                        Some(reason) => {
                            self.record(turn, RunEvent::StepSkipped { step: step.clone(), reason })?;
                            self.settle(&step);
                        }
                        None => self.start(turn, step)?,
                    }
                } else {
                    break;
                }
            }
            // With every slot taken the next end of a step looks again anyway.
            // A step that is due already waits for room, which the end of another one makes.
            if self.running.len() < self.slots.count_max
                && let Some((due, _)) = self.waiting.iter().find(|(due, _)| *due > turn.now)
            {
                turn.effects.push(Effect::WakeAt(*due));
            }
        }
        let is_open = matches!(self.state.status, RunStatus::Running | RunStatus::Stopping);
        let may_be_done = self.running.is_empty() && self.ready.is_empty() && self.waiting.is_empty();
        if is_open && may_be_done && self.state.is_settled() {
            let status = self.state.verdict();
            self.record(turn, RunEvent::Finished { status })?;
            turn.effects.push(Effect::Finish(status));
        }
        Ok(())
    }

    /// Whether every pool of a step has room.
    fn has_room(&self, step: &StepId) -> bool {
        self.slots.of(step).all(|(name, size)| self.pool_counts.get(name).copied().unwrap_or(0) < size)
    }

    /// The first ready step that can be settled now: one that runs where there is room, or one that is skipped.
    fn next_ready(&self) -> Option<(usize, StepId)> {
        if self.slots.pools.is_empty() {
            return self.ready.first().cloned();
        }
        self.ready.iter().find(|(_, step)| self.has_room(step) || self.skip_reason(step).is_some()).cloned()
    }

    fn start(&mut self, turn: &mut Turn, step: StepId) -> Result<(), IllegalEvent> {
        let attempt = match self.state.steps[&step].status {
            StepStatus::Waiting { attempt } => attempt + 1,
            _ => 1,
        };
        self.record(turn, RunEvent::StepStarted { step: step.clone(), attempt })?;
        for (name, _) in self.slots.of(&step) {
            *self.pool_counts.entry(name.clone()).or_default() += 1;
        }
        self.running.insert(step.clone());
        turn.effects.push(Effect::Start { step, attempt });
        Ok(())
    }

    /// Why a step whose needs are final will not be executed.
    fn skip_reason(&self, step: &StepId) -> Option<SkipReason> {
        let action = &self.actions[step];
        let needs = || action.needs.iter().map(|need| (need, &self.state.steps[need]));
        let is_unchanged = |state: &subak_domain::StepState| match state.status {
            StepStatus::Skipped => state.skip_reason == Some(SkipReason::UpstreamUnchanged),
            StepStatus::Succeeded => !state.outcome.as_ref().is_some_and(|outcome| outcome.changed),
            _ => false,
        };
        let is_usable = |state: &subak_domain::StepState| state.status == StepStatus::Succeeded || is_unchanged(state);
        if let Some((need, _)) = needs().find(|(_, state)| !is_usable(state)) {
            return Some(SkipReason::UpstreamFailed { upstream: need.clone() });
        }
        let may_be_left_out = action.reason.is_only_upstream() && !action.needs.is_empty();
        (may_be_left_out && needs().all(|(_, state)| is_unchanged(state))).then_some(SkipReason::UpstreamUnchanged)
    }
}

/// What one input leads to.
struct Turn {
    now: Timestamp,
    events: Vec<RunEvent>,
    effects: Vec<Effect>,
}

#[cfg(test)]
mod tests;
