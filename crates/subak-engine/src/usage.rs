//! What programs use of the machine.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::unistd::{Pid, SysconfVar, sysconf};
use subak_domain::event::Usage;
use subak_domain::job::ProgramLimits;
use wait4::Wait4;

/// The most processes of one program that are looked at.
const PROCESS_COUNT_MAX: usize = 1_000;

/// Waits until a program ends; also tells what it used, with those of its children that it waited for. Its memory is known where it is more than Subak
/// itself ever had: the system counts what a program was before it was started anew as this one.
pub(crate) async fn wait(child: std::process::Child) -> std::io::Result<(ExitStatus, Usage)> {
    let waited = tokio::task::spawn_blocking(move || child.wait4()).await.map_err(std::io::Error::other)??;
    let cpu = waited.rusage.utime + waited.rusage.stime;
    let own = status_of("self", "VmHWM").unwrap_or(u64::MAX);
    let memory_bytes_max = Some(waited.rusage.maxrss).filter(|most| *most > own);
    Ok((waited.status, Usage { cpu_ms: milliseconds(cpu), memory_bytes_max }))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An entry of a file below `/proc` of a process that tells kilobytes, in bytes.
fn entry_of(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn status_of(process: &str, name: &str) -> Option<u64> {
    entry_of(&format!("/proc/{process}/status"), name)
}

/// A program and the processes below it.
fn tree(program: Pid) -> Vec<i32> {
    let (mut open, mut found) = (vec![program.as_raw()], Vec::new());
    while let Some(process) = open.pop().filter(|_| found.len() < PROCESS_COUNT_MAX) {
        found.push(process);
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    found
}

/// Whether all processes of a group have ended, and only wait for somebody to ask how. Where nobody does, as in a container without an `init`, they
/// stay for good.
pub(crate) fn only_zombies(group: Pid) -> bool {
    let mut of_group = processes().filter(|process| group_of(*process).is_some_and(|(_, of)| of == group)).peekable();
    of_group.peek().is_some() && of_group.all(|process| group_of(process).is_none_or(|(is_zombie, _)| is_zombie))
}

/// All processes of the machine.
fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw)
}

/// Whether a process has ended, and waits for somebody to ask how, and the group that it is in; `None` where it is gone.
fn group_of(process: Pid) -> Option<(bool, Pid)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc(5): behind the name in parentheses come the state, the parent and the group.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    Some((is_zombie, Pid::from_raw(fields.nth(1)?.parse().ok()?)))
}

/// The processes outside a group whose environment names this file, as that of what a program has started does, in whatever group or session. Best
/// effort: what was started with another environment (`env -i`, `sudo`), or writes over its own, is not known by it.
pub(crate) fn escaped(group: Option<Pid>, told: &Path) -> Vec<Pid> {
    let told = told.as_os_str().as_bytes();
    let names_it = |process: &Pid| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.strip_prefix(b"SUBAK_VALUE_PATH=") == Some(told))
    };
    let is_elsewhere = |process: &Pid| group_of(*process).is_some_and(|(is_zombie, of)| !is_zombie && Some(of) != group);
    processes().filter(names_it).filter(is_elsewhere).collect()
}

/// The most memory, in bytes, that one process of a program had so far; `None` where the system does not tell.
pub(crate) fn memory_peak(program: Pid) -> Option<u64> {
    tree(program).into_iter().filter_map(|process| status_of(&process.to_string(), "VmHWM")).max()
}

/// Memory of a program and the processes below it now, in bytes. What several of them share counts once.
fn memory_now(program: Pid) -> u64 {
    let of = |process: i32| {
        let shared = entry_of(&format!("/proc/{process}/smaps_rollup"), "Pss");
        shared.or_else(|| status_of(&process.to_string(), "VmRSS")).unwrap_or(0)
    };
    tree(program).into_iter().map(of).sum()
}

/// Processor time of a program and the processes below it so far, in milliseconds, those of children that have ended included.
pub(crate) fn cpu_now(program: Pid) -> u64 {
    let tick = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(100).max(1);
    let of = |process: i32| {
        // One that has ended meanwhile uses nothing.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // proc(5): behind the name in parentheses comes the third field; 14 to 17 are ticks of the process and of children that it has waited for.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().skip(14 - 3).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    tree(program).into_iter().map(of).sum::<u64>() * 1000 / tick
}

/// In which way a program has used more than it may; `None` where it has not.
pub(crate) fn excess(limits: &ProgramLimits, program: Pid) -> Option<String> {
    let used = limits.memory_bytes_max.map(|most| (memory_now(program), most)).filter(|(used, most)| used > most);
    if let Some((used, most)) = used {
        return Some(format!("the program used {} of memory, and `memory_max` is {}", bytes(used), bytes(most)));
    }
    let (used, most) = limits.cpu_ms_max.map(|most| (cpu_now(program), most)).filter(|(used, most)| used > most)?;
    Some(format!("the program used {} s of processor time, and `cpu_max` is {} s", seconds(used), seconds(most)))
}

/// A size for people.
fn bytes(count: u64) -> String {
    if count < 10_000_000 { format!("{} kB", count.div_ceil(1_000)) } else { format!("{} MB", count / 1_000_000) }
}

/// Milliseconds as seconds.
fn seconds(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) {
        format!("{}", milliseconds / 1000)
    } else {
        format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn programs_are_measured_with_what_they_start() {
        let busy = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'";
        let child = Command::new("sh").args(["-c", &format!("{busy}; {busy}")]).process_group(0).spawn().expect("starts");
        let (status, usage) = wait(child).await.expect("it ends");
        assert!(status.success());
        assert!(usage.cpu_ms > 20, "of the children: {usage:?}");
    }

    #[test]
    fn a_limit_is_of_the_program_and_of_what_it_starts() {
        let mut child = Command::new("sh").args(["-c", "sleep 60; true"]).process_group(0).spawn().expect("starts");
        let program = Pid::from_raw(i32::try_from(child.id()).expect("a number"));
        let limits = |memory: Option<u64>, cpu: Option<u64>| ProgramLimits { memory_bytes_max: memory, cpu_ms_max: cpu };
        let told = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            excess(&limits(Some(1_000), None), program)
        });
        assert!(memory_peak(program).is_some_and(|peak| (100_000..100_000_000).contains(&peak)), "{:?}", memory_peak(program));
        assert!(told.is_some_and(|told| told.contains("of memory, and `memory_max` is 1 kB")));
        assert_eq!(excess(&limits(Some(1 << 40), Some(3_600_000)), program), None);
        assert_eq!(excess(&ProgramLimits::default(), program), None);
        nix::sys::signal::killpg(program, nix::sys::signal::Signal::SIGKILL).expect("killed");
        child.wait().expect("it ends");
        assert_eq!(excess(&limits(Some(1), Some(1)), program), None, "it is gone");
    }
}
