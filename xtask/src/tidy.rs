//! Rules that no other tool holds: arrows between crates, sizes with ratchets, words, the weight of the lock file, generated
//! files, and what CONTRIBUTING promises.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::generate;

/// Crates that a crate of ours may use, of ours. What is not listed is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    ("subak-domain", &[]),
    ("subak-diag", &[]),
    ("subak-project", &["subak-domain", "subak-diag", "subak-plan"]),
    ("subak-plan", &["subak-domain"]),
    ("subak-connect", &["subak-domain"]),
    ("subak-connectors", &["subak-connect", "subak-domain"]),
    ("subak-notify", &["subak-domain"]),
    ("subak-server", &["subak-diag", "subak-domain", "subak-store"]),
    ("subak-store", &["subak-domain"]),
    ("subak-engine", &["subak-domain", "subak-plan", "subak-connect", "subak-store"]),
    ("subak-bench", &["subak-domain", "subak-engine", "subak-plan", "subak-project", "subak-store", "subak-testkit"]),
    ("subak-testkit", &[]),
    (
        "subak",
        &[
            "subak-connect",
            "subak-connectors",
            "subak-diag",
            "subak-domain",
            "subak-engine",
            "subak-notify",
            "subak-plan",
            "subak-project",
            "subak-server",
            "subak-store",
        ],
    ),
    ("xtask", &["subak-connectors", "subak-diag", "subak-project"]),
];

/// Crates that must not reach these, by whatever way.
const PURE: &[&str] = &["subak-domain", "subak-diag", "subak-project", "subak-plan"];
const IMPURE: &[&str] = &["tokio", "reqwest", "hyper", "rusqlite", "duckdb", "arrow"];

/// Packages in the lock file. Lower it when the count falls; raise it with a reason in the commit.
const LOCK_PACKAGE_COUNT_MAX: usize = 548;

/// Lines of a file, its tests included.
const FILE_LENGTH_MAX: usize = 1000;

/// Lines of a function. Functions that were longer when the rule came stand in `tidy.toml` and may only shrink.
const FUNCTION_LENGTH_MAX: usize = 70;

/// Words that stand for others here, or say nothing.
const BANNED: &[(&str, &str)] = &[
    ("materialised", "materialized"),
    ("data frame", "batch"),
    ("dead letter", "quarantine"),
    ("blazing", "a measured number"),
    ("simply ", "nothing"),
];

/// Runs every rule; returns what breaks them.
pub(crate) fn run(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    match metadata(root) {
        Ok(metadata) => arrows(&metadata, &mut problems),
        Err(error) => problems.push(format!("cargo metadata: {error}")),
    }
    let limits = limits(root);
    for file in sources(root) {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        size(&file, &text, &limits, &mut problems);
        words(&file, &text, &mut problems);
        bans(&file, &text, &mut problems);
    }
    for page in tracked(root, &["*.md"]) {
        let Ok(text) = std::fs::read_to_string(root.join(&page)) else { continue };
        words(&page, &text, &mut problems);
        links(root, &page, &text, &mut problems);
    }
    lock(root, &mut problems);
    generated(root, &mut problems);
    promises(root, &mut problems);
    problems
}

