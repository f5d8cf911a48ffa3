//! How columns are stored in Delta: the types of the lake, every column nullable, timestamps as UTC microseconds.
//!
//! Always: a type that Delta would change without a word (unsigned 64 bits, nanoseconds) or that it lacks is refused with its column.
//! Rows are cast here on their way to Parquet; readers cast back to the table's own types.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use tidemill_engine::error::{Error, Result};

/// The columns as Delta keeps them.
pub(super) fn stored_schema(table: &str, schema: &Schema) -> Result<Schema> {
    let fields = schema.fields().iter().map(|field| stored_field(table, field, true)).collect::<Result<Vec<_>>>()?;
    Ok(Schema::new(fields))
}

fn stored_field(table: &str, field: &FieldRef, top: bool) -> Result<Field> {
    let kind = stored_type(field.data_type(), table)
        .map_err(|error| if top { error.context(format!("column {} of {table}", field.name())) } else { error })?;
    Ok(Field::new(field.name(), kind, true))
}

fn stored_type(kind: &DataType, table: &str) -> Result<DataType> {
    let cast = |to: &str| Err(Error::refused(format!("a table can't hold {kind}: CAST it to {to}")));
    Ok(match kind {
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => kind.clone(),
        DataType::Float32 | DataType::Float64 | DataType::Date32 | DataType::Decimal128(_, _) => kind.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => return cast("BIGINT"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => return cast("TIMESTAMP(6)"),
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::List(item) | DataType::LargeList(item) => DataType::List(Arc::new(stored_field(table, item, false)?)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| stored_field(table, field, false)).collect::<Result<_>>()?),
        _ => return cast("a type of CREATE TABLE"),
    })
}

/// The rows as `target` (the Delta table's own schema, which others may have widened) has them.
pub(super) fn to_stored(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(target.fields().len());
    for field in target.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => column.clone(),
            Some(column) => cast_with_options(column, field.data_type(), &options)?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    Ok(RecordBatch::try_new_with_options(target.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())))?)
}

/// Refuses a Delta table that lacks a column of ours or has it in another type.
pub(super) fn check_schema(table: &str, ours: &Schema, theirs: &Schema) -> Result<()> {
    for field in ours.fields() {
        let held = theirs.field_with_name(field.name()).ok();
        if !held.is_some_and(|held| same(held.data_type(), field.data_type())) {
            let held = held.map_or("no such column".to_owned(), |held| held.data_type().to_string());
            return Err(Error::refused(format!(
                "table {table} in the data folder: column {} is {held}, the pipeline writes {}; run with --reset, or name another --data folder",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// Equal but for the names of list items and for nullability, which Delta sets as it likes.
fn same(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && same(a.data_type(), b.data_type()))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_delta_would_change_silently_is_refused_with_its_column() {
        let schema = Schema::new(vec![Field::new("n", DataType::UInt64, false)]);
        let error = stored_schema("t", &schema).expect_err("refused");
        assert_eq!(error.message(), "column n of t: a table can't hold UInt64: CAST it to BIGINT");
        let schema = Schema::new(vec![Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), false)]);
        assert!(stored_schema("t", &schema).is_err());
    }
}
