//! Two sorted streams of rows, walked side by side: how many rows one has and the other has not, and the first of them.
//!
//! Always: rows are a multiset, so a row that is there twice must be expected twice; memory holds one batch a side and the rows that agree in
//! all columns that must be equal. Approximate columns are compared within what they are granted.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use tidemill_engine::error::{Error, Result};

use super::grant::Grant;
use crate::sql;

/// Rows beyond `Grant::Near` that may be twice as far off: at least one, and one of so many. See `Grant`.
const FAR_ROWS_ONE_OF: u64 = 1000;
/// Rows that agree in their exact columns and are paired by nearness; beyond, in order.
const PAIRED_ROWS_MAX: usize = 1024;

/// What was found.
#[derive(Debug, Default, Clone)]
pub struct Compared {
    /// Rows that the batch has.
    pub expected: u64,
    /// Rows that the table has.
    pub found: u64,
    /// Rows that the batch alone has.
    pub missing: Sample,
    /// Rows that the table alone has.
    pub extra: Sample,
}

/// Some rows, and how many there are.
#[derive(Debug, Default, Clone)]
pub struct Sample {
    /// All of them.
    pub total: u64,
    /// The first ones.
    pub rows: Vec<RecordBatch>,
}

impl Sample {
    fn add(&mut self, row: &Row, most: usize) {
        self.total += 1;
        if self.rows.len() < most {
            self.rows.push(row.batch.slice(row.at, 1));
        }
    }

    /// Counts the rows of a small batch, and keeps them.
    pub fn add_batch(&mut self, rows: &RecordBatch) {
        self.total += rows.num_rows() as u64;
        self.rows.push(rows.clone());
    }

    /// The first rows as one batch.
    pub fn batch(&self) -> Result<Option<RecordBatch>> {
        match self.rows.first() {
            Some(first) => Ok(Some(concat_batches(&first.schema(), &self.rows)?)),
            None => Ok(None),
        }
    }
}

/// One row of a side.
#[derive(Clone)]
struct Row {
    batch: Arc<RecordBatch>,
    /// Its approximate columns.
    near: Arc<Vec<Float64Array>>,
    at: usize,
}

/// One side.
struct Side {
    stream: SendableRecordBatchStream,
    converter: Arc<RowConverter>,
    exact: Vec<usize>,
    near: Vec<usize>,
    now: Option<(Arc<RecordBatch>, Arc<Vec<Float64Array>>, Rows)>,
    at: usize,
    rows: u64,
}

impl Side {
    async fn peek(&mut self) -> Result<Option<arrow::row::Row<'_>>> {
        while self.now.as_ref().is_none_or(|(batch, _, _)| self.at >= batch.num_rows()) {
            let Some(batch) = self.stream.next().await else { return Ok(None) };
            let batch = batch.map_err(|error| failed(&error))?;
            let columns: Vec<_> = self.exact.iter().map(|index| Arc::clone(batch.column(*index))).collect();
            let keys = self.converter.convert_columns(&columns)?;
            let doubles =
                self.near.iter().map(|index| Ok(cast(batch.column(*index), &DataType::Float64)?.as_primitive::<Float64Type>().clone()));
            let doubles = doubles.collect::<Result<Vec<_>>>()?;
            self.rows += batch.num_rows() as u64;
            self.now = Some((Arc::new(batch), Arc::new(doubles), keys));
            self.at = 0;
        }
        Ok(self.now.as_ref().map(|(_, _, keys)| keys.row(self.at)))
    }

    fn take(&mut self) -> Option<Row> {
        let (batch, near, _) = self.now.as_ref()?;
        self.at += 1;
        Some(Row { batch: Arc::clone(batch), near: Arc::clone(near), at: self.at - 1 })
    }

    /// All rows of this key.
    async fn take_all(&mut self, key: &OwnedRow) -> Result<Vec<Row>> {
        let mut all = Vec::new();
        while self.peek().await?.is_some_and(|row| row == key.row()) {
            all.extend(self.take());
        }
        Ok(all)
    }
}

/// An error of the batch, in the words of the pipeline's own.
pub fn failed(error: &datafusion::common::DataFusionError) -> Error {
    match error.find_root() {
        datafusion::common::DataFusionError::External(inner) => {
            inner.downcast_ref::<Error>().cloned().unwrap_or_else(|| Error::failed(inner.to_string()))
        }
        root if matches!(root, datafusion::common::DataFusionError::ResourcesExhausted(_)) => {
            Error::failed(format!("the batch needs more memory or disk than it may have (--memory): {}", root.strip_backtrace()))
        }
        _ => Error::failed(sql::data_error(error)),
    }
}

