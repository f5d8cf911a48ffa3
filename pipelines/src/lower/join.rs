//! Joins bounded in time: both sides to workers by key, each side's watermark held back by how far behind its rows may come, and the operator
//! that joins them.
//!
//! A side is source rows, rows that carry their windows, the results of windows, or those of another join. What names its rows names the
//! results: the place in the log, the key, or what the other join has named them by; they are carried as a tail.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Make, NodeId, NodeKind};
use tidemill_engine::operator::Operator;
use tidemill_operators::expression::Expression;
use tidemill_operators::join::{self as operator, JoinPlan, Kind, LEFT, RIGHT, SidePlan};

use super::aggregate::data_type;
use super::expr::{column, compile};
use super::stream::{Span, SpanKind, Stream, arrow_schema, together};
use super::tail::{Tail, TailKind};
use super::{Lowering, all_columns, nullable};
use crate::sql::{Joined, TIMESTAMP, TimeKind, carried_windows, joined, key_of, time_kinds};

/// A side on its way to the operator.
struct Side {
    node: NodeId,
    plan: SidePlan,
    /// Its rows have names of their own, so that no two results are named alike.
    whole: bool,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join, plan: &LogicalPlan) -> Result<Stream> {
        let parts = joined(join, &[]).map_err(|_| Error::refused("a join that no time bounds can't run as a stream"))?;
        let (kind, swapped) = match join.join_type {
            JoinType::Inner => (Kind::Inner, false),
            JoinType::Left => (Kind::Left, false),
            JoinType::Right => (Kind::Right, false),
            JoinType::Full => (Kind::Full, false),
            JoinType::LeftSemi => (Kind::Semi, false),
            JoinType::LeftAnti => (Kind::Anti, false),
            JoinType::RightSemi => (Kind::Semi, true),
            JoinType::RightAnti => (Kind::Anti, true),
            other => return Err(Error::refused(format!("a {other} join can't run as a stream"))),
        };
        let streams = self.both_sides(&join.left, &join.right)?;
        let times = [parts.span.left, parts.span.right];
        let keys: [Vec<&Expr>; 2] = [parts.keys.iter().map(|(key, _)| key).collect(), parts.keys.iter().map(|(_, key)| key).collect()];
        let inputs = [join.left.as_ref(), join.right.as_ref()];
        let mut sides = Vec::with_capacity(2);
        for side in [LEFT, RIGHT] {
            sides.push(self.side(&streams[side], inputs[side], &keys[side], times[side])?);
        }
        let (low_us, high_us) = match swapped {
            false => (parts.span.low_us, parts.span.high_us),
            true => {
                sides.swap(LEFT, RIGHT);
                (parts.span.high_us.saturating_neg(), parts.span.low_us.saturating_neg())
            }
        };
        let condition = self.condition(&parts, join)?;
        if swapped && condition.is_some() {
            return Err(Error::refused("a RIGHT SEMI or RIGHT ANTI JOIN takes equalities and bounds in time only: write it from the left"));
        }
        let sources = together(&streams[LEFT].sources, &streams[RIGHT].sources);
        let named = |source: &usize| (*source, self.flow.sources[*source].name.clone());
        let planned = JoinPlan {
            kind,
            keys: parts.keys.len(),
            low_us,
            high_us,
            condition,
            lateness_us: self.lateness_us(),
            source_names: sources.iter().map(named).collect(),
            sources: sources.clone(),
            sides: [sides[LEFT].plan.clone(), sides[RIGHT].plan.clone()],
        };
        let mut inputs = Vec::with_capacity(2);
        for side in &sides {
            inputs.push(self.exchange(side.node, (side.plan.width..side.plan.width + planned.keys).collect()));
        }
        // Behind the exchange, where it costs one message a tick.
        let behind = [LEFT, RIGHT].map(|side| self.behind_us(&streams[side], times[side], &join_input(join, side)));
        let behind = if swapped { [behind[RIGHT], behind[LEFT]] } else { behind };
        let inputs: Vec<NodeId> = inputs.into_iter().zip(behind).map(|(input, behind_us)| self.held_back(input, behind_us)).collect();
        let tail = Tail { kind: TailKind::Pairs { whole: sides.iter().all(|side| side.whole) }, fields: planned.name_fields() };
        let append = kind == Kind::Inner && !streams.iter().any(|stream| stream.revises);
        self.stateful += 1;
        let id = format!("{}_{}_join", self.name, self.stateful);
        let make: Make = Arc::new(move || Ok(Box::new(operator::Join::new(planned.clone())?) as Box<dyn Operator>));
        let node = self.flow.add(id, inputs, NodeKind::Operator(make));
        let stream = Stream {
            node,
            schema: arrow_schema(plan),
            revises: !append,
            raw: false,
            sources,
            span: span(join, &streams),
            behind_us: 0,
            tail: Some(tail),
        };
        // Results that have a key need no names.
        if key_of(plan).is_some() { self.rows_of(stream) } else { Ok(stream) }
    }

    fn side(&mut self, stream: &Stream, plan: &LogicalPlan, keys: &[&Expr], time: usize) -> Result<Side> {
        let over = plan.schema();
        let width = stream.schema.fields().len();
        let mut columns = all_columns(&stream.schema);
        let mut fields: Vec<Field> = stream.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (number, key) in keys.iter().enumerate() {
            fields.push(Field::new(format!("__join_{number}"), data_type(key, over)?, true));
            columns.push(compile(key, over)?);
        }
        let kind = time_kinds(plan).get(time).copied().flatten();
        let name = stream.schema.fields().get(time).map(|field| field.name().clone()).unwrap_or_default();
        fields.push(Field::new("__time", TIMESTAMP, true));
        columns.push(column(time, TIMESTAMP, &name));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let (names, whole) = match &stream.tail {
            Some(Tail { kind: TailKind::Changes { .. }, .. }) => {
                return Err(Error::refused("a changelog is joined as of a time: write ASOF JOIN"));
            }
            Some(Tail { kind, fields }) => {
                (Some((width..width + fields.len()).collect()), !matches!(kind, TailKind::Pairs { whole: false }))
            }
            None if stream.raw => {
                let hops = carried_windows(plan).is_some_and(|(size_us, slide_us)| slide_us < size_us);
                if hops && !kind.is_some_and(TimeKind::is_window) {
                    return Err(Error::refused("a record is in several windows of a hop: bound the join by window_end"));
                }
                (None, true)
            }
            None => {
                if stream.span.is_none() {
                    return Err(Error::refused(
                        "a join takes rows of sources and of windows; what a GROUP BY, DISTINCT or ROW_NUMBER without windows has made may \
                         change for ever: use windows, or ASOF JOIN",
                    ));
                }
                let key = key_of(plan).and_then(|key| key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>());
                let whole = key.is_some();
                (Some(key.filter(|key| !key.is_empty()).unwrap_or_else(|| (0..width).collect())), whole)
            }
        };
        let node = self.mapped(stream, Vec::new(), columns, &schema, "joined");
        let schema = stream.tail.as_ref().map_or_else(|| nullable(&schema), |tail| tail.behind(&schema));
        let windowed = stream.raw && carried_windows(plan).is_some();
        Ok(Side { node, plan: SidePlan { schema, width, names, windowed }, whole })
    }

    /// How far behind its watermark a side's rows, or what takes them back, may come.
    fn behind_us(&self, stream: &Stream, time: usize, plan: &LogicalPlan) -> i64 {
        let end = time_kinds(plan).get(time).copied().flatten() == Some(TimeKind::WindowEnd);
        let carried = carried_windows(plan).filter(|_| stream.raw).map(|(size_us, _)| size_us);
        let size_us = match (carried, stream.span) {
            // Rows are in time until their window ends.
            (Some(size_us), _) | (None, Some(Span { kind: SpanKind::Fixed { size_us, .. }, .. })) if !end => size_us,
            _ => 0,
        };
        let own = match (&stream.tail, stream.raw) {
            (None, true) => self.lateness_us(),
            (None, false) => stream.behind_us,
            // Another join has held it back.
            (Some(_), _) => 0,
        };
        own.saturating_add(size_us)
    }

    /// What is left to ask of a pair, over the columns of both sides.
    fn condition(&self, parts: &Joined, join: &Join) -> Result<Option<Arc<dyn Expression>>> {
        let Some(rest) = conjunction(parts.rest.iter().cloned()) else { return Ok(None) };
        let both = join.left.schema().join(join.right.schema());
        let both: DFSchema = both.map_err(|error| Error::failed(error.strip_backtrace()))?;
        compile(&rest, &Arc::new(both)).map(Some)
    }
}

fn join_input(join: &Join, side: usize) -> LogicalPlan {
    if side == LEFT { join.left.as_ref().clone() } else { join.right.as_ref().clone() }
}

/// The windows that the results carry: the left side's, if it has some and they are never NULL.
fn span(join: &Join, streams: &[Stream; 2]) -> Option<Span> {
    let (left, right) = crate::sql::shows(join.join_type);
    let silent = |side: usize| left && right && crate::sql::keeps(join.join_type, 1 - side);
    let own = streams[LEFT].span.filter(|_| left && !silent(LEFT));
    let by = if left { streams[LEFT].schema.fields().len() } else { 0 };
    own.or_else(|| {
        let span = streams[RIGHT].span.filter(|_| right && !silent(RIGHT))?;
        Some(Span { start: span.start.map(|start| start + by), end: span.end.map(|end| end + by), ..span })
    })
}
