//! A replication file of Sling (<https://docs.slingdata.io/concepts/replication/structure>) as a project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use subak_project::found::StreamPattern;

use super::Imported;
use super::write::yaml;

/// A connection: its name and kind here, and its keys.
#[derive(Clone)]
struct Connection {
    name: String,
    kind: String,
    keys: Map<String, Value>,
    /// The schema that `{target_schema}` stands for.
    schema: String,
    /// The folder from which relative paths count.
    base: PathBuf,
}

/// Keys of a stream that mean the same here or are read below.
const KNOWN: [&str; 16] = [
    "object",
    "mode",
    "description",
    "disabled",
    "primary_key",
    "update_key",
    "columns",
    "select",
    "where",
    "sql",
    "tags",
    "source_options",
    "target_options",
    "hooks",
    "transforms",
    "schedule",
];

/// `base` is the folder from which relative paths count.
pub(super) fn import(replication: &Value, environment: &Value, stem: &str, base: &Path) -> Result<Imported, String> {
    let text = |key: &str| replication[key].as_str().filter(|text| !text.is_empty()).ok_or(format!("`{key}` is missing"));
    let (source, target) = (text("source")?, text("target")?);
    let streams = replication["streams"].as_object().ok_or("`streams` is missing")?;
    let mut imported = Imported::default();
    let from = connection(source, "source", environment, base, &mut imported);
    let is_one = source.eq_ignore_ascii_case(target);
    let mut to = if is_one { from.clone() } else { connection(target, "target", environment, base, &mut imported) };
    if to.name == from.name && !is_one {
        to.name.push_str("_target");
    }
    if to.kind == "files" {
        return Err("its target is files, and only databases are taken over".to_owned());
    }
    for (key, value) in replication.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "source" | "target" | "defaults" | "streams") {
            // Values may be secrets.
            let names: Vec<&str> = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            imported.notes.push(format!("`{key}`{names} of the replication has no counterpart"));
        }
    }
    let defaults = replication["defaults"].clone();
    // Streams by the schema of their tables: each is a folder below `assets/`.
    let mut schemas: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    let single: Vec<String> = streams.keys().filter(|name| !is_pattern(name)).map(|name| name.replace('"', "")).collect();
    for (name, own) in streams {
        let merged = merge(&defaults, own);
        let Some((schema, key, mut value)) = stream(name, &merged, &from, &to, target, &mut imported) else { continue };
        let known = schemas.entry(schema).or_default();
        if known.iter().any(|(known, _)| *known == key) {
            imported
                .notes
                .push(format!("`{name}` is left out: its table is that of another stream; give it an `object` of its own"));
            continue;
        }
        if from.kind != "files" && is_pattern(&key) {
            imported.has_patterns = true;
            leave_out(&key, &single, &from.name, &mut value);
        }
        imported.stream_count += 1;
        known.push((key, value));
    }
    for (schema, streams) in schemas {
        let folder = if schema.is_empty() { "assets".to_owned() } else { format!("assets/{schema}") };
        let ingest = json!({ "from": from.name, "to": to.name });
        let mut entries: Vec<(String, Value)> =
            ingest.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        entries.push(("streams".to_owned(), Value::Object(streams.into_iter().collect())));
        let text = format!("# Made from the Sling replication `{stem}`.\ningest:\n{}", yaml(&entries, 2));
        imported.files.push((format!("{folder}/{}.yml", plain(stem)), text));
    }
    let connection = |connection: &Connection| {
        let mut keys = Map::from_iter([("type".to_owned(), json!(connection.kind))]);
        keys.extend(connection.keys.clone());
        (connection.name.clone(), Value::Object(keys))
    };
    let connections: Map<String, Value> = [connection(&from), connection(&to)].into_iter().collect();
    imported.files.push((".gitignore".to_owned(), ".subak/\n*.duckdb\n*.duckdb.wal\n".to_owned()));
    let project = [
        ("project".to_owned(), json!(plain(stem))),
        ("warehouse".to_owned(), json!(to.name)),
        ("connections".to_owned(), Value::Object(connections)),
    ];
    imported.files.insert(0, ("subak.yml".to_owned(), yaml(&project, 0)));
    Ok(imported)
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// A pattern does not name the streams that are declared on their own, those that are disabled among them.
fn leave_out(include: &str, single: &[String], from: &str, value: &mut Value) {
    let Ok(from) = from.parse() else { return };
    let pattern = StreamPattern { path: String::new(), from, include: include.to_owned(), exclude: Vec::new() };
    let named: Vec<&String> = single.iter().filter(|name| pattern.names(name)).collect();
    if !named.is_empty() {
        value["exclude"] = json!(named);
    }
}

