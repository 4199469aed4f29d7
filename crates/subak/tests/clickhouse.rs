//! ClickHouse as destination, warehouse and source: Debian's old server and the newest engine behind HTTP, both of each test's own.
//! Results are read back with `curl`, not through Subak.

#[path = "support/late.rs"]
mod late;
#[path = "support/network.rs"]
mod network;
#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use std::path::Path;

use secret::set_secret;
use subak_testkit::{ClickHouse, ClickHouseVersion, MARIADB_PASSWORD, MARIADB_USER, MariaDb, Proxy, Sandbox, Table};
use warehouse::{project, read};

const VERSIONS: [ClickHouseVersion; 2] = [ClickHouseVersion::Old, ClickHouseVersion::New];

fn connection(server: &ClickHouse) -> String {
    format!("{{ type: clickhouse, url: 'http://127.0.0.1:{}' }}", server.port())
}

/// A project with a DuckDB warehouse and the server as `ch`.
fn with_server(server: &ClickHouse, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = project(files);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &format!("{config}  ch: {}\n", connection(server)));
    sandbox
}

/// The rows as lines with commas, NULL as `NULL`.
fn lines(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let line = |row: Vec<Option<String>>| {
        row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>().join(",")
    };
    rows.into_iter().map(line).collect()
}

/// Compares a query with an expected file, by the columns that the file has.
#[track_caller]
fn assert_equals(server: &ClickHouse, table: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(expected);
    let expected_table = Table::read(&path);
    let columns = expected_table.header.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let rows = server.sql(&format!("select {columns} from {table}"));
    let found = Table { header: expected_table.header.clone(), rows };
    if let Err(difference) = found.compare(&expected_table) {
        panic!("{table} is not {expected}: {difference}");
    }
}

/// Each type of the warehouse with its edges, as DuckDB's SQL, what `curl` reads from the newest engine, and the type there.
const VALUES: &[(&str, &[&str], &[&str], &str)] = &[
    ("boolean", &["true", "false"], &["true", "false"], "Nullable(Bool)"),
    ("tinyint", &["-128"], &["-128"], "Nullable(Int8)"),
    ("utinyint", &["255"], &["255"], "Nullable(UInt8)"),
    ("smallint", &["-32768"], &["-32768"], "Nullable(Int16)"),
    ("usmallint", &["65535"], &["65535"], "Nullable(UInt16)"),
    ("integer", &["-2147483648"], &["-2147483648"], "Nullable(Int32)"),
    ("uinteger", &["4294967295"], &["4294967295"], "Nullable(UInt32)"),
    ("bigint", &["-9223372036854775808"], &["-9223372036854775808"], "Nullable(Int64)"),
    ("ubigint", &["18446744073709551615"], &["18446744073709551615"], "Nullable(UInt64)"),
    ("decimal(9,2)", &["-9999999.99"], &["-9999999.99"], "Nullable(Decimal(9, 2))"),
    ("decimal(18,4)", &["99999999999999.9999", "0"], &["99999999999999.9999", "0"], "Nullable(Decimal(18, 4))"),
    (
        "decimal(38,10)",
        &["9999999999999999999999999999.9999999999"],
        &["9999999999999999999999999999.9999999999"],
        "Nullable(Decimal(38, 10))",
    ),
    ("real", &["0.1", "16777216"], &["0.1", "16777216"], "Nullable(Float32)"),
    ("double", &["1e308", "-5e-324"], &["1e308", "-5e-324"], "Nullable(Float64)"),
    (
        "varchar",
        &["''", "' x '", "'\u{1F600}e\u{301}'", "'a\\b''c'"],
        &["", " x ", "\u{1F600}e\u{301}", "a\\b'c"],
        "Nullable(String)",
    ),
    ("date", &["'1900-01-01'", "'1970-01-01'", "'2299-12-31'"], &["1900-01-01", "1970-01-01", "2299-12-31"], "Nullable(Date32)"),
    (
        "timestamp",
        &["'1900-01-01 00:00:00'", "'2024-03-31 02:30:00.000001'", "'2299-12-31 23:59:59.999999'"],
        &["1900-01-01 00:00:00.000000", "2024-03-31 02:30:00.000001", "2299-12-31 23:59:59.999999"],
        "Nullable(DateTime64(6, 'UTC'))",
    ),
];

