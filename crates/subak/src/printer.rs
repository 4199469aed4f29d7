//! The one place that prints. Results go to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

use serde_json::{Map, Value, json};
use subak_diag::{Diagnostic, Sources};

use crate::args::{Color, Format, Global};

/// Problems that are shown without `--all`.
const PROBLEM_COUNT_SHOWN: usize = 20;

/// Version of the JSON output.
const OUTPUT_VERSION: u32 = 1;

/// What is printed how.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about two streams, set in one place")]
pub(crate) struct Printer {
    pub(crate) format: Format,
    is_out_styled: bool,
    is_err_styled: bool,
    shows_all: bool,
    pub(crate) is_quiet: bool,
    /// Whether progress can be drawn.
    pub(crate) is_live: bool,
}

/// Styles for a few words.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Bad,
    Warn,
    Dim,
    Strong,
}

/// What the environment says about colours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ColorHints {
    pub(crate) no_color: bool,
    pub(crate) force: bool,
    pub(crate) dumb: bool,
}

impl Printer {
    /// One that says only what is asked for.
    pub(crate) fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    pub(crate) fn new(global: &Global, hints: ColorHints) -> Self {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let styled = |is_terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => hints.force || (is_terminal && !hints.no_color && !hints.dumb),
        };
        Self {
            format: global.output,
            is_out_styled: styled(out),
            is_err_styled: styled(err),
            shows_all: global.all,
            is_quiet: global.quiet,
            is_live: err && !global.quiet && !hints.dumb,
        }
    }

    /// Prints a line of results. A closed pipe ends the process quietly, as it does for `cat`.
    pub(crate) fn out(&self, line: &str) {
        write_or_exit(&mut std::io::stdout().lock(), line);
    }

    /// Prints a line for people.
    pub(crate) fn note(&self, line: &str) {
        if !self.is_quiet {
            self.say(line);
        }
    }

    /// Prints a line for people, `--quiet` or not.
    pub(crate) fn say(&self, line: &str) {
        drop(writeln!(std::io::stderr().lock(), "{line}"));
    }

    /// Styles a few words on standard output.
    pub(crate) fn tone(&self, tone: Tone, text: &str) -> String {
        style(self.is_out_styled, tone, text)
    }

    /// Styles a few words on standard error.
    pub(crate) fn err_tone(&self, tone: Tone, text: &str) -> String {
        style(self.is_err_styled, tone, text)
    }

    /// Prints problems: the first 20, or all. As JSON when results are JSON.
    pub(crate) fn problems(&self, problems: &[Diagnostic], sources: &Sources) {
        let shown = if self.shows_all { problems.len() } else { problems.len().min(PROBLEM_COUNT_SHOWN) };
        for problem in &problems[..shown] {
            match self.format {
                Format::Json | Format::Jsonl => self.say(&subak_diag::to_json(problem, sources).to_string()),
                Format::Human | Format::Csv => self.say(&subak_diag::to_text(problem, sources, self.is_err_styled)),
            }
        }
        if shown < problems.len() {
            self.say(&format!("{} more problems; `--all` shows them", problems.len() - shown));
        }
    }

    /// Whether people read what is printed.
    pub(crate) fn is_human(&self) -> bool {
        matches!(self.format, Format::Human)
    }

    /// Prints a table of results.
    pub(crate) fn table(&self, table: &Table) {
        match self.format {
            Format::Human => self.human(table),
            Format::Json => {
                let rows: Vec<Value> = table.rows.iter().map(|row| table.object(row)).collect();
                self.out(&format!("{:#}", json!({ "version": OUTPUT_VERSION, "kind": table.kind, "rows": rows })));
            }
            Format::Jsonl => {
                for row in &table.rows {
                    self.out(&table.object(row).to_string());
                }
            }
            Format::Csv => {
                self.out(&table.columns.iter().map(|name| csv_field(name)).collect::<Vec<_>>().join(","));
                for row in &table.rows {
                    self.out(&row.iter().map(csv_value).collect::<Vec<_>>().join(","));
                }
            }
        }
    }

    fn human(&self, table: &Table) {
        if table.columns.is_empty() {
            return;
        }
        let mut drawn = comfy_table::Table::new();
        drawn.load_style(comfy_table::presets::NOTHING);
        drawn.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        drawn.set_header(table.columns.iter().map(|name| name.replace('_', " ").to_uppercase()));
        for row in &table.rows {
            // Values of a user's table are shown as they are: a year is no count.
            drawn.add_row(row.iter().map(|value| if table.kind == "rows" { plain_value(value) } else { human_value(value) }));
        }
        for (at, column) in drawn.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if table.rows.iter().all(|row| row[at].is_number() || row[at].is_null()) && !table.rows.is_empty() {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        for (at, line) in drawn.to_string().lines().enumerate() {
            let line = line.trim_end();
            self.out(&if at == 0 { self.tone(Tone::Dim, line) } else { line.to_owned() });
        }
    }

    /// Prints one object of results; `human` is the text for people.
    pub(crate) fn object(&self, kind: &str, value: &Value, human: &str) {
        match self.format {
            Format::Human => write_if_read(human.trim_end()),
            Format::Json | Format::Jsonl | Format::Csv => {
                let mut object =
                    Map::from_iter([("version".to_owned(), json!(OUTPUT_VERSION)), ("kind".to_owned(), json!(kind))]);
                object.extend(value.as_object().cloned().unwrap_or_default());
                let object = Value::Object(object);
                write_if_read(&if self.format == Format::Json { format!("{object:#}") } else { object.to_string() });
            }
        }
    }
}

/// Prints one result. When nobody reads it the command goes on to its end: its exit code still says how it went.
fn write_if_read(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

fn write_or_exit(output: &mut impl Write, line: &str) {
    if let Err(error) = writeln!(output, "{line}") {
        let code = if error.kind() == std::io::ErrorKind::BrokenPipe { 0 } else { 3 };
        if code != 0 {
            drop(writeln!(std::io::stderr(), "error[SBK0504]: output cannot be written\n  caused by: {error}"));
        }
        std::process::exit(code);
    }
}

fn style(is_styled: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        _ if !is_styled => return text.to_owned(),
        Tone::Good => "32",
        Tone::Bad => "31",
        Tone::Warn => "33",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Rows of results.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// What the rows are, for JSON.
    pub(crate) kind: &'static str,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Table {
    pub(crate) fn new(kind: &'static str, columns: &[&str]) -> Self {
        Self { kind, columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    fn object(&self, row: &[Value]) -> Value {
        Value::Object(self.columns.iter().cloned().zip(row.iter().cloned()).collect())
    }
}

fn plain_value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

fn human_value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), count),
        other => other.to_string(),
    }
}

/// Text without what would move the cursor or colour the terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn csv_value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => csv_field(text),
        other => csv_field(&other.to_string()),
    }
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// A count with separators: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with the thing that is counted: `1 row`, `2,000 rows`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Bytes in binary units: `12.3 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Milliseconds for people: `340 ms`, `12.3 s`, `4 min 05 s`, `1 h 04 min`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        _ if ms < 1000 => format!("{ms} ms"),
        0..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!((bytes(12), bytes(12_900_000)), ("12 B".into(), "12.3 MiB".into()));
        assert_eq!(
            (duration(340), duration(12_340), duration(245_000), duration(3_840_000)),
            ("340 ms".into(), "12.3 s".into(), "4 min 05 s".into(), "1 h 04 min".into())
        );
        assert_eq!(csv_field("a\"b,c"), "\"a\"\"b,c\"");
        assert_eq!(visible("a\u{1b}[31m"), "a\u{fffd}[31m");
    }
}
