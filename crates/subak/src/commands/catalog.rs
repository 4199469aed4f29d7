//! `subak catalog`: what there is, what it means and where it comes from, as one page for readers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use subak_connect::{ConnectError, Connection, TableName, convert};
use subak_domain::{Asset, AssetKey, ConnectionName, Definition};
use subak_project::OutputColumns;

use super::{Context, select, show};
use crate::args::{Format, Selection};
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::project::Opened;

/// One column of an asset.
struct Described {
    name: String,
    /// Its type in the table; `None` when the table is not made yet and nobody declared it.
    data_type: Option<String>,
    meaning: Option<String>,
    sources: Vec<String>,
}

pub(super) fn execute(context: &Context<'_>, args: &Selection) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let snapshot = context.snapshot(&opened)?;
    let selected = select(&opened, &snapshot, args)?;
    let assets: Vec<&Asset> = opened.graph().assets().iter().filter(|asset| selected.assets.contains(&asset.key)).collect();
    let made: Vec<&Asset> = assets.iter().copied().filter(|asset| snapshot.latest.contains_key(&asset.key)).collect();
    let types = if made.is_empty() { HashMap::new() } else { context.block_on(stored_types(context, &opened, &made))? };
    let known = opened.project.all_columns();
    let described: Vec<(&Asset, Vec<Described>)> =
        assets.into_iter().map(|asset| (asset, columns(asset, types.get(&asset.key), known.get(&asset.key)))).collect();
    if context.printer.format == Format::Human {
        context.printer.out(page(&opened, &described).trim_end());
        return Ok(Exit::Ok);
    }
    let objects: Vec<Value> = described.iter().map(|(asset, columns)| object(asset, columns)).collect();
    context.printer.object("catalog", &json!({ "project": opened.project.config.project, "assets": objects }), "");
    Ok(Exit::Ok)
}

/// The columns of the tables as they are now, with their types. What cannot be asked is left out with a note.
async fn stored_types(
    context: &Context<'_>,
    opened: &Opened,
    assets: &[&Asset],
) -> Result<HashMap<AssetKey, Vec<(String, String)>>, CliError> {
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    let mut by_connection: BTreeMap<&ConnectionName, Vec<&Asset>> = BTreeMap::new();
    for asset in assets {
        if let Some(name) = asset.stored_in() {
            by_connection.entry(name).or_default().push(asset);
        }
    }
    let mut types = HashMap::new();
    for (name, assets) in by_connection {
        let tables: Vec<TableName> = assets.iter().map(|asset| TableName::of(&asset.key)).collect();
        let look = async || -> Result<_, ConnectError> {
            let connection = subak_engine::Connections::open(&connections, name).await?;
            let existing = match connection.sink() {
                Some(sink) => sink.existing(&tables).await?,
                None => BTreeSet::new(),
            };
            Ok((connection, existing))
        };
        let (connection, existing) = match look().await {
            Ok(found) => found,
            Err(error) => {
                context.printer.note(&format!("types in `{name}` are those that are declared: {error}"));
                continue;
            }
        };
        for (asset, table) in assets.into_iter().zip(&tables).filter(|(_, table)| existing.contains(table)) {
            match columns_of(connection.as_ref(), table).await {
                Ok(found) => types.extend(found.map(|found| (asset.key.clone(), found))),
                Err(error) => context.printer.note(&format!("types of `{}` are those that are declared: {error}", asset.key)),
            }
        }
    }
    Ok(types)
}

