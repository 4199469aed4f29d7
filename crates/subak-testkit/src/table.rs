//! Tables as texts: expected files in which nothing between commas is NULL and `""` is an empty text, and comparison by value.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// A header and rows; NULL is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// Reads a CSV file, plain or gzip.
    ///
    /// # Panics
    ///
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut text = String::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
        } else {
            text = String::from_utf8(bytes).expect("UTF-8");
        }
        let mut rows = parse(text.trim_start_matches('\u{feff}'));
        let header = if rows.is_empty() { Vec::new() } else { rows.remove(0) };
        Self { header: header.into_iter().map(Option::unwrap_or_default).collect(), rows }
    }

    /// What differs from `expected`, as multisets of rows by value: numbers as numbers, times with or without `T`. `Ok` when nothing.
    pub fn compare(&self, expected: &Self) -> Result<(), String> {
        if self.header != expected.header {
            return Err(format!("columns {:?}, expected {:?}", self.header, expected.header));
        }
        let mut counts: BTreeMap<Vec<Option<String>>, i64> = BTreeMap::new();
        let canonical = |row: &[Option<String>]| row.iter().map(|value| value.as_deref().map(canonical)).collect::<Vec<_>>();
        for row in &self.rows {
            *counts.entry(canonical(row)).or_insert(0) += 1;
        }
        for row in &expected.rows {
            *counts.entry(canonical(row)).or_insert(0) -= 1;
        }
        let differing: Vec<_> = counts.iter().filter(|(_, count)| **count != 0).collect();
        if differing.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = differing
            .iter()
            .take(6)
            .map(|(row, count)| format!("{}: {row:?}", if **count > 0 { "extra" } else { "missing" }))
            .collect();
        let (found, wanted) = (self.rows.len(), expected.rows.len());
        Err(format!("{} rows differ ({found} found, {wanted} expected)\n{}", differing.len(), shown.join("\n")))
    }
}

fn parse(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    let mut rest = text;
    while !rest.is_empty() {
        let (value, after) = field(rest);
        row.push(value);
        rest = match after.strip_prefix(',') {
            Some("") => {
                row.push(None);
                ""
            }
            Some(more) => {
                if more.starts_with(['\n', '\r']) {
                    row.push(None);
                    rows.push(std::mem::take(&mut row));
                    more.trim_start_matches('\r').strip_prefix('\n').unwrap_or(more)
                } else {
                    more
                }
            }
            None => {
                rows.push(std::mem::take(&mut row));
                let after = after.strip_prefix('\r').unwrap_or(after);
                after.strip_prefix('\n').unwrap_or(after)
            }
        };
    }
    if !row.is_empty() {
        rows.push(row);
    }
    rows
}

fn field(text: &str) -> (Option<String>, &str) {
    let Some(mut inner) = text.strip_prefix('"') else {
        let end = text.find([',', '\n', '\r']).unwrap_or(text.len());
        return ((end > 0).then(|| text[..end].to_owned()), &text[end..]);
    };
    let mut value = String::new();
    loop {
        let at = inner.find('"').expect("a closing quote");
        value.push_str(&inner[..at]);
        inner = &inner[at + 1..];
        match inner.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                inner = more;
            }
            None => return (Some(value), inner),
        }
    }
}

/// A value in one spelling.
fn canonical(text: &str) -> String {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits(whole) && is_digits(fraction) && (whole.len() == 1 || !whole.starts_with('0')) {
        let fraction = fraction.trim_end_matches('0');
        let sign = if text.starts_with('-') && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
        return if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
    }
    let bytes = text.as_bytes();
    let is_time =
        bytes.len() >= 19 && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b' ' | b'T') && bytes[13] == b':';
    if is_time {
        let time = text.replace('T', " ");
        let time = if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.').to_owned() } else { time };
        return time.strip_suffix(" 00:00:00").map_or(time.clone(), str::to_owned);
    }
    match text {
        "t" => "true".to_owned(),
        "f" => "false".to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_nothing_differ() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            parse("a,b,c\n1,,\"\"\n\"x\"\"y\",\"1,2\",\n"),
            [vec![some("a"), some("b"), some("c")], vec![some("1"), None, some("")], vec![some("x\"y"), some("1,2"), None]]
        );
    }

    #[test]
    fn values_compare_by_value() {
        assert_eq!(canonical("1.50"), "1.5");
        assert_eq!(canonical("-0.00"), "0");
        assert_eq!(canonical("007"), "007");
        assert_eq!(canonical("2025-01-01T00:00:00"), canonical("2025-01-01"));
    }
}
