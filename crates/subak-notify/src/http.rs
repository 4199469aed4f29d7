//! Requests over HTTP: one each, with bounds for time and length.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Url, redirect};

use subak_domain::{HttpAnswer, HttpRequest};

use crate::NotifyError;

/// Bytes of an answer that are read.
const ANSWER_LENGTH_MAX: usize = 1024 * 1024;

/// How long the other side may take to accept a connection, and to answer a message.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest wait that the other side may ask for.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Sends requests. Clones share connections. The client is made with the first of them: whoever sends nothing needs no certificates.
#[derive(Debug, Clone, Default)]
pub struct Http(Arc<OnceLock<Client>>);

impl Http {
    fn client(&self) -> Result<&Client, NotifyError> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        // Another part of the process may have done it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // A redirection would carry what signs us in to somewhere else.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("subak/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| NotifyError::lasting(format!("no HTTP client could be made: {}", cause(&error))))?;
        Ok(self.0.get_or_init(|| client))
    }

    /// Sends one request.
    pub async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, NotifyError> {
        // An address is a secret as often as not: errors name its host only.
        let url = Url::parse(&request.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            return Err(NotifyError::lasting("what it is sent to is no address of HTTP"));
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| NotifyError::lasting(format!("`{}` is no method of HTTP", request.method)))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, mut value) =
                parsed.ok_or_else(|| NotifyError::lasting(format!("the header `{name}` cannot be sent as it is")))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let mut sent = self.client()?.request(method, url).headers(headers);
        if let Some(body) = &request.body {
            sent = sent.body(body.clone());
        }
        let unreached = |error: reqwest::Error| {
            let what = if error.is_timeout() { "does not answer" } else { "cannot be reached" };
            NotifyError::passing(format!("`{host}` {what}: {}", cause(&error)))
        };
        let mut response = sent.send().await.map_err(unreached)?;
        let status = response.status().as_u16();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreached)? {
            let room = ANSWER_LENGTH_MAX - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if bytes.len() == ANSWER_LENGTH_MAX {
                break;
            }
        }
        Ok(HttpAnswer { status, text: String::from_utf8_lossy(&bytes).into_owned(), retry_after })
    }
}

/// The innermost cause, which does not repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut found: &dyn std::error::Error = error;
    while let Some(source) = found.source() {
        found = source;
    }
    if std::ptr::eq(found, std::ptr::from_ref(error)) { "the request failed".to_owned() } else { found.to_string() }
}
