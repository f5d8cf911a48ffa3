//! A source's records once more, from where its run began to where the epoch stands: good rows with what judges them, and the places of bad ones.
//!
//! Always: the watermark and the guard against the future are computed here, from the times alone, as CONTRACT §3 words them; only the decoding is
//! the product's. A log that no longer holds what was read is refused: it says nothing about the tables.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use tidemill_engine::epoch::manifest::SourceEntry;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::source::{Limits, Position, ReadBatch, Source as Input};

use super::spool::{Spool, Writer};
use super::{CARRIED, Told, WATERMARK};
use crate::lower::Opener;
use crate::sources::Connections;
use crate::sql::{Source, hidden_fields};

/// Records and bytes of one poll.
const ROWS_MAX: usize = 8192;
const BYTES_MAX: usize = 8 << 20;
/// Between two polls that brought nothing.
const PAUSE: Duration = Duration::from_millis(2);

/// What was read.
pub struct Log {
    /// The good rows: declared columns, hidden ones, and what they carry.
    pub rows: Spool,
    /// The bad records' places.
    pub dead: Spool,
    /// Records, good and bad.
    pub records: u64,
    /// The bad ones.
    pub dead_records: u64,
}

/// The columns of a bad record's place.
pub fn dead_schema() -> SchemaRef {
    let int = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![int("partition"), int("offset"), Field::new("reason", DataType::Utf8, false)]))
}

/// Reads a source again. `index` is its number in the pipeline.
pub fn read(
    source: &Source,
    index: usize,
    entry: &SourceEntry,
    connections: &Connections,
    folder: &Path,
    told: &dyn Told,
    before: u64,
) -> Result<Log> {
    let columns: Vec<String> = source.columns.iter().map(|column| column.name.clone()).collect();
    let hidden: Vec<String> = hidden_fields().iter().map(|field| field.name().clone()).collect();
    let opened = connections.open(source, entry.reading, &columns, &hidden)?;
    let mut fields: Vec<_> = opened.schema.fields().iter().cloned().collect();
    fields.extend(CARRIED.iter().map(|name| Arc::new(Field::new(*name, DataType::Int64, *name == WATERMARK))));
    let schema = Arc::new(Schema::new(fields));
    let time = match &source.watermark {
        Some(watermark) => Some((opened.schema.index_of(&watermark.column)?, watermark.delay_us)),
        None => None,
    };
    let reading = Reading { source, index: index as i64, time, schema };
    let mut input = (opened.open)()?;
    input.assign(&entry.partitions.iter().map(|position| (position.partition, position.start)).collect::<Vec<_>>())?;
    let mut log = Log {
        rows: Spool { schema: Arc::clone(&reading.schema), files: Vec::new() },
        dead: Spool { schema: dead_schema(), files: Vec::new() },
        records: 0,
        dead_records: 0,
    };
    for position in &entry.partitions {
        let name = |kind: &str| format!("{}-{}-{}-{kind}.arrow", source.name, entry.reading, position.partition);
        let mut rows = Writer::create(folder, &name("rows"), &reading.schema)?;
        let mut dead = Writer::create(folder, &name("dead"), &log.dead.schema)?;
        let mut partition = Partition { place: place(entry, position), position, watermark: None, records: 0, dead: 0 };
        partition.read(&reading, input.as_mut(), &mut rows, &mut dead, &mut |records| told.read(before + log.records + records))?;
        log.records += partition.records;
        log.dead_records += partition.dead;
        log.rows.files.push(rows.finish()?);
        log.dead.files.push(dead.finish()?);
    }
    Ok(log)
}

fn place(entry: &SourceEntry, position: &Position) -> String {
    format!("{}, partition {}", entry.topic, position.partition)
}

struct Reading<'a> {
    source: &'a Source,
    index: i64,
    /// The event time's column, and the delay of the watermark behind it.
    time: Option<(usize, i64)>,
    schema: SchemaRef,
}

struct Partition<'a> {
    place: String,
    position: &'a Position,
    watermark: Option<i64>,
    records: u64,
    dead: u64,
}

impl Partition<'_> {
    fn read(
        &mut self,
        reading: &Reading<'_>,
        input: &mut dyn Input,
        rows: &mut Writer,
        dead: &mut Writer,
        told: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let end = self.position.next;
        let mut next = self.position.start;
        while next < end {
            let polled = input.poll(self.position.partition, Limits { rows_max: ROWS_MAX, bytes_max: BYTES_MAX, end })?;
            match polled.read {
                Some(read) => {
                    next = read.next;
                    self.records += read.records;
                    self.take(reading, read, rows, dead)?;
                    told(self.records);
                }
                None if polled.at_end => break,
                None => std::thread::sleep(PAUSE),
            }
        }
        if self.records != self.position.rows || next < end {
            return Err(gone(format!(
                "{}: {} records lie from offset {} to {end}, and the run read {}",
                self.place, self.records, self.position.start, self.position.rows
            )));
        }
        Ok(())
    }

    fn take(&mut self, reading: &Reading<'_>, read: ReadBatch, rows: &mut Writer, dead: &mut Writer) -> Result<()> {
        let count = read.batch.num_rows();
        let mut met = Vec::with_capacity(count);
        let mut kept = vec![true; count];
        let mut letters: Vec<(i64, String)> = read.dead.iter().map(|letter| (letter.offset, letter.reason.clone())).collect();
        let times = match reading.time {
            Some((column, _)) => read.batch.column(column).as_primitive_opt::<TimestampMicrosecondType>(),
            None => None,
        };
        for (row, (offset, kept)) in read.offsets.iter().zip(&mut kept).enumerate() {
            met.push(self.watermark);
            let (Some(times), Some((_, delay_us))) = (times.filter(|times| times.is_valid(row)), reading.time) else { continue };
            let time = times.value(row);
            let stamped = read.timestamps_ms.get(row).filter(|stamp| **stamp >= 0).map(|stamp| stamp.saturating_mul(1000));
            match (reading.source.options.max_future_us, stamped) {
                (Some(most), Some(stamped)) if time.saturating_sub(stamped) > most => {
                    *kept = false;
                    letters.push((*offset, "future".to_owned()));
                }
                _ => self.watermark = self.watermark.max(Some(time.saturating_sub(delay_us))),
            }
        }
        if count > 0 {
            let mut columns = read.batch.columns().to_vec();
            let constant = |value: i64| -> ArrayRef { Arc::new(Int64Array::from_value(value, count)) };
            columns.push(Arc::new(Int64Array::from(met)));
            columns.extend([constant(reading.index), constant(i64::from(self.position.partition))]);
            columns.push(Arc::new(Int64Array::from(read.offsets)));
            let all = RecordBatch::try_new(Arc::clone(&reading.schema), columns)?;
            rows.write(&if kept.contains(&false) { filter_record_batch(&all, &BooleanArray::from(kept))? } else { all })?;
        }
        if !letters.is_empty() {
            self.dead += letters.len() as u64;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_value(i64::from(self.position.partition), letters.len())),
                Arc::new(letters.iter().map(|(offset, _)| *offset).collect::<Int64Array>()),
                Arc::new(StringArray::from_iter_values(letters.iter().map(|(_, reason)| reason))),
            ];
            dead.write(&RecordBatch::try_new(dead_schema(), columns)?)?;
        }
        Ok(())
    }
}

/// What a log that has changed is told by.
pub fn gone(what: String) -> Error {
    Error::refused(format!(
        "{what}: the log no longer holds what the pipeline read (retention, compaction, or a topic or file made anew), so there is nothing to compare \
         the tables with"
    ))
}
