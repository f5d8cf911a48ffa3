//! The random numbers of the workloads: xoshiro256++ (Blackman and Vigna, 2019), seeded through splitmix64 (Steele, Lea, Flood, 2014).
//!
//! What always holds: the numbers are a function of the seed, for ever. This is our own code so that no library's next version changes a
//! workload's bytes. Not for cryptography.

/// A random stream.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = [0_u64; 4];
        let mut at = seed;
        for word in &mut state {
            at = at.wrapping_add(GOLDEN);
            *word = mix(at);
        }
        Self { state }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        // The published output mixes the state from before the step: d ^ b brings the old d back.
        a.wrapping_add(d ^ b).rotate_left(23).wrapping_add(a)
    }

    /// A whole number below `bound` (0 for a bound of 0). Multiply and shift: its bias of `bound / 2^64` is far below what a test can see.
    pub fn below(&mut self, bound: u64) -> u64 {
        scale(self.bits(), bound)
    }

    /// A whole number from `low` up to but without `high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low).max(0) as u64) as i64
    }

    /// True once in `of` on average.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// A number above 0 and at most 1, with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// One of `items`; they may not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads 64 random bits over `0..bound`.
#[must_use]
pub fn scale(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// The finalizer of splitmix64: a bijection that makes random-looking bits of a number, for traits that belong to an entity rather than to
/// a moment (a visitor's country is `mix` of the visitor's number, whenever they come).
#[must_use]
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Random bits for trait number `which` of entity `number`.
#[must_use]
pub fn mix_with(number: u64, which: u64) -> u64 {
    mix(number.wrapping_add(which.wrapping_mul(GOLDEN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// splitmix64's published first outputs for seed 0 hold the seeding; a plain transcription of xoshiro256++ holds the rest.
    #[test]
    fn follows_the_published_algorithms() {
        assert_eq!(Rng::new(0).state[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        let mut rng = Rng::new(42);
        let mut s = rng.state;
        for _ in 0..1_000 {
            let expected = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
            let t = s[1] << 17;
            s[2] ^= s[0];
            s[3] ^= s[1];
            s[1] ^= s[2];
            s[0] ^= s[3];
            s[2] ^= t;
            s[3] = s[3].rotate_left(45);
            assert_eq!(rng.bits(), expected);
            assert_eq!(rng.state, s);
        }
    }

    #[test]
    fn stays_in_bounds() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
            let unit = rng.unit();
            assert!(unit > 0.0 && unit <= 1.0);
            assert!((-5..5).contains(&rng.between(-5, 5)));
        }
        assert!(seen.iter().all(|count| (850..1_150).contains(count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
