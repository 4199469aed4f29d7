//! Partitions: each is replaced by itself, and what is missing, failed or stale comes by itself.

#[path = "support/expected.rs"]
mod expected;
#[path = "support/served.rs"]
mod served;
#[path = "support/table.rs"]
mod table;
#[path = "support/warehouse.rs"]
mod warehouse;

use std::process::Stdio;
use std::time::Duration;

use expected::{assert_equals, parity};
use subak_testkit::Sandbox;
use warehouse::{project, read};

const COLUMNS: &str = "columns: { date: date, share_price: 'decimal(18,2)', amount: 'decimal(18,2)', spend: 'decimal(18,2)', shift: 'decimal(18,2)', spread: 'decimal(18,2)' }";

/// The course's asset: a file a day, rows of the day replaced, a check that blocks (S3-14 to S3-16).
fn course(partition: &str) -> Sandbox {
    let stream = format!(
        "ingest:\n  from: files\n  streams:\n    raw_partition_data:\n      path: '{{{{ partition.key }}}}.csv'\n      partition: {partition}\n      {COLUMNS}\n      \
         checks: [ {{ name: positive, sql: \"select * from {{{{ this }}}} where share_price <= 0\" }} ]\n"
    );
    let sandbox = project(&[("assets/files.yml", &stream)]);
    std::fs::create_dir_all(sandbox.path().join("input")).expect("input");
    sandbox
}

fn give(sandbox: &Sandbox, file: &str) {
    let from = parity("s003_partitions").join(file);
    let name = from.file_name().expect("a name").to_owned();
    std::fs::copy(&from, sandbox.path().join("input").join(name)).expect(file);
}

#[test]
fn s003_partitions_of_the_course() {
    let steps = [
        (1, "2018-01-21", "input/2018-01-21.csv", 0),
        (2, "2018-01-22", "input/2018-01-22.csv", 0),
        (3, "2018-01-23", "input/2018-01-23.csv", 0),
        (4, "2018-01-21", "input/2018-01-21.csv", 0),
        (5, "2018-01-22", "input/changed/2018-01-22.csv", 0),
        (6, "2018-01-23", "input/bad/2018-01-23.csv", 1),
    ];
    for (partition, is_dynamic) in
        [("{ daily: date, start: 2018-01-21, end: 2018-01-24 }", false), ("{ dynamic: days, column: date }", true)]
    {
        let sandbox = course(partition);
        for (step, key, file, code) in steps {
            give(&sandbox, file);
            if is_dynamic {
                sandbox.run(&["partition", "add", "days", key]).expect(0);
            }
            let ran = sandbox.run(&["run", "raw_partition_data", "--partition", key]).expect(code);
            assert_eq!(code == 1, ran.err.contains("positive") && ran.err.contains("share_price=0"), "{}", ran.err);
            assert_equals(&sandbox, "raw_partition_data", &format!("s003_partitions/expected/after_step{step}.csv"));
        }
        // What failed is what the next run takes up.
        let listed = sandbox.run(&["partition", "list", "raw_partition_data"]).expect(0);
        assert!(listed.err.contains("3 partitions: 2 done, 1 failed"), "{}", listed.err);
        let planned = sandbox.run(&["plan", "raw_partition_data"]).expect(0);
        assert!(planned.out.contains("raw_partition_data[2018-01-23]") && !planned.out.contains("2018-01-22"), "{}", planned.out);
        // Every key again, in order.
        give(&sandbox, "input/2018-01-22.csv");
        give(&sandbox, "input/2018-01-23.csv");
        sandbox.run(&["run", "raw_partition_data", "--partition", "2018-01-21..2018-01-23"]).expect(0);
        assert_equals(&sandbox, "raw_partition_data", "s003_partitions/expected/after_step9.csv");
        let again = sandbox.run(&["run"]).expect(0);
        assert!(again.err.contains("nothing to do"), "{}", again.err);
        if is_dynamic {
            give(&sandbox, "input/2018-01-25.csv");
            let added = sandbox.run(&["partition", "add", "days", "2018-01-25", "2018-01-21"]).expect(0);
            assert!(added.err.contains("1 key added to `days`; 1 were there"), "{}", added.err);
            sandbox.run(&["run"]).expect(0);
            assert_equals(&sandbox, "raw_partition_data", "s003_partitions/expected/after_step10.csv");
        }
    }
}

