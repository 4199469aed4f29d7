//! `subak show`.

use serde_json::{Value, json};
use subak_domain::job::{Command, Program, TaskWork};
use subak_domain::{Asset, Definition};

use super::{Context, list};
use crate::args::KeyArgs;
use crate::exit::{CliError, Exit};
use crate::freshness;
use crate::printer::{count, counted};
use crate::project::Opened;

/// The asset of this name, or an error with the nearest one.
pub(super) fn find<'a>(opened: &'a Opened, name: &str) -> Result<&'a Asset, CliError> {
    let found = name.parse().ok().and_then(|key| opened.graph().get(&key));
    found.ok_or_else(|| CliError::not_found("asset", name, opened.graph().assets().iter().map(|asset| asset.key.as_str())))
}

pub(super) fn execute(context: &Context<'_>, args: &KeyArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let asset = find(&opened, &args.key)?;
    let snapshot = context.snapshot(&opened)?;
    let (status, reason) = list::status(&opened, &snapshot, asset);
    let fresh = freshness::of(asset, &snapshot, opened.now());
    let latest = snapshot.latest.get(&asset.key);
    let columns = opened.project.columns(&asset.key);
    let downstream: Vec<&str> = opened.graph().downstream(&asset.key).map(|asset| asset.key.as_str()).collect();
    let upstream: Vec<&str> = asset.upstream.iter().map(subak_domain::AssetKey::as_str).collect();
    let checks: Vec<&str> = asset.checks.iter().map(|check| check.name.as_str()).collect();

    let mut lines = vec![format!(
        "{}  ({}, {status}{})",
        asset.key,
        asset.definition.kind(),
        reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
    )];
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<12} {value}"));
        }
    };
    line("about", asset.description.clone().unwrap_or_default());
    line("file", asset.path.clone());
    line("made from", definition(asset));
    line("owner", asset.owner.clone().unwrap_or_default());
    line("group", asset.group.clone());
    line("tags", asset.tags.iter().cloned().collect::<Vec<_>>().join(", "));
    line("upstream", upstream.join(", "));
    line("downstream", downstream.join(", "));
    line("checks", checks.join(", "));
    line("freshness", asset.freshness.as_ref().map(freshness::words_of).unwrap_or_default());
    line("version", asset.version.to_string());
    if let Some(latest) = latest {
        line("rows", latest.row_count.map(count).unwrap_or_default());
        line("changed", format!("{} by run {}", latest.at.strftime("%Y-%m-%d %H:%M:%S UTC"), latest.run));
        line("confirmed", latest.confirmed_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    }
    let shown_columns: Vec<Value> = columns
        .iter()
        .flatten()
        .map(|column| {
            let sources: Vec<String> =
                column.sources.iter().map(|source| format!("{}.{}", source.asset, source.column)).collect();
            json!({ "name": column.name, "from": sources })
        })
        .collect();
    if let Some(columns) = &columns {
        lines.push("  columns".to_owned());
        for column in columns {
            let sources: Vec<String> =
                column.sources.iter().map(|source| format!("{}.{}", source.asset, source.column)).collect();
            let from = if sources.is_empty() { String::new() } else { format!("  ← {}", sources.join(", ")) };
            lines.push(format!("    {}{from}", column.name));
        }
    }
    let object = json!({
        "asset": asset.key.as_str(), "asset_kind": asset.definition.kind(), "status": status, "reason": reason, "path": asset.path,
        "description": asset.description, "owner": asset.owner, "group": asset.group, "tags": asset.tags, "upstream": upstream,
        "downstream": downstream, "checks": checks, "asset_version": asset.version.as_str(), "columns": shown_columns,
        "row_count": latest.and_then(|latest| latest.row_count),
        "freshness": fresh.map(|fresh| json!({ "status": fresh.status.as_str(), "late_at": fresh.late_at.map(|at| at.to_string()) })),
        "changed_at": latest.map(|latest| latest.at.to_string()), "run": latest.map(|latest| latest.run.to_string()),
    });
    context.printer.object("asset", &object, &lines.join("\n"));
    Ok(Exit::Ok)
}

fn in_words(program: &Program) -> String {
    let words = match &program.command {
        Command::Shell(line) => line.clone(),
        Command::Direct(words) | Command::Python(words) => words.join(" "),
    };
    format!("the program `{words}`")
}

/// How an asset is made, for people.
pub(super) fn definition(asset: &Asset) -> String {
    match &asset.definition {
        Definition::Ingest(ingest) => {
            let cursor = ingest.cursor.as_ref().map(|cursor| format!(", cursor `{}`", cursor.column)).unwrap_or_default();
            format!("stream `{}` of `{}`, {}{cursor}, into `{}`", ingest.stream, ingest.from, ingest.mode.as_str(), ingest.to)
        }
        Definition::Seed(ingest) => format!("the file `{}`, into `{}`", ingest.stream, ingest.to),
        Definition::Sql(sql) => format!("a query on `{}`, stored as {}", sql.on, sql.stored_as.as_str()),
        Definition::Script(script) => match &script.output {
            Some(output) => format!("{}, {} into `{}`", in_words(&script.program), output.mode.as_str(), output.to),
            None => format!("{}, which keeps its data itself", in_words(&script.program)),
        },
        Definition::Dbt(node) => {
            let tests = if node.tests.is_empty() {
                String::new()
            } else {
                format!(", with {}", counted(node.tests.len() as u64, "test"))
            };
            format!("`{}` of dbt, built in `{}`{tests}", node.id, node.on)
        }
        Definition::Graph(made) => {
            format!("{}, which keep its table in `{}`", counted(made.actions.len() as u64, "task"), made.on)
        }
        Definition::External { observe } => match observe.as_deref() {
            None => "something outside".to_owned(),
            Some(TaskWork::Query { on, .. }) => format!("something outside, which is observed by a query on `{on}`"),
            Some(TaskWork::Http(call)) => format!("something outside, which is observed by `{}`", call.url),
            Some(TaskWork::Run(program)) => format!("something outside, which is observed by {}", in_words(program)),
            Some(_) => "something outside, which is observed".to_owned(),
        },
    }
}
