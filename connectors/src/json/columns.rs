//! The columns being built, one buffer each, and the arrow arrays they become.
//!
//! A record is appended only when all of it is good, so every buffer always holds the same number of rows and nothing is ever taken
//! back. Nothing here checks a value. Called by the decoder.

use super::plan::{Kind, Plan};
use super::scan::{load16, unescape};
use super::walk::{Slot, State, Walk};
use super::{TEXT_TYPE, base64};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, ListArray, NullBufferBuilder, PrimitiveArray,
    StringViewArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use std::sync::Arc;
use tidemill_engine::error::{Error, Result};

/// Text blocks that views point into grow from the first size to the second.
const BLOCK_BYTES_MIN: usize = 8 << 10;
const BLOCK_BYTES_MAX: usize = 2 << 20;
/// A view holds this much text itself.
const INLINE_BYTES_MAX: usize = 12;

/// One column, field or element under construction.
#[derive(Debug)]
pub(super) struct ColumnBuffer {
    slot: usize,
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBufferBuilder),
    Int16(Vec<i16>),
    /// INT, and the days of a DATE.
    Int32(Vec<i32>),
    /// BIGINT, and the microseconds of a TIMESTAMP.
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Text(Texts),
    Bytes {
        ends: Vec<usize>,
        data: Vec<u8>,
    },
    Struct(Vec<ColumnBuffer>),
    List {
        ends: Vec<usize>,
        element: usize,
        child: Box<ColumnBuffer>,
    },
}

/// String views and the blocks they point into.
#[derive(Debug, Default)]
struct Texts {
    views: Vec<u128>,
    full: Vec<Buffer>,
    block: Vec<u8>,
}

impl Texts {
    /// Appends the text of `bytes` from `start` to `end`.
    #[inline(always)]
    fn push(&mut self, bytes: &[u8], start: usize, end: usize) {
        let len = end - start;
        let head = load16(bytes, start);
        if len <= INLINE_BYTES_MAX {
            self.views.push((len as u128) | ((head & ((1 << (8 * len)) - 1)) << 32));
            return;
        }
        if self.block.len() + len > self.block.capacity() {
            self.next_block(len);
        }
        let offset = self.block.len();
        self.block.extend_from_slice(bytes.get(start..end).unwrap_or_default());
        let prefix = (head & 0xffff_ffff) << 32;
        self.views.push((len as u128) | prefix | ((self.full.len() as u128) << 64) | ((offset as u128) << 96));
    }

    #[cold]
    fn next_block(&mut self, len: usize) {
        let size = (self.block.capacity() * 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX).max(len);
        let full = std::mem::replace(&mut self.block, Vec::with_capacity(size));
        // Views of the new block carry its number: one that is empty so far keeps the number it would have had.
        if !full.is_empty() {
            self.full.push(Buffer::from_vec(full));
        }
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let rows = self.views.len();
        let block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            self.full.push(Buffer::from_vec(block));
        }
        let views = std::mem::replace(&mut self.views, Vec::with_capacity(rows));
        let blocks = std::mem::take(&mut self.full);
        // SAFETY: every view was made by `push` from bytes that are UTF-8 between their ends: a JSON string, whose quotes are ASCII,
        // of a payload checked as a whole, or the characters `unescape` wrote. Blocks never move a byte, and a block's number is the
        // count of full blocks while it is written, which is its index here.
        Arc::new(unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), blocks, nulls) })
    }
}

impl ColumnBuffer {
    /// The buffer of `slot`, a use of `data_type`.
    pub(super) fn new(plan: &Plan, slot: usize, data_type: &DataType) -> Self {
        let one = plan.uses.get(slot);
        let part = |index: usize| one.and_then(|of| of.parts.get(index)).copied().unwrap_or(slot);
        let values = match (data_type, one.map(|of| of.kind)) {
            (DataType::Boolean, _) => Values::Bool(BooleanBufferBuilder::new(0)),
            (DataType::Int16, _) => Values::Int16(Vec::new()),
            (DataType::Int32 | DataType::Date32, _) => Values::Int32(Vec::new()),
            (DataType::Float32, _) => Values::Float32(Vec::new()),
            (DataType::Float64, _) => Values::Float64(Vec::new()),
            (DataType::Decimal128(..), _) => Values::Decimal(Vec::new()),
            (DataType::Binary, _) => Values::Bytes { ends: Vec::new(), data: Vec::new() },
            (DataType::Struct(fields), _) => {
                Values::Struct(fields.iter().enumerate().map(|(index, field)| Self::new(plan, part(index), field.data_type())).collect())
            }
            (DataType::List(field), Some(Kind::List { element })) => {
                Values::List { ends: Vec::new(), element, child: Box::new(Self::new(plan, part(0), field.data_type())) }
            }
            (text, _) if *text == TEXT_TYPE => Values::Text(Texts::default()),
            _ => Values::Int64(Vec::new()),
        };
        Self { slot, data_type: data_type.clone(), nulls: NullBufferBuilder::new(0), values }
    }

    /// Appends what is in the slot of a good record.
    #[inline(always)]
    pub(super) fn append(&mut self, walk: &mut Walk<'_>) {
        let slot = walk.slots.get(self.slot).copied().unwrap_or(Slot::MISSING);
        if slot.state == State::Good {
            self.nulls.append_non_null();
            self.append_value(slot, walk);
        } else {
            self.append_null();
        }
    }

