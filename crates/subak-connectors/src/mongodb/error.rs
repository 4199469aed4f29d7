//! The errors of MongoDB in our kinds, by their numbers.

use mongodb::error::{Error, ErrorKind};
use subak_connect::{ConnectError, ConnectErrorKind};

/// The error for a server that cannot be reached, or refuses us.
pub(super) fn opening(name: &str, place: &str, error: &Error) -> ConnectError {
    let message = format!("connection `{name}`: cannot connect to {place}");
    let failure = ConnectError::new(kind(error), message).because(said(error));
    match failure.kind {
        ConnectErrorKind::Permission => {
            failure.help("correct `user:`, `password:` and `auth_database:`, or let that user read the database")
        }
        ConnectErrorKind::Unavailable => {
            failure.help("is the server running, is `uri:` right, and does it name the replica set that the server is in?")
        }
        _ => failure.help("the server's log says more"),
    }
}

/// The error for anything else.
pub(super) fn failed(message: &str, error: &Error) -> ConnectError {
    let failure = ConnectError::new(kind(error), message).because(said(error));
    match code(error) {
        // SnapshotTooOld, SnapshotUnavailable.
        Some(239 | 246) => failure.help(
            "the read took longer than the server keeps a snapshot (`minSnapshotHistoryWindowInSeconds`, 300 by default): let it keep more, read less at a time with a cursor, or set `read_concern: majority` on the connection",
        ),
        // CursorNotFound, CursorKilled.
        Some(43 | 237) => failure.help("the server gave the read up; run again"),
        _ => failure,
    }
}

/// What happened, in the words of the server or the driver.
pub(super) fn said(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => format!("{} (error {}, {})", command.message, command.code, command.code_name),
        other => other.to_string(),
    }
}

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

fn kind(error: &Error) -> ConnectErrorKind {
    match &*error.kind {
        ErrorKind::Authentication { .. } => ConnectErrorKind::Permission,
        ErrorKind::ServerSelection { message, .. } if message.contains("uthentication failed") => ConnectErrorKind::Permission,
        ErrorKind::ServerSelection { .. }
        | ErrorKind::Io(_)
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::ConnectionPoolCleared { .. } => ConnectErrorKind::Unavailable,
        ErrorKind::InvalidTlsConfig { .. } | ErrorKind::InvalidArgument { .. } | ErrorKind::IncompatibleServer { .. } => {
            ConnectErrorKind::Config
        }
        ErrorKind::Command(command) => match command.code {
            // Unauthorized, AuthenticationFailed.
            13 | 18 => ConnectErrorKind::Permission,
            // NamespaceNotFound.
            26 => ConnectErrorKind::NotFound,
            // Network trouble, members that change their part, reads that were given up.
            6 | 7 | 43 | 89 | 91 | 134 | 189 | 237 | 239 | 246 | 262 | 9001 | 10107 | 11600 | 11602 | 13435 | 13436 => {
                ConnectErrorKind::Unavailable
            }
            // Interrupted, MaxTimeMSExpired.
            50 | 11601 => ConnectErrorKind::Canceled,
            146 | 292 => ConnectErrorKind::Resource,
            _ => ConnectErrorKind::Sql,
        },
        ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_) | ErrorKind::InvalidResponse { .. } => ConnectErrorKind::Malformed,
        _ => ConnectErrorKind::Internal,
    }
}
