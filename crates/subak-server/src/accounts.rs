//! Signing in and out, and who may: sessions, users, tokens, the audit log.

use axum::http::Method;
use serde::{Deserialize, Serialize};
use subak_domain::{Permission, Rights, Role, Timestamp};
use subak_store::people::{Audited, Change, Session, Token, User};
use subak_store::{SqliteStore, StoreError};
use utoipa::{IntoParams, ToSchema};

use crate::people::{self, Caller, People, Proof, TOKEN_PREFIX};
use crate::{Access, Backend, Call, Endpoint, Nothing, Page, Problem};

/// Days that a token may last.
const TOKEN_DAYS_MAX: u32 = 365;

/// Entries of a page of the audit log.
const AUDIT_COUNT_MAX: usize = 500;

/// Who has signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The name.
    pub user: String,
    /// The role.
    #[schema(example = "operator")]
    pub role: String,
    /// What they may do: `view`, `logs`, `data`, `operate`, `edit`, `administer`.
    pub permissions: Vec<String>,
    /// When the session ends; absent for a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// Signing in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// The first of all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetUp {
    /// What the server said when it started.
    pub token: String,
    /// The name of the first admin.
    pub name: String,
    /// Their password: 10 to 256 letters.
    pub password: String,
}

/// Another password for oneself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The one until now.
    pub old: String,
    /// The one from now on: 10 to 256 letters.
    pub new: String,
}

/// Somebody who may sign in.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    /// The name.
    pub name: String,
    /// The role.
    pub role: String,
    /// What they may do.
    pub permissions: Vec<String>,
    /// Whether logs are granted besides the role.
    pub logs: bool,
    /// Whether rows are granted besides the role.
    pub data: bool,
    /// Whether they are shut out.
    pub is_off: bool,
    /// When they were added.
    pub created_at: String,
}

/// Somebody new.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The name.
    pub name: String,
    /// `viewer`, `operator`, `editor` or `admin`.
    pub role: String,
    /// Grants logs besides the role.
    #[serde(default)]
    pub logs: bool,
    /// Grants rows besides the role.
    #[serde(default)]
    pub data: bool,
    /// Their first password: 10 to 256 letters.
    pub password: String,
}

/// What changes of somebody; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// Another role.
    #[serde(default)]
    pub role: Option<String>,
    /// Whether logs are granted.
    #[serde(default)]
    pub logs: Option<bool>,
    /// Whether rows are granted.
    #[serde(default)]
    pub data: Option<bool>,
    /// Another password.
    #[serde(default)]
    pub password: Option<String>,
    /// Shuts them out, or lets them in again.
    #[serde(default)]
    pub is_off: Option<bool>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// What it is called here.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Who made it.
    pub user: String,
    /// The role that it may be used as.
    pub role: String,
    /// What it may be used for.
    pub permissions: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires_at: String,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_at: Option<String>,
    /// When somebody ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// `active`, `expired` or `revoked`.
    pub status: String,
}

/// A new token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// The role that it may be used as; not above one's own.
    pub role: String,
    /// Whether it may read logs.
    #[serde(default)]
    pub logs: bool,
    /// Whether it may see rows.
    #[serde(default)]
    pub data: bool,
    /// Days until it ends, 1 to 365.
    pub days: u32,
}

/// A token with its secret, which is told once.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenMade {
    /// The token.
    pub token: TokenView,
    /// What to send as `Authorization: Bearer …`. It is not kept, and not told again.
    pub secret: String,
}

/// Something that somebody did.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditView {
    /// Its place.
    pub position: u64,
    /// When.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// What it was about.
    pub object: String,
    /// More.
    pub detail: String,
    /// From where.
    pub origin: String,
}

/// Which entries of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Those before this place, which is the `next` of the page before.
    pub after: Option<u64>,
    /// How many, at most 500.
    pub limit: Option<usize>,
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    /// What became of it, one sentence.
    pub message: String,
}

