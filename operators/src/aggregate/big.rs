//! Products, differences and quotients of exact sums, for aggregates that are a fraction of several: in whole numbers of any length,
//! rounded once by the quotient.
//!
//! Always: equal operands give equal bits. Numbers are a few digits in base 2^32, so everything is schoolbook.

use std::cmp::Ordering;

use super::exact::{Digits, quotient};

/// `a * b`.
pub(super) fn product(a: &Digits, b: &Digits) -> Digits {
    Digits::trimmed(a.negative != b.negative, a.first + b.first, multiply(&a.digits, &b.digits))
}

/// `count * a`.
pub(super) fn times(count: u64, a: &Digits) -> Digits {
    product(&whole(count), a)
}

/// A whole number.
pub(super) fn whole(number: u64) -> Digits {
    Digits::trimmed(false, 0, vec![number as u32, (number >> 32) as u32])
}

/// `a - b`.
pub(super) fn difference(a: &Digits, b: &Digits) -> Digits {
    let low = a.first.min(b.first);
    let (x, y) = (aligned(a, low), aligned(b, low));
    if a.negative != b.negative {
        return Digits::trimmed(a.negative, low, sum(&x, &y));
    }
    match compare(&x, &y) {
        Ordering::Less => Digits::trimmed(!a.negative, low, less(&y, &x)),
        _ => Digits::trimmed(a.negative, low, less(&x, &y)),
    }
}

/// `a / b`, rounded once to nearest even; 0 where `b` is zero, which callers rule out.
pub(super) fn ratio(a: &Digits, b: &Digits) -> f64 {
    if a.digits.is_empty() || b.digits.is_empty() {
        return 0.0;
    }
    // Both with their highest bit at the same place, so that the quotient lies between 1/2 and 2.
    let places = bits(&b.digits) - bits(&a.digits);
    let mut rest = shifted(&a.digits, places.max(0) as u32);
    let divisor = shifted(&b.digits, (-places).max(0) as u32);
    // 101 digits: more than the 97 that a sticky remainder needs.
    let mut digits = 0_u128;
    for _ in 0..=BELOW_ONE {
        digits <<= 1;
        if compare(&rest, &divisor) != Ordering::Less {
            rest = less(&rest, &divisor);
            digits |= 1;
        }
        rest = shifted(&rest, 1);
    }
    let exponent = 32 * (a.first - b.first) - places - BELOW_ONE;
    quotient(a.negative != b.negative, digits, rest.iter().any(|digit| *digit != 0), exponent, 1)
}

/// Binary places of a quotient behind the point.
const BELOW_ONE: i32 = 100;

fn bits(digits: &[u32]) -> i32 {
    let used = digits.iter().rposition(|digit| *digit != 0);
    used.map_or(0, |last| 32 * last as i32 + 32 - digits.get(last).map_or(0, |digit| digit.leading_zeros()) as i32)
}

/// The digits of a number whose first digit is to weigh 2^(32 low), which is not above its own.
fn aligned(number: &Digits, low: i32) -> Vec<u32> {
    let zeros = if number.digits.is_empty() { 0 } else { (number.first - low).max(0) as usize };
    std::iter::repeat_n(0, zeros).chain(number.digits.iter().copied()).collect()
}

fn compare(a: &[u32], b: &[u32]) -> Ordering {
    let longest = a.len().max(b.len());
    let digit = |number: &[u32], index: usize| number.get(index).copied().unwrap_or(0);
    (0..longest).rev().map(|index| digit(a, index).cmp(&digit(b, index))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn sum(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut carry = 0_u64;
    let digit = |number: &[u32], index: usize| u64::from(number.get(index).copied().unwrap_or(0));
    (0..=a.len().max(b.len()))
        .map(|index| {
            carry += digit(a, index) + digit(b, index);
            let low = carry as u32;
            carry >>= 32;
            low
        })
        .collect()
}

/// `a - b` of magnitudes, `a` the greater.
fn less(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut borrow = 0_i64;
    let taken = |index: usize| i64::from(b.get(index).copied().unwrap_or(0));
    let subtract = |(index, digit): (usize, &u32)| {
        let difference = i64::from(*digit) - taken(index) + borrow;
        borrow = difference >> 32;
        difference as u32
    };
    a.iter().enumerate().map(subtract).collect()
}

fn shifted(digits: &[u32], by: u32) -> Vec<u32> {
    let (whole, part) = ((by / 32) as usize, by % 32);
    let mut carry = 0_u64;
    let mut made = vec![0_u32; whole];
    for digit in digits {
        carry |= u64::from(*digit) << part;
        made.push(carry as u32);
        carry >>= 32;
    }
    made.push(carry as u32);
    while made.last() == Some(&0) {
        made.pop();
    }
    made
}

/// Schoolbook product in base 2^32; both factors are a few digits long.
pub(super) fn multiply(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut product = vec![0_u32; a.len() + b.len()];
    for (shift, &x) in a.iter().enumerate() {
        let mut carry = 0_u64;
        let mut others = b.iter();
        for digit in product.iter_mut().skip(shift) {
            let factor = others.next();
            if factor.is_none() && carry == 0 {
                break;
            }
            let total = u64::from(x) * u64::from(factor.copied().unwrap_or(0)) + u64::from(*digit) + carry;
            (*digit, carry) = (total as u32, total >> 32);
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: i128) -> Digits {
        let magnitude = number.unsigned_abs();
        Digits::trimmed(number < 0, 0, (0..4).map(|place| (magnitude >> (32 * place)) as u32).collect())
    }

    #[test]
    fn quotients_are_rounded_once() {
        let mut seed = 1_u64;
        let mut next = |bits: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i128::from(seed >> (64 - bits))
        };
        for _ in 0..20_000 {
            // Operands of 53 bits are doubles, and a division of doubles is rounded once.
            let (a, b) = (next(53) - next(53), next(40) + 1);
            assert_eq!(ratio(&of(a), &of(b)), a as f64 / b as f64, "{a} / {b}");
            let (c, d) = (next(50) - next(50), next(50) - next(50));
            assert_eq!(difference(&product(&of(a), &of(c)), &product(&of(b), &of(d))), of(a * c - b * d));
        }
        assert_eq!(ratio(&of(0), &of(7)), 0.0);
        assert_eq!(ratio(&of((1 << 100) + 1), &of(1 << 100)), 1.0);
        assert_eq!(ratio(&of((1 << 106) + (1 << 53)), &of(1 << 106)), 1.0, "a tie goes to even");
        assert_eq!(ratio(&of((1 << 106) + (1 << 53) + 1), &of(1 << 106)), 1.0 + f64::EPSILON, "no longer a tie");
    }
}
