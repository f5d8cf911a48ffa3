//! The source side of a worker: which partitions to poll, what watermark each row is judged by, who is idle.
//!
//! Always: a partition's watermark is a function of its own rows; rows further in the future than allowed move nothing and become
//! dead letters; an idle partition is polled again only once the tick before is sealed everywhere, because the sealed minimum is
//! its floor. A record that can't be read is a letter of the source's first reading only: a later one reads the same log.
//! Steering: a partition more than `drift_max_us` of event time ahead of the slowest active one is not polled.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::TimestampMicrosecondType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::letter::DeadLetter;
use crate::operator::Output;
use crate::rows::{Origin, Rows, SourceId, Tokens};
use crate::source::{Limits, Position, ReadBatch, Source, SourceSpec};
use crate::time::{BEGINNING, Micros, Watermark, least, minus};

/// How a run reads.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Records a worker takes in one tick.
    pub rows_per_tick_max: usize,
    /// Payload bytes a worker takes in one tick.
    pub bytes_per_tick_max: usize,
    /// Partitions may become idle (never in bounded runs).
    pub idle: bool,
    /// How far ahead of the slowest active partition one may be read.
    pub drift_max_us: i64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { rows_per_tick_max: 1 << 16, bytes_per_tick_max: 32 << 20, idle: true, drift_max_us: 3_600_000_000 }
    }
}

/// What one tick read of one partition: enough to read it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRange {
    /// The source.
    pub source: SourceId,
    /// The partition.
    pub partition: i32,
    /// First offset asked for.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
    /// The floor sealed when the partition became active in this tick.
    pub floor: Option<Micros>,
}

/// One worker's partitions of one source.
pub struct Reader {
    source: SourceId,
    spec: SourceSpec,
    input: Box<dyn Source>,
    positions: Vec<Position>,
    ends: Vec<Option<i64>>,
    at_end_since: Vec<Option<Micros>>,
}

/// What a tick took from one source.
#[derive(Default)]
pub struct Taken {
    /// Rows, by partition.
    pub rows: Vec<Rows>,
    /// What was read.
    pub ranges: Vec<ReadRange>,
    /// Some partition became idle or active: the tick must be told.
    pub turned: bool,
}

impl Reader {
    /// Opens the source at `positions`; `ends` are the end offsets of a bounded run.
    pub fn open(source: SourceId, spec: &SourceSpec, mut positions: Vec<Position>, ends: Option<&dyn Fn(i32) -> i64>) -> Result<Self> {
        positions.sort_by_key(|position| position.partition);
        let mut input = (spec.open)()?;
        input.assign(&positions.iter().map(|position| (position.partition, position.next)).collect::<Vec<_>>())?;
        let ends = positions.iter().map(|position| ends.map(|end| end(position.partition))).collect();
        let at_end_since = vec![None; positions.len()];
        Ok(Self { source, spec: spec.clone(), input, positions, ends, at_end_since })
    }

    /// Where its partitions stand.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// Tells the log what has been committed.
    pub fn committed(&mut self) {
        let positions: Vec<_> = self.positions.iter().map(|position| (position.partition, position.next)).collect();
        self.input.committed(&positions);
    }

    /// Does a partition need everybody's word on the tick before, to wake or to become idle?
    pub fn needs_word(&self) -> bool {
        self.positions
            .iter()
            .zip(&self.at_end_since)
            .any(|(position, at_end)| position.idle || (at_end.is_some() && position.watermark.is_some()))
    }

    /// Every partition has reached its end offset (never so without end offsets).
    pub fn drained(&self) -> bool {
        self.positions.iter().zip(&self.ends).all(|(position, end)| end.is_some_and(|end| position.next >= end))
    }

    /// The least watermark of its active partitions; `None` when all are idle. A partition without rows holds at the beginning.
    pub fn watermark(&self) -> Watermark {
        let active = self.positions.iter().filter(|position| !position.idle);
        active.map(|position| Some(position.effective().unwrap_or(BEGINNING))).fold(None, least)
    }

    /// Takes what is ready. `sealed` is the minimum after the tick before, if that tick is sealed.
    pub fn take(&mut self, options: &ReadOptions, now: Micros, sealed: Option<Watermark>, out: &mut Output) -> Result<Taken> {
        let mut taken = Taken::default();
        let slowest = self.slowest();
        let share = self.positions.iter().filter(|position| !position.idle).count().max(1);
        for index in 0..self.positions.len() {
            let (position, end) = (self.positions[index].clone(), self.ends[index]);
            if end.is_some_and(|end| position.next >= end)
                || (position.idle && sealed.is_none())
                || self.too_far_ahead(&position, slowest, options)
            {
                continue;
            }
            let limits = Limits {
                rows_max: (options.rows_per_tick_max / share).max(1),
                bytes_max: (options.bytes_per_tick_max / share).max(1),
                end: end.unwrap_or(i64::MAX),
            };
            let polled = self.input.poll(position.partition, limits)?;
            match polled.read {
                Some(read) => {
                    self.at_end_since[index] = None;
                    let floor = if position.idle { sealed.flatten() } else { None };
                    self.positions[index].idle = false;
                    self.positions[index].floor = position.floor.max(floor);
                    taken.turned |= position.idle;
                    taken.ranges.push(ReadRange {
                        source: self.source,
                        partition: position.partition,
                        from: position.next,
                        to: read.next,
                        floor,
                    });
                    taken.rows.extend(self.accept(index, read, out)?);
                }
                None if polled.at_end => {
                    let since = *self.at_end_since[index].get_or_insert(now);
                    if options.idle
                        && !position.idle
                        && may_be_idle(&position, sealed)
                        && now.saturating_sub(since) >= self.spec.idle_after_us
                    {
                        tracing::debug!(source = %self.spec.name, partition = position.partition, "idle");
                        self.positions[index].idle = true;
                        taken.turned = true;
                    }
                }
                // Neither records nor evidence of the end: a broker that does not answer makes nobody idle.
                None => self.at_end_since[index] = None,
            }
        }
        Ok(taken)
    }

