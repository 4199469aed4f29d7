//! dbt projects: what `dbt:` says, and what dbt says of its project in `target/manifest.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value as Json;
use subak_domain::ConnectionName;
use subak_domain::job::{Command, Program};

use crate::config::connection_ref;
use crate::declare::{Common, Scope};
use crate::decode::{Context, Fields, text};
use crate::jobs::environment;
use crate::yaml::{self, Node, Value};
use crate::{Content, Files, keys};

/// Where dbt writes its manifest, in the folder of a project.
const MANIFEST: &str = "target/manifest.json";

/// A dbt project that the files name.
#[derive(Debug, Clone)]
pub(crate) struct DbtDeclaration {
    /// What holds for each of its assets; the key is a placeholder.
    pub(crate) common: Common,
    pub(crate) span: Range<usize>,
    pub(crate) on: ConnectionName,
    pub(crate) program: Program,
    pub(crate) arguments: Vec<String>,
    pub(crate) profiles: Option<String>,
    /// The path of the manifest.
    pub(crate) manifest: String,
}

/// Files outside of the project's folders that its declarations name, by path: the manifests of dbt.
pub fn named_files(files: &Files) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (path, content) in files {
        let Content::Text(text) = content else { continue };
        if !path.starts_with("assets/") || !path.ends_with(".yml") || !text.contains("dbt:") {
            continue;
        }
        // What is wrong with the file is told when it is loaded.
        for node in yaml::parse(path, text, &mut Vec::new()) {
            let folder = entry(&node, "dbt").and_then(|dbt| entry(dbt, "project"));
            if let Some(Value::Scalar { text, .. }) = folder.map(|folder| &folder.value) {
                found.insert(manifest_of(text));
            }
        }
    }
    found.into_iter().collect()
}

/// Whether a file is a manifest of dbt.
pub(crate) fn is_manifest(path: &str) -> bool {
    path == MANIFEST || path.ends_with(&format!("/{MANIFEST}"))
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
}

fn manifest_of(folder: &str) -> String {
    let folder = folder.trim_start_matches("./").trim_end_matches('/');
    if folder.is_empty() || folder == "." { MANIFEST.to_owned() } else { format!("{folder}/{MANIFEST}") }
}

/// Reads `dbt:`.
pub(crate) fn declaration(scope: &Scope<'_>, node: &Node, context: &mut Context<'_>) -> Option<DbtDeclaration> {
    let fields = Fields::of(node, keys::DBT, &[], "`dbt`", context)?;
    let folder = fields.text("project", context)?;
    let on = match fields.get("on") {
        None => scope.config.warehouse.clone(),
        Some(node) => connection_ref(text(node, "`on`", context)?, node, &scope.config.connections, context)?,
    };
    let words: Vec<String> = fields.texts("command", context).into_iter().map(|(word, _)| word.to_owned()).collect();
    let words = if words.is_empty() { vec!["dbt".to_owned()] } else { words };
    let mut arguments = Vec::new();
    if let Some(target) = fields.text("target", context) {
        arguments.extend(["--target".to_owned(), target.to_owned()]);
    }
    let mut vars = serde_json::Map::new();
    for (name, node) in fields.named("vars", context) {
        vars.insert(name.text.clone(), crate::json_value(node));
    }
    if !vars.is_empty() {
        arguments.extend(["--vars".to_owned(), Json::Object(vars).to_string()]);
    }
    let mut common = Common::new(placeholder()?, node.span.clone(), scope.config);
    common.read(&fields, context);
    let span = fields.name("project").map_or_else(|| node.span.clone(), |name| name.span.clone());
    let program = Program {
        command: Command::Direct(words),
        env: environment(&fields, context)?,
        dir: Some(folder.to_owned()),
        ..Program::default()
    };
    let profiles = fields.text("profiles", context).map(str::to_owned);
    Some(DbtDeclaration { common, span, on, program, arguments, profiles, manifest: manifest_of(folder) })
}

fn placeholder() -> Option<subak_domain::AssetKey> {
    "dbt".parse().ok()
}

