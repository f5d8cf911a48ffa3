//! Puts the key columns that SELECT left out back into an output's plan, hidden behind its own columns.
//!
//! Always: the plan's own columns keep their places; what is added has a name that begins with `_key_`. A table without its key could
//! not tell which row a repair replaces.

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use tidemill_engine::error::{Error, Result};

use crate::sql::{key_of, stored_type};

/// A plan whose schema holds its whole key.
pub struct Keyed {
    /// The plan.
    pub plan: LogicalPlan,
    /// The key's columns; empty if the plan appends.
    pub key: Vec<usize>,
    /// How many leading columns the user asked for.
    pub visible: usize,
}

/// Adds what is missing.
pub fn keyed(plan: &LogicalPlan) -> Result<Keyed> {
    let visible = plan.schema().fields().len();
    let Some(key) = key_of(plan) else { return Ok(Keyed { plan: plan.clone(), key: Vec::new(), visible }) };
    if key.is_empty() {
        // One row for everything: its key is a constant.
        let mut exprs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        exprs.push(lit(0_i64).alias("_key_0"));
        return Ok(Keyed { plan: project(plan.clone(), exprs)?, key: vec![visible], visible });
    }
    if let Some(columns) = key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>() {
        return Ok(Keyed { plan: plan.clone(), key: columns, visible });
    }
    let (plan, key) = expose(plan)?;
    Ok(Keyed { plan, key, visible })
}

fn project(input: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(input)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| Error::refused(error.strip_backtrace()))
}

/// The plan with its key's columns at the end, and where they are.
fn expose(plan: &LogicalPlan) -> Result<(LogicalPlan, Vec<usize>)> {
    if let Some(columns) = key_of(plan).and_then(|key| key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>()) {
        return Ok((plan.clone(), columns));
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let (input, key) = expose(&projection.input)?;
            let mut exprs = projection.expr.clone();
            let mut places = Vec::with_capacity(key.len());
            for (number, column) in key.into_iter().enumerate() {
                let from = Column::from(input.schema().qualified_field(column));
                let there = exprs.iter().position(|expr| matches!(bare(expr), Expr::Column(each) if *each == from));
                places.push(there.unwrap_or(exprs.len()));
                if there.is_none() {
                    let stored = stored_type(input.schema().field(column).data_type()).map_err(Error::refused)?;
                    let hidden = Expr::Column(from);
                    exprs.push(stored.map_or(hidden.clone(), |stored| cast(hidden, stored)).alias(format!("_key_{number}")));
                }
            }
            Ok((project(input, exprs)?, places))
        }
        LogicalPlan::Filter(filter) => {
            let (input, key) = expose(&filter.input)?;
            let built = LogicalPlanBuilder::from(input).filter(filter.predicate.clone()).and_then(LogicalPlanBuilder::build);
            Ok((built.map_err(|error| Error::refused(error.strip_backtrace()))?, key))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, key) = expose(&alias.input)?;
            let built = LogicalPlanBuilder::from(input).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build);
            Ok((built.map_err(|error| Error::refused(error.strip_backtrace()))?, key))
        }
        _ => Err(Error::refused(
            "the view's key (its GROUP BY or PARTITION BY columns) gets lost on the way to SELECT: select those columns too",
        )),
    }
}

/// What an output column is made of: a cast to what a table can hold keeps it the same column.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        Expr::Cast(cast) => bare(&cast.expr),
        other => other,
    }
}
