//! Proves that a table holds what its source holds: every row of both is read once, and where they differ, the rows that do.
//!
//! Rows fall into buckets by the hash of their key, and each side sums the hashes of its rows by bucket. Buckets that agree hold the
//! same rows; only the others are read again and compared row by row. Memory is bounded by the number of buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    TimestampMicrosecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use subak_connect::{ConnectError, ConnectErrorKind, Connection, CursorBound, ReadRequest, SourceItem, TableName, convert};
use subak_domain::shape::OnReject;
use subak_domain::{Asset, Ingest, WriteMode};

use crate::execute::Connections;
use crate::load::RunContext;
use crate::shape::{Setting, Shaper};

/// Buckets into which keys fall.
const BUCKET_COUNT: usize = 1 << 14;

/// Buckets that are compared row by row.
const BUCKET_COMPARED_COUNT_MAX: usize = 256;

/// What came of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Rows of the source, after filters.
    pub source_count: u64,
    /// Rows of the table.
    pub table_count: u64,
    /// Rows of the source that the filter leaves out.
    pub filtered_count: u64,
    /// Rows of the source that do not fit and belong in the quarantine.
    pub rejected_count: u64,
    /// Columns whose sum, minimum or maximum differ.
    pub columns: Vec<ColumnDifference>,
    /// Buckets that differ, of [`Verification::bucket_count`].
    pub bucket_differing_count: u64,
    /// Buckets in all.
    pub bucket_count: u64,
    /// Rows that differ, by key; at most as many as were asked for.
    pub differences: Vec<RowDifference>,
    /// Whether there are more differences than are listed.
    pub is_cut: bool,
    /// What was compared: the names of the columns.
    pub compared: Vec<String>,
}

impl Verification {
    /// Whether both hold the same rows.
    pub fn is_equal(&self) -> bool {
        self.bucket_differing_count == 0 && self.source_count == self.table_count
    }
}

/// A measure that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDifference {
    /// The column.
    pub column: String,
    /// `sum`, `minimum`, `maximum` or `nulls`.
    pub measure: &'static str,
    /// Over the source.
    pub source: String,
    /// Over the table.
    pub table: String,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifference {
    /// Its key, as `column=value` texts.
    pub key: String,
    /// `missing` in the table, `extra` in the table, or `changed`.
    pub kind: &'static str,
    /// Columns that differ with both values; the whole row where it is on one side only.
    pub detail: String,
}

/// What to compare.
pub struct VerifyRequest<'a> {
    /// The asset; an ingest.
    pub asset: &'a Asset,
    /// Its declaration.
    pub ingest: &'a Ingest,
    /// The outside systems.
    pub connections: &'a dyn Connections,
    /// The time that counts as now.
    pub as_of: String,
    /// Differences to list.
    pub difference_count_max: usize,
}

