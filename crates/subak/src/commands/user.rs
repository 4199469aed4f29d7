//! `subak user`, `subak token` and `subak audit`: who may speak to a server, and what they did. Whoever can type these commands owns the state anyway.

use serde_json::json;
use subak_diag::{Diagnostic, codes};
use subak_domain::Rights;
use subak_engine::{Clock, SystemClock};
use subak_server::Problem;
use subak_store::SqliteStore;
use subak_store::people::{AuditEntry, Change, User};

use super::Context;
use super::automation::text;
use crate::args::{AuditCommand, GrantArgs, TokenCommand, UserCommand};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project;

/// What the audit log calls whoever types a command.
const ACTOR: &str = "command line";

fn refused(problem: Problem) -> CliError {
    let diagnostic = Diagnostic::error(codes::USAGE, problem.error.message).data("nothing was changed");
    CliError::new(diagnostic.help(problem.error.help), Exit::Invalid)
}

fn entry(action: &str, object: &str, detail: String) -> AuditEntry {
    let (actor, origin) = (ACTOR.to_owned(), "this machine".to_owned());
    AuditEntry { at: SystemClock.now(), actor, action: action.to_owned(), object: object.to_owned(), detail, origin }
}

fn words(rights: &Rights) -> String {
    rights.words().join(", ")
}

fn rights(args: &GrantArgs) -> Rights {
    Rights { role: args.role, logs: args.logs, data: args.data }
}

/// The state, whatever is wrong with the files of the project.
fn store(context: &Context<'_>) -> Result<SqliteStore, CliError> {
    let root = project::find_root(context.global)?;
    let folder = project::state_folder(&root, context.global.profile.as_deref());
    Ok(SqliteStore::open(&folder.join("state.db"))?)
}

/// A password from standard input, where no other process sees it.
fn password() -> Result<String, CliError> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| {
        let problem = Diagnostic::error(codes::USAGE, "standard input cannot be read").caused_by(error.to_string());
        CliError::new(problem, Exit::Invalid)
    })?;
    subak_server::hash_of(line.trim_end_matches(['\r', '\n'])).map_err(refused)
}

fn known(store: &SqliteStore, name: &str) -> Result<User, CliError> {
    let users = store.users()?;
    let found = users.iter().find(|user| user.name == name).cloned();
    found.ok_or_else(|| CliError::not_found("user", name, users.iter().map(|user| user.name.as_str())))
}

pub(super) fn users(context: &Context<'_>, command: &UserCommand) -> Result<Exit, CliError> {
    let store = store(context)?;
    let change =
        |change: Change, entry: AuditEntry| context.block_on(async { Ok(store.audited_as(entry).change_people(change).await?) });
    match command {
        UserCommand::List => {
            let mut table = Table::new("users", &["user", "role", "may", "state", "since"]);
            for user in store.users()? {
                let state = if user.is_off { "shut out" } else { "active" };
                let may = words(&user.rights);
                let row =
                    [json!(user.name), json!(user.rights.role.as_str()), json!(may), json!(state), json!(text(user.created_at))];
                table.rows.push(row.to_vec());
            }
            if table.rows.is_empty() {
                context.printer.note("there is nobody; `subak user add NAME --role admin` adds the first");
            }
            context.printer.table(&table);
        }
        UserCommand::Add(args) => {
            let name = subak_server::name(&args.name).map_err(refused)?;
            let rights = rights(&args.grants);
            let password_hash = Some(password()?);
            let user = User { name: name.clone(), rights, password_hash, is_off: false, created_at: SystemClock.now() };
            let detail = format!("as {}", words(&rights));
            if !change(Change::AddUser(user), entry("user.add", &name, detail))? {
                let problem = Diagnostic::error(codes::USAGE, format!("there is a user `{name}` already"));
                return Err(CliError::new(
                    problem.data("nothing was changed").help("`subak user set` changes them"),
                    Exit::Conflict,
                ));
            }
            context.printer.note(&format!("`{name}` may sign in: {}", words(&rights)));
        }
        UserCommand::Set(args) => {
            let mut user = known(&store, &args.name)?;
            let mut changes = Vec::new();
            if let Some(role) = args.role {
                user.rights.role = role;
                changes.push(format!("role {role}"));
            }
            for (name, is, slot) in [("logs", args.logs, &mut user.rights.logs), ("data", args.data, &mut user.rights.data)] {
                if let Some(is) = is {
                    *slot = is;
                    changes.push(format!("{name} {}", if is { "granted" } else { "not granted" }));
                }
            }
            if let Some(is_on) = args.active {
                user.is_off = !is_on;
                changes.push(if is_on { "let in" } else { "shut out" }.to_owned());
            }
            if args.password_stdin {
                user.password_hash = Some(password()?);
                changes.push("another password".to_owned());
            }
            let said = changes.join(", ");
            change(Change::ChangeUser(user), entry("user.change", &args.name, said.clone()))?;
            context.printer.note(&format!("`{}`: {said}; their sessions have ended", args.name));
        }
        UserCommand::Remove(args) => {
            let user = known(&store, &args.name)?;
            change(Change::RemoveUser(user.name.clone()), entry("user.remove", &user.name, String::new()))?;
            context.printer.note(&format!("`{}` is gone, with their sessions and tokens", user.name));
        }
    }
    Ok(Exit::Ok)
}