#[test]
fn every_type_travels_exactly_there_and_back() {
    let server = ClickHouse::start(ClickHouseVersion::New);
    let sandbox = with_server(&server, &[]);
    let (mut there, mut back, mut sql) = (String::new(), String::new(), String::new());
    for (at, (kind, values, ..)) in VALUES.iter().enumerate() {
        let select: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(n, value)| format!("select {n} as n, cast({value} as {kind}) as v, cast(null as {kind}) as w"))
            .collect();
        sql.push_str(&format!("create table src.t{at} as {};\n", select.join(" union all ")));
        there.push_str(&format!("    t{at}: {{ stream: src.t{at}, mode: replace }}\n"));
        back.push_str(&format!("    t{at}: {{ stream: moved.t{at}, mode: replace }}\n"));
    }
    let database = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    database.execute_batch(&format!("create schema src; {sql}")).expect("tables");
    drop(database);
    sandbox.write("assets/moved/all.yml", &format!("ingest:\n  from: warehouse\n  to: ch\n  streams:\n{there}"));
    sandbox.run(&["run"]).expect(0);
    sandbox.write("assets/returned/all.yml", &format!("ingest:\n  from: ch\n  streams:\n{back}"));
    sandbox.run(&["run", "returned.*"]).expect(0);
    for (at, (kind, values, expect, word)) in VALUES.iter().enumerate() {
        let expect: Vec<String> = expect.iter().enumerate().map(|(n, text)| format!("{n},{text},NULL")).collect();
        assert_eq!(lines(server.sql(&format!("select n, v, w from moved.t{at} order by n"))), expect, "{kind}");
        let found =
            server.sql(&format!("select type from system.columns where database = 'moved' and table = 't{at}' and name = 'v'"));
        assert_eq!(lines(found), [(*word).to_owned()], "{kind}");
        let own = read(&sandbox, &format!("select n, v, w from src.t{at} order by n"));
        assert_eq!(own.len(), values.len(), "{kind}");
        assert_eq!(read(&sandbox, &format!("select n, v, w from returned.t{at} order by n")), own, "{kind} and back");
    }
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.out.contains("0 rows written"), "{}", again.out);
    sandbox.run(&["verify"]).expect(0);
}

#[test]
fn values_that_no_type_holds_are_refused_and_never_wrapped() {
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        let sandbox = with_server(&server, &[]);
        let stream = "ingest:\n  from: files\n  to: ch\n  streams:\n    t: { path: t.csv, mode: replace, columns: { d: date, at: datetime }, on_reject: POLICY }\n";
        sandbox.write(
            "input/t.csv",
            "d,at\n2024-02-29,2024-02-29 12:00:00\n1066-10-14,2024-01-01 00:00:00\n2024-01-01,3000-01-01 00:00:00\n",
        );
        sandbox.write("assets/raw/t.yml", &stream.replace("POLICY", "error"));
        let refused = sandbox.run(&["run"]);
        assert!(
            refused.code != Some(0) && refused.err.contains("`1066-10-14` is beyond what the table holds"),
            "{version:?}: {}",
            refused.err
        );
        assert!(refused.err.contains("t.csv:3"), "{}", refused.err);
        assert_eq!(lines(server.sql("select count() from system.tables where database = 'raw'")), ["0"]);
        sandbox.write("assets/raw/t.yml", &stream.replace("POLICY", "'null'"));
        let ran = sandbox.run(&["run"]).expect(0);
        assert_eq!(ran.err.matches("beyond what the table holds, became NULL").count(), 2, "{}", ran.err);
        let found = lines(server.sql("select toString(d), substring(toString(at), 1, 19) from raw.t order by d, at"));
        assert_eq!(found, ["2024-01-01,NULL", "2024-02-29,2024-02-29 12:00:00", "NULL,2024-01-01 00:00:00"], "{version:?}");
        sandbox.run(&["verify"]).expect(0);
        sandbox.write("assets/raw/t.yml", &stream.replace("POLICY", "quarantine"));
        sandbox.run(&["run"]).expect(0);
        assert_eq!(lines(server.sql("select count() from raw.t")), ["1"]);
        assert_eq!(lines(server.sql("select line from raw.t__rejects order by line")), ["3", "4"]);
        sandbox.write("input/t.csv", "d,at\n2024-02-29,2024-02-29 12:00:00.5\n");
        let ran = sandbox.run(&["run"]);
        match version {
            ClickHouseVersion::New => assert_eq!(ran.code, Some(0), "{}", ran.err),
            ClickHouseVersion::Old => assert!(ran.err.contains("no type for fractions of a second"), "{}", ran.err),
        }
    }
}

fn relational(how: &str) -> String {
    format!(
        "ingest:
  from: app
  to: ch
  streams:
    fact_sales:
      stream: transactions
      {how}
      derive:
        amount_category: {{ categorize: amount, bands: {{ High Value: 100000, Medium Value: 50000 }}, else: Low Value }}
        transaction_date: cast(transaction_time as date)
      filter: status = 'SUCCESS'
    dim_users: {{ stream: users, primary_key: user_id, cursor: updated_at }}
    dim_merchants: {{ stream: merchants, primary_key: merchant_id, cursor: updated_at }}
"
    )
}

