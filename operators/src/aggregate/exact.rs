//! Exact sums of floating point numbers, rounded once.
//!
//! The idea is Kulisch's long accumulator in the carry-save form of R. Neal, "Fast exact summation using small and large superaccumulators"
//! (2015): a number is a whole mantissa times a power of two, and whole numbers add exactly in any order. A long accumulator takes half
//! a kilobyte, so a group starts with a [`Cell`]: a window of `N` words anywhere on the binary axis, moved while everything still fits,
//! which for N = 2 (doubles) leaves 73 bits beyond one mantissa, for N = 4 (their squares) 148. Only when the values spread further does
//! the group get a [`Long`] accumulator, as long as its spread.
//!
//! What always holds: a cell's value is the exact sum. Where its window lies, or whether it is long, depends on the order; so neither is
//! ever written: [`Digits`] is the canonical form. Infinities and NaN are not here (see `specials`).

/// No long accumulator.
const NONE: u32 = u32::MAX;

/// The exact sum of one group; its long form lives in the pool that every call is given.
#[derive(Clone, Copy)]
pub(super) struct Cell<const N: usize> {
    /// Two's complement, low word first, in units of 2^unit.
    words: [u64; N],
    long: u32,
    unit: i16,
}

impl<const N: usize> Default for Cell<N> {
    fn default() -> Self {
        Self { words: [0; N], long: NONE, unit: 0 }
    }
}

/// The long accumulators of one aggregate.
#[derive(Default)]
pub(super) struct Pool {
    longs: Vec<Long>,
    free: Vec<u32>,
    limb_bytes: usize,
}

impl Pool {
    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.longs.capacity() * size_of::<Long>() + self.free.capacity() * size_of::<u32>() + self.limb_bytes
    }

    fn add(&mut self, long: u32, mantissa: u128, exponent: i32, negative: bool) {
        if let Some(long) = self.longs.get_mut(long as usize) {
            let before = long.limbs.capacity();
            long.add(mantissa, exponent, negative);
            self.limb_bytes += (long.limbs.capacity() - before) * size_of::<i64>();
        }
    }

    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.longs.push(Long::default());
            // A group has at most two and groups are counted in u32 of 24 bytes and more: memory ends long before.
            (self.longs.len() - 1) as u32
        })
    }

    fn give_back(&mut self, long: u32) {
        if let Some(slot) = self.longs.get_mut(long as usize) {
            self.limb_bytes -= slot.limbs.capacity() * size_of::<i64>();
            *slot = Long::default();
            self.free.push(long);
        }
    }
}

impl<const N: usize> Cell<N> {
    /// Bits of the window that may be used; one is the sign, one lets a sum of two fit before it is tested.
    const BITS: i32 = 64 * N as i32 - 2;
    /// Bits left free below the first value: what follows is as often smaller as it is greater, but sums grow upwards.
    const BELOW: i32 = if N == 2 { 24 } else { 56 };

    /// Adds `±mantissa * 2^exponent`.
    #[inline(always)]
    pub(super) fn add(&mut self, pool: &mut Pool, mantissa: u128, exponent: i32, negative: bool) {
        let shift = exponent - i32::from(self.unit);
        let bits = 128 - mantissa.leading_zeros() as i32;
        if self.long != NONE || shift < 0 || shift + bits > Self::BITS || !self.add_in_window(mantissa, shift as u32, negative) {
            self.add_slowly(pool, mantissa, exponent, negative);
        }
    }

    /// Adds where the mantissa fits the window; false, and nothing done, if the sum does not.
    #[inline(always)]
    fn add_in_window(&mut self, mantissa: u128, shift: u32, negative: bool) -> bool {
        if N == 2 {
            let held = (u128::from(self.words[1]) << 64 | u128::from(self.words[0])) as i128;
            let addend = (mantissa << shift) as i128;
            let sum = if negative { held.checked_sub(addend) } else { held.checked_add(addend) };
            if let Some(sum) = sum {
                self.words[0] = sum as u64;
                self.words[1] = (sum >> 64) as u64;
            }
            return sum.is_some();
        }
        let addend = shifted::<N>(mantissa, shift);
        let mut sum = [0; N];
        let mut carry = negative;
        for ((sum, &held), &word) in sum.iter_mut().zip(&self.words).zip(&addend) {
            // a - b = a + !b + 1 in two's complement.
            let (partial, first) = held.overflowing_add(if negative { !word } else { word });
            let (total, second) = partial.overflowing_add(u64::from(carry));
            (*sum, carry) = (total, first | second);
        }
        let (was, is) = (is_negative(&self.words), is_negative(&sum));
        let fits = if negative { !was || is } else { was || !is };
        if fits {
            self.words = sum;
        }
        fits
    }

