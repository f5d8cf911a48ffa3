//! Deletions of a changelog: records with a null payload, whose row is read from the record's key.
//!
//! Always: a key is good or bad by its bytes and the declared key columns alone; a deletion becomes a row with its key columns, its event
//! time (the record's timestamp) and NULL everywhere else, marked in the batch's last column. Rows keep offset order. Called by `format`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_engine::error::{Error, Result};

use crate::json::{Column, JsonDecoder, Options};

/// The last column of a changelog's batches: the row deletes its key.
pub const DELETED_COLUMN: &str = "_tidemill_deleted";

/// How the key of a deletion is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyFormat {
    /// The value of the one key column as plain text.
    #[default]
    Text,
    /// An object with the key columns, or the one key column's value.
    Json,
}

/// What makes a source a changelog.
#[derive(Debug, Clone, Default)]
pub struct Changelog {
    /// The key: indexes of declared columns, and the field of each in a key that is an object.
    pub key: Vec<(usize, String)>,
    /// How record keys are read.
    pub format: KeyFormat,
    /// The declared column that holds the event time, which a deletion takes from its record.
    pub time: Option<usize>,
}

/// Reads the deletions of one source, beside the decoder of its payloads.
#[derive(Debug)]
pub(crate) struct Tombstones {
    keys: JsonDecoder,
    format: KeyFormat,
    /// The field that a key without fields is put under.
    field: String,
    time: Option<String>,
    /// Whether each row of the batch deletes.
    deleted: Vec<bool>,
    times_us: Vec<Option<i64>>,
    scratch: Vec<u8>,
}

impl Tombstones {
    /// A reader of the keys of `changelog`, whose columns are among `columns`.
    pub(crate) fn new(columns: &[Column], digits: &[(usize, u8)], changelog: &Changelog, options: Options) -> Result<Self> {
        let name = |index: usize| columns.get(index).map(|column| column.name.clone());
        let wrong = || Error::failed("a changelog was planned over a column that its source does not have");
        let mut key = Vec::with_capacity(changelog.key.len());
        for (index, field) in &changelog.key {
            let column = columns.get(*index).cloned().ok_or_else(wrong)?;
            key.push(Column { path: vec![field.clone()], nullable: false, ..column });
        }
        // Plain text has no types: what spells a number is one.
        let coerce = options.coerce || changelog.format == KeyFormat::Text;
        let mut keys = JsonDecoder::new(key, Options { coerce, reject_unknown: false, ..options })?;
        for (place, (index, _)) in changelog.key.iter().enumerate() {
            if let Some((_, digits)) = digits.iter().find(|(column, _)| column == index) {
                keys = keys.with_timestamp_digits(place, *digits)?;
            }
        }
        let field = changelog.key.first().map(|(_, field)| field.clone()).unwrap_or_default();
        Ok(Self {
            keys,
            format: changelog.format,
            field: serde_json::to_string(&field)?,
            time: changelog.time.and_then(name),
            deleted: Vec::new(),
            times_us: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// The schema of batches whose upserts have `upserts`.
    pub(crate) fn schema(upserts: &Schema) -> Schema {
        let mut fields: Vec<Field> = upserts.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        fields.push(Field::new(DELETED_COLUMN, DataType::Boolean, false));
        Schema::new(fields)
    }

    /// The next row is an upsert.
    #[inline]
    pub(crate) fn upsert(&mut self) {
        self.deleted.push(false);
    }

    /// The next row deletes `key`; or why the key can't be read.
    pub(crate) fn delete(&mut self, key: Option<&[u8]>, timestamp_ms: Option<i64>) -> std::result::Result<(), String> {
        let unreadable = |what: String| format!("the payload is null (a deletion), but the record's key can't be read: {what}");
        let Some(key) = key else {
            return Err(unreadable("it is null".to_owned()));
        };
        self.scratch.clear();
        match self.format {
            KeyFormat::Text => {
                let text = std::str::from_utf8(key).map_err(|_| unreadable("it is no UTF-8 text".to_owned()))?;
                let text = serde_json::to_string(text).map_err(|error| unreadable(error.to_string()))?;
                self.scratch.extend_from_slice(format!("{{{}:{text}}}", self.field).as_bytes());
            }
            KeyFormat::Json => {
                serde_json::from_slice::<serde::de::IgnoredAny>(key)
                    .map_err(|error| unreadable(format!("it is no JSON value ({error})")))?;
                if key.trim_ascii_start().starts_with(b"{") {
                    self.scratch.extend_from_slice(key);
                } else {
                    self.scratch.extend_from_slice(format!("{{{}:", self.field).as_bytes());
                    self.scratch.extend_from_slice(key);
                    self.scratch.push(b'}');
                }
            }
        }
        self.keys.decode(&self.scratch).map_err(|bad| unreadable(bad.detail))?;
        self.deleted.push(true);
        self.times_us.push(timestamp_ms.map(|ms| ms.saturating_mul(1000)));
        Ok(())
    }

    /// The columns of upserts and deletions in offset order.
    pub(crate) fn finish(&mut self, upserts: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let times = TimestampMicrosecondArray::from(std::mem::take(&mut self.times_us));
        let deletions = self.keys.finish()?;
        if deletions.num_rows() == 0 {
            return Ok(upserts.columns().to_vec());
        }
        let (mut upsert, mut deletion) = (0, 0);
        let mut places = Vec::with_capacity(self.deleted.len());
        for deleted in &self.deleted {
            let (from, next) = if *deleted { (1, &mut deletion) } else { (0, &mut upsert) };
            places.push((from, *next));
            *next += 1;
        }
        let schema: SchemaRef = upserts.schema();
        let mut columns = Vec::with_capacity(upserts.num_columns());
        for (field, column) in schema.fields().iter().zip(upserts.columns()) {
            let other: ArrayRef = match deletions.column_by_name(field.name()) {
                Some(key) => Arc::clone(key),
                None if self.time.as_ref() == Some(field.name()) => Arc::new(times.clone()),
                None => new_null_array(field.data_type(), deletions.num_rows()),
            };
            columns.push(interleave(&[column.as_ref(), other.as_ref()], &places)?);
        }
        Ok(columns)
    }

    /// Which rows of the batch delete; the next batch begins.
    pub(crate) fn marks(&mut self) -> BooleanArray {
        BooleanArray::from(std::mem::take(&mut self.deleted))
    }
}
