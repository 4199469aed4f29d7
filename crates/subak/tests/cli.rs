//! The built binary in temporary projects: what it prints, what it exits with, and what is true of the data afterwards.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use expect_test::{Expect, expect};
use subak_testkit::{Ran, Sandbox};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: shop\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  incoming: { type: files, path: incoming }\n";
const INGEST: &str = "ingest:\n  from: incoming\n  streams:\n    orders: { path: orders.csv, columns: { id: bigint, amount: \"decimal(10,2)\" }, checks: [ { unique: id } ] }\n";
const TOTALS: &str =
    "/* subak\nstored_as: table\n*/\nselect customer, sum(amount) as amount from bronze.orders group by customer\n";
const ORDERS: &str = "id,customer,amount\n1,Ayu,10.50\n2,Budi,20\n";

fn shop() -> Sandbox {
    Sandbox::new(
        BINARY,
        &[
            ("subak.yml", PROJECT),
            ("assets/bronze/files.yml", INGEST),
            ("assets/gold/totals.sql", TOTALS),
            ("incoming/orders.csv", ORDERS),
        ],
    )
}

#[track_caller]
fn assert_out(ran: &Ran, expect: &Expect) {
    expect.assert_eq(&ran.out);
}

/// Only the problems: progress comes in the order in which steps happen to end.
fn problems(ran: &Ran) -> String {
    let start = ran.err.find("error[").unwrap_or(ran.err.len());
    format!("{}\n", ran.err[start..].trim_end())
}

fn totals(sandbox: &Sandbox) -> String {
    sandbox.run(&["query", "select * from gold.totals order by customer", "-o", "csv"]).expect(0).out
}

