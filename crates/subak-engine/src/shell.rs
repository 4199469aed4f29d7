//! The async shell: records events before it acts on them, executes steps, waits, stops.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use subak_connect::crash;
use subak_domain::run::IllegalEvent;
use subak_domain::{
    Action, AssetKey, Event, Failure, FailureClass, Retry, RunEvent, RunId, RunState, RunStatus, StepId, StepOutcome, Timestamp,
};
use subak_plan::expression::Values;
use subak_store::{Append, EventLog, Lease, Leases, StoreError};
use tokio::task::JoinSet;

use crate::failure::{self, DATA_UNTOUCHED};
use crate::machine::{Effect, Input, Machine, Slots};
use crate::{Clock, Reporter, StopReason, StopSignal};

/// How often a lease is renewed: three times before it runs out.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// How long an attempt that another process began has at least, whatever its bound is.
const ADOPTION_GRACE: Duration = Duration::from_secs(60);

/// Carries out one attempt of a step.
#[async_trait]
pub trait StepExecutor: Send + Sync {
    /// Waits until there is room for the step beside those of other runs. The wait is no part of the attempt's time, and the room is given back
    /// with the value.
    async fn enter(&self, run: RunId, action: &Action, stop: &StopSignal) -> Result<Room, Box<Failure>> {
        let _ = (run, action, stop);
        Ok(Box::new(()))
    }
    /// Does the work. It ends soon after `stop` asks, and never leaves half of it visible.
    async fn execute(&self, run: RunId, action: &Action, inputs: &Inputs, stop: &StopSignal)
    -> Result<StepOutcome, Box<Failure>>;
    /// What came of an attempt whose process died, if its effects are known to be durable. `None` when nothing is known.
    async fn recover(&self, run: RunId, action: &Action) -> Option<StepOutcome>;
    /// An attempt that another process began has ended here before anybody looked after what it left going on: that ends too.
    fn forget(&self, run: RunId, action: &Action) {
        let _ = (run, action);
    }
    /// Whether an attempt whose process died goes on without it, so that another process can wait for its end.
    fn goes_on(&self, run: RunId, action: &Action) -> bool {
        let _ = run;
        // Somebody waits for a time, or for a person; both come whoever waits.
        action.is_idle()
    }
}

/// Room for a step, as long as it lives.
pub type Room = Box<dyn Send>;

/// What an attempt of a step knows of its run.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The attempt, from 1; those before a resume count.
    pub attempt: u32,
    /// How long ago it began, where another process began it.
    pub adopted_after: Option<Duration>,
    /// The values of the steps before it; empty where the step is no task.
    pub values: Values,
    /// Variables that a program gets besides those of every program.
    pub environment: Vec<(String, String)>,
    /// The assets that one start of a program makes with this one and that are still to be made, this one among them, in the order of the plan.
    pub together: Vec<(StepId, AssetKey)>,
}

/// Bounds of one run.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Which steps may run at a time.
    pub slots: Slots,
    /// Retry rules by step; others have the default.
    pub retries: BTreeMap<StepId, Retry>,
    /// Upper bound for one attempt, by step.
    pub timeouts: BTreeMap<StepId, Duration>,
}

/// Everything that runs plans.
#[derive(Clone)]
pub struct Engine {
    /// Where events are recorded.
    pub log: Arc<dyn EventLog>,
    /// Where the right to act comes from.
    pub leases: Arc<dyn Leases>,
    /// The lease under which this process acts; every append is fenced by it.
    pub lease: Option<Lease>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What steps do.
    pub executor: Arc<dyn StepExecutor>,
    /// Who watches.
    pub reporter: Arc<dyn Reporter>,
    /// This process, for people.
    pub holder: String,
}

/// Why a run cannot go on. Its state stays as the log tells it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The state cannot be read or written.
    #[error("the state of the project failed")]
    Store(#[from] StoreError),
    /// The log does not fit together.
    #[error("the log of the run does not fit together")]
    Log(#[from] IllegalEvent),
    /// There is no such run.
    #[error("there is no run `{0}`")]
    UnknownRun(RunId),
    /// The run succeeded, or it has not ended.
    #[error("run `{run}` is {status} and cannot be resumed")]
    NotResumable {
        /// The run.
        run: RunId,
        /// Where it stands.
        status: RunStatus,
    },
}

/// A run that this process has in hand.
struct Hand<'a> {
    engine: &'a Engine,
    run: RunId,
    sequence: u64,
}

