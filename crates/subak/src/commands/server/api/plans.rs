//! Plans: what would be done and why, to be looked at, and then done as it was looked at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;

use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subak_diag::codes;
use subak_domain::schedule::Interval;
use subak_domain::{Action, JobWork, RunEvent, RunId, Timestamp, Work};
use subak_server::{Call, Endpoint, Nothing, Problem};
use subak_store::{Append, EventLog, StoreError};
use utoipa::ToSchema;

use super::runs::InputView;
use super::{Api, OPERATE, VIEW, problem, recent, text};
use crate::args::Selection;
use crate::commands::{automation, job, plan, run};

/// Plans that are kept to be accepted.
const PLAN_COUNT_MAX: usize = 256;

/// Of them, those of one caller.
const OWN_PLAN_COUNT_MAX: usize = 16;

/// Steps that a plan may have; what is more comes by a backfill.
const STEP_COUNT_MAX: usize = 50_000;

/// Actions that are told one by one.
const ACTION_COUNT_MAX: usize = 2_000;

/// What is to be planned: a selection, or a job.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PlanBody {
    /// What to bring up to date, as the command line takes it; everything where nothing is said.
    select: Vec<String>,
    /// What to leave out of it.
    exclude: Vec<String>,
    /// Partitions: keys, ranges, `latest`.
    partition: Vec<String>,
    /// From nothing, whatever is there.
    full_refresh: bool,
    /// A job instead of a selection.
    job: Option<String>,
    /// Parameters of the job, by name.
    params: BTreeMap<String, String>,
}

/// Something that would be done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActionView {
    /// The step.
    step: String,
    /// Why, in a word.
    reason: String,
    /// Why, one sentence.
    why: String,
    /// Steps that come before it.
    needs: Vec<String>,
    /// Whether it throws away what is there and makes it anew.
    is_full_refresh: bool,
    /// Milliseconds that it took last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_ms: Option<u64>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlanView {
    /// Its id: what to accept. The run that comes of it has the same.
    plan: String,
    /// When it was made.
    at: String,
    /// What was asked for, in words.
    selection: String,
    /// How many steps it has.
    action_count: usize,
    /// Its steps in order, up to 2,000 of them.
    actions: Vec<ActionView>,
    /// Selected assets that are fresh, and so are left alone.
    fresh_count: usize,
    /// Partitions that come with later runs, by asset.
    left: BTreeMap<String, usize>,
    /// Milliseconds of work, by what it took last time; absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_ms: Option<u64>,
    /// What has to be typed to accept it, because it throws data away; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<String>,
}

/// Accepting a plan.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AcceptBody {
    /// What the plan asks to be typed.
    confirmation: Option<String>,
}

/// What came of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// The run.
    run: String,
    /// Whether it is new; else it had been accepted before.
    is_new: bool,
}

/// A job, for whoever starts it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobView {
    /// Its name.
    job: String,
    /// What it is, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The file.
    path: String,
    /// What it does, in a few words.
    does: String,
    /// Its schedule in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    /// What it takes.
    params: Vec<InputView>,
}

/// What a plan would begin.
#[derive(Debug, Clone)]
struct Planned {
    actions: Vec<Action>,
    selection: String,
    job: Option<String>,
    params: BTreeMap<String, Value>,
    interval: Option<Interval>,
    /// The time that counts as now for it.
    as_of: String,
    fresh_count: usize,
    left: BTreeMap<String, usize>,
}

/// A plan that waits to be accepted.
struct Kept {
    id: RunId,
    /// Who made it.
    by: String,
    asked: PlanBody,
    planned: Planned,
    at: Timestamp,
}

/// The last plans.
#[derive(Default)]
pub(super) struct Plans(VecDeque<Kept>);

