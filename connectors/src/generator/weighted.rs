//! Drawing from a fixed set by weight, in constant time: Walker's alias method (Vose's construction, 1991). Also Zipf's law on top of it.
//!
//! What always holds: one draw uses 64 random bits and touches one slot of the table; the weights are met to within 2^-32.

use super::math::{exp, ln};
use super::rng::scale;

/// A table to draw from.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// A slot keeps its own index if the draw's low half is below `keep`, and gives its alias otherwise.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    keep: u32,
    alias: u32,
}

impl Weighted {
    /// A table of these weights: not negative, not all zero.
    #[must_use]
    pub fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight * weights.len() as f64 / total).collect();
        let mut slots: Vec<Slot> = (0..weights.len()).map(|index| Slot { keep: u32::MAX, alias: index as u32 }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|index| scaled[*index] < 1.0);
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            slots[poor] = Slot { keep: (scaled[poor] * 4_294_967_296.0) as u32, alias: rich as u32 };
            scaled[rich] -= 1.0 - scaled[poor];
            if scaled[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { slots }
    }

    /// Zipf's law: rank `k` of `ranks` (drawn as `k - 1`) is as frequent as `1 / k^exponent`.
    #[must_use]
    pub fn zipf(ranks: u32, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=ranks.max(1)).map(|rank| exp(-exponent * ln(f64::from(rank)))).collect();
        Self::new(&weights)
    }

    /// The index that these random bits select.
    #[must_use]
    pub fn draw(&self, bits: u64) -> usize {
        let index = scale(bits & 0xffff_ffff_0000_0000, self.slots.len() as u64) as usize;
        let slot = self.slots[index];
        if (bits as u32) < slot.keep { index } else { slot.alias as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::rng::Rng;

    fn shares(table: &Weighted, draws: usize, size: usize) -> Vec<f64> {
        let mut rng = Rng::new(11);
        let mut counts = vec![0_u32; size];
        for _ in 0..draws {
            counts[table.draw(rng.bits())] += 1;
        }
        counts.iter().map(|count| f64::from(*count) / draws as f64).collect()
    }

    #[test]
    fn meets_its_weights() {
        let got = shares(&Weighted::new(&[1.0, 0.0, 7.0, 2.0]), 200_000, 4);
        for (share, expected) in got.iter().zip([0.1, 0.0, 0.7, 0.2]) {
            assert!((share - expected).abs() < 0.005, "{got:?}");
        }
    }

    #[test]
    fn zipf_falls_with_its_exponent() {
        let got = shares(&Weighted::zipf(1_000, 1.1), 2_000_000, 1_000);
        let total: f64 = (1..=1_000).map(|rank| f64::from(rank).powf(-1.1)).sum();
        for rank in [1_usize, 2, 10, 100] {
            let expected = (rank as f64).powf(-1.1) / total;
            assert!((got[rank - 1] / expected - 1.0).abs() < 0.05, "rank {rank}: {} {expected}", got[rank - 1]);
        }
    }
}
