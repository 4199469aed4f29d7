//! Answers taken apart, and what follows a page.

use std::collections::{HashMap, HashSet};

use reqwest::Url;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use subak_connect::{ConnectError, ConnectErrorKind};

use super::call::{Answer, Call, beginning};
use super::options::{List, Paging, Path};

/// What stands at a path of a JSON text, as it stands there; `None` when nothing does.
pub(super) fn at_path<'t>(json: &'t str, path: &[String]) -> Option<&'t str> {
    let Some((key, rest)) = path.split_first() else { return Some(json.trim()) };
    let inner = if json.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        items.get(key.parse::<usize>().ok()?)?.get()
    } else {
        let fields: HashMap<String, &RawValue> = serde_json::from_str(json).ok()?;
        // A key may have points in itself, as `@odata.nextLink`.
        if let Some(value) = fields.get(&path.join(".")) {
            return Some(value.get());
        }
        fields.get(key)?.get()
    };
    at_path(inner, rest)
}

/// The text or number at a path, as a parameter has it. Nothing, `null`, `false` and an empty text are `None`.
pub(super) fn text_at(json: &str, path: &[String]) -> Option<String> {
    let value = at_path(json, path)?;
    match value.as_bytes().first()? {
        b'n' | b'f' => None,
        b'"' => serde_json::from_str::<String>(value).ok().filter(|text| !text.is_empty()),
        _ => Some(value.to_owned()),
    }
}

/// Whether there is something at a path that says more than nothing.
pub(super) fn is_something(json: &str, path: &[String]) -> Option<String> {
    let value = at_path(json, path)?;
    let is_nothing = matches!(value, "null" | "false" | "\"\"" | "0")
        || value.split_whitespace().collect::<String>() == "[]"
        || value.split_whitespace().collect::<String>() == "{}";
    (!is_nothing).then(|| beginning(value))
}

/// The records of an answer.
pub(super) fn records<'t>(answer: &'t str, list: &List, is_lines: bool, name: &str) -> Result<Vec<&'t str>, ConnectError> {
    let malformed = |what: String| ConnectError::new(ConnectErrorKind::Malformed, format!("the answer to {name} {what}"));
    if is_lines {
        return Ok(answer.lines().map(str::trim).filter(|line| !line.is_empty()).collect());
    }
    let whole: &RawValue = serde_json::from_str(answer)
        .map_err(|error| malformed("is no complete JSON".to_owned()).because(format!("{error}: {}", beginning(answer))))?;
    let keys = || -> Vec<String> {
        let fields: Option<HashMap<String, &RawValue>> = serde_json::from_str(whole.get()).ok();
        let mut keys: Vec<String> = fields.into_iter().flatten().map(|(key, _)| format!("`{key}`")).collect();
        keys.sort();
        keys
    };
    let found = match &list.records {
        None => Some(whole.get()),
        Some(path) => at_path(whole.get(), path),
    };
    let Some(found) = found else {
        let path = list.records.as_ref().map(|path| path.join(".")).unwrap_or_default();
        return Err(malformed(format!("has nothing at `{path}`"))
            .help(format!("correct `records:`; the answer has the keys {}", keys().join(", "))));
    };
    match found.trim_start().as_bytes().first() {
        Some(b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_str(found).map_err(|error| malformed("is no list".to_owned()).because(error))?;
            Ok(items.into_iter().map(RawValue::get).collect())
        }
        Some(b'n') => Ok(Vec::new()),
        Some(b'{') if list.records.as_ref().is_some_and(|path| !path.is_empty() || list.pages.paging == Paging::One) => {
            Ok(vec![found])
        }
        _ => {
            let help = format!("say with `records:` where the list of records is; the answer has the keys {}", keys().join(", "));
            Err(malformed("is no list".to_owned()).help(help))
        }
    }
}

