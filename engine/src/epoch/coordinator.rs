//! The coordinator: takes every worker's part of a cut and makes an epoch of them.
//!
//! Always, in this order: one segment with everything the manifest names, durable; then the manifest, put-if-absent: that write is
//! the commit; then a listing that shows nothing above it; only then `committed`. After that, and only then, tables are published,
//! and the next manifest names the version that exists. Changes of a failed epoch are not lost: a part leaves this module only in a
//! committed manifest, otherwise the run ends and restarts from the epoch before. Called by `run` and by the simulation.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::account::{Counts, NodeCounts};
use crate::epoch::delivery::Delivery;
use crate::epoch::manifest::{HotFile, Manifest, Section, StateEntry, StateFile, TableEntry};
use crate::epoch::segment::Segment;
use crate::epoch::store::Store;
use crate::epoch::system;
use crate::error::{Error, Result};
use crate::graph::{Dataflow, Layout};
use crate::letter::{SourceNames, dead_letter_batch, late_event_batch};
use crate::rows::Rows;
use crate::state::Changes;
use crate::time::{BEGINNING, Watermark};
use crate::worker::{ControlKind, Part, Shared};

/// The name of the weight column of hot files.
pub const WEIGHT_COLUMN: &str = "_weight";

/// Brings the cold tier of a table up to an epoch. Implemented by the Delta connector; idempotent.
pub trait Publisher: Send {
    /// Makes `changes` (epoch, rows with `_weight` last; all after `table.covered`) part of the table. Does nothing twice.
    fn publish(&mut self, table: &TableEntry, to: u64, changes: &[(u64, RecordBatch)]) -> Result<Published>;
}

/// What a publish left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The version readers shall use.
    pub version: u64,
    /// The version of the change log.
    pub log_version: Option<u64>,
}

/// How epochs are kept.
#[derive(Debug, Clone, Copy)]
pub struct EpochOptions {
    /// Tables are published at least this often while rows change.
    pub publish_ms: i64,
    /// ... and when this many bytes of changes wait.
    pub publish_bytes: usize,
    /// Manifests, and what they name, live at least this long for readers.
    pub read_retention_ms: i64,
    /// A worker writes its whole state when its deltas are larger than this many times the last whole one (and than 1 MiB).
    pub compact_ratio: u64,
}

impl Default for EpochOptions {
    fn default() -> Self {
        Self { publish_ms: 30_000, publish_bytes: 128 << 20, read_retention_ms: 600_000, compact_ratio: 4 }
    }
}

/// See the module doc.
pub struct Coordinator {
    flow: Arc<Dataflow>,
    layout: Arc<Layout>,
    store: Arc<dyn Store>,
    publisher: Option<Box<dyn Publisher>>,
    delivery: Option<Delivery>,
    options: EpochOptions,
    shared: Arc<Shared>,
    names: Vec<SourceNames>,
    manifest: Manifest,
    workers: usize,
    waiting: Vec<Part>,
    /// Changes not yet in the cold tier, by table.
    unpublished: Vec<Vec<(u64, RecordBatch)>>,
    published_at_ms: i64,
    retained: VecDeque<(u64, i64, BTreeSet<String>)>,
    whole_bytes: u64,
    delta_bytes: u64,
    /// The last tick of the last epoch.
    tick: u64,
}

/// The path of an epoch's manifest.
pub fn manifest_path(epoch: u64) -> String {
    format!("epochs/0/{epoch:020}.json")
}

