//! Types of PostgreSQL and Arrow, both ways.

use std::collections::HashMap;

use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use subak_connect::batch::MAY_MISFIT;
use subak_domain::DataType;
use subak_domain::schema::DECIMAL_PRECISION_MAX;
use tokio_postgres::Column;
use tokio_postgres::types::{Kind, Type};

use super::DIALECT;

/// How a value of `COPY … (FORMAT binary)` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    /// Unsigned, four bytes.
    Oid,
    Real,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    /// A text behind a byte with the version.
    Jsonb,
    Uuid,
    Bytes,
    Date,
    Time,
    DateTime,
    Timestamp,
}

impl Form {
    fn arrow_type(self) -> ArrowType {
        match self {
            Self::Boolean => ArrowType::Boolean,
            Self::SmallInt => ArrowType::Int16,
            Self::Integer => ArrowType::Int32,
            Self::BigInt | Self::Oid => ArrowType::Int64,
            Self::Real => ArrowType::Float32,
            Self::Double => ArrowType::Float64,
            Self::Decimal { precision, scale } => ArrowType::Decimal128(precision, scale.cast_signed()),
            Self::Text | Self::Jsonb | Self::Uuid => ArrowType::Utf8,
            Self::Bytes => ArrowType::Binary,
            Self::Date => ArrowType::Date32,
            Self::Time => ArrowType::Time64(TimeUnit::Microsecond),
            Self::DateTime => ArrowType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// One column of a query, and how it is read.
#[derive(Debug, Clone)]
pub(super) struct ReadColumn {
    pub(super) name: String,
    pub(super) form: Form,
    /// Whether another type is selected than the column's own.
    pub(super) is_cast: bool,
    /// What is selected: the column, or the column as another type.
    pub(super) expression: String,
}

impl ReadColumn {
    /// How a column is read, by its own type and the one that is declared. What Arrow does not hold exactly travels as the text that
    /// PostgreSQL writes; arrays as JSON.
    pub(super) fn new(column: &Column, declared: Option<DataType>) -> Self {
        let name = column.name().to_owned();
        let quoted = DIALECT.identifier(&name);
        let (form, cast) = form_of(column.type_(), column.type_modifier(), declared);
        let is_cast = cast.is_some();
        let expression = match cast {
            None => quoted.clone(),
            Some(Cast::To(word)) => format!("cast({quoted} as {word})"),
            Some(Cast::Money) => format!("cast(cast({quoted} as numeric) as text)"),
            Some(Cast::Json) => format!("cast(array_to_json({quoted}) as text)"),
        };
        Self { name, form, is_cast, expression: format!("{expression} as {quoted}") }
    }

    fn field(&self) -> FieldRef {
        let field = Field::new(&self.name, self.form.arrow_type(), true);
        if matches!(self.form, Form::Decimal { .. } | Form::Date | Form::Time | Form::DateTime | Form::Timestamp) {
            return field.with_metadata(HashMap::from([(MAY_MISFIT.to_owned(), "true".to_owned())])).into();
        }
        field.into()
    }
}

/// The schema of rows that are read so.
pub(super) fn schema_of(columns: &[ReadColumn]) -> SchemaRef {
    Schema::new(columns.iter().map(ReadColumn::field).collect::<Vec<_>>()).into()
}

enum Cast {
    To(&'static str),
    Money,
    Json,
}

fn form_of(kind: &Type, modifier: i32, declared: Option<DataType>) -> (Form, Option<Cast>) {
    let is_text =
        matches!(*kind, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON | Type::XML);
    let is_text = is_text || matches!(kind.kind(), Kind::Enum(_)) || kind.name() == "citext";
    if matches!(declared, Some(DataType::Text | DataType::Json)) && !is_text && *kind != Type::JSONB {
        let cast = if matches!(kind.kind(), Kind::Array(_)) { Cast::Json } else { Cast::To("text") };
        return (Form::Text, Some(cast));
    }
    if let Kind::Domain(base) = kind.kind() {
        return form_of(base, modifier, declared);
    }
    if is_text {
        return (Form::Text, None);
    }
    if matches!(kind.kind(), Kind::Array(_)) {
        return (Form::Text, Some(Cast::Json));
    }
    let form = match *kind {
        Type::BOOL => Form::Boolean,
        Type::INT2 => Form::SmallInt,
        Type::INT4 => Form::Integer,
        Type::INT8 => Form::BigInt,
        Type::OID => Form::Oid,
        Type::FLOAT4 => Form::Real,
        Type::FLOAT8 => Form::Double,
        Type::JSONB => Form::Jsonb,
        Type::UUID => Form::Uuid,
        Type::BYTEA => Form::Bytes,
        Type::DATE => Form::Date,
        Type::TIME => Form::Time,
        Type::TIMESTAMP => Form::DateTime,
        Type::TIMESTAMPTZ => Form::Timestamp,
        // How many digits it has behind the point is the server's setting.
        Type::MONEY => return (Form::Text, Some(Cast::Money)),
        Type::NUMERIC => return numeric(modifier, declared),
        _ => return (Form::Text, Some(Cast::To("text"))),
    };
    (form, None)
}

/// `numeric` with precision and scale is a decimal; without, or beyond what a decimal holds, its text is exact.
fn numeric(modifier: i32, declared: Option<DataType>) -> (Form, Option<Cast>) {
    match declared {
        Some(DataType::Decimal { precision, scale }) => return (Form::Decimal { precision, scale }, None),
        Some(DataType::Double) => return (Form::Double, Some(Cast::To("double precision"))),
        _ => {}
    }
    let known = modifier.checked_sub(4).filter(|known| *known >= 0);
    let own = known.and_then(|known| {
        let precision = u8::try_from((known >> 16) & 0xffff).ok()?;
        // Eleven bits with a sign: a scale below zero rounds before the point.
        let scale = u8::try_from(((known & 0x7ff) ^ 0x400) - 0x400).ok()?;
        (precision <= DECIMAL_PRECISION_MAX && scale <= precision).then_some(Form::Decimal { precision, scale })
    });
    own.map_or((Form::Text, Some(Cast::To("text"))), |form| (form, None))
}

/// PostgreSQL's word for a column. `None` when it has no type that holds the values exactly.
pub(super) fn sql_type(data_type: &ArrowType) -> Option<String> {
    Some(match data_type {
        ArrowType::Boolean => "boolean".into(),
        ArrowType::Int8 | ArrowType::Int16 | ArrowType::UInt8 => "smallint".into(),
        ArrowType::Int32 | ArrowType::UInt16 => "integer".into(),
        ArrowType::Int64 | ArrowType::UInt32 => "bigint".into(),
        ArrowType::UInt64 => "numeric(20,0)".into(),
        ArrowType::Float32 => "real".into(),
        ArrowType::Float64 => "double precision".into(),
        ArrowType::Decimal128(precision, scale) if *scale >= 0 => format!("numeric({precision},{scale})"),
        ArrowType::Utf8 => "text".into(),
        ArrowType::Binary => "bytea".into(),
        ArrowType::Date32 => "date".into(),
        ArrowType::Time64(_) => "time".into(),
        ArrowType::Timestamp(_, None) => "timestamp".into(),
        ArrowType::Timestamp(_, Some(_)) => "timestamptz".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_of_numeric_are_taken_apart() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        for (modifier, expect) in [
            (modifier(18, 2), Some((18, 2))),
            (modifier(38, 38), Some((38, 38))),
            (modifier(39, 0), None),
            (modifier(5, -2), None),
            (modifier(3, 5), None),
            (-1, None),
        ] {
            let found = match numeric(modifier, None).0 {
                Form::Decimal { precision, scale } => Some((precision, scale)),
                _ => None,
            };
            assert_eq!(found, expect, "{modifier}");
        }
    }
}
