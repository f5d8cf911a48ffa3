//! `sum` and `avg` of REAL and DOUBLE: the exact sum (`exact`) and a count a group; rounded once, at the result.
//!
//! 32 bytes a group while its values spread over less than 2^73. `avg` rounds the exact quotient, not a rounded sum.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, BooleanArray, Float64Array};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::columns::{binary_column, doubles, int64, int64_column, required, typed};
use super::exact::{Cell, Pool, decompose};
use super::exact_codec::{encode, merge};
use super::rows::each;
use super::specials::Specials;
use super::{Accumulator, Function, Spec, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    spec.require_output(spec.output == DataType::Float64)?;
    let average = spec.function == Function::Avg;
    let input = spec.argument()?.clone();
    Ok(Box::new(FloatSum { slots: Vec::new(), pool: Pool::default(), specials: Specials::default(), average, input }))
}

#[derive(Clone, Copy, Default)]
struct Slot {
    sum: Cell<2>,
    count: i64,
}

struct FloatSum {
    slots: Vec<Slot>,
    pool: Pool,
    specials: Specials,
    average: bool,
    input: DataType,
}

impl Accumulator for FloatSum {
    fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize(groups, Slot::default());
        }
    }

    fn clear(&mut self, group: usize) {
        self.slots[group].sum.clear(&mut self.pool);
        self.slots[group].count = 0;
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
        each(groups, argument.nulls(), filter, weights, |row, group, weight| {
            let (slot, value) = (&mut slots[group], values[row]);
            slot.count += weight;
            if value.is_finite() {
                let (mantissa, exponent, negative) = decompose(value);
                // 53 and at most 64 bits.
                let mantissa = u128::from(mantissa) * u128::from(weight.unsigned_abs());
                slot.sum.add(pool, mantissa, exponent, negative != (weight < 0));
            } else {
                specials.note(group, value, weight);
            }
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("sum", DataType::Binary), ("count", DataType::Int64)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let (mut sums, mut bytes) = (BinaryBuilder::with_capacity(groups.len(), groups.len() * 16), Vec::new());
        for &group in groups {
            bytes.clear();
            encode(&self.slots[group as usize].sum.digits(&self.pool), self.specials.get(group), &mut bytes);
            sums.append_value(&bytes);
        }
        Ok(vec![Arc::new(sums.finish()), int64(groups.iter().map(|&group| self.slots[group as usize].count))])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let (sums, counts) = (binary_column(state, 0, groups.len())?, int64_column(state, 1, groups.len())?);
        for ((&group, sum), &count) in groups.iter().zip(sums).zip(counts.values()) {
            let slot = &mut self.slots[group as usize];
            let specials = merge(&mut slot.sum, &mut self.pool, sum.unwrap_or_default(), sign)?;
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
            let slot = &self.slots[group as usize];
            let divisor = if self.average { slot.count.unsigned_abs() } else { 1 };
            (slot.count > 0).then(|| self.specials.sum(group).unwrap_or_else(|| slot.sum.quotient(&self.pool, divisor)))
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