impl Coordinator {
    /// Goes on from `manifest`, the newest one; writes the empty epoch that makes this incarnation the owner.
    #[allow(clippy::too_many_arguments, reason = "one call, each argument another thing")]
    pub fn begin(
        flow: Arc<Dataflow>,
        layout: Arc<Layout>,
        store: Arc<dyn Store>,
        publisher: Option<Box<dyn Publisher>>,
        options: EpochOptions,
        shared: Arc<Shared>,
        manifest: Manifest,
        unpublished: Vec<Vec<(u64, RecordBatch)>>,
        workers: usize,
        now_ms: i64,
    ) -> Result<Self> {
        let names = flow.sources.iter().map(|source| SourceNames { source: source.name.clone(), topic: source.topic.clone() }).collect();
        let rescaled = manifest.workers != workers;
        let mut coordinator = Self {
            names,
            flow,
            layout,
            store,
            publisher,
            delivery: None,
            options,
            shared,
            manifest,
            workers,
            waiting: Vec::new(),
            unpublished,
            published_at_ms: now_ms,
            retained: VecDeque::new(),
            whole_bytes: 0,
            delta_bytes: 0,
            tick: 0,
        };
        coordinator.retain_existing()?;
        let mut next = coordinator.manifest.clone();
        next.epoch += 1;
        next.ended = false;
        coordinator.write(next, now_ms)?;
        coordinator.shared.full_state.store(rescaled, Ordering::Release);
        Ok(coordinator)
    }

    /// Where rows of sinks go from now on.
    pub fn deliver_to(&mut self, delivery: Delivery) {
        self.delivery = Some(delivery);
    }

    /// Looks whether delivery goes well, and pauses reading while too much waits to go out.
    pub fn look(&mut self) -> Result<()> {
        if let Some(delivery) = &mut self.delivery {
            delivery.look()?;
            self.shared.paused.store(delivery.is_full(), Ordering::Release);
        }
        Ok(())
    }

    /// The newest epoch.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes one worker's part; when all are there, commits the epoch. Answers what ended with it.
    pub fn add(&mut self, part: Part, now_ms: i64) -> Result<Option<ControlKind>> {
        self.waiting.push(part);
        if self.waiting.len() < self.workers {
            return Ok(None);
        }
        let mut parts = std::mem::take(&mut self.waiting);
        parts.sort_by_key(|part| part.worker);
        let kind = parts.first().map_or(ControlKind::Cut, |part| part.kind);
        // A watermark that moves without rows has passed an idle partition: that decision is kept, and shown.
        if parts.iter().all(Part::is_empty) && !parts.first().is_some_and(|part| moved(&self.manifest.watermarks, &part.watermarks)) {
            self.shared.committed.fetch_add(1, Ordering::Release);
            return Ok(Some(kind));
        }
        self.commit(parts, kind, now_ms)?;
        let due = kind != ControlKind::Cut
            || now_ms - self.published_at_ms >= self.options.publish_ms
            || self.unpublished.iter().flatten().map(|(_, batch)| batch.get_array_memory_size()).sum::<usize>()
                >= self.options.publish_bytes;
        let published = due && self.publish(kind != ControlKind::Cut, now_ms)?;
        if kind != ControlKind::Cut {
            if let Some(delivery) = &mut self.delivery {
                delivery.finish()?;
            }
            if published || self.manifest.sinks.iter().any(|sink| !sink.sealed.is_empty()) {
                self.write_published(now_ms)?;
            }
        }
        self.shared.committed.fetch_add(1, Ordering::Release);
        Ok(Some(kind))
    }

    /// The last epoch of a run: it names what was published and delivered, so that readers and the next start need no hot rows of any output. Its own row
    /// of `tidemill.epochs` is all that is new.
    fn write_published(&mut self, now_ms: i64) -> Result<()> {
        let mut next = self.manifest.clone();
        next.epoch += 1;
        self.arrived(&mut next);
        let epoch = next.epoch;
        let counts = vec![Counts::default(); next.accounts.len()];
        let row = system::epoch_batch(&next, &counts, self.tick, 0, now_ms)?;
        let mut segment = Segment::new(format!("segments/{epoch:020}-{}.arrow", next.incarnation));
        let mut added = None;
        for (index, table) in next.tables.iter_mut().enumerate().filter(|(_, table)| table.folder == system::EPOCHS) {
            let batch = plain(&row, &hot_schema(&table.schema))?;
            let section = segment.append_batches(&batch.schema(), std::slice::from_ref(&batch))?;
            table.hot.push(HotFile { epoch, section, rows: 1 });
            added = Some((index, batch));
        }
        if !self.store.put_new(segment.path(), segment.bytes())? {
            return Err(Error::failed(format!("{} exists already: two runs with one incarnation", segment.path())));
        }
        self.write(next, now_ms)?;
        if let Some((index, batch)) = added
            && let Some(waiting) = self.unpublished.get_mut(index)
        {
            waiting.push((epoch, batch));
        }
        Ok(())
    }