#[test]
fn a_first_run_and_a_second() {
    let sandbox = shop();
    assert_out(&sandbox.run(&["validate"]).expect(0), &expect!["2 assets, 1 check: no problems"]);
    assert_out(
        &sandbox.run(&["plan", "-o", "csv"]).expect(0),
        &expect![[r#"
            step,reason,why,needs
            bronze.orders,missing,never materialized,""
            gold.totals,missing,never materialized,bronze.orders"#]],
    );
    assert_eq!(sandbox.run(&["plan", "--check"]).code, Some(5), "there is something to do");
    let first = sandbox.run(&["run"]).expect(0);
    assert_out(&first, &expect!["run [RUN] succeeded: 2 steps done, 0 failed, 0 skipped, 0 canceled; 2 rows written;  [TIME]"]);
    assert!(first.err.contains("read 2, written 2, rejected 0, filtered 0"), "{}", first.err);
    assert_eq!(totals(&sandbox), "customer,amount\nAyu,10.50\nBudi,20.00");
    let second = sandbox.run(&["run"]).expect(0);
    assert!(second.err.contains("skipped gold.totals  nothing upstream changed"), "{}", second.err);
    assert_out(
        &sandbox.run(&["list", "-o", "csv"]).expect(0),
        &expect![[r#"
            asset,kind,status,reason,rows,changed_at,path
            bronze.orders,ingest,fresh,,2,[AT],assets/bronze/files.yml
            gold.totals,sql,fresh,,2,[AT],assets/gold/totals.sql"#]],
    );
}

#[test]
fn comments_and_white_space_rebuild_nothing_and_sql_does() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    sandbox.write("assets/gold/totals.sql", &TOTALS.replace("select customer,", "-- by name\nSELECT   customer,"));
    let same = sandbox.run(&["plan", "kind:sql", "--exclude", "kind:ingest", "--check"]);
    assert!(same.out.contains("selected") || same.code == Some(0), "{}\n{}", same.out, same.err);
    assert!(!same.out.contains("definition_changed"), "{}", same.out);
    sandbox.write("assets/gold/totals.sql", &TOTALS.replace("sum(amount)", "max(amount)"));
    let changed = sandbox.run(&["plan", "-o", "csv", "changed"]).expect(0);
    assert_out(
        &changed,
        &expect![[r#"
            step,reason,why,needs
            gold.totals,definition_changed,its definition changed,"""#]],
    );
}

#[test]
fn what_was_loaded_alone_is_built_on_by_the_next_run() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    sandbox.write("incoming/orders.csv", "id,customer,amount\n1,Ayu,10.50\n2,Budi,30\n");
    sandbox.run(&["run", "bronze.orders"]).expect(0);
    let stale = sandbox.run(&["list", "gold.totals", "-o", "csv"]).expect(0);
    assert!(stale.out.contains("stale,`bronze.orders` is newer"), "{}", stale.out);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(totals(&sandbox), "customer,amount\nAyu,10.50\nBudi,30.00");
    // A result that is what the table held already makes it fresh all the same.
    sandbox.write("incoming/orders.csv", "id,customer,amount\n2,Budi,30\n3,Ayu,10.50\n");
    sandbox.run(&["run", "bronze.orders"]).expect(0);
    let equal = sandbox.run(&["run", "gold.totals"]).expect(0);
    assert!(equal.err.contains("the result is what the table held already"), "{}", equal.err);
    let fresh = sandbox.run(&["list", "gold.totals", "-o", "csv"]).expect(0);
    assert!(fresh.out.contains("sql,fresh"), "{}", fresh.out);
}

#[test]
fn a_selection_without_its_upstream_is_refused_before_it_fails() {
    let sandbox = shop();
    let ran = sandbox.run(&["run", "gold.totals"]).expect(2);
    assert!(ran.err.contains("error[SBK0232]") && ran.err.contains("`subak run +gold.totals`"), "{}", ran.err);
    sandbox.run(&["run", "+gold.totals"]).expect(0);
}

#[test]
fn a_warehouse_that_is_gone_is_made_again() {
    let sandbox = Sandbox::new(BINARY, &[]);
    sandbox.run(&["init", "p"]).expect(0);
    sandbox.run(&["-C", "p", "run"]).expect(0);
    std::fs::remove_file(sandbox.path().join("p/warehouse.duckdb")).expect("removed");
    let again = sandbox.run(&["-C", "p", "run"]).expect(0);
    assert!(again.err.contains("its table is gone from `warehouse`"), "{}", again.err);
    let sales = sandbox.run(&["-C", "p", "query", "select count(*) as n from gold.daily_sales", "-o", "csv"]).expect(0);
    assert_eq!(sales.out, "n\n2");
}

#[test]
fn a_cursor_of_text_must_be_declared() {
    let sandbox = shop();
    sandbox.write(
        "assets/bronze/files.yml",
        "ingest:\n  from: incoming\n  streams:\n    orders: { path: orders.csv, cursor: id }\n",
    );
    let ran = sandbox.run(&["run", "bronze.orders"]).expect(1);
    assert!(ran.err.contains("the cursor column `id` is text"), "{}", ran.err);
    sandbox.write(
        "assets/bronze/files.yml",
        "ingest:\n  from: incoming\n  streams:\n    orders: { path: orders.csv, cursor: id, columns: { id: bigint } }\n",
    );
    sandbox.write("incoming/orders.csv", "id,customer,amount\n9,Ayu,1\n");
    sandbox.run(&["run", "bronze.orders"]).expect(0);
    sandbox.write("incoming/orders.csv", "id,customer,amount\n9,Ayu,1\n10,Budi,2\n");
    sandbox.run(&["run", "bronze.orders"]).expect(0);
    let count = sandbox.run(&["query", "select count(*) as n from bronze.orders", "-o", "csv"]).expect(0);
    assert_eq!(count.out, "n\n2", "10 is above 9");
}

#[test]
fn names_that_duckdb_knows_are_no_unknown_upstreams() {
    let sandbox = shop();
    // Without it SQL reaches no files, and says how it would.
    sandbox.write("assets/gold/e.sql", "/* subak\nstored_as: table\n*/\nselect * from \"incoming/orders.csv\"\n");
    let closed = sandbox.run(&["run", "gold.e"]).expect(4);
    assert!(closed.err.contains("`external_access: true`"), "{}", closed.err);
    sandbox.write("subak.yml", &PROJECT.replace("warehouse.duckdb }", "warehouse.duckdb, external_access: true }"));
    for (name, sql) in [
        ("a", "select * from warehouse.bronze.orders"),
        ("b", "select count(*) as n from duckdb_tables"),
        ("c", "select count(*) as n from system.information_schema.tables"),
        ("d", "with x as materialized (select * from bronze.orders) select * from x"),
        ("e", "select * from \"incoming/orders.csv\""),
    ] {
        sandbox.write(&format!("assets/gold/{name}.sql"), &format!("/* subak\nstored_as: table\n*/\n{sql}\n"));
    }
    // A key of three parts is another table than it looks, also behind a header.
    sandbox.write("assets/gold/eu/sales.sql", "/* subak\nstored_as: table\n*/\nselect 1 as id\n");
    sandbox.write(
        "assets/gold/eu_count.sql",
        "/* subak\nstored_as: table\n*/\nselect count(*) as n from gold.eu.sales where id > 0\n",
    );
    sandbox.run(&["run"]).expect(0);
    let upstream = sandbox.run(&["show", "gold.a", "-o", "json"]).expect(0);
    assert!(upstream.out.contains("bronze.orders"), "{}", upstream.out);
}

#[test]
fn a_check_that_failed_is_evaluated_again() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    sandbox.write("checks/no_small_orders.sql", "select * from bronze.orders where amount < 15\n");
    for _ in 0..2 {
        sandbox.run(&["run"]).expect(1);
    }
}

/// S3-11: the same assets run against another connection.
#[test]
fn profiles_have_their_own_state() {
    let sandbox = shop();
    sandbox.write(
        "subak.yml",
        &format!("{PROJECT}profiles:\n  prod:\n    connections:\n      warehouse: {{ type: duckdb, path: prod.duckdb }}\n"),
    );
    sandbox.run(&["run"]).expect(0);
    let prod = sandbox.run(&["--profile", "prod", "run"]).expect(0);
    assert!(prod.out.contains("2 rows written") && sandbox.path().join("prod.duckdb").exists(), "{}", prod.out);
}

#[test]
fn a_secret_reaches_its_connector_and_never_shows() {
    let sandbox = shop();
    sandbox.write("subak.yml", &PROJECT.replace("path: incoming", "path: \"${secret:folder}\""));
    let run = |folder: &str| sandbox.finish(sandbox.command(&["run"]).env("SUBAK_SECRET_FOLDER", folder));
    run("incoming").expect(0);
    let failed = run("nowhere-s3cret").expect(1);
    assert!(failed.err.contains("[redacted]"), "{}", failed.err);
    let logs = sandbox.run(&["run", "logs"]).expect(0);
    let state = std::fs::read(sandbox.path().join(".subak/state.db")).expect("state");
    for text in [&failed.err, &failed.out, &logs.out, &String::from_utf8_lossy(&state).into_owned()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn a_wrong_type_publishes_nothing() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    sandbox.write("incoming/orders.csv", "id,customer,amount\n1,Ayu,10.50\n2,Budi,twenty\n");
    let ran = sandbox.run(&["run"]).expect(1);
    expect![[r#"
        error[SBK0305]: step `bronze.orders` failed: column `amount`: `twenty` is not decimal(10,2) ([DIR]/incoming/orders.csv:3)
          data: nothing of this step was published; readers see the table as it was
        help: correct the value, or declare `amount` as a type that holds it; `text` holds everything
        help: then go on with `subak run resume [RUN]`; `subak explain SBK0305` says more
    "#]]
    .assert_eq(&problems(&ran));
    assert_eq!(totals(&sandbox), "customer,amount\nAyu,10.50\nBudi,20.00");
    let why = sandbox.run(&["why", "gold.totals"]).expect(0);
    assert!(why.out.contains("skipped: `bronze.orders` did not succeed"), "{}", why.out);
    sandbox.write("incoming/orders.csv", "id,customer,amount\n1,Ayu,10.50\n2,Budi,30\n");
    sandbox.run(&["run", "resume"]).expect(0);
    assert_eq!(totals(&sandbox), "customer,amount\nAyu,10.50\nBudi,30.00");
}

#[test]
fn a_missing_column_lists_those_that_are_there() {
    let sandbox = shop();
    sandbox.write("incoming/orders.csv", "id,customer,amuont\n1,Ayu,10.50\n");
    let ran = sandbox.run(&["run"]).expect(1);
    expect![[r#"
        error[SBK0306]: step `bronze.orders` failed: column `amount` is not in the stream
          data: nothing of this step was published; readers see the table as it was
        help: the stream has the columns id, customer, amuont
        help: then go on with `subak run resume [RUN]`; `subak explain SBK0306` says more
    "#]]
    .assert_eq(&problems(&ran));
}

/// T-77: a check of severity `error` keeps a table and what reads it as they were; one of severity `warn` blocks nothing.
#[test]
fn a_failing_check_keeps_the_old_table() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    sandbox.write("incoming/orders.csv", "id,customer,amount\n1,Ayu,1\n1,Budi,2\n");
    let ran = sandbox.run(&["run"]).expect(1);
    expect![[r#"
        error[SBK0312]: step `bronze.orders` failed: a blocking check failed: `unique(id)` finds 1 bad rows
          caused by: bad row: id=1, row_count=2
          data: `bronze.orders` was not published; readers see it as it was
        help: mend the data or the check; a check with `severity: warn` does not block
        help: then go on with `subak run resume [RUN]`; `subak explain SBK0312` says more
    "#]]
    .assert_eq(&problems(&ran));
    assert_eq!(totals(&sandbox), "customer,amount\nAyu,10.50\nBudi,20.00");
    sandbox.write("assets/bronze/files.yml", &INGEST.replace("{ unique: id }", "{ unique: id, severity: warn }"));
    let warned = sandbox.run(&["run"]).expect(0);
    assert!(warned.err.contains("warned unique(id)"), "{}", warned.err);
    sandbox.write("checks/no_small_orders.sql", "select * from bronze.orders where amount < 2\n");
    let checked = sandbox.run(&["check"]).expect(1);
    assert!(checked.err.contains("check `no_small_orders` finds 1 bad rows"), "{}", checked.err);
}

#[test]
fn an_unreadable_file_and_a_missing_one() {
    let sandbox = shop();
    let path = sandbox.path().join("incoming/orders.csv");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("mode");
    // The super-user reads everything, so it is left out of this half.
    if std::fs::File::open(&path).is_err() {
        let ran = sandbox.run(&["run"]).expect(4);
        assert!(ran.err.contains("Permission denied") && ran.err.contains("nothing of this step was published"), "{}", ran.err);
    }
    std::fs::remove_file(&path).expect("removed");
    let ran = sandbox.run(&["run"]).expect(1);
    expect![[r#"
        error[SBK0307]: step `bronze.orders` failed: no file matches `orders.csv` in `[DIR]/incoming`
          data: nothing of this step was published; readers see the table as it was
        help: correct `path:`, deliver the file, or set `if_no_files: skip`
        help: then go on with `subak run resume [RUN]`; `subak explain SBK0307` says more
    "#]]
    .assert_eq(&problems(&ran));
}

/// S3-2: a circle is refused with its path.
#[test]
fn a_cycle_is_named_as_a_path() {
    let sandbox = shop();
    sandbox.write("assets/gold/a.sql", "select * from gold.b\n");
    sandbox.write("assets/gold/b.sql", "select * from gold.a\n");
    let ran = sandbox.run(&["run"]).expect(2);
    assert!(ran.err.contains("error[SBK0113]: assets read each other in a circle: gold.a → gold.b → gold.a"), "{}", ran.err);
}

#[test]
fn a_missing_secret_says_where_it_is_looked_for_and_never_shows() {
    let sandbox = shop();
    sandbox.write("subak.yml", &PROJECT.replace("path: incoming", "path: \"${secret:folder}\""));
    let ran = sandbox.run(&["run"]).expect(1);
    expect![[r#"
        error[SBK0303]: step `bronze.orders` failed: connection `incoming`, `path`: the secret `folder` has no value
          data: nothing was read or written
        help: set `SUBAK_SECRET_FOLDER` in the environment, or write the value to `.subak/secrets/folder` with mode 0600
        help: then go on with `subak run resume [RUN]`; `subak explain SBK0303` says more
    "#]]
    .assert_eq(&problems(&ran));
}

#[test]
fn sql_that_the_warehouse_refuses() {
    let sandbox = shop();
    sandbox.write("assets/gold/totals.sql", "select no_such_column from bronze.orders\n");
    let ran = sandbox.run(&["run"]).expect(1);
    assert!(ran.err.contains("error[SBK0309]: step `gold.totals` failed: the query of `gold.totals` failed"), "{}", ran.err);
    assert!(ran.err.contains("no_such_column"), "{}", ran.err);
}

/// FM-10: the second one is refused and names the process of the first.
#[test]
fn two_commands_at_once() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    // A lease of a living process: this test.
    let state = rusqlite::Connection::open(sandbox.path().join(".subak/state.db")).expect("open");
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let ticks = stat.rsplit_once(')').expect("stat").1.split_whitespace().nth(19).expect("ticks").to_owned();
    let read = |path: &str| std::fs::read_to_string(path).expect(path).trim().to_owned();
    let holder = format!(
        r#"{{"host":"{}","pid":{},"boot_id":"{}","started_ticks":{ticks},"command":"subak run"}}"#,
        read("/proc/sys/kernel/hostname"),
        std::process::id(),
        read("/proc/sys/kernel/random/boot_id")
    );
    let sql = "update leases set holder = ?, expires_at = 9223372036854775807 where name = 'project'";
    state.execute(sql, [&holder]).expect("held");
    let refused = sandbox.run(&["run"]).expect(6);
    assert!(refused.err.contains("error[SBK0403]: another command works on this project: pid [PID] on"), "{}", refused.err);
    assert!(refused.err.contains("data: nothing was planned or changed"), "{}", refused.err);
    let late = sandbox.run(&["run", "--wait", "1"]).expect(7);
    assert!(late.err.contains("waiting up to"), "{}", late.err);
    // The other command ends while the second one waits.
    let waiting =
        sandbox.command(&["run", "--wait", "60"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    state.execute("update leases set holder = null, expires_at = null", []).expect("given back");
    let output = waiting.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn eight_runs_at_once_leave_one_history() {
    let sandbox = shop();
    let children: Vec<_> = (0..8)
        .map(|_| {
            sandbox.command(&["run", "--wait", "120", "-q"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    let runs = sandbox.run(&["run", "list", "-o", "csv"]).expect(0);
    assert_eq!(runs.out.matches("succeeded").count(), 8, "{}", runs.out);
    assert_eq!(totals(&sandbox), "customer,amount\nAyu,10.50\nBudi,20.00");
}

#[test]
fn a_warehouse_that_another_process_holds_is_named_with_its_holder() {
    let sandbox = shop();
    sandbox.write("subak.yml", &format!("{PROJECT}defaults: {{ retry: {{ attempts_max: 1 }} }}\n"));
    sandbox.run(&["run"]).expect(0);
    let _held = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    let ran = sandbox.run(&["run"]).expect(6);
    assert!(ran.err.contains("error[SBK0302]") && ran.err.contains(&format!("(PID {})", std::process::id())), "{}", ran.err);
    let query = sandbox.run(&["query", "select 1"]).expect(6);
    assert!(query.err.contains("another process holds"), "{}", query.err);
}

#[test]
fn interrupt_stops_and_resume_goes_on() {
    let sandbox = shop();
    // A query that runs far longer than the test.
    sandbox.write(
        "assets/gold/slow.sql",
        "/* subak\nstored_as: table\n*/\nselect sum(a.range * b.range) as s from range(10000000) a, range(10000000) b\n",
    );
    let mut child = sandbox.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let state = sandbox.path().join(".subak/state.db");
    let is_started = || {
        let Ok(state) = rusqlite::Connection::open(&state) else { return false };
        let sql = "select count(*) from events where body like '%step_started%gold.slow%'";
        state.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|count| count > 0)
    };
    let mut tries = 0;
    while !is_started() {
        tries += 1;
        assert!(tries < 600, "the slow step never starts");
        std::thread::sleep(Duration::from_millis(50));
    }
    let signaled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(signaled.success());
    let output = child.wait_with_output().expect("ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("what is published stays") && err.contains("subak run resume"), "{err}");
    let runs = sandbox.run(&["run", "list", "-o", "csv"]).expect(0);
    assert!(runs.out.contains("canceled"), "{}", runs.out);
    sandbox.write("assets/gold/slow.sql", "/* subak\nstored_as: table\n*/\nselect 1 as s\n");
    sandbox.run(&["run", "resume"]).expect(0);
    child = sandbox.command(&["run", "list"]).stdout(Stdio::null()).spawn().expect("starts");
    assert!(child.wait().expect("ends").success());
}

#[test]
fn a_full_disk_publishes_nothing_and_the_next_run_goes_on() {
    let sandbox = shop();
    sandbox.write(
        "assets/gold/big.sql",
        "/* subak\nstored_as: table\n*/\nselect hash(range) as h, md5(range::varchar) as m from range(3000000)\n",
    );
    // The warehouse stands on a file system of 12 MiB in a name space of its own; it is looked at before that is gone.
    sandbox.write("subak.yml", &PROJECT.replace("path: warehouse.duckdb", "path: small/warehouse.duckdb"));
    let script = r#"
        set -e
        mkdir -p "$1/small"
        mount -t tmpfs -o size=12m tmpfs "$1/small"
        cd "$1"
        "$2" run kind:ingest gold.totals >/dev/null 2>&1
        set +e
        "$2" run gold.big; echo "exit $?"
        "$2" query "select count(*) as n from gold.totals" -o csv
        "$2" query "select count(*) as n from information_schema.tables where table_schema = 'gold'" -o csv
        mount -o remount,size=400m "$1/small"
        "$2" run
    "#;
    let ran = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([sandbox.path().to_str().expect("path"), BINARY])
        .output()
        .expect("unshare (apt-get install util-linux)");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(!err.contains("unshare failed"), "user name spaces are needed for this test: {err}");
    assert!(err.contains("error[SBK0310]: step `gold.big` failed"), "{out}\n{err}");
    assert!(err.contains("nothing of this step was published"), "{err}");
    assert!(out.contains("exit 1") && out.contains("n\n2\nn\n1\n"), "one table of gold is there, with its rows: {out}\n{err}");
    assert!(out.contains("succeeded"), "the next run goes on: {out}\n{err}");
}

#[test]
fn json_is_versioned_and_errors_are_json_too() {
    let sandbox = shop();
    let ran = sandbox.run(&["run", "-o", "json"]).expect(0);
    let value: serde_json::Value = serde_json::from_str(&ran.out).expect("json");
    assert_eq!((value["version"].as_u64(), value["status"].as_str()), (Some(1), Some("succeeded")));
    assert_eq!(value["steps"][0]["read"].as_u64(), Some(2));
    let decimals = sandbox.run(&["query", "select 12345678901234567890.10::decimal(38,2) as d", "-o", "jsonl"]).expect(0);
    assert_out(&decimals, &expect![[r#"{"d":12345678901234567890.10}"#]]);
    let times =
        "select timestamptz '2025-01-01 12:00:00.5+02' as t, timestamp '2025-01-01 00:00:00' as d, date '2025-01-01' as day";
    let times = sandbox.run(&["query", times, "-o", "csv"]).expect(0);
    assert!(times.out.contains("\n[AT],2025-01-01 00:00:00,2025-01-01"), "a time with a zone shows: {}", times.out);
    sandbox.write("assets/gold/x.sql", "selec");
    let broken = sandbox.run(&["list", "-o", "json"]).expect(2);
    let problem: serde_json::Value = serde_json::from_str(broken.err.lines().next().expect("a line")).expect("json");
    assert_eq!(problem["code"].as_str(), Some("SBK0202"));
}

#[test]
fn typing_errors_are_answered_with_the_nearest() {
    let sandbox = shop();
    sandbox.run(&["run"]).expect(0);
    for (arguments, code, words) in [
        (&["linege"][..], 2, "a similar subcommand exists"),
        (&["show", "gold.total"], 2, "did you mean `gold.totals`?"),
        (&["list", "gold.total"], 2, "did you mean `gold.totals`?"),
        (&["list", "color:red"], 2, "SBK0230"),
        (&["explain", "SBK9999"], 2, "SBK0503"),
        (&["run", "show", "01ZZ"], 2, "SBK0404"),
        (&["-C", "/nowhere", "list"], 2, "SBK0101"),
        (&["--profile", "prod", "list"], 2, "SBK0121"),
        (&["query", "selec 1"], 1, "SBK0309"),
        (&["query", "select 1", "--on", "warehose"], 2, "did you mean `warehouse`?"),
        (&["docs", "conectors"], 2, "did you mean `connectors`?"),
    ] {
        let ran = sandbox.run(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn init_makes_projects_that_run_at_once() {
    for template in ["warehouse", "ingest"] {
        let sandbox = Sandbox::new(BINARY, &[]);
        sandbox.run(&["init", "p", "--template", template]).expect(0);
        sandbox.run(&["-C", "p", "validate"]).expect(0);
        sandbox.run(&["-C", "p", "run"]).expect(0);
        let again = sandbox.run(&["init", "p"]).expect(2);
        assert!(again.err.contains("SBK0501"), "{}", again.err);
    }
}

#[test]
fn the_demo_runs_end_to_end() {
    let sandbox = Sandbox::new(BINARY, &[]);
    let ran = sandbox.run(&["demo", "ewallet", "--transactions", "1000"]).expect(0);
    for words in ["1. The project", "2. The first run", "3. Meanwhile", "4. What came of it", "Try next"] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    let counts = "select (select count(*) from gold.fact_sales) = (select count(*) from bronze.transactions where status = 'SUCCESS') as same";
    let same = sandbox.run(&["-C", "ewallet", "query", counts, "-o", "csv"]).expect(0);
    assert_eq!(same.out, "same\ntrue");
    let lineage = sandbox.run(&["-C", "ewallet", "lineage", "gold.daily_spending_per_user", "--columns", "-o", "csv"]).expect(0);
    assert!(lineage.out.contains("total_amount,gold.fact_sales.amount,bronze.transactions.amount"), "{}", lineage.out);
    let third = sandbox.run(&["-C", "ewallet", "run"]).expect(0);
    assert!(third.out.contains("0 rows written"), "{}", third.out);
}

/// Every command stands in the map of commands.
#[test]
fn the_map_knows_every_command() {
    let map = include_str!("../../../docs/reference/command-line.md");
    let help = shop().run(&["--help"]).expect(0).out;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let is_first = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let commands: Vec<&str> = listed.filter(is_first).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 25, "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        assert!(map.contains(&format!("| `{command}")), "`{command}` is missing");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let sandbox = shop();
    let script = format!("'{BINARY}' explain | head -1; echo ${{PIPESTATUS[0]}}");
    let output = Command::new("bash").args(["-c", &script]).current_dir(sandbox.path()).output().expect("bash");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("0\n"), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn completions_doctor_and_colours() {
    let sandbox = shop();
    assert!(sandbox.run(&["completions", "bash"]).expect(0).out.contains("_subak"));
    let doctor = sandbox.run(&["doctor", "-o", "csv"]).expect(0);
    assert!(doctor.out.contains("connection,ok,`incoming` answers"), "{}", doctor.out);
    let plain = sandbox.run(&["list", "--color", "always"]).expect(0);
    assert!(plain.out.contains("\u{1b}["), "colours are used when asked for");
    assert!(!sandbox.run(&["list"]).expect(0).out.contains("\u{1b}["), "and not in a pipe");
}
