//! One thing that can be asked: where, by whom, what it takes and what it answers. Handler, access and description stand together, so none of them
//! can be forgotten: a route without an access cannot be written down.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subak_domain::{Permission, Timestamp};
use subak_store::people::AuditEntry;
use tokio::runtime::Handle;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Array, Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::people::Caller;
use crate::problem::{Problem, json};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who reaches the server.
    Open,
    /// Whoever knows the secret of the sensor that the path names.
    Hook,
    /// Whoever has signed in, or sends a token, and has the permission.
    May(Permission),
}

/// A request whose sender may make it.
#[derive(Debug)]
pub struct Call {
    /// Who asks; nobody where a route is open.
    pub caller: Option<Caller>,
    /// When.
    pub now: Timestamp,
    /// The parts of the path that stand for something.
    pub(crate) path: Vec<(String, String)>,
    /// From where the request came.
    pub(crate) origin: String,
    /// The digest of the session that it says it belongs to, be it one or not.
    pub(crate) session: Option<String>,
    pub(crate) runtime: Handle,
    pub(crate) cookie: Mutex<Option<String>>,
}

impl Call {
    /// A part of the path by its name; empty where the path has none.
    pub fn part(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A request of somebody who works on the machine itself, about nothing yet.
    pub fn local(caller: Caller, now: Timestamp, runtime: Handle) -> Self {
        let (path, session, cookie) = (Vec::new(), None, Mutex::default());
        Self { caller: Some(caller), now, path, origin: "this machine".to_owned(), session, runtime, cookie }
    }

    /// The same request, about something.
    pub(crate) fn about(&self, path: Vec<(String, String)>) -> Self {
        let (caller, origin, runtime) = (self.caller.clone(), self.origin.clone(), self.runtime.clone());
        Self { caller, now: self.now, path, origin, session: None, runtime, cookie: Mutex::default() }
    }

    /// What the audit log says of it.
    pub fn entry(&self, action: &str, object: &str, detail: impl Into<String>) -> AuditEntry {
        let actor = self.caller.as_ref().map_or_else(|| "nobody".to_owned(), Caller::to_string);
        let (action, object) = (action.to_owned(), object.to_owned());
        AuditEntry { at: self.now, actor, action, object, detail: detail.into(), origin: self.origin.clone() }
    }

    /// Waits for something that is done elsewhere. Handlers have a thread of their own.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn set_cookie(&self, cookie: String) {
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = Some(cookie);
    }
}

/// The query or the body of a request that has none.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A list that is read page by page.
#[derive(Debug, Clone, Serialize)]
pub struct Page<T: ToSchema> {
    /// Some of it, in order.
    pub items: Vec<T>,
    /// What to send as `after` for the next page; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many there are in all, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let items = Array::new(RefOr::<Schema>::Ref(Ref::from_schema_name(T::name())));
        let text = |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let object = ObjectBuilder::new()
            .description(Some("A list that is read page by page."))
            .property("items", items)
            .required("items")
            .property("next", text("What to send as `after` for the next page; absent where there is none."))
            .property("total", number.description(Some("How many there are in all, where that is known.")));
        object.build().into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name().trim_end_matches("View")).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
        schemas.push((T::name().into_owned(), T::schema()));
    }
}

impl<T: ToSchema> Page<T> {
    /// All there is.
    pub fn whole(items: Vec<T>) -> Self {
        let total = Some(items.len() as u64);
        Self { items, next: None, total }
    }
}

/// An answer that is no JSON.
#[derive(Debug)]
pub struct Sent {
    /// The bytes.
    pub body: Vec<u8>,
    /// What they are, for example `text/plain; charset=utf-8`.
    pub kind: &'static str,
    /// More that the answer says.
    pub headers: Vec<(&'static str, String)>,
}

/// What a route is asked with.
pub(crate) struct Input<'a> {
    pub(crate) query: &'a str,
    pub(crate) body: &'a Bytes,
}

