//! Expressions as operators see them: something that turns a batch into a column.
//!
//! Always: a value depends on its own row alone, so a batch may be cut in any way. What an expression is made of (DataFusion's
//! physical expressions) is known to the planner only.

use arrow::array::{ArrayRef, RecordBatch};
use tidemill_engine::error::Result;

/// One compiled SQL expression.
pub trait Expression: Send + Sync {
    /// Its value for every row of `batch`; as long as the batch.
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef>;

    /// Its SQL and place, for messages.
    fn text(&self) -> &str;
}
