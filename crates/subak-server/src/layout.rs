//! Where the nodes of a graph stand: layers from left to right, few crossings, packed to the shape of a screen.
//!
//! After Sugiyama, Tagawa and Toda (1981): ranks by the longest path, order within a layer by barycentres, places by the nearest ones that keep order and
//! distance (isotonic regression). Long edges get no places of their own: with ten thousand nodes they would be most of the work, and they are drawn faint.

#![expect(clippy::cast_precision_loss, reason = "places on a screen")]

use std::collections::BTreeMap;

/// Width of a node, in pixels at full size.
pub const NODE_WIDTH: f32 = 200.0;

/// Height of a node.
pub const NODE_HEIGHT: f32 = 56.0;

/// Between layers.
const GAP_X: f32 = 72.0;

/// Between nodes of a layer.
const GAP_Y: f32 = 16.0;

/// Between parts of the graph that have nothing to do with each other.
const GAP_PART: f32 = 48.0;

/// Width over height of the screen that it is packed for.
const RATIO: f32 = 1.6;

/// How often the order within layers is looked at.
const SWEEP_COUNT: usize = 6;

/// Nodes of a layer above which it is broken into columns.
const COLUMN_LENGTH_MIN: usize = 40;

/// Where everything stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// The left upper corner of each node.
    pub places: Vec<(f32, f32)>,
    /// The width of all of it.
    pub width: f32,
    /// The height of all of it.
    pub height: f32,
}

/// A graph with neighbours in both directions.
struct Graph {
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

/// Lays out nodes `0..node_count` with edges from the first to the second. Edges that close a circle are left out of account, as are those to nowhere.
pub fn layout(node_count: usize, edges: &[(usize, usize)]) -> Layout {
    let mut graph = Graph { before: vec![Vec::new(); node_count], after: vec![Vec::new(); node_count] };
    for &(from, to) in edges {
        if from < node_count && to < node_count && from != to {
            graph.after[from].push(to);
            graph.before[to].push(from);
        }
    }
    let ranks = ranks(&graph);
    let mut parts = parts(&graph).into_iter().map(|nodes| lay_out_part(&graph, &ranks, &nodes)).collect::<Vec<_>>();
    pack(node_count, &mut parts)
}

/// The layer of each node: one more than the highest before it. A node without anything before it stands next to the first that reads it.
fn ranks(graph: &Graph) -> Vec<usize> {
    let count = graph.before.len();
    let mut waiting: Vec<usize> = graph.before.iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..count).filter(|node| waiting[*node] == 0).collect();
    let (mut ranks, mut at) = (vec![0_usize; count], 0);
    while let Some(&node) = ready.get(at) {
        at += 1;
        for &next in &graph.after[node] {
            ranks[next] = ranks[next].max(ranks[node] + 1);
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(next);
            }
        }
    }
    for node in 0..count {
        if graph.before[node].is_empty()
            && let Some(next) = graph.after[node].iter().map(|next| ranks[*next]).min()
        {
            ranks[node] = next.saturating_sub(1);
        }
    }
    ranks
}

