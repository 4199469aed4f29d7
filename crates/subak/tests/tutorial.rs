//! The guide "ten minutes from nothing to a dashboard of fresh data", carried out as it stands: its files are written, its commands typed, and what it
//! says they print is looked for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use subak_testkit::Sandbox;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const GUIDE: &str = include_str!("../../../docs/guides/ten-minutes.md");

/// What stands between two fences.
struct Block {
    language: &'static str,
    lines: Vec<&'static str>,
    /// The line before it.
    before: &'static str,
}

fn blocks() -> Vec<Block> {
    let (mut found, mut open, mut before) = (Vec::new(), None::<Block>, "");
    for line in GUIDE.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some(Block { language, lines: Vec::new(), before }),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => block.lines.push(line),
            (None, None) if !line.is_empty() => before = line,
            (None, None) => {}
        }
    }
    found
}

impl Block {
    /// The file that it is, and what stands in it: named in its first line, or, where that would be part of the data, in the line before.
    fn file(&self) -> (&str, &[&'static str]) {
        if self.language == "csv" {
            let path = self.before.rsplit('`').nth(1).expect("a path");
            return (path, &self.lines);
        }
        (self.lines[0].trim_start_matches(['#', '-', ' ']), &self.lines[1..])
    }
}

/// The words of a command, as a shell takes them apart.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quoted, mut word) = (Vec::new(), false, None::<String>);
    for letter in command.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// A server that ends with the value.
struct Server(Option<Child>);

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(server) = &mut self.0 {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

struct Reader {
    sandbox: Sandbox,
    folder: PathBuf,
    server: Server,
}

impl Reader {
    fn write(&self, path: &str, lines: &[&str]) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        // A file that is being written is no file yet.
        std::fs::write(path.with_extension("part"), format!("{}\n", lines.join("\n"))).expect("written");
        std::fs::rename(path.with_extension("part"), path).expect("renamed");
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = self.sandbox.command(&[]);
        command.current_dir(&self.folder).args(&words[1..]);
        command
    }

    /// Types a command until it prints what the guide says: what happens by itself takes its time.
    fn type_in(&mut self, command: &str, expected: &[&str]) {
        let words = words(command);
        match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("cd", _) => self.folder = self.folder.join(&words[1]),
            ("subak", Some("server")) => {
                let mut server = self.command(&words[..3]);
                server.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::null()).stderr(Stdio::null());
                self.server = Server(Some(server.spawn().expect("starts")));
                wait_for_server(&self.folder);
            }
            ("subak", _) => {
                let mut said = String::new();
                for _ in 0..300 {
                    let mut typed = self.command(&words);
                    let mut typed =
                        typed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
                    // Whoever is added chooses a password.
                    drop(std::io::Write::write_all(&mut typed.stdin.take().expect("a pipe"), b"a password of a reader\n"));
                    let done = typed.wait_with_output().expect("it ends");
                    said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
                    if done.status.success() && has_all(&said, expected) {
                        return;
                    }
                    assert!(self.server.0.is_some(), "{command}: {said}");
                    std::thread::sleep(Duration::from_millis(200));
                }
                panic!("{command} does not say {expected:?}: {said}");
            }
            (other, _) => panic!("the test does not know `{other}`"),
        }
    }
}

/// Whether the lines stand in a text in this order.
fn has_all(text: &str, expected: &[&str]) -> bool {
    let mut rest = text;
    expected.iter().all(|line| {
        let found = rest.find(line.trim());
        rest = found.map_or("", |at| &rest[at + line.trim().len()..]);
        found.is_some()
    })
}

fn wait_for_server(folder: &Path) {
    for _ in 0..300 {
        let holder = || {
            let state = rusqlite::Connection::open(folder.join(".subak/state.db")).ok()?;
            state.query_row("select holder from leases where holder is not null", [], |row| row.get::<_, String>(0)).ok()
        };
        if holder().is_some_and(|holder| holder.contains("subak server")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no server began");
}

#[test]
fn ten_minutes_from_nothing_to_fresh_data() {
    let sandbox = Sandbox::new(BINARY, &[]);
    let folder = sandbox.path().to_owned();
    let mut reader = Reader { sandbox, folder, server: Server(None) };
    let (mut file_count, mut command_count) = (0, 0);
    for block in blocks() {
        if block.language != "console" {
            let (path, lines) = block.file();
            reader.write(path, lines);
            file_count += 1;
            continue;
        }
        let (lines, mut at) = (block.lines, 0);
        while at < lines.len() {
            let command = lines[at].strip_prefix("$ ").expect("a command");
            let count = lines[at + 1..].iter().take_while(|line| !line.starts_with("$ ")).count();
            reader.type_in(command, &lines[at + 1..at + 1 + count]);
            command_count += 1;
            at += 1 + count;
        }
    }
    assert_eq!((file_count, command_count), (5, 12), "all of the guide was carried out");
}
