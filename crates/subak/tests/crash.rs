//! `kill -9` at every named point of a run, then the same command again: the tables are those of an undisturbed run.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use subak_testkit::Sandbox;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const FILES: &[(&str, &str)] = &[
    (
        "subak.yml",
        "project: crash\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  app: { type: sqlite, path: app.db }\n  copy: { type: sqlite, path: copy.db }\n  files: { type: files, path: . }\n",
    ),
    (
        "assets/bronze/app.yml",
        "ingest:\n  from: app\n  streams:\n    users: { mode: replace }\n    events: { mode: append, cursor: at }\n    \
         orders: { primary_key: id, cursor: at, checks: [ { unique: id } ] }\n",
    ),
    (
        "assets/bronze/files.yml",
        "ingest:\n  from: files\n  streams:\n    log: { path: 'log*.csv', mode: append, on_reject: quarantine, columns: { n: integer } }\n    \
         carts: { path: carts.ndjson, primary_key: id, children: { items: { columns: { sku: text } } } }\n    \
         prices: { path: prices.csv, mode: snapshot, primary_key: sku, columns: { price: 'decimal(10,2)', at: datetime }, history: { updated_at: at, missing_rows: keep } }\n    \
         payments: { path: payments.ndjson, primary_key: id, changes: { deletes: remove }, columns: { _version: bigint } }\n",
    ),
    (
        "assets/gold/customers.sql",
        "/* subak\nstored_as: table\nsurrogate_key: { column: customer_key, of: name }\n*/\nselect u.name from bronze.users u\n",
    ),
    (
        "assets/gold/days.sql",
        "/* subak\nstored_as: incremental\nmode: merge\nunique_key: day\n*/\nselect cast(o.at as date) as day, count(*) as n from bronze.orders o group by 1\n",
    ),
    ("assets/backup/app.yml", "ingest:\n  from: app\n  to: copy\n  streams:\n    orders: { primary_key: id, cursor: at }\n"),
    (
        "assets/gold/totals.sql",
        "/* subak\nstored_as: table\n*/\nselect u.name, sum(o.amount) as amount from bronze.orders o join bronze.users u on u.id = o.user_id group by u.name\n",
    ),
    (
        "assets/gold/event_counts.sql",
        "/* subak\nstored_as: table\n*/\nselect e.what, count(*) as n from bronze.events e group by e.what\n",
    ),
    ("assets/gold/latest.sql", "select max(e.at) as newest from bronze.events e\n"),
    (
        "checks/every_order_has_a_user.sql",
        "select o.id from bronze.orders o left join bronze.users u on u.id = o.user_id where u.id is null\n",
    ),
];

/// Every table that a run makes, as a query that shows all of it in a stable order.
const TABLES: &[&str] = &[
    "select * from bronze.users order by all",
    "select * from bronze.events order by all",
    "select * from bronze.orders order by all",
    "select * from gold.totals order by all",
    "select * from gold.event_counts order by all",
    "select * from gold.latest order by all",
    "select * from bronze.log order by all",
    "select reject_id, status, reason, line from bronze.log__rejects order by all",
    "select * from bronze.carts order by all",
    "select * from bronze.carts__items order by all",
    "select * from bronze.prices order by all",
    "select * from bronze.payments order by all",
    "select * from bronze.payments__tombstones order by all",
    "select name, customer_key from gold.customers order by all",
    "select * from gold.days order by all",
    "select table_key, path, hash from _subak.files order by all",
    "select column_name, value from _subak.streams where column_name is not null order by all",
];

