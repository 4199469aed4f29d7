//! Types of MySQL and Arrow.

use std::collections::HashMap;

use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use mysql_async::Column;
use mysql_async::consts::{ColumnFlags, ColumnType};
use subak_connect::batch::MAY_MISFIT;
use subak_connect::convert;
use subak_domain::DataType;
use subak_domain::schema::DECIMAL_PRECISION_MAX;

/// The number of the character set that stands for bytes.
const BINARY: u16 = 63;

/// How a value of the binary protocol is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    Bytes,
    /// Bits, the first one highest.
    Bits,
    Date,
    DateTime,
    Timestamp,
    /// A date or time as the server writes it, with so many digits of a second.
    TimeText {
        has_time: bool,
        digits: u8,
    },
    /// A span of time as the server writes it, with so many digits of a second.
    SpanText {
        digits: u8,
    },
    /// Well-known binary behind the number of a reference system.
    Geometry,
    /// Numbers of four bytes.
    Vector,
}

impl Form {
    fn arrow_type(self) -> ArrowType {
        match self {
            Self::Int8 => ArrowType::Int8,
            Self::Int16 => ArrowType::Int16,
            Self::Int32 => ArrowType::Int32,
            Self::Int64 => ArrowType::Int64,
            Self::UInt8 => ArrowType::UInt8,
            Self::UInt16 => ArrowType::UInt16,
            Self::UInt32 => ArrowType::UInt32,
            Self::UInt64 | Self::Bits => ArrowType::UInt64,
            Self::Float => ArrowType::Float32,
            Self::Double => ArrowType::Float64,
            Self::Decimal { precision, scale } => ArrowType::Decimal128(precision, scale.cast_signed()),
            Self::Text | Self::TimeText { .. } | Self::SpanText { .. } | Self::Vector => ArrowType::Utf8,
            Self::Bytes | Self::Geometry => ArrowType::Binary,
            Self::Date => ArrowType::Date32,
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
    /// The type of its values, whatever is declared.
    pub(super) own: Form,
}

impl ReadColumn {
    /// How a column is read, by its own type and the one that is declared.
    pub(super) fn new(column: &Column, declared: Option<DataType>) -> Self {
        let own = form_of(column);
        let digits = column.decimals().min(6);
        let form = match (own, declared) {
            // A zero date has a text and no date.
            (Form::Date, Some(DataType::Text)) => Form::TimeText { has_time: false, digits: 0 },
            (Form::DateTime | Form::Timestamp, Some(DataType::Text)) => Form::TimeText { has_time: true, digits },
            // Whoever says that it is an instant says that its clock shows UTC, as the tables that we write do.
            (Form::DateTime, Some(DataType::Timestamp)) => Form::Timestamp,
            (form, _) => form,
        };
        Self { name: column.name_str().into_owned(), form, own }
    }

    fn field(&self) -> FieldRef {
        let field = Field::new(&self.name, self.form.arrow_type(), true);
        if matches!(self.form, Form::Date | Form::DateTime | Form::Timestamp) {
            return field.with_metadata(HashMap::from([(MAY_MISFIT.to_owned(), "true".to_owned())])).into();
        }
        field.into()
    }
}

/// The schema of rows that are read so.
pub(super) fn schema_of(columns: &[ReadColumn]) -> SchemaRef {
    Schema::new(columns.iter().map(ReadColumn::field).collect::<Vec<_>>()).into()
}

/// The schema of a table as rows are loaded into it: what we write as truth values and times of a day is known again by its column.
pub(super) fn written_as(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| {
        let is_one_digit = column.column_length() == 1 && !column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
        let data_type = match column.column_type() {
            ColumnType::MYSQL_TYPE_TINY if is_one_digit => ArrowType::Boolean,
            ColumnType::MYSQL_TYPE_TIME | ColumnType::MYSQL_TYPE_TIME2 => ArrowType::Time64(TimeUnit::Microsecond),
            _ => form_of(column).arrow_type(),
        };
        Field::new(column.name_str(), data_type, true)
    };
    Schema::new(columns.iter().map(field).collect::<Vec<_>>()).into()
}

/// What a column holds, by its description in a result.
fn form_of(column: &Column) -> Form {
    let is_unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
    let pick = |signed: Form, unsigned: Form| if is_unsigned { unsigned } else { signed };
    match column.column_type() {
        ColumnType::MYSQL_TYPE_TINY => pick(Form::Int8, Form::UInt8),
        // The server calls years unsigned; zero is one of them.
        ColumnType::MYSQL_TYPE_YEAR => Form::Int16,
        ColumnType::MYSQL_TYPE_SHORT => pick(Form::Int16, Form::UInt16),
        ColumnType::MYSQL_TYPE_LONG | ColumnType::MYSQL_TYPE_INT24 => pick(Form::Int32, Form::UInt32),
        ColumnType::MYSQL_TYPE_LONGLONG => pick(Form::Int64, Form::UInt64),
        ColumnType::MYSQL_TYPE_FLOAT => Form::Float,
        ColumnType::MYSQL_TYPE_DOUBLE => Form::Double,
        ColumnType::MYSQL_TYPE_DECIMAL | ColumnType::MYSQL_TYPE_NEWDECIMAL => decimal(column, is_unsigned),
        ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => Form::Date,
        ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_DATETIME2 => Form::DateTime,
        ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2 => Form::Timestamp,
        // Up to 838 hours, with a sign: no time of a day.
        ColumnType::MYSQL_TYPE_TIME | ColumnType::MYSQL_TYPE_TIME2 => Form::SpanText { digits: column.decimals().min(6) },
        ColumnType::MYSQL_TYPE_BIT => Form::Bits,
        ColumnType::MYSQL_TYPE_GEOMETRY => Form::Geometry,
        ColumnType::MYSQL_TYPE_VECTOR => Form::Vector,
        ColumnType::MYSQL_TYPE_JSON => Form::Text,
        _ if column.character_set() == BINARY
            && !column.flags().intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG)
            && column.column_type() != ColumnType::MYSQL_TYPE_NULL =>
        {
            Form::Bytes
        }
        _ => Form::Text,
    }
}

/// A decimal by its width in characters, which counts sign and point; as text where it has more digits than a decimal holds.
fn decimal(column: &Column, is_unsigned: bool) -> Form {
    let scale = column.decimals();
    let around = u32::from(scale > 0) + u32::from(!is_unsigned);
    let precision = u8::try_from(column.column_length().saturating_sub(around)).unwrap_or(u8::MAX);
    if precision == 0 || precision > DECIMAL_PRECISION_MAX || scale > precision {
        return Form::Text;
    }
    Form::Decimal { precision, scale }
}

/// Collations that tell all texts apart, those too that differ in case, in accents or in spaces at their end: of MariaDB and of MySQL.
pub(super) const COLLATIONS: [&str; 2] = ["utf8mb4_nopad_bin", "utf8mb4_0900_bin"];

/// The digits behind the point that the server holds at most.
const SCALE_MAX: i8 = 30;

/// The word for texts that are told apart exactly.
pub(super) fn text(collation: &str) -> String {
    word("longtext", collation)
}

/// The server's word for a type; `None` when it has none that holds the values exactly.
pub(super) fn sql_type(data_type: &ArrowType, collation: &str) -> Option<String> {
    let word = match data_type {
        ArrowType::Boolean => "tinyint(1)",
        ArrowType::Int8 => "tinyint",
        ArrowType::Int16 => "smallint",
        ArrowType::Int32 => "int",
        ArrowType::Int64 => "bigint",
        ArrowType::UInt8 => "tinyint unsigned",
        ArrowType::UInt16 => "smallint unsigned",
        ArrowType::UInt32 => "int unsigned",
        ArrowType::UInt64 => "bigint unsigned",
        ArrowType::Float32 => "float",
        ArrowType::Float64 => "double",
        ArrowType::Decimal128(precision, scale) if (0..=SCALE_MAX).contains(scale) => {
            return Some(format!("decimal({precision},{scale})"));
        }
        ArrowType::Utf8 => return Some(text(collation)),
        ArrowType::Binary => "longblob",
        ArrowType::Date32 => "date",
        ArrowType::Time64(_) => "time(6)",
        ArrowType::Timestamp(TimeUnit::Microsecond, _) => "datetime(6)",
        _ => return None,
    };
    Some(word.to_owned())
}

/// The type of a column as it can be given to another one: without widths that mean nothing, with the collation of texts.
pub(super) fn word(kind: &str, collation: &str) -> String {
    if !collation.is_empty() {
        let charset = collation.split('_').next().unwrap_or_default();
        return format!("{kind} character set {charset} collate {collation}");
    }
    let (name, rest) = kind.split_at(kind.find(['(', ' ']).unwrap_or(kind.len()));
    match name {
        "tinyint" if kind == "tinyint(1)" => kind.to_owned(),
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => {
            format!("{name}{}", rest.trim_start_matches(|character: char| matches!(character, '(' | ')' | '0'..='9')))
        }
        // It would have a default otherwise.
        "timestamp" => format!("{kind} null"),
        _ => kind.to_owned(),
    }
}

/// The type in which a column of a query is kept: texts and bytes of any length.
pub(super) fn kept(word: &str, collation: &str) -> String {
    let name = word.split(['(', ' ']).next().unwrap_or_default();
    match name {
        // What is always NULL.
        "binary" if word.starts_with("binary(0)") => text(collation),
        _ if word.contains(" character set ") => text(collation),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => "longblob".to_owned(),
        _ => word.to_owned(),
    }
}

/// The type of a column by the catalog, for lists of streams.
pub(super) fn catalog_type(word: &str, whole: &str, precision: Option<u8>, scale: Option<u8>) -> DataType {
    let pick = |signed: Form, unsigned: Form| if whole.contains("unsigned") { unsigned } else { signed };
    let form = match word {
        "tinyint" => pick(Form::Int8, Form::UInt8),
        "smallint" => pick(Form::Int16, Form::UInt16),
        "year" => Form::Int16,
        "int" | "mediumint" => pick(Form::Int32, Form::UInt32),
        "bigint" => pick(Form::Int64, Form::UInt64),
        "bit" => Form::Bits,
        "float" => Form::Float,
        "double" => Form::Double,
        "decimal" => match (precision, scale) {
            (Some(precision), Some(scale)) if precision <= DECIMAL_PRECISION_MAX => Form::Decimal { precision, scale },
            _ => Form::Text,
        },
        "date" => Form::Date,
        "datetime" => Form::DateTime,
        "timestamp" => Form::Timestamp,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Form::Bytes,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => Form::Geometry,
        _ => Form::Text,
    };
    convert::logical_type(&form.arrow_type())
}
