//! A PostgreSQL server of one test: in a folder of its own, on a free port, stopped by its process id.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::{self, WAIT, WAIT_COUNT_MAX, free_port, is_root, run};

/// Who connects, and with what.
pub const USER: &str = "subak";
/// The password of [`USER`].
pub const PASSWORD: &str = "sec'ret \\ pass";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
}

/// The newest installed server's programs.
fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    versions.sort();
    match versions.pop() {
        Some((_, path)) => path,
        None => panic!("PostgreSQL is not installed; `apt-get install postgresql` does it, and so does `make setup`"),
    }
}

/// A command as a user that the server accepts: it refuses to run as root.
fn command(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

impl Postgres {
    /// Makes and starts a server with an empty database `subak`.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the password");
        if is_root() {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("permissions");
            let id = server::user_id("postgres");
            chown(folder.path(), Some(id), None).expect("the folder's owner");
            chown(&password, Some(id), None).expect("the file's owner");
        }
        let data = folder.path().join("data");
        run(command(&programs().join("initdb"))
            .args(["--username", USER, "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(&data));
        let mut server = Self { folder, process: None, port: free_port() };
        server.resume();
        server.sql_in("postgres", "create database subak");
        server
    }

    /// Starts the server again after [`Postgres::kill`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let process = command(&programs().join("postgres"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "timezone=Asia/Jakarta", "-c", "datestyle=German", "-c", "wal_level=logical"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.process = Some(process);
        for _ in 0..WAIT_COUNT_MAX {
            if self.is_ready() {
                return;
            }
            std::thread::sleep(WAIT);
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("PostgreSQL does not start: {log}");
    }

    fn is_ready(&self) -> bool {
        self.psql("postgres", "select 1").output().is_ok_and(|output| output.status.success())
    }

    /// Turns encryption on, with a certificate for 127.0.0.1 that it signed itself. Returns the certificate's file.
    ///
    /// # Panics
    /// When `openssl` is not installed.
    pub fn enable_tls(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
        server::self_signed(&mut command(Path::new("/usr/bin/openssl")), &key, &certificate);
        self.sql_in("postgres", "alter system set ssl = on");
        self.sql_in("postgres", "select pg_reload_conf()");
        let copy = self.folder.path().join("root.crt");
        std::fs::copy(&certificate, &copy).expect("the certificate");
        copy
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Its children end when they see that it is gone.
            drop(process.kill());
            drop(process.wait());
            let lock = self.folder.path().join("data/postmaster.pid");
            for _ in 0..WAIT_COUNT_MAX {
                if !self.is_ready() {
                    break;
                }
                std::thread::sleep(WAIT);
            }
            drop(std::fs::remove_file(lock));
        }
    }

    /// The port on which it listens at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new(programs().join("psql"));
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-F", "\u{1f}", "-R", "\u{1e}", "-P", "null=\u{1d}"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", database, "-c", sql])
            .env("PGPASSWORD", PASSWORD)
            .env("PGTZ", "UTC")
            .env("PGDATESTYLE", "ISO")
            .env("PGCONNECT_TIMEOUT", "5");
        command
    }

    fn sql_in(&self, database: &str, sql: &str) -> String {
        run(&mut self.psql(database, sql))
    }

    /// Runs SQL with `psql`; the rows of the last query as texts, NULL as `None`.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let text = self.sql_in("subak", sql);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        if text.is_empty() {
            return Vec::new();
        }
        let cell = |cell: &str| (cell != "\u{1d}").then(|| cell.to_owned());
        text.split('\u{1e}').map(|row| row.split('\u{1f}').map(cell).collect()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Fast shutdown: sessions are ended.
            drop(Command::new("kill").args(["-INT", &process.id().to_string()]).status());
            drop(process.wait());
        }
    }
}
