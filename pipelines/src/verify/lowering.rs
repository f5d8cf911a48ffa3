//! A pipeline's plan as a batch plan that sets late rows aside: place and watermark of each source row are carried from the scan to its
//! window, where the rule of CONTRACT §3 is applied as a filter.
//!
//! Always: source rows alone are judged, a derived row never is; a row is judged for each of its windows. Ties of ROW_NUMBER are broken by
//! the rows' identity; approximate aggregates become exact ones, those of doubles are rounded once. While a run goes on, windows that
//! its watermark has not passed are left out where results are published by window. Called by `verify` for every output.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::count_distinct;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Extension, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, Window,
    cast, lit, when,
};

use super::{CARRIED, OFFSET, PARTITION, SOURCE, WATERMARK, exact, kept, ordered};
use crate::sql::batch::{tied, to_batch};
use crate::sql::batch_changes::{Changes, asof, latest};
use crate::sql::{
    AsofNode, Joined, OutputTable, SourceTable, TimeKind, WINDOW_END, WINDOW_START, WindowKind, WindowNode, carried_windows, is_row_number,
    joined, key_of, of_doubles, time_kinds,
};

use tidemill_connectors::tombstone::DELETED_COLUMN;

/// What a scan reads.
pub enum Reads {
    /// Rows, by the scan's column names.
    Rows(Arc<dyn TableProvider>),
    /// Another output that is computed on the way, since it has no table in this reading: its analysed plan and its rules.
    Plan(LogicalPlan, Rules),
}

/// What an output's options say, and how far time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How far behind a row may come.
    pub lateness_us: i64,
    /// Windows are published when they close, and those still open are not wanted.
    pub closed_only: bool,
}

/// How a plan meets the log.
pub trait World {
    /// What a scan reads.
    fn reads(&self, scan: &TableScan) -> Result<Reads>;
    /// The watermark that has closed windows over the rows of `plan`, in microseconds.
    fn closed(&self, plan: &LogicalPlan) -> i64;
}

/// The plan of an output's rows.
pub fn rows(plan: &LogicalPlan, rules: Rules, world: &dyn World) -> Result<LogicalPlan> {
    let walked = Walk::new(world, rules).walk(plan.clone(), false)?;
    shaped(walked, plan.schema(), false)
}

/// The plans of an output's late rows: source, partition, offset, start of the missed window in microseconds (of a session, the row's
/// time). `plan` is the optimised one: a condition that removes a row stands below its window there, and what is filtered is never late.
pub fn late(plan: &LogicalPlan, lateness_us: i64, world: &dyn World) -> Result<Vec<LogicalPlan>> {
    let mut walk = Walk::new(world, Rules { lateness_us, closed_only: false });
    walk.walk(plan.clone(), false)?;
    Ok(walk.late)
}

struct Walk<'a> {
    world: &'a dyn World,
    rules: Rules,
    late: Vec<LogicalPlan>,
    /// Under the right side of an as-of join: every change of a changelog is a version, and what a filter removes is gone from then on.
    versions: bool,
    /// Conditions of WHERE right above, which may bound a join.
    above: Vec<Expr>,
    /// Columns that name rows of joins so far.
    ties: usize,
}

/// What the columns that name rows of a join begin with; their numbers are their order.
const TIE: &str = "__tie_";

/// Whether a version says that there is nothing.
const GONE: &str = "__gone";
/// Where versions stand, in the columns of a join.
const OF_VERSION: [&str; 2] = ["__version_partition", "__version_offset"];

/// The column of that name, whatever qualifies it.
fn named(schema: &DFSchema, name: &str) -> Option<Column> {
    schema.columns().into_iter().find(|column| column.name == name)
}

fn carries(plan: &LogicalPlan) -> bool {
    named(plan.schema(), OFFSET).is_some()
}

fn carried(plan: &LogicalPlan) -> impl Iterator<Item = Expr> {
    let places = CARRIED.into_iter().chain([GONE]).filter_map(|name| named(plan.schema(), name));
    places.chain(ties(plan)).map(|column| Expr::Column(column.clone()).alias(column.name))
}

/// The columns that name rows of a join, in their order.
fn ties(plan: &LogicalPlan) -> Vec<Column> {
    let number = |column: &Column| column.name.strip_prefix(TIE).and_then(|number| number.parse::<usize>().ok());
    let mut found: Vec<Column> = plan.schema().columns().into_iter().filter(|column| number(column).is_some()).collect();
    found.sort_by_key(number);
    found
}

