//! `subak quarantine`: rows that were refused.

use std::collections::BTreeMap;

use serde_json::json;
use subak_connect::reject::RejectStatus;
use subak_connect::{ConnectError, Connection, Quarantine, StoredReject, TableName};
use subak_diag::{Diagnostic, codes};
use subak_domain::{Action, Asset, AssetKey, Definition, Reason, StepId};
use subak_engine::{Clock, Connections, SystemClock};

use super::run::{self, Hold};
use super::{Context, select};
use crate::args::{QuarantineCommand, QuarantineDiscardArgs, QuarantineReplayArgs, QuarantineShowArgs, RejectWord, Selection};
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::{Table, count};
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, command: &QuarantineCommand) -> Result<Exit, CliError> {
    match command {
        QuarantineCommand::List(selection) => list(context, selection),
        QuarantineCommand::Show(args) => show(context, args),
        QuarantineCommand::Replay(args) => replay(context, args),
        QuarantineCommand::Discard(args) => discard(context, args),
    }
}

/// The asset with this key; only ingests have rejects.
pub(super) fn ingest<'a>(opened: &'a Opened, key: &str) -> Result<&'a Asset, CliError> {
    let assets = opened.graph().assets();
    let is_ingest = |asset: &&Asset| matches!(asset.definition, Definition::Ingest(_) | Definition::Seed(_));
    let known = || assets.iter().filter(is_ingest).map(|asset| asset.key.as_str());
    let found =
        assets.iter().find(|asset| asset.key.as_str() == key).ok_or_else(|| CliError::not_found("asset", key, known()))?;
    if is_ingest(&found) {
        return Ok(found);
    }
    let problem = Diagnostic::error(codes::NOT_FOUND, format!("`{key}` is made by a query, and only loads refuse rows"));
    Err(CliError::new(problem.help("`subak quarantine list` shows where there are rejects"), Exit::Invalid))
}

fn connections(context: &Context<'_>, opened: &Opened, is_read_only: bool) -> ProjectConnections {
    ProjectConnections::new(&opened.root, &opened.project.config, context.settings, is_read_only)
}

