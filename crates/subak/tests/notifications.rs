//! Notifications: each occasion makes one, to each receiver in its own form; tasks that reach out.

#[path = "support/served.rs"]
mod served;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use subak_testkit::{HttpDouble, HttpReply, HttpRequest, Sandbox, python};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const JOB: &str = "job: nightly
on_failure: [ { notify: hook }, chat, { notify: room } ]
on_success: [ hook ]
on_recovery: [ { notify: chat } ]
tasks:
  first: { wait: 1ms }
  work: { needs: first, run: \"cat ok || { echo no ok because of sesame-opens; exit 3; }\" }
  last: { needs: work, wait: 1ms }
";

/// A project whose receivers are at an address.
fn project(url: &str, job: &str) -> Sandbox {
    let config = format!(
        "project: told\nconnections:\n  warehouse: {{ type: duckdb, path: w.duckdb }}\nnotifications:\n  \
         hook: {{ type: webhook, url: \"{url}/hook?key=${{secret:key}}\", authorization: \"Bearer ${{secret:key}}\" }}\n  \
         chat: {{ type: slack, url: \"{url}/chat/${{secret:key}}\" }}\n  room: {{ type: discord, url: \"{url}/room/${{secret:key}}\" }}\n"
    );
    let sandbox = Sandbox::new(BINARY, &[("subak.yml", &config), ("jobs/job.yml", job)]);
    sandbox.write(".subak/secrets/key", "sesame-opens");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(sandbox.path().join(".subak/secrets/key"), private).expect("mode");
    sandbox
}

fn paths(requests: &[HttpRequest]) -> Vec<&str> {
    let mut paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

fn body_of(requests: &[HttpRequest], path: &str) -> Value {
    let request = requests.iter().find(|request| request.path.starts_with(path)).expect(path);
    serde_json::from_str(&request.body).expect("JSON")
}

/// What was made, newest first: occasion, receiver, state.
fn notices(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.command(&["notification", "list", "--limit", "100", "--output", "csv"]).output().expect("starts").stdout;
    let line = |line: &str| line.split(',').skip(2).take(3).collect::<Vec<_>>().join(" ");
    String::from_utf8_lossy(&listed).lines().skip(1).map(line).collect()
}

/// What is due later is due now.
fn hasten(sandbox: &Sandbox) {
    let state = rusqlite::Connection::open(sandbox.path().join(".subak/state.db")).expect("state");
    state.execute("update notices set due_at = 0 where due_at is not null", []).expect("hastened");
}

#[test]
fn each_end_of_a_run_is_told_in_the_form_of_its_receiver() {
    let double = HttpDouble::start(|_| HttpReply::status(204, ""));
    let sandbox = project(&double.url(), JOB);
    sandbox.run(&["run", "--job", "nightly"]).expect(1);
    let requests = double.requests();
    assert_eq!(paths(&requests), ["/chat/sesame-opens", "/hook", "/room/sesame-opens"]);
    let hook = body_of(&requests, "/hook");
    assert_eq!((&hook["occasion"], &hook["job"], &hook["status"]), (&"failure".into(), &"nightly".into(), &"failed".into()));
    assert_eq!(hook["failures"][0]["step"], "task:work");
    assert_eq!(hook["failures"][0]["code"], "SBK0328");
    let signed = requests.iter().find(|request| request.path == "/hook").map(|request| request.headers["authorization"].clone());
    assert_eq!(signed.as_deref(), Some("Bearer sesame-opens"));
    let text = body_of(&requests, "/chat")["text"].as_str().expect("text").to_owned();
    for part in
        ["[told] job `nightly` failed", "step `task:work` failed: the program ended with code 3", "go on: `subak run resume"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!requests.iter().any(|request| request.body.contains("sesame-opens")), "{requests:?}");
    assert_eq!(body_of(&requests, "/room")["allowed_mentions"], serde_json::json!({ "parse": [] }));
    // The same run goes on and succeeds: that is a recovery.
    sandbox.write("ok", "");
    sandbox.run(&["run", "resume", "last"]).expect(0);
    let requests = double.requests();
    assert_eq!(paths(&requests), ["/chat/sesame-opens", "/hook"]);
    assert_eq!(body_of(&requests, "/hook")["occasion"], "success");
    assert!(body_of(&requests, "/chat")["text"].as_str().expect("text").starts_with("[told] job `nightly` succeeded again"));
    // A success after a success is none, and what is no job is told to nobody.
    sandbox.run(&["run", "--job", "nightly"]).expect(0);
    assert_eq!(paths(&double.requests()), ["/hook"]);
    assert_eq!(notices(&sandbox).len(), 6);
    assert!(notices(&sandbox).iter().all(|notice| notice.ends_with(" sent")), "{:?}", notices(&sandbox));
}

/// FM-60: a receiver that is down, slow or wrong keeps nothing from going on, and is told later or given up.
#[test]
fn who_cannot_be_told_is_told_later_or_given_up() {
    let double = HttpDouble::start(|request| match request.path.as_str() {
        path if path.starts_with("/chat") => HttpReply::status(503, "later"),
        path if path.starts_with("/room") => HttpReply::status(404, "no such <room>"),
        _ => HttpReply::status(200, "ok"),
    });
    let sandbox = project(&double.url(), JOB);
    let ran = sandbox.run(&["run", "--job", "nightly"]).expect(1);
    assert!(ran.err.contains("`chat` could not be told about run") && ran.err.contains("it is tried again"), "{}", ran.err);
    assert!(ran.err.contains("answered 404 no such <room>; it was given up"), "{}", ran.err);
    assert_eq!(notices(&sandbox), ["failure chat open", "failure hook sent", "failure room failed"]);
    let listed = sandbox.run(&["notification", "list"]).expect(0);
    assert!(listed.out.contains("it answered 503 later") && !listed.out.contains("sesame"), "{}", listed.out);
    // Not before it is due; then by whatever runs next, as long as it is worth trying.
    double.requests();
    for attempt in 2..=8 {
        hasten(&sandbox);
        sandbox.run(&["run", "--job", "nightly"]).expect(1);
        let chats = double.requests().iter().filter(|request| request.path.starts_with("/chat")).count();
        assert!(chats > 1, "the old notice and the new one, attempt {attempt}: {chats}");
    }
    let found = notices(&sandbox);
    assert_eq!(found.last().map(String::as_str), Some("failure room failed"));
    assert!(found.contains(&"failure chat failed".to_owned()), "{found:?}");
}

/// What a server could not send before it was killed the next one sends. T-58: a deadline that was missed is told once and stays recorded.
#[test]
fn a_server_tells_what_is_late_and_what_it_missed() {
    let is_up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_up);
    let double = HttpDouble::start(move |request| {
        let is_taken = seen.load(Ordering::Relaxed) || request.body.contains("\"late\"");
        HttpReply::status(if is_taken { 200 } else { 503 }, "")
    });
    let job = "job: slow\ndeadline: 1s\non_late: [ hook ]\non_success: [ hook ]\ntasks:\n  nap: { wait: 3s }\n";
    let sandbox = project(&double.url(), job);
    let serve = || -> Child {
        sandbox.command(&["server", "start", "--wait", "20"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    };
    let until = |notice: &str| {
        for _ in 0..400 {
            if notices(&sandbox).iter().any(|found| found == notice) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited in vain for `{notice}`: {:?}", notices(&sandbox));
    };
    let mut server = serve();
    served::wait(sandbox.path());
    let mut run = sandbox.command(&["run", "--job", "slow", "--wait", "20"]).stderr(Stdio::null()).spawn().expect("starts");
    until("late hook sent");
    until("success hook open");
    server.kill().expect("killed");
    server.wait().expect("it ends");
    run.wait().expect("it ends");
    is_up.store(true, Ordering::Relaxed);
    hasten(&sandbox);
    let mut server = serve();
    until("success hook sent");
    let asked = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().expect("kill");
    assert!(asked.success());
    server.wait().expect("it ends");
    assert_eq!(notices(&sandbox), ["success hook sent", "late hook sent"]);
    let told: Vec<Value> = double.requests().iter().map(|request| serde_json::from_str(&request.body).expect("JSON")).collect();
    let occasions: Vec<&Value> = told.iter().map(|facts| &facts["occasion"]).collect();
    assert_eq!(occasions, ["late", "success", "success"]);
    assert_eq!(told[1]["id"], told[2]["id"], "the same notice");
}

/// T-83: that an asset is late is told once, also when the server is another one, and so is that it is fresh again.
#[test]
fn t_83_late_assets_are_told_once() {
    let double = HttpDouble::start(|_: &HttpRequest| HttpReply::json("{}"));
    let sandbox = project(&double.url(), "job: none\ntasks:\n  a: { wait: 1ms }\n");
    sandbox.write(
        "assets/gold/one.sql",
        "/* subak\nstored_as: table\nfreshness: { max_age: 4s, warn_age: 1s, on_late: [ hook ], on_recovery: [ hook ] }\n*/\nselect 1 as id\n",
    );
    let serve = || {
        let mut command = sandbox.command(&["server", "start"]);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        served::wait(sandbox.path());
        server
    };
    let mut server = serve();
    let until = |told: &[&str]| {
        for _ in 0..600 {
            if notices(&sandbox) == told {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{told:?} does not come: {:?}", notices(&sandbox));
    };
    let why = || sandbox.command(&["why", "gold.one"]).output().expect("starts").stdout;
    std::thread::sleep(Duration::from_secs(2));
    until(&[]);
    sandbox.run(&["run", "gold.one"]).expect(0);
    until(&["late hook sent"]);
    assert!(String::from_utf8_lossy(&why()).contains("is late for"), "{}", String::from_utf8_lossy(&why()));
    assert!(sandbox.run(&["list"]).out.contains("late"));
    server.kill().expect("killed");
    server.wait().expect("it ends");
    let mut server = serve();
    std::thread::sleep(Duration::from_secs(2));
    until(&["late hook sent"]);
    sandbox.run(&["run", "gold.one"]).expect(0);
    until(&["late hook sent", "recovery hook sent", "late hook sent"]);
    server.kill().expect("killed");
    server.wait().expect("it ends");
    let told: Vec<Value> = double.requests().iter().map(|request| serde_json::from_str(&request.body).expect("JSON")).collect();
    let said: Vec<_> = told.iter().map(|facts| (facts["asset"].clone(), facts["occasion"].clone())).collect();
    let expected = ["late", "recovery", "late"].map(|occasion| (Value::from("gold.one"), Value::from(occasion)));
    assert_eq!(said, expected);
    let text = told[0]["text"].as_str().expect("a text");
    assert!(text.contains("is late") && text.contains("no more than 4") && text.contains("subak run +gold.one"), "{text}");
}

#[test]
fn mail_reaches_a_mail_server() {
    let folder = tempfile_folder();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("address").port();
    let out = std::fs::File::create(folder.join("mails")).expect("a file");
    let mut mailer = Command::new(python())
        .args(["-u", "-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}"), "-c", "aiosmtpd.handlers.Debugging", "stdout"])
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .expect("a mail server");
    let sandbox = project("http://127.0.0.1:1", "job: none\ntasks:\n  a: { wait: 1ms }\n");
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let mail = |more: &str| {
        format!(
            "{config}  team: {{ type: email, host: 127.0.0.1, port: {port}, from: 'Subak <s@example.org>', to: 'a@example.org, B <b@example.org>'{more} }}\n"
        )
    };
    sandbox.write("subak.yml", &mail(", encryption: none"));
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    sandbox.run(&["notification", "test", "team"]).expect(0);
    // Never in the clear where it is not asked for.
    sandbox.write("subak.yml", &mail(", encryption: starttls"));
    let refused = sandbox.run(&["notification", "test", "team"]);
    assert_ne!(refused.code, Some(0), "{}", refused.err);
    mailer.kill().expect("killed");
    mailer.wait().expect("it ends");
    let mails = std::fs::read_to_string(folder.join("mails")).expect("mails");
    for part in ["Subject: [told] a test", "To: a@example.org, B <b@example.org>", "reach `team`"] {
        assert!(mails.contains(part), "{part}: {mails}");
    }
    assert_eq!(mails.matches("MESSAGE FOLLOWS").count(), 1, "{mails}");
    std::fs::remove_dir_all(folder).expect("gone");
}

fn tempfile_folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("subak-mail-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn tasks_send_requests_and_messages() {
    let double = HttpDouble::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/items/7") => HttpReply::json("{\"id\": 7, \"name\": \"a \\\"book\\\"\"}"),
        ("POST", "/orders") if request.headers["idempotency-key"].contains("task:order") => HttpReply::status(201, "made"),
        ("POST", "/busy") => HttpReply::status(503, "busy"),
        ("DELETE", "/gone") => HttpReply::status(404, ""),
        ("GET", "/large") => HttpReply::status(200, "x".repeat(70_000)),
        _ => HttpReply::status(200, ""),
    });
    let url = double.url();
    let job = format!(
        "job: calls
params: {{ id: {{ type: integer, default: 7 }} }}
tasks:
  get: {{ http: \"{url}/items/{{{{ params.id }}}}\" }}
  order:
    needs: get
    http:
      url: \"{url}/orders\"
      headers: {{ Authorization: \"Bearer ${{secret:key}}\" }}
      body: {{ item: \"{{{{ tasks.get.value.body.name }}}}\", count: 2, note: \"${{secret:key}}\" }}
  tell: {{ needs: order, notify: {{ to: chat, message: \"made <{{{{ tasks.get.value.body.name }}}}>: {{{{ tasks.order.value.status }}}}\" }} }}
  gone: {{ http: {{ url: \"{url}/gone\", method: DELETE, expect: [404, 410] }} }}
  large: {{ http: \"{url}/large\" }}
  busy: {{ http: {{ url: \"{url}/busy\", body: x }}, retry: {{ attempts_max: 2, delay_first: 10ms }} }}
"
    );
    let sandbox = project(&url, &job);
    let ran = sandbox.run(&["run", "--job", "calls"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("failed after 2 attempts: the request was answered with status 503"), "{}", ran.err);
    let requests = double.requests();
    let order = requests.iter().find(|request| request.path == "/orders").expect("an order");
    let body: Value = serde_json::from_str(&order.body).expect("JSON");
    assert_eq!(body, serde_json::json!({ "item": "a \"book\"", "count": 2, "note": "sesame-opens" }));
    assert_eq!(order.headers["content-type"], "application/json");
    let keys: Vec<&String> =
        requests.iter().filter(|request| request.path == "/busy").map(|request| &request.headers["idempotency-key"]).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    assert_eq!(body_of(&requests, "/chat")["text"], "made &lt;a \"book\"&gt;: 201");
    let shown = sandbox.run(&["run", "show", "last", "--output", "json"]).expect(0);
    assert!(!shown.out.contains("sesame-opens"), "{}", shown.out);
    let run: Value = serde_json::from_str(&shown.out).expect("JSON");
    let value = |name: &str| {
        let steps = run["steps"].as_array().expect("steps");
        steps.iter().find(|step| step["step"] == format!("task:{name}")).expect(name)["value"].clone()
    };
    assert_eq!(value("gone"), serde_json::json!({ "status": 404, "body": "" }));
    assert_eq!(value("large"), serde_json::json!({ "status": 200, "body": null }));
    assert_eq!(value("order"), serde_json::json!({ "status": 201, "body": "made" }));
}

/// S4-22: a message can be sent to see whether it arrives.
#[test]
fn receivers_can_be_tested() {
    let double = HttpDouble::start(|_| HttpReply::status(200, ""));
    let sandbox = project(&double.url(), "job: none\ntasks:\n  a: { wait: 1ms }\n");
    sandbox.run(&["notification", "test", "chat"]).expect(0);
    assert_eq!(paths(&double.requests()), ["/chat/sesame-opens"]);
    let unknown = sandbox.run(&["notification", "test", "chatt"]).expect(2);
    assert!(unknown.err.contains("did you mean `chat`"), "{}", unknown.err);
    std::fs::remove_file(sandbox.path().join(".subak/secrets/key")).expect("gone");
    let unset = sandbox.run(&["notification", "test", "chat"]);
    assert!(unset.err.contains("receiver `chat`, `url`") && unset.err.contains("SUBAK_SECRET_KEY"), "{}", unset.err);
    assert_ne!(unset.code, Some(0));
}
