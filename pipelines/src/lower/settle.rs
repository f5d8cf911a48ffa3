//! Two small operators for UNION ALL over one source: rows that carry no tokens, and the union that gives them back, once a record.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_engine::account::Fate;
use tidemill_engine::error::Result;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};
use tidemill_engine::time::Watermark;

/// Passes rows on without their tokens.
pub struct Untoken;

impl Operator for Untoken {
    fn name(&self) -> &'static str {
        "untoken"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        out.emit(Rows { tokens: Tokens::none(), ..rows });
        Ok(())
    }
}

/// Unites branches of the same records. The first ports bring the records themselves, the rest the branches, all in the same tick.
pub struct SettleUnion {
    records: usize,
    /// Records of this tick that no branch has brought yet.
    open: HashMap<(usize, i32, i64), ()>,
}

impl SettleUnion {
    /// `records` leading ports bring records.
    pub fn new(records: usize) -> Self {
        Self { records, open: HashMap::new() }
    }
}

impl Operator for SettleUnion {
    fn name(&self) -> &'static str {
        "settle_union"
    }

    fn on_rows(&mut self, port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let Some(origin) = rows.origin.clone() else {
            out.emit(rows);
            return Ok(());
        };
        let identities = origin.offsets.iter().map(|offset| (origin.source, origin.partition, *offset));
        if port < self.records {
            self.open.extend(identities.map(|identity| (identity, ())));
            return Ok(());
        }
        let tokens: Arc<[i64]> = identities.map(|identity| i64::from(self.open.remove(&identity).is_some())).collect();
        out.emit(Rows { tokens: Tokens::Counts(vec![(origin.source, tokens)]), ..rows });
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        for ((source, _, _), ()) in self.open.drain() {
            out.counts.settle(Fate::Filtered, source, 1);
        }
        out.watermark = watermark;
        Ok(())
    }
}
