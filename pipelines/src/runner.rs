//! `tidemill run`: from a file to a running pipeline. Checks everything that can be refused before it writes anything.
//!
//! Always: one run of a pipeline at a time (a file lock, then the epoch's put-if-absent); the data folder is touched only after the
//! SQL has been planned and the sources have answered.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidemill_connectors::delta::DeltaPublisher;
use tidemill_engine::epoch::coordinator::{EpochOptions, manifest_path};
use tidemill_engine::epoch::manifest::{Manifest, SourceEntry};
use tidemill_engine::epoch::recover::{Identity, check_plan, create, go_on, newest, plan_of};
use tidemill_engine::epoch::store::{LocalStore, Store};
use tidemill_engine::error::{Error, Kind, Result};
use tidemill_engine::graph::Dataflow;
use tidemill_engine::run::{Run, now_ms};
use tidemill_engine::source::Position;
use tidemill_engine::worker::{Shared, WorkerOptions};

use crate::growth::Growth;
use crate::lower::lower;
use crate::sinks;
use crate::sources::Connections;
use crate::sql::{self, Output, Program};

/// What a user may set of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder.
    pub data: PathBuf,
    /// Brokers of sources that name none.
    pub brokers: Option<String>,
    /// librdkafka properties.
    pub kafka: Vec<(String, String)>,
    /// Threads.
    pub workers: usize,
    /// An epoch is cut this often.
    pub epoch_ms: u64,
    /// Stop at the end offsets of now.
    pub bounded: bool,
    /// Further settings, `key=value`; see `SETTINGS`.
    pub set: Vec<(String, String)>,
}

/// What `--set` knows: name and meaning.
pub const SETTINGS: &[(&str, &str)] = &[
    ("idle_after", "partitions whose end was reached this long ago are idle, also with --bounded, e.g. '5 seconds'"),
    ("publish_interval", "tables are brought up to date for other readers at least this often, e.g. '30 seconds'"),
    ("rows_per_tick_max", "records a worker takes in one tick"),
    ("bytes_per_tick_max", "payload bytes a worker takes in one tick"),
    ("sink_bytes_per_epoch_max", "an epoch is cut early when rows for sinks have this many bytes; one transaction carries them"),
    ("drift_max", "how far ahead of the slowest partition another may be read, in event time, e.g. '1 hour'"),
    (
        "state_bytes_max",
        "bytes of state of all workers together; more ends the run with exit 1 (default: 60 % of the memory that the machine or its container has)",
    ),
    ("read_retention", "how long an epoch stays readable after the next, e.g. '10 minutes'"),
];

/// A file that has been parsed and planned.
pub struct Pipeline {
    /// The program.
    pub program: Program,
    /// Its plans.
    pub planned: Vec<sql::PlannedOutput>,
}

impl Pipeline {
    /// Reads and plans a file. Errors begin with the place.
    pub fn read(file: &Path) -> Result<Self> {
        let shown = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|error| Error::refused(format!("{shown}: {error}")))?;
        Self::parse(&shown, &text)
    }

    /// The same from text.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let program = sql::parse(file, text).map_err(Error::from)?;
        let planned = sql::plan(&program).map_err(Error::from)?;
        Ok(Self { program, planned })
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// The dataflow for a number of workers, going on from `known` if the pipeline has run before: outputs that it does not know begin
    /// at `start`, in a reading of the sources of their own.
    pub fn dataflow(&self, connections: &Connections, known: Option<&Manifest>) -> Result<Dataflow> {
        let before = known.map_or(&[][..], |manifest| &manifest.plan);
        let next = before.iter().map(|entry| entry.reading + 1).max().unwrap_or(0);
        let reading_of = |output: &str| before.iter().find(|entry| entry.output == output).map_or(next, |entry| entry.reading);
        lower(&self.program, &self.planned, connections, connections.workers, &reading_of)
    }
}

/// Told what happens on the way.
pub trait Watch: Send + Sync {
    /// Something is waited for (a broker that does not answer).
    fn waiting(&self, what: &str);
    /// Something happened that a user may want to know; nobody needs to do anything.
    fn notice(&self, what: &str) {
        tracing::info!("{what}");
    }
    /// The run begins: flags and figures to look at.
    fn started(&self, shared: &Arc<Shared>, connections: &Connections);
    /// An epoch was committed.
    fn epoch(&self, manifest: &Manifest);
}

/// Runs a pipeline until its input ends or `shared.stop` is set. When a topic gets partitions, it ends the epoch and goes on with them.
pub fn run(pipeline: &Pipeline, options: &Options, shared: &Arc<Shared>, watch: &Arc<dyn Watch>) -> Result<Manifest> {
    loop {
        let manifest = run_once(pipeline, options, shared, watch)?;
        if shared.stop.load(Ordering::Acquire) || !shared.again.swap(false, Ordering::AcqRel) {
            return Ok(manifest);
        }
        shared.committed.store(0, Ordering::Release);
    }
}