/// Where the reading of a list stands.
pub(super) struct Pager<'a> {
    list: &'a List,
    name: &'a str,
    origin: String,
    fetched: u64,
    page: u64,
    count: u64,
    seen: HashSet<[u8; 32]>,
    /// The hash of the records of the last page.
    last: Option<[u8; 32]>,
    total: Option<u64>,
    /// What a person should know.
    pub(super) note: Option<String>,
}

impl<'a> Pager<'a> {
    /// The first request; parameters that the list has everywhere are in `call` already.
    pub(super) fn begin(list: &'a List, name: &'a str, call: &mut Call) -> Self {
        let pages = &list.pages;
        if let Some((param, size)) = &pages.size {
            set(call, param, &size.to_string(), pages.in_body);
        }
        let mut page = 0;
        match pages.paging {
            Paging::Offset(start) if start > 0 => set(call, &pages.param, &start.to_string(), pages.in_body),
            Paging::Page(start) => {
                page = start;
                set(call, &pages.param, &start.to_string(), pages.in_body);
            }
            _ => {}
        }
        let origin = call.url.origin().ascii_serialization();
        let mut pager =
            Self { list, name, origin, fetched: 0, page, count: 0, seen: HashSet::new(), last: None, total: None, note: None };
        pager.is_new(call);
        pager
    }

    fn is_new(&mut self, call: &Call) -> bool {
        let body = call.body.as_ref().map(Json::to_string).unwrap_or_default();
        self.seen.insert(*blake3::hash(format!("{}\n{body}", call.url).as_bytes()).as_bytes())
    }

