//! What both sides of a join read: the right side reads it again, without tokens, so that each record is settled once, with its left row.
//!
//! Always: sources that only the right side reads keep their tokens. A view over a shared source is run once more for the right side, since
//! its rows carry tokens too. A record that only the right side keeps counts as what the left side has made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::Operator;

use super::settle::Untoken;
use super::stream::Stream;
use super::{Lowering, OutputPlan};
use crate::sql::{OutputTable, SourceTable};

impl<'a> Lowering<'a> {
    /// The streams of both sides.
    pub(super) fn both_sides(&mut self, left: &LogicalPlan, right: &LogicalPlan) -> Result<[Stream; 2]> {
        let one = self.plan(left)?;
        let of_right = self.sources_of(right);
        let shared: BTreeSet<String> = self.sources_of(left).intersection(&of_right).cloned().collect();
        if shared.is_empty() {
            return Ok([one, self.plan(right)?]);
        }
        let before = (self.sources.clone(), self.outputs.clone(), self.finality.clone(), std::mem::take(&mut self.known));
        for name in &shared {
            let Some((node, source)) = self.sources.get(name).copied() else { continue };
            let bare = self.add_operator(vec![node], "untoken", Arc::new(|| Ok(Box::new(Untoken) as Box<dyn Operator>)));
            self.sources.insert(name.clone(), (bare, source));
        }
        let again: Vec<String> = self.outputs.keys().filter(|name| !self.sources_of_output(name).is_disjoint(&shared)).cloned().collect();
        for name in again {
            self.outputs.remove(&name);
        }
        self.again += 1;
        let other = self.plan(right);
        self.again -= 1;
        (self.sources, self.outputs, self.finality, self.known) = before;
        Ok([one, other?])
    }

    /// A view that is run once more.
    pub(super) fn run_again(&mut self, name: &str) -> Result<Stream> {
        let plan: Option<&'a OutputPlan<'a>> = self.plans.iter().find(|each| each.output.name == name).filter(|_| self.again > 0);
        let plan = plan.ok_or_else(|| Error::failed(format!("no output {name}")))?;
        let own = (self.output, self.name.clone(), self.stateful);
        // Named by the output that needs it and by how many of its nodes with state are there before.
        self.name = format!("{}+{}_{name}", self.name, self.stateful);
        (self.output, self.stateful) = (Some(plan.output), 0);
        let lowered = self.output(plan.output, &plan.keyed, &plan.plan, None);
        let more = self.stateful;
        (self.output, self.name, self.stateful) = own;
        self.stateful += more;
        lowered?;
        self.outputs.get(name).cloned().ok_or_else(|| Error::failed(format!("no output {name}")))
    }

    fn sources_of_output(&self, name: &str) -> BTreeSet<String> {
        let plan = self.plans.iter().find(|each| each.output.name == name);
        plan.map(|each| self.sources_of(&each.plan)).unwrap_or_default()
    }

    /// The sources that a plan reads, through views too.
    fn sources_of(&self, plan: &LogicalPlan) -> BTreeSet<String> {
        if let LogicalPlan::TableScan(scan) = plan {
            return match (scan.source.downcast_ref::<SourceTable>(), scan.source.downcast_ref::<OutputTable>()) {
                (Some(source), _) => BTreeSet::from([source.name.clone()]),
                (_, Some(view)) => self.sources_of_output(&view.name),
                _ => BTreeSet::new(),
            };
        }
        plan.inputs().into_iter().flat_map(|input| self.sources_of(input)).collect()
    }
}