/// Compares the table of an asset with its source.
pub async fn verify(request: &VerifyRequest<'_>) -> Result<Verification, ConnectError> {
    let ingest = request.ingest;
    if ingest.latest.is_some() || ingest.shape.changes.is_some() {
        let message =
            format!("`{}` keeps one of several rows of its source, so the two cannot be compared row by row", request.asset.key);
        let help = "compare it with a check, for example `reconcile`";
        return Err(ConnectError::new(ConnectErrorKind::Config, message).help(help));
    }
    let source = request.connections.open(&ingest.from).await?;
    let destination = request.connections.open(&ingest.to).await?;
    let table = TableName::of(&request.asset.key);
    let missing = || ConnectError::new(ConnectErrorKind::NotFound, format!("`{}` has no table yet", request.asset.key));
    let sink = destination.sink().ok_or_else(missing)?;
    let info = sink.describe(&table).await?.ok_or_else(missing)?;
    let comparison = Comparison::new(request, &info.schema);
    let mut result =
        Verification { bucket_count: BUCKET_COUNT as u64, compared: comparison.columns.clone(), ..Verification::default() };
    let mut sides = [Side::new(&comparison), Side::new(&comparison)];
    let bound = ingest.cursor.as_ref().map(|rule| CursorBound {
        to: info.cursor.clone(),
        is_upper_closed: true,
        ..CursorBound::new(&rule.column, None)
    });
    comparison
        .each_source([source.as_ref(), destination.as_ref()], bound.clone(), &info.schema, &mut result, &mut |rows| {
            sides[0].add(rows);
        })
        .await?;
    let counted = result.clone();
    comparison.each_table(destination.as_ref(), &table, &mut |rows| sides[1].add(rows)).await?;
    (result.source_count, result.table_count) = (sides[0].count, sides[1].count);
    result.columns = differing_measures(&comparison, &sides);
    let differing: BTreeSet<usize> = (0..BUCKET_COUNT).filter(|at| sides[0].buckets[*at] != sides[1].buckets[*at]).collect();
    result.bucket_differing_count = differing.len() as u64;
    if differing.is_empty() {
        return Ok(result);
    }
    let chosen: BTreeSet<usize> = differing.iter().copied().take(BUCKET_COMPARED_COUNT_MAX).collect();
    let mut found = [Rows::new(), Rows::new()];
    let mut ignored = counted;
    let key = &comparison.key;
    comparison
        .each_source([source.as_ref(), destination.as_ref()], bound, &info.schema, &mut ignored, &mut |rows| {
            collect(rows, key, &chosen, &mut found[0]);
        })
        .await?;
    comparison.each_table(destination.as_ref(), &table, &mut |rows| collect(rows, key, &chosen, &mut found[1])).await?;
    let all = comparison.differences(&found);
    result.is_cut = all.len() > request.difference_count_max || differing.len() > chosen.len();
    result.differences = all.into_iter().take(request.difference_count_max).collect();
    Ok(result)
}

/// What is compared, and how rows are told apart.
struct Comparison<'a> {
    request: &'a VerifyRequest<'a>,
    columns: Vec<String>,
    types: Vec<ArrowType>,
    /// Positions of the key among the columns; all of them where there is no key.
    key: Vec<usize>,
}

/// Rows of a batch with their hashes.
struct Hashed<'a> {
    arrays: &'a [ArrayRef],
    keys: Vec<u64>,
    rows: Vec<u64>,
}

impl<'a> Comparison<'a> {
    fn new(request: &'a VerifyRequest<'a>, table: &SchemaRef) -> Self {
        let ingest = request.ingest;
        let volatile: Vec<&String> =
            ingest.shape.derive.iter().filter(|derived| derived.is_volatile()).map(|derived| &derived.name).collect();
        let history = [&ingest.history.valid_from, &ingest.history.valid_to, &ingest.history.is_current];
        let is_history = |name: &String| ingest.mode == WriteMode::Snapshot && history.contains(&name);
        let fields = table.fields().iter().filter(|field| !volatile.contains(&field.name()) && !is_history(field.name()));
        let (columns, types): (Vec<String>, Vec<ArrowType>) =
            fields.map(|field| (field.name().clone(), convert::arrow_type(convert::logical_type(field.data_type())))).unzip();
        let mut key: Vec<usize> =
            ingest.primary_key.iter().filter_map(|name| columns.iter().position(|column| column == name)).collect();
        if key.is_empty() {
            key = (0..columns.len()).collect();
        }
        Self { request, columns, types, key }
    }

