//! `subak automation`: schedules and their ticks.

use serde_json::json;
use subak_diag::{Diagnostic, codes};
use subak_domain::schedule::{CatchUp, ScheduleRule};
use subak_domain::{Job, Schedule, Timestamp, Version};
use subak_engine::{Clock, SystemClock};
use subak_plan::schedule::Times;
use subak_store::{ScheduleState, SqliteStore, TickOutcome};

use super::{Context, job};
use crate::args::{AutomationCommand, AutomationShowArgs, AutomationTestArgs};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, command: &AutomationCommand) -> Result<Exit, CliError> {
    let opened = context.open()?;
    match command {
        AutomationCommand::List => list(context, &opened)?,
        AutomationCommand::Show(args) => show(context, &opened, args)?,
        AutomationCommand::On(args) => switch(context, &opened, &args.job, false)?,
        AutomationCommand::Off(args) => switch(context, &opened, &args.job, true)?,
        AutomationCommand::Test(args) => test(context, &opened, args)?,
    }
    Ok(Exit::Ok)
}

/// The schedule in a few words.
pub(super) fn definition(schedule: &Schedule) -> String {
    let rule = match &schedule.rule {
        ScheduleRule::Cron(lines) => lines.join("; "),
        ScheduleRule::Every(interval) => format!("every {} s", interval.as_secs()),
    };
    format!("{rule} in {}", schedule.timezone)
}

/// Another one when anything about the schedule is.
pub(super) fn version(schedule: &Schedule) -> String {
    Version::of(&[("schedule", &format!("{schedule:?}"))]).to_string()
}

fn scheduled<'a>(opened: &'a Opened, name: &str) -> Result<(&'a Job, &'a Schedule, Times), CliError> {
    let job = job::find(opened, name)?;
    let Some(schedule) = &job.schedule else {
        let problem = Diagnostic::error(codes::USAGE, format!("job `{name}` has no schedule"));
        return Err(CliError::new(problem.help("give it one: `schedule: \"15 * * * *\"`"), Exit::Invalid));
    };
    Ok((job, schedule, times(schedule)?))
}

/// A schedule that can be asked. Loading has looked at it already.
pub(super) fn times(schedule: &Schedule) -> Result<Times, CliError> {
    Times::new(schedule).map_err(|error| CliError::new(Diagnostic::error(codes::INVALID_VALUE, error.to_string()), Exit::Invalid))
}

fn store_if_there(opened: &Opened) -> Result<Option<SqliteStore>, CliError> {
    opened.state_folder().join("state.db").exists().then(|| opened.store()).transpose()
}

fn text(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn list(context: &Context<'_>, opened: &Opened) -> Result<(), CliError> {
    let store = store_if_there(opened)?;
    let mut table = Table::new("schedules", &["job", "schedule", "on", "next", "last", "came_to"]);
    for job in opened.project.jobs() {
        let Some(schedule) = &job.schedule else { continue };
        let state = store.as_ref().map(|store| store.schedule(&job.name)).transpose()?.flatten();
        let last =
            store.as_ref().map(|store| store.ticks(Some(&job.name), 1)).transpose()?.and_then(|ticks| ticks.into_iter().next());
        let is_off = state.is_some_and(|state| state.is_off);
        let next = times(schedule)?.next_after(SystemClock.now()).filter(|_| !is_off);
        table.rows.push(vec![
            json!(job.name),
            json!(definition(schedule)),
            json!(if is_off { "off" } else { "on" }),
            json!(next.map(text)),
            json!(last.as_ref().map(|tick| text(tick.at))),
            json!(last.map(|tick| outcome(&tick.outcome))),
        ]);
    }
    if table.rows.is_empty() {
        context.printer.note("no job has a schedule; give one `schedule: \"15 * * * *\"`");
    }
    context.printer.table(&table);
    Ok(())
}

fn outcome(outcome: &TickOutcome) -> String {
    match outcome {
        TickOutcome::Started(run) => format!("started run {run}"),
        TickOutcome::Skipped(reason) => format!("skipped: {reason}"),
        TickOutcome::Failed(reason) => format!("failed: {reason}"),
    }
}

fn show(context: &Context<'_>, opened: &Opened, args: &AutomationShowArgs) -> Result<(), CliError> {
    scheduled(opened, &args.job)?;
    let mut table = Table::new("ticks", &["at", "outcome", "recorded_at", "text"]);
    for tick in store_if_there(opened)?.map(|store| store.ticks(Some(&args.job), args.limit)).transpose()?.unwrap_or_default() {
        table.rows.push(vec![
            json!(text(tick.at)),
            json!(tick.outcome.as_str()),
            json!(text(tick.recorded_at)),
            json!(outcome(&tick.outcome)),
        ]);
    }
    context.printer.table(&table);
    Ok(())
}

fn switch(context: &Context<'_>, opened: &Opened, name: &str, is_off: bool) -> Result<(), CliError> {
    let (_, schedule, _) = scheduled(opened, name)?;
    let store = opened.store()?;
    let was_off = store.schedule(name)?.is_some_and(|state| state.is_off);
    if was_off != is_off {
        let state = ScheduleState { definition: version(schedule), since: SystemClock.now(), is_off };
        context.block_on(async { Ok(store.set_schedule(name, state).await?) })?;
    }
    context.printer.note(&format!("the schedule of `{name}` is {}", if is_off { "off" } else { "on" }));
    Ok(())
}

fn test(context: &Context<'_>, opened: &Opened, args: &AutomationTestArgs) -> Result<(), CliError> {
    let (_, schedule, times) = scheduled(opened, &args.job)?;
    let mut at = match &args.at {
        None => SystemClock.now(),
        Some(text) => {
            let wall =
                || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(times.zone().clone()).ok().map(|zoned| zoned.timestamp());
            text.parse::<Timestamp>().ok().or_else(wall).ok_or_else(|| {
                let problem = Diagnostic::error(codes::USAGE, format!("`{text}` is no moment"));
                CliError::new(problem.help("write it like `2026-03-29T00:00:00Z` or `2026-03-29 02:30`"), Exit::Invalid)
            })?
        }
    };
    let mut table = Table::new("ticks", &["at", "clock"]);
    while table.rows.len() < args.limit {
        let Some(next) = times.next_after(at) else { break };
        let clock = next.to_zoned(times.zone().clone()).strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string();
        table.rows.push(vec![json!(text(next)), json!(clock)]);
        at = next;
    }
    let missed = match schedule.catchup {
        CatchUp::None => "none of those that come while no server runs",
        CatchUp::Latest => "the newest of those that come while no server runs",
        CatchUp::All => "all of those that come while no server runs",
    };
    context.printer.note(&format!("{}; made good later: {missed}", definition(schedule)));
    context.printer.table(&table);
    Ok(())
}
