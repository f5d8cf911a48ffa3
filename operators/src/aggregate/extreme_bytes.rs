//! `min` and `max` of strings and bytes that only arrive, in byte order (for UTF-8 that is the order of code points).
//!
//! A group owns one buffer that is written again only when the value changes.

use std::any::Any;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::bytes::{Bytes, build, is_bytes};
use super::columns::{column, required, typed};
use super::rows::{no_retractions, visit};
use super::{Accumulator, Function, Spec, only_in, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    let input = spec.argument()?.clone();
    spec.require_output(is_bytes(&spec.output))?;
    Ok(Box::new(ExtremeBytes { slots: Vec::new(), heap_bytes: 0, max: spec.function == Function::Max, input, output: spec.output.clone() }))
}

struct ExtremeBytes {
    slots: Vec<Option<Vec<u8>>>,
    heap_bytes: usize,
    max: bool,
    input: DataType,
    output: DataType,
}

/// Replaces the slot's value if `value` is better; true allocations show in `heap_bytes`.
#[inline(always)]
fn offer(slot: &mut Option<Vec<u8>>, heap_bytes: &mut usize, value: &[u8], max: bool) {
    match slot {
        Some(held) if (max && value > held.as_slice()) || (!max && value < held.as_slice()) => {
            let before = held.capacity();
            held.clear();
            held.extend_from_slice(value);
            *heap_bytes += held.capacity() - before;
        }
        Some(_) => {}
        None => {
            *heap_bytes += value.len();
            *slot = Some(value.to_vec());
        }
    }
}

impl ExtremeBytes {
    fn function(&self) -> Function {
        if self.max { Function::Max } else { Function::Min }
    }

    fn fold(&mut self, groups: &[u32], values: &ArrayRef, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
        let column = Bytes::of(values)?;
        let (slots, heap_bytes, max) = (self.slots.as_mut_slice(), &mut self.heap_bytes, self.max);
        visit(groups, values.nulls(), filter, weights, |row, group, _| {
            offer(&mut slots[group], heap_bytes, column.get(row), max);
            Ok(())
        })
    }
}

impl Accumulator for ExtremeBytes {
    fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize_with(groups, || None);
        }
    }

    fn clear(&mut self, group: usize) {
        self.heap_bytes -= self.slots[group].take().map_or(0, |held| held.capacity());
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
        no_retractions(weights, self.function().name())?;
        self.fold(groups, argument, filter, weights)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("value", self.output.clone())]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.result(groups)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        only_in(sign, &self.function())?;
        let values = column(state, 0, groups.len())?;
        typed(values, &self.output)?;
        self.fold(groups, values, None, None)
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        only_in(sign, &self.function())?;
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            if let Some(value) = &other.slots[from as usize] {
                offer(&mut self.slots[to as usize], &mut self.heap_bytes, value, self.max);
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        false
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        build(&self.output, groups.iter().map(|&group| self.slots[group as usize].as_deref()))
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Vec<u8>>>() + self.heap_bytes
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
