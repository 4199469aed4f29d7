//! `subak plan`.

use std::collections::BTreeSet;

use arrow::array::StringArray;
use serde_json::json;
use subak_connect::convert;
use subak_diag::{Diagnostic, codes};
use subak_domain::{AssetKey, CursorRange, DataType, Definition, Snapshot, StepId, Work};
use subak_plan::{PartitionError, PartitionPick, Plan, PlanRequest};

use super::{Context, select};
use crate::args::{PlanArgs, Selection};
use crate::exit::{CliError, Exit};
use crate::printer::Table;
use crate::project::Opened;

pub(super) fn execute(context: &Context<'_>, args: &PlanArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let how = How { full_refresh: args.full_refresh, picks: picks(&args.partition), ..How::default() };
    let plan = make(context, &opened, &args.selection, &how)?;
    print(context, &plan);
    let has_work = !plan.actions.is_empty();
    Ok(if args.check && has_work { Exit::Changes } else { Exit::Ok })
}

/// How assets are to be brought up to date.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    /// From nothing.
    pub(super) full_refresh: bool,
    /// Only this part of their streams.
    pub(super) range: Option<CursorRange>,
    /// Only these partitions.
    pub(super) picks: Vec<PartitionPick>,
}

/// Partitions from their texts.
pub(super) fn picks(texts: &[String]) -> Vec<PartitionPick> {
    texts.iter().map(|text| PartitionPick::parse(text)).collect()
}

/// The plan for a selection.
pub(super) fn make(context: &Context<'_>, opened: &Opened, selection: &Selection, how: &How) -> Result<Plan, CliError> {
    of(opened, &context.snapshot(opened)?, selection, how)
}

/// The plan for a selection, given what is known.
pub(super) fn of(opened: &Opened, snapshot: &Snapshot, selection: &Selection, how: &How) -> Result<Plan, CliError> {
    let selected = select(opened, snapshot, selection)?;
    let range = how.range.as_ref();
    let request = PlanRequest {
        graph: opened.graph(),
        snapshot,
        selected: &selected,
        full_refresh: how.full_refresh,
        range,
        picks: &how.picks,
        now: opened.now(),
    };
    let is_cut = |key: &AssetKey| opened.graph().get(key).is_some_and(|asset| asset.partitioning.is_some());
    if !how.picks.is_empty() && !selected.assets.iter().any(is_cut) {
        let problem = Diagnostic::error(codes::USAGE, "none of the selected assets has partitions").data("nothing was run");
        return Err(CliError::new(problem.help("declare `partition:`, or leave `--partition` out"), Exit::Invalid));
    }
    let plan = subak_plan::plan(request).map_err(|error| partition_problem(&error))?;
    refuse_missing_upstream(opened, snapshot, &plan)?;
    if let Some(range) = range {
        refuse_range(opened, range, &plan)?;
    }
    Ok(plan)
}

pub(super) fn partition_problem(error: &PartitionError) -> CliError {
    let problem = Diagnostic::error(codes::PARTITION_NONE, error.to_string()).data("nothing was run");
    let problem = match error {
        PartitionError::Unknown { known, .. } => problem.help(known.clone()),
        PartitionError::Backwards { .. } => problem.help("say the first one first"),
    };
    CliError::new(problem.help("`subak partition list KEY` shows them"), Exit::Invalid)
}

/// A range must say something about every stream of the plan, in the type of its cursor.
fn refuse_range(opened: &Opened, range: &CursorRange, plan: &Plan) -> Result<(), CliError> {
    let refused = |message: String, help: &str| {
        let problem = Diagnostic::error(codes::USAGE, message).data("nothing was run");
        CliError::new(problem.help(help), Exit::Invalid)
    };
    let planned = plan.actions.iter().filter_map(|action| match &action.work {
        Work::Materialize { asset, .. } => opened.graph().get(asset),
        _ => None,
    });
    for asset in planned {
        let Definition::Ingest(ingest) = &asset.definition else { continue };
        let Some(rule) = &ingest.cursor else {
            let message = format!("`{}` has no cursor, so `--from` and `--until` say nothing about it", asset.key);
            return Err(refused(message, "select only streams with a `cursor:`, and what is made from them"));
        };
        for (word, value) in [("--from", &range.from), ("--until", &range.until)] {
            let Some(value) = value else { continue };
            let declared = ingest.columns.get(&rule.column).copied();
            let fits = match declared {
                Some(data_type) => is_of_type(value, data_type),
                None => convert::parse_instant(value).is_some() || is_of_type(value, DataType::Double),
            };
            if !fits {
                let expected = declared.map_or_else(|| "a date, time or number".to_owned(), |data_type| data_type.to_string());
                let message =
                    format!("`{word} {value}` is not {expected}, and the cursor `{}` of `{}` is", rule.column, asset.key);
                return Err(refused(message, "write it like the values of the column, for example `2025-01-31 06:00:00`"));
            }
        }
    }
    Ok(())
}

fn is_of_type(value: &str, data_type: DataType) -> bool {
    let texts = StringArray::from(vec![value]);
    convert::parse_texts(&texts, data_type, None).is_ok_and(|parsed| parsed.misfits.is_empty())
}

/// A step whose upstream was never made, and is not made by this plan, can only fail.
fn refuse_missing_upstream(opened: &Opened, snapshot: &Snapshot, plan: &Plan) -> Result<(), CliError> {
    let planned: BTreeSet<StepId> = plan.actions.iter().map(|action| action.step.base()).collect();
    for action in &plan.actions {
        let Work::Materialize { asset, .. } = &action.work else { continue };
        for upstream in opened.graph().get(asset).into_iter().flat_map(|asset| &asset.upstream) {
            let is_external =
                opened.graph().get(upstream).is_some_and(|asset| matches!(asset.definition, Definition::External { .. }));
            let is_planned = planned.contains(&StepId::asset(upstream));
            if !is_external && !is_planned && !snapshot.latest.contains_key(upstream) {
                let message = format!("`{asset}` reads `{upstream}`, which was never materialized and is not part of this run");
                let problem = Diagnostic::error(codes::UPSTREAM_MISSING, message).data("nothing was run");
                return Err(CliError::new(problem.help(format!("select it too: `subak run +{asset}`")), Exit::Invalid));
            }
        }
    }
    Ok(())
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
    for (asset, count) in &plan.left {
        context.printer.note(&format!("{count} more partitions of `{asset}` come with the runs after this one"));
    }
    let (count, fresh) = (plan.actions.len(), plan.fresh.len());
    context.printer.note(&format!("{count} steps; {fresh} selected assets are fresh. A step that waits only for newer data upstream is skipped when none comes"));
}
