//! `HoldBack`: passes rows on and keeps the watermark behind by a bound.
//!
//! Always: what follows may take rows that are up to `bound_us` behind the input's watermark as in time. The planner puts it
//! between a view that revises its results (by its lateness) and another windowed view.

use tidemill_engine::error::Result;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::Rows;
use tidemill_engine::time::{Micros, Watermark, minus};

/// See the module doc.
pub struct HoldBack {
    bound_us: Micros,
}

impl HoldBack {
    /// Stays `bound_us` microseconds behind.
    pub fn new(bound_us: Micros) -> Self {
        Self { bound_us }
    }
}

impl Operator for HoldBack {
    fn name(&self) -> &'static str {
        "hold_back"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        out.emit(rows);
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark.map(|watermark| minus(watermark, self.bound_us));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_stays_behind_and_no_word_stays_no_word() {
        let (mut operator, mut out) = (HoldBack::new(10), Output::default());
        operator.on_tick(Some(25), &mut out).expect("ticks");
        assert_eq!(out.watermark, Some(15));
        operator.on_tick(None, &mut out).expect("ticks");
        assert_eq!(out.watermark, None);
    }
}
