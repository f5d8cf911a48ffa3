//! A worker: one thread's share of the dataflow, stepped tick by tick.
//!
//! Always: a worker opens source tick t only after it has finished tick t - R (R = `RUN_AHEAD`), so no channel is ever full and no
//! send blocks; downstream stages come before reading more; a stage runs tick t when all workers' messages of t are there, taken
//! in worker order; a stage is captured when it has finished the tick of the cut and before it sees the next.
//! `step` never blocks and reads no clock: the driver says what time it is. That is what lets the simulation run it.

mod message;
mod part;
pub mod reader;
mod stage;
#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

pub use message::{Control, ControlKind, Message};
pub use part::{NodeState, Part};
pub use reader::{ReadOptions, ReadRange, Reader};

use crate::error::{Error, Result};
use crate::graph::{Dataflow, Layout, NodeKind};
use crate::rows::SourceId;
use crate::time::{BEGINNING, Micros, Watermark, least};
use stage::NodeRun;
pub use stage::split;

/// How many ticks a worker may open beyond the one it has finished.
pub const RUN_AHEAD: u64 = 2;
/// Bytes of state are added up every so many ticks, and at each cut.
const STATE_LOOK_TICKS: u64 = 16;
/// Sealed minima that can still be asked for: from the run-ahead before the tick being opened to the run-ahead after the one that ends.
const SEALED_TICKS_MAX: usize = 2 * RUN_AHEAD as usize + 2;

/// What the run's parts share: flags and figures, no data.
#[derive(Debug, Default)]
pub struct Shared {
    /// The user asked to stop.
    pub stop: AtomicBool,
    /// The run shall stop as if asked to, and begin again: a topic has got partitions.
    pub again: AtomicBool,
    /// Cuts whose manifest is written.
    pub committed: AtomicU64,
    /// Someone failed: everybody ends.
    pub failed: AtomicBool,
    /// So much waits to go out to sinks that nothing is read.
    pub paused: AtomicBool,
    /// Bytes of rows for sinks that no epoch has taken yet.
    pub sink_bytes: AtomicU64,
    /// The next cut writes all state anew (a restart with other workers, a chain grown long).
    pub full_state: AtomicBool,
    /// Records read.
    pub rows_in: AtomicU64,
    /// Dead letters.
    pub dead: AtomicU64,
    /// Late events.
    pub late: AtomicU64,
    /// The sealed watermark of the first source, as `i64` bits (`i64::MIN`: none).
    pub watermark: std::sync::atomic::AtomicI64,
    /// Bytes of state, by worker (grown by `Shared::new`).
    pub state_bytes: Vec<AtomicU64>,
}

impl Shared {
    /// Flags and figures for a number of workers.
    pub fn new(workers: usize) -> Self {
        Self {
            state_bytes: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            watermark: std::sync::atomic::AtomicI64::new(i64::MIN),
            ..Self::default()
        }
    }
}

/// How workers run.
#[derive(Debug, Clone, Copy)]
pub struct WorkerOptions {
    /// How sources are read.
    pub read: ReadOptions,
    /// An epoch is cut this often.
    pub epoch_us: i64,
    /// Worker 0 opens a tick at least this often, so that time passes without data.
    pub tick_us_max: i64,
    /// The run ends at the sources' end offsets.
    pub bounded: bool,
    /// An epoch is cut early when rows for sinks have this many bytes: one transaction carries them all.
    pub sink_bytes_per_epoch_max: u64,
    /// Bytes of state of all workers together; more ends the run.
    pub state_bytes_max: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            read: ReadOptions::default(),
            epoch_us: 1_000_000,
            tick_us_max: 20_000,
            bounded: false,
            sink_bytes_per_epoch_max: 64 << 20,
            state_bytes_max: u64::MAX,
        }
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something; step again.
    Worked,
    /// Nothing to do until a message or a record comes.
    Idle,
    /// The last tick is finished.
    Done,
}

