//! The way back: the newest manifest, what it says of the plan, and the state it names.
//!
//! Always: nothing is touched before everything was checked; a file whose checksum is wrong is an error that names it, never a
//! smaller state.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use crate::account::{Account, Counts};
use crate::epoch::coordinator::{epoch_of, manifest_path};
use crate::epoch::manifest::{FORMAT, Manifest, PlanEntry, SinkEntry, SourceEntry, StateEntry, TableEntry};
use crate::epoch::segment::read_batches;
use crate::epoch::store::Store;
use crate::epoch::system;
use crate::error::{Error, Result};
use crate::graph::{Dataflow, Layout, NodeKind, OutputSpec};
use crate::hash::{HASH_ID, key_group, owner};
use crate::source::Position;
use crate::state::{Changes, Merge, TableSpec};
use crate::worker::Worker;

/// The newest manifest, if the pipeline has run before.
pub fn newest(store: &dyn Store) -> Result<Option<Manifest>> {
    let Some(epoch) = store.list("epochs/0")?.iter().rev().find_map(|name| epoch_of(name)) else { return Ok(None) };
    let path = manifest_path(epoch);
    let manifest: Manifest = serde_json::from_slice(&store.get(&path)?)
        .map_err(|error| Error::failed(format!("{path} can't be read ({error}): it is damaged, or written by a newer version")))?;
    if manifest.format > FORMAT {
        return Err(Error::refused(format!(
            "{path} has format {}; this version reads up to {FORMAT}: use the version that wrote it ({})",
            manifest.format, manifest.build
        )));
    }
    if manifest.hash_id != HASH_ID {
        return Err(Error::refused(format!("{path}: the state is placed by key hash {}, this version uses {HASH_ID}", manifest.hash_id)));
    }
    Ok(Some(manifest))
}

/// Who runs a pipeline.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The pipeline's name.
    pub pipeline: String,
    /// Drawn for this start.
    pub incarnation: String,
    /// Version of this binary.
    pub build: String,
    /// Workers of this start.
    pub workers: usize,
}

/// Epoch 0 of a new pipeline: positions, empty accounts, empty tables. `sources` are those of the dataflow, in its order.
pub fn create(flow: &Dataflow, identity: &Identity, uuid: String, sources: Vec<SourceEntry>) -> Result<Manifest> {
    let layout = Layout::of(flow)?;
    let mut accounts = Vec::new();
    for (id, node) in flow.nodes.iter().enumerate() {
        let NodeKind::Source(source) = node.kind else { continue };
        for output in layout.outputs.get(id).into_iter().flatten() {
            if let (Some(source), Some(output)) = (flow.sources.get(source), flow.outputs.get(*output)) {
                let (source, reading) = (source.name.clone(), source.reading);
                accounts.push(Account { source, reading, output: output.name.clone(), counts: Counts::default() });
            }
        }
    }
    let mut tables: Vec<TableEntry> = flow
        .outputs
        .iter()
        .filter(|output| !output.delivered)
        .map(|output| TableEntry {
            name: output.name.clone(),
            folder: format!("tables/{}", output.name),
            schema: output.schema.as_ref().clone(),
            key: output.key.clone(),
            visible: output.visible,
            version: None,
            log_version: None,
            covered: 0,
            hot: Vec::new(),
        })
        .collect();
    tables.extend(system::entries());
    let delivered = flow.outputs.iter().filter(|output| output.delivered);
    let sinks = delivered.map(|output| SinkEntry {
        name: output.name.clone(),
        schema: output.schema.as_ref().clone(),
        delivered: 0,
        sealed: Vec::new(),
    });
    Ok(Manifest {
        format: FORMAT,
        epoch: 0,
        pipeline: identity.pipeline.clone(),
        uuid,
        incarnation: identity.incarnation.clone(),
        build: identity.build.clone(),
        hash_id: HASH_ID.to_owned(),
        plan: plan_of(flow),
        workers: identity.workers,
        committed_at_ms: 0,
        watermarks: vec![None; sources.len()],
        sources,
        accounts,
        state: state_entries(flow)?,
        tables,
        sinks: sinks.collect(),
        journal: None,
        ended: false,
        published_open: false,
    })
}

