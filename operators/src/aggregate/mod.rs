//! Incremental aggregate states: one [`Accumulator`] holds the state of *all* groups of one aggregate call, in typed columns.
//!
//! What always holds: a state is a function of the multiset of (value, weight) pairs that went into its group, never of their order nor
//! of how they were split into partial states. Equal inputs give equal [`Accumulator::state`] bytes and equal result bits. Sums of
//! floating point numbers are exact until they are rounded once (`exact`), sketches have a canonical form, hashes a fixed seed.
//!
//! What is not here: grouping keys, windows, expiry and storage (the operators map keys to slots `0..groups` and close them), and the
//! rows' identity, which the operators hand to aggregates that depend on an order of rows (`listing`).
//!
//! Called by the operators that group, window and pre-aggregate. To add an aggregate: its file, its line in [`accumulator`].

mod bag;
mod big;
mod bits;
mod boolean;
mod bytes;
mod columns;
mod count;
mod distinct;
mod exact;
mod exact_codec;
mod extreme;
mod extreme_bytes;
mod float_sum;
pub mod hash;
mod hyperloglog;
mod intern;
mod keys;
mod listing;
mod middle;
mod multiset;
mod pairs;
mod percentile;
mod rows;
mod sets;
mod specials;
mod sum;
mod variance;

#[cfg(test)]
mod listing_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod pairs_tests;
#[cfg(test)]
mod tests;

use std::any::Any;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use tidemill_engine::error::{Error, Result};

pub use listing::{Finish, LIST_ROWS_MAX, Listing, Order};
pub use pairs::Pair;

/// Which aggregate. The planner chooses it; the argument's type is in [`Spec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Function {
    /// `count(*)`.
    CountStar,
    /// `count(x)`.
    Count,
    /// `count(DISTINCT x)`, exact.
    CountDistinct,
    /// `sum(x)`.
    Sum,
    /// `sum(DISTINCT x)`.
    SumDistinct,
    /// `min(x)`.
    Min,
    /// `max(x)`.
    Max,
    /// `avg(x)`.
    Avg,
    /// `avg(DISTINCT x)`.
    AvgDistinct,
    /// `var_pop(x)`.
    VarPop,
    /// `var_samp(x)`, `var(x)`.
    VarSamp,
    /// `stddev_pop(x)`.
    StddevPop,
    /// `stddev_samp(x)`, `stddev(x)`.
    StddevSamp,
    /// `bool_and(x)`.
    BoolAnd,
    /// `bool_or(x)`.
    BoolOr,
    /// `bit_and(x)`.
    BitAnd,
    /// `bit_or(x)`.
    BitOr,
    /// `bit_xor(x)`.
    BitXor,
    /// Of two arguments, see `pairs`.
    Pair(Pair),
    /// Of rows in an order, or of different ones, see `listing`.
    Listing(Listing),
    /// `approx_distinct(x)`, see `hyperloglog` for the error.
    ApproxDistinct,
    /// `approx_percentile_cont(quantile) WITHIN GROUP (ORDER BY x)`, see `percentile` for the error.
    ApproxPercentile {
        /// The quantile asked for, 0 to 1.
        quantile: f64,
    },
}

/// One aggregate call: what an accumulator needs to know before the first row.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Which aggregate.
    pub function: Function,
    /// The argument's type; `None` for `count(*)`.
    pub input: Option<DataType>,
    /// The type of the result: what DataFusion says the call returns, with `Int64` for its `UInt64`.
    pub output: DataType,
    /// The input has rows of weight -1, so every value must be able to leave again.
    pub retracts: bool,
}

/// The state of all groups of one aggregate call.
///
/// Groups are slots `0..groups` that the caller assigns. A slot that was never [`resize`](Self::resize)d to is a bug of the caller and
/// panics; data never does.
pub trait Accumulator: Send {
    /// Grows to `groups` slots, new ones empty. Never shrinks.
    fn resize(&mut self, groups: usize);

    /// Empties one slot for reuse.
    fn clear(&mut self, group: usize);

    /// Folds rows in: row `i` goes to slot `groups[i]` with `weights[i]` (+1 without weights; -1 takes a row out again).
    ///
    /// A NULL argument and a row where `filter` is not true are skipped. A negative weight is an error unless the spec retracts or the
    /// aggregate keeps sums only.
    fn update(&mut self, groups: &[u32], argument: Option<&ArrayRef>, filter: Option<&BooleanArray>, weights: Option<&[i64]>)
    -> Result<()>;

