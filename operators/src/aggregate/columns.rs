//! Arrow columns as plain slices of native values, and back: what keeps the accumulators free of Arrow's per-type classes.
//!
//! A DATE, a TIMESTAMP and a BIGINT are the same integers to an aggregate; the logical type comes back only with the result.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, ListArray, make_array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Field, Int64Type};
use tidemill_engine::error::{Error, Result};

/// The argument of an update; its absence is a planner's bug.
pub(super) fn required(argument: Option<&ArrayRef>) -> Result<&ArrayRef> {
    argument.ok_or_else(|| Error::failed("an aggregate lacks its argument"))
}

/// Refuses an argument or state column of another type than the plan's.
pub(super) fn typed(array: &ArrayRef, expected: &DataType) -> Result<()> {
    if array.data_type() == expected {
        Ok(())
    } else {
        Err(Error::failed(format!("an aggregate planned over {expected} was given {}", array.data_type())))
    }
}

/// The values of a fixed-width column of native type `T`, zero-copy. Slots under NULLs hold anything.
pub(super) fn natives<T: ArrowNativeType>(array: &ArrayRef) -> Result<ScalarBuffer<T>> {
    if let Some(booleans) = array.as_boolean_opt() {
        // A BOOLEAN is a column of single bytes to whoever asks for those.
        let bytes = booleans.values().iter().map(|value| if value { T::usize_as(1) } else { T::default() });
        return Ok(bytes.collect::<Vec<T>>().into());
    }
    let data = array.to_data();
    let width = array.data_type().primitive_width();
    match data.buffers().first() {
        Some(buffer) if width == Some(size_of::<T>()) => Ok(ScalarBuffer::new(buffer.clone(), data.offset(), data.len())),
        _ => Err(Error::failed(format!("{} is not a column of {} byte values", array.data_type(), size_of::<T>()))),
    }
}

/// A column of numbers as doubles, zero-copy for DOUBLE; decimals unscaled. Integers past 2^53 are rounded to nearest.
pub(super) fn doubles(array: &ArrayRef) -> Result<ScalarBuffer<f64>> {
    fn each<T: ArrowNativeType>(array: &ArrayRef, convert: impl Fn(T) -> f64) -> Result<ScalarBuffer<f64>> {
        Ok(natives::<T>(array)?.iter().map(|&value| convert(value)).collect::<Vec<f64>>().into())
    }
    match array.data_type() {
        DataType::Float64 => natives(array),
        DataType::Float32 => each(array, |x: f32| x.into()),
        DataType::Int8 => each(array, |x: i8| x.into()),
        DataType::Int16 => each(array, |x: i16| x.into()),
        DataType::Int32 => each(array, |x: i32| x.into()),
        DataType::Int64 => each(array, |x: i64| x as f64),
        DataType::UInt8 => each(array, |x: u8| x.into()),
        DataType::UInt16 => each(array, |x: u16| x.into()),
        DataType::UInt32 => each(array, |x: u32| x.into()),
        DataType::UInt64 => each(array, |x: u64| x as f64),
        DataType::Decimal128(..) => each(array, |x: i128| x as f64),
        other => Err(Error::failed(format!("{other} is not a column of numbers"))),
    }
}

/// A column of integers in 64 bits, zero-copy for BIGINT; not for UBIGINT.
pub(super) fn longs(array: &ArrayRef) -> Result<ScalarBuffer<i64>> {
    fn each<T: ArrowNativeType + Into<i64>>(array: &ArrayRef) -> Result<ScalarBuffer<i64>> {
        Ok(natives::<T>(array)?.iter().map(|&value| value.into()).collect::<Vec<i64>>().into())
    }
    match array.data_type() {
        DataType::Int8 => each::<i8>(array),
        DataType::Int16 => each::<i16>(array),
        DataType::Int32 => each::<i32>(array),
        DataType::UInt8 => each::<u8>(array),
        DataType::UInt16 => each::<u16>(array),
        DataType::UInt32 => each::<u32>(array),
        _ => natives(array),
    }
}

/// A fixed-width column of any logical type over native type `T`.
pub(super) fn fixed<T: ArrowNativeType>(data_type: &DataType, values: Vec<T>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    if *data_type == DataType::Boolean {
        let values = BooleanBuffer::from_iter(values.iter().map(|value| *value != T::default()));
        return Ok(Arc::new(BooleanArray::new(values, nulls)));
    }
    let data = ArrayData::builder(data_type.clone())
        .len(values.len())
        .add_buffer(ScalarBuffer::from(values).into_inner())
        .nulls(nulls.filter(|nulls| nulls.null_count() > 0))
        .build()?;
    Ok(make_array(data))
}

