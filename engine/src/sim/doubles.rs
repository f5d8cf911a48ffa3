//! Doubles of the outside: a log, a store that fails, a cold tier that crashes half-way. Each keeps the real one's contract.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::epoch::coordinator::{Published, Publisher};
use crate::epoch::manifest::{Section, TableEntry};
use crate::epoch::store::{Store, check};
use crate::error::{Error, Result};
use crate::rows::{RawRecord, RawRecords};
use crate::sim::rng::Rng;
use crate::source::{Limits, Polled, ReadBatch, Source};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store in memory that fails at a chosen operation, before or after it took place.
#[derive(Debug, Default)]
pub struct FaultyStore {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    fuse: Mutex<(Option<u64>, bool)>,
}

impl FaultyStore {
    /// Fails the write after `writes` more ones; `None`: never. Forgets earlier failures.
    pub fn fail_after(&self, writes: Option<u64>) {
        *locked(&self.fuse) = (writes, false);
    }

    /// An injected failure has happened.
    pub fn has_failed(&self) -> bool {
        locked(&self.fuse).1
    }

    /// Is this the write that fails?
    pub fn blown(&self) -> bool {
        let mut fuse = locked(&self.fuse);
        match fuse.0 {
            Some(0) => {
                fuse.1 = true;
                true
            }
            Some(left) => {
                fuse.0 = Some(left - 1);
                false
            }
            None => false,
        }
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        locked(&self.files).keys().cloned().collect()
    }
}

impl Store for FaultyStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<bool> {
        if self.blown() {
            // Half of the failed writes took place all the same: the outcome is unknown to the writer.
            if bytes.len().is_multiple_of(2) {
                locked(&self.files).entry(path.to_owned()).or_insert_with(|| bytes.to_vec());
            }
            return Err(Error::external(format!("injected failure at {path}")));
        }
        let mut files = locked(&self.files);
        if files.contains_key(path) {
            return Ok(false);
        }
        files.insert(path.to_owned(), bytes.to_vec());
        Ok(true)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        locked(&self.files).get(path).cloned().ok_or_else(|| Error::external(format!("{path} is not there")))
    }

    fn get_section(&self, section: &Section) -> Result<Vec<u8>> {
        let bytes = self.get(&section.file)?;
        let end = section.offset.saturating_add(section.length) as usize;
        let part = bytes.get(section.offset as usize..end).ok_or_else(|| Error::failed(format!("{} is cut short", section.file)))?;
        check(section, part)?;
        Ok(part.to_vec())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = format!("{folder}/");
        let files = locked(&self.files);
        Ok(files.keys().filter_map(|name| name.strip_prefix(&prefix)).filter(|rest| !rest.contains('/')).map(str::to_owned).collect())
    }

    fn delete(&self, path: &str) -> Result<()> {
        locked(&self.files).remove(path);
        Ok(())
    }
}

/// One record of the log: a row of the source's batch, or a bad one.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its row in the partition's batch; `None`: undecodable.
    pub row: Option<u32>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// One partition: its rows as one batch, and the records in offset order.
#[derive(Debug, Clone)]
pub struct LogPartition {
    /// The decoded rows.
    pub rows: RecordBatch,
    /// The records.
    pub entries: Vec<Entry>,
}

/// A log with sources and partitions, of which a poll brings a random part.
#[derive(Debug, Clone)]
pub struct Log {
    sources: Arc<Vec<Vec<LogPartition>>>,
    seed: u64,
}

impl Log {
    /// A log of these partitions, by source.
    pub fn new(sources: Vec<Vec<LogPartition>>) -> Self {
        Self { sources: Arc::new(sources), seed: 0 }
    }

    /// The same log with another idea of how much a poll brings.
    pub fn reseeded(&self, seed: u64) -> Self {
        Self { sources: Arc::clone(&self.sources), seed }
    }

    /// The partitions of a source.
    pub fn partitions(&self, source: usize) -> impl Iterator<Item = i32> {
        0..self.sources.get(source).map_or(0, |partitions| partitions.len() as i32)
    }

    /// End offsets: of the whole log, or of a random part of it.
    pub fn ends(&self, rng: Option<&mut Rng>) -> Vec<Vec<(i32, i64)>> {
        let mut rng = rng;
        let end = |entries: usize, rng: &mut Option<&mut Rng>| match rng {
            Some(rng) => rng.below(entries as u64 + 1) as i64,
            None => entries as i64,
        };
        let of = |partitions: &Vec<LogPartition>, rng: &mut Option<&mut Rng>| {
            partitions.iter().enumerate().map(|(index, partition)| (index as i32, end(partition.entries.len(), rng))).collect()
        };
        self.sources.iter().map(|partitions| of(partitions, &mut rng)).collect()
    }

    /// A reader of one source.
    pub fn reader(&self, source: usize) -> Box<dyn Source> {
        Box::new(LogReader { log: self.clone(), source, next: HashMap::new(), rng: Rng::new(self.seed ^ source as u64) })
    }
}

struct LogReader {
    log: Log,
    source: usize,
    next: HashMap<i32, i64>,
    rng: Rng,
}

struct Raw {
    first: i64,
    payloads: Vec<Vec<u8>>,
}