/// See the module doc.
pub struct Worker {
    index: usize,
    count: usize,
    layout: Arc<Layout>,
    nodes: Vec<NodeRun>,
    readers: Vec<Option<Reader>>,
    options: WorkerOptions,
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    peers: Vec<Sender<Message>>,
    /// Messages not yet used, by stage and sender.
    waiting: Vec<Vec<VecDeque<Message>>>,
    /// Last tick each stage has finished; the last entry is the gate.
    finished: Vec<u64>,
    opened: u64,
    opened_at: Micros,
    clock: Micros,
    cut_at: Micros,
    cuts_announced: u64,
    control: Option<Control>,
    /// The minima sealed after each of the last ticks, newest last; before the first tick those of the last epoch.
    sealed: VecDeque<(u64, Vec<Watermark>)>,
    /// When a tick was last opened with everybody's word on the one before, so that idle partitions could wake.
    looked_at: Micros,
    drained: bool,
    part: Part,
    parts: Sender<Part>,
    done: bool,
}

/// The channels between `count` workers, each with room for every message that can be in flight.
pub fn channels(count: usize, layout: &Layout) -> (Vec<Sender<Message>>, Vec<Receiver<Message>>) {
    let room = count * layout.stages.len() * (2 * RUN_AHEAD as usize + 2);
    (0..count).map(|_| bounded(room)).unzip()
}

/// What one worker is made of.
pub struct Setup {
    /// Which worker, of how many.
    pub index: usize,
    /// How many workers.
    pub count: usize,
    /// The dataflow.
    pub flow: Arc<Dataflow>,
    /// Its layout.
    pub layout: Arc<Layout>,
    /// This worker's readers, by source.
    pub readers: Vec<Option<Reader>>,
    /// Options.
    pub options: WorkerOptions,
    /// Shared flags.
    pub shared: Arc<Shared>,
    /// Messages to this worker.
    pub inbox: Receiver<Message>,
    /// Senders to all workers, this one included.
    pub peers: Vec<Sender<Message>>,
    /// Where parts of epochs go.
    pub parts: Sender<Part>,
    /// The minima that the last epoch sealed, by source.
    pub sealed: Vec<Watermark>,
}

impl Worker {
    /// A worker whose operators are fresh; `nodes_mut` gives them their state back.
    pub fn new(setup: Setup) -> Result<Self> {
        let nodes = setup.flow.nodes.iter().map(|node| NodeRun::new(node, &setup.flow)).collect::<Result<Vec<_>>>()?;
        let stages = setup.layout.stages.len();
        let mut sealed = setup.sealed;
        sealed.resize(setup.flow.sources.len(), None);
        Ok(Self {
            index: setup.index,
            count: setup.count,
            waiting: vec![vec![VecDeque::new(); setup.count]; stages],
            finished: vec![0; stages + 1],
            opened: 0,
            opened_at: Micros::MIN,
            clock: Micros::MIN,
            cut_at: Micros::MIN,
            cuts_announced: 0,
            control: None,
            sealed: VecDeque::from([(0, sealed)]),
            looked_at: Micros::MIN,
            drained: false,
            part: Part::new(setup.index, setup.flow.nodes.len()),
            parts: setup.parts,
            done: false,
            nodes,
            layout: setup.layout,
            readers: setup.readers,
            options: setup.options,
            shared: setup.shared,
            inbox: setup.inbox,
            peers: setup.peers,
        })
    }

    /// This worker's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Gives a node's operator something to take back before the first tick.
    pub fn restore(&mut self, node: usize, f: impl FnOnce(&mut dyn crate::operator::Operator) -> Result<()>) -> Result<()> {
        match self.nodes.get_mut(node).and_then(NodeRun::operator) {
            Some(operator) => f(operator),
            None => Err(Error::failed(format!("node {node} keeps no state"))),
        }
    }

