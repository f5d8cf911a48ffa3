//! `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= k`: the k first rows of each partition, kept as a list that is revised.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Window};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::Make;
use tidemill_engine::operator::Operator;
use tidemill_operators::expression::Expression;
use tidemill_operators::top_k::{Ranking, TopK};
use tidemill_operators::window_aggregate::Emit as When;

use super::aggregate::data_type;
use super::expr::{Shifted, column, compile};
use super::stream::{SpanKind, Stream, arrow_schema};
use super::tail::{Tail, TailKind};
use super::{Lowering, plain_column};
use crate::sql::{Emit, TIMESTAMP, is_row_number, key_of, rank_bound};

impl Lowering<'_> {
    /// Filter over Window, perhaps with projections in between.
    pub(super) fn top_k(&mut self, filter: &Filter) -> Result<Stream> {
        let bound = rank_bound(filter).ok_or_else(|| Error::failed("a top-k without its bound"))?;
        let window = window_below(&filter.input).ok_or_else(|| Error::failed("a bound without its ROW_NUMBER()"))?;
        let k = usize::try_from(bound.limit).map_err(|_| Error::refused("ROW_NUMBER() is bounded too high"))?;
        let ranked = self.ranked(window, k)?;
        self.above(&LogicalPlan::Filter(filter.clone()), ranked)
    }

    /// The window node's rows, at most k a partition.
    fn ranked(&mut self, window: &Window, k: usize) -> Result<Stream> {
        let [Expr::WindowFunction(function)] = window.window_expr.as_slice() else {
            return Err(Error::refused("one ROW_NUMBER() a SELECT is supported"));
        };
        if !is_row_number(function) {
            return Err(Error::refused(format!("{} OVER is not supported yet", function.fun)));
        }
        let input = self.plan(&window.input)?;
        let over = window.input.schema();
        let mut columns: Vec<Arc<dyn Expression>> = super::all_columns(&input.schema);
        let mut fields: Vec<Field> = input.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let mut place = |expr: &Expr| -> Result<usize> {
            if let Some(index) = plain_column(expr, over) {
                return Ok(index);
            }
            fields.push(Field::new(format!("__rank_{}", fields.len()), data_type(expr, over)?, true));
            columns.push(compile(expr, over)?);
            Ok(columns.len() - 1)
        };
        let partition = function.params.partition_by.iter().map(&mut place).collect::<Result<Vec<_>>>()?;
        let order = function
            .params
            .order_by
            .iter()
            .map(|sort| Ok((place(&sort.expr)?, SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first })));
        let order = order.collect::<Result<Vec<_>>>()?;
        let window_end = window_end(&input, &partition, &mut columns, &mut fields);
        let mut names = Vec::new();
        if let Some(Tail { kind: TailKind::Names | TailKind::Pairs { .. }, fields: of_names }) = &input.tail {
            // Rows without a key are ranked by what names them.
            for (index, field) in of_names.iter().enumerate() {
                names.push(columns.len());
                columns.push(column(input.schema.fields().len() + index, field.data_type().clone(), field.name()));
                fields.push(field.clone());
            }
        }
        let prepared: SchemaRef = Arc::new(Schema::new(fields));
        let changes = input.tail.is_some() && names.is_empty();
        let node = self.kept(&input, columns, &prepared, "rank_by")?;
        let input = Stream { raw: input.raw && !changes, tail: None, ..input };
        let emit = match (self.emit(), window_end) {
            (Some(Emit::Final), None) => {
                return Err(Error::refused(
                    "emit = 'final' needs windows: PARTITION BY window_start or window_end, or use emit = 'changes'",
                ));
            }
            (Some(Emit::Changes), _) | (_, None) => When::Changes,
            (_, Some(_)) => When::Final,
        };
        let ranking = Ranking {
            partition: partition.clone(),
            order,
            k,
            identity: if names.is_empty() { identity(&window.input, &input) } else { names },
            row_number: true,
            window_end,
            retention_us: if input.raw { self.lateness_us() } else { input.behind_us },
            retracts: input.revises,
            input: Arc::clone(&prepared),
            output: with_rank(&prepared),
            sources: input.sources.clone(),
            emit,
        };
        let exchanged = self.exchange(node, partition);
        let make: Make = Arc::new(move || Ok(Box::new(TopK::new(ranking.clone())?) as Box<dyn Operator>));
        let kept = self.add_stateful(exchanged, "top_k", make);
        // Back to the window node's columns: its input's, then the number, of the type the plan says.
        let schema = arrow_schema(&LogicalPlan::Window(window.clone()));
        let width = input.schema.fields().len();
        let mut columns: Vec<Arc<dyn Expression>> = super::all_columns(&input.schema);
        let number = schema.field(width);
        columns.push(column(prepared.fields().len(), number.data_type().clone(), number.name()));
        let node = self.project(kept, Vec::new(), columns, &schema, "ranked");
        let behind_us = if input.raw { self.lateness_us() } else { input.behind_us };
        Ok(Stream { node, schema, revises: true, raw: false, behind_us, tail: None, ..input })
    }

    /// Lowers what stands between the window node and `plan`, on top of `ranked`.
    pub(super) fn above(&mut self, plan: &LogicalPlan, ranked: Stream) -> Result<Stream> {
        match plan {
            LogicalPlan::Window(_) => Ok(ranked),
            LogicalPlan::SubqueryAlias(alias) => {
                let below = self.above(&alias.input, ranked)?;
                Ok(Stream { schema: arrow_schema(plan), ..below })
            }
            LogicalPlan::Filter(filter) => {
                let below = self.above(&filter.input, ranked)?;
                let predicate = compile(&filter.predicate, filter.input.schema())?;
                let node = self.project(below.node, vec![predicate], super::all_columns(&below.schema), &below.schema, "bound");
                Ok(Stream { node, ..below })
            }
            LogicalPlan::Projection(projection) => {
                let below = self.above(&projection.input, ranked)?;
                let over = projection.input.schema();
                let columns = projection.expr.iter().map(|expr| compile(expr, over)).collect::<Result<Vec<_>>>()?;
                let from: Vec<Option<usize>> = projection.expr.iter().map(|expr| plain_column(expr, over)).collect();
                let schema = arrow_schema(plan);
                let node = self.project(below.node, Vec::new(), columns, &schema, "map");
                Ok(Stream { node, schema, span: below.span.and_then(|span| span.through(&from)), ..below })
            }
            other => Err(Error::refused(format!("{} can't stand above ROW_NUMBER()", other.display()))),
        }
    }
}

