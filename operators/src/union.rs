//! `Union`: rows of any port, passed through in the order of the ports.
//!
//! Always: keeps nothing; the watermark is the least over the ports, which is what the worker tells. Called for UNION ALL.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_engine::error::Result;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::Rows;

/// UNION ALL of inputs whose columns have equal types.
pub struct Union {
    schema: SchemaRef,
}

impl Union {
    /// Inputs differ at most in column names; `schema` names them.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

impl Operator for Union {
    fn name(&self) -> &'static str {
        "union"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.batch.schema_ref() == &self.schema {
            out.emit(rows);
            return Ok(());
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), rows.batch.columns().to_vec(), &options)?;
        let hashes = rows.hashes.clone();
        out.emit(Rows { hashes, ..rows.with_batch(batch) });
        Ok(())
    }
}
