//! `subak automation`: schedules, sensors and assets that are brought up to date by themselves, and their ticks.

use std::sync::Arc;

use serde_json::{Value, json};
use subak_diag::{Diagnostic, codes};
use subak_domain::schedule::{CatchUp, Interval, ScheduleRule};
use subak_domain::{AssetKey, Job, Schedule, Sensor, Timestamp, Version, Watch};
use subak_engine::{Clock, StopSignal, SystemClock};
use subak_plan::schedule::Times;
use subak_store::{Looked, ScheduleState, SensorLook, SensorState, SqliteStore};

use super::server::{automate, sensor};
use super::{Context, job};
use crate::args::{AutomationCommand, AutomationShowArgs, AutomationTestArgs};
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::Table;
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, command: &AutomationCommand) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    match command {
        AutomationCommand::List => list(context, &opened)?,
        AutomationCommand::Show(args) => show(context, &opened, args)?,
        AutomationCommand::On(args) => switch(context, &opened, &args.name, false)?,
        AutomationCommand::Off(args) => switch(context, &opened, &args.name, true)?,
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
    let jitter = schedule.jitter.as_secs();
    let jitter = if jitter == 0 { String::new() } else { format!(", up to {jitter} s later") };
    format!("{rule} in {}{jitter}", schedule.timezone)
}

/// Another one when anything about the schedule is.
pub(super) fn version(schedule: &Schedule) -> String {
    // What schedules did not have before says nothing where it is not used: one that is known stays the same.
    let text = format!("{schedule:?}").replace(", jitter: 0ns", "");
    Version::of(&[("schedule", &text)]).to_string()
}

/// What a name stands for.
enum Named<'a> {
    Schedule(&'a Schedule, Box<Times>),
    Sensor(&'a Sensor),
    Asset(&'a AssetKey),
}

fn named<'a>(opened: &'a Opened, name: &str) -> Result<Named<'a>, CliError> {
    if let Some(sensor) = opened.project.sensors().iter().find(|sensor| sensor.name == name) {
        return Ok(Named::Sensor(sensor));
    }
    let automated = || opened.graph().assets().iter().filter(|asset| asset.automation.is_some()).map(|asset| &asset.key);
    let jobs = opened.project.jobs();
    if let Some(asset) = automated().find(|key| key.as_str() == name && jobs.iter().all(|job| job.name != name)) {
        return Ok(Named::Asset(asset));
    }
    let Some(Job { schedule, .. }) = jobs.iter().find(|job| job.name == name) else {
        let sensors = opened.project.sensors().iter().map(|sensor| sensor.name.as_str());
        let scheduled = jobs.iter().filter(|job| job.schedule.is_some()).map(|job| job.name.as_str());
        let known = sensors.chain(scheduled).chain(automated().map(AssetKey::as_str));
        return Err(CliError::not_found("schedule, sensor or automated asset", name, known));
    };
    let Some(schedule) = schedule else {
        let problem = Diagnostic::error(codes::USAGE, format!("job `{name}` has no schedule"));
        return Err(CliError::new(problem.help("give it one: `schedule: \"15 * * * *\"`"), Exit::Invalid));
    };
    Ok(Named::Schedule(schedule, Box::new(times(schedule)?)))
}

/// What a sensor watches, in a few words.
fn watches(watch: &Watch) -> String {
    let what = match watch {
        Watch::Files { on, pattern, .. } if *on == subak_domain::ConnectionName::project_files() => pattern.clone(),
        Watch::Files { on, pattern, .. } => format!("{pattern} of {on}"),
        Watch::Query { on, cursor, .. } => {
            cursor.as_ref().map_or_else(|| format!("on {on}"), |cursor| format!("on {on} by {}", cursor.column))
        }
        Watch::Http { call, .. } => call.url.clone(),
        Watch::Assets { assets, .. } => assets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Watch::Jobs { jobs, .. } => jobs.join(", "),
        Watch::Webhook { .. } => "deliveries over HTTP".to_owned(),
        Watch::Program(_) => String::new(),
    };
    format!("{} {what}", watch.kind()).trim_end().to_owned()
}

/// A schedule that can be asked. Loading has looked at it already.
pub(super) fn times(schedule: &Schedule) -> Result<Times, CliError> {
    Times::new(schedule).map_err(|error| CliError::new(Diagnostic::error(codes::INVALID_VALUE, error.to_string()), Exit::Invalid))
}

/// The time that a run of a job is about that somebody starts now: the last interval of its schedule that has ended.
pub(super) fn interval(opened: &Opened, job: &Job) -> Result<Option<Interval>, CliError> {
    let Some(schedule) = &job.schedule else { return Ok(None) };
    let last = times(schedule)?.last_interval(opened.now());
    Ok(last.map(|(start, end)| Interval::new(start, end, &opened.timezone())))
}

