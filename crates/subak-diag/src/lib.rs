//! One diagnostic (code, message, labels, causes, data, help) and its two renderings: terminal text and JSON.
//!
//! Deliberately not here: printing, exit codes, and the decision what is an error. Callers build diagnostics; the binary shows
//! them.

pub mod codes;
mod render;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub use codes::Code;
pub use render::{to_json, to_text};

/// Whether a diagnostic stops what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should look.
    Warning,
}

/// One problem, complete enough to act on: what, where, why, what is now true of the data, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code with a documentation page.
    pub code: Code,
    /// Whether it stops what was asked for.
    pub severity: Severity,
    /// What is wrong, one sentence without a final stop.
    pub message: String,
    /// Where, the main place first.
    pub labels: Vec<Label>,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What is now true of the data; `None` for problems that are found before anything runs.
    pub data: Option<String>,
    /// What to do next, each entry one thing.
    pub help: Vec<String>,
}

/// A place in a file and what to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The file, relative to the project.
    pub path: Arc<str>,
    /// Bytes from the start of the file.
    pub span: Range<usize>,
    /// A few words that stand under the marked text; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            labels: Vec::new(),
            causes: Vec::new(),
            data: None,
            help: Vec::new(),
        }
    }

    /// A warning without a place.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Adds a place; the first one added is the main place.
    #[must_use]
    pub fn at(mut self, path: &Arc<str>, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label { path: Arc::clone(path), span, text: text.into() });
        self
    }

    /// Adds a cause below the ones that are there.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Says what is now true of the data.
    #[must_use]
    pub fn data(mut self, data: impl Into<String>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Adds one thing to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Whether it stops what was asked for.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The texts that labels point into, by path.
#[derive(Debug, Clone, Default)]
pub struct Sources(BTreeMap<Arc<str>, Arc<str>>);

impl Sources {
    /// Adds or replaces the text of a file.
    pub fn insert(&mut self, path: Arc<str>, text: Arc<str>) {
        self.0.insert(path, text);
    }

    /// The text of a file.
    pub fn get(&self, path: &str) -> Option<&Arc<str>> {
        self.0.get(path)
    }

    /// Line and column of a byte offset, both from 1, the column in characters. `None` for an unknown file.
    pub fn line_column(&self, path: &str, offset: usize) -> Option<(usize, usize)> {
        let text = self.get(path)?;
        let before = &text[..floor_char_boundary(text, offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    }
}

fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The known name that is nearest to `wanted`, if one is near enough to be meant.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(wanted, name), name))
        .filter(|(distance, name)| *distance <= distance_max && *name != wanted)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typos_and_nothing_else() {
        let known = ["primary_key", "cursor", "mode", "columns"];
        assert_eq!(nearest("primay_key", known), Some("primary_key"));
        assert_eq!(nearest("cusror", known), Some("cursor"));
        assert_eq!(nearest("schedule", known), None);
        assert_eq!(nearest("mode", known), None);
    }

    #[test]
    fn line_and_column_count_characters() {
        let mut sources = Sources::default();
        sources.insert("a".into(), "é\nxy é z".into());
        assert_eq!(sources.line_column("a", 0), Some((1, 1)));
        assert_eq!(sources.line_column("a", 9), Some((2, 6)));
        assert_eq!(sources.line_column("b", 0), None);
    }
}
