//! Fixed-width values as unsigned keys whose order is the order of the values.
//!
//! Signed integers have their sign bit flipped; floating point numbers follow IEEE 754 totalOrder with every NaN made the one positive
//! quiet NaN, hence the greatest. So three widths of key serve every type, and sorted keys are sorted values.

use arrow::datatypes::{ArrowNativeType, DataType};
use tidemill_engine::error::Result;

use super::Accumulator;
use super::hash::hash_u64;

/// An unsigned number that stands for a value.
pub(super) trait Key: Copy + Ord + Default + Send + 'static {
    const MIN: Self;
    const MAX: Self;
    /// A hash for tables in memory; not part of any state.
    fn hash(self) -> u64;
}

impl Key for u32 {
    const MIN: Self = 0;
    const MAX: Self = u32::MAX;
    #[inline(always)]
    fn hash(self) -> u64 {
        hash_u64(u64::from(self))
    }
}

impl Key for u64 {
    const MIN: Self = 0;
    const MAX: Self = u64::MAX;
    #[inline(always)]
    fn hash(self) -> u64 {
        hash_u64(self)
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
}

/// A native value of an Arrow column that has a [`Key`].
pub(super) trait Fixed: ArrowNativeType + Send + 'static {
    type Key: Key;
    /// Order-preserving, reversible but for the payload of a NaN.
    fn key(self) -> Self::Key;
    fn value(key: Self::Key) -> Self;
    /// The key under SQL's `=`, where -0.0 is 0.0.
    #[inline(always)]
    fn equality_key(self) -> Self::Key {
        self.key()
    }
    /// The 64 bits that sketches hash: equal for equal values of every integer type, of both floating point types.
    fn word(self) -> u64;
}

impl Fixed for i8 {
    type Key = u32;
    fn key(self) -> u32 {
        i32::from(self).key()
    }
    fn value(key: u32) -> Self {
        i32::value(key) as i8
    }
    #[inline(always)]
    fn word(self) -> u64 {
        self as i64 as u64
    }
}

impl Fixed for i16 {
    type Key = u32;
    fn key(self) -> u32 {
        i32::from(self).key()
    }
    fn value(key: u32) -> Self {
        i32::value(key) as i16
    }
    #[inline(always)]
    fn word(self) -> u64 {
        self as i64 as u64
    }
}

impl Fixed for i32 {
    type Key = u32;
    #[inline(always)]
    fn key(self) -> u32 {
        self as u32 ^ (1 << 31)
    }
    fn value(key: u32) -> Self {
        (key ^ (1 << 31)) as i32
    }
    #[inline(always)]
    fn word(self) -> u64 {
        self as i64 as u64
    }
}

impl Fixed for i64 {
    type Key = u64;
    #[inline(always)]
    fn key(self) -> u64 {
        self as u64 ^ (1 << 63)
    }
    fn value(key: u64) -> Self {
        (key ^ (1 << 63)) as i64
    }
    #[inline(always)]
    fn word(self) -> u64 {
        self as u64
    }
}

impl Fixed for i128 {
    type Key = [u64; 2];
    #[inline(always)]
    fn key(self) -> [u64; 2] {
        [((self >> 64) as i64).key(), self as u64]
    }
    fn value([high, low]: [u64; 2]) -> Self {
        i128::from(i64::value(high)) << 64 | i128::from(low)
    }
    #[inline(always)]
    fn word(self) -> u64 {
        (self as u64) ^ hash_u64((self >> 64) as u64 ^ (self as u64 as i64 >> 63) as u64).wrapping_sub(hash_u64(0))
    }
}

impl Fixed for u8 {
    type Key = u32;
    fn key(self) -> u32 {
        u32::from(self)
    }
    fn value(key: u32) -> Self {
        key as u8
    }
    #[inline(always)]
    fn word(self) -> u64 {
        u64::from(self)
    }
}

impl Fixed for u16 {
    type Key = u32;
    fn key(self) -> u32 {
        u32::from(self)
    }
    fn value(key: u32) -> Self {
        key as u16
    }
    #[inline(always)]
    fn word(self) -> u64 {
        u64::from(self)
    }
}

