//! Files that are made from tables in the code. `tidy` fails when one of them is out of date.

use std::collections::BTreeMap;
use std::path::Path;

use subak_connectors::{CONNECTORS, EVERY, Fate, Stored};
use subak_diag::codes;
use subak_project::keys::{self, Key, Shape};
use subak_project::{ConnectorInfo, Field, FieldKind, Writes};

macro_rules! put {
    ($page:expr, $($part:tt)*) => {
        $page.push_str(&format!($($part)*))
    };
}

/// Every generated file with its text, by path from the root.
pub(crate) fn files(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let examples = examples(root);
    for code in codes::ALL {
        let mut page = format!("# {}: {}\n\n{}\n\n**What to do:** {}\n", code.id, code.title, code.cause, code.fix);
        if let Some(name) = examples.get(code.id) {
            let folder = root.join("crates/subak-project/tests/broken");
            let read = |ending: &str| std::fs::read_to_string(folder.join(format!("{name}.{ending}"))).unwrap_or_default();
            put!(
                page,
                "\n## Example\n\nThis project\n\n```text\n{}```\n\ngives\n\n```text\n{}```\n",
                read("project"),
                read("expected")
            );
        }
        files.insert(format!("docs/reference/errors/{}.md", code.id), page);
    }
    files.insert("docs/reference/errors.md".into(), error_list());
    files.insert("docs/reference/connectors.md".into(), connectors());
    files.insert("docs/reference/types.md".into(), types());
    files.insert("docs/reference/http-routes.md".into(), http_routes(root));
    files.insert("docs/reference/project-files.md".into(), project_files());
    let infos = infos();
    files.insert("docs/reference/subak.schema.json".into(), format!("{:#}\n", subak_project::schema::project(&infos)));
    files.insert("docs/reference/jobs.schema.json".into(), format!("{:#}\n", subak_project::schema::jobs(&infos)));
    files.insert("docs/reference/assets.schema.json".into(), format!("{:#}\n", subak_project::schema::assets(&infos)));
    files
}

/// Writes them.
pub(crate) fn write(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in files(root) {
        let path = root.join(path);
        let result = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        if let Err(error) = result {
            problems.push(format!("{}: {error}", path.display()));
        }
    }
    problems
}

/// The first broken project, by name, that yields each code.
fn examples(root: &Path) -> BTreeMap<String, String> {
    let mut examples = BTreeMap::new();
    let folder = root.join("crates/subak-project/tests/broken");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".expected").map(str::to_owned))
        .collect();
    names.sort();
    for name in names {
        let text =
            std::fs::read_to_string(root.join(format!("crates/subak-project/tests/broken/{name}.expected"))).unwrap_or_default();
        for part in text.split('[').skip(1) {
            if let Some((code, _)) = part.split_once(']').filter(|(code, _)| code.starts_with("SBK")) {
                examples.entry(code.to_owned()).or_insert_with(|| name.clone());
            }
        }
    }
    examples
}

fn infos() -> Vec<ConnectorInfo> {
    CONNECTORS
        .iter()
        .map(|connector| ConnectorInfo {
            kind: connector.kind(),
            summary: connector.summary(),
            config: connector.config(),
            is_source: connector.abilities().source,
            writes: connector.abilities().writes,
            dialect: connector.abilities().sql.map(|dialect| dialect.name),
            stores_as: connector.abilities().sql.map_or(&[], |dialect| dialect.stores_as),
            has_schemas: connector.abilities().schemas,
            runs_statements: connector.abilities().statements,
            lists_files: connector.abilities().files,
        })
        .collect()
}

fn error_list() -> String {
    let mut page =
        "# Error codes\n\n`subak explain CODE` shows a page of these offline.\n\n| code | says |\n|---|---|\n".to_owned();
    for code in codes::ALL {
        put!(page, "| [{0}](errors/{0}.md) | {1} |\n", code.id, code.title);
    }
    page
}

fn writes(writes: Writes) -> &'static str {
    match writes {
        Writes::Nothing => "no",
        Writes::WholeTables => "whole ones, `mode: replace` without a quarantine",
        Writes::Rows => "yes, in every mode",
    }
}

fn connectors() -> String {
    let mut page = "# Connectors\n\nWhat each type of connection can do and be configured with. Every connection also knows `parallel`: how many steps of a run use it \
                    at a time; without it `--parallel` is the only bound.\n".to_owned();
    for info in infos() {
        let yes = |is: bool| if is { "yes" } else { "no" };
        put!(
            page,
            "\n## {}\n\n{}.\n\nReads streams: {}. Loads tables: {}. Runs SQL assets: {}.\n",
            info.kind,
            info.summary,
            yes(info.is_source),
            writes(info.writes),
            yes(info.dialect.is_some())
        );
        for (title, fields) in [("Keys of the connection", info.config.connection), ("Keys of its streams", info.config.stream)] {
            if fields.is_empty() {
                continue;
            }
            put!(page, "\n{title}:\n\n| key | required | meaning |\n|---|---|---|\n");
            rows_of(fields, "", &mut page);
        }
    }
    page
}

