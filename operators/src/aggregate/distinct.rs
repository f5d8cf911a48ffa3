//! `count`, `sum` and `avg` over DISTINCT values: the exact set of each group.
//!
//! Values are keys of fixed width (`keys`) or numbers of interned strings (`intern`) in per-group `sets`. The state is the sorted list of
//! values, with a list of counts where input retracts. -0.0 counts as 0.0 and all NaN as one, as in GROUP BY.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::DataType;
use tidemill_engine::error::{Error, Result};

use super::bytes::{self, Bytes};
use super::columns::{int64, list, list_column, list_type, required, typed, unlist};
use super::intern::Interner;
use super::keys::{Key, Width, Zero, width};
use super::rows::{no_retractions, visit};
use super::sets::{Change, Sets, Tally};
use super::{Accumulator, Function, Spec, only_in, same};

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    let over_values = |function| Spec { function, retracts: false, ..spec.clone() };
    match spec.function {
        // A sum of the values must be possible, and its refusal is the one to show.
        Function::SumDistinct => drop(super::accumulator(&over_values(Function::Sum))?),
        Function::AvgDistinct => drop(super::accumulator(&over_values(Function::Avg))?),
        _ => spec.require_output(spec.output == DataType::Int64)?,
    }
    match spec.argument()? {
        input if bytes::is_bytes(input) => Ok(boxed(spec, Interner::default())),
        input => match width(input) {
            Some(Width::Short) => Ok(boxed(spec, Numbers::<u32>(PhantomData))),
            Some(Width::Word) => Ok(boxed(spec, Numbers::<u64>(PhantomData))),
            Some(Width::Pair) => Ok(boxed(spec, Numbers::<[u64; 2]>(PhantomData))),
            None => Err(spec.refuse_input()),
        },
    }
}

fn boxed<D: Domain>(spec: &Spec, domain: D) -> Box<dyn Accumulator> {
    if spec.retracts {
        Box::new(Distinct::<D, i64> { spec: spec.clone(), domain, sets: Sets::default() })
    } else {
        Box::new(Distinct::<D, ()> { spec: spec.clone(), domain, sets: Sets::default() })
    }
}

/// How values become keys and keys values again.
trait Domain: Send + 'static {
    type Key: Key;
    /// Adds the rows that count to the sets.
    fn fold<C: Tally>(
        &mut self,
        sets: &mut Sets<Self::Key, C>,
        groups: &[u32],
        values: &ArrayRef,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()>;
    /// The key here of a value of another accumulator.
    fn adopt(&mut self, other: &Self, key: Self::Key) -> Result<Self::Key>;
    /// A key came into a set or left one.
    fn changed(&mut self, key: Self::Key, change: Change);
    /// Puts keys into the order of their values.
    fn sort(&self, keys: &mut [(Self::Key, i64)]);
    fn array(&self, data_type: &DataType, keys: &[(Self::Key, i64)]) -> Result<ArrayRef>;
    fn bytes(&self) -> usize;
}

/// Values of fixed width are their own keys.
struct Numbers<K>(PhantomData<fn() -> K>);

impl<K: Key> Domain for Numbers<K> {
    type Key = K;

    fn fold<C: Tally>(
        &mut self,
        sets: &mut Sets<K, C>,
        groups: &[u32],
        values: &ArrayRef,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let column = K::read(values, Zero::Folded)?;
        visit(groups, values.nulls(), filter, weights, |row, group, weight| {
            sets.add(group, column[row], weight);
            Ok(())
        })
    }

    fn adopt(&mut self, _: &Self, key: K) -> Result<K> {
        Ok(key)
    }

    fn changed(&mut self, _: K, _: Change) {}

    fn sort(&self, keys: &mut [(K, i64)]) {
        keys.sort_unstable_by_key(|(key, _)| *key);
    }

