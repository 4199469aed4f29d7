//! Runs: the list, one of them, what happened, what programs wrote; stopping, going on, and answering what they ask.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subak_domain::job::Answer;
use subak_domain::{Failure, FailureClass, Permission, RunId, RunStatus, StepId, StepState, StepStatus, Work};
use subak_engine::program::log_path;
use subak_server::{Access, Call, Done, Endpoint, Nothing, Page, Problem, Sent};
use subak_store::{Append, EventLog, RunFilter, RunSummary};
use utoipa::{IntoParams, ToSchema};

use super::{Api, OPERATE, VIEW, elapsed_ms, failed, may, problem, run_of, text};
use crate::commands::{job, question, runs, why};

/// Runs of a page.
const RUN_COUNT_MAX: usize = 500;

/// Bytes of a log that are sent at once.
const LOG_LENGTH_MAX: u64 = 1024 * 1024;

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    /// Statuses, separated by commas: `queued`, `running`, `stopping`, `succeeded`, `failed`, `canceled`.
    status: Option<String>,
    /// Those of this job.
    job: Option<String>,
    /// Those whose selection, trigger, cause or id says this.
    text: Option<String>,
    /// Those that ended within so many hours.
    ended_within: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// How many, at most 500.
    limit: Option<usize>,
}

/// A run, as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunView {
    /// Its id.
    run: String,
    /// Where it stands.
    status: String,
    /// What it brings up to date, in words.
    selection: String,
    /// The job; absent for a selection.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Who or what asked for it.
    trigger: String,
    /// Steps in its plan.
    step_count: u64,
    /// When it was planned.
    planned_at: String,
    /// When it was first taken up.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Milliseconds from its beginning to its end, or until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_ms: Option<u64>,
    /// The first failure, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

impl RunView {
    pub(super) fn of(run: RunSummary, now: subak_domain::Timestamp) -> Self {
        let until = run.ended_at.unwrap_or(now);
        Self {
            run: run.run.to_string(),
            status: run.status.to_string(),
            selection: run.selection,
            job: run.job,
            trigger: run.trigger,
            step_count: run.step_count,
            planned_at: text(run.planned_at),
            started_at: run.started_at.map(text),
            ended_at: run.ended_at.map(text),
            elapsed_ms: run.started_at.map(|at| elapsed_ms(at, until)),
            cause: run.cause,
        }
    }
}

/// Why something failed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureView {
    /// Its code.
    code: String,
    /// What failed, one sentence.
    message: String,
    /// Why, outermost cause first.
    causes: Vec<String>,
    /// What is now true of the data.
    data: String,
    /// What to do next.
    help: Vec<String>,
}

impl FailureView {
    /// A failure, without what whoever asks may not see: causes repeat what programs wrote, or values of rows.
    pub(super) fn of(failure: &Failure, call: &Call) -> Self {
        let Failure { code, message, mut causes, data, mut help, class, .. } = failure.clone();
        let needed = if class == FailureClass::Program { Permission::Logs } else { Permission::Data };
        if !causes.is_empty() && !may(call, needed) {
            causes.clear();
            help.push(format!("why it did stands in what the permission `{}` lets one see", needed.as_str()));
        }
        Self { code, message, causes, data, help }
    }
}

/// A check and what it found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CheckView {
    /// Its name.
    pub(super) check: String,
    /// Whether it found nothing.
    pub(super) passed: bool,
    /// `error` or `warn`.
    pub(super) severity: String,
    /// Whether it holds the data back.
    pub(super) blocking: bool,
    /// Rows that should not be there.
    pub(super) bad_rows: u64,
    /// Some of them, for whoever may see rows.
    pub(super) sample: Vec<String>,
}

impl CheckView {
    pub(super) fn of(check: &subak_domain::CheckOutcome, call: &Call) -> Self {
        Self {
            check: check.check.clone(),
            passed: check.passed(),
            severity: if check.severity == subak_domain::Severity::Error { "error" } else { "warn" }.to_owned(),
            blocking: check.blocking,
            bad_rows: check.bad_row_count,
            sample: if may(call, Permission::Data) { check.sample.clone() } else { Vec::new() },
        }
    }
}