/// The manifest to go on from: what `known` says, in the order of the dataflow (statements of a file may move), with an empty place for
/// each output and reading that was not there before. `sources` are those of the dataflow, as they stand now.
pub fn go_on(flow: &Dataflow, identity: &Identity, known: Manifest, sources: Vec<SourceEntry>) -> Result<Manifest> {
    let mut next = create(flow, identity, known.uuid.clone(), sources)?;
    for (entry, watermark) in next.sources.iter().zip(&mut next.watermarks) {
        let before = known.sources.iter().position(|each| (&each.name, each.reading) == (&entry.name, entry.reading));
        *watermark = before.and_then(|index| known.watermarks.get(index).copied()).flatten();
    }
    for account in &mut next.accounts {
        let same = |each: &&Account| (&each.source, each.reading, &each.output) == (&account.source, account.reading, &account.output);
        account.counts = known.accounts.iter().find(same).map_or_else(Counts::default, |before| before.counts);
    }
    for entry in &mut next.state {
        if let Some(before) = known.state.iter().find(|each| (&each.operator, &each.table) == (&entry.operator, &entry.table)) {
            *entry = before.clone();
        }
    }
    let lost =
        known.state.iter().find(|each| next.state.iter().all(|entry| (&entry.operator, &entry.table) != (&each.operator, &each.table)));
    if let Some(lost) = lost {
        return Err(Error::refused(format!(
            "state {} of operator {} has no place in the plan: run it with the version that wrote it ({}), or start afresh with --reset",
            lost.table, lost.operator, known.build
        )));
    }
    for entry in &mut next.tables {
        if let Some(before) = known.tables.iter().find(|each| each.folder == entry.folder) {
            *entry = before.clone();
        }
    }
    for entry in &mut next.sinks {
        if let Some(before) = known.sinks.iter().find(|each| each.name == entry.name) {
            *entry = before.clone();
        }
    }
    // The worker count stays the old one: it says how the state was split.
    Ok(Manifest {
        epoch: known.epoch,
        workers: known.workers,
        committed_at_ms: known.committed_at_ms,
        journal: known.journal,
        ended: known.ended,
        published_open: known.published_open,
        ..next
    })
}

/// The plan's entries.
pub fn plan_of(flow: &Dataflow) -> Vec<PlanEntry> {
    let entry = |output: &OutputSpec| PlanEntry { output: output.name.clone(), hash: output.plan_hash.clone(), reading: output.reading };
    flow.outputs.iter().map(entry).collect()
}

fn state_entries(flow: &Dataflow) -> Result<Vec<StateEntry>> {
    let mut entries = Vec::new();
    for node in &flow.nodes {
        if let NodeKind::Operator(make) = &node.kind {
            for table in make()?.tables() {
                entries.push(StateEntry {
                    operator: node.id.clone(),
                    table: table.name.to_owned(),
                    schema: table.schema.as_ref().clone(),
                    keys: table.keys,
                    expires: table.expires,
                    chain: Vec::new(),
                    scalars: Vec::new(),
                });
            }
        }
    }
    Ok(entries)
}

/// Refuses a pipeline whose plan is not the one its state was made by. Outputs that are new are none of it.
pub fn check_plan(flow: &Dataflow, manifest: &Manifest) -> Result<()> {
    let now = plan_of(flow);
    let advice = "write it under another name (SET pipeline), or start afresh with --reset";
    for entry in &manifest.plan {
        match now.iter().find(|each| each.output == entry.output) {
            None => {
                return Err(Error::refused(format!(
                    "pipeline {}: output {} is in its state, but no longer in the file; {advice}",
                    manifest.pipeline, entry.output
                )));
            }
            Some(each) if each.hash != entry.hash => {
                return Err(Error::refused(format!(
                    "pipeline {}: output {} has changed since its state was made; {advice}",
                    manifest.pipeline, entry.output
                )));
            }
            Some(_) => {}
        }
    }
    for entry in &manifest.sources {
        let source = flow.sources.iter().find(|source| (&source.name, source.reading) == (&entry.name, entry.reading));
        match source {
            Some(source) if source.topic == entry.topic => {}
            Some(source) => {
                return Err(Error::refused(format!(
                    "pipeline {}: source {} read {} and would now read {}; {advice}",
                    manifest.pipeline, entry.name, entry.topic, source.topic
                )));
            }
            None => {
                return Err(Error::refused(format!(
                    "pipeline {}: source {} is in its state, but no longer in the file; {advice}",
                    manifest.pipeline, entry.name
                )));
            }
        }
    }
    Ok(())
}

