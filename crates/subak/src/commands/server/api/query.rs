//! Queries of people: one at a time for each request, read only, bounded in rows, bytes and time.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subak_connect::{ConnectError, ConnectErrorKind, Connection};
use subak_diag::codes;
use subak_domain::{ConnectionName, Permission};
use subak_engine::{Clock, Connections, SystemClock};
use subak_server::{Access, Call, Endpoint, Problem};
use utoipa::ToSchema;

use super::{Api, elapsed_ms, problem};
use crate::commands::query::cell;
use crate::exit::CliError;
use crate::open::ProjectConnections;
use crate::project::Opened;
use crate::settings::Settings;

/// Rows of an answer.
const ROW_COUNT_MAX: usize = 10_000;

/// Rows where nobody says how many.
const ROW_COUNT: usize = 500;

/// Bytes of an answer, about.
const ANSWER_LENGTH_MAX: usize = 4 * 1024 * 1024;

/// Characters of a value that are shown.
const CELL_LENGTH_MAX: usize = 10_000;

/// How long a query may take: less than a run waits for a file that is being read.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that runs share while any of them goes on; a file that a database holds can then be opened by others again.
#[derive(Default)]
pub(in crate::commands) struct Shared {
    /// What they were opened from.
    pub(in crate::commands) config: String,
    pub(in crate::commands) connections: Weak<ProjectConnections>,
}

/// From where queries of people are asked.
pub(in crate::commands) struct Desk {
    pub(in crate::commands) settings: Arc<Settings>,
    pub(in crate::commands) shared: Arc<Mutex<Shared>>,
    /// Queries come one after the other, so that none of them keeps a file open for the next one while a run waits for it.
    pub(in crate::commands) turn: tokio::sync::Mutex<()>,
}

impl Desk {
    /// Does something with a connection, one after the other and not for long.
    pub(super) async fn with<T, F: Future<Output = Result<T, ConnectError>>>(
        &self,
        opened: &Opened,
        name: &ConnectionName,
        is_read_only: bool,
        work: impl FnOnce(Arc<dyn Connection>) -> F,
    ) -> Result<T, ConnectError> {
        let _turn = self.turn.lock().await;
        let done = async { work(self.open(opened, name, is_read_only).await?).await };
        if !is_read_only {
            // What has begun is done to its end, and told.
            return done.await;
        }
        let done = tokio::time::timeout(TIMEOUT, done);
        let late = |_| ConnectError::new(ConnectErrorKind::Unavailable, format!("it took longer than {} s", TIMEOUT.as_secs()));
        done.await.map_err(late)?
    }

    /// A connection for queries. One to a file that runs have open is theirs, for a process has such a file open once; any other one reads only.
    async fn open(
        &self,
        opened: &Opened,
        name: &ConnectionName,
        is_read_only: bool,
    ) -> Result<Arc<dyn Connection>, ConnectError> {
        let own = ProjectConnections::new(&opened.root, &opened.project.config, &self.settings, is_read_only).beside_runs();
        // What is written goes with what runs write, where they have it open.
        if own.holds_file(name) || !is_read_only {
            let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).connections.upgrade();
            if let Some(shared) = shared {
                return shared.open(name).await;
            }
        }
        own.open(name).await
    }
}

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryAsk {
    /// One query.
    sql: String,
    /// The connection; by default the warehouse.
    on: Option<String>,
    /// How many rows at most: by default 500, at most 10,000.
    limit: Option<usize>,
}

/// What a query found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryAnswer {
    /// The names of the columns.
    columns: Vec<String>,
    /// The rows: numbers and truth values as such, everything else as text.
    rows: Vec<Vec<Value>>,
    /// Whether there are more rows than are told.
    is_cut: bool,
    /// Milliseconds that it took.
    elapsed_ms: u64,
}

