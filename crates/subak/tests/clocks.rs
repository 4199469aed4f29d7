//! A clock of the machine that jumps under a server.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use subak_testkit::Served;

#[path = "support/preload.rs"]
mod preload;
#[path = "support/served.rs"]
mod served;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const JOBS: &str = "job: often
schedule: { every: 1s }
tasks: { note: { run: 'echo $SUBAK_INTERVAL_END_UTC >> log' } }
---
job: long
tasks: { nap: { timeout: 40m, run: 'touch begun; while ! test -e go; do sleep 0.1; done; echo done >> long' } }
---
job: note
params: { at: {} }
tasks: { a: { run: 'echo {{ params.at }} >> seen' } }
---
sensor: looks
watch: { run: 'echo look >> looks; echo \"{}\" > $SUBAK_VALUE_PATH' }
min_interval: 1s
start: { job: note, set: { at: never } }
";

const HOUR: i64 = 3_600;

const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// Each tick is there once, and each that started a run has one line in the log.
#[track_caller]
fn assert_once(served: &Served) {
    let ticks = served.ticks("often");
    let moments: BTreeSet<&String> = ticks.iter().collect();
    assert_eq!(moments.len(), ticks.len(), "{ticks:?}");
    // More were missed in ten years than are listed.
    let state = rusqlite::Connection::open(served.sandbox.path().join(".subak/state.db")).expect("the state");
    let sql = "select count(*) from ticks where schedule = 'often' and outcome = 'started'";
    let started: i64 = state.query_row(sql, [], |row| row.get(0)).expect("a count");
    drop(state);
    let lines = served.lines("log");
    let distinct: BTreeSet<&String> = lines.iter().collect();
    assert_eq!((distinct.len(), usize::try_from(started)), (lines.len(), Ok(lines.len())), "{lines:?}");
}

/// FM-45, T-25: whatever the clock does, a server goes on, no tick comes twice, no step is ended before its time, who has the project keeps it, and
/// nothing goes that is to be kept.
#[test]
fn fm_45_clocks_jump() {
    let files = [
        ("subak.yml", "project: clocks\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n"),
        ("jobs/jobs.yml", JOBS),
    ];
    let mut served = Served::unstarted(BINARY, &files);
    let library = preload::library(served.sandbox.path(), "clock").display().to_string();
    let offset = served.sandbox.path().join("offset").display().to_string();
    let variables = [("LD_PRELOAD", library.as_str()), ("CLOCK_OFFSET", offset.as_str())];
    let put = |served: &Served, by: i64| {
        // All at once, as another clock is.
        served.sandbox.write("offset.new", &by.to_string());
        std::fs::rename(served.sandbox.path().join("offset.new"), served.sandbox.path().join("offset")).expect("moved");
    };
    let more = |served: &Served, file: &'static str, count: usize| {
        let before = served.lines(file).len();
        served.wait(file, move |served| served.lines(file).len() >= before + count);
    };
    served.start_with(&[], &variables);
    served::wait(served.sandbox.path());
    let mut long = served.sandbox.command(&["run", "--job", "long"]);
    let mut long = long.envs(variables).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    served.wait("the long run", |served| served.sandbox.path().join("begun").exists());
    more(&served, "log", 2);
    // To and fro, as when two sources of time disagree.
    for by in [3, 0, -3, 0, 3, -3, 0] {
        put(&served, by);
        std::thread::sleep(Duration::from_millis(700));
    }
    more(&served, "log", 2);
    for by in [HOUR, TEN_YEARS] {
        put(&served, by);
        more(&served, "log", 2);
        // Whoever comes meanwhile finds the server. Its right to act is renewed every five seconds.
        std::thread::sleep(Duration::from_secs(6));
        put(&served, by);
        let mut second = served.sandbox.command(&["server", "start"]);
        let refused = second.envs(variables).output().expect("starts");
        assert_eq!(refused.status.code(), Some(6), "{}", String::from_utf8_lossy(&refused.stderr));
    }
    // A clock that is put back: nothing is done a second time, and everything else goes on.
    for by in [HOUR, -HOUR, -TEN_YEARS] {
        put(&served, by);
        more(&served, "looks", 2);
        let told = format!("at={by}");
        served.sandbox.finish(served.sandbox.command(&["run", "--job", "note", "--set", &told]).envs(variables)).expect(0);
    }
    assert_eq!(served.lines("seen"), ["3600", "-3600", "-315360000"]);
    put(&served, 0);
    served.sandbox.write("go", "");
    assert_eq!(long.wait().expect("it ends").code(), Some(0), "no timeout was counted on such a clock");
    assert_eq!(served.lines("long"), ["done"]);
    assert_eq!(served.stop(), Some(0), "and it has ended by itself");
    assert_once(&served);
    // A server that begins while the clock is wrong takes away nothing that was kept until now.
    let runs = |served: &Served| {
        served.sandbox.run(&["run", "list", "--limit", "1000", "--output", "csv"]).expect(0).out.lines().count()
    };
    let count = runs(&served);
    let mark = |served: &Served| std::fs::read_to_string(served.sandbox.path().join(".subak/last_purge")).unwrap_or_default();
    let (before, looks) = (mark(&served), served.lines("looks").len());
    put(&served, TEN_YEARS);
    served.start_with(&[], &variables);
    served.wait("a look at what is old", |served| mark(served) != before && served.lines("looks").len() > looks);
    assert!(runs(&served) >= count);
}
