//! Expressions over rows in flight, evaluated by a DuckDB of their own that lives in memory.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use duckdb::Connection;
use subak_connect::program::Blame;
use subak_connect::{ConnectError, ConnectErrorKind, RowProgram, RowPrograms, convert};

use super::error::failed;
use super::session::DuckDbSession;
use super::{DIALECT, special};
use crate::staging;

/// The column that says whether a row passes the filter.
const KEEP: &str = "__subak_keep";

/// Compiles expressions in DuckDB's SQL.
#[derive(Debug, Default)]
pub struct DuckDbPrograms;

impl RowPrograms for DuckDbPrograms {
    fn compile(
        &self,
        schema: &SchemaRef,
        derive: &[(String, String)],
        filter: Option<&str>,
    ) -> Result<Box<dyn RowProgram>, ConnectError> {
        let refused = |error| failed("expressions cannot be prepared", error);
        let connection = Connection::open_in_memory().map_err(refused)?;
        connection
            .execute_batch("set TimeZone = 'UTC'; set threads = 1; set preserve_insertion_order = true")
            .map_err(refused)?;
        let columns = staging::column_list(&DuckDbSession::new(&connection, "expressions cannot be prepared"), schema)?;
        connection.execute_batch(&format!("create temp table rows ({columns})")).map_err(refused)?;
        let mut computed: Vec<String> = Vec::new();
        for (name, expression) in derive {
            check(&connection, &computed, &format!("({expression}) as {}", DIALECT.identifier(name))).map_err(|error| {
                let message = format!("the expression of `{name}` under `derive:` does not fit the columns of the stream");
                explained(message, expression, error)
            })?;
            computed.push(format!("({expression}) as {}", DIALECT.identifier(name)));
        }
        refuse_wrapped(&connection, &computed)?;
        let sql = with_computed(&computed);
        if let Some(filter) = filter {
            let sql = format!("select coalesce(({filter}), false) as keep from ({sql}) as r");
            connection
                .prepare(&sql)
                .map(drop)
                .map_err(|error| explained("`filter:` does not fit the columns of the stream".to_owned(), filter, error))?;
        }
        let keep = filter.map_or_else(String::new, |filter| format!(", coalesce(({filter}), false) as {KEEP}"));
        let sql = format!("select *{keep} from ({sql}) as r");
        let mut statement = connection.prepare(&sql).map_err(refused)?;
        drop(statement.query_arrow([]).map_err(refused)?);
        let described = statement.schema();
        drop(statement);
        let own = described.fields().iter().skip(schema.fields().len()).filter(|field| field.name() != KEEP);
        let own = own.map(|field| Arc::new(Field::new(field.name(), exact(field.data_type()), true)));
        let fields: Vec<_> = schema.fields().iter().cloned().chain(own).collect();
        Ok(Box::new(Program {
            connection,
            sql,
            schema: Arc::new(Schema::new(fields)),
            input_count: schema.fields().len(),
            has_filter: filter.is_some(),
            names: derive.iter().map(|(name, _)| name.clone()).collect(),
            computed,
        }))
    }
}

fn explained(message: String, expression: &str, error: duckdb::Error) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Config, message)
        .because(error)
        .help(format!("correct `{expression}`; columns have the names and types that they have in the table"))
}

/// The driver hands over the largest type of whole numbers as another one.
fn refuse_wrapped(connection: &Connection, computed: &[String]) -> Result<(), ConnectError> {
    let sql =
        format!("select column_name from (describe {}) where contains(column_type, 'UHUGEINT') limit 1", with_computed(computed));
    let find =
        || -> duckdb::Result<Option<String>> { connection.prepare(&sql)?.query_map([], |row| row.get(0))?.next().transpose() };
    let Some(name) = find().map_err(|error| failed("expressions cannot be prepared", error))? else { return Ok(()) };
    let message = format!("the expression of `{name}` under `derive:` returns uhugeint, which no column here holds");
    Err(ConnectError::new(ConnectErrorKind::Config, message).help("cast it: `cast(... as varchar)`, or to a type that holds it"))
}

/// The rows with columns that are computed of them: one level per column, so that a later expression sees the earlier columns.
fn with_computed(computed: &[String]) -> String {
    computed.iter().fold("select * from rows".to_owned(), |sql, item| format!("select *, {item} from ({sql}) as r"))
}

