//! The quarantine: `<table>__rejects` shows the newest state of each reject, over a table with all its states.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use subak_connect::reject::{self, RejectStatus};
use subak_connect::{ConnectError, Quarantine, Reject, StoredReject, TableName};

use super::script::list;
use super::state::Entry;
use super::tables::{Name, rows_of};
use super::{DIALECT, Server};

/// What a load does to the quarantine of its table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct RejectPlan {
    /// How many rejects wait in the stage for them, which is there when there is one.
    pub(super) count: u64,
    pub(super) run: String,
    pub(super) at: String,
    /// Whether the whole stream was read: what is not refused any more is mended.
    pub(super) is_whole: bool,
    /// Whether what was carried over is gone from the table, and waits again.
    pub(super) is_lost: bool,
    /// Rejects that the load carries into the table after all.
    pub(super) replayed: Vec<String>,
}

const COLUMNS: [&str; 12] = [
    "reject_id",
    "run",
    "rejected_at",
    "status",
    "resolved_at",
    "reason",
    "column_name",
    "value",
    "file",
    "line",
    "row_key",
    "row_json",
];

fn columns() -> String {
    list(&COLUMNS.map(str::to_owned))
}

/// The columns with other values for status and time.
fn with_status(status: &str, resolved_at: &str) -> String {
    let item = |name: &&str| match *name {
        "status" => DIALECT.literal(status),
        "resolved_at" => resolved_at.to_owned(),
        name => DIALECT.identifier(name),
    };
    COLUMNS.iter().map(item).collect::<Vec<_>>().join(", ")
}

impl Server {
    fn quarantine_of(&self, table: &Name) -> Name {
        let rejects = reject::table_of(&TableName { schema: Some(table.database.clone()), name: table.name.clone() });
        Name::new(&table.database, &rejects.name)
    }

    async fn ensure_quarantine(&self, name: &Name) -> Result<(), ConnectError> {
        let column = |name: &&str| match *name {
            "line" => "line Nullable(Int64)".to_owned(),
            "resolved_at" | "column_name" | "value" | "file" | "row_key" => format!("{name} Nullable(String)"),
            name => format!("{name} String"),
        };
        let parts = COLUMNS.iter().map(column).collect::<Vec<_>>().join(", ");
        let rows = rows_of(name).quoted();
        self.client
            .execute(&format!(
                "create table if not exists {rows} ({parts}, version UInt64, is_mended UInt8) engine = ReplacingMergeTree(version) order by reject_id"
            ))
            .await?;
        if self.exists(name).await? {
            return Ok(());
        }
        let sql = format!("create view {} as select {} from {rows} final where is_mended = 0", name.quoted(), columns());
        self.client.execute(&sql).await
    }

    /// Enters the rejects of a load and marks those that it mends or carries over. Doing it twice changes nothing.
    pub(super) async fn publish_rejects(&self, entry: &Entry) -> Result<(), ConnectError> {
        let plan = &entry.plan.rejects;
        let name = self.quarantine_of(&entry.table);
        let is_there = self.exists(&name).await?;
        if plan.count == 0 && !(is_there && plan.is_whole) {
            return self.mark_replayed(entry, &name, is_there).await;
        }
        self.ensure_quarantine(&name).await?;
        let (view, rows, staged) = (name.quoted(), rows_of(&name).quoted(), entry.plan.stage.rejects().quoted());
        // States of one load follow each other.
        let version = entry.number * 8;
        let into = format!("insert into {rows} ({}, version, is_mended) select", columns());
        let known = if plan.count > 0 { format!("reject_id in (select reject_id from {staged})") } else { "0".to_owned() };
        if plan.is_whole {
            let own = columns();
            self.client.execute(&format!("{into} {own}, {version}, 1 from {view} where status = 'open' and not {known}")).await?;
        }
        if plan.is_lost && plan.count > 0 {
            let open = with_status("open", "null");
            let sql = format!("{into} {open}, {version} + 1, 0 from {view} where status = 'replayed' and {known}");
            self.client.execute(&sql).await?;
        }
        if plan.count > 0 {
            let item = |name: &&str| match *name {
                "run" => DIALECT.literal(&plan.run),
                "rejected_at" => DIALECT.literal(&plan.at),
                "status" => "'open'".to_owned(),
                "resolved_at" => "null".to_owned(),
                name @ ("reject_id" | "reason" | "row_json") => format!("ifNull({name}, '')"),
                name => DIALECT.identifier(name),
            };
            let values = COLUMNS.iter().map(item).collect::<Vec<_>>().join(", ");
            let sql = format!(
                "{into} {values}, {version} + 2, 0 from {staged} where reject_id not in (select toNullable(reject_id) from {view})"
            );
            self.client.execute(&sql).await?;
        }
        self.mark_replayed(entry, &name, true).await
    }

