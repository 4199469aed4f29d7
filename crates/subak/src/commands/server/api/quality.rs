//! Checks and what they found, and rows that were refused: which, why, and what becomes of them.

use std::collections::BTreeMap;

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subak_connect::reject::{RejectStatus, table_of};
use subak_connect::{ConnectError, ConnectErrorKind, Connection, StoredReject, TableName};
use subak_domain::shape::OnReject;
use subak_domain::{Asset, AssetKey, ConnectionName, Definition, Permission, RunEvent, Severity, Timestamp};
use subak_server::{Access, Call, Done, Endpoint, Nothing, Page, Problem};
use subak_store::{Append, EventLog};
use utoipa::{IntoParams, ToSchema};

use super::recent::{Evaluation, Recent};
use super::runs::CheckView;
use super::{Api, OPERATE, VIEW, failed, problem, recent, text};
use crate::commands::{quarantine, run};
use crate::exit::CliError;

/// Rejects of a list.
const REJECT_COUNT_MAX: u64 = 1_000;

/// Rejects that are decided on at a time.
const DECIDED_COUNT_MAX: usize = 10_000;

/// Which checks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ChecksQuery {
    /// Part of the name of the check or of its asset.
    q: Option<String>,
    /// `failed`, `warned`, `passed` or `never`.
    status: Option<String>,
    /// `error` or `warn`.
    severity: Option<String>,
}

/// One evaluation of a check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EvaluationView {
    /// When.
    at: String,
    /// By which run.
    run: String,
    /// `passed`, `warned` or `failed`.
    status: String,
    /// Rows that should not be there.
    bad_rows: u64,
}

/// A check, and what it found lately.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QualityCheck {
    /// Its name.
    check: String,
    /// The asset that it belongs to; absent where it is a query of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<String>,
    /// The file that declares it.
    path: String,
    /// Who answers for the asset.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// `error` or `warn`.
    severity: String,
    /// Whether it holds the data back.
    blocking: bool,
    /// `failed`, `warned`, `passed`, or `never` where it was not evaluated lately.
    status: String,
    /// Since when it has not passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// What it last found.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<CheckView>,
    /// What it found lately, the newest last: up to 30.
    history: Vec<EvaluationView>,
}

fn word(found: &Evaluation) -> &'static str {
    match (found.outcome.passed(), found.outcome.severity) {
        (true, _) => "passed",
        (false, Severity::Warn) => "warned",
        (false, Severity::Error) => "failed",
    }
}

/// A check as it is declared: its name, its asset, its file, who answers, its severity, whether it blocks.
struct Declared<'a> {
    check: &'a str,
    asset: Option<&'a Asset>,
    path: &'a str,
    severity: Severity,
    blocking: bool,
}

impl Declared<'_> {
    fn view(&self, recent: &Recent, call: &Call) -> (QualityCheck, Option<Timestamp>) {
        let found: Vec<&Evaluation> = recent.evaluations(self.asset.map(|asset| &asset.key), self.check).collect();
        let status = found.last().map_or("never", |found| word(found));
        let since = found.iter().rev().take_while(|found| !found.outcome.passed()).last().map(|found| found.at);
        let history = found.iter().map(|found| EvaluationView {
            at: text(found.at),
            run: found.run.to_string(),
            status: word(found).to_owned(),
            bad_rows: found.outcome.bad_row_count,
        });
        let view = QualityCheck {
            check: self.check.to_owned(),
            asset: self.asset.map(|asset| asset.key.to_string()),
            path: self.path.to_owned(),
            owner: self.asset.and_then(|asset| asset.owner.clone()),
            severity: if self.severity == Severity::Error { "error" } else { "warn" }.to_owned(),
            blocking: self.blocking,
            status: status.to_owned(),
            since: since.map(text),
            last: found.last().map(|found| CheckView::of(&found.outcome, call)),
            history: history.collect(),
        };
        (view, since)
    }
}

