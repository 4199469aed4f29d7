//! Conditions and texts of tasks: evaluated when the step is due, over the values of the steps before it.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{Environment, Error, UndefinedBehavior};
use serde_json::Value;
use subak_domain::schedule::Interval;
use subak_domain::{Action, RunState, StepStatus};

/// What one text may cost.
const FUEL: u64 = 1_000_000;

/// Why an expression or a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(String);

impl From<Error> for ExpressionError {
    fn from(error: Error) -> Self {
        Self(error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind())))
    }
}

/// What expressions and templates can read.
#[derive(Debug, Clone, Default)]
pub struct Values(minijinja::Value);

/// A JSON value as templates see it. Whole numbers stay exact.
fn seen(value: &Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(flag) => minijinja::Value::from(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => minijinja::Value::from(number),
            (_, Some(number), _) => minijinja::Value::from(number),
            (.., Some(number)) => minijinja::Value::from(number),
            _ => minijinja::Value::from(number.to_string()),
        },
        Value::String(text) => minijinja::Value::from(text.as_str()),
        Value::Array(items) => items.iter().map(seen).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), seen(value))).collect::<BTreeMap<_, _>>().into()
        }
    }
}

/// The status of a step in one word; one that was not run because of a failure says so.
fn status_of(state: &subak_domain::StepState) -> &'static str {
    match state.status {
        StepStatus::Skipped if state.skip_reason.as_ref().is_some_and(subak_domain::event::SkipReason::is_failure) => {
            "upstream_failed"
        }
        status => status.as_str(),
    }
}

impl Values {
    /// What an action of a run can read: `tasks`, `params`, `item`, `run`. Inside of a group its own tasks go by their short names too.
    pub fn new(run: &str, state: &RunState, action: &Action) -> Self {
        let own = action.rule.task.rsplit_once('.').map_or("", |(group, _)| group);
        let mut tasks: BTreeMap<String, minijinja::Value> = BTreeMap::new();
        for other in state.actions.iter().filter(|other| !other.rule.task.is_empty()) {
            let Some(step) = state.steps.get(&other.step) else { continue };
            let outcome = step.outcome.as_ref();
            let value = outcome.and_then(|outcome| outcome.value.as_ref()).map_or_else(|| minijinja::Value::from(()), seen);
            let entry = minijinja::Value::from(BTreeMap::from([
                ("status", minijinja::Value::from(status_of(step))),
                ("value", value),
                ("row_count", minijinja::Value::from(outcome.and_then(|outcome| outcome.row_count))),
            ]));
            tasks.insert(other.rule.task.clone(), entry);
        }
        // From the outermost group to its own, so that what is nearer hides what is farther.
        for end in own.match_indices('.').map(|(at, _)| at).chain((!own.is_empty()).then_some(own.len())) {
            let prefix = format!("{}.", &own[..end]);
            let inner = tasks.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
            let short: Vec<_> = inner.map(|(name, entry)| (name[prefix.len()..].to_owned(), entry.clone())).collect();
            tasks.extend(short);
        }
        let params: BTreeMap<String, minijinja::Value> =
            state.params.iter().map(|(name, value)| (name.clone(), seen(value))).collect();
        let as_of = state.as_of.as_str();
        let run = [("id", run), ("as_of", as_of), ("day", as_of.get(..10).unwrap_or(as_of))];
        let mut run: BTreeMap<&str, minijinja::Value> =
            run.into_iter().map(|(name, text)| (name, minijinja::Value::from(text))).collect();
        if let Some(Interval { start, end, start_utc, end_utc }) = &state.interval {
            let parts = [("start", start), ("end", end), ("start_utc", start_utc), ("end_utc", end_utc)];
            let parts: BTreeMap<&str, minijinja::Value> =
                parts.into_iter().map(|(name, text)| (name, minijinja::Value::from(text.as_str()))).collect();
            run.insert("interval", minijinja::Value::from(parts));
        }
        let mut all = BTreeMap::from([
            ("tasks", minijinja::Value::from(tasks)),
            ("params", minijinja::Value::from(params)),
            ("run", minijinja::Value::from(run)),
        ]);
        if let Some(item) = &action.rule.item {
            all.insert("item", seen(item));
        }
        Self(minijinja::Value::from(all))
    }

    /// Only an item: what a project knows when it is loaded.
    pub fn of_item(item: &Value) -> Self {
        Self(minijinja::Value::from(BTreeMap::from([("item", seen(item))])))
    }

    /// Only the parameters of a job.
    pub fn of_params(params: &BTreeMap<String, Value>) -> Self {
        let params: BTreeMap<&str, minijinja::Value> = params.iter().map(|(name, value)| (name.as_str(), seen(value))).collect();
        Self(minijinja::Value::from(BTreeMap::from([("params", minijinja::Value::from(params))])))
    }

    /// The entries of an object, by their names.
    pub fn of(entries: &Value) -> Self {
        Self(seen(entries))
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str) -> Result<Value, ExpressionError> {
        told(&environment().compile_expression(expression)?.eval(&self.0)?)
    }

