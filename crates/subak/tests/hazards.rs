//! Ways in which rows were lost, doubled or changed once, each as small as it can be.

mod support;

use subak_testkit::Sandbox;
use support::change::{app, execute};
use support::warehouse::{project, read};

/// A project with one stream of files and its file.
fn stream(rest: &str, path: &str, content: &str) -> Sandbox {
    let declared = format!("ingest: {{ from: files, streams: {{ t: {{ path: {path}, {rest} }} }} }}\n");
    project(&[("assets/b/in.yml", &declared), (&format!("input/{path}"), content)])
}

/// A project with one stream of the SQLite source.
fn app_stream(rest: &str, sql: &str) -> Sandbox {
    let declared = format!("ingest: {{ from: app, streams: {{ t: {{ {rest} }} }} }}\n");
    let sandbox = project(&[("assets/b/in.yml", &declared)]);
    app(&sandbox, sql);
    sandbox
}

/// The first column of a query on the SQLite database.
pub(crate) fn read_app(sandbox: &Sandbox, sql: &str) -> Vec<String> {
    let database = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("open");
    let mut statement = database.prepare(sql).expect(sql);
    statement.query_map([], |row| row.get(0)).expect(sql).collect::<Result<_, _>>().expect(sql)
}

fn redeclare(sandbox: &Sandbox, from: &str, rest: &str) {
    sandbox.write("assets/b/in.yml", &format!("ingest: {{ from: {from}, streams: {{ t: {{ {rest} }} }} }}\n"));
}

