//! The value of nearest rank, which `approx_percentile_cont` is within 1 % of: all values are kept and sorted.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, ScalarValue, not_impl_err};
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};

/// `nearest_rank(value, quantile)`.
pub fn nearest_rank() -> Arc<AggregateUDF> {
    let make = |_: datafusion::logical_expr::function::AccumulatorArgs<'_>| Ok(Box::new(Values::default()) as Box<dyn Accumulator>);
    let double = DataType::Float64;
    // What half of the values leaves for the other half: the values, and the quantile, NULL before the first row.
    let state = Arc::new(vec![DataType::new_list(double.clone(), true), double.clone()]);
    let arguments = vec![double.clone(), double.clone()];
    Arc::new(create_udaf("nearest_rank", arguments, Arc::new(double), Volatility::Immutable, Arc::new(make), state))
}

#[derive(Debug, Default)]
struct Values {
    values: Vec<f64>,
    quantile: Option<f64>,
}

impl Accumulator for Values {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let [values, quantiles] = columns else { return not_impl_err!("two arguments") };
        self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        self.quantile = self.quantile.or_else(|| quantiles.as_primitive::<Float64Type>().iter().flatten().next());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_by(f64::total_cmp);
        let rank = (self.quantile.unwrap_or_default() * self.values.len() as f64).ceil().max(1.0) as usize;
        Ok(ScalarValue::Float64(self.values.get(rank - 1).copied()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = Float64Array::from(std::mem::take(&mut self.values));
        let field = Arc::new(Field::new_list_field(DataType::Float64, true));
        let list = ListArray::try_new(field, OffsetBuffer::from_lengths([values.len()]), Arc::new(values), None)?;
        Ok(vec![ScalarValue::List(Arc::new(list)), ScalarValue::Float64(self.quantile)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [lists, quantiles] = states else { return not_impl_err!("two columns of state") };
        for values in lists.as_list::<i32>().iter().flatten() {
            self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        }
        self.quantile = self.quantile.or_else(|| quantiles.as_primitive::<Float64Type>().iter().flatten().next());
        Ok(())
    }
}
