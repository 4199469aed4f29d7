//! From rows of a source to rows of a table: columns are renamed, taken out of JSON, converted; computed columns are added; rows
//! that do not fit are refused or left out. Every row and every changed value is counted.

mod children;
mod counts;
mod plan;
mod raw;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use subak_connect::program::Blame;
use subak_connect::sink::{DELETE_MARK, UNCHANGED};
use subak_connect::{Batch, ConnectError, ConnectErrorKind, Reject, RowProgram, RowPrograms, convert};
use subak_domain::shape::{Contract, Deletes, FilterExit, OnReject};
use subak_domain::{DataType, Shape, ValueChange};

use self::children::ChildShaper;
use self::counts::Changes;
use self::plan::{Plan, PlannedColumn};
pub(crate) use self::raw::batch_of as batch_of_rejects;

/// What the shaping of a stream depends on besides its rows.
pub(crate) struct Setting<'a> {
    pub(crate) shape: &'a Shape,
    /// Columns that identify a row.
    pub(crate) primary_key: &'a [String],
    /// Whether rows without a key are refused, because they could not be found again.
    pub(crate) needs_key: bool,
    /// Columns of the table to which rows are added; `None` when it is made anew.
    pub(crate) held: Option<SchemaRef>,
    /// Whether types of columns that are there can be changed.
    pub(crate) can_widen: bool,
    /// Types of the table's columns in which values of other types are kept as well.
    pub(crate) alike: &'a [(DataType, DataType)],
    /// The lowest and the highest value that the table can hold in a column of a type.
    pub(crate) bounds: &'a dyn Fn(&ArrowType) -> Option<(i64, i64)>,
    /// What becomes of rows that would fail a load.
    pub(crate) on_error: OnReject,
    /// Whether a row that fails the filter deletes the one in the table.
    pub(crate) deletes_on_exit: bool,
    /// Texts for `run.id`, `run.started_at` and `as_of` in expressions.
    pub(crate) run_values: &'a BTreeMap<String, String>,
    pub(crate) programs: &'a dyn RowPrograms,
}

impl Setting<'_> {
    /// What becomes of a value for which this is said.
    fn policy(&self, said: OnReject) -> OnReject {
        if said == OnReject::Error { self.on_error } else { said }
    }
}

/// Rows of a batch after shaping.
#[derive(Debug)]
pub(crate) struct Shaped {
    /// Rows to write.
    pub(crate) batch: Batch,
    /// Rows that were refused.
    pub(crate) rejects: Vec<Reject>,
    /// Rows that the filter left out.
    pub(crate) filtered: u64,
    /// Rows of nested lists, in the order of the declaration.
    pub(crate) children: Vec<RecordBatch>,
}

/// Shapes the batches of one stream, which all have one schema.
pub(crate) struct Shaper {
    plan: Plan,
    program: Option<Box<dyn RowProgram>>,
    schema: SchemaRef,
    /// Positions of the written columns among planned and computed ones.
    positions: Vec<usize>,
    required: Vec<String>,
    on_reject: OnReject,
    mark: Mark,
    has_unchanged: bool,
    /// Expressions over the row, with the key under which they stand.
    expressions: Vec<(String, String)>,
    children: Vec<ChildShaper>,
    changes: Changes,
}

/// Which rows are marked as deletions.
#[derive(Debug, Clone)]
enum Mark {
    Never,
    /// Rows that fail the filter.
    FilterExit,
    /// Rows whose operation is one of these.
    Operation {
        column: String,
        words: Vec<String>,
        others: Vec<String>,
        deletes: Deletes,
    },
}

