//! Real input with expected results. The tables are read back with DuckDB's own library, not through Subak.

#[path = "support/table.rs"]
mod table;

use std::io::Read;
use std::path::{Path, PathBuf};

use subak_testkit::Sandbox;
use table::read_table;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

fn parity(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name)
}

/// The example project whose input these files are.
fn medallion(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/medallion").join(name)
}

/// Cells as text, NULL as `None`, rows sorted.
type Rows = Vec<Vec<Option<String>>>;

fn read_sorted(sandbox: &Sandbox, sql: &str) -> Rows {
    let mut rows = read_table(sandbox, sql).rows;
    rows.sort();
    rows
}

/// A file without quotes, split in the plainest way there is: nothing between two commas is NULL.
fn read_plain_csv(text: &str) -> (Vec<String>, Rows) {
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    let mut rows: Rows = lines.map(|row| row.into_iter().map(|cell| (!cell.is_empty()).then_some(cell)).collect()).collect();
    rows.sort();
    (header, rows)
}

#[test]
fn six_crm_and_erp_files_load_with_every_value() {
    let sandbox = Sandbox::new(
        BINARY,
        &[
            (
                "subak.yml",
                "project: medallion\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  incoming: { type: files, path: input }\n",
            ),
            (
                "assets/bronze/files.yml",
                "ingest:\n  from: incoming\n  streams:\n    crm_cust_info: { path: cust_info.csv.gz }\n    crm_prd_info: { path: prd_info.csv.gz }\n    \
                 crm_sales_details: { path: sales_details.csv.gz }\n    erp_cust_az12: { path: CUST_AZ12.csv.gz }\n    \
                 erp_loc_a101: { path: LOC_A101.csv.gz }\n    erp_px_cat_g1v2: { path: PX_CAT_G1V2.csv.gz }\n",
            ),
        ],
    );
    sandbox.copy(&medallion("input"), "input");
    sandbox.run(&["run"]).expect(0);
    let mut total = 0;
    for (table, file) in [
        ("crm_cust_info", "cust_info"),
        ("crm_prd_info", "prd_info"),
        ("crm_sales_details", "sales_details"),
        ("erp_cust_az12", "CUST_AZ12"),
        ("erp_loc_a101", "LOC_A101"),
        ("erp_px_cat_g1v2", "PX_CAT_G1V2"),
    ] {
        let bytes = std::fs::read(medallion(&format!("input/{file}.csv.gz"))).expect("file");
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
        assert!(!text.contains('"'), "the plain reader does not know quotes");
        let (header, expected) = read_plain_csv(&text);
        let columns = header.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let found = read_sorted(&sandbox, &format!("select {columns} from bronze.{table}"));
        assert!(found == expected, "{table} differs from {file}.csv");
        total += found.len();
    }
    assert_eq!(total, 116_294, "rows of all files");
}

#[test]
fn three_mock_documents() {
    let sandbox = Sandbox::new(
        BINARY,
        &[
            (
                "subak.yml",
                "project: mock\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  mongo: { type: files, path: input }\n",
            ),
            (
                "assets/bronze/transactions.yml",
                "ingest:\n  from: mongo\n  streams:\n    transactions:\n      path: transactions.json\n      records: transactions\n      primary_key: _id\n      \
                 cursor: transaction_time\n      columns: { amount: \"decimal(18,2)\", transaction_time: datetime, metadata: json }\n",
            ),
            (
                "assets/gold/fact_transactions.sql",
                "/* subak\nstored_as: table\n*/\nselect _id as transaction_mongo_id, user_id, merchant_id, amount, currency, status,\n  \
                 coalesce(json_extract_string(metadata, '$.device'), 'Unknown') as device_type,\n  coalesce(json_extract_string(metadata, '$.promo'), '') as promo_code,\n  \
                 case when amount >= 1000000 then 'High Value' when amount >= 100000 then 'Medium Value' else 'Low Value' end as amount_category,\n  \
                 transaction_time\nfrom bronze.transactions\n",
            ),
        ],
    );
    sandbox.copy(&parity("s000_mock"), "input");
    sandbox.run(&["run"]).expect(0);
    let (header, mut expected) =
        read_plain_csv(&std::fs::read_to_string(parity("s000_mock/expected_fact_transactions.csv")).expect("file"));
    for row in &mut expected {
        for cell in row {
            // An empty text is written as two quotes there.
            *cell = cell.take().map(|text| text.trim_matches('"').to_owned());
        }
    }
    let columns = header.join(", ");
    let sql = format!("select {columns} from gold.fact_transactions");
    assert_eq!(read_sorted(&sandbox, &sql), expected);
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.err.contains("skipped gold.fact_transactions"), "{}", again.err);
    assert_eq!(read_sorted(&sandbox, &sql), expected, "the same run again changes nothing");
}

#[test]
fn four_rows_then_three() {
    let sandbox = Sandbox::new(
        BINARY,
        &[
            (
                "subak.yml",
                "project: readme\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  app: { type: sqlite, path: app.db }\n",
            ),
            (
                "assets/bronze/app.yml",
                "ingest:\n  from: app\n  streams:\n    transactions: { primary_key: transaction_id, cursor: updated_at }\n",
            ),
            (
                "assets/gold/fact_sales.sql",
                "/* subak\nstored_as: table\nchecks: [ { unique: transaction_id } ]\n*/\nselect transaction_id, user_id, amount,\n  \
                 case when amount >= 100000 then 'High Value' when amount >= 50000 then 'Medium Value' else 'Low Value' end as amount_category,\n  \
                 status, transaction_time, cast(transaction_time as date) as transaction_date\nfrom bronze.transactions where status = 'SUCCESS'\n",
            ),
        ],
    );
    let source = rusqlite::Connection::open(sandbox.path().join("app.db")).expect("open");
    let expected = |run: u32| {
        let text = std::fs::read_to_string(parity(&format!("s001_readme_table/expected_after_run{run}.csv"))).expect("file");
        read_plain_csv(&text).1
    };
    let sql = "select transaction_id, user_id, amount, amount_category, status, transaction_time, transaction_date from gold.fact_sales";
    for run in [1, 2] {
        let step = std::fs::read_to_string(parity(&format!("s001_readme_table/step{run}.sql"))).expect("file");
        source.execute_batch(&step).expect("step");
        sandbox.run(&["run"]).expect(0);
        assert_eq!(read_sorted(&sandbox, sql), expected(run), "after run {run}");
    }
    let third = sandbox.run(&["run"]).expect(0);
    assert!(third.err.contains("0 rejected") || third.out.contains("0 rows written"), "{}\n{}", third.out, third.err);
    assert_eq!(read_sorted(&sandbox, sql), expected(2), "after run 3");
}