/// The columns of `schema` in its order, and behind them the carried ones if they are wanted.
fn shaped(plan: LogicalPlan, schema: &DFSchema, with_carried: bool) -> Result<LogicalPlan> {
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    if with_carried {
        exprs.extend(carried(&plan));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

impl<'a> Walk<'a> {
    fn new(world: &'a dyn World, rules: Rules) -> Self {
        Self { world, rules, late: Vec::new(), versions: false, above: Vec::new(), ties: 0 }
    }

    /// `closing`: what reads the rows publishes them by their windows.
    fn walk(&mut self, plan: LogicalPlan, closing: bool) -> Result<LogicalPlan> {
        let above = std::mem::take(&mut self.above);
        match plan {
            LogicalPlan::Join(join) => self.joined(join, &above),
            LogicalPlan::TableScan(scan) => self.scan(&scan, closing),
            LogicalPlan::Projection(projection) => {
                let input = self.walk(Arc::unwrap_or_clone(projection.input), closing)?;
                let exprs = projection.expr.into_iter().chain(carried(&input)).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Filter(filter) => {
                self.above = above;
                self.above.push(filter.predicate.clone());
                let input = self.walk(Arc::unwrap_or_clone(filter.input), closing)?;
                if let Some(gone) = named(input.schema(), GONE) {
                    let passes = when(filter.predicate, lit(true)).otherwise(lit(false))?;
                    let gone = Expr::Column(gone).or(datafusion::logical_expr::not(passes)).alias(GONE);
                    let others = input.schema().columns().into_iter().filter(|column| column.name != GONE).map(Expr::Column);
                    let exprs = others.chain([gone]).collect();
                    return Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?));
                }
                Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(named) => {
                let input = self.walk(Arc::unwrap_or_clone(named.input), closing)?;
                Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), named.alias)?))
            }
            LogicalPlan::Window(window) => self.ranked(window),
            LogicalPlan::Extension(extension) => match WindowNode::of(&extension) {
                Some(node) => self.windowed(node, closing),
                None => match AsofNode::of(&extension) {
                    Some(node) => self.asof(node),
                    None => Ok(LogicalPlan::Extension(extension)),
                },
            },
            LogicalPlan::Union(union) => {
                let schemas: Vec<_> = union.inputs.iter().map(|input| Arc::clone(input.schema())).collect();
                let inputs =
                    union.inputs.into_iter().map(|input| self.walk(Arc::unwrap_or_clone(input), closing)).collect::<Result<Vec<_>>>()?;
                let with_carried = inputs.iter().all(carries);
                let shaped = inputs.into_iter().zip(&schemas).map(|(input, schema)| shaped(input, schema, with_carried).map(Arc::new));
                let inputs = shaped.collect::<Result<Vec<_>>>()?;
                let all = LogicalPlan::Union(datafusion::logical_expr::Union::try_new_with_loose_types(inputs)?);
                // Its columns keep the names that the nodes above know.
                let known = union.schema.iter().zip(all.schema().columns());
                let known =
                    known.map(|((qualifier, field), column)| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
                let exprs: Vec<Expr> = known.collect::<Vec<_>>().into_iter().chain(carried(&all)).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(all))?))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.walk(Arc::unwrap_or_clone(unnest.input), closing)?;
                LogicalPlanBuilder::from(input).unnest_columns_with_options(unnest.exec_columns, unnest.options)?.build()
            }
            LogicalPlan::Aggregate(aggregate) => {
                let windowed = by_window(&aggregate.group_expr, &aggregate.input);
                // What is carried breaks the ties of aggregates that depend on an order.
                let input = self.walk(Arc::unwrap_or_clone(aggregate.input), windowed)?;
                let exact = aggregate.aggr_expr.into_iter().enumerate().map(|(index, expr)| {
                    let returns = aggregate.schema.field(aggregate.group_expr.len() + index).data_type();
                    // Exact forms of different calls may have one name; the columns are known by their places.
                    Ok(exactly(expr, input.schema(), returns)?.unalias().alias(format!("__call_{index}")))
                });
                let exact = exact.collect::<Result<Vec<_>>>()?;
                let exact = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), aggregate.group_expr, exact)?);
                let known = aggregate.schema.iter().zip(exact.schema().columns());
                let known = known.map(|((qualifier, field), column)| {
                    cast(Expr::Column(column), field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
                });
                let exprs: Vec<Expr> = known.collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(exact))?))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let windowed = time_kinds(&input).into_iter().flatten().any(TimeKind::is_window);
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(self.plain(input, windowed)?))))
            }
            other => {
                let inputs = other.inputs().into_iter().map(|input| self.plain(Arc::new(input.clone()), false));
                let inputs = inputs.collect::<Result<Vec<_>>>()?;
                other.with_new_exprs(other.expressions(), inputs)
            }
        }
    }

    /// An input without what was carried.
    fn plain(&mut self, input: Arc<LogicalPlan>, closing: bool) -> Result<LogicalPlan> {
        let schema = Arc::clone(input.schema());
        shaped(self.walk(Arc::unwrap_or_clone(input), closing)?, &schema, false)
    }

    fn scan(&mut self, scan: &TableScan, closing: bool) -> Result<LogicalPlan> {
        let rows = match self.world.reads(scan)? {
            Reads::Rows(table) => {
                let schema = table.schema();
                if let Some(source) = scan.source.downcast_ref::<SourceTable>().filter(|source| source.is_changelog()) {
                    return self.changes(scan, source, table);
                }
                let wanted = scan.projected_schema.fields().iter().map(|field| field.name().as_str());
                let carried = CARRIED.into_iter().filter(|name| schema.index_of(name).is_ok());
                let projection = wanted.chain(carried.clone()).map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
                let same = scan
                    .projected_schema
                    .fields()
                    .iter()
                    .all(|field| schema.field_with_name(field.name()).is_ok_and(|found| found.data_type() == field.data_type()));
                let rows = LogicalPlanBuilder::scan(scan.table_name.clone(), provider_as_source(table), Some(projection))?;
                if same {
                    rows
                } else {
                    // A table may store strings in another form than the plan has them.
                    let column = |name: &str| Expr::Column(Column::new(Some(scan.table_name.clone()), name));
                    let typed = scan.projected_schema.fields().iter().map(|field| {
                        cast(column(field.name()), field.data_type().clone()).alias_qualified(Some(scan.table_name.clone()), field.name())
                    });
                    rows.project(typed.chain(carried.map(column)).collect::<Vec<_>>())?
                }
            }
            Reads::Plan(plan, rules) => {
                let walked = Walk::new(self.world, rules).walk(plan.clone(), false)?;
                let found = LogicalPlanBuilder::from(shaped(walked, plan.schema(), false)?).alias(scan.table_name.clone())?;
                let named = |field: &arrow::datatypes::FieldRef| Expr::Column(Column::new(Some(scan.table_name.clone()), field.name()));
                found.project(scan.projected_schema.fields().iter().map(named).collect::<Vec<_>>())?
            }
        };
        let plan = scan.filters.iter().try_fold(rows, |plan, filter| plan.filter(filter.clone()))?.build()?;
        if !closing || !self.rules.closed_only || scan.source.downcast_ref::<OutputTable>().is_none() {
            return Ok(plan);
        }
        // Its rows carry the windows that another view has made.
        let whole = LogicalPlan::TableScan(scan.clone());
        let Some(end) = time_kinds(&whole).iter().position(|kind| *kind == Some(TimeKind::WindowEnd)) else {
            return plan_err!("{} does not select window_end, so which of its windows are closed can't be told", scan.table_name);
        };
        let end = Expr::Column(Column::from(whole.schema().qualified_field(end)));
        self.closed(plan, end, &whole)
    }

    /// ROW_NUMBER, its ties broken by identity: the place of source rows, the key of derived ones.
    fn ranked(&mut self, window: Window) -> Result<LogicalPlan> {
        let windowed = window.window_expr.iter().any(|expr| match expr.clone().unalias() {
            Expr::WindowFunction(function) => is_row_number(&function) && bounded(&function.params.partition_by, &window.input),
            _ => false,
        });
        let key = key_of(&window.input).and_then(|key| key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>());
        let identity = key.filter(|key| !key.is_empty()).unwrap_or_else(|| (0..window.input.schema().fields().len()).collect());
        let identity: Vec<Column> = identity.into_iter().map(|index| Column::from(window.input.schema().qualified_field(index))).collect();
        let input = self.walk(Arc::unwrap_or_clone(window.input), windowed)?;
        let names = ties(&input);
        let ties: Vec<Sort> = if !names.is_empty() {
            names.into_iter().map(|column| Sort::new(Expr::Column(column), true, true)).collect()
        } else if carries(&input) {
            let places = [SOURCE, PARTITION, OFFSET].into_iter().filter_map(|name| named(input.schema(), name));
            places.map(|column| Sort::new(Expr::Column(column), true, false)).collect()
        } else {
            identity.into_iter().map(|column| Sort::new(Expr::Column(column), true, true)).collect()
        };
        let exprs: Vec<Expr> = window.window_expr.iter().map(|expr| tied(expr, &ties)).collect();
        LogicalPlanBuilder::from(input).window(exprs)?.build()
    }

    fn windowed(&mut self, node: &WindowNode, closing: bool) -> Result<LogicalPlan> {
        let mut input = self.walk(node.input.clone(), false)?;
        let judged = named(input.schema(), WATERMARK).is_some();
        let time = || cast(Expr::Column(node.time_column.clone()), DataType::Int64);
        if let (true, WindowKind::Session { gap_us, .. }) = (judged, &node.kind) {
            let start = Expr::Column(node.time_column.clone());
            input = self.judged(input, time() + lit(*gap_us), start)?;
        }
        let lowered = WindowNode::try_new(input, node.time_column.clone(), node.kind.clone())?;
        let session = matches!(node.kind, WindowKind::Session { .. });
        let mut plan = to_batch(LogicalPlan::Extension(Extension { node: Arc::new(lowered) }))?;
        let ends = (named(plan.schema(), WINDOW_START), named(plan.schema(), WINDOW_END));
        let (Some(start), Some(end)) = ends else { return Ok(plan) };
        if judged && !session {
            plan = self.judged(plan, cast(Expr::Column(end.clone()), DataType::Int64), Expr::Column(start))?;
        }
        if closing && self.rules.closed_only {
            plan = self.closed(plan, Expr::Column(end), &node.input)?;
        }
        Ok(plan)
    }

    /// Keeps rows of windows that the watermark over `below` has passed.
    fn closed(&self, plan: LogicalPlan, end: Expr, below: &LogicalPlan) -> Result<LogicalPlan> {
        let passed = cast(end, DataType::Int64).lt_eq(lit(self.world.closed(below)));
        Ok(LogicalPlan::Filter(Filter::try_new(passed, Arc::new(plan))?))
    }

    /// A changelog: its latest rows, or all its changes where they are versions.
    fn changes(&self, scan: &TableScan, source: &SourceTable, table: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
        let schema = table.schema();
        let all = LogicalPlanBuilder::scan(scan.table_name.clone(), provider_as_source(table), None)?.build()?;
        let place = |name: &str| Column::new(Some(scan.table_name.clone()), name);
        let wanted = scan.projected_schema.fields().iter().map(|field| Expr::Column(place(field.name())));
        if self.versions {
            let carried = CARRIED.into_iter().map(|name| Expr::Column(place(name)));
            let gone = Expr::Column(place(DELETED_COLUMN)).alias(GONE);
            let exprs = wanted.chain(carried).chain([gone]).collect();
            return Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(all))?));
        }
        let declared = scan.source.schema();
        let at = Changes {
            key: source.key.iter().map(|index| place(declared.field(*index).name())).collect(),
            time: source
                .time_column
                .map(|index| place(declared.field(index).name()))
                .filter(|column| schema.index_of(&column.name).is_ok()),
            partition: place(PARTITION),
            offset: place(OFFSET),
            deleted: place(DELETED_COLUMN),
        };
        let latest = latest(all, &at)?;
        Ok(LogicalPlan::Projection(Projection::try_new(wanted.collect(), Arc::new(latest))?))
    }

    /// An as-of join of the rows in time on both sides. Its rows keep the left side's place, but are judged no more.
    fn asof(&mut self, node: &AsofNode) -> Result<LogicalPlan> {
        let left = self.walk(node.left.clone(), false)?;
        let left = self.judged_event(left, &node.left_time)?;
        let kept = left.schema().columns().into_iter().filter(|column| column.name != WATERMARK).map(Expr::Column).collect();
        let left = LogicalPlan::Projection(Projection::try_new(kept, Arc::new(left))?);
        let before = std::mem::replace(&mut self.versions, true);
        let right = self.walk(node.right.clone(), false);
        self.versions = before;
        // What has no time or no key is no version.
        let there = node.on.iter().map(|(_, right)| right.clone().is_not_null());
        let there = conjunction(there.chain([Expr::Column(node.right_time.clone()).is_not_null()]));
        let gone = right.as_ref().ok().and_then(|right| named(right.schema(), GONE));
        let right = match (there, &gone) {
            (Some(there), None) => LogicalPlan::Filter(Filter::try_new(there, Arc::new(right?))?),
            _ => right?,
        };
        let right = self.judged_event(right, &node.right_time)?;
        let own = right.schema().columns().into_iter().filter(|column| !CARRIED.contains(&column.name.as_str())).map(Expr::Column);
        let places = [PARTITION, OFFSET].into_iter().zip(OF_VERSION);
        let places = places.filter_map(|(name, to)| named(right.schema(), name).map(|column| Expr::Column(column).alias(to)));
        let right = LogicalPlan::Projection(Projection::try_new(own.chain(places).collect(), Arc::new(right.clone()))?);
        let ties: Vec<Column> = OF_VERSION.into_iter().filter_map(|name| named(right.schema(), name)).collect();
        let times = (node.left_time.clone(), node.right_time.clone(), node.strict);
        let joined = AsofNode::try_new(left, right, times, node.on.clone())?;
        let plan = asof(&joined, &ties, gone.as_ref())?;
        let versions = [OF_VERSION[0], OF_VERSION[1], GONE];
        let kept =
            plan.schema().columns().into_iter().filter(|column| !versions.contains(&column.name.as_str())).map(Expr::Column).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(plan))?))
    }

    /// A join of the rows in time on both sides; its rows are named by what names those of its sides, and are judged no more.
    fn joined(&mut self, join: Join, above: &[Expr]) -> Result<LogicalPlan> {
        let Ok(Joined { span, .. }) = joined(&join, above) else { return plan_err!("a join that no time bounds") };
        let mut sides = Vec::with_capacity(2);
        for (side, time) in [(Arc::unwrap_or_clone(join.left), span.left), (Arc::unwrap_or_clone(join.right), span.right)] {
            let schema = Arc::clone(side.schema());
            let time = Column::from(schema.qualified_field(time));
            let key = key_of(&side).and_then(|key| key.iter().map(|column| column.output).collect::<Option<Vec<usize>>>());
            let windowed = carried_windows(&side).is_some();
            self.above = above.to_vec();
            let walked = self.walk(side, false)?;
            // Rows that carry their windows were judged by them.
            let judged = if windowed { walked } else { self.judged_event(walked, &time)? };
            let mut names = ties(&judged);
            if names.is_empty() && carries(&judged) {
                names.extend([SOURCE, PARTITION, OFFSET].into_iter().filter_map(|name| named(judged.schema(), name)));
                names.extend(windowed.then_some(time));
            } else if names.is_empty() {
                let all = || (0..schema.fields().len()).collect();
                names.extend(key.unwrap_or_else(all).into_iter().map(|index| Column::from(schema.qualified_field(index))));
            }
            let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
            for name in names {
                exprs.push(Expr::Column(name).alias(format!("{TIE}{}", self.ties)));
                self.ties += 1;
            }
            sides.push(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(judged))?)));
        }
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { return plan_err!("a join has two sides") };
        let joined =
            Join::try_new(left, right, join.on, join.filter, join.join_type, join.join_constraint, join.null_equality, join.null_aware)?;
        Ok(LogicalPlan::Join(joined))
    }

    /// Keeps rows in time for a join over `time`, and puts the others aside; rows that carry no watermark were judged before.
    fn judged_event(&mut self, plan: LogicalPlan, time: &Column) -> Result<LogicalPlan> {
        if named(plan.schema(), WATERMARK).is_none() {
            return Ok(plan);
        }
        // One instant after its time a row would be late for a window: late means strictly behind.
        let end = cast(Expr::Column(time.clone()), DataType::Int64) + lit(1_i64);
        let known = LogicalPlan::Filter(Filter::try_new(Expr::Column(time.clone()).is_not_null(), Arc::new(plan.clone()))?);
        self.judged(known, end.clone(), lit(0_i64))?;
        let late = self.is_late(&plan, end);
        let in_time = when(late, lit(false)).otherwise(lit(true))?;
        Ok(LogicalPlan::Filter(Filter::try_new(in_time, Arc::new(plan))?))
    }

    fn is_late(&self, plan: &LogicalPlan, end: Expr) -> Expr {
        let watermark = named(plan.schema(), WATERMARK).map(Expr::Column).unwrap_or_else(|| lit(0_i64));
        watermark.clone().is_not_null().and((end + lit(self.rules.lateness_us)).lt_eq(watermark))
    }

    /// Keeps rows in time for a window that ends at `end`, and puts the others aside.
    fn judged(&mut self, plan: LogicalPlan, end: Expr, start: Expr) -> Result<LogicalPlan> {
        let late = self.is_late(&plan, end);
        let missed = LogicalPlan::Filter(Filter::try_new(late.clone(), Arc::new(plan.clone()))?);
        let places = [SOURCE, PARTITION, OFFSET].into_iter().filter_map(|name| named(plan.schema(), name)).map(Expr::Column);
        let exprs = places.chain([cast(start, DataType::Int64).alias(WINDOW_START)]).collect();
        self.late.push(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(missed))?));
        Ok(LogicalPlan::Filter(Filter::try_new(datafusion::logical_expr::not(late), Arc::new(plan))?))
    }
}

