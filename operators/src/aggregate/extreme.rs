//! `min` and `max` of fixed-width values that only arrive: one key and one flag a group.
//!
//! Over input that retracts see `multiset`; strings and bytes are in `extreme_bytes`.

use std::any::Any;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::columns::{column, required, typed};
use super::keys::{Key, Width, Zero, width};
use super::rows::{each, no_retractions};
use super::{Accumulator, Function, Spec, only_in, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    let input = spec.argument()?;
    spec.require_output(spec.output == *input)?;
    match width(input) {
        Some(Width::Short) => Ok(Box::new(Extreme::<u32>::new(spec))),
        Some(Width::Word) => Ok(Box::new(Extreme::<u64>::new(spec))),
        Some(Width::Pair) => Ok(Box::new(Extreme::<[u64; 2]>::new(spec))),
        None => Err(spec.refuse_input()),
    }
}

struct Extreme<K> {
    /// The best key so far; the worst possible one while nothing was seen, so that the loop needs one comparison.
    keys: Vec<K>,
    seen: Vec<bool>,
    max: bool,
    data_type: DataType,
}

impl<K: Key> Extreme<K> {
    fn new(spec: &Spec) -> Self {
        Self { keys: Vec::new(), seen: Vec::new(), max: spec.function == Function::Max, data_type: spec.output.clone() }
    }

    fn function(&self) -> Function {
        if self.max { Function::Max } else { Function::Min }
    }

    fn empty(&self) -> K {
        if self.max { K::MIN } else { K::MAX }
    }

    fn fold(&mut self, groups: &[u32], values: &ArrayRef, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
        let column = K::read(values, Zero::Signed)?;
        let (column, keys, seen) = (column.as_slice(), self.keys.as_mut_slice(), self.seen.as_mut_slice());
        if self.max {
            each(groups, values.nulls(), filter, weights, |row, group, _| {
                keys[group] = keys[group].max(column[row]);
                seen[group] = true;
                Ok(())
            })
        } else {
            each(groups, values.nulls(), filter, weights, |row, group, _| {
                keys[group] = keys[group].min(column[row]);
                seen[group] = true;
                Ok(())
            })
        }
    }
}

impl<K: Key> Accumulator for Extreme<K> {
    fn resize(&mut self, groups: usize) {
        if groups > self.keys.len() {
            self.keys.resize(groups, self.empty());
            self.seen.resize(groups, false);
        }
    }

    fn clear(&mut self, group: usize) {
        self.keys[group] = self.empty();
        self.seen[group] = false;
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let argument = required(argument)?;
        typed(argument, &self.data_type)?;
        no_retractions(weights, self.function().name())?;
        self.fold(groups, argument, filter, weights)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("value", self.data_type.clone())]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.result(groups)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        only_in(sign, &self.function())?;
        let values = column(state, 0, groups.len())?;
        typed(values, &self.data_type)?;
        self.fold(groups, values, None, None)
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        only_in(sign, &self.function())?;
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            let (to, key) = (to as usize, other.keys[from as usize]);
            self.keys[to] = if self.max { self.keys[to].max(key) } else { self.keys[to].min(key) };
            self.seen[to] |= other.seen[from as usize];
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        false
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let values = groups.iter().map(|&group| self.seen[group as usize].then(|| self.keys[group as usize]));
        K::write(&self.data_type, values)
    }

    fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<K>() + self.seen.capacity()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