fn metadata(root: &Path) -> Result<Value, String> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn arrows(metadata: &Value, problems: &mut Vec<String>) {
    let packages: Vec<&Value> = metadata["packages"].as_array().into_iter().flatten().collect();
    let name_of: BTreeMap<&str, &str> =
        packages.iter().filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
    let members = texts(metadata, "workspace_members");
    // Normal dependencies only: a test may use what its crate may not.
    let mut normal: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().into_iter().flatten() {
        let Some(id) = node["id"].as_str() else { continue };
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let is_normal = dependency["dep_kinds"].as_array().into_iter().flatten().any(|kind| kind["kind"].is_null());
            if let Some(to) = dependency["pkg"].as_str().filter(|_| is_normal) {
                normal.entry(name_of[id]).or_default().push(name_of[to]);
            }
        }
    }
    for id in members {
        let name = name_of[id];
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("crate `{name}` is not in the table of arrows (xtask/src/tidy.rs)"));
            continue;
        };
        for to in normal.get(name).into_iter().flatten().filter(|to| to.starts_with("subak")) {
            if !allowed.contains(to) {
                problems.push(format!("crate `{name}` must not depend on `{to}` (ARCHITECTURE.md, arrows that stay absent)"));
            }
        }
        if PURE.contains(&name) {
            let mut reached = vec![name];
            let mut at = 0;
            while at < reached.len() {
                for to in normal.get(reached[at]).into_iter().flatten() {
                    if !reached.contains(to) {
                        reached.push(to);
                    }
                }
                at += 1;
            }
            for to in reached.iter().filter(|to| IMPURE.contains(to)) {
                problems.push(format!("crate `{name}` is pure and must not reach `{to}`"));
            }
        }
    }
}

fn tracked(root: &Path, patterns: &[&str]) -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(patterns)
        .current_dir(root)
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn sources(root: &Path) -> Vec<String> {
    tracked(root, &["crates/**/*.rs", "xtask/**/*.rs"])
}

/// `tidy.toml`: lines such as `"crates/x/src/y.rs" = 1200 # why` and `"crates/x/src/y.rs::name" = 90 # why`.
fn limits(root: &Path) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root.join("tidy.toml")).unwrap_or_default();
    let entry = |line: &str| {
        let (key, rest) = line.trim().strip_prefix('"')?.split_once('"')?;
        let number = rest.trim_start().strip_prefix('=')?.split('#').next()?.trim().parse().ok()?;
        Some((key.to_owned(), number))
    };
    text.lines().filter_map(entry).collect()
}

fn size(file: &str, text: &str, limits: &BTreeMap<String, usize>, problems: &mut Vec<String>) {
    let length = text.lines().count();
    let max = limits.get(file).copied().unwrap_or(FILE_LENGTH_MAX);
    if length > max {
        problems.push(format!("{file} has {length} lines; {max} are allowed (split it, or say why in tidy.toml)"));
    }
    for (name, line, length) in functions(text) {
        let max = limits.get(&format!("{file}::{name}")).copied().unwrap_or(FUNCTION_LENGTH_MAX);
        if length > max {
            problems.push(format!("{file}:{line}: function `{name}` has {length} lines; {max} are allowed"));
        }
    }
}

/// Functions by name, first line and number of lines. rustfmt closes a function with a brace in the column where it began.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.trim_start().split([' ', '(', '<']).collect();
        let Some(position) = words.iter().position(|word| *word == "fn") else { continue };
        let is_declaration =
            words[..position].iter().all(|word| ["pub", "async", "const", "unsafe", "crate)", "super)"].contains(word));
        let Some(name) = words.get(position + 1).filter(|_| is_declaration) else { continue };
        let close = format!("{}}}", " ".repeat(indent));
        // A declaration in a trait ends with a semicolon and has no body.
        let has_body =
            lines[at..].iter().find(|line| line.ends_with('{') || line.ends_with(';')).is_some_and(|line| line.ends_with('{'));
        if let Some(length) = lines[at..].iter().position(|line| *line == close).filter(|_| has_body) {
            found.push(((*name).to_owned(), at + 1, length + 1));
        }
    }
    found
}

fn words(file: &str, text: &str, problems: &mut Vec<String>) {
    if file.ends_with("tidy.rs") {
        return;
    }
    for (at, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (banned, instead) in BANNED {
            if lower.contains(banned) {
                problems.push(format!("{file}:{}: `{}` (say {instead})", at + 1, banned.trim()));
            }
        }
    }
}

