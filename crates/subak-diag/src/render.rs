//! The two renderings. Both say the same; the text form is for people, the JSON form is versioned for programs.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::{Diagnostic, Label, Severity, Sources};

/// Widest line of a code frame, in columns; longer lines are cut around the mark.
const WIDTH_MAX: usize = 140;

/// Renders for a terminal. With `is_styled` the text carries ANSI colours; without, it holds no escape codes. Ends with a line
/// break.
pub fn to_text(diagnostic: &Diagnostic, sources: &Sources, is_styled: bool) -> String {
    let renderer = if is_styled { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.term_width(WIDTH_MAX).render(&[group(diagnostic, sources)]);
    text.push('\n');
    for label in diagnostic.labels.iter().filter(|label| sources.get(&label.path).is_none()) {
        text.push_str(&format!("  --> {}\n", label.path));
    }
    for cause in &diagnostic.causes {
        push_field(&mut text, "  caused by", cause, is_styled);
    }
    if let Some(data) = &diagnostic.data {
        push_field(&mut text, "  data", data, is_styled);
    }
    for help in &diagnostic.help {
        push_field(&mut text, "help", help, is_styled);
    }
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.id));
    for (at, label) in diagnostic.labels.iter().enumerate() {
        if let Some(text) = sources.get(&label.path) {
            group = group.element(snippet(label, text, at == 0));
        }
    }
    group
}

fn snippet<'a>(label: &'a Label, text: &'a str, is_main: bool) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let kind = if is_main { AnnotationKind::Primary } else { AnnotationKind::Context };
    let start = crate::floor_char_boundary(text, label.span.start);
    // A mark over several lines shows its first line only: the place matters, not the extent.
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = crate::floor_char_boundary(text, label.span.end.clamp(start, line_end));
    let mut annotation = kind.span(start..end);
    if !label.text.is_empty() {
        annotation = annotation.label(label.text.as_str());
    }
    Snippet::source(text).path(&*label.path).annotation(annotation)
}

fn push_field(text: &mut String, name: &str, value: &str, is_styled: bool) {
    let (bold, plain) = if is_styled { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
    let value = value.trim_end().replace('\n', "\n    ");
    text.push_str(&format!("{bold}{name}:{plain} {value}\n"));
}

/// Renders for programs: `code`, `severity`, `message`, `labels` (with `path`, `line`, `column`, `text`), `causes`, `data`,
/// `help`. Lines and columns count from 1.
pub fn to_json(diagnostic: &Diagnostic, sources: &Sources) -> Value {
    let labels: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|label| {
            let place = sources.line_column(&label.path, label.span.start);
            json!({
                "path": &*label.path,
                "line": place.map(|(line, _)| line),
                "column": place.map(|(_, column)| column),
                "text": label.text,
            })
        })
        .collect();
    json!({
        "code": diagnostic.code.id,
        "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": diagnostic.message,
        "labels": labels,
        "causes": diagnostic.causes,
        "data": diagnostic.data,
        "help": diagnostic.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    fn example() -> (Diagnostic, Sources) {
        let mut sources = Sources::default();
        let path: std::sync::Arc<str> = "assets/gold/daily.sql".into();
        let text = "select 1\nfrom silver.order_lines\n";
        sources.insert(path.clone(), text.into());
        let diagnostic =
            Diagnostic::error(codes::UNKNOWN_UPSTREAM, "asset `gold.daily` reads `silver.order_lines`, which no file declares")
                .at(&path, 14..32, "not declared")
                .help("did you mean `silver.order_items`?");
        (diagnostic, sources)
    }

    #[test]
    fn text_has_the_frame() {
        let (diagnostic, sources) = example();
        let text = to_text(&diagnostic, &sources, false);
        let expected = "error[SBK0104]: asset `gold.daily` reads `silver.order_lines`, which no file declares\n \
                        --> assets/gold/daily.sql:2:6\n  |\n2 | from silver.order_lines\n  |      ^^^^^^^^^^^^^^^^^^ not declared\n\
                        help: did you mean `silver.order_items`?\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_line_and_column() {
        let (diagnostic, sources) = example();
        let value = to_json(&diagnostic, &sources);
        assert_eq!((value["labels"][0]["line"].as_u64(), value["labels"][0]["column"].as_u64()), (Some(2), Some(6)));
    }

    #[test]
    fn a_mark_past_the_end_does_not_panic() {
        let (mut diagnostic, sources) = example();
        diagnostic.labels[0].span = 500..900;
        assert!(to_text(&diagnostic, &sources, true).contains("SBK0104"));
    }
}
