//! The naive model that the accumulators are tested against: all values of a group in a list, each aggregate by its definition.

use std::collections::BTreeMap;

use super::Function;

/// A value, without its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Whole(i128),
    Real(f64),
    Bytes(Vec<u8>),
}

/// What a result must be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    Exactly(Option<Value>),
    /// Within a fraction of the value.
    Near(f64, f64),
    /// A result past its type.
    Fails,
}

/// A key that makes values comparable: NaN greatest and alike; `fold` makes -0.0 equal to 0.0.
fn order(value: &Value, fold: bool) -> (i128, Vec<u8>) {
    match value {
        Value::Whole(whole) => (*whole, Vec::new()),
        Value::Real(real) if real.is_nan() => (i128::MAX, Vec::new()),
        Value::Real(real) => {
            let real = if fold && *real == 0.0 { 0.0 } else { *real };
            let bits = real.to_bits() as i64;
            (i128::from(if bits < 0 { bits ^ i64::MAX } else { bits }), Vec::new())
        }
        Value::Bytes(bytes) => (0, bytes.clone()),
    }
}

/// Canonical NaN, for comparisons by bits.
fn canonical(value: Value) -> Value {
    match value {
        Value::Real(real) if real.is_nan() => Value::Real(f64::NAN),
        other => other,
    }
}

/// The result of `function` over a group's values (NULLs and filtered rows left out, retracted rows gone). `scale_up` and `digits` are
/// those of a decimal result, `None` if it is none; `total` counts the rows for `count(*)`.
pub(super) fn expected(function: &Function, values: &[Value], total: i64, decimal: Option<(i128, u32)>) -> Expected {
    let count = values.len();
    let distinct: Vec<Value> =
        values.iter().map(|value| (order(value, true), value.clone())).collect::<BTreeMap<_, _>>().into_values().collect();
    match function {
        Function::CountStar => whole(i128::from(total)),
        Function::Count => whole(count as i128),
        Function::CountDistinct => whole(distinct.len() as i128),
        // Exact below a few hundred.
        Function::ApproxDistinct if distinct.len() <= 512 => whole(distinct.len() as i128),
        Function::ApproxDistinct => Expected::Near(distinct.len() as f64, 0.033),
        Function::Min => Expected::Exactly(values.iter().min_by_key(|value| order(value, false)).cloned().map(canonical)),
        Function::Max => Expected::Exactly(values.iter().max_by_key(|value| order(value, false)).cloned().map(canonical)),
        _ if count == 0 => Expected::Exactly(None),
        Function::BoolAnd => whole(i128::from(values.iter().all(|value| *value == Value::Whole(1)))),
        Function::BoolOr => whole(i128::from(values.contains(&Value::Whole(1)))),
        Function::Sum => sum(values, decimal),
        Function::SumDistinct => sum(&distinct, decimal),
        Function::Avg => average(values, decimal),
        Function::AvgDistinct => average(&distinct, decimal),
        Function::VarPop | Function::StddevPop => deviation(values, 0, matches!(function, Function::StddevPop)),
        Function::VarSamp | Function::StddevSamp => deviation(values, 1, matches!(function, Function::StddevSamp)),
        Function::BitAnd => bits(values, -1, |all, value| all & value),
        Function::BitOr => bits(values, 0, |all, value| all | value),
        Function::BitXor => bits(values, 0, |all, value| all ^ value),
        // Tested beside their own models.
        Function::Pair(_) | Function::Listing(_) => Expected::Fails,
        Function::ApproxPercentile { quantile } => {
            let mut sorted: Vec<&Value> = values.iter().collect();
            sorted.sort_by_key(|value| order(value, false));
            let rank = ((quantile * count as f64 - 1e-9).ceil() as usize).clamp(1, count);
            match sorted[rank - 1] {
                Value::Whole(whole) => Expected::Near(*whole as f64, 0.01),
                Value::Real(real) => Expected::Near(*real, 0.01),
                Value::Bytes(_) => Expected::Fails,
            }
        }
    }
}

fn whole(value: i128) -> Expected {
    Expected::Exactly(Some(Value::Whole(value)))
}

