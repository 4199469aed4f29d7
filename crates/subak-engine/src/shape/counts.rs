//! Counting values that were changed by a declared policy.

use std::collections::BTreeMap;

use subak_domain::ValueChange;

/// Counters by column and kind of change.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<(String, String), (u64, String)>);

impl Changes {
    /// Counts one value. `place` is asked for the first one only.
    pub(super) fn add(&mut self, column: &str, what: &str, place: impl FnOnce() -> String) {
        match self.0.get_mut(&(column.to_owned(), what.to_owned())) {
            Some((count, _)) => *count += 1,
            None => {
                self.0.insert((column.to_owned(), what.to_owned()), (1, place()));
            }
        }
    }

    /// All counters, by column.
    pub(super) fn list(&self) -> Vec<ValueChange> {
        let change = |((column, what), (count, first)): (&(String, String), &(u64, String))| ValueChange {
            column: column.clone(),
            what: what.clone(),
            count: *count,
            first: first.clone(),
        };
        self.0.iter().map(change).collect()
    }
}
