//! Running one stage of one tick: rows through the nodes, watermarks beside them, messages at the exchanges, capture at a cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, UInt32Array};

use crate::account::Fate;
use crate::error::Result;
use crate::graph::{Dataflow, Node, NodeId, NodeKind, OutputId};
use crate::hash::{hash_columns, key_group, owner};
use crate::letter::{DeadLetter, LateEvent};
use crate::operator::{Operator, Output};
use crate::rows::Rows;
use crate::time::{Watermark, least};
use crate::worker::message::{ControlKind, Message};
use crate::worker::part::NodeState;
use crate::worker::{Control, Worker};

/// A node as one worker runs it.
pub(super) struct NodeRun {
    pub(super) id: String,
    pub(super) kind: NodeKind,
    operator: Option<Box<dyn Operator>>,
    ports: Vec<Port>,
    pub(super) output: Output,
    /// An exchange's rows, by worker.
    outgoing: Vec<Vec<Rows>>,
    /// A sink's rows since the last cut.
    gathered: Vec<Rows>,
    /// Bytes of them, if they go out to a sink; a table's are not counted.
    gathered_bytes: Option<u64>,
    dead: Vec<(Option<OutputId>, DeadLetter)>,
    late: Vec<(OutputId, LateEvent)>,
}

/// What one input has brought, tick by tick: a node may read an input of an earlier stage.
#[derive(Default)]
struct Port {
    ticks: VecDeque<(u64, Vec<Rows>, Watermark)>,
    watermark: Watermark,
}

impl NodeRun {
    pub(super) fn new(node: &Node, flow: &Dataflow) -> Result<Self> {
        let delivered = matches!(node.kind, NodeKind::Sink(output) if flow.outputs.get(output).is_some_and(|output| output.delivered));
        let operator = match &node.kind {
            NodeKind::Operator(make) => Some(make()?),
            _ => None,
        };
        Ok(Self {
            id: node.id.clone(),
            kind: node.kind.clone(),
            operator,
            ports: node.inputs.iter().map(|_| Port::default()).collect(),
            output: Output::default(),
            outgoing: Vec::new(),
            gathered: Vec::new(),
            gathered_bytes: delivered.then_some(0),
            dead: Vec::new(),
            late: Vec::new(),
        })
    }

    pub(super) fn operator(&mut self) -> Option<&mut (dyn Operator + 'static)> {
        self.operator.as_deref_mut()
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.operator.as_ref().map_or(0, |operator| operator.state_bytes())
    }

    /// The rows each port has for `tick`, and the least watermark over the ports.
    fn take(&mut self, tick: u64) -> (Vec<Vec<Rows>>, Watermark) {
        let mut rows = Vec::with_capacity(self.ports.len());
        let mut watermark = None;
        for port in &mut self.ports {
            let mut brought = Vec::new();
            while port.ticks.front().is_some_and(|(each, _, _)| *each <= tick) {
                if let Some((_, more, told)) = port.ticks.pop_front() {
                    brought.extend(more);
                    // Idle inputs say nothing; what was promised before stands.
                    port.watermark = port.watermark.max(told);
                }
            }
            watermark = least(watermark, port.watermark);
            rows.push(brought);
        }
        (rows, watermark)
    }
}

impl Worker {
    /// Stage 0: what the sources brought.
    pub(super) fn run_source_stage(&mut self, tick: u64, mut rows: Vec<Vec<Rows>>, promised: &[Watermark]) -> Result<()> {
        let nodes = self.layout.stages[0].clone();
        for id in nodes {
            if let Some(source) = self.source_of(id) {
                let node = &mut self.nodes[id];
                node.output.watermark = promised.get(source).copied().flatten();
                node.output.rows = rows.get_mut(source).map(std::mem::take).unwrap_or_default();
                let read: usize = node.output.rows.iter().map(Rows::len).sum();
                self.shared.rows_in.fetch_add((read + node.output.dead.len()) as u64, Ordering::Relaxed);
                self.hand_on(id, tick);
            } else {
                self.run_node(id, tick)?;
            }
        }
        Ok(())
    }