fn run_once(pipeline: &Pipeline, options: &Options, shared: &Arc<Shared>, watch: &Arc<dyn Watch>) -> Result<Manifest> {
    let (mut workers_options, epochs) = settings(options)?;
    let connections = Connections::new(options.brokers.clone(), options.kafka.clone(), pipeline.name(), options.workers);
    if options.data.exists() && !options.data.is_dir() {
        return Err(Error::refused(format!("{} is a file, not a data folder; name another with --data", options.data.display())));
    }
    let folder = options.data.join(pipeline.name());
    let reader = LocalStore::at(&folder);
    refuse_foreign(&folder, &reader)?;
    let known = newest(&reader)?;
    let mut flow = pipeline.dataflow(&connections, known.as_ref())?;
    if let Some(idle_after_us) = idle_after_us(options) {
        flow.sources.iter_mut().for_each(|source| source.idle_after_us = idle_after_us);
    }
    if let Some(known) = &known {
        check_plan(&flow, known)?;
        for output in flow.outputs.iter().filter(|output| known.plan.iter().all(|entry| entry.output != output.name)) {
            watch.notice(&format!("output {} is new: it begins at the start of its sources, which are read again for it", output.name));
        }
    }
    let mut on_wait = |what: &str| watch.waiting(what);
    let mut entries = Vec::with_capacity(flow.sources.len());
    let mut ends = Vec::with_capacity(flow.sources.len());
    for spec in &flow.sources {
        let source = pipeline.program.sources.iter().find(|source| source.name == spec.name);
        let source = source.ok_or_else(|| Error::failed(format!("no source {}", spec.name)))?;
        let same = |entry: &&SourceEntry| (&entry.name, entry.reading) == (&spec.name, spec.reading);
        let before = known.as_ref().and_then(|manifest| manifest.sources.iter().find(same));
        let entry = connections.positions(source, spec.reading, before, &mut on_wait)?;
        if options.bounded {
            ends.push(connections.ends(source, &entry, &mut on_wait)?);
        }
        entries.push(entry);
    }
    let deliver = sinks::open(&pipeline.program, &connections, &mut on_wait)?;
    let store = LocalStore::open(&folder)?;
    let _lock = lock(&folder, pipeline.name())?;
    // Somebody may have run between the look and the lock.
    let known = newest(&store)?;
    let identity = Identity {
        pipeline: pipeline.name().to_owned(),
        incarnation: draw_id(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        workers: options.workers,
    };
    let manifest = match known {
        Some(known) => {
            check_plan(&flow, &known)?;
            if plan_of(&pipeline.dataflow(&connections, Some(&known))?) != plan_of(&flow) {
                return Err(running(pipeline.name()));
            }
            let sources = entries.into_iter().map(|fresh| grown(fresh, &known)).collect();
            go_on(&flow, &identity, known, sources)?
        }
        None => {
            let manifest = Manifest { committed_at_ms: now_ms(), ..create(&flow, &identity, draw_id(), entries)? };
            if !store.put_new(&manifest_path(0), &serde_json::to_vec(&manifest)?)? {
                return Err(running(pipeline.name()));
            }
            manifest
        }
    };
    let publisher = DeltaPublisher::new(&folder, &manifest.uuid, true)?;
    workers_options.bounded = options.bounded;
    workers_options.read.idle = !options.bounded || options.set.iter().any(|(key, _)| key == "idle_after");
    watch.started(shared, &connections);
    let growth = if options.bounded { None } else { Growth::look(pipeline, &connections, &manifest, shared, watch) };
    let told = Arc::clone(watch);
    let outcome = tidemill_engine::run::run(Run {
        flow,
        workers: options.workers,
        options: workers_options,
        epochs,
        store: Arc::new(store),
        manifest,
        publisher: Some(Box::new(publisher)),
        deliver,
        ends: options.bounded.then_some(ends),
        shared: Arc::clone(shared),
        on_epoch: Box::new(move |manifest| told.epoch(manifest)),
    });
    drop(growth);
    outcome.map_err(|error| placed(&pipeline.program, error))
}

/// A source as it stands in `known`, with the partitions that it has got since: what was closed before they came stays closed to
/// their rows.
fn grown(fresh: SourceEntry, known: &Manifest) -> SourceEntry {
    let same = |entry: &SourceEntry| (&entry.name, entry.reading) == (&fresh.name, fresh.reading);
    let Some(index) = known.sources.iter().position(same) else { return fresh };
    let sealed = known.watermarks.get(index).copied().flatten();
    let mut entry = known.sources[index].clone();
    let added = fresh.partitions.into_iter().filter(|position| entry.partitions.iter().all(|old| old.partition != position.partition));
    entry.partitions.extend(added.map(|position| Position { floor: sealed, ..position }).collect::<Vec<_>>());
    entry
}

/// An error of an operator begins with the operator's name, which begins with its output's: puts that output's place in front instead.
fn placed(program: &Program, error: Error) -> Error {
    let Some((operator, what)) = error.message().split_once(": ").filter(|_| error.kind() == Kind::Failed) else { return error };
    let of = |name: &str| operator.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '@']));
    match program.outputs.iter().filter(|output| of(&output.name)).max_by_key(|output| output.name.len()) {
        Some(Output { name, at, .. }) => Error::failed(format!("{}:{}:{}: error: {name}: {what}", program.file, at.line, at.column)),
        None => error,
    }
}

