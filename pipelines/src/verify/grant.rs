//! How near a column of a table must be to the batch's: equal, unless an approximate aggregate is in it.
//!
//! Always read from the analysed plan. A value that is computed from an approximate one by anything but a product or a quotient with exact ones
//! has no stated error and is not compared; so is a table whose rows are chosen by one.

use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, LogicalPlan, Operator, TableScan};

use crate::sql::{OutputTable, WindowNode};

/// What a column is granted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grant {
    /// Equal to the last bit.
    Exact,
    /// Within this share of the batch's value. For `approx_distinct` that is four standard errors, so that of many results a few may be beyond: up to
    /// twice as far, for one row of a thousand.
    Near(f64),
    /// Not compared.
    Free,
}

impl Grant {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Exact, other) | (other, Self::Exact) => other,
            (Self::Near(a), Self::Near(b)) => Self::Near(a + b),
            _ => Self::Free,
        }
    }

    /// As an argument of something that keeps no shares.
    fn hidden(self) -> Self {
        if self == Self::Exact { Self::Exact } else { Self::Free }
    }
}

/// The error of `approx_distinct`.
pub const DISTINCT: f64 = 0.033;
/// The error of `approx_percentile_cont`.
pub const PERCENTILE: f64 = 0.01;

/// What a plan's columns are granted; `None` if which rows it has depends on an approximate value. `inlined` gives the plan of an output
/// that is computed on the way.
pub fn grants(plan: &LogicalPlan, inlined: &dyn Fn(&TableScan) -> Option<LogicalPlan>) -> Option<Vec<Grant>> {
    let width = plan.schema().fields().len();
    let below = |plan: &LogicalPlan| grants(plan, inlined);
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(other) = inlined(scan).filter(|_| scan.source.downcast_ref::<OutputTable>().is_some()) else {
                return Some(vec![Grant::Exact; width]);
            };
            let all = below(&other)?;
            let place = |name: &str| other.schema().fields().iter().position(|field| field.name() == name);
            let of = |name: &str| place(name).and_then(|index| all.get(index).copied()).unwrap_or(Grant::Free);
            Some(scan.projected_schema.fields().iter().map(|field| of(field.name())).collect())
        }
        LogicalPlan::Projection(projection) => {
            let input = below(&projection.input)?;
            Some(projection.expr.iter().map(|expr| of(expr, &projection.input, &input)).collect())
        }
        LogicalPlan::Filter(filter) => {
            let input = below(&filter.input)?;
            (of(&filter.predicate, &filter.input, &input) == Grant::Exact).then_some(input)
        }
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input),
        LogicalPlan::Aggregate(aggregate) => {
            let input = below(&aggregate.input)?;
            let mut all = Vec::with_capacity(width);
            for expr in &aggregate.group_expr {
                all.push(of(expr, &aggregate.input, &input));
            }
            if all.iter().any(|grant| *grant != Grant::Exact) {
                return None;
            }
            all.extend(aggregate.aggr_expr.iter().map(|expr| of(expr, &aggregate.input, &input)));
            Some(all)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => below(input).filter(|all| all.iter().all(|grant| *grant == Grant::Exact)),
        LogicalPlan::Window(window) => {
            let input = below(&window.input)?;
            let mut all = input.clone();
            for expr in &window.window_expr {
                // A rank by an approximate value has no one answer to compare with.
                (of(expr, &window.input, &input) == Grant::Exact).then(|| all.push(Grant::Exact))?;
            }
            Some(all)
        }
        LogicalPlan::Union(union) => {
            let mut inputs = union.inputs.iter().map(|input| below(input));
            let first = inputs.next()??;
            inputs.try_fold(first, |all, next| Some(all.into_iter().zip(next?).map(|(a, b)| a.and(b)).collect()))
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (below(&join.left)?, below(&join.right)?);
            let exact =
                |(one, other): &(Expr, Expr)| of(one, &join.left, &left) == Grant::Exact && of(other, &join.right, &right) == Grant::Exact;
            let plain = |grants: &[Grant]| grants.iter().all(|grant| *grant == Grant::Exact);
            // A condition over both sides may read any of their columns.
            if !join.on.iter().all(exact) || (join.filter.is_some() && !(plain(&left) && plain(&right))) {
                return None;
            }
            let shown = crate::sql::shows(join.join_type);
            let of_left = left.into_iter().filter(|_| shown.0);
            Some(of_left.chain(right.into_iter().filter(|_| shown.1)).collect())
        }
        LogicalPlan::Unnest(unnest) => {
            let input = below(&unnest.input)?;
            let kept = |from: &usize| {
                let grant = input.get(*from).copied().unwrap_or(Grant::Free);
                if unnest.list_type_columns.iter().any(|(column, _)| column == from) { grant.hidden() } else { grant }
            };
            Some(unnest.dependency_indices.iter().map(kept).collect())
        }
        LogicalPlan::Extension(extension) if WindowNode::of(extension).is_some() => {
            let mut all = plan.inputs().first().and_then(|input| below(input))?;
            all.resize(width, Grant::Exact);
            Some(all)
        }
        other => {
            let exact =
                other.inputs().into_iter().all(|input| below(input).is_some_and(|all| all.iter().all(|grant| *grant == Grant::Exact)));
            exact.then(|| vec![Grant::Exact; width])
        }
    }
}

fn of(expr: &Expr, input: &LogicalPlan, grants: &[Grant]) -> Grant {
    let of = |expr: &Expr| of(expr, input, grants);
    match expr {
        Expr::Column(column) => {
            input.schema().index_of_column(column).ok().and_then(|index| grants.get(index).copied()).unwrap_or(Grant::Free)
        }
        Expr::Alias(alias) => of(&alias.expr),
        Expr::Cast(cast) => of(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply | Operator::Divide, right }) => of(left).and(of(right)),
        Expr::AggregateFunction(call) => {
            let inner = call.params.args.iter().chain(call.params.filter.as_deref()).map(of).fold(Grant::Exact, Grant::and);
            match call.func.name() {
                _ if inner != Grant::Exact => Grant::Free,
                "approx_distinct" => Grant::Near(DISTINCT),
                "approx_percentile_cont" | "approx_median" => Grant::Near(PERCENTILE),
                _ => Grant::Exact,
            }
        }
        other => {
            let mut all = Grant::Exact;
            let _ = datafusion::common::tree_node::TreeNode::apply_children(other, |child| {
                all = all.and(of(child).hidden());
                Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
            });
            all
        }
    }
}

/// Words for columns that are not compared to the last bit.
pub fn note(grants: &[Grant], schema: &datafusion::arrow::datatypes::Schema) -> Option<String> {
    let names = |wanted: &dyn Fn(&Grant) -> bool| {
        let of = schema.fields().iter().zip(grants).filter(|(_, grant)| wanted(grant)).map(|(field, _)| field.name().as_str());
        of.collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    let mut shares: Vec<f64> = grants.iter().filter_map(|grant| if let Grant::Near(share) = grant { Some(*share) } else { None }).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    for share in shares {
        parts.push(format!("{} within {} %", names(&|grant| *grant == Grant::Near(share)), (share * 1000.0).round() / 10.0));
    }
    let free = names(&|grant| *grant == Grant::Free);
    if !free.is_empty() {
        parts.push(format!("{free} not compared (computed from an approximate value)"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}
