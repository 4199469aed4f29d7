//! Finding a project on disk, reading its files, loading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use subak_diag::{Diagnostic, Sources, codes};
use subak_domain::AssetGraph;
use subak_engine::{Clock, SystemClock};
use subak_project::{ConnectorInfo, Content, Files, LoadOptions, Loaded, Loader, Project};
use subak_store::SqliteStore;

use crate::args::Global;
use crate::exit::{CliError, Exit};
use crate::printer::Printer;
use crate::settings::Settings;

/// Folder of local state inside a project.
pub(crate) const STATE_FOLDER: &str = ".subak";

/// The folders of a project.
const FOLDERS: [&str; 5] = ["assets", "checks", "jobs", "macros", "tests"];

/// Files that a project may have at most.
const FILE_COUNT_MAX: usize = 200_000;

/// A project that was loaded from disk.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) root: PathBuf,
    pub(crate) profile: Option<String>,
    /// The time that counts as now, as wall-clock text in the project's time zone.
    pub(crate) as_of: String,
    /// What `{{ as_of }}` stands for: a date, unless a time was asked for.
    pub(crate) as_of_template: String,
    /// Whether a time was asked for; else now is the time at which somebody asks.
    pub(crate) is_as_of: bool,
    pub(crate) project: Project,
    pub(crate) sources: Sources,
}

impl Opened {
    /// The moment that counts as now.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        let wall = self.as_of.parse::<jiff::civil::DateTime>().ok().filter(|_| self.is_as_of);
        let zoned = wall.and_then(|wall| wall.to_zoned(self.timezone()).ok());
        zoned.map_or_else(|| SystemClock.now(), |zoned| zoned.timestamp())
    }

    pub(crate) fn graph(&self) -> &Arc<AssetGraph> {
        &self.project.graph
    }

    /// The project's time zone.
    pub(crate) fn timezone(&self) -> jiff::tz::TimeZone {
        zone_of(&self.project.config.timezone)
    }

    /// Whether it still is the day for which the templates were read.
    pub(crate) fn is_of_today(&self) -> bool {
        self.is_as_of || as_of(None, &self.project.config.timezone).starts_with(&self.as_of_template)
    }

    /// The folder of local state. Each profile has its own: what stands in one warehouse says nothing about another.
    pub(crate) fn state_folder(&self) -> PathBuf {
        state_folder(&self.root, self.profile.as_deref())
    }

    /// Opens the state where the project has one, and makes none.
    pub(crate) fn store_if_there(&self) -> Result<Option<SqliteStore>, CliError> {
        self.state_folder().join("state.db").exists().then(|| self.store()).transpose()
    }

    /// Opens the state.
    pub(crate) fn store(&self) -> Result<SqliteStore, CliError> {
        Ok(SqliteStore::open(&self.state_folder().join("state.db"))?)
    }
}

/// The folder of local state of a project under a profile.
pub(crate) fn state_folder(root: &Path, profile: Option<&str>) -> PathBuf {
    let folder = root.join(STATE_FOLDER);
    match profile {
        Some(profile) => folder.join("profiles").join(profile),
        None => folder,
    }
}

/// What project loading is told about the connectors of this build.
pub(crate) fn connectors() -> Vec<ConnectorInfo> {
    subak_connectors::CONNECTORS
        .iter()
        .map(|connector| {
            let abilities = connector.abilities();
            ConnectorInfo {
                kind: connector.kind(),
                summary: connector.summary(),
                config: connector.config(),
                is_source: abilities.source,
                writes: abilities.writes,
                dialect: abilities.sql.map(|dialect| dialect.name),
                stores_as: abilities.sql.map_or(&[], |dialect| dialect.stores_as),
                has_schemas: abilities.schemas,
                runs_statements: abilities.statements,
                lists_files: abilities.files,
            }
        })
        .collect()
}

/// The project's folder: the one that was named, or the nearest above that holds `subak.yml`.
pub(crate) fn find_root(global: &Global) -> Result<PathBuf, CliError> {
    let start = match &global.project {
        Some(folder) => folder.clone(),
        None => PathBuf::from("."),
    };
    let not_found = |why: String| {
        let problem = Diagnostic::error(codes::PROJECT_NOT_FOUND, why);
        CliError::new(problem.help("change into a project, name one with `-C`, or make one with `subak init`"), Exit::Invalid)
    };
    let absolute =
        start.canonicalize().map_err(|error| not_found(format!("the folder `{}` cannot be opened: {error}", start.display())))?;
    absolute
        .ancestors()
        .find(|folder| folder.join("subak.yml").exists())
        .map(Path::to_path_buf)
        .ok_or_else(|| not_found(format!("there is no `subak.yml` in `{}` or above it", absolute.display())))
}

/// A number that is another one when a file of the project has changed, come or gone.
pub(crate) fn fingerprint(root: &Path) -> u64 {
    let mut open: Vec<PathBuf> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    let mut seen = vec![root.join("subak.yml")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) { open.push(path) } else { seen.push(path) }
        }
    }
    seen.sort();
    fingerprint_of_paths(seen)
}

