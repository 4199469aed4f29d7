//! Assets: the catalog, one of them, its partitions.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde::{Deserialize, Serialize};
use subak_connect::connector::find;
use subak_connect::{Dialect, TableName};
use subak_connectors::CONNECTORS;
use subak_domain::{Asset, ConnectionName, Definition, PartitionRule, Permission, RunId, Timestamp};
use subak_plan::Known;
use subak_server::{Call, Done, Endpoint, Nothing, Problem};
use utoipa::{IntoParams, ToSchema};

use super::picture::Picture;
use super::recent::{self, Outcome, Recent};
use super::runs::{CheckView, FailureView};
use super::{Api, OPERATE, VIEW, failed, may, problem, text};
use crate::args::Selection;
use crate::commands::{list, partition, select, show};
use crate::freshness;
use crate::project::Opened;

/// Assets of a page.
const ASSET_COUNT_MAX: usize = 20_000;

/// Keys that are added at a time.
const KEY_COUNT_MAX: usize = 10_000;

/// Ranges of partitions that are told.
const RANGE_COUNT_MAX: usize = 10_000;

/// Which assets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AssetsQuery {
    /// A selection as the command line takes it, its parts separated by blanks: `+gold.sales tag:daily`.
    select: Option<String>,
    /// Statuses, separated by commas: `fresh`, `stale`, `late`, `missing`, `failed`, `external`.
    status: Option<String>,
    /// Those whose key, description, owner, group or tags say this.
    text: Option<String>,
    /// `key`, `status`, `changed` or `group`; with `-` before it the other way round.
    sort: Option<String>,
    /// The `next` of the page before.
    after: Option<usize>,
    /// How many, at most 20,000.
    limit: Option<usize>,
}

/// An asset, as lists show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct AssetView {
    /// Its key.
    pub(super) asset: String,
    /// What it is: `ingest`, `sql`, `seed`, `script`, `dbt`, `external`.
    pub(super) kind: String,
    /// `fresh`, `stale`, `late` (older than its `freshness` lets it be), `missing`, `failed` or `external`.
    pub(super) status: String,
    /// Why it is not fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// Its group.
    pub(super) group: String,
    /// Who cares for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    /// Its tags.
    pub(super) tags: Vec<String>,
    /// Rows of its table, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) row_count: Option<u64>,
    /// When its data last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed_at: Option<String>,
    /// When it was last found up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed_at: Option<String>,
    /// How many of its checks passed when they were last evaluated, and how many there are.
    pub(super) checks_passed: usize,
    /// How many checks it has.
    pub(super) check_count: usize,
    /// How many partitions it has; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition_count: Option<u64>,
    /// The run that made it last, or failed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<String>,
}

/// How many assets stand how.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AssetPage {
    /// Some of them, in order.
    items: Vec<AssetView>,
    /// What to send as `after` for the next page; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many there are in all.
    total: u64,
    /// How many of them stand how, before `status` is looked at.
    counts: BTreeMap<String, usize>,
}

/// What came of an asset once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutcomeView {
    /// The run.
    run: String,
    /// The step: the asset, or a partition of it.
    step: String,
    /// When.
    at: String,
    /// `succeeded`, `unchanged`, `failed` or `skipped`.
    status: String,
    /// Milliseconds that it took.
    elapsed_ms: u64,
    /// Rows of the table afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    row_count: Option<u64>,
    /// Rows that were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
    /// Rows that were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
    /// What a person should know of it, one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl OutcomeView {
    fn of(outcome: &Outcome) -> Self {
        Self {
            run: outcome.run.to_string(),
            step: outcome.step.to_string(),
            at: text(outcome.at),
            status: outcome.status.to_owned(),
            elapsed_ms: outcome.elapsed_ms,
            row_count: outcome.row_count,
            written: outcome.written,
            rejected: outcome.rejected,
            note: outcome.note.clone().or_else(|| outcome.failure.as_ref().map(|failure| failure.message.clone())),
        }
    }
}

/// A column of an asset.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ColumnView {
    /// Its name.
    name: String,
    /// The columns that it is made from, as `asset.column`.
    from: Vec<String>,
}

/// A check of an asset: what it says, and what it last found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AssetCheck {
    /// Its name.
    name: String,
    /// `error` or `warn`.
    severity: String,
    /// What it last found; absent before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<CheckView>,
    /// What it found lately, the newest last: `passed`, `failed`.
    history: Vec<String>,
}