/// What a stream says over what all say; mappings in it key by key.
fn merge(defaults: &Value, own: &Value) -> Map<String, Value> {
    let mut merged = defaults.as_object().cloned().unwrap_or_default();
    for (key, value) in own.as_object().into_iter().flatten() {
        match (merged.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(value)) => known.extend(value.clone()),
            _ => drop(merged.insert(key.clone(), value.clone())),
        }
    }
    merged
}

/// The names that keys and projects may have.
fn plain(text: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
    text.trim_matches('"').chars().map(letter).collect()
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

/// `$` begins references here.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// The texts of a value: one, or a list.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Schema, key and settings of a stream; `None` when it cannot be taken over.
fn stream(
    name: &str,
    merged: &Map<String, Value>,
    from: &Connection,
    to: &Connection,
    target: &str,
    imported: &mut Imported,
) -> Option<(String, String, Value)> {
    let is_file = from.kind == "files";
    let notes = &mut imported.notes;
    if merged.get("disabled").is_some_and(|value| matches!(value.as_str(), Some("true")) || *value == json!(true)) {
        notes.push(format!("`{name}` is disabled and left out"));
        return None;
    }
    let is_pattern = is_pattern(name) && !is_file;
    let get = |key: &str| merged.get(key).unwrap_or(&Value::Null);
    let object = get("object").as_str().unwrap_or("{target_schema}.{stream_schema}_{stream_table}");
    if is_file && name.contains(['*', '?']) && object.contains("{stream_file") {
        notes.push(format!("`{name}` is left out: each of its files would be a table of its own"));
        return None;
    }
    let Some((schema, asset)) = table_of(object, name, is_pattern, is_file, to, target) else {
        notes.push(format!("`{name}` is left out: its object `{object}` has parts that are known only when it runs"));
        return None;
    };
    let mut out = Map::new();
    let key = if is_pattern { name.to_owned() } else { plain(&asset) };
    if is_pattern && asset != "{table}" {
        out.insert("asset".to_owned(), json!(asset));
    } else if is_file {
        out.insert("path".to_owned(), json!(escaped(&file_path(name, &from.base))));
    } else if key != name && !is_pattern {
        out.insert("stream".to_owned(), json!(escaped(&name.replace('"', ""))));
    }
    mode(name, merged, &mut out, notes);
    for (theirs, ours) in [("where", "where"), ("sql", "sql")] {
        match get(theirs).as_str() {
            Some(text) if text.starts_with("file://") || text.contains("{incremental") => {
                notes.push(format!("`{name}` is left out: its `{theirs}` ({}) has parts of Sling's own", short(&json!(text))));
                return None;
            }
            Some(text) => drop(out.insert(ours.to_owned(), json!(escaped(text)))),
            None => {}
        }
    }
    let select = texts(get("select"));
    let (excluded, wanted): (Vec<&String>, Vec<&String>) = select.iter().partition(|column| column.starts_with('-'));
    if !wanted.is_empty() && !wanted.iter().any(|column| column.contains('*')) {
        out.insert("select".to_owned(), json!(wanted));
    }
    if !excluded.is_empty() || wanted.iter().any(|column| column.contains('*')) {
        notes.push(format!(
            "`{name}` is left out: its `select` ({}) leaves columns out; list those that stay",
            short(get("select"))
        ));
        return None;
    }
    columns(name, get("columns"), &mut out, notes);
    let same = ["description", "tags"].into_iter().filter(|key| !get(key).is_null());
    out.extend(same.map(|key| (key.to_owned(), get(key).clone())));
    options(name, merged, is_file, &mut out, notes);
    hooks(name, merged, [from, to], &mut out, notes);
    for key in merged.keys() {
        if !KNOWN.contains(&key.as_str()) || matches!(key.as_str(), "transforms" | "schedule") {
            notes.push(format!("`{key}` of `{name}` has no counterpart"));
        }
    }
    Some((schema, key, Value::Object(out)))
}

/// Schema and table of an object. For a pattern the table may keep `{table}` and `{schema}`.
fn table_of(
    object: &str,
    stream: &str,
    is_pattern: bool,
    is_file: bool,
    to: &Connection,
    target: &str,
) -> Option<(String, String)> {
    let stream = stream.replace('"', "");
    let (schema, table) = if is_file {
        let file = stream.rsplit('/').next().unwrap_or(&stream);
        (String::new(), file.split('.').next().unwrap_or(file).replace('*', ""))
    } else {
        stream.rsplit_once('.').map_or((String::new(), stream.clone()), |(schema, table)| (schema.to_owned(), table.to_owned()))
    };
    let mut text = object.replace('"', "").replace("{target_schema}", &to.schema).replace("{target_name}", target);
    let known_schema = !schema.contains(['*', '?']);
    for (name, value, is_known) in [
        ("stream_schema", &schema, known_schema),
        ("stream_table", &table, !is_pattern),
        ("stream_name", &stream, !is_pattern),
        ("stream_file_name", &table, true),
        ("stream_file_folder", &String::new(), false),
    ] {
        for (ending, value) in [("", value.clone()), ("_lower", value.to_lowercase()), ("_upper", value.to_uppercase())] {
            if is_known {
                text = text.replace(&format!("{{{name}{ending}}}"), &value);
            }
        }
    }
    let (schema, table) = text.rsplit_once('.').map_or(("", text.as_str()), |(schema, table)| (schema, table));
    let table = table
        .replace("{stream_table}", "{table}")
        .replace("{stream_schema}", "{schema}")
        .replace("{stream_table_lower}", "{table}");
    let rest = table.replace("{table}", "").replace("{schema}", "");
    let is_whole = !schema.contains('{')
        && !rest.contains('{')
        && (is_pattern || rest == table)
        && (!is_pattern || table.contains("{table}"));
    is_whole.then(|| (plain(schema), table))
}

/// The mode, the key and the cursor.
fn mode(name: &str, merged: &Map<String, Value>, out: &mut Map<String, Value>, notes: &mut Vec<String>) {
    let key = texts(merged.get("primary_key").unwrap_or(&Value::Null));
    let cursor = merged.get("update_key").and_then(Value::as_str).filter(|key| !key.starts_with('.'));
    let mode = merged.get("mode").and_then(Value::as_str).unwrap_or("full-refresh");
    let (word, takes_key, takes_cursor) = match (mode, key.is_empty(), cursor.is_some()) {
        ("full-refresh" | "truncate", ..) => ("replace", false, false),
        ("incremental" | "backfill", false, has_cursor) => ("merge", true, has_cursor),
        ("incremental" | "backfill", true, true) => ("append", false, true),
        ("snapshot", ..) => ("append", false, false),
        _ => ("replace", false, false),
    };
    match mode {
        "backfill" => notes.push(format!("`{name}` is a backfill: run its range with `--from` and `--until`")),
        "snapshot" => {
            out.insert("derive".to_owned(), json!({ "_sling_loaded_at": "run.started_at" }));
        }
        "incremental" if key.is_empty() && cursor.is_none() => {
            notes.push(format!("`{name}` is incremental without a key: its table is replaced as a whole"));
        }
        "full-refresh" | "truncate" | "incremental" => {}
        other => notes.push(format!("the mode `{other}` of `{name}` has no counterpart: its table is replaced as a whole")),
    }
    out.insert("mode".to_owned(), json!(word));
    if takes_key {
        out.insert("primary_key".to_owned(), json!(key));
    }
    if let (true, Some(cursor)) = (takes_cursor, cursor) {
        out.insert("cursor".to_owned(), json!(cursor));
    }
}

/// Declared types.
fn columns(name: &str, value: &Value, out: &mut Map<String, Value>, notes: &mut Vec<String>) {
    let mut types = Map::new();
    let lists: Vec<&Map<String, Value>> = match value {
        Value::Object(columns) => vec![columns],
        Value::Array(items) => items.iter().filter_map(Value::as_object).collect(),
        _ => Vec::new(),
    };
    for (column, declared) in lists.into_iter().flatten() {
        let declared = declared.as_str().unwrap_or_default();
        let (word, constraint) =
            declared.split_once('|').map_or((declared.trim(), None), |(word, rest)| (word.trim(), Some(rest)));
        if let Some(constraint) = constraint {
            notes.push(format!(
                "the constraint `{}` of `{name}.{column}` is no check yet: write it under `checks:`",
                constraint.trim()
            ));
        }
        let ours = match word.to_ascii_lowercase().as_str() {
            "bigint" => "bigint".to_owned(),
            "integer" | "int" => "integer".to_owned(),
            "smallint" => "smallint".to_owned(),
            "bool" | "boolean" => "boolean".to_owned(),
            "float" | "double" => "double".to_owned(),
            "date" => "date".to_owned(),
            "time" => "time".to_owned(),
            "datetime" | "timestamp" => "datetime".to_owned(),
            "timestampz" | "timestamptz" => "timestamp".to_owned(),
            "json" => "json".to_owned(),
            "uuid" => "uuid".to_owned(),
            "binary" => "bytes".to_owned(),
            "decimal" => "decimal(38,9)".to_owned(),
            text if text.starts_with("decimal(") => text.replace(' ', ""),
            text if text.starts_with("string") || text.starts_with("text") || text.starts_with("varchar") => "text".to_owned(),
            other => {
                notes.push(format!("the type `{other}` of `{name}.{column}` is not known and left out"));
                continue;
            }
        };
        if column == "*" {
            notes.push(format!("a type for every column of `{name}` has no counterpart"));
        } else {
            types.insert(column.clone(), json!(ours));
        }
    }
    if !types.is_empty() {
        out.insert("columns".to_owned(), Value::Object(types));
    }
}

/// Options of the source and the target.
fn options(name: &str, merged: &Map<String, Value>, is_file: bool, out: &mut Map<String, Value>, notes: &mut Vec<String>) {
    for (key, value) in merged.get("source_options").and_then(Value::as_object).into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let ours = match key.as_str() {
            "limit" => "limit",
            "delimiter" | "header" | "encoding" | "sheet" | "range" | "format" if is_file => key.as_str(),
            "null_if" if is_file => "null",
            _ => {
                notes.push(format!("`source_options.{key}` of `{name}` has no counterpart"));
                continue;
            }
        };
        out.insert(ours.to_owned(), json!(escaped(&text)));
    }
    for (key, value) in merged.get("target_options").and_then(Value::as_object).into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match (key.as_str(), text.as_str()) {
            ("column_casing", "snake" | "normalize") => drop(out.insert("naming".to_owned(), json!("snake_case"))),
            ("column_casing", "lower") => drop(out.insert("naming".to_owned(), json!("lower"))),
            ("column_casing", "source") | ("add_new_columns" | "adjust_column_type", "true") => {}
            ("pre_sql" | "post_sql", _) => {}
            ("add_new_columns", "false") => drop(out.insert("contract".to_owned(), json!("freeze"))),
            _ => notes.push(format!("`target_options.{key}` of `{name}` has no counterpart")),
        }
    }
}