/// A number that is another one when one of these files, named from the project's folder, has changed, come or gone.
pub(crate) fn fingerprint_of(root: &Path, named: &[String]) -> u64 {
    fingerprint_of_paths(named.iter().map(|path| root.join(path)).collect())
}

fn fingerprint_of_paths(paths: Vec<PathBuf>) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    for path in paths {
        let found = path.metadata().ok().map(|metadata| (metadata.len(), metadata.modified().ok()));
        (path, found).hash(&mut hasher);
    }
    hasher.finish()
}

/// Reads the files in the project's own folders.
pub(crate) fn own_files(root: &Path) -> Files {
    let mut files = Files::new();
    read_into(root, "subak.yml", &mut files);
    for folder in FOLDERS {
        walk(root, folder, &mut files);
    }
    files
}

/// Reads files that the project's own files name elsewhere.
pub(crate) fn read_named(root: &Path, named: &[String], files: &mut Files) {
    for path in named {
        read_into(root, path, files);
    }
}

/// Reads the files that a project consists of.
pub(crate) fn read_files(root: &Path) -> Files {
    let mut files = own_files(root);
    read_named(root, &subak_project::named_files(&files), &mut files);
    files
}

fn walk(root: &Path, folder: &str, files: &mut Files) {
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        // Assets that cannot be seen must not look like assets that are gone.
        Err(error) => {
            files.insert(folder.into(), Content::Unreadable(error.to_string()));
            return;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with('~') || files.len() >= FILE_COUNT_MAX {
            continue;
        }
        let path = format!("{folder}/{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(root, &path, files),
            // Other endings are only named, so that a picture is not read as text.
            _ if ![".sql", ".yml", ".csv", ".lock", ".py", ".sh"].iter().any(|ending| name.ends_with(ending)) => {
                files.insert(path.into(), Content::Text("".into()));
            }
            _ => read_into(root, &path, files),
        }
    }
}

fn read_into(root: &Path, path: &str, files: &mut Files) {
    let content = match std::fs::read(root.join(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => Content::Unreadable(error.to_string()),
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Content::Text(text.into()),
            Err(error) => Content::Unreadable(error.to_string()),
        },
    };
    files.insert(path.into(), content);
}

/// Loads the project without printing.
pub(crate) fn load(root: &Path, global: &Global, settings: &Settings) -> Loaded {
    load_files(&mut Loader::default(), &read_files(root), global, settings)
}

/// Loads a project from contents of its files, without printing.
pub(crate) fn load_files(loader: &mut Loader, files: &Files, global: &Global, settings: &Settings) -> Loaded {
    let connectors = connectors();
    let vars: BTreeMap<String, String> = global.vars.iter().cloned().collect();
    let options = LoadOptions {
        connectors: &connectors,
        environment: &settings.variables,
        profile: global.profile.as_deref(),
        as_of: global.as_of.as_deref(),
        now: SystemClock.now(),
        vars: &vars,
    };
    loader.load(files, &options)
}

/// The time zone of this name; loading has refused names that are none.
fn zone_of(name: &str) -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get(name).unwrap_or(jiff::tz::TimeZone::UTC)
}

/// The time that counts as now: what was asked for, a date being its midnight, else the time in the project's zone.
pub(crate) fn as_of(asked: Option<&str>, timezone: &str) -> String {
    match asked {
        Some(date) if date.len() == 10 => format!("{date} 00:00:00"),
        Some(text) => text.replace('T', " "),
        None => SystemClock.now().to_zoned(zone_of(timezone)).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    }
}

/// A loaded project with its times.
pub(crate) fn opened(root: PathBuf, global: &Global, project: Project, sources: Sources) -> Opened {
    let as_of = as_of(global.as_of.as_deref(), &project.config.timezone);
    let as_of_template = global.as_of.clone().unwrap_or_else(|| as_of[..10].to_owned());
    let (profile, is_as_of) = (global.profile.clone(), global.as_of.is_some());
    Opened { root, profile, as_of, as_of_template, is_as_of, project, sources }
}

/// Finds and loads the project; prints warnings. An error among the problems ends the command.
pub(crate) fn open(global: &Global, settings: &Settings, printer: Printer) -> Result<Opened, CliError> {
    let root = find_root(global)?;
    opened_or(load(&root, global, settings), &root, global, printer)
}

/// What was loaded; prints warnings. An error among the problems is one of the command.
pub(crate) fn opened_or(loaded: Loaded, root: &Path, global: &Global, printer: Printer) -> Result<Opened, CliError> {
    match loaded.project {
        Some(project) => {
            if !printer.is_quiet {
                printer.problems(&loaded.problems, &loaded.sources);
            }
            let keys: Vec<&str> = project.graph.assets().iter().map(|asset| asset.key.as_str()).collect();
            crate::complete::remember(root, &keys);
            Ok(opened(root.to_owned(), global, project, loaded.sources))
        }
        None => Err(CliError { problems: loaded.problems, sources: loaded.sources, exit: Exit::Invalid }),
    }
}
