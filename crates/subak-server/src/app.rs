//! The web app: one page, and the parts that it loads. Each address of the app answers with the page, and says itself whether there is such a thing.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};

use crate::gate::{Gate, blocking};
use crate::{Backend, Problem, people};

/// What `make web` has built; empty where it was not built before this was compiled.
static BUILT: Dir<'_> = include_dir!("$SUBAK_WEB");

/// Addresses of the app; a part in braces names something that has to be there.
const PAGES: &[&str] = &[
    "/",
    "/setup",
    "/sign-in",
    "/assets",
    "/assets/{assets}",
    "/lineage",
    "/runs",
    "/runs/{runs}",
    "/queue",
    "/plan",
    "/backfills",
    "/backfills/{backfills}",
    "/quality",
    "/quarantine/{assets}",
    "/automation",
    "/automation/{automation}",
    "/connections",
    "/sql",
    "/docs",
    "/docs/{docs}",
    "/admin/users",
    "/admin/tokens",
    "/admin/audit",
    "/admin/system",
];

/// A page of the app.
#[derive(Debug, PartialEq, Eq)]
enum Found<'p> {
    /// There is one.
    Page,
    /// There is one where there is such a thing.
    Of(&'static str, &'p str),
    /// There is none.
    None,
}

fn find(path: &str) -> Found<'_> {
    for page in PAGES {
        let (mut said, mut known) = (path.split('/'), page.split('/'));
        let mut named = None;
        let fits = loop {
            match (said.next(), known.next()) {
                (None, None) => break true,
                (Some(said), Some(known)) => match known.strip_prefix('{').and_then(|kind| kind.strip_suffix('}')) {
                    Some(kind) if !said.is_empty() => named = Some((kind, said)),
                    _ if said == known => {}
                    _ => break false,
                },
                _ => break false,
            }
        };
        if fits {
            return named.map_or(Found::Page, |(kind, name)| Found::Of(kind, name));
        }
    }
    Found::None
}

fn file(path: &str) -> Option<&'static [u8]> {
    BUILT.get_file(path).map(include_dir::File::contents)
}

fn kind_of(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    let said = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    said.split(',').any(|one| one.split(';').next().is_some_and(|name| name.trim() == "br"))
}

/// A part of the app. Their names carry a digest of what is in them, so they never change.
fn part(path: &str, headers: &HeaderMap) -> Option<Response> {
    let compressed = if accepts_brotli(headers) { file(&format!("{path}.br")) } else { None };
    let bytes = compressed.or_else(|| file(path))?;
    let mut response = bytes.into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind_of(path)));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if compressed.is_some() {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    Some(response)
}

/// What the page may load: parts of this server and nothing else. Styles that are made while it runs carry a number that nobody can guess.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; \
         font-src 'self'; worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
    )
}

fn page(status: StatusCode, prefix: &str, is_known: bool) -> Response {
    let Some(text) = file("index.html").and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        let help = "build it with `make web`, and Subak after it";
        return Problem::new(StatusCode::NOT_FOUND, subak_diag::codes::HTTP_UNKNOWN, "this build has no web app", help)
            .into_response();
    };
    let nonce = match people::secret() {
        Ok(secret) => secret,
        Err(problem) => return problem.into_response(),
    };
    let text = text.replace("__BASE__", &format!("{prefix}/")).replace("__NONCE__", &nonce);
    // Whoever has not signed in is asked at once, without a question to the server that it would refuse.
    let text = text.replace("__KNOWN__", if is_known { "yes" } else { "no" });
    let mut response = (status, text).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce)) {
        out.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Whatever is no route: a part of the app, a page of it, or nothing.
pub(crate) async fn answer<B: Backend>(State(gate): State<Arc<Gate<B>>>, request: Request) -> Response {
    let path = request.uri().path();
    // Where the proxy did not take it away, what stands before the address is still there.
    let below = path.strip_prefix(&gate.prefix).filter(|rest| rest.starts_with('/'));
    let path = below.unwrap_or(path).to_owned();
    if path == "/api" || path.starts_with("/api/") {
        return Problem::no_path().into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Problem::method().into_response();
    }
    if let Some(response) = path.strip_prefix("/static/").and_then(|name| part(&format!("static/{name}"), request.headers())) {
        return response;
    }
    let headers = request.headers().clone();
    let answered = blocking(move || {
        let is_known = gate.backend.people().caller(&headers, gate.backend.now()).is_ok_and(|caller| caller.is_some());
        let is_there = match find(&path) {
            Found::Page => true,
            Found::None => false,
            // Nobody learns what there is who has not signed in: they get the page, which asks them to.
            Found::Of(kind, name) => !is_known || gate.backend.knows(kind, &decoded(name)),
        };
        page(if is_there { StatusCode::OK } else { StatusCode::NOT_FOUND }, &gate.prefix, is_known)
    });
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

/// A part of a path with its percent signs read.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_pages_or_nothing() {
        assert_eq!(find("/"), Found::Page);
        assert_eq!(find("/runs"), Found::Page);
        assert_eq!(find("/runs/01J8"), Found::Of("runs", "01J8"));
        assert_eq!(find("/assets/gold.sales"), Found::Of("assets", "gold.sales"));
        for nothing in ["/run", "/runs/", "/runs/a/b", "//", "/Runs", "/admin", "/static/x.js", "/etc/passwd", "/.."] {
            assert_eq!(find(nothing), Found::None, "{nothing}");
        }
    }
}
