//! The editor schema (JSON Schema 2020-12) of project files, made from the key tables and the connectors of this build.

use serde_json::{Map, Value, json};
use subak_domain::config::{Field, FieldKind};
use subak_domain::notification::{EXPORT_KINDS, RECEIVER_KINDS, ReceiverKind};

use crate::ConnectorInfo;
use crate::keys::{self, Key, Shape};

const DURATION: &str = "^([0-9.]+ *(ns|us|µs|ms|s|sec|m|min|h|hr|hour|hours|d|day|days|w|week|weeks) *)+$";

/// The schema of `subak.yml`.
pub fn project(connectors: &[ConnectorInfo]) -> Value {
    document("Subak project", mapping(keys::PROJECT, &[], connectors))
}

/// The schema of YAML files below `tests/`.
pub fn tests(connectors: &[ConnectorInfo]) -> Value {
    document("Subak tests", mapping(keys::TEST_FILE, &[], connectors))
}

/// The schema of YAML files below `jobs/`.
pub fn jobs(connectors: &[ConnectorInfo]) -> Value {
    let kinds = [mapping(keys::JOB, &[], connectors), mapping(keys::SENSOR, &[], connectors)];
    let mut schema = document("Subak jobs", json!({ "oneOf": kinds }));
    if let Some(map) = schema.as_object_mut() {
        map.insert("$defs".into(), json!({ "task": mapping(keys::TASK, &[], connectors) }));
    }
    schema
}

/// The schema of YAML files below `assets/`.
pub fn assets(connectors: &[ConnectorInfo]) -> Value {
    document("Subak assets", mapping(keys::INGEST_FILE, &[], connectors))
}

fn document(title: &str, mut schema: Value) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), title.into());
    }
    schema
}

fn mapping(table: &[Key], extra: &[&Field], connectors: &[ConnectorInfo]) -> Value {
    let mut properties = Map::new();
    for key in table {
        let mut schema = shape(&key.shape, connectors);
        if let Some(map) = schema.as_object_mut() {
            map.insert("description".into(), key.doc.into());
        }
        properties.insert(key.name.into(), schema);
    }
    for field in extra {
        properties.insert(field.name.into(), self::field(field));
    }
    let required: Vec<&str> = table.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn shape(shape: &Shape, connectors: &[ConnectorInfo]) -> Value {
    match shape {
        Shape::Text => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Count => json!({ "type": "integer", "minimum": 1 }),
        Shape::Counts => json!({ "oneOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } },
            { "type": "object", "additionalProperties": { "type": "integer", "minimum": 1 } }
        ] }),
        Shape::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Duration => json!({ "type": "string", "pattern": DURATION }),
        // YAML reads the word `null` as nothing.
        Shape::Word(words) if words.contains(&"null") => {
            let mut words: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            words.push(Value::Null);
            json!({ "enum": words })
        }
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Texts => json!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }),
        Shape::Map(table) => mapping(table, &[], connectors),
        Shape::Named(inner) => json!({ "type": ["object", "null"], "additionalProperties": self::shape(inner, connectors) }),
        Shape::List(inner) => json!({ "type": "array", "items": self::shape(inner, connectors) }),
        Shape::Type => {
            let names: Vec<&str> = subak_domain::schema::TYPE_NAMES.iter().copied().filter(|name| !name.contains('(')).collect();
            json!({ "anyOf": [{ "enum": names }, { "type": "string", "pattern": "^decimal\\([0-9]+, *[0-9]+\\)$" }] })
        }
        Shape::TypeOr(table) => {
            json!({ "anyOf": [self::shape(&Shape::Type, connectors), mapping(table, &[], connectors)] })
        }
        Shape::Rows => json!({ "type": ["array", "null"], "items": { "type": "object" } }),
        Shape::TextOr(table) => json!({ "oneOf": [{ "type": "string" }, mapping(table, &[], connectors)] }),
        Shape::Stream(table) => {
            let mut fields: Vec<&Field> = connectors.iter().flat_map(|info| info.config.stream).collect();
            fields.sort_by_key(|field| field.name);
            fields.dedup_by_key(|field| field.name);
            let mut schema = mapping(table, &fields, connectors);
            if let Some(map) = schema.as_object_mut() {
                map.insert("type".into(), json!(["object", "null"]));
            }
            schema
        }
        Shape::Script(table) => {
            let of_files = connectors.iter().filter(|info| info.kind == "files").flat_map(|info| info.config.stream);
            let fields: Vec<&Field> = of_files.filter(|field| !keys::NOT_OF_SCRIPTS.contains(&field.name)).collect();
            let is_own = |key: &&Key| !keys::NOT_OF_SCRIPTS.contains(&key.name);
            let all: Vec<Key> = table.iter().chain(keys::STREAM.iter().filter(is_own)).copied().collect();
            mapping(&all, &fields, connectors)
        }
        Shape::Check => mapping(keys::CHECK, &[], connectors),
        Shape::Tasks => json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/task" } }),
        Shape::Program(table) => json!({ "oneOf": [
            { "type": "string" }, { "type": "array", "items": { "type": ["string", "number", "boolean"] } }, mapping(table, &[], connectors)
        ] }),
        Shape::Items => json!({ "oneOf": [{ "type": "string" }, { "type": "array" }] }),
        Shape::Body => json!({ "type": ["string", "object", "array"] }),
        Shape::Receiver => json!({ "oneOf": RECEIVER_KINDS.iter().map(receiver).collect::<Vec<_>>() }),
        Shape::Export => json!({ "oneOf": EXPORT_KINDS.iter().map(receiver).collect::<Vec<_>>() }),
        Shape::Connection => json!({ "oneOf": connectors.iter().map(connection).collect::<Vec<_>>() }),
    }
}

fn connection(info: &ConnectorInfo) -> Value {
    let mut properties = Map::new();
    properties.insert("type".into(), json!({ "const": info.kind }));
    properties.extend(info.config.connection.iter().map(|field| (field.name.to_owned(), self::field(field))));
    properties.insert(
        crate::config::PARALLEL.into(),
        json!({ "type": "integer", "minimum": 1, "description": "How many steps of a run use it at a time." }),
    );
    let required: Vec<&str> = std::iter::once("type")
        .chain(info.config.connection.iter().filter(|field| field.is_required).map(|field| field.name))
        .collect();
    json!({ "type": "object", "description": info.summary, "properties": properties, "required": required, "additionalProperties": false })
}

fn receiver(kind: &ReceiverKind) -> Value {
    let mut properties = Map::new();
    properties.insert("type".into(), json!({ "const": kind.kind }));
    properties.extend(kind.fields.iter().map(|field| (field.name.to_owned(), self::field(field))));
    let required: Vec<&str> =
        std::iter::once("type").chain(kind.fields.iter().filter(|field| field.is_required).map(|field| field.name)).collect();
    json!({ "type": "object", "description": kind.doc, "properties": properties, "required": required, "additionalProperties": false })
}

fn field(field: &Field) -> Value {
    let mut schema = match field.kind {
        FieldKind::Text | FieldKind::Path | FieldKind::Secret => json!({ "type": "string" }),
        FieldKind::Integer => json!({ "type": ["integer", "string"] }),
        FieldKind::Boolean => json!({ "type": ["boolean", "string"] }),
        FieldKind::Word(words) => json!({ "enum": words }),
        FieldKind::Map(inner) => mapping(&[], &inner.iter().collect::<Vec<_>>(), &[]),
        FieldKind::Texts => json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } }),
    };
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".into(), field.doc.into());
    }
    schema
}