/// Statements around a stream. `between` are its source and its target.
fn hooks(
    name: &str,
    merged: &Map<String, Value>,
    between: [&Connection; 2],
    out: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) {
    let [source, target] = between;
    let mut taken = Map::new();
    for (ours, option, place) in [("before", "pre_sql", "pre"), ("after", "post_sql", "post")] {
        let own = merged.get("target_options").and_then(|options| options.get(option)).and_then(Value::as_str);
        let mut list: Vec<Value> = Vec::new();
        let items = merged.get("hooks").and_then(|hooks| hooks.get(place)).and_then(Value::as_array).into_iter().flatten();
        for item in items {
            let text = |key: &str| item[key].as_str().unwrap_or_default();
            let on = match text("connection") {
                "" | "{target.name}" => Some(target),
                "{source.name}" => Some(source),
                named => between.into_iter().find(|known| known.name == plain(named)),
            };
            let mut keys = item.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
            let is_plain = keys.all(|key| matches!(key, "type" | "connection" | "query" | "id"));
            match on {
                Some(on) if text("type") == "query" && is_plain => {
                    list.push(json!({ "sql": text("query"), "on": on.name }));
                }
                _ => notes.push(format!("a hook `{}` of `{name}` ({place}) has no counterpart", text("type"))),
            }
        }
        // Hooks stand around what the load itself does.
        let own = own.map(|sql| json!(sql));
        if place == "pre" {
            list.extend(own);
        } else {
            list.splice(0..0, own);
        }
        let statement = |item: &Value| item.as_str().or_else(|| item["sql"].as_str()).unwrap_or_default().to_owned();
        let (kept, templated): (Vec<Value>, Vec<Value>) =
            list.into_iter().partition(|item| !statement(item).contains('{') && !statement(item).trim().is_empty());
        if !templated.is_empty() {
            notes.push(format!("a statement of `{name}` ({place}) has parts that only Sling knows, and is left out"));
        }
        if !kept.is_empty() {
            taken.insert(ours.to_owned(), Value::Array(kept));
        }
    }
    for place in merged.get("hooks").and_then(Value::as_object).into_iter().flatten().map(|(place, _)| place) {
        if !matches!(place.as_str(), "pre" | "post") {
            notes.push(format!("`hooks.{place}` of `{name}` has no counterpart"));
        }
    }
    if !taken.is_empty() {
        out.insert("hooks".to_owned(), Value::Object(taken));
    }
}

