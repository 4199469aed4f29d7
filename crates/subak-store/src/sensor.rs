//! What is known of sensors: how far they have looked, and which runs they have started.

use serde_json::Value;
use subak_domain::{RunId, Timestamp};

use crate::{Append, Lease, Tick};

/// What is known of a sensor besides its ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorState {
    /// What its cursor is about; a cursor of anything else is not used.
    pub watches: String,
    /// What the next look begins with; null before the first one.
    pub cursor: Value,
    /// When it looked last.
    pub looked_at: Option<Timestamp>,
    /// What came of that, for people.
    pub came_to: String,
    /// Whether somebody has switched it off.
    pub is_off: bool,
    /// Counts the changes of this state, from 1. Whoever changes another revision than the one that is there changes nothing.
    pub revision: u64,
}

impl SensorState {
    /// That of one that has never looked.
    pub fn new(watches: impl Into<String>) -> Self {
        let (watches, came_to) = (watches.into(), String::new());
        Self { watches, cursor: Value::Null, looked_at: None, came_to, is_off: false, revision: 0 }
    }
}

/// One look with everything that follows from it: written as one, or not at all.
#[derive(Debug, Clone)]
pub struct SensorLook {
    /// The sensor.
    pub sensor: String,
    /// Its state afterwards, with the next revision.
    pub state: SensorState,
    /// What is kept of the look; a look that found nothing leaves none. Where the look has runs, the tick has those of them that are new.
    pub tick: Option<Tick>,
    /// The runs that it starts, each with the key by which it is known, if it has one. A key that is known already starts none.
    pub runs: Vec<(Option<String>, Append)>,
    /// Keys that sets of dynamic partitions get: the name of the set, and the key.
    pub partitions: Vec<(String, String)>,
    /// The lease under which the writer acts.
    pub fence: Option<Lease>,
}

/// What became of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It was written; these of its runs are new.
    Started(Vec<RunId>),
    /// Somebody changed the sensor meanwhile, so nothing was.
    Changed,
}

/// Something that a sensor was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The sensor.
    pub sensor: String,
    /// Its id; a sensor is told once by one.
    pub id: String,
    /// When it arrived.
    pub at: Timestamp,
    /// What was told.
    pub body: Value,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It is durable.
    New,
    /// Its id is known, and what was told then stands.
    Known,
    /// So many wait for the sensor that it was not taken.
    Full,
}
