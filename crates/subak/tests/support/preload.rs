//! A library of a test that stands between a command and the system's.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes one of `tests/fixtures/NAME.c` in a folder, for `LD_PRELOAD`.
pub(crate) fn library(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).with_extension("c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).arg("-ldl").output();
    let made = made.expect("cc (apt-get install build-essential)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}
