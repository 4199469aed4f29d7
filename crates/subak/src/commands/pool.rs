//! `subak pool`: what steps have of pools, and what they wait for. Told from the log: a step takes what it says from its start to its end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use subak_domain::{RunId, StepId, StepStatus, Timestamp};
use subak_engine::{Slots, Take, pool_name};
use subak_store::SqliteStore;

use super::{Context, run, runs};
use crate::args::{HowToRun, PoolCommand};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project::Opened;

/// A step that has begun and takes slots of a pool.
pub(super) struct Taker {
    pub(super) pool: String,
    pub(super) run: RunId,
    pub(super) step: StepId,
    pub(super) count: usize,
    pub(super) since: Option<Timestamp>,
    /// Whether it has them; else it waits.
    pub(super) has: bool,
    /// Whether this pool has too little room for it; it may wait for another one.
    pub(super) is_short: bool,
}

pub(super) fn execute(context: &Context<'_>, command: &PoolCommand) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    let slots = slots(&opened);
    let known = known(&opened);
    let store = opened.store_if_there()?;
    let found = store.map(|store| takers(&store, &slots)).transpose()?.unwrap_or_default();
    match command {
        PoolCommand::List => {
            let mut table = Table::new("pools", &["pool", "slots", "taken", "waiting"]);
            for (name, size) in &known {
                let of = |has: bool| {
                    found.iter().filter(|taker| taker.pool == *name && taker.has == has).map(|taker| taker.count).sum::<usize>()
                };
                table.rows.push(vec![json!(name), json!(size), json!(of(true)), json!(of(false))]);
            }
            if table.rows.is_empty() {
                context.printer.note("there are no pools; declare one in `subak.yml`: `pools: { api: 4 }`");
            }
            context.printer.table(&table);
        }
        PoolCommand::Show(args) => {
            if !known.contains_key(&args.name) {
                return Err(CliError::not_found("pool", &args.name, known.keys().map(String::as_str)));
            }
            let mut table = Table::new("takers", &["run", "step", "slots", "since", "state"]);
            for taker in found.iter().filter(|taker| taker.pool == args.name) {
                let since = taker.since.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                let state = if taker.has { "has" } else { "waits" };
                let row =
                    [json!(taker.run.to_string()), json!(taker.step.as_str()), json!(taker.count), json!(since), json!(state)];
                table.rows.push(row.to_vec());
            }
            context.printer.table(&table);
        }
    }
    Ok(Exit::Ok)
}

/// The pools and their slots: those that are declared, and connections with a bound.
pub(super) fn known(opened: &Opened) -> BTreeMap<String, usize> {
    let config = &opened.project.config;
    let declared = config.pools.iter().map(|(name, size)| (name.clone(), size.get() as usize));
    let bounded = config.connections.iter().filter_map(|(name, one)| Some((name.to_string(), one.parallel?.get())));
    declared.chain(bounded).collect()
}

/// What steps take, whatever they may be.
pub(super) fn slots(opened: &Opened) -> Slots {
    run::limits(opened, &HowToRun { parallel: 1, wait: 0 }).slots
}

/// The steps of all runs that have begun and not ended, in the order in which they came, with what they take. Whoever waits for one pool has nothing of
/// the others, and comes before those who came later for the same one.
pub(super) fn takers(store: &SqliteStore, slots: &Slots) -> Result<Vec<Taker>, CliError> {
    let mut begun = Vec::new();
    for run in store.open_runs()? {
        let (state, _) = runs::state(store, run)?;
        for action in &state.actions {
            let Some(step) = state.steps.get(&action.step) else { continue };
            if matches!(step.status, StepStatus::Running { .. } | StepStatus::Stopping { .. }) {
                begun.push((step.started_at, run, action.step.clone(), slots.of(action)));
            }
        }
    }
    begun.sort_by_key(|(since, run, ..)| (*since, *run));
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (since, run, step, takes) in begun {
        let is_short = |name: &String, take: &Take| taken.get(name).copied().unwrap_or(0) + take.count > take.size;
        let short: BTreeSet<String> =
            takes.iter().filter(|(name, take)| is_short(name, take)).map(|(name, _)| name.clone()).collect();
        let has = short.is_empty();
        for (name, take) in takes {
            // Those behind one that waits wait too.
            *taken.entry(name.clone()).or_default() += if has { take.count } else { take.size };
            let pool = name.strip_prefix(&pool_name("")).unwrap_or(&name).to_owned();
            found.push(Taker { pool, run, step: step.clone(), count: take.count, since, has, is_short: short.contains(&name) });
        }
    }
    Ok(found)
}
