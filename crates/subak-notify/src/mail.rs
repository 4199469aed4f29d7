//! Mail over SMTP.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::{Message, NotifyError, Receiver};

/// How long the mail server may be silent.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends one mail.
pub(crate) async fn send(receiver: &Receiver, message: &Message) -> Result<(), NotifyError> {
    let host = receiver.required("host")?;
    let address = |key: &str, error: lettre::address::AddressError| {
        NotifyError::lasting(format!("its `{key}` is no mail address: {error}"))
    };
    let from: Mailbox = receiver.required("from")?.parse().map_err(|error| address("from", error))?;
    let to: Mailboxes = receiver.required("to")?.parse().map_err(|error| address("to", error))?;
    let mut mail = lettre::Message::builder().from(from).subject(one_line(&message.title)).header(ContentType::TEXT_PLAIN);
    for mailbox in to {
        mail = mail.to(mailbox);
    }
    let mail =
        mail.body(message.text.clone()).map_err(|error| NotifyError::lasting(format!("the mail cannot be written: {error}")))?;
    let encryption = receiver.value("encryption").unwrap_or("tls");
    let tls = || {
        // Another part of the process may have done it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        TlsParameters::new(host.to_owned())
            .map_err(|error| NotifyError::lasting(format!("TLS cannot be used for `{host}`: {error}")))
    };
    let (tls, port) = match encryption {
        "none" => (Tls::None, 25),
        "starttls" => (Tls::Required(tls()?), 587),
        _ => (Tls::Wrapper(tls()?), 465),
    };
    let port = match receiver.value("port") {
        None => port,
        Some(text) => {
            text.parse().map_err(|_| NotifyError::lasting(format!("its port `{text}` is no number from 1 to 65535")))?
        }
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(port).tls(tls).timeout(Some(TIMEOUT));
    if let Some(user) = receiver.value("user") {
        let password = receiver.value("password").unwrap_or_default();
        transport = transport.credentials(Credentials::new(user.to_owned(), password.to_owned()));
    }
    transport.build().send(mail).await.map(drop).map_err(|error| {
        let is_lasting = error.is_permanent() || error.is_client() || error.is_tls();
        let what = if error.is_permanent() || error.is_transient() {
            format!("`{host}` does not take the mail: {error}")
        } else {
            format!("`{host}` cannot be reached: {error}")
        };
        NotifyError { message: what, is_transient: !is_lasting, wait: None }
    })
}

/// A subject has one line.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
