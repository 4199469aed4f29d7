//! `subak run questions`, `approve` and `reject`: what runs ask people, and what these answer.

use serde_json::json;
use subak_diag::{Diagnostic, codes};
use subak_domain::job::{Answer, Approval, TaskWork};
use subak_domain::{Action, RunId, StepStatus, Timestamp, Work};
use subak_engine::{Clock, SystemClock};
use subak_store::SqliteStore;

use super::{Context, job, runs};
use crate::args::RunAnswerArgs;
use crate::exit::{CliError, Exit};
use crate::printer::Table;

/// A question that nobody has answered.
pub(super) struct Question {
    pub(super) run: RunId,
    pub(super) job: Option<String>,
    pub(super) action: Action,
    pub(super) approval: Approval,
    pub(super) since: Option<Timestamp>,
}

/// The questions of a run that waits for answers.
pub(super) fn questions(store: &SqliteStore, run: RunId) -> Result<Vec<Question>, CliError> {
    let state = runs::state(store, run)?.0;
    let mut found = Vec::new();
    for action in &state.actions {
        let Work::Task(TaskWork::Approve(approval)) = &action.work else { continue };
        let Some(step) = state.steps.get(&action.step).filter(|step| matches!(step.status, StepStatus::Running { .. })) else {
            continue;
        };
        if store.answer(run, &action.step)?.is_none() {
            let (action, approval) = (action.clone(), approval.clone());
            found.push(Question { run, job: state.job.clone(), action, approval, since: step.started_at });
        }
    }
    Ok(found)
}

pub(super) fn list(context: &Context<'_>) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let mut table = Table::new("questions", &["run", "job", "task", "question", "since"]);
    if let Some(store) = opened.store_if_there()? {
        for run in store.open_runs()? {
            for question in questions(&store, run)? {
                table.rows.push(vec![
                    json!(question.run.to_string()),
                    json!(question.job),
                    json!(question.action.rule.task),
                    json!(question.approval.message),
                    json!(question.since.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
                ]);
            }
        }
    }
    if table.rows.is_empty() {
        context.printer.note("no run waits for an answer");
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

pub(super) fn answer(context: &Context<'_>, args: &RunAnswerArgs, approved: bool) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let store = opened.store()?;
    let run = runs::find(&store, &args.run)?;
    let mut open = questions(&store, run)?;
    let conflict = |message: String, help: &str| {
        let problem = Diagnostic::error(codes::USAGE, message).data("nothing was changed");
        CliError::new(problem.help(help), Exit::Conflict)
    };
    let tasks: Vec<String> = open.iter().map(|question| question.action.rule.task.clone()).collect();
    let place = match &args.task {
        Some(task) => tasks.iter().position(|known| known == task),
        None if tasks.len() > 1 => {
            return Err(conflict(format!("several tasks of run {run} ask: {}", tasks.join(", ")), "name one of them"));
        }
        None => (!tasks.is_empty()).then_some(0),
    };
    let Some(place) = place else {
        let what = args.task.as_ref().map_or_else(String::new, |task| format!(" task `{task}` of"));
        return Err(conflict(
            format!("{what} run {run} asks nothing now").trim_start().to_owned(),
            "`subak run questions` lists what is asked",
        ));
    };
    let question = open.swap_remove(place);
    let task = question.action.rule.task;
    // Whoever says no need not say the rest.
    let said = job::values(&question.approval.input, &format!("task `{task}`"), &args.set);
    let input = match said {
        Err(_) if !approved && args.set.is_empty() => std::collections::BTreeMap::new(),
        said => said?,
    };
    let answer = Answer { approved, by: args.by.clone(), input, at: SystemClock.now() };
    let is_first = context.block_on(async { Ok(store.enter_answer(run, question.action.step, answer).await?) })?;
    if !is_first {
        return Err(conflict(format!("somebody has answered task `{task}` of run {run}"), "`subak run show` says who"));
    }
    context.printer.note(&format!("task `{task}` of run {run} is {}", if approved { "approved" } else { "rejected" }));
    Ok(Exit::Ok)
}
