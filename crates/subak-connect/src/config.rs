//! The configured values of one connection.

use std::collections::BTreeMap;

use subak_domain::Secret;
pub use subak_domain::config::{ConfigSchema, Field, FieldKind};

/// The values of one connection, references resolved. Keys are those of the schema.
#[derive(Debug, Clone, Default)]
pub struct ConnectionConfig {
    /// Plain values. Paths are absolute.
    pub values: BTreeMap<String, String>,
    /// Values that must not show.
    pub secrets: BTreeMap<String, Secret>,
}

impl ConnectionConfig {
    /// The plain value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }
}
