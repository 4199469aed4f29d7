//! The pure part of a run: takes what happened, returns the events to record and what to do. The only place where run state
//! changes, and it changes only by applying the events that it returns.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use subak_domain::event::SkipReason;
use subak_domain::job::{self, Role, ShortCircuit, TaskWork};
use subak_domain::run::IllegalEvent;
use subak_domain::{
    Action, AssetKey, Failure, FailureClass, Retry, RunEvent, RunState, RunStatus, StepId, StepOutcome, StepState, StepStatus,
    Timestamp, Trigger, Work,
};
use subak_plan::expression::{ExpressionError, Values};
use subak_plan::trigger::{Counts, Decision, decide};

use crate::failure;

/// What can happen.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "inputs are handled one at a time and never stored")]
pub enum Input {
    /// A process takes the run up.
    Begin {
        /// The process, for people.
        holder: String,
    },
    /// A process takes the run over from one that is gone. Steps that were being executed and are not among `ended` go on.
    TakeOver {
        /// The process, for people.
        holder: String,
        /// What became of steps that were being executed.
        ended: Vec<(StepId, Result<StepOutcome, Box<Failure>>)>,
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
    /// No more steps are to be begun here; another process goes on with them.
    Hold,
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
    /// Go on with an attempt that another process began.
    Adopt(StepId),
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
    /// How much of what each step uses.
    pub uses: BTreeMap<StepId, BTreeMap<String, usize>>,
}

/// What a step takes of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    /// How much; never more than the pool has, so that a pool that became smaller keeps nobody waiting for ever.
    pub count: usize,
    /// How much the pool has; at least one.
    pub size: usize,
}

/// What a pool that a project declares is called among those of [`Slots`]; no connection has such a name.
pub fn pool_name(name: &str) -> String {
    format!("pool {name}")
}

impl From<usize> for Slots {
    fn from(count_max: usize) -> Self {
        Self { count_max, ..Self::default() }
    }
}

impl Slots {
    /// What a step takes, by pool.
    pub fn of(&self, action: &Action) -> BTreeMap<String, Take> {
        // T-57: one that only waits, for a time or for a person, takes up no room.
        if action.is_idle() {
            return BTreeMap::new();
        }
        let step = &action.step;
        let mut used = self.uses.get(step).or_else(|| self.uses.get(&step.base())).cloned().unwrap_or_default();
        if let Work::Task(TaskWork::Sql { on, .. } | TaskWork::Query { on, .. }) = &action.work {
            used.insert(on.to_string(), 1);
        }
        for (name, count) in &action.rule.pools {
            let (name, count) = (pool_name(name), count.get() as usize);
            used.entry(name).and_modify(|known| *known = count.max(*known)).or_insert(count);
        }
        let take = |(name, count): (String, usize)| {
            let size = (*self.pools.get(&name)?).max(1);
            Some((name, Take { count: count.min(size), size }))
        };
        used.into_iter().filter_map(take).collect()
    }
}

/// How many attempts of a step may lose their process until the step counts as failed: what ends the process may be the step itself.
const LOST_COUNT_MAX: u32 = 3;

/// One run in motion.
#[derive(Debug)]
pub struct Machine {
    state: RunState,
    slots: Slots,
    /// How much of each pool running steps have.
    pool_counts: BTreeMap<String, usize>,
    retries: BTreeMap<StepId, Retry>,
    /// Steps that need this one.
    readers: BTreeMap<StepId, Vec<StepId>>,
    actions: BTreeMap<StepId, Action>,
    /// How the needs of each pending step have ended so far.
    counts: BTreeMap<StepId, Counts>,
    /// Pending steps about which their trigger rule can say something, in plan order.
    ready: BTreeSet<(usize, StepId)>,
    order: BTreeMap<StepId, usize>,
    /// Steps that end before a start of a program is made, by the start.
    afters: BTreeMap<String, Vec<StepId>>,
    /// The run, as its steps see it.
    name: String,
    running: BTreeSet<StepId>,
    waiting: BTreeSet<(Timestamp, StepId)>,
    /// Whether nothing more is to be begun.
    is_held: bool,
}

