//! Parts of one stream that are read at once.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use subak_connect::blocking::Stopped;
use subak_connect::cursor::Tracker;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, ReadRequest, SourceItem};
use tokio::task::JoinSet;

/// What becomes of batches before they are handed over, shared by all parts.
#[derive(Clone)]
pub(crate) struct Keeping {
    tracker: Option<Arc<Mutex<Tracker>>>,
    request: Arc<ReadRequest>,
}

impl Keeping {
    pub(crate) fn new(request: ReadRequest) -> Self {
        let tracker = request.cursor.clone().map(|bound| Arc::new(Mutex::new(Tracker::new(bound))));
        Self { tracker, request: Arc::new(request) }
    }

    /// The batch as it is handed over: without rows outside the bounds, its values counted for the cursor.
    pub(crate) fn item(&self, mut batch: Batch) -> Result<SourceItem, ConnectError> {
        if let Some(tracker) = &self.tracker {
            tracker.lock().unwrap_or_else(PoisonError::into_inner).keep(&mut batch, &self.request.columns)?;
        }
        Ok(SourceItem::Batch(batch))
    }

    /// What comes behind all batches. Call it when every part has ended.
    pub(crate) fn items(self) -> Vec<SourceItem> {
        let tracker = self.tracker.and_then(Arc::into_inner);
        tracker.map(|tracker| tracker.into_inner().unwrap_or_else(PoisonError::into_inner).items()).unwrap_or_default()
    }
}

/// Conditions of which every value of `column` meets one. `bound` writes the first value of a part behind the first; the first and the last
/// part are open, because values may have come since their ends were looked at.
pub(crate) fn ranges(column: &str, count: i128, bound: impl Fn(i128) -> String) -> Vec<String> {
    let range = |at: i128| {
        let low = (at > 0).then(|| format!("{column} >= {}", bound(at)));
        let high = (at + 1 < count).then(|| format!("{column} < {}", bound(at + 1)));
        low.into_iter().chain(high).collect::<Vec<_>>().join(" and ")
    };
    (0..count).map(range).collect()
}

/// Waits until every part has ended. When one fails, the others are given up.
pub(crate) async fn all<F>(parts: Vec<F>) -> Result<(), Stopped>
where
    F: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for part in parts {
        tasks.spawn(part);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| {
            Err(ConnectError::new(ConnectErrorKind::Internal, "a part of the read ended abnormally").because(error).into())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_no_gap() {
        let three = ranges("c", 3, |at| (at * 10).to_string());
        assert_eq!(three, ["c < 10", "c >= 10 and c < 20", "c >= 20"]);
        assert_eq!(ranges("c", 1, |at| at.to_string()), [""]);
    }
}
