//! The state table of `Final`: one row an entry and key.
//!
//! Columns: `_hash`, keys, `enter`, `last` | `live`, `tokens_<source>`…, partial states of the calls, and with windows `_expires`. Tokens
//! handed on by the publication of a window are not written again: restored rows of published entries have none left.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::rows::Tokens;
use tidemill_engine::state::{Changes, TableSpec};

use super::finish::Final;
use super::{ALL, Emit};
use crate::judge::Entry;
use crate::pane::{Fold, Pane};

/// Scalar: the last window the watermark has closed.
pub(super) const CLOSED: &str = "closed_window";
/// Scalar: the last window published by a closing publish.
pub(super) const PUBLISHED_TO: &str = "published_to_window";
/// Rows a batch of a full table.
const ROWS_PER_BATCH: usize = 65_536;

impl Final {
    pub(super) fn table(&self) -> TableSpec {
        let int = |name: String| Field::new(name, DataType::Int64, false);
        let mut keys: Vec<Field> =
            self.maker.codec.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        keys.extend(["enter", "last"].map(|name| int(name.to_owned())));
        let mut values = vec![int("live".to_owned())];
        values.extend(self.maker.sources.iter().map(|source| int(format!("tokens_{source}"))));
        // The states were made when the operator was: their fields are known to be right.
        values.extend(self.aggregation.state_fields().unwrap_or_default());
        TableSpec::new("aggregate", keys, values, self.aggregation.windowing.is_some())
    }

    pub(super) fn changed(&mut self, full: bool) -> Result<Changes> {
        self.look_at_restored();
        let table = self.table();
        let mut batches = Vec::new();
        let mut small: Vec<RecordBatch> = Vec::new();
        let mut panes = std::mem::take(&mut self.panes);
        for (entry, pane) in &mut panes {
            let slots = pane.take_changed(full);
            for slots in slots.chunks(ROWS_PER_BATCH) {
                small.push(self.encode(&table, *entry, pane, slots)?);
            }
            if small.iter().map(RecordBatch::num_rows).sum::<usize>() >= ROWS_PER_BATCH {
                batches.push(concat_batches(&table.schema, &small)?);
                small.clear();
            }
        }
        self.panes = panes;
        if !small.is_empty() {
            batches.push(concat_batches(&table.schema, &small)?);
        }
        let mut deletes = Vec::new();
        if let Some(removed) = self.removed.take().filter(|_| !full) {
            let slots: Vec<u32> = (0..removed.len() as u32).collect();
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| removed.hash(*slot) as i64)))];
            columns.extend(removed.columns(&slots)?);
            columns.extend([ALL.0, ALL.1].map(|window| Arc::new(Int64Array::from_value(window, slots.len())) as ArrayRef));
            deletes.push(RecordBatch::try_new(table.key_schema(), columns)?);
        }
        Ok(Changes { upserts: batches, deletes, expired_below: self.expired_below, full })
    }

    fn encode(&self, table: &TableSpec, entry: Entry, pane: &Pane, slots: &[u32]) -> Result<RecordBatch> {
        let ints = |value: &dyn Fn(u32) -> i64| Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| value(*slot)))) as ArrayRef;
        let mut columns = vec![ints(&|slot| pane.groups.hash(slot) as i64)];
        columns.extend(pane.groups.columns(slots)?);
        columns.extend([ints(&|_| entry.0), ints(&|_| entry.1), ints(&|slot| pane.states.live[slot as usize])]);
        columns.extend(pane.pending.iter().map(|pending| ints(&|slot| pending[slot as usize])));
        columns.extend(pane.states.partials(slots)?);
        if let Some(windowing) = &self.aggregation.windowing {
            let kept = windowing.lateness_us.saturating_add(windowing.retention_extra_us);
            let expires = windowing.windows.end(entry.1).saturating_add(kept);
            columns.push(ints(&|_| expires));
        }
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    pub(super) fn restore(&mut self, rows: &RecordBatch) -> Result<()> {
        self.restored = true;
        let keys = self.aggregation.keys.len();
        let sources = self.maker.sources.len();
        let column = |at: usize| rows.columns().get(at).cloned().ok_or_else(|| Error::failed("a stored aggregate lacks a column"));
        let int = |at: usize| -> Result<ScalarBuffer<i64>> {
            let column = column(at)?;
            column
                .as_primitive_opt::<Int64Type>()
                .map(|column| column.values().clone())
                .ok_or_else(|| Error::failed("a stored aggregate has a wrong column"))
        };
        let hashes: Vec<u64> = int(0)?.iter().map(|hash| *hash as u64).collect();
        let key_columns = (1..=keys).map(column).collect::<Result<Vec<_>>>()?;
        let encoded = self.maker.codec.encode(&key_columns)?;
        let (enter, last, live) = (int(keys + 1)?, int(keys + 2)?, int(keys + 3)?);
        let tokens = (0..sources).map(|place| int(keys + 4 + place)).collect::<Result<Vec<_>>>()?;
        let expires = usize::from(self.aggregation.windowing.is_some());
        let states: Vec<ArrayRef> = (keys + 4 + sources..rows.num_columns().saturating_sub(expires)).map(column).collect::<Result<_>>()?;
        let mut lists: std::collections::BTreeMap<Entry, Vec<u32>> = std::collections::BTreeMap::new();
        for (row, entry) in (0..).zip(enter.iter().copied().zip(last.iter().copied())) {
            lists.entry(entry).or_default().push(row);
        }
        let none = Tokens::none();
        for (entry, list) in lists {
            let mut pane = match self.panes.remove(&entry) {
                Some(pane) => pane,
                None => self.maker.pane(true)?,
            };
            let mut slots = Vec::new();
            let fold = Fold { keys: &encoded, hashes: &hashes, rows: Some(&list), weights: Some(&live), tokens: &none };
            pane.enter(&fold, &self.maker.sources, &mut slots)?;
            let indices = arrow::array::UInt32Array::from(list.clone());
            let picked = states.iter().map(|column| crate::pane::pick(column, Some(&indices))).collect::<Result<Vec<_>>>()?;
            pane.states.merge(&slots, &picked)?;
            for (place, tokens) in tokens.iter().enumerate() {
                for (slot, row) in slots.iter().zip(&list) {
                    pane.wait(place, *slot, tokens[*row as usize]);
                }
            }
            let _ = pane.take_changed(false);
            if self.aggregation.windowing.is_some() {
                self.by_last.insert((entry.1, entry.0));
            }
            self.panes.insert(entry, pane);
        }
        Ok(())
    }

    /// Once, after rows and scalars have been restored: forgets tokens that went out with a window published since they were written.
    pub(super) fn look_at_restored(&mut self) {
        if !std::mem::take(&mut self.restored) || self.aggregation.windowing.is_none() || self.aggregation.emit != Emit::Final {
            return;
        }
        let published = self.published();
        for (entry, pane) in &mut self.panes {
            if entry.0 <= published && !self.aggregation.retracts {
                pane.pending.iter_mut().for_each(|pending| pending.fill(0));
                pane.waiting = 0;
            }
            if pane.waiting > 0 {
                self.waiting.insert(*entry);
            }
        }
    }
}
