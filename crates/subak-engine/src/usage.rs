//! What programs use of the machine.

use std::process::ExitStatus;
use std::time::Duration;

use nix::unistd::{Pid, SysconfVar, sysconf};
use subak_domain::event::Usage;
use subak_domain::job::ProgramLimits;
use wait4::Wait4;

/// The most processes of one program that are looked at.
const PROCESS_COUNT_MAX: usize = 1_000;

/// Waits until a program ends; also tells what it used, with those of its children that it waited for.
pub(crate) async fn wait(child: std::process::Child) -> std::io::Result<(ExitStatus, Usage)> {
    let waited = tokio::task::spawn_blocking(move || child.wait4()).await.map_err(std::io::Error::other)??;
    let cpu = waited.rusage.utime + waited.rusage.stime;
    Ok((waited.status, Usage { cpu_ms: milliseconds(cpu), memory_bytes_max: waited.rusage.maxrss }))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a program and the processes below it use now: memory of all of them, and processor time, those of children that have ended included.
/// `None` where the system does not tell.
fn now(program: Pid) -> Option<Usage> {
    let constant = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let (page, tick) = (constant(SysconfVar::PAGE_SIZE)?, constant(SysconfVar::CLK_TCK)?.max(1));
    let mut found = Usage::default();
    let mut open = vec![program.as_raw()];
    let mut seen = 0;
    while let Some(process) = open.pop() {
        seen += 1;
        if seen > PROCESS_COUNT_MAX {
            break;
        }
        // One that has ended meanwhile uses nothing.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // proc(5): the third field stands first here. 14 to 17 are ticks of the process and of children that it has waited for, 24 is memory.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        found.cpu_ms += (14..=17).map(field).sum::<u64>() * 1000 / tick;
        found.memory_bytes_max += field(24) * page;
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    Some(found)
}

/// In which way a program has used more than it may; `None` where it has not.
pub(crate) fn excess(limits: &ProgramLimits, program: Option<Pid>) -> Option<String> {
    if *limits == ProgramLimits::default() {
        return None;
    }
    let now = now(program?)?;
    if let Some(most) = limits.memory_bytes_max.filter(|most| now.memory_bytes_max > *most) {
        let (used, most) = (now.memory_bytes_max / 1_000_000, most / 1_000_000);
        return Some(format!("the program used {used} MB of memory, and `memory_max` is {most} MB"));
    }
    let most = limits.cpu_ms_max.filter(|most| now.cpu_ms > *most)?;
    Some(format!("the program used {} s of processor time, and `cpu_max` is {} s", now.cpu_ms / 1000, most / 1000))
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
        assert!(usage.memory_bytes_max > 100_000, "{usage:?}");
    }

    #[test]
    fn a_limit_is_of_the_program_and_of_what_it_starts() {
        let mut child = Command::new("sh").args(["-c", "sleep 60; true"]).process_group(0).spawn().expect("starts");
        let program = Pid::from_raw(i32::try_from(child.id()).expect("a number"));
        let limits = |memory: Option<u64>, cpu: Option<u64>| ProgramLimits { memory_bytes_max: memory, cpu_ms_max: cpu };
        let told = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            excess(&limits(Some(1_000), None), Some(program))
        });
        assert!(told.is_some_and(|told| told.contains("of memory, and `memory_max` is 0 MB")));
        assert_eq!(excess(&limits(Some(1 << 40), Some(3_600_000)), Some(program)), None);
        assert_eq!(excess(&ProgramLimits::default(), Some(program)), None);
        nix::sys::signal::killpg(program, nix::sys::signal::Signal::SIGKILL).expect("killed");
        child.wait().expect("it ends");
        assert_eq!(excess(&limits(Some(1), Some(1)), Some(program)), None, "it is gone");
    }
}
