//! The words for encryption, which are those of PostgreSQL's own clients.

use subak_connect::{ConnectError, ConnectErrorKind, Field, FieldKind};

/// Values of `sslmode`.
const MODES: &[&str] = &["disable", "prefer", "require", "verify-full"];

/// What connections say about encryption.
pub(crate) const FIELDS: [Field; 2] = [
    Field {
        name: "sslmode",
        kind: FieldKind::Word(MODES),
        is_required: false,
        doc: "Encryption: `disable`; `prefer` (the default) where the server has it; `require`; `verify-full`, which also proves by certificate that it is the server.",
    },
    Field {
        name: "sslrootcert",
        kind: FieldKind::Path,
        is_required: false,
        doc: "With `verify-full`: the certificates that are trusted, in PEM. By default those of the system.",
    },
];

/// Refuses certificates that nothing would be verified by.
pub(crate) fn refuse_unused_root(connection: &str, word: &str, root_file: Option<&str>) -> Result<(), ConnectError> {
    if root_file.is_none() || word == "verify-full" {
        return Ok(());
    }
    let message = format!("connection `{connection}`: `sslmode: {word}` verifies nothing, and `sslrootcert` says by what");
    let help = "set `sslmode: verify-full`, or remove `sslrootcert:`";
    Err(ConnectError::new(ConnectErrorKind::Config, message).help(help))
}
