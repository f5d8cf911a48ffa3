//! Repairs: the rows of a tick (or an epoch) that touch published windows change their results, old out and new in.
//!
//! Always: per touched (window, key) at most one -1 of the old and one +1 of the new result, the new one with the tokens of the rows
//! that came. The old result is computed before the rows are merged in, once for all of them.

use std::collections::BTreeMap;

use tidemill_engine::account::Fate;
use tidemill_engine::error::Result;
use tidemill_engine::operator::Output;

use super::finish::{Final, Publication};
use super::running::Slice;
use crate::judge::Entry;
use crate::pane::{Pane, States};
use crate::tokens::{hand_on, release};

impl Final {
    /// Merges the rows that wait in `deltas` and emits what they change.
    pub(super) fn repair(&mut self, out: &mut Output) -> Result<()> {
        if self.deltas.is_empty() {
            return Ok(());
        }
        let deltas = std::mem::take(&mut self.deltas);
        if self.aggregation.windowing.as_ref().is_some_and(|windowing| !windowing.windows.is_tumble()) {
            return self.repair_hop(deltas, out);
        }
        for (entry, delta) in deltas {
            self.repair_pane(entry, &delta, out)?;
        }
        Ok(())
    }

    /// One window's rows are all in one pane: its slots are the results.
    fn repair_pane(&mut self, entry: Entry, delta: &Pane, out: &mut Output) -> Result<()> {
        let k = entry.0;
        let mut pane = match self.panes.remove(&entry) {
            Some(pane) => pane,
            None => self.maker.pane(true)?,
        };
        let slots = self.merge_keys(&mut pane, delta);
        let old: Vec<u32> = live(&pane.states, &slots);
        self.emit(&pane.groups, &pane.states, &old, Publication::retract(k), out)?;
        merge(&mut pane, delta, &slots)?;
        let new: Vec<u32> = live(&pane.states, &slots);
        let tokens = hand_on(&mut out.counts, &self.maker.sources, pane.take_pending(&new));
        self.emit(&pane.groups, &pane.states, &new, Publication::insert(k, tokens), out)?;
        if self.aggregation.windowing.is_some() {
            self.by_last.insert((entry.1, entry.0));
        } else {
            self.remove_empty(&mut pane, &slots, out);
        }
        self.panes.insert(entry, pane);
        Ok(())
    }

    /// The slots in `pane` of every slot of `delta`.
    fn merge_keys(&self, pane: &mut Pane, delta: &Pane) -> Vec<u32> {
        let slots = (0..delta.groups.len() as u32).map(|slot| pane.groups.insert_same(&delta.groups, slot)).collect();
        pane.resize();
        slots
    }

    /// Without windows nothing expires: a key whose rows are all retracted is removed.
    fn remove_empty(&mut self, pane: &mut Pane, slots: &[u32], out: &mut Output) {
        for slot in slots {
            if pane.states.live.get(*slot as usize) != Some(&0) {
                continue;
            }
            for (source, tokens) in self.maker.sources.iter().zip(pane.take_pending(&[*slot])) {
                release(&mut out.counts, Fate::Filtered, *source, tokens.iter().sum());
            }
            let removed = self.removed.get_or_insert_with(|| self.maker.groups());
            removed.insert_same(&pane.groups, *slot);
            pane.remove(*slot);
        }
    }

