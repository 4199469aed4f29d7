//! `subak why`.

use serde_json::json;
use subak_domain::{Asset, Definition, RunStatus, Snapshot, StepId, StepState, StepStatus};

use super::{Context, list, runs};
use crate::args::WhyArgs;
use crate::exit::{CliError, Exit};
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, args: &WhyArgs) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let key = args.what.parse().ok().and_then(|key| opened.graph().get(&key).cloned());
    let sentence = match key {
        Some(asset) => asset_sentence(context, &opened, &asset)?,
        None => run_sentence(&opened, &args.what)?,
    };
    context.printer.object("why", &json!({ "what": args.what, "sentence": sentence }), &sentence);
    Ok(Exit::Ok)
}

fn asset_sentence(context: &Context<'_>, opened: &Opened, asset: &Asset) -> Result<String, CliError> {
    let snapshot: Snapshot = context.snapshot(opened)?;
    if let Some(failure) = last_failure(opened, asset)? {
        return Ok(failure);
    }
    let key = &asset.key;
    let (status, reason) = list::status(asset, &list::due(opened, &snapshot));
    Ok(match (status, reason, snapshot.latest.get(key)) {
        ("external", ..) => format!("`{key}` is external: something outside keeps it up to date, and no run touches it."),
        ("missing", ..) => format!("`{key}` was never materialized; `subak run +{key}` makes it and whatever it reads."),
        ("stale", Some(reason), _) => format!("`{key}` is stale because {reason}; `subak run {key}` brings it up to date."),
        (_, _, Some(latest)) => {
            let again = match asset.definition {
                Definition::Ingest(_) => "; each run asks its source for new rows",
                _ => "; nothing upstream is newer and its definition is the one that made it",
            };
            format!("`{key}` is fresh: run {} changed it at {}{again}.", latest.run, latest.at.strftime("%Y-%m-%d %H:%M:%S UTC"))
        }
        _ => format!("`{key}` is fresh."),
    })
}

/// The sentence on the newest run, when the asset failed or was held back there.
fn last_failure(opened: &Opened, asset: &Asset) -> Result<Option<String>, CliError> {
    if !opened.state_folder().join("state.db").exists() {
        return Ok(None);
    }
    let store = opened.store()?;
    let step = StepId::asset(&asset.key);
    for summary in store.runs(20)? {
        let (state, _) = runs::state(&store, summary.run)?;
        // Its partitions are steps of their own.
        let mut found = state.steps.iter().filter(|(id, _)| id.base() == step).peekable();
        if found.peek().is_none() {
            continue;
        }
        let is_bad = |state: &StepState| {
            matches!(state.status, StepStatus::Failed | StepStatus::Canceled)
                || matches!(&state.skip_reason, Some(subak_domain::event::SkipReason::UpstreamFailed { .. }))
        };
        let bad = found.find(|(_, state)| is_bad(state));
        return Ok(bad.map(|(id, state)| step_sentence(&summary.run.to_string(), id, state)));
    }
    Ok(None)
}

fn step_sentence(run: &str, step: &StepId, state: &StepState) -> String {
    let why = match (&state.failure, runs::note(state)) {
        (Some(failure), _) if state.outcome.is_none() => format!(": {}; {}", failure.message, failure.data),
        (_, Some(note)) => format!(": {note}"),
        _ => String::new(),
    };
    let next =
        if matches!(state.status, StepStatus::Succeeded) { String::new() } else { format!(" `subak run resume {run}` goes on.") };
    format!("step `{step}` of run {run} is {}{why}.{next}", state.status.as_str())
}

fn run_sentence(opened: &Opened, what: &str) -> Result<String, CliError> {
    let (run, step) = what.split_once('/').map_or((what, None), |(run, step)| (run, Some(step)));
    let store = opened.store()?;
    let Ok(run) = runs::find(&store, run) else {
        return Err(CliError::not_found("asset or run", what, opened.graph().assets().iter().map(|asset| asset.key.as_str())));
    };
    let (state, _) = runs::state(&store, run)?;
    if let Some(step) = step {
        let found = state.steps.iter().find(|(id, _)| id.as_str() == step);
        let (id, found) = found.ok_or_else(|| CliError::not_found("step", step, state.steps.keys().map(StepId::as_str)))?;
        return Ok(step_sentence(&run.to_string(), id, found));
    }
    let failed: Vec<(&StepId, &StepState)> = state.steps.iter().filter(|(_, step)| step.status == StepStatus::Failed).collect();
    Ok(match (state.status, failed.first()) {
        (RunStatus::Succeeded, _) => {
            format!("run {run} succeeded: every step is done, or was skipped because nothing upstream had changed.")
        }
        (RunStatus::Queued | RunStatus::Running | RunStatus::Stopping, _) => {
            let open = state.steps.values().filter(|step| !step.status.is_final()).count();
            format!("run {run} is {}: {open} steps are not done.", state.status)
        }
        (_, Some((step, found))) => step_sentence(&run.to_string(), step, found),
        (status, None) => format!("run {run} is {status}; `subak run resume {run}` goes on."),
    })
}
