//! JSON numbers: their grammar, and their exact value as whole numbers, decimals and floats.
//!
//! A whole number or a decimal never passes through a float, and an exponent never makes anything larger than 128 bits: what can't
//! fit is found by counting digits. Floats round to nearest, ties to even. Nothing here knows a column. Called by `walk`.

use super::bad::{Fault, grammar};
use super::scan::{at, digits, digits8, load8, number8};

/// The powers of ten a 128-bit number holds.
const POW10: [i128; 39] = {
    let mut all = [1_i128; 39];
    let mut i = 1;
    while i < 39 {
        all[i] = all[i - 1] * 10;
        i += 1;
    }
    all
};

const POW10_F64: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

/// Ten to the `n`, or nothing when that is past 128 bits.
pub(super) fn pow10(n: usize) -> Option<i128> {
    POW10.get(n).copied()
}

/// A number as it is spelled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub negative: bool,
    pub whole: &'a [u8],
    pub fraction: &'a [u8],
    /// Saturates far beyond what any count of digits can make up for.
    pub exponent: i64,
    pub text: &'a [u8],
}

/// Reads the number at `pos`: and where it ends.
pub(super) fn parse(bytes: &[u8], pos: usize) -> Result<(Number<'_>, usize), Fault> {
    let negative = at(bytes, pos) == b'-';
    let start = pos + usize::from(negative);
    let whole = digits(bytes, start);
    if whole == start || (at(bytes, start) == b'0' && whole > start + 1) {
        return Err(grammar(bytes, if whole == start { start } else { start + 1 }));
    }
    let mut end = whole;
    let mut point = whole;
    if at(bytes, whole) == b'.' {
        point = whole + 1;
        end = digits(bytes, point);
        if end == point {
            return Err(grammar(bytes, end));
        }
    }
    let fraction = point..end;
    let mut exponent = 0_i64;
    if matches!(at(bytes, end), b'e' | b'E') {
        let sign = at(bytes, end + 1);
        let from = end + 1 + usize::from(matches!(sign, b'+' | b'-'));
        end = digits(bytes, from);
        if end == from {
            return Err(grammar(bytes, end));
        }
        for digit in bytes.get(from..end).unwrap_or_default() {
            exponent = (exponent * 10 + i64::from(digit - b'0')).min(i64::MAX / 100);
        }
        if sign == b'-' {
            exponent = -exponent;
        }
    }
    let slice = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default();
    Ok((Number { negative, whole: slice(start..whole), fraction: slice(fraction), exponent, text: slice(pos..end) }, end))
}

/// Reads a text that is one number and nothing else.
pub(super) fn parse_all(text: &[u8]) -> Option<Number<'_>> {
    parse(text, 0).ok().filter(|(_, end)| *end == text.len()).map(|(number, _)| number)
}

/// Checks the number at `pos`; where it ends.
#[inline]
pub(super) fn skip(bytes: &[u8], pos: usize) -> Result<usize, Fault> {
    match integer(bytes, pos) {
        Some((_, end)) => Ok(end),
        None => parse(bytes, pos).map(|(_, end)| end),
    }
}

/// The plain integer at `pos` and where it ends, if it has at most 16 digits and neither point nor exponent. Anything else, and
/// anything wrong, is for [`parse`].
#[inline(always)]
pub(super) fn integer(bytes: &[u8], pos: usize) -> Option<(i64, usize)> {
    let negative = at(bytes, pos) == b'-';
    let start = pos + usize::from(negative);
    let word = load8(bytes, start);
    let count = digits8(word);
    if count == 0 || (word as u8 == b'0' && count > 1) {
        return None;
    }
    let mut value = number8(word, count);
    let mut end = start + count as usize;
    if count == 8 {
        let word = load8(bytes, end);
        let count = digits8(word);
        if count == 8 && at(bytes, end + 8).is_ascii_digit() {
            return None;
        }
        if count > 0 {
            value = value * POW10_U64[count as usize & 15] + number8(word, count);
            end += count as usize;
        }
    }
    if matches!(at(bytes, end), b'.' | b'e' | b'E') {
        return None;
    }
    let value = value.cast_signed();
    Some((if negative { -value } else { value }, end))
}

/// 10^0 to 10^8; the table is 16 long so that a masked index needs no check.
const POW10_U64: [u64; 16] = {
    let mut all = [1_u64; 16];
    let mut i = 1;
    while i < 16 {
        all[i] = all[i - 1] * 10;
        i += 1;
    }
    all
};

/// A plain number with a point: its digits as one number, how many of them follow the point, and where it ends. At most 8 digits
/// before and 8 after the point, no exponent; anything else is for [`parse`].
#[inline(always)]
pub(super) fn pointed(bytes: &[u8], pos: usize) -> Option<(i64, u32, usize)> {
    let negative = at(bytes, pos) == b'-';
    let start = pos + usize::from(negative);
    let word = load8(bytes, start);
    let count = digits8(word);
    if count == 0 || (word as u8 == b'0' && count > 1) {
        return None;
    }
    let mut value = number8(word, count);
    let mut end = start + count as usize;
    let mut places = 0;
    if at(bytes, end) == b'.' {
        let word = load8(bytes, end + 1);
        places = digits8(word);
        if places == 0 {
            return None;
        }
        value = value * POW10_U64[places as usize & 15] + number8(word, places);
        end += 1 + places as usize;
    }
    if matches!(at(bytes, end), b'0'..=b'9' | b'.' | b'e' | b'E') {
        return None;
    }
    let value = value.cast_signed();
    Some((if negative { -value } else { value }, places, end))
}

