//! `bit_and`, `bit_or` over input that only appends, and `bit_xor` over any: one number and a count a group.
//!
//! An exclusive or takes a value out as it takes it in. What `and` and `or` have folded in can't leave again: over input that retracts they
//! are taken over a multiset (`listing`).

use std::any::Any;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::columns::{int64, int64_column, longs, narrowed, required, typed};
use super::rows::{no_retractions, visit};
use super::{Accumulator, Function, Spec, only_in, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    let input = spec.argument()?;
    if !input.is_integer() {
        return Err(spec.refuse_input());
    }
    spec.require_output(spec.output == *input || (*input == DataType::UInt64 && spec.output == DataType::Int64))?;
    let neutral = if spec.function == Function::BitAnd { -1 } else { 0 };
    Ok(Box::new(Bits { slots: Vec::new(), neutral, spec: spec.clone() }))
}

struct Bits {
    /// Of each group: the bits, and how many values are in.
    slots: Vec<[i64; 2]>,
    neutral: i64,
    spec: Spec,
}

impl Bits {
    fn fold(function: &Function, bits: &mut i64, value: i64) {
        match function {
            Function::BitAnd => *bits &= value,
            Function::BitOr => *bits |= value,
            _ => *bits ^= value,
        }
    }
}

impl Accumulator for Bits {
    fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize(groups, [self.neutral, 0]);
        }
    }

    fn clear(&mut self, group: usize) {
        self.slots[group] = [self.neutral, 0];
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let argument = required(argument)?;
        typed(argument, self.spec.argument()?)?;
        let function = &self.spec.function;
        if *function != Function::BitXor {
            no_retractions(weights, function.name())?;
        }
        let (values, slots) = (longs(argument)?, self.slots.as_mut_slice());
        visit(groups, argument.nulls(), filter, weights, |row, group, weight| {
            let [bits, count] = &mut slots[group];
            *count += weight;
            if *function != Function::BitXor || weight % 2 != 0 {
                Self::fold(function, bits, values[row]);
            }
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("bits", DataType::Int64), ("count", DataType::Int64)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok([0, 1].map(|side| int64(groups.iter().map(|&group| self.slots[group as usize][side]))).to_vec())
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        if !self.invertible() {
            only_in(sign, &self.spec.function)?;
        }
        let (bits, counts) = (int64_column(state, 0, groups.len())?, int64_column(state, 1, groups.len())?);
        for ((&group, &bits), &count) in groups.iter().zip(bits.values()).zip(counts.values()) {
            let slot = &mut self.slots[group as usize];
            Self::fold(&self.spec.function, &mut slot[0], bits);
            slot[1] += sign * count;
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        if !self.invertible() {
            only_in(sign, &self.spec.function)?;
        }
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            let [bits, count] = other.slots[from as usize];
            Self::fold(&self.spec.function, &mut self.slots[to as usize][0], bits);
            self.slots[to as usize][1] += sign * count;
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        self.spec.function == Function::BitXor
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let values = groups.iter().map(|&group| match self.slots[group as usize] {
            [bits, count] if count > 0 => Some(bits),
            _ => None,
        });
        narrowed(&self.spec.output, values)
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<[i64; 2]>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
