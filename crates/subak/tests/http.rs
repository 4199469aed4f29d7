//! APIs as source, through a server whose answers the tests make up. Results are read back with DuckDB's own library, not through Subak.

#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use std::sync::atomic::{AtomicU32, Ordering};

use secret::set_secret;
use subak_testkit::{HttpDouble, HttpReply, HttpRequest, Ran, Sandbox};
use warehouse::{project, read};

/// A project with the server as `api`; `connection` are further keys of it, `streams` those of the ingest file.
fn with_server(server: &HttpDouble, connection: &str, streams: &str) -> Sandbox {
    let sandbox = project(&[("assets/bronze/api.yml", &format!("ingest:\n  from: api\n  streams:\n    {streams}\n"))]);
    let config = format!(
        "project: api\nconnections:\n  warehouse: {{ type: duckdb, path: warehouse.duckdb }}\n  api:\n    type: http\n    url: {}/v2\n    {connection}\n",
        server.url()
    );
    sandbox.write("subak.yml", &config);
    sandbox
}

#[track_caller]
fn fails(sandbox: &Sandbox, words: &str) -> Ran {
    let ran = sandbox.run(&["run"]);
    assert!(ran.code != Some(0) && ran.err.contains(words), "{words}: {}", ran.err);
    ran
}

/// Orders 1 to `count` as JSON.
fn orders(ids: impl Iterator<Item = u32>) -> String {
    let order =
        |id: u32| format!("{{\"id\": {id}, \"amount\": {id}.10, \"at\": \"2025-01-01T00:{:02}:{:02}Z\"}}", id / 60, id % 60);
    format!("[{}]", ids.map(order).collect::<Vec<_>>().join(","))
}

