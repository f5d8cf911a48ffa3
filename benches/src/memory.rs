//! Bids from memory: a source whose records the product's own decoder reads, and the planner's way to it.

use std::sync::Arc;

use tidemill_connectors::format::{DecodeConfig, RecordDecoder};
use tidemill_engine::error::Result;
use tidemill_engine::rows::{RawRecord, RawRecords};
use tidemill_engine::source::{Limits, Polled};
use tidemill_pipelines::lower::{Opened, Opener};
use tidemill_pipelines::sources::decode;
use tidemill_pipelines::sql::Source;

use crate::bids::Bids;

/// Opens every declared source on the same bids.
pub struct Memory(pub Arc<Bids>);

impl Opener for Memory {
    fn open(&self, source: &Source, _reading: u32, columns: &[String], hidden: &[String]) -> Result<Opened> {
        let decode: DecodeConfig = decode(source, columns, hidden);
        let schema = RecordDecoder::new("bids", &decode)?.schema();
        let bids = Arc::clone(&self.0);
        let open = Arc::new(move || {
            let reader = Reader { decoder: RecordDecoder::new("bids", &decode)?, bids: Arc::clone(&bids), next: Vec::new() };
            Ok(Box::new(reader) as Box<dyn tidemill_engine::source::Source>)
        });
        Ok(Opened { topic: "bids".into(), schema, open })
    }
}

struct Reader {
    decoder: RecordDecoder,
    bids: Arc<Bids>,
    next: Vec<(i32, i64)>,
}

struct Raw {
    bids: Arc<Bids>,
    partition: i32,
}

impl RawRecords for Raw {
    fn record(&self, offset: i64) -> Option<RawRecord<'_>> {
        let payload = self.bids.payload(self.bids.at(self.partition, offset)?);
        Some(RawRecord { key: None, payload, timestamp_ms: None })
    }
}

impl tidemill_engine::source::Source for Reader {
    fn assign(&mut self, partitions: &[(i32, i64)]) -> Result<()> {
        self.next = partitions.to_vec();
        Ok(())
    }

    fn poll(&mut self, partition: i32, limits: Limits) -> Result<Polled> {
        let Some((_, next)) = self.next.iter_mut().find(|(each, _)| *each == partition) else { return Ok(Polled::default()) };
        self.decoder.begin(partition);
        while self.decoder.records() < limits.rows_max && self.decoder.bytes() < limits.bytes_max && *next < limits.end {
            let Some(bid) = self.bids.at(partition, *next) else { break };
            self.decoder.push(*next, RawRecord { key: None, payload: self.bids.payload(bid), timestamp_ms: None });
            *next += 1;
        }
        if self.decoder.records() == 0 {
            return Ok(Polled { read: None, at_end: true });
        }
        let raw = Arc::new(Raw { bids: Arc::clone(&self.bids), partition });
        Ok(Polled { read: Some(self.decoder.finish(*next, raw)?), at_end: false })
    }
}
