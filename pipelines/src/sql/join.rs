//! What a join is made of: the span of time that bounds it, the keys it is hashed by, and whatever else a pair must meet.
//!
//! Always: read from the plan's own conditions, as they are or as the optimizer has moved them: `ON`, `WHERE` right above, comma and CROSS
//! JOIN come to the same. A join that nothing bounds on both sides has no `Joined`. Used by `shape`, `time`, `keys`, the lowering and `verify`.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, Operator};

use super::time::{TimeKind, time_kinds};
use super::types::TIMESTAMP;
use super::windows::{WindowKind, WindowNode};

/// `right time - left time` lies in `low_us..=high_us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The left side's time column.
    pub left: usize,
    /// The right side's.
    pub right: usize,
    /// Microseconds.
    pub low_us: i64,
    /// Microseconds.
    pub high_us: i64,
}

/// A join that time bounds.
#[derive(Debug, Clone)]
pub struct Joined {
    /// What bounds it.
    pub span: Span,
    /// Equal expressions of the left and the right side, of types that can be hashed.
    pub keys: Vec<(Expr, Expr)>,
    /// What is left to ask of a pair.
    pub rest: Vec<Expr>,
}

/// Why a join can't be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbounded {
    /// Nothing bounds it from below or above; the time columns of both sides, if there are any.
    Open {
        /// Of the left side.
        left: Vec<String>,
        /// Of the right side.
        right: Vec<String>,
        /// The side that is bounded already: `>=` is there, `<=` is not.
        half: bool,
    },
    /// The bounds exclude each other.
    Empty,
    /// A condition with IS NOT DISTINCT FROM.
    NullEquals,
}

