//! Rejects as a source: rows from the quarantine that are loaded after all.

use std::collections::{BTreeMap, HashSet};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use subak_connect::reject::RejectStatus;
use subak_connect::{
    Batch, ConnectError, ConnectErrorKind, Origin, Quarantine, ReadRequest, Source, SourceItem, StreamInfo, TableName,
};
use subak_domain::{Asset, Failure};

use crate::execute::{Attempt, guarded};
use crate::failure::{self, DATA_UNTOUCHED};
use crate::shape::batch_of_rejects;

/// Rows that wait in the quarantine.
pub(crate) struct Rejects {
    /// Which ones, in the order of the rows.
    pub(crate) ids: Vec<String>,
    rows: RecordBatch,
}

/// The open rejects with these ids, with `values` in place of what was refused.
pub(crate) async fn source(
    asset: &Asset,
    quarantine: &dyn Quarantine,
    ids: &[String],
    values: &BTreeMap<String, Option<String>>,
    attempt: &Attempt<'_>,
) -> Result<Rejects, Box<Failure>> {
    let table = TableName::of(&asset.key);
    let open = guarded(attempt.stop, quarantine.rejects(&table, RejectStatus::Open, u64::MAX)).await?;
    let asked: HashSet<&String> = ids.iter().collect();
    let wanted: Vec<_> = open.into_iter().filter(|stored| asked.contains(&stored.id)).collect();
    let rows: Vec<String> = wanted.iter().map(|stored| with_values(&stored.reject.row, values)).collect();
    let rows = batch_of_rejects(&rows).map_err(|(at, error)| {
        let id = wanted.get(at).map(|stored| stored.id.as_str()).unwrap_or_default();
        failure::of_connect(&ConnectError { message: format!("reject `{id}`: {}", error.message), ..error }, DATA_UNTOUCHED)
    })?;
    Ok(Rejects { ids: wanted.into_iter().map(|stored| stored.id).collect(), rows })
}

fn with_values(row: &str, values: &BTreeMap<String, Option<String>>) -> String {
    let Ok(serde_json::Value::Object(mut object)) = serde_json::from_str(row) else { return row.to_owned() };
    for (name, value) in values {
        object.insert(name.clone(), value.clone().map_or(serde_json::Value::Null, serde_json::Value::from));
    }
    serde_json::Value::Object(object).to_string()
}

#[async_trait]
impl Source for Rejects {
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Internal, "the quarantine is no source of streams"))
    }

    /// Yields the rows; the number of a row stands where otherwise its line stands.
    fn read(&self, _: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let lines = (1..=self.rows.num_rows() as u64).collect();
        let origin = Origin { lines: Some(lines), ..Origin::default() };
        stream::iter([Ok(SourceItem::Batch(Batch { origin, ..Batch::new(self.rows.clone()) }))]).boxed()
    }
}
