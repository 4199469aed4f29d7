//! How fresh assets are, in words, and telling people when that changes.
//!
//! What was told last stands in the store, so that each change is told once, also by the next server (T-83).

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;
use subak_domain::{
    AssetGraph, AssetKey, Freshness, FreshnessPolicy, FreshnessStatus, KnownFreshness, Notice, NoticeState, Occasion, Snapshot,
    Timestamp,
};
use subak_notify::Message;
use subak_plan::freshness::freshness;
use subak_store::{Lease, SqliteStore};

use crate::exit::CliError;
use crate::printer;

/// The policies of a project, and when it was last looked whether they hold.
pub(crate) struct Policies {
    policies: BTreeMap<AssetKey, FreshnessPolicy>,
    /// Up to which event, and when something changes by itself the next time.
    looked: Mutex<Option<(u64, Timestamp)>>,
}

impl Policies {
    pub(crate) fn of(graph: &AssetGraph) -> Self {
        let policy = |asset: &subak_domain::Asset| Some((asset.key.clone(), asset.freshness.clone()?));
        Self { policies: graph.assets().iter().filter_map(policy).collect(), looked: Mutex::new(None) }
    }

    /// Whether nothing can have changed since the last look.
    fn is_seen(&self, newest: u64, now: Timestamp) -> bool {
        let looked = *self.looked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        looked.is_some_and(|(position, changes_at)| position == newest && now < changes_at)
    }

    fn saw(&self, newest: u64, changes_at: Timestamp) {
        *self.looked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((newest, changes_at));
    }
}

/// Notes which assets have become late, and which are fresh again, with what there is to tell of it.
pub(crate) async fn enter(store: &SqliteStore, lease: &Lease, policies: &Policies, now: Timestamp) -> Result<(), CliError> {
    let newest = store.newest_position()?;
    if policies.is_seen(newest, now) {
        return Ok(());
    }
    let before: BTreeMap<AssetKey, FreshnessStatus> =
        store.known_freshness()?.into_iter().map(|known| (known.asset, known.status)).collect();
    let snapshot = if policies.policies.is_empty() { Snapshot::default() } else { store.snapshot()? };
    let (mut known, mut made, mut changes_at) = (Vec::new(), Vec::new(), Timestamp::MAX);
    for (key, policy) in &policies.policies {
        let latest = snapshot.latest.get(key);
        let found = freshness(policy, latest, now);
        changes_at = found.changes_at.map_or(changes_at, |at| at.min(changes_at));
        known.push(KnownFreshness { asset: key.clone(), status: found.status });
        let occasion = occasion(before.get(key).copied(), found.status);
        let Some((occasion, latest)) = occasion.zip(latest) else { continue };
        let receivers = policy.notifications.receivers.get(&occasion).map(Vec::as_slice).unwrap_or_default();
        made.extend(receivers.iter().map(|receiver| Notice {
            position: newest,
            run: latest.run,
            asset: Some(key.clone()),
            occasion,
            receiver: receiver.clone(),
            state: NoticeState::Open { attempt_count: 0, due_at: now, error: None },
            made_at: now,
        }));
    }
    let is_same = known.len() == before.len() && known.iter().all(|one| before.get(&one.asset) == Some(&one.status));
    if !is_same {
        store.set_freshness(known, made, lease.clone()).await?;
    }
    policies.saw(newest, changes_at);
    Ok(())
}

/// What a change of the status is an occasion for.
fn occasion(before: Option<FreshnessStatus>, now: FreshnessStatus) -> Option<Occasion> {
    use FreshnessStatus as S;
    match (before, now) {
        (Some(S::Late), S::Late) => None,
        (_, S::Late) => Some(Occasion::Late),
        (Some(S::Late), S::Fresh | S::Warned) => Some(Occasion::Recovery),
        _ => None,
    }
}

