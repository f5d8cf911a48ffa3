//! The value of nearest rank, which `approx_percentile_cont` is within 1 % of: all values are kept and sorted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, not_impl_err};
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};

/// `nearest_rank(value, quantile)`.
pub fn nearest_rank() -> Arc<AggregateUDF> {
    let make = |_: datafusion::logical_expr::function::AccumulatorArgs<'_>| Ok(Box::new(Values::default()) as Box<dyn Accumulator>);
    let double = DataType::Float64;
    let state = Arc::new(vec![double.clone()]);
    Arc::new(create_udaf(
        "nearest_rank",
        vec![double.clone(), double.clone()],
        Arc::new(double),
        Volatility::Immutable,
        Arc::new(make),
        state,
    ))
}

#[derive(Debug, Default)]
struct Values {
    values: Vec<f64>,
    quantile: f64,
}

impl Accumulator for Values {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let [values, quantiles] = columns else { return not_impl_err!("two arguments") };
        self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        if !quantiles.is_empty() {
            self.quantile = quantiles.as_primitive::<Float64Type>().value(0);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_by(f64::total_cmp);
        let rank = (self.quantile * self.values.len() as f64).ceil().max(1.0) as usize;
        Ok(ScalarValue::Float64(self.values.get(rank - 1).copied()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("aggregated in one step")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        not_impl_err!("aggregated in one step")
    }
}