const CHAIN: &[(&str, &str)] = &[
    (
        "assets/raw.yml",
        "ingest:\n  from: files\n  streams:\n    sales:\n      path: '{{ partition.key }}.csv'\n      partition: { daily: day, start: 2024-01-01 }\n      columns: { day: date, amount: bigint }\n",
    ),
    (
        "assets/gold/daily.sql",
        "/* subak\npartition: { daily: day, start: 2024-01-01 }\n*/\nselect day, sum(amount)::bigint as amount, '{{ run.id }}' as run from sales where day >= {{ partition.start }} and day < {{ partition.end }} group by day;\n",
    ),
    (
        "assets/gold/monthly.sql",
        "/* subak\npartition: { monthly: month, start: 2024-01-01 }\n*/\nselect date_trunc('month', day)::date as month, sum(amount)::bigint as amount from gold.daily where day >= {{ partition.start }} and day < {{ partition.end }} group by 1\n",
    ),
    ("assets/gold/total.sql", "/* subak\nstored_as: table\n*/\nselect sum(amount)::bigint as amount from gold.daily\n"),
];

fn chain(days: u32) -> Sandbox {
    let sandbox = project(CHAIN);
    for day in 1..=days {
        sandbox
            .write(&format!("input/2024-01-{day:02}.csv"), &format!("day,amount\n2024-01-{day:02},{day}\n2024-01-{day:02},1\n"));
    }
    sandbox
}

/// T-104, T-130, T-143, T-169: what is missing comes by itself; what changed makes what reads it due, and nothing else.
#[test]
fn what_is_due_follows_the_partitions() {
    let sandbox = chain(31);
    let planned = sandbox.run(&["plan", "--as-of", "2024-01-04"]).expect(0);
    assert_eq!(planned.out.lines().filter(|line| line.contains("missing")).count(), 7, "{}", planned.out);
    sandbox.run(&["run", "--as-of", "2024-01-04"]).expect(0);
    assert_eq!(
        read(&sandbox, "select day, amount from gold.daily order by day"),
        ["2024-01-01,2", "2024-01-02,3", "2024-01-03,4"]
    );
    let again = sandbox.run(&["run", "--as-of", "2024-01-04"]).expect(0);
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    let before = read(&sandbox, "select day, run from gold.daily order by day");
    // Another day, and one that came late.
    sandbox.write("input/2024-01-02.csv", "day,amount\n2024-01-02,100\n");
    sandbox.run(&["run", "sales", "--partition", "2024-01-02", "--as-of", "2024-01-04"]).expect(0);
    let planned = sandbox.run(&["plan", "--as-of", "2024-01-05"]).expect(0);
    for step in ["sales[2024-01-04]", "gold.daily[2024-01-02]  upstream_newer", "gold.daily[2024-01-04]", "gold.total"] {
        assert!(planned.out.contains(step), "{step}: {}", planned.out);
    }
    assert!(!planned.out.contains("gold.daily[2024-01-03]") && !planned.out.contains("gold.monthly"), "{}", planned.out);
    sandbox.run(&["run", "--as-of", "2024-01-05"]).expect(0);
    let after = read(&sandbox, "select day, run from gold.daily order by day");
    assert_eq!([&before[0], &before[2]], [&after[0], &after[2]], "other days stay as they were");
    assert_eq!(read(&sandbox, "select amount from gold.total"), ["111"]);
    // The month has ended: all its days first.
    sandbox.run(&["run", "--as-of", "2024-02-01"]).expect(0);
    assert_eq!(read(&sandbox, "select month, amount from gold.monthly"), ["2024-01-01,624"]);
    let listed = sandbox.run(&["partition", "list", "sales", "--as-of", "2024-02-01", "--limit", "2"]).expect(0);
    assert!(
        listed.out.contains("2024-01-31  done") && listed.err.contains("31 partitions: 31 done"),
        "{}{}",
        listed.out,
        listed.err
    );
}

