//! The 64-bit hash of a value, fixed for ever: sketches written by one build are read by the next, on any machine.
//!
//! Definition, all arithmetic modulo 2^64, words little-endian:
//! - `mix(x)`: Stafford's variant 13 of the MurmurHash3 finaliser (the one of SplitMix64), after adding [`K0`]:
//!   `x += K0; x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9; x = (x ^ x >> 27) * 0x94d049bb133111eb; x ^ x >> 31`.
//! - [`hash_u64`] is `mix`; whole numbers are hashed as their 64-bit two's complement, so 7 is 7 in every integer type.
//! - `fold(a, b)`: the high half xor the low half of the 128-bit product `a * b` (the step of wyhash).
//! - [`hash_bytes`]: `h = K0 ^ len`; for every full 16 bytes `(a, b)` but those of the tail: `h = fold(a ^ K1, b ^ h)`. The tail is the last
//!   0 to 16 bytes as two words: over 8 bytes its first and its last eight (they may overlap); 4 to 8 bytes its first and its last four;
//!   1 to 3 bytes `first << 16 | middle << 8 | last` (middle = byte `len / 2`) and 0; empty 0 and 0. Result `mix(fold(a ^ K2, b ^ h))`.
//!
//! It is no defence against chosen keys: nothing here may depend on it for more than speed or a sketch's stated error.

/// First 64 bits of the fraction of the golden ratio, also the increment of SplitMix64.
const K0: u64 = 0x9e37_79b9_7f4a_7c15;
/// First 64 bits of the fraction of sqrt(2), made odd.
const K1: u64 = 0x6a09_e667_f3bc_c909;
/// First 64 bits of the fraction of sqrt(3), made odd.
const K2: u64 = 0xbb67_ae85_84ca_a73b;

/// Hash of one word; different words have different hashes.
#[inline(always)]
pub fn hash_u64(word: u64) -> u64 {
    let mut x = word.wrapping_add(K0);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hash of a string of bytes.
///
/// ```
/// use tidemill_operators::aggregate::hash::hash_bytes;
/// assert_ne!(hash_bytes(b"a"), hash_bytes(b"a\0"));
/// ```
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = K0 ^ bytes.len() as u64;
    let mut rest = bytes;
    while let (true, Some((head, tail))) = (rest.len() > 16, rest.split_first_chunk::<16>()) {
        hash = fold(word(head) ^ K1, word(&head[8..]) ^ hash);
        rest = tail;
    }
    let (a, b) = match (rest.first_chunk::<8>(), rest.last_chunk::<8>()) {
        (Some(first), Some(last)) if rest.len() > 8 => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => short(rest),
    };
    hash_u64(fold(a ^ K2, b ^ hash))
}

/// The tail of at most 8 bytes as two words.
#[inline(always)]
fn short(rest: &[u8]) -> (u64, u64) {
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>(), rest) {
        (Some(first), Some(last), _) => (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last))),
        (_, _, [first, .., last]) => {
            let middle = rest.get(rest.len() / 2).copied().unwrap_or_default();
            (u64::from(*first) << 16 | u64::from(middle) << 8 | u64::from(*last), 0)
        }
        (_, _, [only]) => (u64::from(*only) << 16 | u64::from(*only) << 8 | u64::from(*only), 0),
        _ => (0, 0),
    }
}

/// The first eight bytes as a word.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition above is frozen: these numbers are in users' snapshots.
    #[test]
    fn is_what_it_was() {
        assert_eq!(hash_u64(0), 0xe220_a839_7b1d_cdaf);
        let text = b"the quick brown fox jumps over the lazy dog";
        let sum = (0..=text.len()).fold(0_u64, |sum, len| sum.rotate_left(7) ^ hash_bytes(&text[..len]));
        assert_eq!(sum, FROZEN, "{sum:#x}");
    }

    const FROZEN: u64 = 0xf912_8b02_4eac_c421;

    #[test]
    fn bits_are_fair() {
        let mut ones = [0_u32; 64];
        for i in 0..20_000_u64 {
            let hash = hash_bytes(format!("visitor-{i}").as_bytes());
            for (bit, count) in ones.iter_mut().enumerate() {
                *count += u32::from(hash >> bit & 1 == 1);
            }
        }
        assert!(ones.iter().all(|&count| count.abs_diff(10_000) < 400), "{ones:?}");
    }
}
