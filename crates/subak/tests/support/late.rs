//! A column that comes later, and a kill in the middle of the load that adds it.

use subak_testkit::Sandbox;

/// The asset of the stream.
pub(crate) fn asset(on: &str) -> String {
    format!(
        "ingest:\n  from: app\n  to: {on}\n  streams:\n    events: {{ mode: append, cursor: day, columns: {{ day: date }} }}\n"
    )
}

/// Appends rows of one day in several loads; the second one adds a column and is killed twice at `point` before.
#[track_caller]
pub(crate) fn doubles_no_rows(sandbox: &Sandbox, point: &str, rows: impl Fn() -> Vec<String>) {
    let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    let app = |sql: &str| source.execute_batch(sql).expect("the source");
    app("drop table if exists events; create table events (day text, id integer);
         insert into events values ('2026-01-01', 1), ('2026-01-02', 2)");
    sandbox.run(&["run"]).expect(0);
    app("alter table events add column size integer default 7; insert into events values ('2026-01-02', 3, 8)");
    for _ in 0..2 {
        let died = sandbox.finish(sandbox.command(&["run"]).env("SUBAK_CRASH_AT", point));
        assert_ne!(died.code, Some(0), "killed at {point}");
    }
    sandbox.run(&["run"]).expect(0);
    app("insert into events values ('2026-01-02', 4, 9), ('2026-01-03', 5, 1)");
    for _ in 0..2 {
        sandbox.run(&["run"]).expect(0);
    }
    let mut found = rows();
    found.sort();
    let expected = ["2026-01-01,1,NULL", "2026-01-02,2,NULL", "2026-01-02,3,8", "2026-01-02,4,9", "2026-01-03,5,1"];
    assert_eq!(found, expected, "killed at {point}");
}
