//! Telling people what became of runs: which notices there are follows from the log, whom they reach is tried until it works or is given up.
//!
//! A notice is entered in the transaction that notes how far the log was read, so each occasion makes one, whatever crashes. It is sent at
//! least once: a process that dies between sending and noting that sends it again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use subak_connect::{ConnectError, ConnectErrorKind};
use subak_domain::job::Answer;
use subak_domain::notification::{NOTICE_ATTEMPT_COUNT_MAX, notice_delay};
use subak_domain::{
    Event, HttpAnswer, HttpRequest, Job, Notice, NoticeState, Occasion, RunEvent, RunId, RunStatus, StepId, StepStatus, Timestamp,
};
use subak_engine::{Clock, Outbound, SystemClock};
use subak_notify::{Http, Message, NotifyError};
use subak_store::{EventLog, Lease, SqliteStore};

use crate::exit::CliError;
use crate::freshness::{self, Policies};
use crate::open::ProjectConnections;
use crate::redact::Redactor;

/// Events that are read at a time.
const PAGE_LENGTH: usize = 1_000;

/// Notices that are sent at a time.
const SEND_COUNT_MAX: usize = 16;

/// A notice that could not be sent for so long is given up, however often it was tried.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Steps that failed which a message names.
const FAILED_STEP_COUNT_MAX: usize = 5;

/// Reaches receivers and other systems, with the references of the project resolved.
pub(crate) struct Teller {
    http: Http,
    connections: Arc<ProjectConnections>,
    redactor: Redactor,
    /// Where people's answers stand, for those who ask.
    answers: Option<SqliteStore>,
}

impl Teller {
    pub(crate) fn new(connections: Arc<ProjectConnections>) -> Self {
        let redactor = connections.redactor();
        Self { http: Http::default(), connections, redactor, answers: None }
    }

    /// The same, hearing what people answer.
    pub(crate) fn with_answers(self, store: SqliteStore) -> Self {
        Self { answers: Some(store), ..self }
    }

    async fn tell(&self, receiver: &str, message: &Message) -> Result<(), (ConnectError, Option<Duration>)> {
        let receiver = self.connections.receiver(receiver).map_err(|error| (error, None))?;
        // What a run says of itself is looked through already; these secrets may be others.
        let facts = self.redactor.value(message.facts.clone());
        let text = self.redactor.redact(&message.text);
        let message = Message { title: self.redactor.redact(&message.title), text, facts };
        // What the other side answers may repeat what it was told.
        let without_secrets = |error: &NotifyError| {
            let kind = told(error).kind;
            ConnectError::new(kind, self.redactor.redact(&error.message))
        };
        receiver.tell(&self.http, &message).await.map_err(|error| (without_secrets(&error), error.wait))
    }

    /// Tells a receiver that it can be told.
    pub(crate) async fn test(&self, project: &str, receiver: &str) -> Result<(), ConnectError> {
        let text = format!("[{project}] a test: notifications of this project reach `{receiver}`");
        let facts = json!({ "occasion": "test", "project": project, "receiver": receiver, "text": text });
        let message = Message { title: text.clone(), text, facts };
        self.tell(receiver, &message).await.map_err(|(error, _)| error)
    }
}

fn told(error: &NotifyError) -> ConnectError {
    let kind = if error.is_transient { ConnectErrorKind::Unavailable } else { ConnectErrorKind::Config };
    ConnectError::new(kind, error.message.clone())
}

#[async_trait]
impl Outbound for Teller {
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, ConnectError> {
        let redacted = |error: NotifyError| ConnectError::new(told(&error).kind, self.redactor.redact(&error.message));
        self.http.call(request).await.map_err(redacted)
    }

    async fn notify(&self, receiver: &str, message: &str) -> Result<(), ConnectError> {
        let title = message.lines().next().unwrap_or_default().to_owned();
        let facts = json!({ "occasion": "task", "receiver": receiver, "text": message });
        self.tell(receiver, &Message { title, text: message.to_owned(), facts }).await.map_err(|(error, _)| error)
    }

    async fn answer(&self, run: RunId, step: &StepId) -> Result<Option<Answer>, ConnectError> {
        let refused = |message: &str| ConnectError::new(ConnectErrorKind::Config, message);
        let store = self.answers.as_ref().ok_or_else(|| refused("nobody is asked here"))?;
        store.answer(run, step).map_err(|error| refused("the state of the project cannot be read").because(error))
    }
}

/// What notices are made from: the project as it is now.
pub(crate) struct Told {
    pub(crate) project: String,
    pub(crate) jobs: Vec<Job>,
    /// How old assets may become.
    pub(crate) policies: Policies,
    pub(crate) teller: Teller,
}

/// Begins to read the log where it ends now, unless that was done before: what happened before anybody wanted to hear of it is history.
pub(crate) async fn begin(store: &SqliteStore, lease: &Lease) -> Result<(), CliError> {
    if store.notices_read()?.is_none() {
        store.enter_notices(store.newest_position()?, Vec::new(), lease.clone()).await?;
    }
    Ok(())
}

