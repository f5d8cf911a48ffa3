//! `sum` and `avg` of whole numbers and decimals: an exact total and a count a group; what SQL returns is decided in [`Finish`].
//!
//! Totals can't overflow: integers and DECIMAL up to 18 digits sum in 128 bits (2^63 values of 2^63 are 2^126), wider decimals in 256.
//! So a sum that leaves its result type and comes back is right, whatever the order; one that stays outside fails at the result.

use std::any::Any;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, i256};
use tidemill_engine::error::{Error, Result};

use super::columns::{column, fixed, int64, int64_column, longs, natives, optional, required, typed};
use super::exact::quotient;
use super::rows::each;
use super::{Accumulator, Function, Spec, same};

/// Decimals of up to this many digits sum in 128 bits: 10^18 < 2^60, times 2^63 values stays below 2^123.
const NARROW_DIGITS_MAX: u8 = 18;

pub(super) fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    match spec.argument()? {
        DataType::Decimal128(digits, scale) if *digits > NARROW_DIGITS_MAX => boxed::<Wide>(spec, *scale),
        DataType::Decimal128(_, scale) => boxed::<Narrow>(spec, *scale),
        input if input.is_integer() => boxed::<Narrow>(spec, 0),
        _ => Err(spec.refuse_input()),
    }
}

fn boxed<A: Total>(spec: &Spec, scale: i8) -> Result<Box<dyn Accumulator>> {
    let (finish, input) = (Finish::of(spec)?, spec.argument()?.clone());
    Ok(Box::new(Sum::<A> { cells: Vec::new(), finish, input, total_type: A::data_type(scale) }))
}

/// An exact total of whole numbers.
trait Total: Copy + Default + Send + 'static {
    /// How a total is kept in state columns.
    type Native: arrow::datatypes::ArrowNativeType;
    fn data_type(scale: i8) -> DataType;
    fn add(&mut self, value: i128, weight: i64);
    fn merge(&mut self, other: Self, sign: i64);
    fn native(self) -> Self::Native;
    fn from_native(native: Self::Native) -> Self;
    /// The total if it fits 128 bits.
    fn narrow(self) -> Option<i128>;
    fn wide(self) -> i256;
}

/// 128 bits as two words, low first: no 16 byte alignment.
#[derive(Clone, Copy, Default)]
struct Narrow([u64; 2]);

impl Narrow {
    #[inline(always)]
    fn get(self) -> i128 {
        let [low, high] = self.0;
        (u128::from(high) << 64 | u128::from(low)) as i128
    }

    #[inline(always)]
    fn of(value: i128) -> Self {
        Self([value as u64, (value >> 64) as u64])
    }
}

impl Total for Narrow {
    type Native = i128;

    fn data_type(scale: i8) -> DataType {
        DataType::Decimal128(38, scale)
    }

    #[inline(always)]
    fn add(&mut self, value: i128, weight: i64) {
        *self = Self::of(self.get().wrapping_add(value.wrapping_mul(i128::from(weight))));
    }

    fn merge(&mut self, other: Self, sign: i64) {
        self.add(other.get(), sign);
    }

    fn native(self) -> i128 {
        self.get()
    }

    fn from_native(native: i128) -> Self {
        Self::of(native)
    }

    fn narrow(self) -> Option<i128> {
        Some(self.get())
    }

    fn wide(self) -> i256 {
        i256::from_i128(self.get())
    }
}

/// 256 bits as four words, low first.
#[derive(Clone, Copy, Default)]
struct Wide([u64; 4]);

impl Wide {
    #[inline(always)]
    fn get(self) -> i256 {
        let [a, b, c, d] = self.0;
        i256::from_parts(u128::from(b) << 64 | u128::from(a), (u128::from(d) << 64 | u128::from(c)) as i128)
    }

    #[inline(always)]
    fn of(value: i256) -> Self {
        let (low, high) = value.to_parts();
        Self([low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64])
    }
}

impl Total for Wide {
    type Native = i256;

    fn data_type(scale: i8) -> DataType {
        DataType::Decimal256(76, scale)
    }

    #[inline(always)]
    fn add(&mut self, value: i128, weight: i64) {
        let value = i256::from_i128(value);
        let value = if weight == 1 { value } else { value.mul_wrapping(i256::from_i128(i128::from(weight))) };
        *self = Self::of(self.get().add_wrapping(value));
    }

    fn merge(&mut self, other: Self, sign: i64) {
        *self = Self::of(self.get().add_wrapping(other.get().mul_wrapping(i256::from_i128(i128::from(sign)))));
    }

    fn native(self) -> i256 {
        self.get()
    }

    fn from_native(native: i256) -> Self {
        Self::of(native)
    }

    fn narrow(self) -> Option<i128> {
        self.get().to_i128()
    }

    fn wide(self) -> i256 {
        self.get()
    }
}

/// Turns totals and counts into results as DataFusion 55 does, but with errors where that wraps.
///
/// `sum` of integers is BIGINT, of DECIMAL(p, s) DECIMAL(min(38, p + 10), s). `avg` of integers is the exact quotient rounded once to
/// DOUBLE; of DECIMAL(p, s) it is DECIMAL(min(38, p + 4), min(38, s + 4)), the quotient cut towards zero (not rounded).
struct Finish {
    input: DataType,
    output: DataType,
    average: bool,
    /// What a decimal total is multiplied with before the division of `avg`.
    scale_up: i256,
}

