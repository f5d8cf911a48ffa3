//! `Groups`: a hash table from keys to dense slots `0..len`, in order of first arrival.
//!
//! Always: a key has one slot until it is removed, and a removed slot is used again before the table grows. The hash is the
//! engine's key hash, given by the caller and kept for exchange and state. What a slot holds lies in the caller's columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use hashbrown::HashTable;
use tidemill_engine::error::Result;

use crate::keys::{KeyBatch, KeyCodec};

/// See the module doc.
#[derive(Clone)]
pub struct Groups {
    codec: Arc<KeyCodec>,
    index: HashTable<u32>,
    /// The slot of NULL, for keys whose encoding has no place for it; also the one group of no keys.
    null: Option<u32>,
    hashes: Vec<u64>,
    ints: Vec<i64>,
    texts: Arena,
    free: Vec<u32>,
    /// Slots that are free; as long as the greatest that ever was.
    gone: Vec<bool>,
}

/// Byte strings one after the other; those no longer used are squeezed out when they are more than half.
#[derive(Clone, Default)]
struct Arena {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    lengths: Vec<u32>,
    unused: usize,
}

impl Arena {
    #[inline]
    fn get(&self, slot: u32) -> &[u8] {
        let start = self.starts[slot as usize];
        &self.bytes[start..start + self.lengths[slot as usize] as usize]
    }

    fn set(&mut self, slot: u32, key: &[u8]) {
        let (start, length) = (self.bytes.len(), key.len() as u32);
        self.bytes.extend_from_slice(key);
        if slot as usize == self.starts.len() {
            self.starts.push(start);
            self.lengths.push(length);
        } else {
            self.starts[slot as usize] = start;
            self.lengths[slot as usize] = length;
        }
    }

    fn remove(&mut self, slot: u32) {
        self.unused += self.lengths[slot as usize] as usize;
        self.lengths[slot as usize] = 0;
        if self.unused > 1024 && self.unused > self.bytes.len() / 2 {
            let mut bytes = Vec::with_capacity(self.bytes.len() - self.unused);
            for (start, length) in self.starts.iter_mut().zip(&self.lengths) {
                let from = *start;
                *start = bytes.len();
                bytes.extend_from_slice(&self.bytes[from..from + *length as usize]);
            }
            self.bytes = bytes;
            self.unused = 0;
        }
    }
}

