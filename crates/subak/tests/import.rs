//! Projects made from the files of other tools run as they are. Results are read back with DuckDB's own library, not through Subak.

#[path = "support/table.rs"]
mod table;

use std::os::unix::fs::PermissionsExt;

use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres, Sandbox};
use table::read_table;

const REPLICATION: &str = r#"
source: MY_PG
target: MY_DUCK
defaults:
  mode: full-refresh
  object: 'bronze.{stream_table}'
  target_options: { column_casing: snake, add_new_columns: true }
streams:
  shop.accounts:
  shop."Users":
    mode: incremental
    primary_key: [id]
    update_key: updated_at
    columns: { balance: "decimal(12,2) | value > 0" }
  shop.events:
    mode: incremental
    update_key: id
    select: [id, note]
  shop.part_*:
    object: 'silver.{stream_schema}_{stream_table}'
    where: "price = '$5'"
    tags: [parts]
  totals:
    object: gold.totals
    sql: "select status, count(*) as n from shop.events group by status"
  shop.old:
    disabled: true
  shop.late:
    object: 'bronze.{run_timestamp}'
  shop.s*:
    object: silver.{stream_table}
  shop.secrets:
    disabled: true
  shop.stuff:
    select: [-password]
  public.orders:
    object: bronze.accounts
  shop.history:
    mode: snapshot
    object: bronze.history
    hooks:
      pre: [{ type: query, connection: my_pg, query: 'insert into shop.seen values (1)' }]
      post: [{ type: query, query: 'create table if not exists bronze.mark as select 1 as n' }, { type: http, url: 'http://x' }]
env:
  SLING_THREADS: 3
"#;

/// The rows as lines with commas.
fn read(sandbox: &Sandbox, sql: &str) -> Vec<String> {
    let line = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(",");
    read_table(sandbox, sql).rows.into_iter().map(line).collect()
}

fn environment(server: &Postgres) -> String {
    format!(
        "connections:\n  MY_PG:\n    type: postgres\n    host: 127.0.0.1\n    port: {}\n    database: subak\n    user: {POSTGRES_USER}\n    password: {}\n  MY_DUCK:\n    type: duckdb\n    instance: ../warehouse.duckdb\n",
        server.port(),
        serde_json::Value::from(POSTGRES_PASSWORD)
    )
}

