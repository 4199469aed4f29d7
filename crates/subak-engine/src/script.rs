//! Assets that programs make: the tables that the program asks for, its start, and the rows that it leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use subak_connect::{ConnectError, ConnectErrorKind, TableName, blocking};
use subak_domain::asset::{InputFormat, Script, ScriptInput};
use subak_domain::{Action, Asset, AssetKey, Failure, FailureClass, Ingest, RunId, StepId, StepOutcome};
use tokio::sync::{mpsc, watch};

use crate::execute::{Attempt, How, ability, guarded};
use crate::failure::{self, DATA_UNTOUCHED};
use crate::load::Ingesting;
use crate::program::{self, DATA_PROGRAM, Ended, Metadata, Session};
use crate::{DataExecutor, Inputs, StopSignal, orphan};

/// Batches of a table that wait to be written for a program.
const QUEUE_LENGTH_MAX: usize = 2;

/// A step that is carried out: what an attempt is of.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) run: RunId,
    pub(crate) action: &'a Action,
    pub(crate) inputs: &'a Inputs,
}

/// What came of one start of a program.
pub(crate) type Made = Result<Arc<Ended>, Box<Failure>>;

/// Programs that were started for several steps at once.
#[derive(Default)]
pub struct Invocations(Mutex<BTreeMap<(RunId, String), Shared>>);

/// A start whose result others wait for.
struct Shared {
    /// Steps that have not asked for it.
    open: BTreeSet<StepId>,
    made: watch::Receiver<Option<Made>>,
}

/// Whether a step makes a start, or takes what another one's start comes to.
enum Part {
    Lead(watch::Sender<Option<Made>>),
    Follow(watch::Receiver<Option<Made>>),
}

impl Invocations {
    /// The part of a step in a start for these steps. Of several that ask at once one leads.
    fn part(&self, key: (RunId, String), step: &StepId, together: impl Iterator<Item = StepId>) -> Part {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = all.get_mut(&key) {
            // A step that asks again has failed: what it was given is no use.
            if shared.open.remove(step) {
                let made = shared.made.clone();
                if shared.open.is_empty() {
                    all.remove(&key);
                }
                return Part::Follow(made);
            }
        }
        let (sender, made) = watch::channel(None);
        let open: BTreeSet<StepId> = together.filter(|other| other != step).collect();
        if open.is_empty() {
            all.remove(&key);
        } else {
            all.insert(key, Shared { open, made });
        }
        Part::Lead(sender)
    }
}

impl DataExecutor {
    /// Makes an asset by its program.
    pub(crate) async fn script(
        &self,
        asset: &Asset,
        script: &Script,
        how: &How<'_>,
        attempt: &Attempt<'_>,
        call: Call<'_>,
    ) -> Result<StepOutcome, Box<Failure>> {
        // An earlier attempt may have published without living to say so; the program is not asked again.
        if let Some(committed) = self.committed(asset, attempt).await? {
            return Ok(crate::load::found(&committed, committed.account, "an earlier attempt had committed this load"));
        }
        let start = async |keys: Vec<AssetKey>| self.start(&keys, script, how, attempt.stop, call).await;
        let ended = self.made_together(asset, attempt.stop, call, start).await?;
        let has_others = script.made_with.is_some();
        self.refuse_unknown(script, &ended)?;
        let is_own = |about: &Option<String>| !has_others || about.as_deref().is_none_or(|about| about == asset.key.as_str());
        let checks = ended.heard.checks.iter().filter(|(about, _)| is_own(about)).map(|(_, check)| check.clone()).collect();
        let data = if script.output.is_some() { DATA_UNTOUCHED } else { DATA_PROGRAM };
        let checks = program::refuse_failed(checks, program::REPORTED, data)?;
        let metadata = if has_others { ended.heard.of_assets.get(asset.key.as_str()) } else { Some(&ended.heard.metadata) };
        let metadata = metadata.cloned().unwrap_or_default();
        let mut outcome = match &script.output {
            Some(output) => self.load_output(asset, output, &ended, how, attempt).await?,
            None => StepOutcome { changed: true, row_count: row_count(&metadata), ..StepOutcome::default() },
        };
        outcome.metadata = metadata;
        outcome.usage = Some(ended.usage);
        outcome.checks.extend(checks);
        outcome.warnings.extend(program::warnings(&ended.heard));
        Ok(outcome)
    }