#[test]
fn a_refused_value_moves_no_cursor() {
    let rest = "primary_key: id, cursor: seq, on_reject: quarantine";
    let sandbox = app_stream(rest, "create table t (id integer, seq bigint); insert into t values (1, 1), (2, 'abc'), (3, 2)");
    sandbox.run(&["run"]).expect(0);
    app(&sandbox, "insert into t values (4, 3), (5, 4)");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id from b.t order by id"), ["1", "3", "4", "5"]);
    // The refused row comes once, also when rows before it are gone.
    app(&sandbox, "delete from t where id = 1");
    sandbox.run(&["run", "--full-refresh"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from b.t__rejects"), ["1"]);
    // A column that is declared as a time: a text that is none is not the highest of them.
    let sandbox = app_stream(
        "primary_key: id, cursor: at, columns: { at: datetime }, on_reject: quarantine",
        "create table t (id integer, at text); insert into t values (1, '2025-01-01 00:00:00'), (2, 'n/a')",
    );
    sandbox.run(&["run"]).expect(0);
    app(&sandbox, "insert into t values (3, '2025-01-02 00:00:00')");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id from b.t order by id"), ["1", "3"]);
}

#[test]
fn a_value_that_is_no_cursor_is_refused_and_not_left_out() {
    let rest =
        "primary_key: id, cursor: { column: at, nulls: exclude }, columns: { id: bigint, at: datetime }, on_reject: quarantine";
    let sandbox = stream(rest, "t.csv", "id,at\n1,2025-01-01\n2,garbage\n3,\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("read 2, written 1, rejected 1"), "{}", ran.err);
}

#[test]
fn an_append_that_is_declared_anew_adds_only_new_rows() {
    let sandbox = app_stream(
        "mode: append, cursor: id, derive: { d: id * 2 }",
        "create table t (id integer, v text); insert into t values (1, 'a'), (2, 'b')",
    );
    sandbox.run(&["run"]).expect(0);
    redeclare(&sandbox, "app", "mode: append, cursor: id, derive: { d: id * 3 }");
    app(&sandbox, "insert into t values (3, 'c')");
    sandbox.run(&["run"]).expect(0);
    let rows = read(&sandbox, "select id, d from b.t order by id, d");
    assert!(rows.contains(&"1,2".to_owned()) && rows.contains(&"3,9".to_owned()), "{rows:?}");
    assert!(!rows.contains(&"1,3".to_owned()), "{rows:?}");
}

#[test]
fn lists_follow_their_rows() {
    let children = "children: { items: { columns: { x: text } } }";
    for mode in ["mode: replace", "mode: delete_insert"] {
        let rest = format!("{mode}, primary_key: id, {children}");
        let sandbox = stream(&rest, "t.ndjson", "{\"id\": 1, \"items\": [{\"x\": \"a\"}]}\n");
        sandbox.run(&["run"]).expect(0);
        sandbox.write("input/t.ndjson", "{\"id\": 1, \"items\": [{\"x\": \"a\"}, {\"x\": \"new\"}]}\n");
        sandbox.run(&["run"]).expect(0);
        assert_eq!(read(&sandbox, "select x from b.t__items order by position"), ["a", "new"], "{mode}");
        if mode == "mode: replace" {
            let again = sandbox.run(&["run"]).expect(0);
            assert!(again.err.contains("every row was there already"), "{}", again.err);
        }
    }
    // A row that leaves the filter leaves with its lists.
    let rest = format!("primary_key: id, filter: v = 'ok', {children}");
    let sandbox = stream(&rest, "t.ndjson", "{\"id\": 1, \"v\": \"ok\", \"items\": [{\"x\": \"a\"}]}\n");
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/t.ndjson", "{\"id\": 1, \"v\": \"bad\", \"items\": [{\"x\": \"a\"}]}\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select (select count(*) from b.t), (select count(*) from b.t__items)"), ["0,0"]);
    // Rows that come twice cannot be told apart with their lists.
    redeclare(&sandbox, "files", &format!("path: t.ndjson, mode: append, cursor: id, {children}"));
    let refused = sandbox.run(&["validate"]).expect(2);
    assert!(refused.err.contains("rows at the bound of its cursor are read twice"), "{}", refused.err);
}

#[test]
fn a_deletion_that_came_first_stays_a_deletion() {
    let rest = "primary_key: id, changes: { deletes: remove }, columns: { _version: bigint }";
    let sandbox = stream(
        rest,
        "t.ndjson",
        "{\"op\": \"c\", \"id\": 1, \"v\": \"a\", \"_version\": 1}\n{\"op\": \"d\", \"id\": 1, \"_version\": 3}\n{\"op\": \"c\", \"id\": 2, \"v\": \"b\", \"_version\": 1}\n",
    );
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/t.ndjson", "{\"op\": \"u\", \"id\": 1, \"v\": \"late\", \"_version\": 2}\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id, v from b.t"), ["2,b"]);
    // A rebuilt table remembers the deletions of what it was rebuilt from.
    sandbox.write(
        "input/t.ndjson",
        "{\"op\": \"c\", \"id\": 5, \"v\": \"a\", \"_version\": 1}\n{\"op\": \"d\", \"id\": 5, \"_version\": 3}\n",
    );
    sandbox.run(&["run", "--full-refresh"]).expect(0);
    sandbox.write("input/t.ndjson", "{\"op\": \"u\", \"id\": 5, \"v\": \"late\", \"_version\": 2}\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from b.t"), ["0"]);
}

#[test]
fn versions_that_are_no_times_are_refused_and_not_guessed() {
    let events = "{\"op\": \"c\", \"id\": 1, \"v\": \"old\", \"_version\": 99999999999}\n{\"op\": \"u\", \"id\": 1, \"v\": \"new\", \"_version\": 100000000000}\n";
    let sandbox = stream("primary_key: id, changes: {}", "t.ndjson", events);
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("`99999999999` is not datetime"), "{}", refused.err);
    redeclare(&sandbox, "files", "path: t.ndjson, primary_key: id, changes: {}, columns: { _version: bigint }");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select v from b.t"), ["new"]);
}

