//! GROUP BY to operators: a projection that prepares keys, time, arguments and filters; local pre-aggregation where several workers
//! run; an exchange by key; the keeping half; a projection back to the plan's columns.
//!
//! Windows that come straight from a source-side window function are assigned inside the aggregate; windows that rows already carry
//! (from another aggregate) are closed by the same arithmetic over their start.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Make, NodeId};
use tidemill_engine::operator::Operator;
use tidemill_operators::expression::Expression;
use tidemill_operators::window_aggregate::{Aggregation, Call, Emit as When, Final, Input, Partial, ROWS_PER_TICK_MAX, Windowing};
use tidemill_operators::windows::Windows;

use super::calls::add_calls;
use super::expr::{Shifted, column, compile};
use super::stream::{SpanKind, Stream, arrow_schema};
use super::{Lowering, plain_column};
use crate::sql::{Emit, TIMESTAMP, TimeKind, WINDOW_END, WINDOW_START, WindowKind, WindowNode, time_kinds};

const TIME: &str = "__time";

/// A GROUP BY taken apart.
pub(super) struct Grouping {
    /// What each GROUP BY expression is: a key (its number), or a bound of the window.
    pub(super) places: Vec<Place>,
    /// The expressions of the keys.
    pub(super) keys: Vec<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Key(usize),
    Start,
    End,
}

/// What the aggregate reads, and where its windows come from.
pub(super) struct Below {
    pub(super) stream: Stream,
    pub(super) schema: DFSchemaRef,
    pub(super) windows: Option<From>,
}

pub(super) struct From {
    windows: Windows,
    kind: SpanKind,
    time: Arc<dyn Expression>,
    /// Windows are closed as if they ended `early_us` before they do.
    early_us: i64,
}