/// What dbt says of a project.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manifest {
    /// Models, seeds and snapshots by their ids, those without a table among them.
    pub(crate) nodes: BTreeMap<String, ManifestNode>,
    /// Tables that something else fills, by their ids: schema and name.
    pub(crate) sources: BTreeMap<String, (String, String)>,
    /// Tests by their ids, with what they are about and how they are declared.
    pub(crate) tests: BTreeMap<String, ManifestTest>,
    /// Macros of the project itself; those of packages come with them.
    macros: BTreeMap<String, Macro>,
}

#[derive(Debug, Clone)]
pub(crate) struct ManifestNode {
    pub(crate) schema: String,
    pub(crate) table: String,
    /// Whether it is only a part of the queries that read it.
    pub(crate) is_ephemeral: bool,
    pub(crate) needs: Vec<String>,
    pub(crate) selector: String,
    pub(crate) description: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) columns: BTreeMap<String, String>,
    /// What decides its data: its text and how it is kept.
    content: String,
    /// Ids of the macros that it calls.
    macros: Vec<String>,
}

/// A macro of the project.
#[derive(Debug, Clone)]
struct Macro {
    text: String,
    macros: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct ManifestTest {
    pub(crate) attached: Option<String>,
    pub(crate) needs: Vec<String>,
    pub(crate) content: String,
}

fn texts(value: &Json) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn owned(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Manifest {
    /// Reads a manifest; the error says why it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let document: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if !document["nodes"].is_object() {
            return Err("it has no `nodes`".to_owned());
        }
        let mut manifest = Self::default();
        let own = document["metadata"]["project_name"].as_str().unwrap_or_default();
        for (id, node) in document["nodes"].as_object().into_iter().flatten() {
            match node["resource_type"].as_str() {
                Some("model" | "seed" | "snapshot") => {
                    manifest.nodes.insert(id.clone(), node_of(node, own));
                }
                Some("test") => {
                    let test = ManifestTest {
                        attached: node["attached_node"].as_str().map(str::to_owned),
                        needs: texts(&node["depends_on"]["nodes"]),
                        content: format!("{} {}", node["checksum"]["checksum"], node["config"]),
                    };
                    manifest.tests.insert(id.clone(), test);
                }
                _ => {}
            }
        }
        for (id, source) in document["sources"].as_object().into_iter().flatten() {
            manifest.sources.insert(id.clone(), (owned(&source["schema"]), owned(&source["identifier"])));
        }
        for (id, known) in document["macros"].as_object().into_iter().flatten().filter(|(_, known)| known["package_name"] == own)
        {
            let text = owned(&known["macro_sql"]);
            manifest.macros.insert(id.clone(), Macro { text, macros: texts(&known["depends_on"]["macros"]) });
        }
        Ok(manifest)
    }

    /// What decides the data of a node: its own text, those of nodes without a table that it reads, and the macros of the project that any of them
    /// calls, however far away.
    pub(crate) fn content_of(&self, id: &str) -> String {
        let (mut parts, mut called): (BTreeMap<&str, &str>, Vec<&String>) = (BTreeMap::new(), Vec::new());
        let mut open = vec![id];
        while let Some((id, node)) = open.pop().and_then(|id| self.nodes.get_key_value(id)) {
            if parts.insert(id, &node.content).is_none() {
                called.extend(&node.macros);
                let is_part = |need: &&String| self.nodes.get(*need).is_some_and(|node| node.is_ephemeral);
                open.extend(node.needs.iter().filter(is_part).map(String::as_str));
            }
        }
        while let Some(name) = called.pop() {
            let Some((name, known)) = self.macros.get_key_value(name) else { continue };
            if parts.insert(name, &known.text).is_none() {
                called.extend(&known.macros);
            }
        }
        parts.into_iter().map(|(name, text)| format!("{name} {text}\n")).collect::<Vec<_>>().concat()
    }

    /// The nodes with tables that one reads, also by way of those without, and the sources.
    pub(crate) fn reads(&self, id: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let (mut open, mut seen) = (vec![id], BTreeSet::new());
        while let Some(node) = open.pop().and_then(|id| self.nodes.get(id)) {
            for need in node.needs.iter().filter(|need| seen.insert(need.as_str())) {
                if self.nodes.get(need).is_some_and(|node| node.is_ephemeral) {
                    open.push(need);
                } else {
                    found.insert(need.as_str());
                }
            }
        }
        found
    }

