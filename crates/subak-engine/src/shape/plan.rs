//! Which columns the table gets, where their values come from and what type they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use subak_connect::batch::{MAY_MISFIT, OPEN_SCHEMA};
use subak_connect::sink::UNCHANGED;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, convert};
use subak_domain::shape::{ColumnRule, Contract, Naming, OnReject, PathStep, ValuePath};
use subak_domain::{DataType, Shape};

use super::counts::Changes;
use super::{Misfit, Refused, Setting, common_type, contract_policy};

/// One column of the table before computed ones are added.
#[derive(Debug, Clone)]
pub(super) struct PlannedColumn {
    /// Name in the table.
    pub(super) name: String,
    /// Name in messages about the source.
    pub(super) source: String,
    /// Where the value comes from.
    from: From,
    /// The type to convert to; `None` keeps the values as they are.
    pub(super) convert_to: Option<DataType>,
    /// The type of the table's column behind it, where that keeps the values as well.
    pub(super) then_convert_to: Option<DataType>,
    /// How dates and times are written.
    pub(super) format: Option<String>,
    pub(super) on_reject: OnReject,
    /// What becomes of values that the source could not express in the column's type.
    pub(super) on_misfit: OnReject,
    /// Whether the source may have such values.
    may_misfit: bool,
    /// The lowest and the highest value that the table can hold.
    pub(super) bounds: Option<(i64, i64)>,
    /// The value of rows that have none, as one row of the column's type.
    pub(super) typed_default: Option<ArrayRef>,
    /// Whether the table's column gets this type.
    pub(super) is_widened: bool,
    arrow_type: ArrowType,
}

/// Where values of a column come from.
#[derive(Debug, Clone)]
enum From {
    /// A column of the source, by its position.
    Column(usize),
    /// The first of these places that has a value.
    Paths(Vec<(usize, Vec<PathStep>)>),
    /// Nowhere: the source does not have it this time.
    Nowhere,
}

impl PlannedColumn {
    fn field(&self) -> FieldRef {
        Arc::new(Field::new(&self.name, self.arrow_type.clone(), true))
    }

    /// The column, and the one that keeps texts which do not fit it.
    pub(super) fn fields(&self) -> Vec<FieldRef> {
        let mut fields = vec![self.field()];
        if self.keeps_text() {
            fields.push(Arc::new(Field::new(format!("{}__text", self.name), ArrowType::Utf8, true)));
        }
        fields
    }

    /// Whether its values come from a column of the source.
    pub(super) fn is_fed_by(&self, source: usize) -> bool {
        match &self.from {
            From::Column(at) => *at == source,
            From::Paths(paths) => paths.iter().any(|(at, _)| *at == source),
            From::Nowhere => false,
        }
    }

    pub(super) fn keeps_text(&self) -> bool {
        (self.on_reject == OnReject::Text && self.convert_to.is_some())
            || (self.on_misfit == OnReject::Text && (self.may_misfit || self.bounds.is_some()))
    }
}

/// A column of the source that the contract leaves out.
#[derive(Debug)]
struct Discarded {
    at: usize,
    name: String,
    is_row_refused: bool,
}

/// The columns of a stream.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) columns: Vec<PlannedColumn>,
    discarded: Vec<Discarded>,
    pub(super) notes: Vec<String>,
}

