//! From what is declared and what is known to an ordered list of actions, each with its reason.

use std::collections::{BTreeMap, BTreeSet};

use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, CursorRange, Definition, Partitioning, Reason, Rule, Snapshot, StepId, StoredAs,
    Timestamp, Work,
};

use crate::partition::{Known, PartitionError, PartitionPick, picked, read_by};
use crate::tasks::with_tasks;
use crate::{Selected, together};

/// What to plan.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// What is declared.
    pub graph: &'a AssetGraph,
    /// What is known.
    pub snapshot: &'a Snapshot,
    /// What is asked for.
    pub selected: &'a Selected,
    /// Whether everything that is selected is rebuilt from nothing.
    pub full_refresh: bool,
    /// The part of their streams that ingests with a cursor read; the others are read as ever.
    pub range: Option<&'a CursorRange>,
    /// The partitions that are asked for; those that need it where nobody says.
    pub picks: &'a [PartitionPick],
    /// The time that counts as now: windows that have not ended then are no partitions yet.
    pub now: Timestamp,
}

/// Partitions of one asset that a plan takes where nobody says which; the oldest ones come first.
pub const PARTITION_COUNT_MAX: usize = 1_000;

/// What to do, and what was asked for but needs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The actions, each behind everything that it needs.
    pub actions: Vec<Action>,
    /// Selected assets that are fresh, in dependency order.
    pub fresh: Vec<AssetKey>,
    /// How many partitions of an asset would be next, beyond [`PARTITION_COUNT_MAX`].
    pub left: BTreeMap<AssetKey, usize>,
}

/// What the readers of an asset have to know about it.
#[derive(Debug, Clone, Default)]
struct Flow {
    /// Position of the newest data that a reader sees through it.
    newest: u64,
    /// The asset that holds this data: itself, or one behind a view.
    newest_from: Option<AssetKey>,
    /// Steps of the plan that must succeed before a reader sees what it should.
    steps: BTreeSet<StepId>,
    /// Its partitions that are in the plan, by key.
    partitions: BTreeMap<String, StepId>,
    /// Partitions that are due and left for later runs.
    left: BTreeSet<String>,
    /// An asset of the plan whose data will change.
    changing: Option<AssetKey>,
    /// Whether something outside may have changed the data; nobody tells when it does.
    is_external: bool,
}

/// Plans bringing the selected assets up to date. The same input gives the same plan. Fails for partitions that an asset does not have.
pub fn plan(request: PlanRequest<'_>) -> Result<Plan, PartitionError> {
    let mut plan = Plan::default();
    let mut flows: BTreeMap<&AssetKey, Flow> = BTreeMap::new();
    let observed = observed(&request);
    for asset in request.graph.assets() {
        if let Some(partitioning) = &asset.partitioning {
            let flow = plan_partitions(asset, partitioning, &flows, &request, &mut plan)?;
            flows.insert(&asset.key, flow);
            continue;
        }
        let upstream: Vec<&Flow> = asset.upstream.iter().filter_map(|key| flows.get(key)).collect();
        let needs: BTreeSet<StepId> = upstream.iter().flat_map(|flow| flow.steps.iter().cloned()).collect();
        let reason = if observed.contains(&asset.key) {
            Some(reason_to_look(asset, &request))
        } else {
            reason(asset, &upstream, &request)
        };
        let latest = request.snapshot.latest.get(&asset.key);
        let mut flow =
            Flow { newest: latest.map_or(0, |latest| latest.position), newest_from: Some(asset.key.clone()), ..Flow::default() };
        if let Some(reason) = reason {
            let step = StepId::asset(&asset.key);
            flow.steps.insert(step.clone());
            flow.changing = Some(asset.key.clone());
            let is_observed = matches!(asset.definition, Definition::External { .. });
            let has_cursor = matches!(&asset.definition, Definition::Ingest(ingest) if ingest.cursor.is_some());
            let range = request.range.filter(|_| has_cursor).cloned();
            let (asset, full_refresh) = (asset.key.clone(), request.full_refresh);
            let work = if is_observed {
                Work::Observe { asset, known: latest.map(|latest| latest.version.clone()) }
            } else {
                Work::Materialize { asset, full_refresh, range, partition: None }
            };
            let needs = needs.into_iter().collect();
            plan.actions.push(Action { step, work, reason, needs, rule: Rule::default() });
        } else {
            if request.selected.assets.contains(&asset.key) && !asset.definition.is_unobserved() {
                plan.fresh.push(asset.key.clone());
            }
            flow.is_external = asset.definition.is_unobserved();
            if is_view(asset) {
                pass_through(&mut flow, &upstream, needs);
            }
        }
        flows.insert(&asset.key, flow);
    }
    together::join(&mut plan.actions, request.graph);
    plan.actions = with_tasks(std::mem::take(&mut plan.actions), request.graph);
    plan.actions.extend(check_actions(request.graph, &plan.actions));
    Ok(plan)
}

