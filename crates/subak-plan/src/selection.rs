//! The selection language: from words to assets.
//!
//! `a b` is the union, `a,b` the intersection. A term is a key (with `*` for any text), `tag:`, `group:`, `owner:`, `path:`,
//! `kind:`, `changed` or `all`. `+a` adds everything upstream, `a+` everything downstream, `2+a` and `a+2` only so many steps,
//! `@a` everything downstream and whatever that reads.

use std::collections::BTreeSet;

use subak_domain::{Asset, AssetGraph, AssetKey, Snapshot};

/// Terms that one selection may have.
pub const TERM_COUNT_MAX: usize = 1000;

/// What a selection names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    /// Every asset that it covers.
    pub assets: BTreeSet<AssetKey>,
    /// Those that a term names itself, not by way of `+` or `@`, nor by `all`: they run even when they are fresh.
    pub named: BTreeSet<AssetKey>,
}

/// A selection that cannot be read, or names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The text breaks the grammar.
    #[error("`{term}` is not a selection: {why}")]
    Syntax {
        /// The part.
        term: String,
        /// Why.
        why: &'static str,
    },
    /// A term matches no asset.
    #[error("`{term}` matches no asset")]
    Empty {
        /// The term.
        term: String,
    },
    /// There are too many terms.
    #[error("the selection has {count} terms; {TERM_COUNT_MAX} are allowed")]
    TooLong {
        /// How many.
        count: usize,
    },
}

/// Evaluates selections: their union, without what `exclude` names. No selection at all means every asset.
pub fn select(
    graph: &AssetGraph,
    snapshot: &Snapshot,
    include: &[String],
    exclude: &[String],
) -> Result<Selected, SelectionError> {
    let terms: Vec<&str> = include.iter().flat_map(|text| text.split_whitespace()).collect();
    let excluded: Vec<&str> = exclude.iter().flat_map(|text| text.split_whitespace()).collect();
    let count = terms.len() + excluded.len();
    if count > TERM_COUNT_MAX {
        return Err(SelectionError::TooLong { count });
    }
    let mut selected = Selected::default();
    if terms.is_empty() && !include.is_empty() {
        return Err(SelectionError::Syntax {
            term: include.join(" "),
            why: "it names nothing; leave it out to mean every asset",
        });
    }
    if terms.is_empty() {
        selected.assets = graph.assets().iter().map(|asset| asset.key.clone()).collect();
    }
    for term in terms {
        let found = intersection(graph, snapshot, term)?;
        selected.assets.extend(found.assets);
        selected.named.extend(found.named);
    }
    for term in excluded {
        let found = intersection(graph, snapshot, term)?;
        selected.assets.retain(|key| !found.assets.contains(key));
        selected.named.retain(|key| !found.assets.contains(key));
    }
    Ok(selected)
}

fn intersection(graph: &AssetGraph, snapshot: &Snapshot, text: &str) -> Result<Selected, SelectionError> {
    let mut result: Option<Selected> = None;
    for part in text.split(',') {
        let found = term(graph, snapshot, part)?;
        result = Some(match result {
            None => found,
            Some(before) => Selected {
                assets: before.assets.intersection(&found.assets).cloned().collect(),
                named: before.named.intersection(&found.named).cloned().collect(),
            },
        });
    }
    let result = result.unwrap_or_default();
    if result.assets.is_empty() && text.contains(',') {
        return Err(SelectionError::Empty { term: text.to_owned() });
    }
    Ok(result)
}

/// How far a term reaches: `None` not at all, `Some(None)` all the way, `Some(Some(n))` n steps.
type Reach = Option<Option<usize>>;