/// Text rules for the arrows that the compiler does not see.
fn bans(file: &str, text: &str, problems: &mut Vec<String>) {
    // Build scripts speak to cargo by printing.
    let is_binary = file.starts_with("crates/subak/src/") || file.starts_with("xtask/") || file.ends_with("/build.rs");
    let is_test = file.contains("/tests/") || file.ends_with("/tests.rs") || file.starts_with("crates/subak-testkit/");
    let rules: &[(&str, bool, &str)] = &[
        ("println!", is_binary || is_test, "only the binary prints"),
        ("std::process::exit", is_binary, "only the binary ends the process"),
        ("#[ignore", false, "an ignored test proves nothing"),
        ("#[allow(", false, "use `#[expect(…, reason)]`"),
        (
            "duckdb::",
            is_test
                || file.starts_with("crates/subak-connectors/src/duckdb/")
                || file.starts_with("crates/subak-connectors/src/lib.rs"),
            "only the DuckDB connector names its driver",
        ),
    ];
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for (word, is_allowed, why) in rules {
            if !is_allowed && line.contains(word) && !file.ends_with("tidy.rs") {
                problems.push(format!("{file}:{}: `{word}`: {why}", at + 1));
            }
        }
    }
}

/// Relative links of a page lead somewhere.
fn links(root: &Path, page: &str, text: &str, problems: &mut Vec<String>) {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    for part in text.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else { continue };
        let target = target.split('#').next().unwrap_or_default();
        if target.is_empty() || target.contains("://") || target.contains(' ') {
            continue;
        }
        if !root.join(folder).join(target).exists() {
            problems.push(format!("{page}: the link to `{target}` leads nowhere"));
        }
    }
}

fn lock(root: &Path, problems: &mut Vec<String>) {
    let text = std::fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let count = text.matches("[[package]]").count();
    if count > LOCK_PACKAGE_COUNT_MAX {
        problems.push(format!("Cargo.lock has {count} packages; {LOCK_PACKAGE_COUNT_MAX} are allowed (xtask/src/tidy.rs)"));
    }
}

fn generated(root: &Path, problems: &mut Vec<String>) {
    for (path, text) in generate::files(root) {
        if std::fs::read_to_string(root.join(&path)).ok().as_ref() != Some(&text) {
            problems.push(format!("{path} is out of date: run `cargo xtask generate`"));
        }
    }
}

/// What CONTRIBUTING says about the cost of additions.
fn promises(root: &Path, problems: &mut Vec<String>) {
    // A connector: one folder, one line in the registry, one feature line.
    let manifest = std::fs::read_to_string(root.join("crates/subak-connectors/Cargo.toml")).unwrap_or_default();
    let registry = std::fs::read_to_string(root.join("crates/subak-connectors/src/lib.rs")).unwrap_or_default();
    let sources = root.join("crates/subak-connectors/src");
    let folders = std::fs::read_dir(sources).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    // What the embedded databases share is no connector.
    let folders = folders.filter(|entry| entry.file_name() != "staging" && entry.file_name() != "records");
    for name in folders.filter_map(|entry| entry.file_name().into_string().ok()) {
        let has_feature = manifest.lines().any(|line| line.starts_with(&format!("{name} = [")));
        let has_line = registry.matches(&format!("    &{name}::")).count() == 1;
        if !has_feature || !has_line {
            problems.push(format!("connector `{name}`: one feature line and one line in the registry are promised"));
        }
        for file in tracked(root, &["crates/**/*.rs"]) {
            let is_home = file.starts_with("crates/subak-connectors/") || file.contains("/tests/") || file.ends_with("tests.rs");
            let text = std::fs::read_to_string(root.join(&file)).unwrap_or_default();
            if !is_home && text.contains(&format!("subak_connectors::{name}")) {
                problems.push(format!("{file} names the connector `{name}`; only the registry does"));
            }
        }
    }
    // A command: one module, one variant, one line that calls it.
    let commands = std::fs::read_to_string(root.join("crates/subak/src/commands/mod.rs")).unwrap_or_default();
    for module in commands.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')) {
        if !commands.contains(&format!("{module}::")) {
            problems.push(format!("command module `{module}` is never called"));
        }
    }
}
