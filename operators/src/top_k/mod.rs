//! `TopK`: `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= k`, and with k = 1 deduplication.
//!
//! Always: ties are broken by identity: (source, partition, offset) of source rows, the key columns of derived rows. In windows a
//! partition's list goes out when the watermark passes its end and is revised at the end of a tick; without, changes go out each
//! epoch. Over an input that only appends k rows a partition are kept, over one that retracts all of them. Rows come judged (by
//! `WindowAssign`, or because they are results), so nothing is late here.

mod partition;
mod state;

#[cfg(test)]
mod model_tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows as RowBytes, SortField};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, SourceId, Tokens};
use tidemill_engine::state::{Changes, Scalars, TableSpec};
use tidemill_engine::time::{BEGINNING, Micros, Watermark};

use crate::groups::Groups;
use crate::identity::names;
use crate::keys::KeyCodec;
use crate::tokens::{hand_on, release};
use crate::window_aggregate::Emit;
use partition::{Diff, Key, Partition};

/// What a top-k computes. Columns are indexes into the input.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// PARTITION BY.
    pub partition: Vec<usize>,
    /// ORDER BY.
    pub order: Vec<(usize, SortOptions)>,
    /// Rows a partition, at most 10,000.
    pub k: usize,
    /// What names a derived row; not used for source rows.
    pub identity: Vec<usize>,
    /// Append the rank as a last BIGINT column.
    pub row_number: bool,
    /// The column of the window's end, if the partition is within a window.
    pub window_end: Option<usize>,
    /// How long after a window's end its state stays: lateness, and more for inputs that revise.
    pub retention_us: Micros,
    /// The input has rows of weight -1.
    pub retracts: bool,
    /// The columns of the input.
    pub input: SchemaRef,
    /// The columns of the results.
    pub output: SchemaRef,
    /// The sources whose tokens may arrive.
    pub sources: Vec<SourceId>,
    /// When results go out; `Final` needs a window.
    pub emit: Emit,
}

/// The greatest k.
pub const K_MAX: usize = 10_000;

/// See the module doc.
pub struct TopK {
    plan: Ranking,
    codec: Arc<KeyCodec>,
    /// ORDER BY, identity.
    sort: RowConverter,
    /// Partition, identity: the key of the state table.
    id: RowConverter,
    /// All input columns.
    row: RowConverter,
    groups: Groups,
    /// One a group.
    partitions: Vec<Partition>,
    touched: Vec<u32>,
    /// (window end, group) of all partitions in windows.
    ends: BTreeSet<(Micros, u32)>,
    /// Tokens of rows retracted in this tick, by group and identity.
    orphans: HashMap<(u32, Box<[u8]>), Vec<i64>>,
    /// State rows to write (`Some`) or delete, by hash and table key.
    changed: BTreeMap<RowName, Option<Kept>>,
    closed: Micros,
    published_to: Micros,
    expired_below: Option<Micros>,
    restored: bool,
}

/// Key hash and table key of a state row.
type RowName = (u64, Box<[u8]>);
/// A kept row and its group.
type Kept = (u32, Arc<Key>);
/// The columns that name source rows: source, partition, offset.
type Names = [ArrayRef; 3];

fn no_column(index: usize) -> Error {
    Error::failed(format!("a ranking was planned over column {index}, which its input does not have"))
}

impl TopK {
    /// A top-k of this plan.
    pub fn new(plan: Ranking) -> Result<Self> {
        if plan.k == 0 || plan.k > K_MAX {
            return Err(Error::refused(format!("ROW_NUMBER() <= {}: from 1 to {K_MAX} rows a partition can be kept", plan.k)));
        }
        if plan.window_end.is_none() && plan.emit == Emit::Final {
            return Err(Error::failed("a ranking without windows never becomes final"));
        }
        let field = |index: &usize| -> Result<FieldRef> { plan.input.fields().get(*index).cloned().ok_or_else(|| no_column(*index)) };
        let plain = |field: FieldRef| SortField::new(field.data_type().clone());
        let names = || (0..3).map(|_| SortField::new(DataType::Int64));
        let identity: Vec<SortField> = plan.identity.iter().map(|index| field(index).map(plain)).collect::<Result<_>>()?;
        let partition: Vec<FieldRef> = plan.partition.iter().map(field).collect::<Result<_>>()?;
        let mut sort = Vec::new();
        for (index, options) in &plan.order {
            sort.push(SortField::new_with_options(field(index)?.data_type().clone(), *options));
        }
        sort.extend(names().chain(identity.iter().cloned()));
        let id = partition.iter().cloned().map(plain).chain(names()).chain(identity).collect();
        let row = plan.input.fields().iter().cloned().map(plain).collect();
        let codec = Arc::new(KeyCodec::new(partition)?);
        Ok(Self {
            groups: Groups::new(Arc::clone(&codec)),
            codec,
            sort: RowConverter::new(sort)?,
            id: RowConverter::new(id)?,
            row: RowConverter::new(row)?,
            plan,
            partitions: Vec::new(),
            touched: Vec::new(),
            ends: BTreeSet::new(),
            orphans: HashMap::new(),
            changed: BTreeMap::new(),
            closed: BEGINNING,
            published_to: BEGINNING,
            expired_below: None,
            restored: false,
        })
    }

