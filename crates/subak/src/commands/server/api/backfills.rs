//! Backfills: how far they are, and pausing, going on, ending.

use axum::http::Method;
use serde::{Deserialize, Serialize};
use subak_domain::{Backfill, BackfillAsk};
use subak_server::{Call, Done, Endpoint, Nothing, Page, Problem};
use utoipa::{IntoParams, ToSchema};

use super::{Api, OPERATE, VIEW, failed, problem, text};
use crate::args::Selection;
use crate::commands::backfill;

/// Partitions in one run where nobody says how many, and at most.
const PER_RUN: u64 = 100;
const PER_RUN_MAX: u64 = 1_000;

/// Backfills of a list.
const BACKFILL_COUNT_MAX: usize = 500;

/// Which backfills.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct BackfillsQuery {
    /// Only those that are not over.
    open: Option<bool>,
    /// How many, at most 500.
    limit: Option<usize>,
}

/// The partitions of an asset that a backfill is about.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TargetView {
    /// The asset.
    asset: String,
    /// How many partitions.
    count: u64,
    /// How many of them were planned so far.
    planned: u64,
    /// The first and the last, for each range.
    ranges: Vec<Vec<String>>,
}

/// A backfill.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BackfillView {
    /// Its id.
    backfill: String,
    /// Where it stands.
    status: String,
    /// What was asked for, in words.
    selection: String,
    /// When.
    created_at: String,
    /// Partitions that it is about.
    count: u64,
    /// Those that are done.
    done: u64,
    /// Those that failed.
    failed: u64,
    /// Those that were not made because of one that failed.
    blocked: u64,
    /// The run that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// Its assets.
    targets: Vec<TargetView>,
}

impl BackfillView {
    fn of(backfill: &Backfill) -> Self {
        let target = |target: &subak_domain::backfill::Target| TargetView {
            asset: target.asset.to_string(),
            count: target.count,
            planned: target.planned,
            ranges: target.ranges.iter().map(|(first, last)| vec![first.clone(), last.clone()]).collect(),
        };
        Self {
            backfill: backfill.id.to_string(),
            status: backfill.state.as_str().to_owned(),
            selection: backfill.selection.clone(),
            created_at: text(backfill.created_at),
            count: backfill.count(),
            done: backfill.done,
            failed: backfill.failed,
            blocked: backfill.blocked.len() as u64,
            run: backfill.run.map(|run| run.to_string()),
            targets: backfill.targets.iter().map(target).collect(),
        }
    }
}

/// What a backfill is asked to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackfillBody {
    /// Assets with partitions, as the command line takes them.
    select: Vec<String>,
    /// Keys, ranges (`2024-01-01..2024-12-31`), `missing`, `failed`, `all`.
    partition: Vec<String>,
    /// Whether the last partitions come first.
    #[serde(default)]
    newest_first: bool,
    /// Partitions in one run: by default 100.
    per_run: Option<u64>,
    /// Only tells what it would be about; nothing is begun.
    #[serde(default)]
    dry_run: bool,
}

/// Begins a backfill, or tells what it would be about.
fn start(api: &Api, call: &Call, asked: BackfillBody) -> Result<BackfillView, Problem> {
    let serving = api.serving()?;
    if asked.select.iter().all(|word| word.trim().is_empty()) || asked.partition.is_empty() {
        return Err(Problem::invalid("a backfill is of assets and partitions", "name both: `select` and `partition`"));
    }
    let per_run = asked.per_run.unwrap_or(PER_RUN);
    if !(1..=PER_RUN_MAX).contains(&per_run) {
        return Err(Problem::invalid("`per_run` is out of bounds", format!("it is from 1 to {PER_RUN_MAX}")));
    }
    let select = asked.select.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect();
    let selection = Selection { select, exclude: Vec::new() };
    let wanted =
        backfill::Wanted { selection: &selection, partition: &asked.partition, is_newest_first: asked.newest_first, per_run };
    let Some(found) = backfill::of(&serving.opened, &api.store, &wanted).map_err(problem)? else {
        return Err(Problem::changed("there is no such partition of what is selected", "look at the partitions of the asset"));
    };
    let view = BackfillView::of(&found);
    if !asked.dry_run {
        let entry = call.entry("backfill.start", &found.id.to_string(), found.selection.clone());
        call.wait(api.store.audited_as(entry).put_backfill(found, None, None)).map_err(failed)?;
    }
    Ok(view)
}

/// The backfill of this id.
pub(super) fn find(api: &Api, id: &str) -> Result<Backfill, Problem> {
    let found = api.store.backfills(false, 10_000).map_err(failed)?;
    found.into_iter().find(|backfill| backfill.id.to_string() == id).ok_or_else(|| Problem::not_found("backfill", id))
}

fn list(api: &Api, _: &Call, query: BackfillsQuery) -> Result<Page<BackfillView>, Problem> {
    let count = query.limit.unwrap_or(50).clamp(1, BACKFILL_COUNT_MAX);
    let found = api.store.backfills(query.open.unwrap_or(false), count).map_err(failed)?;
    Ok(Page::whole(found.iter().map(BackfillView::of).collect()))
}

fn show(api: &Api, call: &Call, _: Nothing) -> Result<BackfillView, Problem> {
    find(api, call.part("backfill")).map(|backfill| BackfillView::of(&backfill))
}

/// Does to a backfill what is asked.
fn ask(api: &Api, call: &Call, asked: BackfillAsk) -> Result<Backfill, Problem> {
    let found = find(api, call.part("backfill"))?;
    let action = match asked {
        BackfillAsk::Pause => "backfill.pause",
        BackfillAsk::Resume => "backfill.resume",
        BackfillAsk::Cancel => "backfill.cancel",
    };
    let store = api.store.audited_as(call.entry(action, &found.id.to_string(), found.selection));
    call.wait(backfill::ask(&store, found.id, asked)).map_err(problem)
}

fn pause(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    ask(api, call, BackfillAsk::Pause)?;
    Ok(Done::new("nothing more is started; the run that goes on ends as it would"))
}

fn resume(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    ask(api, call, BackfillAsk::Resume)?;
    Ok(Done::new("it goes on"))
}

fn cancel(api: &Api, call: &Call, _: Nothing) -> Result<Done, Problem> {
    let changed = ask(api, call, BackfillAsk::Cancel)?;
    if let Some(run) = changed.run {
        call.wait(api.store.request_cancel(run, call.now)).map_err(failed)?;
    }
    Ok(Done::new("it ends; partitions that are done stay"))
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::read("/api/v1/backfills", VIEW, "Backfills, the newest first.", list),
        Endpoint::write(
            Method::POST,
            "/api/v1/backfills",
            OPERATE,
            "Begins a backfill of partitions; with `dry_run` tells what it would be about.",
            start,
        ),
        Endpoint::read("/api/v1/backfills/{backfill}", VIEW, "How far a backfill is.", show),
        Endpoint::write(Method::POST, "/api/v1/backfills/{backfill}/pause", OPERATE, "Starts nothing more of a backfill.", pause),
        Endpoint::write(
            Method::POST,
            "/api/v1/backfills/{backfill}/resume",
            OPERATE,
            "Goes on with a backfill that is paused.",
            resume,
        ),
        Endpoint::write(
            Method::POST,
            "/api/v1/backfills/{backfill}/cancel",
            OPERATE,
            "Ends a backfill; what is done stays.",
            cancel,
        ),
    ]
}
