//! DuckDB's errors in our kinds.
//!
//! DuckDB's C interface gives a message and no code; the word before the first colon is its error type, which is the nearest to
//! a code that there is. This is the only place that looks at it.

use std::path::Path;

use subak_connect::{ConnectError, ConnectErrorKind};

/// The error for a database that cannot be opened.
pub(super) fn opening(name: &str, path: &Path, error: &duckdb::Error) -> ConnectError {
    let text = error.to_string();
    if let Some(holder) = holder(&text) {
        let message = format!("connection `{name}`: another process holds `{}`: {holder}", path.display());
        return ConnectError::new(ConnectErrorKind::Held, message)
            .because(text)
            .help("wait until that process ends, or stop it; one process at a time opens an embedded database");
    }
    let message = format!("connection `{name}`: cannot open `{}`", path.display());
    if text.contains("Corrupt database file") || text.contains("not a valid DuckDB database file") {
        let help =
            "put back a copy of the file, or move it and its `.wal` away: the next run makes the tables anew from their sources";
        return ConnectError::new(ConnectErrorKind::Malformed, message).because(text).help(help);
    }
    if text.contains("Trying to read a database file with version number") {
        let help =
            "a newer DuckDB wrote the file: let a newer Subak open it, or export the tables with that DuckDB and load them";
        return ConnectError::new(ConnectErrorKind::Malformed, message).because(text).help(help);
    }
    let kind = match kind(&text) {
        ConnectErrorKind::Sql => ConnectErrorKind::Unavailable,
        kind => kind,
    };
    ConnectError::new(kind, message).because(text)
}

/// The error for anything else.
///
/// The cause is DuckDB's text; what stands below it in the driver's chain is a number that says nothing.
pub(super) fn failed(message: &str, error: duckdb::Error) -> ConnectError {
    let text = error.to_string();
    drop(error);
    let failure = ConnectError::new(kind(&text), message);
    if is_out_of_memory(&text) {
        // What DuckDB proposes are settings of its own, which are keys of the connection here.
        let first = text.lines().next().unwrap_or_default().to_owned();
        let help = "raise `memory_limit:` of the connection, lower its `threads:`, or take the query apart into several assets";
        return failure.because(first).help(help);
    }
    if text.contains("file system operations are disabled by configuration") {
        let help = "load the file by a source of its own, or say `external_access: true` on the connection";
        return failure.because(text).help(help);
    }
    failure.because(text)
}

fn kind(text: &str) -> ConnectErrorKind {
    let has_no_space = text.contains("No space left on device")
        || text.contains("Disk quota exceeded")
        || text.contains("could not be written: disk full");
    match text.split(':').next().unwrap_or_default() {
        _ if has_no_space => ConnectErrorKind::Resource,
        _ if is_out_of_memory(text) => ConnectErrorKind::Resource,
        "IO Error" if text.contains("Permission denied") || text.contains("read-only") => ConnectErrorKind::Permission,
        _ if text.contains("transaction is launched in read-only mode") => ConnectErrorKind::Permission,
        "IO Error" => ConnectErrorKind::Write,
        "INTERRUPT Error" => ConnectErrorKind::Canceled,
        "Permission Error" => ConnectErrorKind::Permission,
        "Serialization Error" | "FATAL Error" | "INTERNAL Error" => ConnectErrorKind::Internal,
        "TransactionContext Error" => ConnectErrorKind::Unavailable,
        _ => ConnectErrorKind::Sql,
    }
}

fn is_out_of_memory(text: &str) -> bool {
    text.starts_with("Out of Memory Error") || text.starts_with("OutOfMemoryException")
}

/// Who holds the lock on the file, in DuckDB's words, for example `/usr/bin/python3 (PID 4711)`.
fn holder(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Conflicting lock is held in ")?;
    let end = rest.find(')').map_or(rest.len(), |at| at + 1);
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_found() {
        let text =
            "IO Error: Could not set lock on file \"/tmp/x\": Conflicting lock is held in /usr/bin/python3 (PID 4711). See also";
        assert_eq!(holder(text).as_deref(), Some("/usr/bin/python3 (PID 4711)"));
        assert_eq!(holder("IO Error: x"), None);
    }
}