    async fn mark_replayed(&self, entry: &Entry, name: &Name, is_there: bool) -> Result<(), ConnectError> {
        let plan = &entry.plan.rejects;
        if is_there && !plan.replayed.is_empty() {
            self.mark(name, &plan.replayed, RejectStatus::Replayed, &plan.at, entry.number * 8 + 3).await?;
        }
        Ok(())
    }

    /// Marks open rejects. Returns how many there were.
    async fn mark(&self, name: &Name, ids: &[String], status: RejectStatus, at: &str, version: u64) -> Result<u64, ConnectError> {
        let mut count = 0;
        for ids in ids.chunks(500) {
            let ids = ids.iter().map(|id| DIALECT.literal(id)).collect::<Vec<_>>().join(", ");
            let from = format!("from {} where status = 'open' and reject_id in ({ids})", name.quoted());
            count += self.client.count(&format!("select count() {from}")).await?;
            let values = with_status(status.as_str(), &DIALECT.literal(at));
            let rows = rows_of(name).quoted();
            let sql = format!("insert into {rows} ({}, version, is_mended) select {values}, {version}, 0 {from}", columns());
            self.client.execute(&sql).await?;
        }
        Ok(count)
    }
}

#[async_trait]
impl Quarantine for Server {
    async fn count(&self, table: &TableName) -> Result<[u64; 3], ConnectError> {
        let name = self.quarantine_of(&self.name_of(table));
        if !self.exists(&name).await? {
            return Ok([0; 3]);
        }
        let mut counts = [0; 3];
        for (count, status) in counts.iter_mut().zip([RejectStatus::Open, RejectStatus::Replayed, RejectStatus::Discarded]) {
            let sql = format!("select count() from {} where status = {}", name.quoted(), DIALECT.literal(status.as_str()));
            *count = self.client.count(&sql).await?;
        }
        Ok(counts)
    }

    async fn rejects(&self, table: &TableName, status: RejectStatus, count_max: u64) -> Result<Vec<StoredReject>, ConnectError> {
        let name = self.quarantine_of(&self.name_of(table));
        if !self.exists(&name).await? {
            return Ok(Vec::new());
        }
        let sql = format!(
            "select {} from {} where status = {} order by rejected_at, file, line, reject_id limit {count_max}",
            columns(),
            name.quoted(),
            DIALECT.literal(status.as_str())
        );
        let stored = |row: super::client::Texts| {
            let mut cells = row.into_iter();
            let mut next = || cells.next().flatten();
            let [id, run, rejected_at, status] = [next(), next(), next(), next()].map(Option::unwrap_or_default);
            let _resolved_at = next();
            let reason = next().unwrap_or_default();
            let [column, value, file, line, key] = [next(), next(), next(), next(), next()];
            let row = next().unwrap_or_default();
            let line = line.and_then(|line| line.parse().ok());
            let reject = Reject { reason, column, value, file: file.map(Arc::from), line, key, row, ..Reject::default() };
            StoredReject { id, run, rejected_at, status: RejectStatus::of(&status), reject }
        };
        Ok(self.client.rows(&sql).await?.into_iter().map(stored).collect())
    }

    async fn discard(&self, table: &TableName, ids: &[String], at: &str) -> Result<u64, ConnectError> {
        let name = self.quarantine_of(&self.name_of(table));
        if !self.exists(&name).await? {
            return Ok(0);
        }
        // Above every state of the loads before, below those of the next one.
        let version = self.next_number().await? * 8 - 1;
        self.mark(&name, ids, RejectStatus::Discarded, at, version).await
    }
}