/// An asset, with what is around it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AssetDetail {
    /// The asset.
    asset: AssetView,
    /// How it stands, one sentence.
    sentence: String,
    /// What it is, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// How it is made, in words.
    made_from: String,
    /// The file.
    path: String,
    /// What stands in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// The query as it is sent, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    /// The version of its definition.
    version: String,
    /// The version that made its data; another one where it has to be made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_version: Option<String>,
    /// What it reads.
    upstream: Vec<AssetView>,
    /// What reads it.
    downstream: Vec<AssetView>,
    /// Its columns, where they are known.
    columns: Vec<ColumnView>,
    /// Its checks.
    checks: Vec<AssetCheck>,
    /// What became of it lately, the newest last.
    history: Vec<OutcomeView>,
    /// Why it failed, where it has not been made since.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    /// When it is brought up to date by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    automation: Option<String>,
    /// The connection that holds its table and runs queries; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_in: Option<String>,
    /// The table as it stands in a query there.
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    /// How fresh it is; absent where nothing says how fresh it has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    freshness: Option<FreshnessView>,
}

/// How fresh an asset is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FreshnessView {
    /// `unknown`, `fresh`, `warned` or `late`.
    status: String,
    /// What is asked for, in words.
    asked: String,
    /// The same and how it is, in a few words.
    text: String,
    /// Since when it is late, or when it will be.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_at: Option<String>,
}

impl FreshnessView {
    fn of(asset: &Asset, picture: &Picture, now: Timestamp) -> Option<Self> {
        let (policy, found) = (asset.freshness.as_ref()?, freshness::of(asset, &picture.snapshot, now)?);
        Some(Self {
            status: found.status.as_str().to_owned(),
            asked: freshness::words_of(policy),
            text: freshness::words(&found, now),
            late_at: found.late_at.map(text),
        })
    }
}

/// Partitions that follow each other and stand alike.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionRange {
    /// The first.
    first: String,
    /// The last.
    last: String,
    /// How many.
    count: u64,
    /// `done`, `outdated`, `failed` or `missing`.
    state: String,
}

/// The partitions of an asset.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionsView {
    /// `time`, `static`, `dynamic` or `grid`.
    kind: String,
    /// The sets to which keys can be added: those of dynamic partitions.
    sets: Vec<String>,
    /// How many there are.
    count: u64,
    /// How many stand how.
    counts: BTreeMap<String, u64>,
    /// All of them, in order, as runs of those that stand alike.
    ranges: Vec<PartitionRange>,
    /// Whether there are more ranges than are told.
    is_cut: bool,
}

/// An asset as lists show it.
pub(super) fn view(asset: &Asset, picture: &Picture, recent: &Recent) -> AssetView {
    let failure = recent.failure(&asset.key);
    let (status, reason) = picture.status(&asset.key, failure.is_some());
    let latest = picture.snapshot.latest.get(&asset.key);
    let checked = recent.of(&asset.key).rev().find(|outcome| !outcome.checks.is_empty());
    let passed = checked.map_or(0, |outcome| outcome.checks.iter().filter(|check| check.passed()).count());
    let partition_count = asset
        .partitioning
        .as_ref()
        .map(|partitioning| Known::of(partitioning, &picture.snapshot, picture.serving.opened.now()).len() as u64);
    let because = failure.and_then(|outcome| outcome.failure.as_ref()).map(|failure| failure.message.clone());
    AssetView {
        asset: asset.key.to_string(),
        kind: asset.definition.kind().to_owned(),
        status: status.to_owned(),
        reason: because.or(reason),
        group: asset.group.clone(),
        owner: asset.owner.clone(),
        tags: asset.tags.iter().cloned().collect(),
        row_count: latest.and_then(|latest| latest.row_count),
        changed_at: latest.map(|latest| text(latest.at)),
        confirmed_at: latest.map(|latest| text(latest.confirmed_at)),
        checks_passed: passed.min(asset.checks.len()),
        check_count: asset.checks.len(),
        partition_count,
        run: failure.map(|outcome| outcome.run).or(latest.map(|latest| latest.run)).map(|run| run.to_string()),
    }
}

fn says(view: &AssetView, description: Option<&str>, wanted: &str) -> bool {
    let words = [Some(view.asset.as_str()), Some(&view.group), view.owner.as_deref(), description];
    let tags = view.tags.iter().map(String::as_str);
    words.into_iter().flatten().chain(tags).any(|word| word.to_lowercase().contains(wanted))
}