/// Takes a join apart. `above` are conditions of a WHERE right above an inner join.
pub fn joined(join: &Join, above: &[Expr]) -> Result<Joined, Unbounded> {
    if join.null_equality != NullEquality::NullEqualsNothing {
        return Err(Unbounded::NullEquals);
    }
    let (left, right) = (join.left.schema(), join.right.schema());
    let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    let own = join.filter.iter().flat_map(split_conjunction).cloned();
    let more = above.iter().flat_map(split_conjunction).filter(|_| join.join_type == JoinType::Inner).cloned();
    let conditions: Vec<Expr> = equal.chain(own).chain(more).collect();
    let sides = Sides { left, right };
    let bounds: Vec<Vec<Bound>> = conditions.iter().map(|condition| sides.bounds(condition)).collect();
    let (left_kinds, right_kinds) = (time_kinds(&join.left), time_kinds(&join.right));
    let is_time = |kinds: &[Option<TimeKind>], index: usize| kinds.get(index).copied().flatten().filter(|kind| kind.is_time());
    let mut pairs: Vec<(bool, usize, usize)> = Vec::new();
    for bound in bounds.iter().flatten() {
        if let (Some(one), Some(other)) = (is_time(&left_kinds, bound.left), is_time(&right_kinds, bound.right)) {
            // Of a window's bounds its end says when its rows are there.
            pairs.push((one == TimeKind::WindowStart || other == TimeKind::WindowStart, bound.left, bound.right));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    let mut half = false;
    for (_, left_time, right_time) in &pairs {
        let of = |bound: &&Bound| bound.left == *left_time && bound.right == *right_time;
        let low = bounds.iter().flatten().filter(of).filter_map(|bound| bound.low_us).max();
        let high = bounds.iter().flatten().filter(of).filter_map(|bound| bound.high_us).min();
        half |= low.is_some() || high.is_some();
        let (Some(low_us), Some(high_us)) = (low, high) else { continue };
        if low_us > high_us {
            return Err(Unbounded::Empty);
        }
        let span = Span { left: *left_time, right: *right_time, low_us, high_us };
        let (mut keys, mut rest) = (Vec::new(), Vec::new());
        for (condition, bounds) in conditions.into_iter().zip(&bounds) {
            if let Some(key) = sides.key(&condition) {
                keys.push(key);
            } else if bounds.is_empty() || bounds.iter().any(|bound| !of(&bound)) {
                rest.push(condition);
            }
        }
        return Ok(Joined { span, keys, rest });
    }
    let names = |plan: &LogicalPlan, kinds: &[Option<TimeKind>]| {
        let times = plan.schema().columns().into_iter().zip(kinds).filter(|(_, kind)| kind.is_some_and(TimeKind::is_time));
        times.map(|(column, _)| shown(&column)).collect::<Vec<_>>()
    };
    Err(Unbounded::Open { left: names(&join.left, &left_kinds), right: names(&join.right, &right_kinds), half })
}

/// A column by its name in the text: a sub-query's table has a name of the planner's.
fn shown(column: &Column) -> String {
    match &column.relation {
        Some(relation) if relation.table().starts_with("__") => column.name.clone(),
        _ => column.flat_name(),
    }
}

/// What a condition says of `right - left`.
#[derive(Debug, Clone, Copy)]
struct Bound {
    left: usize,
    right: usize,
    low_us: Option<i64>,
    high_us: Option<i64>,
}

struct Sides<'a> {
    left: &'a DFSchema,
    right: &'a DFSchema,
}

/// Columns with their signs, and microseconds.
struct Linear {
    columns: Vec<(Column, i64)>,
    constant_us: i128,
}

impl Sides<'_> {
    /// Empty: it bounds nothing.
    fn bounds(&self, condition: &Expr) -> Vec<Bound> {
        let all = match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => vec![self.bound(left, *op, right)],
            Expr::Between(Between { expr, negated: false, low, high }) => {
                vec![self.bound(expr, Operator::GtEq, low), self.bound(expr, Operator::LtEq, high)]
            }
            _ => Vec::new(),
        };
        all.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    fn bound(&self, one: &Expr, op: Operator, other: &Expr) -> Option<Bound> {
        let (one, other) = (linear(one)?, linear(other)?);
        let mut columns = one.columns;
        columns.extend(other.columns.into_iter().map(|(column, sign)| (column, -sign)));
        let constant = one.constant_us - other.constant_us;
        let [(first, sign), (second, opposite)] = columns.as_slice() else { return None };
        if *sign != -*opposite || sign.abs() != 1 {
            return None;
        }
        let (plus, minus) = if *sign > 0 { (first, second) } else { (second, first) };
        // plus - minus + constant `op` 0
        let (left, right, op, value) = match (self.right.maybe_index_of_column(plus), self.left.maybe_index_of_column(minus)) {
            (Some(right), Some(left)) => (left, right, op, -constant),
            _ => (self.left.maybe_index_of_column(plus)?, self.right.maybe_index_of_column(minus)?, op.swap()?, constant),
        };
        let value = i64::try_from(value).ok()?;
        let (low_us, high_us) = match op {
            Operator::GtEq => (Some(value), None),
            Operator::Gt => (Some(value.checked_add(1)?), None),
            Operator::LtEq => (None, Some(value)),
            Operator::Lt => (None, Some(value.checked_sub(1)?)),
            Operator::Eq => (Some(value), Some(value)),
            _ => return None,
        };
        Some(Bound { left, right, low_us, high_us })
    }

    /// The two sides of an equality that rows can be hashed by.
    fn key(&self, condition: &Expr) -> Option<(Expr, Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
        let of = |expr: &Expr, schema: &DFSchema| {
            let columns = expr.column_refs();
            !columns.is_empty() && columns.iter().all(|column| schema.has_column(column))
        };
        let (left, right) = if of(left, self.left) && of(right, self.right) {
            (left, right)
        } else if of(right, self.left) && of(left, self.right) {
            (right, left)
        } else {
            return None;
        };
        let (one, other) = (left.get_type(self.left).ok()?, right.get_type(self.right).ok()?);
        // Minus zero equals zero and has other bits.
        let hashed = !one.is_floating() && !one.is_nested() && one == other;
        hashed.then(|| (left.as_ref().clone(), right.as_ref().clone()))
    }
}

/// An expression as a sum of time columns and spans.
fn linear(expr: &Expr) -> Option<Linear> {
    let constant = |constant_us: i128| Some(Linear { columns: Vec::new(), constant_us });
    match expr {
        Expr::Column(column) => Some(Linear { columns: vec![(column.clone(), 1)], constant_us: 0 }),
        Expr::Alias(alias) => linear(&alias.expr),
        Expr::Cast(cast) if keeps_time(cast.field.data_type()) => linear(&cast.expr),
        Expr::Literal(value, _) => constant(span_us(value)?),
        Expr::Negative(inner) => {
            let inner = linear(inner)?;
            let columns = inner.columns.into_iter().map(|(column, sign)| (column, -sign)).collect();
            Some(Linear { columns, constant_us: -inner.constant_us })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let sign = match op {
                Operator::Plus => 1,
                Operator::Minus => -1,
                _ => return None,
            };
            let (mut left, right) = (linear(left)?, linear(right)?);
            left.columns.extend(right.columns.into_iter().map(|(column, each)| (column, each * sign)));
            Some(Linear { columns: left.columns, constant_us: left.constant_us + right.constant_us * i128::from(sign) })
        }
        _ => None,
    }
}

