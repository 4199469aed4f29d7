//! Health, metrics, and webhooks that start each run once.

use subak_testkit::{Listening, Sandbox};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const FILES: &[(&str, &str)] = &[
    ("subak.yml", "project: told\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n"),
    ("assets/gold/one.sql", "/* subak\nstored_as: table\n*/\nselect 1 as id\n"),
    (
        "jobs/jobs.yml",
        "job: load\nparams: { file: { type: text } }\ntasks: { a: { run: [ sh, -c, 'echo \"$0\" >> log', \"{{ params.file }}\" ] } }\n---\n\
         sensor: orders\nwatch: { webhook: { secret: \"${secret:orders_hook}\" } }\nstart: { job: load, set: { file: \"{{ item.body.file }}\" } }\n---\n\
         sensor: pushes\nwatch: { webhook: { secret: \"${secret:orders_hook}\", signature_header: X-Hub-Signature-256 } }\nstart: { job: load, set: { file: \"{{ item.body }}\" } }\n---\n\
         sensor: locked\nwatch: { webhook: { secret: \"${secret:no_such_secret}\" } }\nstart: { job: load, set: { file: x } }\n",
    ),
];

const SECRETS: &[(&str, &str)] = &[("SUBAK_SECRET_ORDERS_HOOK", "It's a Secret to Everybody")];

const BEARER: (&str, &str) = ("Authorization", "Bearer It's a Secret to Everybody");

const ARGUMENTS: &[&str] = &["--host", "data.example.org"];

fn start() -> Listening {
    Listening::new(BINARY, FILES, ARGUMENTS, SECRETS)
}

fn tell(told: &Listening, sensor: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let heard = told.ask("POST", &format!("/api/v1/webhooks/{sensor}"), headers, body.as_bytes());
    (heard.status, heard.text)
}

/// A delivery is kept before its answer, and starts one run, however often it comes and whatever dies.
#[test]
fn a_delivery_starts_one_run() {
    let mut told = start();
    let (status, answer) = tell(&told, "orders", &[BEARER, ("Idempotency-Key", "a1")], "{\"file\": \"a.csv\"}");
    assert_eq!(status, 202, "{answer}");
    assert!(answer.contains("{\"delivery\":\"a1\",\"is_new\":true}"), "{answer}");
    let (status, answer) = tell(&told, "orders", &[BEARER, ("Idempotency-Key", "a1")], "{\"file\": \"other.csv\"}");
    assert!(status == 200 && answer.contains("\"is_new\":false"), "{answer}");
    told.served.wait("the run", |served| served.lines("log") == ["a.csv"]);
    // What is told while nobody looks is looked at by the next server.
    told.served.sandbox.run(&["automation", "off", "orders"]).expect(0);
    for file in ["b.csv", "c.csv"] {
        assert_eq!(tell(&told, "orders", &[BEARER], &format!("{{\"file\": \"{file}\"}}")).0, 202);
    }
    told.served.kill();
    told.restart();
    told.served.sandbox.run(&["automation", "on", "orders"]).expect(0);
    told.served.wait("both runs", |served| served.lines("log").len() == 3);
    // A text, signed as GitHub does it.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(tell(&told, "pushes", &[("X-Hub-Signature-256", signature)], "Hello, World!").0, 202);
    told.served.wait("the signed one", |served| served.lines("log").last().map(String::as_str) == Some("Hello, World!"));
    let mut lines = told.served.lines("log");
    lines.sort();
    assert_eq!(lines, ["Hello, World!", "a.csv", "b.csv", "c.csv"]);
    // One that no run can be made of is told, and holds up no other.
    assert_eq!(tell(&told, "orders", &[BEARER], "{\"other\": 1}").0, 202);
    assert_eq!(tell(&told, "orders", &[BEARER], "{\"file\": \"d.csv\"}").0, 202);
    told.served.wait("the next", |served| served.lines("log").last().map(String::as_str) == Some("d.csv"));
    let ticks = told.served.sandbox.run(&["automation", "show", "orders", "--output", "csv"]).expect(0).out;
    assert!(ticks.contains("failed"), "{ticks}");
}

