//! One value as text or as JSON.
//!
//! Always: all digits of integers and decimals; a float prints so that it reads back the same bits; timestamps are RFC 3339 in UTC with
//! as many digits as they need (0, 3, 6 or 9); bytes are base64 for programs, hex for people. Nested values are JSON everywhere.

use std::fmt::Write;

use chrono::{DateTime, NaiveDateTime, Utc};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A program: RFC 3339, base64.
    Program,
    /// A person: as psql.
    Person,
}

/// One row as a JSON object; `names` are those of the columns.
pub fn write_json_row(names: &[&str], batch: &RecordBatch, row: usize, out: &mut String) {
    out.push('{');
    for (index, (name, column)) in names.iter().zip(batch.columns()).enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        write_json(column, row, out);
    }
    out.push('}');
}

/// Whether a value is NULL. Columns of the type of a bare NULL keep no mask: all of their values are.
pub(super) fn is_null(column: &ArrayRef, row: usize) -> bool {
    column.data_type() == &DataType::Null || column.is_null(row)
}

/// One value as JSON.
pub fn write_json(column: &ArrayRef, row: usize, out: &mut String) {
    if is_null(column, row) {
        return out.push_str("null");
    }
    match column.data_type() {
        DataType::Boolean | DataType::Decimal128(..) | DataType::Decimal256(..) => write_plain(column, row, Look::Program, out),
        kind if kind.is_integer() => write_plain(column, row, Look::Program, out),
        kind if kind.is_floating() => match float(column, row) {
            Some(value) if value.is_finite() => write_plain(column, row, Look::Program, out),
            _ => quoted(column, row, out),
        },
        DataType::Utf8 => write_string(column.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => write_string(column.as_string::<i64>().value(row), out),
        DataType::Utf8View => write_string(column.as_string_view().value(row), out),
        DataType::Struct(fields) => {
            out.push('{');
            for (index, (field, value)) in fields.iter().zip(column.as_struct().columns()).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(field.name(), out);
                out.push(':');
                write_json(value, row, out);
            }
            out.push('}');
        }
        DataType::List(_) => items(&column.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => items(&column.as_list::<i64>().value(row), out),
        DataType::FixedSizeList(..) => items(&column.as_fixed_size_list().value(row), out),
        DataType::Map(..) => entries(column.as_map().value(row).columns(), out),
        DataType::Dictionary(_, values) => match cast(&column.slice(row, 1), values) {
            Ok(value) => write_json(&value, 0, out),
            Err(_) => out.push_str("null"),
        },
        _ => quoted(column, row, out),
    }
}

fn items(values: &ArrayRef, out: &mut String) {
    out.push('[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(',');
        }
        write_json(values, row, out);
    }
    out.push(']');
}

fn entries(columns: &[ArrayRef], out: &mut String) {
    out.push('{');
    if let [keys, values] = columns {
        for row in 0..keys.len() {
            if row > 0 {
                out.push(',');
            }
            let mut key = String::new();
            write_text(keys, row, Look::Program, &mut key);
            write_string(&key, out);
            out.push(':');
            write_json(values, row, out);
        }
    }
    out.push('}');
}

