//! `a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k`: from FROM to one node of the logical plan.
//!
//! Always: a left outer join, so every row of `a` is in it once; the node's columns are those of `a`, then those of `b`, which may be NULL; the
//! time of `a` is still a time. The planner of DataFusion reads the syntax and plans none of it: `wrap_asof` puts each such join into parentheses,
//! where our relation planner meets it. Two lowerings read the node: to our operator (`lower`) and to plain DataFusion (`batch_asof`).

use std::cmp::Ordering;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::binary::comparison_coercion;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Operator, Projection, UserDefinedLogicalNodeCore, cast,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, JoinConstraint, JoinOperator, Select, Spanned, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use super::error::{Complaint, place};
use super::keys::key_of;
use super::program::Place;
use super::shape::changelog;
use super::time::time_kinds;
use super::types::{TIMESTAMP, sql_name};

/// What to write.
pub(super) const SHAPE: &str = "a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k";

/// An as-of join of two inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsofNode {
    /// Each of its rows is in the result once.
    pub left: LogicalPlan,
    /// Its rows are versions.
    pub right: LogicalPlan,
    /// A TIMESTAMP column of the left.
    pub left_time: Column,
    /// A TIMESTAMP column of the right.
    pub right_time: Column,
    /// `>`: a version counts from the moment after its time.
    pub strict: bool,
    /// Equal expressions of both sides, of equal types.
    pub on: Vec<(Expr, Expr)>,
    schema: DFSchemaRef,
}

impl AsofNode {
    /// A join of these inputs.
    pub fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        (left_time, right_time, strict): (Column, Column, bool),
        on: Vec<(Expr, Expr)>,
    ) -> Result<Self> {
        let mut fields: Vec<_> = left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        let nullable =
            right.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
        fields.extend(nullable);
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { left, right, left_time, right_time, strict, on, schema })
    }

    /// The node inside an extension, if it is one.
    pub fn of(extension: &Extension) -> Option<&Self> {
        extension.node.as_any().downcast_ref()
    }
}

impl PartialOrd for AsofNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let own = (&self.left_time, &self.right_time, self.strict, &self.on);
        match own.partial_cmp(&(&other.left_time, &other.right_time, other.strict, &other.on))? {
            Ordering::Equal => (&self.left, &self.right).partial_cmp(&(&other.left, &other.right)),
            different => Some(different),
        }
    }
}

impl UserDefinedLogicalNodeCore for AsofNode {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let times = [&self.left_time, &self.right_time].map(|column| Expr::Column(column.clone()));
        times.into_iter().chain(self.on.iter().flat_map(|(left, right)| [left.clone(), right.clone()])).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let than = if self.strict { ">" } else { ">=" };
        write!(f, "AsofJoin: {} {than} {} on=[{}]", self.left_time.flat_name(), self.right_time.flat_name(), on.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let (Some(Expr::Column(left_time)), Some(Expr::Column(right_time))) = (exprs.next(), exprs.next()) else {
            return plan_err!("an as-of join compares two time columns");
        };
        let mut on = Vec::with_capacity(self.on.len());
        while let (Some(left), Some(right)) = (exprs.next(), exprs.next()) {
            on.push((left, right));
        }
        let mut inputs = inputs.into_iter();
        let (Some(left), Some(right)) = (inputs.next(), inputs.next()) else { return plan_err!("an as-of join needs two inputs") };
        Self::try_new(left, right, (left_time, right_time, self.strict), on)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let mut left: Vec<usize> = output_columns.iter().copied().filter(|index| *index < width).collect();
        let mut right: Vec<usize> = output_columns.iter().filter_map(|index| index.checked_sub(width)).collect();
        for expr in self.expressions() {
            for column in expr.column_refs() {
                left.extend(self.left.schema().maybe_index_of_column(column));
                right.extend(self.right.schema().maybe_index_of_column(column));
            }
        }
        for needed in [&mut left, &mut right] {
            needed.sort_unstable();
            needed.dedup();
        }
        Some(vec![left, right])
    }
}

