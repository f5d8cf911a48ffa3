//! `min` and `max` over input that retracts: every value of a group with its count, in order.
//!
//! The values lie in bags (`bag`): the extreme is always at an end.

use std::any::Any;
use std::marker::PhantomData;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::bag::Bags;
use super::bytes::{self, Bytes};
use super::columns::{int64, list, list_column, list_type, required, typed, unlist};
use super::keys::{Key, Width, Zero, width};
use super::rows::visit;
use super::{Accumulator, Function, Spec, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    let input = spec.argument()?;
    if bytes::is_bytes(input) {
        spec.require_output(bytes::is_bytes(&spec.output))?;
        return Ok(Box::new(Multiset::<Texts>::new(spec)?));
    }
    spec.require_output(spec.output == *input)?;
    match width(input) {
        Some(Width::Short) => Ok(Box::new(Multiset::<Numbers<u32>>::new(spec)?)),
        Some(Width::Word) => Ok(Box::new(Multiset::<Numbers<u64>>::new(spec)?)),
        Some(Width::Pair) => Ok(Box::new(Multiset::<Numbers<[u64; 2]>>::new(spec)?)),
        None => Err(spec.refuse_input()),
    }
}

/// What the values are.
trait Kind: Send + 'static {
    type Value: Ord + Clone + Send;
    fn fold(
        bags: &mut Bags<Self::Value>,
        groups: &[u32],
        values: &ArrayRef,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()>;
    fn array<'a>(data_type: &DataType, values: impl Iterator<Item = Option<&'a Self::Value>>) -> Result<ArrayRef>;
    /// Bytes of a value outside its entry.
    fn heap_bytes(value: &Self::Value) -> usize;
}

struct Numbers<K>(PhantomData<fn() -> K>);

impl<K: Key> Kind for Numbers<K> {
    type Value = K;

    fn fold(bags: &mut Bags<K>, groups: &[u32], values: &ArrayRef, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
        let column = K::read(values, Zero::Signed)?;
        visit(groups, values.nulls(), filter, weights, |row, group, weight| {
            let key = column[row];
            bags.add(group, &key, weight, 0, || key);
            Ok(())
        })
    }

    fn array<'a>(data_type: &DataType, values: impl Iterator<Item = Option<&'a K>>) -> Result<ArrayRef> {
        K::write(data_type, values.map(|value| value.copied()))
    }

    fn heap_bytes(_: &K) -> usize {
        0
    }
}

struct Texts;

impl Kind for Texts {
    type Value = Box<[u8]>;

    fn fold(
        bags: &mut Bags<Box<[u8]>>,
        groups: &[u32],
        values: &ArrayRef,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let column = Bytes::of(values)?;
        visit(groups, values.nulls(), filter, weights, |row, group, weight| {
            let value = column.get(row);
            bags.add(group, value, weight, value.len(), || value.into());
            Ok(())
        })
    }

    fn array<'a>(data_type: &DataType, values: impl Iterator<Item = Option<&'a Box<[u8]>>>) -> Result<ArrayRef> {
        bytes::build(data_type, values.map(|value| value.map(AsRef::as_ref)))
    }

    fn heap_bytes(value: &Box<[u8]>) -> usize {
        value.len()
    }
}

struct Multiset<K: Kind> {
    bags: Bags<K::Value>,
    max: bool,
    input: DataType,
    output: DataType,
}

impl<K: Kind> Multiset<K> {
    fn new(spec: &Spec) -> Result<Self> {
        let bags = Bags::default();
        Ok(Self { bags, max: spec.function == Function::Max, input: spec.argument()?.clone(), output: spec.output.clone() })
    }
}

impl<K: Kind> Accumulator for Multiset<K> {
    fn resize(&mut self, groups: usize) {
        self.bags.resize(groups);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group, K::heap_bytes);
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
        K::fold(&mut self.bags, groups, argument, filter, weights)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("values", list_type(&self.input)), ("counts", list_type(&DataType::Int64))]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let bags = || groups.iter().map(|&group| &self.bags.slots[group as usize]);
        let lengths: Vec<usize> = bags().map(|bag| bag.iter().count()).collect();
        let values = K::array(&self.input, bags().flat_map(|bag| bag.iter().map(|(value, _)| Some(value))))?;
        let counts = int64(bags().flat_map(|bag| bag.iter().map(|(_, count)| count)));
        Ok(vec![list(values, lengths.clone())?, list(counts, lengths)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let rows = groups.len();
        let (groups, values, weights) = unlist(groups, list_column(state, 0, rows)?, Some(list_column(state, 1, rows)?), sign)?;
        typed(&values, &self.input)?;
        K::fold(&mut self.bags, &groups, &values, None, weights.as_deref())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            for (value, count) in other.bags.slots[from as usize].iter() {
                self.bags.add(to as usize, value, sign * count, K::heap_bytes(value), || value.clone());
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        true
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        K::array(&self.output, groups.iter().map(|&group| self.bags.slots[group as usize].extreme(self.max)))
    }

    fn bytes(&self) -> usize {
        self.bags.bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