fn number(request: &HttpRequest, name: &str, default: u32) -> u32 {
    request.params.get(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A server with 95 orders and every way to go through them.
fn shop() -> HttpDouble {
    HttpDouble::start(|request| {
        let page = |from: u32, size: u32| orders((from + 1)..=(from + size).min(95));
        match request.path.as_str() {
            "/v2/offset" => {
                // The server gives fewer than are asked for.
                let body = page(number(request, "offset", 0), number(request, "limit", 10).min(20));
                HttpReply::json(format!("{{\"meta\": {{\"total\": 95}}, \"data\": {{\"items\": {body}}}}}"))
            }
            "/v2/page" => HttpReply::json(page((number(request, "page", 1) - 1) * 10, 10)),
            "/v2/cursor" => {
                let from = number(request, "after", 0);
                let next = if from + 10 < 95 { (from + 10).to_string() } else { "null".to_owned() };
                HttpReply::json(format!("{{\"data\": {}, \"next\": {next}}}", page(from, 10)))
            }
            "/v2/graph" => {
                let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
                let after = &body["variables"]["after"];
                let from: u32 = after.as_str().map_or(0, |after| after.parse().expect("the text that was given"));
                let more = from + 10 < 95;
                HttpReply::json(format!(
                    "{{\"data\": {}, \"info\": {{\"next\": \"{}\", \"more\": {more}}}}}",
                    page(from, 10),
                    from + 10
                ))
            }
            "/v2/link" => {
                let from = number(request, "from", 0);
                let reply = HttpReply::json(page(from, 10));
                if from + 10 < 95 {
                    reply.header("Link", &format!("</v2/link?from={}>; rel=\"next\", </v2/link>; rel=\"first\"", from + 10))
                } else {
                    reply
                }
            }
            "/v2/odata" => {
                let from = number(request, "skip", 0);
                let next = if from + 50 < 95 {
                    format!(", \"@odata.nextLink\": \"/v2/odata?skip={}\"", from + 50)
                } else {
                    String::new()
                };
                HttpReply::json(format!("{{\"value\": {}{next}}}", page(from, 50)))
            }
            "/v2/next" => {
                let from = number(request, "from", 0);
                let next = if from + 10 < 95 { format!("\"/v2/next?from={}\"", from + 10) } else { "\"\"".to_owned() };
                HttpReply::json(format!("{{\"data\": {}, \"links\": {{\"next\": {next}}}}}", page(from, 10)))
            }
            "/v2/lines" => HttpReply::json("{\"id\": 1}\n\n{\"id\": 12345678901234567890}\n"),
            other => HttpReply::status(404, format!("no {other}")),
        }
    })
}

#[test]
fn pages_follow_each_other_in_every_way() {
    let server = shop();
    for stream in [
        "orders: { path: /offset, records: data.items, pagination: { type: offset, size: 50, total: meta.total } }",
        "orders: { path: page, pagination: { type: page } }",
        "orders: { path: /cursor, records: data, pagination: { type: cursor, param: after, next: next } }",
        "orders: { path: /graph, method: post, body: '{\"query\": \"{ orders }\"}', records: data, pagination: { type: cursor, param: variables.after, param_in: body, next: info.next, more: info.more } }",
        "orders: { path: /link, pagination: { type: link } }",
        "orders: { path: /odata, records: value, pagination: { type: next_url, next: '@odata.nextLink' } }",
        "orders: { path: /next, records: data, pagination: { type: next_url, next: links.next } }",
    ] {
        let sandbox = with_server(&server, "headers: { X-Client: subak }", &stream.replacen("{ ", "{ mode: replace, ", 1));
        server.requests();
        sandbox.run(&["run"]).expect(0);
        let found = read(&sandbox, "select count(*), count(distinct id), sum(amount) from bronze.orders");
        assert_eq!(found, ["95,95,4569.500000000"], "{stream}");
        assert!(server.requests().iter().all(|request| request.headers["x-client"] == "subak"));
    }
    let sandbox = with_server(&server, "", "lines: { path: lines, format: ndjson, mode: replace }");
    sandbox.run(&["run"]).expect(0);
    // Numbers keep every digit.
    assert_eq!(read(&sandbox, "select id from bronze.lines order by id"), ["1.000000000", "12345678901234567890.000000000"]);
}

#[test]
fn what_is_new_is_asked_for() {
    let server = HttpDouble::start(|request| {
        let since = request.params.get("since").map_or("", String::as_str);
        let all = [(1, "2025-01-01T00:00:00Z"), (2, "2025-01-02T00:00:00.500Z"), (3, "2025-01-02T00:00:00.700Z")];
        // The API knows seconds, and leaves out the one that is named.
        let rows = all.iter().filter(|(_, at)| since.is_empty() || at[..19] > since[..19]);
        let rows: Vec<String> = rows.map(|(id, at)| format!("{{\"id\": {id}, \"at\": \"{at}\"}}")).collect();
        HttpReply::json(format!("[{}]", rows.join(",")))
    });
    let sandbox = with_server(
        &server,
        "params: { key: abc }",
        "orders: { primary_key: id, cursor: at, columns: { at: timestamp }, incremental: { param: since, exclusive: true, start: '2000-01-01T00:00:00Z' } }",
    );
    sandbox.run(&["run"]).expect(0);
    let first = server.requests();
    assert_eq!((first[0].params["since"].as_str(), first[0].params["key"].as_str()), ("2000-01-01T00:00:00Z", "abc"));
    let ran = sandbox.run(&["run"]).expect(0);
    assert_eq!(server.requests()[0].params["since"], "2025-01-01T23:59:59Z", "one second before the second of the last value");
    // What comes again is tested here by the exact value.
    assert!(ran.err.contains("read 1, written 0"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select count(*) from bronze.orders"), ["3"]);
}

#[test]
fn children_are_asked_for_with_their_parents() {
    let server = HttpDouble::start(|request| match request.path.as_str() {
        "/v2/orders" => HttpReply::json(
            "{\"data\": [{\"id\": 1, \"shop\": {\"code\": \"a/b\"}}, {\"id\": 2, \"shop\": {\"code\": \"c\"}}, {\"id\": 3, \"shop\": {\"code\": \"c\"}}]}",
        ),
        "/v2/shops/a%2Fb/orders/1/lines" => HttpReply::json("[{\"sku\": \"x\", \"price\": 1.5}, {}]"),
        "/v2/shops/c/orders/2/lines" => HttpReply::json("[]"),
        _ => HttpReply::status(404, "nothing"),
    });
    let stream = "lines: { path: '/shops/{shop.code}/orders/{id}/lines', mode: replace, parent: { path: /orders, records: data }, if_missing: skip }";
    let sandbox = with_server(&server, "", stream);
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(
        ran.err.contains("there is nothing at 1 of 3 paths, which count as empty: GET /v2/shops/c/orders/3/lines"),
        "{}",
        ran.err
    );
    assert_eq!(
        read(&sandbox, "select parent_shop_code, parent_id, sku, price from bronze.lines order by sku nulls last"),
        ["a/b,1,x,1.500000000", "a/b,1,NULL,NULL"]
    );
    let sandbox = with_server(&server, "", &stream.replace(", if_missing: skip", ""));
    fails(&sandbox, "there is nothing at GET /v2/shops/c/orders/3/lines");
}

#[test]
fn troubles_that_pass_are_waited_for() {
    let count = AtomicU32::new(0);
    let server = HttpDouble::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => HttpReply::status(503, "later"),
        1 => HttpReply::status(429, "slowly").header("Retry-After", "0"),
        2 => HttpReply { is_cut: true, ..HttpReply::json(orders(1..=50)) },
        _ => HttpReply::json(orders(1..=3)),
    });
    let sandbox = with_server(&server, "requests_per_minute: 6000", "orders: { mode: replace }");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(server.requests().len(), 4);
    assert_eq!(read(&sandbox, "select count(*) from bronze.orders"), ["3"]);
}

#[test]
fn signing_in_shows_nowhere() {
    let used = AtomicU32::new(0);
    let server = HttpDouble::start(move |request| {
        let authorization = request.headers.get("authorization").map_or("", String::as_str);
        match request.path.as_str() {
            "/token" => {
                let count = used.fetch_add(1, Ordering::SeqCst);
                // A client whose refresh tokens are used up: each answer brings the next one.
                let expected = format!(
                    "grant_type=refresh_token&refresh_token={}&scope=read%20all",
                    if count == 0 { "first-secret" } else { "second-secret" }
                );
                if request.body != expected || authorization != "Basic bWU6c2VjcmV0LXBhc3M=" {
                    return HttpReply::status(400, format!("{} {authorization}", request.body));
                }
                HttpReply::json(format!(
                    "{{\"access_token\": \"access-{count}\", \"expires_in\": \"3600\", \"refresh_token\": \"second-secret\"}}"
                ))
            }
            // The first token ends at once.
            "/v2/oauth" if authorization == "Bearer access-0" => HttpReply::status(401, "expired"),
            "/v2/oauth" if authorization.starts_with("Bearer access-") => HttpReply::json("[{\"id\": 1}]"),
            "/v2/basic" if authorization == "Basic bWU6c2VjcmV0LXBhc3M=" => HttpReply::json("[{\"id\": 1}]"),
            "/v2/bearer" if authorization == "Bearer secret-pass" => HttpReply::json("[{\"id\": 1}]"),
            "/v2/header" if request.headers.get("x-key").is_some_and(|key| key == "secret-pass") => {
                HttpReply::json("[{\"id\": 1}]")
            }
            "/v2/query" if request.params.get("key").is_some_and(|key| key == "secret-pass") => HttpReply::json("[{\"id\": 1}]"),
            _ => HttpReply::status(401, "who are you?"),
        }
    });
    let token = "token: \"${secret:key}\"";
    for (path, auth) in [
        ("basic", "type: basic, user: me, password: \"${secret:key}\"".to_owned()),
        ("bearer", format!("type: bearer, {token}")),
        ("header", format!("type: header, name: X-Key, {token}")),
        ("query", format!("type: query, name: key, {token}")),
    ] {
        let sandbox = with_server(&server, &format!("auth: {{ {auth} }}"), &format!("things: {{ path: {path}, mode: replace }}"));
        set_secret(&sandbox, "key", "secret-pass");
        sandbox.run(&["run"]).expect(0);
        set_secret(&sandbox, "key", "another-pass");
        let ran = fails(&sandbox, "correct `auth:`");
        assert!(!ran.err.contains("another-pass") && ran.err.contains("who are you?"), "{}", ran.err);
    }
    let oauth = format!(
        "auth: {{ type: oauth2, token_url: \"{}/token\", client_id: me, client_secret: \"${{secret:key}}\", refresh_token: \"${{secret:refresh}}\", scope: read all }}",
        server.url()
    );
    let sandbox = with_server(&server, &oauth, "things: { path: oauth, mode: replace }");
    set_secret(&sandbox, "key", "secret-pass");
    set_secret(&sandbox, "refresh", "first-secret");
    // The token that replaced the configured one is the one that the next run begins with.
    for _ in 0..2 {
        sandbox.run(&["run", "--full-refresh"]).expect(0);
        assert_eq!(read(&sandbox, "select count(*) from bronze.things"), ["1"]);
    }
    let kept = sandbox.path().join(".subak/connections/api.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn apis_that_mislead_are_found_out() {
    let server = HttpDouble::start(|request| match request.path.as_str() {
        // Knows no `offset`.
        "/v2/same" => HttpReply::json(orders(1..=10)),
        "/v2/loop" => HttpReply::json("{\"data\": [{\"id\": 1}], \"next\": \"x\"}"),
        "/v2/short" => HttpReply::json(format!(
            "{{\"total\": 30, \"data\": {}}}",
            if request.params.contains_key("offset") { "[]".to_owned() } else { orders(1..=10) }
        )),
        "/v2/away" => HttpReply::json("{\"data\": [], \"next\": \"https://elsewhere.example/steal\"}"),
        "/v2/moved" => HttpReply::status(302, "").header("Location", "https://elsewhere.example/?key=1"),
        "/v2/failed" => HttpReply::json("{\"data\": [], \"errors\": [{\"message\": \"no such field\"}]}"),
        "/v2/envelope" => HttpReply::json("{\"items\": [], \"count\": 0}"),
        "/v2/half" => HttpReply::json("[{\"id\": 1}, {\"id\":"),
        "/v2/own/1" => HttpReply::json("[{\"id\": 7, \"parent_id\": 3}]"),
        "/v2/many" => HttpReply::json(orders(number(request, "page", 1)..=number(request, "page", 1))),
        "/v2/down" => HttpReply::status(503, "down"),
        _ => HttpReply::status(404, ""),
    });
    for (stream, words) in [
        ("path: same, pagination: { type: offset }", "the API gave the same page twice; does it know the parameter `offset`?"),
        ("path: loop, records: data, pagination: { type: cursor, next: next }", "the API leads back to a page that was read"),
        ("path: short, records: data, pagination: { type: offset, total: total }", "the API has 30 records, and gave 10"),
        (
            "path: away, records: data, pagination: { type: next_url, next: next }",
            "the next page is at https://elsewhere.example, not at http://127.0.0.1",
        ),
        ("path: moved", "leads to `https://elsewhere.example/`"),
        ("path: failed, records: data, error: errors", "was answered with an error at `errors`"),
        ("path: envelope", "the answer has the keys `count`, `items`"),
        ("path: envelope, records: rows", "has nothing at `rows`"),
        ("path: half", "is no complete JSON"),
        ("path: envelope, records: items, pagination: { type: cursor, next: next, more: has_more }", "has nothing at `has_more`"),
        (
            "path: lines, format: ndjson, pagination: { type: cursor, next: next }",
            "answers of the format `ndjson` are records and nothing else",
        ),
        ("path: same, pagination: { type: offset, param_in: body }", "`param_in: body` needs `method: post`"),
        ("path: '/{a.b}/{a_b}', parent: { path: same }", "two fields of the `parent` would have one column"),
        ("path: '/own/{id}', parent: { path: loop, records: data }", "records have `parent_id` of their own"),
        ("path: many, pagination: { type: page, page_count_max: 5 }", "there are more than 5 pages"),
        ("path: down", "it was tried 2 times"),
        ("path: nowhere", "there is nothing at GET /v2/nowhere"),
        ("path: same, cursor: at, columns: { at: timestamp }, body: '{}'", "a request with a `body` needs `method: post`"),
        ("path: same, incremental: { param: since }", "has `incremental:` and no `cursor:`"),
    ] {
        let sandbox = with_server(
            &server,
            "retries: 1",
            &format!("orders: {{ mode: {}, {stream} }}", if stream.contains("cursor: at") { "append" } else { "replace" }),
        );
        fails(&sandbox, words);
    }
    // A path that is not there may be a wrong one: it is told.
    let sandbox =
        with_server(&server, "", "orders: { path: loop, records: data, mode: replace, pagination: { type: cursor, next: nxt } }");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("the first answer has nothing at `nxt`"), "{}", ran.err);
    let sandbox = with_server(&server, "", "orders: { mode: replace, pagination: { typ: page } }");
    let ran = sandbox.run(&["validate"]);
    assert!(
        ran.err.contains("`pagination` does not know the key `typ`") && ran.err.contains("needs the key `type`"),
        "{}",
        ran.err
    );
}
