//! Bounds of a cursor as a filter that the server evaluates.
//!
//! The filter lets through every document whose value may lie within the bounds, whatever its type is, and leaves out those of the cursor's own
//! types that surely do not; whoever reads tests the bounds exactly. Comparisons of MongoDB see one type at a time, so every other type is named.
//! Each alternative is one that an index on the field can answer.

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use subak_connect::{CursorBound, convert};
use subak_domain::{Cursor, DataType};

/// Texts that begin with a date as ISO 8601 writes it: only those stand in the order of time.
const ISO_DATE: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}";

const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// Types by the names that `$type` knows, but for null and what is missing, which are asked for together.
const TYPES: [&str; 19] = [
    "double",
    "string",
    "object",
    "array",
    "binData",
    "objectId",
    "bool",
    "date",
    "regex",
    "dbPointer",
    "javascript",
    "symbol",
    "javascriptWithScope",
    "int",
    "timestamp",
    "long",
    "decimal",
    "minKey",
    "undefined",
];

/// How a cursor's values stand in documents.
struct Forms {
    /// The types whose values are compared.
    types: &'static [&'static str],
    low: Vec<Bson>,
    high: Vec<Bson>,
    /// Whether texts are compared only when they begin with a date.
    only_iso: bool,
}

/// The filter for these bounds; `None` where every document has to be looked at. `with_texts` says whether the server compares texts byte by byte.
pub(super) fn filter(bound: &CursorBound, with_texts: bool) -> Option<Document> {
    let any = bound.from.as_ref().or(bound.to.as_ref())?;
    let forms = forms(any.data_type, bound, with_texts)?;
    let column = bound.column.as_str();
    let count = forms.low.len().max(forms.high.len());
    let mut alternatives: Vec<Document> = Vec::new();
    for at in 0..count {
        let mut range = Document::new();
        if let Some(low) = forms.low.get(at) {
            range.insert("$gte", low.clone());
        }
        if let Some(high) = forms.high.get(at) {
            range.insert("$lte", high.clone());
        }
        alternatives.push(doc! { column: range });
    }
    if forms.only_iso {
        alternatives.push(doc! { "$and": [{ column: { "$type": "string" } }, { column: { "$not": { "$regex": ISO_DATE } } }] });
    }
    if forms.types.contains(&"double") {
        // What is no number compares with nothing.
        alternatives.push(doc! { column: f64::NAN });
    }
    let others: Vec<&str> = TYPES.into_iter().chain(["maxKey"]).filter(|name| !forms.types.contains(name)).collect();
    alternatives.push(doc! { column: Bson::Null });
    alternatives.push(doc! { column: { "$type": others } });
    Some(doc! { "$or": alternatives })
}

fn forms(data_type: DataType, bound: &CursorBound, with_texts: bool) -> Option<Forms> {
    // `None` when a bound has no form: then nothing is left out.
    let both = |form: &dyn Fn(&Cursor, bool) -> Option<Bson>| -> Option<(Vec<Bson>, Vec<Bson>)> {
        let low = bound.from.as_ref().map(|value| form(value, false));
        let high = bound.to.as_ref().map(|value| form(value, true));
        Some((
            low.map_or(Some(Vec::new()), |low| low.map(|low| vec![low]))?,
            high.map_or(Some(Vec::new()), |high| high.map(|high| vec![high]))?,
        ))
    };
    let join = |mut all: (Vec<Bson>, Vec<Bson>), more: (Vec<Bson>, Vec<Bson>)| {
        all.0.extend(more.0);
        all.1.extend(more.1);
        all
    };
    let numbers: &'static [&'static str] = &["int", "long", "double", "decimal"];
    match data_type {
        DataType::SmallInt | DataType::Integer | DataType::BigInt => {
            let (low, high) = both(&|value, _| value.value.parse().ok().map(Bson::Int64))?;
            Some(Forms { types: numbers, low, high, only_iso: false })
        }
        DataType::Double | DataType::Real | DataType::UnsignedBigInt | DataType::Decimal { .. } => {
            // The server compares exactly what is rounded here: one step further out nothing is missed.
            let step = |number: f64, is_high: bool| if is_high { number.next_up() } else { number.next_down() };
            let form = |value: &Cursor, is_high| {
                let number = value.value.parse().ok().filter(|number: &f64| number.is_finite())?;
                Some(Bson::Double(step(number, is_high)))
            };
            let (low, high) = both(&form)?;
            Some(Forms { types: numbers, low, high, only_iso: false })
        }
        DataType::Timestamp | DataType::DateTime | DataType::Date => {
            let dates = both(&|value, is_high| {
                moment(value, is_high).map(|micros| Bson::DateTime(DateTime::from_millis(micros.div_euclid(1000))))
            })?;
            if !with_texts {
                return Some(Forms { types: &["date"], low: dates.0, high: dates.1, only_iso: false });
            }
            let texts = both(&|value, is_high| {
                let text = convert::format_datetime(moment(value, is_high)?)?;
                text.get(..10).map(|day| Bson::String(day.to_owned()))
            })?;
            let (low, high) = join(dates, texts);
            Some(Forms { types: &["date", "string"], low, high, only_iso: true })
        }
        DataType::Text | DataType::Uuid => {
            let ids = both(&|value, _| {
                ObjectId::parse_str(&value.value).ok().filter(|id| id.to_hex() == value.value).map(Bson::ObjectId)
            });
            let texts = both(&|value, _| Some(Bson::String(value.value.clone())))?;
            match (ids, with_texts) {
                (Some(ids), true) => {
                    let (low, high) = join(ids, texts);
                    Some(Forms { types: &["objectId", "string"], low, high, only_iso: false })
                }
                (Some((low, high)), false) => Some(Forms { types: &["objectId"], low, high, only_iso: false }),
                (None, true) => Some(Forms { types: &["string"], low: texts.0, high: texts.1, only_iso: false }),
                (None, false) => None,
            }
        }
        _ => None,
    }
}

/// A bound in microseconds, a day further out: texts may be in any zone.
fn moment(value: &Cursor, is_high: bool) -> Option<i64> {
    let micros = match value.data_type {
        DataType::Timestamp => convert::parse_timestamp(&value.value),
        _ => convert::parse_datetime(&value.value).or_else(|| convert::parse_datetime(&format!("{}T00:00:00", value.value))),
    }?;
    let margin = if is_high { 2 * DAY_MICROSECONDS } else { -DAY_MICROSECONDS };
    micros.checked_add(margin)
}
