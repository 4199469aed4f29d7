//! A ClickHouse server of one test: in a folder of its own, on a free port, stopped by its process id.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::{WAIT, WAIT_COUNT_MAX, free_port};

/// The Python that has the newest engine; `make setup` installs it and says where.
const PYTHON: Option<&str> = option_env!("SUBAK_TEST_CHDB");

/// Which engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClickHouseVersion {
    /// That of Debian, from 2018.
    Old,
    /// The newest one, in a process that speaks HTTP for it.
    New,
}

/// A running server.
#[derive(Debug)]
pub struct ClickHouse {
    folder: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
    version: ClickHouseVersion,
}

const CONFIG: &str = "<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <http_port>PORT</http_port><listen_host>127.0.0.1</listen_host><timezone>Asia/Jakarta</timezone>
  <path>FOLDER/data/</path><tmp_path>FOLDER/tmp/</tmp_path><user_files_path>FOLDER/files/</user_files_path>
  <users_config>FOLDER/users.xml</users_config><default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
</yandex>";

const USERS: &str = "<yandex>
  <profiles><default><max_memory_usage>2000000000</max_memory_usage></default></profiles>
  <users>
    <default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
    <clerk><password>secret</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></clerk>
  </users>
  <quotas><default></default></quotas>
</yandex>";

impl ClickHouse {
    /// Starts an empty server.
    ///
    /// # Panics
    /// When the engine is not installed or does not start.
    pub fn start(version: ClickHouseVersion) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self { folder, process: None, port: free_port(), version };
        server.resume();
        server
    }

    /// Starts the server again after [`ClickHouse::kill`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        let path = self.folder.path();
        let mut command = match self.version {
            ClickHouseVersion::Old => old(path, self.port),
            ClickHouseVersion::New => new(path, self.port),
        };
        let log = std::fs::File::create(path.join("log")).expect("a log");
        let output = log.try_clone().expect("a log");
        let mut process = command.stdout(output).stderr(log).spawn().expect("the server starts");
        for _ in 0..WAIT_COUNT_MAX {
            if process.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            if self.curl("select 1").output().is_ok_and(|output| output.status.success()) {
                self.process = Some(process);
                return;
            }
            std::thread::sleep(WAIT);
        }
        let log = std::fs::read_to_string(path.join("log")).unwrap_or_default();
        panic!("ClickHouse does not start: {log}");
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// The port of its HTTP interface at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn curl(&self, sql: &str) -> Command {
        let mut command = Command::new("curl");
        let file = self.folder.path().join("query");
        let mut text = std::fs::File::create(&file).expect("a file for the query");
        text.write_all(sql.as_bytes()).expect("the query is written");
        command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "120", "--data-binary"]);
        command.arg(format!("@{}", file.display())).arg(format!("http://127.0.0.1:{}/", self.port)).stdin(Stdio::null());
        command
    }

    /// Runs a statement with `curl`; the rows of a query as texts, NULL as `None`.
    ///
    /// # Panics
    /// When the statement fails.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let output = self.curl(sql).output().expect("curl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{sql}\n{text}");
        text.lines().map(|line| line.split('\t').map(cell).collect()).collect()
    }
}

fn old(path: &Path, port: u16) -> Command {
    let program = PathBuf::from("/usr/bin/clickhouse-server");
    assert!(
        program.exists() || Path::new("/usr/sbin/clickhouse-server").exists(),
        "ClickHouse is not installed; `apt-get install clickhouse-server` does it, and so does `make setup`"
    );
    let program = if program.exists() { program } else { PathBuf::from("/usr/sbin/clickhouse-server") };
    let folder = path.display().to_string();
    for name in ["data", "tmp", "files"] {
        std::fs::create_dir_all(path.join(name)).expect("a folder");
    }
    let config = CONFIG.replace("PORT", &port.to_string()).replace("FOLDER", &folder);
    std::fs::write(path.join("config.xml"), config).expect("the configuration");
    std::fs::write(path.join("users.xml"), USERS).expect("the users");
    let mut command = Command::new(program);
    command.arg(format!("--config-file={}", path.join("config.xml").display())).current_dir(path);
    command
}

fn new(path: &Path, port: u16) -> Command {
    let python = PYTHON.unwrap_or_else(|| panic!("the newest ClickHouse engine is not installed; `make setup` does it"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/clickhouse_http.py");
    let mut command = Command::new(python);
    command.arg(script).arg(path.join("data")).arg(port.to_string());
    command
}

/// A cell of `TabSeparated`.
fn cell(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('0') => out.push('\0'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Some(out)
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // Nothing of it is kept.
        self.kill();
    }
}
