//! Tasks that reach out: requests over HTTP, messages to people.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use subak_connect::{ConnectError, ConnectErrorKind};
use subak_domain::job::{Answer, Approval, HttpCall};
use subak_domain::{Action, Failure, FailureClass, HttpAnswer, HttpRequest, RunId, StepId, StepOutcome};

use crate::failure::{self, DATA_NOT_BEGUN};
use crate::task::{VALUE_LENGTH_MAX, rendered};
use crate::{DataExecutor, Inputs, StopReason, StopSignal};

/// What is true when a request failed.
const DATA_REQUEST: &str = "the request may have reached the other side; Subak knows nothing of what it did there";

/// What is true when a message could not be sent.
const DATA_MESSAGE: &str = "nobody was told";

/// What is true when a question got no yes.
const DATA_ASKED: &str = "nothing behind the question was started";

/// How often an answer is looked for.
const ANSWER_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// Letters of an answer that a failure shows.
const SHOWN_MAX: usize = 500;

/// Sends requests and messages. The binary implements it: it has the receivers, the settings and the secrets.
#[async_trait]
pub trait Outbound: Send + Sync {
    /// Sends one request. An answer with a status of failure is an answer.
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, ConnectError>;
    /// Tells a receiver something, once.
    async fn notify(&self, receiver: &str, message: &str) -> Result<(), ConnectError>;
    /// What somebody answered to the question of a step, if anybody has.
    async fn answer(&self, run: RunId, step: &StepId) -> Result<Option<Answer>, ConnectError>;
}

/// For executors that reach nobody.
pub(crate) struct Nobody;

#[async_trait]
impl Outbound for Nobody {
    async fn call(&self, _: &HttpRequest) -> Result<HttpAnswer, ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Config, "requests are not sent here"))
    }
    async fn notify(&self, _: &str, _: &str) -> Result<(), ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Config, "messages are not sent here"))
    }
    async fn answer(&self, _: RunId, _: &StepId) -> Result<Option<Answer>, ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Config, "nobody is asked here"))
    }
}

/// Where nothing else is said.
pub(crate) fn nobody() -> Arc<dyn Outbound> {
    Arc::new(Nobody)
}

impl DataExecutor {
    pub(crate) async fn http(
        &self,
        run: RunId,
        action: &Action,
        call: &HttpCall,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        let (mut value, length) = self.answer_to(run, &action.step, call, inputs, stop).await?;
        let mut outcome = StepOutcome { changed: true, ..StepOutcome::default() };
        if length > VALUE_LENGTH_MAX {
            value["body"] = Value::Null;
            outcome.warnings.push(format!("the answer has more than {VALUE_LENGTH_MAX} bytes, and is not handed on"));
        }
        outcome.value = Some(value);
        Ok(outcome)
    }