    fn wrong(&self, what: &str) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Malformed, format!("stream `{}`: {what}", self.name))
    }

    /// Turns `call` into the request for the next page. `false` at the end.
    pub(super) fn advance(&mut self, call: &mut Call, answer: &Answer, records: &[&str]) -> Result<bool, ConnectError> {
        let pages = &self.list.pages;
        self.count += 1;
        self.fetched += records.len() as u64;
        if let Some(path) = &pages.total {
            let total = text_at(&answer.text, path).and_then(|text| text.parse::<u64>().ok());
            self.total = Some(
                total.ok_or_else(|| self.wrong(&format!("the answer has no number at `{}` (from `total:`)", path.join("."))))?,
            );
        }
        let is_last = match &pages.more {
            None => false,
            Some(path) => match at_path(&answer.text, path) {
                Some(more) => matches!(more, "false" | "null" | "0"),
                None => {
                    let what = format!("the answer has nothing at `{}` (from `more:`)", path.join("."));
                    return Err(self.wrong(&what).help("correct the path; without it nobody knows whether more follows"));
                }
            },
        };
        let counts = matches!(pages.paging, Paging::Offset(_) | Paging::Page(_));
        if counts && !records.is_empty() {
            let mut hasher = blake3::Hasher::new();
            for record in records {
                hasher.update(record.as_bytes());
            }
            let hash = *hasher.finalize().as_bytes();
            if self.last.replace(hash) == Some(hash) {
                let what = format!("the API gave the same page twice; does it know the parameter `{}`?", pages.param);
                return Err(self.wrong(&what).help("correct `pagination:`; nothing was loaded"));
            }
        }
        // A total may be capped, so only a page with nothing on it is the end.
        if is_last || (counts && records.is_empty()) || !self.follow(call, answer)? {
            return self.end().map(|()| false);
        }
        if self.count >= pages.count_max {
            let what = format!("there are more than {} pages", pages.count_max);
            return Err(self.wrong(&what).help("raise `page_count_max:`, or ask for larger pages; nothing was loaded"));
        }
        if !self.is_new(call) {
            let what = "the API leads back to a page that was read";
            return Err(self.wrong(what).help("correct `pagination:`, or tell whoever runs the API; nothing was loaded"));
        }
        Ok(true)
    }

    fn follow(&mut self, call: &mut Call, answer: &Answer) -> Result<bool, ConnectError> {
        let pages = &self.list.pages;
        match &pages.paging {
            Paging::One => return Ok(false),
            Paging::Offset(start) => set(call, &pages.param, &(start + self.fetched).to_string(), pages.in_body),
            Paging::Page(_) => {
                self.page += 1;
                set(call, &pages.param, &self.page.to_string(), pages.in_body);
            }
            Paging::Cursor(path) => match text_at(&answer.text, path) {
                // In a body it stays what it is: a text of digits is no number.
                Some(_) if pages.in_body => {
                    let next = at_path(&answer.text, path).and_then(|next| serde_json::from_str(next).ok());
                    set_body(call, &pages.param, next.unwrap_or(Json::Null));
                }
                Some(next) => set(call, &pages.param, &next, false),
                None => return Ok(self.is_missed(answer, path)),
            },
            Paging::Link => match &answer.link {
                Some(next) => self.go(call, next)?,
                None => return Ok(false),
            },
            Paging::NextUrl(path) => match text_at(&answer.text, path) {
                Some(next) => self.go(call, &next)?,
                None => return Ok(self.is_missed(answer, path)),
            },
        }
        Ok(true)
    }

    /// Nothing follows. Remembers whether the path is not there at all, on the first page: it may be a wrong one.
    fn is_missed(&mut self, answer: &Answer, path: &Path) -> bool {
        if self.count == 1 && at_path(&answer.text, path).is_none() {
            self.note = Some(format!(
                "the first answer has nothing at `{}` (from `next:`), so it counts as the only one",
                path.join(".")
            ));
        }
        false
    }

    fn go(&self, call: &mut Call, next: &str) -> Result<(), ConnectError> {
        let url = call.url.join(next).map_err(|error| self.wrong("the address of the next page is none").because(error))?;
        if url.origin().ascii_serialization() != self.origin {
            let what = format!("the next page is at {}, not at {}", url.origin().ascii_serialization(), self.origin);
            return Err(self
                .wrong(&what)
                .help("what signs requests in is not sent to other hosts; correct `url:` if that is the API"));
        }
        call.url = url;
        Ok(())
    }

    /// How many records were left out on purpose.
    fn start(&self) -> u64 {
        match self.list.pages.paging {
            Paging::Offset(start) => start,
            _ => 0,
        }
    }

    /// Everything came that was announced.
    fn end(&self) -> Result<(), ConnectError> {
        match self.total {
            Some(total) if self.fetched + self.start() < total => {
                let what = format!("the API has {total} records, and gave {}", self.fetched);
                Err(self.wrong(&what).help("it may stop at a number of pages, or the list changed meanwhile: ask for a part of it, or use `cursor` pages; nothing was loaded"))
            }
            _ => Ok(()),
        }
    }
}

/// Sets a parameter, in the place of one of its name.
pub(super) fn set(call: &mut Call, param: &str, value: &str, in_body: bool) {
    if in_body {
        return set_body(call, param, value.parse::<u64>().map_or_else(|_| Json::from(value), Json::from));
    }
    set_query(&mut call.url, param, value);
}

fn set_body(call: &mut Call, param: &str, value: Json) {
    let body = call.body.get_or_insert_with(|| Json::Object(serde_json::Map::new()));
    set_in(body, &param.split('.').collect::<Vec<_>>(), value);
}

fn set_query(url: &mut Url, param: &str, value: &str) {
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != param)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut pairs = url.query_pairs_mut();
    pairs.clear();
    pairs.extend_pairs(kept);
    pairs.append_pair(param, value);
}

fn set_in(body: &mut Json, path: &[&str], value: Json) {
    match path {
        [] => *body = value,
        [key, rest @ ..] => {
            if !body.is_object() {
                *body = Json::Object(serde_json::Map::new());
            }
            if let Some(fields) = body.as_object_mut() {
                set_in(fields.entry((*key).to_owned()).or_insert(Json::Null), rest, value);
            }
        }
    }
}

/// A path of keys, shown.
pub(super) fn shown(path: &Path) -> String {
    path.join(".")
}