/// Reads the log on, and enters the notices that follow from it.
async fn enter(store: &SqliteStore, lease: &Lease, told: &Told, now: Timestamp) -> Result<(), CliError> {
    begin(store, lease).await?;
    let mut position = store.notices_read()?.unwrap_or(0);
    loop {
        let page = store.read_after(position, PAGE_LENGTH).await?;
        let Some(last) = page.last().map(|event| event.position) else { break };
        let mut made = Vec::new();
        for event in &page {
            let is_old = event.at.checked_add(AGE_MAX).is_ok_and(|end| end <= now);
            if let RunEvent::Finished { status } = event.event {
                let notices = of_end(store, told, event, status, now)?;
                // Nobody is called about what is long over; that it was not told stands in the list.
                let error = || "nobody was there to tell it within a day".to_owned();
                let state = |notice: Notice| Notice { state: NoticeState::Failed { error: error() }, ..notice };
                made.extend(notices.into_iter().map(|notice| if is_old { state(notice) } else { notice }));
            }
        }
        store.enter_notices(last, made, lease.clone()).await?;
        position = last;
    }
    let late = of_late(store, told, now)?;
    if !late.is_empty() {
        store.enter_notices(position, late, lease.clone()).await?;
    }
    Ok(())
}

fn of_end(store: &SqliteStore, told: &Told, event: &Event, status: RunStatus, now: Timestamp) -> Result<Vec<Notice>, CliError> {
    let (run, events) = (event.run, store.run_events(event.run)?);
    let Some(job) = job_of(told, &events) else { return Ok(Vec::new()) };
    let before_here = events.iter().filter(|earlier| earlier.sequence < event.sequence).rev().find_map(|earlier| {
        let RunEvent::Finished { status } = earlier.event else { return None };
        Some(status)
    });
    let before = match before_here {
        Some(status) => Some(status),
        None => store.ended_before(&job.name, run, event.at)?,
    };
    Ok(Occasion::of_end(status, before).into_iter().flat_map(|occasion| notices(job, event, occasion, now)).collect())
}

/// The job that a run belongs to, as it is declared now.
fn job_of<'t>(told: &'t Told, events: &[Event]) -> Option<&'t Job> {
    let RunEvent::Planned { job: Some(name), .. } = &events.first()?.event else { return None };
    told.jobs.iter().find(|job| job.name == *name)
}

fn notices(job: &Job, event: &Event, occasion: Occasion, now: Timestamp) -> Vec<Notice> {
    let receivers = job.notifications.receivers.get(&occasion).map(Vec::as_slice).unwrap_or_default();
    let state = || NoticeState::Open { attempt_count: 0, due_at: now, error: None };
    let notice = |receiver: &String| Notice {
        position: event.position,
        run: event.run,
        asset: None,
        occasion,
        receiver: receiver.clone(),
        state: state(),
        made_at: now,
    };
    receivers.iter().map(notice).collect()
}