/// What does not pass comes first, the newest of it first.
fn checks(api: &Api, call: &Call, query: ChecksQuery) -> Result<Page<QualityCheck>, Problem> {
    let serving = api.serving()?;
    let graph = serving.opened.graph();
    let of_assets = graph.assets().iter().flat_map(|asset| {
        asset.checks.iter().map(move |check| Declared {
            check: &check.name,
            asset: Some(asset),
            path: &asset.path,
            severity: check.severity,
            blocking: check.blocking,
        })
    });
    let alone = graph.checks().iter().map(|check| Declared {
        check: &check.name,
        asset: None,
        path: &check.path,
        severity: check.severity,
        blocking: false,
    });
    let views =
        recent::with(api, call, |recent| of_assets.chain(alone).map(|declared| declared.view(recent, call)).collect::<Vec<_>>())?;
    let fits = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    let is_named = |view: &QualityCheck| {
        let names = format!("{} {}", view.check, view.asset.as_deref().unwrap_or_default());
        query.q.as_ref().is_none_or(|part| names.contains(part.as_str()))
    };
    let is_wanted =
        |view: &QualityCheck| is_named(view) && fits(&query.status, &view.status) && fits(&query.severity, &view.severity);
    let mut views: Vec<_> = views.into_iter().filter(|(view, _)| is_wanted(view)).collect();
    let rank = |status: &str| ["failed", "warned", "never", "passed"].iter().position(|known| *known == status);
    views.sort_by_key(|(view, since)| (rank(&view.status), std::cmp::Reverse(*since)));
    Ok(Page::whole(views.into_iter().map(|(view, _)| view).collect()))
}

/// How many rows of an asset were refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuarantineView {
    /// The asset.
    asset: String,
    /// Rows about which nothing was decided.
    open: u64,
    /// Rows that were loaded after all.
    replayed: u64,
    /// Rows that nobody wanted.
    discarded: u64,
    /// The table that keeps them.
    table: String,
    /// Why they cannot be told just now: their system does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Which rejects.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectsQuery {
    /// `open` (as where nothing is said), `replayed` or `discarded`.
    status: Option<String>,
    /// How many, at most 1,000.
    limit: Option<u64>,
}

/// A row that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RejectView {
    /// Its id within its table.
    reject: String,
    /// Where it came from.
    place: String,
    /// Why, one sentence.
    reason: String,
    /// The column whose value did not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    /// That value.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The row before anything was done to it, in the order of its columns; where it could not be taken apart, its text under an empty name.
    row: Vec<CellView>,
    /// Whether it can be loaded again: what could not be taken apart has to be mended in its file.
    may_be_replayed: bool,
    /// The run that refused it.
    run: String,
    /// When.
    rejected_at: String,
    /// What became of it.
    status: String,
}

/// A value of a row that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CellView {
    /// The column of the source.
    column: String,
    /// The value: text, number, truth value, or what is nested in it.
    value: Value,
}

/// An object of JSON in the order in which it was written.
struct InOrder(Vec<CellView>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> serde::de::Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut found = Vec::new();
                while let Some((column, value)) = map.next_entry()? {
                    found.push(CellView { column, value });
                }
                Ok(InOrder(found))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl RejectView {
    fn of(stored: &StoredReject, root: &std::path::Path) -> Self {
        let parsed: Result<InOrder, _> = serde_json::from_str(&stored.reject.row);
        let (row, may_be_replayed) = match parsed {
            Ok(InOrder(columns)) => (columns, true),
            Err(_) => {
                let text = serde_json::from_str(&stored.reject.row).unwrap_or_else(|_| stored.reject.row.clone());
                (vec![CellView { column: String::new(), value: Value::String(text) }], false)
            }
        };
        // Where the project lies on its machine is nobody's business, and everybody's columns are narrow.
        let place = stored.reject.place();
        let below = place.strip_prefix(&*root.to_string_lossy()).map(|place| place.trim_start_matches('/').to_owned());
        let place = below.unwrap_or(place);
        Self {
            reject: stored.id.clone(),
            place,
            reason: stored.reject.reason.clone(),
            column: stored.reject.column.clone(),
            value: stored.reject.value.clone(),
            row,
            may_be_replayed,
            run: stored.run.clone(),
            rejected_at: stored.rejected_at.clone(),
            status: stored.status.as_str().to_owned(),
        }
    }
}

/// Rows that are loaded again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// Their ids.
    #[serde(default)]
    rejects: Vec<String>,
    /// All open ones, instead of naming them.
    #[serde(default)]
    all: bool,
    /// Other values, by column of the source; an empty one is NULL.
    #[serde(default)]
    set: BTreeMap<String, String>,
}

/// The run that loads rows again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replayed {
    /// The run.
    run: String,
    /// How many rows it is about.
    rejects: usize,
}

/// Rows that nobody wants.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiscardBody {
    /// Their ids.
    rejects: Vec<String>,
}

