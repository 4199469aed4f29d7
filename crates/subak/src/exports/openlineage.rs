//! Events of OpenLineage (openlineage.io, specification 2-0-2): runs and steps as runs of jobs, tables as datasets, with columns and what each comes
//! from, checks as assertions. Names of datasets follow the specification's naming, so that they are the same as other tools say them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use subak_domain::{
    Asset, AssetKey, CheckOutcome, ConnectionName, Definition, Event, Failure, FailureClass, RunEvent, RunId, RunStatus, Secret,
    StepId, StepOutcome, Timestamp, Version,
};
use subak_notify::Receiver;

use super::{Batch, Known, executing_before};
use crate::project::Opened;

/// Who says it.
const PRODUCER: &str = concat!("urn:subak:", env!("CARGO_PKG_VERSION"));

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";

/// A facet, with where its shape is written down.
fn facet(name: &str, version: &str, mut fields: Value) -> Value {
    fields["_producer"] = json!(PRODUCER);
    fields["_schemaURL"] = json!(format!("https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"));
    fields
}

/// What events are made from.
struct Source<'a> {
    opened: &'a Opened,
    namespace: String,
}

/// The events of a page of the log.
pub(super) fn batch(opened: &Opened, receiver: &Receiver, events: &[Event], known: &BTreeMap<RunId, Known>) -> Batch {
    let namespace = receiver.values.get("namespace").map(Secret::expose).filter(|value| !value.is_empty());
    let namespace = namespace.unwrap_or(&opened.project.config.project).to_owned();
    let source = Source { opened, namespace };
    let of = |event: &Event| known.get(&event.run).map(|known| source.event(event, known)).unwrap_or_default();
    let bodies = events.iter().flat_map(|event| of(event).into_iter().map(|body| (event.position, body))).collect();
    Batch { bodies, path: "" }
}