#[test]
fn a_corrected_row_is_not_lost_when_its_table_is_made_anew() {
    let rest = "mode: replace, on_reject: quarantine, columns: { id: integer, v: integer }";
    let sandbox = stream(rest, "t.csv", "id,v\n1,10\n3,x\n");
    sandbox.run(&["run"]).expect(0);
    let id = read(&sandbox, "select reject_id from b.t__rejects").remove(0);
    sandbox.run(&["quarantine", "replay", "b.t", &id, "--set", "v=99"]).expect(0);
    assert_eq!(read(&sandbox, "select id, v from b.t order by id"), ["1,10", "3,99"]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select status from b.t__rejects"), ["open"]);
}

#[test]
fn an_older_row_replaces_no_newer_one() {
    let rest = "primary_key: id, deduplicate: ts desc, columns: { id: integer, ts: datetime, v: integer }, on_reject: quarantine";
    let sandbox = stream(rest, "t.csv", "id,ts,v\n1,2025-01-02,20\n2,2025-01-01,x\n");
    sandbox.run(&["run"]).expect(0);
    let id = read(&sandbox, "select reject_id from b.t__rejects").remove(0);
    sandbox.write("input/t.csv", "id,ts,v\n1,2025-01-01,10\n2,2025-01-05,50\n");
    sandbox.run(&["run"]).expect(0);
    sandbox.run(&["quarantine", "replay", "b.t", &id, "--set", "v=1"]).expect(0);
    assert_eq!(read(&sandbox, "select id, v from b.t order by id"), ["1,20", "2,50"]);
    // The first of equal ones stays, whether they come together or one after the other.
    let rest = "primary_key: id, deduplicate: ts, keep_first: true, columns: { id: integer, ts: datetime }";
    let sandbox = stream(rest, "t.csv", "id,ts,v\n1,2025-01-01,first\n");
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/t.csv", "id,ts,v\n1,2025-01-01,second\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select v from b.t"), ["first"]);
    // Texts are in no order that anybody means.
    let sandbox = stream("primary_key: id, deduplicate: n", "t.csv", "id,n\n1,9\n1,10\n");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("texts compare by their characters"), "{}", refused.err);
    let sandbox = stream("primary_key: id, deduplicate: nothing", "t.csv", "id,n\n1,9\n");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("column `nothing` is not in the stream"), "{}", refused.err);
}

#[test]
fn the_first_load_is_like_every_other() {
    let rest = "primary_key: id, deduplicate: n, filter: v = 'ok', columns: { id: integer, n: integer }";
    let sandbox = stream(rest, "t.csv", "id,n,v\n1,1,ok\n1,2,bad\n2,1,ok\n");
    for _ in 0..2 {
        sandbox.run(&["run"]).expect(0);
        assert_eq!(read(&sandbox, "select id from b.t"), ["2"]);
    }
}

#[test]
fn numbers_and_times_are_in_order_in_sqlite_too() {
    let declared = "ingest: { from: files, to: app, streams: { t: { path: t.csv, primary_key: id, deduplicate: 'v, at', \
                    columns: { id: integer, v: 'decimal(10,2)', at: timestamp }, \
                    checks: [{ range: { column: v, max: 20 }, severity: warn }] } } }\n";
    let sandbox = project(&[
        ("assets/b/in.yml", declared),
        (
            "input/t.csv",
            "id,v,at\n1,9.00,2025-01-01T00:00:00Z\n1,10.00,2025-01-01T00:00:00Z\n2,1.00,2025-01-01T00:00:00.5Z\n2,1.00,2025-01-01T00:00:00Z\n",
        ),
    ]);
    sandbox.run(&["run"]).expect(0);
    let sql = "select id || ',' || v || ',' || at from b_t order by id";
    assert_eq!(read_app(&sandbox, sql), ["1,10.00,2025-01-01T00:00:00Z", "2,1.00,2025-01-01T00:00:00.5Z"]);
    sandbox.write("input/t.csv", "id,v,at\n3,1000.00,2025-01-01T00:00:00Z\n1,9.50,2025-01-02T00:00:00Z\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("1 bad row"), "{}", ran.err);
    assert_eq!(read_app(&sandbox, "select v from b_t where id = 1"), ["10.00"]);
}

#[test]
fn histories_close_what_is_gone_and_nothing_else() {
    let rest = "mode: snapshot, primary_key: id, history: { updated_at: at, missing_rows: close }, on_reject: quarantine, columns: { id: integer, at: datetime, n: integer }";
    let sandbox = stream(rest, "t.csv", "id,at,n\n1,2024-01-01,1\n2,2024-01-01,2\n");
    sandbox.run(&["run"]).expect(0);
    // A refused row is not a missing one.
    sandbox.write("input/t.csv", "id,at,n\n1,2024-01-01,1\n2,2024-02-01,oops\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("keys that did not arrive stay open"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select count(*) from b.t where is_current"), ["2"]);
    // Gone, with a column that comes at the same time; and back with its old time: no two versions hold at once.
    sandbox.write("input/t.csv", "id,at,n,more\n1,2024-01-01,1,\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id from b.t where is_current"), ["1"]);
    sandbox.write("input/t.csv", "id,at,n,more\n1,2024-01-01,1,\n2,2024-01-01,2,\n3,,3,\n");
    sandbox.run(&["run"]).expect(0);
    let overlaps = "select count(*) from b.t a join b.t b on a.id = b.id and a.rowid < b.rowid \
                    where a.valid_from < coalesce(b.valid_to, 'infinity') and b.valid_from < coalesce(a.valid_to, 'infinity')";
    assert_eq!(read(&sandbox, overlaps), ["0"]);
    assert_eq!(read(&sandbox, "select count(*) from b.t where valid_from is null"), ["0"]);
    // A change that says it is older than what is known is counted.
    sandbox.write("input/t.csv", "id,at,n,more\n1,2023-01-01,9,\n2,2024-01-01,2,\n3,,3,\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("1 changed rows are older than the version that is current"), "{}", ran.err);
}

