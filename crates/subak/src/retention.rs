//! What happened is kept for a while: runs and their events, ticks, notices, the output of programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use subak_domain::{RunId, Timestamp};
use subak_project::Retention;
use subak_store::{Lease, SqliteStore};

use crate::exit::CliError;

/// How often a process that stays looks whether something can go.
pub(crate) const INTERVAL: Duration = Duration::from_secs(3_600);

/// How long commands leave it to others.
const PAUSE: Duration = Duration::from_secs(86_400);

/// The file that says as of when somebody has looked last, and what the clock said then: two numbers of milliseconds since 1970.
const MARK: &str = "last_purge";

/// How far a look goes beyond the one before it at most, as a share of how long things are kept, but never less than a day.
const STRIDE_SHARE: u32 = 4;

/// Before which moment what has ended is old; `None` where all is kept.
pub(crate) fn before(retention: &Retention, now: Timestamp) -> Option<Timestamp> {
    now.checked_sub(jiff::SignedDuration::try_from(retention.keep?).ok()?).ok()
}

/// As of when somebody has looked last, and what the clock said then.
fn looked_at(state_folder: &Path) -> Option<(Timestamp, Timestamp)> {
    let text = std::fs::read_to_string(state_folder.join(MARK)).ok()?;
    let (counted, clock) = text.trim().split_once(' ')?;
    let moment = |text: &str| Timestamp::from_millisecond(text.parse().ok()?).ok();
    Some((moment(counted)?, moment(clock)?))
}

/// Whether it is time for a command to look.
pub(crate) fn is_due(state_folder: &Path, now: Timestamp) -> bool {
    looked_at(state_folder).is_none_or(|(_, clock)| now.duration_since(clock).unsigned_abs() >= PAUSE)
}

/// The time that a look counts on. It follows the clock, twice as fast where it lags behind, and takes no more than a stride at once: a clock that is
/// ahead by years takes away half of what is kept, and the rest only when it stays so for weeks.
fn counted(state_folder: &Path, retention: &Retention, now: Timestamp) -> Timestamp {
    let Some((counted, clock)) = looked_at(state_folder) else { return now };
    let stride = retention.keep.map_or(PAUSE, |keep| (keep / STRIDE_SHARE).max(PAUSE));
    let elapsed = Duration::try_from(now.duration_since(clock)).unwrap_or_default().min(stride);
    counted.checked_add(elapsed * 2).map_or(now, |at| at.min(now))
}

/// Notes as of when somebody has looked. Best effort: without a mark the next command looks once more.
fn mark(state_folder: &Path, counted: Timestamp, now: Timestamp) {
    let begun = state_folder.join(format!("{MARK}.begun"));
    let text = format!("{} {}", counted.as_millisecond(), now.as_millisecond());
    drop(std::fs::write(&begun, text).and_then(|()| std::fs::rename(&begun, state_folder.join(MARK))));
}

/// Removes what is old by now, where nobody has asked for it.
pub(crate) async fn look(
    store: &SqliteStore,
    lease: &Lease,
    state_folder: &Path,
    retention: &Retention,
    now: Timestamp,
) -> Result<(), CliError> {
    let counted = counted(state_folder, retention, now);
    purge(store, lease, state_folder, retention, counted).await?;
    mark(state_folder, counted, now);
    Ok(())
}

/// Removes what is old at a time.
pub(crate) async fn purge(
    store: &SqliteStore,
    lease: &Lease,
    state_folder: &Path,
    retention: &Retention,
    now: Timestamp,
) -> Result<(), CliError> {
    if let Some(before) = before(retention, now) {
        store.purge(before, lease).await?;
    }
    let open: BTreeSet<String> = store.open_runs()?.iter().map(ToString::to_string).collect();
    let (folder, retention) = (state_folder.join("logs"), *retention);
    let removed = tokio::task::spawn_blocking(move || {
        for log in old_logs(&folder, &retention, &open, now) {
            // What cannot be removed now is looked at again.
            drop(std::fs::remove_dir_all(log));
        }
    });
    drop(removed.await);
    Ok(())
}

