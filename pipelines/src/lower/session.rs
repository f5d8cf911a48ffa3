//! Sessions: GROUP BY over `session(…)`.

use datafusion::common::Column;
use datafusion::logical_expr::{Aggregate, LogicalPlan};
use tidemill_engine::error::{Error, Result};

use super::Lowering;
use super::aggregate::Grouping;
use super::stream::Stream;
use crate::sql::WindowNode;

impl Lowering<'_> {
    pub(super) fn session(&mut self, aggregate: &Aggregate, grouping: &Grouping, node: &WindowNode, stripped: &LogicalPlan, time: &Column, gap_us: i64) -> Result<Stream> {
        let _ = (aggregate, grouping, node, stripped, time, gap_us);
        Err(Error::refused("session() is not supported yet"))
    }
}