#[test]
fn nothing_there_is_not_nothing_in_it() {
    let sandbox = stream("mode: replace, if_no_files: skip", "t.csv", "id,v\n1,a\n");
    sandbox.run(&["run"]).expect(0);
    std::fs::remove_file(sandbox.path().join("input/t.csv")).expect("remove");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "from b.t"), ["1,a"]);
    // An empty list is an answer; an empty file is none.
    let sandbox = stream("mode: replace", "t.json", "[{\"id\": 1}]");
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/t.json", "[]");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from b.t"), ["0"]);
    let sandbox = stream("mode: replace", "t.json", "[]");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("has no rows yet, and nothing says what its columns are"), "{}", refused.err);
    // Parquet files that are all loaded.
    let sandbox = stream("mode: append", "t.parquet", "");
    let path = sandbox.path().join("input/t.parquet");
    let copy = format!("copy (select 1 as id) to '{}' (format parquet)", path.display());
    duckdb::Connection::open_in_memory().and_then(|connection| connection.execute_batch(&copy)).expect("copy");
    for _ in 0..2 {
        sandbox.run(&["run"]).expect(0);
    }
    assert_eq!(read(&sandbox, "from b.t"), ["1"]);
}

#[test]
fn rows_without_a_key_cannot_be_found_again() {
    let sandbox = stream("mode: delete_insert, primary_key: id, columns: { id: integer }", "t.csv", "id,v\n1,a\n,b\n");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("column `id` identifies a row and is empty"), "{}", refused.err);
}

#[test]
fn the_time_of_a_run_is_the_projects() {
    let declared = "ingest: { from: app, streams: { t: { primary_key: id, cursor: { column: at, until: run }, columns: { at: timestamp } } } }\n";
    let sandbox = project(&[("assets/b/in.yml", declared)]);
    let settings = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("subak.yml");
    sandbox.write("subak.yml", &format!("timezone: Asia/Jakarta\n{settings}"));
    app(
        &sandbox,
        "create table t (id integer, at text); insert into t values (1, '2025-01-01T04:59:59Z'), (2, '2025-01-01T05:00:00Z')",
    );
    // Noon in Jakarta is five o'clock in UTC.
    sandbox.run(&["run", "--as-of", "2025-01-01 12:00:00"]).expect(0);
    assert_eq!(read(&sandbox, "select id from b.t"), ["1"]);
    sandbox.run(&["run", "--as-of", "2025-01-01 12:00:01"]).expect(0);
    assert_eq!(read(&sandbox, "select id from b.t order by id"), ["1", "2"]);
}

