//! A Kafka broker inside the process, librdkafka's own: for `tidemill demo` without Kafka, and for tests.
//!
//! Always: it listens on 127.0.0.1 and ends with its owner. It keeps at most `MOCK_PARTITION_BYTES_MAX` (compressed) and 100,000 batches a
//! partition and then drops the oldest: who writes must wait for who reads. It shows the records of aborted transactions, so nothing
//! about transactions is tested on it; it has no timestamps index, so `start` at a time is not served.

use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};

use super::client::{Client, Kind, c_string, describe, text_of};
use super::status::KafkaStatus;

/// What a partition of the mock broker holds (`rdkafka_mock.c`: `max_size`), less one batch.
pub const MOCK_PARTITION_BYTES_MAX: usize = (5 << 20) - (1 << 20);

/// See the module doc.
pub struct MockBroker {
    cluster: NonNull<rd::rd_kafka_mock_cluster_t>,
    address: String,
    // Ends after the cluster.
    _client: Arc<Client>,
}

// SAFETY: the cluster runs on its own thread and is spoken to through locks.
unsafe impl Send for MockBroker {}
// SAFETY: as above.
unsafe impl Sync for MockBroker {}

impl MockBroker {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let client = Client::new(Kind::Producer, &[("client.id".to_string(), "mock".to_string())], KafkaStatus::new("mock"))?;
        // SAFETY: the client lives as long as the cluster; the address is copied.
        unsafe {
            let cluster = NonNull::new(rd::rd_kafka_mock_cluster_new(client.raw(), 1))
                .ok_or_else(|| Error::failed("the embedded broker did not start"))?;
            let address = text_of(rd::rd_kafka_mock_cluster_bootstraps(cluster.as_ptr()));
            Ok(Self { cluster, address, _client: client })
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let name = c_string(topic)?;
        // SAFETY: both live through the call.
        match unsafe { rd::rd_kafka_mock_topic_create(self.cluster.as_ptr(), name.as_ptr(), partitions, 1) } {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Error::failed(format!("embedded broker: topic {topic}: {}", describe(code)))),
        }
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        // SAFETY: ours, and its client still lives.
        unsafe { rd::rd_kafka_mock_cluster_destroy(self.cluster.as_ptr()) };
    }
}
