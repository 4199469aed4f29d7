//! Types of ClickHouse and Arrow, both ways.

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use subak_domain::DataType;
use subak_domain::schema::DECIMAL_PRECISION_MAX;

use super::DIALECT;

/// How the values of a column stand in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    /// So many bytes each.
    Decimal {
        precision: u8,
        scale: u8,
        width: usize,
    },
    Text,
    /// Days, without a sign.
    Date,
    Date32,
    /// Seconds, without a sign.
    DateTime {
        is_wall: bool,
    },
    /// Ticks of ten to the power of minus `scale` seconds.
    DateTime64 {
        scale: u32,
        is_wall: bool,
    },
}

impl Form {
    pub(super) fn arrow_type(self) -> ArrowType {
        let time = |is_wall: bool| ArrowType::Timestamp(TimeUnit::Microsecond, (!is_wall).then(|| "UTC".into()));
        match self {
            Self::Bool => ArrowType::Boolean,
            Self::Int8 => ArrowType::Int8,
            Self::Int16 => ArrowType::Int16,
            Self::Int32 => ArrowType::Int32,
            Self::Int64 => ArrowType::Int64,
            Self::UInt8 => ArrowType::UInt8,
            Self::UInt16 => ArrowType::UInt16,
            Self::UInt32 => ArrowType::UInt32,
            Self::UInt64 => ArrowType::UInt64,
            Self::Float32 => ArrowType::Float32,
            Self::Float64 => ArrowType::Float64,
            Self::Decimal { precision, scale, .. } => ArrowType::Decimal128(precision, scale.cast_signed()),
            Self::Text => ArrowType::Utf8,
            Self::Date | Self::Date32 => ArrowType::Date32,
            Self::DateTime { is_wall } | Self::DateTime64 { is_wall, .. } => time(is_wall),
        }
    }

    /// The form of a type by its name there; `None` for those that travel as texts.
    pub(super) fn of(word: &str) -> Option<Self> {
        let (name, arguments) = word.split_once('(').map_or((word, ""), |(name, rest)| (name, rest.trim_end_matches(')')));
        let parts: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u32>().ok());
        // A wall clock is one that shows UTC, whatever the server's zone is.
        let is_wall = |at: usize| parts.get(at).is_some_and(|zone| *zone == "'UTC'" || *zone == "\\'UTC\\'");
        Some(match name {
            "Bool" => Self::Bool,
            "Int8" => Self::Int8,
            "Int16" => Self::Int16,
            "Int32" => Self::Int32,
            "Int64" => Self::Int64,
            "UInt8" => Self::UInt8,
            "UInt16" => Self::UInt16,
            "UInt32" => Self::UInt32,
            "UInt64" => Self::UInt64,
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            "String" => Self::Text,
            "Date" => Self::Date,
            "Date32" => Self::Date32,
            "DateTime" => Self::DateTime { is_wall: is_wall(0) },
            "DateTime64" if number(0)? <= 6 => Self::DateTime64 { scale: number(0)?, is_wall: is_wall(1) },
            "Decimal" => {
                let (precision, scale) = (u8::try_from(number(0)?).ok()?, u8::try_from(number(1)?).ok()?);
                if precision > DECIMAL_PRECISION_MAX {
                    return None;
                }
                Self::Decimal { precision, scale, width: decimal_width(precision) }
            }
            _ => return None,
        })
    }
}

pub(super) fn decimal_width(precision: u8) -> usize {
    match precision {
        0..=9 => 4,
        10..=18 => 8,
        _ => 16,
    }
}

/// One column of a query, and how it is read.
#[derive(Debug, Clone)]
pub(super) struct ReadColumn {
    pub(super) name: String,
    pub(super) form: Form,
    /// Whether another type is selected than the column's own.
    pub(super) is_cast: bool,
    /// What is selected.
    pub(super) expression: String,
}

impl ReadColumn {
    /// How a column is read, by its own type and the one that is declared. What Arrow does not hold exactly travels as the text that
    /// ClickHouse writes; arrays, maps and tuples as JSON.
    pub(super) fn new(name: &str, word: &str, declared: Option<DataType>, is_modern: bool) -> Self {
        let quoted = DIALECT.identifier(name);
        let (inner, is_coded) = strip(word, "LowCardinality(");
        let (inner, is_nullable) = strip(inner, "Nullable(");
        let own = Form::of(inner).filter(|_| !is_coded);
        let wants_text = matches!(declared, Some(DataType::Text | DataType::Json)) && own != Some(Form::Text);
        let is_nested = ["Array(", "Map(", "Tuple(", "Nested("].iter().any(|prefix| inner.starts_with(prefix));
        let text = if is_nullable { "Nullable(String)" } else { "String" };
        let (form, expression) = match own {
            Some(form) if !wants_text => (form, None),
            _ if is_nested && is_modern => (Form::Text, Some(format!("toJSONString({quoted})"))),
            _ if is_nested => (Form::Text, Some(format!("toString({quoted})"))),
            _ => (Form::Text, Some(format!("cast({quoted} as {text})"))),
        };
        let is_cast = expression.is_some() && own != Some(Form::Text);
        let expression = expression.map_or_else(|| quoted.clone(), |expression| format!("{expression} as {quoted}"));
        Self { name: name.to_owned(), form, is_cast, expression }
    }
}

