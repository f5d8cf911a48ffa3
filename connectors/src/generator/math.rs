//! Logarithm and exponential from the four basic operations alone.
//!
//! What always holds: the same bits on every machine. IEEE 754 fixes the results of `+ - * /` and leaves `ln` and `exp` to each platform's
//! library, whose last bit would then decide which link a record names. Accurate to about 1e-14, plenty for drawing random numbers.

const LN_2: f64 = std::f64::consts::LN_2;

/// The natural logarithm of a positive, normal number.
#[must_use]
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1_023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)); |z| <= 0.172, so the first term left out is below 0.172^19 / 19 < 2e-16.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let squared = z * z;
    let mut sum = 0.0;
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * squared + 1.0 / odd;
    }
    exponent as f64 * LN_2 + 2.0 * z * sum
}

/// e to the power of `x`, for `x` between -700 and 700.
#[must_use]
pub fn exp(x: f64) -> f64 {
    let doublings = (x / LN_2).round();
    let rest = x - doublings * LN_2;
    // |rest| <= 0.347: 0.347^15 / 15! < 1e-19.
    let mut sum = 1.0;
    for term in (1..15).rev() {
        sum = 1.0 + sum * rest / f64::from(term);
    }
    sum * f64::from_bits(((doublings as i64 + 1_023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_platform() {
        for x in [1e-16, 0.003, 0.5, 0.75, 1.0, 1.4, 2.0, 10.0, 12_345.678, 1e12] {
            let (ours, theirs) = (ln(x), x.ln());
            assert!((ours - theirs).abs() <= 1e-13 * theirs.abs().max(1.0), "ln {x}: {ours} {theirs}");
        }
        for x in [-30.0, -1.0, -0.3, 0.0, 0.1, 1.0, 5.5, 30.0] {
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 1e-13, "exp {x}");
        }
    }
}
