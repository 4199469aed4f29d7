//! From what went wrong at a seam to a failure that a person can act on: code, causes, what is now true of the data, help.

use subak_connect::{ConnectError, ConnectErrorKind};
use subak_domain::{CheckOutcome, Failure, FailureClass};

use crate::StopReason;

/// What is true of the table when nothing was published.
pub const DATA_UNTOUCHED: &str = "nothing of this step was published; readers see the table as it was";

/// What is true when a destination did not answer while it published.
pub const DATA_UNKNOWN: &str = "the destination did not answer while it published: readers see the table as it was or as it was meant to be, and nothing in between; `subak run resume` asks its ledger";

/// What is true when a statement before a load failed.
pub const DATA_BEFORE: &str = "nothing of this step was published; statements of `hooks.before` that came earlier have run";

/// What is true when something failed after the publication.
pub const DATA_PUBLISHED: &str = "the rows of this step are published; the statements after it have not all run";

/// What is true of a step whose process is gone.
pub const DATA_LOST: &str = "what it had published stays; what a task or program had done besides, nobody knows";

/// What is true when the connection failed before the table was looked at.
pub const DATA_NOT_BEGUN: &str = "nothing was read or written";

fn kind_class(kind: ConnectErrorKind) -> (&'static str, FailureClass) {
    use ConnectErrorKind as K;
    match kind {
        K::Config | K::NotFound => ("SBK0303", FailureClass::Input),
        K::Unavailable => ("SBK0301", FailureClass::Unavailable),
        K::Permission => ("SBK0301", FailureClass::Permission),
        K::Held => ("SBK0302", FailureClass::Conflict),
        K::Resource => ("SBK0310", FailureClass::Resource),
        K::NoFiles => ("SBK0307", FailureClass::Input),
        K::ColumnMissing => ("SBK0306", FailureClass::Input),
        K::Malformed => ("SBK0308", FailureClass::Input),
        K::ValueMisfit => ("SBK0305", FailureClass::Input),
        K::SchemaChanged => ("SBK0317", FailureClass::Input),
        K::KeyTwice => ("SBK0316", FailureClass::Input),
        K::KeyNull => ("SBK0318", FailureClass::Input),
        K::Sql => ("SBK0309", FailureClass::Input),
        K::Read => ("SBK0303", FailureClass::Unavailable),
        K::Write => ("SBK0304", FailureClass::Unavailable),
        K::Canceled => ("SBK0314", FailureClass::Canceled),
        K::Internal => ("SBK0315", FailureClass::Internal),
    }
}

/// The failure for an error of a connection. `data` says what is now true of the table.
pub fn of_connect(error: &ConnectError, data: &str) -> Box<Failure> {
    let (code, class) = kind_class(error.kind);
    let mut failure = plain(code, error.to_string(), data, class);
    failure.causes = error.causes();
    failure.help.extend(error.help.clone());
    failure
}

/// The failure for a step that was asked to stop.
pub fn of_stop(reason: StopReason, data: &str) -> Box<Failure> {
    match reason {
        StopReason::Canceled => plain("SBK0314", "the step was stopped on request".into(), data, FailureClass::Canceled),
        StopReason::TimedOut => plain("SBK0313", "the step took longer than its `timeout`".into(), data, FailureClass::Timeout),
    }
}

/// The failure for a step whose process is gone, and nobody knows how far it came.
pub fn lost(holder: &str) -> Box<Failure> {
    plain("SBK0320", format!("{holder} is gone, and the step with it"), DATA_LOST, FailureClass::Lost)
}

/// The failure for blocking checks that failed before publication.
pub fn of_checks(table: &str, checks: Vec<CheckOutcome>) -> Box<Failure> {
    let failed: Vec<&CheckOutcome> = checks.iter().filter(|check| is_blocked_by(check)).collect();
    let names: Vec<String> =
        failed.iter().map(|check| format!("`{}` finds {} bad rows", check.check, check.bad_row_count)).collect();
    let causes = failed.iter().flat_map(|check| check.sample.iter().map(|row| format!("bad row: {row}"))).collect();
    let data = format!("`{table}` was not published; readers see it as it was");
    let mut failure = plain("SBK0312", format!("a blocking check failed: {}", names.join(", ")), &data, FailureClass::Check);
    failure.causes = causes;
    failure.help.push("mend the data or the check; a check with `severity: warn` does not block".into());
    failure.checks = checks;
    failure
}

/// Whether a check stops the publication.
pub fn is_blocked_by(check: &CheckOutcome) -> bool {
    check.blocking && !check.passed() && check.severity == subak_domain::Severity::Error
}

/// A failure without causes.
pub fn plain(code: &str, message: String, data: &str, class: FailureClass) -> Box<Failure> {
    Box::new(Failure {
        code: code.to_owned(),
        message,
        causes: Vec::new(),
        data: data.to_owned(),
        help: Vec::new(),
        class,
        checks: Vec::new(),
        elapsed_ms: 0,
        published: None,
        usage: None,
    })
}
