//! From what is declared and what is known to an ordered list of actions, each with its reason.

use std::collections::{BTreeMap, BTreeSet};

use subak_domain::{
    Action, Asset, AssetGraph, AssetKey, CursorRange, Definition, Reason, Rule, Snapshot, StepId, StoredAs, Work,
};

use crate::Selected;

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
}

/// What to do, and what was asked for but needs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The actions, each behind everything that it needs.
    pub actions: Vec<Action>,
    /// Selected assets that are fresh, in dependency order.
    pub fresh: Vec<AssetKey>,
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
    /// An asset of the plan whose data will change.
    changing: Option<AssetKey>,
    /// Whether something outside may have changed the data; nobody tells when it does.
    is_external: bool,
}

/// Plans bringing the selected assets up to date. The same input gives the same plan.
pub fn plan(request: PlanRequest<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut flows: BTreeMap<&AssetKey, Flow> = BTreeMap::new();
    for asset in request.graph.assets() {
        let upstream: Vec<&Flow> = asset.upstream.iter().filter_map(|key| flows.get(key)).collect();
        let needs: BTreeSet<StepId> = upstream.iter().flat_map(|flow| flow.steps.iter().cloned()).collect();
        let reason = reason(asset, &upstream, &request);
        let latest = request.snapshot.latest.get(&asset.key);
        let mut flow =
            Flow { newest: latest.map_or(0, |latest| latest.position), newest_from: Some(asset.key.clone()), ..Flow::default() };
        if let Some(reason) = reason {
            let step = StepId::asset(&asset.key);
            flow.steps.insert(step.clone());
            flow.changing = Some(asset.key.clone());
            let has_cursor = matches!(&asset.definition, Definition::Ingest(ingest) if ingest.cursor.is_some());
            let range = request.range.filter(|_| has_cursor).cloned();
            let work = Work::Materialize { asset: asset.key.clone(), full_refresh: request.full_refresh, range };
            let needs = needs.into_iter().collect();
            plan.actions.push(Action { step, work, reason, needs, rule: Rule::default() });
        } else {
            if request.selected.assets.contains(&asset.key) && !matches!(asset.definition, Definition::External) {
                plan.fresh.push(asset.key.clone());
            }
            flow.is_external = matches!(asset.definition, Definition::External);
            if is_view(asset) {
                pass_through(&mut flow, &upstream, needs);
            }
        }
        flows.insert(&asset.key, flow);
    }
    plan.actions.extend(check_actions(request.graph, &plan.actions));
    plan
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

fn is_view(asset: &Asset) -> bool {
    matches!(&asset.definition, Definition::Sql(sql) if sql.stored_as == StoredAs::View)
}

/// Why `asset` must run, or `None` when it need not.
fn reason(asset: &Asset, upstream: &[&Flow], request: &PlanRequest<'_>) -> Option<Reason> {
    let is_external = matches!(asset.definition, Definition::External);
    if is_external || !request.selected.assets.contains(&asset.key) {
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
fn check_actions(graph: &AssetGraph, actions: &[Action]) -> Vec<Action> {
    let planned: BTreeSet<&StepId> = actions.iter().map(|action| &action.step).collect();
    let action = |check: &subak_domain::StandaloneCheck| {
        let needs: Vec<StepId> = check.upstream.iter().map(StepId::asset).filter(|step| planned.contains(step)).collect();
        let upstream = check.upstream.iter().find(|key| planned.contains(&StepId::asset(key)))?.clone();
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
    Plan { actions: audits.chain(checks).collect(), fresh: Vec::new() }
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
            Definition::External
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
            hooks: subak_domain::Hooks::default(),
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
        Snapshot { latest: latest.collect() }
    }

    #[track_caller]
    fn assert_plan(assets: &str, done: &str, selection: &str, expect: &Expect) {
        let (graph, snapshot) = (graph(assets), history(done));
        let include: Vec<String> = selection.split_whitespace().map(str::to_owned).collect();
        let selected = crate::select(&graph, &snapshot, &include, &[]).expect("selection");
        let plan =
            plan(PlanRequest { graph: &graph, snapshot: &snapshot, selected: &selected, full_refresh: false, range: None });
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
}
