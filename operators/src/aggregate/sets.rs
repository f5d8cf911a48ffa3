//! Sets of keys, one a group, with a count a key where input retracts.
//!
//! Most groups are small and windows close all the time, so each group owns its set and gives it back as a whole: one value in the slot
//! itself, up to [`FEW_MAX`] in a list searched from end to end (two or three cache lines), more in a hash table. Nothing repeats the
//! group's number, so 8 byte keys cost 8 bytes in a list and 10 to 20 in a table.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::keys::Key;

/// Longest list before a set becomes a hash table.
const FEW_MAX: usize = 16;

/// What is known of a key in a set: nothing but that it is there, or how often.
pub(super) trait Tally: Copy + Default + Send + 'static {
    /// False where the weights are dropped.
    const COUNTS: bool;
    fn add(&mut self, weight: i64);
    fn count(self) -> i64;
}

/// The key is there for good.
impl Tally for () {
    const COUNTS: bool = false;
    #[inline(always)]
    fn add(&mut self, _: i64) {}
    #[inline(always)]
    fn count(self) -> i64 {
        1
    }
}

/// May be negative while a retraction has come before its row; zero is never kept.
impl Tally for i64 {
    const COUNTS: bool = true;
    #[inline(always)]
    fn add(&mut self, weight: i64) {
        *self += weight;
    }
    #[inline(always)]
    fn count(self) -> i64 {
        self
    }
}

/// What an addition did to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The key is new in the set.
    Added,
    /// The key has left the set.
    Removed,
    /// The set has the same keys as before.
    Kept,
}

#[derive(Default)]
enum Set<K, C> {
    #[default]
    Empty,
    One(K, C),
    Few(Vec<(K, C)>),
    Many(Box<HashTable<(K, C)>>),
}

/// The sets of all groups.
pub(super) struct Sets<K, C> {
    slots: Vec<Set<K, C>>,
    /// Keys whose count is above zero, of each group; empty without counts.
    live: Vec<u64>,
    heap_bytes: usize,
}

impl<K: Key, C: Tally> Default for Sets<K, C> {
    fn default() -> Self {
        Self { slots: Vec::new(), live: Vec::new(), heap_bytes: 0 }
    }
}

impl<K: Key, C: Tally> Sets<K, C> {
    pub(super) fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize_with(groups, Set::default);
            if C::COUNTS {
                self.live.resize(groups, 0);
            }
        }
    }

    /// Adds a key to a group's set `weight` times. Without counts any weight but zero puts it there.
    #[inline]
    pub(super) fn add(&mut self, group: usize, key: K, weight: i64) -> Change {
        if weight == 0 {
            return Change::Kept;
        }
        let set = &mut self.slots[group];
        let (before, change) = set.add(key, weight, &mut self.heap_bytes);
        if C::COUNTS {
            match (before > 0, before + weight > 0) {
                (false, true) => self.live[group] += 1,
                (true, false) => self.live[group] -= 1,
                _ => {}
            }
        }
        change
    }

    /// Empties a group's set, calling `gone` with each key.
    pub(super) fn clear(&mut self, group: usize, gone: impl FnMut(K)) {
        let set = std::mem::take(&mut self.slots[group]);
        self.heap_bytes -= set.heap_bytes();
        set.keys().map(|(key, _)| key).for_each(gone);
        if C::COUNTS {
            self.live[group] = 0;
        }
    }

    /// How many keys of the group have a count above zero.
    pub(super) fn live(&self, group: usize) -> u64 {
        if C::COUNTS { self.live[group] } else { self.slots[group].len() as u64 }
    }

    /// The group's keys and counts, in no order.
    pub(super) fn keys(&self, group: usize) -> impl Iterator<Item = (K, i64)> {
        self.slots[group].keys()
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Set<K, C>>() + self.live.capacity() * size_of::<u64>() + self.heap_bytes
    }
}