    /// Moves the window so that both the sum so far and the new value fit, or gives the group a long accumulator.
    #[cold]
    #[inline(never)]
    fn add_slowly(&mut self, pool: &mut Pool, mantissa: u128, exponent: i32, negative: bool) {
        if mantissa == 0 {
            return;
        }
        if self.long == NONE && self.make_room(mantissa, exponent) {
            let shift = exponent - i32::from(self.unit);
            let mantissa = if shift < 0 { mantissa >> shift.unsigned_abs() } else { mantissa };
            if self.add_in_window(mantissa, shift.max(0) as u32, negative) {
                return;
            }
        }
        if self.long == NONE {
            let long = pool.take();
            self.each_part(&Pool::default(), |mantissa, exponent, negative| pool.add(long, mantissa, exponent, negative));
            *self = Self { long, ..Self::default() };
        }
        pool.add(self.long, mantissa, exponent, negative);
    }

    /// Moves the window over the bits in use and those of `mantissa * 2^exponent`; false if they spread too far.
    fn make_room(&mut self, mantissa: u128, exponent: i32) -> bool {
        let (mut low, mut high) = (exponent + mantissa.trailing_zeros() as i32, exponent + 128 - mantissa.leading_zeros() as i32);
        let (negative, magnitude) = self.magnitude();
        let unit = i32::from(self.unit);
        if let Some((first, last)) = bit_span(&magnitude) {
            // One bit above for the carry.
            (low, high) = (low.min(unit + first), high.max(unit + last) + 1);
        }
        let spare = Self::BITS - (high - low);
        if spare < 0 {
            return false;
        }
        let to = low - Self::BELOW.min(spare / 2);
        let mut words = if unit >= to { shift_left(&magnitude, (unit - to) as u32) } else { shift_right(&magnitude, (to - unit) as u32) };
        if negative {
            negate(&mut words);
        }
        self.words = words;
        // Exponents of doubles and of their squares lie within ±2200.
        self.unit = to as i16;
        true
    }

    fn magnitude(&self) -> (bool, [u64; N]) {
        let mut words = self.words;
        let negative = is_negative(&words);
        if negative {
            negate(&mut words);
        }
        (negative, words)
    }

    /// Empties the cell.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        if self.long != NONE {
            pool.give_back(self.long);
        }
        *self = Self::default();
    }

    /// Calls `part(mantissa, exponent, negative)` for numbers that add up to the sum.
    pub(super) fn each_part(&self, pool: &Pool, mut part: impl FnMut(u128, i32, bool)) {
        if self.long != NONE {
            if let Some(long) = pool.longs.get(self.long as usize) {
                for (index, &limb) in long.limbs.iter().enumerate() {
                    part(u128::from(limb.unsigned_abs()), 32 * (long.first + index as i32), limb < 0);
                }
            }
            return;
        }
        let (negative, magnitude) = self.magnitude();
        for (index, pair) in magnitude.chunks(2).enumerate() {
            let mantissa = pair.iter().rev().fold(0_u128, |mantissa, &word| mantissa << 64 | u128::from(word));
            if mantissa != 0 {
                part(mantissa, i32::from(self.unit) + 128 * index as i32, negative);
            }
        }
    }

    /// Adds another cell's sum, or takes it out again.
    pub(super) fn merge(&mut self, pool: &mut Pool, other: &Self, other_pool: &Pool, sign: i64) {
        other.each_part(other_pool, |mantissa, exponent, negative| self.add(pool, mantissa, exponent, negative != (sign < 0)));
    }

    /// The sum in canonical form.
    pub(super) fn digits(&self, pool: &Pool) -> Digits {
        match pool.longs.get(self.long as usize) {
            Some(long) => long.digits(),
            None => {
                let mut long = Long::default();
                self.each_part(pool, |mantissa, exponent, negative| long.add(mantissa, exponent, negative));
                long.digits()
            }
        }
    }

    /// The sum divided by `divisor`, rounded once to nearest even; an exact zero is +0.0.
    pub(super) fn quotient(&self, pool: &Pool, divisor: u64) -> f64 {
        if N == 2 && self.long == NONE {
            let (negative, words) = self.magnitude();
            return quotient(negative, u128::from(words[1]) << 64 | u128::from(words[0]), false, i32::from(self.unit), divisor);
        }
        self.digits(pool).quotient(divisor)
    }
}

