//! Strings as numbers: each string that any group holds is kept once, with how many groups hold it.
//!
//! A visitor who is in ten open windows costs ten numbers of 4 bytes and one string. Bytes lie in one arena; strings that no group holds
//! any more leave holes, and the arena is written anew when holes make up more than half of it.

use hashbrown::HashTable;
use tidemill_engine::error::{Error, Result};

use super::hash::{hash_bytes, hash_u64};

/// Holes smaller than this are left alone.
const HOLES_BYTES_MIN: usize = 64 * 1024;

#[derive(Clone, Copy)]
struct Text {
    start: usize,
    length: u32,
    holders: u32,
}

/// In the table: the number and half of its hash, so that growth never touches the strings.
#[derive(Clone, Copy)]
struct Known {
    hash: u32,
    id: u32,
}

/// The strings of one accumulator.
#[derive(Default)]
pub(super) struct Interner {
    known: HashTable<Known>,
    texts: Vec<Text>,
    free: Vec<u32>,
    arena: Vec<u8>,
    hole_bytes: usize,
}

impl Interner {
    /// The number of a string, a new one if need be; a new string has no holder yet and must get one by [`hold`](Self::hold).
    pub(super) fn intern(&mut self, text: &[u8]) -> Result<u32> {
        let hash = hash_bytes(text) as u32;
        let known = self.known.find(spread(hash), |known| known.hash == hash && slice(&self.arena, &self.texts, known.id) == text);
        match known {
            Some(known) => Ok(known.id),
            None => self.insert(text, hash),
        }
    }

    #[cold]
    fn insert(&mut self, text: &[u8], hash: u32) -> Result<u32> {
        let length = u32::try_from(text.len()).map_err(|_| Error::failed("a string of over 4 GiB can't be counted"))?;
        let entry = Text { start: self.arena.len(), length, holders: 0 };
        self.arena.extend_from_slice(text);
        let id = match self.free.pop() {
            Some(id) => {
                self.texts[id as usize] = entry;
                id
            }
            None => {
                let id = u32::try_from(self.texts.len()).map_err(|_| Error::failed("over 2^32 different strings in one aggregate"))?;
                self.texts.push(entry);
                id
            }
        };
        self.known.insert_unique(spread(hash), Known { hash, id }, |known| spread(known.hash));
        Ok(id)
    }

    /// One more group holds the string.
    #[inline(always)]
    pub(super) fn hold(&mut self, id: u32) {
        self.texts[id as usize].holders += 1;
    }

    /// One group less holds the string; the last one takes it away.
    pub(super) fn release(&mut self, id: u32) {
        let text = &mut self.texts[id as usize];
        text.holders -= 1;
        if text.holders > 0 {
            return;
        }
        let hash = hash_bytes(slice(&self.arena, &self.texts, id)) as u32;
        if let Ok(known) = self.known.find_entry(spread(hash), |known| known.id == id) {
            known.remove();
        }
        self.free.push(id);
        let text = &mut self.texts[id as usize];
        self.hole_bytes += text.length as usize;
        text.length = 0;
        if self.hole_bytes > HOLES_BYTES_MIN && self.hole_bytes > self.arena.len() / 2 {
            self.compact();
        }
    }

    /// Writes the arena anew without holes, and gives memory back when little is left.
    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.hole_bytes);
        for text in self.texts.iter_mut().filter(|text| text.holders > 0) {
            let start = arena.len();
            arena.extend_from_slice(&self.arena[text.start..text.start + text.length as usize]);
            text.start = start;
        }
        self.arena = arena;
        self.hole_bytes = 0;
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to(2 * self.known.len(), |known| spread(known.hash));
        }
    }

    /// The string of a number.
    pub(super) fn text(&self, id: u32) -> &[u8] {
        slice(&self.arena, &self.texts, id)
    }

    pub(super) fn bytes(&self) -> usize {
        self.known.allocation_size() + self.texts.capacity() * size_of::<Text>() + self.free.capacity() * 4 + self.arena.capacity()
    }
}

/// A table's hash from the half that is kept: the table looks at its lowest and its highest bits.
#[inline(always)]
fn spread(hash: u32) -> u64 {
    hash_u64(u64::from(hash))
}

#[inline(always)]
fn slice<'a>(arena: &'a [u8], texts: &[Text], id: u32) -> &'a [u8] {
    let text = &texts[id as usize];
    &arena[text.start..text.start + text.length as usize]
}
