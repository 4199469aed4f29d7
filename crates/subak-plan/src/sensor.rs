//! What is new: from what a sensor remembers and what it sees now, to the runs that it asks for and what it remembers next.
//!
//! What is remembered (the cursor) is JSON whose form belongs to the kind of watch; it is committed with the runs, so a crash between two looks
//! neither loses nor doubles one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};
use subak_domain::sensor::{FoundFile, LogItem, Look, RunRequest, WatchCursor};
use subak_domain::{Timestamp, Version, compare_decimals};

/// Runs that one look asks for at most; what is left comes with the next look.
pub const REQUEST_COUNT_MAX: usize = 100;

/// What one look may see at most: files, rows, items of an answer.
pub const SEEN_COUNT_MAX: usize = 10_000;

/// What a sensor found that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SensorError {
    /// A row without the cursor column, or without a value in it.
    #[error("a row of the query has no `{0}`, which is the cursor")]
    NoCursor(String),
    /// Something that is no answer of a sensor's program.
    #[error("{0}")]
    Answer(String),
}

/// A short name for something that was seen.
fn mark(value: &Value) -> String {
    Version::of(&[("item", &value.to_string())]).to_string()
}

/// One request for each item, or one for all of them.
fn requests(items: Vec<(String, Value)>, is_per_item: bool) -> Vec<RunRequest> {
    let request = |key: String, items: Vec<Value>| RunRequest { key, items, set: BTreeMap::new(), partition: None };
    if is_per_item {
        return items.into_iter().map(|(key, item)| request(key, vec![item])).collect();
    }
    if items.is_empty() {
        return Vec::new();
    }
    let keys: Vec<Value> = items.iter().map(|(key, _)| Value::from(key.as_str())).collect();
    vec![request(mark(&Value::from(keys)), items.into_iter().map(|(_, item)| item).collect())]
}

/// How many new items one look takes: what is behind them comes with the next one.
fn taken(is_per_item: bool) -> usize {
    if is_per_item { REQUEST_COUNT_MAX } else { usize::MAX }
}

/// Files that have come: each counts once it has stayed the same for `settle`, and again when its content is another. Hidden ones, in which
/// programs write what is under way, do not count.
///
/// Cursor: `known`, the marks of files by path that have had their run; `pending`, those of files that may still grow, with the time in microseconds
/// at which they were seen so first.
pub fn files(cursor: &Value, found: &[FoundFile], settle: Duration, is_per_item: bool, now: Timestamp) -> Look {
    let marks = |name: &str| cursor.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (known_before, pending_before) = (marks("known"), marks("pending"));
    let (mut known, mut pending, mut ready) = (Map::new(), Map::new(), Vec::new());
    let settle_us = i64::try_from(settle.as_micros()).unwrap_or(i64::MAX);
    let mut again_us: Option<i64> = None;
    let is_hidden = |path: &str| path.split('/').any(|part| part.starts_with('.') && part != "." && part != "..");
    for file in found.iter().filter(|file| !is_hidden(&file.path)) {
        let mark = Value::from(format!("{}-{}", file.bytes, file.modified_at));
        if known_before.get(&file.path) == Some(&mark) {
            known.insert(file.path.clone(), mark);
            continue;
        }
        if let Some(old) = known_before.get(&file.path) {
            // Until the other content has its run.
            known.insert(file.path.clone(), old.clone());
        }
        let seen =
            pending_before.get(&file.path).filter(|seen| seen.get(0) == Some(&mark)).and_then(|seen| seen.get(1)?.as_i64());
        let since = seen.unwrap_or_else(|| now.as_microsecond()).min(now.as_microsecond());
        let left = settle_us.saturating_sub(now.as_microsecond() - since);
        if left <= 0 && ready.len() < taken(is_per_item) {
            let name = file.path.rsplit('/').next().unwrap_or(&file.path);
            let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
            let modified_at = Timestamp::from_microsecond(file.modified_at).unwrap_or_default();
            let item = json!({
                "path": file.path, "name": name, "stem": stem, "bytes": file.bytes,
                "modified_at": modified_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            });
            ready.push((format!("{} {}", file.path, mark.as_str().unwrap_or_default()), item));
            known.insert(file.path.clone(), mark);
        } else {
            let left = left.max(0);
            again_us = Some(again_us.map_or(left, |again| again.min(left)));
            pending.insert(file.path.clone(), json!([mark, since]));
        }
    }
    let note = match (ready.is_empty(), pending.len()) {
        (false, _) => None,
        (true, 0) => Some("no new files".to_owned()),
        (true, count) => Some(format!("{count} files may still grow")),
    };
    Look {
        cursor: json!({ "known": known, "pending": pending }),
        requests: requests(ready, is_per_item),
        partitions: Vec::new(),
        note,
        again_after: again_us.map(|micros| Duration::from_micros(micros.unsigned_abs())),
    }
}