/// Plans the partitions of an asset, each as a step of its own.
fn plan_partitions(
    asset: &Asset,
    partitioning: &Partitioning,
    flows: &BTreeMap<&AssetKey, Flow>,
    request: &PlanRequest<'_>,
    plan: &mut Plan,
) -> Result<Flow, PartitionError> {
    let latest = request.snapshot.latest.get(&asset.key);
    let newest = latest.map_or(0, |latest| latest.position);
    let mut flow = Flow { newest, newest_from: Some(asset.key.clone()), ..Flow::default() };
    if !request.selected.assets.contains(&asset.key) {
        return Ok(flow);
    }
    let known = Known::of(partitioning, request.snapshot, request.now);
    let own = Reader { asset, partitioning, flows, request };
    let mut chosen: Vec<(usize, Reason)> = if !request.picks.is_empty() {
        let places = picked(asset, partitioning, request.picks, request.snapshot, request.now)?;
        places.into_iter().map(|at| (at, Reason::Selected)).collect()
    } else if request.full_refresh {
        (0..known.len()).map(|at| (at, Reason::FullRefresh)).collect()
    } else {
        let latest = picked(asset, partitioning, &[PartitionPick::Latest], request.snapshot, request.now)?;
        let mut due = Vec::new();
        let mut changing: BTreeSet<String> = BTreeSet::new();
        for at in 0..known.len() {
            let Some(key) = known.key(at) else { continue };
            let Some(reason) = own.reason(&key, latest.contains(&at)).or_else(|| own.reason_before(&key, &changing)) else {
                continue;
            };
            // Whoever reads it is left too.
            if own.is_left(&key) {
                flow.left.insert(key);
            } else {
                if partitioning.needs_previous {
                    changing.insert(key);
                }
                due.push((at, reason));
            }
        }
        due
    };
    if request.picks.is_empty() && !request.full_refresh && chosen.len() > PARTITION_COUNT_MAX {
        // What has failed comes behind what was never tried, or it would hold that up for ever.
        chosen.sort_by_key(|(at, reason)| (*reason == Reason::LastFailed, *at));
        let left = chosen.split_off(PARTITION_COUNT_MAX);
        plan.left.insert(asset.key.clone(), left.len());
        flow.left.extend(left.into_iter().filter_map(|(at, _)| known.key(at)));
        chosen.sort_by_key(|(at, _)| *at);
    }
    if chosen.is_empty() {
        plan.fresh.push(asset.key.clone());
    }
    for (at, reason) in chosen {
        let Some(partition) = known.partition(at) else { continue };
        let step = StepId::partition(&asset.key, &partition.key);
        let mut needs: BTreeSet<StepId> = own.needs(&partition.key);
        if let Some(before) = own.previous(&partition.key) {
            needs.extend(flow.partitions.get(&before).cloned());
        }
        flow.steps.insert(step.clone());
        flow.changing = Some(asset.key.clone());
        flow.partitions.insert(partition.key.clone(), step.clone());
        // Each partition is written anew anyway, and the others stay.
        let work = Work::Materialize { asset: asset.key.clone(), full_refresh: false, range: None, partition: Some(partition) };
        plan.actions.push(Action { step, work, reason, needs: needs.into_iter().collect(), rule: Rule::default() });
    }
    Ok(flow)
}

/// An asset with partitions, and what is known of what it reads.
struct Reader<'a> {
    asset: &'a Asset,
    partitioning: &'a Partitioning,
    flows: &'a BTreeMap<&'a AssetKey, Flow>,
    request: &'a PlanRequest<'a>,
}

