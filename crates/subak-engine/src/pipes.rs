//! The host of the Dagster Pipes protocol, version 0.1: what a program is told, and what it tells while it runs.
//!
//! Two variables of the environment hold base64 of zlib-compressed JSON: where the context stands, and where messages go. Each message is one
//! line of JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use subak_domain::{CheckOutcome, Severity};

use crate::orphan::{self, Left};
use crate::program::{Group, Metadata};

/// Bytes of a file with a value that are read at all; what may be handed on is less.
const VALUE_FILE_LENGTH_MAX: u64 = 1024 * 1024;

/// Bytes of messages that one program may send.
const MESSAGES_LENGTH_MAX: u64 = 64 * 1024 * 1024;

/// The version of the protocol.
const VERSION: &str = "0.1";

/// What has been heard of a program.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) is_opened: bool,
    pub(crate) is_closed: bool,
    /// The error with which it closed.
    pub(crate) exception: Option<String>,
    /// Lines for the log.
    pub(crate) lines: Vec<String>,
    /// What it said of itself, and of each asset that it named.
    pub(crate) metadata: Metadata,
    pub(crate) of_assets: BTreeMap<String, Metadata>,
    /// Checks, with the asset that they are about.
    pub(crate) checks: Vec<(Option<String>, CheckOutcome)>,
    /// What it hands on.
    pub(crate) value: Option<Value>,
    /// A message that is none.
    pub(crate) problem: Option<String>,
    /// What was left of it when it had ended.
    pub(crate) left: Option<String>,
}

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is removed by whoever takes the project next.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The files of one session. They go with the value, and not with the process.
pub(crate) struct Pipes {
    folder: Folder,
    /// How far messages are read.
    offset: AtomicU64,
    /// Of one that another process began: what it was started for, and its processes, which end with the value unless they are taken.
    adopted: Option<Left>,
    group: Option<Group>,
    /// How far its output and its messages were kept by then.
    kept: (u64, u64),
}

impl Pipes {
    /// Makes the files before the program starts, for a step that `owner` tells.
    pub(crate) fn open(temporary: &Path, owner: &Value, context: &Value) -> std::io::Result<Self> {
        std::fs::create_dir_all(temporary)?;
        let folder = Folder(tempfile::Builder::new().prefix(orphan::PREFIX).tempdir_in(temporary)?.keep());
        std::fs::write(folder.path().join(orphan::OWNER), owner.to_string())?;
        std::fs::write(folder.path().join("context.json"), context.to_string())?;
        File::create(folder.path().join("messages"))?;
        File::create(folder.path().join("stdio"))?;
        Ok(Self { folder, offset: AtomicU64::new(0), adopted: None, group: None, kept: (0, 0) })
    }

    /// Takes over the files of a program that another process has started.
    pub(crate) fn adopt(left: Left) -> Self {
        let kept = std::fs::read_to_string(left.folder.join("kept")).unwrap_or_default();
        let mut kept = kept.split_whitespace().filter_map(|number| number.parse().ok());
        let kept = (kept.next().unwrap_or(0), kept.next().unwrap_or(0));
        let group = Some(Group::of(left.group));
        Self { folder: Folder(left.folder.clone()), offset: AtomicU64::new(0), adopted: Some(left), group, kept }
    }

    /// What another process has started the program for, where one has.
    pub(crate) fn adopted(&self) -> Option<&Left> {
        self.adopted.as_ref()
    }

    /// The processes of a program that another process has started; whoever takes them looks after them.
    pub(crate) fn take_group(&mut self) -> Option<Group> {
        self.group.take()
    }

    /// Where the output of the program goes.
    pub(crate) fn output_path(&self) -> PathBuf {
        self.folder.path().join("stdio")
    }

    /// The output, for the program.
    pub(crate) fn output(&self) -> std::io::Result<Stdio> {
        Ok(File::options().append(true).open(self.output_path())?.into())
    }

    /// How far the output is kept.
    pub(crate) fn kept_offset(&self) -> u64 {
        self.kept.0
    }

    /// Notes how far the output is kept, for whoever goes on with it. What was kept last may be kept twice, should the process die before.
    pub(crate) fn note_kept(&self, offset: u64) {
        let messages = self.offset.load(Ordering::Relaxed).max(self.kept.1);
        drop(std::fs::write(self.folder.path().join("kept"), format!("{offset} {messages}\n")));
    }

