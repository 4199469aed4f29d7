//! Systems that are reached through a driver library: PostgreSQL, SQLite and DuckDB by drivers of other makers, with results read back by
//! DuckDB's own library.

#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use secret::set_secret;
use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres, Sandbox, adbc_driver};
use warehouse::{project, read};

fn with_connection(connection: &str, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = project(files);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &format!("{config}  far: {{ {connection} }}\n"));
    sandbox
}

/// An address with a password, as an address is written.
fn address(server: &Postgres, password: &str) -> String {
    let coded: String = password.bytes().map(|byte| format!("%{byte:02X}")).fold(String::new(), |text, code| text + &code);
    format!("postgresql://{POSTGRES_USER}:{coded}@127.0.0.1:{}/subak", server.port())
}

fn postgres(server: &Postgres, files: &[(&str, &str)]) -> Sandbox {
    let driver = adbc_driver("postgresql");
    let sandbox = with_connection(&format!("type: adbc, driver: {driver}, uri: '${{secret:far}}'"), files);
    set_secret(&sandbox, "far", &address(server, POSTGRES_PASSWORD));
    sandbox
}

#[test]
fn a_server_is_read_through_its_driver() {
    let server = Postgres::start();
    server.sql(
        "create table facts (id bigint primary key, price numeric(10,2), note text, ok boolean, at timestamp, seen timestamptz, day date, \
         raw bytea, ratio double precision, took interval, tags int[]); insert into facts \
         select n, n + 0.25, case when n % 3 > 0 then 'é ' || n end, n % 2 = 0, timestamp '2025-01-01' + n * interval '1 second', \
         timestamptz '2025-01-01 00:00:00+02' + n * interval '1 second', date '2024-02-28' + n::int, decode('00ff', 'hex'), n / 4.0, \
         interval '1 mon 2 days', array[n::int, null] from generate_series(1, 40000) as n",
    );
    let ingest = "ingest:\n  from: far\n  defaults: { columns: { price: 'decimal(10,2)' } }\n  streams:\n    \
                  facts: { stream: public.facts, primary_key: id, cursor: id }\n    \
                  late: { stream: public.facts, cursor: at, mode: append }\n    \
                  sums: { sql: \"select ok, count(*) as n, sum(ratio) as total, max(price) as price from facts group by ok\", mode: replace }\n    \
                  few: { stream: public.facts, where: 'id <= 3', limit: 2, select: [id, ok], mode: replace }\n";
    let sandbox = postgres(&server, &[("assets/raw.yml", ingest)]);
    sandbox.run(&["run"]).expect(0);
    let facts = "select count(*), sum(id), sum(price), count(note), sum(ratio), max(\"at\"), max(seen::varchar), max(day), count(distinct hex(raw)) from facts";
    assert_eq!(
        read(&sandbox, facts),
        ["40000,800020000,800030000.00,26667,200005000.0,2025-01-01 11:06:40,2025-01-01 09:06:40+00,2133-09-04,1"]
    );
    assert_eq!(
        read(&sandbox, "select id, price, note, ok, took, tags from facts where id in (2, 3) order by id"),
        ["2,2.25,é 2,true,1 mons 2 days,[2, NULL]", "3,3.25,NULL,false,1 mons 2 days,[3, NULL]"]
    );
    assert_eq!(
        read(&sandbox, "select ok, n, total, price from sums order by ok"),
        ["false,20000,100000000.0,39999.25", "true,20000,100005000.0,40000.25"]
    );
    assert_eq!(read(&sandbox, "select count(*), count(ok) from few"), ["2,2"]);
    assert_eq!(
        read(&sandbox, "select string_agg(column_name, ' ') from information_schema.columns where table_name = 'few'"),
        ["id ok"]
    );

    // Only what is new is read: by the server for numbers, here for times.
    server
        .sql("update facts set note = 'new' where id = 40000; insert into facts (id, price, at) values (40001, 7, '2026-01-01')");
    let again = sandbox.run(&["run", "facts", "late"]).expect(0);
    assert!(again.err.contains("facts") && again.err.contains("read 2, written 2"), "{}", again.err);
    assert_eq!(
        read(&sandbox, "select count(*), max(price) filter (where id = 40001), max(note) filter (where id = 40000) from facts"),
        ["40001,7.00,new"]
    );
    assert_eq!(
        read(&sandbox, "select count(*), count(distinct id) from late"),
        ["40002,40001"],
        "an append keeps both states of a row"
    );

    let found = sandbox.run(&["discover", "far"]).expect(0);
    assert!(found.out.contains("public.facts") && !found.out.contains("pg_catalog"), "{}", found.out);
}

