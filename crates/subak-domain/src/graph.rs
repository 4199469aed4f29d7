//! The resolved asset graph: what project loading promises to planning and execution.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Asset, AssetKey, StandaloneCheck};

/// All assets of a project in dependency order: every asset stands behind everything that it reads. No cycles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetGraph {
    assets: Vec<Asset>,
    checks: Vec<StandaloneCheck>,
    index: BTreeMap<AssetKey, usize>,
    downstream: Vec<Vec<usize>>,
}

/// Why a list of assets is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two assets have one key.
    #[error("asset `{0}` is declared twice")]
    Duplicate(AssetKey),
    /// An asset reads one that does not exist.
    #[error("asset `{asset}` reads `{missing}`, which does not exist")]
    Unknown {
        /// The asset.
        asset: AssetKey,
        /// What it reads.
        missing: AssetKey,
    },
    /// Assets read each other in a circle.
    #[error("assets read each other in a circle: {}", path.iter().map(AssetKey::as_str).collect::<Vec<_>>().join(" → "))]
    Cycle {
        /// The circle; the first key stands again at the end.
        path: Vec<AssetKey>,
    },
}

impl AssetGraph {
    /// Sorts assets into dependency order; among those that are ready, by key. Reports every problem it finds.
    pub fn new(mut assets: Vec<Asset>, mut checks: Vec<StandaloneCheck>) -> Result<Self, Vec<GraphError>> {
        assets.sort_by(|a, b| a.key.cmp(&b.key));
        checks.sort_by(|a, b| a.name.cmp(&b.name));
        let mut problems = Vec::new();
        for pair in assets.windows(2) {
            if pair[0].key == pair[1].key {
                problems.push(GraphError::Duplicate(pair[1].key.clone()));
            }
        }
        let by_key: BTreeMap<&AssetKey, usize> = assets.iter().enumerate().map(|(at, asset)| (&asset.key, at)).collect();
        for asset in &assets {
            for missing in asset.upstream.iter().filter(|key| !by_key.contains_key(key)) {
                problems.push(GraphError::Unknown { asset: asset.key.clone(), missing: missing.clone() });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let upstream: Vec<Vec<usize>> =
            assets.iter().map(|asset| asset.upstream.iter().map(|key| by_key[key]).collect()).collect();
        let order = sort(&upstream).map_err(|stuck| {
            let path = find_cycle(&upstream, &stuck).into_iter().map(|at| assets[at].key.clone()).collect();
            vec![GraphError::Cycle { path }]
        })?;
        Ok(Self::in_order(assets, &order, checks))
    }

    fn in_order(assets: Vec<Asset>, order: &[usize], checks: Vec<StandaloneCheck>) -> Self {
        let mut slots: Vec<Option<Asset>> = assets.into_iter().map(Some).collect();
        let assets: Vec<Asset> = order.iter().filter_map(|at| slots[*at].take()).collect();
        let index: BTreeMap<AssetKey, usize> = assets.iter().enumerate().map(|(at, asset)| (asset.key.clone(), at)).collect();
        let mut downstream = vec![Vec::new(); assets.len()];
        for (at, asset) in assets.iter().enumerate() {
            for key in &asset.upstream {
                downstream[index[key]].push(at);
            }
        }
        Self { assets, checks, index, downstream }
    }

    /// All assets, each behind everything that it reads.
    pub fn assets(&self) -> &[Asset] {
        &self.assets
    }

    /// All standalone checks, by name.
    pub fn checks(&self) -> &[StandaloneCheck] {
        &self.checks
    }

    /// The asset with this key.
    pub fn get(&self, key: &AssetKey) -> Option<&Asset> {
        self.index.get(key).map(|at| &self.assets[*at])
    }

    /// The standalone check with this name.
    pub fn check(&self, name: &str) -> Option<&StandaloneCheck> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Assets that read `key` directly, in dependency order.
    pub fn downstream(&self, key: &AssetKey) -> impl Iterator<Item = &Asset> {
        let list = self.index.get(key).map_or(&[][..], |at| &self.downstream[*at]);
        list.iter().map(|at| &self.assets[*at])
    }

    /// Everything within `depth` steps upstream (`None`: all of it), without `key` itself.
    pub fn ancestors(&self, key: &AssetKey, depth: Option<usize>) -> BTreeSet<AssetKey> {
        self.walk(key, depth, |asset| asset.upstream.clone())
    }

    /// Everything within `depth` steps downstream (`None`: all of it), without `key` itself.
    pub fn descendants(&self, key: &AssetKey, depth: Option<usize>) -> BTreeSet<AssetKey> {
        self.walk(key, depth, |asset| self.downstream(&asset.key).map(|asset| asset.key.clone()).collect())
    }

    fn walk(&self, key: &AssetKey, depth: Option<usize>, next: impl Fn(&Asset) -> Vec<AssetKey>) -> BTreeSet<AssetKey> {
        let mut found = BTreeSet::new();
        let mut edge = vec![key.clone()];
        let mut steps_left = depth.unwrap_or(usize::MAX);
        while !edge.is_empty() && steps_left > 0 {
            let reached: Vec<AssetKey> = edge.iter().filter_map(|key| self.get(key)).flat_map(&next).collect();
            edge = reached.into_iter().filter(|key| found.insert(key.clone())).collect();
            steps_left -= 1;
        }
        found.remove(key);
        found
    }
}

/// Kahn's algorithm with a sorted ready set. `Err` holds the nodes that stay behind: those on or behind a circle.
fn sort(upstream: &[Vec<usize>]) -> Result<Vec<usize>, BTreeSet<usize>> {
    let mut missing_count: Vec<usize> = upstream.iter().map(Vec::len).collect();
    let mut readers = vec![Vec::new(); upstream.len()];
    for (at, list) in upstream.iter().enumerate() {
        for from in list {
            readers[*from].push(at);
        }
    }
    let mut ready: BTreeSet<usize> = (0..upstream.len()).filter(|at| missing_count[*at] == 0).collect();
    let mut order = Vec::with_capacity(upstream.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for reader in &readers[at] {
            missing_count[*reader] -= 1;
            if missing_count[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    if order.len() == upstream.len() { Ok(order) } else { Err((0..upstream.len()).filter(|at| missing_count[*at] > 0).collect()) }
}

/// Walks upstream among `stuck` nodes, each of which has a stuck upstream, until a node comes again.
fn find_cycle(upstream: &[Vec<usize>], stuck: &BTreeSet<usize>) -> Vec<usize> {
    let Some(mut at) = stuck.first().copied() else { return Vec::new() };
    let mut path: Vec<usize> = Vec::new();
    while !path.contains(&at) {
        path.push(at);
        let Some(next) = upstream[at].iter().find(|next| stuck.contains(next)) else { return path };
        at = *next;
    }
    let start = path.iter().position(|seen| *seen == at).unwrap_or(0);
    let mut circle = path.split_off(start);
    circle.push(at);
    circle
}
