//! What a run of weighted changes leaves behind: rows for append tables, one row or none a key for keyed tables.
//!
//! Always: the answer is that of applying the changes one by one in their order, whatever was there before. A retraction takes away
//! the row it names and no other, so a retraction of an old row that stands behind its replacement does no harm. NULL keys are equal.
//! The publisher nets what goes to Delta, the reader nets hot changes: with the same function, so both tiers agree.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{Row, RowConverter, Rows, SortField};
use tidemill_engine::error::{Error, Result};

/// The column of change files that says how often a row is added (or, below zero, taken away).
pub const WEIGHT_COLUMN: &str = "_weight";
/// The column of change logs that says in which epoch.
pub const EPOCH_COLUMN: &str = "_epoch";

/// Rows in a batch made here; a slice of a publish is held twice for as long as it is written.
const BATCH_ROWS: usize = 64 * 1024;

/// The net of a run of changes.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// Rows to add (append tables) or the row each key ends with, in key order.
    pub present: Vec<RecordBatch>,
    /// Every key that was touched, once, in key order: only the key columns. Empty for append tables.
    pub touched: Vec<RecordBatch>,
}

/// Splits the weights off a batch of changes. They stand last.
pub fn split(changes: &RecordBatch, columns: usize) -> Result<(RecordBatch, Int64Array)> {
    let weights =
        changes.columns().last().filter(|_| changes.num_columns() == columns + 1).and_then(|last| last.as_primitive_opt::<Int64Type>());
    let weights = weights
        .ok_or_else(|| Error::failed(format!("a change file has {} columns, not {columns} and {WEIGHT_COLUMN}", changes.num_columns())))?;
    let indexes: Vec<usize> = (0..columns).collect();
    Ok((changes.project(&indexes)?, weights.clone()))
}

/// The columns of a change log: the table's, then `_epoch` and `_weight`.
pub fn log_schema(table: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = table.fields().iter().cloned().collect();
    fields.push(Field::new(EPOCH_COLUMN, DataType::Int64, true).into());
    fields.push(Field::new(WEIGHT_COLUMN, DataType::Int64, true).into());
    std::sync::Arc::new(Schema::new(fields))
}

/// Changes of one epoch as rows of the change log.
pub fn log_batch(table: &Schema, epoch: u64, changes: &RecordBatch) -> Result<RecordBatch> {
    let (rows, weights) = split(changes, table.fields().len())?;
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(std::sync::Arc::new(Int64Array::from(vec![epoch as i64; rows.num_rows()])));
    columns.push(std::sync::Arc::new(weights));
    let fields: Vec<_> =
        rows.schema().fields().iter().cloned().chain(log_schema(table).fields().iter().skip(table.fields().len()).cloned()).collect();
    Ok(RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns)?)
}

/// Nets `changes` (each with its weights last) in their order. `key` are column indexes; empty: rows are only added.
pub fn net(key: &[usize], columns: usize, changes: &[RecordBatch]) -> Result<Net> {
    if key.is_empty() { added(columns, changes) } else { by_key(key, columns, changes) }
}

fn added(columns: usize, changes: &[RecordBatch]) -> Result<Net> {
    let mut present = Vec::new();
    for batch in changes {
        let (rows, weights) = split(batch, columns)?;
        if weights.values().iter().all(|weight| *weight == 1) {
            if rows.num_rows() > 0 {
                present.push(rows);
            }
            continue;
        }
        let mut picked = Vec::with_capacity(rows.num_rows());
        for (row, weight) in weights.values().iter().enumerate() {
            if *weight < 0 {
                return Err(Error::failed("a retraction in a table that only grows"));
            }
            picked.extend(std::iter::repeat_n(row as u32, *weight as usize));
        }
        if !picked.is_empty() {
            present.push(take_record_batch(&rows, &UInt32Array::from(picked))?);
        }
    }
    Ok(Net { present, touched: Vec::new() })
}

/// Where a key stands: the change that touched it last, and whether it left a row.
#[derive(Clone, Copy)]
struct Last {
    at: (usize, usize),
    present: bool,
}

