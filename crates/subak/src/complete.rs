//! Completion of asset names, from a list that the last load left behind: no project is loaded while somebody types.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap_complete::CompletionCandidate;

/// Where the list stands, relative to the project.
const LIST: &str = ".subak/cache/assets.txt";

/// Asset keys that begin with what was typed; a leading `+` or `@` stays.
pub(crate) fn assets(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let core = typed.trim_start_matches(|c: char| c == '+' || c == '@' || c.is_ascii_digit());
    let prefix = &typed[..typed.len() - core.len()];
    let Some(list) = find() else { return Vec::new() };
    let text = std::fs::read_to_string(list).unwrap_or_default();
    text.lines().filter(|key| key.starts_with(core)).map(|key| CompletionCandidate::new(format!("{prefix}{key}"))).collect()
}

fn find() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(LIST)).find(|list| list.exists())
}

/// Leaves the list behind. Best effort: completion is a convenience.
pub(crate) fn remember(root: &Path, keys: &[&str]) {
    let path = root.join(LIST);
    let text = keys.join("\n");
    if std::fs::read_to_string(&path).is_ok_and(|known| known == text) || !root.join(".subak").exists() {
        return;
    }
    if let Some(folder) = path.parent() {
        drop(std::fs::create_dir_all(folder));
    }
    drop(std::fs::write(path, text));
}
