//! The state table of `Final`: one row a session.
//!
//! Columns: `_hash`, keys, `start` | `last`, `published`, `live`, `tokens_<source>`…, partial states of the calls, `_expires` (last + 2 gap +
//! lateness). A session whose start moved, or that was merged into another, has its old row deleted.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::state::{Changes, TableSpec};

use super::finish::Final;
use super::store::Span;

/// Rows a batch of a full table.
const ROWS_PER_BATCH: usize = 65_536;

impl Final {
    pub(super) fn table(&self) -> TableSpec {
        let int = |name: String| Field::new(name, DataType::Int64, false);
        let mut keys: Vec<Field> =
            self.maker.codec.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        keys.push(int("start".to_owned()));
        let mut values = vec![int("last".to_owned()), Field::new("published", DataType::Boolean, false), int("live".to_owned())];
        values.extend(self.maker.plan.sources.iter().map(|source| int(format!("tokens_{source}"))));
        // The states were made when the operator was: their fields are known to be right.
        values.extend(self.maker.plan.state_fields().unwrap_or_default());
        TableSpec::new("session", keys, values, true)
    }

    pub(super) fn changes_since(&mut self, full: bool) -> Result<Changes> {
        let mut spans: Vec<(u32, Span)> = Vec::new();
        for slot in std::mem::take(&mut self.changed) {
            // A slot may be listed twice, or be another session's or nobody's by now.
            if self.infos.get_mut(slot as usize).is_some_and(|info| std::mem::take(&mut info.changed)) {
                spans.extend(self.span(slot).map(|span| (self.infos[slot as usize].key, span)));
            }
        }
        if full {
            spans = (0..).zip(&self.store.lists).flat_map(|(key, spans)| spans.as_slice().iter().map(move |span| (key, *span))).collect();
        }
        for (_, span) in &spans {
            self.infos[span.slot as usize].stored = Some(span.start);
        }
        let table = self.table();
        let upserts = spans.chunks(ROWS_PER_BATCH).map(|spans| self.encode(&table, spans)).collect::<Result<Vec<_>>>()?;
        let mut deletes = Vec::new();
        if let Some((groups, rows)) = self.deleted.take().filter(|_| !full) {
            let (slots, starts): (Vec<u32>, Vec<i64>) = rows.into_iter().unzip();
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| groups.hash(*slot) as i64)))];
            columns.extend(groups.columns(&slots)?);
            columns.push(Arc::new(Int64Array::from(starts)));
            deletes.push(RecordBatch::try_new(table.key_schema(), columns)?);
        }
        Ok(Changes { upserts, deletes, expired_below: self.expired_below, full })
    }

    fn encode(&self, table: &TableSpec, spans: &[(u32, Span)]) -> Result<RecordBatch> {
        let (keys, slots): (Vec<u32>, Vec<u32>) = spans.iter().map(|(key, span)| (*key, span.slot)).unzip();
        let ints =
            |value: &dyn Fn(&Span) -> i64| Arc::new(Int64Array::from_iter_values(spans.iter().map(|(_, span)| value(span)))) as ArrayRef;
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| self.store.groups.hash(*key) as i64)))];
        columns.extend(self.store.groups.columns(&keys)?);
        columns.extend([ints(&|span| span.start), ints(&|span| span.last)]);
        columns.push(Arc::new(BooleanArray::from_iter(slots.iter().map(|slot| Some(self.infos[*slot as usize].published)))));
        columns.push(ints(&|span| self.store.states.live[span.slot as usize]));
        columns.extend(self.store.pending.iter().map(|pending| ints(&|span| pending[span.slot as usize])));
        columns.extend(self.store.states.partials(&slots)?);
        columns.push(ints(&|span| self.kept_until(span.last)));
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    pub(super) fn restore(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.maker.plan.keys.len();
        let sources = self.maker.plan.sources.len();
        let wrong = || Error::failed("a stored session has a wrong column");
        let column = |at: usize| rows.columns().get(at).cloned().ok_or_else(wrong);
        let int = |at: usize| -> Result<ScalarBuffer<i64>> {
            column(at)?.as_primitive_opt::<Int64Type>().map(|column| column.values().clone()).ok_or_else(wrong)
        };
        let hashes: Vec<u64> = int(0)?.iter().map(|hash| *hash as u64).collect();
        let key_columns = (1..=keys).map(column).collect::<Result<Vec<_>>>()?;
        let (starts, lasts, live) = (int(keys + 1)?, int(keys + 2)?, int(keys + 4)?);
        let published = column(keys + 3)?.as_boolean_opt().cloned().ok_or_else(wrong)?;
        let tokens = (0..sources).map(|place| int(keys + 5 + place)).collect::<Result<Vec<_>>>()?;
        let states: Vec<ArrayRef> = (keys + 5 + sources..rows.num_columns().saturating_sub(1)).map(column).collect::<Result<_>>()?;
        let mut slots = Vec::new();
        self.store.groups.insert(&self.maker.codec.encode(&key_columns)?, &hashes, None, &mut slots);
        self.store.resize();
        for (row, slot) in slots.iter_mut().enumerate() {
            let (key, session) = (*slot, self.new_session());
            let span = Span { start: starts[row], last: lasts[row], slot: session };
            let at = self.store.lists[key as usize].as_slice().partition_point(|each| each.start < span.start);
            self.store.lists[key as usize].replace(at..at, &[span]);
            let info = &mut self.infos[session as usize];
            (info.key, info.start, info.published, info.stored) = (key, span.start, published.value(row), Some(span.start));
            let time = if published.value(row) { self.kept_until(span.last) } else { span.last.saturating_add(self.maker.plan.gap_us) };
            self.set_timer(session, time);
            *slot = session;
        }
        self.store.resize();
        for (row, slot) in slots.iter().enumerate() {
            self.store.states.live[*slot as usize] = live[row];
            for (pending, tokens) in self.store.pending.iter_mut().zip(&tokens) {
                pending[*slot as usize] = tokens[row];
            }
        }
        self.store.states.merge(&slots, &states)
    }
}
