//! The good records of a file source, with what judges them: each row's place and its partition's watermark before it.
//!
//! Always: the watermark is computed here, from the times alone, as CONTRACT §3 words it; only the decoding is the product's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use tidemill_engine::source::Limits;
use tidemill_pipelines::lower::Opener;
use tidemill_pipelines::sources::Connections;
use tidemill_pipelines::sql::{HIDDEN, Source};

/// Microseconds; NULL before the partition's first row.
pub const WATERMARK: &str = "__watermark";
pub const PARTITION: &str = "__partition";
pub const OFFSET: &str = "__offset";
/// What every row carries through its plan.
pub const CARRIED: [&str; 3] = [WATERMARK, PARTITION, OFFSET];

/// Reads a source to its end.
pub fn read(source: &Source) -> RecordBatch {
    let connections = Connections::new(None, Vec::new(), "oracle", 1);
    let columns: Vec<String> = source.columns.iter().map(|column| column.name.clone()).collect();
    let hidden: Vec<String> = HIDDEN.iter().filter(|name| **name != "_headers").map(|name| (*name).to_owned()).collect();
    let opened = connections.open(source, &columns, &hidden).expect("opens");
    let partitions = connections.positions(source, None, &mut |_| {}).expect("is there").partitions;
    let mut reader = (opened.open)().expect("opens");
    let starts: Vec<(i32, i64)> = partitions.iter().map(|position| (position.partition, 0)).collect();
    reader.assign(&starts).expect("assigned");
    let delay_us = source.watermark.as_ref().map(|watermark| watermark.delay_us);
    let time = source.watermark.as_ref().and_then(|watermark| opened.schema.index_of(&watermark.column).ok());
    let mut fields: Vec<_> = opened.schema.fields().iter().cloned().collect();
    fields.extend(CARRIED.iter().map(|name| Arc::new(Field::new(*name, DataType::Int64, *name == WATERMARK))));
    let schema = Arc::new(Schema::new(fields));
    let mut batches = Vec::new();
    for (partition, _) in starts {
        let mut watermark: Option<i64> = None;
        loop {
            let polled = reader.poll(partition, Limits { rows_max: 1000, bytes_max: 1 << 20, end: i64::MAX }).expect("reads");
            if let Some(read) = polled.read {
                let mut before = Vec::with_capacity(read.offsets.len());
                for row in 0..read.batch.num_rows() {
                    before.push(watermark);
                    if let (Some(time), Some(delay_us)) = (time, delay_us) {
                        let times = read.batch.column(time).as_primitive::<TimestampMicrosecondType>();
                        if times.is_valid(row) {
                            watermark = watermark.max(Some(times.value(row) - delay_us));
                        }
                    }
                }
                let mut columns = read.batch.columns().to_vec();
                let rows = read.offsets.len();
                let carried: [ArrayRef; 3] = [
                    Arc::new(Int64Array::from(before)),
                    Arc::new(Int64Array::from_value(i64::from(partition), rows)),
                    Arc::new(Int64Array::from(read.offsets)),
                ];
                columns.extend(carried);
                batches.push(RecordBatch::try_new(Arc::clone(&schema), columns).expect("one length"));
            }
            if polled.at_end {
                break;
            }
        }
    }
    concat_batches(&schema, &batches).expect("one schema")
}

/// The rows that are not among `left_out` (partition and offset).
pub fn without(rows: &RecordBatch, left_out: &[(i64, i64)]) -> RecordBatch {
    let ints = |name: &str| rows.column_by_name(name).expect("carried").as_primitive::<arrow::datatypes::Int64Type>().clone();
    let (partitions, offsets) = (ints(PARTITION), ints(OFFSET));
    let kept = (0..rows.num_rows()).map(|row| !left_out.contains(&(partitions.value(row), offsets.value(row))));
    filter_record_batch(rows, &kept.collect()).expect("as long as its mask")
}
