//! `subak verify`: tables against their sources.

use serde_json::{Value, json};
use subak_diag::{Diagnostic, codes};
use subak_domain::Definition;
use subak_engine::verify::{Verification, VerifyRequest, verify};

use super::{Context, select};
use crate::args::VerifyArgs;
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::{Table, Tone, count};

pub(super) fn execute(context: &Context<'_>, args: &VerifyArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let snapshot = context.snapshot(&opened)?;
    let selected = select(&opened, &snapshot, &args.selection)?;
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    let mut table = Table::new(
        "verifications",
        &["asset", "verdict", "source_rows", "table_rows", "filtered", "refused", "measures", "differences"],
    );
    let mut problems = Vec::new();
    let mut looked_at = 0;
    context.block_on(async {
        for asset in opened.graph().assets().iter().filter(|asset| selected.assets.contains(&asset.key)) {
            let (Definition::Ingest(ingest) | Definition::Seed(ingest)) = &asset.definition else { continue };
            if !snapshot.latest.contains_key(&asset.key) {
                context.printer.note(&format!("`{}` was never materialized and is not compared", asset.key));
                continue;
            }
            looked_at += 1;
            if asset.partitioning.is_some() {
                // Which rows of the source count hangs on the partitions that were loaded.
                context
                    .printer
                    .note(&format!("`{}` has partitions and is not compared: a run of a partition reads it anew", asset.key));
                table.rows.push(not_compared(asset.key.as_str()));
                continue;
            }
            let request = VerifyRequest {
                asset,
                ingest,
                connections: &connections,
                as_of: opened.as_of.clone(),
                difference_count_max: args.limit,
            };
            match verify(&request).await {
                Ok(found) => {
                    problems.extend(problem(asset.key.as_str(), &found));
                    table.rows.push(row(context, asset.key.as_str(), &found));
                }
                Err(error) if error.kind == subak_connect::ConnectErrorKind::Config => {
                    context.printer.note(&format!("{error}"));
                    table.rows.push(not_compared(asset.key.as_str()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })?;
    if looked_at == 0 {
        context.printer.note("no loaded asset is selected; only what was loaded from a source can be compared with it");
        return Ok(Exit::Ok);
    }
    context.printer.table(&table);
    context.printer.problems(&problems, &opened.sources);
    Ok(if problems.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn not_compared(key: &str) -> Vec<Value> {
    vec![json!(key), json!("not compared"), Value::Null, Value::Null, Value::Null, Value::Null, json!([]), json!([])]
}

fn row(context: &Context<'_>, key: &str, found: &Verification) -> Vec<Value> {
    let is_human = context.printer.format == crate::args::Format::Human;
    let measures: Vec<Value> = found
        .columns
        .iter()
        .map(|column| json!({ "column": column.column, "measure": column.measure, "source": column.source, "table": column.table }))
        .collect();
    let differences: Vec<Value> = found
        .differences
        .iter()
        .map(|difference| json!({ "key": difference.key, "kind": difference.kind, "detail": difference.detail }))
        .collect();
    let verdict = if found.is_equal() { "equal" } else { "different" };
    let verdict = if is_human {
        let tone = if found.is_equal() { Tone::Good } else { Tone::Bad };
        json!(context.printer.tone(tone, verdict))
    } else {
        json!(verdict)
    };
    let list = |items: Vec<Value>| if is_human { json!(items.len()) } else { Value::Array(items) };
    vec![
        json!(key),
        verdict,
        json!(found.source_count),
        json!(found.table_count),
        json!(found.filtered_count),
        json!(found.rejected_count),
        list(measures),
        list(differences),
    ]
}

fn problem(key: &str, found: &Verification) -> Option<Diagnostic> {
    if found.is_equal() {
        return None;
    }
    let message = format!(
        "`{key}` differs from its source: {} rows there, {} rows in the table",
        count(found.source_count),
        count(found.table_count)
    );
    let mut problem = Diagnostic::error(codes::NOT_RECONCILED, message);
    for column in &found.columns {
        let text = format!("{} of `{}`: source {}, table {}", column.measure, column.column, column.source, column.table);
        problem = problem.caused_by(text);
    }
    for difference in &found.differences {
        problem = problem.caused_by(format!("{} {}: {}", difference.kind, difference.key, difference.detail));
    }
    if found.is_cut {
        problem = problem.caused_by("and more; `--limit` lists more of them".to_owned());
    }
    let help = format!(
        "bring it up to date and verify again: `subak run {key}`; what the source deleted stays unless `mode: replace` reads it all"
    );
    Some(problem.data("nothing was changed").help(help))
}