fn is_negative<const N: usize>(words: &[u64; N]) -> bool {
    words.last().is_some_and(|&word| word >> 63 == 1)
}

fn negate<const N: usize>(words: &mut [u64; N]) {
    let mut carry = true;
    for word in words {
        (*word, carry) = (!*word).overflowing_add(u64::from(carry));
    }
}

/// The lowest and one past the highest bit that is set.
fn bit_span<const N: usize>(words: &[u64; N]) -> Option<(i32, i32)> {
    let first = words.iter().position(|&word| word != 0)?;
    let last = words.iter().rposition(|&word| word != 0)?;
    let low = 64 * first as i32 + words[first].trailing_zeros() as i32;
    Some((low, 64 * (last as i32 + 1) - words[last].leading_zeros() as i32))
}

/// `mantissa << shift` in `N` words.
fn shifted<const N: usize>(mantissa: u128, shift: u32) -> [u64; N] {
    let mut words = [0; N];
    words[0] = mantissa as u64;
    words[1] = (mantissa >> 64) as u64;
    shift_left(&words, shift)
}

fn shift_left<const N: usize>(words: &[u64; N], shift: u32) -> [u64; N] {
    let (whole, part) = ((shift / 64) as usize, shift % 64);
    std::array::from_fn(|index| {
        let at = |back: usize| index.checked_sub(whole + back).map_or(0, |index| words[index]);
        if part == 0 { at(0) } else { at(0) << part | at(1) >> (64 - part) }
    })
}

fn shift_right<const N: usize>(words: &[u64; N], shift: u32) -> [u64; N] {
    let (whole, part) = ((shift / 64) as usize, shift % 64);
    std::array::from_fn(|index| {
        let at = |ahead: usize| words.get(index + whole + ahead).copied().unwrap_or(0);
        if part == 0 { at(0) } else { at(0) >> part | at(1) << (64 - part) }
    })
}

/// A long accumulator in carry-save form: limb `i` weighs 2^(32 (first + i)) and may hold far more than 32 bits, of either sign.
#[derive(Default)]
struct Long {
    first: i32,
    limbs: Vec<i64>,
    /// Additions since the carries were last moved on.
    pending: u32,
}

impl Long {
    /// Each addition puts less than 2^32 on a limb that holds less than 2^32 after carrying: 2^30 of them stay below 2^63.
    const PENDING_MAX: u32 = 1 << 30;

    fn add(&mut self, mut mantissa: u128, exponent: i32, negative: bool) {
        if mantissa == 0 {
            return;
        }
        let (first, offset) = (exponent.div_euclid(32), exponent.rem_euclid(32) as u32);
        let bits = 128 - mantissa.leading_zeros() + offset;
        self.cover(first, first + bits.div_ceil(32) as i32);
        let start = (first - self.first) as usize;
        let mut take = 32 - offset;
        for (index, limb) in self.limbs.iter_mut().skip(start).take(bits.div_ceil(32) as usize).enumerate() {
            let digit = (mantissa & ((1 << take) - 1)) as i64;
            let digit = if index == 0 { digit << offset } else { digit };
            *limb += if negative { -digit } else { digit };
            mantissa >>= take;
            take = 32;
        }
        self.pending += 1;
        if self.pending >= Self::PENDING_MAX {
            self.carry();
        }
    }

    /// Makes limbs `low..high` exist.
    fn cover(&mut self, low: i32, high: i32) {
        if self.limbs.is_empty() {
            self.first = low;
        }
        if low < self.first {
            self.limbs.splice(0..0, std::iter::repeat_n(0, (self.first - low) as usize));
            self.first = low;
        }
        let length = (high - self.first) as usize;
        if length > self.limbs.len() {
            self.limbs.resize(length, 0);
        }
    }