/// Nodes that have to do with each other, the largest part first.
fn parts(graph: &Graph) -> Vec<Vec<usize>> {
    let mut seen = vec![false; graph.before.len()];
    let mut parts = Vec::new();
    for start in 0..graph.before.len() {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        let (mut part, mut at) = (vec![start], 0);
        while let Some(&node) = part.get(at) {
            at += 1;
            for &next in graph.after[node].iter().chain(&graph.before[node]) {
                if !seen[next] {
                    seen[next] = true;
                    part.push(next);
                }
            }
        }
        parts.push(part);
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts
}

/// A part of the graph, laid out by itself.
struct Part {
    places: Vec<(usize, f32, f32)>,
    width: f32,
    height: f32,
}

fn lay_out_part(graph: &Graph, ranks: &[usize], nodes: &[usize]) -> Part {
    let mut layers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &node in nodes {
        layers.entry(ranks[node]).or_default().push(node);
    }
    let mut layers: Vec<Vec<usize>> = layers.into_values().collect();
    let mut at: BTreeMap<usize, f32> = BTreeMap::new();
    let settle = |layer: &[usize], at: &mut BTreeMap<usize, f32>| {
        at.extend(layer.iter().enumerate().map(|(place, node)| (*node, place as f32 / layer.len() as f32)));
    };
    for layer in &layers {
        settle(layer, &mut at);
    }
    for sweep in 0..SWEEP_COUNT {
        let is_forward = sweep % 2 == 0;
        let neighbours = if is_forward { &graph.before } else { &graph.after };
        let order: Vec<usize> = if is_forward { (0..layers.len()).collect() } else { (0..layers.len()).rev().collect() };
        for place in order {
            let layer = &mut layers[place];
            let mut wanted: Vec<(f32, usize)> =
                layer.iter().map(|node| (mean(&neighbours[*node], &at).unwrap_or(at[node]), *node)).collect();
            wanted.sort_by(|one, other| one.0.total_cmp(&other.0));
            *layer = wanted.into_iter().map(|(_, node)| node).collect();
            settle(layer, &mut at);
        }
    }
    place_layers(graph, &layers, nodes.len())
}

fn mean(nodes: &[usize], at: &BTreeMap<usize, f32>) -> Option<f32> {
    let known: Vec<f32> = nodes.iter().filter_map(|node| at.get(node).copied()).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32)
}

/// Gives each node of ordered layers its place.
fn place_layers(graph: &Graph, layers: &[Vec<usize>], node_count: usize) -> Part {
    // A layer that is much longer than the screen is high goes on in the next column.
    let cell = (NODE_WIDTH + GAP_X) / (NODE_HEIGHT + GAP_Y);
    let length_max = ((node_count as f32 * cell / RATIO).sqrt().ceil() as usize).max(COLUMN_LENGTH_MIN);
    let columns: Vec<&[usize]> = layers.iter().flat_map(|layer| layer.chunks(length_max)).collect();
    let step = NODE_HEIGHT + GAP_Y;
    let longest = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    let mut at: BTreeMap<usize, f32> = BTreeMap::new();
    for column in &columns {
        let top = (longest - column.len()) as f32 * step / 2.0;
        at.extend(column.iter().enumerate().map(|(place, node)| (*node, top + place as f32 * step)));
    }
    for sweep in 0..4 {
        let neighbours = if sweep % 2 == 0 { &graph.before } else { &graph.after };
        let order: Vec<usize> = if sweep % 2 == 0 { (0..columns.len()).collect() } else { (0..columns.len()).rev().collect() };
        for place in order {
            let wanted: Vec<f32> = columns[place].iter().map(|node| mean(&neighbours[*node], &at).unwrap_or(at[node])).collect();
            at.extend(columns[place].iter().copied().zip(spread(&wanted, step)));
        }
    }
    let top = at.values().copied().fold(f32::MAX, f32::min);
    let bottom = at.values().copied().fold(f32::MIN, f32::max);
    let x = |column: usize| column as f32 * (NODE_WIDTH + GAP_X);
    let places = columns
        .iter()
        .enumerate()
        .flat_map(|(column, nodes)| nodes.iter().map(move |node| (*node, column)))
        .map(|(node, column)| (node, x(column), at[&node] - top))
        .collect();
    Part { places, width: x(columns.len().saturating_sub(1)) + NODE_WIDTH, height: bottom - top + NODE_HEIGHT }
}

/// The places nearest to those wanted, in the same order, at least a step apart: isotonic regression by pooling neighbours.
fn spread(wanted: &[f32], step: f32) -> Vec<f32> {
    // Blocks of nodes that touch: the sum of where their first node should be, and how many there are.
    let mut blocks: Vec<(f32, usize)> = Vec::new();
    for (place, want) in wanted.iter().enumerate() {
        let mut block = (want - place as f32 * step, 1);
        while let Some(&(sum, count)) = blocks.last()
            && sum / count as f32 >= block.0 / block.1 as f32
        {
            blocks.pop();
            block = (block.0 + sum, block.1 + count);
        }
        blocks.push(block);
    }
    let firsts = blocks.into_iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / count as f32, count));
    firsts.enumerate().map(|(place, first)| first + place as f32 * step).collect()
}