/// Deletes a pipeline's tables and state. Refused while it runs.
pub fn reset(data: &Path, name: &str) -> Result<()> {
    let folder = data.join(name);
    if !folder.exists() {
        return Ok(());
    }
    refuse_foreign(&folder, &LocalStore::at(&folder))?;
    let _lock = lock(&folder, name)?;
    fs::remove_dir_all(&folder).map_err(|error| Error::failed(format!("{}: {error}", folder.display())))
}

/// A folder with something in it that is not a pipeline's is left alone.
fn refuse_foreign(folder: &Path, store: &LocalStore) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::refused(format!(
            "{} is a file, not a pipeline's folder; name another data folder with --data",
            folder.display()
        )));
    }
    let held = store.list("")?;
    let ours = |name: &String| ["epochs", "segments", "tables", "internal", "log", "lock"].contains(&name.as_str());
    if let Some(strange) = held.iter().find(|name| !ours(name)) {
        return Err(Error::refused(format!(
            "{} holds {strange}, so it is not a pipeline's folder; name another data folder with --data",
            folder.display()
        )));
    }
    if store.list("epochs/0")?.is_empty() && !store.list("tables")?.is_empty() {
        return Err(Error::refused(format!(
            "{} has tables but no epochs: without them nobody can tell what has been counted; move the folder away, or start afresh with --reset",
            folder.display()
        )));
    }
    Ok(())
}

fn running(name: &str) -> Error {
    Error::refused(format!(
        "pipeline {name} is running already (another process holds its folder); stop that one first, or name this one anew with SET pipeline"
    ))
}

fn lock(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| Error::refused(format!("can't write {}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(running(name)),
        Err(fs::TryLockError::Error(error)) => Err(Error::external(format!("{}: {error}", path.display()))),
    }
}

fn settings(options: &Options) -> Result<(WorkerOptions, EpochOptions)> {
    let (mut workers, mut epochs) = (WorkerOptions::default(), EpochOptions::default());
    workers.state_bytes_max = memory_bytes() / 10 * 6;
    workers.epoch_us = i64::try_from(options.epoch_ms.max(1)).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
    for (key, value) in &options.set {
        let number = || {
            value
                .parse::<usize>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| Error::refused(format!("--set {key}={value}: a number of at least 1 is needed")))
        };
        let length = || sql::parse_duration(value).map_err(|reason| Error::refused(format!("--set {key}={value}: {reason}")));
        match key.as_str() {
            "idle_after" => {
                length()?;
            }
            "publish_interval" => epochs.publish_ms = length()? / 1000,
            "rows_per_tick_max" => workers.read.rows_per_tick_max = number()?,
            "bytes_per_tick_max" => workers.read.bytes_per_tick_max = number()?,
            "sink_bytes_per_epoch_max" => workers.sink_bytes_per_epoch_max = number()? as u64,
            "drift_max" => workers.read.drift_max_us = length()?,
            "state_bytes_max" => workers.state_bytes_max = number()? as u64,
            "read_retention" => epochs.read_retention_ms = length()? / 1000,
            _ => {
                let known: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
                return Err(Error::refused(format!("--set {key}: no such setting; there are {}", known.join(", "))));
            }
        }
    }
    Ok((workers, epochs))
}

/// What the kernel says of the machine's memory, less where a container has less; without a word of it a modest guess.
fn memory_bytes() -> u64 {
    let first_number = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(|text| text.lines().find(|line| line.starts_with("MemTotal:"))).and_then(first_number);
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().as_deref().and_then(first_number);
    machine.map(|kib| kib.saturating_mul(1024)).into_iter().chain(container).min().unwrap_or(8 << 30)
}

/// `--set idle_after`, which overrides every source's own.
fn idle_after_us(options: &Options) -> Option<i64> {
    options.set.iter().rev().find(|(key, _)| key == "idle_after").and_then(|(_, value)| sql::parse_duration(value).ok())
}

/// An id nobody else has: of a pipeline at its creation, and of each start.
#[allow(clippy::disallowed_methods, reason = "this module draws the ids")]
fn draw_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
