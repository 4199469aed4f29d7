//! `subak list`.

use std::collections::BTreeMap;

use serde_json::json;
use subak_domain::{Action, Asset, Definition, FreshnessStatus, Reason, Snapshot, StepId, Timestamp};
use subak_plan::{PlanRequest, Selected};

use super::{Context, select};
use crate::args::Selection;
use crate::exit::{CliError, Exit};
use crate::freshness;
use crate::printer::Table;
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, selection: &Selection) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let snapshot = context.snapshot(&opened)?;
    let selected = select(&opened, &snapshot, selection)?;
    let due = due(&opened, &snapshot);
    let due = by_step(&due);
    let mut table = Table::new("assets", &["asset", "kind", "status", "reason", "rows", "changed_at", "path"]);
    for asset in opened.graph().assets().iter().filter(|asset| selected.assets.contains(&asset.key)) {
        let latest = snapshot.latest.get(&asset.key);
        let (status, reason) = stands(asset, &snapshot, due.get(&StepId::asset(&asset.key)).copied(), opened.now());
        table.rows.push(vec![
            json!(asset.key.as_str()),
            json!(asset.definition.kind()),
            json!(status),
            json!(reason),
            json!(latest.and_then(|latest| latest.row_count)),
            json!(latest.map(|latest| latest.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
            json!(asset.path),
        ]);
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

/// What a run of everything would do: how each asset stands follows from it.
pub(super) fn due(opened: &Opened, snapshot: &Snapshot) -> Vec<Action> {
    let everything =
        Selected { assets: opened.graph().assets().iter().map(|asset| asset.key.clone()).collect(), ..Selected::default() };
    let request = PlanRequest {
        graph: opened.graph(),
        snapshot,
        selected: &everything,
        full_refresh: false,
        range: None,
        picks: &[],
        now: opened.now(),
    };
    subak_plan::plan(request).map(|plan| plan.actions).unwrap_or_default()
}

/// The status of an asset, and why it is not fresh.
pub(super) fn status(opened: &Opened, snapshot: &Snapshot, asset: &Asset) -> (&'static str, Option<String>) {
    let due = due(opened, snapshot);
    let action = due.iter().find(|action| action.step.base() == StepId::asset(&asset.key));
    stands(asset, snapshot, action, opened.now())
}

/// The same, by the first action that is due about the asset. One that is older than it may be is late, whatever else it is.
pub(super) fn stands(
    asset: &Asset,
    snapshot: &Snapshot,
    action: Option<&Action>,
    now: Timestamp,
) -> (&'static str, Option<String>) {
    let found = freshness::of(asset, snapshot, now).filter(|found| found.status == FreshnessStatus::Late);
    match (found, &asset.freshness) {
        (Some(found), Some(policy)) => {
            let words = freshness::words(&found, now);
            ("late", Some(format!("{words}; its `freshness` asks for {}", freshness::words_of(policy))))
        }
        _ => status_by(asset, action),
    }
}

/// The first action of each step, the partitions of an asset being one.
pub(super) fn by_step(due: &[Action]) -> BTreeMap<StepId, &Action> {
    due.iter().rev().map(|action| (action.step.base(), action)).collect()
}

/// Whether something outside keeps an asset up to date.
pub(super) fn is_external(asset: &Asset) -> bool {
    matches!(asset.definition, Definition::External { .. })
}

/// The status by what is due. An ingest that was loaded counts as fresh: only its source knows better.
fn status_by(asset: &Asset, action: Option<&Action>) -> (&'static str, Option<String>) {
    if is_external(asset) {
        return ("external", None);
    }
    match action.map(|action| &action.reason) {
        None | Some(Reason::SourceMayHaveNew) => ("fresh", None),
        Some(Reason::Missing) => ("missing", None),
        // Upstream that is only going to be asked for new rows does not make an asset stale.
        Some(Reason::UpstreamMayChange { .. }) => ("fresh", None),
        Some(reason) => ("stale", Some(reason.to_string())),
    }
}