impl From {
    /// A time without fixed windows.
    pub(super) fn session(time: Arc<dyn Expression>) -> Result<Self> {
        Ok(Self { windows: Windows::tumble(1, 0)?, kind: SpanKind::Session, time, early_us: 0 })
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Stream> {
        let kinds = time_kinds(&aggregate.input);
        let grouping = group(aggregate, &kinds);
        let windowed = grouping.places.iter().any(|place| !matches!(place, Place::Key(_)));
        if windowed
            && let Some((node, stripped, time)) = below_window(&aggregate.input)?
            && let WindowKind::Session { gap_us, .. } = node.kind
        {
            return self.session(aggregate, &grouping, &node, &stripped, &time, gap_us);
        }
        let below = self.below(aggregate, windowed)?;
        let when = match (self.emit(), windowed) {
            (Some(Emit::Final), false) => {
                return Err(Error::refused("emit = 'final' needs windows: without them no result is ever final; use emit = 'changes'"));
            }
            (Some(Emit::Changes), _) | (None, false) => When::Changes,
            (Some(Emit::Final) | None, true) => When::Final,
        };
        let prepared = self.prepare(aggregate, &grouping, &below)?;
        let lateness_us = self.lateness_us();
        let windowing = below.windows.as_ref().map(|from| Windowing {
            time: grouping.keys.len(),
            windows: from.windows,
            // Rows that carry their windows were judged by the true end, which is `early_us` behind the one used here.
            lateness_us: lateness_us + from.early_us.max(0),
            retention_extra_us: below.stream.behind_us,
        });
        let output = result_schema(&prepared.schema, &grouping, windowed, &prepared.calls);
        let aggregation = Arc::new(Aggregation {
            keys: (0..grouping.keys.len()).collect(),
            windowing,
            calls: prepared.calls,
            input: Arc::clone(&prepared.schema),
            output: Arc::clone(&output),
            sources: below.stream.sources.clone(),
            emit: when,
            retracts: below.stream.revises,
            rows_per_tick_max: ROWS_PER_TICK_MAX,
        });
        let kept = self.keep(prepared.node, &aggregation, grouping.keys.len(), below.stream.revises);
        let schema = arrow_schema(&LogicalPlan::Aggregate(aggregate.clone()));
        let node = self.finish(kept, &grouping, windowed, &output, &schema, below.windows.as_ref());
        let span = below.windows.as_ref().map(|from| {
            let place = |wanted: Place| grouping.places.iter().position(|place| *place == wanted);
            super::Span { kind: from.kind, start: place(Place::Start), end: place(Place::End) }
        });
        let behind_us = below.stream.behind_us + if windowed { lateness_us } else { 0 };
        Ok(Stream { node, schema, revises: true, raw: false, sources: below.stream.sources, span, behind_us, tail: None })
    }

    /// The two halves and the exchange between them. One worker needs no pre-aggregation, revising rows can't have it.
    fn keep(&mut self, input: NodeId, aggregation: &Arc<Aggregation>, keys: usize, revises: bool) -> NodeId {
        let pre = self.workers > 1 && !revises;
        let mut node = input;
        if pre {
            let aggregation = Arc::clone(aggregation);
            node = self.add_operator(
                vec![node],
                "partial",
                Arc::new(move || Ok(Box::new(Partial::new(Arc::clone(&aggregation))?) as Box<dyn Operator>)),
            );
        }
        let exchanged = self.exchange(node, (0..keys).collect());
        let aggregation = Arc::clone(aggregation);
        let input = if pre { Input::Partials } else { Input::Raw };
        let make: Make = Arc::new(move || Ok(Box::new(Final::new(Arc::clone(&aggregation), input)?) as Box<dyn Operator>));
        self.add_stateful(exchanged, "aggregate", make)
    }

    fn below(&mut self, aggregate: &Aggregate, windowed: bool) -> Result<Below> {
        if windowed && let Some((node, stripped, time)) = below_window(&aggregate.input)? {
            let stream = self.plan(&stripped)?;
            let schema = Arc::clone(stripped.schema());
            let time = compile(&Expr::Column(time), &schema)?;
            let (windows, kind) = match node.kind {
                WindowKind::Tumble { size_us, offset_us } => {
                    (Windows::tumble(size_us, offset_us)?, SpanKind::Fixed { size_us, slide_us: size_us, offset_us })
                }
                WindowKind::Hop { slide_us, size_us } => {
                    (Windows::hop(slide_us, size_us, 0)?, SpanKind::Fixed { size_us, slide_us, offset_us: 0 })
                }
                WindowKind::Session { .. } => return Err(Error::failed("a session is planned elsewhere")),
            };
            return Ok(Below { stream, schema, windows: Some(From { windows, kind, time, early_us: 0 }) });
        }
        let stream = self.plan(&aggregate.input)?;
        let schema = Arc::clone(aggregate.input.schema());
        if !windowed {
            return Ok(Below { stream, schema, windows: None });
        }
        let span = stream.span.ok_or_else(|| Error::refused("GROUP BY names a window that its input does not carry"))?;
        let SpanKind::Fixed { size_us, slide_us, offset_us } = span.kind else {
            return Err(Error::refused(
                "aggregating sessions again by their window is not supported yet: query the sessions' table instead",
            ));
        };
        let time: Arc<dyn Expression> = match (span.start, span.end) {
            (Some(start), _) => column(start, TIMESTAMP, WINDOW_START),
            (None, Some(end)) => Arc::new(Shifted { column: end, by_us: -size_us }),
            (None, None) => return Err(Error::refused("GROUP BY names a window that its input does not carry")),
        };
        // The start of a window lies in exactly one step of `slide`; only the end has to be put right.
        let windows = Windows::tumble(slide_us, offset_us)?;
        Ok(Below { stream, schema, windows: Some(From { windows, kind: span.kind, time, early_us: size_us - slide_us }) })
    }

    /// Keys, time, arguments and filters as columns.
    pub(super) fn prepare(&mut self, aggregate: &Aggregate, grouping: &Grouping, below: &Below) -> Result<Prepared> {
        let mut columns: Vec<Arc<dyn Expression>> = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for (number, key) in grouping.keys.iter().enumerate() {
            fields.push(Field::new(format!("key_{number}"), data_type(key, &below.schema)?, true));
            columns.push(compile(&one_zero(key, &below.schema)?, &below.schema)?);
        }
        if let Some(from) = &below.windows {
            fields.push(Field::new("time", TIMESTAMP, true));
            columns.push(Arc::clone(&from.time));
        }
        // Applied changes are no source rows: they have no place in the log that could break ties.
        let kept = Stream { raw: below.stream.raw && below.stream.tail.is_none(), ..below.stream.clone() };
        let calls = add_calls(aggregate, &below.schema, &kept, &mut columns, &mut fields)?;
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let node = self.kept(&below.stream, columns, &schema, "prepare")?;
        Ok(Prepared { node, schema, calls })
    }

    /// Back to the plan's columns: GROUP BY in its order, then the aggregates.
    pub(super) fn finish(
        &mut self,
        node: NodeId,
        grouping: &Grouping,
        windowed: bool,
        from: &SchemaRef,
        to: &SchemaRef,
        windows: Option<&From>,
    ) -> NodeId {
        let keys = grouping.keys.len();
        let late_end = windows.map(|from| from.early_us).filter(|early| *early != 0);
        let mut columns: Vec<Arc<dyn Expression>> = Vec::with_capacity(to.fields().len());
        for place in &grouping.places {
            columns.push(match (place, late_end) {
                (Place::Key(key), _) => at(from, *key),
                (Place::Start, _) => at(from, keys),
                (Place::End, None) => at(from, keys + 1),
                (Place::End, Some(early)) => Arc::new(Shifted { column: keys + 1, by_us: early }),
            });
        }
        let first = keys + if windowed { 2 } else { 0 };
        // The plan's own type: counts that DataFusion has unsigned are kept as BIGINT.
        let results = (first..from.fields().len()).zip(to.fields().iter().skip(grouping.places.len()));
        columns.extend(results.map(|(index, field)| column(index, field.data_type().clone(), field.name())));
        self.project(node, Vec::new(), columns, to, "results")
    }
}

pub(super) struct Prepared {
    pub(super) node: NodeId,
    pub(super) schema: SchemaRef,
    pub(super) calls: Vec<Call>,
}

fn at(schema: &SchemaRef, index: usize) -> Arc<dyn Expression> {
    let field = schema.field(index);
    column(index, field.data_type().clone(), field.name())
}

/// Minus zero and zero are one number: equal values are one group, as in the batch.
pub(super) fn one_zero(expr: &Expr, schema: &DFSchemaRef) -> Result<Expr> {
    Ok(match data_type(expr, schema)? {
        DataType::Float32 => expr.clone() + lit(0.0_f32),
        DataType::Float64 => expr.clone() + lit(0.0_f64),
        _ => expr.clone(),
    })
}

pub(super) fn data_type(expr: &Expr, schema: &DFSchemaRef) -> Result<DataType> {
    expr.get_type(schema.as_ref()).map_err(|error| Error::refused(error.strip_backtrace()))
}

/// Keys, `window_start`, `window_end` if there are windows, results.
pub(super) fn result_schema(input: &SchemaRef, grouping: &Grouping, windowed: bool, calls: &[Call]) -> SchemaRef {
    let mut fields: Vec<Field> = input.fields().iter().take(grouping.keys.len()).map(|field| field.as_ref().clone()).collect();
    if windowed {
        fields.extend([WINDOW_START, WINDOW_END].map(|name| Field::new(name, TIMESTAMP, true)));
    }
    fields.extend(calls.iter().enumerate().map(|(number, call)| Field::new(format!("result_{number}"), call.spec.output.clone(), true)));
    Arc::new(Schema::new(fields))
}

/// Which GROUP BY expressions are bounds of the window.
fn group(aggregate: &Aggregate, kinds: &[Option<TimeKind>]) -> Grouping {
    let mut grouping = Grouping { places: Vec::new(), keys: Vec::new() };
    let windowed = |expr: &Expr| {
        plain_column(expr, aggregate.input.schema()).and_then(|index| kinds.get(index).copied().flatten()).filter(|kind| kind.is_window())
    };
    for expr in &aggregate.group_expr {
        grouping.places.push(match windowed(expr) {
            Some(TimeKind::WindowStart | TimeKind::SessionStart) => Place::Start,
            Some(TimeKind::WindowEnd) => Place::End,
            _ => {
                grouping.keys.push(expr.clone());
                Place::Key(grouping.keys.len() - 1)
            }
        });
    }
    grouping
}

/// The window function right below an aggregate, the plan without it, and its time column there. `None` when something in between
/// computes with the window's bounds, or there is no window function.
pub(super) fn below_window(plan: &LogicalPlan) -> Result<Option<(WindowNode, LogicalPlan, Column)>> {
    let built = |built: datafusion::error::Result<LogicalPlan>| built.map_err(|error| Error::failed(error.strip_backtrace()));
    Ok(match plan {
        LogicalPlan::Extension(extension) => {
            WindowNode::of(extension).map(|node| (node.clone(), node.input.clone(), node.time_column.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => match below_window(&alias.input)? {
            Some((node, input, time)) => {
                let aliased = built(LogicalPlanBuilder::from(input).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build))?;
                let time = Column::new(Some(alias.alias.clone()), time.name);
                Some((node, aliased, time))
            }
            None => None,
        },
        LogicalPlan::Filter(filter) if !names_window(&filter.predicate) => match below_window(&filter.input)? {
            Some((node, input, time)) => Some((
                node,
                built(LogicalPlanBuilder::from(input).filter(filter.predicate.clone()).and_then(LogicalPlanBuilder::build))?,
                time,
            )),
            None => None,
        },
        LogicalPlan::Projection(projection) => {
            let bound = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == WINDOW_START || column.name == WINDOW_END);
            if projection.expr.iter().any(|expr| !bound(expr) && names_window(expr)) {
                return Ok(None);
            }
            match below_window(&projection.input)? {
                Some((node, input, time)) => {
                    let mut exprs: Vec<Expr> = projection.expr.iter().filter(|expr| !bound(expr)).cloned().collect();
                    exprs.push(Expr::Column(time).alias(TIME));
                    let projected = built(LogicalPlanBuilder::from(input).project(exprs).and_then(LogicalPlanBuilder::build))?;
                    Some((node, projected, Column::new_unqualified(TIME)))
                }
                None => None,
            }
        }
        _ => None,
    })
}

fn names_window(expr: &Expr) -> bool {
    expr.column_refs().iter().any(|column| column.name == WINDOW_START || column.name == WINDOW_END)
}