    /// The result of the start that makes the asset. Where one start makes it together with others, the first of them starts the program and the
    /// others wait for it.
    pub(crate) async fn made_together(
        &self,
        asset: &Asset,
        stop: &StopSignal,
        call: Call<'_>,
        start: impl AsyncFnOnce(Vec<AssetKey>) -> Result<Ended, Box<Failure>>,
    ) -> Made {
        let Some(invocation) = &call.action.rule.invocation else { return start(vec![asset.key.clone()]).await.map(Arc::new) };
        let (key, step) = ((call.run, invocation.clone()), &call.action.step);
        let mut together = call.inputs.together.clone();
        if call.inputs.adopted_after.is_some() {
            together.retain(|(other, _)| orphan::find(&self.place.temporary, call.run, other).is_some());
        }
        if !together.iter().any(|(other, _)| other == step) {
            together.push((step.clone(), asset.key.clone()));
        }
        let sender = match self.invocations.part(key, step, together.iter().map(|(step, _)| step.clone())) {
            Part::Lead(sender) => sender,
            Part::Follow(mut made) => {
                let waited = stop.guard(made.wait_for(Option::is_some)).await;
                let made = waited.map_err(|reason| failure::of_stop(reason, DATA_UNTOUCHED))?.ok().and_then(|made| made.clone());
                return made.unwrap_or_else(|| {
                    let message = "the program that makes it with other assets ended unseen".to_owned();
                    Err(failure::plain("SBK0315", message, DATA_UNTOUCHED, FailureClass::Internal))
                });
            }
        };
        let keys: Vec<AssetKey> = together.into_iter().map(|(_, key)| key).collect();
        let made = start(keys).await.map(Arc::new);
        sender.send_replace(Some(made.clone()));
        made
    }

    /// Starts the program once, with the tables that it asks for beside it.
    async fn start(
        &self,
        keys: &[AssetKey],
        script: &Script,
        how: &How<'_>,
        stop: &StopSignal,
        call: Call<'_>,
    ) -> Result<Ended, Box<Failure>> {
        let context = self.script_context(keys, how, call);
        let Call { run, action, inputs } = call;
        let pipes = Session::files(self, (run, &action.step, inputs), &context, stop).await?;
        let folder = |name| pipes.folder(name).map_err(|error| program::not_prepared(&error));
        let (given, output) = (folder("inputs")?, folder("output")?);
        // One that goes on was given its tables.
        for input in script.inputs.iter().filter(|_| pipes.adopted().is_none()) {
            let file = given.join(format!("{}.{}", input.asset, script.input_format.as_str()));
            self.give(input, script.input_format, &file, stop).await?;
        }
        let names: Vec<&str> = keys.iter().map(AssetKey::as_str).collect();
        let mut variables = vec![
            ("SUBAK_ASSETS", names.join(" ")),
            ("SUBAK_INPUTS", given.display().to_string()),
            ("SUBAK_FULL_REFRESH", how.full_refresh.to_string()),
        ];
        if let [only] = names.as_slice() {
            variables.push(("SUBAK_ASSET", (*only).to_owned()));
        }
        if script.output.is_some() {
            variables.push(("SUBAK_OUTPUT", output.display().to_string()));
        }
        if let Some(slice) = how.slice {
            variables.push(("SUBAK_PARTITION", slice.partition.key.clone()));
            if let Some(window) = &slice.partition.window {
                variables.push(("SUBAK_PARTITION_START", window.start.clone()));
                variables.push(("SUBAK_PARTITION_END", window.end.clone()));
            }
        }
        Session { executor: self, run, step: &action.step, inputs, stop, pipes }
            .carry_out(&script.program, &variables)
            .await?
            .well()
    }

