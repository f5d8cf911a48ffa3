//! `state_ttl` as a plan: what has no windows is taken over the sessions of each key with that gap, and of each key's sessions the latest.
//!
//! Always: "the key's latest run of rows no further than that apart" (CONTRACT §3), said in nodes that the oracle knows, over event time
//! alone. A GROUP BY or DISTINCT becomes one over `session` and of its results the first by descending start; `ROW_NUMBER() = 1` orders by
//! the session first. Refused: rows that may be revised or have no event time, and anything above that would have to take a result back
//! whose state is gone. Called by `plan`.

use std::sync::Arc;

use datafusion::common::{Column, DataFusionError, ExprSchema, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, Window, lit,
};

use super::context::SourceTable;
use super::error::{Checked, Complaint};
use super::explain::translate;
use super::keys::{is_row_number, key_of, rank_bound};
use super::program::Place;
use super::time::{TimeKind, time_kinds};
use super::windows::{WINDOW_END, WINDOW_START, WindowKind, WindowNode};

/// The number of a key's runs, the latest first.
pub const RUN: &str = "__tidemill_run";
const TIME: &str = "__tidemill_time";

/// Bounds the one step of a plan that has no windows.
pub(super) fn bound(plan: LogicalPlan, ttl_us: i64, at: Place) -> Checked<LogicalPlan> {
    Bound { ttl_us, at }.walk(plan)
}

struct Bound {
    ttl_us: i64,
    at: Place,
}

type Step = Checked<LogicalPlan>;

impl Bound {
    fn refuse(&self, message: &str, help: &str) -> Step {
        Err(Complaint::new(self.at, format!("state_ttl: {message}")).help(help))
    }

