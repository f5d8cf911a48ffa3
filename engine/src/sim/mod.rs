//! The simulation: a whole run (workers, coordinator, log, store, cold tier) on one thread, under one seed, with a virtual clock.
//!
//! Always: the same seed does the same thing; who steps next, how much a poll brings, when time passes, which write fails before or
//! after it took place and when the process dies are all drawn from it. The workers and the coordinator are the real ones; the log,
//! the store and the cold tier are doubles that keep their contracts and misbehave as real ones do. Used by the tests.

pub mod doubles;
pub mod rng;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::bounded;

use crate::epoch::coordinator::{Coordinator, EpochOptions, Publisher};
use crate::epoch::manifest::{Manifest, SourceEntry};
use crate::epoch::recover::{Identity, Restored, create, hot_rows, newest, positions_of};
use crate::epoch::store::Store;
use crate::error::{Error, Result};
use crate::graph::{Dataflow, Layout};
use crate::source::Position;
use crate::worker::{ControlKind, Part, ReadOptions, Reader, Setup, Shared, Step, Worker, WorkerOptions, channels};
use doubles::{ColdTables, FaultyStore, Log};
use rng::Rng;

/// What is simulated.
pub struct Simulation<'a> {
    /// The seed of everything.
    pub seed: u64,
    /// The dataflow of one start; its sources read the log given.
    pub flow: &'a dyn Fn(&Log) -> Dataflow,
    /// The log.
    pub log: Log,
    /// Worker counts to choose from at each start.
    pub workers: &'a [usize],
    /// How many crashes at most; each is drawn.
    pub crashes_max: u32,
    /// How many bounded runs the log is read in: each but the last ends at random offsets and publishes what is open.
    pub runs: u32,
    /// A promise that a double breaks on purpose, to show that the simulation would notice.
    pub sabotage: Option<Sabotage>,
}

/// What a double does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The store loses a file that the newest manifest names, at every crash.
    LosesFiles,
    /// The cold tier adds an epoch again though its transaction id is there.
    IgnoresTransactions,
}

/// What is left when it is over.
pub struct Outcome {
    /// The last manifest.
    pub manifest: Manifest,
    /// The store.
    pub store: Arc<FaultyStore>,
    /// The cold tier.
    pub cold: ColdTables,
    /// How often the process died.
    pub crashes: u32,
    /// Steps taken.
    pub steps: u64,
}

/// More steps than any run needs: a livelock is a failure, not a hang.
const STEPS_MAX: u64 = 400_000;

impl Simulation<'_> {
    /// Runs to the end of the log, dying and recovering on the way.
    pub fn run(self) -> Result<Outcome> {
        let mut rng = Rng::new(self.seed);
        let store = Arc::new(FaultyStore::default());
        let cold = ColdTables::new(self.sabotage == Some(Sabotage::IgnoresTransactions));
        let (mut crashes, mut steps, mut now) = (0, 0, 0);
        for run in 0..self.runs.max(1) {
            let last = run + 1 == self.runs.max(1);
            let ends = self.log.ends(if last { None } else { Some(&mut rng) });
            loop {
                let dies = crashes < self.crashes_max && rng.chance(70);
                store.fail_after(if dies && rng.chance(50) { Some(rng.below(30)) } else { None });
                let patience = if dies { rng.below(600) + 1 } else { u64::MAX };
                let life = Life { simulation: &self, ends: &ends, patience };
                match life.live(&mut rng, &store, &cold, &mut steps, &mut now) {
                    Ok(Ended::Finished) => break,
                    Ok(Ended::Died) => crashes += 1,
                    // An injected fault ends the process as a crash does; any other error is a finding.
                    Err(_) if store.has_failed() => crashes += 1,
                    Err(error) => return Err(error),
                }
                store.fail_after(None);
                if self.sabotage == Some(Sabotage::LosesFiles) {
                    lose_file(store.as_ref())?;
                }
                if steps > STEPS_MAX {
                    return Err(Error::failed(format!("seed {}: no progress after {steps} steps", self.seed)));
                }
            }
        }
        store.fail_after(None);
        let manifest = newest(store.as_ref())?.ok_or_else(|| Error::failed("no epoch was ever written"))?;
        Ok(Outcome { manifest, store, cold, crashes, steps })
    }
}

enum Ended {
    Finished,
    Died,
}

struct Life<'a> {
    simulation: &'a Simulation<'a>,
    ends: &'a [Vec<(i32, i64)>],
    patience: u64,
}