fn quoted(column: &ArrayRef, row: usize, out: &mut String) {
    let mut text = String::new();
    write_plain(column, row, Look::Program, &mut text);
    write_string(&text, out);
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{0}'..='\u{1f}' => "",
            _ => continue,
        };
        out.push_str(text.get(plain..at).unwrap_or_default());
        if escape.is_empty() {
            put(out, format_args!("\\u{:04x}", u32::from(c)));
        } else {
            out.push_str(escape);
        }
        plain = at + c.len_utf8();
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// One value that is not NULL as text; nested ones as JSON.
pub(super) fn write_text(column: &ArrayRef, row: usize, look: Look, out: &mut String) {
    match column.data_type() {
        DataType::Utf8 => out.push_str(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(column.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(column.as_string_view().value(row)),
        kind if kind.is_nested() => write_json(column, row, out),
        DataType::Dictionary(_, values) => {
            if let Ok(value) = cast(&column.slice(row, 1), values) {
                write_text(&value, 0, look, out);
            }
        }
        _ => write_plain(column, row, look, out),
    }
}

fn write_plain(column: &ArrayRef, row: usize, look: Look, out: &mut String) {
    match column.data_type() {
        DataType::Null => {}
        DataType::Boolean => out.push_str(if column.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => put(out, column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => put(out, column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => put(out, column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => put(out, column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => put(out, column.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => put(out, column.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => put(out, column.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => put(out, column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 if column.as_primitive::<Float32Type>().value(row).is_finite() => {
            put(out, format_args!("{:?}", column.as_primitive::<Float32Type>().value(row)));
        }
        kind if kind.is_floating() => match float(column, row) {
            Some(value) if value.is_nan() => out.push_str("NaN"),
            Some(value) if value.is_infinite() => out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" }),
            Some(value) => put(out, format_args!("{value:?}")),
            None => {}
        },
        DataType::Decimal128(..) => out.push_str(&column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => out.push_str(&column.as_primitive::<Decimal256Type>().value_as_string(row)),
        DataType::Date32 => match column.as_primitive::<Date32Type>().value_as_date(row) {
            Some(date) => put(out, date),
            None => put(out, column.as_primitive::<Date32Type>().value(row)),
        },
        DataType::Date64 => match column.as_primitive::<Date64Type>().value_as_date(row) {
            Some(date) => put(out, date),
            None => put(out, column.as_primitive::<Date64Type>().value(row)),
        },
        DataType::Timestamp(unit, _) => timestamp(column, row, *unit, look, out),
        DataType::Binary => bytes(column.as_binary::<i32>().value(row), look, out),
        DataType::LargeBinary => bytes(column.as_binary::<i64>().value(row), look, out),
        DataType::BinaryView => bytes(column.as_binary_view().value(row), look, out),
        DataType::FixedSizeBinary(_) => bytes(column.as_fixed_size_binary().value(row), look, out),
        _ => {
            if let Ok(formatter) = ArrayFormatter::try_new(column, &FormatOptions::default()) {
                put(out, formatter.value(row));
            }
        }
    }
}

fn put(out: &mut String, value: impl std::fmt::Display) {
    // Writing into a String can't fail.
    let _ = write!(out, "{value}");
}

fn float(column: &ArrayRef, row: usize) -> Option<f64> {
    match column.data_type() {
        DataType::Float16 => Some(column.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => Some(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Some(column.as_primitive::<Float64Type>().value(row)),
        _ => None,
    }
}

fn timestamp(column: &ArrayRef, row: usize, unit: TimeUnit, look: Look, out: &mut String) {
    let (value, at): (i64, Option<DateTime<Utc>>) = match unit {
        TimeUnit::Second => {
            let value = column.as_primitive::<TimestampSecondType>().value(row);
            (value, DateTime::from_timestamp(value, 0))
        }
        TimeUnit::Millisecond => {
            let value = column.as_primitive::<TimestampMillisecondType>().value(row);
            (value, DateTime::from_timestamp_millis(value))
        }
        TimeUnit::Microsecond => {
            let value = column.as_primitive::<TimestampMicrosecondType>().value(row);
            (value, DateTime::from_timestamp_micros(value))
        }
        TimeUnit::Nanosecond => {
            let value = column.as_primitive::<TimestampNanosecondType>().value(row);
            (value, Some(DateTime::from_timestamp_nanos(value)))
        }
    };
    // A year that no calendar has: the number is all there is to show.
    let Some(at) = at.map(|at| at.naive_utc()) else { return put(out, value) };
    let places = match at.and_utc().timestamp_subsec_nanos() {
        0 => 0,
        nanos if nanos % 1_000_000 == 0 => 3,
        nanos if nanos % 1000 == 0 => 6,
        _ => 9,
    };
    write_time(at, places, look, out);
}

fn write_time(at: NaiveDateTime, places: usize, look: Look, out: &mut String) {
    put(out, at.format(if look == Look::Person { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S" }));
    if places > 0 {
        let nanos = format!("{:09}", at.and_utc().timestamp_subsec_nanos());
        out.push('.');
        out.push_str(nanos.get(..places).unwrap_or_default());
    }
    if look == Look::Program {
        out.push('Z');
    }
}

fn bytes(value: &[u8], look: Look, out: &mut String) {
    if look == Look::Person {
        out.push_str("\\x");
        value.iter().for_each(|byte| put(out, format_args!("{byte:02x}")));
        return;
    }
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for part in value.chunks(3) {
        let bits = part.iter().enumerate().fold(0u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for digit in 0..4 {
            let sextet = (bits >> (18 - 6 * digit)) as usize & 63;
            out.push(if digit <= part.len() { char::from(DIGITS.get(sextet).copied().unwrap_or(b'A')) } else { '=' });
        }
    }
}