impl Shaper {
    /// Prepares the shaping of batches with the columns of `source`.
    pub(crate) fn new(setting: &Setting<'_>, source: &SchemaRef) -> Result<Self, ConnectError> {
        let shape = setting.shape;
        let plan = Plan::new(setting, source)?;
        let typed: SchemaRef = Arc::new(Schema::new(plan.columns.iter().flat_map(PlannedColumn::fields).collect::<Vec<_>>()));
        let replaced = |text: &str| with_run_values(text, setting.run_values);
        let derive: Vec<(String, String)> =
            shape.derive.iter().map(|derived| (derived.name.clone(), replaced(&derived.expression))).collect();
        let filter = shape.filter.as_deref().map(replaced);
        let program = if derive.is_empty() && filter.is_none() {
            None
        } else {
            Some(setting.programs.compile(&typed, &derive, filter.as_deref())?)
        };
        let computed = program.as_ref().map_or_else(|| Arc::clone(&typed), |program| program.schema());
        let positions = selection(shape, &computed)?;
        let mut fields: Vec<FieldRef> = positions.iter().map(|at| Arc::clone(&computed.fields()[*at])).collect();
        let mark = match &shape.changes {
            Some(changes) => {
                let column = changes.operation.clone();
                computed.index_of(&column).map_err(|_| convert::missing_column(&column, &computed))?;
                Mark::Operation {
                    column,
                    words: changes.delete_when.clone(),
                    others: changes.upsert_when.clone(),
                    deletes: changes.deletes,
                }
            }
            None if setting.deletes_on_exit && filter.is_some() && shape.on_filter_exit == FilterExit::Delete => Mark::FilterExit,
            None => Mark::Never,
        };
        let marks = match &mark {
            Mark::Never => false,
            Mark::FilterExit => true,
            Mark::Operation { deletes, .. } => *deletes == Deletes::Remove,
        };
        if marks {
            fields.push(Arc::new(Field::new(DELETE_MARK, ArrowType::Boolean, true)));
        }
        let has_unchanged = source.index_of(UNCHANGED).is_ok();
        if has_unchanged {
            fields.push(Arc::new(Field::new(UNCHANGED, ArrowType::Utf8, true)));
        }
        let filter_of = |filter: &String| ("filter".to_owned(), filter.clone());
        let derived = shape.derive.iter().map(|derived| (format!("derive.{}", derived.name), derived.expression.clone()));
        let expressions = derived.chain(shape.filter.iter().map(filter_of)).collect();
        let mut required: Vec<String> = Vec::new();
        if setting.needs_key {
            required.extend(setting.primary_key.iter().cloned());
        }
        required.extend(shape.changes.iter().map(|changes| changes.version.clone()));
        for column in &required {
            computed.index_of(column).map_err(|_| convert::missing_column(column, &computed))?;
        }
        let children =
            shape.children.iter().map(|child| ChildShaper::new(child, setting, &computed)).collect::<Result<_, _>>()?;
        Ok(Self {
            plan,
            program,
            schema: Arc::new(Schema::new(fields)),
            positions,
            required,
            on_reject: setting.policy(shape.on_reject()),
            mark,
            has_unchanged,
            expressions,
            children,
            changes: Changes::default(),
        })
    }

    /// Columns of the rows to write.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Columns of the table that become wider.
    pub(crate) fn widened(&self) -> Vec<String> {
        self.plan.columns.iter().filter(|column| column.is_widened).map(|column| column.name.clone()).collect()
    }

