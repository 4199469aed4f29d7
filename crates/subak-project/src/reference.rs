//! Values with references: `${NAME}`, `${NAME:-default}`, `${secret:NAME}`; `$$` is one dollar sign.

use subak_domain::Secret;

/// A value as written, references parsed and not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// One piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Literal(String),
    /// The value of an environment variable.
    Variable {
        /// Its name.
        name: String,
        /// What stands in for it when it is not set or empty.
        default: Option<String>,
    },
    /// The value of a secret.
    Secret {
        /// Its name.
        name: String,
    },
}

/// A reference that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a reference")]
pub struct InvalidReference(pub String);

/// Why a value cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// A variable is not set and has no default.
    #[error("the environment variable `{0}` is not set")]
    Variable(String),
    /// A secret has no value.
    #[error("the secret `{0}` has no value")]
    Secret(String),
}

impl Template {
    /// Parses a value.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let end = after.find('}').ok_or_else(|| InvalidReference(format!("${rest}")))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(reference(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                literal.push('$');
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// The pieces, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether a secret takes part.
    pub fn has_secret(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Secret { .. }))
    }

    /// The value as it stands when it refers to nothing.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The value, given what variables and secrets hold.
    pub fn resolve(
        &self,
        variable: impl Fn(&str) -> Option<String>,
        secret: impl Fn(&str) -> Option<Secret>,
    ) -> Result<String, Unresolved> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Variable { name, default } => {
                    let value = variable(name).filter(|value| !value.is_empty()).or_else(|| default.clone());
                    text.push_str(&value.ok_or_else(|| Unresolved::Variable(name.clone()))?);
                }
                Part::Secret { name } => {
                    text.push_str(secret(name).ok_or_else(|| Unresolved::Secret(name.clone()))?.expose());
                }
            }
        }
        Ok(text)
    }
}

fn reference(inner: &str) -> Result<Part, InvalidReference> {
    let invalid = || InvalidReference(format!("${{{inner}}}"));
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    if let Some(name) = inner.strip_prefix("secret:") {
        return if is_name(name) { Ok(Part::Secret { name: name.to_owned() }) } else { Err(invalid()) };
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (inner, None),
    };
    if is_name(name) { Ok(Part::Variable { name: name.to_owned(), default }) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves() {
        let variable = |name: &str| (name == "HOST").then(|| "db".to_owned());
        let secret = |name: &str| (name == "pw").then(|| Secret::new("s3cret"));
        for (text, expect) in [
            ("plain", Ok("plain".to_owned())),
            ("", Ok(String::new())),
            ("${HOST}:5432", Ok("db:5432".into())),
            ("${PORT:-5432}", Ok("5432".into())),
            ("${PORT:-}", Ok(String::new())),
            ("a$$b $5", Ok("a$b $5".into())),
            ("${secret:pw}", Ok("s3cret".into())),
            ("${PORT}", Err(Unresolved::Variable("PORT".into()))),
            ("${secret:x}", Err(Unresolved::Secret("x".into()))),
        ] {
            assert_eq!(Template::parse(text).expect("valid").resolve(variable, secret), expect, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for text in ["${", "${}", "${A B}", "${1A}", "${secret:}", "${secret:a-b}", "${A:+x}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
