//! The HTTP interface of a server: its routes and who may use them, signing in, what changes as it changes, and the web app.
//!
//! Deliberately not here: what assets, runs and plans are made of. Whoever has the project hands that in as endpoints. Each carries the access that it
//! needs, and there is one place that asks for it. Requests must name a host that the server knows, so that a page of somebody else's in a browser on
//! the same machine cannot speak to it.

pub mod accounts;
mod app;
mod endpoint;
mod gate;
mod hook;
pub mod layout;
pub mod mcp;
mod metrics;
mod openapi;
mod people;
mod problem;
mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use subak_domain::{Permission, Timestamp};
use subak_store::SqliteStore;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use accounts::{Done, make_token};
pub use endpoint::{Access, Call, Endpoint, Nothing, Page, Sent};
pub use gate::Settings;
pub use hook::{Hook, ITEM_LENGTH_MAX};
pub use metrics::{Kind, Metric, Sample};
pub use openapi::document;
pub use people::{Caller, People, TOKEN_PREFIX, hash_of, name};
pub use problem::{ApiError, ErrorBody, Problem};

use crate::gate::Gate;

/// Connections that are heard at a time.
const CONNECTION_COUNT_MAX: usize = 1024;

/// How long a connection may say nothing, or only a part of what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the interface asks of whoever has the project.
#[async_trait]
pub trait Backend: Send + Sync + Sized + 'static {
    /// The time.
    fn now(&self) -> Timestamp;
    /// The state of the project.
    fn store(&self) -> &SqliteStore;
    /// Whoever may speak to it.
    fn people(&self) -> &People;
    /// Why work is not taken on just now; `None` where it is.
    fn unready(&self) -> Option<String>;
    /// What is counted.
    fn metrics(&self) -> Result<Vec<Metric>, String>;
    /// The sensor of this name that is told things, if there is one.
    fn hook(&self, sensor: &str) -> Option<Hook>;
    /// Keeps what a sensor was told, durably. The same id is kept once.
    async fn deliver(&self, delivery: Delivery) -> Result<Kept, String>;
    /// Whether there is something of this kind (`assets`, `runs`, …) with this name: its page is then one that exists.
    fn knows(&self, kind: &str, name: &str) -> bool;
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

/// A route that is no endpoint: it is not answered with JSON, or it goes on for long.
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

/// Every route that is no endpoint.
pub const ROUTES: &[Route] = &[
    route("GET", "/livez", Access::Open, "Whether the process answers."),
    route("GET", "/readyz", Access::Open, "Whether it takes work on: 503 with the reason while it does not."),
    route("GET", "/metrics", Access::May(Permission::View), "What it counts, as Prometheus reads it."),
    route("POST", "/api/v1/webhooks/{sensor}", Access::Hook, "Tells a sensor something; it is kept before the answer."),
    route("GET", "/api/v1/stream", Access::May(Permission::View), "What changes, as it changes: server-sent events."),
    route(
        "POST",
        "/api/v1/mcp",
        Access::May(Permission::View),
        "Tools for assistants, by the Model Context Protocol: one message and its answer.",
    ),
    route("GET", "/api/v1/openapi.json", Access::May(Permission::View), "This description, as OpenAPI 3.1."),
];

/// All endpoints: those of signing in, and those of whoever has the project.
pub fn endpoints<B: Backend>(own: Vec<Endpoint<B>>) -> Vec<Endpoint<B>> {
    accounts::endpoints().into_iter().chain(own).collect()
}

/// The interface, and what it needs to be told of changes; that ends when the set is dropped.
pub fn router<B: Backend>(backend: Arc<B>, own: Vec<Endpoint<B>>, settings: &Settings) -> (Router, JoinSet<()>) {
    let endpoints = endpoints(own);
    let description: Arc<str> = format!("{:#}\n", document(&endpoints)).into();
    let (hub, tasks) = stream::Hub::start(Arc::clone(&backend));
    let gate = Arc::new(Gate::new(backend, settings, hub));
    let mut router: Router<Arc<Gate<B>>> = Router::new();
    // Methods of one path come together.
    let mut paths: BTreeMap<&'static str, axum::routing::MethodRouter<Arc<Gate<B>>>> = BTreeMap::new();
    let endpoints: Vec<Arc<Endpoint<B>>> = endpoints.into_iter().map(Arc::new).collect();
    let tools = Arc::new(mcp::Tools::new(settings.tools, &endpoints));
    for endpoint in endpoints {
        let (path, filter) = (endpoint.path, filter_of(&endpoint.method));
        let answer =
            async move |State(gate): State<Arc<Gate<B>>>, params, request| gate::answer(&gate, endpoint, params, request).await;
        let method = on(filter, answer);
        let known = paths.remove(path).unwrap_or_default();
        paths.insert(path, known.merge(method));
    }
    for (path, methods) in paths {
        router = router.route(path, methods);
    }
    for route in ROUTES {
        router = match route.path {
            "/livez" => router.route(route.path, get(async || "ok\n")),
            "/readyz" => router.route(route.path, get(gate::readyz::<B>)),
            "/metrics" => router.route(route.path, get(gate::counted::<B>)),
            "/api/v1/webhooks/{sensor}" => router.route(route.path, post(gate::webhook::<B>)),
            "/api/v1/stream" => router.route(route.path, get(stream::answer::<B>)),
            "/api/v1/mcp" => {
                let tools = Arc::clone(&tools);
                let answer = async move |State(gate): State<Arc<Gate<B>>>, request| {
                    gate::mcp(&gate, tools, request).await.unwrap_or_else(IntoResponse::into_response)
                };
                router.route(route.path, post(answer))
            }
            _ => {
                let text = Arc::clone(&description);
                let described = async move |State(gate): State<Arc<Gate<B>>>, headers: HeaderMap| match gate
                    .admit(route.access, &Method::GET, &headers)
                    .await
                {
                    Ok(_) => ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response(),
                    Err(problem) => problem.into_response(),
                };
                router.route(route.path, get(described))
            }
        };
    }
    let router = router
        .fallback(app::answer::<B>)
        .method_not_allowed_fallback(async || Problem::method().into_response())
        .layer(middleware::from_fn_with_state(Arc::clone(&gate), gate::guarded::<B>))
        .with_state(Arc::clone(&gate));
    if gate.prefix.is_empty() {
        return (router, tasks);
    }
    // Whether the proxy takes the path away or not.
    (Router::new().nest(&gate.prefix, router.clone()).merge(router), tasks)
}

fn filter_of(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::POST)
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

/// JSON with a status.
pub(crate) fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    problem::json(status, body)
}
