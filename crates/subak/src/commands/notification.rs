//! `subak notification`: what people were told, and whether they can be told.

use std::sync::Arc;

use serde_json::json;
use subak_domain::{NoticeState, Timestamp};

use super::Context;
use crate::args::NotificationCommand;
use crate::exit::{CliError, Exit};
use crate::notices::Teller;
use crate::open::ProjectConnections;
use crate::printer::Table;

pub(super) fn execute(context: &Context<'_>, command: &NotificationCommand) -> Result<Exit, CliError> {
    match command {
        NotificationCommand::List(args) => list(context, args.limit),
        NotificationCommand::Test(args) => test(context, &args.receiver),
    }
}

fn list(context: &Context<'_>, limit: usize) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let mut table = Table::new("notices", &["made_at", "run", "occasion", "receiver", "state", "text", "asset"]);
    let text = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if let Some(store) = opened.store_if_there()? {
        for notice in store.notices(limit)? {
            let (state, said) = match notice.state {
                NoticeState::Open { error: None, .. } => ("open", String::new()),
                NoticeState::Open { due_at, error: Some(error), .. } => ("open", format!("again at {}: {error}", text(due_at))),
                NoticeState::Sent { at } => ("sent", format!("at {}", text(at))),
                NoticeState::Failed { error } => ("failed", error),
            };
            table.rows.push(vec![
                json!(text(notice.made_at)),
                json!(notice.run.to_string()),
                json!(notice.occasion.as_str()),
                json!(notice.receiver),
                json!(state),
                json!(said),
                json!(notice.asset.as_ref().map(subak_domain::AssetKey::as_str)),
            ]);
        }
    }
    if table.rows.is_empty() {
        context.printer.note("nobody was told anything yet; see `on_failure:` of jobs and `freshness:` of assets");
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

fn test(context: &Context<'_>, receiver: &str) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let config = &opened.project.config;
    if !config.receivers.contains_key(receiver) {
        return Err(CliError::not_found("receiver", receiver, config.receivers.keys().map(String::as_str)));
    }
    let connections = Arc::new(ProjectConnections::new(&opened.root, config, context.settings, true));
    context.block_on(async { Ok(Teller::new(connections).test(&config.project, receiver).await?) })?;
    context.printer.note(&format!("`{receiver}` has taken a test message"));
    Ok(Exit::Ok)
}
