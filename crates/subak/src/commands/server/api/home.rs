//! The first page: is anything wrong, what goes on, is the data on time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use subak_domain::{RunId, RunStatus, Timestamp};
use subak_server::{Call, Endpoint, Nothing, Problem};
use subak_store::RunFilter;
use utoipa::ToSchema;

use super::automation::nexts;
use super::picture::Picture;
use super::runs::RunView;
use super::{Api, VIEW, assets, failed, problem, text};
use crate::commands::question;
use crate::printer::counted;

/// Hours that the page is about.
const HOURS: u32 = 24;

/// Runs of the timeline.
const RUN_COUNT_MAX: usize = 500;

/// Runs that are looked through for what asks for attention.
const FAILED_COUNT_MAX: usize = 200;

/// Entries that ask for attention.
const ATTENTION_COUNT_MAX: usize = 50;

/// Something that somebody should look at.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttentionView {
    /// `run`, `asset`, `question`, `backfill` or `problem`.
    kind: String,
    /// What it is about: the id or the name.
    name: String,
    /// What people call it.
    title: String,
    /// How it stands.
    status: String,
    /// What is wrong, one sentence.
    cause: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Who cares for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

/// Assets of a group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupFreshness {
    /// The group.
    group: String,
    /// How many stand how.
    counts: BTreeMap<String, usize>,
}

/// A tick that comes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NextView {
    /// The job.
    pub(super) job: String,
    /// When.
    pub(super) at: String,
}

/// A step of the first hour with a project.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FirstStep {
    /// What it is called.
    step: String,
    /// Whether it is done.
    is_done: bool,
}

/// The first page.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HomeView {
    /// How everything is, one sentence.
    sentence: String,
    /// Whether nothing asks for attention.
    is_well: bool,
    /// When this was so.
    at: String,
    /// Runs that failed within the last day: as many as `GET /api/v1/runs?status=failed&ended_within=24` finds.
    failed_run_count: u64,
    /// Runs that wait.
    queued_run_count: u64,
    /// Runs that go on.
    running_run_count: u64,
    /// How many assets stand how.
    asset_counts: BTreeMap<String, usize>,
    /// What somebody should look at, the worst first.
    attention: Vec<AttentionView>,
    /// How many more there are.
    attention_more: usize,
    /// Runs that go on or wait.
    now: Vec<RunView>,
    /// Runs that were planned, went on or ended within the last day, the newest first.
    timeline: Vec<RunView>,
    /// The next ticks.
    next: Vec<NextView>,
    /// Assets by group.
    groups: Vec<GroupFreshness>,
    /// The first steps with a project.
    first_steps: Vec<FirstStep>,
    /// Bytes of the state.
    store_bytes: u64,
    /// Milliseconds that the oldest waiting run has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_age_ms: Option<u64>,
}

fn day_before(now: Timestamp) -> Timestamp {
    now.checked_sub(Duration::from_secs(u64::from(HOURS) * 3600)).unwrap_or(Timestamp::MIN)
}

/// Everything that somebody should look at, the worst first.
fn attention(api: &Api, call: &Call, picture: &Picture) -> Result<Vec<AttentionView>, Problem> {
    let mut found = Vec::new();
    let broken = picture.serving.problems.iter().filter(|problem| problem.severity == "error").count();
    if broken > 0 {
        found.push(AttentionView {
            kind: "problem".into(),
            name: "project".into(),
            title: "the files of the project".into(),
            status: "failed".into(),
            cause: format!("the files have {}; everything goes on as it was before", counted(broken as u64, "error")),
            since: None,
            owner: None,
        });
    }
    if let Some((waited, why)) = api.store.stalled() {
        found.push(AttentionView {
            kind: "system".into(),
            name: "state".into(),
            title: "the state of the project".into(),
            status: "failed".into(),
            cause: format!("it cannot be written, so that everything waits: {why}"),
            since: call.now.checked_sub(waited).ok().map(text),
            owner: None,
        });
    }
    let failures = assets::failures(api, call, picture)?;
    found.extend(failures.assets.into_iter().map(|(view, at)| AttentionView {
        kind: "asset".into(),
        cause: view.reason.unwrap_or_else(|| "a check failed".to_owned()),
        title: view.asset.clone(),
        name: view.asset,
        status: "failed".into(),
        since: Some(text(at)),
        owner: view.owner,
    }));
    found.extend(assets::late(api, call, picture)?.into_iter().map(|(view, since)| AttentionView {
        kind: "asset".into(),
        cause: view.reason.unwrap_or_default(),
        title: view.asset.clone(),
        name: view.asset,
        status: "late".into(),
        since: since.map(text),
        owner: view.owner,
    }));
    found.extend(failed_runs(api, call, &failures.runs)?);
    found.extend(waiting(api)?);
    Ok(found)
}