#[test]
fn texts_stay_as_they_are_beside_lists_and_objects() {
    let sandbox = stream(
        "primary_key: id, columns: { deep: { from: m.a.b } }",
        "t.ndjson",
        "{\"id\": 1, \"s\": \"plain\", \"m\": \"{\\\"a\\\":{\\\"b\\\":1}}\"}\n{\"id\": 2, \"s\": \"x\", \"m\": {\"a\": {\"b\": 2}}}\n",
    );
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/t.ndjson", "{\"id\": 2, \"s\": \"x\", \"m\": {\"a\": {\"b\": 2}}}\n{\"id\": 3, \"s\": {\"o\": 1}}\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("written 1"), "{}", ran.err);
    assert_eq!(
        read(&sandbox, "select id, s, m, deep from b.t order by id"),
        ["1,plain,{\"a\":{\"b\":1}},1", "2,x,{\"a\":{\"b\":2}},2", "3,{\"o\":1},NULL,NULL"]
    );
}

#[test]
fn one_column_fills_several() {
    let sandbox =
        stream("columns: { x: { from: id, type: integer }, y: { from: id }, v: { default: none } }", "t.csv", "id,w\n1,a\n");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("the source has no column `v` any more; every row gets its default"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select x, y, v, w from b.t"), ["1,1,none,a"]);
}

#[test]
fn verification_takes_refusals_as_the_load_did() {
    let rest = "primary_key: id, on_reject: 'null', columns: { id: integer, n: integer }";
    let sandbox = stream(rest, "t.csv", "id,n\n1,x\n2,3\n");
    sandbox.run(&["run"]).expect(0);
    sandbox.run(&["verify"]).expect(0);
    execute(&sandbox, "update b.t set n = 4 where id = 2");
    sandbox.run(&["verify"]).expect(1);
}

#[test]
fn a_replay_says_nothing_about_the_rest() {
    let rest = "primary_key: id, on_reject: quarantine, columns: { id: integer, n: integer }";
    let sandbox = stream(rest, "t.csv", "id,n\n1,1\n2,x\n");
    sandbox.run(&["run"]).expect(0);
    let id = read(&sandbox, "select reject_id from b.t__rejects").remove(0);
    redeclare(&sandbox, "files", &format!("path: t.csv, {rest}, derive: {{ d: n + 1 }}"));
    sandbox.run(&["quarantine", "replay", "b.t", &id, "--set", "n=5"]).expect(0);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select id, d from b.t order by id"), ["1,2", "2,6"]);
}

#[test]
fn a_log_that_carries_parts_of_rows() {
    let rest = "path: '*.json', format: debezium, read: new, primary_key: id, changes: {}, columns: { body: { from: big } }";
    let sandbox = stream("primary_key: id", "none.csv", "id\n");
    redeclare(&sandbox, "files", rest);
    sandbox.write(
        "input/1.json",
        "{\"before\": null, \"after\": {\"id\": 1, \"big\": \"long\", \"n\": 1}, \"op\": \"c\", \"source\": {\"lsn\": 1}}\n",
    );
    sandbox.run(&["run"]).expect(0);
    let update = "{\"before\": null, \"after\": {\"id\": 1, \"big\": \"__debezium_unavailable_value\", \"n\": 2}, \"op\": \"u\", \"source\": {\"lsn\": 2}}\n";
    // Behind a deletion comes an event without a value.
    sandbox.write("input/2.json", &format!("{update}null\n"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select body, n from b.t"), ["long,2"]);
    redeclare(&sandbox, "files", &format!("{rest}, derive: {{ size: length(body) }}"));
    let refused = sandbox.run(&["run", "--full-refresh"]).expect(1);
    assert!(refused.err.contains("`derive.size` reads `body`, and the event does not carry its value"), "{}", refused.err);
}

#[test]
fn tables_beside_a_table_are_nobody_elses() {
    let declared = "ingest: { from: files, streams: { t: { path: t.json, primary_key: id, children: { items: {} } }, t__items: { path: u.csv } } }\n";
    let refused = project(&[("assets/b/in.yml", declared)]).run(&["validate"]).expect(2);
    assert!(refused.err.contains("`b.t__items` has the name of a table that stands beside `b.t`"), "{}", refused.err);
}

#[test]
fn bands_may_stand_in_any_order() {
    let rest = "columns: { n: integer }, derive: { band: { categorize: n, bands: { low: 0, high: 100, middle: 10 } } }";
    let sandbox = stream(rest, "t.csv", "n\n5\n10\n1000\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select band from b.t order by n"), ["low", "middle", "high"]);
}

#[test]
fn an_expression_that_fails_says_where_and_why() {
    let rows: Vec<String> = (1..=5_000).map(|id| format!("{id},{}\n", if id == 3_001 { "bad" } else { "7" })).collect();
    let rows = rows.concat();
    let rest = "primary_key: id, columns: { id: integer }, derive: { twice: v || v, d: cast(v as integer) }";
    let sandbox = stream(rest, "t.csv", &format!("id,v\n{rows}"));
    let refused = sandbox.run(&["run"]).expect(1);
    for words in ["`derive.d` fails", "'bad'", "t.csv:3002", "try_cast"] {
        assert!(refused.err.contains(words), "{words}: {}", refused.err);
    }
    redeclare(&sandbox, "files", &format!("path: t.csv, {rest}, on_reject: quarantine"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*), sum(d) from b.t"), ["4999,34993"]);
    assert_eq!(read(&sandbox, "select column_name, line from b.t__rejects"), ["d,3002"]);
}

#[test]
fn elements_of_lists_are_refused_with_their_row() {
    let rest = "primary_key: id, on_reject: quarantine, children: { items: { columns: { q: integer } } }";
    let documents = "{\"id\": 1, \"items\": [{\"q\": \"bad\"}, {\"q\": \"1\"}]}\n{\"id\": 2, \"items\": [{\"q\": \"2\"}]}\n";
    let sandbox = stream(rest, "t.ndjson", documents);
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("read 2, written 1, rejected 1"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select parent_id, q from b.t__items"), ["2,2"]);
    let rest = "primary_key: id, on_reject: 'null', children: { items: { columns: { q: integer } } }";
    let sandbox = stream(rest, "t.ndjson", documents);
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("items.q"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select parent_id, q from b.t__items order by all"), ["1,1", "1,NULL", "2,2"]);
}

#[test]
fn a_range_says_something_about_every_stream_of_the_run() {
    let sandbox = app_stream("primary_key: id, cursor: at, columns: { at: datetime }", "create table t (id integer, at text)");
    for (from, words) in [("garbage", "`--from garbage` is not datetime"), ("12", "`--from 12` is not datetime")] {
        let refused = sandbox.run(&["run", "--from", from]).expect(2);
        assert!(refused.err.contains(words), "{}", refused.err);
    }
    redeclare(&sandbox, "app", "mode: replace");
    let refused = sandbox.run(&["run", "--from", "2025-01-01"]).expect(2);
    assert!(refused.err.contains("`b.t` has no cursor"), "{}", refused.err);
}

#[test]
fn a_check_that_cannot_be_evaluated_says_which() {
    let rest = "columns: { id: integer }, checks: [{ freshness: { column: c, max_age: 1h }, severity: warn }, { range: { column: nothing, min: 1 } }]";
    let sandbox = stream(rest, "t.csv", "id,c\n1,A\n");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("check `range(nothing)`"), "{}", refused.err);
    redeclare(&sandbox, "files", "path: t.csv, checks: [{ freshness: { column: c, max_age: 1h }, severity: warn }]");
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("freshness(c)"), "{}", ran.err);
}

/// Whatever happens to the file of the warehouse: the last load is there whole or not at all, or an error says what to do, at once.
#[test]
fn a_damaged_warehouse_is_told_or_repaired() {
    let orders = "ingest:\n  from: files\n  streams:\n    orders: { path: orders.csv, mode: append }\n";
    let lines = |ids: std::ops::Range<u32>| ids.fold("id,note\n".to_owned(), |text, id| text + &format!("{id},some text {id}\n"));
    let sandbox = project(&[("assets/orders.yml", orders), ("input/orders.csv", &lines(0..500))]);
    sandbox.write("assets/orders.yml", &orders.replace("orders.csv", "'*.csv'"));
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/more.csv", &lines(500..900));
    let output = sandbox.command(&["run"]).env("SUBAK_CRASH_AT", "after_publish").output().expect("starts");
    assert_ne!(output.status.code(), Some(0));
    let (file, log) = (sandbox.path().join("warehouse.duckdb"), sandbox.path().join("warehouse.duckdb.wal"));
    let (whole_file, whole_log) = (std::fs::read(&file).expect("the file"), std::fs::read(&log).expect("the log"));
    // The log is cut off anywhere, or is garbage from some place on.
    for cut in [0, 1, 7, whole_log.len() / 4, whole_log.len() / 2, whole_log.len() - 1] {
        for garbage in [0, 64] {
            std::fs::write(&file, &whole_file).expect("the file");
            let mut bytes = whole_log[..cut].to_vec();
            bytes.extend((0..garbage).map(|at: u8| at.wrapping_mul(37)));
            std::fs::write(&log, bytes).expect("the log");
            let ran = sandbox.run(&["run"]);
            if ran.code == Some(0) {
                let found =
                    read(&sandbox, "select count(*) as n, count(distinct id) as ids, max(id::integer) as last from orders");
                assert_eq!(found, ["900,900,899"], "a log of {cut} bytes and {garbage} of garbage");
            } else {
                assert!(ran.err.contains("cannot open") && ran.err.contains("help:"), "{cut} {garbage}: {}", ran.err);
            }
        }
    }
    std::fs::remove_file(&log).ok();
    for damage in [vec![7_u8; 5000], whole_file[..9000].iter().rev().copied().collect()] {
        std::fs::write(&file, damage).expect("the file");
        let ran = sandbox.run(&["run"]).expect(1);
        assert!(ran.err.contains("SBK0307") || ran.err.contains("put back a copy of the file"), "{}", ran.err);
        assert!(!ran.err.contains("attempt 2"), "trying again does not mend it: {}", ran.err);
    }
    std::fs::write(&file, &whole_file).expect("the file");
    std::fs::write(&log, &whole_log).expect("the log");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) as n from orders"), ["900"]);
}

#[test]
fn a_query_that_needs_too_much_memory_leaves_everything_usable() {
    let sandbox = project(&[
        ("assets/numbers.sql", "/* subak\nstored_as: table\n*/\nselect 1 as n\n"),
        (
            "assets/heavy.sql",
            "/* subak\nstored_as: table\n*/\nselect md5(i::varchar) as m, list(i) as l from range(3000000) t(i) group by all\n",
        ),
    ]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("path: warehouse.duckdb", "path: warehouse.duckdb, memory_limit: 20MB"));
    sandbox.run(&["run", "numbers"]).expect(0);
    let ran = sandbox.run(&["run", "heavy"]).expect(1);
    assert!(ran.err.contains("SBK0310") && ran.err.contains("raise `memory_limit:`"), "{}", ran.err);
    assert!(!ran.err.contains("SET memory_limit"), "{}", ran.err);
    assert_eq!(read(&sandbox, "select n from numbers"), ["1"]);
    sandbox.write("subak.yml", &config);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) as n from heavy"), ["3000000"]);
}

/// One bad row at one place of two files of one name is refused twice, and both are kept.
#[test]
fn files_of_one_name_have_rejects_of_their_own() {
    let orders = "ingest:\n  from: files\n  streams:\n    orders: { path: '*/orders.csv', mode: append, on_reject: quarantine, columns: { id: bigint } }\n";
    let text = "id,note\ntotal,x\n";
    let sandbox = project(&[("assets/orders.yml", orders), ("input/2024-01/orders.csv", &format!("{text}1,a\n"))]);
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/2024-02/orders.csv", &format!("{text}2,a\n"));
    sandbox.run(&["run"]).expect(0);
    let rejects = "select regexp_extract(file, '[^/]*/[^/]*$') as file, line, status from orders__rejects order by file";
    assert_eq!(read(&sandbox, rejects), ["2024-01/orders.csv,2,open", "2024-02/orders.csv,2,open"]);
}

/// A lake: tables as Parquet files beside the files of others.
fn lake(streams: &str, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = project(&[("assets/lake/all.yml", &format!("ingest:\n  from: files\n  to: lake\n  streams:\n{streams}"))]);
    for (path, text) in files {
        sandbox.write(path, text);
    }
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &format!("{config}  lake: {{ type: files, path: lake }}\n"));
    sandbox
}

#[test]
fn a_file_of_somebody_else_is_not_replaced() {
    let sandbox = lake("    t: { path: t.csv }\n", &[("input/t.csv", "id\n1\n")]);
    let path = sandbox.path().join("lake/lake/t.parquet");
    sandbox.write("lake/lake/t.parquet", "not Parquet at all");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("is not a complete Parquet file"), "{}", refused.err);
    std::fs::remove_file(&path).expect("removed");
    execute(&sandbox, &format!("copy (select 7 as id) to '{}' (format parquet)", path.display()));
    let before = std::fs::read(&path).expect("the file");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("was not written by Subak") && refused.err.contains("move it away"), "{}", refused.err);
    assert_eq!(std::fs::read(&path).expect("the file"), before);
    std::fs::remove_file(&path).expect("removed");
    sandbox.run(&["run"]).expect(0);
    sandbox.run(&["run"]).expect(0);
}

