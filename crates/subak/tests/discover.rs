//! Streams that patterns name: what a source has is found out once and kept, and a project means the same until somebody looks again.

#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use secret::set_secret;
use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres};
use warehouse::{project, read};

const INGEST: &str = "ingest:
  from: app
  defaults: { tags: [app] }
  streams:
    orders_*: { exclude: '*_tmp', mode: merge, cursor: updated_at }
    'u?ers': { asset: 'app_{table}' }
    orders_2023: { mode: replace }
";

#[test]
fn patterns_are_resolved_when_somebody_looks() {
    let sandbox = project(&[("assets/bronze/app.yml", INGEST)]);
    let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    let execute = |sql: &str| source.execute_batch(sql).expect(sql);
    for table in ["orders_2023", "orders_2024", "orders_2025", "orders_tmp", "elsewhere"] {
        execute(&format!(
            "create table {table} (id integer primary key, updated_at text); insert into {table} values (1, '2025-01-01 00:00:00')"
        ));
    }
    execute("create table users (\"user id\" integer primary key, name text); insert into users values (7, 'A')");

    let listed = sandbox.run(&["discover", "app"]).expect(0);
    assert!(listed.out.contains("orders_2024") && listed.out.contains("elsewhere"), "{}", listed.out);
    let like = sandbox.run(&["discover", "app", "--like", "orders_*", "-o", "json"]).expect(0);
    assert!(!like.out.contains("elsewhere") && like.out.contains("\"updated_at text\""), "{}", like.out);

    // Nothing is guessed before somebody looked.
    let unknown = sandbox.run(&["validate"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("nobody has looked yet which streams there are"), "{}", unknown.err);
    sandbox.run(&["discover", "--check"]).expect(5);
    let saved = sandbox.run(&["discover", "--save"]).expect(0);
    assert!(
        saved.err.contains("assets/bronze/app.lock: 4 streams; 4 new: orders_2023, orders_2024, orders_2025, users"),
        "{}",
        saved.err
    );
    sandbox.run(&["discover", "--check"]).expect(0);

    // What is wrong with a pattern is said once, not for every stream.
    sandbox.write("assets/bronze/app.yml", &INGEST.replace("mode: merge", "mode: murge"));
    let wrong = sandbox.run(&["validate"]);
    assert_eq!(wrong.err.matches("`murge`").count(), 1, "{}", wrong.err);

    // A pattern that changed is looked for again: nothing is left out unseen.
    sandbox.write("assets/bronze/app.yml", &INGEST.replace("exclude: '*_tmp', ", ""));
    let stale = sandbox.run(&["validate"]);
    assert!(stale.code == Some(2) && stale.err.contains("does not say which streams `orders_*` of `app` names"), "{}", stale.err);

    // The cursor is text in SQLite, and its type is declared for all.
    sandbox.write(
        "assets/bronze/app.yml",
        &INGEST.replace("cursor: updated_at }", "cursor: updated_at, columns: { updated_at: datetime } }"),
    );
    sandbox.run(&["run"]).expect(0);
    let tables = "select table_name from information_schema.tables where table_schema = 'bronze' order by 1";
    assert_eq!(read(&sandbox, tables), ["app_users", "orders_2023", "orders_2024", "orders_2025"]);
    // What is new at the source changes nothing until it is looked for, and what changed in a table arrives by its key.
    execute("create table orders_2026 (id integer primary key, updated_at text)");
    execute("update orders_2024 set updated_at = '2025-01-02 00:00:00'");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id, updated_at from bronze.orders_2024"), ["1,2025-01-02 00:00:00"]);
    assert_eq!(read(&sandbox, tables).len(), 4);
    execute("drop table orders_2025; create table orders_2027 (id integer primary key, note text)");
    let saved = sandbox.run(&["discover", "--save"]).expect(0);
    assert!(saved.err.contains("5 streams; 2 new: orders_2026, orders_2027; 1 gone: orders_2025"), "{}", saved.err);
    let lacking = sandbox.run(&["validate"]);
    assert!(
        lacking.code == Some(2) && lacking.err.contains("the stream `orders_2027` has no column `updated_at`"),
        "{}",
        lacking.err
    );
    assert!(lacking.err.contains("leave it out with `exclude: orders_2027`"), "{}", lacking.err);
}

#[test]
fn patterns_that_cannot_be_are_refused() {
    let sandbox = project(&[]);
    rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    for (streams, words) in [
        ("orders_2023: { exclude: x }", "`exclude` goes with a pattern, and `orders_2023` is the name of one stream"),
        ("'orders_*': { stream: x }", "a pattern names streams, and `stream` would name one"),
        ("'orders_?':\n  defaults: { stream: x }", "a pattern names streams, and `stream` would name one"),
    ] {
        sandbox.write("assets/bronze/app.yml", &format!("ingest:\n  from: app\n  streams:\n    {streams}\n"));
        let ran = sandbox.run(&["validate"]);
        assert!(ran.code == Some(2) && ran.err.contains(words), "{words}: {}", ran.err);
    }
    sandbox.write("assets/bronze/app.yml", "ingest:\n  from: app\n  streams:\n    'nothing_*':\n");
    sandbox.run(&["discover", "--save"]).expect(0);
    assert!(sandbox.run(&["validate"]).expect(0).err.contains("names no stream that was found"));
    sandbox.write("assets/bronze/app.lock", "{");
    assert!(sandbox.run(&["validate"]).err.contains("`assets/bronze/app.lock` cannot be read"));
}

#[test]
fn schemas_are_part_of_patterns() {
    let server = Postgres::start();
    server.sql("create schema shop; create table shop.orders (id int primary key, \"Odd Name\" text); insert into shop.orders values (1, 'x'); \
                create table shop.\"Odd-Table\" (id int); create table public.orders (id int); insert into public.orders values (5)");
    let sandbox = project(&[(
        "assets/bronze/pg.yml",
        "ingest:\n  from: pg\n  streams:\n    'shop.*': { asset: '{schema}_{table}' }\n    'public.*':\n",
    )]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let connection = format!(
        "  pg: {{ type: postgres, host: 127.0.0.1, port: {}, database: subak, user: {POSTGRES_USER}, password: \"${{secret:pg}}\" }}\n",
        server.port()
    );
    sandbox.write("subak.yml", &format!("{config}{connection}"));
    set_secret(&sandbox, "pg", POSTGRES_PASSWORD);
    sandbox.run(&["discover", "--save"]).expect(0);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "from bronze.shop_orders"), ["1,x"]);
    assert_eq!(read(&sandbox, "from bronze.orders"), ["5"]);
    assert_eq!(read(&sandbox, "select count(*) from bronze.\"shop_odd_table\""), ["0"]);
    // Two streams that would become one asset are an error.
    sandbox.write("assets/bronze/pg.yml", "ingest:\n  from: pg\n  streams:\n    '*.*': { exclude: 'shop.Odd*' }\n");
    sandbox.run(&["discover", "--save"]).expect(0);
    let twice = sandbox.run(&["validate"]);
    assert!(twice.code == Some(2) && twice.err.contains("bronze.orders"), "{}", twice.err);
}

