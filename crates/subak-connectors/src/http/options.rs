//! The options of a stream of an API.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value as Json;
use subak_connect::{ConnectError, ConnectErrorKind, Field, FieldKind};

use super::{headers, texts};

/// The keys of `pagination`.
const PAGINATION: &[Field] = &[
    Field {
        name: "type",
        kind: FieldKind::Word(&["offset", "page", "cursor", "link", "next_url"]),
        is_required: true,
        doc: "`offset` counts records, `page` counts pages, `cursor` hands on what the answer has at `next`, `link` follows the header `Link`, `next_url` follows the address at `next`. Reading ends at an empty page, or when nothing comes next.",
    },
    Field::optional(
        "param",
        FieldKind::Text,
        "The parameter that says where the page begins. By default `offset`, `page` or `cursor`.",
    ),
    Field::optional(
        "param_in",
        FieldKind::Word(&["query", "body"]),
        "Where that parameter and `size_param` stand; in the body as paths such as `variables.after`. By default in the query.",
    ),
    Field::optional(
        "size_param",
        FieldKind::Text,
        "The parameter that says how many records a page may have. By default `limit`, where `size` is given.",
    ),
    Field::optional("size", FieldKind::Integer, "How many records a page may have."),
    Field::optional("start", FieldKind::Integer, "The first page, or the first offset. By default `1` and `0`."),
    Field::optional("next", FieldKind::Text, "Path in the answer to what comes next."),
    Field::optional(
        "more",
        FieldKind::Text,
        "Path in the answer to whether more follows: `false` ends the reading. An answer without it is an error.",
    ),
    Field::optional("total", FieldKind::Text, "Path in the answer to the number of all records. Fewer than that are an error."),
    Field::optional("page_count_max", FieldKind::Integer, "How many pages may come. More are an error. By default 100000."),
];

/// The keys of `incremental`.
const INCREMENTAL: &[Field] = &[
    Field {
        name: "param",
        kind: FieldKind::Text,
        is_required: true,
        doc: "The parameter that takes the last value of the stream's `cursor`.",
    },
    Field::optional(
        "end_param",
        FieldKind::Text,
        "The parameter that takes the end of the read, where the cursor has one (`until: run`, `--until`).",
    ),
    Field::optional(
        "format",
        FieldKind::Text,
        "How times are written: `iso` (the default, in UTC), `date`, `unix`, `unix_ms`, or in `strftime` letters.",
    ),
    Field::optional("start", FieldKind::Text, "What the parameter is before there is a last value. By default it is left out."),
    Field::optional(
        "exclusive",
        FieldKind::Boolean,
        "Whether the API leaves out records at the value itself. Then it is asked for one step earlier, so that none is missed.",
    ),
];

/// The keys of `parent`.
const PARENT: &[Field] = &[
    Field { name: "path", kind: FieldKind::Text, is_required: true, doc: "Where the parents are." },
    Field::optional("params", FieldKind::Texts, "Parameters of the requests for parents."),
    Field::optional("records", FieldKind::Text, "Path in the answer to the list of parents."),
    Field::optional("pagination", FieldKind::Map(PAGINATION), "How pages of parents follow each other."),
    Field::optional(
        "prefix",
        FieldKind::Text,
        "What stands before the names of the columns that take the parent's fields. By default `parent_`.",
    ),
];