/// What a receiver is told of an asset.
pub(crate) fn message(
    store: &SqliteStore,
    project: &str,
    policies: &Policies,
    notice: &Notice,
    key: &AssetKey,
    now: Timestamp,
) -> Result<Message, CliError> {
    let moment = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let latest = store.snapshot()?.latest.get(key).cloned();
    let made_at = latest.as_ref().map(|latest| latest.confirmed_at);
    let found = policies.policies.get(key).map(|policy| freshness(policy, latest.as_ref(), now));
    let what = if notice.occasion == Occasion::Late { "is late" } else { "is fresh again" };
    let title = format!("[{project}] asset `{key}` {what}");
    let mut lines = vec![title.clone()];
    lines.extend(made_at.map(|at| format!("it was last brought up to date at {}, by run {}", moment(at), notice.run)));
    lines.extend(policies.policies.get(key).map(|policy| format!("its `freshness` asks for {}", words_of(policy))));
    if notice.occasion == Occasion::Late {
        lines.push(format!(
            "data: readers see it as it was then; look: `subak why {key}`; bring it up to date: `subak run +{key}`"
        ));
    }
    let text = lines.join("\n");
    let facts = json!({
        "occasion": notice.occasion.as_str(), "project": project, "asset": key.as_str(), "run": notice.run.to_string(),
        "status": found.map(|found| found.status.as_str()), "made_at": made_at.map(moment),
        "late_at": found.and_then(|found| found.late_at).map(moment), "text": text,
        "id": format!("{}-{}-{key}", notice.position, notice.occasion),
    });
    Ok(Message { title, text, facts })
}

/// How fresh an asset is; `None` where nothing says how fresh it has to be.
pub(crate) fn of(asset: &subak_domain::Asset, snapshot: &Snapshot, now: Timestamp) -> Option<Freshness> {
    Some(freshness(asset.freshness.as_ref()?, snapshot.latest.get(&asset.key), now))
}

/// What a policy asks for, for people.
pub(crate) fn words_of(policy: &FreshnessPolicy) -> String {
    let age = printer::duration(u64::try_from(policy.max_age.as_millis()).unwrap_or(u64::MAX));
    match &policy.deadline {
        None => format!("no more than {age} at any time"),
        Some(deadline) => {
            let lines = match &deadline.rule {
                subak_domain::schedule::ScheduleRule::Cron(lines) => lines.join("`, `"),
                subak_domain::schedule::ScheduleRule::Every(every) => format!("every {every:?}"),
            };
            format!("no more than {age} at each `{lines}` ({})", deadline.timezone)
        }
    }
}

/// How fresh something is, in a few words: `late for 2 h 05 min`, `fresh, late in 40 min`.
pub(crate) fn words(found: &Freshness, now: Timestamp) -> String {
    let between = |from: Timestamp, to: Timestamp| {
        printer::duration(u64::try_from(to.duration_since(from).as_millis().max(0)).unwrap_or(u64::MAX))
    };
    match (found.status, found.late_at) {
        (FreshnessStatus::Unknown, _) => "never brought up to date".to_owned(),
        (FreshnessStatus::Late, Some(at)) => format!("late for {}", between(at, now)),
        (status, Some(at)) => format!("{status}, late in {}", between(now, at)),
        (status, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-83: each change is told once.
    #[test]
    fn t_83_changes_are_told_once() {
        use FreshnessStatus as S;
        let cases = [
            (None, S::Unknown, None),
            (None, S::Fresh, None),
            (None, S::Late, Some(Occasion::Late)),
            (Some(S::Fresh), S::Late, Some(Occasion::Late)),
            (Some(S::Warned), S::Late, Some(Occasion::Late)),
            (Some(S::Late), S::Late, None),
            (Some(S::Late), S::Fresh, Some(Occasion::Recovery)),
            (Some(S::Late), S::Warned, Some(Occasion::Recovery)),
            (Some(S::Fresh), S::Warned, None),
            (Some(S::Warned), S::Fresh, None),
        ];
        for (before, now, expected) in cases {
            assert_eq!(occasion(before, now), expected, "{before:?} to {now}");
        }
    }
}