/// How much a status asks for attention.
pub(super) fn weight(status: &str) -> u8 {
    match status {
        "failed" => 0,
        "missing" => 1,
        "late" => 2,
        "stale" => 3,
        "fresh" => 4,
        _ => 5,
    }
}

fn sort(items: &mut [AssetView], by: &str) -> Result<(), Problem> {
    let (name, is_down) = by.strip_prefix('-').map_or((by, false), |name| (name, true));
    match name {
        "key" => items.sort_by(|one, other| one.asset.cmp(&other.asset)),
        "status" => items.sort_by_key(|item| (weight(&item.status), item.asset.clone())),
        "changed" => items.sort_by(|one, other| one.changed_at.cmp(&other.changed_at)),
        "group" => items.sort_by(|one, other| (&one.group, &one.asset).cmp(&(&other.group, &other.asset))),
        _ => return Err(Problem::invalid(format!("`{name}` is nothing to sort by"), "take key, status, changed or group")),
    }
    if is_down {
        items.reverse();
    }
    Ok(())
}

/// The assets that a selection means; all of them where nothing is said.
pub(super) fn selected(picture: &Picture, words: Option<&str>) -> Result<Vec<Asset>, Problem> {
    let opened = &picture.serving.opened;
    let all = opened.graph().assets();
    let words: Vec<String> = words.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect();
    if words.is_empty() {
        return Ok(all.to_vec());
    }
    let selection = Selection { select: words, exclude: Vec::new() };
    let selected = select(opened, &picture.snapshot, &selection).map_err(problem)?;
    Ok(all.iter().filter(|asset| selected.assets.contains(&asset.key)).cloned().collect())
}

fn list_assets(api: &Api, call: &Call, query: AssetsQuery) -> Result<AssetPage, Problem> {
    let picture = api.picture()?;
    let wanted = query.text.unwrap_or_default().to_lowercase();
    let assets = selected(&picture, query.select.as_deref())?;
    let mut items = recent::with(api, call, |recent| {
        let views = assets.iter().map(|asset| (view(asset, &picture, recent), asset.description.as_deref()));
        views.filter(|(view, description)| says(view, *description, &wanted)).map(|(view, _)| view).collect::<Vec<_>>()
    })?;
    let mut counts = BTreeMap::new();
    for item in &items {
        *counts.entry(item.status.clone()).or_default() += 1;
    }
    if let Some(words) = query.status.filter(|words| !words.is_empty()) {
        let words: Vec<&str> = words.split(',').collect();
        items.retain(|item| words.contains(&item.status.as_str()));
    }
    sort(&mut items, query.sort.as_deref().unwrap_or("key"))?;
    let (total, from) = (items.len(), query.after.unwrap_or(0));
    let count = query.limit.unwrap_or(1_000).clamp(1, ASSET_COUNT_MAX);
    let items: Vec<AssetView> = items.into_iter().skip(from).take(count).collect();
    let next = (from + items.len() < total).then(|| (from + items.len()).to_string());
    Ok(AssetPage { items, next, total: total as u64, counts })
}

/// How an asset stands, one sentence.
fn sentence(view: &AssetView, outcome: Option<&Outcome>) -> String {
    let since = view.changed_at.as_deref().map(|at| at.get(..16).unwrap_or(at).replace('T', " "));
    let made = since.map_or_else(|| "it was never made".to_owned(), |at| format!("its data are those of {at} UTC"));
    match (view.status.as_str(), outcome.and_then(|outcome| outcome.failure.as_ref())) {
        ("failed", Some(failure)) => format!("Failed: {}. {made}.", failure.message),
        ("failed", None) => format!("Published, although a check failed; {made}."),
        ("missing", _) => "Never made: a run makes it and whatever it reads.".to_owned(),
        ("late", _) => {
            let reason = view.reason.as_deref().unwrap_or("late");
            let mut letters = reason.chars();
            letters.next().map_or_else(String::new, |first| format!("{}{}; {made}.", first.to_uppercase(), letters.as_str()))
        }
        ("stale", _) => format!("Stale: {}; {made}.", view.reason.as_deref().unwrap_or("something is newer")),
        ("external", _) => "Something outside keeps it up to date.".to_owned(),
        _ => format!("Fresh: {made}, and nothing upstream is newer."),
    }
}

/// How the system of a connection writes SQL; `None` where people can be given no queries on it.
pub(super) fn dialect_of(opened: &Opened, name: &ConnectionName) -> Option<&'static Dialect> {
    let kind = &opened.project.config.connections.get(name)?.kind;
    let abilities = find(CONNECTORS, kind)?.abilities();
    abilities.sql.filter(|_| abilities.looks)
}

