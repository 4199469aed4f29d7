//! Exact data from the command line: refusals and their replay, incremental assets, histories, checks, unit tests, verification,
//! cursors at their edges, files that come again.

mod support;

use support::change::{app, execute};
use support::warehouse::{project, read};

const ORDERS: &str = "ingest:
  from: files
  streams:
    orders:
      path: orders*.csv
      primary_key: id
      on_reject: quarantine
      columns: { id: bigint, amount: 'decimal(10,2)', day: date }
";

#[test]
fn refused_rows_wait_until_somebody_decides() {
    let sandbox = project(&[
        ("assets/bronze/files.yml", ORDERS),
        (
            "input/orders.csv",
            "id,amount,day\n1,10.00,2025-01-01\n2,\"1,5\",2025-01-02\nx,1,2025-01-03\n4,1,2,3\n5,7.50,2025-02-30\n",
        ),
    ]);
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("read 5, written 1, rejected 4, filtered 0"), "{}", ran.err);
    assert!(ran.err.contains("subak quarantine show bronze.orders"), "{}", ran.err);
    assert_eq!(read(&sandbox, "from bronze.orders"), ["1,10.00,2025-01-01"]);
    let listed = sandbox.run(&["quarantine", "list", "-o", "csv"]).expect(0);
    assert!(listed.out.contains("bronze.orders,4,0,0,bronze.orders__rejects"), "{}", listed.out);
    let shown = sandbox.run(&["quarantine", "show", "bronze.orders", "-o", "json"]).expect(0);
    for words in
        ["orders.csv:3", "`1,5` is not decimal(10,2)", "the record has 4 fields where 3 are expected", "`2025-02-30` is not date"]
    {
        assert!(shown.out.contains(words), "{words}: {}", shown.out);
    }
    let rejects: serde_json::Value = serde_json::from_str(&shown.out).expect("json");
    let id = |place: &str| {
        let row = rejects["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .find(|row| row["place"].as_str().is_some_and(|at| at.ends_with(place)));
        row.and_then(|row| row["id"].as_str()).expect(place).to_owned()
    };
    // Loaded after all, with another value; what cannot be taken apart says so; what still does not fit stays.
    sandbox.run(&["quarantine", "replay", "bronze.orders", &id(":3"), "--set", "amount=1.5"]).expect(0);
    assert_eq!(read(&sandbox, "from bronze.orders order by id"), ["1,10.00,2025-01-01", "2,1.50,2025-01-02"]);
    let broken = sandbox.run(&["quarantine", "replay", "bronze.orders", &id(":5")]).expect(1);
    assert!(broken.err.contains("could not be taken apart"), "{}", broken.err);
    let still = sandbox.run(&["quarantine", "replay", "bronze.orders", &id(":6")]).expect(0);
    assert!(still.err.contains("still refused") && still.err.contains("2025-02-30"), "{}", still.err);
    sandbox.run(&["quarantine", "discard", "bronze.orders", &id(":4")]).expect(0);
    let counts = sandbox.run(&["quarantine", "list", "-o", "csv"]).expect(0);
    assert!(counts.out.contains("bronze.orders,2,1,1,"), "{}", counts.out);
    // The same file again: what was decided stays decided, and nothing is entered twice.
    sandbox.run(&["run"]).expect(0);
    let counts = sandbox.run(&["quarantine", "list", "-o", "csv"]).expect(0);
    assert!(counts.out.contains("bronze.orders,2,1,1,"), "{}", counts.out);
    for (arguments, words) in [
        (&["quarantine", "replay", "bronze.orders", "nothing"][..], "there is no open reject"),
        (&["quarantine", "show", "bronze.order"], "did you mean `bronze.orders`?"),
        (&["quarantine", "discard", "bronze.orders"], "required"),
    ] {
        let refused = sandbox.run(arguments).expect(2);
        assert!(refused.err.contains(words), "{arguments:?}: {}", refused.err);
    }
}

#[test]
fn too_many_refusals_publish_nothing() {
    let sandbox = project(&[
        ("assets/bronze/files.yml", &ORDERS.replace("on_reject: quarantine", "on_reject: quarantine\n      rejects_max: 30%")),
        ("input/orders.csv", "id,amount,day\n1,1,2025-01-01\n2,x,2025-01-01\n"),
    ]);
    let failed = sandbox.run(&["run"]).expect(1);
    for words in
        ["SBK0322", "1 of 2 rows were refused, and `rejects_max` is 30 %", "orders.csv:3", "nothing of this step was published"]
    {
        assert!(failed.err.contains(words), "{words}: {}", failed.err);
    }
    let counts = sandbox.run(&["quarantine", "list"]).expect(0);
    assert!(counts.err.contains("no row was refused"), "{}", counts.err);
}

