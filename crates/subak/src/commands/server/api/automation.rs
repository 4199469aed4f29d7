//! What starts by itself: schedules, sensors, automated assets; their ticks; switching them on and off.

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subak_domain::Timestamp;
use subak_server::{Call, Done, Endpoint, Nothing, Page, Problem};
use subak_store::{SqliteStore, TickOutcome};
use utoipa::{IntoParams, ToSchema};

use super::home::NextView;
use super::{Api, OPERATE, Serving, VIEW, failed, problem, text};
use crate::commands::automation;
use crate::commands::server::sensor;

/// Ticks of a list.
const TICK_COUNT_MAX: usize = 500;

/// Next ticks that are told.
const NEXT_COUNT_MAX: usize = 20;

/// Something that starts by itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AutomationView {
    /// Its name.
    name: String,
    /// `schedule`, `sensor` or `asset`.
    kind: String,
    /// When it starts something, in words.
    when: String,
    /// What it starts: a job, or an asset.
    starts: String,
    /// Whether it is switched on.
    is_on: bool,
    /// When it comes next, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// When it was last evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// What that came to, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    came_to: Option<String>,
}

/// Which ticks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct TicksQuery {
    /// How many, at most 500.
    limit: Option<usize>,
}

/// A tick.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TickView {
    /// The time that it is for.
    at: String,
    /// When it was evaluated.
    recorded_at: String,
    /// `started`, `skipped`, `missed` or `failed`.
    outcome: String,
    /// What it came to, one sentence.
    text: String,
    /// The runs that it started.
    runs: Vec<String>,
}

fn list(api: &Api, _: &Call, _: Nothing) -> Result<Page<AutomationView>, Problem> {
    let serving = api.serving()?;
    let table = automation::table(&serving.opened, Some(&api.store)).map_err(problem)?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let word_or_none = |value: &Value| value.as_str().map(str::to_owned);
    let view = |row: Vec<Value>| {
        let [name, kind, when, starts, on, next, last, came_to] = <[Value; 8]>::try_from(row).ok()?;
        Some(AutomationView {
            name: word(&name),
            kind: word(&kind),
            when: word(&when),
            starts: word(&starts),
            is_on: on == "on",
            next: word_or_none(&next),
            last: word_or_none(&last),
            came_to: word_or_none(&came_to),
        })
    };
    Ok(Page::whole(table.rows.into_iter().filter_map(view).collect()))
}

fn ticks(api: &Api, call: &Call, query: TicksQuery) -> Result<Page<TickView>, Problem> {
    let serving = api.serving()?;
    let name = automation::tick_name(&serving.opened, call.part("name")).map_err(problem)?;
    let count = query.limit.unwrap_or(100).clamp(1, TICK_COUNT_MAX);
    let view = |tick: subak_store::Tick| TickView {
        at: text(tick.at),
        recorded_at: text(tick.recorded_at),
        outcome: tick.outcome.as_str().to_owned(),
        text: sensor::in_words(&tick.outcome),
        runs: if let TickOutcome::Started(runs) = tick.outcome {
            runs.iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        },
    };
    let found = api.store.ticks(Some(&name), count).map_err(failed)?;
    Ok(Page::whole(found.into_iter().map(view).collect()))
}

fn switch(api: &Api, call: &Call, is_off: bool) -> Result<Done, Problem> {
    let serving = api.serving()?;
    let name = call.part("name");
    let action = if is_off { "automation.off" } else { "automation.on" };
    let store = api.store.audited_as(call.entry(action, name, ""));
    let said = call.wait(automation::set(&serving.opened, &store, name, is_off)).map_err(problem)?;
    Ok(Done::new(said))
}

fn on(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    switch(api, call, false)
}

fn off(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    switch(api, call, true)
}

/// The next ticks of all schedules.
pub(super) fn nexts(serving: &Serving, store: &SqliteStore, now: Timestamp) -> Result<Vec<NextView>, Problem> {
    let mut found = Vec::new();
    for declared in serving.opened.project.jobs() {
        let Some(schedule) = &declared.schedule else { continue };
        if store.schedule(&declared.name).map_err(failed)?.is_some_and(|state| state.is_off) {
            continue;
        }
        let next = automation::times(schedule).map_err(problem)?.next_after(now);
        found.extend(next.map(|at| (at, declared.name.clone())));
    }
    found.sort();
    found.truncate(NEXT_COUNT_MAX);
    Ok(found.into_iter().map(|(at, job)| NextView { job, at: text(at) }).collect())
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::read("/api/v1/automation", VIEW, "Schedules, sensors and automated assets.", list),
        Endpoint::read("/api/v1/automation/{name}/ticks", VIEW, "The ticks of one of them, the newest first.", ticks),
        Endpoint::write(Method::POST, "/api/v1/automation/{name}/on", OPERATE, "Switches one on.", on),
        Endpoint::write(Method::POST, "/api/v1/automation/{name}/off", OPERATE, "Switches one off.", off),
    ]
}
