//! A pipeline's plan as a batch plan that sets late rows aside: place and watermark of each source row are carried from the scan to its
//! window, where the rule of CONTRACT §3 is applied as a filter.
//!
//! Always: source rows alone are judged, a derived row never is; a row is judged for each of its windows. ROW_NUMBER's ties are broken by
//! the rows' places; approximate aggregates become exact ones. The window functions themselves are `tidemill_pipelines::sql::batch`'s.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::count_distinct;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    Aggregate, Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, cast, lit,
};
use tidemill_pipelines::sql::batch::{break_ties, to_batch};
use tidemill_pipelines::sql::{WINDOW_END, WINDOW_START, WindowKind, WindowNode};

use super::exact;
use super::log::{CARRIED, OFFSET, PARTITION, WATERMARK};

/// Gives a scan its rows.
pub type Tables<'a> = &'a dyn Fn(&TableScan) -> Arc<dyn TableProvider>;

/// The plan of an output's rows.
pub fn rows(plan: &LogicalPlan, lateness_us: i64, tables: Tables<'_>) -> Result<LogicalPlan> {
    let mut walk = Walk { tables, lateness_us, late: Vec::new() };
    let walked = walk.walk(plan.clone())?;
    tied(shaped(walked, plan.schema(), false)?)
}

/// The plans of an output's late rows: partition, offset, start of the missed window (of a session, the row's time). `plan` is the
/// optimised one: a condition that removes a row stands below its window there, and what is filtered is never late.
pub fn late(plan: &LogicalPlan, lateness_us: i64, tables: Tables<'_>) -> Result<Vec<LogicalPlan>> {
    let mut walk = Walk { tables, lateness_us, late: Vec::new() };
    walk.walk(plan.clone())?;
    walk.late.into_iter().map(tied).collect()
}

fn tied(plan: LogicalPlan) -> Result<LogicalPlan> {
    break_ties(plan, &|input| {
        let place = |name| named(input.schema(), name).map(|column| Sort::new(Expr::Column(column), true, false));
        [PARTITION, OFFSET].into_iter().filter_map(place).collect()
    })
}

struct Walk<'a> {
    tables: Tables<'a>,
    lateness_us: i64,
    late: Vec<LogicalPlan>,
}

/// The column of that name, whatever qualifies it.
fn named(schema: &DFSchema, name: &str) -> Option<Column> {
    schema.columns().into_iter().find(|column| column.name == name)
}

fn carries(plan: &LogicalPlan) -> bool {
    named(plan.schema(), OFFSET).is_some()
}

fn carried(plan: &LogicalPlan) -> impl Iterator<Item = Expr> {
    CARRIED.into_iter().filter_map(|name| named(plan.schema(), name).map(|column| Expr::Column(column).alias(name)))
}