    /// What people should know about the columns.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.plan.notes.clone()
    }

    /// Columns of the nested lists, in the order of their declaration.
    pub(crate) fn child_schemas(&self) -> Vec<SchemaRef> {
        self.children.iter().map(ChildShaper::schema).collect()
    }

    /// Values that were changed so far, by column.
    pub(crate) fn value_changes(&self) -> Vec<ValueChange> {
        self.changes.list()
    }

    /// Shapes one batch. `Err` for a value that does not fit when the policy is to fail.
    pub(crate) fn run(&mut self, batch: Batch) -> Result<Shaped, ConnectError> {
        let mut refused: Refused = BTreeMap::new();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.plan.columns.len());
        let extracted = self.plan.extract(&batch.records)?;
        let mut texts = self.take_misfits(&batch, &extracted, &mut refused)?;
        for (at, (column, array)) in self.plan.columns.iter().zip(extracted).enumerate() {
            let texts = texts.remove(&at).unwrap_or_default();
            arrays.extend(convert_column(column, &array, texts, &batch, &mut refused, &mut self.changes)?);
        }
        self.plan.discard(&batch, &mut refused, &mut self.changes);
        let typed = Arc::new(Schema::new(self.plan.columns.iter().flat_map(PlannedColumn::fields).collect::<Vec<_>>()));
        let records = assemble(typed, arrays, batch.row_count())?;
        for column in &self.required {
            refuse_nulls(&records, column, &batch, self.on_reject, &mut refused)?;
        }
        self.refuse_unknown_operations(&records, &batch, &mut refused)?;
        self.finish(&batch, records, refused)
    }

    /// Decides about values that the source could not express. Returns the texts that are kept, by column and row.
    fn take_misfits(
        &mut self,
        batch: &Batch,
        extracted: &[ArrayRef],
        refused: &mut Refused,
    ) -> Result<BTreeMap<usize, Texts>, ConnectError> {
        let mut texts: BTreeMap<usize, Texts> = BTreeMap::new();
        let fed =
            batch.misfits.iter().flat_map(|misfit| self.plan.fed_by(misfit.column).map(move |(at, column)| (misfit, at, column)));
        // Another place that feeds the column may have had a value.
        for (misfit, at, column) in fed.filter(|(misfit, at, _)| extracted[*at].is_null(misfit.row)) {
            let shown: String = misfit.text.chars().take(80).collect();
            match column.on_misfit {
                OnReject::Error => {
                    let message =
                        format!("column `{}`: `{shown}` is {} ({})", column.source, misfit.problem, batch.place(misfit.row));
                    let help = format!(
                        "correct the value, declare `{}` as `text`, or say with `on_reject:` what becomes of such values",
                        column.name
                    );
                    return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
                }
                OnReject::Null => {
                    self.changes.add(&column.name, &format!("{}, became NULL", misfit.problem), || batch.place(misfit.row));
                }
                OnReject::Text => {
                    self.changes.add(&column.name, &format!("{}, kept as text", misfit.problem), || batch.place(misfit.row));
                    texts.entry(at).or_default().insert(misfit.row, misfit.text.clone());
                }
                OnReject::Quarantine => {
                    let reason = format!("column `{}`: `{shown}` is {}", column.source, misfit.problem);
                    let value = Some(misfit.text.clone());
                    refused.entry(misfit.row).or_insert(Misfit { reason, column: Some(column.name.clone()), value });
                }
            }
        }
        Ok(texts)
    }

    /// An event whose operation is none that is known says nothing that could be applied.
    fn refuse_unknown_operations(&self, records: &RecordBatch, batch: &Batch, refused: &mut Refused) -> Result<(), ConnectError> {
        let Mark::Operation { column, words, others, .. } = &self.mark else { return Ok(()) };
        let Some(array) = records.column_by_name(column) else { return Ok(()) };
        let is_known = |text: &str| words.iter().chain(others).any(|word| text.eq_ignore_ascii_case(word));
        for row in 0..array.len() {
            let text = array.is_valid(row).then(|| convert::text_at(array, row));
            if text.as_deref().is_some_and(is_known) || refused.contains_key(&row) {
                continue;
            }
            let shown = text.clone().unwrap_or_else(|| "nothing".to_owned());
            let reason = format!("column `{column}` says `{shown}`, which is no operation that is known");
            if self.on_reject != OnReject::Quarantine {
                let help = "add the word to `upsert_when:` or `delete_when:` under `changes:`, or keep such rows apart with `on_reject: quarantine`";
                let message = format!("{reason} ({})", batch.place(row));
                return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
            }
            refused.insert(row, Misfit { reason, column: Some(column.clone()), value: text });
        }
        Ok(())
    }

    fn finish(&mut self, batch: &Batch, records: RecordBatch, mut refused: Refused) -> Result<Shaped, ConnectError> {
        let (computed, keep) = self.compute(batch, records, &mut refused)?;
        if self.on_reject == OnReject::Quarantine {
            for child in &self.children {
                child.refuse(batch, &mut refused)?;
            }
        }
        let rejects: Vec<Reject> =
            refused.iter().map(|(row, misfit)| misfit.reject(batch, *row, &computed, &self.required)).collect();
        let row_count = computed.num_rows();
        let passes = |row: usize| keep.as_ref().is_none_or(|keep| keep.value(row));
        let deletes = self.deletions(&computed)?;
        let is_exit_kept = matches!(self.mark, Mark::FilterExit);
        let mut wanted = vec![true; row_count];
        let mut filtered = 0;
        for (row, wanted) in wanted.iter_mut().enumerate() {
            let is_refused = refused.contains_key(&row);
            let is_ignored = deletes.as_ref().is_some_and(|(words, deletes)| words[row] && *deletes == Deletes::Ignore);
            let is_left_out = is_ignored || (!passes(row) && !is_exit_kept);
            *wanted = !is_refused && !is_left_out;
            filtered += u64::from(!is_refused && is_left_out);
        }
        let removed = deletes.as_ref().filter(|(_, deletes)| *deletes == Deletes::Remove).map(|(words, _)| words.clone());
        let is_deleted = |row: usize| (is_exit_kept && !passes(row)) || removed.as_ref().is_some_and(|words| words[row]);
        let mut arrays: Vec<ArrayRef> = self.positions.iter().map(|at| Arc::clone(computed.column(*at))).collect();
        match (&self.mark, deletes) {
            (Mark::FilterExit, _) => {
                arrays.push(Arc::new((0..row_count).map(|row| Some(!passes(row))).collect::<BooleanArray>()));
            }
            (Mark::Operation { .. }, Some((words, Deletes::Remove))) => arrays.push(Arc::new(BooleanArray::from(words))),
            _ => {}
        }
        if self.has_unchanged {
            arrays.push(self.unchanged(batch)?);
        }
        let whole = assemble(Arc::clone(&self.schema), arrays, row_count)?;
        let mut children = Vec::with_capacity(self.children.len());
        let (mut origin, mut records) = (batch.origin.clone(), whole);
        let is_thinned = wanted.iter().any(|wanted| !wanted);
        // A row that deletes has no lists any more.
        let has_lists: Vec<bool> = wanted.iter().enumerate().map(|(row, wanted)| *wanted && !is_deleted(row)).collect();
        for child in &mut self.children {
            children.push(child.run(batch, &computed, &has_lists, &mut self.changes)?);
        }
        if is_thinned {
            let lines = origin
                .lines
                .as_ref()
                .map(|lines| lines.iter().zip(&wanted).filter(|(_, keep)| **keep).map(|(line, _)| *line).collect());
            origin.lines = lines;
            records = filter_record_batch(&records, &BooleanArray::from(wanted)).map_err(internal)?;
        }
        Ok(Shaped { batch: Batch { origin, ..Batch::new(records) }, rejects, filtered, children })
    }

    /// The columns for which the source said no value, by their names in the table.
    fn unchanged(&self, batch: &Batch) -> Result<ArrayRef, ConnectError> {
        let Some(lists) = batch.records.column_by_name(UNCHANGED) else {
            return Ok(arrow::array::new_null_array(&ArrowType::Utf8, batch.row_count()));
        };
        let lists: &StringArray = lists.as_string();
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        let mut named = Vec::with_capacity(lists.len());
        for (row, list) in lists.iter().enumerate() {
            let Some(list) = list else {
                named.push(None);
                continue;
            };
            if !known.contains_key(list) {
                let names = self.plan.names_from(&batch.records.schema(), list);
                for name in &names {
                    if let Some((key, _)) = self.expressions.iter().find(|(_, text)| subak_domain::shape::has_word(text, name)) {
                        let message =
                            format!("`{key}` reads `{name}`, and the event does not carry its value ({})", batch.place(row));
                        let help =
                            "let the database log whole rows (PostgreSQL: `replica identity full`), or compute it in a SQL asset";
                        return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
                    }
                }
                known.insert(list, format!(",{},", names.join(",")));
            }
            named.push(known.get(list).cloned());
        }
        Ok(Arc::new(StringArray::from(named)))
    }

    /// Computed columns and the filter. Rows for which an expression fails are refused one by one where the policy allows it.
    fn compute(
        &mut self,
        batch: &Batch,
        records: RecordBatch,
        refused: &mut Refused,
    ) -> Result<(RecordBatch, Option<BooleanArray>), ConnectError> {
        let Some(program) = &mut self.program else { return Ok((records, None)) };
        match program.run(&records) {
            Ok(result) => return Ok(result),
            Err(error) if error.kind != ConnectErrorKind::ValueMisfit || records.num_rows() == 0 => return Err(error),
            Err(_) => {}
        }
        let mut found = Evaluated::default();
        let is_first_wanted = self.on_reject != OnReject::Quarantine;
        evaluate(program.as_mut(), &records, 0, is_first_wanted, &mut found)?;
        if is_first_wanted && let Some((row, misfit)) = found.refused.pop() {
            let message = format!("{} ({})", misfit.reason, batch.place(row));
            let help = "correct the source, let the expression take such values, for example with `try_cast`, or keep such rows apart \
                        with `on_reject: quarantine`";
            return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
        }
        for (row, misfit) in found.refused {
            refused.entry(row).or_insert(misfit);
        }
        let whole = arrow::compute::concat_batches(&program.schema(), &found.parts).map_err(internal)?;
        Ok((whole, Some(BooleanArray::from(found.keeps))))
    }

    /// Which rows are deletions, and what a deletion does.
    fn deletions(&self, computed: &RecordBatch) -> Result<Option<(Vec<bool>, Deletes)>, ConnectError> {
        let Mark::Operation { column, words, deletes, .. } = &self.mark else { return Ok(None) };
        let array = computed.column_by_name(column).ok_or_else(|| convert::missing_column(column, &computed.schema()))?;
        let texts = arrow::compute::cast(array, &ArrowType::Utf8).map_err(internal)?;
        let texts: &StringArray = texts.as_string();
        let is_deletion = |text: Option<&str>| text.is_some_and(|text| words.iter().any(|word| text.eq_ignore_ascii_case(word)));
        Ok(Some((texts.iter().map(is_deletion).collect(), *deletes)))
    }
}

