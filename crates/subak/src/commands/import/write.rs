//! Writing an imported project.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde_json::Value;
use subak_diag::{Diagnostic, codes};

use super::Imported;
use crate::exit::{CliError, Exit};
use crate::project::STATE_FOLDER;

/// Writes the files, and the secrets so that only their owner can read them.
pub(super) fn project(dir: &Path, imported: &Imported) -> Result<(), CliError> {
    let failed = |path: &Path, error: std::io::Error| {
        let problem = Diagnostic::error(codes::WRITE_OUTPUT, format!("`{}` cannot be written", path.display()));
        CliError::new(problem.caused_by(error.to_string()), Exit::Unreachable)
    };
    for (name, text) in &imported.files {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text)).map_err(|error| failed(&path, error))?;
    }
    let folder = dir.join(STATE_FOLDER).join("secrets");
    for (name, value) in &imported.secrets {
        let path = folder.join(name);
        let write = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?.write_all(value.as_bytes())
        };
        write().map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// A mapping as YAML, its keys in their order; lists and texts where they stand.
pub(super) fn yaml(entries: &[(String, Value)], indent: usize) -> String {
    let mut out = String::new();
    let blank = " ".repeat(indent);
    for (key, value) in entries {
        let key = scalar(key);
        match value {
            Value::Object(inner) if inner.is_empty() => out.push_str(&format!("{blank}{key}: {{}}\n")),
            Value::Object(inner) => {
                let inner: Vec<(String, Value)> = inner.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                out.push_str(&format!("{blank}{key}:\n{}", yaml(&inner, indent + 2)));
            }
            Value::Array(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), scalar)).collect();
                out.push_str(&format!("{blank}{key}: [{}]\n", items.join(", ")));
            }
            Value::String(text) => out.push_str(&format!("{blank}{key}: {}\n", scalar(text))),
            other => out.push_str(&format!("{blank}{key}: {other}\n")),
        }
    }
    out
}

/// A text as YAML: plain where nothing else could be meant, else as JSON has it.
fn scalar(text: &str) -> String {
    let is_word = |text: &str| {
        matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n")
    };
    let mut letters = text.chars();
    let is_plain = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | '/'))
        && !is_word(text);
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_reads_back_as_it_was() {
        let value = json!({ "a.b": { "x": "no", "list": ["a b", "c"], "empty": {} }, "n": 1, "text": "line\n\"q\" # ${{x}}" });
        let entries: Vec<(String, Value)> =
            value.as_object().expect("an object").iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let text = yaml(&entries, 0);
        let read = subak_project::yaml_value(&text).expect("YAML");
        assert_eq!(read["a.b"]["x"], "no", "{text}");
        assert_eq!(read["a.b"]["list"], json!(["a b", "c"]), "{text}");
        assert_eq!(read["text"], value["text"], "{text}");
    }
}
