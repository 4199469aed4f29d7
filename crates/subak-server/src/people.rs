//! Who asks: passwords, sessions, tokens, the first of all, and what slows down whoever guesses.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subak_domain::{Permission, Rights, Role, Timestamp};
use subak_store::people::{Change, Session, User};
use subak_store::{SqliteStore, StoreError};
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// The cookie of a session. Browsers take it only over TLS or from the machine itself, and from this host alone.
const COOKIE: &str = "__Host-subak";

/// What tokens begin with, so that they are found where they should not be.
pub const TOKEN_PREFIX: &str = "sbk_pat_";

/// How long a session lasts, whatever happens.
const SESSION_SECONDS_MAX: i64 = 7 * 24 * 3600;

/// How long a session lasts that nobody uses.
const IDLE_SECONDS_MAX: i64 = 12 * 3600;

/// How long the first of all may take.
const SETUP_SECONDS: i64 = 15 * 60;

/// Wrong passwords before whoever sends them has to wait.
const WRONG_COUNT_MAX: u32 = 5;

/// The first wait; each further wrong password doubles it.
const WAIT_SECONDS_FIRST: i64 = 60;

/// The longest wait.
const WAIT_SECONDS_MAX: i64 = 15 * 60;

/// Names that are remembered for their wrong passwords.
const WRONG_NAME_COUNT_MAX: usize = 10_000;

/// Letters of a password, least and most.
const PASSWORD_LENGTH: (usize, usize) = (10, 256);

/// Bytes of a name.
const NAME_LENGTH_MAX: usize = 100;

/// Whoever asks, once it is known who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: String,
    /// What they may do, or what their token may be used for.
    pub rights: Rights,
    /// What shows it.
    pub by: Proof,
}

/// What shows who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A session of a browser: the digest of its secret, and when it ends.
    Session(String, Timestamp),
    /// A token of a program: its name.
    Token(String),
}

impl Caller {
    /// Whoever works on the machine itself and looks at the project, rows and logs included.
    pub fn local(user: &str) -> Self {
        let rights = Rights { role: Role::Viewer, logs: true, data: true };
        Self { user: user.to_owned(), rights, by: Proof::Token("this machine".to_owned()) }
    }

    /// Refuses whoever does not have a permission.
    pub fn need(&self, permission: Permission) -> Result<(), Problem> {
        if self.rights.may(permission) { Ok(()) } else { Err(Problem::forbidden(permission)) }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Proof::Session(..) => formatter.write_str(&self.user),
            Proof::Token(name) => write!(formatter, "{} (token {name})", self.user),
        }
    }
}

/// Wrong passwords of one name.
#[derive(Debug, Clone, Copy)]
struct Wrong {
    count: u32,
    until: Timestamp,
}

/// What lets the first one in.
#[derive(Debug)]
struct Setup {
    digest: String,
    until: Timestamp,
    file: PathBuf,
}

/// Passwords that are looked at at a time: each takes 19 MiB and a processor.
const HASH_COUNT_MAX: usize = 2;

/// Whoever may speak to a server.
#[derive(Debug)]
pub struct People {
    store: SqliteStore,
    /// By the digest of the name, whatever the case of its letters.
    wrong: Mutex<HashMap<String, Wrong>>,
    hashing: (Mutex<usize>, Condvar),
    setup: Mutex<Option<Setup>>,
}

fn failed(error: StoreError) -> Problem {
    Problem::state(error.to_string())
}

/// SHA-256 of a secret, in hexadecimal digits.
pub(crate) fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}

/// 256 bits that nobody can guess, in hexadecimal digits.
pub(crate) fn secret() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Problem::state(format!("the system gives no random numbers: {error}")))?;
    Ok(hex(&bytes))
}

/// A password as it is kept: Argon2id with 19 MiB and two passes, as OWASP's Password Storage Cheat Sheet asks for.
pub fn hash_of(password: &str) -> Result<String, Problem> {
    let (least, most) = PASSWORD_LENGTH;
    let count = password.chars().count();
    if count < least || count > most {
        let message = format!("the password has {count} letters; it needs {least} to {most}");
        return Err(Problem::invalid(message, "several words make a good one"));
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Problem::state(format!("the password cannot be kept: {error}")))
}

/// Whether a password is the one that was kept.
fn is_password(password: &str, hash: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}

