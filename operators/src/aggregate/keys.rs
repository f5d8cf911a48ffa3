//! Fixed-width values as unsigned keys whose order is the order of the values.
//!
//! Signed integers have their sign bit flipped; floating point numbers follow IEEE 754 totalOrder with every NaN made the one positive
//! quiet NaN, hence the greatest. So three widths of key serve every type, and sorted keys are sorted values. A batch is turned into keys
//! as a whole, by a loop that the compiler vectorises; the accumulators then exist once a width, not once a type.

use arrow::array::ArrayRef;
use arrow::datatypes::{ArrowNativeType, DataType};
use tidemill_engine::error::{Error, Result};

use super::columns::{natives, optional};
use super::hash::hash_u64;

/// How -0.0 is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// Below 0.0, as totalOrder has it.
    Signed,
    /// As 0.0, as SQL's `=` and GROUP BY have it.
    Folded,
}

/// The width of a type's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// `u32`.
    Short,
    /// `u64`.
    Word,
    /// `[u64; 2]`.
    Pair,
}

/// The width of the keys of `data_type`; `None` if it has no fixed width.
pub(super) fn width(data_type: &DataType) -> Option<Width> {
    Some(match data_type {
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 => Width::Short,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Width::Short,
        DataType::Float32 | DataType::Date32 | DataType::Time32(_) => Width::Short,
        DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Date64 => Width::Word,
        DataType::Timestamp(..) | DataType::Time64(_) | DataType::Duration(_) => Width::Word,
        DataType::Decimal128(..) => Width::Pair,
        _ => return None,
    })
}

/// An unsigned number that stands for a value.
pub(super) trait Key: Copy + Ord + Default + Send + 'static {
    const MIN: Self;
    const MAX: Self;
    /// A hash for tables in memory; not part of any state.
    fn hash(self) -> u64;
    /// The keys of a column; those under NULLs mean nothing.
    fn read(column: &ArrayRef, zero: Zero) -> Result<Vec<Self>>;
    /// The column of `data_type` with these keys.
    fn write(data_type: &DataType, keys: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef>;
}

impl Key for u32 {
    const MIN: Self = 0;
    const MAX: Self = u32::MAX;

    #[inline(always)]
    fn hash(self) -> u64 {
        hash_u64(u64::from(self))
    }

    fn read(column: &ArrayRef, zero: Zero) -> Result<Vec<Self>> {
        match (column.data_type(), zero) {
            (DataType::Boolean | DataType::UInt8, _) => each(column, |x: u8| u32::from(x)),
            (DataType::UInt16, _) => each(column, |x: u16| u32::from(x)),
            (DataType::UInt32, _) => each(column, |x: u32| x),
            (DataType::Int8, _) => each(column, |x: i8| signed_32(x.into())),
            (DataType::Int16, _) => each(column, |x: i16| signed_32(x.into())),
            (DataType::Float32, Zero::Signed) => each(column, single),
            (DataType::Float32, Zero::Folded) => each(column, |x: f32| single(x + 0.0)),
            _ => each(column, signed_32),
        }
    }

    fn write(data_type: &DataType, keys: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef> {
        match data_type {
            DataType::Boolean | DataType::UInt8 => optional(data_type, keys.map(|key| key.map(|key| key as u8))),
            DataType::UInt16 => optional(data_type, keys.map(|key| key.map(|key| key as u16))),
            DataType::UInt32 => optional(data_type, keys),
            DataType::Int8 => optional(data_type, keys.map(|key| key.map(|key| from_signed_32(key) as i8))),
            DataType::Int16 => optional(data_type, keys.map(|key| key.map(|key| from_signed_32(key) as i16))),
            DataType::Float32 => optional(data_type, keys.map(|key| key.map(from_single))),
            _ => optional(data_type, keys.map(|key| key.map(from_signed_32))),
        }
    }
}

impl Key for u64 {
    const MIN: Self = 0;
    const MAX: Self = u64::MAX;

    #[inline(always)]
    fn hash(self) -> u64 {
        hash_u64(self)
    }

    fn read(column: &ArrayRef, zero: Zero) -> Result<Vec<Self>> {
        match (column.data_type(), zero) {
            (DataType::UInt64, _) => each(column, |x: u64| x),
            (DataType::Float64, Zero::Signed) => each(column, double),
            // -0.0 + 0.0 is 0.0; every other value stays.
            (DataType::Float64, Zero::Folded) => each(column, |x: f64| double(x + 0.0)),
            _ => each(column, signed_64),
        }
    }

    fn write(data_type: &DataType, keys: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef> {
        match data_type {
            DataType::UInt64 => optional(data_type, keys),
            DataType::Float64 => optional(data_type, keys.map(|key| key.map(from_double))),
            _ => optional(data_type, keys.map(|key| key.map(|key| (key ^ 1 << 63) as i64))),
        }
    }
}

/// High word first: a pair needs no 16 byte alignment, which would waste half a slot beside a small field.
impl Key for [u64; 2] {
    const MIN: Self = [0; 2];
    const MAX: Self = [u64::MAX; 2];

