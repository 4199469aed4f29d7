//! The machine by itself: tables of runs, and a seeded simulation that asserts the invariants after each event.

use expect_test::{Expect, expect};
use subak_domain::job::{Role, ShortCircuit, TaskWork};
use subak_domain::{AssetKey, FailureClass, Reason, Work};
use subak_domain::{Rule, Trigger};
use subak_plan::trigger::{Counts, Decision, decide};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("time")
}

fn key(name: &str) -> AssetKey {
    name.parse().expect("key")
}

/// One step a line: `name`, or `name <- needs …`. A `?` after the name: planned only because upstream may change.
fn actions(text: &str) -> Vec<Action> {
    let action = |line: &str| {
        let (name, needs) = line.split_once("<-").unwrap_or((line, ""));
        let (name, is_only_upstream) = name.trim().strip_suffix('?').map_or((name.trim(), false), |name| (name, true));
        let reason = if is_only_upstream { Reason::UpstreamMayChange { upstream: key("x") } } else { Reason::Missing };
        Action {
            step: StepId::asset(&key(name)),
            work: Work::Materialize { asset: key(name), full_refresh: false, range: None, partition: None },
            reason,
            needs: needs.split_whitespace().map(|need| StepId::asset(&key(need))).collect(),
            rule: Rule::default(),
        }
    };
    text.lines().map(action).collect()
}

fn failure(class: FailureClass) -> Box<Failure> {
    Box::new(Failure {
        code: "SBK0311".into(),
        message: "x".into(),
        causes: Vec::new(),
        data: String::new(),
        help: Vec::new(),
        class,
        checks: Vec::new(),
        elapsed_ms: 0,
        published: None,
        usage: None,
    })
}

fn outcome(changed: bool) -> StepOutcome {
    StepOutcome { changed, ..StepOutcome::default() }
}

