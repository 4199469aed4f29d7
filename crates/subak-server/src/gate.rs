//! What every request passes: the host that it names, how many there are, who asks, from which page, and what every answer carries.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use subak_domain::{Permission, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::endpoint::Input;
use crate::mcp::Tools;
use crate::people::{self, Caller, Proof};
use crate::stream::Hub;
use crate::{Access, Backend, Call, Delivery, Endpoint, ITEM_LENGTH_MAX, Kept, Problem, hook, metrics, problem};

/// How long a request may take to be answered.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a message of an assistant.
const MESSAGE_LENGTH_MAX: usize = 1024 * 1024;

/// Requests of one caller a second, and how many may come at once.
const CALLER_RATE: (f64, f64) = (1_000.0, 2_000.0);

/// The same for whoever nobody knows.
const STRANGER_RATE: (f64, f64) = (50.0, 200.0);

/// The same for all strangers together.
const STRANGERS_RATE: (f64, f64) = (500.0, 1_000.0);

/// Requests that are worked on at a time; others wait for them.
const WORKING_COUNT_MAX: usize = 32;

/// The same for those of strangers, who hold up nobody else: looking at a password takes its time.
const STRANGER_COUNT_MAX: usize = 4;

/// Callers that are counted.
const CALLER_COUNT_MAX: usize = 10_000;

/// What a server is told of itself.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Names by which requests may call it, besides those of the machine itself.
    pub hosts: Vec<String>,
    /// Where it stands below its host, for example `/data/subak`; empty where nothing stands before it.
    pub prefix: String,
    /// What assistants can ask for.
    pub tools: &'static [crate::mcp::Tool],
}

/// How much a caller may still ask.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

/// What requests pass.
pub(crate) struct Gate<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) hub: Hub,
    /// Names of the server, in small letters.
    hosts: Vec<String>,
    pub(crate) prefix: String,
    buckets: Mutex<HashMap<String, Bucket>>,
    working: Semaphore,
    strangers: Semaphore,
    request_count: AtomicU64,
}

impl<B: Backend> Gate<B> {
    pub(crate) fn new(backend: Arc<B>, settings: &Settings, hub: Hub) -> Self {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let hosts = own.into_iter().chain(settings.hosts.iter().map(|host| host.to_lowercase())).collect();
        let prefix = settings.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let buckets = Mutex::default();
        let (working, strangers) = (Semaphore::new(WORKING_COUNT_MAX), Semaphore::new(STRANGER_COUNT_MAX));
        Self { backend, hub, hosts, prefix, buckets, working, strangers, request_count: AtomicU64::new(0) }
    }

    /// Takes one from what a caller may ask; how long to wait where nothing is left.
    fn take(&self, caller: &str, (rate, most): (f64, f64), now: Timestamp) -> Result<(), Problem> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CALLER_COUNT_MAX {
            buckets.clear();
        }
        let bucket = buckets.entry(caller.to_owned()).or_insert(Bucket { left: most, at: now });
        let elapsed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        *bucket = Bucket { left: (bucket.left + elapsed * rate).min(most) - 1.0, at: now };
        if bucket.left >= 0.0 {
            return Ok(());
        }
        bucket.left = 0.0;
        Err(Problem::too_many(1))
    }

    /// The same for somebody whom nobody knows: by where they come from, and for all of them together.
    fn take_stranger(&self, headers: &HeaderMap, now: Timestamp) -> Result<(), Problem> {
        self.take(&format!("from {}", origin_of(headers)), STRANGER_RATE, now)?;
        self.take("strangers", STRANGERS_RATE, now)
    }

    /// Who asks, as far as a route wants to know. What changes something must come from a page of this server, or from no page.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        access: Access,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Problem> {
        let now = self.backend.now();
        let is_safe = matches!(*method, Method::GET | Method::HEAD);
        let Access::May(permission) = access else {
            self.take_stranger(headers, now)?;
            if access == Access::Open && !is_safe && !self.is_own_page(headers, false) {
                return Err(Problem::origin());
            }
            return Ok(None);
        };
        let (gate, said) = (Arc::clone(self), headers.clone());
        let found = blocking(move || gate.backend.people().caller(&said, now)).await??;
        let Some(caller) = found else {
            self.take_stranger(headers, now)?;
            return Err(Problem::unknown_caller());
        };
        self.take(&caller.to_string(), CALLER_RATE, now)?;
        let is_session = matches!(caller.by, Proof::Session(..));
        if !is_safe && !self.is_own_page(headers, is_session) {
            return Err(Problem::origin());
        }
        caller.need(permission)?;
        Ok(Some(caller))
    }

    /// Whether a request comes from a page of this server, as browsers say it. Programs say nothing, which is enough where no cookie speaks for them.
    fn is_own_page(&self, headers: &HeaderMap, must_say: bool) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(site) = text("sec-fetch-site") {
            return matches!(site, "same-origin" | "none");
        }
        match (headers.get(header::ORIGIN), text("host")) {
            (None, _) => !must_say,
            (Some(origin), Some(host)) => {
                let origin = origin.to_str().unwrap_or_default();
                origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host))
            }
            _ => false,
        }
    }

    fn is_known_host(&self, name: &str) -> bool {
        self.hosts.iter().any(|known| known == name)
    }
}