    #[inline(always)]
    fn hash(self) -> u64 {
        let [high, low] = self;
        hash_u64(low ^ high.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn read(column: &ArrayRef, _: Zero) -> Result<Vec<Self>> {
        each(column, |x: i128| [signed_64((x >> 64) as i64), x as u64])
    }

    fn write(data_type: &DataType, keys: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef> {
        let value = |[high, low]: [u64; 2]| i128::from((high ^ 1 << 63) as i64) << 64 | i128::from(low);
        optional(data_type, keys.map(|key| key.map(value)))
    }
}

/// A column as the 64 bits that sketches hash: whole numbers of every type as two's complement, floating point numbers of both types as the
/// key of the double, decimals unscaled with what exceeds 64 bits hashed in.
pub(super) fn words(column: &ArrayRef) -> Result<Vec<u64>> {
    match column.data_type() {
        DataType::Boolean | DataType::UInt8 => each(column, |x: u8| u64::from(x)),
        DataType::UInt16 => each(column, |x: u16| u64::from(x)),
        DataType::UInt32 => each(column, |x: u32| u64::from(x)),
        DataType::UInt64 => each(column, |x: u64| x),
        DataType::Int8 => each(column, |x: i8| x as u64),
        DataType::Int16 => each(column, |x: i16| x as u64),
        DataType::Float32 => each(column, |x: f32| double(f64::from(x) + 0.0)),
        DataType::Float64 => each(column, |x: f64| double(x + 0.0)),
        DataType::Decimal128(..) => each(column, |x: i128| {
            let (high, low) = ((x >> 64) as i64, x as i64);
            // Nothing where the value fits 64 bits.
            low as u64 ^ if high == low >> 63 { 0 } else { hash_u64(high as u64) }
        }),
        other => match width(other) {
            Some(Width::Short) => each(column, |x: i32| x as u64),
            Some(Width::Word) => each(column, |x: i64| x as u64),
            _ => Err(Error::failed(format!("{other} can't be hashed"))),
        },
    }
}

fn each<T: ArrowNativeType, U>(column: &ArrayRef, convert: impl Fn(T) -> U) -> Result<Vec<U>> {
    Ok(natives::<T>(column)?.iter().map(|&value| convert(value)).collect())
}

#[inline(always)]
fn signed_32(x: i32) -> u32 {
    x as u32 ^ 1 << 31
}

fn from_signed_32(key: u32) -> i32 {
    (key ^ 1 << 31) as i32
}

#[inline(always)]
fn signed_64(x: i64) -> u64 {
    x as u64 ^ 1 << 63
}

#[inline(always)]
fn single(x: f32) -> u32 {
    // Positive, whatever the sign of this target's NAN.
    let bits = if x.is_nan() { f32::NAN.to_bits() & !(1 << 31) } else { x.to_bits() };
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

fn from_single(key: u32) -> f32 {
    f32::from_bits(key ^ ((!key as i32 >> 31) as u32 | 1 << 31))
}

/// The key of a double.
#[inline(always)]
pub(super) fn double(x: f64) -> u64 {
    let bits = if x.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { x.to_bits() };
    bits ^ ((bits as i64 >> 63) as u64 | 1 << 63)
}

fn from_double(key: u64) -> f64 {
    f64::from_bits(key ^ ((!key as i64 >> 63) as u64 | 1 << 63))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array};

    use super::*;

    /// Keys of ascending values ascend, and give the values back.
    fn ascends<K: Key>(column: impl Array + 'static) {
        let column: ArrayRef = Arc::new(column);
        let keys = K::read(&column, Zero::Signed).unwrap();
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert_eq!(K::write(column.data_type(), keys.into_iter().map(Some)).unwrap().to_data(), column.to_data());
    }

    #[test]
    fn keys_keep_order() {
        let tiny = f64::from_bits(1);
        ascends::<u64>(Float64Array::from(vec![f64::NEG_INFINITY, -1e300, -tiny, -0.0, 0.0, tiny, 1.0, f64::MAX, f64::INFINITY, f64::NAN]));
        ascends::<u32>(Float32Array::from(vec![f32::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f32::INFINITY, f32::NAN]));
        ascends::<[u64; 2]>(Decimal128Array::from(vec![-(1 << 100), -(1 << 64), -1, 0, 1, 1 << 64, 1 << 100]));
        ascends::<u32>(Int32Array::from(vec![i32::MIN, -1, 0, i32::MAX]));
        ascends::<u32>(Int8Array::from(vec![i8::MIN, -1, 0, i8::MAX]));
        let same: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 0.0, f64::NAN, -f64::NAN]));
        let keys = u64::read(&same, Zero::Folded).unwrap();
        assert!(keys[0] == keys[1] && keys[2] == keys[3]);
    }
}