    /// Does the next thing there is to do at time `now`.
    pub fn step(&mut self, now: Micros) -> Result<Step> {
        if self.done {
            return Ok(Step::Done);
        }
        self.receive()?;
        for stage in (1..self.finished.len()).rev() {
            let tick = self.finished[stage] + 1;
            if self.waiting[stage - 1].iter().all(|queue| queue.front().is_some_and(|message| message.tick == tick)) {
                self.run_later_stage(stage, tick)?;
                return Ok(if self.done { Step::Done } else { Step::Worked });
            }
        }
        let gate = self.finished.last().copied().unwrap_or_default();
        let next = self.opened + 1;
        let over = self.control.is_some_and(|control| control.kind != ControlKind::Cut && next > control.at);
        if next > gate + RUN_AHEAD || over {
            return Ok(Step::Idle);
        }
        self.open_tick(next, now)
    }

    fn receive(&mut self) -> Result<()> {
        loop {
            match self.inbox.try_recv() {
                Ok(message) => {
                    if message.control.is_some() {
                        self.control = message.control;
                    }
                    let (stage, from) = (message.stage, message.from);
                    match self.waiting.get_mut(stage).and_then(|senders| senders.get_mut(from)) {
                        Some(queue) => queue.push_back(message),
                        None => return Err(Error::failed(format!("a message of stage {stage} from worker {from}"))),
                    }
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Error::failed("the other workers are gone")),
            }
        }
    }

    /// Opens a source tick if there is a reason to: rows, a tick others have opened, a cut to reach, or time that must pass.
    fn open_tick(&mut self, tick: u64, now: Micros) -> Result<Step> {
        let sealed = self.sealed_after(tick - 1).cloned();
        if sealed.is_some() {
            self.looked_at = now;
        } else if self.readers.iter().flatten().any(Reader::needs_word) && now.saturating_sub(self.looked_at) >= self.options.tick_us_max {
            // An idle partition wakes only on everybody's word: a worker that is always ahead would never look at it.
            return Ok(Step::Idle);
        }
        let mut rows: Vec<Vec<crate::rows::Rows>> = Vec::with_capacity(self.readers.len());
        let mut reason = false;
        let paused = self.shared.paused.load(Ordering::Acquire);
        for (source, reader) in self.readers.iter_mut().enumerate() {
            let Some(reader) = reader.as_mut().filter(|_| !paused) else {
                rows.push(Vec::new());
                continue;
            };
            let node = self.nodes.iter_mut().find(|node| matches!(node.kind, NodeKind::Source(each) if each == source));
            let Some(node) = node else { return Err(Error::failed("a source without a node")) };
            let minimum = sealed.as_ref().map(|minima| minima.get(source).copied().flatten());
            let taken = reader.take(&self.options.read, now, minimum, &mut node.output)?;
            reason |= taken.turned || !taken.ranges.is_empty();
            self.part.ranges.extend(taken.ranges.into_iter().map(|range| (tick, range)));
            rows.push(taken.rows);
        }
        let followed = self.waiting.iter().flatten().any(|queue| queue.back().is_some_and(|message| message.tick >= tick));
        let pending = self.control.is_some_and(|control| tick <= control.at);
        let elapsed = self.index == 0 && now.saturating_sub(self.opened_at) >= self.options.tick_us_max;
        let drained = self.readers.iter().flatten().all(Reader::drained);
        let ending = self.options.bounded && drained && !self.part.told_drained;
        if !(reason || followed || pending || elapsed || ending) {
            return Ok(Step::Idle);
        }
        self.part.told_drained = drained;
        self.opened = tick;
        self.opened_at = now;
        self.clock = self.clock.max(now);
        self.announce(tick, now);
        let minima: Vec<Watermark> = self.readers.iter().map(|reader| reader.as_ref().and_then(Reader::watermark)).collect();
        let promised = self.promised(tick, &minima);
        self.run_source_stage(tick, rows, &promised)?;
        self.finish_stage(0, tick, self.clock, minima, drained)?;
        Ok(Step::Worked)
    }

