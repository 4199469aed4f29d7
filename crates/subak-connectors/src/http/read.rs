//! Reading a stream of an API: every page of it, for every parent, kept until the types of the columns are known.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::fmt::strtime;
use reqwest::Url;
use subak_connect::{ConnectError, ConnectErrorKind, ReadRequest, Source, SourceItem, StreamInfo, blocking, convert};
use subak_domain::{Cursor, DataType};

use super::Api;
use super::call::{Call, encoded};
use super::options::{Incremental, List, Options};
use super::page::{self, Pager};
use crate::records::Record;
use crate::records::json::{Found, parse};
use crate::spool::{Refused, Spool};

/// Parents of which a warning names so many.
const SHOWN_MAX: usize = 5;

/// A record of JSON, taken apart.
fn decode(bytes: &[u8]) -> Result<Record<'_>, Refused> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match parse(text) {
        Found::Record(record, _) => Ok(record),
        Found::Refused { reason, raw } => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(raw).is_ok();
            let row = if is_json { raw.trim().to_owned() } else { serde_json::Value::from(raw).to_string() };
            Err(Refused { reason, row })
        }
    }
}

/// A field of a parent: its name, its text in an address, and how it stands in the parent.
type ParentField = (String, String, String);

/// What is read, and what there is to say about it.
struct About<'a> {
    name: &'a str,
    is_lines: bool,
    notes: &'a mut BTreeSet<String>,
}

impl Api {
    /// The first request of a list, with the fields of a parent in their places.
    fn call(&self, options: &Options, list: &List, fields: &[ParentField]) -> Result<Call, ConnectError> {
        let fill = |text: &str, write: &dyn Fn(&str) -> String| {
            fields.iter().fold(text.to_owned(), |text, (name, value, _)| text.replace(&format!("{{{name}}}"), &write(value)))
        };
        let path = fill(&list.path, &encoded);
        let base = &self.0.base;
        let is_whole = path.starts_with("http://") || path.starts_with("https://");
        let whole =
            if is_whole { path } else { format!("{}/{}", base.as_str().trim_end_matches('/'), path.trim_start_matches('/')) };
        let wrong = |what: &str| ConnectError::new(ConnectErrorKind::Config, format!("`{}` {what}", list.path));
        let mut url = Url::parse(&whole).map_err(|error| wrong("is no path of an address").because(error))?;
        if url.origin() != base.origin() {
            return Err(wrong("is not on the host of the connection's `url:`"));
        }
        let params = self.0.params.iter().chain(&list.params);
        if self.0.params.len() + list.params.len() > 0 {
            url.query_pairs_mut().extend_pairs(params.map(|(name, value)| (name, fill(value, &str::to_owned))));
        }
        Ok(Call { method: options.method.clone(), url, headers: options.headers.clone(), body: options.body.clone() })
    }

    /// Reads every page of a list. `false` when there is nothing at its path.
    async fn each_record(
        &self,
        options: &Options,
        list: &List,
        mut call: Call,
        about: &mut About<'_>,
        mut take: impl FnMut(&str) -> Result<(), ConnectError>,
    ) -> Result<bool, ConnectError> {
        let About { name, is_lines, notes } = about;
        let mut pager = Pager::begin(list, name, &mut call);
        let mut is_first = true;
        loop {
            let Some(answer) = self.0.send(&call).await? else {
                if is_first {
                    return Ok(false);
                }
                let message =
                    format!("connection `{}`: {} is not there, and it was to be the next page", self.0.name, call.name());
                return Err(ConnectError::new(ConnectErrorKind::Malformed, message).help("correct `pagination:`"));
            };
            is_first = false;
            if let Some(path) = &options.error
                && let Some(said) = page::is_something(&answer.text, path)
            {
                let message = format!(
                    "connection `{}`: {} was answered with an error at `{}`",
                    self.0.name,
                    call.name(),
                    page::shown(path)
                );
                return Err(ConnectError::new(ConnectErrorKind::Malformed, message).because(said));
            }
            let records = page::records(&answer.text, list, *is_lines, &call.name())?;
            for record in &records {
                take(record)?;
            }
            if !pager.advance(&mut call, &answer, &records)? {
                notes.extend(pager.note);
                return Ok(true);
            }
        }
    }