/// Numbers by their size, also those that come as texts because they have more digits than others; times by their moment; anything else by its text.
fn compare(one: &Value, other: &Value) -> Ordering {
    match (one.as_i64(), other.as_i64(), one.as_f64(), other.as_f64()) {
        (Some(one), Some(other), ..) => one.cmp(&other),
        (.., Some(one), Some(other)) => one.total_cmp(&other),
        _ => {
            let (one, other) = (text_of(one), text_of(other));
            let is_number = |text: &str| {
                let digits = text.strip_prefix('-').unwrap_or(text);
                digits.starts_with(|letter: char| letter.is_ascii_digit())
                    && digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
            };
            if is_number(&one) && is_number(&other) {
                return compare_decimals(&one, &other);
            }
            // A fraction of a second has no zeros at its end, and `Z` comes behind digits.
            one.trim_end_matches('Z').cmp(other.trim_end_matches('Z'))
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What a query begins with: the value that it has read to.
pub fn cursor_value(cursor: &Value, rule: &WatchCursor) -> Value {
    cursor.get("value").cloned().unwrap_or_else(|| rule.from.clone())
}

/// Rows of a query that reads from a cursor on. Rows at the cursor that were seen are seen, so that a query may ask for `>=`, and rows that share
/// a value are never lost.
///
/// Cursor: `value`, the highest one that had its run; `at`, marks of the rows that have it.
pub fn rows(cursor: &Value, rows: Vec<Value>, rule: &WatchCursor, is_per_item: bool) -> Result<Look, SensorError> {
    let from = cursor_value(cursor, rule);
    let seen: BTreeSet<&str> =
        cursor.get("at").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut new = Vec::new();
    for row in rows {
        let value = row.get(&rule.column).filter(|value| !value.is_null()).cloned();
        let value = value.ok_or_else(|| SensorError::NoCursor(rule.column.clone()))?;
        let mark = mark(&row);
        let is_new = match compare(&value, &from) {
            Ordering::Greater => true,
            Ordering::Equal => !seen.contains(mark.as_str()),
            Ordering::Less => false,
        };
        if is_new {
            new.push((value, mark, row));
        }
    }
    new.sort_by(|(one, ..), (other, ..)| compare(one, other));
    new.dedup_by(|(.., one, _), (.., other, _)| one == other);
    // Rows that share a value stay together.
    let count = new.len().min(taken(is_per_item));
    let end = new.get(count).map_or(new.len(), |(next, ..)| new.partition_point(|(value, ..)| compare(value, next).is_lt()));
    let has_more = end > 0 && end < new.len();
    if end > 0 {
        new.truncate(end);
    }
    let Some((highest, ..)) = new.last() else {
        let unchanged = if cursor.is_null() { json!({ "value": from, "at": [] }) } else { cursor.clone() };
        return Ok(Look::nothing(unchanged, "no new rows"));
    };
    let highest = highest.clone();
    let mut at: Vec<Value> =
        new.iter().filter(|(value, ..)| compare(value, &highest).is_eq()).map(|(_, mark, _)| json!(mark)).collect();
    if compare(&highest, &from).is_eq() {
        at.extend(seen.into_iter().map(Value::from));
    }
    let items = new.into_iter().map(|(_, mark, row)| (mark, row)).collect();
    Ok(Look {
        cursor: json!({ "value": highest, "at": at }),
        requests: requests(items, is_per_item),
        partitions: Vec::new(),
        note: None,
        again_after: has_more.then_some(Duration::ZERO),
    })
}

/// An answer that is a list: items that were not there at the last look are new. Any other answer is new when it is another one. The first look
/// only remembers.
///
/// Cursor: `seen`, marks of the items; `count`, which rises with each look that finds something new, from the time of the first one in microseconds:
/// it keeps the keys of runs apart, also those of a sensor that was there before under the same name.
pub fn answer(cursor: &Value, value: &Value, is_per_item: bool, now: Timestamp) -> Look {
    let one = [value.clone()];
    let items: &[Value] = value.as_array().map_or(&one, Vec::as_slice);
    let marks: Vec<String> = items.iter().map(mark).collect();
    let count = cursor.get("count").and_then(Value::as_i64).unwrap_or_else(|| now.as_microsecond());
    let remembered = |marks: Vec<String>, count: i64| json!({ "seen": marks, "count": count });
    let Some(seen) = cursor.get("seen").and_then(Value::as_array) else {
        return Look::nothing(remembered(marks, count), "the first look: what is there now is not new");
    };
    let before: BTreeSet<&str> = seen.iter().filter_map(Value::as_str).collect();
    let mut new: Vec<(String, Value)> = Vec::new();
    let mut left = BTreeSet::new();
    for (mark, item) in marks.iter().zip(items).filter(|(mark, _)| !before.contains(mark.as_str())) {
        if new.len() < taken(is_per_item) {
            // Something that was there, went, and comes again is new again.
            new.push((format!("{} {mark}", count + 1), item.clone()));
        } else {
            left.insert(mark.clone());
        }
    }
    let marks: Vec<String> = marks.into_iter().filter(|mark| !left.contains(mark)).collect();
    if new.is_empty() {
        return Look::nothing(remembered(marks, count), "nothing new in the answer");
    }
    let again_after = (!left.is_empty()).then_some(Duration::ZERO);
    Look {
        cursor: remembered(marks, count + 1),
        requests: requests(new, is_per_item),
        partitions: Vec::new(),
        note: None,
        again_after,
    }
}

/// Where a sensor of the log begins that has not looked yet: now, not at what happened before it was there.
pub fn log_start(newest: u64) -> Look {
    Look::nothing(json!({ "position": newest }), "the first look: what happened before does not count")
}

/// How far a sensor has read the log; `None` before its first look.
pub fn log_position(cursor: &Value) -> Option<u64> {
    cursor.get("position").and_then(Value::as_u64)
}

/// What happened in the log since the last look, oldest first, up to a position. With `all`, there is a run once each of those names has come up
/// since the last one.
///
/// Cursor: `position`, how far the log was read; `waiting`, what came up since the last run, by name, where all names are waited for.
pub fn log(cursor: &Value, found: Vec<LogItem>, read_to: u64, all: Option<&[String]>, is_per_item: bool) -> Look {
    let Some(all) = all else {
        let is_cut = found.len() > taken(is_per_item);
        let taken: Vec<LogItem> = found.into_iter().take(taken(is_per_item)).collect();
        let position = if is_cut { taken.last().map_or(read_to, |item| item.position) } else { read_to };
        let items: Vec<(String, Value)> = taken.into_iter().map(|item| (item.position.to_string(), item.value)).collect();
        let note = items.is_empty().then(|| "nothing happened".to_owned());
        return Look {
            cursor: json!({ "position": position }),
            requests: requests(items, is_per_item),
            partitions: Vec::new(),
            note,
            again_after: is_cut.then_some(Duration::ZERO),
        };
    };
    let mut waiting = cursor.get("waiting").and_then(Value::as_object).cloned().unwrap_or_default();
    waiting.retain(|name, _| all.contains(name));
    for item in found {
        waiting.insert(item.name, json!({ "position": item.position, "item": item.value }));
    }
    let missing: Vec<&str> = all.iter().filter(|name| !waiting.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let note = format!("waits for {}", missing.join(", "));
        return Look::nothing(json!({ "position": read_to, "waiting": waiting }), &note);
    }
    let key: Vec<String> = waiting.values().map(|entry| entry["position"].to_string()).collect();
    let items = all.iter().filter_map(|name| waiting.get(name)?.get("item").cloned()).collect();
    Look {
        cursor: json!({ "position": read_to }),
        requests: vec![RunRequest { key: key.join(" "), items, set: BTreeMap::new(), partition: None }],
        partitions: Vec::new(),
        note: None,
        again_after: None,
    }
}

/// What a program of a sensor said: nothing, or an object with `cursor`, `runs` (each with `key`, `item`, `set`, `partition`), `partitions` (keys by
/// the name of their set) and `skip`, the reason why there is nothing. Without `cursor` the old one stays.
pub fn program(cursor: &Value, said: &Value) -> Result<Look, SensorError> {
    let wrong = |what: &str| SensorError::Answer(format!("the program's value {what}"));
    let entries = match said {
        Value::Null => return Ok(Look::nothing(cursor.clone(), "the program says nothing")),
        Value::Object(entries) => entries,
        _ => return Err(wrong("must be an object with `cursor`, `runs`, `partitions` or `skip`")),
    };
    if let Some(unknown) = entries.keys().find(|name| !["cursor", "runs", "partitions", "skip"].contains(&name.as_str())) {
        return Err(wrong(&format!("knows `cursor`, `runs`, `partitions` and `skip`, and no `{unknown}`")));
    }
    let mut asked = Vec::new();
    let runs = entries
        .get("runs")
        .map_or(Ok(&[][..]), |runs| runs.as_array().map(Vec::as_slice).ok_or_else(|| wrong("has `runs` that are no list")))?;
    if runs.len() > REQUEST_COUNT_MAX {
        return Err(wrong(&format!(
            "has {} runs, and {REQUEST_COUNT_MAX} are the most of one look; hand the rest on with the cursor",
            runs.len()
        )));
    }
    for run in runs {
        let key = run.get("key").filter(|key| !key.is_null()).map(text_of);
        let key = key.ok_or_else(|| wrong("has a run without a `key`, the name by which it is known to have been started"))?;
        let set = match run.get("set") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(set)) => set.clone().into_iter().collect(),
            Some(_) => return Err(wrong("has a run whose `set` is no object")),
        };
        let partition = run.get("partition").filter(|key| !key.is_null()).map(text_of);
        asked.push(RunRequest { key, items: vec![run.get("item").unwrap_or(run).clone()], set, partition });
    }
    let mut partitions = Vec::new();
    let sets = match entries.get("partitions") {
        None | Some(Value::Null) => None,
        Some(Value::Object(sets)) => Some(sets),
        Some(_) => return Err(wrong("has `partitions` that are no object of lists")),
    };
    for (name, keys) in sets.into_iter().flatten() {
        let keys = keys.as_array().ok_or_else(|| wrong("has `partitions` that are no lists of keys"))?;
        partitions.extend(keys.iter().map(|key| (name.clone(), text_of(key))));
    }
    let note = asked.is_empty().then(|| entries.get("skip").map_or_else(|| "the program asks for no run".to_owned(), text_of));
    let cursor = entries.get("cursor").unwrap_or(cursor).clone();
    Ok(Look { cursor, requests: asked, partitions, note, again_after: None })
}

#[cfg(test)]
mod tests;
