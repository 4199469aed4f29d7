//! Assets that dbt builds: one start of dbt for all that a run asks for at a time, and what it says of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use subak_domain::asset::DbtNode;
use subak_domain::job::{Command, Program};
use subak_domain::{Asset, AssetKey, CheckOutcome, Definition, Failure, FailureClass, Severity, StepOutcome, Version};

use crate::execute::How;
use crate::failure;
use crate::program::{self, Ended, Session};
use crate::script::Call;
use crate::{DataExecutor, StopSignal};

/// What is true of a node that dbt did not build.
const DATA_NOT_BUILT: &str = "dbt did not replace it; readers see it as dbt left it";

/// What is true of a node whose tests failed: dbt tests what it has built.
const DATA_BUILT: &str = "dbt has built it, and readers see its new rows; this run makes nothing behind it";

/// What dbt says of its nodes and tests, by their ids.
pub(crate) type Results = BTreeMap<String, Value>;

impl DataExecutor {
    /// Builds a node, together with the others that are to be built now.
    pub(crate) async fn dbt(
        &self,
        asset: &Asset,
        node: &DbtNode,
        how: &How<'_>,
        stop: &StopSignal,
        call: Call<'_>,
    ) -> Result<StepOutcome, Box<Failure>> {
        let start = async |keys: Vec<AssetKey>| self.start_dbt(&keys, node, how, stop, call).await;
        let ended = self.made_together(asset, stop, call, start).await?;
        outcome(node, &ended)
    }

    /// Starts dbt once.
    async fn start_dbt(
        &self,
        keys: &[AssetKey],
        node: &DbtNode,
        how: &How<'_>,
        stop: &StopSignal,
        call: Call<'_>,
    ) -> Result<Ended, Box<Failure>> {
        let context = program::context(self, call.run, call.inputs);
        let pipes = Session::files(self, (call.run, &call.action.step, call.inputs), &context, stop).await?;
        // A file that a database keeps for one process is dbt's while dbt runs.
        let lent = stop.guard(self.connections.lend(&node.on)).await;
        let lent = lent.map_err(|reason| failure::of_stop(reason, DATA_NOT_BUILT))?;
        let lent = lent.map_err(|error| failure::of_connect(&error, DATA_NOT_BUILT))?;
        let selectors = keys.iter().filter_map(|key| match &self.graph.get(key)?.definition {
            Definition::Dbt(node) => Some(node.selector.clone()),
            _ => None,
        });
        let target = pipes.folder("target").map_err(|error| program::not_prepared(&error))?;
        // What dbt knows of its project from the last time makes it start faster.
        let dir = self.place.root.join(node.program.dir.as_deref().unwrap_or("."));
        if pipes.adopted().is_none() {
            drop(std::fs::copy(dir.join("target/partial_parse.msgpack"), target.join("partial_parse.msgpack")));
        }
        let words = match &node.program.command {
            Command::Direct(words) | Command::Python(words) => words.clone(),
            Command::Shell(line) => vec![line.clone()],
        };
        let mut words: Vec<String> = words.into_iter().chain(["build".to_owned()]).collect();
        words.extend(node.arguments.iter().cloned());
        if let Some(profiles) = &node.profiles {
            words.extend(["--profiles-dir".to_owned(), self.place.root.join(profiles).display().to_string()]);
        }
        if how.full_refresh {
            words.push("--full-refresh".to_owned());
        }
        let shown = target.display().to_string();
        words.extend(["--no-use-colors", "--target-path", &shown, "--log-path", &shown, "--select"].map(str::to_owned));
        words.extend(selectors);
        let program = Program { command: Command::Direct(words), ..node.program.clone() };
        let session = Session { executor: self, run: call.run, step: &call.action.step, inputs: call.inputs, stop, pipes };
        let ended = session.carry_out(&program, &[]).await;
        drop(lent);
        let ended = ended?;
        let results = results(&target);
        // What is wrong with its nodes and tests is told by their steps. Everything else that made dbt fail is told by all of them.
        let of_nodes: BTreeSet<&str> = keys.iter().filter_map(|key| self.graph.get(key)).flat_map(known_ids).collect();
        let is_own = |id: &&String| of_nodes.contains(id.as_str());
        let bad = || results.iter().filter(|(_, result)| is_bad(result)).map(|(id, _)| id);
        let others: Vec<&String> = bad().filter(|id| !is_own(id)).collect();
        let is_explained = others.is_empty() && bad().next().is_some();
        let failure = ended.failure.filter(|_| !is_explained).map(|mut failure| {
            let told = others.iter().map(|id| format!("{id}: {}", message_of(&results[*id])));
            failure.causes.splice(0..0, told);
            failure
        });
        match (results.is_empty(), failure) {
            // It failed before it could say anything of its nodes.
            (true, Some(failure)) => Err(failure),
            (_, failure) => Ok(Ended { failure, results, ..ended }),
        }
    }
}

