//! `subak backfill`: many partitions, over as many runs as it takes.

use std::sync::Arc;
use std::sync::atomic::AtomicI32;

use serde_json::json;
use subak_connect::crash;
use subak_diag::{Diagnostic, codes};
use subak_domain::{Action, Backfill, BackfillAsk, BackfillState, RunEvent, RunId, RunState, RunStatus, Timestamp};
use subak_engine::{Clock, StopReason, StopSignal, SystemClock};
use subak_plan::backfill::{Next, can_be_reversed, next, targets};
use subak_store::{Append, Lease, SqliteStore};

use super::run::{self, Hold};
use super::{Context, plan, runs, select};
use crate::args::{BackfillCommand, BackfillStartArgs, HowToRun, Selection};
use crate::exit::{CliError, Exit};
use crate::printer::{Table, counted};
use crate::project::Opened;

/// How often a backfill is looked at while its run goes on.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// Backfills that are looked through for an id.
const LOOKED_AT_COUNT: usize = 10_000;

pub(super) fn execute(context: &Context<'_>, command: &BackfillCommand) -> Result<Exit, CliError> {
    let is_new = matches!(command, BackfillCommand::Start(_));
    let opened = if is_new { context.open()? } else { context.open_known()? };
    match command {
        BackfillCommand::Start(args) => start(context, &opened, args),
        BackfillCommand::List(args) => list(context, &opened, args.limit),
        BackfillCommand::Show(args) => show(context, &opened, &args.backfill),
        BackfillCommand::Pause(args) => {
            change(context, &opened, &args.backfill, BackfillAsk::Pause)?;
            Ok(Exit::Ok)
        }
        BackfillCommand::Resume(args) => {
            let changed = change(context, &opened, &args.backfill, BackfillAsk::Resume)?;
            go_on(context, &opened, changed.id, &args.how)
        }
        BackfillCommand::Cancel(args) => {
            let changed = change(context, &opened, &args.backfill, BackfillAsk::Cancel)?;
            if let (Some(run), Some(store)) = (changed.run, run::served(&opened)?) {
                context.block_on(async { Ok(store.request_cancel(run, SystemClock.now()).await?) })?;
            }
            let holder = opened.store()?.holder(run::LEASE, SystemClock.now())?;
            if let (false, None, Some(holder)) = (changed.state.is_final(), run::served(&opened)?, holder) {
                context.printer.note(&format!("{holder} has the project; it stops the run of the backfill"));
                return Ok(Exit::Ok);
            }
            if changed.state.is_final() {
                Ok(Exit::Ok)
            } else {
                go_on(context, &opened, changed.id, &HowToRun { parallel: 1, wait: 0 })
            }
        }
    }
}

/// What a backfill is asked to do.
pub(super) struct Wanted<'a> {
    pub(super) selection: &'a Selection,
    pub(super) partition: &'a [String],
    pub(super) is_newest_first: bool,
    pub(super) per_run: u64,
}

/// The backfill that is asked for, as things are now. `None` where there is no such partition.
pub(super) fn of(opened: &Opened, store: &SqliteStore, wanted: &Wanted<'_>) -> Result<Option<Backfill>, CliError> {
    let snapshot = store.snapshot()?;
    let selected = select(opened, &snapshot, wanted.selection)?;
    let picks = plan::picks(wanted.partition);
    let targets = targets(opened.graph(), &snapshot, &selected.assets, &picks, opened.now());
    let targets = targets.map_err(|error| plan::partition_problem(&error))?;
    if targets.is_empty() {
        return Ok(None);
    }
    if wanted.is_newest_first && !can_be_reversed(opened.graph(), &targets) {
        let problem =
            Diagnostic::error(codes::USAGE, "the selected assets have partitions of different lengths, and some read others");
        return Err(CliError::new(
            problem.help("leave `--newest-first` out, or select assets with the same partitions"),
            Exit::Invalid,
        ));
    }
    Ok(Some(Backfill {
        id: run::new_run(),
        revision: 1,
        selection: format!("{} of {}", wanted.partition.join(","), run::selection_words(wanted.selection)),
        created_at: SystemClock.now(),
        created_position: store.newest_position()?,
        as_of: opened.as_of_template.clone(),
        targets,
        is_newest_first: wanted.is_newest_first,
        per_run: usize::try_from(wanted.per_run).unwrap_or(100),
        state: BackfillState::Running,
        run: None,
        again: Vec::new(),
        blocked: std::collections::BTreeSet::new(),
        done: 0,
        failed: 0,
    }))
}