    fn commit(&mut self, parts: Vec<Part>, kind: ControlKind, now_ms: i64) -> Result<()> {
        self.tick = parts.iter().map(|part| part.tick).max().unwrap_or(self.tick);
        let mut next = self.manifest.clone();
        next.epoch += 1;
        next.ended = kind == ControlKind::End;
        next.published_open |= next.ended;
        next.workers = self.workers;
        let epoch = next.epoch;
        let mut segment = Segment::new(format!("segments/{epoch:020}-{}.arrow", next.incarnation));
        self.positions(&mut next, &parts);
        let ranges: Vec<_> = parts.iter().map(|part| (part.worker, &part.ranges)).collect();
        next.journal = Some(segment.append(&serde_json::to_vec(&ranges)?));
        let counts = self.account(&mut next, &parts);
        let bytes_before = segment.bytes().len();
        let whole = self.state(&mut next, &mut segment, &parts)?;
        let state_bytes = (segment.bytes().len() - bytes_before) as u64;
        let (changes, outgoing) = self.changes(&next, &parts, &counts, now_ms)?;
        self.arrived(&mut next);
        let mut sealed = Vec::new();
        for (index, (sink, batches)) in next.sinks.iter_mut().zip(outgoing).enumerate() {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            if rows > 0 {
                let batch = concat_batches(&hot_schema(&sink.schema), &batches)?;
                let section = segment.append_batches(&batch.schema(), std::slice::from_ref(&batch))?;
                sink.sealed.push(HotFile { epoch, section, rows: rows as u64 });
                sealed.push((index, batch));
            }
        }
        let mut added = Vec::with_capacity(changes.len());
        for (table, batches) in next.tables.iter_mut().zip(changes) {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            if rows == 0 {
                added.push(None);
                continue;
            }
            let batch = concat_batches(&hot_schema(&table.schema), &batches)?;
            let section = segment.append_batches(&batch.schema(), std::slice::from_ref(&batch))?;
            table.hot.push(HotFile { epoch, section, rows: rows as u64 });
            added.push(Some(batch));
        }
        if !self.store.put_new(segment.path(), segment.bytes())? {
            return Err(Error::failed(format!("{} exists already: two runs with one incarnation", segment.path())));
        }
        self.write(next, now_ms)?;
        if let Some(delivery) = self.delivery.as_mut().filter(|_| !sealed.is_empty()) {
            delivery.send(epoch, sealed)?;
        }
        for (waiting, batch) in self.unpublished.iter_mut().zip(added) {
            waiting.extend(batch.map(|batch| (epoch, batch)));
        }
        if whole {
            (self.whole_bytes, self.delta_bytes) = (state_bytes, 0);
        } else {
            self.delta_bytes += state_bytes;
        }
        let compact = self.delta_bytes > self.options.compact_ratio.saturating_mul(self.whole_bytes.max(1 << 20));
        self.shared.full_state.store(compact, Ordering::Release);
        Ok(())
    }

    /// Forgets rows of sinks that have arrived.
    fn arrived(&self, next: &mut Manifest) {
        let arrived = self.delivery.as_ref().map_or(0, Delivery::arrived);
        for sink in &mut next.sinks {
            sink.delivered = sink.sealed.iter().map(|sealed| sealed.epoch).filter(|epoch| *epoch <= arrived).fold(sink.delivered, u64::max);
            sink.sealed.retain(|sealed| sealed.epoch > arrived);
        }
    }