#[test]
fn values_that_do_not_fit_are_counted_or_kept_as_text() {
    for (policy, expect, words) in [
        ("null", "1,NULL", "1 values of amount: not decimal(10,2), became NULL; first at [DIR]/input/a.csv:2"),
        ("text", "1,NULL,abc", "1 values of amount: not decimal(10,2), kept as text"),
    ] {
        let stream = format!(
            "ingest: {{ from: files, streams: {{ a: {{ path: a.csv, columns: {{ amount: {{ type: 'decimal(10,2)', on_reject: {policy} }} }} }} }} }}\n"
        );
        let sandbox = project(&[("assets/bronze/files.yml", &stream), ("input/a.csv", "id,amount\n1,abc\n")]);
        let ran = sandbox.run(&["run"]).expect(0);
        assert!(ran.err.contains(words), "{}", ran.err);
        assert_eq!(read(&sandbox, "from bronze.a"), [expect]);
    }
}

#[test]
fn incremental_assets_add_merge_and_follow_their_columns() {
    let sandbox = project(&[
        ("assets/seeds/events.csv", "id,day,note\n1,2025-01-01,a\n2,2025-01-02,b\n"),
        ("assets/seeds/events.yml", "seed: { columns: { id: integer, day: date } }\n"),
        (
            "assets/gold/added.sql",
            "/* subak\nstored_as: incremental\n*/\nselect id, day from seeds.events\n{% if is_incremental() %}where day > (select max(day) from {{ this }}){% endif %}\n",
        ),
        (
            "assets/gold/merged.sql",
            "/* subak\nstored_as: incremental\nunique_key: id\ndeduplicate: day\non_schema_change: sync\n*/\nselect id, day, note from seeds.events\n",
        ),
        (
            "assets/gold/versions.sql",
            "/* subak\nstored_as: snapshot\nunique_key: id\nhistory: { missing_rows: close }\n*/\nselect id, note from seeds.events\n",
        ),
    ]);
    sandbox.run(&["run"]).expect(0);
    sandbox.write("assets/seeds/events.csv", "id,day,note\n2,2025-01-02,B\n2,2025-01-01,older\n3,2025-01-03,c\n");
    // Two rows of one key would make two open versions.
    let twice = sandbox.run(&["run"]).expect(1);
    assert!(
        twice.err.contains("SBK0316") && twice.err.contains("`gold.versions` would get several rows with one key: id=2"),
        "{}",
        twice.err
    );
    assert_eq!(read(&sandbox, "from gold.added order by id"), ["1,2025-01-01", "2,2025-01-02", "3,2025-01-03"]);
    assert_eq!(read(&sandbox, "from gold.merged order by id"), ["1,2025-01-01,a", "2,2025-01-02,B", "3,2025-01-03,c"]);
    sandbox.write("assets/seeds/events.csv", "id,day,note\n2,2025-01-02,B\n3,2025-01-03,c\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        read(&sandbox, "select id, note, is_current, valid_to is null from gold.versions order by id, valid_from"),
        ["1,a,false,false", "2,b,false,false", "2,B,true,true", "3,c,true,true"]
    );
    // A history survives a full refresh; the others are made anew.
    sandbox.run(&["run", "--full-refresh"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from gold.versions"), ["4"]);
    assert_eq!(read(&sandbox, "select count(*) from gold.added"), ["2"]);
    // Columns come and go.
    let merged = |policy: &str, columns: &str| {
        sandbox.write(
            "assets/gold/merged.sql",
            &format!("/* subak\nstored_as: incremental\nunique_key: id\non_schema_change: {policy}\n*/\nselect {columns} from seeds.events\n"),
        );
        sandbox.run(&["run", "gold.merged"])
    };
    merged("sync", "id, day, 1 as added").expect(0);
    assert_eq!(read(&sandbox, "from gold.merged order by id"), ["2,2025-01-02,1", "3,2025-01-03,1"]);
    merged("ignore", "id, day, 2 as added, 3 as more").expect(0);
    assert_eq!(read(&sandbox, "from gold.merged order by id"), ["2,2025-01-02,2", "3,2025-01-03,2"]);
    let refused = merged("fail", "id, day, 4 as other").expect(1);
    for words in ["SBK0317", "its query returns `other` besides", "does not return `added`", "--full-refresh"] {
        assert!(refused.err.contains(words), "{words}: {}", refused.err);
    }
    // A comment or a blank is no other definition.
    sandbox.write(
        "assets/gold/added.sql",
        &format!("{}-- a comment\n", std::fs::read_to_string(sandbox.path().join("assets/gold/added.sql")).expect("file")),
    );
    let plan = sandbox.run(&["plan", "gold.added", "-o", "csv"]).expect(0);
    assert!(!plan.out.contains("definition_changed"), "{}", plan.out);
}

/// S3-8: each check has its severity, and `warn` fails nothing.
#[test]
fn every_kind_of_check_passes_and_fails() {
    let sandbox = project(&[
        ("assets/silver/users.sql", "/* subak\nstored_as: table\n*/\nselect * from (values (1), (2)) t(user_id)\n"),
        ("assets/silver/empty.sql", "/* subak\nstored_as: table\nchecks: [ { not_null: id }, { row_count: { min: 1 }, severity: warn } ]\n*/\nselect 1 as id where false\n"),
        (
            "assets/gold/orders.sql",
            "/* subak
stored_as: table
checks:
  - not_null: [id, user_id]
  - unique: id
  - accepted_values: { column: status, values: [open, paid] }
  - range: { column: amount, min: 0, max: 100 }
  - pattern: { column: code, matches: '[A-Z]{2}[0-9]+' }
  - relationships: { column: user_id, to: silver.users.user_id }
  - row_count: { min: 3, max: 3 }
  - freshness: { column: day, max_age: 48h }
  - schema: { columns: { id: integer, day: datetime } }
  - reconcile: { with: silver.users, measures: [max(user_id)] }
  - { sql: 'select * from {{ this }} where amount > 1000', name: not_huge }
*/
select * from (values (1, 1, 'open', 10.0, 'AB1', timestamp '2025-01-02 00:00:00'), (2, 2, 'paid', 100.0, 'CD22', timestamp '2025-01-01 00:00:00'),
  (3, null, null, null, null, null)) t(id, user_id, status, amount, code, day) where '{{ var('mode', 'good') }}' <> 'x'
",
        ),
    ]);
    let path = "assets/gold/orders.sql";
    let good =
        std::fs::read_to_string(sandbox.path().join(path)).expect("file").replace("not_null: [id, user_id]", "not_null: id");
    sandbox.write(path, &good);
    let ran = sandbox.run(&["run", "--as-of", "2025-01-03"]).expect(0);
    assert_eq!(ran.err.matches("passed ").count(), 12, "{}", ran.err);
    assert!(ran.err.contains("warned row_count") && ran.err.contains("nothing was proved"), "{}", ran.err);
    // Now each of them fails, and readers keep the old table.
    for (check, bad, words) in [
        ("not_null", "null, 1, 'open', 1, 'AB1'", "not_null(id)` finds 1 bad rows"),
        ("unique", "1, 1, 'open', 1, 'AB1'", "unique(id)` finds 1 bad rows"),
        ("accepted_values", "4, 1, 'shut', 1, 'AB1'", "accepted_values(status)` finds 1 bad rows"),
        ("range", "4, 1, 'open', -0.5, 'AB1'", "range(amount)` finds 1 bad rows"),
        ("pattern", "4, 1, 'open', 1, 'xAB1'", "pattern(code)` finds 1 bad rows"),
        ("relationships", "4, 9, 'open', 1, 'AB1'", "relationships(user_id)` finds 1 bad rows"),
        ("row_count", "4, 1, 'open', 1, 'AB1'", "row_count` finds 1 bad rows"),
        ("reconcile", "4, 1, 'open', 1, 'AB1'", "row_count`"),
        ("sql", "4, 1, 'open', 5000, 'AB1'", "not_huge` finds 1 bad rows"),
    ] {
        let text = good.replace("  (3, null,", &format!("  ({bad}, timestamp '2025-01-02'), (3, null,"));
        sandbox.write(path, &text);
        let failed = sandbox.run(&["run", "gold.orders", "--as-of", "2025-01-03"]).expect(1);
        assert!(failed.err.contains("SBK0312") && failed.err.contains(words), "{check}: {}", failed.err);
        assert!(failed.err.contains("was not published"), "{}", failed.err);
        assert_eq!(read(&sandbox, "select count(*) from gold.orders"), ["3"], "{check}");
    }
    sandbox.write(path, &good.replace("id: integer", "id: text"));
    let failed = sandbox.run(&["run", "gold.orders", "--as-of", "2025-01-03"]).expect(1);
    assert!(failed.err.contains("column=id, expected=text, found=integer"), "{}", failed.err);
    sandbox.write(path, &good);
    let stale = sandbox.run(&["check", "gold.orders", "--as-of", "2025-01-05"]).expect(1);
    assert!(stale.err.contains("freshness(day)` finds 1 bad rows"), "{}", stale.err);
    // So many are tolerated, and only some rows are looked at.
    let tolerant = good
        .replace("not_null: id", "{ not_null: status, tolerance: 34% }")
        .replace("  - unique: id\n", "  - { unique: id, where: \"status = 'none'\" }\n");
    sandbox.write(path, &tolerant);
    let ran = sandbox.run(&["run", "gold.orders", "--as-of", "2025-01-03"]).expect(0);
    assert!(ran.err.contains("1 bad rows, 34 % tolerated"), "{}", ran.err);
    sandbox.write(path, &tolerant.replace("34%", "33%"));
    sandbox.run(&["run", "gold.orders", "--as-of", "2025-01-03"]).expect(1);
}

#[test]
fn unit_tests_need_no_warehouse() {
    let sandbox = project(&[
        (
            "macros/money.sql",
            "{% macro band(column) %}case when {{ column }} >= {{ var('high', 100) }} then 'high' else 'low' end{% endmacro %}\n",
        ),
        (
            "assets/bronze/files.yml",
            &ORDERS.replace("on_reject: quarantine", "derive: { shout: upper(note) }\n      filter: amount > 0"),
        ),
        (
            "assets/gold/bands.sql",
            "select id, {{ band('amount') }} as band, date '{{ as_of }}' - day as age from bronze.orders\n",
        ),
        (
            "tests/bands.yml",
            "test: bands
asset: gold.bands
as_of: 2025-01-03
given:
  bronze.orders: [ { id: 1, amount: 100.00, day: 2025-01-01 }, { id: 2, amount: 99.99, day: 2025-01-02 } ]
expect: [ { id: 2, band: low, age: 1 }, { id: 1, band: high, age: 2 } ]
---
test: another threshold
asset: gold.bands
vars: { high: 10 }
given: { bronze.orders: [ { id: 1, amount: 10, day: 2025-01-01 } ] }
expect: [ { band: high } ]
---
test: loading
asset: bronze.orders
given: { source: [ { id: 1, amount: '1.5', day: 2025-01-01, note: a }, { id: 2, amount: 0, day: 2025-01-01, note: b } ] }
expect: [ { id: 1, amount: 1.50, shout: A } ]
",
        ),
    ]);
    let ran = sandbox.run(&["test"]).expect(0);
    assert!(ran.err.contains("3 tests passed, 0 failed"), "{}{}", ran.out, ran.err);
    assert!(!sandbox.path().join("warehouse.duckdb").exists(), "no warehouse was made");
    sandbox.write("assets/gold/bands.sql", "select id, 'low' as band, 1 as age from bronze.orders\n");
    let failed = sandbox.run(&["test", "bands"]).expect(1);
    for words in [
        "SBK0325",
        "tests/bands.yml:1",
        "is expected and did not come out: id: 1, band: high, age: 2",
        "came out and is not expected",
    ] {
        assert!(failed.err.contains(words), "{words}: {}", failed.err);
    }
}

#[test]
fn verification_finds_the_rows_that_differ() {
    let sandbox = project(&[
        ("assets/bronze/files.yml", &ORDERS.replace("on_reject: quarantine", "filter: amount > 0")),
        ("input/orders.csv", "id,amount,day\n1,1.00,2025-01-01\n2,2.00,2025-01-02\n3,3.00,2025-01-03\n4,-1,2025-01-04\n"),
    ]);
    sandbox.run(&["run"]).expect(0);
    let equal = sandbox.run(&["verify", "-o", "json"]).expect(0);
    assert!(equal.out.contains("\"verdict\": \"equal\"") && equal.out.contains("\"filtered\": 1"), "{}", equal.out);
    execute(
        &sandbox,
        "update bronze.orders set amount = 2.01 where id = 2; delete from bronze.orders where id = 3; insert into bronze.orders values (9, 9, '2025-01-09')",
    );
    let different = sandbox.run(&["verify"]).expect(1);
    for words in [
        "SBK0324",
        "changed id=2: amount: source 2.00, table 2.01",
        "missing id=3",
        "extra id=9",
        "sum of `amount`: source 6.00, table 12.01",
    ] {
        assert!(different.err.contains(words), "{words}: {}", different.err);
    }
}

#[test]
fn cursors_at_their_edges() {
    let stream =
        |rest: &str| format!("ingest: {{ from: app, streams: {{ events: {{ columns: {{ day: datetime }}, {rest} }} }} }}\n");
    let sandbox = project(&[("assets/bronze/app.yml", &stream("primary_key: id, cursor: day"))]);
    app(
        &sandbox,
        "create table events (id integer, day datetime, note text); insert into events values (1, '2025-01-01 00:00:00', 'a'), (2, null, 'no time')",
    );
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("1 rows have no value in the cursor column `day`"), "{}", ran.err);
    // A row without a value is read each time, so a change of it is seen. A clock that is wrong does not hide what comes after.
    app(
        &sandbox,
        "update events set note = 'changed' where id = 2; insert into events values (3, '2099-01-01 00:00:00', 'future')",
    );
    let ran = sandbox.run(&["run", "--as-of", "2025-01-02 00:00:00"]).expect(0);
    assert!(ran.err.contains("the highest `day` is `2099-01-01 00:00:00`, in the future"), "{}", ran.err);
    app(&sandbox, "insert into events values (4, '2025-01-03 00:00:00', 'after'), (5, '2025-01-02 00:03:00', 'soon')");
    sandbox.run(&["run", "--as-of", "2025-01-04 00:00:00"]).expect(0);
    assert_eq!(
        read(&sandbox, "select id, note from bronze.events order by id"),
        ["1,a", "2,changed", "3,future", "4,after", "5,soon"]
    );
    // Somebody emptied the table: reading on would never bring the rows back.
    execute(&sandbox, "delete from bronze.events");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("SBK0323") && refused.err.contains("--full-refresh"), "{}", refused.err);
    sandbox.run(&["run", "--full-refresh"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from bronze.events"), ["5"]);
    for (rest, expect) in [("nulls: exclude", "3"), ("nulls: error", "")] {
        let stream = stream(&format!("primary_key: id, cursor: {{ column: day, {rest} }}"));
        let sandbox = project(&[("assets/bronze/app.yml", &stream)]);
        app(
            &sandbox,
            "create table events (id integer, day datetime); insert into events values (1, '2025-01-01'), (2, null), (3, '2025-01-02'), (4, '2025-01-03')",
        );
        if expect.is_empty() {
            let refused = sandbox.run(&["run"]).expect(1);
            assert!(refused.err.contains("the cursor column `day` is empty"), "{}", refused.err);
        } else {
            sandbox.run(&["run"]).expect(0);
            assert_eq!(read(&sandbox, "select count(*) from bronze.events"), [expect]);
        }
    }
}

#[test]
fn a_backfill_is_half_open_and_moves_no_cursor() {
    let stream = "ingest: { from: app, streams: { events: { columns: { day: datetime }, primary_key: id, cursor: day, filter: id > 0 } } }\n";
    let sandbox = project(&[("assets/bronze/app.yml", stream)]);
    app(
        &sandbox,
        "create table events (id integer, day datetime, note text);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 100)
         insert into events select i, datetime('2025-03-29 00:00:00', (i * 37) || ' minutes'), 'old' from n;",
    );
    sandbox.run(&["run"]).expect(0);
    let cursor = read(&sandbox, "select value from _subak.streams");
    app(&sandbox, "update events set note = 'new'");
    // Over a night in which clocks change and the end of a month, in pieces that meet.
    for (from, until) in [("2025-03-29 12:00:00", "2025-03-30 02:30:00"), ("2025-03-30 02:30:00", "2025-04-01 00:00:00")] {
        sandbox.run(&["run", "--from", from, "--until", until]).expect(0);
    }
    let expected = read(
        &sandbox,
        "select count(*) from bronze.events where day >= timestamp '2025-03-29 12:00:00' and day < timestamp '2025-04-01 00:00:00'",
    );
    assert_eq!(read(&sandbox, "select count(*) from bronze.events where note = 'new'"), expected);
    assert_eq!(read(&sandbox, "select value from _subak.streams"), cursor);
    sandbox.run(&["run", "--from", "2025-04-01", "--until", "2025-03-01"]).expect(2);
}

#[test]
fn files_that_come_again_and_lists_inside_documents() {
    let stream = "ingest:
  from: files
  streams:
    log: { path: 'log*.csv', mode: append, file_column: file }
    orders: { path: orders.ndjson, primary_key: id, children: { items: { columns: { sku: text, n: { type: integer, default: '1' } } } } }
";
    let sandbox = project(&[
        ("assets/bronze/files.yml", stream),
        ("input/log1.csv", "a\n1\n1\n"),
        ("input/orders.ndjson", "{\"id\": 1, \"items\": [{\"sku\": \"x\", \"n\": 2}, {\"sku\": \"y\"}]}\n{\"id\": 2}\n"),
    ]);
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/log2.csv", "a\n2\n");
    sandbox.write("input/log3.csv", "a\n1\n1\n");
    sandbox.write("input/orders.ndjson", "{\"id\": 1, \"items\": [{\"sku\": \"z\"}]}\n{\"id\": 2, \"items\": []}\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("`log3.csv` has the content of `log1.csv`, which is loaded; it is left out"), "{}", ran.err);
    assert_eq!(read(&sandbox, "from bronze.log order by all"), ["1,log1.csv", "1,log1.csv", "2,log2.csv"]);
    assert_eq!(read(&sandbox, "from bronze.orders__items order by all"), ["1,0,z,1"]);
    let again = sandbox.run(&["run", "bronze.log"]).expect(0);
    assert!(again.err.contains("read 0, written 0"), "{}", again.err);
    sandbox.write("input/log1.csv", "a\n1\n1\n1\n");
    let refused = sandbox.run(&["run", "bronze.log"]).expect(1);
    assert!(refused.err.contains("was loaded before, and its content is another one now"), "{}", refused.err);
}

#[test]
fn debezium_events_with_and_without_their_schema() {
    let stream = "ingest:
  from: files
  streams:
    users: { path: '*.json', format: debezium, read: new, primary_key: id, changes: { deletes: remove }, columns: { balance: 'decimal(10,2)', born: date, seen: datetime } }
";
    let row = r#"{"id": 1, "balance": "EtaH", "born": 19000, "seen": 1735689600000000, "bio": "long"}"#;
    let with_schema = format!(
        r#"{{"schema": {{"type": "struct", "fields": [{{"field": "after", "fields": [{{"field": "balance", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {{"scale": "2"}}}}, {{"field": "born", "name": "io.debezium.time.Date"}}, {{"field": "seen", "name": "io.debezium.time.MicroTimestamp"}}]}}]}}, "payload": {{"before": null, "after": {row}, "op": "c", "source": {{"lsn": 10}}}}}}"#
    );
    let sandbox = project(&[("assets/bronze/files.yml", stream), ("input/1.json", &with_schema)]);
    sandbox.run(&["run"]).expect(0);
    let sql = "select id, balance, born, seen, bio from bronze.users order by id";
    assert_eq!(read(&sandbox, sql), ["1,12345.67,2022-01-08,2025-01-01 00:00:00,long"]);
    let update = r#"{"before": null, "after": {"id": 1, "balance": "AQ==", "born": 19000, "seen": 1735689600000000, "bio": "__debezium_unavailable_value"}, "op": "u", "source": {"lsn": 20}}"#;
    let insert = r#"{"before": null, "after": {"id": 2, "balance": null, "born": null, "seen": null, "bio": null}, "op": "c", "source": {"lsn": 21}}"#;
    sandbox.write("input/2.json", &format!("{update}\n{insert}\n"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, sql), ["1,0.01,2022-01-08,2025-01-01 00:00:00,long", "2,NULL,NULL,NULL,NULL"]);
    // A deletion, and an older event that comes late.
    sandbox.write("input/3.json", r#"{"before": {"id": 1}, "after": null, "op": "d", "source": {"lsn": 30}}"#);
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/4.json", &update.replace("\"lsn\": 20", "\"lsn\": 25"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, sql), ["2,NULL,NULL,NULL,NULL"]);
}

#[test]
fn what_belongs_to_a_table_survives_its_replacement() {
    let sandbox = project(&[
        ("assets/bronze/files.yml", "ingest: { from: files, streams: { a: { path: a.csv, columns: { id: integer } } } }\n"),
        ("input/a.csv", "id,note\n1,x\n"),
    ]);
    sandbox.run(&["run"]).expect(0);
    execute(
        &sandbox,
        "comment on table bronze.a is 'it''s ours'; comment on column bronze.a.note is 'a note'; create index a_id on bronze.a (id); \
         create view main.v as select * from bronze.a",
    );
    sandbox.write("input/a.csv", "id,note\n1,x\n2,y\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "from main.v order by id"), ["1,x", "2,y"]);
    assert_eq!(read(&sandbox, "select comment from duckdb_tables() where table_name = 'a'"), ["it's ours"]);
    assert_eq!(
        read(&sandbox, "select comment from duckdb_columns() where table_name = 'a' and column_name = 'note'"),
        ["a note"]
    );
    assert_eq!(read(&sandbox, "select index_name from duckdb_indexes()"), ["a_id"]);
    // Unless a column's type must change, a wider value makes the column wider, and no value changes.
    sandbox.write(
        "assets/bronze/files.yml",
        "ingest: { from: files, streams: { a: { path: a.csv, mode: append, cursor: id, columns: { id: bigint } } } }\n",
    );
    execute(&sandbox, "drop view main.v; drop index bronze.a_id");
    sandbox.write("input/a.csv", "id,note\n1,x\n2,y\n3000000000,z\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id, typeof(id) from bronze.a order by id"), ["1,BIGINT", "2,BIGINT", "3000000000,BIGINT"]);
}

#[test]
fn the_catalog_says_what_there_is_and_what_it_means() {
    let sandbox = project(&[
        ("assets/bronze/files.yml", ORDERS),
        ("input/orders.csv", "id,amount,day\n1,10.00,2025-01-01\n"),
        (
            "assets/gold/days.sql",
            "/* subak\ndescription: Sales | day by day\nowner: finance\ncolumns:\n  day: the day of the order\nchecks: [ { not_null: day } ]\n*/\nselect day, sum(amount) as amount from bronze.orders group by day\n",
        ),
    ]);
    let before = sandbox.run(&["catalog", "gold.days"]).expect(0);
    assert!(before.out.contains("| `day` |  | the day of the order | `bronze.orders.day` |"), "{}", before.out);
    sandbox.run(&["run"]).expect(0);
    let page = sandbox.run(&["catalog"]).expect(0).out;
    for words in [
        "# Data catalog of exact",
        "| [`gold.days`](#golddays) | sql | Sales \\| day by day |",
        "- owner: finance",
        "- checks: `not_null(day)`",
        "- reads: `bronze.orders`",
        "| `day` | date | the day of the order | `bronze.orders.day` |",
        "| `amount` | decimal(38,2) |  | `bronze.orders.amount` |",
        "| `id` | bigint |",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let json = sandbox.run(&["catalog", "gold.days", "-o", "json"]).expect(0).out;
    assert!(
        json.contains("\"meaning\": \"the day of the order\"") || json.contains("\"meaning\":\"the day of the order\""),
        "{json}"
    );
}

#[test]
fn tables_can_be_parquet_files() {
    let sandbox = project(&[
        (
            "assets/lake/orders.yml",
            "ingest:\n  from: files\n  to: lake\n  streams:\n    orders: { path: orders.csv, columns: { id: bigint, amount: 'decimal(18,2)', at: datetime }, \
             filter: amount > 0, checks: [ { not_null: at }, { unique: id }, { relationships: { column: id, to: lake.ids.id } } ] }\n    ids: { path: ids.csv, columns: { id: bigint } }\n",
        ),
        (
            "input/orders.csv",
            "id,amount,at,note\n1,10.00,2025-01-01 00:00:01,\n2,99999999999999.99,2025-01-02 00:00:00.123456,\"a, b\"\n3,-1,,\n",
        ),
        ("input/ids.csv", "id\n1\n2\n"),
    ]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &format!("{config}  lake: {{ type: files, path: lake }}\n"));
    let path = sandbox.path().join("lake/lake/orders.parquet");
    let orders = |sql: &str| read(&sandbox, &sql.replace("orders", &format!("read_parquet('{}')", path.display())));
    let first = sandbox.run(&["run"]).expect(0);
    assert!(first.err.contains("read 3, written 2, rejected 0, filtered 1"), "{}", first.err);
    let expect = ["1,10.00,2025-01-01 00:00:01,NULL", "2,99999999999999.99,2025-01-02 00:00:00.123456,a, b"];
    assert_eq!(orders("select * from orders order by id"), expect);
    assert_eq!(orders("select distinct typeof(amount) as a, typeof(o.at) as b from orders o"), ["DECIMAL(18,2),TIMESTAMP"]);
    let verified = sandbox.run(&["verify", "lake.orders"]).expect(0);
    assert!(verified.out.contains("equal"), "{}", verified.out);

    // The same rows again: nothing is written, and the file is the same one.
    let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("the file"));
    let before = inode(&path);
    let again = sandbox.run(&["run", "lake.orders"]).expect(0);
    assert!(again.err.contains("every row was there already"), "{}", again.err);
    assert_eq!(inode(&path), before);

    // A check that fails, a value that does not fit, a disk file that is gone: readers keep what they have.
    for (text, words) in [
        ("id,amount,at,note\n1,1,2025-01-01 00:00:00,\n1,2,2025-01-01 00:00:00,\n", "unique(id)"),
        ("id,amount,at,note\n9,1,2025-01-01 00:00:00,\n", "relationships(id)"),
        ("id,amount,at,note\nx,1,2025-01-01 00:00:00,\n", "`x` is not bigint"),
    ] {
        sandbox.write("input/orders.csv", text);
        let failed = sandbox.run(&["run", "lake.orders"]).expect(1);
        assert!(failed.err.contains(words), "{words}: {}", failed.err);
        assert_eq!(orders("select * from orders order by id"), expect, "{words}");
    }
    // A difference is found behind the product's back.
    sandbox.write(
        "input/orders.csv",
        "id,amount,at,note\n1,10.01,2025-01-01 00:00:01,\n2,99999999999999.99,2025-01-02 00:00:00.123456,\"a, b\"\n",
    );
    let differs = sandbox.run(&["verify", "lake.orders"]).expect(1);
    assert!(differs.out.contains("different"), "{}", differs.out);
    // What needs rows to be found again is said before anything runs.
    sandbox.write(
        "assets/lake/orders.yml",
        "ingest:\n  from: files\n  to: lake\n  streams:\n    orders: { path: orders.csv, primary_key: id }\n",
    );
    let refused = sandbox.run(&["validate"]).expect(2);
    assert!(refused.err.contains("writes whole tables only"), "{}", refused.err);
}

/// A query, a condition and a limit in the words of the source, alike for every SQL system.
#[test]
fn a_stream_may_be_a_query_or_a_part_of_a_table() {
    let sandbox = project(&[(
        "assets/raw/parts.yml",
        "ingest:\n  from: app\n  streams:\n    joined: { sql: 'select o.id, c.name from orders o join customers c on c.id = o.customer;', mode: replace }\n    \
         large: { stream: orders, where: \"amount > 10 or note = 'it''s'\", primary_key: id, cursor: id }\n    \
         some: { stream: orders, mode: replace, limit: 2 }\n",
    )]);
    let app = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("open");
    app.execute_batch(
        "create table customers (id integer primary key, name text); insert into customers values (1, 'Ayu'), (2, 'Budi');
         create table orders (id integer primary key, customer integer, amount integer, note text);
         insert into orders values (1, 1, 5, 'it''s'), (2, 2, 50, null), (3, 1, 7, null);",
    )
    .expect("tables");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select * from raw.joined order by id"), ["1,Ayu", "2,Budi", "3,Ayu"]);
    assert_eq!(read(&sandbox, "select id from raw.large order by id"), ["1", "2"]);
    assert_eq!(read(&sandbox, "select count(*) from raw.some"), ["2"]);
    app.execute_batch("insert into orders values (4, 2, 11, null), (5, 2, 1, null)").expect("rows");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id from raw.large order by id"), ["1", "2", "4"]);
    sandbox.run(&["verify", "raw.joined", "raw.large"]).expect(0);
    // The same on the warehouse itself, read back into it.
    sandbox.write(
        "assets/copy/parts.yml",
        "ingest:\n  from: warehouse\n  to: app\n  streams:\n    twice: { sql: 'select id, name, id * 2 as doubled from raw.joined', where: 'doubled > 2', mode: replace }\n",
    );
    sandbox.run(&["run", "copy.*"]).expect(0);
    let found: i64 = app.query_row("select sum(doubled) from copy_twice", [], |row| row.get(0)).expect("a sum");
    assert_eq!(found, 28);
    sandbox.write(
        "assets/raw/parts.yml",
        "ingest:\n  from: app\n  streams:\n    bad: { stream: orders, primary_key: id, cursor: id, limit: 2 }\n    worse: { sql: 'select missing_column from orders', mode: replace }\n",
    );
    let refused = sandbox.run(&["run", "raw.*"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("`limit` would leave out rows"), "{}", refused.err);
    assert!(refused.err.contains("no such column: missing_column"), "{}", refused.err);
}
