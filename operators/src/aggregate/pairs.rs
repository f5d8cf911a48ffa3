//! `corr`, `covar_*` and `regr_*`: exact Σy, Σx, Σy², Σx², Σyx and a count a group, over rows where neither is NULL.
//!
//! Each of these aggregates is a fraction of whole-number products of the five sums (`big`), rounded once: the same bits in any order, and
//! any row can leave again. A correlation is the square root of the rounded r². A value that is not finite makes every result but the count
//! NaN.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use tidemill_engine::error::{Error, Result};

use super::big::{difference, product, ratio, times, whole};
use super::columns::{binary_column, doubles, int64, int64_column, required, typed};
use super::exact::{Cell, Digits, Pool, decompose};
use super::exact_codec::{encode, merge};
use super::rows::visit;
use super::specials::{Counts, Specials};
use super::{Accumulator, Spec, same};

/// Which aggregate of pairs; the arguments are (y, x).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pair {
    /// `corr(y, x)`.
    Corr,
    /// `covar_pop(y, x)`.
    CovarPop,
    /// `covar_samp(y, x)`.
    CovarSamp,
    /// `regr_avgx(y, x)`.
    AvgX,
    /// `regr_avgy(y, x)`.
    AvgY,
    /// `regr_count(y, x)`.
    Count,
    /// `regr_intercept(y, x)`.
    Intercept,
    /// `regr_r2(y, x)`.
    R2,
    /// `regr_slope(y, x)`.
    Slope,
    /// `regr_sxx(y, x)`.
    Sxx,
    /// `regr_sxy(y, x)`.
    Sxy,
    /// `regr_syy(y, x)`.
    Syy,
}

impl Pair {
    /// The name as written in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Corr => "corr",
            Self::CovarPop => "covar_pop",
            Self::CovarSamp => "covar_samp",
            Self::AvgX => "regr_avgx",
            Self::AvgY => "regr_avgy",
            Self::Count => "regr_count",
            Self::Intercept => "regr_intercept",
            Self::R2 => "regr_r2",
            Self::Slope => "regr_slope",
            Self::Sxx => "regr_sxx",
            Self::Sxy => "regr_sxy",
            Self::Syy => "regr_syy",
        }
    }

    /// The aggregate of that name.
    pub fn named(name: &str) -> Option<Self> {
        use Pair::*;
        let all = [Corr, CovarPop, CovarSamp, AvgX, AvgY, Count, Intercept, R2, Slope, Sxx, Sxy, Syy];
        all.into_iter().find(|pair| pair.name() == name)
    }
}

pub(super) fn accumulator(spec: &Spec, pair: Pair) -> Result<Box<dyn Accumulator>> {
    spec.require_output(spec.output == if pair == Pair::Count { DataType::Int64 } else { DataType::Float64 })?;
    let input = spec.argument()?;
    match input {
        DataType::Struct(fields) if fields.len() == 2 && fields.iter().all(|field| *field.data_type() == DataType::Float64) => {}
        _ => return Err(spec.refuse_input()),
    }
    Ok(Box::new(Pairs { slots: Vec::new(), pool: Pool::default(), specials: Specials::default(), pair, input: input.clone() }))
}

#[derive(Clone, Copy, Default)]
struct Slot {
    y: Cell<2>,
    x: Cell<2>,
    yy: Cell<4>,
    xx: Cell<4>,
    yx: Cell<4>,
    count: i64,
}

/// A double taken apart: mantissa, exponent, negative.
type Parts = (u64, i32, bool);

fn add_one(cell: &mut Cell<2>, pool: &mut Pool, (mantissa, exponent, negative): Parts, weight: i64) {
    // 53 and at most 64 bits.
    cell.add(pool, u128::from(mantissa) * u128::from(weight.unsigned_abs()), exponent, negative != (weight < 0));
}

fn add_product(cell: &mut Cell<4>, pool: &mut Pool, a: Parts, b: Parts, weight: i64) {
    let mantissa = u128::from(a.0) * u128::from(b.0);
    let negative = (a.2 != b.2) != (weight < 0);
    // 106 bits leave room for 20 bits of weight at a time.
    let (mut rest, mut exponent) = (weight.unsigned_abs(), a.1 + b.1);
    while rest > 0 {
        cell.add(pool, mantissa * u128::from(rest & 0xf_ffff), exponent, negative);
        (rest, exponent) = (rest >> 20, exponent + 20);
    }
}

impl Slot {
    fn add(&mut self, pool: &mut Pool, y: f64, x: f64, weight: i64) {
        let (y, x) = (decompose(y), decompose(x));
        add_one(&mut self.y, pool, y, weight);
        add_one(&mut self.x, pool, x, weight);
        add_product(&mut self.yy, pool, y, y, weight);
        add_product(&mut self.xx, pool, x, x, weight);
        add_product(&mut self.yx, pool, y, x, weight);
    }

    fn merge(&mut self, pool: &mut Pool, other: &Self, others: &Pool, sign: i64) {
        self.y.merge(pool, &other.y, others, sign);
        self.x.merge(pool, &other.x, others, sign);
        self.yy.merge(pool, &other.yy, others, sign);
        self.xx.merge(pool, &other.xx, others, sign);
        self.yx.merge(pool, &other.yx, others, sign);
        self.count += sign * other.count;
    }

    fn clear(&mut self, pool: &mut Pool) {
        self.y.clear(pool);
        self.x.clear(pool);
        self.yy.clear(pool);
        self.xx.clear(pool);
        self.yx.clear(pool);
        self.count = 0;
    }