    fn columns(&self, columns: &[ArrayRef], which: &[usize]) -> Result<Vec<ArrayRef>> {
        which.iter().map(|index| columns.get(*index).cloned().ok_or_else(|| no_column(*index))).collect()
    }

    fn sort_keys(&self, columns: &[ArrayRef], names: &Names) -> Result<RowBytes> {
        let order: Vec<usize> = self.plan.order.iter().map(|(index, _)| *index).collect();
        let parts = [self.columns(columns, &order)?, names.to_vec(), self.columns(columns, &self.plan.identity)?];
        Ok(self.sort.convert_columns(&parts.concat())?)
    }

    fn ids(&self, columns: &[ArrayRef], names: &Names) -> Result<RowBytes> {
        let parts = [self.columns(columns, &self.plan.partition)?, names.to_vec(), self.columns(columns, &self.plan.identity)?];
        Ok(self.id.convert_columns(&parts.concat())?)
    }

    /// Finds the groups of rows; new ones get the window end of their first row.
    fn enter(&mut self, columns: &[ArrayRef], hashes: Option<&[u64]>, rows: usize) -> Result<Vec<u32>> {
        let keys = self.columns(columns, &self.plan.partition)?;
        let computed;
        let hashes = match hashes {
            Some(hashes) => hashes,
            None => {
                computed = hash_columns(&keys, rows)?;
                &computed
            }
        };
        let mut slots = Vec::new();
        self.groups.insert(&self.codec.encode(&keys)?, hashes, None, &mut slots);
        self.partitions.resize_with(self.groups.len().max(self.partitions.len()), Partition::default);
        if let Some(index) = self.plan.window_end {
            let column = columns.get(index).ok_or_else(|| no_column(index))?;
            let ends =
                column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| Error::failed("a window's end is no timestamp"))?;
            for (row, slot) in slots.iter().enumerate() {
                let partition = &mut self.partitions[*slot as usize];
                if partition.entries.is_empty() && !partition.touched {
                    partition.end = ends.value(row);
                    self.ends.insert((partition.end, *slot));
                }
            }
        }
        Ok(slots)
    }

    fn published(&self, partition: &Partition) -> bool {
        self.plan.window_end.is_none() || self.plan.emit == Emit::Changes || partition.end <= self.closed.max(self.published_to)
    }

    fn take_rows(&mut self, rows: &Rows, out: &mut Output) -> Result<()> {
        for source in &self.plan.sources {
            out.counts.hold(*source, (0..rows.len()).map(|row| rows.tokens.of(*source, row)).sum());
        }
        let columns = rows.batch.columns().to_vec();
        let slots = self.enter(&columns, rows.hashes.as_deref(), rows.len())?;
        let names = names(rows);
        let sort = self.sort_keys(&columns, &names)?;
        let mut kept: Vec<u32> = Vec::with_capacity(rows.len());
        for (row, slot) in (0..).zip(&slots) {
            if self.beaten(*slot, sort.row(row as usize).data()) {
                for source in &self.plan.sources {
                    release(&mut out.counts, Fate::Filtered, *source, rows.tokens.of(*source, row as usize));
                }
            } else {
                kept.push(row);
            }
        }
        let at = UInt32Array::from(kept.clone());
        let pick =
            |columns: &[ArrayRef]| columns.iter().map(|column| Ok(arrow::compute::take(column, &at, None)?)).collect::<Result<Vec<_>>>();
        let (columns, names) = (pick(&columns)?, pick(&names)?);
        let names: Names = names.try_into().map_err(|_| Error::failed("three columns name a row"))?;
        let (ids, contents) = (self.ids(&columns, &names)?, self.row.convert_columns(&columns)?);
        for (place, row) in kept.iter().enumerate() {
            let row = *row as usize;
            let slot = slots[row];
            let key = Key { sort: sort.row(row).data().into(), row: contents.row(place).data().into(), id: ids.row(place).data().into() };
            let tokens = self.plan.sources.iter().map(|source| rows.tokens.of(*source, row)).collect();
            self.change(slot, Arc::new(key), rows.weight(row), tokens, out);
        }
        Ok(())
    }

    /// Over an input that only appends, a row behind the k-th never counts.
    fn beaten(&self, slot: u32, sort: &[u8]) -> bool {
        let partition = &self.partitions[slot as usize];
        !self.plan.retracts
            && partition.rows >= self.plan.k as i64
            && partition.entries.last_key_value().is_some_and(|(last, _)| *last.sort < *sort)
    }

    /// A row comes (`weight` > 0) or goes.
    fn change(&mut self, slot: u32, key: Arc<Key>, weight: i64, mut tokens: Vec<i64>, out: &mut Output) {
        let hash = self.groups.hash(slot);
        let partition = &mut self.partitions[slot as usize];
        if !partition.touched {
            partition.touched = true;
            self.touched.push(slot);
        }
        partition.rows += weight;
        if weight > 0
            && self.plan.retracts
            && let Some(orphans) = self.orphans.remove(&(slot, key.id.clone()))
        {
            tokens.iter_mut().zip(orphans).for_each(|(tokens, more)| *tokens += more);
        }
        let entry = partition.entries.entry(Arc::clone(&key)).or_default();
        entry.count += weight;
        entry.tokens.resize(tokens.len(), 0);
        entry.tokens.iter_mut().zip(tokens).for_each(|(tokens, more)| *tokens += more);
        if entry.count == 0 {
            let tokens = std::mem::take(&mut entry.tokens);
            partition.entries.remove(&key);
            let orphans = self.orphans.entry((slot, key.id.clone())).or_insert_with(|| vec![0; tokens.len()]);
            orphans.iter_mut().zip(tokens).for_each(|(orphans, tokens)| *orphans += tokens);
            self.changed.insert((hash, key.id.clone()), None);
        } else {
            self.changed.insert((hash, key.id.clone()), Some((slot, key)));
        }
        self.evict(slot, out);
    }

    /// Over an input that only appends, drops the rows behind the k-th.
    fn evict(&mut self, slot: u32, out: &mut Output) {
        if self.plan.retracts {
            return;
        }
        let hash = self.groups.hash(slot);
        let partition = &mut self.partitions[slot as usize];
        while let Some(last) = partition.entries.last_entry() {
            if partition.rows - last.get().count < self.plan.k as i64 {
                break;
            }
            let (key, entry) = last.remove_entry();
            partition.rows -= entry.count;
            for (source, tokens) in self.plan.sources.iter().zip(&entry.tokens) {
                release(&mut out.counts, Fate::Filtered, *source, *tokens);
            }
            self.changed.insert((hash, key.id.clone()), None);
        }
    }

    /// Publishes the lists of `slots`.
    fn publish(&mut self, slots: &[u32], out: &mut Output) -> Result<()> {
        let (mut diff, mut tokens) = (Diff::default(), vec![Vec::new(); self.plan.sources.len()]);
        for slot in slots {
            let hash = self.groups.hash(*slot);
            let partition = &mut self.partitions[*slot as usize];
            let from = diff.new.len();
            partition.publish(self.plan.k, self.plan.row_number, &mut diff);
            for (key, _) in diff.new.iter().skip(from) {
                let mut entry = partition.entries.get_mut(key);
                if entry.as_ref().is_some_and(|entry| entry.waits()) {
                    self.changed.insert((hash, key.id.clone()), Some((*slot, Arc::clone(key))));
                }
                for (place, column) in tokens.iter_mut().enumerate() {
                    let waiting = entry.as_mut().and_then(|entry| entry.tokens.get_mut(place));
                    column.push(waiting.map_or(0, std::mem::take));
                }
            }
            self.remove_if_empty(*slot);
        }
        self.emit(&diff.old, -1, Tokens::none(), out)?;
        let tokens = hand_on(&mut out.counts, &self.plan.sources, tokens);
        self.emit(&diff.new, 1, tokens, out)
    }

    fn remove_if_empty(&mut self, slot: u32) {
        let partition = &mut self.partitions[slot as usize];
        if partition.entries.is_empty() && self.plan.window_end.is_none() {
            *partition = Partition::default();
            self.groups.remove(slot);
        }
    }

    fn emit(&self, rows: &[(Arc<Key>, i64)], weight: i64, tokens: Tokens, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let parser = self.row.parser();
        let mut columns = self.row.convert_rows(rows.iter().map(|(key, _)| parser.parse(&key.row)))?;
        if self.plan.row_number {
            columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, rank)| *rank))));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.plan.output), columns)?;
        let weights = if weight == 1 { None } else { Some(vec![weight; rows.len()].into()) };
        out.emit(Rows::derived(batch, weights, tokens));
        Ok(())
    }

    /// The changed partitions that count as published.
    fn take_touched(&mut self) -> Vec<u32> {
        let (now, later) = std::mem::take(&mut self.touched).into_iter().partition(|slot| self.published(&self.partitions[*slot as usize]));
        self.touched = later;
        now
    }

    /// Publishes the partitions whose windows end after what was published and at or before `end`, and all published ones that changed.
    fn close(&mut self, end: Micros, out: &mut Output) -> Result<()> {
        let before = self.closed.max(self.published_to);
        let mut slots = self.take_touched();
        if self.plan.emit == Emit::Final && end > before {
            slots.extend(self.ends.range((before.saturating_add(1), 0)..=(end, u32::MAX)).map(|(_, slot)| *slot));
        }
        self.publish(&slots, out)?;
        self.touched.retain(|slot| self.partitions[*slot as usize].touched);
        Ok(())
    }

    fn drop_expired(&mut self, watermark: Micros, out: &mut Output) {
        self.expired_below = self.expired_below.max(Some(watermark));
        while let Some((end, slot)) = self.ends.first().copied().filter(|(end, _)| end.saturating_add(self.plan.retention_us) <= watermark)
        {
            self.ends.remove(&(end, slot));
            let partition = std::mem::take(&mut self.partitions[slot as usize]);
            for entry in partition.entries.values() {
                for (source, tokens) in self.plan.sources.iter().zip(&entry.tokens) {
                    release(&mut out.counts, Fate::Filtered, *source, *tokens);
                }
            }
            let hash = self.groups.hash(slot);
            partition.entries.into_keys().for_each(|key| drop(self.changed.remove(&(hash, key.id.clone()))));
            self.groups.remove(slot);
        }
    }

    /// Retracted rows that nothing replaced.
    fn settle_orphans(&mut self, out: &mut Output) {
        for tokens in std::mem::take(&mut self.orphans).into_values() {
            for (source, tokens) in self.plan.sources.iter().zip(tokens) {
                release(&mut out.counts, Fate::Filtered, *source, tokens);
            }
        }
    }
}