impl Reader<'_> {
    fn upstream(&self) -> impl Iterator<Item = (&Asset, &Flow)> {
        let of = |key: &AssetKey| Some((self.request.graph.get(key)?, self.flows.get(key)?));
        self.asset.upstream.iter().filter_map(of)
    }

    /// The partitions of an upstream asset that one of ours reads; `None` where it reads it as a whole.
    fn read(&self, key: &str, upstream: &Asset) -> Option<Vec<String>> {
        read_by(Some((self.partitioning, key)), (&upstream.key, upstream.partitioning.as_ref()?), self.request.snapshot)
    }

    /// Steps that come before the one of a partition.
    fn needs(&self, key: &str) -> BTreeSet<StepId> {
        let mut needs = BTreeSet::new();
        for (upstream, flow) in self.upstream() {
            match self.read(key, upstream) {
                Some(keys) => needs.extend(keys.iter().filter_map(|key| flow.partitions.get(key)).cloned()),
                None => needs.extend(flow.steps.iter().cloned()),
            }
        }
        needs
    }

    /// Why a partition must be made, or `None` when it need not. What is read as a whole makes the last partition stale and no other.
    fn reason(&self, key: &str, is_last: bool) -> Option<Reason> {
        let states = self.request.snapshot.partitions.get(&self.asset.key);
        let state = states.and_then(|states| states.get(key)).copied().unwrap_or_default();
        if state.is_failed() {
            return Some(Reason::LastFailed);
        }
        if !state.is_materialized() {
            return Some(Reason::Missing);
        }
        let mut changing = None;
        for (upstream, flow) in self.upstream() {
            let (newest, is_changing) = match self.read(key, upstream) {
                Some(keys) => {
                    let of = self.request.snapshot.partitions.get(&upstream.key);
                    let position = |key: &String| of.and_then(|states| states.get(key)).map_or(0, |state| state.position);
                    let is_changing = keys.iter().any(|key| flow.partitions.contains_key(key));
                    (keys.iter().map(position).max().unwrap_or(0), is_changing)
                }
                None if is_last => (flow.newest, flow.changing.is_some()),
                None => continue,
            };
            if newest > state.confirmed_position {
                return Some(Reason::UpstreamNewer { upstream: flow.newest_from.clone().unwrap_or(upstream.key.clone()) });
            }
            if is_changing && changing.is_none() {
                changing = Some(flow.changing.clone().unwrap_or(upstream.key.clone()));
            }
        }
        // What is newer is seen for certain; what may change may be left out in the end.
        changing.map(|upstream| Reason::UpstreamMayChange { upstream })
    }

    /// The partition of the asset itself that a partition reads.
    fn previous(&self, key: &str) -> Option<String> {
        self.partitioning.needs_previous.then(|| self.partitioning.previous(key)).flatten()
    }

    /// Why a partition must be made because of the one before it. `changing` are those that are made before it.
    fn reason_before(&self, key: &str, changing: &BTreeSet<String>) -> Option<Reason> {
        let before = self.previous(key)?;
        let upstream = self.asset.key.clone();
        if changing.contains(&before) {
            return Some(Reason::UpstreamMayChange { upstream });
        }
        let states = self.request.snapshot.partitions.get(&self.asset.key)?;
        let is_newer = states.get(&before)?.position > states.get(key)?.confirmed_position;
        is_newer.then_some(Reason::UpstreamNewer { upstream })
    }

    /// Whether it reads partitions that are due and left for later runs: it comes with them.
    fn is_left(&self, key: &str) -> bool {
        self.upstream().any(|(upstream, flow)| {
            !flow.left.is_empty() && self.read(key, upstream).is_some_and(|keys| keys.iter().any(|key| flow.left.contains(key)))
        })
    }
}

/// Readers of a view see what is behind it.
fn pass_through(flow: &mut Flow, upstream: &[&Flow], needs: BTreeSet<StepId>) {
    flow.steps = needs;
    flow.is_external = upstream.iter().any(|flow| flow.is_external);
    flow.changing = upstream.iter().find_map(|flow| flow.changing.clone());
    if let Some(newest) = upstream.iter().max_by_key(|flow| flow.newest).filter(|newest| newest.newest > flow.newest) {
        flow.newest = newest.newest;
        flow.newest_from.clone_from(&newest.newest_from);
    }
}

pub(crate) fn is_view(asset: &Asset) -> bool {
    matches!(&asset.definition, Definition::Sql(sql) if sql.stored_as == StoredAs::View)
}