fn by_key(key: &[usize], columns: usize, changes: &[RecordBatch]) -> Result<Net> {
    let split: Vec<_> = changes.iter().map(|batch| split(batch, columns)).collect::<Result<_>>()?;
    let Some((first, _)) = split.first() else { return Ok(Net::default()) };
    let keys = converter(first, key)?;
    let mut encoded: Vec<Rows> = Vec::with_capacity(split.len());
    for (rows, _) in &split {
        encoded.push(keys.convert_columns(rows.project(key)?.columns())?);
    }
    let all: Vec<usize> = (0..columns).collect();
    let mut whole = Whole { converter: converter(first, &all)?, rows: split.iter().map(|_| None).collect() };
    let mut last: HashMap<Row<'_>, Last> = HashMap::new();
    for (batch, (rows, (_, weights))) in encoded.iter().zip(&split).enumerate() {
        for (row, (key, weight)) in rows.iter().zip(weights.values()).enumerate() {
            let change = Last { at: (batch, row), present: *weight > 0 };
            match last.entry(key) {
                _ if *weight == 0 => {}
                Entry::Vacant(entry) => {
                    entry.insert(change);
                }
                Entry::Occupied(mut entry) => {
                    let held = *entry.get();
                    // Taking away a row that has been replaced already leaves the replacement.
                    if change.present || !held.present || whole.equal(held.at, change.at, &split)? {
                        entry.insert(change);
                    }
                }
            }
        }
    }
    let mut ordered: Vec<(Row<'_>, Last)> = last.into_iter().collect();
    ordered.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let batches: Vec<&RecordBatch> = split.iter().map(|(rows, _)| rows).collect();
    let key_batches: Vec<RecordBatch> = batches.iter().map(|rows| rows.project(key)).collect::<std::result::Result<_, _>>()?;
    let key_batches: Vec<&RecordBatch> = key_batches.iter().collect();
    let left: Vec<_> = ordered.iter().filter(|(_, last)| last.present).map(|(_, last)| last.at).collect();
    let touched: Vec<_> = ordered.iter().map(|(_, last)| last.at).collect();
    Ok(Net { present: gather(&batches, &left)?, touched: gather(&key_batches, &touched)? })
}

/// A converter of these columns into comparable bytes.
pub(super) fn converter(batch: &RecordBatch, columns: &[usize]) -> Result<RowConverter> {
    let schema = batch.schema();
    let fields = columns.iter().map(|index| schema.fields().get(*index).map(|field| SortField::new(field.data_type().clone())));
    let fields = fields.collect::<Option<Vec<_>>>().ok_or_else(|| Error::failed("a key column that the table does not have"))?;
    Ok(RowConverter::new(fields)?)
}

fn gather(batches: &[&RecordBatch], at: &[(usize, usize)]) -> Result<Vec<RecordBatch>> {
    at.chunks(BATCH_ROWS).map(|part| Ok(interleave_record_batch(batches, part)?)).collect()
}

/// Whole rows as comparable bytes, made for a batch only when one of its rows is compared.
struct Whole {
    converter: RowConverter,
    rows: Vec<Option<Rows>>,
}

impl Whole {
    fn equal(&mut self, a: (usize, usize), b: (usize, usize), split: &[(RecordBatch, Int64Array)]) -> Result<bool> {
        for index in [a.0, b.0] {
            if let (Some(slot @ None), Some((batch, _))) = (self.rows.get_mut(index), split.get(index)) {
                *slot = Some(self.converter.convert_columns(batch.columns())?);
            }
        }
        let row = |at: (usize, usize)| self.rows.get(at.0).and_then(Option::as_ref).map(|rows| rows.row(at.1));
        Ok(row(a) == row(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;
    use std::sync::Arc;

    fn changes(rows: &[(Option<i64>, &str, i64)]) -> RecordBatch {
        let fields = vec![
            Field::new("k", DataType::Int64, true),
            Field::new("v", DataType::Utf8, true),
            Field::new(WEIGHT_COLUMN, DataType::Int64, false),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(arrow::array::StringArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>()),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
    }

    fn shown(net: &Net) -> Vec<(Option<i64>, String)> {
        let row = |batch: &RecordBatch, row: usize| {
            let keys = batch.column(0).as_primitive::<Int64Type>();
            (keys.is_valid(row).then(|| keys.value(row)), batch.column(1).as_string::<i32>().value(row).to_owned())
        };
        net.present.iter().flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_last_row_of_a_key_stays_and_a_retraction_behind_its_replacement_does_no_harm() {
        let first = changes(&[(Some(1), "a", 1), (None, "n", 1), (Some(2), "x", 1), (Some(3), "gone", -1)]);
        let second = changes(&[(Some(1), "b", 1), (Some(1), "a", -1), (Some(2), "x", -1), (None, "n", -1), (None, "m", 1)]);
        let net = net(&[0], 2, &[first, second]).expect("nets");
        assert_eq!(shown(&net), vec![(None, "m".into()), (Some(1), "b".into())]);
        assert_eq!(net.touched.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    }

    #[test]
    fn tables_without_a_key_only_grow() {
        let grown = net(&[], 2, &[changes(&[(Some(1), "a", 2), (Some(2), "b", 1)])]).expect("nets");
        assert_eq!(shown(&grown), vec![(Some(1), "a".into()), (Some(1), "a".into()), (Some(2), "b".into())]);
        assert!(net(&[], 2, &[changes(&[(Some(1), "a", -1)])]).is_err());
    }
}
