//! The tables every pipeline has without asking: what was set aside, the accounting and the epochs themselves.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::account::Counts;
use crate::epoch::manifest::{Manifest, TableEntry};
use crate::error::Result;
use crate::letter::{dead_letter_schema, late_event_schema};

/// The folder of dead letters.
pub const DEAD_LETTERS: &str = "tables/dead_letters";
/// The folder of late events.
pub const LATE_EVENTS: &str = "tables/late_events";
/// The folder of the accounting.
pub const ACCOUNTING: &str = "internal/accounting";
/// The folder of the epochs.
pub const EPOCHS: &str = "internal/epochs";

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn count(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

fn at(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), nullable)
}

/// The columns of `tidemill.accounting`.
pub fn accounting_schema() -> SchemaRef {
    let counts = ["epoch", "rows_in", "dead", "duplicate", "filtered", "late", "out", "in_state"].map(count);
    let mut fields = vec![text("pipeline"), text("source"), text("output")];
    fields.extend(counts);
    Arc::new(Schema::new(fields))
}

/// The columns of `tidemill.epochs`.
pub fn epochs_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("pipeline"),
        count("epoch"),
        at("committed_at", false),
        count("tick"),
        count("rows_in"),
        count("rows_out"),
        at("watermark", true),
        text("incarnation"),
    ]))
}

/// The entries of these tables in a new manifest.
pub fn entries() -> Vec<TableEntry> {
    let entry = |name: &str, folder: &str, schema: SchemaRef| TableEntry {
        name: name.to_owned(),
        folder: folder.to_owned(),
        visible: schema.fields().len(),
        schema: schema.as_ref().clone(),
        key: Vec::new(),
        version: None,
        log_version: None,
        covered: 0,
        hot: Vec::new(),
    };
    vec![
        entry("dead_letters", DEAD_LETTERS, dead_letter_schema()),
        entry("late_events", LATE_EVENTS, late_event_schema()),
        entry("accounting", ACCOUNTING, accounting_schema()),
        entry("epochs", EPOCHS, epochs_schema()),
    ]
}

/// This epoch's row of every account: its own counts, and the level after it.
pub fn accounting_batch(manifest: &Manifest, counts: &[Counts]) -> Result<RecordBatch> {
    let rows: Vec<_> = manifest.accounts.iter().zip(counts).collect();
    let column = |f: fn(&Counts) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, counts)| f(counts)))) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| manifest.pipeline.as_str()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(account, _)| account.source.as_str()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(account, _)| account.output.as_str()))),
        Arc::new(Int64Array::from_value(manifest.epoch as i64, rows.len())),
        column(|counts| counts.rows_in),
        column(|counts| counts.dead),
        column(|counts| counts.duplicate),
        column(|counts| counts.filtered),
        column(|counts| counts.late),
        column(|counts| counts.out),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(account, _)| account.counts.held))),
    ];
    Ok(RecordBatch::try_new(accounting_schema(), columns)?)
}

/// This epoch's row of `tidemill.epochs`.
pub fn epoch_batch(manifest: &Manifest, counts: &[Counts], tick: u64, rows_out: i64, now_ms: i64) -> Result<RecordBatch> {
    // Every output of a reading counts the same records in: one account a reading is enough.
    let mut seen: Vec<(&str, u32)> = Vec::new();
    let mut rows_in = 0;
    for (account, counts) in manifest.accounts.iter().zip(counts) {
        let reading = (account.source.as_str(), account.reading);
        if !seen.contains(&reading) {
            seen.push(reading);
            rows_in += counts.rows_in;
        }
    }
    let one = |value: i64| -> ArrayRef { Arc::new(Int64Array::from_value(value, 1)) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values([&manifest.pipeline])),
        one(manifest.epoch as i64),
        Arc::new(TimestampMicrosecondArray::from_value(now_ms.saturating_mul(1000), 1)),
        one(tick as i64),
        one(rows_in),
        one(rows_out),
        Arc::new(TimestampMicrosecondArray::from_iter([manifest.watermarks.iter().copied().flatten().min().filter(|at| *at != i64::MIN)])),
        Arc::new(StringArray::from_iter_values([&manifest.incarnation])),
    ];
    Ok(RecordBatch::try_new(epochs_schema(), columns)?)
}