/// A cast to it changes no moment and no span.
fn keeps_time(data_type: &DataType) -> bool {
    *data_type == TIMESTAMP || matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

/// The microseconds of a span of fixed length.
fn span_us(value: &ScalarValue) -> Option<i128> {
    const DAY_US: i128 = 86_400_000_000;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(span)) if span.months == 0 && span.nanoseconds % 1_000 == 0 => {
            Some(i128::from(span.days) * DAY_US + i128::from(span.nanoseconds) / 1_000)
        }
        ScalarValue::IntervalDayTime(Some(span)) => Some(i128::from(span.days) * DAY_US + i128::from(span.milliseconds) * 1_000),
        ScalarValue::DurationSecond(Some(span)) => Some(i128::from(*span) * 1_000_000),
        ScalarValue::DurationMillisecond(Some(span)) => Some(i128::from(*span) * 1_000),
        ScalarValue::DurationMicrosecond(Some(span)) => Some(i128::from(*span)),
        ScalarValue::DurationNanosecond(Some(span)) if span % 1_000 == 0 => Some(i128::from(*span) / 1_000),
        _ => None,
    }
}

/// The windows that source rows carry: their size and their slide. Read from the window function itself, whose columns may not be needed.
pub fn carried_windows(plan: &LogicalPlan) -> Option<(i64, i64)> {
    match plan {
        LogicalPlan::Extension(extension) => match WindowNode::of(extension)?.kind {
            WindowKind::Tumble { size_us, .. } => Some((size_us, size_us)),
            WindowKind::Hop { slide_us, size_us } => Some((size_us, slide_us)),
            WindowKind::Session { .. } => None,
        },
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().find_map(carried_windows)
        }
        _ => None,
    }
}

/// Whether the rows of a side (0: left) are all in the result, perhaps with NULLs beside them.
pub fn keeps(join_type: JoinType, side: usize) -> bool {
    match join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => false,
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => side == 0,
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => side == 1,
        JoinType::Full => true,
    }
}

/// Which sides' columns are in the result.
pub fn shows(join_type: JoinType) -> (bool, bool) {
    match join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        _ => (true, true),
    }
}

/// What the result's columns say about time: those of a side that may be NULL say nothing.
pub(super) fn times(join: &Join) -> Vec<Option<TimeKind>> {
    let (left, right) = shows(join.join_type);
    // Beside the rows of one side that are kept stand NULLs on the other.
    let silent = |side: usize| left && right && keeps(join.join_type, 1 - side);
    let of = |plan: &LogicalPlan, side: usize| -> Vec<Option<TimeKind>> {
        let kinds = time_kinds(plan);
        if silent(side) { vec![None; kinds.len()] } else { kinds }
    };
    let mut all = if left { of(&join.left, 0) } else { Vec::new() };
    if right {
        // The windows of a row are those of its left side, if that has some.
        let taken = all.iter().flatten().any(|kind| kind.is_window());
        let plain = |kind: TimeKind| if taken && kind.is_window() { TimeKind::Event } else { kind };
        let kinds = of(&join.right, 1).into_iter();
        all.extend(kinds.map(|kind| kind.filter(|kind| !taken || kind.is_time()).map(plain)));
    }
    all
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn months_have_no_length_and_days_have() {
        let months = ScalarValue::new_interval_mdn(1, 0, 0);
        assert_eq!(span_us(&months), None);
        assert_eq!(span_us(&ScalarValue::new_interval_mdn(0, 2, 3_000)), Some(172_800_000_003));
        assert_eq!(span_us(&ScalarValue::new_interval_mdn(0, 0, 1)), None, "no part of a microsecond");
        assert!(keeps_time(&TIMESTAMP) && !keeps_time(&DataType::Timestamp(TimeUnit::Second, None)));
    }
}