fn list(context: &Context<'_>, selection: &Selection) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let selected = select(&opened, &context.snapshot(&opened)?, selection)?;
    let connections = connections(context, &opened, true);
    let mut table = Table::new("quarantine", &["asset", "open", "replayed", "discarded", "table"]);
    context.block_on(async {
        for asset in opened.graph().assets().iter().filter(|asset| selected.assets.contains(&asset.key)) {
            let Some(name) = asset.stored_in().filter(|_| matches!(asset.definition, Definition::Ingest(_))) else { continue };
            let connection = match connections.open(name).await {
                Ok(connection) => connection,
                Err(error) if error.kind == subak_connect::ConnectErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(quarantine) = connection.quarantine() else { continue };
            let place = TableName::of(&asset.key);
            let [open, replayed, discarded] = quarantine.count(&place).await?;
            if open + replayed + discarded > 0 {
                let name = subak_connect::reject::table_of(&place).to_string();
                table.rows.push(vec![json!(asset.key.as_str()), json!(open), json!(replayed), json!(discarded), json!(name)]);
            }
        }
        Ok(())
    })?;
    if table.rows.is_empty() {
        context.printer.note("no row was refused");
        if context.printer.format == crate::args::Format::Human {
            return Ok(Exit::Ok);
        }
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

async fn rejects(
    connections: &ProjectConnections,
    asset: &Asset,
    status: RejectStatus,
    limit: u64,
) -> Result<Vec<StoredReject>, CliError> {
    let Some(name) = asset.stored_in() else { return Ok(Vec::new()) };
    let connection = connections.open(name).await?;
    Ok(rejects_in(connection.as_ref(), asset, status, limit).await?)
}

/// The rejects of an asset, oldest first, at most `limit`.
pub(super) async fn rejects_in(
    connection: &dyn Connection,
    asset: &Asset,
    status: RejectStatus,
    limit: u64,
) -> Result<Vec<StoredReject>, ConnectError> {
    let Some(quarantine) = connection.quarantine() else { return Ok(Vec::new()) };
    quarantine.rejects(&TableName::of(&asset.key), status, limit).await
}

fn show(context: &Context<'_>, args: &QuarantineShowArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let asset = ingest(&opened, &args.key)?;
    let status = match args.status {
        RejectWord::Open => RejectStatus::Open,
        RejectWord::Replayed => RejectStatus::Replayed,
        RejectWord::Discarded => RejectStatus::Discarded,
    };
    let connections = connections(context, &opened, true);
    let limit = if args.limit == 0 { u64::MAX } else { args.limit.saturating_add(1) };
    let mut found = context.block_on(rejects(&connections, asset, status, limit))?;
    let is_cut = args.limit > 0 && found.len() as u64 > args.limit;
    found.truncate(usize::try_from(args.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX));
    let mut table = Table::new("rejects", &["id", "place", "reason", "column", "value", "run", "row"]);
    for stored in &found {
        table.rows.push(vec![
            json!(stored.id),
            json!(stored.reject.place()),
            json!(stored.reject.reason),
            json!(stored.reject.column),
            json!(stored.reject.value),
            json!(stored.run),
            json!(stored.reject.row),
        ]);
    }
    if found.is_empty() {
        context.printer.note(&format!("`{}` has no {} rejects", asset.key, status.as_str()));
    }
    if !found.is_empty() || context.printer.format != crate::args::Format::Human {
        context.printer.table(&table);
    }
    if is_cut {
        context.printer.note(&format!("the first {}; `--limit 0` shows all", count(args.limit)));
    }
    if status == RejectStatus::Open && !found.is_empty() {
        let key = &asset.key;
        context.printer.note(&format!(
            "load them after all: `subak quarantine replay {key} [ID --set COLUMN=VALUE]`; or `subak quarantine discard {key} ID`"
        ));
    }
    Ok(Exit::Ok)
}

/// The ids that are meant, all of which must be open.
pub(super) fn wanted(asset: &AssetKey, open: &[StoredReject], ids: &[String]) -> Result<Vec<String>, CliError> {
    if ids.is_empty() {
        return Ok(open.iter().map(|stored| stored.id.clone()).collect());
    }
    let known: std::collections::BTreeSet<&str> = open.iter().map(|stored| stored.id.as_str()).collect();
    for id in ids {
        if !known.contains(id.as_str()) {
            let known = open.iter().map(|stored| stored.id.as_str());
            let mut error = CliError::not_found(&format!("open reject of `{asset}`"), id, known);
            for problem in &mut error.problems {
                problem.help.push(format!("`subak quarantine show {asset}` lists them"));
            }
            return Err(error);
        }
    }
    Ok(ids.to_vec())
}

/// Refuses what cannot be loaded again row by row.
pub(super) fn may_be_replayed(asset: &Asset) -> Result<(), CliError> {
    if asset.partitioning.is_some() {
        // The next run of its partition would take such a row away, or double it.
        let message = format!("`{}` has partitions, and a row that is loaded beside them does not stay", asset.key);
        let problem = Diagnostic::error(codes::USAGE, message).data("nothing was loaded");
        let help = format!(
            "correct the source and run the partition again: `subak run {} --partition KEY`; then discard the reject",
            asset.key
        );
        return Err(CliError::new(problem.help(help), Exit::Invalid));
    }
    Ok(())
}

/// The action that loads rejects again, with other values where these are named; an empty one is NULL.
pub(super) fn replay_of(asset: &Asset, rejects: Vec<String>, values: impl Iterator<Item = (String, String)>) -> Action {
    let values: BTreeMap<String, Option<String>> =
        values.map(|(name, text)| (name, Some(text).filter(|text| !text.is_empty()))).collect();
    let work = subak_domain::Work::Replay { asset: asset.key.clone(), rejects, values };
    let (step, rule) = (StepId::asset(&asset.key), subak_domain::Rule::default());
    Action { step, work, reason: Reason::Selected, needs: Vec::new(), rule }
}

fn replay(context: &Context<'_>, args: &QuarantineReplayArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let asset = ingest(&opened, &args.key)?;
    may_be_replayed(asset)?;
    let connections = connections(context, &opened, true);
    let open = context.block_on(rejects(&connections, asset, RejectStatus::Open, u64::MAX))?;
    drop(connections);
    let ids = wanted(&asset.key, &open, &args.ids)?;
    if ids.is_empty() {
        context.printer.note(&format!("`{}` has no open rejects", asset.key));
        return Ok(Exit::Ok);
    }
    let action = replay_of(asset, ids, args.set.iter().cloned());
    let selection = format!("quarantine replay {}", asset.key);
    context.block_on(run::work(context, &opened, run::Work::of(vec![action], selection), &args.how))
}

fn discard(context: &Context<'_>, args: &QuarantineDiscardArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let asset = ingest(&opened, &args.key)?;
    let done = context.block_on(async {
        let hold = Hold::take(context, &opened, &args.how).await?;
        let connections = connections(context, &opened, false);
        let result = mark(&connections, asset, args).await;
        hold.give_back().await?;
        result
    })?;
    context.printer.note(&format!("{} rejects of `{}` are discarded; they stay in its table of rejects", count(done), asset.key));
    Ok(Exit::Ok)
}

async fn mark(connections: &ProjectConnections, asset: &Asset, args: &QuarantineDiscardArgs) -> Result<u64, CliError> {
    let open = rejects(connections, asset, RejectStatus::Open, u64::MAX).await?;
    let ids = wanted(&asset.key, &open, &args.ids)?;
    let Some(name) = asset.stored_in() else { return Ok(0) };
    let connection = connections.open(name).await?;
    let Some(quarantine) = connection.quarantine() else { return Ok(0) };
    let quarantine: &dyn Quarantine = quarantine;
    Ok(quarantine.discard(&TableName::of(&asset.key), &ids, &SystemClock.now().to_string()).await?)
}
