//! Streams that a pattern names: what a source has is found out once, by `subak discover`, and kept in a file beside the ingest file.
//!
//! `assets/bronze/app.yml` has its streams in `assets/bronze/app.lock`. The file belongs under version control: a project means the same
//! wherever it is loaded, and a table that is new at the source changes nothing until somebody says so.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};
use subak_domain::ConnectionName;

/// The version of the form.
const VERSION: u64 = 1;

/// A pattern of an ingest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPattern {
    /// The ingest file.
    pub path: String,
    /// The source.
    pub from: ConnectionName,
    /// The pattern: `public.*`, `orders_*`.
    pub include: String,
    /// Patterns of streams that it leaves out.
    pub exclude: Vec<String>,
}

impl StreamPattern {
    /// Whether it names a stream.
    pub fn names(&self, stream: &str) -> bool {
        is_match(&self.include, stream) && !self.exclude.iter().any(|exclude| is_match(exclude, stream))
    }
}

/// A stream that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStream {
    /// Its name at the source.
    pub name: String,
    /// Columns that identify a row; empty where the source names none.
    pub primary_key: Vec<String>,
    /// Columns and their types, in order; empty where the source does not know them.
    pub columns: Vec<(String, String)>,
}

/// A file of found streams that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLock(String);

impl fmt::Display for InvalidLock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for InvalidLock {}

/// The file in which the streams of an ingest file are kept.
pub fn lock_path(ingest_file: &str) -> String {
    format!("{}.lock", ingest_file.strip_suffix(".yml").unwrap_or(ingest_file))
}

/// Whether a name of a stream is a pattern.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// The name of a stream without its schema.
pub(crate) fn table_of(stream: &str) -> &str {
    stream.rsplit_once('.').map_or(stream, |(_, table)| table)
}

/// `*` stands for any letters, `?` for one. A pattern without a point names streams by what stands behind theirs.
fn is_match(pattern: &str, stream: &str) -> bool {
    let stream = if pattern.contains('.') { stream } else { table_of(stream) };
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), stream.chars().collect());
    // The last star, and how much of the text it took.
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[place] => {
                at += 1;
                place += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    at = star_at + 1;
                    place = taken + 1;
                    star = Some((star_at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

/// What was found at one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundAt {
    /// The patterns that were looked for: what they name, and what they leave out.
    pub patterns: Vec<(String, Vec<String>)>,
    /// The streams, in the order of their names.
    pub streams: Vec<FoundStream>,
}

impl FoundAt {
    /// Whether a pattern is one that was looked for.
    pub(crate) fn knows(&self, pattern: &StreamPattern) -> bool {
        self.patterns.iter().any(|(include, exclude)| *include == pattern.include && *exclude == pattern.exclude)
    }
}

/// What was found, by source.
pub type Lock = BTreeMap<String, FoundAt>;

/// The text of a file of found streams.
pub fn write_lock(lock: &Lock) -> String {
    let stream = |stream: &FoundStream| {
        let columns: serde_json::Map<String, Value> =
            stream.columns.iter().map(|(name, data_type)| (name.clone(), json!(data_type))).collect();
        json!({ "name": stream.name, "primary_key": stream.primary_key, "columns": columns })
    };
    let source = |(name, found): (&String, &FoundAt)| {
        let patterns: Vec<Value> =
            found.patterns.iter().map(|(include, exclude)| json!({ "include": include, "exclude": exclude })).collect();
        let streams: Vec<Value> = found.streams.iter().map(stream).collect();
        (name.clone(), json!({ "patterns": patterns, "streams": streams }))
    };
    let sources: serde_json::Map<String, Value> = lock.iter().map(source).collect();
    format!("{:#}\n", json!({ "version": VERSION, "sources": sources }))
}

/// Reads a file of found streams.
pub fn read_lock(text: &str) -> Result<Lock, InvalidLock> {
    let wrong = |what: &str| InvalidLock(what.to_owned());
    let value: Value = serde_json::from_str(text).map_err(|error| InvalidLock(error.to_string()))?;
    if value["version"] != json!(VERSION) {
        return Err(wrong("it was written by another version of Subak"));
    }
    let sources = value["sources"].as_object().ok_or_else(|| wrong("it has no mapping `sources`"))?;
    let source = |(name, value): (&String, &Value)| Some((name.clone(), found_at(value)?));
    sources.iter().map(|entry| source(entry).ok_or_else(|| wrong("one of its sources is not complete"))).collect()
}

fn found_at(value: &Value) -> Option<FoundAt> {
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let pattern = |value: &Value| Some((value["include"].as_str()?.to_owned(), texts(&value["exclude"])?));
    let stream = |value: &Value| -> Option<FoundStream> {
        let columns = value["columns"].as_object()?.iter();
        Some(FoundStream {
            name: value["name"].as_str()?.to_owned(),
            primary_key: texts(&value["primary_key"])?,
            columns: columns
                .map(|(name, data_type)| Some((name.clone(), data_type.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
        })
    };
    Some(FoundAt {
        patterns: value["patterns"].as_array()?.iter().map(pattern).collect::<Option<_>>()?,
        streams: value["streams"].as_array()?.iter().map(stream).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_streams() {
        for (pattern, stream, expect) in [
            ("public.*", "public.orders", true),
            ("public.*", "private.orders", false),
            ("orders_*", "public.orders_2024", true),
            ("orders_*", "orders", false),
            ("*", "a.b", true),
            ("*.or?er*", "x.orders", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "ü", true),
        ] {
            assert_eq!(is_match(pattern, stream), expect, "{pattern} {stream}");
        }
    }

    #[test]
    fn files_of_found_streams_read_back() {
        let stream = |name: &str| FoundStream {
            name: name.to_owned(),
            primary_key: vec!["b".to_owned(), "a".to_owned()],
            columns: vec![("b".to_owned(), "bigint".to_owned()), ("a".to_owned(), "text".to_owned())],
        };
        let found = FoundAt { patterns: vec![("*".to_owned(), vec!["x_*".to_owned()])], streams: vec![stream("x"), stream("y")] };
        let lock = Lock::from([("app".to_owned(), found)]);
        assert_eq!(read_lock(&write_lock(&lock)), Ok(lock));
        assert!(read_lock("{\"version\": 2}").is_err());
        assert!(read_lock("{\"version\": 1, \"sources\": {\"app\": {}}}").is_err());
    }
}
