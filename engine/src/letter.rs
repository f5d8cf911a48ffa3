//! Records that were set aside: dead letters and late events, with their place and their whole bytes.
//!
//! Always: nothing here is ever dropped or cut; both become rows of the tables of CONTRACT §6.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::Result;
use crate::rows::SourceId;
use crate::time::Micros;

/// A record that could not become a row (of a source, or of one output).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The source it came from.
    pub source: SourceId,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
    /// A word to group by.
    pub reason: String,
    /// What exactly, with column and byte offset.
    pub detail: String,
    /// The whole key.
    pub key: Option<Vec<u8>>,
    /// The whole payload.
    pub payload: Option<Vec<u8>>,
}

/// A row that came behind a window of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateEvent {
    /// The source it came from.
    pub source: SourceId,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its event time.
    pub event_time: Micros,
    /// The watermark of its partition at its offset.
    pub watermark: Micros,
    /// The window it missed.
    pub window_start: Option<Micros>,
    /// The end of that window.
    pub window_end: Option<Micros>,
    /// The whole payload.
    pub payload: Option<Vec<u8>>,
}

/// What a letter's table calls a source: its name and its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceNames {
    /// The source's SQL name.
    pub source: String,
    /// The topic, or the path of a file.
    pub topic: String,
}

fn timestamp(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), nullable)
}

/// The columns of `dead_letters`.
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("output", DataType::Utf8, true),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        timestamp("timestamp", true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
        Field::new("key", DataType::Binary, true),
        Field::new("payload", DataType::Binary, true),
    ]))
}

/// The columns of `late_events`.
pub fn late_event_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("output", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        timestamp("event_time", false),
        timestamp("watermark", false),
        timestamp("window_start", true),
        timestamp("window_end", true),
        Field::new("payload", DataType::Binary, true),
    ]))
}

/// Dead letters as rows; `output` is `None` for records that no output could read.
pub fn dead_letter_batch(letters: &[(Option<&str>, &DeadLetter)], names: &[SourceNames]) -> Result<RecordBatch> {
    let (mut source, mut output, mut topic) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut partition, mut offset, mut at) = (Int32Builder::new(), Int64Builder::new(), TimestampMicrosecondBuilder::new());
    let (mut reason, mut detail) = (StringBuilder::new(), StringBuilder::new());
    let (mut key, mut payload) = (BinaryBuilder::new(), BinaryBuilder::new());
    for (of, letter) in letters {
        let name = names.get(letter.source);
        source.append_value(name.map_or("", |name| &name.source));
        topic.append_value(name.map_or("", |name| &name.topic));
        output.append_option(*of);
        partition.append_value(letter.partition);
        offset.append_value(letter.offset);
        at.append_option(letter.timestamp_ms.map(|ms| ms.saturating_mul(1000)));
        reason.append_value(&letter.reason);
        detail.append_value(&letter.detail);
        key.append_option(letter.key.as_deref());
        payload.append_option(letter.payload.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(source.finish()),
        Arc::new(output.finish()),
        Arc::new(topic.finish()),
        Arc::new(partition.finish()),
        Arc::new(offset.finish()),
        Arc::new(at.finish()),
        Arc::new(reason.finish()),
        Arc::new(detail.finish()),
        Arc::new(key.finish()),
        Arc::new(payload.finish()),
    ];
    Ok(RecordBatch::try_new(dead_letter_schema(), columns)?)
}

/// Late events as rows.
pub fn late_event_batch(events: &[(&str, &LateEvent)], names: &[SourceNames]) -> Result<RecordBatch> {
    let (mut source, mut output, mut topic) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut partition, mut offset) = (Int32Builder::new(), Int64Builder::new());
    let [mut event_time, mut watermark, mut start, mut end] = std::array::from_fn(|_| TimestampMicrosecondBuilder::new());
    let mut payload = BinaryBuilder::new();
    for (of, event) in events {
        let name = names.get(event.source);
        output.append_value(of);
        source.append_value(name.map_or("", |name| &name.source));
        topic.append_value(name.map_or("", |name| &name.topic));
        partition.append_value(event.partition);
        offset.append_value(event.offset);
        event_time.append_value(event.event_time);
        watermark.append_value(event.watermark);
        start.append_option(event.window_start);
        end.append_option(event.window_end);
        payload.append_option(event.payload.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(output.finish()),
        Arc::new(source.finish()),
        Arc::new(topic.finish()),
        Arc::new(partition.finish()),
        Arc::new(offset.finish()),
        Arc::new(event_time.finish()),
        Arc::new(watermark.finish()),
        Arc::new(start.finish()),
        Arc::new(end.finish()),
        Arc::new(payload.finish()),
    ];
    Ok(RecordBatch::try_new(late_event_schema(), columns)?)
}
