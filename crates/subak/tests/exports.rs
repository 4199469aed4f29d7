//! What other systems are told of runs: OpenLineage and OpenTelemetry, from the log, whoever is there to hear it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use subak_testkit::{HttpDouble, HttpReply, HttpRequest, Sandbox, Served};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

fn files(url: &str) -> Vec<(&'static str, String)> {
    let project = format!(
        "project: told\ntimezone: UTC\nconnections:\n  warehouse: {{ type: duckdb, path: w.duckdb }}\n  drop: {{ type: files, path: drop }}\n\
         exports:\n  lineage: {{ type: openlineage, url: \"{url}/lineage\", namespace: prod, authorization: \"Bearer ${{TOKEN:-sesame}}\" }}\n  \
         traces: {{ type: opentelemetry, url: \"{url}/\", service: warehouse }}\n"
    );
    let loads =
        "ingest:\n  from: drop\n  streams:\n    orders: { path: orders.csv, columns: { id: bigint, amount: 'decimal(18,2)' } }\n";
    vec![
        ("subak.yml", project),
        ("drop/orders.csv", "id,amount\n1,2.50\n2,3.00\n".to_owned()),
        ("assets/bronze/drop.yml", loads.to_owned()),
        (
            "assets/gold/sales.sql",
            "/* subak\nstored_as: table\nowner: finance\ndescription: Sales\nchecks: [ { not_null: total } ]\n*/\nselect sum(amount) as total from bronze.orders\n".to_owned(),
        ),
        ("jobs/jobs.yml", "job: say\ntasks: { a: { run: 'exit 3' } }\n---\njob: fine\ntasks: { a: { run: 'echo a >> log' } }\n".to_owned()),
    ]
}

fn bodies(requests: &[HttpRequest], path: &str) -> Vec<Value> {
    let own = requests.iter().filter(|request| request.path == path);
    own.map(|request| serde_json::from_str(&request.body).expect("JSON")).collect()
}

/// `eventType job` of each event.
fn words(events: &[Value]) -> Vec<String> {
    let word =
        |event: &Value| format!("{} {}", event["eventType"].as_str().unwrap_or(""), event["job"]["name"].as_str().unwrap_or(""));
    events.iter().map(word).collect()
}

#[test]
fn lineage_and_traces_of_a_run() {
    let double = HttpDouble::start(|_| HttpReply::status(201, ""));
    let files = files(&double.url());
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let sandbox = Sandbox::new(BINARY, &files);
    sandbox.run(&["run", "kind:ingest", "kind:sql"]).expect(0);
    let requests = double.requests();
    assert!(
        requests.iter().filter(|request| request.path == "/lineage").all(|request| request
            .headers
            .get("authorization")
            .map(String::as_str)
            == Some("Bearer sesame"))
    );
    let events = bodies(&requests, "/lineage");
    let run = "kind:ingest kind:sql";
    assert_eq!(
        words(&events),
        [
            &format!("START {run}"),
            "START bronze.orders",
            "COMPLETE bronze.orders",
            "START gold.sales",
            "COMPLETE gold.sales",
            &format!("COMPLETE {run}")
        ]
    );
    let (load, sales) = (&events[2], &events[4]);
    let folder = sandbox.path().canonicalize().expect("a path");
    assert_eq!(load["inputs"][0]["namespace"], format!("file://{}", folder.join("drop").display()));
    assert_eq!(load["outputs"][0]["namespace"], format!("duckdb://{}", folder.join("w.duckdb").display()));
    assert_eq!(
        (&load["outputs"][0]["name"], &load["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"]),
        (&"bronze.orders".into(), &2.into())
    );
    assert_eq!(
        sales["inputs"][0],
        serde_json::json!({ "namespace": load["outputs"][0]["namespace"], "name": "bronze.orders", "facets": {} })
    );
    let facets = &sales["outputs"][0]["facets"];
    let field = &facets["columnLineage"]["fields"]["total"]["inputFields"][0];
    assert_eq!((&field["name"], &field["field"]), (&"bronze.orders".into(), &"amount".into()), "{sales:#}");
    assert_eq!(
        facets["dataQualityAssertions"]["assertions"][0],
        serde_json::json!({ "assertion": "not_null(total)", "success": true })
    );
    assert_eq!(sales["job"]["facets"]["ownership"]["owners"][0]["name"], "finance");
    assert!(sales["job"]["facets"]["sql"]["query"].as_str().is_some_and(|sql| sql.contains("sum(amount)")), "{sales:#}");
    assert_eq!(sales["run"]["facets"]["parent"]["run"]["runId"], events[0]["run"]["runId"]);
    // What has begun and what has ended is one attempt, and has one id.
    assert_eq!(events[3]["run"]["runId"], sales["run"]["runId"]);
    let traces = bodies(&requests, "/v1/traces");
    let told = &traces[0]["resourceSpans"][0];
    assert_eq!(told["resource"]["attributes"][0]["value"]["stringValue"], "warehouse");
    let spans = told["scopeSpans"][0]["spans"].as_array().expect("spans");
    let names: Vec<&str> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
    assert_eq!(names, [run, "bronze.orders", "gold.sales"]);
    assert!(spans[1..].iter().all(|span| span["parentSpanId"] == spans[0]["spanId"] && span["traceId"] == spans[0]["traceId"]));
    assert_eq!((spans[0]["traceId"].as_str().map(str::len), spans[0]["spanId"].as_str().map(str::len)), (Some(32), Some(16)));
    let hex = spans[0]["traceId"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        events[0]["run"]["runId"].as_str().map(|id| id.replace('-', "")),
        Some(hex),
        "the run, the trace and the events have one id"
    );
}

