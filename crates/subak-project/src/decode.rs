//! From YAML nodes to values, with every problem reported and none hiding another.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use subak_diag::{Diagnostic, codes, nearest};
use subak_domain::job::PoolSlots;
use subak_domain::{AssetKey, Retry};

use crate::keys::{self, Key};
use crate::yaml::{Name, Node, Value};

/// Where problems of one file go.
pub(crate) struct Context<'a> {
    pub(crate) path: &'a Arc<str>,
    /// Added to every span: a header comment is parsed apart from its file.
    pub(crate) offset: usize,
    pub(crate) problems: &'a mut Vec<Diagnostic>,
}

impl Context<'_> {
    pub(crate) fn place(&self, span: &Range<usize>) -> Range<usize> {
        span.start + self.offset..span.end + self.offset
    }

    /// Reports a problem at a place.
    pub(crate) fn report(&mut self, problem: Diagnostic, span: &Range<usize>, text: &str) {
        let place = self.place(span);
        self.problems.push(problem.at(self.path, place, text));
    }

    pub(crate) fn wrong_shape(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} must be {expected}, and this is {}", node.value.shape());
        self.report(Diagnostic::error(codes::WRONG_SHAPE, message), &node.span, "");
    }

    pub(crate) fn invalid(&mut self, node: &Node, message: String) {
        self.report(Diagnostic::error(codes::INVALID_VALUE, message), &node.span, "");
    }
}

/// The entries of a mapping with known keys.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n> {
    entries: &'n [(Name, Node)],
}

impl<'n> Fields<'n> {
    /// Takes a mapping apart; reports what is unknown, missing or no mapping at all. `extra` are further keys that somebody else
    /// reads.
    pub(crate) fn of(node: &'n Node, keys: &[Key], extra: &[&str], what: &str, context: &mut Context<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            context.wrong_shape(node, what, "a mapping");
            return None;
        };
        let known: Vec<&str> = keys.iter().map(|key| key.name).chain(extra.iter().copied()).collect();
        for (name, _) in entries.iter().filter(|(name, _)| !known.contains(&name.text.as_str())) {
            unknown_key(name, &known, what, context);
        }
        for key in keys.iter().filter(|key| key.is_required && !entries.iter().any(|(name, _)| name.text == key.name)) {
            let message = format!("{what} needs the key `{}`", key.name);
            let first_line = node.span.start..(node.span.start + 1).min(node.span.end);
            context.report(
                Diagnostic::error(codes::MISSING_KEY, message).help(format!("`{}`: {}", key.name, key.doc)),
                &first_line,
                "",
            );
        }
        Some(Self { entries })
    }

    /// The value of a key.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The key as it stands in the file.
    pub(crate) fn name(&self, name: &str) -> Option<&'n Name> {
        self.entries.iter().map(|(key, _)| key).find(|key| key.text == name)
    }

    /// The text of a key.
    pub(crate) fn text(&self, name: &str, context: &mut Context<'_>) -> Option<&'n str> {
        self.get(name).and_then(|node| text(node, &format!("`{name}`"), context))
    }

    /// The texts of a key: one, or a list. Empty when it is absent.
    pub(crate) fn texts(&self, name: &str, context: &mut Context<'_>) -> Vec<(&'n str, &'n Node)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        match &node.value {
            Value::List(items) => {
                items.iter().filter_map(|item| Some((text(item, &format!("an entry of `{name}`"), context)?, item))).collect()
            }
            _ => text(node, &format!("`{name}`"), context).map(|text| (text, node)).into_iter().collect(),
        }
    }

    /// The word of a key, one of those that the table lists.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)], context: &mut Context<'_>) -> Option<T> {
        let node = self.get(name)?;
        // YAML reads the word `null` as nothing; where it is one of the words, it is meant.
        let text = match node.value {
            Value::Null if words.iter().any(|(word, _)| *word == "null") => "null",
            _ => text(node, &format!("`{name}`"), context)?,
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            unknown_word(node, text, &list, &format!("`{name}`"), context);
        }
        found
    }

    pub(crate) fn boolean(&self, name: &str, context: &mut Context<'_>) -> Option<bool> {
        let node = self.get(name)?;
        match text(node, &format!("`{name}`"), context)? {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                context.invalid(node, format!("`{name}` must be `true` or `false`, and this is `{other}`"));
                None
            }
        }
    }

    pub(crate) fn duration(&self, name: &str, context: &mut Context<'_>) -> Option<Duration> {
        let node = self.get(name)?;
        let text = text(node, &format!("`{name}`"), context)?;
        let parsed = duration_of(text);
        // A bare number would be seconds here and milliseconds there.
        let parsed = parsed.filter(|_| !text.bytes().all(|byte| byte.is_ascii_digit()));
        if parsed.is_none() {
            context
                .invalid(node, format!("`{name}` must be a duration such as `10s`, `5m`, `1h30m` or `2d`, and this is `{text}`"));
        }
        parsed
    }

    /// The entries of a mapping with free names.
    pub(crate) fn named(&self, name: &str, context: &mut Context<'_>) -> &'n [(Name, Node)] {
        match self.get(name) {
            None => &[],
            Some(Node { value: Value::Map(entries), .. }) => entries,
            Some(node) => {
                context.wrong_shape(node, &format!("`{name}`"), "a mapping");
                &[]
            }
        }
    }
}

