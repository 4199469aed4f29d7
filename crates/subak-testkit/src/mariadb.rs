//! A MariaDB server of one test: in a folder of its own, on a free port, stopped by its process id.

use std::io::Write;
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
pub struct MariaDb {
    folder: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
}

fn program() -> PathBuf {
    ["/usr/sbin/mariadbd", "/usr/bin/mariadbd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("MariaDB is not installed; `apt-get install mariadb-server` does it, and so does `make setup`"))
}

/// What the server is told however it starts. The zone and the modes are not what a session of ours should see.
const OPTIONS: [&str; 9] = [
    "--bind-address=127.0.0.1",
    "--default-time-zone=+07:00",
    "--sql-mode=",
    "--character-set-server=latin1",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-log-file-size=16M",
    "--performance-schema=OFF",
    "--max-allowed-packet=128M",
    "--skip-name-resolve",
];

impl MariaDb {
    /// Makes and starts a server with an empty database `subak`.
    ///
    /// # Panics
    /// When MariaDB is not installed or does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, temporary) = (folder.path().join("data"), folder.path().join("tmp"));
        std::fs::create_dir(&temporary).expect("a folder");
        let mut install = Command::new("/usr/bin/mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install
            .args(["--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=2"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", temporary.display()));
        if is_root() {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
            std::fs::create_dir(&data).expect("a folder");
            for folder in [&data, &temporary] {
                chown(folder, Some(server::user_id("mysql")), None).expect("the folder's owner");
            }
            install.arg("--user=mysql");
        }
        run(&mut install);
        let mut server = Self { folder, process: None, port: free_port() };
        server.resume();
        let password = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
        server.as_root(&format!(
            "create database subak character set utf8mb4; create user '{USER}'@'%' identified by '{password}'; \
             grant all on *.* to '{USER}'@'%' with grant option"
        ));
        server
    }

    /// Starts the server again after [`MariaDb::kill`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(program());
        command.arg("--no-defaults").args(OPTIONS);
        // A server that starts removes the temporary tables it finds in its folder, and would find those of others in a common one.
        for (option, folder) in [("--datadir", "data"), ("--tmpdir", "tmp")] {
            command.arg(format!("{option}={}", self.folder.path().join(folder).display()));
        }
        command.args([format!("--port={}", self.port), format!("--socket={}", self.socket().display())]);
        if is_root() {
            command.arg("--user=mysql");
        }
        for (option, file) in [("--ssl-cert", "server.crt"), ("--ssl-key", "server.key")] {
            let file = self.folder.path().join("data").join(file);
            if file.exists() {
                command.arg(format!("{option}={}", file.display()));
            }
        }
        let mut process = command.stdout(Stdio::null()).stderr(log).spawn().expect("the server starts");
        for _ in 0..WAIT_COUNT_MAX {
            if process.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            if self.client("root", None, "").arg("-e").arg("select 1").output().is_ok_and(|output| output.status.success()) {
                self.process = Some(process);
                return;
            }
            std::thread::sleep(WAIT);
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("MariaDB does not start: {log}");
    }

    /// Makes a certificate for 127.0.0.1 that signed itself; the server uses it from its next start. Returns the certificate's file.
    ///
    /// # Panics
    /// When `openssl` is not installed.
    pub fn make_certificate(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
        server::self_signed(&mut Command::new("/usr/bin/openssl"), &key, &certificate);
        if is_root() {
            let id = server::user_id("mysql");
            chown(&key, Some(id), None).expect("the key's owner");
            chown(&certificate, Some(id), None).expect("the certificate's owner");
        }
        certificate
    }

    /// Kills the server as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// The port on which it listens at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("data/s")
    }

    /// The command-line client. It reads SQL from its input, writes one row per line with tabs between, and `\N` for NULL.
    fn client(&self, user: &str, password: Option<&str>, database: &str) -> Command {
        let mut command = Command::new("/usr/bin/mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.args(["--binary-mode", "--max-allowed-packet=256M", "--user", user]).arg("--socket").arg(self.socket());
        command.args(["--init-command=set time_zone='+00:00'"]);
        if let Some(password) = password {
            command.env("MYSQL_PWD", password);
        }
        if !database.is_empty() {
            command.arg(database);
        }
        command
    }

    fn input(command: &mut Command, sql: &str) -> String {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let mut input = child.stdin.take().expect("its input");
        input.write_all(sql.as_bytes()).expect("its input takes the statements");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}\n{sql}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn as_root(&self, sql: &str) -> String {
        Self::input(&mut self.client("root", None, ""), sql)
    }

    /// Runs SQL with `mariadb`; the rows of all queries as texts, NULL as `None`.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let text = Self::input(&mut self.client(USER, Some(PASSWORD), "subak"), sql);
        let cell = |cell: &str| (cell != "NULL").then(|| unescaped(cell));
        text.lines().map(|line| line.split('\t').map(cell).collect()).collect()
    }

    /// Runs a file of SQL.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn script(&self, file: &Path) {
        let sql = std::fs::read_to_string(file).expect("the script");
        self.sql(&sql);
    }
}

/// The client writes tabs, line ends and backslashes as two characters.
fn unescaped(cell: &str) -> String {
    let mut out = String::with_capacity(cell.len());
    let mut characters = cell.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('t') => out.push('\t'),
                Some('n') => out.push('\n'),
                Some('0') => out.push('\0'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (other, false) => out.push(other),
        }
    }
    out
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // Nothing of it is kept.
        self.kill();
    }
}
