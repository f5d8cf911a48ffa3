//! The window functions as plain DataFusion nodes: the second lowering, which the oracle and queries over tables run.
//!
//! Always: the same columns with the same names and qualifiers as the node it replaces, so nothing above notices. Arithmetic is on whole
//! microseconds: `date_bin` goes through nanoseconds and fails past 2262. Not here: `bind` gives scans their data; a tie of ROW_NUMBER
//! is broken by the columns a caller hands to `tied`. Called by `verify`, by ad-hoc queries and by tests.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, ScalarValue, UnnestOptions};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::functions_nested::expr_fn::gen_series;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableScan, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, cast, lit, when,
};

use super::asof::AsofNode;
use super::batch_changes;
use super::keys::is_row_number;
use super::types::TIMESTAMP;
use super::windows::{WindowKind, WindowNode};

const BEFORE: &str = "__tidemill_before";
const FIRST: &str = "__tidemill_first";
const SESSION: &str = "__tidemill_session";
const START: &str = "__tidemill_start";
const LAST: &str = "__tidemill_last";

/// Replaces every window function and as-of join of a plan by plain nodes.
pub fn to_batch(plan: LogicalPlan) -> Result<LogicalPlan> {
    let lowered = plan.transform_up(|plan| match &plan {
        LogicalPlan::Extension(extension) => match WindowNode::of(extension) {
            Some(node) => lower(node).map(Transformed::yes),
            None => match AsofNode::of(extension) {
                Some(node) => batch_changes::asof(node, &[], None).map(Transformed::yes),
                None => Ok(Transformed::no(plan)),
            },
        },
        _ => Ok(Transformed::no(plan)),
    })?;
    Ok(lowered.data)
}

/// Gives every scan its table; the provider has the scan's columns by name. `None` leaves a scan as it is.
pub fn bind(plan: LogicalPlan, table: &dyn Fn(&TableScan) -> Result<Option<Arc<dyn TableProvider>>>) -> Result<LogicalPlan> {
    let bound = plan.transform_up(|plan| match plan {
        LogicalPlan::TableScan(scan) => match table(&scan)? {
            Some(provider) => {
                let columns = |name: &String| provider.schema().index_of(name);
                let projection = scan.projected_schema.fields().iter().map(|field| columns(field.name())).collect::<Result<Vec<_>, _>>()?;
                let filters = scan.filters.clone();
                let source = provider_as_source(provider);
                let builder = LogicalPlanBuilder::scan_with_filters(scan.table_name.clone(), source, Some(projection), filters)?;
                Ok(Transformed::yes(builder.build()?))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

/// A ROW_NUMBER with sort keys added behind its ORDER BY, so that rows equal in it have one order; any other expression as it is.
pub fn tied(expr: &Expr, keys: &[Sort]) -> Expr {
    let name = expr.schema_name().to_string();
    match expr.clone().unalias() {
        Expr::WindowFunction(mut function) if is_row_number(&function) && !keys.is_empty() => {
            function.params.order_by.extend(keys.iter().cloned());
            Expr::WindowFunction(function).alias(name)
        }
        _ => expr.clone(),
    }
}

fn lower(node: &WindowNode) -> Result<LogicalPlan> {
    let time = cast(Expr::Column(node.time_column.clone()), DataType::Int64);
    match &node.kind {
        WindowKind::Tumble { size_us, offset_us } => {
            let start = floor(time - lit(*offset_us), *size_us) + lit(*offset_us);
            finish(node, LogicalPlanBuilder::from(node.input.clone()), start.clone(), start + lit(*size_us))
        }
        WindowKind::Hop { slide_us, size_us } => {
            let first = floor(time.clone() - lit(*size_us), *slide_us) + lit(*slide_us);
            let starts = gen_series(first, floor(time, *slide_us), lit(*slide_us)).alias(START);
            let options = UnnestOptions::new().with_preserve_nulls(false);
            let builder = LogicalPlanBuilder::from(node.input.clone()).project(inputs(node).chain([starts]))?;
            let builder = builder.unnest_column_with_options(Column::new_unqualified(START), options)?;
            finish(node, builder, column(START), column(START) + lit(*size_us))
        }
        WindowKind::Session { gap_us, keys } => session(node, time, *gap_us, keys),
    }
}

/// Sessions by the gap before each row: a row further than the gap behind the one before it begins one. Rows of one instant are peers in
/// the running sum, so their order does not matter.
fn session(node: &WindowNode, time: Expr, gap_us: i64, keys: &[Column]) -> Result<LogicalPlan> {
    let keys: Vec<Expr> = keys.iter().cloned().map(Expr::Column).collect();
    let order = vec![Expr::Column(node.time_column.clone()).sort(true, false)];
    let peers =
        WindowFrame::new_bounds(WindowFrameUnits::Range, WindowFrameBound::Preceding(ScalarValue::Null), WindowFrameBound::CurrentRow);
    let before = lag(time.clone(), Some(1), None).partition_by(keys.clone()).order_by(order.clone()).build()?.alias(BEFORE);
    let builder = LogicalPlanBuilder::from(node.input.clone()).window([before])?;
    let begins = column(BEFORE).is_null().or((time.clone() - column(BEFORE)).gt(lit(gap_us)));
    let first = when(begins, lit(1_i64)).otherwise(lit(0_i64))?.alias(FIRST);
    let builder = builder.project(inputs(node).chain([first]))?;
    let over = |expr: Expr| match expr {
        Expr::AggregateFunction(function) => {
            let fun = WindowFunctionDefinition::AggregateUDF(function.func);
            Expr::from(datafusion::logical_expr::expr::WindowFunction::new(fun, function.params.args))
        }
        other => other,
    };
    let number = over(sum(column(FIRST))).partition_by(keys.clone()).order_by(order).window_frame(peers).build()?.alias(SESSION);
    let builder = builder.window([number])?;
    let mut group = keys;
    group.push(column(SESSION));
    let start = over(min(time.clone())).partition_by(group.clone()).build()?.alias(START);
    let last = over(max(time)).partition_by(group).build()?.alias(LAST);
    let builder = builder.window([start, last])?;
    finish(node, builder, column(START), column(LAST) + lit(gap_us))
}

/// The greatest multiple of `unit` at or below `expr`, for negative numbers too: `%` takes the sign of what is divided.
fn floor(expr: Expr, unit: i64) -> Expr {
    expr.clone() - ((expr % lit(unit)) + lit(unit)) % lit(unit)
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn inputs(node: &WindowNode) -> impl Iterator<Item = Expr> {
    node.input.schema().columns().into_iter().map(Expr::Column)
}

/// The node's columns: the input's, then the window's from microseconds.
fn finish(node: &WindowNode, builder: LogicalPlanBuilder, start: Expr, end: Expr) -> Result<LogicalPlan> {
    let width = node.input.schema().fields().len();
    let mut exprs: Vec<Expr> = inputs(node).collect();
    let schema = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node);
    for (index, expr) in [(width, start), (width + 1, end)] {
        let (qualifier, field) = schema.qualified_field(index);
        exprs.push(cast(expr, TIMESTAMP).alias_qualified(qualifier.cloned(), field.name()));
    }
    builder.project(exprs)?.build()
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
