//! Whether assets are as fresh as their policies ask for.

use std::time::Duration;

use jiff::SignedDuration;
use subak_domain::freshness::{Freshness, FreshnessPolicy, FreshnessStatus};
use subak_domain::{Materialization, Schedule, Timestamp};

use crate::schedule::{ScheduleError, Times, least_interval};

/// Why a policy cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum FreshnessError {
    /// The deadline is no schedule.
    #[error(transparent)]
    Deadline(#[from] ScheduleError),
    /// What was made before one deadline would do for the next one too (T-82).
    #[error("`max_age` is longer than the {0} s between two deadlines, so that a deadline could pass unseen")]
    TooOld(u64),
    /// A warning that comes behind what it warns of, or beside deadlines.
    #[error("`warn_age` must be shorter than `max_age`")]
    Warning,
}

/// Whether a policy can be asked.
pub fn check(policy: &FreshnessPolicy) -> Result<(), FreshnessError> {
    if policy.warn_age.is_some_and(|age| age >= policy.max_age) {
        return Err(FreshnessError::Warning);
    }
    let Some(deadline) = &policy.deadline else { return Ok(()) };
    Times::new(deadline)?;
    // A day that has 23 hours once a year makes no day shorter here.
    let on_even_clock = Schedule { timezone: "UTC".to_owned(), ..deadline.clone() };
    let least = least_interval(&Times::new(&on_even_clock)?);
    if policy.max_age > least {
        return Err(FreshnessError::TooOld(least.as_secs()));
    }
    Ok(())
}

/// How fresh an asset is that was last brought up to date like this.
pub fn freshness(policy: &FreshnessPolicy, latest: Option<&Materialization>, now: Timestamp) -> Freshness {
    let unknown = Freshness { status: FreshnessStatus::Unknown, late_at: None, changes_at: None };
    let Some(made_at) = latest.map(|latest| latest.confirmed_at) else { return unknown };
    let Some(deadline) = &policy.deadline else { return by_age(policy, made_at, now) };
    // A schedule was asked before (`check`); one that cannot be has no deadlines.
    let Ok(times) = Times::new(deadline) else { return unknown };
    by_deadline(&times, policy.max_age, made_at, now)
}

fn behind(at: Timestamp, age: Duration) -> Option<Timestamp> {
    at.checked_add(SignedDuration::try_from(age).ok()?).ok()
}

/// At any time no older than so.
fn by_age(policy: &FreshnessPolicy, made_at: Timestamp, now: Timestamp) -> Freshness {
    let late_at = behind(made_at, policy.max_age);
    let warned_at = policy.warn_age.and_then(|age| behind(made_at, age));
    let is_past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    let (status, changes_at) = if is_past(late_at) {
        (FreshnessStatus::Late, None)
    } else if is_past(warned_at) {
        (FreshnessStatus::Warned, late_at)
    } else {
        (FreshnessStatus::Fresh, warned_at.or(late_at))
    };
    Freshness { status, late_at, changes_at }
}

/// At each deadline no older than so: the last deadline that has passed decides (T-80), and what was made too early for it does not do (T-81).
fn by_deadline(times: &Times, max_age: Duration, made_at: Timestamp, now: Timestamp) -> Freshness {
    let meets = |deadline: Timestamp| behind(made_at, max_age).is_none_or(|until| until >= deadline);
    let just_behind = now.checked_add(SignedDuration::from_nanos(1)).unwrap_or(now);
    let next = times.next_after(now);
    match times.last_before(just_behind) {
        Some(last) if !meets(last) => {
            // Late since the first deadline that it did not meet.
            let first = times.next_after(behind(made_at, max_age).unwrap_or(last)).filter(|first| *first <= last);
            Freshness { status: FreshnessStatus::Late, late_at: first.or(Some(last)), changes_at: None }
        }
        _ => {
            let late_at = next.and_then(|next| if meets(next) { times.next_after(next) } else { Some(next) });
            Freshness { status: FreshnessStatus::Fresh, late_at, changes_at: late_at }
        }
    }
}