    fn positions(&self, next: &mut Manifest, parts: &[Part]) {
        for (source, positions) in parts.iter().flat_map(|part| &part.positions) {
            let Some(entry) = next.sources.get_mut(*source) else { continue };
            for position in positions {
                match entry.partitions.iter_mut().find(|each| each.partition == position.partition) {
                    Some(known) => *known = position.clone(),
                    None => entry.partitions.push(position.clone()),
                }
            }
        }
        if let Some(part) = parts.first() {
            next.watermarks = part.watermarks.clone();
        }
    }

    /// Adds the epoch's counts up by source and output; answers this epoch's own.
    fn account(&self, next: &mut Manifest, parts: &[Part]) -> Vec<Counts> {
        let mut nodes = vec![NodeCounts::default(); self.flow.nodes.len()];
        for (all, one) in parts.iter().flat_map(nodes_of) {
            if let Some(node) = nodes.get_mut(all) {
                node.add(one);
            }
        }
        let mut epoch = Vec::with_capacity(next.accounts.len());
        for account in &mut next.accounts {
            let mut sum = Counts::default();
            let source = self.flow.sources.iter().position(|each| (&each.name, each.reading) == (&account.source, account.reading));
            let output = self.flow.outputs.iter().position(|each| each.name == account.output);
            if let (Some(source), Some(output)) = (source, output) {
                for (id, node) in nodes.iter().enumerate() {
                    if self.layout.outputs.get(id).is_some_and(|outputs| outputs.contains(&output)) {
                        sum.add(node.sources().get(source).unwrap_or(&Counts::default()));
                    }
                }
            }
            account.counts.add(&sum);
            epoch.push(sum);
        }
        epoch
    }

    /// Writes what changed of every state table. Answers whether it was the whole state.
    fn state(&self, next: &mut Manifest, segment: &mut Segment, parts: &[Part]) -> Result<bool> {
        let mut whole = false;
        let epoch = next.epoch;
        let mut cleared: BTreeSet<(String, String)> = BTreeSet::new();
        for (worker, state) in parts.iter().flat_map(|part| part.state.iter().map(|state| (part.worker, state))) {
            let Some(node) = self.flow.nodes.get(state.node) else { continue };
            for (index, changes) in state.tables.iter().enumerate() {
                let Some(entry) = next.state.iter_mut().filter(|entry| entry.operator == node.id).nth(index) else {
                    return Err(Error::failed(format!("operator {} has a state table the manifest does not know", node.id)));
                };
                if index == 0 {
                    entry.scalars.resize(self.workers, BTreeMap::new());
                    if let Some(slot) = entry.scalars.get_mut(worker) {
                        *slot = state.scalars.clone();
                    }
                }
                whole |= changes.full;
                if changes.full && cleared.insert((entry.operator.clone(), entry.table.clone())) {
                    // Every worker writes its whole table in the same epoch, so what was there before is covered.
                    entry.chain.clear();
                    entry.scalars.truncate(self.workers);
                }
                if let Some(file) = write_changes(segment, entry, changes, epoch, worker)? {
                    entry.chain.push(file);
                }
            }
        }
        Ok(whole)
    }

