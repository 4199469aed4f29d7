//! Assistants: the client that the authors of the Model Context Protocol publish, against the command and against the server.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use subak_testkit::{Listening, Sandbox};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp_client.py");

const PYTHON: Option<&str> = option_env!("SUBAK_TEST_MCP");

const FILES: &[(&str, &str)] = &[
    ("subak.yml", "project: asked\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n"),
    ("assets/silver/one.sql", "/* subak\nstored_as: table\n*/\nselect 1 as id, 'a' as name\n"),
    ("assets/gold/two.sql", "/* subak\nstored_as: table\nchecks: [ { not_null: id } ]\n*/\nselect id from silver.one\n"),
    ("jobs/jobs.yml", "job: say\ntasks: { a: { run: 'echo ValueError: no; exit 3' } }\n"),
];

/// What the client was told of these calls.
fn asked(arguments: &[&str], calls: &Value) -> Value {
    let python = PYTHON.unwrap_or_else(|| panic!("the MCP client is not installed; `make setup` does it"));
    let mut client = Command::new(python);
    client.arg(CLIENT).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().expect("starts");
    client.stdin.take().expect("a pipe").write_all(calls.to_string().as_bytes()).expect("written");
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(answer: &Value) -> &str {
    answer["content"][0]["text"].as_str().unwrap_or_default()
}

fn names(told: &Value) -> Vec<&str> {
    told["tools"].as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str()).collect()
}

#[test]
fn an_assistant_looks_at_a_project() {
    let sandbox = Sandbox::new(BINARY, FILES);
    sandbox.run(&["run", "gold.two", "silver.one"]).expect(0);
    sandbox.run(&["run", "--job", "say"]).expect(1);
    let root = sandbox.path().to_str().expect("a path");
    let calls = json!([
        ["overview", {}],
        ["list_assets", { "select": "gold.*" }],
        ["get_asset", { "asset": "gold.two" }],
        ["get_asset", { "asset": "gold.tow" }],
        ["list_runs", { "status": "failed" }],
        ["plan", { "select": ["+gold.two"], "full_refresh": true }],
        ["query", { "sql": "select name from silver.one" }],
        ["query", { "sql": "drop table silver.one" }],
        ["get_lineage", { "focus": "gold.two", "depth": 1 }],
        ["list_checks", {}],
        ["read_doc", { "topic": "guides~checks" }],
        ["list_assets", { "nothing": "x" }],
        ["get_asset", {}],
    ]);
    let told = asked(&["stdio", BINARY, "-C", root, "mcp"], &calls);
    assert_eq!(told["server"]["serverInfo"]["name"], "subak", "{told}");
    assert!(names(&told).len() >= 18 && told["tools"][0]["inputSchema"]["type"] == "object", "{told}");
    let answers = told["answers"].as_array().expect("answers");
    assert!(text(&answers[0]).contains("1 run failed today"), "{}", answers[0]);
    assert_eq!(answers[1]["structuredContent"]["items"][0]["asset"], "gold.two");
    assert_eq!(answers[2]["structuredContent"]["asset"]["status"], "fresh");
    assert!(answers[3]["isError"] == true && text(&answers[3]).contains("did you mean `gold.two`?"), "{}", answers[3]);
    let failed = answers[4]["structuredContent"]["items"][0]["run"].as_str().expect("a run").to_owned();
    assert_eq!(answers[5]["structuredContent"]["action_count"], 2, "{}", answers[5]);
    assert_eq!(answers[6]["structuredContent"]["rows"], json!([["a"]]));
    assert!(answers[7]["isError"] == true && text(&answers[7]).contains("SBK0309"), "{}", answers[7]);
    assert!(text(&answers[8]).contains("silver.one") && text(&answers[9]).contains("not_null"), "{told}");
    assert!(text(&answers[10]).contains("# Checks"), "{}", answers[10]);
    assert!(answers[11]["isError"] == true && text(&answers[11]).contains("nothing"), "{}", answers[11]);
    assert!(answers[12]["isError"] == true && text(&answers[12]).contains("`asset` is missing"), "{}", answers[12]);
    // What it looks at is as it is now: files that have changed are read again.
    let calls = json!([["get_run", { "run": failed }], ["read_log", { "run": failed, "step": "task:a" }]]);
    let told = asked(&["stdio", BINARY, "-C", root, "mcp"], &calls);
    assert!(text(&told["answers"][0]).contains("the program ended with code 3"), "{told}");
    assert!(text(&told["answers"][1]).contains("ValueError: no"), "{told}");
}

/// What does not fit the protocol is answered as JSON-RPC says, and ends nothing.
#[test]
fn messages_that_are_none() {
    let sandbox = Sandbox::new(BINARY, FILES);
    let mut command = sandbox.command(&["mcp"]);
    let mut assistant = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let lines = [
        "no JSON",
        "[]",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"accept"}}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"overview","arguments":[]}}"#,
        r#"{"jsonrpc":"2.0","id":"four","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":5,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}"#,
    ];
    assistant.stdin.take().expect("a pipe").write_all(format!("{}\n", lines.join("\n")).as_bytes()).expect("written");
    let output = assistant.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let answers: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<String> = answers.iter().map(|answer| format!("{} {}", answer["id"], answer["error"]["code"])).collect();
    assert_eq!(told, ["null -32700", "null -32600", "1 -32601", "2 -32602", "3 -32602", "\"four\" null", "5 null"]);
    assert_eq!(answers[6]["result"]["protocolVersion"], "2025-11-25");
}

/// Over HTTP an assistant may do what its token may, and no more.
#[test]
fn an_assistant_of_a_server_has_the_rights_of_its_token() {
    let server = Listening::new(BINARY, FILES, &[], &[]);
    server.served.sandbox.run(&["run", "gold.two", "silver.one"]).expect(0);
    let (viewer, operator) = (server.token("viewer"), server.token("admin"));
    let url = format!("http://127.0.0.1:{}/api/v1/mcp", server.port);
    let calls = json!([["overview", {}], ["query", { "sql": "select 1 as one" }]]);
    let told = asked(&["http", &url, &viewer], &calls);
    assert!(!names(&told).contains(&"query") && names(&told).contains(&"list_assets"), "{told}");
    assert!(told["answers"][1]["isError"] == true && text(&told["answers"][1]).contains("SBK0607"), "{told}");
    let told = asked(&["http", &url, &operator], &calls);
    assert_eq!(told["answers"][1]["structuredContent"]["rows"], json!([[1]]), "{told}");
    // A page of somebody else says nothing here, and nothing is said to whoever is not known.
    let refused = server.ask("POST", "/api/v1/mcp", &[("Content-Type", "application/json")], b"{}");
    assert_eq!(refused.status, 401);
}