/// MariaDB to ClickHouse in increments, with the crash of run 4 at every point where it could matter.
#[test]
fn a_relational_source_in_steps_reaches_both_engines() {
    let source = MariaDb::start();
    let variants = [
        (
            "watermark_transaction_time",
            "mode: append\n      cursor: { column: transaction_time, lower: open, until: run, upper: closed }",
            ["before_publish", "inside_publish"],
        ),
        (
            "watermark_updated_at_delete",
            "primary_key: transaction_id\n      cursor: updated_at",
            ["inside_publish", "after_publish"],
        ),
        (
            "watermark_updated_at_keep",
            "primary_key: transaction_id\n      cursor: updated_at\n      on_filter_exit: keep",
            ["rows_staged", "after_publish"],
        ),
        ("source_truth", "mode: replace", ["inside_publish", "batch_staged"]),
    ];
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        for (variant, how, crashes) in variants {
            for name in ["bronze", "_subak"] {
                server.sql(&format!("drop database if exists {name}"));
            }
            source.sql("drop database subak; create database subak character set utf8mb4");
            let sandbox = with_server(&server, &[("assets/bronze/app.yml", &relational(how))]);
            let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
            let app = format!(
                "{{ type: mysql, host: 127.0.0.1, port: {}, database: subak, user: {MARIADB_USER}, password: \"${{secret:app}}\" }}",
                source.port()
            );
            sandbox.write("subak.yml", &config.replace("{ type: sqlite, path: app.db }", &app));
            set_secret(&sandbox, "app", MARIADB_PASSWORD);
            let apply = |script: &str| {
                source.script(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/s001_mysql_elt/input").join(script));
            };
            let expect = |run: u32| {
                assert_equals(&server, "bronze.fact_sales", &format!("s001_mysql_elt/expected/after_run{run}_{variant}.csv"));
            };
            apply("step1_initial.sql");
            sandbox.run(&["run", "--as-of", "2025-01-05 12:00:00"]).expect(0);
            expect(1);
            apply("step2_changes.sql");
            sandbox.run(&["run", "--as-of", "2025-01-09 12:00:00"]).expect(0);
            expect(2);
            let again = sandbox.run(&["run", "--as-of", "2025-01-09 12:00:00"]).expect(0);
            assert!(again.out.contains("0 rows written"), "{version:?} {variant}: {}", again.out);
            expect(3);
            apply("step3_more.sql");
            for crash_at in crashes {
                let mut command = sandbox.command(&["run", "bronze.fact_sales", "--as-of", "2025-01-13 00:00:00"]);
                let died = sandbox.finish(command.env("SUBAK_CRASH_AT", crash_at));
                assert_ne!(died.code, Some(0), "{version:?} {variant}: the crash of run 4 at {crash_at}");
            }
            sandbox.run(&["run", "--as-of", "2025-01-13 00:00:00"]).expect(0);
            expect(5);
            assert_equals(&server, "bronze.dim_users", "s001_mysql_elt/expected/dim_users_current.csv");
            assert_equals(&server, "bronze.dim_merchants", "s001_mysql_elt/expected/dim_merchants_current.csv");
            sandbox.run(&["run", "--full-refresh", "--as-of", "2025-01-13 00:00:00"]).expect(0);
            expect(6);
            sandbox.run(&["verify"]).expect(0);
            let left = server.sql("select count() from system.tables where name like '\\_\\_subak\\_stage%'");
            assert_eq!(lines(left), ["0"], "{version:?} {variant}: tables of loads that died");
        }
    }
}

#[test]
fn days_are_replaced_by_themselves() {
    let server = ClickHouse::start(ClickHouseVersion::Old);
    let raw = "ingest:\n  from: files\n  to: ch\n  streams:\n    raw: { path: raw.csv, mode: replace, columns: { at: datetime, amount: bigint } }\n";
    let daily = "/* subak\non: ch\npartition: { daily: day_at, start: 2024-01-01 }\n*/\nselect r.at as day_at, sum(r.amount) as amount from loads.raw as r \
                 where r.at >= toDateTime({{ partition.start }} || ' 00:00:00', 'UTC') and r.at < toDateTime({{ partition.end }} || ' 00:00:00', 'UTC') group by r.at\n";
    let sandbox = with_server(&server, &[("assets/loads/raw.yml", raw), ("assets/loads/daily.sql", daily)]);
    sandbox.write("input/raw.csv", "at,amount\n2024-01-01 00:00:00,1\n2024-01-01 23:59:59,2\n2024-01-02 00:00:00,4\n");
    sandbox.run(&["run", "--as-of", "2024-01-03"]).expect(0);
    let amounts = || lines(server.sql("select amount from loads.daily order by day_at"));
    assert_eq!(amounts(), ["1", "2", "4"]);
    sandbox.write("input/raw.csv", "at,amount\n2024-01-01 23:59:59,2\n2024-01-02 00:00:00,9\n");
    sandbox.run(&["run", "loads.raw", "--as-of", "2024-01-03"]).expect(0);
    sandbox.run(&["run", "loads.daily", "--partition", "2024-01-01", "--as-of", "2024-01-03"]).expect(0);
    assert_eq!(amounts(), ["2", "4"]);
}

#[test]
fn a_column_that_comes_late_doubles_no_rows() {
    let server = ClickHouse::start(ClickHouseVersion::Old);
    for point in ["columns_added", "inside_publish"] {
        for name in ["loads", "_subak"] {
            server.sql(&format!("drop database if exists {name}"));
        }
        let sandbox = with_server(&server, &[("assets/loads/all.yml", &late::asset("ch"))]);
        late::doubles_no_rows(&sandbox, point, || lines(server.sql("select * from loads.events")));
    }
}

