//! Who may ask a server what, and what comes of it: every route against every role, sessions, tokens, pages of others, plans, the stream.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use expect_test::expect_file;
use serde_json::{Value, json};
use subak_testkit::{Heard, Listening, Sandbox, USER_PASSWORD};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const FILES: &[(&str, &str)] = &[
    ("subak.yml", "project: asked\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n"),
    ("assets/silver/one.sql", "/* subak\nstored_as: table\nowner: mai\n*/\nselect 1 as id\n"),
    ("assets/gold/two.sql", "/* subak\nstored_as: table\nchecks: [ { not_null: id } ]\n*/\nselect id from silver.one\n"),
    (
        "jobs/jobs.yml",
        "job: greet\nparams: { name: { type: text } }\ntasks:\n  say: { run: [ sh, -c, 'echo \"hello $0\"; echo \"$0\" >> log', \"{{ params.name }}\" ] }\n  \
         fail: { needs: say, run: [ sh, -c, 'echo \"ValueError: no\"; exit 3' ] }\n---\njob: hourly\nselect: gold.two\nschedule: \"0 0 1 1 *\"\n---\n\
         job: asking\ntasks:\n  ask: { approve: { message: \"Publish?\" } }\n---\n\
         job: ticking\ntasks:\n  tick: { for_each: [ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 ], tasks: { one: { run: \"sleep 0.5\" } } }\n",
    ),
];

