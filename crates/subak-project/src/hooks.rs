//! `hooks`: statements of the user's own around a step.

use subak_diag::{Diagnostic, codes};
use subak_domain::{ConnectionName, Hook, Hooks};

use crate::config::connection_ref;
use crate::declare::Scope;
use crate::decode::{self, Context, Fields};
use crate::keys;
use crate::yaml::{Node, Value};

/// Takes what the fields say: each of the two lists replaces the one that held before. `home` runs what names no connection.
pub(crate) fn read(fields: &Fields<'_>, base: &mut Hooks, home: &ConnectionName, scope: &Scope<'_>, context: &mut Context<'_>) {
    let Some(node) = fields.get("hooks") else { return };
    let Some(fields) = Fields::of(node, keys::HOOKS, &[], "`hooks`", context) else { return };
    for (name, list) in [("before", &mut base.before), ("after", &mut base.after)] {
        let Some(node) = fields.get(name) else { continue };
        match &node.value {
            Value::List(items) => *list = items.iter().filter_map(|item| hook(item, home, scope, context)).collect(),
            _ => context.wrong_shape(node, &format!("`{name}`"), "a list of statements"),
        }
    }
}

fn hook(node: &Node, home: &ConnectionName, scope: &Scope<'_>, context: &mut Context<'_>) -> Option<Hook> {
    let (sql, sql_node, on, on_node) = match &node.value {
        Value::Map(_) => {
            let fields = Fields::of(node, keys::HOOK, &[], "the statement", context)?;
            let on = match fields.get("on") {
                Some(node) => {
                    let text = decode::text(node, "`on`", context)?;
                    connection_ref(text, node, &scope.config.connections, context)?
                }
                None => home.clone(),
            };
            (fields.text("sql", context)?, fields.get("sql")?, on, fields.get("on").unwrap_or(node))
        }
        _ => (decode::text(node, "a statement", context)?, node, home.clone(), node),
    };
    if sql.trim().is_empty() {
        context.invalid(sql_node, "the statement is empty".to_owned());
        return None;
    }
    let is_name = |text: &str| text.trim_start().starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
    if sql.replace("{{ this }}", "").split("{{").skip(1).any(is_name) {
        let problem = Diagnostic::error(codes::TEMPLATE, "a statement of `hooks` knows `{{ this }}` and no other template");
        context.report(problem.help("write names out, or build the asset with SQL"), &sql_node.span, "");
        return None;
    }
    if sql.split("${").skip(1).any(is_name) {
        let problem = Diagnostic::error(codes::TEMPLATE, "a statement of `hooks` knows no secrets and no variables");
        let help = "a statement is kept in the clear; give what it needs to the database, for example as a role or a setting";
        context.report(problem.help(help), &sql_node.span, "");
        return None;
    }
    if let Some(info) = scope.connector(&on).filter(|info| !info.runs_statements) {
        let message = format!("connection `{on}` (type `{}`) runs no statements", info.kind);
        let help = "name a connection that does with `on:`, for example the warehouse";
        context.report(Diagnostic::error(codes::LACKS_ABILITY, message).help(help), &on_node.span, "");
        return None;
    }
    Some(Hook { on, sql: sql.trim().trim_end_matches(';').to_owned() })
}