/// Every route of the HTTP interface, from its description.
fn http_routes(root: &Path) -> String {
    let text = std::fs::read_to_string(root.join("docs/reference/openapi.json")).unwrap_or_default();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let mut page = "# Routes of the HTTP interface\n\nWhat can be asked of `subak server start --listen`, and by whom. [The guide](http-api.md) says how to sign in, what errors look like and how \
                    lists are read; `subak docs --json-schema http-api` prints the whole description as OpenAPI 3.1, which a server has at \
                    `/api/v1/openapi.json` too.\n\n| request | who may | what it does | query |\n|---|---|---|---|\n"
        .to_owned();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, method, operation) in
        paths.flat_map(|(path, methods)| methods.as_object().into_iter().flatten().map(move |(method, one)| (path, method, one)))
    {
        let word = |key: &str| operation[key].as_str().unwrap_or_default().replace('|', "\\|");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let query: Vec<String> = parameters
            .filter(|one| one["in"] == "query")
            .map(|one| {
                format!("`{}`: {}", one["name"].as_str().unwrap_or_default(), one["description"].as_str().unwrap_or_default())
            })
            .collect();
        let query = query.join(" ").replace('|', "\\|");
        put!(page, "| `{} {path}` | {} | {} | {query} |\n", method.to_uppercase(), word("x-access"), word("summary"));
    }
    page
}

fn types() -> String {
    let mut page = "# Types\n\nRows travel in the types of the first column. What becomes of each of them in a destination, and below, what the types of each \
                    source are read as. *exact*: every value, in the same type. *widened*: every value, in a type that holds more; declared, it \
                    reads back as what it was. *policy*: every value within the bounds, and `on_reject` says what becomes of others (NULL and counted where nothing is said). *refused*: the load fails \
                    and says which type would do.\n\nThese tables are tested: each type is loaded with its edges into each destination and read back, and a table of each type of a source \
                    is made in the source itself, with the edge that is shown and one beyond the bounds.\n\n## In destinations\n\n|"
        .to_owned();
    let sinks: Vec<_> = CONNECTORS.iter().filter(|connector| connector.stores(EVERY[0]).is_some()).collect();
    for sink in &sinks {
        put!(page, " | {}", sink.kind());
    }
    put!(page, " |\n|---|{}\n", "---|".repeat(sinks.len()));
    for data_type in EVERY {
        let name = if matches!(data_type, subak_project::DataType::Decimal { .. }) {
            "decimal(p,s)".to_owned()
        } else {
            data_type.to_string()
        };
        put!(page, "| `{name}`");
        for sink in &sinks {
            let Some(Stored { word, fate }) = sink.stores(data_type) else { continue };
            let word = word.replace("38, 10", "p, s").replace("38,10", "p,s");
            let word = if word.is_empty() { String::new() } else { format!(": `{word}`") };
            let bounds = if let Fate::Policy(bounds) = fate { format!(", {bounds}") } else { String::new() };
            put!(page, " | {}{word}{bounds}", fate.word());
        }
        put!(page, " |\n");
    }
    source_types(&mut page);
    page
}

/// What the types of each source are read as.
fn source_types(page: &mut String) {
    for source in CONNECTORS.iter().filter(|source| !source.reads().is_empty()) {
        put!(
            page,
            "\n## From {0}\n\nWhere nothing is declared under `columns:`.\n\n| {0} | becomes | values | an edge |\n|---|---|---|---|\n",
            source.kind()
        );
        for read_as in source.reads() {
            let bounds = if let Fate::Policy(bounds) = read_as.fate { format!(", {bounds}") } else { String::new() };
            let edge = read_as.edge.1.replace('|', "\\|");
            let edge = if edge.is_empty() { "the empty text".to_owned() } else { format!("`{edge}`") };
            put!(page, "| `{}` | `{}` | {}{bounds} | {edge} |\n", read_as.word, read_as.data_type, read_as.fate.word());
        }
    }
    put!(
        page,
        "\n## From other sources\n\nFiles, spreadsheets, MongoDB, HTTP and ADBC have types by value: their guides say what becomes of them. Parquet keeps its own types.\n"
    );
}

fn rows_of(fields: &[Field], prefix: &str, page: &mut String) {
    for field in fields {
        let is_required = if field.is_required { "yes" } else { "no" };
        put!(page, "| `{prefix}{}` | {is_required} | {} |\n", field.name, field.doc.replace('|', "\\|"));
        if let FieldKind::Map(inner) = field.kind {
            rows_of(inner, &format!("{prefix}{}.", field.name), page);
        }
    }
}