/// The changes of a table as events, into a table that keeps versions of its rows.
#[test]
fn change_events_reach_both_engines() {
    let events = "ingest:
  from: files
  to: ch
  streams:
    cdc_transactions:
      path: cdc_events_*.json
      mode: merge
      read: new
      primary_key: transaction_id
      changes: {}
      on_reject: quarantine
      columns: { amount: 'decimal(10,2)', transaction_time: datetime }
";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/s001_cdc/input");
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        let sandbox = with_server(&server, &[("assets/bronze/cdc.yml", events)]);
        std::fs::create_dir_all(sandbox.path().join("input")).expect("folder");
        for file in 1..=3 {
            let name = format!("cdc_events_{file}.json");
            std::fs::copy(folder.join(&name), sandbox.path().join("input").join(&name)).expect("copied");
            for crash_at in ["inside_publish", "rows_staged"].iter().filter(|_| file == 2) {
                let died = sandbox.finish(sandbox.command(&["run"]).env("SUBAK_CRASH_AT", crash_at));
                assert_ne!(died.code, Some(0), "{crash_at}");
            }
            let ran = sandbox.run(&["run"]);
            assert_eq!(ran.code, Some(0), "{version:?} {name}: {}", ran.err);
            let expected = |view: &str| format!("s001_cdc/expected/after_file{file}_{view}.csv");
            assert_equals(&server, "bronze.cdc_transactions", &expected("latest_with_tombstones"));
            assert_equals(&server, "bronze.cdc_transactions__live", &expected("live"));
        }
        let dead = Table::read(&folder.join("../expected/dead_letters.csv"));
        let rejects = server.sql("select file, line - 1 from bronze.cdc_transactions__rejects order by file, line");
        let place = |row: &Vec<Option<String>>| {
            let file = row[0].as_deref().and_then(|file| file.rsplit('/').next()).map(str::to_owned);
            vec![file, row[1].clone()]
        };
        let found: Vec<_> = rejects.iter().map(place).collect();
        assert_eq!(found, dead.rows.iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>(), "{version:?}");
        let engine = server.sql("select engine from system.tables where database = 'bronze' and name = 'cdc_transactions__rows'");
        assert_eq!(lines(engine), ["ReplacingMergeTree"]);
    }
}

/// More days than a server takes in one insert by itself, into a table that is divided by day.
#[test]
fn many_days_arrive_in_one_load() {
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        let stream = "ingest:\n  from: files\n  to: ch\n  streams:\n    days: { path: days.csv, mode: append, cursor: { column: id }, columns: { id: bigint, d: date }, layout: { partition_by: toYYYYMMDD(d), order_by: [d, id] } }\n    \
                      kept: { path: days.csv, primary_key: id, columns: { id: bigint, d: date } }\n";
        let sandbox = with_server(&server, &[("assets/raw/days.yml", stream)]);
        let rows = |count: i32| {
            (0..count).fold("id,d\n".to_owned(), |text, day| {
                let date = jiff::civil::date(2024, 1, 1).checked_add(jiff::Span::new().days(day)).expect("a date");
                text + &format!("{day},{date}\n")
            })
        };
        sandbox.write("input/days.csv", &rows(150));
        sandbox.run(&["run"]).expect(0);
        let facts = "select count(), uniqExact(toYYYYMMDD(d)), sum(id) from raw";
        for table in ["days", "kept"] {
            assert_eq!(lines(server.sql(&format!("{facts}.{table}"))), ["150,150,11175"], "{version:?} {table}");
        }
        // As many new ones are attached to what is there, all of a day at once.
        sandbox.write("input/days.csv", &rows(300));
        let mut command = sandbox.command(&["run", "raw.days"]);
        drop(sandbox.finish(command.env("SUBAK_CRASH_AT", "inside_publish")));
        sandbox.run(&["run"]).expect(0);
        for table in ["days", "kept"] {
            assert_eq!(lines(server.sql(&format!("{facts}.{table}"))), ["300,300,44850"], "{version:?} {table}");
        }
        assert_eq!(
            lines(server.sql("select count() from system.parts where database = 'raw' and table = 'days' and active")),
            ["300"]
        );
        let again = sandbox.run(&["run"]).expect(0);
        assert!(again.out.contains("0 rows written"), "{}", again.out);
    }
}

const SALES: &[(&str, &str)] = &[
    (
        "assets/bronze/t.yml",
        "ingest:\n  from: files\n  to: ch\n  streams:\n    sales: { path: sales.csv, primary_key: id, columns: { id: bigint, amount: 'decimal(18,2)', country: text } }\n",
    ),
    (
        "assets/gold/per_country.sql",
        "/* subak\non: ch\nstored_as: table\nlayout: { engine: MergeTree, order_by: country }\nchecks:\n  - unique: country\n  - not_null: country\n  - { accepted_values: { column: country, values: [ID, DE, FR] } }\n  - { range: { column: total, min: 0 } }\n  - { pattern: { column: country, matches: '[A-Z]{2}' } }\n  - { relationships: { column: country, to: gold.countries.country } }\n  - { row_count: { min: 1 } }\n*/\nselect country, sum(amount) as total, count() as sales from bronze.sales group by country\n",
    ),
    (
        "assets/gold/countries.sql",
        "/* subak\non: ch\nstored_as: table\nsurrogate_key: { column: country_key, of: country }\n*/\nselect distinct country from bronze.sales\n",
    ),
    ("assets/gold/big.sql", "/* subak\non: ch\nstored_as: view\n*/\nselect * from bronze.sales where amount > 15\n"),
    (
        "assets/gold/history.sql",
        "/* subak\non: ch\nstored_as: snapshot\nunique_key: id\n*/\nselect id, amount from bronze.sales\n",
    ),
    (
        "assets/gold/added.sql",
        "/* subak\non: ch\nstored_as: incremental\nunique_key: id\n*/\nselect id, amount * 2 as doubled from bronze.sales\n",
    ),
];