/// Kills at every point of a run, then the same command: the tables of an undisturbed run.
#[test]
fn kills_lose_and_double_no_partition() {
    let read_all = |sandbox: &Sandbox| {
        let mut rows = read(sandbox, "select * from sales order by all");
        rows.extend(read(sandbox, "select day, amount from gold.daily order by all"));
        rows
    };
    let calm = chain(3);
    calm.run(&["run", "--as-of", "2024-01-04"]).expect(0);
    let expected = read_all(&calm);
    for point in subak_connect::crash::POINTS {
        let sandbox = chain(3);
        for _ in 0..3 {
            drop(sandbox.command(&["run", "--as-of", "2024-01-04"]).env("SUBAK_CRASH_AT", point).output().expect("starts"));
        }
        sandbox.run(&["run", "--as-of", "2024-01-04"]).expect(0);
        assert_eq!(read_all(&sandbox), expected, "killed at {point}");
        let again = sandbox.run(&["run", "--as-of", "2024-01-04"]).expect(0);
        assert!(again.err.contains("nothing to do"), "killed at {point}: {}", again.err);
    }
}

#[test]
fn what_does_not_belong_to_a_partition_is_refused() {
    let sandbox = chain(2);
    let run = |arguments: &[&str]| sandbox.run(&[&["run", "--as-of", "2024-01-03"], arguments].concat());
    for (partition, said) in [
        ("2024-01-03", "has daily ones from `2024-01-01` to `2024-01-02`"),
        ("yesterday", "`sales` has no partition `yesterday`"),
        ("2024-01-02..2024-01-01", "comes before"),
    ] {
        let refused = run(&["sales", "--partition", partition]).expect(2);
        assert!(refused.err.contains(said), "{partition}: {}", refused.err);
    }
    assert!(run(&["gold.total", "--partition", "latest"]).expect(2).err.contains("none of the selected assets has partitions"));
    // A row of another day fails its partition, and nothing of it is published.
    run(&["sales"]).expect(0);
    sandbox.write("input/2024-01-02.csv", "day,amount\n2024-01-02,5\n2024-01-01,9\n");
    let stray = run(&["sales", "--partition", "2024-01-02"]).expect(1);
    assert!(
        stray.err.contains("1 rows do not belong to partition `2024-01-02` of `sales`: day=2024-01-01, amount=9"),
        "{}",
        stray.err
    );
    assert_eq!(read(&sandbox, "select sum(amount) from sales"), ["5"]);
    // A file that is not there is no empty partition.
    std::fs::remove_file(sandbox.path().join("input/2024-01-02.csv")).expect("removed");
    let missing = run(&["sales", "--partition", "latest"]);
    assert_ne!(missing.code, Some(0), "{}", missing.err);
    assert_eq!(read(&sandbox, "select sum(amount) from sales"), ["5"]);
    assert!(
        sandbox.run(&["partition", "add", "days", "x"]).expect(2).err.contains("there is no set of dynamic partitions `days`")
    );
    // An empty file is one.
    sandbox.write("input/2024-01-02.csv", "day,amount\n");
    run(&["sales", "--partition", "2024-01-02"]).expect(0);
    assert_eq!(read(&sandbox, "select sum(amount) from sales"), ["2"]);
}

