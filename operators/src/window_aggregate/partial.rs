//! `Partial`: the half before the exchange. Judges rows, aggregates them within the tick, forgets everything at its end.
//!
//! Always: one output row a (key, entry) and tick, whatever the number of input rows, in order of entry and first arrival; its
//! hash is the key hash, so the exchange computes none. Never used over inputs that retract.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};
use tidemill_engine::time::Watermark;

use super::{ALL, Aggregation, Batch, Maker, no_column};
use crate::judge::{Entered, Entry, Judge};
use crate::pane::Pane;

/// See the module doc.
pub struct Partial {
    aggregation: Arc<Aggregation>,
    maker: Maker,
    judge: Option<Judge>,
    schema: SchemaRef,
    panes: BTreeMap<Entry, Pane>,
    slots: Vec<u32>,
}

impl Partial {
    /// The first half of `aggregation`.
    pub fn new(aggregation: Arc<Aggregation>) -> Result<Self> {
        if aggregation.retracts {
            return Err(Error::failed("rows that retract can't be aggregated before the exchange"));
        }
        let judge = aggregation.windowing.as_ref().map(|windowing| Judge::new(windowing.windows, windowing.lateness_us));
        let (maker, schema) = (Maker::new(&aggregation)?, aggregation.partial_schema()?);
        Ok(Self { aggregation, maker, judge, schema, panes: BTreeMap::new(), slots: Vec::new() })
    }

    fn encode(&self, entry: Entry, pane: &Pane) -> Result<RecordBatch> {
        let slots: Vec<u32> = (0..pane.groups.len() as u32).collect();
        let mut columns = pane.groups.columns(&slots)?;
        columns.push(Arc::new(Int64Array::from_value(entry.0, slots.len())) as ArrayRef);
        columns.push(Arc::new(Int64Array::from_value(entry.1, slots.len())));
        columns.push(Arc::new(Int64Array::from(pane.states.live.clone())));
        columns.extend(pane.states.partials(&slots)?);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Operator for Partial {
    fn name(&self) -> &'static str {
        "aggregate_partial"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let entered = match (&mut self.judge, &self.aggregation.windowing) {
            (Some(judge), Some(windowing)) => {
                let times = rows.batch.columns().get(windowing.time).ok_or_else(|| no_column(windowing.time))?;
                judge.assign(&rows, times, out)?
            }
            _ => vec![Entered { entry: ALL, rows: None }],
        };
        if entered.is_empty() {
            return Ok(());
        }
        let batch = Batch::raw(&self.aggregation, &self.maker.codec, rows)?;
        for entered in entered {
            let pane = match self.panes.entry(entered.entry) {
                std::collections::btree_map::Entry::Occupied(pane) => pane.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(self.maker.pane(false)?),
            };
            batch.fold(&entered, pane, &self.maker.sources, &mut self.slots)?;
        }
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        let panes = std::mem::take(&mut self.panes);
        if panes.is_empty() {
            return Ok(());
        }
        let batches = panes.iter().map(|(entry, pane)| self.encode(*entry, pane)).collect::<Result<Vec<_>>>()?;
        let batch = match batches.as_slice() {
            [one] => one.clone(),
            many => concat_batches(&self.schema, many)?,
        };
        let hashes: Vec<u64> = panes.values().flat_map(|pane| (0..pane.groups.len() as u32).map(|slot| pane.groups.hash(slot))).collect();
        let mut tokens = Vec::new();
        for (place, source) in self.maker.sources.iter().enumerate() {
            let column: Vec<i64> = panes.values().filter_map(|pane| pane.pending.get(place)).flatten().copied().collect();
            tokens.push((*source, Arc::from(column)));
        }
        let mut rows = Rows::derived(batch, None, Tokens::Counts(tokens));
        rows.hashes = Some(Arc::from(hashes));
        out.emit(rows);
        Ok(())
    }
}