pub(super) fn text(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn list(context: &Context<'_>, opened: &Opened) -> Result<(), CliError> {
    let table = table(opened, opened.store_if_there()?.as_ref())?;
    if table.rows.is_empty() {
        let nothing = "no job has a schedule, there are no sensors, and no asset has `automation`";
        context.printer.note(&format!("{nothing}; see `subak docs schedules`, `sensors` and `automation`"));
    }
    context.printer.table(&table);
    Ok(())
}

/// Schedules, sensors and automated assets, and how they stand.
pub(super) fn table(opened: &Opened, store: Option<&SqliteStore>) -> Result<Table, CliError> {
    let mut table = Table::new("automation", &["name", "kind", "when", "starts", "on", "next", "last", "came_to"]);
    let word = |is_off: bool| if is_off { "off" } else { "on" };
    for job in opened.project.jobs() {
        let Some(schedule) = &job.schedule else { continue };
        let state = store.as_ref().map(|store| store.schedule(&job.name)).transpose()?.flatten();
        let last =
            store.as_ref().map(|store| store.ticks(Some(&job.name), 1)).transpose()?.and_then(|ticks| ticks.into_iter().next());
        let is_off = state.is_some_and(|state| state.is_off);
        let next = times(schedule)?.next_after(SystemClock.now()).filter(|_| !is_off);
        table.rows.push(vec![
            json!(job.name),
            json!("schedule"),
            json!(definition(schedule)),
            json!(job.name),
            json!(word(is_off)),
            json!(next.map(text)),
            json!(last.as_ref().map(|tick| text(tick.at))),
            json!(last.map(|tick| sensor::in_words(&tick.outcome))),
        ]);
    }
    for own in opened.project.sensors() {
        let state = store.as_ref().map(|store| store.sensor(&own.name)).transpose()?.flatten();
        let looked_at = state.as_ref().and_then(|state| state.looked_at);
        table.rows.push(vec![
            json!(own.name),
            json!("sensor"),
            json!(watches(&own.watch)),
            json!(own.job),
            json!(word(state.as_ref().is_some_and(|state| state.is_off))),
            Value::Null,
            json!(looked_at.map(text)),
            json!(state.map(|state| state.came_to).filter(|text| !text.is_empty())),
        ]);
    }
    for asset in opened.graph().assets() {
        let Some(automation) = &asset.automation else { continue };
        let state = store.as_ref().map(|store| store.sensor(&automate::name_of(&asset.key))).transpose()?.flatten();
        let looked_at = state.as_ref().and_then(|state| state.looked_at);
        table.rows.push(vec![
            json!(asset.key.as_str()),
            json!("asset"),
            json!(automation.text),
            json!(asset.key.as_str()),
            json!(word(state.as_ref().is_some_and(|state| state.is_off))),
            Value::Null,
            json!(looked_at.map(text)),
            json!(state.map(|state| state.came_to)),
        ]);
    }
    Ok(table)
}

/// What the ticks of a schedule, a sensor or an automated asset are kept under.
pub(super) fn tick_name(opened: &Opened, name: &str) -> Result<String, CliError> {
    Ok(match named(opened, name)? {
        Named::Asset(asset) => automate::name_of(asset),
        _ => name.to_owned(),
    })
}

fn show(context: &Context<'_>, opened: &Opened, args: &AutomationShowArgs) -> Result<(), CliError> {
    let named = named(opened, &args.name)?;
    let store = opened.store_if_there()?;
    let mut table = Table::new("ticks", &["at", "outcome", "recorded_at", "text"]);
    let name = tick_name(opened, &args.name)?;
    for tick in store.as_ref().map(|store| store.ticks(Some(&name), args.limit)).transpose()?.unwrap_or_default() {
        table.rows.push(vec![
            json!(text(tick.at)),
            json!(tick.outcome.as_str()),
            json!(text(tick.recorded_at)),
            json!(sensor::in_words(&tick.outcome)),
        ]);
    }
    context.printer.table(&table);
    let Some(store) = store else { return Ok(()) };
    let (state, verb, nothing) = match named {
        Named::Schedule(..) => return Ok(()),
        Named::Sensor(own) => (sensor::known(&store, own)?, "looked", "looks that find nothing"),
        Named::Asset(_) => (automate::known(&store, &name)?, "was looked at", "evaluations that ask for nothing"),
    };
    let looked = match state.looked_at {
        None => "nobody has looked yet".to_owned(),
        Some(at) => format!("it {verb} last at {}: {}", text(at), state.came_to),
    };
    context.printer.note(&format!("{looked}; {nothing} leave no tick"));
    Ok(())
}

fn switch(context: &Context<'_>, opened: &Opened, name: &str, is_off: bool) -> Result<(), CliError> {
    let store = opened.store()?;
    let said = context.block_on(set(opened, &store, name, is_off))?;
    context.printer.note(&said);
    Ok(())
}

/// Switches a schedule, a sensor or an automated asset on or off. Returns what it is now, in words.
pub(super) async fn set(opened: &Opened, store: &SqliteStore, name: &str, is_off: bool) -> Result<String, CliError> {
    let word = if is_off { "off" } else { "on" };
    Ok(match named(opened, name)? {
        Named::Sensor(own) => {
            switch_state(store, name, || sensor::known(store, own), is_off).await?;
            format!("the sensor `{name}` is {word}")
        }
        Named::Asset(asset) => {
            let own = automate::name_of(asset);
            switch_state(store, &own, || automate::known(store, &own), is_off).await?;
            format!("the automation of `{asset}` is {word}")
        }
        Named::Schedule(schedule, _) => {
            let was_off = store.schedule(name)?.is_some_and(|state| state.is_off);
            if was_off != is_off {
                let state = ScheduleState { definition: version(schedule), since: SystemClock.now(), is_off };
                store.set_schedule(name, state).await?;
            }
            format!("the schedule of `{name}` is {word}")
        }
    })
}

/// Switches a sensor or the automation of an asset, whatever a server does with it meanwhile: what it remembers stays.
async fn switch_state(
    store: &SqliteStore,
    name: &str,
    known: impl Fn() -> Result<SensorState, CliError>,
    is_off: bool,
) -> Result<(), CliError> {
    loop {
        let before = known()?;
        if before.is_off == is_off {
            return Ok(());
        }
        let state = SensorState { is_off, revision: before.revision + 1, ..before };
        let sensor = name.to_owned();
        let look = SensorLook { sensor, state, tick: None, runs: Vec::new(), partitions: Vec::new(), fence: None };
        if store.look(look).await? != Looked::Changed {
            return Ok(());
        }
    }
}

fn test(context: &Context<'_>, opened: &Opened, args: &AutomationTestArgs) -> Result<(), CliError> {
    match named(opened, &args.name)? {
        Named::Sensor(own) => test_sensor(context, opened, own),
        Named::Asset(asset) => test_asset(context, opened, asset),
        Named::Schedule(schedule, times) => test_schedule(context, schedule, &times, args),
    }
}

/// Evaluates the automation of an asset, and shows which of its conditions are true.
fn test_asset(context: &Context<'_>, opened: &Opened, asset: &AssetKey) -> Result<(), CliError> {
    let store = opened.store()?;
    let decision = context.block_on(async { automate::explain(&store, opened, asset, SystemClock.now()).await })?;
    let Some(decision) = decision else { return Ok(()) };
    let mut table = Table::new("conditions", &["condition", "is", "because_of"]);
    for part in &decision.parts {
        table.rows.push(vec![json!(part.condition), json!(part.is_true), json!(part.because_of.join(" "))]);
    }
    let asked = match decision.requested.as_slice() {
        [] => decision.why(),
        [only] if only.is_empty() => "it would be brought up to date".to_owned(),
        keys => format!("it would be brought up to date: {}", keys.join(", ")),
    };
    context.printer.note(&format!("{asked}; nothing was started or remembered"));
    context.printer.table(&table);
    Ok(())
}

/// Looks once, and shows which runs it would start.
fn test_sensor(context: &Context<'_>, opened: &Opened, own: &Sensor) -> Result<(), CliError> {
    let store = opened.store()?;
    let state = sensor::known(&store, own)?;
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    let look = context.block_on(async {
        if own.watch.is_of_log() {
            let nothing = || subak_domain::sensor::Look::nothing(state.cursor.clone(), "nothing happened");
            return Ok(sensor::look_at_log(&store, own, &state).await?.unwrap_or_else(nothing));
        }
        let seen = sensor::look(context, opened, Arc::new(connections), own, &state, StopSignal::default()).await;
        seen.map_err(|failure| CliError::new(crate::exit::diagnostic_of(&failure), crate::exit::exit_of(failure.class)))
    })?;
    let job = job::find(opened, &own.job)?;
    let snapshot = sensor::with_keys(store.snapshot()?, &look.partitions);
    let mut table = Table::new("runs", &["key", "job", "params", "partition", "note"]);
    for request in look.requests {
        let key = request.key.clone();
        let had = store.sensor_run(&own.name, &key)?;
        let asked = sensor::asked(opened, &snapshot, own, job, request)?;
        let note = match (had, asked.is_idle()) {
            (Some(run), _) => Some(format!("has had its run {run}")),
            (None, true) => Some("needs no run: everything is fresh".to_owned()),
            (None, false) => None,
        };
        let params = (!asked.params.is_empty()).then(|| json!(asked.params).to_string());
        table.rows.push(vec![json!(key), json!(own.job), json!(params), json!(asked.partition), json!(note)]);
    }
    for (set, key) in &look.partitions {
        context.printer.note(&format!("the partitions `{set}` would get `{key}`"));
    }
    match look.note {
        Some(note) => context.printer.note(&format!("{note}; nothing was started or remembered")),
        None => context.printer.note("nothing was started or remembered"),
    }
    context.printer.table(&table);
    Ok(())
}

fn test_schedule(context: &Context<'_>, schedule: &Schedule, times: &Times, args: &AutomationTestArgs) -> Result<(), CliError> {
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
