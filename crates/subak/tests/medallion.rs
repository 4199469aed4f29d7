//! The example project `medallion` on every set of files that it must take, against tables that other tools made.

use std::path::{Path, PathBuf};

use subak_testkit::{Sandbox, Table};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

/// The canonical form of each expected table: surrogate keys become natural ids.
const EXPORTS: &[(&str, &str)] = &[
    (
        "silver_crm_cust_info",
        "select cst_id, cst_key, cst_firstname, cst_lastname, cst_marital_status, cst_gndr, cst_create_date from silver.crm_cust_info",
    ),
    (
        "silver_crm_prd_info",
        "select prd_id, cat_id, prd_key, prd_nm, prd_cost, prd_line, prd_start_dt, prd_end_dt from silver.crm_prd_info",
    ),
    (
        "silver_crm_sales_details",
        "select sls_ord_num, sls_prd_key, sls_cust_id, sls_order_dt, sls_ship_dt, sls_due_dt, sls_sales, sls_quantity, sls_price from silver.crm_sales_details",
    ),
    ("silver_erp_cust_az12", "select cid, bdate, gen from silver.erp_cust_az12"),
    ("silver_erp_loc_a101", "select cid, cntry from silver.erp_loc_a101"),
    ("silver_erp_px_cat_g1v2", "select id, cat, subcat, maintenance from silver.erp_px_cat_g1v2"),
    (
        "gold_dim_customers",
        "select customer_id, customer_number, customer_firstname, customer_lastname, gender, marital_status, country, birth_date, create_date from gold.dim_customers where customer_key <> -1",
    ),
    (
        "gold_dim_products",
        "select product_id, product_number, product_name, product_line, category_id, category, sub_category, maintenance, product_cost, start_date from gold.dim_products where product_key <> -1",
    ),
    (
        "gold_fact_sales",
        "select f.order_number, coalesce(c.customer_id, -1) as customer_id, c.country as customer_country, coalesce(p.product_number, '-1') as product_number, p.product_id, f.order_date, f.shipping_date, f.due_date, f.sales, f.quantity, f.price from gold.fact_sales as f join gold.dim_customers as c on f.customer_key = c.customer_key join gold.dim_products as p on f.product_key = p.product_key",
    ),
    (
        "mv_sales_monthly_productline",
        "select month, product_name, category, sub_category, total_sales from gold.mv_sales_monthly_productline",
    ),
    ("mv_sales_customer_country", "select country, customer_id, customer_name, total_sales from gold.mv_sales_customer_country"),
    (
        "mv_customer_lifetime_value",
        "select customer_id, customer_name, lifetime_value, order_count from gold.mv_customer_lifetime_value",
    ),
    (
        "mv_running_sales_customer",
        "select customer_id, order_date, max_by(running_sales, line_number) as running_sales_end_of_day, count(*) as rows_that_day from gold.mv_running_sales_customer group by customer_id, order_date",
    ),
    (
        "mv_top3_products_month_country",
        "select month, country, product_name, total_sales, rank_sales from gold.mv_top3_products_month_country",
    ),
    ("mv_customer_churn", "select customer_id, first_purchase, last_purchase, is_churn from gold.mv_customer_churn"),
    ("mv_customer_order_gap", "select customer_id, avg_gap_days from gold.mv_customer_order_gap"),
    ("mv_sales_rollup_product", "select product_line, category, sub_category, total_sales from gold.mv_sales_rollup_product"),
    (
        "mv_delayed_orders_chain",
        "select c.order_number, c.shipping_date, c.due_date, c.level from gold.mv_delayed_orders_chain as c, generate_series(1, c.chains) as each_chain",
    ),
];

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn project(input: &Path) -> Sandbox {
    let sandbox = Sandbox::new(BINARY, &[]);
    let example = root("../../examples/medallion");
    sandbox.copy(&example.join("assets"), "assets");
    std::fs::copy(example.join("subak.yml"), sandbox.path().join("subak.yml")).expect("subak.yml");
    sandbox.copy(input, "input");
    sandbox
}

