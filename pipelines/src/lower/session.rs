//! Sessions: GROUP BY over `session(…)`. The keys that are grouped by must be the session's own, or its rows would belong to no group.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use tidemill_engine::error::{Error, Result};
use tidemill_operators::session::Sessions;
use tidemill_operators::window_aggregate::Emit as When;

use super::aggregate::{Below, From, Grouping, Place};
use super::expr::compile;
use super::stream::{SpanKind, Stream, arrow_schema};
use super::{Lowering, Span, plain_column};
use crate::sql::{Emit, WindowNode};

impl Lowering<'_> {
    pub(super) fn session(
        &mut self,
        aggregate: &Aggregate,
        grouping: &Grouping,
        node: &WindowNode,
        stripped: &LogicalPlan,
        time: &Column,
        gap_us: i64,
    ) -> Result<Stream> {
        check_keys(grouping, node, stripped)?;
        let stream = self.plan(stripped)?;
        if stream.revises {
            return Err(Error::refused(
                "sessions over rows that may be revised are not supported yet: read the source, or a view without GROUP BY",
            ));
        }
        let schema = Arc::clone(stripped.schema());
        let time = compile(&Expr::Column(time.clone()), &schema)?;
        let from = From::session(time)?;
        let below = Below { stream, schema, windows: Some(from) };
        let prepared = self.prepare(aggregate, grouping, &below)?;
        let keys = grouping.keys.len();
        let output = super::aggregate::result_schema(&prepared.schema, grouping, true, &prepared.calls);
        let latest = self.latest_run();
        let emit = if latest || self.emit() == Some(Emit::Changes) { When::Changes } else { When::Final };
        let lateness_us = self.lateness_us();
        let sessions = Arc::new(Sessions {
            keys: (0..keys).collect(),
            time: keys,
            gap_us,
            lateness_us,
            calls: prepared.calls,
            input: Arc::clone(&prepared.schema),
            output: Arc::clone(&output),
            sources: below.stream.sources.clone(),
            emit,
            latest,
        });
        let kept = self.sessions(prepared.node, sessions, keys);
        let schema = arrow_schema(&LogicalPlan::Aggregate(aggregate.clone()));
        let node = self.finish(kept, grouping, true, &output, &schema, None);
        let place = |wanted: Place| grouping.places.iter().position(|place| *place == wanted);
        let span = Some(Span { kind: SpanKind::Session, start: place(Place::Start), end: place(Place::End) });
        let behind_us = below.stream.behind_us + lateness_us + gap_us;
        Ok(Stream { node, schema, revises: true, raw: false, sources: below.stream.sources, span, behind_us, tail: None })
    }
}

/// Every key of the session must be grouped by, and nothing else may be.
fn check_keys(grouping: &Grouping, node: &WindowNode, stripped: &LogicalPlan) -> Result<()> {
    let wanted = node.key_indexes().map_err(|error| Error::refused(error.strip_backtrace()))?;
    let traced = |expr: &Expr| plain_column(expr, stripped.schema()).and_then(|index| trace(stripped, index, &node.input));
    let grouped: Vec<Option<usize>> = grouping.keys.iter().map(traced).collect();
    let names = |index: &usize| node.input.schema().field(*index).name().clone();
    if let Some(missing) = wanted.iter().find(|index| !grouped.contains(&Some(**index))) {
        return Err(Error::refused(format!("the session's key {} must be in GROUP BY too", names(missing))));
    }
    match grouping.keys.iter().zip(&grouped).find(|(_, index)| index.is_none_or(|index| !wanted.contains(&index))) {
        Some((expr, _)) => {
            Err(Error::refused(format!("GROUP BY {expr} is no key of the session: write it as a further argument of session(…)")))
        }
        None => Ok(()),
    }
}

/// The column of `below` that column `index` of `plan` passes on.
fn trace(plan: &LogicalPlan, index: usize, below: &LogicalPlan) -> Option<usize> {
    if plan == below {
        return Some(index);
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            trace(&projection.input, plain_column(projection.expr.get(index)?, projection.input.schema())?, below)
        }
        LogicalPlan::Filter(filter) => trace(&filter.input, index, below),
        LogicalPlan::SubqueryAlias(alias) => trace(&alias.input, index, below),
        _ => None,
    }
}
