//! Nested lists that become tables of their own: one row for each element, with the key of its row and its position.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use subak_connect::{Batch, ConnectError, ConnectErrorKind, convert};
use subak_domain::shape::{Child, ColumnRule, OnReject, PathStep, ValuePath};

use super::counts::Changes;
use super::{Misfit, Refused, Setting, plan};

/// The column with the position in the list, from 0.
const POSITION: &str = "position";

/// Makes the rows of one nested list.
pub(super) struct ChildShaper {
    from: ValuePath,
    columns: Vec<ColumnRule>,
    key: Vec<String>,
    schema: SchemaRef,
    on_reject: OnReject,
}

/// Elements of lists.
#[derive(Default)]
struct Elements {
    /// The row of each.
    parents: Vec<u64>,
    /// Its place in the list, from 0.
    positions: Vec<i64>,
    values: Vec<Value>,
}

fn schema_of(child: &Child, key: &[String], rows: &SchemaRef) -> Result<SchemaRef, ConnectError> {
    let mut fields: Vec<FieldRef> = Vec::new();
    for column in key {
        let field = rows.field_with_name(column).map_err(|_| convert::missing_column(column, rows))?;
        fields.push(Arc::new(Field::new(format!("parent_{column}"), field.data_type().clone(), true)));
    }
    fields.push(Arc::new(Field::new(POSITION, ArrowType::Int64, true)));
    for rule in &child.columns {
        let data_type = rule.data_type.map_or(ArrowType::Utf8, convert::arrow_type);
        fields.push(Arc::new(Field::new(&rule.name, data_type, true)));
    }
    if child.columns.is_empty() {
        fields.push(Arc::new(Field::new("value", ArrowType::Utf8, true)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

impl ChildShaper {
    pub(super) fn new(child: &Child, setting: &Setting<'_>, rows: &SchemaRef) -> Result<Self, ConnectError> {
        let schema = schema_of(child, setting.primary_key, rows)?;
        Ok(Self {
            from: child.from.clone(),
            columns: child.columns.clone(),
            key: setting.primary_key.to_vec(),
            schema,
            on_reject: setting.policy(setting.shape.on_reject()),
        })
    }

    /// The columns of its rows.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The elements of the lists of some rows: the row of each, its position in the list, the element.
    fn elements(&self, batch: &Batch, wanted: impl Fn(usize) -> bool) -> Result<Elements, ConnectError> {
        let mut found = Elements::default();
        let Some(lists) = batch.records.column_by_name(&self.from.column) else { return Ok(found) };
        for (row, document) in plan::documents(lists)?.into_iter().enumerate().filter(|(row, _)| wanted(*row)) {
            let Some(value) = document.as_ref().and_then(|document| plan::value_at(document, &self.from.steps)).cloned() else {
                continue;
            };
            let list = match value {
                Value::Null => continue,
                Value::Array(list) => list,
                // One element without a list around it: some writers drop it.
                single => vec![single],
            };
            for (position, element) in list.into_iter().enumerate() {
                found.parents.push(row as u64);
                found.positions.push(position as i64);
                found.values.push(element);
            }
        }
        Ok(found)
    }

    /// Refuses rows with elements that do not fit.
    pub(super) fn refuse(&self, batch: &Batch, refused: &mut Refused) -> Result<(), ConnectError> {
        let elements = self.elements(batch, |_| true)?;
        for rule in self.columns.iter().filter(|rule| rule.on_reject.is_none_or(|own| own == OnReject::Quarantine)) {
            let Some(data_type) = rule.data_type else { continue };
            let texts = Self::texts(rule, &elements.values);
            for at in convert::convert(&texts, data_type, rule.format.as_deref(), &rule.name)?.misfits {
                let value = convert::text_at(&texts, at);
                let shown: String = value.chars().take(80).collect();
                let reason = format!("column `{}.{}`: `{shown}` is not {data_type}", self.from, rule.name);
                let misfit = Misfit { reason, column: Some(rule.name.clone()), value: Some(value) };
                refused.entry(usize::try_from(elements.parents[at]).unwrap_or(0)).or_insert(misfit);
            }
        }
        Ok(())
    }

    /// The elements of the lists of the wanted rows.
    pub(super) fn run(
        &mut self,
        batch: &Batch,
        computed: &RecordBatch,
        wanted: &[bool],
        changes: &mut Changes,
    ) -> Result<RecordBatch, ConnectError> {
        let Elements { parents, positions, values: elements } = self.elements(batch, |row| wanted[row])?;
        let take = UInt64Array::from(parents.clone());
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for column in &self.key {
            let array = computed.column_by_name(column).ok_or_else(|| convert::missing_column(column, &computed.schema()))?;
            arrays.push(arrow::compute::take(array, &take, None).map_err(super::internal)?);
        }
        arrays.push(Arc::new(Int64Array::from(positions)));
        for rule in &self.columns {
            arrays.push(self.column(rule, &elements, batch, &parents, changes)?);
        }
        if self.columns.is_empty() {
            arrays.push(Arc::new(elements.iter().map(|element| Some(element.to_string())).collect::<StringArray>()));
        }
        super::assemble(Arc::clone(&self.schema), arrays, elements.len())
    }

    fn texts(rule: &ColumnRule, elements: &[Value]) -> ArrayRef {
        let own = [PathStep::Key(rule.name.clone())];
        let text = |element: &Value| {
            if rule.from.is_empty() {
                return plan::value_at(element, &own).and_then(plan::text_of);
            }
            rule.from.iter().find_map(|path| {
                let first = plan::value_at(element, &[PathStep::Key(path.column.clone())])?;
                plan::value_at(first, &path.steps).and_then(plan::text_of)
            })
        };
        Arc::new(elements.iter().map(|element| text(element).or_else(|| rule.default.clone())).collect::<StringArray>())
    }

    fn column(
        &self,
        rule: &ColumnRule,
        elements: &[Value],
        batch: &Batch,
        parents: &[u64],
        changes: &mut Changes,
    ) -> Result<ArrayRef, ConnectError> {
        let texts = Self::texts(rule, elements);
        let Some(data_type) = rule.data_type else { return Ok(texts) };
        let converted = convert::convert(&texts, data_type, rule.format.as_deref(), &rule.name)?;
        for element in &converted.misfits {
            let place = batch.place(usize::try_from(parents[*element]).unwrap_or(0));
            let column = format!("{}.{}", self.from, rule.name);
            if rule.on_reject.unwrap_or(self.on_reject) != OnReject::Null {
                return Err(convert::misfit(&column, &convert::text_at(&texts, *element), data_type, &place));
            }
            changes.add(&column, &format!("not {data_type}, became NULL"), || place);
        }
        if converted.array.len() != elements.len() {
            return Err(ConnectError::new(ConnectErrorKind::Internal, "elements of a list were lost"));
        }
        Ok(converted.array)
    }
}