/// The folders with output of runs that can go: those of runs that are too old, and the oldest of what takes too much room.
pub(crate) fn old_logs(folder: &Path, retention: &Retention, open: &BTreeSet<String>, now: Timestamp) -> Vec<PathBuf> {
    let before = before(retention, now).map(|before| RunId::from_parts(u64::try_from(before.as_millisecond()).unwrap_or(0), 0));
    let folders = [folder.to_owned(), folder.join("sensors")];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
    let mut logs: Vec<(RunId, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<RunId>().ok()?, entry.path())))
        .filter(|(run, _)| !open.contains(&run.to_string()))
        .collect();
    // The newest first; what is behind the bound goes.
    logs.sort_by_key(|(run, _)| std::cmp::Reverse(*run));
    let mut bytes = 0;
    logs.retain(|(run, path)| {
        bytes += bytes_of(path);
        bytes > retention.logs_bytes_max || before.is_some_and(|before| *run < before)
    });
    logs.into_iter().map(|(_, path)| path).collect()
}

/// The length of all files directly in a folder.
fn bytes_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FM-45: a clock that is ahead by years takes away half at most, however often somebody looks; who looks seldom is not left behind.
    #[test]
    fn fm_45_a_wrong_clock_costs_half_at_most() {
        let folder = tempfile::tempdir().expect("folder");
        let day = |day: i64| Timestamp::from_second(day * 86_400).expect("a time");
        let retention = Retention::default();
        let look = |now: Timestamp| {
            let at = counted(folder.path(), &retention, now);
            mark(folder.path(), at, now);
            at
        };
        assert!(is_due(folder.path(), day(100)));
        assert_eq!(look(day(100)), day(100));
        assert!(!is_due(folder.path(), day(100)));
        let hour = Duration::from_secs(3_600);
        assert_eq!(look(day(100) + hour), day(100) + hour);
        for now in [day(107), day(137), day(167)] {
            assert_eq!(look(now), now, "weekly, then monthly");
        }
        // Ten years ahead, for a while: once, and then as time goes by.
        for at in 0..100 {
            let found = look(day(3_817) + hour * at);
            assert!(found <= day(167 + 45) + hour * at * 2, "{found}");
        }
        assert!(is_due(folder.path(), day(168)));
        assert_eq!(look(day(168)), day(168), "and back");
        // What is no mark is none.
        std::fs::write(folder.path().join(MARK), "").expect("written");
        assert_eq!(look(day(50)), day(50));
    }

    #[test]
    fn old_output_goes_and_the_oldest_of_what_is_too_much() {
        let folder = tempfile::tempdir().expect("folder");
        let run = |day: u64| RunId::from_parts(day * 86_400_000, 1);
        for day in [1, 95, 96, 97, 98] {
            let path = folder.path().join(run(day).to_string());
            std::fs::create_dir_all(&path).expect("made");
            std::fs::write(path.join("step.1.log"), [b'x'; 1_000]).expect("written");
        }
        std::fs::create_dir_all(folder.path().join("sensors").join(run(2).to_string())).expect("made");
        let now = Timestamp::from_second(100 * 86_400).expect("now");
        let days = |retention: Retention, open: &[u64]| {
            let open = open.iter().map(|day| run(*day).to_string()).collect();
            let mut found: Vec<u64> = old_logs(folder.path(), &retention, &open, now)
                .iter()
                .filter_map(|path| path.file_name()?.to_str()?.parse::<RunId>().ok())
                .filter_map(|id| (1..100).find(|day| run(*day) == id))
                .collect();
            found.sort_unstable();
            found
        };
        assert_eq!(days(Retention::default(), &[]), [1, 2]);
        assert_eq!(days(Retention { logs_bytes_max: 2_500, ..Retention::default() }, &[1]), [2, 95, 96]);
        assert_eq!(days(Retention { keep: None, ..Retention::default() }, &[]), Vec::<u64>::new());
    }
}