/// A duration as text. A day is 24 hours.
fn duration_of(text: &str) -> Option<Duration> {
    let span = text.parse::<Span>().ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

fn unknown_key(name: &Name, known: &[&str], what: &str, context: &mut Context<'_>) {
    let problem = Diagnostic::error(codes::UNKNOWN_KEY, format!("{what} does not know the key `{}`", name.text));
    let problem = match nearest(&name.text, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help(format!("known keys are {}", list(known))),
    };
    context.report(problem, &name.span, "not known");
}

/// Reports a word that is not one of those allowed.
pub(crate) fn unknown_word(node: &Node, text: &str, words: &[&str], what: &str, context: &mut Context<'_>) {
    let problem = Diagnostic::error(codes::UNKNOWN_WORD, format!("{what} cannot be `{text}`"));
    let near = nearest(text, words.iter().copied()).map(|near| format!("did you mean `{near}`? "));
    let problem = problem.help(format!("{}allowed are {}", near.unwrap_or_default(), list(words)));
    context.report(problem, &node.span, "");
}

/// Names with commas between them, each in backticks.
pub(crate) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The text of a scalar.
pub(crate) fn text<'n>(node: &'n Node, what: &str, context: &mut Context<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        _ => {
            context.wrong_shape(node, what, "a text");
            None
        }
    }
}

/// An asset key.
pub(crate) fn asset_key(text: &str, node: &Node, context: &mut Context<'_>) -> Option<AssetKey> {
    match text.parse() {
        Ok(key) => Some(key),
        Err(error) => {
            let error: subak_domain::InvalidAssetKey = error;
            context.report(Diagnostic::error(codes::INVALID_ASSET_KEY, error.to_string()), &node.span, "");
            None
        }
    }
}

/// A size, in bytes.
pub(crate) fn bytes(fields: &Fields<'_>, name: &str, context: &mut Context<'_>) -> Option<u64> {
    let text = fields.text(name, context)?;
    let found = bytes_of(text);
    if let (None, Some(node)) = (found, fields.get(name)) {
        context.invalid(node, format!("`{name}` must be a size such as `500MB` or `10GB`, and this is `{text}`"));
    }
    found
}

/// A size as text: a whole number of bytes, or of a thousand or 1,024 times as many.
fn bytes_of(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[end..].trim() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(factor)
}

/// A whole number above zero.
pub(crate) fn number_above_zero(node: &Node, name: &str, context: &mut Context<'_>) -> Option<NonZeroU32> {
    let text = text(node, &format!("`{name}`"), context)?;
    let found = text.parse().ok();
    if found.is_none() {
        context.invalid(node, format!("`{name}` must be a whole number above zero, and this is `{text}`"));
    }
    found
}

/// `pools`: what a step takes of those that there are; `None` where it says nothing of it.
pub(crate) fn pools(fields: &Fields<'_>, known: &PoolSlots, context: &mut Context<'_>) -> Option<PoolSlots> {
    let node = fields.get("pools")?;
    let mut found = PoolSlots::new();
    let mut take = |name: &str, count: NonZeroU32, node: &Node, context: &mut Context<'_>| match known.get(name) {
        Some(size) if count <= *size => drop(found.insert(name.to_owned(), count)),
        Some(size) => context.invalid(node, format!("this takes {count} slots of the pool `{name}`, which has {size}")),
        None => {
            let problem = Diagnostic::error(codes::UNKNOWN_POOL, format!("there is no pool `{name}`"));
            let help = match nearest(name, known.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it in `subak.yml`: `pools: {{ {name}: 4 }}`"),
            };
            context.report(problem.help(help), &node.span, "not declared");
        }
    };
    if let Value::Map(_) = &node.value {
        for (name, node) in fields.named("pools", context) {
            if let Some(count) = number_above_zero(node, &name.text, context) {
                take(&name.text, count, node, context);
            }
        }
    } else {
        for (name, node) in fields.texts("pools", context) {
            take(name, NonZeroU32::MIN, node, context);
        }
    }
    Some(found)
}

/// `retry`, laid over what holds without it.
pub(crate) fn retry(fields: &Fields<'_>, base: Retry, context: &mut Context<'_>) -> Retry {
    let Some(node) = fields.get("retry") else { return base };
    let Some(fields) = Fields::of(node, keys::RETRY, &[], "`retry`", context) else { return base };
    let mut retry = base;
    if let Some(node) = fields.get("attempts_max") {
        retry.attempts_max = number_above_zero(node, "attempts_max", context).unwrap_or(retry.attempts_max);
    }
    retry.delay_first = fields.duration("delay_first", context).unwrap_or(retry.delay_first);
    retry.delay_max = fields.duration("delay_max", context).unwrap_or(retry.delay_max);
    if let Some(node) = fields.get("jitter")
        && let Some(text) = text(node, "`jitter`", context)
    {
        match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is from 0 to 1")]
                let percent = (share * 100.0).round() as u8;
                retry.jitter_percent = percent;
            }
            _ => context.invalid(node, format!("`jitter` must be a number from 0 to 1, and this is `{text}`")),
        }
    }
    retry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_count_days_too() {
        for (text, seconds) in [
            ("10s", Some(10)),
            ("1h30m", Some(5400)),
            ("3 seconds", Some(3)),
            ("2d", Some(172_800)),
            ("1d12h", Some(129_600)),
            ("2 weeks", Some(1_209_600)),
            ("1.5h", Some(5400)),
        ] {
            assert_eq!(duration_of(text).map(|duration| duration.as_secs()), seconds, "{text}");
        }
        for text in ["soon", "d", "-1d", "1d2d", "1 month", "99999999999999999999d", "-5m"] {
            assert_eq!(duration_of(text), None, "{text}");
        }
    }
}