fn start(context: &Context<'_>, opened: &Opened, args: &BackfillStartArgs) -> Result<Exit, CliError> {
    let store = opened.store()?;
    let wanted = Wanted {
        selection: &args.selection,
        partition: &args.partition,
        is_newest_first: args.newest_first,
        per_run: args.per_run,
    };
    let Some(backfill) = of(opened, &store, &wanted)? else {
        context.printer.note("nothing to do: no such partition of what is selected");
        return Ok(Exit::Ok);
    };
    if args.dry_run {
        print_targets(context, &backfill);
        return Ok(Exit::Ok);
    }
    let id = backfill.id;
    let note = format!("backfill {id}: {}", counted(backfill.count(), "partition"));
    if run::served(opened)?.is_some() {
        if !context.global.vars.is_empty() {
            let problem = Diagnostic::error(codes::USAGE, "`--var` says nothing to a server, which has values of its own");
            return Err(CliError::new(problem.help("stop the server, or leave `--var` out"), Exit::Invalid));
        }
        context.printer.note(&note);
        context.block_on(async { Ok(store.put_backfill(backfill, None, None).await?) })?;
        return go_on(context, opened, id, &args.how);
    }
    context.block_on(async {
        // First the project, so that nothing is begun where somebody else works on it.
        let hold = Hold::take(context, opened, &args.how).await?;
        context.printer.note(&note);
        let result = match store.put_backfill(backfill, None, Some(hold.lease().clone())).await {
            Ok(_) => drive(context, opened, &hold, id, &args.how).await,
            Err(error) => Err(error.into()),
        };
        hold.give_back().await?;
        result
    })
}

/// Leaves a backfill to the server that has the project, or goes on with it here.
fn go_on(context: &Context<'_>, opened: &Opened, id: RunId, how: &HowToRun) -> Result<Exit, CliError> {
    if run::served(opened)?.is_some() {
        context.printer.note(&format!("the server goes on with it; `subak backfill show {id}` shows how far it is"));
        return Ok(Exit::Ok);
    }
    context.block_on(async {
        let hold = Hold::take(context, opened, how).await?;
        let result = drive(context, opened, &hold, id, how).await;
        hold.give_back().await?;
        result
    })
}

/// Goes on with a backfill until nothing is left of it, or somebody stops it.
async fn drive(context: &Context<'_>, opened: &Opened, hold: &Hold, id: RunId, how: &HowToRun) -> Result<Exit, CliError> {
    let store = hold.store();
    let as_of = find(store, &id.to_string())?.as_of;
    let is_today = as_of == opened.as_of_template && context.global.as_of.is_none();
    let opened = if is_today { context.open_quietly()? } else { context.open_as_of(&as_of)? };
    let engine = hold.engine(context, &opened)?;
    let mut left = hold.settle(context, &opened, &engine, false).await?;
    let cancel = StopSignal::default();
    let signals = run::watch_signals(&cancel, &Arc::new(AtomicI32::new(130)))?;
    let exit = loop {
        let backfill = find(store, &id.to_string())?;
        let is_left = backfill.run.is_some_and(|run| left.contains(&run));
        left.retain(|run| Some(*run) != backfill.run);
        if let Some(run) = backfill.run.filter(|run| is_left || run::is_waiting(store, *run).unwrap_or(false)) {
            if backfill.state == BackfillState::Canceling {
                cancel.stop(StopReason::Canceled);
            }
            let began_at = SystemClock.now();
            let limits = run::limits(&opened, how);
            let mut running = std::pin::pin!(hold.carry(&engine, run, is_left, &limits, &cancel));
            let state = loop {
                tokio::select! {
                    ended = &mut running => break ended?,
                    () = SystemClock.sleep_until(SystemClock.now() + LOOK_INTERVAL) => {
                        // Somebody may have given it up elsewhere.
                        if find(store, &id.to_string())?.state == BackfillState::Canceling {
                            cancel.stop(StopReason::Canceled);
                        }
                    }
                }
            };
            let elapsed_ms = SystemClock.now().duration_since(began_at).as_millis().max(0) as u64;
            if state.status != RunStatus::Canceled {
                run::report(context, run, &state, elapsed_ms);
            }
            continue;
        }
        if cancel.reason().is_some() && backfill.state == BackfillState::Running {
            let paused = Backfill { state: BackfillState::Paused, revision: backfill.revision + 1, ..backfill };
            store.put_backfill(paused, None, Some(hold.lease().clone())).await?;
            continue;
        }
        if !step(store, hold.lease(), &opened, &backfill).await? {
            break told(context, &find(store, &id.to_string())?);
        }
    };
    signals.abort();
    Ok(exit)
}

