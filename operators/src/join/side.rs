//! The rows that a join holds of one side: a slab of rows, and for each key their order by time.
//!
//! Always: a linked row is in its key's list, ascending by time; slots are used again. Rows of a key expire in the order of their times, so
//! one entry in a heap for each key tells when to look at it. Called by the join alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tidemill_engine::time::Micros;

/// Where a source row stands in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) partition: i32,
    pub(super) source: u32,
    pub(super) offset: i64,
}

/// A row that is held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) time: Micros,
    pub(super) offset: i64,
    pub(super) group: u32,
    pub(super) partition: i32,
    pub(super) source: u32,
    /// How many copies of it there are.
    pub(super) count: i64,
    /// How many rows of the other side match it.
    pub(super) matches: i64,
    /// What is kept of it, in Arrow's row format.
    pub(super) row: Box<[u8]>,
    /// A result of it alone is out.
    pub(super) shown: bool,
    /// It is in its key's list.
    pub(super) linked: bool,
    /// An epoch has it.
    stored: bool,
    /// It is in the list of what the next epoch writes.
    dirty: bool,
}

impl Held {
    pub(super) fn new(time: Micros, group: u32, row: &[u8], at: At) -> Self {
        Self {
            time,
            offset: at.offset,
            group,
            partition: at.partition,
            source: at.source,
            count: 0,
            matches: 0,
            row: row.into(),
            shown: false,
            linked: false,
            stored: false,
            dirty: false,
        }
    }

    pub(super) fn at(&self) -> At {
        At { partition: self.partition, source: self.source, offset: self.offset }
    }
}

/// A row that an epoch has and that was taken back since.
pub(super) struct Removed {
    pub(super) group: u32,
    pub(super) time: Micros,
    pub(super) at: At,
    pub(super) row: Box<[u8]>,
}

/// See the module doc.
pub(super) struct Side {
    slab: Vec<Held>,
    free: Vec<u32>,
    /// One a source for each slot.
    tokens: Vec<i64>,
    stride: usize,
    /// (time, slot), one list a group.
    lists: Vec<VecDeque<(Micros, u32)>>,
    /// When to look at a group.
    due: BinaryHeap<Reverse<(Micros, u32)>>,
    /// The entry of each group that counts; `i64::MAX`: none.
    planned: Vec<Micros>,
    dirty: Vec<u32>,
    removed: Vec<Removed>,
    bytes: usize,
}

const NEVER: Micros = Micros::MAX;

impl Side {
    pub(super) fn new(stride: usize) -> Self {
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            tokens: Vec::new(),
            stride,
            lists: Vec::new(),
            due: BinaryHeap::new(),
            planned: Vec::new(),
            dirty: Vec::new(),
            removed: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn held(&self, slot: u32) -> &Held {
        &self.slab[slot as usize]
    }

    pub(super) fn held_mut(&mut self, slot: u32) -> &mut Held {
        &mut self.slab[slot as usize]
    }

    /// A row that is in no list yet.
    pub(super) fn add(&mut self, held: Held) -> u32 {
        self.bytes += held.row.len();
        if let Some(slot) = self.free.pop() {
            self.slab[slot as usize] = held;
            return slot;
        }
        self.slab.push(held);
        self.tokens.resize(self.slab.len() * self.stride, 0);
        (self.slab.len() - 1) as u32
    }

    pub(super) fn add_tokens(&mut self, slot: u32, place: usize, tokens: i64) {
        self.tokens[slot as usize * self.stride + place] += tokens;
    }

    /// The tokens of a row, which has none from then on.
    pub(super) fn take_tokens(&mut self, slot: u32) -> Vec<i64> {
        let at = slot as usize * self.stride;
        self.tokens[at..at + self.stride].iter_mut().map(std::mem::take).collect()
    }

    /// Takes the tokens of one source.
    pub(super) fn take_token(&mut self, slot: u32, place: usize) -> i64 {
        std::mem::take(&mut self.tokens[slot as usize * self.stride + place])
    }

    pub(super) fn token(&self, slot: u32, place: usize) -> i64 {
        self.tokens[slot as usize * self.stride + place]
    }

    /// Puts a row into its key's list.
    pub(super) fn link(&mut self, slot: u32, expiry: Micros) {
        let held = &mut self.slab[slot as usize];
        held.linked = true;
        let (group, time) = (held.group as usize, held.time);
        if self.lists.len() <= group {
            self.lists.resize_with(group + 1, VecDeque::new);
            self.planned.resize(group + 1, NEVER);
        }
        let list = &mut self.lists[group];
        if list.back().is_none_or(|(last, _)| *last <= time) {
            list.push_back((time, slot));
        } else {
            let place = list.partition_point(|(each, _)| *each <= time);
            list.insert(place, (time, slot));
        }
        self.plan_for(group as u32, expiry);
    }

    fn plan_for(&mut self, group: u32, expiry: Micros) {
        let planned = &mut self.planned[group as usize];
        if expiry < *planned {
            *planned = expiry;
            self.due.push(Reverse((expiry, group)));
        }
    }

    /// The rows of a group with times in `from..=to`.
    pub(super) fn within(&self, group: u32, from: Micros, to: Micros) -> impl Iterator<Item = u32> + '_ {
        let list = self.lists.get(group as usize);
        let first = list.map_or(0, |list| {
            // Most rows come in order, so most matches are at the end or are all there is.
            if list.front().is_none_or(|(time, _)| *time >= from) { 0 } else { list.partition_point(|(time, _)| *time < from) }
        });
        list.into_iter().flat_map(move |list| list.range(first..)).take_while(move |(time, _)| *time <= to).map(|(_, slot)| *slot)
    }

