//! `approx_percentile_cont`: DDSketch (Masson, Rim, Lee, VLDB 2019) of 1 % relative accuracy that never collapses, hence a plain
//! histogram: it merges and retracts by count, in any order, to equal bytes.
//!
//! The answer is the middle of the bucket of the value of nearest rank (the `ceil(quantile * n)`th smallest, the first for quantile 0),
//! so it lies within 1 % of that value, of its sign, for any finite value but those below 2^-1022; integers and decimals are then rounded
//! to the nearest. Infinities and NaN (the greatest) have buckets of their own. Over input that does not retract, the least and the
//! greatest value are kept and bound the answer: constant data gives its constant.
//!
//! Bucket numbers must not depend on a machine's `ln`: the mapping is the cubic interpolation of the binary logarithm between powers of
//! two, `e + ((6/35 s - 3/5) s + 10/7) s` for `x = (1 + s) 2^e`, times 35, in additions and multiplications alone. Its slope over `ln x` is
//! at least 50, so a bucket's ends are at most e^0.02 apart and its harmonic middle at most tanh(0.01) < 1 % from any value in it.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array};
use arrow::datatypes::{DataType, Float64Type};
use tidemill_engine::error::{Error, Result};

use super::columns::{bad_state, column, doubles, int64, list, list_column, list_type, natives, optional, required, typed, unlist};
use super::keys::double;
use super::rows::{no_retractions, visit};
use super::{Accumulator, Function, Spec, only_in, same};

/// Buckets an octave times the least slope of the cubic: `35 * 10 / 7 = 50 = 1 / 0.02`.
const BUCKETS_PER_OCTAVE: f64 = 35.0;
/// Moves the bucket of the least double (-1074 * 35) to 1, so that a bucket and its sign are one number: 0 is zero, -b mirrors b.
const OFFSET: i32 = 1074 * 35 + 1;
/// Past the bucket of the greatest double, (1024 + 1074) * 35 + 1.
const INFINITE: i32 = 100_000;
/// Above infinity, as in every other order of this module.
const NAN: i32 = INFINITE + 1;

pub(super) fn accumulator(spec: &Spec, quantile: f64) -> Result<Box<dyn Accumulator>> {
    if !(0.0..=1.0).contains(&quantile) {
        return Err(Error::refused(format!("approx_percentile_cont takes a quantile from 0 to 1, not {quantile}")));
    }
    let input = spec.argument()?;
    spec.require_output(spec.output == *input)?;
    let limit = match input {
        DataType::Decimal128(digits, _) => 10_i128.pow(u32::from(*digits).min(38)) as f64,
        DataType::Float32 | DataType::Float64 => f64::INFINITY,
        input if input.is_integer() => f64::INFINITY,
        _ => return Err(spec.refuse_input()),
    };
    Ok(Box::new(Percentile { slots: Vec::new(), heap_bytes: 0, quantile, bounded: !spec.retracts, input: input.clone(), limit }))
}

/// Doubles as a column of `data_type`, rounded to the nearest value it has; `as` saturates at its ends. A decimal comes unscaled.
fn rounded(data_type: &DataType, values: impl Iterator<Item = Option<f64>>) -> Result<ArrayRef> {
    match data_type {
        DataType::Float64 => optional(data_type, values),
        DataType::Float32 => optional(data_type, values.map(|x| x.map(|x| x as f32))),
        DataType::Int8 => optional(data_type, values.map(|x| x.map(|x| x.round() as i8))),
        DataType::Int16 => optional(data_type, values.map(|x| x.map(|x| x.round() as i16))),
        DataType::Int32 => optional(data_type, values.map(|x| x.map(|x| x.round() as i32))),
        DataType::UInt8 => optional(data_type, values.map(|x| x.map(|x| x.round() as u8))),
        DataType::UInt16 => optional(data_type, values.map(|x| x.map(|x| x.round() as u16))),
        DataType::UInt32 => optional(data_type, values.map(|x| x.map(|x| x.round() as u32))),
        DataType::UInt64 => optional(data_type, values.map(|x| x.map(|x| x.round() as u64))),
        DataType::Decimal128(..) => optional(data_type, values.map(|x| x.map(|x| x.round() as i128))),
        _ => optional(data_type, values.map(|x| x.map(|x| x.round() as i64))),
    }
}