fn source(folder: &Path, part: u32) {
    let source = rusqlite::Connection::open(folder.join("app.db")).expect("open");
    let sql = match part {
        1 => {
            "create table users (id integer primary key, name text); create table events (at datetime, what text);
             create table orders (id integer primary key, user_id integer, amount decimal(10,2), at datetime);
             insert into users values (1, 'Ayu'), (2, 'Budi');
             insert into events values ('2025-01-01 00:00:01', 'a'), ('2025-01-01 00:00:02', 'b'), ('2025-01-01 00:00:02', 'b');
             insert into orders values (1, 1, 10.5, '2025-01-01 00:00:01'), (2, 2, 20, '2025-01-01 00:00:02');"
        }
        _ => {
            "insert into users values (3, 'Citra');
             insert into events values ('2025-01-01 00:00:02', 'tie'), ('2025-01-01 00:00:03', 'c');
             update orders set amount = 99.99, at = '2025-01-01 00:00:03' where id = 1;
             insert into orders values (3, 3, 5, '2025-01-01 00:00:03');"
        }
    };
    source.execute_batch(sql).expect("source");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect(name);
    if part == 1 {
        write("log1.csv", "n,what\n1,a\nx,b\n1,a\n");
        write("carts.ndjson", "{\"id\": 1, \"items\": [{\"sku\": \"a\"}, {\"sku\": \"b\"}]}\n{\"id\": 2, \"items\": []}\n");
        write("prices.csv", "sku,price,at\na,1.00,2025-01-01\nb,2.00,2025-01-01\n");
        write(
            "payments.ndjson",
            "{\"op\": \"c\", \"id\": 1, \"_version\": 1}\n{\"op\": \"c\", \"id\": 2, \"_version\": 1}\n{\"op\": \"d\", \"id\": 2, \"_version\": 3}\n",
        );
    } else {
        write("log2.csv", "n,what\n2,c\ny,d\n");
        write("carts.ndjson", "{\"id\": 1, \"items\": [{\"sku\": \"c\"}]}\n");
        write("prices.csv", "sku,price,at\na,1.50,2025-01-02\nc,3.00,2025-01-02\n");
        write(
            "payments.ndjson",
            "{\"op\": \"d\", \"id\": 1, \"_version\": 5}\n{\"op\": \"u\", \"id\": 2, \"_version\": 2}\n{\"op\": \"c\", \"id\": 3, \"_version\": 1}\n",
        );
    }
}

fn tables(folder: &Path) -> Vec<Vec<String>> {
    let warehouse = duckdb::Connection::open(folder.join("warehouse.duckdb")).expect("open");
    let mut all: Vec<Vec<String>> = TABLES
        .iter()
        .map(|sql| {
            let mut statement = warehouse.prepare(&format!("select (t)::varchar from ({sql}) t")).expect(sql);
            statement.query_map([], |row| row.get(0)).expect(sql).collect::<Result<_, _>>().expect(sql)
        })
        .collect();
    let stages: i64 = warehouse
        .query_row(
            "select count(*) from information_schema.tables where table_name like '\\_\\_subak\\_stage%' escape '\\'",
            [],
            |row| row.get(0),
        )
        .expect("stages");
    assert_eq!(stages, 0, "stage tables are left behind");
    let copy = rusqlite::Connection::open(folder.join("copy.db")).expect("open");
    let mut statement =
        copy.prepare("select id || ' ' || user_id || ' ' || amount || ' ' || at from backup_orders order by id").expect("copy");
    all.push(statement.query_map([], |row| row.get(0)).expect("copy").collect::<Result<_, _>>().expect("copy"));
    all
}

fn undisturbed() -> Vec<Vec<Vec<String>>> {
    let sandbox = Sandbox::new(BINARY, FILES);
    let run = |part| {
        source(sandbox.path(), part);
        sandbox.run(&["run"]).expect(0);
        tables(sandbox.path())
    };
    vec![run(1), run(2)]
}

/// FM-2: a process that dies at any of the points leaves one commit of each step.
#[test]
fn a_kill_at_every_point_loses_and_doubles_nothing() {
    let expected = undisturbed();
    assert_eq!(expected[1][1].len(), 5, "{:?}", expected[1][1]);
    for point in subak_connect::crash::POINTS {
        let sandbox = Sandbox::new(BINARY, FILES);
        for (part, expected) in [(1, &expected[0]), (2, &expected[1])] {
            source(sandbox.path(), part);
            let crash = || sandbox.command(&["run"]).env("SUBAK_CRASH_AT", point).output().expect("starts");
            let output = crash();
            assert_eq!(output.status.signal(), Some(6), "`{point}` is not passed: {}", String::from_utf8_lossy(&output.stderr));
            // Twice in a row: the second may pass the point or find nothing left to do there.
            let second = crash();
            let is_ended = second.status.signal() == Some(6) || second.status.code() == Some(0);
            assert!(is_ended, "the second at `{point}`: {}", String::from_utf8_lossy(&second.stderr));
            let again = sandbox.run(&["run"]).expect(0);
            let is_told = again.err.contains("died during run")
                || String::from_utf8_lossy(&second.stderr).contains("died during run")
                || *point == "before_finish";
            assert!(is_told, "the next command says what happened at `{point}`: {}", again.err);
            assert!(&tables(sandbox.path()) == expected, "part {part} after a kill at `{point}`: {:#?}", tables(sandbox.path()));
        }
        let runs = sandbox.run(&["run", "list", "-o", "csv"]).expect(0);
        assert!(!runs.out.contains("running"), "{}", runs.out);
    }
}

