//! Which files hold given keys, and what those files hold besides.
//!
//! Always: a file whose row groups can't hold a key, by their Parquet statistics, is not read; of the others only key columns are read
//! until one key is found. Statistics are read once a file: files never change. Statistics of floats leave NaN out, so they prune nothing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, UInt64Array};
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{and, concat_batches, filter_record_batch, is_null, or, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use arrow::row::RowConverter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tidemill_engine::error::{Error, Result};

use super::net::converter;
use super::stored::to_stored;

/// Rows decoded at once.
const READ_ROWS: usize = 64 * 1024;

/// Keys that changed, in the types of the Delta table.
pub(super) struct Keys {
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    converter: RowConverter,
    set: HashSet<Box<[u8]>>,
}

impl Keys {
    /// Of batches of the key columns alone, cast to `schema`.
    pub(super) fn new(schema: SchemaRef, batches: &[RecordBatch]) -> Result<Self> {
        let stored = batches.iter().map(|batch| to_stored(batch, &schema)).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&schema, &stored)?;
        let indexes: Vec<usize> = (0..all.num_columns()).collect();
        let converter = converter(&all, &indexes)?;
        let rows = converter.convert_columns(all.columns())?;
        let set = rows.iter().map(|row| row.as_ref().into()).collect();
        Ok(Self { schema, columns: all.columns().to_vec(), converter, set })
    }

    /// Which rows have none of these keys.
    fn others(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let rows = self.converter.convert_columns(to_stored(batch, &self.schema)?.columns())?;
        Ok(rows.iter().map(|row| Some(!self.set.contains(row.as_ref()))).collect())
    }

    /// Can a row group hold one of these keys?
    fn within(&self, ranges: &FileRanges, group: usize) -> Result<bool> {
        let mut inside = BooleanArray::from(vec![true; self.set.len()]);
        for (keys, range) in self.columns.iter().zip(&ranges.columns) {
            let Some(range) = range else { continue };
            let (min, max) = (range.mins.slice(group, 1), range.maxes.slice(group, 1));
            if min.is_null(0) || max.is_null(0) {
                continue;
            }
            let within = and(&gt_eq(keys, &Scalar::new(min))?, &lt_eq(keys, &Scalar::new(max))?)?;
            let mut within = if within.null_count() > 0 { prep_null_mask_filter(&within) } else { within };
            if range.nulls.is_null(group) || range.nulls.value(group) > 0 {
                within = or(&within, &is_null(keys)?)?;
            }
            inside = and(&inside, &within)?;
        }
        Ok(inside.true_count() > 0)
    }
}

/// The bounds of key columns by row group; `None` where there are none to rely on.
struct FileRanges {
    groups: usize,
    columns: Vec<Option<ColumnRange>>,
}

struct ColumnRange {
    mins: ArrayRef,
    maxes: ArrayRef,
    nulls: UInt64Array,
}

/// The bounds of every file seen, by name.
#[derive(Default)]
pub(super) struct Ranges(HashMap<String, FileRanges>);

impl Ranges {
    /// Forgets files that are not part of the table any more.
    pub(super) fn keep(&mut self, live: &HashSet<String>) {
        self.0.retain(|name, _| live.contains(name));
    }

    /// Does the file hold any of the keys?
    pub(super) fn holds(&mut self, folder: &Path, name: &str, keys: &Keys) -> Result<bool> {
        let path = folder.join(name);
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), read_ranges(&path, &keys.schema)?);
        }
        let Some(ranges) = self.0.get(name) else { return Ok(false) };
        let mut groups = Vec::new();
        for group in 0..ranges.groups {
            if keys.within(ranges, group)? {
                groups.push(group);
            }
        }
        if groups.is_empty() {
            return Ok(false);
        }
        for batch in open(&path, Some(&keys.schema), Some(groups))? {
            if keys.others(&batch?)?.false_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The file's rows, less those with one of the keys.
pub(super) fn survivors<'a>(
    folder: &Path,
    name: &str,
    keys: Option<&'a Keys>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'a>> {
    let batches = open(&folder.join(name), None, None)?;
    Ok(batches.map(move |batch| {
        let batch = batch?;
        match keys {
            Some(keys) => Ok(filter_record_batch(&batch, &keys.others(&batch)?)?),
            None => Ok(batch),
        }
    }))
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let wrong = |error: &dyn std::fmt::Display| Error::external(format!("reading {}: {error}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, ArrowReaderOptions::new()).map_err(|error| wrong(&error))
}

fn open(path: &Path, columns: Option<&SchemaRef>, groups: Option<Vec<usize>>) -> Result<ParquetRecordBatchReader> {
    let mut builder = builder(path)?.with_batch_size(READ_ROWS);
    if let Some(schema) = columns {
        let roots =
            builder.schema().fields().iter().enumerate().filter(|(_, field)| schema.index_of(field.name()).is_ok()).map(|(index, _)| index);
        let roots: Vec<usize> = roots.collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        builder = builder.with_projection(mask);
    }
    if let Some(groups) = groups {
        builder = builder.with_row_groups(groups);
    }
    builder.build().map_err(|error| Error::external(format!("reading {}: {error}", path.display())))
}

fn read_ranges(path: &Path, schema: &SchemaRef) -> Result<FileRanges> {
    let builder = builder(path)?;
    let metadata = builder.metadata();
    let columns = schema.fields().iter().map(|field| {
        if field.data_type().is_floating() || field.data_type().is_nested() {
            return None;
        }
        let converter = StatisticsConverter::try_new(field.name(), builder.schema(), builder.parquet_schema()).ok()?;
        let converter = converter.with_missing_null_counts_as_zero(false);
        converter.parquet_column_index()?;
        let cast = |array: ArrayRef| arrow::compute::cast(&array, field.data_type()).ok();
        let mins = cast(converter.row_group_mins(metadata.row_groups()).ok()?)?;
        let maxes = cast(converter.row_group_maxes(metadata.row_groups()).ok()?)?;
        Some(ColumnRange { mins, maxes, nulls: converter.row_group_null_counts(metadata.row_groups()).ok()? })
    });
    Ok(FileRanges { groups: metadata.num_row_groups(), columns: columns.collect() })
}
