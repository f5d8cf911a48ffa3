//! `LiveMap`: WHERE and SELECT over the changes of a changelog, before they are applied.
//!
//! Always: a change whose row does not pass a filter becomes a deletion of its key, since its row is not in the result any more; a deletion
//! passes as it is, and no expression sees it. So an expression meets every record once, as a source row: one on which it fails is a dead
//! letter, and the row before it stays. The changes' own columns (key, mark, time) are passed on behind the result's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, interleave, not};
use arrow::datatypes::SchemaRef;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::Rows;

use crate::expression::Expression;
use crate::pane::as_filter;
use crate::project::{Failure, set_aside};

/// See the module doc.
pub struct LiveMap {
    filters: Vec<Arc<dyn Expression>>,
    columns: Vec<Arc<dyn Expression>>,
    /// Of the input: the first of the changes' own columns, which end it.
    own: usize,
    /// Of the input: the column that says whether a row deletes.
    deleted: usize,
    schema: SchemaRef,
}

impl LiveMap {
    /// Keeps the rows for which all `filters` are true and computes `columns`; `schema` has those and the input's columns from `own` on.
    pub fn new(
        filters: Vec<Arc<dyn Expression>>,
        columns: Vec<Arc<dyn Expression>>,
        own: usize,
        deleted: usize,
        schema: SchemaRef,
    ) -> Self {
        Self { filters, columns, own, deleted, schema }
    }

    /// The rows that still pass after each filter, and which they are.
    fn passing(&self, batch: &RecordBatch, deleted: &BooleanArray) -> std::result::Result<(RecordBatch, Vec<bool>), Failure> {
        let mut passes: Vec<bool> =
            not(deleted).map_err(|error| failure("WHERE", error.into()))?.iter().map(|live| live == Some(true)).collect();
        let mut rows = filter_record_batch(batch, &BooleanArray::from(passes.clone())).map_err(|error| failure("WHERE", error.into()))?;
        for filter in &self.filters {
            let failed = |error| failure(filter.text(), error);
            if rows.num_rows() == 0 {
                break;
            }
            let mask = filter.evaluate(&rows).and_then(|column| as_filter(&column)).map_err(failed)?;
            let mut verdicts = (0..mask.len()).map(|row| mask.is_valid(row) && mask.value(row));
            passes.iter_mut().filter(|passes| **passes).for_each(|passes| *passes = verdicts.next() == Some(true));
            rows = filter_record_batch(&rows, &mask).map_err(|error| failed(error.into()))?;
        }
        Ok((rows, passes))
    }

    fn apply(&self, rows: &Rows) -> std::result::Result<Rows, Failure> {
        let deleted = rows.batch.columns().get(self.deleted).and_then(|column| column.as_boolean_opt()).cloned();
        let deleted = deleted.ok_or_else(|| failure("SELECT", Error::failed("a change without its mark")))?;
        let (passing, passes) = self.passing(&rows.batch, &deleted)?;
        let mut next = 0;
        let places: Vec<(usize, usize)> = passes
            .iter()
            .map(|passes| {
                let place = if *passes { (0, next) } else { (1, 0) };
                next += usize::from(*passes);
                place
            })
            .collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let nothing = new_null_array(field.data_type(), 1);
            if passing.num_rows() == 0 {
                columns.push(new_null_array(field.data_type(), rows.len()));
                continue;
            }
            let failed = |error| failure(column.text(), error);
            let values = column.evaluate(&passing).map_err(failed)?;
            columns.push(interleave(&[values.as_ref(), nothing.as_ref()], &places).map_err(|error| failed(error.into()))?);
        }
        for (index, column) in rows.batch.columns().iter().enumerate().skip(self.own) {
            let gone = || Arc::new(passes.iter().map(|passes| Some(!passes)).collect::<BooleanArray>()) as ArrayRef;
            columns.push(if index == self.deleted { gone() } else { Arc::clone(column) });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        Ok(rows.clone().with_batch(batch.map_err(|error| failure("SELECT", error.into()))?))
    }

    /// Applies to all rows; halves them where that fails, down to the rows at fault.
    fn pass(&self, rows: Rows, out: &mut Output) -> Result<()> {
        let failure = match self.apply(&rows) {
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
        self.pass(rows.take(&UInt32Array::from_iter_values(0..middle))?, out)?;
        self.pass(rows.take(&UInt32Array::from_iter_values(middle..rows.len() as u32))?, out)
    }
}

fn failure(text: &str, error: Error) -> Failure {
    Failure { text: text.to_owned(), error }
}

impl Operator for LiveMap {
    fn name(&self) -> &'static str {
        "live_map"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { self.pass(rows, out) }
    }
}
