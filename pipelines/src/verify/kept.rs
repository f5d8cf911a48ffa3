//! Aggregates that a batch takes from the pipeline's own states: those of pairs and percentiles, which are exact and rounded once, and
//! DISTINCT where DataFusion has none, or (`bit_xor`) a wrong one.
//!
//! Always: the same bits as a run's; what they are worth is tested beside them, against naive models. Called by `lowering`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, cast, lit};
use tidemill_engine::error::Error;
use tidemill_operators::aggregate::Pair;

use crate::lower::calls::{kept_type, planned, spec};
use crate::sql::udaf;

/// The call over a state of ours, if it is one of those.
pub fn of_ours(call: &AggregateFunction, input: &DFSchema, returns: &DataType) -> Result<Option<Expr>> {
    let (name, distinct) = (call.func.name(), call.params.distinct);
    let without_distinct = name == "bit_xor" || name.starts_with("var") || name.starts_with("stddev");
    if Pair::named(name).is_none() && name != "percentile_cont" && !(distinct && without_distinct) {
        return Ok(None);
    }
    let schema = Arc::new(input.clone());
    let planned = planned(call, &schema, false, false).map_err(wrong)?;
    let spec = spec(&planned, kept_type(returns), &schema, false).map_err(wrong)?;
    let argument = match (&spec.input, planned.arguments.as_slice()) {
        (Some(DataType::Struct(fields)), arguments) => {
            let named = fields.iter().zip(arguments).flat_map(|(field, argument)| [lit(field.name().as_str()), argument.clone()]);
            cast(named_struct(named.collect()), DataType::Struct(fields.clone()))
        }
        (_, [one]) => one.clone(),
        _ => return Ok(None),
    };
    let filter = call.params.filter.clone();
    Ok(Some(Expr::AggregateFunction(AggregateFunction::new_udf(udaf(spec), vec![argument], false, filter, Vec::new(), None))))
}

fn wrong(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
