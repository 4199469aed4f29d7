//! Traces by OTLP over HTTP in its JSON form (opentelemetry.io, protocol 1.x): a trace for each run that has ended, a span for each attempt of a step.
//! The id of a trace is that of the run, so that one leads to the other.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use subak_domain::{Event, Failure, RunEvent, RunId, RunStatus, Secret, StepId, StepOutcome, Timestamp, Version};
use subak_notify::Receiver;

use super::{Batch, Known};
use crate::project::Opened;

/// Spans of one request.
const SPAN_COUNT_MAX: usize = 1_000;

/// A span that only names its parent, and went on within the process.
const INTERNAL: u8 = 1;

/// The traces of runs that end in a page of the log.
pub(super) fn batch(opened: &Opened, receiver: &Receiver, events: &[Event], known: &BTreeMap<RunId, Known>) -> Batch {
    let service = receiver.values.get("service").map(Secret::expose).filter(|value| !value.is_empty()).unwrap_or("subak");
    let project = &opened.project.config.project;
    let mut bodies = Vec::new();
    for event in events {
        let RunEvent::Finished { status } = event.event else { continue };
        let Some(known) = known.get(&event.run) else { continue };
        let spans = spans(event, status, known);
        for spans in spans.chunks(SPAN_COUNT_MAX) {
            bodies.push((
                event.position,
                json!({ "resourceSpans": [{
                "resource": { "attributes": [text("service.name", service), text("subak.project", project)] },
                "scopeSpans": [{ "scope": { "name": "subak", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
            }] }),
            ));
        }
    }
    Batch { bodies, path: "/v1/traces" }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    // Numbers of 64 bits are texts in the JSON form of protocol buffers.
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn nanoseconds(at: Timestamp) -> String {
    at.as_nanosecond().max(0).to_string()
}

/// The id of a span: made from what it is, so that the same one is sent again for the same attempt.
fn span_id(run: RunId, step: &str, attempt: usize) -> String {
    let hash = Version::of(&[("run", &run.to_string()), ("step", step), ("attempt", &attempt.to_string())]);
    let digits: String = hash.as_str().chars().filter(char::is_ascii_hexdigit).chain(std::iter::repeat('1')).take(16).collect();
    // All zeros stand for no span.
    if digits.bytes().all(|digit| digit == b'0') { "0000000000000001".to_owned() } else { digits }
}

struct Attempt<'a> {
    step: &'a StepId,
    number: usize,
    began_at: Timestamp,
}

/// The span of the run up to this end of it, and those of its attempts.
fn spans(end: &Event, status: RunStatus, known: &Known) -> Vec<Value> {
    let (run, trace) = (end.run, format!("{:032x}", end.run.bits()));
    let own = known.events.iter().filter(|event| event.sequence <= end.sequence);
    // One that went on after it had ended is told from there.
    let before = own.clone().filter(|event| event.sequence < end.sequence && matches!(event.event, RunEvent::Finished { .. }));
    let before = before.map(|event| event.sequence).max().unwrap_or(0);
    let own: Vec<&Event> = own.filter(|event| event.sequence > before).collect();
    let root = span_id(run, "", usize::try_from(before).unwrap_or(0));
    let (mut spans, mut open) = (Vec::new(), BTreeMap::new());
    for event in &own {
        match &event.event {
            RunEvent::StepStarted { step, .. } => {
                let number = known.attempts.get(&event.sequence).map_or(1, |number| *number as usize);
                open.insert(step, Attempt { step, number, began_at: event.at });
            }
            RunEvent::StepSucceeded { step, outcome } => {
                spans.extend(open.remove(step).map(|attempt| attempt.span((&trace, &root, run), event.at, Ok(outcome))));
            }
            RunEvent::StepErrored { step, failure, .. } => {
                spans.extend(open.remove(step).map(|attempt| attempt.span((&trace, &root, run), event.at, Err(failure))));
            }
            // Nobody says how its steps ended.
            RunEvent::Lost { .. } => {
                for attempt in std::mem::take(&mut open).into_values() {
                    spans.push(attempt.lost((&trace, &root, run), event.at));
                }
            }
            _ => {}
        }
    }
    let began_at = own.first().map_or(end.at, |event| event.at);
    let trigger = own.iter().find_map(|event| match &event.event {
        RunEvent::Planned { trigger, .. } => Some(trigger.as_str()),
        RunEvent::Resumed { .. } => Some("resume"),
        _ => None,
    });
    let mut attributes = vec![text("subak.run", &run.to_string()), text("subak.status", status.as_str())];
    attributes.extend(trigger.map(|trigger| text("subak.trigger", trigger)));
    attributes.extend(known.state.job.as_ref().map(|job| text("subak.job", job)));
    let failed = own.iter().rev().find_map(|event| match &event.event {
        RunEvent::StepErrored { failure, retry_at: None, .. } => Some(failure.message.as_str()),
        _ => None,
    });
    let status =
        if status == RunStatus::Succeeded { json!({ "code": 1 }) } else { json!({ "code": 2, "message": failed.unwrap_or("") }) };
    spans.insert(
        0,
        json!({
            "traceId": trace, "spanId": root, "name": known.name(), "kind": INTERNAL, "attributes": attributes, "status": status,
            "startTimeUnixNano": nanoseconds(began_at), "endTimeUnixNano": nanoseconds(end.at),
        }),
    );
    spans
}

/// Where a span stands: the trace, the span above it, and the run.
type Place<'a> = (&'a str, &'a str, RunId);

impl Attempt<'_> {
    fn lost(&self, place: Place<'_>, ended_at: Timestamp) -> Value {
        let status = json!({ "code": 2, "message": "the process that executed it is gone" });
        self.of(place, ended_at, self.attributes(), status)
    }

    fn attributes(&self) -> Vec<Value> {
        vec![text("subak.step", self.step.as_str()), number("subak.attempt", self.number as u64)]
    }

    fn span(&self, place: Place<'_>, ended_at: Timestamp, came: Result<&StepOutcome, &Failure>) -> Value {
        let mut attributes = self.attributes();
        let status = match came {
            Ok(outcome) => {
                attributes.push(json!({ "key": "subak.changed", "value": { "boolValue": outcome.changed } }));
                if let Some(account) = outcome.account {
                    attributes.push(number("subak.rows.read", account.read));
                    attributes.push(number("subak.rows.written", account.written));
                    attributes.push(number("subak.rows.rejected", account.rejected));
                }
                json!({ "code": 1 })
            }
            Err(failure) => {
                attributes.push(text("error.type", &failure.code));
                json!({ "code": 2, "message": failure.message })
            }
        };
        self.of(place, ended_at, attributes, status)
    }

    fn of(&self, (trace, parent, run): Place<'_>, ended_at: Timestamp, attributes: Vec<Value>, status: Value) -> Value {
        json!({
            "traceId": trace, "spanId": span_id(run, self.step.as_str(), self.number), "parentSpanId": parent, "name": self.step.as_str(),
            "kind": INTERNAL, "attributes": attributes, "status": status,
            "startTimeUnixNano": nanoseconds(self.began_at), "endTimeUnixNano": nanoseconds(ended_at),
        })
    }
}