    /// The answer to a request, with its `status` and `body`, and how long it is as JSON.
    pub(crate) async fn answer_to(
        &self,
        run: RunId,
        step: &StepId,
        call: &HttpCall,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<(Value, usize), Box<Failure>> {
        let fill = |text: &str| self.filled(inputs, text);
        let mut headers = Vec::new();
        for (name, value) in &call.headers {
            headers.push((name.clone(), fill(value)?));
        }
        let has = |headers: &[(String, String)], name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let body = match call.body.as_deref().map(|body| (body, serde_json::from_str::<Value>(body))) {
            None => None,
            Some((_, Ok(json @ (Value::Object(_) | Value::Array(_))))) => {
                if !has(&headers, "Content-Type") {
                    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
                }
                Some(filled_json(json, &fill)?.to_string())
            }
            Some((text, _)) => Some(fill(text)?),
        };
        if !matches!(call.method.as_str(), "GET" | "HEAD") && !has(&headers, "Idempotency-Key") {
            // The same in each attempt, for those who look at it.
            headers.push(("Idempotency-Key".to_owned(), format!("{run}/{step}")));
        }
        let request = HttpRequest { method: call.method.clone(), url: fill(&call.url)?, headers, body };
        let answer = match stop.guard(self.place.outbound.call(&request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failure::of_connect(&error, DATA_REQUEST)),
            Err(reason) => return Err(failure::of_stop(reason, DATA_REQUEST)),
        };
        let is_expected =
            if call.expect.is_empty() { (200..300).contains(&answer.status) } else { call.expect.contains(&answer.status) };
        if !is_expected {
            return Err(refused(&answer));
        }
        let body = serde_json::from_str(&answer.text).unwrap_or_else(|_| Value::from(answer.text));
        let value = json!({ "status": answer.status, "body": body });
        let length = value.to_string().len();
        Ok((value, length))
    }

    pub(crate) async fn notify(
        &self,
        receiver: &str,
        message: &str,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        let message = rendered(&inputs.values, message)?;
        match stop.guard(self.place.outbound.notify(receiver, &message)).await {
            Ok(Ok(())) => Ok(StepOutcome { changed: true, ..StepOutcome::default() }),
            Ok(Err(error)) => Err(failure::of_connect(&error, DATA_MESSAGE)),
            Err(reason) => Err(failure::of_stop(reason, DATA_MESSAGE)),
        }
    }

    /// Asks a person, and waits for the answer. One that comes before the time is over counts; then what the task says for that case does.
    pub(crate) async fn approve(
        &self,
        run: RunId,
        action: &Action,
        approval: &Approval,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        let question = rendered(&inputs.values, &approval.message)?;
        let mut outcome = StepOutcome { changed: true, ..StepOutcome::default() };
        // Whoever waited before has asked.
        if let Some(receiver) = approval.notify.as_ref().filter(|_| inputs.adopted_after.is_none()) {
            let how = format!("subak run approve {run} {0}\nsubak run reject {run} {0}", action.rule.task);
            let told = stop.guard(self.place.outbound.notify(receiver, &format!("{question}\n{how}"))).await;
            if let Ok(Err(error)) = told {
                outcome.warnings.push(format!("`{receiver}` was not told of the question: {}", error.message));
            }
        }
        let look = || self.place.outbound.answer(run, &action.step);
        let failed = |error: ConnectError| failure::of_connect(&error, DATA_ASKED);
        loop {
            if let Some(answer) = look().await.map_err(failed)? {
                return answered(outcome, approval, Some(&answer));
            }
            match stop.guard(tokio::time::sleep(ANSWER_INTERVAL)).await {
                Ok(()) => {}
                Err(StopReason::TimedOut) => {
                    let last = look().await.map_err(failed)?;
                    return answered(outcome, approval, last.as_ref());
                }
                Err(reason) => return Err(failure::of_stop(reason, DATA_ASKED)),
            }
        }
    }

    /// A text with its templates and its references filled in. What a template yields is not looked at for references.
    fn filled(&self, inputs: &Inputs, text: &str) -> Result<String, Box<Failure>> {
        let mut failed = None;
        let mut literal = |text: &str| {
            rendered(&inputs.values, text).unwrap_or_else(|failure| {
                failed.get_or_insert(failure);
                String::new()
            })
        };
        let filled = self.connections.resolve(text, &mut literal);
        match (failed, filled) {
            (Some(failure), _) => Err(failure),
            (None, Ok(text)) => Ok(text),
            (None, Err(error)) => Err(failure::of_connect(&error, DATA_NOT_BEGUN)),
        }
    }
}

/// A JSON value with all its texts filled in.
fn filled_json(value: Value, fill: &impl Fn(&str) -> Result<String, Box<Failure>>) -> Result<Value, Box<Failure>> {
    Ok(match value {
        Value::String(text) => Value::from(fill(&text)?),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| filled_json(item, fill)).collect::<Result<_, _>>()?),
        Value::Object(entries) => {
            let entries = entries.into_iter().map(|(name, value)| Ok((name, filled_json(value, fill)?)));
            Value::Object(entries.collect::<Result<_, Box<Failure>>>()?)
        }
        other => other,
    })
}

/// What came of a question; `None` where nobody answered in time.
fn answered(mut outcome: StepOutcome, approval: &Approval, answer: Option<&Answer>) -> Result<StepOutcome, Box<Failure>> {
    let (approved, by, input) = match (answer, approval.default) {
        (Some(answer), _) => (answer.approved, answer.by.as_str(), answer.input.clone()),
        (None, Some(default)) => {
            let input = approval.input.iter().filter_map(|(name, param)| Some((name.clone(), param.default.clone()?)));
            (default, "nobody in time", input.collect())
        }
        (None, None) => {
            let message = "nobody answered in time".to_owned();
            let mut failure = failure::plain("SBK0313", message, DATA_ASKED, FailureClass::Timeout);
            failure.help.push("`default:` of the task says what holds then; `subak run resume` asks again".into());
            return Err(failure);
        }
    };
    if !approved && !approval.continues {
        let mut failure = failure::plain("SBK0333", format!("{by} said no"), DATA_ASKED, FailureClass::Input);
        let told = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        failure.causes.extend(input.iter().map(|(name, value)| format!("{name}: {}", told(value))));
        return Err(failure);
    }
    outcome.note = Some(format!("{} by {by}", if approved { "approved" } else { "rejected" }));
    outcome.value = Some(json!({ "approved": approved, "by": by, "input": input }));
    Ok(outcome)
}

fn refused(answer: &HttpAnswer) -> Box<Failure> {
    let class = match answer.status {
        401 | 403 => FailureClass::Permission,
        408 | 425 | 429 | 500.. => FailureClass::Unavailable,
        _ => FailureClass::Input,
    };
    let message = format!("the request was answered with status {}", answer.status);
    let mut failure = failure::plain("SBK0330", message, DATA_REQUEST, class);
    let shown: String = answer.text.trim().chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    failure.causes.extend((!shown.is_empty()).then_some(shown));
    failure.help.push("`expect:` of the task lists the status codes that count as success".into());
    failure
}