impl Life<'_> {
    fn live(&self, rng: &mut Rng, store: &Arc<FaultyStore>, cold: &ColdTables, steps: &mut u64, now: &mut i64) -> Result<Ended> {
        let workers = *rng.pick(self.simulation.workers).unwrap_or(&1);
        let log = self.simulation.log.reseeded(rng.next());
        let flow = Arc::new((self.simulation.flow)(&log));
        let layout = Arc::new(Layout::of(&flow)?);
        let identity = Identity { pipeline: "sim".into(), incarnation: format!("{:016x}", rng.next()), build: "sim".into(), workers };
        let manifest = start(store.as_ref(), &flow, &identity, &log)?;
        let restored = Restored::read(store.as_ref(), &manifest)?;
        let unpublished = hot_rows(store.as_ref(), &manifest)?;
        let shared = Arc::new(Shared::new(workers));
        let publisher: Box<dyn Publisher> = Box::new(cold.publisher(Arc::clone(store), rng.next()));
        let options =
            EpochOptions { publish_ms: 1 + rng.below(40) as i64, read_retention_ms: 50, compact_ratio: 0, ..EpochOptions::default() };
        let as_store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
        let mut coordinator = Coordinator::begin(
            Arc::clone(&flow),
            Arc::clone(&layout),
            as_store,
            Some(publisher),
            options,
            Arc::clone(&shared),
            manifest,
            unpublished,
            workers,
            *now,
        )?;
        let (parts_in, parts_out) = bounded::<Part>(workers * 2);
        let (senders, receivers) = channels(workers, &layout);
        let read =
            ReadOptions { rows_per_tick_max: 1 + rng.below(40) as usize, idle: false, drift_max_us: i64::MAX, ..ReadOptions::default() };
        let options =
            WorkerOptions { read, epoch_us: 1 + rng.below(3_000) as i64, tick_us_max: 500, bounded: true, ..WorkerOptions::default() };
        let mut alive = Vec::with_capacity(workers);
        for (index, inbox) in receivers.into_iter().enumerate() {
            let mut readers = Vec::with_capacity(flow.sources.len());
            for (source, spec) in flow.sources.iter().enumerate() {
                let positions =
                    coordinator.manifest().sources.get(source).map(|entry| positions_of(entry, index, workers)).unwrap_or_default();
                let ends = self.ends.get(source);
                let end =
                    |partition: i32| ends.and_then(|ends| ends.iter().find(|(each, _)| *each == partition)).map_or(0, |(_, end)| *end);
                readers.push(if positions.is_empty() { None } else { Some(Reader::open(source, spec, positions, Some(&end))?) });
            }
            let mut worker = Worker::new(Setup {
                index,
                count: workers,
                flow: Arc::clone(&flow),
                layout: Arc::clone(&layout),
                readers,
                options,
                shared: Arc::clone(&shared),
                inbox,
                peers: senders.clone(),
                parts: parts_in.clone(),
                sealed: coordinator.manifest().watermarks.clone(),
            })?;
            restored.give(&flow, &mut worker, workers)?;
            alive.push(worker);
        }
        for _ in 0..self.patience {
            *steps += 1;
            if *steps > STEPS_MAX {
                return Err(Error::failed(format!("seed {}: no end after {steps} steps", self.simulation.seed)));
            }
            *now += rng.below(3) as i64;
            let turn = rng.below(alive.len() as u64 + 1) as usize;
            match alive.get_mut(turn) {
                Some(worker) => {
                    if worker.step(*now * 100)? == Step::Idle {
                        *now += 1;
                    }
                }
                None => {
                    while let Ok(part) = parts_out.try_recv() {
                        if coordinator.add(part, *now)? == Some(ControlKind::End) {
                            shared.stop.store(true, Ordering::Release);
                            return Ok(Ended::Finished);
                        }
                        if rng.chance(30) {
                            break;
                        }
                    }
                }
            }
        }
        Ok(Ended::Died)
    }
}

/// Removes the newest file of state that the newest manifest names.
fn lose_file(store: &dyn Store) -> Result<()> {
    let Some(manifest) = newest(store)? else { return Ok(()) };
    let mut files = manifest.state.iter().rev().flat_map(|entry| entry.chain.last()).filter_map(|file| file.upserts.as_ref());
    match files.next() {
        Some(section) => store.delete(&section.file),
        None => Ok(()),
    }
}

/// The manifest to go on from, with this start's incarnation; epoch 0 if there is none.
fn start(store: &dyn Store, flow: &Dataflow, identity: &Identity, log: &Log) -> Result<Manifest> {
    match newest(store)? {
        Some(found) => {
            crate::epoch::recover::check_plan(flow, &found)?;
            let sources = found.sources.clone();
            crate::epoch::recover::go_on(flow, identity, found, sources)
        }
        None => {
            let sources = flow.sources.iter().enumerate().map(|(source, spec)| SourceEntry {
                name: spec.name.clone(),
                reading: spec.reading,
                topic: spec.topic.clone(),
                topic_id: None,
                partitions: log.partitions(source).map(|partition| Position::new(partition, 0)).collect(),
            });
            let manifest = create(flow, identity, "sim".to_owned(), sources.collect())?;
            store.put_new(&crate::epoch::coordinator::manifest_path(0), &serde_json::to_vec(&manifest)?)?;
            Ok(manifest)
        }
    }
}