/// Runs that failed within a day and were not made good since; of several alike the newest.
fn failed_runs(api: &Api, call: &Call, told: &BTreeSet<RunId>) -> Result<Vec<AttentionView>, Problem> {
    let since = Some(day_before(call.now));
    let filter = RunFilter { statuses: vec![RunStatus::Failed], ended_from: since, ..RunFilter::default() };
    let (mut found, mut alike) = (Vec::new(), BTreeSet::new());
    for run in api.store.find_runs(&filter, FAILED_COUNT_MAX).map_err(failed)? {
        // What its assets say already, a run of assets need not say again; one of tasks may have failed otherwise too.
        let is_told = run.job.is_none() && told.contains(&run.run);
        if is_told || !alike.insert(run.selection.clone()) {
            continue;
        }
        let (job, planned_from) = (run.job.clone(), Some(run.planned_at));
        let later = RunFilter { statuses: vec![RunStatus::Succeeded], job, planned_from, ..RunFilter::default() };
        let later = api.store.find_runs(&later, FAILED_COUNT_MAX).map_err(failed)?;
        if later.iter().any(|other| other.selection == run.selection) {
            continue;
        }
        found.push(AttentionView {
            kind: "run".into(),
            name: run.run.to_string(),
            status: "failed".into(),
            cause: run.cause.unwrap_or_else(|| format!("`{}` failed", run.selection)),
            title: run.selection,
            since: run.ended_at.map(text),
            owner: None,
        });
    }
    Ok(found)
}

/// What waits for a person: questions, and backfills that somebody has paused.
fn waiting(api: &Api) -> Result<Vec<AttentionView>, Problem> {
    let mut found = Vec::new();
    for run in api.store.open_runs().map_err(failed)? {
        for question in question::questions(&api.store, run).map_err(problem)? {
            found.push(AttentionView {
                kind: "question".into(),
                name: run.to_string(),
                title: question.job.map_or(question.action.rule.task, |job| format!("job {job}")),
                status: "waiting".into(),
                cause: question.approval.message,
                since: question.since.map(text),
                owner: None,
            });
        }
    }
    for backfill in api.store.backfills(true, 100).map_err(failed)? {
        if backfill.state == subak_domain::BackfillState::Paused {
            found.push(AttentionView {
                kind: "backfill".into(),
                name: backfill.id.to_string(),
                title: backfill.selection.clone(),
                status: "waiting".into(),
                cause: format!("paused: {} of {} partitions are done", backfill.done, backfill.count()),
                since: Some(text(backfill.created_at)),
                owner: None,
            });
        }
    }
    Ok(found)
}