/// Puts every ASOF JOIN of a query into parentheses of its own, the joins before it inside on its left: where the planner looks for it.
pub fn wrap_asof(query: &mut impl VisitMut) {
    let _ = query.visit(&mut Wrap);
}

struct Wrap;

impl VisitorMut for Wrap {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.from.iter_mut().for_each(fold);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor
            && asof_of(table_with_joins).is_none()
        {
            fold(table_with_joins);
        }
        ControlFlow::Continue(())
    }
}

fn fold(table: &mut TableWithJoins) {
    let is_asof = |operator: &JoinOperator| matches!(operator, JoinOperator::AsOf { .. });
    if !table.joins.iter().any(|join| is_asof(&join.join_operator)) {
        return;
    }
    let nested = |table: TableWithJoins| TableFactor::NestedJoin { table_with_joins: Box::new(table), alias: None };
    let mut relation = table.relation.clone();
    let mut before = Vec::new();
    for join in std::mem::take(&mut table.joins) {
        if !is_asof(&join.join_operator) {
            before.push(join);
            continue;
        }
        if !before.is_empty() {
            relation = nested(TableWithJoins { relation, joins: std::mem::take(&mut before) });
        }
        relation = nested(TableWithJoins { relation, joins: vec![join] });
    }
    *table = TableWithJoins { relation, joins: before };
}

/// The condition and the constraint of parentheses that hold one ASOF JOIN and nothing else.
fn asof_of(table: &TableWithJoins) -> Option<(&TableFactor, &SqlExpr, &JoinConstraint)> {
    match table.joins.as_slice() {
        [join] => match &join.join_operator {
            JoinOperator::AsOf { match_condition, constraint } => Some((&join.relation, match_condition, constraint)),
            _ => None,
        },
        _ => None,
    }
}

/// Plans ASOF JOIN.
#[derive(Debug)]
pub(super) enum Asof {
    /// Of a pipeline: over time columns only, and over rows that have one answer.
    Pipeline,
    /// Of a query over tables that are there: any TIMESTAMP will do.
    Query,
}

impl RelationPlanner for Asof {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let TableFactor::NestedJoin { table_with_joins, alias } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some((right, condition, constraint)) = asof_of(table_with_joins) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let left = context.plan(table_with_joins.relation.clone())?;
        let right = context.plan(right.clone())?;
        let both = left.schema().join(right.schema())?;
        let sides = Sides { left, right, pipeline: matches!(self, Self::Pipeline) };
        let times = sides.times(context.sql_to_expr(condition.clone(), &both)?, place(condition.span()))?;
        let JoinConstraint::On(on) = constraint else {
            let complaint = Complaint::new(place(condition.span()), "ASOF JOIN needs ON: which rows belong together");
            return Err(complaint.help(format!("write {SHAPE}")).into());
        };
        let at = place(on.span());
        let on = sides.on(context.sql_to_expr(on.clone(), &both)?, &both, at)?;
        if sides.pipeline {
            sides.check(&on, at)?;
        }
        let node = AsofNode::try_new(sides.left, sides.right, times, on)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

struct Sides {
    left: LogicalPlan,
    right: LogicalPlan,
    pipeline: bool,
}

impl Sides {
    fn is_left(&self, expr: &Expr) -> bool {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| self.left.schema().has_column(column))
    }