fn bits(values: &[Value], start: i128, fold: impl Fn(i128, i128) -> i128) -> Expected {
    wholes(values).map_or(Expected::Fails, |values| whole(values.into_iter().fold(start, fold)))
}

fn wholes(values: &[Value]) -> Option<Vec<i128>> {
    values.iter().map(|value| if let Value::Whole(whole) = value { Some(*whole) } else { None }).collect()
}

fn reals(values: &[Value]) -> Vec<f64> {
    values.iter().map(|value| if let Value::Real(real) = value { *real } else { f64::NAN }).collect()
}

/// Sums in base 10^18 with a sign a digit, so that 38 digits never overflow.
fn sum(values: &[Value], decimal: Option<(i128, u32)>) -> Expected {
    let Some(values) = wholes(values) else { return Expected::Exactly(Some(Value::Real(exact_mean(&reals(values), 1)))) };
    const BASE: i128 = 1_000_000_000_000_000_000;
    let (mut high, mut low) = (0_i128, 0_i128);
    for value in values {
        (high, low) = (high + value / BASE, low + value % BASE);
    }
    let limit = decimal.map_or(i128::from(i64::MAX), |(_, digits)| 10_i128.pow(digits) - 1);
    match (high + low / BASE).checked_mul(BASE).and_then(|high| high.checked_add(low % BASE)) {
        Some(sum) if sum <= limit && (sum >= -limit || (decimal.is_none() && sum == -limit - 1)) => whole(sum),
        _ => Expected::Fails,
    }
}

fn average(values: &[Value], decimal: Option<(i128, u32)>) -> Expected {
    let count = values.len() as i128;
    let Some(wholes) = wholes(values) else { return Expected::Exactly(Some(Value::Real(exact_mean(&reals(values), values.len() as u64)))) };
    match decimal {
        Some((scale_up, digits)) => {
            // Quotient and remainder apart, or the scaled sum may not fit.
            let (mut quotient, mut rest) = (0_i128, 0_i128);
            for value in &wholes {
                (quotient, rest) = (quotient + value / count, rest + value % count);
            }
            let exact = (quotient + rest / count).checked_mul(scale_up);
            let rest = rest % count * scale_up;
            let Some(exact) = exact else { return Expected::Fails };
            // Cut towards zero: when the parts differ in sign, one step back towards zero.
            let mut value = exact + rest / count;
            let left = rest % count;
            value -= i128::from(value > 0 && left < 0) - i128::from(value < 0 && left > 0);
            if value.abs() < 10_i128.pow(digits) { whole(value) } else { Expected::Fails }
        }
        None => {
            let sum: i128 = wholes.iter().sum();
            Expected::Exactly(Some(Value::Real(ratio(sum, count))))
        }
    }
}

/// `sum / count` rounded once: the double that is at most half a step away, found by comparing whole numbers.
fn ratio(sum: i128, count: i128) -> f64 {
    let doubles: Vec<f64> = vec![sum as f64 / count as f64];
    doubles
        .iter()
        .flat_map(|&x| [x.next_down(), x, x.next_up()])
        .min_by(|a, b| {
            let error = |x: f64| {
                let (mantissa, exponent, negative) = super::exact::decompose(x);
                let mut left = Big::default();
                left.add(u128::from(mantissa), exponent, negative, count.unsigned_abs());
                left.add(sum.unsigned_abs(), 0, sum > 0, 1);
                left.magnitude()
            };
            error(*a).iter().rev().cmp(error(*b).iter().rev()).then((a.to_bits() & 1).cmp(&(b.to_bits() & 1)))
        })
        .unwrap_or(f64::NAN)
}

