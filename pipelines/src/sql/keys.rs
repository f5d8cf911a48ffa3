//! A view's key, and the bound of a top-k, both read from the analysed plan.
//!
//! Always: the key of a GROUP BY is its columns, of DISTINCT all columns, of `ROW_NUMBER() <= k` the partition columns and the number
//! (for `= 1` the partition columns alone), of a changelog its PRIMARY KEY, of a join of keyed results both keys; a view without any of these appends. Key columns that SELECT leaves out stay in the key,
//! without an output column. Used by `plan`, `shape` and the lowering.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, Filter, Join, LogicalPlan, Operator, TableSource, Window};

use super::context::{OutputTable, SourceTable};
use super::join::{keeps, shows};
use super::shape::{Stored, stored};
use super::time::column_of;
use super::windows::{WINDOW_START, WindowKind, WindowNode};

/// One column of a view's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name: the output column's, or that of the GROUP BY expression when SELECT leaves it out.
    pub name: String,
    /// Index in the plan's schema; `None` when SELECT leaves it out (it is kept hidden).
    pub output: Option<usize>,
}

/// The key of a plan's rows; `None` when it appends.
pub fn key_of(plan: &LogicalPlan) -> Option<Vec<KeyColumn>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some((0..aggregate.group_expr.len()).map(|index| named(plan, index)).collect()),
        LogicalPlan::Distinct(Distinct::All(_)) => Some((0..plan.schema().fields().len()).map(|index| named(plan, index)).collect()),
        LogicalPlan::Projection(projection) => {
            let key = key_of(&projection.input)?;
            let from: Vec<Option<usize>> = projection.expr.iter().map(|expr| passed_on(expr, &projection.input)).collect();
            Some(key.into_iter().map(|column| moved(plan, column, |index| from.iter().position(|from| *from == Some(index)))).collect())
        }
        LogicalPlan::Filter(filter) => top_k_key(filter).or_else(|| key_of(&filter.input)),
        LogicalPlan::SubqueryAlias(alias) => key_of(&alias.input),
        LogicalPlan::Sort(sort) => key_of(&sort.input),
        LogicalPlan::Window(window) => key_of(&window.input),
        LogicalPlan::TableScan(scan) => {
            let key = match scan.source.downcast_ref::<SourceTable>() {
                Some(source) => changelog_key(source)?,
                None => scan.source.downcast_ref::<OutputTable>()?.key.clone()?,
            };
            let place = |index: usize| match &scan.projection {
                Some(projection) => projection.iter().position(|each| *each == index),
                None => Some(index),
            };
            Some(key.into_iter().map(|column| moved(plan, column, place)).collect())
        }
        LogicalPlan::Join(join) => joined_key(join),
        LogicalPlan::Extension(extension) => {
            let node = WindowNode::of(extension)?;
            let mut key = key_of(&node.input)?;
            if !matches!(node.kind, WindowKind::Tumble { .. }) {
                let start = node.input.schema().fields().len();
                key.push(KeyColumn { name: WINDOW_START.to_owned(), output: Some(start) });
            }
            Some(key)
        }
        _ => None,
    }
}

/// The key of a join of results: both sides' keys. `None` where a side is rows of a source, which have names but no key.
fn joined_key(join: &Join) -> Option<Vec<KeyColumn>> {
    let (left, right) = shows(join.join_type);
    let mut key = if left { key_of(&join.left)? } else { Vec::new() };
    if right {
        let (by, own) = if left { (join.left.schema().fields().len(), key.len()) } else { (0, 0) };
        // What equals a column of the left key says nothing more, where there is a left row for each.
        let same = |index: usize| {
            let column = Column::from(join.right.schema().qualified_field(index));
            let equal = |(one, other): &(Expr, Expr)| match (one, other) {
                (Expr::Column(one), Expr::Column(other)) if *other == column => join.left.schema().maybe_index_of_column(one),
                _ => None,
            };
            let found = equalities(join).iter().find_map(equal);
            left && !keeps(join.join_type, 1) && key[..own].iter().any(|each| found.is_some() && each.output == found)
        };
        let more: Vec<KeyColumn> = key_of(&join.right)?.into_iter().filter(|each| !each.output.is_some_and(same)).collect();
        key.extend(more.into_iter().map(|each| KeyColumn { output: each.output.map(|index| index + by), ..each }));
    }
    Some(key)
}

/// The equalities of a join, split off its condition or not yet.
fn equalities(join: &Join) -> Vec<(Expr, Expr)> {
    let written = join.filter.iter().flat_map(split_conjunction).filter_map(|condition| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let of_left = |expr: &Expr| matches!(expr, Expr::Column(column) if join.left.schema().has_column(column));
            let (left, right) = (left.as_ref().clone(), right.as_ref().clone());
            Some(if of_left(&left) { (left, right) } else { (right, left) })
        }
        _ => None,
    });
    join.on.iter().cloned().chain(written).collect()
}

/// The PRIMARY KEY of a changelog; `None` when the source is a plain stream, whose rows are only added.
fn changelog_key(source: &SourceTable) -> Option<Vec<KeyColumn>> {
    let schema = source.schema();
    let column = |index: &usize| Some(KeyColumn { name: schema.fields().get(*index)?.name().clone(), output: Some(*index) });
    source.is_changelog().then(|| source.key.iter().filter_map(column).collect())
}

