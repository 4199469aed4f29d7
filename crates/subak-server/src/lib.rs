//! The HTTP interface of a server: whether it is well, what it counts, and what others tell it.
//!
//! Deliberately not here: state, sensors and secrets, which the binary hands in. Every route stands in one table with the access that it needs;
//! what is not in the table does not exist. Requests must name a host that the server knows, so that a page of somebody else's in a browser on the
//! same machine cannot speak to it.

mod answer;
mod hook;
mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use answer::Answer;
pub use hook::{Hook, ITEM_LENGTH_MAX};
pub use metrics::{Kind, Metric, Sample};

use crate::answer::Problem;

/// Connections that are heard at a time.
const CONNECTION_COUNT_MAX: usize = 256;

/// How long a connection may say nothing, or only a part of what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the interface asks of whoever has the project.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Why work is not taken on just now; `None` where it is.
    fn unready(&self) -> Option<String>;
    /// What is counted.
    async fn metrics(&self) -> Result<Vec<Metric>, String>;
    /// The sensor of this name that is told things, if there is one.
    fn hook(&self, sensor: &str) -> Option<Hook>;
    /// Keeps what a sensor was told, durably. The same id is kept once.
    async fn deliver(&self, delivery: Delivery) -> Result<Kept, String>;
}

/// What a sensor was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The sensor.
    pub sensor: String,
    /// What the sender calls it; the same id means the same delivery.
    pub id: Option<String>,
    /// The body: JSON where it is, else its text.
    pub body: serde_json::Value,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It was kept under this id.
    New(String),
    /// It had been kept before.
    Known(String),
    /// So many wait that no more are taken.
    Full,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who reaches the server. Names of assets and jobs and how many rows there are may be told, and nothing of what is in them.
    Open,
    /// Whoever knows the secret of the sensor that the path names.
    Hook,
}

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path; parts in braces stand for anything.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// What it does, one sentence.
    pub summary: &'static str,
}

const fn route(method: &'static str, path: &'static str, access: Access, summary: &'static str) -> Route {
    Route { method, path, access, summary }
}

/// Every route.
pub const ROUTES: &[Route] = &[
    route("GET", "/livez", Access::Open, "Whether the process answers."),
    route("GET", "/readyz", Access::Open, "Whether it takes work on: 503 with the reason while it does not."),
    route("GET", "/metrics", Access::Open, "What it counts, as Prometheus reads it."),
    route("POST", "/api/v1/webhooks/{sensor}", Access::Hook, "Tells a sensor something; it is kept before the answer."),
];

#[derive(Clone)]
struct Shared {
    backend: Arc<dyn Backend>,
    /// Names of the server, in small letters.
    hosts: Arc<Vec<String>>,
}

/// The interface. `hosts` are names by which requests may call the server, besides those of the machine itself.
pub fn router(backend: Arc<dyn Backend>, hosts: &[String]) -> Router {
    let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
    let hosts = own.into_iter().chain(hosts.iter().map(|host| host.to_lowercase())).collect();
    let shared = Shared { backend, hosts: Arc::new(hosts) };
    let mut router = Router::new();
    for route in ROUTES {
        router = match (route.method, route.path) {
            (_, "/livez") => router.route(route.path, get(async || "ok\n")),
            (_, "/readyz") => router.route(route.path, get(readyz)),
            (_, "/metrics") => router.route(route.path, get(counted)),
            (_, "/api/v1/webhooks/{sensor}") => router.route(route.path, post(webhook)),
            // Each route of the table has its arm; a test calls them all.
            _ => router,
        };
    }
    router
        .fallback(async || Problem::NotFound.into_response())
        .method_not_allowed_fallback(async || Problem::Method.into_response())
        .layer(middleware::from_fn_with_state(shared.clone(), guarded))
        .with_state(shared)
}

/// Serves until the future is dropped. Whoever connects has to say what it wants soon, and only so many are heard at a time.
pub async fn serve(listener: TcpListener, router: Router) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Nobody closes it.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            // One that is gone already, or no file that is free: the next may do better.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http1_only();
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // Whoever goes away in the middle tells nobody.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}

/// Opens the place where requests arrive. Only the machine itself reaches it: what comes from elsewhere comes by way of a proxy that encrypts.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let message =
            "only addresses of this machine are served, such as 127.0.0.1:7070; let a proxy that speaks TLS stand before it";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    }
    TcpListener::bind(address).await
}

/// Before every route: the host, and what every answer carries.
async fn guarded(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_lowercase();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map_or(&*host, |(name, _)| name);
    let is_known = shared.hosts.iter().any(|known| known == name);
    let mut response = if is_known {
        match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::TooSlow.into_response(),
        }
    } else {
        Problem::Host(name.to_owned()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers
        .insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match shared.backend.unready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn counted(State(shared): State<Shared>) -> Response {
    match shared.backend.metrics().await {
        Ok(found) => {
            let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            (kind, metrics::text(&found)).into_response()
        }
        Err(why) => Problem::State(why).into_response(),
    }
}

async fn webhook(State(shared): State<Shared>, Path(sensor): Path<String>, headers: HeaderMap, body: Body) -> Response {
    // A sensor that is not there answers as one whose secret is another; nobody's body is read who does not even claim to know it.
    let Some(hook) = shared.backend.hook(&sensor).filter(|hook| hook.may_admit(&headers)) else {
        return Problem::Secret.into_response();
    };
    let Ok(bytes) = to_bytes(body, ITEM_LENGTH_MAX).await else { return Problem::TooLarge.into_response() };
    if !hook.admits(&headers, &bytes) {
        return Problem::Secret.into_response();
    }
    let id = match hook::id_of(&headers) {
        Ok(id) => id,
        Err(problem) => return problem.into_response(),
    };
    let Some(body) = hook::value_of(&headers, &bytes) else { return Problem::Body.into_response() };
    match shared.backend.deliver(Delivery { sensor, id, body }).await {
        Ok(Kept::New(id)) => Answer(StatusCode::ACCEPTED, json!({ "delivery": id, "is_new": true })).into_response(),
        Ok(Kept::Known(id)) => Answer(StatusCode::OK, json!({ "delivery": id, "is_new": false })).into_response(),
        Ok(Kept::Full) => Problem::Full.into_response(),
        Err(why) => Problem::State(why).into_response(),
    }
}
