//! `Rows`: what flows between operators. An Arrow batch and, beside it, what the SQL schema must not show: where source rows
//! come from, how late they are, what each row weighs, and which source rows a derived row settles.
//!
//! Always: every per-row vector is as long as the batch. Source rows of one `Rows` come from one partition, in offset order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, take};

use crate::error::Result;

/// Index of a source in the dataflow.
pub type SourceId = usize;

/// The raw bytes of source records, kept until the tick that read them has judged its rows.
pub trait RawRecords: Send + Sync {
    /// Key, payload and record timestamp (ms) of the record at `offset`; `None` when it is not of this batch.
    fn record(&self, offset: i64) -> Option<RawRecord<'_>>;
}

/// One record as the log holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// The record's key; `None` for null.
    pub key: Option<&'a [u8]>,
    /// The record's value; `None` for null.
    pub payload: Option<&'a [u8]>,
    /// The record's own timestamp in milliseconds, if it has one.
    pub timestamp_ms: Option<i64>,
}

/// Where source rows come from, and the watermark each is judged by.
#[derive(Clone)]
pub struct Origin {
    /// The source they belong to.
    pub source: SourceId,
    /// Their partition.
    pub partition: i32,
    /// One offset a row, ascending.
    pub offsets: Arc<[i64]>,
    /// The effective watermark of the partition *before* each row, in microseconds (`i64::MIN`: none yet).
    pub watermarks: Arc<[i64]>,
    /// The records' bytes.
    pub raw: Arc<dyn RawRecords>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field("source", &self.source)
            .field("partition", &self.partition)
            .field("offsets", &self.offsets)
            .finish_non_exhaustive()
    }
}

/// How many accepted, not yet settled source rows each row carries. Whoever emits a row hands its tokens on, whoever drops it
/// settles them; so every source row is counted once per output.
#[derive(Debug, Clone, PartialEq)]
pub enum Tokens {
    /// Every row is one row of this source.
    Each(SourceId),
    /// Counts per source; a source that is not listed has none.
    Counts(Vec<(SourceId, Arc<[i64]>)>),
}

impl Tokens {
    /// Rows that settle nothing.
    pub fn none() -> Self {
        Self::Counts(Vec::new())
    }

    /// Calls `f(source, tokens)` with the sum over `rows` rows.
    pub fn sums(&self, rows: usize, mut f: impl FnMut(SourceId, i64)) {
        match self {
            Self::Each(source) => f(*source, rows as i64),
            Self::Counts(counts) => counts.iter().for_each(|(source, column)| f(*source, column.iter().sum())),
        }
    }

    /// Tokens of row `row` for `source`.
    pub fn of(&self, source: SourceId, row: usize) -> i64 {
        match self {
            Self::Each(one) => i64::from(*one == source),
            Self::Counts(counts) => counts.iter().filter(|(each, _)| *each == source).filter_map(|(_, column)| column.get(row)).sum(),
        }
    }

    fn pick(&self, keep: impl Fn(&[i64]) -> Arc<[i64]>) -> Self {
        match self {
            Self::Each(source) => Self::Each(*source),
            Self::Counts(counts) => Self::Counts(counts.iter().map(|(source, column)| (*source, keep(column))).collect()),
        }
    }
}

/// A batch on its way. See the module doc.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The columns that SQL sees.
    pub batch: RecordBatch,
    /// +1 inserts, -1 retracts; `None`: every row is +1.
    pub weights: Option<Arc<[i64]>>,
    /// The 64-bit hash of the key the next keyed operator uses, once it is known.
    pub hashes: Option<Arc<[u64]>>,
    /// Set for source rows only.
    pub origin: Option<Origin>,
    /// The source rows they settle.
    pub tokens: Tokens,
}

impl Rows {
    /// Derived rows that insert and settle `tokens`.
    pub fn derived(batch: RecordBatch, weights: Option<Arc<[i64]>>, tokens: Tokens) -> Self {
        Self { batch, weights, hashes: None, origin: None, tokens }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// No rows?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of a row.
    pub fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().and_then(|weights| weights.get(row).copied()).unwrap_or(1)
    }

    /// The same rows with other columns (a projection).
    pub fn with_batch(self, batch: RecordBatch) -> Self {
        debug_assert_eq!(batch.num_rows(), self.batch.num_rows());
        Self { batch, hashes: None, ..self }
    }

    /// The rows where `mask` is true.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        let batch = filter_record_batch(&self.batch, mask)?;
        let bits = selected(mask);
        Ok(Self {
            batch,
            weights: self.weights.as_ref().map(|each| keep(each, &bits)),
            hashes: self.hashes.as_ref().map(|each| keep(each, &bits)),
            origin: self.origin.as_ref().map(|origin| Origin {
                offsets: keep(&origin.offsets, &bits),
                watermarks: keep(&origin.watermarks, &bits),
                ..origin.clone()
            }),
            tokens: self.tokens.pick(|column| keep(column, &bits)),
        })
    }

    /// The rows at `indices`, which must be in range.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self> {
        let columns =
            self.batch.columns().iter().map(|column| take(column, indices, None)).collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(indices.len()));
        let batch = RecordBatch::try_new_with_options(self.batch.schema(), columns, &options)?;
        let at = indices.values();
        Ok(Self {
            batch,
            weights: self.weights.as_ref().map(|each| gather(each, at)),
            hashes: self.hashes.as_ref().map(|each| gather(each, at)),
            origin: self.origin.as_ref().map(|origin| Origin {
                offsets: gather(&origin.offsets, at),
                watermarks: gather(&origin.watermarks, at),
                ..origin.clone()
            }),
            tokens: self.tokens.pick(|column| gather(column, at)),
        })
    }

    /// Rough size in memory, for budgets.
    pub fn bytes(&self) -> usize {
        self.batch.get_array_memory_size() + self.len() * 24
    }
}

fn selected(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        Some(nulls) => mask.values() & nulls.inner(),
        None => mask.values().clone(),
    }
}

fn keep<T: Copy>(values: &[T], bits: &BooleanBuffer) -> Arc<[T]> {
    bits.set_indices().filter_map(|index| values.get(index).copied()).collect()
}

fn gather<T: Copy>(values: &[T], at: &[u32]) -> Arc<[T]> {
    at.iter().filter_map(|index| values.get(*index as usize).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    fn rows(values: Vec<i64>) -> Rows {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let counts: Arc<[i64]> = values.iter().map(|value| value * 10).collect();
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))]).expect("one column");
        Rows::derived(batch, None, Tokens::Counts(vec![(0, counts)]))
    }

    #[test]
    fn a_filter_keeps_every_vector_as_long_as_the_batch() {
        let mask = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
        let kept = rows(vec![1, 2, 3, 4]).filter(&mask).expect("filters");
        assert_eq!(kept.len(), 2);
        assert_eq!((kept.tokens.of(0, 0), kept.tokens.of(0, 1)), (10, 40));
    }

    #[test]
    fn take_repeats_and_reorders() {
        let taken = rows(vec![1, 2, 3]).take(&UInt32Array::from(vec![2, 0, 2])).expect("takes");
        let mut sum = 0;
        taken.tokens.sums(taken.len(), |_, tokens| sum += tokens);
        assert_eq!((taken.len(), sum), (3, 70));
    }
}