#[cfg(test)]
mod tests {
    use subak_domain::schedule::ScheduleRule;
    use subak_domain::{Notifications, RunId, Version};

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().expect("a moment")
    }

    fn hours(count: u64) -> Duration {
        Duration::from_secs(count * 3600)
    }

    fn made(text: &str) -> Option<Materialization> {
        (!text.is_empty()).then(|| Materialization {
            version: Version::of(&[]),
            position: 1,
            confirmed_position: 1,
            run: RunId::from_parts(0, 0),
            at: Timestamp::UNIX_EPOCH,
            confirmed_at: at(text),
            row_count: None,
            account: None,
        })
    }

    fn policy(max_age: Duration, warn_age: Option<Duration>, deadline: Option<&str>) -> FreshnessPolicy {
        let deadline = deadline.map(|line| Schedule::new(ScheduleRule::Cron(vec![line.to_owned()]), "UTC"));
        FreshnessPolicy { max_age, warn_age, deadline, notifications: Notifications::default() }
    }

    #[track_caller]
    fn assert_state(policy: &FreshnessPolicy, made_at: &str, now: &str, status: FreshnessStatus, late_at: &str) {
        let found = freshness(policy, made(made_at).as_ref(), at(now));
        let late_at = (!late_at.is_empty()).then(|| at(late_at));
        assert_eq!((found.status, found.late_at), (status, late_at), "made {made_at}, now {now}");
    }

    #[test]
    fn an_asset_ages() {
        let policy = policy(hours(24), Some(hours(12)), None);
        assert_state(&policy, "", "20T08:00", FreshnessStatus::Unknown, "");
        assert_state(&policy, "20T08:00", "20T08:00", FreshnessStatus::Fresh, "21T08:00");
        assert_state(&policy, "20T08:00", "20T19:59", FreshnessStatus::Fresh, "21T08:00");
        assert_state(&policy, "20T08:00", "20T20:00", FreshnessStatus::Warned, "21T08:00");
        assert_state(&policy, "20T08:00", "21T08:00", FreshnessStatus::Late, "21T08:00");
        let changes = freshness(&policy, made("20T08:00").as_ref(), at("20T09:00")).changes_at;
        assert_eq!(changes, Some(at("20T20:00")));
    }

    /// T-80: before the deadline of today the one of yesterday counts; what was never made is unknown.
    #[test]
    fn t_80_the_last_deadline_that_has_passed_counts() {
        let policy = policy(hours(6), None, Some("0 9 * * *"));
        assert_state(&policy, "", "20T10:00", FreshnessStatus::Unknown, "");
        assert_state(&policy, "19T08:00", "20T08:59", FreshnessStatus::Fresh, "20T09:00");
        assert_state(&policy, "19T08:00", "20T09:00", FreshnessStatus::Late, "20T09:00");
        assert_state(&policy, "20T08:00", "20T09:00", FreshnessStatus::Fresh, "21T09:00");
        assert_state(&policy, "17T08:00", "20T12:00", FreshnessStatus::Late, "18T09:00");
    }

    /// T-81: too early does not do at the deadline; too late turns back when it is there.
    #[test]
    fn t_81_too_early_does_not_do_and_late_turns_back() {
        let policy = policy(hours(6), None, Some("0 9 * * *"));
        assert_state(&policy, "20T02:59", "20T08:00", FreshnessStatus::Fresh, "20T09:00");
        assert_state(&policy, "20T02:59", "20T09:00", FreshnessStatus::Late, "20T09:00");
        assert_state(&policy, "20T03:00", "20T09:00", FreshnessStatus::Fresh, "21T09:00");
        assert_state(&policy, "20T11:00", "20T11:00", FreshnessStatus::Fresh, "21T09:00");
    }

    /// T-82, and warnings behind what they warn of.
    #[test]
    fn t_82_policies_that_cannot_hold_are_refused() {
        assert!(check(&policy(hours(24), None, Some("0 9 * * *"))).is_ok());
        let problem = check(&policy(hours(25), None, Some("0 9 * * *"))).expect_err("too long").to_string();
        assert!(problem.contains("86400 s"), "{problem}");
        assert!(check(&policy(hours(1), None, Some("0 25 * * *"))).is_err());
        assert!(check(&policy(hours(1), Some(hours(1)), None)).is_err());
        assert!(check(&policy(hours(2), Some(hours(1)), None)).is_ok());
    }
}