    /// Brings every limb back to 32 bits; the sign stays in the last.
    fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs {
            let sum = *limb + carry;
            *limb = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        if carry != 0 {
            self.limbs.push(carry);
        }
        self.pending = 0;
    }

    fn digits(&self) -> Digits {
        let mut digits = Vec::with_capacity(self.limbs.len() + 2);
        let mut carry = 0_i64;
        for &limb in &self.limbs {
            let sum = limb + carry;
            digits.push(sum as u32);
            carry = sum >> 32;
        }
        while carry != 0 && carry != -1 {
            digits.push(carry as u32);
            carry >>= 32;
        }
        let negative = carry == -1;
        if negative {
            let mut one = true;
            for digit in &mut digits {
                (*digit, one) = (!*digit).overflowing_add(u32::from(one));
            }
            if one {
                digits.push(1);
            }
        }
        Digits::trimmed(negative, self.first, digits)
    }
}

/// A number in canonical form: sign, and the digits of its magnitude in base 2^32, low first, without zero digits at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digits {
    pub(super) negative: bool,
    /// The first digit weighs 2^(32 first).
    pub(super) first: i32,
    pub(super) digits: Vec<u32>,
}

impl Digits {
    pub(super) fn trimmed(negative: bool, first: i32, mut digits: Vec<u32>) -> Self {
        let used = digits.iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
        digits.truncate(used);
        let zeros = digits.iter().position(|&digit| digit != 0).unwrap_or(0);
        digits.drain(..zeros);
        if digits.is_empty() {
            return Self { negative: false, first: 0, digits };
        }
        Self { negative, first: first + zeros as i32, digits }
    }

    /// The number divided by `divisor`, rounded once.
    pub(super) fn quotient(&self, divisor: u64) -> f64 {
        let top = self.digits.len().saturating_sub(4);
        let sticky = self.digits.iter().take(top).any(|&digit| digit != 0);
        let magnitude = self.digits.iter().skip(top).rev().fold(0_u128, |magnitude, &digit| magnitude << 32 | u128::from(digit));
        quotient(self.negative, magnitude, sticky, 32 * (self.first + top as i32), divisor)
    }
}

/// `±magnitude * 2^exponent / divisor`, rounded once to nearest even, with gradual underflow, to ±infinity past the greatest double.
/// `sticky`: the true magnitude is a little greater, by less than one unit; then it has at least 97 bits.
pub(super) fn quotient(negative: bool, magnitude: u128, sticky: bool, exponent: i32, divisor: u64) -> f64 {
    if magnitude == 0 || divisor == 0 {
        return 0.0;
    }
    // A quotient of at least 65 bits: 11 more than are kept.
    let zeros = magnitude.leading_zeros();
    let (shifted, exponent) = (magnitude << zeros, exponent - zeros as i32);
    let (magnitude, rest) = if divisor == 1 { (shifted, 0) } else { (shifted / u128::from(divisor), shifted % u128::from(divisor)) };
    let sticky = sticky || rest != 0;
    let top = exponent + 128 - magnitude.leading_zeros() as i32;
    // The weight of the last bit kept: 53 bits, or as many as a subnormal has.
    let last = (top - 53).max(-1074);
    let drop = last - exponent;
    let (kept, rest, half) = match drop {
        ..=0 => (magnitude, 0, 1),
        1..=127 => (magnitude >> drop, magnitude & ((1 << drop) - 1), 1 << (drop - 1)),
        128 => (0, magnitude, 1 << 127),
        _ => (0, 0, 1),
    };
    let up = rest > half || (rest == half && (sticky || kept & 1 == 1));
    let kept = kept as u64 + u64::from(up);
    let bits = if last > 971 { f64::INFINITY.to_bits() } else { (((last + 1074) as u64) << 52) + kept };
    f64::from_bits(bits | u64::from(negative && bits != 0) << 63)
}

/// A finite double as (mantissa, exponent, negative).
#[inline(always)]
pub(super) fn decompose(x: f64) -> (u64, i32, bool) {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    (mantissa, exponent, bits >> 63 == 1)
}
