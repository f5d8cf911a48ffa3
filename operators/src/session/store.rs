//! `Store`: sessions of many keys, a short sorted list of time spans a key, each with a slot of aggregate state.
//!
//! Always: spans of one key lie more than `gap` apart. Rows that close the distance between spans merge them; since the aggregate calls
//! take a whole batch at once, those merges are collected and done after it.

use tidemill_engine::error::Result;
use tidemill_engine::time::Micros;

use crate::groups::Groups;
use crate::pane::States;

/// One session of a key: its first and last row's time, and its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub start: Micros,
    pub last: Micros,
    pub slot: u32,
}

/// The sessions of a key by time. Most keys have one, which needs no allocation.
#[derive(Debug, Clone, Default)]
pub(super) enum Spans {
    #[default]
    None,
    One(Span),
    Many(Vec<Span>),
}

impl Spans {
    pub(super) fn as_slice(&self) -> &[Span] {
        match self {
            Self::None => &[],
            Self::One(span) => std::slice::from_ref(span),
            Self::Many(spans) => spans,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Span] {
        match self {
            Self::None => &mut [],
            Self::One(span) => std::slice::from_mut(span),
            Self::Many(spans) => spans,
        }
    }

    /// Puts `with` in the place of `range`.
    pub(super) fn replace(&mut self, range: std::ops::Range<usize>, with: &[Span]) {
        let mut spans = match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(span) => vec![span],
            Self::Many(spans) => spans,
        };
        if let ([one], true) = (with, range == (0..spans.len())) {
            *self = Self::One(*one);
            return;
        }
        spans.splice(range, with.iter().copied());
        *self = if spans.is_empty() { Self::None } else { Self::Many(spans) };
    }

    /// The spans at most `gap` away from `start..=last`.
    pub(super) fn near(&self, start: Micros, last: Micros, gap: Micros) -> std::ops::Range<usize> {
        let spans = self.as_slice();
        let from = spans.partition_point(|span| span.last.saturating_add(gap) < start);
        let to = spans.partition_point(|span| span.start <= last.saturating_add(gap));
        from..to.max(from)
    }
}

/// See the module doc.
pub(super) struct Store {
    pub groups: Groups,
    /// One list a key slot.
    pub lists: Vec<Spans>,
    pub states: States,
    /// Tokens waiting in each session, one column a source.
    pub pending: Vec<Vec<i64>>,
    /// Session slots ever used.
    pub slots: u32,
    free: Vec<u32>,
    /// Sessions to merge after the batch: (into, from).
    merges: Vec<(u32, u32)>,
    gap: Micros,
}

impl Store {
    pub(super) fn new(groups: Groups, states: States, sources: usize, gap: Micros) -> Self {
        Self { groups, lists: Vec::new(), states, pending: vec![Vec::new(); sources], slots: 0, free: Vec::new(), merges: Vec::new(), gap }
    }

    /// A slot for a new session.
    pub(super) fn add_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Makes the columns as long as the slots.
    pub(super) fn resize(&mut self) {
        let slots = self.slots as usize;
        self.states.resize(slots);
        self.pending.iter_mut().for_each(|pending| pending.resize(slots.max(pending.len()), 0));
        self.grow_lists();
    }

    /// A list for each key.
    pub(super) fn grow_lists(&mut self) {
        if self.lists.len() < self.groups.len() {
            self.lists.resize(self.groups.len(), Spans::None);
        }
    }

    /// Empties a slot for another session.
    pub(super) fn free_slot(&mut self, slot: u32) {
        self.states.clear(slot);
        self.pending.iter_mut().for_each(|pending| pending[slot as usize] = 0);
        self.free.push(slot);
    }

    /// The session of key slot `key` that a row (or a span of rows) at `start..=last` joins.
    #[inline]
    pub(super) fn join(&mut self, key: u32, start: Micros, last: Micros) -> u32 {
        if let Some(span) = self.lists[key as usize].as_mut_slice().last_mut()
            && start >= span.start
            && start <= span.last.saturating_add(self.gap)
        {
            span.last = span.last.max(last);
            return span.slot;
        }
        self.join_elsewhere(key, start, last)
    }

    fn join_elsewhere(&mut self, key: u32, start: Micros, last: Micros) -> u32 {
        let near = self.lists[key as usize].near(start, last, self.gap);
        let mut joined = Span { start, last, slot: 0 };
        let touched: Vec<Span> = self.lists[key as usize].as_slice().get(near.clone()).unwrap_or_default().to_vec();
        joined.slot = match touched.first() {
            Some(first) => first.slot,
            None => self.add_slot(),
        };
        for span in &touched {
            joined.start = joined.start.min(span.start);
            joined.last = joined.last.max(span.last);
        }
        self.merges.extend(touched.iter().skip(1).map(|span| (joined.slot, span.slot)));
        self.lists[key as usize].replace(near, &[joined]);
        joined.slot
    }

    /// Does the merges collected while rows joined, and frees the slots merged away.
    pub(super) fn settle_merges(&mut self, scratch: States) -> Result<()> {
        let merges = std::mem::take(&mut self.merges);
        self.merge_slots(&merges, scratch)
    }

    /// Merges session slots `(into, from)`, in this order, and frees `from`. A slot may be merged on after it took others in.
    pub(super) fn merge_slots(&mut self, merges: &[(u32, u32)], mut scratch: States) -> Result<()> {
        if merges.is_empty() {
            return Ok(());
        }
        let mut target = std::collections::HashMap::new();
        for (into, from) in merges.iter().rev() {
            let root = target.get(into).copied().unwrap_or(*into);
            target.insert(*from, root);
        }
        let from: Vec<u32> = merges.iter().map(|(_, from)| *from).collect();
        let into: Vec<u32> = from.iter().filter_map(|from| target.get(from).copied()).collect();
        let places: Vec<u32> = (0..from.len() as u32).collect();
        scratch.resize(from.len());
        scratch.merge_from(&places, &self.states, &from, 1)?;
        self.states.merge_from(&into, &scratch, &places, 1)?;
        for pending in &mut self.pending {
            for (into, from) in into.iter().zip(&from) {
                pending[*into as usize] += std::mem::take(&mut pending[*from as usize]);
            }
        }
        from.into_iter().for_each(|slot| self.free_slot(slot));
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.groups.bytes()
            + self.states.bytes()
            + self.lists.capacity() * size_of::<Spans>()
            + self.pending.iter().map(|each| each.capacity() * 8).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_inclusive_on_both_sides() {
        let span = |start, last| Span { start, last, slot: 0 };
        let spans = Spans::Many(vec![span(0, 5), span(20, 25), span(40, 41)]);
        assert_eq!(spans.near(15, 15, 10), 0..2);
        assert_eq!(spans.near(16, 16, 10), 1..2);
        assert_eq!(spans.near(36, 36, 10), 2..3);
        assert_eq!(spans.near(52, 60, 10), 3..3);
        assert_eq!(spans.near(-11, -11, 10), 0..0);
    }
}