/// What expressions made of rows, part by part.
#[derive(Default)]
struct Evaluated {
    parts: Vec<RecordBatch>,
    keeps: Vec<bool>,
    refused: Vec<(usize, Misfit)>,
}

/// Evaluates expressions over rows of which some fail, by halves until the failing ones stand alone; `offset` is the number of the first
/// row. With `is_first_wanted` it ends at the first row that fails.
fn evaluate(
    program: &mut dyn RowProgram,
    rows: &RecordBatch,
    offset: usize,
    is_first_wanted: bool,
    found: &mut Evaluated,
) -> Result<(), ConnectError> {
    let row_count = rows.num_rows();
    match program.run(rows) {
        Ok((part, keep)) => {
            found.keeps.extend((0..row_count).map(|row| keep.as_ref().is_none_or(|keep| keep.value(row))));
            found.parts.push(part);
        }
        Err(error) if error.kind != ConnectErrorKind::ValueMisfit => return Err(error),
        Err(error) if row_count <= 1 => {
            let (column, reason) = match program.blame(rows) {
                Some(Blame { column: Some(column), reason }) => {
                    (Some(column.clone()), format!("`derive.{column}` fails: {reason}"))
                }
                Some(Blame { column: None, reason }) => (None, format!("`filter` fails: {reason}")),
                None => (None, error.to_string()),
            };
            found.refused.push((offset, Misfit { reason, column, value: None }));
            found.keeps.push(true);
            found.parts.push(nulls_behind(rows, &program.schema())?);
        }
        Err(_) => {
            let middle = row_count / 2;
            evaluate(program, &rows.slice(0, middle), offset, is_first_wanted, found)?;
            if !is_first_wanted || found.refused.is_empty() {
                evaluate(program, &rows.slice(middle, row_count - middle), offset + middle, is_first_wanted, found)?;
            }
        }
    }
    Ok(())
}