pub(super) fn window_below(plan: &LogicalPlan) -> Option<&Window> {
    match plan {
        LogicalPlan::Window(window) => Some(window),
        LogicalPlan::SubqueryAlias(alias) => window_below(&alias.input),
        LogicalPlan::Projection(projection) => window_below(&projection.input),
        LogicalPlan::Filter(filter) => window_below(&filter.input),
        _ => None,
    }
}

fn with_rank(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("__rank", DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

/// What tells derived rows apart: their key, or all their columns where part of it is gone.
fn identity(plan: &LogicalPlan, input: &Stream) -> Vec<usize> {
    if input.raw {
        return Vec::new();
    }
    let key = key_of(plan).and_then(|key| key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>());
    key.filter(|key| !key.is_empty()).unwrap_or_else(|| (0..input.schema.fields().len()).collect())
}

/// The column of the window's end, if each partition lies within one window.
fn window_end(input: &Stream, partition: &[usize], columns: &mut Vec<Arc<dyn Expression>>, fields: &mut Vec<Field>) -> Option<usize> {
    let span = input.span?;
    let within = |column: Option<usize>| column.filter(|column| partition.contains(column));
    if within(span.start).is_none() && within(span.end).is_none() {
        return None;
    }
    match (span.end, span.start, span.kind) {
        (Some(end), _, SpanKind::Fixed { .. }) => Some(end),
        (None, Some(start), SpanKind::Fixed { size_us, .. }) => {
            fields.push(Field::new("__window_end", TIMESTAMP, true));
            columns.push(Arc::new(Shifted { column: start, by_us: size_us }));
            Some(columns.len() - 1)
        }
        // Sessions that begin together may end apart: only their end bounds a partition.
        (Some(end), _, SpanKind::Session) => within(Some(end)),
        _ => None,
    }
}