/// What Sling's `env.yaml` says of a connection.
struct Given(Map<String, Value>);

impl Given {
    fn of(theirs: &str, environment: &Value) -> Self {
        let mut connections = environment["connections"].as_object().into_iter().flatten();
        let known = connections.find(|(known, _)| known.eq_ignore_ascii_case(theirs));
        let mut given = match known.map(|(_, value)| value) {
            Some(Value::Object(keys)) => keys.clone(),
            Some(Value::String(url)) => Map::from_iter([("url".to_owned(), json!(url))]),
            _ => Map::new(),
        };
        if theirs.contains("://") {
            given.insert("url".to_owned(), json!(theirs));
        }
        if let Some(url) = given.get("url").and_then(Value::as_str).map(str::to_owned) {
            take_url(&url, &mut given);
        }
        Self(given)
    }

    /// The first of these keys that says something.
    fn get(&self, keys: &[&str]) -> Option<String> {
        let text = |key: &&str| self.0.get(*key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        keys.iter().filter_map(text).find(|text| !text.is_empty())
    }
}

/// The type of connection here, empty where there is none.
fn kind_of(theirs: &str) -> &'static str {
    match theirs {
        "postgres" | "postgresql" => "postgres",
        "mysql" | "mariadb" => "mysql",
        "clickhouse" => "clickhouse",
        "duckdb" => "duckdb",
        "sqlite" => "sqlite",
        "file" | "local" | "s3" => "files",
        _ => "",
    }
}