#[test]
fn sql_assets_are_built_with_checks_and_keys() {
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        let sandbox = with_server(&server, SALES);
        sandbox.write("input/sales.csv", "id,amount,country\n1,10.50,ID\n2,20.00,DE\n3,5.25,ID\n");
        let ran = sandbox.run(&["run"]);
        assert_eq!(ran.code, Some(0), "{version:?}: {}", ran.err);
        assert_eq!(
            lines(server.sql("select country, total, sales from gold.per_country order by country")),
            ["DE,20.00,1", "ID,15.75,2"].map(|line| if version == ClickHouseVersion::New {
                line.replace("20.00", "20")
            } else {
                line.to_owned()
            })
        );
        assert_eq!(
            lines(server.sql("select country_key, country from gold.countries order by country_key")),
            ["-1,NULL", "1,DE", "2,ID"]
        );
        sandbox.write("input/sales.csv", "id,amount,country\n1,11.50,ID\n2,20.00,DE\n3,5.25,ID\n4,30.00,FR\n5,1.00,AT\n");
        let refused = sandbox.run(&["run"]);
        assert_ne!(refused.code, Some(0), "{version:?}: a country that is not accepted");
        assert!(refused.err.contains("AT"), "{}", refused.err);
        assert_eq!(lines(server.sql("select count() from gold.per_country")), ["2"], "readers keep what they had");
        assert_eq!(
            lines(server.sql("select country_key, country from gold.countries order by country_key")),
            ["-1,NULL", "1,DE", "2,ID", "3,AT", "4,FR"]
        );
        assert_eq!(
            lines(server.sql("select count(), countIf(valid_to is null) from gold.history")),
            ["6,5"],
            "{version:?} {}",
            refused.err
        );
        assert_eq!(
            lines(server.sql("select count(), sum(doubled) from gold.added"))[0].split(',').next(),
            Some("5"),
            "{version:?} {}",
            refused.err
        );
        let found = sandbox.run(&["query", "--on", "ch", "select count() as n from gold.big", "-o", "csv"]).expect(0);
        assert_eq!(found.out.trim(), "n\n2");
        sandbox.write("assets/back/part.yml", "ingest:\n  from: ch\n  to: warehouse\n  streams:\n    part: { stream: bronze.sales, where: amount > 15, mode: replace }\n    total: { sql: 'select sum(amount) as total from bronze.sales', mode: replace }\n");
        sandbox.run(&["run", "back.*"]).expect(0);
        assert_eq!(read(&sandbox, "select count(*), any_value(t.total) from back.part, back.total as t"), ["2,67.75"]);
        let refused = sandbox.run(&["query", "--on", "ch", "drop table gold.added"]);
        assert_ne!(refused.code, Some(0), "queries change nothing");
    }
}

#[test]
fn errors_say_what_to_do() {
    let mut server = ClickHouse::start(ClickHouseVersion::Old);
    server.sql("create table default.t (id Int64) engine = MergeTree order by id");
    let stream = |name: &str| format!("ingest:\n  from: ch\n  streams:\n    t: {{ stream: {name}, mode: replace }}\n");
    let sandbox = with_server(&server, &[("assets/bronze/t.yml", &stream("default.nowhere"))]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let fails = |words: &[&str]| {
        let failed = sandbox.run(&["run"]);
        assert_ne!(failed.code, Some(0), "{words:?}");
        for word in words {
            assert!(failed.err.contains(word), "{word}: {}", failed.err);
        }
        assert!(!failed.err.contains("wrong-password"), "{}", failed.err);
    };
    fails(&["there is no stream `default.nowhere`"]);
    let with =
        |more: &str| sandbox.write("subak.yml", &config.replace("type: clickhouse,", &format!("type: clickhouse, {more},")));
    set_secret(&sandbox, "ch", "wrong-password");
    with("user: clerk, password: \"${secret:ch}\"");
    fails(&["cannot connect to 127.0.0.1", "correct `user:` and `password:`"]);
    with("database: nothing");
    fails(&["there is no database `nothing`", "correct `database:`"]);
    sandbox.write("subak.yml", &config.replace("http://127.0.0.1", "http://no.such.host.invalid"));
    fails(&["cannot connect to no.such.host.invalid", "is the server running"]);
    sandbox.write("subak.yml", &config.replace("http://", "https://"));
    fails(&["cannot connect to 127.0.0.1"]);
    sandbox.write("subak.yml", &config.replace("http://", "ftp://"));
    fails(&["is no URL of a server", "write `url: http://host:8123`"]);
    sandbox.write("subak.yml", &config);
    sandbox.write("assets/bronze/t.yml", "ingest:\n  from: files\n  to: ch\n  streams:\n    t: { path: t.csv, mode: replace }\n");
    sandbox.write("input/t.csv", "id\n1\n");
    sandbox.run(&["run"]).expect(0);
    server.kill();
    sandbox.write("input/t.csv", "id\n1\n2\n");
    fails(&["cannot connect to 127.0.0.1"]);
    server.resume();
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.sql("select count() from bronze.t")), ["2"]);
}

