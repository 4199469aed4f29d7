//! `subak import`: makes a project from the files of another tool, and says what did not map.

mod sling;
mod write;

use std::path::Path;

use serde_json::{Value, json};
use subak_diag::{Diagnostic, codes};

use super::Context;
use crate::args::{ImportCommand, ImportSlingArgs};
use crate::exit::{CliError, Exit};
use crate::project;

/// A project that was made from something else.
#[derive(Debug, Default)]
struct Imported {
    /// Files by their paths.
    files: Vec<(String, String)>,
    /// Secrets by their names.
    secrets: Vec<(String, String)>,
    /// What did not map, or maps to something else.
    notes: Vec<String>,
    stream_count: usize,
    /// Whether streams are named by patterns.
    has_patterns: bool,
}

pub(super) fn execute(context: &Context<'_>, command: &ImportCommand) -> Result<Exit, CliError> {
    match command {
        ImportCommand::Sling(args) => import_sling(context, args),
    }
}

fn read_yaml(path: &Path) -> Result<Value, CliError> {
    let failed = |cause: String| {
        let problem = Diagnostic::error(codes::FILE_UNREADABLE, format!("`{}` cannot be read", path.display()));
        CliError::new(problem.caused_by(cause), Exit::Invalid)
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    subak_project::yaml_value(&text).map_err(failed)
}

fn import_sling(context: &Context<'_>, args: &ImportSlingArgs) -> Result<Exit, CliError> {
    let replication = read_yaml(&args.file)?;
    let environment = args.env.as_deref().map(read_yaml).transpose()?.unwrap_or(Value::Null);
    let stem = args.file.file_stem().map_or_else(|| "replication".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let folder = args.file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_path_buf)).unwrap_or_default();
    let imported = sling::import(&replication, &environment, &stem, &folder).map_err(|what| {
        let problem =
            Diagnostic::error(codes::INVALID_VALUE, format!("`{}` is no replication of Sling: {what}", args.file.display()));
        CliError::new(problem.help("name a file with `source:`, `target:` and `streams:`"), Exit::Invalid)
    })?;
    if !args.dry_run {
        super::init::require_empty(&args.dir)?;
        write::project(&args.dir, &imported)?;
    }
    report(context, &args.dir, args.dry_run, &imported);
    Ok(Exit::Ok)
}

fn report(context: &Context<'_>, dir: &Path, is_dry: bool, imported: &Imported) {
    let shown = dir.display();
    let mut human = format!(
        "{} {} streams in {} files of {shown}\n",
        if is_dry { "would make" } else { "made" },
        imported.stream_count,
        imported.files.len()
    );
    if !imported.secrets.is_empty() {
        let names: Vec<&str> = imported.secrets.iter().map(|(name, _)| name.as_str()).collect();
        human.push_str(&format!("secrets are in {shown}/.subak/secrets: {}\n", names.join(", ")));
    }
    for note in &imported.notes {
        human.push_str(&format!("  not the same: {note}\n"));
    }
    human.push('\n');
    if imported.has_patterns {
        human.push_str(&format!("  subak -C {shown} discover --save\n"));
    }
    human.push_str(&format!("  subak -C {shown} validate\n  subak -C {shown} run"));
    let files: Vec<&str> = imported.files.iter().map(|(path, _)| path.as_str()).collect();
    let value = json!({ "dir": shown.to_string(), "files": files, "streams": imported.stream_count, "notes": imported.notes });
    context.printer.object("import", &value, &human);
    if !is_dry {
        let loaded = project::load(dir, context.global, context.settings);
        if !imported.has_patterns && loaded.has_errors() {
            context.printer.problems(&loaded.problems, &loaded.sources);
        }
    }
}
