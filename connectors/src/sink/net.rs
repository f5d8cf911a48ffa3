//! The net of an epoch: which rows of a batch with weights go out.
//!
//! Always: without a key every row goes out as often as it was added. With one, a key of which nothing was taken back goes out with each
//! of its rows; any other once: its newest row, or that it is gone. What came and went within the epoch is nothing. New and old row may
//! come in any order; what goes out keeps the order of the batch.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::row::{OwnedRow, RowConverter, SortField};
use tidemill_engine::error::{Error, Result};

/// What goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This row.
    Row(usize),
    /// The key of this row has none any more.
    Gone(usize),
}

/// What happened to a key.
#[derive(Clone, Copy, Default)]
struct Net {
    sum: i64,
    last: usize,
    taken_back: bool,
    /// The newest row that is there.
    newest: Option<usize>,
}

/// The net of `batch`, whose last column is the weight; `key` are columns of it.
pub fn net(batch: &RecordBatch, key: &[usize]) -> Result<Vec<Change>> {
    let (weights, columns) = batch.columns().split_last().ok_or_else(|| Error::failed("rows for a sink without columns"))?;
    let weights = weights.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::failed("rows for a sink without weights"))?.values();
    if key.is_empty() {
        let mut changes = Vec::with_capacity(weights.len());
        for (row, weight) in weights.iter().enumerate() {
            let times = usize::try_from(*weight).map_err(|_| Error::failed("a result that was delivered is to be taken back"))?;
            changes.extend(std::iter::repeat_n(Change::Row(row), times));
        }
        return Ok(changes);
    }
    let keys: Vec<ArrayRef> = key.iter().filter_map(|column| columns.get(*column).cloned()).collect();
    let convert = |columns: &[ArrayRef]| {
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        RowConverter::new(fields)?.convert_columns(columns)
    };
    let (keys, rows) = (convert(&keys)?, convert(columns)?);
    let mut places: HashMap<OwnedRow, usize> = HashMap::new();
    let mut nets: Vec<Net> = Vec::new();
    let mut key_of = Vec::with_capacity(weights.len());
    for (row, weight) in weights.iter().enumerate() {
        let place = *places.entry(keys.row(row).owned()).or_insert(nets.len());
        if place == nets.len() {
            nets.push(Net::default());
        }
        key_of.push(place);
        if let Some(net) = nets.get_mut(place) {
            (net.sum, net.last, net.taken_back) = (net.sum + weight, row, net.taken_back || *weight < 0);
        }
    }
    let mut changes: Vec<(usize, Change)> = Vec::with_capacity(weights.len());
    // Of keys that lost a row: where the last of equal rows stands, and their weights added up. The key is part of a row.
    let mut contents: HashMap<OwnedRow, (usize, usize, i64)> = HashMap::new();
    for (row, (weight, place)) in weights.iter().zip(&key_of).enumerate() {
        if nets.get(*place).is_some_and(|net| net.taken_back) {
            let content = contents.entry(rows.row(row).owned()).or_insert((*place, row, 0));
            *content = (*place, row, content.2 + weight);
        } else {
            changes.extend((0..*weight).map(|_| (row, Change::Row(row))));
        }
    }
    for (place, row, _) in contents.into_values().filter(|(.., sum)| *sum > 0) {
        if let Some(net) = nets.get_mut(place) {
            net.newest = net.newest.max(Some(row));
        }
    }
    for net in nets.iter().filter(|net| net.taken_back) {
        match net.newest {
            Some(row) => changes.push((row, Change::Row(row))),
            None if net.sum < 0 => changes.push((net.last, Change::Gone(net.last))),
            None => {}
        }
    }
    changes.sort_by_key(|(row, _)| *row);
    Ok(changes.into_iter().map(|(_, change)| change).collect())
}
