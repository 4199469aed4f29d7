//! Lines of a log that say something, found on the server: a log may be longer than a browser wants to read.

use std::fs::File;
use std::io::{BufRead, BufReader};

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use subak_domain::Permission;
use subak_server::{Access, Call, Endpoint, Problem};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::runs::log_asked;

/// Lines of an answer.
const LINE_COUNT_MAX: usize = 5_000;
const LINE_COUNT: usize = 1_000;

/// Bytes of a text that is looked for.
const TEXT_LENGTH_MAX: usize = 1_000;

/// Bytes of a line that are told.
const LINE_LENGTH_MAX: usize = 8 * 1024;

/// Words by which lines say that something is wrong, and that something may be.
const ERRORS: [&str; 6] = ["error", "exception", "traceback", "fatal", "panicked", "critical"];
const WARNINGS: [&str; 2] = ["warn", "deprecated"];

/// Which lines of which log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct LinesQuery {
    /// The step.
    pub(super) step: String,
    /// The attempt; by default the last one.
    pub(super) attempt: Option<u32>,
    /// Only lines that say this, in letters of either case.
    #[serde(default, deserialize_with = "short")]
    q: Option<String>,
    /// `error`, or `warning` for both.
    level: Option<String>,
    /// Only lines from this number on, counted from 1.
    from_line: Option<u64>,
    /// Only lines from this byte on.
    from: Option<u64>,
    /// How many, at most 5,000; by default 1,000.
    limit: Option<usize>,
}

/// A text that can be looked for.
fn short<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    match text {
        Some(text) if text.len() > TEXT_LENGTH_MAX => {
            Err(serde::de::Error::custom(format_args!("`q` has more than {TEXT_LENGTH_MAX} bytes")))
        }
        text => Ok(text),
    }
}

/// A line of a log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineView {
    /// Its number, counted from 1.
    number: u64,
    /// The byte at which it begins.
    offset: u64,
    /// The line, up to 8 KiB of it.
    text: String,
}

/// Lines of a log that were asked for.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct LinesView {
    /// The lines, in order.
    lines: Vec<LineView>,
    /// How many there are like that, those that are not told included.
    matched: u64,
    /// How many lines the log has.
    total: u64,
    /// Bytes of the log.
    bytes: u64,
    /// Whether more may come.
    is_open: bool,
}

/// What a line has to say.
struct Wanted {
    text: Option<Regex>,
    words: Option<Regex>,
    from_line: u64,
    from: u64,
}

/// Finds any of these texts, in letters of either case; `None` where there are none, or where they are more than can be looked for.
fn any_of(texts: &[&str]) -> Option<Regex> {
    let texts: Vec<String> = texts.iter().filter(|text| !text.is_empty()).map(|text| regex::escape(text)).collect();
    let pattern = (!texts.is_empty()).then(|| texts.join("|"))?;
    RegexBuilder::new(&pattern).case_insensitive(true).build().ok()
}

impl Wanted {
    fn fits(&self, number: u64, offset: u64, line: &[u8]) -> bool {
        number >= self.from_line
            && offset >= self.from
            && self.text.as_ref().is_none_or(|text| text.is_match(line))
            && self.words.as_ref().is_none_or(|words| words.is_match(line))
    }
}

/// A line as it would stand on a terminal: what a progress bar wrote over itself is one.
fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
    let cut = &line[..line.len().min(LINE_LENGTH_MAX)];
    let text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < line.len() { format!("{text}…") } else { text }
}

fn read(mut log: impl BufRead, wanted: &Wanted, limit: usize) -> std::io::Result<LinesView> {
    let (mut found, mut line, mut offset) = (LinesView::default(), Vec::new(), 0);
    loop {
        line.clear();
        let length = log.read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            found.bytes = offset;
            return Ok(found);
        }
        found.total += 1;
        if wanted.fits(found.total, offset, &line) {
            found.matched += 1;
            if found.lines.len() < limit {
                found.lines.push(LineView { number: found.total, offset, text: shown(&line) });
            }
        }
        offset += length;
    }
}

fn lines(api: &Api, call: &Call, query: LinesQuery) -> Result<LinesView, Problem> {
    let words = match query.level.as_deref() {
        None | Some("") => Vec::new(),
        Some("error") => ERRORS.to_vec(),
        Some("warning") => ERRORS.into_iter().chain(WARNINGS).collect(),
        Some(other) => return Err(Problem::invalid(format!("`{other}` is no level"), "it is `error` or `warning`")),
    };
    let asked = log_asked(api, call, &query.step, query.attempt)?;
    let wanted = Wanted {
        text: any_of(&[query.q.as_deref().unwrap_or_default()]),
        words: any_of(&words),
        from_line: query.from_line.unwrap_or(0),
        from: query.from.unwrap_or(0),
    };
    let limit = query.limit.unwrap_or(LINE_COUNT).clamp(1, LINE_COUNT_MAX);
    // A program that wrote nothing has none.
    let read = File::open(&asked.path).and_then(|file| read(BufReader::with_capacity(1 << 20, file), &wanted, limit));
    Ok(LinesView { is_open: asked.is_open, ..read.unwrap_or_default() })
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![Endpoint::read(
        "/api/v1/runs/{run}/log/lines",
        Access::May(Permission::Logs),
        "Lines of a log that say something, with their numbers, and how many there are.",
        lines,
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_what_they_say() {
        let log = "begin\nloading 1%\rloading 100%\nValueError: no\nWARNING: old\r\nend";
        let all = |text: &str, words: &[&'static str], from_line, from| {
            let wanted = Wanted { text: any_of(&[text]), words: any_of(words), from_line, from };
            let found = read(log.as_bytes(), &wanted, 2).expect("read");
            let lines: Vec<String> =
                found.lines.iter().map(|line| format!("{} {} {}", line.number, line.offset, line.text)).collect();
            assert_eq!((found.total, found.bytes), (5, log.len() as u64));
            (lines, found.matched)
        };
        assert_eq!(all("", &[], 0, 0), (vec!["1 0 begin".to_owned(), "2 6 loading 100%".to_owned()], 5));
        assert_eq!(all("VALUE", &[], 0, 0), (vec!["3 30 ValueError: no".to_owned()], 1));
        assert_eq!(all("", &ERRORS, 0, 0).1, 1);
        assert_eq!(all("", &["error", "warn"], 0, 0).0[1], "4 45 WARNING: old");
        assert_eq!(all("", &[], 5, 0).0, ["5 59 end"]);
        assert_eq!(all("", &[], 0, 40).0[0], "4 45 WARNING: old");
        let long = shown("x".repeat(LINE_LENGTH_MAX + 5).as_bytes());
        assert_eq!(long.chars().count(), LINE_LENGTH_MAX + 1);
    }
}
