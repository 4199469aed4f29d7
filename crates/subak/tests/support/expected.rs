//! Tables compared with what other tools say they are.

use std::path::{Path, PathBuf};

use subak_testkit::{Sandbox, Table};

use crate::table::read_table;

/// A file of a parity case.
pub(crate) fn parity(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name)
}

/// Compares a query with an expected file, by the columns that the file has.
#[track_caller]
pub(crate) fn assert_equals(sandbox: &Sandbox, table: &str, expected: &str) {
    let expected_table = Table::read(&parity(expected));
    let columns = expected_table.header.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let mut found = read_table(sandbox, &format!("select {columns} from {table}"));
    found.header.clone_from(&expected_table.header);
    if let Err(difference) = found.compare(&expected_table) {
        panic!("{table} is not {expected}: {difference}");
    }
}