fn term(graph: &AssetGraph, snapshot: &Snapshot, text: &str) -> Result<Selected, SelectionError> {
    let (is_closure, rest) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
    let (up, rest) = split_reach(rest.split_once('+').filter(|(count, _)| is_count(count)), rest);
    let (down, core) =
        split_reach(rest.rsplit_once('+').filter(|(_, count)| is_count(count)).map(|(core, count)| (count, core)), rest);
    let syntax = |why| SelectionError::Syntax { term: text.to_owned(), why };
    if core.is_empty() {
        return Err(syntax("a name is missing"));
    }
    if core.contains('+') {
        return Err(syntax("`+` stands before or after a name"));
    }
    let named: BTreeSet<AssetKey> = matching(graph, snapshot, core).ok_or_else(|| syntax("unknown word before `:`"))?;
    if named.is_empty() && core != "changed" {
        return Err(SelectionError::Empty { term: core.to_owned() });
    }
    let mut assets = named.clone();
    for key in &named {
        if let Some(depth) = up {
            assets.extend(graph.ancestors(key, depth));
        }
        if let Some(depth) = down {
            assets.extend(graph.descendants(key, depth));
        }
        if is_closure {
            for below in graph.descendants(key, None).into_iter().chain([key.clone()]) {
                assets.extend(graph.ancestors(&below, None));
                assets.insert(below);
            }
        }
    }
    Ok(Selected { assets, named: if core == "all" { BTreeSet::new() } else { named } })
}

fn is_count(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit()) && text.len() < 9
}

fn split_reach<'a>(split: Option<(&str, &'a str)>, whole: &'a str) -> (Reach, &'a str) {
    match split {
        None => (None, whole),
        Some((count, rest)) => (Some(count.parse().ok()), rest),
    }
}

/// The assets that a term names itself; `None` for an unknown method.
fn matching(graph: &AssetGraph, snapshot: &Snapshot, core: &str) -> Option<BTreeSet<AssetKey>> {
    let test: Box<dyn Fn(&Asset) -> bool + '_> = match core.split_once(':') {
        Some(("tag", tag)) => Box::new(move |asset| asset.tags.iter().any(|known| is_like(tag, known))),
        Some(("group", group)) => Box::new(move |asset| is_like(group, &asset.group)),
        Some(("owner", owner)) => Box::new(move |asset| asset.owner.as_deref().is_some_and(|known| is_like(owner, known))),
        Some(("path", path)) => Box::new(move |asset| {
            is_like(path, &asset.path)
                || asset.path.strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
        }),
        Some(("kind", kind)) => Box::new(move |asset| asset.definition.kind() == kind),
        Some(_) => return None,
        None if core == "changed" => {
            Box::new(|asset| snapshot.latest.get(&asset.key).is_none_or(|latest| latest.version != asset.version))
        }
        None if core == "all" => Box::new(|_| true),
        None => Box::new(move |asset| is_like(core, asset.key.as_str())),
    };
    Some(graph.assets().iter().filter(|asset| test(asset)).map(|asset| asset.key.clone()).collect())
}

/// Whether `text` matches a pattern in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::graph;

    #[track_caller]
    fn assert_select(include: &str, exclude: &str, expect: &str) {
        let graph = graph("src\nusers <- src\nfacts <- src users\nmart <- facts\nlone");
        let words = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        let shown = match select(&graph, &Snapshot::default(), &words(include), &words(exclude)) {
            Ok(selected) => selected.assets.iter().map(AssetKey::as_str).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expect, "{include} without {exclude}");
    }

    #[test]
    fn words() {
        assert_select("", "", "facts lone mart src users");
        assert_select("all", "lone", "facts mart src users");
        assert_select("facts", "", "facts");
        assert_select("+facts", "", "facts src users");
        assert_select("1+mart", "", "facts mart");
        assert_select("users+", "", "facts mart users");
        assert_select("users+1", "", "facts users");
        assert_select("+users+1", "", "facts src users");
        assert_select("@users", "", "facts mart src users");
        assert_select("mart lone", "", "lone mart");
        assert_select("+mart,users+", "", "facts mart users");
        assert_select("*s", "", "facts users");
        assert_select("m*t", "", "mart");
        assert_select("+mart", "src", "facts mart users");
        assert_select("kind:sql", "", "facts mart users");
        assert_select("kind:ingest", "", "lone src");
        assert_select("changed", "", "facts lone mart src users");
        assert_select("path:users.sql", "", "users");
        assert_select("nothing", "", "`nothing` matches no asset");
        assert_select("+", "", "`+` is not a selection: a name is missing");
        assert_select("a+b", "", "`a+b` is not a selection: `+` stands before or after a name");
        assert_select("color:red", "", "`color:red` is not a selection: unknown word before `:`");
    }

    #[test]
    fn patterns() {
        for (pattern, text, expect) in [
            ("a", "a", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "axbyc", true),
            ("a*bc", "abd", false),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(is_like(pattern, text), expect, "{pattern} {text}");
        }
    }
}
