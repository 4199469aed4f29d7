//! What a sensor sees when it looks at the outside: files, rows, an answer, what a program says.

use futures::StreamExt;
use serde_json::{Value, json};
use subak_domain::job::TaskWork;
use subak_domain::sensor::{Look, Watch, WatchCursor};
use subak_domain::{Action, ConnectionName, Failure, FailureClass, Reason, RunId, StepId, Timestamp, Work};
use subak_plan::expression::Values;
use subak_plan::sensor::{self, SEEN_COUNT_MAX, SensorError};

use crate::execute::ability;
use crate::failure;
use crate::task::{rendered, row_at};
use crate::{DataExecutor, Inputs, StopSignal};

/// What is true when a sensor could not look.
const DATA_LOOKED: &str = "no run was started, and what is new stays new";

/// Bytes of an answer that a look takes at most.
const ANSWER_LENGTH_MAX: usize = 8 * 1024 * 1024;

/// One look of a sensor.
#[derive(Debug, Clone, Copy)]
pub struct LookRequest<'a> {
    /// The sensor.
    pub sensor: &'a str,
    /// What it looks at.
    pub watch: &'a Watch,
    /// Whether each new item gets a run of its own.
    pub is_per_item: bool,
    /// What it remembers of the last look.
    pub cursor: &'a Value,
    /// The time.
    pub now: Timestamp,
    /// Where the output of its program goes: the look as if it were a run.
    pub run: RunId,
}

impl DataExecutor {
    /// Looks at something outside. Sensors of the project's own log look there; for them nothing is seen here.
    pub async fn look(&self, request: &LookRequest<'_>, stop: &StopSignal) -> Result<Look, Box<Failure>> {
        let seen = self.seen(request, stop).await;
        seen.map_err(|mut failure| {
            DATA_LOOKED.clone_into(&mut failure.data);
            failure
        })
    }

    async fn seen(&self, request: &LookRequest<'_>, stop: &StopSignal) -> Result<Look, Box<Failure>> {
        let (cursor, is_per_item) = (request.cursor, request.is_per_item);
        match request.watch {
            Watch::Files { on, pattern, settle } => {
                let connection = self.open(on, stop).await?;
                let store = ability(connection.files(), on, "list of files")?;
                let found = match stop.guard(store.list(pattern, SEEN_COUNT_MAX)).await {
                    Ok(Ok(found)) => found,
                    Ok(Err(error)) => return Err(failure::of_connect(&error, DATA_LOOKED)),
                    Err(reason) => return Err(failure::of_stop(reason, DATA_LOOKED)),
                };
                Ok(sensor::files(cursor, &found, *settle, is_per_item, request.now))
            }
            Watch::Query { on, sql, cursor: Some(rule) } => {
                let rows = self.rows_from(on, sql, rule, request, stop).await?;
                sensor::rows(cursor, rows, rule, is_per_item).map_err(|error| of_sensor(&error))
            }
            Watch::Query { on, sql, cursor: None } => {
                let rows = self.rows(on, &rendered(&values(request, &Value::Null), sql)?, stop).await?;
                Ok(sensor::answer(cursor, &Value::Array(rows), is_per_item, request.now))
            }
            Watch::Http { call, value } => {
                let inputs = Inputs { attempt: 1, values: values(request, cursor), ..Inputs::default() };
                let (answer, length) = self.answer_to(request.run, &StepId::task(request.sensor), call, &inputs, stop).await?;
                if length > ANSWER_LENGTH_MAX {
                    let message =
                        format!("the answer has {length} bytes, and {ANSWER_LENGTH_MAX} are the most that a look takes");
                    return Err(failure::plain("SBK0332", message, DATA_LOOKED, FailureClass::Input));
                }
                let body = || answer.get("body").cloned().unwrap_or(Value::Null);
                let found = match value {
                    None => body(),
                    Some(expression) => Values::of(&answer).value(expression).map_err(|error| {
                        let message = format!("`value: {expression}` has no value in the answer");
                        let mut failure = failure::plain("SBK0332", message, DATA_LOOKED, FailureClass::Input);
                        failure.causes.push(error.to_string());
                        failure
                    })?,
                };
                Ok(sensor::answer(cursor, &found, is_per_item, request.now))
            }
            Watch::Program(program) => {
                let said = self.did(request, TaskWork::Run(program.clone()), stop).await?;
                sensor::program(cursor, &said).map_err(|error| of_sensor(&error))
            }
            Watch::Assets { .. } | Watch::Jobs { .. } | Watch::Webhook { .. } => {
                Ok(Look::nothing(cursor.clone(), "the log is read elsewhere"))
            }
        }
    }