pub(super) fn tokens(context: &Context<'_>, command: &TokenCommand) -> Result<Exit, CliError> {
    let store = store(context)?;
    let change =
        |change: Change, entry: AuditEntry| context.block_on(async { Ok(store.audited_as(entry).change_people(change).await?) });
    match command {
        TokenCommand::List => {
            let mut table = Table::new("tokens", &["id", "name", "user", "may", "expires_at", "used_at", "revoked_at"]);
            for token in store.tokens()? {
                table.rows.push(vec![
                    json!(token.id),
                    json!(token.name),
                    json!(token.user),
                    json!(words(&token.rights)),
                    json!(text(token.expires_at)),
                    json!(token.used_at.map(text)),
                    json!(token.revoked_at.map(text)),
                ]);
            }
            context.printer.table(&table);
        }
        TokenCommand::Create(args) => {
            let user = known(&store, &args.user)?;
            let rights = rights(&args.grants);
            if !user.rights.cover(&rights) {
                let message = format!("`{}` may {}, and a token may do no more", user.name, words(&user.rights));
                let problem = Diagnostic::error(codes::USAGE, message).data("nothing was changed");
                return Err(CliError::new(problem.help("take a role that is not above theirs"), Exit::Invalid));
            }
            let made = subak_server::make_token(&user.name, &args.name, rights, args.days, SystemClock.now());
            let (token, secret) = made.map_err(refused)?;
            let (id, expires_at) = (token.id.clone(), text(token.expires_at));
            let detail = format!("`{}` as {}, {} days", token.name, words(&rights), args.days);
            change(Change::AddToken(token), entry("token.add", &id, detail))?;
            context.printer.note(&format!("token {id}, until {expires_at}: {}; it is shown once", words(&rights)));
            let object = json!({ "id": id, "secret": secret, "expires_at": expires_at });
            context.printer.object("token", &object, &secret);
        }
        TokenCommand::Revoke(args) => {
            let tokens = store.tokens()?;
            let ids = tokens.iter().map(|token| token.id.as_str());
            if !ids.clone().any(|id| id == args.id) {
                return Err(CliError::not_found("token", &args.id, ids));
            }
            change(Change::RevokeToken(args.id.clone(), SystemClock.now()), entry("token.revoke", &args.id, String::new()))?;
            context.printer.note(&format!("token {} is worth nothing any more", args.id));
        }
    }
    Ok(Exit::Ok)
}

pub(super) fn audit(context: &Context<'_>, command: &AuditCommand) -> Result<Exit, CliError> {
    let store = store(context)?;
    match command {
        AuditCommand::List(args) => {
            let mut table = Table::new("audit", &["position", "at", "actor", "action", "object", "detail", "origin"]);
            for found in store.audit(u64::MAX, args.limit)? {
                let entry = found.entry;
                table.rows.push(vec![
                    json!(found.position),
                    json!(text(entry.at)),
                    json!(entry.actor),
                    json!(entry.action),
                    json!(entry.object),
                    json!(entry.detail),
                    json!(entry.origin),
                ]);
            }
            context.printer.table(&table);
        }
        AuditCommand::Verify => {
            if let Some(position) = store.audit_first_false()? {
                let message = format!("entry {position} of the audit log is not what was entered, or one before it is gone");
                let problem = Diagnostic::error(codes::STATE_OPEN, message);
                let help = "compare it with a copy of `subak db backup`, and find out who can write the state";
                return Err(CliError::new(problem.help(help), Exit::Failed));
            }
            let count = store.audit(u64::MAX, 1)?.first().map_or(0, |found| found.position);
            context
                .printer
                .note(&format!("{} of the audit log are as they were entered", crate::printer::counted(count, "entry")));
        }
    }
    Ok(Exit::Ok)
}
