//! Names that cannot be wrong: parsed once at the edge, trusted everywhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest accepted asset key, in bytes; every supported warehouse can hold each segment as an identifier.
pub const ASSET_KEY_LENGTH_MAX: usize = 200;

/// The dotted name of an asset, for example `gold.fact_sales`: segments of `a-z`, `0-9` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AssetKey(String);

impl AssetKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment: the table's name inside its schema.
    pub fn name(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// Everything before the last segment, joined by `_`: the schema that holds the table. `None` for a one-segment key.
    pub fn schema(&self) -> Option<String> {
        self.0.rsplit_once('.').map(|(schema, _)| schema.replace('.', "_"))
    }
}

/// A text that is no asset key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an asset key: use segments of a-z, 0-9 and _ joined by dots, at most {ASSET_KEY_LENGTH_MAX} bytes")]
pub struct InvalidAssetKey(pub String);

impl FromStr for AssetKey {
    type Err = InvalidAssetKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_segment = |segment: &str| !segment.is_empty() && segment.chars().all(is_word_char);
        if text.len() > ASSET_KEY_LENGTH_MAX || !text.split('.').all(is_segment) {
            return Err(InvalidAssetKey(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AssetKey {
    type Error = InvalidAssetKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AssetKey> for String {
    fn from(key: AssetKey) -> Self {
        key.0
    }
}

impl fmt::Display for AssetKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// The name of a connection as the project declares it: `a-z`, `0-9` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConnectionName(String);

/// The connection that is the project's own folder. No project can declare it.
pub const PROJECT_FILES: &str = "project_files";

impl ConnectionName {
    /// The project's own folder.
    pub fn project_files() -> Self {
        Self(PROJECT_FILES.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no connection name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a connection name: use a-z, 0-9 and _")]
pub struct InvalidConnectionName(pub String);

impl FromStr for ConnectionName {
    type Err = InvalidConnectionName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.chars().all(is_word_char) {
            return Err(InvalidConnectionName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ConnectionName {
    type Error = InvalidConnectionName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ConnectionName> for String {
    fn from(name: ConnectionName) -> Self {
        name.0
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_splits_keys() {
        for (text, schema, name) in [("users", None, "users"), ("gold.fact", Some("gold"), "fact"), ("a.b.c", Some("a_b"), "c")] {
            let key: AssetKey = text.parse().expect("valid key");
            assert_eq!((key.schema().as_deref(), key.name()), (schema, name), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_key() {
        for text in ["", ".", "a.", ".a", "A.b", "a b", "a-b", "é", &"a".repeat(ASSET_KEY_LENGTH_MAX + 1)] {
            assert!(text.parse::<AssetKey>().is_err(), "{text}");
        }
    }
}