    /// The fields of every parent that the stream names, each combination once, in the order of the API.
    async fn parents(
        &self,
        options: &Options,
        parent: &List,
        name: &str,
        notes: &mut BTreeSet<String>,
    ) -> Result<Vec<Vec<ParentField>>, ConnectError> {
        let names = options.list.placeholders();
        let mut parents: Vec<Vec<ParentField>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let call = Call { method: reqwest::Method::GET, body: None, ..self.call(options, parent, &[])? };
        let name = format!("{name}, its parents");
        let mut about = About { name: &name, is_lines: false, notes };
        let is_there = self
            .each_record(options, parent, call.clone(), &mut about, |record| {
                let field = |name: &String| {
                    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
                    let text = page::text_at(record, &path).ok_or_else(|| {
                        let message = format!("a record of `{}` has no `{name}`", parent.path);
                        ConnectError::new(ConnectErrorKind::Malformed, message).help("correct the name in braces")
                    })?;
                    if matches!(text.as_str(), "." | "..") {
                        let message =
                            format!("a record of `{}` has `{text}` as `{name}`, which leads elsewhere in a path", parent.path);
                        return Err(ConnectError::new(ConnectErrorKind::Malformed, message));
                    }
                    let raw = page::at_path(record, &path).unwrap_or("null").to_owned();
                    Ok((name.clone(), text, raw))
                };
                let fields = names.iter().map(field).collect::<Result<Vec<_>, ConnectError>>()?;
                if seen.insert(fields.iter().map(|(_, text, _)| text.clone()).collect::<Vec<_>>()) {
                    parents.push(fields);
                }
                Ok(())
            })
            .await?;
        if is_there { Ok(parents) } else { Err(self.nothing_at(&call)) }
    }

    fn nothing_at(&self, call: &Call) -> ConnectError {
        let message = format!("connection `{}`: there is nothing at {}", self.0.name, call.name());
        ConnectError::new(ConnectErrorKind::NotFound, message)
            .help("correct `url:` and `path:`; `if_missing: skip` takes it for an empty list")
    }

    /// Asks for every record of a stream.
    async fn fetch(&self, request: &ReadRequest) -> Result<(Spool, BTreeSet<String>), ConnectError> {
        let options = Options::parse(&request.stream, &request.options)?;
        let (mut spool, mut notes) = (Spool::new(&self.0.temporary), BTreeSet::new());
        let parents = match &options.parent {
            Some(parent) => self.parents(&options, parent, &request.stream, &mut notes).await?,
            None => vec![Vec::new()],
        };
        let mut missing: Vec<String> = Vec::new();
        for fields in &parents {
            let mut call = self.call(&options, &options.list, fields)?;
            if let Some(incremental) = &options.incremental {
                set_bounds(&mut call, incremental, request)?;
            }
            let mut prefix = String::new();
            for (name, _, raw) in fields {
                let column = serde_json::Value::from(format!("{}{}", options.prefix, name.replace('.', "_")));
                prefix.push_str(&format!("{column}:{raw},"));
            }
            let (mut twice, mut pages) = (BTreeSet::new(), BTreeSet::new());
            let mut about = About { name: &request.stream, is_lines: options.is_lines, notes: &mut pages };
            let keep = |record: &str| keep(&mut spool, record, &prefix, &mut twice);
            let is_there = self.each_record(&options, &options.list, call.clone(), &mut about, keep).await?;
            let own = |name: &String| {
                fields.iter().any(|(field, ..)| *name == format!("{}{}", options.prefix, field.replace('.', "_")))
            };
            if let Some(name) = twice.iter().find(|name| own(name)) {
                let message = format!(
                    "stream `{}`: records have `{name}` of their own, which is to take the field of their parent",
                    request.stream
                );
                return Err(ConnectError::new(ConnectErrorKind::Config, message).help("choose another `prefix:` under `parent:`"));
            }
            notes.extend(pages);
            notes.extend(twice.into_iter().map(|name| format!("records have the key `{name}` twice; the last value counts")));
            if !is_there && !options.skips_missing {
                return Err(self.nothing_at(&call));
            }
            if !is_there {
                missing.push(call.name());
            }
        }
        if !missing.is_empty() {
            let shown = missing.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
            notes.insert(format!(
                "there is nothing at {} of {} paths, which count as empty: {shown}",
                missing.len(),
                parents.len()
            ));
        }
        Ok((spool, notes))
    }
}

