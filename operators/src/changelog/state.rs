//! The state table of `Latest`: one row a key and partition that has changed it.
//!
//! Columns: `_hash`, key columns, `partition` | `offset`, `time` (microseconds), `deleted`, the result's columns (NULL when deleted). What
//! is published follows: after each epoch the row of a key's newest change. No tokens are kept: each epoch settles them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::state::{Changes, TableSpec};

use super::{Change, Latest, size};

/// Rows a batch of a full table.
const ROWS_PER_BATCH: usize = 65_536;

impl Latest {
    pub(super) fn table(&self) -> TableSpec {
        let named = |prefix: &str, field: &Field| Field::new(format!("{prefix}{}", field.name()), field.data_type().clone(), true);
        let mut keys: Vec<Field> = self.codec.fields().iter().map(|field| named("key_", field)).collect();
        keys.push(Field::new("partition", DataType::Int32, false));
        let mut values = vec![
            Field::new("offset", DataType::Int64, false),
            Field::new("time", DataType::Int64, false),
            Field::new("deleted", DataType::Boolean, false),
        ];
        values.extend(self.output.fields().iter().map(|field| named("row_", field)));
        TableSpec::new("latest", keys, values, false)
    }

    /// The epoch is over: what it changed is published.
    pub(super) fn published(&mut self) {
        self.written.extend(std::mem::take(&mut self.touched).into_keys());
    }

    pub(super) fn changes_since(&mut self, full: bool) -> Result<Changes> {
        // What came after the last publication is not published, and not cut either.
        let mut slots: Vec<u32> = std::mem::take(&mut self.written).into_iter().collect();
        if full {
            slots = (0..self.changes.len() as u32).collect();
        }
        let of = |slot: u32| self.changes.get(slot as usize).into_iter().flatten().map(move |change| (slot, change));
        let rows: Vec<(u32, &Change)> = slots.into_iter().flat_map(of).collect();
        let table = self.table();
        let upserts = rows.chunks(ROWS_PER_BATCH).map(|rows| self.encode(&table, rows)).collect::<Result<Vec<_>>>()?;
        Ok(Changes { upserts, full, ..Changes::default() })
    }

    fn encode(&self, table: &TableSpec, rows: &[(u32, &Change)]) -> Result<RecordBatch> {
        let slots: Vec<u32> = rows.iter().map(|(slot, _)| *slot).collect();
        let ints = |value: &dyn Fn(&Change) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, change)| value(change))))
        };
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.groups.hash(*slot) as i64)))];
        columns.extend(self.groups.columns(&slots)?);
        columns.push(Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, change)| change.partition))));
        columns.push(ints(&|change| change.offset));
        columns.push(ints(&|change| change.time));
        columns.push(Arc::new(BooleanArray::from_iter(rows.iter().map(|(_, change)| Some(change.row.is_none())))));
        let live: Vec<&[u8]> = rows.iter().filter_map(|(_, change)| change.row.as_deref()).collect();
        let decoded = if live.is_empty() { None } else { Some(self.decode(live.into_iter())?) };
        let mut next = 0;
        let places: Vec<(usize, usize)> = rows
            .iter()
            .map(|(_, change)| {
                let place = if change.row.is_some() { (0, next) } else { (1, 0) };
                next += usize::from(change.row.is_some());
                place
            })
            .collect();
        for (index, field) in self.output.fields().iter().enumerate() {
            let values = decoded.as_ref().and_then(|decoded| decoded.get(index));
            columns.push(match values {
                Some(values) => interleave(&[values.as_ref(), new_null_array(field.data_type(), 1).as_ref()], &places)?,
                None => new_null_array(field.data_type(), rows.len()),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    pub(super) fn restore(&mut self, rows: &RecordBatch) -> Result<()> {
        let wrong = || Error::failed("a stored changelog has a wrong column");
        let columns = rows.columns();
        let keys = self.plan.keys;
        let int = |at: usize| columns.get(at).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(wrong);
        let hashes: Vec<u64> = int(0)?.values().iter().map(|hash| *hash as u64).collect();
        let mut slots = Vec::new();
        self.groups.insert(&self.codec.encode(columns.get(1..=keys).ok_or_else(wrong)?)?, &hashes, None, &mut slots);
        let partitions = columns.get(keys + 1).and_then(|column| column.as_primitive_opt::<Int32Type>()).ok_or_else(wrong)?;
        let (offsets, times) = (int(keys + 2)?, int(keys + 3)?);
        let deleted = columns.get(keys + 4).and_then(|column| column.as_boolean_opt()).ok_or_else(wrong)?;
        let values = columns.get(keys + 5..).ok_or_else(wrong)?;
        let contents = if values.is_empty() { None } else { Some(self.rows.convert_columns(values)?) };
        for (row, slot) in slots.into_iter().enumerate() {
            let content = || contents.as_ref().map_or_else(|| Arc::from(&[][..]), |contents| Arc::from(contents.row(row).data()));
            let change = Change {
                partition: partitions.value(row),
                offset: offsets.value(row),
                time: times.value(row),
                row: (!deleted.value(row)).then(content),
                waits: 0,
            };
            self.row_bytes += size(&change);
            self.changes.resize_with(self.changes.len().max(slot as usize + 1), Vec::new);
            if let Some(all) = self.changes.get_mut(slot as usize) {
                all.push(change);
            }
        }
        Ok(())
    }
}
