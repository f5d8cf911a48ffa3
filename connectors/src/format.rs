//! Records into batches: JSON payloads into the declared columns, with the hidden columns beside them and bad records set aside.
//!
//! Always: a record becomes one row or one dead letter, judged by the declared columns alone; rows keep offset order. The schema is the
//! columns that are built, in declared order, then the hidden ones that are wanted, and of a changelog whether the row deletes. Not here: where the bytes come from (kafka, file and
//! generator push them).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::letter::DeadLetter;
use tidemill_engine::rows::{RawRecord, RawRecords};
use tidemill_engine::source::ReadBatch;

use crate::json::{Column, JsonDecoder, Options};
use crate::tombstone::{Changelog, Tombstones};

/// What a record carries beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// `_topic`: the topic's name.
    Topic,
    /// `_partition`: its number.
    Partition,
    /// `_offset`: the place in the partition.
    Offset,
    /// `_timestamp`: the record's own time; NULL when it has none.
    Timestamp,
    /// `_key`: the record's key; NULL for null.
    Key,
}

impl Hidden {
    /// All of them, in the order in which `SELECT` would list them.
    pub const ALL: [Self; 5] = [Self::Topic, Self::Partition, Self::Offset, Self::Timestamp, Self::Key];

    /// Its SQL name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "_topic",
            Self::Partition => "_partition",
            Self::Offset => "_offset",
            Self::Timestamp => "_timestamp",
            Self::Key => "_key",
        }
    }

    /// Its column.
    pub fn field(self) -> Field {
        let (data_type, nullable) = match self {
            Self::Topic => (DataType::Utf8View, false),
            Self::Partition => (DataType::Int32, false),
            Self::Offset => (DataType::Int64, false),
            Self::Timestamp => (DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Self::Key => (DataType::Binary, true),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

/// How the records of a source are read.
#[derive(Debug, Clone, Default)]
pub struct DecodeConfig {
    /// All declared columns; those with `build` become columns.
    pub columns: Vec<Column>,
    /// Digits of a second (0 to 6) of the TIMESTAMP columns that don't have six: (index in `columns`, digits).
    pub timestamp_digits: Vec<(usize, u8)>,
    /// How strict.
    pub options: Options,
    /// The hidden columns that are wanted.
    pub hidden: Vec<Hidden>,
    /// A record without a payload deletes a row; the batches get a last column that says so.
    pub changelog: Option<Changelog>,
}

/// Turns the records of one source into batches, one partition at a time: `begin`, `push` …, `finish`.
pub struct RecordDecoder {
    json: JsonDecoder,
    tombstones: Option<Tombstones>,
    hidden: Vec<Hidden>,
    schema: SchemaRef,
    topic: String,
    partition: i32,
    offsets: Vec<i64>,
    timestamps_ms: Vec<i64>,
    keys: Option<BinaryBuilder>,
    dead: Vec<DeadLetter>,
    records: u64,
    bytes: u64,
}

/// In `timestamps_ms`: the record has none.
const NO_TIMESTAMP: i64 = i64::MIN;

impl RecordDecoder {
    /// A decoder for `topic` (or what stands for it). Refused: a type JSON is not read into.
    pub fn new(topic: &str, config: &DecodeConfig) -> Result<Self> {
        let mut json = JsonDecoder::new(config.columns.clone(), config.options)?;
        for (column, digits) in &config.timestamp_digits {
            json = json.with_timestamp_digits(*column, *digits)?;
        }
        let built = json.schema();
        let hidden = config.hidden.clone();
        let fields: Vec<_> = built.fields().iter().cloned().chain(hidden.iter().map(|each| Arc::new(each.field()))).collect();
        let keys = hidden.contains(&Hidden::Key).then(BinaryBuilder::new);
        let tombstones = |changelog| Tombstones::new(&config.columns, &config.timestamp_digits, changelog, config.options);
        let tombstones = config.changelog.as_ref().map(tombstones).transpose()?;
        let schema = Schema::new(fields);
        Ok(Self {
            json,
            hidden,
            schema: Arc::new(if tombstones.is_some() { Tombstones::schema(&schema) } else { schema }),
            tombstones,
            topic: topic.to_string(),
            partition: 0,
            offsets: Vec::new(),
            timestamps_ms: Vec::new(),
            keys,
            dead: Vec::new(),
            records: 0,
            bytes: 0,
        })
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Records pushed since the last `finish`, good and bad.
    pub fn records(&self) -> usize {
        self.records as usize
    }

    /// Bytes of their payloads.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The following records are of `partition`.
    pub fn begin(&mut self, partition: i32) {
        self.partition = partition;
    }

    /// Takes the next record, whose offset is above those before.
    #[inline]
    pub fn push(&mut self, offset: i64, record: RawRecord<'_>) {
        match record.payload {
            Some(payload) => self.push_as(offset, record, payload),
            None => self.push_null(offset, record),
        }
    }

    /// A record without a payload: of a changelog it deletes its key, else it is no record.
    #[cold]
    fn push_null(&mut self, offset: i64, record: RawRecord<'_>) {
        let Some(tombstones) = &mut self.tombstones else {
            return self.push_bad(offset, record, "null_payload", "the payload is null".into());
        };
        match tombstones.delete(record.key, record.timestamp_ms) {
            Ok(()) => self.accept(offset, record),
            Err(detail) => self.push_bad(offset, record, "key", detail),
        }
    }

    /// Takes the next record, whose payload says what `json` says in another format.
    #[inline]
    pub fn push_as(&mut self, offset: i64, record: RawRecord<'_>, json: &[u8]) {
        if let Err(bad) = self.json.decode(json) {
            return self.push_bad(offset, record, bad.reason.as_str(), bad.detail);
        }
        if let Some(tombstones) = &mut self.tombstones {
            tombstones.upsert();
        }
        self.accept(offset, record);
    }

    #[inline]
    fn accept(&mut self, offset: i64, record: RawRecord<'_>) {
        self.count(record);
        self.offsets.push(offset);
        self.timestamps_ms.push(record.timestamp_ms.unwrap_or(NO_TIMESTAMP));
        if let Some(keys) = &mut self.keys {
            keys.append_option(record.key);
        }
    }

    #[inline]
    fn count(&mut self, record: RawRecord<'_>) {
        self.records += 1;
        self.bytes += record.payload.map_or(0, <[u8]>::len) as u64;
    }

    /// Takes the next record as a dead letter.
    #[cold]
    pub fn push_bad(&mut self, offset: i64, record: RawRecord<'_>, reason: &str, detail: String) {
        self.count(record);
        self.dead.push(DeadLetter {
            source: 0,
            partition: self.partition,
            offset,
            timestamp_ms: record.timestamp_ms,
            reason: reason.to_string(),
            detail,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
        });
    }

    /// The records since the last call; reading goes on at `next`, and `raw` serves their bytes.
    pub fn finish(&mut self, next: i64, raw: Arc<dyn RawRecords>) -> Result<ReadBatch> {
        let rows = self.json.finish()?;
        let mut columns = match &mut self.tombstones {
            Some(tombstones) => tombstones.finish(&rows)?,
            None => rows.columns().to_vec(),
        };
        for hidden in &self.hidden {
            columns.push(match hidden {
                Hidden::Topic => repeated(&self.topic, self.offsets.len())?,
                Hidden::Partition => Arc::new(Int32Array::from_value(self.partition, self.offsets.len())),
                Hidden::Offset => Arc::new(Int64Array::from(self.offsets.clone())),
                Hidden::Timestamp => Arc::new(micros(&self.timestamps_ms)),
                Hidden::Key => Arc::new(self.keys.as_mut().map_or_else(|| BinaryArray::new_null(0), BinaryBuilder::finish)),
            });
        }
        if let Some(tombstones) = &mut self.tombstones {
            columns.push(Arc::new(tombstones.marks()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.offsets.len()));
        let batch = RecordBatch::try_new_with_options(self.schema(), columns, &options)?;
        let mut timestamps_ms = std::mem::take(&mut self.timestamps_ms);
        if timestamps_ms.contains(&NO_TIMESTAMP) {
            timestamps_ms.clear();
        }
        Ok(ReadBatch {
            batch,
            offsets: std::mem::take(&mut self.offsets),
            timestamps_ms,
            dead: std::mem::take(&mut self.dead),
            next,
            records: std::mem::take(&mut self.records),
            bytes: std::mem::take(&mut self.bytes),
            raw,
        })
    }
}

/// One text in every row: the views all point at the same bytes.
fn repeated(text: &str, rows: usize) -> Result<ArrayRef> {
    let one = StringViewArray::from(vec![text]);
    let view = one.views().first().copied().ok_or_else(|| Error::failed("a view array without its view"))?;
    let views = Buffer::from_vec(vec![view; rows]);
    Ok(Arc::new(StringViewArray::try_new(views.into(), one.data_buffers().to_vec(), None)?))
}

fn micros(timestamps_ms: &[i64]) -> TimestampMicrosecondArray {
    timestamps_ms.iter().map(|ms| (*ms != NO_TIMESTAMP).then(|| ms.saturating_mul(1000))).collect()
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
