//! GROUPING SETS, ROLLUP and CUBE as a plain GROUP BY: each row once for every set, with NULL for the expressions that the set leaves out.
//!
//! Always: the number of the set is a key too, so a NULL of the data and one of a set are different groups; a column that is in every set
//! stays as it is, so one that names a window still does. `grouping()` was resolved by the analyser. Called by `plan` on the analysed plan:
//! operators and oracle see the same.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, ExprSchema, Result, UnnestOptions, not_impl_err};
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder, cast, lit, when};

const SET: &str = "__tidemill_set";
/// More expressions than this in a CUBE would be thousands of groups a row.
const EXPRESSIONS_MAX: usize = 12;

/// Replaces every aggregate over several groupings.
pub(super) fn expand(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let expanded = plan.transform_up(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(set)] => {
                let (all, sets) = sets(set)?;
                over(&aggregate, &all, &sets).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(expanded.data)
}

/// All expressions in the order of their columns, and the sets.
fn sets(set: &GroupingSet) -> Result<(Vec<Expr>, Vec<Vec<Expr>>)> {
    let sets: Vec<Vec<Expr>> = match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|length| exprs.iter().take(length).cloned().collect()).collect(),
        GroupingSet::Cube(exprs) if exprs.len() <= EXPRESSIONS_MAX => {
            let of = |bits: usize| exprs.iter().enumerate().filter(move |(place, _)| bits >> place & 1 == 1).map(|(_, expr)| expr.clone());
            (0..1_usize << exprs.len()).rev().map(|bits| of(bits).collect()).collect()
        }
        GroupingSet::Cube(_) => return not_impl_err!("CUBE of more than {EXPRESSIONS_MAX} expressions"),
    };
    Ok((set.distinct_expr().into_iter().cloned().collect(), sets))
}

fn over(aggregate: &Aggregate, all: &[Expr], sets: &[Vec<Expr>]) -> Result<LogicalPlan> {
    // The first expression is the highest bit; a bit says that the set leaves the expression out.
    let number = |set: &Vec<Expr>| all.iter().fold(0_i64, |bits, expr| bits << 1 | i64::from(!set.contains(expr)));
    let numbers: Vec<i64> = sets.iter().map(number).collect();
    if numbers.iter().enumerate().any(|(place, number)| numbers.iter().take(place).any(|other| other == number)) {
        return not_impl_err!("a grouping set that is written twice");
    }
    let columns: Vec<Expr> = aggregate.input.schema().columns().into_iter().map(Expr::Column).collect();
    let each = make_array(numbers.iter().map(|number| lit(*number)).collect()).alias(SET);
    let options = UnnestOptions::new().with_preserve_nulls(false);
    let of_set = || Expr::Column(Column::new_unqualified(SET));
    let copies = LogicalPlanBuilder::from(aggregate.input.as_ref().clone())
        .project(columns.iter().cloned().chain([each]))?
        .unnest_column_with_options(Column::new_unqualified(SET), options)?;
    let mut exprs = columns;
    let mut group: Vec<Expr> = Vec::with_capacity(all.len() + 1);
    for (place, expr) in all.iter().enumerate() {
        let within: Vec<Expr> = sets.iter().zip(&numbers).filter(|(set, _)| set.contains(expr)).map(|(_, number)| lit(*number)).collect();
        group.push(match expr {
            Expr::Column(_) if within.len() == sets.len() => expr.clone(),
            _ => {
                let name = format!("__tidemill_group_{place}");
                exprs.push(when(of_set().in_list(within, false), expr.clone().unalias()).end()?.alias(&name));
                Expr::Column(Column::new_unqualified(name))
            }
        });
    }
    exprs.push(of_set());
    group.push(of_set());
    let input = copies.project(exprs)?.build()?;
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), group, aggregate.aggr_expr.clone())?);
    // The columns that the nodes above know: the expressions, the number of the set, the aggregates.
    let known = aggregate.schema.iter().zip(grouped.schema().columns());
    let exprs: Vec<Expr> = known
        .map(|((qualifier, field), column)| {
            let same = grouped.schema().field_from_column(&column).is_ok_and(|from| from.data_type() == field.data_type());
            let expr = Expr::Column(column);
            let expr = if same { expr } else { cast(expr, field.data_type().clone()) };
            expr.alias_qualified(qualifier.cloned(), field.name())
        })
        .collect();
    LogicalPlanBuilder::from(grouped).project(exprs)?.build()
}