/// Takes the next step of a backfill. Returns whether there was one.
pub(super) async fn step(store: &SqliteStore, lease: &Lease, opened: &Opened, backfill: &Backfill) -> Result<bool, CliError> {
    let run = run_of(store, backfill)?;
    let (after, append) = match next(backfill, opened.graph(), &store.snapshot()?, run.as_ref(), run::new_run()) {
        Next::Wait => return Ok(false),
        Next::Note(after) => (after, None),
        Next::Run(after, actions) => {
            let append = after.run.map(|run| planned(run, &after, actions));
            (after, append)
        }
    };
    let is_planned = append.is_some();
    // Whoever changed it meanwhile is looked at again.
    store.put_backfill(after, append, Some(lease.clone())).await?;
    if is_planned {
        crash::point("run_planned");
    }
    Ok(true)
}

fn run_of(store: &SqliteStore, backfill: &Backfill) -> Result<Option<RunState>, CliError> {
    backfill.run.map(|run| Ok(runs::state(store, run)?.0)).transpose()
}

/// A run of a backfill. It waits for whoever takes it up, so that a crash before that loses nothing.
fn planned(run: RunId, backfill: &Backfill, actions: Vec<Action>) -> Append {
    let event = RunEvent::Planned {
        actions,
        selection: format!("backfill {}: {}", backfill.id, backfill.selection),
        trigger: "backfill".to_owned(),
        as_of: backfill.as_of.clone(),
        job: None,
        params: std::collections::BTreeMap::new(),
        interval: None,
        for_server: true,
    };
    Append { run, expected: 1, events: vec![(SystemClock.now(), event)], fence: None }
}

/// The backfill that an id, the beginning of one, or `last` names.
fn find(store: &SqliteStore, text: &str) -> Result<Backfill, CliError> {
    let unknown = |message: String| {
        let problem = Diagnostic::error(codes::NOT_FOUND, message);
        CliError::new(problem.help("`subak backfill list` shows the backfills"), Exit::Invalid)
    };
    let all = store.backfills(false, LOOKED_AT_COUNT)?;
    if text == "last" {
        return all.into_iter().next().ok_or_else(|| unknown("there are no backfills yet".to_owned()));
    }
    let text = text.to_ascii_uppercase();
    let mut found = all.into_iter().filter(|backfill| backfill.id.to_string().starts_with(&text));
    match (found.next(), found.next()) {
        (Some(backfill), None) => Ok(backfill),
        (None, _) => Err(unknown(format!("there is no backfill `{text}`"))),
        (Some(_), Some(_)) => Err(unknown(format!("more than one backfill begins with `{text}`"))),
    }
}

/// Does to a backfill what is asked, and says so.
fn change(context: &Context<'_>, opened: &Opened, text: &str, asked: BackfillAsk) -> Result<Backfill, CliError> {
    let store = opened.store()?;
    let before = find(&store, text)?;
    let changed = context.block_on(ask(&store, before.id, asked))?;
    if changed.state != before.state {
        context.printer.note(&format!("backfill {} is {}", changed.id, changed.state));
    }
    Ok(changed)
}

/// Does to a backfill what is asked, whatever a server does to it meanwhile. One that stands so already stays as it is.
pub(super) async fn ask(store: &SqliteStore, id: RunId, asked: BackfillAsk) -> Result<Backfill, CliError> {
    loop {
        let backfill = find(store, &id.to_string())?;
        let Some(state) = backfill.state.after(asked, backfill.run.is_some()) else {
            let message = format!("backfill {id} cannot be changed so: it is {}", backfill.state);
            let problem = Diagnostic::error(codes::USAGE, message);
            return Err(CliError::new(problem.data("nothing was changed"), Exit::Conflict));
        };
        if state == backfill.state {
            return Ok(backfill);
        }
        let changed = Backfill { state, revision: backfill.revision + 1, ..backfill };
        if store.put_backfill(changed.clone(), None, None).await? {
            return Ok(changed);
        }
    }
}

