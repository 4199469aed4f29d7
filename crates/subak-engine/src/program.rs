//! Programs as tasks: started in a process group of their own, heard, stopped with everything that they started.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use subak_domain::event::Usage;
use subak_domain::job::{Command as Started, Program, ProgramLimits};
use subak_domain::{Action, CheckOutcome, Failure, FailureClass, RunId, Severity, StepId, StepOutcome};

use crate::dbt::Results;
use crate::failure::{self, DATA_NOT_BEGUN};
use crate::output::{Log, Output};
use crate::pipes::{Heard, Pipes};
use crate::task::{fitting, rendered};
use crate::{DataExecutor, Inputs, Outbound, StopReason, StopSignal, orphan, outbound, usage};

/// How long a program that was asked to stop may take.
const GRACE: Duration = Duration::from_secs(10);

/// How often messages of a program are looked for.
const LISTEN_INTERVAL: Duration = Duration::from_millis(200);

/// How often somebody who waits for room on the disk looks again.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// How long what a program left behind has to end.
const LEFT_GRACE: Duration = Duration::from_secs(5);

/// How often what does not go is killed again.
const KILL_COUNT_MAX: usize = 50;

/// What is said of a program that left something behind.
const LEFT_BEHIND: &str = "the program left processes behind when it ended; they were ended too";

/// Characters of a line that a failure shows.
const CAUSE_LENGTH_MAX: usize = 1_000;

/// What starts a program, waits for it and writes down how it ended, so that whoever asks finds out even when nobody was there: the folder of the
/// session is `$0`, the program the rest. First it notes which group it has, as [`orphan`] reads it; where the folder is gone, so is whoever wanted the
/// program. A subshell that cannot become the program says so. It outlives a signal to the group that the program ends by, for as long as the program
/// does.
const SHIM: &str = r#"trap : HUP INT TERM
note() {
  read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat && set -- ${stat##*)} && echo "$$ $boot ${20}"
}
{ (note) || :; } 2>/dev/null >"$0/group" || exit 1
(trap 'echo missing >"$0/exit"' EXIT; exec "$@" 2>&1)
code=$?
times >"$0/times"
[ -e "$0/exit" ] || echo "$code" >"$0/exit"
exit "$code"
"#;

/// Bytes of output that may wait to be read; of more the oldest are left out.
const BACKLOG_LENGTH_MAX: u64 = 64 * 1024 * 1024;

/// How often output is read at a time, and how much of it about.
const READ_COUNT_MAX: usize = 16;
const READ_LENGTH: u64 = 16 * 1024 * 1024;

/// What is true of a program that did not end well.
pub(crate) const DATA_PROGRAM: &str = "what the program did before it ended is done; Subak knows nothing of it";

/// What a failure says of checks that a program reports.
pub(crate) const REPORTED: &str = "the program reported failed checks";

/// The process groups of programs that run now.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills all programs that run now, for a process that ends at once.
pub fn kill_all() {
    for group in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // It may be gone already.
        if killpg(Pid::from_raw(*group), Signal::SIGKILL).is_err() {}
    }
}

/// A process group; whatever is left of it is killed with the value.
pub(crate) struct Group(Option<Pid>);

impl Group {
    pub(crate) fn of(process: Option<i32>) -> Self {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).extend(process);
        Self(process.map(Pid::from_raw))
    }

    /// Whether nothing is left of it. What has ended and nobody has waited for is gone.
    fn is_gone(&self) -> bool {
        self.0.is_none_or(|group| killpg(group, None).is_err() || usage::only_zombies(group))
    }

    /// Best effort: the group may be gone.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0
            && let Err(error) = killpg(group, signal)
        {
            debug_assert_ne!(error, nix::errno::Errno::EPERM, "a group of ours");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(group) = self.0 {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&group.as_raw());
        }
    }
}

