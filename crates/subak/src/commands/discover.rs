//! `subak discover`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use subak_connect::StreamInfo;
use subak_diag::{Diagnostic, codes};
use subak_domain::ConnectionName;
use subak_engine::Connections;
use subak_project::Config;
use subak_project::found::{self, FoundAt, FoundStream, Lock, StreamPattern};

use super::Context;
use crate::args::{DiscoverArgs, Format};
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::Table;
use crate::project;

/// Columns that the table for people names.
const SHOWN_MAX: usize = 6;

pub(super) fn execute(context: &Context<'_>, args: &DiscoverArgs) -> Result<Exit, CliError> {
    let root = project::find_root(context.global)?;
    let loaded = project::load(&root, context.global, context.settings);
    // Patterns that cannot be resolved yet are what this command is for; what is wrong elsewhere is no reason not to look.
    let Some(config) = loaded.config else {
        return Err(CliError { problems: loaded.problems, sources: loaded.sources, exit: Exit::Invalid });
    };
    let connections = ProjectConnections::new(&root, &config, context.settings, true);
    if args.save || args.check {
        return context.block_on(save(context, args.check, &root, &connections, loaded.patterns));
    }
    let name = named(&config, args)?;
    let streams = context.block_on(streams(&connections, &name))?;
    let pattern = StreamPattern {
        path: String::new(),
        from: name.clone(),
        include: args.like.clone().unwrap_or_else(|| "*".to_owned()),
        exclude: Vec::new(),
    };
    let is_wanted = |stream: &&StreamInfo| args.like.is_none() || pattern.names(&stream.name);
    let mut table = Table::new("streams", &["stream", "primary_key", "columns"]);
    for stream in streams.iter().filter(is_wanted) {
        table.rows.push(row(stream, context.printer.format == Format::Human));
    }
    if table.rows.is_empty() {
        context.printer.note(&format!("`{name}` names no such stream"));
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

fn named(config: &Config, args: &DiscoverArgs) -> Result<ConnectionName, CliError> {
    let Some(text) = &args.connection else {
        let problem = Diagnostic::error(codes::USAGE, "no connection is named");
        let names: Vec<String> = config.connections.keys().map(|name| format!("`{name}`")).collect();
        let help = format!("name one of {}, or write what patterns name with `--save`", names.join(", "));
        return Err(CliError::new(problem.help(help), Exit::Invalid));
    };
    config
        .connections
        .keys()
        .find(|name| name.as_str() == text)
        .cloned()
        .ok_or_else(|| CliError::not_found("connection", text, config.connections.keys().map(ConnectionName::as_str)))
}

async fn streams(connections: &ProjectConnections, name: &ConnectionName) -> Result<Vec<StreamInfo>, CliError> {
    let connection = connections.open(name).await?;
    let source = connection.source().ok_or_else(|| {
        let problem = Diagnostic::error(codes::LACKS_ABILITY, format!("connection `{name}` cannot be read"));
        CliError::new(problem.help("`subak docs connectors` shows what each type can do"), Exit::Invalid)
    })?;
    Ok(source.discover().await?)
}

/// People see a few columns, programs all of them.
fn row(stream: &StreamInfo, is_human: bool) -> Vec<Value> {
    let columns: Vec<String> = stream.columns.iter().map(|column| format!("{} {}", column.name, column.data_type)).collect();
    if !is_human {
        return vec![json!(stream.name), json!(stream.primary_key), json!(columns)];
    }
    let more = columns.len().saturating_sub(SHOWN_MAX);
    let mut shown = columns.into_iter().take(SHOWN_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        shown.push_str(&format!(", and {more} more"));
    }
    vec![json!(stream.name), json!(stream.primary_key.join(", ")), json!(shown)]
}

/// Writes, or with `is_check` only compares, the files of found streams.
async fn save(
    context: &Context<'_>,
    is_check: bool,
    root: &std::path::Path,
    connections: &ProjectConnections,
    patterns: Vec<StreamPattern>,
) -> Result<Exit, CliError> {
    if patterns.is_empty() {
        context.printer.note("no stream of the project is a pattern, such as `public.*`");
    }
    let mut files: BTreeMap<String, Vec<StreamPattern>> = BTreeMap::new();
    for pattern in patterns {
        files.entry(found::lock_path(&pattern.path)).or_default().push(pattern);
    }
    let mut is_other = false;
    for (path, patterns) in files {
        let mut sources: BTreeMap<ConnectionName, Vec<StreamPattern>> = BTreeMap::new();
        for pattern in patterns {
            sources.entry(pattern.from.clone()).or_default().push(pattern);
        }
        let mut now = Lock::new();
        for (from, patterns) in sources {
            let all = streams(connections, &from).await?;
            let wanted = all.iter().filter(|stream| patterns.iter().any(|pattern| pattern.names(&stream.name)));
            let mut found: Vec<FoundStream> = wanted.map(found_stream).collect();
            found.sort_by(|a, b| a.name.cmp(&b.name));
            let looked_for = patterns.into_iter().map(|pattern| (pattern.include, pattern.exclude)).collect();
            now.insert(from.to_string(), FoundAt { patterns: looked_for, streams: found });
        }
        let file = root.join(&path);
        let known = std::fs::read_to_string(&file).unwrap_or_default();
        let text = found::write_lock(&now);
        is_other |= known != text;
        if known != text && !is_check {
            write(&file, &text).map_err(|error| {
                let problem = Diagnostic::error(codes::RESOURCE, format!("`{path}` cannot be written"));
                CliError::new(problem.caused_by(error.to_string()), Exit::Failed)
            })?;
        }
        let all = |lock: Lock| lock.into_values().flat_map(|found| found.streams).collect::<Vec<_>>();
        let before = found::read_lock(&known).map(all).unwrap_or_default();
        context.printer.say(&format!("{path}: {}", difference(&before, &all(now))));
    }
    Ok(if is_check && is_other { Exit::Changes } else { Exit::Ok })
}

fn found_stream(stream: &StreamInfo) -> FoundStream {
    FoundStream {
        name: stream.name.clone(),
        primary_key: stream.primary_key.clone(),
        columns: stream.columns.iter().map(|column| (column.name.clone(), column.data_type.to_string())).collect(),
    }
}

/// All of it or nothing.
fn write(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("lock.{}~", std::process::id()));
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

fn difference(before: &[FoundStream], now: &[FoundStream]) -> String {
    let named = |streams: &[FoundStream], name: &str| streams.iter().find(|stream| stream.name == name).cloned();
    let list =
        |word: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!("{} {word}: {}", names.len(), names.join(", ")));
    let new = now.iter().filter(|stream| named(before, &stream.name).is_none()).map(|stream| stream.name.as_str());
    let gone = before.iter().filter(|stream| named(now, &stream.name).is_none()).map(|stream| stream.name.as_str());
    let other = now.iter().filter(|stream| named(before, &stream.name).is_some_and(|known| known != **stream));
    let parts: Vec<String> = [
        list("new", new.collect()),
        list("gone", gone.collect()),
        list("with other columns", other.map(|stream| stream.name.as_str()).collect()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let all = if now.len() == 1 { "1 stream".to_owned() } else { format!("{} streams", now.len()) };
    if parts.is_empty() { format!("{all}, nothing new") } else { format!("{all}; {}", parts.join("; ")) }
}
