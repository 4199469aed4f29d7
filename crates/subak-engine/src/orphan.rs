//! Programs that outlived the process that started them.
//!
//! Beside the files of each program stands what it was started for, which process group it has, and, once it has ended, how. Whoever takes the project
//! goes on with those whose runs it takes over, and ends what is left of all others before anything is started again: two of a program at a time would
//! do its work twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use subak_domain::{RunId, StepId};

use crate::{Inputs, usage};

/// The file that names the group.
const FILE: &str = "group";

/// The file that names what the program was started for.
pub(crate) const OWNER: &str = "owner.json";

/// The file into which the code is written with which it ended, and a line feed behind it.
pub(crate) const EXIT: &str = "exit";

/// The file of which a program is told that it may write a value into it.
pub(crate) const VALUE: &str = "value.json";

/// What the folders of programs begin with.
pub(crate) const PREFIX: &str = "task-";

/// How often, and how many times, a group that was killed is looked at.
const GONE_INTERVAL: Duration = Duration::from_millis(10);
const GONE_COUNT_MAX: usize = 200;

/// A program that another process started, and that goes on or has ended by itself.
#[derive(Debug)]
pub(crate) struct Left {
    /// Its files.
    pub(crate) folder: PathBuf,
    /// The step that started it.
    pub(crate) step: StepId,
    /// The attempt of that.
    pub(crate) attempt: u32,
    /// Its process group.
    pub(crate) group: Option<i32>,
}

/// What a program is started for: a step, and the others that it does the work of.
pub(crate) fn owner(run: RunId, step: &StepId, inputs: &Inputs) -> Value {
    let together: Vec<&str> = inputs.together.iter().map(|(other, _)| other.as_str()).collect();
    json!({ "run": run.to_string(), "step": step.as_str(), "attempt": inputs.attempt, "together": together })
}

/// The folders of programs.
fn folders(temporary: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(temporary).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().contains(PREFIX)).map(|entry| entry.path())
}

/// The program that a step of a run has going on, or that has ended since and was not looked after.
pub(crate) fn find(temporary: &Path, run: RunId, step: &StepId) -> Option<Left> {
    folders(temporary).find_map(|folder| {
        let owner: Value = serde_json::from_slice(&std::fs::read(folder.join(OWNER)).ok()?).ok()?;
        let is_step = |name: &Value| name.as_str() == Some(step.as_str());
        let is_of_step = is_step(&owner["step"]) || owner["together"].as_array().into_iter().flatten().any(is_step);
        if owner["run"].as_str() != Some(&run.to_string()) || !is_of_step {
            return None;
        }
        if ended(&folder).is_none() && !goes_on(&folder) {
            return None;
        }
        let group = group(&folder);
        let attempt = owner["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok())?;
        Some(Left { step: serde_json::from_value(owner["step"].clone()).ok()?, attempt, group, folder })
    })
}

fn noted(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(FILE)).unwrap_or_default().trim().to_owned()
}

/// The process group of a program, unless its number belongs to another one by now.
fn group(folder: &Path) -> Option<i32> {
    let noted = noted(folder);
    let (number, known) = noted.split_once(' ')?;
    let number = number.parse::<i32>().ok().filter(|number| *number > 1)?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let is_same = match identity(Pid::from_raw(number)) {
        Some(identity) => identity == known,
        // The first of the group has ended. A number is not given away while a group has it.
        None => !boot.is_empty() && known.starts_with(boot.trim()),
    };
    is_same.then_some(number)
}

/// Whether the process that waits for the program is there.
pub(crate) fn goes_on(folder: &Path) -> bool {
    let noted = noted(folder);
    let Some((number, known)) = noted.split_once(' ') else { return false };
    number.parse().is_ok_and(|number| identity(Pid::from_raw(number)).is_some_and(|identity| identity == known))
}

/// How the program ended: its code, and the milliseconds of processor time that it used; `None` where it has not, or nobody wrote it down.
pub(crate) fn ended(folder: &Path) -> Option<(i32, u64)> {
    let code = std::fs::read_to_string(folder.join(EXIT)).ok()?;
    let code = code.strip_suffix('\n')?;
    // The second line is of what the shell has waited for.
    let times = std::fs::read_to_string(folder.join("times")).unwrap_or_default();
    let cpu_ms = times.lines().nth(1).unwrap_or_default().split_whitespace().filter_map(milliseconds).sum();
    Some((if code == "missing" { 127 } else { code.parse().ok()? }, cpu_ms))
}