    fn array(&self, data_type: &DataType, keys: &[(K, i64)]) -> Result<ArrayRef> {
        K::write(data_type, keys.iter().map(|(key, _)| Some(*key)))
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Domain for Interner {
    type Key = u32;

    fn fold<C: Tally>(
        &mut self,
        sets: &mut Sets<u32, C>,
        groups: &[u32],
        values: &ArrayRef,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let column = Bytes::of(values)?;
        visit(groups, values.nulls(), filter, weights, |row, group, weight| {
            if weight != 0 {
                let id = self.intern(column.get(row))?;
                self.changed(id, sets.add(group, id, weight));
            }
            Ok(())
        })
    }

    fn adopt(&mut self, other: &Self, key: u32) -> Result<u32> {
        self.intern(other.text(key))
    }

    #[inline(always)]
    fn changed(&mut self, key: u32, change: Change) {
        match change {
            Change::Added => self.hold(key),
            Change::Removed => self.release(key),
            Change::Kept => {}
        }
    }

    fn sort(&self, keys: &mut [(u32, i64)]) {
        keys.sort_unstable_by(|(a, _), (b, _)| self.text(*a).cmp(self.text(*b)));
    }

    fn array(&self, data_type: &DataType, keys: &[(u32, i64)]) -> Result<ArrayRef> {
        bytes::build(data_type, keys.iter().map(|(key, _)| Some(self.text(*key))))
    }

    fn bytes(&self) -> usize {
        Interner::bytes(self)
    }
}

struct Distinct<D: Domain, C> {
    spec: Spec,
    domain: D,
    sets: Sets<D::Key, C>,
}

impl<D: Domain, C: Tally> Distinct<D, C> {
    /// The keys of several groups, each group's sorted, and how many each has.
    fn sorted(&self, groups: &[u32], live_only: bool) -> (Vec<(D::Key, i64)>, Vec<usize>) {
        let (mut keys, mut lengths) = (Vec::new(), Vec::with_capacity(groups.len()));
        for &group in groups {
            let start = keys.len();
            keys.extend(self.sets.keys(group as usize).filter(|(_, count)| !live_only || *count > 0));
            self.domain.sort(&mut keys[start..]);
            lengths.push(keys.len() - start);
        }
        (keys, lengths)
    }

    fn fold(&mut self, groups: &[u32], values: &ArrayRef, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
        typed(values, self.spec.argument()?)?;
        if !C::COUNTS {
            no_retractions(weights, self.spec.function.name())?;
        }
        self.domain.fold(&mut self.sets, groups, values, filter, weights)
    }
}

impl<D: Domain, C: Tally> Accumulator for Distinct<D, C> {
    fn resize(&mut self, groups: usize) {
        self.sets.resize(groups);
    }

    fn clear(&mut self, group: usize) {
        self.sets.clear(group, |key| self.domain.changed(key, Change::Removed));
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        self.fold(groups, required(argument)?, filter, weights)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        let input = self.spec.input.clone().unwrap_or(DataType::Null);
        let mut types = vec![("values", list_type(&input))];
        if C::COUNTS {
            types.push(("counts", list_type(&DataType::Int64)));
        }
        types
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let (keys, lengths) = self.sorted(groups, false);
        let values = self.domain.array(self.spec.argument()?, &keys)?;
        let mut state = vec![list(values, lengths.clone())?];
        if C::COUNTS {
            state.push(list(int64(keys.iter().map(|(_, count)| *count)), lengths)?);
        }
        Ok(state)
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        if !C::COUNTS {
            only_in(sign, &self.spec.function)?;
        }
        let rows = groups.len();
        let counts = if C::COUNTS { Some(list_column(state, 1, rows)?) } else { None };
        let (groups, values, weights) = unlist(groups, list_column(state, 0, rows)?, counts, sign)?;
        self.fold(&groups, &values, None, weights.as_deref())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        if !C::COUNTS {
            only_in(sign, &self.spec.function)?;
        }
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            for (key, count) in other.sets.keys(from as usize) {
                let key = self.domain.adopt(&other.domain, key)?;
                let change = self.sets.add(to as usize, key, sign * count);
                self.domain.changed(key, change);
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        C::COUNTS
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let function = match self.spec.function {
            Function::SumDistinct => Function::Sum,
            Function::AvgDistinct => Function::Avg,
            _ => {
                let counts = groups.iter().map(|&group| i64::try_from(self.sets.live(group as usize)));
                let counts = counts.collect::<std::result::Result<Int64Array, _>>();
                return counts.map(|counts| Arc::new(counts) as ArrayRef).map_err(|_| Error::failed("count(DISTINCT) past 64 bits"));
            }
        };
        // The sum of the set is the plain sum of its values.
        let (keys, lengths) = self.sorted(groups, true);
        let slots: Vec<u32> = (0..).zip(lengths).flat_map(|(slot, length)| std::iter::repeat_n(slot, length)).collect();
        let mut sums = super::accumulator(&Spec { function, retracts: false, ..self.spec.clone() })?;
        sums.resize(groups.len());
        sums.update(&slots, Some(&self.domain.array(self.spec.argument()?, &keys)?), None, None)?;
        sums.result(&(0..).take(groups.len()).collect::<Vec<u32>>())
    }

    fn bytes(&self) -> usize {
        self.sets.bytes() + self.domain.bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
