//! Windows without GROUP BY right above: rows that carry their windows as columns.

use std::sync::Arc;

use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::Make;
use tidemill_engine::operator::Operator;
use tidemill_operators::judge::Judge;
use tidemill_operators::window_assign::WindowAssign;
use tidemill_operators::windows::Windows;

use super::stream::{SpanKind, Stream, arrow_schema};
use super::{Lowering, all_columns, nullable, trailing_span};
use crate::sql::{WindowKind, WindowNode};

impl Lowering<'_> {
    /// `SELECT … FROM tumble(…)` without an aggregate right above: a row for each of its windows.
    pub(super) fn assign_windows(&mut self, node: &WindowNode) -> Result<Stream> {
        let (windows, kind) = match node.kind {
            WindowKind::Tumble { size_us, offset_us } => {
                (Windows::tumble(size_us, offset_us)?, SpanKind::Fixed { size_us, slide_us: size_us, offset_us })
            }
            WindowKind::Hop { slide_us, size_us } => {
                (Windows::hop(slide_us, size_us, 0)?, SpanKind::Fixed { size_us, slide_us, offset_us: 0 })
            }
            WindowKind::Session { .. } => {
                return Err(Error::refused(
                    "rows of session(…) are not known before the session ends: GROUP BY window_start, window_end and the session's keys",
                ));
            }
        };
        let input = self.plan(&node.input)?;
        let time = node.time_index().map_err(|error| Error::refused(error.strip_backtrace()))?;
        let schema = arrow_schema(&datafusion::logical_expr::LogicalPlan::Extension(datafusion::logical_expr::Extension {
            node: Arc::new(node.clone()),
        }));
        let (flat, lateness_us) = (nullable(&schema), self.lateness_us());
        let make: Make = Arc::new(move || {
            Ok(Box::new(WindowAssign::new(Judge::new(windows, lateness_us), time, Arc::clone(&flat))) as Box<dyn Operator>)
        });
        let rows = match input.tail {
            Some(_) => self.project(input.node, Vec::new(), all_columns(&input.schema), &input.schema, "rows"),
            None => input.node,
        };
        let assigned = self.add_operator(vec![rows], "window_assign", make);
        let span = Some(trailing_span(kind, schema.fields().len()));
        Ok(Stream { node: assigned, schema, span, tail: None, ..input })
    }
}