/// What would be done about what is asked, as things are now.
fn make(api: &Api, asked: &PlanBody) -> Result<Planned, Problem> {
    let serving = api.serving()?;
    let (opened, as_of) = (&serving.opened, serving.opened.as_of_template.clone());
    let declared = asked.job.as_ref().map(|name| job::find(opened, name)).transpose().map_err(problem)?;
    let pairs: Vec<String> = asked.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let params = match declared {
        Some(declared) => job::params(declared, &pairs).map_err(problem)?,
        None if pairs.is_empty() => BTreeMap::new(),
        None => return Err(Problem::invalid("a selection has no parameters", "name a job, or leave `params` out")),
    };
    let interval = declared.map(|declared| automation::interval(opened, declared)).transpose().map_err(problem)?.flatten();
    let select = match declared.map(|declared| &declared.work) {
        Some(JobWork::Tasks(actions)) => {
            let selection = format!("job {}", declared.map_or("", |declared| &declared.name));
            let (actions, left) = (actions.clone(), BTreeMap::new());
            let job = asked.job.clone();
            return Ok(Planned { actions, selection, job, params, interval, as_of, fresh_count: 0, left });
        }
        Some(JobWork::Select(words)) => words.clone(),
        None => asked.select.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect(),
    };
    let selection = Selection { select, exclude: asked.exclude.clone() };
    let how = plan::How { full_refresh: asked.full_refresh, picks: plan::picks(&asked.partition), range: None };
    // As things are now: keys that were added to a set leave no event.
    let snapshot = api.store.snapshot().map_err(super::failed)?;
    let found = plan::of(opened, &snapshot, &selection, &how).map_err(problem)?;
    let words = run::selection_words(&selection);
    let words = asked.job.as_ref().map_or(words.clone(), |job| format!("job {job}: {words}"));
    Ok(Planned {
        actions: found.actions,
        selection: words,
        job: asked.job.clone(),
        params,
        interval,
        as_of,
        fresh_count: found.fresh.len(),
        left: found.left.iter().map(|(asset, count)| (asset.to_string(), *count)).collect(),
    })
}

/// What has to be typed: the asset whose data would be thrown away, or how many there are.
fn confirmation(actions: &[Action]) -> Option<String> {
    let is_full = |action: &&Action| matches!(action.work, Work::Materialize { full_refresh: true, .. });
    let full: Vec<&Action> = actions.iter().filter(is_full).collect();
    match full.as_slice() {
        [] => None,
        [only] => Some(only.step.to_string()),
        more => Some(format!("{} assets", more.len())),
    }
}

impl Kept {
    fn view(&self, api: &Api, call: &Call) -> Result<PlanView, Problem> {
        let took = recent::with(api, call, |recent| {
            let last = |action: &Action| {
                let Work::Materialize { asset, .. } = &action.work else { return None };
                recent.of(asset).rev().find(|outcome| outcome.status == "succeeded").map(|outcome| outcome.elapsed_ms)
            };
            self.planned.actions.iter().map(last).collect::<Vec<_>>()
        })?;
        let actions = &self.planned.actions;
        let view = |(action, took): (&Action, &Option<u64>)| ActionView {
            step: action.step.to_string(),
            reason: action.reason.as_str().to_owned(),
            why: action.reason.to_string(),
            needs: action.needs.iter().map(ToString::to_string).collect(),
            is_full_refresh: matches!(action.work, Work::Materialize { full_refresh: true, .. }),
            expected_ms: *took,
        };
        let expected_ms: u64 = took.iter().flatten().sum();
        Ok(PlanView {
            plan: self.id.to_string(),
            at: text(self.at),
            selection: self.planned.selection.clone(),
            action_count: actions.len(),
            actions: actions.iter().zip(&took).take(ACTION_COUNT_MAX).map(view).collect(),
            fresh_count: self.planned.fresh_count,
            left: self.planned.left.clone(),
            expected_ms: took.iter().any(Option::is_some).then_some(expected_ms),
            confirmation: confirmation(actions),
        })
    }
}

