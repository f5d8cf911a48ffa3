//! `Map`: WHERE and SELECT in one pass, and the place where an expression may fail on a record.
//!
//! Always: filters run in order and every expression sees only the rows that passed the filters before it. A source row on which
//! one fails becomes a dead letter of reason `expression` for this output, and the rest goes on; a derived row that fails stops the
//! run, since no single record is at fault. Rows stay in order.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::SchemaRef;
use tidemill_engine::account::{Fate, NodeCounts};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::letter::DeadLetter;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Origin, Rows};

use crate::expression::Expression;
use crate::pane::as_filter;
use crate::tokens::settle_row;

/// The reason of the dead letters made here.
pub const EXPRESSION: &str = "expression";

/// See the module doc.
pub struct Map {
    filters: Vec<Arc<dyn Expression>>,
    columns: Vec<Arc<dyn Expression>>,
    schema: SchemaRef,
}

/// Which expression failed, and how.
struct Failure {
    text: String,
    error: Error,
}

impl Map {
    /// Keeps the rows for which all `filters` are true, and computes `columns`, named and typed by `schema`.
    pub fn new(filters: Vec<Arc<dyn Expression>>, columns: Vec<Arc<dyn Expression>>, schema: SchemaRef) -> Self {
        Self { filters, columns, schema }
    }

    /// The rows that pass, projected. Settles what is filtered only if nothing failed.
    fn apply(&self, rows: Rows, counts: &mut NodeCounts) -> std::result::Result<Rows, Failure> {
        let mut kept = rows;
        let mut filtered = NodeCounts::default();
        for filter in &self.filters {
            if kept.is_empty() {
                break;
            }
            let failed = |error| Failure { text: filter.text().to_owned(), error };
            let mask = filter.evaluate(&kept.batch).and_then(|column| as_filter(&column)).map_err(failed)?;
            if mask.len() == kept.len() && mask.true_count() == kept.len() {
                continue;
            }
            kept.tokens.sums(kept.len(), |source, tokens| filtered.settle(Fate::Filtered, source, tokens));
            kept = kept.filter(&mask).map_err(failed)?;
            kept.tokens.sums(kept.len(), |source, tokens| filtered.settle(Fate::Filtered, source, -tokens));
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        if !kept.is_empty() {
            for column in &self.columns {
                columns.push(column.evaluate(&kept.batch).map_err(|error| Failure { text: column.text().to_owned(), error })?);
            }
        }
        let batch = if kept.is_empty() {
            Ok(RecordBatch::new_empty(Arc::clone(&self.schema)))
        } else {
            let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
        };
        let batch = batch.map_err(|error| Failure { text: "SELECT".to_owned(), error: error.into() })?;
        counts.add(&filtered);
        Ok(kept.with_batch(batch))
    }

    /// Applies to all rows; halves them where that fails, down to the rows at fault.
    fn pass(&self, rows: Rows, out: &mut Output) -> Result<()> {
        let failure = match self.apply(rows.clone(), &mut out.counts) {
            Ok(passed) => {
                out.emit(passed);
                return Ok(());
            }
            Err(failure) => failure,
        };
        if rows.len() <= 1 {
            return set_aside(&rows, failure, out);
        }
        let middle = (rows.len() / 2) as u32;
        let (left, right) = (UInt32Array::from_iter_values(0..middle), UInt32Array::from_iter_values(middle..rows.len() as u32));
        self.pass(rows.take(&left)?, out)?;
        self.pass(rows.take(&right)?, out)
    }
}

/// Makes a source row on which an expression failed a dead letter.
fn set_aside(rows: &Rows, failure: Failure, out: &mut Output) -> Result<()> {
    let detail = format!("{}: {}", failure.text, failure.error);
    let Some(origin) = &rows.origin else {
        return Err(Error::failed(format!("{detail} (on a derived row, so no single record is at fault)")));
    };
    out.dead.push(dead_letter(origin, detail));
    settle_row(&mut out.counts, Fate::Dead, &rows.tokens, 0);
    Ok(())
}

fn dead_letter(origin: &Origin, detail: String) -> DeadLetter {
    let offset = origin.offsets.first().copied().unwrap_or(-1);
    let record = origin.raw.record(offset);
    DeadLetter {
        source: origin.source,
        partition: origin.partition,
        offset,
        timestamp_ms: record.and_then(|record| record.timestamp_ms),
        reason: EXPRESSION.to_owned(),
        detail,
        key: record.and_then(|record| record.key.map(<[u8]>::to_vec)),
        payload: record.and_then(|record| record.payload.map(<[u8]>::to_vec)),
    }
}

impl Operator for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { self.pass(rows, out) }
    }
}

#[cfg(test)]
#[path = "project_tests.rs"]
mod tests;
