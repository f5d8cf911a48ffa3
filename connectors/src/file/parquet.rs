//! Parquet: columns by name, each row rendered as the JSON object that says the same.
//!
//! Always: values keep every digit (DECIMAL, BIGINT, timestamps to the microsecond; finer ones don't fit and say so), VARBINARY becomes
//! base64. A NaN or an infinity in a top-level column makes its row a dead letter, as in JSON. Refused: a file without a NOT NULL column.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tidemill_engine::error::{Error, Result};

use super::lines::{Line, Lines};
use crate::json::Column;

/// Rows rendered at once.
const BATCH_ROWS: usize = 1024;
/// Timestamps in UTC with all the digits they have.
const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    /// The rows of a batch, a line each, and which of them have a number that JSON lacks.
    text: Vec<u8>,
    at: usize,
    row: usize,
    not_finite: Vec<Option<String>>,
}

impl ParquetRows {
    pub(super) fn open(path: &Path, columns: &[Column]) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(no_parquet)?;
        let schema = builder.schema().clone();
        let missing = |column: &&Column| !column.nullable && column.path.first().is_some_and(|name| schema.field_with_name(name).is_err());
        if let Some(column) = columns.iter().find(missing) {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(Error::refused(format!(
                "the file has no column {:?}, which is NOT NULL: it has {}",
                column.name,
                names.join(", ")
            )));
        }
        let wanted =
            schema.fields().iter().enumerate().filter(|(_, field)| columns.iter().any(|column| column.path.first() == Some(field.name())));
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index));
        let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(no_parquet)?;
        Ok(Self { reader, text: Vec::new(), at: 0, row: 0, not_finite: Vec::new() })
    }

    fn render(&mut self, batch: &RecordBatch) -> Result<()> {
        self.text.clear();
        (self.at, self.row) = (0, 0);
        self.not_finite = not_finite(batch);
        let mut writer = WriterBuilder::new()
            .with_timestamp_format(TIMESTAMP.into())
            .with_timestamp_tz_format(TIMESTAMP.into())
            .build::<_, LineDelimited>(&mut self.text);
        writer.write(&printable(batch)?)?;
        writer.finish()?;
        Ok(())
    }
}

/// How many rows a file has.
pub(super) fn count(path: &Path) -> Result<i64> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(no_parquet)?;
    Ok(builder.metadata().file_metadata().num_rows())
}

impl Lines for ParquetRows {
    fn next(&mut self) -> Result<Option<Line<'_>>> {
        while self.at >= self.text.len() {
            let Some(batch) = self.reader.next() else { return Ok(None) };
            self.render(&batch?)?;
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let raw = rest.get(..end).unwrap_or_default();
        self.at += end + 1;
        self.row += 1;
        if let Some(Some(column)) = self.not_finite.get(self.row - 1) {
            let detail = format!("column {column:?}: NaN and infinities are no values here");
            return Ok(Some(Line::Bad { raw, reason: "range", detail }));
        }
        Ok(Some(Line::Json { json: raw, raw }))
    }
}

fn no_parquet(error: parquet::errors::ParquetError) -> Error {
    Error::failed(format!("not readable as Parquet: {error}"))
}

/// The batch with binary columns as base64 and other zones' timestamps in UTC.
fn printable(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = match field.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                base64(cast(column, &DataType::Binary)?.as_binary())
            }
            DataType::Timestamp(unit, Some(_)) => cast(column, &DataType::Timestamp(*unit, None))?,
            _ => column.clone(),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn base64(column: &BinaryArray) -> ArrayRef {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = StringBuilder::new();
    for value in column {
        out.append_option(value.map(|bytes| {
            let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
            for chunk in bytes.chunks(3) {
                let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
                let word = at(0) << 16 | at(1) << 8 | at(2);
                for digit in 0..4 {
                    let value = (word >> (18 - 6 * digit)) & 63;
                    let digit = DIGITS.get(value as usize).copied().filter(|_| digit <= chunk.len());
                    text.push(char::from(digit.unwrap_or(b'=')));
                }
            }
            text
        }));
    }
    Arc::new(out.finish())
}

/// For each row the first column whose number JSON can't say.
fn not_finite(batch: &RecordBatch) -> Vec<Option<String>> {
    let mut found = vec![None; batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let mut mark = |row: usize, finite: bool| {
            if !finite
                && column.is_valid(row)
                && let Some(place) = found.get_mut(row)
            {
                place.get_or_insert_with(|| field.name().clone());
            }
        };
        if let Some(column) = column.as_primitive_opt::<Float64Type>() {
            column.values().iter().enumerate().for_each(|(row, value)| mark(row, value.is_finite()));
        } else if let Some(column) = column.as_primitive_opt::<Float32Type>() {
            column.values().iter().enumerate().for_each(|(row, value)| mark(row, value.is_finite()));
        }
    }
    found
}
