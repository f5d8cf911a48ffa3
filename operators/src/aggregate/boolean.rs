//! `bool_and` and `bool_or`: how many values were true and how many false, so that either can leave again.

use std::any::Any;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use std::sync::Arc;
use tidemill_engine::error::Result;

use super::columns::{int64, int64_column, required, typed};
use super::rows::each;
use super::{Accumulator, Function, Spec, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    if *spec.argument()? != DataType::Boolean {
        return Err(spec.refuse_input());
    }
    spec.require_output(spec.output == DataType::Boolean)?;
    Ok(Box::new(Boolean { counts: Vec::new(), and: spec.function == Function::BoolAnd }))
}

struct Boolean {
    /// Of each group: values that were false, values that were true.
    counts: Vec<[i64; 2]>,
    and: bool,
}

impl Accumulator for Boolean {
    fn resize(&mut self, groups: usize) {
        if groups > self.counts.len() {
            self.counts.resize(groups, [0; 2]);
        }
    }

    fn clear(&mut self, group: usize) {
        self.counts[group] = [0; 2];
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let argument = required(argument)?;
        typed(argument, &DataType::Boolean)?;
        let values = argument.as_boolean().values();
        each(groups, argument.nulls(), filter, weights, |row, group, weight| {
            self.counts[group][usize::from(values.value(row))] += weight;
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("false", DataType::Int64), ("true", DataType::Int64)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok([0, 1].map(|side| int64(groups.iter().map(|&group| self.counts[group as usize][side]))).to_vec())
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        for side in [0, 1] {
            let counts = int64_column(state, side, groups.len())?;
            for (&group, &count) in groups.iter().zip(counts.values()) {
                self.counts[group as usize][side] += sign * count;
            }
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            for side in [0, 1] {
                self.counts[to as usize][side] += sign * other.counts[from as usize][side];
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        true
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let result = groups.iter().map(|&group| match self.counts[group as usize] {
            [0, 0] => None,
            [0, _] => Some(true),
            [_, 0] => Some(false),
            _ => Some(!self.and),
        });
        Ok(Arc::new(result.collect::<BooleanArray>()))
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<[i64; 2]>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
