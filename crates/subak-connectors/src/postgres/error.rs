//! PostgreSQL's errors in our kinds, by their SQLSTATE.

use std::error::Error as _;

use subak_connect::{ConnectError, ConnectErrorKind};
use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// What the server says of an error.
#[derive(Debug, Default)]
pub(super) struct Said {
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    place: Option<String>,
}

impl Said {
    fn of(error: &DbError) -> Self {
        let owned = |part: Option<&str>| part.map(str::to_owned);
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: owned(error.detail()),
            hint: owned(error.hint()),
            place: owned(error.where_()),
        }
    }

    /// Out of the body of an error message: a letter and a text with a NUL behind it, for each part.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut said = Self::default();
        for part in body.split(|byte| *byte == 0) {
            let Some((letter, text)) = part.split_first() else { break };
            let text = String::from_utf8_lossy(text).into_owned();
            match letter {
                b'C' => said.code = text,
                b'M' => said.message = text,
                b'D' => said.detail = Some(text),
                b'H' => said.hint = Some(text),
                b'W' => said.place = Some(text),
                _ => {}
            }
        }
        said
    }

    /// With its detail and place.
    fn text(&self) -> String {
        let mut text = format!("{} (SQLSTATE {})", self.message, self.code);
        for (name, part) in [("detail", &self.detail), ("where", &self.place)] {
            if let Some(part) = part {
                text.push_str(&format!("\n{name}: {part}"));
            }
        }
        text
    }
}

/// The error for a server that cannot be reached, or refuses us.
pub(super) fn opening(name: &str, place: &str, error: &Error) -> ConnectError {
    let Some(said) = error.as_db_error().map(Said::of) else {
        let cause = cause_of(error);
        return if error.to_string().contains("TLS") || has_tls_cause(error) {
            refuses_encryption(name, place, &cause)
        } else {
            unreachable(name, place, &cause)
        };
    };
    let (kind, help) = match said.code.as_str() {
        "3D000" => (ConnectErrorKind::NotFound, "correct `database:`, or create the database"),
        code if code.starts_with("28") => {
            (ConnectErrorKind::Permission, "correct `user:` and `password:`, or the server's pg_hba.conf")
        }
        code => (kind(code), "the server's log says more"),
    };
    ConnectError::new(kind, format!("connection `{name}`: cannot connect to {place}")).because(said.text()).help(help)
}

/// The error for a server that does not answer.
pub(super) fn unreachable(name: &str, place: &str, cause: &str) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Unavailable, format!("connection `{name}`: cannot connect to {place}"))
        .because(cause.to_owned())
        .help("is the server running, and are `host:` and `port:` right?")
}

/// The error for a connection that could not be encrypted.
pub(super) fn refuses_encryption(name: &str, place: &str, cause: &str) -> ConnectError {
    let help = "does the server offer TLS, and does its certificate lead to `sslrootcert:`? `sslmode:` says what is asked for";
    let message = format!("connection `{name}`: {place} refuses an encrypted connection");
    ConnectError::new(ConnectErrorKind::Permission, message).because(cause.to_owned()).help(help)
}

/// The error for anything else.
pub(super) fn failed(message: &str, error: &Error) -> ConnectError {
    match error.as_db_error().map(Said::of) {
        Some(told) => said(message, &told),
        None => ConnectError::new(ConnectErrorKind::Unavailable, message).because(cause_of(error)),
    }
}

/// The error for something that the server said.
pub(super) fn said(message: &str, said: &Said) -> ConnectError {
    let failure = ConnectError::new(kind(&said.code), message).because(said.text());
    match &said.hint {
        Some(hint) => failure.help(hint.clone()),
        None => failure,
    }
}

fn cause_of(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn has_tls_cause(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<rustls::Error>() || inner.to_string().contains("certificate") {
            return true;
        }
        cause = inner.source();
    }
    false
}

fn kind(code: &str) -> ConnectErrorKind {
    match code {
        "42501" => ConnectErrorKind::Permission,
        "42P01" | "3F000" | "3D000" => ConnectErrorKind::NotFound,
        "57014" => ConnectErrorKind::Canceled,
        // Too many connections, deadlocks, conflicts and locks that are held pass.
        "53300" | "40001" | "40P01" | "55P03" => ConnectErrorKind::Unavailable,
        code if code.starts_with("53") || code == "54000" => ConnectErrorKind::Resource,
        code if code.starts_with("08") || code.starts_with("57") => ConnectErrorKind::Unavailable,
        code if code.starts_with("28") => ConnectErrorKind::Permission,
        code if code.starts_with("23") => ConnectErrorKind::Write,
        _ => ConnectErrorKind::Sql,
    }
}
