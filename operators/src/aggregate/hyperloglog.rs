//! `approx_distinct`: HyperLogLog with 2^14 registers of the frozen hash (`hash`), so that it merges in any order to equal bytes.
//!
//! The standard error is 1.04 / sqrt(2^14) = 0.81 % (four of them: 3.25 %), at any number of values and without a lookup table for the
//! bias: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), the improved raw estimator.
//!
//! The hash's highest 14 bits choose the register, which keeps the greatest rank (one more than the leading zeros of the other 50, at
//! most 51). A group first keeps the sorted hashes themselves, so that its count is exact up to [`SPARSE_MAX`] values, then the registers as
//! a byte each. Which form is a function of the values alone: how many different hashes there were.
//!
//! A number's hash is `hash_u64` of its 64 bits as `keys::words` defines them, that of strings and bytes `hash_bytes`.
//!
//! State: one byte of form, then 0: the hashes in ascending order; 1: 2^14 ranks. Empty: the byte 0.
//! A sketch can't let a value go, so it is refused over input that retracts.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, BooleanArray};
use arrow::datatypes::DataType;
use tidemill_engine::error::{Error, Result};

use super::bytes::{Bytes, is_bytes};
use super::columns::{bad_state, binary_column, int64, required, typed};
use super::hash::{hash_bytes, hash_u64};
use super::keys::{width, words};
use super::rows::{no_retractions, visit};
use super::{Accumulator, Function, Spec, only_in, same};

const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// Longest list of hashes: 8 bytes each, a quarter of the dense form.
const SPARSE_MAX: usize = 512;
/// Greatest rank: 50 zeros and the one that is not there.
const RANK_MAX: u8 = 64 - PRECISION as u8 + 1;

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    spec.require_output(spec.output == DataType::Int64)?;
    if spec.retracts {
        return Err(Error::refused("approx_distinct can't let a value go again; over input that is revised use count(DISTINCT …)"));
    }
    let input = spec.argument()?;
    if !is_bytes(input) && width(input).is_none() {
        return Err(spec.refuse_input());
    }
    Ok(Box::new(ApproxDistinct { sketches: Vec::new(), heap_bytes: 0, input: input.clone() }))
}

/// What is kept of one group.
#[derive(Clone)]
enum Sketch {
    /// The hashes in ascending order.
    Sparse(Vec<u64>),
    /// The rank of each register.
    Dense(Box<[u8; REGISTERS]>),
}

impl Default for Sketch {
    fn default() -> Self {
        Self::Sparse(Vec::new())
    }
}

/// Raises the register of a hash.
#[inline(always)]
fn raise(ranks: &mut [u8; REGISTERS], hash: u64) {
    // The bit below the 50 stops the count of zeros at 50.
    let rank = ((hash << PRECISION) | 1 << (PRECISION - 1)).leading_zeros() as u8 + 1;
    let held = &mut ranks[(hash >> (64 - PRECISION)) as usize];
    *held = (*held).max(rank);
}

/// The registers of a list of hashes.
fn registers(list: &[u64]) -> Box<[u8; REGISTERS]> {
    let mut ranks = Box::new([0; REGISTERS]);
    list.iter().for_each(|&hash| raise(&mut ranks, hash));
    ranks
}

impl Sketch {
    /// Notes a hash.
    #[inline]
    fn add(&mut self, hash: u64, heap_bytes: &mut usize) {
        match self {
            Self::Dense(ranks) => raise(ranks, hash),
            Self::Sparse(list) => {
                if let Err(at) = list.binary_search(&hash) {
                    self.insert(at, hash, heap_bytes);
                }
            }
        }
    }

    #[cold]
    fn insert(&mut self, at: usize, hash: u64, heap_bytes: &mut usize) {
        *heap_bytes -= self.heap_bytes();
        match self {
            Self::Dense(ranks) => raise(ranks, hash),
            Self::Sparse(list) if list.len() < SPARSE_MAX => list.insert(at, hash),
            Self::Sparse(list) => {
                let mut ranks = registers(list);
                raise(&mut ranks, hash);
                *self = Self::Dense(ranks);
            }
        }
        *heap_bytes += self.heap_bytes();
    }

