//! The way back: the newest manifest, what it says of the plan, and the state it names.
//!
//! Always: nothing is touched before everything was checked; a file whose checksum is wrong is an error that names it, never a
//! smaller state.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use crate::account::{Account, Counts};
use crate::epoch::coordinator::{epoch_of, manifest_path};
use crate::epoch::manifest::{FORMAT, Manifest, PlanEntry, SourceEntry, StateEntry, TableEntry};
use crate::epoch::segment::read_batches;
use crate::epoch::store::Store;
use crate::epoch::system;
use crate::error::{Error, Result};
use crate::graph::{Dataflow, NodeKind};
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

/// Epoch 0 of a new pipeline: positions, empty accounts, empty tables.
pub fn create(flow: &Dataflow, identity: &Identity, uuid: String, sources: Vec<SourceEntry>) -> Result<Manifest> {
    let layout = crate::graph::Layout::of(flow)?;
    let mut accounts = Vec::new();
    for (id, node) in flow.nodes.iter().enumerate() {
        let NodeKind::Source(source) = node.kind else { continue };
        for output in layout.outputs.get(id).into_iter().flatten() {
            if let (Some(source), Some(output)) = (flow.sources.get(source), flow.outputs.get(*output)) {
                accounts.push(Account { source: source.name.clone(), output: output.name.clone(), counts: Counts::default() });
            }
        }
    }
    let mut tables: Vec<TableEntry> = flow
        .outputs
        .iter()
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
        journal: None,
        ended: false,
    })
}

/// The plan's entries.
pub fn plan_of(flow: &Dataflow) -> Vec<PlanEntry> {
    flow.outputs.iter().map(|output| PlanEntry { output: output.name.clone(), hash: output.plan_hash.clone() }).collect()
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

/// Refuses a pipeline whose plan is not the one its state was made by.
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
    if let Some(new) = now.iter().find(|each| !manifest.plan.iter().any(|entry| entry.output == each.output)) {
        return Err(Error::refused(format!(
            "pipeline {}: output {} is new; adding an output to running state is not supported yet: {advice}",
            manifest.pipeline, new.output
        )));
    }
    for entry in &manifest.sources {
        let source = flow.sources.iter().find(|source| source.name == entry.name);
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

/// Which worker reads a partition: round robin by its number, so that one topic's partitions spread evenly.
pub fn reader_of(partition: i32, workers: usize) -> usize {
    partition.unsigned_abs() as usize % workers.max(1)
}

/// A worker's partitions of a source.
pub fn positions_of(entry: &SourceEntry, worker: usize, workers: usize) -> Vec<Position> {
    entry.partitions.iter().filter(|position| reader_of(position.partition, workers) == worker).cloned().collect()
}
