//! `Pane`: the groups of one entry: keys, their aggregate states, how many rows are in, and which source rows wait in them.
//!
//! Always: columns beside the keys are as long as the table. A slot with `live` 0 has no result. Tokens wait in `pending` until a
//! result that reads them is published. Which windows a pane belongs to, and when it goes, is decided by its owner.

use arrow::array::{ArrayRef, BooleanArray};
use tidemill_engine::error::Result;
use tidemill_engine::rows::{SourceId, Tokens};

use crate::aggregate::{Accumulator, Spec, accumulator};
use crate::groups::Groups;
use crate::keys::KeyBatch;
use crate::tokens::place;

/// Aggregate states of slots: one accumulator a call, and the sum of weights.
pub struct States {
    /// One a call, in the order of the calls.
    pub calls: Vec<Box<dyn Accumulator>>,
    /// The sum of the weights of a slot's rows.
    pub live: Vec<i64>,
}

impl States {
    /// No slots yet.
    pub fn new(specs: &[Spec]) -> Result<Self> {
        Ok(Self { calls: specs.iter().map(accumulator).collect::<Result<_>>()?, live: Vec::new() })
    }

    /// Makes room for `slots`.
    pub fn resize(&mut self, slots: usize) {
        if self.live.len() < slots {
            self.live.resize(slots, 0);
        }
        self.calls.iter_mut().for_each(|call| call.resize(slots));
    }

    /// Empties a slot.
    pub fn clear(&mut self, slot: u32) {
        if let Some(live) = self.live.get_mut(slot as usize) {
            *live = 0;
        }
        self.calls.iter_mut().for_each(|call| call.clear(slot as usize));
    }

    /// Adds (`sign` 1) or takes out (-1) slot `from[i]` of `other` into `to[i]`.
    pub fn merge_from(&mut self, to: &[u32], other: &Self, from: &[u32], sign: i64) -> Result<()> {
        for (to, from) in to.iter().zip(from) {
            self.live[*to as usize] += sign * other.live[*from as usize];
        }
        self.calls.iter_mut().zip(&other.calls).try_for_each(|(call, other)| call.merge_from(to, other.as_ref(), from, sign))
    }

    /// Every call can take a merge out again.
    pub fn invertible(&self) -> bool {
        self.calls.iter().all(|call| call.invertible())
    }

    /// The results of `slots`, one column a call.
    pub fn results(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.calls.iter().map(|call| call.result(slots)).collect()
    }

    /// The partial states of `slots`, all columns of all calls.
    pub fn partials(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for call in &self.calls {
            columns.extend(call.state(slots)?);
        }
        Ok(columns)
    }

    /// Merges partial states, row `i` into `slots[i]`.
    pub fn merge(&mut self, slots: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let mut columns = columns;
        for call in &mut self.calls {
            let (own, rest) = columns.split_at(call.state_types().len().min(columns.len()));
            call.merge(slots, own, 1)?;
            columns = rest;
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.live.capacity() * 8 + self.calls.iter().map(|call| call.bytes()).sum::<usize>()
    }
}

/// What goes into a pane from one batch, already reduced to its rows.
pub struct Fold<'a> {
    /// Keys of the whole batch.
    pub keys: &'a KeyBatch,
    /// Hashes of the whole batch.
    pub hashes: &'a [u64],
    /// The rows of the batch that go in; `None`: all.
    pub rows: Option<&'a [u32]>,
    /// Weights of the whole batch.
    pub weights: Option<&'a [i64]>,
    /// Tokens of the whole batch.
    pub tokens: &'a Tokens,
}

/// See the module doc.
pub struct Pane {
    /// The keys.
    pub groups: Groups,
    /// Their aggregate states.
    pub states: States,
    /// Tokens waiting in each slot, one column a source of the operator.
    pub pending: Vec<Vec<i64>>,
    /// Sum over `pending`.
    pub waiting: i64,
    /// Slots changed since the last epoch; kept only if `track`.
    changed: Vec<u32>,
    marks: Vec<bool>,
    track: bool,
}

impl Pane {
    /// An empty pane. `track`: remember which slots change.
    pub fn new(groups: Groups, states: States, sources: usize, track: bool) -> Self {
        Self { groups, states, pending: vec![Vec::new(); sources], waiting: 0, changed: Vec::new(), marks: Vec::new(), track }
    }

