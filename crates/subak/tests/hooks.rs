//! Statements around a step: when they run, where, and what is true of the data when one of them fails.

#[path = "support/warehouse.rs"]
mod warehouse;

use subak_testkit::Sandbox;
use warehouse::{project, read};

const INGEST: &str = "ingest:
  from: app
  defaults: { hooks: { after: ['insert into log.seen select count(*) from {{ this }}'] } }
  streams:
    users:
      primary_key: id
      hooks: { before: [{ on: app, sql: 'insert into users select count(*) + 1 from users;' }] }
";

const QUERY: &str = "/* subak
stored_as: table
hooks:
  before: [create table if not exists log.built (n int)]
  after: ['insert into log.built select count(*) from {{ this }}']
*/
select * from bronze.users
";

fn sandbox() -> Sandbox {
    let sandbox = project(&[("assets/bronze/app.yml", INGEST), ("assets/silver/all.sql", QUERY)]);
    let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    source.execute_batch("create table users (id integer primary key); insert into users values (1)").expect("a table");
    let warehouse = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("a database");
    warehouse.execute_batch("create schema log; create table log.seen (n int)").expect("a table");
    sandbox
}

#[test]
fn statements_run_before_and_after_each_step() {
    let sandbox = sandbox();
    for _ in 0..2 {
        sandbox.run(&["run"]).expect(0);
    }
    assert_eq!(read(&sandbox, "select n from log.seen order by n"), ["2", "3"], "what ran before the read was read");
    assert_eq!(read(&sandbox, "select n from log.built order by n"), ["2", "3"]);
    // Another statement makes nothing due.
    sandbox.write("assets/silver/all.sql", &QUERY.replace("select count(*) from {{ this }}", "select 7"));
    let plan = sandbox.run(&["plan", "silver.all"]).expect(0);
    assert!(!plan.out.contains("definition changed"), "{}", plan.out);
}

#[test]
fn what_is_true_after_a_statement_failed_is_said() {
    let sandbox = sandbox();
    let wrong = INGEST.replace("log.seen", "log.nowhere");
    sandbox.write("assets/bronze/app.yml", &wrong);
    let failed = sandbox.run(&["run", "bronze.users"]);
    assert_eq!(failed.code, Some(1), "{}", failed.err);
    for words in ["`hooks.after` number 1 on `warehouse`: the statement failed", "nowhere", "the rows of this step are published"]
    {
        assert!(failed.err.contains(words), "{words}: {}", failed.err);
    }
    assert_eq!(read(&sandbox, "select count(*) from bronze.users"), ["2"]);
    // The next run loads nothing twice and runs what did not run.
    sandbox.write("assets/bronze/app.yml", INGEST);
    sandbox.run(&["run", "bronze.users"]).expect(0);
    assert_eq!(read(&sandbox, "select n from log.seen"), ["3"]);

    sandbox.write("assets/bronze/app.yml", &INGEST.replace("insert into users select", "insert into nowhere select"));
    let failed = sandbox.run(&["run", "bronze.users"]);
    for words in ["`hooks.before` number 1 on `app`", "nothing of this step was published"] {
        assert!(failed.err.contains(words), "{words}: {}", failed.err);
    }
    assert_eq!(read(&sandbox, "select n from log.seen"), ["3"], "nothing came after it");
}

#[test]
fn wrong_hooks_are_found_before_anything_runs() {
    let sandbox = sandbox();
    for (from, to, words) in [
        ("on: app", "on: files", "connection `files` (type `files`) runs no statements"),
        ("on: app", "on: ap", "did you mean `app`?"),
        ("{{ this }}", "{{ that }}", "knows `{{ this }}` and no other template"),
        ("{{ this }}", "${secret:x}", "knows no secrets and no variables"),
        ("before: [{", "during: [{", "does not know the key `during`"),
        ("['insert into log.seen select count(*) from {{ this }}']", "delete", "must be a list of statements"),
    ] {
        sandbox.write("assets/bronze/app.yml", &INGEST.replace(from, to));
        let wrong = sandbox.run(&["validate"]);
        assert!(wrong.code == Some(2) && wrong.err.contains(words), "{words}: {}", wrong.err);
    }
}

#[test]
fn what_was_published_is_seen_downstream_and_not_touched_again() {
    let sandbox = sandbox();
    let plain = "ingest:\n  from: app\n  streams:\n    users: { primary_key: id, hooks: { before: ['delete from bronze.users where id = 77'], \
                 after: ['insert into log.seen select count(*) from {{ this }}'] } }\n";
    sandbox.write("assets/bronze/app.yml", &plain.replace("before: ['delete from bronze.users where id = 77'], ", ""));
    sandbox.run(&["run"]).expect(0);
    let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("a database");
    source.execute_batch("insert into users values (77)").expect("a row");
    sandbox.write("assets/bronze/app.yml", &plain.replace("log.seen", "log.later"));
    assert_eq!(sandbox.run(&["run"]).code, Some(1));
    assert_eq!(read(&sandbox, "select count(*) from bronze.users"), ["2"]);

    // Going on repeats what failed, and nothing that would undo what is published.
    let warehouse = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("a database");
    warehouse.execute_batch("create table log.later (n int)").expect("a table");
    drop(warehouse);
    sandbox.run(&["run", "resume"]).expect(0);
    assert_eq!(read(&sandbox, "select n from log.later"), ["2"]);
    assert_eq!(read(&sandbox, "select count(*) from bronze.users"), ["2"]);
    assert_eq!(read(&sandbox, "select count(*) from silver.all"), ["2"]);

    // A run of its own finds nothing new, and what is downstream has still to see what the failed one published.
    source.execute_batch("insert into users values (78)").expect("a row");
    let broken = plain.replace("log.seen", "log.nowhere").replace("before: ['delete from bronze.users where id = 77'], ", "");
    sandbox.write("assets/bronze/app.yml", &broken);
    assert_eq!(sandbox.run(&["run"]).code, Some(1));
    assert_eq!(read(&sandbox, "select count(*) from silver.all"), ["2"]);
    sandbox.write("assets/bronze/app.yml", &broken.replace("log.nowhere", "log.seen"));
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("done silver.all"), "{}{}", ran.err, ran.out);
    assert_eq!(read(&sandbox, "select count(*) from silver.all"), ["3"]);

    // The same for a result whose statements did not run: it is due until they have.
    sandbox.write("assets/silver/all.sql", &QUERY.replace("insert into log.built", "insert into log.nowhere"));
    assert_eq!(sandbox.run(&["run", "silver.all"]).code, Some(1));
    sandbox.write("assets/silver/all.sql", QUERY);
    let before = read(&sandbox, "select count(*) from log.built");
    sandbox.run(&["run"]).expect(0);
    assert_ne!(read(&sandbox, "select count(*) from log.built"), before);
}
