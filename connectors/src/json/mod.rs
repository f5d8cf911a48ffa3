//! JSON records into Arrow columns, in one pass and with every byte checked.
//!
//! [`JsonDecoder::decode`] takes one payload. It appends one row, or leaves the columns as they were and says why the payload is a dead
//! letter. A record is good or bad by its bytes and the declared columns alone: a column that no query reads is checked like the
//! others and only not built. Of a duplicate key the last counts. No allocation per record. Not here: where payloads come from, dead
//! letters, event time. The way out is `encode`.
//!
//! The pass is `walk`, over the tree of keys in `plan`. It is fast because of `bets` (records repeat the keys of the one before),
//! `scan` (many bytes at a time) and `columns` (rows go straight into what becomes the arrays).

mod bad;
mod base64;
mod bets;
mod columns;
pub mod encode;
mod number;
mod plan;
mod scan;
mod skip;
mod time;
mod walk;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_generate;
#[cfg(test)]
mod tests_table;

pub use bad::{Bad, Reason};
pub use plan::TIMESTAMP_DIGITS_KEY;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bad::Fault;
use bets::Bets;
use columns::ColumnBuffer;
use plan::Plan;
use std::sync::Arc;
use tidemill_engine::error::{Error, Result};
use time::LastDate;
use walk::{Slot, State, Walk};

/// The arrow type of VARCHAR.
pub const TEXT_TYPE: DataType = DataType::Utf8View;

/// The longest payload: positions are kept in 32 bits.
const PAYLOAD_BYTES_MAX: usize = i32::MAX as usize;
const TIMESTAMP_DIGITS_MAX: u32 = 6;

/// What one step of a JSON number is where a TIMESTAMP is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeUnitOption {
    /// Seconds.
    S,
    /// Milliseconds.
    #[default]
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// One declared column.
#[derive(Debug, Clone)]
pub struct Column {
    /// The SQL name, which the built column and messages carry.
    pub name: String,
    /// The object keys that lead to the value from the top of the record, at least one.
    pub path: Vec<String>,
    /// One of: Boolean, Int16, Int32, Int64, Float32, Float64, Decimal128, [`TEXT_TYPE`], Binary, Date32, Timestamp(Microsecond, None),
    /// and List and Struct of these with nullable insides.
    pub data_type: DataType,
    /// Null and missing are NULL, not bad.
    pub nullable: bool,
    /// How numbers become TIMESTAMPs.
    pub unit: TimeUnitOption,
    /// A query reads the column, so it is built; otherwise its values are only checked.
    pub build: bool,
}

/// How strict a source is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A string that spells a number or a boolean counts as one, and a number counts as the string that spells it.
    pub coerce: bool,
    /// A field that no column names makes the record bad.
    pub reject_unknown: bool,
    /// How many objects and arrays may be open at once, the record itself included: 1 to 128.
    pub depth_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { coerce: false, reject_unknown: false, depth_max: skip::DEPTH_MAX }
    }
}

/// Decodes the records of one source. It learns the order of their keys, which changes its speed and nothing else.
#[derive(Debug)]
pub struct JsonDecoder {
    columns: Vec<Column>,
    options: Options,
    digits: Vec<u32>,
    plan: Plan,
    schema: SchemaRef,
    slots: Vec<Slot>,
    bets: Bets,
    last_date: LastDate,
    scratch: Vec<u8>,
    buffers: Vec<ColumnBuffer>,
    rows: usize,
}

impl JsonDecoder {
    /// A decoder for `columns`, TIMESTAMPs having six digits of a second.
    ///
    /// # Errors
    /// Refused: a type JSON is not read into, an empty path, a depth outside 1 to 128.
    pub fn new(columns: Vec<Column>, options: Options) -> Result<Self> {
        let digits = vec![TIMESTAMP_DIGITS_MAX; columns.len()];
        Self::with_digits(columns, options, digits)
    }