    /// Whether the program could not be started.
    pub(crate) fn is_missing(&self) -> bool {
        std::fs::read_to_string(self.folder.path().join(orphan::EXIT)).is_ok_and(|text| text.trim() == "missing")
    }

    /// Where all files of the session stand.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A folder of the session, made when it is not there.
    pub(crate) fn folder(&self, name: &str) -> std::io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The file to which a plain program may write a value.
    pub(crate) fn value_path(&self) -> PathBuf {
        self.folder.path().join(orphan::VALUE)
    }

    /// The variables that a client looks for.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let context = json!({ "path": self.folder.path().join("context.json") });
        let messages = json!({ "path": self.folder.path().join("messages"), "include_stdio_in_messages": false });
        [("DAGSTER_PIPES_CONTEXT", encoded(&context)), ("DAGSTER_PIPES_MESSAGES", encoded(&messages))]
    }

    /// The value that the program wrote to its file.
    pub(crate) fn value(&self) -> Result<Option<Value>, String> {
        let Ok(file) = File::open(self.value_path()) else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(VALUE_FILE_LENGTH_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > VALUE_FILE_LENGTH_MAX {
            return Err(format!("it has more than {VALUE_FILE_LENGTH_MAX} bytes"));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
    }

    /// Takes the messages that are complete since the last call.
    pub(crate) fn hear(&self, heard: &mut Heard, mask: impl Fn(&str) -> String) {
        if self.offset.load(Ordering::Relaxed) > MESSAGES_LENGTH_MAX {
            heard.problem.get_or_insert(format!("the program sent more than {MESSAGES_LENGTH_MAX} bytes of messages"));
            return;
        }
        // Lines of the log up to here were kept by another process.
        let is_kept = self.offset.load(Ordering::Relaxed) < self.kept.1;
        let bound = if is_kept { self.kept.1 - self.offset.load(Ordering::Relaxed) } else { MESSAGES_LENGTH_MAX };
        for line in self.new_lines(bound) {
            take(&line, heard, &mask);
        }
        if is_kept {
            heard.lines.clear();
        }
    }

    fn new_lines(&self, bound: u64) -> Vec<String> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.folder.path().join("messages"))?;
            file.seek(SeekFrom::Start(self.offset.load(Ordering::Relaxed)))?;
            let mut bytes = Vec::new();
            file.take(bound).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let Ok(bytes) = read() else { return Vec::new() };
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.offset.fetch_add(end as u64, Ordering::Relaxed);
        String::from_utf8_lossy(&bytes[..end]).lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }
}

fn encoded(value: &Value) -> String {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    drop(encoder.write_all(value.to_string().as_bytes()));
    base64::engine::general_purpose::STANDARD.encode(encoder.finish().unwrap_or_default())
}

fn take(line: &str, heard: &mut Heard, mask: &impl Fn(&str) -> String) {
    let message: Value = match serde_json::from_str(line) {
        Ok(message) => message,
        Err(error) => {
            heard.problem.get_or_insert(format!("a message of the program is no JSON: {error}"));
            return;
        }
    };
    if message["__dagster_pipes_version"] != json!(VERSION) {
        heard.problem.get_or_insert(format!("a message of the program is of Pipes {}", message["__dagster_pipes_version"]));
        return;
    }
    let params = &message["params"];
    let text = |name: &str| mask(params[name].as_str().unwrap_or_default());
    match message["method"].as_str().unwrap_or_default() {
        "opened" => heard.is_opened = true,
        "closed" => {
            heard.is_closed = true;
            heard.exception = exception(&params["exception"]).map(|text| mask(&text));
        }
        "log" => heard.lines.push(format!("{} {}", text("level"), text("message"))),
        "log_external_stream" => heard.lines.extend(text("text").lines().map(str::to_owned)),
        "report_asset_materialization" => {
            let mut said = Metadata::new();
            for (name, entry) in params["metadata"].as_object().into_iter().flatten() {
                said.insert(name.clone(), masked(&entry["raw_value"], mask));
            }
            if let Some(version) = params["data_version"].as_str() {
                said.insert("data_version".to_owned(), Value::from(mask(version)));
            }
            heard.metadata.extend(said.clone());
            if let Some(asset) = asset_of(params) {
                heard.of_assets.entry(asset).or_default().extend(said);
            }
        }
        "report_asset_check" => heard.checks.push((asset_of(params), check(params))),
        "report_custom_message" => {
            let payload = &params["payload"];
            heard.value = Some(payload.get("value").unwrap_or(payload).clone());
        }
        other => {
            heard.problem.get_or_insert(format!("the program sent a message that Pipes {VERSION} does not know: `{other}`"));
        }
    }
}