/// What the counts come to, one sentence.
fn sentence(failed_assets: usize, failed_runs: u64, attention: &[AttentionView], counts: &BTreeMap<String, usize>) -> String {
    let mut parts = Vec::new();
    let has = |kind: &str| attention.iter().any(|entry| entry.kind == kind);
    let (is_broken, is_stalled) = (has("problem"), has("system"));
    let waiting = attention.iter().filter(|entry| entry.status == "waiting").count();
    if is_stalled {
        parts.push("the state cannot be written".to_owned());
    }
    if is_broken {
        parts.push("the project has errors".to_owned());
    }
    if failed_assets > 0 {
        parts.push(format!("{} failed", counted(failed_assets as u64, "asset")));
    }
    if failed_runs > 0 {
        parts.push(format!("{} failed today", counted(failed_runs, "run")));
    }
    if waiting > 0 {
        let verb = if waiting == 1 { "waits" } else { "wait" };
        parts.push(format!("{} {verb} for a person", counted(waiting as u64, "thing")));
    }
    let of = |status: &str| counts.get(status).copied().unwrap_or(0);
    let (fresh, stale, missing, late) = (of("fresh"), of("stale"), of("missing"), of("late"));
    for (count, word) in [(late, "late"), (missing, "never made"), (stale, "stale")] {
        if count > 0 {
            let verb = if count == 1 { "is" } else { "are" };
            parts.push(format!("{} {verb} {word}", counted(count as u64, "asset")));
        }
    }
    let rest = match (parts.is_empty(), fresh) {
        (true, 0) => return "There are no assets yet.".to_owned(),
        (true, _) => return format!("Everything is fresh: {}.", counted(fresh as u64, "asset")),
        (false, 0) => String::new(),
        (false, _) => format!("; {fresh} fresh"),
    };
    let text = format!("{}{rest}.", parts.join(", "));
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn home(api: &Api, call: &Call, _: Nothing) -> Result<HomeView, Problem> {
    let picture = api.picture()?;
    let views = assets::views(api, call, &picture)?;
    let mut groups: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for view in &views {
        *counts.entry(view.status.clone()).or_default() += 1;
        *groups.entry(&view.group).or_default().entry(view.status.clone()).or_default() += 1;
    }
    let of = |statuses: &[RunStatus]| RunFilter { statuses: statuses.to_vec(), ..RunFilter::default() };
    let count = |filter: &RunFilter| api.store.count_runs(filter).map_err(failed);
    let from = day_before(call.now);
    let failed_run_count = count(&RunFilter { ended_from: Some(from), ..of(&[RunStatus::Failed]) })?;
    let going = [RunStatus::Running, RunStatus::Stopping];
    let open = of(&[RunStatus::Queued, RunStatus::Running, RunStatus::Stopping]);
    let now = api.store.find_runs(&open, 20).map_err(failed)?;
    let timeline = RunFilter { planned_from: Some(from), ..RunFilter::default() };
    let timeline = api.store.find_runs(&timeline, RUN_COUNT_MAX).map_err(failed)?;
    let mut attention = attention(api, call, &picture)?;
    let failed_assets = counts.get("failed").copied().unwrap_or(0);
    let sentence = sentence(failed_assets, failed_run_count, &attention, &counts);
    let run_counts = api.store.run_counts().map_err(failed)?;
    let has_run = !picture.snapshot.latest.is_empty();
    let is_scheduled = picture.serving.jobs.values().any(|job| job.schedule.is_some());
    let step = |step: &str, is_done: bool| FirstStep { step: step.to_owned(), is_done };
    let config = &picture.serving.opened.project.config;
    let first_steps = vec![
        step("connect", !config.connections.is_empty()),
        step("declare", !views.is_empty()),
        step("run", has_run),
        step("schedule", is_scheduled),
    ];
    let attention_more = attention.len().saturating_sub(ATTENTION_COUNT_MAX);
    attention.truncate(ATTENTION_COUNT_MAX);
    Ok(HomeView {
        sentence,
        is_well: attention.is_empty(),
        at: text(call.now),
        failed_run_count,
        queued_run_count: count(&of(&[RunStatus::Queued]))?,
        running_run_count: count(&of(&going))?,
        groups: groups.into_iter().map(|(group, counts)| GroupFreshness { group: group.to_owned(), counts }).collect(),
        asset_counts: counts,
        attention,
        attention_more,
        now: now.into_iter().map(|run| RunView::of(run, call.now)).collect(),
        timeline: timeline.into_iter().map(|run| RunView::of(run, call.now)).collect(),
        next: nexts(&picture.serving, &api.store, call.now)?,
        first_steps,
        store_bytes: std::fs::metadata(api.store.path()).map_or(0, |metadata| metadata.len()),
        queue_age_ms: run_counts.queued_since.map(|at| super::elapsed_ms(at, call.now)),
    })
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![Endpoint::read("/api/v1/home", VIEW, "Whether anything is wrong, what goes on, and whether the data are on time.", home)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_says_how_everything_is() {
        let counts = |entries: &[(&str, usize)]| entries.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let entry = |kind: &str, status: &str| AttentionView {
            kind: kind.into(),
            name: "a".into(),
            title: "a".into(),
            status: status.into(),
            cause: String::new(),
            since: None,
            owner: None,
        };
        let (waiting, broken) = (entry("task", "waiting"), entry("problem", "failed"));
        let cases = [
            (sentence(0, 0, &[], &counts(&[])), "There are no assets yet."),
            (sentence(0, 0, &[], &counts(&[("fresh", 1)])), "Everything is fresh: 1 asset."),
            (
                sentence(1, 2, &[waiting], &counts(&[("failed", 1), ("fresh", 8), ("stale", 3)])),
                "1 asset failed, 2 runs failed today, 1 thing waits for a person, 3 assets are stale; 8 fresh.",
            ),
            (sentence(0, 0, &[broken], &counts(&[("missing", 1)])), "The project has errors, 1 asset is never made."),
            (sentence(0, 0, &[entry("system", "failed")], &counts(&[("fresh", 1)])), "The state cannot be written; 1 fresh."),
            (sentence(0, 0, &[], &counts(&[("late", 2), ("fresh", 1)])), "2 assets are late; 1 fresh."),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }
}
