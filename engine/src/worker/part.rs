//! A worker's part of an epoch: what each stage held when it had finished the tick of the cut.

use crate::account::NodeCounts;
use crate::graph::{NodeId, OutputId};
use crate::letter::{DeadLetter, LateEvent};
use crate::rows::{Rows, SourceId};
use crate::source::Position;
use crate::state::{Changes, Scalars};
use crate::time::Watermark;
use crate::worker::message::ControlKind;
use crate::worker::reader::ReadRange;

/// Sent to the coordinator when the cut's tick is finished.
pub struct Part {
    /// Whose.
    pub worker: usize,
    /// What ended with the tick.
    pub kind: ControlKind,
    /// The tick of the cut.
    pub tick: u64,
    /// Its partitions after that tick.
    pub positions: Vec<(SourceId, Vec<Position>)>,
    /// What each tick read.
    pub ranges: Vec<(u64, ReadRange)>,
    /// What each node counted since the last cut (`held` as a difference).
    pub counts: Vec<NodeCounts>,
    /// State that changed.
    pub state: Vec<NodeState>,
    /// Changes of output tables.
    pub outputs: Vec<(OutputId, Vec<Rows>)>,
    /// Dead letters: of an output, or of the record as such.
    pub dead: Vec<(Option<OutputId>, DeadLetter)>,
    /// Late events.
    pub late: Vec<(OutputId, LateEvent)>,
    /// The sealed minimum of each source.
    pub watermarks: Vec<Watermark>,
    pub(super) told_drained: bool,
}

/// What one operator captured.
pub struct NodeState {
    /// The node.
    pub node: NodeId,
    /// One entry a state table.
    pub tables: Vec<Changes>,
    /// Its scalars.
    pub scalars: Scalars,
}

impl Part {
    pub(super) fn new(worker: usize, nodes: usize) -> Self {
        Self {
            worker,
            kind: ControlKind::Cut,
            tick: 0,
            positions: Vec::new(),
            ranges: Vec::new(),
            counts: vec![NodeCounts::default(); nodes],
            state: Vec::new(),
            outputs: Vec::new(),
            dead: Vec::new(),
            late: Vec::new(),
            watermarks: Vec::new(),
            told_drained: false,
        }
    }

    /// Nothing happened in this epoch?
    pub fn is_empty(&self) -> bool {
        self.kind == ControlKind::Cut
            && self.ranges.is_empty()
            && self.outputs.iter().all(|(_, rows)| rows.is_empty())
            && self.dead.is_empty()
            && self.late.is_empty()
            && self.state.iter().all(|state| state.tables.iter().all(Changes::is_empty))
    }
}