fn show(effects: &[Effect]) -> String {
    let one = |effect: &Effect| match effect {
        Effect::Start { step, attempt } => format!("start {step}#{attempt}"),
        Effect::Adopt(step) => format!("adopt {step}"),
        Effect::Stop(step) => format!("stop {step}"),
        Effect::WakeAt(time) => format!("wake at {}", time.as_second()),
        Effect::Finish(status) => format!("finish {status}"),
    };
    effects.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Plays a script: each word is `begin`, `a+` (changed), `a=` (unchanged), `a!` (fails), `a~` (transient failure), `cancel` or a
/// time in seconds.
#[track_caller]
fn assert_run(plan: &str, slots_max: usize, script: &str, expect: &Expect) {
    let mut machine = Machine::new(RunState::planned(actions(plan)), slots_max, BTreeMap::new());
    let mut now = at(0);
    let mut text = String::new();
    for word in script.split_whitespace() {
        let step = |suffix: char| StepId::asset(&key(word.trim_end_matches(suffix)));
        let input = match word.chars().last() {
            _ if word == "begin" => Input::Begin { holder: "test".into() },
            _ if word == "cancel" => Input::Cancel { by: "test".into() },
            Some('+') => Input::Ended { step: step('+'), result: Ok(outcome(true)) },
            Some('=') => Input::Ended { step: step('='), result: Ok(outcome(false)) },
            Some('!') => Input::Ended { step: step('!'), result: Err(failure(FailureClass::Input)) },
            Some('~') => Input::Ended { step: step('~'), result: Err(failure(FailureClass::Unavailable)) },
            _ => {
                now = at(word.parse().expect("seconds"));
                Input::Woke
            }
        };
        let (_, effects) = machine.handle(now, input).expect("legal");
        text.push_str(&format!("{word}: {}\n", show(&effects)));
    }
    let line = |(step, state): (&StepId, &StepState)| format!("{step} {}", state.status.as_str());
    text.push_str(&machine.state().steps.iter().map(line).collect::<Vec<_>>().join(", "));
    expect.assert_eq(&text);
}

#[test]
fn runs_in_order_within_its_slots() {
    assert_run(
        "a\nb\nc <- a b",
        1,
        "begin a+ b+ c+",
        &expect![[r#"
        begin: start a#1
        a+: start b#1
        b+: start c#1
        c+: finish succeeded
        a succeeded, b succeeded, c succeeded"#]],
    );
    assert_run(
        "a\nb\nc",
        2,
        "begin b+ a+ c+",
        &expect![[r#"
        begin: start a#1, start b#1
        b+: start c#1
        a+: 
        c+: finish succeeded
        a succeeded, b succeeded, c succeeded"#]],
    );
    assert_run(
        "",
        2,
        "begin",
        &expect![[r#"
        begin: finish succeeded
    "#]],
    );
}

/// T-45: a run has failed only when nothing of it is unfinished.
#[test]
fn a_failure_skips_what_needs_it_and_nothing_else() {
    assert_run(
        "a\nb\nc <- a\nd <- c\ne <- b",
        4,
        "begin a! b+ e+",
        &expect![[r#"
        begin: start a#1, start b#1
        a!: 
        b+: start e#1
        e+: finish failed
        a failed, b succeeded, c skipped, d skipped, e succeeded"#]],
    );
}

#[test]
fn unchanged_upstream_skips_what_was_planned_for_it() {
    assert_run(
        "a\nb? <- a\nc? <- b\nd <- c",
        4,
        "begin a= d+",
        &expect![[r#"
        begin: start a#1
        a=: start d#1
        d+: finish succeeded
        a succeeded, b skipped, c skipped, d succeeded"#]],
    );
}

#[test]
fn transient_failures_are_tried_again_while_others_go_on() {
    assert_run(
        "a\nb",
        1,
        "begin a~ b+ 5 a~ 60 a~",
        &expect![[r#"
            begin: start a#1
            a~: start b#1
            b+: wake at 1
            5: start a#2
            a~: wake at 6
            60: start a#3
            a~: finish failed
            a failed, b succeeded"#]],
    );
}

/// T-54: what is lost is tried again with a budget of its own, and then it has failed; a task that is to be tried once is not.
#[test]
fn lost_attempts_have_a_budget_of_their_own() {
    let ends = |mut action: Action, is_task: bool| {
        if is_task {
            action.step = StepId::task("a");
            action.work = Work::Task(TaskWork::Notify { receiver: String::new(), message: String::new() });
            action.rule.task = "a".to_owned();
            action.rule.limits = Some(job::TaskLimits::new(
                Retry { attempts_max: std::num::NonZeroU32::MIN, ..Retry::default() },
                std::time::Duration::from_secs(60),
            ));
        }
        let step = action.step.clone();
        let mut machine = Machine::new(RunState::planned(vec![action]), 1, BTreeMap::new());
        machine.handle(at(0), Input::Begin { holder: "test".into() }).expect("legal");
        let mut attempts = 1;
        while !machine.state().status.is_final() {
            let ended = vec![(step.clone(), Err(failure::lost("dead")))];
            machine = Machine::new(machine.state().clone(), 1, BTreeMap::new());
            machine.handle(at(attempts), Input::TakeOver { holder: "next".into(), ended }).expect("legal");
            attempts += 1;
        }
        (attempts - 1, machine.state().status)
    };
    let action = || actions("a").remove(0);
    assert_eq!(ends(action(), false), (4, RunStatus::Failed));
    assert_eq!(ends(action(), true), (1, RunStatus::Failed));
}

/// A selection in which tasks make an asset is no job of tasks: whatever fails in it fails it.
#[test]
fn tasks_of_an_asset_hide_no_failed_check() {
    let mut plan = actions("a\nb <- a\nt");
    plan[2].rule.task = "b.t".to_owned();
    let mut machine = Machine::new(RunState::planned(plan), 3, BTreeMap::new());
    machine.handle(at(0), Input::Begin { holder: "test".into() }).expect("legal");
    let checks = vec![subak_domain::CheckOutcome::after("c".to_owned(), subak_domain::Severity::Error, 1)];
    for (name, checks) in [("a", checks), ("t", Vec::new()), ("b", Vec::new())] {
        let result = Ok(StepOutcome { checks, ..outcome(true) });
        machine.handle(at(1), Input::Ended { step: StepId::asset(&key(name)), result }).expect("legal");
    }
    assert_eq!(machine.state().status, RunStatus::Failed);
}

/// T-70: the end of a wait for another attempt starts nothing in a run that is canceled.
#[test]
fn cancel_stops_what_runs_and_drops_the_rest() {
    assert_run(
        "a\nb\nc <- a",
        1,
        "begin cancel a+",
        &expect![[r#"
        begin: start a#1
        cancel: stop a
        a+: finish canceled
        a succeeded, b canceled, c canceled"#]],
    );
    assert_run(
        "a",
        1,
        "begin a~ cancel 100",
        &expect![[r#"
        begin: start a#1
        a~: wake at 1
        cancel: finish canceled
        100: 
        a canceled"#]],
    );
}

/// xorshift64*, so that a seed is the whole story of a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}

fn random_plan(random: &mut Random) -> Vec<Action> {
    let count = 1 + random.below(12);
    let name = |at: usize| StepId::asset(&key(&format!("s{at:02}")));
    let action = |at: usize, random: &mut Random| {
        let needs: BTreeSet<StepId> = (0..at).filter(|_| random.below(4) == 0).map(name).collect();
        let is_only_upstream = random.below(2) == 0;
        Action {
            step: name(at),
            work: Work::Materialize { asset: key(&format!("s{at:02}")), full_refresh: false, range: None, partition: None },
            reason: if is_only_upstream { Reason::UpstreamMayChange { upstream: key("x") } } else { Reason::Missing },
            needs: needs.into_iter().collect(),
            rule: Rule::default(),
        }
    };
    (0..count).map(|at| action(at, random)).collect()
}

/// A job: tasks with rules of every kind, conditions, short circuits and lists.
fn random_job(random: &mut Random) -> Vec<Action> {
    let count = 1 + random.below(12);
    let name = |at: usize| StepId::task(&format!("t{at:02}"));
    let wait = |task: String, needs: Vec<StepId>, rule: Rule| Action {
        step: StepId::task(&task),
        // Most do something; one that waits takes up no room.
        work: Work::Task(if task.ends_with('3') {
            TaskWork::Wait { wait_ms: 0 }
        } else {
            TaskWork::Notify { receiver: String::new(), message: String::new() }
        }),
        reason: Reason::Job,
        needs,
        rule: Rule { task, ..rule },
    };
    let action = |at: usize, random: &mut Random| {
        let needs: BTreeSet<StepId> = (0..at).filter(|_| random.below(3) == 0).map(name).collect();
        let rule = Rule {
            trigger: Trigger::NAMES[random.below(Trigger::NAMES.len())].1,
            when: ["1 < 2", "1 > 2", "tasks.nobody.value"].get(random.below(12)).map(|when| (*when).to_owned()),
            role: [Role::Setup, Role::Teardown].get(random.below(6)).copied().unwrap_or_default(),
            short_circuit: [ShortCircuit::All, ShortCircuit::Direct].get(random.below(10)).copied(),
            ..Rule::default()
        };
        let mut action = wait(format!("t{at:02}"), needs.into_iter().collect(), rule);
        if random.below(5) == 0 {
            let items = ["[]", "['a', 'b']", "[1, 1]", "[{'x': 1}]", "'none'", "range(9)"][random.below(6)].to_owned();
            let inner = |name: &str, needs: Vec<StepId>| wait(format!("t{at:02}[*].{name}"), needs, Rule::default());
            let first = inner("x", vec![action.step.clone()]);
            let second = inner("y", vec![first.step.clone()]);
            let leaves = vec![second.step.clone()];
            action.rule.role = Role::Work;
            action.work = Work::Task(TaskWork::Expand { items, count_max: 5, actions: vec![first, second], leaves });
        }
        action
    };
    (0..count).map(|at| action(at, random)).collect()
}

/// A simulated process: machine, log and the steps in flight. A crash loses machine and flights; the log stays.
struct World {
    random: Random,
    log: Vec<(Timestamp, RunEvent)>,
    machine: Machine,
    running: BTreeSet<StepId>,
    now: i64,
    wake_at: Option<Timestamp>,
    committed: BTreeMap<StepId, u32>,
    slots: Slots,
    is_finished: bool,
    cancels_left: u32,
    crashes_left: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let is_job = random.below(2) == 0;
        let plan = if is_job { random_job(&mut random) } else { random_plan(&mut random) };
        let is_pooled = random.below(2) == 0;
        let used = plan.iter().filter(|_| is_pooled && random.below(2) == 0);
        let uses: Vec<StepId> = used.map(|action| action.step.clone()).collect();
        let uses = uses.into_iter().map(|step| (step, [("app".to_owned(), 1 + random.below(2))].into())).collect();
        let slots = Slots { uses, pools: [("app".to_owned(), 2)].into(), ..Slots::from(1 + random.below(3)) };
        let log = vec![(at(0), RunEvent::planned(plan.clone(), "", "", ""))];
        let (cancels_left, crashes_left) = (u32::from(random.below(3) == 0), random.below(4) as u32);
        Self {
            machine: Machine::new(RunState::planned(plan), slots.clone(), BTreeMap::new()),
            random,
            log,
            running: BTreeSet::new(),
            now: 0,
            wake_at: None,
            committed: BTreeMap::new(),
            slots,
            is_finished: false,
            cancels_left,
            crashes_left,
        }
    }

    fn state(&self) -> RunState {
        RunState::fold(self.log.iter().map(|(at, event)| (*at, event))).expect("planned").expect("legal")
    }

    /// Takes one input; a crash may happen after any number of the events have been recorded.
    fn step(&mut self, input: Input) {
        let (events, effects) = self.machine.handle(at(self.now), input).expect("legal");
        let is_crash = self.crashes_left > 0 && self.random.below(12) == 0;
        // Events of one input are appended together: whoever takes a run over finds all of them or none.
        let is_taken_over = is_crash && self.random.below(2) == 0;
        let crash_after = is_crash.then(|| {
            let (some, all_or_none) = (self.random.below(events.len() + 1), events.len() * self.random.below(2));
            if is_taken_over { all_or_none } else { some }
        });
        let recorded = crash_after.unwrap_or(events.len());
        self.log.extend(events.into_iter().take(recorded).map(|event| (at(self.now), event)));
        if is_taken_over {
            return self.take_over();
        }
        if crash_after.is_some() {
            return self.crash();
        }
        self.wake_at = None;
        for effect in effects {
            match effect {
                Effect::Start { step, .. } => assert!(self.running.insert(step), "a step started twice at once"),
                Effect::Adopt(step) => assert!(self.running.contains(&step), "a step goes on that has ended"),
                Effect::Stop(step) => assert!(self.running.contains(&step), "a step was stopped that does not run"),
                Effect::WakeAt(time) => self.wake_at = Some(time),
                Effect::Finish(_) => self.is_finished = true,
            }
        }
        self.assert_invariants();
    }

    /// The process dies, and another one takes the run over: what ran goes on, has committed without a word, or is lost.
    fn take_over(&mut self) {
        self.crashes_left -= 1;
        let state = self.state();
        if state.status.is_final() {
            self.is_finished = true;
            return;
        }
        let mut ended = Vec::new();
        let running = std::mem::take(&mut self.running);
        for (step, _) in state.steps.iter().filter(|(_, step)| step.status.is_executing()) {
            // What was recorded as begun may not have been.
            let roll = if running.contains(step) { self.random.below(3) } else { 0 };
            let result = match roll {
                0 => Err(failure::lost("dead")),
                1 => {
                    *self.committed.entry(step.clone()).or_default() += 1;
                    Ok(outcome(true))
                }
                _ => {
                    self.running.insert(step.clone());
                    continue;
                }
            };
            ended.push((step.clone(), result));
        }
        self.machine = Machine::new(state, self.slots.clone(), BTreeMap::new());
        self.wake_at = None;
        self.step(Input::TakeOver { holder: "next".into(), ended });
    }

    /// The process dies. What ran may have committed without a word; the next process records the loss and resumes.
    fn crash(&mut self) {
        self.crashes_left -= 1;
        for step in std::mem::take(&mut self.running) {
            if self.random.below(2) == 0 {
                *self.committed.entry(step).or_default() += 1;
            }
        }
        let mut state = self.state();
        let mut record = |state: &mut RunState, event: RunEvent| {
            state.apply(at(self.now), &event).expect("legal");
            self.log.push((at(self.now), event));
        };
        if !state.status.is_final() {
            record(&mut state, RunEvent::Lost { holder: "dead".into() });
            let status = state.verdict();
            record(&mut state, RunEvent::Finished { status });
        }
        if state.status == RunStatus::Succeeded {
            self.is_finished = true;
        } else {
            record(&mut state, RunEvent::Resumed { by: "test".into(), for_server: false });
            self.machine = Machine::new(state, self.slots.clone(), BTreeMap::new());
            self.wake_at = None;
            self.step(Input::Begin { holder: "next".into() });
        }
    }

    fn assert_invariants(&self) {
        let state = self.state();
        assert_eq!(&state, self.machine.state(), "live state is the fold of the log");
        let is_busy = |step: &&StepId| self.machine.action(step).is_none_or(|action| !action.is_idle());
        let busy = self.running.iter().filter(is_busy).count();
        assert!(busy <= self.slots.count_max, "more steps run than there are slots");
        let pooled: usize = self.running.iter().filter(is_busy).filter_map(|step| self.slots.uses.get(step)?.get("app")).sum();
        assert!(pooled <= 2, "more steps use a connection than it allows");
        for action in state.actions.iter().filter(|action| action.rule.task.is_empty()) {
            let is_begun = state.steps[&action.step].attempt_count > 0;
            for need in action.needs.iter().filter(|_| is_begun) {
                let status = state.steps[need].status;
                assert!(matches!(status, StepStatus::Succeeded | StepStatus::Skipped), "{} began before {need}", action.step);
            }
        }
    }

    /// One thing happens; `false` when nothing can.
    fn happen(&mut self) -> bool {
        if self.cancels_left > 0 && self.random.below(10) == 0 {
            self.cancels_left -= 1;
            self.step(Input::Cancel { by: "test".into() });
            return true;
        }
        if self.running.is_empty() {
            let Some(wake_at) = self.wake_at else { return false };
            self.now = wake_at.as_second() + 1;
            self.step(Input::Woke);
            return true;
        }
        let choice = self.random.below(self.running.len());
        let step = self.running.iter().nth(choice).cloned().expect("a running step");
        self.running.remove(&step);
        let result = match self.random.below(8) {
            0 => Err(failure(FailureClass::Input)),
            1 | 2 => Err(failure(FailureClass::Unavailable)),
            roll => {
                *self.committed.entry(step.clone()).or_default() += 1;
                Ok(outcome(roll % 2 == 0))
            }
        };
        self.step(Input::Ended { step, result });
        true
    }
}

/// What became of each task of a job is what its rule says of how everything before it ended. A job that was stopped or taken up again has
/// steps that ended twice, so only what happened in one go is asked.
fn assert_rules(state: &RunState, log: &[(Timestamp, RunEvent)]) {
    let is_disturbed = |(_, event): &(Timestamp, RunEvent)| {
        matches!(event, RunEvent::CancelRequested { .. } | RunEvent::Lost { .. } | RunEvent::Resumed { .. })
            || matches!(event, RunEvent::StepErrored { failure, .. } if failure.class == FailureClass::Lost)
    };
    if log.iter().any(is_disturbed) {
        return;
    }
    let machine = Machine::new(state.clone(), 1, BTreeMap::new());
    for action in &state.actions {
        let mut counts = Counts { total: action.needs.len(), ..Counts::default() };
        for need in &action.needs {
            machine.count(&mut counts, need);
        }
        let (step, decision) = (&state.steps[&action.step], decide(action.rule.trigger, &counts));
        let fits = match &step.skip_reason {
            None => decision == Decision::Run,
            Some(SkipReason::UpstreamFailed { .. }) => decision == Decision::UpstreamFailed,
            Some(SkipReason::UpstreamSkipped { .. } | SkipReason::Trigger { .. }) => {
                // A rule that acts early said so before something failed.
                matches!(decision, Decision::Skip | Decision::UpstreamFailed)
            }
            Some(SkipReason::Condition | SkipReason::NoItems) => decision == Decision::Run,
            Some(SkipReason::ShortCircuit { .. }) => true,
            Some(SkipReason::UpstreamUnchanged) => false,
        };
        assert!(fits, "{} ({}) is {:?} {:?} with {counts:?}", action.step, action.rule.trigger, step.status, step.skip_reason);
    }
}

/// FM-59: whatever fails, dies or is canceled, no more of a pool is taken than there is.
///
/// Seeds are fixed, so every run of this test is equal; a failing seed is printed and can be put here alone.
#[test]
fn simulation() {
    // The last one makes a group, dies before it says so, and makes it again.
    for seed in (1..=crate::seed_count(3000)).chain([12_069]) {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.step(Input::Begin { holder: "first".into() });
            let mut turns = 0;
            while !world.is_finished {
                assert!(world.happen(), "the run hangs: {:?}", world.state().steps);
                turns += 1;
                assert!(turns < 10_000, "the run does not end");
            }
            let state = world.state();
            assert!(state.status.is_final() && state.is_settled());
            if state.actions.iter().any(|action| !action.rule.task.is_empty()) {
                return assert_rules(&state, &world.log);
            }
            let is_bad = |status| matches!(status, StepStatus::Failed | StepStatus::Canceled);
            let has_bad = state.steps.values().any(|step| is_bad(step.status));
            assert_eq!(state.status == RunStatus::Succeeded, !has_bad, "the verdict is that of the steps");
        });
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}

/// T-63: a step that waits to be tried again has given its slots back.
#[test]
fn a_pool_bounds_the_steps_that_use_it() {
    let uses = ["a", "b", "c"].map(|name| (StepId::asset(&key(name)), [("app".to_owned(), 1)].into()));
    let slots = Slots { count_max: 3, pools: [("app".to_owned(), 2)].into(), uses: uses.into() };
    let mut machine = Machine::new(RunState::planned(actions("a\nb\nc\nd")), slots, BTreeMap::new());
    let (_, effects) = machine.handle(at(0), Input::Begin { holder: "test".into() }).expect("legal");
    assert_eq!(show(&effects), "start a#1, start b#1, start d#1", "what has no room lets others pass");
    let ended = |name: &str, result| Input::Ended { step: StepId::asset(&key(name)), result };
    let (_, effects) = machine.handle(at(1), ended("d", Ok(outcome(true)))).expect("legal");
    assert_eq!(show(&effects), "");
    let (_, effects) = machine.handle(at(2), ended("a", Err(failure(FailureClass::Unavailable)))).expect("legal");
    assert_eq!(show(&effects), "start c#1, wake at 3");
    let (_, effects) = machine.handle(at(9), Input::Woke).expect("legal");
    assert_eq!(show(&effects), "", "it is due, and its pool is full: whatever ends next looks again");
    let (_, effects) = machine.handle(at(10), ended("b", Ok(outcome(true)))).expect("legal");
    assert_eq!(show(&effects), "start a#2");
}
