//! Identifiers of runs, steps and loads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// Identifies one run: a ULID, so ids sort by the time at which the run was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Ulid);

impl RunId {
    /// Builds the id of a run made at `unix_ms` with 80 random bits.
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(Ulid::from_parts(unix_ms, random))
    }

    /// Its 128 bits: the time in milliseconds, then 80 random ones.
    pub fn bits(&self) -> u128 {
        self.0.0
    }

    /// When the run was made, in milliseconds since 1970-01-01 UTC.
    pub fn unix_ms(&self) -> u64 {
        self.0.timestamp_ms()
    }
}

/// A text that is no run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a run id: it has 26 letters and digits, for example 01J8ZQ4M6T9P3V5X7Z2B4D6F8H")]
pub struct InvalidRunId(pub String);

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self).map_err(|_| InvalidRunId(text.to_owned()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0.to_string())
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Identifies one step inside its run: an asset key, or `check:<name>` for a standalone check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(String);

impl StepId {
    /// The step that brings `asset` up to date.
    pub fn asset(asset: &crate::AssetKey) -> Self {
        Self(asset.as_str().to_owned())
    }

    /// The step that brings one partition of `asset` up to date.
    pub fn partition(asset: &crate::AssetKey, key: &str) -> Self {
        Self(format!("{asset}[{key}]"))
    }

    /// The step of the whole asset, where this is one of its partitions; else the step itself.
    #[must_use]
    pub fn base(&self) -> Self {
        self.as_partition().map_or_else(|| self.clone(), |(asset, _)| Self::asset(&asset))
    }

    /// The asset and the key of the partition that the step brings up to date; `None` for any other step.
    pub fn as_partition(&self) -> Option<(crate::AssetKey, &str)> {
        let (asset, key) = self.0.strip_suffix(']')?.split_once('[')?;
        Some((asset.parse().ok()?, key))
    }

    /// The step that evaluates the standalone check `name`.
    pub fn check(name: &str) -> Self {
        Self(format!("check:{name}"))
    }

    /// The step that evaluates the checks of `asset` and changes nothing.
    pub fn audit(asset: &crate::AssetKey) -> Self {
        Self(format!("audit:{asset}"))
    }

    /// The step that runs the task `name` of a job.
    pub fn task(name: &str) -> Self {
        Self(format!("task:{name}"))
    }

    /// The step of a group for one of its items: the first place for an item in the id is filled.
    #[must_use]
    pub fn for_item(&self, name: &str) -> Self {
        Self(crate::job::for_item(&self.0, name))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// Identifies one load, whatever the attempt: the same step of the same run always has the same load id, so a destination
/// can recognise a load that it has already committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadId(String);

impl LoadId {
    /// The load that `step` of `run` makes from one version of its definition: after an edit it is another load.
    pub fn new(run: RunId, step: &StepId, version: &str) -> Self {
        Self(format!("{run}/{step}/{version}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A short identifier-safe form for names of stage tables: 12 hexadecimal digits.
    pub fn tag(&self) -> String {
        blake3::hash(self.0.as_bytes()).to_hex()[..12].to_owned()
    }
}

impl fmt::Display for LoadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}