fn add(api: &Api, call: &Call, asked: PlanBody) -> Result<PlanView, Problem> {
    let planned = make(api, &asked)?;
    if planned.actions.len() > STEP_COUNT_MAX {
        let message = format!("the plan has {} steps, and {STEP_COUNT_MAX} are allowed", planned.actions.len());
        return Err(Problem::invalid(message, "select less, or begin a backfill: `subak backfill start`"));
    }
    let by = call.caller.as_ref().map(|caller| caller.user.clone()).unwrap_or_default();
    let kept = Kept { id: run::new_run(), by, asked, planned, at: call.now };
    let view = kept.view(api, call)?;
    let mut plans = api.plans.lock().unwrap_or_else(PoisonError::into_inner);
    // The oldest of their own goes first, so that nobody takes away what others are looking at.
    let own = plans.0.iter().filter(|other| other.by == kept.by).count();
    if own >= OWN_PLAN_COUNT_MAX
        && let Some(oldest) = plans.0.iter().position(|other| other.by == kept.by)
    {
        plans.0.remove(oldest);
    }
    if plans.0.len() >= PLAN_COUNT_MAX {
        plans.0.pop_front();
    }
    plans.0.push_back(kept);
    Ok(view)
}

fn unknown(name: &str) -> Problem {
    let help = "plans are kept until the server starts anew, or 256 newer ones are made: make it again";
    Problem::new(StatusCode::NOT_FOUND, codes::HTTP_UNKNOWN, format!("there is no plan `{name}`"), help)
}

/// Begins what a plan says, if it still says so. Accepting it again begins nothing more.
fn accept(api: &Api, call: &Call, said: AcceptBody) -> Result<Accepted, Problem> {
    let name = call.part("plan");
    // One that was begun is known by its run, however long ago that was.
    if let Ok(run) = super::run_of(api, name) {
        return Ok(Accepted { run: run.to_string(), is_new: false });
    }
    let known = |kept: &&Kept| kept.id.to_string() == name;
    let (id, asked, planned) = {
        let plans = api.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = plans.0.iter().find(known).ok_or_else(|| unknown(name))?;
        (kept.id, kept.asked.clone(), kept.planned.clone())
    };
    if planned.actions.is_empty() {
        return Err(Problem::changed("there is nothing to do", "everything that is selected is fresh"));
    }
    if let Some(wanted) = confirmation(&planned.actions).filter(|wanted| said.confirmation.as_deref() != Some(wanted)) {
        return Err(Problem::invalid("this throws data away and makes it anew", format!("type `{wanted}` to confirm it")));
    }
    let now = make(api, &asked)?;
    if now.actions != planned.actions {
        return Err(Problem::changed("the plan would be another one by now", "look at the new one"));
    }
    let entry = call.entry("run.start", &id.to_string(), now.selection.clone());
    let event = RunEvent::Planned {
        actions: now.actions,
        selection: now.selection,
        trigger: entry.actor.clone(),
        as_of: now.as_of,
        job: now.job,
        params: now.params,
        interval: now.interval,
        for_server: true,
    };
    let append = Append { run: id, expected: 1, events: vec![(call.now, event)], fence: None };
    match call.wait(api.store.audited_as(entry).append(append)) {
        Ok(_) => Ok(Accepted { run: id.to_string(), is_new: true }),
        // Somebody accepted it at the same time.
        Err(StoreError::Conflict { .. }) => Ok(Accepted { run: id.to_string(), is_new: false }),
        Err(error) => Err(super::failed(error)),
    }
}

fn jobs(api: &Api, _: &Call, _: Nothing) -> Result<subak_server::Page<JobView>, Problem> {
    let serving = api.serving()?;
    let view = |declared: &subak_domain::Job| JobView {
        job: declared.name.clone(),
        description: declared.description.clone(),
        path: declared.path.clone(),
        does: job::does(declared),
        schedule: declared.schedule.as_ref().map(automation::definition),
        params: InputView::of(&declared.params),
    };
    Ok(subak_server::Page::whole(serving.opened.project.jobs().iter().map(view).collect()))
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::read("/api/v1/jobs", VIEW, "Jobs, and what they take.", jobs),
        Endpoint::write(Method::POST, "/api/v1/plans", VIEW, "Plans a selection or a job, and begins nothing.", add),
        Endpoint::write(
            Method::POST,
            "/api/v1/plans/{plan}/accept",
            OPERATE,
            "Begins what a plan says, once, unless it would say something else by now.",
            accept,
        ),
    ]
}
