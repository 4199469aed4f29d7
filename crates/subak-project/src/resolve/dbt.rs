//! Assets that dbt builds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use subak_diag::{Diagnostic, codes};
use subak_domain::asset::DbtNode;
use subak_domain::{Asset, AssetKey, Definition};

use super::versions::version_of;
use super::{ParsedFile, Resolver};
use crate::dbt::{DbtDeclaration, Manifest, ManifestNode};
use crate::declare::Common;

/// A dbt project with the keys that its nodes got.
pub(super) struct DbtProject<'a> {
    path: &'a Arc<str>,
    declaration: &'a DbtDeclaration,
    manifest: &'a Manifest,
    keys: BTreeMap<&'a str, AssetKey>,
}

impl Resolver<'_> {
    /// Enters what dbt builds.
    pub(super) fn declare_dbt<'p>(&mut self, parsed: &'p [(Arc<str>, Arc<ParsedFile>)]) -> Vec<DbtProject<'p>> {
        let mut projects = Vec::new();
        for (path, file) in parsed {
            for declaration in &file.found.dbts {
                let Some(manifest) = self.manifest(path, declaration, parsed) else { continue };
                let mut keys = BTreeMap::new();
                for (id, node) in manifest.nodes.iter().filter(|(_, node)| !node.is_ephemeral) {
                    let Some(key) = self.dbt_key(path, declaration, id, &node.schema, &node.table) else { continue };
                    if self.declare(&key, path, declaration.span.clone(), &declaration.on) {
                        keys.insert(id.as_str(), key);
                    }
                }
                projects.push(DbtProject { path, declaration, manifest, keys });
            }
        }
        projects
    }

    /// Finds what the sources of dbt are: assets of the project, or something outside.
    pub(super) fn dbt_sources(&mut self, projects: &mut [DbtProject<'_>]) -> Vec<Asset> {
        let mut outside = Vec::new();
        for project in projects {
            let (path, declaration) = (project.path, project.declaration);
            for (id, (schema, table)) in &project.manifest.sources {
                let name = format!("{schema}.{table}").to_lowercase();
                let key = match self.asset_named(&name) {
                    Some(key) => key,
                    None => {
                        let Some(key) = self.dbt_key(path, declaration, id, schema, table) else { continue };
                        if self.declare(&key, path, declaration.span.clone(), &declaration.on) {
                            outside.push(Asset { path: path.to_string(), ..self.external(&key) });
                        }
                        key
                    }
                };
                project.keys.insert(id, key);
            }
        }
        outside
    }

    /// The manifest that a declaration names.
    fn manifest<'p>(
        &mut self,
        path: &Arc<str>,
        declaration: &DbtDeclaration,
        parsed: &'p [(Arc<str>, Arc<ParsedFile>)],
    ) -> Option<&'p Manifest> {
        let file = parsed.iter().find(|(known, _)| **known == *declaration.manifest);
        let (message, cause) = match file.and_then(|(_, file)| file.manifest.as_ref()) {
            Some(Ok(manifest)) => return Some(manifest),
            Some(Err(error)) => (format!("`{}` is no manifest of dbt", declaration.manifest), Some(error)),
            None => (format!("there is no `{}`, which says what is in the dbt project", declaration.manifest), None),
        };
        let mut problem = Diagnostic::error(codes::DBT_MANIFEST, message).at(path, declaration.span.clone(), "");
        if let Some(cause) = cause {
            problem = problem.caused_by(cause.as_str());
        }
        self.problems.push(problem.help(format!("run `dbt parse` in `{}`", declaration.program.dir.as_deref().unwrap_or("."))));
        None
    }

    fn dbt_key(
        &mut self,
        path: &Arc<str>,
        declaration: &DbtDeclaration,
        id: &str,
        schema: &str,
        table: &str,
    ) -> Option<AssetKey> {
        let name = format!("{schema}.{table}").to_lowercase();
        match name.parse() {
            Ok(key) => Some(key),
            Err(error) => {
                let error: subak_domain::InvalidAssetKey = error;
                let message = format!("`{id}` of dbt has the table `{name}`, which is no key of an asset: {error}");
                let problem = Diagnostic::error(codes::INVALID_ASSET_KEY, message).at(path, declaration.span.clone(), "");
                self.problems.push(problem.help("give it another `schema` or `alias` in dbt"));
                None
            }
        }
    }

    /// The assets of a dbt project.
    pub(super) fn dbt(&mut self, project: &DbtProject<'_>) -> Vec<Asset> {
        let DbtProject { path, declaration, manifest, keys } = project;
        let tests = manifest.tests_by_node();
        let mut assets = Vec::new();
        for (id, node) in &manifest.nodes {
            let Some(key) = keys.get(id.as_str()) else { continue };
            let upstream: BTreeSet<AssetKey> = manifest.reads(id).into_iter().filter_map(|id| keys.get(id)).cloned().collect();
            for read in &upstream {
                self.uses.entry((key.clone(), read.clone())).or_insert((Arc::clone(path), declaration.span.clone()));
            }
            let own: Vec<&str> = tests.get(id.as_str()).cloned().unwrap_or_default();
            let contents = own.iter().map(|test| ((*test).to_owned(), manifest.tests[*test].content.clone()));
            let fields = [
                ("kind", "dbt"),
                ("id", id.as_str()),
                ("on", declaration.on.as_str()),
                ("content", &manifest.content_of(id)),
                ("arguments", &declaration.arguments.join(" ")),
            ];
            let version = version_of(&fields, &contents.collect::<Vec<_>>());
            let definition = DbtNode {
                on: declaration.on.clone(),
                made_with: format!("{path} of {}", declaration.manifest),
                id: id.clone(),
                selector: node.selector.clone(),
                tests: own.into_iter().map(str::to_owned).collect(),
                program: declaration.program.clone(),
                arguments: declaration.arguments.clone(),
                profiles: declaration.profiles.clone(),
            };
            let common = described(&declaration.common, key, node);
            let upstream = upstream.into_iter().collect();
            assets.push(Self::asset(&common, path, Definition::Dbt(Box::new(definition)), upstream, version));
        }
        assets
    }
}

/// What is declared for all, and what dbt says of one.
fn described(common: &Common, key: &AssetKey, node: &ManifestNode) -> Common {
    let mut common = Common { key: key.clone(), ..common.clone() };
    common.description = node.description.clone().or(common.description);
    common.tags.extend(node.tags.iter().cloned());
    common.columns.extend(node.columns.clone());
    common
}
