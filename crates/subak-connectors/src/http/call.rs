//! One request and its answer: limits, retries, and errors that say what happened without saying secrets.

use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, LINK, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value as Json;
use subak_connect::{ConnectError, ConnectErrorKind};
use subak_domain::Secret;

use super::Inner;

/// Bytes of an answer.
const ANSWER_LENGTH_MAX: usize = 256 * 1024 * 1024;

/// Bytes of an answer that is an error.
const ERROR_LENGTH_MAX: usize = 64 * 1024;

/// The first pause before another try; each is twice as long as the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The longest pause that a server may ask for.
const PAUSE_ASKED_MAX: Duration = Duration::from_secs(900);

/// Letters of an answer that an error shows.
const SHOWN_MAX: usize = 300;

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Json>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) text: String,
    /// Where the next page is, by the header `Link`.
    pub(super) link: Option<String>,
}

/// Why there is no answer.
enum Trouble {
    /// Another try may do.
    Passing(ConnectError, Option<Duration>),
    /// The token, which was this one, may have ended.
    Unsigned(ConnectError, Secret),
    Lasting(ConnectError),
}

/// A text as a part of an address: everything but letters, digits and `-_.~` as bytes in hexadecimal digits (RFC 3986, 2.3).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The beginning of an answer, for people.
pub(super) fn beginning(text: &str) -> String {
    let text = text.trim();
    let shown: String = text.chars().take(SHOWN_MAX).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

impl Call {
    /// The request for people: without its parameters, which may hold secrets.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }
}

impl Inner {
    /// Sends a request until it is answered, or until it has been tried often enough. `None` when there is nothing at its path.
    pub(super) async fn send(&self, call: &Call) -> Result<Option<Answer>, ConnectError> {
        let (mut pause, mut tries, mut refused) = (PAUSE_FIRST, 0, None);
        loop {
            let trouble = match self.try_once(call, refused.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Unsigned(error, _) if refused.is_some() => return Err(error),
                Trouble::Unsigned(_, token) => refused = Some(token),
                Trouble::Lasting(error) => return Err(error),
                Trouble::Passing(error, asked) => {
                    tries += 1;
                    let asked_too_much = asked.is_some_and(|asked| asked > PAUSE_ASKED_MAX);
                    if tries > self.retries || asked_too_much {
                        return Err(error.help(format!("it was tried {tries} times; run again later, or raise `retries:`")));
                    }
                    tokio::time::sleep(asked.unwrap_or(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn try_once(&self, call: &Call, refused: Option<&Secret>) -> Result<Option<Answer>, Trouble> {
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
        let failed = |kind, what: String| ConnectError::new(kind, format!("connection `{}`: {} {what}", self.name, call.name()));
        let mut request = self.client.request(call.method.clone(), self.auth.url(&call.url)).header(ACCEPT, "application/json");
        request = request.headers(self.headers.clone()).headers(call.headers.clone());
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let (request, token) = self.auth.sign(&self.client, request, refused).await.map_err(|error| match error.kind {
            ConnectErrorKind::Unavailable => Trouble::Passing(error, None),
            _ => Trouble::Lasting(error),
        })?;
        let unreached = |error: reqwest::Error| {
            let what = if error.is_timeout() { "was not answered in time" } else { "was not answered" };
            let error = failed(ConnectErrorKind::Unavailable, what.to_owned()).because(error.without_url());
            Trouble::Passing(error.help("is `url:` right, and can this machine reach it?"), None)
        };
        let answer = request.send().await.map_err(unreached)?;
        let status = answer.status();
        if status.is_success() {
            return self.body(call, answer).await.map(Some);
        }
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        let pause = asked_pause(answer.headers());
        let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok()).map(str::to_owned);
        let text = error_text(answer).await;
        let refusal = |kind| failed(kind, format!("was answered with the status {status}")).because(beginning(&text));
        Err(match status.as_u16() {
            408 | 425 | 429 | 500 | 502 | 503 | 504 => Trouble::Passing(refusal(ConnectErrorKind::Unavailable), pause),
            401 if token.is_some() => Trouble::Unsigned(
                refusal(ConnectErrorKind::Permission).help("correct `auth:`"),
                token.unwrap_or_else(|| Secret::new("")),
            ),
            401 | 403 | 407 => {
                Trouble::Lasting(refusal(ConnectErrorKind::Permission).help("correct `auth:`, or let whoever signs in read this"))
            }
            300..=399 => {
                let place = place.unwrap_or_default();
                let place = place.split('?').next().unwrap_or_default();
                let error = failed(ConnectErrorKind::Config, format!("leads to `{place}`"));
                Trouble::Lasting(error.help("put the right address into `url:` or `path:`; redirections are not followed, because they could lead elsewhere with what signs the request in"))
            }
            _ => Trouble::Lasting(refusal(ConnectErrorKind::Malformed).help("correct `path:`, `params:` or `body:`")),
        })
    }

    /// The whole answer. One that ends too early is none.
    async fn body(&self, call: &Call, answer: Response) -> Result<Answer, Trouble> {
        let failed = |kind, what: &str| {
            ConnectError::new(kind, format!("connection `{}`: the answer to {} {what}", self.name, call.name()))
        };
        let link = answer.headers().get_all(LINK).iter().find_map(|link| next_link(&String::from_utf8_lossy(link.as_bytes())));
        let mut bytes = Vec::new();
        let mut parts = answer.bytes_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| {
                Trouble::Passing(failed(ConnectErrorKind::Unavailable, "ended too early").because(error.without_url()), None)
            })?;
            bytes.extend_from_slice(&part);
            if bytes.len() > ANSWER_LENGTH_MAX {
                let error = failed(ConnectErrorKind::Resource, &format!("has more than {ANSWER_LENGTH_MAX} bytes"));
                return Err(Trouble::Lasting(error.help("ask for smaller pages with `pagination:`")));
            }
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| Trouble::Lasting(failed(ConnectErrorKind::Malformed, "is not UTF-8").because(error.utf8_error())))?;
        Ok(Answer { text, link })
    }
}

/// The beginning of an answer that is an error; it may be endless.
pub(super) async fn error_text(answer: Response) -> String {
    let (mut bytes, mut parts) = (Vec::new(), answer.bytes_stream());
    while let Some(Ok(part)) = parts.next().await {
        bytes.extend_from_slice(&part);
        if bytes.len() > ERROR_LENGTH_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How long the server wants us to wait: seconds, or a date that counts from the server's own clock.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| jiff::fmt::rfc2822::parse(text).ok();
    let now = moment(headers.get(DATE)?.to_str().ok()?)?;
    Some(Duration::try_from(moment(text)?.timestamp().duration_since(now.timestamp())).unwrap_or_default())
}

/// The target of `rel="next"` (RFC 8288).
fn next_link(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let params = after.split('<').next().unwrap_or_default();
        let is_next = params.split([';', ',']).any(|param| {
            let param = param.to_ascii_lowercase();
            let Some((name, relation)) = param.split_once('=') else { return false };
            let relation = relation.trim().trim_matches(['"', '\'']);
            name.trim() == "rel" && relation.split_ascii_whitespace().any(|word| word == "next")
        });
        if is_next {
            return Some(target.to_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect::<HeaderMap>()
        };
        assert_eq!(asked_pause(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let later = "Sun, 06 Nov 1994 08:50:00 GMT";
        assert_eq!(asked_pause(&headers(&[("retry-after", later), ("date", date)])), Some(Duration::from_secs(23)));
        assert_eq!(asked_pause(&headers(&[("retry-after", date), ("date", later)])), Some(Duration::ZERO));
        assert_eq!(asked_pause(&headers(&[("retry-after", "soon")])), None);
    }

    #[test]
    fn links_name_the_next_page() {
        let text = "<https://api.example/a?page=1>; rel=\"prev\", <https://api.example/a?ids=1,2;3>; rel=\"next last\"";
        assert_eq!(next_link(text).as_deref(), Some("https://api.example/a?ids=1,2;3"));
        assert_eq!(next_link("<https://api.example/ü>; title=\"a, b\"; REL = 'next'").as_deref(), Some("https://api.example/ü"));
        assert_eq!(next_link("<https://api.example/a>; rel=prev"), None);
    }
}
