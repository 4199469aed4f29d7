//! Builds: the result of a query as a stage, and the load that it counts as.

use std::sync::Arc;

use subak_connect::{BuildRequest, ConnectError, Dialect, LoadRequest, StagedRows};
use subak_domain::{StoredAs, WriteMode};

use super::prepare::Prepared;
use super::{Session, Stage};

/// The statement that stages the result of a query.
pub(crate) fn stage_query(dialect: &Dialect, stage: &Stage, request: &BuildRequest) -> String {
    let name = dialect.table(&stage.rows);
    match &request.surrogate_key {
        _ if request.stored_as == StoredAs::View => format!("create view {name} as\n{}\n", request.sql),
        None => format!("create table {name} as\n{}\n", request.sql),
        Some(key) => {
            let key = dialect.identifier(&key.column);
            format!("create table {name} as select cast(null as bigint) as {key}, q.* from (\n{}\n) as q", request.sql)
        }
    }
}

impl Prepared {
    /// What is known of a view before it is published: nothing that could be compared.
    pub(crate) fn of_view(dialect: &Dialect, stage: &Stage) -> Self {
        let name = dialect.table(&stage.rows);
        Self {
            preview: name.clone(),
            target: String::new(),
            stage: name,
            held: None,
            is_bound: false,
            row_column: None,
            columns: Vec::new(),
            words: Vec::new(),
            held_columns: None,
            has_marks: false,
            rows: StagedRows::default(),
            reject_count: 0,
            changed: true,
        }
    }
}

/// The load that a build counts as.
pub(crate) fn load_of(session: &dyn Session, stage: &Stage, request: &BuildRequest) -> Result<LoadRequest, ConnectError> {
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    let mut load = LoadRequest::new(request.load.clone(), request.table.clone(), schema, WriteMode::Replace);
    load.at.clone_from(&request.at);
    load.has_unique_key = false;
    let Some(rule) = &request.incremental else { return Ok(load) };
    load.primary_key.clone_from(&rule.unique_key);
    load.latest.clone_from(&rule.latest);
    load.history.clone_from(&rule.history);
    load.is_complete = true;
    load.slice.clone_from(&rule.slice);
    load.has_unique_key = matches!(rule.mode, WriteMode::Merge | WriteMode::Snapshot);
    let held = session.relation(&request.table)?.filter(|held| !held.is_view());
    load.mode = if held.is_none() && rule.mode != WriteMode::Snapshot { WriteMode::Replace } else { rule.mode };
    if let Some(held) = held.filter(|_| load.mode != WriteMode::Replace) {
        super::follow_schema_change(session, stage, rule, &held, &mut load)?;
    }
    Ok(load)
}