    /// The result over `count` > 0 finite rows.
    fn result(&self, pool: &Pool, pair: Pair, count: u64) -> Option<f64> {
        let n = whole(count);
        let (y, x) = (self.y.digits(pool), self.x.digits(pool));
        // n Σab - Σa Σb: n² times the covariance of a and b.
        let spread = |ab: &Digits, a: &Digits, b: &Digits| difference(&times(count, ab), &product(a, b));
        let xx = || spread(&self.xx.digits(pool), &x, &x);
        let yy = || spread(&self.yy.digits(pool), &y, &y);
        let yx = || spread(&self.yx.digits(pool), &y, &x);
        let some = |digits: Digits| (!digits.digits.is_empty() && count > 1).then_some(digits);
        Some(match pair {
            Pair::Count => count as f64,
            Pair::AvgX => ratio(&x, &n),
            Pair::AvgY => ratio(&y, &n),
            Pair::Sxx => ratio(&xx(), &n),
            Pair::Syy => ratio(&yy(), &n),
            Pair::Sxy => ratio(&yx(), &n),
            Pair::CovarPop => ratio(&yx(), &times(count, &n)),
            Pair::CovarSamp if count > 1 => ratio(&yx(), &times(count - 1, &n)),
            Pair::CovarSamp => return None,
            Pair::Slope => ratio(&yx(), &some(xx())?),
            Pair::Intercept => {
                let above = difference(&product(&y, &self.xx.digits(pool)), &product(&x, &self.yx.digits(pool)));
                ratio(&above, &some(xx())?)
            }
            Pair::R2 | Pair::Corr => {
                let yx = yx();
                let r2 = ratio(&product(&yx, &yx), &product(&some(xx())?, &some(yy())?));
                if pair == Pair::R2 { r2 } else { r2.sqrt().copysign(if yx.negative { -1.0 } else { 1.0 }) }
            }
        })
    }
}

struct Pairs {
    slots: Vec<Slot>,
    pool: Pool,
    specials: Specials,
    pair: Pair,
    input: DataType,
}

const SUMS: [&str; 5] = ["y", "x", "yy", "xx", "yx"];

impl Accumulator for Pairs {
    fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize(groups, Slot::default());
        }
    }

    fn clear(&mut self, group: usize) {
        self.slots[group].clear(&mut self.pool);
        self.specials.clear(group);
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
        let [ys, xs] = argument.as_struct().columns() else { return Err(Error::failed("a pair has two columns")) };
        let nulls = NullBuffer::union(NullBuffer::union(ys.nulls(), xs.nulls()).as_ref(), argument.nulls());
        let (ys, xs) = (doubles(ys)?, doubles(xs)?);
        let (slots, pool, specials) = (self.slots.as_mut_slice(), &mut self.pool, &mut self.specials);
        visit(groups, nulls.as_ref(), filter, weights, |row, group, weight| {
            let (slot, y, x) = (&mut slots[group], ys[row], xs[row]);
            slot.count += weight;
            if y.is_finite() && x.is_finite() {
                slot.add(pool, y, x, weight)
            } else {
                specials.note(group, f64::NAN, weight)
            }
            Ok(())
        })
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        SUMS.into_iter().map(|name| (name, DataType::Binary)).chain([("count", DataType::Int64)]).collect()
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut sums: [BinaryBuilder; 5] = std::array::from_fn(|_| BinaryBuilder::new());
        let mut bytes = Vec::new();
        for &group in groups {
            let (slot, specials) = (&self.slots[group as usize], self.specials.get(group));
            let pool = &self.pool;
            let digits = [slot.y.digits(pool), slot.x.digits(pool), slot.yy.digits(pool), slot.xx.digits(pool), slot.yx.digits(pool)];
            for (place, (builder, digits)) in sums.iter_mut().zip(digits).enumerate() {
                bytes.clear();
                encode(&digits, if place == 0 { specials } else { Counts::default() }, &mut bytes);
                builder.append_value(&bytes);
            }
        }
        let sums = sums.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        Ok(sums.chain([int64(groups.iter().map(|&group| self.slots[group as usize].count))]).collect())
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let rows = groups.len();
        let sums = (0..SUMS.len()).map(|place| binary_column(state, place, rows)).collect::<Result<Vec<_>>>()?;
        let counts = int64_column(state, SUMS.len(), rows)?;
        for (row, (&group, &count)) in groups.iter().zip(counts.values()).enumerate() {
            let (slot, pool) = (&mut self.slots[group as usize], &mut self.pool);
            let bytes = |place: usize| sums.get(place).map_or(&[][..], |column| column.value(row));
            let specials = merge(&mut slot.y, pool, bytes(0), sign)?;
            merge(&mut slot.x, pool, bytes(1), sign)?;
            merge(&mut slot.yy, pool, bytes(2), sign)?;
            merge(&mut slot.xx, pool, bytes(3), sign)?;
            merge(&mut slot.yx, pool, bytes(4), sign)?;
            slot.count += sign * count;
            self.specials.add(group, specials, sign);
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            self.slots[to as usize].merge(&mut self.pool, &other.slots[from as usize], &other.pool, sign);
            self.specials.add(to, other.specials.get(from), sign);
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        true
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        if self.pair == Pair::Count {
            return Ok(int64(groups.iter().map(|&group| self.slots[group as usize].count)));
        }
        let values = groups.iter().map(|&group| {
            let slot = &self.slots[group as usize];
            let count = u64::try_from(slot.count).ok().filter(|count| *count > 0)?;
            if self.specials.sum(group).is_some() { Some(f64::NAN) } else { slot.result(&self.pool, self.pair, count) }
        });
        Ok(Arc::new(values.collect::<Float64Array>()))
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.pool.bytes() + self.specials.bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