/// The tables of the example's application as a script for another database.
fn dump(file: &Path) -> String {
    let app = rusqlite::Connection::open(file).expect("open");
    let mut sql = String::from("drop database subak; create database subak character set utf8mb4; use subak;\n");
    for table in ["users", "merchants", "transactions"] {
        let schema: String =
            app.query_row("select sql from sqlite_schema where name = ?", [table], |row| row.get(0)).expect("a schema");
        sql.push_str(&format!("{schema};\n"));
        let mut statement = app.prepare(&format!("select * from {table}")).expect("rows");
        let width = statement.column_count();
        let mut rows = statement.query([]).expect("rows");
        let mut values = Vec::new();
        while let Some(row) = rows.next().expect("a row") {
            let cell = |at: usize| match row.get_ref(at).expect("a cell") {
                rusqlite::types::ValueRef::Null => "null".to_owned(),
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                rusqlite::types::ValueRef::Real(number) => number.to_string(),
                other => format!("'{}'", other.as_str().expect("a text").replace('\'', "''")),
            };
            values.push(format!("({})", (0..width).map(cell).collect::<Vec<_>>().join(", ")));
        }
        for values in values.chunks(500) {
            sql.push_str(&format!("insert into {table} values {};\n", values.join(", ")));
        }
    }
    sql
}

