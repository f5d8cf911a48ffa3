//! `min` and `max` of fixed-width values that only arrive: one key and one flag a group.
//!
//! Over input that retracts see `multiset`; strings and bytes are in `extreme_bytes`.

use std::any::Any;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::columns::{column, natives, optional, required, typed};
use super::keys::{Build, Fixed, Key, dispatch};
use super::rows::{each, no_retractions};
use super::{Accumulator, Function, Spec, only_in, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    struct Builder<'a>(&'a Spec);
    impl Build for Builder<'_> {
        fn build<T: Fixed>(self) -> Result<Box<dyn Accumulator>> {
            let max = self.0.function == Function::Max;
            Ok(Box::new(Extreme::<T> { keys: Vec::new(), seen: Vec::new(), max, data_type: self.0.output.clone() }))
        }
    }
    let input = spec.argument()?;
    spec.require_output(spec.output == *input)?;
    dispatch(input, Builder(spec)).unwrap_or_else(|| Err(spec.refuse_input()))
}

struct Extreme<T: Fixed> {
    /// The best key so far; the worst possible one while nothing was seen, so that the loop needs one comparison.
    keys: Vec<T::Key>,
    seen: Vec<bool>,
    max: bool,
    data_type: DataType,
}

impl<T: Fixed> Extreme<T> {
    fn function(&self) -> Function {
        if self.max { Function::Max } else { Function::Min }
    }

    fn empty(&self) -> T::Key {
        if self.max { T::Key::MIN } else { T::Key::MAX }
    }

    fn fold(&mut self, groups: &[u32], values: &ArrayRef, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
        let column = natives::<T>(values)?;
        // A slice: indexing the buffer itself would test its alignment a row.
        let (column, keys, seen) = (&*column, self.keys.as_mut_slice(), self.seen.as_mut_slice());
        if self.max {
            each(groups, values.nulls(), filter, weights, |row, group, _| {
                keys[group] = keys[group].max(column[row].key());
                seen[group] = true;
                Ok(())
            })
        } else {
            each(groups, values.nulls(), filter, weights, |row, group, _| {
                keys[group] = keys[group].min(column[row].key());
                seen[group] = true;
                Ok(())
            })
        }
    }
}

impl<T: Fixed> Accumulator for Extreme<T> {
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
        let values = groups.iter().map(|&group| self.seen[group as usize].then(|| T::value(self.keys[group as usize])));
        optional(&self.data_type, values)
    }

    fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<T::Key>() + self.seen.capacity()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
