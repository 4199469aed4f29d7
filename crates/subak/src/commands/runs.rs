//! `subak run list`, `show` and `logs`: what the log tells.

use serde_json::{Value, json};
use subak_diag::{Diagnostic, codes};
use subak_domain::event::Usage;
use subak_domain::{Event, RunEvent, RunId, RunState, StepId, StepState};
use subak_store::SqliteStore;

use super::Context;
use crate::args::{RunIdArgs, RunListArgs, RunLogsArgs};
use crate::exit::{CliError, Exit, diagnostic_of};
use crate::printer::{Table, Tone, count, duration};

/// The run that an id, the beginning of one, or `last` names.
pub(super) fn find(store: &SqliteStore, text: &str) -> Result<RunId, CliError> {
    let unknown = |message: String| {
        CliError::new(Diagnostic::error(codes::UNKNOWN_RUN, message).help("`subak run list` shows the runs"), Exit::Invalid)
    };
    if text == "last" {
        let newest = store.runs(1)?.first().map(|run| run.run);
        return newest.ok_or_else(|| unknown("there are no runs yet".into()));
    }
    match store.runs_by_prefix(text)?.as_slice() {
        [run] => Ok(*run),
        [] => Err(unknown(format!("there is no run `{text}`"))),
        _ => Err(unknown(format!("more than one run begins with `{text}`"))),
    }
}

/// The state of a run.
pub(crate) fn state(store: &SqliteStore, run: RunId) -> Result<(RunState, Vec<Event>), CliError> {
    let events = store.run_events(run)?;
    let state = RunState::fold(events.iter().map(|event| (event.at, &event.event)));
    let unknown = || CliError::new(Diagnostic::error(codes::UNKNOWN_RUN, format!("there is no run `{run}`")), Exit::Invalid);
    let state = state.ok_or_else(unknown)?.map_err(subak_engine::EngineError::from)?;
    Ok((state, events))
}