/// The net rows of one state table, from its chain. Expiry is a worker's own: another may still hold its watermark back.
pub fn load_table(store: &dyn Store, entry: &StateEntry) -> Result<Vec<RecordBatch>> {
    let mut by_worker: BTreeMap<usize, Merge> = BTreeMap::new();
    for file in &entry.chain {
        let merge = match by_worker.entry(file.worker) {
            std::collections::btree_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(Merge::new(spec_of(entry))?),
        };
        let read = |section: &Option<_>| -> Result<Vec<RecordBatch>> {
            match section {
                Some(section) => Ok(read_batches(&store.get_section(section)?)?.1),
                None => Ok(Vec::new()),
            }
        };
        merge.apply(Changes {
            upserts: read(&file.upserts)?,
            deletes: read(&file.deletes)?,
            expired_below: file.expired_below,
            full: file.full,
        })?;
    }
    let mut rows = Vec::new();
    for merge in by_worker.into_values() {
        rows.extend(merge.finish(|_| true)?);
    }
    Ok(rows)
}

fn spec_of(entry: &StateEntry) -> TableSpec {
    TableSpec { name: "restored", schema: std::sync::Arc::new(entry.schema.clone()), keys: entry.keys, expires: entry.expires }
}

/// The state of all operators, read once for all workers.
pub struct Restored {
    tables: Vec<(StateEntry, usize, Vec<RecordBatch>)>,
}

impl Restored {
    /// Reads what the manifest names.
    pub fn read(store: &dyn Store, manifest: &Manifest) -> Result<Self> {
        let mut tables = Vec::with_capacity(manifest.state.len());
        let mut last: Option<(&str, usize)> = None;
        for entry in &manifest.state {
            let index = match last {
                Some((operator, index)) if operator == entry.operator => index + 1,
                _ => 0,
            };
            last = Some((&entry.operator, index));
            tables.push((entry.clone(), index, load_table(store, entry)?));
        }
        Ok(Self { tables })
    }

    /// Gives a worker what it owns among `workers`.
    pub fn give(&self, flow: &Dataflow, worker: &mut Worker, workers: usize) -> Result<()> {
        let me = worker.index();
        for (entry, index, batches) in &self.tables {
            let node = flow.nodes.iter().position(|node| node.id == entry.operator);
            let node = node.ok_or_else(|| Error::failed(format!("state of {}, which the plan does not have", entry.operator)))?;
            let mut merge = Merge::new(spec_of(entry))?;
            merge.apply(Changes { upserts: batches.clone(), ..Changes::default() })?;
            let mine = merge.finish(|hash| owner(key_group(hash), workers) == me)?;
            worker.restore(node, |operator| {
                entry.scalars.iter().filter(|scalars| !scalars.is_empty()).for_each(|scalars| operator.load_scalars(scalars));
                mine.iter().try_for_each(|batch| operator.load(*index, batch))
            })?;
        }
        Ok(())
    }
}

/// Changes that the cold tier does not have yet.
pub fn hot_rows(store: &dyn Store, manifest: &Manifest) -> Result<Vec<Vec<(u64, RecordBatch)>>> {
    let mut all = Vec::with_capacity(manifest.tables.len());
    for table in &manifest.tables {
        let mut changes = Vec::new();
        for hot in &table.hot {
            let (_, batches) = read_batches(&store.get_section(&hot.section)?)?;
            changes.extend(batches.into_iter().map(|batch| (hot.epoch, batch)));
        }
        all.push(changes);
    }
    Ok(all)
}

/// Rows of sinks that are not known to have arrived, by epoch: for each sink with rows its place among the manifest's and the rows.
pub fn sealed_rows(store: &dyn Store, manifest: &Manifest) -> Result<BTreeMap<u64, Vec<(usize, RecordBatch)>>> {
    let mut all: BTreeMap<u64, Vec<(usize, RecordBatch)>> = BTreeMap::new();
    for (sink, entry) in manifest.sinks.iter().enumerate() {
        for sealed in &entry.sealed {
            let (_, batches) = read_batches(&store.get_section(&sealed.section)?)?;
            all.entry(sealed.epoch).or_default().extend(batches.into_iter().map(|batch| (sink, batch)));
        }
    }
    Ok(all)
}

/// Which worker reads a partition: round robin by its number, so that one topic's partitions spread evenly.
pub fn reader_of(partition: i32, workers: usize) -> usize {
    partition.unsigned_abs() as usize % workers.max(1)
}

/// A worker's partitions of a source.
pub fn positions_of(entry: &SourceEntry, worker: usize, workers: usize) -> Vec<Position> {
    entry.partitions.iter().filter(|position| reader_of(position.partition, workers) == worker).cloned().collect()
}
