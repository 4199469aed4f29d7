//! How every asset stands, kept until the log or the project is another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use subak_domain::{AssetKey, Snapshot, Timestamp};
use subak_server::Problem;
use subak_store::SqliteStore;

use super::{Serving, failed};
use crate::commands::list;

/// How long a picture holds although nothing was written: what is due may depend on the time.
const SECONDS_MAX: i64 = 60;

/// How everything stands at a position of the log.
pub(super) struct Picture {
    pub(super) serving: Arc<Serving>,
    pub(super) snapshot: Snapshot,
    /// The status of each asset, and why it is not fresh.
    pub(super) statuses: BTreeMap<AssetKey, (&'static str, Option<String>)>,
    position: u64,
    at: Timestamp,
}

impl Picture {
    pub(super) fn new(serving: Arc<Serving>, store: &SqliteStore, position: u64, at: Timestamp) -> Result<Self, Problem> {
        let snapshot = store.snapshot().map_err(failed)?;
        let due = list::due(&serving.opened, &snapshot);
        let by_step = list::by_step(&due);
        let statuses = serving.opened.graph().assets().iter().map(|asset| {
            let action = by_step.get(&subak_domain::StepId::asset(&asset.key)).copied();
            (asset.key.clone(), list::stands(asset, &snapshot, action, serving.opened.now()))
        });
        let statuses = statuses.collect();
        Ok(Self { serving, snapshot, statuses, position, at })
    }

    pub(super) fn is_of(&self, serving: &Arc<Serving>, position: u64, now: Timestamp) -> bool {
        Arc::ptr_eq(&self.serving, serving) && self.position == position && now.duration_since(self.at).as_secs() < SECONDS_MAX
    }

    /// The status of an asset, and why it is not fresh. One that failed since it was last made is failed, whatever else it is.
    pub(super) fn status(&self, key: &AssetKey, has_failed: bool) -> (&'static str, Option<String>) {
        let (status, reason) = self.statuses.get(key).cloned().unwrap_or(("missing", None));
        if has_failed { ("failed", reason) } else { (status, reason) }
    }
}