impl Plan {
    pub(super) fn new(setting: &Setting<'_>, source: &SchemaRef) -> Result<Self, ConnectError> {
        let shape = setting.shape;
        let is_open = source.metadata().contains_key(OPEN_SCHEMA);
        let mut plan = Self { columns: Vec::new(), discarded: Vec::new(), notes: Vec::new() };
        for (at, field) in source.fields().iter().enumerate().filter(|(_, field)| field.name() != UNCHANGED) {
            let rules: Vec<&ColumnRule> =
                shape.columns.iter().filter(|rule| is_rule_of(rule, field.name(), shape.naming)).collect();
            let is_consumed = shape.columns.iter().any(|rule| is_one_of(rule, field.name(), shape.naming));
            if (shape.dropped.contains(field.name()) || is_consumed) && rules.is_empty() {
                continue;
            }
            if rules.is_empty() {
                plan.add(setting, shape.naming.apply(field.name()), field.name(), From::Column(at), field.data_type(), None)?;
            }
            for rule in rules {
                plan.add(setting, rule.name.clone(), field.name(), From::Column(at), field.data_type(), Some(rule))?;
            }
        }
        let is_child = |name: &str| shape.children.iter().any(|child| child.from.steps.is_empty() && child.from.column == name);
        plan.columns.retain(|column| !is_child(&column.source));
        let is_unmet = |rule: &&ColumnRule| !source.fields().iter().any(|field| is_rule_of(rule, field.name(), shape.naming));
        for rule in shape.columns.iter().filter(is_unmet) {
            let own = ValuePath { column: rule.name.clone(), steps: Vec::new() };
            let wanted: Vec<&ValuePath> = if rule.from.is_empty() { vec![&own] } else { rule.from.iter().collect() };
            let known: Vec<(usize, Vec<PathStep>)> = wanted
                .iter()
                .filter_map(|path| position(source, &path.column, shape.naming).map(|at| (at, path.steps.clone())))
                .collect();
            if known.is_empty() && !is_open && rule.default.is_none() {
                return Err(convert::missing_column(&wanted[0].column, source));
            }
            if known.is_empty() && !is_open {
                plan.notes.push(format!("the source has no column `{}` any more; every row gets its default", wanted[0].column));
            }
            let from = if known.is_empty() { From::Nowhere } else { From::Paths(known) };
            plan.add(setting, rule.name.clone(), &wanted[0].to_string(), from, &ArrowType::Utf8, Some(rule))?;
        }
        let may_misfit = |at: &usize| source.field(*at).metadata().contains_key(MAY_MISFIT);
        for at in (0..source.fields().len()).filter(may_misfit) {
            let fed: Vec<usize> = plan.fed_by(at).map(|(column, _)| column).collect();
            for column in fed {
                plan.columns[column].may_misfit = true;
            }
        }
        plan.refuse_collisions(shape)?;
        Ok(plan)
    }

    fn add(
        &mut self,
        setting: &Setting<'_>,
        name: String,
        source: &str,
        from: From,
        arriving: &ArrowType,
        rule: Option<&ColumnRule>,
    ) -> Result<(), ConnectError> {
        let shape = setting.shape;
        let said = rule.and_then(|rule| rule.on_reject).or(shape.on_reject);
        let declared = rule.and_then(|rule| rule.data_type);
        let mut column = PlannedColumn {
            source: source.to_owned(),
            from,
            convert_to: declared,
            then_convert_to: None,
            format: rule.and_then(|rule| rule.format.clone()),
            on_reject: setting.policy(said.unwrap_or_default()),
            on_misfit: setting.policy(said.unwrap_or(OnReject::Null)),
            may_misfit: false,
            bounds: None,
            typed_default: None,
            is_widened: false,
            arrow_type: declared.map_or_else(|| arriving.clone(), convert::arrow_type),
            name,
        };
        if let Some(held) = &setting.held {
            let known = held.fields().iter().find(|field| field.name().eq_ignore_ascii_case(&column.name));
            match known {
                Some(known) => column.follow(setting, known),
                None if !setting.deletes_known(&column.name) && !self.take_new(setting, &column)? => {
                    return Ok(());
                }
                None => {}
            }
        }
        column.bounds = (setting.bounds)(&column.arrow_type);
        if let Some(default) = rule.and_then(|rule| rule.default.as_ref()) {
            column.fill_with(default)?;
        }
        self.columns.push(column);
        Ok(())
    }

