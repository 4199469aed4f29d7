//! Materialized views. One whose query stands is refreshed in place, so that what hangs on it stays; one whose query is new or another
//! is made beside the old one and takes its place. Checks see the rows before readers do in both cases.

use async_trait::async_trait;
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, BuildRequest, Commit, Committed, ConnectError, ConnectErrorKind, Staged, StagedRows, TableName, convert,
    crash,
};
use subak_domain::Column;

use super::load::{PREVIEW, Staging, TURN};
use super::read::columns_of;
use super::types;
use super::{DIALECT, Database};
use crate::staging::{self, RelationKind, Session, Stage, state};

/// A materialized view that is made or refreshed, not yet to be seen.
pub(super) struct MaterializedStaged {
    staging: Staging,
    request: BuildRequest,
    /// Whether the view that is there is refreshed, in a transaction that is open; else the stage takes its place.
    is_refreshed: bool,
    rows: StagedRows,
}

/// What the server says when a column is not there.
const UNDEFINED_COLUMN: &str = "SQLSTATE 42703";

/// The query of a view, as the server writes it.
fn query_of(session: &dyn Session, table: &TableName) -> Result<String, ConnectError> {
    let name = DIALECT.literal(&DIALECT.table(table));
    let rows = session.rows(&format!("select pg_get_viewdef({name}::regclass)"), usize::MAX)?;
    Ok(rows.into_iter().flatten().find_map(|(_, value)| value).unwrap_or_default())
}

/// `concurrently` where readers need not wait: with rows in it and a unique index over all of them, on columns alone.
fn manner(session: &dyn Session, table: &TableName) -> Result<&'static str, ConnectError> {
    let name = DIALECT.literal(&DIALECT.table(table));
    let count = session.count(&format!(
        "select count(*) from pg_class as c join pg_index as i on i.indrelid = c.oid where c.oid = {name}::regclass and c.relispopulated \
         and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null"
    ))?;
    Ok(if count > 0 { " concurrently" } else { "" })
}

impl MaterializedStaged {
    /// Makes or refreshes the view.
    pub(super) async fn build(database: &Database, request: BuildRequest) -> Result<Self, ConnectError> {
        let stage = Stage::new(&DIALECT, &request.load, &request.table, 0);
        let staging = Staging::new(database, stage.clone(), &request.table).await?;
        let message = format!("the query of `{}` failed", request.table);
        let table = request.table.clone();
        let sql = request.sql.clone();
        let (is_refreshed, written) = staging
            .with(message, move |session| {
                let name = DIALECT.table(&stage.rows);
                session.execute(&format!("create materialized view {name} as\n{sql}\nwith no data"))?;
                let held = session.relation(&table)?;
                let is_there = held.is_some_and(|held| held.kind == RelationKind::MaterializedView);
                if is_there && query_of(session, &table)? == query_of(session, &stage.rows)? {
                    stage.drop_all(session)?;
                    let (manner, target) = (manner(session, &table)?, DIALECT.table(&table));
                    session.execute("begin")?;
                    session.execute(&format!("refresh materialized view{manner} {target}"))?;
                    return Ok((true, session.count(&format!("select count(*) from {target}"))?));
                }
                session.execute(&format!("refresh materialized view {name}"))?;
                Ok((false, session.count(&format!("select count(*) from {name}"))?))
            })
            .await?;
        crash::point("rows_staged");
        Ok(Self { staging, request, is_refreshed, rows: StagedRows { written, ..StagedRows::default() } })
    }

    /// What holds the rows now, quoted.
    fn place(&self) -> String {
        DIALECT.table(if self.is_refreshed { &self.request.table } else { &self.staging.stage.rows })
    }
}

/// Puts the stage in the place of what stands under the name.
fn exchange(session: &dyn Session, stage: &Stage, table: &TableName) -> Result<(), ConnectError> {
    let target = DIALECT.table(table);
    let mut keepsakes = Vec::new();
    if let Some(held) = session.relation(table)? {
        keepsakes = session.keepsakes(table)?;
        if held.kind != RelationKind::MaterializedView {
            // Of a table or view, what readers may do goes over, and nothing else has a place there.
            keepsakes.retain(|statement| statement.to_ascii_lowercase().starts_with("grant select"));
        }
        session.execute(&format!("drop {} {target}", held.kind.word())).map_err(|error| match error.kind {
            ConnectErrorKind::Sql => error.help(
                "its query is another one, so it is made anew; drop what depends on it first, and make that again afterwards",
            ),
            _ => error,
        })?;
    }
    session.execute(&format!(
        "alter materialized view {} rename to {}",
        DIALECT.table(&stage.rows),
        DIALECT.identifier(&table.name)
    ))?;
    for statement in keepsakes {
        // An index or a comment on a column that is gone has nothing to stand on.
        session.execute("savepoint keepsake")?;
        match session.execute(&statement) {
            Err(error) if error.causes().iter().any(|cause| cause.contains(UNDEFINED_COLUMN)) => {
                session.execute("rollback to savepoint keepsake")?;
            }
            result => drop(result?),
        }
    }
    Ok(())
}

#[async_trait]
impl Staged for MaterializedStaged {
    fn rows(&self) -> StagedRows {
        self.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        let sql = format!("select * from {}", self.place());
        let columns = columns_of(&self.staging.client, &sql, |_| None, "the view cannot be described").await?;
        Ok(convert::columns_of(&types::schema_of(&columns)))
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        let (place, audit, is_refreshed) = (self.place(), audit.clone(), self.is_refreshed);
        self.staging
            .with("the check cannot be evaluated".to_owned(), move |session| {
                // A check that fails to run must not end the transaction in which the rows are.
                if is_refreshed {
                    session.execute("savepoint audit")?;
                }
                session.execute(&format!("create temporary view {PREVIEW} as select * from {place}"))?;
                let result = staging::audit(session, Some(PREVIEW), &audit, SAMPLE_ROW_COUNT_MAX);
                match (&result, is_refreshed) {
                    (Err(_), true) => session.execute("rollback to savepoint audit")?,
                    _ => session.execute(&format!("drop view {PREVIEW}"))?,
                };
                result
            })
            .await
    }

    async fn publish(mut self: Box<Self>, _: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let (stage, request, written) = (self.staging.stage.clone(), self.request.clone(), self.rows.written);
        let is_refreshed = self.is_refreshed;
        let message = format!("cannot publish `{}`", request.table);
        let committed = self
            .staging
            .with(message, move |session| {
                let begin = if is_refreshed { "" } else { "begin; " };
                session.execute(&format!("{begin}select pg_advisory_xact_lock({TURN})"))?;
                if let Some(committed) = staging::committed_before(session, &stage, &request.load)? {
                    return Ok(committed);
                }
                if !is_refreshed {
                    exchange(session, &stage, &request.table)?;
                }
                let committed =
                    Committed { written, row_count: written, overlap_count: 0, changed: true, cursor: None, account: None };
                state::write(session, &request.load, &request.table, &committed, &[], true)?;
                crash::point("inside_publish");
                session.execute("commit")?;
                crash::point("after_publish");
                drop(session.execute(&format!("analyze {}", DIALECT.table(&request.table))));
                Ok(committed)
            })
            .await?;
        self.staging.is_done = true;
        Ok(committed)
    }
}