impl<K: Key, C: Tally> Set<K, C> {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(..) => 1,
            Self::Few(list) => list.len(),
            Self::Many(table) => table.len(),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Empty | Self::One(..) => 0,
            Self::Few(list) => list.capacity() * size_of::<(K, C)>(),
            Self::Many(table) => size_of::<HashTable<(K, C)>>() + table.allocation_size(),
        }
    }

    fn keys(&self) -> impl Iterator<Item = (K, i64)> {
        let (one, few, many) = match self {
            Self::Empty => (None, [].as_slice(), None),
            Self::One(key, tally) => (Some((*key, *tally)), [].as_slice(), None),
            Self::Few(list) => (None, list.as_slice(), None),
            Self::Many(table) => (None, [].as_slice(), Some(table)),
        };
        let many = many.into_iter().flat_map(|table| table.iter());
        one.into_iter().chain(few.iter().copied()).chain(many.copied()).map(|(key, tally)| (key, tally.count()))
    }

    /// Adds a key; gives its count before and what that did.
    #[inline]
    fn add(&mut self, key: K, weight: i64, heap_bytes: &mut usize) -> (i64, Change) {
        match self {
            Self::Few(list) => {
                if let Some(index) = list.iter().position(|(held, _)| *held == key) {
                    let (before, left) = tally(&mut list[index].1, weight);
                    if left {
                        list.swap_remove(index);
                    }
                    return (before, if left { Change::Removed } else { Change::Kept });
                }
                if list.len() < list.capacity() {
                    list.push((key, counted(weight)));
                    return (0, Change::Added);
                }
            }
            Self::Many(table) => {
                if table.len() == table.capacity() {
                    widen(table, heap_bytes);
                }
                return match table.entry(key.hash(), |(held, _)| *held == key, |(held, _)| held.hash()) {
                    Entry::Occupied(mut held) => {
                        let (before, left) = tally(&mut held.get_mut().1, weight);
                        if left {
                            held.remove();
                        }
                        (before, if left { Change::Removed } else { Change::Kept })
                    }
                    Entry::Vacant(free) => {
                        free.insert((key, counted(weight)));
                        (0, Change::Added)
                    }
                };
            }
            Self::One(held, count) if *held == key => {
                let (before, left) = tally(count, weight);
                if left {
                    *self = Self::Empty;
                }
                return (before, if left { Change::Removed } else { Change::Kept });
            }
            Self::Empty => {
                *self = Self::One(key, counted(weight));
                return (0, Change::Added);
            }
            Self::One(..) => {}
        }
        self.grow(key, weight, heap_bytes);
        (0, Change::Added)
    }

    /// Adds a key that is not there to a set that is full.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, key: K, weight: i64, heap_bytes: &mut usize) {
        *heap_bytes -= self.heap_bytes();
        let new = (key, counted(weight));
        *self = match std::mem::take(self) {
            Self::Few(list) if list.len() >= FEW_MAX => {
                let mut table = HashTable::with_capacity(2 * FEW_MAX - FEW_MAX / 4);
                for item in list.into_iter().chain([new]) {
                    table.insert_unique(item.0.hash(), item, |(held, _): &(K, C)| held.hash());
                }
                Self::Many(Box::new(table))
            }
            Self::Few(mut list) => {
                list.reserve_exact(list.len().max(1));
                list.push(new);
                Self::Few(list)
            }
            Self::One(held, count) => {
                let mut list = Vec::with_capacity(4);
                list.extend([(held, count), new]);
                Self::Few(list)
            }
            other => other,
        };
        *heap_bytes += self.heap_bytes();
    }
}

/// Makes room in a full table, which it would otherwise do itself without telling how much.
#[cold]
#[inline(never)]
fn widen<K: Key, C>(table: &mut HashTable<(K, C)>, heap_bytes: &mut usize) {
    *heap_bytes -= table.allocation_size();
    table.reserve(1, |(held, _)| held.hash());
    *heap_bytes += table.allocation_size();
}

/// A new key's tally.
#[inline(always)]
fn counted<C: Tally>(weight: i64) -> C {
    let mut tally = C::default();
    tally.add(weight);
    tally
}

/// Adds to a tally; gives the count before and whether nothing is left.
#[inline(always)]
fn tally<C: Tally>(tally: &mut C, weight: i64) -> (i64, bool) {
    let before = tally.count();
    tally.add(weight);
    (before, C::COUNTS && tally.count() == 0)
}