/// Texts of values that do not fit, by row.
type Texts = BTreeMap<usize, String>;

/// Rows that are refused by their number, and the first thing that is wrong with each.
type Refused = BTreeMap<usize, Misfit>;

/// What is wrong with a row.
#[derive(Debug, Clone)]
struct Misfit {
    reason: String,
    column: Option<String>,
    value: Option<String>,
}

impl Misfit {
    fn reject(&self, batch: &Batch, row: usize, computed: &RecordBatch, key: &[String]) -> Reject {
        let key_texts: Vec<String> = key
            .iter()
            .filter_map(|column| {
                let array = computed.column_by_name(column)?;
                array.is_valid(row).then(|| format!("{column}={}", convert::text_at(array, row)))
            })
            .collect();
        Reject {
            reason: self.reason.clone(),
            column: self.column.clone(),
            value: self.value.clone(),
            file: batch.origin.file.clone(),
            path: batch.origin.path.clone(),
            line: batch.origin.lines.as_ref().and_then(|lines| lines.get(row)).copied(),
            key: (!key_texts.is_empty()).then(|| key_texts.join(", ")),
            row: raw::row_json(batch, row),
        }
    }
}

fn convert_column(
    column: &PlannedColumn,
    array: &ArrayRef,
    mut texts: Texts,
    batch: &Batch,
    refused: &mut Refused,
    changes: &mut Changes,
) -> Result<Vec<ArrayRef>, ConnectError> {
    let with_texts = |result: ArrayRef, mut texts: Texts| {
        if !column.keeps_text() {
            return vec![result];
        }
        let texts: StringArray = (0..array.len()).map(|row| texts.remove(&row)).collect();
        vec![result, Arc::new(texts)]
    };
    let Some(data_type) = column.convert_to else {
        let own = kept_as(column, Arc::clone(array))?;
        let within = within_bounds(column, own, &mut texts, batch, refused, changes)?;
        return Ok(with_texts(within, texts));
    };
    let converted = convert::convert(array, data_type, column.format.as_deref(), &column.name)?;
    let mut result = converted.array;
    for row in converted.misfits {
        let text = convert::text_at(array, row);
        match column.on_reject {
            OnReject::Error => return Err(convert::misfit(&column.source, &text, data_type, &batch.place(row))),
            OnReject::Null => changes.add(&column.name, &format!("not {data_type}, became NULL"), || batch.place(row)),
            OnReject::Text => {
                changes.add(&column.name, &format!("not {data_type}, kept as text"), || batch.place(row));
                texts.insert(row, text);
            }
            OnReject::Quarantine => {
                let shown: String = text.chars().take(80).collect();
                let reason = format!("column `{}`: `{shown}` is not {data_type}", column.source);
                let misfit = Misfit { reason, column: Some(column.name.clone()), value: Some(text) };
                refused.entry(row).or_insert(misfit);
            }
        }
    }
    if let Some(fill) = &column.typed_default
        && result.null_count() > 0
    {
        let is_misfit = |row: usize| batch.misfits_of(row).iter().any(|misfit| column.is_fed_by(misfit.column));
        result = filled(&result, fill, array, is_misfit)?;
    }
    let result = within_bounds(column, kept_as(column, result)?, &mut texts, batch, refused, changes)?;
    Ok(with_texts(result, texts))
}

