//! Changelogs and as-of joins as plain DataFusion nodes: the second lowering, beside that of the windows in `batch`.
//!
//! Always: the same columns with the same names and qualifiers as what is replaced. What breaks ties is handed in, since only the caller
//! knows where rows stand in the log. Called by `batch`, by `verify` and by tests.

use datafusion::common::{Column, JoinType, Result, ScalarValue};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, lit, when};

use super::asof::AsofNode;

const ROW: &str = "__tidemill_row";
const RANK: &str = "__tidemill_rank";

/// An as-of join: a left join, of which the newest match of each row stays. `ties` are columns of the right side, greater before less; where
/// `gone` is true a version says that there is nothing.
pub fn asof(node: &AsofNode, ties: &[Column], gone: Option<&Column>) -> Result<LogicalPlan> {
    let number = row_number().alias(ROW);
    let left = LogicalPlanBuilder::from(node.left.clone()).window([number])?.build()?;
    let (left_time, right_time) = (column(&node.left_time), column(&node.right_time));
    let valid = if node.strict { right_time.clone().lt(left_time) } else { right_time.clone().lt_eq(left_time) };
    let keys: (Vec<Expr>, Vec<Expr>) = node.on.iter().cloned().unzip();
    let joined = LogicalPlanBuilder::from(left).join_with_expr_keys(node.right.clone(), JoinType::Left, keys, Some(valid))?;
    let order = std::iter::once(right_time).chain(ties.iter().map(column)).map(|expr| expr.sort(false, false)).collect();
    let newest = first(joined, vec![Expr::Column(Column::new_unqualified(ROW))], order)?;
    let width = node.left.schema().fields().len();
    let all = node.left.schema().iter().chain(node.right.schema().iter()).enumerate();
    let mut exprs = Vec::new();
    for (index, (qualifier, field)) in all {
        let expr = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        exprs.push(match gone.filter(|_| index >= width) {
            Some(gone) => {
                let nothing = lit(ScalarValue::try_new_null(field.data_type())?);
                when(column(gone), nothing).otherwise(expr)?.alias_qualified(qualifier.cloned(), field.name())
            }
            None => expr,
        });
    }
    newest.project(exprs)?.build()
}

/// Where a change stands, in the columns of a plan.
pub struct Changes {
    /// The key that it changes.
    pub key: Vec<Column>,
    /// Its event time, if it has one.
    pub time: Option<Column>,
    /// Its partition.
    pub partition: Column,
    /// Its offset.
    pub offset: Column,
    /// Whether it deletes.
    pub deleted: Column,
}

/// The rows of a changelog: of each partition the last change of a key, of these the greatest by (event time, partition, offset).
pub fn latest(changes: LogicalPlan, at: &Changes) -> Result<LogicalPlan> {
    let names = changes.schema().columns();
    let descending = |columns: Vec<&Column>| columns.into_iter().map(|each| column(each).sort(false, false)).collect::<Vec<_>>();
    let key: Vec<Expr> = at.key.iter().map(column).collect();
    let mut within = key.clone();
    within.push(column(&at.partition));
    let last = first(LogicalPlanBuilder::from(changes), within, descending(vec![&at.offset]))?;
    let last = last.project(names.iter().map(column))?;
    let order = at.time.iter().chain([&at.partition, &at.offset]).collect();
    let newest = first(last, key, descending(order))?.filter(datafusion::logical_expr::not(column(&at.deleted)))?;
    newest.project(names.iter().map(column))?.build()
}

/// The first row of each partition.
fn first(rows: LogicalPlanBuilder, partition: Vec<Expr>, order: Vec<datafusion::logical_expr::expr::Sort>) -> Result<LogicalPlanBuilder> {
    let rank = row_number().partition_by(partition).order_by(order).build()?.alias(RANK);
    rows.window([rank])?.filter(Expr::Column(Column::new_unqualified(RANK)).eq(lit(1_u64)))
}

fn column(column: &Column) -> Expr {
    Expr::Column(column.clone())
}