/// A name that a user or a token can have: visible letters, and none that hides what it says.
pub fn name(text: &str) -> Result<String, Problem> {
    let trimmed = text.trim();
    let is_sound = |letter: char| {
        !letter.is_control()
            && !matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '/')
    };
    if trimmed.is_empty() || trimmed.len() > NAME_LENGTH_MAX || !trimmed.chars().all(is_sound) {
        let help = format!("take 1 to {NAME_LENGTH_MAX} visible letters without `/`");
        return Err(Problem::invalid("the name cannot be taken", help));
    }
    Ok(trimmed.to_owned())
}

impl People {
    /// Those that the state knows.
    pub fn new(store: SqliteStore) -> Self {
        Self { store, wrong: Mutex::default(), hashing: Default::default(), setup: Mutex::default() }
    }

    /// Where there is nobody: a secret that lets the first one in, for a quarter of an hour, once. It also stands in `file`, for its owner alone.
    pub fn open_setup(&self, file: PathBuf, now: Timestamp) -> Result<Option<String>, Problem> {
        drop(std::fs::remove_file(&file));
        if !self.store.users().map_err(failed)?.is_empty() {
            return Ok(None);
        }
        let secret = secret()?;
        write_private(&file, &secret).map_err(|error| Problem::state(format!("`{}`: {error}", file.display())))?;
        let until = later(now, SETUP_SECONDS);
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = Some(Setup { digest: digest(&secret), until, file });
        Ok(Some(secret))
    }

    /// Lets the first one in. Whoever does not have the secret, or comes too late, finds nothing there.
    pub(crate) fn set_up(
        &self,
        said: &str,
        password: impl FnOnce() -> Result<User, Problem>,
        now: Timestamp,
    ) -> Result<User, Problem> {
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = setup
            .as_ref()
            .is_some_and(|setup| now < setup.until && bool::from(digest(said).as_bytes().ct_eq(setup.digest.as_bytes())));
        if !is_open || !self.store.users().map_err(failed)?.is_empty() {
            return Err(Problem::no_path());
        }
        let user = password()?;
        if let Some(used) = setup.take() {
            drop(std::fs::remove_file(used.file));
        }
        Ok(user)
    }

    /// Looks at a password, when it is its turn.
    fn is_password(&self, password: &str, hash: &str) -> bool {
        let (count, freed) = &self.hashing;
        let busy = |count: &mut usize| *count >= HASH_COUNT_MAX;
        let waiting = count.lock().unwrap_or_else(PoisonError::into_inner);
        *freed.wait_while(waiting, busy).unwrap_or_else(PoisonError::into_inner) += 1;
        let is_right = is_password(password, hash);
        *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
        is_right
    }

    /// The user of this name and password. Whoever sends wrong ones has to wait longer and longer, also for the right one; a name that nobody has
    /// takes as long as one that somebody has.
    pub(crate) fn sign_in(&self, name: &str, password: &str, now: Timestamp) -> Result<User, Problem> {
        if name.len() > NAME_LENGTH_MAX || password.len() > PASSWORD_LENGTH.1 * 4 {
            return Err(Problem::unknown_name());
        }
        let key = digest(&name.to_lowercase());
        // Counted before it is looked at, so that many at once are no more than one after the other.
        self.count_try(&key, now)?;
        let user = self.store.user(name).map_err(failed)?;
        let kept = user.as_ref().and_then(|user| user.password_hash.as_deref()).unwrap_or(NOBODYS);
        let is_right = self.is_password(password, kept);
        let user = user.filter(|user| is_right && !user.is_off).ok_or_else(Problem::unknown_name)?;
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(user)
    }

