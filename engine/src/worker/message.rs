//! What workers tell each other: exactly one message per stage and tick to every worker, empty or not.

use crate::graph::NodeId;
use crate::rows::Rows;
use crate::time::{Micros, Watermark};

/// One worker's word on one stage of one tick, to one worker.
#[derive(Debug, Clone)]
pub struct Message {
    /// The stage that is done.
    pub stage: usize,
    /// The worker that speaks.
    pub from: usize,
    /// The tick.
    pub tick: u64,
    /// The clock sealed when the tick was opened.
    pub clock: Micros,
    /// For each exchange of that stage: the rows for this worker and the sender's watermark there.
    pub edges: Vec<(NodeId, Vec<Rows>, Watermark)>,
    /// The sender's source watermarks after the tick (stage 0 only).
    pub minima: Vec<Watermark>,
    /// Every partition of the sender has reached its end offset (stage 0 only).
    pub drained: bool,
    /// What worker 0 announces, at least a run-ahead before it happens.
    pub control: Option<Control>,
}

/// Something that happens at the end of a tick, on every worker and stage alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The tick.
    pub at: u64,
    /// What.
    pub kind: ControlKind,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// An epoch is cut.
    Cut,
    /// The input has ended: everything open is published, an epoch is cut, the run is over.
    End,
    /// The user stops the run: an epoch is cut, the run is over.
    Stop,
}
