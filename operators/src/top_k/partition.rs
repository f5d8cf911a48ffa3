//! One partition's rows in order, the list last published, and how the two differ.
//!
//! Always: rows are ordered by ORDER BY, then identity, then content, all as bytes of Arrow's row format, so one comparison decides.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row: what orders it, what names it in state, what it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub sort: Box<[u8]>,
    pub row: Box<[u8]>,
    pub id: Box<[u8]>,
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort.cmp(&other.sort).then_with(|| self.row.cmp(&other.row))
    }
}

/// How often a row is there and what waits in it.
#[derive(Debug, Default, Clone)]
pub(super) struct Entry {
    pub count: i64,
    /// One a source of the operator.
    pub tokens: Vec<i64>,
}

impl Entry {
    pub(super) fn waits(&self) -> bool {
        self.tokens.iter().any(|tokens| *tokens != 0)
    }
}

/// See the module doc.
#[derive(Default)]
pub(super) struct Partition {
    pub entries: BTreeMap<Arc<Key>, Entry>,
    /// The list last published.
    pub listed: Vec<Arc<Key>>,
    /// Sum of the counts.
    pub rows: i64,
    /// Rows came or went since the list was published.
    pub touched: bool,
    /// The window's end.
    pub end: i64,
}

/// Rows to retract and to insert, with their rank from 1.
#[derive(Default)]
pub(super) struct Diff {
    pub old: Vec<(Arc<Key>, i64)>,
    pub new: Vec<(Arc<Key>, i64)>,
}

impl Partition {
    /// The first `k` rows.
    pub(super) fn list(&self, k: usize) -> Vec<Arc<Key>> {
        let present = self.entries.iter().filter(|(_, entry)| entry.count > 0);
        present.flat_map(|(key, entry)| std::iter::repeat_n(key, entry.count as usize)).take(k).cloned().collect()
    }

    /// Publishes the first `k` rows: what changes against the list published before. A row in which tokens wait goes out again
    /// even if it did not change, since what reads it is now published. `ranked`: a changed rank changes the row.
    pub(super) fn publish(&mut self, k: usize, ranked: bool, diff: &mut Diff) {
        let list = self.list(k);
        let waits = |key: &Arc<Key>| self.entries.get(key).is_some_and(Entry::waits);
        let (old, new) = (self.listed.as_slice(), list.as_slice());
        if ranked {
            for (rank, at) in (1..).zip(0..old.len().max(new.len())) {
                let (was, is) = (old.get(at), new.get(at));
                if was != is || is.is_some_and(waits) {
                    diff.old.extend(was.map(|key| (Arc::clone(key), rank)));
                    diff.new.extend(is.map(|key| (Arc::clone(key), rank)));
                }
            }
        } else {
            let (mut i, mut j) = (0, 0);
            loop {
                let order = match (old.get(i), new.get(j)) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(was), Some(is)) => was.cmp(is),
                };
                let same = order == Ordering::Equal;
                let again = same && new.get(j).is_some_and(waits);
                if order == Ordering::Less || again {
                    diff.old.extend(old.get(i).map(|key| (Arc::clone(key), 0)));
                }
                if order == Ordering::Greater || again {
                    diff.new.extend(new.get(j).map(|key| (Arc::clone(key), 0)));
                }
                i += usize::from(order != Ordering::Greater);
                j += usize::from(order != Ordering::Less);
            }
        }
        self.listed = list;
        self.touched = false;
    }
}
