//! The server: ticks that come once, runs that other commands hand over, stops that wait.

#[path = "support/served.rs"]
mod served;

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use subak_engine::{Clock, SystemClock};
use subak_testkit::{Sandbox, Served};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: served\ntimezone: Asia/Jakarta\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n";

const JOBS: &str = "job: often
schedule: { every: 1s, timezone: America/New_York }
tasks:
  note: { run: \"echo $SUBAK_RUN_ID {{ run.as_of }} >> log; echo $SUBAK_INTERVAL_START_UTC,{{ run.interval.end_utc }} >> intervals\" }
---
job: never
schedule: { cron: '0 0 1 1 *', catchup: none }
select: gold.one
";

/// A served project with these jobs.
fn project(jobs: &str) -> Served {
    Served::new(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", jobs), ("assets/gold/one.sql", "select 1 as id\n")])
}

/// T-10, T-11, T-29: each tick starts one run, whatever dies when.
#[test]
fn t_29_a_tick_starts_one_run() {
    let mut served = project(JOBS);
    for round in 0..4 {
        let count = served.lines("log").len();
        served.wait("a run", |served| served.lines("log").len() > count + round % 2);
        served.kill();
        served.start();
    }
    let count = served.lines("log").len();
    served.wait("a run", |served| served.lines("log").len() > count);
    assert_eq!(served.stop(), Some(0));
    let ticks = served.ticks("often");
    let moments: BTreeSet<&str> = ticks.iter().filter_map(|tick| tick.split(',').next()).collect();
    assert_eq!(moments.len(), ticks.len(), "{ticks:?}");
    // A run that died may have written its line before; nothing is written twice.
    let lines = served.lines("log");
    let distinct: BTreeSet<&String> = lines.iter().collect();
    assert_eq!(distinct.len(), lines.len(), "{lines:?}");
    let started = ticks.iter().filter(|tick| tick.ends_with(",started")).count();
    assert!(started >= lines.len(), "{started} ticks started {} runs", lines.len());
    assert!(served.ticks("never").is_empty());
    // Runs are told the moment of their tick, on the clock of the project and not on that of the schedule.
    let moments: BTreeSet<jiff::Timestamp> = moments.iter().filter_map(|moment| moment.parse().ok()).collect();
    for line in lines {
        let wall = line.split_once(' ').and_then(|(_, wall)| wall.parse::<jiff::civil::DateTime>().ok()).expect("a time");
        let moment = wall.in_tz("Asia/Jakarta").expect("the zone").timestamp();
        assert!(moments.contains(&moment), "{line}");
    }
}

/// T-16, T-18, T-166: a run is about the time up to its tick, and goes on with that time; one that somebody starts is about the last one that ended.
#[test]
fn t_16_t_166_runs_are_about_a_time() {
    let mut served = project(JOBS);
    served.wait("some runs", |served| served.lines("intervals").len() > 3);
    assert_eq!(served.stop(), Some(0));
    let lines = served.lines("intervals");
    let moment = |text: &str| text.parse::<jiff::civil::DateTime>().expect("a time");
    for line in &lines {
        let (start, end) = line.split_once(',').expect("two");
        assert!(moment(start) < moment(end), "{line}");
    }
    // Whatever came between two that ran was not made good, and nothing is covered twice.
    assert!(
        lines.windows(2).all(|pair| pair[0].split_once(',').expect("two").1 <= pair[1].split_once(',').expect("two").0),
        "{lines:?}"
    );
    let job = "job: daily\nschedule: '@daily'\ntasks: { a: { run: 'echo {{ run.interval.start }} {{ run.interval.end }} >> days; test -e there' } }\n";
    served.sandbox.write("jobs/daily.yml", job);
    served.sandbox.run(&["--as-of", "2024-03-05 08:00:00", "run", "--job", "daily"]).expect(1);
    served.sandbox.write("jobs/daily.yml", &job.replace("@daily", "@yearly"));
    served.sandbox.write("there", "");
    served.sandbox.run(&["run", "resume", "last"]).expect(0);
    assert_eq!(served.lines("days"), ["2024-03-04 2024-03-05", "2024-03-04 2024-03-05"]);
    served.sandbox.write("jobs/daily.yml", "job: never\ntasks: { a: { run: 'echo {{ run.interval.start }}' } }\n");
    let refused = served.sandbox.run(&["validate"]).expect(2);
    assert!(refused.err.contains("a job with a `schedule` knows"), "{}", refused.err);
}

/// T-12, FM-47: `catchup: all` makes good each tick of the time in which no server ran, oldest first, and the intervals of their runs have no gap.
#[test]
fn t_12_all_missed_ticks_are_made_good() {
    let all = "job: all\nschedule: { every: 1s, catchup: all }\ntasks: { note: { run: 'echo $SUBAK_INTERVAL_START_UTC,$SUBAK_INTERVAL_END_UTC >> all' } }\n---\n\
               job: latest\nschedule: { every: 1s }\ntasks: { note: { run: 'echo x >> latest' } }\n---\n\
               job: none\nschedule: { every: 1s, catchup: none }\ntasks: { note: { run: 'echo x >> none' } }\n";
    let mut served = project(all);
    served.wait("a run", |served| !served.lines("all").is_empty());
    served.kill();
    let before = served.ticks("all").len();
    let killed_at = SystemClock.now();
    served.wait("six seconds", |_| SystemClock.now() > killed_at + Duration::from_secs(6));
    served.start();
    served.wait("what was missed", |served| served.ticks("all").len() > before + 6);
    served.sandbox.run(&["automation", "off", "all"]).expect(0);
    let count = served.ticks("all").len();
    served.wait("all of its runs", |served| served.lines("all").len() + 1 >= count);
    assert!(served.ticks("all").iter().all(|tick| tick.ends_with(",started")), "{:?}", served.ticks("all"));
    let skipped = served.ticks("latest").iter().filter(|tick| tick.ends_with(",skipped")).count();
    assert!(skipped >= 3, "{:?}", served.ticks("latest"));
    // A run that died may have written its line; none comes twice, and each begins where the one before it ends.
    let mut lines = served.lines("all");
    lines.sort();
    assert!(lines.windows(2).all(|pair| pair[0].split(',').nth(1) <= pair[1].split(',').next()), "{lines:?}");
}

/// T-14: a schedule that becomes another one counts from that moment, whatever it would have done before.
#[test]
fn t_14_a_changed_schedule_counts_from_now() {
    let job = |rule: &str| format!("job: changed\nschedule: {{ {rule}, catchup: all }}\ntasks: {{ note: {{ run: 'true' }} }}\n");
    let served = project(&job("cron: '0 0 1 1 *'"));
    served::wait(served.sandbox.path());
    let is_known = |served: &Served| {
        let state = rusqlite::Connection::open(served.sandbox.path().join(".subak/state.db")).expect("the state");
        state.query_row("select 1 from schedules where name = 'changed'", [], |row| row.get::<_, i64>(0)).is_ok()
    };
    served.wait("the schedule", is_known);
    std::thread::sleep(Duration::from_secs(2));
    let changed_at = SystemClock.now();
    served.sandbox.write("jobs/jobs.yml", &job("every: 1s"));
    served.wait("some ticks", |served| served.ticks("changed").len() > 2);
    for tick in served.ticks("changed") {
        let moment: jiff::Timestamp = tick.split(',').next().and_then(|moment| moment.parse().ok()).expect("a moment");
        assert!(moment > changed_at, "{tick} came before {changed_at}");
    }
}

/// T-28: a backfill of what a job makes leaves the job's schedule where it was. T-66, T-67: one step that is to be tried again keeps its backfill open,
/// and is not tried again once that is canceled.
#[test]
fn t_28_t_66_t_67_backfills_and_schedules_and_retries() {
    let days = "# /// subak\n# stored_as: outside\n# partition: { daily: day, start: 2024-01-01, end: 2024-01-05 }\n# retry: { attempts_max: 3, delay_first: 1h }\n# ///\n\
                echo $SUBAK_PARTITION >> days; test -e fails && exit 1; true\n";
    let jobs = "job: daily\nschedule: { cron: '0 0 1 1 *', catchup: all }\nselect: gold.days\n";
    let mut served = Served::new(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", jobs), ("assets/gold/days.sh", days)]);
    served::wait(served.sandbox.path());
    let schedule = |served: &Served| {
        let state = rusqlite::Connection::open(served.sandbox.path().join(".subak/state.db")).expect("the state");
        let told = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        state.query_row("select definition, since from schedules where name = 'daily'", [], told).expect("the schedule")
    };
    served.wait("the schedule", |served| served.sandbox.run(&["automation", "show", "daily"]).code == Some(0));
    let before = schedule(&served);
    let start = ["backfill", "start", "gold.days", "--partition", "all"];
    served.sandbox.run(&start).expect(0);
    served.wait("the backfill", |served| served.lines("days").len() == 4);
    let shown = |served: &Served| served.sandbox.run(&["backfill", "show", "last"]).expect(0).err;
    served.wait("its end", |served| shown(served).contains("succeeded: 4 done"));
    assert_eq!((schedule(&served), served.ticks("daily").len()), (before, 0));
    served.sandbox.write("fails", "");
    served.sandbox.run(&start).expect(0);
    served.wait("the first attempts", |served| served.lines("days").len() == 8);
    std::thread::sleep(Duration::from_secs(1));
    assert!(shown(&served).contains("running"), "{}", shown(&served));
    served.sandbox.run(&["backfill", "cancel", "last"]).expect(0);
    served.wait("its end", |served| shown(served).contains("is canceled"));
    let open = |served: &Served| {
        let state = rusqlite::Connection::open(served.sandbox.path().join(".subak/state.db")).expect("the state");
        state
            .query_row("select count(*) from runs where status in ('queued', 'running')", [], |row| row.get::<_, i64>(0))
            .expect("a count")
    };
    served.wait("the end of its run", |served| open(served) == 0);
    assert_eq!(served.lines("days").len(), 8, "nothing is tried again");
    assert_eq!(served.stop(), Some(0));
}

const GENTLE: &str = "job: leaves
pools: { one: 1 }
tasks: { a: { run: 'trap \"sleep 2; echo gone >> order; exit 1\" TERM; echo begun >> order; while true; do sleep 0.1; done' } }
---
job: follows
pools: { one: 1 }
tasks: { a: { run: 'echo follows >> order' } }
";

/// T-148: who is being canceled has its slot until it is gone.
#[test]
fn t_148_what_is_canceled_keeps_its_slot() {
    let subak = format!("{PROJECT}pools: {{ one: 1 }}\n");
    let served = Served::new(BINARY, &[("subak.yml", &subak), ("jobs/jobs.yml", GENTLE)]);
    served::wait(served.sandbox.path());
    let mut first = hand_over(&served, &["--job", "leaves"]);
    served.wait("the first one", |served| !served.lines("order").is_empty());
    let mut second = hand_over(&served, &["--job", "follows"]);
    served.wait("the second one", |served| served.sandbox.run(&["run", "list"]).out.contains("follows"));
    let listed = served.sandbox.command(&["run", "list", "--output", "csv"]).output().expect("starts").stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let run = listed.lines().find(|line| line.contains("leaves")).and_then(|line| line.split(',').next()).expect("a run");
    served.sandbox.run(&["run", "cancel", run]).expect(0);
    assert_eq!(first.wait().expect("it ends").code(), Some(130));
    assert_eq!(second.wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("order"), ["begun", "gone", "follows"]);
}

/// T-160: a run goes by the files that it began with, whatever they become.
#[test]
fn t_160_a_run_keeps_its_version() {
    let job = |what: &str| {
        format!(
            "job: kept\ntasks:\n  first: {{ run: 'echo first >> kept; while ! test -e go; do sleep 0.1; done' }}\n  \
             second: {{ needs: first, run: 'echo {what} >> kept' }}\n  third: {{ needs: second, asset: gold.one }}\n"
        )
    };
    let served = project(&job("old"));
    served::wait(served.sandbox.path());
    let mut run = hand_over(&served, &["--job", "kept"]);
    served.wait("the first task", |served| !served.lines("kept").is_empty());
    served.sandbox.write("jobs/jobs.yml", &job("new"));
    served.sandbox.write("assets/gold/one.sql", "select 2 as id\n");
    served.sandbox.write("jobs/other.yml", "job: other\ntasks: { a: { run: 'echo other >> other' } }\n");
    served.sandbox.run(&["run", "--job", "other"]).expect(0);
    served.sandbox.write("go", "");
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("kept"), ["first", "old"]);
    let rows = |served: &Served| served.sandbox.run(&["query", "select id from gold.one", "--output", "csv"]).expect(0).out;
    assert_eq!(rows(&served), "id\n1");
    assert_eq!(hand_over(&served, &["--job", "kept"]).wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("kept")[2..], ["first", "new"]);
    assert_eq!(rows(&served), "id\n2");
}

/// T-96, T-155: the right to act is kept, whatever takes its time: a look, or a program that answers nobody.
#[test]
fn t_96_t_155_work_does_not_hold_up_the_lease() {
    let jobs = "job: slow\ntasks: { a: { run: 'echo $$ > pid; while ! test -e go; do sleep 0.1; done' } }\n---\n\
                sensor: looks\nwatch: { run: 'echo look >> looks; while ! test -e go; do sleep 0.1; done' }\ntimeout: 1h\nstart: slow\n";
    let served = project(jobs);
    served::wait(served.sandbox.path());
    let mut run = hand_over(&served, &["--job", "slow"]);
    served.wait("the program, and the look", |served| !served.lines("pid").is_empty() && !served.lines("looks").is_empty());
    let stopped = std::process::Command::new("kill").args(["-STOP", &served.lines("pid")[0]]).status().expect("kill");
    assert!(stopped.success());
    let lease = |served: &Served| {
        let state = rusqlite::Connection::open(served.sandbox.path().join(".subak/state.db")).expect("the state");
        let told = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        state.query_row("select generation, expires_at from leases where holder is not null", [], told).expect("a lease")
    };
    let (generation, expires_at) = lease(&served);
    served.wait("two renewals", |served| lease(served).1 > expires_at + 9_000_000);
    assert_eq!(lease(&served).0, generation);
    let went_on = std::process::Command::new("kill").args(["-CONT", &served.lines("pid")[0]]).status().expect("kill");
    assert!(went_on.success());
    served.sandbox.write("go", "");
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
}

/// T-15: what came while a schedule was off is not made good; and its state outlives the server.
#[test]
fn t_15_a_schedule_that_is_off_starts_nothing() {
    let mut served = project(JOBS);
    served.wait("a run", |served| !served.lines("log").is_empty());
    served.sandbox.run(&["automation", "off", "often"]).expect(0);
    served.kill();
    served.start();
    let listed = served.sandbox.run(&["automation", "list"]).expect(0);
    assert!(listed.out.contains("off"), "{}", listed.out);
    // Something else that takes a moment, so that ticks would have come.
    served.sandbox.run(&["run", "gold.one"]).expect(0);
    let (count, ticks) = (served.lines("log").len(), served.ticks("often").len());
    std::thread::sleep(Duration::from_secs(3));
    assert!(served.lines("log").len() <= count + 1, "only what had begun");
    assert!(served.ticks("often").len() <= ticks + 1);
    served.sandbox.run(&["automation", "on", "often"]).expect(0);
    let ticks = served.ticks("often").len();
    served.wait("a run", |served| served.ticks("often").len() > ticks);
    assert!(served.ticks("often").len() <= ticks + 2, "nothing is made good");
}

/// A command that finds a server hands its run over; the end and the exit code are those of the run. T-74: a stop waits for what goes on.
#[test]
fn runs_are_handed_over() {
    let mut served = project(
        "job: ok\nparams: { day: { type: date } }\ntasks: { a: { run: \"echo {{ params.day }} >> log\" } }\n---\njob: bad\ntasks: { a: { run: \"exit 7\" } }\n\
         ---\njob: half\ntasks: { a: { run: \"echo first >> half\" }, b: { needs: a, run: \"test -e there && echo second >> half\" } }\n\
         ---\njob: slow\ntasks: { a: { run: \"echo begun >> log; sleep 2; echo ended >> log\" } }\n",
    );
    served::wait(served.sandbox.path());
    assert!(served.sandbox.run(&["run", "gold.one"]).expect(0).err.contains("handed run"));
    let ran = served.sandbox.run(&["run", "--job", "ok", "--set", "day=2025-01-31"]).expect(0);
    assert!(ran.err.contains("handed run") && ran.out.contains("1 step done"), "{}{}", ran.out, ran.err);
    assert_eq!(served.lines("log"), ["2025-01-31"]);
    let failed = served.sandbox.run(&["run", "--job", "bad"]).expect(1);
    assert!(failed.err.contains("the program ended with code 7"), "{}", failed.err);
    // T-64: what failed goes on there too, with what is not done; one that is done does not.
    let again = served.sandbox.run(&["run", "resume", "last"]).expect(1);
    assert!(again.err.contains("handed run") && again.err.contains("the program ended with code 7"), "{}", again.err);
    served.sandbox.run(&["run", "--job", "half"]).expect(1);
    served.sandbox.write("there", "");
    served.sandbox.run(&["run", "resume", "last"]).expect(0);
    assert_eq!(served.lines("half"), ["first", "second"]);
    let refused = served.sandbox.run(&["run", "resume", "last"]).expect(2);
    assert!(refused.err.contains("is succeeded and cannot be resumed"), "{}", refused.err);
    // A run means the files as they are when it is handed over, however soon behind a change that is.
    for number in 2..6 {
        served.sandbox.write("assets/gold/one.sql", &format!("/* subak\nstored_as: table\n*/\nselect {number} as id\n"));
        let ran = served.sandbox.run(&["run", "gold.one", "--output", "json"]).expect(0);
        let ran: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(ran["steps"][0]["changed"], true, "{ran}");
    }
    // A stop waits for the run that goes on.
    let mut slow =
        served.sandbox.command(&["run", "--job", "slow"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    served.wait("the slow run", |served| served.lines("log").contains(&"begun".to_owned()));
    assert_eq!(served.stop(), Some(0));
    assert_eq!(served.lines("log").last().map(String::as_str), Some("ended"));
    assert_eq!(slow.wait().expect("it ends").code(), Some(0));
    // Without a server a command does the work itself.
    served.sandbox.run(&["run", "--job", "ok", "--set", "day=2025-02-01"]).expect(0);
}

/// T-161, FM-49: what is broken goes on as it was, and so does everything else; also when the server is started again meanwhile.
#[test]
fn t_161_a_broken_file_stops_nothing() {
    let mut served = project(JOBS);
    served.wait("a run", |served| !served.lines("log").is_empty());
    served.sandbox.write("jobs/broken.yml", "job: broken\n");
    served.sandbox.write("assets/gold/one.sql", "selec 1 as id\n");
    served.sandbox.run(&["run", "gold.one"]).expect(2);
    let shown = served.sandbox.run(&["run", "list"]).expect(0);
    assert!(shown.err.contains("the version that could last be loaded"), "{}", shown.err);
    let count = served.lines("log").len();
    served.wait("runs of a broken project", |served| served.lines("log").len() > count + 2);
    served.kill();
    served.start();
    let count = served.lines("log").len();
    served.wait("runs behind a restart", |served| served.lines("log").len() > count + 1);
    // Each second has its tick, broken or not, but for those of the time when no server was there.
    let ticks = served.ticks("often");
    assert!(ticks.iter().filter(|tick| tick.ends_with(",started")).count() > 3, "{ticks:?}");
    assert!(!ticks.iter().any(|tick| tick.ends_with(",failed")), "{ticks:?}");
    std::fs::remove_file(served.sandbox.path().join("jobs/broken.yml")).expect("removed");
    served.sandbox.write("assets/gold/one.sql", "select 2 as id\n");
    served.sandbox.write("jobs/jobs.yml", &JOBS.replace("log", "mended"));
    served.wait("a run of what was mended", |served| !served.lines("mended").is_empty());
}

/// Without anything that could ever be loaded there is nothing to go on with.
#[test]
fn a_project_that_never_loaded_is_not_served() {
    let sandbox = Sandbox::new(BINARY, &[("subak.yml", "project: broken\nwarehous: x\n")]);
    let refused = sandbox.run(&["server", "start"]).expect(2);
    assert!(refused.err.contains("warehous"), "{}", refused.err);
}

/// Hands a run over and does not wait for it.
fn hand_over(served: &Served, arguments: &[&str]) -> Child {
    let mut command = served.sandbox.command(&[&["run", "--wait", "20"], arguments].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

const TOGETHER: &str = "job: slow
tasks: { a: { run: 'echo slow begins >> log; sleep 3; echo slow ends >> log' } }
---
job: quick
tasks: { a: { run: 'echo quick >> log' } }
---
job: first
tasks:
  nap: { run: 'echo first begins >> log; sleep 1; echo first ends >> log' }
  one: { needs: nap, asset: gold.one }
---
job: second
tasks:
  nap: { run: 'echo second begins >> log; sleep 1; echo second ends >> log' }
  one: { needs: nap, asset: gold.one }
";

/// Runs go on together, but for those of one job and those that bring one asset up to date (T-149: whoever waits holds up nobody else).
#[test]
fn t_149_runs_go_on_together_where_they_can() {
    let served = project(TOGETHER);
    served::wait(served.sandbox.path());
    let mut slow = [hand_over(&served, &["--job", "slow"])].into_iter().collect::<Vec<_>>();
    served.wait("the slow run", |served| served.lines("log").contains(&"slow begins".to_owned()));
    slow.push(hand_over(&served, &["--job", "slow"]));
    served.sandbox.run(&["run", "--job", "quick"]).expect(0);
    assert_eq!(served.lines("log"), ["slow begins", "quick"], "nothing waits for the slow one");
    for child in &mut slow {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    assert_eq!(served.lines("log")[2..], ["slow ends", "slow begins", "slow ends"], "runs of one job take turns");
    let mut both = [hand_over(&served, &["--job", "first"]), hand_over(&served, &["--job", "second"])];
    for child in &mut both {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    let lines = served.lines("log").split_off(5);
    let turns: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert!(turns == ["first", "first", "second", "second"] || turns == ["second", "second", "first", "first"], "{lines:?}");
}

const LIMITED: &str = "job: heavy
runs_max: 4
pools: { api: 2 }
timeout: 6s
tasks: { a: { run: 'echo in >> heavy; sleep 2; echo out >> heavy' } }
---
job: per
runs_max: 4
params: { customer: { type: text } }
tags: 'customer={{ params.customer }}'
tasks: { a: { run: [ sh, -c, 'echo $0 in >> per; while ! test -e go; do sleep 0.1; done; echo $0 out >> per', '{{ params.customer }}' ] } }
---
job: once
when_full: cancel
tasks: { a: { run: 'echo begun >> once; while ! test -e end; do sleep 0.1; done' } }
---
job: chained
needs_previous: true
tasks: { a: { run: 'test -e mended && echo done >> chained' } }
---
job: selected
when_full: cancel
select: gold.slow
---
job: yearly
schedule: { cron: '0 0 1 1 *', catchup: none }
tasks: { a: { run: 'true' } }
";

/// T-146, T-150, T-158: pools and tags bound runs together, and one that waits says for what. T-76: that wait is no part of its `timeout`.
#[test]
fn t_150_pools_and_tags_bound_runs() {
    let subak = format!("{PROJECT}pools: {{ api: 3 }}\nrun_limits: {{ 'customer=*': 1 }}\n");
    let slow = "# /// subak\n# stored_as: outside\n# ///\necho begun >> slow\nwhile ! test -e ended; do sleep 0.1; done\n";
    let files = [("subak.yml", subak.as_str()), ("jobs/jobs.yml", LIMITED), ("assets/gold/slow.sh", slow)];
    let mut served = Served::unstarted(BINARY, &files);
    served.start_with(&["--runs", "8"], &[]);
    served::wait(served.sandbox.path());
    let why = |what: &str| served.sandbox.run(&["why", what]).expect(0).out;
    let newest = |job: &str| {
        let listed = served.sandbox.command(&["run", "list", "--output", "csv"]).output().expect("starts").stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        listed.lines().find(|line| line.contains(job)).and_then(|line| line.split(',').next()).unwrap_or("last").to_owned()
    };
    // Three that take two of three slots each: one at a time, and the time that they wait is no part of their timeout.
    let mut children: Vec<Child> = (0..4).map(|_| hand_over(&served, &["--job", "heavy"])).collect();
    served.wait("a step that waits", |_| why(&newest("heavy")).contains("waits for 2 slots of `api`"));
    let listed = served.sandbox.run(&["pool", "list", "--output", "csv"]).expect(0).out;
    assert!(listed.contains("api,3,2,"), "{listed}");
    let shown = served.sandbox.run(&["pool", "show", "api"]).expect(0).out;
    assert!(shown.contains("task:a") && shown.contains("waits"), "{shown}");
    for child in &mut children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    assert_eq!(served.lines("heavy"), ["in", "out", "in", "out", "in", "out", "in", "out"]);
    // Each customer for itself.
    let mut children = vec![hand_over(&served, &["--job", "per", "--set", "customer=a"])];
    served.wait("the first one", |served| !served.lines("per").is_empty());
    children.push(hand_over(&served, &["--job", "per", "--set", "customer=a"]));
    served.wait("the second one", |served| served.sandbox.run(&["run", "list"]).out.contains("queued"));
    assert!(why(&newest("per")).contains("with the tag `customer=a`"), "{}", why(&newest("per")));
    children.push(hand_over(&served, &["--job", "per", "--set", "customer=b"]));
    served.wait("the other customer", |served| served.lines("per").contains(&"b in".to_owned()));
    served.sandbox.write("go", "");
    for child in &mut children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    let lines = served.lines("per");
    let place = |line: &str| lines.iter().position(|other| other == line).expect("it is there");
    assert!(place("b in") < lines.iter().rposition(|line| line == "a in").expect("it is there"), "{lines:?}");
    assert!(place("a out") < lines.iter().rposition(|line| line == "a in").expect("it is there"), "{lines:?}");
    // One more is canceled where the job says so.
    let mut first = hand_over(&served, &["--job", "once"]);
    served.wait("the first one", |served| !served.lines("once").is_empty());
    assert_eq!(hand_over(&served, &["--job", "once"]).wait().expect("it ends").code(), Some(130));
    served.sandbox.write("end", "");
    assert_eq!(first.wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("once"), ["begun"]);
    assert!(why("once").contains("of it canceled"), "{}", why("once"));
    // T-49: the first one passes; one behind a failed one waits until that is resumed and succeeds.
    assert_eq!(hand_over(&served, &["--job", "chained"]).wait().expect("it ends").code(), Some(1));
    let mut second = hand_over(&served, &["--job", "chained"]);
    served.wait("the second one", |_| why("chained").contains("its run before this one failed"));
    let failed = served.sandbox.command(&["run", "list", "--output", "csv"]).output().expect("starts").stdout;
    let failed = String::from_utf8_lossy(&failed).into_owned();
    let failed = failed.lines().find(|line| line.contains(",failed,")).and_then(|line| line.split(',').next()).expect("a run");
    served.sandbox.write("mended", "");
    served.sandbox.run(&["run", "resume", failed]).expect(0);
    assert_eq!(second.wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("chained"), ["done", "done"]);
    // Also where both are about the same assets.
    let mut first = hand_over(&served, &["--job", "selected"]);
    served.wait("the first one", |served| !served.lines("slow").is_empty());
    assert_eq!(hand_over(&served, &["--job", "selected"]).wait().expect("it ends").code(), Some(130));
    served.sandbox.write("ended", "");
    assert_eq!(first.wait().expect("it ends").code(), Some(0));
    assert!(why("yearly").contains("it has never run; it comes next at"), "{}", why("yearly"));
    served.stop();
    assert!(served.sandbox.run(&["why", "yearly"]).expect(0).out.contains("no server runs"));
}

/// T-50: with `needs_previous` a task waits for what is behind the same task in the run before, and not only for that task.
#[test]
fn t_50_a_run_waits_for_the_whole_run_before_it() {
    let mut served = project(
        "job: chained
needs_previous: true
tasks:
  first: { run: 'echo first >> log' }
  second: { needs: first, run: 'while [ ! -e go ]; do sleep 0.05; done; echo second >> log' }
",
    );
    served::wait(served.sandbox.path());
    let mut children = vec![hand_over(&served, &["--job", "chained"])];
    served.wait("the first task", |served| served.lines("log") == ["first"]);
    children.push(hand_over(&served, &["--job", "chained"]));
    served.wait("the second run", |served| served.sandbox.run(&["run", "list"]).out.contains("queued"));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(served.lines("log"), ["first"], "the task before it has succeeded, what is behind that has not");
    served.sandbox.write("go", "");
    for mut child in children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    assert_eq!(served.lines("log"), ["first", "second", "first", "second"]);
    assert_eq!(served.stop(), Some(0));
}

/// Of runs that wait, those of the job with the highest priority come first.
#[test]
fn the_highest_priority_comes_first() {
    let job = |name: &str, priority: &str| {
        format!("job: {name}\n{priority}tasks: {{ a: {{ run: 'echo {name} >> log; sleep 1' }} }}\n---\n")
    };
    let jobs = [job("busy", ""), job("low", "priority: -1\n"), job("plain", ""), job("high", "priority: 7\n")].concat();
    let files = [("subak.yml", PROJECT), ("jobs/jobs.yml", &jobs), ("assets/gold/one.sql", "select 1 as id\n")];
    let mut served = Served::unstarted(BINARY, &files);
    served.start_with(&["--runs", "1"], &[]);
    served::wait(served.sandbox.path());
    let mut children = vec![hand_over(&served, &["--job", "busy"])];
    served.wait("the first run", |served| !served.lines("log").is_empty());
    children.extend(["low", "plain", "high"].map(|name| hand_over(&served, &["--job", name])));
    for mut child in children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    assert_eq!(served.lines("log"), ["busy", "high", "plain", "low"]);
}

/// A server that is killed while programs run: the next one goes on with them, and with everything else of their runs.
#[test]
fn a_killed_server_leaves_its_runs_to_the_next_one() {
    let mut served = project(
        "job: long
tasks:
  first: { run: 'echo begun >> first; echo before; while [ ! -e go ]; do sleep 0.05; done; echo after; echo \"{\\\"rows\\\": 7}\" > $SUBAK_VALUE_PATH; echo done >> first' }
  quick: { run: 'echo begun >> quick; while [ ! -e quick-go ]; do sleep 0.05; done; echo said at the end; echo done >> quick; exit 3' }
  asked: { approve: { message: 'Go on?' } }
  pause: { wait: 3s }
  second: { needs: [first, asked, pause], run: 'echo {{ tasks.first.value.rows }} >> second' }
",
    );
    served::wait(served.sandbox.path());
    let child = hand_over(&served, &["--job", "long"]);
    served.wait("the programs", |served| served.lines("first") == ["begun"] && served.lines("quick") == ["begun"]);
    served.kill();
    // One ends while nobody is there.
    std::fs::write(served.sandbox.path().join("quick-go"), "").expect("written");
    served.wait("the end of one", |served| served.lines("quick").len() == 2);
    std::thread::sleep(Duration::from_millis(200));
    served.start();
    let show = |served: &Served| served.sandbox.run(&["run", "show", "last"]).out;
    served.wait("what became of it", |served| show(served).contains("ended with code 3"));
    served.kill();
    served.start();
    served.sandbox.run(&["run", "approve", "last", "asked"]).expect(0);
    std::fs::write(served.sandbox.path().join("go"), "").expect("written");
    served.wait("what comes behind it", |served| served.lines("second") == ["7"]);
    assert_eq!(served.lines("first"), ["begun", "done"], "it ran once");
    let logs = |step: &str| served.sandbox.run(&["run", "logs", "last", step]).out;
    let (first, quick) = (logs("first"), logs("quick"));
    assert!(first.contains("before\nafter"), "{first}");
    assert!(quick.contains("said at the end"), "{quick}");
    assert!(!first.contains("attempt 2") && !quick.contains("attempt 2"), "each has one attempt: {first}{quick}");
    assert_eq!(served.lines("quick"), ["begun", "done"]);
    drop(child);
    let left = std::fs::read_dir(served.sandbox.path().join(".subak/tmp")).into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("task-")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(served.stop(), Some(0));
}

/// T-62: whoever is asked to end does not wait for people or for times; the next server goes on with what waits.
#[test]
fn t_62_what_waits_outlives_the_server() {
    let mut served = project(
        "job: waits
tasks:
  asked: { approve: { message: 'Go on?' } }
  again: { run: 'echo x >> again; [ -e go ]', retry: { attempts_max: 5, delay_first: 2s } }
  after: { needs: [asked, again], run: 'echo done >> after' }
",
    );
    served::wait(served.sandbox.path());
    drop(hand_over(&served, &["--job", "waits"]));
    served.wait("the first attempt", |served| served.lines("again") == ["x"]);
    served.wait("its end", |served| served.sandbox.run(&["run", "show", "last"]).out.contains("waiting"));
    assert_eq!(served.stop(), Some(0), "at once");
    std::fs::write(served.sandbox.path().join("go"), "").expect("written");
    served.start();
    served.sandbox.run(&["run", "approve", "last", "asked"]).expect(0);
    served.wait("the end", |served| served.lines("after") == ["done"]);
    assert_eq!(served.lines("again").len(), 2);
    assert_eq!(served.stop(), Some(0));
}

/// T-69, T-71: a run that goes on is stopped with everything that it started; one that waits is never begun.
#[test]
fn t_69_runs_are_canceled_where_they_are() {
    let served = project(
        "job: slow\ntasks: { a: { run: 'sleep 60 & echo $! >> pids; echo $$ >> pids; echo begun >> log; wait' }, b: { needs: a, run: 'echo never >> log' } }\n",
    );
    served::wait(served.sandbox.path());
    let run = |at: usize| {
        let listed = served.sandbox.command(&["run", "list", "--output", "csv"]).output().expect("starts").stdout;
        let line = String::from_utf8_lossy(&listed).lines().nth(1 + at).map(str::to_owned).unwrap_or_default();
        line.split(',').take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut children = vec![hand_over(&served, &["--job", "slow"])];
    served.wait("the run", |served| served.lines("log") == ["begun"]);
    children.push(hand_over(&served, &["--job", "slow"]));
    served.wait("the second run", |_| run(1).len() == 2);
    let (second, first) = (run(0)[0].clone(), run(1)[0].clone());
    served.sandbox.run(&["run", "cancel", &second]).expect(0);
    served.wait("the end of the second", |_| run(0)[1] == "canceled");
    served.sandbox.run(&["run", "cancel", &first]).expect(0);
    served.wait("the end of the first", |_| run(1)[1] == "canceled");
    assert_eq!(served.lines("log"), ["begun"]);
    let is_gone = |pid: &String| !std::path::Path::new("/proc").join(pid).join("cmdline").exists();
    served.wait("the end of its programs", |served| served.lines("pids").iter().all(is_gone));
    for mut child in children {
        assert_ne!(child.wait().expect("it ends").code(), Some(0));
    }
    let over = served.sandbox.run(&["run", "cancel", &first]).expect(6);
    assert!(over.err.contains("is canceled"), "{}", over.err);
}

/// T-56, T-57: a question takes up no room; the answer counts, else what the task says; a no fails the run, or is handed on.
/// T-55: one whose time is over goes on with its default, or fails and says why.
#[test]
fn t_56_t_57_people_are_asked() {
    let jobs = "job: ask
params: { day: { default: today } }
tasks:
  question:
    approve: { message: \"Publish {{ params.day }}?\", input: { note: {}, limit: { type: integer, default: 3 } } }
  go_on: { needs: question, run: \"echo {{ tasks.question.value.by }} {{ tasks.question.value.input.note }} {{ tasks.question.value.input.limit }} >> log\" }
---
job: other
tasks: { a: { run: \"echo other >> log\" } }
---
job: late
tasks:
  question: { approve: { message: Now?, default: reject, on_reject: continue }, timeout: 1s }
  go_on: { needs: question, run: \"echo late {{ tasks.question.value.approved }} >> log\" }
---
job: never
tasks:
  question: { approve: Now?, timeout: 1s }
  go_on: { needs: question, run: \"echo never >> log\" }
";
    let mut served = Served::unstarted(BINARY, &[("subak.yml", PROJECT), ("jobs/jobs.yml", jobs)]);
    served.start_with(&["--runs", "1"], &[]);
    served::wait(served.sandbox.path());
    let mut asking = hand_over(&served, &["--job", "ask"]);
    let asked = |served: &Served| {
        let listed = served.sandbox.command(&["run", "questions", "--output", "csv"]).output().expect("starts");
        String::from_utf8_lossy(&listed.stdout).lines().nth(1).map(str::to_owned)
    };
    served.wait("the question", |served| asked(served).is_some());
    let run = asked(&served).expect("a question").split(',').next().expect("a run").to_owned();
    // It has the only place of the server, and holds up nobody.
    served.sandbox.run(&["run", "--job", "other"]).expect(0);
    let missing = served.sandbox.run(&["run", "approve", &run]).expect(2);
    assert!(missing.err.contains("needs the parameter `note`"), "{}", missing.err);
    served.sandbox.run(&["run", "approve", &run, "--set", "note=checked", "--by", "ann"]).expect(0);
    served.sandbox.run(&["run", "reject", &run, "question"]).expect(6);
    assert_eq!(asking.wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("log"), ["other", "ann checked 3"]);
    let mut refused = hand_over(&served, &["--job", "ask"]);
    served.wait("the question", |served| asked(served).is_some());
    let run = asked(&served).expect("a question").split(',').next().expect("a run").to_owned();
    served.sandbox.run(&["run", "reject", &run, "--set", "note=wrong", "--by", "ann"]).expect(0);
    assert_eq!(refused.wait().expect("it ends").code(), Some(1));
    let shown = served.sandbox.run(&["run", "show", &run]).expect(0);
    assert!(shown.err.contains("SBK0333") && shown.err.contains("note: wrong"), "{}", shown.err);
    assert!(served.sandbox.run(&["run", "--job", "late"]).expect(0).err.contains("rejected by nobody in time"));
    assert!(served.sandbox.run(&["run", "--job", "never"]).expect(1).err.contains("nobody answered in time"));
    assert_eq!(served.lines("log"), ["other", "ann checked 3", "late False"]);
}
