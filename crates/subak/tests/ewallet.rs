//! The e-wallet cases: documents, a relational source in steps, change events. Expected tables come from other tools (see
//! `parity/README.md`); tables are read back with DuckDB's own library, not through Subak.

#[path = "support/expected.rs"]
mod expected;
#[path = "support/secret.rs"]
mod secret;
#[path = "support/table.rs"]
mod table;

use expected::{assert_equals, parity};
use secret::set_secret;
use subak_testkit::{MARIADB_PASSWORD, MARIADB_USER, MariaDb, Sandbox, Table};
use table::read_table;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

/// The accounting holds in every step of the last run.
#[track_caller]
fn assert_accounted(sandbox: &Sandbox) {
    let shown = sandbox.run(&["run", "show", "-o", "json"]).expect(0);
    let run: serde_json::Value = serde_json::from_str(&shown.out).expect("json");
    for step in run["steps"].as_array().expect("steps") {
        let number = |name: &str| step[name].as_u64();
        if let (Some(read), Some(written), Some(rejected), Some(filtered)) =
            (number("read"), number("written"), number("rejected"), number("filtered"))
        {
            assert_eq!(read, written + rejected + filtered, "{step}");
        }
    }
}

const PROJECT: &str = "project: ewallet\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  app: { type: sqlite, path: app.db }\n  \
                       files: { type: files, path: input }\n";

/// The stream of documents; `how` says how rows are found and written.
fn documents(how: &str) -> String {
    format!(
        "ingest:
  from: files
  streams:
    fact_transactions:
      path: transactions_*.jsonl
      {how}
      columns:
        transaction_mongo_id: {{ from: _id }}
        amount: decimal(18,4)
        transaction_time: datetime
        metadata:
          flatten:
            device_type: {{ from: [device, device_type], default: Unknown }}
            promo_code: {{ from: [promo, promo_code], default: '' }}
      derive:
        amount_category: {{ categorize: amount, bands: {{ High Value: 1000000, Medium Value: 100000 }}, else: Low Value }}
        ingestion_time: run.started_at
      select: [transaction_mongo_id, user_id, merchant_id, amount, currency, status, device_type, promo_code, amount_category, transaction_time, ingestion_time]
    dim_users: {{ path: users.csv, primary_key: user_id, deduplicate: updated_at, columns: {{ updated_at: datetime }} }}
    dim_merchants: {{ path: merchants.csv, primary_key: merchant_id, deduplicate: updated_at, columns: {{ updated_at: datetime }} }}
"
    )
}

const PER_DAY: &str = "select cast(transaction_time as date) as transaction_date, user_id, sum(amount) as total_daily_spent, \
                       count(*) as transaction_count from bronze.fact_transactions where status = 'SUCCESS' group by all";

const PER_MERCHANT: &str = "select m.merchant_name, m.category, count(*) as total_transactions, sum(amount) as total_revenue, \
                            round(avg(amount), 2) as avg_ticket_size from bronze.fact_transactions t \
                            join bronze.dim_merchants m on m.merchant_id = cast(t.merchant_id as varchar) where t.status = 'SUCCESS' group by all";

#[test]
fn documents_arrive_in_increments() {
    let variants = [
        ("seed", "mode: append\n      cursor: { column: transaction_time, lower: open }"),
        ("every_document_once", "primary_key: transaction_mongo_id\n      deduplicate: transaction_time"),
    ];
    for (variant, how) in variants {
        let sandbox = Sandbox::new(BINARY, &[("subak.yml", PROJECT), ("assets/bronze/mongo.yml", &documents(how))]);
        let case = "s000_mongo_dagster";
        let give = |file: &str| {
            let folder = sandbox.path().join("input");
            std::fs::create_dir_all(&folder).expect("folder");
            std::fs::copy(parity(&format!("{case}/input/{file}")), folder.join(file)).expect(file);
        };
        give("users.csv");
        give("merchants.csv");
        for (run, file) in
            [(1, Some("transactions_1.jsonl")), (2, Some("transactions_2.jsonl")), (3, None), (4, Some("transactions_3.jsonl"))]
        {
            file.into_iter().for_each(give);
            let ran = sandbox.run(&["run"]).expect(0);
            assert_equals(&sandbox, "bronze.fact_transactions", &format!("{case}/expected/after_run{run}_{variant}.csv"));
            assert_accounted(&sandbox);
            if run == 3 {
                assert!(ran.err.contains("every row was there already") || ran.err.contains("no new rows"), "{}", ran.err);
            }
        }
        assert_equals(&sandbox, "bronze.dim_users", &format!("{case}/expected/dim_users.csv"));
        assert_equals(&sandbox, "bronze.dim_merchants", &format!("{case}/expected/dim_merchants.csv"));
        assert_equals(&sandbox, &format!("({PER_DAY})"), &format!("{case}/expected/query_per_day_{variant}.csv"));
        assert_equals(&sandbox, &format!("({PER_MERCHANT})"), &format!("{case}/expected/query_per_merchant_{variant}.csv"));
    }
}

