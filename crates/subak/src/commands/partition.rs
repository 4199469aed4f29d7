//! `subak partition`: the partitions of an asset, and sets of them that grow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use subak_diag::{Diagnostic, codes};
use subak_domain::partition::KEY_JOINT;
use subak_domain::{Asset, PartitionRule, Snapshot, Timestamp};
use subak_engine::{Clock, SystemClock};
use subak_plan::Known;
use subak_project::partition::key_problem;
use subak_store::PartitionDetail;

use super::Context;
use crate::args::{PartitionCommand, PartitionKeysArgs, PartitionListArgs};
use crate::exit::{CliError, Exit};
use crate::printer::{Table, counted};
use crate::project::Opened;

/// A partition that was made, and that the asset as it is now does not have.
const UNDECLARED: &str = "undeclared";

pub(super) fn execute(context: &Context<'_>, command: &PartitionCommand) -> Result<Exit, CliError> {
    let opened = context.open()?;
    match command {
        PartitionCommand::List(args) => list(context, &opened, args)?,
        PartitionCommand::Add(args) => add(context, &opened, args)?,
        PartitionCommand::Remove(args) => remove(context, &opened, args)?,
    }
    Ok(Exit::Ok)
}

fn list(context: &Context<'_>, opened: &Opened, args: &PartitionListArgs) -> Result<(), CliError> {
    let assets = opened.graph().assets();
    let asset = assets.iter().find(|asset| asset.key.as_str() == args.asset);
    let asset = asset.ok_or_else(|| CliError::not_found("asset", &args.asset, assets.iter().map(|asset| asset.key.as_str())))?;
    let Some(partitioning) = &asset.partitioning else {
        let problem = Diagnostic::error(codes::USAGE, format!("`{}` has no partitions", asset.key));
        return Err(CliError::new(problem.help("declare them with `partition:`"), Exit::Invalid));
    };
    let snapshot = context.snapshot(opened)?;
    let details = opened.store_if_there()?.map(|store| store.partitions(&asset.key)).transpose()?.unwrap_or_default();
    let details: BTreeMap<&str, _> = details.iter().map(|detail| (detail.key.as_str(), detail)).collect();
    let known = Known::of(partitioning, &snapshot, opened.now());
    let mut table = Table::new("partitions", &["partition", "state", "at", "run", "rows"]);
    let mut counts = [("done", 0_usize), ("outdated", 0), ("failed", 0), ("missing", 0), (UNDECLARED, 0)];
    let declared: Vec<String> = (0..known.len()).rev().filter_map(|at| known.key(at)).collect();
    let is_declared: BTreeSet<&str> = declared.iter().map(String::as_str).collect();
    // Windows may have been made at a time that is later than now, and are partitions.
    let others = details.iter().rev().filter(|(key, _)| !is_declared.contains(*key));
    let (later, others): (Vec<_>, Vec<_>) = others.partition(|(key, _)| has(&partitioning.rule, &snapshot, key));
    let made = others.into_iter().filter(|(_, detail)| detail.state.is_materialized());
    let undeclared: Vec<String> = made.map(|(key, _)| (*key).to_owned()).collect();
    let later: Vec<String> = later.into_iter().map(|(key, _)| (*key).to_owned()).collect();
    let declared = later.into_iter().chain(declared.iter().cloned()).collect::<Vec<String>>();
    for (key, is_declared) in declared.iter().map(|key| (key, true)).chain(undeclared.iter().map(|key| (key, false))) {
        let detail = details.get(key.as_str()).copied();
        let state = if is_declared { state(asset, detail) } else { UNDECLARED };
        counts.iter_mut().filter(|(name, _)| *name == state).for_each(|(_, count)| *count += 1);
        if table.rows.len() == args.limit || args.state.as_deref().is_some_and(|wanted| wanted != state) {
            continue;
        }
        let text = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        table.rows.push(vec![
            json!(key),
            json!(state),
            json!(detail.map(|detail| text(detail.at))),
            json!(detail.map(|detail| detail.run.to_string())),
            json!(detail.and_then(|detail| detail.row_count)),
        ]);
    }
    context.printer.table(&table);
    let said: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    context.printer.note(&format!("{}: {}", counted((declared.len() + undeclared.len()) as u64, "partition"), said.join(", ")));
    if !undeclared.is_empty() {
        let what = "were made when `partition:` said something else, or by keys that were taken away";
        context.printer.note(&format!("{} {what}: what is in the table for them stays there", undeclared.len()));
    }
    Ok(())
}