/// Where the output of an attempt is kept.
pub fn log_path(logs: &Path, run: RunId, step: &StepId, attempt: u32) -> PathBuf {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let name: String = step.as_str().chars().map(|letter| if is_plain(letter) { letter } else { '_' }).take(120).collect();
    // Two steps whose names differ in other letters only have files of their own.
    let tag = subak_domain::Version::of(&[("step", step.as_str())]);
    logs.join(run.to_string()).join(format!("{name}-{}.{attempt}.log", &tag.as_str()[..6]))
}

/// One start of a program.
pub(crate) struct Session<'a> {
    pub(crate) executor: &'a DataExecutor,
    pub(crate) run: RunId,
    pub(crate) step: &'a StepId,
    pub(crate) inputs: &'a Inputs,
    pub(crate) stop: &'a StopSignal,
    pub(crate) pipes: Pipes,
}

/// A program that ended by itself.
pub(crate) struct Ended {
    pub(crate) pipes: Pipes,
    pub(crate) heard: Heard,
    /// Why it did not end well.
    pub(crate) failure: Option<Box<Failure>>,
    /// What dbt says of its nodes, where it is dbt.
    pub(crate) results: Results,
    /// What it used.
    pub(crate) usage: Usage,
}

impl Ended {
    /// The program, unless it did not end well.
    pub(crate) fn well(mut self) -> Result<Self, Box<Failure>> {
        self.failure.take().map_or(Ok(self), Err)
    }
}

/// Runs the program of a task to its end.
pub(crate) async fn run(
    executor: &DataExecutor,
    run: RunId,
    action: &Action,
    program: &Program,
    inputs: &Inputs,
    stop: &StopSignal,
) -> Result<StepOutcome, Box<Failure>> {
    let pipes = Session::files(executor, (run, &action.step, inputs), &context(executor, run, inputs), stop).await?;
    let session = Session { executor, run, step: &action.step, inputs, stop, pipes };
    let Ended { pipes, heard, usage, .. } = session.carry_out(program, &[]).await?.well()?;
    let written = pipes.value().map_err(|problem| {
        let mut failure =
            failure::plain("SBK0327", "the value of the program is no JSON".into(), DATA_PROGRAM, FailureClass::Input);
        failure.causes.push(problem);
        failure.help.push("write one JSON value to the file that `SUBAK_VALUE_PATH` names".into());
        failure
    })?;
    let warnings = warnings(&heard);
    let value = written.or(heard.value).map(fitting).transpose()?;
    let checks = refuse_failed(heard.checks.into_iter().map(|(_, check)| check).collect(), REPORTED, DATA_PROGRAM)?;
    let (metadata, usage) = (heard.metadata, Some(usage));
    Ok(StepOutcome { changed: true, value, metadata, checks, warnings, usage, ..StepOutcome::default() })
}

/// What should have been said otherwise.
pub(crate) fn warnings(heard: &Heard) -> Vec<String> {
    let mut found: Vec<String> = heard.left.iter().cloned().collect();
    if let Some(exception) = &heard.exception {
        found.push(format!("the program reported an error and ended with code 0: {exception}"));
    } else if heard.is_opened && !heard.is_closed {
        found.push("the program opened its Pipes session and did not close it".to_owned());
    }
    found
}

/// The checks, unless one of error severity failed.
pub(crate) fn refuse_failed(checks: Vec<CheckOutcome>, what: &str, data: &str) -> Result<Vec<CheckOutcome>, Box<Failure>> {
    let is_failed = |check: &&CheckOutcome| !check.passed() && check.severity == Severity::Error;
    let names: Vec<String> = checks.iter().filter(is_failed).map(|check| format!("`{}`", check.check)).collect();
    if names.is_empty() {
        return Ok(checks);
    }
    let message = format!("{what}: {}", names.join(", "));
    let mut failure = failure::plain("SBK0312", message, data, FailureClass::Check);
    failure.checks = checks;
    Err(failure)
}

