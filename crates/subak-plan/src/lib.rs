//! Pure decisions: which assets a selection names, what is stale and why, and the ordered plan that follows.
//!
//! Deliberately not here: reading files or state, clocks, and doing anything.

pub mod automation;
pub mod backfill;
pub mod expression;
pub mod freshness;
pub mod partition;
mod plan;
pub mod schedule;
pub mod selection;
pub mod sensor;
pub mod tasks;
mod together;
pub mod trigger;

pub use partition::{Known, PartitionError, PartitionPick};
pub use plan::{PARTITION_COUNT_MAX, Plan, PlanRequest, plan, plan_checks};
pub use selection::{Selected, SelectionError, select};
