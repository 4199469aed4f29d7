//! Leases: time-limited rights to act, each with a generation number that fences off earlier holders.

use std::time::Duration;

use async_trait::async_trait;
use subak_domain::Timestamp;

use crate::StoreError;

/// How long a lease lasts unless it is renewed.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// Rights to act.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease `name` if nobody holds it: if it is free, has run out at `now`, or its holder is a process of this
    /// machine that is gone.
    async fn acquire(&self, name: &str, holder: &Holder, now: Timestamp) -> Result<Acquired, StoreError>;
    /// Extends a lease. [`StoreError::Fenced`] when somebody else has it by now.
    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError>;
    /// Gives a lease back. Without effect when somebody else has it by now.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;
}

/// A lease that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Counts up with each holder.
    pub generation: u64,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours. `previous` is the holder that died without giving it back.
    Yes {
        /// The lease.
        lease: Lease,
        /// Who had it and did not give it back.
        previous: Option<Holder>,
    },
    /// Somebody else has it.
    No {
        /// Who.
        holder: Holder,
    },
}

/// A process that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// Name of its machine.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Identifies one boot of its machine, so that a process id from before a reboot means nothing.
    pub boot_id: String,
    /// When it was started, in clock ticks since boot: tells it from a later process with the same id.
    pub started_ticks: u64,
    /// What it does, for people, for example `subak run`.
    pub command: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "pid {} on {} (`{}`)", self.pid, self.host, self.command)
    }
}

impl Holder {
    /// This process.
    pub fn current(command: &str) -> Self {
        let pid = std::process::id();
        Self {
            host: read_trimmed("/proc/sys/kernel/hostname"),
            pid,
            boot_id: read_trimmed("/proc/sys/kernel/random/boot_id"),
            started_ticks: started_ticks(pid).unwrap_or(0),
            command: command.to_owned(),
        }
    }

    /// Whether the process is certainly there: it belongs to this boot of this machine.
    pub fn is_alive(&self) -> bool {
        self.host == read_trimmed("/proc/sys/kernel/hostname")
            && self.boot_id == read_trimmed("/proc/sys/kernel/random/boot_id")
            && !self.boot_id.is_empty()
            && started_ticks(self.pid) == Some(self.started_ticks)
    }

    /// Whether the process is certainly gone: it belongs to this boot of this machine, and no such process exists. A process of
    /// another machine is never certainly gone; its lease must run out.
    pub fn is_gone(&self) -> bool {
        let boot_id = read_trimmed("/proc/sys/kernel/random/boot_id");
        let is_here = self.host == read_trimmed("/proc/sys/kernel/hostname");
        if !is_here || boot_id.is_empty() {
            return false;
        }
        self.boot_id != boot_id || started_ticks(self.pid) != Some(self.started_ticks)
    }
}

fn read_trimmed(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Field 22 of `/proc/PID/stat`; the command in field 2 may hold spaces and parentheses. A zombie counts as gone.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_not_gone() {
        let holder = Holder::current("test");
        assert!(!holder.is_gone() && holder.is_alive());
        assert!(!Holder { host: "other".into(), ..holder.clone() }.is_alive(), "nobody knows");
        assert!(
            Holder { started_ticks: holder.started_ticks + 1, ..holder.clone() }.is_gone(),
            "a later process with the same id"
        );
        assert!(Holder { boot_id: "other".into(), ..holder.clone() }.is_gone(), "before a reboot");
        assert!(!Holder { host: "other".into(), boot_id: "other".into(), ..holder }.is_gone(), "another machine");
    }
}
