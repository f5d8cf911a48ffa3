//! Which columns of a plan are time columns (CONTRACT: a source's WATERMARK column passed on unchanged or renamed, or a window's end; a
//! tumble's or hop's start too).
//!
//! Always read from a plan before the optimizer; anything computed is no time column. Used by the window functions and the lowering.

use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::asof::AsofNode;
use super::context::{OutputTable, SourceTable};
use super::join;
use super::windows::{WindowKind, WindowNode};

/// What a column says about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeKind {
    /// A source's event time.
    Event,
    /// The start of a tumbling or hopping window.
    WindowStart,
    WindowEnd,
    /// The start of a session: it names the window, but moves back when sessions merge, so it is no time column.
    SessionStart,
}

impl TimeKind {
    /// Whether windows can be made over it.
    pub fn is_time(self) -> bool {
        self != Self::SessionStart
    }

    /// Whether grouping by it makes a GROUP BY windowed.
    pub fn is_window(self) -> bool {
        self != Self::Event
    }
}

/// Indexes of a plan's output columns that are time columns.
pub fn time_columns(plan: &LogicalPlan) -> Vec<usize> {
    time_kinds(plan).into_iter().enumerate().filter(|(_, kind)| kind.is_some_and(TimeKind::is_time)).map(|(index, _)| index).collect()
}

/// What each output column of a plan says about time.
pub fn time_kinds(plan: &LogicalPlan) -> Vec<Option<TimeKind>> {
    let width = plan.schema().fields().len();
    let kinds = match plan {
        LogicalPlan::TableScan(scan) => {
            let all: Vec<Option<TimeKind>> = if let Some(source) = scan.source.downcast_ref::<SourceTable>() {
                let columns = scan.source.schema().fields().len();
                (0..columns).map(|index| (source.time_column == Some(index)).then_some(TimeKind::Event)).collect()
            } else if let Some(output) = scan.source.downcast_ref::<OutputTable>() {
                output.times.clone()
            } else {
                Vec::new()
            };
            match &scan.projection {
                Some(projection) => projection.iter().map(|index| all.get(*index).copied().flatten()).collect(),
                None => all,
            }
        }
        LogicalPlan::Projection(projection) => through(&projection.expr, &projection.input),
        LogicalPlan::Filter(filter) => time_kinds(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => time_kinds(&alias.input),
        LogicalPlan::Sort(sort) => time_kinds(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => time_kinds(input),
        LogicalPlan::Window(window) => time_kinds(&window.input),
        // A group's result comes when its window closes: of its keys only those that name the window tell when that is.
        LogicalPlan::Aggregate(aggregate) => {
            through(&aggregate.group_expr, &aggregate.input).into_iter().map(|kind| kind.filter(|kind| kind.is_window())).collect()
        }
        LogicalPlan::Unnest(unnest) => {
            let kinds = time_kinds(&unnest.input);
            let is_list = |index: &usize| unnest.list_type_columns.iter().any(|(list, _)| list == index);
            let of = |index: &usize| kinds.get(*index).copied().flatten().filter(|_| !is_list(index));
            unnest.dependency_indices.iter().map(of).collect()
        }
        LogicalPlan::Union(union) => {
            let mut inputs = union.inputs.iter().map(|input| time_kinds(input));
            let first = inputs.next().unwrap_or_default();
            inputs.fold(first, |all, other| all.into_iter().zip(other).map(|(one, two)| if one == two { one } else { None }).collect())
        }
        LogicalPlan::Join(join) => join::times(join),
        LogicalPlan::Extension(extension) => match WindowNode::of(extension) {
            Some(node) => {
                let start = match node.kind {
                    WindowKind::Session { .. } => TimeKind::SessionStart,
                    _ => TimeKind::WindowStart,
                };
                time_kinds(&node.input).into_iter().chain([Some(start), Some(TimeKind::WindowEnd)]).collect()
            }
            // Of an as-of join the time of its rows; the versions' lie anywhere before it.
            None => AsofNode::of(extension).map(|node| time_kinds(&node.left)).unwrap_or_default(),
        },
        _ => Vec::new(),
    };
    // Columns a node adds (aggregates, row numbers) are no times.
    kinds.into_iter().chain(std::iter::repeat(None)).take(width).collect()
}

fn through(exprs: &[Expr], input: &LogicalPlan) -> Vec<Option<TimeKind>> {
    let kinds = time_kinds(input);
    exprs.iter().map(|expr| column_of(expr, input).and_then(|index| kinds.get(index).copied().flatten())).collect()
}

/// The input column an expression passes on unchanged, perhaps renamed.
pub(super) fn column_of(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => input.schema().index_of_column(column).ok(),
        Expr::Alias(alias) => column_of(&alias.expr, input),
        _ => None,
    }
}