/// The input column an expression passes on, perhaps renamed, perhaps in the type that tables store it in.
fn passed_on(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => passed_on(&alias.expr, input),
        Expr::Cast(cast) => {
            let index = column_of(&cast.expr, input)?;
            let from = input.schema().fields().get(index)?.data_type();
            matches!(stored(from), Ok(Stored::Cast(to)) if to == *cast.field.data_type()).then_some(index)
        }
        _ => column_of(expr, input),
    }
}

fn named(plan: &LogicalPlan, index: usize) -> KeyColumn {
    let name = plan.schema().fields().get(index).map(|field| field.name().clone()).unwrap_or_default();
    KeyColumn { name, output: Some(index) }
}

fn moved(plan: &LogicalPlan, column: KeyColumn, to: impl Fn(usize) -> Option<usize>) -> KeyColumn {
    match column.output.and_then(to) {
        Some(index) => named(plan, index),
        None => KeyColumn { name: column.name, output: None },
    }
}

/// `ROW_NUMBER() <= k`: the column of the filter's input that holds the number, and k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankBound {
    pub column: usize,
    /// Rows up to this number pass; 0 lets none.
    pub limit: u64,
    /// Only the row of exactly this number passes (`= k`).
    pub exact: bool,
}

/// The tightest bound a filter puts on a row number of the window below it.
pub fn rank_bound(filter: &Filter) -> Option<RankBound> {
    let bound = |expr: &Expr| -> Option<RankBound> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
        let (column, op, number) = match (column_under_casts(left), number(right)) {
            (Some(column), Some(number)) => (column, *op, number),
            _ => (column_under_casts(right)?, op.swap()?, number(left)?),
        };
        let column = filter.input.schema().index_of_column(column).ok()?;
        let (window, index) = origin(&filter.input, column)?;
        row_number(window, index)?;
        let (limit, exact) = match op {
            Operator::LtEq => (number, false),
            Operator::Lt => (number.checked_sub(1)?, false),
            Operator::Eq => (number, true),
            _ => return None,
        };
        Some(RankBound { column, limit: u64::try_from(limit.max(0)).ok()?, exact: exact || limit <= 1 })
    };
    split_conjunction(&filter.predicate).into_iter().filter_map(bound).min_by_key(|bound| bound.limit)
}

fn column_under_casts(expr: &Expr) -> Option<&datafusion::common::Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => column_under_casts(&cast.expr),
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Cast(cast) => number(&cast.expr),
        Expr::Literal(value, _) => match value {
            ScalarValue::Decimal128(Some(value), _, 0) => Some(*value),
            ScalarValue::UInt64(Some(value)) => Some(i128::from(*value)),
            ScalarValue::Int64(Some(value)) => Some(i128::from(*value)),
            ScalarValue::Int32(Some(value)) => Some(i128::from(*value)),
            ScalarValue::Int16(Some(value)) => Some(i128::from(*value)),
            _ => None,
        },
        _ => None,
    }
}

/// Follows a column down to the window node that makes it or passes it on: the node and the column's index in it.
fn origin(plan: &LogicalPlan, index: usize) -> Option<(&Window, usize)> {
    match plan {
        LogicalPlan::Window(window) => Some((window, index)),
        LogicalPlan::Projection(projection) => origin(&projection.input, column_of(projection.expr.get(index)?, &projection.input)?),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, index),
        LogicalPlan::Filter(filter) => origin(&filter.input, index),
        _ => None,
    }
}

/// The ROW_NUMBER that makes column `index` of a window node.
fn row_number(window: &Window, index: usize) -> Option<&WindowFunction> {
    let width = window.input.schema().fields().len();
    match window.window_expr.get(index.checked_sub(width)?)?.unaliased() {
        Expr::WindowFunction(function) if is_row_number(function) => Some(function),
        _ => None,
    }
}

/// Sees through an alias without copying.
trait Unaliased {
    fn unaliased(&self) -> &Expr;
}

impl Unaliased for Expr {
    fn unaliased(&self) -> &Expr {
        match self {
            Expr::Alias(alias) => alias.expr.unaliased(),
            other => other,
        }
    }
}

/// Whether a window function is ROW_NUMBER.
pub fn is_row_number(function: &WindowFunction) -> bool {
    matches!(&function.fun, WindowFunctionDefinition::WindowUDF(function) if function.name() == "row_number")
}

fn top_k_key(filter: &Filter) -> Option<Vec<KeyColumn>> {
    let bound = rank_bound(filter)?;
    let (window, index) = origin(&filter.input, bound.column)?;
    let function = row_number(window, index)?;
    let width = filter.input.schema().fields().len();
    // Where a column of the window's input stands behind the filter.
    let above = |below: usize| {
        (0..width).find(|each| matches!(origin(&filter.input, *each), Some((other, at)) if std::ptr::eq(other, window) && at == below))
    };
    let mut key: Vec<KeyColumn> = function
        .params
        .partition_by
        .iter()
        .map(|expr| {
            let output = column_of(expr, &window.input).and_then(above);
            let name = output.and_then(|index| filter.input.schema().fields().get(index)).map(|field| field.name().clone());
            KeyColumn { name: name.unwrap_or_else(|| expr.schema_name().to_string()), output }
        })
        .collect();
    if !bound.exact {
        let name = filter.input.schema().fields().get(bound.column).map(|field| field.name().clone()).unwrap_or_default();
        key.push(KeyColumn { name, output: Some(bound.column) });
    }
    Some(key)
}