/// What something outside changes and is looked at in this run: what is selected of it, and what the selected assets read, also through views.
fn observed<'a>(request: &PlanRequest<'a>) -> BTreeSet<&'a AssetKey> {
    let selected = request.graph.assets().iter().filter(|asset| request.selected.assets.contains(&asset.key));
    let mut open: Vec<&Asset> = selected.collect();
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some(asset) = open.pop() {
        if !seen.insert(&asset.key) {
            continue;
        }
        if matches!(asset.definition, Definition::External { observe: Some(_) }) {
            found.insert(&asset.key);
        }
        let is_looked_through =
            |upstream: &&Asset| is_view(upstream) || matches!(upstream.definition, Definition::External { .. });
        open.extend(asset.upstream.iter().filter_map(|key| request.graph.get(key)).filter(is_looked_through));
    }
    found
}

fn reason_to_look(asset: &Asset, request: &PlanRequest<'_>) -> Reason {
    if request.snapshot.latest.contains_key(&asset.key) { Reason::SourceMayHaveNew } else { Reason::Missing }
}

/// Why `asset` must run, or `None` when it need not.
fn reason(asset: &Asset, upstream: &[&Flow], request: &PlanRequest<'_>) -> Option<Reason> {
    if matches!(asset.definition, Definition::External { .. }) || !request.selected.assets.contains(&asset.key) {
        return None;
    }
    if request.full_refresh {
        return Some(Reason::FullRefresh);
    }
    let Some(latest) = request.snapshot.latest.get(&asset.key) else { return Some(Reason::Missing) };
    if latest.version != asset.version {
        return Some(Reason::DefinitionChanged);
    }
    if matches!(asset.definition, Definition::Ingest(_)) {
        return Some(Reason::SourceMayHaveNew);
    }
    // A view shows new rows by itself; it is only worth a step when it has checks to evaluate.
    if !is_view(asset) || !asset.checks.is_empty() {
        let unseen = upstream.iter().find(|flow| flow.newest > latest.confirmed_position);
        if let Some(upstream) = unseen.and_then(|flow| flow.newest_from.clone()) {
            return Some(Reason::UpstreamNewer { upstream });
        }
        if upstream.iter().any(|flow| flow.is_external) {
            return Some(Reason::SourceMayHaveNew);
        }
        if let Some(upstream) = upstream.iter().find_map(|flow| flow.changing.clone()) {
            return Some(Reason::UpstreamMayChange { upstream });
        }
    }
    request.selected.named.contains(&asset.key).then_some(Reason::Selected)
}

/// The standalone checks that read an asset of the plan.
pub(crate) fn check_actions(graph: &AssetGraph, actions: &[Action]) -> Vec<Action> {
    let mut planned: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
    for action in actions {
        planned.entry(action.step.base()).or_default().push(action.step.clone());
    }
    let action = |check: &subak_domain::StandaloneCheck| {
        let steps = check.upstream.iter().filter_map(|key| planned.get(&StepId::asset(key)));
        let needs: BTreeSet<StepId> = steps.flatten().cloned().collect();
        let needs: Vec<StepId> = needs.into_iter().collect();
        let upstream = check.upstream.iter().find(|key| planned.contains_key(&StepId::asset(key)))?.clone();
        let work = Work::Check { name: check.name.clone() };
        Some(Action {
            step: StepId::check(&check.name),
            work,
            reason: Reason::UpstreamNewer { upstream },
            needs,
            rule: Rule::default(),
        })
    };
    graph.checks().iter().filter_map(action).collect()
}