    /// This epoch's changes of every table of the manifest, in the manifest's order (outputs first, then the engine's own), and of every
    /// sink.
    #[allow(clippy::type_complexity, reason = "two lists of the same kind")]
    fn changes(
        &self,
        next: &Manifest,
        parts: &[Part],
        counts: &[Counts],
        now_ms: i64,
    ) -> Result<(Vec<Vec<RecordBatch>>, Vec<Vec<RecordBatch>>)> {
        let mut changes: Vec<Vec<RecordBatch>> = vec![Vec::new(); next.tables.len()];
        let mut outgoing: Vec<Vec<RecordBatch>> = vec![Vec::new(); next.sinks.len()];
        let mut rows_out = 0;
        for (output, rows) in parts.iter().flat_map(|part| &part.outputs) {
            let Some(spec) = self.flow.outputs.get(*output) else { continue };
            // Tables and sinks stand in the manifest in the order of their outputs.
            let place = self.flow.outputs.iter().take(*output).filter(|each| each.delivered == spec.delivered).count();
            let to = if spec.delivered { outgoing.get_mut(place) } else { changes.get_mut(place) };
            if let Some(slot) = to {
                let schema = hot_schema(&spec.schema);
                for rows in rows.iter().filter(|rows| !rows.is_empty()) {
                    rows_out += rows.len() as i64;
                    slot.push(weighted(rows, &schema)?);
                }
            }
        }
        let name = |output: usize| self.flow.outputs.get(output).map_or("", |output| output.name.as_str());
        let dead: Vec<_> = parts.iter().flat_map(|part| &part.dead).map(|(output, letter)| (output.map(name), letter)).collect();
        // A record that is on both sides of a join misses its one chance twice.
        let mut missed = HashSet::new();
        let late = parts.iter().flat_map(|part| &part.late);
        let late = late.filter(|(output, event)| missed.insert((*output, event.source, event.partition, event.offset, event.window_start)));
        let late: Vec<_> = late.map(|(output, event)| (name(*output), event)).collect();
        for (table, slot) in next.tables.iter().zip(&mut changes) {
            let batch = match table.folder.as_str() {
                system::DEAD_LETTERS if !dead.is_empty() => dead_letter_batch(&dead, &self.names)?,
                system::LATE_EVENTS if !late.is_empty() => late_event_batch(&late, &self.names)?,
                system::ACCOUNTING => system::accounting_batch(next, counts)?,
                system::EPOCHS => system::epoch_batch(next, counts, self.tick, rows_out, now_ms)?,
                _ => continue,
            };
            slot.push(plain(&batch, &hot_schema(&table.schema))?);
        }
        Ok((changes, outgoing))
    }

    /// Writes a manifest: the commit. An existing one with our incarnation is ours (an unknown outcome), another's fences us out.
    fn write(&mut self, mut next: Manifest, now_ms: i64) -> Result<()> {
        next.committed_at_ms = now_ms;
        let path = manifest_path(next.epoch);
        if !self.store.put_new(&path, &serde_json::to_vec(&next)?)? {
            let found: Manifest = serde_json::from_slice(&self.store.get(&path)?)?;
            if found.incarnation != next.incarnation {
                return Err(fenced(&next, &found.incarnation));
            }
        }
        let above = self.store.list("epochs/0")?.into_iter().rev().find_map(|name| epoch_of(&name)).filter(|newest| *newest > next.epoch);
        if above.is_some() {
            return Err(fenced(&next, "one with a newer epoch"));
        }
        self.retained.push_back((next.epoch, now_ms, files_of(&next)));
        self.manifest = next;
        self.expire(now_ms)
    }

    /// Publishes every table with changes (`all`: those that were never published too, so that readers find them empty). Answers
    /// whether there were any.
    fn publish(&mut self, all: bool, now_ms: i64) -> Result<bool> {
        self.published_at_ms = now_ms;
        let Some(publisher) = self.publisher.as_mut() else { return Ok(false) };
        let mut any = false;
        let epoch = self.manifest.epoch;
        for (table, changes) in self.manifest.tables.iter_mut().zip(&mut self.unpublished) {
            if changes.is_empty() && !(all && table.version.is_none()) {
                continue;
            }
            let published = publisher.publish(table, epoch, changes)?;
            any = true;
            table.version = Some(published.version);
            table.log_version = published.log_version;
            table.covered = epoch;
            table.hot.clear();
            changes.clear();
        }
        Ok(any)
    }

