//! Driving a dataflow for real: a thread a worker, one for the coordinator, and the clock they are told.
//!
//! Always: this module and the connectors are the only ones that read clocks or spawn threads; whoever fails first ends the run for
//! all, and nothing of the epoch in the making counts. The simulation (`sim`) drives the same workers without it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use crate::epoch::coordinator::{Coordinator, EpochOptions, Publisher};
use crate::epoch::delivery::{Deliver, Delivery, DeliveryLimits};
use crate::epoch::manifest::Manifest;
use crate::epoch::recover::{Restored, hot_rows, positions_of, sealed_rows};
use crate::epoch::store::Store;
use crate::error::{Error, Result};
use crate::graph::{Dataflow, Layout};
use crate::worker::{ControlKind, Part, Reader, Setup, Shared, Step, Worker, WorkerOptions, channels};

/// Everything a run needs.
pub struct Run {
    /// The dataflow.
    pub flow: Dataflow,
    /// Threads.
    pub workers: usize,
    /// How workers run.
    pub options: WorkerOptions,
    /// How epochs are kept.
    pub epochs: EpochOptions,
    /// Where.
    pub store: Arc<dyn Store>,
    /// The newest manifest, with this start's incarnation in it.
    pub manifest: Manifest,
    /// The cold tier.
    pub publisher: Option<Box<dyn Publisher>>,
    /// The sinks, if there are any.
    pub deliver: Option<Box<dyn Deliver>>,
    /// End offsets of a bounded run, by source and partition.
    pub ends: Option<Vec<Vec<(i32, i64)>>>,
    /// Flags and figures, also for whoever watches.
    pub shared: Arc<Shared>,
    /// Told of every epoch.
    pub on_epoch: Box<dyn Fn(&Manifest) + Send>,
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "this module owns the wall clock")]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Runs until the input ends, the user stops it or something fails. Answers the last manifest.
#[allow(clippy::disallowed_methods, reason = "this module owns the clock that workers are told")]
pub fn run(mut run: Run) -> Result<Manifest> {
    if !run.options.read.idle {
        run.manifest.wake();
    }
    let flow = Arc::new(run.flow);
    let layout = Arc::new(Layout::of(&flow)?);
    let restored = Restored::read(run.store.as_ref(), &run.manifest)?;
    let unpublished = hot_rows(run.store.as_ref(), &run.manifest)?;
    let (parts_in, parts_out) = bounded::<Part>(run.workers * 2);
    let (senders, receivers) = channels(run.workers, &layout);
    let mut coordinator = Coordinator::begin(
        Arc::clone(&flow),
        Arc::clone(&layout),
        Arc::clone(&run.store),
        run.publisher,
        run.epochs,
        Arc::clone(&run.shared),
        run.manifest,
        unpublished,
        run.workers,
        now_ms(),
    )?;
    if let Some(deliver) = run.deliver {
        // Only now: the epoch just written shut out whoever ran before.
        let sealed = sealed_rows(run.store.as_ref(), coordinator.manifest())?;
        coordinator.deliver_to(Delivery::begin(deliver, coordinator.manifest(), sealed, DeliveryLimits::default())?);
    }
    let began = Instant::now();
    let manifest = coordinator.manifest().clone();
    let threads: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(index, inbox)| {
            let setup = |readers| Setup {
                index,
                count: run.workers,
                flow: Arc::clone(&flow),
                layout: Arc::clone(&layout),
                readers,
                options: run.options,
                shared: Arc::clone(&run.shared),
                inbox: inbox.clone(),
                peers: senders.clone(),
                parts: parts_in.clone(),
                sealed: manifest.watermarks.clone(),
            };
            let mut readers = Vec::with_capacity(flow.sources.len());
            for (source, spec) in flow.sources.iter().enumerate() {
                let positions = manifest.sources.get(source).map(|entry| positions_of(entry, index, run.workers)).unwrap_or_default();
                let ends = run.ends.as_ref().and_then(|ends| ends.get(source));
                let end_of =
                    |partition: i32| ends.and_then(|ends| ends.iter().find(|(each, _)| *each == partition)).map_or(0, |(_, end)| *end);
                let end_of: Option<&dyn Fn(i32) -> i64> = if ends.is_some() { Some(&end_of) } else { None };
                readers.push(if positions.is_empty() { None } else { Some(Reader::open(source, spec, positions, end_of)?) });
            }
            let mut worker = Worker::new(setup(readers))?;
            restored.give(&flow, &mut worker, run.workers)?;
            let (shared, inbox) = (Arc::clone(&run.shared), inbox.clone());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || drive(worker, &shared, &inbox, began)).map_err(Error::from)
        })
        .collect::<Result<Vec<_>>>()?;
    drop((parts_in, restored, senders));
    let coordinated = coordinate(&mut coordinator, &parts_out, &run.shared, &run.on_epoch);
    if coordinated.is_err() {
        run.shared.failed.store(true, Ordering::Release);
    }
    let mut first: Option<Error> = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => first = first.or(Some(error)),
            Err(_) => first = first.or_else(|| Some(Error::failed("a worker broke down; this is a bug in Tidemill"))),
        }
    }
    match (coordinated, first) {
        // A worker that fails takes the coordinator with it: its own error is the one to tell.
        (_, Some(error)) | (Err(error), None) => Err(error),
        (Ok(()), None) => Ok(coordinator.manifest().clone()),
    }
}

fn drive(mut worker: Worker, shared: &Shared, inbox: &Receiver<crate::worker::Message>, began: Instant) -> Result<()> {
    let mut told = 0;
    let mut quiet = 0_u32;
    let result = loop {
        if shared.failed.load(Ordering::Acquire) {
            break Ok(());
        }
        match worker.step(began.elapsed().as_micros() as i64) {
            Ok(Step::Worked) => quiet = 0,
            Ok(Step::Done) => break Ok(()),
            Ok(Step::Idle) => {
                let committed = shared.committed.load(Ordering::Acquire);
                if committed != told {
                    told = committed;
                    worker.committed();
                }
                // A short wait while things move, a longer one when nothing does: records wait at most this long.
                quiet = (quiet + 1).min(10);
                wait_for_message(inbox, Duration::from_micros(100 * u64::from(quiet)));
            }
            Err(error) => break Err(error),
        }
    };
    match result {
        // Whoever fails because another has failed has nothing to tell.
        Err(_) if shared.failed.swap(true, Ordering::AcqRel) => Ok(()),
        told => told,
    }
}

/// Returns when a message is there or the time is over; takes nothing out of the channel.
fn wait_for_message(inbox: &Receiver<crate::worker::Message>, limit: Duration) {
    let mut select = crossbeam::channel::Select::new();
    select.recv(inbox);
    // Either way the worker looks for itself.
    let _ = select.ready_timeout(limit);
}

fn coordinate(coordinator: &mut Coordinator, parts: &Receiver<Part>, shared: &Shared, on_epoch: &dyn Fn(&Manifest)) -> Result<()> {
    loop {
        coordinator.look()?;
        match parts.recv_timeout(Duration::from_millis(100)) {
            Ok(part) => {
                let ended = coordinator.add(part, now_ms())?;
                if ended.is_some() {
                    on_epoch(coordinator.manifest());
                }
                if matches!(ended, Some(ControlKind::End | ControlKind::Stop)) {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) if shared.failed.load(Ordering::Acquire) => return Err(Error::failed("the run has failed")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::failed("the workers are gone")),
        }
    }
}