/// The keys that a stream knows.
pub(super) const FIELDS: &[Field] = &[
    Field::optional(
        "path",
        FieldKind::Text,
        "What follows the connection's `url`. By default the stream's name. `{id}` stands for the field `id` of a `parent`.",
    ),
    Field::optional("method", FieldKind::Word(&["get", "post"]), "By default `get`."),
    Field::optional("params", FieldKind::Texts, "Parameters of the requests; `{id}` stands for a field of a `parent`."),
    Field::optional("headers", FieldKind::Texts, "Headers of the requests."),
    Field::optional("body", FieldKind::Text, "The body of the requests, as JSON."),
    Field::optional(
        "records",
        FieldKind::Text,
        "Dotted path in the answer to the list of records, for example `data.items`; `.` is the answer itself. By default the answer is the list.",
    ),
    Field::optional("format", FieldKind::Word(&["json", "ndjson"]), "What answers are. By default `json`."),
    Field::optional("pagination", FieldKind::Map(PAGINATION), "How pages follow each other. By default there is one."),
    Field::optional("incremental", FieldKind::Map(INCREMENTAL), "How the API is asked for what is new; goes with `cursor`."),
    Field::optional(
        "parent",
        FieldKind::Map(PARENT),
        "Requests for each record of another list. Fields of it that the `path` or a parameter names become columns, as `parent_id`; a record with such a key of its own is an error.",
    ),
    Field::optional(
        "error",
        FieldKind::Text,
        "Path in the answer to an error, for APIs that report one with the status 200. Anything there but nothing, `false`, zero and an empty text, list or object fails the read.",
    ),
    Field::optional(
        "if_missing",
        FieldKind::Word(&["error", "skip"]),
        "What happens when there is nothing at the path (status 404 or 410). By default it is an error; `skip` goes on and says how many there were.",
    ),
];

/// How pages follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Paging {
    One,
    /// Counts records from here.
    Offset(u64),
    /// Counts pages from here.
    Page(u64),
    Cursor(Path),
    Link,
    NextUrl(Path),
}

/// A path into an answer: keys of objects, and numbers of elements.
pub(super) type Path = Vec<String>;

/// The pages of one list.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    pub(super) paging: Paging,
    pub(super) param: String,
    pub(super) in_body: bool,
    pub(super) size: Option<(String, u64)>,
    pub(super) more: Option<Path>,
    pub(super) total: Option<Path>,
    pub(super) count_max: u64,
}

/// One list of records.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) path: String,
    pub(super) params: Vec<(String, String)>,
    /// `None` is the answer itself as the list.
    pub(super) records: Option<Path>,
    pub(super) pages: Pages,
}

/// How the API is asked for what is new.
#[derive(Debug, Clone)]
pub(super) struct Incremental {
    pub(super) param: String,
    pub(super) end_param: Option<String>,
    pub(super) format: Option<String>,
    pub(super) start: Option<String>,
    pub(super) is_exclusive: bool,
}

/// Parsed options.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) list: List,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Json>,
    pub(super) is_lines: bool,
    pub(super) incremental: Option<Incremental>,
    pub(super) parent: Option<List>,
    /// What stands before the names of a parent's fields.
    pub(super) prefix: String,
    pub(super) error: Option<Path>,
    pub(super) skips_missing: bool,
}

/// The segments of a dotted path.
fn path_of(text: &str) -> Path {
    text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

struct Reader<'a> {
    stream: &'a str,
    values: &'a BTreeMap<String, String>,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn wrong(&self, what: &str) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Config, format!("stream `{}`: {what}", self.stream))
    }

    fn number(&self, key: &str) -> Result<Option<u64>, ConnectError> {
        let number = self.get(key).map(str::parse).transpose();
        number.map_err(|error| self.wrong(&format!("`{key}` must be a whole number")).because(error))
    }

    fn path(&self, key: &str) -> Option<Path> {
        self.get(key).map(path_of)
    }

    fn pages(&self, name: &str) -> Result<Pages, ConnectError> {
        let key = |key: &str| format!("{name}.{key}");
        let next = || {
            let next = self.path(&key("next"));
            next.ok_or_else(|| self.wrong(&format!("`{name}` needs `next`, the path in the answer to what comes next")))
        };
        let start = self.number(&key("start"))?;
        let (paging, param) = match self.get(&key("type")) {
            None => (Paging::One, ""),
            Some("offset") => (Paging::Offset(start.unwrap_or(0)), "offset"),
            Some("page") => (Paging::Page(start.unwrap_or(1)), "page"),
            Some("cursor") => (Paging::Cursor(next()?), "cursor"),
            Some("link") => (Paging::Link, ""),
            Some(_) => (Paging::NextUrl(next()?), ""),
        };
        let size = self.number(&key("size"))?;
        let size_param = self.get(&key("size_param")).unwrap_or("limit").to_owned();
        Ok(Pages {
            paging,
            param: self.get(&key("param")).unwrap_or(param).to_owned(),
            in_body: self.get(&key("param_in")) == Some("body"),
            size: size.map(|size| (size_param, size)),
            more: self.path(&key("more")),
            total: self.path(&key("total")),
            count_max: self.number(&key("page_count_max"))?.unwrap_or(100_000).max(1),
        })
    }
}

