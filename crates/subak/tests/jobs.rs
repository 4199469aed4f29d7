//! Jobs: task graphs, values, lists, programs.

use std::path::Path;
use std::time::Duration;

use subak_testkit::{Sandbox, python};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: jobs\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n";

fn project(job: &str) -> Sandbox {
    Sandbox::new(BINARY, &[("subak.yml", PROJECT), ("jobs/job.yml", job), ("assets/gold/one.sql", "select 1 as id\n")])
}

/// What became of each step of the last run: `name status value`.
fn steps(sandbox: &Sandbox) -> Vec<String> {
    let shown = sandbox.run(&["run", "show", "last", "--output", "json"]).expect(0);
    let run: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
    let line = |step: &serde_json::Value| {
        let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
        let value = if step["value"].is_null() { String::new() } else { format!(" {}", step["value"]) };
        format!("{} {}{value}", text("step").trim_start_matches("task:"), text("status"))
    };
    run["steps"].as_array().expect("steps").iter().map(line).collect()
}

/// The course's job: the schema is made only when it is missing, and what is behind it runs either way (S4-10, S4-11).
const LIBRARY: &str = "job: library
params:
  day: { type: date, default: 2026-11-21 }
tasks:
  check: { query: \"select count(*) > 0 as found from information_schema.schemata where schema_name = 'library'\" }
  create: { needs: check, when: \"not tasks.check.value.found\", sql: \"create schema library\" }
  list: { needs: create, trigger: none_failed, run: \"echo '[\\\"books\\\", \\\"members\\\"]' > $SUBAK_VALUE_PATH\" }
  load:
    needs: list
    for_each: \"{{ tasks.list.value }}\"
    tasks:
      extract: { run: [sh, -c, \"echo '{\\\"n\\\": 3}' > $SUBAK_VALUE_PATH\"] }
      stage: { needs: extract, sql: \"create or replace table library.{{ item }} as select {{ tasks.extract.value.n }} as n, '{{ params.day }}' as day\" }
  count: { needs: load, query: \"select sum(n) as n, min(day) as day from (select * from library.books union all select * from library.members)\" }
  one: { needs: count, asset: gold.one }
";

#[test]
fn a_skipped_step_stops_nothing_that_waits_for_no_failure() {
    let sandbox = project(LIBRARY);
    sandbox.run(&["run", "--job", "library", "--set", "day=2025-01-31"]).expect(0);
    let first = [
        "check succeeded {\"found\":false}",
        "create succeeded",
        "list succeeded [\"books\",\"members\"]",
        "load succeeded",
        "load[books].extract succeeded {\"n\":3}",
        "load[books].stage succeeded",
        "load[members].extract succeeded {\"n\":3}",
        "load[members].stage succeeded",
        "count succeeded {\"n\":\"6\",\"day\":\"2025-01-31\"}",
        "gold.one succeeded",
    ];
    assert_eq!(steps(&sandbox), first);
    sandbox.run(&["run", "--job", "library"]).expect(0);
    let second = steps(&sandbox);
    assert_eq!(second[..2], ["check succeeded {\"found\":true}", "create skipped"]);
    assert_eq!(second[8], "count succeeded {\"n\":\"6\",\"day\":\"2026-11-21\"}");
    let shown = sandbox.run(&["job", "show", "library"]).expect(0);
    assert!(shown.out.contains("create  sql") && shown.out.contains("none_failed"), "{}", shown.out);
    let listed = sandbox.run(&["job", "list"]).expect(0);
    assert!(listed.out.contains("library") && listed.out.contains("jobs/job.yml"), "{}", listed.out);
    for (set, said) in [("day=soon", "is no value of `day`"), ("night=x", "there is no parameter `night`")] {
        let refused = sandbox.run(&["run", "--job", "library", "--set", set]).expect(2);
        assert!(refused.err.contains(said), "{set}: {}", refused.err);
    }
    let refused = sandbox.run(&["run", "--job", "librar"]).expect(2);
    assert!(refused.err.contains("did you mean `library`"), "{}", refused.err);
}

/// T-39: no items, and more items than there may be.
#[test]
fn t_39_a_list_may_be_empty_and_has_a_bound() {
    let job = |list: &str| {
        format!(
            "job: j\ntasks:\n  list: {{ run: \"echo '{list}' > $SUBAK_VALUE_PATH\" }}\n  each:\n    needs: list\n    for_each: tasks.list.value\n    \
             items_max: 2\n    tasks:\n      x: {{ run: \"echo {{{{ item }}}}\" }}\n  after: {{ needs: each, run: \"true\" }}\n  \
             anyway: {{ needs: each, trigger: none_failed, run: \"true\" }}\n"
        )
    };
    let sandbox = project(&job("[]"));
    sandbox.run(&["run", "--job", "j"]).expect(0);
    assert_eq!(steps(&sandbox), ["list succeeded []", "each skipped", "after skipped", "anyway succeeded"]);
    sandbox.write("jobs/job.yml", &job("[1, 1]"));
    sandbox.run(&["run", "--job", "j"]).expect(0);
    assert_eq!(steps(&sandbox)[1..4], ["each succeeded", "each[0].x succeeded", "each[1].x succeeded"]);
    sandbox.write("jobs/job.yml", &job("[1, 2, 3]"));
    let failed = sandbox.run(&["run", "--job", "j"]).expect(1);
    assert!(failed.err.contains("`for_each` has 3 items, and 2 are the most"), "{}", failed.err);
    assert_eq!(steps(&sandbox), ["list succeeded [1,2,3]", "each failed", "after skipped", "anyway skipped"]);
    sandbox.write("jobs/job.yml", &job("{\\\"a\\\": 1}").replace("tasks.list.value", "tasks.list.value.b"));
    let failed = sandbox.run(&["run", "--job", "j"]).expect(1);
    assert!(failed.err.contains("`for_each: tasks.list.value.b` has no value"), "{}", failed.err);
}

/// T-38: whoever needs a list waits for its tasks, and counts them and not the list.
#[test]
fn t_38_rules_see_the_tasks_of_a_list() {
    let sandbox = project(
        "job: j\ntasks:\n  each:\n    for_each: \"['a', 'b']\"\n    tasks:\n      x: { run: [sh, -c, \"exit 1\"] }\n  none: { needs: each, trigger: one_success, run: \"true\" }\n  \
         all: { needs: each, trigger: all_failed, run: \"true\" }\n  done: { needs: each, trigger: one_done, run: \"true\" }\n",
    );
    sandbox.run(&["run", "--job", "j"]).expect(1);
    let expect = ["each succeeded", "each[a].x failed", "each[b].x failed", "none skipped", "all succeeded", "done succeeded"];
    assert_eq!(steps(&sandbox), expect);
}

/// T-40: what fails for one item stops that item only.
#[test]
fn t_40_items_of_a_list_are_on_their_own() {
    let sandbox = project(
        "job: j\ntasks:\n  each:\n    for_each: [a, b]\n    tasks:\n      x: { run: [sh, -c, \"test {{ item }} = a\"] }\n      y: { needs: x, run: \"true\" }\n",
    );
    sandbox.run(&["run", "--job", "j"]).expect(1);
    assert_eq!(steps(&sandbox), ["each[a].x succeeded", "each[a].y succeeded", "each[b].x failed", "each[b].y skipped"]);
}

/// T-41, T-42, T-43, T-44, T-47, T-48.
#[test]
fn decisions_persist_and_teardowns_take_away_what_setups_made() {
    let sandbox = project(
        "job: j
tasks:
  make: { role: setup, run: \"mkdir made && echo made >> log\" }
  work: { needs: make, run: \"test -d made && test -e ready\" }
  clean: { needs: [make, work], role: teardown, run: \"rmdir made && echo cleaned >> log\" }
  ask: { run: \"echo 0 > $SUBAK_VALUE_PATH\", short_circuit: all }
  left_out: { needs: ask, run: \"false\" }
  far: { needs: left_out, trigger: all_done, run: \"false\" }
  direct: { run: \"echo null > $SUBAK_VALUE_PATH\", short_circuit: direct }
  near: { needs: direct, run: \"false\" }
  behind: { needs: near, trigger: all_done, run: \"true\" }
",
    );
    sandbox.run(&["run", "--job", "j"]).expect(1);
    let first = [
        "make succeeded",
        "work failed",
        "clean succeeded",
        "ask succeeded 0",
        "left_out skipped",
        "far skipped",
        "direct succeeded",
        "near skipped",
        "behind succeeded",
    ];
    let shown = |steps: Vec<String>| steps.into_iter().map(|step| step.replace(" null", "")).collect::<Vec<_>>();
    assert_eq!(shown(steps(&sandbox)), first);
    assert_eq!(std::fs::read_to_string(sandbox.path().join("log")).expect("the log"), "made\ncleaned\n");
    sandbox.write("ready", "");
    sandbox.run(&["run", "resume", "last"]).expect(0);
    let mut second = first;
    second[1] = "work succeeded";
    assert_eq!(shown(steps(&sandbox)), second);
    assert_eq!(std::fs::read_to_string(sandbox.path().join("log")).expect("the log"), "made\ncleaned\nmade\ncleaned\n");
    // A failure that a later task has dealt with, and a teardown that fails.
    sandbox.write(
        "jobs/job.yml",
        "job: j\ntasks:\n  a: { run: \"false\" }\n  mend: { needs: a, trigger: one_failed, run: \"true\" }\n  set: { role: setup, run: \"true\" }\n  down: { needs: set, role: teardown, run: \"false\" }\n",
    );
    let ran = sandbox.run(&["run", "--job", "j"]).expect(0);
    assert!(ran.err.contains("failed task:a"), "it is told all the same: {}", ran.err);
    let text = std::fs::read_to_string(sandbox.path().join("jobs/job.yml")).expect("the job");
    sandbox.write("jobs/job.yml", &text.replace("role: teardown", "role: teardown, fails_run: true"));
    sandbox.run(&["run", "--job", "j"]).expect(1);
}

#[test]
fn programs_are_heard_bounded_and_told_what_they_need() {
    let sandbox = project(
        "job: j
tasks:
  env: { run: { command: [sh, -c, \"echo $TOKEN; echo $TOKEN >&2; env | grep -c SUBAK_SECRET; pwd; exit 3\"], env: { TOKEN: \"${secret:token}\" }, dir: sub } }
  big: { run: \"head -c 70000 /dev/zero | tr '\\\\0' 1 > $SUBAK_VALUE_PATH\" }
  none: { run: \"echo no json > $SUBAK_VALUE_PATH\" }
  gone: { run: [no_such_program_anywhere] }
  again: { run: \"echo x >> tries; test $(wc -l < tries) = 3\", retry: { attempts_max: 3, delay_first: 10ms } }
  late: { run: \"sleep 60\", timeout: 300ms }
  mute: { run: \"exec > /dev/null 2>&1; sleep 60\", timeout: 300ms }
  data: { query: \"select '${secret:token}' as text\" }
  told: { needs: data, run: { command: [sh, -c, 'test \"$TEXT\" = \"<$1>\"', sh, \"{{ tasks.data.value.text }}\"], env: { TEXT: \"<{{ tasks.data.value.text }}>\" } } }
",
    );
    std::fs::create_dir(sandbox.path().join("sub")).expect("a folder");
    let ran = sandbox.command(&["run", "--job", "j"]).env("SUBAK_SECRET_TOKEN", "hunter22").output().expect("starts");
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{err}");
    for said in [
        "the program ended with code 3",
        "caused by: [redacted]",
        "caused by: 0",
        "/sub",
        "the value of the task has 70000 bytes, and 65536 are the most",
        "the value of the program is no JSON",
        "`no_such_program_anywhere` cannot be started",
        "the step took longer than its `timeout`",
        "task:again (attempt 3)",
    ] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(!err.contains("hunter22"), "{err}");
    let logs = sandbox.run(&["run", "logs", "last", "task:env"]).expect(0);
    assert!(logs.out.contains("[redacted]\n") && !logs.out.contains("hunter22"), "{}", logs.out);
    let steps = steps(&sandbox);
    for expect in ["again succeeded", "told succeeded", "mute failed"] {
        assert!(steps.contains(&expect.to_owned()), "{expect}: {steps:?}");
    }
}

/// Waits until a file is there.
fn wait_for(path: &Path) {
    for _ in 0..600 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("`{}` does not come", path.display());
}

/// Whether a process does anything; what nobody has asked about yet is still listed.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// A program whose starter is killed does not go on behind the back of the next run.
#[test]
fn what_outlives_its_starter_is_ended() {
    let sandbox = project("job: j\ntasks:\n  tree: { run: \"echo $$ >> pids; test -e again || sleep 300\" }\n");
    let mut run = sandbox.command(&["run", "--job", "j"]).stderr(std::process::Stdio::null()).spawn().expect("starts");
    wait_for(&sandbox.path().join("pids"));
    run.kill().expect("killed");
    run.wait().expect("it ends");
    let pid = std::fs::read_to_string(sandbox.path().join("pids")).expect("the pid");
    assert!(is_alive(&pid), "nobody has stopped it");
    sandbox.write("again", "");
    let ran = sandbox.run(&["run", "--job", "j"]).expect(0);
    assert!(ran.err.contains("1 program outlived the process that had started it, and was ended"), "{}", ran.err);
    assert!(!is_alive(&pid));
}

/// What programs use is told, and one that uses more than it may is killed with what it has started.
#[test]
fn what_programs_use_is_known_and_bounded() {
    let jobs = "job: used\ntasks:\n  hog: { run: { command: \"(head -c 200000000 /dev/zero; sleep 20) | tail > /dev/null\", memory_max: 60MB } }\n  \
                busy: { run: { command: [ sh, -c, 'while :; do :; done' ], cpu_max: 1s } }\n  fine: { run: { command: [ sh, -c, 'sleep 1; echo fine' ], memory_max: 1GB, cpu_max: 1h } }\n";
    let sandbox = project(jobs);
    let ran = sandbox.run(&["run", "--job", "used"]);
    assert!(ran.err.contains("MB of memory, and `memory_max` is 60 MB"), "{}", ran.err);
    assert!(ran.err.contains("of processor time, and `cpu_max` is"), "{}", ran.err);
    let shown = sandbox.run(&["run", "show", "last", "--output", "json"]).expect(0).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let usage = |name: &str| {
        let steps = shown["steps"].as_array().expect("steps");
        steps.iter().find(|step| step["step"] == name).map(|step| step["usage"].clone()).expect("the step")
    };
    assert!(usage("task:busy")["cpu_ms"].as_u64().is_some_and(|used| used >= 1000), "{shown}");
    assert!(usage("task:fine")["memory_bytes_max"].as_u64().is_some_and(|used| used > 100_000), "{shown}");
    assert!(sandbox.run(&["run", "show", "last"]).expect(0).out.contains(" MB"));
    let refused = project("job: used\ntasks: { a: { run: { command: 'true', memory_max: 5 } } }\n");
    assert!(refused.run(&["validate"]).expect(2).err.contains("must be a size"), "a number says nothing");
}

/// T-71: a program that is stopped takes along what it has started, even what does not listen.
#[test]
fn t_71_a_stop_reaches_grandchildren() {
    let sandbox = project(
        "job: j\ntasks:\n  tree: { run: \"sh -c 'trap \\\"\\\" TERM; echo $$ > pid; while true; do sleep 0.1; done' & wait\" }\n",
    );
    let mut run = sandbox.command(&["run", "--job", "j"]).stderr(std::process::Stdio::null()).spawn().expect("starts");
    wait_for(&sandbox.path().join("pid"));
    let kill = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
    let pid = std::fs::read_to_string(sandbox.path().join("pid")).expect("the pid");
    assert!(!is_alive(&pid), "the grandchild is gone");
    // What a program leaves behind does not keep the step waiting.
    sandbox.write("jobs/job.yml", "job: j\ntasks:\n  fork: { run: \"sleep 300 & echo $! > left; true\" }\n");
    sandbox.run(&["run", "--job", "j"]).expect(0);
    let left = std::fs::read_to_string(sandbox.path().join("left")).expect("the pid");
    assert!(!is_alive(&left), "what it left is gone");
}

/// FM-35, T-71, T-72: a program whose time is over takes along even what has gone into a session of its own and does not listen, and its log tells so.
#[test]
fn fm_35_t_72_what_leaves_the_group_is_ended_too() {
    let escape = "setsid sh -c 'trap \"\" TERM; echo $$ > pid; while true; do sleep 0.1; done' & while true; do sleep 0.1; done";
    let sandbox = project(&format!("job: j\ntasks:\n  tree:\n    timeout: 2s\n    run: |\n      {escape}\n"));
    let ran = sandbox.run(&["run", "--job", "j"]).expect(1);
    assert!(ran.err.contains("timeout"), "{}", ran.err);
    let pid = std::fs::read_to_string(sandbox.path().join("pid")).expect("the pid");
    assert!(!is_alive(&pid), "it is gone");
    let log = sandbox.run(&["run", "logs", "last", "tree"]).expect(0).out;
    assert!(log.contains("processes that had left the group of the program were killed"), "{log}");
    assert!(log.contains(pid.trim()), "{log}");
}

/// An unmodified script that uses the published client.
#[test]
fn scripts_of_dagster_pipes_run_unchanged() {
    let job = |script: &str| format!("job: j\ntasks:\n  script: {{ run: [{}, {script}] }}\n", python());
    let sandbox = project(&job("script.py"));
    sandbox.write(
        "script.py",
        "from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes() as pipes:\n    assert pipes.retry_number == 0 and len(pipes.run_id) == 26\n    \
         pipes.log.info('loading ' + pipes.run_id)\n    pipes.report_custom_message({'value': {'rows': 3}})\n    print('plain output')\n",
    );
    sandbox.run(&["run", "--job", "j"]).expect(0);
    assert_eq!(steps(&sandbox), ["script succeeded {\"rows\":3}"]);
    let logs = sandbox.run(&["run", "logs", "last", "task:script"]).expect(0);
    assert!(logs.out.contains("INFO loading") && logs.out.contains("plain output"), "{}", logs.out);
    sandbox.write("script.py", "from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes() as pipes:\n    raise ValueError('no such day')\n");
    let failed = sandbox.run(&["run", "--job", "j"]).expect(1);
    assert!(failed.err.contains("caused by: ValueError: no such day"), "{}", failed.err);
}

/// A process that dies in the middle of a job: what was done is not done again.
#[test]
fn a_job_goes_on_where_its_process_died() {
    let sandbox = project(
        "job: j\ntasks:\n  list: { run: \"echo list >> log; echo '[1, 2]' > $SUBAK_VALUE_PATH\" }\n  each:\n    needs: list\n    for_each: tasks.list.value\n    \
         tasks:\n      x: { run: \"test -e ready && echo {{ item }} >> log\" }\n  end: { needs: each, run: \"echo end >> log\" }\n",
    );
    sandbox.run(&["run", "--job", "j"]).expect(1);
    // Ids as they are, which the sandbox takes out of what it shows.
    let listed = sandbox.command(&["run", "list", "--output", "csv"]).output().expect("starts").stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let job = listed.lines().nth(1).and_then(|line| line.split(',').next()).expect("the run");
    sandbox.write("ready", "");
    for point in ["step_started", "step_reported"] {
        drop(sandbox.command(&["run", "resume", job]).env("SUBAK_CRASH_AT", point).output().expect("starts"));
        // Whoever comes next records the loss.
        sandbox.run(&["run", "gold.one"]).expect(0);
    }
    sandbox.run(&["run", "resume", job]).expect(0);
    let log = std::fs::read_to_string(sandbox.path().join("log")).expect("the log");
    assert_eq!(log.matches("list").count(), 1, "{log}");
    assert_eq!(log.matches("end").count(), 1, "{log}");
    sandbox.write("jobs/other.yml", "job: other\nselect: gold.one\n");
    sandbox.run(&["run", "--job", "other"]).expect(0);
}

/// An asset that tasks make is planned, checked and followed like any other one, by itself and as a task of a job.
#[test]
fn tasks_make_an_asset() {
    let sandbox = Sandbox::new(
        BINARY,
        &[
            (
                "subak.yml",
                "project: graphs\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n  files: { type: files }\n",
            ),
            ("raw.csv", "id\n1\n2\n"),
            (
                "assets/bronze/raw.yml",
                "ingest: { from: files, streams: { raw: { path: raw.csv, mode: replace, columns: { id: integer } } } }\n",
            ),
            (
                "assets/silver/report.yml",
                "graph:
  depends_on: bronze.raw
  tasks:
    count: { query: \"select count(*) as n from bronze.raw\" }
    note: { needs: count, run: [ sh, -c, \"echo $0 >> noted; [ ! -e broken ]\", \"{{ tasks.count.value.n }}\" ] }
    schema: { sql: \"create schema if not exists silver\" }
    build: { needs: [note, schema], sql: \"create or replace table silver.report as select {{ tasks.count.value.n }} as n\" }
  checks: [ { range: { column: n, min: 1 } } ]
",
            ),
            ("assets/gold/total.sql", "/* subak\nstored_as: table\n*/\nselect n * 10 as n from silver.report\n"),
            (
                "jobs/nightly.yml",
                "job: nightly\ntasks:\n  before: { run: 'echo before >> noted' }\n  report: { needs: before, asset: silver.report }\n  after: { needs: report, run: 'echo after >> noted' }\n",
            ),
        ],
    );
    let noted = || std::fs::read_to_string(sandbox.path().join("noted")).unwrap_or_default().replace('\n', " ");
    let total = || sandbox.run(&["query", "select n from gold.total", "--output", "csv"]).out;
    sandbox.run(&["run"]).expect(0);
    assert_eq!((noted().as_str(), total().as_str()), ("2 ", "n\n20"));
    // What is read was loaded anew, and is what it was: nothing behind it is done.
    let again = sandbox.run(&["run"]).expect(0);
    assert_eq!(noted(), "2 ", "{}{}", again.out, again.err);
    sandbox.write("raw.csv", "id\n1\n2\n3\n");
    let ran = sandbox.run(&["run", "--output", "json"]).expect(0);
    assert!(ran.out.contains("task:silver.report.build"), "{}", ran.out);
    assert_eq!((noted().as_str(), total().as_str()), ("2 3 ", "n\n30"));
    // A task that fails leaves the asset as it was, and what is behind it alone.
    sandbox.write("raw.csv", "id\n1\n");
    sandbox.write("broken", "");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("silver.report.note"), "{}", failed.err);
    assert_eq!((noted().as_str(), total().as_str()), ("2 3 1 ", "n\n30"));
    assert!(sandbox.run(&["why", "silver.report"]).expect(0).out.contains("silver.report.build"), "it says what held it up");
    std::fs::remove_file(sandbox.path().join("broken")).expect("removed");
    sandbox.run(&["run", "resume", "last"]).expect(0);
    assert_eq!((noted().as_str(), total().as_str()), ("2 3 1 1 ", "n\n10"));
    sandbox.run(&["run", "--job", "nightly"]).expect(0);
    assert_eq!(noted(), "2 3 1 1 before 1 after ");
    let shown = sandbox.run(&["show", "silver.report"]).expect(0);
    assert!(shown.out.contains("4 tasks") && shown.out.contains("(graph, fresh)"), "{}", shown.out);
    // A check that fails is told, and what is behind it is not made.
    sandbox.write("raw.csv", "id\n");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("range(n)"), "{}", failed.err);
    assert_eq!(total(), "n\n10");
}
