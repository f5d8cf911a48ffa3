//! `count(*)` and `count(x)`: one i64 a group.

use std::any::Any;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::columns::{int64, int64_column, required};
use super::rows::each;
use super::{Accumulator, Function, Spec, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    spec.require_output(spec.output == DataType::Int64)?;
    Ok(Box::new(Count { counts: Vec::new(), rows: spec.function == Function::CountStar }))
}

struct Count {
    counts: Vec<i64>,
    /// Count rows, whatever the argument.
    rows: bool,
}

impl Accumulator for Count {
    fn resize(&mut self, groups: usize) {
        if groups > self.counts.len() {
            self.counts.resize(groups, 0);
        }
    }

    fn clear(&mut self, group: usize) {
        self.counts[group] = 0;
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let nulls = if self.rows { None } else { required(argument)?.logical_nulls() };
        let counts = self.counts.as_mut_slice();
        each(groups, nulls.as_ref(), filter, weights, |_, group, weight| {
            counts[group] += weight;
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("count", DataType::Int64)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.result(groups)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let counts = int64_column(state, 0, groups.len())?;
        for (&group, &count) in groups.iter().zip(counts.values()) {
            self.counts[group as usize] += sign * count;
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            self.counts[to as usize] += sign * other.counts[from as usize];
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        true
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(int64(groups.iter().map(|&group| self.counts[group as usize])))
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
