//! `subak lineage`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use subak_domain::AssetKey;
use subak_project::OutputColumns;

use super::{Context, show};
use crate::args::{Format, LineageArgs, LineageFormat};
use crate::exit::{CliError, Exit};
use crate::project::Opened;

/// A graph of names: assets, or `asset.column`.
struct Graph {
    root: String,
    upstream: BTreeMap<String, BTreeSet<String>>,
    downstream: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn edge(&mut self, from: String, to: String) {
        self.downstream.entry(from.clone()).or_default().insert(to.clone());
        self.upstream.entry(to).or_default().insert(from);
    }

    /// Every edge within reach of the root.
    fn edges(&self, up: Option<usize>, down: Option<usize>) -> BTreeSet<(String, String)> {
        let mut edges = BTreeSet::new();
        for (map, depth, is_up) in [(&self.upstream, up, true), (&self.downstream, down, false)] {
            let mut edge: BTreeSet<String> = BTreeSet::from([self.root.clone()]);
            let mut left = depth.unwrap_or(usize::MAX);
            let mut seen = edge.clone();
            while !edge.is_empty() && left > 0 {
                let mut next = BTreeSet::new();
                for name in &edge {
                    for other in map.get(name).into_iter().flatten() {
                        edges.insert(if is_up { (other.clone(), name.clone()) } else { (name.clone(), other.clone()) });
                        if seen.insert(other.clone()) {
                            next.insert(other.clone());
                        }
                    }
                }
                edge = next;
                left -= 1;
            }
        }
        edges
    }
}

pub(super) fn execute(context: &Context<'_>, args: &LineageArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    // `gold.fact.amount` is a column when `gold.fact.amount` is no asset and `gold.fact` is one.
    let column = args.key.rsplit_once('.').filter(|(asset, _)| {
        let is_asset = |text: &str| text.parse().ok().is_some_and(|key: AssetKey| opened.graph().get(&key).is_some());
        is_asset(asset) && !is_asset(&args.key)
    });
    let graph = match column {
        Some((asset, column)) => {
            let columns = opened.project.all_columns();
            let known = asset.parse().ok().and_then(|key: AssetKey| columns.get(&key)?.as_ref());
            let names: Vec<&str> = known.into_iter().flatten().map(|column| column.name.as_str()).collect();
            if !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(column)) {
                return Err(CliError::not_found("column", column, names));
            }
            column_graph(args.key.to_lowercase(), &columns)
        }
        None => {
            let asset = show::find(&opened, &args.key)?;
            if args.columns {
                all_columns(context, &opened, &asset.key);
                return Ok(Exit::Ok);
            }
            asset_graph(&opened, &asset.key)
        }
    };
    print(context, args, &graph);
    Ok(Exit::Ok)
}

fn asset_graph(opened: &Opened, key: &AssetKey) -> Graph {
    let mut graph = Graph { root: key.to_string(), upstream: BTreeMap::new(), downstream: BTreeMap::new() };
    for asset in opened.graph().assets() {
        for upstream in &asset.upstream {
            graph.edge(upstream.to_string(), asset.key.to_string());
        }
    }
    graph
}

fn column_graph(root: String, columns: &BTreeMap<AssetKey, OutputColumns>) -> Graph {
    let mut graph = Graph { root, upstream: BTreeMap::new(), downstream: BTreeMap::new() };
    for (asset, columns) in columns {
        for column in columns.iter().flatten() {
            for source in &column.sources {
                graph.edge(format!("{}.{}", source.asset, source.column), format!("{asset}.{}", column.name.to_lowercase()));
            }
        }
    }
    graph
}

/// Every column of an asset with the columns of sources that it comes from in the end.
fn all_columns(context: &Context<'_>, opened: &Opened, key: &AssetKey) {
    let all = opened.project.all_columns();
    let mut table = crate::printer::Table::new("column_lineage", &["column", "from", "origin"]);
    let Some(Some(columns)) = all.get(key) else {
        context
            .printer
            .note(&format!("the columns of `{key}` are not known: declare them under `columns:`, or name them in its query"));
        return;
    };
    for column in columns {
        let direct: Vec<String> = column.sources.iter().map(|source| format!("{}.{}", source.asset, source.column)).collect();
        let graph = column_graph(format!("{key}.{}", column.name.to_lowercase()), &all);
        let edges = graph.edges(None, Some(0));
        let targets: BTreeSet<&String> = edges.iter().map(|(_, to)| to).collect();
        let origins: Vec<&str> = edges
            .iter()
            .map(|(from, _)| from)
            .filter(|from| !targets.contains(from))
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        table.rows.push(vec![json!(column.name), json!(direct.join(" ")), json!(origins.join(" "))]);
    }
    context.printer.table(&table);
}

fn print(context: &Context<'_>, args: &LineageArgs, graph: &Graph) {
    let edges = graph.edges(args.up, args.down);
    let is_json = args.format == LineageFormat::Json || context.printer.format != Format::Human;
    if is_json {
        let nodes: BTreeSet<&str> =
            edges.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]).chain([graph.root.as_str()]).collect();
        let edges: Vec<_> = edges.iter().map(|(from, to)| json!({ "from": from, "to": to })).collect();
        let object = json!({ "version": 1, "kind": "lineage", "root": graph.root, "nodes": nodes, "edges": edges });
        context.printer.out(&format!("{object:#}"));
    } else if args.format == LineageFormat::Mermaid {
        context.printer.out("flowchart LR");
        let id = |name: &str| name.replace('.', "__");
        context.printer.out(&format!("  {}[\"{}\"]", id(&graph.root), graph.root));
        for (from, to) in &edges {
            context.printer.out(&format!("  {}[\"{from}\"] --> {}[\"{to}\"]", id(from), id(to)));
        }
    } else {
        let mut lines = vec![graph.root.clone()];
        for (title, map, depth) in [("upstream", &graph.upstream, args.up), ("downstream", &graph.downstream, args.down)] {
            if depth != Some(0) && map.contains_key(&graph.root) {
                lines.push(format!("├ {title}"));
                tree(map, &graph.root, "│ ", depth.unwrap_or(usize::MAX), &mut BTreeSet::new(), &mut lines);
            }
        }
        for line in lines {
            context.printer.out(&line);
        }
    }
}

fn tree(
    map: &BTreeMap<String, BTreeSet<String>>,
    name: &str,
    indent: &str,
    left: usize,
    shown: &mut BTreeSet<String>,
    lines: &mut Vec<String>,
) {
    let children: Vec<&String> = map.get(name).into_iter().flatten().filter(|_| left > 0).collect();
    for (at, child) in children.iter().enumerate() {
        let is_last = at + 1 == children.len();
        let is_new = shown.insert((*child).clone());
        let more = if is_new || !map.contains_key(*child) { "" } else { "  (above)" };
        lines.push(format!("{indent}{} {child}{more}", if is_last { "└" } else { "├" }));
        if is_new {
            tree(map, child, &format!("{indent}{} ", if is_last { " " } else { "│" }), left - 1, shown, lines);
        }
    }
}
