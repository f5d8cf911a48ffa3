//! Exact sums as bytes in state columns: equal sums (and equal counts of infinities and NaN) are equal bytes.
//!
//! Layout: one byte of flags (1 = negative, 2 = specials follow); if flagged, the counts of +infinity, -infinity and NaN as three i64;
//! then, unless the sum is zero, the weight of the first digit as i16 `w` (it weighs 256^w) and the digits of the magnitude in base 256,
//! neither the first nor the last of them zero. All little-endian. An exact zero without specials is the single byte 0.

use tidemill_engine::error::Result;

use super::columns::bad_state;
use super::exact::{Cell, Digits, Pool};
use super::specials::Counts;

const NEGATIVE: u8 = 1;
const SPECIALS: u8 = 2;
/// Squares of doubles reach from 2^-2148 to 2^2048, and 2^64 of them 2^2112: 256^-269 to 256^264.
const WEIGHT_RANGE: std::ops::RangeInclusive<i32> = -300..=300;

/// Appends the bytes of a sum to `out`.
pub(super) fn encode(sum: &Digits, specials: Counts, out: &mut Vec<u8>) {
    let specials_flag = if specials == Counts::default() { 0 } else { SPECIALS };
    out.push((u8::from(sum.negative) * NEGATIVE) | specials_flag);
    if specials_flag != 0 {
        specials.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
    }
    let digits = sum.digits.iter().flat_map(|digit| digit.to_le_bytes());
    let zeros = digits.clone().take_while(|&byte| byte == 0).count();
    if zeros == 4 * sum.digits.len() {
        return;
    }
    out.extend_from_slice(&((4 * sum.first + zeros as i32) as i16).to_le_bytes());
    out.extend(digits.skip(zeros));
    let used = out.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    out.truncate(used);
}

/// Adds an encoded sum to a cell, or takes it out with `sign` -1; gives the counts of specials.
pub(super) fn merge<const N: usize>(cell: &mut Cell<N>, pool: &mut Pool, bytes: &[u8], sign: i64) -> Result<Counts> {
    let (&flags, mut rest) = bytes.split_first().ok_or_else(|| bad_state("sum"))?;
    let mut specials = Counts::default();
    if flags & SPECIALS != 0 {
        for count in &mut specials {
            let (head, tail) = rest.split_first_chunk::<8>().ok_or_else(|| bad_state("sum"))?;
            (*count, rest) = (i64::from_le_bytes(*head), tail);
        }
    }
    if rest.is_empty() {
        return Ok(specials);
    }
    let (weight, magnitude) = rest.split_first_chunk::<2>().ok_or_else(|| bad_state("sum"))?;
    let weight = i32::from(i16::from_le_bytes(*weight));
    if !WEIGHT_RANGE.contains(&weight) || !WEIGHT_RANGE.contains(&(weight + magnitude.len() as i32)) {
        return Err(bad_state("sum"));
    }
    let negative = (flags & NEGATIVE != 0) != (sign < 0);
    // 14 bytes at a time: a part must fit the 126 bits of the smallest window.
    for (index, part) in magnitude.chunks(14).enumerate() {
        let mantissa = part.iter().rev().fold(0_u128, |mantissa, &byte| mantissa << 8 | u128::from(byte));
        cell.add(pool, mantissa, 8 * (weight + 14 * index as i32), negative);
    }
    Ok(specials)
}