impl Groups {
    /// An empty table.
    pub fn new(codec: Arc<KeyCodec>) -> Self {
        Self {
            codec,
            index: HashTable::new(),
            null: None,
            hashes: Vec::new(),
            ints: Vec::new(),
            texts: Arena::default(),
            free: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Slots in use and free: columns beside the table are this long.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Keys held.
    pub fn used(&self) -> usize {
        self.hashes.len() - self.free.len()
    }

    /// No slot was ever used?
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The key hash of a slot.
    pub fn hash(&self, slot: u32) -> u64 {
        self.hashes[slot as usize]
    }

    /// The slots of the keys in `rows` (all rows if `None`) of a batch, new keys added, in `slots`.
    pub fn insert(&mut self, keys: &KeyBatch, hashes: &[u64], rows: Option<&[u32]>, slots: &mut Vec<u32>) {
        slots.clear();
        match rows {
            Some(rows) => self.insert_rows(keys, hashes, rows.iter().map(|row| *row as usize), slots),
            None => self.insert_rows(keys, hashes, 0..hashes.len(), slots),
        }
    }

    fn insert_rows(&mut self, keys: &KeyBatch, hashes: &[u64], rows: impl Iterator<Item = usize>, slots: &mut Vec<u32>) {
        match keys {
            KeyBatch::Unit => {
                for row in rows {
                    slots.push(self.insert_null(hashes[row]));
                }
            }
            KeyBatch::Int(column) => {
                let (values, nulls) = (column.values(), column.nulls().filter(|nulls| nulls.null_count() > 0));
                for row in rows {
                    let null = nulls.is_some_and(|nulls| nulls.is_null(row));
                    slots.push(if null { self.insert_null(hashes[row]) } else { self.insert_int(values[row], hashes[row]) });
                }
            }
            KeyBatch::Utf8(column) => self.insert_texts(column, |row| column.value(row).as_bytes(), hashes, rows, slots),
            KeyBatch::Utf8View(column) => self.insert_texts(column, |row| column.value(row).as_bytes(), hashes, rows, slots),
            KeyBatch::Binary(column) => self.insert_texts(column, |row| column.value(row), hashes, rows, slots),
            KeyBatch::BinaryView(column) => self.insert_texts(column, |row| column.value(row), hashes, rows, slots),
            KeyBatch::Row(bytes) => {
                for row in rows {
                    slots.push(self.insert_bytes(bytes.row(row).data(), hashes[row]));
                }
            }
        }
    }

    #[inline(always)]
    fn insert_texts<'a>(
        &mut self,
        column: &dyn Array,
        value: impl Fn(usize) -> &'a [u8],
        hashes: &[u64],
        rows: impl Iterator<Item = usize>,
        slots: &mut Vec<u32>,
    ) {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        for row in rows {
            let null = nulls.is_some_and(|nulls| nulls.is_null(row));
            slots.push(if null { self.insert_null(hashes[row]) } else { self.insert_bytes(value(row), hashes[row]) });
        }
    }

    fn insert_null(&mut self, hash: u64) -> u32 {
        if let Some(slot) = self.null {
            return slot;
        }
        let slot = self.next_slot(hash);
        if self.codec.is_int() {
            self.set_int(slot, 0)
        } else {
            self.texts.set(slot, &[])
        }
        self.null = Some(slot);
        slot
    }

    #[inline]
    fn insert_int(&mut self, key: i64, hash: u64) -> u32 {
        let ints = &self.ints;
        if let Some(slot) = self.index.find(hash, |slot| ints[*slot as usize] == key) {
            return *slot;
        }
        let slot = self.next_slot(hash);
        self.set_int(slot, key);
        self.link(slot, hash);
        slot
    }

    #[inline]
    fn insert_bytes(&mut self, key: &[u8], hash: u64) -> u32 {
        let texts = &self.texts;
        if let Some(slot) = self.index.find(hash, |slot| texts.get(*slot) == key) {
            return *slot;
        }
        let slot = self.next_slot(hash);
        self.texts.set(slot, key);
        self.link(slot, hash);
        slot
    }

    fn set_int(&mut self, slot: u32, key: i64) {
        if slot as usize == self.ints.len() { self.ints.push(key) } else { self.ints[slot as usize] = key }
    }

    fn link(&mut self, slot: u32, hash: u64) {
        let hashes = &self.hashes;
        self.index.insert_unique(hash, slot, |slot| hashes[*slot as usize]);
    }

    fn next_slot(&mut self, hash: u64) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.hashes[slot as usize] = hash;
            self.gone[slot as usize] = false;
            return slot;
        }
        self.hashes.push(hash);
        (self.hashes.len() - 1) as u32
    }

    /// The slot here of the key that `other` has in `slot`.
    pub fn find_same(&self, other: &Self, slot: u32) -> Option<u32> {
        if other.null == Some(slot) {
            return self.null;
        }
        let hash = other.hash(slot);
        if self.codec.is_int() {
            let key = other.ints[slot as usize];
            self.index.find(hash, |slot| self.ints[*slot as usize] == key).copied()
        } else {
            let key = other.texts.get(slot);
            self.index.find(hash, |slot| self.texts.get(*slot) == key).copied()
        }
    }

    /// The slot here of the key that `other` has in `slot`, added if it is new.
    pub fn insert_same(&mut self, other: &Self, slot: u32) -> u32 {
        let hash = other.hash(slot);
        if other.null == Some(slot) {
            self.insert_null(hash)
        } else if self.codec.is_int() {
            self.insert_int(other.ints[slot as usize], hash)
        } else {
            self.insert_bytes(other.texts.get(slot), hash)
        }
    }

    /// Forgets the key of a slot; the slot will be used again.
    pub fn remove(&mut self, slot: u32) {
        if self.null == Some(slot) {
            self.null = None;
        } else if let Ok(entry) = self.index.find_entry(self.hashes[slot as usize], |each| *each == slot) {
            entry.remove();
        }
        if !self.codec.is_int() {
            self.texts.remove(slot);
        }
        self.free.push(slot);
        self.gone.resize(self.gone.len().max(slot as usize + 1), false);
        self.gone[slot as usize] = true;
    }

    /// Does this slot hold a key?
    pub fn holds(&self, slot: u32) -> bool {
        (slot as usize) < self.hashes.len() && !self.gone.get(slot as usize).copied().unwrap_or(false)
    }

    /// The keys of `slots` as columns.
    pub fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        if self.codec.is_int() {
            Ok(self
                .codec
                .decode_ints(slots.iter().map(|slot| if self.null == Some(*slot) { None } else { Some(self.ints[*slot as usize]) })))
        } else {
            self.codec.decode_bytes(slots.iter().map(|slot| if self.null == Some(*slot) { None } else { Some(self.texts.get(*slot)) }))
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.index.allocation_size()
            + (self.hashes.capacity() + self.ints.capacity() + self.texts.starts.capacity()) * 8
            + self.texts.bytes.capacity()
            + (self.texts.lengths.capacity() + self.free.capacity()) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{DataType, Field};
    use tidemill_engine::hash::hash_columns;

    #[test]
    fn removed_slots_are_used_again_and_their_bytes_squeezed_out() {
        let codec = Arc::new(KeyCodec::new(vec![Arc::new(Field::new("k", DataType::Utf8, true))]).expect("a codec"));
        let mut groups = Groups::new(Arc::clone(&codec));
        let mut slots = Vec::new();
        let mut add = |groups: &mut Groups, keys: Vec<Option<String>>| {
            let column: ArrayRef = Arc::new(StringArray::from(keys));
            let hashes = hash_columns(std::slice::from_ref(&column), column.len()).expect("hashes");
            groups.insert(&codec.encode(&[column]).expect("encodes"), &hashes, None, &mut slots);
            slots.clone()
        };
        let key = |n: i32| Some(format!("a key of some length {n}"));
        let first = add(&mut groups, (0..200).map(key).chain([None]).collect());
        assert_eq!(first, (0..=200).collect::<Vec<_>>());
        (0..150).chain([200]).for_each(|slot| groups.remove(slot));
        assert!(!groups.holds(3) && groups.holds(150) && groups.used() == 50);
        let second = add(&mut groups, vec![key(160), key(3), None, key(500)]);
        assert_eq!(groups.len(), 201, "no new slot while old ones are free");
        let columns = groups.columns(&second).expect("columns");
        let texts: Vec<Option<String>> = columns[0].as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        assert_eq!(texts, vec![key(160), key(3), None, key(500)]);
        assert_eq!(second[0], 160);
    }
}
