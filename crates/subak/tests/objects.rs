//! Files in object stores, on a server of each test's own that speaks S3, and on one that only answers `GET`. Results are read back with DuckDB's
//! own library, not through Subak.

#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use std::io::Write;

use secret::set_secret;
use subak_testkit::{HttpDouble, HttpReply, Objects, Sandbox};
use warehouse::{project, read};

fn with_store(store: &str, streams: &str) -> Sandbox {
    let sandbox = project(&[("assets/bronze/files.yml", &format!("ingest:\n  from: lake\n  streams:\n    {streams}\n"))]);
    let config = format!(
        "project: lake\nconnections:\n  warehouse: {{ type: duckdb, path: warehouse.duckdb }}\n  lake: {{ type: files, {store} }}\n"
    );
    sandbox.write("subak.yml", &config);
    set_secret(&sandbox, "s3", "no-secret");
    sandbox
}

fn s3(server: &Objects) -> String {
    format!(
        "url: \"s3://data/in\", endpoint: \"{}\", region: eu-central-1, key_id: me, secret_key: \"${{secret:s3}}\"",
        server.url()
    )
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(text.as_bytes()).expect("memory");
    out.finish().expect("memory")
}

#[test]
fn objects_are_read_like_files() {
    let server = Objects::start("data");
    server.put("in/orders/2025-01-01.csv", b"id,amount\n1,10.5\n2,20\n");
    server.put("in/orders/2025-01-02.csv.gz", &gzip("id,amount\n3,30\n"));
    server.put("in/orders/deep/2025-01-03.csv", b"id,amount\n4,40\n");
    server.put("in/odd%20name%20%C3%BC.json", "[{\"id\": 1, \"name\": \"Ünï\"}]".as_bytes());
    server.put("elsewhere/orders/x.csv", b"id,amount\n9,90\n");
    let sandbox = with_store(
        &s3(&server),
        "orders: { path: 'orders/*.csv*', mode: append, file_column: file }\n    all: { path: 'orders/**/*.csv', mode: replace }\n    names: { path: odd name ü.json, mode: replace }",
    );
    sandbox.run(&["run"]).expect(0);
    let orders = "select id, amount, file from bronze.orders order by id";
    let first = ["1,10.5,orders/2025-01-01.csv", "2,20,orders/2025-01-01.csv", "3,30,orders/2025-01-02.csv.gz"];
    assert_eq!(read(&sandbox, orders), first);
    assert_eq!(read(&sandbox, "select id from bronze.all order by id"), ["1", "2", "4"]);
    assert_eq!(read(&sandbox, "select name from bronze.names"), ["Ünï"]);
    // Objects that were loaded are not loaded again, and their content by another name is told.
    server.put("in/orders/2025-01-04.csv", b"id,amount\n5,50\n");
    server.put("in/orders/copy.csv", b"id,amount\n1,10.5\n2,20\n");
    let ran = sandbox.run(&["run", "bronze.orders"]).expect(0);
    assert!(ran.err.contains("read 1, written 1") && ran.err.contains("`orders/copy.csv` has the content of"), "{}", ran.err);
    // One that was loaded and has another content now is refused.
    server.put("in/orders/2025-01-01.csv", b"id,amount\n1,99\n");
    let ran = sandbox.run(&["run", "bronze.orders"]).expect(1);
    assert!(ran.err.contains("`s3://data/in/orders/2025-01-01.csv` was loaded before"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select count(*) from bronze.orders"), ["4"]);
    server.delete("in/orders/2025-01-01.csv");
    sandbox.run(&["run", "bronze.orders"]).expect(0);
    let names = std::fs::read_dir(sandbox.path().join(".subak/tmp")).expect("a folder").flatten().map(|entry| entry.file_name());
    let copies: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("objects_")).collect();
    assert!(copies.is_empty(), "{copies:?}");
}

#[test]
fn web_servers_give_single_files() {
    let server = HttpDouble::start(|request| match request.path.as_str() {
        "/pub/rates.csv" => HttpReply::status(200, "code,rate\nEUR,1.5\n")
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("etag", "\"1\""),
        _ => HttpReply::status(404, ""),
    });
    let sandbox = with_store(&format!("url: \"{}/pub\"", server.url()), "rates: { path: rates.csv, mode: replace }");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select * from bronze.rates"), ["EUR,1.5"]);
}

#[test]
fn errors_say_what_to_do() {
    let server = Objects::start("data");
    server.put("in/a.csv", b"id\n1\n");
    for (store, stream, words) in [
        (s3(&server), "a: { path: 'b*.csv', mode: replace }", "no file matches `b*.csv` in `s3://data/in`"),
        (s3(&server).replace("s3://data", "s3://other"), "a: { path: '*.csv', mode: replace }", "cannot list `s3://other/in`"),
        ("url: \"ftp://host/x\"".to_owned(), "a: { path: a.csv }", "is no address of an object store"),
        (s3(&server).replace("s3://data", "s3://data:word@host"), "a: { path: a.csv }", "has a password or parameters in it"),
    ] {
        let sandbox = with_store(&store, stream);
        let ran = sandbox.run(&["run"]);
        assert!(ran.code != Some(0) && ran.err.contains(words), "{words}: {}", ran.err);
    }
    let sandbox = with_store(&s3(&server), "a: { path: a.csv, mode: replace }");
    sandbox.write(
        "assets/bronze/files.yml",
        "ingest:\n  from: lake\n  to: lake\n  streams:\n    a: { path: a.csv, mode: replace }\n",
    );
    let ran = sandbox.run(&["run"]);
    assert!(ran.code != Some(0) && ran.err.contains("not to object stores"), "{}", ran.err);
}