/// An error as one line: what it is, and what caused it.
fn exception(value: &Value) -> Option<String> {
    let name = value["name"].as_str()?;
    let mut text = format!("{name}: {}", value["message"].as_str().unwrap_or_default().trim());
    if let Some(cause) = exception(&value["cause"]) {
        text.push_str(&format!(" (caused by {cause})"));
    }
    Some(text)
}

fn masked(value: &Value, mask: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::from(mask(text)),
        Value::Array(items) => items.iter().map(|item| masked(item, mask)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), masked(value, mask))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The asset that a message is about; elsewhere the parts of keys are joined by slashes.
fn asset_of(params: &Value) -> Option<String> {
    Some(params["asset_key"].as_str()?.replace('/', "."))
}

fn check(params: &Value) -> CheckOutcome {
    let is_warning = params["severity"].as_str() == Some("WARN");
    let has_passed = params["passed"].as_bool().unwrap_or(false);
    let name = params["check_name"].as_str().unwrap_or_default().to_owned();
    CheckOutcome::after(name, if is_warning { Severity::Warn } else { Severity::Error }, u64::from(!has_passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipes = Pipes::open(folder.path(), &json!({}), &json!({})).expect("files");
        let mut heard = Heard::default();
        let mut file = File::options().append(true).open(pipes.folder.path().join("messages")).expect("the file");
        let line = |method: &str, params: Value| {
            json!({ "__dagster_pipes_version": "0.1", "method": method, "params": params }).to_string()
        };
        let metadata = json!({ "asset_key": "a", "metadata": { "rows": { "raw_value": 3, "type": "int" } } });
        let (first, second) = (line("opened", json!({})), line("report_asset_materialization", metadata));
        write!(file, "{first}\n{}", &second[..10]).expect("written");
        pipes.hear(&mut heard, str::to_owned);
        assert!(heard.is_opened && heard.metadata.is_empty());
        let failed = json!({ "exception": { "name": "ValueError", "message": "no pw", "stack": [], "cause": null } });
        writeln!(file, "{}\n{}", &second[10..], line("closed", failed)).expect("written");
        pipes.hear(&mut heard, |text| text.replace("pw", "**"));
        assert_eq!(heard.metadata.get("rows"), Some(&json!(3)));
        assert_eq!(
            (heard.is_closed, heard.exception.as_deref(), heard.problem.as_deref()),
            (true, Some("ValueError: no **"), None)
        );
        writeln!(file, "{}", line("dance", json!({}))).expect("written");
        pipes.hear(&mut heard, str::to_owned);
        assert!(heard.problem.is_some_and(|problem| problem.contains("`dance`")));
        // Whoever goes on hears everything again, and keeps no line twice.
        writeln!(file, "{}", line("log", json!({ "level": "INFO", "message": "kept" }))).expect("written");
        let mut heard = Heard::default();
        pipes.hear(&mut heard, str::to_owned);
        assert_eq!(heard.lines, ["INFO kept"]);
        pipes.note_kept(7);
        writeln!(file, "{}", line("log", json!({ "level": "INFO", "message": "new" }))).expect("written");
        let root = pipes.root().to_owned();
        let left = Left { folder: root.clone(), step: subak_domain::StepId::task("a"), attempt: 1, group: None };
        let next = Pipes::adopt(left);
        let mut heard = Heard::default();
        next.hear(&mut heard, str::to_owned);
        assert!(heard.is_opened && heard.lines.is_empty());
        next.hear(&mut heard, str::to_owned);
        assert_eq!((next.kept_offset(), heard.lines.as_slice()), (7, &["INFO new".to_owned()][..]));
        drop(next);
        assert!(!root.exists());
    }
}