/// A time such as `1m2.345s`.
fn milliseconds(text: &str) -> Option<u64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    let (minutes, seconds): (f64, f64) = (minutes.parse().ok()?, seconds.replace(',', ".").parse().ok()?);
    Some(((minutes * 60.0 + seconds) * 1000.0).round().max(0.0) as u64)
}

/// Tells a process from another one that has its number later: when the machine was started, and when the process was.
fn identity(process: Pid) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, in which anything may stand; the start is the 22nd. One that has ended and that nobody has waited for
    // is gone.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    let began = fields.nth(18)?.to_owned();
    Some(format!("{} {began}", boot.trim()))
}

/// Ends every program whose folder is left in `temporary`, and removes the folders, but for those of these steps. Only for whoever holds the project:
/// no program of it may be running. Returns how many were still there.
pub fn end_all(temporary: &Path, kept: &[(RunId, StepId)]) -> usize {
    let kept: Vec<PathBuf> = kept.iter().filter_map(|(run, step)| Some(find(temporary, *run, step)?.folder)).collect();
    let mut count = 0;
    for folder in folders(temporary).filter(|folder| !kept.contains(folder)) {
        // One that is being started finds its folder gone, or has noted its group.
        let told = folder.join(VALUE);
        let gone = folder.with_file_name(format!("ended-{}", folder.file_name().unwrap_or_default().to_string_lossy()));
        let folder = if std::fs::rename(&folder, &gone).is_ok() { gone } else { folder };
        let group = group(&folder);
        count += usize::from(end(group));
        end_escaped(group, &told);
        // What cannot be removed stays; nobody reads it.
        drop(std::fs::remove_dir_all(folder));
    }
    count
}

/// Ends the program that a step has going on, and that nobody looks after.
pub(crate) fn forget(temporary: &Path, run: RunId, step: &StepId) {
    if let Some(left) = find(temporary, run, step) {
        end(left.group);
        end_escaped(left.group, &left.folder.join(VALUE));
        drop(std::fs::remove_dir_all(left.folder));
    }
}

/// Ends what has left the group of a program, which is known by the file that it was told of.
fn end_escaped(group: Option<i32>, told: &Path) {
    for _ in 0..GONE_COUNT_MAX {
        let left = usage::escaped(group.map(Pid::from_raw), told);
        if left.is_empty() {
            break;
        }
        for process in left {
            kill(process, Signal::SIGKILL).unwrap_or_default();
        }
        std::thread::sleep(GONE_INTERVAL);
    }
}

/// Ends a group. Returns whether it was there.
fn end(group: Option<i32>) -> bool {
    let Some(group) = group.map(Pid::from_raw) else { return false };
    let is_there = killpg(group, Signal::SIGKILL).is_ok();
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

    /// FM-40: a number that was given to another process is nobody's.
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
        let noted = format!("{} {}", own.id(), identity(group(&own)).expect("it is there"));
        std::fs::write(folder("task-own").join(FILE), noted).expect("written");
        // Its number was given to another process.
        let noted =
            format!("{} {} 1", other.id(), std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id").trim());
        std::fs::write(folder("task-other").join(FILE), &noted).expect("written");
        folder("task-plain");
        folder("duckdb");
        assert_eq!(end_all(temporary.path(), &[]), 1);
        assert!(!own.wait().expect("it ends").success());
        assert!(other.try_wait().expect("asked").is_none(), "it goes on");
        // One that has ended while nobody looked, whose number was given away since: it is found, and the other one is nobody's.
        let (run, step) = (RunId::from_parts(1, 1), StepId::task("a"));
        let ended = folder("task-ended");
        std::fs::write(ended.join(OWNER), owner(run, &step, &Inputs { attempt: 2, ..Inputs::default() }).to_string())
            .expect("written");
        assert!(find(temporary.path(), run, &step).is_none(), "nobody knows how it ended, and it is not there");
        std::fs::write(ended.join(FILE), &noted).expect("written");
        std::fs::write(ended.join(EXIT), "3\n").expect("written");
        std::fs::write(ended.join("times"), "0m0.00s 0m0.00s\n1m0.25s 0m0.50s\n").expect("written");
        let left = find(temporary.path(), run, &step).expect("it has ended");
        assert_eq!((left.attempt, left.group, super::ended(&left.folder)), (2, None, Some((3, 60_750))));
        assert!(find(temporary.path(), run, &StepId::task("b")).is_none());
        forget(temporary.path(), run, &step);
        assert!(!ended.exists() && other.try_wait().expect("asked").is_none(), "it goes on");
        other.kill().expect("killed");
        other.wait().expect("it ends");
        let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["duckdb"]);
    }
}
