//! Tells people and other systems what happened: webhooks, chats, mail. One attempt each; when to try again is decided elsewhere.

mod http;
mod mail;

use std::collections::BTreeMap;

use subak_domain::{HttpRequest, Secret};

pub use self::http::Http;

/// What is told.
#[derive(Debug, Clone)]
pub struct Message {
    /// One line: the subject of a mail.
    pub title: String,
    /// The whole text, plain.
    pub text: String,
    /// The same for programs: the body of a webhook.
    pub facts: serde_json::Value,
}

/// Who is told, with its references resolved.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// One of [`subak_domain::notification::RECEIVER_KINDS`].
    pub kind: String,
    /// Its values by key.
    pub values: BTreeMap<String, Secret>,
}

/// Why somebody was not told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotifyError {
    /// What happened, without secrets.
    pub message: String,
    /// Whether another attempt may do.
    pub is_transient: bool,
    /// How long the other side asks to wait.
    pub wait: Option<std::time::Duration>,
}

impl NotifyError {
    fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_transient: false, wait: None }
    }

    fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_transient: true, wait: None }
    }
}

/// The most characters of a message to Slack; longer ones are cut there.
const SLACK_LENGTH_MAX: usize = 4_000;

/// The most characters that Discord takes.
const DISCORD_LENGTH_MAX: usize = 2_000;

impl Receiver {
    fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(Secret::expose).filter(|value| !value.is_empty())
    }

    fn required(&self, key: &str) -> Result<&str, NotifyError> {
        self.value(key).ok_or_else(|| NotifyError::lasting(format!("its `{key}` has no value")))
    }

    /// Tells it once.
    pub async fn tell(&self, http: &Http, message: &Message) -> Result<(), NotifyError> {
        let body = match self.kind.as_str() {
            "email" => return mail::send(self, message).await,
            "slack" => serde_json::json!({ "text": escaped(&cut(&message.text, SLACK_LENGTH_MAX)) }),
            // Nobody is called by what stands in an error.
            "discord" => {
                serde_json::json!({ "content": cut(&message.text, DISCORD_LENGTH_MAX), "allowed_mentions": { "parse": [] } })
            }
            "webhook" => message.facts.clone(),
            other => return Err(NotifyError::lasting(format!("there is no kind of receiver `{other}`"))),
        };
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(self.value("authorization").map(|value| ("Authorization".to_owned(), value.to_owned())));
        let request = HttpRequest {
            method: "POST".to_owned(),
            url: self.required("url")?.to_owned(),
            headers,
            body: Some(body.to_string()),
        };
        let answer = http.call(&request).await?;
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        let message = format!("it answered {} {}", answer.status, first_line(&answer.text));
        let is_transient = answer.status == 429 || answer.status == 408 || answer.status >= 500;
        Err(NotifyError { message: message.trim_end().to_owned(), is_transient, wait: answer.retry_after })
    }
}

/// The text in so many characters.
fn cut(text: &str, length_max: usize) -> String {
    if text.chars().count() <= length_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(length_max - 1).collect();
    format!("{kept}…")
}

/// What Slack would read as a mark-up of its own, as it is.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    cut(line, 200).chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_marks_are_texts() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüx", 3), "äö…");
        assert_eq!(escaped("<!channel> & co"), "&lt;!channel&gt; &amp; co");
        assert_eq!(first_line("  no\u{7} such hook\nmore"), "no  such hook");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_says_why() {
        let http = Http::default();
        let message = Message { title: "t".into(), text: "x".into(), facts: serde_json::json!({}) };
        let receiver = |kind: &str, values: &[(&str, &str)]| Receiver {
            kind: kind.to_owned(),
            values: values.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect(),
        };
        for (receiver, expected, is_transient) in [
            (receiver("slack", &[]), "`url` has no value", false),
            (receiver("slack", &[("url", "http://hidden-name.invalid/secret-token")]), "cannot be reached", true),
            (receiver("webhook", &[("url", "ftp://x/secret-token")]), "is no address", false),
            (
                receiver("email", &[("host", "127.0.0.1"), ("from", "nobody"), ("to", "a@b.c")]),
                "`from` is no mail address",
                false,
            ),
            (
                receiver("email", &[("host", "127.0.0.1"), ("port", "1"), ("from", "a@b.c"), ("to", "a@b.c, d@e.f")]),
                "cannot be reached",
                true,
            ),
        ] {
            let error = receiver.tell(&http, &message).await.expect_err(expected);
            assert!(error.message.contains(expected), "{}", error.message);
            assert!(!error.message.contains("secret-token"), "{}", error.message);
            assert_eq!(error.is_transient, is_transient, "{}", error.message);
        }
    }
}