    /// Decides about a column that the table does not have. `false` leaves it out.
    fn take_new(&mut self, setting: &Setting<'_>, column: &PlannedColumn) -> Result<bool, ConnectError> {
        let discard = |is_row_refused: bool| match column.from {
            From::Column(at) => Some(Discarded { at, name: column.source.clone(), is_row_refused }),
            _ => None,
        };
        match setting.shape.contract {
            Contract::Evolve => Ok(true),
            Contract::Freeze => {
                let message = format!("column `{}` arrives, and the table does not have it", column.name);
                let help = "the contract is `freeze`: add the column to the table, leave it out with `select:`, or set `contract: evolve`";
                Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help(help))
            }
            Contract::DiscardRow => {
                self.discarded.extend(discard(true));
                Ok(false)
            }
            Contract::DiscardValue => {
                self.discarded.extend(discard(false));
                Ok(false)
            }
        }
    }

    /// The columns of the table that come from these columns of the source, which stand between commas.
    pub(super) fn names_from(&self, source: &SchemaRef, list: &str) -> Vec<String> {
        let is_named = |at: usize| list.split(',').any(|name| !name.is_empty() && name == source.field(at).name());
        let is_from = |column: &&PlannedColumn| match &column.from {
            From::Column(at) => is_named(*at),
            From::Paths(paths) => paths.iter().any(|(at, _)| is_named(*at)),
            From::Nowhere => false,
        };
        self.columns.iter().filter(is_from).map(|column| column.name.clone()).collect()
    }

    fn refuse_collisions(&self, shape: &Shape) -> Result<(), ConnectError> {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for column in &self.columns {
            for field in column.fields() {
                if let Some(other) = seen.insert(field.name().to_lowercase(), &column.source) {
                    let message = format!("columns `{other}` and `{}` would both be called `{}`", column.source, field.name());
                    let help =
                        "give one of them another name under `columns:`, for example `other_name: { from: … }`, or leave it out";
                    return Err(ConnectError::new(ConnectErrorKind::Config, message).help(help));
                }
            }
        }
        for derived in &shape.derive {
            if let Some(other) = seen.insert(derived.name.to_lowercase(), &derived.name) {
                let message = format!("the computed column `{}` has the name of the column `{other}`", derived.name);
                return Err(ConnectError::new(ConnectErrorKind::Config, message).help("give it another name under `derive:`"));
            }
        }
        Ok(())
    }

    /// The columns that take their values from a column of the source.
    pub(super) fn fed_by(&self, source: usize) -> impl Iterator<Item = (usize, &PlannedColumn)> {
        self.columns.iter().enumerate().filter(move |(_, column)| column.is_fed_by(source))
    }

    /// The values of each column as they stand in the source.
    pub(super) fn extract(&self, records: &RecordBatch) -> Result<Vec<ArrayRef>, ConnectError> {
        let mut parsed: BTreeMap<usize, Vec<Option<Value>>> = BTreeMap::new();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            arrays.push(match &column.from {
                From::Column(at) => Arc::clone(records.column(*at)),
                From::Nowhere => arrow::array::new_null_array(&ArrowType::Utf8, records.num_rows()),
                From::Paths(paths) => values_at(paths, records, &mut parsed)?,
            });
        }
        Ok(arrays)
    }

    /// Refuses rows, or counts values, in columns that the contract leaves out.
    pub(super) fn discard(&self, batch: &Batch, refused: &mut Refused, changes: &mut Changes) {
        for discarded in &self.discarded {
            let array = batch.records.column(discarded.at);
            for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
                if discarded.is_row_refused {
                    let reason = format!("column `{}` is not in the table, and the contract is `discard_row`", discarded.name);
                    let value = Some(convert::text_at(array, row));
                    refused.entry(row).or_insert(Misfit { reason, column: Some(discarded.name.clone()), value });
                } else {
                    changes.add(&discarded.name, "not in the table, left out", || batch.place(row));
                }
            }
        }
    }
}

impl Setting<'_> {
    /// Whether a column is one that does not reach the table under this name.
    fn deletes_known(&self, name: &str) -> bool {
        self.shape.select.as_ref().is_some_and(|select| !select.iter().any(|wanted| wanted == name))
    }
}

impl PlannedColumn {
    /// Takes the type of the column that the table has, or makes that wider.
    fn follow(&mut self, setting: &Setting<'_>, held: &Field) {
        if *held.data_type() == self.arrow_type {
            return;
        }
        let (held_type, arriving) = (convert::logical_type(held.data_type()), convert::logical_type(&self.arrow_type));
        if held_type == arriving {
            return;
        }
        if setting.alike.contains(&(held_type, arriving)) {
            // By way of what is declared: a text says an instant, and not what a clock shows.
            self.then_convert_to = Some(held_type);
            self.arrow_type = convert::arrow_type(held_type);
            return;
        }
        if (held_type, arriving) == (DataType::DateTime, DataType::Timestamp) {
            // Which clock the table shows is nowhere said: the sink says that it is another type.
            return;
        }
        let contract = setting.shape.contract;
        let wider = common_type(held_type, arriving).filter(|common| *common != held_type);
        if let Some(wider) = wider.filter(|_| contract == Contract::Evolve && setting.can_widen) {
            self.convert_to = Some(wider);
            self.arrow_type = convert::arrow_type(wider);
            self.is_widened = true;
            return;
        }
        if self.convert_to.is_some() && contract == Contract::Evolve {
            // What is declared is meant; the sink says that the table is another one.
            return;
        }
        self.on_reject = contract_policy(contract, self.on_reject);
        self.convert_to = Some(held_type);
        self.arrow_type = convert::arrow_type(held_type);
    }