fn asset_of(picture: &Picture, name: &str) -> Result<Asset, Problem> {
    show::find(&picture.serving.opened, name).cloned().map_err(problem)
}

fn checks(asset: &Asset, recent: &Recent, call: &Call) -> Vec<AssetCheck> {
    let found = |name: &str| recent.evaluations(Some(&asset.key), name).map(|found| found.outcome.clone()).collect::<Vec<_>>();
    let view = |check: &subak_domain::Check| {
        let found = found(&check.name);
        let word = |is_good: bool| if is_good { "passed" } else { "failed" }.to_owned();
        AssetCheck {
            name: check.name.clone(),
            severity: if check.severity == subak_domain::Severity::Error { "error" } else { "warn" }.to_owned(),
            last: found.last().map(|check| CheckView::of(check, call)),
            history: found.iter().map(|check| word(check.passed())).collect(),
        }
    };
    asset.checks.iter().map(view).collect()
}

fn show_asset(api: &Api, call: &Call, _: Nothing) -> Result<AssetDetail, Problem> {
    let picture = api.picture()?;
    let asset = asset_of(&picture, call.part("asset"))?;
    let opened = &picture.serving.opened;
    let graph = opened.graph();
    let columns = opened.project.columns(&asset.key).unwrap_or_default();
    let column = |column: &subak_project::OutputColumn| ColumnView {
        name: column.name.clone(),
        from: column.sources.iter().map(|source| format!("{}.{}", source.asset, source.column)).collect(),
    };
    let sql = if let Definition::Sql(sql) = &asset.definition { Some(sql.sql.clone()) } else { None };
    let latest = picture.snapshot.latest.get(&asset.key);
    let dialect = asset.stored_in().and_then(|name| dialect_of(opened, name));
    // The file of a seed is its rows.
    let shows_source = !matches!(asset.definition, Definition::Seed(_)) || may(call, Permission::Data);
    recent::with(api, call, |recent| {
        let own = view(&asset, &picture, recent);
        let failure = recent.failure(&asset.key);
        AssetDetail {
            sentence: sentence(&own, failure),
            asset: own,
            description: asset.description.clone(),
            made_from: show::definition(&asset),
            path: asset.path.clone(),
            source: opened.sources.get(&asset.path).filter(|_| shows_source).map(ToString::to_string),
            sql,
            version: asset.version.to_string(),
            made_version: latest.map(|latest| latest.version.to_string()),
            upstream: asset.upstream.iter().filter_map(|key| graph.get(key)).map(|asset| view(asset, &picture, recent)).collect(),
            downstream: graph.downstream(&asset.key).map(|asset| view(asset, &picture, recent)).collect(),
            columns: columns.iter().map(column).collect(),
            checks: checks(&asset, recent, call),
            history: recent.of(&asset.key).map(OutcomeView::of).collect(),
            failure: failure.and_then(|outcome| outcome.failure.as_ref()).map(|failure| FailureView::of(failure, call)),
            automation: asset.automation.as_ref().map(|automation| automation.text.clone()),
            stored_in: asset.stored_in().filter(|_| dialect.is_some()).map(ToString::to_string),
            relation: dialect.map(|dialect| dialect.table(&TableName::of(&asset.key))),
            freshness: FreshnessView::of(&asset, &picture, call.now),
        }
    })
}

fn partitions(api: &Api, call: &Call, _: Nothing) -> Result<PartitionsView, Problem> {
    let picture = api.picture()?;
    let asset = asset_of(&picture, call.part("asset"))?;
    let Some(partitioning) = &asset.partitioning else {
        return Err(Problem::not_found("partition of", asset.key.as_str()));
    };
    let details = api.store.partitions(&asset.key).map_err(failed)?;
    let details: BTreeMap<&str, _> = details.iter().map(|detail| (detail.key.as_str(), detail)).collect();
    // As things are now: keys that were added to a set leave no event.
    let snapshot = api.store.snapshot().map_err(failed)?;
    let known = Known::of(partitioning, &snapshot, picture.serving.opened.now());
    let (mut ranges, mut counts): (Vec<PartitionRange>, BTreeMap<String, u64>) = (Vec::new(), BTreeMap::new());
    let mut is_cut = false;
    for key in (0..known.len()).filter_map(|at| known.key(at)) {
        let state = partition::state(&asset, details.get(key.as_str()).copied());
        *counts.entry(state.to_owned()).or_default() += 1;
        let count = ranges.len();
        match ranges.last_mut() {
            Some(last) if last.state == state => {
                last.count += 1;
                last.last = key;
            }
            _ if count >= RANGE_COUNT_MAX => is_cut = true,
            _ => ranges.push(PartitionRange { first: key.clone(), last: key, count: 1, state: state.to_owned() }),
        }
    }
    let kind = match &partitioning.rule {
        PartitionRule::Time(_) => "time",
        PartitionRule::Static(_) => "static",
        PartitionRule::Dynamic(_) => "dynamic",
        PartitionRule::Grid(_) => "grid",
    };
    let rules = partitioning.dimensions();
    let set = |(_, _, rule): &(&str, &str, &PartitionRule)| {
        if let PartitionRule::Dynamic(set) = rule { Some(set.clone()) } else { None }
    };
    let sets = rules.iter().filter_map(set).collect();
    Ok(PartitionsView { kind: kind.to_owned(), sets, count: known.len() as u64, counts, ranges, is_cut })
}