/// A connection by the name that the replication uses; what is known of it stands in Sling's `env.yaml`.
fn connection(theirs: &str, role: &str, environment: &Value, base: &Path, imported: &mut Imported) -> Connection {
    let given = Given::of(theirs, environment);
    // An address may have a password in it.
    let theirs = if theirs.contains("://") { role } else { theirs };
    let name = plain(theirs);
    let local = || theirs.eq_ignore_ascii_case("local").then(|| "file".to_owned());
    let kind = given.get(&["type"]).or_else(local).unwrap_or_default();
    let ours = kind_of(&kind);
    let mut keys = keys_of(ours, &kind, &given, base);
    for key in given.0.keys().filter(|key| !KNOWN_OF_CONNECTIONS.contains(&key.as_str())) {
        imported.notes.push(format!("`{key}` of the connection `{theirs}` has no counterpart"));
    }
    if given.get(&["sslmode"]).is_some_and(|mode| mode.starts_with("verify-ca") || mode == "allow") {
        imported.notes.push(format!("the `sslmode` of the connection `{theirs}` is not known: choose one in `subak.yml`"));
    }
    match (ours, kind.as_str()) {
        ("", "") => {
            let what = "nothing says what it is; name Sling's `env.yaml` with `--env`";
            imported.notes.push(format!("connection `{theirs}`: {what}, or write it in `subak.yml`"));
        }
        ("", kind) => imported.notes.push(format!("connection `{theirs}`: there is no connector for `{kind}`")),
        ("clickhouse", _) => {
            imported
                .notes
                .push(format!("`{name}`: ClickHouse is spoken to over HTTP; correct the port in `url:` if it is not 8123"));
        }
        _ => {}
    }
    if let Some(password) = given.get(&["password", "secret_access_key"]) {
        let secret = format!("{name}_password");
        let key = if kind == "s3" { "secret_key" } else { "password" };
        match variable(&password) {
            Some(variable) => drop(keys.insert(key.to_owned(), json!(variable))),
            None => {
                keys.insert(key.to_owned(), json!(format!("${{secret:{secret}}}")));
                imported.secrets.push((secret, password));
            }
        }
    }
    let schema_usual = || match ours {
        "postgres" => "public".to_owned(),
        "mysql" => given.get(&["database"]).unwrap_or_else(|| "main".to_owned()),
        _ => "main".to_owned(),
    };
    let schema = given.get(&["schema"]).unwrap_or_else(schema_usual);
    let kind = match (ours, kind.as_str()) {
        ("", "") => "unknown".to_owned(),
        ("", _) => kind,
        _ => ours.to_owned(),
    };
    Connection { name, kind, keys, schema, base: base.to_path_buf() }
}