/// Does work that waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        // A bug of ours ends its request and nothing else.
        let problem = Problem::state(if error.is_panic() { "an internal error" } else { "the server is ending" });
        Problem { status: StatusCode::INTERNAL_SERVER_ERROR, ..problem }
    })
}

/// From where a request came, as the proxy before the server says it.
fn origin_of(headers: &HeaderMap) -> String {
    let said = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    // What the nearest proxy saw stands last; what stands before it anybody may have written.
    let nearest = said.and_then(|list| list.rsplit(',').next()).map(str::trim).filter(|text| text.len() <= 64);
    nearest.unwrap_or("this machine").to_owned()
}

/// Answers an endpoint.
pub(crate) async fn answer<B: Backend>(
    gate: &Arc<Gate<B>>,
    endpoint: Arc<Endpoint<B>>,
    params: RawPathParams,
    request: Request,
) -> Response {
    match carry_out(gate, endpoint, params, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn carry_out<B: Backend>(
    gate: &Arc<Gate<B>>,
    endpoint: Arc<Endpoint<B>>,
    params: RawPathParams,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // Nobody's body is read who may not send one.
    let caller = gate.admit(endpoint.access, &endpoint.method, &parts.headers).await?;
    // What waits for the disk may be done when whoever asked for it has asked again.
    if endpoint.method != Method::GET
        && let Some((_, why)) = gate.backend.store().stalled()
    {
        return Err(Problem::stalled(&why));
    }
    let body = body_of(&endpoint, &parts.headers, body).await?;
    let path = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let call = Call {
        caller,
        now: gate.backend.now(),
        path,
        origin: origin_of(&parts.headers),
        session: people::session_of(&parts.headers),
        runtime: Handle::current(),
        cookie: Mutex::default(),
    };
    // Nobody closes it.
    let room = if call.caller.is_some() { &gate.working } else { &gate.strangers };
    let _working = room.acquire().await.ok();
    let (gate, query) = (Arc::clone(gate), parts.uri.query().unwrap_or_default().to_owned());
    blocking(move || {
        let input = Input { query: &query, body: &body };
        let mut response = (endpoint.handle)(&gate.backend, &call, &input)?;
        if let Some(cookie) = call.cookie.into_inner().unwrap_or_else(PoisonError::into_inner)
            && let Ok(value) = HeaderValue::from_str(&cookie)
        {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
        Ok(response)
    })
    .await?
}

/// The body of a request: JSON that says so, of which there is not too much.
async fn body_of<B: 'static>(endpoint: &Endpoint<B>, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if endpoint.method == Method::GET {
        return Ok(Bytes::new());
    }
    let most = endpoint.body_length_max;
    let bytes = to_bytes(body, most).await.map_err(|_| Problem::too_large(most))?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if is_json || (bytes.is_empty() && kind.is_empty()) { Ok(bytes) } else { Err(Problem::kind()) }
}

/// Before every route: the host, and what every answer carries.
pub(crate) async fn guarded<B: Backend>(State(gate): State<Arc<Gate<B>>>, request: Request, next: Next) -> Response {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_lowercase();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map_or(&*host, |(name, _)| name);
    let id = format!("{:08x}", gate.request_count.fetch_add(1, Ordering::Relaxed));
    let mut response = if gate.is_known_host(name) {
        match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::too_slow(is_safe).into_response(),
        }
    } else {
        Problem::host(name).into_response()
    };
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.error.request_id.clone_from(&id);
        response = problem.into_response();
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pages and their parts say their own.
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    response
}

