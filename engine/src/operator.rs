//! The contract of an operator, and what it may do: turn rows into rows, keep state tables, settle tokens.
//!
//! Always: one instance per worker, driven by one thread; it never blocks, never awaits, reads no clock and no randomness. What it
//! emits is a function of what it was given, in the order it was given. Called by `worker` alone: for each tick `on_rows` for
//! every batch in (port, worker, partition, offset) order, then `on_tick` once, then `on_cut` or `on_end` if the tick ends an epoch or the input.

use crate::account::NodeCounts;
use crate::error::Result;
use crate::letter::{DeadLetter, LateEvent};
use crate::rows::Rows;
use crate::state::{Changes, Scalars, TableSpec};
use crate::time::Watermark;

/// Turns rows into rows. See the module doc.
pub trait Operator: Send {
    /// Stable lower-case name, used in plans, metrics and state tables.
    fn name(&self) -> &'static str;

    /// Consumes a batch that one tick brings to `port`.
    fn on_rows(&mut self, port: usize, rows: Rows, out: &mut Output) -> Result<()>;

    /// The tick has brought all its rows and every input has passed `watermark`: closes what that completes. A watermark that did
    /// not move is told again. Passes it on unless it holds it back.
    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        Ok(())
    }

    /// The tick ends an epoch: emits what is due each epoch.
    fn on_cut(&mut self, out: &mut Output) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// A bounded input has ended: publishes everything open as if time had ended, moves no watermark and drops no state.
    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.on_cut(out)
    }

    /// The state tables, in a fixed order; their index is their name to `changes` and `load`.
    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    /// What changed in a table since the last call (`full`: everything), and forgets that it changed.
    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        let _ = (table, full);
        Ok(Changes::default())
    }

    /// Takes rows of a table back, each key at most once, before the first tick. Only keys that this worker owns come.
    fn load(&mut self, table: usize, rows: &arrow::array::RecordBatch) -> Result<()> {
        let _ = (table, rows);
        Ok(())
    }

    /// Single values that belong to no key (a watermark passed, a closing publish).
    fn scalars(&self) -> Scalars {
        Scalars::new()
    }

    /// Takes the scalars of one worker of the epoch restored; called once for each of them, so values must merge (max, min).
    fn load_scalars(&mut self, scalars: &Scalars) {
        let _ = scalars;
    }

    /// Bytes of state held, for limits and the progress line.
    fn state_bytes(&self) -> usize {
        0
    }
}

/// Where an operator puts what it makes during one tick. `counts` stays from tick to tick, the rest is taken by the worker.
#[derive(Debug, Default)]
pub struct Output {
    /// Rows for every consumer of this node, in order.
    pub rows: Vec<Rows>,
    /// The watermark after this tick.
    pub watermark: Watermark,
    /// What this node settled and holds.
    pub counts: NodeCounts,
    /// Records on which an expression failed.
    pub dead: Vec<DeadLetter>,
    /// Rows behind their windows.
    pub late: Vec<LateEvent>,
}

impl Output {
    /// Hands rows on; empty batches go nowhere.
    pub fn emit(&mut self, rows: Rows) {
        if !rows.is_empty() {
            self.rows.push(rows);
        }
    }
}