/// What stands inside `prefix…)`, and whether it was there.
fn strip<'w>(word: &'w str, prefix: &str) -> (&'w str, bool) {
    match word.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => (inner, true),
        None => (word, false),
    }
}

/// The schema of rows that are read so.
pub(super) fn schema_of(columns: &[ReadColumn]) -> SchemaRef {
    let field = |column: &ReadColumn| Field::new(&column.name, column.form.arrow_type(), true);
    Schema::new(columns.iter().map(field).collect::<Vec<_>>()).into()
}

/// How values of an Arrow type are written to a server; `None` where it has no type that holds them exactly.
pub(super) fn form_of(data_type: &ArrowType, is_modern: bool) -> Option<Form> {
    Some(match data_type {
        ArrowType::Boolean if is_modern => Form::Bool,
        ArrowType::Boolean => Form::UInt8,
        ArrowType::Int8 => Form::Int8,
        ArrowType::Int16 => Form::Int16,
        ArrowType::Int32 => Form::Int32,
        ArrowType::Int64 => Form::Int64,
        ArrowType::UInt8 => Form::UInt8,
        ArrowType::UInt16 => Form::UInt16,
        ArrowType::UInt32 => Form::UInt32,
        ArrowType::UInt64 => Form::UInt64,
        ArrowType::Float32 => Form::Float32,
        ArrowType::Float64 => Form::Float64,
        ArrowType::Decimal128(precision, scale) if *scale >= 0 => {
            Form::Decimal { precision: *precision, scale: scale.unsigned_abs(), width: decimal_width(*precision) }
        }
        ArrowType::Utf8 | ArrowType::Binary => Form::Text,
        ArrowType::Date32 if is_modern => Form::Date32,
        ArrowType::Date32 => Form::Date,
        ArrowType::Timestamp(TimeUnit::Microsecond, zone) if is_modern => Form::DateTime64 { scale: 6, is_wall: zone.is_none() },
        ArrowType::Timestamp(TimeUnit::Microsecond, zone) => Form::DateTime { is_wall: zone.is_none() },
        _ => return None,
    })
}

/// The server's word for a form.
pub(super) fn word(form: Form, is_nullable: bool) -> String {
    // Both show UTC, and the name of the zone tells an instant from a wall clock.
    let zone = |is_wall: bool, before: &str| {
        let zone = if is_wall { "UTC" } else { "Etc/UTC" };
        if before.is_empty() { format!("('{zone}')") } else { format!("({before}, '{zone}')") }
    };
    let word = match form {
        Form::Bool => "Bool".to_owned(),
        Form::Int8 => "Int8".to_owned(),
        Form::Int16 => "Int16".to_owned(),
        Form::Int32 => "Int32".to_owned(),
        Form::Int64 => "Int64".to_owned(),
        Form::UInt8 => "UInt8".to_owned(),
        Form::UInt16 => "UInt16".to_owned(),
        Form::UInt32 => "UInt32".to_owned(),
        Form::UInt64 => "UInt64".to_owned(),
        Form::Float32 => "Float32".to_owned(),
        Form::Float64 => "Float64".to_owned(),
        Form::Decimal { precision, scale, .. } => format!("Decimal({precision}, {scale})"),
        Form::Text => "String".to_owned(),
        Form::Date => "Date".to_owned(),
        Form::Date32 => "Date32".to_owned(),
        Form::DateTime { is_wall } => format!("DateTime{}", zone(is_wall, "")),
        Form::DateTime64 { scale, is_wall } => format!("DateTime64{}", zone(is_wall, &scale.to_string())),
    };
    if is_nullable { format!("Nullable({word})") } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_forms_agree() {
        for form in [
            Form::Bool,
            Form::UInt64,
            Form::Decimal { precision: 18, scale: 4, width: 8 },
            Form::Text,
            Form::DateTime { is_wall: true },
            Form::DateTime { is_wall: false },
            Form::DateTime64 { scale: 6, is_wall: true },
            Form::DateTime64 { scale: 6, is_wall: false },
        ] {
            assert_eq!(Form::of(&word(form, false)), Some(form));
            assert_eq!(ReadColumn::new("c", &word(form, true), None, true).form, form);
        }
        for (word, expect) in [
            ("LowCardinality(Nullable(String))", "cast(\"c\" as Nullable(String)) as \"c\""),
            ("UUID", "cast(\"c\" as String) as \"c\""),
            ("Array(UInt8)", "toJSONString(\"c\") as \"c\""),
            ("Decimal(76, 10)", "cast(\"c\" as String) as \"c\""),
            ("DateTime64(9)", "cast(\"c\" as String) as \"c\""),
        ] {
            let column = ReadColumn::new("c", word, None, true);
            assert_eq!((column.form, column.expression.as_str()), (Form::Text, expect), "{word}");
        }
    }
}
