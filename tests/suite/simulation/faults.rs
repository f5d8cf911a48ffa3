//! Tests of the simulation itself: a fault put in on purpose should find a mismatch within a few seeds, whatever the dataflow.

use tidemill_engine::error::Result;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::Rows;
use tidemill_engine::sim::Sabotage;
use tidemill_engine::state::{Changes, Scalars, TableSpec};
use tidemill_engine::time::Watermark;

use super::flows::{KINDS, Kind};
use super::{Fault, try_seed};

/// A fault that is not found in so many seeds is not found.
const SEEDS: u64 = 60;

/// Fails unless some seed notices the fault in each of these dataflows, and none complains without it.
#[track_caller]
fn should_find_a_mismatch(what: &str, kinds: &[Kind], fault: &Fault) {
    for kind in kinds {
        let noticed = (0..SEEDS).find(|seed| {
            try_seed(*seed, *kind, &Fault::default()).unwrap_or_else(|wrong| panic!("seed {seed} without a fault: {wrong}"));
            try_seed(*seed, *kind, fault).is_err()
        });
        assert!(noticed.is_some(), "{kind:?}: {what} should find a mismatch, but {SEEDS} seeds passed");
    }
}

#[test]
fn a_store_that_loses_a_named_file_is_noticed() {
    should_find_a_mismatch("a lost file", &KINDS, &Fault { sabotage: Some(Sabotage::LosesFiles), ..Fault::default() });
}

#[test]
fn a_cold_tier_that_ignores_transaction_ids_is_noticed() {
    should_find_a_mismatch("an epoch added twice", &KINDS, &Fault { sabotage: Some(Sabotage::IgnoresTransactions), ..Fault::default() });
}

#[test]
fn an_exchange_by_another_hash_is_noticed() {
    // By the value: rows of one key meet on no worker.
    let kinds = [Kind::Windows, Kind::Sessions, Kind::Top, Kind::Global];
    should_find_a_mismatch("another hash", &kinds, &Fault { parts: Some(|parts| parts.exchange = vec![1]), ..Fault::default() });
}

#[test]
fn an_operator_that_forgets_a_dirty_row_is_noticed() {
    let fault = Fault { parts: Some(|parts| parts.wrap = |operator| Box::new(Forgetful(operator))), ..Fault::default() };
    should_find_a_mismatch("a forgotten row", &KINDS, &fault);
}

#[test]
fn an_operator_that_forgets_its_scalars_is_noticed() {
    let fault = Fault { parts: Some(|parts| parts.wrap = |operator| Box::new(Dazed(operator))), ..Fault::default() };
    should_find_a_mismatch("forgotten scalars", &[Kind::Windows, Kind::Top], &fault);
}

/// Leaves the last of the changed rows out of every epoch.
struct Forgetful(Box<dyn Operator>);

/// Restores no scalars.
struct Dazed(Box<dyn Operator>);

/// What both hand on as it is.
macro_rules! hand_on {
    () => {
        fn name(&self) -> &'static str {
            self.0.name()
        }

        fn on_rows(&mut self, port: usize, rows: Rows, out: &mut Output) -> Result<()> {
            self.0.on_rows(port, rows, out)
        }

        fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
            self.0.on_tick(watermark, out)
        }

        fn on_cut(&mut self, out: &mut Output) -> Result<()> {
            self.0.on_cut(out)
        }

        fn on_end(&mut self, out: &mut Output) -> Result<()> {
            self.0.on_end(out)
        }

        fn tables(&self) -> Vec<TableSpec> {
            self.0.tables()
        }

        fn load(&mut self, table: usize, rows: &arrow::array::RecordBatch) -> Result<()> {
            self.0.load(table, rows)
        }
    };
}

impl Operator for Forgetful {
    hand_on!();

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        let mut changes = self.0.changes(table, full)?;
        if let Some(last) = changes.upserts.pop().filter(|last| last.num_rows() > 0) {
            changes.upserts.push(last.slice(0, last.num_rows() - 1));
        }
        Ok(changes)
    }

    fn scalars(&self) -> Scalars {
        self.0.scalars()
    }

    fn load_scalars(&mut self, scalars: &Scalars) {
        self.0.load_scalars(scalars);
    }
}

impl Operator for Dazed {
    hand_on!();

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        self.0.changes(table, full)
    }

    fn scalars(&self) -> Scalars {
        Scalars::new()
    }
}
