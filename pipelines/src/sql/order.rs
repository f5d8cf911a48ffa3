//! Gives the aggregates that depend on an order of rows (`array_agg`, `string_agg`, `first_value`, `last_value`, `nth_value`, `any_value`)
//! all of it that SQL can say: behind their own ORDER BY the input's time column, then the key of derived rows.
//!
//! Always: the last tie, between source rows of one time, is broken by (partition, offset), which no expression names: the lowering hands
//! it to the state, the oracle to DataFusion. DISTINCT values are in their own order. Called by `plan` on the analysed plan, so that both
//! read the same.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};

use super::context::SourceTable;
use super::keys::key_of;
use super::time::{TimeKind, time_kinds};

/// Names of the aggregates that depend on an order.
pub const ORDERED: &[&str] = &["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];

/// Completes the order of every aggregate that depends on one.
pub(super) fn complete(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let completed = plan.transform_up(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(is_ordered) => {
            let behind = behind(&aggregate.input);
            let calls = aggregate.aggr_expr.into_iter().map(|expr| ordered(expr, &behind)).collect();
            Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(completed.data)
}

/// The call of an aggregate expression, if it depends on an order.
fn is_ordered(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_ordered(&alias.expr),
        Expr::AggregateFunction(call) => ORDERED.contains(&call.func.name()),
        _ => false,
    }
}

/// A call with its whole order, under the name it had.
fn ordered(expr: Expr, behind: &[Sort]) -> Expr {
    if !is_ordered(&expr) {
        return expr;
    }
    let name = expr.schema_name().to_string();
    match expr.unalias() {
        Expr::AggregateFunction(mut call) => {
            if call.func.name() == "any_value" {
                call.func = first_value_udaf();
                call.params.null_treatment = Some(NullTreatment::IgnoreNulls);
            }
            add(&mut call, behind);
            Expr::AggregateFunction(call).alias(name)
        }
        other => other.alias(name),
    }
}

fn add(call: &mut AggregateFunction, behind: &[Sort]) {
    let params = &mut call.params;
    if !params.distinct {
        params.order_by.extend(behind.iter().cloned());
    } else if let (true, Some(value)) = (params.order_by.is_empty(), params.args.first()) {
        params.order_by.push(value.clone().sort(true, false));
    }
}

/// What stands behind the ORDER BY of an aggregate over `input`.
fn behind(input: &LogicalPlan) -> Vec<Sort> {
    let columns = input.schema().columns();
    let kinds = time_kinds(input);
    let of = |wanted: TimeKind| kinds.iter().position(|kind| *kind == Some(wanted));
    let time = [TimeKind::Event, TimeKind::WindowEnd, TimeKind::WindowStart].into_iter().find_map(of);
    let mut places: Vec<usize> = time.into_iter().collect();
    if !is_raw(input) {
        let key = key_of(input).and_then(|key| key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>());
        places.extend(key.filter(|key| !key.is_empty()).unwrap_or_else(|| (0..columns.len()).collect()));
    }
    let sort = |column: &Column| Expr::Column(column.clone()).sort(true, false);
    places.into_iter().filter_map(|place| columns.get(place).map(sort)).collect()
}

/// Its rows are source rows, which have a partition and an offset.
fn is_raw(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<SourceTable>().is_some(),
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::All(_)) | LogicalPlan::Join(_) => false,
        other => other.inputs().into_iter().all(is_raw),
    }
}
