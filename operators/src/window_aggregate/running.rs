//! Combinations of panes that slide along the windows of a hop: `Running` over all keys, to publish; `Slice` over some, to repair.
//!
//! Always: at window `k` the combination holds exactly the panes that cover `k`. When every call is invertible a step adds the
//! panes that begin and takes out those that ended; otherwise `Running` keeps `stacks`, so either way a window costs its keys, not its
//! panes. A `Slice` that is not invertible combines anew: repairs of such windows cost their panes.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_engine::error::Result;
use tidemill_engine::operator::Output;

use super::Maker;
use super::finish::{Final, Publication};
use super::stacks::Stacks;
use crate::groups::Groups;
use crate::judge::Entry;
use crate::pane::{Pane, States};
use crate::tokens::hand_on;

type Panes = BTreeMap<Entry, Pane>;
/// Entries as (last, enter).
type ByLast = BTreeSet<(i64, i64)>;

/// The steps from the panes that cover `from` (`None`: no window yet) to those that cover `k`: entries to add and to take out.
fn step(from: Option<i64>, k: i64, panes: &Panes, by_last: &ByLast) -> (Vec<Entry>, Vec<Entry>) {
    let Some(from) = from.filter(|from| *from <= k) else {
        return (by_last.range((k, i64::MIN)..).map(|(last, enter)| (*enter, *last)).filter(|entry| entry.0 <= k).collect(), Vec::new());
    };
    let begun = panes
        .range((from.saturating_add(1), i64::MIN)..(k.saturating_add(1), i64::MIN))
        .map(|(entry, _)| *entry)
        .filter(|entry| entry.1 >= k);
    let ended = by_last.range((from, i64::MIN)..(k, i64::MIN)).map(|(last, enter)| (*enter, *last)).filter(|entry| entry.0 <= from);
    (begun.collect(), ended.collect())
}

/// The combination for every key; a key without rows is not in it.
pub(super) struct Running {
    groups: Groups,
    states: States,
    at: Option<i64>,
    invertible: bool,
    /// Used when not invertible.
    stacks: Option<Stacks>,
}

impl Running {
    pub(super) fn new(maker: &Maker) -> Result<Self> {
        let states = maker.states()?;
        Ok(Self { groups: maker.groups(), invertible: states.invertible(), states, at: None, stacks: None })
    }

    fn advance(&mut self, k: i64, panes: &Panes, by_last: &ByLast, maker: &Maker) -> Result<()> {
        if !self.invertible {
            return self.advance_stacks(k, panes, by_last, maker);
        }
        let (begun, ended) = step(self.at, k, panes, by_last);
        for pane in begun.iter().filter_map(|entry| panes.get(entry)) {
            self.add(pane)?;
        }
        for pane in ended.iter().filter_map(|entry| panes.get(entry)) {
            self.take_out(pane)?;
        }
        self.at = Some(k);
        Ok(())
    }

    fn advance_stacks(&mut self, k: i64, panes: &Panes, by_last: &ByLast, maker: &Maker) -> Result<()> {
        let goes_on = self.stacks.take().filter(|stacks| self.at.is_some_and(|at| at <= k) && stacks.reaches(k));
        let stacks = match goes_on {
            Some(mut stacks) => {
                let (begun, _) = step(self.at, k, panes, by_last);
                stacks.advance(k, &begun, panes, &mut self.groups)?;
                stacks
            }
            None => {
                self.groups = maker.groups();
                let (covering, _) = step(None, k, panes, by_last);
                Stacks::new(&covering, panes, &mut self.groups, maker)?
            }
        };
        self.states = stacks.combine(maker)?;
        (self.stacks, self.at) = (Some(stacks), Some(k));
        Ok(())
    }

    fn add(&mut self, pane: &Pane) -> Result<()> {
        let from = pane.used_slots();
        let to: Vec<u32> = from.iter().map(|slot| self.groups.insert_same(&pane.groups, *slot)).collect();
        self.states.resize(self.groups.len());
        self.states.merge_from(&to, &pane.states, &from, 1)
    }

    fn take_out(&mut self, pane: &Pane) -> Result<()> {
        let (from, to): (Vec<u32>, Vec<u32>) =
            pane.used_slots().into_iter().filter_map(|slot| self.groups.find_same(&pane.groups, slot).map(|to| (slot, to))).unzip();
        self.states.merge_from(&to, &pane.states, &from, -1)?;
        for slot in to {
            if self.states.live.get(slot as usize) == Some(&0) {
                self.states.clear(slot);
                self.groups.remove(slot);
            }
        }
        Ok(())
    }

