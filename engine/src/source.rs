//! The contract of a source: partitions of a log that are read forward, in batches, without blocking.
//!
//! Always: rows of a batch belong to one partition and are in offset order; a bad record is in `dead`, never missing; `next` is a
//! fetch position (control records and gaps are passed over), not a count. Implemented by the connectors, called by `worker`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::letter::DeadLetter;
use crate::rows::RawRecords;
use crate::time::Micros;

/// How much one poll may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records.
    pub rows_max: usize,
    /// Bytes of payload (one record more may come).
    pub bytes_max: usize,
    /// Stop before this offset (`i64::MAX`: no end).
    pub end: i64,
}

/// What a poll brought.
#[derive(Default)]
pub struct Polled {
    /// The records taken, if any.
    pub read: Option<ReadBatch>,
    /// The position is the end of the partition as the log reported it (evidence, not a guess).
    pub at_end: bool,
}

/// Records of one partition, decoded.
pub struct ReadBatch {
    /// The good rows.
    pub batch: RecordBatch,
    /// Their offsets.
    pub offsets: Vec<i64>,
    /// Their records' timestamps in milliseconds; empty when the log has none.
    pub timestamps_ms: Vec<i64>,
    /// The bad ones (their `source` is filled in by the worker).
    pub dead: Vec<DeadLetter>,
    /// Where to go on.
    pub next: i64,
    /// Records taken, good and bad.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The bytes of all of them.
    pub raw: Arc<dyn RawRecords>,
}

/// One worker's reader of one source. Partitions are given to it by `assign`; it reads nothing else.
pub trait Source: Send {
    /// The partitions to read and where each begins; called once, before the first poll.
    fn assign(&mut self, partitions: &[(i32, i64)]) -> Result<()>;
    /// Takes what is ready. Never blocks.
    fn poll(&mut self, partition: i32, limits: Limits) -> Result<Polled>;
    /// Offsets of a committed epoch, for lag tools; never read back.
    fn committed(&mut self, positions: &[(i32, i64)]) {
        let _ = positions;
    }
}

/// What the dataflow needs to know of a source.
#[derive(Clone)]
pub struct SourceSpec {
    /// Its SQL name.
    pub name: String,
    /// Which reading of it this is. Outputs that were there from the beginning share reading 0; those added later read the topic again
    /// from its start, in a reading of their own.
    pub reading: u32,
    /// Records that can't be read become dead letters in this reading: in the first one of each source.
    pub letters: bool,
    /// The topic, or what stands for it.
    pub topic: String,
    /// The columns its batches have.
    pub schema: SchemaRef,
    /// The event time.
    pub time: Option<TimeSpec>,
    /// Rows further ahead of their record's timestamp than this are dead letters.
    pub future_max_us: Option<i64>,
    /// A partition whose end was reached this long ago is idle.
    pub idle_after_us: i64,
    /// Makes one worker's reader.
    pub open: Arc<dyn Fn() -> Result<Box<dyn Source>> + Send + Sync>,
}

/// Which column is the event time and how far its watermark stays behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpec {
    /// Index in the source's schema; a `Timestamp(Microsecond)`.
    pub column: usize,
    /// The watermark is the greatest time seen less this.
    pub delay_us: i64,
}

/// Where a partition stands: kept with every epoch, moves with the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The first offset that was to be read.
    #[serde(default)]
    pub start: i64,
    /// The next offset to read.
    pub next: i64,
    /// Its own watermark (`None`: no row yet).
    pub watermark: Option<Micros>,
    /// The sealed minimum at its last activation: its rows are judged by at least this.
    pub floor: Option<Micros>,
    /// Declared idle on evidence.
    pub idle: bool,
    /// Records read since the beginning.
    pub rows: u64,
}

impl Position {
    /// A partition nobody has read.
    pub fn new(partition: i32, next: i64) -> Self {
        Self { partition, start: next, next, watermark: None, floor: None, idle: false, rows: 0 }
    }

    /// The watermark its rows are judged by: its own, but at least the floor.
    pub fn effective(&self) -> Option<Micros> {
        self.watermark.max(self.floor)
    }
}
