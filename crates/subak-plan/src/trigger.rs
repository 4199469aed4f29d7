//! Trigger rules: whether a step runs, by how the steps that it needs ended.
//!
//! The rules and the moments at which they decide are Airflow's (`ti_deps/deps/trigger_rule_dep.py`): some act before all steps have ended.

use subak_domain::Trigger;

/// How many of the steps that a step needs ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Succeeded, or had nothing to do.
    pub succeeded: usize,
    /// Failed, or were stopped.
    pub failed: usize,
    /// Were skipped.
    pub skipped: usize,
    /// Were skipped because of a failure before them.
    pub upstream_failed: usize,
    /// Setups among them.
    pub setups: usize,
    /// Setups among those that succeeded.
    pub setups_succeeded: usize,
    /// Setups among those that were skipped.
    pub setups_skipped: usize,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing can be said yet.
    Wait,
    /// It runs.
    Run,
    /// It is skipped.
    Skip,
    /// It is not run because of a failure before it.
    UpstreamFailed,
}

impl Counts {
    fn is_done(&self) -> bool {
        self.succeeded + self.failed + self.skipped + self.upstream_failed >= self.total
    }

    fn bad(&self) -> usize {
        self.failed + self.upstream_failed
    }
}

/// What becomes of a step with this rule. A step that needs nothing runs, whatever its rule.
pub fn decide(trigger: Trigger, counts: &Counts) -> Decision {
    use Decision::{Run, Skip, UpstreamFailed, Wait};
    use Trigger as T;
    if counts.total == 0 || trigger == T::Always {
        return Run;
    }
    let (done, bad) = (counts.is_done(), counts.bad());
    let (succeeded, skipped) = (counts.succeeded, counts.skipped);
    // In this order: a failure outranks a skip.
    let decided = match trigger {
        T::AllSuccess if bad > 0 => UpstreamFailed,
        T::AllSuccess | T::NoneSkipped if skipped > 0 => Skip,
        T::AllFailed if succeeded > 0 || skipped > 0 => Skip,
        T::AllDoneMinOneSuccess if skipped > 0 => Skip,
        T::AllDoneMinOneSuccess if done && succeeded == 0 => UpstreamFailed,
        T::AllDoneSetupSuccess if done && counts.setups_succeeded == 0 => {
            if counts.setups == counts.setups_skipped {
                Skip
            } else {
                UpstreamFailed
            }
        }
        T::OneSuccess if succeeded > 0 => Run,
        T::OneSuccess if done && skipped == counts.total => Skip,
        T::OneSuccess if done => UpstreamFailed,
        T::OneFailed if bad > 0 => Run,
        T::OneDone if succeeded + counts.failed > 0 => Run,
        T::OneFailed | T::OneDone if done => Skip,
        T::NoneFailed | T::NoneFailedMinOneSuccess if bad > 0 => UpstreamFailed,
        T::NoneFailedMinOneSuccess if done && skipped == counts.total => Skip,
        T::NoneFailedMinOneSuccess if done && succeeded == 0 => UpstreamFailed,
        T::AllSkipped if succeeded + bad > 0 => Skip,
        _ if done => Run,
        _ => Wait,
    };
    // Eager or not, these two say nothing before all have ended.
    let waits = matches!(trigger, T::AllDone | T::AllDoneSetupSuccess);
    if waits && !done { Wait } else { decided }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an upstream step can be.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Upstream {
        Succeeded,
        Failed,
        Skipped,
        Blocked,
        Open,
    }

    const ALL: [Upstream; 5] = [Upstream::Succeeded, Upstream::Failed, Upstream::Skipped, Upstream::Blocked, Upstream::Open];

    fn counts(states: &[Upstream]) -> Counts {
        let number = |wanted: Upstream| states.iter().filter(|state| **state == wanted).count();
        Counts {
            total: states.len(),
            succeeded: number(Upstream::Succeeded),
            failed: number(Upstream::Failed),
            skipped: number(Upstream::Skipped),
            upstream_failed: number(Upstream::Blocked),
            ..Counts::default()
        }
    }

    /// The published table, written once more, from the states themselves and not from numbers.
    fn expected(trigger: Trigger, states: &[Upstream]) -> Decision {
        use Upstream as U;
        let any = |wanted: &[U]| states.iter().any(|state| wanted.contains(state));
        let all = |wanted: &[U]| states.iter().all(|state| wanted.contains(state));
        let done = !any(&[U::Open]);
        let pick =
            |rules: &[(bool, Decision)]| rules.iter().find(|(holds, _)| *holds).map_or(Decision::Wait, |(_, decision)| *decision);
        let (run, skip, upstream_failed) = (Decision::Run, Decision::Skip, Decision::UpstreamFailed);
        if states.is_empty() {
            return run;
        }
        match trigger {
            Trigger::Always => run,
            Trigger::AllSuccess => {
                pick(&[(all(&[U::Succeeded]), run), (any(&[U::Failed, U::Blocked]), upstream_failed), (any(&[U::Skipped]), skip)])
            }
            Trigger::AllFailed => pick(&[(all(&[U::Failed, U::Blocked]), run), (any(&[U::Succeeded, U::Skipped]), skip)]),
            Trigger::AllDone => pick(&[(done, run)]),
            Trigger::AllDoneMinOneSuccess => {
                pick(&[(any(&[U::Skipped]), skip), (done && any(&[U::Succeeded]), run), (done, upstream_failed)])
            }
            // Without setups among them.
            Trigger::AllDoneSetupSuccess => pick(&[(done, skip)]),
            Trigger::OneSuccess => pick(&[(any(&[U::Succeeded]), run), (all(&[U::Skipped]), skip), (done, upstream_failed)]),
            Trigger::OneFailed => pick(&[(any(&[U::Failed, U::Blocked]), run), (done, skip)]),
            Trigger::OneDone => pick(&[(any(&[U::Succeeded, U::Failed]), run), (done, skip)]),
            Trigger::NoneFailed => pick(&[(any(&[U::Failed, U::Blocked]), upstream_failed), (done, run)]),
            Trigger::NoneFailedMinOneSuccess => pick(&[
                (any(&[U::Failed, U::Blocked]), upstream_failed),
                (all(&[U::Skipped]), skip),
                (done && any(&[U::Succeeded]), run),
                (done, upstream_failed),
            ]),
            Trigger::NoneSkipped => pick(&[(any(&[U::Skipped]), skip), (done, run)]),
            Trigger::AllSkipped => pick(&[(all(&[U::Skipped]), run), (any(&[U::Succeeded, U::Failed, U::Blocked]), skip)]),
        }
    }

    /// Every multiset of up to `length` upstream outcomes.
    fn multisets(length: usize) -> Vec<Vec<Upstream>> {
        let mut all = vec![Vec::new()];
        let mut last: Vec<(usize, Vec<Upstream>)> = vec![(0, Vec::new())];
        for _ in 0..length {
            let longer = |(from, states): &(usize, Vec<Upstream>)| {
                let (from, states) = (*from, states.clone());
                ALL[from..]
                    .iter()
                    .enumerate()
                    .map(move |(at, state)| (from + at, [states.as_slice(), &[*state]].concat()))
                    .collect::<Vec<_>>()
            };
            last = last.iter().flat_map(longer).collect();
            all.extend(last.iter().map(|(_, states)| states.clone()));
        }
        all
    }

    /// T-30 to T-36: every rule against every multiset of up to four upstream outcomes, unfinished ones included.
    #[test]
    fn t_30_to_t_36_every_rule_decides_as_published() {
        let cases = multisets(4);
        assert_eq!(cases.len(), 126);
        for (name, trigger) in Trigger::NAMES {
            for states in &cases {
                assert_eq!(decide(trigger, &counts(states)), expected(trigger, states), "{name} {states:?}");
            }
        }
    }

    /// Setups decide about teardowns.
    #[test]
    fn t_47_teardowns_follow_their_setups() {
        let case = |succeeded: usize, failed: usize, skipped: usize, setups: [usize; 3]| {
            let [setups, setups_succeeded, setups_skipped] = setups;
            let counts =
                Counts { total: 2, succeeded, failed, skipped, setups, setups_succeeded, setups_skipped, ..Counts::default() };
            decide(Trigger::AllDoneSetupSuccess, &counts)
        };
        assert_eq!(case(1, 1, 0, [1, 1, 0]), Decision::Run, "the work failed");
        assert_eq!(case(1, 0, 0, [1, 1, 0]), Decision::Wait, "the work goes on");
        assert_eq!(case(0, 0, 2, [1, 0, 1]), Decision::Skip, "the setup was skipped");
        assert_eq!(case(0, 2, 0, [1, 0, 0]), Decision::UpstreamFailed, "the setup failed");
    }

    #[test]
    fn t_31_a_failure_outranks_a_skip() {
        let both = counts(&[Upstream::Failed, Upstream::Skipped]);
        assert_eq!(decide(Trigger::AllSuccess, &both), Decision::UpstreamFailed);
    }
}