/// The bucket of a value.
#[inline(always)]
fn bucket(x: f64) -> i32 {
    if x == 0.0 {
        return 0;
    }
    if !x.is_finite() {
        return if x.is_nan() {
            NAN
        } else if x > 0.0 {
            INFINITE
        } else {
            -INFINITE
        };
    }
    let bucket = magnitude_bucket(x.abs());
    if x > 0.0 { bucket } else { -bucket }
}

/// The bucket of a positive finite value, from 1.
#[inline(always)]
fn magnitude_bucket(x: f64) -> i32 {
    let (x, down) = if x < f64::MIN_POSITIVE { (x * (1_u64 << 54) as f64, 54) } else { (x, 0) };
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023 - down;
    let s = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52) - 1.0;
    let cubic = ((6.0 / 35.0 * s - 3.0 / 5.0) * s + 10.0 / 7.0) * s;
    // At least -1074 * 35, exactly representable with 30 bits of fraction; floor by truncation after the offset made it positive.
    (BUCKETS_PER_OCTAVE * (f64::from(exponent) + cubic) + f64::from(OFFSET)) as i32
}

/// The middle of a bucket: `2 low high / (low + high)`, equally far from both ends relative to them.
fn middle(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    if bucket.abs() >= INFINITE {
        return if bucket == NAN { f64::NAN } else { f64::INFINITY.copysign(f64::from(bucket)) };
    }
    let (low, high) = (first_in(bucket.abs()), first_in(bucket.abs() + 1));
    let middle = if high.is_finite() { low * (2.0 / (1.0 + low / high)) } else { low };
    middle.copysign(f64::from(bucket))
}

/// The least positive double whose bucket is at least `bucket`, found on the mapping itself, bit by bit; infinity if there is none.
fn first_in(bucket: i32) -> f64 {
    let (mut low, mut high) = (1_u64, f64::INFINITY.to_bits());
    while low < high {
        let middle = low + (high - low) / 2;
        if magnitude_bucket(f64::from_bits(middle)) >= bucket { high = middle } else { low = middle + 1 }
    }
    f64::from_bits(low)
}

/// The histogram of one group.
#[derive(Default)]
struct Slot {
    /// (bucket, count) in ascending order; no count is zero, some may be negative while a retraction has come before its row.
    buckets: Vec<(i32, i64)>,
    /// Least and greatest value, as keys; meaningless while there is no bucket.
    least: f64,
    greatest: f64,
}

impl Slot {
    /// Adds to a bucket's count; gives the change in bytes held.
    #[inline]
    fn add(&mut self, bucket: i32, weight: i64) -> usize {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                self.buckets[at].1 += weight;
                if self.buckets[at].1 == 0 {
                    self.buckets.remove(at);
                }
                0
            }
            Err(_) if weight == 0 => 0,
            Err(at) => {
                let before = self.buckets.capacity();
                self.buckets.insert(at, (bucket, weight));
                (self.buckets.capacity() - before) * size_of::<(i32, i64)>()
            }
        }
    }

    /// Widens the bounds; to be called before the first bucket is added.
    #[inline(always)]
    fn bound(&mut self, least: f64, greatest: f64) {
        if self.buckets.is_empty() {
            (self.least, self.greatest) = (least, greatest);
        }
        if double(least) < double(self.least) {
            self.least = least;
        }
        if double(greatest) > double(self.greatest) {
            self.greatest = greatest;
        }
    }

    fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(i32, i64)>()
    }

    fn quantile(&self, quantile: f64, bounded: bool) -> Option<f64> {
        let live = || self.buckets.iter().filter(|(_, count)| *count > 0);
        let total: i64 = live().map(|(_, count)| count).sum();
        let rank = nearest_rank(quantile, total);
        let mut passed = 0;
        let (bucket, _) = live().find(|(_, count)| {
            passed += count;
            passed >= rank
        })?;
        let value = middle(*bucket);
        if !bounded || value.is_nan() {
            return Some(value);
        }
        Some(if value < self.least {
            self.least
        } else if value > self.greatest {
            self.greatest
        } else {
            value
        })
    }
}

/// `ceil(quantile * total)`, at least 1; a product within 2^-30 of a whole number is meant to be that number (0.07 * 100 is 7.000000000000001).
fn nearest_rank(quantile: f64, total: i64) -> i64 {
    let product = quantile * total as f64;
    let whole = product.round();
    let rank = if (product - whole).abs() <= whole / (1_u64 << 30) as f64 { whole } else { product.ceil() };
    (rank as i64).clamp(1, total.max(1))
}

