//! GROUP BY over session windows: rows of a key that are at most `gap` apart form one session.
//!
//! `Partial` makes small sessions within a tick, before the exchange; `Final` merges them into the sessions it keeps, publishes a
//! session when the watermark passes its end (last row + gap), and revises it when a row in time joins it later.
//!
//! Always: a row's own window is `[ts, ts + gap)`, by which it is judged late; state stays until the watermark passes last + 2 gap +
//! lateness, since until then a row may be in time and join. Inputs that retract are refused: a session can't be split again.
//! With `latest` a key has one result, its latest session: what `state_ttl` makes of a GROUP BY without windows.

mod finish;
mod partial;
mod state;
mod store;
mod timers;

#[cfg(test)]
mod model_tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::Output;
use tidemill_engine::rows::{Rows, SourceId, Tokens};
use tidemill_engine::time::{BEGINNING, Micros, is_late};

pub use finish::Final;
pub use partial::Partial;

use crate::aggregate::{Spec, accumulator};
use crate::groups::Groups;
use crate::judge::{event_times, late_event};
use crate::keys::KeyCodec;
use crate::pane::{States, as_filter, pick};
use crate::tokens::{place, settle_row};
use crate::window_aggregate::{Call, Emit};
use store::Store;

/// What a GROUP BY over sessions computes. Columns are indexes into the input.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// The session's key columns.
    pub keys: Vec<usize>,
    /// The event time.
    pub time: usize,
    /// Rows at most this far apart belong together.
    pub gap_us: Micros,
    /// How far behind a row may come and still join.
    pub lateness_us: Micros,
    /// The aggregate calls.
    pub calls: Vec<Call>,
    /// The columns of the input.
    pub input: SchemaRef,
    /// The columns of the results: keys, `window_start`, `window_end`, calls.
    pub output: SchemaRef,
    /// The sources whose tokens may arrive.
    pub sources: Vec<SourceId>,
    /// When results go out.
    pub emit: Emit,
    /// Only the latest session of each key is a result (`state_ttl`); needs `Emit::Changes`. What was published of a session whose
    /// state is gone is replaced by its key's next session without being retracted: for keyed outputs only.
    pub latest: bool,
}

impl Sessions {
    fn key_fields(&self) -> Result<Vec<FieldRef>> {
        self.keys.iter().map(|key| self.input.fields().get(*key).cloned().ok_or_else(|| no_column(*key))).collect()
    }

    fn state_fields(&self) -> Result<Vec<Field>> {
        let mut fields = Vec::new();
        for (number, call) in self.calls.iter().enumerate() {
            let types = accumulator(&call.spec)?.state_types();
            fields.extend(
                types.into_iter().map(|(name, kind)| Field::new(format!("{}_{number}_{name}", call.spec.function.name()), kind, true)),
            );
        }
        Ok(fields)
    }

