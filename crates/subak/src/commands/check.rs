//! `subak check`.

use super::run::{self, Work};
use super::{Context, select};
use crate::args::CheckArgs;
use crate::exit::{CliError, Exit};

pub(super) fn execute(context: &Context<'_>, args: &CheckArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let snapshot = context.snapshot(&opened)?;
    let selected = select(&opened, &snapshot, &args.selection)?;
    let missing = |key: &subak_domain::AssetKey| !snapshot.latest.contains_key(key);
    let mut selected = selected;
    let never: Vec<String> = selected.assets.iter().filter(|key| missing(key)).map(ToString::to_string).collect();
    selected.assets.retain(|key| !missing(key));
    if !never.is_empty() {
        context.printer.note(&format!("not checked, because never materialized: {}", never.join(", ")));
    }
    let plan = subak_plan::plan_checks(opened.graph(), &selected);
    if plan.actions.is_empty() {
        context.printer.note("no checks to evaluate");
        return Ok(Exit::Ok);
    }
    let words = run::selection_words(&args.selection);
    context.block_on(run::work(context, &opened, Work::of(plan.actions, format!("check {words}")), &args.how))
}
