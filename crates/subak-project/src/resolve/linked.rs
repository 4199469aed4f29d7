//! What refers to assets once all are known: the lint of names and the tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use subak_diag::{Diagnostic, codes, nearest};
use subak_domain::{Asset, AssetGraph, AssetKey, Definition};
use subak_plan::automation::unknown_names;

use super::{ParsedFile, ParsedQuery, Queries, Resolver, dialect_of};
use crate::template::{self, TemplateValues};
use crate::test::{ProjectTest, TestDeclaration};
use crate::{sql, test};

impl Resolver<'_> {
    /// Tables that stand beside the table of a stream must not be those of other assets.
    pub(super) fn refuse_derived_collisions(&mut self, assets: &[Asset]) {
        for asset in assets {
            let (Definition::Ingest(ingest) | Definition::Seed(ingest)) = &asset.definition else { continue };
            let lists = ingest.shape.children.iter().map(|child| child.name.as_str());
            for suffix in lists.chain(["rejects", "live", "tombstones"]) {
                let Ok(name) = format!("{}__{suffix}", asset.key).parse::<AssetKey>() else { continue };
                let Some((path, span)) = self.places.get(&name).cloned() else { continue };
                if self.stored_in.get(&name) == asset.stored_in() {
                    let message = format!("asset `{name}` has the name of a table that stands beside `{}`", asset.key);
                    let problem = Diagnostic::error(codes::TABLE_COLLISION, message).at(&path, span, "");
                    self.problems.push(problem.help("rename one of them"));
                }
            }
        }
    }

    /// Assets and selections that conditions name have to be there.
    pub(super) fn check_conditions(&mut self, graph: Option<&AssetGraph>) {
        for (graph, asset) in graph.into_iter().flat_map(|graph| graph.assets().iter().map(move |asset| (graph, asset))) {
            let Some(automation) = &asset.automation else { continue };
            for (name, message) in unknown_names(graph, &automation.condition) {
                let (path, span) = self.places.get(&asset.key).cloned().unwrap_or_else(|| ("".into(), 0..0));
                let place = self.find(&path, &name);
                let problem = Diagnostic::error(codes::CONDITION, format!("the automation of `{}`: {message}", asset.key));
                let problem = problem.at(&path, if place.is_empty() { span } else { place }, "");
                let near = nearest(&name, graph.assets().iter().map(|asset| asset.key.as_str()));
                let help =
                    near.map_or_else(|| "`subak list` shows what there is".to_owned(), |near| format!("did you mean `{near}`?"));
                self.problems.push(problem.help(help));
            }
        }
    }

    /// Warns of names that break the house rules.
    pub(super) fn lint(&mut self, assets: &[Asset], queries: &Queries) {
        let rules = &self.config.lint;
        let mut found = Vec::new();
        for asset in assets {
            let key = asset.key.as_str();
            for (_, rule) in rules.tables.iter().filter(|(pattern, _)| matches_pattern(pattern, key)) {
                if !rule.is_match(asset.key.name()) {
                    found.push((asset, format!("the name of `{key}` does not match `{rule}`")));
                }
            }
            let declared = queries.declared.get(&asset.key).into_iter().flat_map(BTreeMap::keys);
            let columns = queries.own_columns(&asset.key).into_iter().flatten().chain(declared);
            for column in columns.filter(|column| rules.columns.as_ref().is_some_and(|rule| !rule.is_match(column))) {
                let rule = rules.columns.as_ref().map(ToString::to_string).unwrap_or_default();
                found.push((asset, format!("the column `{column}` of `{key}` does not match `{rule}`")));
            }
        }
        for (asset, message) in found {
            let (path, span) = self.places.get(&asset.key).cloned().unwrap_or_else(|| ("".into(), 0..0));
            let problem = Diagnostic::warning(codes::NAME_LINT, message).at(&path, span, "");
            self.problems.push(problem.help("rename it, or change the rule under `lint:` in `subak.yml`"));
        }
    }

    /// The tests that fit the project.
    pub(super) fn tests(
        &mut self,
        parsed: &[(Arc<str>, Arc<ParsedFile>)],
        graph: Option<&AssetGraph>,
        queries: &Queries,
        values: &TemplateValues,
    ) -> Vec<ProjectTest> {
        let Some(graph) = graph else { return Vec::new() };
        let mut tests: Vec<ProjectTest> = Vec::new();
        for (path, file) in parsed {
            for declaration in &file.tests {
                if let Some(other) = tests.iter().find(|other| other.name == declaration.name) {
                    let message = format!("the tests in `{}` and here have one name, `{}`", other.path, declaration.name);
                    self.problems.push(test::misfit(path, &declaration.span, message, "rename one of them".to_owned()));
                    continue;
                }
                tests.extend(self.test(path, declaration, graph, queries, values));
            }
        }
        tests
    }

    fn test(
        &mut self,
        path: &Arc<str>,
        declaration: &TestDeclaration,
        graph: &AssetGraph,
        queries: &Queries,
        values: &TemplateValues,
    ) -> Option<ProjectTest> {
        let Some(asset) = graph.get(&declaration.asset) else {
            let message = format!("test `{}` is about `{}`, which no file declares", declaration.name, declaration.asset);
            let near = nearest(declaration.asset.as_str(), self.places.keys().map(AssetKey::as_str));
            let help = near.map_or_else(|| "declare the asset".to_owned(), |near| format!("did you mean `{near}`?"));
            self.problems.push(test::misfit(path, &declaration.asset_span, message, help));
            return None;
        };
        let mut known: Vec<&str> = asset.upstream.iter().map(AssetKey::as_str).collect();
        known.push(match &asset.definition {
            Definition::Sql(_) | Definition::Script(_) => test::THIS,
            _ => test::SOURCE,
        });
        let is_unseen = match &asset.definition {
            Definition::Script(script) => script.output.is_none(),
            Definition::Dbt(_) | Definition::Graph(_) => true,
            _ => false,
        };
        if is_unseen {
            let message = format!(
                "programs or tasks make `{}` and keep it themselves, so that a test sees nothing of it",
                declaration.asset
            );
            self.problems.push(test::misfit(path, &declaration.asset_span, message, "remove the test".to_owned()));
            return None;
        }
        for (name, span, _) in &declaration.given {
            if !known.contains(&name.as_str()) {
                let message = format!("`{}` does not read `{name}`", declaration.asset);
                let help = format!("it reads {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
                self.problems.push(test::misfit(path, span, message, help));
            }
        }
        let has_own = declaration.as_of.is_some() || !declaration.vars.is_empty();
        let query = queries.files.get(&declaration.asset).map(|(file, at)| &file.queries[*at]).filter(|_| has_own);
        let sql = query.and_then(|query| self.test_query(path, declaration, query, values));
        Some(ProjectTest {
            name: declaration.name.clone(),
            path: Arc::clone(path),
            span: declaration.span.clone(),
            asset: declaration.asset.clone(),
            given: declaration.given.iter().map(|(name, _, rows)| (name.clone(), rows.clone())).collect(),
            expect: declaration.expect.clone(),
            as_of: declaration.as_of.clone(),
            sql,
        })
    }

    /// The query of an asset with the variables of a test.
    fn test_query(
        &mut self,
        path: &Arc<str>,
        declaration: &TestDeclaration,
        query: &ParsedQuery,
        values: &TemplateValues,
    ) -> Option<(String, Option<String>)> {
        let mut values = values.clone();
        values.vars.extend(declaration.vars.clone());
        values.as_of = declaration.as_of.clone().unwrap_or(values.as_of);
        let on = self.config.connections.get(&query.declaration.on);
        values.kind = on.map(|connection| connection.kind.clone()).unwrap_or_default();
        let dialect = dialect_of(&query.declaration.on, self.config, self.connectors).unwrap_or("duckdb");
        let mut render = |is_incremental| match template::render(&query.declaration.body, &values, is_incremental) {
            Ok(rendered) => Some((sql::without_end(&rendered.text, dialect), rendered.asks_incremental)),
            Err(error) => {
                let message =
                    format!("the query of `{}` cannot be rendered with the values of this test: {error}", declaration.asset);
                self.problems.push(test::misfit(path, &declaration.span, message, "correct `vars:`".to_owned()));
                None
            }
        };
        let (full, asks) = render(false)?;
        Some((full, if asks { render(true).map(|(sql, _)| sql) } else { None }))
    }
}

/// Whether a key matches a pattern in which `*` stands for anything.
fn matches_pattern(pattern: &str, key: &str) -> bool {
    let mut rest = key;
    let mut parts = pattern.split('*').peekable();
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}