fn check(connection: &Connection, computed: &[String], item: &str) -> duckdb::Result<()> {
    connection.prepare(&format!("select *, {item} from ({}) as r", with_computed(computed))).map(drop)
}

/// The type in which a computed column travels on. Sums of whole numbers are 128 bits wide in DuckDB, which has no column type here.
fn exact(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null => DataType::Utf8,
        other => convert::arrow_type(convert::logical_type(other)),
    }
}

struct Program {
    connection: Connection,
    sql: String,
    schema: SchemaRef,
    input_count: usize,
    has_filter: bool,
    names: Vec<String>,
    /// Computed columns as items of a select.
    computed: Vec<String>,
}

impl Program {
    fn fill(&self, rows: &RecordBatch) -> Result<(), ConnectError> {
        let plain = crate::plain::plain(rows)?;
        let fill = || -> duckdb::Result<()> {
            self.connection.execute_batch("delete from rows")?;
            let mut appender = self.connection.appender("rows")?;
            appender.append_record_batch(plain)?;
            appender.flush()
        };
        fill().map_err(|error| failed("rows cannot be evaluated", error))
    }
}

impl RowProgram for Program {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(&mut self, rows: &RecordBatch) -> Result<(RecordBatch, Option<BooleanArray>), ConnectError> {
        let evaluated =
            |error| ConnectError::new(ConnectErrorKind::ValueMisfit, "an expression cannot be evaluated").because(error);
        self.fill(rows)?;
        let run = || -> duckdb::Result<Vec<RecordBatch>> {
            let mut statement = self.connection.prepare(&self.sql)?;
            let schema = statement.stream_arrow([])?.get_schema();
            let mut batches = vec![RecordBatch::new_empty(schema)];
            while let Some(batch) = statement.step()? {
                batches.push(RecordBatch::from(&batch));
            }
            Ok(batches)
        };
        let batches = run().map_err(evaluated)?;
        let internal = |error: arrow::error::ArrowError| {
            ConnectError::new(ConnectErrorKind::Internal, "evaluated rows do not fit together").because(error)
        };
        let schema = batches[0].schema();
        let result = concat_batches(&schema, &batches).map_err(internal)?;
        if result.num_rows() != rows.num_rows() {
            return Err(ConnectError::new(ConnectErrorKind::Internal, "an expression changed the number of rows")
                .help("`derive:` takes expressions over one row, no aggregates and no `unnest`"));
        }
        let own = result.project(&(self.input_count..self.schema.fields().len()).collect::<Vec<_>>()).map_err(internal)?;
        let own = special::without(own).map_err(internal)?;
        if let Some(misfit) = own.misfits.first() {
            let message = format!(
                "the expression of `{}` returns `{}` in row {} of a batch: {}",
                self.names[misfit.column],
                misfit.text,
                misfit.row + 1,
                misfit.problem
            );
            return Err(
                ConnectError::new(ConnectErrorKind::ValueMisfit, message).help("cast it to varchar, or to a type that holds it")
            );
        }
        let mut arrays = rows.columns().to_vec();
        for (array, field) in own.records.columns().iter().zip(self.schema.fields().iter().skip(self.input_count)) {
            let data_type = convert::logical_type(field.data_type());
            let converted = convert::convert(array, data_type, None, field.name())?;
            if let Some(row) = converted.misfits.first() {
                let shown = convert::text_at(array, *row);
                return Err(convert::misfit(field.name(), &shown, data_type, &format!("row {} of a batch", row + 1)));
            }
            arrays.push(converted.array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let shaped = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(internal)?;
        let keep = self.has_filter.then(|| result.column(result.num_columns() - 1).as_boolean().clone());
        Ok((shaped, keep.filter(|keep| keep.len() == rows.num_rows())))
    }

    fn blame(&mut self, rows: &RecordBatch) -> Option<Blame> {
        let reason = |error: String| error.lines().next().unwrap_or_default().trim().to_owned();
        if let Err(error) = self.fill(&rows.slice(0, 1)) {
            return Some(Blame { column: None, reason: error.to_string() });
        }
        let mut sql = String::from("select * from rows");
        for (name, item) in self.names.iter().zip(&self.computed) {
            sql = format!("select *, {item} from ({sql}) as r");
            let one = format!("select cast({} as varchar) from ({sql}) as r", DIALECT.identifier(name));
            if let Err(error) = self.connection.query_row(&one, [], |_| Ok(())) {
                return Some(Blame { column: Some(name.clone()), reason: reason(error.to_string()) });
            }
        }
        let failed = self.run(&rows.slice(0, 1)).err()?;
        let reason = failed.causes().into_iter().next().map_or_else(|| failed.to_string(), reason);
        Some(Blame { column: None, reason })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, Decimal128Array, Int64Array, StringArray};

    use super::*;

    fn rows() -> RecordBatch {
        let amounts = Decimal128Array::from(vec![Some(99_999_999), Some(100_000_000), Some(9_999_999), Some(10_000_000), None]);
        let amounts: ArrayRef = Arc::new(amounts.with_precision_and_scale(18, 2).expect("decimal"));
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), Some("d"), Some("e")]));
        RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("amount", amounts, true), ("name", names, true)])
            .expect("rows")
    }

    #[test]
    fn bands_compare_exact_decimals() {
        let bands = "case when amount >= 1000000 then 'High' when amount >= 100000 then 'Medium' else 'Low' end";
        let derive = [("band".to_owned(), bands.to_owned()), ("shout".to_owned(), "upper(band)".to_owned())];
        let rows = rows();
        let mut program = DuckDbPrograms.compile(&rows.schema(), &derive, Some("name is not null and id > 1")).expect("compile");
        for _ in 0..2 {
            let (shaped, keep) = program.run(&rows).expect("run");
            let text = |name: &str| -> Vec<String> {
                let array = shaped.column_by_name(name).expect(name);
                (0..array.len()).map(|row| convert::text_at(array, row)).collect()
            };
            assert_eq!(text("band"), ["Medium", "High", "Low", "Medium", "Low"]);
            assert_eq!(text("shout"), ["MEDIUM", "HIGH", "LOW", "MEDIUM", "LOW"]);
            assert_eq!(keep, Some(BooleanArray::from(vec![false, false, true, true, true])));
        }
    }

    #[test]
    fn a_filter_alone_keeps_the_columns() {
        let rows = rows();
        let mut program = DuckDbPrograms.compile(&rows.schema(), &[], Some("id > 3")).expect("compile");
        let (shaped, keep) = program.run(&rows).expect("run");
        assert_eq!((shaped, keep), (rows, Some(BooleanArray::from(vec![false, false, false, true, true]))));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let rows = rows();
        let derive = [("x".to_owned(), "amuont * 2".to_owned())];
        let error = DuckDbPrograms.compile(&rows.schema(), &derive, None).map(drop).expect_err("no such column");
        assert!(error.to_string().contains("`x`") && error.causes().concat().contains("amuont"), "{error} {:?}", error.causes());
        let derive = [("x".to_owned(), "cast(name as integer)".to_owned())];
        let mut program = DuckDbPrograms.compile(&rows.schema(), &derive, None).expect("compile");
        assert_eq!(program.run(&rows).map(drop).expect_err("no number").kind, ConnectErrorKind::ValueMisfit);
        for (expression, problem) in [
            ("170141183460469231731687303715884105727", "more than 38 digits"),
            ("[case when id = 3 then 'infinity'::date end]", "`infinity` in row 3 of a batch: not a date"),
        ] {
            let derive = [("y".to_owned(), "id + 1".to_owned()), ("x".to_owned(), expression.to_owned())];
            let mut program = DuckDbPrograms.compile(&rows.schema(), &derive, None).expect("compile");
            let error = program.run(&rows).map(drop).expect_err("no other value");
            assert!(error.message.contains("`x`") && error.message.contains(problem), "{}", error.message);
        }
        let derive = [("x".to_owned(), "md5_number(name)".to_owned())];
        let error = DuckDbPrograms.compile(&rows.schema(), &derive, None).map(drop).expect_err("no such column type");
        assert!(error.message.contains("`x`") && error.message.contains("uhugeint"), "{}", error.message);
    }
}