/// Compares. Both sides have the columns of `schema`, sorted by those that must be equal, ascending, NULLs first. `samples_max` rows
/// of each kind of difference are kept.
pub async fn compare(
    schema: &SchemaRef,
    grants: &[Grant],
    expected: SendableRecordBatchStream,
    found: SendableRecordBatchStream,
    samples_max: usize,
) -> Result<Compared> {
    let exact: Vec<usize> =
        (0..schema.fields().len()).filter(|index| grants.get(*index).is_none_or(|grant| *grant == Grant::Exact)).collect();
    let near: Vec<usize> = (0..schema.fields().len()).filter(|index| matches!(grants.get(*index), Some(Grant::Near(_)))).collect();
    let rooms: Vec<Room> = near.iter().filter_map(|index| Room::of(*grants.get(*index)?, schema.field(*index).data_type())).collect();
    let fields = exact.iter().map(|index| SortField::new(schema.field(*index).data_type().clone())).collect();
    let converter = Arc::new(RowConverter::new(fields)?);
    let side =
        |stream| Side { stream, converter: Arc::clone(&converter), exact: exact.clone(), near: near.clone(), now: None, at: 0, rows: 0 };
    let (mut left, mut right) = (side(expected), side(found));
    let mut compared = Compared::default();
    let mut far = Far::default();
    loop {
        let order = match (left.peek().await?, right.peek().await?) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(wanted), Some(found)) => wanted.cmp(&found),
        };
        match order {
            Ordering::Less => left.take().iter().for_each(|row| compared.missing.add(row, samples_max)),
            Ordering::Greater => right.take().iter().for_each(|row| compared.extra.add(row, samples_max)),
            Ordering::Equal if rooms.is_empty() => {
                left.take();
                right.take();
            }
            Ordering::Equal => {
                let Some(key) = left.peek().await?.map(|row| row.owned()) else { break };
                let (wanted, found) = (left.take_all(&key).await?, right.take_all(&key).await?);
                pair(wanted, found, &rooms, &mut far, &mut compared, samples_max);
            }
        }
    }
    (compared.expected, compared.found) = (left.rows, right.rows);
    far.settle(&mut compared, samples_max);
    Ok(compared)
}

/// How far off an approximate column may be.
#[derive(Debug, Clone, Copy)]
struct Room {
    share: f64,
    absolute: f64,
}

impl Room {
    fn of(grant: Grant, data_type: &DataType) -> Option<Self> {
        // Whole numbers are rounded or cut besides.
        let absolute = if data_type.is_floating() { 0.0 } else { 1.0 };
        match grant {
            Grant::Near(share) => Some(Self { share, absolute }),
            Grant::Exact | Grant::Free => None,
        }
    }

    fn holds(self, wanted: Option<f64>, found: Option<f64>, times: f64) -> bool {
        match (wanted, found) {
            (Some(wanted), Some(found)) => {
                found == wanted
                    || (found.is_nan() && wanted.is_nan())
                    || (found - wanted).abs() <= (wanted.abs() * self.share + self.absolute) * times
            }
            (None, None) => true,
            _ => false,
        }
    }
}

fn near(wanted: &Row, found: &Row, rooms: &[Room], times: f64) -> bool {
    let value = |column: &Float64Array, at: usize| column.is_valid(at).then(|| column.value(at));
    let columns = wanted.near.iter().zip(found.near.iter()).zip(rooms);
    columns.into_iter().all(|((a, b), room)| room.holds(value(a, wanted.at), value(b, found.at), times))
}

/// Pairs that are further apart than granted, but no further than twice that.
#[derive(Default)]
struct Far {
    total: u64,
    first: Vec<(Row, Row)>,
}

impl Far {
    fn settle(self, compared: &mut Compared, samples_max: usize) {
        if self.total <= 1 + compared.expected / FAR_ROWS_ONE_OF {
            return;
        }
        for (wanted, found) in &self.first {
            compared.missing.add(wanted, samples_max);
            compared.extra.add(found, samples_max);
        }
        let rest = self.total - self.first.len() as u64;
        compared.missing.total += rest;
        compared.extra.total += rest;
    }
}

/// Pairs rows that agree in all that must be equal.
fn pair(wanted: Vec<Row>, mut found: Vec<Row>, rooms: &[Room], far: &mut Far, compared: &mut Compared, samples_max: usize) {
    let in_order = found.len() > PAIRED_ROWS_MAX;
    let mut left = Vec::new();
    for row in wanted {
        let among = if in_order { found.iter().take(1) } else { found.iter().take(usize::MAX) };
        match among.into_iter().position(|other| near(&row, other, rooms, 1.0)) {
            Some(at) => drop(found.remove(at)),
            None => left.push(row),
        }
    }
    for row in left {
        match found.iter().position(|other| near(&row, other, rooms, 2.0)) {
            Some(at) => {
                let other = found.remove(at);
                far.total += 1;
                if far.first.len() < samples_max {
                    far.first.push((row, other));
                }
            }
            None => compared.missing.add(&row, samples_max),
        }
    }
    found.iter().for_each(|row| compared.extra.add(row, samples_max));
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
