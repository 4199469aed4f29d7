//! HTTP APIs that answer with JSON, declared in YAML: how to sign in, where the records are, how pages follow each other, what is new.

mod auth;
mod call;
mod options;
mod page;
mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, ConnectionConfig, Connector, Field, FieldKind,
    OpenRequest, Source,
};
use tokio::time::{Interval, MissedTickBehavior};

use self::auth::Auth;

/// How long a server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The connector.
#[derive(Debug)]
pub struct Http;

const CONNECTION: &[Field] = &[
    Field {
        name: "url",
        kind: FieldKind::Text,
        is_required: true,
        doc: "Where the API begins: `https://api.example.com/v2`. Requests never leave this host, whatever an answer says.",
    },
    Field::optional("headers", FieldKind::Texts, "Headers of every request."),
    Field::optional("params", FieldKind::Texts, "Parameters of every request."),
    Field::optional("auth", FieldKind::Map(auth::FIELDS), "How requests are signed in."),
    Field::optional(
        "requests_per_minute",
        FieldKind::Integer,
        "How many requests are begun in a minute at most, by all streams of a run together. By default there is no limit.",
    ),
    Field::optional(
        "retries",
        FieldKind::Integer,
        "How often a request is tried again that failed for a reason that passes: no connection, an answer that ends too early, the status 408, 425, 429, 500, 502, 503 or 504. `Retry-After` is waited for. By default 5.",
    ),
    Field::optional("timeout", FieldKind::Integer, "Seconds that a server may take for an answer. By default 60."),
    Field::optional(
        "sslrootcert",
        FieldKind::Path,
        "File with the certificates (PEM) that the server's must lead to. By default those of the system.",
    ),
];

#[async_trait]
impl Connector for Http {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn summary(&self) -> &'static str {
        "HTTP APIs with JSON or NDJSON: pages, limits, retries, OAuth 2, parameters for what is new, requests for each record of another stream"
    }

    fn config(&self) -> ConfigSchema {
        ConfigSchema { connection: CONNECTION, stream: options::FIELDS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { source: true, ..Abilities::default() }
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        Ok(Arc::new(Api::new(&request)?))
    }
}

/// One configured API.
struct Inner {
    client: Client,
    base: Url,
    name: Arc<str>,
    headers: HeaderMap,
    params: Vec<(String, String)>,
    auth: Auth,
    /// One tick for each request.
    pace: Option<tokio::sync::Mutex<Interval>>,
    retries: u32,
    temporary: Box<Path>,
}

/// The connection; its parts are shared by all reads.
#[derive(Clone)]
struct Api(Arc<Inner>);

/// The values of a mapping of texts, without its name before theirs.
fn texts(values: &std::collections::BTreeMap<String, String>, name: &str) -> Vec<(String, String)> {
    let inner = |(key, value): (&String, &String)| {
        let key = key.strip_prefix(name)?.strip_prefix('.')?;
        Some((key.to_owned(), value.clone()))
    };
    values.iter().filter_map(inner).collect()
}

/// Headers by their texts. What stands in them shows nowhere.
fn headers(texts: &[(String, String)], about: &str) -> Result<HeaderMap, ConnectError> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        let wrong =
            || ConnectError::new(ConnectErrorKind::Config, format!("{about}: `{name}` is no header, or its value is none"));
        let key = HeaderName::try_from(name.as_str()).map_err(|error| wrong().because(error))?;
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|error| wrong().because(error))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

fn number(config: &ConnectionConfig, name: &str, default: u64) -> Result<u64, ConnectError> {
    let parsed = config.get(name).filter(|text| !text.is_empty()).map(str::parse).transpose();
    parsed
        .map(|number| number.unwrap_or(default))
        .map_err(|error| ConnectError::new(ConnectErrorKind::Config, format!("`{name}` must be a whole number")).because(error))
}

impl Api {
    fn new(request: &OpenRequest) -> Result<Self, ConnectError> {
        let (config, name) = (&request.config, request.name.as_str());
        let refused = |what: &str| ConnectError::new(ConnectErrorKind::Config, format!("connection `{name}`: {what}"));
        let text = config.get("url").unwrap_or_default();
        let base = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base = base.ok_or_else(|| refused("`url` is no address").help("write `url: https://api.example.com/v2`"))?;
        if base.password().is_some() || base.query().is_some() {
            let error = refused("`url` has a password or parameters in it");
            return Err(error.help("give them under `auth:` and `params:`, so that they show nowhere"));
        }
        // The first one stays; every connection of ours asks for the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Duration::from_secs(number(config, "timeout", 60)?.max(1)))
            .user_agent(concat!("subak/", env!("CARGO_PKG_VERSION")))
            // A redirection would carry what signs us in to somewhere else.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = config.get("sslrootcert").filter(|file| !file.is_empty()) {
            let unread = |error: String| refused(&format!("`sslrootcert` cannot be read from `{file}`")).because(error);
            let pem = std::fs::read(file).map_err(|error| unread(error.to_string()))?;
            client = client.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(|error| unread(error.to_string()))?);
        }
        let client = client.build().map_err(|error| refused("requests cannot be set up").because(error.without_url()))?;
        let per_minute = number(config, "requests_per_minute", 0)?;
        let pace = (per_minute > 0).then(|| {
            let mut pace = tokio::time::interval(Duration::from_secs(60) / u32::try_from(per_minute).unwrap_or(u32::MAX));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::sync::Mutex::new(pace)
        });
        let inner = Inner {
            client,
            base,
            name: name.into(),
            headers: headers(&texts(&config.values, "headers"), &format!("connection `{name}`"))?,
            params: texts(&config.values, "params"),
            auth: Auth::new(request)?,
            pace,
            retries: u32::try_from(number(config, "retries", 5)?).unwrap_or(u32::MAX),
            temporary: request.temporary.as_path().into(),
        };
        Ok(Self(Arc::new(inner)))
    }
}

impl Connection for Api {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
}
