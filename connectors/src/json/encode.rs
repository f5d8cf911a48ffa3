//! Arrow rows to JSON objects, one a row: what a sink writes.
//!
//! Always: every column in its order, nulls as `null`; BIGINT and DECIMAL with all their digits; a float so that it reads back the same
//! bits, NaN and infinities as strings; timestamps RFC 3339 with Z and as many digits as they need (0, 3 or 6); bytes in base64. So
//! `JsonDecoder` reads the same row back. Columns are looked at once a batch, and a row appends to a buffer of the caller's.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use std::io::Write;
use tidemill_engine::error::{Error, Result};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0001-01-01 and 9999-12-31 as days since 1970: the years that RFC 3339 can write.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// The names of an object's fields, with what stands around them.
#[derive(Debug, Clone)]
pub struct JsonEncoder {
    /// `{"first":`, `,"second":`…
    heads: Vec<Vec<u8>>,
}

/// One batch, ready to be written row by row.
pub struct JsonRows<'a> {
    heads: &'a [Vec<u8>],
    columns: Vec<Column<'a>>,
}

/// A column in its own type.
enum Column<'a> {
    Bool(&'a BooleanArray),
    Short(&'a Int16Array),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, usize),
    View(&'a StringViewArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    BinaryView(&'a BinaryViewArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    List(&'a ListArray, Box<Column<'a>>),
    Struct(&'a StructArray, Vec<Vec<u8>>, Vec<Column<'a>>),
}

impl JsonEncoder {
    /// Objects with fields of these names.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self { heads: heads(names) }
    }

    /// Looks at the first columns of a batch, as many as there are names. Refused: a type that no sink has.
    pub fn rows<'a>(&'a self, columns: &'a [ArrayRef]) -> Result<JsonRows<'a>> {
        if columns.len() < self.heads.len() {
            return Err(Error::failed(format!("{} columns for {} names", columns.len(), self.heads.len())));
        }
        let columns = columns.iter().take(self.heads.len()).map(|column| Column::of(column)).collect::<Result<Vec<_>>>()?;
        Ok(JsonRows { heads: &self.heads, columns })
    }
}

impl JsonRows<'_> {
    /// Appends row `row` as one object, without a line break.
    pub fn write(&self, row: usize, into: &mut Vec<u8>) {
        object(self.heads, &self.columns, row, into);
    }

    /// Appends the value of the first column as it would stand in a text: a string without quotes; false if it is NULL.
    pub fn write_text(&self, row: usize, into: &mut Vec<u8>) -> bool {
        match self.columns.first() {
            Some(column) if !column.is_null(row) => {
                column.bare(row, into);
                true
            }
            _ => false,
        }
    }
}

/// Whether a type can be written.
pub fn is_encodable(data_type: &DataType) -> bool {
    let empty = arrow::array::new_empty_array(data_type);
    Column::of(&empty).is_ok()
}

/// One batch as lines of JSON.
pub fn json_lines(encoder: &JsonEncoder, batch: &RecordBatch, into: &mut Vec<u8>) -> Result<()> {
    let rows = encoder.rows(batch.columns())?;
    for row in 0..batch.num_rows() {
        rows.write(row, into);
        into.push(b'\n');
    }
    Ok(())
}

fn heads<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<Vec<u8>> {
    let head = |(index, name): (usize, &str)| {
        let mut head = vec![if index == 0 { b'{' } else { b',' }];
        string(name, &mut head);
        head.push(b':');
        head
    };
    names.into_iter().enumerate().map(head).collect()
}