fn listening() -> Listening {
    Listening::new(BINARY, FILES, &["--host", "data.example.org"], &[])
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// What a stranger hears, who may only ask so much in a second.
fn patiently(server: &Listening, method: &str, path: &str, headers: &[(&str, &str)]) -> Heard {
    loop {
        let heard = server.ask(method, path, headers, b"{}");
        if heard.status != 429 {
            return heard;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// The routes of the description: method, path, who may.
fn routes() -> Vec<(String, String, String)> {
    let text = include_str!("../../../docs/reference/openapi.json");
    let document: Value = serde_json::from_str(text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().expect("methods").clone();
        let path = path.clone();
        let one = move |(method, operation): (String, Value)| {
            (method.to_uppercase(), path.clone(), operation["x-access"].as_str().expect("access").to_owned())
        };
        methods.into_iter().map(one).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

/// A path in which each name in braces is something that is not there.
fn filled(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "x".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The description that is checked in is the one that the server serves.
#[test]
fn the_description_is_that_of_the_routes() {
    let sandbox = Sandbox::new(BINARY, FILES);
    let shown = sandbox.command(&["docs", "--json-schema", "http-api"]).output().expect("it ends").stdout;
    expect_file!["../../../docs/reference/openapi.json"].assert_eq(&String::from_utf8(shown).expect("text"));
    let open: Vec<String> = routes()
        .into_iter()
        .filter(|(.., access)| access == "everybody")
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(open, ["POST /api/v1/session", "POST /api/v1/setup", "GET /livez", "GET /readyz"], "whoever may use what");
    let page = include_str!("../../../docs/reference/http-routes.md");
    for (method, path, _) in routes() {
        assert!(page.contains(&format!("`{method} {path}`")), "the reference knows `{method} {path}`");
    }
}

/// N-01, N-02, N-03, N-04, N-05, N-06, N-35, N-36, N-37: nothing is answered to whoever does not say who they are, however it is asked for.
#[test]
fn n_01_to_n_06_nothing_is_answered_to_strangers() {
    let server = listening();
    let token = server.token("admin");
    for (method, path, access) in routes() {
        let path = filled(&path);
        let heard = patiently(&server, &method, &path, &[JSON]);
        let is_open = access == "everybody";
        assert_eq!(heard.status == 401, !is_open, "{method} {path}: {}", heard.text);
        for header in [
            "x-content-type-options: nosniff",
            "frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(heard.text.contains(header), "{header}: {}", heard.text);
        }
        assert!(!heard.text.contains("unsafe-") && !heard.text.contains("access-control-allow"), "{}", heard.text);
        // A token that is wrong, cut short, or stands where nobody looks for it.
        for (headers, path) in [
            (vec![("Authorization", "Bearer sbk_pat_0000")], path.clone()),
            (vec![("Authorization", &token[..20])], path.clone()),
            (vec![], format!("{path}?token={token}&access_token={token}")),
        ] {
            let mut headers = headers;
            headers.push(JSON);
            let heard = patiently(&server, &method, &path, &headers);
            assert_eq!(heard.status == 401, !is_open, "{method} {path}: {}", heard.text);
        }
        assert_eq!(server.ask(&method, &path, &[("Host", "evil.example.com"), JSON], b"{}").status, 421);
        assert_eq!(server.ask("TRACE", &path, &[], b"").status, 405, "{path}");
        let preflight = [("Origin", "http://evil.example.com"), ("Access-Control-Request-Method", "POST")];
        assert_eq!(server.ask("OPTIONS", &path, &preflight, b"").status, 405, "{path}");
    }
    for path in [
        "/api/v1/assets/x/health",
        "/api/v1/assets/x/ready",
        "/api/v1/runs/configs",
        "/api/v1/assets/login",
        "/api/v1/runs/x/metrics",
        "//api/v1/runs",
        "/./api/v1/runs",
        "/api/v1/runs;a=b",
        "/api%2fv1/runs",
        "/%2e%2e/api/v1/runs",
        "/api/v1/runs/",
        "/api/v1/runs.json",
        "/API/V1/RUNS",
        "/api/v1/runs%00",
        "/livez/../api/v1/runs",
        "/debug",
    ] {
        let heard = patiently(&server, "GET", path, &[]);
        // The page of the app asks who they are; it holds nothing of the project.
        assert!(matches!(heard.status, 400 | 401 | 404) && !heard.text.contains("silver.one"), "{path}: {}", heard.text);
    }
    // What changes something does not come by GET.
    assert_eq!(server.call(&token, "GET", "/api/v1/plans", "{}").status, 405);
    assert_eq!(server.ask("GET", "/api/v1/plans", &[("X-HTTP-Method-Override", "POST")], b"").status, 405);
    assert!(server.served.lines("log").is_empty());
}

/// N-20, N-28: each role against each route.
#[test]
fn n_20_roles_open_what_they_should_and_nothing_else() {
    let server = listening();
    let carries = [
        ("viewer", "view"),
        ("operator", "view logs data operate"),
        ("editor", "view logs data operate edit"),
        ("admin", "view logs data operate edit administer"),
    ];
    for (role, permissions) in carries {
        let token = server.token(role);
        for (method, path, access) in routes() {
            // Whoever ends their own token asks nothing more, and a stream does not end.
            if path == "/api/v1/stream" || access.starts_with("whoever") || access == "everybody" {
                continue;
            }
            let heard = server.call(&token, &method, &filled(&path), "{}");
            let may = permissions.split(' ').any(|one| one == access);
            // A token makes no token, unless its maker manages them.
            let is_own = (path.as_str(), method.as_str()) == ("/api/v1/tokens", "POST");
            assert!(may == (heard.status != 403) || is_own, "{role}: {method} {path}: {}", heard.text);
            assert_ne!(heard.status, 401, "{role}: {method} {path}");
            assert_ne!(heard.status, 500, "{role}: {method} {path}: {}", heard.text);
            if !may {
                assert_eq!(heard.code(), "SBK0607", "{}", heard.text);
            }
        }
    }
}

/// The cookie of a session, as a browser sends it.
fn cookie(heard: &Heard) -> String {
    let set = heard.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {}", heard.text));
    for part in ["__Host-subak=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax"] {
        assert!(set.contains(part), "{set}");
    }
    set.split(';').next().unwrap_or_default().to_owned()
}

fn sign_in(server: &Listening, name: &str, password: &str) -> Heard {
    let body = json!({ "name": name, "password": password }).to_string();
    server.ask("POST", "/api/v1/session", &[JSON], body.as_bytes())
}

/// N-15, N-16: sessions begin anew with each sign-in, and end with what they stand for.
#[test]
fn n_15_n_16_sessions_end_when_they_should() {
    let server = listening();
    let admin = server.token("admin");
    let operator = server.token("operator");
    let me = |cookie: &str| server.ask("GET", "/api/v1/session", &[("Cookie", cookie)], b"").status;
    let begin = || cookie(&sign_in(&server, "operator-of-tests", USER_PASSWORD));
    // One that somebody else has put there is worth nothing, and not taken over.
    let planted = "__Host-subak=0123456789abcdef";
    let body = json!({ "name": "operator-of-tests", "password": USER_PASSWORD }).to_string();
    let heard = server.ask("POST", "/api/v1/session", &[JSON, ("Cookie", planted)], body.as_bytes());
    assert_ne!(cookie(&heard), planted);
    assert_eq!((me(planted), me(&cookie(&heard))), (401, 200));
    // The one before is worth nothing once somebody signs in anew.
    let before = cookie(&heard);
    let anew =
        server.ask("POST", "/api/v1/session", &[JSON, ("Cookie", &before), ("Sec-Fetch-Site", "same-origin")], body.as_bytes());
    assert_eq!((me(&before), me(&cookie(&anew))), (401, 200));
    let own = [("Sec-Fetch-Site", "same-origin"), JSON];
    let signed_out = begin();
    assert_eq!(server.ask("DELETE", "/api/v1/session", &[("Cookie", &signed_out), own[0], own[1]], b"{}").status, 200);
    assert_eq!(me(&signed_out), 401);
    for (what, change) in [
        ("another role", json!({ "role": "viewer" })),
        ("another password", json!({ "password": USER_PASSWORD })),
        ("shut out", json!({ "is_off": true })),
    ] {
        let session = begin();
        assert_eq!(me(&session), 200, "{what}");
        let heard = server.call(&admin, "PATCH", "/api/v1/users/operator-of-tests", &change.to_string());
        assert_eq!((heard.status, me(&session)), (200, 401), "{what}: {}", heard.text);
    }
    // Whoever is shut out has no token either, and cannot sign in.
    assert_eq!(server.call(&operator, "GET", "/api/v1/runs", "").status, 401);
    assert_eq!(sign_in(&server, "operator-of-tests", USER_PASSWORD).status, 401);
    let heard = server.call(&admin, "PATCH", "/api/v1/users/admin-of-tests", "{\"role\": \"viewer\"}");
    assert!(heard.status == 422 && heard.text.contains("only admin"), "{}", heard.text);
    let audit = server.call(&admin, "GET", "/api/v1/audit?limit=3", "").json();
    assert_eq!(audit["items"][0]["action"], "user.change");
    assert_eq!(audit["items"][0]["detail"], "shut out");
    server.served.sandbox.run(&["audit", "verify"]).expect(0);
}

/// N-09: wrong passwords make whoever sends them wait, also for the right one, and tell nothing of whether there is such a name.
#[test]
fn n_09_guessing_is_slowed_down() {
    let server = listening();
    server.token("operator");
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        known.push(sign_in(&server, "operator-of-tests", "a wrong password"));
        unknown.push(sign_in(&server, "nobody", "a wrong password"));
    }
    let statuses = |heard: &[Heard]| heard.iter().map(|one| one.status).collect::<Vec<_>>();
    assert_eq!(statuses(&known), [401, 401, 401, 401, 401, 429]);
    assert_eq!(statuses(&unknown), statuses(&known));
    assert_eq!(known[0].json()["error"]["message"], unknown[0].json()["error"]["message"]);
    let heard = sign_in(&server, "operator-of-tests", USER_PASSWORD);
    assert!(heard.status == 429 && heard.header("retry-after").is_some(), "{}", heard.text);
    // Many at once are no more than one after the other.
    let guesses = std::thread::scope(|scope| {
        let guess = || sign_in(&server, "somebody", "a wrong password").status;
        let threads: Vec<_> = (0..30).map(|_| scope.spawn(guess)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert_eq!(guesses.iter().filter(|status| **status == 401).count(), 5, "{guesses:?}");
    assert_eq!(sign_in(&server, &"x".repeat(10_000), "a wrong password").status, 401);
}

/// N-17, N-30: tokens end, and give no more than their maker has.
#[test]
fn n_17_n_30_tokens_are_worth_what_they_should() {
    let server = listening();
    let (admin, viewer) = (server.token("admin"), server.token("viewer"));
    let new = |role: &str| json!({ "name": "more", "role": role, "days": 1 }).to_string();
    for token in [&viewer, &admin] {
        assert_eq!(server.call(token, "POST", "/api/v1/tokens", &new("viewer")).status, 403, "a token makes none");
    }
    let session = cookie(&sign_in(&server, "viewer-of-tests", USER_PASSWORD));
    let ask = |body: &str| {
        let headers = [("Cookie", session.as_str()), ("Sec-Fetch-Site", "same-origin"), JSON];
        server.ask("POST", "/api/v1/tokens", &headers, body.as_bytes())
    };
    assert_eq!(ask(&new("operator")).status, 403, "not above one's own role");
    assert_eq!(ask(&new("viewer").replace(":1", ":9999")).status, 422);
    let made = ask(&new("viewer")).json();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("sbk_pat_") && secret.len() == 72, "{made}");
    assert_eq!(server.call(&secret, "GET", "/api/v1/runs", "").status, 200);
    for wrong in [&secret[..71], &secret.replace("sbk_pat_", "sbk_xyz_"), &secret.to_uppercase()] {
        assert_eq!(server.call(wrong, "GET", "/api/v1/runs", "").status, 401);
    }
    // The list tells no secret; somebody else's token is not there for whoever may not manage them.
    let listed = server.call(&viewer, "GET", "/api/v1/tokens", "");
    assert!(!listed.text.contains(&secret) && !listed.text.contains("admin-of-tests"), "{}", listed.text);
    let id = made["token"]["id"].as_str().expect("an id");
    let other = server.call(&admin, "GET", "/api/v1/tokens", "").json();
    let own =
        other["items"].as_array().expect("items").iter().find(|token| token["user"] == "admin-of-tests").expect("one")["id"]
            .clone();
    let own = own.as_str().expect("an id");
    assert_eq!(server.call(&viewer, "DELETE", &format!("/api/v1/tokens/{own}"), "").status, 404);
    assert_eq!(server.call(&admin, "DELETE", &format!("/api/v1/tokens/{id}"), "").status, 200);
    assert_eq!(server.call(&secret, "GET", "/api/v1/runs", "").status, 401);
}

/// What is asked, with which headers, and the status of the answer.
type Asked<'a> = (&'a str, Vec<(&'a str, &'a str)>, u16);

/// N-34: what changes something comes from a page of this server, or from no page; as JSON.
#[test]
fn n_34_pages_of_others_change_nothing() {
    let server = listening();
    let operator = server.token("operator");
    let session = cookie(&sign_in(&server, "operator-of-tests", USER_PASSWORD));
    let bearer = format!("Bearer {operator}");
    let body = b"{\"select\": [\"silver.one\"]}";
    let (cookie, token) = (("Cookie", session.as_str()), ("Authorization", bearer.as_str()));
    let origin = |text: &'static str| ("Origin", text);
    let cases: &[Asked<'_>] = &[
        ("its own page", vec![cookie, ("Sec-Fetch-Site", "same-origin"), JSON], 200),
        ("its own page, in an older browser", vec![cookie, origin("http://localhost"), JSON], 200),
        (
            "its own page behind a proxy",
            vec![cookie, origin("https://data.example.org"), ("Host", "data.example.org"), JSON],
            200,
        ),
        ("a program", vec![token, JSON], 200),
        ("another page", vec![cookie, origin("http://evil.example.com"), JSON], 403),
        ("a page of nowhere", vec![cookie, origin("null"), JSON], 403),
        ("another site", vec![cookie, ("Sec-Fetch-Site", "cross-site"), JSON], 403),
        ("a neighbour", vec![cookie, ("Sec-Fetch-Site", "same-site"), JSON], 403),
        ("who does not say", vec![cookie, JSON], 403),
        ("another page with a token", vec![token, origin("http://evil.example.com"), JSON], 403),
        ("a form", vec![token, ("Content-Type", "application/x-www-form-urlencoded")], 415),
        ("a text", vec![token, ("Content-Type", "text/plain")], 415),
        ("nothing said", vec![token], 415),
    ];
    for (what, headers, expected) in cases {
        let heard = server.ask("POST", "/api/v1/plans", headers, body);
        assert_eq!(heard.status, *expected, "{what}: {}", heard.text);
    }
    // Signing somebody in from elsewhere is a change too.
    let said = json!({ "name": "operator-of-tests", "password": USER_PASSWORD }).to_string();
    assert_eq!(server.ask("POST", "/api/v1/session", &[JSON, origin("http://evil.example.com")], said.as_bytes()).status, 403);
    let long = format!("{{\"select\": [\"{}\"]}}", "x".repeat(300 * 1024));
    assert_eq!(server.call(&operator, "POST", "/api/v1/plans", &long).status, 413);
    for (body, expected) in [
        ("{", 400),
        ("[]", 400),
        ("{\"selection\": []}", 400),
        ("{\"select\": [\"no.such\"]}", 422),
        ("{\"job\": \"nothing\"}", 404),
    ] {
        let heard = server.call(&operator, "POST", "/api/v1/plans", body);
        assert_eq!(heard.status, expected, "{body}: {}", heard.text);
    }
    for query in ["?limit=many", "?nothing=1", "?status=great", "?after=1"] {
        assert_eq!(server.call(&operator, "GET", &format!("/api/v1/runs{query}"), "").status, 422, "{query}");
    }
}

/// N-19: the first admin is made once, by whoever has what the server said.
#[test]
fn n_19_the_first_admin_is_made_once() {
    let server = listening();
    let file = server.served.sandbox.path().join(".subak/setup-token");
    let token = std::fs::read_to_string(&file).expect("the token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let body = |token: &str, password: &str| json!({ "token": token, "name": "mai", "password": password }).to_string();
    let ask = |body: &str| server.ask("POST", "/api/v1/setup", &[JSON], body.as_bytes());
    assert_eq!(ask(&body("0".repeat(64).as_str(), USER_PASSWORD)).status, 404);
    assert_eq!(ask(&body("", USER_PASSWORD)).status, 404);
    assert_eq!(ask(&body(&token, "short")).status, 422, "and may try again");
    let heard = ask(&body(&token, USER_PASSWORD));
    assert_eq!((heard.status, heard.json()["role"].as_str()), (200, Some("admin")), "{}", heard.text);
    cookie(&heard);
    assert!(!file.exists());
    assert_eq!(ask(&body(&token, USER_PASSWORD)).status, 404, "once");
    let mut server = server;
    server.served.kill();
    server.restart();
    assert!(!file.exists(), "there is somebody");
}

/// A plan is looked at, accepted once, and is refused when it would do something else by now.
#[test]
fn a_run_is_a_plan_that_was_accepted() {
    let server = listening();
    let (operator, viewer) = (server.token("operator"), server.token("viewer"));
    let call = |method: &str, path: &str, body: &str| server.call(&operator, method, path, body);
    let plan = call("POST", "/api/v1/plans", "{\"select\": [\"+gold.two\"]}").json();
    assert_eq!((plan["action_count"].as_u64(), plan["actions"][0]["why"].as_str()), (Some(2), Some("never materialized")));
    let accept = format!("/api/v1/plans/{}/accept", plan["plan"].as_str().expect("an id"));
    assert_eq!(server.call(&viewer, "POST", &accept, "{}").status, 403);
    let first = call("POST", &accept, "{}").json();
    assert_eq!((first["run"].as_str(), first["is_new"].as_bool()), (plan["plan"].as_str(), Some(true)));
    assert_eq!(call("POST", &accept, "{}").json()["is_new"].as_bool(), Some(false));
    let run = format!("/api/v1/runs/{}", first["run"].as_str().expect("an id"));
    server.served.wait("the run", |_| call("GET", &run, "").json()["run"]["status"] == "succeeded");
    let shown = call("GET", &run, "").json();
    assert_eq!(shown["run"]["trigger"], "operator-of-tests (token tests)");
    assert_eq!(shown["steps"][1]["checks"][0]["passed"].as_bool(), Some(true), "{shown}");
    let asset = call("GET", "/api/v1/assets/gold.two", "").json();
    assert_eq!(asset["asset"]["status"], "fresh", "{asset}");
    assert_eq!(asset["columns"][0]["from"][0], "silver.one.id");
    // What throws data away is typed.
    let plan = call("POST", "/api/v1/plans", "{\"select\": [\"silver.one\"], \"full_refresh\": true}").json();
    let accept = format!("/api/v1/plans/{}/accept", plan["plan"].as_str().expect("an id"));
    assert_eq!(call("POST", &accept, "{}").status, 422);
    // Another file, another plan.
    let old = call("POST", "/api/v1/plans", "{}").json();
    assert_eq!(old["action_count"].as_u64(), Some(0));
    let said = json!({ "confirmation": plan["confirmation"] }).to_string();
    server.served.sandbox.write("assets/silver/one.sql", "/* subak\nstored_as: table\n*/\nselect 2 as id\n");
    let stale = || call("GET", "/api/v1/assets/silver.one", "").json()["asset"]["status"] == "stale";
    server.served.wait("the new file", |_| stale());
    let plan = call("POST", "/api/v1/plans", "{\"select\": [\"gold.two\"]}").json();
    let gone = format!("/api/v1/plans/{}/accept", plan["plan"].as_str().expect("an id"));
    assert_eq!(call("POST", &accept, &said).status, 200);
    server.served.wait("the other run", |_| !stale());
    let heard = call("POST", &gone, "{}");
    assert!(matches!(heard.status, 409), "{}", heard.text);
    assert_eq!(call("POST", "/api/v1/plans/nothing/accept", "{}").status, 404);
}

/// A job with parameters, what its programs wrote, why it failed, and going on with the rest.
#[test]
fn a_run_says_why_it_failed_and_goes_on() {
    let server = listening();
    let (operator, viewer) = (server.token("operator"), server.token("viewer"));
    let call = |method: &str, path: &str, body: &str| server.call(&operator, method, path, body);
    assert_eq!(call("POST", "/api/v1/plans", "{\"job\": \"greet\"}").status, 422, "a parameter is missing");
    let plan = call("POST", "/api/v1/plans", "{\"job\": \"greet\", \"params\": {\"name\": \"Ketut\"}}").json();
    let id = plan["plan"].as_str().expect("an id").to_owned();
    assert_eq!(call("POST", &format!("/api/v1/plans/{id}/accept"), "{}").status, 200);
    let run = format!("/api/v1/runs/{id}");
    server.served.wait("the failure", |_| call("GET", &run, "").json()["run"]["status"] == "failed");
    let shown = call("GET", &run, "").json();
    assert_eq!(shown["failed_step"], "task:fail");
    let step = &shown["steps"][1];
    assert_eq!(step["failure"]["code"], "SBK0328", "{step}");
    let log = call("GET", &format!("{run}/log?step=task:say"), "");
    assert!(log.text.ends_with("hello Ketut\n") && log.header("x-log-bytes") == Some("12"), "{}", log.text);
    let part = call("GET", &format!("{run}/log?step=task:say&from=6"), "");
    assert!(part.text.ends_with("\r\n\r\nKetut\n"), "{}", part.text);
    for (path, expected) in
        [("log?step=task:none", 404), ("log?step=task:say&attempt=7", 404), ("log", 422), ("log?step=../../../etc/passwd", 404)]
    {
        assert_eq!(call("GET", &format!("{run}/{path}"), "").status, expected, "{path}");
    }
    assert_eq!(server.call(&viewer, "GET", &format!("{run}/log?step=task:say"), "").status, 403);
    // What it wrote stands nowhere else either.
    for path in ["", "/events"] {
        let seen = server.call(&viewer, "GET", &format!("{run}{path}"), "");
        assert!(seen.status == 200 && !seen.text.contains("ValueError") && !seen.text.contains("hello"), "{}", seen.text);
    }
    assert!(server.call(&viewer, "GET", &run, "").json()["steps"][0]["log_bytes"].is_null());
    assert!(call("GET", &run, "").text.contains("ValueError"));
    // The counter and the list that proves it.
    let home = call("GET", "/api/v1/home", "").json();
    let listed = call("GET", "/api/v1/runs?status=failed&ended_within=24", "").json();
    assert_eq!((home["failed_run_count"].as_u64(), listed["total"].as_u64()), (Some(1), Some(1)));
    assert_eq!(home["attention"][0]["kind"], "run");
    assert_eq!(call("POST", &format!("{run}/cancel"), "{}").status, 409);
    assert_eq!(server.call(&viewer, "POST", &format!("{run}/resume"), "{}").status, 403);
    assert_eq!(call("POST", &format!("{run}/resume"), "{}").status, 200);
    server.served.wait("the second failure", |_| {
        let shown = call("GET", &run, "").json();
        shown["run"]["status"] == "failed" && shown["steps"][1]["attempt_count"] == 2
    });
    assert_eq!(server.served.lines("log"), ["Ketut"], "what is done is not done again");
    let audit = server.call(&server.token("admin"), "GET", "/api/v1/audit", "").json();
    let actions: Vec<&str> = audit["items"].as_array().expect("items").iter().filter_map(|one| one["action"].as_str()).collect();
    assert!(actions.contains(&"run.start") && actions.contains(&"run.resume"), "{actions:?}");
}

/// N-28: rows are shown to whoever may see them, and stand in nothing that others see.
#[test]
fn n_28_rows_are_shown_to_whoever_may_see_them() {
    let files: Vec<(&str, &str)> = FILES
        .iter()
        .copied()
        .chain([
            ("assets/seeds/people.csv", "id,name\n1,canary-in-a-seed\n"),
            ("assets/seeds/people.yml", "seed: { file: people.csv }\n"),
            (
                "assets/gold/checked.sql",
                "/* subak\nstored_as: table\nchecks: [ { accepted_values: { column: name, values: [x] } } ]\n*/\nselect 'canary-' || 'in-a-row' as name\n",
            ),
            ("assets/gold/cast.sql", "/* subak\nstored_as: table\n*/\nselect cast('canary-' || 'in-a-cause' as integer) as i\n"),
        ])
        .filter(|(path, _)| *path != "assets/seeds/people.yml")
        .collect();
    let server = Listening::new(BINARY, &files, &[], &[]);
    let (operator, viewer) = (server.token("operator"), server.token("viewer"));
    for select in ["seeds.people", "gold.checked", "gold.cast"] {
        server.served.sandbox.run(&["run", select]);
    }
    let runs = server.call(&operator, "GET", "/api/v1/runs", "").json();
    let runs = runs["items"].as_array().expect("items").iter().map(|run| run["run"].as_str().expect("an id").to_owned());
    let of_runs = runs.flat_map(|run| ["", "/events"].map(|part| format!("/api/v1/runs/{run}{part}")));
    let assets = ["seeds.people", "gold.checked", "gold.cast"].map(|key| format!("/api/v1/assets/{key}"));
    let paths: Vec<String> =
        of_runs.chain(assets).chain(["/api/v1/home", "/api/v1/assets", "/api/v1/runs", "/metrics"].map(str::to_owned)).collect();
    let all = |token: &str| paths.iter().map(|path| server.call(token, "GET", path, "").text).collect::<String>();
    let (seen, hidden) = (all(&operator), all(&viewer));
    for canary in ["canary-in-a-seed", "canary-in-a-row", "canary-in-a-cause"] {
        assert!(seen.contains(canary), "an operator sees {canary}: {seen}");
        assert!(!hidden.contains(canary), "a viewer does not see {canary}: {hidden}");
    }
}

/// N-66, N-67: queries of people only read, and the engine refuses everything else, while runs have the file and while none does.
#[test]
fn n_66_n_67_queries_only_read() {
    let server = listening();
    server.served.sandbox.write("rows.csv", "id\nsesame\n");
    let root = server.served.sandbox.path().display().to_string();
    let token = server.token("operator");
    let ask = |sql: &str| server.call(&token, "POST", "/api/v1/query", &json!({ "sql": sql }).to_string());
    // Before there is a database somebody is told that.
    assert!(ask("select 1").text.contains("`subak run` makes it"));
    server.served.sandbox.run(&["run", "+gold.two"]).expect(0);
    let refused = [
        format!("select * from read_csv('{root}/rows.csv')"),
        format!("from '{root}/rows.csv'"),
        "select * from read_text('/etc/passwd')".to_owned(),
        "select * from glob('/etc/*')".to_owned(),
        "attach 'other.duckdb' as other".to_owned(),
        "copy gold.two to '/tmp/subak-stolen.csv'".to_owned(),
        "copy (select 1) to program 'true'".to_owned(),
        "install httpfs".to_owned(),
        "load httpfs".to_owned(),
        "pragma memory_limit = '1GB'".to_owned(),
        "pragma enable_profiling".to_owned(),
        "checkpoint".to_owned(),
        "set enable_external_access = true".to_owned(),
        "create table gold.three as select 1".to_owned(),
        "insert into gold.two values (2)".to_owned(),
        "drop table gold.two".to_owned(),
        "explain analyze delete from gold.two".to_owned(),
        "select 1; select 2".to_owned(),
        "commit; drop table gold.two".to_owned(),
        "begin transaction".to_owned(),
        "call pragma_version()".to_owned(),
        "selec 1".to_owned(),
        String::new(),
        "-- nothing".to_owned(),
    ];
    let answers = |when: &str| {
        for sql in &refused {
            let heard = ask(sql);
            assert_eq!(heard.status, 422, "{when}, {sql}: {}", heard.text);
            assert!(!heard.text.contains("sesame") && !heard.text.contains("root:"), "{when}, {sql}: {}", heard.text);
        }
        for (sql, expected) in [
            ("select id, id + 0.5 as half, 'x' as text, null as nothing from gold.two", json!([[1, 1.5, "x", null]])),
            ("from gold.two", json!([[1]])),
            ("with a as (values (1), (2)) select count(*) from a", json!([[2]])),
            ("select * from range(3) where range > 5", json!([])),
        ] {
            let heard = ask(sql);
            assert_eq!((heard.status, &heard.json()["rows"]), (200, &expected), "{when}, {sql}: {}", heard.text);
        }
        assert_eq!(ask("describe gold.two").json()["rows"][0][0], "id", "{when}");
        let cut = server.call(&token, "POST", "/api/v1/query", &json!({ "sql": "from range(1000)", "limit": 3 }).to_string());
        assert_eq!((cut.json()["rows"].as_array().map(Vec::len), &cut.json()["is_cut"]), (Some(3), &json!(true)));
    };
    answers("while nothing runs");
    // A run that has the file open for writing.
    server.served.sandbox.write("assets/gold/slow.sql", "/* subak\nstored_as: table\n*/\nselect count(*) as n from range(40000000) a where a.range % 7 = (select count(*) from range(20000000))\n");
    let mut run = server.served.sandbox.command(&["run", "--job", "ticking"]).stderr(Stdio::null()).spawn().expect("starts");
    let mut slow = server.served.sandbox.command(&["run", "gold.slow"]).stderr(Stdio::null()).spawn().expect("starts");
    answers("while something runs");
    slow.wait().expect("it ends");
    run.wait().expect("it ends");
    assert!(!std::path::Path::new("/tmp/subak-stolen.csv").exists());
    let unknown = server.call(&token, "POST", "/api/v1/query", &json!({ "sql": "select 1", "on": "nobody" }).to_string());
    assert_eq!(unknown.status, 404);
    let viewer = server.token("viewer");
    assert_eq!(server.call(&viewer, "POST", "/api/v1/query", &json!({ "sql": "select 1" }).to_string()).status, 403);
    assert_eq!(server.served.sandbox.run(&["query", "select count(*) as n from gold.two", "--output", "csv"]).out, "n\n1");
}

/// A question is answered once, and a schedule switched off and on.
#[test]
fn questions_and_switches() {
    let server = listening();
    let operator = server.token("operator");
    let call = |method: &str, path: &str, body: &str| server.call(&operator, method, path, body);
    let plan = call("POST", "/api/v1/plans", "{\"job\": \"asking\"}").json();
    let id = plan["plan"].as_str().expect("an id").to_owned();
    call("POST", &format!("/api/v1/plans/{id}/accept"), "{}");
    server.served.wait("the question", |_| call("GET", "/api/v1/questions", "").json()["items"][0]["task"] == "ask");
    let answer = format!("/api/v1/runs/{id}/answer");
    assert_eq!(call("POST", &answer, "{\"task\": \"other\", \"approved\": true}").status, 409);
    assert_eq!(call("POST", &answer, "{\"task\": \"ask\", \"approved\": true}").status, 200);
    assert_eq!(call("POST", &answer, "{\"task\": \"ask\", \"approved\": false}").status, 409);
    server.served.wait("the end", |_| call("GET", &format!("/api/v1/runs/{id}"), "").json()["run"]["status"] == "succeeded");
    let row = || call("GET", "/api/v1/automation", "").json()["items"][0].clone();
    assert_eq!((row()["name"].as_str(), row()["is_on"].as_bool()), (Some("hourly"), Some(true)));
    assert_eq!(call("POST", "/api/v1/automation/hourly/off", "{}").status, 200);
    assert_eq!((row()["is_on"].as_bool(), row()["next"].is_null()), (Some(false), true));
    assert_eq!(call("POST", "/api/v1/automation/nothing/off", "{}").status, 404);
    assert_eq!(call("GET", "/api/v1/automation/hourly/ticks", "").json()["items"].as_array().map(Vec::len), Some(0));
}

/// N-07: the stream tells of a run as it goes on, goes on where somebody broke off, and ends with what lets them listen.
#[test]
fn n_07_changes_are_told_as_they_come() {
    let server = listening();
    let (admin, operator) = (server.token("admin"), server.token("operator"));
    assert_eq!(server.ask("GET", "/api/v1/stream", &[], b"").status, 401);
    let bearer = format!("Bearer {operator}");
    let open = |last: Option<&str>| {
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(last.map(|last| ("Last-Event-ID", last)));
        BufReader::new(server.send("GET", "/api/v1/stream", &headers, b""))
    };
    let next = |stream: &mut BufReader<std::net::TcpStream>, what: &str| {
        let (mut id, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(stream.read_line(&mut line).expect("told in time") > 0, "it ends before `{what}`");
            if let Some(found) = line.strip_prefix("id: ") {
                id = found.trim().to_owned();
            }
            if line.starts_with("data: ") && line.contains(what) {
                return id;
            }
        }
    };
    let mut stream = open(None);
    let before = next(&mut stream, "position");
    server.served.sandbox.run(&["run", "silver.one"]).expect(0);
    next(&mut stream, "\"status\":\"succeeded\"");
    // What came in between is told to whoever comes back.
    next(&mut open(Some(&before)), "silver.one");
    // Also while there is always something to tell.
    let plan = server.call(&admin, "POST", "/api/v1/plans", "{\"job\": \"ticking\"}").json();
    server.call(&admin, "POST", &format!("/api/v1/plans/{}/accept", plan["plan"].as_str().expect("an id")), "{}");
    next(&mut stream, "\"status\":\"running\"");
    server.call(&admin, "PATCH", "/api/v1/users/operator-of-tests", "{\"is_off\": true}");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stream, &mut rest).expect("it ends");
    let shown = server.call(&admin, "GET", "/api/v1/runs?status=running", "").json();
    assert_eq!(shown["total"].as_u64(), Some(1), "it ended while the run went on");
}

/// UI-05: an address of nothing is answered with 404, one of something with 200, and strangers learn nothing of either.
#[test]
fn ui_05_pages_are_there_or_not() {
    let server = listening();
    server.token("viewer");
    let session = cookie(&sign_in(&server, "viewer-of-tests", USER_PASSWORD));
    let pages = [
        ("/", 200),
        ("/assets", 200),
        ("/assets/gold.two", 200),
        ("/assets/gold.none", 404),
        ("/runs/01J8", 404),
        ("/nothing", 404),
        ("/admin/users", 200),
        ("/docs/guides~jobs", 200),
        ("/docs/nothing", 404),
        ("/automation/hourly", 200),
        ("/automation/x", 404),
        ("/static/nothing.js", 404),
        ("/static/..%2f..%2fetc%2fpasswd", 404),
    ];
    for (path, expected) in pages {
        let heard = server.ask("GET", path, &[("Cookie", &session)], b"");
        assert_eq!(heard.status, expected, "{path}: {}", heard.text);
        assert!(heard.text.contains("script-src 'self'") && !heard.text.contains("unsafe-"), "{path}: {}", heard.text);
        let stranger = server.ask("GET", path, &[], b"");
        assert!(!stranger.text.contains("gold.two") || path.contains("gold.two"), "{}", stranger.text);
    }
    assert_eq!(server.ask("GET", "/assets/gold.none", &[], b"").status, 200, "strangers are asked who they are");
    assert_eq!(server.ask("POST", "/", &[], b"").status, 405);
}

/// Whoever has the machine manages people without a server, also while the files are broken; passwords come by standard input alone.
#[test]
fn people_are_managed_by_commands() {
    let sandbox = Sandbox::new(BINARY, FILES);
    sandbox.write("jobs/broken.yml", "job: broken\n");
    let add = |name: &str, role: &str, password: &str| {
        let mut child = sandbox
            .command(&["user", "add", name, "--role", role])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("open").write_all(password.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(add("mai", "admin", "a long password\n").0, Some(0));
    let (code, said) = add("mai", "viewer", "a long password\n");
    assert!(code == Some(6) && said.contains("already"), "{said}");
    let (code, said) = add("ben", "viewer", "short\n");
    assert!(code == Some(2) && said.contains("5 letters"), "{said}");
    let (code, said) = add("ben", "root", "a long password\n");
    assert!(code == Some(2) && said.contains("`root` is no role"), "{said}");
    assert_eq!(add("ben", "viewer", "a long password\n").0, Some(0));
    let refused = sandbox.run(&["token", "create", "x", "--user", "ben", "--role", "operator"]).expect(2);
    assert!(refused.err.contains("a token may do no more"), "{}", refused.err);
    sandbox.run(&["user", "set", "ben", "--logs", "true"]).expect(0);
    sandbox.run(&["user", "set", "ben"]).expect(2);
    let listed = sandbox.run(&["user", "list", "--output", "csv"]).expect(0).out;
    assert!(listed.contains("ben,viewer,\"view, logs\",active"), "{listed}");
    assert!(!listed.contains("argon2"), "{listed}");
    sandbox.run(&["user", "remove", "ben"]).expect(0);
    sandbox.run(&["user", "set", "ben", "--role", "admin"]).expect(2);
    sandbox.run(&["audit", "verify"]).expect(0);
    let audit = sandbox.run(&["audit", "list", "--output", "csv"]).expect(0).out;
    assert!(audit.contains("user.remove,ben") && !audit.contains("long password"), "{audit}");
}

/// Where Schemathesis is; `make setup` says it.
const SCHEMATHESIS: Option<&str> = option_env!("SUBAK_TEST_SCHEMATHESIS");

/// Whatever the description allows is answered as it says, and nothing of it makes the server fail. What would take away the token that asks, and what
/// does not end, is left out.
#[test]
fn the_server_keeps_to_its_description() {
    let schemathesis = SCHEMATHESIS.unwrap_or_else(|| panic!("Schemathesis is not installed; `make setup` does it"));
    let server = listening();
    let token = server.token("admin");
    server.served.sandbox.run(&["run", "gold.two", "silver.one"]).expect(0);
    let output = std::process::Command::new(schemathesis)
        .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/openapi.json")])
        .args(["--url", &format!("http://127.0.0.1:{}", server.port), "-H", &format!("Authorization: Bearer {token}")])
        .args(["--exclude-path-regex", "stream|/users|/tokens|/session|/setup", "--seed", "1", "--max-examples", "20"])
        .args(["--checks", "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"])
        .args(["--phases", "examples,fuzzing", "--no-color", "--suppress-health-check", "all"])
        .current_dir(server.served.sandbox.path())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let asked = server.call(&token, "GET", "/api/v1/project", "");
    assert_eq!(asked.status, 200, "{}", asked.text);
}

/// UI-40: below a path of its host the server finds itself, whether the proxy takes the path away or not.
#[test]
fn ui_40_the_server_stands_below_a_path() {
    let server = Listening::new(BINARY, FILES, &["--path-prefix", "/data/subak/"], &[]);
    let token = server.token("viewer");
    for prefix in ["", "/data/subak"] {
        let page = server.ask("GET", &format!("{prefix}/"), &[], b"");
        assert!(page.status == 200 && page.text.contains("<base href=\"/data/subak/\""), "{prefix}: {}", page.text);
        let script = page.text.split("src=\"./").nth(1).and_then(|rest| rest.split('"').next()).expect("a script");
        assert_eq!(server.ask("GET", &format!("{prefix}/{script}"), &[], b"").status, 200);
        assert_eq!(server.call(&token, "GET", &format!("{prefix}/api/v1/project"), "").json()["name"], "asked");
        assert_eq!(server.call(&token, "GET", &format!("{prefix}/api/v1/nothing"), "").status, 404);
        assert_eq!(server.ask("GET", &format!("{prefix}/api/v1/project"), &[], b"").status, 401);
        assert_eq!(server.ask("GET", &format!("{prefix}/livez"), &[("Host", "evil.example.com")], b"").status, 421);
        assert_eq!(server.ask("GET", &format!("{prefix}/nothing"), &[], b"").status, 404);
    }
}