#[test]
fn moving_is_measured_and_leaves_nothing() {
    let sandbox = project(&[("assets/bronze/app.yml", "ingest: { from: app, streams: { t: { mode: replace } } }\n")]);
    let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    source
        .execute_batch("create table t (id integer primary key, note text); insert into t values (1, 'a'), (2, 'b')")
        .expect("rows");
    let measured =
        sandbox.run(&["bench", "move", "app", "t", "--to", "warehouse", "--to", "files", "--set", "where=id > 1", "-o", "csv"]);
    assert_eq!(measured.code, Some(0), "{}", measured.err);
    let lines: Vec<&str> = measured.out.lines().collect();
    assert!(lines[0].starts_with("way,rows,mib,cpu_seconds") && lines[1].starts_with("read from app,1,"), "{}", measured.out);
    assert!(lines[2].starts_with("app to warehouse,1,") && lines[3].starts_with("app to files,1,"), "{}", measured.out);
    assert_eq!(read(&sandbox, "select count(*) from information_schema.tables where table_schema <> '_subak'"), ["0"]);
    let wrong = sandbox.run(&["bench", "move", "ap", "t"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("did you mean `app`?"), "{:?} {}", wrong.code, wrong.err);
    let wrong = sandbox.run(&["bench", "move", "app", "t", "--set", "where"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("write it as `key=value`"), "{}", wrong.err);
}
