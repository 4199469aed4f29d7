//! `subak docs`: the documentation of exactly this version, offline.

use include_dir::{Dir, include_dir};
use serde_json::json;

use super::Context;
use crate::args::{DocsArgs, SchemaKind};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project;

static DOCS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../docs");

/// The text of a page by its path without ending.
pub(super) fn page(topic: &str) -> Option<&'static str> {
    DOCS.get_file(format!("{topic}.md"))?.contents_utf8()
}

fn topics(folder: &Dir<'static>, found: &mut Vec<(String, String)>) {
    for file in folder.files() {
        let path = file.path().display().to_string();
        if let (Some(topic), Some(text)) = (path.strip_suffix(".md"), file.contents_utf8()) {
            let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(topic);
            found.push((topic.to_owned(), title.to_owned()));
        }
    }
    for folder in folder.dirs() {
        topics(folder, found);
    }
}

/// All pages by name, with their titles.
fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    topics(&DOCS, &mut found);
    found.sort();
    found
}

/// The pages that a list shows: without those of single errors and decisions.
pub(super) fn listed() -> Vec<(String, String)> {
    let is_listed = |topic: &str| !topic.starts_with("reference/errors/") && !topic.starts_with("decisions/");
    all().into_iter().filter(|(topic, _)| is_listed(topic)).collect()
}

/// A page by its name, of which the last part is enough where it is clear: name, title and text.
pub(super) fn find(wanted: &str) -> Option<(String, String, &'static str)> {
    let found = all();
    let by_name = found.iter().find(|(topic, _)| topic == wanted);
    let found = by_name.or_else(|| found.iter().find(|(topic, _)| topic.rsplit('/').next() == Some(wanted)));
    let (topic, title) = found?.clone();
    let text = page(&topic)?;
    Some((topic, title, text))
}

pub(super) fn execute(context: &Context<'_>, args: &DocsArgs) -> Result<Exit, CliError> {
    if let Some(kind) = args.json_schema {
        let connectors = project::connectors();
        let schema = match kind {
            SchemaKind::Project => subak_project::schema::project(&connectors),
            SchemaKind::Tests => subak_project::schema::tests(&connectors),
            SchemaKind::Jobs => subak_project::schema::jobs(&connectors),
            SchemaKind::Assets => subak_project::schema::assets(&connectors),
            SchemaKind::HttpApi => super::server::description(),
        };
        context.printer.out(&format!("{schema:#}"));
        return Ok(Exit::Ok);
    }
    let Some(wanted) = &args.topic else {
        let mut table = Table::new("topics", &["topic", "title"]);
        table.rows = listed().iter().map(|(topic, title)| vec![json!(topic), json!(title)]).collect();
        context.printer.table(&table);
        return Ok(Exit::Ok);
    };
    match find(wanted) {
        Some((.., text)) => context.printer.out(text.trim_end()),
        None => {
            let found = all();
            let names = found.iter().flat_map(|(topic, _)| [topic.as_str(), topic.rsplit('/').next().unwrap_or(topic)]);
            return Err(CliError::not_found("topic", wanted, names));
        }
    }
    Ok(Exit::Ok)
}
