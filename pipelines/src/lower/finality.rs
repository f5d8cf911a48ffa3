//! When a result is final: how long after its window's end something in time may still revise it.
//!
//! Always: read from the plan, so that a node nobody thought of here is refused, not taken for final. Delays count from `window_end`, by
//! the watermark that reaches the node: behind a view that is read, which holds its watermark back by its own bound, that bound is
//! already over. Used by `sink` for results that can't be taken back.

use datafusion::common::JoinType;
use datafusion::logical_expr::{Expr, LogicalPlan};
use tidemill_engine::error::{Error, Result};

use super::aggregate::below_window;
use super::{Lowering, plain_column, stream::Stream};
use crate::sql::{Emit, OutputTable, SourceTable, TimeKind, WindowKind, WindowNode, time_kinds};

/// How the rows of a plan end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// They stand as they come.
    AtOnce,
    /// Nothing revises them any more once the watermark is so many microseconds past their window's end.
    After(i64),
}

/// What is remembered of an output for those that read it: when its results are final, or why never, and how far it holds a reader back.
#[derive(Debug, Clone)]
pub(super) struct Finality {
    ends: std::result::Result<Ends, String>,
    behind_us: i64,
}

const ADVICE: &str = "a sink without PRIMARY KEY gets each result once, when it is final; add a PRIMARY KEY to get each repair";

fn never(why: &str) -> String {
    format!("{why}: {ADVICE}")
}

impl Lowering<'_> {
    /// Remembers it of an output that was just lowered.
    pub(super) fn finality_of(&self, plan: &LogicalPlan, stream: &Stream) -> Finality {
        Finality { ends: self.ends(plan), behind_us: stream.behind_us }
    }

    /// How long after a window's end its result is final. Refused: results that may always be revised.
    pub(super) fn final_after(&self, plan: &LogicalPlan) -> Result<i64> {
        match self.ends(plan).map_err(Error::refused)? {
            Ends::After(delay_us) => Ok(delay_us),
            Ends::AtOnce => Ok(0),
        }
    }

    fn ends(&self, plan: &LogicalPlan) -> std::result::Result<Ends, String> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.source.downcast_ref::<SourceTable>().is_some() => Ok(Ends::AtOnce),
            LogicalPlan::TableScan(scan) => {
                let view = scan.source.downcast_ref::<OutputTable>().and_then(|table| self.finality.get(&table.name));
                let view = view.ok_or_else(|| never("nobody can tell when its results are final"))?;
                Ok(match view.ends.clone()? {
                    Ends::AtOnce => Ends::AtOnce,
                    Ends::After(delay_us) => Ends::After(delay_us - view.behind_us),
                })
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Unnest(_) => {
                plan.inputs().first().map_or(Ok(Ends::AtOnce), |input| self.ends(input))
            }
            // Pairs of rows that stand stand too; what has no match is known later, and early at the end of a bounded run.
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => Ok(later(self.ends(&join.left)?, self.ends(&join.right)?)),
            LogicalPlan::Union(union) => union.inputs.iter().try_fold(Ends::AtOnce, |all, input| Ok(later(all, self.ends(input)?))),
            LogicalPlan::Window(window) => {
                let kinds = time_kinds(&window.input);
                let bound = |expr: &Expr| plain_column(expr, window.input.schema()).and_then(|index| kinds.get(index).copied().flatten());
                let by = |function: &Expr| match function {
                    Expr::WindowFunction(function) => function.params.partition_by.clone(),
                    _ => Vec::new(),
                };
                let mut partition = window.window_expr.iter().flat_map(by);
                let windowed = partition.any(|expr| matches!(bound(&expr), Some(TimeKind::WindowStart | TimeKind::WindowEnd)));
                self.windowed(windowed, "ROW_NUMBER() without a window in PARTITION BY is never final")?;
                Ok(self.judged(self.ends(&window.input)?))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let kinds = time_kinds(plan);
                let windowed = kinds.iter().flatten().any(|kind| kind.is_window());
                self.windowed(windowed, "a GROUP BY without window_start and window_end is never final")?;
                let below = below_window(&aggregate.input).map_err(|error| error.message().to_owned())?;
                let Some((node, stripped, _)) = below else { return Ok(self.judged(self.ends(&aggregate.input)?)) };
                let ends = self.judged(made_of(&node, self.ends(&stripped)?)?);
                Ok(match (node.kind, ends) {
                    (WindowKind::Session { gap_us, .. }, Ends::After(delay_us)) => Ends::After(delay_us + gap_us),
                    (_, ends) => ends,
                })
            }
            LogicalPlan::Extension(extension) => match WindowNode::of(extension) {
                Some(node) => made_of(node, self.ends(&node.input)?),
                None => Err(never("nobody can tell when its results are final")),
            },
            _ => Err(never("nobody can tell when its results are final")),
        }
    }

    /// Refuses results of an operator that no window ends, or that come each epoch.
    fn windowed(&self, windowed: bool, why: &str) -> std::result::Result<(), String> {
        if !windowed {
            return Err(never(why));
        }
        match self.emit() {
            Some(Emit::Changes) => Err(never("results of emit = 'changes' come before their windows end")),
            _ => Ok(()),
        }
    }

    /// Source rows may come until the lateness is over; rows of a view are never late.
    fn judged(&self, input: Ends) -> Ends {
        match input {
            Ends::AtOnce => Ends::After(self.lateness_us()),
            after => after,
        }
    }
}

fn later(one: Ends, other: Ends) -> Ends {
    match (one, other) {
        (Ends::After(one), Ends::After(other)) => Ends::After(one.max(other)),
        (Ends::After(one), Ends::AtOnce) | (Ends::AtOnce, Ends::After(one)) => Ends::After(one),
        (Ends::AtOnce, Ends::AtOnce) => Ends::AtOnce,
    }
}

/// Windows over a time of their input: a window's end lies within the new window, a start may lie there though its window ends behind it.
fn made_of(node: &WindowNode, input: Ends) -> std::result::Result<Ends, String> {
    let kind = node.time_index().ok().and_then(|index| time_kinds(&node.input).get(index).copied().flatten());
    match (input, kind) {
        (Ends::After(_), Some(TimeKind::WindowStart)) => {
            Err(never("windows over window_start may end before what is in them; use window_end"))
        }
        (input, _) => Ok(input),
    }
}