    /// What older manifests name, so that nothing of it is deleted too early.
    fn retain_existing(&mut self) -> Result<()> {
        for name in self.store.list("epochs/0")? {
            let Some(epoch) = epoch_of(&name) else { continue };
            let manifest: Manifest = serde_json::from_slice(&self.store.get(&format!("epochs/0/{name}"))?)?;
            self.retained.push_back((epoch, manifest.committed_at_ms, files_of(&manifest)));
        }
        Ok(())
    }

    /// Deletes manifests that no reader can need any more, and the files only they named. Always keeps the newest.
    fn expire(&mut self, now_ms: i64) -> Result<()> {
        let mut dropped: BTreeSet<String> = BTreeSet::new();
        while self.retained.len() > 1 && self.retained.front().is_some_and(|(_, at, _)| now_ms - at > self.options.read_retention_ms) {
            if let Some((epoch, _, files)) = self.retained.pop_front() {
                self.store.delete(&manifest_path(epoch))?;
                dropped.extend(files);
            }
        }
        for file in dropped {
            if !self.retained.iter().any(|(_, _, files)| files.contains(&file)) {
                self.store.delete(&file)?;
            }
        }
        Ok(())
    }
}

fn fenced(next: &Manifest, other: &str) -> Error {
    Error::failed(format!(
        "pipeline {}: another run ({other}) has taken over at epoch {}; this one ({}) stops, and nothing of its last epoch counts",
        next.pipeline, next.epoch, next.incarnation
    ))
}

/// The epoch a manifest's file name says.
pub fn epoch_of(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

/// Has a watermark gone on?
fn moved(before: &[Watermark], now: &[Watermark]) -> bool {
    let known = |watermark: &Watermark| watermark.filter(|at| *at != BEGINNING);
    before.iter().map(known).ne(now.iter().map(known))
}

fn nodes_of(part: &Part) -> impl Iterator<Item = (usize, &NodeCounts)> {
    part.counts.iter().enumerate()
}

fn files_of(manifest: &Manifest) -> BTreeSet<String> {
    let state = manifest.state.iter().flat_map(|entry| &entry.chain).flat_map(|file| file.upserts.iter().chain(&file.deletes));
    let hot = manifest.tables.iter().flat_map(|table| &table.hot).map(|hot| &hot.section);
    let sealed = manifest.sinks.iter().flat_map(|sink| &sink.sealed).map(|sealed| &sealed.section);
    state.chain(hot).chain(sealed).chain(&manifest.journal).map(|section: &Section| section.file.clone()).collect()
}

fn write_changes(segment: &mut Segment, entry: &StateEntry, changes: &Changes, epoch: u64, worker: usize) -> Result<Option<StateFile>> {
    if changes.is_empty() && changes.expired_below.is_none() {
        return Ok(None);
    }
    let key_schema = Schema::new(entry.schema.fields().iter().take(entry.keys + 1).cloned().collect::<Vec<_>>());
    let upserts = if changes.upserts.is_empty() { None } else { Some(segment.append_batches(&entry.schema, &changes.upserts)?) };
    let deletes = if changes.deletes.is_empty() { None } else { Some(segment.append_batches(&key_schema, &changes.deletes)?) };
    if upserts.is_none() && deletes.is_none() && entry.chain.is_empty() {
        return Ok(None);
    }
    Ok(Some(StateFile { epoch, worker, full: changes.full, upserts, deletes, expired_below: changes.expired_below }))
}

/// A table's columns and the weight.
pub fn hot_schema(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT_COLUMN, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

fn weighted(rows: &Rows, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = rows.batch.columns().to_vec();
    let weights = match &rows.weights {
        Some(weights) => Int64Array::from(weights.to_vec()),
        None => Int64Array::from_value(1, rows.len()),
    };
    columns.push(Arc::new(weights));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_value(1, batch.num_rows())));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
