//! Making a load visible, and finishing it. Everything after the visible step can be done again.

use serde::{Deserialize, Serialize};
use subak_connect::{ConnectError, ConnectErrorKind, crash};

use super::prepare::Stage;
use super::rejects::RejectPlan;
use super::script::list;
use super::state::Entry;
use super::tables::{DELETED_COLUMN, LOAD_COLUMN, Layout, Name, rows_of};
use super::{DIALECT, Server};

/// How fresh rows become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    /// The fresh table takes the place of the table.
    Swap,
    /// The parts of the fresh table are attached to the table.
    Attach,
    /// A view takes the place of whatever is there.
    View,
    /// There is nothing to show.
    Nothing,
}

/// What is needed to finish a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) action: Action,
    pub(super) layout: Layout,
    /// The tables of the load, dropped at the end.
    pub(super) stage: Stage,
    /// The partitions of its parts, where those are attached.
    pub(super) partitions: Vec<String>,
    /// Columns of the view over a keyed table.
    pub(super) columns: Vec<String>,
    /// Columns that fit the table for the parts, with their types: those that come, and those that become wider.
    pub(super) added: Vec<(String, String)>,
    /// For an append: what the cursor column held at most before those came; see [`crate::staging::late`].
    #[serde(default)]
    pub(super) added_after: Option<String>,
    pub(super) widened: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
    /// The query of a view.
    pub(super) sql: Option<String>,
    /// The condition of the view of live rows.
    pub(super) live: Option<String>,
    /// Tables of nested lists and what takes their places.
    pub(super) children: Vec<(Name, Name)>,
    pub(super) rejects: RejectPlan,
}

impl Server {
    /// Whether readers see the load, or part of it.
    pub(super) async fn is_visible(&self, entry: &Entry) -> Result<bool, ConnectError> {
        let plan = &entry.plan;
        match plan.action {
            Action::Nothing | Action::View => Ok(false),
            Action::Swap => Ok(self.maker(&entry.rows()).await? == Some(entry.number)),
            Action::Attach => {
                let rows = entry.rows();
                let sql = format!("select count() from {} where {LOAD_COLUMN} = {}", rows.quoted(), entry.number);
                Ok(self.maker(&rows).await?.is_some() && self.client.count(&sql).await? > 0)
            }
        }
    }

    /// Makes a prepared load visible, does what is left and enters it in the ledger. Again where it was begun before.
    pub(super) async fn finish(&self, mut entry: Entry) -> Result<Entry, ConnectError> {
        let plan = entry.plan.clone();
        match plan.action {
            Action::Swap => self.swap_in(&entry).await?,
            Action::Attach => self.attach(&entry).await?,
            Action::View => {
                let sql = plan.sql.as_deref().map(|sql| self.view_of(sql)).unwrap_or_default();
                self.put_view(&entry.table, &plan.stage.fresh(), &sql).await?;
                self.drop_rows_of(&entry.table).await?;
            }
            Action::Nothing => {}
        }
        crash::point("inside_publish");
        for (fresh, target) in &plan.children {
            self.swap(fresh, target, entry.number).await?;
        }
        if let Some(condition) = plan.live.as_ref().filter(|_| entry.changed) {
            let view = entry.table.with("__live");
            self.client.execute(&format!("drop table if exists {}", view.quoted())).await?;
            let sql = format!("create view {} as select * from {} where {condition}", view.quoted(), entry.table.quoted());
            self.client.execute(&sql).await?;
        }
        self.publish_rejects(&entry).await?;
        entry.row_count = self.client.count(&format!("select count() from {}", entry.table.quoted())).await?;
        if plan.action == Action::View {
            entry.written = entry.row_count;
        }
        self.note(&entry, "committed").await?;
        // What stays behind is swept later.
        drop(self.drop_stage(&plan.stage).await);
        Ok(entry)
    }

    /// A query as it stands in a view: what NULL means there must not depend on who reads it.
    pub(super) fn view_of(&self, sql: &str) -> String {
        if !self.client.is_modern() {
            return sql.to_owned();
        }
        format!("select * from (\n{sql}\n) settings join_use_nulls = 1, cast_keep_nullable = 1")
    }

    /// Puts the fresh table in the place of the table, and a view over it where it keeps versions.
    async fn swap_in(&self, entry: &Entry) -> Result<(), ConnectError> {
        let (table, plan) = (&entry.table, &entry.plan);
        self.ensure_database(&table.database).await?;
        if plan.layout == Layout::Keyed {
            self.swap(&plan.stage.fresh(), &rows_of(table), entry.number).await?;
            self.put_view(table, &plan.stage.fresh(), &keyed_view(table, &plan.columns)).await?;
            return Ok(());
        }
        self.swap(&plan.stage.fresh(), table, entry.number).await?;
        self.drop_rows_of(table).await
    }

