//! Whether a server has a project.

use std::path::Path;
use std::time::Duration;

/// Waits until a server has the project in a folder, so that other commands find it.
#[track_caller]
pub(crate) fn wait(folder: &Path) {
    for _ in 0..600 {
        let holder = || {
            let state = rusqlite::Connection::open(folder.join(".subak/state.db")).ok()?;
            state.query_row("select holder from leases where holder is not null", [], |row| row.get::<_, String>(0)).ok()
        };
        if holder().is_some_and(|holder| holder.contains("subak server")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no server took the project");
}
