//! The manifest of an epoch: everything a restart, a reader or a replay must know, named with length and checksum.
//!
//! Always: every file a manifest names was durable before the manifest was; a manifest is never changed. Epoch n's manifest is
//! `epochs/0/<n as 20 digits>.json`; the newest one is the pipeline's state.

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::source::Position;
use crate::state::Scalars;
use crate::time::Micros;

/// The format of this file; readers refuse a newer one.
pub const FORMAT: u32 = 1;

/// A byte range of a file, with its CRC-32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Path below the pipeline's folder.
    pub file: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// CRC-32 (IEEE) of those bytes.
    pub crc: u32,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `FORMAT` of the writer.
    pub format: u32,
    /// The epoch; 0 is the pipeline's creation.
    pub epoch: u64,
    /// The pipeline's name.
    pub pipeline: String,
    /// Drawn at epoch 0; part of every app id and transactional id.
    pub uuid: String,
    /// Drawn at each start; part of every file name of that start.
    pub incarnation: String,
    /// Version of the writing binary.
    pub build: String,
    /// Definition of the key hash.
    pub hash_id: String,
    /// What the plan was, by output; a changed one is refused by name.
    pub plan: Vec<PlanEntry>,
    /// Workers of the run that wrote it.
    pub workers: usize,
    /// Wall clock of the commit, in milliseconds (for people; nothing depends on it).
    pub committed_at_ms: i64,
    /// Where every source partition stands after the epoch's last tick.
    pub sources: Vec<SourceEntry>,
    /// The watermark that closed windows last, per source.
    pub watermarks: Vec<Option<Micros>>,
    /// Sums since the beginning, by source and output.
    pub accounts: Vec<Account>,
    /// Operator state.
    pub state: Vec<StateEntry>,
    /// Output tables, the engine's own included.
    pub tables: Vec<TableEntry>,
    /// Outputs that go to sinks.
    #[serde(default)]
    pub sinks: Vec<SinkEntry>,
    /// The ticks of this epoch.
    pub journal: Option<Section>,
    /// The last epoch was the clean end of a bounded run.
    pub ended: bool,
    /// Some bounded run has ended: tables may hold results of windows that are still open.
    #[serde(default)]
    pub published_open: bool,
}

/// One output's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The output's name.
    pub output: String,
    /// Hash of its plan.
    pub hash: String,
    /// The reading of its sources that it belongs to: 0, or another if it was added later.
    #[serde(default)]
    pub reading: u32,
}

/// A source and its partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// The source's name.
    pub name: String,
    /// Which reading of it; see `SourceSpec`.
    #[serde(default)]
    pub reading: u32,
    /// Its topic.
    pub topic: String,
    /// The broker's id of the topic, so that a topic made anew is noticed.
    pub topic_id: Option<String>,
    /// One entry a partition.
    pub partitions: Vec<Position>,
}

/// One state table of one operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The operator's id in the plan, stable over restarts.
    pub operator: String,
    /// The table's name within the operator.
    pub table: String,
    /// Its columns.
    pub schema: Schema,
    /// Key columns after `_hash`.
    pub keys: usize,
    /// Its rows expire.
    pub expires: bool,
    /// A base and its deltas, oldest first.
    pub chain: Vec<StateFile>,
    /// Scalars of the operator, one entry a worker (in the operator's first table only).
    pub scalars: Vec<Scalars>,
}

/// What one worker wrote of one state table in one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The epoch that wrote it.
    pub epoch: u64,
    /// The worker that wrote it.
    pub worker: usize,
    /// It holds the whole table of that worker.
    pub full: bool,
    /// Inserted and replaced rows (Arrow IPC stream).
    pub upserts: Option<Section>,
    /// Deleted keys (Arrow IPC stream).
    pub deletes: Option<Section>,
    /// Rows at or below this have expired.
    pub expired_below: Option<i64>,
}

impl Manifest {
    /// Makes idle partitions active, for a run in which none is idle: what was closed without them stays closed to their rows.
    pub fn wake(&mut self) {
        for (entry, sealed) in self.sources.iter_mut().zip(&self.watermarks) {
            for position in entry.partitions.iter_mut().filter(|position| position.idle) {
                position.idle = false;
                position.floor = position.floor.max(*sealed);
            }
        }
    }
}

/// One output table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its SQL name.
    pub name: String,
    /// Its folder below the pipeline's.
    pub folder: String,
    /// Its columns.
    pub schema: Schema,
    /// Indexes of its key; empty: rows are only appended.
    pub key: Vec<usize>,
    /// How many leading columns a plain query shows; the rest are key columns that SELECT left out.
    pub visible: usize,
    /// The Delta version readers use; `None` until the first publish.
    pub version: Option<u64>,
    /// The Delta version of the change log (`"table$log"`), whose rows carry `_epoch` and `_weight`.
    pub log_version: Option<u64>,
    /// The epoch that version covers.
    pub covered: u64,
    /// Changes after it, oldest first.
    pub hot: Vec<HotFile>,
}

/// What goes out to a sink: one INSERT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkEntry {
    /// The output's name.
    pub name: String,
    /// Its columns.
    pub schema: Schema,
    /// The last epoch with rows that is known to have arrived; 0: none.
    pub delivered: u64,
    /// Rows of later epochs, oldest first. They may have arrived too; the sink itself knows.
    pub sealed: Vec<HotFile>,
}

/// Changes of one table in one epoch: its columns and `_weight` (Int64), as an Arrow IPC stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotFile {
    /// The epoch.
    pub epoch: u64,
    /// Where it lies.
    pub section: Section,
    /// Rows in it.
    pub rows: u64,
}