    /// A window's rows lie in all panes that cover it. The old result of each touched key is combined from the panes, the new one
    /// is that and the combination of the deltas.
    fn repair_hop(&mut self, deltas: BTreeMap<Entry, Pane>, out: &mut Output) -> Result<()> {
        let published = self.published();
        let mut touched = self.maker.groups();
        let keys: BTreeMap<Entry, Vec<u32>> = deltas
            .iter()
            .map(|(entry, delta)| (*entry, (0..delta.groups.len() as u32).map(|slot| touched.insert_same(&delta.groups, slot)).collect()))
            .collect();
        let mut deltas = deltas;
        let (mut before, mut change) = (Slice::new(&touched, &self.maker)?, Slice::new(&touched, &self.maker)?);
        let mut next = deltas.keys().next().map(|entry| entry.0);
        while let Some(k) = next.filter(|k| *k <= published) {
            let covering: Vec<Entry> = deltas.range(..(k + 1, i64::MIN)).map(|(entry, _)| *entry).filter(|entry| entry.1 >= k).collect();
            next = if covering.is_empty() { deltas.range((k + 1, i64::MIN)..).next().map(|(entry, _)| entry.0) } else { Some(k + 1) };
            if covering.is_empty() {
                continue;
            }
            let mut marks = vec![false; touched.len()];
            covering.iter().filter_map(|entry| keys.get(entry)).flatten().for_each(|key| marks[*key as usize] = true);
            let slots: Vec<u32> = (0..touched.len() as u32).filter(|slot| marks[*slot as usize]).collect();
            before.advance(k, &touched, &self.panes, &self.by_last, &self.maker)?;
            change.advance(k, &touched, &deltas, &deltas.keys().map(|entry| (entry.1, entry.0)).collect(), &self.maker)?;
            self.emit(&touched, &before.states, &live(&before.states, &slots), Publication::retract(k), out)?;
            let mut after = self.maker.states()?;
            after.resize(touched.len());
            after.merge_from(&slots, &before.states, &slots, 1)?;
            after.merge_from(&slots, &change.states, &slots, 1)?;
            let new = live(&after, &slots);
            let tokens = take_tokens(&mut deltas, &covering, &keys, &new, touched.len(), self.maker.sources.len());
            let tokens = hand_on(&mut out.counts, &self.maker.sources, tokens);
            self.emit(&touched, &after, &new, Publication::insert(k, tokens), out)?;
        }
        for (entry, delta) in deltas {
            let mut pane = match self.panes.remove(&entry) {
                Some(pane) => pane,
                None => self.maker.pane(true)?,
            };
            let slots = self.merge_keys(&mut pane, &delta);
            merge(&mut pane, &delta, &slots)?;
            if pane.waiting > 0 {
                self.waiting.insert(entry);
            }
            self.by_last.insert((entry.1, entry.0));
            self.panes.insert(entry, pane);
            self.running.joined(entry, &delta)?;
        }
        Ok(())
    }
}

/// Those of `slots` that have a result.
fn live(states: &States, slots: &[u32]) -> Vec<u32> {
    slots.iter().copied().filter(|slot| states.live.get(*slot as usize).is_some_and(|live| *live > 0)).collect()
}

/// Merges states and tokens of `delta` into `pane`, slot `i` into `slots[i]`.
fn merge(pane: &mut Pane, delta: &Pane, slots: &[u32]) -> Result<()> {
    let from: Vec<u32> = (0..delta.groups.len() as u32).collect();
    pane.states.merge_from(slots, &delta.states, &from, 1)?;
    for (place, pending) in delta.pending.iter().enumerate() {
        for (slot, tokens) in slots.iter().zip(pending) {
            pane.wait(place, *slot, *tokens);
        }
    }
    pane.touch(slots);
    Ok(())
}

/// The tokens that the panes of `covering` hold for `slots`, taken; one column a source.
fn take_tokens(
    deltas: &mut BTreeMap<Entry, Pane>,
    covering: &[Entry],
    keys: &BTreeMap<Entry, Vec<u32>>,
    slots: &[u32],
    touched: usize,
    sources: usize,
) -> Vec<Vec<i64>> {
    let mut at = vec![None; touched];
    slots.iter().enumerate().for_each(|(place, slot)| at[*slot as usize] = Some(place));
    let mut columns = vec![vec![0; slots.len()]; sources];
    for entry in covering {
        let (Some(delta), Some(keys)) = (deltas.get_mut(entry), keys.get(entry)) else { continue };
        if delta.waiting == 0 {
            continue;
        }
        for (slot, key) in (0..).zip(keys) {
            let Some(place) = at[*key as usize] else { continue };
            for (column, tokens) in columns.iter_mut().zip(delta.take_pending(&[slot])) {
                column[place] += tokens.iter().sum::<i64>();
            }
        }
    }
    columns
}