fn object(heads: &[Vec<u8>], columns: &[Column<'_>], row: usize, into: &mut Vec<u8>) {
    if heads.is_empty() {
        into.push(b'{');
    }
    for (head, column) in heads.iter().zip(columns) {
        into.extend_from_slice(head);
        column.write(row, into);
    }
    into.push(b'}');
}

impl<'a> Column<'a> {
    fn of(column: &'a dyn Array) -> Result<Self> {
        Ok(match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int16 => Self::Short(column.as_primitive()),
            DataType::Int32 => Self::Int(column.as_primitive()),
            DataType::Int64 => Self::Long(column.as_primitive()),
            DataType::Float32 => Self::Float(column.as_primitive()),
            DataType::Float64 => Self::Double(column.as_primitive()),
            DataType::Decimal128(_, scale) => Self::Decimal(column.as_primitive(), usize::try_from(*scale).unwrap_or(0)),
            DataType::Utf8View => Self::View(column.as_string_view()),
            DataType::Utf8 => Self::Text(column.as_string()),
            DataType::Binary => Self::Binary(column.as_binary()),
            DataType::BinaryView => Self::BinaryView(column.as_binary_view()),
            DataType::Date32 => Self::Date(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp(column.as_primitive()),
            DataType::List(_) => {
                let list: &ListArray = column.as_list();
                Self::List(list, Box::new(Self::of(list.values())?))
            }
            DataType::Struct(fields) => {
                let parts: &StructArray = column.as_struct();
                let columns = parts.columns().iter().map(|part| Self::of(part)).collect::<Result<Vec<_>>>()?;
                Self::Struct(parts, heads(fields.iter().map(|field| field.name().as_str())), columns)
            }
            other => return Err(Error::failed(format!("{other} can't be written as JSON"))),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Short(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::Long(array) => array.is_null(row),
            Self::Float(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::View(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::BinaryView(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Struct(array, _, _) => array.is_null(row),
        }
    }

    #[inline]
    fn write(&self, row: usize, into: &mut Vec<u8>) {
        if self.is_null(row) {
            return into.extend_from_slice(b"null");
        }
        match self {
            Self::View(array) => string(array.value(row), into),
            Self::Text(array) => string(array.value(row), into),
            Self::Binary(_) | Self::BinaryView(_) | Self::Date(_) | Self::Timestamp(_) => {
                into.push(b'"');
                self.bare(row, into);
                into.push(b'"');
            }
            Self::Float(array) if !array.value(row).is_finite() => self.quoted(row, into),
            Self::Double(array) if !array.value(row).is_finite() => self.quoted(row, into),
            _ => self.bare(row, into),
        }
    }

    fn quoted(&self, row: usize, into: &mut Vec<u8>) {
        into.push(b'"');
        self.bare(row, into);
        into.push(b'"');
    }

    /// A value that is not NULL, without the quotes that JSON puts around texts.
    fn bare(&self, row: usize, into: &mut Vec<u8>) {
        match self {
            Self::Bool(array) => into.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Self::Short(array) => integer(i128::from(array.value(row)), into),
            Self::Int(array) => integer(i128::from(array.value(row)), into),
            Self::Long(array) => integer(i128::from(array.value(row)), into),
            Self::Float(array) => match array.value(row) {
                value if value.is_finite() => put(into, format_args!("{value:?}")),
                value => special(f64::from(value), into),
            },
            Self::Double(array) => match array.value(row) {
                value if value.is_finite() => put(into, format_args!("{value:?}")),
                value => special(value, into),
            },
            Self::Decimal(array, scale) => decimal(array.value(row), *scale, into),
            Self::View(array) => into.extend_from_slice(array.value(row).as_bytes()),
            Self::Text(array) => into.extend_from_slice(array.value(row).as_bytes()),
            Self::Binary(array) => base64(array.value(row), into),
            Self::BinaryView(array) => base64(array.value(row), into),
            Self::Date(array) => date(i64::from(array.value(row)), into),
            Self::Timestamp(array) => timestamp(array.value(row), into),
            Self::List(array, items) => {
                into.push(b'[');
                let offsets = array.value_offsets();
                let at = |index: usize| offsets.get(index).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0);
                for (count, item) in (at(row)..at(row + 1)).enumerate() {
                    if count > 0 {
                        into.push(b',');
                    }
                    items.write(item, into);
                }
                into.push(b']');
            }
            Self::Struct(_, heads, columns) => object(heads, columns, row, into),
        }
    }
}

fn put(into: &mut Vec<u8>, value: std::fmt::Arguments<'_>) {
    // Writing into a buffer can't fail.
    let _ = into.write_fmt(value);
}

fn special(value: f64, into: &mut Vec<u8>) {
    let text: &[u8] = match value {
        value if value.is_nan() => b"NaN",
        value if value > 0.0 => b"Infinity",
        _ => b"-Infinity",
    };
    into.extend_from_slice(text);
}

/// All digits of a number, those behind the point counted by `scale`.
fn decimal(value: i128, scale: usize, into: &mut Vec<u8>) {
    if scale == 0 {
        return integer(value, into);
    }
    if value < 0 {
        into.push(b'-');
    }
    let from = into.len();
    digits(value.unsigned_abs(), scale + 1, into);
    let point = into.len() - scale;
    debug_assert!(point > from);
    into.insert(point, b'.');
}

#[inline]
fn integer(value: i128, into: &mut Vec<u8>) {
    if value < 0 {
        into.push(b'-');
    }
    digits(value.unsigned_abs(), 1, into);
}

/// At least `least` digits.
fn digits(value: u128, least: usize, into: &mut Vec<u8>) {
    let from = into.len();
    // Most numbers fit in 64 bits, which are divided much faster.
    let mut large = value;
    while large > u128::from(u64::MAX) {
        into.push(b'0' + (large % 10) as u8);
        large /= 10;
    }
    let mut small = large as u64;
    while small > 0 {
        into.push(b'0' + (small % 10) as u8);
        small /= 10;
    }
    while into.len() - from < least {
        into.push(b'0');
    }
    if let Some(written) = into.get_mut(from..) {
        written.reverse();
    }
}

fn string(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => b"",
            _ => continue,
        };
        into.extend_from_slice(bytes.get(plain..at).unwrap_or_default());
        if escape.is_empty() {
            put(into, format_args!("\\u{byte:04x}"));
        } else {
            into.extend_from_slice(escape);
        }
        plain = at + 1;
    }
    into.extend_from_slice(bytes.get(plain..).unwrap_or_default());
    into.push(b'"');
}

fn base64(value: &[u8], into: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for part in value.chunks(3) {
        let bits = part.iter().enumerate().fold(0_u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for letter in 0..4 {
            let sextet = (bits >> (18 - 6 * letter)) as usize & 63;
            into.push(if letter <= part.len() { LETTERS.get(sextet).copied().unwrap_or(b'A') } else { b'=' });
        }
    }
}

/// `yyyy-mm-dd`; a day that no such date names is its number.
fn date(days: i64, into: &mut Vec<u8>) {
    if !DAYS.contains(&days) {
        return integer(i128::from(days), into);
    }
    // Days since 0000-03-01, in eras of 400 years; the year starts in March, so that the leap day is its last.
    let day = days + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    digits(year.unsigned_abs().into(), 4, into);
    into.push(b'-');
    digits(month.unsigned_abs().into(), 2, into);
    into.push(b'-');
    digits(day.unsigned_abs().into(), 2, into);
}

fn timestamp(micros: i64, into: &mut Vec<u8>) {
    let (seconds, fraction) = (micros.div_euclid(MICROS_PER_SECOND), micros.rem_euclid(MICROS_PER_SECOND));
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    if !DAYS.contains(&days) {
        return integer(i128::from(micros), into);
    }
    date(days, into);
    for (mark, part) in [(b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)] {
        into.push(mark);
        digits(part.unsigned_abs().into(), 2, into);
    }
    if fraction != 0 {
        into.push(b'.');
        if fraction % 1000 == 0 {
            digits((fraction / 1000).unsigned_abs().into(), 3, into);
        } else {
            digits(fraction.unsigned_abs().into(), 6, into);
        }
    }
    into.push(b'Z');
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