    /// The compared columns of a batch in the types of the table. Columns that it does not have are NULL.
    fn aligned(&self, records: &RecordBatch) -> Vec<ArrayRef> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (name, data_type) in self.columns.iter().zip(&self.types) {
            arrays.push(match records.column_by_name(name) {
                Some(array) if array.data_type() == data_type => Arc::clone(array),
                Some(array) => {
                    let converted = convert::convert(array, convert::logical_type(data_type), None, name);
                    // A value that does not fit the table's type cannot be in the table: it shows as a difference.
                    converted.map_or_else(|_| arrow::array::new_null_array(data_type, array.len()), |converted| converted.array)
                }
                None => arrow::array::new_null_array(data_type, records.num_rows()),
            });
        }
        arrays
    }

    fn hashed<'b>(&self, arrays: &'b [ArrayRef]) -> Hashed<'b> {
        let row_count = arrays.first().map_or(0, Array::len);
        let (mut keys, mut rows) = (vec![SEED; row_count], vec![SEED; row_count]);
        for (at, array) in arrays.iter().enumerate() {
            hash_into(array, &mut rows);
            if self.key.contains(&at) {
                hash_into(array, &mut keys);
            }
        }
        Hashed { arrays, keys, rows }
    }

    async fn each_source(
        &self,
        [source, destination]: [&dyn Connection; 2],
        bound: Option<CursorBound>,
        table: &SchemaRef,
        result: &mut Verification,
        take: &mut (dyn FnMut(&Hashed<'_>) + Send),
    ) -> Result<(), ConnectError> {
        let ingest = self.request.ingest;
        let none = || ConnectError::new(ConnectErrorKind::Config, format!("connection `{}` cannot be read", ingest.from));
        let source = source.source().ok_or_else(none)?;
        let mut shape = ingest.shape.clone();
        shape.children.clear();
        let run = RunContext {
            id: String::new(),
            started_at: self.request.as_of.clone(),
            as_of: self.request.as_of.clone(),
            as_of_utc: self.request.as_of.clone(),
        };
        let programs = self.request.connections.programs();
        let mut shaper: Option<Shaper> = None;
        let request = ReadRequest {
            stream: ingest.stream.clone(),
            options: ingest.options.clone(),
            columns: ingest.columns.clone(),
            cursor: bound,
            known_files: None,
            wanted: crate::load::wanted(ingest),
        };
        let mut items = source.read(request);
        while let Some(item) = items.next().await {
            let batch = match item? {
                SourceItem::Batch(batch) => batch,
                SourceItem::Rejected(rejects) => {
                    result.rejected_count += rejects.len() as u64;
                    continue;
                }
                SourceItem::File(_) | SourceItem::Warning(_) | SourceItem::Cursor(_) => continue,
            };
            if shaper.is_none() {
                let setting = Setting {
                    shape: &shape,
                    primary_key: &ingest.primary_key,
                    needs_key: matches!(ingest.mode, WriteMode::Merge | WriteMode::Snapshot),
                    held: Some(Arc::clone(table)),
                    can_widen: false,
                    alike: destination.sink().map_or(&[], subak_connect::Sink::alike),
                    // A row that would have failed the load is not in the table, and no reason to stop here.
                    on_error: OnReject::Quarantine,
                    bounds: &|data_type| destination.sink().and_then(|sink| sink.bounds(data_type)),
                    deletes_on_exit: false,
                    run_values: &run.values(),
                    programs: programs.as_ref(),
                };
                shaper = Some(Shaper::new(&setting, &batch.records.schema())?);
            }
            let Some(shaper) = &mut shaper else { continue };
            let shaped = shaper.run(batch)?;
            result.filtered_count += shaped.filtered;
            result.rejected_count += shaped.rejects.len() as u64;
            let arrays = self.aligned(&shaped.batch.records);
            take(&self.hashed(&arrays));
        }
        Ok(())
    }

    async fn each_table(
        &self,
        destination: &dyn Connection,
        table: &TableName,
        take: &mut (dyn FnMut(&Hashed<'_>) + Send),
    ) -> Result<(), ConnectError> {
        let ingest = self.request.ingest;
        let none = || ConnectError::new(ConnectErrorKind::Config, format!("connection `{}` cannot be read", ingest.to));
        let source = destination.source().ok_or_else(none)?;
        let stream = source.stream_of(table);
        let mut items = source.read(ReadRequest { stream, ..ReadRequest::default() });
        while let Some(item) = items.next().await {
            if let SourceItem::Batch(batch) = item? {
                let records = self.current(&batch.records)?;
                let arrays = self.aligned(&records);
                take(&self.hashed(&arrays));
            }
        }
        Ok(())
    }

    /// The rows that count: of a history only the current ones.
    fn current(&self, records: &RecordBatch) -> Result<RecordBatch, ConnectError> {
        let ingest = self.request.ingest;
        let current = records.column_by_name(&ingest.history.is_current).filter(|_| ingest.mode == WriteMode::Snapshot);
        let Some(current) = current else { return Ok(records.clone()) };
        let internal = |error: arrow::error::ArrowError| {
            ConnectError::new(ConnectErrorKind::Internal, "current versions cannot be told").because(error)
        };
        let keep = arrow::compute::cast(current, &ArrowType::Boolean).map_err(internal)?;
        let keep: &BooleanArray = keep.as_boolean();
        filter_record_batch(records, keep).map_err(internal)
    }

    /// The rows of chosen buckets that are not on both sides.
    fn differences(&self, found: &[Rows; 2]) -> Vec<RowDifference> {
        let mut differences = Vec::new();
        let keys: BTreeSet<&Vec<Option<String>>> = found[0].keys().chain(found[1].keys()).map(|(key, _)| key).collect();
        let key_columns: Vec<&String> = self.key.iter().map(|at| &self.columns[*at]).collect();
        for key in keys {
            let side = |at: usize| -> Vec<(&Vec<Option<String>>, u64)> {
                let from = (key.clone(), Vec::new());
                found[at]
                    .range(from..)
                    .take_while(|((known, _), _)| known == key)
                    .map(|((_, row), count)| (row, *count))
                    .collect()
            };
            let (source, table) = (side(0), side(1));
            if source == table {
                continue;
            }
            let key_text = pairs(&key_columns, key);
            let all: Vec<&String> = self.columns.iter().collect();
            match (source.as_slice(), table.as_slice()) {
                ([(row, _)], []) => differences.push(RowDifference { key: key_text, kind: "missing", detail: pairs(&all, row) }),
                ([], [(row, _)]) => differences.push(RowDifference { key: key_text, kind: "extra", detail: pairs(&all, row) }),
                ([(a, 1)], [(b, 1)]) => {
                    let changed = self.columns.iter().zip(a.iter().zip(b.iter())).filter(|(_, (a, b))| a != b);
                    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
                    let parts: Vec<String> =
                        changed.map(|(name, (a, b))| format!("{name}: source {}, table {}", shown(a), shown(b))).collect();
                    differences.push(RowDifference { key: key_text, kind: "changed", detail: parts.join("; ") });
                }
                (source, table) => {
                    let count = |rows: &[(&Vec<Option<String>>, u64)]| rows.iter().map(|(_, count)| count).sum::<u64>();
                    let detail = format!("{} times in the source, {} times in the table", count(source), count(table));
                    let kind = if count(source) > count(table) { "missing" } else { "extra" };
                    differences.push(RowDifference { key: key_text, kind, detail });
                }
            }
        }
        differences
    }
}

fn pairs(names: &[&String], values: &[Option<String>]) -> String {
    let part = |(name, value): (&&String, &Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("NULL"));
    names.iter().zip(values).map(part).collect::<Vec<_>>().join(", ")
}

/// Rows by key and content, with how often each is there.
type Rows = BTreeMap<(Vec<Option<String>>, Vec<Option<String>>), u64>;

fn bucket_of(key: u64) -> usize {
    (key >> 50) as usize % BUCKET_COUNT
}

/// Takes rows of the chosen buckets.
fn collect(rows: &Hashed<'_>, key: &[usize], chosen: &BTreeSet<usize>, found: &mut Rows) {
    let text = |array: &ArrayRef, row: usize| array.is_valid(row).then(|| convert::text_at(array, row));
    for row in (0..rows.keys.len()).filter(|row| chosen.contains(&bucket_of(rows.keys[*row]))) {
        let all: Vec<Option<String>> = rows.arrays.iter().map(|array| text(array, row)).collect();
        let own: Vec<Option<String>> = key.iter().map(|at| all[*at].clone()).collect();
        *found.entry((own, all)).or_insert(0) += 1;
    }
}

/// One side of a comparison.
struct Side {
    count: u64,
    /// Number and sum of the hashes of rows by bucket.
    buckets: Vec<(u64, u128)>,
    measures: Vec<Measure>,
}

/// Sum, bounds and NULLs of one column.
#[derive(Debug, Clone, Default)]
struct Measure {
    null_count: u64,
    sum: Option<i128>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
}

/// A value that can be compared.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Number(i128),
    Double(f64),
    Text(String),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Double(number) => write!(formatter, "{number}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

impl Side {
    fn new(comparison: &Comparison<'_>) -> Self {
        Self { count: 0, buckets: vec![(0, 0); BUCKET_COUNT], measures: vec![Measure::default(); comparison.columns.len()] }
    }

    fn add(&mut self, rows: &Hashed<'_>) {
        self.count += rows.rows.len() as u64;
        for (key, row) in rows.keys.iter().zip(&rows.rows) {
            let bucket = &mut self.buckets[bucket_of(*key)];
            bucket.0 += 1;
            bucket.1 = bucket.1.wrapping_add(u128::from(*row));
        }
        for (measure, array) in self.measures.iter_mut().zip(rows.arrays) {
            measure.add(array);
        }
    }
}

impl Measure {
    fn add(&mut self, array: &ArrayRef) {
        self.null_count += array.null_count() as u64;
        macro_rules! whole {
            ($kind:ty) => {{
                let values = array.as_primitive::<$kind>();
                let sum: i128 = values.iter().flatten().map(|value| i128::from(value)).fold(0, i128::wrapping_add);
                self.sum = Some(self.sum.unwrap_or(0).wrapping_add(sum));
                self.bounds(
                    arrow::compute::min(values).map(|value| Bound::Number(i128::from(value))),
                    arrow::compute::max(values).map(|value| Bound::Number(i128::from(value))),
                );
            }};
        }
        match array.data_type() {
            ArrowType::Int16 => whole!(Int16Type),
            ArrowType::Int32 => whole!(Int32Type),
            ArrowType::Int64 => whole!(Int64Type),
            ArrowType::UInt64 => whole!(UInt64Type),
            ArrowType::Decimal128(..) => whole!(Decimal128Type),
            ArrowType::Date32 => whole!(Date32Type),
            ArrowType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => whole!(TimestampMicrosecondType),
            ArrowType::Float64 => {
                let values = array.as_primitive::<Float64Type>();
                self.bounds(arrow::compute::min(values).map(Bound::Double), arrow::compute::max(values).map(Bound::Double));
            }
            ArrowType::Utf8 => {
                let values = array.as_string::<i32>();
                let text = |text: &str| Bound::Text(text.to_owned());
                self.bounds(arrow::compute::min_string(values).map(text), arrow::compute::max_string(values).map(text));
            }
            _ => {}
        }
    }

    fn bounds(&mut self, minimum: Option<Bound>, maximum: Option<Bound>) {
        if let Some(minimum) = minimum.filter(|minimum| self.minimum.as_ref().is_none_or(|known| minimum < known)) {
            self.minimum = Some(minimum);
        }
        if let Some(maximum) = maximum.filter(|maximum| self.maximum.as_ref().is_none_or(|known| maximum > known)) {
            self.maximum = Some(maximum);
        }
    }
}

fn differing_measures(comparison: &Comparison<'_>, sides: &[Side; 2]) -> Vec<ColumnDifference> {
    let mut found = Vec::new();
    for ((name, data_type), (a, b)) in
        comparison.columns.iter().zip(&comparison.types).zip(sides[0].measures.iter().zip(&sides[1].measures))
    {
        let exact = |value: Option<i128>| value.map_or_else(|| "NULL".to_owned(), |value| in_type(value, data_type));
        let bound = |bound: &Option<Bound>| match bound {
            Some(Bound::Number(number)) => in_type(*number, data_type),
            Some(other) => other.to_string(),
            None => "NULL".to_owned(),
        };
        let is_date = matches!(data_type, ArrowType::Date32 | ArrowType::Timestamp(..));
        let measures = [
            ("nulls", a.null_count.to_string(), b.null_count.to_string()),
            ("sum", exact(a.sum.filter(|_| !is_date)), exact(b.sum.filter(|_| !is_date))),
            ("minimum", bound(&a.minimum), bound(&b.minimum)),
            ("maximum", bound(&a.maximum), bound(&b.maximum)),
        ];
        found.extend(
            measures.into_iter().filter(|(_, source, table)| source != table).map(|(measure, source, table)| ColumnDifference {
                column: name.clone(),
                measure,
                source,
                table,
            }),
        );
    }
    found
}

/// A stored number as its type shows it.
fn in_type(value: i128, data_type: &ArrowType) -> String {
    let small = || i64::try_from(value).ok();
    match data_type {
        ArrowType::Decimal128(_, scale) if *scale > 0 => {
            let places = usize::from(scale.unsigned_abs());
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
        }
        ArrowType::Date32 => small().and_then(|days| i32::try_from(days).ok()).and_then(convert::format_date).unwrap_or_default(),
        ArrowType::Timestamp(..) => small().and_then(convert::format_datetime).unwrap_or_default(),
        _ => value.to_string(),
    }
}

/// Start of every hash.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes one word into a hash: multiply to 128 bits and fold, as wyhash does.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(0xA076_1D64_78BD_642F_u64 ^ word.rotate_left(32));
    (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23)
}

fn mix_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    mix(hash, bytes.len() as u64 | 1 << 63)
}

/// Mixes a column into the hash of each row. NULL is a value of its own; a zero has no sign; every NaN is one.
fn hash_into(array: &ArrayRef, hashes: &mut [u64]) {
    const NULL: u64 = 0xD6E8_FEB8_6659_FD93;
    macro_rules! words {
        ($kind:ty, $word:expr) => {{
            let values = array.as_primitive::<$kind>();
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = if values.is_null(row) { mix(*hash, NULL) } else { $word(*hash, values.value(row)) };
            }
        }};
    }
    match array.data_type() {
        ArrowType::Int16 => words!(Int16Type, |hash, value: i16| mix(hash, value as u64)),
        ArrowType::Int32 => words!(Int32Type, |hash, value: i32| mix(hash, value as u64)),
        ArrowType::Int64 => words!(Int64Type, |hash, value: i64| mix(hash, value as u64)),
        ArrowType::UInt64 => words!(UInt64Type, mix),
        ArrowType::Date32 => words!(Date32Type, |hash, value: i32| mix(hash, value as u64)),
        ArrowType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            words!(TimestampMicrosecondType, |hash, value: i64| mix(hash, value as u64));
        }
        ArrowType::Decimal128(..) => {
            words!(Decimal128Type, |hash, value: i128| mix(mix(hash, value as u64), (value >> 64) as u64));
        }
        ArrowType::Float64 => words!(Float64Type, |hash, value: f64| {
            let canonical = if value == 0.0 {
                0.0
            } else if value.is_nan() {
                f64::NAN
            } else {
                value
            };
            mix(hash, canonical.to_bits())
        }),
        ArrowType::Boolean => {
            let values = array.as_boolean();
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = mix(*hash, if values.is_null(row) { NULL } else { u64::from(values.value(row)) });
            }
        }
        ArrowType::Utf8 => {
            let values = array.as_string::<i32>();
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = if values.is_null(row) { mix(*hash, NULL) } else { mix_bytes(*hash, values.value(row).as_bytes()) };
            }
        }
        _ => {
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash =
                    if array.is_null(row) { mix(*hash, NULL) } else { mix_bytes(*hash, convert::text_at(array, row).as_bytes()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    #[test]
    fn hashes_tell_values_apart_and_nothing_else() {
        let hash = |array: ArrayRef| {
            let mut hashes = vec![SEED; array.len()];
            hash_into(&array, &mut hashes);
            hashes
        };
        let texts = hash(Arc::new(StringArray::from(vec![
            Some(""),
            None,
            Some("a"),
            Some("a "),
            Some("a\0"),
            Some("aaaaaaaa"),
            Some("aaaaaaaaa"),
        ])));
        assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), texts.len());
        let numbers = hash(Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN])));
        assert!(numbers[0] == numbers[1] && numbers[2] == numbers[3] && numbers[0] != numbers[2]);
    }

    #[test]
    fn sums_show_their_scale() {
        assert_eq!(in_type(-105, &ArrowType::Decimal128(18, 2)), "-1.05");
        assert_eq!(in_type(5, &ArrowType::Decimal128(18, 2)), "0.05");
        assert_eq!(in_type(0, &ArrowType::Date32), "1970-01-01");
    }
}
