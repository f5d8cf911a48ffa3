//! The links that a URL shortener serves: their codes, how popular they are, which are gone, which one is going round just now.
//!
//! What always holds: codes are seven base-62 characters and no two numbers share one; popularity follows Zipf's law.

use super::super::rng::{mix_with, scale};
use super::super::weighted::Weighted;

/// Live links. Numbers from here on are codes that were never given out.
pub const LINKS: u64 = 50_000;
/// With this exponent the first link takes 14 % of the clicks and the first hundred two thirds.
const EXPONENT: f64 = 1.1;
/// One link in so many has expired, though none of the most popular.
const EXPIRED_ONE_IN: u64 = 50;
const NEVER_EXPIRED: u64 = 500;
/// How long one link goes round, and which ranks such a link comes from: known ones, so that the surge stands out against their own past.
const VIRAL_MS: i64 = 20 * 60_000;
const VIRAL_RANKS: std::ops::Range<u64> = 50..1_000;

pub type Code = [u8; 7];

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CODES: u64 = 62_u64.pow(7);
/// Odd and no multiple of 31, so that multiplying by it permutes the numbers below 62^7; the golden section of it, so that neighbours lie far apart.
const STRIDE: u64 = 2_176_477_521_739;

/// The links of one seed.
pub struct Links {
    seed: u64,
    codes: Vec<Code>,
    popularity: Weighted,
}

impl Links {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, codes: (0..LINKS).map(code).collect(), popularity: Weighted::zipf(LINKS as u32, EXPONENT) }
    }

    /// A link as people pick them.
    #[must_use]
    pub fn popular(&self, bits: u64) -> u64 {
        self.popularity.draw(bits) as u64
    }

    /// The link that goes round at this time.
    #[must_use]
    pub fn viral(&self, now_ms: i64) -> u64 {
        let bits = mix_with(self.seed, now_ms.div_euclid(VIRAL_MS) as u64);
        VIRAL_RANKS.start + scale(bits, VIRAL_RANKS.end - VIRAL_RANKS.start)
    }

    /// Whether the link has expired and answers 410.
    #[must_use]
    pub fn expired(&self, link: u64) -> bool {
        link >= NEVER_EXPIRED && mix_with(self.seed ^ 0x0e, link).is_multiple_of(EXPIRED_ONE_IN)
    }

    /// The code of a number, given out or not.
    #[must_use]
    pub fn code(&self, number: u64) -> Code {
        self.codes.get(number as usize).copied().unwrap_or_else(|| code(number))
    }
}

fn code(number: u64) -> Code {
    let mut rest = ((u128::from(number) * u128::from(STRIDE) + 1_234_567_891) % u128::from(CODES)) as u64;
    let mut code = Code::default();
    for character in code.iter_mut().rev() {
        *character = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_well_formed() {
        const { assert!(!STRIDE.is_multiple_of(2) && !STRIDE.is_multiple_of(31)) };
        let codes: std::collections::BTreeSet<Code> = (0..200_000).map(code).collect();
        assert_eq!(codes.len(), 200_000);
        assert!(codes.iter().flatten().all(u8::is_ascii_alphanumeric));
    }

    #[test]
    fn what_is_popular_has_not_expired() {
        let links = Links::new(1);
        let expired = (0..LINKS).filter(|link| links.expired(*link)).count();
        assert!((800..1_200).contains(&expired), "{expired}");
        assert!((0..NEVER_EXPIRED).all(|link| !links.expired(link)));
        assert!((0..100).all(|period| VIRAL_RANKS.contains(&links.viral(period * VIRAL_MS))));
    }
}