    fn walk(&self, plan: LogicalPlan) -> Step {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.walk(Arc::unwrap_or_clone(projection.input))?;
                Projection::try_new(projection.expr, Arc::new(input)).map(LogicalPlan::Projection).map_err(wrong)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.walk(Arc::unwrap_or_clone(alias.input))?;
                SubqueryAlias::try_new(Arc::new(input), alias.alias).map(LogicalPlan::SubqueryAlias).map_err(wrong)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(Arc::unwrap_or_clone(input)),
            LogicalPlan::Filter(filter) => match rank_bound(&filter) {
                Some(bound) if bound.exact && bound.limit == 1 => self.first(filter),
                Some(_) => self.refuse("only the first row of each key can be kept", "write … = 1, or rank within windows"),
                None => self.refuse(
                    "a condition on results would have to take back what is no longer held",
                    "filter the rows below, or filter when you read the table",
                ),
            },
            _ => self.refuse(
                "it bounds a GROUP BY, DISTINCT or ROW_NUMBER() = 1 without windows, and there is none",
                "leave it out: the state of windows goes with the watermark",
            ),
        }
    }

    /// Rows that are appended and have event time: the column of it.
    fn time(&self, input: &LogicalPlan) -> Checked<Option<Column>> {
        if time_kinds(input).into_iter().flatten().any(TimeKind::is_window) {
            return self.refuse("its rows have windows already", "leave it out, and GROUP BY window_start, window_end").map(|_| None);
        }
        if key_of(input).is_some() || !reads_sources(input) {
            return self.refuse("its rows may be revised", "read a source, or a view without GROUP BY").map(|_| None);
        }
        let place = time_kinds(input).iter().position(|kind| *kind == Some(TimeKind::Event));
        Ok(place.and_then(|place| input.schema().columns().into_iter().nth(place)))
    }

    fn timed(&self, input: &LogicalPlan) -> Checked<Column> {
        match self.time(input)? {
            Some(column) => Ok(column),
            None => Err(Complaint::new(self.at, "state_ttl: the rows have no event time")
                .help("give the source a WATERMARK, and keep its column in the rows that are grouped")),
        }
    }

    fn aggregate(&self, aggregate: Aggregate) -> Step {
        let time = self.timed(&aggregate.input)?;
        let calls = aggregate.aggr_expr.clone();
        let base = Arc::unwrap_or_clone(aggregate.input.clone());
        self.grouped(base, time, &aggregate.group_expr, calls, &LogicalPlan::Aggregate(aggregate.clone())).map_err(wrong)
    }

    /// The columns of DISTINCT are its keys; the time may lie below its SELECT.
    fn distinct(&self, input: LogicalPlan) -> Step {
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let known = LogicalPlan::Distinct(Distinct::All(Arc::new(input.clone())));
        if let Some(time) = self.time(&input)? {
            return self.grouped(input, time, &columns, Vec::new(), &known).map_err(wrong);
        }
        let LogicalPlan::Projection(projection) = &input else { return self.timed(&input).map(|_| input) };
        let time = self.timed(&projection.input)?;
        let mut exprs = projection.expr.clone();
        exprs.push(Expr::Column(time).alias(TIME));
        let base = Projection::try_new(exprs, Arc::clone(&projection.input)).map(LogicalPlan::Projection).map_err(wrong)?;
        self.grouped(base, Column::new_unqualified(TIME), &columns, Vec::new(), &known).map_err(wrong)
    }

    /// `keys` and `calls` over the latest session of each key, with the columns of `known`.
    fn grouped(&self, base: LogicalPlan, time: Column, keys: &[Expr], calls: Vec<Expr>, known: &LogicalPlan) -> Result<LogicalPlan> {
        let (base, keys) = with_keys(base, keys)?;
        let (start, end) = (Expr::Column(Column::new_unqualified(WINDOW_START)), Expr::Column(Column::new_unqualified(WINDOW_END)));
        let sessions = self.sessions(base, time, keys.clone())?;
        let of = |name: &str| named(&sessions, name);
        let (start, end) = (of(WINDOW_START).unwrap_or(start), of(WINDOW_END).unwrap_or(end));
        let mut group: Vec<Expr> = keys.iter().cloned().map(Expr::Column).collect();
        let partition = group.clone();
        group.extend([start.clone(), end]);
        let width = group.len();
        let results = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(sessions), group, calls)?);
        let run = row_number().partition_by(partition).order_by(vec![start.sort(false, false)]).build()?.alias(RUN);
        let numbered =
            LogicalPlanBuilder::from(results).window([run])?.filter(Expr::Column(Column::new_unqualified(RUN)).eq(lit(1_u64)))?;
        let columns = numbered.schema().columns();
        let kept = columns.iter().take(keys.len()).chain(columns.iter().skip(width)).cloned().map(Expr::Column);
        numbered.project(renamed(kept, known))?.build()
    }

    /// `ROW_NUMBER() = 1`: of the latest session's rows the first.
    fn first(&self, filter: Filter) -> Step {
        let input = self.ranked(Arc::unwrap_or_clone(filter.input))?;
        Filter::try_new(filter.predicate, Arc::new(input)).map(LogicalPlan::Filter).map_err(wrong)
    }

    fn ranked(&self, plan: LogicalPlan) -> Step {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.ranked(Arc::unwrap_or_clone(projection.input))?;
                Projection::try_new(projection.expr, Arc::new(input)).map(LogicalPlan::Projection).map_err(wrong)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.ranked(Arc::unwrap_or_clone(alias.input))?;
                SubqueryAlias::try_new(Arc::new(input), alias.alias).map(LogicalPlan::SubqueryAlias).map_err(wrong)
            }
            LogicalPlan::Window(window) => {
                let time = self.timed(&window.input)?;
                self.numbered(window, time).map_err(wrong)
            }
            _ => self.refuse("only = 1 may stand between ROW_NUMBER() and the result", "filter the rows below"),
        }
    }

    fn numbered(&self, window: Window, time: Column) -> Result<LogicalPlan> {
        let known = LogicalPlan::Window(window.clone());
        let Some(Expr::WindowFunction(mut function)) = window.window_expr.into_iter().next().map(Expr::unalias) else {
            return datafusion::common::internal_err!("a bound without its ROW_NUMBER()");
        };
        if !is_row_number(&function) {
            return datafusion::common::internal_err!("a bound without its ROW_NUMBER()");
        }
        let (base, keys) = with_keys(Arc::unwrap_or_clone(window.input), &function.params.partition_by)?;
        let width = known.schema().fields().len().saturating_sub(1);
        let sessions = self.sessions(base, time, keys.clone())?;
        function.params.partition_by = keys.into_iter().map(Expr::Column).collect();
        let start = named(&sessions, WINDOW_START).map(|start| start.sort(false, false));
        function.params.order_by.splice(0..0, start);
        let numbered = LogicalPlanBuilder::from(sessions).window([Expr::WindowFunction(function).alias(RUN)])?;
        let columns = numbered.schema().columns();
        let kept = columns.iter().take(width).chain(columns.last()).cloned().map(Expr::Column);
        numbered.project(renamed(kept, &known))?.build()
    }

    fn sessions(&self, base: LogicalPlan, time: Column, keys: Vec<Column>) -> Result<LogicalPlan> {
        let nullable = base.schema().field_from_column(&time)?.is_nullable();
        let base = if nullable { LogicalPlanBuilder::from(base).filter(Expr::Column(time.clone()).is_not_null())?.build()? } else { base };
        let node = WindowNode::try_new(base, time, WindowKind::Session { gap_us: self.ttl_us, keys })?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

fn wrong(error: DataFusionError) -> Complaint {
    translate(&error)
}

fn reads_sources(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<SourceTable>().is_some(),
        other => other.inputs().into_iter().all(reads_sources),
    }
}

fn named(plan: &LogicalPlan, name: &str) -> Option<Expr> {
    plan.schema().columns().into_iter().rev().find(|column| column.name == name).map(Expr::Column)
}

/// The plan with every key as a column behind its own, unless it is one.
fn with_keys(base: LogicalPlan, keys: &[Expr]) -> Result<(LogicalPlan, Vec<Column>)> {
    let mut exprs: Vec<Expr> = base.schema().columns().into_iter().map(Expr::Column).collect();
    let width = exprs.len();
    let columns = keys
        .iter()
        .enumerate()
        .map(|(number, key)| match key {
            Expr::Column(column) => column.clone(),
            computed => {
                let name = format!("__tidemill_key_{number}");
                exprs.push(computed.clone().unalias().alias(&name));
                Column::new_unqualified(name)
            }
        })
        .collect();
    let base = if exprs.len() == width { base } else { LogicalPlanBuilder::from(base).project(exprs)?.build()? };
    Ok((base, columns))
}

/// Expressions under the names of another plan's columns.
fn renamed(exprs: impl Iterator<Item = Expr>, known: &LogicalPlan) -> Vec<Expr> {
    let names = known.schema().iter();
    exprs.zip(names).map(|(expr, (qualifier, field))| expr.alias_qualified(qualifier.cloned(), field.name())).collect()
}