/// The ids of a node and its tests.
fn known_ids(asset: &Asset) -> Vec<&str> {
    match &asset.definition {
        Definition::Dbt(node) => std::iter::once(&node.id).chain(&node.tests).map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Reads what dbt wrote of a run; nothing where it wrote nothing.
fn results(target: &Path) -> Results {
    let text = std::fs::read_to_string(target.join("run_results.json")).unwrap_or_default();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    let results = document["results"].as_array().into_iter().flatten();
    results.filter_map(|result| Some((result["unique_id"].as_str()?.to_owned(), result.clone()))).collect()
}

fn message_of(result: &Value) -> String {
    result["message"].as_str().unwrap_or_default().trim().to_owned()
}

/// What came of one node.
fn outcome(node: &DbtNode, ended: &Ended) -> Result<StepOutcome, Box<Failure>> {
    let Some(result) = ended.results.get(&node.id) else {
        let message = format!("dbt says nothing of `{}`", node.id);
        let mut failure = failure::plain("SBK0224", message, DATA_NOT_BUILT, FailureClass::Input);
        failure.help.push("its manifest may be older than its project: run `dbt parse`".to_owned());
        return Err(failure);
    };
    let status = result["status"].as_str().unwrap_or_default();
    if status != "success" {
        let message = format!("dbt could not build `{}`: {status}", node.id);
        let mut failure = failure::plain("SBK0328", message, DATA_NOT_BUILT, FailureClass::Program);
        failure.causes.extend(message_of(result).lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
        failure.help.push("`subak run logs` shows what dbt wrote".to_owned());
        return Err(failure);
    }
    let checks: Vec<CheckOutcome> = node.tests.iter().filter_map(|id| check(id, ended.results.get(id)?)).collect();
    let rows = result["adapter_response"]["rows_affected"].as_i64().filter(|rows| *rows >= 0);
    let mut metadata = BTreeMap::from([
        ("dbt_node".to_owned(), json!(node.id)),
        ("dbt_seconds".to_owned(), result["execution_time"].clone()),
        ("dbt_message".to_owned(), json!(message_of(result))),
    ]);
    metadata.extend(rows.map(|rows| ("dbt_rows_affected".to_owned(), json!(rows))));
    let outcome = StepOutcome { changed: true, metadata, checks, ..StepOutcome::default() };
    let outcome = match &ended.failure {
        None => outcome,
        // Nobody knows what of dbt's work is missing, so that all of it is due again.
        Some(failure) => {
            let mut failure = failure.clone();
            failure.message = format!("dbt built `{}` and failed with something else: {}", node.id, failure.message);
            DATA_BUILT.clone_into(&mut failure.data);
            let version = Some(Version::of(&[("dbt", "it has failed")]));
            failure.published = Some(Box::new(StepOutcome { version, ..outcome }));
            return Err(failure);
        }
    };
    match program::refuse_failed(outcome.checks.clone(), "tests of dbt failed", DATA_BUILT) {
        Ok(_) => Ok(outcome),
        Err(mut failure) => {
            let failed = node.tests.iter().filter_map(|id| ended.results.get(id)).filter(|result| is_bad(result));
            failure.causes.extend(failed.map(message_of).filter(|message| !message.is_empty()));
            // It is due again: what is built was found wrong.
            let version = Some(Version::of(&[("tests", "not all have passed")]));
            failure.published = Some(Box::new(StepOutcome { version, ..outcome }));
            Err(failure)
        }
    }
}

fn is_bad(result: &Value) -> bool {
    matches!(result["status"].as_str(), Some("fail" | "error" | "runtime error"))
}

/// A test as a check; `None` where dbt did not evaluate it.
fn check(id: &str, result: &Value) -> Option<CheckOutcome> {
    let status = result["status"].as_str()?;
    if status == "skipped" {
        return None;
    }
    let failures = result["failures"].as_u64();
    let is_wrong = status == "warn" || is_bad(result);
    let name = id.split('.').nth(2).unwrap_or(id).to_owned();
    let severity = if status == "warn" { Severity::Warn } else { Severity::Error };
    Some(CheckOutcome::after(name, severity, if is_wrong { failures.unwrap_or(1).max(1) } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_dbt_are_checks() {
        let cases = [
            ("pass", json!(0), Some((Severity::Error, 0))),
            ("fail", json!(3), Some((Severity::Error, 3))),
            ("warn", json!(2), Some((Severity::Warn, 2))),
            ("error", json!(null), Some((Severity::Error, 1))),
            ("skipped", json!(null), None),
        ];
        for (status, failures, expected) in cases {
            let found = check("test.shop.not_null_a.1234", &json!({ "status": status, "failures": failures }));
            assert_eq!(found.map(|check| (check.severity, check.bad_row_count)), expected, "{status}");
        }
        let named = check("test.shop.not_null_a.1234", &json!({ "status": "pass" }));
        assert_eq!(named.map(|check| check.check).as_deref(), Some("not_null_a"));
    }
}
