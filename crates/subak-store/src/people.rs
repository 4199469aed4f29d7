//! People and programs that speak to a server: who there is, what they may do, and what they did.

use subak_domain::{Rights, Timestamp};

/// Somebody who signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name to sign in with; also what the audit log calls them.
    pub name: String,
    /// What they may do.
    pub rights: Rights,
    /// The password as Argon2id keeps it, in PHC form; `None` for somebody who cannot sign in with one.
    pub password_hash: Option<String>,
    /// Whether they are shut out.
    pub is_off: bool,
    /// When they were added.
    pub created_at: Timestamp,
}

/// Somebody who has signed in. Of the secret only the digest is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the secret, in hexadecimal digits.
    pub digest: String,
    /// The user.
    pub user: String,
    /// When they signed in.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub seen_at: Timestamp,
    /// When it ends, whatever happens.
    pub expires_at: Timestamp,
}

/// What a program sends instead of a password. Of the secret only the digest is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What lists and the audit log call it.
    pub id: String,
    /// SHA-256 of the secret, in hexadecimal digits.
    pub digest: String,
    /// What it is for.
    pub name: String,
    /// Who made it; without them it is worth nothing.
    pub user: String,
    /// What it may be used for; no more than its maker may.
    pub rights: Rights,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
    /// When somebody ended it.
    pub revoked_at: Option<Timestamp>,
}

/// A change of who there is. What is refused changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Somebody new; refused where the name is taken.
    AddUser(User),
    /// The first one of all; refused where there is anybody.
    AddFirstUser(User),
    /// Another password, other rights, or shut out. Their sessions end.
    ChangeUser(User),
    /// Another password for somebody who is not shut out, in place of the hash that they had; nothing else of them. Their sessions end.
    Password {
        /// The user.
        name: String,
        /// The hash that they had.
        was: String,
        /// The hash that they have from now on.
        now: String,
    },
    /// They go, with their sessions and tokens.
    RemoveUser(String),
    /// They have signed in.
    AddSession(Session),
    /// They have signed out, given the digest.
    EndSession(String),
    /// A session was used.
    SeenSession(String, Timestamp),
    /// A new token.
    AddToken(Token),
    /// A token ends, given its id.
    RevokeToken(String, Timestamp),
    /// A token was used.
    UsedToken(String, Timestamp),
}

/// Something that somebody did. Entries are never changed; each one's hash covers the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: the name of a user, or of a token with its user.
    pub actor: String,
    /// What, for example `run.cancel`.
    pub action: String,
    /// What it was about, for example the id of a run.
    pub object: String,
    /// More, as text; never a secret.
    pub detail: String,
    /// From where the request came.
    pub origin: String,
}

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Its place, from 1, without gaps.
    pub position: u64,
    /// The entry.
    pub entry: AuditEntry,
    /// SHA-256 of the hash before and of all that the entry says, in hexadecimal digits.
    pub hash: String,
}
