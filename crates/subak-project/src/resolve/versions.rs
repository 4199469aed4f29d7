//! What decides whether an asset must be built again: the fields that its version is a digest of.

use subak_domain::{Ingest, PartitionRule, Shape, StoredAs, Version};

use crate::declare::{Common, QueryDeclaration};

/// What decides the data of a result beside its query.
pub(super) fn storing_fields(declaration: &QueryDeclaration, incremental: &str) -> Vec<(String, String)> {
    if matches!(declaration.stored_as, StoredAs::View | StoredAs::Table | StoredAs::MaterializedView)
        && declaration.surrogate_key.is_none()
    {
        return Vec::new();
    }
    let rows = format!(
        "{} {:?} {:?} {:?} {:?}",
        declaration.mode.as_str(),
        declaration.unique_key,
        declaration.latest,
        declaration.history,
        declaration.surrogate_key
    );
    vec![("rows".to_owned(), rows), ("incremental".to_owned(), incremental.to_owned())]
}

pub(super) fn check_fields(common: &Common) -> Vec<(String, String)> {
    // Checks decide whether data may be published, so a changed check makes the asset due.
    let checks = common.checks.iter().map(|check| {
        let how = format!("{:?} {} {:?} {:?}", check.severity, check.blocking, check.filter, check.tolerance);
        (format!("check {}", check.name), format!("{:?} {how}", check.rule))
    });
    // Where its windows begin and end says nothing of what is in one.
    let partitioning = common.partitioning.as_ref().map(|partitioning| {
        let each = partitioning.dimensions().into_iter().map(|(name, column, rule)| {
            let rule = match rule {
                PartitionRule::Time(windows) => format!("{} in {}", windows.cadence, windows.timezone),
                PartitionRule::Static(_) | PartitionRule::Dynamic(_) | PartitionRule::Grid(_) => "keys".to_owned(),
            };
            let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
            format!("{name}{rule} by {column}")
        });
        ("partition".to_owned(), each.collect::<Vec<_>>().join(", "))
    });
    checks.chain(partitioning).collect()
}

pub(super) fn version_of(fields: &[(&str, &str)], more: &[(String, String)]) -> Version {
    let more = more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Version::of(&fields.iter().copied().chain(more).collect::<Vec<_>>())
}

pub(super) fn ingest_version(kind: &str, ingest: &Ingest, content: &str) -> Version {
    let cursor = ingest.cursor.as_ref().map_or_else(String::new, |cursor| cursor.column.clone());
    // How refusals are taken does not change what is meant by the rows.
    let shape = Shape { on_reject: None, rejects_max: None, ..ingest.shape.clone() };
    let shape = if shape == Shape::default() { String::new() } else { format!("{shape:?}") };
    let rows = format!("{:?} {:?}", ingest.latest, ingest.history);
    let columns = ingest.columns.iter().map(|(name, data_type)| (format!("column {name}"), data_type.to_string()));
    let options = ingest.options.iter().map(|(name, value)| (format!("option {name}"), value.clone()));
    let more: Vec<(String, String)> = columns.chain(options).collect();
    let fields = [
        ("kind", kind),
        ("from", ingest.from.as_str()),
        ("to", ingest.to.as_str()),
        ("stream", &ingest.stream),
        ("mode", ingest.mode.as_str()),
        ("key", &ingest.primary_key.join("\u{1f}")),
        ("cursor", &cursor),
        ("shape", &shape),
        ("rows", &rows),
        ("content", content),
    ];
    version_of(&fields, &more)
}