impl Number<'_> {
    /// The value times 10^`scale`, if that is whole and has at most `precision` digits.
    pub(super) fn scaled(&self, precision: u32, scale: u32) -> Option<i128> {
        let mut mantissa = 0_i128;
        let mut count = 0_i64;
        // Zeros at the end may all be dropped, so they only count once another digit follows them.
        let mut zeros = 0_i64;
        for digit in self.whole.iter().chain(self.fraction).map(|byte| i128::from(byte - b'0')) {
            if digit == 0 {
                zeros += i64::from(mantissa != 0);
                continue;
            }
            count += zeros + 1;
            let shift = pow10(usize::try_from(zeros + 1).ok()?)?;
            mantissa = mantissa.checked_mul(shift)?.checked_add(digit)?;
            zeros = 0;
        }
        if mantissa == 0 {
            return Some(0);
        }
        let shift = self.exponent - self.fraction.len() as i64 + zeros + i64::from(scale);
        if shift < 0 || count + shift > i64::from(precision) {
            return None;
        }
        let value = mantissa.checked_mul(pow10(usize::try_from(shift).ok()?)?)?;
        Some(if self.negative { -value } else { value })
    }

    /// The value as a whole number of 64 bits.
    pub(super) fn int64(&self) -> Option<i64> {
        self.scaled(19, 0).and_then(|value| i64::try_from(value).ok())
    }

    /// The nearest double, if the number is not past it.
    pub(super) fn float64(&self) -> Option<f64> {
        std::str::from_utf8(self.text).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// The nearest single-precision float, rounded once, if the number is not past it.
    pub(super) fn float32(&self) -> Option<f32> {
        std::str::from_utf8(self.text).ok()?.parse().ok().filter(|value: &f32| value.is_finite())
    }
}

/// The double that `value` / 10^`places` rounds to. Exact operands make one rounding: |value| < 2^53 and 10^22 are exact.
#[inline(always)]
pub(super) fn float64(value: i64, places: u32) -> Option<f64> {
    let power = POW10_F64.get(places as usize)?;
    // -0 keeps its sign only on the long way.
    (value.unsigned_abs() < 1 << 53 && value != 0).then(|| value as f64 / power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_is_exact() {
        let scaled = |text: &str, p, s| parse_all(text.as_bytes()).unwrap().scaled(p, s);
        for (text, p, s, want) in [
            ("2.2500", 8, 2, Some(225)),
            ("1e-3", 8, 2, None),
            ("1e3", 19, 0, Some(1000)),
            ("1000e-3", 19, 0, Some(1)),
            ("-0", 19, 0, Some(0)),
            ("0e99999999999999999999", 3, 2, Some(0)),
            ("1e1000000000", 38, 0, None),
            ("1e-1000000000", 38, 0, None),
            ("99999999999999999999999999999999999999", 38, 0, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("100000000000000000000000000000000000000", 38, 0, None),
            ("123456789012345678901234567890123456789012345", 38, 0, None),
            ("999999.99", 8, 2, Some(99_999_999)),
            ("1000000.0", 8, 2, None),
            ("0.00000000000000000000000000000000000000000000012e46", 4, 1, Some(12)),
        ] {
            assert_eq!(scaled(text, p, s), want, "{text}");
        }
        let long = format!("0.{}1e2000001", "0".repeat(2_000_000));
        assert_eq!(scaled(&long, 19, 0), Some(1));
        let long = format!("1{}e-2000000", "0".repeat(2_000_000));
        assert_eq!(scaled(&long, 19, 0), Some(1));
    }

    #[test]
    fn short_ways_agree_with_the_long_one() {
        for text in
            ["0", "-0", "7", "-12345678", "123456789", "9999999999999999", "-1234567890123456", "10.25", "-0.5", "12345678.12345678"]
        {
            for tail in ["", ",", "}", " "] {
                let bytes = format!("{text}{tail}").into_bytes();
                let (long, end) = parse(&bytes, 0).unwrap();
                if let Some((value, stop)) = integer(&bytes, 0) {
                    assert_eq!((Some(value), stop), (long.int64(), end));
                } else {
                    assert!(text.contains('.'));
                }
                if let Some((value, places, stop)) = pointed(&bytes, 0) {
                    assert_eq!((Some(i128::from(value)), stop), (long.scaled(38, places), end));
                    if let Some(float) = float64(value, places) {
                        assert_eq!(Some(float), long.float64());
                    }
                }
            }
        }
        for wrong in ["", "-", "01", "1.", "1.x", "00", "1e", "99999999999999999", "+1", ".5", "12e2"] {
            assert_eq!(integer(wrong.as_bytes(), 0).filter(|_| !wrong.is_empty()), None, "{wrong}");
        }
    }
}