fn read(sandbox: &Sandbox, sql: &str) -> Table {
    let connection = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    let mut statement = connection.prepare(&format!("select columns(*)::varchar from ({sql})")).expect(sql);
    let mut rows = statement.query([]).expect("query");
    let mut table = Table::default();
    while let Some(row) = rows.next().expect("row") {
        if table.header.is_empty() {
            table.header = row.as_ref().column_names();
        }
        table.rows.push((0..table.header.len()).map(|at| row.get(at).expect("text")).collect());
    }
    table
}

/// Runs the project and compares every table for which there is an expected file.
fn assert_tables(input: &str, expected: &str, as_of: &str, vars: &[&str]) -> Sandbox {
    let input =
        if input == "s002_clean/input" { root("../../examples/medallion/input") } else { root("tests/parity").join(input) };
    let sandbox = project(&input);
    let mut arguments = vec!["run", "--as-of", as_of];
    arguments.extend(vars);
    sandbox.run(&arguments).expect(0);
    let expected = root("tests/parity").join(expected);
    let mut compared = 0;
    for (name, sql) in EXPORTS {
        let path = expected.join(format!("{name}.csv.gz"));
        if !path.exists() {
            continue;
        }
        let wanted = Table::read(&path);
        let own: Vec<usize> = (0..wanted.header.len()).filter(|at| wanted.header[*at] != "dwh_batch_id").collect();
        let pick = |row: &Vec<Option<String>>| own.iter().map(|at| row[*at].clone()).collect::<Vec<_>>();
        let wanted = Table {
            header: own.iter().map(|at| wanted.header[*at].clone()).collect(),
            rows: wanted.rows.iter().map(pick).collect(),
        };
        let mut found = read(&sandbox, sql);
        if found.rows.is_empty() {
            found.header.clone_from(&wanted.header);
        }
        if let Err(difference) = found.compare(&wanted) {
            panic!("{name} of {}: {difference}", expected.display());
        }
        compared += 1;
    }
    assert!(compared >= 2, "no expected tables in {}", expected.display());
    sandbox
}

#[test]
fn the_clean_files_give_every_table() {
    let sandbox = assert_tables("s002_clean/input", "s002_clean/expected_seed_rules_as_of_2026-11-21", "2026-11-21", &[]);
    // Again: nothing is new, nothing changes, keys stay.
    let keys = "select customer_key, customer_id from gold.dim_customers order by all";
    let before = read(&sandbox, keys);
    sandbox.run(&["run", "gold.dim_customers", "--full-refresh", "--as-of", "2026-11-21"]).expect(0);
    assert_eq!(read(&sandbox, keys), before, "surrogate keys are the same after a rebuild");
    let again = sandbox.run(&["run", "--as-of", "2026-11-21"]).expect(0);
    assert!(again.out.contains("0 rows written"), "{}", again.out);
    // Another day: only what depends on the day is made again.
    let later = sandbox.run(&["plan", "--as-of", "2026-11-22", "-o", "csv"]).expect(0);
    assert!(later.out.contains("gold.mv_customer_churn,definition_changed"), "{}", later.out);
    assert!(!later.out.contains("silver.erp_px_cat_g1v2,definition_changed"), "{}", later.out);
    let verified = sandbox.run(&["verify"]).expect(0);
    assert_eq!(verified.out.matches("equal").count(), 6, "{}", verified.out);
}

#[test]
fn the_day_is_a_parameter() {
    assert_tables("s002_clean/input", "s002_clean/expected_seed_rules_as_of_2025-08-29", "2025-08-29", &[]);
}

#[test]
fn the_reference_rules_are_two_variables() {
    let vars = ["--var", "unknown=n/a", "--var", "sport=Other Sales"];
    assert_tables("s002_clean/input", "s002_clean/expected_reference_rules", "2026-11-21", &vars);
}

#[test]
fn the_published_files_with_their_double_rows() {
    assert_tables("s002_seed/input", "s002_seed/expected", "2026-11-21", &[]);
}

#[test]
fn values_at_the_edge() {
    assert_tables("s002_medallion_edge/input", "s002_medallion_edge/expected", "2026-11-21", &[]);
}

#[test]
fn values_that_used_to_abort_a_load() {
    assert_tables("s002_medallion_hard/input", "s002_medallion_hard/expected", "2026-11-21", &[]);
}