    /// The tests of each node: those that are declared at it; others at the last of those that they read.
    pub(crate) fn tests_by_node(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut by_node: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, test) in &self.tests {
            let about = test.attached.as_ref().or_else(|| self.last_of(&test.needs));
            if let Some(node) = about.filter(|node| self.nodes.get(*node).is_some_and(|node| !node.is_ephemeral)) {
                by_node.entry(node).or_default().push(id);
            }
        }
        by_node
    }

    /// The first of these that no other of them reads.
    fn last_of<'m>(&'m self, ids: &'m [String]) -> Option<&'m String> {
        ids.iter().find(|id| !ids.iter().any(|other| other != *id && self.is_behind(other, id)))
    }

    fn is_behind(&self, id: &str, other: &str) -> bool {
        let (mut open, mut seen) = (vec![id], BTreeSet::new());
        while let Some(node) = open.pop().and_then(|id| self.nodes.get(id)) {
            if node.needs.iter().any(|need| need == other) {
                return true;
            }
            open.extend(node.needs.iter().map(String::as_str).filter(|need| seen.insert(need.to_string())));
        }
        false
    }
}

fn node_of(node: &Json, own: &str) -> ManifestNode {
    let file = node["original_file_path"].as_str().filter(|_| node["package_name"] == own);
    // The name of a model may be that of a folder besides, in which case its path tells them apart.
    let path = file.map(|file| format!(",path:{file}")).unwrap_or_default();
    let columns = node["columns"].as_object().into_iter().flatten();
    let columns = columns.filter_map(|(name, column)| Some((name.clone(), column["description"].as_str()?.to_owned())));
    ManifestNode {
        schema: owned(&node["schema"]),
        table: node["alias"].as_str().or(node["name"].as_str()).unwrap_or_default().to_owned(),
        is_ephemeral: node["config"]["materialized"] == "ephemeral",
        needs: texts(&node["depends_on"]["nodes"]),
        selector: format!("fqn:{}{path}", texts(&node["fqn"]).join(".")),
        description: node["description"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
        tags: texts(&node["tags"]),
        columns: columns.filter(|(_, meaning)| !meaning.is_empty()).collect(),
        content: format!("{} {}", node["checksum"]["checksum"], node["config"]),
        macros: texts(&node["depends_on"]["macros"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_reads_is_found_behind_ephemeral_ones() {
        let node = |needs: &[&str], kind: &str| {
            serde_json::json!({ "resource_type": "model", "schema": "main", "name": "n", "fqn": ["p", "n"],
                "config": { "materialized": kind }, "depends_on": { "nodes": needs } })
        };
        let test = serde_json::json!({ "resource_type": "test", "depends_on": { "nodes": ["a", "c"] } });
        let nodes = serde_json::json!({
            "nodes": { "a": node(&["source"], "table"), "b": node(&["a"], "ephemeral"), "c": node(&["b", "d"], "table"),
                "d": node(&[], "view"), "t": test },
            "sources": { "source": { "schema": "bronze", "identifier": "x" } }
        });
        let manifest = Manifest::parse(&nodes.to_string()).expect("a manifest");
        assert_eq!(manifest.reads("c").into_iter().collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(manifest.reads("a").into_iter().collect::<Vec<_>>(), ["source"]);
        assert_eq!(manifest.tests_by_node()["c"], ["t"], "`c` is behind `a`");
        let content = |text: &str| Manifest::parse(&nodes.to_string().replace("\"ephemeral\"", text)).expect("a manifest");
        let changed = content("\"ephemeral\",\"x\":1");
        assert_ne!(changed.content_of("c"), manifest.content_of("c"), "a part of its query has changed");
        assert_eq!(changed.content_of("d"), manifest.content_of("d"));
        assert!(Manifest::parse("{}").is_err());
    }

    #[test]
    fn manifests_are_found_where_files_name_them() {
        let text = |text: &str| Content::Text(text.into());
        let files = Files::from([
            ("assets/shop.yml".into(), text("dbt:\n  project: ./dbt/\n")),
            ("assets/own.yml".into(), text("dbt: { project: . }\n---\nseed: {}\n")),
            ("jobs/x.yml".into(), text("dbt: { project: no }\n")),
        ]);
        assert_eq!(named_files(&files), ["dbt/target/manifest.json", "target/manifest.json"]);
    }
}
