//! The value between two neighbours of a sorted group: what a median and an exact percentile are made of.
//!
//! Always: of whole numbers and decimals the exact mean, cut towards zero as DataFusion does; of doubles one rounding where the sum fits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_engine::error::Result;

use super::columns::{doubles, longs, narrowed, natives};

/// The mean of each two values.
pub(super) fn median(low: &ArrayRef, high: &ArrayRef) -> Result<ArrayRef> {
    let data_type = low.data_type();
    match data_type {
        DataType::Float32 | DataType::Float64 => between(low, high, std::iter::repeat(0.5)),
        DataType::Decimal128(digits, scale) => {
            let (lows, highs) = (natives::<i128>(low)?, natives::<i128>(high)?);
            let values = lows.iter().zip(highs.iter()).enumerate().map(|(row, (low_value, high_value))| {
                // 38 digits leave a bit for the sum.
                low.is_valid(row).then(|| low_value.saturating_add(*high_value) / 2)
            });
            Ok(Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(*digits, *scale)?))
        }
        _ => {
            let unsigned = *data_type == DataType::UInt64;
            let (lows, highs) = (longs(low)?, longs(high)?);
            let wide = |value: i64| if unsigned { i128::from(value as u64) } else { i128::from(value) };
            let values = lows.iter().zip(highs.iter()).enumerate();
            narrowed(data_type, values.map(|(row, (a, b))| low.is_valid(row).then(|| ((wide(*a) + wide(*b)) / 2) as i64)))
        }
    }
}

/// The value `part` of the way from each low value to its high one.
pub(super) fn between(low: &ArrayRef, high: &ArrayRef, parts: impl Iterator<Item = f64>) -> Result<ArrayRef> {
    let (lows, highs) = (doubles(low)?, doubles(high)?);
    let values = lows.iter().zip(highs.iter()).zip(parts).enumerate().map(|(row, ((&low_value, &high_value), part))| {
        low.is_valid(row).then(|| {
            if part == 0.0 || low_value == high_value {
                low_value
            } else if part == 0.5 && (low_value + high_value).is_finite() {
                (low_value + high_value) / 2.0
            } else {
                // Never past the greatest double, as a difference of two of them might be.
                low_value * (1.0 - part) + high_value * part
            }
        })
    });
    let values: ArrayRef = Arc::new(values.collect::<Float64Array>());
    if values.data_type() == low.data_type() { Ok(values) } else { Ok(cast(&values, low.data_type())?) }
}