/// A step of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepView {
    /// Its id.
    step: String,
    /// What it is: `asset`, `check`, `task` or `audit`.
    kind: String,
    /// The asset that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<String>,
    /// Where it stands.
    status: String,
    /// Why it is in the plan.
    reason: String,
    /// Steps that come before it.
    needs: Vec<String>,
    /// Attempts so far.
    attempt_count: u32,
    /// When the last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
    /// Whether the data that readers see is another than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<bool>,
    /// Rows that were read: as many as were written, rejected and filtered.
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<u64>,
    /// Rows that were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
    /// Rows that were refused, and stand in the quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
    /// Rows that a filter left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    filtered: Option<u64>,
    /// Rows of the table afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    row_count: Option<u64>,
    /// What a person should know of it, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// What a person should look at.
    warnings: Vec<String>,
    /// Milliseconds of processor time of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<u64>,
    /// The most memory that its program had, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes_max: Option<u64>,
    /// Its checks.
    checks: Vec<CheckView>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    /// What it handed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// What its program said of itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, Value>,
    /// Bytes of what its program wrote in the last attempt; absent where there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_bytes: Option<u64>,
}

/// How many steps stand how.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepCount {
    /// The status.
    status: String,
    /// How many.
    count: usize,
}

/// A run with its steps.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunDetail {
    /// The run.
    run: RunView,
    /// What it comes to, one sentence.
    sentence: String,
    /// The time that counts as now for it.
    as_of: String,
    /// The parameters of the job.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    params: BTreeMap<String, Value>,
    /// How many steps stand how.
    counts: Vec<StepCount>,
    /// Its steps, in the order of the plan.
    steps: Vec<StepView>,
    /// The step that failed first, and why: what to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_step: Option<String>,
    /// Whether somebody can stop it.
    can_cancel: bool,
    /// Whether it can go on with what is not done.
    can_resume: bool,
}

/// Something that happened to a run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    /// Its place in the run.
    sequence: u64,
    /// When.
    at: String,
    /// What, in a few words.
    event: String,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// More.
    text: String,
}

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// The step.
    step: String,
    /// The attempt, from 1; without it the last one.
    attempt: Option<u32>,
    /// The first byte; without it the last part.
    from: Option<u64>,
}

/// What somebody answers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerBody {
    /// The task that asks.
    task: String,
    /// Yes or no.
    approved: bool,
    /// What the task asks for besides, by name.
    #[serde(default)]
    input: BTreeMap<String, String>,
}

/// Something that a run asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuestionView {
    /// The run.
    run: String,
    /// Its job.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// The task that asks.
    task: String,
    /// What it asks.
    message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// What is to be said besides yes or no.
    input: Vec<InputView>,
}

/// A value that somebody is asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InputView {
    /// Its name.
    pub(super) name: String,
    /// Its type: `text`, `number`, `boolean` and so on.
    pub(super) kind: String,
    /// What it is, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    /// What holds where nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) default: Option<Value>,
    /// What it can be; empty for anything of its type.
    pub(super) choices: Vec<Value>,
}

impl InputView {
    pub(super) fn of(params: &BTreeMap<String, subak_domain::job::Param>) -> Vec<Self> {
        let view = |(name, param): (&String, &subak_domain::job::Param)| Self {
            name: name.clone(),
            kind: param.kind.as_str().to_owned(),
            description: param.description.clone(),
            default: param.default.clone(),
            choices: param.choices.clone(),
        };
        params.iter().map(view).collect()
    }
}

fn status(word: &str) -> Result<RunStatus, Problem> {
    RunStatus::of(word).ok_or_else(|| {
        let words = RunStatus::ALL.map(RunStatus::as_str);
        Problem::invalid(format!("`{word}` is no status of a run"), format!("take one of {}", words.join(", ")))
    })
}

fn list(api: &Api, call: &Call, query: RunsQuery) -> Result<Page<RunView>, Problem> {
    let before = query.after.map(|id| id.parse::<RunId>()).transpose();
    let before = before.map_err(|_| Problem::invalid("`after` is no id of a run", "send the `next` of the page before"))?;
    let words = query.status.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty());
    let hours = query.ended_within.map(|hours| Duration::from_secs(u64::from(hours) * 3600));
    let filter = RunFilter {
        statuses: words.map(status).collect::<Result<_, _>>()?,
        job: query.job,
        text: query.text.filter(|text| !text.is_empty()),
        ended_from: hours.and_then(|hours| call.now.checked_sub(hours).ok()),
        planned_from: None,
        before: None,
    };
    let total = api.store.count_runs(&filter).map_err(failed)?;
    let count = query.limit.unwrap_or(50).clamp(1, RUN_COUNT_MAX);
    let found = api.store.find_runs(&RunFilter { before, ..filter }, count).map_err(failed)?;
    let next = (found.len() == count).then(|| found.last().map(|run| run.run.to_string())).flatten();
    let items = found.into_iter().map(|run| RunView::of(run, call.now)).collect();
    Ok(Page { items, next, total: Some(total) })
}