    /// Names and types of the columns of [`state`](Self::state).
    fn state_types(&self) -> Vec<(&'static str, DataType)>;

    /// The partial states of `groups`, one row each: for exchange, snapshots and SQL over live state. Equal states are equal bytes.
    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>>;

    /// Folds partial states in, row `i` into slot `groups[i]`; `sign` -1 takes them out again, only if [`invertible`](Self::invertible).
    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()>;

    /// Like [`merge`](Self::merge) without encoding: slot `from[i]` of `other`, an accumulator of the same spec, into `to[i]`.
    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()>;

    /// True when a merge can be taken out again exactly.
    fn invertible(&self) -> bool;

    /// Final values of `groups`, typed [`Spec::output`].
    fn result(&self, groups: &[u32]) -> Result<ArrayRef>;

    /// Bytes held, cheap enough to ask after every batch.
    fn bytes(&self) -> usize;

    /// For [`merge_from`](Self::merge_from).
    fn as_any(&self) -> &dyn Any;
}

/// An empty accumulator for one call, or [`Error::refused`] naming what can't be kept.
pub fn accumulator(spec: &Spec) -> Result<Box<dyn Accumulator>> {
    match &spec.function {
        Function::CountStar | Function::Count => count::accumulator(spec),
        Function::CountDistinct | Function::SumDistinct | Function::AvgDistinct => distinct::accumulator(spec),
        Function::Sum | Function::Avg => match spec.argument()? {
            DataType::Float32 | DataType::Float64 => float_sum::accumulator(spec),
            _ => sum::accumulator(spec),
        },
        Function::Min | Function::Max if spec.retracts => multiset::accumulator(spec),
        Function::Min | Function::Max => match spec.argument()? {
            input if bytes::is_bytes(input) => extreme_bytes::accumulator(spec),
            _ => extreme::accumulator(spec),
        },
        Function::VarPop | Function::VarSamp | Function::StddevPop | Function::StddevSamp => variance::accumulator(spec),
        Function::BoolAnd | Function::BoolOr => boolean::accumulator(spec),
        Function::BitAnd | Function::BitOr if spec.retracts => {
            Err(Error::failed(format!("{} over rows that may be taken back was not planned as a listing", spec.function.name())))
        }
        Function::BitAnd | Function::BitOr | Function::BitXor => bits::accumulator(spec),
        Function::Pair(pair) => pairs::accumulator(spec, *pair),
        Function::Listing(listing) => listing::accumulator(spec, listing),
        Function::ApproxDistinct => hyperloglog::accumulator(spec),
        Function::ApproxPercentile { quantile } => percentile::accumulator(spec, *quantile),
    }
}

impl Function {
    /// The name as written in SQL, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CountStar | Self::Count => "count",
            Self::CountDistinct => "count(DISTINCT)",
            Self::Sum => "sum",
            Self::SumDistinct => "sum(DISTINCT)",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::AvgDistinct => "avg(DISTINCT)",
            Self::VarPop => "var_pop",
            Self::VarSamp => "var_samp",
            Self::StddevPop => "stddev_pop",
            Self::StddevSamp => "stddev_samp",
            Self::BoolAnd => "bool_and",
            Self::BoolOr => "bool_or",
            Self::BitAnd => "bit_and",
            Self::BitOr => "bit_or",
            Self::BitXor => "bit_xor",
            Self::Pair(pair) => pair.name(),
            Self::Listing(listing) => listing.name(),
            Self::ApproxDistinct => "approx_distinct",
            Self::ApproxPercentile { .. } => "approx_percentile_cont",
        }
    }

    /// The argument is completed by the row's identity, see [`Listing::identity`].
    pub fn wants_identity(&self) -> bool {
        matches!(self, Self::Listing(listing) if listing.identity)
    }
}

impl Spec {
    /// The argument's type, or the refusal of a call without one.
    fn argument(&self) -> Result<&DataType> {
        self.input.as_ref().ok_or_else(|| Error::refused(format!("{} needs an argument", self.function.name())))
    }

    /// The refusal of an argument type that this aggregate does not keep.
    fn refuse_input(&self) -> Error {
        match &self.input {
            Some(input) => Error::refused(format!("{} over {input} is not supported; CAST the argument", self.function.name())),
            None => Error::refused(format!("{} needs an argument", self.function.name())),
        }
    }

    /// Refuses a result type other than the ones this aggregate gives.
    fn require_output(&self, fits: bool) -> Result<()> {
        if fits { Ok(()) } else { Err(Error::refused(format!("{} does not return {}", self.function.name(), self.output))) }
    }
}

/// The other accumulator as `A`, for `merge_from`.
fn same<A: 'static>(other: &dyn Accumulator) -> Result<&A> {
    other.as_any().downcast_ref::<A>().ok_or_else(|| Error::failed("aggregate states of different calls can't be merged"))
}

/// Refuses `sign` -1 where a merge can't be taken out again.
fn only_in(sign: i64, function: &Function) -> Result<()> {
    if sign == 1 { Ok(()) } else { Err(Error::failed(format!("{} can't take a state out again", function.name()))) }
}
