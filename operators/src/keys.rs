//! Grouping keys as bytes or integers: how key columns become something a hash table compares, and columns again.
//!
//! Always: two rows have equal encoded keys iff they belong to one group (NULL equals NULL), and decoding gives back what was
//! encoded. A single BIGINT is kept as it is, a single string or binary as its bytes, everything else in Arrow's row format.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BinaryViewArray, BinaryViewBuilder, Int64Array, StringArray, StringBuilder,
    StringViewArray, StringViewBuilder,
};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use arrow::row::{RowConverter, Rows as RowBytes, SortField};
use tidemill_engine::error::{Error, Result};

/// How the keys of an operator are encoded.
#[derive(Debug)]
pub struct KeyCodec {
    fields: Vec<FieldRef>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No key columns: everything is one group.
    Unit,
    Int,
    Utf8,
    Utf8View,
    Binary,
    BinaryView,
    Row(RowConverter),
}

/// The keys of one batch, ready to be looked up.
#[derive(Debug)]
pub enum KeyBatch {
    /// No key columns.
    Unit,
    /// One BIGINT.
    Int(Int64Array),
    /// One string.
    Utf8(StringArray),
    /// One string.
    Utf8View(StringViewArray),
    /// One binary.
    Binary(BinaryArray),
    /// One binary.
    BinaryView(BinaryViewArray),
    /// Anything else, NULLs encoded.
    Row(RowBytes),
}

impl KeyCodec {
    /// An encoding for keys of these fields.
    pub fn new(fields: Vec<FieldRef>) -> Result<Self> {
        let kind = match fields.as_slice() {
            [] => Kind::Unit,
            [one] => match one.data_type() {
                DataType::Int64 => Kind::Int,
                DataType::Utf8 => Kind::Utf8,
                DataType::Utf8View => Kind::Utf8View,
                DataType::Binary => Kind::Binary,
                DataType::BinaryView => Kind::BinaryView,
                other => Kind::Row(RowConverter::new(vec![SortField::new(other.clone())])?),
            },
            many => Kind::Row(RowConverter::new(many.iter().map(|field| SortField::new(field.data_type().clone())).collect())?),
        };
        Ok(Self { fields, kind })
    }

    /// The key fields.
    pub fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    /// Keys are kept as integers, not as bytes.
    pub fn is_int(&self) -> bool {
        matches!(self.kind, Kind::Int)
    }

    /// Encodes the key columns of a batch.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<KeyBatch> {
        let found: Vec<String> = columns.iter().map(|column| column.data_type().to_string()).collect();
        let column = || columns.first().filter(|_| columns.len() == 1);
        let batch = match &self.kind {
            Kind::Unit => Some(KeyBatch::Unit),
            Kind::Int => column().and_then(|column| column.as_primitive_opt::<Int64Type>()).cloned().map(KeyBatch::Int),
            Kind::Utf8 => column().and_then(|column| column.as_string_opt::<i32>()).cloned().map(KeyBatch::Utf8),
            Kind::Utf8View => column().and_then(|column| column.as_string_view_opt()).cloned().map(KeyBatch::Utf8View),
            Kind::Binary => column().and_then(|column| column.as_binary_opt::<i32>()).cloned().map(KeyBatch::Binary),
            Kind::BinaryView => column().and_then(|column| column.as_binary_view_opt()).cloned().map(KeyBatch::BinaryView),
            Kind::Row(converter) => Some(KeyBatch::Row(converter.convert_columns(columns)?)),
        };
        batch.ok_or_else(|| {
            wrong(&format!("({}) for {}", found.join(", "), self.fields.first().map_or(&DataType::Null, |field| field.data_type())))
        })
    }

    /// BIGINT keys as a column.
    pub fn decode_ints(&self, keys: impl Iterator<Item = Option<i64>>) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from_iter(keys))]
    }

    /// Encoded keys as columns, one a key field. `None` is a NULL of a single string or binary.
    pub fn decode_bytes<'a>(&self, keys: impl Iterator<Item = Option<&'a [u8]>>) -> Result<Vec<ArrayRef>> {
        match &self.kind {
            Kind::Unit => Ok(Vec::new()),
            Kind::Int => Err(wrong("bytes for BIGINT")),
            Kind::Utf8 => {
                let mut column = StringBuilder::new();
                for key in keys {
                    column.append_option(text(key)?);
                }
                Ok(vec![Arc::new(column.finish())])
            }
            Kind::Utf8View => {
                let mut column = StringViewBuilder::new();
                for key in keys {
                    column.append_option(text(key)?);
                }
                Ok(vec![Arc::new(column.finish())])
            }
            Kind::Binary => {
                let mut column = BinaryBuilder::new();
                keys.for_each(|key| column.append_option(key));
                Ok(vec![Arc::new(column.finish())])
            }
            Kind::BinaryView => {
                let mut column = BinaryViewBuilder::new();
                keys.for_each(|key| column.append_option(key));
                Ok(vec![Arc::new(column.finish())])
            }
            Kind::Row(converter) => {
                let parser = converter.parser();
                Ok(converter.convert_rows(keys.map(|key| parser.parse(key.unwrap_or_default())))?)
            }
        }
    }
}

fn text(key: Option<&[u8]>) -> Result<Option<&str>> {
    key.map(|bytes| std::str::from_utf8(bytes).map_err(|_| wrong("bytes that are no text"))).transpose()
}

fn wrong(what: &str) -> Error {
    Error::failed(format!("a key column does not fit the plan: {what}"))
}
