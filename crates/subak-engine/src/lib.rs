//! Runs a plan: a pure run state machine inside an async shell that owns limits, retries, timeouts and cancellation.
//!
//! Deliberately not here: what a connector is (connections are handed in), where definitions come from, and printing.

pub mod clock;
mod dbt;
pub mod execute;
pub mod failure;
mod load;
pub mod look;
pub mod machine;
pub mod orphan;
pub mod outbound;
mod output;
mod pipes;
pub mod program;
mod replay;
mod script;
mod shape;
pub mod shell;
pub mod stop;
mod task;
mod usage;
pub mod verify;

pub use clock::{Clock, SystemClock};
pub use execute::{Connections, DataExecutor, Progress, Reporter};
pub use machine::{Effect, Input, Machine, Slots, Take, pool_name};
pub use outbound::Outbound;
pub use program::Place;
pub use script::Invocations;
pub use shell::{Engine, EngineError, Inputs, Limits, Room, StepExecutor};
pub use stop::{StopReason, StopSignal};

/// How many seeds a simulation plays: what `SUBAK_SEEDS` said when it was built, as `make simulate` has it, else so many.
#[cfg(test)]
pub(crate) const fn seed_count(usual: u64) -> u64 {
    match option_env!("SUBAK_SEEDS") {
        Some(text) => match u64::from_str_radix(text, 10) {
            Ok(count) => count,
            Err(_) => usual,
        },
        None => usual,
    }
}