    fn slowest(&self) -> Option<Micros> {
        let reading = self.positions.iter().zip(&self.ends).zip(&self.at_end_since);
        let behind =
            reading.filter(|((position, end), at_end)| !position.idle && at_end.is_none() && end.is_none_or(|end| position.next < end));
        behind.map(|((position, _), _)| position.effective().unwrap_or(BEGINNING)).min()
    }

    fn too_far_ahead(&self, position: &Position, slowest: Option<Micros>, options: &ReadOptions) -> bool {
        match (slowest, position.effective()) {
            (Some(slowest), Some(own)) => own.saturating_sub(slowest) > options.drift_max_us,
            _ => false,
        }
    }

    /// Judges a batch row by row: the watermark each row meets, and the rows that claim to come from the future.
    fn accept(&mut self, index: usize, read: ReadBatch, out: &mut Output) -> Result<Option<Rows>> {
        let position = &mut self.positions[index];
        let counts = out.counts.of(self.source);
        counts.rows_in += read.records as i64;
        counts.dead += read.dead.len() as i64;
        let letters = self.spec.letters;
        if letters {
            out.dead.extend(read.dead.into_iter().map(|letter| DeadLetter { source: self.source, ..letter }));
        }
        position.next = read.next;
        position.rows += read.records;
        let rows = read.batch.num_rows();
        if read.offsets.len() != rows {
            return Err(Error::failed(format!("source {}: {} offsets for {rows} rows", self.spec.name, read.offsets.len())));
        }
        if rows == 0 {
            return Ok(None);
        }
        let mut watermarks = vec![position.effective().unwrap_or(BEGINNING); rows];
        let mut ahead: Vec<usize> = Vec::new();
        if let Some(time) = self.spec.time {
            let column = read.batch.column(time.column);
            let times = column.as_primitive_opt::<TimestampMicrosecondType>();
            let times =
                times.ok_or_else(|| Error::failed(format!("source {}: the time column is {}", self.spec.name, column.data_type())))?;
            let (mut own, floor) = (position.watermark.unwrap_or(BEGINNING), position.floor.unwrap_or(BEGINNING));
            for (row, met) in watermarks.iter_mut().enumerate() {
                *met = own.max(floor);
                if times.is_null(row) {
                    continue;
                }
                let at = times.value(row);
                let stamped = read.timestamps_ms.get(row).copied().filter(|stamp| *stamp >= 0);
                match (self.spec.future_max_us, stamped) {
                    (Some(limit), Some(stamp)) if at.saturating_sub(stamp.saturating_mul(1000)) > limit => ahead.push(row),
                    _ => own = own.max(minus(at, time.delay_us)),
                }
            }
            position.watermark = (own != BEGINNING).then_some(own);
        }
        let partition = position.partition;
        let origin = Origin { source: self.source, partition, offsets: read.offsets.into(), watermarks: watermarks.into(), raw: read.raw };
        let rows = Rows { batch: read.batch, weights: None, hashes: None, origin: Some(origin), tokens: Tokens::Each(self.source) };
        if ahead.is_empty() {
            return Ok(Some(rows));
        }
        counts.dead += ahead.len() as i64;
        let limit = self.spec.future_max_us.unwrap_or_default();
        for row in ahead.iter().filter(|_| letters) {
            out.dead.push(from_the_future(&rows, *row, limit)?);
        }
        let mut mask = vec![true; rows.len()];
        ahead.iter().for_each(|row| mask[*row] = false);
        let kept = rows.filter(&BooleanArray::from(mask))?;
        Ok((!kept.is_empty()).then_some(kept))
    }
}

/// Partitions without rows become idle before those with: were they all idle at once, the watermark would stand before every window.
fn may_be_idle(position: &Position, sealed: Option<Watermark>) -> bool {
    position.effective().is_none() || sealed.flatten().is_some_and(|sealed| sealed != BEGINNING)
}

fn from_the_future(rows: &Rows, row: usize, limit_us: i64) -> Result<DeadLetter> {
    let detail = format!("event time is more than max_future ({} s) after the record's timestamp", limit_us / 1_000_000);
    dead_letter(rows, row, "future", detail)
}

/// The dead letter of a source row, with its raw bytes.
pub fn dead_letter(rows: &Rows, row: usize, reason: &str, detail: String) -> Result<DeadLetter> {
    let origin = rows.origin.as_ref().ok_or_else(|| Error::failed("a derived row can't be a dead letter"))?;
    let offset = origin.offsets.get(row).copied().unwrap_or_default();
    let raw = origin.raw.record(offset);
    Ok(DeadLetter {
        source: origin.source,
        partition: origin.partition,
        offset,
        timestamp_ms: raw.and_then(|raw| raw.timestamp_ms),
        reason: reason.to_owned(),
        detail,
        key: raw.and_then(|raw| raw.key).map(<[u8]>::to_vec),
        payload: raw.and_then(|raw| raw.payload).map(<[u8]>::to_vec),
    })
}