impl Session<'_> {
    /// The files of a session whose program is told `context`: new ones, or those of the program that goes on.
    pub(crate) async fn files(
        executor: &DataExecutor,
        (run, step, inputs): (RunId, &StepId, &Inputs),
        context: &Value,
        stop: &StopSignal,
    ) -> Result<Pipes, Box<Failure>> {
        let temporary = &executor.place.temporary;
        if inputs.adopted_after.is_some() {
            return orphan::find(temporary, run, step).map(Pipes::adopt).ok_or_else(|| failure::lost("the program"));
        }
        let owner = orphan::owner(run, step, inputs);
        loop {
            match Pipes::open(temporary, &owner, context) {
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull && executor.place.waits_for_room => {
                    let waited = stop.guard(tokio::time::sleep(ROOM_INTERVAL)).await;
                    waited.map_err(|reason| failure::of_stop(reason, DATA_NOT_BEGUN))?;
                }
                opened => return opened.map_err(|error| not_prepared(&error)),
            }
        }
    }

    /// Runs the program to its end. `variables` come beside those of every program.
    pub(crate) async fn carry_out(self, program: &Program, variables: &[(&str, String)]) -> Result<Ended, Box<Failure>> {
        let Self { executor, run, step, inputs, stop, mut pipes } = self;
        let left = pipes.take_group();
        let place = &executor.place;
        // Of one that goes on too: the secrets that it was given are known by this, and taken out of what it says.
        let mut command = command(executor, program, inputs, pipes.root())?;
        let path = match pipes.adopted() {
            Some(adopted) => log_path(&place.logs, run, &adopted.step, adopted.attempt),
            None => log_path(&place.logs, run, step, inputs.attempt),
        };
        let mut log = Log::open(&path, pipes.adopted().is_none()).await;
        let (child, group) = if pipes.adopted().is_some() {
            (None, left.unwrap_or_else(|| Group::of(None)))
        } else {
            let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
            let child = start(&mut command, executor, (run, step, inputs), &pipes, variables)?;
            let group = Group::of(i32::try_from(child.id()).ok());
            (Some(child), group)
        };
        let mut heard = Heard::default();
        let bounds = Bounds { stop, limits: &program.limits };
        let ended = listen(executor, child, &group, &pipes, &mut heard, &mut log, bounds).await;
        // What the program left behind goes with it.
        drop(group);
        pipes.hear(&mut heard, |line| (place.mask)(line));
        log.lines(std::mem::take(&mut heard.lines).into_iter()).await;
        log.end().await;
        let (status, usage) = ended.map_err(|mut failure| {
            failure.causes.extend(heard.left.clone());
            failure
        })?;
        if pipes.is_missing() {
            return Err(not_started(program, &std::io::ErrorKind::NotFound.into()));
        }
        if let Some(problem) = &heard.problem {
            let mut failure = failure::plain("SBK0329", problem.clone(), DATA_PROGRAM, FailureClass::Input);
            failure.help.push("messages are those of Dagster's Pipes, version 0.1".into());
            return Err(failure);
        }
        let failure = (!status.success()).then(|| {
            let mut failure = ended_badly(&heard, status, &log, &path);
            failure.usage = Some(usage);
            failure
        });
        Ok(Ended { pipes, heard, failure, results: Results::new(), usage })
    }
}

/// What the program is told of its run in the words of Dagster's Pipes.
pub(crate) fn context(executor: &DataExecutor, run: RunId, inputs: &Inputs) -> Value {
    serde_json::json!({
        "asset_keys": null, "code_version_by_asset_key": null, "provenance_by_asset_key": null, "partition_key": null,
        "partition_key_range": null, "partition_time_window": null, "run_id": run.to_string(), "job_name": null,
        "retry_number": inputs.attempt.saturating_sub(1), "extras": { "as_of": executor.as_of },
    })
}

