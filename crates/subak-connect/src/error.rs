//! What can go wrong at a seam, with the outcomes that a caller can act on.

use std::error::Error;

/// A failure of an outside system. The message names the thing; the cause says why.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// What kind of failure it is.
    pub kind: ConnectErrorKind,
    /// What failed, one sentence without a final stop.
    pub message: String,
    /// What to do, where the connector knows.
    pub help: Option<String>,
    /// Why.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of failure. Each has one diagnostic code and one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// The configuration of the connection or the stream is wrong.
    Config,
    /// The system cannot be reached, or gave up; may pass.
    Unavailable,
    /// The system refused who we are or what we may do.
    Permission,
    /// Another process holds an embedded file; may pass.
    Held,
    /// Disk, memory or a quota is used up.
    Resource,
    /// The stream or table does not exist.
    NotFound,
    /// No file matches the pattern.
    NoFiles,
    /// A declared column is not in the stream.
    ColumnMissing,
    /// The bytes break their format.
    Malformed,
    /// A value does not fit the declared type.
    ValueMisfit,
    /// A column's type no longer fits the table.
    SchemaChanged,
    /// Two rows of one load share a key.
    KeyTwice,
    /// A key is NULL.
    KeyNull,
    /// The system refused a statement.
    Sql,
    /// A read failed for another reason.
    Read,
    /// A write failed for another reason.
    Write,
    /// Somebody asked to stop.
    Canceled,
    /// A bug of ours.
    Internal,
}

impl ConnectError {
    /// A failure without a cause below it.
    pub fn new(kind: ConnectErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None, source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A failure of the file system: the kind follows from the cause (no permission, no space, not found).
    pub fn io(kind: ConnectErrorKind, message: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::PermissionDenied => ConnectErrorKind::Permission,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::OutOfMemory => {
                ConnectErrorKind::Resource
            }
            _ => kind,
        };
        Self::new(kind, message).because(source)
    }

    /// The texts of all causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = self.source.as_deref().map(|source| source as _);
        while let Some(error) = next {
            texts.push(error.to_string());
            next = error.source();
        }
        texts
    }
}