    /// Raises every register to that of another group's.
    fn raise_all(&mut self, others: &[u8], heap_bytes: &mut usize) {
        *heap_bytes -= self.heap_bytes();
        if let Self::Sparse(list) = self {
            *self = Self::Dense(registers(list));
        }
        if let Self::Dense(ranks) = self {
            ranks.iter_mut().zip(others).for_each(|(held, &other)| *held = (*held).max(other));
        }
        *heap_bytes += self.heap_bytes();
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Sparse(list) => list.capacity() * size_of::<u64>(),
            Self::Dense(_) => REGISTERS,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sparse(list) => {
                out.push(0);
                list.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
            }
            Self::Dense(ranks) => {
                out.push(1);
                out.extend_from_slice(ranks.as_slice());
            }
        }
    }

    /// Takes in an encoded sketch.
    fn merge(&mut self, bytes: &[u8], heap_bytes: &mut usize) -> Result<()> {
        match bytes.split_first() {
            Some((0, list)) if list.len() % 8 == 0 && list.len() <= 8 * SPARSE_MAX => {
                let (hashes, _) = list.as_chunks::<8>();
                hashes.iter().for_each(|hash| self.add(u64::from_le_bytes(*hash), heap_bytes));
            }
            Some((1, ranks)) if ranks.len() == REGISTERS && ranks.iter().all(|rank| *rank <= RANK_MAX) => self.raise_all(ranks, heap_bytes),
            _ => return Err(bad_state("sketch")),
        }
        Ok(())
    }

    /// The count of a list, or Ertl's improved raw estimate (algorithm 6) rounded to a whole number.
    fn estimate(&self) -> i64 {
        let ranks = match self {
            Self::Sparse(list) => return list.len() as i64,
            Self::Dense(ranks) => ranks,
        };
        let mut counts = [0_u32; RANK_MAX as usize + 1];
        ranks.iter().for_each(|&rank| counts[usize::from(rank.min(RANK_MAX))] += 1);
        let m = REGISTERS as f64;
        let [empty, ranks @ .., full] = counts;
        let mut z = m * tau((m - f64::from(full)) / m);
        for count in ranks.into_iter().rev() {
            z = 0.5 * (z + f64::from(count));
        }
        z += m * sigma(f64::from(empty) / m);
        // 1 / (2 ln 2)
        (0.721_347_520_444_481_7 * m * m / z).round() as i64
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

struct ApproxDistinct {
    sketches: Vec<Sketch>,
    heap_bytes: usize,
    input: DataType,
}

impl Accumulator for ApproxDistinct {
    fn resize(&mut self, groups: usize) {
        if groups > self.sketches.len() {
            self.sketches.resize_with(groups, Sketch::default);
        }
    }

    fn clear(&mut self, group: usize) {
        self.heap_bytes -= std::mem::take(&mut self.sketches[group]).heap_bytes();
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
        no_retractions(weights, Function::ApproxDistinct.name())?;
        let (sketches, heap_bytes) = (self.sketches.as_mut_slice(), &mut self.heap_bytes);
        if is_bytes(&self.input) {
            let column = Bytes::of(argument)?;
            return visit(groups, argument.nulls(), filter, None, |row, group, _| {
                sketches[group].add(hash_bytes(column.get(row)), heap_bytes);
                Ok(())
            });
        }
        let column = words(argument)?;
        visit(groups, argument.nulls(), filter, None, |row, group, _| {
            sketches[group].add(hash_u64(column[row]), heap_bytes);
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("sketch", DataType::Binary)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let (mut column, mut bytes) = (BinaryBuilder::new(), Vec::new());
        for &group in groups {
            bytes.clear();
            self.sketches[group as usize].encode(&mut bytes);
            column.append_value(&bytes);
        }
        Ok(vec![Arc::new(column.finish())])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        only_in(sign, &Function::ApproxDistinct)?;
        for (&group, bytes) in groups.iter().zip(binary_column(state, 0, groups.len())?) {
            self.sketches[group as usize].merge(bytes.unwrap_or_default(), &mut self.heap_bytes)?;
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        only_in(sign, &Function::ApproxDistinct)?;
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            let (sketch, heap_bytes) = (&mut self.sketches[to as usize], &mut self.heap_bytes);
            match &other.sketches[from as usize] {
                Sketch::Sparse(list) => list.iter().for_each(|&hash| sketch.add(hash, heap_bytes)),
                Sketch::Dense(ranks) => sketch.raise_all(ranks.as_slice(), heap_bytes),
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        false
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(int64(groups.iter().map(|&group| self.sketches[group as usize].estimate())))
    }

    fn bytes(&self) -> usize {
        self.sketches.capacity() * size_of::<Sketch>() + self.heap_bytes
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
