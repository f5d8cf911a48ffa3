//! `Latest`: the rows of a changelog (upserts and deletions by key) as a table that is revised.
//!
//! Always: of the changes of one key in one partition the one of the greater offset counts, as in a compacted topic. A key that several
//! partitions change has the row of the change with the greatest (event time, partition, offset) among the last of each partition; so the
//! table is a function of the log, whatever came first. A deleted key leaves a mark without its row, or an older change in another
//! partition could bring it back. Changes go out each epoch: the old row with weight -1, the new one with +1.
//!
//! A record is settled once: `filtered` when another replaces it before its epoch ends, or when it deletes what is not there; `out` when it
//! deletes a row that was published; else it goes on with its row. Rows come judged; nothing is late here. The planner puts this behind an
//! exchange by key, with `LiveMap` before it.

mod live_map;
mod state;

#[cfg(test)]
mod model_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, SourceId, Tokens};
use tidemill_engine::state::{Changes, TableSpec};
use tidemill_engine::time::{BEGINNING, Micros, Watermark};

use crate::groups::Groups;
use crate::keys::KeyCodec;
use crate::tokens::release;

pub use live_map::LiveMap;

/// What `Latest` reads: the result's columns, then the key, the mark of a deletion, and the event time if there is one.
#[derive(Debug, Clone)]
pub struct ChangePlan {
    /// Leading columns that make the result's rows.
    pub width: usize,
    /// Key columns behind them.
    pub keys: usize,
    /// The event time stands last, behind the mark.
    pub timed: bool,
    /// All columns.
    pub input: SchemaRef,
    /// The source whose records these are.
    pub source: SourceId,
}

/// The last change of a key in one partition.
#[derive(Debug, Clone)]
struct Change {
    partition: i32,
    offset: i64,
    time: Micros,
    /// In Arrow's row format; `None`: deleted.
    row: Option<Row>,
    /// Tokens that no epoch has settled yet.
    waits: i64,
}

impl Change {
    fn rank(&self) -> (Micros, i32, i64) {
        (self.time, self.partition, self.offset)
    }
}

/// A row in Arrow's row format.
type Row = Arc<[u8]>;

/// See the module doc.
pub struct Latest {
    plan: ChangePlan,
    codec: Arc<KeyCodec>,
    rows: RowConverter,
    groups: Groups,
    /// One list a group, an entry a partition.
    changes: Vec<Vec<Change>>,
    /// Groups changed in this epoch, with the row that is published of each.
    touched: BTreeMap<u32, Option<Row>>,
    /// Groups whose state is to be written.
    written: BTreeSet<u32>,
    output: SchemaRef,
    row_bytes: usize,
}

impl Latest {
    /// The latest rows of a changelog.
    pub fn new(plan: ChangePlan) -> Result<Self> {
        let fields: Vec<FieldRef> = plan.input.fields().iter().cloned().collect();
        let (values, rest) = fields.split_at_checked(plan.width).ok_or_else(wrong)?;
        let (keys, own) = rest.split_at_checked(plan.keys).ok_or_else(wrong)?;
        if own.len() != 1 + usize::from(plan.timed) || keys.is_empty() {
            return Err(wrong());
        }
        let codec = Arc::new(KeyCodec::new(keys.to_vec())?);
        Ok(Self {
            groups: Groups::new(Arc::clone(&codec)),
            codec,
            rows: RowConverter::new(values.iter().map(|field| SortField::new(field.data_type().clone())).collect())?,
            output: Arc::new(arrow::datatypes::Schema::new(values.to_vec())),
            changes: Vec::new(),
            touched: BTreeMap::new(),
            written: BTreeSet::new(),
            row_bytes: 0,
            plan,
        })
    }