/// Starts a program, in a group of its own.
fn start<'v>(
    command: &mut Command,
    executor: &DataExecutor,
    (run, step, inputs): (RunId, &StepId, &Inputs),
    pipes: &Pipes,
    variables: impl Iterator<Item = (&'v str, &'v str)>,
) -> Result<Child, Box<Failure>> {
    let output = pipes.output().map_err(|error| not_prepared(&error))?;
    command
        .env("SUBAK_RUN_ID", run.to_string())
        .env("SUBAK_STEP", step.as_str())
        .env("SUBAK_ATTEMPT", inputs.attempt.to_string())
        .env("SUBAK_AS_OF", &executor.as_of)
        .env("SUBAK_PROJECT", &executor.place.root)
        .env("SUBAK_VALUE_PATH", pipes.value_path())
        .envs(pipes.environment())
        .envs(inputs.environment.iter().map(|(name, value)| (name, value)))
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().map_err(|error| not_prepared(&error))
}

/// What starts the program: see [`SHIM`].
fn command(executor: &DataExecutor, program: &Program, inputs: &Inputs, session: &Path) -> Result<Command, Box<Failure>> {
    let text = |text: &String| rendered(&inputs.values, text);
    let words: Vec<String> = match &program.command {
        Started::Shell(line) => vec!["/bin/sh".into(), "-c".into(), text(line)?],
        Started::Direct(words) => words.iter().map(text).collect::<Result<_, _>>()?,
        Started::Python(words) => {
            let words: Vec<String> = words.iter().map(text).collect::<Result<_, _>>()?;
            executor.place.python.iter().cloned().chain(words).collect()
        }
    };
    if words.is_empty() {
        return Err(failure::plain("SBK0328", "the task names no program".into(), DATA_NOT_BEGUN, FailureClass::Input));
    }
    let mut command = Command::new("/bin/sh");
    let dir = program.dir.as_ref().map(text).transpose()?;
    let dir = dir.map_or_else(|| executor.place.root.clone(), |dir| executor.place.root.join(dir));
    if !dir.is_dir() {
        return Err(not_started(program, &std::io::ErrorKind::NotFound.into()));
    }
    command.args(["-c", SHIM]).arg(session).args(words).current_dir(dir);
    for name in &executor.place.hidden {
        command.env_remove(name);
    }
    for (name, value) in &program.env {
        let mut failed = None;
        let mut literal = |part: &str| text(&part.to_owned()).unwrap_or_else(|failure| failed.insert(failure).message.clone());
        let value = executor.connections.resolve(value, &mut literal);
        if let Some(failure) = failed {
            return Err(failure);
        }
        let value = value.map_err(|error| failure::of_connect(&error, DATA_NOT_BEGUN))?;
        command.env(name, value);
    }
    Ok(command)
}

pub(crate) fn not_prepared(error: &std::io::Error) -> Box<Failure> {
    let mut failure = failure::plain("SBK0310", "the program cannot be prepared".into(), DATA_NOT_BEGUN, FailureClass::Resource);
    failure.causes.push(error.to_string());
    failure
}

fn not_started(program: &Program, error: &std::io::Error) -> Box<Failure> {
    let name = match &program.command {
        Started::Shell(_) => "/bin/sh",
        Started::Direct(words) => words.first().map_or("", String::as_str),
        Started::Python(_) => "python3",
    };
    let mut failure = failure::plain("SBK0328", format!("`{name}` cannot be started"), DATA_NOT_BEGUN, FailureClass::Input);
    failure.causes.push(error.to_string());
    failure.help.push("is it installed, on the `PATH` and executable, and is `dir:` a folder of the project?".into());
    failure
}

/// What may end a program before it ends by itself.
struct Bounds<'a> {
    stop: &'a StopSignal,
    limits: &'a ProgramLimits,
}

/// What is seen of a program while it runs.
#[derive(Default)]
struct Seen {
    usage: Usage,
    /// In which way it has used too much.
    excess: Option<String>,
}