/// Puts the parts on shelves, so that the whole has about the shape of a screen.
fn pack(node_count: usize, parts: &mut [Part]) -> Layout {
    let area: f32 = parts.iter().map(|part| (part.width + GAP_PART) * (part.height + GAP_PART)).sum();
    let widest = parts.iter().map(|part| part.width).fold(0.0, f32::max);
    let shelf_width = (area * RATIO).sqrt().max(widest);
    // High ones first, so that a shelf wastes little.
    parts.sort_by(|one, other| other.height.total_cmp(&one.height));
    let mut layout = Layout { places: vec![(0.0, 0.0); node_count], ..Layout::default() };
    let (mut x, mut y, mut shelf) = (0.0, 0.0, 0.0_f32);
    for part in parts {
        if x > 0.0 && x + part.width > shelf_width {
            (x, y, shelf) = (0.0, y + shelf + GAP_PART, 0.0);
        }
        for &(node, left, top) in &part.places {
            layout.places[node] = (x + left, y + top);
        }
        layout.width = layout.width.max(x + part.width);
        layout.height = layout.height.max(y + part.height);
        x += part.width + GAP_PART;
        shelf = shelf.max(part.height);
    }
    layout
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody stands on somebody else, and what reads stands to the right of what is read.
    #[track_caller]
    fn assert_sound(node_count: usize, edges: &[(usize, usize)]) -> Layout {
        let found = layout(node_count, edges);
        let mut places: Vec<(i64, i64)> = found.places.iter().map(|(x, y)| ((x * 10.0) as i64, (y * 10.0) as i64)).collect();
        for &(from, to) in edges {
            assert!(places[from].0 < places[to].0, "{from} -> {to}");
        }
        places.sort_unstable();
        let step = ((NODE_HEIGHT + GAP_Y) * 10.0) as i64 - 1;
        for pair in places.windows(2) {
            assert!(pair[0].0 != pair[1].0 || pair[1].1 - pair[0].1 >= step, "{pair:?}");
        }
        assert!(found.places.iter().all(|(x, y)| *x >= 0.0 && *y >= 0.0 && *x <= found.width && *y <= found.height));
        found
    }

    #[test]
    fn small_graphs_stand_as_one_would_draw_them() {
        assert_eq!(layout(0, &[]), Layout::default());
        let chain = assert_sound(3, &[(0, 1), (1, 2)]);
        assert!(chain.places.iter().all(|(_, y)| *y == 0.0), "{chain:?}");
        let diamond = assert_sound(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        let ys: Vec<f32> = diamond.places.iter().map(|(_, y)| *y).collect();
        assert!((ys[0] - f32::midpoint(ys[1], ys[2])).abs() < 0.1 && (ys[3] - ys[0]).abs() < 0.1, "{diamond:?}");
        // Two chains whose ends would cross do not.
        let crossed = assert_sound(6, &[(0, 4), (1, 3), (0, 5), (1, 2)]);
        assert!(crossed.places[0].1 < crossed.places[1].1 || crossed.places[4].1 > crossed.places[3].1);
    }

    /// UI-18 in small: a long chain, a wide star, and many nodes that have nothing to do with each other.
    #[test]
    fn ui_18_extreme_graphs_are_laid_out() {
        let chain: Vec<(usize, usize)> = (0..1_999).map(|node| (node, node + 1)).collect();
        assert_sound(2_000, &chain);
        let star: Vec<(usize, usize)> = (1..5_000).map(|node| (0, node)).collect();
        let found = assert_sound(5_000, &star);
        assert!(found.height < found.width * 4.0, "{} x {}", found.width, found.height);
        let found = assert_sound(1_000, &[]);
        assert!(found.width / found.height < 4.0 && found.height / found.width < 4.0, "{} x {}", found.width, found.height);
    }

    /// A circle does not hang, and an edge to nowhere does not end the process.
    #[test]
    fn broken_graphs_are_laid_out_all_the_same() {
        assert_eq!(layout(2, &[(0, 1), (1, 0)]).places.len(), 2);
        assert_eq!(layout(1, &[(0, 7), (0, 0)]).places, [(0.0, 0.0)]);
    }
}
