//! Signing requests in. Tokens of OAuth 2 (RFC 6749, client credentials and refresh) are fetched once for all streams, again when they end or are
//! refused, and a refresh token that the server replaces is kept for the next run.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Url};
use serde::{Deserialize, Serialize};
use subak_connect::{ConnectError, ConnectErrorKind, Field, FieldKind, OpenRequest};
use subak_domain::Secret;
use tokio::time::Instant;

/// The keys of `auth`.
pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "type",
        kind: FieldKind::Word(&["basic", "bearer", "header", "query", "oauth2"]),
        is_required: true,
        doc: "`basic`: `user` and `password`. `bearer`: `token`. `header` and `query`: `token` in the header or parameter `name`. `oauth2`: a token from `token_url`, by client credentials, or by `refresh_token`.",
    },
    Field::optional("user", FieldKind::Text, "Who signs in."),
    Field::optional("password", FieldKind::Secret, "The password of the user."),
    Field::optional("token", FieldKind::Secret, "The token or key."),
    Field::optional("name", FieldKind::Text, "Name of the header or parameter that takes the token."),
    Field::optional("token_url", FieldKind::Text, "OAuth 2: where tokens come from."),
    Field::optional("client_id", FieldKind::Text, "OAuth 2: who asks."),
    Field::optional("client_secret", FieldKind::Secret, "OAuth 2: the secret of the client."),
    Field::optional(
        "client_auth",
        FieldKind::Word(&["header", "body"]),
        "OAuth 2: where client and secret stand when a token is asked for. By default in a header, as the standard has it.",
    ),
    Field::optional(
        "refresh_token",
        FieldKind::Secret,
        "OAuth 2: asks with this token. One that replaces it is kept below `.subak/`.",
    ),
    Field::optional("scope", FieldKind::Text, "OAuth 2: what is asked for, with blanks between."),
    Field::optional("audience", FieldKind::Text, "OAuth 2: whom the token is for, where the server wants to know."),
];

/// How long before its end a token counts as ended.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a token holds whose server does not say.
const LIFETIME_USUAL: Duration = Duration::from_secs(300);

/// The longest time that a token is taken to hold.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often, and how long each time, it is waited for another process.
const LOCK_ATTEMPTS_MAX: usize = 600;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How requests are signed in.
pub(super) enum Auth {
    None,
    Basic { user: String, password: Option<Secret> },
    Bearer(Secret),
    Header { name: String, token: Secret },
    Query { name: String, token: Secret },
    OAuth2(Box<OAuth2>),
}

/// A client of OAuth 2.
pub(super) struct OAuth2 {
    connection: String,
    token_url: Url,
    client_id: String,
    client_secret: Option<Secret>,
    in_body: bool,
    refresh_token: Option<Secret>,
    scope: Option<String>,
    audience: Option<String>,
    /// Where a refresh token is kept that replaced the configured one.
    kept: PathBuf,
    /// Whoever finds it ended fetches a new one while the others wait.
    token: tokio::sync::Mutex<Option<Token>>,
}

struct Token {
    text: Secret,
    ends_at: Instant,
}

/// A refresh token that replaced another one.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// BLAKE3 of the configured token: when another one is configured, that one counts.
    configured: String,
    refresh_token: String,
}