impl Seen {
    /// Looks what a program uses, and kills one that uses too much.
    fn look(&mut self, group: &Group, limits: &ProgramLimits) {
        let Some(program) = group.0 else { return };
        self.usage.memory_bytes_max = self.usage.memory_bytes_max.max(usage::memory_peak(program));
        if self.excess.is_none() {
            self.excess = usage::excess(limits, program);
            if self.excess.is_some() {
                // What waits for the program is ended with it, and has not counted it.
                self.usage.cpu_ms = usage::cpu_now(program);
                group.signal(Signal::SIGKILL);
            }
        }
    }
}

/// How a program ends, which this process has started or another one.
async fn ended(child: Option<Child>, pipes: &Pipes) -> Result<(ExitStatus, Usage), Box<Failure>> {
    let Some(child) = child else { return ended_elsewhere(pipes).await.ok_or_else(|| failure::lost("the program")) };
    match usage::wait(child).await {
        // What waits for the program was killed, and nobody knows what the program has done.
        Ok((status, _)) if status.signal().is_some() => Err(failure::lost("the program")),
        Ok((status, usage)) => Ok((of_shell(status), usage)),
        Err(error) => Err(not_prepared(&error)),
    }
}

/// Follows a program until it has ended and said everything. Asks it to stop when somebody asks the step to, and kills one that uses too much.
async fn listen(
    executor: &DataExecutor,
    child: Option<Child>,
    group: &Group,
    pipes: &Pipes,
    heard: &mut Heard,
    log: &mut Log,
    bounds: Bounds<'_>,
) -> Result<(ExitStatus, Usage), Box<Failure>> {
    let Bounds { stop, limits } = bounds;
    let mut output = Output::open(&pipes.output_path(), pipes.kept_offset()).map_err(|error| not_prepared(&error))?;
    let mut waiting = std::pin::pin!(ended(child, pipes));
    let mask = |line: &str| (executor.place.mask)(line);
    let (mut status, mut stopped, mut kill_at) = (None, None, None);
    let mut seen = Seen::default();
    let mut tick = tokio::time::interval(LISTEN_INTERVAL);
    // What it has started and left behind is given the time to end too.
    while status.is_none() || !group.is_gone() {
        tokio::select! {
            // What has ended by itself has, whatever else comes at the same time.
            biased;
            ended = waiting.as_mut(), if status.is_none() => {
                status = Some(ended);
                if stopped.is_none() && !group.is_gone() {
                    heard.left.get_or_insert_with(|| LEFT_BEHIND.to_owned());
                }
                group.signal(Signal::SIGTERM);
                kill_at.get_or_insert(tokio::time::Instant::now() + LEFT_GRACE);
            }
            // What has ended by itself cannot be stopped any more.
            reason = stop.stopped(), if stopped.is_none() && status.is_none() => {
                stopped = Some(reason);
                // What has a group of its own is known by what it was told, and hears of it together with the group.
                group.signal(Signal::SIGTERM);
                signal_each(&escaped(group, &pipes.value_path()).await, Signal::SIGTERM);
                kill_at = Some(tokio::time::Instant::now() + GRACE);
            }
            _ = tick.tick() => {
                keep(pipes, &mut output, heard, log, mask).await;
                if status.is_none() {
                    seen.look(group, limits);
                }
                let now = tokio::time::Instant::now();
                if kill_at.is_some_and(|at| now >= at) {
                    group.signal(Signal::SIGKILL);
                }
                // One that the system holds cannot be waited for.
                if status.is_some() && kill_at.is_some_and(|at| now >= at + LISTEN_INTERVAL * 5) {
                    break;
                }
            }
        }
    }
    if stopped.is_some() || seen.excess.is_some() {
        let kill_at = kill_at.filter(|_| stopped.is_some());
        end_escaped(group, &pipes.value_path(), kill_at, heard, log).await;
    }
    if let Some(group) = group.0.filter(|_| !group.is_gone()) {
        heard.left = Some(format!("processes of the program cannot be ended, and go on in process group {group}"));
    }
    for _ in 0..=BACKLOG_LENGTH_MAX / READ_LENGTH {
        let before = output.offset();
        keep(pipes, &mut output, heard, log, mask).await;
        if output.offset() == before {
            break;
        }
    }
    log.lines(output.rest().iter().map(|line| mask(line))).await;
    told(stopped, seen, status)
}