    /// The minima after a tick, if everybody's word on it is here.
    fn sealed_after(&self, tick: u64) -> Option<&Vec<Watermark>> {
        self.sealed.iter().find(|(each, _)| *each == tick).map(|(_, minima)| minima)
    }

    /// What this worker's sources promise in a tick. One whose partitions here are all idle promises what everybody has sealed: it holds
    /// nothing back, and a row of it that comes later is judged by no less. One without partitions here has nothing to say.
    fn promised(&self, tick: u64, minima: &[Watermark]) -> Vec<Watermark> {
        let sealed = self.sealed_after(tick.saturating_sub(RUN_AHEAD));
        let all = minima.iter().zip(&self.readers).enumerate();
        all.map(|(source, (own, reader))| match (own, reader) {
            (None, Some(_)) => sealed.and_then(|minima| minima.get(source).copied().flatten()).or(Some(BEGINNING)),
            (own, _) => *own,
        })
        .collect()
    }

    /// Worker 0 decides what happens at the end of tick `tick + RUN_AHEAD`, which nobody can have opened yet.
    fn announce(&mut self, tick: u64, now: Micros) {
        if self.index != 0 || self.control.is_some() {
            return;
        }
        if self.cut_at == Micros::MIN {
            self.cut_at = now;
        }
        let idle = self.shared.committed.load(Ordering::Acquire) == self.cuts_announced;
        let kind = if self.drained {
            ControlKind::End
        } else if self.shared.stop.load(Ordering::Acquire) || self.shared.again.load(Ordering::Acquire) {
            ControlKind::Stop
        } else if idle && (now.saturating_sub(self.cut_at) >= self.options.epoch_us || self.sinks_are_full()) {
            ControlKind::Cut
        } else {
            return;
        };
        // A final cut waits for the one before it, so that at most one epoch is being written.
        if !idle {
            return;
        }
        self.cut_at = now;
        self.cuts_announced += 1;
        self.control = Some(Control { at: tick + RUN_AHEAD, kind });
    }

    fn sinks_are_full(&self) -> bool {
        self.shared.sink_bytes.load(Ordering::Relaxed) >= self.options.sink_bytes_per_epoch_max
    }

    fn run_later_stage(&mut self, stage: usize, tick: u64) -> Result<()> {
        let mut messages = Vec::with_capacity(self.count);
        for queue in &mut self.waiting[stage - 1] {
            messages.extend(queue.pop_front());
        }
        let clock = messages.iter().map(|message| message.clock).max().unwrap_or(self.clock);
        if stage == 1 {
            self.seal(tick, &messages);
        }
        if stage < self.layout.stages.len() {
            self.run_stage(stage, tick, messages)?;
            return self.finish_stage(stage, tick, clock, Vec::new(), false);
        }
        self.finished[stage] = tick;
        self.close_tick(tick)
    }

    /// Everybody's word on tick `tick` is here: the minima are what floors are taken from.
    fn seal(&mut self, tick: u64, messages: &[Message]) {
        let mut minima = self.sealed.back().map(|(_, minima)| minima.clone()).unwrap_or_default();
        let word = |source: usize| messages.iter().map(|message| message.minima.get(source).copied().flatten()).fold(None, least);
        let words: Vec<Watermark> = (0..minima.len()).map(word).collect();
        for (sealed, word) in minima.iter_mut().zip(&words) {
            *sealed = (*sealed).max(*word);
        }
        // A source that is idle altogether lets pass what the sources it meets have reached: it holds up no join. Its next rows are
        // judged by that, which is their floor.
        for source in (0..minima.len()).filter(|source| words[*source].is_none()) {
            let others = self.layout.meets.get(source).into_iter().flatten().filter(|other| words[**other].is_some());
            let reached = others.map(|other| minima[*other]).fold(None, least);
            minima[source] = minima[source].max(reached);
        }
        let watermark = minima.iter().copied().flatten().min().unwrap_or(i64::MIN);
        self.sealed.push_back((tick, minima));
        if self.sealed.len() > SEALED_TICKS_MAX {
            self.sealed.pop_front();
        }
        self.drained = self.options.bounded && messages.iter().all(|message| message.drained);
        if self.index == 0 {
            self.shared.watermark.store(watermark, Ordering::Relaxed);
        }
    }