/// Does something with the connection that holds an asset's table.
fn with_connection<T, F: Future<Output = Result<T, ConnectError>>>(
    api: &Api,
    call: &Call,
    key: &AssetKey,
    is_read_only: bool,
    work: impl FnOnce(std::sync::Arc<dyn Connection>) -> F,
) -> Result<T, ConnectError> {
    let serving = api.serving().map_err(|problem| ConnectError::new(ConnectErrorKind::Unavailable, problem.error.message))?;
    let name = serving.opened.graph().get(key).and_then(Asset::stored_in).cloned();
    let Some(name) = name else {
        return Err(ConnectError::new(ConnectErrorKind::NotFound, format!("`{key}` has no table of its own")));
    };
    call.wait(api.desk.with(&serving.opened, &name, is_read_only, work))
}

/// Assets with rows that were refused, those with open ones first.
fn quarantine(api: &Api, call: &Call, _: Nothing) -> Result<Page<QuarantineView>, Problem> {
    let serving = api.serving()?;
    // Others fail a load that holds a row which does not fit, or leave the row out.
    let keeps = |asset: &&Asset| {
        let Definition::Ingest(ingest) = &asset.definition else { return false };
        let rules = ingest.shape.columns.iter().filter_map(|column| column.on_reject);
        rules.chain([ingest.shape.on_reject()]).any(|rule| rule == OnReject::Quarantine)
    };
    let assets = serving.opened.graph().assets().iter().filter(keeps);
    // Each connection is opened once, and waited for once.
    let mut by_connection: BTreeMap<&ConnectionName, Vec<&Asset>> = BTreeMap::new();
    for asset in assets {
        by_connection.entry(asset.stored_in().unwrap_or(&serving.opened.project.config.warehouse)).or_default().push(asset);
    }
    let mut views = Vec::new();
    for assets in by_connection.into_values() {
        let places: Vec<TableName> = assets.iter().map(|asset| TableName::of(&asset.key)).collect();
        let wanted = places.clone();
        let counted = with_connection(api, call, &assets[0].key, true, |connection| async move {
            let mut counts = Vec::new();
            for place in &wanted {
                counts.push(match connection.quarantine() {
                    Some(quarantine) => quarantine.count(place).await?,
                    None => [0; 3],
                });
            }
            Ok(counts)
        });
        let (counts, problem) = match counted {
            Ok(counts) => (counts, None),
            // Nothing was loaded yet.
            Err(error) if error.kind == ConnectErrorKind::NotFound => continue,
            Err(error) => (vec![[0; 3]; assets.len()], Some(error.message)),
        };
        for ((asset, place), [open, replayed, discarded]) in assets.iter().zip(&places).zip(counts) {
            if open + replayed + discarded > 0 || problem.is_some() {
                let (asset, table) = (asset.key.to_string(), table_of(place).to_string());
                views.push(QuarantineView { asset, open, replayed, discarded, table, problem: problem.clone() });
            }
        }
    }
    views.sort_by_key(|view| std::cmp::Reverse(view.open));
    Ok(Page::whole(views))
}

fn asset_of(api: &Api, call: &Call) -> Result<Asset, Problem> {
    let serving = api.serving()?;
    quarantine::ingest(&serving.opened, call.part("asset")).cloned().map_err(problem)
}

fn found(api: &Api, call: &Call, asset: &Asset, status: RejectStatus, limit: u64) -> Result<Vec<StoredReject>, Problem> {
    let found = with_connection(api, call, &asset.key, true, |connection| async move {
        quarantine::rejects_in(connection.as_ref(), asset, status, limit).await
    });
    match found {
        // Nothing was loaded yet.
        Err(error) if error.kind == ConnectErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(|error| problem(CliError::from(error))),
    }
}

fn rejects(api: &Api, call: &Call, query: RejectsQuery) -> Result<Page<RejectView>, Problem> {
    let asset = asset_of(api, call)?;
    let known = [RejectStatus::Open, RejectStatus::Replayed, RejectStatus::Discarded];
    let wanted = query.status.as_deref().unwrap_or("open");
    let status = known.into_iter().find(|status| status.as_str() == wanted);
    let status =
        status.ok_or_else(|| Problem::invalid(format!("`{wanted}` is no status"), "it is `open`, `replayed` or `discarded`"))?;
    let found = found(api, call, &asset, status, query.limit.unwrap_or(100).clamp(1, REJECT_COUNT_MAX))?;
    let root = api.serving()?.opened.root.clone();
    Ok(Page::whole(found.iter().map(|stored| RejectView::of(stored, &root)).collect()))
}