    /// The row of this content at this time.
    pub(super) fn find(&self, group: u32, time: Micros, row: &[u8]) -> Option<u32> {
        self.within(group, time, time).find(|slot| *self.held(*slot).row == *row)
    }

    pub(super) fn is_empty(&self, group: u32) -> bool {
        self.lists.get(group as usize).is_none_or(VecDeque::is_empty)
    }

    /// When the next group has to be looked at.
    pub(super) fn next_due(&mut self) -> Option<(Micros, u32)> {
        while let Some(Reverse((expiry, group))) = self.due.peek().copied() {
            if self.planned[group as usize] == expiry {
                return Some((expiry, group));
            }
            self.due.pop();
        }
        None
    }

    /// Takes the rows of the group that is due whose time and `shift` are below the watermark out of its list.
    pub(super) fn pop_due(&mut self, group: u32, shift: Micros, watermark: Micros, gone: &mut Vec<u32>) {
        self.due.pop();
        self.planned[group as usize] = NEVER;
        let list = &mut self.lists[group as usize];
        while let Some((time, slot)) = list.front().copied() {
            let expiry = time.saturating_add(shift);
            if expiry >= watermark {
                self.plan_for(group, expiry);
                return;
            }
            list.pop_front();
            self.slab[slot as usize].linked = false;
            gone.push(slot);
        }
        // Nothing is left: its memory is worth more elsewhere.
        *list = VecDeque::new();
    }

    /// Takes a row out of its list, and remembers that an epoch has it.
    pub(super) fn remove(&mut self, slot: u32) {
        let held = &mut self.slab[slot as usize];
        held.linked = false;
        let (group, time) = (held.group, held.time);
        let list = &mut self.lists[group as usize];
        let first = list.partition_point(|(each, _)| *each < time);
        if let Some(place) = list.range(first..).position(|(_, each)| *each == slot) {
            list.remove(first + place);
        }
        let held = &mut self.slab[slot as usize];
        if held.stored {
            self.removed.push(Removed { group, time, at: held.at(), row: held.row.clone() });
        }
        self.free(slot);
    }

    /// Gives a slot back that is in no list.
    pub(super) fn free(&mut self, slot: u32) {
        let held = &mut self.slab[slot as usize];
        self.bytes = self.bytes.saturating_sub(held.row.len());
        held.row = Box::default();
        held.dirty = false;
        held.linked = false;
        self.free.push(slot);
    }

    /// The next epoch must write this row.
    pub(super) fn touch(&mut self, slot: u32) {
        let held = &mut self.slab[slot as usize];
        if !std::mem::replace(&mut held.dirty, true) {
            self.dirty.push(slot);
        }
    }

    /// Every row, by group and time.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Held)> {
        self.lists.iter().flatten().map(|(_, slot)| (*slot, self.held(*slot)))
    }

    /// What to write: rows that are there, and rows that were taken back. Forgets that they changed.
    pub(super) fn changed(&mut self, full: bool) -> (Vec<u32>, Vec<Removed>) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut rows: Vec<u32> = Vec::with_capacity(dirty.len());
        for slot in dirty {
            let held = &mut self.slab[slot as usize];
            if std::mem::take(&mut held.dirty) && held.linked {
                rows.push(slot);
            }
        }
        let mut removed = std::mem::take(&mut self.removed);
        if full {
            removed.clear();
            rows = self.lists.iter().flatten().map(|(_, slot)| *slot).collect();
        }
        for slot in &rows {
            self.slab[*slot as usize].stored = true;
        }
        (rows, removed)
    }

    /// A row that an epoch has given back.
    pub(super) fn restored(&mut self, slot: u32) {
        self.slab[slot as usize].stored = true;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
            + self.slab.capacity() * std::mem::size_of::<Held>()
            + self.tokens.capacity() * 8
            + self.free.capacity() * 4
            + self.lists.capacity() * std::mem::size_of::<VecDeque<(Micros, u32)>>()
            + (self.slab.len() - self.free.len()) * std::mem::size_of::<(Micros, u32)>()
            + self.due.capacity() * 16
            + self.planned.capacity() * 8
    }
}
