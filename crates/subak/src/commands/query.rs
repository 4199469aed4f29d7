//! `subak query`.

use std::io::Read;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use serde_json::{Value, json};
use subak_connect::convert;
use subak_diag::{Diagnostic, codes};
use subak_engine::Connections;

use super::Context;
use crate::args::QueryArgs;
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::{Table, count};

pub(super) fn execute(context: &Context<'_>, args: &QueryArgs) -> Result<Exit, CliError> {
    let opened = context.open()?;
    let config = &opened.project.config;
    let name = match &args.on {
        None => config.warehouse.clone(),
        Some(on) => config.connections.keys().find(|name| name.as_str() == on).cloned().ok_or_else(|| {
            CliError::not_found("connection", on, config.connections.keys().map(subak_domain::ConnectionName::as_str))
        })?,
    };
    let sql = sql(&args.sql)?;
    let connections = ProjectConnections::new(&opened.root, config, context.settings, true);
    let (table, is_cut) = context.block_on(rows(&connections, &name, &sql, args.limit))?;
    context.printer.table(&table);
    if is_cut {
        context.printer.note(&format!("the first {} rows; `--limit 0` prints all", count(args.limit)));
    }
    Ok(Exit::Ok)
}

fn sql(argument: &str) -> Result<String, CliError> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        CliError::new(
            Diagnostic::error(codes::USAGE, "standard input cannot be read").caused_by(error.to_string()),
            Exit::Invalid,
        )
    })?;
    Ok(text)
}

/// Runs a query; at most `limit` rows, and whether there were more.
pub(super) async fn rows(
    connections: &ProjectConnections,
    name: &subak_domain::ConnectionName,
    sql: &str,
    limit: u64,
) -> Result<(Table, bool), CliError> {
    let connection = connections.open(name).await?;
    let no_sql = || {
        let problem = Diagnostic::error(codes::LACKS_ABILITY, format!("connection `{name}` does not run SQL"));
        CliError::new(problem.help("`subak docs connectors` shows what each type can do"), Exit::Invalid)
    };
    let backend = connection.sql().ok_or_else(no_sql)?;
    let mut batches = backend.query(sql);
    let mut table = Table::new("rows", &[]);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        if table.columns.is_empty() {
            table.columns = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        }
        for row in 0..batch.num_rows() {
            if limit > 0 && table.rows.len() as u64 >= limit {
                return Ok((table, true));
            }
            table.rows.push((0..batch.num_columns()).map(|at| cell(&batch, at, row)).collect());
        }
    }
    Ok((table, false))
}

/// One value: numbers, booleans and texts as such, everything else as the text of its type.
pub(super) fn cell(batch: &RecordBatch, at: usize, row: usize) -> Value {
    let array = batch.column(at);
    if array.is_null(row) {
        return Value::Null;
    }
    let text = convert::text_at(array, row);
    match array.data_type() {
        DataType::Boolean => json!(array.as_boolean().value(row)),
        // Every digit of a decimal counts, so it does not become a floating point number on the way to JSON.
        data_type if data_type.is_numeric() => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        _ => Value::String(text),
    }
}