/// The id of a run as OpenLineage writes it: the same 128 bits.
fn uuid(bits: u128) -> String {
    let text = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn run_uuid(run: RunId) -> String {
    uuid(run.bits())
}

/// An id for an attempt of a step: made from its name, so that the same one is sent again for the same attempt (version 8 of RFC 9562).
fn step_uuid(run: RunId, step: &StepId, attempt: u32) -> String {
    let hash = Version::of(&[("run", &run.to_string()), ("step", step.as_str()), ("attempt", &attempt.to_string())]);
    let digits: String = hash.as_str().chars().filter(char::is_ascii_hexdigit).chain(std::iter::repeat('0')).take(32).collect();
    let bits = u128::from_str_radix(&digits, 16).unwrap_or(0);
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
    uuid(bits)
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

impl Source<'_> {
    fn event(&self, event: &Event, known: &Known) -> Vec<Value> {
        let attempt = known.attempts.get(&event.sequence).copied().unwrap_or(1);
        let of_step = |step, word, outcome, failure| vec![self.of_step((event, known), (step, attempt), word, outcome, failure)];
        match &event.event {
            RunEvent::Started { .. } => vec![self.of_run(event, known, "START")],
            RunEvent::Finished { status } => {
                let word = match status {
                    RunStatus::Succeeded => "COMPLETE",
                    RunStatus::Canceled => "ABORT",
                    _ => "FAIL",
                };
                vec![self.of_run(event, known, word)]
            }
            RunEvent::StepStarted { step, .. } => of_step(step, "START", None, None),
            RunEvent::StepSucceeded { step, outcome } => of_step(step, "COMPLETE", Some(outcome), None),
            RunEvent::StepErrored { step, failure, .. } => {
                let word = if failure.class == FailureClass::Canceled { "ABORT" } else { "FAIL" };
                of_step(step, word, failure.published.as_deref(), Some(failure))
            }
            // Nobody says how its steps ended.
            RunEvent::Lost { .. } => executing_before(known, event.sequence)
                .map(|(step, attempt)| self.of_step((event, known), (step, attempt), "FAIL", None, None))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn common(&self, at: Timestamp, word: &str, (run, run_facets): (String, Value), (job, job_facets): (String, Value)) -> Value {
        json!({
            "eventType": word, "eventTime": text(at), "producer": PRODUCER, "schemaURL": SCHEMA,
            "run": { "runId": run, "facets": run_facets },
            "job": { "namespace": self.namespace, "name": job, "facets": job_facets },
            "inputs": [], "outputs": [],
        })
    }

    fn job_type(kind: &str) -> Value {
        let fields = json!({ "processingType": "BATCH", "integration": "SUBAK", "jobType": kind });
        facet("JobTypeJobFacet", "2-0-4", fields)
    }

    fn of_run(&self, event: &Event, known: &Known, word: &str) -> Value {
        let mut facets = json!({});
        if let Some(interval) = &known.state.interval {
            let moment = |text: &str| format!("{}Z", text.replace(' ', "T"));
            let fields = json!({ "nominalStartTime": moment(&interval.start_utc), "nominalEndTime": moment(&interval.end_utc) });
            facets["nominalTime"] = facet("NominalTimeRunFacet", "1-0-1", fields);
        }
        let job = json!({ "jobType": Self::job_type("JOB") });
        self.common(event.at, word, (run_uuid(event.run), facets), (known.name(), job))
    }

    fn of_step(
        &self,
        (event, known): (&Event, &Known),
        (step, attempt): (&StepId, u32),
        word: &str,
        outcome: Option<&StepOutcome>,
        failure: Option<&Failure>,
    ) -> Value {
        let base = step.base();
        let asset = base.as_str().parse::<AssetKey>().ok().and_then(|key| self.opened.graph().get(&key));
        let parent = json!({
            "run": { "runId": run_uuid(event.run) }, "job": { "namespace": self.namespace, "name": known.name() },
        });
        let mut run = json!({ "parent": facet("ParentRunFacet", "1-2-0", parent) });
        if let Some(failure) = failure {
            let message = std::iter::once(&failure.message).chain(&failure.causes).cloned().collect::<Vec<_>>().join(": ");
            let fields = json!({ "message": format!("{}: {message}", failure.code), "programmingLanguage": "SQL" });
            run["errorMessage"] = facet("ErrorMessageRunFacet", "1-0-1", fields);
        }
        let name = asset.map_or_else(|| format!("{}.{}", known.name(), base), |asset| asset.key.to_string());
        let mut job = json!({ "jobType": Self::job_type(asset.map_or("TASK", |asset| kind(&asset.definition))) });
        if let Some(asset) = asset {
            if let Definition::Sql(sql) = &asset.definition {
                job["sql"] = facet("SQLJobFacet", "1-1-0", json!({ "query": sql.sql }));
            }
            if let Some(text) = &asset.description {
                job["documentation"] = facet("DocumentationJobFacet", "1-1-0", json!({ "description": text }));
            }
            if let Some(owner) = &asset.owner {
                job["ownership"] = facet("OwnershipJobFacet", "1-0-1", json!({ "owners": [{ "name": owner }] }));
            }
        }
        let id = step_uuid(event.run, step, attempt);
        let mut told = self.common(event.at, word, (id, run), (name, job));
        if let Some(asset) = asset {
            let reads = asset.upstream.iter().filter_map(|key| self.opened.graph().get(key));
            let mut inputs: Vec<Value> = reads.map(|asset| self.dataset(asset, json!({}))).collect();
            inputs.extend(self.origin(asset));
            told["inputs"] = json!(inputs);
            told["outputs"] = json!([self.output(asset, outcome, failure)]);
        }
        told
    }

    /// A dataset: where it stands, and what it is called there.
    fn dataset(&self, asset: &Asset, facets: Value) -> Value {
        let (namespace, name) = match asset.stored_in() {
            Some(connection) => self.table(connection, asset.key.as_str()),
            None => (self.namespace.clone(), asset.key.to_string()),
        };
        json!({ "namespace": namespace, "name": name, "facets": facets })
    }

    /// What a load reads at its source.
    fn origin(&self, asset: &Asset) -> Option<Value> {
        let (Definition::Ingest(ingest) | Definition::Seed(ingest)) = &asset.definition else { return None };
        let (namespace, name) = self.table(&ingest.from, &ingest.stream);
        Some(json!({ "namespace": namespace, "name": name, "facets": {} }))
    }

    /// The names of a table by the naming of OpenLineage, as far as the connection says in the open where it leads.
    fn table(&self, connection: &ConnectionName, table: &str) -> (String, String) {
        let own = || (format!("subak://{}/{connection}", self.opened.project.config.project), table.to_owned());
        let Some(declared) = self.opened.project.config.connections.get(connection) else { return own() };
        let value = |key: &str| declared.values.get(key).and_then(|value| value.literal());
        let server = |scheme: &str, port: &str| Some(format!("{scheme}://{}:{}", value("host")?, value("port").unwrap_or(port)));
        let in_database = |namespace: Option<String>| Some((namespace?, format!("{}.{table}", value("database")?)));
        let named = match declared.kind.as_str() {
            "postgres" => in_database(server("postgres", "5432")),
            "mysql" => in_database(server("mysql", "3306")),
            "clickhouse" => in_database(server("clickhouse", "8123")),
            "mongodb" => in_database(server("mongodb", "27017")),
            kind @ ("duckdb" | "sqlite") => value("path").map(|path| {
                let path = self.opened.root.join(path);
                (format!("{kind}://{}", path.display()), table.to_owned())
            }),
            "files" => value("path").map(|path| {
                let is_here = !path.contains("://");
                let place = if is_here { format!("file://{}", self.opened.root.join(path).display()) } else { path.to_owned() };
                (place, table.to_owned())
            }),
            _ => None,
        };
        named.unwrap_or_else(own)
    }

    fn output(&self, asset: &Asset, outcome: Option<&StepOutcome>, failure: Option<&Failure>) -> Value {
        let mut facets = json!({});
        if let Some(columns) = self.opened.project.columns(&asset.key) {
            let fields: Vec<Value> = columns
                .iter()
                .map(|column| {
                    let mut field = json!({ "name": column.name });
                    if let Some(text) = asset.columns.get(&column.name) {
                        field["description"] = json!(text);
                    }
                    field
                })
                .collect();
            facets["schema"] = facet("SchemaDatasetFacet", "1-2-0", json!({ "fields": fields }));
            let of = |column: &subak_project::OutputColumn| {
                let input = |source: &subak_project::ColumnRef| {
                    let (namespace, name) = match self.opened.graph().get(&source.asset).and_then(Asset::stored_in) {
                        Some(connection) => self.table(connection, source.asset.as_str()),
                        None => (self.namespace.clone(), source.asset.to_string()),
                    };
                    json!({ "namespace": namespace, "name": name, "field": source.column })
                };
                let inputs: Vec<Value> = column.sources.iter().map(input).collect();
                (column.name.clone(), json!({ "inputFields": inputs }))
            };
            let fields: Map<String, Value> = columns.iter().filter(|column| !column.sources.is_empty()).map(of).collect();
            if !fields.is_empty() {
                facets["columnLineage"] = facet("ColumnLineageDatasetFacet", "1-2-0", json!({ "fields": fields }));
            }
        }
        if let Some(outcome) = outcome {
            let version = outcome.version.as_ref().map(ToString::to_string);
            if let Some(version) = version {
                facets["version"] = facet("DatasetVersionDatasetFacet", "1-0-1", json!({ "datasetVersion": version }));
            }
        }
        let mut told = self.dataset(asset, facets);
        let checks = outcome.map(|outcome| &outcome.checks).or(failure.map(|failure| &failure.checks));
        let assertions: Vec<Value> = checks.into_iter().flatten().map(assertion).collect();
        let mut stated = json!({});
        if !assertions.is_empty() {
            told["facets"]["dataQualityAssertions"] =
                facet("DataQualityAssertionsDatasetFacet", "1-1-0", json!({ "assertions": assertions }));
        }
        if let Some(account) = outcome.and_then(|outcome| outcome.account) {
            let fields = json!({ "rowCount": account.written });
            stated["outputStatistics"] = facet("OutputStatisticsOutputDatasetFacet", "1-0-2", fields);
        }
        told["outputFacets"] = stated;
        told
    }
}

fn kind(definition: &Definition) -> &'static str {
    match definition {
        Definition::Ingest(_) | Definition::Seed(_) => "LOAD",
        Definition::Sql(_) => "QUERY",
        Definition::Dbt(_) => "MODEL",
        _ => "TASK",
    }
}

fn assertion(check: &CheckOutcome) -> Value {
    json!({ "assertion": check.check, "success": check.passed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_stay_the_same() {
        let run = RunId::from_parts(1_700_000_000_000, 7);
        assert_eq!(run_uuid(run).len(), 36);
        let step = step_uuid(run, &StepId::task("a"), 1);
        assert_eq!((step.len(), &step[14..15]), (36, "8"));
        assert!("89ab".contains(&step[19..20]), "{step}");
        assert_eq!(step, step_uuid(run, &StepId::task("a"), 1));
        assert_ne!(step, step_uuid(run, &StepId::task("a"), 2));
    }
}