    /// Counts a try of a name as a wrong one, unless it has to wait.
    fn count_try(&self, key: &str, now: Timestamp) -> Result<(), Problem> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= WRONG_NAME_COUNT_MAX && !wrong.contains_key(key) {
            // Those go first that have waited, then those that are tried least.
            let least = wrong.values().map(|wrong| wrong.count).min().unwrap_or(0);
            wrong.retain(|_, wrong| wrong.until > now || wrong.count > least);
            if wrong.len() >= WRONG_NAME_COUNT_MAX {
                return Err(Problem::too_many(60));
            }
        }
        let entry = wrong.entry(key.to_owned()).or_insert(Wrong { count: 0, until: now });
        if entry.count >= WRONG_COUNT_MAX && entry.until > now {
            return Err(Problem::too_many(entry.until.duration_since(now).as_secs().unsigned_abs().max(1)));
        }
        entry.count += 1;
        let over = entry.count.saturating_sub(WRONG_COUNT_MAX).min(10);
        let seconds = if entry.count < WRONG_COUNT_MAX { 0 } else { (WAIT_SECONDS_FIRST << over).min(WAIT_SECONDS_MAX) };
        entry.until = later(now, seconds);
        Ok(())
    }

    /// A new session: what to enter, and the cookie that shows it.
    pub(crate) fn session(user: &str, now: Timestamp) -> Result<(Session, String), Problem> {
        let secret = secret()?;
        let expires_at = later(now, SESSION_SECONDS_MAX);
        let session = Session { digest: digest(&secret), user: user.to_owned(), created_at: now, seen_at: now, expires_at };
        let cookie = format!("{COOKIE}={secret}; Path=/; Max-Age={SESSION_SECONDS_MAX}; HttpOnly; Secure; SameSite=Lax");
        Ok((session, cookie))
    }

    /// The cookie that takes a session away.
    pub(crate) fn no_cookie() -> String {
        format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax")
    }

    /// Who asks: by a token, else by a session. `None` where nobody says so, or it is worth nothing any more.
    pub(crate) fn caller(&self, headers: &HeaderMap, now: Timestamp) -> Result<Option<Caller>, Problem> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let Some(secret) = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")) else { return Ok(None) };
            return self.by_token(secret, now);
        }
        let Some(secret) = cookie_of(headers) else { return Ok(None) };
        self.by_session(&digest(secret), now)
    }

    fn user_of(&self, name: &str) -> Result<Option<User>, Problem> {
        Ok(self.store.user(name).map_err(failed)?.filter(|user| !user.is_off))
    }

    fn by_token(&self, secret: &str, now: Timestamp) -> Result<Option<Caller>, Problem> {
        if !secret.starts_with(TOKEN_PREFIX) {
            return Ok(None);
        }
        let Some(token) = self.store.token(&digest(secret)).map_err(failed)? else { return Ok(None) };
        if token.revoked_at.is_some() || token.expires_at <= now {
            return Ok(None);
        }
        let Some(user) = self.user_of(&token.user)? else { return Ok(None) };
        // What its maker may not do any more, it cannot be used for.
        let rights = Rights {
            role: token.rights.role.min(user.rights.role),
            logs: token.rights.logs && user.rights.may(Permission::Logs),
            data: token.rights.data && user.rights.may(Permission::Data),
        };
        let used_at = (token.used_at.is_none_or(|at| later(at, 60) <= now)).then_some(now);
        if let Some(at) = used_at {
            self.note(Change::UsedToken(token.id, at));
        }
        Ok(Some(Caller { user: user.name, rights, by: Proof::Token(token.name) }))
    }

    fn by_session(&self, digest: &str, now: Timestamp) -> Result<Option<Caller>, Problem> {
        let Some(session) = self.store.session(digest).map_err(failed)? else { return Ok(None) };
        if session.expires_at <= now || later(session.seen_at, IDLE_SECONDS_MAX) <= now {
            return Ok(None);
        }
        let Some(user) = self.user_of(&session.user)? else { return Ok(None) };
        if later(session.seen_at, 60) <= now {
            self.note(Change::SeenSession(session.digest.clone(), now));
        }
        let by = Proof::Session(session.digest, session.expires_at);
        Ok(Some(Caller { user: user.name, rights: user.rights, by }))
    }

    /// Whether somebody may still do what they may: for whoever keeps listening.
    pub(crate) fn is_still(&self, caller: &Caller, headers: &HeaderMap, now: Timestamp) -> bool {
        self.caller(headers, now).ok().flatten().is_some_and(|found| found.user == caller.user && found.rights == caller.rights)
    }

    /// Writes down when something was last used; nobody waits for it.
    fn note(&self, change: Change) {
        let store = self.store.clone();
        // What cannot be noted is noted with a later use.
        if let (Ok(runtime), None) = (tokio::runtime::Handle::try_current(), store.stalled()) {
            drop(runtime.spawn(async move { store.change_people(change).await }));
        }
    }
}

/// A password that nobody has, kept as the others are: looking it up takes as long.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3ViYWtzdWJha3N1YmFr$2Jqn3nS9zqM1Uyh6oU0bqM7bYl3h8cZ8h0p8m1l0o5Y";

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(jiff_seconds(seconds)).unwrap_or(Timestamp::MAX)
}

fn jiff_seconds(seconds: i64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds.unsigned_abs())
}

/// The digest of the session that a request says it belongs to.
pub(crate) fn session_of(headers: &HeaderMap) -> Option<String> {
    cookie_of(headers).map(digest)
}

fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Writes a file that only its owner reads.
fn write_private(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}
