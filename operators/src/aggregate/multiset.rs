//! `min` and `max` over input that retracts: every value of a group with its count, in order.
//!
//! One value in the slot, up to [`FEW_MAX`] in a sorted list, more in a B-tree: the extreme is always at an end.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::marker::PhantomData;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::bytes::{self, Bytes};
use super::columns::{int64, list, list_column, list_type, required, typed, unlist};
use super::keys::{Key, Width, Zero, width};
use super::rows::visit;
use super::{Accumulator, Function, Spec, same};

/// Longest sorted list before a group's values become a tree.
const FEW_MAX: usize = 32;

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

/// The values of one group. A count may be negative while a retraction has come before its row; zero is never kept.
#[derive(Default)]
enum Bag<K> {
    #[default]
    Empty,
    One(K, i64),
    Few(Vec<(K, i64)>),
    Many(BTreeMap<K, i64>),
}

impl<K: Ord> Bag<K> {
    /// Adds to the count of a value; gives how many entries came (1), went (-1) or neither.
    fn add<Q: Ord + ?Sized>(&mut self, value: &Q, weight: i64, own: impl FnOnce() -> K) -> isize
    where
        K: Borrow<Q>,
    {
        if weight == 0 {
            return 0;
        }
        match self {
            Self::Empty => *self = Self::One(own(), weight),
            Self::One(held, count) if (*held).borrow() == value => {
                *count += weight;
                if *count == 0 {
                    *self = Self::Empty;
                    return -1;
                }
                return 0;
            }
            Self::One(..) => {
                if let Self::One(held, count) = std::mem::take(self) {
                    let pair = if held.borrow() < value { [(held, count), (own(), weight)] } else { [(own(), weight), (held, count)] };
                    *self = Self::Few(Vec::from(pair));
                }
            }
            Self::Few(list) => match list.binary_search_by(|(held, _)| held.borrow().cmp(value)) {
                Ok(index) => {
                    list[index].1 += weight;
                    if list[index].1 == 0 {
                        list.remove(index);
                        return -1;
                    }
                    return 0;
                }
                Err(index) if list.len() < FEW_MAX => list.insert(index, (own(), weight)),
                Err(_) => {
                    let mut tree: BTreeMap<K, i64> = std::mem::take(list).into_iter().collect();
                    tree.insert(own(), weight);
                    *self = Self::Many(tree);
                }
            },
            Self::Many(tree) => {
                if let Some(count) = tree.get_mut(value) {
                    *count += weight;
                    if *count == 0 {
                        tree.remove(value);
                        return -1;
                    }
                    return 0;
                }
                match tree.entry(own()) {
                    Entry::Vacant(free) => drop(free.insert(weight)),
                    Entry::Occupied(mut held) => *held.get_mut() += weight,
                }
            }
        }
        1
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, i64)> {
        let (one, few, many) = match self {
            Self::Empty => (None, [].as_slice(), None),
            Self::One(value, count) => (Some((value, *count)), [].as_slice(), None),
            Self::Few(list) => (None, list.as_slice(), None),
            Self::Many(tree) => (None, [].as_slice(), Some(tree)),
        };
        let many = many.into_iter().flat_map(|tree| tree.iter().map(|(value, &count)| (value, count)));
        one.into_iter().chain(few.iter().map(|(value, count)| (value, *count))).chain(many)
    }

    fn extreme(&self, max: bool) -> Option<&K> {
        let live = |(_, count): &(&K, i64)| *count > 0;
        let found = if max { self.iter().rev().find(live) } else { self.iter().find(live) };
        found.map(|(value, _)| value)
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

/// The bags of all groups and what they hold in all.
struct Bags<V> {
    slots: Vec<Bag<V>>,
    entries: usize,
    heap_bytes: usize,
}

impl<V: Ord> Bags<V> {
    fn add<Q: Ord + ?Sized>(&mut self, group: usize, value: &Q, weight: i64, heap_bytes: usize, own: impl FnOnce() -> V)
    where
        V: Borrow<Q>,
    {
        match self.slots[group].add(value, weight, own) {
            1 => (self.entries, self.heap_bytes) = (self.entries + 1, self.heap_bytes + heap_bytes),
            -1 => (self.entries, self.heap_bytes) = (self.entries - 1, self.heap_bytes - heap_bytes),
            _ => {}
        }
    }
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
        let bags = Bags { slots: Vec::new(), entries: 0, heap_bytes: 0 };
        Ok(Self { bags, max: spec.function == Function::Max, input: spec.argument()?.clone(), output: spec.output.clone() })
    }
}

impl<K: Kind> Accumulator for Multiset<K> {
    fn resize(&mut self, groups: usize) {
        if groups > self.bags.slots.len() {
            self.bags.slots.resize_with(groups, Bag::default);
        }
    }

    fn clear(&mut self, group: usize) {
        for (value, _) in std::mem::take(&mut self.bags.slots[group]).iter() {
            self.bags.entries -= 1;
            self.bags.heap_bytes -= K::heap_bytes(value);
        }
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
        // Lists and tree nodes are about two thirds full.
        let entry = size_of::<(K::Value, i64)>() * 3 / 2;
        self.bags.slots.capacity() * size_of::<Bag<K::Value>>() + self.bags.entries * entry + self.bags.heap_bytes
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