/// The values in the type in which the table keeps them.
fn kept_as(column: &PlannedColumn, array: ArrayRef) -> Result<ArrayRef, ConnectError> {
    match column.then_convert_to {
        Some(data_type) => Ok(convert::convert(&array, data_type, None, &column.name)?.array),
        None => Ok(array),
    }
}

/// The column with NULL in place of values that its table cannot hold; the policy decides what becomes of each.
fn within_bounds(
    column: &PlannedColumn,
    array: ArrayRef,
    texts: &mut Texts,
    batch: &Batch,
    refused: &mut Refused,
    changes: &mut Changes,
) -> Result<ArrayRef, ConnectError> {
    let Some((low, high)) = column.bounds else { return Ok(array) };
    // Bounds are days and microseconds, whatever the unit of the values is.
    let cast = |array: &ArrayRef, to: ArrowType| arrow::compute::cast(array, &to).map_err(internal);
    let numbers = match array.data_type() {
        ArrowType::Date32 | ArrowType::Date64 => {
            cast(&cast(&cast(&array, ArrowType::Date32)?, ArrowType::Int32)?, ArrowType::Int64)?
        }
        ArrowType::Timestamp(_, zone) => {
            cast(&cast(&array, ArrowType::Timestamp(TimeUnit::Microsecond, zone.clone()))?, ArrowType::Int64)?
        }
        _ => return Ok(array),
    };
    let numbers = numbers.as_primitive::<Int64Type>();
    let is_beyond = |value: i64| value < low || value > high;
    let highest = arrow::compute::max(numbers).is_some_and(is_beyond);
    if !highest && !arrow::compute::min(numbers).is_some_and(is_beyond) {
        return Ok(array);
    }
    let beyond: BooleanArray = numbers.iter().map(|value| Some(value.is_some_and(is_beyond))).collect();
    for row in (0..array.len()).filter(|row| beyond.value(*row)) {
        let text = convert::text_at(&array, row);
        let what = "beyond what the table holds";
        match column.on_misfit {
            OnReject::Error => {
                let message = format!("column `{}`: `{text}` is {what} ({})", column.source, batch.place(row));
                let help = format!("declare `{}` as `text`, or say with `on_reject:` what becomes of such values", column.name);
                return Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help));
            }
            OnReject::Null => changes.add(&column.name, &format!("{what}, became NULL"), || batch.place(row)),
            OnReject::Text => {
                changes.add(&column.name, &format!("{what}, kept as text"), || batch.place(row));
                texts.insert(row, text);
            }
            OnReject::Quarantine => {
                let reason = format!("column `{}`: `{text}` is {what}", column.source);
                let misfit = Misfit { reason, column: Some(column.name.clone()), value: Some(text) };
                refused.entry(row).or_insert(misfit);
            }
        }
    }
    arrow::compute::nullif(&array, &beyond).map_err(internal)
}