/// A fixed-width column from optional values.
pub(super) fn optional<T: ArrowNativeType>(data_type: &DataType, values: impl Iterator<Item = Option<T>>) -> Result<ArrayRef> {
    let (values, valid): (Vec<T>, Vec<bool>) = values.map(|value| (value.unwrap_or_default(), value.is_some())).unzip();
    fixed(data_type, values, Some(NullBuffer::from(valid)))
}

/// A column of integers from their 64 bits; what is above a narrower type's width is cut.
pub(super) fn narrowed(data_type: &DataType, values: impl Iterator<Item = Option<i64>>) -> Result<ArrayRef> {
    match data_type {
        DataType::Int8 | DataType::UInt8 => optional(data_type, values.map(|value| value.map(|value| value as i8))),
        DataType::Int16 | DataType::UInt16 => optional(data_type, values.map(|value| value.map(|value| value as i16))),
        DataType::Int32 | DataType::UInt32 => optional(data_type, values.map(|value| value.map(|value| value as i32))),
        _ => optional(data_type, values),
    }
}

/// A BIGINT column without NULLs.
pub(super) fn int64(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// State column `index`, checked against the number of rows.
pub(super) fn column(state: &[ArrayRef], index: usize, rows: usize) -> Result<&ArrayRef> {
    state.get(index).filter(|column| column.len() == rows).ok_or_else(|| bad_state("columns"))
}

/// State column `index` as BIGINT.
pub(super) fn int64_column(state: &[ArrayRef], index: usize, rows: usize) -> Result<&Int64Array> {
    column(state, index, rows)?.as_primitive_opt::<Int64Type>().ok_or_else(|| bad_state("type"))
}

/// State column `index` as bytes.
pub(super) fn binary_column(state: &[ArrayRef], index: usize, rows: usize) -> Result<&BinaryArray> {
    column(state, index, rows)?.as_binary_opt::<i32>().ok_or_else(|| bad_state("type"))
}

/// State column `index` as lists.
pub(super) fn list_column(state: &[ArrayRef], index: usize, rows: usize) -> Result<&ListArray> {
    column(state, index, rows)?.as_list_opt::<i32>().ok_or_else(|| bad_state("type"))
}

/// The type of a list state column.
pub(super) fn list_type(item: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item.clone(), true)))
}

/// A list column from its items and the length of each list.
pub(super) fn list(items: ArrayRef, lengths: Vec<usize>) -> Result<ArrayRef> {
    if i32::try_from(items.len()).is_err() {
        return Err(Error::failed("an aggregate's state has over 2^31 values in one batch"));
    }
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), items, None)?))
}

/// The values of list state columns as rows again: the slot of each value, the values, and their counts times `sign`.
pub(super) fn unlist(
    groups: &[u32],
    lists: &ListArray,
    counts: Option<&ListArray>,
    sign: i64,
) -> Result<(Vec<u32>, ArrayRef, Option<Vec<i64>>)> {
    let lengths = |lists: &ListArray| lists.offsets().windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect::<Vec<_>>();
    let values = |lists: &ListArray| {
        let (first, last) = (lists.offsets().first().copied().unwrap_or(0), lists.offsets().last().copied().unwrap_or(0));
        lists.values().slice(first as usize, (last - first) as usize)
    };
    if lists.null_count() > 0 || counts.is_some_and(|counts| counts.null_count() > 0 || lengths(counts) != lengths(lists)) {
        return Err(bad_state("lists"));
    }
    let groups = groups.iter().zip(lengths(lists)).flat_map(|(&group, length)| std::iter::repeat_n(group, length)).collect();
    let counts = match counts.map(values) {
        Some(counts) => {
            let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(|| bad_state("counts"))?;
            Some(counts.values().iter().map(|count| sign * count).collect())
        }
        None => None,
    };
    Ok((groups, values(lists), counts))
}

/// A state that no accumulator of this build wrote.
pub(super) fn bad_state(what: &str) -> Error {
    Error::failed(format!("an aggregate's stored state can't be read: {what}"))
}
