//! Infinities and NaN beside an exact sum: counted, so that they too can leave again. Few groups have any.

use hashbrown::HashMap;

use super::hash::hash_u64;

/// How many +infinity, -infinity and NaN went in.
pub(super) type Counts = [i64; 3];

/// The counts of the groups that have any.
#[derive(Default)]
pub(super) struct Specials {
    groups: HashMap<u32, Counts, FixedState>,
}

/// Hashes group numbers with the module's own hash.
#[derive(Default, Clone, Copy)]
struct FixedState;

impl std::hash::BuildHasher for FixedState {
    type Hasher = GroupHasher;
    fn build_hasher(&self) -> GroupHasher {
        GroupHasher(0)
    }
}

struct GroupHasher(u64);

impl std::hash::Hasher for GroupHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = hash_u64(self.0 << 8 ^ u64::from(byte)));
    }
    fn write_u32(&mut self, group: u32) {
        self.0 = hash_u64(u64::from(group));
    }
}

impl Specials {
    /// Notes a value that is not finite.
    #[cold]
    pub(super) fn note(&mut self, group: usize, value: f64, weight: i64) {
        let kind = if value.is_nan() { 2 } else { usize::from(value < 0.0) };
        let mut counts = Counts::default();
        counts[kind] = weight;
        self.add(group as u32, counts, 1);
    }

    /// Adds counts, or takes them out again.
    pub(super) fn add(&mut self, group: u32, counts: Counts, sign: i64) {
        if counts == Counts::default() {
            return;
        }
        let held = self.groups.entry(group).or_default();
        for (held, count) in held.iter_mut().zip(counts) {
            *held += sign * count;
        }
        if *held == Counts::default() {
            self.groups.remove(&group);
        }
    }

    pub(super) fn get(&self, group: u32) -> Counts {
        if self.groups.is_empty() { Counts::default() } else { self.groups.get(&group).copied().unwrap_or_default() }
    }

    /// What the group's sum is if it is not finite: NaN beats all, both infinities make NaN.
    pub(super) fn sum(&self, group: u32) -> Option<f64> {
        match self.get(group).map(|count| count > 0) {
            [false, false, false] => None,
            [true, false, false] => Some(f64::INFINITY),
            [false, true, false] => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    pub(super) fn clear(&mut self, group: usize) {
        if !self.groups.is_empty() {
            self.groups.remove(&(group as u32));
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.groups.allocation_size()
    }
}