/// The columns of `schema` in its order, and behind them the carried ones if they are wanted.
fn shaped(plan: LogicalPlan, schema: &DFSchema, with_carried: bool) -> Result<LogicalPlan> {
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    if with_carried {
        exprs.extend(carried(&plan));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

impl Walk<'_> {
    fn walk(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(&scan),
            LogicalPlan::Projection(projection) => {
                let input = self.walk(Arc::unwrap_or_clone(projection.input))?;
                let exprs = projection.expr.into_iter().chain(carried(&input)).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.walk(Arc::unwrap_or_clone(filter.input))?;
                Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(named) => {
                let input = self.walk(Arc::unwrap_or_clone(named.input))?;
                Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), named.alias)?))
            }
            LogicalPlan::Window(window) => {
                let input = self.walk(Arc::unwrap_or_clone(window.input))?;
                LogicalPlanBuilder::from(input).window(window.window_expr)?.build()
            }
            LogicalPlan::Extension(extension) => match WindowNode::of(&extension) {
                Some(node) => self.windowed(node),
                None => Ok(LogicalPlan::Extension(extension)),
            },
            LogicalPlan::Union(union) => {
                let schemas: Vec<_> = union.inputs.iter().map(|input| Arc::clone(input.schema())).collect();
                let inputs = union.inputs.into_iter().map(|input| self.walk(Arc::unwrap_or_clone(input))).collect::<Result<Vec<_>>>()?;
                let with_carried = inputs.iter().all(carries);
                let shaped = inputs.into_iter().zip(&schemas).map(|(input, schema)| shaped(input, schema, with_carried).map(Arc::new));
                let inputs = shaped.collect::<Result<Vec<_>>>()?;
                let all = LogicalPlan::Union(datafusion::logical_expr::Union::try_new_with_loose_types(inputs)?);
                // Its columns keep the names that the nodes above know.
                let known = union.schema.iter().zip(all.schema().columns());
                let known =
                    known.map(|((qualifier, field), column)| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
                let exprs: Vec<Expr> = known.collect::<Vec<_>>().into_iter().chain(carried(&all)).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(all))?))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let input = self.plain(aggregate.input)?;
                let exact = aggregate.aggr_expr.into_iter().map(exactly).collect::<Result<Vec<_>>>()?;
                let exact = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), aggregate.group_expr, exact)?);
                let known = aggregate.schema.iter().zip(exact.schema().columns());
                let known = known.map(|((qualifier, field), column)| {
                    cast(Expr::Column(column), field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
                });
                let exprs: Vec<Expr> = known.collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(exact))?))
            }
            other => {
                let inputs = other.inputs().into_iter().map(|input| self.plain(Arc::new(input.clone()))).collect::<Result<Vec<_>>>()?;
                other.with_new_exprs(other.expressions(), inputs)
            }
        }
    }

    /// An input without what was carried.
    fn plain(&mut self, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
        let schema = Arc::clone(input.schema());
        shaped(self.walk(Arc::unwrap_or_clone(input))?, &schema, false)
    }

    fn scan(&self, scan: &TableScan) -> Result<LogicalPlan> {
        let table = (self.tables)(scan);
        let schema = table.schema();
        let wanted = scan.projected_schema.fields().iter().map(|field| field.name().as_str());
        let carried = CARRIED.into_iter().filter(|name| schema.index_of(name).is_ok());
        let projection = wanted.chain(carried).map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let source = provider_as_source(Arc::clone(&table));
        let mut plan = LogicalPlanBuilder::scan(scan.table_name.clone(), source, Some(projection))?;
        for filter in &scan.filters {
            plan = plan.filter(filter.clone())?;
        }
        plan.build()
    }

    fn windowed(&mut self, node: &WindowNode) -> Result<LogicalPlan> {
        let mut input = self.walk(node.input.clone())?;
        let judged = carries(&input);
        let time = || cast(Expr::Column(node.time_column.clone()), DataType::Int64);
        if let (true, WindowKind::Session { gap_us, .. }) = (judged, &node.kind) {
            let start = Expr::Column(node.time_column.clone());
            input = self.judged(input, time() + lit(*gap_us), start)?;
        }
        let node = WindowNode::try_new(input, node.time_column.clone(), node.kind.clone())?;
        let session = matches!(node.kind, WindowKind::Session { .. });
        let plan = to_batch(LogicalPlan::Extension(Extension { node: Arc::new(node) }))?;
        let ends = (named(plan.schema(), WINDOW_START), named(plan.schema(), WINDOW_END));
        match ends {
            (Some(start), Some(end)) if judged && !session => {
                self.judged(plan, cast(Expr::Column(end), DataType::Int64), Expr::Column(start))
            }
            _ => Ok(plan),
        }
    }

    /// Keeps rows in time for a window that ends at `end`, and puts the others aside.
    fn judged(&mut self, plan: LogicalPlan, end: Expr, start: Expr) -> Result<LogicalPlan> {
        let watermark = named(plan.schema(), WATERMARK).map(Expr::Column).unwrap_or_else(|| lit(0_i64));
        let late = watermark.clone().is_not_null().and((end + lit(self.lateness_us)).lt_eq(watermark));
        let missed = LogicalPlan::Filter(Filter::try_new(late.clone(), Arc::new(plan.clone()))?);
        let places = [PARTITION, OFFSET].into_iter().filter_map(|name| named(plan.schema(), name)).map(Expr::Column);
        let exprs = places.chain([cast(start, DataType::Int64).alias(WINDOW_START)]).collect();
        self.late.push(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(missed))?));
        Ok(LogicalPlan::Filter(Filter::try_new(datafusion::logical_expr::not(late), Arc::new(plan))?))
    }
}

/// Exact aggregates for the approximate ones; the caller casts and renames.
fn exactly(expr: Expr) -> Result<Expr> {
    let exact = expr.transform_up(|expr| match expr {
        Expr::AggregateFunction(mut function) => match function.func.name() {
            "approx_distinct" => {
                let argument = function.params.args.pop().unwrap_or_else(|| lit(0));
                let Expr::AggregateFunction(mut exact) = count_distinct(argument) else {
                    return datafusion::common::internal_err!("count is an aggregate");
                };
                exact.params.filter = function.params.filter;
                Ok(Transformed::yes(Expr::AggregateFunction(exact)))
            }
            "approx_percentile_cont" => {
                function.func = exact::nearest_rank();
                function.params.args = function.params.args.into_iter().map(|argument| cast(argument, DataType::Float64)).collect();
                function.params.order_by.clear();
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            _ => Ok(Transformed::no(Expr::AggregateFunction(function))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(exact.data)
}
