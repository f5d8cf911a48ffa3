//! The events of a demo: made up and sent as fast as the pipeline reads them.
//!
//! Always: a broker inside the process keeps a few megabytes a partition and then drops the oldest, so no more is sent than would fit one
//! partition until the pipeline has read it. A real broker keeps everything and is not waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tidemill_connectors::generator::{Case, Generated};
use tidemill_connectors::kafka::{KafkaProducer, MOCK_PARTITION_BYTES_MAX};
use tidemill_engine::error::Result;
use tidemill_engine::worker::Shared;

use crate::generate;

/// What a record takes beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// Records are counted in groups of so many.
const GROUP_RECORDS: u64 = 256;

/// What to send.
pub struct Feed {
    /// The case's name of a topic, and the one it is sent to.
    pub topics: Vec<(&'static str, String)>,
    pub events: u64,
    pub seed: u64,
    pub partitions: u32,
    pub case: &'static Case,
}

impl Feed {
    /// Sends until all is sent or `over`; how many were.
    pub fn send(&self, brokers: &str, properties: &[(String, String)], mut room: Option<Room>, over: &dyn Fn() -> bool) -> Result<u64> {
        let mut producer = KafkaProducer::new(brokers, properties)?;
        let mut workload = generate::demo_workload(self.case, self.seed, self.partitions);
        let mut record = Generated::default();
        let mut sent = 0;
        while sent < self.events && !over() {
            workload.next_into(&mut record);
            if let Some(room) = &mut room {
                room.take(&record, sent, over);
            }
            let topic = self.topics.iter().find(|(name, _)| *name == record.topic).map_or(record.topic, |(_, made)| made);
            producer.send(topic, record.partition as i32, record.key.as_deref(), record.value.as_deref(), record.timestamp_ms)?;
            sent += 1;
        }
        producer.flush()?;
        Ok(sent)
    }
}

/// Room on a broker that forgets.
pub struct Room {
    shared: Arc<Shared>,
    /// Groups of records not yet known to be read: how many had been sent at a group's end, and its bytes.
    waiting: VecDeque<(u64, usize)>,
    waiting_bytes: usize,
    group: (u64, usize),
}

impl Room {
    /// `shared` counts what is read.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, waiting: VecDeque::new(), waiting_bytes: 0, group: (0, 0) }
    }

    /// Waits until this record, the one after `sent` others, has room.
    fn take(&mut self, record: &Generated, sent: u64, over: &dyn Fn() -> bool) {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let bytes = RECORD_OVERHEAD_BYTES + length(&record.key) + length(&record.value);
        self.group = (self.group.0 + 1, self.group.1 + bytes);
        if self.group.0 < GROUP_RECORDS {
            return;
        }
        self.waiting.push_back((sent + 1, self.group.1));
        self.waiting_bytes += self.group.1;
        self.group = (0, 0);
        // Records are read in another order than they were sent, over partitions; so only counts say what is safe: of all that is sent
        // and not read, at most one partition's worth.
        while self.waiting_bytes > MOCK_PARTITION_BYTES_MAX {
            let read = self.shared.rows_in.load(Ordering::Acquire);
            while let Some((_, bytes)) = self.waiting.pop_front_if(|(at, _)| *at <= read) {
                self.waiting_bytes -= bytes;
            }
            if over() {
                return;
            }
            if self.waiting_bytes > MOCK_PARTITION_BYTES_MAX {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