/// The column with `fill` where the source has no value. A value that did not fit stays NULL: the default is for what is not there.
fn filled(
    array: &ArrayRef,
    fill: &ArrayRef,
    source: &ArrayRef,
    is_misfit: impl Fn(usize) -> bool,
) -> Result<ArrayRef, ConnectError> {
    let is_absent: BooleanArray = (0..source.len()).map(|row| Some(source.is_null(row) && !is_misfit(row))).collect();
    arrow::compute::kernels::zip::zip(&is_absent, &arrow::array::Scalar::new(Arc::clone(fill)), array).map_err(internal)
}

fn refuse_nulls(
    records: &RecordBatch,
    column: &str,
    batch: &Batch,
    on_reject: OnReject,
    refused: &mut Refused,
) -> Result<(), ConnectError> {
    let Some(array) = records.column_by_name(column) else { return Ok(()) };
    for row in (0..array.len()).filter(|row| array.is_null(*row)) {
        if refused.contains_key(&row) {
            continue;
        }
        if on_reject == OnReject::Quarantine {
            let reason = format!("column `{column}` identifies a row and is empty");
            refused.insert(row, Misfit { reason, column: Some(column.to_owned()), value: None });
        } else {
            let message = format!("column `{column}` identifies a row and is empty ({})", batch.place(row));
            let help = "correct the source, declare another `primary_key:`, or keep such rows apart with `on_reject: quarantine`";
            return Err(ConnectError::new(ConnectErrorKind::KeyNull, message).help(help));
        }
    }
    Ok(())
}