    /// The columns between the halves: keys, `start`, `last`, `live`, partial states.
    pub fn partial_schema(&self) -> Result<SchemaRef> {
        let mut fields: Vec<FieldRef> = self.key_fields()?;
        fields.extend(["start", "last", "live"].map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
        fields.extend(self.state_fields()?.into_iter().map(Arc::new));
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn no_column(index: usize) -> Error {
    Error::failed(format!("a session aggregate was planned over column {index}, which its input does not have"))
}

/// What both halves share: the plan, and how stores are made and filled with raw rows.
struct Maker {
    plan: Arc<Sessions>,
    codec: Arc<KeyCodec>,
    specs: Vec<Spec>,
}

impl Maker {
    fn new(plan: Arc<Sessions>) -> Result<Self> {
        if plan.calls.iter().any(|call| call.spec.retracts) {
            return Err(Error::refused("sessions over results that may be revised are not supported"));
        }
        if plan.latest && plan.emit != Emit::Changes {
            return Err(Error::failed("the latest session of a key is published each epoch"));
        }
        let (codec, specs) = (Arc::new(KeyCodec::new(plan.key_fields()?)?), plan.calls.iter().map(|call| call.spec.clone()).collect());
        Ok(Self { plan, codec, specs })
    }

    fn states(&self) -> Result<States> {
        States::new(&self.specs)
    }

    fn store(&self) -> Result<Store> {
        Ok(Store::new(Groups::new(Arc::clone(&self.codec)), self.states()?, self.plan.sources.len(), self.plan.gap_us))
    }

    /// Judges raw rows and lets those in time join the sessions of `store`; `hold` says whether their tokens now count as held.
    fn fill(&self, store: &mut Store, rows: &Rows, hold: bool, out: &mut Output) -> Result<()> {
        let column = |index: usize| rows.batch.columns().get(index).cloned().ok_or_else(|| no_column(index));
        if rows.weights.as_ref().is_some_and(|weights| weights.iter().any(|weight| *weight != 1)) {
            return Err(Error::failed("a row to retract reached a session"));
        }
        let time = column(self.plan.time)?;
        let chosen = self.judge(rows, &time, out)?;
        let (times, picked) = (event_times(&time)?.values(), chosen.as_deref());
        let keys = self.plan.keys.iter().map(|key| column(*key)).collect::<Result<Vec<_>>>()?;
        let hashes: Arc<[u64]> = match &rows.hashes {
            Some(hashes) => Arc::clone(hashes),
            None => hash_columns(&keys, rows.len())?.into(),
        };
        let mut slots = Vec::new();
        store.groups.insert(&self.codec.encode(&keys)?, &hashes, picked, &mut slots);
        store.resize();
        let row_of = |at: usize| picked.map_or(at, |rows| rows[at] as usize);
        for (at, slot) in slots.iter_mut().enumerate() {
            let time = times[row_of(at)];
            *slot = store.join(*slot, time, time);
        }
        store.resize();
        slots.iter().for_each(|slot| store.states.live[*slot as usize] += 1);
        for source in &self.plan.sources {
            let pending = &mut store.pending[place(&self.plan.sources, *source)?];
            let mut sum = 0;
            for (at, slot) in slots.iter().enumerate() {
                let tokens = rows.tokens.of(*source, row_of(at));
                pending[*slot as usize] += tokens;
                sum += tokens;
            }
            if hold {
                out.counts.hold(*source, sum);
            }
        }
        let indices = picked.map(|rows| UInt32Array::from(rows.to_vec()));
        for (call, kept) in self.plan.calls.iter().zip(&mut store.states.calls) {
            let one = |index: usize| -> Result<ArrayRef> { pick(&column(index)?, indices.as_ref()) };
            let filter: Option<BooleanArray> = call.filter.map(|index| as_filter(&one(index)?)).transpose()?;
            let argument = call.argument_of(rows)?.map(|column| pick(&column, indices.as_ref())).transpose()?;
            kept.update(&slots, argument.as_ref(), filter.as_ref(), None)?;
        }
        store.settle_merges(self.states()?)
    }

    /// The rows in time; `None`: all of them. The others are settled and reported.
    fn judge(&self, rows: &Rows, time: &ArrayRef, out: &mut Output) -> Result<Option<Vec<u32>>> {
        let times = event_times(time)?;
        let mut dropped = Vec::new();
        for (row, time) in times.values().iter().enumerate() {
            if times.is_null(row) {
                settle_row(&mut out.counts, Fate::Filtered, &rows.tokens, row);
                dropped.push(row);
                continue;
            }
            let Some(origin) = &rows.origin else { continue };
            let end = time.saturating_add(self.plan.gap_us);
            if is_late(end, self.plan.lateness_us, origin.watermarks.get(row).copied().unwrap_or(BEGINNING)) {
                out.late.push(late_event(origin, row, *time, Some((*time, end))));
                settle_row(&mut out.counts, Fate::Late, &rows.tokens, row);
                dropped.push(row);
            }
        }
        if dropped.is_empty() {
            return Ok(None);
        }
        let mut gone = dropped.into_iter().peekable();
        Ok(Some((0..rows.len()).filter(|row| gone.next_if_eq(row).is_none()).map(|row| row as u32).collect()))
    }
}

/// The tokens of derived rows, one column a source.
fn token_columns(tokens: &Tokens, sources: &[SourceId], rows: usize) -> Vec<Vec<i64>> {
    sources.iter().map(|source| (0..rows).map(|row| tokens.of(*source, row)).collect()).collect()
}
