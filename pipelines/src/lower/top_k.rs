//! `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= k`.

use datafusion::logical_expr::Filter;
use tidemill_engine::error::{Error, Result};

use super::Lowering;
use super::stream::Stream;

impl Lowering<'_> {
    /// Filter over Window: the k first rows of each partition.
    pub(super) fn top_k(&mut self, filter: &Filter) -> Result<Stream> {
        let _ = filter;
        Err(Error::refused("ROW_NUMBER() is not supported yet"))
    }
}
