//! What names a source row: its source, partition and offset. Ties of every ORDER BY are broken by it (PROTOCOL, "Order and identity").

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::rows::Rows;

/// The fields that [`completed`] adds.
pub fn fields() -> [FieldRef; 3] {
    ["source", "partition", "offset"].map(|name| Arc::new(Field::new(name, DataType::Int64, true)))
}

/// Source, partition and offset of each row; NULLs for a derived row.
pub fn names(rows: &Rows) -> [ArrayRef; 3] {
    match &rows.origin {
        Some(origin) => [
            Arc::new(Int64Array::from_value(origin.source as i64, rows.len())),
            Arc::new(Int64Array::from_value(i64::from(origin.partition), rows.len())),
            Arc::new(Int64Array::from(origin.offsets.to_vec())),
        ],
        None => [0; 3].map(|_| new_null_array(&DataType::Int64, rows.len())),
    }
}

/// A struct column with the rows' identity as its last fields.
pub fn completed(column: &ArrayRef, rows: &Rows) -> Result<ArrayRef> {
    let parts = column.as_struct_opt().ok_or_else(|| Error::failed("an ordered aggregate was given a column that is no struct"))?;
    let all: Fields = parts.fields().iter().cloned().chain(fields()).collect();
    let columns = parts.columns().iter().cloned().chain(names(rows)).collect();
    Ok(Arc::new(StructArray::try_new(all, columns, None)?))
}
