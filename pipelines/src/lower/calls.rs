//! Aggregate calls: DataFusion's to ours, their arguments as columns.
//!
//! Always: an aggregate that no state of ours keeps is refused; one that depends on an order gets all of it, down to the rows' identity,
//! so that there is one answer. What takes several columns takes them as one struct. The oracle asks here too, for the same functions.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};
use datafusion::logical_expr::{Aggregate, Expr, cast};
use tidemill_engine::error::{Error, Result};
use tidemill_operators::aggregate::{Finish, Function, Listing, Order, Pair, Spec, accumulator};
use tidemill_operators::expression::Expression;
use tidemill_operators::identity;
use tidemill_operators::window_aggregate::Call;

use super::aggregate::{data_type, one_zero};
use super::expr::compile;
use super::stream::Stream;
use crate::sql::sql_name;

/// An aggregate call as ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Which aggregate.
    pub function: Function,
    /// Its arguments.
    pub arguments: Vec<Expr>,
    /// The ORDER BY expressions, as [`Listing::order`] sorts them.
    pub order: Vec<Expr>,
}

impl Planned {
    /// The arguments are handed over as one struct, even if there is only one.
    fn takes_struct(&self) -> bool {
        matches!(self.function, Function::Pair(_) | Function::Listing(_))
    }
}

/// Adds the columns of the aggregate calls, each distinct expression once.
pub(super) fn add_calls(
    aggregate: &Aggregate,
    schema: &DFSchemaRef,
    input: &Stream,
    columns: &mut Vec<Arc<dyn Expression>>,
    fields: &mut Vec<Field>,
) -> Result<Vec<Call>> {
    let mut known: Vec<(Vec<Expr>, bool, usize)> = Vec::new();
    let mut place = |exprs: &[Expr], gathered: bool, columns: &mut Vec<Arc<dyn Expression>>, fields: &mut Vec<Field>| -> Result<usize> {
        if let Some((_, _, index)) = known.iter().find(|(each, is, _)| each == exprs && *is == gathered) {
            return Ok(*index);
        }
        let name = format!("argument_{}", columns.len());
        let parts = exprs.iter().map(|expr| compile(expr, schema)).collect::<Result<Vec<_>>>()?;
        match parts.as_slice() {
            [one] if !gathered => {
                fields.push(Field::new(name, data_type(exprs.first().unwrap_or(&Expr::default()), schema)?, true));
                columns.push(Arc::clone(one));
            }
            _ => {
                let types = part_fields(exprs, schema)?;
                fields.push(Field::new(name, DataType::Struct(types.clone()), true));
                columns.push(Arc::new(Gathered::new(parts, types)));
            }
        }
        known.push((exprs.to_vec(), gathered, columns.len() - 1));
        Ok(columns.len() - 1)
    };
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
        let call = function_of(expr)?;
        let planned = planned(call, schema, input.revises, input.raw)?;
        let output = kept_type(aggregate.schema.field(aggregate.group_expr.len() + index).data_type());
        let spec = spec(&planned, output, schema, input.revises)?;
        accumulator(&spec).map_err(|error| {
            // What can be kept, but not taken back, says so itself.
            let kept = Spec { retracts: false, ..spec.clone() };
            if spec.retracts && accumulator(&kept).is_ok() { error } else { refusal(&planned, schema) }
        })?;
        let all: Vec<Expr> = planned.arguments.iter().chain(&planned.order).cloned().collect();
        calls.push(Call {
            spec,
            argument: if all.is_empty() { None } else { Some(place(&all, planned.takes_struct(), columns, fields)?) },
            filter: call.params.filter.as_ref().map(|filter| place(&[filter.as_ref().clone()], false, columns, fields)).transpose()?,
        });
    }
    Ok(calls)
}

fn refusal(planned: &Planned, schema: &DFSchemaRef) -> Error {
    let types = planned.arguments.iter().map(|argument| data_type(argument, schema).map_or_else(|_| "?".to_owned(), |is| sql_name(&is)));
    let over = types.collect::<Vec<_>>().join(", ");
    let over = if over.is_empty() { "nothing" } else { &over };
    Error::refused(format!("{} over {over} is not supported; CAST the argument", planned.function.name()))
}

