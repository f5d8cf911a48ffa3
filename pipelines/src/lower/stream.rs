//! A stream in the making: the node that produces it, and what the planner must remember of it.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use tidemill_engine::graph::NodeId;
use tidemill_engine::rows::SourceId;

use super::tail::Tail;

/// What a lowered plan is.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The node whose output it is.
    pub node: NodeId,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows may be retracted later.
    pub revises: bool,
    /// Its rows are source rows (they may be late), not derived ones.
    pub raw: bool,
    /// The sources whose rows are in it.
    pub sources: Vec<SourceId>,
    /// Windows its rows carry, if a stateful operator made them.
    pub span: Option<Span>,
    /// How far behind the watermark a row or a retraction may still come, in microseconds.
    pub behind_us: i64,
    /// Columns of its batches behind those of `schema`.
    pub tail: Option<Tail>,
}

/// Windows that rows carry as columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How they were made.
    pub kind: SpanKind,
    /// The column of `window_start`, if it is still there.
    pub start: Option<usize>,
    /// The column of `window_end`, if it is still there.
    pub end: Option<usize>,
}

/// How windows were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Of one size, one every slide.
    Fixed {
        /// Length.
        size_us: i64,
        /// Distance.
        slide_us: i64,
        /// Shift.
        offset_us: i64,
    },
    /// Sessions.
    Session,
}

impl Span {
    /// The span after a projection that takes input column `from[i]` to output column `i`.
    pub fn through(self, from: &[Option<usize>]) -> Option<Self> {
        let place = |column: Option<usize>| column.and_then(|column| from.iter().position(|each| *each == Some(column)));
        let moved = Self { kind: self.kind, start: place(self.start), end: place(self.end) };
        (moved.start.is_some() || moved.end.is_some()).then_some(moved)
    }
}

/// The union of two source lists.
pub fn together(left: &[SourceId], right: &[SourceId]) -> Vec<SourceId> {
    let mut all: Vec<SourceId> = left.iter().chain(right).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Shared schema of a plan.
pub fn arrow_schema(plan: &datafusion::logical_expr::LogicalPlan) -> SchemaRef {
    Arc::new(plan.schema().as_arrow().clone())
}
