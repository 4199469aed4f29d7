//! `subak job`, and starting one.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use subak_diag::{Diagnostic, codes};
use subak_domain::job::{Param, ParamKind, TaskWork};
use subak_domain::{Action, Job, JobWork, StepId, Work};

use super::run::{self, Work as Started};
use super::{Context, automation, plan};
use crate::args::{JobCommand, RunArgs, Selection};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, command: &JobCommand) -> Result<Exit, CliError> {
    let opened = context.open()?;
    match command {
        JobCommand::List => list(context, &opened),
        JobCommand::Show(args) => show(context, find(&opened, &args.job)?),
    }
    Ok(Exit::Ok)
}

pub(super) fn find<'a>(opened: &'a Opened, name: &str) -> Result<&'a Job, CliError> {
    let jobs = opened.project.jobs();
    let known = jobs.iter().map(|job| job.name.as_str());
    jobs.iter().find(|job| job.name == name).ok_or_else(|| CliError::not_found("job", name, known))
}

/// What a job does, in a few words.
pub(super) fn does(job: &Job) -> String {
    match &job.work {
        JobWork::Select(words) => format!("assets {}", words.join(" ")),
        JobWork::Tasks(actions) => format!("{} tasks", actions.len()),
    }
}

fn list(context: &Context<'_>, opened: &Opened) {
    let mut table = Table::new("jobs", &["job", "does", "description", "path"]);
    for job in opened.project.jobs() {
        table.rows.push(vec![json!(job.name), json!(does(job)), json!(job.description), json!(job.path)]);
    }
    if table.rows.is_empty() {
        context.printer.note("there are no jobs; declare one in a file below `jobs/`");
    }
    context.printer.table(&table);
}

/// What a task is, in one word.
fn kind_of(action: &Action) -> &'static str {
    match &action.work {
        Work::Task(TaskWork::Run(_)) => "run",
        Work::Task(TaskWork::Sql { .. }) => "sql",
        Work::Task(TaskWork::Query { .. }) => "query",
        Work::Task(TaskWork::Http(_)) => "http",
        Work::Task(TaskWork::Notify { .. }) => "notify",
        Work::Task(TaskWork::Wait { .. }) => "wait",
        Work::Task(TaskWork::Approve(_)) => "approve",
        Work::Task(TaskWork::Expand { .. }) => "group",
        _ => "asset",
    }
}

fn show(context: &Context<'_>, job: &Job) {
    if let Some(description) = &job.description {
        context.printer.note(description);
    }
    let mut params = Table::new("params", &["param", "type", "default", "choices", "description"]);
    for (name, param) in &job.params {
        let choices = (!param.choices.is_empty()).then(|| Value::from(param.choices.clone()).to_string());
        params.rows.push(vec![
            json!(name),
            json!(param.kind.as_str()),
            json!(param.default),
            json!(choices),
            json!(param.description),
        ]);
    }
    if !params.rows.is_empty() {
        context.printer.table(&params);
    }
    match &job.work {
        JobWork::Select(words) => context.printer.out(&format!("brings up to date: {}", words.join(" "))),
        JobWork::Tasks(actions) => context.printer.table(&table_of(actions)),
    }
}

fn table_of(actions: &[Action]) -> Table {
    let mut table = Table::new("tasks", &["task", "kind", "needs", "trigger", "when"]);
    let name = |step: &StepId| {
        let found = actions.iter().find(|action| action.step == *step);
        found.map_or_else(|| step.to_string(), |action| action.rule.task.clone())
    };
    for action in actions {
        let needs: Vec<String> = action.needs.iter().map(name).collect();
        let trigger = (!action.needs.is_empty()).then(|| action.rule.trigger.as_str());
        table.rows.push(vec![
            json!(action.rule.task),
            json!(kind_of(action)),
            json!(needs.join(" ")),
            json!(trigger),
            json!(action.rule.when),
        ]);
    }
    table
}

/// Starts a job, or shows what it would do.
pub(super) fn start(context: &Context<'_>, opened: &Opened, name: &str, args: &RunArgs) -> Result<Exit, CliError> {
    let job = find(opened, name)?;
    let params = params(job, &args.set)?;
    let actions = match &job.work {
        JobWork::Tasks(actions) => actions.clone(),
        JobWork::Select(words) => {
            let selection = Selection { select: words.clone(), exclude: Vec::new() };
            let how = plan::How::default();
            if args.dry_run {
                plan::print(context, &plan::make(context, opened, &selection, &how)?);
                return Ok(Exit::Ok);
            }
            return run::selected(context, opened, &selection, &how, &args.how, Some((job, params)));
        }
    };
    if args.dry_run {
        context.printer.table(&table_of(&actions));
        return Ok(Exit::Ok);
    }
    let interval = automation::interval(opened, job)?;
    let work = Started::New { actions, selection: format!("job {name}"), job: Some(name.to_owned()), params, interval };
    context.block_on(run::work(context, opened, work, &args.how))
}

/// The parameters of a job: what was said, and what holds where nobody says.
pub(super) fn params(job: &Job, said: &[String]) -> Result<BTreeMap<String, Value>, CliError> {
    values(&job.params, &format!("job `{}`", job.name), said)
}

/// Values of parameters: what was said, and what holds where nobody says.
pub(super) fn values(params: &BTreeMap<String, Param>, of: &str, said: &[String]) -> Result<BTreeMap<String, Value>, CliError> {
    let mut values: BTreeMap<String, Value> =
        params.iter().filter_map(|(name, param)| Some((name.clone(), param.default.clone()?))).collect();
    let wrong = |message: String, help: &str| {
        let problem = Diagnostic::error(codes::USAGE, message).data("nothing was run");
        CliError::new(problem.help(help), Exit::Invalid)
    };
    for pair in said {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(param) = params.get(name) else {
            return Err(CliError::not_found("parameter", name, params.keys().map(String::as_str)));
        };
        let Some(value) = param.kind.parse(text) else {
            let hint = if param.kind == ParamKind::Date {
                "write it like `2026-11-21`"
            } else {
                "`subak job show` shows the parameters"
            };
            return Err(wrong(format!("`{text}` is no value of `{name}`, which is {}", param.kind.as_str()), hint));
        };
        if !param.choices.is_empty() && !param.choices.contains(&value) {
            let choices = Value::from(param.choices.clone());
            return Err(wrong(format!("`{name}` cannot be `{text}`"), &format!("it can be one of {choices}")));
        }
        values.insert(name.to_owned(), value);
    }
    match params.keys().find(|name| !values.contains_key(*name)) {
        Some(missing) => Err(wrong(format!("{of} needs the parameter `{missing}`"), &format!("say it with `--set {missing}=…`"))),
        None => Ok(values),
    }
}