/// What an accumulator of this call must know.
pub fn spec(planned: &Planned, output: DataType, schema: &DFSchemaRef, retracts: bool) -> Result<Spec> {
    let input = if planned.takes_struct() {
        let all: Vec<Expr> = planned.arguments.iter().chain(&planned.order).cloned().collect();
        let names = if planned.function.wants_identity() { identity::fields().to_vec() } else { Vec::new() };
        let fields: Fields = part_fields(&all, schema)?.iter().cloned().chain(names).collect();
        Some(DataType::Struct(fields))
    } else {
        planned.arguments.first().map(|argument| data_type(argument, schema)).transpose()?
    };
    Ok(Spec { function: planned.function.clone(), input, output, retracts })
}

/// Unsigned counts are kept as BIGINT; a later projection casts back where the plan says so.
pub fn kept_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::UInt64 => DataType::Int64,
        DataType::List(item) if *item.data_type() == DataType::UInt64 => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(DataType::Int64)))
        }
        other => other.clone(),
    }
}

fn part_fields(exprs: &[Expr], schema: &DFSchemaRef) -> Result<Fields> {
    let field = |(number, expr): (usize, &Expr)| -> Result<FieldRef> {
        Ok(Arc::new(Field::new(format!("part_{number}"), data_type(expr, schema)?, true)))
    };
    exprs.iter().enumerate().map(field).collect()
}

fn function_of(expr: &Expr) -> Result<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(function) => Ok(function),
        Expr::Alias(alias) => function_of(&alias.expr),
        other => Err(Error::refused(format!("{other} is no aggregate that can be kept"))),
    }
}

/// Our function for DataFusion's, with its arguments. `revises`: rows of the input may be taken back; `raw`: they are source rows, whose
/// identity breaks ties.
pub fn planned(call: &AggregateFunction, schema: &DFSchemaRef, revises: bool, raw: bool) -> Result<Planned> {
    let (name, distinct) = (call.func.name(), call.params.distinct);
    let argument = call.params.args.first().cloned();
    let plain = |function: Function| Planned { function, arguments: argument.iter().cloned().collect(), order: Vec::new() };
    let once = |function: Function| -> Result<Planned> {
        let argument = argument.iter().map(|argument| one_zero(argument, schema)).collect::<Result<Vec<_>>>()?;
        Ok(Planned { function, arguments: argument, order: Vec::new() })
    };
    let listed = |finish: Finish| listing(call, schema, finish, raw);
    let folded = |function: Function| listed(Finish::Folded(Box::new(function)));
    Ok(match (name, distinct) {
        ("count", false) if argument.as_ref().is_none_or(never_null) => {
            Planned { function: Function::CountStar, arguments: Vec::new(), order: Vec::new() }
        }
        ("count", false) => plain(Function::Count),
        ("count", true) => match argument.as_ref().map(|argument| data_type(argument, schema)).transpose()? {
            Some(DataType::List(_) | DataType::Struct(_)) => folded(Function::Count)?,
            _ => once(Function::CountDistinct)?,
        },
        ("sum", false) => plain(Function::Sum),
        ("sum", true) => once(Function::SumDistinct)?,
        ("min", _) => plain(Function::Min),
        ("max", _) => plain(Function::Max),
        ("avg", false) => plain(Function::Avg),
        ("avg", true) => once(Function::AvgDistinct)?,
        ("bool_and", _) => plain(Function::BoolAnd),
        ("bool_or", _) => plain(Function::BoolOr),
        // What `and` and `or` have folded in can't leave again.
        ("bit_and", _) if revises => folded(Function::BitAnd)?,
        ("bit_or", _) if revises => folded(Function::BitOr)?,
        ("bit_and", _) => plain(Function::BitAnd),
        ("bit_or", _) => plain(Function::BitOr),
        ("approx_distinct", _) => once(Function::ApproxDistinct)?,
        ("array_agg", _) => listed(Finish::Array)?,
        ("string_agg", _) => listed(Finish::Joined { separator: separator(call)? })?,
        ("first_value", false) => listed(Finish::First)?,
        ("last_value", false) => listed(Finish::Last)?,
        ("nth_value", false) => listed(Finish::Nth { n: nth(call)? })?,
        ("median", _) => listed(Finish::Median)?,
        ("percentile_cont", _) => listed(Finish::Percentile { quantile: quantile(call)? })?,
        _ => {
            let function = match name {
                "var_pop" => Function::VarPop,
                "var" | "var_samp" => Function::VarSamp,
                "stddev_pop" => Function::StddevPop,
                "stddev" | "stddev_samp" => Function::StddevSamp,
                "bit_xor" => Function::BitXor,
                "approx_percentile_cont" => Function::ApproxPercentile { quantile: quantile(call)? },
                "approx_median" => Function::ApproxPercentile { quantile: 0.5 },
                _ => match Pair::named(name) {
                    Some(pair) => Function::Pair(pair),
                    None => {
                        return Err(Error::refused(format!("{}{name} is not supported yet", if distinct { "DISTINCT in " } else { "" })));
                    }
                },
            };
            if distinct {
                folded(function)?
            } else if matches!(function, Function::Pair(_)) {
                Planned { arguments: pair(call), function, order: Vec::new() }
            } else {
                plain(function)
            }
        }
    })
}

