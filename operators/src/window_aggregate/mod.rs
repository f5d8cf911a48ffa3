//! GROUP BY with no windows, tumbling or hopping windows, and DISTINCT: one operator in two halves that share this code.
//!
//! `Partial` aggregates within one tick, before the exchange, so that a hot key never sits on one worker; `Final` keeps the state,
//! publishes windows and repairs them. With one worker there is only `Final`, over raw rows.
//!
//! Always: state is kept by entry, the windows `enter..=last` a row counts in, never by window, so a hop costs the same at 5 and at
//! 3,600 windows a row. DISTINCT is this with no calls. GROUP BY without keys and windows gives its one row only once a row came.

mod finish;
mod partial;
mod repair;
mod running;
mod stacks;
mod state;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod revised_tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use tidemill_engine::account::NodeCounts;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::rows::{Rows, SourceId};
use tidemill_engine::time::Micros;

pub use finish::{Final, Input};
pub use partial::Partial;

use crate::aggregate::{Spec, accumulator};
use crate::groups::Groups;
use crate::identity::completed;
use crate::judge::{Entered, Entry};
use crate::keys::{KeyBatch, KeyCodec};
use crate::pane::{Fold, Pane, States, as_filter, pick};
use crate::windows::Windows;

/// One aggregate call.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it computes.
    pub spec: Spec,
    /// The input column of its argument.
    pub argument: Option<usize>,
    /// The input column of its FILTER.
    pub filter: Option<usize>,
}

impl Call {
    /// The argument's column of these rows, with their identity if the call wants it.
    pub(crate) fn argument_of(&self, rows: &Rows) -> Result<Option<ArrayRef>> {
        let Some(index) = self.argument else { return Ok(None) };
        let column = rows.batch.columns().get(index).ok_or_else(|| no_column(index))?;
        Ok(Some(if self.spec.function.wants_identity() { completed(column, rows)? } else { Arc::clone(column) }))
    }
}

/// The windows of a GROUP BY.
#[derive(Debug, Clone)]
pub struct Windowing {
    /// The input column of the event time.
    pub time: usize,
    /// The windows.
    pub windows: Windows,
    /// How far behind a row may come and still repair.
    pub lateness_us: Micros,
    /// How much longer than `lateness_us` state stays, for inputs that revise.
    pub retention_extra_us: Micros,
}

/// When results are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// When the watermark passes a window's end, and on each repair. Needs windows.
    Final,
    /// Every epoch.
    Changes,
}

/// What a GROUP BY computes. Columns are indexes into the input, which a projection has prepared.
#[derive(Debug, Clone)]
pub struct Aggregation {
    /// The key columns.
    pub keys: Vec<usize>,
    /// The windows, if any.
    pub windowing: Option<Windowing>,
    /// The aggregate calls.
    pub calls: Vec<Call>,
    /// The columns of the input.
    pub input: SchemaRef,
    /// The columns of the results: keys, `window_start`, `window_end` if there are windows, calls.
    pub output: SchemaRef,
    /// The sources whose tokens may arrive.
    pub sources: Vec<SourceId>,
    /// When results go out.
    pub emit: Emit,
    /// The input has rows of weight -1: no `Partial` then.
    pub retracts: bool,
    /// Result rows a tick; windows beyond wait for the next one.
    pub rows_per_tick_max: usize,
}

/// A default for [`Aggregation::rows_per_tick_max`].
pub const ROWS_PER_TICK_MAX: usize = 1_000_000;

impl Aggregation {
    fn codec(&self) -> Result<Arc<KeyCodec>> {
        Ok(Arc::new(KeyCodec::new(self.key_fields()?)?))
    }

    fn key_fields(&self) -> Result<Vec<FieldRef>> {
        self.keys.iter().map(|key| self.input.fields().get(*key).cloned().ok_or_else(|| no_column(*key))).collect()
    }

    fn specs(&self) -> Vec<Spec> {
        self.calls.iter().map(|call| call.spec.clone()).collect()
    }

    /// Names and types of the partial states of all calls.
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

