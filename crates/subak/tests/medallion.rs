//! The example project `medallion` on every set of files that it must take, against tables that other tools made.

#[path = "support/table.rs"]
mod table;

use std::path::{Path, PathBuf};

use subak_testkit::{Sandbox, Table};
use table::read_table;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

/// The canonical form of each expected table: surrogate keys become natural ids.
fn exports() -> serde_json::Map<String, serde_json::Value> {
    let path = root("tests/parity/medallion_exports.json");
    serde_json::from_slice(&std::fs::read(path).expect("the exports")).expect("an object")
}

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
    for (name, sql) in exports() {
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
        let mut found = read_table(&sandbox, sql.as_str().expect("a query"));
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
    let before = read_table(&sandbox, keys);
    sandbox.run(&["run", "gold.dim_customers", "--full-refresh", "--as-of", "2026-11-21"]).expect(0);
    assert_eq!(read_table(&sandbox, keys), before, "surrogate keys are the same after a rebuild");
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
