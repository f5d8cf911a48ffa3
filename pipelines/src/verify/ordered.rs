//! Aggregates that depend on an order of rows, by their definition: all rows are kept, sorted and read. DataFusion's own can't have two
//! orders in one SELECT.
//!
//! Always: behind the ORDER BY that `sql` completed come the row's source, partition and offset, where rows still are source rows, and the value
//! itself, as CONTRACT §3 breaks ties. Called by `lowering`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortOptions, cast, concat, filter, is_not_null, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};

use super::{OFFSET, PARTITION, SOURCE};
use crate::sql::ORDERED;

/// The call over sorted rows, if it depends on an order.
pub fn in_order(call: &AggregateFunction, input: &DFSchema, returns: &DataType) -> Result<Option<Expr>> {
    let (name, params) = (call.func.name(), &call.params);
    if !ORDERED.contains(&name) {
        return Ok(None);
    }
    let Some(value) = params.args.first() else { return Ok(None) };
    let wanted = match (name, params.args.get(1)) {
        ("array_agg", _) => Wanted::List,
        ("string_agg", Some(Expr::Literal(separator, _))) => Wanted::Joined(separator.to_string()),
        ("string_agg", _) => Wanted::Joined(String::new()),
        ("first_value", _) => Wanted::Nth(1),
        ("last_value", _) => Wanted::Nth(-1),
        ("nth_value", Some(Expr::Literal(ScalarValue::Int64(Some(n)), _))) => Wanted::Nth(*n),
        _ => return plan_err!("{name} needs constants"),
    };
    let named = |name: &str| input.columns().into_iter().find(|column| column.name == name).map(Expr::Column);
    let places = [SOURCE, PARTITION, OFFSET].into_iter().filter_map(named).filter(|_| !params.distinct);
    let sorts: Vec<Sort> =
        params.order_by.iter().cloned().chain(places.chain([value.clone()]).map(|expr| expr.sort(true, false))).collect();
    let ignores_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls) || name == "string_agg";
    let udaf = InOrder {
        wanted,
        order: sorts.iter().map(|sort| (!sort.asc, sort.nulls_first)).collect(),
        distinct: params.distinct,
        ignores_nulls,
        returns: returns.clone(),
        signature: Signature::any(1 + sorts.len(), Volatility::Immutable),
    };
    let arguments = std::iter::once(value.clone()).chain(sorts.into_iter().map(|sort| sort.expr)).collect();
    let udaf = Arc::new(AggregateUDF::new_from_impl(udaf));
    Ok(Some(Expr::AggregateFunction(AggregateFunction::new_udf(udaf, arguments, false, params.filter.clone(), Vec::new(), None))))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Wanted {
    List,
    Joined(String),
    Nth(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct InOrder {
    wanted: Wanted,
    /// Descending and nulls first, for each argument behind the value.
    order: Vec<(bool, bool)>,
    distinct: bool,
    ignores_nulls: bool,
    returns: DataType,
    signature: Signature,
}

impl Hash for InOrder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.wanted, &self.order, self.distinct, self.ignores_nulls).hash(state);
    }
}

impl AggregateUDFImpl for InOrder {
    fn name(&self) -> &str {
        "in_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |(place, field): (usize, &FieldRef)| -> FieldRef {
            Arc::new(Field::new(format!("column_{place}"), DataType::new_list(field.data_type().clone(), true), true))
        };
        Ok(args.input_fields.iter().enumerate().map(list).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let types = args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Box::new(Rows { call: self.clone(), types, batches: Vec::new() }))
    }
}

/// All rows of a group: the value, then what they are sorted by.
#[derive(Debug)]
struct Rows {
    call: InOrder,
    types: Vec<DataType>,
    batches: Vec<Vec<ArrayRef>>,
}

impl Rows {
    fn columns(&self) -> Result<Vec<ArrayRef>> {
        let column = |place: usize, data_type: &DataType| -> Result<ArrayRef> {
            let parts: Vec<&dyn Array> = self.batches.iter().filter_map(|batch| batch.get(place)).map(|part| part.as_ref()).collect();
            Ok(if parts.is_empty() { arrow::array::new_empty_array(data_type) } else { concat(&parts)? })
        };
        self.types.iter().enumerate().map(|(place, data_type)| column(place, data_type)).collect()
    }

    /// The values in their order.
    fn sorted(&self) -> Result<ArrayRef> {
        let mut columns = self.columns()?;
        if let (true, Some(value)) = (self.call.ignores_nulls, columns.first()) {
            let kept: BooleanArray = is_not_null(value)?;
            columns = columns.iter().map(|column| filter(column, &kept)).collect::<std::result::Result<_, _>>()?;
        }
        let Some((value, by)) = columns.split_first() else { return plan_err!("a value is needed") };
        let field = |(column, (descending, nulls_first)): (&ArrayRef, &(bool, bool))| {
            let options = SortOptions { descending: *descending, nulls_first: *nulls_first };
            SortField::new_with_options(column.data_type().clone(), options)
        };
        let rows = RowConverter::new(by.iter().zip(&self.call.order).map(field).collect())?.convert_columns(by)?;
        let mut places: Vec<u32> = (0..value.len() as u32).collect();
        places.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        if self.call.distinct {
            places.dedup_by(|a, b| rows.row(*a as usize) == rows.row(*b as usize));
        }
        Ok(take(value, &UInt32Array::from(places), None)?)
    }
}

impl Accumulator for Rows {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.batches.push(columns.to_vec());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values = self.sorted()?;
        let found = match &self.call.wanted {
            _ if values.is_empty() => None,
            Wanted::List => {
                let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
                let list = ListArray::try_new(field, OffsetBuffer::from_lengths([values.len()]), values, None)?;
                Some(ScalarValue::List(Arc::new(list)))
            }
            Wanted::Joined(separator) => {
                let texts = cast(&values, &DataType::Utf8)?;
                let texts: Vec<&str> = texts.as_string::<i32>().iter().flatten().collect();
                Some(ScalarValue::LargeUtf8(Some(texts.join(separator))))
            }
            Wanted::Nth(n) => {
                let place = if *n > 0 { (*n as usize).checked_sub(1) } else { values.len().checked_sub(n.unsigned_abs() as usize) };
                let place = place.filter(|place| *place < values.len());
                place.map(|place| ScalarValue::try_from_array(&values, place)).transpose()?
            }
        };
        match found {
            Some(found) => found.cast_to(&self.call.returns),
            None => ScalarValue::try_from(&self.call.returns),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.batches.iter().flatten().map(|column| column.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |column: ArrayRef| -> Result<ScalarValue> {
            let field = Arc::new(Field::new_list_field(column.data_type().clone(), true));
            Ok(ScalarValue::List(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths([column.len()]), column, None)?)))
        };
        self.columns()?.into_iter().map(list).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..states.first().map_or(0, |column| column.len()) {
            self.batches.push(states.iter().map(|lists| lists.as_list::<i32>().value(row)).collect());
        }
        Ok(())
    }
}