#[test]
fn what_is_under_way_in_a_lake_is_read_and_swept_by_nobody() {
    let sandbox = lake("    t: { path: t.csv }\n", &[("input/t.csv", "id\n1\n")]);
    sandbox.run(&["run"]).expect(0);
    let whole = std::fs::read(sandbox.path().join("lake/lake/t.parquet")).expect("the table");
    let stage = sandbox.path().join("lake/lake/.__subak_stage_abcdef_1_0.parquet");
    std::fs::write(&stage, &whole).expect("a stage");
    let held = std::fs::File::open(&stage).expect("a stage");
    held.lock().expect("a lock");
    sandbox.write(
        "assets/copy.yml",
        "ingest:\n  from: lake\n  streams:\n    copy: { path: '**/*.parquet' }\n    known: { path: '**/*', format: parquet }\n",
    );
    sandbox.run(&["run", "--full-refresh"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) as n from copy"), ["1"]);
    assert_eq!(read(&sandbox, "select count(*) as n from known"), ["1"]);
    assert!(stage.exists(), "somebody works on it");
    drop(held);
    sandbox.run(&["run", "lake.t"]).expect(0);
    assert!(!stage.exists(), "nobody works on it any more");
}

#[test]
fn columns_of_the_run_make_no_file_different() {
    let streams = "    t: { path: t.csv, derive: { loaded_at: run.started_at } }\n";
    let sandbox = lake(streams, &[("input/t.csv", "id,year\n1,7\n2,8\n")]);
    sandbox.run(&["run"]).expect(0);
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.err.contains("every row was there already"), "{}", again.err);
    sandbox.write("input/t.csv", "id,year\n1,7\n2,9\n");
    let changed = sandbox.run(&["run"]).expect(0);
    assert!(changed.err.contains("written 2"), "{}", changed.err);
}

/// Folders whose names look like partitions add nothing to the rows that checks see, checks of two tables at once do not meet, and one broken
/// table does not stand in the way of another.
#[test]
fn checks_on_files_see_the_rows_of_the_file() {
    let checks = "checks: [ { accepted_values: { column: year, values: ['7'] } }, { unique: [id, note] } ]";
    let streams: String = (0..4).fold(String::new(), |text, at| text + &format!("    t{at}: {{ path: t.csv, {checks} }}\n"));
    let rows =
        (0..60_000).fold("id,year,note\n".to_owned(), |text, id| text + &format!("{id},7,a note that takes up some room {id}\n"));
    let sandbox = lake(&streams, &[("input/t.csv", &rows)]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("path: lake }", "path: year=2024 }"));
    sandbox.run(&["run"]).expect(0);
    sandbox.write("year=2024/lake/t1.parquet", "broken");
    sandbox.run(&["run", "lake.t0"]).expect(0);
    assert!(
        !sandbox.path().join(".subak/tmp/duckdb").read_dir().is_ok_and(|mut left| left.next().is_some()),
        "spill folders are left"
    );
}