#[test]
fn other_drivers_and_their_functions() {
    let sandbox = with_connection(
        &format!("type: adbc, driver: {}, uri: far.db", adbc_driver("sqlite")),
        &[(
            "assets/raw.yml",
            "ingest:\n  from: far\n  streams:\n    t: { mode: replace, hooks: { after: [{ on: far, sql: 'insert into t values (9, null)' }] } }\n",
        )],
    );
    let path = sandbox.path().join("far.db");
    let source = rusqlite::Connection::open(&path).expect("a database");
    source.execute_batch("create table t (id integer, note text); insert into t values (1, 'a'), (2, null)").expect("rows");
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("uri: far.db", &format!("uri: '{}'", path.display())));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select * from t order by id"), ["1,a", "2,NULL"]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from t"), ["3"], "the statement ran at the far end");

    let library = concat!(env!("DUCKDB_LIB_DIR"), "/libduckdb.so");
    let sandbox = with_connection(
        &format!("type: adbc, driver: {library}, entrypoint: duckdb_adbc_init, options: {{ path: far.duckdb }}"),
        &[("assets/raw.yml", "ingest:\n  from: far\n  streams:\n    t: { stream: main.t, mode: replace }\n")],
    );
    let path = sandbox.path().join("far.duckdb");
    let far = duckdb::Connection::open(&path).expect("a database");
    far.execute_batch("create table t as select 1::hugeint as big, interval 3 hour as took, {'a': [1, 2]} as nested, 'x'::enum('x', 'y') as kind, uuid '00000000-0000-0000-0000-000000000001' as u").expect("rows");
    drop(far);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("path: far.duckdb", &format!("path: '{}'", path.display())));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select * from t"), ["1,3 hours,{'a': [1, 2]},x,00000000-0000-0000-0000-000000000001"]);
}

#[test]
fn what_a_driver_refuses_is_told() {
    let server = Postgres::start();
    let ingest = "ingest:\n  from: far\n  streams:\n    facts: { stream: public.nowhere, mode: replace }\n";
    let sandbox = postgres(&server, &[("assets/raw.yml", ingest)]);
    let missing = sandbox.run(&["run"]);
    assert!(missing.code == Some(1) && missing.err.contains("does not exist"), "{}", missing.err);
    set_secret(&sandbox, "far", &address(&server, "wrong one"));
    let wrong = sandbox.run(&["doctor"]);
    assert!(
        wrong.err.contains("the driver cannot connect") || wrong.out.contains("the driver cannot connect"),
        "{}{}",
        wrong.out,
        wrong.err
    );
    assert!(!wrong.out.contains("wrong one") && !wrong.err.contains("wrong one"), "{}{}", wrong.out, wrong.err);

    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    for (driver, words) in
        [("nothing_like_it", "the driver `nothing_like_it` cannot be loaded"), ("drivers/x.so", "a path that begins nowhere")]
    {
        sandbox.write("subak.yml", &config.replace(&adbc_driver("postgresql"), driver));
        let failed = sandbox.run(&["run"]);
        assert!(failed.code == Some(1) && failed.err.contains(words), "{words}: {}", failed.err);
    }
}
