//! Named points at which a test can kill the process, to prove that a crash there loses and doubles nothing.
//!
//! In normal use a point costs one relaxed load. The binary arms a point from its environment; nothing else does.

use std::sync::OnceLock;

static ARMED: OnceLock<String> = OnceLock::new();

/// Every point that all runs pass, in the order in which they do. Destinations may have more.
pub const POINTS: &[&str] = &[
    "run_planned",
    "run_started",
    "step_started",
    "load_begun",
    "batch_staged",
    "rows_staged",
    "before_publish",
    "inside_publish",
    "after_publish",
    "step_reported",
    "before_finish",
];

/// What stands before a point at which the process is not killed, but the code there panics.
const PANIC: &str = "panic:";

/// Arms the point `name`: the process dies by `abort` when it passes it for the first time; with `panic:` before the name it panics there each time.
/// Only the first call counts.
pub fn arm(name: &str) {
    drop(ARMED.set(name.to_owned()));
}

/// Dies here if this point is armed. Abort runs no destructors and flushes nothing, like `kill -9`.
pub fn point(name: &str) {
    let Some(armed) = ARMED.get() else { return };
    if armed == name {
        std::process::abort();
    }
    assert!(armed.strip_prefix(PANIC) != Some(name), "asked to panic at `{name}`");
}
