//! What can go wrong with the store.

use std::path::PathBuf;

/// A failure of the store, with the outcomes that a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the state `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer version wrote it.
    #[error("the state has format {found}, and this version knows formats up to {known}")]
    Newer {
        /// Format of the file.
        found: u32,
        /// Newest format that this binary knows.
        known: u32,
    },
    /// The file system cannot be trusted with locks.
    #[error("the state `{}` stands on a network file system", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// Somebody else appended to the run.
    #[error("the run has {found} events where {expected} were expected")]
    Conflict {
        /// Events that the writer thought the run had.
        expected: u64,
        /// Events that it has.
        found: u64,
    },
    /// Somebody changed the sensor meanwhile.
    #[error("`{name}` was changed meanwhile")]
    Changed {
        /// The sensor.
        name: String,
    },
    /// Somebody else holds the lease by now.
    #[error("the lease `{name}` is held by a later generation")]
    Fenced {
        /// The lease.
        name: String,
    },
    /// Another file stands where the state stood, or none: what is written from now on nobody would see.
    #[error("the state `{}` was moved, replaced or deleted while it was open", path.display())]
    Moved {
        /// Where it stood.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("there is no room left for the state")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database failed in another way.
    #[error("the state cannot be {action}")]
    Failed {
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
