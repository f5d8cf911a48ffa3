//! `Stacks`: what a hop's windows combine when states can't be taken out again (min, max, sketches): two stacks of panes a key.
//!
//! Always: at window `k` the panes of the front hold, per key, the combination of themselves and all front panes that end later; the
//! back holds the combination of the panes that began since. A window is one front state and one back state a key, whatever the
//! number of panes; when a pane of the back ends, everything becomes the front anew, which costs each state two merges in its
//! life. Known as the two-stacks algorithm (Tangwongsan et al., sliding-window aggregation).

use std::collections::BTreeMap;

use tidemill_engine::error::Result;

use super::Maker;
use crate::groups::Groups;
use crate::judge::Entry;
use crate::pane::{Pane, States};

/// A pane of the front.
struct Front {
    last: i64,
    /// Per own slot the combination of this and all later-ending panes of the front.
    suffix: States,
    /// The slots, their keys, and where the key's next state is.
    slots: Vec<(u32, u32, Option<Place>)>,
}

/// A front pane and a slot in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    pane: u32,
    slot: u32,
}

/// See the module doc.
pub(super) struct Stacks {
    /// By descending end: the next to end is last.
    front: Vec<Front>,
    /// Per key its state in the front.
    heads: Vec<Option<Place>>,
    back: States,
    /// The first end of a pane in the back.
    back_last: i64,
}

impl Stacks {
    /// Everything that covers the first window is front.
    pub(super) fn new(covering: &[Entry], panes: &BTreeMap<Entry, Pane>, keys: &mut Groups, maker: &Maker) -> Result<Self> {
        let mut stacks = Self { front: Vec::new(), heads: Vec::new(), back: maker.states()?, back_last: i64::MAX };
        let mut order = covering.to_vec();
        order.sort_unstable_by_key(|entry| std::cmp::Reverse((entry.1, entry.0)));
        let mut combined = maker.states()?;
        for (entry, pane) in order.iter().filter_map(|entry| panes.get(entry).map(|pane| (entry, pane))) {
            let slots = pane.used_slots();
            let ids: Vec<u32> = slots.iter().map(|slot| keys.insert_same(&pane.groups, *slot)).collect();
            combined.resize(keys.len());
            combined.merge_from(&ids, &pane.states, &slots, 1)?;
            let mut suffix = maker.states()?;
            suffix.resize(pane.groups.len());
            suffix.merge_from(&slots, &combined, &ids, 1)?;
            stacks.heads.resize(keys.len(), None);
            let at = stacks.front.len() as u32;
            let slots = slots
                .iter()
                .zip(&ids)
                .map(|(slot, id)| (*slot, *id, stacks.heads[*id as usize].replace(Place { pane: at, slot: *slot })))
                .collect();
            stacks.front.push(Front { last: entry.1, suffix, slots });
        }
        Ok(stacks)
    }

    /// Is `k` still combined of this front and this back?
    pub(super) fn reaches(&self, k: i64) -> bool {
        self.back_last >= k
    }

    /// Goes on to window `k`: panes that ended leave the front, those of `begun` enter the back.
    pub(super) fn advance(&mut self, k: i64, begun: &[Entry], panes: &BTreeMap<Entry, Pane>, keys: &mut Groups) -> Result<()> {
        while let Some(ended) = self.front.pop_if(|pane| pane.last < k) {
            ended.slots.iter().for_each(|(_, id, next)| self.heads[*id as usize] = *next);
        }
        for (entry, pane) in begun.iter().filter_map(|entry| panes.get(entry).map(|pane| (entry, pane))) {
            let slots = pane.used_slots();
            let ids: Vec<u32> = slots.iter().map(|slot| keys.insert_same(&pane.groups, *slot)).collect();
            self.back.resize(keys.len());
            self.back.merge_from(&ids, &pane.states, &slots, 1)?;
            self.back_last = self.back_last.min(entry.1);
        }
        self.heads.resize(keys.len(), None);
        self.back.resize(keys.len());
        Ok(())
    }

    /// The combination of every key.
    pub(super) fn combine(&self, maker: &Maker) -> Result<States> {
        let mut states = maker.states()?;
        states.resize(self.heads.len());
        let mut by_pane: Vec<(Vec<u32>, Vec<u32>)> = vec![<(Vec<u32>, Vec<u32>)>::default(); self.front.len()];
        for (id, head) in (0..).zip(&self.heads) {
            if let Some(head) = head {
                let (ids, slots) = &mut by_pane[head.pane as usize];
                ids.push(id);
                slots.push(head.slot);
            }
        }
        for (pane, (ids, slots)) in self.front.iter().zip(&by_pane) {
            states.merge_from(ids, &pane.suffix, slots, 1)?;
        }
        let back: Vec<u32> = (0..).zip(&self.back.live).filter(|(_, live)| **live != 0).map(|(id, _)| id).collect();
        states.merge_from(&back, &self.back, &back, 1)?;
        Ok(states)
    }

    pub(super) fn bytes(&self) -> usize {
        let front = self.front.iter().map(|pane| pane.suffix.bytes() + pane.slots.capacity() * size_of::<(u32, u32, Option<Place>)>());
        front.sum::<usize>() + self.heads.capacity() * size_of::<Option<Place>>() + self.back.bytes()
    }
}
