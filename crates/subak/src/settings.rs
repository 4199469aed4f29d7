//! The environment: the only place where it is read. Names of variables stand here and nowhere else.

use std::collections::BTreeMap;

use subak_domain::Secret;

use crate::printer::ColorHints;

/// Secrets come from variables that begin with this, followed by the secret's name in capitals.
const SECRET_PREFIX: &str = "SUBAK_SECRET_";

/// Names a crash point, for tests: the process dies there as by `kill -9`.
const CRASH_AT: &str = "SUBAK_CRASH_AT";

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Variables that references may name; secrets are not among them.
    pub(crate) variables: BTreeMap<String, String>,
    secrets: BTreeMap<String, Secret>,
    secret_names: Vec<String>,
    pub(crate) colors: ColorHints,
    pub(crate) crash_at: Option<String>,
}

impl Settings {
    /// Reads the environment. Variables that are not UTF-8 are left out.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub(crate) fn from_environment() -> Self {
        let mut settings = Self::default();
        for (name, value) in std::env::vars_os() {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            match name.strip_prefix(SECRET_PREFIX) {
                Some(secret) => {
                    settings.secret_names.push(name.to_owned());
                    settings.secrets.insert(secret.to_ascii_uppercase(), Secret::new(value));
                }
                None => {
                    settings.variables.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        let is_set = |name: &str| settings.variables.get(name).is_some_and(|value| !value.is_empty());
        settings.colors = ColorHints {
            no_color: is_set("NO_COLOR"),
            force: is_set("CLICOLOR_FORCE") && settings.variables.get("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            dumb: settings.variables.get("TERM").is_some_and(|term| term == "dumb"),
        };
        settings.crash_at = settings.variables.get(CRASH_AT).filter(|name| !name.is_empty()).cloned();
        settings
    }

    /// The variables that hold secrets.
    pub(crate) fn secret_variables(&self) -> Vec<String> {
        self.secret_names.clone()
    }

    /// The program of this name on the `PATH`.
    pub(crate) fn program(&self, name: &str) -> Option<std::path::PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let is_program = |path: &std::path::PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let folders = self.variables.get("PATH")?.split(':').filter(|folder| !folder.is_empty());
        folders.map(|folder| std::path::Path::new(folder).join(name)).find(is_program)
    }

    /// The secret of this name, if the environment has it.
    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets.get(&name.to_ascii_uppercase()).cloned()
    }
}
