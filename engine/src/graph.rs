//! The dataflow: nodes in topological order, cut into stages at its exchanges.
//!
//! Always: no cycles (a node's inputs come before it); a stage is everything between two exchanges; every worker holds the whole
//! graph for its share of key groups. Built by the planner, run by `worker`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::operator::Operator;
use crate::rows::SourceId;
use crate::source::SourceSpec;

/// Index of a node.
pub type NodeId = usize;
/// Index of an output.
pub type OutputId = usize;
/// Makes one worker's instance of an operator.
pub type Make = Arc<dyn Fn() -> Result<Box<dyn Operator>> + Send + Sync>;

/// What a node does.
#[derive(Clone)]
pub enum NodeKind {
    /// Reads a source's partitions.
    Source(SourceId),
    /// Turns rows into rows.
    Operator(Make),
    /// Sends each row to the worker that owns the hash of these columns.
    Exchange(Vec<usize>),
    /// Gathers the changes of an output table.
    Sink(OutputId),
}

/// One node.
#[derive(Clone)]
pub struct Node {
    /// Stable over restarts: state belongs to it.
    pub id: String,
    /// Where its rows come from, one port each.
    pub inputs: Vec<NodeId>,
    /// What it does.
    pub kind: NodeKind,
}

/// An output: a table, or what goes out to a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// Its SQL name.
    pub name: String,
    /// Its rows go to a sink and nowhere else: it is no table.
    pub delivered: bool,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its key; empty: append.
    pub key: Vec<usize>,
    /// Leading columns that a plain query shows.
    pub visible: usize,
    /// Hash of the plan.
    pub plan_hash: String,
    /// The reading of its sources that it belongs to.
    pub reading: u32,
    /// How far behind the watermark a change of it may still come, in microseconds.
    pub behind_us: i64,
}

/// Everything a worker runs.
#[derive(Clone, Default)]
pub struct Dataflow {
    /// Sources, read once each.
    pub sources: Vec<SourceSpec>,
    /// Output tables and sinks.
    pub outputs: Vec<OutputSpec>,
    /// Nodes, inputs first.
    pub nodes: Vec<Node>,
}

impl Dataflow {
    /// Adds a node and answers its index.
    pub fn add(&mut self, id: impl Into<String>, inputs: Vec<NodeId>, kind: NodeKind) -> NodeId {
        self.nodes.push(Node { id: id.into(), inputs, kind });
        self.nodes.len() - 1
    }
}

/// What follows from the graph, computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The stage of each node.
    pub stage: Vec<usize>,
    /// The nodes of each stage, inputs first. At least one stage.
    pub stages: Vec<Vec<NodeId>>,
    /// Who reads each node, and on which port.
    pub consumers: Vec<Vec<(NodeId, usize)>>,
    /// The outputs each node is on the way to.
    pub outputs: Vec<Vec<OutputId>>,
    /// For each source the others whose rows meet its own in some node (a join, a union): their watermarks are waited for together.
    pub meets: Vec<Vec<SourceId>>,
}

impl Layout {
    /// Cuts the graph into stages. Refuses a node that reads one after it.
    pub fn of(flow: &Dataflow) -> Result<Self> {
        let count = flow.nodes.len();
        let mut layout = Self {
            stage: vec![0; count],
            stages: vec![Vec::new()],
            consumers: vec![Vec::new(); count],
            outputs: vec![Vec::new(); count],
            meets: Vec::new(),
        };
        for (id, node) in flow.nodes.iter().enumerate() {
            let mut stage = 0;
            for (port, input) in node.inputs.iter().enumerate() {
                let from = flow
                    .nodes
                    .get(*input)
                    .filter(|_| *input < id)
                    .ok_or_else(|| Error::failed(format!("node {} reads a node after it", node.id)))?;
                stage = stage.max(layout.stage[*input] + usize::from(matches!(from.kind, NodeKind::Exchange(_))));
                layout.consumers[*input].push((id, port));
            }
            layout.stage[id] = stage;
            while layout.stages.len() <= stage {
                layout.stages.push(Vec::new());
            }
            layout.stages[stage].push(id);
        }
        for (id, node) in flow.nodes.iter().enumerate().rev() {
            let mut outputs: Vec<OutputId> =
                layout.consumers[id].iter().flat_map(|(consumer, _)| layout.outputs[*consumer].clone()).collect();
            if let NodeKind::Sink(output) = node.kind {
                outputs.push(output);
            }
            outputs.sort_unstable();
            outputs.dedup();
            layout.outputs[id] = outputs;
        }
        layout.meets = meets(flow);
        Ok(layout)
    }
}

fn meets(flow: &Dataflow) -> Vec<Vec<SourceId>> {
    // Sources that meet share a group, and groups that meet become one.
    let mut group: Vec<SourceId> = (0..flow.sources.len()).collect();
    let mut from: Vec<Option<SourceId>> = Vec::with_capacity(flow.nodes.len());
    for node in &flow.nodes {
        if let NodeKind::Source(source) = node.kind {
            from.push(Some(source));
            continue;
        }
        let mut met = node.inputs.iter().filter_map(|input| from.get(*input).copied().flatten());
        let first = met.next();
        if let Some(one) = first {
            for other in met {
                let (keep, gone) = (group[one], group[other]);
                group.iter_mut().filter(|each| **each == gone).for_each(|each| *each = keep);
            }
        }
        from.push(first);
    }
    let others = |source: SourceId| (0..group.len()).filter(|other| *other != source && group[*other] == group[source]).collect();
    (0..group.len()).map(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_end_at_exchanges_and_outputs_are_known_upstream() {
        let mut flow = Dataflow::default();
        let source = flow.add("s", vec![], NodeKind::Source(0));
        let exchange = flow.add("x", vec![source], NodeKind::Exchange(vec![0]));
        let near = flow.add("near", vec![source], NodeKind::Sink(0));
        let far = flow.add("far", vec![exchange], NodeKind::Sink(1));
        let layout = Layout::of(&flow).expect("a layout");
        assert_eq!(layout.stages, vec![vec![source, exchange, near], vec![far]]);
        assert_eq!(layout.outputs[source], vec![0, 1]);
        assert_eq!(layout.outputs[exchange], vec![1]);
    }

    #[test]
    fn sources_meet_where_a_node_reads_both() {
        let mut flow = Dataflow::default();
        let spec = |name: &str| SourceSpec {
            name: name.to_owned(),
            reading: 0,
            letters: true,
            topic: name.to_owned(),
            schema: Arc::new(arrow::datatypes::Schema::empty()),
            time: None,
            future_max_us: None,
            idle_after_us: 0,
            open: Arc::new(|| Err(Error::failed("nobody reads"))),
        };
        flow.sources = ["a", "b", "c", "d"].map(spec).to_vec();
        let nodes: Vec<NodeId> = (0..4).map(|source| flow.add("s", vec![], NodeKind::Source(source))).collect();
        let left = flow.add("x", vec![nodes[0]], NodeKind::Exchange(vec![0]));
        flow.add("join", vec![left, nodes[2]], NodeKind::Sink(0));
        flow.add("union", vec![nodes[2], nodes[1]], NodeKind::Sink(1));
        flow.add("alone", vec![nodes[3]], NodeKind::Sink(2));
        assert_eq!(Layout::of(&flow).expect("a layout").meets, vec![vec![1, 2], vec![0, 2], vec![0, 1], vec![]]);
    }
}
