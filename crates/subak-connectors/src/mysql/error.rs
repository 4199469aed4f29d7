//! The errors of MySQL and MariaDB in our kinds, by their numbers.

use mysql_async::{DriverError, Error, ServerError};
use subak_connect::{ConnectError, ConnectErrorKind};

/// The error for a server that cannot be reached, or refuses us.
pub(super) fn opening(name: &str, place: &str, error: &Error) -> ConnectError {
    let failure = |kind| with_detail(ConnectError::new(kind, format!("connection `{name}`: cannot connect to {place}")), error);
    match error {
        Error::Server(said) => match said.code {
            1049 => failure(ConnectErrorKind::NotFound).help("correct `database:`, or create the database"),
            1044 => failure(ConnectErrorKind::Permission).help("grant the user rights on the database, or correct `database:`"),
            1045 | 1130 | 1251 | 1524 | 3118 | 3159 => failure(ConnectErrorKind::Permission)
                .help("correct `user:` and `password:`, and from where the server lets that user in"),
            _ => failure(kind(error)).help("the server's log says more"),
        },
        _ if is_about_tls(error) => {
            let message = format!("connection `{name}`: {place} refuses an encrypted connection");
            let help =
                "does the server offer TLS, and does its certificate lead to `sslrootcert:`? `sslmode:` says what is asked for";
            with_detail(ConnectError::new(ConnectErrorKind::Permission, message), error).help(help)
        }
        _ => failure(ConnectErrorKind::Unavailable).help("is the server running, and are `host:` and `port:` right?"),
    }
}

/// The error for anything else.
pub(super) fn failed(message: &str, error: &Error) -> ConnectError {
    let failure = with_detail(ConnectError::new(kind(error), message), error);
    if is_too_large(error) { failure.help("raise `max_allowed_packet` of the server above the largest value") } else { failure }
}

/// Whether the server has no encryption to offer.
pub(super) fn is_plain_only(error: &Error) -> bool {
    matches!(error, Error::Driver(DriverError::NoClientSslFlagFromServer))
}

fn is_about_tls(error: &Error) -> bool {
    is_plain_only(error)
        || matches!(error, Error::Io(mysql_async::IoError::Tls(_)))
        || (matches!(error, Error::Io(_)) && error.to_string().contains("certificate"))
}

/// Whether a value is larger than the server takes at once.
fn is_too_large(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("packet too large") || text.contains("packet is larger") || text.contains("max_allowed_packet")
}

fn with_detail(failure: ConnectError, error: &Error) -> ConnectError {
    match error {
        Error::Server(ServerError { code, message, .. }) => failure.because(format!("{message} (error {code})")),
        other => failure.because(other.to_string()),
    }
}

fn kind(error: &Error) -> ConnectErrorKind {
    let Error::Server(said) = error else {
        return match error {
            _ if is_too_large(error) => ConnectErrorKind::Resource,
            Error::Io(_) => ConnectErrorKind::Unavailable,
            Error::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected) => ConnectErrorKind::Unavailable,
            _ => ConnectErrorKind::Internal,
        };
    };
    match said.code {
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1410 | 1449 => ConnectErrorKind::Permission,
        1049 | 1051 | 1146 => ConnectErrorKind::NotFound,
        1317 | 1969 | 3024 => ConnectErrorKind::Canceled,
        // Too many connections, deadlocks, locks that are held and servers that end pass.
        1040 | 1203 | 1205 | 1213 | 1053 | 1077 | 1079 | 1152 | 1184 | 1927 => ConnectErrorKind::Unavailable,
        1412 => ConnectErrorKind::SchemaChanged,
        3 | 1021 | 1041 | 1114 | 1135 | 1153 => ConnectErrorKind::Resource,
        1048 | 1062 | 1264 | 1292 | 1366 | 1406 | 1451 | 1452 | 4025 => ConnectErrorKind::Write,
        _ => ConnectErrorKind::Sql,
    }
}