fn list(context: &Context<'_>, opened: &Opened, limit: usize) -> Result<Exit, CliError> {
    let mut table =
        Table::new("backfills", &["backfill", "state", "what", "partitions", "done", "failed", "blocked", "created_at"]);
    let backfills = opened.store_if_there()?.map(|store| store.backfills(false, limit)).transpose()?.unwrap_or_default();
    for backfill in backfills {
        table.rows.push(vec![
            json!(backfill.id.to_string()),
            json!(backfill.state.as_str()),
            json!(backfill.selection),
            json!(backfill.count()),
            json!(backfill.done),
            json!(backfill.failed),
            json!(backfill.blocked.len()),
            json!(text(backfill.created_at)),
        ]);
    }
    if table.rows.is_empty() {
        context.printer.note("there are no backfills yet; `subak backfill start` makes one");
    }
    context.printer.table(&table);
    Ok(Exit::Ok)
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn show(context: &Context<'_>, opened: &Opened, id: &str) -> Result<Exit, CliError> {
    let store = opened.store()?;
    let backfill = find(&store, id)?;
    print_targets(context, &backfill);
    let open = backfill.count().saturating_sub(backfill.done + backfill.failed + backfill.blocked.len() as u64);
    let is_served = run::served(opened)?.is_some();
    let run = run_of(&store, &backfill)?;
    let why = match (backfill.state, &run) {
        (state, _) if state.is_final() => String::new(),
        (BackfillState::Paused, None) => format!("; `subak backfill resume {}` goes on", backfill.id),
        (_, Some(run)) if run.status == RunStatus::Running => {
            format!("; run {} goes on", backfill.run.map_or_else(String::new, |run| run.to_string()))
        }
        (BackfillState::Canceling, _) => "; it ends with the next command or server that looks at it".to_owned(),
        _ if is_served => "; the server takes the next step".to_owned(),
        _ => format!("; nobody goes on with it: `subak backfill resume {}`, or start the server", backfill.id),
    };
    context.printer.note(&format!(
        "backfill {} is {}: {} done, {} failed, {} not made because of that, {open} open{why}",
        backfill.id,
        backfill.state,
        backfill.done,
        backfill.failed,
        backfill.blocked.len()
    ));
    Ok(Exit::Ok)
}

fn print_targets(context: &Context<'_>, backfill: &Backfill) {
    let mut table = Table::new("targets", &["asset", "partitions", "planned", "ranges"]);
    for target in &backfill.targets {
        let ranges: Vec<String> = target
            .ranges
            .iter()
            .take(5)
            .map(|(first, last)| if first == last { first.clone() } else { format!("{first}..{last}") })
            .collect();
        let more = if target.ranges.len() > 5 { format!(" … {} more", target.ranges.len() - 5) } else { String::new() };
        table.rows.push(vec![
            json!(target.asset.as_str()),
            json!(target.count),
            json!(target.planned),
            json!(format!("{}{more}", ranges.join(", "))),
        ]);
    }
    context.printer.table(&table);
}

/// Says how a backfill ended, or where it stopped.
fn told(context: &Context<'_>, backfill: &Backfill) -> Exit {
    let object = json!({
        "backfill": backfill.id.to_string(), "state": backfill.state.as_str(), "partitions": backfill.count(), "done": backfill.done,
        "failed": backfill.failed, "blocked": backfill.blocked.len(),
    });
    let human = format!(
        "backfill {} {}: {} of {} partitions done, {} failed, {} not made because of that",
        backfill.id,
        backfill.state,
        backfill.done,
        backfill.count(),
        backfill.failed,
        backfill.blocked.len()
    );
    context.printer.object("backfill", &object, &human);
    match backfill.state {
        BackfillState::Failed => {
            context.printer.note("`subak backfill start --partition failed,missing` takes up what is not done");
            Exit::Failed
        }
        BackfillState::Paused => {
            context.printer.note(&format!("go on with `subak backfill resume {}`", backfill.id));
            Exit::Interrupted
        }
        _ => Exit::Ok,
    }
}