impl Auth {
    pub(super) fn new(request: &OpenRequest) -> Result<Self, ConnectError> {
        let (config, connection) = (&request.config, request.name.as_str());
        let text = |key: &str| config.get(key).filter(|text| !text.is_empty()).map(str::to_owned);
        let secret = |key: &str| config.secrets.get(key).cloned().filter(|secret| !secret.expose().is_empty());
        let lacks = |key: &str| {
            let kind = text("auth.type").unwrap_or_default();
            let message = format!("connection `{connection}`: `auth` of the type `{kind}` needs `{key}`");
            ConnectError::new(ConnectErrorKind::Config, message)
        };
        let token = || secret("auth.token").ok_or_else(|| lacks("token"));
        let name = || text("auth.name").ok_or_else(|| lacks("name"));
        Ok(match text("auth.type").as_deref() {
            None => Self::None,
            Some("basic") => {
                Self::Basic { user: text("auth.user").ok_or_else(|| lacks("user"))?, password: secret("auth.password") }
            }
            Some("bearer") => Self::Bearer(token()?),
            Some("header") => Self::Header { name: name()?, token: token()? },
            Some("query") => Self::Query { name: name()?, token: token()? },
            Some(_) => {
                let url = text("auth.token_url").ok_or_else(|| lacks("token_url"))?;
                let token_url = Url::parse(&url).map_err(|error| {
                    let message = format!("connection `{connection}`: `auth.token_url` is no address");
                    ConnectError::new(ConnectErrorKind::Config, message).because(error)
                })?;
                Self::OAuth2(Box::new(OAuth2 {
                    connection: connection.to_owned(),
                    token_url,
                    client_id: text("auth.client_id").ok_or_else(|| lacks("client_id"))?,
                    client_secret: secret("auth.client_secret"),
                    in_body: text("auth.client_auth").as_deref() == Some("body"),
                    refresh_token: secret("auth.refresh_token"),
                    scope: text("auth.scope"),
                    audience: text("auth.audience"),
                    kept: request.state.join(format!("{connection}.json")),
                    token: tokio::sync::Mutex::new(None),
                }))
            }
        })
    }

    /// Puts what signs it in into the headers of a request, and says which token may end. `refused` is one that the server did not take.
    pub(super) async fn sign(
        &self,
        client: &Client,
        request: RequestBuilder,
        refused: Option<&Secret>,
    ) -> Result<(RequestBuilder, Option<Secret>), ConnectError> {
        let request = match self {
            Self::None => request,
            Self::Basic { user, password } => request.basic_auth(user, password.as_ref().map(Secret::expose)),
            Self::Bearer(token) => request.bearer_auth(token.expose()),
            Self::Header { name, token } => {
                request.headers(super::headers(&[(name.clone(), token.expose().to_owned())], "`auth`")?)
            }
            Self::Query { .. } => request,
            Self::OAuth2(oauth) => {
                let token = oauth.token(client, refused).await?;
                return Ok((request.bearer_auth(token.expose()), Some(token)));
            }
        };
        Ok((request, None))
    }

    /// The address with what signs it in.
    pub(super) fn url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if let Self::Query { name, token } = self {
            url.query_pairs_mut().append_pair(name, token.expose());
        }
        url
    }
}

impl OAuth2 {
    async fn token(&self, client: &Client, refused: Option<&Secret>) -> Result<Secret, ConnectError> {
        let mut held = self.token.lock().await;
        let is_refused = |token: &Token| refused.is_some_and(|refused| refused.expose() == token.text.expose());
        if let Some(token) = held.as_ref().filter(|token| token.ends_at > Instant::now() && !is_refused(token)) {
            return Ok(token.text.clone());
        }
        // Another process may be using up the refresh token.
        let lock = self.refresh_token.as_ref().map(|_| self.lock());
        let lock = match lock {
            Some(lock) => Some(lock.await?),
            None => None,
        };
        let token = self.fetch(client).await?;
        drop(lock);
        Ok(held.insert(token).text.clone())
    }