    fn is_right(&self, expr: &Expr) -> bool {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| self.right.schema().has_column(column))
    }

    /// MATCH_CONDITION: the time columns, and whether `>`.
    fn times(&self, condition: Expr, at: Option<Place>) -> Result<(Column, Column, bool), Complaint> {
        let wrong = |message: String| Complaint::new(at, message).help(format!("write {SHAPE}"));
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else {
            return Err(wrong("MATCH_CONDITION compares a time of the left side with a time of the right one".to_owned()));
        };
        let (left, op, right) = match op.swap() {
            Some(swapped) if self.is_right(&left) && self.is_left(&right) => (right, swapped, left),
            _ => (left, op, right),
        };
        if !self.is_left(&left) || !self.is_right(&right) {
            return Err(wrong("MATCH_CONDITION compares a time of the left side with a time of the right one".to_owned()));
        }
        let (Expr::Column(left), Expr::Column(right)) = (left.as_ref(), right.as_ref()) else {
            return Err(wrong("MATCH_CONDITION compares columns, not expressions".to_owned()));
        };
        let strict = match op {
            Operator::GtEq => false,
            Operator::Gt => true,
            Operator::Lt | Operator::LtEq => {
                return Err(wrong("the version as of a row's time is the one before it; a later one is not known yet".to_owned()));
            }
            _ => return Err(wrong(format!("MATCH_CONDITION takes >= or >, not {op}"))),
        };
        for (plan, column) in [(&self.left, left), (&self.right, right)] {
            self.check_time(plan, column, at)?;
        }
        Ok((left.clone(), right.clone(), strict))
    }

    fn check_time(&self, plan: &LogicalPlan, column: &Column, at: Option<Place>) -> Result<(), Complaint> {
        let schema = plan.schema();
        let Some(index) = schema.maybe_index_of_column(column) else { return Ok(()) };
        let shown = column.flat_name();
        if *schema.field(index).data_type() != TIMESTAMP {
            let found = sql_name(schema.field(index).data_type());
            return Err(Complaint::new(at, format!("MATCH_CONDITION: {shown} is {found}, not TIMESTAMP")).help(format!("write {SHAPE}")));
        }
        let kinds = time_kinds(plan);
        if !self.pipeline || kinds.get(index).copied().flatten().is_some_and(|kind| kind.is_time()) {
            return Ok(());
        }
        let times: Vec<String> = kinds
            .iter()
            .zip(schema.columns())
            .filter(|(kind, _)| kind.is_some_and(|kind| kind.is_time()))
            .map(|(_, column)| column.flat_name())
            .collect();
        let complaint = Complaint::new(at, format!("MATCH_CONDITION: {shown} is not a time column"));
        Err(match (times.as_slice(), changelog(plan)) {
            ([], Some(name)) => complaint.help(format!(
                "declare WATERMARK FOR ts AS ts on {name} (without one the time of a change is its record's, _timestamp), and pass it on unchanged"
            )),
            ([], None) => {
                complaint.help("declare one on the source: WATERMARK FOR ts AS ts - INTERVAL '5 seconds', and pass it on unchanged")
            }
            (times, _) => complaint.help(format!("use {}", times.join(" or "))),
        })
    }

    /// ON: equalities of the left side with the right one.
    fn on(&self, condition: Expr, both: &DFSchema, at: Option<Place>) -> Result<Vec<(Expr, Expr)>, datafusion::common::DataFusionError> {
        let mut on = Vec::new();
        for part in split_conjunction_owned(condition) {
            let wrong = || {
                Complaint::new(at, "ASOF JOIN … ON takes equalities of the left side with the right one, joined by AND")
                    .help(format!("write {SHAPE}; other conditions go into WHERE, or into a view of one side"))
            };
            let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part else { return Err(wrong().into()) };
            let (left, right) = match (self.is_left(&left) && self.is_right(&right), self.is_right(&left) && self.is_left(&right)) {
                (true, _) => (*left, *right),
                (_, true) => (*right, *left),
                _ => return Err(wrong().into()),
            };
            let types = (left.get_type(both)?, right.get_type(both)?);
            let Some(common) = comparison_coercion(&types.0, &types.1) else {
                let message = format!("{left} is {}, {right} is {}: they are never equal", sql_name(&types.0), sql_name(&types.1));
                return Err(Complaint::new(at, message).help("CAST one of them").into());
            };
            if common.is_floating() || common.is_nested() {
                let message = format!("ASOF JOIN can't match {left} by {}", sql_name(&common));
                return Err(Complaint::new(at, message).help("join on whole numbers, DECIMAL, VARCHAR, DATE or TIMESTAMP").into());
            }
            let typed = |expr: Expr, own: &DataType| if *own == common { expr } else { cast(expr, common.clone()) };
            on.push((typed(left, &types.0), typed(right, &types.1)));
        }
        Ok(on)
    }

    /// What has one answer and can be kept.
    fn check(&self, on: &[(Expr, Expr)], at: Option<Place>) -> Result<(), Complaint> {
        if let Some(name) = changelog(&self.left) {
            return Err(Complaint::new(at, format!("{name} is a changelog: it is the right side of an ASOF JOIN, not the left"))
                .help(format!("write stream ASOF JOIN {name} MATCH_CONDITION (stream.ts >= {name}.ts) ON stream.k = {name}.k")));
        }
        if key_of(&self.left).is_some() {
            return Err(Complaint::new(at, "the left side of an ASOF JOIN has rows that may be revised (GROUP BY, DISTINCT, ROW_NUMBER)")
                .help("join the source's rows first, and group the result"));
        }
        let Some(key) = key_of(&self.right) else { return Ok(()) };
        let Some(name) = changelog(&self.right).filter(|_| is_plain(&self.right)) else {
            return Err(Complaint::new(at, "the right side of an ASOF JOIN has rows that may be revised (GROUP BY, DISTINCT, ROW_NUMBER)")
                .help("join a source's rows, or a changelog (a source with a PRIMARY KEY)"));
        };
        let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        let mut wanted: Vec<Option<usize>> = key.iter().map(|column| column.output).collect();
        let joined = on.iter().map(|(_, right)| match bare(right) {
            Expr::Column(column) => self.right.schema().maybe_index_of_column(column),
            _ => None,
        });
        let mut joined: Vec<Option<usize>> = joined.collect();
        wanted.sort_unstable();
        joined.sort_unstable();
        if wanted != joined || wanted.contains(&None) {
            let message = format!("{name} is a changelog by {}: ON must name the whole key, and nothing else of it", names.join(", "));
            let help = names.iter().map(|key| format!("a.{key} = {name}.{key}")).collect::<Vec<_>>().join(" AND ");
            return Err(
                Complaint::new(at, message).help(format!("write ON {help}; other conditions go into WHERE, or into a view of {name}"))
            );
        }
        Ok(())
    }
}