/// Whether a GROUP BY names a window.
fn by_window(exprs: &[Expr], input: &LogicalPlan) -> bool {
    kinds_of(exprs, input).any(TimeKind::is_window)
}

/// Whether a partition lies within one window: sessions that begin together may end apart.
fn bounded(partition: &[Expr], input: &LogicalPlan) -> bool {
    kinds_of(partition, input).any(|kind| matches!(kind, TimeKind::WindowStart | TimeKind::WindowEnd))
}

fn kinds_of<'a>(exprs: &'a [Expr], input: &'a LogicalPlan) -> impl Iterator<Item = TimeKind> + 'a {
    let kinds = time_kinds(input);
    exprs.iter().filter_map(move |expr| match expr.clone().unalias() {
        Expr::Column(column) => kinds.get(input.schema().index_of_column(&column).ok()?).copied().flatten(),
        _ => None,
    })
}

/// Exact aggregates for the approximate ones, and ours for those of doubles; the caller casts and renames.
fn exactly(expr: Expr, input: &DFSchema, returns: &DataType) -> Result<Expr> {
    let exact = expr.transform_up(|expr| match expr {
        Expr::AggregateFunction(mut function) => match function.func.name() {
            "approx_distinct" => {
                let argument = function.params.args.pop().unwrap_or_else(|| lit(0));
                let Expr::AggregateFunction(mut exact) = count_distinct(argument) else {
                    return datafusion::common::internal_err!("count is an aggregate");
                };
                exact.params.filter = function.params.filter;
                Ok(Transformed::yes(Expr::AggregateFunction(exact)))
            }
            "approx_percentile_cont" | "approx_median" => {
                if function.func.name() == "approx_median" {
                    function.params.args.push(lit(0.5));
                }
                // The quantile is counted from the other end.
                let descending = function.params.order_by.first().is_some_and(|sort| !sort.asc);
                function.func = exact::nearest_rank();
                function.params.args = function.params.args.into_iter().map(|argument| cast(argument, DataType::Float64)).collect();
                if let Some(quantile) = function.params.args.get_mut(1).filter(|_| descending) {
                    *quantile = lit(1.0) - quantile.clone();
                }
                function.params.order_by.clear();
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            _ => {
                let ours = match ordered::in_order(&function, input, returns)? {
                    Some(ours) => Some(ours),
                    None => kept::of_ours(&function, input, returns)?,
                };
                if let Some(ours) = ours {
                    return Ok(Transformed::yes(ours));
                }
                match of_doubles(&function, input, returns)? {
                    Some(rounded_once) => {
                        function.func = rounded_once;
                        function.params.distinct = false;
                        Ok(Transformed::yes(Expr::AggregateFunction(function)))
                    }
                    None => Ok(Transformed::no(Expr::AggregateFunction(function))),
                }
            }
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(exact.data)
}
