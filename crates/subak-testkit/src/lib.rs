//! Development only: temporary projects, running the binary, filters that take what varies out of its output.

mod clickhouse;
mod http;
mod listening;
mod mariadb;
mod mongodb;
mod objects;
mod postgres;
mod proxy;
mod served;
mod server;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub use clickhouse::{ClickHouse, ClickHouseVersion};
pub use http::{HttpDouble, HttpReply, HttpRequest};
pub use listening::{Heard, Listening, PASSWORD as USER_PASSWORD};
pub use mariadb::{MariaDb, PASSWORD as MARIADB_PASSWORD, USER as MARIADB_USER};
pub use mongodb::MongoDouble;
pub use objects::Objects;
pub use postgres::{PASSWORD as POSTGRES_PASSWORD, Postgres, USER as POSTGRES_USER};
pub use proxy::Proxy;
pub use served::Served;
pub use table::Table;

/// A folder with a project in it, gone when the value is dropped.
#[derive(Debug)]
pub struct Sandbox {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Standard output, filtered.
    pub out: String,
    /// Standard error, filtered.
    pub err: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
}

impl Ran {
    /// Fails with everything that was printed unless the command ended with `code`.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "most callers only want the check")]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl Sandbox {
    /// A folder with these files, for a binary built by the caller (`env!("CARGO_BIN_EXE_subak")`).
    ///
    /// # Panics
    ///
    /// When the folder or a file cannot be written.
    pub fn new(binary: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sandbox = Self { folder, binary: PathBuf::from(binary) };
        for (path, text) in files {
            sandbox.write(path, text);
        }
        sandbox
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the folder.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a folder for the file");
        }
        std::fs::write(path, text).expect("the file is written");
    }

    /// Copies a folder's files into the sandbox.
    ///
    /// # Panics
    ///
    /// When a file cannot be copied.
    pub fn copy(&self, from: &Path, to: &str) {
        let target = self.path().join(to);
        std::fs::create_dir_all(&target).expect("a folder for the copies");
        for entry in std::fs::read_dir(from).expect("the folder can be read").flatten() {
            if entry.path().is_dir() {
                self.copy(&entry.path(), &format!("{to}/{}", entry.file_name().to_string_lossy()));
            } else {
                std::fs::copy(entry.path(), target.join(entry.file_name())).expect("the file is copied");
            }
        }
    }

    /// A command of the binary in the folder, with an environment that says nothing.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for name in ["SUBAK_PROJECT", "SUBAK_PROFILE", "SUBAK_OUTPUT", "SUBAK_CRASH_AT", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the binary in the folder.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.finish(&mut self.command(arguments))
    }

    /// Runs a command that [`Sandbox::command`] made.
    ///
    /// # Panics
    ///
    /// When the binary cannot be started.
    pub fn finish(&self, command: &mut Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().expect("the binary starts");
        let filter = |bytes: &[u8]| self.filter(&String::from_utf8_lossy(bytes));
        Ran { out: filter(&stdout), err: filter(&stderr), code: status.code() }
    }

    /// Takes what varies out of a text: the folder, run ids, times, durations, process ids, sizes in memory.
    fn filter(&self, text: &str) -> String {
        let mut text = text.replace(&self.path().display().to_string(), "[DIR]");
        if let Ok(real) = self.path().canonicalize() {
            text = text.replace(&real.display().to_string(), "[DIR]");
        }
        text.lines().map(filter_line).collect::<Vec<_>>().join("\n")
    }
}

fn filter_line(line: &str) -> String {
    let cell = |word: &str| word.split(',').map(filter_word).collect::<Vec<_>>().join(",");
    let mut words: Vec<String> = line.split(' ').map(cell).collect();
    // `12.3 s`, `340 ms`, `12.3 KiB` are two words.
    for at in 1..words.len() {
        let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',');
        let unit = words[at].trim_end_matches([';', ',']).to_owned();
        if is_number(&words[at - 1]) && matches!(unit.as_str(), "s" | "ms" | "B" | "KiB" | "MiB" | "GiB") {
            let kind = if unit.ends_with('B') { "[SIZE]" } else { "[TIME]" };
            words[at] = words[at].replace(&unit, kind);
            words[at - 1] = String::new();
        }
        if words[at - 1] == "pid" && is_number(&words[at]) {
            words[at] = words[at].replace(words[at].trim_end_matches(','), "[PID]");
        }
    }
    words.join(" ").trim_end().to_owned()
}

fn filter_word(word: &str) -> String {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_run = core.len() == 26 && core.starts_with('0') && core.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
    let is_time = core.len() >= 19 && core.as_bytes()[4] == b'-' && core.contains('T') && core.ends_with('Z');
    if is_run {
        word.replace(core, "[RUN]")
    } else if is_time {
        word.replace(core, "[AT]")
    } else {
        word.to_owned()
    }
}

/// A Python with the packages that tests need; `make setup` says where it is.
const PYTHON: Option<&str> = option_env!("SUBAK_TEST_PYTHON");

/// The path of a Python with `dagster_pipes` and `cronsim`.
///
/// # Panics
/// When `make setup` has not run.
pub fn python() -> &'static str {
    PYTHON.unwrap_or_else(|| panic!("Python packages for tests are not installed; `make setup` does it"))
}

/// dbt; `make setup` says where it is.
const DBT: Option<&str> = option_env!("SUBAK_TEST_DBT");

/// The path of dbt with its adapters for DuckDB and PostgreSQL.
///
/// # Panics
/// When `make setup` has not run.
pub fn dbt() -> &'static str {
    DBT.unwrap_or_else(|| panic!("dbt is not installed; `make setup` does it"))
}

/// Where ADBC drivers are; `make setup` says it.
const ADBC: Option<&str> = option_env!("SUBAK_TEST_ADBC");

/// The whole path of an ADBC driver's library.
///
/// # Panics
/// When the driver is not installed.
pub fn adbc_driver(name: &str) -> String {
    let folder = ADBC.unwrap_or_else(|| panic!("ADBC drivers are not installed; `make setup` does it"));
    let path = format!("{folder}/libadbc_driver_{name}.so");
    assert!(Path::new(&path).exists(), "`{path}` is missing; `make setup` installs it");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_taken_out() {
        assert_eq!(
            filter_line("run 01M7Y5E7GQE79NFP590WQZWVYM took 12.3 s at 2026-11-21T04:22:10Z by pid 42, 7 rows"),
            "run [RUN] took  [TIME] at [AT] by pid [PID], 7 rows"
        );
    }
}
