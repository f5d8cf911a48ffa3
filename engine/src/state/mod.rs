//! State is a table: what an operator keeps has columns, a key, and rows that were changed since the last epoch.
//!
//! Always: the first column of every state table is `_hash` (Int64, the key hash: its top byte is the key group), then the key
//! columns, then values. If `expires` is set the last column is `_expires` (microseconds): rows at or below the table's
//! `expired_below` no longer exist, so a closed window costs no tombstones. The engine writes, restores, re-partitions and shows
//! these tables; operators only say what changed.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::error::{Error, Result};

/// Single values of an operator, by name.
pub type Scalars = BTreeMap<String, i64>;

/// The name of the first column of every state table.
pub const HASH_COLUMN: &str = "_hash";
/// The name of the last column of a state table whose rows expire.
pub const EXPIRES_COLUMN: &str = "_expires";

/// What a state table looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSpec {
    /// Unique within the operator.
    pub name: &'static str,
    /// `_hash`, key columns, values, and `_expires` if rows expire.
    pub schema: SchemaRef,
    /// How many columns after `_hash` are the key.
    pub keys: usize,
    /// The last column is `_expires`.
    pub expires: bool,
}

impl TableSpec {
    /// A table of these key and value columns.
    pub fn new(name: &'static str, keys: Vec<Field>, values: Vec<Field>, expires: bool) -> Self {
        let count = keys.len();
        let mut fields = vec![Field::new(HASH_COLUMN, DataType::Int64, false)];
        fields.extend(keys);
        fields.extend(values);
        if expires {
            fields.push(Field::new(EXPIRES_COLUMN, DataType::Int64, false));
        }
        Self { name, schema: std::sync::Arc::new(Schema::new(fields)), keys: count, expires }
    }

    /// The columns of a delete: `_hash` and the key.
    pub fn key_schema(&self) -> SchemaRef {
        let fields: Vec<_> = self.schema.fields().iter().take(self.keys + 1).cloned().collect();
        std::sync::Arc::new(Schema::new(fields))
    }
}

/// What changed in a table during an epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Rows to insert or replace.
    pub upserts: Vec<RecordBatch>,
    /// Keys to delete, applied before the upserts of the same epoch.
    pub deletes: Vec<RecordBatch>,
    /// Rows whose `_expires` is at or below this are gone.
    pub expired_below: Option<i64>,
    /// The upserts are the whole table.
    pub full: bool,
}

impl Changes {
    /// Nothing happened?
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty() && !self.full
    }
}

/// The net rows of a table after a base and its deltas, applied in order. O(rows written), one hash entry a live key.
pub struct Merge {
    spec: TableSpec,
    converter: RowConverter,
    live: HashMap<OwnedRow, (usize, u32)>,
    batches: Vec<RecordBatch>,
    expired_below: i64,
}

impl Merge {
    /// An empty table.
    pub fn new(spec: TableSpec) -> Result<Self> {
        let fields = spec.schema.fields().iter().take(spec.keys + 1).map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { spec, converter: RowConverter::new(fields)?, live: HashMap::new(), batches: Vec::new(), expired_below: i64::MIN })
    }

    /// Applies what one worker wrote in one epoch.
    pub fn apply(&mut self, changes: Changes) -> Result<()> {
        for batch in &changes.deletes {
            let keys = self.converter.convert_columns(batch.columns())?;
            for key in keys.iter() {
                self.live.remove(&key.owned());
            }
        }
        for batch in changes.upserts {
            if batch.num_columns() != self.spec.schema.fields().len() {
                return Err(Error::failed(format!(
                    "state table {}: {} columns, not {}",
                    self.spec.name,
                    batch.num_columns(),
                    self.spec.schema.fields().len()
                )));
            }
            let keys: Vec<_> = batch.columns().iter().take(self.spec.keys + 1).cloned().collect();
            let keys = self.converter.convert_columns(&keys)?;
            let at = self.batches.len();
            for (row, key) in keys.iter().enumerate() {
                self.live.insert(key.owned(), (at, row as u32));
            }
            self.batches.push(batch);
        }
        self.expired_below = self.expired_below.max(changes.expired_below.unwrap_or(i64::MIN));
        Ok(())
    }

    /// The rows that are left, in the order they were written, for which `keep(hash)` holds.
    pub fn finish(self, keep: impl Fn(u64) -> bool) -> Result<Vec<RecordBatch>> {
        let mut picked = vec![Vec::new(); self.batches.len()];
        for (batch, row) in self.live.values() {
            if let Some(rows) = picked.get_mut(*batch) {
                rows.push(*row);
            }
        }
        let mut left = Vec::new();
        for (batch, mut rows) in self.batches.iter().zip(picked) {
            rows.sort_unstable();
            let hashes = batch.column(0).as_primitive_opt::<Int64Type>().ok_or_else(|| Error::failed("a state table without _hash"))?;
            let expires =
                if self.spec.expires { batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>()) } else { None };
            rows.retain(|row| {
                let row = *row as usize;
                keep(hashes.value(row) as u64)
                    && expires.is_none_or(|expires| expires.is_null(row) || expires.value(row) > self.expired_below)
            });
            if !rows.is_empty() {
                left.push(take_record_batch(batch, &UInt32Array::from(rows))?);
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use std::sync::Arc;

    fn spec() -> TableSpec {
        TableSpec::new("t", vec![Field::new("k", DataType::Int64, true)], vec![Field::new("v", DataType::Int64, true)], true)
    }

    fn batch(rows: &[(i64, i64, i64)]) -> RecordBatch {
        let column = |f: fn(&(i64, i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(f))) as _;
        RecordBatch::try_new(spec().schema, vec![column(|row| row.0), column(|row| row.0), column(|row| row.1), column(|row| row.2)])
            .expect("a batch")
    }

    #[test]
    fn the_last_write_wins_and_deleted_and_expired_rows_are_gone() {
        let mut merge = Merge::new(spec()).expect("a merge");
        merge
            .apply(Changes { upserts: vec![batch(&[(1, 10, 100), (2, 20, 100), (3, 30, 5), (4, 40, 100)])], ..Changes::default() })
            .expect("applies");
        let gone = RecordBatch::try_new(spec().key_schema(), batch(&[(2, 0, 0)]).columns()[..2].to_vec()).expect("keys");
        let changes = Changes { upserts: vec![batch(&[(1, 11, 100)])], deletes: vec![gone], expired_below: Some(5), full: false };
        merge.apply(changes).expect("applies");
        let left: Vec<_> = merge.finish(|hash| hash != 4).expect("finishes");
        let values: Vec<i64> = left.iter().flat_map(|batch| batch.column(2).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(values, vec![11]);
    }
}