impl Machine {
    /// Takes a run up in whatever state its events left it. Steps run at a time as far as `slots` have room.
    ///
    /// Where the state has running steps, the first input is [`Input::TakeOver`].
    pub fn new(state: RunState, slots: impl Into<Slots>, retries: BTreeMap<StepId, Retry>) -> Self {
        let mut slots = slots.into();
        slots.count_max = slots.count_max.max(1);
        let mut machine = Self {
            slots,
            pool_counts: BTreeMap::new(),
            retries,
            readers: BTreeMap::new(),
            actions: BTreeMap::new(),
            counts: BTreeMap::new(),
            ready: BTreeSet::new(),
            order: BTreeMap::new(),
            afters: BTreeMap::new(),
            name: String::new(),
            running: BTreeSet::new(),
            waiting: BTreeSet::new(),
            is_held: false,
            state,
        };
        let actions = machine.state.actions.clone();
        machine.actions = actions.iter().map(|action| (action.step.clone(), action.clone())).collect();
        for action in &actions {
            machine.enter(action);
        }
        for (step, state) in &machine.state.steps {
            match state.status {
                StepStatus::Running { .. } | StepStatus::Stopping { .. } => drop(machine.running.insert(step.clone())),
                StepStatus::Waiting { .. } => drop(machine.waiting.insert((state.retry_at.unwrap_or_default(), step.clone()))),
                _ => {}
            }
        }
        for step in machine.running.clone() {
            machine.take_room(&step);
        }
        machine
    }

    /// The same, with the id by which its steps know the run.
    #[must_use]
    pub fn named(mut self, run: impl Into<String>) -> Self {
        self.name = run.into();
        self
    }

    /// Notes what an action needs and where it stands.
    fn enter(&mut self, action: &Action) {
        if let Some(start) = action.rule.invocation.as_ref().filter(|_| !action.rule.after.is_empty()) {
            self.afters.insert(start.clone(), action.rule.after.clone());
        }
        let at = self.order.len();
        self.order.insert(action.step.clone(), at);
        for need in &action.needs {
            self.readers.entry(need.clone()).or_default().push(action.step.clone());
        }
        if self.state.steps[&action.step].status != StepStatus::Pending {
            return;
        }
        let mut counts = Counts { total: action.needs.len(), ..Counts::default() };
        for need in &action.needs {
            self.count(&mut counts, need);
        }
        if decide(action.rule.trigger, &counts) != Decision::Wait {
            self.ready.insert((at, action.step.clone()));
        }
        self.counts.insert(action.step.clone(), counts);
    }