    /// Puts a table in the place of another one, or of a view, unless it is there already.
    async fn swap(&self, fresh: &Name, target: &Name, number: u64) -> Result<(), ConnectError> {
        if self.maker(target).await? == Some(number) {
            return Ok(());
        }
        self.ensure_database(&target.database).await?;
        let (from, to) = (fresh.quoted(), target.quoted());
        if !self.exists(target).await? {
            return self.client.execute(&format!("rename table {from} to {to}")).await;
        }
        if self.client.is_modern() {
            return self.client.execute(&format!("exchange tables {from} and {to}")).await;
        }
        let old = fresh.with("_old");
        let is_view = self.relation(target).await?.is_some_and(|held| held.layout != Layout::Plain);
        if is_view {
            // Old servers rename no views.
            self.drop_any(target).await?;
            return self.client.execute(&format!("rename table {from} to {to}")).await;
        }
        self.client.execute(&format!("rename table {to} to {}, {from} to {to}", old.quoted())).await?;
        self.drop_any(&old).await
    }

    /// Puts a view in the place of whatever is there.
    async fn put_view(&self, table: &Name, fresh: &Name, sql: &str) -> Result<(), ConnectError> {
        self.ensure_database(&table.database).await?;
        if !self.exists(table).await? {
            return self.client.execute(&format!("create view {} as {sql}", table.quoted())).await;
        }
        if self.client.is_modern() {
            let view = fresh.with("_view");
            self.drop_any(&view).await?;
            self.client.execute(&format!("create view {} as {sql}", view.quoted())).await?;
            self.client.execute(&format!("exchange tables {} and {}", view.quoted(), table.quoted())).await?;
            return self.drop_any(&view).await;
        }
        self.drop_any(table).await?;
        self.client.execute(&format!("create view {} as {sql}", table.quoted())).await
    }

    /// Fits the table for the parts and attaches those that it does not have yet: all of one partition become visible at once.
    async fn attach(&self, entry: &Entry) -> Result<(), ConnectError> {
        let plan = &entry.plan;
        let rows = entry.rows();
        let name = rows.quoted();
        let Some(held) = self.relation(&entry.table).await? else {
            let message = format!("the table {name} is gone");
            return Err(ConnectError::new(ConnectErrorKind::NotFound, message));
        };
        let has = |column: &str| held.stored.iter().any(|(known, _)| known == column);
        if !has(LOAD_COLUMN) {
            self.client.execute(&format!("alter table {name} add column {LOAD_COLUMN} UInt64 materialized 0")).await?;
        }
        for (column, word) in plan.added.iter().filter(|(column, _)| !has(column)) {
            self.client.execute(&format!("alter table {name} add column {} {word}", DIALECT.identifier(column))).await?;
        }
        crash::point("columns_added");
        for (column, word) in &plan.widened {
            self.client.execute(&format!("alter table {name} modify column {} {word}", DIALECT.identifier(column))).await?;
        }
        if plan.layout == Layout::Keyed && plan.removed.iter().any(|column| has(column)) {
            // Readers stop asking for columns before those go.
            self.put_view(&entry.table, &plan.stage.fresh(), &keyed_view(&entry.table, &plan.columns)).await?;
        }
        for column in plan.removed.iter().filter(|column| has(column)) {
            self.client.execute(&format!("alter table {name} drop column {}", DIALECT.identifier(column))).await?;
        }
        let waiting = self.partitions(&plan.stage.fresh()).await?;
        for partition in &plan.partitions {
            let prefix = format!("{partition}_");
            let sql = format!(
                "select count() from {name} where {LOAD_COLUMN} = {} and substring(_part, 1, {}) = {}",
                entry.number,
                prefix.len(),
                DIALECT.literal(&prefix)
            );
            if self.client.count(&sql).await? == 0 {
                if !waiting.contains(partition) {
                    let message = format!("the rows of partition `{partition}` that were prepared for {name} are gone");
                    return Err(
                        ConnectError::new(ConnectErrorKind::Internal, message).help("load the table anew with `--full-refresh`")
                    );
                }
                let sql = format!(
                    "alter table {name} attach partition id {} from {}",
                    DIALECT.literal(partition),
                    plan.stage.fresh().quoted()
                );
                self.client.execute(&sql).await?;
            }
        }
        let is_reshaped = !(plan.added.is_empty() && plan.widened.is_empty() && plan.removed.is_empty());
        if plan.layout == Layout::Keyed && is_reshaped {
            self.put_view(&entry.table, &plan.stage.fresh(), &keyed_view(&entry.table, &plan.columns)).await?;
        }
        Ok(())
    }
}

/// The newest row of each key that is not gone.
fn keyed_view(table: &Name, columns: &[String]) -> String {
    format!("select {} from {} final where {DELETED_COLUMN} = 0", list(columns), rows_of(table).quoted())
}