    /// Finds or adds the slots of rows and counts their weights and tokens; the caller then updates or merges the calls at `slots`.
    pub fn enter(&mut self, fold: &Fold<'_>, sources: &[SourceId], slots: &mut Vec<u32>) -> Result<()> {
        self.groups.insert(fold.keys, fold.hashes, fold.rows, slots);
        self.resize();
        let row_of = |at: usize| fold.rows.map_or(at, |rows| rows[at] as usize);
        match fold.weights {
            None => slots.iter().for_each(|slot| self.states.live[*slot as usize] += 1),
            Some(weights) => slots.iter().enumerate().for_each(|(at, slot)| self.states.live[*slot as usize] += weights[row_of(at)]),
        }
        match fold.tokens {
            Tokens::Each(source) => {
                let pending = &mut self.pending[place(sources, *source)?];
                slots.iter().for_each(|slot| pending[*slot as usize] += 1);
                self.waiting += slots.len() as i64;
            }
            Tokens::Counts(columns) => {
                for (source, column) in columns {
                    let pending = &mut self.pending[place(sources, *source)?];
                    for (at, slot) in slots.iter().enumerate() {
                        let tokens = column[row_of(at)];
                        pending[*slot as usize] += tokens;
                        self.waiting += tokens;
                    }
                }
            }
        }
        self.touch(slots);
        Ok(())
    }

    /// Makes the columns as long as the table.
    pub fn resize(&mut self) {
        let slots = self.groups.len();
        self.states.resize(slots);
        self.pending.iter_mut().for_each(|pending| pending.resize(slots.max(pending.len()), 0));
        if self.track {
            self.marks.resize(slots.max(self.marks.len()), false);
        }
    }

    /// Marks slots as changed.
    pub fn touch(&mut self, slots: &[u32]) {
        if self.track {
            for slot in slots {
                let mark = &mut self.marks[*slot as usize];
                if !*mark {
                    *mark = true;
                    self.changed.push(*slot);
                }
            }
        }
    }

    /// The slots changed since the last call that still hold a key; `full`: all that do.
    pub fn take_changed(&mut self, full: bool) -> Vec<u32> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().for_each(|slot| self.marks[*slot as usize] = false);
        let mut slots = if full { (0..self.groups.len() as u32).collect() } else { changed };
        slots.retain(|slot| self.groups.holds(*slot));
        slots
    }

    /// The slots that have a result, in order of first arrival.
    pub fn live_slots(&self) -> Vec<u32> {
        (0..).zip(&self.states.live).filter(|(_, live)| **live > 0).map(|(slot, _)| slot).collect()
    }

    /// The slots that hold a key.
    pub fn used_slots(&self) -> Vec<u32> {
        (0..self.groups.len() as u32).filter(|slot| self.groups.holds(*slot)).collect()
    }

    /// Takes the tokens waiting in `slots`, one column a source.
    pub fn take_pending(&mut self, slots: &[u32]) -> Vec<Vec<i64>> {
        let mut columns = Vec::with_capacity(self.pending.len());
        for pending in &mut self.pending {
            let column: Vec<i64> = if self.waiting == 0 {
                vec![0; slots.len()]
            } else {
                slots.iter().map(|slot| std::mem::take(&mut pending[*slot as usize])).collect()
            };
            self.waiting -= column.iter().sum::<i64>();
            columns.push(column);
        }
        columns
    }

    /// Adds tokens to a slot.
    pub fn wait(&mut self, place: usize, slot: u32, tokens: i64) {
        self.pending[place][slot as usize] += tokens;
        self.waiting += tokens;
    }

    /// Forgets a slot; its tokens must have been taken.
    pub fn remove(&mut self, slot: u32) {
        self.states.clear(slot);
        self.groups.remove(slot);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.groups.bytes()
            + self.states.bytes()
            + self.pending.iter().map(|pending| pending.capacity() * 8).sum::<usize>()
            + self.changed.capacity() * 4
            + self.marks.capacity()
    }
}

/// The rows of a column, or the column itself when all rows are meant.
pub fn pick(column: &ArrayRef, rows: Option<&arrow::array::UInt32Array>) -> Result<ArrayRef> {
    Ok(match rows {
        Some(rows) => arrow::compute::take(column, rows, None)?,
        None => column.clone(),
    })
}

/// A filter column as booleans.
pub fn as_filter(column: &ArrayRef) -> Result<BooleanArray> {
    use arrow::array::AsArray;
    column
        .as_boolean_opt()
        .cloned()
        .ok_or_else(|| tidemill_engine::error::Error::failed(format!("a FILTER of type {}", column.data_type())))
}