    /// The columns between the halves: keys, `enter`, `last`, `live`, partial states.
    pub fn partial_schema(&self) -> Result<SchemaRef> {
        let mut fields: Vec<FieldRef> = self.key_fields()?;
        fields.extend(["enter", "last", "live"].map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
        fields.extend(self.state_fields()?.into_iter().map(Arc::new));
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn no_column(index: usize) -> Error {
    Error::failed(format!("an aggregate was planned over column {index}, which its input does not have"))
}

/// The one entry of an aggregate without windows.
const ALL: Entry = (0, 0);

/// What makes panes: shared by everything that does.
struct Maker {
    codec: Arc<KeyCodec>,
    specs: Vec<Spec>,
    sources: Vec<SourceId>,
}

impl Maker {
    fn new(aggregation: &Aggregation) -> Result<Self> {
        Ok(Self { codec: aggregation.codec()?, specs: aggregation.specs(), sources: aggregation.sources.clone() })
    }

    fn groups(&self) -> Groups {
        Groups::new(Arc::clone(&self.codec))
    }

    fn states(&self) -> Result<States> {
        States::new(&self.specs)
    }

    fn pane(&self, track: bool) -> Result<Pane> {
        Ok(Pane::new(self.groups(), self.states()?, self.sources.len(), track))
    }
}

/// What the calls of a batch take.
enum Values {
    /// Arguments and filters of raw rows.
    Raw(Vec<(Option<ArrayRef>, Option<BooleanArray>)>),
    /// Partial states.
    States(Vec<ArrayRef>),
}

/// A batch ready to be folded into panes.
struct Batch {
    keys: KeyBatch,
    hashes: Arc<[u64]>,
    weights: Option<Arc<[i64]>>,
    values: Values,
    rows: Rows,
}

impl Batch {
    fn raw(aggregation: &Aggregation, codec: &KeyCodec, rows: Rows) -> Result<Self> {
        let column = |index: usize| rows.batch.columns().get(index).cloned().ok_or_else(|| no_column(index));
        let keys = aggregation.keys.iter().map(|key| column(*key)).collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(aggregation.calls.len());
        for call in &aggregation.calls {
            let filter = call.filter.map(|index| as_filter(&column(index)?)).transpose()?;
            values.push((call.argument_of(&rows)?, filter));
        }
        let weights = rows.weights.clone();
        Self::new(codec, &keys, weights, Values::Raw(values), rows)
    }

    fn new(codec: &KeyCodec, keys: &[ArrayRef], weights: Option<Arc<[i64]>>, values: Values, rows: Rows) -> Result<Self> {
        let hashes = match &rows.hashes {
            Some(hashes) => Arc::clone(hashes),
            None => Arc::from(hash_columns(keys, rows.len())?),
        };
        Ok(Self { keys: codec.encode(keys)?, hashes, weights, values, rows })
    }

    /// Folds the rows of one entry into its pane.
    fn fold(&self, entered: &Entered, pane: &mut Pane, sources: &[SourceId], slots: &mut Vec<u32>) -> Result<()> {
        let rows = entered.rows.as_deref();
        let fold = Fold { keys: &self.keys, hashes: &self.hashes, rows, weights: self.weights.as_deref(), tokens: &self.rows.tokens };
        pane.enter(&fold, sources, slots)?;
        let indices = rows.map(|rows| UInt32Array::from(rows.to_vec()));
        match &self.values {
            Values::States(columns) => {
                let columns = columns.iter().map(|column| pick(column, indices.as_ref())).collect::<Result<Vec<_>>>()?;
                pane.states.merge(slots, &columns)
            }
            Values::Raw(values) => {
                let picked: Option<Vec<i64>> = match (&self.weights, rows) {
                    (Some(weights), Some(rows)) => Some(rows.iter().filter_map(|row| weights.get(*row as usize).copied()).collect()),
                    _ => None,
                };
                let weights = picked.as_deref().or(self.weights.as_deref());
                for (call, (argument, filter)) in pane.states.calls.iter_mut().zip(values) {
                    let argument = argument.as_ref().map(|column| pick(column, indices.as_ref())).transpose()?;
                    let filter = match (filter, &indices) {
                        (Some(filter), Some(_)) => Some(as_filter(&pick(&(Arc::new(filter.clone()) as ArrayRef), indices.as_ref())?)?),
                        (filter, _) => filter.clone(),
                    };
                    call.update(slots, argument.as_ref(), filter.as_ref(), weights)?;
                }
                Ok(())
            }
        }
    }

    /// Counts the tokens of the rows of one entry as held.
    fn hold(&self, entered: &Entered, counts: &mut NodeCounts) {
        match &entered.rows {
            None => self.rows.tokens.sums(self.rows.len(), |source, tokens| counts.hold(source, tokens)),
            Some(rows) => match &self.rows.tokens {
                tidemill_engine::rows::Tokens::Each(source) => counts.hold(*source, rows.len() as i64),
                tidemill_engine::rows::Tokens::Counts(columns) => {
                    for (source, column) in columns {
                        counts.hold(*source, rows.iter().filter_map(|row| column.get(*row as usize)).sum());
                    }
                }
            },
        }
    }
}