/// Nothing but filters and projections above a scan.
fn is_plain(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => plan.inputs().into_iter().all(is_plain),
        _ => false,
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => bare(&cast.expr),
        other => other,
    }
}

/// Asks conditions on the left side's columns alone before the join: a row that one removes waits for nothing, and is filtered, never late.
pub(super) fn sink_filters(plan: LogicalPlan) -> Result<LogicalPlan> {
    let sunk = plan.transform_down(|plan| {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        if let LogicalPlan::Projection(projection) = filter.input.as_ref()
            && projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
            && matches!(projection.input.as_ref(), LogicalPlan::Extension(extension) if AsofNode::of(extension).is_some())
        {
            // Columns that only pass through have one name above and below.
            let below = LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::clone(&projection.input))?);
            let above = Projection::try_new(projection.expr.clone(), Arc::new(below))?;
            return Ok(Transformed::yes(LogicalPlan::Projection(above)));
        }
        let LogicalPlan::Extension(extension) = filter.input.as_ref() else { return Ok(Transformed::no(plan)) };
        let Some(node) = AsofNode::of(extension) else { return Ok(Transformed::no(plan)) };
        let of_left = |expr: &&Expr| {
            let columns = expr.column_refs();
            !columns.is_empty() && columns.iter().all(|column| node.left.schema().has_column(column))
        };
        let (sink, stay): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(&filter.predicate).into_iter().partition(of_left);
        let Some(sink) = conjunction(sink.into_iter().cloned()) else { return Ok(Transformed::no(plan)) };
        let left = LogicalPlan::Filter(Filter::try_new(sink, Arc::new(node.left.clone()))?);
        let times = (node.left_time.clone(), node.right_time.clone(), node.strict);
        let node = AsofNode::try_new(left, node.right.clone(), times, node.on.clone())?;
        let joined = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(Transformed::yes(match conjunction(stay.into_iter().cloned()) {
            Some(stay) => LogicalPlan::Filter(Filter::try_new(stay, Arc::new(joined))?),
            None => joined,
        }))
    })?;
    Ok(sunk.data)
}
