//! What tasks do: statements, questions, programs, waiting.

use std::time::Duration;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use serde_json::{Map, Value};
use subak_connect::convert;
use subak_domain::job::TaskWork;
use subak_domain::{Action, Asset, ConnectionName, DataType, Definition, Failure, FailureClass, RunId, StepOutcome, Version};
use subak_plan::expression::{ExpressionError, Values};

use crate::execute::{ability, moved_on};
use crate::failure::{self, DATA_NOT_BEGUN};
use crate::script::Call;
use crate::{DataExecutor, Inputs, StopSignal, program};

/// Bytes of a value as JSON that a step may hand on; more belongs into a table or a file.
pub(crate) const VALUE_LENGTH_MAX: usize = 64 * 1024;

/// Bytes of what a look found that are shown.
const SHOWN_LENGTH_MAX: usize = 1024;

/// What is true when a look failed.
const DATA_OBSERVED: &str = "the look changes nothing; what reads the asset is as it was";

/// What is true when a statement of a task failed.
const DATA_STATEMENT: &str = "the statement did not end; the connection's system says what of it is done";

impl DataExecutor {
    /// Runs a task.
    pub(crate) async fn task(
        &self,
        run: RunId,
        action: &Action,
        work: &TaskWork,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        match work {
            TaskWork::Run(program) => program::run(self, run, action, program, inputs, stop).await,
            TaskWork::Sql { on, sql } => self.statement(on, &rendered(&inputs.values, sql)?, stop).await,
            TaskWork::Query { on, sql } => self.question(on, &rendered(&inputs.values, sql)?, stop).await,
            TaskWork::Http(call) => self.http(run, action, call, inputs, stop).await,
            TaskWork::Notify { receiver, message } => self.notify(receiver, message, inputs, stop).await,
            TaskWork::Approve(approval) => self.approve(run, action, approval, inputs, stop).await,
            TaskWork::Wait { wait_ms } => {
                let left = Duration::from_millis(*wait_ms).saturating_sub(inputs.adopted_after.unwrap_or_default());
                let waited = stop.guard(tokio::time::sleep(left)).await;
                waited.map_err(|reason| failure::of_stop(reason, DATA_NOT_BEGUN))?;
                Ok(StepOutcome { changed: true, ..StepOutcome::default() })
            }
            TaskWork::Expand { .. } => {
                let message = "a group has no work of its own".to_owned();
                Err(failure::plain("SBK0315", message, DATA_NOT_BEGUN, FailureClass::Internal))
            }
        }
    }

    /// Looks whether an asset has changed that something outside keeps up to date. Its version is what the look found, so that one that finds the same
    /// makes nothing downstream due.
    pub(crate) async fn observe(
        &self,
        asset: &Asset,
        known: Option<&Version>,
        call: Call<'_>,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        let Definition::External { observe: Some(work) } = &asset.definition else {
            return Err(moved_on(&format!("`observe` of `{}`", asset.key)));
        };
        let Call { run, action, inputs } = call;
        let (mut outcome, found) = match work.as_ref() {
            // However long the answer is, it is not kept.
            TaskWork::Http(request) => {
                let (value, _) = self.answer_to(run, &action.step, request, inputs, stop).await?;
                (StepOutcome::default(), Some(value))
            }
            work => {
                let mut outcome = self.task(run, action, work, inputs, stop).await?;
                let found = outcome.value.take();
                (outcome, found)
            }
        };
        let Some(found) = found else {
            let message = format!("the program that observes `{}` has handed on no value", asset.key);
            let mut failure = failure::plain("SBK0326", message, DATA_OBSERVED, FailureClass::Input);
            failure.help.push("let it write JSON to the file `SUBAK_VALUE_PATH` that is another one when the data are".into());
            return Err(failure);
        };
        let text = found.to_string();
        let version = Version::of(&[("definition", asset.version.as_str()), ("found", &text)]);
        outcome.changed = known != Some(&version);
        outcome.note = Some(if outcome.changed { "it has changed" } else { "it is as it was" }.to_owned());
        if text.len() <= SHOWN_LENGTH_MAX {
            outcome.metadata.insert("observed".to_owned(), found);
        }
        (outcome.version, outcome.is_look) = (Some(version), true);
        Ok(outcome)
    }

    async fn statement(&self, on: &ConnectionName, sql: &str, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        let connection = self.open(on, stop).await?;
        let statements = ability(connection.statements(), on, "place for statements")?;
        match stop.guard(statements.execute(sql)).await {
            Ok(Ok(())) => Ok(StepOutcome { changed: true, ..StepOutcome::default() }),
            Ok(Err(error)) => Err(failure::of_connect(&error, DATA_STATEMENT)),
            Err(reason) => Err(failure::of_stop(reason, DATA_STATEMENT)),
        }
    }

    /// The first row of the answer is the value.
    async fn question(&self, on: &ConnectionName, sql: &str, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        let connection = self.open(on, stop).await?;
        let backend = ability(connection.sql(), on, "SQL backend")?;
        let first = async {
            let mut batches = backend.query(sql);
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                if batch.num_rows() > 0 {
                    return Ok(Some(batch));
                }
            }
            Ok(None)
        };
        let data = "the query reads and changes nothing";
        let batch = match stop.guard(first).await {
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => return Err(failure::of_connect(&error, data)),
            Err(reason) => return Err(failure::of_stop(reason, data)),
        };
        let value = batch.as_ref().map_or(Value::Null, |batch| row_at(batch, 0));
        Ok(StepOutcome { changed: true, value: Some(fitting(value)?), ..StepOutcome::default() })
    }
}

/// A text of a task with its templates filled in.
pub(crate) fn rendered(values: &Values, text: &str) -> Result<String, Box<Failure>> {
    values.render(text).map_err(|error: ExpressionError| {
        let mut failure =
            failure::plain("SBK0326", "a template of the task has no value".into(), DATA_NOT_BEGUN, FailureClass::Input);
        failure.causes.push(error.to_string());
        failure
    })
}

/// A value that is not too large to be handed on.
pub(crate) fn fitting(value: Value) -> Result<Value, Box<Failure>> {
    let length = value.to_string().len();
    if length <= VALUE_LENGTH_MAX {
        return Ok(value);
    }
    let message = format!("the value of the task has {length} bytes, and {VALUE_LENGTH_MAX} are the most that can be handed on");
    let data = "the task did its work; nothing behind it was started";
    let mut failure = failure::plain("SBK0327", message, data, FailureClass::Input);
    failure.help.push("write it to a table or a file, and hand on where that is".into());
    Err(failure)
}

/// A row as an object: numbers and truth values as such, everything else as text.
pub(crate) fn row_at(batch: &RecordBatch, at: usize) -> Value {
    let mut row = Map::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let text = || convert::text_at(array, at);
        let value = match convert::logical_type(field.data_type()) {
            _ if array.is_null(at) => Value::Null,
            DataType::Boolean => Value::from(text() == "true"),
            DataType::SmallInt
            | DataType::Integer
            | DataType::BigInt
            | DataType::UnsignedBigInt
            | DataType::Real
            | DataType::Double => serde_json::from_str(&text()).unwrap_or_else(|_| Value::from(text())),
            _ => Value::from(text()),
        };
        row.insert(field.name().clone(), value);
    }
    Value::Object(row)
}