/// The example with one other profile: MariaDB instead of SQLite, ClickHouse instead of DuckDB, and the same tables.
#[test]
fn the_ewallet_example_runs_on_servers() {
    let (source, server) = (MariaDb::start(), ClickHouse::start(ClickHouseVersion::New));
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_subak"), &[]);
    sandbox.run(&["demo", "demo", "--transactions", "2000", "--quiet"]).expect(0);
    source.sql(&dump(&sandbox.path().join("demo/data/app.db")));
    // Another machine: the project and its files, and nothing that is known here.
    let production = Sandbox::new(env!("CARGO_BIN_EXE_subak"), &[]);
    production.copy(&sandbox.path().join("demo"), "project");
    std::fs::remove_dir_all(production.path().join("project/.subak")).expect("the state");
    std::fs::remove_file(production.path().join("project/data/app.db")).expect("the database");
    let run = |arguments: &[&str]| {
        let arguments = [&["-C", "project", "--profile", "prod"], arguments].concat();
        let mut command = production.command(&arguments);
        command.env("EWALLET_APP_PORT", source.port().to_string()).env("EWALLET_APP_DATABASE", "subak");
        command.env("EWALLET_APP_USER", MARIADB_USER).env("EWALLET_APP_PASSWORD", MARIADB_PASSWORD);
        command.env("EWALLET_WAREHOUSE_URL", format!("http://127.0.0.1:{}", server.port()));
        production.finish(&mut command)
    };
    let ran = run(&["run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let warehouse = duckdb::Connection::open(sandbox.path().join("demo/warehouse.duckdb")).expect("open");
    for (table, columns) in [
        (
            "silver.transactions",
            "transaction_id, user_id, merchant_id, toString(amount), amount_category, device_type, promo_code, transaction_date",
        ),
        (
            "gold.fact_sales",
            "transaction_id, user_key, merchant_key, toString(amount), amount_category, device_type, promo_code, transaction_date",
        ),
        ("gold.dim_users", "user_key, user_id, full_name, email, member_since"),
        ("gold.dim_merchants", "merchant_key, merchant_id, merchant_name, category"),
        ("gold.daily_spending_per_user", "transaction_date, user_id, full_name, toString(total_amount), transaction_count"),
        ("gold.transactions_per_merchant", "merchant_id, merchant_name, category, transaction_count, round(average_amount, 1)"),
        ("bronze.payouts", "payout_id, merchant, toString(amount), size"),
    ] {
        let mut found =
            lines(server.sql(&format!("select {columns} from {table} settings output_format_decimal_trailing_zeros = 1")));
        let own = columns.replace("toString(amount)", "amount").replace("toString(total_amount)", "total_amount");
        let mut statement =
            warehouse.prepare(&format!("select columns(*)::varchar from (select {own} from {table})")).expect(table);
        let mut rows = statement.query([]).expect(table);
        let mut expect = Vec::new();
        while let Some(row) = rows.next().expect(table) {
            let width = row.as_ref().column_count();
            let cell = |at: usize| row.get::<_, Option<String>>(at).expect("text").unwrap_or_else(|| "NULL".to_owned());
            expect.push((0..width).map(cell).collect::<Vec<_>>().join(","));
        }
        // One writes `20`, the other `20.00`, and both mean it.
        let plain = |line: &String| {
            line.split(',')
                .map(|cell| cell.parse::<f64>().map_or_else(|_| cell.to_owned(), |number| number.to_string()))
                .collect::<Vec<_>>()
                .join(",")
        };
        let mut expect: Vec<String> = expect.iter().map(plain).collect();
        found = found.iter().map(plain).collect();
        expect.sort();
        found.sort();
        let differing = found.iter().zip(&expect).find(|(found, expect)| found != expect);
        assert!(!expect.is_empty() && found == expect, "{table}: {} rows, {} expected, {differing:?}", found.len(), expect.len());
    }
    let again = run(&["run"]).expect(0);
    assert!(again.out.contains("0 rows written") || again.out.contains("nothing"), "{}", again.out);
    let verified = run(&["verify"]);
    assert_eq!(verified.code, Some(0), "{} {}", verified.out, verified.err);
}

/// What a review found: modes that change, columns with defaults, names that are taken, NULLs where there can be none.
#[test]
fn tables_of_others_and_modes_that_change_lose_nothing() {
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        server.sql("create database raw");
        server.sql("create table raw.own (id Int64, note String, made_at DateTime default toDateTime('2024-01-01 00:00:00'), twice Int64 materialized id * 2) engine = MergeTree order by id");
        server.sql("insert into raw.own (id, note) values (1, 'a')");
        let sandbox = with_server(&server, &[]);
        let stream = |how: &str| format!("ingest:\n  from: files\n  to: ch\n  streams:\n    {how}\n");
        let run = |asset: &str, rows: &str, how: &str| {
            sandbox.write("assets/raw/t.yml", &stream(how));
            sandbox.write(&format!("input/{asset}.csv"), rows);
            sandbox.run(&["run", &format!("raw.{asset}")])
        };
        // Attached rows get what the table computes, and a NULL is no default.
        let append = "own: { path: own.csv, mode: append, read: all, columns: { id: bigint } }";
        run("own", "id,note\n2,b\n", append).expect(0);
        assert_eq!(
            lines(server.sql("select id, note, toYear(made_at), twice from raw.own order by id")),
            ["1,a,2024,2", "2,b,2024,4"],
            "{version:?}"
        );
        assert_ne!(run("own", "id,note\n3,\n", append).code, Some(0), "{version:?}: a note without a value");
        assert_eq!(lines(server.sql("select count() from raw.own")), ["2"]);
        // A table with several rows of a key is not merged into; one that was merged into takes rows with equal keys once it is added to.
        run("log", "id,note\n1,a\n1,b\n", "log: { path: log.csv, mode: append, read: all, columns: { id: bigint } }").expect(0);
        let refused = run("log", "id,note\n1,c\n", "log: { path: log.csv, primary_key: id, columns: { id: bigint } }");
        assert!(refused.code != Some(0) && refused.err.contains("several rows with one key"), "{version:?}: {}", refused.err);
        run("kept", "id,note\n1,a\n2,b\n", "kept: { path: kept.csv, primary_key: id, columns: { id: bigint } }").expect(0);
        run("kept", "id,note\n2,c\n2,d\n", "kept: { path: kept.csv, mode: append, read: all, columns: { id: bigint } }")
            .expect(0);
        assert_eq!(
            lines(server.sql("select id, note from raw.kept order by id, note")),
            ["1,a", "2,b", "2,c", "2,d"],
            "{version:?}"
        );
        run("kept", "id,note\n1,z\n", "kept: { path: kept.csv, mode: delete_insert, primary_key: id, columns: { id: bigint } }")
            .expect(0);
        assert_eq!(
            lines(server.sql("select id, note from raw.kept order by id, note")),
            ["1,z", "2,b", "2,c", "2,d"],
            "{version:?}"
        );
        let refused = run("x__rows", "id\n1\n", "x__rows: { path: x__rows.csv, mode: replace }");
        assert!(refused.code != Some(0) && refused.err.contains("a name that belongs to Subak"), "{}", refused.err);
        // The layout of the guide, and one that takes no NULL.
        let laid = "laid: { path: laid.csv, mode: replace, columns: { id: bigint, at: datetime }, layout: { order_by: [at, id], partition_by: toYYYYMM(at), ttl: toDate(at) + interval 100 year } }";
        // The old server knows no time to live.
        let laid = &if version == ClickHouseVersion::Old {
            laid.replace(", ttl: toDate(at) + interval 100 year", "")
        } else {
            laid.to_owned()
        };
        run("laid", "id,at\n1,2024-01-01 00:00:00\n", laid).expect(0);
        let refused = run("laid", "id,at\n1,\n", laid);
        assert!(refused.code != Some(0) && refused.err.contains("some rows have no value there"), "{}", refused.err);
        assert_eq!(lines(server.sql("select count() from raw.laid")), ["1"], "{version:?}");
    }
}

/// A load that was cut off and cannot be finished yet keeps what it prepared, whatever else runs meanwhile.
#[test]
fn what_cannot_be_finished_yet_is_not_swept_away() {
    for version in VERSIONS {
        let server = ClickHouse::start(version);
        let streams = "ingest:\n  from: files\n  to: ch\n  streams:\n    t: { path: t.csv, mode: append, columns: { id: bigint }, on_reject: quarantine }\n    \
                       other: { path: other.csv, mode: replace }\n";
        let sandbox = with_server(&server, &[("assets/raw/all.yml", streams)]);
        sandbox.write("input/t.csv", "id\n1\nx\n2\n");
        sandbox.write("input/other.csv", "id\n1\n");
        drop(sandbox.finish(sandbox.command(&["run", "raw.t"]).env("SUBAK_CRASH_AT", "inside_publish")));
        // Something stands where the rejects belong, so the load cannot be finished.
        server.sql("create table raw.t__rejects (nothing UInt8) engine = MergeTree order by tuple()");
        sandbox.run(&["run", "raw.other"]).expect(0);
        assert_ne!(sandbox.run(&["run", "raw.t"]).code, Some(0), "{version:?}: it still cannot be finished");
        server.sql("drop table raw.t__rejects");
        sandbox.run(&["run"]).expect(0);
        assert_eq!(lines(server.sql("select id from raw.t order by id")), ["1", "2"], "{version:?}");
        assert_eq!(lines(server.sql("select value from raw.t__rejects")), ["x"], "{version:?}: the refused row");
    }
}

/// The network is cut behind what the product sends, at one place after the other: what the server did is done, and nobody hears of it.
/// There are no transactions here, so every step of a load must bear it.
fn survives(step: usize, defaults: &str, happen: impl Fn(&Proxy, usize)) {
    let server = ClickHouse::start(ClickHouseVersion::Old);
    let proxy = Proxy::start(server.port());
    let prepare = |piece| {
        let streams = |first: &str| {
            format!(
                "ingest:\n  from: files\n  to: ch\n  defaults: {{ columns: {{ id: bigint }}, {defaults} }}\n  streams:\n    \
                 merged: {{ path: {first}, primary_key: id }}\n    replaced: {{ path: {first}, mode: replace }}\n    \
                 added: {{ path: 'rows*.csv', mode: append, on_reject: quarantine }}\n"
            )
        };
        let file = format!("assets/s{piece}/all.yml");
        let sandbox = with_server(&server, &[(&file, &streams("rows.csv"))]);
        sandbox.write("input/rows.csv", "id,note\n1,a\n2,b\n");
        sandbox.run(&["run"]).expect(0);
        let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
        sandbox.write("subak.yml", &config.replace(&server.port().to_string(), &proxy.port().to_string()));
        sandbox.write("input/rows1.csv", "id,note\n1,A\n3,c\n");
        sandbox.write("input/rows2.csv", "id,note\n9,z\nx,bad\n");
        sandbox.write(&file, &streams("rows1.csv"));
        sandbox
    };
    let found = |_: &Sandbox, piece| {
        let tables = ["merged", "replaced", "added"];
        let rows = |table: &&str| lines(server.sql(&format!("select id, note from s{piece}.{table} order by id, note")));
        let mut found: Vec<String> = tables.iter().flat_map(rows).collect();
        found.extend(lines(server.sql(&format!("select reason, line from s{piece}.added__rejects"))));
        found
    };
    let count = network::survives(&proxy, step, happen, prepare, found);
    assert!(count > 60, "a run has many pieces: {count}");
}

#[test]
fn answers_that_are_lost_lose_and_double_nothing() {
    // Every eleventh piece; which ones they are moves with whatever a run sends.
    survives(11, "retry: { delay_first: 10ms }", Proxy::cut_after);
}

#[test]
fn a_network_that_goes_silent_loses_and_doubles_nothing() {
    survives(41, "timeout: 5s, retry: { attempts_max: 3, delay_first: 10ms }", Proxy::hold_after);
}

#[test]
fn rows_may_be_compressed_on_their_way() {
    let ingest = "ingest:\n  from: app\n  to: ch\n  streams:\n    t: { primary_key: id }\n";
    for (version, compression) in
        [(ClickHouseVersion::Old, "gzip"), (ClickHouseVersion::New, "gzip"), (ClickHouseVersion::New, "zstd")]
    {
        let server = ClickHouse::start(version);
        let sandbox = with_server(&server, &[("assets/loads/app.yml", ingest)]);
        let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
        sandbox.write("subak.yml", &config.replace("type: clickhouse", &format!("type: clickhouse, compression: {compression}")));
        let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
        let rows = "create table t (id integer primary key, note text); with recursive n(i) as (select 1 union all select i + 1 from n where i < 70000) \
                    insert into t select i, 'note ' || i from n";
        source.execute_batch(rows).expect("rows");
        sandbox.run(&["run"]).expect(0);
        source.execute_batch("update t set note = 'new' where id = 7; insert into t values (70001, 'last')").expect("rows");
        sandbox.run(&["run"]).expect(0);
        let found = lines(server.sql("select count(), sum(id), sum(length(note)), countIf(note = 'new') from loads.t"));
        assert_eq!(found, ["70001,2450105001,688895,1"], "{version:?} {compression}");
    }
    let server = ClickHouse::start(ClickHouseVersion::Old);
    let sandbox = with_server(&server, &[("assets/loads/app.yml", ingest)]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("type: clickhouse", "type: clickhouse, compression: zstd"));
    let old = sandbox.run(&["run"]);
    assert!(old.code == Some(1) && old.err.contains("takes no `compression: zstd`"), "{}", old.err);
}
