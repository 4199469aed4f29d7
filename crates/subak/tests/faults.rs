//! Faults of the machine and of what runs on it: what a server does, and what it says, when something breaks under it. Each test has the number of
//! its row in the fault matrix.

#[path = "support/served.rs"]
mod served;

use std::process::{Command, Stdio};
use std::time::Duration;

use subak_testkit::{Listening, Sandbox, Served};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: broken\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n";

fn files(jobs: &str) -> [(&'static str, String); 3] {
    [
        ("subak.yml", PROJECT.to_owned()),
        ("jobs/jobs.yml", jobs.to_owned()),
        ("assets/gold/one.sql", "/* subak\nstored_as: table\nautomation: on_missing\n*/\nselect 1 as id\n".to_owned()),
    ]
}

fn sandbox(jobs: &str) -> Sandbox {
    let files = files(jobs);
    Sandbox::new(BINARY, &files.each_ref().map(|(path, text)| (*path, text.as_str())))
}

fn served(jobs: &str) -> Served {
    let files = files(jobs);
    let served = Served::new(BINARY, &files.each_ref().map(|(path, text)| (*path, text.as_str())));
    served::wait(served.sandbox.path());
    served
}

fn hand_over(served: &Served, job: &str) -> std::process::Child {
    let mut command = served.sandbox.command(&["run", "--job", job]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// A script in name spaces of its own, where it may mount file systems and is the first process where that is asked for.
fn apart(arguments: &[&str], script: &str, sandbox: &Sandbox) -> String {
    let ran = Command::new("unshare")
        .args(["--map-root-user", "--mount"])
        .args(arguments)
        .args(["sh", "-c", script, "sh", sandbox.path().to_str().expect("path"), BINARY])
        .output()
        .expect("unshare (apt-get install util-linux)");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(!said.contains("unshare failed"), "user name spaces are needed for this test: {said}");
    said
}

/// FM-3: a server that is asked to end begins no more steps, waits for those that go on, and ends with code 0; the next one does the rest.
#[test]
fn fm_3_what_has_begun_is_done_and_the_rest_is_left() {
    let tasks: Vec<String> =
        (0..20).map(|at| format!("  a{at}: {{ run: 'echo begun >> log; sleep 2; echo done >> log' }}\n")).collect();
    let behind = "  behind: { needs: [a0, a1], run: 'echo behind >> log' }\n";
    let mut served = served(&format!("job: wide\ntasks:\n{}{behind}", tasks.concat()));
    let mut run = hand_over(&served, "wide");
    served.wait("steps", |served| served.lines("log").len() >= 4);
    assert_eq!(served.stop(), Some(0));
    let lines = served.lines("log");
    let count = |word: &str| lines.iter().filter(|line| *line == word).count();
    assert_eq!(count("begun"), count("done"), "{lines:?}");
    assert!(count("begun") < 20 && count("behind") == 0, "{lines:?}");
    served.start();
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
    let lines = served.lines("log");
    assert_eq!(lines.iter().filter(|line| *line == "done").count(), 20, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "behind").count(), 1, "{lines:?}");
    assert_eq!(lines.len(), 41, "nothing was done twice");
}

/// FM-4: asked twice, a server stops what goes on; SIGHUP reads the project again, and one that is broken keeps the version before.
#[test]
fn fm_4_signals() {
    let mut served = served(
        "job: long\ntasks: { a: { run: 'echo begun >> log; sleep 300' } }\n---\njob: short\ntasks: { a: { run: 'echo short >> log' } }\n",
    );
    let mut run = hand_over(&served, "long");
    served.wait("the run", |served| served.lines("log").contains(&"begun".to_owned()));
    served.sandbox.write("jobs/jobs.yml", "job: short\n");
    served.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    served.sandbox.write("jobs/jobs.yml", "job: short\ntasks: { a: { run: 'echo mended >> log' } }\n");
    served.signal("HUP");
    served.sandbox.run(&["run", "--job", "short"]).expect(0);
    assert!(served.lines("log").contains(&"mended".to_owned()));
    served.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(served.stop(), Some(143));
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
}

/// FM-6: a bug in one part of the server keeps the others from nothing.
#[test]
fn fm_6_a_panic_ends_no_server() {
    let files = files("job: often\nschedule: { every: 1s }\ntasks: { a: { run: 'echo ran >> log' } }\n");
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let mut served = Served::new(BINARY, &files);
    served::wait(served.sandbox.path());
    served.kill();
    served.sandbox.run(&["run", "gold.one"]).expect(0);
    served.sandbox.write("assets/gold/two.sql", "/* subak\nstored_as: table\nautomation: on_missing\n*/\nselect 2 as id\n");
    served.start_with(&[], &[("SUBAK_CRASH_AT", "panic:automation_planned")]);
    served::wait(served.sandbox.path());
    let count = served.lines("log").len();
    served.wait("runs beside the bug", |served| served.lines("log").len() > count + 3);
    let listed = served.sandbox.run(&["run", "list", "--output", "csv"]).expect(0);
    assert!(!listed.out.contains("gold.two"), "{}", listed.out);
    assert_eq!(served.stop(), Some(0));
    served.start();
    served.wait("what automation asks for", |served| {
        served.sandbox.run(&["run", "list", "--output", "csv"]).expect(0).out.contains("gold.two")
    });
}

/// FM-9: what cannot be listened to or written to is said, and nothing begins.
#[test]
fn fm_9_no_port_and_no_folder() {
    let sandbox = sandbox("job: a\ntasks: { a: { run: 'true' } }\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let refused = sandbox.run(&["server", "start", "--listen", &address]).expect(3);
    assert!(refused.err.contains("cannot be listened to") && refused.err.contains("another address"), "{}", refused.err);
    // Who was refused holds nothing.
    sandbox.run(&["run", "gold.one"]).expect(0);
    let script = r#"
        cd "$1" && rm -rf .subak && mkdir .subak && mount -t tmpfs tmpfs .subak && mount -o remount,ro .subak
        "$2" server start; echo "exit $?"
    "#;
    let said = apart(&[], script, &sandbox);
    assert!(said.contains("exit 3") && said.contains("cannot open the state"), "{said}");
}

/// FM-10: a second server is told who has the project.
#[test]
fn fm_10_one_server_at_a_time() {
    let served = served("job: a\ntasks: { a: { run: 'true' } }\n");
    let refused = served.sandbox.run(&["server", "start"]).expect(6);
    assert!(refused.err.contains("subak server") && refused.err.contains("pid"), "{}", refused.err);
}

/// FM-12: while somebody else holds the state, everything waits; nothing fails, and nothing is canceled.
#[test]
fn fm_12_a_locked_state_is_waited_for() {
    let files = files("job: ok\ntasks:\n  a: { run: 'echo a >> log; sleep 1' }\n  b: { needs: a, run: 'echo b >> log' }\n");
    let listening = Listening::new(BINARY, &files.each_ref().map(|(path, text)| (*path, text.as_str())), &[], &[]);
    let served = &listening.served;
    let mut run = hand_over(served, "ok");
    served.wait("the first step", |served| !served.lines("log").is_empty());
    let other = rusqlite::Connection::open(served.sandbox.path().join(".subak/state.db")).expect("opened");
    other.busy_timeout(Duration::from_secs(30)).expect("set");
    other.execute_batch("begin immediate").expect("locked");
    let unready = || listening.ask("GET", "/readyz", &[], b"").text;
    served.wait("it to be told", |_| unready().contains("the state cannot be written"));
    // Reading goes on.
    served.sandbox.run(&["run", "list"]).expect(0);
    other.execute_batch("rollback").expect("free");
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
    assert_eq!(served.lines("log"), ["a", "b"]);
    served.wait("it to be ready", |_| !unready().contains("cannot be written"));
}

/// FM-12: what cannot be done just now is refused and not done later, what can be seen is shown, and a server that nobody wants any more ends.
#[test]
fn fm_12_a_stalled_server_answers_and_can_be_stopped() {
    let files = files("job: ok\ntasks: { a: { run: 'echo a >> log' } }\n");
    let mut listening = Listening::new(BINARY, &files.each_ref().map(|(path, text)| (*path, text.as_str())), &[], &[]);
    let token = listening.token("admin");
    let other = rusqlite::Connection::open(listening.served.sandbox.path().join(".subak/state.db")).expect("opened");
    other.busy_timeout(Duration::from_secs(30)).expect("set");
    other.execute_batch("begin immediate").expect("locked");
    listening.served.wait("it to be told", |_| listening.ask("GET", "/readyz", &[], b"").text.contains("cannot be written"));
    let home = listening.call(&token, "GET", "/api/v1/home", "").json();
    assert!(home["sentence"].as_str().is_some_and(|text| text.starts_with("The state cannot be written")), "{home}");
    listening
        .served
        .wait("it to be counted", |_| listening.call(&token, "GET", "/metrics", "").text.contains("subak_state_stalled 1"));
    let asked = listening.call(&token, "POST", "/api/v1/backfills", r#"{"select":["gold.one"],"partition":["all"]}"#);
    assert!(
        asked.status == 503 && asked.text.contains("nothing was done") && asked.text.contains("retry-after: 5"),
        "{}",
        asked.text
    );
    listening.served.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    listening.served.signal("TERM");
    assert!(matches!(listening.served.ended(), Some(3 | 143)));
    other.execute_batch("rollback").expect("free");
    listening.served.sandbox.run(&["run", "--job", "ok"]).expect(0);
}

/// FM-14: where the disk of the state is full everything waits, and goes on when there is room.
#[test]
fn fm_14_a_full_disk_is_waited_for() {
    let items: Vec<String> = (0..150).map(|at| at.to_string()).collect();
    let job = "job: ok\ntasks:\n  a: { run: 'echo a >> log; sleep 3' }\n  each:\n    needs: a\n    for_each: [ITEMS]\n    tasks: { b: { run: 'echo b >> log' } }\n";
    let sandbox = sandbox(&job.replace("ITEMS", &items.join(", ")));
    let script = r#"
        cd "$1" && mkdir .subak elsewhere && mount -t tmpfs -o size=2m tmpfs .subak
        # Only the state is on this disk.
        ln -s ../elsewhere .subak/tmp && ln -s ../elsewhere .subak/logs
        "$2" server start > /dev/null 2> said & server=$!
        until grep -q serving said; do sleep 0.1; done
        "$2" run --job ok > /dev/null 2> handed &
        until grep -q a log 2> /dev/null; do sleep 0.1; done
        dd if=/dev/zero of=.subak/filling bs=4k 2> /dev/null
        until grep -q 'the state cannot be written' said; do sleep 0.1; done
        "$2" run list > /dev/null; echo "listed $?"
        test $(grep -c b log) -lt 150 && echo "not yet"
        rm .subak/filling
        until grep -q 'is written again' said; do sleep 0.1; done
        wait %2; echo "handed over $?"
        kill $server; wait $server; echo "server $?"
        "$2" run list --output csv
        sort log | uniq -c | tr -d '\n'
    "#;
    let said = apart(&["--pid", "--fork", "--mount-proc"], script, &sandbox);
    assert!(said.contains("listed 0\nnot yet\nhanded over 0\nserver 0\n"), "{said}");
    assert!(
        said.contains("succeeded") && !said.contains(",canceled") && said.contains(" 1 a") && said.contains(" 150 b"),
        "{said}"
    );
}

/// FM-44: a program that finds no room for its files waits for it, where a server runs it.
#[test]
fn fm_44_programs_wait_for_room() {
    let sandbox = sandbox("job: ok\ntasks: { a: { run: 'echo a >> log' } }\n");
    let script = r#"
        cd "$1" && mkdir -p .subak/tmp && mount -t tmpfs -o size=64k tmpfs .subak/tmp
        dd if=/dev/zero of=.subak/tmp/filling bs=4k 2> /dev/null
        "$2" run --job ok > /dev/null 2>&1; echo "by itself $?"
        "$2" server start > /dev/null 2> said & server=$!
        until grep -q serving said; do sleep 0.1; done
        "$2" run --job ok > /dev/null 2> handed & run=$!
        until "$2" run list --output csv | grep -q ',running,'; do sleep 0.1; done
        sleep 1; test -e log || echo "it waits"
        rm .subak/tmp/filling
        wait $run; echo "handed over $?"
        kill $server; wait $server; cat log
    "#;
    let said = apart(&["--pid", "--fork", "--mount-proc"], script, &sandbox);
    assert!(said.ends_with("by itself 1\nit waits\nhanded over 0\na\n"), "{said}");
}

/// FM-17: a state that is taken away under a server is noticed: it ends before somebody else makes a new one beside it and both act.
#[test]
fn fm_17_a_state_that_is_gone_is_noticed() {
    let mut served = served("job: a\ntasks: { a: { run: 'true' } }\n");
    std::fs::remove_file(served.sandbox.path().join(".subak/state.db")).expect("removed");
    assert_eq!(served.ended(), Some(3));
}

/// FM-36, T-52: what is killed from outside is tried again as `retry` says; each signal is named.
#[test]
fn fm_36_t_52_signals_are_named_and_tried_again() {
    let sandbox = sandbox(
        "job: killed\nretry: { attempts_max: 2, delay_first: 10ms }\ntasks: { a: { run: 'test -e once || { touch once; kill -9 $$; }' } }\n---\n\
         job: ends\ntasks:\n  nine: { run: 'kill -9 $$' }\n  eleven: { run: 'kill -11 $$' }\n  code: { run: 'exit 255' }\n",
    );
    sandbox.run(&["run", "--job", "killed"]).expect(0);
    let failed = sandbox.run(&["run", "--job", "ends"]).expect(1).err;
    for expected in ["killed from outside (signal 9)", "ended by signal 11", "ended with code 255"] {
        assert!(failed.contains(expected), "{failed}");
    }
}

/// FM-34: what a program leaves behind keeps no step waiting, and is told; FM-35: also what does not listen.
#[test]
fn fm_34_what_is_left_behind_is_ended_and_told() {
    let sandbox = sandbox(
        "job: j\ntasks:\n  fork: { run: \"sh -c 'trap \\\"\\\" TERM; echo $$ > left; while true; do sleep 0.1; done' & while ! test -s left; do sleep 0.05; done\" }\n",
    );
    let ran = sandbox.run(&["run", "--job", "j"]).expect(0);
    assert!(ran.err.contains("left processes behind"), "{}{}", ran.out, ran.err);
    let left = std::fs::read_to_string(sandbox.path().join("left")).expect("the pid");
    assert!(!is_alive(&left), "it is gone");
}

/// FM-35: where nobody waits for processes that nobody owns, as in a container without an `init`, those that have ended hold up no step.
#[test]
fn fm_35_zombies_hold_nothing_up() {
    let sandbox = sandbox("job: j\ntasks:\n  fork: { run: 'for i in 1 2 3 4 5 6 7 8; do (sleep 0.2 &) ; done; sleep 1' }\n");
    let script = "cd \"$1\"; exec \"$2\" run --job j";
    let said = apart(&["--pid", "--fork", "--mount-proc"], script, &sandbox);
    assert!(said.contains("1 step done") && !said.contains("cannot be ended") && !said.contains("left processes"), "{said}");
}

/// FM-39: when what waits for a program is killed, the program is ended, and the attempt counts as lost.
#[test]
fn fm_39_a_killed_shim_is_a_lost_attempt() {
    let sandbox = sandbox(
        "job: again\nretry: { attempts_max: 2, delay_first: 10ms }\ntasks: { a: { run: 'test -e once || { touch once; echo $$ > pid; kill -9 $PPID; sleep 300; }' } }\n---\n\
         job: once\ntasks: { a: { run: 'kill -9 $PPID; sleep 300' } }\n",
    );
    sandbox.run(&["run", "--job", "again"]).expect(0);
    let pid = std::fs::read_to_string(sandbox.path().join("pid")).expect("the pid");
    assert!(!is_alive(&pid), "it is gone");
    // Of a task that is to be tried once nobody knows what it has done.
    let failed = sandbox.run(&["run", "--job", "once"]).expect(3).err;
    assert!(failed.contains("the program is gone") && failed.contains("nobody knows"), "{failed}");
}

/// FM-43: output that cannot be kept fails no step.
#[test]
fn fm_43_no_room_for_logs() {
    let sandbox = sandbox("job: j\ntasks: { a: { run: 'echo hello; echo made >> log' } }\n");
    sandbox.write(".subak/logs", "no folder");
    sandbox.run(&["run", "--job", "j"]).expect(0);
    assert_eq!(std::fs::read_to_string(sandbox.path().join("log")).expect("read"), "made\n");
}

/// FM-57: removing what is old can be killed at any moment, and goes on the next time; what is known of assets stays.
#[test]
fn fm_57_a_purge_goes_on_where_it_was_killed() {
    let items: Vec<String> = (0..400).map(|at| at.to_string()).collect();
    let job = "job: many\ntasks:\n  each:\n    for_each: [ITEMS]\n    tasks: { one: { wait: 1ms } }\n";
    let sandbox = sandbox(&job.replace("ITEMS", &items.join(", ")));
    sandbox.run(&["run", "gold.one"]).expect(0);
    for _ in 0..6 {
        sandbox.run(&["run", "--job", "many"]).expect(0);
    }
    let events = || {
        let state = rusqlite::Connection::open(sandbox.path().join(".subak/state.db")).expect("opened");
        state.query_row("select count(*) from events", [], |row| row.get::<_, i64>(0)).expect("counted")
    };
    assert!(events() > 4_000, "{} events", events());
    for wait_ms in [5, 20, 40, 60, 80] {
        let mut purge = sandbox.command(&["db", "purge", "--older-than", "0"]);
        let mut purge = purge.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(wait_ms));
        drop(purge.kill());
        purge.wait().expect("it ends");
        sandbox.run(&["db", "check"]).expect(0);
    }
    sandbox.run(&["db", "purge", "--older-than", "0"]).expect(0);
    assert!(events() < 100, "{} events are left", events());
    let listed = sandbox.run(&["list", "--output", "csv"]).expect(0).out;
    assert!(listed.contains("gold.one") && listed.contains("fresh"), "what is known stays: {listed}");
    sandbox.run(&["run", "--job", "many"]).expect(0);
}
