//! The HTTP interface of a server: who may ask what, health, metrics, and webhooks that start each run once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use subak_testkit::{Sandbox, Served};

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

struct Told {
    served: Served,
    port: u16,
}

/// A port that is free just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

impl Told {
    fn start() -> Self {
        let mut told = Self { served: Served::unstarted(BINARY, FILES), port: 0 };
        told.restart();
        told
    }

    fn restart(&mut self) {
        self.port = free_port();
        self.served.start_with(&["--listen", &format!("127.0.0.1:{}", self.port), "--host", "data.example.org"], SECRETS);
        let port = self.port;
        self.served.wait("the interface", |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Sends a request; the status and the whole answer.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let mut said = BTreeMap::from([("Host", "localhost"), ("Connection", "close")]);
        said.extend(headers.iter().copied());
        let said: Vec<String> = said.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let said = said.concat();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let head = format!("{method} {path} HTTP/1.1\r\n{said}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("sent");
        // A body that is too long is answered before all of it is read.
        drop(stream.write_all(body));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status =
            answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"));
        (status, answer)
    }

    fn tell(&self, sensor: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        self.ask("POST", &format!("/api/v1/webhooks/{sensor}"), headers, body.as_bytes())
    }
}

/// Every route is called without what it asks for; what is in no table does not exist.
#[test]
fn routes_ask_for_what_they_need() {
    let told = Told::start();
    for route in subak_server::ROUTES {
        let path = route.path.replace("{sensor}", "orders");
        let expected = match route.access {
            subak_server::Access::Open => 200,
            subak_server::Access::Hook => 401,
        };
        let (status, answer) = told.ask(route.method, &path, &[], b"{}");
        assert_eq!(status, expected, "{} {path}: {answer}", route.method);
        assert!(answer.contains("x-content-type-options: nosniff") && answer.contains("default-src 'none'"), "{answer}");
        // By another name it is not this server.
        let (status, answer) = told.ask(route.method, &path, &[("Host", "evil.example.com"), BEARER], b"{}");
        assert_eq!(status, 421, "{answer}");
        assert_eq!(told.ask(route.method, &path, &[("Host", "Data.Example.org:443")], b"{}").0, expected);
        assert_eq!(told.ask("DELETE", &path, &[BEARER], b"").0, 405);
    }
    for path in
        ["/", "/api", "/api/v1/webhooks", "/api/v1/webhooks/", "/api/v1/webhooks/orders/x", "/livez/../etc/passwd", "/%2e%2e/"]
    {
        let (status, answer) = told.ask("GET", path, &[], b"");
        assert_eq!(status, 404, "{path}: {answer}");
        assert!(answer.contains("SBK0601"), "{answer}");
    }
    // Nothing was kept of what was refused.
    let shown = told.served.sandbox.run(&["automation", "test", "orders"]).expect(0);
    assert!(shown.err.contains("nothing happened"), "{}", shown.err);
}

/// A delivery is kept before its answer, and starts one run, however often it comes and whatever dies.
#[test]
fn a_delivery_starts_one_run() {
    let mut told = Told::start();
    let (status, answer) = told.tell("orders", &[BEARER, ("Idempotency-Key", "a1")], "{\"file\": \"a.csv\"}");
    assert_eq!(status, 202, "{answer}");
    assert!(answer.contains("{\"delivery\":\"a1\",\"is_new\":true}"), "{answer}");
    let (status, answer) = told.tell("orders", &[BEARER, ("Idempotency-Key", "a1")], "{\"file\": \"other.csv\"}");
    assert!(status == 200 && answer.contains("\"is_new\":false"), "{answer}");
    told.served.wait("the run", |served| served.lines("log") == ["a.csv"]);
    // What is told while nobody looks is looked at by the next server.
    told.served.sandbox.run(&["automation", "off", "orders"]).expect(0);
    for file in ["b.csv", "c.csv"] {
        assert_eq!(told.tell("orders", &[BEARER], &format!("{{\"file\": \"{file}\"}}")).0, 202);
    }
    told.served.kill();
    told.restart();
    told.served.sandbox.run(&["automation", "on", "orders"]).expect(0);
    told.served.wait("both runs", |served| served.lines("log").len() == 3);
    // A text, signed as GitHub does it.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(told.tell("pushes", &[("X-Hub-Signature-256", signature)], "Hello, World!").0, 202);
    told.served.wait("the signed one", |served| served.lines("log").last().map(String::as_str) == Some("Hello, World!"));
    let mut lines = told.served.lines("log");
    lines.sort();
    assert_eq!(lines, ["Hello, World!", "a.csv", "b.csv", "c.csv"]);
    // One that no run can be made of is told, and holds up no other.
    assert_eq!(told.tell("orders", &[BEARER], "{\"other\": 1}").0, 202);
    assert_eq!(told.tell("orders", &[BEARER], "{\"file\": \"d.csv\"}").0, 202);
    told.served.wait("the next", |served| served.lines("log").last().map(String::as_str) == Some("d.csv"));
    let ticks = told.served.sandbox.run(&["automation", "show", "orders", "--output", "csv"]).expect(0).out;
    assert!(ticks.contains("failed"), "{ticks}");
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
    let told = Told::start();
    for (sensor, headers, body, expected, code) in cases {
        let (status, answer) = told.tell(sensor, headers, body);
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
    let mut told = Told::start();
    assert!(told.ask("GET", "/readyz", &[], b"").1.ends_with("ready\n"));
    told.served.sandbox.run(&["run", "gold.one"]).expect(0);
    told.served.sandbox.run(&["run", "--job", "load", "--set", "file=x"]).expect(0);
    let (_, answer) = told.ask("GET", "/metrics", &[], b"");
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
    told.served.wait("the broken project", |_| told.ask("GET", "/metrics", &[], b"").1.contains("subak_project_broken 1.0"));
    assert_eq!(told.served.stop(), Some(143));
}

/// Every route stands in the reference.
#[test]
fn the_reference_knows_every_route() {
    let page = include_str!("../../../docs/reference/http-api.md");
    for route in subak_server::ROUTES {
        assert!(page.contains(&format!("`{} {}`", route.method, route.path)), "{} {}", route.method, route.path);
    }
}