/// S3-22: each stream of a replication is an asset, those of patterns too.
#[test]
fn a_replication_of_sling_runs_unchanged() {
    let server = Postgres::start();
    server.sql(
        "create schema shop; create table shop.accounts (id int, \"fullName\" text); insert into shop.accounts values (1, 'A'); \
         create table shop.\"Users\" (id int primary key, balance numeric, updated_at timestamp); insert into shop.\"Users\" values (1, 5, '2025-01-01'); \
         create table shop.events (id int, note text, status text); insert into shop.events values (1, 'x', 'ok'), (2, 'y', 'ok'); \
         create table shop.part_a (id int, price text); insert into shop.part_a values (1, '$5'), (2, '$6'); \
         create table shop.part_b (id int, price text); create table shop.history (id int); create table shop.secrets (id int); create table shop.stuff (id int); create table shop.seen (id int); insert into shop.history values (1)",
    );
    let binary = env!("CARGO_BIN_EXE_subak");
    let sandbox = Sandbox::new(
        binary,
        &[("shop.yaml", REPLICATION), ("env.yaml", &environment(&server).replace("../warehouse.duckdb", "warehouse.duckdb"))],
    );
    let folder = sandbox.path().to_path_buf();
    let path = |name: &str| folder.join(name).display().to_string();
    let dry = sandbox
        .run(&["import", "sling", &path("shop.yaml"), &path("project"), "--env", &path("env.yaml"), "--dry-run"])
        .expect(0);
    assert!(dry.out.contains("would make 7 streams") && !folder.join("project").exists(), "{}", dry.out);
    let made = sandbox.run(&["import", "sling", &path("shop.yaml"), &path("project"), "--env", &path("env.yaml")]).expect(0);
    for words in [
        "made 7 streams in 5 files",
        "secrets are in",
        "`env` (SLING_THREADS) of the replication has no counterpart",
        "`shop.secrets` is disabled and left out",
        "`shop.stuff` is left out: its `select` ([\"-password\"]) leaves columns out",
        "`public.orders` is left out: its table is that of another stream",
        "the constraint `value > 0` of `shop.\"Users\".balance` is no check yet",
        "`shop.old` is disabled and left out",
        "`shop.late` is left out: its object `bronze.{run_timestamp}` has parts that are known only when it runs",
        "a hook `http` of `shop.history` (post) has no counterpart",
        "discover --save",
    ] {
        assert!(made.out.contains(words), "{words}: {}", made.out);
    }
    let secret = folder.join("project/.subak/secrets/my_pg_password");
    assert_eq!(std::fs::metadata(&secret).expect("a secret").permissions().mode() & 0o777, 0o600);
    let config = std::fs::read_to_string(folder.join("project/subak.yml")).expect("a file");
    assert!(!config.contains(POSTGRES_PASSWORD) && config.contains("${secret:my_pg_password}"), "{config}");

    let project = path("project");
    sandbox.run(&["-C", &project, "discover", "--save"]).expect(0);
    // A column of another type than Sling was told is Subak's to say.
    for _ in 0..2 {
        sandbox.run(&["-C", &project, "run"]).expect(0);
    }
    assert_eq!(read(&sandbox, "select id, full_name from bronze.accounts"), ["1,A"]);
    assert_eq!(read(&sandbox, "select id, balance, updated_at from bronze.users"), ["1,5.00,2025-01-01 00:00:00"]);
    assert_eq!(read(&sandbox, "select * from bronze.events order by id"), ["1,x", "2,y"]);
    assert_eq!(read(&sandbox, "select id, price from silver.shop_part_a"), ["1,$5"]);
    assert_eq!(read(&sandbox, "select count(*) from silver.shop_part_b"), ["0"]);
    assert_eq!(read(&sandbox, "select status, n from gold.totals"), ["ok,2"]);
    let silver = "select table_name from information_schema.tables where table_schema = 'silver' order by 1";
    assert_eq!(
        read(&sandbox, silver),
        ["seen", "shop_part_a", "shop_part_b"],
        "what is left out is left out of patterns as well"
    );
    assert!(std::fs::read_to_string(folder.join("project/.gitignore")).expect("a file").contains(".subak/"));
    assert_eq!(read(&sandbox, "select count(*), count(_sling_loaded_at) from bronze.history"), ["2,2"]);
    assert_eq!(server.sql("select count(*) from shop.seen"), [[Some("2".to_owned())]]);
    assert_eq!(read(&sandbox, "select n from bronze.mark"), ["1"]);
}

#[test]
fn what_is_no_replication_says_so_and_shows_no_secret() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_subak"), &[("shop.yaml", REPLICATION), ("env.yaml", "connections: {}\n")]);
    let folder = sandbox.path().to_path_buf();
    let path = |name: &str| folder.join(name).display().to_string();
    let project = path("project");
    sandbox.write("project/subak.yml", "project: x\n");
    let again = sandbox.run(&["import", "sling", &path("shop.yaml"), &project]);
    assert!(again.code == Some(2) && again.err.contains("is not empty"), "{}", again.err);
    let other = sandbox.run(&["import", "sling", &path("env.yaml"), &path("other")]);
    assert!(other.code == Some(2) && other.err.contains("is no replication of Sling: `source` is missing"), "{}", other.err);
    sandbox.write("broken.yaml", "source: a\n  target: [b\n");
    let broken = sandbox.run(&["import", "sling", &path("broken.yaml"), &path("other")]);
    assert!(broken.code == Some(2) && broken.err.contains("line 2"), "{}", broken.err);
    // An address with a password shows nowhere.
    sandbox.write(
        "url.yaml",
        "source: postgres://me:Secret1@host/db\ntarget: duckdb://w.duckdb\nstreams: { a.b: { object: x.y } }\n",
    );
    let url = sandbox.run(&["import", "sling", &path("url.yaml"), &path("url")]).expect(0);
    let config = std::fs::read_to_string(folder.join("url/subak.yml")).expect("a file");
    assert!(!format!("{}{config}", url.out).to_lowercase().contains("secret1") && config.contains("source_password"), "{config}");
    let unknown = sandbox.run(&["import", "sling", &path("shop.yaml"), &path("unknown")]).expect(0);
    assert!(unknown.out.contains("nothing says what it is; name Sling's `env.yaml` with `--env`"), "{}", unknown.out);
}