impl Options {
    pub(super) fn parse(stream: &str, values: &BTreeMap<String, String>) -> Result<Self, ConnectError> {
        let reader = Reader { stream, values };
        let body = reader.get("body").map(serde_json::from_str::<Json>).transpose();
        let body = body.map_err(|error| reader.wrong("`body` is no JSON").because(error))?;
        let method = if reader.get("method") == Some("post") { Method::POST } else { Method::GET };
        if body.is_some() && method == Method::GET {
            return Err(reader.wrong("a request with a `body` needs `method: post`"));
        }
        let list = List {
            path: reader.get("path").unwrap_or(stream).to_owned(),
            params: texts(values, "params"),
            records: reader.path("records"),
            pages: reader.pages("pagination")?,
        };
        let parent = reader.get("parent.path").map(|path| {
            let pages = reader.pages("parent.pagination")?;
            Ok(List {
                path: path.to_owned(),
                params: texts(values, "parent.params"),
                records: reader.path("parent.records"),
                pages,
            })
        });
        let parent = parent.transpose()?;
        let is_lines = reader.get("format") == Some("ndjson");
        let pages = &list.pages;
        let looks_inside =
            matches!(pages.paging, Paging::Cursor(_) | Paging::NextUrl(_)) || pages.more.is_some() || pages.total.is_some();
        if is_lines && (looks_inside || reader.get("error").is_some() || list.records.is_some()) {
            return Err(reader.wrong("answers of the format `ndjson` are records and nothing else: `records`, `next`, `more`, `total` and `error` have no place there"));
        }
        if method == Method::GET
            && [Some(pages), parent.as_ref().map(|parent| &parent.pages)].into_iter().flatten().any(|pages| pages.in_body)
        {
            return Err(reader.wrong("`param_in: body` needs `method: post`"));
        }
        let columns: std::collections::BTreeSet<String> = list.placeholders().iter().map(|name| name.replace('.', "_")).collect();
        if columns.len() < list.placeholders().len() {
            return Err(reader.wrong("two fields of the `parent` would have one column, because a point in a name becomes `_`"));
        }
        if parent.is_some() && list.placeholders().is_empty() {
            return Err(reader
                .wrong("it has a `parent`, and neither `path` nor `params` names a field of it")
                .help("write the field in braces: `path: /orders/{id}/lines`"));
        }
        Ok(Self {
            list,
            method,
            headers: headers(&texts(values, "headers"), &format!("stream `{stream}`"))?,
            body,
            is_lines,
            incremental: reader.get("incremental.param").map(|param| Incremental {
                param: param.to_owned(),
                end_param: reader.get("incremental.end_param").map(str::to_owned),
                format: reader.get("incremental.format").map(str::to_owned),
                start: reader.get("incremental.start").map(str::to_owned),
                is_exclusive: reader.get("incremental.exclusive") == Some("true"),
            }),
            parent,
            prefix: reader.get("parent.prefix").unwrap_or("parent_").to_owned(),
            error: reader.path("error"),
            skips_missing: reader.get("if_missing") == Some("skip"),
        })
    }
}

impl List {
    /// The fields of a parent that are named in braces, each once.
    pub(super) fn placeholders(&self) -> Vec<String> {
        let mut names = Vec::new();
        for text in std::iter::once(&self.path).chain(self.params.iter().map(|(_, value)| value)) {
            let mut rest = text.as_str();
            while let Some((_, after)) = rest.split_once('{') {
                rest = after;
                let Some((name, _)) = after.split_once('}') else { break };
                let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
                if !name.is_empty() && is_name && !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        names
    }
}