    /// Waits until no other process of this machine asks for a token of this connection.
    async fn lock(&self) -> Result<std::fs::File, ConnectError> {
        let path = self.kept.with_extension("lock");
        let failed = |error| {
            let message = format!("connection `{}`: `{}` cannot be locked", self.connection, path.display());
            ConnectError::io(ConnectErrorKind::Resource, message, error)
        };
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        for _ in 0..LOCK_ATTEMPTS_MAX {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let message = format!("connection `{}`: another process has been asking for a token for too long", self.connection);
        Err(ConnectError::new(ConnectErrorKind::Unavailable, message))
    }

    async fn fetch(&self, client: &Client) -> Result<Token, ConnectError> {
        let message =
            format!("connection `{}`: no token from {}", self.connection, self.token_url.host_str().unwrap_or_default());
        let failed = |kind| ConnectError::new(kind, message.as_str());
        let mut form: Vec<(&str, String)> = Vec::new();
        let refresh = self.refresh_token.as_ref().map(|configured| self.kept_or(configured)).transpose()?;
        match &refresh {
            Some(token) => {
                form.extend([("grant_type", "refresh_token".to_owned()), ("refresh_token", token.expose().to_owned())]);
            }
            None => form.push(("grant_type", "client_credentials".to_owned())),
        }
        form.extend(self.scope.iter().map(|scope| ("scope", scope.clone())));
        form.extend(self.audience.iter().map(|audience| ("audience", audience.clone())));
        let secret = self.client_secret.as_ref().map(Secret::expose);
        let mut request = client.post(self.token_url.clone());
        if self.in_body {
            form.push(("client_id", self.client_id.clone()));
            form.extend(secret.map(|secret| ("client_secret", secret.to_owned())));
        } else {
            // RFC 6749, 2.3.1: both are encoded first.
            request = request.basic_auth(super::call::encoded(&self.client_id), secret.map(super::call::encoded));
        }
        let body =
            form.iter().map(|(name, value)| format!("{name}={}", super::call::encoded(value))).collect::<Vec<_>>().join("&");
        let request = request.header("content-type", "application/x-www-form-urlencoded").header("accept", "application/json");
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| failed(ConnectErrorKind::Unavailable).because(error.without_url()))?;
        let status = answer.status();
        if !status.is_success() {
            let text = super::call::error_text(answer).await;
            let is_passing = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            let kind = if is_passing { ConnectErrorKind::Unavailable } else { ConnectErrorKind::Permission };
            let help = "correct `client_id:`, `client_secret:`, `refresh_token:` and `scope:` under `auth:`";
            return Err(failed(kind).because(format!("status {status}: {}", super::call::beginning(&text))).help(help));
        }
        let text = answer.text().await.map_err(|error| failed(ConnectErrorKind::Unavailable).because(error.without_url()))?;
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        // First of all: the old one is used up.
        if let (Some(configured), Some(new)) = (&self.refresh_token, answer["refresh_token"].as_str())
            && refresh.is_none_or(|used| used.expose() != new)
        {
            self.keep(configured, new)?;
        }
        let Some(token) = answer["access_token"].as_str() else {
            return Err(failed(ConnectErrorKind::Malformed).because("the answer has no `access_token`"));
        };
        // Some write the number as a text.
        let seconds = &answer["expires_in"];
        let seconds = seconds.as_u64().or_else(|| seconds.as_str()?.parse().ok());
        let lifetime = seconds.map_or(LIFETIME_USUAL, Duration::from_secs).min(LIFETIME_MAX).saturating_sub(MARGIN);
        Ok(Token { text: Secret::new(token), ends_at: Instant::now() + lifetime })
    }

    /// The token that replaced the configured one, if there is one.
    fn kept_or(&self, configured: &Secret) -> Result<Secret, ConnectError> {
        let failed = |error| {
            let message = format!("connection `{}`: `{}` cannot be read", self.connection, self.kept.display());
            let help = "it holds the refresh token that replaced the configured one; if it is lost, configure a new one and remove the file";
            ConnectError::io(ConnectErrorKind::Resource, message, error).help(help)
        };
        let text = match std::fs::read(&self.kept) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(configured.clone()),
            result => result.map_err(failed)?,
        };
        let kept: Kept = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        let is_of = kept.configured == fingerprint(configured);
        Ok(if is_of { Secret::new(kept.refresh_token) } else { configured.clone() })
    }

    /// Keeps the token that the next run needs; the old one is used up.
    fn keep(&self, configured: &Secret, refresh_token: &str) -> Result<(), ConnectError> {
        let kept = Kept { configured: fingerprint(configured), refresh_token: refresh_token.to_owned() };
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        write_private(&self.kept, &text).map_err(|error| {
            let message =
                format!("connection `{}`: the new refresh token cannot be kept in `{}`", self.connection, self.kept.display());
            ConnectError::io(ConnectErrorKind::Resource, message, error)
        })
    }
}

fn fingerprint(secret: &Secret) -> String {
    blake3::hash(secret.expose().as_bytes()).to_hex().to_string()
}

/// Writes a file that only its owner can read, all of it or nothing.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    // The name as well: after a power cut the old token would be a used-up one.
    std::fs::File::open(folder)?.sync_all()
}
