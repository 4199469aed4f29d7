//! Broken projects: a folder of small projects, each with the rendered problems as a golden file.
//!
//! `NAME.project` holds the files, each behind a line `-- path`; `NAME.expected` what loading says. `UPDATE_EXPECT=1` writes the
//! expected files anew: read them before you commit them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use subak_diag::{codes, to_text};
use subak_domain::Writes;
use subak_domain::config::{ConfigSchema, Field, FieldKind};
use subak_project::{ConnectorInfo, Content, Files, LoadOptions, load};

const fn field(name: &'static str, kind: FieldKind, is_required: bool) -> Field {
    Field { name, kind, is_required, doc: "What it means." }
}

/// Connectors that can less than the real ones: what is tested here is loading.
const CONNECTORS: &[ConnectorInfo] = &[
    ConnectorInfo {
        kind: "duckdb",
        summary: "A warehouse",
        config: ConfigSchema {
            connection: &[field("path", FieldKind::Path, true), field("threads", FieldKind::Integer, false)],
            stream: &[],
        },
        is_source: true,
        writes: Writes::Rows,
        dialect: Some("duckdb"),
        stores_as: subak_domain::StoredAs::USUAL,
        has_schemas: true,
        runs_statements: true,
        lists_files: false,
    },
    ConnectorInfo {
        kind: "files",
        summary: "Files",
        config: ConfigSchema {
            connection: &[field("path", FieldKind::Path, false)],
            stream: &[
                field("path", FieldKind::Text, false),
                field("format", FieldKind::Word(&["csv", "json"]), false),
                field("header", FieldKind::Boolean, false),
            ],
        },
        is_source: true,
        writes: Writes::Nothing,
        dialect: None,
        stores_as: &[],
        has_schemas: false,
        runs_statements: false,
        lists_files: true,
    },
    ConnectorInfo {
        kind: "api",
        summary: "Something with a password, written only",
        config: ConfigSchema {
            connection: &[field("host", FieldKind::Text, true), field("password", FieldKind::Secret, false)],
            stream: &[],
        },
        is_source: false,
        writes: Writes::WholeTables,
        dialect: None,
        stores_as: &[],
        has_schemas: false,
        runs_statements: false,
        lists_files: false,
    },
];

fn files(text: &str) -> Files {
    let mut files = Files::new();
    for part in text.split("\n-- ").map(|part| part.strip_prefix("-- ").unwrap_or(part)) {
        let (path, content) = part.split_once('\n').unwrap_or((part, ""));
        let content = match content.trim_end() {
            "[unreadable]" => Content::Unreadable("Permission denied (os error 13)".into()),
            _ => Content::Text(format!("{}\n", content.trim_end()).into()),
        };
        files.insert(path.trim().into(), content);
    }
    files
}

fn problems(text: &str, profile: Option<&str>) -> String {
    let environment = BTreeMap::from([("HOST".to_owned(), "db".to_owned())]);
    let options = LoadOptions {
        connectors: CONNECTORS,
        environment: &environment,
        profile,
        as_of: Some("2026-11-21"),
        now: jiff::Timestamp::UNIX_EPOCH,
        vars: &environment,
    };
    let loaded = load(&files(text), &options);
    assert_eq!(loaded.project.is_none(), loaded.has_errors(), "a project is usable exactly when nothing is an error");
    loaded.problems.iter().map(|problem| to_text(problem, &loaded.sources, false)).collect::<Vec<_>>().join("\n")
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broken"))
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder of broken projects")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".project").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// T-153 (`pools`), T-163 (`unknown_key`), S3-9 (`many_at_once`): everything that is wrong is said at once, each with its place.
#[test]
#[expect(clippy::disallowed_methods, reason = "the switch of golden files, as in expect-test")]
fn broken_projects_say_what_is_wrong() {
    let names = names();
    assert!(names.len() >= 60, "{} broken projects", names.len());
    let is_updating = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(folder().join(format!("{name}.project"))).expect("a project");
        let profile = name.contains("profile").then_some("prod");
        let found = problems(&text, profile);
        assert!(!found.is_empty(), "`{name}` is not broken");
        let path = folder().join(format!("{name}.expected"));
        if is_updating {
            std::fs::write(&path, &found).expect("written");
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(&found) {
            wrong.push(format!("`{name}` says\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every code below SBK0230 is raised by loading; each has an example here.
#[test]
fn every_code_of_loading_has_an_example() {
    let mut seen = BTreeSet::new();
    for name in names() {
        let text = std::fs::read_to_string(folder().join(format!("{name}.expected"))).expect("expected");
        seen.extend(text.split('[').filter_map(|part| part.split_once(']').map(|(code, _)| code.to_owned())));
    }
    // Secrets are resolved when a connection is opened, not when a project is loaded.
    let is_loading = |id: &str| id < "SBK0230" && id != "SBK0120";
    let missing: Vec<&str> = codes::ALL.iter().map(|code| code.id).filter(|id| is_loading(id) && !seen.contains(*id)).collect();
    assert!(missing.is_empty(), "no broken project yields {missing:?}");
}
