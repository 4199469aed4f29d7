//! Assets that are brought up to date by themselves: once, in the right order, whatever dies when.

use subak_testkit::Served;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str =
    "project: automated\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n  files: { type: files }\n";

const INGEST: &str = "ingest:\n  from: files\n  streams:\n    raw: { path: raw.csv }\n";

fn asset(automation: &str, sql: &str) -> String {
    format!("/* subak\nstored_as: table\nautomation: {automation}\n*/\n{sql}\n")
}

fn files(mart: &str) -> Vec<(&'static str, String)> {
    vec![
        ("subak.yml", PROJECT.to_owned()),
        ("raw.csv", "id\n1\n".to_owned()),
        ("assets/bronze/raw.yml", INGEST.to_owned()),
        ("assets/silver/clean.sql", asset("on_upstream_update", "select id from bronze.raw")),
        ("assets/gold/mart.sql", asset(mart, "select count(*) as n from silver.clean")),
    ]
}

fn served(files: &[(&'static str, String)]) -> Served {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    Served::unstarted(BINARY, &files)
}

/// The selections of all runs that automation asked for, oldest first, with how they ended.
fn runs(served: &Served) -> Vec<String> {
    let listed = served.sandbox.command(&["run", "list", "--limit", "1000", "--output", "csv"]).output().expect("starts");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let rows: Vec<Vec<String>> = text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let at = |name: &str| rows[0].iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}: {text}"));
    let (status, trigger, selection) = (at("status"), at("trigger"), at("what"));
    let own = rows[1..].iter().rev().filter(|row| row[trigger] == "automation");
    own.map(|row| format!("{} {}", row[selection], row[status])).collect()
}

#[test]
fn what_changes_upstream_is_followed_in_one_run() {
    let mut served = served(&files("eager"));
    served.start();
    served.wait("a look", |served| {
        let shown = served.sandbox.command(&["automation", "show", "silver.clean"]).output().expect("starts");
        String::from_utf8_lossy(&shown.stderr).contains("not yet: not any_deps_missing (bronze.raw)")
    });
    served.sandbox.run(&["run", "bronze.raw"]).expect(0);
    served.wait("the first run", |served| runs(served) == ["gold.mart silver.clean succeeded"]);
    // Nothing new changes nothing.
    served.sandbox.run(&["run", "bronze.raw"]).expect(0);
    served.sandbox.write("raw.csv", "id\n1\n2\n");
    served.sandbox.run(&["run", "bronze.raw", "--full-refresh"]).expect(0);
    served.wait("the second run", |served| runs(served).len() == 2 && !runs(served)[1].contains("running"));
    // A run of everything does it all itself.
    served.sandbox.write("raw.csv", "id\n1\n2\n3\n");
    served.sandbox.run(&["run", "--full-refresh"]).expect(0);
    served.sandbox.run(&["automation", "off", "silver.clean"]).expect(0);
    served.sandbox.run(&["run", "bronze.raw", "--full-refresh"]).expect(0);
    served.sandbox.run(&["automation", "on", "silver.clean"]).expect(0);
    let tested = served.sandbox.run(&["automation", "test", "gold.mart", "--output", "csv"]).expect(0);
    assert!(tested.out.contains("not any_deps_missing,true,"), "{}", tested.out);
    assert_eq!(served.stop(), Some(0));
    assert_eq!(runs(&served).len(), 2, "{:?}", runs(&served));
    let listed = served.sandbox.run(&["automation", "list", "--output", "csv"]).expect(0).out;
    assert!(listed.contains("silver.clean,asset,on_upstream_update,silver.clean,on,"), "{listed}");
    let count = served.sandbox.run(&["query", "select n from gold.mart", "--output", "csv"]).expect(0);
    assert_eq!(count.out, "n\n3");
}

/// A crash between deciding and writing, or behind it, neither loses nor doubles the run.
#[test]
fn a_crash_neither_loses_nor_doubles_what_is_asked_for() {
    let mut served = served(&files("eager"));
    served.sandbox.run(&["run", "bronze.raw"]).expect(0);
    served.start_with(&[], &[("SUBAK_CRASH_AT", "automation_planned")]);
    served.ended();
    assert!(runs(&served).is_empty());
    // The next server tries again what was lost, and gives it up when it has cost so many servers.
    for _ in 0..4 {
        served.start_with(&[], &[("SUBAK_CRASH_AT", "before_publish")]);
        served.ended();
    }
    served.start();
    served.wait("the run that was lost", |served| runs(served).iter().any(|run| run.ends_with("failed")));
    // T-108: what failed waits until something upstream changes.
    served.sandbox.write("raw.csv", "id\n1\n2\n");
    served.sandbox.run(&["run", "bronze.raw"]).expect(0);
    served.wait("another one", |served| runs(served).iter().any(|run| run == "gold.mart silver.clean succeeded"));
    assert_eq!(runs(&served).len(), 2, "{:?}", runs(&served));
}

/// An asset that tasks make is made by its tasks whoever asks for it, and again when it is late by its own policy.
#[test]
fn tasks_are_brought_along_and_policies_are_kept() {
    let mut all = files("eager");
    let graph = "graph:\n  depends_on: silver.clean\n  automation: on_upstream_update\n  tasks:\n    one: { run: 'echo made >> tasks' }\n".to_owned();
    all.push(("assets/gold/report.yml", graph));
    let policy = "/* subak\nstored_as: table\nfreshness: { max_age: 3s }\nautomation: { when: \"missing or freshness_failed\" }\n*/\nselect 1 as id\n";
    all.push(("assets/gold/kept.sql", policy.to_owned()));
    let mut served = served(&all);
    served.sandbox.run(&["run", "bronze.raw"]).expect(0);
    served.start();
    served.wait("the tasks", |served| served.lines("tasks") == ["made"]);
    let made =
        |served: &Served| runs(served).iter().filter(|run| run.contains("gold.kept") && run.ends_with("succeeded")).count();
    served.wait("two that were late", |served| made(served) >= 3);
    assert_eq!(served.stop(), Some(0));
    assert_eq!(served.lines("tasks"), ["made"]);
}

/// By the clock, and with conditions of one's own.
#[test]
fn clocks_and_conditions() {
    let mut all = files("{ when: \"any_deps_updated since_last_handled and not in_progress\" }");
    all[2].1 = INGEST.replace("path: raw.csv", "path: raw.csv, automation: { fresh: 2s }");
    let mut served = served(&all);
    served.start();
    served.wait("three runs of the source", |served| {
        runs(served).iter().filter(|run| run.contains("bronze.raw") && run.ends_with("succeeded")).count() >= 3
    });
    assert_eq!(served.stop(), Some(0));
    // Its data changed once, so what reads it was made once, and left out since.
    let shown = served.sandbox.run(&["run", "show", "last"]).expect(0);
    assert!(shown.out.contains("silver.clean") && shown.out.contains("nothing upstream changed"), "{}", shown.out);
    let ticks = served.ticks("bronze.raw");
    assert!(ticks.len() >= 3 && ticks.iter().all(|tick| tick.ends_with(",started")), "{ticks:?}");
}