/// A value that is a variable of the environment and nothing else, as it is written here.
fn variable(text: &str) -> Option<String> {
    let name = text.strip_prefix('$')?;
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| format!("${{{name}}}"))
}

/// The path of a file below the connection: behind the bucket of a store, or below `/`.
fn file_path(stream: &str, base: &Path) -> String {
    if let Some(place) = stream.strip_prefix("s3://") {
        return place.split_once('/').map_or(place, |(_, key)| key).to_owned();
    }
    let path = base.join(stream.strip_prefix("file://").unwrap_or(stream));
    path.display().to_string().trim_start_matches('/').to_owned()
}

/// Keys of connections that are read, and such as say nothing more.
const KNOWN_OF_CONNECTIONS: [&str; 20] = [
    "type",
    "url",
    "host",
    "port",
    "database",
    "user",
    "username",
    "password",
    "schema",
    "sslmode",
    "instance",
    "path",
    "http_url",
    "bucket",
    "region",
    "endpoint",
    "access_key_id",
    "secret_access_key",
    "name",
    "role",
];

/// The keys of a connection here, but for its password.
fn keys_of(ours: &str, kind: &str, given: &Given, base: &Path) -> Map<String, Value> {
    let mode = given.get(&["sslmode"]).filter(|mode| matches!(mode.as_str(), "disable" | "prefer" | "require" | "verify-full"));
    let user = given.get(&["user", "username"]);
    let pairs = match ours {
        "postgres" | "mysql" => vec![
            ("host", given.get(&["host"])),
            ("port", given.get(&["port"])),
            ("database", given.get(&["database"])),
            ("user", user),
            ("sslmode", mode),
        ],
        "clickhouse" => vec![
            ("url", given.get(&["host"]).map(|host| format!("http://{host}:8123"))),
            ("database", given.get(&["database"])),
            ("user", user),
        ],
        "duckdb" | "sqlite" => {
            let path = given.get(&["instance", "path", "database"]);
            vec![("path", path.map(|path| base.join(path).display().to_string()))]
        }
        "files" if kind == "s3" => vec![
            ("url", given.get(&["bucket"]).map(|bucket| format!("s3://{bucket}"))),
            ("region", given.get(&["region"])),
            ("endpoint", given.get(&["endpoint"])),
            ("key_id", given.get(&["access_key_id"])),
        ],
        "files" => vec![("path", Some("/".to_owned()))],
        _ => Vec::new(),
    };
    pairs
        .into_iter()
        .filter_map(|(key, value)| {
            Some((key.to_owned(), {
                let value = value?;
                json!(variable(&value).unwrap_or_else(|| escaped(&value)))
            }))
        })
        .collect()
}