/// The scripts of the source, in SQLite's words.
fn step(name: &str) -> String {
    let text = std::fs::read_to_string(parity(&format!("s001_mysql_elt/input/{name}"))).expect(name);
    let mut result = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("KEY ") {
            continue;
        }
        let mut line = line.replace(" ENGINE=InnoDB", "").replace(" DEFAULT CHARSET=utf8mb4", "");
        while let Some(start) = line.find("ENUM(") {
            let end = start + line[start..].find(')').expect("a closed list") + 1;
            line.replace_range(start..end, "TEXT");
        }
        result.push_str(&line);
        result.push('\n');
    }
    result
}

fn relational(how: &str) -> String {
    format!(
        "ingest:
  from: app
  streams:
    fact_sales:
      stream: transactions
      {how}
      derive:
        amount_category: {{ categorize: amount, bands: {{ High Value: 100000, Medium Value: 50000 }}, else: Low Value }}
        transaction_date: cast(transaction_time as date)
      filter: status = 'SUCCESS'
    dim_users: {{ stream: users, primary_key: user_id, cursor: updated_at }}
    dim_merchants: {{ stream: merchants, primary_key: merchant_id, cursor: updated_at }}
"
    )
}

/// Every variant of the case by configuration alone, with the crash of run 4 at every point where it could matter.
fn follows_a_relational_source(new_project: &dyn Fn(&str) -> Sandbox, apply: &dyn Fn(&Sandbox, &str)) {
    let variants = [
        (
            "watermark_transaction_time",
            "mode: append\n      cursor: { column: transaction_time, lower: open, until: run, upper: closed }",
            "before_publish",
        ),
        ("watermark_updated_at_delete", "primary_key: transaction_id\n      cursor: updated_at", "inside_publish"),
        (
            "watermark_updated_at_keep",
            "primary_key: transaction_id\n      cursor: updated_at\n      on_filter_exit: keep",
            "after_publish",
        ),
        ("source_truth", "mode: replace", "rows_staged"),
    ];
    for (variant, how, crash_at) in variants {
        let sandbox = new_project(&relational(how));
        let expect = |run: u32| {
            assert_equals(&sandbox, "bronze.fact_sales", &format!("s001_mysql_elt/expected/after_run{run}_{variant}.csv"));
            assert_accounted(&sandbox);
        };
        apply(&sandbox, "step1_initial.sql");
        sandbox.run(&["run", "--as-of", "2025-01-05 12:00:00"]).expect(0);
        expect(1);
        apply(&sandbox, "step2_changes.sql");
        sandbox.run(&["run", "--as-of", "2025-01-09 12:00:00"]).expect(0);
        expect(2);
        sandbox.run(&["run", "--as-of", "2025-01-09 12:00:00"]).expect(0);
        expect(3);
        apply(&sandbox, "step3_more.sql");
        let died = sandbox.finish(
            sandbox.command(&["run", "bronze.fact_sales", "--as-of", "2025-01-13 00:00:00"]).env("SUBAK_CRASH_AT", crash_at),
        );
        assert_ne!(died.code, Some(0), "{variant}: the crash of run 4 at {crash_at}");
        sandbox.run(&["run", "--as-of", "2025-01-13 00:00:00"]).expect(0);
        expect(5);
        assert_equals(&sandbox, "bronze.dim_users", "s001_mysql_elt/expected/dim_users_current.csv");
        assert_equals(&sandbox, "bronze.dim_merchants", "s001_mysql_elt/expected/dim_merchants_current.csv");
        sandbox.run(&["run", "--full-refresh", "--as-of", "2025-01-13 00:00:00"]).expect(0);
        expect(6);
        if variant == "source_truth" {
            let per_day = "(select u.name as user_name, transaction_date, sum(amount) as total_daily_spending from bronze.fact_sales f \
                           left join bronze.dim_users u using (user_id) group by all)";
            assert_equals(&sandbox, per_day, "s001_mysql_elt/expected/query1_user_day_total.csv");
            let per_merchant = "(select m.name as merchant_name, m.category, count(*) as total_transaction_count from bronze.fact_sales f \
                                left join bronze.dim_merchants m using (merchant_id) group by all)";
            assert_equals(&sandbox, per_merchant, "s001_mysql_elt/expected/query2_merchant_count.csv");
            let verified = sandbox.run(&["verify", "bronze.fact_sales"]).expect(0);
            assert!(verified.out.contains("equal"), "{}", verified.out);
        }
    }
}

