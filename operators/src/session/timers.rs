//! `Timers`: times at which session slots want to be looked at, in buckets, since most are set anew before they matter.
//!
//! Always: `take_due` gives every timer at or before the watermark once, bucket by bucket, in the order they were set.

use std::collections::BTreeMap;

use tidemill_engine::time::Micros;

/// See the module doc.
pub(super) struct Timers {
    width: Micros,
    buckets: BTreeMap<i64, Vec<(Micros, u32)>>,
    len: usize,
}

impl Timers {
    /// Buckets are a fraction of `gap`, so a bucket is small against the time a session lives.
    pub(super) fn new(gap: Micros) -> Self {
        Self { width: (gap / 64).max(1), buckets: BTreeMap::new(), len: 0 }
    }

    pub(super) fn set(&mut self, time: Micros, slot: u32) {
        self.buckets.entry(time.div_euclid(self.width)).or_default().push((time, slot));
        self.len += 1;
    }

    /// May a timer be due?
    pub(super) fn may_be_due(&self, watermark: Micros) -> bool {
        self.buckets.first_key_value().is_some_and(|(bucket, _)| *bucket <= watermark.div_euclid(self.width))
    }

    pub(super) fn take_due(&mut self, watermark: Micros) -> Vec<(Micros, u32)> {
        let current = watermark.div_euclid(self.width);
        let mut due = Vec::new();
        while let Some(first) = self.buckets.first_entry().filter(|first| *first.key() < current) {
            due.append(&mut first.remove());
        }
        if let Some(timers) = self.buckets.get_mut(&current) {
            timers.retain(|timer| {
                let later = timer.0 > watermark;
                due.extend((!later).then_some(*timer));
                later
            });
            if timers.is_empty() {
                self.buckets.remove(&current);
            }
        }
        self.len -= due.len();
        due
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<(Micros, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_is_due_once_and_never_early() {
        let mut timers = Timers::new(640);
        for (time, slot) in [(5, 0), (-11, 1), (14, 2), (15, 3), (400, 4)] {
            timers.set(time, slot);
        }
        assert_eq!(timers.take_due(14), [(-11, 1), (5, 0), (14, 2)]);
        assert_eq!(timers.take_due(14), []);
        assert_eq!(timers.take_due(399), [(15, 3)]);
        assert!(!timers.may_be_due(389) && timers.may_be_due(400));
        assert_eq!(timers.take_due(1000), [(400, 4)]);
    }
}
