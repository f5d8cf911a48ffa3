//! `Bag`: the values of one group with how often each is in, in order. Used by the aggregates that must let values go or list them.
//!
//! Always: one value lies in the slot itself, up to [`FEW_MAX`] in a sorted list, more in a B-tree; a count of zero is never kept.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Longest sorted list before a group's values become a tree.
const FEW_MAX: usize = 32;

/// The values of one group. A count may be negative while a retraction has come before its row; zero is never kept.
#[derive(Default)]
pub(super) enum Bag<K> {
    #[default]
    Empty,
    One(K, i64),
    Few(Vec<(K, i64)>),
    Many(BTreeMap<K, i64>),
}

impl<K: Ord> Bag<K> {
    /// Adds to the count of a value; gives how many entries came (1), went (-1) or neither.
    pub(super) fn add<Q: Ord + ?Sized>(&mut self, value: &Q, weight: i64, own: impl FnOnce() -> K) -> isize
    where
        K: Borrow<Q>,
    {
        if weight == 0 {
            return 0;
        }
        match self {
            Self::Empty => *self = Self::One(own(), weight),
            Self::One(held, count) if (*held).borrow() == value => {
                *count += weight;
                if *count == 0 {
                    *self = Self::Empty;
                    return -1;
                }
                return 0;
            }
            Self::One(..) => {
                if let Self::One(held, count) = std::mem::take(self) {
                    let pair = if held.borrow() < value { [(held, count), (own(), weight)] } else { [(own(), weight), (held, count)] };
                    *self = Self::Few(Vec::from(pair));
                }
            }
            Self::Few(list) => match list.binary_search_by(|(held, _)| held.borrow().cmp(value)) {
                Ok(index) => {
                    list[index].1 += weight;
                    if list[index].1 == 0 {
                        list.remove(index);
                        return -1;
                    }
                    return 0;
                }
                Err(index) if list.len() < FEW_MAX => list.insert(index, (own(), weight)),
                Err(_) => {
                    let mut tree: BTreeMap<K, i64> = std::mem::take(list).into_iter().collect();
                    tree.insert(own(), weight);
                    *self = Self::Many(tree);
                }
            },
            Self::Many(tree) => {
                if let Some(count) = tree.get_mut(value) {
                    *count += weight;
                    if *count == 0 {
                        tree.remove(value);
                        return -1;
                    }
                    return 0;
                }
                match tree.entry(own()) {
                    Entry::Vacant(free) => drop(free.insert(weight)),
                    Entry::Occupied(mut held) => *held.get_mut() += weight,
                }
            }
        }
        1
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, i64)> {
        let (one, few, many) = match self {
            Self::Empty => (None, [].as_slice(), None),
            Self::One(value, count) => (Some((value, *count)), [].as_slice(), None),
            Self::Few(list) => (None, list.as_slice(), None),
            Self::Many(tree) => (None, [].as_slice(), Some(tree)),
        };
        let many = many.into_iter().flat_map(|tree| tree.iter().map(|(value, &count)| (value, count)));
        one.into_iter().chain(few.iter().map(|(value, count)| (value, *count))).chain(many)
    }

    pub(super) fn extreme(&self, max: bool) -> Option<&K> {
        let live = |(_, count): &(&K, i64)| *count > 0;
        let found = if max { self.iter().rev().find(live) } else { self.iter().find(live) };
        found.map(|(value, _)| value)
    }

    /// Entries held.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(..) => 1,
            Self::Few(list) => list.len(),
            Self::Many(tree) => tree.len(),
        }
    }

    /// The count at an end.
    fn end(&self, front: bool) -> Option<i64> {
        let mut entries = self.iter();
        if front { entries.next() } else { entries.next_back() }.map(|(_, count)| count)
    }

    /// Takes the entry at an end.
    fn pop(&mut self, front: bool) -> Option<K> {
        match self {
            Self::Empty => None,
            Self::One(..) => match std::mem::take(self) {
                Self::One(value, _) => Some(value),
                _ => None,
            },
            Self::Few(list) if list.is_empty() => None,
            Self::Few(list) if front => Some(list.remove(0).0),
            Self::Few(list) => list.pop().map(|(value, _)| value),
            Self::Many(tree) => if front { tree.pop_first() } else { tree.pop_last() }.map(|(value, _)| value),
        }
    }
}

/// The bags of all groups and what they hold in all.
pub(super) struct Bags<V> {
    pub(super) slots: Vec<Bag<V>>,
    entries: usize,
    heap_bytes: usize,
}

impl<V: Ord> Bags<V> {
    pub(super) fn add<Q: Ord + ?Sized>(&mut self, group: usize, value: &Q, weight: i64, heap_bytes: usize, own: impl FnOnce() -> V)
    where
        V: Borrow<Q>,
    {
        match self.slots[group].add(value, weight, own) {
            1 => (self.entries, self.heap_bytes) = (self.entries + 1, self.heap_bytes + heap_bytes),
            -1 => (self.entries, self.heap_bytes) = (self.entries - 1, self.heap_bytes - heap_bytes),
            _ => {}
        }
    }

    /// Grows to `groups` bags.
    pub(super) fn resize(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize_with(groups, Bag::default);
        }
    }

    /// Empties a group's bag.
    pub(super) fn clear(&mut self, group: usize, heap_bytes: impl Fn(&V) -> usize) {
        for (value, _) in std::mem::take(&mut self.slots[group]).iter() {
            self.entries -= 1;
            self.heap_bytes -= heap_bytes(value);
        }
    }

    /// Drops entries of a group from one end while at least `keep` values remain without them.
    pub(super) fn shorten(&mut self, group: usize, keep: i64, from_front: bool, heap_bytes: impl Fn(&V) -> usize) {
        let bag = &mut self.slots[group];
        let mut values: i64 = bag.iter().map(|(_, count)| count).sum();
        while let Some(count) = bag.end(from_front).filter(|count| values - count >= keep) {
            let Some(value) = bag.pop(from_front) else { break };
            values -= count;
            self.entries -= 1;
            self.heap_bytes -= heap_bytes(&value);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        // Lists and tree nodes are about two thirds full.
        let entry = size_of::<(V, i64)>() * 3 / 2;
        self.slots.capacity() * size_of::<Bag<V>>() + self.entries * entry + self.heap_bytes
    }
}

impl<V> Default for Bags<V> {
    fn default() -> Self {
        Self { slots: Vec::new(), entries: 0, heap_bytes: 0 }
    }
}
