//! `subak init`: a project that runs offline at once.

use std::path::Path;

use include_dir::{Dir, include_dir};
use serde_json::json;
use subak_diag::{Diagnostic, codes};

use super::Context;
use crate::args::{InitArgs, Template};
use crate::exit::{CliError, Exit};

static TEMPLATES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

pub(super) fn execute(context: &Context<'_>, args: &InitArgs) -> Result<Exit, CliError> {
    let name = match args.template {
        Template::Warehouse => "warehouse",
        Template::Ingest => "ingest",
    };
    require_empty(&args.dir)?;
    let files = TEMPLATES.get_dir(name).map(|folder| write(folder, folder.path(), &args.dir)).transpose()?.unwrap_or_default();
    let shown = args.dir.display();
    let human = format!(
        "made {} files in {shown}\n\n  subak -C {shown} validate\n  subak -C {shown} run\n  subak -C {shown} list",
        files.len()
    );
    context.printer.object("project", &json!({ "dir": shown.to_string(), "template": name, "files": files }), &human);
    Ok(Exit::Ok)
}

/// Refuses a folder that holds anything but hidden files.
pub(super) fn require_empty(dir: &Path) -> Result<(), CliError> {
    let is_visible = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    };
    let has_files = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(is_visible));
    if !has_files {
        return Ok(());
    }
    let problem = Diagnostic::error(codes::FOLDER_NOT_EMPTY, format!("the folder `{}` is not empty", dir.display()));
    Err(CliError::new(problem.help("name an empty or new folder"), Exit::Invalid))
}

/// Writes embedded files below `target`; returns their paths.
pub(super) fn write(folder: &Dir<'_>, base: &Path, target: &Path) -> Result<Vec<String>, CliError> {
    let mut written = Vec::new();
    for file in folder.files() {
        let relative = file.path().strip_prefix(base).unwrap_or(file.path());
        // A file named `gitignore` is packed without its dot, so that it does not rule over this repository.
        let name = relative.display().to_string().replace("gitignore", ".gitignore").replace("..gitignore", ".gitignore");
        let path = target.join(&name);
        let failed = |error: std::io::Error| {
            let problem = Diagnostic::error(codes::WRITE_OUTPUT, format!("`{}` cannot be written", path.display()));
            CliError::new(problem.caused_by(error.to_string()), Exit::Unreachable)
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, file.contents()).map_err(failed)?;
        written.push(name);
    }
    for folder in folder.dirs() {
        written.extend(write(folder, base, target)?);
    }
    Ok(written)
}
