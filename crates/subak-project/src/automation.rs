//! `automation` of an asset: when it is brought up to date by itself.

use subak_diag::{Diagnostic, codes, nearest};
use subak_domain::Automation;
use subak_domain::automation::Condition;
use subak_plan::automation::{self, ConditionError, WORDS};

use crate::decode::{self, Context, Fields, text};
use crate::keys;
use crate::yaml::{Node, Value};

/// The automation that the fields declare, else the one that is said for all.
pub(crate) fn read(
    fields: &Fields<'_>,
    timezone: &str,
    for_all: Option<Automation>,
    context: &mut Context<'_>,
) -> Option<Automation> {
    let Some(node) = fields.get("automation") else { return for_all };
    let Value::Map(_) = &node.value else {
        let word =
            fields.word("automation", &[("eager", 0), ("on_upstream_update", 0), ("on_missing", 1), ("none", 2)], context)?;
        let named = |text: &str, condition: Condition| Some(Automation { text: text.to_owned(), condition });
        return match word {
            0 => named("on_upstream_update", automation::eager()),
            1 => named("on_missing", automation::on_missing()),
            _ => None,
        };
    };
    let fields = Fields::of(node, keys::AUTOMATION, &[], "`automation`", context)?;
    let timezone = fields.text("timezone", context).unwrap_or(timezone);
    let (cron, fresh, when) = (fields.get("cron"), fields.get("fresh"), fields.get("when"));
    let found = match (cron, fresh, when) {
        (Some(node), None, None) => {
            let line = text(node, "`cron`", context)?;
            let condition = automation::on_cron(line, timezone).map_err(|error| report(&error, node, context)).ok()?;
            (format!("cron {line} in {timezone}"), condition)
        }
        (None, Some(_), None) => {
            let age = fields.duration("fresh", context)?;
            (format!("fresh {}", fields.text("fresh", context)?), automation::fresh_within(age))
        }
        (None, None, Some(node)) => {
            let written = text(node, "`when`", context)?;
            let condition = automation::parse(written, timezone).map_err(|error| report(&error, node, context)).ok()?;
            (written.split_whitespace().collect::<Vec<_>>().join(" "), condition)
        }
        _ => {
            let problem = Diagnostic::error(codes::MISSING_KEY, "`automation` needs one of `cron`, `fresh` and `when`");
            let help = "write `automation: on_upstream_update`, `{ cron: \"15 * * * *\" }`, `{ fresh: 6h }` or `{ when: \"…\" }`";
            context.report(problem.help(help), &node.span, "");
            return None;
        }
    };
    Some(Automation { text: found.0, condition: found.1 })
}

fn report(error: &ConditionError, node: &Node, context: &mut Context<'_>) {
    let problem = Diagnostic::error(codes::CONDITION, error.to_string());
    let problem = match error {
        ConditionError::Unknown(word) => match nearest(word, WORDS) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("known are {}", decode::list(&WORDS))),
        },
        ConditionError::Wrong(_) => problem.help("`subak docs automation` shows what conditions are made of"),
    };
    context.report(problem, &node.span, "");
}
