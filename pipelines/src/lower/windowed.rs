//! Windows without GROUP BY: rows that carry their windows as columns.

use tidemill_engine::error::{Error, Result};

use super::Lowering;
use super::stream::Stream;
use crate::sql::WindowNode;

impl Lowering<'_> {
    /// `SELECT … FROM tumble(…)` without an aggregate right above.
    pub(super) fn assign_windows(&mut self, node: &WindowNode) -> Result<Stream> {
        let _ = node;
        Err(Error::refused("rows of a window function without GROUP BY window_start, window_end are not supported yet: group them"))
    }
}
