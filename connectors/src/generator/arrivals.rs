//! When events happen and when their records arrive.
//!
//! What always holds: arrivals never go back; a prompt event is at most [`DISORDER_MS_MAX`] older than its arrival, so a source whose
//! watermark trails by 5 seconds finds none of them late; a late event is at least [`LATE_MS_MIN`] older. Clocks are made up: nothing here
//! asks the machine what time it is.

use super::math::{exp, ln};
use super::rng::Rng;

/// The most that a prompt event is older than its record. A repeat may add [`REPEAT_MS_MAX`]; both stay within 5 seconds.
pub const DISORDER_MS_MAX: i64 = 4_000;
/// The most that the repeat of a record comes after it.
pub const REPEAT_MS_MAX: i64 = 500;
/// The least and the most that a late event is older than its record.
pub const LATE_MS_MIN: i64 = 2 * 60_000;
pub const LATE_MS_MAX: i64 = 6 * 3_600_000;

/// A tide of this length swells and sinks under the average rate, so that minutes differ.
const TIDE_NS: i64 = 47 * 60 * 1_000_000_000;

/// A Poisson process whose rate swings between 0.6 and 1.4 of its average.
#[derive(Clone, Debug)]
pub struct Arrivals {
    start_ms: i64,
    since_start_ns: i64,
    mean_gap_ns: f64,
}

impl Arrivals {
    /// Arrivals from `start_ms` on, `rate_per_s` of them a second on average (at least one in 1,000 seconds, at most 1e8 a second).
    #[must_use]
    pub fn new(start_ms: i64, rate_per_s: f64) -> Self {
        Self { start_ms, since_start_ns: 0, mean_gap_ns: 1e9 / rate_per_s.clamp(1e-3, 1e8) }
    }

    /// Advances to the next arrival and gives its time.
    pub fn next_ms(&mut self, rng: &mut Rng) -> i64 {
        let phase = (self.since_start_ns % TIDE_NS) as f64 / TIDE_NS as f64;
        let swell = 1.4 - 1.6 * (phase - 0.5).abs();
        self.since_start_ns += (-ln(rng.unit()) * self.mean_gap_ns / swell) as i64;
        self.now_ms()
    }

    /// The time of the last arrival.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.start_ms + self.since_start_ns / 1_000_000
    }
}

/// How much older than its record a prompt event is: exponential, 400 ms on average, cut at [`DISORDER_MS_MAX`].
pub fn disorder_ms(rng: &mut Rng) -> i64 {
    ((-ln(rng.unit()) * 400.0) as i64).min(DISORDER_MS_MAX)
}

/// How much older than its record a late event is: evenly spread over the orders of magnitude from minutes to hours.
pub fn lateness_ms(rng: &mut Rng) -> i64 {
    let (low, high) = (ln(LATE_MS_MIN as f64), ln(LATE_MS_MAX as f64));
    (exp(low + rng.unit() * (high - low)) as i64).clamp(LATE_MS_MIN, LATE_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_rate_over_whole_tides() {
        let (mut arrivals, mut rng) = (Arrivals::new(5_000, 200.0), Rng::new(3));
        let mut count = 0_u32;
        let mut before = 5_000;
        while before < 5_000 + 3 * TIDE_NS / 1_000_000 {
            let now = arrivals.next_ms(&mut rng);
            assert!(now >= before);
            before = now;
            count += 1;
        }
        let rate = f64::from(count) / (3.0 * TIDE_NS as f64 / 1e9);
        assert!((rate / 200.0 - 1.0).abs() < 0.01, "{rate}");
    }

    #[test]
    fn delays_stay_in_their_bounds() {
        let mut rng = Rng::new(4);
        for _ in 0..100_000 {
            assert!((0..=DISORDER_MS_MAX).contains(&disorder_ms(&mut rng)));
            assert!((LATE_MS_MIN..=LATE_MS_MAX).contains(&lateness_ms(&mut rng)));
        }
    }
}