type Handler<B> = Arc<dyn Fn(&B, &Call, &Input<'_>) -> Result<Response, Problem> + Send + Sync>;

/// A route.
pub struct Endpoint<B> {
    /// The method.
    pub method: Method,
    /// The path; parts in braces stand for anything.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// What it does, one sentence.
    pub summary: &'static str,
    /// Bytes that the body may have.
    pub(crate) body_length_max: usize,
    pub(crate) handle: Handler<B>,
    pub(crate) described: Described,
}

/// What the description says of a route.
pub(crate) struct Described {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<RefOr<Schema>>,
    /// The answer and what it is.
    pub(crate) answer: (RefOr<Schema>, &'static str),
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
}

/// Bytes that the body of a request may have where nothing else is said.
const BODY_LENGTH_MAX: usize = 256 * 1024;

fn collect<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) -> RefOr<Schema> {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), T::schema()));
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

impl<B: 'static> Endpoint<B> {
    /// Something that is read, as JSON.
    pub fn read<Q, A>(
        path: &'static str,
        access: Access,
        summary: &'static str,
        handle: fn(&B, &Call, Q) -> Result<A, Problem>,
    ) -> Self
    where
        Q: DeserializeOwned + IntoParams + 'static,
        A: Serialize + ToSchema + 'static,
    {
        let mut schemas = Vec::new();
        let answer = collect::<A>(&mut schemas);
        let handle = move |backend: &B, call: &Call, input: &Input<'_>| {
            let query = serde_urlencoded::from_str(input.query).map_err(|error| value(&error))?;
            handle(backend, call, query).map(|answer| json(StatusCode::OK, &answer))
        };
        let described = Described {
            parameters: Q::into_params(|| Some(ParameterIn::Query)),
            body: None,
            answer: (answer, "application/json"),
            schemas,
        };
        Self { method: Method::GET, path, access, summary, body_length_max: 0, handle: Arc::new(handle), described }
    }

    /// Something that is read, as it is.
    pub fn send<Q>(
        path: &'static str,
        access: Access,
        summary: &'static str,
        kind: &'static str,
        handle: fn(&B, &Call, Q) -> Result<Sent, Problem>,
    ) -> Self
    where
        Q: DeserializeOwned + IntoParams + 'static,
    {
        let handle = move |backend: &B, call: &Call, input: &Input<'_>| {
            let query = serde_urlencoded::from_str(input.query).map_err(|error| value(&error))?;
            let Sent { body, kind, headers } = handle(backend, call, query)?;
            let mut response = body.into_response();
            response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response.headers_mut().insert(HeaderName::from_static(name), value);
                }
            }
            Ok(response)
        };
        let text = String::schema();
        let parameters = Q::into_params(|| Some(ParameterIn::Query));
        let described = Described { parameters, body: None, answer: (text, kind), schemas: Vec::new() };
        Self { method: Method::GET, path, access, summary, body_length_max: 0, handle: Arc::new(handle), described }
    }

    /// Something that is done.
    pub fn write<I, A>(
        method: Method,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handle: fn(&B, &Call, I) -> Result<A, Problem>,
    ) -> Self
    where
        I: DeserializeOwned + ToSchema + 'static,
        A: Serialize + ToSchema + 'static,
    {
        let mut schemas = Vec::new();
        let answer = collect::<A>(&mut schemas);
        let body = collect::<I>(&mut schemas);
        let handle = move |backend: &B, call: &Call, input: &Input<'_>| {
            if !input.query.is_empty() {
                return Err(Problem::invalid("this takes no query", "send what is asked in the body"));
            }
            // One that is not there says nothing.
            let text: &[u8] = if input.body.is_empty() { b"{}" } else { input.body };
            // A list would be taken for the values of its parts in their order.
            if !text.trim_ascii_start().starts_with(b"{") {
                return Err(Problem::body("the body is no JSON object"));
            }
            let said =
                serde_json::from_slice(text).map_err(|error| Problem::body(format!("the body cannot be read: {error}")))?;
            handle(backend, call, said).map(|answer| json(StatusCode::OK, &answer))
        };
        let described = Described { parameters: Vec::new(), body: Some(body), answer: (answer, "application/json"), schemas };
        Self { method, path, access, summary, body_length_max: BODY_LENGTH_MAX, handle: Arc::new(handle), described }
    }
}

fn value(error: &serde_urlencoded::de::Error) -> Problem {
    Problem::invalid(format!("the query cannot be read: {error}"), "`subak docs http-api` lists what can be asked")
}
