//! The description of the interface, made from the routes themselves.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::{Access, Endpoint, ErrorBody, ROUTES, Route};

/// Errors that any route may answer.
const ERRORS: &[(&str, &str)] = &[
    ("400", "The body is not what it should be."),
    ("401", "Nobody has signed in, and no token was sent."),
    ("403", "Whoever asks may not do this."),
    ("404", "There is no such thing."),
    ("409", "Something has changed meanwhile."),
    ("413", "The body is too large."),
    ("415", "The body is not said to be JSON."),
    ("422", "A value cannot be taken."),
    ("429", "There are too many requests."),
    ("503", "The state of the project cannot be read or written just now."),
];

fn value(part: impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

fn access(access: Access) -> (Value, &'static str) {
    match access {
        Access::Open => (json!([]), "everybody"),
        Access::Hook => (json!([{ "token": [] }]), "whoever knows the secret of the sensor"),
        Access::May(permission) => (json!([{ "session": [] }, { "token": [] }]), permission.as_str()),
    }
}

/// Parameters that stand in a path.
fn in_path(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })).collect()
}

/// A name of an operation: what it does to what.
fn id_of(method: &str, path: &str) -> String {
    let parts = path.trim_start_matches("/api/v1").split('/').filter(|part| !part.is_empty());
    let word = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => format!("by_{name}"),
        None => part.replace(['.', '-'], "_"),
    };
    std::iter::once(method.to_lowercase()).chain(parts.map(word)).collect::<Vec<_>>().join("_")
}

fn answers(kind: &str, schema: &Value) -> Map<String, Value> {
    let errors = ERRORS.iter().map(|(status, _)| {
        let reference = json!({ "$ref": format!("#/components/responses/Error{status}") });
        ((*status).to_owned(), reference)
    });
    let done = json!({ "description": "Done.", "content": { kind: { "schema": schema } } });
    std::iter::once(("200".to_owned(), done)).chain(errors).collect()
}

fn operation<B: 'static>(endpoint: &Endpoint<B>) -> Value {
    let described = &endpoint.described;
    let (security, who) = access(endpoint.access);
    let mut parameters = in_path(endpoint.path);
    parameters.extend(described.parameters.iter().map(value));
    let (schema, kind) = &described.answer;
    let mut operation = json!({
        "operationId": id_of(endpoint.method.as_str(), endpoint.path), "summary": endpoint.summary, "x-access": who,
        "security": security, "parameters": parameters, "responses": answers(kind, &value(schema)),
    });
    if let (Some(body), Some(entries)) = (&described.body, operation.as_object_mut()) {
        let content = json!({ "application/json": { "schema": value(body) } });
        entries.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
    }
    operation
}

fn other(route: &Route) -> Value {
    let (security, who) = access(route.access);
    let kind = match route.path {
        "/api/v1/stream" => "text/event-stream",
        "/metrics" => "application/openmetrics-text",
        "/livez" | "/readyz" => "text/plain",
        _ => "application/json",
    };
    let mut answers = answers(kind, &json!({}));
    if route.access == Access::Hook {
        answers.insert("202".to_owned(), json!({ "description": "It is kept.", "content": { kind: { "schema": {} } } }));
    }
    let mut operation = json!({
        "operationId": id_of(route.method, route.path), "summary": route.summary, "x-access": who, "security": security,
        "parameters": in_path(route.path), "responses": answers,
    });
    if let (Access::Hook, Some(entries)) = (route.access, operation.as_object_mut()) {
        let content = json!({ "application/json": { "schema": {} }, "text/plain": { "schema": { "type": "string" } } });
        entries.insert("requestBody".to_owned(), json!({ "content": content }));
    }
    operation
}

fn errors() -> Map<String, Value> {
    let schema = value(Ref::from_schema_name(ErrorBody::name()));
    let error = |(status, description): &(&str, &str)| {
        let content = json!({ "application/json": { "schema": schema } });
        (format!("Error{status}"), json!({ "description": description, "content": content }))
    };
    ERRORS.iter().map(error).collect()
}

/// The whole description, as OpenAPI 3.1.
pub fn document<B: 'static>(endpoints: &[Endpoint<B>]) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut schemas: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    let mut error = Vec::new();
    ErrorBody::schemas(&mut error);
    schemas.extend(error);
    schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    for endpoint in endpoints {
        let method = endpoint.method.as_str().to_lowercase();
        paths.entry(endpoint.path).or_default().insert(method, operation(endpoint));
        schemas.extend(endpoint.described.schemas.iter().cloned());
    }
    for route in ROUTES {
        paths.entry(route.path).or_default().insert(route.method.to_lowercase(), other(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Subak", "version": "1",
            "description": "What a server knows of a project, and what can be asked of it. The web app uses nothing else.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "responses": errors(),
            "schemas": schemas.iter().map(|(name, schema)| (name.clone(), value(schema))).collect::<Map<_, _>>(),
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": "__Host-subak" },
                "token": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}