fn pair(call: &AggregateFunction) -> Vec<Expr> {
    call.params.args.iter().take(2).map(|argument| cast(argument.clone(), DataType::Float64)).collect()
}

/// A call over the rows of a group, or over its different ones.
fn listing(call: &AggregateFunction, schema: &DFSchemaRef, finish: Finish, raw: bool) -> Result<Planned> {
    let ordered = matches!(finish, Finish::Array | Finish::Joined { .. } | Finish::First | Finish::Last | Finish::Nth { .. });
    let arguments = match &finish {
        Finish::Folded(function) if matches!(function.as_ref(), Function::Pair(_)) => pair(call),
        _ => call.params.args.iter().take(1).cloned().collect(),
    };
    let arguments = arguments.iter().map(|argument| match data_type(argument, schema)? {
        DataType::UInt64 => Ok(cast(argument.clone(), DataType::Int64)),
        _ if call.params.distinct => one_zero(argument, schema),
        _ => Ok(argument.clone()),
    });
    let sorts = if ordered { call.params.order_by.as_slice() } else { &[] };
    let listing = Listing {
        finish,
        arguments: arguments.len(),
        order: sorts.iter().map(|sort| Order { descending: !sort.asc, nulls_first: sort.nulls_first }).collect(),
        identity: ordered && raw && !call.params.distinct,
        distinct: call.params.distinct,
        ignore_nulls: call.params.null_treatment == Some(NullTreatment::IgnoreNulls),
    };
    Ok(Planned {
        function: Function::Listing(listing),
        arguments: arguments.collect::<Result<Vec<_>>>()?,
        order: sorts.iter().map(|sort| sort.expr.clone()).collect(),
    })
}

fn never_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null())
}

/// The constant that stands at an argument's place, as a value of `data_type`.
fn constant(call: &AggregateFunction, place: usize, data_type: &DataType) -> Option<ScalarValue> {
    let mut literal = call.params.args.get(place)?;
    while let Expr::Cast(cast) = literal {
        literal = &cast.expr;
    }
    let Expr::Literal(value, _) = literal else { return None };
    value.cast_to(data_type).ok()
}

fn separator(call: &AggregateFunction) -> Result<String> {
    if call.params.args.len() < 2 {
        return Ok(String::new());
    }
    match constant(call, 1, &DataType::Utf8) {
        Some(ScalarValue::Utf8(separator)) => Ok(separator.unwrap_or_default()),
        _ => Err(Error::refused("string_agg needs a constant between the values: string_agg(x, ', ')")),
    }
}

fn nth(call: &AggregateFunction) -> Result<i64> {
    match constant(call, 1, &DataType::Int64) {
        Some(ScalarValue::Int64(Some(n))) if n != 0 => Ok(n),
        _ => Err(Error::refused("nth_value needs a constant place, from 1, or from -1 for the last: nth_value(x, 2)")),
    }
}

fn quantile(call: &AggregateFunction) -> Result<f64> {
    let value = match constant(call, 1, &DataType::Float64) {
        Some(ScalarValue::Float64(Some(value))) if (0.0..=1.0).contains(&value) => value,
        _ => return Err(Error::refused(format!("{} needs a constant between 0 and 1", call.func.name()))),
    };
    let descending = call.params.order_by.first().is_some_and(|sort| !sort.asc);
    Ok(if descending { 1.0 - value } else { value })
}

/// Several expressions as one struct.
pub(super) struct Gathered {
    parts: Vec<Arc<dyn Expression>>,
    fields: Fields,
    text: String,
}

impl Gathered {
    pub(super) fn new(parts: Vec<Arc<dyn Expression>>, fields: Fields) -> Self {
        let text = parts.iter().map(|part| part.text()).collect::<Vec<_>>().join(", ");
        Self { parts, fields, text }
    }
}

impl Expression for Gathered {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let columns = self.parts.iter().map(|part| part.evaluate(batch)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new(self.fields.clone(), columns, None)?))
    }

    fn text(&self) -> &str {
        &self.text
    }
}