impl Hand<'_> {
    async fn append(&mut self, events: Vec<RunEvent>) -> Result<(), EngineError> {
        if events.is_empty() {
            return Ok(());
        }
        let now = self.engine.clock.now();
        let request = Append {
            run: self.run,
            expected: self.sequence + 1,
            events: events.into_iter().map(|event| (now, event)).collect(),
            fence: self.engine.lease.clone(),
        };
        let written = self.engine.log.append(request).await?;
        self.sequence += written.len() as u64;
        for event in &written {
            crash_point_of(&event.event);
            self.engine.reporter.event(self.run, &event.event);
        }
        Ok(())
    }
}

fn crash_point_of(event: &RunEvent) {
    match event {
        RunEvent::Planned { .. } => crash::point("run_planned"),
        RunEvent::Started { .. } => crash::point("run_started"),
        RunEvent::StepStarted { .. } => crash::point("step_started"),
        RunEvent::StepSucceeded { .. } => crash::point("step_reported"),
        _ => {}
    }
}

fn fold(run: RunId, events: &[Event]) -> Result<RunState, EngineError> {
    let state = RunState::fold(events.iter().map(|event| (event.at, &event.event)));
    Ok(state.ok_or(EngineError::UnknownRun(run))??)
}

type Ended = (StepId, Result<StepOutcome, Box<Failure>>);

impl Engine {
    /// Records a new run, which `planned` describes.
    pub async fn plan_run(&self, run: RunId, planned: RunEvent) -> Result<(), EngineError> {
        let mut hand = Hand { engine: self, run, sequence: 0 };
        hand.append(vec![planned]).await
    }

    /// Runs a recorded run to its end. A stop through `cancel` asks running steps to stop and waits for them.
    pub async fn run(&self, run: RunId, limits: &Limits, cancel: &StopSignal) -> Result<RunState, EngineError> {
        let events = self.log.read_run(run).await?;
        let state = fold(run, &events)?;
        let first = match cancel.reason() {
            None => Input::Begin { holder: self.holder.clone() },
            // One that was canceled while it waited is never begun (T-69).
            Some(_) => Input::Cancel { by: self.holder.clone() },
        };
        self.go_on(run, (state, events.len() as u64), limits, (first, BTreeMap::new()), cancel).await
    }

    /// Runs a run to its end that a process which is gone has begun. What it was doing goes on where it can, counts as done where its destination says
    /// so, and is tried again otherwise. Call it with the lease in hand, so that nobody else can be running it.
    pub async fn take_over(&self, run: RunId, dead: &str, limits: &Limits, cancel: &StopSignal) -> Result<RunState, EngineError> {
        let events = self.log.read_run(run).await?;
        let state = fold(run, &events)?;
        if state.status.is_final() {
            return Ok(state);
        }
        let mut ended = Vec::new();
        for action in &state.actions {
            let step = &state.steps[&action.step];
            if !step.status.is_executing() || self.executor.goes_on(run, action) {
                continue;
            }
            let result = self.executor.recover(run, action).await.ok_or_else(|| failure::lost(dead));
            ended.push((action.step.clone(), result));
        }
        let begun = events.iter().filter_map(|event| match &event.event {
            RunEvent::StepStarted { step, .. } => Some((step.clone(), event.position)),
            _ => None,
        });
        let begun = begun.collect();
        let first = Input::TakeOver { holder: self.holder.clone(), ended };
        self.go_on(run, (state, events.len() as u64), limits, (first, begun), cancel).await
    }

    async fn go_on(
        &self,
        run: RunId,
        (state, sequence): (RunState, u64),
        limits: &Limits,
        (first, begun): (Input, BTreeMap<StepId, u64>),
        cancel: &StopSignal,
    ) -> Result<RunState, EngineError> {
        let hand = Hand { engine: self, run, sequence };
        let machine = Machine::new(state, limits.slots.clone(), limits.retries.clone()).named(run.to_string());
        Loop {
            hand,
            machine,
            limits,
            steps: JoinSet::new(),
            stops: BTreeMap::new(),
            tasks: HashMap::new(),
            begun,
            wake_at: None,
            is_finished: false,
        }
        .run(first, cancel)
        .await
    }

    /// Records that whoever held these runs is gone: what ran has failed, what waited is canceled. Call it with the lease in
    /// hand, so that nobody can be running them.
    pub async fn settle_lost(&self, runs: &[RunId], holder: &str) -> Result<(), EngineError> {
        for run in runs {
            let events = self.log.read_run(*run).await?;
            let mut state = fold(*run, &events)?;
            if state.status.is_final() {
                continue;
            }
            // A load may have been published by a process that did not live to say so; its destination knows.
            let mut settled = Vec::new();
            for action in &state.actions.clone() {
                if state.steps[&action.step].status.is_executing()
                    && let Some(outcome) = self.executor.recover(*run, action).await
                {
                    settled.push(RunEvent::StepSucceeded { step: action.step.clone(), outcome });
                }
            }
            settled.push(RunEvent::Lost { holder: holder.to_owned() });
            for event in &settled {
                state.apply(self.clock.now(), event)?;
            }
            let status = if state.verdict() == RunStatus::Succeeded { RunStatus::Succeeded } else { RunStatus::Failed };
            settled.push(RunEvent::Finished { status });
            let mut hand = Hand { engine: self, run: *run, sequence: events.len() as u64 };
            hand.append(settled).await?;
        }
        Ok(())
    }