    /// The same decoder with `digits` (0 to 6) digits of a second in the TIMESTAMPs of column number `column`. Call it before the first
    /// record. Inside STRUCTs and lists, [`TIMESTAMP_DIGITS_KEY`] in the metadata of a field says it for that field.
    ///
    /// # Errors
    /// Refused: no such column, more than six digits.
    pub fn with_timestamp_digits(mut self, column: usize, digits: u8) -> Result<Self> {
        match self.digits.get_mut(column) {
            Some(place) if u32::from(digits) <= TIMESTAMP_DIGITS_MAX => *place = u32::from(digits),
            _ => return Err(Error::refused(format!("column number {column} can't have {digits} digits of a second"))),
        }
        Self::with_digits(self.columns, self.options, self.digits)
    }

    fn with_digits(columns: Vec<Column>, options: Options, digits: Vec<u32>) -> Result<Self> {
        if !(1..=skip::DEPTH_MAX).contains(&options.depth_max) {
            return Err(Error::refused(format!("JSON may be nested 1 to {} deep, not {}", skip::DEPTH_MAX, options.depth_max)));
        }
        let plan = Plan::new(&columns, &digits)?;
        let mut slots = vec![Slot::MISSING; plan.uses.len()];
        for (column, slot) in columns.iter().zip(&plan.columns) {
            if let (false, Some(slot)) = (column.nullable, slots.get_mut(*slot)) {
                slot.least = State::Good;
            }
        }
        let built = || columns.iter().zip(&plan.columns).filter(|(column, _)| column.build);
        let fields: Vec<Field> = built().map(|(column, _)| Field::new(&column.name, column.data_type.clone(), column.nullable)).collect();
        let buffers = built().map(|(column, slot)| ColumnBuffer::new(&plan, *slot, &column.data_type)).collect();
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            slots,
            bets: Bets::new(&plan),
            last_date: LastDate::default(),
            scratch: Vec::new(),
            rows: 0,
            columns,
            options,
            digits,
            plan,
            buffers,
        })
    }

    /// Appends one record, or leaves the columns untouched and says why it is a dead letter.
    ///
    /// # Errors
    /// What is wrong with the payload. The reason and the offset depend on the payload and the declared columns alone.
    pub fn decode(&mut self, payload: &[u8]) -> std::result::Result<(), Bad> {
        check_bytes(payload)?;
        let mut walk = Walk {
            bytes: payload,
            plan: &self.plan,
            options: self.options,
            slots: &mut self.slots,
            bets: &mut self.bets,
            last_date: &mut self.last_date,
            scratch: &mut self.scratch,
            unknown: None,
        };
        walk.record()?;
        for buffer in &mut self.buffers {
            buffer.append(&mut walk);
        }
        self.rows += 1;
        Ok(())
    }

    /// Rows appended since the last [`JsonDecoder::finish`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The schema of what [`JsonDecoder::finish`] returns: the columns with `build`, in declared order.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The rows appended since the last call.
    ///
    /// # Errors
    /// The rows hold more than 2 GiB of one VARBINARY or more than 2^31 elements of one list column.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.buffers.iter_mut().map(ColumnBuffer::finish).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        Ok(RecordBatch::try_new_with_options(self.schema(), arrays, &options)?)
    }
}

/// Checks what needs no grammar: the length, the start, UTF-8.
#[inline]
fn check_bytes(payload: &[u8]) -> std::result::Result<(), Bad> {
    let fault = |reason, offset| Err(bad::of_text(payload, Fault { reason, offset }));
    if payload.is_empty() {
        return fault(Reason::Empty, 0);
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        return fault(Reason::Size, PAYLOAD_BYTES_MAX);
    }
    if scan::ascii(payload) {
        return Ok(());
    }
    if payload.starts_with(b"\xef\xbb\xbf") {
        return fault(Reason::ByteOrderMark, 0);
    }
    match simdutf8::compat::from_utf8(payload) {
        Ok(_) => Ok(()),
        Err(error) => fault(Reason::InvalidUtf8, error.valid_up_to()),
    }
}