    fn finish_stage(&mut self, stage: usize, tick: u64, clock: Micros, minima: Vec<Watermark>, drained: bool) -> Result<()> {
        if self.control.is_some_and(|control| control.at == tick) {
            self.capture(stage)?;
        }
        let sent = self.outgoing(stage);
        for (peer, edges) in self.peers.iter().zip(sent) {
            let minima = minima.clone();
            let control = if stage == 0 && self.index == 0 { self.control } else { None };
            let message = Message { stage, from: self.index, tick, clock, edges, minima, drained, control };
            peer.try_send(message).map_err(|error| match error {
                TrySendError::Full(_) => Error::failed("a channel between workers is full: a tick was opened too early"),
                TrySendError::Disconnected(_) => Error::failed("another worker is gone"),
            })?;
        }
        self.finished[stage] = tick;
        Ok(())
    }

    fn close_tick(&mut self, tick: u64) -> Result<()> {
        let control = self.control.filter(|control| control.at == tick);
        if control.is_some() || tick.is_multiple_of(STATE_LOOK_TICKS) {
            self.look_at_state()?;
        }
        let Some(control) = control else { return Ok(()) };
        self.control = None;
        self.done = control.kind != ControlKind::Cut;
        let mut part = std::mem::replace(&mut self.part, Part::new(self.index, self.nodes.len()));
        part.kind = control.kind;
        part.tick = tick;
        part.watermarks = self.sealed_after(tick).cloned().unwrap_or_default();
        // Rows read by ticks after the cut belong to the next epoch.
        let (now, later) = part.ranges.into_iter().partition(|(each, _)| *each <= tick);
        part.ranges = now;
        self.part.ranges = later;
        self.part.told_drained = part.told_drained;
        self.parts.try_send(part).map_err(|_| Error::failed("the epochs' coordinator is gone"))
    }

    /// Adds up the bytes of state and ends the run when all workers together hold too many: nothing is unbounded, and nothing is dropped.
    fn look_at_state(&self) -> Result<()> {
        let held: Vec<u64> = self.nodes.iter().map(|node| node.state_bytes() as u64).collect();
        if let Some(slot) = self.shared.state_bytes.get(self.index) {
            slot.store(held.iter().sum(), Ordering::Relaxed);
        }
        let total: u64 = self.shared.state_bytes.iter().map(|slot| slot.load(Ordering::Relaxed)).sum();
        if total <= self.options.state_bytes_max {
            return Ok(());
        }
        let most = self.nodes.iter().zip(&held).max_by_key(|(_, bytes)| **bytes);
        let (name, bytes) = most.map_or(("none", 0), |(node, bytes)| (node.id.as_str(), *bytes));
        Err(Error::failed(format!(
            "state has grown to {total} bytes, and state_bytes_max is {}; most of it is held by operator {name} ({bytes} bytes in one of {} workers). \
             Nothing after the last epoch counts. Bound the state (a window, a shorter lateness, state_ttl), or allow more with --set state_bytes_max=BYTES",
            self.options.state_bytes_max, self.count
        )))
    }

    /// Tells sources what is committed (for lag tools).
    pub fn committed(&mut self) {
        self.readers.iter_mut().flatten().for_each(Reader::committed);
    }

    fn source_of(&self, node: usize) -> Option<SourceId> {
        match self.nodes.get(node).map(|node| &node.kind) {
            Some(NodeKind::Source(source)) => Some(*source),
            _ => None,
        }
    }
}