fn kind_of(work: &Work) -> &'static str {
    match work {
        Work::Task(_) => "task",
        Work::Check { .. } => "check",
        Work::Audit { .. } => "audit",
        _ => "asset",
    }
}

fn step_view(action: &subak_domain::Action, step: &StepState, log_bytes: Option<u64>, call: &Call) -> StepView {
    let outcome = step.outcome.as_ref();
    let account = outcome.and_then(|outcome| outcome.account);
    let checks = outcome.map(|outcome| &outcome.checks).or(step.failure.as_ref().map(|failure| &failure.checks));
    let usage = runs::usage_of(step);
    let asset = action.step.as_partition().map(|(asset, _)| asset.to_string());
    let asset = asset.or_else(|| match &action.work {
        Work::Materialize { asset, .. }
        | Work::Replay { asset, .. }
        | Work::Observe { asset, .. }
        | Work::Audit { asset, .. } => Some(asset.to_string()),
        _ => None,
    });
    StepView {
        step: action.step.to_string(),
        kind: kind_of(&action.work).to_owned(),
        asset,
        status: step.status.as_str().to_owned(),
        reason: action.reason.to_string(),
        needs: action.needs.iter().map(ToString::to_string).collect(),
        attempt_count: step.attempt_count,
        started_at: step.started_at.map(text),
        ended_at: step.ended_at.filter(|_| step.status.is_final() || step.retry_at.is_some()).map(text),
        retry_at: step.retry_at.map(text),
        changed: outcome.map(|outcome| outcome.changed),
        read: account.map(|account| account.read),
        written: account.map(|account| account.written),
        rejected: account.map(|account| account.rejected),
        filtered: account.map(|account| account.filtered),
        row_count: outcome.and_then(|outcome| outcome.row_count),
        note: runs::note(step),
        warnings: outcome.map(|outcome| outcome.warnings.clone()).unwrap_or_default(),
        cpu_ms: usage.map(|usage| usage.cpu_ms),
        memory_bytes_max: usage.and_then(|usage| usage.memory_bytes_max),
        checks: checks.into_iter().flatten().map(|check| CheckView::of(check, call)).collect(),
        failure: step.failure.as_ref().filter(|_| outcome.is_none()).map(|failure| FailureView::of(failure, call)),
        value: outcome.and_then(|outcome| outcome.value.clone()).filter(|_| may(call, Permission::Data)),
        metadata: outcome.filter(|_| may(call, Permission::Logs)).map(|outcome| outcome.metadata.clone()).unwrap_or_default(),
        log_bytes,
    }
}

/// The log of an attempt of a step, where its program wrote one.
fn log_of(api: &Api, run: RunId, step: &StepId, attempt: u32) -> Result<std::path::PathBuf, Problem> {
    let logs = api.serving()?.opened.state_folder().join("logs");
    Ok(log_path(&logs, run, step, attempt))
}