    /// Whether an expression is true.
    pub fn is_true(&self, expression: &str) -> Result<bool, ExpressionError> {
        Ok(environment().compile_expression(expression)?.eval(&self.0)?.is_true())
    }

    /// The items of an expression that is a list.
    pub fn items(&self, expression: &str) -> Result<Vec<Value>, ExpressionError> {
        let found = environment().compile_expression(expression)?.eval(&self.0)?;
        if !matches!(found.kind(), minijinja::value::ValueKind::Seq | minijinja::value::ValueKind::Iterable) {
            return Err(ExpressionError(format!("`{expression}` is no list")));
        }
        found.try_iter()?.map(|item| told(&item)).collect()
    }

    /// A text with its templates filled in.
    pub fn render(&self, text: &str) -> Result<String, ExpressionError> {
        if !text.contains("{{") && !text.contains("{%") {
            return Ok(text.to_owned());
        }
        Ok(environment().render_str(text, &self.0)?)
    }
}

/// The names that an expression reads, with what stands behind their dots, sorted.
pub fn names_in_expression(expression: &str) -> Result<BTreeSet<String>, ExpressionError> {
    Ok(environment().compile_expression(expression)?.undeclared_variables(true).into_iter().collect())
}

/// The names that the templates in a text read.
pub fn names_in_template(text: &str) -> Result<BTreeSet<String>, ExpressionError> {
    Ok(environment().template_from_str(text)?.undeclared_variables(true).into_iter().collect())
}

/// A value of a template as JSON.
fn told(value: &minijinja::Value) -> Result<Value, ExpressionError> {
    use minijinja::value::ValueKind as Kind;
    let lost = || ExpressionError(format!("`{value}` is no value that can be handed on"));
    Ok(match value.kind() {
        Kind::Undefined | Kind::None => Value::Null,
        Kind::Bool => Value::from(value.is_true()),
        Kind::Number => match (i64::try_from(value.clone()), u64::try_from(value.clone()), f64::try_from(value.clone())) {
            (Ok(number), ..) if value.is_integer() => Value::from(number),
            (_, Ok(number), _) if value.is_integer() => Value::from(number),
            (.., Ok(number)) => Value::from(number),
            _ => return Err(lost()),
        },
        Kind::String => Value::from(value.as_str().unwrap_or_default()),
        Kind::Seq | Kind::Iterable => value.try_iter()?.map(|item| told(&item)).collect::<Result<_, _>>()?,
        Kind::Map => {
            let mut entries = serde_json::Map::new();
            for key in value.try_iter()? {
                entries.insert(key.to_string(), told(&value.get_item(&key)?)?);
            }
            Value::Object(entries)
        }
        _ => return Err(lost()),
    })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use subak_domain::job::{Rule, TaskWork};
    use subak_domain::{Reason, RunEvent, StepId, StepOutcome, Timestamp, Work};

    use super::*;

    fn values() -> Values {
        let action = |task: &str| Action {
            step: StepId::task(task),
            work: Work::Task(TaskWork::Wait { wait_ms: 0 }),
            reason: Reason::Job,
            needs: Vec::new(),
            rule: Rule { task: task.to_owned(), item: Some(json!({ "name": "books" })), ..Rule::default() },
        };
        let (first, second) = (action("load[books].extract"), action("load[books].stage"));
        let mut state = RunState::planned(vec![first.clone(), second.clone()]);
        state.params.insert("limit".into(), json!(18_446_744_073_709_551_615_u64));
        state.as_of = "2026-11-21 08:00:00".into();
        let outcome = StepOutcome { value: Some(json!({ "found": true, "rows": [1, 2] })), ..StepOutcome::default() };
        for event in [
            RunEvent::StepStarted { step: first.step.clone(), attempt: 1 },
            RunEvent::StepSucceeded { step: first.step, outcome },
        ] {
            state.apply(Timestamp::UNIX_EPOCH, &event).expect("an event that fits");
        }
        Values::new("R", &state, &second)
    }

    #[test]
    fn expressions_see_values_by_their_names() {
        let values = values();
        for (expression, expect) in [
            ("tasks.extract.value.found", true),
            ("not tasks['load[books].extract'].value.found", false),
            ("tasks.extract.status == 'succeeded' and tasks.stage.status == 'pending'", true),
            ("item.name == 'books' and params.limit > 1", true),
            ("tasks.stage.value", false),
        ] {
            assert_eq!(values.is_true(expression), Ok(expect), "{expression}");
        }
        assert_eq!(
            values.render("{{ params.limit }} {{ run.day }} {{ item.name }}").as_deref(),
            Ok("18446744073709551615 2026-11-21 books")
        );
        assert_eq!(values.items("tasks.extract.value.rows"), Ok(vec![json!(1), json!(2)]));
        assert!(
            values.items("run.day").is_err()
                && values.is_true("tasks.nobody.value").is_err()
                && names_in_expression("a b").is_err()
        );
        assert!(values.render("{{ nobody }}").is_err() && names_in_template("{{ a").is_err());
    }
}
