//! Writing records for `generate` and `demo`: to a given partition, with key, value and timestamp, as fast as the broker takes them.
//!
//! Always: what is waiting to be sent is bounded (`send` waits when it is full), each record is written once and in order a partition
//! (idempotent), and a record that could not be delivered is an error of the next call. Not here: transactions (the Kafka sink has its own).

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};

use super::client::{Client, Kind, c_string, describe};
use super::properties;
use super::status::KafkaStatus;

/// Bytes and records that may wait to be sent.
const WAITING_KBYTES_MAX: usize = 64 << 10;
const WAITING_RECORDS_MAX: usize = 500_000;
/// How long a record may take to be delivered.
const DELIVERY_MS_MAX: u64 = 60_000;
/// A record larger than this is refused here already.
const RECORD_BYTES_MAX: usize = 8 << 20;
/// Callbacks are served once in so many records.
const POLL_EVERY: u32 = 1024;

/// See the module doc.
pub struct KafkaProducer {
    client: Arc<Client>,
    topics: Vec<(String, Topic)>,
    since_poll: u32,
}

/// A topic's handle. Records name it instead of looking it up.
struct Topic(*mut rd::rd_kafka_topic_t);

// SAFETY: librdkafka's topic handles are locked inside.
unsafe impl Send for KafkaProducer {}

impl KafkaProducer {
    /// For these brokers, with the user's librdkafka properties. Contacts nobody yet.
    pub fn new(brokers: &str, user: &[(String, String)]) -> Result<Self> {
        let own = [
            ("enable.idempotence", "true".to_string()),
            ("compression.type", "lz4".into()),
            ("linger.ms", "20".into()),
            ("batch.size", (1 << 20).to_string()),
            ("batch.num.messages", "100000".into()),
            ("queue.buffering.max.kbytes", WAITING_KBYTES_MAX.to_string()),
            ("queue.buffering.max.messages", WAITING_RECORDS_MAX.to_string()),
            ("message.max.bytes", RECORD_BYTES_MAX.to_string()),
            ("message.timeout.ms", DELIVERY_MS_MAX.to_string()),
            ("delivery.report.only.error", "true".into()),
        ];
        let properties = properties(brokers, &own, user)?;
        let client = Client::new(Kind::Producer, &properties, KafkaStatus::new(brokers))?;
        Ok(Self { client, topics: Vec::new(), since_poll: 0 })
    }

    /// The brokers' health.
    pub fn status(&self) -> &Arc<KafkaStatus> {
        self.client.status()
    }

    /// Hands over one record; waits while too much is waiting. An error may be about a record before it.
    pub fn send(&mut self, topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: i64) -> Result<()> {
        self.since_poll += 1;
        if self.since_poll >= POLL_EVERY {
            self.since_poll = 0;
            self.serve(0)?;
        }
        let handle = self.handle(topic)?;
        loop {
            match self.try_send(handle, partition, key, value, timestamp_ms) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => return Ok(()),
                Code::RD_KAFKA_RESP_ERR__QUEUE_FULL => self.serve(10)?,
                code => return Err(Error::external(format!("topic {topic}, partition {partition}: {}", describe(code)))),
            }
        }
    }

    /// Waits until everything handed over is on the broker.
    pub fn flush(&mut self) -> Result<()> {
        let begin = Instant::now();
        // SAFETY: the client lives.
        while unsafe { rd::rd_kafka_flush(self.client.raw(), 200) } != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            self.serve(0)?;
            if begin.elapsed() >= Duration::from_millis(2 * DELIVERY_MS_MAX) {
                return Err(Error::external(format!("{} records could not be delivered", self.waiting())));
            }
        }
        self.serve(0)
    }

    /// Records handed over and not yet acknowledged.
    pub fn waiting(&self) -> usize {
        // SAFETY: the client lives.
        usize::try_from(unsafe { rd::rd_kafka_outq_len(self.client.raw()) }).unwrap_or(0)
    }

    fn serve(&self, wait_ms: i32) -> Result<()> {
        self.client.poll(wait_ms);
        match self.client.take_undelivered() {
            Some(text) => {
                let why = self.client.status().trouble().map_or(String::new(), |trouble| format!(" ({})", trouble.text));
                Err(Error::external(format!("{text}{why}")))
            }
            None => Ok(()),
        }
    }

    fn handle(&mut self, topic: &str) -> Result<*mut rd::rd_kafka_topic_t> {
        if let Some((_, handle)) = self.topics.iter().find(|(name, _)| name == topic) {
            return Ok(handle.0);
        }
        let name: CString = c_string(topic)?;
        // SAFETY: both live through the call; the handle is let go in `drop`, before the client.
        let handle = unsafe { rd::rd_kafka_topic_new(self.client.raw(), name.as_ptr(), std::ptr::null_mut()) };
        if handle.is_null() {
            return Err(Error::failed(format!("topic {topic}: librdkafka gave no handle")));
        }
        self.topics.push((topic.to_string(), Topic(handle)));
        Ok(handle)
    }

    fn try_send(
        &self,
        topic: *mut rd::rd_kafka_topic_t,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
    ) -> Code {
        use rd::rd_kafka_vtype_t as Tag;
        let parts = |bytes: Option<&[u8]>| bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
        let ((value, value_len), (key, key_len)) = (parts(value), parts(key));
        // SAFETY: `rd_kafka_producev` takes tagged arguments up to END, of the types that rdkafka.h gives for each tag; it copies key and
        // value (F_COPY).
        unsafe {
            rd::rd_kafka_producev(
                self.client.raw(),
                Tag::RD_KAFKA_VTYPE_RKT,
                topic,
                Tag::RD_KAFKA_VTYPE_PARTITION,
                partition,
                Tag::RD_KAFKA_VTYPE_MSGFLAGS,
                rd::RD_KAFKA_MSG_F_COPY,
                Tag::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                Tag::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                Tag::RD_KAFKA_VTYPE_TIMESTAMP,
                timestamp_ms,
                Tag::RD_KAFKA_VTYPE_END,
            )
        }
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        for (_, topic) in self.topics.drain(..) {
            // SAFETY: ours, and the client still lives.
            unsafe { rd::rd_kafka_topic_destroy(topic.0) };
        }
    }
}