    /// Counts a step that is needed as what it has become.
    fn count(&self, counts: &mut Counts, need: &StepId) {
        let state = &self.state.steps[need];
        let is_setup = self.actions.get(need).is_some_and(|action| action.rule.role == Role::Setup);
        counts.setups += usize::from(is_setup && state.status.is_final());
        match state.status {
            StepStatus::Succeeded => {
                counts.succeeded += 1;
                counts.setups_succeeded += usize::from(is_setup);
            }
            StepStatus::Skipped if state.skip_reason == Some(SkipReason::UpstreamUnchanged) => counts.succeeded += 1,
            StepStatus::Skipped if state.skip_reason.as_ref().is_some_and(SkipReason::is_failure) => counts.upstream_failed += 1,
            StepStatus::Skipped => {
                counts.skipped += 1;
                counts.setups_skipped += usize::from(is_setup);
            }
            StepStatus::Failed | StepStatus::Canceled => counts.failed += 1,
            StepStatus::Pending | StepStatus::Running { .. } | StepStatus::Waiting { .. } | StepStatus::Stopping { .. } => {}
        }
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
            Input::TakeOver { holder, ended } => self.take_over(&mut turn, holder, ended)?,
            Input::Ended { step, result } => self.ended(&mut turn, &step, result)?,
            Input::Woke => {}
            Input::Hold => self.is_held = true,
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

    fn take_over(
        &mut self,
        turn: &mut Turn,
        holder: String,
        ended: Vec<(StepId, Result<StepOutcome, Box<Failure>>)>,
    ) -> Result<(), IllegalEvent> {
        self.record(turn, RunEvent::Started { holder })?;
        for (step, result) in ended {
            self.ended(turn, &step, result)?;
        }
        turn.effects.extend(self.running.iter().cloned().map(Effect::Adopt));
        if self.state.status == RunStatus::Stopping {
            turn.effects.extend(self.running.iter().cloned().map(Effect::Stop));
        }
        Ok(())
    }

    fn ended(&mut self, turn: &mut Turn, step: &StepId, result: Result<StepOutcome, Box<Failure>>) -> Result<(), IllegalEvent> {
        if self.running.remove(step) {
            for (name, take) in self.takes(step) {
                if let Some(count) = self.pool_counts.get_mut(&name) {
                    *count = count.saturating_sub(take.count);
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
        let declared = self.actions.get(step).and_then(|action| action.rule.limits).map(|limits| limits.retry());
        let retry = self.retries.get(step).or_else(|| self.retries.get(&step.base())).copied().or(declared).unwrap_or_default();
        let lost_count = self.state.steps[step].lost_count;
        if failure.class == FailureClass::Lost {
            // Nothing is wrong with the step that anybody knows of. What an asset publishes it publishes once; of a task that is to be tried once nobody
            // knows what it has done.
            let is_task = matches!(self.actions.get(step).map(|action| &action.work), Some(Work::Task(_)));
            let may_repeat = !is_task || retry.attempts_max.get() > 1;
            return (may_repeat && lost_count < LOST_COUNT_MAX).then_some(now);
        }
        // Attempts of which nobody knows how they would have ended are not held against it.
        if !failure.class.is_transient() || attempt.saturating_sub(lost_count) >= retry.attempts_max.get() {
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

    /// A step became final: those that need it may know now what becomes of them.
    fn settle(&mut self, step: &StepId) {
        for reader in self.readers.get(step).cloned().unwrap_or_default() {
            let Some(mut counts) = self.counts.get(&reader).copied() else { continue };
            self.count(&mut counts, step);
            self.counts.insert(reader.clone(), counts);
            let is_pending = self.state.steps[&reader].status == StepStatus::Pending;
            if is_pending && decide(self.actions[&reader].rule.trigger, &counts) != Decision::Wait {
                self.ready.insert((self.order[&reader], reader));
            }
        }
    }

    /// Makes the tasks of a list that is known now, and with them what everything behind the list waits for.
    fn expand(&mut self, turn: &mut Turn, step: &StepId, actions: Vec<Action>, leaves: Vec<StepId>) -> Result<(), IllegalEvent> {
        self.record(turn, RunEvent::StepStarted { step: step.clone(), attempt: 1 })?;
        let note = Some(format!("{} tasks", actions.len()));
        self.record(turn, RunEvent::Expanded { step: step.clone(), actions: actions.clone(), leaves: leaves.clone() })?;
        for reader in self.readers.remove(step).unwrap_or_default() {
            for leaf in &leaves {
                self.readers.entry(leaf.clone()).or_default().push(reader.clone());
            }
            if let Some(counts) = self.counts.get_mut(&reader) {
                counts.total = counts.total - 1 + leaves.len();
            }
            if let Some(action) = self.actions.get_mut(&reader) {
                action.needs.retain(|need| need != step);
                action.needs.extend(leaves.iter().cloned());
            }
        }
        self.actions.extend(actions.iter().map(|action| (action.step.clone(), action.clone())));
        for action in &actions {
            self.enter(action);
        }
        self.record(
            turn,
            RunEvent::StepSucceeded { step: step.clone(), outcome: StepOutcome { note, ..StepOutcome::default() } },
        )?;
        self.settle(step);
        Ok(())
    }

    /// Records that a step failed before it could be started.
    fn refuse(&mut self, turn: &mut Turn, step: &StepId, failure: Failure) -> Result<(), IllegalEvent> {
        self.record(turn, RunEvent::StepStarted { step: step.clone(), attempt: 1 })?;
        self.record(turn, RunEvent::StepErrored { step: step.clone(), failure, retry_at: None })?;
        self.settle(step);
        Ok(())
    }

    /// Starts steps while there is room, or finishes when nothing is left.
    fn fill(&mut self, turn: &mut Turn) -> Result<(), IllegalEvent> {
        if self.state.status == RunStatus::Running && !self.is_held {
            while self.busy_count() < self.slots.count_max {
                let due = self.waiting.iter().take_while(|(due, _)| *due <= turn.now).find(|(_, step)| self.has_room(step));
                if let Some(waiting) = due.cloned() {
                    self.waiting.remove(&waiting);
                    self.start(turn, waiting.1)?;
                } else if let Some(ready) = self.next_ready() {
                    self.ready.remove(&ready);
                    let step = ready.1;
                    match self.next(&step) {
                        Next::Start => self.start(turn, step)?,
                        Next::Skip(reason) => {
                            self.record(turn, RunEvent::StepSkipped { step: step.clone(), reason })?;
                            self.settle(&step);
                        }
                        Next::Expand(actions, leaves) => self.expand(turn, &step, actions, leaves)?,
                        Next::Refuse(failure) => self.refuse(turn, &step, *failure)?,
                    }
                } else {
                    break;
                }
            }
            // With every slot taken the next end of a step looks again anyway.
            // A step that is due already waits for room, which the end of another one makes.
            if self.busy_count() < self.slots.count_max
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

    /// Running steps that take up room: one that only waits takes none.
    fn busy_count(&self) -> usize {
        let is_busy = |step: &&StepId| self.actions.get(*step).is_none_or(|action| !action.is_idle());
        self.running.iter().filter(is_busy).count()
    }

    /// Whether every pool of a step has room.
    fn has_room(&self, step: &StepId) -> bool {
        let is_free = |(name, take): (String, Take)| self.pool_counts.get(&name).copied().unwrap_or(0) + take.count <= take.size;
        self.takes(step).into_iter().all(is_free)
    }

    /// What a step takes of pools.
    fn takes(&self, step: &StepId) -> BTreeMap<String, Take> {
        self.actions.get(step).map(|action| self.slots.of(action)).unwrap_or_default()
    }

    /// The first ready step that can be settled now: one that runs where there is room, or one that is skipped.
    fn next_ready(&self) -> Option<(usize, StepId)> {
        if self.slots.pools.is_empty() && self.afters.is_empty() {
            return self.ready.first().cloned();
        }
        // Each start is looked at once.
        let mut open: BTreeMap<&str, bool> = BTreeMap::new();
        let mut may_start = |step: &StepId| {
            let start = self.actions[step].rule.invocation.as_deref();
            let is_open = start.is_none_or(|start| *open.entry(start).or_insert_with(|| self.is_open(start)));
            is_open && self.has_room(step)
        };
        self.ready.iter().find(|(_, step)| may_start(step) || !matches!(self.next(step), Next::Start)).cloned()
    }

    /// Whether everything has ended that comes before a start.
    fn is_open(&self, start: &str) -> bool {
        let after = self.afters.get(start).into_iter().flatten();
        after.filter_map(|step| self.state.steps.get(step)).all(|step| step.status.is_final())
    }

    /// The assets that a start can make now: those that have not ended, and whose needs have all succeeded or are made with them. What would be left
    /// out because nothing before it has changed is none of them.
    pub fn made_by(&self, start: &str) -> Vec<(StepId, AssetKey)> {
        let mut made: BTreeSet<&StepId> = BTreeSet::new();
        let mut found = Vec::new();
        for action in self.state.actions.iter().filter(|action| action.rule.invocation.as_deref() == Some(start)) {
            let Work::Materialize { asset, .. } = &action.work else { continue };
            let is_done = |need: &StepId| {
                self.state.steps.get(need).is_none_or(|step| {
                    step.status == StepStatus::Succeeded || step.skip_reason == Some(SkipReason::UpstreamUnchanged)
                })
            };
            let is_unchanged = |need: &StepId| !made.contains(need) && self.state.steps.get(need).is_some_and(is_unchanged);
            let is_open = self.state.steps.get(&action.step).is_some_and(|step| !step.status.is_final());
            let is_left_out =
                action.reason.is_only_upstream() && !action.needs.is_empty() && action.needs.iter().all(is_unchanged);
            if is_open && !is_left_out && action.needs.iter().all(|need| made.contains(need) || is_done(need)) {
                made.insert(&action.step);
                found.push((action.step.clone(), asset.clone()));
            }
        }
        found
    }

    fn start(&mut self, turn: &mut Turn, step: StepId) -> Result<(), IllegalEvent> {
        let attempt = match self.state.steps[&step].status {
            StepStatus::Waiting { attempt } => attempt + 1,
            _ => 1,
        };
        self.record(turn, RunEvent::StepStarted { step: step.clone(), attempt })?;
        self.take_room(&step);
        self.running.insert(step.clone());
        turn.effects.push(Effect::Start { step, attempt });
        Ok(())
    }

    /// Notes that a step has what it takes of pools.
    fn take_room(&mut self, step: &StepId) {
        for (name, take) in self.takes(step) {
            *self.pool_counts.entry(name).or_default() += take.count;
        }
    }

    /// What becomes of a step about which its trigger rule can say something.
    fn next(&self, step: &StepId) -> Next {
        let action = &self.actions[step];
        let counts = self.counts.get(step).copied().unwrap_or_default();
        let left_out = self.short_circuit(action).filter(|_| !action.rule.role.is_teardown());
        if let Some(upstream) = left_out {
            return Next::Skip(SkipReason::ShortCircuit { upstream });
        }
        match decide(action.rule.trigger, &counts) {
            Decision::Run | Decision::Wait => {}
            Decision::UpstreamFailed => {
                let failed = action.needs.iter().find(|need| self.is_bad(need)).or(action.needs.first());
                return Next::Skip(match failed {
                    Some(upstream) => SkipReason::UpstreamFailed { upstream: upstream.clone() },
                    None => SkipReason::Trigger { trigger: action.rule.trigger },
                });
            }
            Decision::Skip => {
                let skipped = action.needs.iter().find(|need| self.state.steps[*need].status == StepStatus::Skipped);
                return Next::Skip(match skipped.filter(|_| action.rule.trigger == Trigger::AllSuccess) {
                    Some(upstream) => SkipReason::UpstreamSkipped { upstream: upstream.clone() },
                    None => SkipReason::Trigger { trigger: action.rule.trigger },
                });
            }
        }
        let values = || Values::new(&self.name, &self.state, action);
        if let Some(when) = &action.rule.when {
            match values().is_true(when) {
                Ok(true) => {}
                Ok(false) => return Next::Skip(SkipReason::Condition),
                Err(error) => return Next::Refuse(without_value("when", when, &error)),
            }
        }
        if let Work::Task(TaskWork::Expand { items, count_max, actions, leaves }) = &action.work {
            return match values().items(items) {
                Ok(found) if found.is_empty() => Next::Skip(SkipReason::NoItems),
                Ok(found) if found.len() > *count_max as usize => Next::Refuse(too_many(found.len(), *count_max)),
                Ok(found) if self.state.steps.len() + found.len() * actions.len() > STEP_COUNT_MAX => {
                    Next::Refuse(too_wide(found.len() * actions.len()))
                }
                Ok(found) => expanded(&found, actions, leaves),
                Err(error) => Next::Refuse(without_value("for_each", items, &error)),
            };
        }
        let may_be_left_out = action.reason.is_only_upstream() && !action.needs.is_empty();
        if may_be_left_out && action.needs.iter().all(|need| is_unchanged(&self.state.steps[need])) {
            return Next::Skip(SkipReason::UpstreamUnchanged);
        }
        Next::Start
    }

    fn is_bad(&self, step: &StepId) -> bool {
        let state = &self.state.steps[step];
        matches!(state.status, StepStatus::Failed | StepStatus::Canceled)
            || state.skip_reason.as_ref().is_some_and(SkipReason::is_failure)
    }

    /// The step that ended this part of the job.
    fn short_circuit(&self, action: &Action) -> Option<StepId> {
        action.needs.iter().find_map(|need| {
            let (state, rule) = (&self.state.steps[need], &self.actions.get(need)?.rule);
            if rule.short_circuit.is_some() && state.status == StepStatus::Succeeded {
                let value = state.outcome.as_ref().and_then(|outcome| outcome.value.as_ref());
                return (!value.is_some_and(says_yes)).then(|| need.clone());
            }
            match &state.skip_reason {
                Some(SkipReason::ShortCircuit { upstream })
                    if self.actions.get(upstream)?.rule.short_circuit == Some(ShortCircuit::All) =>
                {
                    Some(upstream.clone())
                }
                _ => None,
            }
        })
    }
}

/// What becomes of a step.
enum Next {
    Start,
    Skip(SkipReason),
    Expand(Vec<Action>, Vec<StepId>),
    Refuse(Box<Failure>),
}

fn is_unchanged(state: &StepState) -> bool {
    match state.status {
        StepStatus::Skipped => state.skip_reason == Some(SkipReason::UpstreamUnchanged),
        StepStatus::Succeeded => !state.outcome.as_ref().is_some_and(|outcome| outcome.changed),
        _ => false,
    }
}

/// Whether a value means that there is something to do.
fn says_yes(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        // A row: what stands first in it.
        Value::Object(entries) => entries.values().next().is_some_and(says_yes),
    }
}

/// The actions of a list, and those of them that nothing in the group waits for.
fn expanded(items: &[Value], actions: &[Action], leaves: &[StepId]) -> Next {
    let names = job::item_names(items);
    let each = || names.iter().zip(items);
    let made = each().flat_map(|(name, item)| actions.iter().map(move |action| action.for_item(name, item))).collect();
    let ends = each().flat_map(|(name, _)| leaves.iter().map(move |leaf| leaf.for_item(name))).collect();
    Next::Expand(made, ends)
}

const NOTHING_STARTED: &str = "the step was not started";

fn without_value(key: &str, expression: &str, error: &ExpressionError) -> Box<Failure> {
    let message = format!("`{key}: {expression}` has no value");
    let mut failure = failure::plain("SBK0326", message, NOTHING_STARTED, FailureClass::Input);
    failure.causes.push(error.to_string());
    failure.help.push("`subak run show` shows the values of the steps before it".into());
    failure
}

/// The most steps that a run may have once its lists are known.
const STEP_COUNT_MAX: usize = 100_000;

fn too_wide(count: usize) -> Box<Failure> {
    let message = format!("`for_each` would make {count} more tasks, and a run has at most {STEP_COUNT_MAX} steps");
    failure::plain("SBK0326", message, NOTHING_STARTED, FailureClass::Input)
}

fn too_many(count: usize, count_max: u32) -> Box<Failure> {
    let message = format!("`for_each` has {count} items, and {count_max} are the most that it may have");
    let mut failure = failure::plain("SBK0326", message, NOTHING_STARTED, FailureClass::Input);
    failure.help.push("raise `items_max:` of the group, or make the list shorter".into());
    failure
}

/// What one input leads to.
struct Turn {
    now: Timestamp,
    events: Vec<RunEvent>,
    effects: Vec<Effect>,
}

#[cfg(test)]
mod tests;