    fn covers(&self, entry: Entry) -> bool {
        self.at.is_some_and(|at| entry.0 <= at && at <= entry.1)
    }

    /// Rows joined a pane that may be part of the combination.
    pub(super) fn joined(&mut self, entry: Entry, delta: &Pane) -> Result<()> {
        match self.covers(entry) {
            true if self.invertible => self.add(delta)?,
            true => self.stacks = None,
            false => {}
        }
        Ok(())
    }

    /// A pane is dropped that may be part of the combination.
    pub(super) fn forget(&mut self, entry: Entry, pane: &Pane) -> Result<()> {
        if self.invertible && self.covers(entry) { self.take_out(pane) } else { Ok(()) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.groups.bytes() + self.states.bytes() + self.stacks.as_ref().map_or(0, Stacks::bytes)
    }
}

impl Final {
    /// Publishes window `k` of a hop.
    pub(super) fn publish_running(&mut self, k: i64, out: &mut Output) -> Result<usize> {
        self.running.advance(k, &self.panes, &self.by_last, &self.maker)?;
        let slots: Vec<u32> = (0..).zip(&self.running.states.live).filter(|(_, live)| **live > 0).map(|(slot, _)| slot).collect();
        let tokens = self.take_waiting(k, &slots);
        let tokens = hand_on(&mut out.counts, &self.maker.sources, tokens);
        self.emit(&self.running.groups, &self.running.states, &slots, Publication::insert(k, tokens), out)?;
        Ok(slots.len())
    }

    /// The tokens that wait in the panes covering `k` for keys with a result, taken; one column a source.
    fn take_waiting(&mut self, k: i64, slots: &[u32]) -> Vec<Vec<i64>> {
        let mut columns = vec![vec![0; slots.len()]; self.maker.sources.len()];
        let waiting: Vec<Entry> = self.waiting.range(..(k.saturating_add(1), i64::MIN)).copied().filter(|entry| entry.1 >= k).collect();
        if waiting.is_empty() {
            return columns;
        }
        let mut at = vec![None; self.running.groups.len()];
        slots.iter().enumerate().for_each(|(place, slot)| at[*slot as usize] = Some(place));
        for entry in waiting {
            let Some(pane) = self.panes.get_mut(&entry) else { continue };
            for slot in pane.used_slots() {
                let Some(place) = self.running.groups.find_same(&pane.groups, slot).and_then(|to| at[to as usize]) else { continue };
                for (column, pending) in columns.iter_mut().zip(&mut pane.pending) {
                    let tokens = std::mem::take(&mut pending[slot as usize]);
                    column[place] += tokens;
                    pane.waiting -= tokens;
                }
                if self.aggregation.retracts {
                    pane.touch(&[slot]);
                }
            }
            if pane.waiting == 0 {
                self.waiting.remove(&entry);
            }
        }
        columns
    }
}

/// The combination for some keys, whose slots are those of the table given.
pub(super) struct Slice {
    pub(super) states: States,
    at: Option<i64>,
    invertible: bool,
    keys: usize,
}

impl Slice {
    pub(super) fn new(keys: &Groups, maker: &Maker) -> Result<Self> {
        let mut states = maker.states()?;
        states.resize(keys.len());
        Ok(Self { invertible: states.invertible(), states, at: None, keys: keys.len() })
    }

    pub(super) fn advance(&mut self, k: i64, keys: &Groups, panes: &Panes, by_last: &ByLast, maker: &Maker) -> Result<()> {
        if !self.invertible {
            (self.states, self.at) = (maker.states()?, None);
            self.states.resize(self.keys);
        }
        let (begun, ended) = step(self.at, k, panes, by_last);
        for (entries, sign) in [(begun, 1), (ended, -1)] {
            for pane in entries.iter().filter_map(|entry| panes.get(entry)) {
                let (to, from): (Vec<u32>, Vec<u32>) =
                    (0..self.keys as u32).filter_map(|key| pane.groups.find_same(keys, key).map(|slot| (key, slot))).unzip();
                self.states.merge_from(&to, &pane.states, &from, sign)?;
            }
        }
        self.at = Some(k);
        Ok(())
    }
}