    /// What the program is told in the words of Dagster's Pipes.
    fn script_context(&self, keys: &[AssetKey], how: &How<'_>, call: Call<'_>) -> Value {
        let mut context = program::context(self, call.run, call.inputs);
        // Elsewhere the parts of keys are joined by slashes.
        let named = |key: &AssetKey| key.as_str().replace('.', "/");
        let versions = keys.iter().filter_map(|key| Some((named(key), json!(self.graph.get(key)?.version.as_str()))));
        let versions: serde_json::Map<String, Value> = versions.collect();
        context["asset_keys"] = keys.iter().map(|key| json!(named(key))).collect();
        context["provenance_by_asset_key"] =
            versions.keys().map(|key| (key.clone(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
        context["code_version_by_asset_key"] = versions.into();
        if let Some(slice) = how.slice {
            let key = &slice.partition.key;
            context["partition_key"] = json!(key);
            context["partition_key_range"] = json!({ "start": key, "end": key });
            if let Some(window) = &slice.partition.window {
                context["partition_time_window"] = json!({ "start": window.start, "end": window.end });
            }
        }
        context
    }

    /// The assets that starts of the program make, this one among them.
    fn made_with(&self, asset: &Asset) -> Vec<AssetKey> {
        let Some(with) = asset.made_with() else { return vec![asset.key.clone()] };
        self.graph.assets().iter().filter(|other| other.made_with() == Some(with)).map(|other| other.key.clone()).collect()
    }

    /// Refuses what a program of several assets says of one that it does not make: it would be lost.
    fn refuse_unknown(&self, script: &Script, ended: &Ended) -> Result<(), Box<Failure>> {
        let Some(with) = script.made_with.as_deref() else { return Ok(()) };
        let is_made =
            |name: &str| self.graph.assets().iter().any(|asset| asset.key.as_str() == name && asset.made_with() == Some(with));
        let checks = ended.heard.checks.iter().filter_map(|(about, _)| about.as_deref());
        let named = ended.heard.of_assets.keys().map(String::as_str).chain(checks);
        let Some(unknown) = named.into_iter().find(|name| !is_made(name)) else { return Ok(()) };
        let message = format!("the program reports of `{unknown}`, which it does not make");
        let mut failure = failure::plain("SBK0329", message, DATA_UNTOUCHED, FailureClass::Input);
        failure.help.push("name one of the assets that its declaration lists".to_owned());
        Err(failure)
    }

    /// Writes a table as a file for the program.
    async fn give(&self, input: &ScriptInput, format: InputFormat, path: &Path, stop: &StopSignal) -> Result<(), Box<Failure>> {
        let connection = self.open(&input.on, stop).await?;
        let backend = ability(connection.sql(), &input.on, "SQL backend")?;
        let table = backend.dialect().table(&TableName::of(&input.asset));
        let mut batches = backend.query(&format!("select * from {table}"));
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        let path = path.to_owned();
        let writing = blocking::start(move || write(receiver, format, &path));
        let send = async {
            while let Some(batch) = batches.next().await {
                // Whoever writes has ended with an error, which is told below.
                if sender.send(batch?).await.is_err() {
                    break;
                }
            }
            drop(sender);
            writing.wait().await
        };
        guarded(stop, send).await.map_err(|mut failure| {
            failure.message = format!("`{}` cannot be given to the program: {}", input.asset, failure.message);
            failure
        })
    }

    /// Loads what the program wrote for an asset.
    async fn load_output(
        &self,
        asset: &Asset,
        output: &Ingest,
        ended: &Ended,
        how: &How<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<StepOutcome, Box<Failure>> {
        let folder = ended.pipes.folder("output").map_err(|error| program::not_prepared(&error))?;
        let pattern = take_files(&folder, &asset.key, &self.made_with(asset)).ok_or_else(|| nothing_written(asset))?;
        let mut ingest = output.clone();
        ingest.options.insert("path".to_owned(), pattern);
        // Each start writes all that there is to load.
        ingest.options.insert("read".to_owned(), "all".to_owned());
        let files = guarded(attempt.stop, self.connections.folder(&folder)).await?;
        let source = ability(files.source(), &output.from, "source")?;
        let destination = self.open(&output.to, attempt.stop).await?;
        let sink = ability(destination.sink(), &output.to, "destination")?;
        let programs = self.connections.programs();
        let (full_refresh, range, slice, programs) = (how.full_refresh, how.range, how.slice, programs.as_ref());
        Ingesting { asset, ingest: &ingest, source, sink, programs, full_refresh, range, slice, replayed: None, attempt }
            .run()
            .await
    }
}

/// Writes batches until there are no more.
fn write(mut batches: mpsc::Receiver<RecordBatch>, format: InputFormat, path: &Path) -> Result<(), ConnectError> {
    let failed = |error: &dyn std::error::Error| {
        ConnectError::new(ConnectErrorKind::Resource, format!("cannot write `{}`: {error}", path.display()))
    };
    let file = File::create(path).map_err(|error| failed(&error))?;
    let Some(first) = batches.blocking_recv() else { return Ok(()) };
    match format {
        InputFormat::Parquet => {
            let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(|error| failed(&error))?;
            writer.write(&first).map_err(|error| failed(&error))?;
            while let Some(batch) = batches.blocking_recv() {
                writer.write(&batch).map_err(|error| failed(&error))?;
            }
            writer.close().map_err(|error| failed(&error))?;
        }
        InputFormat::Csv => {
            let mut writer = arrow::csv::Writer::new(file);
            writer.write(&first).map_err(|error| failed(&error))?;
            while let Some(batch) = batches.blocking_recv() {
                writer.write(&batch).map_err(|error| failed(&error))?;
            }
        }
    }
    Ok(())
}

/// The key that a file belongs to: the longest that its name is or begins with, then the one whose last part it is alone.
fn owner_of<'k>(name: &str, keys: &'k [AssetKey]) -> Option<&'k AssetKey> {
    let is_of = |part: &str| name == part || name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
    let last = |key: &'k AssetKey| key.as_str().rsplit('.').next().unwrap_or_default();
    let whole = keys.iter().filter(|key| is_of(key.as_str())).max_by_key(|key| key.as_str().len());
    whole.or_else(|| {
        let found = keys.iter().filter(|key| is_of(last(key)));
        let longest = found.clone().map(|key| last(key).len()).max()?;
        let mut longest = found.filter(|key| last(key).len() == longest);
        longest.next().filter(|_| longest.next().is_none())
    })
}

/// Takes the files that a program wrote for an asset into a folder of their own, and returns the pattern that finds them: those that its key or the
/// last part of it names, as files or as a folder of files; where the program makes nothing else, all that there are.
fn take_files(folder: &Path, key: &AssetKey, keys: &[AssetKey]) -> Option<String> {
    let own = format!(".rows-{key}");
    let is_plain = |name: &String| !name.starts_with('.');
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found: Vec<String> =
        entries.filter(is_plain).filter(|name| keys.len() == 1 || owner_of(name, keys) == Some(key)).collect();
    // An attempt before this one may have taken them.
    std::fs::create_dir_all(folder.join(&own)).ok()?;
    for name in &found {
        std::fs::rename(folder.join(name), folder.join(&own).join(name)).ok()?;
    }
    let taken: Vec<_> = std::fs::read_dir(folder.join(&own)).ok()?.flatten().collect();
    match taken.as_slice() {
        [] => None,
        [only] if only.path().is_dir() => Some(format!("{own}/{}/*", only.file_name().to_string_lossy())),
        _ => Some(format!("{own}/*")),
    }
}

fn nothing_written(asset: &Asset) -> Box<Failure> {
    let message = format!("the program wrote no file for `{}`", asset.key);
    let mut failure = failure::plain("SBK0307", message, DATA_UNTOUCHED, FailureClass::Input);
    let name = asset.key.as_str().rsplit('.').next().unwrap_or_default();
    failure.help.push(format!(
        "let it write its rows to `$SUBAK_OUTPUT/{name}.parquet` (or `.csv`, `.ndjson`), with no rows too; say `stored_as: outside` where it keeps its data itself"
    ));
    failure
}

/// The number of rows that a program reports, by its own word or by Dagster's.
fn row_count(metadata: &Metadata) -> Option<u64> {
    ["dagster/row_count", "row_count", "rows"].iter().find_map(|name| metadata.get(*name)?.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_the_names_of_assets() {
        let cases: [(&[&str], &[&str], Option<&str>); 9] = [
            (&["gold.churn.parquet"], &["gold.other"], Some(".rows-gold.churn/*")),
            (&["churn.csv", "other.csv"], &["gold.other"], Some(".rows-gold.churn/*")),
            (&["churn/a.parquet", "churn/b.parquet"], &["gold.other"], Some(".rows-gold.churn/churn/*")),
            (&["other.csv"], &["gold.other"], None),
            (&["gold.churn.items.csv"], &["gold.churn.items"], None),
            (&["churn.csv"], &["silver.churn"], None),
            (&["part-1.csv", "part-2.csv"], &[], Some(".rows-gold.churn/*")),
            (&["rows/a.csv"], &[], Some(".rows-gold.churn/rows/*")),
            (&[".hidden.csv"], &[], None),
        ];
        for (files, others, expected) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            for file in files {
                let path = folder.path().join(file);
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
                std::fs::write(path, "a\n1\n").expect("written");
            }
            let key: AssetKey = "gold.churn".parse().expect("a key");
            let keys: Vec<AssetKey> = others.iter().map(|key| key.parse().expect("a key")).chain([key.clone()]).collect();
            assert_eq!(take_files(folder.path(), &key, &keys).as_deref(), expected, "{files:?}");
            assert_eq!(take_files(folder.path(), &key, &keys).as_deref(), expected, "{files:?}, once more");
        }
    }

    /// Of several steps that ask at once one leads, and each of the others follows once.
    #[test]
    fn a_start_is_made_once() {
        for _ in 0..200 {
            let (invocations, key) = (Invocations::default(), (RunId::from_parts(0, 0), "assets/a.py".to_owned()));
            let steps: Vec<StepId> = (0..4).map(|at| StepId::check(&at.to_string())).collect();
            let barrier = std::sync::Barrier::new(steps.len());
            let ask = |step: &StepId| {
                barrier.wait();
                matches!(invocations.part(key.clone(), step, steps.iter().cloned()), Part::Lead(_))
            };
            let ask = &ask;
            let leads = std::thread::scope(|scope| {
                let asking: Vec<_> = steps.iter().map(|step| scope.spawn(move || ask(step))).collect();
                asking.into_iter().map(|one| one.join().expect("asked")).filter(|leads| *leads).count()
            });
            assert_eq!(leads, 1);
            assert!(invocations.0.lock().expect("lock").is_empty());
            assert!(matches!(invocations.part(key, &steps[0], steps.iter().cloned()), Part::Lead(_)), "it asks again");
        }
    }
}