    fn fill_with(&mut self, default: &str) -> Result<(), ConnectError> {
        let data_type = convert::logical_type(&self.arrow_type);
        let text: ArrayRef = Arc::new(StringArray::from(vec![default]));
        let typed = convert::convert(&text, data_type, None, &self.name)?;
        if !typed.misfits.is_empty() {
            let message = format!("the default `{default}` of column `{}` is not {data_type}", self.name);
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help("correct `default:` or the type"));
        }
        self.convert_to = Some(data_type);
        self.arrow_type = convert::arrow_type(data_type);
        self.typed_default = Some(typed.array);
        Ok(())
    }
}

/// Where a column of the source stands, by its name there or as the naming policy writes it.
fn position(source: &SchemaRef, column: &str, naming: Naming) -> Option<usize> {
    source.index_of(column).ok().or_else(|| source.fields().iter().position(|field| naming.apply(field.name()) == column))
}

/// Whether a rule is about a whole column of the source, by its name there or as the naming policy writes it.
fn is_rule_of(rule: &ColumnRule, column: &str, naming: Naming) -> bool {
    let is_named = |name: &str| name == column || name == naming.apply(column);
    match rule.from.as_slice() {
        [] => is_named(&rule.name),
        [path] => path.steps.is_empty() && is_named(&path.column),
        _ => false,
    }
}

/// Whether a whole column of the source is one of several places from which a rule takes its values.
fn is_one_of(rule: &ColumnRule, column: &str, naming: Naming) -> bool {
    let is_named = |path: &ValuePath| path.steps.is_empty() && (path.column == column || path.column == naming.apply(column));
    rule.from.len() > 1 && rule.from.iter().any(is_named)
}

fn values_at(
    paths: &[(usize, Vec<PathStep>)],
    records: &RecordBatch,
    parsed: &mut BTreeMap<usize, Vec<Option<Value>>>,
) -> Result<ArrayRef, ConnectError> {
    let mut texts: Vec<Option<String>> = vec![None; records.num_rows()];
    for (at, steps) in paths {
        let array = records.column(*at);
        if steps.is_empty() {
            for (row, text) in texts.iter_mut().enumerate().filter(|(_, text)| text.is_none()) {
                *text = array.is_valid(row).then(|| convert::text_at(array, row));
            }
            continue;
        }
        let documents = match parsed.entry(*at) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(documents(array)?),
        };
        for (text, document) in texts.iter_mut().zip(documents.iter()).filter(|(text, _)| text.is_none()) {
            *text = document.as_ref().and_then(|document| text_at(document, steps));
        }
    }
    Ok(Arc::new(StringArray::from(texts)))
}

/// The JSON documents of a column. What is no JSON has nothing inside.
pub(super) fn documents(array: &ArrayRef) -> Result<Vec<Option<Value>>, ConnectError> {
    let texts = arrow::compute::cast(array, &ArrowType::Utf8).map_err(super::internal)?;
    let texts: &StringArray = texts.as_string();
    Ok(texts.iter().map(|text| serde_json::from_str(text?).ok()).collect())
}

/// The value at a place as text. A null counts as nothing.
fn text_at(document: &Value, steps: &[PathStep]) -> Option<String> {
    value_at(document, steps).and_then(text_of)
}

/// The value at a place.
pub(super) fn value_at<'v>(document: &'v Value, steps: &[PathStep]) -> Option<&'v Value> {
    steps.iter().try_fold(document, |value, step| match step {
        PathStep::Key(key) => value.as_object()?.get(key),
        PathStep::Index(index) => value.as_array()?.get(*index),
    })
}

/// A JSON value as text: a text without its quotes, everything else as it is written.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