    fn take(&mut self, rows: &Rows, out: &mut Output) -> Result<()> {
        let origin = rows.origin.as_ref().ok_or_else(|| Error::failed("a change without its place in the log"))?;
        let columns = rows.batch.columns();
        let (values, rest) = columns.split_at_checked(self.plan.width).ok_or_else(wrong)?;
        let (keys, own) = rest.split_at_checked(self.plan.keys).ok_or_else(wrong)?;
        let deleted = own.first().and_then(|column| column.as_boolean_opt()).ok_or_else(wrong)?;
        let times = match own.get(1).filter(|_| self.plan.timed) {
            Some(column) => Some(column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?),
            None => None,
        };
        let computed;
        let hashes = match rows.hashes.as_deref() {
            Some(hashes) => hashes,
            None => {
                computed = hash_columns(keys, rows.len())?;
                &computed
            }
        };
        let mut slots = Vec::new();
        self.groups.insert(&self.codec.encode(keys)?, hashes, None, &mut slots);
        let contents = (self.plan.width > 0).then(|| self.rows.convert_columns(values)).transpose()?;
        for (row, (slot, offset)) in slots.iter().zip(origin.offsets.iter()).enumerate() {
            let content = || contents.as_ref().map_or_else(|| Arc::from(&[][..]), |contents| Arc::from(contents.row(row).data()));
            let change = Change {
                partition: origin.partition,
                offset: *offset,
                time: times.filter(|times| times.is_valid(row)).map_or(BEGINNING, |times| times.value(row)),
                row: (!deleted.value(row)).then(content),
                waits: rows.tokens.of(self.plan.source, row),
            };
            out.counts.hold(self.plan.source, change.waits);
            self.change(*slot, change, out);
        }
        Ok(())
    }

    fn change(&mut self, slot: u32, change: Change, out: &mut Output) {
        self.changes.resize_with(self.changes.len().max(slot as usize + 1), Vec::new);
        let Some(all) = self.changes.get_mut(slot as usize) else { return };
        self.touched.entry(slot).or_insert_with(|| newest(all).and_then(|change| change.row.clone()));
        self.row_bytes += size(&change);
        match all.iter_mut().find(|each| each.partition == change.partition) {
            Some(before) => {
                let replaced = std::mem::replace(before, change);
                self.row_bytes -= size(&replaced);
                release(&mut out.counts, Fate::Filtered, self.plan.source, replaced.waits);
            }
            None => all.push(change),
        }
    }

    /// Publishes what the epoch changed.
    fn publish(&mut self, out: &mut Output) -> Result<()> {
        let source = self.plan.source;
        let (mut old, mut new, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, published) in &self.touched {
            let Some(all) = self.changes.get_mut(*slot as usize) else { continue };
            let best = newest(all).map(Change::rank);
            for change in all {
                let waits = std::mem::take(&mut change.waits);
                if Some(change.rank()) != best {
                    release(&mut out.counts, Fate::Filtered, source, waits);
                    continue;
                }
                match (&change.row, published) {
                    // The same row again: nobody needs to know, but a record that waits must go out with a row.
                    (Some(row), Some(before)) if waits == 0 && row == before => {}
                    (Some(row), before) => {
                        old.extend(before.clone());
                        new.push(Arc::clone(row));
                        tokens.push(waits);
                    }
                    (None, Some(before)) => {
                        old.push(Arc::clone(before));
                        release(&mut out.counts, Fate::Out, source, waits);
                    }
                    (None, None) => release(&mut out.counts, Fate::Filtered, source, waits),
                }
            }
        }
        self.emit(&old, -1, Tokens::none(), out)?;
        let tokens = crate::tokens::hand_on(&mut out.counts, &[source], vec![tokens]);
        self.emit(&new, 1, tokens, out)
    }

    fn emit(&self, rows: &[Row], weight: i64, tokens: Tokens, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = self.decode(rows.iter().map(AsRef::as_ref))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?;
        out.emit(Rows::derived(batch, (weight != 1).then(|| vec![weight; rows.len()].into()), tokens));
        Ok(())
    }

    fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        if self.plan.width == 0 {
            return Ok(Vec::new());
        }
        let parser = self.rows.parser();
        Ok(self.rows.convert_rows(rows.map(|row| parser.parse(row)))?)
    }
}

fn newest(all: &[Change]) -> Option<&Change> {
    all.iter().max_by_key(|change| change.rank())
}

fn size(change: &Change) -> usize {
    std::mem::size_of::<Change>() + change.row.as_ref().map_or(0, |row| row.len() + 16)
}

fn wrong() -> Error {
    Error::failed("a changelog does not have the columns that it was planned with")
}

impl Operator for Latest {
    fn name(&self) -> &'static str {
        "latest"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { self.take(&rows, out) }
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        Ok(())
    }

    fn on_cut(&mut self, out: &mut Output) -> Result<()> {
        self.publish(out)?;
        self.published();
        Ok(())
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![self.table()]
    }

    fn changes(&mut self, _table: usize, full: bool) -> Result<Changes> {
        self.changes_since(full)
    }

    fn load(&mut self, _table: usize, rows: &RecordBatch) -> Result<()> {
        self.restore(rows)
    }

    fn state_bytes(&self) -> usize {
        self.groups.bytes() + self.row_bytes + self.changes.capacity() * std::mem::size_of::<Vec<Change>>()
    }
}
