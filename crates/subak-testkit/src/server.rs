//! What servers of tests have in common.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How often, and how long each time, a test waits for a server to start or end.
pub(crate) const WAIT_COUNT_MAX: usize = 1000;
pub(crate) const WAIT: Duration = Duration::from_millis(50);

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port of 127.0.0.1 on which nobody listens, below those that the system gives away: a server that stops and comes back finds it free.
pub(crate) fn free_port() -> u16 {
    let start = RandomState::new().hash_one("port") % 20_000;
    (0..1000)
        .filter_map(|offset| u16::try_from(12_000 + (start + offset * 31) % 20_000).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// The number of a user of the system.
pub(crate) fn user_id(name: &str) -> u32 {
    run(Command::new("id").args(["-u", name])).trim().parse().expect("a user's number")
}

/// Makes a certificate for 127.0.0.1 that signed itself.
pub(crate) fn self_signed(openssl: &mut Command, key: &Path, certificate: &Path) {
    run(openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=subak", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]));
}
