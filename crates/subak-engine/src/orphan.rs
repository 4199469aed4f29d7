//! Programs that outlived the process that started them.
//!
//! Beside the files of each program stands which process group it has. Whoever takes the project ends what is left of such groups before anything
//! is started again: two of a program at a time would do its work twice.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The file that names the group.
const FILE: &str = "group";

/// What the folders of programs begin with.
pub(crate) const PREFIX: &str = "task-";

/// How often, and how many times, a group that was killed is looked at.
const GONE_INTERVAL: Duration = Duration::from_millis(10);
const GONE_COUNT_MAX: usize = 200;

/// Tells a process from another one that has its number later: when the machine was started, and when the process was.
fn identity(process: Pid) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, in which anything may stand; the start is the 22nd.
    let began = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    Some(format!("{} {began}", boot.trim()))
}

/// Notes the group of a program that was started. Best effort: without `/proc` nothing is noted, and nothing is ended.
pub(crate) fn record(folder: &Path, group: Pid) {
    if let Some(identity) = identity(group) {
        drop(std::fs::write(folder.join(FILE), format!("{group} {identity}")));
    }
}

/// Ends every program whose folder is left in `temporary`, and removes the folders. Only for whoever holds the project: no program of it may be
/// running. Returns how many were still there.
pub fn end_all(temporary: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let noted = std::fs::read_to_string(entry.path().join(FILE)).unwrap_or_default();
        count += usize::from(end(&noted));
        // What cannot be removed stays; nobody reads it.
        drop(std::fs::remove_dir_all(entry.path()));
    }
    count
}

/// Ends the group that was noted, unless its number belongs to another one by now. Returns whether it was there.
fn end(noted: &str) -> bool {
    let Some((number, known)) = noted.split_once(' ') else { return false };
    let Ok(group) = number.parse::<i32>().map(Pid::from_raw) else { return false };
    let is_sound = group.as_raw() > 1;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let is_same = match identity(group) {
        Some(identity) => identity == known,
        // The first of the group has ended. A number is not given away while a group has it.
        None => !boot.is_empty() && known.starts_with(boot.trim()),
    };
    let is_there = is_sound && is_same && killpg(group, Signal::SIGKILL).is_ok();
    // What it holds, such as the file of a database, is free when it is gone.
    for _ in 0..GONE_COUNT_MAX {
        if !is_there || killpg(group, None).is_err() {
            break;
        }
        std::thread::sleep(GONE_INTERVAL);
    }
    is_there
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_left_of_a_program_is_ended() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = |name: &str| {
            let path = temporary.path().join(name);
            std::fs::create_dir(&path).expect("made");
            path
        };
        let mut own = Command::new("sleep").arg("60").process_group(0).spawn().expect("starts");
        let mut other = Command::new("sleep").arg("60").process_group(0).spawn().expect("starts");
        let group = |child: &std::process::Child| Pid::from_raw(i32::try_from(child.id()).expect("a number"));
        record(&folder("task-own"), group(&own));
        // Its number was given to another process.
        let noted =
            format!("{} {} 1", other.id(), std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id").trim());
        std::fs::write(folder("task-other").join(FILE), noted).expect("written");
        folder("task-plain");
        folder("duckdb");
        assert_eq!(end_all(temporary.path()), 1);
        assert!(!own.wait().expect("it ends").success());
        assert!(other.try_wait().expect("asked").is_none(), "it goes on");
        other.kill().expect("killed");
        other.wait().expect("it ends");
        let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["duckdb"]);
    }
}