    #[inline(always)]
    fn append_value(&mut self, slot: Slot, walk: &mut Walk<'_>) {
        let bits = slot.bits;
        match &mut self.values {
            Values::Int64(all) => all.push(bits as i64),
            Values::Text(texts) if !slot.escaped => texts.push(walk.bytes, slot.start as usize, slot.end as usize),
            Values::Int16(all) => all.push(bits as i16),
            Values::Int32(all) => all.push(bits as i32),
            Values::Float32(all) => all.push(f32::from_bits(bits as u32)),
            Values::Float64(all) => all.push(f64::from_bits(bits as u64)),
            Values::Decimal(all) => all.push(bits),
            Values::Bool(all) => all.append(bits != 0),
            Values::Text(_) | Values::Bytes { .. } | Values::Struct(_) | Values::List { .. } => self.append_long(slot, walk),
        }
    }

    #[inline(never)]
    fn append_long(&mut self, slot: Slot, walk: &mut Walk<'_>) {
        match &mut self.values {
            Values::Text(texts) => {
                let text = span(&slot, walk);
                texts.push(text, 0, text.len());
            }
            Values::Bytes { ends, data } => {
                base64::decode(span(&slot, walk), |byte| data.push(byte));
                ends.push(data.len());
            }
            Values::Struct(fields) => {
                for field in fields {
                    field.append(walk);
                }
            }
            Values::List { ends, element, child } => {
                // The same bytes went through the same code when the list was checked, so this finds no fault.
                let _checked = walk.elements(*element, slot.start as usize, slot.bits as usize, &mut |walk| child.append(walk));
                ends.push(child.len());
            }
            _ => {}
        }
    }

    #[inline(never)]
    fn append_null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Bool(all) => all.append(false),
            Values::Int16(all) => all.push(0),
            Values::Int32(all) => all.push(0),
            Values::Int64(all) => all.push(0),
            Values::Float32(all) => all.push(0.0),
            Values::Float64(all) => all.push(0.0),
            Values::Decimal(all) => all.push(0),
            Values::Text(texts) => texts.views.push(0),
            Values::Bytes { ends, data } => ends.push(data.len()),
            Values::Struct(fields) => fields.iter_mut().for_each(Self::append_null),
            Values::List { ends, child, .. } => ends.push(child.len()),
        }
    }

    fn len(&self) -> usize {
        self.nulls.len()
    }

    /// The array of all appended since the last call.
    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        let rows = self.nulls.len();
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Bool(all) => Arc::new(BooleanArray::new(all.finish(), nulls)),
            Values::Int16(all) => primitive::<Int16Type>(all, nulls),
            Values::Int32(all) if self.data_type == DataType::Date32 => primitive::<Date32Type>(all, nulls),
            Values::Int32(all) => primitive::<Int32Type>(all, nulls),
            Values::Int64(all) if self.data_type == DataType::Int64 => primitive::<Int64Type>(all, nulls),
            Values::Int64(all) => primitive::<TimestampMicrosecondType>(all, nulls),
            Values::Float32(all) => primitive::<Float32Type>(all, nulls),
            Values::Float64(all) => primitive::<Float64Type>(all, nulls),
            Values::Decimal(all) => {
                Arc::new(Decimal128Array::new(ScalarBuffer::from(std::mem::take(all)), nulls).with_data_type(self.data_type.clone()))
            }
            Values::Text(texts) => texts.finish(nulls),
            Values::Bytes { ends, data } => {
                let data = Buffer::from_vec(std::mem::take(data));
                Arc::new(BinaryArray::try_new(offsets(ends)?, data, nulls)?)
            }
            Values::Struct(fields) => {
                let DataType::Struct(declared) = &self.data_type else { return Err(Error::failed("a STRUCT column is no struct")) };
                let arrays = fields.iter_mut().map(Self::finish).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(declared.clone(), arrays, nulls, rows)?)
            }
            Values::List { ends, child, .. } => {
                let DataType::List(declared) = &self.data_type else { return Err(Error::failed("a list column is no list")) };
                let child = child.finish()?;
                Arc::new(ListArray::try_new(declared.clone(), offsets(ends)?, child, nulls)?)
            }
        })
    }
}

fn primitive<T: ArrowPrimitiveType>(all: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    let rows = all.len();
    let values = std::mem::replace(all, Vec::with_capacity(rows));
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
}

/// The text of a string slot, without escapes.
fn span<'a>(slot: &Slot, walk: &'a mut Walk<'_>) -> &'a [u8] {
    let text = walk.bytes.get(slot.start as usize..slot.end as usize).unwrap_or_default();
    if !slot.escaped {
        return text;
    }
    walk.scratch.clear();
    unescape(text, walk.scratch);
    walk.scratch
}

/// Offsets from the ends of the rows.
fn offsets(ends: &mut Vec<usize>) -> Result<OffsetBuffer<i32>> {
    let mut all = Vec::with_capacity(ends.len() + 1);
    all.push(0);
    for end in ends.drain(..) {
        all.push(i32::try_from(end).map_err(|_| Error::failed("a batch holds more than 2 GiB of one VARBINARY or list column"))?);
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(all)))
}