/// A table that is gone, a partition that became empty, a hook that failed: nothing of that is forgotten.
#[test]
fn what_is_gone_is_loaded_again() {
    let sandbox = chain(4);
    let run = |arguments: &[&str]| sandbox.run(&[&["run", "--as-of", "2024-01-05"], arguments].concat());
    run(&["sales"]).expect(0);
    // The table is gone, and one partition of it comes back: the others are missing, also for the run after that.
    std::fs::remove_file(sandbox.path().join("warehouse.duckdb")).expect("removed");
    run(&["sales", "--partition", "latest"]).expect(0);
    assert_eq!(read(&sandbox, "select count(distinct day) from sales"), ["1"]);
    run(&["sales"]).expect(0);
    assert_eq!(read(&sandbox, "select count(distinct day) from sales"), ["4"]);
    assert!(run(&["sales"]).expect(0).err.contains("nothing to do"));
    // Empty, with a column that is new.
    sandbox.write("input/2024-01-02.csv", "day,amount,note\n");
    run(&["sales", "--partition", "2024-01-02"]).expect(0);
    assert_eq!(read(&sandbox, "select count(distinct day) from sales"), ["3"]);
    // A statement behind the rows fails: the partition is due until it has run.
    let hooked =
        CHAIN[0].1.replace("      columns:", "      hooks: { after: [ \"insert into log values (1)\" ] }\n      columns:");
    sandbox.write("assets/raw.yml", &hooked);
    run(&["sales", "--partition", "2024-01-03"]).expect(1);
    let planned = sandbox.run(&["plan", "sales", "--as-of", "2024-01-05"]).expect(0);
    assert!(planned.out.contains("sales[2024-01-03]  last_failed"), "{}", planned.out);
    duckdb::Connection::open(sandbox.path().join("warehouse.duckdb"))
        .expect("open")
        .execute_batch("create table log (n int)")
        .expect("log");
    run(&["sales"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*) from log"), ["1"]);
    assert!(run(&["sales"]).expect(0).err.contains("nothing to do"));
    let refused = sandbox.run(&["quarantine", "replay", "sales"]).expect(2);
    assert!(refused.err.contains("`sales` has partitions"), "{}", refused.err);
}

/// T-122: partitions that are cut in another way are not taken for those that were made, and what is left of those is told.
#[test]
fn t_122_partitions_cut_otherwise() {
    let asset = |partition: &str| {
        format!(
            "/* subak\nstored_as: incremental\npartition: {partition}\n*/\nselect cast({{{{ partition.start }}}} as date) as day, 1 as n\n"
        )
    };
    let daily = |start: &str, more: &str| asset(&format!("{{ daily: day, start: {start}, end: 2024-01-05{more} }}"));
    let sandbox = project(&[("assets/gold/days.sql", &daily("2024-01-01", ""))]);
    let listed = || {
        let listed = sandbox.run(&["partition", "list", "gold.days", "--output", "csv"]).expect(0);
        let rows = listed.out.lines().skip(1).map(|row| row.split(',').take(2).collect::<Vec<_>>().join(" "));
        (rows.collect::<Vec<_>>().join(", "), listed.err)
    };
    sandbox.run(&["run"]).expect(0);
    assert_eq!(listed().0, "2024-01-04 done, 2024-01-03 done, 2024-01-02 done, 2024-01-01 done");
    sandbox.write("assets/gold/days.sql", &daily("2024-01-03", ""));
    let (rows, told) = listed();
    assert_eq!(rows, "2024-01-04 done, 2024-01-03 done, 2024-01-02 undeclared, 2024-01-01 undeclared");
    assert!(told.contains("2 were made when `partition:` said something else"), "{told}");
    // What was made at a later time is a partition as well.
    let earlier = sandbox.run(&["partition", "list", "gold.days", "--as-of", "2024-01-04", "--output", "csv"]).expect(0);
    assert!(earlier.out.contains("2024-01-04,done") && !earlier.out.contains("2024-01-04,undeclared"), "{}", earlier.out);
    // The same keys on another clock are other days.
    sandbox.write("assets/gold/days.sql", &daily("2024-01-01", ", timezone: Asia/Jakarta"));
    assert_eq!(listed().0, "2024-01-04 outdated, 2024-01-03 outdated, 2024-01-02 outdated, 2024-01-01 outdated");
    sandbox.write("assets/gold/days.sql", &asset("{ monthly: day, start: 2024-01-01, end: 2024-02-01 }"));
    let (rows, _) = listed();
    assert!(rows.starts_with("2024-01 missing, 2024-01-04 undeclared"), "{rows}");
    assert_eq!(read(&sandbox, "select count(*) from gold.days"), ["4"]);
}

/// A source that knows the column is asked for the rows of the partition only.
#[test]
fn a_table_is_read_by_its_partitions() {
    let sandbox = project(&[(
        "assets/app.yml",
        "ingest:\n  from: app\n  streams:\n    orders: { partition: { daily: at, start: 2024-01-01, timezone: Asia/Jakarta }, columns: { at: datetime } }\n",
    )]);
    let app = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    app.execute_batch(
        "create table orders (id integer, at text);
         insert into orders values (1, '2024-01-01 00:00:00'), (2, '2024-01-01 23:59:59'), (3, '2024-01-02 00:00:00'), (4, null)",
    )
    .expect("rows");
    sandbox.run(&["run", "--partition", "2024-01-01", "--as-of", "2024-01-03"]).expect(0);
    assert_eq!(read(&sandbox, "select id from orders order by id"), ["1", "2"]);
    sandbox.run(&["run", "--as-of", "2024-01-03"]).expect(0);
    assert_eq!(read(&sandbox, "select id from orders order by id"), ["1", "2", "3"]);
    app.execute_batch("delete from orders where id = 1; update orders set at = '2024-01-02 12:00:00' where id = 2")
        .expect("changed");
    sandbox.run(&["run", "--partition", "all", "--as-of", "2024-01-03"]).expect(0);
    assert_eq!(read(&sandbox, "select id from orders order by id"), ["2", "3"]);
}

const LOADED: &str = "select 'sales', day, amount from sales union all select 'daily', day, amount from gold.daily order by all";

/// T-133, T-134, T-135, T-141: one day that fails holds up what reads it and nothing else; another backfill takes up the rest.
#[test]
fn a_backfill_tries_everything_once() {
    let sandbox = chain(7);
    sandbox.write("input/2024-01-04.csv", "day,amount\n2024-01-05,1\n");
    let backfill = |arguments: &[&str]| sandbox.run(&[&["backfill"], arguments, &["--as-of", "2024-01-08"]].concat());
    let shown = backfill(&["start", "sales", "gold.daily", "--partition", "all", "--dry-run"]).expect(0);
    assert!(shown.out.contains("sales                7") && shown.out.contains("2024-01-01..2024-01-07"), "{}", shown.out);
    assert!(backfill(&["list"]).expect(0).err.contains("there are no backfills yet"));
    let first = backfill(&["start", "sales", "gold.daily", "--partition", "all", "--per-run", "3"]).expect(1);
    assert!(
        first.out.contains("failed: 12 of 14 partitions done, 1 failed, 1 not made because of that"),
        "{}{}",
        first.out,
        first.err
    );
    assert!(!read(&sandbox, LOADED).iter().any(|row| row.contains("2024-01-04")));
    sandbox.write("input/2024-01-04.csv", "day,amount\n2024-01-04,4\n");
    let runs = sandbox.run(&["run", "list", "--output", "csv"]).expect(0).out.lines().count() - 1;
    assert_eq!(runs, 5, "14 partitions, 3 in a run");
    let rest = backfill(&["start", "sales", "gold.daily", "--partition", "failed,missing"]).expect(0);
    assert!(rest.out.contains("succeeded: 2 of 2 partitions done"), "{}", rest.out);
    assert_eq!(read(&sandbox, "select sum(amount) from gold.daily"), ["34"]);
    let nothing = backfill(&["start", "sales", "--partition", "missing"]).expect(0);
    assert!(nothing.err.contains("nothing to do"), "{}", nothing.err);
    let refused = backfill(&["start", "gold.daily", "gold.monthly", "--partition", "all", "--newest-first"]);
    // No month has ended, so days alone are left.
    assert_eq!(refused.code, Some(0), "{}", refused.err);
    let late = sandbox.run(&[
        "backfill",
        "start",
        "gold.daily",
        "gold.monthly",
        "--partition",
        "all",
        "--newest-first",
        "--as-of",
        "2024-02-01",
    ]);
    assert!(late.expect(2).err.contains("different lengths"));
    assert!(backfill(&["cancel", "last"]).expect(6).err.contains("it is succeeded"));
    assert!(backfill(&["show", "nonsense"]).expect(2).err.contains("there is no backfill"));
}

/// T-137: a process that dies at any point, however often: the backfill goes on, and each day is there once.
#[test]
fn a_backfill_survives_kills() {
    let calm = chain(5);
    let start = ["backfill", "start", "sales", "gold.daily", "--partition", "all", "--per-run", "4", "--as-of", "2024-01-06"];
    calm.run(&start).expect(0);
    let expected = read(&calm, LOADED);
    for point in subak_connect::crash::POINTS {
        let sandbox = chain(5);
        let died = sandbox.finish(sandbox.command(&start).env("SUBAK_CRASH_AT", point));
        assert_ne!(died.code, Some(0), "killed at {point}");
        for _ in 0..2 {
            drop(sandbox.command(&["backfill", "resume", "last"]).env("SUBAK_CRASH_AT", point).output().expect("starts"));
        }
        let done = sandbox.run(&["backfill", "resume", "last"]);
        // At points that come late in a run the kills may have left nothing to do.
        assert!(done.code == Some(0) || done.err.contains("it is succeeded"), "killed at {point}: {}", done.err);
        assert_eq!(read(&sandbox, LOADED), expected, "killed at {point}");
        let shown = sandbox.run(&["backfill", "show", "last"]).expect(0);
        assert!(shown.err.contains("succeeded: 10 done, 0 failed"), "killed at {point}: {}", shown.err);
    }
}

/// T-136, T-140: a server goes on with it, in runs that others can come between; it is paused, goes on and is given up.
#[test]
fn a_server_goes_on_with_a_backfill() {
    let sandbox = chain(31);
    let serve = || {
        let mut command = sandbox.command(&["server", "start", "--wait", "20"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    };
    let until = |said: &str| {
        for _ in 0..600 {
            let shown = sandbox.run(&["backfill", "show", "last"]);
            if shown.err.contains(said) {
                return shown.err;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited in vain for `{said}`: {}", sandbox.run(&["backfill", "show", "last"]).err);
    };
    let mut server = serve();
    served::wait(sandbox.path());
    let start = |partition: &str| {
        let words =
            ["backfill", "start", "sales", "--partition", partition, "--per-run", "1", "--newest-first", "--as-of", "2024-02-01"];
        sandbox.run(&words).expect(0)
    };
    assert!(start("2024-01-01..2024-01-05").err.contains("the server goes on with it"));
    until("succeeded: 5 done");
    assert_eq!(read(&sandbox, "select count(distinct day) from sales"), ["5"]);
    // Killed in the middle, and another one goes on.
    start("all");
    until(" done, 0 failed");
    server.kill().expect("killed");
    server.wait().expect("it ends");
    sandbox.run(&["backfill", "pause", "last"]).expect(0);
    let mut server = serve();
    served::wait(sandbox.path());
    let done = || until("is paused").split(" done").next().map(str::to_owned);
    std::thread::sleep(Duration::from_secs(2));
    let paused = done();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(done(), paused, "nothing is started while it is paused");
    sandbox.run(&["backfill", "resume", "last"]).expect(0);
    until("succeeded: 31 done");
    assert_eq!(read(&sandbox, "select count(*), count(distinct day) from sales"), ["62,31"]);
    start("all");
    sandbox.run(&["backfill", "cancel", "last"]).expect(0);
    until("is canceled");
    server.kill().expect("killed");
    server.wait().expect("it ends");
}

/// The example does what its README says.
#[test]
fn the_example_of_prices_runs() {
    let sandbox = project(&[]);
    sandbox.copy(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/prices"), ".");
    sandbox.run(&["validate"]).expect(0);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        read(&sandbox, "select date, trades from gold.daily_prices order by 1"),
        ["2018-01-21,40", "2018-01-22,41", "2018-01-23,42"]
    );
    assert_equals(&sandbox, "prices", "s003_partitions/expected/after_step3.csv");
    let same = sandbox.run(&["run", "prices", "--partition", "2018-01-22"]).expect(0);
    assert!(same.out.contains("0 rows written"), "{}", same.out);
    let backfill =
        sandbox.run(&["backfill", "start", "prices", "gold.daily_prices", "--partition", "all", "--per-run", "2"]).expect(0);
    assert!(backfill.out.contains("succeeded: 6 of 6 partitions done"), "{}", backfill.out);
    let text = std::fs::read_to_string(sandbox.path().join("input/2018-01-22.csv")).expect("a file");
    let (header, rows) = text.split_once('\n').expect("rows");
    let (first, rest) = rows.split_once('\n').expect("rows");
    let mut cells: Vec<&str> = first.split(',').collect();
    cells[1] = "0";
    sandbox.write("input/2018-01-22.csv", &format!("{header}\n{}\n{rest}", cells.join(",")));
    assert!(sandbox.run(&["run", "prices", "--partition", "2018-01-22"]).expect(1).err.contains("range(share_price)"));
    let listed = sandbox.run(&["partition", "list", "prices", "--state", "failed"]).expect(0);
    assert!(listed.out.contains("2018-01-22  failed") && !listed.out.contains("2018-01-21"), "{}", listed.out);
    let why = sandbox.run(&["why", "prices"]).expect(0);
    assert!(why.out.contains("step `prices[2018-01-22]`") && why.out.contains("is failed"), "{}", why.out);
    cells[1] = "1.00";
    sandbox.write("input/2018-01-22.csv", &format!("{header}\n{}\n{rest}", cells.join(",")));
    sandbox.run(&["run", "prices", "--partition", "failed"]).expect(0);
    let planned = sandbox.run(&["plan"]).expect(0);
    assert!(
        planned.out.contains("gold.daily_prices[2018-01-22]  upstream_newer") && !planned.out.contains("2018-01-21"),
        "{}",
        planned.out
    );
    sandbox.run(&["automation", "test", "daily"]).expect(0);
}

/// A file for each country and day, what is made of a day out of all countries, a balance that reads the day before, and the sum of two days.
fn countries() -> Sandbox {
    let sales = "ingest:\n  from: files\n  streams:\n    sales:\n      path: '{{ partition.keys.country }}/{{ partition.keys.day }}.csv'\n      \
                 partition:\n        dimensions:\n          day: { daily: day, start: 2024-01-01 }\n          country: { static: [ sg, id ], column: country }\n      \
                 columns: { day: date, country: text, amount: bigint }\n";
    let daily = "/* subak\npartition: { daily: day, start: 2024-01-01 }\n*/\nselect day, sum(amount)::bigint as amount from sales \
                 where day = cast({{ partition.start }} as date) group by day\n";
    let balance = "/* subak\npartition: { daily: day, start: 2024-01-01, needs_previous: true }\n*/\n\
                   select cast({{ partition.start }} as date) as day, amount + {% if is_incremental() %}coalesce((select balance from {{ this }} \
                   where day = cast({{ partition.start }} as date) - 1), 0){% else %}0{% endif %} as balance \
                   from gold.daily where day = cast({{ partition.start }} as date)\n";
    let change = "/* subak\npartition: { daily: day, start: 2024-01-01, reads: { gold.daily: { from: -1, to: 0 } } }\n*/\n\
                  select cast({{ partition.start }} as date) as day, sum(amount)::bigint as two_days from gold.daily \
                  where day between cast({{ partition.start }} as date) - 1 and cast({{ partition.start }} as date)\n";
    let sandbox = project(&[
        ("assets/files.yml", sales),
        ("assets/gold/daily.sql", daily),
        ("assets/gold/balance.sql", balance),
        ("assets/gold/change.sql", change),
    ]);
    for day in 1..=4 {
        give_day(&sandbox, "id", day, day);
        give_day(&sandbox, "sg", day, 10 * day);
    }
    sandbox
}

fn give_day(sandbox: &Sandbox, country: &str, day: u32, amount: u32) {
    let text = format!("day,country,amount\n2024-01-0{day},{country},{amount}\n");
    sandbox.write(&format!("input/{country}/2024-01-0{day}.csv"), &text);
}

/// T-115, T-118, T-119, T-132.
#[test]
fn t_119_t_132_partitions_of_several_dimensions() {
    let sandbox = countries();
    sandbox.run(&["run", "--as-of", "2024-01-05"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*), sum(amount) from sales"), ["8,110"]);
    let balances = || read(&sandbox, "select balance from gold.balance order by day");
    let changes = || read(&sandbox, "select two_days from gold.change order by day");
    assert_eq!(
        (balances(), changes()),
        (
            vec!["11".to_owned(), "33".into(), "66".into(), "110".into()],
            vec!["11".to_owned(), "33".into(), "55".into(), "77".into()]
        )
    );
    assert!(sandbox.run(&["run", "--as-of", "2024-01-05"]).expect(0).err.contains("nothing to do"));
    // One country of one day: its day, the balances from there on, and what reads the day before.
    give_day(&sandbox, "id", 2, 100);
    sandbox.run(&["run", "sales", "--partition", "id|2024-01-02", "--as-of", "2024-01-05"]).expect(0);
    let planned = sandbox.run(&["plan", "--as-of", "2024-01-05"]).expect(0).out;
    for (step, is_due) in [
        ("gold.daily[2024-01-01]", false),
        ("gold.daily[2024-01-02]", true),
        ("gold.daily[2024-01-03]", false),
        ("gold.balance[2024-01-01]", false),
        ("gold.balance[2024-01-02]", true),
        ("gold.balance[2024-01-04]", true),
        ("gold.change[2024-01-02]", true),
        ("gold.change[2024-01-03]", true),
        ("gold.change[2024-01-04]", false),
        ("sales[", false),
    ] {
        assert_eq!(planned.contains(step), is_due, "{step}: {planned}");
    }
    sandbox.run(&["run", "--as-of", "2024-01-05"]).expect(0);
    assert_eq!(
        (balances(), changes()),
        (
            vec!["11".to_owned(), "131".into(), "164".into(), "208".into()],
            vec!["11".to_owned(), "131".into(), "153".into(), "77".into()]
        )
    );
    let listed = sandbox.run(&["partition", "list", "sales", "--as-of", "2024-01-05"]).expect(0);
    assert!(
        listed.out.contains("id|2024-01-04  done") && listed.err.contains("8 partitions: 8 done"),
        "{}{}",
        listed.out,
        listed.err
    );
}

/// T-142: picks of one dimension, a backfill that cannot go backwards, rows that are of another partition.
#[test]
fn t_142_backfills_of_dimensions() {
    let sandbox = countries();
    sandbox.run(&["run", "--as-of", "2024-01-05"]).expect(0);
    // A backfill of one country, and one that cannot go backwards.
    let started =
        sandbox.run(&["backfill", "start", "sales", "--partition", "sg", "--as-of", "2024-01-05", "--dry-run"]).expect(0);
    assert!(started.out.contains('4') || started.err.contains('4'), "{}{}", started.out, started.err);
    sandbox.run(&["backfill", "start", "sales+", "--partition", "2024-01-02..2024-01-03", "--as-of", "2024-01-05"]).expect(0);
    assert_eq!(read(&sandbox, "select balance from gold.balance order by day"), ["11", "33", "66", "110"]);
    sandbox
        .run(&["backfill", "start", "gold.balance", "--partition", "all", "--newest-first", "--as-of", "2024-01-05"])
        .expect(2);
    // Rows of another country are not of the partition.
    sandbox.write("input/id/2024-01-03.csv", "day,country,amount\n2024-01-03,sg,1\n");
    let wrong = sandbox.run(&["run", "sales", "--partition", "id|2024-01-03", "--as-of", "2024-01-05"]).expect(1);
    assert!(wrong.err.contains("rows do not belong to partition `id|2024-01-03`"), "{}", wrong.err);
    let unknown = sandbox.run(&["run", "sales", "--partition", "my|2024-01-03", "--as-of", "2024-01-05"]).expect(2);
    assert!(unknown.err.contains("a key is one of each dimension"), "{}", unknown.err);
}