    /// Records that a run goes on with what is not done.
    pub async fn resume(&self, run: RunId, by: &str) -> Result<(), EngineError> {
        let events = self.log.read_run(run).await?;
        let state = fold(run, &events)?;
        if !matches!(state.status, RunStatus::Failed | RunStatus::Canceled) {
            return Err(EngineError::NotResumable { run, status: state.status });
        }
        let mut hand = Hand { engine: self, run, sequence: events.len() as u64 };
        hand.append(vec![RunEvent::Resumed { by: by.to_owned(), for_server: false }]).await
    }
}

/// One run in motion.
struct Loop<'a> {
    hand: Hand<'a>,
    machine: Machine,
    limits: &'a Limits,
    steps: JoinSet<Ended>,
    stops: BTreeMap<StepId, StopSignal>,
    /// Which step a task executes, so that a panic fails the right one.
    tasks: HashMap<tokio::task::Id, StepId>,
    /// At which position of the log another process began steps.
    begun: BTreeMap<StepId, u64>,
    wake_at: Option<Timestamp>,
    is_finished: bool,
}

impl Loop<'_> {
    /// After an error no step goes on behind the back of whoever takes the project next: a publication that has begun is waited
    /// for, everything else is stopped.
    async fn run(mut self, first: Input, cancel: &StopSignal) -> Result<RunState, EngineError> {
        let result = self.drive(first, cancel).await;
        if result.is_err() {
            for stop in self.stops.values() {
                stop.stop(StopReason::Canceled);
            }
            while self.steps.join_next().await.is_some() {}
        }
        result.map(|()| self.machine.state().clone())
    }

    async fn drive(&mut self, first: Input, cancel: &StopSignal) -> Result<(), EngineError> {
        let engine = self.hand.engine;
        let mut renew_at = engine.clock.now() + RENEW_INTERVAL;
        let (mut is_cancel_sent, mut is_held) = (matches!(first, Input::Cancel { .. }), false);
        self.take(first).await?;
        while !self.is_finished {
            let wake_at = self.wake_at.unwrap_or(renew_at).min(renew_at);
            let input = tokio::select! {
                biased;
                _ = cancel.stopped(), if !is_cancel_sent => {
                    is_cancel_sent = true;
                    Some(Input::Cancel { by: engine.holder.clone() })
                }
                () = cancel.asked_to_hold(), if !is_held => {
                    is_held = true;
                    Some(Input::Hold)
                }
                Some(ended) = self.steps.join_next_with_id() => Some(self.ended(ended)),
                () = engine.clock.sleep_until(wake_at) => None,
            };
            let now = engine.clock.now();
            if now >= renew_at {
                renew_at = now + RENEW_INTERVAL;
                if let Some(lease) = &engine.lease {
                    engine.leases.renew(lease, now).await?;
                }
            }
            match input {
                Some(input) => {
                    let holds = matches!(input, Input::Hold);
                    self.take(input).await?;
                    if holds {
                        cancel.holds();
                    }
                }
                None if self.wake_at.is_some_and(|wake_at| wake_at <= now) => self.take(Input::Woke).await?,
                None => {}
            }
        }
        Ok(())
    }

    /// Hands one input to the machine, records its events, then carries out its effects. Steps that ended meanwhile join in, so
    /// that a wide plan does not pay one commit per step.
    async fn take(&mut self, input: Input) -> Result<(), EngineError> {
        let now = self.hand.engine.clock.now();
        let (mut events, mut effects) = self.machine.handle(now, input)?;
        while let Some(ended) = self.steps.try_join_next_with_id() {
            let input = self.ended(ended);
            let (more_events, more_effects) = self.machine.handle(now, input)?;
            events.extend(more_events);
            effects.extend(more_effects);
        }
        if events.iter().any(|event| matches!(event, RunEvent::Finished { .. })) {
            crash::point("before_finish");
        }
        self.hand.append(events).await?;
        self.wake_at = None;
        for effect in effects {
            match effect {
                Effect::Start { step, .. } => self.start(step, None),
                Effect::Adopt(step) => {
                    let since = self.machine.state().steps.get(&step).and_then(|state| state.started_at);
                    self.start(step, Some(since.unwrap_or(now)));
                }
                Effect::Stop(step) => {
                    if let Some(stop) = self.stops.get(&step) {
                        stop.stop(StopReason::Canceled);
                    }
                }
                Effect::WakeAt(time) => self.wake_at = Some(time),
                Effect::Finish(_) => self.is_finished = true,
            }
        }
        Ok(())
    }

    /// Carries out an attempt that was recorded as begun; `since` when, where another process began it.
    fn start(&mut self, step: StepId, since: Option<Timestamp>) {
        let Some(action) = self.machine.action(&step).cloned() else { return };
        let (engine, run) = (self.hand.engine.clone(), self.hand.run);
        let stop = StopSignal::default();
        self.stops.insert(step.clone(), stop.clone());
        let own = action.rule.limits.map(|limits| Duration::from_millis(limits.timeout_ms));
        let timeout = self.limits.timeouts.get(&step).or_else(|| self.limits.timeouts.get(&step.base())).copied().or(own);
        // Attempts before a resume count too: what they left is not written over.
        let attempt = self.machine.state().steps.get(&step).map_or(1, |state| state.attempt_count);
        let adopted_after = since.map(|since| Duration::try_from(engine.clock.now().duration_since(since)).unwrap_or_default());
        let mut inputs = Inputs { attempt, adopted_after, ..Inputs::default() };
        if let Some(interval) = &self.machine.state().interval {
            let variable = |name: &str, value: &String| (format!("SUBAK_INTERVAL_{name}"), value.clone());
            inputs.environment = vec![
                variable("START", &interval.start),
                variable("END", &interval.end),
                variable("START_UTC", &interval.start_utc),
                variable("END_UTC", &interval.end_utc),
            ];
        }
        if !action.rule.task.is_empty() {
            inputs.values = Values::new(&run.to_string(), self.machine.state(), &action);
        }
        if let Some(invocation) = &action.rule.invocation {
            inputs.together = self.machine.made_by(invocation);
        }
        let name = step.clone();
        // What is published up to here is there when the step looks.
        let begun_at = since.and_then(|_| self.begun.get(&step).copied());
        let seen_position = Some(begun_at.unwrap_or_else(|| *engine.log.watch().borrow()));
        let task = self.steps.spawn(async move {
            let room = engine.executor.enter(run, &action, &stop).await;
            let began_at = since.unwrap_or_else(|| engine.clock.now());
            let result = match room {
                Err(failure) => Err(failure),
                Ok(_room) => {
                    let work = engine.executor.execute(run, &action, &inputs, &stop);
                    match timeout {
                        None => work.await,
                        Some(timeout) => {
                            let mut deadline = began_at + timeout;
                            if since.is_some() {
                                // What ended in time while nobody looked has.
                                deadline = deadline.max(engine.clock.now() + ADOPTION_GRACE);
                            }
                            within(engine.clock.as_ref(), deadline, &stop, work).await
                        }
                    }
                }
            };
            if since.is_some() && result.is_err() {
                engine.executor.forget(run, &action);
            }
            let elapsed_ms = engine.clock.now().duration_since(began_at).as_millis().max(0) as u64;
            let result = match result {
                Ok(outcome) => Ok(StepOutcome { elapsed_ms, seen_position, ..outcome }),
                Err(failure) => {
                    let mut failure = Failure { elapsed_ms, ..*failure };
                    if let Some(published) = &mut failure.published {
                        published.seen_position = seen_position;
                    }
                    Err(Box::new(failure))
                }
            };
            (step, result)
        });
        self.tasks.insert(task.id(), name);
    }

    /// What ended; a panic becomes the failure of its step.
    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) -> Input {
        let (step, result) = match ended {
            Ok((task, ended)) => {
                self.tasks.remove(&task);
                ended
            }
            Err(error) => {
                let step = self.tasks.remove(&error.id()).unwrap_or_else(|| StepId::check("unknown"));
                let mut failure = failure::plain("SBK0315", "the step panicked".into(), DATA_UNTOUCHED, FailureClass::Internal);
                failure.causes.push(panic_text(error));
                (step, Err(failure))
            }
        };
        self.stops.remove(&step);
        Input::Ended { step, result }
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "a panic without a message".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

/// Asks the work to stop at the deadline and waits until it has.
async fn within(
    clock: &dyn Clock,
    deadline: Timestamp,
    stop: &StopSignal,
    work: impl Future<Output = Result<StepOutcome, Box<Failure>>>,
) -> Result<StepOutcome, Box<Failure>> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => result,
        () = clock.sleep_until(deadline) => {
            stop.stop(StopReason::TimedOut);
            work.await
        }
    }
}

#[cfg(test)]
mod tests;