fn show(api: &Api, call: &Call, _: Nothing) -> Result<RunDetail, Problem> {
    let run = run_of(api, call.part("run"))?;
    let summary = api.store.run(run).map_err(failed)?.ok_or_else(|| Problem::not_found("run", call.part("run")))?;
    let (state, _) = runs::state(&api.store, run).map_err(problem)?;
    let may_logs = may(call, Permission::Logs);
    let mut steps = Vec::with_capacity(state.actions.len());
    for action in &state.actions {
        let Some(step) = state.steps.get(&action.step) else { continue };
        let path = log_of(api, run, &action.step, step.attempt_count)?;
        let log_bytes = std::fs::metadata(path).ok().filter(|_| may_logs).map(|metadata| metadata.len());
        steps.push(step_view(action, step, log_bytes, call));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in state.steps.values() {
        *counts.entry(step.status.as_str()).or_default() += 1;
    }
    // What failed first is what the others followed from.
    let failed_step = state
        .steps
        .iter()
        .filter(|(_, step)| {
            step.status == StepStatus::Failed || step.outcome.as_ref().is_some_and(subak_domain::StepOutcome::has_failed_check)
        })
        .min_by_key(|(_, step)| step.ended_at)
        .map(|(id, _)| id.to_string());
    let opened = &api.serving()?.opened;
    let sentence = why::run_sentence_of(opened, &api.store, run).map_err(problem)?;
    Ok(RunDetail {
        can_cancel: !state.status.is_final(),
        can_resume: matches!(state.status, RunStatus::Failed | RunStatus::Canceled),
        run: RunView::of(summary, call.now),
        sentence,
        as_of: state.as_of,
        params: state.params,
        counts: counts.into_iter().map(|(status, count)| StepCount { status: status.to_owned(), count }).collect(),
        steps,
        failed_step,
    })
}

fn events(api: &Api, call: &Call, _: Nothing) -> Result<Page<EventView>, Problem> {
    let run = run_of(api, call.part("run"))?;
    let may_all = may(call, Permission::Logs) && may(call, Permission::Data);
    let view = |event: &subak_domain::Event| {
        let (kind, step, more) = runs::describe(&event.event);
        EventView {
            sequence: event.sequence,
            at: text(event.at),
            event: kind.to_owned(),
            step: step.map(ToString::to_string),
            // It repeats causes, values and what programs said of themselves.
            text: if may_all || step.is_none() { more } else { String::new() },
        }
    };
    Ok(Page::whole(api.store.run_events(run).map_err(failed)?.iter().map(view).collect()))
}

/// A log that somebody asks for.
pub(super) struct LogAsked {
    pub(super) path: std::path::PathBuf,
    /// Whether its attempt goes on.
    pub(super) is_open: bool,
}

/// The log of an attempt of a step of the run that the path names; of the last one where nobody says which.
pub(super) fn log_asked(api: &Api, call: &Call, step: &str, attempt: Option<u32>) -> Result<LogAsked, Problem> {
    let run = run_of(api, call.part("run"))?;
    let (state, _) = runs::state(&api.store, run).map_err(problem)?;
    let found = state.steps.iter().find(|(id, _)| id.as_str() == step);
    let (step, state) = found.ok_or_else(|| Problem::not_found("step", step))?;
    let attempt = attempt.unwrap_or(state.attempt_count);
    if !(1..=state.attempt_count).contains(&attempt) {
        return Err(Problem::not_found("attempt", &attempt.to_string()));
    }
    let is_open = !state.status.is_final() && attempt == state.attempt_count;
    Ok(LogAsked { path: log_of(api, run, step, attempt)?, is_open })
}

/// Some bytes of a log, from the beginning of a line where it is the last part. Secrets were taken out before they were written.
fn log(api: &Api, call: &Call, query: LogQuery) -> Result<Sent, Problem> {
    let LogAsked { path, is_open } = log_asked(api, call, &query.step, query.attempt)?;
    let read = || {
        let mut file = std::fs::File::open(&path).ok()?;
        let total = file.metadata().ok()?.len();
        let from = query.from.unwrap_or_else(|| total.saturating_sub(LOG_LENGTH_MAX)).min(total);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut body = Vec::new();
        file.take(LOG_LENGTH_MAX).read_to_end(&mut body).ok()?;
        // Whole lines, where there are any: a letter may have several bytes.
        let skipped =
            if query.from.is_none() && from > 0 { body.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
        body.drain(..skipped);
        let from = from + skipped as u64;
        if is_open || from + (body.len() as u64) < total {
            let end = body.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            // A line that is longer than a part is cut between two letters.
            let end = end.unwrap_or_else(|| if body.len() as u64 >= LOG_LENGTH_MAX - 4 { boundary(&body) } else { 0 });
            body.truncate(end);
        }
        Some((body, from, total))
    };
    // A program that wrote nothing has none.
    let (body, from, total) = read().unwrap_or_default();
    let until = from + body.len() as u64;
    let headers = vec![
        ("x-log-from", from.to_string()),
        ("x-log-until", until.to_string()),
        ("x-log-bytes", total.to_string()),
        ("x-log-open", is_open.to_string()),
    ];
    Ok(Sent { body, kind: "text/plain; charset=utf-8", headers })
}

/// Where the last whole letter ends.
fn boundary(bytes: &[u8]) -> usize {
    let start = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    if std::str::from_utf8(&bytes[start..]).is_ok() { bytes.len() } else { start }
}

fn cancel(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    let run = run_of(api, call.part("run"))?;
    let status = runs::state(&api.store, run).map_err(problem)?.0.status;
    if status.is_final() {
        return Err(Problem::changed(format!("run {run} is {status}"), "there is nothing to stop any more"));
    }
    let entry = call.entry("run.cancel", &run.to_string(), "");
    call.wait(api.store.audited_as(entry).request_cancel(run, call.now)).map_err(failed)?;
    Ok(Done::new("the run is asked to stop; what it has published stays"))
}

fn resume(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    let run = run_of(api, call.part("run"))?;
    let (state, events) = runs::state(&api.store, run).map_err(problem)?;
    if !matches!(state.status, RunStatus::Failed | RunStatus::Canceled) {
        return Err(Problem::changed(format!("run {run} is {}", state.status), "only what failed or was stopped goes on"));
    }
    let entry = call.entry("run.resume", &run.to_string(), "");
    let event = subak_domain::RunEvent::Resumed { by: entry.actor.clone(), for_server: true };
    let append = Append { run, expected: events.len() as u64 + 1, events: vec![(call.now, event)], fence: None };
    call.wait(api.store.audited_as(entry).append(append)).map_err(failed)?;
    Ok(Done::new("the run goes on with what is not done"))
}

fn questions(api: &Api, _: &Call, _: Nothing) -> Result<Page<QuestionView>, Problem> {
    let mut found = Vec::new();
    for run in api.store.open_runs().map_err(failed)? {
        for question in question::questions(&api.store, run).map_err(problem)? {
            found.push(QuestionView {
                run: question.run.to_string(),
                job: question.job,
                task: question.action.rule.task,
                message: question.approval.message,
                since: question.since.map(text),
                input: InputView::of(&question.approval.input),
            });
        }
    }
    Ok(Page::whole(found))
}

fn answer(api: &Api, call: &Call, said: AnswerBody) -> Result<Done, Problem> {
    let run = run_of(api, call.part("run"))?;
    let open = question::questions(&api.store, run).map_err(problem)?;
    let question = open.into_iter().find(|question| question.action.rule.task == said.task);
    let Some(question) = question else {
        let message = format!("task `{}` of run {run} asks nothing now", said.task);
        return Err(Problem::changed(message, "somebody may have answered it"));
    };
    let pairs: Vec<String> = said.input.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let input = match job::values(&question.approval.input, &format!("task `{}`", said.task), &pairs) {
        // Whoever says no need not say the rest.
        Err(_) if !said.approved && pairs.is_empty() => BTreeMap::new(),
        input => input.map_err(problem)?,
    };
    let action = if said.approved { "run.approve" } else { "run.reject" };
    let entry = call.entry(action, &run.to_string(), said.task.clone());
    let answer = Answer { approved: said.approved, by: entry.actor.clone(), input, at: call.now };
    let store = api.store.audited_as(entry);
    if !call.wait(store.enter_answer(run, question.action.step, answer)).map_err(failed)? {
        return Err(Problem::changed("somebody has answered it already", "the run shows who"));
    }
    Ok(Done::new(if said.approved { "approved" } else { "rejected" }))
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    let logs = Access::May(Permission::Logs);
    vec![
        Endpoint::read("/api/v1/runs", VIEW, "Runs, the newest first.", list),
        Endpoint::read("/api/v1/runs/{run}", VIEW, "A run with its steps.", show),
        Endpoint::read("/api/v1/runs/{run}/events", VIEW, "What happened to a run, in order.", events),
        Endpoint::send(
            "/api/v1/runs/{run}/log",
            logs,
            "What the program of a step wrote: up to 1 MiB from a byte on. `x-log-until` says where to go on, `x-log-open` whether more may come.",
            "text/plain; charset=utf-8",
            log,
        ),
        Endpoint::write(Method::POST, "/api/v1/runs/{run}/cancel", OPERATE, "Asks a run to stop.", cancel),
        Endpoint::write(Method::POST, "/api/v1/runs/{run}/resume", OPERATE, "Lets a run go on with what is not done.", resume),
        Endpoint::write(Method::POST, "/api/v1/runs/{run}/answer", OPERATE, "Answers what a task of a run asks.", answer),
        Endpoint::read("/api/v1/questions", VIEW, "What runs ask people.", questions),
    ]
}