impl Operator for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        if rows.is_empty() { Ok(()) } else { self.take_rows(&rows, out) }
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        self.settle_orphans(out);
        out.watermark = watermark;
        if self.plan.window_end.is_none() {
            return Ok(());
        }
        let now = watermark.unwrap_or(BEGINNING);
        let drops = self.ends.first().is_some_and(|(end, _)| end.saturating_add(self.plan.retention_us) <= now);
        if self.plan.emit == Emit::Final || drops {
            self.close(now, out)?;
        }
        if watermark.is_some() {
            self.closed = self.closed.max(now);
            self.drop_expired(now, out);
        }
        Ok(())
    }

    fn on_cut(&mut self, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        if self.plan.emit == Emit::Final {
            return Ok(());
        }
        let slots = self.take_touched();
        self.publish(&slots, out)
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.on_cut(out)?;
        if let (Emit::Final, Some((end, _))) = (self.plan.emit, self.ends.last().copied()) {
            self.close(end, out)?;
            self.published_to = self.published_to.max(end);
        }
        Ok(())
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![self.table()]
    }

    fn changes(&mut self, _table: usize, full: bool) -> Result<Changes> {
        self.look_at_restored();
        self.changes_since(full)
    }

    fn load(&mut self, _table: usize, rows: &RecordBatch) -> Result<()> {
        self.restore(rows)
    }

    fn scalars(&self) -> Scalars {
        Scalars::from([(state::CLOSED.to_owned(), self.closed), (state::PUBLISHED_TO.to_owned(), self.published_to)])
    }

    fn load_scalars(&mut self, scalars: &Scalars) {
        self.closed = self.closed.max(scalars.get(state::CLOSED).copied().unwrap_or(BEGINNING));
        self.published_to = self.published_to.max(scalars.get(state::PUBLISHED_TO).copied().unwrap_or(BEGINNING));
    }

    fn state_bytes(&self) -> usize {
        let row = self.plan.input.fields().len() * 12 + 160;
        self.groups.bytes() + self.partitions.iter().map(|partition| partition.entries.len() * row + 128).sum::<usize>()
    }
}