#[test]
fn a_lost_run_can_be_resumed() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(BINARY, FILES);
    source(sandbox.path(), 1);
    let output = sandbox.command(&["run"]).env("SUBAK_CRASH_AT", "after_publish").output().expect("starts");
    assert_eq!(output.status.signal(), Some(6));
    let resumed = sandbox.run(&["run", "resume"]).expect(0);
    assert!(resumed.err.contains("died during run"), "{}", resumed.err);
    let runs = sandbox.run(&["run", "list", "-o", "csv"]).expect(0);
    assert!(runs.out.contains("succeeded") && runs.out.lines().count() == 2, "one run, resumed: {}", runs.out);
    assert!(tables(sandbox.path()) == expected[0]);
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(BINARY, FILES);
    source(sandbox.path(), 1);
    // Moments spread over the length of a run, the same on every machine only in number.
    for moment in 0..12_u64 {
        let mut child = sandbox
            .command(&["run", "--full-refresh", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(std::time::Duration::from_millis(5 + moment * 15));
        drop(child.kill());
        child.wait().expect("ends");
    }
    sandbox.run(&["run"]).expect(0);
    assert!(tables(sandbox.path()) == expected[0], "{:#?}", tables(sandbox.path()));
}

#[test]
fn tables_that_are_files_are_there_whole_or_not_at_all() {
    let files: &[(&str, &str)] = &[
        (
            "subak.yml",
            "project: crash\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  files: { type: files, path: . }\n  \
             lake: { type: files, path: lake }\n",
        ),
        (
            "assets/lake/prices.yml",
            "ingest:\n  from: files\n  to: lake\n  streams:\n    prices: { path: prices.csv, checks: [ { unique: sku } ] }\n",
        ),
    ];
    let rows = |sandbox: &Sandbox| -> Option<Vec<String>> {
        let path = sandbox.path().join("lake/lake/prices.parquet");
        path.exists().then(|| {
            let reader = duckdb::Connection::open_in_memory().expect("open");
            let sql = format!("select sku || '=' || price from read_parquet('{}') order by all", path.display());
            let mut statement = reader.prepare(&sql).expect("a whole file");
            statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("rows")
        })
    };
    let (first, second) = ("sku,price\na,1\nb,2\n", "sku,price\na,1.5\nc,3\n");
    for point in subak_connect::crash::POINTS {
        let sandbox = Sandbox::new(BINARY, files);
        let (mut before, mut passed): (Option<Vec<String>>, usize) = (None, 0);
        for (text, after) in [(first, vec!["a=1", "b=2"]), (second, vec!["a=1.5", "c=3"])] {
            sandbox.write("prices.csv", text);
            let after: Vec<String> = after.into_iter().map(str::to_owned).collect();
            for _ in 0..2 {
                let output = sandbox.command(&["run"]).env("SUBAK_CRASH_AT", point).output().expect("starts");
                passed += usize::from(output.status.signal() == Some(6));
                let now = rows(&sandbox);
                assert!(now == before || now.as_ref() == Some(&after), "half a table after a kill at `{point}`: {now:?}");
            }
            sandbox.run(&["run"]).expect(0);
            assert_eq!(rows(&sandbox).as_ref(), Some(&after), "after a kill at `{point}`");
            before = Some(after);
        }
        assert!(passed >= 2, "`{point}` is not passed");
        let left: Vec<String> = std::fs::read_dir(sandbox.path().join("lake/lake"))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["prices.parquet"], "left behind after a kill at `{point}`");
    }
}