/// Plans evaluating the checks of the selected assets on what they hold now, and the standalone checks that read one of them.
pub fn plan_checks(graph: &AssetGraph, selected: &Selected) -> Plan {
    let audit = |asset: &Asset| Action {
        step: StepId::audit(&asset.key),
        work: Work::Audit { asset: asset.key.clone() },
        reason: Reason::Selected,
        needs: Vec::new(),
        rule: Rule::default(),
    };
    let is_selected = |key: &AssetKey| selected.assets.contains(key);
    let audits = graph.assets().iter().filter(|asset| is_selected(&asset.key) && !asset.checks.is_empty()).map(audit);
    let checks = graph.checks().iter().filter(|check| check.upstream.iter().any(is_selected)).map(|check| Action {
        step: StepId::check(&check.name),
        work: Work::Check { name: check.name.clone() },
        reason: Reason::Selected,
        needs: Vec::new(),
        rule: Rule::default(),
    });
    Plan { actions: audits.chain(checks).collect(), ..Plan::default() }
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::{Expect, expect};
    use subak_domain::{Ingest, Materialization, Retry, RunId, SqlAsset, Timestamp, Version, WriteMode};

    use super::*;

    /// One asset a line: `name`, or `name <- upstream …`; `view name <- …` for a view. An asset without upstream is an ingest.
    pub(crate) fn graph(text: &str) -> AssetGraph {
        let assets = text.lines().map(|line| {
            let (name, upstream) = line.split_once("<-").unwrap_or((line, ""));
            let (is_view, name) = name.trim().strip_prefix("view ").map_or((false, name.trim()), |name| (true, name));
            let upstream: Vec<AssetKey> = upstream.split_whitespace().map(|key| key.parse().expect("key")).collect();
            asset(name, upstream, is_view)
        });
        AssetGraph::new(assets.collect(), Vec::new()).expect("graph")
    }

    fn asset(name: &str, upstream: Vec<AssetKey>, is_view: bool) -> Asset {
        let on: subak_domain::ConnectionName = "warehouse".parse().expect("name");
        let definition = if name.starts_with("external") {
            Definition::External { observe: None }
        } else if upstream.is_empty() {
            Definition::Ingest(Ingest {
                from: on.clone(),
                to: on,
                stream: name.into(),
                mode: WriteMode::Replace,
                primary_key: Vec::new(),
                cursor: None,
                columns: BTreeMap::new(),
                options: BTreeMap::new(),
                shape: subak_domain::Shape::default(),
                latest: None,
                history: subak_domain::History::default(),
                layout: subak_domain::Layout::default(),
            })
        } else {
            let stored_as = if is_view { StoredAs::View } else { StoredAs::Table };
            Definition::Sql(SqlAsset::new(on, String::new(), stored_as))
        };
        Asset {
            key: name.parse().expect("key"),
            definition,
            upstream,
            checks: Vec::new(),
            version: Version::of(&[("v", "1")]),
            path: format!("{name}.sql"),
            group: "main".into(),
            owner: None,
            tags: BTreeSet::new(),
            description: None,
            columns: BTreeMap::new(),
            retry: Retry::default(),
            timeout: subak_domain::asset::TIMEOUT_DEFAULT,
            pools: subak_domain::job::PoolSlots::new(),
            hooks: subak_domain::Hooks::default(),
            partitioning: None,
            automation: None,
            freshness: None,
        }
    }

    /// `name@position` or `name@position!` for one that an older definition made.
    fn history(text: &str) -> Snapshot {
        let latest = text.split_whitespace().map(|word| {
            let (name, rest) = word.split_once('@').expect("name@position");
            let version = if rest.ends_with('!') { "0" } else { "1" };
            let materialization = Materialization {
                version: Version::of(&[("v", version)]),
                position: rest.trim_end_matches('!').parse().expect("position"),
                confirmed_position: rest.trim_end_matches('!').parse().expect("position"),
                run: RunId::from_parts(0, 0),
                at: Timestamp::UNIX_EPOCH,
                confirmed_at: Timestamp::UNIX_EPOCH,
                row_count: None,
                account: None,
            };
            (name.parse().expect("key"), materialization)
        });
        Snapshot { latest: latest.collect(), ..Snapshot::default() }
    }

    fn request<'a>(
        graph: &'a AssetGraph,
        snapshot: &'a Snapshot,
        selected: &'a Selected,
        picks: &'a [PartitionPick],
    ) -> PlanRequest<'a> {
        let now = "2024-01-04T00:00:00Z".parse().expect("now");
        PlanRequest { graph, snapshot, selected, full_refresh: false, range: None, picks, now }
    }

    #[track_caller]
    fn assert_plan(assets: &str, done: &str, selection: &str, expect: &Expect) {
        let (graph, snapshot) = (graph(assets), history(done));
        let include: Vec<String> = selection.split_whitespace().map(str::to_owned).collect();
        let selected = crate::select(&graph, &snapshot, &include, &[]).expect("selection");
        let plan = plan(request(&graph, &snapshot, &selected, &[])).expect("a plan");
        let line = |action: &Action| {
            let needs: Vec<&str> = action.needs.iter().map(StepId::as_str).collect();
            format!("{}: {} [{}]\n", action.step, action.reason, needs.join(" "))
        };
        let fresh: Vec<&str> = plan.fresh.iter().map(AssetKey::as_str).collect();
        let text = plan.actions.iter().map(line).collect::<String>() + "fresh: " + &fresh.join(" ");
        expect.assert_eq(&text);
    }

    const CHAIN: &str = "src\nclean <- src\nmart <- clean";

    #[test]
    fn everything_is_missing_at_first() {
        assert_plan(
            CHAIN,
            "",
            "",
            &expect![[r#"
            src: never materialized []
            clean: never materialized [src]
            mart: never materialized [clean]
            fresh: "#]],
        );
    }

    #[test]
    fn a_source_is_asked_again_and_the_rest_depends() {
        assert_plan(
            CHAIN,
            "src@1 clean@2 mart@3",
            "",
            &expect![[r#"
                src: its source may have new rows []
                clean: `src` may change [src]
                mart: `clean` may change [clean]
                fresh: "#]],
        );
    }

    #[test]
    fn fresh_assets_stay() {
        assert_plan(
            CHAIN,
            "src@1 clean@2 mart@3",
            "+mart,kind:sql",
            &expect![[r#"
            mart: selected []
            fresh: clean"#]],
        );
        assert_plan(
            CHAIN,
            "src@1 clean@2! mart@3",
            "+mart,kind:sql",
            &expect![[r#"
                clean: its definition changed []
                mart: `clean` may change [clean]
                fresh: "#]],
        );
        assert_plan(
            CHAIN,
            "src@9 clean@2 mart@3",
            "mart",
            &expect![[r#"
            mart: selected []
            fresh: "#]],
        );
    }

    #[test]
    fn readers_of_a_view_see_what_is_behind_it() {
        let assets = "src\nview v <- src\nmart <- v";
        assert_plan(
            assets,
            "src@5 v@2 mart@3",
            "kind:sql,+mart",
            &expect![[r#"
                mart: `src` is newer []
                fresh: v"#]],
        );
        assert_plan(
            assets,
            "src@1 v@2 mart@3",
            "",
            &expect![[r#"
                src: its source may have new rows []
                mart: `src` may change [src]
                fresh: v"#]],
        );
    }

    #[test]
    fn nobody_tells_when_something_external_changes() {
        assert_plan(
            "external\nview v <- external\nmart <- v\nlast <- mart",
            "v@1 mart@2 last@3",
            "",
            &expect![[r#"
                mart: its source may have new rows []
                last: `mart` may change [mart]
                fresh: v"#]],
        );
    }

    /// Cuts assets into days from the first of January 2024, or weeks for those whose names begin with `w`.
    pub(crate) fn cut(graph: &AssetGraph, names: &[&str]) -> AssetGraph {
        use subak_domain::partition::{Cadence, PartitionRule, TimeWindows};
        let assets = graph.assets().iter().cloned().map(|mut asset| {
            let cadence = if asset.key.as_str().starts_with('w') { Cadence::Weekly } else { Cadence::Daily };
            let windows =
                TimeWindows { cadence, start: "2024-01-01".parse().expect("start"), end: None, timezone: "UTC".to_owned() };
            let rule = PartitionRule::Time(windows);
            asset.partitioning = names.contains(&asset.key.as_str()).then(|| Partitioning::new("day", rule));
            asset
        });
        AssetGraph::new(assets.collect(), Vec::new()).expect("graph")
    }

    /// `name[key]@position`, `name[key]!position` for one that failed; assets without a key as in [`history`].
    fn known(text: &str) -> Snapshot {
        let (cut, whole): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| word.contains('['));
        let mut snapshot = history(&whole.join(" "));
        for word in cut {
            let (name, rest) = word.split_once('[').expect("name[key]@position");
            let (key, rest) = rest.split_once(']').expect("name[key]@position");
            let position = rest[1..].parse().expect("position");
            let state = snapshot.partitions.entry(name.parse().expect("key")).or_default().entry(key.to_owned()).or_default();
            if rest.starts_with('!') {
                state.failed_position = position;
            } else {
                (state.position, state.confirmed_position) = (position, position);
            }
        }
        snapshot
    }

    fn lines(graph: &AssetGraph, snapshot: &Snapshot, picks: &[PartitionPick], selection: &str) -> String {
        let include: Vec<String> = selection.split_whitespace().map(str::to_owned).collect();
        let selected = crate::select(graph, snapshot, &include, &[]).expect("selection");
        let plan = plan(request(graph, snapshot, &selected, picks)).expect("a plan");
        let line = |action: &Action| {
            let needs: Vec<&str> = action.needs.iter().map(StepId::as_str).collect();
            format!("{}: {} [{}]", action.step, action.reason, needs.join(" "))
        };
        plan.actions.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// T-130: a partition waits for those that it reads, and for no others; what failed or is missing comes by itself.
    #[test]
    fn t_130_partitions_wait_for_those_that_they_read() {
        let graph = cut(&graph("a\nb <- a\nc <- b"), &["a", "b"]);
        let first = lines(&graph, &Snapshot::default(), &[], "");
        expect![[r#"
            a[2024-01-01]: never materialized []
            a[2024-01-02]: never materialized []
            a[2024-01-03]: never materialized []
            b[2024-01-01]: never materialized [a[2024-01-01]]
            b[2024-01-02]: never materialized [a[2024-01-02]]
            b[2024-01-03]: never materialized [a[2024-01-03]]
            c: never materialized [b[2024-01-01] b[2024-01-02] b[2024-01-03]]"#]]
        .assert_eq(&first);
        let done = "a[2024-01-01]@1 a[2024-01-02]@9 a[2024-01-03]!4 b[2024-01-01]@5 b[2024-01-02]@6 b[2024-01-03]@7 c@8 b@7 a@9";
        expect![[r#"
            a[2024-01-03]: its last attempt failed []
            b[2024-01-02]: `a` is newer []
            b[2024-01-03]: `a` may change [a[2024-01-03]]
            c: `b` may change [b[2024-01-02] b[2024-01-03]]"#]]
        .assert_eq(&lines(&graph, &known(done), &[], ""));
        let picks = [PartitionPick::parse("2024-01-01..2024-01-02")];
        expect![[r#"
            b[2024-01-01]: selected []
            b[2024-01-02]: selected []"#]]
        .assert_eq(&lines(&graph, &known(done), &picks, "b"));
    }

    /// What failed does not hold up what was never tried, and readers of what is left wait with it.
    #[test]
    fn a_run_takes_what_was_never_tried_first() {
        let mut long = cut(&graph("a\nb <- a"), &["a", "b"]);
        let assets = long.assets().iter().cloned().map(|mut asset| {
            if let Some(Partitioning { rule: subak_domain::PartitionRule::Time(windows), .. }) = &mut asset.partitioning {
                windows.start = "2020-01-01".parse().expect("start");
            }
            asset
        });
        long = AssetGraph::new(assets.collect(), Vec::new()).expect("graph");
        let first = Snapshot::default();
        let planned = lines(&long, &first, &[], "");
        let of = |name: &str| planned.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!((of("a["), of("b[")), (PARTITION_COUNT_MAX, PARTITION_COUNT_MAX), "readers of what is left wait");
        assert!(!planned.contains("2024-01-03"));
        let failed: Vec<String> = planned
            .lines()
            .filter_map(|line| Some(format!("{}!1", line.split(':').next()?)))
            .filter(|word| word.starts_with('a'))
            .collect();
        let next = lines(&long, &known(&failed.join(" ")), &[], "a");
        assert!(next.contains("a[2024-01-03]: never materialized"), "the last window is not held up");
    }

    /// Newer for certain is told before what may change and may be left out.
    #[test]
    fn newer_comes_before_may_change() {
        let graph = cut(&graph("a\nzdim\nb <- a zdim"), &["b"]);
        let done = "a@1 zdim@9 b[2024-01-01]@5 b[2024-01-02]@5 b[2024-01-03]@5 b@5";
        let planned = lines(&graph, &known(done), &[], "a b");
        assert!(planned.contains("b[2024-01-03]: `zdim` is newer [a]"), "{planned}");
    }

    /// T-104, T-114: a week reads its seven days; what has no partitions makes only the last one stale.
    #[test]
    fn t_104_what_is_whole_makes_the_last_partition_stale() {
        let graph = cut(&graph("a\nd\nb <- a d"), &["a", "b"]);
        let done = "a[2024-01-01]@1 a[2024-01-02]@1 a[2024-01-03]@1 d@9 b[2024-01-01]@5 b[2024-01-02]@5 b[2024-01-03]@5 a@1 b@5";
        assert_eq!(lines(&graph, &known(done), &[], "b"), "b[2024-01-03]: `d` is newer []");
        let graph = cut(&self::graph("a\nweek <- a"), &["a", "week"]);
        let picks = [PartitionPick::parse("all")];
        // No week has ended yet.
        assert!(!lines(&graph, &Snapshot::default(), &picks, "").contains("week"));
    }
}
