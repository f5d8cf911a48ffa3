//! `state_ttl`: the latest run of each key, as `sql` has planned it: the first by descending start of the results of sessions, or the first
//! row of the latest session. Both are sessions of which only the last of each key is published.
//!
//! The first row of a session is kept as an aggregate over structs of all columns, in the order of the ROW_NUMBER.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Window, lit};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Make, NodeId};
use tidemill_engine::operator::Operator;
use tidemill_operators::aggregate::{Finish, Function, Listing, Order, Spec};
use tidemill_operators::expression::Expression;
use tidemill_operators::identity;
use tidemill_operators::session::{Final, Partial, Sessions};
use tidemill_operators::window_aggregate::{Call, Emit as When, Input};

use super::aggregate::data_type;
use super::calls::Gathered;
use super::expr::{column, compile};
use super::stream::{Stream, arrow_schema};
use super::top_k::window_below;
use super::{Lowering, all_columns};
use crate::sql::{TIMESTAMP, WINDOW_END, WINDOW_START, WindowKind, WindowNode};

impl Lowering<'_> {
    /// The output keeps only the latest run of each key.
    pub(super) fn latest_run(&self) -> bool {
        self.output.is_some_and(|output| output.state_ttl_us.is_some())
    }

    /// Filter over Window over sessions.
    pub(super) fn latest(&mut self, filter: &Filter) -> Result<Stream> {
        let window = window_below(&filter.input).ok_or_else(|| Error::failed("a bound without its ROW_NUMBER()"))?;
        let runs = match window.input.as_ref() {
            LogicalPlan::Extension(_) => self.first_of_runs(window, &window.input)?,
            LogicalPlan::Projection(projection) if matches!(projection.input.as_ref(), LogicalPlan::Extension(_)) => {
                // What the optimizer left out; ORDER BY and PARTITION BY name columns that are below too.
                let rows = self.first_of_runs(window, &projection.input)?;
                let over = projection.input.schema();
                let columns = projection.expr.iter().map(|expr| compile(expr, over)).collect::<Result<Vec<_>>>()?;
                let schema = arrow_schema(&window.input);
                let node = self.project(rows.node, Vec::new(), columns, &schema, "map");
                Stream { node, schema, ..rows }
            }
            // Aggregated over sessions: its own lowering publishes the latest alone.
            _ => self.plan(&window.input)?,
        };
        let schema = arrow_schema(&LogicalPlan::Window(window.clone()));
        let mut columns: Vec<Arc<dyn Expression>> = all_columns(&runs.schema);
        let one = compile(&lit(1_u64), window.input.schema())?;
        columns.push(one);
        let node = self.project(runs.node, Vec::new(), columns, &schema, "latest");
        self.above(&LogicalPlan::Filter(filter.clone()), Stream { node, schema, span: None, ..runs })
    }

    /// The first row of each key's latest session, with the columns of `sessions`.
    fn first_of_runs(&mut self, window: &Window, sessions: &LogicalPlan) -> Result<Stream> {
        let node = match sessions {
            LogicalPlan::Extension(extension) => WindowNode::of(extension),
            _ => None,
        };
        let node = node.ok_or_else(|| Error::failed("a run is a session"))?;
        let [function] = window.window_expr.as_slice() else { return Err(Error::refused("one ROW_NUMBER() a SELECT is supported")) };
        let Expr::WindowFunction(function) = function.clone().unalias() else {
            return Err(Error::failed("a bound without its ROW_NUMBER()"));
        };
        let WindowKind::Session { gap_us, keys } = &node.kind else { return Err(Error::failed("a run is a session")) };
        let input = self.plan(&node.input)?;
        let over = node.input.schema();
        let mut fields: Vec<Field> = Vec::new();
        let mut columns: Vec<Arc<dyn Expression>> = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let key = Expr::Column(key.clone());
            fields.push(Field::new(format!("key_{number}"), data_type(&key, over)?, true));
            columns.push(compile(&super::aggregate::one_zero(&key, over)?, over)?);
        }
        fields.push(Field::new("time", TIMESTAMP, true));
        columns.push(compile(&Expr::Column(node.time_column.clone()), over)?);
        // The first ORDER BY is the session's start, the same for all rows of a session.
        let sorts = function.params.order_by.get(1..).unwrap_or_default();
        let columns_of_row: Fields = input.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let row = DataType::Struct(columns_of_row.clone());
        let mut parts: Vec<Arc<dyn Expression>> = vec![Arc::new(Gathered::new(all_columns(&input.schema), columns_of_row))];
        let mut types = vec![Field::new("row", row.clone(), true)];
        for (number, sort) in sorts.iter().enumerate() {
            parts.push(compile(&sort.expr, over)?);
            types.push(Field::new(format!("order_{number}"), data_type(&sort.expr, over)?, true));
        }
        let argument = Fields::from(types);
        fields.push(Field::new("argument", DataType::Struct(argument.clone()), true));
        columns.push(Arc::new(Gathered::new(parts, argument.clone())));
        let prepared: SchemaRef = Arc::new(Schema::new(fields));
        let at = self.project(input.node, Vec::new(), columns, &prepared, "prepare");
        let listing = Listing {
            finish: Finish::First,
            arguments: 1,
            order: sorts.iter().map(|sort| Order { descending: !sort.asc, nulls_first: sort.nulls_first }).collect(),
            identity: true,
            distinct: false,
            ignore_nulls: false,
        };
        let of: Fields = argument.iter().cloned().chain(identity::fields()).collect();
        let spec = Spec { function: Function::Listing(listing), input: Some(DataType::Struct(of)), output: row.clone(), retracts: false };
        let count = keys.len();
        let mut output: Vec<Field> = prepared.fields().iter().take(count).map(|field| field.as_ref().clone()).collect();
        output.extend([WINDOW_START, WINDOW_END].map(|name| Field::new(name, TIMESTAMP, true)));
        output.push(Field::new("row", row, true));
        let kept = Arc::new(Sessions {
            keys: (0..count).collect(),
            time: count,
            gap_us: *gap_us,
            lateness_us: self.lateness_us(),
            calls: vec![Call { spec, argument: Some(count + 1), filter: None }],
            input: prepared,
            output: Arc::new(Schema::new(output)),
            sources: input.sources.clone(),
            emit: When::Changes,
            latest: true,
        });
        let kept = self.sessions(at, kept, count);
        let schema = arrow_schema(sessions);
        let mut columns: Vec<Arc<dyn Expression>> = Vec::with_capacity(schema.fields().len());
        for (index, field) in input.schema.fields().iter().enumerate() {
            columns.push(Arc::new(Part { column: count + 2, index, data_type: field.data_type().clone() }));
        }
        columns.extend([count, count + 1].map(|index| column(index, TIMESTAMP, WINDOW_START)));
        let node = self.project(kept, Vec::new(), columns, &schema, "rows");
        Ok(Stream { node, schema, revises: true, raw: false, span: None, ..input })
    }

    /// The two halves of sessions and the exchange between them.
    pub(super) fn sessions(&mut self, input: NodeId, sessions: Arc<Sessions>, keys: usize) -> NodeId {
        let mut at = input;
        let pre = self.workers > 1;
        if pre {
            let sessions = Arc::clone(&sessions);
            let make: Make = Arc::new(move || Ok(Box::new(Partial::new(Arc::clone(&sessions))?) as Box<dyn Operator>));
            at = self.add_operator(vec![at], "session_partial", make);
        }
        let exchanged = self.exchange(at, (0..keys).collect());
        let input = if pre { Input::Partials } else { Input::Raw };
        let make: Make = Arc::new(move || Ok(Box::new(Final::new(Arc::clone(&sessions), input)?) as Box<dyn Operator>));
        self.add_stateful(exchanged, "session", make)
    }
}

/// A field of a struct column.
struct Part {
    column: usize,
    index: usize,
    data_type: DataType,
}

impl Expression for Part {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.columns().get(self.column).and_then(|column| column.as_struct_opt());
        let part = rows.and_then(|rows| rows.columns().get(self.index)).ok_or_else(|| Error::failed("a kept row lacks a column"))?;
        if *part.data_type() == self.data_type { Ok(Arc::clone(part)) } else { Ok(cast(part, &self.data_type)?) }
    }

    fn text(&self) -> &str {
        "a column of a row"
    }
}
