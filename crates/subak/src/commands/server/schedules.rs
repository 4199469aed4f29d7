//! Ticks: which are due, and what they start.

use futures::{StreamExt, TryStreamExt};
use subak_domain::schedule::{CatchUp, Interval, on_clock};
use subak_domain::{Job, JobWork, RunEvent, Schedule, Snapshot, Timestamp};
use subak_engine::{Clock, SystemClock};
use subak_plan::schedule::Times;
use subak_store::{Append, Tick, TickOutcome};

use super::super::{automation, job, plan, run};
use super::{LATE_MAX, MISSED_COUNT_MAX, Server, sensor};
use crate::args::Selection;
use crate::exit::{CliError, Exit};

/// Ticks that are written together at most.
const GROUP_LENGTH_MAX: usize = 256;

/// Runs of one job that wait at most, where each of its ticks starts one.
const WAITING_COUNT_MAX: usize = 1_000;

/// A job with its schedule.
pub(super) struct Scheduled {
    pub(super) job: Job,
    pub(super) schedule: Schedule,
    pub(super) times: Times,
}

impl Scheduled {
    /// When the run of a tick begins.
    fn begins_at(&self, tick: Timestamp) -> Timestamp {
        tick + jiff::SignedDuration::try_from(self.times.delay(&self.job.name, tick)).unwrap_or_default()
    }
}

/// A tick with the run that it starts.
type Made = (Tick, Option<Append>);

impl Server<'_> {
    /// Evaluates every schedule whose time has come, and writes down its ticks.
    pub(super) async fn evaluate(&mut self, now: Timestamp) -> Result<(), CliError> {
        let (mut made, mut snapshot) = (Vec::new(), None);
        while let Some((_, name)) = self.agenda.first().filter(|(at, _)| *at <= now).cloned() {
            self.agenda.pop_first();
            let Some(scheduled) = self.schedules.get(&name).cloned() else { continue };
            let next = self.due(&scheduled, now, &mut snapshot, &mut made)?;
            self.agenda.extend(next.map(|at| (at, name)));
        }
        let (store, lease, printer) = (self.hold.store(), self.hold.lease(), self.context.printer);
        let written = futures::stream::iter(made).map(|(tick, append)| async move {
            let (name, at, text) = (tick.schedule.clone(), tick.at, sensor::in_words(&tick.outcome));
            if store.tick(tick, append, Some(lease.clone())).await? {
                printer.note(&format!("tick of `{name}` at {}: {text}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
            }
            Ok::<(), CliError>(())
        });
        written.buffered(GROUP_LENGTH_MAX).try_collect().await
    }

    /// The ticks of a schedule that are due, oldest first. Returns when it is to be looked at again; `None` when it never comes any more.
    fn due(
        &self,
        scheduled: &Scheduled,
        now: Timestamp,
        snapshot: &mut Option<Snapshot>,
        made: &mut Vec<Made>,
    ) -> Result<Option<Timestamp>, CliError> {
        let Scheduled { job, schedule, times } = scheduled;
        let next = times.next_after(now).map(|next| scheduled.begins_at(next));
        let Some(state) = self.hold.store().schedule(&job.name)?.filter(|state| !state.is_off) else { return Ok(next) };
        let last = self.hold.store().ticks(Some(&job.name), 1)?.first().map_or(state.since, |tick| tick.at.max(state.since));
        let (due, later): (Vec<Timestamp>, Vec<Timestamp>) =
            times.due(last, now, MISSED_COUNT_MAX).into_iter().partition(|at| scheduled.begins_at(*at) <= now);
        let newest = due.last().copied();
        let (mut waiting, mut waiting_count) = self.queue.of_job(&job.name);
        let mut ended = None;
        for at in due {
            let is_late =
                now.duration_since(scheduled.begins_at(at)) > jiff::SignedDuration::try_from(LATE_MAX).unwrap_or_default();
            let skipped = match schedule.catchup {
                CatchUp::All if waiting_count < WAITING_COUNT_MAX => None,
                CatchUp::All => Some(format!("{waiting_count} runs of the same job wait")),
                CatchUp::Latest if Some(at) != newest => Some("a newer tick was due too".to_owned()),
                CatchUp::None if is_late => Some("no server ran when it was due".to_owned()),
                _ => waiting.map(|run| format!("run {run} of the same job still waits")),
            };
            let planned = match skipped {
                Some(reason) => Err(TickOutcome::Skipped(reason)),
                None => match self.plan(
                    scheduled,
                    at,
                    ended.map_or_else(|| self.hold.store().last_started(&job.name), |at| Ok(Some(at)))?,
                    snapshot,
                ) {
                    Ok(planned) => planned,
                    Err(error) if error.exit == Exit::Invalid => Err(TickOutcome::Failed(error.summary())),
                    Err(error) => return Err(error),
                },
            };
            let recorded_at = SystemClock.now();
            let (outcome, append) = match planned {
                Ok(planned) => {
                    let run = run::new_run();
                    (waiting, ended) = (Some(run), Some(at));
                    waiting_count += 1;
                    let events = vec![(recorded_at, planned)];
                    (TickOutcome::Started(vec![run]), Some(Append { run, expected: 1, events, fence: None }))
                }
                Err(outcome) => (outcome, None),
            };
            made.push((Tick { schedule: job.name.clone(), at, outcome, recorded_at }, append));
        }
        Ok(later.first().map(|at| scheduled.begins_at(*at)).or(next))
    }

    /// What a tick starts; the inner error says why it starts nothing. `ended` is the last tick that has started a run.
    fn plan(
        &self,
        scheduled: &Scheduled,
        at: Timestamp,
        ended: Option<Timestamp>,
        snapshot: &mut Option<Snapshot>,
    ) -> Result<Result<RunEvent, TickOutcome>, CliError> {
        let Scheduled { job, schedule, times } = scheduled;
        // On the project's clock, which is that of its runs; the schedule's may be another.
        let as_of = on_clock(at, &self.zone);
        let params = match job::params(job, &[]) {
            Ok(params) => params,
            Err(error) => return Ok(Err(TickOutcome::Failed(error.summary()))),
        };
        let (actions, selection) = match &job.work {
            JobWork::Tasks(actions) => (actions.clone(), format!("job {}", job.name)),
            JobWork::Select(words) => {
                let opened = self.opened_as_of(&as_of)?;
                let selection = Selection { select: words.clone(), exclude: Vec::new() };
                let how = plan::How::default();
                if snapshot.is_none() {
                    *snapshot = Some(self.hold.store().snapshot()?);
                }
                let known = snapshot.get_or_insert_default();
                // A run that goes on may hold the databases: what is in them is not looked at here.
                let plan = match plan::of(&opened, known, &selection, &how) {
                    Ok(plan) => plan,
                    Err(error) => return Ok(Err(TickOutcome::Failed(error.summary()))),
                };
                if plan.actions.is_empty() {
                    let reason = format!("nothing to do: {} selected assets are fresh", plan.fresh.len());
                    return Ok(Err(TickOutcome::Skipped(reason)));
                }
                (plan.actions, format!("job {}: {}", job.name, words.join(" ")))
            }
        };
        let trigger = format!("schedule {}", automation::definition(schedule));
        let interval = times.interval(at, ended).map(|(start, end)| Interval::new(start, end, &self.zone));
        let job = Some(job.name.clone());
        Ok(Ok(RunEvent::Planned { actions, selection, trigger, as_of, job, params, interval, for_server: true }))
    }
}
