//! Sensors: what is new starts one run, whatever dies when.

use std::collections::BTreeSet;
use std::time::Duration;

use subak_testkit::{HttpDouble, HttpReply, Sandbox, Served};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: watched\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n";

const FILES: &str = "job: load
params: { path: {} }
runs_max: 4
tasks: { a: { run: \"echo {{ params.path }} >> log\" } }
---
sensor: arrivals
watch: { files: { pattern: 'in/*.csv', settle: 1s } }
min_interval: 1s
start: { job: load, set: { path: '{{ item.path }}' } }
";

fn put(served: &Served, name: &str, text: &str) {
    let path = served.sandbox.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, text).expect("written");
}

fn sorted(served: &Served, name: &str) -> Vec<String> {
    let mut lines = served.lines(name);
    lines.sort();
    lines
}

/// S3-17: a file that comes starts exactly one run, also after a restart; what is half written, hidden or changed since is told apart.
#[test]
fn s3_17_a_file_starts_one_run() {
    let mut served = Served::new(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", FILES)]);
    put(&served, "in/a.csv", "1");
    put(&served, "in/.b.csv", "half");
    put(&served, "in/c.txt", "other");
    served.wait("the run of a", |served| served.lines("log") == ["in/a.csv"]);
    served.kill();
    put(&served, "in/b.csv", "1");
    served.start();
    served.wait("the run of b", |served| served.lines("log").len() == 2);
    put(&served, "in/a.csv", "1, 2");
    served.wait("another run of a", |served| served.lines("log").len() == 3);
    assert_eq!(served.lines("log"), ["in/a.csv", "in/b.csv", "in/a.csv"]);
    let ticks = served.ticks("arrivals");
    assert_eq!(ticks.iter().filter(|tick| tick.ends_with(",started")).count(), 3, "{ticks:?}");
    let listed = served.sandbox.run(&["automation", "list", "--output", "csv"]).expect(0).out;
    assert!(listed.contains("arrivals,sensor,files in/*.csv,load,on,"), "{listed}");
}

/// T-84, T-86: a crash before or behind the transaction of a look neither loses nor doubles a run.
#[test]
fn t_84_a_crash_neither_loses_nor_doubles_a_run() {
    for point in ["look_planned", "look_written"] {
        let mut served = Served::unstarted(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", FILES)]);
        for name in ["a", "b", "c"] {
            put(&served, &format!("in/{name}.csv"), name);
        }
        served.start_with(&[], &[("SUBAK_CRASH_AT", point)]);
        served.ended();
        assert!(served.lines("log").is_empty(), "{point}");
        served.start();
        served.wait("the runs", |served| served.lines("log").len() >= 3);
        put(&served, "in/d.csv", "d");
        served.wait("the run of d", |served| served.lines("log").len() >= 4);
        assert_eq!(sorted(&served, "log"), ["in/a.csv", "in/b.csv", "in/c.csv", "in/d.csv"], "{point}");
    }
}

/// T-87: a look that fails leaves the cursor as it was. T-89: a sensor that was off goes on where it was. T-95: one that never answers delays no
/// other.
#[test]
fn t_87_t_89_t_95_looks_fail_by_themselves() {
    let jobs = "job: note
params: { id: {} }
tasks: { a: { run: \"echo {{ params.id }} >> log\" } }
---
sensor: rows
watch: { query: { on: app, sql: 'select id from orders where id > {{ cursor }}', cursor: id, from: 1 } }
min_interval: 1s
start: { job: note, set: { id: '{{ item.id }}' } }
---
sensor: stuck
watch: { run: 'sleep 600' }
timeout: 1h
start: { job: note, set: { id: stuck } }
---
sensor: late
watch: { run: 'sleep 600' }
timeout: 1s
min_interval: 1s
start: { job: note, set: { id: late } }
";
    let project = format!("{PROJECT}  app: {{ type: duckdb, path: app.duckdb }}\n");
    let mut served = Served::unstarted(BINARY, &[("subak.yml", &project), ("jobs/jobs.yml", jobs)]);
    let app = |sql: &str| drop(served_query(&served.sandbox, sql));
    app("create table orders as select * from (values (1), (2), (3)) as t (id)");
    served.start();
    served.wait("two runs", |served| served.lines("log").len() == 2);
    served.wait("a timeout", |served| served.ticks("late").iter().any(|tick| tick.ends_with(",failed")));
    served.sandbox.run(&["automation", "off", "rows"]).expect(0);
    served.kill();
    served_query(&served.sandbox, "alter table orders rename to gone");
    served.sandbox.run(&["automation", "on", "rows"]).expect(0);
    served.start();
    served.wait("a failure", |served| served.ticks("rows").iter().any(|tick| tick.ends_with(",failed")));
    served.kill();
    served_query(&served.sandbox, "alter table gone rename to orders");
    served_query(&served.sandbox, "insert into orders values (4)");
    served.start();
    served.wait("the third run", |served| served.lines("log").len() == 3);
    assert_eq!(sorted(&served, "log"), ["2", "3", "4"]);
    let failed = served.ticks("rows").iter().filter(|tick| tick.ends_with(",failed")).count();
    assert_eq!(failed, 1, "one failure that goes on is one tick");
}

/// T-88: a sensor looks once at a time, and its interval counts from the beginning of a look.
#[test]
fn t_88_one_look_at_a_time() {
    let jobs = "job: note\ntasks: { a: { run: 'true' } }\n---\nsensor: slow\nmin_interval: 3s\nstart: note\n\
                watch: { run: 'echo begin $(date +%s%N) >> looks; sleep 2; echo \"{}\" > $SUBAK_VALUE_PATH; echo end $(date +%s%N) >> looks' }\n";
    let served = Served::new(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", jobs)]);
    served.wait("some looks", |served| served.lines("looks").len() >= 8);
    let looks: Vec<(String, i64)> = served
        .lines("looks")
        .iter()
        .filter_map(|line| {
            let (what, at) = line.split_once(' ')?;
            Some((what.to_owned(), at.parse::<i64>().ok()? / 1_000_000))
        })
        .collect();
    assert!(looks.chunks_exact(2).all(|pair| pair[0].0 == "begin" && pair[1].0 == "end"), "{looks:?}");
    let begins: Vec<i64> = looks.iter().filter(|(what, _)| what == "begin").map(|(_, at)| *at).collect();
    // The moments are those of the program, which may begin a little behind its look.
    let pauses: Vec<i64> = begins.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= 2_300), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause < 4_900), "counted from the end it would be five seconds: {pauses:?}");
}

/// A statement on the database that a sensor watches, while nobody has it.
fn served_query(sandbox: &Sandbox, sql: &str) -> String {
    let path = sandbox.path().join("app.duckdb");
    let connection = duckdb::Connection::open(path).expect("open");
    connection.execute_batch(sql).expect("a statement");
    sql.to_owned()
}

/// T-90, T-91: sensors of jobs and assets begin with what happens from now on, and none starts itself.
#[test]
fn t_90_t_91_sensors_of_the_log_begin_now_and_start_nothing_of_their_own() {
    let jobs = "job: first
select: gold.one
---
job: second
params: { of: {} }
tasks: { a: { run: \"echo {{ params.of }} >> log\" } }
---
sensor: chain
watch: { job: [ first, second ] }
start: { job: second, set: { of: '{{ item.job }}' } }
---
sensor: updated
watch: { asset: [ gold.one, gold.two ], require: all }
start: { job: second, set: { of: '{{ items | map(attribute=\"asset\") | join(\"+\") }}' } }
";
    let one = "/* subak\nstored_as: table\n*/\nselect 1 as id\n";
    let files = [("subak.yml", PROJECT), ("jobs/jobs.yml", jobs), ("assets/gold/one.sql", one), ("assets/gold/two.sql", one)];
    let mut served = Served::unstarted(BINARY, &files);
    served.sandbox.run(&["run", "--job", "first"]).expect(0);
    served.start();
    served.wait("the first look", |served| {
        let shown = served.sandbox.command(&["automation", "show", "updated"]).output().expect("starts");
        String::from_utf8_lossy(&shown.stderr).contains("it looked last")
    });
    assert!(served.lines("log").is_empty(), "what was before does not count");
    served.sandbox.run(&["run", "gold.two", "--full-refresh"]).expect(0);
    served.sandbox.run(&["run", "--job", "second", "--set", "of=hand"]).expect(0);
    served.wait("the run behind it", |served| served.lines("log").len() >= 2);
    // The same rows again would be no change.
    served.sandbox.write("assets/gold/one.sql", &one.replace("select 1", "select 2"));
    served.sandbox.run(&["run", "gold.one"]).expect(0);
    served.wait("both assets", |served| served.lines("log").len() >= 3);
    // Of `second`, `chain` starts itself once for the run by hand, once for that of `updated`, and never for its own.
    served.wait("the last one", |served| served.lines("log").len() >= 4);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sorted(&served, "log"), ["gold.one+gold.two", "hand", "second", "second"]);
}

/// Files that hold partitions: the key comes from the event, the set grows, the run is for that partition. T-94.
#[test]
fn t_94_a_file_adds_its_partition() {
    let jobs = "job: load
select: silver.clients
---
sensor: clients
watch: { files: { pattern: 'in/*.csv', settle: 0s } }
min_interval: 1s
start: { job: load, partition: '{{ item.stem }}', add_to: clients }
";
    let asset = "/* subak
stored_as: incremental
partition: { dynamic: clients, column: client }
*/
select {{ partition.key }} as client, 1 as n
";
    let mut served =
        Served::unstarted(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", jobs), ("assets/silver/clients.sql", asset)]);
    served.sandbox.run(&["partition", "add", "clients", "acme"]).expect(0);
    put(&served, "in/acme.csv", "1");
    put(&served, "in/zoo.csv", "1");
    let tested = served.sandbox.run(&["automation", "test", "clients", "--output", "csv"]).expect(0);
    assert!(tested.out.contains(",load,,acme,") && tested.out.contains(",load,,zoo,"), "{}", tested.out);
    let keys = |served: &Served| {
        let listed =
            served.sandbox.command(&["partition", "list", "silver.clients", "--output", "csv"]).output().expect("starts");
        String::from_utf8_lossy(&listed.stdout).into_owned()
    };
    assert!(!keys(&served).contains("zoo"), "a test adds nothing");
    served.start();
    served.wait("both partitions", |served| keys(served).matches(",done,").count() == 2);
    served.kill();
    let rows =
        served.sandbox.run(&["query", "select client, n from silver.clients order by client", "--output", "csv"]).expect(0);
    assert_eq!(rows.out, "client,n\nacme,1\nzoo,1");
}

/// Programs say what to start, and go on from their cursor; answers over HTTP start a run when they are others.
#[test]
fn programs_and_answers_start_runs() {
    let program = "import json, os
cursor = int(os.environ['SUBAK_CURSOR'] or 0)
runs = [{'key': str(n), 'set': {'what': f'program {n}'}} for n in range(cursor, min(cursor + 2, 4))]
value = {'cursor': cursor + len(runs), 'runs': runs} if runs else {'skip': 'all are done'}
open(os.environ['SUBAK_VALUE_PATH'], 'w').write(json.dumps(value))
";
    let version = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(1));
    let told = std::sync::Arc::clone(&version);
    let server = HttpDouble::start(move |_| {
        HttpReply::json(format!("{{\"release\": {{ \"version\": {} }}}}", told.load(std::sync::atomic::Ordering::SeqCst)))
    });
    let jobs = format!(
        "job: note
params: {{ what: {{}} }}
runs_max: 4
tasks: {{ a: {{ run: \"echo {{{{ params.what }}}} >> log\" }} }}
---
sensor: program
watch: {{ python: program.py }}
min_interval: 1s
start: note
---
sensor: release
watch: {{ http: {{ url: '{}', value: body.release.version }} }}
min_interval: 1s
start: {{ job: note, set: {{ what: 'release {{{{ item }}}}' }} }}
",
        server.url()
    );
    let served = Served::new(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", &jobs), ("program.py", program)]);
    served.wait("the runs of the program", |served| served.lines("log").len() == 4);
    served.wait("a look at the answer", |_| server.requests().len() > 1);
    version.store(2, std::sync::atomic::Ordering::SeqCst);
    served.wait("the run of the release", |served| served.lines("log").len() == 5);
    assert_eq!(sorted(&served, "log"), ["program 0", "program 1", "program 2", "program 3", "release 2"]);
    served.wait("a look that finds nothing", |served| {
        let shown = served.sandbox.command(&["automation", "show", "program"]).output().expect("starts");
        String::from_utf8_lossy(&shown.stderr).contains("all are done")
    });
    let logs: BTreeSet<_> = std::fs::read_dir(served.sandbox.path().join(".subak/logs/sensors"))
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    assert!(logs.len() <= 1, "nobody keeps what looks printed that went well: {logs:?}");
}