/// Runs that have not ended by the deadline of their job, and of which nobody was told so yet.
fn of_late(store: &SqliteStore, told: &Told, now: Timestamp) -> Result<Vec<Notice>, CliError> {
    if told.jobs.iter().all(|job| job.notifications.deadline.is_none()) {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for run in store.open_runs()? {
        let events = store.run_events(run)?;
        let Some((first, job)) = events.first().zip(job_of(told, &events)) else { continue };
        let Some(deadline) = job.notifications.deadline else { continue };
        let is_late = first.at.checked_add(deadline).is_ok_and(|due| due <= now);
        if is_late && !store.has_notice(first.position, Occasion::Late)? {
            made.extend(notices(job, first, Occasion::Late, now));
        }
    }
    Ok(made)
}

/// Sends what is due. Returns what could not be sent, in words.
async fn send(store: &SqliteStore, told: &Told, now: Timestamp) -> Result<Vec<String>, CliError> {
    let due = store.notices_due(now, SEND_COUNT_MAX)?;
    let sent = due.into_iter().map(|notice| async move {
        let settled = match message(store, told, &notice, now) {
            Ok(message) => told.teller.tell(&notice.receiver, &message).await,
            Err(error) => Err((ConnectError::new(ConnectErrorKind::Config, error.summary()), None)),
        };
        (notice, settled)
    });
    let mut problems = Vec::new();
    for (notice, result) in futures::future::join_all(sent).await {
        let now = SystemClock.now();
        let state = match result {
            Ok(()) => NoticeState::Sent { at: now },
            Err((error, wait)) => {
                let (state, what) = after_failure(&notice, &error, wait, now);
                let about = notice.asset.as_ref().map_or_else(|| format!("run {}", notice.run), |asset| format!("`{asset}`"));
                problems.push(format!("`{}` could not be told about {about}: {error}; {what}", notice.receiver));
                state
            }
        };
        store.settle_notice(Notice { state, ..notice }).await?;
    }
    Ok(problems)
}

/// What becomes of a notice that could not be sent.
fn after_failure(notice: &Notice, error: &ConnectError, wait: Option<Duration>, now: Timestamp) -> (NoticeState, &'static str) {
    let NoticeState::Open { attempt_count, .. } = notice.state else { return (notice.state.clone(), "") };
    let (count, text) = (attempt_count + 1, error.to_string());
    let is_old = notice.made_at.checked_add(AGE_MAX).is_ok_and(|end| end <= now);
    let delay = notice_delay(count).max(wait.unwrap_or_default());
    match now.checked_add(delay) {
        Ok(due_at) if error.kind == ConnectErrorKind::Unavailable && count < NOTICE_ATTEMPT_COUNT_MAX && !is_old => {
            (NoticeState::Open { attempt_count: count, due_at, error: Some(text) }, "it is tried again")
        }
        _ => (NoticeState::Failed { error: text }, "it was given up"),
    }
}

/// What a receiver is told of a run, or of an asset.
fn message(store: &SqliteStore, told: &Told, notice: &Notice, now: Timestamp) -> Result<Message, CliError> {
    if let Some(asset) = &notice.asset {
        return freshness::message(store, &told.project, &told.policies, notice, asset, now);
    }
    let (state, events) = crate::commands::run_state(store, notice.run)?;
    let (planned_at, ended_at) = (events.first().map_or(now, |event| event.at), end_of(&events));
    let job = state.job.clone().unwrap_or_default();
    let what = match notice.occasion {
        Occasion::Failure => "failed",
        Occasion::Success => "succeeded",
        Occasion::Recovery => "succeeded again",
        Occasion::Late => "is late",
    };
    let title = format!("[{}] job `{job}` {what}", told.project);
    let failed: Vec<(&str, u32, &subak_domain::Failure)> = state
        .steps
        .iter()
        .filter(|(_, step)| step.status == StepStatus::Failed)
        .filter_map(|(id, step)| Some((id.as_str(), step.attempt_count, step.failure.as_ref()?)))
        .collect();
    let mut lines = vec![title.clone()];
    for (step, attempts, failure) in failed.iter().take(FAILED_STEP_COUNT_MAX) {
        let tries = if *attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
        lines.push(format!("step `{step}` failed{tries}: {} ({})", failure.message, failure.code));
        lines.extend(failure.causes.first().map(|cause| format!("  caused by: {}", cause.lines().next().unwrap_or_default())));
        lines.push(format!("  data: {}", failure.data));
    }
    if failed.len() > FAILED_STEP_COUNT_MAX {
        lines.push(format!("… and {} more", failed.len() - FAILED_STEP_COUNT_MAX));
    }
    let seconds = ended_at.unwrap_or(now).duration_since(planned_at).as_secs().max(0);
    let number = |status: StepStatus| state.steps.values().filter(|step| step.status == status).count();
    lines.push(format!(
        "run {} of {}: {} of {} steps done, {seconds} s",
        notice.run,
        state.as_of,
        number(StepStatus::Succeeded),
        state.steps.len()
    ));
    match notice.occasion {
        Occasion::Failure => lines.push(format!("look: `subak run show {0}`; go on: `subak run resume {0}`", notice.run)),
        Occasion::Late => lines.push(format!("look: `subak run show {}`", notice.run)),
        Occasion::Success | Occasion::Recovery => {}
    }
    let text = lines.join("\n");
    let moment = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let failures: Vec<Value> = failed
        .iter()
        .map(|(step, attempts, failure)| {
            json!({ "step": step, "attempts": attempts, "code": failure.code, "message": failure.message, "causes": failure.causes, "data": failure.data })
        })
        .collect();
    let facts = json!({
        "occasion": notice.occasion.as_str(), "project": told.project, "job": job, "run": notice.run.to_string(),
        "status": state.status.as_str(), "as_of": state.as_of, "planned_at": moment(planned_at), "ended_at": ended_at.map(moment),
        "steps": state.steps.len(), "succeeded": number(StepStatus::Succeeded), "failures": failures, "text": text,
        // The same for the same notice, for receivers that want to tell two of them apart.
        "id": format!("{}-{}", notice.position, notice.occasion),
    });
    Ok(Message { title, text, facts })
}

fn end_of(events: &[Event]) -> Option<Timestamp> {
    let last = events.last()?;
    matches!(last.event, RunEvent::Finished { .. }).then_some(last.at)
}

/// Reads the log on and sends what is due. Returns what could not be sent, in words.
pub(crate) async fn turn(store: &SqliteStore, lease: &Lease, told: &Told) -> Result<Vec<String>, CliError> {
    let now = SystemClock.now();
    enter(store, lease, told, now).await?;
    freshness::enter(store, lease, &told.policies, now).await?;
    send(store, told, now).await
}
