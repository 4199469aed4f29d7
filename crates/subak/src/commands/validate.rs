//! `subak validate`.

use serde_json::{Value, json};

use super::Context;
use crate::args::Format;
use crate::exit::{CliError, Exit};
use crate::printer::counted;
use crate::project;

pub(super) fn execute(context: &Context<'_>) -> Result<Exit, CliError> {
    let root = project::find_root(context.global)?;
    let loaded = project::load(&root, context.global, context.settings);
    let errors = loaded.problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = loaded.problems.len() - errors;
    if context.printer.format == Format::Human {
        context.printer.problems(&loaded.problems, &loaded.sources);
    }
    let (assets, checks) = loaded.project.as_ref().map_or((None, None), |project| {
        let of_assets: usize = project.graph.assets().iter().map(|asset| asset.checks.len()).sum();
        (Some(project.graph.assets().len()), Some(of_assets + project.graph.checks().len()))
    });
    let found = match (errors, warnings) {
        (0, 0) => "no problems".to_owned(),
        (errors, warnings) => format!("{}, {}", counted(errors as u64, "error"), counted(warnings as u64, "warning")),
    };
    let human = match (assets, checks) {
        (Some(assets), Some(checks)) => {
            format!("{}, {}: {found}", counted(assets as u64, "asset"), counted(checks as u64, "check"))
        }
        _ => found,
    };
    let problems: Vec<Value> = loaded.problems.iter().map(|problem| subak_diag::to_json(problem, &loaded.sources)).collect();
    context.printer.object(
        "validation",
        &json!({ "assets": assets, "checks": checks, "errors": errors, "warnings": warnings, "problems": problems }),
        &human,
    );
    Ok(if errors == 0 { Exit::Ok } else { Exit::Invalid })
}