#[test]
fn a_relational_source_in_steps() {
    follows_a_relational_source(
        &|streams| Sandbox::new(BINARY, &[("subak.yml", PROJECT), ("assets/bronze/app.yml", streams)]),
        &|sandbox, script| {
            let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("open");
            source.execute_batch(&step(script)).expect(script);
        },
    );
}

#[test]
fn a_relational_source_in_steps_from_mariadb() {
    let server = MariaDb::start();
    let new_project = |streams: &str| {
        server.sql("drop database subak; create database subak character set utf8mb4");
        let connection = format!(
            "{{ type: mysql, host: 127.0.0.1, port: {}, database: subak, user: {MARIADB_USER}, password: \"${{secret:app}}\" }}",
            server.port()
        );
        let project = PROJECT.replace("{ type: sqlite, path: app.db }", &connection);
        let sandbox = Sandbox::new(BINARY, &[("subak.yml", &project), ("assets/bronze/app.yml", streams)]);
        set_secret(&sandbox, "app", MARIADB_PASSWORD);
        sandbox
    };
    follows_a_relational_source(&new_project, &|_, script| {
        server.script(&parity(&format!("s001_mysql_elt/input/{script}")));
    });
}

const EVENTS: &str = "ingest:
  from: files
  streams:
    cdc_transactions:
      path: cdc_events_*.json
      mode: merge
      read: new
      primary_key: transaction_id
      changes: {}
      on_reject: quarantine
      columns: { amount: 'decimal(10,2)', transaction_time: datetime }
";

#[test]
fn change_events_in_any_order_and_twice() {
    let case = "s001_cdc";
    let sandbox = Sandbox::new(BINARY, &[("subak.yml", PROJECT), ("assets/bronze/events.yml", EVENTS)]);
    let give = |file: u32, name: &str| {
        let folder = sandbox.path().join("input");
        std::fs::create_dir_all(&folder).expect("folder");
        let from = parity(&format!("{case}/input/cdc_events_{file}.json"));
        std::fs::copy(from, folder.join(name)).expect("the file is copied");
    };
    let expect = |file: u32| {
        assert_equals(
            &sandbox,
            "bronze.cdc_transactions",
            &format!("{case}/expected/after_file{file}_latest_with_tombstones.csv"),
        );
        assert_equals(&sandbox, "bronze.cdc_transactions__live", &format!("{case}/expected/after_file{file}_live.csv"));
        assert_accounted(&sandbox);
    };
    for file in 1..=3 {
        give(file, &format!("cdc_events_{file}.json"));
        if file == 2 {
            // Dies after the load and before the offset is committed: nothing is lost, nothing doubled.
            let died = sandbox.finish(sandbox.command(&["run"]).env("SUBAK_CRASH_AT", "inside_publish"));
            assert_ne!(died.code, Some(0));
        }
        sandbox.run(&["run"]).expect(0);
        expect(file);
    }
    let dead = Table::read(&parity(&format!("{case}/expected/dead_letters.csv")));
    let rejects = read_table(
        &sandbox,
        "select regexp_extract(file, '[^/]*$') as file, line - 1 as index_from_0, null as error from bronze.cdc_transactions__rejects order by line",
    );
    let places = |table: &Table| table.rows.iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>();
    assert_eq!(places(&rejects), places(&dead));
    // The same content again is known by its hash, whatever its name.
    give(1, "cdc_events_4.json");
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.err.contains("has the content of"), "{}", again.err);
    expect(3);
    // Applying every file once more changes nothing, in any order.
    let sandbox_again =
        Sandbox::new(BINARY, &[("subak.yml", PROJECT), ("assets/bronze/events.yml", &EVENTS.replace("read: new", "read: all"))]);
    for (at, file) in [3, 1, 2, 1].into_iter().enumerate() {
        let folder = sandbox_again.path().join("input");
        std::fs::create_dir_all(&folder).expect("folder");
        let from = parity(&format!("{case}/input/cdc_events_{file}.json"));
        std::fs::copy(from, folder.join(format!("cdc_events_{at}.json"))).expect("the file is copied");
        sandbox_again.run(&["run"]).expect(0);
    }
    assert_equals(&sandbox_again, "bronze.cdc_transactions__live", &format!("{case}/expected/after_file3_live.csv"));
}