pub(crate) async fn readyz<B: Backend>(State(gate): State<Arc<Gate<B>>>) -> Response {
    match gate.backend.unready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

pub(crate) async fn counted<B: Backend>(State(gate): State<Arc<Gate<B>>>, headers: HeaderMap) -> Response {
    if let Err(problem) = gate.admit(Access::May(Permission::View), &Method::GET, &headers).await {
        return problem.into_response();
    }
    match blocking(move || gate.backend.metrics()).await {
        Ok(Ok(found)) => {
            let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            (kind, metrics::text(&found)).into_response()
        }
        Ok(Err(why)) => Problem::state(why).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Answers a message of the Model Context Protocol.
pub(crate) async fn mcp<B: Backend>(gate: &Arc<Gate<B>>, tools: Arc<Tools<B>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = gate.admit(Access::May(Permission::View), &Method::POST, &parts.headers).await?;
    let bytes = to_bytes(body, MESSAGE_LENGTH_MAX).await.map_err(|_| Problem::too_large(MESSAGE_LENGTH_MAX))?;
    let message: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| Problem::body(format!("the body is no JSON: {error}")))?;
    let call = Call {
        caller,
        now: gate.backend.now(),
        path: Vec::new(),
        origin: origin_of(&parts.headers),
        session: None,
        runtime: Handle::current(),
        cookie: Mutex::default(),
    };
    let _working = gate.working.acquire().await.ok();
    let gate = Arc::clone(gate);
    let answer = blocking(move || tools.answer(&gate.backend, &call, &message)).await?;
    Ok(match answer {
        Some(answer) => problem::json(StatusCode::OK, &answer),
        None => StatusCode::ACCEPTED.into_response(),
    })
}

pub(crate) async fn webhook<B: Backend>(
    State(gate): State<Arc<Gate<B>>>,
    Path(sensor): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(problem) = gate.take_stranger(&headers, gate.backend.now()) {
        return problem.into_response();
    }
    // A sensor that is not there answers as one whose secret is another; nobody's body is read who does not even claim to know it.
    let Some(hook) = gate.backend.hook(&sensor).filter(|hook| hook.may_admit(&headers)) else {
        return Problem::secret().into_response();
    };
    let Ok(bytes) = to_bytes(body, ITEM_LENGTH_MAX).await else { return Problem::too_large(ITEM_LENGTH_MAX).into_response() };
    if !hook.admits(&headers, &bytes) {
        return Problem::secret().into_response();
    }
    if let Some((_, why)) = gate.backend.store().stalled() {
        return Problem::stalled(&why).into_response();
    }
    let id = match hook::id_of(&headers) {
        Ok(id) => id,
        Err(problem) => return problem.into_response(),
    };
    let Some(body) = hook::value_of(&headers, &bytes) else { return Problem::no_text().into_response() };
    match gate.backend.deliver(Delivery { sensor, id, body }).await {
        Ok(Kept::New(id)) => crate::answer(StatusCode::ACCEPTED, &json!({ "delivery": id, "is_new": true })),
        Ok(Kept::Known(id)) => crate::answer(StatusCode::OK, &json!({ "delivery": id, "is_new": false })),
        Ok(Kept::Full) => Problem::full().into_response(),
        Err(why) => Problem::state(why).into_response(),
    }
}
