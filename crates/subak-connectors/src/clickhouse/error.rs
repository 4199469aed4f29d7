//! ClickHouse's errors in our kinds, by their codes.

use std::error::Error as _;

use subak_connect::{ConnectError, ConnectErrorKind};

/// What the server said.
pub(super) fn said(status: u16, text: &str) -> ConnectError {
    let code = text.split("Code: ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    let detail = text.split("DB::Exception: ").nth(1).unwrap_or(text).trim();
    // The stack, or the version, that some servers put behind it.
    let detail = detail.split(", Stack trace").next().unwrap_or(detail).split(". (version").next().unwrap_or(detail).trim();
    let kind = kind(code, status);
    let shown = match code {
        Some(code) => format!("{detail} (code {code})"),
        None if detail.is_empty() => format!("the server answered with status {status}"),
        None => detail.to_owned(),
    };
    ConnectError::new(kind, "ClickHouse refused a statement").because(shown)
}

/// What happened on the way.
pub(super) fn transport(error: &reqwest::Error) -> ConnectError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let kind = if text.contains("certificate") { ConnectErrorKind::Permission } else { ConnectErrorKind::Unavailable };
    ConnectError::new(kind, "the connection to ClickHouse broke").because(text)
}

/// Puts what was tried in front.
pub(super) fn during(message: &str, mut error: ConnectError) -> ConnectError {
    match error.kind {
        // What changed is said by nothing else.
        ConnectErrorKind::SchemaChanged => error.message = format!("{message}: {}", error.message),
        _ => message.clone_into(&mut error.message),
    }
    error
}

fn kind(code: Option<u32>, status: u16) -> ConnectErrorKind {
    match code {
        // A table, its file or its database is not there, or not any more.
        Some(60 | 81 | 107 | 218) => ConnectErrorKind::NotFound,
        Some(192 | 193 | 194 | 195 | 291 | 497 | 516) => ConnectErrorKind::Permission,
        Some(159 | 160 | 394) => ConnectErrorKind::Canceled,
        // Too many queries or parts, network, tables that are read-only for now.
        Some(202 | 209 | 210 | 241 | 242 | 252 | 319 | 999) => ConnectErrorKind::Unavailable,
        Some(173 | 243 | 307) => ConnectErrorKind::Resource,
        Some(_) => ConnectErrorKind::Sql,
        None if matches!(status, 401 | 403) => ConnectErrorKind::Permission,
        None => ConnectErrorKind::Unavailable,
    }
}