pub(super) fn list(context: &Context<'_>, args: &RunListArgs) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let mut table = Table::new("runs", &["run", "status", "what", "trigger", "steps", "started_at", "took_ms", "cause"]);
    for run in opened.store()?.runs(args.limit)? {
        let took_ms = run.started_at.zip(run.ended_at).map(|(start, end)| end.duration_since(start).as_millis().max(0) as u64);
        table.rows.push(vec![
            json!(run.run.to_string()),
            json!(run.status.as_str()),
            json!(run.selection),
            json!(run.trigger),
            json!(run.step_count),
            json!(run.started_at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
            json!(took_ms),
            json!(run.cause),
        ]);
    }
    if table.rows.is_empty() {
        context.printer.note("there are no runs yet; `subak run` makes one");
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

/// One object per step, for JSON.
pub(super) fn steps_json(state: &RunState) -> Vec<Value> {
    state.actions.iter().map(|action| step_json(&action.step, &state.steps[&action.step], &action.reason.to_string())).collect()
}

fn step_json(id: &StepId, step: &StepState, reason: &str) -> Value {
    let outcome = step.outcome.as_ref();
    let checks: Vec<Value> = outcome
        .map(|outcome| &outcome.checks)
        .or(step.failure.as_ref().map(|failure| &failure.checks))
        .into_iter()
        .flatten()
        .map(|check| json!({ "check": check.check, "passed": check.passed(), "vacuous": check.is_vacuous, "severity": check.severity, "blocking": check.blocking, "bad_rows": check.bad_row_count, "rows": check.row_count, "sample": check.sample }))
        .collect();
    json!({
        "step": id.as_str(), "status": step.status.as_str(), "reason": reason, "attempts": step.attempt_count,
        "changed": outcome.map(|outcome| outcome.changed),
        "read": outcome.and_then(|outcome| outcome.account).map(|account| account.read),
        "written": outcome.and_then(|outcome| outcome.account).map(|account| account.written),
        "rejected": outcome.and_then(|outcome| outcome.account).map(|account| account.rejected),
        "filtered": outcome.and_then(|outcome| outcome.account).map(|account| account.filtered),
        "row_count": outcome.and_then(|outcome| outcome.row_count),
        "cursor": outcome.and_then(|outcome| outcome.cursor.as_ref()).map(|cursor| cursor.value.as_str()),
        "overlap": outcome.and_then(|outcome| outcome.account).map(|account| account.overlap),
        "superseded": outcome.and_then(|outcome| outcome.account).map(|account| account.superseded),
        "deleted": outcome.and_then(|outcome| outcome.account).map(|account| account.deleted),
        "value_changes": outcome.map(|outcome| outcome.value_changes.iter().map(|change| json!({ "column": change.column, "what": change.what, "count": change.count, "first": change.first })).collect::<Vec<_>>()),
        "warnings": outcome.map(|outcome| outcome.warnings.clone()),
        "value": outcome.map(|outcome| &outcome.value), "metadata": outcome.map(|outcome| &outcome.metadata),
        "usage": usage_of(step).map(|usage| json!({ "cpu_ms": usage.cpu_ms, "memory_bytes_max": usage.memory_bytes_max })),
        "note": note(step), "checks": checks,
        "failure": step.failure.as_ref().map(|failure| json!({ "code": failure.code, "message": failure.message, "causes": failure.causes, "data": failure.data, "help": failure.help })),
    })
}

/// What the program of a step used.
pub(super) fn usage_of(step: &StepState) -> Option<Usage> {
    let of_outcome = step.outcome.as_ref().and_then(|outcome| outcome.usage);
    of_outcome.or(step.failure.as_ref().and_then(|failure| failure.usage))
}

/// A few words on a step for people.
pub(super) fn note(step: &StepState) -> Option<String> {
    match (&step.skip_reason, &step.failure, &step.outcome) {
        (Some(reason), ..) => Some(reason.to_string()),
        (None, Some(failure), None) => Some(failure.message.clone()),
        (None, _, Some(outcome)) => outcome.note.clone(),
        (None, None, None) => None,
    }
}

pub(super) fn show(context: &Context<'_>, args: &RunIdArgs) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let store = opened.store()?;
    let run = find(&store, &args.run)?;
    let (state, events) = state(&store, run)?;
    if context.printer.format != crate::args::Format::Human {
        let object = json!({ "run": run.to_string(), "status": state.status.as_str(), "steps": steps_json(&state) });
        context.printer.object("run", &object, "");
        return Ok(Exit::Ok);
    }
    let planned = events.first().map(|event| event.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default();
    context.printer.out(&format!("run {run}  {}  planned {planned}", context.printer.tone(Tone::Strong, state.status.as_str())));
    let mut table =
        Table::new("steps", &["step", "status", "why", "read", "written", "rejected", "filtered", "rows_now", "took", "note"]);
    for action in &state.actions {
        let step = &state.steps[&action.step];
        let account = step.outcome.as_ref().and_then(|outcome| outcome.account);
        let took =
            step.outcome.as_ref().map(|outcome| outcome.elapsed_ms).or(step.failure.as_ref().map(|failure| failure.elapsed_ms));
        table.rows.push(vec![
            json!(action.step.as_str()),
            json!(step.status.as_str()),
            json!(action.reason.to_string()),
            json!(account.map(|account| account.read)),
            json!(account.map(|account| account.written)),
            json!(account.map(|account| account.rejected)),
            json!(account.map(|account| account.filtered)),
            json!(step.outcome.as_ref().and_then(|outcome| outcome.row_count)),
            json!(took.map(duration)),
            json!(note(step)),
        ]);
    }
    context.printer.table(&table);
    let mut used = Table::new("usage", &["step", "cpu", "memory"]);
    for (id, usage) in state.steps.iter().filter_map(|(id, step)| Some((id, usage_of(step)?))) {
        let memory = usage.memory_bytes_max.map(|most| format!("{} MB", most.div_ceil(1_000_000)));
        used.rows.push(vec![json!(id.as_str()), json!(duration(usage.cpu_ms)), json!(memory)]);
    }
    if !used.rows.is_empty() && context.printer.is_human() {
        context.printer.table(&used);
    }
    let failures = state.steps.values().filter(|step| step.outcome.is_none()).filter_map(|step| step.failure.as_ref());
    let problems: Vec<Diagnostic> = failures.map(diagnostic_of).collect();
    context.printer.problems(&problems, &opened.sources);
    Ok(Exit::Ok)
}

pub(super) fn logs(context: &Context<'_>, args: &RunLogsArgs) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let store = opened.store()?;
    let run = find(&store, &args.run)?;
    let (state, events) = state(&store, run)?;
    // A task is known by its name too.
    let task = args.step.as_deref().map(StepId::task);
    let is_named = |known: &StepId| args.step.as_deref() == Some(known.as_str()) || task.as_ref() == Some(known);
    let wanted = state.steps.keys().find(|known| is_named(known));
    if let Some(step) = args.step.as_ref().filter(|_| wanted.is_none()) {
        return Err(CliError::not_found("step", step, state.steps.keys().map(StepId::as_str)));
    }
    let mut table = Table::new("events", &["at", "event", "step", "text"]);
    for event in &events {
        let (kind, step, text) = describe(&event.event);
        if wanted.is_none() || step == wanted {
            table.rows.push(vec![
                json!(event.at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()),
                json!(kind),
                json!(step.map(StepId::as_str)),
                json!(text),
            ]);
        }
    }
    context.printer.table(&table);
    // What programs wrote, of one step or of all.
    if context.printer.format == crate::args::Format::Human {
        let logs = opened.state_folder().join("logs");
        for (step, found) in state.steps.iter().filter(|(step, _)| wanted.is_none_or(|wanted| *step == wanted)) {
            for attempt in 1..=found.attempt_count {
                let path = subak_engine::program::log_path(&logs, run, step, attempt);
                let Ok(text) = std::fs::read_to_string(&path) else { continue };
                context.printer.note(&format!("{step}, attempt {attempt}: {}", path.display()));
                context.printer.out(text.trim_end_matches('\n'));
            }
        }
    }
    Ok(Exit::Ok)
}

/// What an event says: what happened, to which step, and more.
pub(super) fn describe(event: &RunEvent) -> (&'static str, Option<&StepId>, String) {
    match event {
        RunEvent::Planned { actions, selection, trigger, .. } => {
            ("planned", None, format!("{} steps for `{selection}`, by {trigger}", actions.len()))
        }
        RunEvent::Expanded { step, actions, .. } => ("expanded", Some(step), format!("{} steps", actions.len())),
        RunEvent::Started { holder } => ("started", None, holder.clone()),
        RunEvent::StepStarted { step, attempt } => ("step started", Some(step), format!("attempt {attempt}")),
        RunEvent::StepSucceeded { step, outcome } => {
            let mut text = if outcome.changed { "changed".to_owned() } else { "unchanged".to_owned() };
            if let Some(account) = outcome.account {
                text.push_str(&format!(
                    "; read {} = written {} + rejected {} + filtered {}",
                    count(account.read),
                    count(account.written),
                    count(account.rejected),
                    count(account.filtered)
                ));
            }
            for change in &outcome.value_changes {
                text.push_str(&format!(
                    "; {} values of {}: {} (first: {})",
                    count(change.count),
                    change.column,
                    change.what,
                    change.first
                ));
            }
            for warning in &outcome.warnings {
                text.push_str(&format!("; warning: {warning}"));
            }
            if let Some(cursor) = &outcome.cursor {
                text.push_str(&format!("; cursor {} = {}", cursor.column, cursor.value));
            }
            if let Some(value) = &outcome.value {
                text.push_str(&format!("; value {value}"));
            }
            for (name, value) in &outcome.metadata {
                text.push_str(&format!("; {name} = {value}"));
            }
            for check in &outcome.checks {
                text.push_str(&format!("; {} {}", check.check, if check.passed() { "passed" } else { "failed" }));
            }
            ("step succeeded", Some(step), text)
        }
        RunEvent::StepErrored { step, failure, retry_at } => {
            let next = retry_at.map(|at| format!("; again at {at}")).unwrap_or_default();
            ("step failed", Some(step), format!("[{}] {}: {}{next}", failure.code, failure.message, failure.causes.join(": ")))
        }
        RunEvent::StepSkipped { step, reason } => {
            let why = reason.to_string();
            ("step skipped", Some(step), why)
        }
        RunEvent::CancelRequested { by } => ("cancel requested", None, by.clone()),
        RunEvent::Lost { holder } => ("lost", None, format!("{holder} is gone")),
        RunEvent::Resumed { by, .. } => ("resumed", None, by.clone()),
        RunEvent::Finished { status } => ("finished", None, status.to_string()),
    }
}