    /// A later stage: what all workers sent, in worker order.
    pub(super) fn run_stage(&mut self, stage: usize, tick: u64, messages: Vec<Message>) -> Result<()> {
        let mut edges: Vec<(NodeId, Vec<Rows>, Watermark)> = Vec::new();
        for message in messages {
            for (edge, rows, watermark) in message.edges {
                match edges.iter_mut().find(|(each, _, _)| *each == edge) {
                    Some((_, all, lowest)) => {
                        all.extend(rows);
                        *lowest = least(*lowest, watermark);
                    }
                    None => edges.push((edge, rows, watermark)),
                }
            }
        }
        for (edge, rows, watermark) in edges {
            for (consumer, port) in self.layout.consumers[edge].clone() {
                self.nodes[consumer].ports[port].ticks.push_back((tick, rows.clone(), watermark));
            }
        }
        for id in self.layout.stages[stage].clone() {
            self.run_node(id, tick)?;
        }
        Ok(())
    }

    fn run_node(&mut self, id: NodeId, tick: u64) -> Result<()> {
        let control = self.control.filter(|control| control.at == tick);
        let count = self.count;
        let node = &mut self.nodes[id];
        let (rows, watermark) = node.take(tick);
        match &node.kind {
            NodeKind::Source(_) => {}
            NodeKind::Operator(_) => {
                let outcome = run_operator(node, rows, watermark, control);
                // Before the `/` stands the output it works for; an operator with state has no `/`.
                outcome.map_err(|error| error.context(node.id.split('/').next().unwrap_or_default()))?;
            }
            NodeKind::Exchange(keys) => {
                node.outgoing.resize_with(count, Vec::new);
                for rows in rows.into_iter().flatten() {
                    split(rows, keys, count, &mut node.outgoing)?;
                }
                node.output.watermark = watermark;
            }
            NodeKind::Sink(_) => {
                for rows in rows.into_iter().flatten() {
                    node.output.counts.settle_all(Fate::Out, &rows.tokens, rows.len());
                    if let Some(bytes) = &mut node.gathered_bytes {
                        let more = bytes_of(&rows);
                        *bytes += more;
                        self.shared.sink_bytes.fetch_add(more, Ordering::Relaxed);
                    }
                    node.gathered.push(Rows { origin: None, hashes: None, ..rows });
                }
            }
        }
        self.hand_on(id, tick);
        Ok(())
    }

    /// Gives a node's rows to its consumers and puts its letters aside.
    fn hand_on(&mut self, id: NodeId, tick: u64) {
        let outputs = &self.layout.outputs[id];
        let node = &mut self.nodes[id];
        let (dead, late) = (std::mem::take(&mut node.output.dead), std::mem::take(&mut node.output.late));
        if !dead.is_empty() || !late.is_empty() {
            self.shared.dead.fetch_add(dead.len() as u64, Ordering::Relaxed);
            self.shared.late.fetch_add(late.len() as u64, Ordering::Relaxed);
            let of_source = matches!(node.kind, NodeKind::Source(_));
            for letter in dead {
                if of_source {
                    node.dead.push((None, letter));
                } else {
                    node.dead.extend(outputs.iter().map(|output| (Some(*output), letter.clone())));
                }
            }
            for event in late {
                node.late.extend(outputs.iter().map(|output| (*output, event.clone())));
            }
        }
        if matches!(node.kind, NodeKind::Exchange(_) | NodeKind::Sink(_)) {
            return;
        }
        let (rows, watermark) = (std::mem::take(&mut node.output.rows), node.output.watermark);
        let layout = Arc::clone(&self.layout);
        for (consumer, port) in &layout.consumers[id] {
            self.nodes[*consumer].ports[*port].ticks.push_back((tick, rows.clone(), watermark));
        }
    }

