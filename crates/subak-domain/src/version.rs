//! The version of an asset: a hash of what decides its data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// BLAKE3 of the canonical form of a definition, as 16 hexadecimal digits. Equal versions mean that the same inputs give the
/// same data; comments, white space and the order of keys do not take part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(String);

impl Version {
    /// Hashes named fields. The order of `fields` does not matter; a field that is absent differs from one that is empty.
    pub fn of(fields: &[(&str, &str)]) -> Self {
        let mut sorted: Vec<_> = fields.to_vec();
        sorted.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for (name, value) in sorted {
            for part in [name, value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        Self(hasher.finalize().to_hex()[..16].to_owned())
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-159: the order of keys does not matter.
    #[test]
    fn order_does_not_matter_and_boundaries_do() {
        assert_eq!(Version::of(&[("a", "1"), ("b", "2")]), Version::of(&[("b", "2"), ("a", "1")]));
        assert_ne!(Version::of(&[("a", "12")]), Version::of(&[("a1", "2")]));
        assert_ne!(Version::of(&[("a", "")]), Version::of(&[]));
    }
}