/// The dashboard for Grafana asks for nothing that is not counted.
#[test]
fn the_dashboard_shows_what_is_counted() {
    let told = start();
    let token = told.token("viewer");
    let counted = told.call(&token, "GET", "/metrics", "").text;
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../../docs/monitoring/grafana.json")).expect("JSON");
    let targets =
        dashboard["panels"].as_array().into_iter().flatten().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut names = std::collections::BTreeSet::new();
    for target in targets {
        let words = target["expr"].as_str().unwrap_or_default();
        let words = words.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        names.extend(words.filter(|word| word.starts_with("subak_") || word.starts_with("process_")).map(str::to_owned));
    }
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let kind = format!("# TYPE {} ", name.trim_end_matches("_total"));
        assert!(counted.contains(&kind), "`{name}` is not counted");
    }
}

/// A sensor, headers, a body, and the status and code of the answer.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

/// What is refused, with the reason: the wrong secret, no such sensor, a secret that is not there, bodies that are none.
#[test]
fn what_cannot_be_taken_is_refused() {
    let signature = ("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    let long = format!("\"{}\"", "x".repeat(1024 * 1024));
    let cases: [Case<'_>; 9] = [
        ("orders", &[("Authorization", "Bearer wrong")], "{}", 401, "SBK0603"),
        ("nothing", &[BEARER], "{}", 401, "SBK0603"),
        ("locked", &[BEARER], "{}", 401, "SBK0603"),
        ("locked", &[("Authorization", "Bearer ")], "{}", 401, "SBK0603"),
        ("pushes", &[BEARER], "{}", 401, "SBK0603"),
        ("pushes", &[signature], "{}", 401, "SBK0603"),
        ("orders", &[BEARER, ("Content-Type", "application/json")], "{", 400, "SBK0604"),
        ("orders", &[BEARER, ("Idempotency-Key", "")], "{}", 400, "SBK0604"),
        ("orders", &[BEARER], &long, 413, "SBK0604"),
    ];
    let told = start();
    for (sensor, headers, body, expected, code) in cases {
        let (status, answer) = tell(&told, sensor, headers, body);
        assert_eq!((status, answer.contains(code)), (expected, true), "{sensor} {headers:?}: {answer}");
        assert!(!answer.contains("Everybody"), "{answer}");
    }
    assert!(told.served.lines("log").is_empty());
    let elsewhere = Sandbox::new(BINARY, FILES).run(&["server", "start", "--listen", "0.0.0.0:7070"]).expect(3);
    assert!(elsewhere.err.contains("only addresses of this machine are served"), "{}", elsewhere.err);
    // One that is taken says so.
    let taken = Sandbox::new(BINARY, FILES).run(&["server", "start", "--listen", &format!("127.0.0.1:{}", told.port)]).expect(3);
    assert!(taken.err.contains("cannot be listened to"), "{}", taken.err);
}

/// What whoever watches the server is told.
#[test]
fn health_and_metrics() {
    let mut told = start();
    assert!(told.ask("GET", "/readyz", &[], b"").text.ends_with("ready\n"));
    told.served.sandbox.run(&["run", "gold.one"]).expect(0);
    told.served.sandbox.run(&["run", "--job", "load", "--set", "file=x"]).expect(0);
    let token = told.token("viewer");
    let answer = told.call(&token, "GET", "/metrics", "").text;
    for expected in [
        "# TYPE subak_runs_ended counter",
        "subak_runs_ended_total{job=\"load\",status=\"succeeded\"} 1.0",
        "subak_runs{status=\"succeeded\"} 2.0",
        "subak_asset_rows{asset=\"gold.one\"} 1.0",
        "subak_queue_runs 0.0",
        "subak_project_broken 0.0",
        "subak_build_info{version=",
        "process_cpu_seconds_total",
        "# EOF",
    ] {
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    told.served.sandbox.write("jobs/broken.yml", "job: broken\n");
    told.served
        .wait("the broken project", |_| told.call(&token, "GET", "/metrics", "").text.contains("subak_project_broken 1.0"));
    assert_eq!(told.served.stop(), Some(0));
}