/// Keeps a record, with the fields of its parent before its own.
fn keep(spool: &mut Spool, record: &str, prefix: &str, twice: &mut BTreeSet<String>) -> Result<(), ConnectError> {
    let record = record.trim();
    let joined;
    let text = match record.strip_prefix('{') {
        Some(rest) if !prefix.is_empty() => {
            let is_empty = rest.trim_start().starts_with('}');
            joined = format!("{{{}{rest}", if is_empty { prefix.trim_end_matches(',') } else { prefix });
            joined.as_str()
        }
        _ => record,
    };
    match parse(text) {
        Found::Record(record, again) => {
            spool.shapes.see(&record);
            twice.extend(again);
        }
        Found::Refused { .. } => {}
    }
    spool.keep(text.as_bytes())
}

/// Puts the bounds of the cursor into a request.
fn set_bounds(call: &mut Call, incremental: &Incremental, request: &ReadRequest) -> Result<(), ConnectError> {
    let Some(bound) = &request.cursor else {
        let message = format!("stream `{}` has `incremental:` and no `cursor:`", request.stream);
        return Err(ConnectError::new(ConnectErrorKind::Config, message)
            .help("declare the column whose values the parameter takes: `cursor: updated_at`"));
    };
    let format = incremental.format.as_deref();
    let unwritable = |cursor: &Cursor| {
        let message = format!(
            "stream `{}`: the last value `{}` of `{}` cannot be written as a parameter",
            request.stream, cursor.value, cursor.column
        );
        ConnectError::new(ConnectErrorKind::Config, message).help("correct `incremental.format:`, and the type of the column")
    };
    match &bound.from {
        Some(from) => {
            let rounding = if incremental.is_exclusive { Rounding::Before } else { Rounding::Down };
            let text = parameter(from, format, rounding).ok_or_else(|| unwritable(from))?;
            page::set(call, &incremental.param, &text, false);
        }
        None => {
            if let Some(start) = &incremental.start {
                page::set(call, &incremental.param, start, false);
            }
        }
    }
    if let (Some(to), Some(param)) = (&bound.to, &incremental.end_param) {
        page::set(call, param, &parameter(to, format, Rounding::Above).ok_or_else(|| unwritable(to))?, false);
    }
    Ok(())
}

/// What a parameter says of a bound that it cannot say exactly. Records outside are left out here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    /// What it can say at or below the bound.
    Down,
    /// The next below that, for APIs that leave out the value itself.
    Before,
    /// The next above the bound.
    Above,
}

/// Steps in which a format may count, in microseconds: up to a year and a day.
const STEPS: [i64; 8] = [
    1000,
    1_000_000,
    60 * 1_000_000,
    3600 * 1_000_000,
    86_400 * 1_000_000,
    7 * 86_400 * 1_000_000,
    31 * 86_400 * 1_000_000,
    366 * 86_400 * 1_000_000,
];

/// A bound as a parameter; `None` when it cannot be written.
fn parameter(cursor: &Cursor, format: Option<&str>, rounding: Rounding) -> Option<String> {
    let micros = match cursor.data_type {
        DataType::Timestamp => convert::parse_timestamp(&cursor.value)?,
        DataType::DateTime => convert::parse_datetime(&cursor.value)?,
        DataType::Date => convert::parse_datetime(&format!("{}T00:00:00", cursor.value))?,
        DataType::SmallInt | DataType::Integer | DataType::BigInt | DataType::UnsignedBigInt => {
            let number = cursor.value.parse::<i128>().ok()?;
            let step = match rounding {
                Rounding::Down => 0,
                Rounding::Before => -1,
                Rounding::Above => 1,
            };
            return Some((number + step).to_string());
        }
        // Of texts and fractions nobody knows the one before.
        _ => return (rounding == Rounding::Down).then(|| cursor.value.clone()),
    };
    let is_wall = cursor.data_type != DataType::Timestamp;
    let write = |micros: i64| written(micros, format, is_wall);
    let here = write(micros)?;
    let sign = match rounding {
        Rounding::Down => return Some(here),
        Rounding::Before => -1,
        Rounding::Above => 1,
    };
    STEPS.into_iter().find_map(|step| write(micros.checked_add(sign * step)?).filter(|text| *text != here))
}