    /// What stage `stage` sends after a tick: for each worker, each exchange's rows.
    pub(super) fn outgoing(&mut self, stage: usize) -> Vec<Vec<(NodeId, Vec<Rows>, Watermark)>> {
        let mut sent: Vec<Vec<_>> = (0..self.count).map(|_| Vec::new()).collect();
        for id in self.layout.stages[stage].clone() {
            let node = &mut self.nodes[id];
            if matches!(node.kind, NodeKind::Exchange(_)) {
                node.outgoing.resize_with(sent.len(), Vec::new);
                for (rows, sent) in node.outgoing.iter_mut().zip(&mut sent) {
                    sent.push((id, std::mem::take(rows), node.output.watermark));
                }
            }
        }
        sent
    }

    /// Captures what the nodes of a stage hold: it has finished the tick of the cut and has not seen the next.
    pub(super) fn capture(&mut self, stage: usize) -> Result<()> {
        let full = self.shared.full_state.load(Ordering::Acquire);
        for id in self.layout.stages[stage].clone() {
            let node = &mut self.nodes[id];
            self.part.counts[id].add(&std::mem::take(&mut node.output.counts));
            self.part.dead.append(&mut node.dead);
            self.part.late.append(&mut node.late);
            if let NodeKind::Sink(output) = node.kind {
                self.part.outputs.push((output, std::mem::take(&mut node.gathered)));
                if let Some(bytes) = &mut node.gathered_bytes {
                    self.shared.sink_bytes.fetch_sub(std::mem::take(bytes), Ordering::Relaxed);
                }
            }
            if let Some(operator) = node.operator.as_mut() {
                let tables = operator.tables().len();
                let tables = (0..tables).map(|table| operator.changes(table, full)).collect::<Result<Vec<_>>>()?;
                let scalars = operator.scalars();
                if !tables.is_empty() || !scalars.is_empty() {
                    self.part.state.push(NodeState { node: id, tables, scalars });
                }
            }
        }
        if stage == 0 {
            let readers = self.readers.iter().enumerate();
            self.part.positions =
                readers.filter_map(|(source, reader)| reader.as_ref().map(|reader| (source, reader.positions().to_vec()))).collect();
        }
        Ok(())
    }
}

fn run_operator(node: &mut NodeRun, rows: Vec<Vec<Rows>>, watermark: Watermark, control: Option<Control>) -> Result<()> {
    let Some(operator) = node.operator.as_mut() else { return Ok(()) };
    for (port, rows) in rows.into_iter().enumerate() {
        for rows in rows {
            operator.on_rows(port, rows, &mut node.output)?;
        }
    }
    let before = node.output.watermark;
    operator.on_tick(watermark, &mut node.output)?;
    node.output.watermark = node.output.watermark.max(before);
    match control.map(|control| control.kind) {
        Some(ControlKind::End) => operator.on_end(&mut node.output),
        Some(ControlKind::Cut | ControlKind::Stop) => operator.on_cut(&mut node.output),
        None => Ok(()),
    }
}

/// Bytes that rows take by themselves, not those of the buffers they share with others.
fn bytes_of(rows: &Rows) -> u64 {
    let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    rows.batch.columns().iter().map(of).sum::<usize>() as u64
}

/// Sends each row to the owner of its key group.
pub fn split(mut rows: Rows, keys: &[usize], count: usize, outgoing: &mut [Vec<Rows>]) -> Result<()> {
    if rows.hashes.is_none() {
        let columns: Vec<_> = keys.iter().filter_map(|key| rows.batch.columns().get(*key).cloned()).collect();
        rows.hashes = Some(hash_columns(&columns, rows.len())?.into());
    }
    if count == 1 {
        outgoing[0].push(rows);
        return Ok(());
    }
    let mut picked: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (row, hash) in rows.hashes.iter().flat_map(|hashes| hashes.iter()).enumerate() {
        picked[owner(key_group(*hash), count)].push(row as u32);
    }
    for (to, rows_of) in picked.into_iter().enumerate() {
        if rows_of.len() == rows.len() {
            outgoing[to].push(rows.clone());
        } else if !rows_of.is_empty() {
            outgoing[to].push(rows.take(&UInt32Array::from(rows_of))?);
        }
    }
    Ok(())
}
