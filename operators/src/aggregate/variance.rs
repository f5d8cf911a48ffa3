//! `var_pop`, `var_samp`, `stddev_pop`, `stddev_samp`: exact Σx, exact Σx² and a count a group.
//!
//! The square of a 53-bit mantissa has 106 bits, so Σx² is as exact as Σx, with no fused multiply-add and no underflow. The variance is
//! `(n Σx² - (Σx)²) / (n (n - 1))` (or `/ n²`) in whole numbers of any length, rounded once: it is the same in any order, never negative,
//! and zero exactly when all values are equal. A standard deviation is the square root of that double.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, BooleanArray, Float64Array};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::big::multiply;
use super::columns::{binary_column, doubles, int64, int64_column, required, typed};
use super::exact::{Cell, Digits, Pool, decompose};
use super::exact_codec::{encode, merge};
use super::rows::visit;
use super::specials::{Counts, Specials};
use super::{Accumulator, Function, Spec, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    spec.require_output(spec.output == DataType::Float64)?;
    let input = spec.argument()?;
    // DataFusion casts BIGINT and DECIMAL to DOUBLE in the plan, where it can be seen.
    if !(input.is_floating() || (input.is_integer() && input.primitive_width() < Some(8))) {
        return Err(spec.refuse_input());
    }
    Ok(Box::new(Variance {
        slots: Vec::new(),
        pool: Pool::default(),
        specials: Specials::default(),
        sample: matches!(spec.function, Function::VarSamp | Function::StddevSamp),
        root: matches!(spec.function, Function::StddevPop | Function::StddevSamp),
        input: input.clone(),
    }))
}

#[derive(Clone, Copy, Default)]
struct Slot {
    sum: Cell<2>,
    squares: Cell<4>,
    count: i64,
}

impl Slot {
    #[inline(always)]
    fn add(&mut self, pool: &mut Pool, value: f64, weight: i64) {
        let (mantissa, exponent, negative) = decompose(value);
        let mantissa = u128::from(mantissa);
        self.sum.add(pool, mantissa * u128::from(weight.unsigned_abs()), exponent, negative != (weight < 0));
        // 106 bits leave room for 20 bits of weight at a time.
        let (mut rest, mut exponent) = (weight.unsigned_abs(), 2 * exponent);
        while rest > 0 {
            self.squares.add(pool, mantissa * mantissa * u128::from(rest & 0xf_ffff), exponent, weight < 0);
            (rest, exponent) = (rest >> 20, exponent + 20);
        }
    }

    fn variance(&self, pool: &Pool, sample: bool) -> Option<f64> {
        let count = u64::try_from(self.count).ok().filter(|&count| count > u64::from(sample))?;
        let divisors = [count, count - u64::from(sample)];
        Some(variance(&self.sum.digits(pool), &self.squares.digits(pool), count, divisors))
    }
}

/// `(count * squares - sum²) / (divisors[0] * divisors[1])`, rounded once; 0 if that were negative, which only a state with rows
/// taken out before they came in can be.
fn variance(sum: &Digits, squares: &Digits, count: u64, divisors: [u64; 2]) -> f64 {
    let minuend = Digits::trimmed(squares.negative, squares.first, multiply(&squares.digits, &[count as u32, (count >> 32) as u32]));
    let subtrahend = Digits::trimmed(false, 2 * sum.first, multiply(&sum.digits, &sum.digits));
    if minuend.negative || minuend.digits.is_empty() {
        return 0.0;
    }
    // Six more digits below: 192 bits, so that the quotient keeps 64 after both divisions.
    let low = minuend.first.min(if subtrahend.digits.is_empty() { i32::MAX } else { subtrahend.first }) - 6;
    let high = (minuend.first + minuend.digits.len() as i32).max(subtrahend.first + subtrahend.digits.len() as i32);
    let mut digits = vec![0_u32; (high - low).max(0) as usize];
    for (to, from) in digits.iter_mut().skip((minuend.first - low) as usize).zip(&minuend.digits) {
        *to = *from;
    }
    let mut borrow = 0_i64;
    let mut taken = subtrahend.digits.iter();
    for digit in digits.iter_mut().skip((subtrahend.first - low).max(0) as usize) {
        let difference = i64::from(*digit) - i64::from(taken.next().copied().unwrap_or(0)) + borrow;
        *digit = difference as u32;
        borrow = difference >> 32;
    }
    if borrow != 0 {
        return 0.0;
    }
    let mut rest = false;
    for divisor in divisors {
        rest |= divide(&mut digits, divisor);
    }
    // Something left over only matters to a tie: the last bit, at least 66 below the first, says that there is more.
    if let (true, Some(lowest)) = (rest, digits.first_mut()) {
        *lowest |= 1;
    }
    Digits::trimmed(false, low, digits).quotient(1)
}

