//! Columns of strings and of bytes, whatever their Arrow layout, as `&[u8]`.

use std::str::from_utf8;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray,
};
use arrow::datatypes::DataType;
use tidemill_engine::error::{Error, Result};

/// True for VARCHAR and VARBINARY in any layout.
pub(super) fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

/// A borrowed column; which layout is decided once a batch, the branch a row predicts well.
pub(super) enum Bytes<'a> {
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
}

impl<'a> Bytes<'a> {
    pub(super) fn of(array: &'a ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Utf8(array.as_string()),
            DataType::LargeUtf8 => Self::LargeUtf8(array.as_string()),
            DataType::Utf8View => Self::Utf8View(array.as_string_view()),
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::LargeBinary => Self::LargeBinary(array.as_binary()),
            DataType::BinaryView => Self::BinaryView(array.as_binary_view()),
            other => return Err(Error::failed(format!("{other} is not a column of strings or bytes"))),
        })
    }

    /// The bytes of a row, unspecified where it is NULL.
    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> &'a [u8] {
        match self {
            Self::Utf8(array) => array.value(row).as_bytes(),
            Self::LargeUtf8(array) => array.value(row).as_bytes(),
            Self::Utf8View(array) => array.value(row).as_bytes(),
            Self::Binary(array) => array.value(row),
            Self::LargeBinary(array) => array.value(row),
            Self::BinaryView(array) => array.value(row),
        }
    }
}

/// A column of `data_type`, one of [`is_bytes`], from bytes that came out of such a column.
pub(super) fn build<'a>(data_type: &DataType, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
    let text = |value: Option<&'a [u8]>| {
        value.map(from_utf8).transpose().map_err(|_| Error::failed("a string of an aggregate's state is not UTF-8"))
    };
    Ok(match data_type {
        DataType::Utf8 => Arc::new(values.map(text).collect::<Result<StringArray>>()?),
        DataType::LargeUtf8 => Arc::new(values.map(text).collect::<Result<LargeStringArray>>()?),
        DataType::Utf8View => Arc::new(values.map(text).collect::<Result<StringViewArray>>()?),
        DataType::Binary => Arc::new(values.collect::<BinaryArray>()),
        DataType::LargeBinary => Arc::new(values.collect::<LargeBinaryArray>()),
        DataType::BinaryView => Arc::new(values.collect::<BinaryViewArray>()),
        other => return Err(Error::failed(format!("{other} is not a column of strings or bytes"))),
    })
}
