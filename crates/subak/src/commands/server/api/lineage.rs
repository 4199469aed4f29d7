//! The graph of assets, with a place for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use subak_domain::{Asset, AssetKey};
use subak_server::layout::{Layout, NODE_HEIGHT, NODE_WIDTH, layout};
use subak_server::{Call, Endpoint, Problem};
use utoipa::{IntoParams, ToSchema};

use super::assets::{selected, view, weight};
use super::recent;
use super::{Api, VIEW};

/// Which part of the graph.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct LineageQuery {
    /// A selection as the command line takes it; all assets without one.
    select: Option<String>,
    /// Around this asset.
    focus: Option<String>,
    /// How many steps around it, in both directions; without it as far as there are any.
    depth: Option<usize>,
}

/// A node of the graph.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeView {
    /// The asset.
    asset: String,
    /// What it is.
    kind: String,
    /// How it stands.
    status: String,
    /// Its group.
    group: String,
    /// Checks that passed.
    checks_passed: usize,
    /// Checks that it has.
    check_count: usize,
}

/// A group of nodes, with the worst status among them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupView {
    /// Its name.
    group: String,
    /// The worst status.
    status: String,
    /// How many stand how.
    counts: BTreeMap<String, usize>,
}

/// The graph, laid out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineageView {
    /// Its nodes.
    nodes: Vec<NodeView>,
    /// The left upper corner of each: pairs of 32-bit floats, little endian, in Base64.
    places: String,
    /// Edges as pairs of places in `nodes`: 32-bit integers, little endian, in Base64.
    edges: String,
    /// How many edges there are.
    edge_count: usize,
    /// Its groups.
    groups: Vec<GroupView>,
    /// The width of a node.
    node_width: f32,
    /// The height of a node.
    node_height: f32,
    /// The width of all of it.
    width: f32,
    /// The height of all of it.
    height: f32,
}

/// What stands next to each asset in one direction.
type Neighbours<'a> = BTreeMap<&'a AssetKey, Vec<&'a AssetKey>>;

/// The assets within some steps of one.
fn around(assets: &[Asset], focus: &AssetKey, depth: usize) -> BTreeSet<AssetKey> {
    let (mut up, mut down) = (Neighbours::new(), Neighbours::new());
    for asset in assets {
        for upstream in &asset.upstream {
            up.entry(&asset.key).or_default().push(upstream);
            down.entry(upstream).or_default().push(&asset.key);
        }
    }
    let mut found = BTreeSet::from([focus.clone()]);
    for next_to in [&up, &down] {
        let mut edge = vec![focus];
        let mut seen = BTreeSet::from([focus]);
        for _ in 0..depth {
            edge = edge
                .iter()
                .flat_map(|key| next_to.get(key).into_iter().flatten().copied())
                .filter(|key| seen.insert(*key))
                .collect();
            if edge.is_empty() {
                break;
            }
        }
        found.extend(seen.into_iter().cloned());
    }
    found
}

fn lineage(api: &Api, call: &Call, query: LineageQuery) -> Result<LineageView, Problem> {
    let picture = api.picture()?;
    let mut assets = selected(&picture, query.select.as_deref())?;
    if let Some(focus) = &query.focus {
        let known = focus.parse().ok().filter(|key| picture.serving.opened.graph().get(key).is_some());
        let focus: AssetKey = known.ok_or_else(|| Problem::not_found("asset", focus))?;
        let near = around(&assets, &focus, query.depth.unwrap_or(usize::MAX));
        assets.retain(|asset| near.contains(&asset.key));
    }
    let at: BTreeMap<&AssetKey, usize> = assets.iter().enumerate().map(|(at, asset)| (&asset.key, at)).collect();
    let edges: Vec<(usize, usize)> = assets
        .iter()
        .enumerate()
        .flat_map(|(to, asset)| asset.upstream.iter().filter_map(|key| at.get(key)).map(move |from| (*from, to)))
        .collect();
    let laid_out = api.laid_out(assets.len(), &edges);
    let nodes: Vec<NodeView> = recent::with(api, call, |recent| {
        let node = |asset: &Asset| {
            let view = view(asset, &picture, recent);
            let (checks_passed, check_count) = (view.checks_passed, view.check_count);
            NodeView { asset: view.asset, kind: view.kind, status: view.status, group: view.group, checks_passed, check_count }
        };
        assets.iter().map(node).collect()
    })?;
    let places: Vec<u8> = laid_out.places.iter().flat_map(|(x, y)| [*x, *y]).flat_map(f32::to_le_bytes).collect();
    let pairs: Vec<u8> = edges.iter().flat_map(|(from, to)| [*from as u32, *to as u32]).flat_map(u32::to_le_bytes).collect();
    Ok(LineageView {
        groups: groups(&nodes),
        nodes,
        places: BASE64_STANDARD.encode(places),
        edges: BASE64_STANDARD.encode(pairs),
        edge_count: edges.len(),
        node_width: NODE_WIDTH,
        node_height: NODE_HEIGHT,
        width: laid_out.width,
        height: laid_out.height,
    })
}

fn groups(nodes: &[NodeView]) -> Vec<GroupView> {
    let mut groups: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for node in nodes {
        *groups.entry(&node.group).or_default().entry(node.status.clone()).or_default() += 1;
    }
    let view = |(group, counts): (&str, BTreeMap<String, usize>)| {
        let status = counts.keys().min_by_key(|status| weight(status)).cloned().unwrap_or_default();
        GroupView { group: group.to_owned(), status, counts }
    };
    groups.into_iter().map(view).collect()
}

/// The last layouts: a graph that is the same stands the same.
#[derive(Default)]
pub(super) struct Layouts(Vec<Known>);

/// A graph and its layout.
struct Known {
    node_count: usize,
    edges: Vec<(usize, usize)>,
    layout: Arc<Layout>,
}

/// Layouts that are kept.
const LAYOUT_COUNT_MAX: usize = 16;

impl Api {
    fn laid_out(&self, node_count: usize, edges: &[(usize, usize)]) -> Arc<Layout> {
        let mut layouts = self.layouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = layouts.0.iter().find(|known| known.node_count == node_count && known.edges == edges) {
            return Arc::clone(&known.layout);
        }
        let made = Arc::new(layout(node_count, edges));
        if layouts.0.len() >= LAYOUT_COUNT_MAX {
            layouts.0.remove(0);
        }
        layouts.0.push(Known { node_count, edges: edges.to_vec(), layout: Arc::clone(&made) });
        made
    }
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![Endpoint::read("/api/v1/lineage", VIEW, "The graph of assets, laid out from left to right.", lineage)]
}