impl RawRecords for Raw {
    fn record(&self, offset: i64) -> Option<RawRecord<'_>> {
        let payload = self.payloads.get(usize::try_from(offset - self.first).ok()?)?;
        Some(RawRecord { key: None, payload: Some(payload), timestamp_ms: None })
    }
}

impl Source for LogReader {
    fn assign(&mut self, partitions: &[(i32, i64)]) -> Result<()> {
        self.next = partitions.iter().copied().collect();
        Ok(())
    }

    fn poll(&mut self, partition: i32, limits: Limits) -> Result<Polled> {
        let held = self.log.sources.get(self.source).and_then(|partitions| partitions.get(partition as usize));
        let (Some(held), Some(from)) = (held, self.next.get(&partition).copied()) else {
            return Err(Error::failed(format!("partition {partition} was not assigned")));
        };
        let end = limits.end.min(held.entries.len() as i64);
        if from >= end {
            return Ok(Polled { read: None, at_end: from >= held.entries.len() as i64 });
        }
        if self.rng.chance(30) {
            return Ok(Polled::default());
        }
        let most = (end - from).min(limits.rows_max as i64).max(1);
        let to = from + 1 + self.rng.below(most as u64) as i64;
        let entries = held.entries.get(from as usize..to.min(end) as usize).unwrap_or_default();
        let mut read = ReadBatch {
            batch: held.rows.slice(0, 0),
            offsets: Vec::new(),
            timestamps_ms: Vec::new(),
            dead: Vec::new(),
            next: from + entries.len() as i64,
            records: entries.len() as u64,
            bytes: 0,
            raw: Arc::new(Raw { first: from, payloads: entries.iter().map(|entry| entry.payload.clone()).collect() }),
        };
        let mut rows = Vec::new();
        for (offset, entry) in (from..).zip(entries) {
            match entry.row {
                Some(row) => {
                    rows.push(row);
                    read.offsets.push(offset);
                }
                None => read.dead.push(crate::letter::DeadLetter {
                    source: self.source,
                    partition,
                    offset,
                    timestamp_ms: None,
                    reason: "not_json".into(),
                    detail: String::new(),
                    key: None,
                    payload: Some(entry.payload.clone()),
                }),
            }
        }
        read.batch = take_record_batch(&held.rows, &arrow::array::UInt32Array::from(rows))?;
        self.next.insert(partition, read.next);
        Ok(Polled { read: Some(read), at_end: false })
    }
}

/// Net rows of every table, as the cold tier holds them, with the epoch each has been brought up to.
#[derive(Debug, Clone, Default)]
pub struct ColdTables {
    tables: Arc<Mutex<BTreeMap<String, Cold>>>,
    /// Adds an epoch again though it is there: a fault, to show that it is noticed.
    ignores_transactions: bool,
}

#[derive(Debug, Default)]
struct Cold {
    to: u64,
    version: u64,
    rows: Vec<RecordBatch>,
}

impl ColdTables {
    /// No tables yet.
    pub fn new(ignores_transactions: bool) -> Self {
        Self { ignores_transactions, ..Self::default() }
    }

    /// A publisher that may die before or after it commits.
    pub fn publisher(&self, store: Arc<FaultyStore>, seed: u64) -> ColdPublisher {
        ColdPublisher { tables: self.clone(), store, rng: Rng::new(seed) }
    }

    /// All changes of a table, in the order they were committed, `_weight` last.
    pub fn changes(&self, table: &str) -> Vec<RecordBatch> {
        locked(&self.tables).get(table).map(|cold| cold.rows.clone()).unwrap_or_default()
    }
}

/// See `ColdTables`.
pub struct ColdPublisher {
    tables: ColdTables,
    store: Arc<FaultyStore>,
    rng: Rng,
}

impl Publisher for ColdPublisher {
    fn publish(&mut self, table: &TableEntry, to: u64, changes: &[(u64, RecordBatch)]) -> Result<Published> {
        let before = self.rng.chance(50);
        let fails = self.store.blown();
        if fails && before {
            return Err(Error::external("injected failure before a table's commit"));
        }
        let again = self.tables.ignores_transactions;
        let mut tables = locked(&self.tables.tables);
        let cold = tables.entry(table.folder.clone()).or_default();
        // The transaction id of what is committed: an epoch already there is not added again.
        if cold.to < to || again {
            let fresh = changes.iter().filter(|(epoch, _)| again || *epoch > cold.to).map(|(_, batch)| batch.clone());
            cold.rows.extend(fresh);
            cold.to = to;
            cold.version += 1;
        }
        if fails {
            return Err(Error::external("injected failure after a table's commit"));
        }
        Ok(Published { version: cold.version, log_version: None })
    }
}

/// The net multiset of weighted rows, as Arrow row bytes with their counts; `_weight` is the last column.
pub fn net(batches: &[RecordBatch]) -> Result<BTreeMap<OwnedRow, i64>> {
    let mut rows = BTreeMap::new();
    for batch in batches {
        let Some((weights, columns)) = batch.columns().split_last() else { continue };
        let weights = weights.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::failed("no weights"))?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let columns: Vec<ArrayRef> = columns.to_vec();
        let converted = RowConverter::new(fields)?.convert_columns(&columns)?;
        for (row, weight) in converted.iter().zip(weights.values()) {
            *rows.entry(row.owned()).or_insert(0) += weight;
        }
    }
    rows.retain(|_, weight| *weight != 0);
    Ok(rows)
}