impl Done {
    /// One sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

fn failed(error: StoreError) -> Problem {
    Problem::state(error.to_string())
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn words(rights: &Rights) -> Vec<String> {
    rights.words().into_iter().map(str::to_owned).collect()
}

fn role(word: &str) -> Result<Role, Problem> {
    word.parse().map_err(|error: subak_domain::access::UnknownRole| Problem::invalid(error.to_string(), "take one of these"))
}

impl UserView {
    fn of(user: User) -> Self {
        let User { name, rights, is_off, created_at, .. } = user;
        let (role, permissions) = (rights.role.to_string(), words(&rights));
        Self { name, role, permissions, logs: rights.logs, data: rights.data, is_off, created_at: text(created_at) }
    }
}

impl TokenView {
    fn of(token: Token, now: Timestamp) -> Self {
        let status = match token {
            Token { revoked_at: Some(_), .. } => "revoked",
            Token { expires_at, .. } if expires_at <= now => "expired",
            _ => "active",
        };
        Self {
            id: token.id,
            name: token.name,
            user: token.user,
            role: token.rights.role.to_string(),
            permissions: words(&token.rights),
            created_at: text(token.created_at),
            expires_at: text(token.expires_at),
            used_at: token.used_at.map(text),
            revoked_at: token.revoked_at.map(text),
            status: status.to_owned(),
        }
    }
}

fn me_of(user: &str, rights: &Rights, expires_at: Option<Timestamp>) -> Me {
    Me { user: user.to_owned(), role: rights.role.to_string(), permissions: words(rights), expires_at: expires_at.map(text) }
}

/// Whoever asks; routes that need a permission have one.
pub(crate) fn caller(call: &Call) -> Result<&Caller, Problem> {
    call.caller.as_ref().ok_or_else(Problem::unknown_caller)
}

fn change(store: &SqliteStore, call: &Call, what: Change, action: &str, object: &str, detail: String) -> Result<bool, Problem> {
    call.wait(store.audited_as(call.entry(action, object, detail)).change_people(what)).map_err(failed)
}

/// Begins a session: the one before, if there was one, is worth nothing any more.
fn begin<B: Backend>(backend: &B, call: &Call, user: &User) -> Result<Me, Problem> {
    let (session, cookie) = People::session(&user.name, call.now)?;
    let Session { expires_at, .. } = session;
    if let Some(before) = &call.session {
        call.wait(backend.store().change_people(Change::EndSession(before.clone()))).map_err(failed)?;
    }
    let mut entry = call.entry("session.begin", &user.name, "");
    entry.actor.clone_from(&user.name);
    call.wait(backend.store().audited_as(entry).change_people(Change::AddSession(session))).map_err(failed)?;
    call.set_cookie(cookie);
    Ok(me_of(&user.name, &user.rights, Some(expires_at)))
}

fn set_up<B: Backend>(backend: &B, call: &Call, said: SetUp) -> Result<Me, Problem> {
    let first = || {
        let rights = Rights::of(Role::Admin);
        let password_hash = Some(people::hash_of(&said.password)?);
        Ok(User { name: people::name(&said.name)?, rights, password_hash, is_off: false, created_at: call.now })
    };
    let user = backend.people().set_up(&said.token, first, call.now)?;
    let mut entry = call.entry("user.add", &user.name, "the first admin");
    entry.actor.clone_from(&user.name);
    let is_first =
        call.wait(backend.store().audited_as(entry).change_people(Change::AddFirstUser(user.clone()))).map_err(failed)?;
    if !is_first {
        return Err(Problem::no_path());
    }
    begin(backend, call, &user)
}

fn sign_in<B: Backend>(backend: &B, call: &Call, said: SignIn) -> Result<Me, Problem> {
    let user = backend.people().sign_in(&said.name, &said.password, call.now)?;
    begin(backend, call, &user)
}

fn sign_out<B: Backend>(backend: &B, call: &Call, _: Nothing) -> Result<Done, Problem> {
    let caller = caller(call)?;
    if let Proof::Session(digest, _) = &caller.by {
        change(backend.store(), call, Change::EndSession(digest.clone()), "session.end", &caller.user, String::new())?;
        call.set_cookie(People::no_cookie());
    }
    Ok(Done::new("signed out"))
}

fn me<B: Backend>(_: &B, call: &Call, _: Nothing) -> Result<Me, Problem> {
    let caller = caller(call)?;
    let expires_at = if let Proof::Session(_, at) = caller.by { Some(at) } else { None };
    Ok(me_of(&caller.user, &caller.rights, expires_at))
}

fn own_password<B: Backend>(backend: &B, call: &Call, said: NewPassword) -> Result<Me, Problem> {
    let caller = caller(call)?;
    let Proof::Session(..) = caller.by else {
        return Err(Problem::invalid("a token has no password", "sign in to change yours"));
    };
    let user = backend.people().sign_in(&caller.user, &said.old, call.now)?;
    let was = user.password_hash.clone().unwrap_or_default();
    let what = Change::Password { name: user.name.clone(), was, now: people::hash_of(&said.new)? };
    if !change(backend.store(), call, what, "user.password", &user.name, String::new())? {
        return Err(Problem::changed("somebody else has changed your account meanwhile", "sign in again"));
    }
    let user = known(backend, &user.name)?;
    // All sessions have ended, this one too.
    begin(backend, call, &user)
}

fn users<B: Backend>(backend: &B, _: &Call, _: Nothing) -> Result<Page<UserView>, Problem> {
    let users = backend.store().users().map_err(failed)?;
    Ok(Page::whole(users.into_iter().map(UserView::of).collect()))
}

fn add_user<B: Backend>(backend: &B, call: &Call, said: NewUser) -> Result<UserView, Problem> {
    let rights = Rights { role: role(&said.role)?, logs: said.logs, data: said.data };
    let password_hash = Some(people::hash_of(&said.password)?);
    let user = User { name: people::name(&said.name)?, rights, password_hash, is_off: false, created_at: call.now };
    let detail = format!("as {}", rights.words().join(", "));
    if !change(backend.store(), call, Change::AddUser(user.clone()), "user.add", &user.name, detail)? {
        return Err(Problem::changed(format!("there is a user `{}` already", user.name), "take another name"));
    }
    Ok(UserView::of(user))
}

fn known<B: Backend>(backend: &B, name: &str) -> Result<User, Problem> {
    backend.store().user(name).map_err(failed)?.ok_or_else(|| Problem::not_found("user", name))
}

/// Refuses what would leave nobody who can manage users.
fn keep_an_admin<B: Backend>(backend: &B, without: &str) -> Result<(), Problem> {
    let is_admin = |user: &User| user.rights.role == Role::Admin && !user.is_off && user.name != without;
    if backend.store().users().map_err(failed)?.iter().any(is_admin) {
        return Ok(());
    }
    Err(Problem::invalid(format!("`{without}` is the only admin"), "make somebody else one first"))
}

fn change_user<B: Backend>(backend: &B, call: &Call, said: UserChange) -> Result<UserView, Problem> {
    let mut user = known(backend, call.part("name"))?;
    let mut changes = Vec::new();
    if let Some(word) = &said.role {
        user.rights.role = role(word)?;
        changes.push(format!("role {word}"));
    }
    for (name, is, slot) in [("logs", said.logs, &mut user.rights.logs), ("data", said.data, &mut user.rights.data)] {
        if let Some(is) = is {
            *slot = is;
            changes.push(format!("{name} {}", if is { "granted" } else { "not granted" }));
        }
    }
    if let Some(is_off) = said.is_off {
        user.is_off = is_off;
        changes.push(if is_off { "shut out" } else { "let in" }.to_owned());
    }
    if let Some(password) = &said.password {
        user.password_hash = Some(people::hash_of(password)?);
        changes.push("another password".to_owned());
    }
    if user.is_off || user.rights.role != Role::Admin {
        keep_an_admin(backend, &user.name)?;
    }
    change(backend.store(), call, Change::ChangeUser(user.clone()), "user.change", &user.name, changes.join(", "))?;
    Ok(UserView::of(user))
}

fn remove_user<B: Backend>(backend: &B, call: &Call, _: Nothing) -> Result<Done, Problem> {
    let user = known(backend, call.part("name"))?;
    keep_an_admin(backend, &user.name)?;
    change(backend.store(), call, Change::RemoveUser(user.name.clone()), "user.remove", &user.name, String::new())?;
    Ok(Done::new(format!("`{}` is gone, with their sessions and tokens", user.name)))
}

/// One's own tokens; those of all for whoever manages them.
fn tokens<B: Backend>(backend: &B, call: &Call, _: Nothing) -> Result<Page<TokenView>, Problem> {
    let caller = caller(call)?;
    let is_seen = |token: &Token| token.user == caller.user || caller.rights.may(Permission::Administer);
    let tokens = backend.store().tokens().map_err(failed)?.into_iter().filter(is_seen);
    Ok(Page::whole(tokens.map(|token| TokenView::of(token, call.now)).collect()))
}

fn add_token<B: Backend>(backend: &B, call: &Call, said: NewToken) -> Result<TokenMade, Problem> {
    let caller = caller(call)?;
    // One that could make others would outlive itself.
    if matches!(caller.by, Proof::Token(_)) {
        return Err(Problem::forbidden(Permission::Administer));
    }
    let rights = Rights { role: role(&said.role)?, logs: said.logs, data: said.data };
    let missing = Permission::ALL.into_iter().find(|one| rights.may(*one) && !caller.rights.may(*one));
    if let Some(missing) = missing {
        return Err(Problem::forbidden(missing));
    }
    let (token, secret) = make_token(&caller.user, &said.name, rights, said.days, call.now)?;
    let detail = format!("`{}` as {}, {} days", token.name, rights.words().join(", "), said.days);
    change(backend.store(), call, Change::AddToken(token.clone()), "token.add", &token.id, detail)?;
    Ok(TokenMade { token: TokenView::of(token, call.now), secret })
}

/// A new token of somebody, and its secret.
pub fn make_token(user: &str, name: &str, rights: Rights, days: u32, now: Timestamp) -> Result<(Token, String), Problem> {
    if !(1..=TOKEN_DAYS_MAX).contains(&days) {
        return Err(Problem::invalid(format!("a token cannot last {days} days"), format!("take 1 to {TOKEN_DAYS_MAX}")));
    }
    let name = people::name(name)?;
    let secret = format!("{TOKEN_PREFIX}{}", people::secret()?);
    let digest = people::digest(&secret);
    let id = digest.get(..12).unwrap_or_default().to_owned();
    let seconds = std::time::Duration::from_secs(u64::from(days) * 24 * 3600);
    let expires_at = now.checked_add(seconds).unwrap_or(Timestamp::MAX);
    let (user, created_at) = (user.to_owned(), now);
    Ok((Token { id, digest, name, user, rights, created_at, expires_at, used_at: None, revoked_at: None }, secret))
}

fn revoke_token<B: Backend>(backend: &B, call: &Call, _: Nothing) -> Result<Done, Problem> {
    let (caller, id) = (caller(call)?, call.part("id"));
    let is_own = |token: &Token| token.user == caller.user || caller.rights.may(Permission::Administer);
    let token = backend.store().tokens().map_err(failed)?.into_iter().find(|token| token.id == id && is_own(token));
    let Some(token) = token else { return Err(Problem::not_found("token", id)) };
    change(backend.store(), call, Change::RevokeToken(token.id, call.now), "token.revoke", id, token.name.clone())?;
    Ok(Done::new(format!("`{}` is worth nothing any more", token.name)))
}

fn audit<B: Backend>(backend: &B, _: &Call, query: AuditQuery) -> Result<Page<AuditView>, Problem> {
    let count = query.limit.unwrap_or(100).clamp(1, AUDIT_COUNT_MAX);
    let found = backend.store().audit(query.after.unwrap_or(u64::MAX), count).map_err(failed)?;
    let next = (found.len() == count).then(|| found.last().map(|last| last.position.to_string())).flatten();
    let view = |Audited { position, entry, .. }: Audited| AuditView {
        position,
        at: text(entry.at),
        actor: entry.actor,
        action: entry.action,
        object: entry.object,
        detail: entry.detail,
        origin: entry.origin,
    };
    Ok(Page { items: found.into_iter().map(view).collect(), next, total: None })
}

/// The routes of this file.
pub(crate) fn endpoints<B: Backend>() -> Vec<Endpoint<B>> {
    use Permission::{Administer, View};
    let may = Access::May;
    vec![
        Endpoint::write(
            Method::POST,
            "/api/v1/setup",
            Access::Open,
            "Adds the first admin, with what the server said when it started.",
            set_up,
        ),
        Endpoint::write(Method::POST, "/api/v1/session", Access::Open, "Signs in: the answer sets a cookie.", sign_in),
        Endpoint::read("/api/v1/session", may(View), "Who has signed in.", me),
        Endpoint::write(Method::DELETE, "/api/v1/session", may(View), "Signs out.", sign_out),
        Endpoint::write(
            Method::PUT,
            "/api/v1/session/password",
            may(View),
            "Sets another password for oneself; all other sessions end.",
            own_password,
        ),
        Endpoint::read("/api/v1/users", may(Administer), "Everybody who may sign in.", users),
        Endpoint::write(Method::POST, "/api/v1/users", may(Administer), "Adds somebody.", add_user),
        Endpoint::write(
            Method::PATCH,
            "/api/v1/users/{name}",
            may(Administer),
            "Changes what somebody may; their sessions end.",
            change_user,
        ),
        Endpoint::write(
            Method::DELETE,
            "/api/v1/users/{name}",
            may(Administer),
            "Removes somebody with their sessions and tokens.",
            remove_user,
        ),
        Endpoint::read("/api/v1/tokens", may(View), "One's own tokens; all of them for an admin.", tokens),
        Endpoint::write(
            Method::POST,
            "/api/v1/tokens",
            may(View),
            "Makes a token that may do no more than its maker.",
            add_token,
        ),
        Endpoint::write(Method::DELETE, "/api/v1/tokens/{id}", may(View), "Ends a token.", revoke_token),
        Endpoint::read("/api/v1/audit", may(Administer), "What was done by whom, the newest first.", audit),
    ]
}
