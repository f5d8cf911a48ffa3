//! `Map`: WHERE and SELECT in one pass, and the place where an expression may fail on a record.
//!
//! Always: filters run in order and every expression sees only the rows that passed the filters before it. A source row on which
//! one fails becomes a dead letter of reason `expression` for this output, and the rest goes on; so does the record that a joined row
//! is of. Any other derived row that fails stops the run, since no single record is at fault. Rows stay in order.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use tidemill_engine::account::{Fate, NodeCounts};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::letter::DeadLetter;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Origin, Rows, SourceId};

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
    names: Option<Names>,
}

/// Where derived rows carry the place of the record they are of: the first of three columns (source's name, partition, offset).
#[derive(Debug, Clone)]
pub struct Names {
    /// Index in the input.
    pub at: usize,
    /// The sources by name.
    pub sources: Vec<(SourceId, String)>,
}

/// Which expression failed, and how.
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) error: Error,
}

impl Map {
    /// Keeps the rows for which all `filters` are true, and computes `columns`, named and typed by `schema`.
    pub fn new(filters: Vec<Arc<dyn Expression>>, columns: Vec<Arc<dyn Expression>>, schema: SchemaRef) -> Self {
        Self { filters, columns, schema, names: None }
    }

    /// The same over rows that carry the place of their record: one on which an expression fails is that record's dead letter.
    #[must_use]
    pub fn with_names(self, names: Option<Names>) -> Self {
        Self { names, ..self }
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
            return match &self.names {
                Some(names) if rows.origin.is_none() => names.set_aside(&rows, failure, out),
                _ => set_aside(&rows, failure, out),
            };
        }
        let middle = (rows.len() / 2) as u32;
        let (left, right) = (UInt32Array::from_iter_values(0..middle), UInt32Array::from_iter_values(middle..rows.len() as u32));
        self.pass(rows.take(&left)?, out)?;
        self.pass(rows.take(&right)?, out)
    }
}

impl Names {
    /// Makes the record that a derived row is of a dead letter; its bytes are in the log. A row that is taken back was never there.
    fn set_aside(&self, rows: &Rows, failure: Failure, out: &mut Output) -> Result<()> {
        let detail = format!("{}: {}", failure.text, failure.error);
        let wrong = || Error::failed(format!("{detail} (on a row without its place in the log)"));
        let column = |index: usize| rows.batch.columns().get(self.at + index).ok_or_else(wrong);
        let name = column(0)?.as_string_view_opt().map(|column| column.value(0)).ok_or_else(wrong)?;
        let partition = column(1)?.as_primitive_opt::<Int32Type>().map(|column| column.value(0)).ok_or_else(wrong)?;
        let offset = column(2)?.as_primitive_opt::<Int64Type>().map(|column| column.value(0)).ok_or_else(wrong)?;
        let source = self.sources.iter().find(|(_, each)| each == name).map(|(source, _)| *source).ok_or_else(wrong)?;
        if rows.weight(0) > 0 {
            let reason = EXPRESSION.to_owned();
            out.dead.push(DeadLetter { source, partition, offset, timestamp_ms: None, reason, detail, key: None, payload: None });
        }
        // Only the record that the row is of is dead; what it was joined with is dropped with it.
        rows.tokens.sums(rows.len(), |of, tokens| {
            out.counts.settle(if of == source { Fate::Dead } else { Fate::Filtered }, of, tokens);
        });
        Ok(())
    }
}

/// Makes a source row on which an expression failed a dead letter.
pub(crate) fn set_aside(rows: &Rows, failure: Failure, out: &mut Output) -> Result<()> {
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
