//! Delivery: sealed epochs go out to sinks on a thread of their own, one after the other, in order.
//!
//! Always: an epoch goes out only after the manifest that names its rows; epochs of all sinks go out in order, so one number says what
//! has arrived. Nothing here blocks workers or the coordinator: what waits is bounded by `DeliveryLimits`, at which the coordinator
//! pauses reading (`Shared::paused`). How rows reach a sink, and how it knows what it has, is the connector's (`Deliver`). Used by the coordinator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use arrow::array::RecordBatch;
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::epoch::manifest::{Manifest, SinkEntry};
use crate::error::{Error, Result};

/// Brings rows to sinks, all of an epoch or nothing. Implemented by the connectors' side; idempotent.
pub trait Deliver: Send {
    /// Before anything is sent: ends what a predecessor left half done, and answers for each sink the last epoch of this pipeline that
    /// has arrived there. Refused: a sink that knows more than `manifest`, or less than it says has arrived (`check_arrived`).
    fn begin(&mut self, manifest: &Manifest) -> Result<Vec<Option<u64>>>;
    /// Sends one epoch: for each sink with rows its place among the manifest's and the rows, `_weight` last. May take as long as it has
    /// patience; looks at `stop` when it waits.
    fn deliver(&mut self, epoch: u64, rows: &[(usize, RecordBatch)], stop: &AtomicBool) -> Result<()>;
}

/// How much may wait to go out.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryLimits {
    /// Epochs.
    pub epochs_max: usize,
    /// Bytes of their rows.
    pub bytes_max: usize,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self { epochs_max: 32, bytes_max: 256 << 20 }
    }
}

/// Refuses a sink whose own word does not fit the manifest: `arrived` is the last epoch that it has, `place` what it is.
pub fn check_arrived(entry: &SinkEntry, newest: u64, arrived: Option<u64>, place: &str) -> Result<()> {
    if let Some(arrived) = arrived.filter(|arrived| *arrived > newest) {
        return Err(Error::refused(format!(
            "sink {}: {place} has epoch {arrived} of this pipeline, but its newest epoch is {newest}: an older data folder was put back, and \
             going on would deliver twice or not at all; put the newer folder back, or name the pipeline anew (SET pipeline)",
            entry.name
        )));
    }
    if arrived.unwrap_or(0) < entry.delivered {
        return Err(Error::refused(format!(
            "sink {}: epoch {} has been delivered, but {place} {}: what it knew was deleted, so nobody can tell what has arrived; name the \
             pipeline anew (SET pipeline), or start afresh with --reset",
            entry.name,
            entry.delivered,
            arrived.map_or_else(|| "knows of none".to_owned(), |arrived| format!("knows only of epoch {arrived}"))
        )));
    }
    Ok(())
}

/// An epoch on its way.
struct Sealed {
    epoch: u64,
    rows: Vec<(usize, RecordBatch)>,
}

#[derive(Default)]
struct State {
    /// The last epoch that has arrived everywhere.
    arrived: AtomicU64,
    failed: Mutex<Option<Error>>,
    stop: AtomicBool,
}

/// See the module doc.
pub struct Delivery {
    sender: Option<Sender<Sealed>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    /// Epochs sent and the bytes of their rows; those that have arrived are taken out when looked at.
    waiting: VecDeque<(u64, usize)>,
    limits: DeliveryLimits,
}

impl Delivery {
    /// Asks the sinks what they have and sends what is missing of `sealed`, which the manifest names.
    pub fn begin(
        mut deliver: Box<dyn Deliver>,
        manifest: &Manifest,
        sealed: BTreeMap<u64, Vec<(usize, RecordBatch)>>,
        limits: DeliveryLimits,
    ) -> Result<Self> {
        let arrived = deliver.begin(manifest)?;
        let state = Arc::new(State::default());
        // What is sealed already, and twice what may wait: reading pauses at half of it, and a tick or two still come. Were it full the
        // coordinator would wait.
        let (sender, receiver) = bounded(sealed.len() + 2 * limits.epochs_max.max(1));
        let theirs = Arc::clone(&state);
        let thread = thread::Builder::new().name("delivery".to_owned()).spawn(move || run(deliver, &receiver, &theirs))?;
        let mut delivery = Self { sender: Some(sender), state, thread: Some(thread), waiting: VecDeque::new(), limits };
        for (epoch, mut rows) in sealed {
            rows.retain(|(sink, _)| arrived.get(*sink).copied().flatten().is_none_or(|arrived| arrived < epoch));
            delivery.send(epoch, rows)?;
        }
        Ok(delivery)
    }

    /// Hands an epoch over. Its manifest is written. One without rows counts as arrived when those before it have.
    pub fn send(&mut self, epoch: u64, rows: Vec<(usize, RecordBatch)>) -> Result<()> {
        let bytes = rows.iter().map(|(_, batch)| batch.get_array_memory_size()).sum();
        self.waiting.push_back((epoch, bytes));
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(Sealed { epoch, rows }).is_ok());
        if sent { Ok(()) } else { self.look().and(Err(Error::failed("the delivery to sinks has ended"))) }
    }

    /// The last epoch of those sent that has arrived everywhere; 0 before.
    pub fn arrived(&self) -> u64 {
        self.state.arrived.load(Ordering::Acquire)
    }

    /// Has it failed? Also forgets what has arrived.
    pub fn look(&mut self) -> Result<()> {
        let arrived = self.arrived();
        while self.waiting.front().is_some_and(|(epoch, _)| *epoch <= arrived) {
            self.waiting.pop_front();
        }
        match &*self.state.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// So much waits that nothing more should be read.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.limits.epochs_max || self.waiting.iter().map(|(_, bytes)| bytes).sum::<usize>() >= self.limits.bytes_max
    }

    /// Waits until everything sent has arrived. Nothing can be sent after it.
    pub fn finish(&mut self) -> Result<()> {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(Error::failed("the delivery to sinks broke down; this is a bug in Tidemill"));
        }
        self.look()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // Whoever drops it has an error of its own to tell.
            let _ = thread.join();
        }
    }
}

fn run(mut deliver: Box<dyn Deliver>, sealed: &Receiver<Sealed>, state: &State) {
    for Sealed { epoch, rows } in sealed {
        if state.stop.load(Ordering::Acquire) {
            return;
        }
        if !rows.is_empty()
            && let Err(error) = deliver.deliver(epoch, &rows, &state.stop)
        {
            *state.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return;
        }
        state.arrived.store(epoch, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
