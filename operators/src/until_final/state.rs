//! The state table of `UntilFinal`: one row a held result.
//!
//! Columns: `_hash`, the key columns and `due` (what names it) | all input columns (NULL where only tokens wait), `count`,
//! `tokens_<source>`…, `_expires`, which is `due`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Int64Type};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::state::{Changes, TableSpec};

use super::{Held, Name, UntilFinal, cost};

/// Rows a batch of a full table.
const STATE_ROWS_PER_BATCH: usize = 65_536;

impl UntilFinal {
    pub(super) fn table(&self) -> TableSpec {
        let fields = self.plan.input.fields();
        let nullable = |name: String, field: &Field| Field::new(name, field.data_type().clone(), true);
        let key = self.plan.key.iter().filter_map(|index| fields.get(*index));
        let mut keys: Vec<Field> = key.map(|field| nullable(format!("key_{}", field.name()), field)).collect();
        keys.push(Field::new("due", DataType::Int64, false));
        let mut values: Vec<Field> = fields.iter().map(|field| nullable(field.name().clone(), field)).collect();
        values.push(Field::new("count", DataType::Int64, false));
        values.extend(self.plan.sources.iter().map(|source| Field::new(format!("tokens_{source}"), DataType::Int64, false)));
        TableSpec::new("until_final", keys, values, true)
    }

    pub(super) fn changes_since(&mut self, full: bool) -> Result<Changes> {
        let changed = std::mem::take(&mut self.changed);
        let (mut rows, mut gone): (Vec<(&Name, &Held)>, Vec<&(Name, u64)>) = (Vec::new(), Vec::new());
        if full {
            rows.extend(&self.held);
        } else {
            for change in &changed {
                match self.held.get_key_value(&change.0) {
                    Some(row) => rows.push(row),
                    None => gone.push(change),
                }
            }
        }
        let table = self.table();
        let upserts = rows.chunks(STATE_ROWS_PER_BATCH).map(|rows| self.encode(&table, rows)).collect::<Result<Vec<_>>>()?;
        let mut deletes = Vec::new();
        if !gone.is_empty() {
            let columns = self.names(gone.iter().map(|(name, hash)| (name, *hash)))?;
            deletes.push(RecordBatch::try_new(table.key_schema(), columns)?);
        }
        Ok(Changes { upserts, deletes, expired_below: self.expired_below, full })
    }

    /// `_hash`, key columns, `due`.
    fn names<'a>(&self, names: impl Iterator<Item = (&'a Name, u64)> + Clone) -> Result<Vec<ArrayRef>> {
        let parser = self.key.parser();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(names.clone().map(|(_, hash)| hash as i64)))];
        columns.extend(self.key.convert_rows(names.clone().map(|(name, _)| parser.parse(&name.1)))?);
        columns.push(Arc::new(Int64Array::from_iter_values(names.map(|(name, _)| name.0))));
        Ok(columns)
    }

    fn encode(&self, table: &TableSpec, rows: &[(&Name, &Held)]) -> Result<RecordBatch> {
        let mut columns = self.names(rows.iter().map(|(name, held)| (*name, held.hash)))?;
        let parser = self.row.parser();
        let present = self.row.convert_rows(rows.iter().filter(|(_, held)| held.count != 0).map(|(_, held)| parser.parse(&held.row)))?;
        let mut next = 0;
        let at = rows.iter().map(|(_, held)| {
            let here = (held.count != 0).then_some(next);
            next += u32::from(here.is_some());
            here
        });
        let at = arrow::array::UInt32Array::from_iter(at);
        for (column, field) in present.iter().zip(self.plan.input.fields()) {
            // An empty column has nothing to take from.
            let column = if column.is_empty() { concat(&[column, &new_null_array(field.data_type(), 1)])? } else { Arc::clone(column) };
            columns.push(take(&column, &at, None)?);
        }
        let ints = |value: &dyn Fn(&(&Name, &Held)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(value))) as ArrayRef;
        columns.push(ints(&|(_, held)| held.count));
        for place in 0..self.plan.sources.len() {
            columns.push(ints(&|(_, held)| held.tokens.get(place).copied().unwrap_or(0)));
        }
        columns.push(ints(&|(name, _)| name.0));
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    pub(super) fn restore(&mut self, rows: &RecordBatch) -> Result<()> {
        let wrong = || Error::failed("a stored result has a wrong column");
        let columns = rows.columns();
        let int = |at: usize| -> Result<ScalarBuffer<i64>> {
            let column = columns.get(at).and_then(|column| column.as_primitive_opt::<Int64Type>());
            column.map(|column| column.values().clone()).ok_or_else(wrong)
        };
        let keys = self.plan.key.len();
        let (first, width) = (keys + 2, self.plan.input.fields().len());
        let names = self.key.convert_columns(columns.get(1..=keys).ok_or_else(wrong)?)?;
        let contents = self.row.convert_columns(columns.get(first..first + width).ok_or_else(wrong)?)?;
        let (hashes, due, counts) = (int(0)?, int(keys + 1)?, int(first + width)?);
        let tokens = (0..self.plan.sources.len()).map(|place| int(first + width + 1 + place)).collect::<Result<Vec<_>>>()?;
        for row in 0..rows.num_rows() {
            let name: Name = (due[row], names.row(row).data().into());
            let content: Box<[u8]> = if counts[row] == 0 { Box::default() } else { contents.row(row).data().into() };
            self.bytes += cost(&name, &content);
            let tokens = tokens.iter().map(|column| column[row]).collect();
            self.held.insert(name, Held { hash: hashes[row] as u64, row: content, count: counts[row], tokens });
        }
        Ok(())
    }
}
