//! UNION ALL: several streams as one.
//!
//! A record that two branches over one source see must be settled once. Such branches are lowered without tokens, and the union,
//! which also gets the records themselves, settles each: `Filtered` if no branch kept it, else it goes on with its first copy.

use std::sync::Arc;

use datafusion::logical_expr::{LogicalPlan, Union as UnionPlan};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::Operator;
use tidemill_operators::union::Union;

use super::settle::{SettleUnion, Untoken};
use super::stream::{Stream, arrow_schema, together};
use super::{Lowering, all_columns};

impl Lowering<'_> {
    pub(super) fn union(&mut self, union: &UnionPlan, plan: &LogicalPlan) -> Result<Stream> {
        let schema = arrow_schema(plan);
        let before = self.known.clone();
        let mut branches = union.inputs.iter().map(|input| self.plan(input)).collect::<Result<Vec<_>>>()?;
        let mut sources: Vec<usize> = Vec::new();
        let mut shared = false;
        for branch in &branches {
            shared |= branch.sources.iter().any(|source| sources.contains(source));
            sources = together(&sources, &branch.sources);
        }
        let mut inputs: Vec<usize> = Vec::new();
        if shared {
            if branches.iter().any(|branch| !branch.raw) {
                return Err(Error::refused(
                    "UNION ALL of aggregated streams over one source is not supported yet: make each a materialized view and union those in your queries",
                ));
            }
            // Lower the branches again, on source nodes whose rows carry no tokens.
            if branches.iter().any(|branch| branch.tail.is_some()) {
                return Err(Error::refused(
                    "UNION ALL of one changelog with itself is not supported yet: write one SELECT with CASE, or make each a materialized view",
                ));
            }
            self.known = before;
            let plain = self.sources.clone();
            for (node, _) in self.sources.clone().into_values() {
                let bare = self.add_operator(vec![node], "untoken", Arc::new(|| Ok(Box::new(Untoken) as Box<dyn Operator>)));
                self.sources.values_mut().filter(|(each, _)| *each == node).for_each(|(each, _)| *each = bare);
            }
            self.known.clear();
            let again = union.inputs.iter().map(|input| self.plan(input)).collect::<Result<Vec<_>>>();
            let whole = plain.values().filter(|(_, source)| sources.contains(source)).map(|(node, _)| *node).collect::<Vec<_>>();
            self.sources = plain;
            self.known.clear();
            branches = again?;
            inputs.extend(whole);
        }
        branches = branches.into_iter().map(|branch| self.settled(branch)).collect::<Result<Vec<_>>>()?;
        let records = inputs.len();
        for branch in &branches {
            // Branches agree in types; names are the union's.
            inputs.push(self.project(branch.node, Vec::new(), all_columns(&schema), &schema, "branch"));
        }
        let flat = super::nullable(&schema);
        let node = if shared {
            self.add_operator(inputs, "settle_union", Arc::new(move || Ok(Box::new(SettleUnion::new(records)) as Box<dyn Operator>)))
        } else {
            self.add_operator(inputs, "union", Arc::new(move || Ok(Box::new(Union::new(Arc::clone(&flat))) as Box<dyn Operator>)))
        };
        Ok(Stream {
            node,
            schema,
            revises: branches.iter().any(|branch| branch.revises),
            raw: branches.iter().all(|branch| branch.raw),
            sources,
            span: branches.first().and_then(|first| first.span).filter(|span| branches.iter().all(|branch| branch.span == Some(*span))),
            behind_us: branches.iter().map(|branch| branch.behind_us).max().unwrap_or(0),
            tail: None,
        })
    }
}
