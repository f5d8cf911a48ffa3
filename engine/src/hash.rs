//! The key hash: routing, state lookup and distinct counts share it, so it is ours and fixed to the bit (`HASH_ID` stands in
//! every manifest). A library's hash may change with its version, and state would be looked for on the wrong worker.
//!
//! Definition. `mix(a, b)` is the low half xor the high half of the 128-bit product `(a ^ P0) * (b ^ P1)` (the folded multiply of
//! wyhash). A fixed-width value hashes as `mix(bits, seed)`, where `bits` is its two's complement or IEEE pattern, sign-extended
//! to 64 bits; 128-bit values as `mix(high, mix(low, seed))`. Bytes hash in 8-byte little-endian words, the rest zero-padded, each
//! `h = mix(word, h)`, then `mix(length, h)`. NULL hashes as `mix(NULL, seed)`. Columns chain: a column's hash seeds the next.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, UInt64Type,
};
use arrow::row::{RowConverter, SortField};

use crate::error::Result;

/// Names this definition in manifests.
pub const HASH_ID: &str = "fold64-1";
/// Units of routing, state ownership and rescaling.
pub const KEY_GROUPS: usize = 256;

const P0: u64 = 0xa076_1d64_78bd_642f;
const P1: u64 = 0xe703_7ed1_a0b4_28db;
const SEED: u64 = 0x8ebc_6af0_9c88_c6e3;
const NULL: u64 = 0x0589_65cc_7537_4cc3;

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ P0) * u128::from(b ^ P1);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of bytes, chained from `seed`.
#[inline]
pub fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed;
    let mut words = bytes.chunks_exact(8);
    for word in words.by_ref() {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        hash = mix(u64::from_le_bytes(eight), hash);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut eight = [0; 8];
        for (to, from) in eight.iter_mut().zip(rest) {
            *to = *from;
        }
        hash = mix(u64::from_le_bytes(eight), hash);
    }
    mix(bytes.len() as u64, hash)
}

/// The key group of a hash: its top eight bits.
#[inline]
pub fn key_group(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Which of `workers` owns a key group: contiguous ranges, so that a new worker count moves whole ranges.
#[inline]
pub fn owner(key_group: u8, workers: usize) -> usize {
    usize::from(key_group) * workers / KEY_GROUPS
}

/// One hash a row over `columns`, in their order. No columns: every row has the same hash.
pub fn hash_columns(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        hash_column(column, &mut hashes)?;
    }
    Ok(hashes)
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    macro_rules! words {
        ($kind:ty, $bits:expr) => {{
            let array = column.as_primitive::<$kind>();
            let bits: fn(<$kind as arrow::datatypes::ArrowPrimitiveType>::Native) -> u64 = $bits;
            fold(hashes, column.as_ref(), array.values().iter().map(|value| bits(*value)));
        }};
    }
    match column.data_type() {
        DataType::Int8 => words!(Int8Type, |value| value as i64 as u64),
        DataType::Int16 => words!(Int16Type, |value| value as i64 as u64),
        DataType::Int32 => words!(Int32Type, |value| value as i64 as u64),
        DataType::Int64 => words!(Int64Type, |value| value as u64),
        DataType::UInt64 => words!(UInt64Type, |value| value),
        DataType::Float32 => words!(Float32Type, |value| u64::from(value.to_bits())),
        DataType::Float64 => words!(Float64Type, |value| value.to_bits()),
        DataType::Date32 => words!(Date32Type, |value| value as i64 as u64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => words!(TimestampMicrosecondType, |value| value as u64),
        DataType::Decimal128(_, _) => {
            let array = column.as_primitive::<Decimal128Type>();
            for (row, (hash, value)) in hashes.iter_mut().zip(array.values()).enumerate() {
                *hash = if array.is_null(row) { mix(NULL, *hash) } else { mix((*value >> 64) as u64, mix(*value as u64, *hash)) };
            }
        }
        DataType::Boolean => {
            let array: &BooleanArray = column.as_boolean();
            fold(hashes, column.as_ref(), array.values().iter().map(u64::from));
        }
        DataType::Utf8 => texts(hashes, column.as_string::<i32>().iter().map(|each| each.map(str::as_bytes))),
        DataType::Utf8View => texts(hashes, column.as_string_view().iter().map(|each| each.map(str::as_bytes))),
        DataType::Binary => texts(hashes, column.as_binary::<i32>().iter()),
        DataType::BinaryView => texts(hashes, column.as_binary_view().iter()),
        // Lists and structs: the bytes of Arrow's row format, whose definition is part of the Arrow release we pin.
        other => {
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            let rows = converter.convert_columns(&[Arc::clone(column)])?;
            for (hash, row) in hashes.iter_mut().zip(rows.iter()) {
                *hash = hash_bytes(row.as_ref(), *hash);
            }
        }
    }
    Ok(())
}

fn fold(hashes: &mut [u64], column: &dyn Array, bits: impl Iterator<Item = u64>) {
    if column.null_count() == 0 {
        hashes.iter_mut().zip(bits).for_each(|(hash, bits)| *hash = mix(bits, *hash));
    } else {
        for (row, (hash, bits)) in hashes.iter_mut().zip(bits).enumerate() {
            *hash = mix(if column.is_null(row) { NULL } else { bits }, *hash);
        }
    }
}

fn texts<'a>(hashes: &mut [u64], values: impl Iterator<Item = Option<&'a [u8]>>) {
    for (hash, value) in hashes.iter_mut().zip(values) {
        *hash = match value {
            Some(bytes) => hash_bytes(bytes, *hash),
            None => mix(NULL, *hash),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, StringViewArray};

    #[test]
    fn the_definition_does_not_move() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(-1), None, Some(42)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("abcdefghij"), None, Some("x")]));
        let hashes = hash_columns(&[ints, texts], 4).expect("hashes");
        let expected = [12_251_393_307_791_162_357, 16_884_860_663_805_963_783, 2_652_751_715_355_293, 10_052_163_831_929_456_837];
        assert_eq!(hashes, expected, "a changed hash makes every state folder unreadable: give it a new HASH_ID");
    }

    #[test]
    fn both_string_layouts_hash_alike() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["a", "a string longer than twelve bytes"]));
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "a string longer than twelve bytes"]));
        assert_eq!(hash_columns(&[plain], 2).expect("hashes"), hash_columns(&[view], 2).expect("hashes"));
    }

    #[test]
    fn key_groups_cover_all_workers_evenly() {
        for workers in 1..=8 {
            let mut owned = vec![0; workers];
            (0..=255u8).for_each(|group| owned[owner(group, workers)] += 1);
            assert!(owned.iter().all(|count| (KEY_GROUPS / workers..=KEY_GROUPS / workers + 1).contains(count)), "{owned:?}");
        }
    }
}