/// Keys of partitions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysBody {
    /// The keys.
    keys: Vec<String>,
}

/// Adds keys to a set of dynamic partitions.
fn add_keys(api: &Api, call: &Call, said: KeysBody) -> Result<Done, Problem> {
    let (serving, set) = (api.serving()?, call.part("set"));
    if said.keys.is_empty() || said.keys.len() > KEY_COUNT_MAX {
        return Err(Problem::invalid("keys are missing, or there are too many", format!("name 1 to {KEY_COUNT_MAX} of them")));
    }
    partition::refuse_bad_keys(&serving.opened, set, &said.keys).map_err(problem)?;
    let entry = call.entry("partition.add", set, said.keys.iter().take(20).cloned().collect::<Vec<_>>().join(", "));
    let count = said.keys.len() as u64;
    let added = call.wait(api.store.audited_as(entry).add_partitions(set, said.keys, call.now)).map_err(failed)?;
    api.forget_picture();
    Ok(Done::new(format!("{added} keys are new, {} were there", count - added)))
}

/// Assets with what they come to, for pages that count them.
pub(super) fn views(api: &Api, call: &Call, picture: &Picture) -> Result<Vec<AssetView>, Problem> {
    let assets = picture.serving.opened.graph().assets();
    recent::with(api, call, |recent| assets.iter().map(|asset| view(asset, picture, recent)).collect())
}

/// Assets that are older than they may be, and since when.
pub(super) fn late(api: &Api, call: &Call, picture: &Picture) -> Result<Vec<(AssetView, Option<Timestamp>)>, Problem> {
    let assets = picture.serving.opened.graph().assets();
    recent::with(api, call, |recent| {
        let views = assets.iter().filter(|asset| asset.freshness.is_some()).map(|asset| (asset, view(asset, picture, recent)));
        let late = views.filter(|(_, view)| view.status == "late");
        let since = |asset: &Asset| freshness::of(asset, &picture.snapshot, call.now).and_then(|found| found.late_at);
        late.map(|(asset, view)| (view, since(asset))).collect()
    })
}

/// When assets failed that were not made since, and in which runs.
pub(super) struct Failures {
    pub(super) assets: Vec<(AssetView, Timestamp)>,
    /// Runs in which one of these assets failed.
    pub(super) runs: BTreeSet<RunId>,
}

pub(super) fn failures(api: &Api, call: &Call, picture: &Picture) -> Result<Failures, Problem> {
    let assets = picture.serving.opened.graph().assets();
    recent::with(api, call, |recent| {
        let mut failures = Failures { assets: Vec::new(), runs: BTreeSet::new() };
        for asset in assets.iter().filter(|asset| !list::is_external(asset)) {
            let Some(failure) = recent.failure(&asset.key) else { continue };
            failures.assets.push((view(asset, picture, recent), failure.at));
            let failed = recent.of(&asset.key).filter(|outcome| outcome.status == "failed");
            failures.runs.extend(failed.map(|outcome| outcome.run));
        }
        failures
    })
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::read("/api/v1/assets", VIEW, "Assets and how they stand.", list_assets),
        Endpoint::read("/api/v1/assets/{asset}", VIEW, "An asset, with what is around it.", show_asset),
        Endpoint::read(
            "/api/v1/assets/{asset}/partitions",
            VIEW,
            "The partitions of an asset, as ranges that stand alike.",
            partitions,
        ),
        Endpoint::write(
            Method::POST,
            "/api/v1/partition-sets/{set}",
            OPERATE,
            "Adds keys to a set of dynamic partitions.",
            add_keys,
        ),
    ]
}