async fn ask(api: &Api, opened: &Opened, name: &ConnectionName, asked: &QueryAsk) -> Result<QueryAnswer, ConnectError> {
    let _turn = api.desk.turn.lock().await;
    let began_at = SystemClock.now();
    let connection = api.desk.open(opened, name, true).await?;
    let Some(backend) = connection.sql() else {
        return Err(ConnectError::new(ConnectErrorKind::Config, format!("connection `{name}` does not run SQL")));
    };
    let most = asked.limit.unwrap_or(ROW_COUNT).clamp(1, ROW_COUNT_MAX);
    let mut batches = backend.look(&asked.sql);
    let (mut columns, mut rows, mut length, mut is_cut) = (Vec::new(), Vec::new(), 0, false);
    'all: while let Some(batch) = batches.next().await {
        let batch = batch?;
        if columns.is_empty() {
            columns = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        }
        for row in 0..batch.num_rows() {
            if rows.len() >= most || length > ANSWER_LENGTH_MAX {
                is_cut = true;
                break 'all;
            }
            let cells: Vec<Value> = (0..batch.num_columns()).map(|at| shown(cell(&batch, at, row), &mut length)).collect();
            rows.push(cells);
        }
    }
    Ok(QueryAnswer { columns, rows, is_cut, elapsed_ms: elapsed_ms(began_at, SystemClock.now()) })
}

/// A value as it is shown; what is very long is cut. A number that a reader of JSON would round is a text.
fn shown(value: Value, length: &mut usize) -> Value {
    match value {
        Value::String(text) => {
            *length += text.len().min(CELL_LENGTH_MAX) + 8;
            if text.len() <= CELL_LENGTH_MAX {
                return Value::String(text);
            }
            Value::String(text.chars().take(CELL_LENGTH_MAX).chain(['…']).collect())
        }
        Value::Number(number) => {
            *length += 8;
            let text = number.to_string();
            let is_exact = text.parse::<f64>().is_ok_and(|read| read.to_string() == text);
            if is_exact { Value::Number(number) } else { Value::String(text) }
        }
        value => {
            *length += 8;
            value
        }
    }
}

fn query(api: &Api, call: &Call, asked: QueryAsk) -> Result<QueryAnswer, Problem> {
    let serving = api.serving()?;
    let config = &serving.opened.project.config;
    let name = match &asked.on {
        None => config.warehouse.clone(),
        Some(on) => {
            let found = config.connections.keys().find(|name| name.as_str() == on);
            found.cloned().ok_or_else(|| Problem::not_found("connection", on))?
        }
    };
    let answer = call.wait(tokio::time::timeout(TIMEOUT, ask(api, &serving.opened, &name, &asked)));
    let late = || {
        let message = format!("the query took longer than {} s", TIMEOUT.as_secs());
        let help = "ask for less, or use `subak query` on the machine of the project";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, codes::STEP_TIMEOUT, message, help)
    };
    answer.map_err(|_| late())?.map_err(|error| match error.kind {
        // What is asked is wrong, and not the server.
        ConnectErrorKind::Sql | ConnectErrorKind::Permission | ConnectErrorKind::Config | ConnectErrorKind::ValueMisfit => {
            let causes = error.causes();
            let help = error.help.clone().unwrap_or_else(|| "look at the query".to_owned());
            let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, codes::SQL_FAILED, error.message.clone(), help);
            problem.error.causes = causes;
            problem
        }
        _ => problem(CliError::from(error)),
    })
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![Endpoint::write(
        Method::POST,
        "/api/v1/query",
        Access::May(Permission::Data),
        "Asks a connection a query that only reads; the system itself refuses everything else.",
        query,
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_digit_is_lost_on_the_way() {
        let cases = [("7", true), ("-9007199254740992", true), ("9007199254740993", false), ("0.1", true), ("1.50", false)];
        for (text, is_number) in cases {
            let number: Value = serde_json::from_str(text).expect("a number");
            let shown = shown(number, &mut 0);
            assert_eq!((shown.is_number(), shown.to_string().trim_matches('"')), (is_number, text));
        }
        let long = shown(Value::String("ä".repeat(20_000)), &mut 0);
        assert_eq!(long.as_str().map(|text| text.chars().count()), Some(CELL_LENGTH_MAX + 1));
    }
}