impl Finish {
    fn of(spec: &Spec) -> Result<Self> {
        let input = spec.argument()?.clone();
        let average = spec.function == Function::Avg;
        let mut scale_up = 0;
        let fits = match (&input, &spec.output) {
            (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => {
                scale_up = i32::from(*to) - i32::from(*from);
                scale_up == 0 || (average && (1..=38).contains(&scale_up))
            }
            (DataType::Decimal128(..), _) => false,
            (_, output) => *output == if average { DataType::Float64 } else { DataType::Int64 },
        };
        spec.require_output(fits)?;
        let scale_up = i256::from_i128(10_i128.pow(scale_up.unsigned_abs()));
        Ok(Self { input, output: spec.output.clone(), average, scale_up })
    }

    /// The result column from (total, count) of each group; a group without values is NULL.
    fn array<A: Total>(&self, totals: impl Iterator<Item = (A, i64)>) -> Result<ArrayRef> {
        let totals = totals.map(|(total, count)| (count > 0).then_some((total, count)));
        match self.output {
            DataType::Float64 => {
                let mean = |(total, count): (A, i64)| {
                    let total = total.narrow().ok_or_else(|| self.past("128 bits"))?;
                    Ok(quotient(total < 0, total.unsigned_abs(), false, 0, count.unsigned_abs()))
                };
                let values: Vec<Option<f64>> = totals.map(|group| group.map(mean).transpose()).collect::<Result<_>>()?;
                optional(&self.output, values.into_iter())
            }
            DataType::Decimal128(digits, _) => {
                let limit = 10_i128.pow(u32::from(digits.min(38)));
                let value = |(total, count): (A, i64)| {
                    let value = if self.average { self.cut_mean(total, count) } else { total.narrow() };
                    value.filter(|value| (-limit < *value) && (*value < limit)).ok_or_else(|| self.past(&format!("{digits} digits")))
                };
                let values: Vec<Option<i128>> = totals.map(|group| group.map(value).transpose()).collect::<Result<_>>()?;
                optional(&self.output, values.into_iter())
            }
            _ => {
                let value =
                    |(total, _): (A, i64)| total.narrow().and_then(|total| i64::try_from(total).ok()).ok_or_else(|| self.past("64 bits"));
                let values: Vec<Option<i64>> = totals.map(|group| group.map(value).transpose()).collect::<Result<_>>()?;
                optional(&self.output, values.into_iter())
            }
        }
    }

    /// `total * scale_up / count`, cut towards zero.
    fn cut_mean<A: Total>(&self, total: A, count: i64) -> Option<i128> {
        let scaled = total.narrow().zip(self.scale_up.to_i128()).and_then(|(total, scale_up)| total.checked_mul(scale_up));
        match scaled {
            Some(scaled) => scaled.checked_div(i128::from(count)),
            None => total.wide().mul_checked(self.scale_up).ok()?.div_checked(i256::from_i128(i128::from(count))).ok()?.to_i128(),
        }
    }

    fn past(&self, limit: &str) -> Error {
        let name = if self.average { "avg" } else { "sum" };
        let input = match &self.input {
            DataType::Int64 => "BIGINT".to_owned(),
            DataType::Int32 => "INT".to_owned(),
            DataType::Int16 => "SMALLINT".to_owned(),
            DataType::Decimal128(digits, scale) => format!("DECIMAL({digits}, {scale})"),
            other => other.to_string(),
        };
        Error::failed(format!("{name}({input}) past {limit}"))
    }
}

#[derive(Clone, Copy, Default)]
struct Cell<A> {
    total: A,
    count: i64,
}

struct Sum<A> {
    cells: Vec<Cell<A>>,
    finish: Finish,
    input: DataType,
    total_type: DataType,
}

impl<A: Total> Sum<A> {
    fn fold<T: Copy + Into<i128>>(
        &mut self,
        groups: &[u32],
        values: &[T],
        nulls: Option<&NullBuffer>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let cells = self.cells.as_mut_slice();
        each(groups, nulls, filter, weights, |row, group, weight| {
            let cell = &mut cells[group];
            cell.total.add(values[row].into(), weight);
            cell.count += weight;
            Ok(())
        })
    }
}

impl<A: Total> Accumulator for Sum<A> {
    fn resize(&mut self, groups: usize) {
        if groups > self.cells.len() {
            self.cells.resize(groups, Cell::default());
        }
    }

    fn clear(&mut self, group: usize) {
        self.cells[group] = Cell::default();
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
        let nulls = argument.nulls();
        match self.input {
            DataType::Decimal128(..) => self.fold(groups, &natives::<i128>(argument)?, nulls, filter, weights),
            DataType::UInt64 => self.fold(groups, &natives::<u64>(argument)?, nulls, filter, weights),
            _ => self.fold(groups, &longs(argument)?, nulls, filter, weights),
        }
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("sum", self.total_type.clone()), ("count", DataType::Int64)]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let totals = groups.iter().map(|&group| self.cells[group as usize].total.native()).collect();
        let counts = int64(groups.iter().map(|&group| self.cells[group as usize].count));
        Ok(vec![fixed::<A::Native>(&self.total_type, totals, None)?, counts])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let totals = column(state, 0, groups.len())?;
        typed(totals, &self.total_type)?;
        let totals = natives::<A::Native>(totals)?;
        let counts = int64_column(state, 1, groups.len())?;
        for ((&group, &total), &count) in groups.iter().zip(&*totals).zip(counts.values()) {
            let cell = &mut self.cells[group as usize];
            cell.total.merge(A::from_native(total), sign);
            cell.count += sign * count;
        }
        Ok(())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            let (cell, from) = (&mut self.cells[to as usize], other.cells[from as usize]);
            cell.total.merge(from.total, sign);
            cell.count += sign * from.count;
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        true
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        self.finish.array(groups.iter().map(|&group| {
            let cell = self.cells[group as usize];
            (cell.total, cell.count)
        }))
    }

    fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell<A>>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