    /// Rows of a query that reads from a cursor on.
    async fn rows_from(
        &self,
        on: &ConnectionName,
        sql: &str,
        rule: &WatchCursor,
        request: &LookRequest<'_>,
        stop: &StopSignal,
    ) -> Result<Vec<Value>, Box<Failure>> {
        let connection = self.open(on, stop).await?;
        let backend = ability(connection.sql(), on, "SQL backend")?;
        let literal = match sensor::cursor_value(request.cursor, rule) {
            Value::String(text) => Value::from(backend.dialect().literal(&text)),
            other => other,
        };
        self.rows(on, &rendered(&values(request, &literal), sql)?, stop).await
    }

    /// All rows of a query, each as an object; more than a look may see are an error.
    async fn rows(&self, on: &ConnectionName, sql: &str, stop: &StopSignal) -> Result<Vec<Value>, Box<Failure>> {
        let connection = self.open(on, stop).await?;
        let backend = ability(connection.sql(), on, "SQL backend")?;
        let read = async {
            let (mut batches, mut rows) = (backend.query(sql), Vec::new());
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                rows.extend((0..batch.num_rows()).take(SEEN_COUNT_MAX + 1).map(|at| row_at(&batch, at)));
                if rows.len() > SEEN_COUNT_MAX {
                    break;
                }
            }
            Ok(rows)
        };
        let rows = match stop.guard(read).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Err(failure::of_connect(&error, DATA_LOOKED)),
            Err(reason) => return Err(failure::of_stop(reason, DATA_LOOKED)),
        };
        if rows.len() > SEEN_COUNT_MAX {
            let message = format!("the query has more than {SEEN_COUNT_MAX} rows, which are the most that a look takes");
            let mut failure = failure::plain("SBK0332", message, DATA_LOOKED, FailureClass::Input);
            failure.help.push("let it return only what is new: `where … > {{ cursor }} order by … limit 1000`".into());
            return Err(failure);
        }
        Ok(rows)
    }

    /// Does what a task does, and returns its value.
    async fn did(&self, request: &LookRequest<'_>, work: TaskWork, stop: &StopSignal) -> Result<Value, Box<Failure>> {
        let cursor = match request.cursor {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let environment = vec![("SUBAK_SENSOR".to_owned(), request.sensor.to_owned()), ("SUBAK_CURSOR".to_owned(), cursor)];
        let inputs = Inputs { attempt: 1, values: values(request, request.cursor), environment, ..Inputs::default() };
        let action = Action {
            step: StepId::task(request.sensor),
            work: Work::Task(work.clone()),
            reason: Reason::Job,
            needs: Vec::new(),
            rule: subak_domain::Rule::default(),
        };
        let outcome = self.task(request.run, &action, &work, &inputs, stop).await?;
        Ok(outcome.value.unwrap_or(Value::Null))
    }
}

/// What texts of a sensor can read.
fn values(request: &LookRequest<'_>, cursor: &Value) -> Values {
    Values::of(&json!({ "sensor": request.sensor, "cursor": cursor }))
}

fn of_sensor(error: &SensorError) -> Box<Failure> {
    let help = match error {
        SensorError::NoCursor(column) => format!("let the query return `{column}` in each row"),
        SensorError::Answer(_) => "`subak docs sensors` shows what a program of a sensor says".to_owned(),
    };
    let mut failure = failure::plain("SBK0332", error.to_string(), DATA_LOOKED, FailureClass::Input);
    failure.help.push(help);
    failure
}
