//! Which partitions of other assets are read.

use subak_diag::{Diagnostic, codes};
use subak_domain::{Asset, Mapping};

use super::Resolver;

impl Resolver<'_> {
    /// `reads` of a partition says something about what the asset reads, and of windows only where there are any.
    pub(super) fn refuse_idle_reads(&mut self, assets: &[Asset]) {
        for asset in assets {
            let Some(partitioning) = &asset.partitioning else { continue };
            for (key, mapping) in &partitioning.reads {
                let upstream = assets.iter().find(|other| other.key == *key && asset.upstream.contains(key));
                let is_offset = matches!(mapping, Mapping::Offset { .. });
                let (message, help) = match upstream.map(|upstream| upstream.partitioning.as_ref()) {
                    None => (format!("`{}` does not read `{key}`", asset.key), "remove it from `reads`, or correct the name"),
                    Some(None) => (format!("`{key}` has no partitions"), "remove it from `reads`: it is read as a whole"),
                    Some(Some(other)) if is_offset && (partitioning.windows().is_none() || other.windows().is_none()) => (
                        format!("`offset` is about windows of time, and `{}` or `{key}` has none", asset.key),
                        "name the keys: `keys:`",
                    ),
                    Some(Some(_)) => continue,
                };
                let (path, span) = self.places.get(&asset.key).cloned().unwrap_or_else(|| ("".into(), 0..0));
                let place = self.find(&path, key.as_str());
                let place = if place.is_empty() { span } else { place };
                self.problems.push(Diagnostic::error(codes::SHAPE_MISUSE, message).at(&path, place, "").help(help));
            }
        }
    }
}