/// What failed says why.
#[test]
fn lineage_and_traces_of_what_failed() {
    let double = HttpDouble::start(|_| HttpReply::status(201, ""));
    let files = files(&double.url());
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let sandbox = Sandbox::new(BINARY, &files);
    sandbox.run(&["run", "--job", "say"]).expect(1);
    let requests = double.requests();
    let events = bodies(&requests, "/lineage");
    assert_eq!(words(&events), ["START say", "START say.task:a", "FAIL say.task:a", "FAIL say"]);
    let error = &events[2]["run"]["facets"]["errorMessage"]["message"];
    assert!(error.as_str().is_some_and(|text| text.contains("SBK0328") && text.contains("code 3")), "{error}");
    let spans = &bodies(&requests, "/v1/traces")[0]["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!((&spans[0]["status"]["code"], &spans[1]["status"]["code"]), (&2.into(), &2.into()));
}

/// FM-54: who is down, slow or wrong holds up no run, and is told later what there was to tell.
#[test]
fn fm_54_who_does_not_listen_is_told_later() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let double = HttpDouble::start(move |request| match request.path.as_str() {
        "/lineage" if !up.load(Ordering::Relaxed) => HttpReply::status(503, "later"),
        "/v1/traces" => HttpReply::status(400, "no such trace"),
        _ => HttpReply::status(200, ""),
    });
    let files = files(&double.url());
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let mut served = Served::new(BINARY, &files);
    served.sandbox.run(&["run", "--job", "fine"]).expect(0);
    served.sandbox.run(&["run", "--job", "fine"]).expect(0);
    served.wait("an attempt", |_| double.requests().iter().any(|request| request.path == "/lineage"));
    served.kill();
    is_up.store(true, Ordering::Relaxed);
    served.start();
    let told = std::cell::RefCell::new(Vec::new());
    served.wait("all of it", |_| {
        told.borrow_mut().extend(words(&bodies(&double.requests(), "/lineage")));
        told.borrow().iter().filter(|word| *word == "COMPLETE fine").count() >= 2
    });
    let told = told.into_inner();
    let one = ["START fine", "START fine.task:a", "COMPLETE fine.task:a", "COMPLETE fine"];
    assert_eq!(told.iter().filter(|word| one.contains(&word.as_str())).count(), 8, "{told:?}");
    assert_eq!(served.lines("log"), ["a", "a"]);
}