impl Fixed for u32 {
    type Key = u32;
    fn key(self) -> u32 {
        self
    }
    fn value(key: u32) -> Self {
        key
    }
    #[inline(always)]
    fn word(self) -> u64 {
        u64::from(self)
    }
}

impl Fixed for u64 {
    type Key = u64;
    fn key(self) -> u64 {
        self
    }
    fn value(key: u64) -> Self {
        key
    }
    #[inline(always)]
    fn word(self) -> u64 {
        self
    }
}

impl Fixed for f32 {
    type Key = u32;
    #[inline(always)]
    fn key(self) -> u32 {
        let bits = if self.is_nan() { f32::NAN.to_bits() & !(1 << 31) } else { self.to_bits() };
        bits ^ (((bits as i32 >> 31) as u32) | 1 << 31)
    }
    fn value(key: u32) -> Self {
        f32::from_bits(key ^ ((!key as i32 >> 31) as u32 | 1 << 31))
    }
    fn equality_key(self) -> u32 {
        (self + 0.0).key()
    }
    #[inline(always)]
    fn word(self) -> u64 {
        f64::from(self).word()
    }
}

impl Fixed for f64 {
    type Key = u64;
    #[inline(always)]
    fn key(self) -> u64 {
        let bits = if self.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { self.to_bits() };
        bits ^ (((bits as i64 >> 63) as u64) | 1 << 63)
    }
    fn value(key: u64) -> Self {
        f64::from_bits(key ^ ((!key as i64 >> 63) as u64 | 1 << 63))
    }
    fn equality_key(self) -> u64 {
        // -0.0 + 0.0 is +0.0; every other value stays.
        (self + 0.0).key()
    }
    #[inline(always)]
    fn word(self) -> u64 {
        (self + 0.0).key()
    }
}

/// Builds an accumulator for a native type, see [`dispatch`].
pub(super) trait Build {
    fn build<T: Fixed>(self) -> Result<Box<dyn Accumulator>>;
}

/// Calls `build` with the native type behind `data_type`; `None` if it is not one of fixed width.
pub(super) fn dispatch(data_type: &DataType, build: impl Build) -> Option<Result<Box<dyn Accumulator>>> {
    Some(match data_type {
        DataType::Boolean | DataType::UInt8 => build.build::<u8>(),
        DataType::UInt16 => build.build::<u16>(),
        DataType::UInt32 => build.build::<u32>(),
        DataType::UInt64 => build.build::<u64>(),
        DataType::Int8 => build.build::<i8>(),
        DataType::Int16 => build.build::<i16>(),
        DataType::Int32 | DataType::Date32 | DataType::Time32(_) => build.build::<i32>(),
        DataType::Int64 | DataType::Date64 | DataType::Time64(_) | DataType::Timestamp(..) | DataType::Duration(_) => build.build::<i64>(),
        DataType::Float32 => build.build::<f32>(),
        DataType::Float64 => build.build::<f64>(),
        DataType::Decimal128(..) => build.build::<i128>(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_order() {
        let floats =
            [f64::NEG_INFINITY, -1e300, -1.0, -f64::MIN_POSITIVE, -0.0, 0.0, f64::from_bits(1), 1.0, f64::MAX, f64::INFINITY, f64::NAN];
        assert!(floats.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        assert!(floats.iter().all(|&x| f64::value(x.key()).to_bits() == x.to_bits()));
        assert_eq!((-f64::NAN).key(), f64::NAN.key());
        assert_eq!((-0.0_f64).equality_key(), 0.0_f64.key());
        let singles = [f32::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f32::INFINITY, f32::NAN];
        assert!(singles.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        assert!(singles.iter().all(|&x| f32::value(x.key()).to_bits() == x.to_bits()));
        let wide = [i128::MIN, -(1 << 64), -1, 0, 1, 1 << 64, i128::MAX];
        assert!(wide.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        assert!(wide.iter().all(|&x| i128::value(x.key()) == x));
        let ints = [i32::MIN, -1, 0, i32::MAX];
        assert!(ints.windows(2).all(|pair| pair[0].key() < pair[1].key()) && ints.iter().all(|&x| i32::value(x.key()) == x));
        assert_eq!(i8::value((-3_i8).key()), -3);
    }
}