/// The columns of one table: as its SQL describes them, else as its sink does.
async fn columns_of(connection: &dyn Connection, table: &TableName) -> Result<Option<Vec<(String, String)>>, ConnectError> {
    let found = match (connection.sql(), connection.sink()) {
        (Some(sql), _) => sql.describe_query(&format!("select * from {}", sql.dialect().table(table))).await?,
        (None, Some(sink)) => match sink.describe(table).await? {
            Some(info) => convert::columns_of(&info.schema),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    Ok(Some(found.into_iter().map(|column| (column.name, column.data_type.to_string())).collect()))
}

fn columns(asset: &Asset, stored: Option<&Vec<(String, String)>>, known: Option<&OutputColumns>) -> Vec<Described> {
    let known: Vec<_> = known.into_iter().flatten().flatten().collect();
    let declared = match &asset.definition {
        Definition::Ingest(ingest) | Definition::Seed(ingest) => Some(&ingest.columns),
        Definition::Script(script) => script.output.as_ref().map(|output| &output.columns),
        _ => None,
    };
    let named: Vec<(String, Option<String>)> = match stored {
        Some(stored) => stored.iter().map(|(name, data_type)| (name.clone(), Some(data_type.clone()))).collect(),
        None if !known.is_empty() => known.iter().map(|column| (column.name.clone(), None)).collect(),
        None => asset.columns.keys().map(|name| (name.clone(), None)).collect(),
    };
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let describe = |(name, data_type): (String, Option<String>)| {
        let sources = known
            .iter()
            .filter(|column| same(&column.name, &name))
            .flat_map(|column| column.sources.iter().map(|source| format!("{}.{}", source.asset, source.column)))
            .collect();
        Described {
            data_type: data_type.or_else(|| {
                let (_, declared) = declared?.iter().find(|(known, _)| same(known, &name))?;
                Some(declared.to_string())
            }),
            meaning: asset.columns.iter().find(|(known, _)| same(known, &name)).map(|(_, meaning)| meaning.clone()),
            sources,
            name,
        }
    };
    named.into_iter().map(describe).collect()
}

fn object(asset: &Asset, columns: &[Described]) -> Value {
    let columns: Vec<Value> = columns
        .iter()
        .map(|column| json!({ "name": column.name, "type": column.data_type, "meaning": column.meaning, "from": column.sources }))
        .collect();
    let names = |keys: &[AssetKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "asset": asset.key.as_str(), "asset_kind": asset.definition.kind(), "description": asset.description,
        "owner": asset.owner, "group": asset.group, "tags": asset.tags, "path": asset.path, "upstream": names(&asset.upstream),
        "columns": columns, "checks": asset.checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(),
    })
}

/// The whole catalogue in Markdown.
fn page(opened: &Opened, described: &[(&Asset, Vec<Described>)]) -> String {
    let mut page =
        format!("# Data catalog of {}\n\n| asset | kind | what it is |\n|---|---|---|\n", cell(&opened.project.config.project));
    for (asset, _) in described {
        let about = asset.description.as_deref().unwrap_or_default();
        let link = asset.key.as_str().replace('.', "");
        page.push_str(&format!("| [`{}`](#{link}) | {} | {} |\n", asset.key, asset.definition.kind(), cell(about)));
    }
    for (asset, columns) in described {
        page.push_str(&format!("\n## `{}`\n\n", asset.key));
        if let Some(about) = &asset.description {
            page.push_str(&format!("{}\n\n", about.trim()));
        }
        let mut fact = |name: &str, value: String| {
            if !value.is_empty() {
                page.push_str(&format!("- {name}: {value}\n"));
            }
        };
        fact("made from", show::definition(asset));
        fact("reads", asset.upstream.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "));
        fact("owner", asset.owner.clone().unwrap_or_default());
        fact("tags", asset.tags.iter().cloned().collect::<Vec<_>>().join(", "));
        fact("checks", asset.checks.iter().map(|check| format!("`{}`", check.name)).collect::<Vec<_>>().join(", "));
        fact("file", format!("`{}`", asset.path));
        if columns.is_empty() {
            continue;
        }
        page.push_str("\n| column | type | meaning | from |\n|---|---|---|---|\n");
        for column in columns {
            let from = column.sources.iter().map(|source| format!("`{}`", cell(source))).collect::<Vec<_>>().join(", ");
            page.push_str(&format!(
                "| `{}` | {} | {} | {from} |\n",
                cell(&column.name),
                cell(column.data_type.as_deref().unwrap_or_default()),
                cell(column.meaning.as_deref().unwrap_or_default())
            ));
        }
    }
    page
}

/// A text inside a table of Markdown.
fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}
