//! `subak plan`.

use serde_json::json;
use subak_domain::StepId;
use subak_plan::{Plan, PlanRequest};

use super::{Context, select};
use crate::args::{PlanArgs, Selection};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, args: &PlanArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let plan = make(context, &opened, &args.selection, args.full_refresh)?;
    print(context, &plan);
    let has_work = !plan.actions.is_empty();
    Ok(if args.check && has_work { Exit::Changes } else { Exit::Ok })
}

/// The plan for a selection.
pub(super) fn make(context: &Context<'_>, opened: &Opened, selection: &Selection, full_refresh: bool) -> Result<Plan, CliError> {
    let snapshot = context.snapshot(opened)?;
    let selected = select(opened, &snapshot, selection)?;
    let request = PlanRequest { graph: opened.graph(), snapshot: &snapshot, selected: &selected, full_refresh };
    Ok(subak_plan::plan(request))
}

/// Prints a plan; the same form for `plan` and `run --dry-run`.
pub(super) fn print(context: &Context<'_>, plan: &Plan) {
    let mut table = Table::new("plan", &["step", "reason", "why", "needs"]);
    for action in &plan.actions {
        let needs: Vec<&str> = action.needs.iter().map(StepId::as_str).collect();
        table.rows.push(vec![
            json!(action.step.as_str()),
            json!(action.reason.as_str()),
            json!(action.reason.to_string()),
            json!(needs.join(" ")),
        ]);
    }
    if plan.actions.is_empty() {
        context.printer.note("nothing to do");
        if context.printer.format == crate::args::Format::Human {
            return;
        }
    }
    context.printer.table(&table);
    let (count, fresh) = (plan.actions.len(), plan.fresh.len());
    context.printer.note(&format!("{count} steps; {fresh} selected assets are fresh. A step that waits only for newer data upstream is skipped when none comes"));
}