/// Whether a rule makes a partition with this key, at whatever time.
fn has(rule: &PartitionRule, snapshot: &Snapshot, key: &str) -> bool {
    match rule {
        PartitionRule::Time(windows) => windows.parse(key).is_some_and(|place| {
            let is_before_end = windows.end.is_none() || windows.last(Timestamp::MAX).is_some_and(|last| place <= last);
            place >= windows.first() && is_before_end
        }),
        PartitionRule::Static(keys) => keys.iter().any(|known| known == key),
        PartitionRule::Dynamic(name) => snapshot.dynamic.get(name).is_some_and(|keys| keys.iter().any(|known| known == key)),
        PartitionRule::Grid(dimensions) => {
            let keys: Vec<&str> = key.split(KEY_JOINT).collect();
            keys.len() == dimensions.len() && dimensions.iter().zip(keys).all(|(one, key)| has(&one.rule, snapshot, key))
        }
    }
}

/// How a partition stands, in a word.
pub(super) fn state(asset: &Asset, detail: Option<&PartitionDetail>) -> &'static str {
    match detail {
        None => "missing",
        Some(detail) if detail.state.is_failed() => "failed",
        Some(detail) if detail.version.as_deref() != Some(asset.version.as_str()) => "outdated",
        Some(_) => "done",
    }
}

/// The set must be one that an asset uses: a name that is mistyped would never be seen again.
fn refuse_unknown(opened: &Opened, name: &str) -> Result<(), CliError> {
    let cut = opened.graph().assets().iter().filter_map(|asset| asset.partitioning.as_ref());
    let rules = cut.flat_map(subak_domain::Partitioning::dimensions).map(|(.., rule)| rule);
    let names = rules.filter_map(|rule| match rule {
        PartitionRule::Dynamic(name) => Some(name.as_str()),
        _ => None,
    });
    let names: Vec<&str> = names.collect();
    if names.contains(&name) { Ok(()) } else { Err(CliError::not_found("set of dynamic partitions", name, names)) }
}

/// Refuses keys that cannot be added to a set.
pub(super) fn refuse_bad_keys(opened: &Opened, set: &str, keys: &[String]) -> Result<(), CliError> {
    refuse_unknown(opened, set)?;
    for key in keys {
        if let Some(why) = key_problem(key) {
            let problem = Diagnostic::error(codes::USAGE, format!("`{key}` cannot be the key of a partition: {why}"));
            return Err(CliError::new(problem.data("no key was added"), Exit::Invalid));
        }
    }
    Ok(())
}

fn add(context: &Context<'_>, opened: &Opened, args: &PartitionKeysArgs) -> Result<(), CliError> {
    refuse_bad_keys(opened, &args.name, &args.keys)?;
    let store = opened.store()?;
    let count = context.block_on(async { Ok(store.add_partitions(&args.name, args.keys.clone(), SystemClock.now()).await?) })?;
    context.printer.note(&format!(
        "{} added to `{}`; {} were there",
        counted(count, "key"),
        args.name,
        args.keys.len() as u64 - count
    ));
    Ok(())
}

fn remove(context: &Context<'_>, opened: &Opened, args: &PartitionKeysArgs) -> Result<(), CliError> {
    refuse_unknown(opened, &args.name)?;
    let store = opened.store()?;
    let count = context.block_on(async { Ok(store.remove_partitions(&args.name, args.keys.clone()).await?) })?;
    context.printer.note(&format!("{} removed from `{}`; rows stay where they are", counted(count, "key"), args.name));
    Ok(())
}
