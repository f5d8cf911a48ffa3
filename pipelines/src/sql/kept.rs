//! Aggregates of DataFusion as pipelines keep them: sums, averages and variances of doubles that are exact and rounded once, and sums of whole
//! numbers that fail past 64 bits.
//!
//! Always: the same bits in any order of the rows, where DataFusion's own round at every step and differ from run to run; CONTRACT §3 makes
//! this the definition. Called by the batch of `verify`, and by `checked` for whole numbers in queries over tables.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator as OneGroup, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, ExprSchemable, GroupsAccumulator, Signature, Volatility,
};
use tidemill_engine::error::Error;
use tidemill_engine::hash::hash_bytes;
use tidemill_operators::aggregate::{Accumulator, Function, Spec, accumulator};

/// Ours for an aggregate whose result is rounded; `None` for one that is exact anyway.
pub fn of_doubles(call: &AggregateFunction, input: &DFSchema, returns: &DataType) -> Result<Option<Arc<AggregateUDF>>> {
    let function = match (call.func.name(), call.params.distinct) {
        ("sum", false) => Function::Sum,
        ("sum", true) => Function::SumDistinct,
        ("avg", false) => Function::Avg,
        ("avg", true) => Function::AvgDistinct,
        ("var_pop", false) => Function::VarPop,
        ("var" | "var_samp", false) => Function::VarSamp,
        ("stddev_pop", false) => Function::StddevPop,
        ("stddev" | "stddev_samp", false) => Function::StddevSamp,
        _ => return Ok(None),
    };
    if returns.is_floating() { ours(function, call, input, returns) } else { Ok(None) }
}

/// Ours for a sum of whole numbers.
pub fn of_whole_numbers(call: &AggregateFunction, input: &DFSchema) -> Result<Option<Arc<AggregateUDF>>> {
    let whole = |argument: &Expr| argument.get_type(input).is_ok_and(|data_type| data_type.is_signed_integer());
    if call.func.name() == "sum" && !call.params.distinct && call.params.args.first().is_some_and(whole) {
        return ours(Function::Sum, call, input, &DataType::Int64);
    }
    Ok(None)
}

fn ours(function: Function, call: &AggregateFunction, input: &DFSchema, returns: &DataType) -> Result<Option<Arc<AggregateUDF>>> {
    let Some(argument) = call.params.args.first() else { return Ok(None) };
    Ok(Some(udaf(Spec { function, input: Some(argument.get_type(input)?), output: returns.clone(), retracts: false })))
}

/// One of our aggregates as DataFusion calls it.
pub fn udaf(spec: Spec) -> Arc<AggregateUDF> {
    // Not the names of DataFusion's own: its rules take those apart, a sum into sums of sums.
    // Two calls that differ in what no argument says (a quantile) must differ in name too: its rules know expressions by their names.
    let name = match &spec.function {
        Function::Listing(listing) => format!("exact_{}_{:x}", spec.function.name(), hash_bytes(format!("{listing:?}").as_bytes(), 0)),
        other => format!("exact_{}", other.name()),
    };
    Arc::new(AggregateUDF::new_from_impl(Ours { spec, name, signature: Signature::any(1, Volatility::Immutable) }))
}

#[derive(Debug, Clone, PartialEq)]
struct Ours {
    spec: Spec,
    name: String,
    signature: Signature,
}

impl Eq for Ours {}

impl Hash for Ours {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.spec.input.hash(state);
    }
}

fn wrong(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl AggregateUDFImpl for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.spec.output.clone())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let types = accumulator(&self.spec).map_err(wrong)?.state_types();
        Ok(types.into_iter().map(|(name, data_type)| Arc::new(Field::new(format!("{}[{name}]", args.name), data_type, true))).collect())
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::new(self.spec.clone())?))
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn OneGroup>> {
        Ok(Box::new(One(Mutex::new(Groups::new(self.spec.clone())?))))
    }
}

/// The states of all groups. DataFusion takes groups out from the front, ours keep their places: `first` is the place of group 0.
struct Groups {
    spec: Spec,
    kept: Box<dyn Accumulator>,
    first: usize,
    groups: usize,
}

impl Groups {
    fn new(spec: Spec) -> Result<Self> {
        let kept = accumulator(&spec).map_err(wrong)?;
        Ok(Self { spec, kept, first: 0, groups: 0 })
    }

    fn places(&mut self, groups: &[usize], total: usize) -> Vec<u32> {
        self.groups = self.groups.max(total);
        self.kept.resize(self.first + self.groups);
        groups.iter().map(|group| (self.first + group) as u32).collect()
    }

    fn take<T>(&mut self, emit: EmitTo, get: impl FnOnce(&dyn Accumulator, &[u32]) -> tidemill_engine::error::Result<T>) -> Result<T> {
        let count = match emit {
            EmitTo::All => self.groups,
            EmitTo::First(count) => count.min(self.groups),
        };
        let places: Vec<u32> = (self.first..self.first + count).map(|place| place as u32).collect();
        let taken = get(self.kept.as_ref(), &places).map_err(wrong)?;
        if count == self.groups {
            *self = Self::new(self.spec.clone())?;
        } else {
            places.iter().for_each(|place| self.kept.clear(*place as usize));
            self.first += count;
            self.groups -= count;
        }
        Ok(taken)
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        let places = self.places(groups, total);
        self.kept.update(&places, values.first(), filter, None).map_err(wrong)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let places = self.places(groups, total);
        self.kept.merge(&places, values, 1).map_err(wrong)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let mut each = Self::new(self.spec.clone())?;
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.state(EmitTo::All)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.take(emit, |kept, places| kept.result(places))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.take(emit, |kept, places| kept.state(places))
    }

    fn size(&self) -> usize {
        self.kept.bytes()
    }
}

/// A single group, for aggregates without GROUP BY. The lock is never taken: DataFusion asks for a type that could be shared.
struct One(Mutex<Groups>);

impl One {
    fn group(&mut self) -> &mut Groups {
        let group = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        group.places(&[], 1);
        group
    }
}

impl std::fmt::Debug for One {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("One").finish_non_exhaustive()
    }
}

impl OneGroup for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.group().update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.group().kept.result(&[0]).map_err(wrong)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = self.group().kept.state(&[0]).map_err(wrong)?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |column| column.len());
        self.group().merge_batch(states, &vec![0; rows], 1)
    }
}
