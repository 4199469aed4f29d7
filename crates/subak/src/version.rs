//! The files of a project as they could last be loaded: what a server goes on with while somebody repairs them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use subak_project::{Content, Files, Loader};

use crate::args::Global;
use crate::exit::CliError;
use crate::printer::Printer;
use crate::project::{self, Opened};
use crate::settings::Settings;

/// The file with the last version that could be loaded, in the folder of local state.
const FILE: &str = "loaded.json";

/// One version of the files, and what was parsed of them.
#[derive(Debug)]
pub(crate) struct Version {
    root: PathBuf,
    files: Files,
    loader: Mutex<Loader>,
}

/// What the files on the disk looked like before they were read.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint {
    own: u64,
    named: u64,
    /// Files elsewhere that the project's own name.
    names: Vec<String>,
}

impl Fingerprint {
    /// Whether a file of the project has changed, come or gone since, or one of those that it names elsewhere.
    pub(crate) fn is_old(&self, root: &Path) -> bool {
        project::fingerprint(root) != self.own || project::fingerprint_of(root, &self.names) != self.named
    }
}

impl Version {
    /// The files as they are on the disk. What changes while they are read is not what was seen, so that they are read again.
    pub(crate) fn read(root: &Path) -> (Self, Fingerprint) {
        let own = project::fingerprint(root);
        let mut files = project::own_files(root);
        let names = subak_project::named_files(&files);
        let named = project::fingerprint_of(root, &names);
        project::read_named(root, &names, &mut files);
        (Self::of(root, files), Fingerprint { own, named, names })
    }

    /// The version that [`Self::keep`] wrote; `None` where there is none that can be read.
    pub(crate) fn kept(root: &Path, global: &Global) -> Option<Self> {
        let text = std::fs::read_to_string(state_file(root, global)).ok()?;
        let Value::Object(entries) = serde_json::from_str(&text).ok()? else { return None };
        let entries = entries.into_iter().map(|(path, text)| Some((path.into(), Content::Text(text.as_str()?.into()))));
        Some(Self::of(root, entries.collect::<Option<Files>>()?))
    }

    fn of(root: &Path, files: Files) -> Self {
        Self { root: root.to_owned(), files, loader: Mutex::default() }
    }

    /// Writes the version down for the next server, all of it or nothing.
    pub(crate) fn keep(&self, global: &Global) -> std::io::Result<()> {
        let text = |content: &Content| match content {
            Content::Text(text) => Some(Value::from(&**text)),
            Content::Unreadable(_) => None,
        };
        let entries = self.files.iter().filter_map(|(path, content)| Some((path.to_string(), text(content)?)));
        let entries: Map<String, Value> = entries.collect();
        let file = state_file(&self.root, global);
        let folder = file.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut temporary, Value::Object(entries).to_string().as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(file)?;
        Ok(())
    }

    /// Loads it as of a time, or as of now. Files that were parsed for the same time before are not parsed again.
    pub(crate) fn open(
        &self,
        global: &Global,
        settings: &Settings,
        printer: Printer,
        as_of: Option<&str>,
    ) -> Result<Opened, CliError> {
        let as_of = as_of.map(str::to_owned).or_else(|| global.as_of.clone());
        let global = Global { as_of, ..global.clone() };
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = project::load_files(&mut loader, &self.files, &global, settings);
        drop(loader);
        project::opened_or(loaded, &self.root, &global, printer)
    }
}

fn state_file(root: &Path, global: &Global) -> PathBuf {
    project::state_folder(root, global.profile.as_deref()).join(FILE)
}