/// Divides in place; true if something is left over.
fn divide(digits: &mut [u32], divisor: u64) -> bool {
    if let Ok(small @ 1..) = u32::try_from(divisor) {
        let mut rest = 0_u64;
        for digit in digits.iter_mut().rev() {
            let dividend = rest << 32 | u64::from(*digit);
            (*digit, rest) = ((dividend / u64::from(small)) as u32, dividend % u64::from(small));
        }
        return rest != 0;
    }
    let mut rest = 0_u128;
    for digit in digits.iter_mut().rev() {
        let dividend = rest << 32 | u128::from(*digit);
        (*digit, rest) = ((dividend / u128::from(divisor.max(1))) as u32, dividend % u128::from(divisor.max(1)));
    }
    rest != 0
}

struct Variance {
    slots: Vec<Slot>,
    pool: Pool,
    specials: Specials,
    sample: bool,
    root: bool,
    input: DataType,
}

impl Accumulator for Variance {
    fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize(groups, Slot::default());
        }
    }

    fn clear(&mut self, group: usize) {
        let slot = &mut self.slots[group];
        slot.sum.clear(&mut self.pool);
        slot.squares.clear(&mut self.pool);
        slot.count = 0;
        self.specials.clear(group);
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
        let values = doubles(argument)?;
        let (values, slots, pool, specials) = (&*values, self.slots.as_mut_slice(), &mut self.pool, &mut self.specials);
        visit(groups, argument.nulls(), filter, weights, |row, group, weight| {
            let (slot, value) = (&mut slots[group], values[row]);
            slot.count += weight;
            if value.is_finite() {
                slot.add(pool, value, weight)
            } else {
                specials.note(group, value, weight)
            }
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("sum", DataType::Binary), ("squares", DataType::Binary), ("count", DataType::Int64)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let (mut sums, mut squares, mut bytes) = (BinaryBuilder::new(), BinaryBuilder::new(), Vec::new());
        for &group in groups {
            let slot = &self.slots[group as usize];
            bytes.clear();
            encode(&slot.sum.digits(&self.pool), self.specials.get(group), &mut bytes);
            sums.append_value(&bytes);
            bytes.clear();
            encode(&slot.squares.digits(&self.pool), Counts::default(), &mut bytes);
            squares.append_value(&bytes);
        }
        let counts = int64(groups.iter().map(|&group| self.slots[group as usize].count));
        Ok(vec![Arc::new(sums.finish()), Arc::new(squares.finish()), counts])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let rows = groups.len();
        let (sums, squares, counts) = (binary_column(state, 0, rows)?, binary_column(state, 1, rows)?, int64_column(state, 2, rows)?);
        for (((&group, sum), square), &count) in groups.iter().zip(sums).zip(squares).zip(counts.values()) {
            let slot = &mut self.slots[group as usize];
            let specials = merge(&mut slot.sum, &mut self.pool, sum.unwrap_or_default(), sign)?;
            merge(&mut slot.squares, &mut self.pool, square.unwrap_or_default(), sign)?;
            slot.count += sign * count;
            self.specials.add(group, specials, sign);
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            let (slot, source) = (&mut self.slots[to as usize], &other.slots[from as usize]);
            slot.sum.merge(&mut self.pool, &source.sum, &other.pool, sign);
            slot.squares.merge(&mut self.pool, &source.squares, &other.pool, sign);
            slot.count += sign * source.count;
            self.specials.add(to, other.specials.get(from), sign);
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        true
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let values = groups.iter().map(|&group| {
            let variance = self.slots[group as usize].variance(&self.pool, self.sample)?;
            let variance = if self.specials.sum(group).is_some() { f64::NAN } else { variance };
            Some(if self.root { variance.sqrt() } else { variance })
        });
        Ok(Arc::new(values.collect::<Float64Array>()))
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.pool.bytes() + self.specials.bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
