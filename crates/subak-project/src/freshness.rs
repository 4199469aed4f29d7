//! `freshness` of an asset: how old it may become, and who is told when it is older.

use std::collections::BTreeMap;

use subak_diag::{Diagnostic, codes};
use subak_domain::schedule::ScheduleRule;
use subak_domain::{FreshnessPolicy, Notifications, Occasion, Schedule};

use crate::config::{self, ReceiverDeclaration};
use crate::decode::{Context, Fields};
use crate::keys;

/// The policy that the fields declare, else the one that is said for all. Who is told stands there, else with the project's defaults.
pub(crate) fn read(
    fields: &Fields<'_>,
    (timezone, receivers, defaults): (&str, &BTreeMap<String, ReceiverDeclaration>, &Notifications),
    for_all: Option<FreshnessPolicy>,
    context: &mut Context<'_>,
) -> Option<FreshnessPolicy> {
    let Some(node) = fields.get("freshness") else { return for_all };
    let fields = Fields::of(node, keys::FRESHNESS_POLICY, &[], "`freshness`", context)?;
    let max_age = fields.duration("max_age", context)?;
    let warn_age = fields.duration("warn_age", context);
    let lines: Vec<String> = fields.texts("deadline", context).into_iter().map(|(line, _)| line.to_owned()).collect();
    let zone = fields.text("timezone", context).unwrap_or(timezone);
    let deadline = (!lines.is_empty()).then(|| Schedule::new(ScheduleRule::Cron(lines), zone));
    if let (Some(name), Some(_)) = (fields.name("warn_age"), &deadline) {
        let problem = Diagnostic::error(codes::INVALID_VALUE, "`warn_age` says nothing beside `deadline`");
        context.report(problem.help("remove one of the two"), &name.span, "");
    }
    let mut notifications = defaults.clone();
    notifications.receivers.retain(|occasion, _| matches!(occasion, Occasion::Late | Occasion::Recovery));
    notifications.receivers.extend(config::notifications(&fields, receivers, context).receivers);
    let policy = FreshnessPolicy { max_age, warn_age, deadline, notifications };
    match subak_plan::freshness::check(&policy) {
        Ok(()) => Some(policy),
        Err(error) => {
            context.invalid(node, error.to_string());
            None
        }
    }
}
