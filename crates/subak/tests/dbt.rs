//! A dbt project as assets, with the real dbt on DuckDB and on PostgreSQL.

use std::path::Path;
use std::process::Command;

use subak_testkit::{Postgres, Ran, Sandbox, dbt};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

/// The example, with its manifest.
fn example() -> Sandbox {
    let sandbox = Sandbox::new(BINARY, &[]);
    sandbox.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/dbt"), ".");
    sandbox
}

fn parse(sandbox: &Sandbox) {
    let ended =
        Command::new(dbt()).args(["parse", "--quiet", "--profiles-dir", "."]).current_dir(sandbox.path().join("dbt")).output();
    let ended = ended.expect("dbt starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}

/// Runs a command that finds dbt.
fn run(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    let mut command = sandbox.command(arguments);
    let folder = Path::new(dbt()).parent().expect("a folder").display().to_string();
    sandbox.finish(command.env("PATH", format!("{folder}:/usr/bin:/bin")))
}

fn rows(sandbox: &Sandbox, sql: &str) -> String {
    sandbox.run(&["query", sql, "--output", "csv"]).expect(0).out.trim_end().to_owned()
}

/// How often dbt was started in the newest run.
fn starts(sandbox: &Sandbox) -> usize {
    // As it is, with the id.
    let shown = sandbox.command(&["run", "show", "--output", "json"]).output().expect("it starts").stdout;
    let run: serde_json::Value = serde_json::from_slice(&shown).expect("json");
    let logs = sandbox.path().join(".subak/logs").join(run["run"].as_str().expect("an id"));
    std::fs::read_dir(logs).into_iter().flatten().count()
}

/// S3-23: models are assets with states of their own, and one start of dbt builds all that are asked for.
#[test]
fn s3_23_a_dbt_project_is_a_part_of_the_graph() {
    let sandbox = example();
    let refused = run(&sandbox, &["validate"]).expect(2);
    assert!(refused.err.contains("SBK0224") && refused.err.contains("run `dbt parse` in `dbt`"), "{}", refused.err);
    parse(&sandbox);
    let listed = run(&sandbox, &["list", "kind:dbt", "--output", "csv"]).expect(0).out;
    for key in ["marts.customers", "staging.stg_orders", "staging.regions"] {
        assert!(listed.contains(key), "{listed}");
    }
    let ran = run(&sandbox, &["run"]).expect(0);
    assert_eq!(starts(&sandbox), 1, "{}", ran.err);
    assert_eq!(rows(&sandbox, "select * from gold.by_region order by 1"), "region,total\neast,20.25\nwest,14.50");
    let shown = run(&sandbox, &["show", "marts.customers"]).expect(0).out;
    for expected in [
        "What each customer has bought",
        "`model.shop.customers` of dbt",
        "with 4 tests",
        "staging.stg_orders",
        "staging.regions",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let shown = run(&sandbox, &["run", "show", "--output", "json"]).expect(0).out;
    for expected in ["unique_customers_customer", "no_negative_total", "not_null_stg_orders_id", "dbt_seconds"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(run(&sandbox, &["run"]).expect(0).err.contains("nothing to do"));
    // A part of a query has no table, and is a part of what reads it.
    sandbox.write(
        "dbt/models/staging/paid_orders.sql",
        "{{ config(materialized='ephemeral') }}\nselect * from {{ ref('stg_orders') }} where amount > 0.5\n",
    );
    parse(&sandbox);
    let planned = run(&sandbox, &["plan"]).expect(0).out;
    assert!(planned.contains("marts.customers") && !planned.contains("staging."), "{planned}");
    // A changed model is due with what is behind it, and nothing before it.
    let model = "select o.customer, coalesce(r.region, 'nowhere') as region, sum(o.amount) as total\nfrom {{ ref('paid_orders') }} o left join {{ ref('regions') }} r on r.customer = o.customer group by 1, 2\n";
    sandbox.write("dbt/models/marts/customers.sql", model);
    sandbox.write("assets/bronze/orders.csv", "id,customer,amount\n1,Ana,10.50\n2,Budi,20.25\n3,Ana,4.00\n4,Citra,1.00\n");
    run(&sandbox, &["run", "bronze.orders"]).expect(0);
    parse(&sandbox);
    let planned = run(&sandbox, &["plan"]).expect(0).out;
    assert!(
        planned.contains("marts.customers") && planned.contains("staging.stg_orders") && !planned.contains("staging.regions"),
        "{planned}"
    );
    run(&sandbox, &["run"]).expect(0);
    assert_eq!(rows(&sandbox, "select * from gold.by_region order by 1"), "region,total\neast,20.25\nnowhere,1.00\nwest,14.50");
}

/// What dbt finds wrong: a test, a model; nothing behind it is made, and the run says why.
#[test]
fn what_fails_in_dbt_holds_up_what_is_behind_it() {
    let sandbox = example();
    sandbox.write("assets/bronze/orders.csv", "id,customer,amount\n1,Ana,10.50\n2,Budi,20.25\n");
    sandbox.write("assets/dbt.yml", "dbt:\n  project: dbt\n  profiles: dbt\n  retry: { attempts_max: 1 }\n");
    parse(&sandbox);
    run(&sandbox, &["run"]).expect(0);
    let before = rows(&sandbox, "select * from gold.by_region order by 1");
    sandbox.write(
        "dbt/models/staging/paid_orders.sql",
        "{{ config(materialized='ephemeral') }} select id, customer, -amount as amount from {{ ref('stg_orders') }}\n",
    );
    sandbox.write("dbt/models/marts/customers.sql", "select o.customer, r.region, sum(o.amount) as total, 1 as changed from {{ ref('paid_orders') }} o left join {{ ref('regions') }} r on r.customer = o.customer group by 1, 2\n");
    parse(&sandbox);
    let failed = run(&sandbox, &["run"]).expect(1);
    assert!(failed.err.contains("tests of dbt failed: `no_negative_total`"), "{}", failed.err);
    assert!(failed.err.contains("dbt has built it, and readers see its new rows"), "{}", failed.err);
    assert_eq!(rows(&sandbox, "select * from gold.by_region order by 1"), before);
    assert!(run(&sandbox, &["plan"]).expect(0).out.contains("marts.customers"), "it is due until its tests pass");
    sandbox.write("dbt/models/marts/customers.sql", "select nothing from {{ ref('paid_orders') }} o, {{ ref('regions') }}\n");
    parse(&sandbox);
    let failed = run(&sandbox, &["run", "marts.customers"]).expect(1);
    assert!(
        failed.err.contains("dbt could not build `model.shop.customers`: error") && failed.err.contains("nothing"),
        "{}",
        failed.err
    );
    // dbt that cannot begin says why.
    sandbox.write("dbt/profiles.yml", "other: {}\n");
    let failed = run(&sandbox, &["run", "marts.customers"]).expect(1);
    assert!(failed.err.contains("Could not find profile named 'shop'"), "{}", failed.err);
    // What fails beside the nodes fails them too.
    sandbox.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/dbt/dbt"), "dbt");
    let project = std::fs::read_to_string(sandbox.path().join("dbt/dbt_project.yml")).expect("read");
    sandbox.write("dbt/dbt_project.yml", &format!("{project}on-run-end: [ \"select * from nowhere\" ]\n"));
    parse(&sandbox);
    let failed = run(&sandbox, &["run", "staging.regions"]).expect(1);
    assert!(failed.err.contains("failed with something else") && failed.err.contains("nowhere"), "{}", failed.err);
    let failed = sandbox.finish(sandbox.command(&["run", "marts.customers"]).env("PATH", "/nowhere")).expect(1);
    assert!(failed.err.contains("`dbt` cannot be started"), "{}", failed.err);
}

/// The same project in PostgreSQL.
#[test]
fn dbt_builds_in_postgres() {
    let server = Postgres::start();
    let sandbox = example();
    let (port, user, password) = (server.port(), subak_testkit::POSTGRES_USER, subak_testkit::POSTGRES_PASSWORD);
    sandbox.write(
        "subak.yml",
        &format!("project: shop\ntimezone: UTC\nconnections:\n  warehouse: {{ type: postgres, host: 127.0.0.1, port: {port}, database: subak, user: {user}, password: \"${{secret:pg}}\" }}\n"),
    );
    sandbox.write("dbt/profiles.yml", &format!("shop:\n  target: dev\n  outputs:\n    dev: {{ type: postgres, host: 127.0.0.1, port: {port}, dbname: subak, user: {user}, password: \"{{{{ env_var('PG_PASSWORD') }}}}\", schema: public }}\n"));
    sandbox.write("assets/dbt.yml", "dbt:\n  project: dbt\n  profiles: dbt\n  env: { PG_PASSWORD: \"${secret:pg}\" }\n");
    let mut parsed = Command::new(dbt());
    let parsed = parsed
        .args(["parse", "--quiet", "--profiles-dir", "."])
        .env("PG_PASSWORD", password)
        .current_dir(sandbox.path().join("dbt"));
    assert!(parsed.status().expect("dbt starts").success());
    let mut command = sandbox.command(&["run"]);
    let folder = Path::new(dbt()).parent().expect("a folder").display().to_string();
    sandbox.finish(command.env("PATH", format!("{folder}:/usr/bin:/bin")).env("SUBAK_SECRET_PG", password)).expect(0);
    let found = server.sql("select region, total::text from gold.by_region order by 1");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found, [[text("east"), text("20.25")], [text("west"), text("14.50")]]);
}