/// The ids that are meant, all of which are open.
fn open_ones(api: &Api, call: &Call, asset: &Asset, ids: &[String]) -> Result<Vec<String>, Problem> {
    if ids.len() > DECIDED_COUNT_MAX {
        let message = format!("{} rows are named, and {DECIDED_COUNT_MAX} are allowed", ids.len());
        return Err(Problem::invalid(message, "decide about fewer at a time"));
    }
    // Those that were refused first are the ones that are shown.
    let most = if ids.is_empty() { DECIDED_COUNT_MAX as u64 } else { u64::MAX };
    let open = found(api, call, asset, RejectStatus::Open, most)?;
    let wanted = quarantine::wanted(&asset.key, &open, ids).map_err(problem)?;
    if wanted.is_empty() {
        return Err(Problem::changed(format!("`{}` has no open rejects", asset.key), "somebody has decided about them"));
    }
    Ok(wanted)
}

/// Begins a run that loads rows again.
fn replay(api: &Api, call: &Call, said: ReplayBody) -> Result<Replayed, Problem> {
    let asset = asset_of(api, call)?;
    quarantine::may_be_replayed(&asset).map_err(problem)?;
    if said.all != said.rejects.is_empty() {
        return Err(Problem::invalid("it is not said which rows", "name them in `rejects`, or say `all: true`, not both"));
    }
    let ids = open_ones(api, call, &asset, &said.rejects)?;
    let count = ids.len();
    let run = run::new_run();
    let selection = format!("quarantine replay {}", asset.key);
    let detail = format!("{selection}: {count}, other values for {}", said.set.keys().cloned().collect::<Vec<_>>().join(", "));
    let entry = call.entry("quarantine.replay", asset.key.as_str(), detail);
    let event = RunEvent::Planned {
        actions: vec![quarantine::replay_of(&asset, ids, said.set.into_iter())],
        selection,
        trigger: entry.actor.clone(),
        as_of: api.serving()?.opened.as_of_template.clone(),
        job: None,
        params: BTreeMap::new(),
        interval: None,
        for_server: true,
    };
    let append = Append { run, expected: 1, events: vec![(call.now, event)], fence: None };
    call.wait(api.store.audited_as(entry).append(append)).map_err(failed)?;
    Ok(Replayed { run: run.to_string(), rejects: count })
}

/// Notes that nobody wants rows. They stay in their table of rejects.
fn discard(api: &Api, call: &Call, said: DiscardBody) -> Result<Done, Problem> {
    let asset = asset_of(api, call)?;
    if said.rejects.is_empty() {
        return Err(Problem::invalid("no rows are named", "name them by their ids"));
    }
    let ids = open_ones(api, call, &asset, &said.rejects)?;
    // First that somebody wants it: what is done in another system is told nobody who did it.
    let detail = format!("{} rows: {}", ids.len(), ids.iter().take(20).cloned().collect::<Vec<_>>().join(", "));
    let entry = call.entry("quarantine.discard", asset.key.as_str(), detail);
    call.wait(api.store.note(entry)).map_err(failed)?;
    let (place, at) = (TableName::of(&asset.key), call.now.to_string());
    let count = with_connection(api, call, &asset.key, false, |connection| async move {
        match connection.quarantine() {
            Some(quarantine) => quarantine.discard(&place, &ids, &at).await,
            None => Ok(0),
        }
    });
    let count = count.map_err(|error| problem(CliError::from(error)))?;
    Ok(Done::new(format!("{count} rows are discarded; they stay in the table of rejects")))
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    const ROWS: Access = Access::May(Permission::Data);
    vec![
        Endpoint::read("/api/v1/checks", VIEW, "Checks and what they found, what does not pass first.", checks),
        Endpoint::read("/api/v1/quarantine", VIEW, "How many rows were refused, by asset.", quarantine),
        Endpoint::read("/api/v1/quarantine/{asset}", ROWS, "Rows of an asset that were refused, and why.", rejects),
        Endpoint::write(
            Method::POST,
            "/api/v1/quarantine/{asset}/replay",
            OPERATE,
            "Begins a run that loads refused rows again, with other values where they are said.",
            replay,
        ),
        Endpoint::write(
            Method::POST,
            "/api/v1/quarantine/{asset}/discard",
            OPERATE,
            "Notes that nobody wants refused rows; they stay in their table.",
            discard,
        ),
    ]
}
