//! `Partial`: the half before the exchange. Judges rows, gathers them into the tick's own small sessions, forgets them at its end.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use tidemill_engine::error::Result;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};
use tidemill_engine::time::Watermark;

use super::store::Store;
use super::{Maker, Sessions};

/// See the module doc.
pub struct Partial {
    maker: Maker,
    schema: SchemaRef,
    store: Option<Store>,
}

impl Partial {
    /// The first half of `plan`.
    pub fn new(plan: Arc<Sessions>) -> Result<Self> {
        let schema = plan.partial_schema()?;
        Ok(Self { maker: Maker::new(plan)?, schema, store: None })
    }
}

impl Operator for Partial {
    fn name(&self) -> &'static str {
        "session_partial"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let store = match &mut self.store {
            Some(store) => store,
            None => self.store.insert(self.maker.store()?),
        };
        self.maker.fill(store, &rows, false, out)
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        let Some(store) = self.store.take() else { return Ok(()) };
        let (mut keys, mut slots, mut starts, mut lasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, spans) in (0..).zip(&store.lists) {
            for span in spans.as_slice() {
                keys.push(key);
                slots.push(span.slot);
                starts.push(span.start);
                lasts.push(span.last);
            }
        }
        let of = |column: &[i64]| -> Vec<i64> { slots.iter().map(|slot: &u32| column[*slot as usize]).collect() };
        let mut columns = store.groups.columns(&keys)?;
        columns.extend([starts, lasts, of(&store.states.live)].map(|column| Arc::new(Int64Array::from(column)) as ArrayRef));
        columns.extend(store.states.partials(&slots)?);
        let tokens =
            self.maker.plan.sources.iter().zip(&store.pending).map(|(source, pending)| (*source, Arc::from(of(pending)))).collect();
        let mut rows = Rows::derived(RecordBatch::try_new(Arc::clone(&self.schema), columns)?, None, Tokens::Counts(tokens));
        rows.hashes = Some(keys.iter().map(|key| store.groups.hash(*key)).collect());
        out.emit(rows);
        Ok(())
    }
}