fn project_files() -> String {
    let mut page = "# Project files\n\nEvery key of every file. Unknown and duplicate keys are errors. `subak docs --json-schema project` and\n\
                    `subak docs --json-schema assets` print the same as JSON Schema for editors.\n"
        .to_owned();
    for (title, table) in [
        ("`subak.yml`", keys::PROJECT),
        ("A profile", keys::PROFILE),
        ("`defaults`", keys::DEFAULTS),
        ("`retry`", keys::RETRY),
        ("`ingest`", keys::INGEST),
        ("A stream", keys::STREAM),
        ("`cursor`", keys::CURSOR),
        ("A column of `columns`", keys::COLUMN),
        ("A computed column of `derive`", keys::DERIVE),
        ("`history`", keys::HISTORY),
        ("`changes`", keys::CHANGES),
        ("A nested list of `children`", keys::CHILD),
        ("`seed`", keys::SEED),
        ("`script`, and the header of a program; the keys of a stream and of files too", keys::SCRIPT),
        ("`dbt`", keys::DBT),
        ("The header of a SQL asset", keys::SQL_HEADER),
        ("`automation`", keys::AUTOMATION),
        ("`partition`", keys::PARTITION),
        ("The header of a standalone check", keys::CHECK_HEADER),
        ("`surrogate_key`", keys::SURROGATE_KEY),
        ("A check of an asset", keys::CHECK),
        ("`accepted_values`", keys::ACCEPTED_VALUES),
        ("`range`", keys::RANGE),
        ("`pattern`", keys::PATTERN),
        ("`relationships`", keys::RELATIONSHIPS),
        ("`row_count`", keys::ROW_COUNT),
        ("`freshness`", keys::FRESHNESS),
        ("`schema`", keys::SCHEMA),
        ("`reconcile`", keys::RECONCILE),
        ("A test below `tests/`", keys::TEST_FILE),
        ("A job below `jobs/`", keys::JOB),
        ("A parameter of a job", keys::PARAM),
        ("`schedule` of a job", keys::SCHEDULE),
        ("`dst`", keys::DST),
        ("A sensor below `jobs/`", keys::SENSOR),
        ("`watch` of a sensor", keys::WATCH),
        ("`files` of `watch`", keys::WATCH_FILES),
        ("`query` of `watch`", keys::WATCH_QUERY),
        ("`http` of `watch`", keys::WATCH_HTTP),
        ("`webhook` of `watch`", keys::WATCH_WEBHOOK),
        ("`start` of a sensor", keys::SENSOR_START),
        ("A task of a job", keys::TASK),
        ("`run`", keys::PROGRAM),
        ("`sql` and `query`", keys::STATEMENT),
        ("`http`", keys::HTTP_CALL),
        ("`notify`", keys::MESSAGE),
        ("`approve`", keys::APPROVAL),
        ("An entry of `on_failure` and its like", keys::NOTICE),
        ("`lint`", keys::LINT),
        ("`retention`", keys::RETENTION),
    ] {
        put!(page, "\n## {title}\n\n| key | value | required | meaning |\n|---|---|---|---|\n");
        for key in table {
            let required = if key.is_required { "yes" } else { "no" };
            put!(page, "| `{}` | {} | {required} | {} |\n", key.name, shape(key), key.doc.replace('|', "\\|"));
        }
    }
    page
}

fn shape(key: &Key) -> String {
    match key.shape {
        Shape::Text => "text".into(),
        Shape::Count => "number".into(),
        Shape::Counts => "text, list or numbers by name".into(),
        Shape::Share => "0 to 1".into(),
        Shape::Boolean => "`true` or `false`".into(),
        Shape::Duration => "duration".into(),
        Shape::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Shape::Texts => "text or list".into(),
        Shape::Map(_) | Shape::Stream(_) | Shape::Script(_) => "mapping".into(),
        Shape::Named(_) => "mapping by name".into(),
        Shape::List(_) => "list".into(),
        Shape::Type => "type".into(),
        Shape::TypeOr(_) => "type or mapping".into(),
        Shape::Rows => "list of rows".into(),
        Shape::Connection => "connection".into(),
        Shape::TextOr(_) => "text or mapping".into(),
        Shape::Check => "check".into(),
        Shape::Tasks => "mapping by name".into(),
        Shape::Program(_) => "text, list or mapping".into(),
        Shape::Items => "list or expression".into(),
        Shape::Body => "text, list or mapping".into(),
        Shape::Receiver => "receiver".into(),
        Shape::Export => "export".into(),
    }
}
