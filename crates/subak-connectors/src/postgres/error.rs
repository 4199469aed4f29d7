//! PostgreSQL's errors in our kinds, by their SQLSTATE.

use std::error::Error as _;

use subak_connect::{ConnectError, ConnectErrorKind};
use tokio_postgres::Error;

/// The error for a server that cannot be reached, or refuses us.
pub(super) fn opening(name: &str, place: &str, error: &Error) -> ConnectError {
    if error.code().is_none() && (error.to_string().contains("TLS") || has_tls_cause(error)) {
        let help =
            "does the server offer TLS, and does its certificate lead to `sslrootcert:`? `sslmode:` says what is asked for";
        let failure = ConnectError::new(
            ConnectErrorKind::Permission,
            format!("connection `{name}`: {place} refuses an encrypted connection"),
        );
        return with_detail(failure, error).help(help);
    }
    let (kind, help) = match error.code().map_or("", |code| code.code()) {
        "" => (ConnectErrorKind::Unavailable, "is the server running, and are `host:` and `port:` right?"),
        "3D000" => (ConnectErrorKind::NotFound, "correct `database:`, or create the database"),
        code if code.starts_with("28") => {
            (ConnectErrorKind::Permission, "correct `user:` and `password:`, or the server's pg_hba.conf")
        }
        _ => (kind(error), "the server's log says more"),
    };
    with_detail(ConnectError::new(kind, format!("connection `{name}`: cannot connect to {place}")), error).help(help)
}

/// The error for anything else.
pub(super) fn failed(message: &str, error: &Error) -> ConnectError {
    let failure = with_detail(ConnectError::new(kind(error), message), error);
    match error.as_db_error().and_then(tokio_postgres::error::DbError::hint) {
        Some(hint) => failure.help(hint),
        None => failure,
    }
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

/// What the server said, with its detail and place; else what happened on the way.
fn with_detail(failure: ConnectError, error: &Error) -> ConnectError {
    let Some(said) = error.as_db_error() else {
        let cause = error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        return failure.because(cause);
    };
    let mut text = format!("{} (SQLSTATE {})", said.message(), said.code().code());
    for (name, part) in [("detail", said.detail()), ("where", said.where_())] {
        if let Some(part) = part {
            text.push_str(&format!("\n{name}: {part}"));
        }
    }
    failure.because(text)
}

fn kind(error: &Error) -> ConnectErrorKind {
    let Some(code) = error.code() else { return ConnectErrorKind::Unavailable };
    match code.code() {
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