/// The mean of doubles (their sum for `divisor` 1): of the doubles around a plain estimate the nearest to the exact sum, ties to even.
fn exact_mean(values: &[f64], divisor: u64) -> f64 {
    let (mut positive, mut negative) = (false, false);
    for value in values {
        positive |= *value == f64::INFINITY;
        negative |= *value == f64::NEG_INFINITY;
    }
    if values.iter().any(|value| value.is_nan()) || (positive && negative) {
        return f64::NAN;
    }
    if positive || negative {
        return if positive { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    let mut exact = Big::default();
    for value in values {
        let (mantissa, exponent, negative) = super::exact::decompose(*value);
        exact.add(u128::from(mantissa), exponent, negative, 1);
    }
    let below = |x: f64| {
        // x * divisor <= exact
        let (mantissa, exponent, negative) = super::exact::decompose(x);
        let mut difference = exact.clone();
        difference.add(u128::from(mantissa), exponent, !negative, u128::from(divisor));
        (difference.negative(), difference)
    };
    // The greatest double not above the exact quotient, by bisection over the order of doubles.
    let (mut low, mut high) = (ordinal(-f64::MAX), ordinal(f64::MAX));
    if !below(f64::MAX).0 && below(f64::MAX).1.magnitude().iter().any(|&limb| limb != 0) {
        return f64::INFINITY;
    }
    while low < high {
        let middle = (i128::from(low) + i128::from(high) + 1).div_euclid(2) as i64;
        if below(double(middle)).0 { high = middle - 1 } else { low = middle }
    }
    let (down, up) = (double(low), double(low).next_up());
    let (under, over) = (below(down).1.magnitude(), below(up).1.magnitude());
    let nearest = match under.iter().rev().cmp(over.iter().rev()) {
        std::cmp::Ordering::Less => down,
        std::cmp::Ordering::Greater => up,
        std::cmp::Ordering::Equal => {
            if down.to_bits() & 1 == 0 {
                down
            } else {
                up
            }
        }
    };
    nearest + 0.0
}

fn ordinal(x: f64) -> i64 {
    let bits = x.to_bits() as i64;
    if bits < 0 { -(bits & i64::MAX) } else { bits }
}

fn double(ordinal: i64) -> f64 {
    if ordinal < 0 { -f64::from_bits(ordinal.unsigned_abs()) } else { f64::from_bits(ordinal as u64) }
}

/// A fixed-point number of 2,400 bits from 2^-1100 in two's complement, digit by digit.
#[derive(Clone)]
struct Big(Vec<u64>);

impl Default for Big {
    fn default() -> Self {
        Self(vec![0; 75])
    }
}

impl Big {
    fn add(&mut self, mantissa: u128, exponent: i32, negative: bool, factor: u128) {
        let product = mantissa * factor;
        let (first, offset) = ((exponent + 1100) as usize / 32, (exponent + 1100) as u32 % 32);
        for part in 0..4 {
            let shifted = u64::from((product >> (32 * part)) as u32) << offset;
            self.add_digit(first + part, shifted & 0xffff_ffff, negative);
            self.add_digit(first + part + 1, shifted >> 32, negative);
        }
    }

    fn add_digit(&mut self, index: usize, mut carry: u64, negative: bool) {
        for digit in self.0.iter_mut().skip(index) {
            if carry == 0 {
                break;
            }
            let sum = if negative { digit.wrapping_sub(carry) } else { *digit + carry };
            carry = u64::from(sum >> 32 != 0);
            *digit = sum & 0xffff_ffff;
        }
    }

    fn negative(&self) -> bool {
        self.0.last().is_some_and(|digit| digit >> 31 == 1)
    }

    fn magnitude(&self) -> Vec<u64> {
        if !self.negative() {
            return self.0.clone();
        }
        let mut carry = 1;
        let mut digits = self.0.clone();
        for digit in &mut digits {
            let sum = (!*digit & 0xffff_ffff) + carry;
            (*digit, carry) = (sum & 0xffff_ffff, sum >> 32);
        }
        digits
    }
}

fn deviation(values: &[Value], less: usize, root: bool) -> Expected {
    if values.len() <= less {
        return Expected::Exactly(None);
    }
    let reals: Vec<f64> = values
        .iter()
        .map(|value| match value {
            Value::Whole(whole) => *whole as f64,
            Value::Real(real) => *real,
            Value::Bytes(_) => f64::NAN,
        })
        .collect();
    let mean = reals.iter().sum::<f64>() / reals.len() as f64;
    let variance = reals.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (reals.len() - less) as f64;
    Expected::Near(if root { variance.sqrt() } else { variance }, 1e-9)
}
