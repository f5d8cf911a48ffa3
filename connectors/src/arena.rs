//! The bytes of a batch's records in one block, for sources whose own buffers move on (files, the generator).
//!
//! Always: offsets come in ascending order; nothing is changed once the batch is made. Not used by Kafka, whose messages stay where they are.

use tidemill_engine::rows::{RawRecord, RawRecords};

/// See the module doc.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<(usize, usize)>,
    payload: Option<(usize, usize)>,
}

impl Arena {
    /// Copies a record, whose offset is above those before.
    pub(crate) fn push(&mut self, offset: i64, record: RawRecord<'_>) {
        let key = record.key.map(|key| self.append(key));
        let payload = record.payload.map(|payload| self.append(payload));
        self.entries.push(Entry { offset, timestamp_ms: record.timestamp_ms, key, payload });
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len())
    }

    fn slice(&self, (start, end): (usize, usize)) -> Option<&[u8]> {
        self.bytes.get(start..end)
    }
}

impl RawRecords for Arena {
    fn record(&self, offset: i64) -> Option<RawRecord<'_>> {
        let at = self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        let entry = self.entries.get(at)?;
        Some(RawRecord {
            key: entry.key.and_then(|range| self.slice(range)),
            payload: entry.payload.and_then(|range| self.slice(range)),
            timestamp_ms: entry.timestamp_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_by_offset_with_null_and_empty_apart() {
        let mut arena = Arena::default();
        let records = [
            (3, RawRecord { key: Some(b"k"), payload: None, timestamp_ms: Some(1) }),
            (7, RawRecord { key: None, payload: Some(b""), timestamp_ms: None }),
            (8, RawRecord { key: Some(b""), payload: Some(b"abc"), timestamp_ms: Some(2) }),
        ];
        records.iter().for_each(|(offset, record)| arena.push(*offset, *record));
        records.iter().for_each(|(offset, record)| assert_eq!(arena.record(*offset), Some(*record)));
        assert_eq!((arena.record(4), arena.record(9)), (None, None));
    }
}