/// The parts of an address such as `postgres://user:word@host:5432/db?sslmode=require`.
fn take_url(url: &str, keys: &mut Map<String, Value>) {
    let Some((kind, rest)) = url.split_once("://") else { return };
    keys.insert("type".to_owned(), json!(kind));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if matches!(kind, "duckdb" | "sqlite") {
        keys.insert("path".to_owned(), json!(rest));
        return;
    }
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (who, place) = place.rsplit_once('@').map_or(("", place), |(who, place)| (who, place));
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    let (host, port) = place.split_once(':').unwrap_or((place, ""));
    for (key, value) in [("user", user), ("password", password), ("host", host), ("port", port), ("database", database)] {
        if !value.is_empty() {
            keys.insert(key.to_owned(), json!(decoded(value)));
        }
    }
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        keys.insert(key.to_owned(), json!(decoded(value)));
    }
}

/// A part of an address, its `%` taken back.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digits = rest.clone().take(2).map(|digit| char::from(digit).to_digit(16));
        match (byte, digits.next().flatten(), digits.next().flatten()) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest.nth(1);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let mut keys = Map::new();
        take_url("postgres://me:p%40ss@db.internal:5433/shop?sslmode=require", &mut keys);
        assert_eq!(
            Value::Object(keys),
            json!({
                "type": "postgres", "user": "me", "password": "p@ss", "host": "db.internal", "port": "5433", "database": "shop", "sslmode": "require"
            })
        );
    }

    #[test]
    fn objects_name_tables() {
        let to =
            Connection { name: "t".into(), kind: "duckdb".into(), keys: Map::new(), schema: "main".into(), base: PathBuf::new() };
        let table = |object: &str, stream: &str, is_pattern| table_of(object, stream, is_pattern, false, &to, "T");
        for (object, stream, is_pattern, expect) in [
            ("{target_schema}.{stream_schema}_{stream_table}", "public.orders", false, Some(("main", "public_orders"))),
            ("new.{stream_table_lower}", "public.\"Orders\"", false, Some(("new", "orders"))),
            ("plain", "orders", false, Some(("", "plain"))),
            ("new.{stream_schema}_{stream_table}", "my_schema.*", true, Some(("new", "my_schema_{table}"))),
            ("{stream_schema}.{stream_table}", "*.orders", true, None),
            ("new.{run_timestamp}", "a.b", false, None),
            ("new.fixed", "a.*", true, None),
        ] {
            let expect = expect.map(|(schema, table)| (schema.to_owned(), table.to_owned()));
            assert_eq!(table(object, stream, is_pattern), expect, "{object} {stream}");
        }
    }
}
