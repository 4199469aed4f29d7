//! The errors of drivers in our kinds, by their status and SQLSTATE.

use adbc_core::error::{Error, Status};
use arrow::error::ArrowError;
use subak_connect::{ConnectError, ConnectErrorKind};

/// The error for a system that cannot be reached, or refuses us.
pub(super) fn opening(name: &str, error: &Error) -> ConnectError {
    let kind = match kind(error) {
        ConnectErrorKind::Sql => ConnectErrorKind::Unavailable,
        kind => kind,
    };
    ConnectError::new(kind, format!("connection `{name}`: the driver cannot connect"))
        .because(text(error))
        .help("are `uri:`, `user:`, `password:` and the driver's `options:` right, and is the system running?")
}

/// The error for anything else.
pub(super) fn failed(message: &str, error: &Error) -> ConnectError {
    ConnectError::new(kind(error), message).because(text(error))
}

/// The error for rows that stopped coming.
pub(super) fn broken(message: &str, error: &ArrowError) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Unavailable, message).because(error.to_string())
}

fn state(error: &Error) -> String {
    error.sqlstate.iter().filter_map(|byte| u8::try_from(*byte).ok()).filter(u8::is_ascii_alphanumeric).map(char::from).collect()
}

fn text(error: &Error) -> String {
    let state = state(error);
    let message = error.message.trim();
    if state.is_empty() || state == "00000" { message.to_owned() } else { format!("{message} (SQLSTATE {state})") }
}

fn kind(error: &Error) -> ConnectErrorKind {
    match (error.status, state(error).as_str()) {
        (_, "42P01" | "42S02") => return ConnectErrorKind::NotFound,
        (_, "42501") => return ConnectErrorKind::Permission,
        (_, state) if state.starts_with("28") => return ConnectErrorKind::Permission,
        (_, state) if state.starts_with("08") || state.starts_with("57") => return ConnectErrorKind::Unavailable,
        _ => {}
    }
    match error.status {
        Status::NotFound => ConnectErrorKind::NotFound,
        Status::Unauthenticated | Status::Unauthorized => ConnectErrorKind::Permission,
        Status::IO | Status::Timeout => ConnectErrorKind::Unavailable,
        Status::Cancelled => ConnectErrorKind::Canceled,
        _ => ConnectErrorKind::Sql,
    }
}