struct Percentile {
    slots: Vec<Slot>,
    heap_bytes: usize,
    quantile: f64,
    /// Keep the least and the greatest value.
    bounded: bool,
    input: DataType,
    /// What a decimal's unscaled number must stay below.
    limit: f64,
}

impl Percentile {
    fn function(&self) -> Function {
        Function::ApproxPercentile { quantile: self.quantile }
    }
}

impl Accumulator for Percentile {
    fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize_with(groups, Slot::default);
        }
    }

    fn clear(&mut self, group: usize) {
        self.heap_bytes -= std::mem::take(&mut self.slots[group]).heap_bytes();
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let argument = required(argument)?;
        typed(argument, &self.input)?;
        let bounded = self.bounded;
        if bounded {
            no_retractions(weights, self.function().name())?;
        }
        let values = doubles(argument)?;
        let (values, slots, heap_bytes) = (&*values, self.slots.as_mut_slice(), &mut self.heap_bytes);
        visit(groups, argument.nulls(), filter, weights, |row, group, weight| {
            let (slot, value) = (&mut slots[group], values[row]);
            if bounded && weight > 0 {
                // One NaN for all, or the bound kept would be that of the first.
                let bound = if value.is_nan() { f64::NAN } else { value };
                slot.bound(bound, bound);
            }
            *heap_bytes += slot.add(bucket(value), weight);
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        let mut types = vec![("buckets", list_type(&DataType::Int32)), ("counts", list_type(&DataType::Int64))];
        if self.bounded {
            types.extend([("least", DataType::Float64), ("greatest", DataType::Float64)]);
        }
        types
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let slots = || groups.iter().map(|&group| &self.slots[group as usize]);
        let lengths: Vec<usize> = slots().map(|slot| slot.buckets.len()).collect();
        let buckets = Int32Array::from_iter_values(slots().flat_map(|slot| slot.buckets.iter().map(|(bucket, _)| *bucket)));
        let counts = int64(slots().flat_map(|slot| slot.buckets.iter().map(|(_, count)| *count)));
        let mut state = vec![list(Arc::new(buckets), lengths.clone())?, list(counts, lengths)?];
        if self.bounded {
            for bound in [|slot: &Slot| slot.least, |slot: &Slot| slot.greatest] {
                state.push(Arc::new(slots().map(|slot| (!slot.buckets.is_empty()).then(|| bound(slot))).collect::<Float64Array>()));
            }
        }
        Ok(state)
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let rows = groups.len();
        if self.bounded {
            only_in(sign, &self.function())?;
            let bound = |index| column(state, index, rows)?.as_primitive_opt::<Float64Type>().ok_or_else(|| bad_state("bounds"));
            for ((&group, least), greatest) in groups.iter().zip(bound(2)?).zip(bound(3)?) {
                if let (Some(least), Some(greatest)) = (least, greatest) {
                    self.slots[group as usize].bound(least, greatest);
                }
            }
        }
        let (slots, buckets, counts) = unlist(groups, list_column(state, 0, rows)?, Some(list_column(state, 1, rows)?), sign)?;
        typed(&buckets, &DataType::Int32)?;
        for ((&group, &bucket), count) in slots.iter().zip(&*natives::<i32>(&buckets)?).zip(counts.unwrap_or_default()) {
            self.heap_bytes += self.slots[group as usize].add(bucket, count);
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        if self.bounded {
            only_in(sign, &self.function())?;
        }
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            let (slot, source) = (&mut self.slots[to as usize], &other.slots[from as usize]);
            if self.bounded && !source.buckets.is_empty() {
                slot.bound(source.least, source.greatest);
            }
            for &(bucket, count) in &source.buckets {
                self.heap_bytes += slot.add(bucket, sign * count);
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        !self.bounded
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let within = |x: f64| if x.abs() < self.limit || x.is_nan() { x } else { (self.limit * (1.0 - f64::EPSILON)).copysign(x) };
        let values = groups.iter().map(|&group| self.slots[group as usize].quantile(self.quantile, self.bounded).map(within));
        rounded(&self.input, values)
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.heap_bytes
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
