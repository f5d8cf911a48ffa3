//! The state table of `TopK`: one row a kept row.
//!
//! Columns: `_hash`, partition columns, `source`, `partition`, `offset` and identity columns (what names it) | all input columns, `count`,
//! `tokens_<source>`…, and in windows `_expires`. The order, and the list last published, follow from the rows: after each epoch the
//! list published is the first k rows, if the partition counts as published.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::state::{Changes, TableSpec};

use super::partition::{Entry, Key};
use super::{Kept, Names, RowName, TopK};

/// Scalar: the greatest watermark that closed windows.
pub(super) const CLOSED: &str = "closed";
/// Scalar: the greatest window end published by a closing publish.
pub(super) const PUBLISHED_TO: &str = "published_to";
/// Rows a batch of a full table.
const ROWS_PER_BATCH: usize = 65_536;

impl TopK {
    pub(super) fn table(&self) -> TableSpec {
        let fields = self.plan.input.fields();
        let named = |prefix: &str, which: &[usize]| -> Vec<Field> {
            which
                .iter()
                .filter_map(|index| fields.get(*index))
                .map(|field| Field::new(format!("{prefix}{}", field.name()), field.data_type().clone(), true))
                .collect()
        };
        let mut keys = named("key_", &self.plan.partition);
        keys.extend(["source", "partition", "offset"].map(|name| Field::new(name, DataType::Int64, true)));
        keys.extend(named("identity_", &self.plan.identity));
        let mut values: Vec<Field> = fields.iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        values.push(Field::new("count", DataType::Int64, false));
        values.extend(self.plan.sources.iter().map(|source| Field::new(format!("tokens_{source}"), DataType::Int64, false)));
        TableSpec::new("top_k", keys, values, self.plan.window_end.is_some())
    }

    pub(super) fn changes_since(&mut self, full: bool) -> Result<Changes> {
        let (mut rows, mut gone): (Vec<Kept>, Vec<RowName>) = (Vec::new(), Vec::new());
        for ((hash, id), change) in std::mem::take(&mut self.changed) {
            match change {
                Some(row) => rows.push(row),
                None => gone.push((hash, id)),
            }
        }
        if full {
            gone.clear();
            rows = (0..)
                .zip(&self.partitions)
                .flat_map(|(slot, partition)| partition.entries.keys().map(move |key| (slot, Arc::clone(key))))
                .collect();
        }
        let table = self.table();
        let upserts = rows.chunks(ROWS_PER_BATCH).map(|rows| self.encode(&table, rows)).collect::<Result<Vec<_>>>()?;
        let mut deletes = Vec::new();
        if !gone.is_empty() {
            let parser = self.id.parser();
            let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(gone.iter().map(|(hash, _)| *hash as i64)))];
            columns.extend(self.id.convert_rows(gone.iter().map(|(_, id)| parser.parse(id)))?);
            deletes.push(RecordBatch::try_new(table.key_schema(), columns)?);
        }
        let expired_below = self.expired_below.filter(|_| self.plan.window_end.is_some());
        Ok(Changes { upserts, deletes, expired_below, full })
    }

    fn encode(&self, table: &TableSpec, rows: &[Kept]) -> Result<RecordBatch> {
        let entries: Vec<Entry> =
            rows.iter().map(|(slot, key)| self.partitions[*slot as usize].entries.get(key).cloned().unwrap_or_default()).collect();
        let ints = |values: &mut dyn Iterator<Item = i64>| Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
        let mut columns = vec![ints(&mut rows.iter().map(|(slot, _)| self.groups.hash(*slot) as i64))];
        let (ids, contents) = (self.id.parser(), self.row.parser());
        columns.extend(self.id.convert_rows(rows.iter().map(|(_, key)| ids.parse(&key.id)))?);
        columns.extend(self.row.convert_rows(rows.iter().map(|(_, key)| contents.parse(&key.row)))?);
        columns.push(ints(&mut entries.iter().map(|entry| entry.count)));
        for place in 0..self.plan.sources.len() {
            columns.push(ints(&mut entries.iter().map(|entry| entry.tokens.get(place).copied().unwrap_or(0))));
        }
        if table.expires {
            let expires = |slot: &u32| self.partitions[*slot as usize].end.saturating_add(self.plan.retention_us);
            columns.push(ints(&mut rows.iter().map(|(slot, _)| expires(slot))));
        }
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    pub(super) fn restore(&mut self, rows: &RecordBatch) -> Result<()> {
        self.restored = true;
        let wrong = || Error::failed("a stored ranking has a wrong column");
        let columns = rows.columns();
        let int = |at: usize| -> Result<ScalarBuffer<i64>> {
            columns
                .get(at)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .map(|column| column.values().clone())
                .ok_or_else(wrong)
        };
        let partition = self.plan.partition.len();
        let first = 1 + partition + 3 + self.plan.identity.len();
        let count_at = first + self.plan.input.fields().len();
        let input = columns.get(first..count_at).ok_or_else(wrong)?;
        let names: Names =
            columns.get(1 + partition..1 + partition + 3).and_then(|names| names.to_vec().try_into().ok()).ok_or_else(wrong)?;
        let hashes: Vec<u64> = int(0)?.iter().map(|hash| *hash as u64).collect();
        let counts = int(count_at)?;
        let tokens = (0..self.plan.sources.len()).map(|place| int(count_at + 1 + place)).collect::<Result<Vec<_>>>()?;
        let slots = self.enter(input, Some(&hashes), rows.num_rows())?;
        let (sort, ids, contents) = (self.sort_keys(input, &names)?, self.ids(input, &names)?, self.row.convert_columns(input)?);
        for (row, slot) in slots.iter().enumerate() {
            let key = Key { sort: sort.row(row).data().into(), row: contents.row(row).data().into(), id: ids.row(row).data().into() };
            let entry = Entry { count: counts[row], tokens: tokens.iter().map(|column| column[row]).collect() };
            let partition = &mut self.partitions[*slot as usize];
            partition.rows += entry.count;
            partition.entries.insert(Arc::new(key), entry);
        }
        Ok(())
    }

    /// Once, after rows and scalars have been restored: what was published of them.
    pub(super) fn look_at_restored(&mut self) {
        if !std::mem::take(&mut self.restored) {
            return;
        }
        for slot in 0..self.partitions.len() {
            if self.published(&self.partitions[slot]) {
                self.partitions[slot].listed = self.partitions[slot].list(self.plan.k);
            }
        }
    }
}
