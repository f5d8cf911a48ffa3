//! SQL types and their Arrow types: one table for column lists and for CAST.
//!
//! Always: a type is either exact in Arrow and in Delta, or refused with the one to use. Struct fields keep the spelling of the DDL,
//! because they are JSON fields; names are folded only where SQL looks them up (`fields`).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, TimezoneInfo};

use super::error::Complaint;

/// What is wrong with a type and what to use.
type Refusal = (String, String);

/// Microseconds, UTC, without a zone: the only timestamp there is.
pub const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The Arrow type of a SQL type.
pub(super) fn arrow_type(sql: &SqlType) -> Result<DataType, Refusal> {
    let refuse = |what: &str| Err((format!("the type {sql} is not supported"), what.to_owned()));
    let plain = |length: bool, data_type: DataType, name: &str| match length {
        false => Ok(data_type),
        true => Err((format!("{name} takes no length here"), format!("write {name}; check lengths with a WHERE"))),
    };
    match sql {
        SqlType::Boolean | SqlType::Bool => Ok(DataType::Boolean),
        SqlType::SmallInt(width) => plain(width.is_some(), DataType::Int16, "SMALLINT"),
        SqlType::Int(width) => plain(width.is_some(), DataType::Int32, "INT"),
        SqlType::Integer(width) => plain(width.is_some(), DataType::Int32, "INTEGER"),
        SqlType::BigInt(width) => plain(width.is_some(), DataType::Int64, "BIGINT"),
        SqlType::Real => Ok(DataType::Float32),
        SqlType::Float(info) => plain(*info != ExactNumberInfo::None, DataType::Float32, "FLOAT"),
        SqlType::Double(info) => plain(*info != ExactNumberInfo::None, DataType::Float64, "DOUBLE"),
        SqlType::DoublePrecision => Ok(DataType::Float64),
        SqlType::Decimal(info) | SqlType::Numeric(info) | SqlType::Dec(info) => decimal(info),
        SqlType::Varchar(length) => plain(length.is_some(), DataType::Utf8View, "VARCHAR"),
        SqlType::Text => Ok(DataType::Utf8View),
        SqlType::Varbinary(length) => plain(length.is_some(), DataType::Binary, "VARBINARY"),
        SqlType::Bytes(length) => plain(length.is_some(), DataType::Binary, "BYTES"),
        SqlType::Date => Ok(DataType::Date32),
        SqlType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => match precision {
            None | Some(0..=6) => Ok(TIMESTAMP),
            Some(_) => Err(("a TIMESTAMP has 0 to 6 digits after the second".into(), "write TIMESTAMP(6)".into())),
        },
        SqlType::Array(
            ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::SquareBracket(element, None)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => Ok(DataType::List(Arc::new(Field::new("item", arrow_type(element)?, true)))),
        SqlType::Array(_) => refuse("write the element's type and no length: T[] or ARRAY<T>"),
        SqlType::Struct(fields, _) => {
            let mut made: Vec<Field> = Vec::with_capacity(fields.len());
            for field in fields {
                let Some(name) = &field.field_name else {
                    return Err(("a STRUCT's fields need names".into(), "write STRUCT<name TYPE, …>".into()));
                };
                if made.iter().any(|other| *other.name() == name.value) {
                    return Err((format!("the STRUCT has two fields {}", name.value), "rename one".into()));
                }
                made.push(Field::new(&name.value, arrow_type(&field.field_type)?, true));
            }
            Ok(DataType::Struct(Fields::from(made)))
        }
        SqlType::Timestamp(..) | SqlType::TimestampNtz(_) | SqlType::Datetime(_) | SqlType::Datetime64(..) => {
            refuse("use TIMESTAMP: every timestamp is UTC")
        }
        SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Nvarchar(_)
        | SqlType::String(_)
        | SqlType::FixedString(_)
        | SqlType::TinyText
        | SqlType::MediumText
        | SqlType::LongText
        | SqlType::Clob(_)
        | SqlType::CharacterLargeObject(_)
        | SqlType::CharLargeObject(_) => refuse("use VARCHAR"),
        SqlType::Bytea
        | SqlType::Binary(_)
        | SqlType::Blob(_)
        | SqlType::TinyBlob
        | SqlType::MediumBlob
        | SqlType::LongBlob
        | SqlType::Bit(_)
        | SqlType::BitVarying(_) => refuse("use VARBINARY"),
        SqlType::TinyInt(_) | SqlType::TinyIntUnsigned(_) | SqlType::UTinyInt | SqlType::Int2(_) | SqlType::Int16 | SqlType::UInt8 => {
            refuse("use SMALLINT")
        }
        SqlType::MediumInt(_)
        | SqlType::MediumIntUnsigned(_)
        | SqlType::Int4(_)
        | SqlType::Int32
        | SqlType::SmallIntUnsigned(_)
        | SqlType::USmallInt
        | SqlType::Int2Unsigned(_)
        | SqlType::UInt16 => refuse("use INT"),
        SqlType::Int8(_)
        | SqlType::Int64
        | SqlType::IntUnsigned(_)
        | SqlType::IntegerUnsigned(_)
        | SqlType::Int4Unsigned(_)
        | SqlType::UInt32
        | SqlType::Signed
        | SqlType::SignedInteger => refuse("use BIGINT"),
        SqlType::BigIntUnsigned(_)
        | SqlType::UBigInt
        | SqlType::Int8Unsigned(_)
        | SqlType::UInt64
        | SqlType::Unsigned
        | SqlType::UnsignedInteger => refuse("use DECIMAL(20, 0), or BIGINT where the numbers fit"),
        SqlType::Int128 | SqlType::Int256 | SqlType::HugeInt | SqlType::UHugeInt | SqlType::BigNumeric(_) | SqlType::BigDecimal(_) => {
            refuse("use DECIMAL(38, s)")
        }
        SqlType::Float4 | SqlType::Float32 => refuse("use REAL"),
        SqlType::Float8 | SqlType::Float64 => refuse("use DOUBLE"),
        SqlType::Date32 => refuse("use DATE"),
        SqlType::Time(..) => refuse("use a TIMESTAMP, or the microseconds of the day in a BIGINT"),
        SqlType::Interval { .. } => refuse("use a BIGINT of microseconds"),
        SqlType::JSON | SqlType::JSONB => refuse("declare the fields you read as a STRUCT<…>, or take the text as VARCHAR"),
        SqlType::Uuid => refuse("use VARCHAR"),
        SqlType::Map(..) => refuse("declare the keys you read as a STRUCT<…>"),
        SqlType::Enum(..) | SqlType::Set(_) => refuse("use VARCHAR"),
        SqlType::Custom(name, _) => match name.to_string().to_uppercase().as_str() {
            "TIMESTAMP_LTZ" | "TIMESTAMP_NTZ" | "TIMESTAMP_TZ" | "DATETIME2" | "SMALLDATETIME" => {
                refuse("use TIMESTAMP: every timestamp is UTC")
            }
            "ROW" => refuse("use STRUCT<…>"),
            "LIST" | "MULTISET" => refuse("use ARRAY<T>"),
            "LONG" | "SERIAL" | "BIGSERIAL" => refuse("use BIGINT"),
            "MONEY" | "NUMBER" => refuse("use DECIMAL(p, s)"),
            "VARIANT" | "OBJECT" => refuse("declare the fields you read as a STRUCT<…>"),
            "VARCHAR2" | "NTEXT" | "CITEXT" | "STR" => refuse("use VARCHAR"),
            _ => refuse(ALL),
        },
        _ => refuse(ALL),
    }
}

const ALL: &str = "the types are BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), VARCHAR, VARBINARY, DATE, TIMESTAMP(p), \
                   ARRAY<T>, STRUCT<…>";

fn decimal(info: &ExactNumberInfo) -> Result<DataType, Refusal> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => {
            return Err(("a DECIMAL needs its digits".into(), "write DECIMAL(18, 2): 18 digits, 2 after the point".into()));
        }
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if (0..=38).contains(&scale) && scale.unsigned_abs() <= precision => {
            Ok(DataType::Decimal128(precision, scale))
        }
        _ => Err((
            "a DECIMAL has 1 to 38 digits, and no more after the point than in all".into(),
            "write DECIMAL(18, 2), for example".into(),
        )),
    }
}

/// Types in expressions: the same table.
#[derive(Debug)]
pub(super) enum Types {
    /// Of a pipeline: nothing else.
    Pipeline,
    /// Of a query over tables: what is not in the table is as DataFusion has it, since nothing stores it.
    Query,
}

impl TypePlanner for Types {
    fn plan_type_field(&self, sql: &SqlType) -> Result<Option<FieldRef>> {
        match arrow_type(sql) {
            Ok(data_type) => Ok(Some(Arc::new(Field::new("", data_type, true)))),
            Err(_) if matches!(self, Self::Query) => Ok(None),
            Err((message, help)) => Err(Complaint::new(None, message).help(help).into()),
        }
    }
}

/// The SQL name of an Arrow type, for messages.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "a timestamp of nanoseconds".into(),
        DataType::Timestamp(_, Some(_)) => "a timestamp with a time zone".into(),
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "an unsigned number".into(),
        DataType::Int8 => "a one-byte number".into(),
        DataType::Interval(_) | DataType::Duration(_) => "an INTERVAL".into(),
        DataType::Time32(_) | DataType::Time64(_) => "a TIME".into(),
        DataType::Null => "NULL".into(),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", sql_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|field| format!("{} {}", field.name(), sql_name(field.data_type()))).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}
