//! Assets that programs make.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use subak_diag::{Diagnostic, codes};
use subak_domain::asset::{Script, ScriptInput};
use subak_domain::{Asset, AssetKey, Definition, Version};

use super::versions::{check_fields, ingest_version};
use super::{Resolver, ingest_of};
use crate::declare::GraphDeclaration;
use crate::script::{ScriptDeclaration, program_fields};

impl Resolver<'_> {
    /// The assets of one script that nothing else declares.
    pub(super) fn script(&mut self, path: &Arc<str>, script: &ScriptDeclaration) -> Vec<Asset> {
        let inputs: Vec<ScriptInput> = script.inputs.iter().filter_map(|named| self.script_input(path, named)).collect();
        let mut upstream: BTreeSet<AssetKey> = inputs.iter().map(|input| input.asset.clone()).collect();
        for (key, span) in &script.depends_on {
            if self.places.contains_key(key) {
                upstream.insert(key.clone());
            } else {
                self.unknown_upstream(path, span.clone(), &format!("the script `{path}`"), key.as_str());
            }
        }
        let own: BTreeSet<&AssetKey> = script.assets.iter().map(|stream| &stream.common.key).collect();
        if let Some(key) = upstream.iter().find(|key| own.contains(key)) {
            let (_, span) = script
                .inputs
                .iter()
                .chain(&script.depends_on)
                .find(|(named, _)| named == key)
                .cloned()
                .unwrap_or_else(|| (key.clone(), 0..0));
            let problem = Diagnostic::error(codes::SELF_REFERENCE, format!("the script depends on `{key}`, which it makes"))
                .at(path, span, "");
            self.problems.push(problem.help("a program that needs what it made before reads it by itself"));
            return Vec::new();
        }
        let fields = format!("{:?}", program_fields(script));
        // A file may hold several declarations; the first asset tells them apart.
        let first = script.assets.first().map(|stream| stream.common.key.as_str()).unwrap_or_default();
        let made_with = (script.assets.len() > 1).then(|| format!("{path} of {first}"));
        let declared = script.assets.iter().filter(|stream| {
            let place = self.places.get(&stream.common.key);
            place.is_some_and(|(declared, span)| declared == path && *span == stream.common.span)
        });
        let assets = declared.map(|stream| {
            let ingest = ingest_of(stream);
            let version = ingest_version("script", &ingest, &format!("{:?} {fields}", check_fields(&stream.common)));
            let definition = Script {
                program: script.program.clone(),
                inputs: inputs.clone(),
                input_format: script.input_format,
                output: (!script.is_outside).then_some(ingest),
                made_with: made_with.clone(),
            };
            let upstream: Vec<AssetKey> = upstream.iter().cloned().collect();
            Self::asset(&stream.common, path, Definition::Script(Box::new(definition)), upstream, version)
        });
        let assets: Vec<Asset> = assets.collect();
        for asset in &assets {
            for (key, span) in script.inputs.iter().chain(&script.depends_on) {
                self.uses.entry((asset.key.clone(), key.clone())).or_insert((Arc::clone(path), span.clone()));
            }
        }
        assets
    }

    /// The asset of a graph of tasks, unless something else declares it.
    pub(super) fn tasks(&mut self, path: &Arc<str>, graph: &GraphDeclaration) -> Option<Asset> {
        let key = &graph.common.key;
        let place = self.places.get(key);
        if place.is_none_or(|(declared, span)| declared != path || *span != graph.common.span) {
            return None;
        }
        let mut upstream: BTreeSet<AssetKey> = BTreeSet::new();
        for (named, span) in &graph.depends_on {
            if named == key {
                let problem = Diagnostic::error(codes::SELF_REFERENCE, format!("`{key}` depends on itself"));
                self.problems.push(problem.at(path, span.clone(), "").help("remove it"));
            } else if self.places.contains_key(named) {
                upstream.insert(named.clone());
                self.uses.entry((key.clone(), named.clone())).or_insert((Arc::clone(path), span.clone()));
            } else {
                self.unknown_upstream(path, span.clone(), &format!("`{key}`"), named.as_str());
            }
        }
        let fields = format!("{:?} {:?}", graph.made, check_fields(&graph.common));
        let version = Version::of(&[("kind", "graph"), ("tasks", &fields)]);
        let definition = Definition::Graph(Box::new(graph.made.clone()));
        Some(Self::asset(&graph.common, path, definition, upstream.into_iter().collect(), version))
    }

    /// A table that the program is given. It has to be one that can be asked for its rows.
    fn script_input(&mut self, path: &Arc<str>, (key, span): &(AssetKey, Range<usize>)) -> Option<ScriptInput> {
        let Some(on) = self.stored_in.get(key).cloned() else {
            self.unknown_upstream(path, span.clone(), &format!("the script `{path}`"), key.as_str());
            return None;
        };
        let kind = self.config.connections.get(&on).map(|connection| connection.kind.as_str());
        let info = self.connectors.iter().find(|info| Some(info.kind) == kind);
        if let Some(info) = info.filter(|info| info.dialect.is_none()) {
            let message = format!("`{key}` is stored in `{on}` (type `{}`), which cannot be asked for its rows", info.kind);
            let problem = Diagnostic::error(codes::LACKS_ABILITY, message).at(path, span.clone(), "");
            self.problems.push(problem.help("name it under `depends_on`, and let the program read it by itself"));
            return None;
        }
        Some(ScriptInput { asset: key.clone(), on })
    }
}
