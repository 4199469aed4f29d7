//! `subak db`: the state of the project, how much it keeps, and copies of it.

use std::collections::BTreeSet;

use serde_json::json;
use subak_diag::{Diagnostic, codes};
use subak_engine::{Clock, SystemClock};
use subak_store::StoreError;

use super::Context;
use super::run::Hold;
use crate::args::{DbBackupArgs, DbCommand, DbPurgeArgs, HowToRun};
use crate::exit::{CliError, Exit};
use crate::printer::{Table, counted};
use crate::project::Opened;
use crate::retention;

pub(super) fn execute(context: &Context<'_>, command: &DbCommand) -> Result<Exit, CliError> {
    let opened = context.open_known()?;
    match command {
        DbCommand::Status => status(context, &opened),
        DbCommand::Check => check(context, &opened),
        DbCommand::Backup(args) => back_up(context, &opened, args),
        DbCommand::Purge(args) => purge(context, &opened, args),
        DbCommand::Vacuum => vacuum(context, &opened),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn status(context: &Context<'_>, opened: &Opened) -> Result<Exit, CliError> {
    let path = opened.state_folder().join("state.db");
    if !path.exists() {
        context.printer.note("there is no state yet; the first run makes it");
        return Ok(Exit::Ok);
    }
    let (store, now) = (opened.store()?, SystemClock.now());
    let retention = opened.project.config.retention;
    let kept = store.kept(retention::before(&retention, now).unwrap_or(subak_domain::Timestamp::UNIX_EPOCH))?;
    let mut table = Table::new("state", &["what", "count", "can_go"]);
    for (what, count, old) in [
        ("runs", kept.run_count, kept.old_run_count),
        ("events", kept.event_count, kept.old_event_count),
        ("ticks", kept.tick_count, kept.old_tick_count),
        ("notices", kept.notice_count, kept.old_notice_count),
    ] {
        table.rows.push(vec![json!(what), json!(count), json!(old)]);
    }
    context.printer.table(&table);
    let bytes = ["state.db", "state.db-wal"].map(|name| std::fs::metadata(opened.state_folder().join(name)));
    let bytes: u64 = bytes.into_iter().flatten().map(|metadata| metadata.len()).sum();
    let oldest = kept.oldest_at.map_or_else(String::new, |at| format!("; the oldest run is of {}", at.strftime("%Y-%m-%d")));
    let keep = retention.keep.map_or_else(|| "for ever".to_owned(), |keep| format!("for {} days", keep.as_secs() / 86_400));
    context.printer.note(&format!("{} in `{}`{oldest}; what has ended is kept {keep}", size(bytes), path.display()));
    Ok(Exit::Ok)
}

fn check(context: &Context<'_>, opened: &Opened) -> Result<Exit, CliError> {
    let problems = opened.store()?.check()?;
    if problems.is_empty() {
        context.printer.note("the state is whole");
        return Ok(Exit::Ok);
    }
    Err(StoreError::Damaged(problems.join("; ")).into())
}

fn back_up(context: &Context<'_>, opened: &Opened, args: &DbBackupArgs) -> Result<Exit, CliError> {
    if args.path.exists() {
        let problem = Diagnostic::error(codes::USAGE, format!("`{}` exists", args.path.display())).data("nothing was written");
        return Err(CliError::new(problem.help("name a file that does not"), Exit::Invalid));
    }
    opened.store()?.back_up(&args.path)?;
    let path = opened.state_folder().join("state.db");
    context.printer.note(&format!(
        "wrote `{}`; to go back to it, stop everything and put it in the place of `{}`, without the files `state.db-wal` and `state.db-shm`",
        args.path.display(),
        path.display()
    ));
    Ok(Exit::Ok)
}

fn purge(context: &Context<'_>, opened: &Opened, args: &DbPurgeArgs) -> Result<Exit, CliError> {
    let (store, now) = (opened.store()?, SystemClock.now());
    let mut retention = opened.project.config.retention;
    if let Some(days) = args.older_than {
        retention.keep = Some(std::time::Duration::from_secs(u64::from(days) * 86_400));
    }
    let Some(before) = retention::before(&retention, now) else {
        context.printer.note("everything is kept for ever; say `--older-than DAYS`");
        return Ok(Exit::Ok);
    };
    let kept = store.kept(before)?;
    let open: BTreeSet<String> = store.open_runs()?.iter().map(ToString::to_string).collect();
    let logs = retention::old_logs(&opened.state_folder().join("logs"), &retention, &open, now).len();
    let what = format!(
        "{}, {}, {}, {} and the output of {}, older than {}",
        counted(kept.old_run_count, "run"),
        counted(kept.old_event_count, "event"),
        counted(kept.old_tick_count, "tick"),
        counted(kept.old_notice_count, "notice"),
        counted(logs as u64, "run"),
        before.strftime("%Y-%m-%d %H:%M:%S UTC")
    );
    if args.dry_run {
        context.printer.note(&format!("would remove {what}"));
        return Ok(Exit::Ok);
    }
    context.block_on(async {
        let hold = Hold::take_as("subak db", context, opened, &HowToRun { parallel: 1, wait: 0 }).await?;
        let purged = retention::purge(hold.store(), hold.lease(), &opened.state_folder(), &retention, now).await;
        hold.give_back().await?;
        purged
    })?;
    context.printer.note(&format!("removed {what}; what is known of assets stays. `subak db vacuum` gives the room back"));
    Ok(Exit::Ok)
}

fn vacuum(context: &Context<'_>, opened: &Opened) -> Result<Exit, CliError> {
    context.block_on(async {
        let hold = Hold::take_as("subak db", context, opened, &HowToRun { parallel: 1, wait: 0 }).await?;
        let vacuumed = hold.store().vacuum();
        hold.give_back().await?;
        Ok(vacuumed?)
    })?;
    context.printer.note("the state takes as much room as it needs");
    Ok(Exit::Ok)
}