/// Best effort: a process may be gone.
fn signal_each(processes: &[Pid], signal: Signal) {
    for process in processes {
        nix::sys::signal::kill(*process, signal).unwrap_or_default();
    }
}

/// What has left the group of a program, as far as that can be seen. Looking at a process may take its time where the system holds it.
async fn escaped(group: &Group, told: &Path) -> Vec<Pid> {
    let (group, told) = (group.0, told.to_owned());
    let looking = tokio::task::spawn_blocking(move || usage::escaped(group, &told));
    tokio::time::timeout(GRACE, looking).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Ends what a program has started in groups of their own, once the time is over that everything has to end by itself, and waits until it is gone.
async fn end_escaped(group: &Group, told: &Path, kill_at: Option<tokio::time::Instant>, heard: &mut Heard, log: &mut Log) {
    let mut left = escaped(group, told).await;
    while !left.is_empty() && kill_at.is_some_and(|at| tokio::time::Instant::now() < at) {
        tokio::time::sleep(LISTEN_INTERVAL).await;
        left = escaped(group, told).await;
    }
    let mut killed: BTreeSet<Pid> = BTreeSet::new();
    for _ in 0..KILL_COUNT_MAX {
        if left.is_empty() {
            break;
        }
        // What they start meanwhile is found the next time.
        signal_each(&left, Signal::SIGKILL);
        killed.extend(left);
        tokio::time::sleep(LISTEN_INTERVAL).await;
        left = escaped(group, told).await;
    }
    let in_words = |processes: &mut dyn Iterator<Item = &Pid>| processes.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !killed.is_empty() {
        let line = format!("processes that had left the group of the program were killed: {}", in_words(&mut killed.iter()));
        log.lines(std::iter::once(line)).await;
    }
    if !left.is_empty() {
        let which = in_words(&mut left.iter());
        heard.left = Some(format!("processes that have left the group of the program cannot be ended, and go on: {which}"));
    }
}

/// What came of a program that was followed to its end.
fn told(
    stopped: Option<StopReason>,
    seen: Seen,
    status: Option<Result<(ExitStatus, Usage), Box<Failure>>>,
) -> Result<(ExitStatus, Usage), Box<Failure>> {
    if let Some(reason) = stopped {
        return Err(failure::of_stop(reason, DATA_PROGRAM));
    }
    if let Some(message) = seen.excess {
        // What waited for it may have been ended with it.
        let told = status.and_then(Result::ok).map_or_else(Usage::default, |(_, usage)| usage);
        return Err(used_too_much(message, Some(most(told, seen.usage))));
    }
    match status {
        Some(ended) => ended.map(|(status, usage)| (status, most(usage, seen.usage))),
        None => Err(failure::plain("SBK0315", "a program ended unseen".into(), DATA_PROGRAM, FailureClass::Internal)),
    }
}

/// Takes over what a program has said since the last time.
async fn keep(pipes: &Pipes, output: &mut Output, heard: &mut Heard, log: &mut Log, mask: impl Fn(&str) -> String) {
    pipes.hear(heard, &mask);
    let mut has_new = !heard.lines.is_empty();
    log.lines(heard.lines.drain(..)).await;
    // A program may write faster than it is read: then some of it is left out, and nothing else waits for the rest.
    log.leave_out(output.skip(BACKLOG_LENGTH_MAX));
    for _ in 0..READ_COUNT_MAX {
        let before = output.position();
        let lines = output.lines(&mask);
        if output.position() == before {
            break;
        }
        has_new = true;
        log.lines(lines.into_iter()).await;
        tokio::task::yield_now().await;
    }
    if has_new {
        pipes.note_kept(output.offset());
    }
}

/// How a program ended that another process had started; `None` where nobody knows.
async fn ended_elsewhere(pipes: &Pipes) -> Option<(ExitStatus, Usage)> {
    loop {
        let goes_on = orphan::goes_on(pipes.root());
        if let Some((code, cpu_ms)) = orphan::ended(pipes.root()) {
            let usage = Usage { cpu_ms, memory_bytes_max: None };
            return Some((of_shell(ExitStatus::from_raw(code << 8)), usage));
        }
        if !goes_on {
            return None;
        }
        tokio::time::sleep(LISTEN_INTERVAL).await;
    }
}

/// How a program ended, by how the shell did that waited for it: one that a signal has ended has that and 128 as its code. Signals that end no program
/// in practice are codes.
fn of_shell(status: ExitStatus) -> ExitStatus {
    let is_deadly = |code: &i32| matches!(code - 128, 1..=4 | 6..=9 | 11 | 13..=15 | 24 | 25);
    match status.code().filter(is_deadly) {
        Some(code) => ExitStatus::from_raw(code - 128),
        _ => status,
    }
}

/// What the system tells of a program's end, and what was seen before where that is more.
fn most(told: Usage, seen: Usage) -> Usage {
    Usage { cpu_ms: told.cpu_ms.max(seen.cpu_ms), memory_bytes_max: told.memory_bytes_max.max(seen.memory_bytes_max) }
}

fn used_too_much(message: String, usage: Option<Usage>) -> Box<Failure> {
    let mut failure = failure::plain("SBK0328", message, DATA_PROGRAM, FailureClass::Resource);
    failure.usage = usage;
    failure.help.push("let it do less at a time, or raise the bound".into());
    failure
}

fn ended_badly(heard: &Heard, status: ExitStatus, log: &Log, path: &Path) -> Box<Failure> {
    let message = match (status.code(), status.signal()) {
        (Some(code), _) => format!("the program ended with code {code}"),
        (None, Some(9)) => "the program was killed from outside (signal 9); the system does so when memory runs out".to_owned(),
        (None, signal) => format!("the program was ended by signal {}", signal.unwrap_or(0)),
    };
    // Whoever killed it may not do so the next time, so `retry` decides.
    let mut failure = failure::plain("SBK0328", message, DATA_PROGRAM, FailureClass::Program);
    failure.causes.extend(heard.exception.clone());
    failure.causes.extend(log.tail.iter().map(|line| line.chars().take(CAUSE_LENGTH_MAX).collect()));
    failure.help.push(format!("all of its output stands in `{}`", path.display()));
    failure
}

/// Where tasks run: what programs find and leave, and how the outside is reached.
pub struct Place {
    /// The project's folder.
    pub root: PathBuf,
    /// Where the output of programs is kept.
    pub logs: PathBuf,
    /// Where files of a running program stand.
    pub temporary: PathBuf,
    /// What stands before a Python file: `uv run --script` or `python3`.
    pub python: Vec<String>,
    /// Variables of the environment that programs do not get: they hold secrets.
    pub hidden: Vec<String>,
    /// Whether a program that finds no room on the disk waits for it, instead of failing.
    pub waits_for_room: bool,
    /// Takes secrets out of a line.
    pub mask: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// Sends requests and messages of tasks.
    pub outbound: Arc<dyn Outbound>,
}

impl Place {
    /// The same for programs of somebody who does not hold the project: whoever takes it leaves them alone.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.temporary = self.temporary.join("apart");
        self
    }
}

impl Default for Place {
    /// The folder of the process, for executors that start no programs.
    fn default() -> Self {
        Self {
            root: PathBuf::from("."),
            logs: PathBuf::from(".subak/logs"),
            temporary: PathBuf::from(".subak/tmp"),
            python: vec!["python3".to_owned()],
            hidden: Vec::new(),
            waits_for_room: false,
            mask: Box::new(str::to_owned),
            outbound: outbound::nobody(),
        }
    }
}

/// What a program says of itself, for people.
pub(crate) type Metadata = BTreeMap<String, Value>;
