//! Assets that something outside keeps up to date.

use subak_testkit::{Sandbox, Served};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const FILES: &[(&str, &str)] = &[
    (
        "subak.yml",
        "project: outside\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb, external_access: true }\nexternal: [ raw.unseen ]\n",
    ),
    (
        "assets/raw/orders.yml",
        "external:\n  description: Written by the shop\n  observe: { query: \"select count(*) as n, max(id) as id from read_csv('orders.csv')\" }\n---\n\
         external: { asset: raw.report, observe: { run: 'cp report.json $SUBAK_VALUE_PATH' } }\n",
    ),
    ("assets/gold/by_orders.sh", "# /// subak\n# stored_as: outside\n# depends_on: raw.orders\n# ///\necho made >> by_orders\n"),
    ("assets/gold/by_report.sh", "# /// subak\n# stored_as: outside\n# depends_on: raw.report\n# ///\necho made >> by_report\n"),
    ("assets/gold/by_unseen.sh", "# /// subak\n# stored_as: outside\n# depends_on: raw.unseen\n# ///\necho made >> by_unseen\n"),
];

/// T-170: what reads an external asset is due when a look finds another one, and not when it finds the same.
#[test]
fn t_170_a_look_that_finds_the_same_makes_nothing_due() {
    let sandbox = Sandbox::new(BINARY, FILES);
    sandbox.write("orders.csv", "id\n1\n");
    sandbox.write("report.json", "{ \"etag\": \"a\" }");
    let count = |name: &str| std::fs::read_to_string(sandbox.path().join(name)).unwrap_or_default().lines().count();
    let counts = || (count("by_orders"), count("by_report"), count("by_unseen"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(counts(), (1, 1, 1));
    let again = sandbox.run(&["run"]).expect(0);
    assert_eq!(counts(), (1, 1, 2), "nobody tells when `raw.unseen` changes\n{}", again.err);
    sandbox.write("orders.csv", "id\n1\n2\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(counts(), (2, 1, 3));
    sandbox.write("report.json", "{ \"etag\": \"b\" }");
    // Whoever reads it looks first, also where it is not selected itself.
    sandbox.run(&["run", "gold.by_report"]).expect(0);
    assert_eq!(counts().1, 2);
    sandbox.run(&["run", "raw.report"]).expect(0);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(counts().1, 2, "it was seen");
    // A look that was planned before another one has seen more is compared with what was seen last: it found the first report again.
    sandbox.write(
        "assets/gold/fails.yml",
        "external: { asset: raw.fails, observe: { run: 'test -e there && cp report.json $SUBAK_VALUE_PATH' } }\n",
    );
    sandbox.write(
        "assets/gold/by_fails.sh",
        "# /// subak\n# stored_as: outside\n# depends_on: raw.fails\n# ///\necho made >> by_fails\n",
    );
    sandbox.write("there", "");
    sandbox.run(&["run", "raw.fails+"]).expect(0);
    std::fs::remove_file(sandbox.path().join("there")).expect("removed");
    sandbox.run(&["run", "raw.fails+"]).expect(1);
    sandbox.write("there", "");
    sandbox.write("report.json", "{ \"etag\": \"c\" }");
    let ran = sandbox.command(&["run", "raw.fails+", "--output", "json"]).output().expect("starts");
    assert!(ran.status.success());
    assert_eq!(count("by_fails"), 2);
    sandbox.write("report.json", "{ \"etag\": \"b\" }");
    let listed = sandbox.command(&["run", "list", "--output", "csv"]).output().expect("starts").stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let failed =
        listed.lines().find(|line| line.contains("failed")).and_then(|line| line.split(',').next()).expect("the failed run");
    sandbox.run(&["run", "resume", failed]).expect(0);
    sandbox.run(&["run", "raw.fails+"]).expect(0);
    assert_eq!(count("by_fails"), 3, "what was made of `c` is made of `b` again");
    std::fs::remove_file(sandbox.path().join("assets/gold/fails.yml")).expect("removed");
    std::fs::remove_file(sandbox.path().join("assets/gold/by_fails.sh")).expect("removed");
    let shown = sandbox.run(&["show", "raw.orders"]).expect(0).out;
    assert!(shown.contains("observed by a query on `warehouse`"), "{shown}");
    // A look that fails says nothing, and holds up what reads the asset.
    std::fs::remove_file(sandbox.path().join("report.json")).expect("removed");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("raw.report"), "{}", failed.err);
    assert_eq!(counts().1, 2);
    sandbox.write("assets/raw/more.yml", "external: { observe: { run: 'true' } }\n");
    let silent = sandbox.run(&["run", "raw.more"]).expect(1);
    assert!(silent.err.contains("has handed on no value"), "{}", silent.err);
}

/// A server looks by itself, and makes what reads the asset when the look has found something.
#[test]
fn a_server_looks_by_itself() {
    let mut served = Served::unstarted(BINARY, &FILES[..1]);
    let look =
        "external: { observe: { run: 'echo look >> looks; cp report.json $SUBAK_VALUE_PATH' }, automation: { fresh: 1s } }\n";
    served.sandbox.write("assets/raw/report.yml", look);
    let reader = "# /// subak\n# stored_as: outside\n# depends_on: raw.report\n# automation: on_upstream_update\n# ///\ncat report.json >> log\n";
    served.sandbox.write("assets/gold/by_report.sh", reader);
    served.sandbox.write("report.json", "1\n");
    served.start();
    served.wait("some looks", |served| served.lines("looks").len() > 2 && !served.lines("log").is_empty());
    served.sandbox.write("report.json", "2\n");
    served.wait("what was found", |served| served.lines("log").len() > 1);
    let count = served.lines("looks").len();
    served.wait("more looks", |served| served.lines("looks").len() > count + 1);
    assert_eq!(served.lines("log"), ["1", "2"], "looks that find the same start nothing");
}