/// Positions of the columns to write.
fn selection(shape: &Shape, computed: &SchemaRef) -> Result<Vec<usize>, ConnectError> {
    let Some(select) = &shape.select else { return Ok((0..computed.fields().len()).collect()) };
    select.iter().map(|name| computed.index_of(name).map_err(|_| convert::missing_column(name, computed))).collect()
}

/// An expression with the values of the run in it, as literals.
fn with_run_values(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut result = text.to_owned();
    for (name, literal) in values {
        let mut from = 0;
        while let Some(found) = result[from..].find(name.as_str()) {
            let at = from + found;
            let is_part =
                |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.' || c == '"');
            let end = at + name.len();
            if is_part(result[..at].chars().next_back()) || is_part(result[end..].chars().next()) {
                from = end;
                continue;
            }
            result.replace_range(at..end, literal);
            from = at + literal.len();
        }
    }
    result
}

/// The rows with NULL in the columns that only `schema` has.
fn nulls_behind(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ConnectError> {
    let mut arrays = rows.columns().to_vec();
    for field in schema.fields().iter().skip(arrays.len()) {
        arrays.push(arrow::array::new_null_array(field.data_type(), rows.num_rows()));
    }
    assemble(Arc::clone(schema), arrays, rows.num_rows())
}

fn assemble(schema: SchemaRef, arrays: Vec<ArrayRef>, row_count: usize) -> Result<RecordBatch, ConnectError> {
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(internal)
}

fn internal(error: arrow::error::ArrowError) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Internal, "shaped rows do not fit their own schema").because(error)
}

/// What becomes of a value that does not fit a column under a contract.
fn contract_policy(contract: Contract, on_reject: OnReject) -> OnReject {
    match contract {
        Contract::Evolve => on_reject,
        Contract::Freeze => OnReject::Error,
        Contract::DiscardRow => OnReject::Quarantine,
        Contract::DiscardValue => OnReject::Null,
    }
}

/// The type that holds the values of both exactly; `None` where there is none but text.
fn common_type(a: DataType, b: DataType) -> Option<DataType> {
    use DataType as T;
    let digits = |data_type: DataType| match data_type {
        T::SmallInt => Some((5, 0)),
        T::Integer => Some((10, 0)),
        T::BigInt => Some((19, 0)),
        T::UnsignedBigInt => Some((20, 0)),
        T::Decimal { precision, scale } => Some((precision - scale, scale)),
        _ => None,
    };
    let rank = |data_type: DataType| match data_type {
        T::SmallInt => 0,
        T::Integer => 1,
        _ => 2,
    };
    match (a, b) {
        (a, b) if a == b => Some(a),
        (T::SmallInt | T::Integer | T::BigInt, T::SmallInt | T::Integer | T::BigInt) => {
            Some(if rank(a) > rank(b) { a } else { b })
        }
        (T::Real, T::Double) | (T::Double, T::Real) => Some(T::Double),
        (T::Date, T::DateTime) | (T::DateTime, T::Date) => Some(T::DateTime),
        (T::Text, T::Json | T::Uuid) | (T::Json | T::Uuid, T::Text) => Some(T::Text),
        _ => {
            let ((whole_a, scale_a), (whole_b, scale_b)) = (digits(a)?, digits(b)?);
            let scale = scale_a.max(scale_b);
            let precision = whole_a.max(whole_b) + scale;
            (precision <= subak_domain::schema::DECIMAL_PRECISION_MAX).then_some(T::Decimal { precision, scale })
        }
    }
}

#[cfg(test)]
mod tests;