/// A moment, rounded down to what the format can say.
fn written(micros: i64, format: Option<&str>, is_wall: bool) -> Option<String> {
    let seconds = micros.div_euclid(1_000_000) * 1_000_000;
    Some(match format {
        None | Some("iso") if is_wall => convert::format_datetime(seconds)?.replace(' ', "T"),
        None | Some("iso") => convert::format_timestamp(seconds)?,
        Some("unix") => micros.div_euclid(1_000_000).to_string(),
        Some("unix_ms") => micros.div_euclid(1000).to_string(),
        Some("date") => convert::format_timestamp(seconds)?.get(..10)?.to_owned(),
        Some(format) => {
            let moment = jiff::Timestamp::from_microsecond(micros).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
            strtime::format(format, &moment).ok()?
        }
    })
}

#[async_trait]
impl Source for Api {
    /// APIs do not say what they have.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        Ok(Vec::new())
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let api = self.clone();
        blocking::produce_async(move |producer| async move {
            let (spool, notes) = api.fetch(&request).await?;
            for note in notes {
                producer.send_async(SourceItem::Warning(note)).await?;
            }
            spool.send(&request, &producer, decode).await
        })
    }

    /// Asks for the address itself: whatever is answered but a refusal shows that the API is there and knows us.
    async fn probe(&self) -> Result<(), ConnectError> {
        let call = Call {
            method: reqwest::Method::GET,
            url: self.0.base.clone(),
            headers: reqwest::header::HeaderMap::new(),
            body: None,
        };
        match self.0.send(&call).await {
            Err(error) if matches!(error.kind, ConnectErrorKind::Malformed | ConnectErrorKind::Config) => Ok(()),
            result => result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use subak_connect::{ConnectionConfig, OpenRequest, conformance};
    use subak_testkit::{HttpDouble, HttpReply};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        let double = HttpDouble::start(|request| {
            let page: u32 = request.params.get("page").map_or(1, |page| page.parse().expect("a number"));
            let ids = (page - 1) * 10_000..(page * 10_000).min(50_000);
            let mut rows: Vec<String> = ids.map(|id| format!("{{\"id\":{id},\"note\":\"x\"}}")).collect();
            if page == 5 {
                rows.push("{\"id\":49999,\"note\":\"tie\"}".to_owned());
            }
            HttpReply::json(format!("[{}]", if page > 5 { String::new() } else { rows.join(",") }))
        });
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = ConnectionConfig::default();
        config.values.insert("url".to_owned(), double.url());
        let open = OpenRequest { name: "api".to_owned(), config, temporary: folder.path().into(), ..OpenRequest::default() };
        let api = Api::new(&open).expect("a configuration");
        let highest = Cursor { column: "id".into(), value: "49999".into(), data_type: DataType::BigInt };
        let options = [("pagination.type".to_owned(), "page".to_owned())].into();
        let request = ReadRequest { stream: "src".into(), options, ..ReadRequest::default() };
        conformance::source(&api, request, &highest, 2).await;
    }

    #[test]
    fn bounds_are_rounded_to_what_a_parameter_can_say() {
        use Rounding::{Above, Before, Down};
        let cursor = |value: &str, data_type| Cursor { column: "v".into(), value: value.into(), data_type };
        let at = cursor("2025-01-31T10:20:30.750Z", DataType::Timestamp);
        for (format, rounding, expect) in [
            (None, Down, "2025-01-31T10:20:30Z"),
            (None, Before, "2025-01-31T10:20:29Z"),
            (None, Above, "2025-01-31T10:20:31Z"),
            (Some("unix"), Down, "1738318830"),
            (Some("unix_ms"), Before, "1738318830749"),
            (Some("date"), Down, "2025-01-31"),
            (Some("date"), Before, "2025-01-30"),
            (Some("date"), Above, "2025-02-01"),
            (Some("%d.%m.%Y %H:%M"), Down, "31.01.2025 10:20"),
            (Some("%Y-%m-%d"), Before, "2025-01-30"),
            (Some("%d.%m.%Y %H:%M"), Above, "31.01.2025 10:21"),
        ] {
            assert_eq!(parameter(&at, format, rounding).as_deref(), Some(expect), "{format:?} {rounding:?}");
        }
        let wall = cursor("2025-01-31T10:20:30", DataType::DateTime);
        assert_eq!(parameter(&wall, None, Down).as_deref(), Some("2025-01-31T10:20:30"), "nobody said which zone");
        assert_eq!(parameter(&cursor("7", DataType::BigInt), None, Before).as_deref(), Some("6"));
        assert_eq!(parameter(&cursor("x", DataType::Text), None, Down).as_deref(), Some("x"));
        assert_eq!(parameter(&cursor("x", DataType::Text), None, Before), None);
    }
}
